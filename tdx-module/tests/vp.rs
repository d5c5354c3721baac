//! TDH.VP.*: VCPUs and the way into a TD (architecture.md §7.8, §7.9).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::cases::{Case, LeafCases, check, hold};
use common::{GLOBAL, HOST, World, spec};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page};
use std::sync::LazyLock;
use tdx_module::pamt::Size;
use tdx_module::td::{LastExit, Vcpu, VcpuState, VmmControls, layout};
use tdx_module::{Action, Call, FAILURE_EFFECTS, Inject, Reply, Touch, VmExit};

const HKID: u16 = 65;
/// IA32_TSC_ADJUST.
const TSC_ADJUST: u32 = 0x3b;

/// TDs in the states that the checks tell apart.
#[derive(Clone)]
struct Bench {
    w: World,
    /// RUNNABLE, with the VCPUs below.
    td: u64,
    /// Can be entered; never was.
    vcpu: u64,
    /// The same.
    second: u64,
    /// One page.
    small: u64,
    /// Six pages, not initialised.
    raw: u64,
    /// INITIALIZED, with a VCPU that can be entered, one of six pages and one of fifteen.
    built: u64,
    built_vcpu: u64,
    built_raw: u64,
    built_full: u64,
    built_small: u64,
    /// After TDH.MNG.CREATE.
    created: u64,
    /// With a key and without TDCS.
    keyed: u64,
    /// RUNNABLE, fatal, with its VCPU.
    fatal: u64,
    fatal_vcpu: u64,
    /// A free page.
    free: u64,
}

fn vcpu_of_pages(w: &mut World, tdr: u64, pages: usize) -> u64 {
    let tdvpr = w.page();
    w.ok(Leaf::VP_CREATE, tdvpr, tdr, 0, 0);
    for _ in 1..pages {
        let page = w.page();
        w.ok(Leaf::VP_ADDCX, page, tdvpr, 0, 0);
    }
    tdvpr
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let mut w = World::ready();
    let created = w.page();
    w.ok(Leaf::MNG_CREATE, created, 70, 0, 0);
    let keyed = w.page();
    w.ok(Leaf::MNG_CREATE, keyed, 71, 0, 0);
    w.ok(Leaf::MNG_KEY_CONFIG, keyed, 0, 0, 0);
    let fatal = w.runnable_td(72);
    w.enter(0, fatal.tdvpr);
    w.exit(0, VmExit::MachineCheck);
    let built = w.initialized_td(73, 0);
    let built_vcpu = w.vcpu(built);
    let built_raw = vcpu_of_pages(&mut w, built, 6);
    let built_full = vcpu_of_pages(&mut w, built, 15);
    let built_small = vcpu_of_pages(&mut w, built, 1);
    let td = w.initialized_td(u64::from(HKID), 0);
    let (vcpu, second) = (w.vcpu(td), w.vcpu(td));
    let small = vcpu_of_pages(&mut w, td, 5);
    let raw = vcpu_of_pages(&mut w, td, 6);
    w.sept(td, 0, 0);
    w.add(td, 0);
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    let free = w.page();
    let (fatal, fatal_vcpu) = (fatal.tdr, fatal.tdvpr);
    Bench {
        w,
        td,
        vcpu,
        second,
        small,
        raw,
        built,
        built_vcpu,
        built_raw,
        built_full,
        built_small,
        created,
        keyed,
        fatal,
        fatal_vcpu,
        free,
    }
});

fn bench() -> Bench {
    BENCH.clone()
}
fn page(pa: u64) -> Page {
    Hpa(pa).page()
}
fn vcpu(w: &World, tdvpr: u64) -> &Vcpu {
    w.m.vcpu(page(tdvpr)).unwrap()
}
const fn invalid(operand: Operand) -> Status {
    Status::OPERAND_INVALID.about(operand)
}
const fn busy(operand: Operand) -> Status {
    Status::OPERAND_BUSY.about(operand)
}
const OP_STATE_BUSY: Status = busy(Operand::OP_STATE);
const TREE_BUSY: Status = busy(Operand::SEPT_TREE);
const NO_EXCLUSIVE: &str = "only exports and imports take OP_STATE exclusively";

/// Ends what LP 1 has under way.
fn finish(w: &mut World) {
    if w.flights[1].is_under_way() {
        w.run(1, Reply::Done);
    }
}
/// Makes the TD fatal by a machine check in its VCPU, whatever else is spoilt.
fn die(w: &mut World) {
    finish(w);
    let (tsc, msrs) = (w.tsc, std::mem::take(&mut w.msrs[0]));
    w.tsc = 1 << 40;
    let lp = vcpu(w, BENCH.second).lp.map_or(0, usize::from);
    w.enter(lp, BENCH.second);
    w.exit(lp, VmExit::MachineCheck);
    (w.tsc, w.msrs[0]) = (tsc, msrs);
}
/// Ends the use of the TD's HKID.
fn block(w: &mut World) {
    finish(w);
    for tdvpr in [BENCH.vcpu, BENCH.second] {
        for lp in 0..2 {
            w.call_on(lp, Call::new(Leaf::VP_FLUSH, tdvpr, 0, 0, 0));
        }
    }
    w.ok(Leaf::MNG_VPFLUSHDONE, BENCH.td, 0, 0, 0);
}
/// Takes the VCPU to LP 1.
fn take_away(w: &mut World) {
    w.ok(Leaf::VP_FLUSH, BENCH.vcpu, 0, 0, 0);
    let answer = w.call_on(1, Call::new(Leaf::VP_RD, BENCH.vcpu, 0x2, 0, 0));
    assert_eq!(answer.status, Status::SUCCESS);
}

/// Cases of a TDVPR operand in a register and of its owner: of TDH.VP.ADDCX on `built`, else on `td`.
macro_rules! tdvpr {
    ($r:literal, $op:expr, $page:expr, $tdr:expr) => {
        [
            Case {
                when: "TDVPR not aligned",
                spoils: "vcpu",
                fault: |_, c| c.regs[$r] |= 8,
                status: invalid($op),
            },
            Case {
                when: "TDVPR with KeyID bits",
                spoils: "vcpu",
                fault: |_, c| c.regs[$r] |= 1 << 51,
                status: invalid($op),
            },
            Case {
                when: "TDVPR outside TDMRs",
                spoils: "vcpu",
                fault: |_, c| c.regs[$r] = HOST,
                status: Status::OPERAND_ADDR_RANGE_ERROR.about($op),
            },
            Case {
                when: "TDVPR locked",
                spoils: "lock",
                fault: |w, c| {
                    c.regs[$r] = $page;
                    finish(w);
                    hold(w, Call::new(Leaf::VP_FLUSH, $page, 0, 0, 0), 2);
                },
                status: busy($op),
            },
            Case {
                when: "not a TDVPR",
                spoils: "vcpu",
                fault: |_, c| c.regs[$r] = BENCH.keyed,
                status: Status::PAGE_METADATA_INCORRECT.about($op),
            },
            Case {
                when: "TDR locked",
                spoils: "lock",
                fault: |w, c| {
                    c.regs[$r] = $page;
                    finish(w);
                    hold(w, Call::new(Leaf::MR_FINALIZE, $tdr, 0, 0, 0), 2);
                },
                status: busy(Operand::TDR),
            },
        ]
    };
}
/// Cases of a free page in RCX.
fn free_page() -> [Case; 5] {
    let rcx = Operand::RCX;
    [
        Case {
            when: "page not aligned",
            spoils: "page",
            fault: |_, c| c.regs[0] |= 8,
            status: invalid(rcx),
        },
        Case {
            when: "page with KeyID bits",
            spoils: "page",
            fault: |_, c| c.regs[0] |= 1 << 51,
            status: invalid(rcx),
        },
        Case {
            when: "page outside TDMRs",
            spoils: "page",
            fault: |_, c| c.regs[0] = HOST,
            status: Status::OPERAND_ADDR_RANGE_ERROR.about(rcx),
        },
        Case {
            when: "page locked",
            spoils: "lock",
            fault: |w, c| {
                c.regs[0] = BENCH.free;
                hold(w, Call::new(Leaf::VP_CREATE, BENCH.free, BENCH.built, 0, 0), 2);
            },
            status: busy(rcx),
        },
        Case {
            when: "page in use",
            spoils: "page",
            fault: |_, c| c.regs[0] = BENCH.td,
            status: Status::PAGE_METADATA_INCORRECT.about(rcx),
        },
    ]
}

#[test]
fn create_returns_every_status_in_check_order() {
    let rdx = Operand::RDX;
    let mut cases = vec![
        Case {
            when: "TDR not aligned",
            spoils: "td",
            fault: |_, c| c.regs[1] |= 8,
            status: invalid(rdx),
        },
        Case {
            when: "TDR with KeyID bits",
            spoils: "td",
            fault: |_, c| c.regs[1] |= 1 << 51,
            status: invalid(rdx),
        },
        Case {
            when: "TDR outside TDMRs",
            spoils: "td",
            fault: |_, c| c.regs[1] = HOST,
            status: Status::OPERAND_ADDR_RANGE_ERROR.about(rdx),
        },
        Case {
            when: "TDR locked",
            spoils: "lock",
            fault: |w, c| {
                c.regs[1] = BENCH.built;
                hold(w, Call::new(Leaf::MR_FINALIZE, BENCH.built, 0, 0, 0), 2);
            },
            status: busy(rdx),
        },
        Case {
            when: "not a TDR",
            spoils: "td",
            fault: |_, c| c.regs[1] = BENCH.vcpu,
            status: Status::PAGE_METADATA_INCORRECT.about(rdx),
        },
        Case {
            when: "fatal",
            spoils: "td",
            fault: |_, c| c.regs[1] = BENCH.fatal,
            status: Status::TD_FATAL,
        },
        Case {
            when: "no key",
            spoils: "td",
            fault: |_, c| c.regs[1] = BENCH.created,
            status: Status::TD_KEYS_NOT_CONFIGURED,
        },
        Case {
            when: "no TDCS",
            spoils: "td",
            fault: |_, c| c.regs[1] = BENCH.keyed,
            status: Status::TDCS_NOT_ALLOCATED,
        },
        Case {
            when: "finalized",
            spoils: "td",
            fault: |_, c| c.regs[1] = BENCH.td,
            status: Status::OP_STATE_INCORRECT,
        },
    ];
    cases.extend(free_page());
    check(&LeafCases {
        leaf: Leaf::VP_CREATE,
        base: || (bench().w, Call::new(Leaf::VP_CREATE, BENCH.free, BENCH.built, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[(OP_STATE_BUSY, NO_EXCLUSIVE)],
    });
}

#[test]
fn addcx_returns_every_status_in_check_order() {
    let mut cases: Vec<Case> = tdvpr!(1, Operand::RDX, BENCH.built_raw, BENCH.built).into();
    cases.extend([
        Case {
            when: "fatal",
            spoils: "vcpu",
            fault: |_, c| c.regs[1] = BENCH.fatal_vcpu,
            status: Status::TD_FATAL,
        },
        Case {
            when: "HKID given up",
            spoils: "vcpu",
            fault: |w, c| {
                block(w);
                c.regs[1] = BENCH.raw;
            },
            status: Status::TD_KEYS_NOT_CONFIGURED,
        },
        Case {
            when: "finalized",
            spoils: "vcpu",
            fault: |_, c| c.regs[1] = BENCH.raw,
            status: Status::OP_STATE_INCORRECT,
        },
        Case {
            when: "initialised",
            spoils: "vcpu",
            fault: |_, c| c.regs[1] = BENCH.built_vcpu,
            status: Status::VCPU_STATE_INCORRECT,
        },
        Case {
            when: "15 pages",
            spoils: "vcpu",
            fault: |_, c| c.regs[1] = BENCH.built_full,
            status: Status::TDCX_NUM_INCORRECT,
        },
    ]);
    cases.extend(free_page());
    check(&LeafCases {
        leaf: Leaf::VP_ADDCX,
        base: || (bench().w, Call::new(Leaf::VP_ADDCX, BENCH.free, BENCH.built_raw, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[
            (Status::TDCS_NOT_ALLOCATED, "a TD with a VCPU has its TDCS"),
            (OP_STATE_BUSY, NO_EXCLUSIVE),
        ],
    });
}

fn init_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = tdvpr!(0, Operand::RCX, BENCH.built_raw, BENCH.built).into();
    cases.extend([
        Case {
            when: "fatal",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.fatal_vcpu,
            status: Status::TD_FATAL,
        },
        Case {
            when: "HKID given up",
            spoils: "vcpu",
            fault: |w, c| {
                block(w);
                c.regs[0] = BENCH.raw;
            },
            status: Status::TD_KEYS_NOT_CONFIGURED,
        },
        Case {
            when: "finalized",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.raw,
            status: Status::OP_STATE_INCORRECT,
        },
        Case {
            when: "one page",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.built_small,
            status: Status::TDCX_NUM_INCORRECT,
        },
        Case {
            when: "initialised",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.built_vcpu,
            status: Status::VCPU_STATE_INCORRECT,
        },
        Case {
            when: "four VCPUs",
            spoils: "count",
            fault: |w, _| {
                let msrs = std::mem::take(&mut w.msrs[0]);
                for _ in 0..3 {
                    w.vcpu(BENCH.built);
                }
                w.msrs[0] = msrs;
            },
            status: Status::MAX_VCPUS_EXCEEDED,
        },
        Case {
            when: "IA32_TSC_ADJUST",
            spoils: "msr",
            fault: |w, _| w.msrs[0].push((TSC_ADJUST, 1)),
            status: Status::INCONSISTENT_MSR.about(Operand(TSC_ADJUST)),
        },
    ]);
    cases
}

#[test]
fn init_returns_every_status_in_check_order() {
    check(&LeafCases {
        leaf: Leaf::VP_INIT,
        base: || (bench().w, Call::new(Leaf::VP_INIT, BENCH.built_raw, 7, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases: init_cases(),
        unreachable: &[
            (Status::TDCS_NOT_ALLOCATED, "a TD with a VCPU has its TDCS"),
            (OP_STATE_BUSY, NO_EXCLUSIVE),
        ],
    });
}

#[test]
fn flush_returns_every_status_in_check_order() {
    let mut cases: Vec<Case> = tdvpr!(0, Operand::RCX, BENCH.vcpu, BENCH.td).into();
    cases.extend([
        Case {
            when: "HKID given up",
            spoils: "td",
            fault: |w, _| block(w),
            status: Status::TD_KEYS_NOT_CONFIGURED,
        },
        Case {
            when: "five pages",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.small,
            status: Status::TDCX_NUM_INCORRECT,
        },
        Case {
            when: "on another LP",
            spoils: "lp",
            fault: |w, _| {
                finish(w);
                take_away(w)
            },
            status: Status::VCPU_NOT_ASSOCIATED,
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::VP_FLUSH,
        base: || (bench().w, Call::new(Leaf::VP_FLUSH, BENCH.vcpu, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

/// What TDH.VP.ENTER, TDH.VP.RD and TDH.VP.WR check in common, up to the association.
fn vcpu_cases() -> Vec<Case> {
    let mut cases: Vec<Case> = tdvpr!(0, Operand::RCX, BENCH.vcpu, BENCH.td).into();
    cases.extend([
        Case { when: "fatal", spoils: "td", fault: |w, _| die(w), status: Status::TD_FATAL },
        Case {
            when: "HKID given up",
            spoils: "td",
            fault: |w, _| block(w),
            status: Status::TD_KEYS_NOT_CONFIGURED,
        },
    ]);
    cases
}
fn association_cases() -> [Case; 3] {
    [
        Case {
            when: "five pages",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.small,
            status: Status::TDCX_NUM_INCORRECT,
        },
        Case {
            when: "not initialised",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] = BENCH.raw,
            status: Status::VCPU_STATE_INCORRECT,
        },
        Case {
            when: "on another LP",
            spoils: "lp",
            fault: |w, c| {
                finish(w);
                take_away(w);
                c.regs[0] = BENCH.vcpu
            },
            status: Status::VCPU_ASSOCIATED,
        },
    ]
}
fn enter_cases() -> Vec<Case> {
    let mut cases = vec![Case {
        when: "reserved bits",
        spoils: "vcpu",
        fault: |_, c| c.regs[0] |= 1 << 54,
        status: invalid(Operand::RCX),
    }];
    cases.extend(vcpu_cases());
    cases.push(Case {
        when: "not finalized",
        spoils: "td",
        fault: |_, c| c.regs[0] = BENCH.built_vcpu,
        status: Status::OP_STATE_INCORRECT,
    });
    cases.extend(association_cases());
    cases.extend([
        Case {
            when: "hint without a trap",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] |= 1 << 52,
            status: invalid(Operand::RCX),
        },
        Case {
            when: "resume L1",
            spoils: "vcpu",
            fault: |_, c| c.regs[0] |= 1 << 53,
            status: invalid(Operand::RCX),
        },
        Case {
            when: "IA32_TSC_ADJUST",
            spoils: "msr",
            fault: |w, _| w.msrs[0].push((TSC_ADJUST, 1)),
            status: Status::INCONSISTENT_MSR.about(Operand(TSC_ADJUST)),
        },
        Case {
            when: "TSC went back",
            spoils: "tsc",
            fault: |w, _| w.tsc = 999,
            status: Status::TSC_ROLLBACK,
        },
        Case {
            when: "TDH.MEM.TRACK",
            spoils: "lock",
            fault: |w, _| hold(w, Call::new(Leaf::MEM_TRACK, BENCH.td, 0, 0, 0), 2),
            status: busy(Operand::TD_EPOCH),
        },
    ]);
    cases
}
fn enter_base() -> (World, Call) {
    (bench().w, Call::new(Leaf::VP_ENTER, BENCH.vcpu, 0, 0, 0))
}

#[test]
fn enter_returns_every_status_in_check_order() {
    const GUEST: &str = "tests/guest.rs shows the exits";
    check(&LeafCases {
        leaf: Leaf::VP_ENTER,
        base: enter_base,
        succeeds: None,
        cases: enter_cases(),
        unreachable: &[
            (Status::TDCS_NOT_ALLOCATED, "a TD with a VCPU has its TDCS"),
            (OP_STATE_BUSY, NO_EXCLUSIVE),
            (TREE_BUSY, "the zero-step filter is not modelled"),
            (Status::SUCCESS, GUEST),
            (Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE, GUEST),
            (Status::NON_RECOVERABLE_VCPU, GUEST),
            (Status::HOST_PRIORITY_BUSY_TIMEOUT, GUEST),
            (Status::NON_RECOVERABLE_TD, "only exits that the guests of this model do not have"),
            (Status::NON_RECOVERABLE_TD_WRONG_APIC_MODE, "only from the zero-step filter"),
        ],
    });
}

#[test]
fn an_entry_that_fails_changes_at_most_the_association() {
    assert!(FAILURE_EFFECTS.iter().any(|r| r.leaf == Some(Leaf::VP_ENTER)));
    for case in enter_cases() {
        for flushed in [false, true] {
            let (mut w, mut call) = enter_base();
            (case.fault)(&mut w, &mut call);
            if flushed && !w.flights[1].is_under_way() {
                w.call(Leaf::VP_FLUSH, BENCH.vcpu, 0, 0, 0);
            }
            let before = w.clone();
            assert!(w.begin(0, &call));
            assert!(matches!(w.run(0, Reply::Done), Action::Return(a) if a.status == case.status));
            // An association is undone by a flush on this LP; before it there was none to undo.
            if vcpu(&w, BENCH.vcpu) != vcpu(&before, BENCH.vcpu) {
                assert!(flushed, "{}", case.when);
                assert_eq!(vcpu(&w, BENCH.vcpu).lp, Some(0));
                w.ok(Leaf::VP_FLUSH, BENCH.vcpu, 0, 0, 0);
            }
            assert!(w.m.without_priority() == before.m.without_priority(), "{}", case.when);
        }
    }
}

fn rd_cases() -> Vec<Case> {
    let mut cases = vcpu_cases();
    cases.extend(association_cases());
    cases.extend([
        Case {
            when: "unknown field",
            spoils: "field",
            fault: |_, c| c.regs[1] = 0x1234,
            status: Status::METADATA_FIELD_ID_INCORRECT,
        },
        Case {
            when: "RCX of a production TD",
            spoils: "field",
            fault: |_, c| c.regs[1] = 0x1020_0003_0000_0001,
            status: Status::METADATA_FIELD_NOT_READABLE,
        },
    ]);
    cases
}

#[test]
fn rd_returns_every_status_in_check_order() {
    let mut cases = vec![Case {
        when: "version 2",
        spoils: "version",
        fault: |_, c| c.rax |= 2 << 16,
        status: invalid(Operand::RAX),
    }];
    cases.extend(rd_cases());
    check(&LeafCases {
        leaf: Leaf::VP_RD,
        base: || (bench().w, Call::new(Leaf::VP_RD, BENCH.vcpu, 0x2, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn wr_returns_every_status_in_check_order() {
    let mut cases = vcpu_cases();
    cases.extend(association_cases());
    cases.extend([
        Case {
            when: "unknown field",
            spoils: "field",
            fault: |_, c| c.regs[1] = 0x1234,
            status: Status::METADATA_FIELD_ID_INCORRECT,
        },
        Case {
            when: "VCPU_INDEX",
            spoils: "field",
            fault: |_, c| c.regs[1] = 0xa020_0002_0000_0002,
            status: Status::METADATA_FIELD_NOT_WRITABLE,
        },
        Case {
            when: "no bits chosen",
            spoils: "mask",
            fault: |_, c| c.regs[3] = 0,
            status: Status::METADATA_FIELD_NOT_WRITABLE,
        },
        Case {
            when: "a private address",
            spoils: "field",
            fault: |_, c| (c.regs[1], c.regs[2]) = (0x203c, 1 << 51),
            status: Status::METADATA_FIELD_VALUE_NOT_VALID,
        },
        Case {
            when: "posted interrupts without a descriptor",
            spoils: "field",
            fault: |_, c| (c.regs[1], c.regs[2]) = (0x4000, 0x80),
            status: Status::TD_VMCS_FIELD_NOT_INITIALIZED,
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::VP_WR,
        base: || (bench().w, Call::new(Leaf::VP_WR, BENCH.vcpu, 0x2, 0xf2, u64::MAX)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

// ------------------------------------------------------------------------------------------------------------ effects

fn fills(w: &World) -> Vec<(Addr, u32, u64)> {
    let fill = |t: &Touch| match t {
        Touch::Fill { at, lines, word } => Some((*at, *lines, *word)),
        _ => None,
    };
    w.touches.iter().filter_map(fill).collect()
}
/// Lines loaded, and lines stored to, in order.
fn lines(w: &World, store: bool) -> Vec<(u64, u16)> {
    let line = |t: &Touch| match t {
        Touch::Load { at, .. } if !store => Some((at.hpa.0 & !63, at.keyid.0)),
        Touch::Store { at, .. } if store => Some((at.hpa.0 & !63, at.keyid.0)),
        _ => None,
    };
    w.touches.iter().filter_map(line).collect()
}
fn invepts(w: &World) -> Vec<Option<Page>> {
    let invept = |t: &Touch| match t {
        Touch::Invept(tdr) => Some(*tdr),
        _ => None,
    };
    w.touches.iter().filter_map(invept).collect()
}

#[test]
fn create_zeroes_the_page_under_the_key_of_the_td_and_makes_it_a_tdvpr() {
    let b = bench();
    let mut w = b.w;
    let children = w.td(b.built).chldcnt;
    w.ok(Leaf::VP_CREATE, b.free, b.built, 0, 0);
    assert_eq!(fills(&w), [(Addr::new(Hpa(b.free), KeyId(73)), 64, 0)]);
    let pamt = w.m.pamt(b.free, Size::Small);
    assert_eq!((pamt.page_type(), pamt.owner()), (PageType::Tdvpr, page(b.built)));
    assert_eq!(w.td(b.built).chldcnt, children + 1);
    assert_eq!(*vcpu(&w, b.free), Vcpu::new(page(b.built), vec![page(b.free)]));
    assert!(w.m.is_quiet());
    // TDR and PAMT under the global key (architecture.md §7.10.5), TDCS and TDVPS under the TD's.
    let stored = lines(&w, true);
    assert!(stored.contains(&(layout::tdr_management(page(b.built)).0, GLOBAL as u16)));
    assert!(stored.contains(&(layout::tdvps_management(page(b.free)).0, 73)));
}

#[test]
fn addcx_fills_pages_of_msr_bitmaps_with_ones_and_others_with_zeros() {
    // architecture.md §7.5 row "TDVPS": L2 MSR-bitmap pages all ones.
    let b = bench();
    let mut w = b.w;
    let children = w.td(b.built).chldcnt;
    for index in 6..15 {
        let tdcx = w.page();
        w.ok(Leaf::VP_ADDCX, tdcx, b.built_raw, 0, 0);
        let bitmap = [7, 8, 10, 11, 13, 14].contains(&index);
        let word = if bitmap { u64::MAX } else { 0 };
        assert_eq!(fills(&w), [(Addr::new(Hpa(tdcx), KeyId(73)), 64, word)], "{index}");
        let pamt = w.m.pamt(tdcx, Size::Small);
        assert_eq!((pamt.page_type(), pamt.owner()), (PageType::Tdcx, page(b.built)));
        assert_eq!(vcpu(&w, b.built_raw).pages.last(), Some(&page(tdcx)));
    }
    assert_eq!(vcpu(&w, b.built_raw).pages.len(), 15);
    assert_eq!(w.td(b.built).chldcnt, children + 9);
}

#[test]
fn init_gives_each_vcpu_the_next_index_and_associates_it_with_this_lp() {
    let b = bench();
    let mut w = b.w;
    assert_eq!((w.td(b.built).vcpus, w.td(b.built).associated), (1, 1));
    // Version 0 does not look at R8.
    let call = Call::new(Leaf::VP_INIT, b.built_raw, 0xabcd, u64::MAX, 0);
    w.tsc = 5000;
    assert_eq!(w.call_on(1, call).status, Status::SUCCESS);
    let v = vcpu(&w, b.built_raw);
    assert_eq!((v.state, v.index, v.lp), (VcpuState::Ready, 1, Some(1)));
    assert_eq!((v.initial_rcx, v.last_tsc, v.epoch), (0xabcd, 5000, 0));
    assert_eq!((v.last_exit, v.controls), (LastExit::AsyncFault, VmmControls::INITIAL));
    assert_eq!(v.x2apic, None);
    assert_eq!((w.td(b.built).vcpus, w.td(b.built).associated), (2, 2));
}

#[test]
fn two_vcpus_that_are_initialised_at_the_same_time_get_different_indices() {
    let b = bench();
    let mut w = b.w;
    let other = vcpu_of_pages(&mut w, b.built, 6);
    hold(&mut w, Call::new(Leaf::VP_INIT, other, 0, 0, 0), 2);
    w.ok(Leaf::VP_INIT, b.built_raw, 0, 0, 0);
    w.run(1, Reply::Done);
    assert_eq!((vcpu(&w, other).index, vcpu(&w, b.built_raw).index), (1, 2));
}

#[test]
fn version_1_of_init_needs_a_platform_that_has_it_and_takes_an_x2apic_id_of_its_own() {
    // architecture.md §10.2 D-22.
    let b = bench();
    let mut w = b.w;
    let mut call = Call::new(Leaf::VP_INIT, b.built_raw, 0, 5, 0);
    call.rax |= 1 << 16;
    assert_eq!(w.call_on(0, call).status, invalid(Operand::RAX));

    let mut platform = spec();
    platform.tdx.vp_init_version = 1;
    let mut w = World::ready_with(platform);
    let td = w.initialized_td(65, 0);
    let [first, second] = [0, 1].map(|_| vcpu_of_pages(&mut w, td, 6));
    call.regs[0] = first;
    assert_eq!(w.call_on(0, call).status, Status::SUCCESS);
    assert_eq!(vcpu(&w, first).x2apic, Some(5));
    call.regs[0] = second;
    assert_eq!(w.call_on(0, call).status, Status(Status::X2APIC_ID_NOT_UNIQUE.0 | 5));
    call.regs[2] = 1 << 32;
    assert_eq!(w.call_on(0, call).status, invalid(Operand::R8));
    call.regs[2] = 6;
    assert_eq!(w.call_on(0, call).status, Status::SUCCESS);
}

#[test]
fn init_shares_the_tdr_unless_the_platform_says_otherwise() {
    // architecture.md §10.2 D-22: Linux sees BUSY from others while the leaf runs.
    for exclusive in [false, true] {
        let mut platform = spec();
        platform.tdx.vp_init_exclusive = exclusive;
        let mut w = World::ready_with(platform);
        let td = w.initialized_td(65, 0);
        let raw = vcpu_of_pages(&mut w, td, 6);
        let page = w.page();
        hold(&mut w, Call::new(Leaf::VP_INIT, raw, 0, 0, 0), 2);
        let status = w.call(Leaf::VP_CREATE, page, td, 0, 0).status;
        assert_eq!(status == busy(Operand::RDX), exclusive);
        assert_eq!(status == Status::SUCCESS, !exclusive);
    }
}

#[test]
fn flush_works_on_a_fatal_td_and_forgets_which_vcpu_ran_last() {
    // architecture.md §6.3 "Recovery of a fatal TD".
    let b = bench();
    let mut w = b.w;
    assert!(w.td(b.fatal).fatal);
    w.ok(Leaf::VP_FLUSH, b.fatal_vcpu, 0, 0, 0);
    assert_eq!(invepts(&w), [Some(page(b.fatal))]);
    assert_eq!(vcpu(&w, b.fatal_vcpu).lp, None);
    assert_eq!(w.td(b.fatal).associated, 0);
    // The VMCS went back to memory, under the TD's key.
    let vmcs = layout::tdvps_vmcs(vcpu(&w, b.fatal_vcpu).pages[1]).0;
    assert!(lines(&w, true).contains(&(vmcs, 72)));
    assert_eq!(w.call(Leaf::VP_FLUSH, b.fatal_vcpu, 0, 0, 0).status, Status::VCPU_NOT_ASSOCIATED);
}

#[test]
fn a_vcpu_that_runs_cannot_be_flushed_or_entered_twice() {
    let b = bench();
    let mut w = b.w;
    w.enter(0, b.vcpu);
    // TDH.VP.ENTER holds the TDVPR shared for as long as the guest runs (architecture.md §7.2).
    let flush = Call::new(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
    assert_eq!(w.call_on(1, flush).status, busy(Operand::RCX));
    let enter = Call::new(Leaf::VP_ENTER, b.vcpu, 0, 0, 0);
    assert_eq!(w.call_on(1, enter).status, Status::VCPU_STATE_INCORRECT);
    // And the TDR: its key cannot be given up.
    let done = Call::new(Leaf::MNG_VPFLUSHDONE, b.td, 0, 0, 0);
    assert_eq!(w.call_on(1, done).status, busy(Operand::RCX));
}

#[test]
fn an_entry_reads_and_writes_the_lines_of_the_structures_under_their_keys_and_no_page_of_the_td() {
    let b = bench();
    let mut w = b.w;
    let guest = w.enter(0, b.vcpu);
    let (tdr, tdvpr) = (page(b.td), page(b.vcpu));
    let (tdcs, vmcs) = (w.td(b.td).tdcs[0], vcpu(&w, b.vcpu).pages[1]);
    assert_eq!((guest.tdr, guest.tdvpr, guest.hkid), (tdr, tdvpr, KeyId(HKID)));
    assert_eq!(guest.root, w.td(b.td).tdcs[3]);
    assert_eq!((guest.levels, guest.gpaw, guest.shared_eptp), (4, 48, 0));
    assert_eq!(guest.inject, Inject::Nothing);
    assert_eq!(
        lines(&w, false),
        [
            (layout::tdr_management(tdr).0, GLOBAL as u16),
            (layout::tdvps_management(tdvpr).0, HKID),
            (layout::tdcs_controls(tdcs).0, HKID),
            (layout::tdvps_registers(tdvpr, 0).0, HKID),
            (layout::tdvps_registers(tdvpr, 1).0, HKID),
            (layout::tdvps_vmcs(vmcs).0, HKID),
        ]
    );
    let stored: Vec<_> = lines(&w, true).into_iter().filter(|(_, key)| *key == HKID).collect();
    assert_eq!(
        stored,
        [
            (layout::tdcs_op_state(tdcs).0, HKID),
            (layout::tdcs_epoch(tdcs).0, HKID),
            (layout::tdcs_epoch(tdcs).0, HKID),
            (layout::tdcs_epoch(tdcs).0, HKID),
            (layout::tdcs_op_state(tdcs).0, HKID),
            (layout::tdvps_management(tdvpr).0, HKID),
        ],
        "the lock of OP_STATE, that of the epoch, REFCOUNT, both locks again, the state"
    );
    // PAMT: the walk to the TDVPR and the entry of the TDR.
    let pamt = lines(&w, true).into_iter().filter(|(_, key)| *key == GLOBAL as u16).count();
    assert_eq!(pamt, 4);
    assert!(fills(&w).is_empty());
    // The guest's running holds neither OP_STATE nor the epoch.
    assert!(w.td(b.td).op_lock.is_idle() && w.td(b.td).epoch_lock.is_idle());
    assert_eq!(vcpu(&w, b.vcpu).state, VcpuState::Active);
    assert_eq!(w.flights[0].vcpu(), Some(tdvpr));
}

#[test]
fn an_entry_flushes_when_the_epoch_is_new_or_another_vcpu_ran_last_on_the_lp() {
    // architecture.md §7.8 row "VP.ENTER".
    let b = bench();
    let mut w = b.w;
    let tdr = Some(page(b.td));
    let go = |w: &mut World, lp: usize, tdvpr: u64| {
        w.tsc += 1;
        w.enter(lp, tdvpr);
        let flushes = invepts(w);
        w.exit(lp, VmExit::Interrupt);
        flushes
    };
    // TDH.VP.INIT associated it: not newly; its epoch is 0; and nobody ran here since the fatal TD's VCPU.
    assert_eq!(go(&mut w, 0, b.vcpu), [tdr, tdr]);
    assert_eq!(go(&mut w, 0, b.vcpu), []);
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    assert_eq!(go(&mut w, 0, b.vcpu), [tdr]);
    assert_eq!(go(&mut w, 0, b.vcpu), []);
    // The other VCPU of the same TD: new epoch for it, and another one ran last.
    assert_eq!(go(&mut w, 0, b.second), [tdr, tdr]);
    assert_eq!(go(&mut w, 0, b.vcpu), [tdr]);
    // Newly associated with LP 1: no flush for the epoch, but one because of who ran there.
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    w.ok(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
    assert_eq!(go(&mut w, 1, b.vcpu), [tdr]);
    assert_eq!(go(&mut w, 1, b.vcpu), []);
    // A flush on the LP: the next entry there flushes again.
    let flush = Call::new(Leaf::VP_FLUSH, b.vcpu, 0, 0, 0);
    assert_eq!(w.call_on(1, flush).status, Status::SUCCESS);
    assert_eq!(go(&mut w, 1, b.vcpu), [tdr]);
}

#[test]
fn a_running_vcpu_is_counted_by_the_epoch_of_its_entry() {
    let b = bench();
    let mut w = b.w;
    let epoch = w.td(b.td).epoch;
    assert_eq!(epoch, 1);
    w.enter(0, b.vcpu);
    assert_eq!((w.td(b.td).refcount, vcpu(&w, b.vcpu).epoch), ([0, 1], 1));
    let track = Call::new(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    assert_eq!(w.call_on(1, track).status, Status::SUCCESS);
    assert_eq!(w.call_on(1, track).status, Status::PREVIOUS_TLB_EPOCH_BUSY);
    assert_eq!(w.td(b.td).refcount, [0, 1]);
    w.exit(0, VmExit::Interrupt);
    assert_eq!(w.td(b.td).refcount, [0, 0]);
    assert_eq!(w.call_on(1, track).status, Status::SUCCESS);
    w.enter(0, b.vcpu);
    assert_eq!((w.td(b.td).refcount, vcpu(&w, b.vcpu).epoch), ([0, 1], 3));
}

#[test]
fn track_cannot_pass_while_an_entry_is_counting_itself_in() {
    let b = bench();
    let mut w = b.w;
    hold_enter(&mut w, b.second);
    let track = w.call(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    assert_eq!(track.status, busy(Operand::TD_EPOCH));
}
#[test]
fn two_vcpus_enter_at_the_same_time() {
    // architecture.md §7.8: the epoch's lock is shared.
    let b = bench();
    let mut w = b.w;
    hold_enter(&mut w, b.second);
    w.enter(0, b.vcpu);
    assert!(matches!(w.run(1, Reply::Done), Action::Enter(_)));
    assert_eq!(w.td(b.td).refcount, [0, 2]);
}
/// LP 1 is on its way into a VCPU, with the epoch's lock.
fn hold_enter(w: &mut World, tdvpr: u64) {
    w.ok(Leaf::VP_FLUSH, tdvpr, 0, 0, 0);
    hold(w, Call::new(Leaf::VP_ENTER, tdvpr, 0, 0, 0), 2);
}

#[test]
fn the_vmm_s_fields_reach_the_guest_s_entry() {
    // real-kernel.md S-11, S-12: what Linux writes.
    let b = bench();
    let mut w = b.w;
    let write = |w: &mut World, field, value| w.call(Leaf::VP_WR, b.vcpu, field, value, u64::MAX);
    assert_eq!(write(&mut w, 0x2, 0xf2).out[2], 0xffff);
    assert_eq!(write(&mut w, 0x2016, HOST + 0x40).status, Status::SUCCESS);
    assert_eq!(write(&mut w, 0x4000, 0x80).status, Status::SUCCESS);
    assert_eq!(write(&mut w, 0x203c, HOST + 0x123).status, Status::SUCCESS);
    // Only the writable bits change; the old value comes back.
    assert_eq!(write(&mut w, 0x203c, HOST + 0x1000).out[2], HOST);
    let vmcs = layout::tdvps_vmcs(vcpu(&w, b.vcpu).pages[1]).0;
    assert!(lines(&w, true).contains(&(vmcs, HKID)));
    assert_eq!(
        vcpu(&w, b.vcpu).controls,
        VmmControls {
            posted_vector: 0xf2,
            posted_descriptor: HOST + 0x40,
            pin_controls: 0x80,
            shared_ept: HOST + 0x1000,
            pend_nmi: false,
        }
    );
    assert_eq!(write(&mut w, 0x2020_0000_0000_000b, 1).status, Status::SUCCESS);
    assert!(vcpu(&w, b.vcpu).controls.pend_nmi);
    // EPTP: write-back, four levels.
    assert_eq!(w.enter(0, b.vcpu).shared_eptp, (HOST + 0x1000) | (3 << 3) | 6);
    w.exit(0, VmExit::Interrupt);
    assert_eq!(w.ok(Leaf::VP_RD, b.vcpu, 0x4000, 0, 0).out[2], 0x80);
}

#[test]
fn a_debug_td_shows_its_registers_and_another_does_not() {
    let mut w = World::ready();
    let td = w.initialized_td(65, 1);
    let tdvpr = w.vcpu(td);
    let rcx = 0x1020_0003_0000_0001;
    assert_eq!(w.call(Leaf::VP_WR, tdvpr, rcx, 0x55aa, 0xff).status, Status::SUCCESS);
    assert_eq!(w.ok(Leaf::VP_RD, tdvpr, rcx, 0, 0).out[2], 0xaa);
    let state = 0xa020_0000_0000_0000;
    assert_eq!(w.ok(Leaf::VP_RD, tdvpr, state, 0, 0).out[2], 2);
}

#[test]
fn version_1_of_rd_walks_through_all_fields() {
    let b = bench();
    let mut w = b.w;
    let mut call = Call::new(Leaf::VP_RD, b.vcpu, u64::MAX, 0, 0);
    call.rax |= 1 << 16;
    let mut answer = w.call_on(0, call);
    assert_eq!(answer.status, Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    let mut fields = 0;
    let mut readable = 0;
    while answer.out[1] != u64::MAX {
        call.regs[1] = answer.out[1];
        answer = w.call_on(0, call);
        fields += 1;
        readable += u32::from(answer.status == Status::SUCCESS);
        if answer.status != Status::SUCCESS {
            // Not readable here: it says nothing of the next one.
            assert_eq!(answer.status, Status::METADATA_FIELD_NOT_READABLE);
            assert_eq!(answer.out[1], u64::MAX);
        }
    }
    assert!(fields >= 4 && readable >= 4, "{fields} {readable}");
}
