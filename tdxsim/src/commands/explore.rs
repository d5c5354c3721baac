//! `tdxsim explore`

use super::run::{origin, overrides, scenario};
use super::{TOOL, exit_of, json, refuse};
use crate::cli::{self, Format};
use crate::exit::Exit;
use crate::output;
use scenarios::explore::human::Explorations;
use scenarios::explore::report::Document;
use scenarios::explore::study::{self, Setting, Study};
use scenarios::explore::{self, Bounds};
use scenarios::platform::Override;
use scenarios::run::Request;
use sim_core::units::{clip, parse_size};
use std::path::{Path, PathBuf};

pub(super) fn explore(args: &cli::Explore) -> Exit {
    let request = match request(args) {
        Ok(request) => request,
        Err(exit) => return exit,
    };
    let memory = match parse_size(&args.memory) {
        Ok(memory) => memory,
        Err(error) => {
            let found = clip(&args.memory);
            output::message(&format!(
                "--memory: found `{found}`, expected a size such as 2GiB ({error})"
            ));
            return Exit::BadInput;
        }
    };
    let bounds = Bounds {
        memory,
        lines_per_page: args.lines_per_page,
        states: args.states,
        transitions: args.transitions,
        prefetch: args.prefetch,
        store_buffer: args.store_buffer,
    };
    if args.configurations {
        return table(&study::configurations(TOOL), args);
    }
    if let Some(name) = &args.study {
        return study(name, args, &request, &bounds);
    }
    let name = args.scenario.as_deref().unwrap_or_default();
    let found = scenario(name).and_then(|s| explore::explore(&s, &request, &bounds, TOOL));
    let document = match found {
        Ok(document) => document,
        Err(diag) => return refuse(&diag),
    };
    let exit = exit_of(document.verdict);
    let exit = match args.format {
        Format::Json => json(&document, exit),
        Format::Human => output::data(&Explorations(&document).to_string(), exit),
    };
    // What was found is worth more than the file that it could be in.
    match &args.write {
        Some(to) => exit.worse(write_all(&document, to)),
        None => exit,
    }
}

/// A table, and with `--write` its runs as scenario files in a directory.
fn study(name: &str, args: &cli::Explore, request: &Request, bounds: &Bounds) -> Exit {
    let setting = Setting { request, bounds, tool: TOOL };
    let made = match name {
        "physical-attacks" => study::physical_attacks(&setting),
        _ => study::reclaim_order(&setting),
    };
    let made = match made {
        Ok(made) => made,
        Err(diag) => return refuse(&diag),
    };
    table(&made, args)
}

/// Prints a table, then writes what is behind it.
fn table(made: &Study, args: &cli::Explore) -> Exit {
    let exit = exit_of(made.verdict);
    let exit = match args.format {
        Format::Json => json(made, exit),
        Format::Human => output::data(&made.to_string(), exit),
    };
    if let Some(to) = &args.write {
        let written = std::fs::create_dir_all(to).and_then(|()| {
            made.shown()
                .filter_map(|(name, shown)| Some((name, shown.file.as_ref()?)))
                .try_for_each(|(name, text)| std::fs::write(to.join(name), text))
        });
        if let Err(error) = written {
            output::message(&format!("{}: {error}", to.display()));
            return exit.worse(Exit::NotWritten);
        }
    }
    exit
}

fn request(args: &cli::Explore) -> Result<Request, Exit> {
    let platform = match &args.platform {
        None => None,
        Some(name) => Some(origin(name).map_err(|diag| refuse(&diag))?),
    };
    let mut overrides = overrides(&args.set)?;
    if let Some(mode) = &args.integrity {
        overrides.push(Override::set("memory.integrity", mode));
    }
    let integrity_given = args.integrity.is_some();
    Ok(Request { platform, overrides, integrity_given, ..Request::default() })
}

/// Writes every counterexample that is a scenario file.
fn write_all(document: &Document, to: &Path) -> Exit {
    let all = document.explorations.iter().flat_map(|e| &e.counterexamples);
    let texts: Vec<&String> = all.filter_map(|c| c.file.as_ref()).collect();
    if texts.is_empty() {
        output::message("--write: there is no counterexample to write");
    }
    for (i, text) in texts.iter().enumerate() {
        let path = match i {
            0 => to.to_owned(),
            _ => {
                let mut name = to.as_os_str().to_owned();
                name.push(format!(".{}", i + 1));
                PathBuf::from(name)
            }
        };
        if let Err(error) = std::fs::write(&path, text) {
            output::message(&format!("{}: {error}", path.display()));
            return Exit::NotWritten;
        }
    }
    Exit::Met
}
