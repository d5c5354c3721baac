//! `tdxsim list`

use super::{TOOL, json, refuse};
use crate::cli::{Format, List};
use crate::exit::Exit;
use crate::output;
use scenarios::report::Catalogue;

pub(super) fn list(args: &List) -> Exit {
    let catalogue = match Catalogue::of_library(TOOL) {
        Ok(catalogue) => catalogue,
        Err(diag) => return refuse(&diag),
    };
    match args.format {
        Format::Human => output::data(&catalogue.to_string(), Exit::Met),
        Format::Json => json(&catalogue, Exit::Met),
    }
}
