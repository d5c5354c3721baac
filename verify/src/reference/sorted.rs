//! An ordered map for states that are copied, compared and hashed far more often than they grow.
//!
//! A map of a few entries, as a search has, is one flat row: cloning it into another takes over that one's memory. A map
//! of many, as the replay of a long run has, is a list of short rows.

use super::Place;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sim_core::{BirthId, KeyId, Line, Tagged};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Entries in a row, at most.
const ROW: usize = 16;

/// A key of a [`Sorted`] map.
pub trait Ranked: Ord + Copy {
    /// A number that is smaller where the key is smaller; keys in order that share one follow each other. It is what a
    /// search in a row compares.
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

/// A row, in the order of its keys. Only where it is the only one it may be empty, and then its memory waits for the next
/// entry.
struct Row<K, V> {
    first: K,
    entries: Vec<(K, V)>,
}

/// An ordered map. It says what a `BTreeMap` would say.
pub struct Sorted<K, V> {
    rows: Vec<Row<K, V>>,
    len: usize,
}

impl<K: Clone, V: Clone> Clone for Row<K, V> {
    fn clone(&self) -> Self {
        Row { first: self.first.clone(), entries: self.entries.clone() }
    }
    fn clone_from(&mut self, source: &Self) {
        self.first.clone_from(&source.first);
        self.entries.clone_from(&source.entries);
    }
}
impl<K: Clone, V: Clone> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Sorted { rows: self.rows.clone(), len: self.len }
    }
    fn clone_from(&mut self, source: &Self) {
        self.len = source.len;
        match (self.rows.as_mut_slice(), source.rows.as_slice()) {
            ([own], [theirs]) => own.clone_from(theirs),
            ([own], []) => own.entries.clear(),
            _ => self.rows.clone_from(&source.rows),
        }
    }
}
impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { rows: vec![], len: 0 }
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
    /// The row in which the key is or would be. 0 for the empty map, which has none.
    fn row_of(&self, key: &K) -> usize {
        if self.rows.len() < 2 {
            return 0;
        }
        let rank = key.rank();
        let behind = self.rows.partition_point(|r| r.first.rank() < rank);
        // Rows that begin with the same rank, of which the last that is not behind the key has it.
        let same = self.rows.get(behind..).unwrap_or_default();
        (behind + same.iter().take_while(|r| r.first <= *key).count()).saturating_sub(1)
    }
    /// The place in its row at which the key is, or would be.
    fn place(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
        let rank = key.rank();
        let mut place = if entries.len() > 8 {
            entries.partition_point(|(k, _)| k.rank() < rank)
        } else {
            entries.iter().position(|(k, _)| k.rank() >= rank).unwrap_or(entries.len())
        };
        while let Some((k, _)) = entries.get(place) {
            match k.cmp(key) {
                Ordering::Less => place += 1,
                Ordering::Equal => return Ok(place),
                Ordering::Greater => break,
            }
        }
        Err(place)
    }
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let row = self.rows.get(self.row_of(key))?;
        let place = Self::place(&row.entries, key).ok()?;
        row.entries.get(place).map(|(_, v)| v)
    }
    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.row_of(key);
        let row = self.rows.get_mut(row)?;
        let place = Self::place(&row.entries, key).ok()?;
        row.entries.get_mut(place).map(|(_, v)| v)
    }
    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
    /// Sets the value of a key; returns the old one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.row_of(&key);
        let Some(row) = self.rows.get_mut(index) else {
            self.rows.push(Row { first: key, entries: vec![(key, value)] });
            self.len = 1;
            return None;
        };
        match Self::place(&row.entries, &key) {
            Ok(place) => row.entries.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                if place == 0 {
                    row.first = key;
                }
                row.entries.insert(place, (key, value));
                self.len += 1;
                if row.entries.len() > ROW {
                    let half = row.entries.split_off(ROW / 2);
                    if let Some((first, _)) = half.first() {
                        self.rows.insert(index + 1, Row { first: *first, entries: half });
                    }
                }
                None
            }
        }
    }
    /// Takes a key's value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.row_of(key);
        let row = self.rows.get_mut(index)?;
        let place = Self::place(&row.entries, key).ok()?;
        let (_, old) = row.entries.remove(place);
        self.removed(index);
        Some(old)
    }
    /// An entry of a row has been taken out.
    fn removed(&mut self, index: usize) {
        self.len -= 1;
        let rows = self.rows.len();
        let Some(row) = self.rows.get_mut(index) else { return };
        match row.entries.first() {
            Some((first, _)) => row.first = *first,
            None if rows > 1 => {
                self.rows.remove(index);
            }
            None => {}
        }
    }
    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let (first, rows) = match self.rows.split_first() {
            Some((first, rest)) => (first.entries.as_slice(), rest),
            None => (&[][..], &[][..]),
        };
        Iter { entries: first.iter(), rows: rows.iter() }
    }
    /// The entries from a key on, in the order of their keys.
    pub fn from(&self, key: &K) -> Iter<'_, K, V> {
        let index = self.row_of(key);
        let Some(row) = self.rows.get(index) else { return self.iter() };
        let (Ok(place) | Err(place)) = Self::place(&row.entries, key);
        let entries = row.entries.get(place..).unwrap_or_default().iter();
        Iter { entries, rows: self.rows.get(index + 1..).unwrap_or_default().iter() }
    }
    /// The entries from a key on, to be changed, in the order of their keys.
    pub fn from_mut(&mut self, key: K) -> impl Iterator<Item = (&K, &mut V)> {
        let index = self.row_of(&key);
        let rows = self.rows.get_mut(index..).unwrap_or_default();
        let entries = rows.iter_mut().flat_map(|r| &mut r.entries);
        entries.map(|(k, v)| (&*k, v)).skip_while(move |(k, _)| **k < key)
    }
    /// Goes through the entries from a key on, in order, changes them and takes some out, until told to end.
    pub(super) fn sift(&mut self, key: &K, mut what: impl FnMut(&K, &mut V) -> Sift) {
        let mut index = self.row_of(key);
        let Some(row) = self.rows.get(index) else { return };
        let (Ok(mut place) | Err(mut place)) = Self::place(&row.entries, key);
        while let Some(row) = self.rows.get_mut(index) {
            let Some((k, v)) = row.entries.get_mut(place) else {
                (index, place) = (index + 1, 0);
                continue;
            };
            match what(k, v) {
                Sift::Keep => place += 1,
                Sift::End => return,
                Sift::Take => {
                    row.entries.remove(place);
                    self.removed(index);
                }
            }
        }
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
        self.rows.iter_mut().flat_map(|r| &mut r.entries).map(|(_, v)| v)
    }
    /// Renames keys. The new ones must be as many and different; the entries are put in their order.
    pub(super) fn rename(&mut self, name: impl Fn(K) -> K) {
        let old = std::mem::take(self);
        let entries = old.rows.into_iter().flat_map(|r| r.entries);
        self.extend(entries.map(|(k, v)| (name(k), v)));
    }
}

/// What is to become of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sift {
    /// It stays; on to the next.
    Keep,
    /// It goes; on to the next.
    Take,
    /// It stays, as do all that follow.
    End,
}

/// The entries of a map in order.
pub struct Iter<'a, K, V> {
    entries: std::slice::Iter<'a, (K, V)>,
    rows: std::slice::Iter<'a, Row<K, V>>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((k, v)) = self.entries.next() {
                return Some((k, v));
            }
            self.entries = self.rows.next()?.entries.iter();
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
            ([a], [b]) => a.entries == b.entries,
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
                let sound = ours.rows.iter().all(|r| {
                    r.entries.len() <= ROW
                        && r.entries.first().map_or(ours.rows.len() == 1, |(k, _)| *k == r.first)
                });
                prop_assert!(sound, "rows");
            }
            // Whole rows go.
            for key in asked..asked + cut {
                prop_assert_eq!(ours.remove(&key), theirs.remove(&key));
            }
            prop_assert!(ours.rows.len() < 2 || ours.rows.iter().all(|r| !r.entries.is_empty()));
            prop_assert!(ours.iter().eq(theirs.iter()));
            prop_assert_eq!((ours.len(), ours.is_empty()), (theirs.len(), theirs.is_empty()));
            prop_assert!(ours.from(&asked).eq(theirs.range(asked..)));
            prop_assert_eq!(ours.get(&asked), theirs.get(&asked));
            prop_assert_eq!(ours.get_mut(&asked), theirs.get_mut(&asked));
            let (mut a, mut b) = (ours.clone(), theirs.clone());
            for (_, v) in a.from_mut(asked) { *v = v.wrapping_add(1); }
            for (_, v) in b.range_mut(asked..) { *v = v.wrapping_add(1); }
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
            let mut sifted = ours.clone();
            sifted.sift(&asked, |k, v| {
                if *k > 250 {
                    return Sift::End;
                }
                *v = v.wrapping_mul(3);
                if *v % 2 == 0 { Sift::Take } else { Sift::Keep }
            });
            let left = theirs.iter().filter(|(k, v)| **k < asked || **k > 250 || **v % 2 != 0);
            let change = |k: u16, v: u8| {
                if k < asked || k > 250 { v } else { v.wrapping_mul(3) }
            };
            prop_assert!(sifted.iter().map(|(k, v)| (*k, *v)).eq(left.map(|(k, v)| (*k, change(*k, *v)))));
            prop_assert_eq!(sifted.len(), sifted.iter().count());
            let mut into = a;
            into.clone_from(&ours);
            prop_assert_eq!(&into, &ours);
            ours.rename(|k| 1000 - k);
            prop_assert!(ours.iter().rev_eq(&theirs));
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
