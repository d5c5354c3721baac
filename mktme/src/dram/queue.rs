//! A read or write queue of fixed depth. Nothing is allocated after construction.
//!
//! Entries are kept per bank in order of age, and every bank has at most one *pick*: the entry on whose behalf the bank's
//! next command comes, and what that command is (peers.md §4 lessons 3 and 5). The age order over all banks is a line of
//! [`POSITIONS`] positions: an entry takes the next one when it becomes ready, and when the line is full the living move
//! down. So "the oldest bank that wants a column command" is the first bit of a mask, and no ages are compared.

use super::device::{BANKS, Bank, RANKS, Spot};
use super::wheel::Wheel;
use serde::{Deserialize, Serialize};
use sim_core::Ps;

/// No slot, no position.
pub(super) const NIL: u16 = u16::MAX;

/// Words of a [`Mask`].
const WORDS: usize = 8;
/// Most positions of the age order: twice the deepest queue, so that the living move down once in 256 entries.
const POSITIONS: usize = WORDS * 64;
/// Buckets of the filter in front of [`Queue::find`].
const BUCKETS: usize = 256;

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

/// What a bank wants next on behalf of a queue. The order is that of service among commands legal at the same edge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
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

/// A queued request. One line of the host's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) row: u64,
    /// Arrival at the controller.
    pub(super) at: Ps,
    /// The first clock edge at or after it.
    pub(super) edge: u64,
    /// The edge from which its age counts: that of arrival or, for a partial write, of its underfill data.
    pub(super) since: u64,
    pub(super) column: u16,
    /// An underfill read: the write-queue slot that waits for it. Else [`NIL`].
    pub(super) underfills: u16,
    pub(super) bank: Bank,
    /// Which bucket of the filter it is in.
    bucket: u8,
    pub(super) found: Found,
    /// A partial write whose underfill read has not returned: it may not be served yet.
    pub(super) waiting: bool,
    /// Place in the age order of all, unless it waits.
    position: u16,
}

impl Entry {
    pub(super) const fn new(id: u64, spot: Spot, at: Ps, edge: u64) -> Entry {
        Entry {
            id,
            row: spot.row,
            at,
            edge,
            since: edge,
            column: spot.column(),
            underfills: NIL,
            bank: spot.bank(),
            bucket: spot.bucket(),
            found: Found::Open,
            waiting: false,
            position: NIL,
        }
    }
}

/// What an entry is made of. Always taken apart at once, so that it is nowhere in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    pub(super) id: u64,
    pub(super) spot: Spot,
    pub(super) at: Ps,
    pub(super) edge: u64,
    pub(super) underfills: u16,
    pub(super) waiting: bool,
    pub(super) found: Found,
}

/// A set of positions, the first of them found in two steps.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Mask {
    words: [u64; WORDS],
    /// Words that are not zero.
    any: u8,
}

impl Mask {
    #[inline]
    fn set(&mut self, position: u16) {
        let word = usize::from(position >> 6) % WORDS;
        self.words[word] |= 1 << (position & 63);
        self.any |= 1 << word;
    }
    #[inline]
    fn clear(&mut self, position: u16) {
        let word = usize::from(position >> 6) % WORDS;
        self.words[word] &= !(1 << (position & 63));
        self.any &= !(u8::from(self.words[word] == 0) << word);
    }
}

/// The armed picks that want one thing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Armed {
    mask: Mask,
    /// How many, by rank.
    count: [u8; RANKS],
}

/// Neighbours in a bank's order of age: slots or, at either end, the bank's head. So a list is a ring that is never empty, and
/// whether an entry is the first or the last, which nobody can foresee, need not be asked when it goes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Link {
    older: u16,
    /// Of a head: the oldest of its bank.
    younger: u16,
}

/// Where the heads of the banks begin among the links: behind all slots.
const HEADS: u16 = 256;
/// Links, and some more, so that a mask bounds an index.
const LINKS: usize = 512;

/// What a queue holds for a bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct BankList {
    /// The entry on whose behalf the bank's next command comes.
    pick: u16,
    /// What that command is.
    want: Want,
    /// The bank's own constraints have run out: the pick is in the mask of what it wants.
    armed: bool,
}

/// A read or write queue of a subchannel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    /// And behind them one that is never served: [`Queue::pass_on`] looks at it where a bank's list is at its end.
    slots: Vec<Entry>,
    #[serde(with = "super::arrays")]
    links: [Link; LINKS],
    /// Slots not in use.
    free: Vec<u16>,
    len: u32,
    depth: u32,
    #[serde(with = "super::arrays")]
    banks: [BankList; BANKS],
    /// Banks, by rank, whose pick is to be chosen anew before the queue is served: while it is not, nobody follows what becomes
    /// of it.
    stale: [u32; RANKS],
    /// Whether there is such a bank: not zero then.
    any_stale: u32,
    /// By [`Want`].
    armed: [Armed; 3],
    /// By position: slot of the ready entry there, [`NIL`] if it has gone, and its bank.
    #[serde(with = "super::arrays")]
    slot_at: [u16; POSITIONS],
    #[serde(with = "super::arrays")]
    bank_at: [Bank; POSITIONS],
    /// Positions in use: four times the depth. The fewer, the better they fit the host's cache.
    positions: u16,
    /// The position that is given next.
    next: u16,
    ready_count: u16,
    /// Clocks after which an entry is overdue.
    age: u64,
    /// No ready entry is overdue before this edge. The oldest may have gone since; [`Queue::renew_deadline`] finds out.
    deadline: u64,
    /// How many entries fall into each bucket: what is zero need not be searched.
    #[serde(with = "super::arrays")]
    filter: [u16; BUCKETS],
    /// Whether it is kept: only the write queue is searched.
    searched: bool,
    /// By [`Want`]: no armed pick can go before this edge.
    soonest: [u64; 3],
    /// When banks whose own constraints have not run out are to be looked at again.
    pub(super) wheel: Wheel,
}

impl Queue {
    pub(super) fn new(depth: u16, age: u32, searched: bool) -> Queue {
        let nowhere = Bank::new(0, 0);
        let none = Entry::new(0, Spot::new(nowhere, 0, 0), Ps::ZERO, 0);
        let list = BankList { pick: NIL, want: Want::Row, armed: false };
        let nobody = Entry { waiting: true, ..none };
        let mut slots = vec![none; usize::from(depth)];
        slots.push(nobody);
        let to_itself = |at| Link { older: at as u16, younger: at as u16 };
        Queue {
            slots,
            links: std::array::from_fn(to_itself),
            free: (0..depth).rev().collect(),
            len: 0,
            depth: depth.into(),
            banks: [list; BANKS],
            stale: [0; RANKS],
            any_stale: 0,
            armed: [Armed::default(); 3],
            slot_at: [NIL; POSITIONS],
            bank_at: [nowhere; POSITIONS],
            positions: (4 * depth).clamp(64, POSITIONS as u16),
            next: 0,
            ready_count: 0,
            age: age.into(),
            deadline: u64::MAX,
            filter: [0; BUCKETS],
            searched,
            soonest: [u64::MAX; 3],
            wheel: Wheel::new(),
        }
    }
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len.into()
    }
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.len < self.depth
    }
    /// Entries that may be served: all but partial writes that wait for their underfill read.
    #[inline]
    pub(super) fn ready(&self) -> u16 {
        self.ready_count
    }
    #[inline]
    pub(super) fn entry(&self, slot: u16) -> &Entry {
        &self.slots[usize::from(slot)]
    }
    #[inline]
    pub(super) fn entry_mut(&mut self, slot: u16) -> &mut Entry {
        &mut self.slots[usize::from(slot)]
    }
    /// No ready entry is overdue before this edge; never if there is none.
    #[inline]
    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }
    /// The edge from which the oldest ready entry is overdue.
    pub(super) fn renew_deadline(&mut self) -> u64 {
        self.deadline = match self.oldest() {
            NIL => u64::MAX,
            oldest => self.entry(oldest).since + self.age,
        };
        self.deadline
    }
    /// The slot of the oldest ready entry, or [`NIL`].
    pub(super) fn oldest(&self) -> u16 {
        self.slot_at.iter().copied().find(|&slot| slot != NIL).unwrap_or(NIL)
    }
    /// Whether some armed pick of a rank wants something.
    #[inline]
    pub(super) fn any_armed(&self, want: Want, rank: usize) -> bool {
        self.armed[want as usize].count[rank & 3] != 0
    }
    /// The oldest armed pick that wants something and whose bank passes; else [`NIL`].
    #[inline]
    pub(super) fn oldest_armed(&self, want: Want, mut passes: impl FnMut(Bank) -> bool) -> u16 {
        let mask = &self.armed[want as usize].mask;
        let mut any = mask.any;
        while any != 0 {
            let word = any.trailing_zeros() as usize % WORDS;
            let mut bits = mask.words[word];
            while bits != 0 {
                let position = word << 6 | bits.trailing_zeros() as usize;
                if passes(self.bank_at[position % POSITIONS]) {
                    return self.slot_at[position % POSITIONS];
                }
                bits &= bits - 1;
            }
            any &= any - 1;
        }
        NIL
    }
    #[inline]
    fn list(&self, bank: Bank) -> &BankList {
        &self.banks[bank.flat()]
    }
    /// The pick of a bank, or [`NIL`], and what it wants.
    #[inline]
    pub(super) fn pick(&self, bank: Bank) -> (u16, Want) {
        let list = self.list(bank);
        (list.pick, list.want)
    }
    /// Whether a bank has a pick whose own constraints have not run out yet.
    #[inline]
    pub(super) fn unarmed(&self, bank: Bank) -> bool {
        let list = self.list(bank);
        list.pick != NIL && !list.armed
    }
    #[inline]
    pub(super) fn has_entries(&self, bank: Bank) -> bool {
        self.first(bank) < HEADS
    }
    /// The head of a bank's list.
    #[inline]
    fn head(bank: Bank) -> u16 {
        HEADS + bank.flat() as u16
    }
    #[inline]
    fn link(&self, at: u16) -> Link {
        self.links[usize::from(at) % LINKS]
    }
    #[inline]
    fn link_mut(&mut self, at: u16) -> &mut Link {
        &mut self.links[usize::from(at) % LINKS]
    }
    /// The oldest entry of a bank; its head if there is none.
    #[inline]
    fn first(&self, bank: Bank) -> u16 {
        self.link(Queue::head(bank)).younger
    }
    /// An entry; None of a head.
    #[inline]
    fn living(&self, at: u16) -> Option<&Entry> {
        if at < HEADS { self.slots.get(usize::from(at)) } else { None }
    }
    /// The pick of a bank, if it has entries, is to be chosen anew before the queue is served.
    #[inline]
    pub(super) fn mark_stale(&mut self, bank: Bank) {
        if self.len != 0 {
            let stale = bank.bit() * u32::from(self.has_entries(bank));
            self.stale[bank.rank()] |= stale;
            self.any_stale |= stale;
        }
    }
    /// Whether there is such a bank.
    #[inline]
    pub(super) fn any_stale(&self) -> bool {
        self.any_stale != 0
    }
    /// Gives these banks, by rank, and forgets them.
    #[inline]
    pub(super) fn take_stale(&mut self) -> [u32; RANKS] {
        self.any_stale = 0;
        std::mem::take(&mut self.stale)
    }
    /// The queued entry of a line, or [`NIL`].
    #[inline]
    pub(super) fn find(&self, spot: Spot) -> u16 {
        if self.filter[usize::from(spot.bucket()) % BUCKETS] == 0 {
            return NIL;
        }
        self.search(spot)
    }
    #[inline(never)]
    fn search(&self, spot: Spot) -> u16 {
        let mut slot = self.first(spot.bank());
        while let Some(entry) = self.living(slot) {
            if entry.row == spot.row && entry.column == spot.column() {
                return slot;
            }
            slot = self.link(slot).younger;
        }
        NIL
    }
    /// Whether some entry of a bank, ready or not, is for a row.
    #[inline]
    pub(super) fn hits(&self, bank: Bank, row: u64) -> bool {
        let mut slot = self.first(bank);
        while let Some(entry) = self.living(slot) {
            if entry.row == row {
                return true;
            }
            slot = self.link(slot).younger;
        }
        false
    }

    /// All entries, bank by bank.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        (0..BANKS as u8).flat_map(move |bank| {
            let first = self.first(Bank(bank));
            let slots = std::iter::successors(Some(first), |at| Some(self.link(*at).younger));
            slots.map_while(|slot| self.living(slot))
        })
    }

    /// Adds an entry as the youngest and gives its slot; None when full. Its bank's pick stays what it is. The entry comes in parts
    /// and is put together in its slot: one that was put together elsewhere would be copied before the host has written it, which
    /// takes the host longer than all the rest of this.
    #[inline(always)]
    pub(super) fn push(&mut self, new: New) -> Option<u16> {
        let slot = self.free.pop()?;
        self.len += 1;
        let New { id, spot, at, edge, underfills, waiting, found } = new;
        let bank = spot.bank();
        let head = Queue::head(bank);
        let older = self.link(head).older;
        *self.link_mut(slot) = Link { older, younger: head };
        self.link_mut(older).younger = slot;
        self.link_mut(head).older = slot;
        if self.searched {
            self.filter[usize::from(spot.bucket()) % BUCKETS] += 1;
        }
        let position = if waiting { NIL } else { self.take_position(slot, bank, edge) };
        let own = Entry::new(id, spot, at, edge);
        self.slots[usize::from(slot)] = Entry { underfills, waiting, found, position, ..own };
        Some(slot)
    }

    /// What the youngest ready entry changes about its bank's pick; `open` is the bank's open row. Says whether it is now the
    /// pick, not armed.
    #[inline(always)]
    pub(super) fn pick_youngest(&mut self, slot: u16, spot: Spot, open: Option<u64>) -> bool {
        let bank = spot.bank();
        let hits = open == Some(spot.row);
        let want = match open {
            None => Want::Row,
            Some(_) if hits => Want::Column,
            Some(_) => Want::Close,
        };
        let list = &mut self.banks[bank.flat()];
        if list.pick != NIL {
            if !hits || list.want != Want::Close {
                return false;
            }
            self.disarm(bank);
        }
        let list = &mut self.banks[bank.flat()];
        (list.pick, list.want) = (slot, want);
        true
    }

    /// A partial write has its underfill data: from now on it counts as arrived. Its bank's pick stays what it is.
    pub(super) fn make_ready(&mut self, slot: u16, edge: u64) {
        let bank = self.entry(slot).bank;
        let position = self.take_position(slot, bank, edge);
        let entry = self.entry_mut(slot);
        entry.waiting = false;
        entry.since = edge;
        entry.position = position;
    }

    /// Takes the next position.
    #[inline]
    fn take_position(&mut self, slot: u16, bank: Bank, since: u64) -> u16 {
        if self.next >= self.positions {
            self.move_down();
        }
        let position = self.next;
        self.next += 1;
        self.slot_at[usize::from(position) % POSITIONS] = slot;
        self.bank_at[usize::from(position) % POSITIONS] = bank;
        if self.ready_count == 0 {
            self.deadline = since + self.age;
        }
        self.ready_count += 1;
        position
    }

    /// The living take the lowest positions, in the same order.
    #[cold]
    #[inline(never)]
    fn move_down(&mut self) {
        for armed in &mut self.armed {
            armed.mask = Mask::default();
        }
        let mut to = 0u16;
        for from in 0..usize::from(self.positions) % (POSITIONS + 1) {
            let (slot, bank) = (self.slot_at[from], self.bank_at[from]);
            if slot == NIL {
                continue;
            }
            self.slot_at[from] = NIL;
            self.slot_at[usize::from(to) % POSITIONS] = slot;
            self.bank_at[usize::from(to) % POSITIONS] = bank;
            self.entry_mut(slot).position = to;
            let list = self.banks[bank.flat()];
            if list.pick == slot && list.armed {
                self.armed[list.want as usize].mask.set(to);
            }
            to += 1;
        }
        self.next = to;
    }

    /// Takes an entry out if it is its bank's oldest and armed pick and the next of the bank hits the same row: that one is
    /// armed in its place. False otherwise; nothing has changed then.
    #[inline(always)]
    pub(super) fn pass_on(&mut self, slot: u16) -> bool {
        let entry = *self.entry(slot);
        let Link { older, younger } = self.link(slot);
        let next = usize::from(younger).min(self.depth as usize);
        let Some(next) = self.slots.get(next) else { return false };
        if next.row != entry.row || next.waiting || older < HEADS {
            return false;
        }
        let list = &mut self.banks[entry.bank.flat()];
        if list.pick != slot || !list.armed {
            return false;
        }
        list.pick = younger;
        let mask = &mut self.armed[list.want as usize].mask;
        mask.clear(entry.position);
        mask.set(next.position);
        self.unlink(slot);
        self.forget(slot, &entry);
        true
    }

    /// Takes an entry out of its bank's list.
    #[inline(always)]
    fn unlink(&mut self, slot: u16) {
        let Link { older, younger } = self.link(slot);
        self.link_mut(older).younger = younger;
        self.link_mut(younger).older = older;
    }

    /// What is left to be done when an entry goes.
    #[inline(always)]
    fn forget(&mut self, slot: u16, entry: &Entry) {
        if self.searched {
            self.filter[usize::from(entry.bucket) % BUCKETS] -= 1;
        }
        self.slot_at[usize::from(entry.position) % POSITIONS] = NIL;
        self.ready_count -= 1;
        self.len -= 1;
        self.free.push(slot);
        if self.ready_count == 0 {
            // Nobody is left whose position would have to be kept.
            (self.next, self.deadline) = (0, u64::MAX);
        }
    }

    /// Takes a ready entry out. If it was its bank's pick, the bank has none until [`Queue::choose`].
    #[inline(always)]
    pub(super) fn remove(&mut self, slot: u16) {
        let entry = *self.entry(slot);
        let bank = entry.bank;
        let list = &mut self.banks[bank.flat()];
        if list.pick == slot {
            list.pick = NIL;
            if std::mem::take(&mut list.armed) {
                let armed = &mut self.armed[list.want as usize];
                armed.mask.clear(entry.position);
                armed.count[bank.rank()] -= 1;
            }
        }
        self.unlink(slot);
        self.forget(slot, &entry);
    }

    /// Works out anew who is a bank's pick and what it wants; it is not armed then.
    #[inline]
    pub(super) fn choose(&mut self, bank: Bank, open: Option<u64>) {
        self.disarm(bank);
        let (mut first, mut want) = (NIL, Want::Row);
        let mut slot = self.first(bank);
        while let Some(entry) = self.living(slot) {
            if !entry.waiting {
                if open == Some(entry.row) {
                    (first, want) = (slot, Want::Column);
                    break;
                }
                if first == NIL {
                    first = slot;
                    if open.is_none() {
                        break;
                    }
                    want = Want::Close;
                }
            }
            slot = self.link(slot).younger;
        }
        let list = &mut self.banks[bank.flat()];
        (list.pick, list.want) = (first, want);
    }

    /// The pick stays, but wants something else now.
    #[inline]
    pub(super) fn want(&mut self, bank: Bank, want: Want) {
        self.disarm(bank);
        self.banks[bank.flat()].want = want;
    }

    /// By [`Want`]: no armed pick can go before this edge.
    #[inline]
    pub(super) fn soonest(&self) -> [u64; 3] {
        self.soonest
    }
    /// No armed pick that wants something else can go before this edge.
    #[inline]
    pub(super) fn soonest_but(&self, want: Want) -> u64 {
        let [column, row, close] = self.soonest;
        match want {
            Want::Column => row.min(close),
            Want::Row => column.min(close),
            Want::Close => column.min(row),
        }
    }
    /// No armed pick that wants this can go before an edge.
    #[inline]
    pub(super) fn set_soonest(&mut self, want: Want, edge: u64) {
        self.soonest[want as usize] = edge;
    }

    /// Puts the pick into the mask of what it wants: it cannot go before the edge `gate`. It must not be there.
    #[inline]
    pub(super) fn arm(&mut self, bank: Bank, gate: u64) {
        let list = &mut self.banks[bank.flat()];
        list.armed = true;
        let (pick, want) = (list.pick, list.want);
        let soonest = &mut self.soonest[want as usize];
        *soonest = gate.min(*soonest);
        let position = self.entry(pick).position;
        let armed = &mut self.armed[want as usize];
        armed.mask.set(position);
        armed.count[bank.rank()] += 1;
    }

    /// Takes it out again, if it is there.
    #[inline]
    pub(super) fn disarm(&mut self, bank: Bank) {
        let list = &mut self.banks[bank.flat()];
        if std::mem::take(&mut list.armed) {
            let (pick, want) = (list.pick, list.want);
            let position = self.entry(pick).position;
            let armed = &mut self.armed[want as usize];
            armed.mask.clear(position);
            armed.count[bank.rank()] -= 1;
        }
    }

    /// What the banks want: by bank, the pick, its want and the age order.
    #[cfg(test)]
    pub(super) fn wishes(&self) -> Vec<(u16, Option<Want>)> {
        self.banks.iter().map(|b| (b.pick, (b.pick != NIL).then_some(b.want))).collect()
    }
}
