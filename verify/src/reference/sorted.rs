//! An ordered map for states that are copied, compared and hashed far more often than they grow.
//!
//! A map of a few entries, as a search has, is one flat row: cloning it into another takes over that one's memory. A map
//! of many, as the replay of a long run has, is a list of short rows, with the ranks at which they begin beside it. Who needs
//! an entry twice keeps its `Spot` instead of looking for it again.

use super::Place;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sim_core::{BirthId, KeyId, Line, Tagged};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Entries of a map that is one row, at most.
const FLAT: usize = 16;
/// Entries of a row among others, at most.
const ROW: usize = 8;

/// A key of a [`Sorted`] map.
pub trait Ranked: Ord + Copy {
    /// A number that is smaller where the key is smaller; keys that share one follow each other, in one row. It is what a
    /// search compares.
    fn rank(&self) -> u64;
}
impl Ranked for u16 {
    fn rank(&self) -> u64 {
        u64::from(*self)
    }
}
impl Ranked for u32 {
    fn rank(&self) -> u64 {
        u64::from(*self)
    }
}
impl Ranked for Line {
    fn rank(&self) -> u64 {
        self.0
    }
}
impl Ranked for BirthId {
    fn rank(&self) -> u64 {
        u64::from(self.0.get())
    }
}
impl Ranked for (u8, KeyId) {
    fn rank(&self) -> u64 {
        u64::from(self.0) << 16 | u64::from(self.1.0)
    }
}
impl Ranked for (Tagged, Place) {
    fn rank(&self) -> u64 {
        self.0.word()
    }
}

/// An ordered map. It says what a `BTreeMap` would say.
pub struct Sorted<K, V> {
    /// The entries in order. Only where it is the only one a row may be empty, and then its memory waits for the next entry.
    rows: Vec<Vec<(K, V)>>,
    /// For each row but the first, a rank: its entries have this rank or a higher one, those of the rows before it lower
    /// ones. So all entries of a rank are in one row.
    bounds: Vec<u64>,
    len: usize,
}

impl<K: Clone, V: Clone> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Sorted { rows: self.rows.clone(), bounds: self.bounds.clone(), len: self.len }
    }
    fn clone_from(&mut self, source: &Self) {
        self.len = source.len;
        match (self.rows.as_mut_slice(), source.rows.as_slice()) {
            ([own], [theirs]) => own.clone_from(theirs),
            ([own], []) => own.clear(),
            _ => {
                self.rows.clone_from(&source.rows);
                self.bounds.clone_from(&source.bounds);
            }
        }
    }
}
impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { rows: vec![], bounds: vec![], len: 0 }
    }
}

impl<K: Ranked, V> Sorted<K, V> {
    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }
    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The row in which keys of this rank are or would be.
    fn row_of(&self, rank: u64) -> usize {
        self.bounds.partition_point(|bound| *bound <= rank)
    }
    /// Where in a row the entries of this rank or a higher one begin.
    fn begin(entries: &[(K, V)], rank: u64) -> usize {
        if entries.len() > 8 {
            entries.partition_point(|(k, _)| k.rank() < rank)
        } else {
            entries.iter().position(|(k, _)| k.rank() >= rank).unwrap_or(entries.len())
        }
    }
    /// The place in its row at which the key is, or would be.
    fn place(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
        let mut place = Self::begin(entries, key.rank());
        while let Some((k, _)) = entries.get(place) {
            match k.cmp(key) {
                Ordering::Less => place += 1,
                Ordering::Equal => return Ok(place),
                Ordering::Greater => break,
            }
        }
        Err(place)
    }
    /// Where the key is, or would be.
    #[inline]
    pub(super) fn find(&self, key: &K) -> Result<Spot, Spot> {
        let row = self.row_of(key.rank());
        let entries = self.rows.get(row).map(Vec::as_slice).unwrap_or_default();
        let spot = |place| Spot { row, place };
        Self::place(entries, key).map(spot).map_err(spot)
    }
    /// The value at a spot.
    pub(super) fn at(&self, spot: Spot) -> Option<&V> {
        self.rows.get(spot.row)?.get(spot.place).map(|(_, v)| v)
    }
    /// The value at a spot, to be changed.
    pub(super) fn at_mut(&mut self, spot: Spot) -> Option<&mut V> {
        self.rows.get_mut(spot.row)?.get_mut(spot.place).map(|(_, v)| v)
    }
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.at(self.find(key).ok()?)
    }
    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.at_mut(self.find(key).ok()?)
    }
    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
    /// Sets the value of a key; returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(spot) => self.at_mut(spot).map(|old| std::mem::replace(old, value)),
            Err(spot) => {
                self.add(spot, key, value);
                None
            }
        }
    }
    /// Adds an entry where [`Sorted::find`] has told that its key would be.
    pub(super) fn add(&mut self, Spot { row: index, place }: Spot, key: K, value: V) {
        self.len += 1;
        let Some(row) = self.rows.get_mut(index) else {
            return self.rows.push(vec![(key, value)]);
        };
        row.insert(place.min(row.len()), (key, value));
        let most = if self.bounds.is_empty() { FLAT } else { ROW };
        if row.len() > most {
            self.split(index);
        }
    }
    /// Makes two rows of one, as even as they can be: entries of one rank stay together.
    fn split(&mut self, index: usize) {
        let Some(row) = self.rows.get_mut(index) else { return };
        let rank = |place: usize| row.get(place).map(|(k, _)| k.rank());
        let half = row.len() / 2;
        let mut cuts = (half..row.len()).chain((1..half).rev());
        let Some(cut) = cuts.find(|cut| rank(cut - 1) < rank(*cut)) else { return };
        if let Some(bound) = rank(cut) {
            let rest = row.split_off(cut);
            self.rows.insert(index + 1, rest);
            self.bounds.insert(index, bound);
        }
    }
    /// Takes a key's value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let spot = self.find(key).ok()?;
        self.take(spot)
    }
    /// Takes the entry at a spot out.
    pub(super) fn take(&mut self, Spot { row: index, place }: Spot) -> Option<V> {
        let row = self.rows.get_mut(index).filter(|row| place < row.len())?;
        let (_, old) = row.remove(place);
        self.len -= 1;
        self.tidy(index);
        Some(old)
    }
    /// Takes the first entry out whose key has this rank.
    pub(super) fn take_first(&mut self, rank: u64) -> Option<(K, V)> {
        let index = self.row_of(rank);
        let row = self.rows.get_mut(index)?;
        let place = Self::begin(row, rank);
        row.get(place).filter(|(k, _)| k.rank() == rank)?;
        let first = row.remove(place);
        self.len -= 1;
        self.tidy(index);
        Some(first)
    }
    /// Takes a row out that is empty, if it is not the only one.
    fn tidy(&mut self, index: usize) {
        if self.rows.len() > 1 && self.rows.get(index).is_some_and(Vec::is_empty) {
            self.rows.remove(index);
            // What would lie in it now belongs to the row before it; or to the next one, where it was the first.
            self.bounds.remove(index.saturating_sub(1));
        }
    }
    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let (first, rows) = match self.rows.split_first() {
            Some((first, rest)) => (first.as_slice(), rest),
            None => (&[][..], &[][..]),
        };
        Iter { entries: first.iter(), rows: rows.iter() }
    }
    /// The entries from a key on, in the order of their keys.
    pub fn from(&self, key: &K) -> Iter<'_, K, V> {
        let index = self.row_of(key.rank());
        let Some(row) = self.rows.get(index) else { return self.iter() };
        let (Ok(place) | Err(place)) = Self::place(row, key);
        let entries = row.get(place..).unwrap_or_default().iter();
        Iter { entries, rows: self.rows.get(index + 1..).unwrap_or_default().iter() }
    }
    /// The entries whose keys have this rank, in the order of their keys.
    pub fn alike(&self, rank: u64) -> impl Iterator<Item = (&K, &V)> {
        self.alike_from(rank).1
    }
    /// The same, and where they begin, or would begin.
    pub(super) fn alike_from(&self, rank: u64) -> (Spot, impl Iterator<Item = (&K, &V)>) {
        let row = self.row_of(rank);
        let entries = self.rows.get(row).map(Vec::as_slice).unwrap_or_default();
        let place = Self::begin(entries, rank);
        let rest = entries.get(place..).unwrap_or_default().iter().map(|(k, v)| (k, v));
        (Spot { row, place }, rest.take_while(move |(k, _)| k.rank() == rank))
    }
    /// The entries whose keys have this rank, in the order of their keys, to be changed.
    pub fn alike_mut(&mut self, rank: u64) -> impl Iterator<Item = (&K, &mut V)> {
        let row = self.row_of(rank);
        let row = self.rows.get_mut(row).map(Vec::as_mut_slice).unwrap_or_default();
        let from = Self::begin(row, rank);
        let rest = row.get_mut(from..).unwrap_or_default();
        rest.iter_mut().map(|(k, v)| (&*k, v)).take_while(move |(k, _)| k.rank() == rank)
    }
    /// Makes one entry of all whose keys have the rank of this one: the key's own, or else the first of them, under this
    /// key. Tells of the others, which go, and where the one is; `None` where there was none.
    pub(super) fn unite(&mut self, key: K, mut gone: impl FnMut(&V)) -> Option<Spot> {
        let rank = key.rank();
        let row = self.row_of(rank);
        let entries = self.rows.get_mut(row)?;
        let place = Self::begin(entries, rank);
        let alike = entries.get_mut(place..)?;
        let count = alike.iter().take_while(|(k, _)| k.rank() == rank).count();
        let alike = alike.get_mut(..count)?;
        if count > 1 {
            let own = alike.iter().position(|(k, _)| *k == key).unwrap_or_default();
            alike.swap(0, own);
        }
        let ((kept, _), others) = alike.split_first_mut()?;
        *kept = key;
        if count > 1 {
            others.iter().for_each(|(_, v)| gone(v));
            entries.drain(place + 1..place + count);
            self.len -= count - 1;
        }
        Some(Spot { row, place })
    }
    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(k, _)| k)
    }
    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }
    /// All values, to be changed, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.iter_mut().flatten().map(|(_, v)| v)
    }
    /// Renames keys. The new ones must be as many and different; the entries are put in their order.
    pub(super) fn rename(&mut self, name: impl Fn(K) -> K) {
        let old = std::mem::take(self);
        let entries = old.rows.into_iter().flatten();
        self.extend(entries.map(|(k, v)| (name(k), v)));
    }
}

/// Where an entry is, or would be; until the map changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    row: usize,
    place: usize,
}

impl Spot {
    /// That of the next entry of the row.
    pub(super) const fn next(self) -> Spot {
        Spot { place: self.place + 1, ..self }
    }
}

/// The entries of a map in order.
pub struct Iter<'a, K, V> {
    entries: std::slice::Iter<'a, (K, V)>,
    rows: std::slice::Iter<'a, Vec<(K, V)>>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((k, v)) = self.entries.next() {
                return Some((k, v));
            }
            self.entries = self.rows.next()?.iter();
        }
    }
}
impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Iter { entries: self.entries.clone(), rows: self.rows.clone() }
    }
}
impl<'a, K: Ranked, V> IntoIterator for &'a Sorted<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}
impl<K: Ranked, V> Extend<(K, V)> for Sorted<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}
impl<K: Ranked, V> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut map = Sorted::default();
        map.extend(entries);
        map
    }
}

// Two maps are what their entries are, however these lie in rows.
impl<K: Ranked, V: PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        match (self.rows.as_slice(), other.rows.as_slice()) {
            ([a], [b]) => a == b,
            _ => self.len == other.len && self.iter().eq(other.iter()),
        }
    }
}
impl<K: Ranked, V: Eq> Eq for Sorted<K, V> {}
impl<K: Ranked, V: Ord> PartialOrd for Sorted<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Ranked, V: Ord> Ord for Sorted<K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}
impl<K: Ranked + Hash, V: Hash> Hash for Sorted<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len);
        for entry in self {
            entry.hash(state);
        }
    }
}
impl<K: Ranked + fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}
impl<K: Ranked + Serialize, V: Serialize> Serialize for Sorted<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // With its length: not every format can do without.
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(self.len))?;
        for (key, value) in self {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
impl<'de, K: Ranked + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Sorted<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustc_hash::FxHasher;

    fn hash_of<T: Hash>(value: &T) -> u64 {
        let mut hasher = FxHasher::default();
        value.hash(&mut hasher);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn it_says_what_a_btreemap_says(
            changes in proptest::collection::vec((0u16..300, any::<Option<u8>>()), 0..600),
            asked in 0u16..300, cut in 0u16..100,
        ) {
            let (mut ours, mut theirs) = (Sorted::default(), BTreeMap::new());
            for (key, value) in changes {
                match value {
                    Some(v) => prop_assert_eq!(ours.insert(key, v), theirs.insert(key, v)),
                    None => prop_assert_eq!(ours.remove(&key), theirs.remove(&key)),
                }
                prop_assert!(is_sound(&ours));
            }
            // Whole rows go.
            for key in asked..asked + cut {
                prop_assert_eq!(ours.remove(&key), theirs.remove(&key));
            }
            prop_assert!(is_sound(&ours));
            prop_assert!(ours.iter().eq(theirs.iter()));
            prop_assert_eq!((ours.len(), ours.is_empty()), (theirs.len(), theirs.is_empty()));
            prop_assert!(ours.from(&asked).eq(theirs.range(asked..)));
            prop_assert_eq!(ours.get(&asked), theirs.get(&asked));
            prop_assert_eq!(ours.get_mut(&asked), theirs.get_mut(&asked));
            let (mut a, mut b) = (ours.clone(), theirs.clone());
            for v in a.values_mut() { *v = v.wrapping_add(1); }
            for v in b.values_mut() { *v = v.wrapping_add(1); }
            prop_assert!(a.iter().eq(b.iter()));
            prop_assert_eq!(format!("{:?}", &ours), format!("{:?}", &theirs));
            let bytes = postcard::to_stdvec(&ours).unwrap();
            prop_assert_eq!(&bytes, &postcard::to_stdvec(&theirs).unwrap());
            prop_assert_eq!(&postcard::from_bytes::<Sorted<u16, u8>>(&bytes).unwrap(), &ours);
            // In other rows, the same.
            let fresh: Sorted<u16, u8> = theirs.iter().rev().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(&fresh, &ours);
            prop_assert_eq!(hash_of(&fresh), hash_of(&ours));
            prop_assert_eq!(fresh.cmp(&a), theirs.cmp(&b));
            for mut into in [a, fresh, Sorted::default()] {
                into.clone_from(&ours);
                prop_assert_eq!(&into, &ours);
                prop_assert!(is_sound(&into));
            }
            ours.rename(|k| 1000 - k);
            prop_assert!(ours.iter().rev_eq(&theirs));
        }
    }

    /// Whether the rows are as they should be: not too long, none empty but an only one, in order, and no rank in two of them.
    fn is_sound<K: Ranked, V>(map: &Sorted<K, V>) -> bool {
        // A row is cut between ranks, so that one may be longer by as many entries as share one.
        let most = if map.rows.len() < 2 { FLAT } else { ROW + 1 };
        let lengths = map.rows.iter().all(|row| {
            let share = row.chunk_by(|(a, _), (b, _)| a.rank() == b.rank()).map(<[_]>::len).max();
            row.len() < most + share.unwrap_or(1)
        });
        let full = map.rows.len() < 2 || map.rows.iter().all(|r| !r.is_empty());
        let between = map.rows.iter().enumerate().all(|(i, row)| {
            row.iter().all(|(k, _)| {
                (i == 0 || map.bounds[i - 1] <= k.rank())
                    && map.bounds.get(i).is_none_or(|to| k.rank() < *to)
            })
        });
        let bounded = map.bounds.len() == map.rows.len().saturating_sub(1);
        lengths && full && between && bounded && map.bounds.is_sorted()
    }

    /// A key of which several have one rank.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Pair(u8, u8);
    impl Ranked for Pair {
        fn rank(&self) -> u64 {
            u64::from(self.0)
        }
    }

    /// A change to a map of pairs, and to a `BTreeMap` that is to say the same.
    #[derive(Clone, Debug)]
    enum Change {
        Insert(Pair, u16),
        Remove(Pair),
        Add(Pair),
        TakeFirst(u8),
        Unite(Pair),
        Double(u8),
    }
    fn any_change() -> impl Strategy<Value = Change> {
        let pair = || (0u8..20, 0u8..20).prop_map(|(a, b)| Pair(a, b));
        prop_oneof![
            8 => (pair(), any::<u16>()).prop_map(|(key, value)| Change::Insert(key, value)),
            2 => pair().prop_map(Change::Remove),
            2 => pair().prop_map(Change::Add),
            2 => (0u8..20).prop_map(Change::TakeFirst),
            1 => pair().prop_map(Change::Unite),
            1 => (0u8..20).prop_map(Change::Double),
        ]
    }

    proptest! {
        #[test]
        fn entries_of_one_rank_are_changed_as_a_btreemap_would_change_them(
            changes in proptest::collection::vec(any_change(), 0..400),
        ) {
            let mut ours: Sorted<Pair, u16> = Sorted::default();
            let mut theirs: BTreeMap<Pair, u16> = BTreeMap::new();
            for change in changes {
                let of = |rank: u8| Pair(rank, 0)..=Pair(rank, u8::MAX);
                match change {
                    Change::Insert(key, value) => {
                        prop_assert_eq!(ours.insert(key, value), theirs.insert(key, value));
                    }
                    Change::Remove(key) => prop_assert_eq!(ours.remove(&key), theirs.remove(&key)),
                    Change::Add(key) => {
                        // Where the entries of its rank say that it would be.
                        let (mut spot, alike) = ours.alike_from(key.rank());
                        let alike: Vec<_> = alike.map(|(k, v)| (*k, *v)).collect();
                        let want: Vec<_> = theirs.range(of(key.0)).map(|(k, v)| (*k, *v)).collect();
                        prop_assert_eq!(&alike, &want);
                        for _ in alike.iter().filter(|(k, _)| *k < key) {
                            spot = spot.next();
                        }
                        match ours.find(&key) {
                            Ok(found) => prop_assert_eq!((found, ours.at(found)), (spot, theirs.get(&key))),
                            Err(free) => {
                                prop_assert_eq!(free, spot);
                                ours.add(spot, key, 7);
                                theirs.insert(key, 7);
                            }
                        }
                    }
                    Change::TakeFirst(rank) => {
                        let first = theirs.range(of(rank)).next().map(|(k, v)| (*k, *v));
                        prop_assert_eq!(ours.take_first(u64::from(rank)), first);
                        first.map(|(k, _)| theirs.remove(&k));
                    }
                    Change::Unite(key) => {
                        let mut gone = vec![];
                        let spot = ours.unite(key, |v| gone.push(*v));
                        let old: Vec<_> = theirs.range(of(key.0)).map(|(k, v)| (*k, *v)).collect();
                        let own = old.iter().position(|(k, _)| *k == key).unwrap_or(0);
                        let kept = old.get(own).map(|(_, v)| *v);
                        prop_assert_eq!(spot.and_then(|spot| ours.at(spot).copied()), kept);
                        theirs.retain(|k, _| k.0 != key.0);
                        kept.map(|v| theirs.insert(key, v));
                        let others = old.iter().enumerate().filter(|(i, _)| *i != own);
                        let mut others: Vec<u16> = others.map(|(_, (_, v))| *v).collect();
                        others.sort_unstable();
                        gone.sort_unstable();
                        prop_assert_eq!(gone, others);
                    }
                    Change::Double(rank) => {
                        ours.alike_mut(u64::from(rank)).for_each(|(_, v)| *v = v.wrapping_mul(2));
                        theirs.range_mut(of(rank)).for_each(|(_, v)| *v = v.wrapping_mul(2));
                    }
                }
                prop_assert!(is_sound(&ours), "{:?}", ours.bounds);
                prop_assert!(ours.iter().eq(theirs.iter()));
                prop_assert_eq!(ours.len(), theirs.len());
            }
        }
    }

    /// Whether renaming `k` to `1000 - k` turned the order round.
    trait RevEq {
        fn rev_eq(self, other: &BTreeMap<u16, u8>) -> bool;
    }
    impl RevEq for Iter<'_, u16, u8> {
        fn rev_eq(self, other: &BTreeMap<u16, u8>) -> bool {
            self.map(|(k, v)| (1000 - k, *v)).eq(other.iter().rev().map(|(k, v)| (*k, *v)))
        }
    }
}
