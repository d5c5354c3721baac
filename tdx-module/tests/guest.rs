//! What a TD does that the module hears of: exits and TDCALLs (architecture.md §6.3, §7.9, §7.11).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::cases::hold;
use common::{GLOBAL, World};
use expect_test::expect;
use sim_core::tdx::{ExitReason, GuestLeaf, GuestOutcome, Leaf, Operand, Status};
use sim_core::{Addr, Hpa, KeyId, Page, Ps};
use std::fmt::Write;
use std::sync::LazyLock;
use tdx_module::sept::{Entry, State};
use tdx_module::td::{LastExit, Vcpu, VcpuState, VeInfo, layout};
use tdx_module::{
    Action, Answer, Call, EXITS, ExitEffect, ExitKind, GUEST_NOT_MODELLED, Inject, Reply, Touch,
    VmExit, sept_at,
};

const HKID: u16 = 65;
/// The SHARED bit of a TD of 48 bits.
const SHARED: u64 = 1 << 47;

/// Where things are.
mod gpa {
    pub(super) const MAPPED: u64 = 0;
    pub(super) const PENDING: u64 = 0x1000;
    pub(super) const BLOCKED: u64 = 0x2000;
    pub(super) const PENDING_BLOCKED: u64 = 0x3000;
    pub(super) const FREE: u64 = 0x4000;
    /// 2 MiB, PENDING.
    pub(super) const LARGE: u64 = 0x20_0000;
    /// 2 MiB, accepted.
    pub(super) const ACCEPTED: u64 = 0x40_0000;
    /// No Secure-EPT.
    pub(super) const NOWHERE: u64 = 1 << 40;
}

#[derive(Clone)]
struct Bench {
    w: World,
    td: u64,
    /// The VCPUs: the first with LP 0, the second with none.
    vcpu: u64,
    second: u64,
    /// Secure-EPT pages: entries of level 2, 1 and 0 of GPA 0.
    tables: Vec<u64>,
    /// The pages at GPA PENDING and LARGE.
    pending: u64,
    large: u64,
    /// Another TD that can run.
    other: u64,
}

fn build(attributes: u64) -> Bench {
    let mut w = World::ready();
    let td = w.initialized_td(u64::from(HKID), attributes);
    let (vcpu, second) = (w.vcpu(td), w.vcpu(td));
    // The second one is free to go to any LP.
    w.ok(Leaf::VP_FLUSH, second, 0, 0, 0);
    let tables = w.sept(td, 0, 0);
    w.add(td, gpa::MAPPED);
    w.add(td, gpa::BLOCKED);
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    let pending = w.aug(td, gpa::PENDING);
    w.aug(td, gpa::PENDING_BLOCKED);
    let [large, accepted] = [0, 1].map(|_| w.block(2 << 20));
    w.ok(Leaf::MEM_PAGE_AUG, gpa::LARGE | 1, td, large, 0);
    w.ok(Leaf::MEM_PAGE_AUG, gpa::ACCEPTED | 1, td, accepted, 0);
    for at in [gpa::BLOCKED, gpa::PENDING_BLOCKED] {
        w.ok(Leaf::MEM_RANGE_BLOCK, at, td, 0, 0);
    }
    let other = w.runnable_td(66).tdvpr;
    w.enter(0, vcpu);
    let answer = tdcall(&mut w, 0, GuestLeaf::MEM_PAGE_ACCEPT, [gpa::ACCEPTED | 1; 8]);
    assert_eq!(answered(answer).status, Status::SUCCESS);
    w.exit(0, VmExit::Interrupt);
    Bench { w, td, vcpu, second, tables, pending, large, other }
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| build(0));

/// The bench with the first VCPU running on LP 0.
fn running() -> Bench {
    let mut b = BENCH.clone();
    b.w.enter(0, b.vcpu);
    b
}

fn page(pa: u64) -> Page {
    Hpa(pa).page()
}
fn vcpu(w: &World, tdvpr: u64) -> &Vcpu {
    w.m.vcpu(page(tdvpr)).unwrap()
}
fn tdcall(w: &mut World, lp: usize, leaf: GuestLeaf, regs: [u64; 8]) -> Action {
    w.exit(lp, VmExit::Tdcall { leaf, version: 0, regs })
}
fn accept(w: &mut World, lp: usize, gpa_and_level: u64) -> Action {
    tdcall(w, lp, GuestLeaf::MEM_PAGE_ACCEPT, [gpa_and_level, 0, 0, 0, 0, 0, 0, 0])
}
/// What the guest finds.
fn injected(action: Action) -> Inject {
    match action {
        Action::Enter(guest) => guest.inject,
        other => panic!("the guest does not go on: {other:?}"),
    }
}
/// The answer to the guest's TDCALL.
fn answered(action: Action) -> Answer {
    match injected(action) {
        Inject::Answer(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}
/// What TDH.VP.ENTER returned.
fn left(action: Action) -> Answer {
    match action {
        Action::Return(answer) => answer,
        other => panic!("the guest has not left: {other:?}"),
    }
}
const fn exit(reason: u32) -> Status {
    Status::SUCCESS.exit(ExitReason(reason))
}
const fn busy(operand: Operand) -> Status {
    Status::OPERAND_BUSY.about(operand)
}
/// The KeyIDs of everything that was touched.
fn keys(w: &World) -> Vec<u16> {
    let key = |t: &Touch| match t {
        Touch::Load { at, .. } | Touch::Store { at, .. } | Touch::Fill { at, .. } => {
            Some(at.keyid.0)
        }
        Touch::Copy { .. } | Touch::FlushPage { .. } => panic!("{t:?}"),
        _ => None,
    };
    w.touches.iter().filter_map(key).collect()
}
fn loads(w: &World) -> Vec<(u64, u16)> {
    let load = |t: &Touch| match t {
        Touch::Load { at, .. } => Some((at.hpa.0, at.keyid.0)),
        _ => None,
    };
    w.touches.iter().filter_map(load).collect()
}
fn stores(w: &World) -> Vec<(u64, u16)> {
    let store = |t: &Touch| match t {
        Touch::Store { at, .. } => Some((at.hpa.0, at.keyid.0)),
        _ => None,
    };
    w.touches.iter().filter_map(store).collect()
}
fn fills(w: &World) -> Vec<(Addr, u32, u64)> {
    let fill = |t: &Touch| match t {
        Touch::Fill { at, lines, word } => Some((*at, *lines, *word)),
        _ => None,
    };
    w.touches.iter().filter_map(fill).collect()
}
/// The entry of a GPA at a level of the tables of GPA 0.
fn entry_at(b: &Bench, gpa: u64, level: u8) -> Entry {
    let table = b.tables[usize::from(2 - level)];
    let index = (gpa >> (12 + 9 * level) & 511) as u16;
    b.w.m.sept_entry(page(table), index).unwrap()
}

// -------------------------------------------------------------------------------------------------------------- exits

/// An exit of each kind.
fn example(kind: ExitKind) -> VmExit {
    match kind {
        ExitKind::MachineCheck => VmExit::MachineCheck,
        ExitKind::Nmi => VmExit::Nmi,
        ExitKind::Interrupt => VmExit::Interrupt,
        ExitKind::TripleFault => VmExit::TripleFault,
        ExitKind::Msmi => VmExit::Smi { msmi: true },
        ExitKind::Smi => VmExit::Smi { msmi: false },
        ExitKind::EntryMachineCheck => VmExit::EntryMachineCheck,
        ExitKind::SharedViolation => VmExit::EptViolation { gpa: SHARED | 0x1234, access: 2 },
        ExitKind::PrivateViolation => VmExit::EptViolation { gpa: gpa::FREE | 0x123, access: 1 },
        ExitKind::SharedMisconfiguration => VmExit::EptMisconfiguration { gpa: SHARED | 0x1234 },
        ExitKind::PrivateMisconfiguration => VmExit::EptMisconfiguration { gpa: gpa::MAPPED },
        ExitKind::Tdcall => VmExit::Tdcall { leaf: GuestLeaf::VP_INFO, version: 0, regs: [0; 8] },
    }
}

#[test]
fn every_exit_does_what_its_row_of_the_table_says() {
    for row in &EXITS {
        let mut b = running();
        b.w.tsc = 7777;
        let action = b.w.exit(0, example(row.kind));
        let (td, v) = (b.w.td(b.td), vcpu(&b.w, b.vcpu));
        let running = (u64::from(td.refcount[1]), v.state);
        match row.effect {
            ExitEffect::Leaves(status) => {
                let answer = left(action);
                assert_eq!(answer.status, status.exit(row.reason), "{:?}", row.kind);
                assert_eq!(answer.out[3], row.interruption);
                assert_eq!((running, v.last_tsc), ((0, VcpuState::Ready), 7777));
                assert_eq!((v.last_exit, td.fatal), (LastExit::AsyncFault, false));
                assert!(b.w.m.is_quiet());
            }
            ExitEffect::Disables(status) => {
                assert_eq!(left(action).status, status.exit(row.reason));
                assert_eq!((running, td.fatal), ((0, VcpuState::Disabled), false));
                assert!(b.w.m.is_quiet());
            }
            ExitEffect::Kills => {
                let answer = left(action);
                let status = Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE.exit(row.reason);
                assert_eq!((answer.status, answer.out[3]), (status, row.interruption));
                // TDCS and TDVPS stay as they were: still counted, still active (architecture.md §6.3, §7.8).
                assert_eq!((running, v.last_tsc), ((1, VcpuState::Active), BENCH.w.tsc));
                assert!(td.fatal && b.w.m.is_quiet());
            }
            ExitEffect::Module => {}
            ExitEffect::Fatal => assert_eq!(action, Action::Fatal, "{:?}", row.kind),
        }
    }
}

#[test]
fn the_exits_of_the_sheet_have_its_numbers() {
    // architecture.md §6.3, Q-04, Q-21.
    for (exit, rax, r9) in [
        (VmExit::MachineCheck, 0x6000_0005_0000_0000, 0x8000_0312),
        (VmExit::Smi { msmi: true }, 0x6000_0005_0000_0006, 0),
        (VmExit::EntryMachineCheck, 0x6000_0005_8000_0029, 0),
        (VmExit::Smi { msmi: false }, 6, 0),
        (VmExit::Interrupt, 1, 0),
        (VmExit::Nmi, 0, 0x8000_0202),
        (VmExit::TripleFault, 0x4000_0001_0000_0002, 0),
    ] {
        let mut b = running();
        let answer = left(b.w.exit(0, exit));
        let msmi = u64::from(exit == VmExit::Smi { msmi: true });
        assert_eq!((answer.status.0, answer.out), (rax, [msmi, 0, 0, r9, 0, 0]), "{exit:?}");
    }
}

#[test]
fn a_live_exit_saves_the_guest_under_the_td_s_key_and_counts_it_out() {
    let mut b = running();
    b.w.exit(0, VmExit::Interrupt);
    let (tdvpr, tdcs) = (page(b.vcpu), b.w.td(b.td).tdcs[0]);
    let vmcs = vcpu(&b.w, b.vcpu).pages[1];
    assert_eq!(loads(&b.w), [(layout::tdr_management(page(b.td)).0, GLOBAL as u16)]);
    let stored: Vec<_> = stores(&b.w).into_iter().filter(|(_, key)| *key == HKID).collect();
    assert_eq!(
        stored,
        [
            (layout::tdvps_vmcs(vmcs).0, HKID),
            (layout::tdvps_registers(tdvpr, 0).0, HKID),
            (layout::tdvps_registers(tdvpr, 1).0, HKID),
            (layout::tdvps_management(tdvpr).0, HKID),
            (layout::tdvps_management(tdvpr).0, HKID),
            (layout::tdcs_refcounts(tdcs).0, HKID),
        ]
    );
    // The rest: the PAMT locks of TDR and TDVPR.
    assert_eq!(keys(&b.w).into_iter().filter(|key| *key == GLOBAL as u16).count(), 1 + 4);
    assert!(fills(&b.w).is_empty());
}

#[test]
fn a_machine_check_touches_nothing_under_the_td_s_key() {
    // architecture.md §6.3 row 1, §7.10.5.
    for exit in [VmExit::MachineCheck, VmExit::Smi { msmi: true }, VmExit::EntryMachineCheck] {
        let mut b = running();
        b.w.exit(0, exit);
        assert!(keys(&b.w).iter().all(|key| *key == GLOBAL as u16), "{exit:?}");
        let tdr = (layout::tdr_management(page(b.td)).0, GLOBAL as u16);
        assert!(stores(&b.w).contains(&tdr) && loads(&b.w).contains(&tdr));
    }
}

#[test]
fn a_fatal_td_cannot_be_entered_by_any_vcpu_and_another_td_can() {
    // architecture.md Q-05.
    let mut b = running();
    b.w.exit(0, VmExit::MachineCheck);
    for tdvpr in [b.vcpu, b.second] {
        let answer = b.w.call(Leaf::VP_ENTER, tdvpr, 0, 0, 0);
        assert_eq!(answer.status.0, 0xE000_0604_0000_0000);
    }
    b.w.enter(0, b.other);
    assert_eq!(left(b.w.exit(0, VmExit::Interrupt)).status, exit(1));
}

#[test]
fn other_vcpus_of_a_fatal_td_run_until_their_next_exit_and_then_leave_the_same_way() {
    // verification.md P9; architecture.md §6.3 row 4.
    for kind in EXITS.iter().map(|row| row.kind) {
        let mut b = running();
        b.w.enter(1, b.second);
        b.w.exit(0, VmExit::MachineCheck);
        assert!(b.w.flights[1].is_in_guest());
        let answer = left(b.w.exit(1, example(kind)));
        let reason = EXITS.iter().find(|row| row.kind == kind).unwrap().reason;
        let status = Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE.exit(reason);
        assert_eq!(answer.status, status, "{kind:?}");
        assert!(keys(&b.w).iter().all(|key| *key == GLOBAL as u16), "{kind:?}");
        assert_eq!(b.w.td(b.td).refcount[1], 2, "neither was counted out");
        assert!(b.w.m.is_quiet());
    }
}

#[test]
fn lmce_off_every_lp_s_machine_check_is_an_event_of_its_own() {
    // architecture.md §6.3 "LMCE off": every TD that was running on any LP is made fatal.
    let mut b = running();
    b.w.enter(1, b.second);
    for lp in 0..2 {
        let answer = left(b.w.exit(lp, VmExit::MachineCheck));
        assert_eq!(answer.status.0, 0x6000_0005_0000_0000);
    }
    assert!(b.w.td(b.td).fatal && b.w.m.is_quiet());
}

#[test]
fn a_vcpu_with_a_triple_fault_never_runs_again_and_the_others_do() {
    let mut b = running();
    b.w.exit(0, VmExit::TripleFault);
    let answer = b.w.call(Leaf::VP_ENTER, b.vcpu, 0, 0, 0);
    assert_eq!(answer.status, Status::VCPU_STATE_INCORRECT);
    assert_eq!(
        b.w.call(Leaf::VP_WR, b.vcpu, 0x2, 0, u64::MAX).status,
        Status::VCPU_STATE_INCORRECT
    );
    // Reading is allowed, and so is the way to teardown.
    b.w.ok(Leaf::VP_RD, b.vcpu, 0x2, 0, 0);
    b.w.enter(0, b.second);
    b.w.exit(0, VmExit::Interrupt);
    b.w.ok(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
}

#[test]
fn a_guest_that_goes_on_stays_counted_and_keeps_its_locks() {
    let mut b = running();
    assert!(matches!(tdcall(&mut b.w, 0, GuestLeaf::VP_INFO, [0; 8]), Action::Enter(_)));
    assert_eq!(b.w.td(b.td).refcount[1], 1);
    let flush = Call::new(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
    assert_eq!(b.w.call_on(1, flush).status, busy(Operand::RCX));
    // It still can leave.
    assert_eq!(left(b.w.exit(0, VmExit::Interrupt)).status, exit(1));
    assert!(b.w.m.is_quiet());
}

// ------------------------------------------------------------------------------------------------------ EPT violations

const fn violation(gpa: u64, access: u8) -> VmExit {
    VmExit::EptViolation { gpa, access }
}

#[test]
fn an_access_to_a_pending_page_raises_ve_and_the_guest_can_ask_why_once() {
    let mut b = running();
    let at = gpa::PENDING + 0x234;
    let inject = injected(b.w.exit(0, violation(at, 2)));
    assert_eq!(inject, Inject::Ve { reason: ExitReason(48), gpa: at });
    // The module walked the Secure-EPT: one entry per level, under the TD's key.
    let root = b.w.td(b.td).tdcs[3];
    let walk: Vec<(u64, u16)> =
        [(root, 0), (page(b.tables[0]), 0), (page(b.tables[1]), 0), (page(b.tables[2]), 1)]
            .map(|(table, index)| (sept_at(table, index).0, HKID))
            .into();
    assert!(loads(&b.w).windows(4).any(|w| w == walk), "{:x?}", loads(&b.w));
    let ve = VeInfo { reason: ExitReason(48), qualification: 2, gpa: at };
    assert_eq!(vcpu(&b.w, b.vcpu).ve, Some(ve));

    let info = answered(tdcall(&mut b.w, 0, GuestLeaf::VP_VEINFO_GET, [9; 8]));
    assert_eq!((info.status, info.out), (Status::SUCCESS, [48, 2, 0, at, 0, 9]));
    let again = answered(tdcall(&mut b.w, 0, GuestLeaf::VP_VEINFO_GET, [9; 8]));
    assert_eq!((again.status, again.out), (Status::NO_VALID_VE_INFO, [0, 0, 0, 0, 0, 9]));
}

#[test]
fn a_second_ve_before_the_first_was_asked_about_is_a_double_fault() {
    let mut b = running();
    b.w.exit(0, violation(gpa::PENDING, 1));
    let inject = injected(b.w.exit(0, violation(gpa::LARGE, 1)));
    assert_eq!(inject, Inject::Exception { vector: 8, error: 0 });
    assert_eq!(vcpu(&b.w, b.vcpu).ve.map(|ve| ve.gpa), Some(gpa::PENDING));
}

#[test]
fn with_sept_ve_disable_an_access_to_a_pending_page_leaves_the_td() {
    let mut b = build(1 << 28);
    b.w.enter(0, b.vcpu);
    for at in [gpa::PENDING | 0x88, gpa::LARGE | 0x1088] {
        let answer = left(b.w.exit(0, violation(at, 4)));
        // Extended exit qualification type 6 (architecture.md §7.11).
        assert_eq!((answer.status, answer.out), (exit(48), [4, 6, at & !0xfff, 0, 0, 0]));
        b.w.enter(0, b.vcpu);
    }
}

#[test]
fn other_private_violations_and_shared_ones_leave_the_td_with_the_page_s_address() {
    for at in [gpa::BLOCKED, gpa::PENDING_BLOCKED, gpa::FREE, gpa::NOWHERE, SHARED] {
        let mut b = running();
        let answer = left(b.w.exit(0, violation(at | 0xabc, 2)));
        assert_eq!((answer.status, answer.out), (exit(48), [2, 0, at, 0, 0, 0]), "{at:#x}");
        assert_eq!(b.w.td(b.td).refcount[1], 0);
    }
    // A shared address needs no walk: only the TDR is read.
    let mut b = running();
    b.w.exit(0, violation(SHARED, 2));
    assert_eq!(loads(&b.w).len(), 1);
}

#[test]
fn an_entry_that_lets_the_guest_in_by_now_leaves_the_td_all_the_same() {
    // intel/tdx-module 1.5.01 td_ept_violation.c: only a pending page is told apart.
    for access in 1..8u8 {
        let mut b = running();
        let answer = left(b.w.exit(0, violation(gpa::MAPPED, access)));
        assert_eq!(answer.status, exit(48));
        assert_eq!(answer.out, [u64::from(access) | 7 << 3, 0, gpa::MAPPED, 0, 0, 0]);
        assert_eq!(b.w.td(b.td).refcount[1], 0);
    }
}

#[test]
fn an_address_above_the_shared_bit_is_a_page_fault_of_the_guest() {
    let mut b = running();
    for (access, error) in [(1, 9), (2, 0xb), (4, 0x19)] {
        let inject = injected(b.w.exit(0, violation(1 << 50, access)));
        assert_eq!(inject, Inject::Exception { vector: 14, error });
    }
}

#[test]
fn a_misconfigured_shared_entry_leaves_the_td_and_a_private_one_ends_the_module() {
    let mut b = running();
    let answer = left(b.w.exit(0, VmExit::EptMisconfiguration { gpa: SHARED | 0x1fff }));
    assert_eq!((answer.status, answer.out), (exit(49), [0, 0, SHARED | 0x1000, 0, 0, 0]));
    b.w.enter(0, b.vcpu);
    assert_eq!(b.w.exit(0, VmExit::EptMisconfiguration { gpa: gpa::MAPPED }), Action::Fatal);
}

// ------------------------------------------------------------------------------------------------- TDCALLs: dispatcher

#[test]
fn unknown_tdcalls_and_versions_are_refused_and_the_guest_keeps_its_registers() {
    let regs = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut b = running();
    for (leaf, version) in [(13, 0), (99, 0), (6, 1), (1, 255), (13, 1)] {
        let leaf = GuestLeaf(leaf);
        let answer = answered(b.w.exit(0, VmExit::Tdcall { leaf, version, regs }));
        let status = Status::OPERAND_INVALID.about(Operand::RAX);
        assert_eq!((answer.status, answer.out), (status, [1, 2, 3, 4, 5, 6]));
    }
}

#[test]
fn what_is_not_modelled_says_so_and_everything_else_answers() {
    for number in 0..64 {
        let leaf = GuestLeaf(number);
        let mut b = running();
        let action = tdcall(&mut b.w, 0, leaf, [0; 8]);
        let unknown = GUEST_NOT_MODELLED.contains(&leaf);
        assert_eq!(action == Action::NotModelled, unknown, "{leaf}");
        assert!(!unknown || leaf.row().is_some());
    }
}

#[test]
fn a_tdcall_costs_an_exit_its_work_and_an_entry() {
    let mut b = running();
    let before = b.w.now;
    tdcall(&mut b.w, 0, GuestLeaf::VP_INFO, [0; 8]);
    let cost = b.w.m.spec().tdx.cost;
    assert_eq!(b.w.now.since(before), Ps(cost.exit.0 + cost.tdcall.0 + cost.enter.0));
}

// ---------------------------------------------------------------------------------------------------- TDG.VP.VMCALL, ...

#[test]
fn vmcall_passes_the_registers_of_its_mask_to_the_vmm_and_back() {
    // MapGPA (architecture.md §7.9 "TDG.VP.VMCALL"): R10 to R13.
    let mut b = running();
    let mask = 0b11_1100 << 8;
    let regs = [mask, 2, 8, 9, 0x10, 0x10001, 0x1_2000, 0x1000];
    let answer = left(tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, regs));
    assert_eq!((answer.status, answer.out), (exit(77), [mask, 0, 0, 0, 0x10, 0x10001]));
    assert_eq!(*b.w.flights[0].regs(), [mask, 0, 0, 0, 0x10, 0x10001, 0x1_2000, 0x1000]);
    assert_eq!(vcpu(&b.w, b.vcpu).last_exit, LastExit::Vmcall);
    assert_eq!(b.w.td(b.td).refcount[1], 0);

    // The next entry answers. What the mask does not name stays the guest's.
    let mut call = Call::new(Leaf::VP_ENTER, b.vcpu, 0xbad, 0xbad, 0xbad);
    (call.regs[4], call.regs[5]) = (0, 0x77);
    assert!(b.w.begin(0, &call));
    let answer = answered(b.w.run(0, Reply::Done));
    assert_eq!((answer.status, answer.out), (Status::SUCCESS, [mask, 2, 8, 9, 0, 0x77]));
    // Only once.
    b.w.exit(0, VmExit::Interrupt);
    assert_eq!(b.w.enter(0, b.vcpu).inject, Inject::Nothing);
}

#[test]
fn a_debugger_reads_every_field_of_a_vcpu_that_left_by_vmcall() {
    let mut b = build(1);
    b.w.enter(0, b.vcpu);
    let regs = [0b11_1100 << 8, 2, 8, 9, 0x10, 0x11, 0x12, 0x13];
    left(tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, regs));
    // Version 1 of TDH.VP.RD gives the next id with each value.
    let mut call = Call::new(Leaf::VP_RD, b.vcpu, u64::MAX, 0, 0);
    call.rax |= 1 << 16;
    let mut read = String::new();
    let first = b.w.call_on(0, call);
    assert_eq!(first.status, Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    let mut next = first.out[1];
    while next != u64::MAX {
        call.regs[1] = next;
        let answer = b.w.call_on(0, call);
        assert_eq!(answer.status, Status::SUCCESS, "{next:#x}");
        let value = match next {
            // This depends on how the bench was built.
            0xa020_0003_0000_000a => {
                assert_eq!(answer.out[2], vcpu(&b.w, b.vcpu).last_tsc);
                "the time of its exit".to_owned()
            }
            _ => format!("{:#x}", answer.out[2]),
        };
        writeln!(read, "{next:#x} {value}").unwrap();
        next = answer.out[1];
    }
    assert!(vcpu(&b.w, b.vcpu).last_tsc > 0);
    expect![[r#"
        0x24000100000002 0xffff
        0x24000300002016 0xffffffffffffffc0
        0x2400030000203c 0x0
        0x24000200004000 0x0
        0x1020000300000001 0x3c00
        0x1020000300000002 0x2
        0x1020000300000008 0x8
        0x1020000300000009 0x9
        0x102000030000000a 0x10
        0x102000030000000b 0x11
        0x102000030000000c 0x12
        0x102000030000000d 0x13
        0xa020000000000000 0x2
        0xa020000200000002 0x0
        0xa020000000000003 0x6
        0xa020000200000004 0x0
        0xa020000300000006 0x1
        0xa02000030000000a the time of its exit
        0x202000000000000b 0x0
        0xa02000000000000f 0x2
    "#]]
    .assert_eq(&read);
}

#[test]
fn the_management_line_of_a_vcpu_in_memory_follows_it() {
    let mut b = running();
    let memory = |b: &Bench| b.w.peek(layout::tdvps_management(page(b.vcpu)).0, HKID);
    // State, last exit, pages, LP.
    assert_eq!(memory(&b), 4 | 6 << 16, "active on LP 0");
    left(tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, [0b11_1100 << 8, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(memory(&b), 2 | 2 << 8 | 6 << 16);
    b.w.ok(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
    assert_eq!(memory(&b), 2 | 2 << 8 | 6 << 16 | 0xffff << 32);
}

#[test]
fn accept_and_vmcall_have_an_outcome_for_every_row_of_the_sheet() {
    type Show = fn(&mut Bench) -> Action;
    let vmcall: &[Show] = &[
        |b| tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, [1 << 4, 0, 0, 0, 0, 0, 0, 0]),
        |b| {
            // CONFIG_FLAGS bit 2, NO_RBP_MOD.
            let mut w = World::ready();
            let td = w.keyed_td(65);
            let params = w.td_params(0, 1);
            w.poke(params + 32, 0, 4);
            w.ok(Leaf::MNG_INIT, td, params, 0, 0);
            let tdvpr = w.vcpu(td);
            w.sept(td, 0, 0);
            w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
            w.enter(0, tdvpr);
            b.w = w;
            tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, [1 << 5, 0, 0, 0, 0, 0, 0, 0])
        },
        |b| tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, [1 << 5, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let accepts: &[Show] = &[
        |b| accept(&mut b.w, 0, gpa::PENDING | 2),
        |b| accept(&mut b.w, 0, SHARED),
        |b| accept(&mut b.w, 0, gpa::ACCEPTED),
        |b| accept(&mut b.w, 0, gpa::NOWHERE),
        |b| {
            let block = Call::new(Leaf::MEM_RANGE_BLOCK, gpa::PENDING, b.td, 0, 0);
            hold(&mut b.w, block, 2);
            accept(&mut b.w, 0, gpa::PENDING)
        },
        |b| accept(&mut b.w, 0, gpa::MAPPED | 1),
        |b| accept(&mut b.w, 0, gpa::MAPPED),
        |b| accept(&mut b.w, 0, gpa::FREE),
        |b| {
            b.w.irq = true;
            accept(&mut b.w, 0, gpa::LARGE | 1)
        },
        |b| accept(&mut b.w, 0, gpa::PENDING),
    ];
    for (leaf, shows) in [(GuestLeaf::VP_VMCALL, vmcall), (GuestLeaf::MEM_PAGE_ACCEPT, accepts)] {
        let rows = leaf.checks().unwrap().checks;
        assert_eq!(rows.len(), shows.len());
        for (row, show) in rows.iter().zip(shows) {
            let mut b = running();
            let action = show(&mut b);
            match row.outcome {
                GuestOutcome::Returns(status) => {
                    let level = matches!(
                        status,
                        Status::PAGE_ALREADY_ACCEPTED | Status::PAGE_SIZE_MISMATCH
                    );
                    let found = answered(action).status;
                    assert_eq!(
                        if level { found.code() } else { found },
                        status,
                        "{leaf}: {}",
                        row.when
                    );
                }
                GuestOutcome::Exits { rax, qualification } => {
                    let answer = left(action);
                    let extended = answer.out[1] & 15;
                    // A VMCALL's RDX is a register of the guest.
                    let found =
                        (answer.status, if leaf == GuestLeaf::VP_VMCALL { 0 } else { extended });
                    assert_eq!(found, (rax, u64::from(qualification)), "{leaf}: {}", row.when);
                }
                GuestOutcome::Reexecutes => {
                    assert_eq!(left(action).status, exit(1));
                    assert_eq!(vcpu(&b.w, b.vcpu).last_exit, LastExit::AsyncFault);
                }
            }
        }
    }
}

#[test]
fn a_vmcall_names_only_registers_that_it_may() {
    let mut b = running();
    for bit in [0, 1, 4, 32, 63] {
        let regs = [1 << bit, 2, 3, 4, 5, 6, 7, 8];
        let answer = answered(tdcall(&mut b.w, 0, GuestLeaf::VP_VMCALL, regs));
        assert_eq!(answer.status, Status::OPERAND_INVALID.about(Operand::RCX), "{bit}");
        assert_eq!(answer.out, [1 << bit, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a_guest_learns_what_it_runs_on() {
    let mut b = running();
    let info = answered(tdcall(&mut b.w, 0, GuestLeaf::VP_INFO, [7; 8]));
    assert_eq!((info.status, info.out), (Status::SUCCESS, [48, 0, 2 | 4 << 32, 0, 1, 0]));
    // TDG.SYS.RD: the same as the host reads.
    let host = b.w.call_on(1, Call::new(Leaf::SYS_RD, 0, u64::MAX, 0, 0));
    let none = [0, u64::MAX, 7, 7, 7, 7, 7, 7];
    let first = answered(tdcall(&mut b.w, 0, GuestLeaf::SYS_RD, none));
    assert_eq!((first.status, first.out[1]), (host.status, host.out[1]));
    let mut id = first.out[1];
    let mut fields = 0;
    while id != u64::MAX {
        let host = b.w.call_on(1, Call::new(Leaf::SYS_RD, 0, id, 0, 0));
        let guest = answered(tdcall(&mut b.w, 0, GuestLeaf::SYS_RD, [0, id, 7, 7, 7, 7, 7, 7]));
        assert_eq!(
            (guest.status, guest.out[1], guest.out[2]),
            (host.status, host.out[1], host.out[2])
        );
        assert_eq!(guest.out[3], 7);
        id = guest.out[1];
        fields += 1;
    }
    assert!(fields > 10);
    let unknown = answered(tdcall(&mut b.w, 0, GuestLeaf::SYS_RD, [0, 1 << 40, 7, 7, 7, 7, 7, 7]));
    assert_eq!(unknown.status, Status::METADATA_FIELD_ID_INCORRECT);
}

#[test]
fn attributes_tell_level_and_whether_a_page_is_pending() {
    let mut b = running();
    let read = |b: &mut Bench, at: u64| {
        let regs = [at, 9, 9, 9, 9, 9, 9, 9];
        tdcall(&mut b.w, 0, GuestLeaf::MEM_PAGE_ATTR_RD, regs)
    };
    for (at, found) in [
        (gpa::MAPPED | 0x10, gpa::MAPPED),
        (gpa::PENDING, gpa::PENDING | 1 << 62),
        (gpa::LARGE + 0x5000, gpa::LARGE | 1 | 1 << 62),
        (gpa::ACCEPTED + 0x5000, gpa::ACCEPTED | 1),
    ] {
        let answer = answered(read(&mut b, at));
        assert_eq!((answer.status, answer.out), (Status::SUCCESS, [found, 0, 9, 9, 9, 9]));
    }
    let answer = answered(read(&mut b, SHARED));
    assert_eq!((answer.status, answer.out[0]), (Status::OPERAND_INVALID.about(Operand::RCX), 0));
    for at in [gpa::BLOCKED, gpa::FREE, gpa::NOWHERE] {
        let answer = left(read(&mut b, at));
        assert_eq!((answer.status, answer.out), (exit(48), [0, 0, at, 0, 0, 0]));
        b.w.enter(0, b.vcpu);
    }
}

// ------------------------------------------------------------------------------------------------- TDG.MEM.PAGE.ACCEPT

#[test]
fn accept_zeroes_the_page_under_the_td_s_key_and_then_lets_the_guest_in() {
    // timing.md §5.1; verification.md T3.
    let mut b = running();
    let answer = answered(accept(&mut b.w, 0, gpa::PENDING));
    assert_eq!(answer.status, Status::SUCCESS);
    assert_eq!(fills(&b.w), [(Addr::new(Hpa(b.pending), KeyId(HKID)), 64, 0)]);
    let entry = entry_at(&b, gpa::PENDING, 0);
    assert_eq!(entry, Entry::leaf(State::Mapped, page(b.pending)));
    // Lock, entry, unlock: the last store is what lies in memory.
    let at = sept_at(page(b.tables[2]), 1).0;
    assert_eq!(stores(&b.w).iter().filter(|(hpa, _)| *hpa == at).count(), 3);
    assert_eq!(b.w.peek(at, HKID), entry.0);
    // The zeros come before the entry.
    let fill = b.w.touches.iter().position(|t| matches!(t, Touch::Fill { .. })).unwrap();
    let mapped = b.w.touches.iter().position(
        |t| matches!(t, Touch::Store { at: a, value, .. } if a.hpa.0 == at && value[0] & 7 == 7),
    );
    assert!(mapped.unwrap() > fill);
    // Nobody else's line is touched: no PAMT entry, no TDR but at the exit.
    assert_eq!(keys(&b.w).iter().filter(|key| **key == GLOBAL as u16).count(), 1);
    let again = answered(accept(&mut b.w, 0, gpa::PENDING));
    assert_eq!(again.status, Status(Status::PAGE_ALREADY_ACCEPTED.0));
}

#[test]
fn accept_of_2_mib_zeroes_512_chunks_in_order() {
    let mut b = running();
    let answer = answered(accept(&mut b.w, 0, gpa::LARGE | 1));
    assert_eq!(answer.status, Status::SUCCESS);
    let wanted: Vec<_> =
        (0..512).map(|i| (Addr::new(Hpa(b.large + i * 4096), KeyId(HKID)), 64, 0)).collect();
    assert_eq!(fills(&b.w), wanted);
    assert_eq!(entry_at(&b, gpa::LARGE, 1), Entry::leaf(State::Mapped, page(b.large)));
    // The entry is written once: progress is not stored while nobody interrupts.
    let at = sept_at(page(b.tables[1]), 1).0;
    assert_eq!(stores(&b.w).iter().filter(|(hpa, _)| *hpa == at).count(), 3);
}

#[test]
fn an_interrupt_stops_accept_behind_a_chunk_and_the_guest_goes_on_there() {
    let mut b = running();
    b.w.irq = true;
    for done in 1..=3u16 {
        let answer = left(accept(&mut b.w, 0, gpa::LARGE | 1));
        assert_eq!((answer.status, answer.out), (exit(1), [0; 6]));
        let chunk = Hpa(b.large + u64::from(done - 1) * 4096);
        assert_eq!(fills(&b.w), [(Addr::new(chunk, KeyId(HKID)), 64, 0)]);
        let entry = entry_at(&b, gpa::LARGE, 1);
        assert_eq!((entry.state(), entry.accept_counter()), (Some(State::Pending), done));
        assert_eq!(b.w.peek(sept_at(page(b.tables[1]), 1).0, HKID), entry.0);
        assert_eq!(b.w.td(b.td).refcount[1], 0);
        // It executes the TDCALL again: nothing is injected, no register has changed.
        assert_eq!(b.w.enter(0, b.vcpu).inject, Inject::Nothing);
    }
    b.w.irq = false;
    assert_eq!(answered(accept(&mut b.w, 0, gpa::LARGE | 1)).status, Status::SUCCESS);
    assert_eq!(fills(&b.w).len(), 509);
    assert_eq!(entry_at(&b, gpa::LARGE, 1), Entry::leaf(State::Mapped, page(b.large)));
}

#[test]
fn the_last_chunk_is_not_followed_by_a_look_for_interrupts() {
    let mut b = running();
    b.w.irq = true;
    for _ in 0..511 {
        left(accept(&mut b.w, 0, gpa::LARGE | 1));
        b.w.enter(0, b.vcpu);
    }
    assert_eq!(entry_at(&b, gpa::LARGE, 1).accept_counter(), 511);
    assert_eq!(answered(accept(&mut b.w, 0, gpa::LARGE | 1)).status, Status::SUCCESS);
    assert_eq!(entry_at(&b, gpa::LARGE, 1), Entry::leaf(State::Mapped, page(b.large)));
}

#[test]
fn a_block_makes_accept_begin_again() {
    // architecture.md §7.9: "BLOCK/REMOVE/DEMOTE clear the counter".
    let mut b = running();
    b.w.irq = true;
    left(accept(&mut b.w, 0, gpa::LARGE | 1));
    b.w.irq = false;
    b.w.ok(Leaf::MEM_RANGE_BLOCK, gpa::LARGE | 1, b.td, 0, 0);
    b.w.enter(0, b.vcpu);
    let answer = left(accept(&mut b.w, 0, gpa::LARGE | 1));
    assert_eq!((answer.status, answer.out[1] & 15), (exit(48), 1));
    b.w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    b.w.ok(Leaf::MEM_RANGE_UNBLOCK, gpa::LARGE | 1, b.td, 0, 0);
    b.w.enter(0, b.vcpu);
    assert_eq!(answered(accept(&mut b.w, 0, gpa::LARGE | 1)).status, Status::SUCCESS);
    assert_eq!(fills(&b.w).len(), 512);
}

#[test]
fn the_details_of_an_accept_violation_say_where_its_walk_ended() {
    // Type 1; requested level, level, state and leaf bit of the entry (intel/tdx-module 1.5.01 tdx_api_defs.h).
    let details = |want: u64, level: u64, state: u64, leaf: u64| {
        1 | (want | level << 3 | state << 6 | leaf << 14) << 32
    };
    for (at, rdx) in [
        (gpa::FREE, details(0, 0, 0, 0)),
        (gpa::BLOCKED, details(0, 0, 1, 1)),
        (gpa::PENDING_BLOCKED, details(0, 0, 3, 1)),
        (gpa::LARGE, details(0, 1, 2, 1)),
        (gpa::NOWHERE, details(0, 3, 0, 0)),
        (gpa::NOWHERE | 1, details(1, 3, 0, 0)),
    ] {
        let mut b = running();
        let answer = left(accept(&mut b.w, 0, at));
        assert_eq!(
            (answer.status, answer.out),
            (exit(48), [2, rdx, at & !0xfff, 0, 0, 0]),
            "{at:#x}"
        );
        assert!(fills(&b.w).is_empty() && b.w.m.is_quiet());
        // The entry's lock is released, and before the VCPU counts as gone.
        let refcounts = layout::tdcs_refcounts(b.w.td(b.td).tdcs[0]).0;
        let stored = stores(&b.w);
        let gone = stored.iter().position(|(hpa, _)| *hpa == refcounts).unwrap();
        let tables = stored.iter().rposition(|(hpa, _)| b.tables.contains(&(hpa & !0xfff)));
        assert!(tables.is_none_or(|last| last < gone));
        assert!(!entry_at(&b, gpa::FREE, 0).locked());
    }
}

#[test]
fn the_level_of_a_page_that_is_there_or_of_another_size_is_told() {
    let mut b = running();
    let mut status = |at| answered(accept(&mut b.w, 0, at)).status;
    assert_eq!(status(gpa::ACCEPTED), Status(Status::PAGE_ALREADY_ACCEPTED.0 | 1));
    assert_eq!(status(gpa::ACCEPTED | 1), Status(Status::PAGE_ALREADY_ACCEPTED.0 | 1));
    assert_eq!(status(gpa::MAPPED), Status::PAGE_ALREADY_ACCEPTED);
    assert_eq!(status(gpa::MAPPED | 1), Status(Status::PAGE_SIZE_MISMATCH.0 | 1));
    assert!(!entry_at(&b, gpa::MAPPED, 1).locked());
    let rcx = Status::OPERAND_INVALID.about(Operand::RCX);
    let mut status = |at| answered(accept(&mut b.w, 0, at)).status;
    for bad in [gpa::PENDING | 2, gpa::PENDING | 1, gpa::PENDING | 8, 1 << 52, SHARED, 1 << 50] {
        assert_eq!(status(bad), rcx, "{bad:#x}");
    }
}

// ------------------------------------------------------------------------------------------------------- host priority

/// LP 0 is in an ACCEPT and holds the entry's lock.
fn accepting(at: u64) -> Bench {
    let mut b = running();
    let regs = [at, 0, 0, 0, 0, 0, 0, 0];
    let leaf = GuestLeaf::MEM_PAGE_ACCEPT;
    let mut reply = Reply::Exit(VmExit::Tdcall { leaf, version: 0, regs });
    loop {
        match b.w.step(0, reply) {
            // The zeroing is under way.
            Action::Touch(Touch::Fill { .. }) => return b,
            Action::Touch(Touch::Load { .. }) => reply = Reply::Data(Default::default()),
            Action::Touch(_) => reply = Reply::Done,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_host_that_meets_an_accept_is_busy_and_goes_first_next_time() {
    // architecture.md §7.2 "SEPT-entry lock", D-16.
    let mut b = accepting(gpa::PENDING);
    let block = Call::new(Leaf::MEM_RANGE_BLOCK, gpa::PENDING, b.td, 0, 0);
    assert_eq!(b.w.call_on(1, block).status, busy(Operand::RCX));
    let entry = entry_at(&b, gpa::PENDING, 0);
    assert!(entry.locked() && entry.host_priority());
    // The guest ends what it has begun; the host's priority stands.
    assert_eq!(answered(b.w.run(0, Reply::Done)).status, Status::SUCCESS);
    let entry = entry_at(&b, gpa::PENDING, 0);
    assert!(!entry.locked() && entry.host_priority());
    assert_eq!(entry.state(), Some(State::Mapped));
    // Free, but not for a guest, which never hears of the priority.
    assert_eq!(answered(accept(&mut b.w, 0, gpa::PENDING)).status, busy(Operand::RCX));
    assert!(entry_at(&b, gpa::PENDING, 0).host_priority());
    assert!(vcpu(&b.w, b.vcpu).busy_since.is_some());
    assert_eq!(b.w.call_on(1, block).status, Status::SUCCESS);
    assert!(!entry_at(&b, gpa::PENDING, 0).host_priority());
    let answer = left(accept(&mut b.w, 0, gpa::PENDING));
    assert_eq!((answer.status, answer.out[1] & 15), (exit(48), 1));
    assert_eq!(vcpu(&b.w, b.vcpu).busy_since, None);
}

/// The host has tried in vain: its priority stands on the entry of PENDING.
fn with_priority() -> Bench {
    let mut b = accepting(gpa::PENDING);
    let block = Call::new(Leaf::MEM_RANGE_BLOCK, gpa::PENDING, b.td, 0, 0);
    assert_eq!(b.w.call_on(1, block).status, busy(Operand::RCX));
    answered(b.w.run(0, Reply::Done));
    b
}

#[test]
fn a_guest_that_meets_the_host_s_priority_for_too_long_leaves() {
    // architecture.md §7.2: TDCS.HP_LOCK_TIMEOUT.
    let mut b = with_priority();
    let timeout = b.w.td(b.td).hp_lock_timeout;
    assert_eq!(timeout, Ps(1_000_000_000_000));
    assert_eq!(answered(accept(&mut b.w, 0, gpa::PENDING)).status, busy(Operand::RCX));
    let since = vcpu(&b.w, b.vcpu).busy_since.unwrap();
    b.w.now = Ps(since.0 + timeout.0 / 2);
    assert_eq!(answered(accept(&mut b.w, 0, gpa::PENDING)).status, busy(Operand::RCX));
    assert_eq!(vcpu(&b.w, b.vcpu).busy_since, Some(since), "the clock runs from the first");
    // The module looks at the clock behind the exit: exactly at the end.
    b.w.now = Ps(since.0 + timeout.0 - b.w.m.spec().tdx.cost.exit.0);
    let answer = left(accept(&mut b.w, 0, gpa::PENDING));
    assert_eq!((answer.status, answer.out), (Status::HOST_PRIORITY_BUSY_TIMEOUT, [0; 6]));
    let v = vcpu(&b.w, b.vcpu);
    assert_eq!((v.last_exit, v.busy_since, v.state), (LastExit::AsyncTrap, None, VcpuState::Ready));
    assert!(b.w.m.is_quiet() && b.w.td(b.td).refcount == [0, 0]);
    // The VMM may set the hint in the TDCALL's answer.
    for hint in [0, 1u64] {
        let mut w = b.w.clone();
        assert!(w.begin(0, &Call::new(Leaf::VP_ENTER, b.vcpu | hint << 52, 0, 0, 0)));
        let answer = answered(w.run(0, Reply::Done));
        // OPERAND_BUSY has bit 63 alone of the upper four.
        assert_eq!(answer.status.0, busy(Operand::RCX).0 | hint << 60);
        assert_eq!(answer.out[0], gpa::PENDING);
    }
}

#[test]
fn a_tdcall_that_meets_no_priority_starts_the_clock_anew() {
    let mut b = with_priority();
    let timeout = b.w.td(b.td).hp_lock_timeout;
    answered(accept(&mut b.w, 0, gpa::PENDING));
    answered(tdcall(&mut b.w, 0, GuestLeaf::VP_INFO, [0; 8]));
    assert_eq!(vcpu(&b.w, b.vcpu).busy_since, None);
    b.w.now = Ps(b.w.now.0 + 2 * timeout.0);
    assert_eq!(answered(accept(&mut b.w, 0, gpa::PENDING)).status, busy(Operand::RCX));
    // An interrupt is no TDCALL: the clock runs on.
    let since = vcpu(&b.w, b.vcpu).busy_since;
    b.w.exit(0, VmExit::Interrupt);
    b.w.enter(0, b.vcpu);
    assert_eq!(vcpu(&b.w, b.vcpu).busy_since, since);
}

#[test]
fn a_guest_in_accept_keeps_a_call_of_its_other_vcpu_out() {
    let mut b = accepting(gpa::PENDING);
    b.w.enter(1, b.second);
    let answer = answered(accept(&mut b.w, 1, gpa::PENDING));
    assert_eq!(answer.status, busy(Operand::RCX));
    // Another guest is no host: the entry is not kept for it, and no clock starts.
    assert!(!entry_at(&b, gpa::PENDING, 0).host_priority());
    assert_eq!(vcpu(&b.w, b.second).busy_since, None);
}
