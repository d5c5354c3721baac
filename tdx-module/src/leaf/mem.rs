//! TDH.MEM.*: private memory and the Secure-EPT (architecture.md §7.9).

use crate::cx::{At, Cx, Flow, Stage, ensure, invalid, operand};
use crate::flight::reg::{R8, RCX, RDX};
use crate::lock::Mode::{Exclusive, Shared};
use crate::pamt::{PamtEntry, Size};
use crate::sept::{Entry, SeptOp, State, next};
use crate::td::layout;
use sim_core::tdx::{Operand, PageType, Status};
use sim_core::{Hpa, Page};

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

/// The checks that most leaves of this family begin with: TDR shared, STATE, GPA up to level `hi` (the root's where
/// absent), WALK, ENTRY.
fn entry(
    cx: &mut Cx<'_>,
    lo: u8,
    hi: Option<u8>,
    tree: crate::lock::Mode,
) -> Result<(Page, At), Status> {
    let tdr = cx.tdr(RDX, Shared)?;
    cx.state(tdr, true)?;
    let (gpa, level) = cx.gpa(lo, hi.unwrap_or_else(|| cx.root_level(tdr)))?;
    let at = cx.walk(tdr, gpa, level, tree)?;
    cx.lock_entry(tdr, at)?;
    keep(cx, tdr, at);
    cx.f.scratch.gpa = gpa;
    Ok((tdr, at))
}

/// TDH.MEM.PAGE.AUG (6): a page that the guest has to accept. Nothing of the page's memory is touched.
pub(crate) fn page_aug(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (_, at) = entry(cx, 0, Some(1), Shared)?;
        cx.allowed(at)?;
        let page = match size(at.level)? {
            Size::Small => cx.free_page(R8)?,
            large => free_block(cx, large)?,
        };
        cx.f.scratch.page = page;
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (page, size) = (cx.f.scratch.page, size(at.level)?);
    cx.set_entry(tdr, at, Entry::leaf(State::Pending, page));
    cx.set_pamt(page.hpa().0, size, PamtEntry::new(PageType::Reg, tdr));
    cx.add_children(tdr, size.pages())?;
    Ok(Flow::Done(Status::SUCCESS))
}

/// A free block of a large size in R8, exclusively locked: nothing below it is in use.
fn free_block(cx: &mut Cx<'_>, size: Size) -> Result<Page, Status> {
    let pa = cx.physical(R8, size.bytes())?;
    let op = operand(R8);
    let reached = cx.pamt_walk(pa, size, Exclusive).map_err(|_| Status::OPERAND_BUSY.about(op))?;
    let tdmr = cx.m.tdmr_of(pa);
    let free = reached == size
        && cx.m.pamt(pa, size).page_type() == PageType::Nda
        && tdmr.is_some_and(|t| t.is_free_below(pa, size));
    touch_children(cx, pa, size);
    ensure(free, Status::PAGE_METADATA_INCORRECT.about(op))?;
    Ok(Hpa(pa).page())
}

/// Reads the 512 entries one size smaller than the entry of `size` at `pa`: 128 lines.
fn touch_children(cx: &mut Cx<'_>, pa: u64, size: Size) {
    let Some(smaller) = size.smaller() else { return };
    let global = cx.global();
    let first = cx.m.tdmr_of(pa).and_then(|t| t.entry_at(pa, smaller));
    for line in 0..128 {
        if let Some(Hpa(at)) = first {
            cx.f.load(Hpa(at + 64 * line), global, 64);
        }
    }
}

/// TDH.MEM.RANGE.BLOCK (7).
pub(crate) fn range_block(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (_, at) = entry(cx, 0, None, Exclusive)?;
        let state = cx.entry_state(at);
        let already = Status::GPA_RANGE_ALREADY_BLOCKED.about(Operand::RCX);
        ensure(!state.is_blocked(), already)?;
        cx.allowed(at)?;
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let entry = cx.entry(at);
    let state = next(SeptOp::RangeBlock, cx.entry_state(at)).unwrap_or(State::Blocked);
    cx.set_entry(tdr, at, entry.with_state(state).with_accept_counter(0));
    let epoch = cx.td(tdr)?.epoch;
    // Of a leaf: the entry of its size. Of a table: that of the Secure-EPT page.
    let size = if entry.is_leaf() { size(at.level)? } else { Size::Small };
    let pa = entry.page().hpa().0;
    let mut pamt = cx.m.pamt(pa, size);
    pamt.bepoch = epoch;
    cx.set_pamt(pa, size, pamt);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MEM.TRACK (38).
pub(crate) fn track(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let tdr = cx.tdr(RCX, Shared)?;
        cx.state(tdr, true)?;
        cx.lock_epoch(tdr, Exclusive)?;
        let td = cx.td(tdr)?;
        let previous = td.refcount.get((td.epoch.wrapping_sub(1) & 1) as usize);
        ensure(previous.is_none_or(|n| *n == 0), Status::PREVIOUS_TLB_EPOCH_BUSY)?;
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let td = cx.td_mut(tdr)?;
    td.epoch += 1;
    let (epoch, hkid) = (td.epoch, td.hkid);
    let tdcs = cx.tdcs(tdr)?;
    cx.f.store(layout::tdcs_epoch(tdcs), hkid, epoch);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MEM.PAGE.REMOVE (29): no write, no flush, no clearing of the page.
pub(crate) fn page_remove(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (tdr, at) = entry(cx, 0, Some(2), Shared)?;
        cx.allowed(at)?;
        let pa = cx.entry(at).page().hpa().0;
        let size = size(at.level)?;
        let busy = Status::OPERAND_BUSY.about(Operand::RCX);
        cx.pamt_walk(pa, size, Exclusive).map_err(|_| busy)?;
        let bepoch = cx.m.pamt(pa, size).bepoch;
        cx.track(tdr, at, bepoch)?;
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (pa, size) = (cx.entry(at).page().hpa().0, size(at.level)?);
    let import = crate::op_state::import_in_progress(cx.td(tdr)?.op_state);
    let left = if import { Entry::FREE.with_state(State::Removed) } else { Entry::FREE };
    cx.set_entry(tdr, at, left);
    let pamt = cx.m.pamt(pa, size).released();
    cx.set_pamt(pa, size, pamt);
    cx.sub_children(tdr, size.pages())?;
    cx.out(RCX, pa);
    Ok(Flow::Done(Status::SUCCESS))
}

pub(crate) fn sept_add(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn sept_remove(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn sept_rd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn page_add(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn page_demote(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn page_promote(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn page_relocate(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn range_unblock(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn rd(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}

pub(crate) fn wr(_: &mut Cx<'_>) -> Stage {
    Ok(Flow::NotModelled)
}
