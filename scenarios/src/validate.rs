//! `tdxsim validate`: what the memory system of a platform does, beside what was measured on real parts.
//!
//! Every experiment runs on the machine itself; nothing is worked out on paper but the expectations. A target names its
//! source; where the model's parameters were fitted to it, the row says so: such a row shows that the fit holds, not that
//! the model is right.

mod experiments;

pub use experiments::EXPERIMENTS;

use crate::platform::{Origin, Override, load_with};
use machine::MachineError;
use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "tdxsim.validate/1";

/// Why an experiment cannot be made.
#[derive(Debug, Error)]
pub enum ValidateError {
    /// The platform.
    #[error("{}", .0.render())]
    Platform(Box<crate::diag::Diag>),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A bare memory.
    #[error(transparent)]
    Dram(#[from] mktme::dram::SpecError),
    /// No experiment of that name.
    #[error("found `{0}`, expected one of {1}")]
    Unknown(String, String),
}

/// How well a row shows anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Parameters were chosen so that this comes out.
    Fitted,
    /// Nothing was chosen for it.
    Predicted,
    /// A property that the model must have, whatever silicon does.
    Exact,
}

/// One number beside its target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Row {
    /// The experiment.
    pub experiment: &'static str,
    /// What was measured.
    pub what: String,
    /// Unit of the three numbers, which are thousandths of it.
    pub unit: &'static str,
    /// What came out.
    pub measured: u64,
    /// At least this is expected.
    pub least: u64,
    /// At most this is expected.
    pub most: u64,
    /// Where the expectation comes from.
    pub source: &'static str,
    /// How well it shows anything.
    pub standing: Standing,
}

impl Row {
    /// Whether it came out as expected.
    pub const fn holds(&self) -> bool {
        self.least <= self.measured && self.measured <= self.most
    }
}

/// A point of a curve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Point {
    /// The curve.
    pub curve: &'static str,
    /// Its parameter, by name.
    pub x_name: &'static str,
    /// Thousandths of it.
    pub x: u64,
    /// What was measured, by name.
    pub y_name: &'static str,
    /// Thousandths of it.
    pub y: u64,
}

/// What all experiments gave.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct Results {
    /// Numbers beside their targets.
    pub rows: Vec<Row>,
    /// Curves.
    pub points: Vec<Point>,
}

/// The whole report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ValidateReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// The platform.
    pub platform: String,
    /// The modelled kernel; none.
    pub kernel: Option<String>,
    /// Whether every row holds.
    pub verdict: crate::report::Verdict,
    /// What came out.
    pub results: Results,
}

/// One experiment.
#[derive(Clone, Copy)]
pub struct Experiment {
    /// Short and stable.
    pub name: &'static str,
    /// What is done, in a sentence or two.
    pub how: &'static str,
    /// Does it.
    pub run: fn(&Bench, &mut Results) -> Result<(), ValidateError>,
}

/// The platform that experiments run on.
#[derive(Clone, Debug)]
pub struct Bench {
    origin: Origin,
    overrides: Vec<Override>,
}

impl Bench {
    /// Experiments on a platform, changed by overrides.
    pub const fn new(origin: Origin, overrides: Vec<Override>) -> Bench {
        Bench { origin, overrides }
    }

    /// The platform with some parameters set besides.
    ///
    /// # Errors
    /// A parameter that does not fit.
    pub fn platform(&self, set: &[(&str, &str)]) -> Result<sim_core::PlatformSpec, ValidateError> {
        let mut all = self.overrides.clone();
        all.extend(set.iter().map(|(key, value)| Override::set(key, value)));
        match load_with(&self.origin, &all) {
            Ok(platform) => Ok(platform.spec),
            Err(diag) => Err(ValidateError::Platform(Box::new(diag))),
        }
    }
}

/// Runs the experiments of these names, or all. `progress` is told each name before it begins.
///
/// # Errors
/// A name that does not exist, or a platform that cannot be built.
pub fn validate(
    bench: &Bench,
    names: &[String],
    mut progress: impl FnMut(&str),
) -> Result<Results, ValidateError> {
    let known = || EXPERIMENTS.iter().map(|e| e.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|n| EXPERIMENTS.iter().all(|e| e.name != n.as_str())) {
        return Err(ValidateError::Unknown(sim_core::units::clip(name).to_string(), known()));
    }
    // A platform that cannot be built is said before anything begins.
    bench.platform(&[])?;
    let mut results = Results::default();
    for experiment in EXPERIMENTS {
        if names.is_empty() || names.iter().any(|n| n == experiment.name) {
            progress(experiment.name);
            (experiment.run)(bench, &mut results)?;
        }
    }
    Ok(results)
}

/// Thousandths as people read them: `4.545`, `97`.
pub fn thousandths(n: u64) -> String {
    let (whole, rest) = (n / 1000, n % 1000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}").trim_end_matches('0').to_owned()
}

impl Results {
    /// The rows and points as CSV: one table after the other, told apart by the first column.
    pub fn csv(&self) -> String {
        let mut out =
            String::from("kind,experiment,what,unit,measured,least,most,standing,source\n");
        for r in &self.rows {
            let standing = format!("{:?}", r.standing).to_lowercase();
            let [measured, least] = [r.measured, r.least].map(thousandths);
            let most = if r.most == u64::MAX { String::new() } else { thousandths(r.most) };
            out += &format!(
                "row,{},\"{}\",{},{measured},{least},{most},{standing},\"{}\"\n",
                r.experiment,
                r.what,
                r.unit,
                r.source.replace('"', "'")
            );
        }
        for p in &self.points {
            out += &format!(
                "point,{},\"{} = {}\",{},{},,,,\n",
                p.curve,
                p.x_name,
                thousandths(p.x),
                p.y_name,
                thousandths(p.y)
            );
        }
        out
    }

    /// The page docs/validation.md, but for what stands above the tables.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for experiment in EXPERIMENTS {
            let rows: Vec<&Row> =
                self.rows.iter().filter(|r| r.experiment == experiment.name).collect();
            let points: Vec<&Point> =
                self.points.iter().filter(|p| p.curve == experiment.name).collect();
            if rows.is_empty() && points.is_empty() {
                continue;
            }
            out += &format!("## {}\n\n{}\n\n", experiment.name, experiment.how);
            if !rows.is_empty() {
                out += "| What | Measured | Expected | Unit | Holds | Standing | Source |\n|---|---:|---:|---|---|---|---|\n";
            }
            for r in rows {
                let expected = match (r.least, r.most) {
                    (least, u64::MAX) => format!("≥ {}", thousandths(least)),
                    (least, most) if least == most => thousandths(least),
                    (least, most) => format!("{} – {}", thousandths(least), thousandths(most)),
                };
                let standing = format!("{:?}", r.standing).to_lowercase();
                let holds = if r.holds() { "yes" } else { "**no**" };
                out += &format!(
                    "| {} | {} | {expected} | {} | {holds} | {standing} | {} |\n",
                    r.what,
                    thousandths(r.measured),
                    r.unit,
                    r.source
                );
            }
            out += "\n";
            if let Some(first) = points.first() {
                out += &format!("| {} | {} |\n|---:|---:|\n", first.x_name, first.y_name);
                for p in points {
                    out += &format!("| {} | {} |\n", thousandths(p.x), thousandths(p.y));
                }
                out += "\n";
            }
        }
        out
    }
}
