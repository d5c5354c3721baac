//! TDH.MEM.PAGE.ADD, AUG, RELOCATE and REMOVE: private pages (architecture.md §7.9).

use super::{entry, kept, size};
use crate::cx::{Cx, Flow, Stage, ensure, invalid, operand};
use crate::flight::Touch;
use crate::flight::reg::{R8, R9, RCX, RDX};
use crate::lock::Mode::{Exclusive, Shared};
use crate::op_state;
use crate::pamt::{PamtEntry, Size, Tdmr};
use crate::sept::{Entry, SeptOp, State, next};
use sim_core::planted::Fault;
use sim_core::tdx::{Operand, PageType, Status};
use sim_core::{Addr, Hpa, Page};

/// TDH.MEM.PAGE.ADD (2): the one page that comes with content, which is measured.
pub(crate) fn page_add(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        // The exclusive TDR stands for the tree's and the entry's locks.
        let tdr = cx.tdr(RDX, Exclusive)?;
        cx.state(tdr, false)?;
        let (gpa, level) = cx.gpa(0, 0)?;
        ensure(cx.is_private_gpa(tdr, gpa), invalid(RCX))?;
        cx.load_root(tdr)?;
        let at = cx.walk_unlocked(tdr, gpa, level)?;
        cx.allowed(at)?;
        let source = cx.shpa(R9, Size::Small.bytes(), Size::Small.bytes())?;
        let page = cx.free_page(R8)?;
        super::keep(cx, tdr, at);
        (cx.f.scratch.page, cx.f.scratch.gpa) = (page, gpa);
        let to = Addr::new(page.hpa(), cx.td(tdr)?.hkid);
        cx.f.touch(Touch::Copy { from: source, to });
        return Ok(Flow::Again(1));
    }
    let ((tdr, at), page) = (kept(cx), cx.f.scratch.page);
    cx.set_entry(tdr, at, Entry::leaf(State::Mapped, page));
    cx.load_mrtd(tdr)?;
    let gpa = cx.f.scratch.gpa;
    cx.td_mut(tdr)?.mrtd.record("MEM.PAGE.ADD", gpa);
    cx.spend(|c| c.hash);
    cx.store_mrtd(tdr)?;
    cx.add_children(tdr, 1)?;
    let owner = if cx.m.spec.planted.is(Fault::AddWithoutPamtOwner) { Page(0) } else { tdr };
    cx.set_pamt(page.hpa().0, Size::Small, PamtEntry::new(PageType::Reg, owner));
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MEM.PAGE.AUG (6): a page that the guest has to accept. Nothing of the page's memory is touched.
pub(crate) fn page_aug(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (_, at) = entry(cx, 0, Some(1), Shared)?;
        cx.allowed(at)?;
        let page = match size(at.level)? {
            Size::Small if cx.m.spec.planted.is(Fault::AugTakenPage) => Hpa(cx.reg(R8)).page(),
            Size::Small => cx.free_page(R8)?,
            large => free_block(cx, large)?,
        };
        cx.f.scratch.page = page;
        if cx.m.spec.planted.is(Fault::AugClearsPage) {
            let global = cx.global();
            cx.fill_page(page, global, 0);
        }
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (page, size) = (cx.f.scratch.page, size(at.level)?);
    cx.set_entry_unlocked(tdr, at, Entry::leaf(State::Pending, page));
    cx.add_children(tdr, size.pages())?;
    cx.set_pamt(page.hpa().0, size, PamtEntry::new(PageType::Reg, tdr));
    Ok(Flow::Done(Status::SUCCESS))
}

/// A free block of a large size in R8, its entry exclusively locked: nothing below it is in use. The children's entries
/// are read one after the other, without their locks, up to the first that is in use.
fn free_block(cx: &mut Cx<'_>, size: Size) -> Result<Page, Status> {
    let pa = cx.physical(R8, size.bytes())?;
    let op = operand(R8);
    let incorrect = Status::PAGE_METADATA_INCORRECT.about(op);
    let reached = cx.pamt_walk(pa, size, Exclusive).map_err(|_| Status::OPERAND_BUSY.about(op))?;
    ensure(reached == size && cx.m.pamt(pa, size).page_type() == PageType::Nda, incorrect)?;
    let global = cx.global();
    // Dynamic PAMT: there are no smaller entries to read, but a bitmap.
    if let Some(at) = cx.bitmap_at(pa) {
        cx.f.load(at, global, 64);
    }
    let free = cx.m.tdmr_of(pa).is_some_and(|t| t.is_free_below(pa, size));
    for (i, (child, smaller)) in Tdmr::below(pa, size).enumerate() {
        if i % 4 == 0
            && let Some(at) = cx.m.tdmr_of(pa).and_then(|t| t.entry_at(child, smaller))
        {
            cx.f.load(at, global, 64);
        }
        if !free {
            ensure(cx.m.pamt(child, smaller).page_type() == PageType::Nda, incorrect)?;
        }
    }
    ensure(free, incorrect)?;
    Ok(Hpa(pa).page())
}

/// TDH.MEM.PAGE.REMOVE (29): no write, no flush, no clearing of the page.
pub(crate) fn page_remove(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (tdr, at) = entry(cx, 0, Some(2), Shared)?;
        cx.allowed(at)?;
        lock_mapped(cx, tdr, at)?;
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (pa, size) = (cx.entry(at).hpa_at(at.level).0, size(at.level)?);
    let import = op_state::import_in_progress(cx.td(tdr)?.op_state);
    let op = if import { SeptOp::PageRemoveImport } else { SeptOp::PageRemove };
    let left = next(op, cx.entry_state(at)).ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    // Neither state holds a page.
    let removed = match cx.m.spec.planted.is(Fault::RemoveKeepsEntry) {
        true => cx.entry(at),
        false => Entry::leaf(left, Page(0)),
    };
    cx.set_entry_unlocked(tdr, at, removed);
    cx.sub_children(tdr, size.pages())?;
    if !cx.m.spec.planted.is(Fault::RemoveKeepsPamt) {
        let pamt = cx.m.pamt(pa, size).released();
        cx.set_pamt(pa, size, pamt);
    }
    cx.out(RCX, pa);
    Ok(Flow::Done(Status::SUCCESS))
}

/// The PAMT lock of the page that an entry maps, of its entry alone, else OPERAND_BUSY|RCX; then TRACK.
fn lock_mapped(cx: &mut Cx<'_>, tdr: Page, at: crate::cx::At) -> Result<(), Status> {
    let (pa, size) = (cx.entry(at).hpa_at(at.level).0, size(at.level)?);
    let busy = Status::OPERAND_BUSY.about(Operand::RCX);
    cx.lock_pamt(pa, size, Exclusive).map_err(|_| busy)?;
    let bepoch = cx.m.pamt(pa, size).bepoch;
    cx.track(tdr, at, bepoch)
}

/// TDH.MEM.PAGE.RELOCATE (5): the old page's memory is left as it is.
pub(crate) fn page_relocate(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (tdr, at) = entry(cx, 0, Some(0), Shared)?;
        let state = cx.allowed(at)?;
        let old = cx.entry(at).page();
        ensure(cx.reg(R8) != old.hpa().0, invalid(R8))?;
        lock_mapped(cx, tdr, at)?;
        let page = cx.free_page(R8)?;
        cx.f.scratch.page = page;
        if !state.is_pending() {
            let hkid = cx.td(tdr)?.hkid;
            let (from, to) = (Addr::new(old.hpa(), hkid), Addr::new(page.hpa(), hkid));
            cx.f.touch(Touch::Copy { from, to });
        }
        return Ok(Flow::Again(1));
    }
    let ((tdr, at), page) = (kept(cx), cx.f.scratch.page);
    let entry = cx.entry(at);
    let old = entry.page().hpa().0;
    let pamt = cx.m.pamt(old, Size::Small).released();
    cx.set_pamt(old, Size::Small, pamt);
    cx.set_pamt(page.hpa().0, Size::Small, PamtEntry::new(PageType::Reg, tdr));
    let state = next(SeptOp::PageRelocate, cx.entry_state(at));
    let state = state.ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    cx.set_entry(tdr, at, entry.with_state(state).with_page(page));
    cx.out(RCX, old);
    Ok(Flow::Done(Status::SUCCESS))
}
