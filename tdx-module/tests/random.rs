//! Random SEAMCALLs on two LPs, interleaved at random touches, with guests that come and go. A small model says what must
//! have held before a call that succeeds, and what any call may change; the invariants of verification.md §2.5 and §2.6
//! that the module's own state shows hold after every step.
//!
//! `TDXSIM_RANDOM_SEEDS` says how many seeds of 1,000 calls each are run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{GLOBAL, HOST, IMAGE, TDMR, World};
use sim_core::outcome::PconfigStatus;
use sim_core::tdx::{GuestLeaf, LEAVES, Leaf, PageType, Status};
use sim_core::{Hpa, KeyId, Page};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use tdx_module::op_state::{KotState, Lifecycle, OpState};
use tdx_module::pamt::Size;
use tdx_module::sept::State;
use tdx_module::td::VcpuState;
use tdx_module::{
    Action, Answer, Call, FAILURE_EFFECTS, Module, NOT_MODELLED, Reply, SysState, VmExit, reg,
};

const CALLS: usize = 1000;
const SEEDS: u64 = 8;
const HKID: u64 = 70;
const MB2: u64 = 2 << 20;
const GPA_2M: u64 = 0x4000_0000;

// ----------------------------------------------------------------------------------------------------------- the world

/// TDs in every life cycle and the OP_STATEs of a TD that is not migrated.
struct Base {
    world: World,
    /// First page behind those that were given away.
    end: u64,
    /// Blocks of 2 MiB; the first is a page of a TD.
    blocks: Vec<u64>,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let mut w = World::ready();
    let runs = w.runnable_td(HKID);
    w.vcpu_of_running(&runs);
    w.sept(runs.tdr, GPA_2M, 1);
    for i in 1..4 {
        w.aug(runs.tdr, i << 12);
    }
    let debug = w.initialized_td(HKID + 1, 1);
    w.vcpu(debug);
    w.sept(debug, 0, 0);
    w.add(debug, 0);
    w.ok(Leaf::MR_FINALIZE, debug, 0, 0, 0);
    let built = w.initialized_td(HKID + 2, 0);
    w.vcpu(built);
    w.sept(built, 0, 0);
    w.add(built, 0);
    w.keyed_td(HKID + 3);
    let fresh = w.page();
    w.ok(Leaf::MNG_CREATE, fresh, HKID + 4, 0, 0);
    let torn = w.runnable_td(HKID + 6);
    w.ok(Leaf::VP_FLUSH, torn.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, torn.tdr, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, torn.tdr, 0, 0, 0);
    let blocked = w.runnable_td(HKID + 5);
    w.ok(Leaf::VP_FLUSH, blocked.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, blocked.tdr, 0, 0, 0);
    let end = w.next_page;
    let blocks: Vec<u64> = (0..4).map(|_| w.block(MB2)).collect();
    assert!(end + 64 * 4096 < blocks[0]);
    w.ok(Leaf::MEM_PAGE_AUG, GPA_2M | 1, runs.tdr, blocks[0], 0);
    w.td_params(0, 4);
    w.lines.retain(|(line, keyid), _| *keyid == 0 && line << 6 >= HOST);
    Base { world: w, end, blocks }
});

trait More {
    fn vcpu_of_running(&mut self, td: &common::RunnableTd);
}
impl More for World {
    /// The VCPU leaves its LP, so that any can take it.
    fn vcpu_of_running(&mut self, td: &common::RunnableTd) {
        self.ok(Leaf::VP_FLUSH, td.tdvpr, 0, 0, 0);
    }
}

// --------------------------------------------------------------------------------------------------------- random calls

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What an operand should be for a leaf to get far.
#[derive(Clone, Copy)]
enum Kind {
    Free,
    Page,
    Tdr,
    Vcpu,
    Gpa,
    Hkid,
    Image,
    Params,
    Bit,
    Zero,
}
use Kind::{Bit, Free, Gpa, Hkid, Image, Params, Tdr, Vcpu, Zero};

const KINDS: &[(Leaf, [Kind; 4])] = &[
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::MNG_ADDCX, [Free, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_ADD, [Gpa, Tdr, Free, Image]),
    (Leaf::MEM_SEPT_ADD, [Gpa, Tdr, Free, Zero]),
    (Leaf::VP_ADDCX, [Free, Vcpu, Zero, Zero]),
    (Leaf::MEM_PAGE_RELOCATE, [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_PAGE_AUG, [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_RANGE_BLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_RANGE_BLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MNG_KEY_CONFIG, [Tdr, Zero, Zero, Zero]),
    (Leaf::MNG_CREATE, [Free, Hkid, Zero, Zero]),
    (Leaf::VP_CREATE, [Free, Tdr, Zero, Zero]),
    (Leaf::MNG_RD, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_RD, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MNG_WR, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_WR, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_DEMOTE, [Gpa, Tdr, Free, Zero]),
    (Leaf::MR_EXTEND, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MR_FINALIZE, [Tdr, Zero, Zero, Zero]),
    (Leaf::VP_FLUSH, [Vcpu, Zero, Zero, Zero]),
    (Leaf::MNG_VPFLUSHDONE, [Tdr, Zero, Zero, Zero]),
    (Leaf::MNG_KEY_FREEID, [Tdr, Zero, Zero, Zero]),
    (Leaf::MNG_INIT, [Tdr, Params, Zero, Zero]),
    (Leaf::VP_INIT, [Vcpu, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_PROMOTE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RDMD, [Kind::Page, Zero, Zero, Zero]),
    (Leaf::MEM_SEPT_RD, [Gpa, Tdr, Zero, Zero]),
    (Leaf::VP_RD, [Vcpu, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Kind::Page, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Kind::Page, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_SEPT_REMOVE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_TRACK, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_TRACK, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_RANGE_UNBLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::PHYMEM_CACHE_WB, [Bit, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_WBINVD, [Free, Zero, Zero, Zero]),
    (Leaf::VP_WR, [Vcpu, Zero, Zero, Zero]),
];

/// A guest-physical address and level.
fn gpa(r: &mut Rng) -> u64 {
    match r.below(9) {
        0..=4 => r.below(5) << 12,
        5 => GPA_2M + (r.below(3) << 12),
        6 => (GPA_2M + r.below(2) * MB2) | 1,
        7 => (r.below(2) * MB2) | 1,
        _ => r.pick(&[2, GPA_2M | 2, 3, 0x80_0000_0000 | 3]),
    }
}
/// A page of the pool: given away, free behind that, or at the beginning of a block.
fn page(r: &mut Rng) -> u64 {
    match r.below(16) {
        0 => r.pick(&BASE.blocks) + (r.below(2) << 12),
        _ => TDMR + (r.below((BASE.end - TDMR) / 4096 + 48) << 12),
    }
}
fn operand(r: &mut Rng, m: &Module, kind: Kind) -> u64 {
    let of = |r: &mut Rng, pages: Vec<Page>| match pages.is_empty() {
        true => page(r),
        false => r.pick(&pages).hpa().0,
    };
    match kind {
        Free => (0..8)
            .map(|_| page(r))
            .find(|pa| m.pamt(*pa, Size::Small).page_type() == PageType::Nda)
            .unwrap_or(TDMR),
        Kind::Page => page(r),
        Tdr => {
            let any = r.one_in(4);
            let alive = |life| any || life == Lifecycle::KeysConfigured;
            of(r, m.tds().filter(|(_, td)| alive(td.lifecycle)).map(|(page, _)| page).collect())
        }
        Vcpu => of(r, m.vcpus().map(|(page, _)| page).collect()),
        Gpa => gpa(r),
        Hkid => HKID + r.below(10),
        Image => IMAGE,
        Params => HOST + 0x10_000,
        Bit => r.below(2),
        Zero => 0,
    }
}
/// Anything.
fn noise(r: &mut Rng) -> u64 {
    match r.below(7) {
        0 => r.next(),
        1 => 1 << r.below(64),
        // Not another page of the TDMR: those that calls can name are counted.
        2 => page(r) | 1 << r.pick(&[0, 1, 3, 11, 30, 31, 45, 51, 52, 63]),
        3 => page(r),
        4 => HOST + (r.below(32) << 12),
        5 => r.pick(&BASE.blocks) | r.below(4),
        _ => r.below(4),
    }
}
fn random_call(r: &mut Rng, m: &Module) -> Call {
    if r.one_in(12) {
        // Any leaf, any operands; the module is shut down only now and then.
        let leaf = Leaf(LEAVES[r.below(LEAVES.len() as u64) as usize].number);
        if leaf != Leaf::SYS_SHUTDOWN || r.one_in(40) {
            let mut call = Call::new(leaf, noise(r), noise(r), noise(r), noise(r));
            call.rax |= if r.one_in(8) { 1 << r.below(64) } else { 0 };
            if r.one_in(2) {
                call.regs[0] = 0;
            }
            return call;
        }
    }
    let (mut leaf, mut kinds) = r.pick(KINDS);
    // The end of a TD, or of its building, is for good: seldom, so that there is something to end.
    let ends = [Leaf::MNG_VPFLUSHDONE, Leaf::MR_FINALIZE];
    while ends.contains(&leaf) && !r.one_in(4) {
        (leaf, kinds) = r.pick(KINDS);
    }
    let [a, b, c, d] = kinds.map(|kind| operand(r, m, kind));
    let mut call = Call::new(leaf, a, b, c, d);
    if leaf == Leaf::MEM_PAGE_AUG && a & 7 == 1 {
        call.regs[reg::R8] = r.pick(&BASE.blocks);
    }
    if r.one_in(12) {
        let at = r.below(4) as usize;
        call.regs[at] = noise(r);
    }
    call
}
fn random_exit(r: &mut Rng) -> VmExit {
    let regs = [gpa(r), 0, 0, 0, 0, 0, 0, 0];
    let tdcall = |leaf| VmExit::Tdcall { leaf, version: 0, regs };
    match r.below(32) {
        0..=7 => VmExit::Interrupt,
        8 => VmExit::Nmi,
        9..=18 => tdcall(GuestLeaf::MEM_PAGE_ACCEPT),
        19..=22 => VmExit::Tdcall { leaf: GuestLeaf::VP_VMCALL, version: 0, regs: [0; 8] },
        23 => tdcall(GuestLeaf::VP_INFO),
        24 => tdcall(GuestLeaf(900)),
        25 => VmExit::Smi { msmi: false },
        26 if r.one_in(16) => VmExit::TripleFault,
        27 if r.one_in(16) => VmExit::MachineCheck,
        _ => VmExit::EptViolation { gpa: regs[0] & !0xfff, access: 1 << r.below(3) },
    }
}

// ------------------------------------------------------------------------------------------------------------ the model

/// What a call may change.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// This TD: TDR, TDCS, its Secure-EPT, entries of pages that it has or gets.
    td: Option<Page>,
    /// This VCPU.
    vcpu: Option<Page>,
    /// This HKID.
    hkid: Option<KeyId>,
    /// Bitmaps of FLUSHED HKIDs.
    bitmaps: bool,
    /// The module's state.
    state: bool,
}

/// A call on its way.
#[derive(Clone, Debug)]
struct Flying {
    call: Call,
    scope: Scope,
    /// Why it must not succeed, if it must not.
    refused: Option<&'static str>,
}

fn at(pa: u64) -> Page {
    Hpa(pa).page()
}

/// What the call may change, and whether it may succeed, from what there is before it.
fn predict(m: &Module, call: &Call, lp: u16) -> Flying {
    let [rcx, rdx, r8, ..] = call.regs;
    let leaf = Leaf(call.rax as u16);
    let td_of = |pa: u64| m.td(at(pa & !1)).map(|td| (at(pa & !1), td));
    let vcpu_of = |pa: u64| m.vcpu(at(pa & !3)).map(|vcpu| (at(pa & !3), vcpu));
    let kind = |pa: u64| m.pamt(pa, Size::Small).page_type();
    let free = |pa: u64| {
        pa & 0xfff == 0
            && kind(pa) == PageType::Nda
            && m.pamt(pa, Size::Large).page_type() == PageType::Nda
    };
    let mut scope = Scope::default();
    let mut refused = None;
    let mut need = |holds: bool, why: &'static str| {
        if !holds && refused.is_none() {
            refused = Some(why);
        }
    };
    let ready = m.state() == SysState::SysReady;
    let first_td = matches!(
        leaf,
        Leaf::MNG_KEY_CONFIG
            | Leaf::MNG_INIT
            | Leaf::MNG_RD
            | Leaf::MNG_WR
            | Leaf::MR_FINALIZE
            | Leaf::MNG_VPFLUSHDONE
            | Leaf::MNG_KEY_FREEID
            | Leaf::MEM_TRACK
    );
    let second_td = leaf == Leaf::MNG_ADDCX
        || leaf == Leaf::VP_CREATE
        || leaf == Leaf::MR_EXTEND
        || Leaf::name(leaf).is_some_and(|name| name.starts_with("TDH.MEM."))
            && leaf != Leaf::MEM_TRACK;
    let of_vcpu = match leaf {
        Leaf::VP_ENTER | Leaf::VP_INIT | Leaf::VP_FLUSH | Leaf::VP_RD | Leaf::VP_WR => Some(rcx),
        Leaf::VP_ADDCX => Some(rdx),
        _ => None,
    };
    if first_td || second_td || of_vcpu.is_some() {
        need(ready, "the module is not ready");
        let vcpu = of_vcpu.and_then(vcpu_of);
        scope.vcpu = vcpu.map(|(page, _)| page);
        let td = match (first_td, vcpu) {
            (true, _) => td_of(rcx),
            (_, Some((_, vcpu))) => m.td(vcpu.tdr).map(|td| (vcpu.tdr, td)),
            _ if second_td => td_of(rdx),
            _ => None,
        };
        need(of_vcpu.is_none() || vcpu.is_some(), "no VCPU");
        need(td.is_some(), "no TD");
        scope.td = td.map(|(page, _)| page);
        if let Some((_, td)) = td {
            let (life, op) = (td.lifecycle, td.op_state);
            let built = matches!(op, OpState::Initialized);
            let up = built || matches!(op, OpState::Runnable);
            // Everything but the end of a TD needs its keys and a TD that is not fatal.
            let alive = life == Lifecycle::KeysConfigured && !td.fatal;
            match leaf {
                Leaf::MNG_KEY_CONFIG => {
                    need(life == Lifecycle::HkidAssigned && !td.fatal, "life cycle")
                }
                Leaf::MNG_VPFLUSHDONE => {
                    let before = [Lifecycle::HkidAssigned, Lifecycle::KeysConfigured];
                    need(before.contains(&life) && td.associated == 0, "life cycle");
                    scope.hkid = Some(td.hkid);
                }
                Leaf::MNG_KEY_FREEID => {
                    let bitmap = m.kot()[usize::from(td.hkid.0)].wbinvd_bitmap;
                    need(life == Lifecycle::Blocked && bitmap == 0, "life cycle");
                    scope.hkid = Some(td.hkid);
                }
                Leaf::VP_FLUSH => {
                    need(life == Lifecycle::KeysConfigured, "life cycle");
                    need(vcpu.is_some_and(|(_, v)| v.lp == Some(lp)), "not of this LP");
                }
                Leaf::MNG_ADDCX => need(alive && op == OpState::Uninit, "OP_STATE"),
                Leaf::MNG_INIT => need(alive && op == OpState::Uninit, "OP_STATE"),
                Leaf::VP_CREATE
                | Leaf::VP_ADDCX
                | Leaf::VP_INIT
                | Leaf::MEM_PAGE_ADD
                | Leaf::MR_EXTEND
                | Leaf::MR_FINALIZE => need(alive && built, "OP_STATE"),
                Leaf::VP_ENTER => need(alive && op == OpState::Runnable, "OP_STATE"),
                Leaf::MEM_RD | Leaf::MEM_WR => need(alive && td.attributes & 1 == 1, "no debug TD"),
                // Not after the end of the TD; a TD without OP_STATE has no fields to lose.
                Leaf::MNG_RD | Leaf::MNG_WR | Leaf::VP_RD | Leaf::VP_WR => need(!td.fatal, "fatal"),
                _ => need(alive && up, "OP_STATE"),
            }
        }
        match leaf {
            Leaf::MNG_ADDCX | Leaf::VP_CREATE | Leaf::VP_ADDCX => {
                need(free(rcx), "RCX is not free")
            }
            Leaf::MEM_PAGE_ADD | Leaf::MEM_PAGE_DEMOTE | Leaf::MEM_PAGE_RELOCATE => {
                need(free(r8), "R8 is not free");
            }
            Leaf::MEM_PAGE_AUG if rcx & 7 == 0 => need(free(r8), "R8 is not free"),
            Leaf::MEM_PAGE_AUG => {
                let block = (0..512).all(|i| free(r8 + (i << 12)));
                need(block && r8 & (MB2 - 1) == 0, "R8 is no free block");
            }
            Leaf::VP_INIT => {
                let fresh = vcpu.is_some_and(|(_, v)| v.state == VcpuState::Uninitialized);
                need(fresh, "VCPU state");
            }
            _ => {}
        }
        if leaf == Leaf::VP_CREATE {
            scope.vcpu = Some(at(rcx));
        }
    }
    match leaf {
        Leaf::MNG_CREATE => {
            need(ready && free(rcx), "RCX is not free");
            let kot = usize::try_from(rdx).ok().and_then(|hkid| m.kot().get(hkid));
            need(kot.is_some_and(|e| e.state == KotState::Free), "HKID is not free");
            need(rdx > GLOBAL, "HKID is not private");
            scope = Scope { td: Some(at(rcx)), hkid: Some(KeyId(rdx as u16)), ..scope };
        }
        Leaf::PHYMEM_CACHE_WB => scope.bitmaps = true,
        Leaf::PHYMEM_PAGE_RECLAIM => {
            let entry = [Size::Small, Size::Large]
                .map(|size| m.pamt(rcx, size))
                .into_iter()
                .find(|e| e.page_type() != PageType::Nda);
            need(entry.is_some(), "the page is free");
            let own = kind(rcx) == PageType::Tdr;
            scope.td = entry.map(|e| if own { at(rcx) } else { e.owner() });
            scope.vcpu = m.vcpu(at(rcx)).map(|_| at(rcx));
            let td = scope.td.and_then(|td| m.td(td));
            need(td.is_some_and(|td| td.lifecycle == Lifecycle::Teardown), "not torn down");
            need(!own || td.is_some_and(|td| td.chldcnt == 0), "it has pages");
        }
        Leaf::PHYMEM_PAGE_WBINVD => need(free(rcx & ((1 << 45) - 1)), "the page is not free"),
        Leaf::SYS_SHUTDOWN => scope.state = true,
        leaf if leaf.row().is_none() => need(false, "no such leaf"),
        _ => {}
    }
    need(call.rax >> 24 == 0, "reserved bits of RAX");
    Flying { call: *call, scope, refused }
}

/// What a step changed must be within the scope of its call.
fn judge(before: &Module, after: &Module, of: &Flying) {
    let scope = &of.scope;
    let what = format!("{} {:x?}", Leaf(of.call.rax as u16), of.call);
    assert!(scope.state || before.state() == after.state(), "{what}: state");
    assert_eq!(before.global_hkid(), after.global_hkid(), "{what}");
    let mut kots = before.kot().iter().zip(after.kot()).enumerate();
    for (hkid, (old, new)) in kots.by_ref().filter(|(_, (old, new))| old != new) {
        let whole = scope.hkid == Some(KeyId(hkid as u16));
        let bits = scope.bitmaps && old.state == KotState::Flushed && old.state == new.state;
        assert!(whole || bits, "{what}: HKID {hkid} {old:?} {new:?}");
        // H1.
        use KotState::{Assigned, Flushed, Free};
        let edge = [(Free, Assigned), (Assigned, Flushed), (Flushed, Free)];
        let step = old.state == new.state || edge.contains(&(old.state, new.state));
        assert!(step, "{what}: {old:?} {new:?}");
    }
    let tds = |m: &Module| m.tds().map(|(page, td)| (page, td.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (tds(before), tds(after));
    for page in old.keys().chain(new.keys()) {
        let same = old.get(page) == new.get(page);
        assert!(same || scope.td == Some(*page), "{what}: TD {page:x?}");
    }
    let vcpus =
        |m: &Module| m.vcpus().map(|(page, v)| (page, v.clone())).collect::<BTreeMap<_, _>>();
    let (old, new) = (vcpus(before), vcpus(after));
    for page in old.keys().chain(new.keys()) {
        let same = old.get(page) == new.get(page);
        assert!(same || scope.vcpu == Some(*page), "{what}: VCPU {page:x?}");
    }
    let owner = |m: &Module, pa: u64, size: Size| {
        let entry = m.pamt(pa, size);
        (entry.page_type() != PageType::Nda).then_some(entry.owner())
    };
    let tables: BTreeSet<Page> =
        before.sept_pages().into_iter().chain(after.sept_pages()).collect();
    for table in tables {
        let differs = (0..512).any(|i| before.sept_entry(table, i) != after.sept_entry(table, i));
        if differs {
            let pa = table.hpa().0;
            let owners = [owner(before, pa, Size::Small), owner(after, pa, Size::Small)];
            assert!(
                scope.td.is_some() && owners.contains(&scope.td),
                "{what}: Secure-EPT {table:x?}"
            );
        }
    }
    if before.tdmrs() != after.tdmrs() {
        let mut seen = false;
        for (pa, size) in entries() {
            let (old, new) = (before.pamt(pa, size), after.pamt(pa, size));
            if old != new {
                seen = true;
                let owners = [owner(before, pa, size), owner(after, pa, size)];
                let own = scope.td == Some(at(pa)) && size == Size::Small;
                let within = scope.td.is_some() && owners.contains(&scope.td) || own;
                assert!(within, "{what}: entry {pa:#x} {size:?}: {old:x?} {new:x?}");
            }
        }
        assert!(seen, "{what}: an entry that nobody named");
    }
}

/// The PAMT entries that calls can name.
fn entries() -> impl Iterator<Item = (u64, Size)> {
    let pool = (TDMR..BASE.end + 64 * 4096).step_by(4096).map(|pa| (pa, Size::Small));
    let blocks = BASE.blocks.iter().flat_map(|b| {
        (*b..*b + MB2).step_by(4096).map(|pa| (pa, Size::Small)).chain([(*b, Size::Large)])
    });
    pool.chain(blocks)
}

/// H6 and what the key ownership table says of TDs.
fn check_hkids(m: &Module) {
    let mut users: BTreeMap<KeyId, KotState> = BTreeMap::new();
    for (page, td) in m.tds() {
        let state = match td.lifecycle {
            Lifecycle::HkidAssigned | Lifecycle::KeysConfigured => KotState::Assigned,
            Lifecycle::Blocked => KotState::Flushed,
            Lifecycle::Teardown => continue,
        };
        assert_eq!(users.insert(td.hkid, state), None, "{page:x?} shares its HKID");
    }
    for (hkid, entry) in m.kot().iter().enumerate() {
        let reserved = hkid as u64 == GLOBAL;
        let expected = if reserved { KotState::Reserved } else { KotState::Free };
        let user = users.get(&KeyId(hkid as u16)).copied();
        assert_eq!(entry.state, user.unwrap_or(expected), "HKID {hkid}");
    }
}

/// T1, T2, T7, and that every structure lies in a page of its type.
fn check_pages(m: &Module) {
    let mut owned: BTreeMap<Page, u64> = BTreeMap::new();
    let mut kinds: BTreeMap<PageType, BTreeSet<Page>> = BTreeMap::new();
    for (pa, size) in entries() {
        let entry = m.pamt(pa, size);
        match entry.page_type() {
            PageType::Nda => continue,
            PageType::Tdr => {}
            _ => *owned.entry(entry.owner()).or_default() += size.pages(),
        }
        kinds.entry(entry.page_type()).or_default().insert(at(pa));
    }
    let mut of = |kind: PageType| kinds.remove(&kind).unwrap_or_default();
    assert_eq!(of(PageType::Tdr), m.tds().map(|(page, _)| page).collect());
    assert_eq!(of(PageType::Tdvpr), m.vcpus().map(|(page, _)| page).collect());
    let roots = m.tds().filter(|(_, td)| td.tdcs.len() > 3).map(|(_, td)| td.sept_root());
    let roots: BTreeSet<Page> = roots
        .filter(|root| m.pamt(root.hpa().0, Size::Small).page_type() == PageType::Tdcx)
        .collect();
    let tables = &of(PageType::Ept) | &roots;
    assert!(m.sept_pages().iter().all(|page| tables.contains(page)));
    let mut mapped = BTreeSet::new();
    for (tdr, td) in m.tds() {
        // T7.
        assert_eq!(td.chldcnt, owned.remove(&tdr).unwrap_or(0), "{tdr:x?}");
        let associated = m.vcpus().filter(|(_, v)| v.tdr == tdr && v.lp.is_some()).count();
        assert_eq!(td.associated as usize, associated, "{tdr:x?}");
        if td.lifecycle != Lifecycle::Teardown && td.tdcs.len() > 3 {
            check_table(m, tdr, td.sept_root(), td.levels.max(1) - 1, &mut mapped);
        }
    }
    assert_eq!(owned.len(), 0, "pages without a TD");
}
fn check_table(m: &Module, tdr: Page, table: Page, level: u8, mapped: &mut BTreeSet<u64>) {
    for index in 0..512 {
        let entry = m.sept_entry(table, index).unwrap();
        let state = entry.state().unwrap();
        if state == State::Free || state == State::Removed {
            continue;
        }
        let (pa, size, kind) = if state.is_leaf() {
            (entry.hpa_at(level).0, Size::of_level(level).unwrap(), PageType::Reg)
        } else {
            (entry.page().hpa().0, Size::Small, PageType::Ept)
        };
        let pamt = m.pamt(pa, size);
        assert_eq!((pamt.page_type(), pamt.owner()), (kind, tdr), "T1: {pa:#x}");
        for i in 0..size.pages() {
            assert!(mapped.insert(pa + (i << 12)), "T2: {pa:#x}");
        }
        if !state.is_leaf() {
            check_table(m, tdr, entry.page(), level - 1, mapped);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------- the run

/// What an LP has under way.
#[derive(Clone, Debug)]
enum Doing {
    Nothing,
    Call(Flying),
    Guest(Flying),
}

#[derive(Default, Debug)]
struct Tally {
    succeeded: BTreeMap<Leaf, u64>,
    statuses: BTreeSet<(Leaf, Status)>,
    entries: u64,
    shutdowns: u64,
}

/// A call is over.
fn over(of: &Flying, answer: &Answer, tally: &mut Tally) {
    let leaf = Leaf(of.call.rax as u16);
    tally.statuses.insert((leaf, answer.status.code()));
    if answer.status == Status::SUCCESS {
        *tally.succeeded.entry(leaf).or_default() += 1;
        assert_eq!(of.refused, None, "{leaf} {:x?} succeeded", of.call);
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let mut r = Rng(0x9E37_79B9_7F4A_7C15 ^ (seed + 1).wrapping_mul(0xD134_2543_DE82_EF95));
    let mut w = BASE.world.clone();
    let mut doing = [Doing::Nothing, Doing::Nothing];
    let mut calls = 0;
    while calls < CALLS {
        let lp = r.below(2) as usize;
        w.irq = r.one_in(8);
        w.starve = u32::from(r.one_in(16));
        w.pconfig = if r.one_in(6) { PconfigStatus::NoEntropy } else { PconfigStatus::Ok };
        w.tsc += 1;
        let before = w.m.clone();
        let (flying, action) = match doing[lp].clone() {
            Doing::Nothing => {
                calls += 1;
                let call = random_call(&mut r, &w.m);
                let flying = predict(&w.m, &call, lp as u16);
                assert!(w.begin(lp, &call));
                let action = match r.below(3) {
                    // The first stage is behind its second step.
                    0 => w.run_some(lp, 2 + r.below(40) as usize),
                    _ => Some(w.run(lp, Reply::Done)),
                };
                (flying, action)
            }
            Doing::Call(flying) => {
                let action = match r.below(2) {
                    0 => w.run_some(lp, 1 + r.below(40) as usize),
                    _ => Some(w.run(lp, Reply::Done)),
                };
                (flying, action)
            }
            Doing::Guest(flying) => (flying, Some(w.exit(lp, random_exit(&mut r)))),
        };
        judge(&before, &w.m, &flying);
        check_hkids(&w.m);
        let leaf = Leaf(flying.call.rax as u16);
        let mut changed = false;
        doing[lp] = match action {
            None => Doing::Call(flying),
            Some(Action::Enter(_)) => {
                assert_eq!(flying.refused, None, "entered");
                tally.entries += 1;
                Doing::Guest(flying)
            }
            Some(Action::Return(answer)) => {
                over(&flying, &answer, tally);
                changed = !answer.status.is_error();
                let alone = matches!(doing[lp], Doing::Nothing);
                let excused = FAILURE_EFFECTS.iter().any(|f| f.leaf == Some(leaf) && f.in_module);
                if alone && answer.status.is_error() && !excused && leaf != Leaf::VP_ENTER {
                    // T10.
                    let same = before.without_priority() == w.m.without_priority();
                    assert!(same, "{leaf} {:x?}: {}", flying.call, answer.status);
                }
                Doing::Nothing
            }
            Some(Action::NotModelled) => {
                assert!(NOT_MODELLED.contains(&leaf), "{leaf}");
                Doing::Nothing
            }
            Some(other) => panic!("{leaf} {:x?}: {other:?}", flying.call),
        };
        if changed || calls % 16 == 0 {
            check_pages(&w.m);
        }
        if w.m.state() == SysState::SysShutdown {
            // Nothing more will happen here.
            tally.shutdowns += 1;
            w = BASE.world.clone();
            doing = [Doing::Nothing, Doing::Nothing];
        }
    }
    // Whatever is under way ends, and no lock is left.
    for (lp, what) in doing.iter().enumerate() {
        let left = match what {
            Doing::Nothing => continue,
            Doing::Call(_) => w.run(lp, Reply::Done),
            Doing::Guest(_) => w.exit(lp, VmExit::Interrupt),
        };
        let left = match left {
            Action::Enter(_) => w.exit(lp, VmExit::Interrupt),
            other => other,
        };
        assert!(matches!(left, Action::Return(_) | Action::NotModelled), "{left:?}");
    }
    assert!(w.m.is_quiet());
    check_pages(&w.m);
}

/// Leaves that change something, or need much to succeed.
const MUST_SUCCEED: &[Leaf] = &[
    Leaf::MNG_CREATE,
    Leaf::MNG_KEY_CONFIG,
    Leaf::MNG_ADDCX,
    Leaf::VP_CREATE,
    Leaf::VP_ADDCX,
    Leaf::VP_FLUSH,
    Leaf::MNG_VPFLUSHDONE,
    Leaf::MNG_KEY_FREEID,
    Leaf::PHYMEM_CACHE_WB,
    Leaf::PHYMEM_PAGE_RECLAIM,
    Leaf::PHYMEM_PAGE_RDMD,
    Leaf::PHYMEM_PAGE_WBINVD,
    Leaf::MEM_SEPT_ADD,
    Leaf::MEM_PAGE_ADD,
    Leaf::MEM_PAGE_AUG,
    Leaf::MEM_RANGE_BLOCK,
    Leaf::MEM_RANGE_UNBLOCK,
    Leaf::MEM_TRACK,
    Leaf::MEM_PAGE_REMOVE,
    Leaf::MEM_PAGE_RELOCATE,
    Leaf::MEM_SEPT_RD,
    Leaf::MEM_WR,
    Leaf::MR_FINALIZE,
    Leaf::MNG_INIT,
];

#[test]
#[allow(clippy::disallowed_methods, reason = "how long to test is the tester's to say")]
fn random_calls_neither_break_the_module_nor_succeed_by_accident() {
    let seeds = std::env::var("TDXSIM_RANDOM_SEEDS").ok().and_then(|n| n.parse().ok());
    let mut tally = Tally::default();
    for seed in 0..seeds.unwrap_or(SEEDS) {
        run(seed, &mut tally);
    }
    // The test says something only where there was something to say.
    for leaf in MUST_SUCCEED {
        assert!(tally.succeeded.contains_key(leaf), "{leaf} never succeeded: {tally:?}");
    }
    assert!(tally.entries > 0, "{tally:?}");
    assert!(tally.statuses.len() > 200, "{} statuses", tally.statuses.len());
}
