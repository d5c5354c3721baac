//! Runs of hits in L1D: nobody is asked, nobody answers, so the stream issues one after the other without looking at
//! anything else.

use super::{Bounds, PENDING, Source, StreamKind};
use crate::{Level, Machine, Speed};
use sim_core::{LineData, Ps};

impl Machine {
    /// Issues the next operations of a stream that waits for no line, for as long as they are loads and stores that hit L1D
    /// where their line was last seen, and nothing else comes first: what [`Machine::advance_stream`] would do with them, one
    /// by one. What it takes from the source and does not issue is the stream's next operation. When the last one began, if
    /// any was issued.
    #[inline(never)]
    pub(super) fn issue_hits<S: Source>(
        &mut self,
        i: usize,
        source: &mut S,
        bounds: &Bounds,
    ) -> Option<Ps> {
        let Machine { streams, caches, spec, options, trace, counts, uncore, dram, .. } = self;
        let stream = streams.get_mut(i)?;
        // What is logged, and what a store's RFO may bring, is looked at elsewhere.
        if trace.is_on() || spec.cpu.rfo_poison_mc {
            return None;
        }
        // A line that is on its way may be one of L1D's already.
        debug_assert_eq!(stream.busy, 0);
        let mut hits = caches.hits(stream.core)?;
        let watched = bounds.others_blocked || self.waiting > 0;
        let memory = dram.next_event().filter(|_| watched).unwrap_or(PENDING);
        let window = u64::from(spec.cpu.window);
        let store_buffer = u64::from(spec.cpu.store_buffer);
        let timed = options.speed == Speed::Timed;
        let load = if timed { uncore.l1 } else { spec.functional.op };
        let most = bounds.stop.saturating_sub(counts.operations);
        let (mut loads, mut stores, mut last) = (0, 0, Ps::ZERO);
        while loads + stores < most {
            let Some(op) = source.next() else { break };
            stream.next = Some(op);
            let Ok(mut t) = stream.operands(&op, window) else { break };
            let store = op.kind == StreamKind::Store;
            if store {
                let Ok(place) = stream.store_place(store_buffer) else { break };
                t = t.max(place);
            }
            t += op.delay;
            let first = !bounds.passed_by(t) && t < memory && !t.is_horizon();
            if !first || !stream.may(&op, &spec.keyid) {
                break;
            }
            let at = op.at.tagged();
            match op.kind {
                StreamKind::Load | StreamKind::Fetch if hits.load(at) => {
                    stream.begins(&op, t);
                    stream.retires(t + load, true, t);
                    loads += 1;
                }
                StreamKind::Store => {
                    if !hits.store(at, &LineData::ZERO, op.mask()) {
                        break;
                    }
                    stream.begins(&op, t);
                    stream.retires(t + stream.step, false, t);
                    if timed {
                        stream.retired_store(stream.store_tail).owned = t;
                        stream.store_tail += 1;
                    }
                    stores += 1;
                }
                _ => break,
            }
            if !timed {
                stream.at = t + spec.functional.op;
            }
            (stream.next, last) = (None, t);
        }
        if loads + stores == 0 {
            return None;
        }
        stream.stats.loads += loads;
        stream.stats.stores += stores;
        counts.operations += loads + stores;
        counts.accesses += loads + stores;
        counts.by_level[Level::L1 as usize] += loads + stores;
        trace.now = trace.now.max(last);
        Some(last)
    }
}
