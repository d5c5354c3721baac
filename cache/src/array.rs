//! Set-associative arrays with LRU replacement.
//!
//! An array decides capacity and replacement only; what a line holds, and whether anybody has it at all, is in the slab.
//! So the entries of a set are slab numbers and nothing else, the most recently used first: 16 ways are one line of the
//! host's cache. Sets come into being in chunks when first filled, so that an 84 MB cache costs nothing at the start, and
//! a snapshot holds only what was used.

use serde::{Deserialize, Serialize};
use sim_core::platform::CacheGeometry;
use sim_core::{Line, Tagged};

/// Most ways of a set.
pub(crate) const WAYS_MAX: usize = 16;
const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;

/// The name of a slab entry; 0 is none.
pub(crate) type SlotId = u32;

/// Slab entries by recency, the most recently used first. Empty ways come last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(align(64))]
struct Set([SlotId; WAYS_MAX]);

impl Set {
    const EMPTY: Set = Set([0; WAYS_MAX]);

    /// The place of an entry, 0 to 15.
    #[inline]
    fn place_of(&self, slot: SlotId) -> Option<usize> {
        // Without branches, so that it becomes a few vector compares.
        let mut hits = 0u32;
        for (place, entry) in self.0.iter().enumerate() {
            hits |= u32::from(*entry == slot) << place;
        }
        (hits != 0).then(|| hits.trailing_zeros() as usize & (WAYS_MAX - 1))
    }
    /// Moves the entries before `place` one place back and puts `slot` first.
    #[inline]
    fn put_first(&mut self, place: usize, slot: SlotId) {
        self.0.copy_within(0..place & (WAYS_MAX - 1), 1);
        self.0[0] = slot;
    }
}

/// How an array's sets are chosen. KeyID bits take no part, so that runs that differ in KeyIDs only stay alike
/// (verification.md M6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Indexing {
    /// Low bits of the line number.
    Low,
    /// A XOR fold of the line number, as LLC slices are chosen. Intel's own hash is not public (timing.md §1.1).
    Folded,
}

/// XOR fold of a line number.
#[inline]
pub(crate) const fn fold(line: Line) -> u64 {
    let l = line.0;
    l ^ l >> 11 ^ l >> 22 ^ l >> 33
}

/// An array. Whoever asks for a line names its slab entry as well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Array {
    chunks: Vec<Vec<Set>>,
    set_mask: u64,
    ways: u32,
    indexing: Indexing,
}

impl Array {
    /// An empty array. The geometry has been checked: a power of two of sets, 1 to 16 ways.
    pub(crate) fn new(geometry: &CacheGeometry, indexing: Indexing) -> Self {
        let sets = geometry.sets().max(1);
        let chunks = sets.div_ceil(CHUNK as u64) as usize;
        Array {
            chunks: vec![Vec::new(); chunks],
            set_mask: sets - 1,
            ways: u32::from(geometry.ways).clamp(1, WAYS_MAX as u32),
            indexing,
        }
    }
    /// Line slots in all.
    pub(crate) const fn slots(&self) -> u64 {
        (self.set_mask.saturating_add(1)).saturating_mul(self.ways as u64)
    }
    /// The number of the set that a line belongs to.
    #[inline]
    pub(crate) const fn set_of(&self, at: Tagged) -> u64 {
        self.set_mask
            & match self.indexing {
                Indexing::Low => at.line().0,
                Indexing::Folded => fold(at.line()),
            }
    }
    #[inline]
    const fn index(&self, at: Tagged) -> (usize, usize) {
        let set = self.set_of(at);
        ((set >> CHUNK_BITS) as usize, set as usize & (CHUNK - 1))
    }
    #[inline]
    fn set(&self, at: Tagged) -> Option<&Set> {
        let (chunk, set) = self.index(at);
        self.chunks.get(chunk)?.get(set)
    }
    #[inline]
    fn set_mut(&mut self, at: Tagged) -> Option<&mut Set> {
        let (chunk, set) = self.index(at);
        self.chunks.get_mut(chunk)?.get_mut(set)
    }
    /// The place of the least recently used way. A damaged snapshot may say anything.
    const fn last(&self) -> usize {
        (self.ways as usize).wrapping_sub(1) & (WAYS_MAX - 1)
    }

    /// Makes an entry the most recently used of its set. Returns whether it is there.
    #[inline]
    pub(crate) fn touch(&mut self, at: Tagged, slot: SlotId) -> bool {
        let Some(set) = self.set_mut(at) else { return false };
        if set.0[0] == slot {
            return true;
        }
        let Some(place) = set.place_of(slot) else { return false };
        set.put_first(place, slot);
        true
    }
    /// Whether an entry is there.
    #[inline]
    pub(crate) fn holds(&self, at: Tagged, slot: SlotId) -> bool {
        self.set(at).is_some_and(|set| set.place_of(slot).is_some())
    }
    /// Puts an entry that is not there in place of the least recently used of its set, which is returned.
    pub(crate) fn insert(&mut self, at: Tagged, slot: SlotId) -> Option<SlotId> {
        let last = self.last();
        let (chunk, index) = self.index(at);
        let chunk = self.chunks.get_mut(chunk)?;
        if chunk.is_empty() {
            chunk.resize(CHUNK.min((self.set_mask as usize).saturating_add(1)), Set::EMPTY);
        }
        let set = chunk.get_mut(index)?;
        let victim = set.0[last];
        set.put_first(last, slot);
        (victim != 0).then_some(victim)
    }
    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, at: Tagged, slot: SlotId) -> bool {
        let Some(set) = self.set_mut(at) else { return false };
        let Some(place) = set.place_of(slot) else { return false };
        set.0.copy_within(place + 1.., place);
        set.0[WAYS_MAX - 1] = 0;
        true
    }
    /// All entries, with the set they are in. For checks only.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, SlotId)> + '_ {
        self.chunks.iter().zip(0u64..).flat_map(|(chunk, c)| {
            chunk.iter().zip(0u64..).flat_map(move |(set, s)| {
                let filled = set.0.iter().filter(|slot| **slot != 0);
                filled.map(move |slot| (c << CHUNK_BITS | s, *slot))
            })
        })
    }
    /// Whether every set has its empty ways last and no entry twice. For checks only.
    pub(crate) fn orders_are_sound(&self) -> bool {
        self.chunks.iter().flatten().all(|set| {
            let filled = set.0.iter().take_while(|slot| **slot != 0).count();
            let mut entries = set.0[..filled].to_vec();
            entries.sort_unstable();
            entries.dedup();
            filled <= self.ways as usize
                && set.0[filled..].iter().all(|slot| *slot == 0)
                && entries.len() == filled
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sim_core::KeyId;

    proptest! {
        #[test]
        fn an_array_keeps_the_most_recently_used_lines_of_a_set(
            ways in 1u8..=16, ops in proptest::collection::vec((0u64..24, 0u8..4), 1..200),
        ) {
            let geometry = CacheGeometry { size: 2 * 64 * u64::from(ways), ways };
            let mut array = Array::new(&geometry, Indexing::Low);
            // Per set, most recent first.
            let mut want: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            for (n, op) in ops {
                let at = Tagged::new(Line(n), KeyId(3));
                let list = &mut want[(n & 1) as usize];
                let had = list.contains(&n);
                match op {
                    0 => {
                        list.retain(|m| *m != n);
                        prop_assert_eq!(array.remove(at, n as u32 + 1), had);
                    }
                    _ if had => {
                        list.retain(|m| *m != n);
                        list.insert(0, n);
                        prop_assert!(array.touch(at, n as u32 + 1));
                    }
                    _ => {
                        prop_assert!(!array.touch(at, n as u32 + 1));
                        let victim = (list.len() == usize::from(ways)).then(|| list.pop().unwrap());
                        prop_assert_eq!(array.insert(at, n as u32 + 1), victim.map(|v| v as u32 + 1));
                        list.insert(0, n);
                    }
                }
                prop_assert!(array.orders_are_sound());
                prop_assert_eq!(array.holds(at, n as u32 + 1), want[(n & 1) as usize].contains(&n));
                // Entries come set by set, by recency.
                let entries: Vec<(u64, u32)> = array.entries().collect();
                let listed: Vec<(u64, u32)> = (0..2)
                    .flat_map(|s| want[s as usize].iter().map(move |n| (s, *n as u32 + 1)))
                    .collect();
                prop_assert_eq!(entries, listed);
            }
        }
    }

    #[test]
    fn a_large_array_holds_no_sets_before_it_is_used() {
        let geometry = CacheGeometry { size: 120 << 20, ways: 15 };
        let mut array = Array::new(&geometry, Indexing::Folded);
        assert_eq!(array.chunks.iter().map(Vec::len).sum::<usize>(), 0);
        assert_eq!(array.slots(), (120 << 20) / 64);
        array.insert(Tagged::new(Line(12345), KeyId(1)), 1);
        assert_eq!(array.chunks.iter().map(Vec::len).sum::<usize>(), CHUNK);
        assert!(array.holds(Tagged::new(Line(12345), KeyId(1)), 1));
        assert!(!array.holds(Tagged::new(Line(12345), KeyId(1)), 2));
        assert!(!array.holds(Tagged::new(Line(54321), KeyId(1)), 1));
    }
}
