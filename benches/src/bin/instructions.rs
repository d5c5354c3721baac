//! `instructions WORKLOAD N`: makes a workload ready and does N operations, to be counted by callgrind
//! (docs/performance.md).

use std::env::args;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

fn run() -> Result<u64, String> {
    let usage = || {
        let names: Vec<&str> = benches::workloads().map(|w| w.name).collect();
        format!("usage: instructions WORKLOAD N, where WORKLOAD is one of\n{}", names.join("\n"))
    };
    let mut args = args().skip(1);
    let (Some(name), Some(n), None) = (args.next(), args.next(), args.next()) else {
        return Err(usage());
    };
    let workload = benches::workload(&name).ok_or_else(usage)?;
    let n: u64 = n.parse().map_err(|_| usage())?;
    let mut run = (workload.make)().map_err(|e| e.to_string())?;
    run(n).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(sum) => match writeln!(stdout(), "{sum}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(message) => {
            // Nothing is left to be said if this fails.
            let _ = writeln!(stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}
