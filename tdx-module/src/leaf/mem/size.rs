//! TDH.MEM.PAGE.DEMOTE and TDH.MEM.PAGE.PROMOTE: one page into 512 and back (architecture.md §7.9).

use super::table::{L2_PAGES, no_l2_pages};
use super::{HANDLE_FLAG, NOT_USED, NULL_PA, entry, entry_of, handle, kept, size};
use crate::cx::{At, Cx, Flow, Stage, ensure};
use crate::flight::Touch;
use crate::flight::reg::{R8, RCX, RDX};
use crate::lock::Mode::{Exclusive, Shared};
use crate::pamt::{Size, Tdmr};
use crate::sept::{Entry, SeptOp, State, next};
use sim_core::tdx::{Operand, PageType, Status};
use sim_core::{Addr, Hpa, Page};

const BUSY: Status = Status::OPERAND_BUSY.about(Operand::RCX);

/// Ends a leaf for a pending interrupt: nothing is committed, RCX and RDX are as they were.
fn interruptible(cx: &mut Cx<'_>) -> Result<(), Status> {
    if !cx.env.irq {
        return Ok(());
    }
    cx.out(RCX, cx.reg(RCX));
    cx.out(RDX, cx.reg(RDX));
    Err(Status::INTERRUPTED_RESTARTABLE)
}

/// TDH.MEM.PAGE.DEMOTE (15). The new Secure-EPT page is written before anything is decided for good: an interrupt or a
/// busy PAMT leaves it overwritten and not the module's (architecture.md §7.10.1).
///
/// R9 to R11 are pages for L2 VMs that the TD was configured with. With RDX bit 0 only those get one that have a part of
/// the page, of which this model has none; without it the leaf would give each a table, which is not modelled.
pub(crate) fn page_demote(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let handle = handle(cx)?;
        let (tdr, at) = entry_of(cx, handle, 1, Some(2), Shared)?;
        let state = cx.allowed(at)?;
        let (pa, size) = (cx.entry(at).hpa_at(at.level).0, size(at.level)?);
        // Its lock is taken only when the PAMT is split.
        cx.load_pamt(pa, size);
        let bepoch = cx.m.pamt(pa, size).bepoch;
        cx.track(tdr, at, bepoch)?;
        let page = cx.free_page(R8)?;
        let l2_vms = usize::from(cx.td(tdr)?.l2_vms);
        let offers = L2_PAGES.into_iter().take(l2_vms).any(|r| cx.reg(r) != NULL_PA);
        if offers && cx.reg(RDX) & HANDLE_FLAG == 0 {
            return Ok(Flow::NotModelled);
        }
        cx.f.scratch.page = page;
        let (first, step) = children(cx.entry(at), state, pa, size);
        let at = Addr::new(page.hpa(), cx.td(tdr)?.hkid);
        cx.f.touch(Touch::FillTable { at, first: first.0, step });
        return Ok(Flow::Again(1));
    }
    let ((tdr, at), page) = (kept(cx), cx.f.scratch.page);
    let (old, state) = (cx.entry(at), cx.entry_state(at));
    let (pa, size) = (old.hpa_at(at.level).0, size(at.level)?);
    let split = next(SeptOp::PageDemote, state).ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    interruptible(cx)?;
    // A later module takes the pair as operands; it is not modelled here (linux-host-paths.md §13).
    let missing = Status::MISSING_PAMT_PAGE_PAIR.about(Operand::RCX);
    ensure(cx.m.tdmr_of(pa).is_some_and(|t| has_children(t, pa, size)), missing)?;
    let held = cx.f.locks.len();
    cx.lock_pamt(pa, size, Exclusive).map_err(|_| BUSY)?;
    let before = cx.m.pamt(pa, size).page_type();
    if let Some(tdmr) = cx.m.tdmr_of_mut(pa) {
        tdmr.demote(pa, size);
    }
    cx.note_pamt(pa, size, before, cx.m.pamt(pa, size));
    store_range(cx, pa, size);
    cx.m.release(cx.f, held);

    let (first, step) = children(old, state, pa, size);
    let entries = (0..512).map(|i| Entry(first.0 + i * step)).collect();
    cx.m.sept_new(page, entries);
    cx.set_entry(tdr, at, Entry::table(split, page));
    // BEPOCH of the new Secure-EPT page is not written (intel/tdx-module 1.5.01 tdh_mem_page_demote.c).
    let pamt = cx.m.pamt(page.hpa().0, Size::Small).given(PageType::Ept, tdr);
    cx.set_pamt(page.hpa().0, Size::Small, pamt);
    cx.add_children(tdr, 1)?;
    let l2_vms = usize::from(cx.td(tdr)?.l2_vms);
    for (i, r) in L2_PAGES.into_iter().enumerate() {
        let unused = i < l2_vms && cx.reg(r) != NULL_PA;
        cx.out(r, if unused { cx.reg(r) | NOT_USED } else { cx.reg(r) });
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// The first entry of the new table and how the word goes on: the old entry unlocked and unblocked, over the page's first
/// part, without the counter of ACCEPT.
fn children(old: Entry, state: State, pa: u64, size: Size) -> (Entry, u64) {
    let first = old.with_state(state.unblocked()).with_locked(false).with_host_priority(false);
    let step = size.smaller().map_or(0, Size::bytes);
    (first.with_page(Hpa(pa).page()), step)
}

/// Whether there is PAMT for the 512 smaller pages: without dynamic PAMT always.
fn has_children(tdmr: &Tdmr, pa: u64, size: Size) -> bool {
    Tdmr::below(pa, size).next().is_some_and(|(pa, size)| tdmr.entry_at(pa, size).is_some())
}

/// Stores the entry of `size` at `pa` and the 512 below it: ordinary cached stores.
fn store_range(cx: &mut Cx<'_>, pa: u64, size: Size) {
    for (child, smaller) in Tdmr::below(pa, size) {
        cx.m.touch_pamt(cx.f, child, smaller, false);
    }
    cx.m.touch_pamt(cx.f, pa, size, false);
}

/// TDH.MEM.PAGE.PROMOTE (23). The memory of the Secure-EPT page that becomes free is not touched.
pub(crate) fn page_promote(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        no_l2_pages(cx);
        ensure(cx.f.version <= 1, Status::OPERAND_INVALID.about(Operand::RAX))?;
        let (tdr, at) = entry(cx, 1, Some(2), Shared)?;
        cx.allowed(at)?;
        let table = cx.entry(at).page();
        cx.lock_pamt(table.hpa().0, Size::Small, Exclusive).map_err(|_| BUSY)?;
        let bepoch = cx.m.pamt(table.hpa().0, Size::Small).bepoch;
        cx.track(tdr, at, bepoch)?;
        if let Err(status) = lock_children(cx, tdr, table, at) {
            cx.details(at);
            return Err(status);
        }
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (table, size) = (cx.entry(at).page(), size(at.level)?);
    let first = cx.entry(At { table, index: 0, level: at.level - 1 });
    let (pa, state) = (first.hpa_at(at.level - 1).0, first.state().unwrap_or(State::Free));
    let op = match state {
        State::Mapped => SeptOp::PagePromote,
        _ => SeptOp::PagePromotePending,
    };
    let merged = next(op, cx.entry_state(at)).ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    interruptible(cx)?;
    let held = cx.f.locks.len();
    cx.lock_pamt(pa, size, Exclusive).map_err(|_| BUSY)?;
    let before = cx.m.pamt(pa, size).page_type();
    let pair = cx.m.tdmr_of_mut(pa).and_then(|tdmr| tdmr.promote(pa, size));
    cx.note_pamt(pa, size, before, cx.m.pamt(pa, size));
    for page in pair.into_iter().flatten() {
        cx.mark_pamt_page(page, false);
    }
    store_range(cx, pa, size);
    cx.m.release(cx.f, held);

    // The locks of the children are never released: they go with their page.
    cx.m.sept_drop(table);
    cx.set_entry(tdr, at, first.with_state(merged));
    cx.sub_children(tdr, 1)?;
    let pamt = cx.m.pamt(table.hpa().0, Size::Small).released();
    cx.set_pamt(table.hpa().0, Size::Small, pamt);
    cx.out(RCX, table.hpa().0);
    Ok(Flow::Done(Status::SUCCESS))
}

/// Locks the 512 entries one after the other and checks each: the first is MAPPED or PENDING over an aligned page, every
/// other has the same bits over the next page. A counter of ACCEPT does not count.
fn lock_children(cx: &mut Cx<'_>, tdr: Page, table: Page, parent: At) -> Result<(), Status> {
    let (size, level) = (size(parent.level)?, parent.level - 1);
    let step = size.smaller().map_or(0, Size::bytes);
    let unfit = Status::EPT_INVALID_PROMOTE_CONDITIONS.about(Operand::RCX);
    let mut expected = Entry::FREE;
    for index in 0..512 {
        let at = At { table, index, level };
        cx.lock_entry(tdr, at)?;
        let entry = cx.entry(at);
        let entry = entry.with_page(entry.hpa_at(level).page());
        if index == 0 {
            let aligned = entry.hpa().0 & (size.bytes() - 1) == 0;
            let fits = matches!(entry.state(), Some(State::Mapped | State::Pending));
            ensure(aligned && fits, unfit)?;
            expected = entry;
        } else {
            expected = Entry(expected.0.wrapping_add(step));
            ensure(entry == expected, unfit)?;
        }
    }
    Ok(())
}
