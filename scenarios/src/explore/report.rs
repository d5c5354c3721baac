//! What an exploration found, for machines: described by docs/schemas/explore.schema.json.

use super::Bounds;
use crate::report::Verdict;
use schemars::JsonSchema;
use serde::Serialize;

/// Name and version of the form.
pub const SCHEMA: &str = "tdxsim.explore/1";

/// Everything that one call of `tdxsim explore` prints as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// How far the explorations went.
    pub bounds: BoundsReport,
    /// The worst of all.
    pub verdict: Verdict,
    /// One for each part of the scenario's matrix.
    pub explorations: Vec<ExplorationReport>,
}

/// [`Bounds`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BoundsReport {
    /// By how many of its first lines a page is represented.
    pub lines_per_page: u32,
    /// Different states.
    pub states: u64,
    /// Bytes of memory for states.
    pub memory: u64,
    /// Transitions made.
    pub transitions: u64,
    /// Whether cores fill lines that nobody asked for.
    pub prefetch: bool,
    /// Ordinary stores that a core may hold back where agents run side by side.
    pub store_buffer: u8,
}

impl BoundsReport {
    pub(super) const fn of(bounds: &Bounds) -> BoundsReport {
        BoundsReport {
            lines_per_page: bounds.lines_per_page,
            states: bounds.states as u64,
            memory: bounds.memory,
            transitions: bounds.transitions,
            prefetch: bounds.prefetch,
            store_buffer: bounds.store_buffer,
        }
    }
}

/// The exploration of one part of a scenario's matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ExplorationReport {
    /// The scenario's name.
    pub scenario: String,
    /// The platform's name.
    pub platform: String,
    /// Integrity mode.
    pub integrity: String,
    /// Whether the platform has the partial-write erratum.
    pub erratum: bool,
    /// `program` or `concurrent`.
    pub order: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Lines on which hardware makes every choice; on all others what is done is in memory at once.
    pub watched: Vec<String>,
    /// Different states reached.
    pub states: u64,
    /// Transitions made.
    pub transitions: u64,
    /// Moves to the furthest state.
    pub depth: u32,
    /// Whether everything reachable was seen.
    pub exhausted: bool,
    /// Different outcomes found.
    pub endings: u64,
    /// The outcomes, sorted; at most [`super::OUTCOMES_MAX`].
    pub outcomes: Vec<OutcomeReport>,
    /// What became of the scenario's expectations.
    pub expectations: Vec<JudgedReport>,
    /// The shortest program against each that does not hold.
    pub counterexamples: Vec<CounterexampleReport>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What all agents saw, and how it stood with the final checks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct OutcomeReport {
    /// By operation, in the order of the program.
    pub steps: Vec<SeenReport>,
    /// By final check.
    pub finals: Vec<FinalReport>,
    /// Moves on the shortest way to it, hardware's choices among them.
    pub moves: u32,
    /// In how many final states it stands.
    pub ends: u64,
}

/// What an agent saw of an operation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
pub struct SeenReport {
    /// Which operation, such as `cpu0.1`.
    pub step: String,
    /// In the words of the scenario format; without bytes that the reference cannot know.
    pub outcome: String,
}

/// A final check.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
pub struct FinalReport {
    /// What must hold.
    pub check: String,
    /// What was there.
    pub seen: String,
    /// Whether it holds.
    pub met: bool,
}

/// An expectation over all runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct JudgedReport {
    /// `always`, `never` or `possibly`.
    pub quantifier: String,
    /// Which operation; `final` for final checks.
    pub subject: String,
    /// The pattern, or the final check.
    pub pattern: String,
    /// All that was seen, sorted.
    pub seen: Vec<String>,
    /// Whether it holds; absent while undecided.
    pub holds: Option<bool>,
}

impl JudgedReport {
    /// In a line.
    pub fn text(&self) -> String {
        format!("{} {}: {}", self.quantifier, self.subject, self.pattern)
    }
}

/// The shortest run that speaks against one or more expectations.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CounterexampleReport {
    /// Against which.
    pub against: Vec<String>,
    /// What happened, move by move.
    pub moves: Vec<String>,
    /// The same as a scenario file.
    pub file: Option<String>,
    /// Whether `tdxsim run` shows the same of that file.
    pub reproduced: bool,
}
