//! TDH.SYS.DISABLE (69): the module gives back all memory and is as just loaded (linux-host-paths.md §16.5).
//!
//! What the sources say: it is destructive, no SEAMCALL works afterwards until the module is initialised again; it gives
//! back all memory and clears it, poison of partial writes included; its time depends on the memory that live TDs have;
//! interrupts stop it with INTERRUPTED_RESUMABLE and it gets on between any two; SYS_BUSY while other TDH.SYS.* leaves run,
//! of which it lets in no new ones.
//!
//! Assumed, since no source says so:
//! - It clears with MOVDIR64B under KeyID 0, since nothing else takes the TD bit and poison off a line (architecture.md
//!   §2.4, §3), 4 KiB between two looks for an interrupt.
//! - It flushes no cache: the kernel's WBINVD has to follow.
//! - It clears what has an owner in the PAMT, then the PAMTs. Pages that TDs gave back before are the host's.
//! - It begins only when no other LP is in the module or in a TD, else SYS_BUSY. From then on other leaves find the module
//!   not initialised.
//! - Every state but SYS_SHUTDOWN allows it.

use crate::Module;
use crate::cx::{Cx, Flow, Stage, ensure};
use crate::lock::Mode::Exclusive;
use crate::pamt::Size;
use crate::sys::{Disabling, Sys, SysState};
use sim_core::tdx::Status;
use sim_core::units::Area;
use sim_core::{Addr, Hpa, KeyId};

/// Bytes between two looks for an interrupt (assumed, as TDG.MEM.PAGE.ACCEPT, architecture.md §7.9).
const CHUNK: u64 = 4096;

/// TDH.SYS.DISABLE (69).
pub(crate) fn disable(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.sys);
        if cx.m.sys.disabling.is_none() {
            cx.m.sys.disabling = Some(Disabling::Wanted);
        }
        cx.lock_global(Exclusive)?;
        if cx.m.sys.disabling == Some(Disabling::Wanted) {
            ensure(!cx.m.others_busy(cx.env.lp), Status::SYS_BUSY)?;
            begin(cx.m);
        }
        return next(cx);
    }
    if cx.env.irq && remaining(cx.m) {
        return Err(Status::INTERRUPTED_RESUMABLE);
    }
    next(cx)
}

/// From here on no leaf but this one finds a module that is ready.
fn begin(m: &mut Module) {
    m.sys.disabling = Some(Disabling::Pages(0));
    m.sys.state = SysState::SysInitPending;
    // What a module that was shut down left is this one's to give back.
    if let Some(old) = m.sys.predecessor.take() {
        m.tdmrs = old.tdmrs;
        m.sys.global_hkid = old.global_hkid;
    }
}

/// Queues the next chunk, or ends.
fn next(cx: &mut Cx<'_>) -> Stage {
    while let Some(at) = cx.m.sys.disabling {
        match at {
            Disabling::Wanted => cx.m.sys.disabling = Some(Disabling::Pages(0)),
            Disabling::Pages(from) => match next_page(cx.m, from) {
                Some((pa, size)) => {
                    read_entry(cx, pa, size);
                    clear(cx, pa, CHUNK);
                    cx.m.sys.disabling = Some(Disabling::Pages(pa + CHUNK));
                    return Ok(Flow::Again(1));
                }
                None => {
                    let first = Disabling::Pamt { tdmr: 0, array: 0, offset: 0 };
                    cx.m.sys.disabling = Some(first);
                }
            },
            Disabling::Pamt { tdmr, array, offset } => {
                let Some(area) = array_of(cx.m, tdmr, array) else {
                    cx.m.sys.disabling = None;
                    break;
                };
                let left = area.bytes().saturating_sub(offset).min(CHUNK);
                let (same, following) = (offset + left, after(tdmr, array));
                let done = same >= area.bytes();
                cx.m.sys.disabling = Some(if done {
                    following
                } else {
                    Disabling::Pamt { tdmr, array, offset: same }
                });
                if left > 0 {
                    clear(cx, area.base + offset, left);
                    return Ok(Flow::Again(1));
                }
            }
        }
    }
    forget(cx.m);
    Ok(Flow::Done(Status::SUCCESS))
}

/// Whether there is anything left to clear: after the last chunk no interrupt is looked for.
fn remaining(m: &Module) -> bool {
    match m.sys.disabling {
        Some(Disabling::Pamt { tdmr, array, .. }) => array_of(m, tdmr, array).is_some(),
        Some(Disabling::Pages(from)) => !m.tdmrs.is_empty() || next_page(m, from).is_some(),
        Some(Disabling::Wanted) | None => false,
    }
}

fn after(tdmr: u16, array: u8) -> Disabling {
    if array < 2 {
        Disabling::Pamt { tdmr, array: array + 1, offset: 0 }
    } else {
        Disabling::Pamt { tdmr: tdmr.saturating_add(1), array: 0, offset: 0 }
    }
}

/// One of the three arrays of a TDMR's PAMT.
fn array_of(m: &Module, tdmr: u16, array: u8) -> Option<Area> {
    let (base, bytes) = m.tdmrs.get(usize::from(tdmr))?.info().pamt.get(usize::from(array))?;
    Some(Area { base: *base, end: base + bytes })
}

/// The first page at or above an address that the module has.
fn next_page(m: &Module, from: u64) -> Option<(u64, Size)> {
    m.tdmrs.iter().find_map(|tdmr| tdmr.next_taken(from))
}

/// The PAMT entry that says that a page is the module's is read once, when its first page is cleared.
fn read_entry(cx: &mut Cx<'_>, pa: u64, size: Size) {
    let at = cx.m.tdmr_of(pa).and_then(|tdmr| tdmr.entry_at(pa, size));
    if let (Some(Hpa(at)), 0) = (at, pa & (size.bytes() - 1)) {
        let global = cx.global();
        cx.f.load(Hpa(at), global, 16);
    }
}

fn clear(cx: &mut Cx<'_>, pa: u64, bytes: u64) {
    let at = Addr::new(Hpa(pa), KeyId::TME);
    let lines = u32::try_from(bytes / 64).unwrap_or(u32::MAX);
    cx.f.touch(crate::Touch::Fill { at, lines, word: 0 });
}

/// The module is as just loaded; the flight's lock stays until it ends.
fn forget(m: &mut Module) {
    let lock = m.sys.lock;
    m.sys = Sys { lock, ..Sys::new(&m.spec) };
    for lp in &mut m.lps {
        lp.initialized = false;
        lp.last_vcpu = None;
    }
    m.tdmrs.clear();
    m.tdmr_locks.clear();
    m.forget_tds();
}
