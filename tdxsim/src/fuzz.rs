//! The harnesses of [`scenarios::fuzz`], and that of `explain`.

use crate::explain::explain as words;
use scenarios::fuzz::{Harness, printable};

/// Every harness by the name of its fuzz target and corpus.
pub fn targets() -> impl Iterator<Item = (&'static str, Harness)> {
    scenarios::fuzz::TARGETS.iter().copied().chain([("explain", explain as Harness)])
}

/// Runs the harness of that name.
///
/// # Errors
/// The finding, or that there is no such harness.
pub fn run(target: &str, bytes: &[u8]) -> Result<(), String> {
    let found = targets().find(|(name, _)| *name == target);
    let (_, harness) = found.ok_or_else(|| format!("no harness {target}"))?;
    harness(bytes)
}

/// Text that is to be explained: what is found is printable, and every finding has a headline; what is not found is said in
/// one line.
///
/// # Errors
/// What does not hold.
pub fn explain(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let found = match words(&text) {
        Ok(found) => found,
        Err(error) => return printable(&error.to_string()),
    };
    for one in std::iter::once(&found).chain(&found.also) {
        printable(&one.headline)?;
        for field in &one.fields {
            printable(&field.name)?;
            // What has no value of its own, or no more meaning than its name, says nothing there.
            let said = [&field.value, &field.meaning].into_iter().filter(|text| !text.is_empty());
            said.map(String::as_str).try_for_each(printable)?;
        }
        one.notes.iter().chain(&one.citations).try_for_each(|line| printable(line))?;
    }
    serde_json::to_string(&found).map(|_| ()).map_err(|error| error.to_string())
}
