//! `tdxsim replay`

use super::dram::CommandFile;
use super::{TOOL, dram, exit_of, json, refuse, run};
use crate::cli::{Format, Replay};
use crate::exit::Exit;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use scenarios::commands::CommandSink;
use scenarios::platform::{Origin, Platform, load_with};
use scenarios::replay::{Place, ReplayError, Settings, replay_with};
use scenarios::trace::{self, Format as TraceFormat};
use sim_core::KeyId;

pub(super) fn replay(args: &Replay) -> Exit {
    if args.dram_only {
        return dram::dram_only(args);
    }
    match try_replay(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_replay(args: &Replay) -> Result<Exit, Exit> {
    let origin = match &args.platform.platform {
        None => Origin::Preset("spr".to_owned()),
        Some(name) => run::origin(name).map_err(|diag| refuse(&diag))?,
    };
    let overrides = run::overrides(&args.platform.set)?;
    let platform = load_with(&origin, &overrides).map_err(|diag| refuse(&diag))?;
    let settings = Settings {
        place: place(args.td, args.keyid, &platform)?,
        speed: run::speed(&args.platform),
        every_edge: args.platform.no_skip,
        seed: args.platform.seed,
        limit: args.limit,
        allow_truncated: args.allow_truncated,
    };
    let format = match &args.trace_format {
        None => None,
        Some(name) => Some(name.parse::<TraceFormat>().map_err(|error| {
            output::message(&format!("--trace-format: {error}"));
            Exit::BadInput
        })?),
    };
    let bad_trace = |error: trace::TraceError| {
        output::message(&error.to_string());
        Exit::BadInput
    };
    let mut reader = trace::open_path(&args.file, format).map_err(bad_trace)?;
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {human_pos} records, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let name = args.file.to_string_lossy();
    let mut file = CommandFile::create(&args.commands, &platform.spec)?;
    let progress = |records| bar.set_position(records);
    let sink = file.as_mut().map(|file| &mut file.writer as &mut dyn CommandSink);
    let report = replay_with(&mut reader, &name, TOOL, &platform, &settings, sink, progress);
    bar.finish_and_clear();
    let report = report.map_err(|error| match (error, &file) {
        (ReplayError::Write(error), Some(file)) => file.failed(&error),
        (ReplayError::Write(error), None) => {
            output::message(&error.to_string());
            Exit::NotWritten
        }
        (ReplayError::Trace(error), _) => bad_trace(error),
    })?;
    if let Some(file) = file {
        file.keep()?;
    }
    let exit = exit_of(report.verdict);
    Ok(match args.format {
        Format::Human => output::data(&report.to_string(), exit),
        Format::Json => json(&report, exit),
    })
}

pub(super) fn place(td: bool, keyid: Option<u16>, platform: &Platform) -> Result<Place, Exit> {
    let layout = &platform.spec.keyid;
    if td {
        // The first private KeyID is the global one; a TD gets the next.
        return match layout.private(1).or_else(|| layout.private(0)) {
            Some(keyid) => Ok(Place::Td(keyid)),
            None => {
                output::message(&format!(
                    "--td: platform {} has no private KeyIDs",
                    platform.spec.name
                ));
                Err(Exit::BadInput)
            }
        };
    }
    let keyid = KeyId(keyid.unwrap_or(0));
    if layout.is_private(keyid) || !layout.is_configured(keyid) {
        output::message(&format!(
            "--keyid: found {keyid}, expected a shared KeyID of {}, 0 to {}; use --td for a private one",
            platform.spec.name, layout.mktme_kids
        ));
        return Err(Exit::BadInput);
    }
    Ok(Place::Host(keyid))
}
