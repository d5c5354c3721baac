//! When the rows of a subchannel are refreshed.
//!
//! Refresh number n of a rank (from 1) is due at n intervals, less a share of one interval by which the ranks are
//! staggered: tREFI1 for REFab; for REFsb tREFI2 divided by the banks of a bank group, which take turns (timing.md §2.2).
//! Work on it begins early by the time that closing the rows can take, so that the command is out when it is due and the
//! mean interval is never above the nominal one (verification.md §2.11 Q8).
//!
//! * A refresh is made when it is due if no request for the banks concerned is queued.
//! * Otherwise it is postponed, by as many intervals as the platform allows (`dram.refresh_postpone`); then it is forced.
//! * Once begun it is carried through: no other command goes to the banks concerned. Their rows are closed (PREab, or PRE
//!   one by one for REFsb), then the refresh follows. Refresh commands go before all others that are legal at their edge.
//! * While a REFsb waits for nothing but tRRD_L, no ACT goes to its rank, else a stream of them could hold it up for ever.

use super::constraint::Command;
use super::device::{Bank, Device, Geometry, RANKS};
use super::queue::bits;
use super::timing::{Parameter as P, Timing};
use serde::{Deserialize, Serialize};
use sim_core::platform::RefreshMode;

/// The refreshes of a subchannel's ranks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Refresh {
    mode: RefreshMode,
    ranks: u8,
    /// Clocks between two refresh commands of a rank.
    interval: u64,
    /// Clocks by which one may be late.
    postpone: u64,
    /// Refresh commands in a round through all banks of a rank.
    round: u8,
    /// Of the low bits of a bank's index: which refresh command is the bank's. Nothing for REFab.
    number_mask: u8,
    /// By rank: when work on the next refresh may begin.
    begin: [u64; RANKS],
    /// By rank: the number of the bank that the next REFsb takes.
    number: [u8; RANKS],
    /// By rank: banks that are being refreshed.
    held: [u32; RANKS],
    /// Ranks in which no ACT may go.
    acts_held: u8,
    /// By rank and number: queued requests.
    pending: [u16; RANKS * 4],
    /// No refresh command goes, and nothing is held, before this edge.
    pub(super) wake: u64,
}

/// Refresh commands in a round through all banks of a rank, and clocks between two of them.
fn interval(mode: RefreshMode, timing: &Timing, geometry: &Geometry) -> (u8, u64) {
    let t = |p| u64::from(timing.clocks(p));
    let (round, interval) = match mode {
        RefreshMode::SameBank => {
            let round = geometry.banks_per_group.max(1);
            (round, t(P::Refi2) / u64::from(round))
        }
        RefreshMode::AllBank | RefreshMode::Off => (1, t(P::Refi)),
    };
    (round, interval.max(1))
}

/// How many clocks before its time work on a refresh begins: what closing the banks takes at most.
pub(super) fn lead(mode: RefreshMode, timing: &Timing, geometry: &Geometry) -> u64 {
    let t = |p| u64::from(timing.clocks(p));
    // Closing: the last column command or ACT, PRE for each bank of a REFsb, and what other ranks do meanwhile.
    let close = t(P::Ras).max(t(P::Rtp)).max(t(P::Cwl) + t(P::HalfBurst) + t(P::Wr));
    let one_by_one = u64::from(geometry.bank_groups) * t(P::Ppd);
    let others = u64::from(geometry.ranks) * 2 * t(P::LongSlots);
    let closed = (close + t(P::Rp)).max(t(P::Rc));
    let lead = closed + t(P::RrdL) + one_by_one + others + 2;
    lead.min(interval(mode, timing, geometry).1 - 1)
}

impl Refresh {
    pub(super) fn new(
        mode: RefreshMode,
        postpone: u8,
        timing: &Timing,
        geometry: &Geometry,
    ) -> Refresh {
        let (round, interval) = interval(mode, timing, geometry);
        let lead = lead(mode, timing, geometry);
        let ranks = u64::from(geometry.ranks).max(1);
        let mut begin = [u64::MAX; RANKS];
        if mode != RefreshMode::Off {
            for (begin, n) in begin.iter_mut().zip(1..=ranks) {
                // Not at edge 0: nothing is due when a run begins.
                *begin = (interval * n / ranks).saturating_sub(lead).max(1);
            }
        }
        Refresh {
            mode,
            ranks: geometry.ranks,
            interval,
            // One that may wait no longer is out no later after the time for work than the others that many intervals
            // before: JEDEC's longest time between two is that many intervals and one.
            postpone: (interval * u64::from(postpone)).saturating_sub(lead),
            round,
            number_mask: round - 1,
            begin,
            number: [0; RANKS],
            held: [0; RANKS],
            acts_held: 0,
            pending: [0; RANKS * 4],
            wake: begin.iter().copied().min().unwrap_or(u64::MAX),
        }
    }

    fn set_of(&self, bank: Bank) -> usize {
        bank.rank() * 4 + usize::from(bank.index() & self.number_mask & 3)
    }
    /// A request for a bank was queued.
    pub(super) fn queued(&mut self, bank: Bank) {
        self.pending[self.set_of(bank)] += 1;
    }
    /// A request for a bank left its queue, at an edge.
    pub(super) fn left(&mut self, bank: Bank, edge: u64) {
        let set = self.set_of(bank);
        self.pending[set] -= 1;
        if self.pending[set] == 0 {
            self.wake = self.wake.min(self.begin[bank.rank()].max(edge));
        }
    }
    /// Whether a bank may get no command but for its refresh.
    pub(super) const fn holds(&self, bank: Bank) -> bool {
        self.held[bank.rank()] & bank.bit() != 0
    }
    /// Whether a rank may get no ACT.
    pub(super) const fn holds_acts(&self, rank: usize) -> bool {
        self.acts_held >> rank & 1 != 0
    }
    /// Whether this is the refresh of some banks that is under way.
    pub(super) const fn any_held(&self) -> bool {
        self.held[0] | self.held[1] | self.held[2] | self.held[3] != 0
    }

    /// Banks of a rank whose refresh begins at this edge: they are held from now on. None if there is no such rank.
    pub(super) fn begin(&mut self, geometry: &Geometry, edge: u64) -> Option<(usize, u32)> {
        for rank in 0..usize::from(self.ranks) % (RANKS + 1) {
            let number = self.number[rank];
            let pending = self.pending[rank * 4 + usize::from(number & 3)];
            let slack = if pending == 0 { 0 } else { self.postpone };
            if self.held[rank] == 0 && self.begin[rank].saturating_add(slack) <= edge {
                let banks = match self.mode {
                    RefreshMode::SameBank => geometry.same_banks(number),
                    RefreshMode::AllBank | RefreshMode::Off => geometry.all_banks(),
                };
                self.held[rank] = banks;
                return Some((rank, banks));
            }
        }
        None
    }

    /// The command of a refresh under way that goes at this edge. None: nothing goes before `wake`.
    pub(super) fn next(&mut self, device: &Device, edge: u64) -> Option<(Command, Bank)> {
        let mut wake = u64::MAX;
        for rank in 0..usize::from(self.ranks) % (RANKS + 1) {
            let (held, number) = (self.held[rank], self.number[rank]);
            let first = Bank::new(rank as u8, number);
            if held == 0 {
                let pending = self.pending[rank * 4 + usize::from(number & 3)];
                let slack = if pending == 0 { 0 } else { self.postpone };
                wake = wake.min(self.begin[rank].saturating_add(slack));
                continue;
            }
            let open = device.open_mask(rank) & held;
            let (command, mut among) = match (self.mode, open) {
                (RefreshMode::SameBank, 0) => {
                    self.acts_held |= 1 << rank;
                    (Command::RefSb, 1 << first.index())
                }
                (RefreshMode::SameBank, open) => (Command::Pre, open),
                (_, 0) => (Command::RefAb, 1),
                (..) => (Command::PreAb, 1),
            };
            while among != 0 {
                let bank = Bank::new(rank as u8, among.trailing_zeros() as u8);
                among &= among - 1;
                let earliest = device.earliest(command, bank);
                if earliest <= edge {
                    return Some((command, bank));
                }
                wake = wake.min(earliest);
            }
        }
        self.wake = wake;
        None
    }

    /// The refresh of a rank was issued: its banks are free again. Gives the banks.
    pub(super) fn done(&mut self, rank: usize) -> u32 {
        let rank = rank & 3;
        self.begin[rank] = self.begin[rank].saturating_add(self.interval);
        self.number[rank] = (self.number[rank] + 1) & self.number_mask;
        self.acts_held &= !(1 << rank);
        std::mem::take(&mut self.held[rank])
    }

    /// Skips rounds of refreshes of an idle subchannel whose rows are closed, so that at least two rounds are left before
    /// the edge `to`, and says how many refresh commands that were. What they would have left behind, the last two rounds
    /// leave behind as well.
    pub(super) fn skip(&mut self, device: &Device, edge: u64, to: u64) -> u64 {
        let ranks = usize::from(self.ranks) % (RANKS + 1);
        let settled = |rank: usize| {
            device.open_mask(rank) == 0 && self.begin[rank] >= edge && self.number[rank] == 0
        };
        let Some(latest) = self.begin.iter().take(ranks).max() else { return 0 };
        if self.any_held() || !(0..ranks).all(settled) {
            return 0;
        }
        let round = self.interval * u64::from(self.round);
        let rounds = (to.saturating_sub(*latest) / round).saturating_sub(2);
        for begin in self.begin.iter_mut().take(ranks) {
            *begin += rounds * round;
        }
        self.wake += rounds * round;
        rounds * u64::from(self.round) * ranks as u64
    }

    /// Clocks that so many rounds take.
    pub(super) const fn rounds(&self, n: u64) -> u64 {
        self.interval.saturating_mul(self.round as u64).saturating_mul(n)
    }

    /// Banks of a mask, as banks.
    pub(super) fn banks(rank: usize, mask: u32) -> impl Iterator<Item = Bank> {
        bits(mask).map(move |index| Bank::new(rank as u8, index))
    }
}
