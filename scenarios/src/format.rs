//! Scenario files: a TOML envelope and a program of one operation per line.
//!
//! [`Scenario::parse`] reads a file, [`Scenario::to_text`] prints one (parsing gives the same back),
//! [`Scenario::cases`] lists its matrix, [`Scenario::platform`] loads the platform of a case with the scenario's
//! overrides, and [`Scenario::bind`] turns text into addresses and KeyIDs of that platform. Whatever is wrong is said
//! at line and column of the file, also at binding (verification.md §4.2 points 1 to 4).
//!
//! A private KeyID used by an agent outside SEAM is not an error of the file: the run shows the architectural fault
//! (architecture.md §2.5).

mod bind;
mod check;
mod parse;
mod pattern;
mod print;
pub(crate) mod tdx;
#[cfg(test)]
mod tdx_tests;
#[cfg(test)]
mod tests;

pub use bind::{AgentSpec, BoundFinal, Expectation, NamedArea, Program, ProgramLine, Step};
pub(crate) use bind::{Regions, Trouble};
pub use check::{
    BoundCheck, CheckForm, CheckParseError, FINAL_CHECKS, FinalCheck, final_checks_markdown,
};
pub use parse::{AGENT_KINDS, AgentForm, agent_kinds_markdown};
pub use pattern::{
    OUTCOMES, OutcomeForm, Pattern, PatternError, ReadPattern, Slot, outcomes_markdown,
};

pub use tdx::{
    Attribute, Content, How, ModuleState, PageSpec, TD_PAGES_MAX, TDS_MAX, TableSpec, Td, TdState,
    Tdx, VCPUS_MAX,
};

pub use sim_core::setting::{AgentKind, CryptoKind as Crypto, Order};

use crate::diag::{Diag, SourceFile};
use crate::platform::{Origin, Override, Platform, load_with};
use serde::{Deserialize, Serialize};
use sim_core::op::{AddrExpr, KeyRef, TextOp};
use sim_core::platform::IntegrityMode;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The most operations in a program.
pub const STEPS_MAX: usize = 100_000;
/// The most regions.
pub const REGIONS_MAX: usize = 4096;
/// The most agents.
pub const AGENTS_MAX: usize = 1024;

/// A scenario as its file says it, before it meets a platform.
///
/// Two scenarios are equal when they say the same; where things stand in the file does not count.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Short and stable: 1 to 40 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Why the expectations are right; at least one.
    pub cite: Vec<String>,
    /// Presets to run on; at least one.
    pub platforms: Vec<String>,
    /// Integrity modes to run in; none for the platform's own.
    pub integrity: Vec<IntegrityMode>,
    /// How lines follow each other.
    pub order: Order,
    /// Kinds of cryptography to run with; at least one.
    pub crypto: Vec<Crypto>,
    /// Platform parameters that the scenario sets, in the order of the file.
    pub set: Vec<Override>,
    /// The program.
    pub program: Vec<Line>,
    /// Named pieces of memory, in the order of the file.
    pub regions: Vec<Region>,
    /// Declared agents, in the order of the file. Others take their kind from their name ([`AGENT_KINDS`]).
    pub agents: Vec<Agent>,
    /// What the TDX module is before the program; loaded where absent.
    pub tdx: Option<Tdx>,
    /// The TDs that are built before the program, in the order of the file.
    pub tds: Vec<Td>,
    /// What must happen, what must not, and what must hold at the end.
    pub checks: Checks,
    /// What replaces entries of `checks` in parts of the matrix; of two for the same entry the later wins.
    pub refinements: Vec<Refinement>,
    /// The file, for messages at binding.
    source: SourceFile,
}

impl PartialEq for Scenario {
    fn eq(&self, other: &Self) -> bool {
        // Written out so that a new field cannot be forgotten.
        let Scenario {
            name,
            title,
            cite,
            platforms,
            integrity,
            order,
            crypto,
            set,
            program,
            regions,
            agents,
            tdx,
            tds,
            checks,
            refinements,
            source: _,
        } = self;
        (name, title, cite) == (&other.name, &other.title, &other.cite)
            && (platforms, integrity) == (&other.platforms, &other.integrity)
            && (order, crypto, set) == (&other.order, &other.crypto, &other.set)
            && (program, regions, agents) == (&other.program, &other.regions, &other.agents)
            && (tdx, tds) == (&other.tdx, &other.tds)
            && (checks, refinements) == (&other.checks, &other.refinements)
    }
}
impl Eq for Scenario {}

/// Where something stands in the file: bytes of its text. All places are equal.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    start: u32,
    end: u32,
}

impl Place {
    pub(crate) fn new(span: Range<usize>) -> Place {
        // A source file has at most 16 MiB.
        Place { start: span.start as u32, end: span.end as u32 }
    }
    pub(crate) const fn span(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}
impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Place {}

/// A value and where it stands. Equal when the values are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Place,
}

impl<T> From<T> for Located<T> {
    /// A value that stands nowhere: a scenario that is being built, not read.
    fn from(value: T) -> Self {
        Located { value, at: Place::default() }
    }
}

/// A named piece of memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Region {
    /// `[A-Za-z_][A-Za-z0-9_]{0,31}`
    pub name: String,
    /// Of which memory.
    pub space: Space,
    /// First byte, 64-byte aligned.
    pub base: u64,
    /// How many bytes; not 0.
    pub size: u64,
    /// Where it stands.
    pub at: Place,
}

/// Which addresses a region names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Space {
    /// Physical ones. Two regions have no byte in common.
    #[default]
    Host,
    /// Guest-physical or linear ones, each guest's own: regions may overlap.
    Guest,
}

/// The VCPU that a guest is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vcpu {
    /// Its TDVPR page.
    pub tdvpr: AddrExpr,
    /// Guest-physical address bits, 48 or 52: the top one is the SHARED bit (architecture.md §2.5).
    pub gpaw: u8,
}

/// The name that stands for the SHARED bit in a guest's addresses.
pub const SHARED: &str = "SHARED";
/// GPAW where a guest's table does not give it.
pub const GPAW: u8 = 48;

/// A declared agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// `[A-Za-z_][A-Za-z0-9_]{0,31}`
    pub name: String,
    /// What it is.
    pub kind: AgentKind,
    /// Which core, for kinds that have one.
    pub core: Option<u16>,
    /// The KeyID of its addresses where they name none; KeyID 0 where absent. A TD always has one.
    pub keyid: Option<KeyRef>,
    /// Of a guest, and of no other kind: its VCPU.
    pub vcpu: Option<Vcpu>,
    /// Where it stands.
    pub at: Place,
}

/// A line of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all lines are operations")]
pub enum Line {
    /// `agent : operation`
    Op {
        /// Who.
        agent: String,
        /// What.
        op: TextOp,
        /// Where the operation stands.
        at: Place,
    },
    /// `barrier`: everything above has completed before anything below starts.
    Barrier,
}

/// Names one operation: `cpu1.2` is the second line of agent `cpu1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct StepRef {
    /// The agent's name.
    pub agent: String,
    /// Which of its lines, from 1.
    pub index: u32,
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.agent, self.index)
    }
}

/// What must happen, what must not, and what must hold at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checks {
    /// `[expect]`: outcomes that must happen.
    pub expect: BTreeMap<StepRef, Located<Pattern>>,
    /// `[forbid]`: outcomes that must not.
    pub forbid: BTreeMap<StepRef, Located<Pattern>>,
    /// `[allow]`: outcomes that may happen. A run asks nothing of them; a search (`tdxsim explore`) must find each possible,
    /// and takes them for expected.
    pub allow: BTreeMap<StepRef, Located<Pattern>>,
    /// `final` of `[expect]`.
    pub finals: Vec<Located<FinalCheck>>,
}

impl Checks {
    /// Whether nothing is asked, neither of a run nor of all of them.
    pub fn is_empty(&self) -> bool {
        let asks_a_run =
            !self.expect.is_empty() || !self.forbid.is_empty() || !self.finals.is_empty();
        !asks_a_run && self.allow.is_empty()
    }
}

/// `[[when]]`: entries that replace those of the same key in a part of the matrix.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refinement {
    /// On these platforms; any where empty.
    pub platforms: Vec<String>,
    /// In these integrity modes; any where empty.
    pub integrity: Vec<IntegrityMode>,
    /// With these kinds of cryptography; any where empty.
    pub crypto: Vec<Crypto>,
    /// On platforms with, or without, the partial-write erratum; any where absent.
    pub erratum: Option<bool>,
    /// Entries that replace or join those of `[expect]`.
    pub expect: BTreeMap<StepRef, Located<Pattern>>,
    /// Entries that replace or join those of `[forbid]`.
    pub forbid: BTreeMap<StepRef, Located<Pattern>>,
    /// Entries that replace or join those of `[allow]`.
    pub allow: BTreeMap<StepRef, Located<Pattern>>,
    /// Replaces the whole list of final checks.
    pub finals: Option<Vec<Located<FinalCheck>>>,
}

impl Refinement {
    fn applies(&self, part: &Part<'_>) -> bool {
        let Part { platform, integrity, crypto, erratum } = *part;
        self.erratum.is_none_or(|e| e == erratum)
            && (self.platforms.is_empty() || self.platforms.iter().any(|p| p == platform))
            && (self.integrity.is_empty() || self.integrity.contains(&integrity))
            && (self.crypto.is_empty() || self.crypto.contains(&crypto))
    }
}

/// A part of the matrix, as far as refinements can tell parts from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<'a> {
    /// On which platform.
    pub platform: &'a str,
    /// In which integrity mode.
    pub integrity: IntegrityMode,
    /// With which cryptography.
    pub crypto: Crypto,
    /// Whether the platform has the partial-write erratum.
    pub erratum: bool,
}

/// One point of a scenario's matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Which preset.
    pub platform: String,
    /// Which integrity mode; the platform's own where absent.
    pub integrity: Option<IntegrityMode>,
    /// Which cryptography.
    pub crypto: Crypto,
}

impl fmt::Display for Case {
    /// `spr`, `spr li`, `spr li real`: what differs from a plain run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.platform)?;
        if let Some(mode) = self.integrity {
            write!(f, " {mode}")?;
        }
        if self.crypto == Crypto::Real { write!(f, " {}", self.crypto) } else { Ok(()) }
    }
}

impl Scenario {
    /// A scenario that does and expects nothing, to be filled in: platform `spr`, symbolic cryptography. What is
    /// built this way has no places in a file; print and parse it to get them.
    pub fn new(name: &str, title: &str, cite: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            title: title.to_owned(),
            cite: vec![cite.to_owned()],
            platforms: vec!["spr".to_owned()],
            integrity: Vec::new(),
            order: Order::Program,
            crypto: vec![Crypto::Symbolic],
            set: Vec::new(),
            program: Vec::new(),
            regions: Vec::new(),
            agents: Vec::new(),
            tdx: None,
            tds: Vec::new(),
            checks: Checks::default(),
            refinements: Vec::new(),
            source: SourceFile::unchecked(name, ""),
        }
    }

    /// The file's name and text.
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// The matrix: every platform, in every integrity mode, with every cryptography, in the order of the file.
    pub fn cases(&self) -> Vec<Case> {
        let own = [None];
        let listed: Vec<Option<IntegrityMode>> = self.integrity.iter().copied().map(Some).collect();
        let modes: &[Option<IntegrityMode>] = if listed.is_empty() { &own } else { &listed };
        let mut cases = Vec::new();
        for platform in &self.platforms {
            for integrity in modes {
                for crypto in &self.crypto {
                    let (platform, integrity, crypto) = (platform.clone(), *integrity, *crypto);
                    cases.push(Case { platform, integrity, crypto });
                }
            }
        }
        cases
    }

    /// The platform of a case: the preset, then the scenario's `set`, then the case's integrity mode, then `extra`.
    ///
    /// # Errors
    /// A value that does not fit the platform, at its place in the file or in `extra`.
    pub fn platform(&self, case: &Case, extra: &[Override]) -> Result<Platform, Diag> {
        let overrides = self.overrides(case, extra);
        load_with(&Origin::Preset(case.platform.clone()), &overrides)
    }

    /// What [`Scenario::platform`] puts on top of a preset, for a platform that comes from elsewhere.
    pub fn overrides(&self, case: &Case, extra: &[Override]) -> Vec<Override> {
        let mode = case.integrity.map(|m| Override::set("memory.integrity", &m.to_string()));
        self.set.iter().cloned().chain(mode).chain(extra.iter().cloned()).collect()
    }

    /// The checks of one part of the matrix, refinements applied.
    pub fn checks_for(&self, part: &Part<'_>) -> Checks {
        let mut checks = self.checks.clone();
        for r in self.refinements.iter().filter(|r| r.applies(part)) {
            checks.expect.extend(r.expect.clone());
            checks.forbid.extend(r.forbid.clone());
            checks.allow.extend(r.allow.clone());
            if let Some(finals) = &r.finals {
                checks.finals.clone_from(finals);
            }
        }
        checks
    }
}
