//! What whole runs show: pairs of runs that differ in a TD's secret, life cycles, holders of lines, and time.

use super::{Checker, Violation};
use crate::ddr5;
use crate::ddr5::run::RunChecker;
use sim_core::time::Ps;

/// What the host saw of one of its operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Its outcome, in words that hold every value and every #MC.
    pub outcome: String,
    /// How long it took.
    pub took: Ps,
}

/// What a run of a life cycle was like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Discipline {
    /// The part has the erratum.
    pub erratum: bool,
    /// An error was injected, or memory was tampered with.
    pub faults: bool,
    /// The host kept V1 to V3.
    pub kept: bool,
    /// Births of poison.
    pub births: u64,
}

/// How long a load under KeyID 0 took, by who held the line under another KeyID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AliasTiming {
    /// Nobody.
    pub uncached: Ps,
    /// A core, clean.
    pub clean: Ps,
    /// A core, modified.
    pub modified: Ps,
}

impl Checker {
    /// S2 and S3: what the host saw in two runs that differ in a TD's plaintext only.
    pub fn check_secret_pair(&mut self, a: &[Shown], b: &[Shown]) -> Vec<Violation> {
        self.claim("S2", a.len() == b.len(), || format!("{} and {} operations", a.len(), b.len()));
        for (a, b) in a.iter().zip(b) {
            self.claim("S2", a.outcome == b.outcome, || format!("{a:?} and {b:?}"));
            self.claim("S3", a.took == b.took, || format!("{a:?} and {b:?}"));
        }
        self.take()
    }

    /// S5: bytes that were loaded after a TD was gone; `secret` is what it had there.
    pub fn check_ruin(&mut self, secret: &[u8], loaded: &[u8]) -> Vec<Violation> {
        self.claim("S5", secret != loaded, || format!("{loaded:02x?} is the TD's"));
        self.take()
    }

    /// P6.
    pub fn check_discipline(&mut self, run: &Discipline) -> Vec<Violation> {
        if !run.erratum && !run.faults && run.kept {
            self.claim("P6", run.births == 0, || format!("{run:?}"));
        }
        self.take()
    }

    /// C10: the cores that hold a (line, KeyID), and those that the directory names: bit i is core i.
    pub fn check_directory(&mut self, holders: u128, named: u128) -> Vec<Violation> {
        if holders != 0 {
            self.claim("C10", holders & !named == 0, || {
                format!("held by {holders:#b}, the directory names {named:#b}")
            });
        }
        self.take()
    }

    /// C13.
    pub fn check_alias_timing(&mut self, times: &AliasTiming) -> Vec<Violation> {
        let right = times.uncached < times.clean && times.clean < times.modified;
        self.claim("C13", right, || format!("{times:?}"));
        self.take()
    }

    /// Q17: a run was replayed on the reference: how many operations agreed, and what did not.
    pub fn check_refinement(
        &mut self,
        agreed: u64,
        disagreement: Option<String>,
    ) -> Vec<Violation> {
        self.count("Q17", agreed);
        if let Some(what) = disagreement {
            self.claim("Q17", false, || what);
        }
        self.take()
    }

    /// Q3, Q4, Q5, Q7, Q8: what the DDR5 checker counted and found.
    pub fn check_commands(&mut self, judge: &ddr5::Checker) -> Vec<Violation> {
        for (rule, witnesses, broken) in judge.tally() {
            self.count(rule.check, witnesses);
            if broken > 0 {
                let first = judge.violations().iter().find(|v| v.rule.id == rule.id);
                self.claim(rule.check, false, || {
                    first.map_or(rule.id.to_owned(), ToString::to_string)
                });
            }
        }
        self.take()
    }

    /// Q1, Q2, Q9 to Q16: what a checker of a run counted and found.
    pub fn check_run(&mut self, judge: &RunChecker) -> Vec<Violation> {
        for row in ddr5::run::TIMING {
            self.count(row.id, judge.witnesses(row.id));
        }
        self.found.extend(judge.violations().iter().cloned());
        self.take()
    }

    /// Q6: a command came at `clock`, `earliest` is the first clock at which the rules allow it.
    pub fn check_tight(&mut self, clock: u64, earliest: u64) -> Vec<Violation> {
        self.claim("Q6", clock == earliest, || format!("came at {clock}, could at {earliest}"));
        self.take()
    }
}
