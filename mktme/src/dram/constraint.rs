//! DDR5 commands, and the table of the least time between two of them.

use super::timing::{Parameter, Timing};
use Command::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
use Parameter as P;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A command on the command bus of a subchannel. Its time is that of its first slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// ACT: opens a row of a bank.
    Act,
    /// PREpb: closes the row of a bank.
    Pre,
    /// PREab: closes the rows of all banks of a rank.
    PreAb,
    /// RD: a burst of 16 from the open row.
    Rd,
    /// WR: a burst of 16 to the open row.
    Wr,
    /// RDA: RD with auto-precharge, which closes the row.
    Rda,
    /// WRA: WR with auto-precharge, which closes the row.
    Wra,
    /// REFab: refreshes rows in all banks of a rank, which must be closed.
    RefAb,
    /// REFsb: refreshes rows in the bank of one number in every bank group of a rank; those must be closed.
    RefSb,
}

/// How many commands there are.
pub const COMMAND_COUNT: usize = 9;

impl Command {
    /// RD, RDA, WR or WRA.
    pub(super) const fn column(write: bool, auto: bool) -> Command {
        [[Command::Rd, Command::Rda], [Command::Wr, Command::Wra]][write as usize][auto as usize]
    }
    /// All, in order.
    pub const ALL: [Command; COMMAND_COUNT] = [Act, Pre, PreAb, Rd, Wr, Rda, Wra, RefAb, RefSb];

    /// As the specification spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Act => "ACT",
            Pre => "PRE",
            PreAb => "PREab",
            Rd => "RD",
            Wr => "WR",
            Rda => "RDA",
            Wra => "WRA",
            RefAb => "REFab",
            RefSb => "REFsb",
        }
    }
    /// Whether it takes two slots of the command bus instead of one (timing.md §2.1 command slots).
    pub const fn two_slots(self) -> bool {
        matches!(self, Act | Rd | Wr | Rda | Wra)
    }
    /// RD or RDA.
    pub const fn reads(self) -> bool {
        matches!(self, Rd | Rda)
    }
    /// WR or WRA.
    pub const fn writes(self) -> bool {
        matches!(self, Wr | Wra)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the following command must be to be bound by the preceding one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Scope {
    /// In the same bank.
    Bank,
    /// In the bank of the same number in any bank group of the rank: what one REFsb refreshes.
    SameBank,
    /// In the same bank group, the same bank included.
    BankGroup,
    /// In the same rank, the same bank group included. A parameter for different bank groups (`_S`) is written here:
    /// its `_L` sister is never smaller ([`Timing::check`]).
    Rank,
    /// In another rank of the subchannel.
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
    /// Preceding commands.
    pub from: &'static [Command],
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
    /// The least number of clocks between the first slots of two commands of this row.
    ///
    /// JEDEC counts from last slot to last slot, as Ramulator 2.1's `to_config` does. So one more clock lies between the
    /// first slots when a command of one slot follows one of two. The clock less in the opposite case is not taken: then
    /// the distance is legal whichever slots are meant.
    pub fn clocks(&self, timing: &Timing, from: Command, to: Command) -> u32 {
        let sum =
            |list: &[Parameter]| list.iter().fold(0u32, |n, &p| n.saturating_add(timing.clocks(p)));
        let clocks = sum(self.plus).saturating_sub(sum(self.minus));
        if self.scope != Scope::Subchannel && from.two_slots() && !to.two_slots() {
            let longer = timing.clocks(P::LongSlots).saturating_sub(timing.clocks(P::ShortSlots));
            return clocks.saturating_add(longer);
        }
        clocks
    }
}

const fn c(
    name: &'static str,
    scope: Scope,
    from: &'static [Command],
    to: &'static [Command],
    plus: &'static [Parameter],
    minus: &'static [Parameter],
    cite: &'static str,
) -> Constraint {
    Constraint { name, scope, window: 1, from, to, plus, minus, cite }
}

const ANY: &[Command] = &Command::ALL;
const READS: &[Command] = &[Rd, Rda];
const WRITES: &[Command] = &[Wr, Wra];
const COLUMNS: &[Command] = &[Rd, Wr, Rda, Wra];

/// The least time between two commands (timing.md §2.1, §2.2). "R2.1" is Ramulator 2.1's `python/ramulator/dram/ddr5.py`,
/// at the commit that timing.md §0 names; it has no REFsb.
///
/// Auto-precharge needs no row for tRAS: the row after it waits for tRC since ACT, and tRC is at least tRAS + tRP.
#[rustfmt::skip]
pub const CONSTRAINTS: [Constraint; 43] = [
    c("tRCD", Scope::Bank, &[Act], COLUMNS, &[P::Rcd], &[], "timing.md §2.2; R2.1 Bank"),
    c("tRAS", Scope::Bank, &[Act], &[Pre], &[P::Ras], &[], "timing.md §2.2; R2.1 Bank"),
    c("tRC", Scope::Bank, &[Act], &[Act], &[P::Rc], &[], "timing.md §2.2; R2.1 Bank"),
    c("tRP", Scope::Bank, &[Pre], &[Act], &[P::Rp], &[], "timing.md §2.2; R2.1 Bank"),
    c("tRTP", Scope::Bank, &[Rd], &[Pre], &[P::Rtp], &[], "timing.md §2.2; R2.1 Bank"),
    c("tWR", Scope::Bank, &[Wr], &[Pre], &[P::Cwl, P::HalfBurst, P::Wr], &[], "timing.md §2.2, from the end of write data; R2.1 Bank"),
    c("tRTP + tRP", Scope::Bank, &[Rda], &[Act], &[P::Rtp, P::Rp], &[], "R2.1 Bank: auto-precharge tRTP after RDA"),
    c("tWR + tRP", Scope::Bank, &[Wra], &[Act], &[P::Cwl, P::HalfBurst, P::Wr, P::Rp], &[], "R2.1 Bank: auto-precharge tWR after write data"),
    c("tWTRA", Scope::Bank, &[Wr], &[Rda], &[P::Cwl, P::HalfBurst, P::Wr], &[P::Rtp], "recalled of JESD79-5: tWTRA = tWR - tRTP, as RDA precharges tRTP later; not in R2.1"),
    c("tRC", Scope::SameBank, &[Act], &[RefSb], &[P::Rc], &[], "as REFab in R2.1 Rank"),
    c("tRP", Scope::SameBank, &[Pre], &[RefSb], &[P::Rp], &[], "as REFab in R2.1 Rank"),
    c("tRTP + tRP", Scope::SameBank, &[Rda], &[RefSb], &[P::Rtp, P::Rp], &[], "as REFab in R2.1 Rank"),
    c("tWR + tRP", Scope::SameBank, &[Wra], &[RefSb], &[P::Cwl, P::HalfBurst, P::Wr, P::Rp], &[], "as REFab in R2.1 Rank"),
    c("tRFCsb", Scope::SameBank, &[RefSb], &[Act], &[P::RfcSb], &[], "timing.md §2.2"),
    c("tRRD_L", Scope::BankGroup, &[Act], &[Act], &[P::RrdL], &[], "timing.md §2.2; R2.1 BankGroup"),
    c("tCCD_L", Scope::BankGroup, READS, READS, &[P::CcdL], &[], "timing.md §2.2; R2.1 BankGroup"),
    c("tCCD_L_WR", Scope::BankGroup, WRITES, WRITES, &[P::CcdLWr], &[], "timing.md §2.2; R2.1 BankGroup"),
    c("tWTR_L", Scope::BankGroup, WRITES, READS, &[P::Cwl, P::HalfBurst, P::WtrL], &[], "timing.md §2.2; R2.1 BankGroup"),
    c("tRRD_S", Scope::Rank, &[Act], &[Act], &[P::RrdS], &[], "timing.md §2.2; R2.1 Rank"),
    Constraint { window: 4, ..c("tFAW", Scope::Rank, &[Act], &[Act], &[P::Faw], &[], "timing.md §2.2; R2.1 Rank, window 4") },
    c("tPPD", Scope::Rank, &[Pre, PreAb], &[Pre, PreAb], &[P::Ppd], &[], "timing.md §2.1; R2.1 Rank"),
    c("tCCD_S", Scope::Rank, READS, READS, &[P::CcdS], &[], "timing.md §2.2; R2.1 Rank"),
    c("tCCD_S_WR", Scope::Rank, WRITES, WRITES, &[P::CcdSWr], &[], "timing.md §2.1; R2.1 Rank"),
    c("tWTR_S", Scope::Rank, WRITES, READS, &[P::Cwl, P::HalfBurst, P::WtrS], &[], "timing.md §2.2; R2.1 Rank"),
    c("tRTW", Scope::Rank, READS, WRITES, &[P::Cl, P::HalfBurst, P::RtwGap], &[P::Cwl], "R2.1 Rank: CL + BL/2 + 2 - CWL + 2"),
    c("tRAS", Scope::Rank, &[Act], &[PreAb], &[P::Ras], &[], "R2.1 Rank"),
    c("tRTP", Scope::Rank, READS, &[PreAb], &[P::Rtp], &[], "R2.1 Rank; RDA as RD"),
    c("tWR", Scope::Rank, WRITES, &[PreAb], &[P::Cwl, P::HalfBurst, P::Wr], &[], "R2.1 Rank; WRA as WR"),
    c("tRP", Scope::Rank, &[PreAb], &[Act, RefSb], &[P::Rp], &[], "R2.1 Rank; REFsb as REFab"),
    c("tRC", Scope::Rank, &[Act], &[RefAb], &[P::Rc], &[], "R2.1 Rank"),
    c("tRP", Scope::Rank, &[Pre, PreAb], &[RefAb], &[P::Rp], &[], "R2.1 Rank"),
    c("tRTP + tRP", Scope::Rank, &[Rda], &[RefAb], &[P::Rtp, P::Rp], &[], "R2.1 Rank"),
    c("tWR + tRP", Scope::Rank, &[Wra], &[RefAb], &[P::Cwl, P::HalfBurst, P::Wr, P::Rp], &[], "R2.1 Rank"),
    c("tRFC1", Scope::Rank, &[RefAb], &[Act, Pre, PreAb, RefAb, RefSb], &[P::Rfc], &[], "timing.md §2.2; R2.1 Rank: ACT, PREab"),
    c("tRRD_L", Scope::Rank, &[Act], &[RefSb], &[P::RrdL], &[], "recalled of JESD79-5: ACT to REFsb of other banks"),
    c("tREFSBRD", Scope::Rank, &[RefSb], &[Act], &[P::RefSbRd], &[], "JESD79-5 draft, Table 26, as quoted publicly: ACT of other banks"),
    c("tRFCsb", Scope::Rank, &[RefSb], &[PreAb, RefAb, RefSb], &[P::RfcSb], &[], "PREab, REFab: refreshed banks too; REFsb: recalled, safe"),
    c("tCS RD-RD", Scope::OtherRank, READS, READS, &[P::HalfBurst, P::Cs], &[], "timing.md §2.1 CS; R2.1 Rank, siblings"),
    c("tCS WR-WR", Scope::OtherRank, WRITES, WRITES, &[P::HalfBurst, P::Cs], &[], "timing.md §2.1 CS; R2.1 has BL/2"),
    c("tCS RD-WR", Scope::OtherRank, READS, WRITES, &[P::Cl, P::HalfBurst, P::Cs], &[P::Cwl], "timing.md §2.1 CS; R2.1 has BL/2 + CS"),
    c("tCS WR-RD", Scope::OtherRank, WRITES, READS, &[P::Cwl, P::HalfBurst, P::Cs], &[P::Cl], "timing.md §2.1 CS; R2.1 Rank, siblings"),
    c("command bus", Scope::Subchannel, &[Act, Rd, Wr, Rda, Wra], ANY, &[P::LongSlots], &[], "timing.md §2.1 command slots"),
    c("command bus", Scope::Subchannel, &[Pre, PreAb, RefAb, RefSb], ANY, &[P::ShortSlots], &[], "timing.md §2.1 command slots"),
];

/// [`CONSTRAINTS`] as a page of the book.
pub fn constraints_markdown() -> String {
    let names = |list: &[Parameter], sign: &str| {
        list.iter().map(|p| p.name()).collect::<Vec<_>>().join(sign)
    };
    let mut out = String::from(
        "| Constraint | Scope | Preceding | Following | At least | Source |\n|---|---|---|---|---|---|\n",
    );
    let commands = |list: &[Command]| list.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
    for row in &CONSTRAINTS {
        let mut from = commands(row.from);
        if row.window != 1 {
            from += &format!(" ({} back)", row.window);
        }
        let mut least = names(row.plus, " + ");
        if !row.minus.is_empty() {
            least += &format!(" - {}", names(row.minus, " - "));
        }
        out += &format!(
            "| {} | {:?} | {from} | {} | {least} | {} |\n",
            row.name,
            row.scope,
            commands(row.to),
            row.cite
        );
    }
    out += "\nWhere a command of one slot follows one of two, one clock more: JEDEC counts between last slots, the model \
            between first slots.\n";
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
                    r.scope == Scope::Subchannel && r.from.contains(&from) && r.to.contains(&to)
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
            for (from, to) in
                row.from.iter().flat_map(|from| row.to.iter().map(move |to| (from, to)))
            {
                assert!(seen.insert((row.scope, row.window, from, to)), "{} twice", row.name);
            }
        }
    }

    /// How the second command's place relates to the first one's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Beside {
        Bank,
        BankGroup,
        /// The bank of the same number in another bank group.
        SameBank,
        Rank,
        OtherRank,
    }

    /// Whether a row of some scope speaks of such a pair. PREab and REFab are in every bank of their rank, REFsb in every
    /// bank of its number.
    fn speaks(scope: Scope, beside: Beside) -> bool {
        match scope {
            Scope::Bank => beside == Beside::Bank,
            Scope::SameBank => matches!(beside, Beside::Bank | Beside::SameBank),
            Scope::BankGroup => matches!(beside, Beside::Bank | Beside::BankGroup),
            Scope::Rank => beside != Beside::OtherRank,
            Scope::OtherRank => beside == Beside::OtherRank,
            Scope::Subchannel => true,
        }
    }

    /// The row that keeps two commands apart the longest, and for how many clocks. The window of four is left out.
    fn binding(timing: &Timing, from: Command, to: Command, beside: Beside) -> (&str, u32) {
        let rows = CONSTRAINTS.iter().filter(|r| {
            r.window == 1 && speaks(r.scope, beside) && r.from.contains(&from) && r.to.contains(&to)
        });
        let all = rows.map(|r| (r.clocks(timing, from, to), r.name));
        all.max_by_key(|(clocks, _)| *clocks).map(|(clocks, name)| (name, clocks)).unwrap()
    }

    #[test]
    fn every_row_binds_some_pair_of_commands_when_its_parameter_is_long() {
        use super::super::timing::TIMING_TABLE;
        let base = Timing::of_grade(sim_core::platform::SpeedGrade::Ddr5_4800);
        for row in CONSTRAINTS.iter().filter(|r| r.window == 1) {
            let short = TIMING_TABLE.iter().fold(base, |t, r| t.with(r.parameter, 1));
            let long = short.with(*row.plus.last().unwrap(), 500);
            let beside = match row.scope {
                Scope::Bank => Beside::Bank,
                Scope::SameBank => Beside::SameBank,
                Scope::BankGroup => Beside::BankGroup,
                Scope::Rank => Beside::Rank,
                Scope::OtherRank | Scope::Subchannel => Beside::OtherRank,
            };
            for (&from, &to) in
                row.from.iter().flat_map(|from| row.to.iter().map(move |to| (from, to)))
            {
                let clocks = row.clocks(&long, from, to);
                assert_eq!(binding(&long, from, to, beside), (row.name, clocks), "{from} {to}");
                assert!(clocks >= 499, "{} {from} {to}", row.name);
            }
        }
    }

    /// At DDR5-4800 and 16 Gb, in the numbers of the sheet: CL 40, CWL 38, BL/2 8, tRCD and tRP 39, tRAS 77, tRC 116, tRTP
    /// 18, tWR 72; 295 ns are 708 clocks, 130 ns 312, 30 ns 72. One more clock from two slots to one.
    #[test]
    fn at_4800_refresh_auto_precharge_and_precharge_all_are_apart_by_the_clocks_of_the_sheet() {
        use Beside::{Bank, OtherRank, Rank, SameBank};
        let timing = Timing::of_grade(sim_core::platform::SpeedGrade::Ddr5_4800);
        for (from, to, beside, by, clocks) in [
            (Act, Rda, Bank, "tRCD", 39),
            (Act, Wra, Bank, "tRCD", 39),
            (Rda, Act, Bank, "tRTP + tRP", 18 + 39),
            (Wra, Act, Bank, "tWR + tRP", 38 + 8 + 72 + 39),
            (Rda, RefSb, SameBank, "tRTP + tRP", 18 + 39 + 1),
            (Wra, RefSb, SameBank, "tWR + tRP", 38 + 8 + 72 + 39 + 1),
            (Rda, RefSb, Rank, "command bus", 2),
            (Rda, RefAb, Rank, "tRTP + tRP", 18 + 39 + 1),
            (Wra, RefAb, Rank, "tWR + tRP", 38 + 8 + 72 + 39 + 1),
            (Rd, Rda, Bank, "tCCD_L", 12),
            (Wr, Rd, Bank, "tWTR_L", 38 + 8 + 24),
            (Wr, Rda, Bank, "tWTRA", 38 + 8 + 72 - 18),
            (Wr, Wra, Bank, "tCCD_L_WR", 48),
            (Wra, Rd, Rank, "tWTR_S", 38 + 8 + 6),
            (Rda, Wr, Rank, "tRTW", 40 + 8 + 4 - 38),
            (Act, PreAb, Rank, "tRAS", 77 + 1),
            (Rd, PreAb, Rank, "tRTP", 18 + 1),
            (Wr, PreAb, Rank, "tWR", 38 + 8 + 72 + 1),
            (PreAb, Act, Rank, "tRP", 39),
            (PreAb, RefAb, Rank, "tRP", 39),
            (PreAb, RefSb, Rank, "tRP", 39),
            (Pre, RefAb, Rank, "tRP", 39),
            (Pre, RefSb, SameBank, "tRP", 39),
            (Pre, RefSb, Rank, "command bus", 1),
            (Pre, PreAb, Rank, "tPPD", 2),
            (Act, RefAb, Rank, "tRC", 116 + 1),
            (Act, RefSb, SameBank, "tRC", 116 + 1),
            (Act, RefSb, Rank, "tRRD_L", 12 + 1),
            (RefAb, Act, Rank, "tRFC1", 708),
            (RefAb, RefAb, Rank, "tRFC1", 708),
            (RefAb, RefSb, Rank, "tRFC1", 708),
            (RefAb, Act, OtherRank, "command bus", 1),
            (RefSb, Act, SameBank, "tRFCsb", 312),
            (RefSb, Act, Rank, "tREFSBRD", 72),
            (RefSb, RefSb, Rank, "tRFCsb", 312),
            (RefSb, RefAb, Rank, "tRFCsb", 312),
            (RefSb, Rd, Rank, "command bus", 1),
            (Rda, Wra, OtherRank, "tCS RD-WR", 40 + 8 + 2 - 38),
            (Wra, Rda, OtherRank, "tCS WR-RD", 38 + 8 + 2 - 40),
        ] {
            assert_eq!(binding(&timing, from, to, beside), (by, clocks), "{from} {to} {beside:?}");
        }
    }

    #[test]
    fn the_page_shows_every_row() {
        expect_test::expect![[r#"
            | Constraint | Scope | Preceding | Following | At least | Source |
            |---|---|---|---|---|---|
            | tRCD | Bank | ACT | RD, WR, RDA, WRA | tRCD | timing.md §2.2; R2.1 Bank |
            | tRAS | Bank | ACT | PRE | tRAS | timing.md §2.2; R2.1 Bank |
            | tRC | Bank | ACT | ACT | tRC | timing.md §2.2; R2.1 Bank |
            | tRP | Bank | PRE | ACT | tRP | timing.md §2.2; R2.1 Bank |
            | tRTP | Bank | RD | PRE | tRTP | timing.md §2.2; R2.1 Bank |
            | tWR | Bank | WR | PRE | CWL + BL/2 + tWR | timing.md §2.2, from the end of write data; R2.1 Bank |
            | tRTP + tRP | Bank | RDA | ACT | tRTP + tRP | R2.1 Bank: auto-precharge tRTP after RDA |
            | tWR + tRP | Bank | WRA | ACT | CWL + BL/2 + tWR + tRP | R2.1 Bank: auto-precharge tWR after write data |
            | tWTRA | Bank | WR | RDA | CWL + BL/2 + tWR - tRTP | recalled of JESD79-5: tWTRA = tWR - tRTP, as RDA precharges tRTP later; not in R2.1 |
            | tRC | SameBank | ACT | REFsb | tRC | as REFab in R2.1 Rank |
            | tRP | SameBank | PRE | REFsb | tRP | as REFab in R2.1 Rank |
            | tRTP + tRP | SameBank | RDA | REFsb | tRTP + tRP | as REFab in R2.1 Rank |
            | tWR + tRP | SameBank | WRA | REFsb | CWL + BL/2 + tWR + tRP | as REFab in R2.1 Rank |
            | tRFCsb | SameBank | REFsb | ACT | tRFCsb | timing.md §2.2 |
            | tRRD_L | BankGroup | ACT | ACT | tRRD_L | timing.md §2.2; R2.1 BankGroup |
            | tCCD_L | BankGroup | RD, RDA | RD, RDA | tCCD_L | timing.md §2.2; R2.1 BankGroup |
            | tCCD_L_WR | BankGroup | WR, WRA | WR, WRA | tCCD_L_WR | timing.md §2.2; R2.1 BankGroup |
            | tWTR_L | BankGroup | WR, WRA | RD, RDA | CWL + BL/2 + tWTR_L | timing.md §2.2; R2.1 BankGroup |
            | tRRD_S | Rank | ACT | ACT | tRRD_S | timing.md §2.2; R2.1 Rank |
            | tFAW | Rank | ACT (4 back) | ACT | tFAW | timing.md §2.2; R2.1 Rank, window 4 |
            | tPPD | Rank | PRE, PREab | PRE, PREab | tPPD | timing.md §2.1; R2.1 Rank |
            | tCCD_S | Rank | RD, RDA | RD, RDA | tCCD_S | timing.md §2.2; R2.1 Rank |
            | tCCD_S_WR | Rank | WR, WRA | WR, WRA | tCCD_S_WR | timing.md §2.1; R2.1 Rank |
            | tWTR_S | Rank | WR, WRA | RD, RDA | CWL + BL/2 + tWTR_S | timing.md §2.2; R2.1 Rank |
            | tRTW | Rank | RD, RDA | WR, WRA | CL + BL/2 + tRTW gap - CWL | R2.1 Rank: CL + BL/2 + 2 - CWL + 2 |
            | tRAS | Rank | ACT | PREab | tRAS | R2.1 Rank |
            | tRTP | Rank | RD, RDA | PREab | tRTP | R2.1 Rank; RDA as RD |
            | tWR | Rank | WR, WRA | PREab | CWL + BL/2 + tWR | R2.1 Rank; WRA as WR |
            | tRP | Rank | PREab | ACT, REFsb | tRP | R2.1 Rank; REFsb as REFab |
            | tRC | Rank | ACT | REFab | tRC | R2.1 Rank |
            | tRP | Rank | PRE, PREab | REFab | tRP | R2.1 Rank |
            | tRTP + tRP | Rank | RDA | REFab | tRTP + tRP | R2.1 Rank |
            | tWR + tRP | Rank | WRA | REFab | CWL + BL/2 + tWR + tRP | R2.1 Rank |
            | tRFC1 | Rank | REFab | ACT, PRE, PREab, REFab, REFsb | tRFC1 | timing.md §2.2; R2.1 Rank: ACT, PREab |
            | tRRD_L | Rank | ACT | REFsb | tRRD_L | recalled of JESD79-5: ACT to REFsb of other banks |
            | tREFSBRD | Rank | REFsb | ACT | tREFSBRD | JESD79-5 draft, Table 26, as quoted publicly: ACT of other banks |
            | tRFCsb | Rank | REFsb | PREab, REFab, REFsb | tRFCsb | PREab, REFab: refreshed banks too; REFsb: recalled, safe |
            | tCS RD-RD | OtherRank | RD, RDA | RD, RDA | BL/2 + tCS | timing.md §2.1 CS; R2.1 Rank, siblings |
            | tCS WR-WR | OtherRank | WR, WRA | WR, WRA | BL/2 + tCS | timing.md §2.1 CS; R2.1 has BL/2 |
            | tCS RD-WR | OtherRank | RD, RDA | WR, WRA | CL + BL/2 + tCS - CWL | timing.md §2.1 CS; R2.1 has BL/2 + CS |
            | tCS WR-RD | OtherRank | WR, WRA | RD, RDA | CWL + BL/2 + tCS - CL | timing.md §2.1 CS; R2.1 Rank, siblings |
            | command bus | Subchannel | ACT, RD, WR, RDA, WRA | ACT, PRE, PREab, RD, WR, RDA, WRA, REFab, REFsb | nCMD(ACT, RD, WR) | timing.md §2.1 command slots |
            | command bus | Subchannel | PRE, PREab, REFab, REFsb | ACT, PRE, PREab, RD, WR, RDA, WRA, REFab, REFsb | nCMD(PRE, REF) | timing.md §2.1 command slots |

            Where a command of one slot follows one of two, one clock more: JEDEC counts between last slots, the model between first slots.
        "#]].assert_eq(&constraints_markdown());
    }
}
