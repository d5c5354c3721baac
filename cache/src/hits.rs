//! Runs of hits in one core's L1: what most of a stream's accesses are, with what is the same for all of them looked at
//! once.

use crate::hierarchy::{Core, Hierarchy};
use crate::mesi::{Effect, Elsewhere, MesiEvent, next};
use crate::slab::Slab;
use crate::stats::count;
use sim_core::planted::Fault;
use sim_core::{ByteMask, LineData, Tagged};

/// A core's L1 for accesses that ask nobody else. Each either is [`Hierarchy::load`] or [`Hierarchy::store`] of a line that
/// the L1 has where it was last seen, without poison and, for a store, owned; or it does nothing, and says so.
pub struct Hits<'a> {
    slab: &'a mut Slab,
    core: &'a mut Core,
    hits: &'a mut u64,
}

impl Hierarchy {
    /// A core's L1 for a run of hits. `None` while anything of the core waits to become visible: an access to its line would
    /// have to make it leave. Stores are not logged, so it is for machines whose log is off.
    #[inline]
    pub fn hits(&mut self, core: u16) -> Option<Hits<'_>> {
        let planted = self.planted.is(Fault::TagIgnoresKeyId);
        let core = self.core_index(core);
        let core = self.cores.at_mut(core);
        let quick = core.waiting.is_empty() && !planted;
        quick.then_some(Hits { slab: &mut self.slab, core, hits: &mut self.stats.l1.hits })
    }
}

impl Hits<'_> {
    /// A load. Whether it was made.
    #[inline]
    pub fn load(&mut self, at: Tagged) -> bool {
        // A hit changes no state: mesi::tests::a_load_never_changes_a_valid_copy.
        let hit = self.core.quick(at.line(), |slot| {
            let line = self.slab.get(slot);
            line.tag == at && line.poison.is_none()
        });
        if hit.is_some() {
            count(self.hits);
        }
        hit.is_some()
    }

    /// A store of the bytes in `mask`. Whether it was made.
    #[inline]
    pub fn store(&mut self, at: Tagged, data: &LineData, mask: ByteMask) -> bool {
        let hit = self.core.quick(at.line(), |slot| {
            let line = self.slab.get_mut(slot);
            let (state, effect) = next(line.state, MesiEvent::Store, Elsewhere::Others);
            let own = line.tag == at && line.poison.is_none() && effect != Effect::Upgrade;
            if own {
                line.state = state;
            }
            own
        });
        if let Some(slot) = hit {
            count(self.hits);
            self.slab.write(slot, data, mask);
        }
        hit.is_some()
    }
}
