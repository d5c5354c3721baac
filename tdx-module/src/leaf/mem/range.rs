//! TDH.MEM.RANGE.BLOCK, TDH.MEM.RANGE.UNBLOCK, TDH.MEM.TRACK (architecture.md §7.8, §7.9).

use super::{entry, kept, metadata_of, needs_tracking};
use crate::cx::{Cx, Flow, Stage, ensure};
use crate::flight::reg::RCX;
use crate::lock::Mode::{Exclusive, Shared};
use crate::sept::{SeptOp, next};
use crate::td::layout;
use sim_core::Hpa;
use sim_core::planted::Fault;
use sim_core::tdx::{Operand, Status};

/// TDH.MEM.RANGE.BLOCK (7). No TLB is flushed.
pub(crate) fn range_block(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (_, at) = entry(cx, 0, None, Exclusive)?;
        if cx.entry_state(at).is_blocked() {
            cx.details(at);
            return Err(Status::GPA_RANGE_ALREADY_BLOCKED.about(Operand::RCX));
        }
        cx.allowed(at)?;
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (pa, size) = metadata_of(cx, at)?;
    let (entry, state) = (cx.entry(at), cx.entry_state(at));
    // The counter of ACCEPT is in the address bits of a pending 2 MiB page alone: this is the page without it.
    let page = Hpa(pa).page();
    let state = next(SeptOp::RangeBlock, state).ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    cx.set_entry(tdr, at, entry.with_state(state).with_page(page));
    cx.load_epoch(tdr)?;
    let mut pamt = cx.m.pamt(pa, size);
    pamt.bepoch = cx.td(tdr)?.epoch;
    cx.set_pamt(pa, size, pamt);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MEM.RANGE.UNBLOCK (39).
pub(crate) fn range_unblock(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mem);
        let (tdr, at) = entry(cx, 0, None, Exclusive)?;
        let state = cx.allowed(at)?;
        if needs_tracking(cx, tdr, state)? {
            let (pa, size) = metadata_of(cx, at)?;
            cx.load_pamt(pa, size);
            cx.load_epoch(tdr)?;
            let tracked = cx.td(tdr)?.is_tracked(cx.m.pamt(pa, size).bepoch);
            ensure(tracked, Status::TLB_TRACKING_NOT_DONE.about(Operand::SEPT_TREE))?;
        }
        return Ok(Flow::Again(1));
    }
    let (tdr, at) = kept(cx);
    let (entry, state) = (cx.entry(at), cx.entry_state(at));
    let state = next(SeptOp::RangeUnblock, state).ok_or(Status::EPT_ENTRY_STATE_INCORRECT)?;
    cx.set_entry_unlocked(tdr, at, entry.with_state(state));
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
        let none = previous.is_none_or(|n| *n == 0);
        let passes = none || cx.m.spec.planted.is(Fault::TrackIgnoresRefcount);
        ensure(passes, Status::PREVIOUS_TLB_EPOCH_BUSY)?;
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let td = cx.td_mut(tdr)?;
    td.epoch += 1;
    let (epoch, hkid) = (td.epoch, td.hkid);
    // The line's first word is the lock.
    let Hpa(line) = layout::tdcs_epoch(cx.tdcs(tdr)?);
    cx.f.store(Hpa(line + 8), hkid, epoch);
    Ok(Flow::Done(Status::SUCCESS))
}
