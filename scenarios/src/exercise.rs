//! What exercises the invariants of verification.md §2, and what came of it: `tdxsim invariants`.
//!
//! The library runs under the eyes of the checker, operation by operation; the reference model walks at random; bare
//! memories are asked by generators; pairs of runs are compared. All of it depends on nothing but the seed.

mod drive;
mod reference;
mod runs;
mod timing;

use crate::diag::SourceFile;
use crate::format::Scenario;
use crate::library::LIBRARY;
use crate::relations::{self, Relation};
use crate::report::Verdict;
use crate::run::{Cell, Request, plan};
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::planted::Planted;
use std::collections::BTreeMap;
use std::fmt;
use verify::invariants::{Checker, Feed, INVARIANTS, Invariant, Violation};

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Cells of each library scenario, at most.
    pub cells: usize,
    /// Whether cells with a TDX module are replayed on the reference, too.
    pub replays: bool,
    /// Random walks of the reference model.
    pub walks: u64,
    /// Random requests to every bare memory.
    pub requests: u64,
    /// Random worlds for every relation.
    pub worlds: u64,
}

impl Effort {
    /// What the command does.
    pub const FULL: Effort =
        Effort { cells: 4, replays: true, walks: 1500, requests: 20_000, worlds: 60 };
    /// Enough for every invariant to have something to say.
    pub const SMALL: Effort =
        Effort { cells: 1, replays: false, walks: 160, requests: 1500, worlds: 40 };
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Exercise {
    /// Only this group, by its letter.
    pub group: Option<char>,
    /// Only this invariant.
    pub id: Option<String>,
    /// How much is done.
    pub effort: Effort,
    /// Seed of everything random.
    pub seed: u64,
    /// A fault that a test planted.
    pub planted: Planted,
}

impl Default for Exercise {
    fn default() -> Exercise {
        let (effort, planted) = (Effort::FULL, Planted::NONE);
        Exercise { group: None, id: None, effort, seed: 1, planted }
    }
}

impl Exercise {
    fn wants(&self, invariant: &Invariant) -> bool {
        self.group.is_none_or(|g| g.eq_ignore_ascii_case(&invariant.group()))
            && self.id.as_ref().is_none_or(|id| id.eq_ignore_ascii_case(invariant.id))
    }
    fn wants_any(&self, feeds: &[Feed]) -> bool {
        INVARIANTS.iter().any(|i| feeds.contains(&i.feed) && self.wants(i))
    }
}

/// What came of an invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It had something to say and held every time.
    Holds,
    /// It was broken.
    Broken,
    /// Its left side never held, or of a relation too few worlds could be compared: no check.
    NotExercised,
    /// Some of the runs that it is judged on could not be made: what there is of them held.
    Incomplete,
    /// Nothing judges it yet.
    Pending,
    /// It is left out, for the reason in `judged_on`.
    LeftOut,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Holds => "holds",
            Standing::Broken => "BROKEN",
            Standing::NotExercised => "not exercised",
            Standing::Incomplete => "incomplete",
            Standing::Pending => "pending",
            Standing::LeftOut => "left out",
        })
    }
}

/// One invariant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct InvariantReport {
    /// Its id in verification.md §2.
    pub id: String,
    /// S a state, T a step or a trace, X runs compared, Q time.
    pub kind: String,
    /// What holds.
    pub text: String,
    /// Source, beside verification.md.
    pub cite: String,
    /// What it is judged on.
    pub judged_on: String,
    /// What came of it.
    pub standing: Standing,
    /// How often its left side held.
    pub witnesses: u64,
    /// How often it was broken.
    pub violations: u64,
    /// The first of them.
    pub first: Option<String>,
}

/// What `tdxsim invariants` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct InvariantsReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Seed.
    pub seed: u64,
    /// `broken` when an invariant is, or a run could not be made; `fail` when one was not exercised.
    pub verdict: Verdict,
    /// What could not be run or compared, and why.
    pub not_run: Vec<String>,
    /// All that were asked for, in the order of verification.md §2.
    pub invariants: Vec<InvariantReport>,
}

/// Version of the report's form.
pub const SCHEMA: &str = "tdxsim.invariants/1";

/// Library scenarios whose host writes back and clears in the order of verification.md V1 to V3.
const DISCIPLINED: [&str; 12] = [
    "accept-4k",
    "demote-then-promote",
    "promote-scattered",
    "q12-page-add-after-clflush",
    "relocate-a-page",
    "td-hello",
    "td-lifecycle",
    "tracking-done",
    "tracking-forgotten",
    "trap-readded-page-is-zero",
    "vcpu-moves",
    "hkid-reused",
];

/// Exercises what is asked for. `progress` is told what is being done.
pub fn exercise(what: &Exercise, tool: &str, progress: &mut dyn FnMut(&str)) -> InvariantsReport {
    let mut made = Made::default();
    if what.wants_any(&[Feed::Reference]) {
        progress("the reference model, at random");
        made.found.extend(reference::walk(what.effort.walks, what.seed, &mut made.checker));
    }
    if what.wants_any(&LIBRARY_FEEDS) {
        for entry in LIBRARY {
            progress(&format!("library: {}", entry.name));
            made.scenario(what, entry.name, entry.source());
        }
        progress("pairs of runs");
        made.found.extend(compare(what.planted, &mut made.checker));
    }
    if what.wants_any(&[Feed::Timing]) {
        progress("bare memories");
        made.found.extend(timing::exercise(what.effort.requests, what.seed, &mut made.checker));
    }
    for row in INVARIANTS.iter().filter(|i| i.feed == Feed::Relations && what.wants(i)) {
        progress(&format!("relation {}", row.id));
        match relations::check(row.id, what.seed, what.effort.worlds) {
            Some(relation) => made.relation(row.id, relation),
            None => made.not_run.push(format!("relation {}: there is none", row.id)),
        }
    }
    made.report(what, tool)
}

/// What is judged on the library's scenarios.
const LIBRARY_FEEDS: [Feed; 3] = [Feed::Module, Feed::Reports, Feed::Runs];

/// What has been seen so far.
#[derive(Default)]
struct Made {
    checker: Checker,
    found: Vec<Violation>,
    /// Scenarios of the library that did not run.
    failed: bool,
    /// What could not be run or compared, and why.
    not_run: Vec<String>,
}

impl Made {
    /// Runs a scenario's cells, as many as are wanted.
    fn scenario(&mut self, what: &Exercise, name: &str, source: SourceFile) {
        let planned = Scenario::parse(source).and_then(|s| plan(&s, &Request::default()));
        let mut cells = match planned {
            Ok(cells) => cells,
            Err(diag) => return self.failed(name, &diag.to_string()),
        };
        let disciplined = DISCIPLINED.contains(&name);
        if disciplined && what.effort.cells < cells.len() {
            // P6 is about parts without the erratum: they come first.
            cells.sort_by_key(|cell| cell.platform().memory.erratum_pw_mce);
        }
        for cell in cells.iter_mut().take(what.effort.cells) {
            cell.plant(what.planted);
            match watch(cell, disciplined, &mut self.checker) {
                Ok(found) => self.found.extend(found),
                Err(why) => {
                    self.failed(&format!("{name} on {}", cell.platform().name), &why);
                    continue;
                }
            }
            if what.effort.replays || cell.program().setup.is_none() {
                self.found.extend(follow(cell, &mut self.checker));
            }
        }
    }
    fn failed(&mut self, what: &str, why: &str) {
        self.failed = true;
        self.not_run.push(format!("{what}: {why}"));
    }
    fn relation(&mut self, id: &'static str, made: Relation) {
        // What was not compared is no check: few comparisons are none.
        if made.says_enough() || made.violation.is_some() {
            self.checker.count(id, made.witnesses);
        } else if made.cases > 0 {
            self.not_run.push(format!("relation {id}: {}", made.told()));
        }
        let broken = made.violation.map(|v| Violation { id, what: v.to_string() });
        self.found.extend(broken);
    }
}

/// Runs a cell in program order and without time under the eyes of groups C, P, R, T, H and E. `disciplined` says that its
/// host keeps V1 to V3 of verification.md §2.8.
///
/// # Errors
/// Why its machine could not be built or set up: nothing was looked at.
pub fn watch(
    cell: &Cell,
    disciplined: bool,
    checker: &mut Checker,
) -> Result<Vec<Violation>, String> {
    drive::drive(cell, disciplined, checker)
}

/// Runs a cell with time, replays it on the reference model (Q17), and shows groups L, P and S the requests that the
/// reference makes.
pub fn follow(cell: &Cell, checker: &mut Checker) -> Vec<Violation> {
    runs::refined(cell, checker)
}

/// Runs that are compared with each other, and grades with the rules: S2, S3, S5, C13, R3.
pub fn compare(planted: Planted, checker: &mut Checker) -> Vec<Violation> {
    let mut found = runs::secrets(planted, checker);
    found.extend(runs::alias(planted, checker));
    found.extend(runs::grades(checker));
    found
}

impl Made {
    fn report(self, what: &Exercise, tool: &str) -> InvariantsReport {
        let Made { checker, found, failed, not_run } = self;
        report(what, tool, (&checker, &found), failed, not_run)
    }
}

fn report(
    what: &Exercise,
    tool: &str,
    (checker, found): (&Checker, &[Violation]),
    failed: bool,
    not_run: Vec<String>,
) -> InvariantsReport {
    let mut broken: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for violation in found {
        broken.entry(violation.id).or_insert((0, &violation.what)).0 += 1;
    }
    let row = |i: &'static Invariant| {
        let (violations, first) = match broken.get(i.id) {
            Some((n, what)) => (*n, Some((*what).to_owned())),
            None => (0, None),
        };
        let witnesses = checker.witnesses(i.id);
        let standing = match i.feed {
            _ if violations > 0 => Standing::Broken,
            Feed::Pending => Standing::Pending,
            Feed::LeftOut(_) => Standing::LeftOut,
            feed if failed && LIBRARY_FEEDS.contains(&feed) => Standing::Incomplete,
            _ if witnesses == 0 => Standing::NotExercised,
            _ => Standing::Holds,
        };
        InvariantReport {
            id: i.id.to_owned(),
            kind: i.kind.letter().to_string(),
            text: i.text.to_owned(),
            cite: i.cite.to_owned(),
            judged_on: i.feed.text().to_owned(),
            standing,
            witnesses,
            violations,
            first,
        }
    };
    let invariants: Vec<InvariantReport> =
        INVARIANTS.iter().filter(|i| what.wants(i)).map(row).collect();
    let any = |standing| invariants.iter().any(|i| i.standing == standing);
    let verdict = match () {
        // The library's own scenarios: one that cannot be run is a defect of the simulator.
        () if any(Standing::Broken) || failed => Verdict::Broken,
        () if any(Standing::NotExercised) => Verdict::Fail,
        () => Verdict::Pass,
    };
    let (schema, tool, seed) = (SCHEMA, tool.to_owned(), what.seed);
    InvariantsReport { schema, tool, seed, verdict, not_run, invariants }
}

impl fmt::Display for InvariantsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<4} {:<14} {:>10}  {:<27} invariant", "id", "", "witnesses", "judged on")?;
        for i in &self.invariants {
            let count = match i.standing {
                Standing::Pending | Standing::LeftOut => "-".to_owned(),
                _ => i.witnesses.to_string(),
            };
            let (on, why) = match i.standing {
                Standing::LeftOut => ("", format!(" ({})", i.judged_on)),
                _ => (i.judged_on.as_str(), String::new()),
            };
            let standing = i.standing.to_string();
            writeln!(f, "{:<4} {standing:<14} {count:>10}  {on:<27} {}{why}", i.id, i.text)?;
            if let Some(first) = &i.first {
                writeln!(f, "     broken {} times, first: {first}", i.violations)?;
            }
        }
        for what in &self.not_run {
            writeln!(f, "NOT RUN: {what}")?;
        }
        let count = |s| self.invariants.iter().filter(|i| i.standing == s).count();
        // Said only where there is something to say.
        let incomplete = match count(Standing::Incomplete) {
            0 => String::new(),
            n => format!("{n} incomplete, "),
        };
        writeln!(
            f,
            "{} hold, {} broken, {incomplete}{} not exercised, {} pending, {} left out",
            count(Standing::Holds),
            count(Standing::Broken),
            count(Standing::NotExercised),
            count(Standing::Pending),
            count(Standing::LeftOut),
        )
    }
}

/// Whether there is such an invariant, in capital letters or small.
pub fn is_known(id: &str) -> bool {
    INVARIANTS.iter().any(|i| i.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Exercise =
        Exercise { group: None, id: None, effort: Effort::SMALL, seed: 1, planted: Planted::NONE };

    fn scenario(tables: &str) -> SourceFile {
        let text = format!(
            "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = 'cpu0 : mfence'\n\
             [expect]\nfinal = [\"births 0\"]\n{tables}"
        );
        SourceFile::unchecked("x.toml", &text)
    }

    #[test]
    fn a_scenario_that_cannot_be_read_planned_or_set_up_is_no_check_and_breaks_the_whole() {
        let no_pamt = "[tdx]\nstate = \"ready\"\npamt = \"0x79000000\"\n";
        let unknown = "[td.A]\nhkid = \"priv900\"\nstate = \"keyed\"\n[tdx]\nstate = \"ready\"\n";
        for (tables, why) in
            [("what", "x.toml:9:"), (unknown, "priv900"), (no_pamt, "TDX_PAMT_OUTSIDE_CMRS")]
        {
            let mut made = Made::default();
            made.scenario(&SMALL, "x", scenario(tables));
            assert!(
                made.failed && made.not_run.iter().any(|n| n.contains(why)),
                "{:?}",
                made.not_run
            );
            // Other runs have something to say of it, and it held there.
            made.checker.count("T1", 5);
            let report = made.report(&SMALL, "test");
            assert_eq!(report.verdict, Verdict::Broken);
            let of = |id: &str| report.invariants.iter().find(|i| i.id == id).unwrap().standing;
            assert_eq!((of("T1"), of("L1")), (Standing::Incomplete, Standing::NotExercised));
            assert!(report.to_string().contains(why), "{report}");
        }
        let mut made = Made::default();
        made.scenario(&SMALL, "x", scenario("[tdx]\nstate = \"ready\"\n"));
        assert!(!made.failed && made.not_run.is_empty(), "{:?}", made.not_run);
    }

    #[test]
    fn a_relation_of_which_few_worlds_could_be_compared_is_not_exercised_and_says_how_many() {
        let relation =
            |witnesses, skipped| Relation { witnesses, skipped, cases: 12, violation: None };
        let standing = |relation| {
            let mut made = Made::default();
            made.relation("M7", relation);
            let report = made.report(&Exercise { id: Some("M7".to_owned()), ..SMALL }, "test");
            (report.invariants.first().unwrap().standing, report.verdict, report.not_run)
        };
        assert_eq!(standing(relation(3, 2)), (Standing::Holds, Verdict::Pass, vec![]));
        let said = "relation M7: 2 of 12 worlds compared, 9 not made, 1 with nothing to compare"
            .to_owned();
        assert_eq!(standing(relation(2, 9)), (Standing::NotExercised, Verdict::Fail, vec![said]));
    }
}
