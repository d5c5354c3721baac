//! DDR5 commands, and the table of the least time between two of them.

use super::timing::{Parameter, Timing};
use Command::{Act, Pre, Rd, Wr};
use Parameter as P;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A command on the command bus of a subchannel. Its time is that of its first slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// ACT: opens a row of a bank.
    Act,
    /// PRE: closes the row of a bank.
    Pre,
    /// RD: a burst of 16 from the open row.
    Rd,
    /// WR: a burst of 16 to the open row.
    Wr,
}

/// How many commands there are.
pub const COMMAND_COUNT: usize = 4;

impl Command {
    /// All, in order.
    pub const ALL: [Command; COMMAND_COUNT] = [Act, Pre, Rd, Wr];
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act => "ACT",
            Pre => "PRE",
            Rd => "RD",
            Wr => "WR",
        })
    }
}

/// Where the following command must be to be bound by the preceding one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// In the same bank.
    Bank,
    /// In the same bank group, the same bank included.
    BankGroup,
    /// In the same rank, the same bank group included. A parameter for different bank groups (`_S`) is written here:
    /// its `_L` sister is never smaller ([`Timing::check`]).
    Rank,
    /// In another rank.
    OtherRank,
    /// Anywhere on the subchannel: the command bus.
    Subchannel,
}

/// A row of [`CONSTRAINTS`]: `to` comes at least `plus - minus` clocks after the `window`-th last `from` in `scope`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Constraint {
    /// The name by which a blocked command is explained.
    pub name: &'static str,
    /// Where.
    pub scope: Scope,
    /// Counted from which of the preceding commands: 1 the last, 4 the fourth last (tFAW).
    pub window: u8,
    /// Preceding command.
    pub from: Command,
    /// Following commands.
    pub to: &'static [Command],
    /// Parameters that are added. The last one gives the row its name.
    pub plus: &'static [Parameter],
    /// Parameters that are subtracted.
    pub minus: &'static [Parameter],
    /// From where.
    pub cite: &'static str,
}

impl Constraint {
    /// The least number of clocks between the two commands.
    pub fn clocks(&self, timing: &Timing) -> u32 {
        let sum =
            |list: &[Parameter]| list.iter().fold(0u32, |n, &p| n.saturating_add(timing.clocks(p)));
        sum(self.plus).saturating_sub(sum(self.minus))
    }
}

const fn c(
    name: &'static str,
    scope: Scope,
    from: Command,
    to: &'static [Command],
    plus: &'static [Parameter],
    minus: &'static [Parameter],
    cite: &'static str,
) -> Constraint {
    Constraint { name, scope, window: 1, from, to, plus, minus, cite }
}

const ANY: &[Command] = &Command::ALL;

/// The least time between two commands (timing.md §2.1, §2.2). Refresh is not modelled yet.
#[rustfmt::skip]
pub const CONSTRAINTS: [Constraint; 25] = [
    c("tRCD", Scope::Bank, Act, &[Rd, Wr], &[P::Rcd], &[], "timing.md §2.2"),
    c("tRAS", Scope::Bank, Act, &[Pre], &[P::Ras], &[], "timing.md §2.2"),
    c("tRC", Scope::Bank, Act, &[Act], &[P::Rc], &[], "timing.md §2.2"),
    c("tRP", Scope::Bank, Pre, &[Act], &[P::Rp], &[], "timing.md §2.2"),
    c("tRTP", Scope::Bank, Rd, &[Pre], &[P::Rtp], &[], "timing.md §2.2"),
    c("tWR", Scope::Bank, Wr, &[Pre], &[P::Cwl, P::HalfBurst, P::Wr], &[], "timing.md §2.2; from the end of write data"),
    c("tRRD_L", Scope::BankGroup, Act, &[Act], &[P::RrdL], &[], "timing.md §2.2"),
    c("tCCD_L", Scope::BankGroup, Rd, &[Rd], &[P::CcdL], &[], "timing.md §2.2"),
    c("tCCD_L_WR", Scope::BankGroup, Wr, &[Wr], &[P::CcdLWr], &[], "timing.md §2.2"),
    c("tWTR_L", Scope::BankGroup, Wr, &[Rd], &[P::Cwl, P::HalfBurst, P::WtrL], &[], "timing.md §2.2; §2.3 gem5 WTR_L = CWL + 10 ns"),
    c("tRRD_S", Scope::Rank, Act, &[Act], &[P::RrdS], &[], "timing.md §2.2"),
    Constraint { window: 4, ..c("tFAW", Scope::Rank, Act, &[Act], &[P::Faw], &[], "timing.md §2.2") },
    c("tPPD", Scope::Rank, Pre, &[Pre], &[P::Ppd], &[], "timing.md §2.1"),
    c("tCCD_S", Scope::Rank, Rd, &[Rd], &[P::CcdS], &[], "timing.md §2.2"),
    c("tCCD_S_WR", Scope::Rank, Wr, &[Wr], &[P::CcdSWr], &[], "timing.md §2.1"),
    c("tWTR_S", Scope::Rank, Wr, &[Rd], &[P::Cwl, P::HalfBurst, P::WtrS], &[], "timing.md §2.2; §2.3 gem5 WTR = CWL + 2.5 ns"),
    c("tRTW", Scope::Rank, Rd, &[Wr], &[P::Cl, P::HalfBurst, P::RtwGap], &[P::Cwl], "bursts may not overlap (verification.md §2.11 Q4); gap assumed"),
    c("tCS RD-RD", Scope::OtherRank, Rd, &[Rd], &[P::HalfBurst, P::Cs], &[], "timing.md §2.1 CS"),
    c("tCS WR-WR", Scope::OtherRank, Wr, &[Wr], &[P::HalfBurst, P::Cs], &[], "timing.md §2.1 CS"),
    c("tCS RD-WR", Scope::OtherRank, Rd, &[Wr], &[P::Cl, P::HalfBurst, P::Cs], &[P::Cwl], "timing.md §2.1 CS"),
    c("tCS WR-RD", Scope::OtherRank, Wr, &[Rd], &[P::Cwl, P::HalfBurst, P::Cs], &[P::Cl], "timing.md §2.1 CS"),
    c("command bus", Scope::Subchannel, Act, ANY, &[P::LongSlots], &[], "timing.md §2.1 command slots"),
    c("command bus", Scope::Subchannel, Rd, ANY, &[P::LongSlots], &[], "timing.md §2.1 command slots"),
    c("command bus", Scope::Subchannel, Wr, ANY, &[P::LongSlots], &[], "timing.md §2.1 command slots"),
    c("command bus", Scope::Subchannel, Pre, ANY, &[P::ShortSlots], &[], "timing.md §2.1 command slots"),
];

/// [`CONSTRAINTS`] as a page of the book.
pub fn constraints_markdown() -> String {
    let names = |list: &[Parameter], sign: &str| {
        list.iter().map(|p| p.name()).collect::<Vec<_>>().join(sign)
    };
    let mut out = String::from(
        "| Constraint | Scope | Preceding | Following | At least | Source |\n|---|---|---|---|---|---|\n",
    );
    for row in &CONSTRAINTS {
        let from = if row.window == 1 {
            row.from.to_string()
        } else {
            format!("{} ({} back)", row.from, row.window)
        };
        let to = row.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let mut least = names(row.plus, " + ");
        if !row.minus.is_empty() {
            least += &format!(" - {}", names(row.minus, " - "));
        }
        out += &format!(
            "| {} | {:?} | {from} | {to} | {least} | {} |\n",
            row.name, row.scope, row.cite
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_ordered_pair_of_commands_is_constrained() {
        for from in Command::ALL {
            for to in Command::ALL {
                let bus = CONSTRAINTS.iter().filter(|r| {
                    r.scope == Scope::Subchannel && r.from == from && r.to.contains(&to)
                });
                assert_eq!(bus.count(), 1, "{from} to {to}");
            }
        }
    }

    #[test]
    fn no_two_rows_say_the_same_pair_in_the_same_scope() {
        let mut seen = BTreeSet::new();
        for row in &CONSTRAINTS {
            assert!(!row.plus.is_empty() && !row.cite.is_empty(), "{}", row.name);
            for &to in row.to {
                assert!(seen.insert((row.scope, row.window, row.from, to)), "{} twice", row.name);
            }
        }
    }

    #[test]
    fn the_page_shows_every_row() {
        expect_test::expect![[r#"
            | Constraint | Scope | Preceding | Following | At least | Source |
            |---|---|---|---|---|---|
            | tRCD | Bank | ACT | RD, WR | tRCD | timing.md §2.2 |
            | tRAS | Bank | ACT | PRE | tRAS | timing.md §2.2 |
            | tRC | Bank | ACT | ACT | tRC | timing.md §2.2 |
            | tRP | Bank | PRE | ACT | tRP | timing.md §2.2 |
            | tRTP | Bank | RD | PRE | tRTP | timing.md §2.2 |
            | tWR | Bank | WR | PRE | CWL + BL/2 + tWR | timing.md §2.2; from the end of write data |
            | tRRD_L | BankGroup | ACT | ACT | tRRD_L | timing.md §2.2 |
            | tCCD_L | BankGroup | RD | RD | tCCD_L | timing.md §2.2 |
            | tCCD_L_WR | BankGroup | WR | WR | tCCD_L_WR | timing.md §2.2 |
            | tWTR_L | BankGroup | WR | RD | CWL + BL/2 + tWTR_L | timing.md §2.2; §2.3 gem5 WTR_L = CWL + 10 ns |
            | tRRD_S | Rank | ACT | ACT | tRRD_S | timing.md §2.2 |
            | tFAW | Rank | ACT (4 back) | ACT | tFAW | timing.md §2.2 |
            | tPPD | Rank | PRE | PRE | tPPD | timing.md §2.1 |
            | tCCD_S | Rank | RD | RD | tCCD_S | timing.md §2.2 |
            | tCCD_S_WR | Rank | WR | WR | tCCD_S_WR | timing.md §2.1 |
            | tWTR_S | Rank | WR | RD | CWL + BL/2 + tWTR_S | timing.md §2.2; §2.3 gem5 WTR = CWL + 2.5 ns |
            | tRTW | Rank | RD | WR | CL + BL/2 + tRTW gap - CWL | bursts may not overlap (verification.md §2.11 Q4); gap assumed |
            | tCS RD-RD | OtherRank | RD | RD | BL/2 + tCS | timing.md §2.1 CS |
            | tCS WR-WR | OtherRank | WR | WR | BL/2 + tCS | timing.md §2.1 CS |
            | tCS RD-WR | OtherRank | RD | WR | CL + BL/2 + tCS - CWL | timing.md §2.1 CS |
            | tCS WR-RD | OtherRank | WR | RD | CWL + BL/2 + tCS - CL | timing.md §2.1 CS |
            | command bus | Subchannel | ACT | ACT, PRE, RD, WR | nCMD(ACT, RD, WR) | timing.md §2.1 command slots |
            | command bus | Subchannel | RD | ACT, PRE, RD, WR | nCMD(ACT, RD, WR) | timing.md §2.1 command slots |
            | command bus | Subchannel | WR | ACT, PRE, RD, WR | nCMD(ACT, RD, WR) | timing.md §2.1 command slots |
            | command bus | Subchannel | PRE | ACT, PRE, RD, WR | nCMD(PRE) | timing.md §2.1 command slots |
        "#]].assert_eq(&constraints_markdown());
    }
}
