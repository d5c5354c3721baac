//! TDH.PHYMEM.*: physical pages (architecture.md §7.9), and their metadata with dynamic PAMT (linux-host-paths.md §13).

use crate::cx::{Cx, Flow, Stage, ensure, invalid, operand};
use crate::flight::reg::{R8, R9, R10, R11, RCX, RDX};
use crate::flight::{Held, Touch};
use crate::lock::Mode::{self, Exclusive, Shared};
use crate::op_state::{KotState, Lifecycle};
use crate::pamt::{ENTRY_BYTES, PamtEntry, Size};
use crate::sys::WbCache;
use sim_core::planted::Fault;
use sim_core::tdx::{Operand, PageType, Status};
use sim_core::{Addr, Hpa, Page};

/// RCX of TDH.PHYMEM.CACHE.WB: start anew.
const START: u64 = 0;
/// RCX of TDH.PHYMEM.CACHE.WB: go on where an interrupt stopped it.
const RESUME: u64 = 1;

/// The write-back of this package.
fn wbcache<'a>(cx: &'a mut Cx<'_>) -> Result<&'a mut WbCache, Status> {
    let busy = Status::OPERAND_BUSY.about(Operand::WBCACHE);
    cx.m.sys.wbcache.get_mut(usize::from(cx.env.package)).ok_or(busy)
}

/// TDH.PHYMEM.CACHE.WB (40): writes back this package's caches without invalidating them, one sub-block after the other.
/// An interrupt between two stops it; only its end clears this package's bit of the HKIDs that were FLUSHED at its start.
pub(crate) fn cache_wb(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.phymem);
        let command = cx.reg(RCX);
        ensure(command == START || command == RESUME, invalid(RCX))?;
        let busy = Status::OPERAND_BUSY.about(Operand::WBCACHE);
        wbcache(cx)?.lock.try_take(Exclusive).map_err(|_| busy)?;
        cx.f.locks.push(Held::WbCache(cx.env.package));
        cx.lock_kot(Shared)?;
        let next = if command == START {
            // What an interrupted write-back had saved is lost when this one ends or is interrupted itself.
            let kot = cx.m.sys.kot.iter().enumerate();
            let flushed: Vec<u16> = kot
                .filter(|(_, entry)| entry.state == KotState::Flushed)
                .filter_map(|(hkid, _)| u16::try_from(hkid).ok())
                .collect();
            ensure(!flushed.is_empty(), Status::NO_HKID_READY_TO_WBCACHE)?;
            wbcache(cx)?.flushed = flushed;
            0
        } else {
            wbcache(cx)?.resume.ok_or(Status::WBCACHE_RESUME_ERROR)?
        };
        return write_back(cx, next);
    }
    let next = cx.f.scratch.count as u32;
    if next < cx.m.spec.sub_blocks {
        if cx.env.irq {
            wbcache(cx)?.resume = Some(next);
            if cx.m.spec.planted.is(Fault::CacheWbClearsEarly) {
                cx.m.sys.kot.iter_mut().for_each(|entry| entry.wbinvd_bitmap = 0);
            }
            return Err(Status::INTERRUPTED_RESUMABLE);
        }
        return write_back(cx, next);
    }
    let package = cx.env.package;
    let done = wbcache(cx)?;
    done.resume = None;
    let flushed = std::mem::take(&mut done.flushed);
    for hkid in flushed {
        if let Some(entry) = cx.m.sys.kot.get_mut(usize::from(hkid)) {
            entry.wbinvd_bitmap &= !(1 << package);
        }
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// WRMSR IA32_WBNOINVDP of one sub-block.
fn write_back(cx: &mut Cx<'_>, block: u32) -> Stage {
    if !cx.m.spec.planted.is(Fault::CacheWbWritesNothing) {
        cx.f.touch(Touch::WriteBackBlock(block));
    }
    cx.f.scratch.count = u64::from(block) + 1;
    Ok(Flow::Again(1))
}

/// A 4 KiB page in RCX whose PAMT entry, of whatever size it is, is locked in `mode`: address and size.
fn any_page(cx: &mut Cx<'_>, mode: Mode) -> Result<(u64, Size), Status> {
    let pa = cx.physical(RCX, Size::Small.bytes())?;
    let busy = Status::OPERAND_BUSY.about(Operand::RCX);
    let size = cx.pamt_walk(pa, Size::Small, mode).map_err(|_| busy)?;
    Ok((pa, size))
}

/// TDH.PHYMEM.PAGE.RDMD (24).
///
/// With dynamic PAMT it takes a level in RCX\[1:0\], the smallest size that the caller asks for, tells PAMT pages by the
/// bitmap, and gives the pair of a PT_PAMT entry in R10 and R11 (intel/tdx-module 1666adc494db, later than 1.5.01). The bit
/// of RCX that says "not a leaf" there is left out: no source says where it is; PT_PAMT with size 2 MiB tells it.
pub(crate) fn page_rdmd(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage > 0 {
        return Ok(Flow::Done(Status::SUCCESS));
    }
    cx.spend(|c| c.phymem);
    let dynamic = cx.m.spec.tdx.dynamic_pamt;
    let wanted = if dynamic { sized(cx)? } else { Size::Small };
    let pa = cx.physical_at(RCX, cx.reg(RCX) & !u64::from(wanted.level()), wanted.bytes())?;
    let busy = Status::OPERAND_BUSY.about(Operand::RCX);
    let size = cx.pamt_walk(pa, wanted, Shared).map_err(|_| busy)?;
    let entry = cx.m.pamt(pa, size);
    let found = entry.page_type();
    if let (true, PageType::Nda, Size::Small, Some(at)) = (dynamic, found, wanted, cx.bitmap_at(pa))
    {
        let global = cx.global();
        cx.f.load(at, global, 8);
        if cx.m.tdmr_of(pa).is_some_and(|t| t.is_marked(pa)) {
            cx.out(RCX, PageType::Pamt.code().into());
            return Ok(Flow::Again(1));
        }
    }
    let said = match cx.m.spec.planted.is(Fault::RdmdSaysFree) {
        true => PageType::Nda,
        false => found,
    };
    cx.out(RCX, said.code().into());
    cx.out(R8, size.level().into());
    if let Some([first, second]) = entry.pages() {
        cx.out(R10, first.hpa().0);
        cx.out(R11, second.hpa().0);
        return Ok(Flow::Again(1));
    }
    cx.out(RDX, entry.owner().hpa().0);
    if matches!(found, PageType::Reg | PageType::Ept) {
        cx.out(R9, entry.bepoch);
    }
    Ok(Flow::Again(1))
}

/// RCX as address and level 0 to 2: the level.
fn sized(cx: &Cx<'_>) -> Result<Size, Status> {
    let info = cx.reg(RCX);
    ensure(info & 0xff8 == 0, invalid(RCX))?;
    Size::of_level((info & 7) as u8).ok_or(invalid(RCX))
}

/// R9 bit 62 of TDH.PHYMEM.PAGE.RECLAIM with dynamic PAMT: no page of the 2 MiB block is in use any more, its pair of PAMT
/// pages can be taken back (intel/tdx-module 1666adc494db pamt_manager.h).
const REMOVAL_HINT: u64 = 1 << 62;

/// TDH.PHYMEM.PAGE.RECLAIM (28): takes a page back from a TD that is torn down. The page's memory is not touched.
pub(crate) fn page_reclaim(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.phymem);
        let (pa, size) = any_page(cx, Exclusive)?;
        let entry = cx.m.pamt(pa, size);
        let (found, owner) = (entry.page_type(), entry.owner());
        let owned = !matches!(found, PageType::Nda | PageType::Rsvd);
        ensure(owned, Status::PAGE_METADATA_INCORRECT.about(Operand::RCX))?;
        // The outputs stay also when a later check fails.
        cx.out(RCX, found.code().into());
        cx.out(RDX, owner.hpa().0);
        cx.out(R8, size.level().into());
        ensure(pa & (size.bytes() - 1) == 0, invalid(RCX))?;
        let page = Hpa(pa).page();
        let tdr = if found == PageType::Tdr { page } else { owner };
        if tdr == page {
            cx.load_tdr(tdr);
        } else {
            cx.lock_owner(tdr, Shared)?;
        }
        let td = cx.td(tdr)?;
        let dead = td.lifecycle == Lifecycle::Teardown
            || cx.m.spec.planted.is(Fault::ReclaimBeforeTeardown);
        ensure(dead, Status::LIFECYCLE_STATE_INCORRECT)?;
        ensure(tdr != page || td.chldcnt == 0, Status::TD_ASSOCIATED_PAGES_EXIST)?;
        (cx.f.scratch.td, cx.f.scratch.page, cx.f.scratch.level) = (tdr, page, size.level());
        return Ok(Flow::Again(1));
    }
    let (tdr, page) = (cx.f.scratch.td, cx.f.scratch.page);
    let size = Size::of_level(cx.f.scratch.level).unwrap_or(Size::Small);
    let pa = page.hpa().0;
    let entry = cx.m.pamt(pa, size);
    if tdr != page {
        cx.sub_children(tdr, size.pages())?;
    }
    cx.set_pamt(pa, size, entry.released());
    // What was kept in the page is gone with it.
    match entry.page_type() {
        PageType::Tdr => drop(cx.m.tds.remove(&page)),
        PageType::Tdvpr => drop(cx.m.vcpus.remove(&page)),
        // The Secure-EPT root is a page of TDCS.
        PageType::Ept | PageType::Tdcx => cx.m.sept_drop(page),
        PageType::Nda | PageType::Rsvd | PageType::Reg | PageType::Pamt => {}
    }
    let above = cx.m.pamt(pa, Size::Large);
    if size == Size::Small && above.pages().is_some() && above.page_count() == 0 {
        cx.out(R9, REMOVAL_HINT);
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.PHYMEM.PAGE.WBINVD (41): CLFLUSHOPT of a free page's 64 lines under the KeyID that RCX carries, whichever that is
/// (architecture.md §13 MC-23).
pub(crate) fn page_wbinvd(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage > 0 {
        return Ok(Flow::Done(Status::SUCCESS));
    }
    cx.spend(|c| c.phymem);
    let Addr { hpa, keyid } = cx.m.spec.keyid.split(cx.reg(RCX)).ok_or(invalid(RCX))?;
    let page = cx.hpa_at(RCX, hpa.0, Shared, PageType::Nda)?;
    cx.f.touch(Touch::FlushPage { at: Addr::new(page.hpa(), keyid) });
    Ok(Flow::Again(1))
}

// ------------------------------------------------------------------------------------------------------ dynamic PAMT

/// A 2 MiB block in RCX, with its level.
fn block(cx: &Cx<'_>) -> Result<u64, Status> {
    let info = cx.reg(RCX);
    let pa = info & !0xfff;
    let bits = cx.m.spec.keyid.address_bits();
    let fits = info & 0xfff == u64::from(Size::Large.level())
        && pa >> bits == 0
        && pa & (Size::Large.bytes() - 1) == 0;
    ensure(fits, invalid(RCX))?;
    Ok(pa)
}

/// The 2M entry of a block in RCX, exclusively locked; `Err` with `otherwise` unless it is of the type `want`.
fn block_entry(cx: &mut Cx<'_>, pa: u64, want: PageType, otherwise: Status) -> Result<(), Status> {
    let usable = cx.m.tdmr_of(pa).is_some_and(|t| t.is_usable(pa));
    ensure(usable, Status::OPERAND_ADDR_RANGE_ERROR.about(Operand::RCX))?;
    let busy = Status::OPERAND_BUSY.about(Operand::RCX);
    let reached = cx.pamt_walk(pa, Size::Large, Exclusive).map_err(|_| busy)?;
    let fits = reached == Size::Large && cx.m.pamt(pa, Size::Large).page_type() == want;
    ensure(fits, otherwise.about(Operand::RCX))
}

/// TDH.PHYMEM.PAMT.ADD (58): gives the 2 MiB block in RCX the pages in RDX and R8 for its 4K entries
/// (linux-host-paths.md §2.1, §13; order of checks: intel/tdx-module 1666adc494db tdh_phymem_pamt_add.c).
pub(crate) fn pamt_add(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.phymem);
        let pa = block(cx)?;
        let first = Hpa(cx.physical(RDX, Size::Small.bytes())?).page();
        let second = Hpa(cx.physical(R8, Size::Small.bytes())?).page();
        block_entry(cx, pa, PageType::Nda, Status::HPA_RANGE_NOT_FREE)?;
        for (page, r) in [(first, RDX), (second, R8)] {
            pamt_page(cx, pa, page, r)?;
        }
        ensure(cx.mark_pamt_page(first, true), Status::PAGE_NOT_FREE.about(Operand::RDX))?;
        if !cx.mark_pamt_page(second, true) {
            cx.mark_pamt_page(first, false);
            return Err(Status::PAGE_NOT_FREE.about(Operand::R8));
        }
        let global = cx.global();
        for page in [first, second] {
            cx.fill_page(page, global, 0);
        }
        let scratch = &mut cx.f.scratch;
        (scratch.page, scratch.table, scratch.gpa) = (first, second, pa);
        return Ok(Flow::Again(1));
    }
    let (pa, pair) = (cx.f.scratch.gpa, [cx.f.scratch.page, cx.f.scratch.table]);
    cx.set_pamt(pa, Size::Large, PamtEntry::pair(pair));
    Ok(Flow::Done(Status::SUCCESS))
}

/// A page offered for 4K entries: free by its own entry, which is not looked at in the block that it is for.
fn pamt_page(cx: &mut Cx<'_>, block: u64, page: Page, r: usize) -> Result<(), Status> {
    let pa = page.hpa().0;
    if pa & !(Size::Large.bytes() - 1) == block {
        return Ok(());
    }
    let op = operand(r);
    let walk = cx.pamt_walk(pa, Size::Small, Shared);
    let reached = walk.map_err(|_| Status::OPERAND_BUSY.about(op))?;
    let free = cx.m.pamt(pa, reached).page_type() == PageType::Nda;
    ensure(free, Status::PAGE_NOT_FREE.about(op))
}

/// TDH.PHYMEM.PAMT.REMOVE (59): takes the pair of pages of a 2 MiB block back, none of whose 4K entries is in use. Their
/// memory is not touched (order of checks: intel/tdx-module 1666adc494db tdh_phymem_pamt_remove.c).
pub(crate) fn pamt_remove(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.phymem);
        let pa = block(cx)?;
        block_entry(cx, pa, PageType::Pamt, Status::NO_PAMT_PAGE_PAIR)?;
        let pair = cx.m.pamt(pa, Size::Large).pages().unwrap_or_default();
        let global = cx.global();
        let per_page = Size::Small.bytes() / ENTRY_BYTES;
        for (i, page) in (0..).zip(pair) {
            for k in 0..per_page {
                let at = page.hpa().0 + k * ENTRY_BYTES;
                if at.is_multiple_of(64) {
                    cx.f.load(Hpa(at), global, 64);
                }
                let of = pa + (i * per_page + k) * Size::Small.bytes();
                let free = cx.m.pamt(of, Size::Small).page_type() == PageType::Nda;
                ensure(free, Status(Status::PAMT_PAGE_NOT_EMPTY.0 | i))?;
            }
        }
        cx.f.scratch.gpa = pa;
        return Ok(Flow::Again(1));
    }
    let pa = cx.f.scratch.gpa;
    let entry = cx.m.pamt(pa, Size::Large);
    let pair = entry.pages().unwrap_or_default();
    for (page, r) in pair.into_iter().zip([RDX, R8]) {
        cx.mark_pamt_page(page, false);
        cx.out(r, page.hpa().0);
    }
    cx.set_pamt(pa, Size::Large, entry.released());
    Ok(Flow::Done(Status::SUCCESS))
}
