//! `tdxsim platform`

use super::{TOOL, json, refuse, run};
use crate::cli::{Format, Platform, PlatformCommands};
use crate::exit::Exit;
use crate::output;
use scenarios::platform::{PRESETS, ParamRow, load_with};
use serde::Serialize;
use std::fmt::Write;

/// `platform show --format json`.
#[derive(Serialize)]
struct Shown<'a> {
    schema: &'static str,
    tool: &'static str,
    platform: &'a str,
    title: &'a str,
    parameters: &'a [ParamRow],
}

pub(super) fn platform(args: &Platform) -> Exit {
    match &args.command {
        PlatformCommands::List => {
            let mut text = String::new();
            for preset in PRESETS {
                match load_with(&scenarios::platform::Origin::Preset(preset.name.to_owned()), &[]) {
                    Ok(platform) => {
                        let _ = writeln!(text, "{:6} {}", preset.name, platform.spec.title);
                    }
                    Err(diag) => return refuse(&diag),
                }
            }
            output::data(&text, Exit::Met)
        }
        PlatformCommands::Show { name, set, format } => {
            let overrides = match run::overrides(set) {
                Ok(overrides) => overrides,
                Err(exit) => return exit,
            };
            let loaded = run::origin(name).and_then(|origin| load_with(&origin, &overrides));
            let platform = match loaded {
                Ok(platform) => platform,
                Err(diag) => return refuse(&diag),
            };
            match format {
                Format::Json => json(
                    &Shown {
                        schema: "tdxsim.platform/1",
                        tool: TOOL,
                        platform: &platform.spec.name,
                        title: &platform.spec.title,
                        parameters: &platform.params,
                    },
                    Exit::Met,
                ),
                Format::Human => {
                    output::data(&table(&platform.spec.title, &platform.params), Exit::Met)
                }
            }
        }
    }
}

fn table(title: &str, params: &[ParamRow]) -> String {
    let key = params.iter().map(|p| p.key.len()).max().unwrap_or(0);
    let value = params.iter().map(|p| p.value.len()).max().unwrap_or(0).min(24);
    let mut text = format!("{title}\n\n");
    for p in params {
        let assumed = if p.assumed { "assumed" } else { "       " };
        let _ = writeln!(text, "  {:key$}  {:>value$}  {assumed}  {}", p.key, p.value, p.source);
    }
    text
}
