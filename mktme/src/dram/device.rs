//! The DRAM devices of a subchannel: which rows are open, and the earliest legal moment of every command.
//!
//! Moments are absolute clock edges, raised when a command is issued and never counted down (peers.md §4 lessons 1, 2).
//! They are folded per scope: a bank has one for ACT, one for PRE and one for the column commands; a bank group one for
//! ACT, RD and WR; a rank one for each of these and for PREab, REFab and REFsb; the command bus one for all. A command's
//! earliest edge is the largest of three to five of them, and issuing one raises as many: no list of rules is walked.
//!
//! The distances come from [`CONSTRAINTS`], worked out once. *Why* a command must wait is found by walking that table over
//! the edges of the last commands, which are kept beside: the slow path, taken only when somebody asks
//! ([`Device::probe`]). A property test holds the two answers together for every command of random legal sequences.

use super::constraint::{COMMAND_COUNT, CONSTRAINTS, Command, Scope};
use super::map::Place;
use super::queue::Want;
use super::timing::Timing;
use serde::{Deserialize, Serialize};
use sim_core::Ps;
use thiserror::Error;

/// Most banks in a rank: 8 bank groups of 4.
pub(super) const BANKS_PER_RANK: usize = 32;
/// Most ranks.
pub(super) const RANKS: usize = 4;
/// Most banks.
pub(super) const BANKS: usize = RANKS * BANKS_PER_RANK;
/// The one window that is not 1 in [`CONSTRAINTS`]: tFAW's.
const WINDOW: u8 = 4;

/// Why a command may not be issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Blocked {
    /// Too early.
    #[error("{command} blocked by {by} until {until}")]
    Timing {
        /// The command.
        command: Command,
        /// Name of the binding constraint ([`CONSTRAINTS`]), or `tCK` between two clock edges.
        by: &'static str,
        /// When it is legal, if nothing else is issued.
        until: Ps,
    },
    /// ACT to an open bank, PRE to a closed one, a column command to another row than the open one.
    #[error("{command} to a bank whose open row is {open:?}")]
    Row {
        /// The command.
        command: Command,
        /// The open row, if any.
        open: Option<u64>,
    },
    /// A refresh of a bank whose row is open.
    #[error("{command} while bank {bank} of bank group {bank_group} is open")]
    Open {
        /// The command.
        command: Command,
        /// Bank group of the first such bank.
        bank_group: u8,
        /// Bank of the first such bank.
        bank: u8,
    },
    /// No such rank, bank group or bank.
    #[error("no such bank")]
    Place,
}

pub use super::organisation::Organisation as Geometry;

/// A bank, flat: the rank, and in the low five bits bank group times banks per group plus bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Bank(pub(super) u8);

impl Bank {
    pub(super) const fn new(rank: u8, index: u8) -> Bank {
        Bank((rank & 3) << 5 | index & 31)
    }
    /// Position among all banks of the subchannel.
    pub(super) const fn flat(self) -> usize {
        (self.0 & 127) as usize
    }
    pub(super) const fn rank(self) -> usize {
        (self.0 >> 5 & 3) as usize
    }
    /// Position within the rank.
    pub(super) const fn index(self) -> u8 {
        self.0 & 31
    }
    pub(super) const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
}

/// Where a line is within its subchannel, as queues and schedulers see it. Two words, so that it stays in two registers of the
/// host: small fields written to memory one by one and read back together make the host wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) row: u64,
    /// The bank, the bucket and, from bit 16 on, the column.
    small: u32,
}

impl Spot {
    #[inline]
    pub(super) const fn new(bank: Bank, row: u64, column: u16) -> Spot {
        let mixed = row ^ (column as u64) << 1 ^ (bank.0 as u64) << 3;
        let bucket = (mixed ^ mixed >> 8) as u8;
        Spot { row, small: bank.0 as u32 | (bucket as u32) << 8 | (column as u32) << 16 }
    }
    #[inline]
    pub(super) const fn bank(self) -> Bank {
        Bank(self.small as u8)
    }
    /// Which bucket of a queue's filter it falls into.
    #[inline]
    pub(super) const fn bucket(self) -> u8 {
        (self.small >> 8) as u8
    }
    #[inline]
    pub(super) const fn column(self) -> u16 {
        (self.small >> 16) as u16
    }
}

impl Geometry {
    const fn clamped(self) -> Geometry {
        const fn power(n: u8, most: u8) -> u8 {
            let n = if n == 0 { 1 } else { n };
            let n = 1 << (7 - n.leading_zeros());
            if n > most { most } else { n }
        }
        let ranks = if self.ranks == 0 { 1 } else { self.ranks };
        Geometry {
            ranks: if ranks > 4 { 4 } else { ranks },
            bank_groups: power(self.bank_groups, 8),
            banks_per_group: power(self.banks_per_group, 4),
            ..self
        }
    }
    const fn bank(&self, place: &Place) -> Option<Bank> {
        if place.rank >= self.ranks
            || place.bank_group >= self.bank_groups
            || place.bank >= self.banks_per_group
        {
            return None;
        }
        Some(Bank::new(place.rank, place.bank_group * self.banks_per_group + place.bank))
    }
    /// Bank group and bank of a flat bank.
    pub(super) const fn split(&self, bank: Bank) -> (u8, u8) {
        (bank.index() / self.banks_per_group, bank.index() % self.banks_per_group)
    }
    /// The banks of a rank.
    pub(super) const fn all_banks(&self) -> u32 {
        let banks = self.bank_groups as u32 * self.banks_per_group as u32;
        if banks >= 32 { u32::MAX } else { (1 << banks) - 1 }
    }
    /// The banks of a rank that have a number in their bank groups: those of one REFsb.
    pub(super) fn same_banks(&self, number: u8) -> u32 {
        let number = number % self.banks_per_group;
        (0..self.bank_groups).fold(0, |mask, g| mask | 1 << (g * self.banks_per_group + number))
    }
}

/// What the scheduler may do, as an index into the edges of bank groups and ranks: the column commands, which a queue
/// counts from zero, and then the rest of [`Want`](super::queue::Want), each one further on than there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    /// RD, RDA.
    Rd = 0,
    /// WR, WRA.
    Wr = 1,
    Act = 2,
    Pre = 3,
}
/// How many there are.
const GATES: usize = 4;
const ACT: usize = Gate::Act as usize;
const PRE: usize = Gate::Pre as usize;
const RD: usize = Gate::Rd as usize;
const WR: usize = Gate::Wr as usize;
// Of a bank's edges, which do not tell reads from writes.
const OWN_COLUMN: usize = Want::Column as usize;
const OWN_ACT: usize = Want::Row as usize;
const OWN_PRE: usize = Want::Close as usize;

/// Earliest edges by constraints of a bank alone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct BankEdges {
    /// Column commands, ACT, PRE.
    edges: [u64; 3],
    /// The open row, while the bank is open.
    row: u64,
}

/// Earliest edges by constraints of a bank group alone, by [`Gate`]; nothing holds up PRE.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct GroupEdges([u64; GATES]);

/// Earliest edges by constraints of a rank and of other ranks, by [`Gate`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct RankEdges([u64; GATES]);

/// The last commands of a rank.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct RankCommands {
    /// By command: the edge of the last one in the rank plus one, zero if none. What refreshes wait for is worked out from
    /// these when it is asked, as they are few.
    last: [u64; COMMAND_COUNT],
    /// Edges of the last four ACTs plus one (zero: none), a ring.
    acts: [u64; 4],
    /// Where the oldest of them is.
    oldest: u8,
}

impl RankCommands {
    /// The earliest edge of a command, from the clocks until it by preceding command.
    fn until(&self, clocks: &[u32; COMMAND_COUNT]) -> u64 {
        let mut edge = 0;
        for (&last, &clocks) in self.last.iter().zip(clocks) {
            if last != 0 && clocks != 0 {
                edge = edge.max(last - 1 + u64::from(clocks));
            }
        }
        edge
    }
}

/// What a column command raises, in clocks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct ColumnClocks {
    pre: u32,
    /// Same kind, other kind; in the bank group, rank, and other ranks.
    same_group: u32,
    turn_group: u32,
    same_rank: u32,
    turn_rank: u32,
    same_other: u32,
    turn_other: u32,
    /// With auto-precharge.
    auto_act: u32,
}

/// The clocks of [`CONSTRAINTS`], by preceding command.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Clocks {
    act_act: u32,
    act_col: u32,
    act_pre: u32,
    act_act_group: u32,
    act_act_rank: u32,
    faw: u32,
    rd: ColumnClocks,
    wr: ColumnClocks,
    wr_rda: u32,
    pre_act: u32,
    pre_pre: u32,
    pre_ab_act: u32,
    pre_ab_pre: u32,
    ref_ab_act: u32,
    ref_ab_pre: u32,
    ref_sb_act_same: u32,
    ref_sb_act: u32,
    /// By preceding command: until PREab, REFab and REFsb of the rank.
    pre_ab: [u32; COMMAND_COUNT],
    ref_ab: [u32; COMMAND_COUNT],
    ref_sb: [u32; COMMAND_COUNT],
    /// By preceding command: until REFsb of the banks of the same number.
    ref_sb_same: [u32; COMMAND_COUNT],
    /// Slots of the command bus.
    two_slots: u32,
    one_slot: u32,
}

impl Clocks {
    fn of(timing: &Timing) -> Clocks {
        use Command::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
        use Scope::{Bank, BankGroup, OtherRank, Rank, SameBank, Subchannel};
        let window = |window: u8, scope: Scope, from: Command, to: Command| {
            let rows = CONSTRAINTS.iter().filter(|r| r.window == window && r.scope == scope);
            rows.filter(|r| r.from.contains(&from) && r.to.contains(&to))
                .map(|r| r.clocks(timing, from, to))
                .max()
                .unwrap_or(0)
        };
        let c = |scope, from, to| window(1, scope, from, to);
        let column = |kind, auto, other| ColumnClocks {
            pre: c(Bank, kind, Pre),
            same_group: c(BankGroup, kind, kind),
            turn_group: c(BankGroup, kind, other),
            same_rank: c(Rank, kind, kind),
            turn_rank: c(Rank, kind, other),
            same_other: c(OtherRank, kind, kind),
            turn_other: c(OtherRank, kind, other),
            auto_act: c(Bank, auto, Act),
        };
        let until = |scope, to| Command::ALL.map(|from| c(scope, from, to));
        Clocks {
            act_act: c(Bank, Act, Act),
            act_col: c(Bank, Act, Rd),
            act_pre: c(Bank, Act, Pre),
            act_act_group: c(BankGroup, Act, Act),
            act_act_rank: c(Rank, Act, Act),
            faw: window(WINDOW, Rank, Act, Act),
            rd: column(Rd, Rda, Wr),
            wr: column(Wr, Wra, Rd),
            wr_rda: c(Bank, Wr, Rda),
            pre_act: c(Bank, Pre, Act),
            pre_pre: c(Rank, Pre, Pre),
            pre_ab_act: c(Rank, PreAb, Act),
            pre_ab_pre: c(Rank, PreAb, Pre),
            ref_ab_act: c(Rank, RefAb, Act),
            ref_ab_pre: c(Rank, RefAb, Pre),
            ref_sb_act_same: c(SameBank, RefSb, Act),
            ref_sb_act: c(Rank, RefSb, Act),
            pre_ab: until(Rank, PreAb),
            ref_ab: until(Rank, RefAb),
            ref_sb: until(Rank, RefSb),
            ref_sb_same: until(SameBank, RefSb),
            two_slots: c(Subchannel, Act, Act),
            one_slot: c(Subchannel, Pre, Act),
        }
    }
}

/// Where a gate is, of one queue's commands.
#[inline]
const fn gate_of(writes: bool, want: Want) -> usize {
    if matches!(want, Want::Column) { writes as usize } else { want as usize + 1 }
}

#[inline]
fn raise(edge: &mut u64, from: u64, clocks: u32) {
    *edge = (*edge).max(from + u64::from(clocks));
}

/// The last edges of a command, by bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LastEdges(#[serde(with = "super::arrays")] [u64; BANKS]);

/// The devices of a subchannel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    timing: Timing,
    geometry: Geometry,
    clocks: Clocks,
    /// Leaves of a bank its group: the groups in use lie side by side, in few lines of the host's cache.
    group_shift: u32,
    #[serde(with = "super::arrays")]
    banks: [BankEdges; BANKS],
    /// By rank and bank group.
    #[serde(with = "super::arrays")]
    groups: [GroupEdges; BANKS],
    ranks: [RankEdges; RANKS],
    commands: [RankCommands; RANKS],
    /// Banks with an open row, by rank.
    open: [u32; RANKS],
    bus: u64,
    /// By command and bank: the edge of the last one plus one, zero if none. PREab and REFab are kept under bank 0 of their
    /// rank, REFsb under the bank of its number in bank group 0. Read by explanations, for REFsb and for RDA.
    last: [LastEdges; COMMAND_COUNT],
}

impl Device {
    /// Devices with all rows closed and nothing issued yet. Of a geometry beyond the limits only what is within is built;
    /// the rest is [`Blocked::Place`].
    pub fn new(timing: Timing, geometry: Geometry) -> Device {
        let geometry = geometry.clamped();
        Device {
            timing,
            geometry,
            clocks: Clocks::of(&timing),
            group_shift: geometry.banks_per_group.trailing_zeros(),
            banks: [BankEdges::default(); BANKS],
            groups: [GroupEdges::default(); BANKS],
            ranks: [RankEdges::default(); RANKS],
            commands: [RankCommands::default(); RANKS],
            open: [0; RANKS],
            bus: 0,
            last: [LastEdges([0; BANKS]); COMMAND_COUNT],
        }
    }

    /// The timing it obeys.
    pub const fn timing(&self) -> &Timing {
        &self.timing
    }
    /// Its ranks and banks.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The open row of the bank at a place, if any.
    pub fn open_row(&self, place: &Place) -> Option<u64> {
        self.row_of(self.geometry.bank(place)?)
    }

    /// Whether a command may be issued at a moment, in the present state. Changes nothing. Of the place, PREab and REFab
    /// look at the rank alone, REFsb at rank and bank, and only column commands at the row.
    ///
    /// # Errors
    /// What blocks it, and until when.
    pub fn probe(&self, command: Command, place: &Place, at: Ps) -> Result<(), Blocked> {
        let bank = self.locate(command, place)?;
        let open = self.row_of(bank);
        let refused = match command {
            Command::Act => open.is_some(),
            Command::Pre => open.is_none(),
            Command::Rd | Command::Wr | Command::Rda | Command::Wra => open != Some(place.row),
            Command::PreAb | Command::RefAb | Command::RefSb => false,
        };
        if refused {
            return Err(Blocked::Row { command, open });
        }
        let open = self.open_mask(bank.rank())
            & match command {
                Command::RefAb => u32::MAX,
                Command::RefSb => self.geometry.same_banks(place.bank),
                _ => 0,
            };
        if open != 0 {
            let first = Bank::new(bank.rank() as u8, open.trailing_zeros() as u8);
            let (bank_group, bank) = self.geometry.split(first);
            return Err(Blocked::Open { command, bank_group, bank });
        }
        let edge = self.timing.edge_from(at);
        let (earliest, by) = self.explain(command, bank);
        if earliest > edge {
            let until = self.timing.moment(earliest);
            return Err(Blocked::Timing { command, by, until });
        }
        if self.timing.moment(edge) != at {
            return Err(Blocked::Timing { command, by: "tCK", until: self.timing.moment(edge) });
        }
        Ok(())
    }

    /// Issues a command.
    ///
    /// # Errors
    /// Those of [`Device::probe`]; nothing has changed then.
    pub fn issue(&mut self, command: Command, place: &Place, at: Ps) -> Result<(), Blocked> {
        self.probe(command, place, at)?;
        let bank = self.locate(command, place)?;
        self.apply(command, bank, place.row, self.timing.edge_from(at));
        Ok(())
    }

    /// The bank under whose name a command goes.
    fn locate(&self, command: Command, place: &Place) -> Result<Bank, Blocked> {
        let place = match command {
            Command::PreAb | Command::RefAb => Place { bank_group: 0, bank: 0, ..*place },
            Command::RefSb => Place { bank_group: 0, ..*place },
            _ => *place,
        };
        self.geometry.bank(&place).ok_or(Blocked::Place)
    }

    #[inline]
    fn bank(&self, bank: Bank) -> &BankEdges {
        &self.banks[bank.flat()]
    }
    #[inline]
    fn group(&self, bank: Bank) -> &GroupEdges {
        &self.groups[self.group_of(bank)]
    }
    /// The earliest edge of a command by the constraints of its bank alone.
    #[inline]
    pub(super) fn ready(&self, want: Want, bank: Bank) -> u64 {
        self.bank(bank).edges[want as usize]
    }
    /// The same by those of its bank group and of ranks.
    #[inline]
    pub(super) fn gate(&self, writes: bool, want: Want, bank: Bank) -> u64 {
        let gate = gate_of(writes, want);
        self.ranks[bank.rank()].0[gate].max(self.group(bank).0[gate])
    }
    /// The same by those of ranks alone.
    #[inline]
    pub(super) fn gate_of_rank(&self, writes: bool, want: Want, rank: usize) -> u64 {
        self.ranks[rank & 3].0[gate_of(writes, want)]
    }
    #[inline]
    fn group_of(&self, bank: Bank) -> usize {
        bank.flat().wrapping_shr(self.group_shift)
    }
    /// The earliest edge of any command, by the command bus alone.
    #[inline]
    pub(super) const fn bus(&self) -> u64 {
        self.bus
    }
    /// Banks of a rank with an open row.
    #[inline]
    pub(super) const fn open_mask(&self, rank: usize) -> u32 {
        self.open[rank & 3]
    }
    #[inline]
    pub(super) fn row_of(&self, bank: Bank) -> Option<u64> {
        (self.open_mask(bank.rank()) & bank.bit() != 0).then(|| self.bank(bank).row)
    }

    /// The earliest edge of a command, whatever row is open.
    pub(super) fn earliest(&self, command: Command, bank: Bank) -> u64 {
        let commands = &self.commands[bank.rank()];
        let own = match command {
            Command::Act => self.ready(Want::Row, bank).max(self.gate(false, Want::Row, bank)),
            Command::Pre => self.ready(Want::Close, bank).max(self.gate(false, Want::Close, bank)),
            Command::Rd => self.earliest_column(false, bank),
            Command::Rda => self.earliest_column(false, bank).max(self.auto_read(bank)),
            Command::Wr | Command::Wra => self.earliest_column(true, bank),
            Command::PreAb => commands.until(&self.clocks.pre_ab),
            Command::RefAb => commands.until(&self.clocks.ref_ab),
            Command::RefSb => commands.until(&self.clocks.ref_sb).max(self.until_same(bank)),
        };
        own.max(self.bus)
    }

    fn earliest_column(&self, writes: bool, bank: Bank) -> u64 {
        self.ready(Want::Column, bank).max(self.gate(writes, Want::Column, bank))
    }

    /// When the commands of a read would go at the earliest, if nothing else was issued and none goes before the edge `from`:
    /// the first of them, ACT and RD. If the row is open, RD is the first; if another is, PRE is.
    #[inline]
    pub(super) fn read_edges(&self, bank: Bank, row: u64, from: u64) -> (u64, u64, u64) {
        let (c, own, group) = (&self.clocks, self.bank(bank), self.group(bank));
        let rank = &self.ranks[bank.rank()];
        let from = from.max(self.bus);
        let column = own.edges[OWN_COLUMN].max(group.0[RD]).max(rank.0[RD]).max(from);
        let act = own.edges[OWN_ACT].max(group.0[ACT]).max(rank.0[ACT]).max(from);
        let open = self.open_mask(bank.rank()) & bank.bit() != 0;
        if !open {
            return (act, act, column.max(act + u64::from(c.act_col.max(c.two_slots))));
        }
        if own.row == row {
            return (column, column, column);
        }
        let pre = own.edges[OWN_PRE].max(rank.0[PRE]).max(from);
        let act = act.max(pre + u64::from(c.pre_act.max(c.one_slot)));
        (pre, act, column.max(act + u64::from(c.act_col.max(c.two_slots))))
    }

    /// The earliest edge of RDA by tWTRA, which RD does not have: what was written must be in the array when the row is
    /// closed. Worked out when it is asked, as rows are read, then closed, soon after a write to them only rarely.
    pub(super) fn auto_read(&self, bank: Bank) -> u64 {
        match self.last[Command::Wr as usize].0[bank.flat()].checked_sub(1) {
            Some(write) => write + u64::from(self.clocks.wr_rda),
            None => 0,
        }
    }

    /// The earliest edge of REFsb by constraints of the banks of the same number.
    fn until_same(&self, bank: Bank) -> u64 {
        let mut edge = 0;
        for index in super::queue::bits(self.geometry.same_banks(self.number(bank) as u8)) {
            let bank = Bank::new(bank.rank() as u8, index).flat();
            for (last, &clocks) in self.last.iter().zip(&self.clocks.ref_sb_same) {
                if last.0[bank] != 0 && clocks != 0 {
                    edge = edge.max(last.0[bank] - 1 + u64::from(clocks));
                }
            }
        }
        edge
    }

    /// Number of a bank in its bank group.
    #[inline]
    const fn number(&self, bank: Bank) -> usize {
        (bank.index() & (self.geometry.banks_per_group - 1) & 3) as usize
    }

    /// Issues a command that is known to be legal.
    pub(super) fn apply(&mut self, command: Command, bank: Bank, row: u64, edge: u64) {
        match command {
            Command::Act => self.apply_act(bank, row, edge),
            Command::Pre => self.apply_pre(bank, edge),
            Command::Rd => self.apply_column(false, false, bank, edge),
            Command::Rda => self.apply_column(false, true, bank, edge),
            Command::Wr => self.apply_column(true, false, bank, edge),
            Command::Wra => self.apply_column(true, true, bank, edge),
            Command::PreAb | Command::RefAb | Command::RefSb => {
                self.apply_to_rank(command, bank, edge);
            }
        }
    }

    #[inline]
    fn note(&mut self, command: Command, bank: Bank, edge: u64) {
        self.last[command as usize].0[bank.flat()] = edge + 1;
        self.commands[bank.rank()].last[command as usize] = edge + 1;
    }

    #[inline]
    pub(super) fn apply_act(&mut self, bank: Bank, row: u64, edge: u64) {
        self.note(Command::Act, bank, edge);
        let (c, group) = (&self.clocks, self.group_of(bank));
        let own = &mut self.banks[bank.flat()];
        own.row = row;
        raise(&mut own.edges[OWN_ACT], edge, c.act_act);
        raise(&mut own.edges[OWN_PRE], edge, c.act_pre);
        raise(&mut own.edges[OWN_COLUMN], edge, c.act_col);
        raise(&mut self.groups[group].0[ACT], edge, c.act_act_group);
        self.open[bank.rank()] |= bank.bit();
        let rank = &mut self.ranks[bank.rank()];
        let commands = &mut self.commands[bank.rank()];
        raise(&mut rank.0[ACT], edge, c.act_act_rank);
        // The next ACT comes tFAW after the fourth last, which is the one that follows in the ring.
        commands.acts[usize::from(commands.oldest & 3)] = edge + 1;
        commands.oldest = (commands.oldest + 1) & 3;
        let fourth = commands.acts[usize::from(commands.oldest & 3)];
        if fourth != 0 {
            raise(&mut rank.0[ACT], fourth - 1, c.faw);
        }
        self.bus = edge + u64::from(c.two_slots);
    }

    #[inline]
    pub(super) fn apply_pre(&mut self, bank: Bank, edge: u64) {
        self.note(Command::Pre, bank, edge);
        let c = &self.clocks;
        raise(&mut self.banks[bank.flat()].edges[OWN_ACT], edge, c.pre_act);
        self.open[bank.rank()] &= !bank.bit();
        let rank = &mut self.ranks[bank.rank()];
        raise(&mut rank.0[PRE], edge, c.pre_pre);
        self.bus = edge + u64::from(c.one_slot);
    }

    #[inline]
    pub(super) fn apply_column(&mut self, write: bool, auto: bool, bank: Bank, edge: u64) {
        self.note(Command::column(write, auto), bank, edge);
        let c = if write { &self.clocks.wr } else { &self.clocks.rd };
        let (group, r) = (self.group_of(bank), bank.rank());
        let own = &mut self.banks[bank.flat()];
        let (raised, clocks) = if auto { (OWN_ACT, c.auto_act) } else { (OWN_PRE, c.pre) };
        raise(&mut own.edges[raised], edge, clocks);
        self.open[r] &= !(bank.bit() * u32::from(auto));
        let group = &mut self.groups[group];
        let (same, turn) = if write { (WR, RD) } else { (RD, WR) };
        raise(&mut group.0[same], edge, c.same_group);
        raise(&mut group.0[turn], edge, c.turn_group);
        let mut rank = 0;
        while rank < self.geometry.ranks {
            let edges = &mut self.ranks[usize::from(rank & 3)];
            let own = usize::from(rank) == r;
            raise(&mut edges.0[same], edge, if own { c.same_rank } else { c.same_other });
            raise(&mut edges.0[turn], edge, if own { c.turn_rank } else { c.turn_other });
            rank += 1;
        }
        self.bus = edge + u64::from(self.clocks.two_slots);
    }

    fn apply_to_rank(&mut self, command: Command, bank: Bank, edge: u64) {
        self.note(command, bank, edge);
        let c = self.clocks;
        let (r, number) = (bank.rank(), self.number(bank));
        let rank = &mut self.ranks[r];
        match command {
            Command::PreAb => {
                self.open[r] = 0;
                raise(&mut rank.0[ACT], edge, c.pre_ab_act);
                raise(&mut rank.0[PRE], edge, c.pre_ab_pre);
            }
            Command::RefAb => {
                raise(&mut rank.0[ACT], edge, c.ref_ab_act);
                raise(&mut rank.0[PRE], edge, c.ref_ab_pre);
            }
            _ => {
                raise(&mut rank.0[ACT], edge, c.ref_sb_act);
                for index in super::queue::bits(self.geometry.same_banks(number as u8)) {
                    let bank = Bank::new(r as u8, index);
                    raise(&mut self.banks[bank.flat()].edges[OWN_ACT], edge, c.ref_sb_act_same);
                }
            }
        }
        self.bus = edge + u64::from(c.one_slot);
    }

    /// The earliest edge of a command and the constraint that makes it so, from [`CONSTRAINTS`] and the last commands: the
    /// slow and obvious way. Of two constraints with the same edge, the later row.
    pub(super) fn explain(&self, command: Command, bank: Bank) -> (u64, &'static str) {
        let mut latest = (0, "");
        for row in CONSTRAINTS.iter().filter(|row| row.to.contains(&command)) {
            for &from in row.from {
                let last = if row.window == WINDOW {
                    let commands = &self.commands[bank.rank()];
                    commands.acts[usize::from(commands.oldest & 3)]
                } else {
                    self.last_of(from, row.scope, bank)
                };
                if let Some(last) = last.checked_sub(1) {
                    let edge = last + u64::from(row.clocks(&self.timing, from, command));
                    if edge >= latest.0 {
                        latest = (edge, row.name);
                    }
                }
            }
        }
        latest
    }

    /// The edge of the last command of a kind in a scope around a bank, plus one; zero if there was none.
    fn last_of(&self, command: Command, scope: Scope, around: Bank) -> u64 {
        let inside = |bank: Bank| match scope {
            Scope::Bank => bank == around,
            Scope::SameBank => {
                bank.rank() == around.rank() && self.number(bank) == self.number(around)
            }
            Scope::BankGroup => self.group_of(bank) == self.group_of(around),
            Scope::Rank => bank.rank() == around.rank(),
            Scope::OtherRank => bank.rank() != around.rank(),
            Scope::Subchannel => true,
        };
        let banks = (0u8..).zip(&self.last[command as usize].0).filter(|&(n, _)| inside(Bank(n)));
        banks.map(|(_, &last)| last).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::constraint::Constraint;
    use super::super::timing::{PARAMETER_COUNT, Parameter, TIMING_TABLE};
    use super::*;
    use proptest::prelude::*;
    use sim_core::platform::SpeedGrade;

    const GEOMETRY: Geometry =
        Geometry { ranks: 2, bank_groups: 8, banks_per_group: 4, rows: 1 << 16, columns: 1 << 11 };

    fn place(rank: u8, bank_group: u8, bank: u8) -> Place {
        Place { channel: 0, subchannel: 0, rank, bank_group, bank, row: 7, column: 0 }
    }

    /// A timing in which everything takes one clock, but for the parameter that gives a row its name.
    fn only(row: &Constraint) -> Timing {
        let base = Timing::of_grade(SpeedGrade::Ddr5_4800);
        let short = TIMING_TABLE.iter().fold(base, |t, r| t.with(r.parameter, 1));
        short.with(*row.plus.last().unwrap(), 500)
    }

    fn edge(device: &Device, edge: u64) -> Ps {
        device.timing().moment(edge)
    }

    #[test]
    fn every_constraint_blocks_one_clock_before_its_time_and_not_at_its_time() {
        use Command::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
        let pairs = |r: &'static Constraint| {
            r.from.iter().flat_map(move |&from| r.to.iter().map(move |&to| (r, from, to)))
        };
        let mut unreachable = 0;
        for (row, first, to) in CONSTRAINTS.iter().flat_map(pairs) {
            let what = format!("{} {:?} {first} to {to}", row.name, row.scope);
            let mut device = Device::new(only(row), GEOMETRY);
            let mut issue = |command, place: &Place, n| {
                let at = edge(&device, n);
                assert_eq!(device.issue(command, place, at), Ok(()), "{what}: {command} at {n}");
            };
            let a = place(0, 0, 0);
            let b = match row.scope {
                Scope::Bank => a,
                Scope::SameBank if to == RefSb => a,
                Scope::SameBank => place(0, 3, 0),
                Scope::BankGroup => place(0, 0, 1),
                Scope::Rank => place(0, 5, 1),
                Scope::OtherRank | Scope::Subchannel => place(1, 0, 0),
            };
            if (first, to) == (RefAb, Pre) && row.scope != Scope::Subchannel {
                // PRE needs an open row, REFab closed ones, and ACT waits as long as PRE.
                unreachable += 1;
                continue;
            }
            // Whatever must be open is opened long before.
            if matches!(first, Pre | Rd | Wr | Rda | Wra) {
                issue(Act, &a, 0);
            }
            if matches!(to, Pre | Rd | Wr | Rda | Wra)
                && b != a
                && !(first == PreAb && row.scope == Scope::Rank)
            {
                issue(Act, &b, 2000);
            }
            let mut start = 10_000;
            for n in 0..row.window {
                issue(first, &Place { bank_group: n, ..a }, start + u64::from(n));
            }
            match (first, to) {
                (Act, Act) if b == a => issue(Pre, &a, start + 1),
                (Act, RefAb) if row.scope == Scope::Rank => issue(Pre, &a, start + 1),
                (Act, RefSb) if b == a => issue(Pre, &a, start + 1),
                (PreAb, Pre) if row.scope == Scope::Rank => issue(Act, &b, start + 1),
                _ => {}
            }
            start += u64::from(row.clocks(device.timing(), first, to));
            let until = edge(&device, start);
            assert_eq!(
                device.probe(to, &b, edge(&device, start - 1)),
                Err(Blocked::Timing { command: to, by: row.name, until }),
                "{what}",
            );
            assert_eq!(device.probe(to, &b, until), Ok(()), "{what}");
            assert_eq!(device.issue(to, &b, until), Ok(()), "{what}");
        }
        assert_eq!(unreachable, 1);
    }

    /// What binds at DDR5-4800, and for how many clocks: the numbers of the sheet, not of the table.
    #[test]
    fn at_4800_each_pair_of_commands_is_apart_by_the_clocks_of_the_sheet() {
        use Command::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
        let far = (1, 0, 0);
        for (from, to, b, by, clocks) in [
            (Act, Rd, (0, 0, 0), "tRCD", 39),
            (Act, Wr, (0, 0, 0), "tRCD", 39),
            (Act, Pre, (0, 0, 0), "tRAS", 77 + 1),
            (Pre, Act, (0, 0, 0), "tRP", 39),
            (Rd, Pre, (0, 0, 0), "tRTP", 18 + 1),
            (Wr, Pre, (0, 0, 0), "tWR", 38 + 8 + 72 + 1),
            (Act, Act, (0, 0, 1), "tRRD_L", 12),
            (Act, Act, (0, 1, 0), "tRRD_S", 8),
            (Rd, Rd, (0, 0, 0), "tCCD_L", 12),
            (Rd, Rd, (0, 0, 1), "tCCD_L", 12),
            (Rd, Rd, (0, 1, 0), "tCCD_S", 8),
            (Wr, Wr, (0, 0, 1), "tCCD_L_WR", 48),
            (Wr, Wr, (0, 1, 0), "tCCD_S_WR", 8),
            (Wr, Rd, (0, 0, 1), "tWTR_L", 38 + 8 + 24),
            (Wr, Rd, (0, 1, 0), "tWTR_S", 38 + 8 + 6),
            (Rd, Wr, (0, 0, 0), "tRTW", 40 + 8 + 4 - 38),
            (Pre, Pre, (0, 1, 0), "tPPD", 2),
            (Rd, Rd, far, "tCS RD-RD", 10),
            (Wr, Wr, far, "tCS WR-WR", 10),
            (Rd, Wr, far, "tCS RD-WR", 40 + 8 + 2 - 38),
            (Wr, Rd, far, "tCS WR-RD", 38 + 8 + 2 - 40),
            (Act, Act, far, "command bus", 2),
            (Rd, Pre, far, "command bus", 2),
            (Pre, Act, far, "command bus", 1),
            (Rda, Act, (0, 0, 0), "tRTP + tRP", 18 + 39),
            (Wra, Act, (0, 0, 0), "tWR + tRP", 38 + 8 + 72 + 39),
            (Rda, RefAb, (0, 0, 0), "tRTP + tRP", 18 + 39 + 1),
            (Wra, RefSb, (0, 0, 0), "tWR + tRP", 38 + 8 + 72 + 39 + 1),
            (Act, PreAb, (0, 1, 1), "tRAS", 77 + 1),
            (PreAb, Act, (0, 1, 1), "tRP", 39),
            (PreAb, RefAb, (0, 0, 0), "tRP", 39),
            (RefAb, Act, (0, 1, 1), "tRFC1", 708),
            (RefSb, Act, (0, 1, 0), "tRFCsb", 312),
            (RefSb, Act, (0, 1, 1), "tREFSBRD", 72),
            (Act, RefSb, (0, 1, 1), "tRRD_L", 12 + 1),
        ] {
            let mut device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
            let (a, b) = (place(0, 0, 0), place(b.0, b.1, b.2));
            if matches!(from, Pre | Rd | Wr | Rda | Wra) {
                device.issue(Act, &a, edge(&device, 0)).unwrap();
            }
            if matches!(to, Pre | Rd | Wr) && b != a {
                device.issue(Act, &b, edge(&device, 1000)).unwrap();
            }
            device.issue(from, &a, edge(&device, 5000)).unwrap();
            let until = edge(&device, 5000 + clocks);
            let early = device.probe(to, &b, edge(&device, 4999 + clocks));
            assert_eq!(early, Err(Blocked::Timing { command: to, by, until }), "{from} {to}");
            assert_eq!(device.probe(to, &b, until), Ok(()), "{from} {to}");
        }
    }

    #[test]
    fn the_fifth_activate_waits_for_the_first_one_in_the_window() {
        let timing = Timing::of_grade(SpeedGrade::Ddr5_4800).with(Parameter::Faw, 48);
        let mut device = Device::new(timing, GEOMETRY);
        for group in 0..4 {
            device
                .issue(Command::Act, &place(0, group, 0), edge(&device, 8 * u64::from(group)))
                .unwrap();
        }
        let until = edge(&device, 48);
        assert_eq!(
            device.probe(Command::Act, &place(0, 4, 0), edge(&device, 47)),
            Err(Blocked::Timing { command: Command::Act, by: "tFAW", until })
        );
        assert_eq!(device.probe(Command::Act, &place(1, 4, 0), edge(&device, 47)), Ok(()));
        assert_eq!(device.issue(Command::Act, &place(0, 4, 0), until), Ok(()));
        assert_eq!(
            device.probe(Command::Act, &place(0, 5, 0), edge(&device, 55)),
            Err(Blocked::Timing { command: Command::Act, by: "tFAW", until: edge(&device, 56) })
        );
    }

    #[test]
    fn commands_that_do_not_fit_the_open_row_are_refused_and_change_nothing() {
        let mut device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
        let (here, other) = (place(0, 0, 0), Place { row: 8, ..place(0, 0, 0) });
        let late = |n: u64| Ps(416 * 1000 * n);
        for command in [Command::Pre, Command::Rd, Command::Wr] {
            assert_eq!(
                device.issue(command, &here, late(1)),
                Err(Blocked::Row { command, open: None })
            );
        }
        device.issue(Command::Act, &here, late(2)).unwrap();
        let before = device.clone();
        for (command, place) in [(Command::Act, here), (Command::Rd, other), (Command::Wr, other)] {
            assert_eq!(
                device.issue(command, &place, late(3)),
                Err(Blocked::Row { command, open: Some(7) })
            );
        }
        for nowhere in [place(2, 0, 0), place(0, 8, 0), place(0, 0, 4)] {
            assert_eq!(device.issue(Command::Act, &nowhere, late(3)), Err(Blocked::Place));
        }
        assert_eq!(device, before);
        assert_eq!(device.open_row(&here), Some(7));
    }

    #[test]
    fn a_command_between_two_clock_edges_waits_for_the_next_edge() {
        let device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
        assert_eq!(
            device.probe(Command::Act, &place(0, 0, 0), Ps(417)),
            Err(Blocked::Timing { command: Command::Act, by: "tCK", until: Ps(832) })
        );
    }

    #[test]
    fn a_refresh_of_open_banks_is_refused_by_the_name_of_the_first() {
        use Command::{Act, RefAb, RefSb};
        let mut device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
        device.issue(Act, &place(0, 3, 1), edge(&device, 0)).unwrap();
        let late = edge(&device, 10_000);
        for (command, bank) in [(RefAb, 0), (RefSb, 1)] {
            assert_eq!(
                device.issue(command, &place(0, 0, bank), late),
                Err(Blocked::Open { command, bank_group: 3, bank: 1 })
            );
        }
        assert_eq!(device.issue(RefSb, &place(0, 0, 2), late), Ok(()), "other banks may be open");
        assert_eq!(device.issue(RefAb, &place(1, 0, 0), edge(&device, 10_001)), Ok(()));
    }

    #[test]
    fn auto_precharge_closes_the_row_at_once() {
        for command in [Command::Rda, Command::Wra] {
            let mut device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
            device.issue(Command::Act, &place(0, 0, 0), edge(&device, 0)).unwrap();
            device.issue(command, &place(0, 0, 0), edge(&device, 39)).unwrap();
            assert_eq!(device.open_row(&place(0, 0, 0)), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        /// The folded edges and the table agree on when every command may go to every bank, after every command of any
        /// legal sequence, whatever the timing.
        #[test]
        fn the_folded_edges_are_those_of_the_table(
            clocks in prop::collection::vec(1u32..60, PARAMETER_COUNT),
            real in any::<bool>(),
            steps in prop::collection::vec((0usize..9, 0u8..2, 0u8..4, 0u8..4, 0u64..2, 0u64..40), 1..40),
        ) {
            let base = Timing::of_grade(SpeedGrade::Ddr5_6400);
            let random = TIMING_TABLE.iter().zip(&clocks);
            let mut timing = random.fold(base, |t, (row, &n)| t.with(row.parameter, n));
            // The slots are what they are: a command of one slot goes before one of two.
            timing = timing.with(Parameter::LongSlots, 2).with(Parameter::ShortSlots, 1);
            let geometry = Geometry { bank_groups: 4, ..GEOMETRY };
            let mut device = Device::new(if real { base } else { timing }, geometry);
            let mut now = 0;
            for (command, rank, bank_group, bank, row, delay) in steps {
                let command = Command::ALL[command];
                let at = Place { row, ..place(rank, bank_group, bank) };
                let Ok(under) = device.locate(command, &at) else { continue };
                now = now.max(device.explain(command, under).0) + delay;
                let legal = device.issue(command, &at, edge(&device, now)).is_ok();
                now += u64::from(legal);
                for command in Command::ALL {
                    for bank in (0..2).flat_map(|r| (0..16).map(move |i| Bank::new(r, i))) {
                        let place = device.geometry.split(bank);
                        let place = Place { rank: bank.rank() as u8, bank_group: place.0, bank: place.1, ..at };
                        let bank = device.locate(command, &place).unwrap();
                        prop_assert_eq!(
                            device.earliest(command, bank), device.explain(command, bank).0,
                            "{} {:?} by {}", command, bank, device.explain(command, bank).1
                        );
                    }
                }
            }
        }
    }
}
