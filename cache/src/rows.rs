//! A vector that is never empty, so that a clamped index always finds something.

use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

/// Not empty by construction and by deserialization. An index beyond the end finds the last element: callers check their
/// indices where they enter, and a damaged snapshot must not panic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>")]
pub(crate) struct Rows<T>(Vec<T>);

impl<T> TryFrom<Vec<T>> for Rows<T> {
    type Error = &'static str;
    fn try_from(rows: Vec<T>) -> Result<Self, Self::Error> {
        if rows.is_empty() { Err("a list that cannot be empty is empty") } else { Ok(Rows(rows)) }
    }
}

impl<T> Rows<T> {
    /// `first`, then `more`.
    pub(crate) fn new(first: T, more: impl Iterator<Item = T>) -> Self {
        Rows(std::iter::once(first).chain(more).collect())
    }
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }
    pub(crate) fn push(&mut self, row: T) {
        self.0.push(row);
    }
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
    #[inline]
    pub(crate) fn at(&self, index: usize) -> &T {
        if index < self.0.len() { &self.0[index] } else { self.last() }
    }
    #[inline]
    pub(crate) fn at_mut(&mut self, index: usize) -> &mut T {
        if index < self.0.len() { &mut self.0[index] } else { self.last_mut() }
    }
    /// Asks the host for a row.
    #[inline]
    pub(crate) fn expect(&self, index: usize) {
        prefetch_index(&self.0, index);
    }
    // Never empty, so there is a last.
    #[cold]
    fn last(&self) -> &T {
        &self.0[self.0.len() - 1]
    }
    #[cold]
    fn last_mut(&mut self) -> &mut T {
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_refused_when_read_back() {
        let empty = postcard::to_stdvec(&Vec::<u8>::new()).unwrap();
        assert!(postcard::from_bytes::<Rows<u8>>(&empty).is_err());
        let rows = Rows::new(7u8, std::iter::once(8));
        let bytes = postcard::to_stdvec(&rows).unwrap();
        assert_eq!(postcard::from_bytes::<Rows<u8>>(&bytes), Ok(rows));
    }

    #[test]
    fn an_index_beyond_the_end_finds_the_last_row() {
        let mut rows = Rows::new(7u8, std::iter::once(8));
        assert_eq!((*rows.at(0), *rows.at(1), *rows.at(9)), (7, 8, 8));
        *rows.at_mut(9) = 3;
        assert_eq!(*rows.at(1), 3);
    }
}
