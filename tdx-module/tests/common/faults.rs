//! What leaves of private memory check alike (architecture.md §7.7), as cases in check order.

#![allow(dead_code, reason = "each test file uses a part")]

use super::World;
use super::bench::{bench, gpa};
use super::cases::{Case, hold};
use super::edit::{edit_td, lock_entry};
use sim_core::Page;
use sim_core::tdx::{Leaf, Operand as O, Status as S};
use tdx_module::Call;
use tdx_module::reg::{R8, RCX, RDX};

/// A fault.
pub type Fault = fn(&mut World, &mut Call);

/// One case.
pub fn case(when: &'static str, spoils: &'static str, status: S, fault: Fault) -> Case {
    Case { when, spoils, fault, status }
}
/// A register spoilt.
pub fn rcx(when: &'static str, status: S, fault: Fault) -> Case {
    case(when, "rcx", status, fault)
}
/// A register spoilt.
pub fn rdx(when: &'static str, status: S, fault: Fault) -> Case {
    case(when, "rdx", status, fault)
}
/// A register spoilt.
pub fn r8(when: &'static str, status: S, fault: Fault) -> Case {
    case(when, "r8", status, fault)
}
/// A lock held by the other LP.
pub fn held(when: &'static str, status: S, fault: Fault) -> Case {
    case(when, "lp1", status, fault)
}

/// Until a call has all the locks of its checks.
pub const LOCKED: usize = 2;

/// LP 1 holds the PAMT entry of a page exclusively, those above it shared: by a call that does not look at the bench's
/// TD otherwise.
pub fn hold_page(w: &mut World, page: u64) {
    hold(w, Call::new(Leaf::VP_CREATE, page, bench().bare, 0, 0), LOCKED);
}
/// LP 1 in TDH.MEM.SEPT.RD: the tree's lock shared, the entry's lock.
pub fn hold_entry(w: &mut World, tdr: u64, info: u64) {
    hold(w, Call::new(Leaf::MEM_SEPT_RD, info, tdr, 0, 0), LOCKED);
}

/// Where the leaf has its TDR.
const fn operand<const R: usize>() -> O {
    if R == RCX { O::RCX } else { O::RDX }
}
/// TDR(r).
pub fn tdr<const R: usize>() -> Vec<Case> {
    let r = operand::<R>();
    vec![
        rdx("the TDR is not aligned", S::OPERAND_INVALID.about(r), |_, c| c.regs[R] |= 0x800),
        rdx("the TDR has KeyID bits", S::OPERAND_INVALID.about(r), |_, c| c.regs[R] |= 1 << 46),
        rdx("the TDR is in no TDMR", S::OPERAND_ADDR_RANGE_ERROR.about(r), |_, c| {
            c.regs[R] = 0x9000_0000;
        }),
        held("the TDR is locked", S::OPERAND_BUSY.about(r), |w, c| {
            hold(w, Call::new(Leaf::MR_FINALIZE, c.regs[R] & !1, 0, 0, 0), LOCKED);
        }),
        rdx("the TDR is a TDCS page", S::PAGE_METADATA_INCORRECT.about(r), |_, c| {
            c.regs[R] = bench().uninit + 0x1000;
        }),
    ]
}
/// STATE.
pub fn state<const R: usize>(lock: bool) -> Vec<Case> {
    let mut all = vec![
        rdx("the TD met a machine check", S::TD_FATAL, |_, c| c.regs[R] = bench().fatal),
        rdx("the TD has no key", S::TD_KEYS_NOT_CONFIGURED, |_, c| c.regs[R] = bench().created),
        rdx("the TD has no TDCS", S::TDCS_NOT_ALLOCATED, |_, c| c.regs[R] = bench().keyed),
        rdx("the TD is not initialised", S::OP_STATE_INCORRECT, |_, c| {
            c.regs[R] = bench().uninit;
        }),
    ];
    if lock {
        // Only leaves of migration take it exclusively.
        let busy = S::OPERAND_BUSY.about(O::OP_STATE);
        let locked = case("OP_STATE is locked by a leaf of migration", "op_lock", busy, |w, c| {
            edit_td(w, c.regs[R] & !1, "op_lock", 1);
        });
        all.insert(3, locked);
    }
    all
}
/// GPA, and a GPA that is not private.
pub fn gpa_operand() -> Vec<Case> {
    let invalid = S::OPERAND_INVALID.about(O::RCX);
    vec![
        rcx("reserved bits 11:3", invalid, |_, c| c.regs[RCX] |= 8),
        rcx("reserved bits 63:52", invalid, |_, c| c.regs[RCX] |= 1 << 52),
        rcx("no such level", invalid, |_, c| c.regs[RCX] |= 7),
        rcx("the GPA is shared", invalid, |_, c| c.regs[RCX] |= 1 << 47),
        rcx("the GPA is too wide", invalid, |_, c| c.regs[RCX] |= 1 << 50),
    ]
}
/// WALK and ENTRY of a leaf that takes the tree shared.
pub fn walk_shared() -> Vec<Case> {
    vec![
        held("the tree is locked", S::OPERAND_BUSY.about(O::SEPT_TREE), |w, c| {
            hold(w, Call::new(Leaf::MEM_RANGE_BLOCK, 0, c.regs[RDX] & !1, 0, 0), LOCKED);
        }),
        nowhere(),
        held("the entry is locked", S::OPERAND_BUSY.about(O::RCX), |w, c| {
            hold_entry(w, c.regs[RDX] & !1, c.regs[RCX]);
        }),
    ]
}
/// WALK and ENTRY of a leaf that takes the tree exclusively: only a TDCALL can have the entry alone.
pub fn walk_exclusive() -> Vec<Case> {
    vec![
        held("the tree is locked", S::OPERAND_BUSY.about(O::SEPT_TREE), |w, c| {
            hold_entry(w, c.regs[RDX], gpa::FREE);
        }),
        nowhere(),
        case("the guest has the entry", "entry", S::OPERAND_BUSY.about(O::RCX), |w, c| {
            lock_the_entry(w, c);
        }),
    ]
}
fn nowhere() -> Case {
    rcx("the tree ends above", S::EPT_WALK_FAILED.about(O::RCX), |_, c| c.regs[RCX] |= gpa::NOWHERE)
}
/// Locks the entry that RCX names in the bench's TD, at level 0 of GPA 0 to 2 MiB or level 1.
pub fn lock_the_entry(w: &mut World, c: &Call) {
    let (info, tables) = (c.regs[RCX], &bench().tables);
    let (table, shift) = if info & 7 == 0 { (tables[2], 12) } else { (tables[1], 21) };
    let index = (info >> shift & 511) as u16;
    if w.m.sept_entry(Page(table >> 12), index).is_some() {
        lock_entry(w, table, index);
    }
}
/// TRACK, for a leaf on entries of this level.
pub fn track(not_blocked: Fault, untracked: Fault) -> Vec<Case> {
    vec![
        rcx("the entry is not blocked", S::GPA_RANGE_NOT_BLOCKED.about(O::RCX), not_blocked),
        rcx("tracking is not done", S::TLB_TRACKING_NOT_DONE.about(O::RCX), untracked),
    ]
}
/// HPA(R8, ex, NDA).
pub fn free_page() -> Vec<Case> {
    vec![
        r8("R8 is not aligned", S::OPERAND_INVALID.about(O::R8), |_, c| c.regs[R8] |= 0x800),
        r8("R8 has KeyID bits", S::OPERAND_INVALID.about(O::R8), |_, c| c.regs[R8] |= 1 << 46),
        r8("R8 is in no TDMR", S::OPERAND_ADDR_RANGE_ERROR.about(O::R8), |_, c| {
            c.regs[R8] = 0x9000_0000;
        }),
        held("R8 is locked", S::OPERAND_BUSY.about(O::R8), |w, c| {
            hold_page(w, c.regs[R8]);
        }),
        r8("R8 is in use", S::PAGE_METADATA_INCORRECT.about(O::R8), |_, c| {
            c.regs[R8] = bench().uninit + 0x1000;
        }),
    ]
}
/// Cases one after the other.
pub fn all(parts: Vec<Vec<Case>>) -> Vec<Case> {
    parts.into_iter().flatten().collect()
}
