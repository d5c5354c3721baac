//! The list of built-in scenarios.

use crate::diag::Diag;
use crate::format::Scenario;
use crate::library::LIBRARY;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::{self, Display};

/// `list --format json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Catalogue {
    /// `tdxsim.list/1`.
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// One for each scenario, by name.
    pub scenarios: Vec<CatalogueRow>,
}

/// One scenario.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CatalogueRow {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// What it rests on.
    pub cite: Vec<String>,
    /// Its matrix: `spr`, `spr li`, `spr li real`.
    pub cases: Vec<String>,
}

impl Catalogue {
    /// The built-in scenarios.
    ///
    /// # Errors
    /// A built-in scenario that cannot be read; a test sees that there is none.
    pub fn of_library(tool: &str) -> Result<Catalogue, Diag> {
        let scenarios: Result<Vec<CatalogueRow>, Diag> = LIBRARY
            .iter()
            .map(|entry| {
                let scenario = Scenario::parse(entry.source())?;
                let cases = scenario.cases().iter().map(ToString::to_string).collect();
                let Scenario { name, title, cite, .. } = scenario;
                Ok(CatalogueRow { name, title, cite, cases })
            })
            .collect();
        let tool = tool.to_owned();
        Ok(Catalogue { schema: "tdxsim.list/1", tool, scenarios: scenarios? })
    }
}

impl Display for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.scenarios.iter().map(|s| s.name.len()).max().unwrap_or(0);
        for s in &self.scenarios {
            writeln!(f, "{:width$}  {}", s.name, s.title)?;
        }
        Ok(())
    }
}
