//! `tdxsim explain`

use super::{TOOL, json};
use crate::cli::{Explain, Format};
use crate::exit::Exit;
use crate::{explain as words, output};
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Read;

/// More text than a kernel log has lines worth explaining.
const STDIN_MAX: u64 = 1 << 20;

/// `explain --format json`.
#[derive(Serialize, JsonSchema)]
pub struct Explained {
    /// `tdxsim.explain/1`.
    schema: &'static str,
    /// Program and version.
    tool: &'static str,
    /// What was explained.
    explanation: words::Explanation,
}

pub(super) fn explain(args: &Explain) -> Exit {
    let text = match args.text.as_slice() {
        [dash] if dash == "-" => {
            let mut bytes = Vec::new();
            if let Err(error) = std::io::stdin().lock().take(STDIN_MAX + 1).read_to_end(&mut bytes)
            {
                output::message(&format!("cannot read stdin: {error}"));
                return Exit::BadInput;
            }
            if bytes.len() as u64 > STDIN_MAX {
                output::message(
                    "stdin: found more than 1 MiB, expected the lines of a log that are to be explained",
                );
                return Exit::BadInput;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        words => words.join(" "),
    };
    match words::explain(&text) {
        Ok(explanation) => match args.format {
            Format::Human => output::data(&explanation.to_string(), Exit::Met),
            Format::Json => {
                json(&Explained { schema: "tdxsim.explain/1", tool: TOOL, explanation }, Exit::Met)
            }
        },
        Err(error) => {
            output::message(&error.to_string());
            Exit::BadInput
        }
    }
}
