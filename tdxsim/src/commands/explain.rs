//! `tdxsim explain`

use super::json;
use crate::cli::{Explain, Format};
use crate::exit::Exit;
use crate::{explain as words, output};
use std::io::Read;

/// More text than a kernel log has lines worth explaining.
const STDIN_MAX: u64 = 1 << 20;

pub(super) fn explain(args: &Explain) -> Exit {
    let text = match args.text.as_slice() {
        [dash] if dash == "-" => {
            let mut bytes = Vec::new();
            if let Err(error) = std::io::stdin().lock().take(STDIN_MAX).read_to_end(&mut bytes) {
                output::message(&format!("cannot read stdin: {error}"));
                return Exit::BadInput;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        words => words.join(" "),
    };
    match words::explain(&text) {
        Ok(explanation) => match args.format {
            Format::Human => output::data(&explanation.to_string(), Exit::Met),
            Format::Json => json(&explanation, Exit::Met),
        },
        Err(error) => {
            output::message(&error.to_string());
            Exit::BadInput
        }
    }
}
