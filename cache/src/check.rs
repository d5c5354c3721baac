//! Looking at the hierarchy without changing it, and checking it against itself.

use crate::array::SlotId;
use crate::hierarchy::Hierarchy;
use crate::mesi::Mesi;
use crate::slab::{CachedLine, Entry};
use crate::stats::Stats;
use sim_core::outcome::DataClass;
use sim_core::{BirthId, LineData, Tagged};
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
            cores: line.cores,
            llc: line.llc,
        })
    }

    /// The state of one core's copy.
    pub fn mesi(&self, core: u16, at: Tagged) -> Mesi {
        let bit = 1u128 << (self.core_index(core) & 127);
        match self.inspect(at) {
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

    /// Checks every invariant: SWMR, the exactness of the directory, agreement of arrays and slab, one duty to write
    /// back, bounded buffers.
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
        for (c, core) in self.cores.iter().enumerate() {
            let holds = core.l1.holds(at, slot) || core.l2.holds(at, slot);
            if holds != (line.cores >> c & 1 != 0) {
                return broken("C10", format!("{at}: core {c} holds it: {holds}; {line:?}"));
            }
        }
        for (p, llc) in self.llcs.iter().enumerate() {
            let holds = llc.holds(at, slot);
            if holds != (line.llc >> p & 1 != 0) {
                return broken("C10", format!("{at}: LLC {p} holds it: {holds}; {line:?}"));
            }
        }
        Ok(())
    }

    fn check_arrays(&self) -> Result<(), Violation> {
        let of_cores = self.cores.iter().flat_map(|core| [&core.l1, &core.l2]);
        let mut entries = 0;
        for array in of_cores.chain(self.llcs.iter()) {
            if !array.orders_are_sound() {
                return broken("replacement order", "an entry twice, or a gap".to_owned());
            }
            for (set, slot) in array.entries() {
                entries += 1;
                let line = self.slab.get(slot);
                if !line.is_held()
                    || array.set_of(line.tag) != set
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
                usize::from(core.l1.holds(line.tag, slot))
                    + usize::from(core.l2.holds(line.tag, slot))
            };
            held += self.cores.iter().map(l1_and_l2).sum::<usize>();
            held += line.llc.count_ones() as usize;
        }
        if entries != held {
            return broken("C10", format!("{entries} entries for {held} places"));
        }
        Ok(())
    }
}
