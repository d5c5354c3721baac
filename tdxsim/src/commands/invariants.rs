//! `tdxsim invariants`

use super::{TOOL, exit_of, json};
use crate::cli::{EffortArg, Format, Invariants};
use crate::exit::Exit;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use scenarios::exercise::{Effort, Exercise, exercise, is_known};
use sim_core::planted::Planted;
use sim_core::units::clip;

pub(super) fn invariants(args: &Invariants) -> Exit {
    if let Some(id) = &args.id
        && !is_known(id)
    {
        output::message(&format!(
            "--id: found `{}`, expected an invariant of verification.md §2, such as T3; `tdxsim invariants --effort small` lists them",
            clip(id)
        ));
        return Exit::BadInput;
    }
    let what = Exercise {
        group: args.group.as_ref().and_then(|g| g.chars().next()),
        id: args.id.clone(),
        effort: match args.effort {
            EffortArg::Full => Effort::FULL,
            EffortArg::Small => Effort::SMALL,
        },
        seed: args.seed,
        planted: Planted::NONE,
    };
    // Draws on a terminal only, on stderr.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let mut progress = |doing: &str| {
        bar.set_message(doing.to_owned());
        bar.tick();
    };
    let report = exercise(&what, TOOL, &mut progress);
    bar.finish_and_clear();
    let exit = exit_of(report.verdict);
    match args.format {
        Format::Json => json(&report, exit),
        Format::Human => output::data(&report.to_string(), exit),
    }
}
