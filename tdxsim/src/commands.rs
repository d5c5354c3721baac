//! What each command does.

mod dram;
mod explain;
mod explore;
mod invariants;
mod list;
mod platform;
mod replay;
mod run;
mod validate;

use crate::cli::{Cli, Subcommands};
use crate::exit::Exit;
use crate::output;
use scenarios::diag::Diag;
use scenarios::report::Verdict;
use serde::Serialize;

pub use explain::Explained;
pub use platform::{Parameter, Shown};

/// Program and version, as reports name it.
pub const TOOL: &str = concat!("tdxsim ", env!("CARGO_PKG_VERSION"));

/// Runs a command.
pub fn dispatch(cli: &Cli) -> Exit {
    match &cli.command {
        Subcommands::List(args) => list::list(args),
        Subcommands::Run(args) => run::run(args),
        Subcommands::Explore(args) => explore::explore(args),
        Subcommands::Replay(args) => replay::replay(args),
        Subcommands::Dram(args) => dram::dram(args),
        Subcommands::Explain(args) => explain::explain(args),
        Subcommands::Platform(args) => platform::platform(args),
        Subcommands::Validate(args) => validate::command(args),
        Subcommands::Invariants(args) => invariants::invariants(args),
    }
}

/// The exit code of a verdict.
const fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Pass => Exit::Met,
        Verdict::Fail => Exit::Failed,
        Verdict::NotModelled => Exit::NotModelled,
        Verdict::Undecided => Exit::Undecided,
        Verdict::Broken => Exit::Broken,
    }
}

/// Reports bad input.
fn refuse(diag: &Diag) -> Exit {
    output::diagnostic(&crate::diagnostics::render(diag));
    Exit::BadInput
}

/// Prints a value as JSON.
fn json<T: Serialize>(value: &T, exit: Exit) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(mut text) => {
            text.push('\n');
            output::data(&text, exit)
        }
        Err(error) => {
            output::message(&format!("cannot print as JSON: {error}"));
            Exit::Broken
        }
    }
}

/// `key=value` pairs of `--set`.
fn pairs(set: &[String]) -> Result<Vec<(String, String)>, Exit> {
    set.iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => {
                output::message(&format!(
                    "--set: found `{}`, expected KEY=VALUE such as cpu.rfo_poison_mc=true",
                    sim_core::units::clip(text)
                ));
                Err(Exit::BadInput)
            }
        })
        .collect()
}
