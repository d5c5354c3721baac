//! When banks become ready: a wheel of edges, each with a mask of banks.
//!
//! The constraints of a bank run out within some two hundred clocks, so a wheel of [`SPAN`] edges holds nearly all; what lies
//! further off (a refresh, an experiment with long times) is put as far as the wheel goes, and put again when that edge comes.

use super::device::Bank;
use serde::{Deserialize, Serialize};

/// Edges that the wheel spans. No more than needed: it is gone through again and again, and should stay in the host's cache.
const SPAN: u64 = 256;
/// Words of the mask of occupied edges.
const WORDS: usize = (SPAN / 64) as usize;

/// Banks by the edge at which they are to be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Wheel {
    /// By edge modulo [`SPAN`]: of the first two ranks, and of the others.
    #[serde(with = "super::arrays")]
    banks: [u64; SPAN as usize],
    #[serde(with = "super::arrays")]
    more: [u64; SPAN as usize],
    /// Whether there is anything in `more`, or was.
    many: bool,
    /// Edges with a bank.
    occupied: [u64; WORDS],
    /// The earliest edge with a bank; never if there is none.
    next: u64,
}

impl Wheel {
    pub(super) const fn new() -> Wheel {
        Wheel {
            banks: [0; SPAN as usize],
            more: [0; SPAN as usize],
            many: false,
            occupied: [0; WORDS],
            next: u64::MAX,
        }
    }

    /// The earliest edge with a bank; never if there is none.
    #[inline]
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Puts a bank at an edge later than `now`, which is no earlier than any edge taken so far.
    #[inline]
    pub(super) fn put(&mut self, bank: Bank, edge: u64, now: u64) {
        // What is in the wheel is later than what was taken, so within a span of `next` if there is any.
        let edge = edge.min(now.min(self.next) + (SPAN - 1));
        let slot = (edge % SPAN) as usize;
        if bank.0 < 64 {
            self.banks[slot] |= 1 << bank.0;
        } else {
            self.many = true;
            self.more[slot] |= 1 << (bank.0 & 63);
        }
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.next = self.next.min(edge);
    }

    /// Takes all banks out.
    #[inline]
    pub(super) fn clear(&mut self) {
        while self.next != u64::MAX {
            self.take();
        }
    }

    /// Takes all banks of the earliest edge out: a mask per two ranks. To be called when that edge has come.
    #[inline]
    pub(super) fn take(&mut self) -> [u64; 2] {
        let slot = (self.next % SPAN) as usize;
        let mut banks = [std::mem::take(&mut self.banks[slot]), 0];
        if self.many {
            banks[1] = std::mem::take(&mut self.more[slot]);
        }
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        // The rest of this word, then the others, then what this word has before the slot.
        let word = self.occupied[slot / 64] >> (slot % 64);
        if word != 0 {
            self.next += u64::from(word.trailing_zeros());
            return banks;
        }
        for step in 1..=WORDS {
            let index = (slot / 64 + step) % WORDS;
            let word = self.occupied[index];
            if word != 0 {
                let found = (index * 64) as u64 + u64::from(word.trailing_zeros());
                self.next += (found + SPAN - slot as u64) % SPAN;
                return banks;
            }
        }
        self.next = u64::MAX;
        banks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a sorted set; what lies too far off comes out early, at least half a span after it was put.
        #[test]
        fn banks_come_out_in_the_order_of_their_edges(
            ranks in 1u8..=4, puts in prop::collection::vec((0u8..128, 1u64..300, 0u64..200), 1..200),
        ) {
            let (mut wheel, mut set, mut now) = (Wheel::new(), BTreeSet::new(), 0);
            for (bank, ahead, step) in puts {
                let bank = Bank(bank % (ranks * 32));
                let base = now.min(wheel.next());
                let edge = (now + ahead).min(base + SPAN - 1);
                wheel.put(bank, now + ahead, now);
                prop_assert!(edge > now);
                set.insert((edge, bank.0));
                now += step;
                prop_assert_eq!(wheel.next(), set.first().map_or(u64::MAX, |f| f.0));
                while let Some(edge) = set.first().map(|f| f.0).filter(|&edge| edge <= now) {
                    prop_assert_eq!(wheel.next(), edge);
                    let mut want = [0; 2];
                    while let Some(&(_, bank)) = set.first().filter(|f| f.0 == edge) {
                        want[usize::from(bank >> 6)] |= 1u64 << (bank & 63);
                        set.pop_first();
                    }
                    prop_assert_eq!(wheel.take(), want);
                }
            }
        }
    }
}
