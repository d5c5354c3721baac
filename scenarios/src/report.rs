//! What a run reports: the same facts for people ([`human`]) and machines (JSON, schema in `docs/schemas/`).

pub mod calls;
mod catalogue;
mod cause;
pub mod human;

pub use catalogue::{Catalogue, CatalogueRow};
pub use cause::{StepLabel, Story};

use mktme::dram::CommandRecord;
use schemars::JsonSchema;
use serde::Serialize;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "tdxsim.run/1";

/// How many births a report tells of.
pub const BIRTHS_MAX: usize = 256;
/// How many machine checks a report tells of.
pub const MACHINE_CHECKS_MAX: usize = 256;
/// How many entries and exits of TDs a report tells of.
pub const TD_EVENTS_MAX: usize = 4096;
/// How many accesses of a line a report tells of.
pub const HISTORY_MAX: usize = 64;

/// Whether a run was as expected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every expectation was met.
    Pass,
    /// An expectation was not met.
    Fail,
    /// The program used what the simulator does not model: nothing is said of its expectations.
    NotModelled,
    /// Simulated time ran out before the program did, or the log before the check that was asked for.
    Undecided,
    /// The simulator broke one of its own invariants.
    Broken,
}

impl Verdict {
    /// Of several runs the worst counts: [`Verdict::Broken`], then a failure, then an undecided run, then one that used what
    /// is not modelled (docs/commands.md).
    pub const fn badness(self) -> u8 {
        match self {
            Verdict::Pass => 0,
            Verdict::NotModelled => 1,
            Verdict::Undecided => 2,
            Verdict::Fail => 3,
            Verdict::Broken => 4,
        }
    }
}

/// The top object of `run --format json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// The platform, where all runs have the same.
    pub platform: Option<String>,
    /// The modelled kernel; none before host paths exist.
    pub kernel: Option<String>,
    /// The worst verdict of all runs.
    pub verdict: Verdict,
    /// One for each scenario and cell of its matrix.
    pub runs: Vec<RunReport>,
}

/// One run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct RunReport {
    /// The scenario's name.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// What it rests on.
    pub cite: Vec<String>,
    /// The platform.
    pub platform: String,
    /// Integrity mode: `ci` or `li`.
    pub integrity: String,
    /// Cryptography: `symbolic` or `real`.
    pub crypto: String,
    /// Whether the platform has the partial-write erratum.
    pub erratum: bool,
    /// `timed` or `functional`.
    pub speed: String,
    /// Whether all expectations were met.
    pub verdict: Verdict,
    /// Simulated time of the whole run, in picoseconds.
    pub simulated_ps: u64,
    /// How much of that went by before the program began: what `[tdx]` and `[td]` ask for.
    pub setup_ps: u64,
    /// The operations, in the order in which they were over.
    pub steps: Vec<StepReport>,
    /// Entries into TDs and exits from them, in order; at most [`TD_EVENTS_MAX`] of them.
    pub td_events: Vec<TdEventReport>,
    /// Every expectation, and what was seen.
    pub expectations: Vec<ExpectationReport>,
    /// Machine checks, in order.
    pub machine_checks: Vec<MachineCheckReport>,
    /// Births of poison, in order; at most [`BIRTHS_MAX`] of them.
    pub births: Vec<BirthReport>,
    /// What happened to the lines on which poison was born.
    pub lines: Vec<LineReport>,
    /// What the memory controllers logged.
    pub ucna: Vec<UcnaReport>,
    /// What was counted.
    pub counts: CountsReport,
    /// What was compared with the reference model, if that was asked for.
    pub check: Option<CheckReport>,
    /// Things that a reader of the verdict may want to know.
    pub notes: Vec<String>,
    /// The DDR5 commands, if they were asked for.
    #[serde(skip)]
    pub commands: Vec<CommandRecord>,
}

/// One operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct StepReport {
    /// Agent and its operation's number, such as `cpu0.1`.
    pub step: String,
    /// The operation as the scenario has it.
    pub operation: String,
    /// Line in the scenario file.
    pub line: u32,
    /// What came of it.
    pub outcome: String,
    /// Of a SEAMCALL or TDCALL: leaf, operands and status.
    pub call: Option<CallReport>,
    /// When it began, in picoseconds.
    pub begin_ps: u64,
    /// When it was over, in picoseconds.
    pub end_ps: u64,
}

/// A SEAMCALL or TDCALL.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CallReport {
    /// The leaf's number.
    pub leaf: u16,
    /// Its name, such as `TDH.MEM.PAGE.AUG`.
    pub name: String,
    /// Its version.
    pub version: u8,
    /// TDCALL, not SEAMCALL.
    pub guest: bool,
    /// The registers that the leaf takes, and others that were set.
    pub operands: Vec<RegisterReport>,
    /// RAX afterwards, hexadecimal; absent for a call that did not return.
    pub status: Option<String>,
    /// RAX in words, such as `TDX_OPERAND_BUSY | RCX`.
    pub status_name: Option<String>,
    /// The registers that the leaf wrote: those that are neither zero afterwards nor as they were passed, and pages.
    pub out: Vec<RegisterReport>,
}

/// A register of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct RegisterReport {
    /// Its name in lower case.
    pub name: String,
    /// What it holds, hexadecimal.
    pub value: String,
    /// The region of the scenario that it points into.
    pub region: Option<String>,
}

/// An entry into a TD, an exit from one, or the end of TDX on the platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct TdEventReport {
    /// When, in picoseconds.
    pub at_ps: u64,
    /// The operation during which it happened.
    pub step: Option<String>,
    /// `enter`, `exit` or `tdx-disabled`.
    pub what: String,
    /// Which core.
    pub core: u16,
    /// The VCPU's TDVPR page.
    pub vcpu: Option<RegisterReport>,
    /// Of an exit: what TDH.VP.ENTER returned, hexadecimal.
    pub status: Option<String>,
    /// The same in words.
    pub status_name: Option<String>,
}

/// One expectation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ExpectationReport {
    /// `expect`, `forbid` or `final`.
    pub kind: String,
    /// The step, or the final check.
    pub subject: String,
    /// The pattern; empty for final checks.
    pub pattern: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is as it should be.
    pub met: bool,
}

/// One link of a chain of causes, effect first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Link {
    /// When, in picoseconds.
    pub at_ps: u64,
    /// What, in words.
    pub text: String,
    /// The scenario's operation, where the link is one.
    pub step: Option<String>,
    /// Its line in the scenario file.
    pub line: Option<u32>,
}

/// One machine check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MachineCheckReport {
    /// Which core.
    pub core: u16,
    /// Which bank.
    pub bank: u8,
    /// IA32_MCi_STATUS, hexadecimal.
    pub status: String,
    /// IA32_MCi_ADDR, KeyID bits included, hexadecimal.
    pub addr: String,
    /// IA32_MCi_MISC, hexadecimal.
    pub misc: String,
    /// IA32_MCG_STATUS, hexadecimal.
    pub mcg_status: String,
    /// What it was, in words.
    pub class: String,
    /// What became of its consumer.
    pub consequence: String,
    /// How Linux grades it.
    pub grade: Option<String>,
    /// When, in picoseconds.
    pub at_ps: u64,
    /// Which birth it consumed: an index from 1 into `births`.
    pub birth: u32,
    /// From the consuming operation to the cause of the poison.
    pub chain: Vec<Link>,
}

/// One birth of poison.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BirthReport {
    /// From 1.
    pub birth: u32,
    /// The line's address.
    pub line: String,
    /// KeyID of the access that bore it.
    pub keyid: u16,
    /// Why, in words.
    pub cause: String,
    /// The row of the read or write table, where one applies.
    pub rule: Option<String>,
    /// When, in picoseconds.
    pub born_ps: u64,
    /// How many places hold it at the end; 0 is dead.
    pub locations: u32,
    /// From the birth back to the scenario's operations.
    pub chain: Vec<Link>,
}

/// What happened to a line at its controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LineReport {
    /// The line's address.
    pub line: String,
    /// Its first accesses; at most [`HISTORY_MAX`] of them.
    pub history: Vec<HistoryRow>,
    /// How many accesses there were beyond those.
    pub omitted: u64,
}

/// One row of a line's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct HistoryRow {
    /// When, in picoseconds.
    pub at_ps: u64,
    /// The scenario's operation at the root of it.
    pub step: Option<String>,
    /// What.
    pub what: String,
    /// By which row.
    pub rule: Option<String>,
    /// KeyID of the access.
    pub keyid: Option<u16>,
    /// TD bit afterwards.
    pub td: Option<bool>,
    /// Whether the MAC field holds a MAC afterwards.
    pub mac: Option<bool>,
    /// Poison afterwards.
    pub poison: Option<bool>,
}

/// One UCNA entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct UcnaReport {
    /// Which bank.
    pub bank: u8,
    /// IA32_MCi_STATUS, hexadecimal.
    pub status: String,
    /// IA32_MCi_ADDR, KeyID bits included, hexadecimal.
    pub addr: String,
    /// Whether a CMCI was signalled.
    pub cmci: bool,
    /// Which birth.
    pub birth: u32,
}

/// What was counted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct CountsReport {
    /// Operations issued.
    pub operations: u64,
    /// Cached accesses, one per line.
    pub accesses: u64,
    /// Whole-line reads that reached a controller.
    pub controller_reads: u64,
    /// Whole-line writes that reached a controller.
    pub controller_writes: u64,
    /// Partial writes that reached a controller.
    pub controller_partial_writes: u64,
    /// Births of poison.
    pub births: u64,
    /// Births that have not died: final check `live-poison`.
    pub live_poison: u64,
    /// Places, in DRAM and caches, that hold poison at the end.
    pub poison_locations: u64,
    /// Machine checks.
    pub machine_checks: u64,
}

/// What was compared with the reference model, and judged by the monitor of the TDX module (`run --check`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Operations of the program that were over and agreed.
    pub operations: u64,
    /// Operations before the program: of `[tdx]` and `[td]`.
    pub setup_operations: u64,
    /// Transitions made on the reference: operations line by line, reads of page walks, loads and stores of the TDX module,
    /// and what hardware chose between them.
    pub transitions: u64,
    /// Requests at the memory controllers.
    pub requests: u64,
    /// Comparisons of a line in DRAM: its state, and what a read would return under every KeyID in use.
    pub lines: u64,
    /// Comparisons of everything: caches, buffers and births besides.
    pub states: u64,
    /// SEAMCALLs and TDCALLs that the monitor judged.
    pub calls_judged: u64,
    /// Calls that it does not judge, or could not.
    pub calls_not_judged: u64,
}
