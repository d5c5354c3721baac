//! A queue in a ring whose size is a power of two. It grows when it must, and not in the steady state.

use serde::{Deserialize, Serialize};

/// A first-in, first-out queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ring<T> {
    /// A power of two of elements.
    slots: Vec<T>,
    /// Position of the oldest; counts on without end.
    head: usize,
    /// Position behind the youngest.
    tail: usize,
}

impl<T: Copy + Default> Ring<T> {
    /// With room for so many at least.
    pub(super) fn new(room: usize) -> Ring<T> {
        Ring { slots: vec![T::default(); room.next_power_of_two().max(1)], head: 0, tail: 0 }
    }
    pub(super) const fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }
    pub(super) const fn is_empty(&self) -> bool {
        self.tail == self.head
    }
    fn slot(&mut self, position: usize) -> Option<&mut T> {
        let mask = self.slots.len() - 1;
        self.slots.get_mut(position & mask)
    }
    /// The oldest.
    pub(super) fn front(&self) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        self.slots.get(self.head & (self.slots.len() - 1))
    }
    pub(super) fn pop(&mut self) -> Option<T> {
        let front = *self.front()?;
        self.head = self.head.wrapping_add(1);
        if self.is_empty() {
            // Stay where the host's cache is warm.
            (self.head, self.tail) = (0, 0);
        }
        Some(front)
    }
    pub(super) fn push(&mut self, value: T) {
        if self.len() == self.slots.len() {
            self.grow();
        }
        self.set(self.tail, value);
        self.tail = self.tail.wrapping_add(1);
    }
    /// Pushes, and moves the new one forward past all that must come after it.
    pub(super) fn push_sorted(&mut self, value: T, after: impl Fn(&T, &T) -> bool) {
        if self.len() == self.slots.len() {
            self.grow();
        }
        let mut at = self.tail;
        self.tail = at.wrapping_add(1);
        while at != self.head {
            let before = at.wrapping_sub(1);
            match self.slot(before) {
                Some(earlier) if after(earlier, &value) => {
                    let earlier = *earlier;
                    self.set(at, earlier);
                }
                _ => break,
            }
            at = before;
        }
        self.set(at, value);
    }
    fn set(&mut self, position: usize, value: T) {
        if let Some(slot) = self.slot(position) {
            *slot = value;
        }
    }
    #[cold]
    fn grow(&mut self) {
        let old: Vec<T> = self.iter().copied().collect();
        let mut slots = vec![T::default(); 2 * self.slots.len()];
        for (to, from) in slots.iter_mut().zip(&old) {
            *to = *from;
        }
        (self.slots, self.head, self.tail) = (slots, 0, old.len());
    }
    /// From the oldest.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let mask = self.slots.len() - 1;
        (0..self.len()).filter_map(move |n| self.slots.get(self.head.wrapping_add(n) & mask))
    }
}

impl<T: Copy + Default + PartialEq> PartialEq for Ring<T> {
    /// What is in it, not where.
    fn eq(&self, other: &Ring<T>) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}
impl<T: Copy + Default + Eq> Eq for Ring<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn a_ring_does_what_a_deque_does(steps in prop::collection::vec((any::<bool>(), 0u32..50), 1..300)) {
            let (mut ring, mut deque) = (Ring::new(4), VecDeque::new());
            for (push, value) in steps {
                if push {
                    ring.push_sorted(value, |before, new| *before > 2 * new);
                    deque.push_back(value);
                    let mut at = deque.len() - 1;
                    while at > 0 && deque[at - 1] > 2 * value {
                        deque.swap(at, at - 1);
                        at -= 1;
                    }
                } else {
                    prop_assert_eq!(ring.pop(), deque.pop_front());
                }
                prop_assert!(ring.iter().eq(deque.iter()) && ring.len() == deque.len());
                prop_assert_eq!(ring.front(), deque.front());
            }
        }
    }
}
