//! A core's TLB: translations of guests that a walk has found, until something flushes them (architecture.md §7.8).
//!
//! A stale translation really reaches memory: nothing here asks whether a Secure-EPT still says so.

use serde::{Deserialize, Serialize};
use sim_core::{KeyId, Page};
use std::collections::{BTreeMap, VecDeque};

/// Where a guest's page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Translation {
    /// Host page.
    pub page: Page,
    /// Under which KeyID.
    pub keyid: KeyId,
    /// Whether it may be written.
    pub write: bool,
    /// Whether it may be executed.
    pub execute: bool,
    /// Whether it was reached through a shared address.
    pub shared: bool,
}

/// The translations of a core by TD and guest-linear page, at 4 KiB whatever the size of the mapping.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tlb {
    entries: BTreeMap<(Page, u64), Translation>,
    /// In the order in which they came: the oldest leaves when there is no room.
    order: VecDeque<(Page, u64)>,
}

impl Tlb {
    /// The translation of a page of a TD.
    pub fn find(&self, td: Page, linear: u64) -> Option<Translation> {
        self.entries.get(&(td, linear)).copied()
    }
    /// Every translation, with its TD and guest-linear page.
    pub fn iter(&self) -> impl Iterator<Item = (Page, u64, Translation)> {
        self.entries.iter().map(|((td, linear), t)| (*td, *linear, *t))
    }
    pub(crate) fn insert(&mut self, td: Page, linear: u64, found: Translation, capacity: u32) {
        if self.entries.insert((td, linear), found).is_some() {
            return;
        }
        self.order.push_back((td, linear));
        while self.order.len() > capacity as usize {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
    /// INVEPT: of one TD, or all. Guest-linear translations go with them.
    pub(crate) fn flush(&mut self, td: Option<Page>) {
        let kept = |at: Page| td.is_some_and(|td| td != at);
        self.entries.retain(|(at, _), _| kept(*at));
        self.order.retain(|(at, _)| kept(*at));
    }
    /// INVLPG.
    pub(crate) fn flush_page(&mut self, td: Page, linear: u64) {
        self.entries.remove(&(td, linear));
        self.order.retain(|at| *at != (td, linear));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(page: u64) -> Translation {
        let (page, keyid) = (Page(page), KeyId(65));
        Translation { page, keyid, write: true, execute: true, shared: false }
    }

    #[test]
    fn a_flush_of_one_td_leaves_the_others() {
        let mut tlb = Tlb::default();
        tlb.insert(Page(1), 5, to(10), 8);
        tlb.insert(Page(2), 5, to(20), 8);
        tlb.flush(Some(Page(1)));
        assert_eq!(tlb.find(Page(1), 5), None);
        assert_eq!(tlb.find(Page(2), 5), Some(to(20)));
        tlb.flush(None);
        assert_eq!(tlb.iter().count(), 0);
    }

    #[test]
    fn the_oldest_translation_leaves_when_there_is_no_room() {
        let mut tlb = Tlb::default();
        for linear in 0..3 {
            tlb.insert(Page(1), linear, to(linear), 2);
        }
        assert_eq!(tlb.find(Page(1), 0), None);
        assert_eq!(tlb.find(Page(1), 2), Some(to(2)));
        tlb.flush_page(Page(1), 2);
        assert_eq!(tlb.find(Page(1), 2), None);
        assert_eq!(tlb.find(Page(1), 1), Some(to(1)));
    }
}
