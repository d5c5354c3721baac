//! `tdxsim dram`, and `tdxsim replay --dram-only`

use super::{TOOL, exit_of, json, refuse, replay, run};
use crate::cli::{CommandFormArg, CommandTrace, Dram, DramFormat, Format, Replay};
use crate::exit::Exit;
use crate::output::{self, NewFile};
use indicatif::{ProgressBar, ProgressStyle};
use scenarios::commands::{CommandCheck, CommandForm, CommandRecord, CommandSink, CommandWriter};
use scenarios::dram::{
    DramError, DramReport, Outside, Pattern, PatternSettings, Settings, TraceSettings, run_pattern,
    run_trace,
};
use scenarios::platform::{Origin, Override, Platform, load_with};
use scenarios::trace::{self, Format as TraceFormat};
use sim_core::{PlatformSpec, Ps, units};
use std::io;
use std::path::Path;

pub(super) fn dram(args: &Dram) -> Exit {
    match try_dram(args) {
        Ok(exit) | Err(exit) => exit,
    }
}

/// `replay --dram-only`: the same path with the arguments that `replay` has.
pub(super) fn dram_only(args: &Replay) -> Exit {
    let choice = &args.platform;
    dram(&Dram {
        trace: Some(args.file.clone()),
        pattern: None,
        requests: 0,
        footprint: String::new(),
        gap: None,
        outstanding: None,
        trace_format: args.trace_format.clone(),
        limit: args.limit,
        allow_truncated: args.allow_truncated,
        td: args.td,
        keyid: args.keyid,
        no_integrity: false,
        no_skip: choice.no_skip,
        check: false,
        commands: args.commands.clone(),
        platform: choice.platform.clone(),
        set: choice.set.clone(),
        seed: choice.seed,
        format: match args.format {
            Format::Human => DramFormat::Human,
            Format::Json => DramFormat::Json,
        },
        #[cfg(feature = "planted-fault")]
        plant: None,
    })
}

fn try_dram(args: &Dram) -> Result<Exit, Exit> {
    let platform = platform(args)?;
    let integrity = match args.no_integrity {
        true => None,
        false => Some(replay::place(args.td, args.keyid, &platform)?),
    };
    let settings = Settings {
        integrity,
        seed: args.seed,
        every_edge: args.no_skip,
        outstanding: args.outstanding,
    };
    let mut file = CommandFile::create(&args.commands, &platform.spec)?;
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {human_pos} requests, {per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    let mut progress = |requests| bar.set_position(requests);
    let mut check = match args.check {
        true => Some(CommandCheck::new(&platform.spec).map_err(|error| {
            output::message(&format!("--check: {error}"));
            Exit::Broken
        })?),
        false => None,
    };
    let mut sinks: Vec<&mut dyn CommandSink> = Vec::new();
    if let Some(check) = &mut check {
        sinks.push(check);
    }
    if let Some(file) = &mut file {
        sinks.push(&mut file.writer);
    }
    let outside = Outside { tool: TOOL, sinks, progress: &mut progress };
    let report = match (&args.pattern, &args.trace) {
        (Some(name), _) => run_pattern(&platform, &pattern(name, args)?, &settings, outside),
        (None, Some(path)) => trace(path, args, &platform, &settings, outside)?,
        (None, None) => {
            output::message("found neither a trace nor --pattern");
            return Err(Exit::BadInput);
        }
    };
    bar.finish_and_clear();
    let mut report = report.map_err(|error| match (&error, &file) {
        (DramError::Write(error), Some(file)) => file.failed(error),
        _ => {
            output::message(&error.to_string());
            Exit::BadInput
        }
    })?;
    if let Some(file) = file {
        file.keep()?;
    }
    if let Some(check) = check {
        report.checked(check.commands(), check.violations());
    }
    let exit = exit_of(report.verdict);
    Ok(match args.format {
        DramFormat::Human => output::data(&report.to_string(), exit),
        DramFormat::Json => json(&report, exit),
        DramFormat::Csv => output::data(&report.csv(), exit),
    })
}

/// The platform; for a pattern, with one channel of one package unless the user says more.
fn platform(args: &Dram) -> Result<Platform, Exit> {
    let origin = match &args.platform {
        None => Origin::Preset("spr".to_owned()),
        Some(name) => run::origin(name).map_err(|diag| refuse(&diag))?,
    };
    let mut overrides = Vec::new();
    if args.pattern.is_some() {
        overrides.push(Override::set("cpu.packages", "1"));
        overrides.push(Override::set("dram.channels", "1"));
    }
    overrides.extend(run::overrides(&args.set)?);
    let platform = load_with(&origin, &overrides).map_err(|diag| refuse(&diag))?;
    #[cfg(feature = "planted-fault")]
    let platform = planted(platform, args)?;
    Ok(platform)
}

/// The platform with the fault of `--plant`.
#[cfg(feature = "planted-fault")]
fn planted(mut platform: Platform, args: &Dram) -> Result<Platform, Exit> {
    if let Some(name) = &args.plant {
        platform.spec.planted = fault(name)?;
    }
    Ok(platform)
}

/// The fault of that name, planted.
#[cfg(feature = "planted-fault")]
pub(super) fn fault(name: &str) -> Result<sim_core::planted::Planted, Exit> {
    use sim_core::planted::{Fault, Planted};
    let Some(fault) = Fault::named(name) else {
        output::message(&format!("--plant: found `{}`", units::clip(name)));
        return Err(Exit::BadInput);
    };
    Ok(Planted::fault(fault))
}

fn pattern(name: &str, args: &Dram) -> Result<PatternSettings, Exit> {
    let bad = |message: String| {
        output::message(&message);
        Exit::BadInput
    };
    let pattern = Pattern::named(name)
        .ok_or_else(|| bad(format!("--pattern: found `{}`", units::clip(name))))?;
    let footprint =
        units::parse_size(&args.footprint).map_err(|error| bad(format!("--footprint: {error}")))?;
    Ok(PatternSettings { pattern, requests: args.requests, footprint, gap: args.gap })
}

fn trace(
    path: &Path,
    args: &Dram,
    platform: &Platform,
    settings: &Settings,
    outside: Outside<'_>,
) -> Result<Result<DramReport, DramError>, Exit> {
    let format = match &args.trace_format {
        None => None,
        Some(name) => Some(name.parse::<TraceFormat>().map_err(|error| {
            output::message(&format!("--trace-format: {error}"));
            Exit::BadInput
        })?),
    };
    let mut reader = match trace::open_path(path, format) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error.into())),
    };
    let how = TraceSettings { limit: args.limit, allow_truncated: args.allow_truncated };
    let name = path.to_string_lossy();
    Ok(run_trace(&mut reader, &name, platform, &how, settings, outside))
}

/// The file that `--command-trace` names.
pub(super) struct CommandFile {
    /// Takes the commands.
    pub(super) writer: CommandWriter<NewFile>,
}

impl CommandFile {
    /// Begins it, if there is to be one.
    pub(super) fn create(
        args: &CommandTrace,
        spec: &PlatformSpec,
    ) -> Result<Option<CommandFile>, Exit> {
        let Some(path) = &args.command_trace else { return Ok(None) };
        let form = match args.command_trace_format {
            CommandFormArg::Tdxsim => CommandForm::Tdxsim,
            CommandFormArg::Dramsim3 => CommandForm::Dramsim3,
        };
        let not_written = |message: String| {
            output::message(&message);
            Exit::NotWritten
        };
        let file = NewFile::create(path).map_err(not_written)?;
        let writer = CommandWriter::new(file, form, spec)
            .map_err(|error| not_written(format!("cannot write {}: {error}", path.display())))?;
        Ok(Some(CommandFile { writer }))
    }

    /// Writes all commands of a run that lasted until `end` or until the last of them.
    pub(super) fn put_all(&mut self, commands: &[CommandRecord], end: Ps) -> Result<(), Exit> {
        let end = commands.iter().map(|c| c.at).fold(end, Ps::max);
        let put = commands.iter().try_for_each(|command| self.writer.put(command));
        put.and_then(|()| self.writer.end(end)).map_err(|error| self.failed(&error))
    }

    /// Says that it cannot be written.
    pub(super) fn failed(&self, error: &io::Error) -> Exit {
        output::message(&self.writer.get_ref().failure(error));
        Exit::NotWritten
    }

    /// Puts it in its place.
    pub(super) fn keep(self) -> Result<(), Exit> {
        self.writer.into_inner().keep().map_err(|message| {
            output::message(&message);
            Exit::NotWritten
        })
    }
}
