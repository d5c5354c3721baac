//! Looking at the hierarchy without changing it, and checking it against itself.

use crate::array::SlotId;
use crate::hierarchy::Hierarchy;
use crate::mesi::Mesi;
use crate::slab::{CachedLine, Entry};
use crate::stats::Stats;
use sim_core::outcome::DataClass;
use sim_core::{BirthId, LineData, Tagged};
use std::collections::BTreeSet;
use thiserror::Error;

/// A cached line as the outside may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Plaintext.
    pub data: LineData,
    /// Poison of the copy.
    pub poison: Option<BirthId>,
    /// What the bytes are.
    pub class: DataClass,
    /// Whether memory is older.
    pub dirty: bool,
    /// State of the cores' copies; [`Mesi::Invalid`] when only LLCs hold the line.
    pub state: Mesi,
    /// The core whose copy is in [`Mesi::Forward`], if any is.
    pub forwarder: Option<u16>,
    /// Cores that hold it: bit i is core i.
    pub cores: u128,
    /// Packages whose LLC holds it: bit i is package i.
    pub llc: u8,
}

/// An invariant of the hierarchy is broken: a defect of the simulator.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{rule}: {detail}")]
pub struct Violation {
    /// Which invariant, as verification.md §2.2 numbers it where it does.
    pub rule: &'static str,
    /// Where and how.
    pub detail: String,
}

fn broken(rule: &'static str, detail: String) -> Result<(), Violation> {
    Err(Violation { rule, detail })
}

impl Hierarchy {
    /// The cached copy of this (line, KeyID), if there is one.
    pub fn inspect(&self, at: Tagged) -> Option<View> {
        let slot = self.slab.find(at)?;
        let line = self.slab.get(slot);
        Some(View {
            data: *self.slab.data(slot),
            poison: line.poison,
            class: line.class,
            dirty: line.is_dirty(),
            state: line.state,
            forwarder: self.slab.forwarder(slot),
            cores: line.cores,
            llc: line.llc,
        })
    }

    /// The state of one core's copy.
    pub fn mesi(&self, core: u16, at: Tagged) -> Mesi {
        let core = self.core_index(core);
        let bit = 1u128 << (core & 127);
        match self.inspect(at) {
            Some(view) if view.forwarder.map(usize::from) == Some(core) => Mesi::Forward,
            Some(view) if view.cores & bit != 0 => view.state,
            _ => Mesi::Invalid,
        }
    }

    /// All cached lines. The order is that in which they found room: the same for the same history.
    pub fn resident_lines(&self) -> impl Iterator<Item = CachedLine> {
        self.slab.iter().map(|(slot, _)| self.slab.whole(slot))
    }

    /// Counters since the hierarchy was built.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Checks every invariant: SWMR, the exactness of the directory, inclusion of the snoop filters, agreement of arrays and
    /// slab, one duty to write back, bounded buffers, conservation of the counters.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        if let Some(detail) = self.slab.defect() {
            return broken("slab", detail);
        }
        for (slot, line) in self.slab.iter() {
            self.check_line(slot, line)?;
        }
        self.check_arrays()?;
        self.check_filters()?;
        if let Some(rule) = self.stats.broken_rule() {
            return broken("conservation", format!("{rule}: {:?}", self.stats));
        }
        for (c, core) in self.cores.iter().enumerate() {
            let (wc, weak) = (&core.waiting.wc, &core.waiting.weak);
            if wc.len() > self.wc_buffers.into() || weak.len() > self.weak_slots.into() {
                return broken(
                    "bounded buffers",
                    format!("core {c} has {} and {}", wc.len(), weak.len()),
                );
            }
            for (i, buffer) in wc.iter().enumerate() {
                let twice = wc.iter().skip(i + 1).any(|other| other.at == buffer.at);
                if twice || buffer.mask.is_full() || buffer.mask.is_empty() {
                    return broken(
                        "write-combining buffers",
                        format!("core {c} holds {} with {:?}", buffer.at, buffer.mask),
                    );
                }
            }
        }
        Ok(())
    }

    fn check_line(&self, slot: SlotId, line: &Entry) -> Result<(), Violation> {
        let at = line.tag;
        let owned = matches!(line.state, Mesi::Exclusive | Mesi::Modified);
        if owned && (line.cores.count_ones() != 1 || line.llc != 0) {
            return broken("C1", format!("{at} has an owner and other holders: {line:?}"));
        }
        if (line.state == Mesi::Invalid) != (line.cores == 0) {
            return broken("C1", format!("{at}: state and holders disagree: {line:?}"));
        }
        if line.llc_dirty {
            let package = line.llc.trailing_zeros() as u8;
            let alone = line.llc.count_ones() == 1 && line.cores & !self.cores_of(package) == 0;
            if !alone || owned {
                return broken("one duty to write back", format!("{at}: {line:?}"));
            }
        }
        let (set, home) = (at.line().0, u64::from(self.slab.home(slot)));
        for (c, core) in self.cores.iter().enumerate() {
            let holds = core.l1.holds(set, slot) || core.l2.holds(set, slot);
            if holds != (line.cores >> c & 1 != 0) {
                return broken("C10", format!("{at}: core {c} holds it: {holds}; {line:?}"));
            }
            if self.is_in_l1(c as u16, at) != core.l1.holds(set, slot) {
                return broken("prints of L1", format!("{at}, core {c}: {line:?}"));
            }
        }
        for (p, llc) in self.llcs.iter().enumerate() {
            let holds = llc.holds(home, slot);
            if holds != (line.llc >> p & 1 != 0) {
                return broken("C10", format!("{at}: LLC {p} holds it: {holds}; {line:?}"));
            }
        }
        Ok(())
    }

    fn check_arrays(&self) -> Result<(), Violation> {
        let of_cores = self.cores.iter().flat_map(|core| [(&core.l1, false), (&core.l2, false)]);
        let mut entries = 0;
        for (array, is_llc) in of_cores.chain(self.llcs.iter().map(|llc| (llc, true))) {
            if !array.orders_are_sound() {
                return broken("replacement order", "an entry twice, or a gap".to_owned());
            }
            for (set, slot) in array.entries() {
                entries += 1;
                let line = self.slab.get(slot);
                let of_line = if is_llc { self.slab.home(slot).into() } else { line.tag.line().0 };
                if !line.is_held()
                    || array.wrapped(of_line) != set
                    || self.slab.find(line.tag) != Some(slot)
                {
                    return broken("C3", format!("slot {slot} in set {set:#x}: {line:?}"));
                }
            }
        }
        // Every entry points to a line and every holder was found, so equal numbers mean that no set holds a line twice.
        let mut held = 0;
        for (slot, line) in self.slab.iter() {
            let l1_and_l2 = |core: &crate::hierarchy::Core| {
                let set = line.tag.line().0;
                usize::from(core.l1.holds(set, slot)) + usize::from(core.l2.holds(set, slot))
            };
            held += self.cores.iter().map(l1_and_l2).sum::<usize>();
            held += line.llc.count_ones() as usize;
        }
        if entries != held {
            return broken("C10", format!("{entries} entries for {held} places"));
        }
        Ok(())
    }

    /// Inclusion: a filter has one entry for every physical line that a core of its package holds, and no other.
    fn check_filters(&self) -> Result<(), Violation> {
        let mut held = BTreeSet::new();
        for (_, line) in self.slab.iter() {
            for package in 0..self.filters.len() as u8 {
                if line.cores & self.cores_of(package) != 0 {
                    held.insert((package, line.tag.line()));
                }
            }
        }
        let mut entries = 0u64;
        for (package, filter) in (0u8..).zip(self.filters.iter()) {
            if !filter.orders_are_sound() {
                return broken("replacement order", "a snoop filter".to_owned());
            }
            for (set, slot) in filter.entries() {
                entries += 1;
                let line = self.slab.get(slot);
                let home = self.slab.map().filter_set(line.tag.line(), self.slab.slice(slot));
                let held_here = line.cores & self.cores_of(package) != 0;
                if !held_here
                    || filter.wrapped(home) != set
                    || !held.remove(&(package, line.tag.line()))
                {
                    return broken("C10", format!("snoop filter {package}, {set:#x}: {line:?}"));
                }
            }
        }
        if let Some((package, line)) = held.first() {
            return broken("C10", format!("snoop filter {package} has no entry for {line}"));
        }
        let filter = &self.stats.snoop_filter;
        let gone = filter.deallocations.wrapping_add(filter.back_invalidations);
        if filter.allocations.wrapping_sub(gone) != entries {
            return broken("conservation", format!("{entries} snoop-filter entries: {filter:?}"));
        }
        Ok(())
    }
}
