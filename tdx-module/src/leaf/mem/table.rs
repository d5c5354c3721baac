//! TDH.MEM.SEPT.*: Secure-EPT pages (architecture.md §7.9).
//!
//! L2 VMs are not modelled: a page offered for one that the TD was configured with is "not modelled", one for an L2 VM that
//! the TD has not is refused as the source refuses it. So there is no L2 table that could be walked, missing or in the way.

use super::{HANDLE_FLAG, NOT_USED, NULL_PA, entry, entry_of, find, handle, is_debug, kept, td};
use crate::cx::{Cx, Flow, Stage, ensure, invalid};
use crate::flight::reg::{R8, R9, R10, R11, RCX, RDX};
use crate::lock::Mode::{Exclusive, Shared};
use crate::pamt::{PamtEntry, Size};
use crate::sept::{Entry, State};
use sim_core::Page;
use sim_core::tdx::{Operand, PageType, Status};

/// Registers of the pages offered for L2 VMs.
pub(super) const L2_PAGES: [usize; 3] = [R9, R10, R11];

/// TDH.MEM.SEPT.ADD (3).
pub(crate) fn sept_add(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        ensure(cx.f.version <= 1, Status::OPERAND_INVALID.about(Operand::RAX))?;
        if cx.f.version > 0 {
            // Pages that are not used are given back, whatever comes of the call.
            for r in [R8].into_iter().chain(L2_PAGES) {
                cx.out(r, offered(cx, r));
            }
        }
        let handle = handle(cx)?;
        let (tdr, at) = entry_of(cx, handle, 1, None, Shared)?;
        let state = cx.allowed(at)?;
        let page = offered(cx, R8);
        let incorrect = Status::EPT_ENTRY_STATE_INCORRECT.about(Operand::RCX);
        if page == NULL_PA {
            ensure(cx.f.version > 0, invalid(R8))?;
            if state != State::NlMapped {
                cx.details(at);
                return Err(incorrect);
            }
        } else if state == State::Free {
            cx.f.scratch.page = cx.hpa_at(R8, page, Exclusive, PageType::Nda)?;
            cx.f.scratch.count = 1;
        } else if cx.reg(RDX) & HANDLE_FLAG != 0 {
            if cx.f.version > 0 {
                cx.out(R8, page | NOT_USED);
            }
        } else {
            cx.details(at);
            return Err(incorrect);
        }
        if cx.f.version > 0 {
            let have = cx.td(tdr)?.l2_vms;
            for (vm, r) in (1..).zip(L2_PAGES).filter(|(_, r)| offered(cx, *r) != NULL_PA) {
                ensure(vm <= have, invalid(r))?;
                return Ok(Flow::NotModelled);
            }
        }
        if cx.f.scratch.count == 0 {
            return Ok(Flow::Done(Status::SUCCESS));
        }
        let (page, hkid) = (cx.f.scratch.page, cx.td(tdr)?.hkid);
        cx.fill_page(page, hkid, Entry::FREE.0);
        return Ok(Flow::Again(1));
    }
    let ((tdr, at), page) = (kept(cx), cx.f.scratch.page);
    cx.m.sept_new(page, vec![Entry::FREE; 512].into_boxed_slice());
    cx.set_pamt(page.hpa().0, Size::Small, PamtEntry::new(PageType::Ept, tdr));
    cx.add_children(tdr, 1)?;
    cx.set_entry(tdr, at, Entry::table(State::NlMapped, page));
    if cx.f.version > 0 {
        cx.out(R8, NULL_PA);
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// A page offered in a register: bit 63 is ignored but in [`NULL_PA`].
fn offered(cx: &Cx<'_>, r: usize) -> u64 {
    match cx.reg(r) {
        NULL_PA => NULL_PA,
        page => page & !NOT_USED,
    }
}

/// Version 1 answers which pages of L2 VMs became free: none.
pub(super) fn no_l2_pages(cx: &mut Cx<'_>) {
    if cx.f.version > 0 {
        for r in L2_PAGES {
            cx.out(r, NULL_PA);
        }
    }
}

/// TDH.MEM.SEPT.REMOVE (30): the page's memory is not touched.
pub(crate) fn sept_remove(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        no_l2_pages(cx);
        ensure(cx.f.version <= 1, Status::OPERAND_INVALID.about(Operand::RAX))?;
        let (tdr, at) = entry(cx, 1, None, Exclusive)?;
        cx.allowed(at)?;
        let page = cx.entry(at).page();
        let busy = Status::OPERAND_BUSY.about(Operand::RCX);
        cx.lock_pamt(page.hpa().0, Size::Small, Exclusive).map_err(|_| busy)?;
        let bepoch = cx.m.pamt(page.hpa().0, Size::Small).bepoch;
        cx.track(tdr, at, bepoch)?;
        if !scan_free(cx, tdr, page)? {
            cx.details(at);
            return Err(Status::EPT_PAGE_NOT_FREE.about(Operand::RCX));
        }
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let page = cx.entry(at).page();
    cx.set_entry_unlocked(tdr, at, Entry::FREE);
    cx.sub_children(tdr, 1)?;
    let pamt = cx.m.pamt(page.hpa().0, Size::Small).released();
    cx.set_pamt(page.hpa().0, Size::Small, pamt);
    cx.m.sept_drop(page);
    cx.out(RCX, page.hpa().0);
    Ok(Flow::Done(Status::SUCCESS))
}

/// Reads a Secure-EPT page up to its first entry that is not FREE; whether there is none. REMOVED is not FREE.
fn scan_free(cx: &mut Cx<'_>, tdr: Page, table: Page) -> Result<bool, Status> {
    let hkid = cx.td(tdr)?.hkid;
    for index in 0..512 {
        if index % 8 == 0 {
            cx.f.load(crate::sept_at(table, index), hkid, 64);
        }
        let entry = cx.m.sept_entry(table, index);
        if entry.is_some_and(|e| e.state() != Some(State::Free)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// TDH.MEM.SEPT.RD (25). RDX bit 0 asks for the attributes of L2 VMs in R8, of a debug TD only (intel/tdx-module 1.5.01
/// tdh_mem_sept_rd.c): without L2 VMs they are 0.
pub(crate) fn sept_rd(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.mem);
    let (handle, flag) = (cx.reg(RDX) & !HANDLE_FLAG, cx.reg(RDX) & HANDLE_FLAG != 0);
    let tdr = td(cx, handle)?;
    if flag {
        ensure(is_debug(cx, tdr)?, invalid(RDX))?;
    }
    let at = find(cx, tdr, 0, None, Shared)?;
    cx.details(at);
    Ok(Flow::Done(Status::SUCCESS))
}
