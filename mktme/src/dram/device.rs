//! The DRAM devices of a subchannel: which rows are open, and the earliest legal moment of every command.
//!
//! Moments are absolute clock edges, raised when a command is issued and never counted down (peers.md §4 lessons 1, 2).

use super::constraint::{COMMAND_COUNT, CONSTRAINTS, Command, Scope};
use super::map::Place;
use super::timing::Timing;
use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use sim_core::Ps;
use thiserror::Error;

/// Most banks in a rank: 8 bank groups of 4.
pub(super) const BANKS_PER_RANK: usize = 32;

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
    /// ACT to an open bank, PRE to a closed one, RD or WR to another row than the open one.
    #[error("{command} to a bank whose open row is {open:?}")]
    Row {
        /// The command.
        command: Command,
        /// The open row, if any.
        open: Option<u64>,
    },
    /// No such rank, bank group or bank.
    #[error("no such bank")]
    Place,
}

pub use super::organisation::Organisation as Geometry;

/// A bank, flat: rank, and bank within the rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Bank {
    pub(super) rank: u8,
    /// Bank group times banks per group plus bank, below [`BANKS_PER_RANK`].
    pub(super) index: u8,
}

impl Bank {
    pub(super) const fn flat(self) -> usize {
        self.rank as usize * BANKS_PER_RANK + self.index as usize
    }
    pub(super) const fn bit(self) -> u32 {
        1 << (self.index & 31)
    }
}

impl Geometry {
    pub(super) const fn bank(&self, place: &Place) -> Option<Bank> {
        if place.rank >= self.ranks
            || place.bank_group >= self.bank_groups
            || place.bank >= self.banks_per_group
        {
            return None;
        }
        Some(Bank { rank: place.rank, index: place.bank_group * self.banks_per_group + place.bank })
    }
    /// The bank numbers of a bank's group.
    pub(super) const fn group_of(&self, bank: Bank) -> std::ops::Range<u8> {
        let first = bank.index / self.banks_per_group * self.banks_per_group;
        first..first + self.banks_per_group
    }
    pub(super) fn group_mask(&self, bank: Bank) -> u32 {
        self.group_of(bank).fold(0, |mask, index| mask | 1 << (index & 31))
    }
    /// Bank group and bank of a flat bank.
    pub(super) const fn split(&self, bank: Bank) -> (u8, u8) {
        (bank.index / self.banks_per_group, bank.index % self.banks_per_group)
    }
}

/// An earliest legal clock edge together with the row of [`CONSTRAINTS`] that made it so: the edge above the row, in one
/// word, so that the later of two is the larger word.
///
/// Edges stay below 2^56: the horizon of 2^63 ps is 2^55.4 clocks of the shortest accepted tCK, 200 ps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
struct Stamp(u64);

impl Stamp {
    const fn new(edge: u64, row: u8) -> Stamp {
        Stamp(edge << 8 | row as u64)
    }
    const fn edge(self) -> u64 {
        self.0 >> 8
    }
    /// This many clocks, for this row, after an edge.
    const fn from(self, edge: u64) -> Stamp {
        Stamp(self.0 + (edge << 8))
    }
    fn raise(&mut self, to: Stamp) {
        *self = (*self).max(to);
    }
}

/// A row of [`CONSTRAINTS`] for one following command: a [`Stamp`] relative to the preceding command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Rule {
    to: u8,
    after: Stamp,
}

type RuleList = ArrayVec<Rule, COMMAND_COUNT>;

/// The rows of [`CONSTRAINTS`] that start at one command, by scope, with their clocks worked out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Rules {
    bank: RuleList,
    bank_group: RuleList,
    rank: RuleList,
    other_rank: RuleList,
    /// For any following command.
    bus: Stamp,
    /// After the fourth last.
    window: RuleList,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Rank {
    /// Per command and bank, by constraints of bank and bank group.
    ready: [[Stamp; BANKS_PER_RANK]; COMMAND_COUNT],
    /// Per command, by constraints of the rank and of other ranks.
    gate: [Stamp; COMMAND_COUNT],
    /// The open row of each bank in `open`.
    rows: [u64; BANKS_PER_RANK],
    /// Banks with an open row.
    open: u32,
    /// Edges of the last four ACTs plus one (zero: none), oldest first.
    acts: [u64; 4],
}

/// The devices of a subchannel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    timing: Timing,
    geometry: Geometry,
    rules: [Rules; COMMAND_COUNT],
    ranks: ArrayVec<Rank, 4>,
    bus: Stamp,
}

impl Device {
    /// Devices with all rows closed and nothing issued yet. Of a geometry beyond the limits only what is within is built;
    /// the rest is [`Blocked::Place`].
    pub fn new(timing: Timing, geometry: Geometry) -> Device {
        let geometry = Geometry {
            ranks: geometry.ranks.clamp(1, 4),
            bank_groups: geometry.bank_groups.clamp(1, 8),
            banks_per_group: geometry.banks_per_group.clamp(1, 4),
            ..geometry
        };
        let rules = Command::ALL.map(|from| {
            let mut rules = Rules::default();
            for (row, constraint) in
                (0u8..).zip(&CONSTRAINTS).filter(|(_, c)| c.from.contains(&from))
            {
                let after = |to| Stamp::new(constraint.clocks(&timing, from, to).into(), row);
                let list = match constraint.scope {
                    Scope::Bank => &mut rules.bank,
                    // REFsb is not scheduled yet.
                    Scope::SameBank => continue,
                    Scope::BankGroup => &mut rules.bank_group,
                    Scope::Rank if constraint.window == WINDOW => &mut rules.window,
                    Scope::Rank => &mut rules.rank,
                    Scope::OtherRank => &mut rules.other_rank,
                    Scope::Subchannel => {
                        rules.bus = after(from);
                        continue;
                    }
                };
                for &to in constraint.to {
                    // There is room: no scope has two rows for a pair of commands, which a test checks.
                    let _ = list.try_push(Rule { to: to as u8, after: after(to) });
                }
            }
            rules
        });
        let rank = Rank {
            ready: [[Stamp::default(); BANKS_PER_RANK]; COMMAND_COUNT],
            gate: [Stamp::default(); COMMAND_COUNT],
            rows: [0; BANKS_PER_RANK],
            open: 0,
            acts: [0; 4],
        };
        let ranks = (0..geometry.ranks).map(|_| rank.clone()).collect();
        Device { timing, geometry, rules, ranks, bus: Stamp::default() }
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

    /// Whether a command may be issued at a moment, in the present state.
    ///
    /// # Errors
    /// What blocks it, and until when.
    pub fn probe(&self, command: Command, place: &Place, at: Ps) -> Result<(), Blocked> {
        let bank = self.geometry.bank(place).ok_or(Blocked::Place)?;
        let open = self.row_of(bank);
        let state_fits = match command {
            Command::Act => open.is_none(),
            Command::Pre => open.is_some(),
            Command::Rd | Command::Wr => open == Some(place.row),
            // Not scheduled yet.
            Command::PreAb | Command::Rda | Command::Wra | Command::RefAb | Command::RefSb => false,
        };
        if !state_fits {
            return Err(Blocked::Row { command, open });
        }
        let edge = self.timing.edge_from(at);
        let stamp = self.stamp(command, bank);
        if stamp.edge() > edge {
            let by = CONSTRAINTS.get((stamp.0 & 0xff) as usize).map_or("", |row| row.name);
            let until = self.timing.moment(stamp.edge());
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
        let bank = self.geometry.bank(place).ok_or(Blocked::Place)?;
        self.apply(command, bank, place.row, self.timing.edge_from(at));
        Ok(())
    }

    fn stamp(&self, command: Command, bank: Bank) -> Stamp {
        let (rank, c) = (&self.ranks[bank.rank as usize], command as usize);
        rank.ready[c][bank.index as usize].max(rank.gate[c]).max(self.bus)
    }

    /// The earliest edge of a command, whatever row is open.
    pub(super) fn earliest(&self, command: Command, bank: Bank) -> u64 {
        self.stamp(command, bank).edge()
    }
    /// The earliest edge of a command in a rank, constraints of bank and bank group left out.
    pub(super) fn gate(&self, command: Command, rank: usize) -> u64 {
        self.ranks[rank & 3].gate[command as usize].max(self.bus).edge()
    }
    /// The earliest edge of a command in a bank, by constraints of bank and bank group alone.
    pub(super) fn ready(&self, command: Command, bank: Bank) -> u64 {
        self.ranks[bank.rank as usize].ready[command as usize][bank.index as usize & 31].edge()
    }
    /// Banks of a rank with an open row.
    pub(super) fn open_mask(&self, rank: usize) -> u32 {
        self.ranks[rank].open
    }
    pub(super) fn row_of(&self, bank: Bank) -> Option<u64> {
        let rank = &self.ranks[bank.rank as usize];
        (rank.open & bank.bit() != 0).then(|| rank.rows[bank.index as usize & 31])
    }

    /// Issues a command that is known to be legal.
    pub(super) fn apply(&mut self, command: Command, bank: Bank, row: u64, edge: u64) {
        let (r, b) = (bank.rank as usize, bank.index as usize & 31);
        let rules = &self.rules[command as usize];
        let rank = &mut self.ranks[r];
        match command {
            Command::Act => {
                rank.open |= bank.bit();
                rank.rows[b] = row;
                rank.acts.rotate_left(1);
                rank.acts[3] = edge + 1;
            }
            Command::Pre => rank.open &= !bank.bit(),
            _ => {}
        }
        self.bus.raise(rules.bus.from(edge));
        for rule in &rules.bank {
            rank.ready[usize::from(rule.to)][b].raise(rule.after.from(edge));
        }
        for rule in &rules.bank_group {
            let group = self.geometry.group_of(bank);
            let ready = &mut rank.ready[usize::from(rule.to)];
            for ready in &mut ready[usize::from(group.start)..usize::from(group.end)] {
                ready.raise(rule.after.from(edge));
            }
        }
        for rule in &rules.rank {
            rank.gate[usize::from(rule.to)].raise(rule.after.from(edge));
        }
        if let Some(first) = rank.acts[0].checked_sub(1) {
            for rule in &rules.window {
                rank.gate[usize::from(rule.to)].raise(rule.after.from(first));
            }
        }
        for rule in &rules.other_rank {
            for (i, other) in self.ranks.iter_mut().enumerate() {
                if i != r {
                    other.gate[usize::from(rule.to)].raise(rule.after.from(edge));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::constraint::Constraint;
    use super::super::timing::{Parameter, TIMING_TABLE};
    use super::*;
    use sim_core::platform::SpeedGrade;

    const GEOMETRY: Geometry =
        Geometry { ranks: 2, bank_groups: 8, banks_per_group: 4, rows: 1 << 16, columns: 1 << 11 };
    const SCHEDULED: [Command; 4] = [Command::Act, Command::Pre, Command::Rd, Command::Wr];

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
        let pairs = |r: &'static Constraint| {
            let from = r.from.iter().filter(|c| SCHEDULED.contains(c));
            from.flat_map(move |&from| r.to.iter().map(move |&to| (r, from, to)))
        };
        for (row, first, to) in CONSTRAINTS.iter().flat_map(pairs) {
            if !SCHEDULED.contains(&to) {
                continue;
            }
            let mut device = Device::new(only(row), GEOMETRY);
            let a = place(0, 0, 0);
            let b = match row.scope {
                Scope::Bank | Scope::SameBank => a,
                Scope::BankGroup => place(0, 0, 1),
                Scope::Rank => place(0, 5, 1),
                Scope::OtherRank | Scope::Subchannel => place(1, 0, 0),
            };
            // Whatever must be open is opened long before.
            if first != Command::Act {
                device.issue(Command::Act, &a, edge(&device, 0)).unwrap();
            }
            if to != Command::Act && b != a {
                device.issue(Command::Act, &b, edge(&device, 2000)).unwrap();
            }
            let mut start = 10_000;
            for n in 0..row.window {
                let from = Place { bank_group: n, ..a };
                let at = start + u64::from(n);
                device.issue(first, &from, edge(&device, at)).unwrap();
            }
            if (row.scope, first, to) == (Scope::Bank, Command::Act, Command::Act) {
                device.issue(Command::Pre, &a, edge(&device, start + 1)).unwrap();
            }
            start += u64::from(row.clocks(device.timing(), first, to));
            let until = edge(&device, start);
            assert_eq!(
                device.probe(to, &b, edge(&device, start - 1)),
                Err(Blocked::Timing { command: to, by: row.name, until }),
                "{} {:?} {to}",
                row.name,
                row.scope,
            );
            assert_eq!(device.probe(to, &b, until), Ok(()), "{} {:?} {to}", row.name, row.scope);
            assert_eq!(device.issue(to, &b, until), Ok(()), "{} {:?} {to}", row.name, row.scope);
        }
    }

    /// What binds at DDR5-4800, and for how many clocks: the numbers of the sheet, not of the table.
    #[test]
    fn at_4800_each_pair_of_commands_is_apart_by_the_clocks_of_the_sheet() {
        use Command::{Act, Pre, Rd, Wr};
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
        ] {
            let mut device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
            let (a, b) = (place(0, 0, 0), place(b.0, b.1, b.2));
            if from != Act {
                device.issue(Act, &a, edge(&device, 0)).unwrap();
            }
            if to != Act && b != a {
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
    fn every_rule_of_the_table_finds_room() {
        let device = Device::new(Timing::of_grade(SpeedGrade::Ddr5_4800), GEOMETRY);
        let lists = |r: &Rules| {
            let all = [&r.bank, &r.bank_group, &r.rank, &r.other_rank, &r.window];
            all.map(|list| list.len()).iter().sum::<usize>() + COMMAND_COUNT
        };
        let kept: usize = device.rules.iter().map(lists).sum();
        let pairs = |r: &Constraint| match r.scope {
            Scope::SameBank => 0,
            _ => r.from.len() * r.to.len(),
        };
        assert_eq!(kept, CONSTRAINTS.iter().map(pairs).sum::<usize>());
        assert!(CONSTRAINTS.iter().all(|r| r.window == 1 || r.window == WINDOW));
    }
}
