//! Set-associative arrays with LRU replacement.
//!
//! An array decides capacity and replacement only; what a line holds, and whether anybody has it at all, is in the slab.
//! So the entries of a set are slab numbers, which stay in their ways, and beside them in one word the order in which the ways
//! were used. Sets come into being in chunks when first filled, so that an 84 MB cache costs nothing at the start, and a
//! snapshot holds only what was used.

use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

/// Most ways of a set.
pub(crate) const WAYS_MAX: usize = 16;
const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;
/// The name of a slab entry; 0 is none.
pub(crate) type SlotId = u32;

/// The ways of a set, four bits each, the most recently used lowest. Ways that the array does not have come last, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Order(u64);

impl Order {
    /// By number.
    const FIRST: Order = Order(0xfedc_ba98_7654_3210);

    /// The way at a rank; rank 0 is the most recent.
    #[inline]
    const fn way_at(self, rank: u32) -> usize {
        (self.0 >> ((rank * 4) & 63) & 15) as usize
    }
    /// Four times the rank of a way.
    #[inline]
    const fn shift_of(self, way: usize) -> u32 {
        const ONES: u64 = 0x1111_1111_1111_1111;
        // The way's digit becomes zero. Taking one from each digit borrows there first.
        let zero_there = self.0 ^ ONES.wrapping_mul(way as u64 & 15);
        let borrowed = zero_there.wrapping_sub(ONES) & !zero_there & (ONES << 3);
        // In a damaged snapshot it may be nowhere.
        borrowed.trailing_zeros() & 60
    }
    /// A way becomes the most recent.
    #[inline]
    const fn rejuvenate(&mut self, way: usize) {
        self.move_first(self.shift_of(way), way);
    }
    /// The way at four times this rank becomes the most recent.
    #[inline]
    const fn move_first(&mut self, shift: u32, way: usize) {
        let below = (1u64 << (shift & 63)) - 1;
        let (younger, older) = (self.0 & below, self.0 & !(below << 4 | 15));
        self.0 = older | younger << 4 | way as u64 & 15;
    }
    /// A way goes to rank `last`.
    #[inline]
    const fn retire(&mut self, way: usize, last: u32) {
        let last = (last * 4) & 60;
        let below = (1u64 << self.shift_of(way)) - 1;
        // With 16 ways there is nothing beyond.
        let there = ((1u64 << last) << 4).wrapping_sub(1);
        let older = (self.0 & there) >> 4 & !below;
        self.0 = self.0 & !there | (way as u64 & 15) << last | older | self.0 & below;
    }
}

/// A set. Its empty ways are the oldest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Set {
    slots: [SlotId; WAYS_MAX],
    order: Order,
}

impl Set {
    const EMPTY: Set = Set { slots: [0; WAYS_MAX], order: Order::FIRST };

    /// The way of an entry, 0 to 15.
    #[inline]
    fn way_of(&self, slot: SlotId) -> Option<usize> {
        // Without branches, so that it becomes four vector compares. A bit above the way's, since compilers treat one that
        // is not shifted at all as a case of its own.
        let mut hits = 0u32;
        for (way, entry) in self.slots.iter().enumerate() {
            hits |= u32::from(*entry == slot) << (way + 1);
        }
        (hits != 0).then(|| hits.trailing_zeros().wrapping_sub(1) as usize & (WAYS_MAX - 1))
    }
    /// Makes a way the most recently used.
    #[inline]
    const fn rejuvenate(&mut self, way: usize) {
        if self.order.way_at(0) != way {
            self.order.rejuvenate(way);
        }
    }
}

/// An array. Whoever asks names the set and the slab entry; which set a line belongs to, its caches know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Array {
    chunks: Vec<Vec<Set>>,
    set_mask: u64,
    ways: u32,
}

impl Array {
    /// An empty array of a power of two of sets and 1 to 16 ways, which has been checked.
    pub(crate) fn new(sets: u64, ways: u8) -> Self {
        let sets = sets.max(1);
        let chunks = sets.div_ceil(CHUNK as u64) as usize;
        Array {
            chunks: vec![Vec::new(); chunks],
            set_mask: sets - 1,
            ways: u32::from(ways).clamp(1, WAYS_MAX as u32),
        }
    }
    /// Line slots in all.
    pub(crate) const fn slots(&self) -> u64 {
        (self.set_mask.saturating_add(1)).saturating_mul(self.ways as u64)
    }
    /// The rank of the least recently used way. A damaged snapshot may say anything.
    #[inline]
    const fn last(&self) -> u32 {
        self.ways.wrapping_sub(1) & (WAYS_MAX as u32 - 1)
    }
    /// The number of a set, whatever is asked for.
    #[inline]
    pub(crate) const fn wrapped(&self, set: u64) -> u64 {
        set & self.set_mask
    }
    #[inline]
    const fn index(&self, set: u64) -> (usize, usize) {
        let set = self.wrapped(set);
        ((set >> CHUNK_BITS) as usize, set as usize & (CHUNK - 1))
    }
    #[inline]
    fn set(&self, set: u64) -> Option<&Set> {
        let (chunk, set) = self.index(set);
        self.chunks.get(chunk)?.get(set)
    }
    #[inline]
    fn set_mut(&mut self, set: u64) -> Option<&mut Set> {
        let (chunk, set) = self.index(set);
        self.chunks.get_mut(chunk)?.get_mut(set)
    }

    /// Makes an entry the most recently used of its set. Returns its way, if it is there.
    #[inline]
    pub(crate) fn touch(&mut self, set: u64, slot: SlotId) -> Option<usize> {
        let set = self.set_mut(set)?;
        let way = set.way_of(slot)?;
        set.rejuvenate(way);
        Some(way)
    }
    /// Makes the entry in a way the most recently used of its set, if `is` holds for it, which is then returned.
    #[inline]
    pub(crate) fn touch_way(
        &mut self,
        set: u64,
        way: usize,
        is: impl FnOnce(SlotId) -> bool,
    ) -> Option<SlotId> {
        let (set, way) = (self.set_mut(set)?, way & (WAYS_MAX - 1));
        let slot = set.slots[way];
        if !is(slot) {
            return None;
        }
        set.rejuvenate(way);
        Some(slot)
    }
    /// The entry in a way, 0 if it is empty.
    #[inline]
    pub(crate) fn at_way(&self, set: u64, way: usize) -> Option<SlotId> {
        self.set(set).map(|set| set.slots[way & (WAYS_MAX - 1)])
    }
    /// Whom [`Array::insert`] would put out of a set now, if anybody.
    #[inline]
    pub(crate) fn oldest(&self, set: u64) -> Option<SlotId> {
        let set = self.set(set)?;
        let slot = set.slots[set.order.way_at(self.last())];
        (slot != 0).then_some(slot)
    }
    /// Asks the host for a set.
    #[inline]
    pub(crate) fn expect(&self, set: u64) {
        let (chunk, set) = self.index(set);
        if let Some(chunk) = self.chunks.get(chunk) {
            // Most sets lie in two lines of the host's; where the next one begins, this one ends.
            prefetch_index(chunk, set);
            prefetch_index(chunk, set + 1);
        }
    }
    /// Whether an entry is there.
    #[inline]
    pub(crate) fn holds(&self, set: u64, slot: SlotId) -> bool {
        self.set(set).is_some_and(|set| set.way_of(slot).is_some())
    }
    /// Puts an entry that is not there in place of the least recently used of its set, which is returned (0 if the place was
    /// empty), with the way.
    #[inline]
    pub(crate) fn insert(&mut self, set: u64, slot: SlotId) -> (SlotId, usize) {
        let (last, (chunk, _)) = (self.last(), self.index(set));
        if self.chunks.get(chunk).is_some_and(Vec::is_empty) {
            self.fill_chunk(chunk);
        }
        let Some(set) = self.set_mut(set) else { return (0, 0) };
        let way = set.order.way_at(last);
        let victim = std::mem::replace(&mut set.slots[way], slot);
        set.order.move_first(last * 4, way);
        (victim, way)
    }
    /// The sets of a chunk come into being.
    #[cold]
    #[inline(never)]
    fn fill_chunk(&mut self, chunk: usize) {
        let sets = CHUNK.min((self.set_mask as usize).saturating_add(1));
        if let Some(chunk) = self.chunks.get_mut(chunk) {
            chunk.resize(sets, Set::EMPTY);
        }
    }
    /// Removes an entry, if it is there.
    #[inline]
    pub(crate) fn remove(&mut self, set: u64, slot: SlotId) -> bool {
        let last = self.last();
        let Some(set) = self.set_mut(set) else { return false };
        let Some(way) = set.way_of(slot) else { return false };
        set.slots[way] = 0;
        set.order.retire(way, last);
        true
    }
    /// Another slab entry takes an entry's way, and its place in the order. Returns whether it was there.
    pub(crate) fn rename(&mut self, set: u64, slot: SlotId, new: SlotId) -> bool {
        let Some(set) = self.set_mut(set) else { return false };
        let Some(way) = set.way_of(slot) else { return false };
        set.slots[way] = new;
        true
    }
    /// All entries, with the set they are in. For checks only.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, SlotId)> + '_ {
        self.chunks.iter().zip(0u64..).flat_map(|(chunk, c)| {
            chunk.iter().zip(0u64..).flat_map(move |(set, s)| {
                let filled = set.slots.iter().filter(|slot| **slot != 0);
                filled.map(move |slot| (c << CHUNK_BITS | s, *slot))
            })
        })
    }
    /// Whether every set has each way once in its order, its empty ways the oldest, and no entry twice. For checks only.
    pub(crate) fn orders_are_sound(&self) -> bool {
        self.chunks.iter().flatten().all(|set| {
            let order: Vec<usize> = (0..16).map(|rank| set.order.way_at(rank)).collect();
            let mut ways = order.clone();
            ways.sort_unstable();
            let mut entries: Vec<SlotId> = set.slots.iter().copied().filter(|s| *s != 0).collect();
            let filled = entries.len();
            entries.sort_unstable();
            entries.dedup();
            let of_the_array = self.ways as usize;
            entries.len() == filled
                && ways.into_iter().eq(0..WAYS_MAX)
                && (of_the_array..WAYS_MAX).all(|way| order[way] == way)
                && order
                    .iter()
                    .enumerate()
                    .all(|(rank, way)| (set.slots[*way & (WAYS_MAX - 1)] != 0) == (rank < filled))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_array_keeps_the_most_recently_used_lines_of_a_set(
            ways in 1u8..=16, ops in proptest::collection::vec((0u64..24, 0u8..5), 1..200),
        ) {
            let mut array = Array::new(2, ways);
            // Per set, most recent first.
            let mut want: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            for (n, op) in ops {
                let list = &mut want[(n & 1) as usize];
                let (had, slot) = (list.contains(&n), n as u32 + 1);
                match op {
                    0 => {
                        list.retain(|m| *m != n);
                        prop_assert_eq!(array.remove(n, slot), had);
                    }
                    1 => {
                        // Under another name and back: its place stays.
                        prop_assert_eq!(array.rename(n, slot, slot + 100), had);
                        prop_assert!(!array.holds(n, slot));
                        prop_assert_eq!(array.rename(n, slot + 100, slot), had);
                    }
                    _ if had => {
                        list.retain(|m| *m != n);
                        list.insert(0, n);
                        let way = array.touch(n, slot);
                        prop_assert!(way.is_some());
                        prop_assert_eq!(array.touch_way(n, way.unwrap(), |s| s == slot), Some(slot));
                        prop_assert_eq!(array.touch_way(n, way.unwrap(), |s| s != slot), None);
                    }
                    _ => {
                        prop_assert_eq!(array.touch(n, slot), None);
                        let victim = (list.len() == usize::from(ways)).then(|| list.pop().unwrap());
                        let victim = victim.map(|v| v as u32 + 1);
                        prop_assert_eq!(array.oldest(n), victim);
                        prop_assert_eq!(array.insert(n, slot).0, victim.unwrap_or(0));
                        list.insert(0, n);
                    }
                }
                prop_assert!(array.orders_are_sound());
                prop_assert_eq!(array.holds(n, slot), want[(n & 1) as usize].contains(&n));
                let mut entries: Vec<(u64, u32)> = array.entries().collect();
                let set = |s: usize| want[s].iter().map(move |n| (s as u64, *n as u32 + 1));
                let mut all: Vec<_> = set(0).chain(set(1)).collect();
                entries.sort_unstable();
                all.sort_unstable();
                prop_assert_eq!(entries, all);
            }
        }
    }

    #[test]
    fn sets_come_into_being_when_first_filled() {
        let mut array = Array::new(1 << 16, 15);
        assert_eq!((array.slots(), array.entries().count()), (15 << 16, 0));
        array.insert(70, 1);
        assert_eq!(array.chunks.iter().map(Vec::len).sum::<usize>(), CHUNK);
        assert_eq!(array.entries().collect::<Vec<_>>(), [(70, 1)]);
    }
}
