//! tdxsim: a cycle-level simulator of the hardware that protects TDX memory.

use std::process::ExitCode;

fn main() -> ExitCode {
    tdxsim::main()
}
