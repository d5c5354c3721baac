//! What exercises the invariants of verification.md §2, and what came of it: `tdxsim invariants`.
//!
//! The library runs under the eyes of the checker, operation by operation; the reference model walks at random; bare
//! memories are asked by generators; pairs of runs are compared. All of it depends on nothing but the seed.

mod drive;
mod reference;
mod runs;
mod timing;

use crate::format::Scenario;
use crate::library::LIBRARY;
use crate::relations;
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
        Effort { cells: 4, replays: true, walks: 1500, requests: 20_000, worlds: 12 };
    /// Enough for every invariant to have something to say.
    pub const SMALL: Effort =
        Effort { cells: 1, replays: false, walks: 160, requests: 1500, worlds: 4 };
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
    /// Its left side never held: no check.
    NotExercised,
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
    /// `broken` when an invariant is, `fail` when one was not exercised.
    pub verdict: Verdict,
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
    let mut checker = Checker::new();
    let mut found = Vec::new();
    if what.wants_any(&[Feed::Reference]) {
        progress("the reference model, at random");
        found.extend(reference::walk(what.effort.walks, what.seed, &mut checker));
    }
    if what.wants_any(&[Feed::Module, Feed::Reports, Feed::Runs]) {
        library(what, &mut checker, &mut found, progress);
        progress("pairs of runs");
        found.extend(compare(what.planted, &mut checker));
    }
    if what.wants_any(&[Feed::Timing]) {
        progress("bare memories");
        found.extend(timing::exercise(what.effort.requests, what.seed, &mut checker));
    }
    for row in INVARIANTS.iter().filter(|i| i.feed == Feed::Relations && what.wants(i)) {
        progress(&format!("relation {}", row.id));
        let Some(made) = relations::check(row.id, what.seed, what.effort.worlds) else { continue };
        checker.count(row.id, made.witnesses);
        let broken = made.violation.map(|v| Violation { id: row.id, what: v.to_string() });
        found.extend(broken);
    }
    report(what, tool, &checker, &found)
}

fn library(
    what: &Exercise,
    checker: &mut Checker,
    found: &mut Vec<Violation>,
    progress: &mut dyn FnMut(&str),
) {
    for entry in LIBRARY {
        progress(&format!("library: {}", entry.name));
        // The library's own tests see to it that every scenario can be planned.
        let Ok(scenario) = Scenario::parse(entry.source()) else { continue };
        let Ok(mut cells) = plan(&scenario, &Request::default()) else { continue };
        let disciplined = DISCIPLINED.contains(&entry.name);
        if disciplined && what.effort.cells < cells.len() {
            // P6 is about parts without the erratum: they come first.
            cells.sort_by_key(|cell| cell.platform().memory.erratum_pw_mce);
        }
        for cell in cells.iter_mut().take(what.effort.cells) {
            cell.plant(what.planted);
            found.extend(watch(cell, disciplined, checker));
            if what.effort.replays || cell.program().setup.is_none() {
                found.extend(follow(cell, checker));
            }
        }
    }
}

/// Runs a cell in program order and without time under the eyes of groups C, P, R, T, H and E. `disciplined` says that its
/// host keeps V1 to V3 of verification.md §2.8.
pub fn watch(cell: &Cell, disciplined: bool, checker: &mut Checker) -> Vec<Violation> {
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

fn report(what: &Exercise, tool: &str, checker: &Checker, found: &[Violation]) -> InvariantsReport {
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
    let verdict = match (any(Standing::Broken), any(Standing::NotExercised)) {
        (true, _) => Verdict::Broken,
        (false, true) => Verdict::Fail,
        (false, false) => Verdict::Pass,
    };
    InvariantsReport { schema: SCHEMA, tool: tool.to_owned(), seed: what.seed, verdict, invariants }
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
        let count = |s| self.invariants.iter().filter(|i| i.standing == s).count();
        writeln!(
            f,
            "{} hold, {} broken, {} not exercised, {} pending, {} left out",
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
