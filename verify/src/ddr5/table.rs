//! The rules as data: every ordered pair of commands with what must lie between them, and the rules that are not about pairs.

use super::command::Cmd::{self, Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
use super::rules::Param::{
    Burst, Cl, Cwl, GapRank, GapRw, GapWr, TccdL, TccdLWr, TccdS, Tfaw, Tppd, Tras, Trc, Trcd,
    Trefsbrd, Trfc, TrfcSb, Trp, TrrdL, TrrdS, Trtp, Twr, TwtrL, TwtrS,
};
use super::rules::Term::{self, Minus, Plus};
use super::rules::sum_text;
use std::fmt::Write as _;

/// Between commands of what a rule holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// The same bank. REFsb is of every bank that it refreshes.
    Bank,
    /// The same bank group.
    Group,
    /// The same rank.
    Rank,
}

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// From the start of any of the first commands to the start of any of the second there are at least so many clocks.
    Pair {
        /// The first commands.
        before: &'static [Cmd],
        /// The second commands.
        after: &'static [Cmd],
        /// Where both are.
        scope: Scope,
        /// The clocks.
        need: &'static [Term],
    },
    /// As a pair, but between a command and the fourth before it: tFAW.
    Window(&'static [Term]),
    /// As a pair, but from the end of a burst on the data bus to the start of the next.
    Burst(&'static [Term]),
    /// About what went before.
    State,
}

/// A rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name; no two have the same.
    pub id: &'static str,
    /// The check of verification.md §2.11 that it belongs to.
    pub check: &'static str,
    /// What it is about.
    pub kind: Kind,
    /// What holds.
    pub text: &'static str,
    /// Where that is said.
    pub cite: &'static str,
}

const fn pair(
    id: &'static str,
    (before, after): (&'static [Cmd], &'static [Cmd]),
    scope: Scope,
    need: &'static [Term],
    cite: &'static str,
) -> Rule {
    let kind = Kind::Pair { before, after, scope, need };
    Rule { id, check: "Q5", kind, text: "", cite }
}
/// The data bus turns round within a rank. Between ranks it is another driver's turn, whatever the direction.
const fn turn(
    id: &'static str,
    (before, after): (&'static [Cmd], &'static [Cmd]),
    need: &'static [Term],
    cite: &'static str,
) -> Rule {
    let kind = Kind::Pair { before, after, scope: Scope::Rank, need };
    Rule { id, check: "Q4", kind, text: "", cite }
}
const fn burst(
    id: &'static str,
    need: &'static [Term],
    text: &'static str,
    cite: &'static str,
) -> Rule {
    Rule { id, check: "Q4", kind: Kind::Burst(need), text, cite }
}
const fn state(
    (id, check): (&'static str, &'static str),
    text: &'static str,
    cite: &'static str,
) -> Rule {
    Rule { id, check, kind: Kind::State, text, cite }
}

const READ: &[Cmd] = &[Rd, Rda];
const WRITE: &[Cmd] = &[Wr, Wra];
const COLUMN: &[Cmd] = &[Rd, Rda, Wr, Wra];
const CLOSE: &[Cmd] = &[Pre, PreAb];
/// From WR to the precharge that may follow it.
const WRITTEN: &[Term] = &[Plus(Cwl), Plus(Burst), Plus(Twr)];
const RDA_DONE: &[Term] = &[Plus(Trtp), Plus(Trp)];
const WRA_DONE: &[Term] = &[Plus(Cwl), Plus(Burst), Plus(Twr), Plus(Trp)];

/// Every rule. A pair that is of the same bank is of the same rank too and must keep both rows.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    // Rows, from the opening to the next one.
    pair("tRCD",              (&[Act], COLUMN), Scope::Bank, &[Plus(Trcd)], "timing.md §2.2"),
    pair("tRAS",              (&[Act], &[Pre]),   Scope::Bank, &[Plus(Tras)], "timing.md §2.2"),
    pair("tRAS PREab",        (&[Act], &[PreAb]), Scope::Rank, &[Plus(Tras)], "timing.md §2.2; PREab closes every bank"),
    pair("tRC",               (&[Act], &[Act]),   Scope::Bank, &[Plus(Trc)], "timing.md §2.2"),
    pair("tRC REFab",         (&[Act], &[RefAb]), Scope::Rank, &[Plus(Trc)], "JESD79-5: tRC is ACT to ACT or REF"),
    pair("tRC REFsb",         (&[Act], &[RefSb]), Scope::Bank, &[Plus(Trc)], "JESD79-5: tRC is ACT to ACT or REF"),
    pair("tRTP",              (READ, &[Pre]),     Scope::Bank, &[Plus(Trtp)], "timing.md §2.2"),
    pair("tRTP PREab",        (READ, &[PreAb]),   Scope::Rank, &[Plus(Trtp)], "timing.md §2.2"),
    pair("tWR",               (WRITE, &[Pre]),    Scope::Bank, WRITTEN, "timing.md §2.2"),
    pair("tWR PREab",         (WRITE, &[PreAb]),  Scope::Rank, WRITTEN, "timing.md §2.2"),
    pair("tRP",               (&[Pre], &[Act]),   Scope::Bank, &[Plus(Trp)], "timing.md §2.2"),
    pair("tRP PREab",         (&[PreAb], &[Act]), Scope::Rank, &[Plus(Trp)], "timing.md §2.2"),
    pair("tRP REFab",         (CLOSE, &[RefAb]),  Scope::Rank, &[Plus(Trp)], "JESD79-5 REF: all banks precharged and idle for tRP"),
    pair("tRP REFsb",         (&[Pre], &[RefSb]), Scope::Bank, &[Plus(Trp)], "JESD79-5 REF: its banks precharged and idle for tRP"),
    pair("tRP PREab REFsb",   (&[PreAb], &[RefSb]), Scope::Rank, &[Plus(Trp)], "JESD79-5 REF: its banks precharged and idle for tRP"),
    // Auto-precharge. That tRAS has passed is in tRC.
    pair("RDA ACT",           (&[Rda], &[Act]),   Scope::Bank, RDA_DONE, "JESD79-5 read with auto-precharge"),
    pair("RDA REFab",         (&[Rda], &[RefAb]), Scope::Rank, RDA_DONE, "JESD79-5 read with auto-precharge"),
    pair("RDA REFsb",         (&[Rda], &[RefSb]), Scope::Bank, RDA_DONE, "JESD79-5 read with auto-precharge"),
    pair("WRA ACT",           (&[Wra], &[Act]),   Scope::Bank, WRA_DONE, "JESD79-5 write with auto-precharge"),
    pair("WRA REFab",         (&[Wra], &[RefAb]), Scope::Rank, WRA_DONE, "JESD79-5 write with auto-precharge"),
    pair("WRA REFsb",         (&[Wra], &[RefSb]), Scope::Bank, WRA_DONE, "JESD79-5 write with auto-precharge"),
    pair("tWTRA",             (&[Wr], &[Rda]),    Scope::Bank, &[Plus(Cwl), Plus(Burst), Plus(Twr), Minus(Trtp)], "JESD79-5 tWTRA = tWR - tRTP: RDA precharges tRTP later, when tWR must have passed"),
    // Activates.
    pair("tRRD_L",            (&[Act], &[Act]),   Scope::Group, &[Plus(TrrdL)], "timing.md §2.2"),
    pair("tRRD_S",            (&[Act], &[Act]),   Scope::Rank, &[Plus(TrrdS)], "timing.md §2.2"),
    pair("tRRD_L REFsb",      (&[Act], &[RefSb]), Scope::Rank, &[Plus(TrrdL)], "JESD79-5 REFsb scheduling separation"),
    Rule { id: "tFAW", check: "Q5", kind: Kind::Window(&[Plus(Tfaw)]), text: "at most four ACTs of a rank in tFAW", cite: "timing.md §2.2" },
    // Columns.
    pair("tCCD_L",            (READ, READ),       Scope::Group, &[Plus(TccdL)], "timing.md §2.2"),
    pair("tCCD_S",            (READ, READ),       Scope::Rank, &[Plus(TccdS)], "timing.md §2.2"),
    pair("tCCD_L_WR",         (WRITE, WRITE),     Scope::Group, &[Plus(TccdLWr)], "timing.md §2.2"),
    pair("tCCD_S WR",         (WRITE, WRITE),     Scope::Rank, &[Plus(TccdS)], "timing.md §2.1 CCD_S_WR"),
    pair("tWTR_L",            (WRITE, READ),      Scope::Group, &[Plus(Cwl), Plus(Burst), Plus(TwtrL)], "timing.md §2.2"),
    pair("tWTR_S",            (WRITE, READ),      Scope::Rank, &[Plus(Cwl), Plus(Burst), Plus(TwtrS)], "timing.md §2.2"),
    pair("tPPD",              (CLOSE, CLOSE),     Scope::Rank, &[Plus(Tppd)], "timing.md §2.1"),
    // Refresh.
    pair("tRFC",              (&[RefAb], &[Act, Pre, PreAb, RefAb, RefSb]), Scope::Rank, &[Plus(Trfc)], "timing.md §2.2"),
    pair("tRFCsb",            (&[RefSb], &[Act, Pre]), Scope::Bank, &[Plus(TrfcSb)], "timing.md §2.2; its banks may not be accessed"),
    pair("tRFCsb REF",        (&[RefSb], &[RefAb, RefSb]), Scope::Rank, &[Plus(TrfcSb)], "JESD79-5 REFsb scheduling separation"),
    pair("tREFSBRD",          (&[RefSb], &[Act]), Scope::Rank, &[Plus(Trefsbrd)], "JESD79-5 REFsb scheduling separation"),
    // The buses.
    state(("command slots", "Q3"), "a command begins when the slots of the one before it on the bus are over", "verification.md Q3; timing.md §2.1"),
    burst("data overlap", &[], "bursts do not overlap", "verification.md Q4"),
    turn("data read-write",   (READ, WRITE), &[Plus(Cl), Plus(Burst), Plus(GapRw), Minus(Cwl)], "verification.md Q4; timing.md §2.2 tRDWR"),
    turn("data write-read",   (WRITE, READ), &[Plus(Cwl), Plus(Burst), Plus(GapWr), Minus(Cl)], "verification.md Q4"),
    burst("data rank", &[Plus(GapRank)], "idle clocks between bursts of two ranks, whatever their directions", "verification.md Q4; timing.md §2.1 CS"),
    state(("bandwidth", "Q9"), "in every window from the start of a burst to the end of one, at most a burst per BL/2 clocks", "verification.md Q9"),
    // States.
    state(("time", "Q2"), "the clocks of a subchannel never go back", "verification.md Q2"),
    state(("address", "Q7"), "rank, bank group, bank, row and column exist", "timing.md §2.1"),
    state(("ACT open", "Q7"), "ACT comes to a closed bank", "verification.md Q7"),
    state(("column closed", "Q7"), "RD and WR come to an open bank", "verification.md Q7"),
    state(("column row", "Q7"), "the row that RD and WR mean is the open one", "verification.md Q7"),
    state(("REFab open", "Q7"), "REFab comes when all banks of its rank are closed", "verification.md Q7"),
    state(("REFsb open", "Q7"), "REFsb comes when all its banks are closed", "verification.md Q7; timing.md §2.2"),
    // Refresh in the long run.
    state(("refresh mode", "Q8"), "the commands are of the refresh that the run says it makes", "JESD79-5: REFsb only with fine granularity"),
    state(("refresh order", "Q8"), "no bank index gets a second REFsb before all of its rank got theirs", "JESD79-5 same-bank refresh"),
    state(("refresh late", "Q8"), "over any window, refreshes come every tREFI on average, less those that may be postponed", "verification.md Q8"),
];

/// The index of the rule of this name, found when the program is compiled, or it does not compile.
pub(super) const fn index_of(name: &str) -> usize {
    let mut i = 0;
    while !same(RULES[i].id.as_bytes(), name.as_bytes()) {
        i += 1;
    }
    i
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Ordered pairs of commands without a row of their own, and why.
#[rustfmt::skip]
pub const FREE: &[(&[Cmd], &[Cmd], &str)] = &[
    (&[Rd], &[Act, RefAb, RefSb], "a precharge lies between them, or they are of different banks"),
    (&[Wr], &[Act, RefAb, RefSb], "a precharge lies between them, or they are of different banks"),
    (&[Pre, PreAb], COLUMN, "an ACT lies between them, or they are of different banks"),
    (&[RefAb], COLUMN, "an ACT lies between them"),
    (&[RefSb], COLUMN, "an ACT lies between them, or they are of different banks"),
    (&[RefSb], &[PreAb], "the banks that are refreshed are closed, and PREab does nothing to a closed bank"),
];

/// The rules as a page.
pub fn rules_markdown() -> String {
    let mut out = String::from(
        "| Rule | Check | From | To | Within | At least | Source |\n|---|---|---|---|---|---|---|\n",
    );
    let names = |cmds: &[Cmd]| {
        let names: Vec<&str> = cmds.iter().map(|c| c.name()).collect();
        names.join(", ")
    };
    for r in RULES {
        let (id, check, cite) = (r.id, r.check, r.cite);
        let _ = match r.kind {
            Kind::Pair { before, after, scope, need } => {
                let scope = match scope {
                    Scope::Bank => "bank",
                    Scope::Group => "bank group",
                    Scope::Rank => "rank",
                };
                let (before, after, need) = (names(before), names(after), sum_text(need));
                writeln!(out, "| {id} | {check} | {before} | {after} | {scope} | {need} | {cite} |")
            }
            Kind::Window(need) => {
                let need = sum_text(need);
                writeln!(
                    out,
                    "| {id} | {check} | the fourth ACT before | ACT | rank | {need} | {cite} |"
                )
            }
            Kind::Burst(need) => {
                let need = if need.is_empty() { "0".to_owned() } else { sum_text(need) };
                let text = r.text;
                writeln!(out, "| {id} | {check} | {text} | | subchannel | {need} | {cite} |")
            }
            Kind::State => writeln!(out, "| {id} | {check} | {} | | | | {cite} |", r.text),
        };
    }
    out.push_str("\n| Pairs without a row: from | To | Why |\n|---|---|---|\n");
    for (before, after, why) in FREE {
        let _ = writeln!(out, "| {} | {} | {why} |", names(before), names(after));
    }
    out
}
