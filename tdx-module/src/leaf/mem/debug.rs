//! TDH.MEM.RD and TDH.MEM.WR: 8 bytes of a debug TD's memory (architecture.md §7.9).

use super::{is_debug, keep, kept, td};
use crate::cx::{Cx, Flow, Stage, ensure, invalid};
use crate::flight::reg::{R8, RCX, RDX};
use crate::lock::Mode::Shared;
use sim_core::tdx::Status;
use sim_core::{Hpa, KeyId};

/// TDH.MEM.RD (12).
pub(crate) fn rd(cx: &mut Cx<'_>) -> Stage {
    access(cx, false)
}
/// TDH.MEM.WR (14): returns what was there before, too.
pub(crate) fn wr(cx: &mut Cx<'_>) -> Stage {
    access(cx, true)
}

fn access(cx: &mut Cx<'_>, write: bool) -> Stage {
    match cx.f.stage {
        0 => {
            cx.spend(|c| c.mem);
            let gpa = cx.reg(RCX);
            let handle = cx.reg(RDX);
            let tdr = td(cx, handle)?;
            ensure(is_debug(cx, tdr)?, Status::TD_NON_DEBUG)?;
            ensure(gpa & 7 == 0, invalid(RCX))?;
            cx.lock_tree(tdr, Shared)?;
            let at = cx.walk_to_leaf(tdr, gpa)?;
            cx.lock_entry(tdr, at)?;
            cx.allowed(at)?;
            keep(cx, tdr, at);
            Ok(Flow::Again(1))
        }
        1 => {
            let (at, hkid) = place(cx)?;
            cx.f.load(at, hkid, 8);
            Ok(Flow::Again(2))
        }
        _ => {
            let word = cx.f.data.last().map_or(0, |line| line.0[0]);
            cx.out(R8, word);
            if write {
                let ((at, hkid), value) = (place(cx)?, cx.reg(R8));
                cx.f.store(at, hkid, value);
            }
            Ok(Flow::Done(Status::SUCCESS))
        }
    }
}

/// Where the 8 bytes lie, and under which KeyID.
fn place(cx: &Cx<'_>) -> Result<(Hpa, KeyId), Status> {
    let (tdr, at) = kept(cx);
    Ok((cx.byte_of(at, cx.reg(RCX)), cx.td(tdr)?.hkid))
}
