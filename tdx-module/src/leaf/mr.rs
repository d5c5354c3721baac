//! TDH.MR.*: measurement (architecture.md §7.9).

use crate::cx::{At, Cx, Flow, Stage, ensure, invalid};
use crate::flight::reg::{RCX, RDX};
use crate::lock::Mode::Exclusive;
use crate::measure::BLOCK_BYTES;
use crate::op_state::OpState;
use crate::td::layout;
use sim_core::Hpa;
use sim_core::data::LineData;
use sim_core::tdx::Status;

/// Bytes that one TDH.MR.EXTEND measures.
const CHUNK: u64 = 256;

/// TDH.MR.EXTEND (16): 256 bytes of a page, as the TD will read them.
pub(crate) fn extend(cx: &mut Cx<'_>) -> Stage {
    match cx.f.stage {
        0 => {
            cx.spend(|c| c.mng);
            let gpa = cx.reg(RCX);
            // The exclusive TDR stands for the tree's and the entry's locks.
            let tdr = cx.tdr(RDX, Exclusive)?;
            cx.state(tdr, false)?;
            ensure(gpa & (CHUNK - 1) == 0, invalid(RCX))?;
            cx.load_root(tdr)?;
            let at = cx.walk_to_leaf(tdr, gpa)?;
            // Without an operand (intel/tdx-module 1.5.01 tdh_mr_extend.c).
            let allowed = crate::sept::allowed(cx.f.leaf, cx.entry_state(at)) == Some(true);
            ensure(allowed, Status::EPT_ENTRY_NOT_PRESENT)?;
            let scratch = &mut cx.f.scratch;
            (scratch.td, scratch.gpa) = (tdr, gpa);
            (scratch.table, scratch.index, scratch.level) = (at.table, at.index, at.level);
            Ok(Flow::Again(1))
        }
        1 => {
            let s = &cx.f.scratch;
            let (tdr, gpa) = (s.td, s.gpa);
            let at = At { table: s.table, index: s.index, level: s.level };
            let (Hpa(first), hkid) = (cx.byte_of(at, gpa), cx.td(tdr)?.hkid);
            cx.load_mrtd(tdr)?;
            for line in 0..CHUNK / 64 {
                cx.f.load(Hpa(first + 64 * line), hkid, 64);
            }
            cx.spend(|c| c.hash);
            cx.spend(|c| c.hash);
            cx.spend(|c| c.hash);
            Ok(Flow::Again(2))
        }
        _ => {
            let (tdr, gpa) = (cx.f.scratch.td, cx.f.scratch.gpa);
            let mut mrtd = cx.td(tdr)?.mrtd;
            mrtd.record("MR.EXTEND", gpa);
            // The first line read was that of the measurement.
            for pair in cx.f.data.get(1..).unwrap_or_default().chunks(2) {
                mrtd.block(&block(pair));
            }
            cx.td_mut(tdr)?.mrtd = mrtd;
            cx.store_mrtd(tdr)?;
            Ok(Flow::Done(Status::SUCCESS))
        }
    }
}

/// Two lines as one block.
fn block(lines: &[LineData]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    for (to, line) in block.chunks_exact_mut(64).zip(lines) {
        to.copy_from_slice(&line.to_bytes());
    }
    block
}

/// TDH.MR.FINALIZE (17): the measurement is closed and the TD may run.
pub(crate) fn finalize(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RCX, Exclusive)?;
        cx.state(tdr, false)?;
        let (tdcs, hkid) = (cx.tdcs(tdr)?, cx.td(tdr)?.hkid);
        cx.f.load(layout::tdcs_vcpus(tdcs), hkid, 8);
        ensure(cx.td(tdr)?.vcpus > 0, Status::NO_VCPUS)?;
        cx.load_mrtd(tdr)?;
        // The padding is one block.
        cx.spend(|c| c.hash);
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let td = cx.td_mut(tdr)?;
    td.mrtd.close();
    td.op_state = OpState::Runnable;
    cx.store_mrtd(tdr)?;
    // The line's first word is the lock.
    let (Hpa(line), hkid) = (layout::tdcs_op_state(cx.tdcs(tdr)?), cx.td(tdr)?.hkid);
    cx.f.store(Hpa(line + 8), hkid, u64::from(OpState::Runnable.code()));
    Ok(Flow::Done(Status::SUCCESS))
}
