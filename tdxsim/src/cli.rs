//! The arguments.

use clap::{ArgGroup, Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use scenarios::trace::FORMATS;
use std::path::PathBuf;

/// A cycle-level simulator of the hardware that protects TDX memory.
///
/// Cores, a cache hierarchy whose lines carry KeyIDs, and an MKTME memory controller that keeps a TD-owner bit, a 28-bit
/// MAC and a poison flag for every 64-byte line.
#[derive(Debug, Parser)]
#[command(name = "tdxsim", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Subcommands,
}

const AFTER_HELP: &str = "Exit codes: 0 all expectations met; 1 an expectation failed; 2 bad input or usage; \
3 an invariant of the simulator itself broke; 4 not modelled; 5 undecided; 6 output could not be written.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// List the built-in scenarios.
    List(List),
    /// Run scenarios and tell what happened, and why.
    Run(Run),
    /// Search every interleaving and every other choice of hardware for what a scenario's agents may see.
    Explore(Explore),
    /// Replay the address trace of a real program.
    Replay(Replay),
    /// Drive bare DDR5 channels from a trace or a named pattern.
    Dram(Dram),
    /// Explain a leaf, a status, a state, a Secure-EPT entry, machine-check registers or a kernel log line.
    Explain(Explain),
    /// Show the platforms and where their numbers come from.
    Platform(Platform),
    /// Hold a platform's memory system against published measurements and its own formulas.
    Validate(Validate),
    /// Exercise the invariants of verification.md §2, and say how often each had something to say.
    ///
    /// Exit code 3 when one is broken or a scenario of the library cannot be run, 1 when one was not exercised: a check whose
    /// left side never held, or that compared too little, is none.
    Invariants(Invariants),
}

/// Form of a command's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object, described by a schema in docs/schemas.
    Json,
}

/// Form of the output of `dram`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DramFormat {
    /// For people.
    Human,
    /// One JSON object, described by a schema in docs/schemas.
    Json,
    /// A name, a value and a unit to a line.
    Csv,
}

/// Form of a command trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CommandFormArg {
    /// With every parameter that a checker needs in its head; docs/dram.md describes it.
    Tdxsim,
    /// The columns of DRAMsim3: clock, command, channel, rank, bank group, bank, row, column.
    Dramsim3,
}

/// Writing the DDR5 commands of a run.
#[derive(Clone, Debug, Args)]
pub struct CommandTrace {
    /// Write every DDR5 command to this file.
    #[arg(long, value_name = "FILE")]
    pub command_trace: Option<PathBuf>,
    /// Form of that file.
    #[arg(long, value_name = "FORM", value_enum, default_value = "tdxsim")]
    pub command_trace_format: CommandFormArg,
}

/// How much of time is modelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SpeedArg {
    /// Requests run through queues and DRAM.
    Timed,
    /// Every operation costs the same.
    Functional,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// Choosing and changing a platform.
#[derive(Clone, Debug, Args)]
pub struct PlatformChoice {
    /// Platform: spr, emr, gnr or a platform file. Replaces the scenario's own.
    #[arg(long, value_name = "NAME|FILE")]
    pub platform: Option<String>,
    /// Change a platform parameter, such as `cpu.rfo_poison_mc=true`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of keys and power-on content.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How much of time is modelled.
    #[arg(long, value_enum, default_value = "timed")]
    pub speed: SpeedArg,
    /// Look at every clock edge of DRAM instead of at those at which something can happen. Slow; the same bytes come out.
    #[arg(long)]
    pub no_skip: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Names of built-in scenarios, or scenario files.
    #[arg(value_name = "NAME|FILE", required_unless_present = "all")]
    pub scenarios: Vec<String>,
    /// Run every built-in scenario.
    #[arg(long, conflicts_with = "scenarios")]
    pub all: bool,
    /// The platform.
    #[command(flatten)]
    pub platform: PlatformChoice,
    /// Integrity mode, ci or li. Replaces the scenario's own.
    #[arg(long, value_name = "MODE", value_parser = ["ci", "li"])]
    pub integrity: Option<String>,
    /// Cryptography, symbolic or real. Replaces the scenario's own.
    #[arg(long, value_name = "KIND", value_parser = ["symbolic", "real"])]
    pub crypto: Option<String>,
    /// Check every operation against the reference model, and every call of the TDX module against the monitor.
    #[arg(long)]
    pub check: bool,
    /// Plant a fault, to see that --check ends with exit code 3.
    #[cfg(feature = "planted-fault")]
    #[arg(long, hide = true, value_name = "FAULT")]
    pub plant: Option<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// Only the verdicts.
    #[arg(long, short)]
    pub quiet: bool,
    /// The commands; wants a single run.
    #[command(flatten)]
    pub commands: CommandTrace,
}

/// `explore`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["scenario", "study", "configurations"]))]
pub struct Explore {
    /// Name of a built-in scenario, or a scenario file.
    #[arg(value_name = "NAME|FILE")]
    pub scenario: Option<String>,
    /// A table of explorations instead: reclaim-order (who is harmed by which order of private flush and clear), or
    /// physical-attacks (which are accepted, which detected).
    #[arg(long, value_name = "STUDY", value_parser = ["reclaim-order", "physical-attacks"])]
    pub study: Option<String>,
    /// The small configurations of the reference model that are searched as a whole instead, with their numbers of states.
    #[arg(long)]
    pub configurations: bool,
    /// By how many of its first lines a page is represented, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub lines_per_page: u32,
    /// Different states at most.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub states: usize,
    /// Memory for states at most: about 4 KiB each, 64 KiB in a program that uses the TDX module.
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    pub memory: String,
    /// Transitions at most.
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub transitions: u64,
    /// Let cores fill lines that nobody asked for.
    #[arg(long)]
    pub prefetch: bool,
    /// Ordinary stores that a core may hold back where agents run side by side, as in x86-TSO, 0 to 8; 0: each is visible at
    /// once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=8))]
    pub store_buffer: u8,
    /// Write the counterexample to this file; with more than one, the others to FILE.2, FILE.3 and so on. Of a study: all its
    /// runs into this directory.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Platform: spr, emr, gnr or a platform file. Replaces the scenario's own.
    #[arg(long, value_name = "NAME|FILE")]
    pub platform: Option<String>,
    /// Change a platform parameter. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Integrity mode, ci or li. Replaces the scenario's own.
    #[arg(long, value_name = "MODE", value_parser = ["ci", "li"])]
    pub integrity: Option<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The trace, plain, gzip or xz.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Form of the trace (docs/traces.md); found out where absent.
    #[arg(long, value_name = "FORM", value_parser = FORMATS.map(|row| row.name))]
    pub trace_format: Option<String>,
    /// Place the program in a TD: its pages are accepted at first touch and used under a private KeyID.
    #[arg(long, conflicts_with = "keyid")]
    pub td: bool,
    /// Use this shared KeyID instead of KeyID 0.
    #[arg(long, value_name = "N")]
    pub keyid: Option<u16>,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Replay a trace that ends in the middle of a record up to there.
    #[arg(long)]
    pub allow_truncated: bool,
    /// Leave cores and caches out: each record goes to DRAM itself, as `tdxsim dram FILE` has it.
    #[arg(long)]
    pub dram_only: bool,
    /// The commands.
    #[command(flatten)]
    pub commands: CommandTrace,
    /// The platform (default spr).
    #[command(flatten)]
    pub platform: PlatformChoice,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `dram`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("work").required(true).args(["trace", "pattern"]))]
pub struct Dram {
    /// The trace, plain or compressed. Records with cycles keep them, others are offered as fast as the queues take them.
    #[arg(value_name = "TRACE")]
    pub trace: Option<PathBuf>,
    /// Requests made up by rule, on one channel of one package unless --set dram.channels and cpu.packages say more.
    #[arg(long, value_name = "NAME", value_parser = ["sequential-read", "sequential-write", "random-read", "mix",
        "partial-write", "chain", "sparse"])]
    pub pattern: Option<String>,
    /// How many requests a pattern makes.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, conflicts_with = "trace")]
    pub requests: u64,
    /// Bytes from address 0 that a pattern goes to.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", conflicts_with = "trace")]
    pub footprint: String,
    /// Clocks between two requests of a pattern; 0 for as fast as the queues take them (default: 1000 for sparse, else 0).
    #[arg(long, value_name = "CLOCKS", conflicts_with = "trace")]
    pub gap: Option<u64>,
    /// Requests in flight at most; 0 for as many as the queues take (default: 1 for chain, else 0).
    #[arg(long, value_name = "N")]
    pub outstanding: Option<u64>,
    /// Form of the trace (docs/traces.md); found out where absent.
    #[arg(long, value_name = "FORM", value_parser = FORMATS.map(|row| row.name), conflicts_with = "pattern")]
    pub trace_format: Option<String>,
    /// Stop after so many records of the trace.
    #[arg(long, value_name = "N", conflicts_with = "pattern")]
    pub limit: Option<u64>,
    /// Run a trace that ends in the middle of a record up to there.
    #[arg(long, conflicts_with = "pattern")]
    pub allow_truncated: bool,
    /// Make requests in a TD: all memory was accepted in it before, and requests carry a private KeyID.
    #[arg(long, conflicts_with = "keyid")]
    pub td: bool,
    /// Use this shared KeyID instead of KeyID 0.
    #[arg(long, value_name = "N")]
    pub keyid: Option<u16>,
    /// Leave TD bits, MACs and poison out: DRAM alone.
    #[arg(long, conflicts_with_all = ["td", "keyid"])]
    pub no_integrity: bool,
    /// Look at every clock edge instead of at those at which something can happen. Slow; the same bytes come out.
    #[arg(long)]
    pub no_skip: bool,
    /// Check every command against the rules of DDR5, by a checker that knows nothing else.
    #[arg(long)]
    pub check: bool,
    /// The commands.
    #[command(flatten)]
    pub commands: CommandTrace,
    /// Platform: spr, emr, gnr or a platform file (default spr).
    #[arg(long, value_name = "NAME|FILE")]
    pub platform: Option<String>,
    /// Change a platform parameter, such as `dram.channels=8`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of the pattern, keys and power-on content.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: DramFormat,
    /// Plant a fault, to see that the run ends with exit code 3.
    #[cfg(feature = "planted-fault")]
    #[arg(long, hide = true, value_name = "FAULT")]
    pub plant: Option<String>,
}

/// Form of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TableFormat {
    /// For people.
    Human,
    /// One JSON object, described by a schema in docs/schemas.
    Json,
    /// Comma-separated values.
    Csv,
    /// As the book has it.
    Markdown,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Experiments; all if none is named.
    #[arg(value_name = "EXPERIMENT")]
    pub experiments: Vec<String>,
    /// List the experiments.
    #[arg(long, conflicts_with = "experiments")]
    pub list: bool,
    /// Platform: spr, emr, gnr or a platform file.
    #[arg(long, value_name = "NAME|FILE")]
    pub platform: Option<String>,
    /// Change a platform parameter. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: TableFormat,
}

/// `invariants`.
#[derive(Debug, Args)]
pub struct Invariants {
    /// Only this group: L, C, P, S, T, H, E, V, R, Q, N or M.
    #[arg(long, value_name = "LETTER", value_parser = ["L", "C", "P", "S", "T", "H", "E", "V", "R", "Q", "N", "M"],
        ignore_case = true, conflicts_with = "id")]
    pub group: Option<String>,
    /// Only this invariant, such as T3.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// How much is done: what the command is for, or just enough for each to have something to say.
    #[arg(long, value_enum, default_value = "full")]
    pub effort: EffortArg,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// How much `invariants` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EffortArg {
    /// Up to four cells of each scenario of the library, and long random runs.
    Full,
    /// A cell of each scenario, and short ones.
    Small,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A status, a leaf or state by name, `sept 0x…`, `field …`, an MCi_STATUS with or without an MCG_STATUS, or pasted
    /// log lines; `-` reads them from stdin.
    #[arg(
        value_name = "TEXT",
        required = true,
        allow_hyphen_values = true,
        trailing_var_arg = true
    )]
    pub text: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

/// `platform`.
#[derive(Debug, Args)]
pub struct Platform {
    /// What to do.
    #[command(subcommand)]
    pub command: PlatformCommands,
}

/// The commands of `platform`.
#[derive(Debug, Subcommand)]
pub enum PlatformCommands {
    /// List the built-in platforms.
    List,
    /// Show every parameter with its source, and whether it is assumed.
    Show {
        /// Platform: spr, emr, gnr or a platform file.
        #[arg(value_name = "NAME|FILE")]
        name: String,
        /// Change a parameter. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Form of the output.
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
    },
}

/// The command line as clap sees it, for manual page and completions.
pub fn command() -> Command {
    Cli::command()
}
