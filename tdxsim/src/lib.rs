//! The command line: the only room that reads arguments or the environment, prints, or exits.
//!
//! stdout carries data, stderr progress and messages. Everything that a command prints to stdout is composed first and
//! written at once, so that bad input leaves stdout empty and no output is half-written.

pub mod cli;
pub mod commands;
mod diagnostics;
pub mod exit;
pub mod explain;
pub mod fuzz;
pub mod output;

use clap::Parser;
use std::process::ExitCode;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    commands::dispatch(&cli).into()
}
