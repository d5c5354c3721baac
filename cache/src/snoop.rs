//! Snoop filters: one per package, parted over its slices, and inclusive of the L1s and L2s of its cores.
//!
//! An entry is of a physical line, without KeyID. So it couples what coherence never does: two KeyIDs of one line share an
//! entry, a request under one meets the other (verification.md C13), and an entry that has to go takes the copies of both.
//! Their bytes stay apart (C4).
//!
//! The slab knows the holders of every (line, KeyID) exactly, so an array of a filter decides capacity and replacement only.
//! An entry goes by the number of one of the line's slab entries that a core of the package holds; when that one leaves, by
//! another's. It goes away when the last copy has left, also by a silent drop of a clean L1 victim, for which hardware would
//! keep it a while: the filter holds no more than it must (C10 asks for no less).

use crate::array::SlotId;
use crate::hierarchy::Hierarchy;
use crate::mesi::Mesi;
use crate::stats::count;
use crate::transaction::Transaction;
use serde::{Deserialize, Serialize};
use sim_core::EventKind;
use sim_core::port::LinePort;

/// What a request finds in the snoop filter of its package about other KeyIDs of its physical line.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Alias {
    /// No core of the package holds the line under another KeyID.
    #[default]
    None,
    /// A core does, clean.
    Clean,
    /// A core does, modified.
    Modified,
}

impl Hierarchy {
    /// What the filter of a package has of other KeyIDs of a cached line, and a core that holds one of them: the modified
    /// one if there is one, the lowest-numbered core else.
    #[inline]
    pub(crate) fn alias_of(&mut self, slot: SlotId, package: u8) -> (Alias, Option<u16>) {
        count(&mut self.stats.snoop_filter.lookups);
        if !self.slab.is_aliased(slot) {
            return (Alias::None, None);
        }
        self.alias_among(slot, package)
    }

    #[cold]
    fn alias_among(&mut self, slot: SlotId, package: u8) -> (Alias, Option<u16>) {
        let cores = self.cores_of(package);
        let Some(some) = self.slab.alias(slot, |_, line| line.cores & cores != 0) else {
            return (Alias::None, None);
        };
        let modified =
            self.slab.alias(slot, |_, l| l.cores & cores != 0 && l.state == Mesi::Modified);
        let core = self.slab.get(modified.unwrap_or(some)).cores & cores;
        let alias = if modified.is_some() { Alias::Modified } else { Alias::Clean };
        count(match alias {
            Alias::Modified => &mut self.stats.snoop_filter.alias_modified,
            _ => &mut self.stats.snoop_filter.alias_clean,
        });
        (alias, Some(core.trailing_zeros() as u16))
    }

    #[inline]
    fn filter_set(&self, slot: SlotId) -> u64 {
        self.slab.map().filter_set(self.slab.get(slot).tag.line(), self.slab.slice(slot))
    }

    /// A core of the package holds the line, which none did before. The filter gets an entry, unless it has one for another
    /// KeyID.
    #[inline]
    pub(crate) fn enter_filter<P: LinePort>(&mut self, slot: SlotId, package: u8, port: &mut P) {
        if self.slab.is_aliased(slot) {
            let cores = self.cores_of(package);
            if self.slab.alias(slot, |_, line| line.cores & cores != 0).is_some() {
                self.touch_filter(slot, package);
                return;
            }
        }
        count(&mut self.stats.snoop_filter.allocations);
        let set = self.filter_set(slot);
        let (victim, _) = self.filters.at_mut(package.into()).insert(set, slot);
        if victim != 0 {
            self.back_invalidate(victim, package, port);
        }
    }

    /// The filter's entry of a line, under whatever KeyID, is the most recently used of its set.
    pub(crate) fn touch_filter(&mut self, slot: SlotId, package: u8) {
        let set = self.filter_set(slot);
        let filter = self.filters.at_mut(package.into());
        if filter.touch(set, slot).is_none() {
            // It goes by another KeyID's number.
            if let Some(named) = self.slab.alias(slot, |other, _| filter.holds(set, other)) {
                filter.touch(set, named);
            }
        }
    }

    /// No core of the package holds the line under this KeyID any more. The entry stays if one does under another.
    #[inline]
    pub(crate) fn leave_filter(&mut self, slot: SlotId, package: u8) {
        let set = self.filter_set(slot);
        if self.slab.is_aliased(slot) {
            let cores = self.cores_of(package);
            if let Some(other) = self.slab.alias(slot, |_, line| line.cores & cores != 0) {
                self.filters.at_mut(package.into()).rename(set, slot, other);
                return;
            }
        }
        if self.filters.at_mut(package.into()).remove(set, slot) {
            count(&mut self.stats.snoop_filter.deallocations);
        }
    }

    /// An entry had to go: all cores of the package give the physical line up, under every KeyID. Copies go where L2 victims
    /// go, into the LLC, modified ones with their duty to write back.
    #[cold]
    fn back_invalidate<P: LinePort>(&mut self, named: SlotId, package: u8, port: &mut P) {
        count(&mut self.stats.snoop_filter.back_invalidations);
        self.stats.transaction(Transaction::BackInvalidate);
        let cores = self.cores_of(package);
        let line = self.slab.get(named).tag.line();
        let cause = port.trace().emit_cause(EventKind::BackInvalidate { package, line });
        // Each turn takes a KeyID from the cores, and nothing gives one back.
        let mut next = Some(named);
        while let Some(slot) = next {
            next = self.slab.alias(slot, |_, line| line.cores & cores != 0);
            let held = *self.slab.get(slot);
            let dirty = held.state == Mesi::Modified;
            count(&mut self.stats.snoop_filter.back_invalidated);
            let mut leaving = held.cores & cores;
            while leaving != 0 {
                let core = leaving.trailing_zeros() as u16;
                port.trace().emit(EventKind::LeftCore { core, at: held.tag });
                leaving &= leaving - 1;
            }
            self.drop_from_cores(slot, cores);
            if dirty {
                count(&mut self.stats.snoop_filter.back_invalidated_modified);
                self.stats.transaction(Transaction::WbMtoI);
            }
            self.settle_in_llc(package, slot, dirty, port);
        }
        port.trace().cause = cause;
    }
}
