//! `tdxsim validate`

use super::{TOOL, exit_of, json, refuse, run};
use crate::cli::{TableFormat, Validate};
use crate::exit::Exit;
use crate::output;
use scenarios::report::Verdict;
use scenarios::validate::{
    Bench, EXPERIMENTS, SCHEMA, ValidateError, ValidateReport, thousandths, validate,
};
use std::fmt::Write;

pub(super) fn command(args: &Validate) -> Exit {
    if args.list {
        let text: String =
            EXPERIMENTS.iter().map(|e| format!("{:18} {}\n", e.name, e.how)).collect();
        return output::data(&text, Exit::Met);
    }
    let name = args.platform.as_deref().unwrap_or("spr");
    let (origin, overrides) = match (run::origin(name), run::overrides(&args.set)) {
        (Ok(origin), Ok(overrides)) => (origin, overrides),
        (Err(diag), _) => return refuse(&diag),
        (_, Err(exit)) => return exit,
    };
    let bench = Bench::new(origin, overrides);
    let results = validate(&bench, &args.experiments, output::message);
    let results = match results {
        Ok(results) => results,
        Err(ValidateError::Platform(diag)) => return refuse(&diag),
        Err(error) => {
            output::message(&error.to_string());
            return Exit::BadInput;
        }
    };
    let holds = results.rows.iter().all(|row| row.holds());
    let verdict = if holds { Verdict::Pass } else { Verdict::Fail };
    let exit = exit_of(verdict);
    match args.format {
        TableFormat::Json => {
            let platform = bench.platform(&[]).map(|spec| spec.name).unwrap_or_default();
            let (tool, kernel) = (TOOL.to_owned(), None);
            let report = ValidateReport {
                schema: SCHEMA,
                tool,
                seed: 0,
                platform,
                kernel,
                verdict,
                results,
            };
            json(&report, exit)
        }
        TableFormat::Csv => output::data(&results.csv(), exit),
        TableFormat::Markdown => output::data(&results.markdown(), exit),
        TableFormat::Human => {
            let mut text = String::new();
            for row in &results.rows {
                let holds = if row.holds() { "holds" } else { "DOES NOT HOLD" };
                let most =
                    if row.most == u64::MAX { "…".to_owned() } else { thousandths(row.most) };
                let _ = writeln!(
                    text,
                    "{:18} {:62} {:>9} {:10} {} – {most}  {holds}",
                    row.experiment,
                    row.what,
                    thousandths(row.measured),
                    row.unit,
                    thousandths(row.least),
                );
            }
            for point in &results.points {
                let _ = writeln!(
                    text,
                    "{:18} {} {}: {} {}",
                    point.curve,
                    point.x_name,
                    thousandths(point.x),
                    point.y_name,
                    thousandths(point.y)
                );
            }
            output::data(&text, exit)
        }
    }
}
