//! TDH.SYS.CONFIG: the rules of TDMRs and PAMTs (architecture.md §7.4, §7.9).

use super::Expected;
use super::run::{Ended, GIB, R8, RCX, RDX, Run, Step};
use crate::view::{KotView, TdmrView};
use sim_core::KeyId;
use sim_core::tdx::Status;

/// KOT state of the global HKID.
const RESERVED: u8 = 3;
/// Reserved areas in a TDMR_INFO.
const AREAS: u64 = 16;
/// Bytes of a PAMT entry.
const ENTRY: u64 = 16;

fn end(base: u64, size: u64) -> u64 {
    base.saturating_add(size)
}
fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.1 != 0 && b.1 != 0 && a.0 < end(b.0, b.1) && b.0 < end(a.0, a.1)
}

/// A TDMR_INFO: base, size, then base and size of the PAMT for 1 GiB, 2 MiB and 4 KiB pages, then the reserved areas, as Linux's
/// `struct tdmr_info` has it. `None`: some word is not known. The second value says that something follows the null area that
/// "ends the list".
fn read(run: &Run<'_>, at: u64) -> Option<(TdmrView, bool)> {
    let word = |index: u64| run.read(at.wrapping_add(8 * index));
    let mut reserved = Vec::new();
    let (mut ended, mut more) = (false, false);
    for area in 0..AREAS {
        let (offset, size) = (word(8 + 2 * area)?, word(9 + 2 * area)?);
        more |= (ended || size == 0) && (offset | size) != 0;
        ended |= size == 0;
        if !ended {
            reserved.push((offset, size));
        }
    }
    let tdmr = TdmrView {
        base: word(0)?,
        size: word(1)?,
        pamt: [(word(6)?, word(7)?), (word(4)?, word(5)?), (word(2)?, word(3)?)],
        reserved,
        next: word(0)?,
        dynamic: run.spec.tdx.dynamic_pamt,
    };
    Some((tdmr, more))
}

/// The array of TDMR_INFO addresses and what they point to. `None` where a word is not known; the second value says whether an
/// address is refused.
fn list(run: &Run<'_>) -> (Option<Vec<(TdmrView, bool)>>, bool) {
    let mut all = Vec::new();
    for index in 0..run.reg(RDX) {
        let Some(address) = run.read(run.reg(RCX).wrapping_add(8 * index)) else {
            return (None, false);
        };
        if run.bad_shared(address, 512, 512) {
            return (None, true);
        }
        match read(run, address) {
            Some(tdmr) => all.push(tdmr),
            None => return (None, false),
        }
    }
    (Some(all), false)
}

/// The parts of a TDMR that are not reserved, as (base, size).
fn available(tdmr: &TdmrView) -> Vec<(u64, u64)> {
    let mut parts = Vec::new();
    let mut from = tdmr.base;
    for (offset, size) in &tdmr.reserved {
        let at = end(tdmr.base, *offset);
        parts.push((from, at.saturating_sub(from)));
        from = end(at, *size);
    }
    parts.push((from, end(tdmr.base, tdmr.size).saturating_sub(from)));
    parts.retain(|(_, size)| *size != 0);
    parts
}

/// Inside convertible memory, where "adjacent CMRs count as one".
fn in_cmrs(run: &Run<'_>, (base, size): (u64, u64)) -> bool {
    let mut at = base;
    for cmr in &run.spec.tdx.cmrs {
        if cmr.base <= at && at < cmr.end {
            at = cmr.end;
        }
    }
    at >= end(base, size)
}

/// What is wrong with one TDMR, the first rule of the sheet's order that it breaks. Two are given where the sheet does not order
/// them.
fn wrong(run: &Run<'_>, before: &[TdmrView], tdmr: &TdmrView) -> Vec<Status> {
    let (base, size) = (tdmr.base, tdmr.size);
    let foreign = |address: u64| address >= 1 << 52 || run.keyid(address) != 0;
    if base.checked_add(size).is_none() {
        return vec![Status::INVALID_TDMR];
    }
    if before.last().is_some_and(|last| base < end(last.base, last.size)) {
        return vec![Status::NON_ORDERED_TDMR];
    }
    let uneven = (base | size) & (GIB - 1) != 0 || size == 0;
    if uneven || foreign(base) || foreign(end(base, size) - 1) {
        return vec![Status::INVALID_TDMR];
    }
    let mut last = 0;
    for (offset, bytes) in &tdmr.reserved {
        let mut found = Vec::new();
        if *offset < last {
            found.push(Status::NON_ORDERED_RESERVED_IN_TDMR);
        }
        let beyond = offset.checked_add(*bytes).is_none_or(|to| to > size);
        if (offset | bytes) & 0xfff != 0 || beyond {
            found.push(Status::INVALID_RESERVED_IN_TDMR);
        }
        if !found.is_empty() {
            return found;
        }
        last = end(*offset, *bytes);
    }
    let small = if tdmr.dynamic { size / 4096 / 8 } else { size / 4096 * ENTRY };
    let needed = [small, size / (2 << 20) * ENTRY, size / GIB * ENTRY];
    for ((at, bytes), needed) in tdmr.pamt.iter().zip(needed) {
        let over = at.checked_add(*bytes).is_none();
        if (at | bytes) & 0xfff != 0 || *bytes < needed || over || foreign(end(*at, *bytes) - 1) {
            return vec![Status::INVALID_PAMT];
        }
    }
    let others = before.iter().flat_map(|b| b.pamt.iter().copied());
    let others: Vec<(u64, u64)> = others.chain(before.iter().flat_map(available)).collect();
    let own = available(tdmr);
    let pamts = tdmr.pamt.iter().enumerate();
    let clash = pamts.clone().any(|(i, pamt)| {
        others.iter().chain(&own).any(|o| overlap(*pamt, *o))
            || tdmr.pamt.iter().skip(i + 1).any(|o| overlap(*pamt, *o))
    });
    let under = before.iter().flat_map(|b| &b.pamt).any(|p| own.iter().any(|o| overlap(*p, *o)));
    if clash || under {
        return vec![Status::PAMT_OVERLAP];
    }
    if tdmr.pamt.iter().any(|pamt| !in_cmrs(run, *pamt)) {
        return vec![Status::PAMT_OUTSIDE_CMRS];
    }
    if own.iter().any(|part| !in_cmrs(run, *part)) {
        return vec![Status::TDMR_OUTSIDE_CMRS];
    }
    Vec::new()
}

const ALL: [Status; 8] = [
    Status::INVALID_TDMR,
    Status::NON_ORDERED_TDMR,
    Status::NON_ORDERED_RESERVED_IN_TDMR,
    Status::INVALID_RESERVED_IN_TDMR,
    Status::INVALID_PAMT,
    Status::PAMT_OVERLAP,
    Status::PAMT_OUTSIDE_CMRS,
    Status::TDMR_OUTSIDE_CMRS,
];

/// Every TDMR in order. "KOT\[R8\]:=RESERVED and the global HKID is set before the TDMR checks (stays so if they fail)".
pub(super) fn tdmrs(run: &mut Run<'_>) -> Step {
    // Which operand is named for an address in the array the sheet does not say: RCX or TDMR_INFO_PA.
    let address = Expected::Status { status: Status::OPERAND_INVALID, low: None };
    let (found, refused) = list(run);
    if found.is_none() {
        // The addresses may be looked at before the HKID is reserved, or after.
        run.may_answer(address, None);
    }
    let hkid = KeyId(run.reg(R8) as u16);
    let mut reserved = run.after();
    reserved.kot.insert(hkid, KotView { state: RESERVED, wbinvd_bitmap: 0 });
    reserved.sys.global_hkid = Some(hkid);
    run.kept = Some(Box::new(reserved));
    if found.is_none() {
        run.may_answer(address, None);
    }
    match found {
        _ if refused => {
            // TDMRs before the refused address may be judged before it is.
            ALL.iter().for_each(|status| run.may((*status, None)));
            Err(Ended)
        }
        None => {
            ALL.iter().for_each(|status| run.may((*status, None)));
            Ok(())
        }
        Some(all) => {
            let mut before = Vec::new();
            for (tdmr, more) in all {
                let found = wrong(run, &before, &tdmr);
                let reserved =
                    [Status::NON_ORDERED_RESERVED_IN_TDMR, Status::INVALID_RESERVED_IN_TDMR];
                let earlier = [Status::INVALID_TDMR, Status::NON_ORDERED_TDMR];
                if more && !found.iter().any(|status| earlier.contains(status)) {
                    // What follows the end of the list may be refused; the sheet does not say.
                    reserved.iter().for_each(|status| run.may((*status, None)));
                }
                if !found.is_empty() {
                    found.iter().for_each(|status| run.may((*status, None)));
                    return Err(Ended);
                }
                before.push(tdmr);
            }
            Ok(())
        }
    }
}

/// The TDMRs are there, none of them initialised.
pub(super) fn config(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.sys.state = 2;
    after.tdmrs = match list(run).0 {
        Some(all) => all.into_iter().map(|(tdmr, _)| tdmr).collect(),
        None => run.seen.map(|seen| seen.tdmrs.clone()).unwrap_or_default(),
    };
    run.succeed(after)
}
