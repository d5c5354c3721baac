//! TDH.MEM.*: private memory and the Secure-EPT (architecture.md §7.9).

mod debug;
mod page;
mod range;
mod size;
mod table;

pub(crate) use debug::{rd, wr};
pub(crate) use page::{page_add, page_aug, page_relocate, page_remove};
pub(crate) use range::{range_block, range_unblock, track};
pub(crate) use size::{page_demote, page_promote};
pub(crate) use table::{sept_add, sept_rd, sept_remove};

use crate::cx::{At, Cx, ensure, invalid};
use crate::flight::reg::{RCX, RDX};
use crate::lock::Mode::{self, Shared};
use crate::pamt::Size;
use crate::sept::State;
use crate::td::ATTRIBUTE_DEBUG;
use crate::td::layout;
use sim_core::Page;
use sim_core::tdx::Status;

/// NULL_PA: no page, in a register that may give one (intel/tdx-module 1.5.01 x86_defs.h).
const NULL_PA: u64 = u64::MAX;
/// In a register that may give a page: ignored on the way in, "the page was not used" on the way out (intel/tdx-module
/// 1.5.01 tdh_mem_sept_add.c).
const NOT_USED: u64 = 1 << 63;
/// Bit 0 of a TD handle: a flag of the leaf.
const HANDLE_FLAG: u64 = 1;
/// Bits of a TD handle that are neither its address nor [`HANDLE_FLAG`].
const HANDLE_RESERVED: u64 = 0xFFF0_0000_0000_0FFE;

/// The size of the leaf that an entry of this level may hold.
fn size(level: u8) -> Result<Size, Status> {
    Size::of_level(level).ok_or(invalid(RCX))
}

/// Remembers where an entry is, for the stages that follow.
fn keep(cx: &mut Cx<'_>, td: Page, at: At) {
    let scratch = &mut cx.f.scratch;
    scratch.td = td;
    (scratch.table, scratch.index, scratch.level) = (at.table, at.index, at.level);
}
fn kept(cx: &Cx<'_>) -> (Page, At) {
    let scratch = &cx.f.scratch;
    (scratch.td, At { table: scratch.table, index: scratch.index, level: scratch.level })
}

/// The checks that most leaves of this family begin with: TDR shared, STATE, GPA from level `lo` to `hi` (the root's
/// where absent), WALK, ENTRY.
fn entry(cx: &mut Cx<'_>, lo: u8, hi: Option<u8>, tree: Mode) -> Result<(Page, At), Status> {
    let handle = cx.reg(RDX);
    entry_of(cx, handle, lo, hi, tree)
}
/// The same where RDX is a handle with flags, which were taken off.
fn entry_of(
    cx: &mut Cx<'_>,
    handle: u64,
    lo: u8,
    hi: Option<u8>,
    tree: Mode,
) -> Result<(Page, At), Status> {
    let tdr = td(cx, handle)?;
    let at = find(cx, tdr, lo, hi, tree)?;
    Ok((tdr, at))
}
/// TDR shared and STATE.
fn td(cx: &mut Cx<'_>, handle: u64) -> Result<Page, Status> {
    let tdr = cx.tdr_at(RDX, handle, Shared)?;
    cx.state(tdr, true)?;
    Ok(tdr)
}
/// GPA, WALK, ENTRY.
fn find(cx: &mut Cx<'_>, tdr: Page, lo: u8, hi: Option<u8>, tree: Mode) -> Result<At, Status> {
    let (gpa, level) = cx.gpa(lo, hi.unwrap_or_else(|| cx.root_level(tdr)))?;
    let at = cx.walk(tdr, gpa, level, tree)?;
    cx.lock_entry(tdr, at)?;
    keep(cx, tdr, at);
    Ok(at)
}
/// The address of a TD handle with flags in RDX, else OPERAND_INVALID|RDX.
fn handle(cx: &Cx<'_>) -> Result<u64, Status> {
    let handle = cx.reg(RDX);
    ensure(handle & HANDLE_RESERVED == 0, invalid(RDX))?;
    Ok(handle & !HANDLE_FLAG)
}

/// Whether it is a debug TD: reads its attributes.
fn is_debug(cx: &mut Cx<'_>, tdr: Page) -> Result<bool, Status> {
    let (tdcs, hkid) = (cx.tdcs(tdr)?, cx.td(tdr)?.hkid);
    cx.f.load(layout::tdcs_controls(tdcs), hkid, 8);
    Ok(cx.td(tdr)?.attributes & ATTRIBUTE_DEBUG != 0)
}

/// Whether what a blocked-and-tracked check protects may be in a TLB: the state needs tracking and the TD may run.
fn needs_tracking(cx: &Cx<'_>, tdr: Page, state: State) -> Result<bool, Status> {
    Ok(state.needs_tracking(cx.td(tdr)?.op_state))
}

/// The PAMT entry that tells of what an entry holds: a page's at its size, a Secure-EPT page's at 4 KiB.
fn metadata_of(cx: &Cx<'_>, at: At) -> Result<(u64, Size), Status> {
    let entry = cx.entry(at);
    if entry.is_leaf() {
        Ok((entry.hpa_at(at.level).0, size(at.level)?))
    } else {
        Ok((entry.page().hpa().0, Size::Small))
    }
}
