//! What waits in a core: write-combining buffers and weakly ordered operations.

use serde::{Deserialize, Serialize};
use sim_core::event::WeakKind;
use sim_core::{ByteMask, EventId, LineData, Ps, Tagged};
use std::collections::VecDeque;

/// A write-combining buffer: bytes of non-temporal and WC stores to one (line, KeyID) (architecture.md §5 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WcBuffer {
    /// Which line.
    pub at: Tagged,
    /// The bytes collected.
    pub data: LineData,
    /// Which they are.
    pub mask: ByteMask,
    /// When the first byte came.
    pub opened: Ps,
    /// Place in the core's order of buffers and weak operations.
    pub(crate) order: u64,
    /// The operation that stored last.
    pub(crate) cause: EventId,
}

/// A weakly ordered operation on its way (architecture.md §3 3.5, §4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WeakOp {
    /// Which line.
    pub at: Tagged,
    /// Which operation.
    pub kind: WeakKind,
    /// What a direct store writes.
    pub data: LineData,
    /// Which bytes a direct store writes.
    pub mask: ByteMask,
    /// When it becomes visible at the latest.
    pub due: Ps,
    /// Place in the core's order of buffers and weak operations.
    pub(crate) order: u64,
    /// The operation.
    pub(crate) cause: EventId,
}

/// Everything that waits in one core, each list oldest first. The lists never grow beyond what the platform has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) wc: VecDeque<WcBuffer>,
    pub(crate) weak: VecDeque<WeakOp>,
    next_order: u64,
}

/// One of a core's waiting entries, by its place in its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Wc(usize),
    Weak(usize),
}

impl Waiting {
    pub(crate) fn new(wc_buffers: usize, weak_slots: usize) -> Waiting {
        Waiting {
            wc: VecDeque::with_capacity(wc_buffers),
            weak: VecDeque::with_capacity(weak_slots),
            next_order: 0,
        }
    }
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wc.is_empty() && self.weak.is_empty()
    }
    pub(crate) const fn take_order(&mut self) -> u64 {
        self.next_order = self.next_order.saturating_add(1);
        self.next_order
    }
    /// The older of two candidates; one that is not there does not count.
    fn older(&self, wc: Option<usize>, weak: Option<usize>) -> Option<Entry> {
        let wc = wc.and_then(|i| Some((self.wc.get(i)?.order, Entry::Wc(i))));
        let weak = weak.and_then(|i| Some((self.weak.get(i)?.order, Entry::Weak(i))));
        wc.into_iter().chain(weak).min_by_key(|(order, _)| *order).map(|(_, entry)| entry)
    }
    /// The oldest entry.
    pub(crate) fn oldest(&self) -> Option<Entry> {
        self.older(Some(0), Some(0))
    }
    /// The oldest entry for this (line, KeyID).
    pub(crate) fn oldest_at(&self, at: Tagged) -> Option<Entry> {
        let wc = self.wc.iter().position(|b| b.at == at);
        let weak = self.weak.iter().position(|w| w.at == at);
        self.older(wc, weak)
    }
    /// When the next entry leaves by time alone; write-combining buffers only if they age.
    pub(crate) fn next_due(&self, wc_age: Ps) -> Option<Ps> {
        // Weak operations wait equally long and buffers age equally fast, so the first of each list is its earliest.
        let weak = self.weak.front().map(|w| w.due);
        let wc = self.wc.front().filter(|_| wc_age != Ps::ZERO).map(|b| b.opened + wc_age);
        weak.into_iter().chain(wc).min()
    }
    /// The entry that leaves by time first, if it is due at `now`.
    pub(crate) fn first_due(&self, wc_age: Ps, now: Ps) -> Option<Entry> {
        let weak = self.weak.front().map(|w| (w.due, w.order, Entry::Weak(0)));
        let wc = self.wc.front().filter(|_| wc_age != Ps::ZERO);
        let wc = wc.map(|b| (b.opened + wc_age, b.order, Entry::Wc(0)));
        let first = weak.into_iter().chain(wc).min_by_key(|(due, order, _)| (*due, *order))?;
        (first.0 <= now).then_some(first.2)
    }
}
