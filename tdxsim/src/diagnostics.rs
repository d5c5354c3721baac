//! How bad input is shown: one line, `file:line:column: found X, expected Y`; on a terminal also the place itself.

use scenarios::diag::Diag;
use std::io::{self, IsTerminal};

/// The message for stderr.
pub(crate) fn render(diag: &Diag) -> String {
    let line = match &diag.help {
        Some(help) => format!("tdxsim: {diag} ({help})"),
        None => format!("tdxsim: {diag}"),
    };
    if io::stderr().is_terminal() { format!("{line}\n{}", diag.render()) } else { line }
}
