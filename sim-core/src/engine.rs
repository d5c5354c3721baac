//! The event engine: a queue of wake-ups ordered by time, then by order of scheduling.
//!
//! One wake-up per component, re-armed when the component's next interesting moment changes (peers.md §4 lessons 1 and
//! 6): nothing is polled when nothing can change.

use crate::time::Ps;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of wake-ups. `W` names who is woken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Engine<W: Ord> {
    heap: BinaryHeap<Reverse<(Ps, u64, W)>>,
    now: Ps,
    sequence: u64,
}

impl<W: Ord + Copy> Engine<W> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        Engine { heap: BinaryHeap::new(), now: Ps::ZERO, sequence: 0 }
    }
    /// The present moment: that of the last wake-up taken.
    pub const fn now(&self) -> Ps {
        self.now
    }
    /// Wakes `who` at `at`, or now if `at` has passed: nobody schedules in the past (verification.md Q2).
    pub fn schedule(&mut self, at: Ps, who: W) {
        self.sequence += 1;
        self.heap.push(Reverse((at.max(self.now), self.sequence, who)));
    }
    /// Takes the next wake-up and moves the present to it. Equal times come in the order they were scheduled.
    pub fn pop(&mut self) -> Option<(Ps, W)> {
        let Reverse((at, _, who)) = self.heap.pop()?;
        self.now = at;
        Some((at, who))
    }
    /// When the next wake-up is due.
    pub fn next_at(&self) -> Option<Ps> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
    /// How many wake-ups are queued.
    pub fn len(&self) -> usize {
        self.heap.len()
    }
    /// Whether no wake-up is queued.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<W: Ord + Copy> Default for Engine<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Ord + Copy> PartialEq for Engine<W> {
    /// Equal when both will wake the same in the same order.
    fn eq(&self, other: &Self) -> bool {
        let sorted = |e: &Self| {
            let mut v: Vec<_> = e.heap.iter().map(|r| r.0).collect();
            v.sort_unstable();
            v
        };
        self.now == other.now && self.sequence == other.sequence && sorted(self) == sorted(other)
    }
}
impl<W: Ord + Copy> Eq for Engine<W> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wake_ups_come_in_time_order_and_ties_in_scheduling_order(
            times in proptest::collection::vec(0u64..50, 1..200),
        ) {
            let mut engine = Engine::new();
            for (i, t) in times.iter().enumerate() {
                engine.schedule(Ps(*t), i);
            }
            let mut last = (Ps::ZERO, 0);
            let mut count = 0;
            while let Some((at, who)) = engine.pop() {
                prop_assert_eq!(at, Ps(times[who]));
                prop_assert!(count == 0 || last.0 < at || (last.0 == at && last.1 < who));
                last = (at, who);
                count += 1;
            }
            prop_assert_eq!(count, times.len());
        }
    }

    #[test]
    fn nobody_schedules_in_the_past() {
        let mut engine = Engine::new();
        engine.schedule(Ps(10), 'a');
        assert_eq!(engine.pop(), Some((Ps(10), 'a')));
        engine.schedule(Ps(3), 'b');
        assert_eq!(engine.pop(), Some((Ps(10), 'b')));
    }
}
