//! What a number, a name or a kernel log line of TDX means: leaves, statuses, states, Secure-EPT entries, metadata fields
//! and machine checks, in words, with sources.
//!
//! A pure function of its input. Whether a number is a completion status or an IA32_MCi_STATUS is decided by the status
//! table first (bit 63 is ERROR in one and VAL in the other), then by plausibility; when both fit, both are given.

mod advice;
mod leaf;
mod mce;
mod read;
mod state;
mod status;
mod subject;

use schemars::JsonSchema;
use serde::Serialize;
use sim_core::units::clip;
use std::fmt::{self, Write};
use thiserror::Error;

/// What is explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A completion status of SEAMCALL or TDCALL.
    SeamcallStatus,
    /// IA32_MCi_STATUS, with what came with it.
    MciStatus,
    /// IA32_MCi_ADDR alone.
    MciAddr,
    /// A SEAMCALL or TDCALL leaf.
    Leaf,
    /// A page type of the PAMT.
    PageType,
    /// A Secure-EPT entry.
    SeptEntry,
    /// A state of a Secure-EPT entry.
    SeptState,
    /// OP_STATE of a TD.
    OpState,
    /// Life-cycle state of a TD.
    Lifecycle,
    /// State of an HKID.
    KotState,
    /// Global state of the module.
    ModuleState,
    /// Exit reason of TDH.VP.ENTER.
    ExitReason,
    /// A metadata field.
    MetadataField,
}

/// One decoded part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Field {
    /// What the specification calls it.
    pub name: String,
    /// Its value, as text.
    pub value: String,
    /// What it says; may be empty.
    pub meaning: String,
}

/// A number or log line, explained. [`fmt::Display`] prints it in 80 columns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// What is explained.
    pub kind: Kind,
    /// In one sentence.
    pub headline: String,
    /// The decoded parts, most significant first.
    pub fields: Vec<Field>,
    /// What follows from them.
    pub notes: Vec<String>,
    /// The fact sheets and sources used, in order of use.
    pub citations: Vec<String>,
    /// Another reading of the same number, or the next things found in the same text.
    pub also: Vec<Explanation>,
}

/// Why something is not explained.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ExplainError {
    /// Nothing but blanks.
    #[error("nothing to explain; {ACCEPTED}")]
    Empty,
    /// A word that is neither a number nor a known name.
    #[error("`{found}` is not a number or a name known here; {ACCEPTED}")]
    Word {
        /// The word, clipped.
        found: String,
    },
    /// A number that is neither a completion status nor an MCi_STATUS.
    #[error(
        "{found} is neither a completion status of TDX nor a valid MCi_STATUS (bit 63 is clear); \
         {ACCEPTED}"
    )]
    Number {
        /// The number as given, clipped.
        found: String,
    },
    /// What follows a word that says what it is.
    #[error("found `{found}`, expected {expected}")]
    Subject {
        /// The word, clipped.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// More numbers than a status and its MCG_STATUS.
    #[error("{count} numbers without names; {ACCEPTED}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// What [`explain`] accepts, for error messages and help.
pub const ACCEPTED: &str = "accepted are: a SEAMCALL or TDCALL status (`0xC000030000000001`, decimal, or its name); \
     an MCi_STATUS, alone or with MCG_STATUS (`0xbd80000000100134 0xf`, or `status=… mcg=… addr=… bank=…`); \
     `addr=…` alone; the name of a leaf, a page type or a state (`TDH.MEM.PAGE.AUG`, `PT_TDR`, `RUNNABLE`); \
     `seamcall 6`, `tdcall 6`, `sept 0x80E0000000000000`, `page-type 4`, `op-state 2`, `lifecycle 1`, `kot 2`, \
     `exit 48`, `field HP_LOCK_TIMEOUT`; or pasted kernel log lines (`mce: [Hardware Error]: …`, \
     `SEAMCALL (0x1c) failed: 0x…`, `SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0x…`)";

/// How many things of one text are explained.
pub const FINDINGS_MAX: usize = 16;

/// Explains a number, a name, a pair of numbers or pasted log lines.
///
/// # Errors
/// What was found, and what is accepted.
pub fn explain(input: &str) -> Result<Explanation, ExplainError> {
    let mut more = false;
    let all = match subject::keyword(input) {
        Some(found) => found?,
        None => {
            let named = match input.split_whitespace().collect::<Vec<_>>().as_slice() {
                [word] => subject::named(word),
                _ => Vec::new(),
            };
            let found = read::findings(input);
            let findings = match found {
                Ok((findings, rest)) => {
                    more = rest;
                    findings
                }
                Err(error) if named.is_empty() => return Err(error),
                Err(_) => Vec::new(),
            };
            let mut all: Vec<Explanation> = findings
                .iter()
                .map(|finding| match finding {
                    read::Finding::Status(found) => status::explain(found),
                    read::Finding::Mce(found) => mce::explain(found),
                    read::Finding::Addr(addr) => mce::explain_addr(*addr),
                })
                .collect();
            all.extend(named.into_iter().map(subject::Subject::explain));
            all
        }
    };
    let mut all = all.into_iter();
    let Some(mut first) = all.next() else {
        return Err(ExplainError::Word { found: clip(input.trim()) });
    };
    first.also = all.collect();
    if more {
        first.notes.push(format!(
            "The text has more; only the first {FINDINGS_MAX} different things are explained."
        ));
    }
    Ok(first)
}

impl Explanation {
    fn new(kind: Kind, headline: String) -> Explanation {
        Explanation {
            kind,
            headline,
            fields: Vec::new(),
            notes: Vec::new(),
            citations: Vec::new(),
            also: Vec::new(),
        }
    }
    fn field(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        meaning: impl Into<String>,
    ) {
        self.fields.push(Field { name: name.into(), value: value.into(), meaning: meaning.into() });
    }
    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
    fn cite(&mut self, source: &str) {
        if !self.citations.iter().any(|c| c == source) {
            self.citations.push(source.to_owned());
        }
    }
}

/// Columns of the text for people.
const COLUMNS: usize = 80;

/// Writes words at `indent`, the first line after `lead`, no line beyond [`COLUMNS`] unless one word is.
fn wrap(f: &mut impl Write, lead: &str, indent: usize, text: &str) -> fmt::Result {
    f.write_str(lead)?;
    let mut column = lead.chars().count();
    let mut fresh = true;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if !fresh && column + 1 + width > COLUMNS {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
            fresh = true;
        }
        if !fresh {
            f.write_char(' ')?;
            column += 1;
        }
        f.write_str(word)?;
        column += width;
        fresh = false;
    }
    f.write_char('\n')
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        wrap(f, "", 0, &self.headline)?;
        let names = self.fields.iter().map(|field| field.name.chars().count()).max().unwrap_or(0);
        let indent = names + 4;
        for field in &self.fields {
            let text = match (field.value.is_empty(), field.meaning.is_empty()) {
                (_, true) => field.value.clone(),
                (true, false) => field.meaning.clone(),
                (false, false) => format!("{}: {}", field.value, field.meaning),
            };
            wrap(f, &format!("  {:names$}  ", field.name), indent, &text)?;
        }
        if !self.notes.is_empty() {
            f.write_char('\n')?;
        }
        for note in &self.notes {
            wrap(f, "- ", 2, note)?;
        }
        if !self.citations.is_empty() {
            wrap(f, "\nSources: ", 9, &self.citations.join("; "))?;
        }
        for other in &self.also {
            write!(f, "\n{other}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod module_tests;
#[cfg(test)]
mod tests;
