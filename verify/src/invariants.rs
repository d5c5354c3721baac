//! The invariants of verification.md §2: the [registry](INVARIANTS) of all of them, and the [`Checker`] that judges states,
//! steps, calls, machine checks and runs by them.
//!
//! Every predicate with an implication counts how often its left side held, its witnesses: a run in which it never did is no
//! check, and is told apart from one in which it held.

mod lines;
mod module;
mod registry;
mod reports;
mod runs;

pub use module::{CallSeen, MemoryView, Moment, leaves, tracked};
pub use registry::{Feed, INVARIANTS, Invariant, Kind, find, invariants_markdown};
pub use reports::{Grading, McSeen};
pub use runs::{AliasTiming, Discipline, Shown};

use std::collections::{BTreeMap, BTreeSet};

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub id: &'static str,
    /// What was found.
    pub what: String,
}

/// Judges what it is shown, and counts how often each invariant had something to say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checker {
    witnesses: BTreeMap<&'static str, u64>,
    rows: BTreeSet<u8>,
    found: Vec<Violation>,
}

impl Checker {
    /// A checker that has seen nothing.
    pub fn new() -> Checker {
        Checker::default()
    }
    /// How often the left side of the invariant held.
    pub fn witnesses(&self, id: &str) -> u64 {
        self.witnesses.get(id).copied().unwrap_or(0)
    }
    /// Rows of the oracle of verification.md §1.1 that were reached.
    pub const fn rows(&self) -> &BTreeSet<u8> {
        &self.rows
    }
    /// Adds what another checker has seen, but not what it found.
    pub fn absorb(&mut self, other: &Checker) {
        for (id, count) in &other.witnesses {
            *self.witnesses.entry(id).or_default() += count;
        }
        self.rows.extend(&other.rows);
    }
    /// Adds what a judge of its own kind counted for one invariant, such as the DDR5 checker or a relation.
    pub fn count(&mut self, id: &'static str, witnesses: u64) {
        if witnesses > 0 {
            *self.witnesses.entry(id).or_default() += witnesses;
        }
    }

    /// The left side of `id` held; if `holds` does not, it is broken.
    fn claim(&mut self, id: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.witnesses.entry(id).or_default() += 1;
        if !holds {
            self.found.push(Violation { id, what: what() });
        }
    }
    fn take(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.found)
    }
}
