//! A read or write queue of fixed depth: entries in age order, per bank and over all, and masks of what each bank wants
//! next (peers.md §4 lessons 3 and 5). Nothing is allocated after construction.

use super::device::BANKS_PER_RANK;
use super::device::Bank;
use serde::{Deserialize, Serialize};
use sim_core::Ps;

/// No slot.
pub(super) const NIL: u16 = u16::MAX;

/// The numbers of the bits in a mask.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let index = mask.trailing_zeros() as u8;
        (mask != 0).then(|| {
            mask &= mask - 1;
            index
        })
    })
}

/// What a bank wants next on behalf of a queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Want {
    /// RD or WR: the row is open.
    Column = 0,
    /// ACT: the bank is closed.
    Row = 1,
    /// PRE: another row is open, and no ready entry wants it.
    Close = 2,
}

/// How an entry found its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Found {
    Open,
    Closed,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) row: u64,
    /// Arrival at the controller.
    pub(super) at: Ps,
    /// Age order within the queue.
    pub(super) sequence: u64,
    /// Edge from which an overdue entry is recognised.
    pub(super) deadline: u64,
    pub(super) bank: Bank,
    pub(super) column: u16,
    /// An underfill read: the write-queue slot that waits for it. Else [`NIL`].
    pub(super) underfills: u16,
    pub(super) found: Found,
    /// A partial write whose underfill read has not returned.
    pub(super) waiting: bool,
    bank_older: u16,
    bank_younger: u16,
    older: u16,
    younger: u16,
}

impl Want {
    pub(super) const ALL: [Want; 3] = [Want::Column, Want::Row, Want::Close];
}

impl Entry {
    pub(super) const fn new(id: u64, bank: Bank, row: u64, column: u16, at: Ps) -> Entry {
        Entry {
            id,
            row,
            at,
            sequence: 0,
            deadline: 0,
            bank,
            column,
            underfills: NIL,
            found: Found::Open,
            waiting: false,
            bank_older: NIL,
            bank_younger: NIL,
            older: NIL,
            younger: NIL,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct BankList {
    oldest: u16,
    youngest: u16,
    /// The entry on whose behalf the bank's next command comes.
    pick: u16,
    /// Its place in the age order.
    age: u64,
}

/// Masks of a rank's banks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Masks {
    /// By [`Want`].
    pub(super) want: [u32; 3],
    /// Banks whose open row some entry wants, ready or not.
    pub(super) hit: u32,
    /// By [`Want`]: banks among `want` whose own constraints have run out.
    pub(super) ripe: [u32; 3],
    /// By [`Want`]: no bank among `want` that is not ripe is ready before this edge.
    pub(super) soonest: [u64; 3],
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    slots: Vec<Entry>,
    /// Slots not in use.
    free: Vec<u16>,
    banks: Vec<BankList>,
    pub(super) masks: [Masks; 4],
    /// Oldest and youngest of the ready entries.
    oldest: u16,
    youngest: u16,
    ready: u16,
    sequence: u64,
}

impl Queue {
    pub(super) fn new(depth: u16, ranks: u8) -> Queue {
        let none = Entry::new(0, Bank { rank: 0, index: 0 }, 0, 0, Ps::ZERO);
        let list = BankList { oldest: NIL, youngest: NIL, pick: NIL, age: 0 };
        Queue {
            slots: vec![none; usize::from(depth)],
            free: (0..depth).rev().collect(),
            banks: vec![list; usize::from(ranks) * BANKS_PER_RANK],
            masks: [Masks::default(); 4],
            oldest: NIL,
            youngest: NIL,
            ready: 0,
            sequence: 0,
        }
    }
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }
    /// Entries that may be served: all but partial writes that wait for their underfill read.
    pub(super) fn ready(&self) -> u16 {
        self.ready
    }
    pub(super) fn entry(&self, slot: u16) -> &Entry {
        &self.slots[usize::from(slot)]
    }
    pub(super) fn entry_mut(&mut self, slot: u16) -> &mut Entry {
        &mut self.slots[usize::from(slot)]
    }
    /// The oldest ready entry.
    pub(super) fn oldest(&self) -> Option<&Entry> {
        (self.oldest != NIL).then(|| self.entry(self.oldest))
    }
    pub(super) fn oldest_slot(&self) -> u16 {
        self.oldest
    }
    /// The entry for which a bank's next command comes.
    pub(super) fn pick(&self, bank: Bank) -> u16 {
        self.banks[bank.flat()].pick
    }
    /// Its age.
    pub(super) fn pick_age(&self, bank: Bank) -> u64 {
        self.banks[bank.flat()].age
    }
    /// The queued entry of a line, if any.
    pub(super) fn find(&self, bank: Bank, row: u64, column: u16) -> Option<&Entry> {
        let mut slot = self.banks[bank.flat()].oldest;
        while slot != NIL {
            let entry = self.entry(slot);
            if entry.row == row && entry.column == column {
                return Some(entry);
            }
            slot = entry.bank_younger;
        }
        None
    }

    /// Adds an entry as the youngest; `open` is the bank's open row. None when full.
    pub(super) fn push(&mut self, mut entry: Entry, open: Option<u64>) -> Option<u16> {
        let slot = self.free.pop()?;
        let bank = entry.bank;
        let list = &mut self.banks[bank.flat()];
        entry.sequence = self.sequence;
        self.sequence += 1;
        entry.bank_older = list.youngest;
        let before = std::mem::replace(&mut list.youngest, slot);
        if before == NIL {
            list.oldest = slot;
        }
        if before != NIL {
            self.slots[usize::from(before)].bank_younger = slot;
        }
        self.slots[usize::from(slot)] = entry;
        if entry.waiting {
            self.refresh(bank, open);
        } else {
            self.append_ready(slot);
            self.offer(slot, open);
        }
        Some(slot)
    }

    /// A partial write has its underfill data.
    pub(super) fn make_ready(&mut self, slot: u16, deadline: u64, open: Option<u64>) {
        let entry = self.entry_mut(slot);
        entry.waiting = false;
        entry.deadline = deadline;
        let bank = entry.bank;
        self.append_ready(slot);
        self.refresh(bank, open);
    }

    /// Takes a ready entry out.
    pub(super) fn remove(&mut self, slot: u16, open: Option<u64>) -> Entry {
        let entry = *self.entry(slot);
        match entry.bank_older {
            NIL => self.banks[entry.bank.flat()].oldest = entry.bank_younger,
            older => self.entry_mut(older).bank_younger = entry.bank_younger,
        }
        match entry.bank_younger {
            NIL => self.banks[entry.bank.flat()].youngest = entry.bank_older,
            younger => self.entry_mut(younger).bank_older = entry.bank_older,
        }
        match entry.older {
            NIL => self.oldest = entry.younger,
            older => self.entry_mut(older).younger = entry.younger,
        }
        match entry.younger {
            NIL => self.youngest = entry.older,
            younger => self.entry_mut(younger).older = entry.older,
        }
        self.ready -= 1;
        self.free.push(slot);
        self.refresh(entry.bank, open);
        entry
    }

    fn append_ready(&mut self, slot: u16) {
        let before = std::mem::replace(&mut self.youngest, slot);
        if before == NIL {
            self.oldest = slot;
        } else {
            self.entry_mut(before).younger = slot;
        }
        let entry = self.entry_mut(slot);
        (entry.older, entry.younger) = (before, NIL);
        self.ready += 1;
    }

    /// What the youngest ready entry of a bank changes about the bank's wish.
    fn offer(&mut self, slot: u16, open: Option<u64>) {
        let entry = self.slots[usize::from(slot)];
        let (bit, hits) = (entry.bank.bit(), open == Some(entry.row));
        let masks = &mut self.masks[usize::from(entry.bank.rank & 3)];
        let list = &mut self.banks[entry.bank.flat()];
        if hits {
            masks.hit |= bit;
        }
        if list.pick == NIL {
            let want = if hits {
                Want::Column
            } else if open.is_none() {
                Want::Row
            } else {
                Want::Close
            };
            masks.want[want as usize] |= bit;
            (list.pick, list.age) = (slot, entry.sequence);
        } else if hits && masks.want[Want::Column as usize] & bit == 0 {
            masks.want[Want::Close as usize] &= !bit;
            masks.want[Want::Column as usize] |= bit;
            (list.pick, list.age) = (slot, entry.sequence);
        }
    }

    /// Works out anew what a bank wants, after its row or its entries have changed.
    pub(super) fn refresh(&mut self, bank: Bank, open: Option<u64>) {
        let (mut first, mut first_hit, mut hit) = (NIL, NIL, false);
        let list = &self.banks[bank.flat()];
        let mut slot = list.oldest;
        if slot == NIL && list.pick == NIL {
            self.masks[usize::from(bank.rank & 3)].hit &= !bank.bit();
            return;
        }
        while slot != NIL {
            let entry = self.entry(slot);
            let hits = open == Some(entry.row);
            hit |= hits;
            if !entry.waiting {
                if first == NIL {
                    first = slot;
                }
                if hits {
                    first_hit = slot;
                    break;
                }
                if open.is_none() {
                    break;
                }
            }
            slot = entry.bank_younger;
        }
        let (pick, want) = match (first, first_hit) {
            (NIL, _) => (NIL, None),
            (first, NIL) => (first, Some(if open.is_none() { Want::Row } else { Want::Close })),
            (_, hit) => (hit, Some(Want::Column)),
        };
        let bit = bank.bit();
        let masks = &mut self.masks[usize::from(bank.rank & 3)];
        for mask in &mut masks.want {
            *mask &= !bit;
        }
        if let Some(want) = want {
            masks.want[want as usize] |= bit;
        }
        masks.hit = if hit { masks.hit | bit } else { masks.hit & !bit };
        let age = if pick == NIL { 0 } else { self.entry(pick).sequence };
        let list = &mut self.banks[bank.flat()];
        (list.pick, list.age) = (pick, age);
    }
    /// The wishes or the readiness of some banks of a rank have changed: `ready` says from which edge a bank allows a kind
    /// of wish.
    pub(super) fn note(&mut self, rank: u8, banks: u32, ready: impl Fn(Want, Bank) -> u64) {
        let masks = &mut self.masks[usize::from(rank & 3)];
        let mut any = 0;
        for kind in 0..3 {
            masks.ripe[kind] &= !banks;
            any |= masks.want[kind];
        }
        if any & banks == 0 {
            return;
        }
        for want in Want::ALL {
            let kind = want as usize;
            let mut left = masks.want[kind] & banks;
            while left != 0 {
                let edge = ready(want, Bank { rank, index: left.trailing_zeros() as u8 });
                left &= left - 1;
                masks.soonest[kind] = masks.soonest[kind].min(edge);
            }
        }
    }

    /// What the banks want, without what is only kept for speed.
    #[cfg(test)]
    pub(super) fn wishes(&self) -> Vec<([u32; 3], u32, Vec<u16>)> {
        let picks = |rank| {
            let banks = self.banks.iter().skip(rank * BANKS_PER_RANK).take(BANKS_PER_RANK);
            banks.map(|b| b.pick).collect()
        };
        self.masks.iter().enumerate().map(|(rank, m)| (m.want, m.hit, picks(rank))).collect()
    }
}
