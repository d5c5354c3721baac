//! Where each held line is in the slab: a hash table of slab numbers, probed linearly.
//!
//! Every access that L1 cannot answer looks here once, so it holds as little as can be: half a hash and a number in one
//! word. The tag itself is in the slab, which whoever asks will read anyway. The hash is that of the physical line, so that
//! all KeyIDs of a line are met in one search: what a snoop filter has to find (verification.md C13).

use crate::array::SlotId;
use prefetch_index::prefetch_index;
use sim_core::{Line, Tagged};

/// The table. Derived from the slab, so that two are equal whenever their slabs are; how full places are chained depends
/// on history and says nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Hash above, slab number below; 0 is vacant. A power of two of places, or none.
    table: Vec<u64>,
    held: usize,
}

impl PartialEq for Index {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Index {}

/// Fibonacci hashing: the upper half of the product, of which the upper bits are the place.
#[inline]
const fn hash(line: Line) -> u32 {
    (line.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Index {
    const LEAST: usize = 64;

    /// How many lines are in it.
    pub(crate) const fn len(&self) -> usize {
        self.held
    }
    #[inline]
    const fn mask(&self) -> usize {
        self.table.len().wrapping_sub(1)
    }
    /// The place where the search for a hash begins.
    #[inline]
    const fn home(&self, hash: u32) -> usize {
        (((hash as u64) << 32) >> (64 - self.table.len().trailing_zeros())) as usize
    }

    /// The first slab number under the hash of a line for which `is` holds.
    #[inline]
    pub(crate) fn find(&self, line: Line, is: impl Fn(SlotId) -> bool) -> Option<SlotId> {
        if self.table.is_empty() {
            return None;
        }
        let hash = hash(line);
        let mut i = self.home(hash);
        loop {
            // Half of the places are vacant at least, so the search ends.
            let entry = *self.table.get(i & self.mask())?;
            if entry == 0 {
                return None;
            }
            if (entry >> 32) as u32 == hash && is(entry as SlotId) {
                return Some(entry as SlotId);
            }
            i += 1;
        }
    }

    /// Asks the host for the place where the search for a line begins.
    #[inline]
    pub(crate) fn expect(&self, line: Line) {
        if !self.table.is_empty() {
            prefetch_index(&self.table, self.home(hash(line)) & self.mask());
        }
    }

    /// The lowest slab number under the hash of a line for which `is` holds. Where several may be meant: how they are chained
    /// depends on history.
    pub(crate) fn least(&self, line: Line, is: impl Fn(SlotId) -> bool) -> Option<SlotId> {
        let hash = hash(line);
        let mut i = self.home(hash);
        let mut least = None;
        // An index without places has none at `i`.
        while let Some(&entry) = self.table.get(i & self.mask()) {
            if entry == 0 {
                break;
            }
            let slot = entry as SlotId;
            if (entry >> 32) as u32 == hash && least.is_none_or(|l| slot < l) && is(slot) {
                least = Some(slot);
            }
            i += 1;
        }
        least
    }

    /// Enters a line that is not there. Returns a slab number under its hash for which `is` holds, if there is one.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        at: Tagged,
        slot: SlotId,
        is: impl Fn(SlotId) -> bool,
    ) -> Option<SlotId> {
        if (self.held + 1) * 2 > self.table.len() {
            self.grow();
        }
        self.held += 1;
        let hash = hash(at.line());
        let (mask, mut i) = (self.mask(), self.home(hash));
        let mut met = None;
        while let Some(place) = self.table.get_mut(i & mask) {
            if *place == 0 {
                *place = u64::from(hash) << 32 | u64::from(slot);
                break;
            }
            if (*place >> 32) as u32 == hash && is(*place as SlotId) {
                met = Some(*place as SlotId);
            }
            i += 1;
        }
        met
    }

    fn place(&mut self, entry: u64) {
        let (mask, mut i) = (self.mask(), self.home((entry >> 32) as u32));
        while let Some(place) = self.table.get_mut(i & mask) {
            if *place == 0 {
                *place = entry;
                return;
            }
            i += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let new = vec![0; (self.table.len() * 2).max(Self::LEAST)];
        for entry in std::mem::replace(&mut self.table, new) {
            if entry != 0 {
                self.place(entry);
            }
        }
    }

    /// Removes a line. Returns whether it was there.
    pub(crate) fn remove(&mut self, at: Tagged, slot: SlotId) -> bool {
        if self.table.is_empty() {
            return false;
        }
        let (mask, hash) = (self.mask(), hash(at.line()));
        let gone = u64::from(hash) << 32 | u64::from(slot);
        let mut hole = self.home(hash);
        loop {
            match self.table.get(hole) {
                Some(&entry) if entry == gone => break,
                Some(&entry) if entry != 0 => hole = (hole + 1) & mask,
                _ => return false,
            }
        }
        // Whatever was pushed beyond the hole moves back into it, unless that is before its home.
        let mut i = hole;
        loop {
            i = (i + 1) & mask;
            let Some(&entry) = self.table.get(i) else { break };
            if entry == 0 {
                break;
            }
            let pushed = i.wrapping_sub(self.home((entry >> 32) as u32)) & mask;
            if pushed >= i.wrapping_sub(hole) & mask {
                if let Some(place) = self.table.get_mut(hole) {
                    *place = entry;
                }
                hole = i;
            }
        }
        if let Some(place) = self.table.get_mut(hole) {
            *place = 0;
        }
        self.held -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sim_core::KeyId;
    use std::collections::BTreeMap;

    /// A slab of tags.
    fn find(index: &Index, tags: &[Option<Tagged>], at: Tagged) -> Option<SlotId> {
        index.find(at.line(), |slot| tags[slot as usize] == Some(at))
    }

    proptest! {
        #[test]
        fn an_index_finds_what_was_entered_and_not_removed(
            // Few lines of few keys, so that the same come again; wide steps, so that hashes crowd.
            steps in proptest::collection::vec((0u64..40, 0u16..3, 0u32..40), 1..400),
            shift in 0u32..40,
        ) {
            let mut index = Index::default();
            let mut want: BTreeMap<Tagged, SlotId> = BTreeMap::new();
            let mut tags: Vec<Option<Tagged>> = vec![None];
            for (line, key, remove) in steps {
                let at = Tagged::new(Line(line << shift), KeyId(key));
                prop_assert_eq!(find(&index, &tags, at), want.get(&at).copied());
                match want.get(&at).copied() {
                    Some(slot) if remove < 20 => {
                        prop_assert!(index.remove(at, slot));
                        prop_assert!(!index.remove(at, slot));
                        want.remove(&at);
                        tags[slot as usize] = None;
                    }
                    Some(slot) => prop_assert_eq!(find(&index, &tags, at), Some(slot)),
                    None => {
                        let slot = tags.len() as SlotId;
                        tags.push(Some(at));
                        index.insert(at, slot, |_| false);
                        want.insert(at, slot);
                    }
                }
                prop_assert_eq!(index.len(), want.len());
                for (at, slot) in &want {
                    prop_assert_eq!(find(&index, &tags, *at), Some(*slot));
                }
            }
        }
    }

    #[test]
    fn two_lines_of_one_hash_are_told_apart_by_their_tags() {
        // As two KeyIDs of one line are.
        let mut index = Index::default();
        let at = Tagged::new(Line(5), KeyId(1));
        index.insert(at, 7, |_| false);
        assert_eq!(index.insert(at, 8, |slot| slot == 7), Some(7));
        assert_eq!(index.find(at.line(), |slot| slot == 8), Some(8));
        assert_eq!(index.find(at.line(), |slot| slot == 7), Some(7));
        assert_eq!(index.find(at.line(), |_| false), None);
        assert_eq!(index.least(at.line(), |_| true), Some(7));
        assert_eq!(index.least(at.line(), |slot| slot != 7), Some(8));
        assert_eq!(Index::default().least(at.line(), |_| true), None);
        assert!(index.remove(at, 7));
        assert_eq!(index.find(at.line(), |_| true), Some(8));
    }

    #[test]
    fn lines_that_wrap_round_the_end_of_the_table_are_found_and_removed() {
        // More lines whose home is the last place than fit behind it.
        let mut index = Index::default();
        index.insert(Tagged::new(Line(0), KeyId(0)), 1, |_| false);
        assert_eq!(index.table.len(), Index::LEAST);
        let last = |line: &u64| index.home(hash(Line(*line))) == 63;
        let lines: Vec<u64> = (1..).filter(last).take(5).collect();
        let at = |i: usize| Tagged::new(Line(lines[i]), KeyId(0));
        for i in 0..5 {
            index.insert(at(i), i as SlotId + 2, |_| false);
        }
        assert!(index.remove(at(1), 3));
        for i in [0, 2, 3, 4] {
            assert_eq!(
                index.find(at(i).line(), |slot| slot == i as SlotId + 2),
                Some(i as SlotId + 2)
            );
        }
        assert_eq!(index.find(Line(0), |slot| slot == 1), Some(1));
        assert_eq!(index.table.iter().filter(|entry| **entry != 0).count(), 5);
    }
}
