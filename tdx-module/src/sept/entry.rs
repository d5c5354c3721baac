//! The 64 bits of a Secure-EPT entry.

use super::State;
use serde::{Deserialize, Serialize};
use sim_core::{Hpa, Page};
use std::fmt;

/// A Secure-EPT entry as it lies in memory (architecture.md §7.6 "Bits").
///
/// A level is 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB, 3 for 512 GiB, 4 for the root of a 5-level tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry(pub u64);

/// Why a guest did not get an entry's lock (architecture.md §7.2 "SEPT-entry lock").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GuestBusy {
    /// It is taken: OPERAND_BUSY.
    Taken,
    /// It is free but kept for the host: OPERAND_BUSY_HOST_PRIORITY, which the TDCALL dispatcher turns into OPERAND_BUSY.
    HostPriority,
}

/// A mask of the bits `first` to `last`.
const fn bits(first: u32, last: u32) -> u64 {
    (u64::MAX >> (63 - (last - first))) << first
}

impl Entry {
    /// Bit 0: the guest may read.
    pub const R: u64 = 1;
    /// Bit 1: the guest may write.
    pub const W: u64 = 1 << 1;
    /// Bit 2: the guest may execute.
    pub const X: u64 = 1 << 2;
    /// Bits 2:0 together.
    pub const RWX: u64 = Self::R | Self::W | Self::X;
    /// Bits 5:3: memory type.
    pub const MT: u64 = bits(3, 5);
    /// 110 in [`Entry::MT`]: write-back, as every leaf has it.
    pub const MT_WB: u64 = 6 << 3;
    /// Bit 6: the guest's PAT is ignored.
    pub const IPAT: u64 = 1 << 6;
    /// Bit 7: leaf, also at level 0.
    pub const PS: u64 = 1 << 7;
    /// Bit 8: accessed.
    pub const A: u64 = 1 << 8;
    /// Bit 9: dirty, part of the state.
    pub const D: u64 = 1 << 9;
    /// Bit 10: execute for user pages; not used in the TD's own tree.
    pub const XU: u64 = 1 << 10;
    /// Bit 11: the entry's lock.
    pub const TDEL: u64 = 1 << 11;
    /// Bits 51:12: the page.
    pub const BASE: u64 = bits(12, 51);
    /// Bits 20:12 of a pending 2 MiB leaf: 4 KiB chunks that TDG.MEM.PAGE.ACCEPT has initialised.
    pub const ACCEPT_COUNTER: u64 = bits(12, 20);
    /// Bit 52: the lock is kept for the host.
    pub const TDHP: u64 = 1 << 52;
    /// Bit 53: exported, part of the state.
    pub const TDEX: u64 = 1 << 53;
    /// Bit 54: blocked for writing, part of the state.
    pub const TDBW: u64 = 1 << 54;
    /// Bit 55: blocked, part of the state.
    pub const TDB: u64 = 1 << 55;
    /// Bit 56: pending, part of the state.
    pub const TDP: u64 = 1 << 56;
    /// Bit 57: verify paging-write.
    pub const VPW: u64 = 1 << 57;
    /// Bit 58: paging-write.
    pub const PW: u64 = 1 << 58;
    /// Bits 60:58: L2 VMs with an alias.
    pub const TDAL: u64 = bits(58, 60);
    /// Bit 63: suppress #VE.
    pub const SVE: u64 = 1 << 63;
    /// The bits that make the state.
    pub const STATE: u64 = Self::D | bits(53, 56) | Self::IPAT | Self::PS;
    /// What an error detail shows of a leaf.
    pub const ARCHITECTURAL_LEAF: u64 =
        Self::RWX | Self::MT | Self::IPAT | Self::PS | Self::BASE | Self::SVE;
    /// What an error detail shows of an entry that is neither a leaf nor FREE.
    pub const ARCHITECTURAL_TABLE: u64 = Self::RWX | Self::PS;

    /// The entry with which a Secure-EPT page is filled, and which TDH.MEM.PAGE.REMOVE leaves: FREE with SVE.
    pub const FREE: Entry = Entry(0x80E0_0000_0000_0000);

    /// A new entry, unlocked. FREE and REMOVED hold no page. SVE is set as in [`Entry::FREE`], MT only in a leaf
    /// (reserved elsewhere); IPAT and PS are part of a leaf's state.
    const fn new(state: State, page: Page) -> Entry {
        let row = state.row();
        let base = match state {
            State::Free | State::Removed => 0,
            _ => page.hpa().0 & Self::BASE,
        };
        let mt = if state.is_leaf() { Self::MT_WB } else { 0 };
        Entry(row.bits | row.access.rights() | mt | base | Self::SVE)
    }
    /// A leaf in this state over this page (of any size: its first 4 KiB page), unlocked.
    pub const fn leaf(state: State, page: Page) -> Entry {
        Self::new(state, page)
    }
    /// An entry over this Secure-EPT page, NL_MAPPED or NL_BLOCKED, unlocked.
    pub const fn table(state: State, page: Page) -> Entry {
        Self::new(state, page)
    }

    /// The 7-bit code of the state: b0 = D (bit 9), b1 to b4 = bits 53 to 56, b5 and b6 = bits 6 and 7.
    #[inline]
    pub const fn code(self) -> u8 {
        ((self.0 >> 9 & 1) | (self.0 >> 53 & 15) << 1 | (self.0 >> 6 & 3) << 5) as u8
    }
    /// The state; `None` for a code that no state has ([`State::of`]).
    #[inline]
    pub const fn state(self) -> Option<State> {
        State::of(self)
    }
    /// The same entry in another state: state bits and R, W, X as the state has them, SVE set, all else kept (also the
    /// lock).
    #[inline]
    pub const fn with_state(self, state: State) -> Entry {
        let row = state.row();
        Entry(self.0 & !(Self::STATE | Self::RWX) | row.bits | row.access.rights() | Self::SVE)
    }
    /// R, W and X.
    #[inline]
    pub const fn rights(self) -> u64 {
        self.0 & Self::RWX
    }
    /// A walk ends here: R, W and X are all clear (architecture.md §7.7 "On walk").
    #[inline]
    pub const fn is_present(self) -> bool {
        self.rights() != 0
    }
    /// Bit PS.
    #[inline]
    pub const fn is_leaf(self) -> bool {
        self.0 & Self::PS != 0
    }
    /// Bits 51:12 as an address. In a pending 2 MiB leaf the low ones are the ACCEPT counter: use [`Entry::hpa_at`].
    #[inline]
    pub const fn hpa(self) -> Hpa {
        Hpa(self.0 & Self::BASE)
    }
    /// The address of the page that a leaf at this level maps: bits below the page's size are left out.
    #[inline]
    pub const fn hpa_at(self, level: u8) -> Hpa {
        match u64::MAX.checked_shl(12 + 9 * level as u32) {
            Some(mask) => Hpa(self.hpa().0 & mask),
            None => Hpa(0),
        }
    }
    /// The 4 KiB page of [`Entry::hpa`].
    #[inline]
    pub const fn page(self) -> Page {
        self.hpa().page()
    }
    /// The same entry over another page.
    #[inline]
    pub const fn with_page(self, page: Page) -> Entry {
        Entry(self.0 & !Self::BASE | page.hpa().0 & Self::BASE)
    }
    /// Bits 20:12: how many 4 KiB chunks TDG.MEM.PAGE.ACCEPT has initialised. Only a pending 2 MiB leaf has it.
    #[inline]
    pub const fn accept_counter(self) -> u16 {
        (self.0 >> 12 & 0x1FF) as u16
    }
    /// The same entry with another count (0 to 511; higher bits are cut off). RANGE.BLOCK, PAGE.REMOVE and PAGE.DEMOTE
    /// set it to 0 (architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT").
    #[inline]
    pub const fn with_accept_counter(self, chunks: u16) -> Entry {
        Entry(self.0 & !Self::ACCEPT_COUNTER | (chunks as u64 & 0x1FF) << 12)
    }
    /// TDEL: the entry is locked.
    #[inline]
    pub const fn locked(self) -> bool {
        self.0 & Self::TDEL != 0
    }
    /// The same entry locked or unlocked.
    #[inline]
    pub const fn with_locked(self, locked: bool) -> Entry {
        Entry(if locked { self.0 | Self::TDEL } else { self.0 & !Self::TDEL })
    }
    /// TDHP: the lock is kept for the host.
    #[inline]
    pub const fn host_priority(self) -> bool {
        self.0 & Self::TDHP != 0
    }
    /// The same entry with the lock kept for the host or not.
    #[inline]
    pub const fn with_host_priority(self, kept: bool) -> Entry {
        Entry(if kept { self.0 | Self::TDHP } else { self.0 & !Self::TDHP })
    }
    /// The host tries the lock: won, and TDHP cleared; or lost, and TDHP set (architecture.md §7.2 "SEPT-entry lock,
    /// host").
    #[inline]
    pub fn try_lock_host(&mut self) -> bool {
        let won = !self.locked();
        *self = self.with_locked(true).with_host_priority(!won);
        won
    }
    /// The guest tries the lock; it does not get one that is kept for the host, and never changes TDHP
    /// (architecture.md §7.2 "SEPT-entry lock, … Guest").
    ///
    /// # Errors
    /// Why not; the entry is as it was.
    #[inline]
    pub fn try_lock_guest(&mut self) -> Result<(), GuestBusy> {
        if self.locked() {
            return Err(GuestBusy::Taken);
        }
        if self.host_priority() {
            return Err(GuestBusy::HostPriority);
        }
        *self = self.with_locked(true);
        Ok(())
    }
    /// Releases the lock; TDHP stays.
    #[inline]
    pub fn unlock(&mut self) {
        *self = self.with_locked(false);
    }
    /// The entry as an error detail shows it in RCX: of FREE only SVE, of a leaf R, W, X, MT, IPAT, PS, the page and SVE,
    /// of anything else R, W, X and PS without the page (architecture.md §7.6 "Error detail outputs").
    #[inline]
    pub const fn architectural(self) -> u64 {
        match self.state() {
            Some(State::Free) => self.0 & Self::SVE,
            _ if self.is_leaf() => self.0 & Self::ARCHITECTURAL_LEAF,
            _ => self.0 & Self::ARCHITECTURAL_TABLE,
        }
    }
    /// RCX and RDX of an error detail: [`Entry::architectural`], and level \[2:0\], public state \[15:8\], VM \[17:16\],
    /// which is 0 for the TD's own tree (architecture.md §7.6 "Error detail outputs").
    #[inline]
    pub const fn details(self, level: u8) -> (u64, u64) {
        let public = match self.state() {
            Some(state) => state.row().public as u64,
            None => 0,
        };
        (self.architectural(), level as u64 & 7 | public << 8)
    }
}

impl Default for Entry {
    /// [`Entry::FREE`].
    fn default() -> Self {
        Entry::FREE
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state() {
            Some(state) => write!(f, "{:#018x} ({state} {})", self.0, self.hpa()),
            None => write!(f, "{:#018x} (no state)", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::STATES;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_free_entry_is_the_one_of_the_sheet() {
        assert_eq!(Entry::FREE.state(), Some(State::Free));
        assert_eq!(Entry::leaf(State::Free, Page(7)), Entry::FREE);
        assert_eq!(Entry::default(), Entry::FREE);
        assert_eq!(Entry::FREE.0, State::Free.row().bits | Entry::SVE);
    }

    #[test]
    fn named_bits_do_not_overlap_except_where_the_sheet_shares_them() {
        let own = [
            Entry::RWX,
            Entry::MT,
            Entry::IPAT,
            Entry::PS,
            Entry::A,
            Entry::D,
            Entry::XU,
            Entry::TDEL,
            Entry::BASE,
            Entry::TDHP,
            Entry::TDEX,
            Entry::TDBW,
            Entry::TDB,
            Entry::TDP,
            Entry::VPW,
            Entry::TDAL,
            Entry::SVE,
        ];
        let all = own.iter().fold(0, |all, bit| {
            assert_eq!(all & bit, 0, "{bit:#x}");
            all | bit
        });
        // Bits 62:61 have no name in the sheet.
        assert_eq!(all, !(3 << 61));
        assert_eq!(Entry::PW & Entry::TDAL, Entry::PW);
        assert_eq!(Entry::ACCEPT_COUNTER & Entry::BASE, Entry::ACCEPT_COUNTER);
    }

    #[test]
    fn new_leaves_and_tables_have_the_bits_of_the_sheet() {
        let page = Page(0x1234_5600);
        let base = 0x0123_4560_0000;
        assert_eq!(page.hpa().0, base);
        for (state, want) in [
            (State::Mapped, 0x8000_0000_0000_00F7),
            (State::Pending, 0x8100_0000_0000_00F0),
            (State::Blocked, 0x8080_0000_0000_00F0),
            (State::BlockedW, 0x8040_0000_0000_00F5),
            (State::ExportedDirty, 0x8020_0000_0000_02F7),
        ] {
            assert_eq!(Entry::leaf(state, page).0, want | base, "{state}");
        }
        assert_eq!(Entry::table(State::NlMapped, page).0, 0x8000_0000_0000_0007 | base);
        assert_eq!(Entry::table(State::NlBlocked, page).0, 0x8080_0000_0000_0000 | base);
        assert_eq!(Entry::leaf(State::Removed, page).0, 0x80C0_0000_0000_0000);
    }

    #[test]
    fn error_details_hide_what_the_sheet_hides() {
        let page = Page(0x200);
        let leaf = Entry::leaf(State::Mapped, page).with_locked(true).with_host_priority(true);
        assert_eq!(leaf.details(0), (0x8000_0000_0020_00F7, 0x0400));
        let table = Entry::table(State::NlMapped, page);
        assert_eq!(table.details(1), (7, 132 << 8 | 1));
        let blocked = Entry::table(State::NlBlocked, page);
        assert_eq!(blocked.details(2), (0, 129 << 8 | 2));
        assert_eq!(Entry::FREE.details(3), (Entry::SVE, 3));
        let pending = Entry::leaf(State::Pending, page);
        assert_eq!(pending.details(1), (0x8000_0000_0020_00F0, 0x0201));
    }

    #[test]
    fn the_accept_counter_hides_in_a_large_page_s_address() {
        let entry = Entry::leaf(State::Pending, Page(0x4_0000)).with_accept_counter(511);
        assert_eq!(entry.accept_counter(), 511);
        assert_eq!(entry.hpa(), Hpa(0x401F_F000));
        assert_eq!(entry.hpa_at(1), Hpa(0x4000_0000));
        assert_eq!(entry.with_accept_counter(0).hpa(), Hpa(0x4000_0000));
        assert_eq!(entry.with_accept_counter(512).accept_counter(), 0);
        // Level by level the next nine bits belong to the offset.
        let full = Entry::leaf(State::Mapped, Page((1 << 40) - 1));
        for (level, low) in [(0, 12), (1, 21), (2, 30), (3, 39), (4, 48)] {
            assert_eq!(full.hpa_at(level), Hpa(((1 << 52) - 1) >> low << low));
        }
        assert_eq!(full.hpa_at(255), Hpa(0));
    }

    #[test]
    fn the_lock_prefers_a_host_that_has_waited() {
        let free = Entry::leaf(State::Pending, Page(1));
        let mut entry = free;
        assert_eq!(entry.try_lock_guest(), Ok(()));
        assert_eq!(entry.try_lock_guest(), Err(GuestBusy::Taken));
        assert!(!entry.host_priority());
        assert!(!entry.try_lock_host());
        entry.unlock();
        assert_eq!(entry, free.with_host_priority(true));
        assert_eq!(entry.try_lock_guest(), Err(GuestBusy::HostPriority));
        assert_eq!(entry, free.with_host_priority(true));
        assert!(entry.try_lock_host());
        assert_eq!(entry, free.with_locked(true));
        entry.unlock();
        assert_eq!(entry.try_lock_guest(), Ok(()));
    }

    proptest! {
        #[test]
        fn a_change_of_state_keeps_every_bit_that_is_not_the_state_s(raw: u64, i in 0..16usize) {
            let state = STATES[i].state;
            let entry = Entry(raw).with_state(state);
            prop_assert_eq!(entry.state(), Some(state));
            prop_assert_eq!(entry.rights(), STATES[i].access.rights());
            prop_assert_eq!(entry.is_leaf(), state.is_leaf());
            prop_assert_eq!(entry.is_present(), entry.rights() != 0);
            prop_assert!(entry.0 & Entry::SVE != 0);
            let mine = Entry::STATE | Entry::RWX | Entry::SVE;
            prop_assert_eq!(entry.0 & !mine, raw & !mine);
        }

        #[test]
        fn fields_are_read_as_they_were_written_and_touch_no_other(raw: u64, page in 0..1u64 << 40, n in 0..512u16, on: bool) {
            let e = Entry(raw);
            prop_assert_eq!(e.with_page(Page(page)).page(), Page(page));
            prop_assert_eq!(e.with_page(Page(page)).0 & !Entry::BASE, raw & !Entry::BASE);
            prop_assert_eq!(e.with_accept_counter(n).accept_counter(), n);
            prop_assert_eq!(e.with_accept_counter(n).0 & !Entry::ACCEPT_COUNTER, raw & !Entry::ACCEPT_COUNTER);
            prop_assert_eq!(e.with_locked(on).locked(), on);
            prop_assert_eq!(e.with_locked(on).0 & !Entry::TDEL, raw & !Entry::TDEL);
            prop_assert_eq!(e.with_host_priority(on).host_priority(), on);
            prop_assert_eq!(e.with_host_priority(on).0 & !Entry::TDHP, raw & !Entry::TDHP);
        }

        #[test]
        fn a_new_entry_reads_back_its_state_and_page(page in 0..1u64 << 40, i in 0..16usize) {
            let state = STATES[i].state;
            let entry = Entry::leaf(state, Page(page));
            prop_assert_eq!(entry.state(), Some(state));
            prop_assert!(!entry.locked() && !entry.host_priority());
            let empty = matches!(state, State::Free | State::Removed);
            prop_assert_eq!(entry.page(), if empty { Page(0) } else { Page(page) });
            prop_assert_eq!(entry.0 & Entry::MT, if state.is_leaf() { Entry::MT_WB } else { 0 });
        }
    }
}
