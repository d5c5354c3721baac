//! `tdxsim run`

use super::dram::CommandFile;
use super::{TOOL, exit_of, json, pairs, refuse};
use crate::cli::{Format, PlatformChoice, Run, SpeedArg};
use crate::exit::Exit;
use crate::output;
use scenarios::diag::{Diag, SourceFile};
use scenarios::format::Scenario;
use scenarios::library;
use scenarios::platform::{Origin, Override};
use scenarios::report::human::{Narrative, summary, verdict_word};
use scenarios::report::{Document, Verdict};
use scenarios::run::{Cell, Crypto, Request, Speed, plan, run_all};
use sim_core::Ps;
use std::fmt::Write;
use std::path::Path;

pub(super) fn run(args: &Run) -> Exit {
    let request = match request(args) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let scenarios: Result<Vec<Scenario>, Diag> = if args.all {
        library::LIBRARY.iter().map(|e| Scenario::parse(e.source())).collect()
    } else {
        args.scenarios.iter().map(|name| scenario(name)).collect()
    };
    let cells = scenarios.and_then(|all| {
        let cells: Result<Vec<_>, Diag> = all.iter().map(|s| plan(s, &request)).collect();
        Ok(cells?.into_iter().flatten().collect::<Vec<_>>())
    });
    let cells = match cells {
        Ok(cells) => cells,
        Err(diag) => return refuse(&diag),
    };
    #[cfg(feature = "planted-fault")]
    let cells = match planted(cells, args) {
        Ok(cells) => cells,
        Err(exit) => return exit,
    };
    let file = match command_file(&cells, args) {
        Ok(file) => file,
        Err(exit) => return exit,
    };
    let document = match run_all(&cells, &request, TOOL) {
        Ok(document) => document,
        Err(diag) => return refuse(&diag),
    };
    let exit = exit_of(document.verdict);
    if let (Some(mut file), [run]) = (file, document.runs.as_slice())
        && let Err(exit) =
            file.put_all(&run.commands, Ps(run.simulated_ps)).and_then(|()| file.keep())
    {
        return exit;
    }
    match args.format {
        Format::Json => json(&document, exit),
        Format::Human => output::data(&human(&document, args), exit),
    }
}

/// The cells with the fault of `--plant`.
#[cfg(feature = "planted-fault")]
fn planted(mut cells: Vec<Cell>, args: &Run) -> Result<Vec<Cell>, Exit> {
    if let Some(name) = &args.plant {
        let fault = super::dram::fault(name)?;
        cells.iter_mut().for_each(|cell| cell.plant(fault));
    }
    Ok(cells)
}

/// The file for the commands, of the one run that there is.
fn command_file(cells: &[Cell], args: &Run) -> Result<Option<CommandFile>, Exit> {
    if args.commands.command_trace.is_none() {
        return Ok(None);
    }
    match cells {
        [cell] => CommandFile::create(&args.commands, cell.platform()),
        _ => {
            let n = cells.len();
            output::message(&format!(
                "--command-trace: found {n} runs, expected one: name one scenario, --platform and --integrity"
            ));
            Err(Exit::BadInput)
        }
    }
}

/// In full for a few runs; a line each for many.
fn human(document: &Document, args: &Run) -> String {
    let mut text = String::new();
    let brief = args.quiet || args.all || document.runs.len() > 4;
    for (i, run) in document.runs.iter().enumerate() {
        if brief && (args.quiet || run.verdict == Verdict::Pass) {
            let met = run.expectations.iter().filter(|e| e.met).count();
            let _ = writeln!(
                text,
                "{:28} {:4} {:2} {:8}  {} ({met}/{})  {}",
                run.scenario,
                run.platform,
                run.integrity,
                run.crypto,
                verdict_word(run.verdict),
                run.expectations.len(),
                summary(run)
            );
        } else {
            if i > 0 {
                text.push('\n');
            }
            let _ = write!(text, "{}", Narrative(run));
        }
    }
    if document.runs.len() > 1 {
        let passed = document.runs.iter().filter(|r| r.verdict == Verdict::Pass).count();
        let _ = writeln!(text, "\n{passed} of {} runs as expected", document.runs.len());
    }
    text
}

/// A scenario by name or from a file.
pub(super) fn scenario(name: &str) -> Result<Scenario, Diag> {
    match library::find(name) {
        Some(entry) => Scenario::parse(entry.source()),
        None => {
            let looks_like_a_name = !name.contains(['/', '.']) && !Path::new(name).exists();
            if looks_like_a_name {
                return Err(library::unknown(name));
            }
            Scenario::parse(SourceFile::open(Path::new(name))?)
        }
    }
}

/// A platform by name or from a file.
pub(super) fn origin(name: &str) -> Result<Origin, Diag> {
    if name.contains(['/', '.']) || Path::new(name).exists() {
        return SourceFile::open(Path::new(name)).map(Origin::File);
    }
    Ok(Origin::Preset(name.to_owned()))
}

/// What `--set` says.
pub(super) fn overrides(set: &[String]) -> Result<Vec<Override>, Exit> {
    Ok(pairs(set)?.iter().map(|(key, value)| Override::set(key, value)).collect())
}

pub(super) const fn speed(choice: &PlatformChoice) -> Speed {
    match choice.speed {
        SpeedArg::Timed => Speed::Timed,
        SpeedArg::Functional => Speed::Functional,
    }
}

fn request(args: &Run) -> Result<Request, Exit> {
    let platform = match &args.platform.platform {
        None => None,
        Some(name) => Some(origin(name).map_err(|diag| refuse(&diag))?),
    };
    let mut overrides = overrides(&args.platform.set)?;
    if let Some(mode) = &args.integrity {
        overrides.push(Override::set("memory.integrity", mode));
    }
    Ok(Request {
        platform,
        integrity_given: args.integrity.is_some(),
        overrides,
        crypto: args.crypto.as_deref().map(|c| match c {
            "real" => Crypto::Real,
            _ => Crypto::Symbolic,
        }),
        speed: speed(&args.platform),
        every_edge: args.platform.no_skip,
        seed: args.platform.seed,
        check: args.check,
        commands: args.commands.command_trace.is_some(),
    })
}
