//! Set-associative tag arrays with LRU replacement.
//!
//! An array decides capacity and replacement only; what a line holds is in the slab. Entries are (tag, slab slot).
//! Sets come into being in chunks when first filled, so that an 84 MB cache costs nothing at the start, and a snapshot
//! holds only what was used.

use serde::{Deserialize, Serialize};
use sim_core::platform::CacheGeometry;
use sim_core::{Line, Tagged};

/// Most ways of a set: one nibble each in a word.
pub(crate) const WAYS_MAX: usize = 16;
const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Way 0 most recently used, way 15 least.
const IDENTITY: u64 = 0xfedc_ba98_7654_3210;
const NIBBLES: u64 = 0x1111_1111_1111_1111;

/// The name of a slab entry; 0 is none.
pub(crate) type SlotId = u32;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Set {
    /// Tag word plus one; 0 where the way is empty.
    tags: [u64; WAYS_MAX],
    slots: [SlotId; WAYS_MAX],
    /// Ways by recency, one nibble each, the most recent lowest. Empty ways come last among the ways in use.
    order: u64,
}

/// Position (in bits) of a way's nibble in an order word that is a permutation.
#[inline]
const fn position(order: u64, way: usize) -> u32 {
    let zero_where_equal = order ^ (NIBBLES * (way as u64 & 15));
    // The lowest zero nibble is found exactly; borrows disturb only nibbles above it.
    let hit = zero_where_equal.wrapping_sub(NIBBLES) & !zero_where_equal & (NIBBLES << 3);
    (hit.trailing_zeros() & !3) & 63
}

/// The order with `way` most recently used.
#[inline]
const fn to_front(order: u64, way: usize) -> u64 {
    let p = position(order, way);
    let above = order & !(u64::MAX >> (60 - p));
    let below = order & ((1 << p) - 1);
    above | below << 4 | (way as u64 & 15)
}

/// The order with `way` least recently used of the first `ways` places, 1 to 16.
const fn to_back(order: u64, way: usize, ways: u32) -> u64 {
    let p = position(order, way);
    let last = 4 * (ways - 1);
    if p >= last {
        return order;
    }
    let outside = order & (((1 << p) - 1) | !(u64::MAX >> (60 - last)));
    let between = order & (u64::MAX >> (60 - last)) & !(u64::MAX >> (60 - p));
    outside | between >> 4 | (way as u64 & 15) << last
}

impl Set {
    const EMPTY: Set = Set { tags: [0; WAYS_MAX], slots: [0; WAYS_MAX], order: IDENTITY };

    #[inline]
    fn way_of(&self, want: u64) -> Option<usize> {
        let mut hits = 0u32;
        for (way, tag) in self.tags.iter().enumerate() {
            hits |= u32::from(*tag == want) << way;
        }
        (hits != 0).then(|| hits.trailing_zeros() as usize & 15)
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

/// A tag array.
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
    #[inline]
    const fn index(&self, at: Tagged) -> (usize, usize) {
        let set = match self.indexing {
            Indexing::Low => at.line().0,
            Indexing::Folded => fold(at.line()),
        } & self.set_mask;
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

    /// Finds an entry and makes it the most recently used of its set.
    #[inline]
    pub(crate) fn touch(&mut self, at: Tagged) -> Option<SlotId> {
        let set = self.set_mut(at)?;
        let want = at.word() + 1;
        let recent = set.order as usize & 15;
        if set.tags[recent] == want {
            return Some(set.slots[recent]);
        }
        let way = set.way_of(want)?;
        set.order = to_front(set.order, way);
        Some(set.slots[way])
    }
    /// Finds an entry and changes nothing.
    #[inline]
    pub(crate) fn peek(&self, at: Tagged) -> Option<SlotId> {
        let set = self.set(at)?;
        set.way_of(at.word() + 1).map(|way| set.slots[way])
    }
    /// Puts an entry that is not there in place of the least recently used of its set, which is returned.
    pub(crate) fn insert(&mut self, at: Tagged, slot: SlotId) -> Option<SlotId> {
        let (chunk, index) = self.index(at);
        // A damaged snapshot may say anything; the shifts below must not overflow.
        let last = 4 * (self.ways.clamp(1, WAYS_MAX as u32) - 1);
        let chunk = self.chunks.get_mut(chunk)?;
        if chunk.is_empty() {
            chunk.resize(CHUNK.min((self.set_mask as usize).saturating_add(1)), Set::EMPTY);
        }
        let set = chunk.get_mut(index)?;
        let way = (set.order >> last) as usize & 15;
        let victim = (set.tags[way] != 0).then_some(set.slots[way]);
        set.tags[way] = at.word() + 1;
        set.slots[way] = slot;
        set.order = to_front(set.order, way);
        victim
    }
    /// Removes an entry, if it is there; its way is the next to be filled.
    pub(crate) fn remove(&mut self, at: Tagged) -> bool {
        let ways = self.ways.clamp(1, WAYS_MAX as u32);
        let Some(set) = self.set_mut(at) else { return false };
        let Some(way) = set.way_of(at.word() + 1) else { return false };
        set.tags[way] = 0;
        set.slots[way] = 0;
        set.order = to_back(set.order, way, ways);
        true
    }
    /// All entries: tag word and slot. For checks only.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, SlotId)> + '_ {
        self.chunks
            .iter()
            .flatten()
            .flat_map(|set| set.tags.iter().zip(&set.slots))
            .filter(|(tag, _)| **tag != 0)
            .map(|(tag, slot)| (*tag - 1, *slot))
    }
    /// Whether every order is a permutation with the empty ways last. For checks only.
    pub(crate) fn orders_are_sound(&self) -> bool {
        self.chunks.iter().flatten().all(|set| {
            let mut seen = 0u32;
            let mut empty_seen = false;
            let mut sound = true;
            for place in 0..WAYS_MAX {
                let way = (set.order >> (4 * place)) as usize & 15;
                seen |= 1 << way;
                let in_use = place < self.ways as usize;
                let empty = set.tags[way] == 0;
                sound &= in_use || empty;
                sound &= !in_use || empty || !empty_seen;
                empty_seen |= in_use && empty;
            }
            sound && seen == 0xffff
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
        fn an_order_word_behaves_like_a_list(
            ways in 1usize..=16, moves in proptest::collection::vec((0usize..16, any::<bool>()), 1..60),
        ) {
            let mut order = IDENTITY;
            let mut list: Vec<usize> = (0..16).collect();
            for (way, front) in moves {
                let way = way % ways;
                list.retain(|w| *w != way);
                if front {
                    order = to_front(order, way);
                    list.insert(0, way);
                } else {
                    order = to_back(order, way, ways as u32);
                    list.insert(ways - 1, way);
                }
                let got: Vec<usize> = (0..16).map(|i| (order >> (4 * i)) as usize & 15).collect();
                prop_assert_eq!(&got, &list);
            }
        }

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
                        prop_assert_eq!(array.remove(at), had);
                    }
                    _ if had => {
                        list.retain(|m| *m != n);
                        list.insert(0, n);
                        prop_assert_eq!(array.touch(at), Some(n as u32 + 1));
                    }
                    _ => {
                        prop_assert_eq!(array.touch(at), None);
                        let victim = (list.len() == usize::from(ways)).then(|| list.pop().unwrap());
                        prop_assert_eq!(array.insert(at, n as u32 + 1), victim.map(|v| v as u32 + 1));
                        list.insert(0, n);
                    }
                }
                prop_assert!(array.orders_are_sound());
                let held = array.entries().count();
                prop_assert_eq!(held, want.iter().map(Vec::len).sum::<usize>());
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
        assert_eq!(array.peek(Tagged::new(Line(12345), KeyId(1))), Some(1));
        assert_eq!(array.peek(Tagged::new(Line(12345), KeyId(2))), None);
    }
}
