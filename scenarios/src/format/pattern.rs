//! Outcome patterns: what an expectation says about an [`Outcome`].

use serde::{Deserialize, Serialize};
use sim_core::outcome::Loaded;
use sim_core::units::clip;
use sim_core::{LineData, Outcome};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What may follow in an outcome's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// One of these words.
    One(&'static [&'static str]),
    /// This word, or the next slot at once.
    Maybe(&'static str),
    /// A number, `fill=BYTE` or `bytes=HEX`.
    Value,
}

/// One form of outcome: a row of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutcomeForm {
    /// First word.
    pub head: &'static str,
    /// The words after it; a pattern may stop after any of them.
    pub rest: &'static [Slot],
    /// What it says.
    pub meaning: &'static str,
    /// Where the notion comes from.
    pub cite: &'static str,
}

const fn o(
    head: &'static str,
    rest: &'static [Slot],
    meaning: &'static str,
    cite: &'static str,
) -> OutcomeForm {
    OutcomeForm { head, rest, meaning, cite }
}

use Slot::{Maybe, One, Value};

/// Every form of outcome, as [`Outcome`] prints them, and `any-data`, which only patterns have.
#[rustfmt::skip]
pub const OUTCOMES: &[OutcomeForm] = &[
    o("done",     &[],      "it completed and returned nothing",                       "DESIGN §6"),
    o("data",     &[Value], "bytes, not all zero, under the right key",                "architecture.md §2.2"),
    o("zeros",    &[],      "zero bytes: the line's own, or a blocked read",           "architecture.md §2.2, §2.3"),
    o("garbage",  &[Value], "bytes decrypted with a wrong key, never written, or tampered with", "architecture.md §2.2"),
    o("any-data", &[],      "data, zeros or garbage",                                  "DESIGN §6"),
    o("mc",       &[One(&["srar", "srao", "ucna", "other"]), One(&["data-load", "fetch"]), Maybe("seam-nr"),
                    One(&["panic", "sigbus", "survived", "td-fatal", "shutdown"])],
                            "machine check: severity, access, SEAM non-root, consequence", "architecture.md §6.2, §6.3"),
    o("pf",       &[One(&["rsvd"])], "page fault: private KeyID bits outside SEAM",    "architecture.md §2.5"),
    o("gp",       &[One(&["misaligned", "not-in-seam", "privilege", "no-such-sub-block"])], "general protection", "architecture.md §3 3.1, §4.1 4.1.10"),
    o("ept-misconfiguration", &[], "shared mapping with private KeyID bits",           "architecture.md §2.5"),
    o("ve",       &[],      "virtualization exception: not for a TD",                  "architecture.md §4.4"),
    o("dma-abort", &[],     "device access aborted with a remapping fault",            "architecture.md §2.5"),
    o("dma-poison", &[],    "device got an error response instead of data",            "architecture.md §13 MC-13"),
    o("pconfig",  &[One(&["ok", "bad-command", "no-entropy", "invalid-keyid", "invalid-algorithm", "device-busy"])],
                            "PCONFIG returned",                                        "architecture.md §8"),
    o("vmfail-invalid", &[], "SEAM code could not run: TDX is disabled",               "architecture.md §6.3"),
    o("not-run",  &[One(&["panic", "killed", "shutdown", "horizon"])], "it was not run, and why", "DESIGN §6"),
];

impl OutcomeForm {
    /// The words after the head as the manual writes them.
    pub fn operands(&self) -> String {
        let slot = |slot: &Slot| match slot {
            One(words) => words.join("\\|"),
            Maybe(word) => format!("{word}?"),
            Value => "NUMBER\\|fill=BYTE".to_owned(),
        };
        self.rest.iter().map(slot).collect::<Vec<_>>().join(" ")
    }
}

/// [`OUTCOMES`] as a table of the manual.
pub fn outcomes_markdown() -> String {
    let mut out = "| outcome | words after it | meaning | source |\n|---|---|---|---|\n".to_owned();
    for row in OUTCOMES {
        let (head, meaning, cite) = (row.head, row.meaning, row.cite);
        out.push_str(&format!("| `{head}` | {} | {meaning} | {cite} |\n", row.operands()));
    }
    out
}

/// Why a text is not a pattern.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("found {found}, expected {expected}")]
pub struct PatternError {
    /// Byte offset in the text at which the trouble begins.
    pub at: usize,
    /// How many bytes are meant.
    pub len: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

/// The value after `data` or `garbage`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bytes {
    /// The first eight bytes (fewer if fewer were loaded), little-endian.
    Num(u64),
    /// All bytes loaded.
    Fill(u8),
    /// All bytes loaded, so many, in the order of memory.
    All(LineData, u8),
}

impl Bytes {
    fn matches(self, loaded: &Loaded) -> bool {
        let n = loaded.bytes.min(64) as usize;
        match self {
            Bytes::Fill(byte) => (0..n).all(|i| loaded.data.byte(i) == byte),
            Bytes::All(data, len) => {
                n == usize::from(len) && (0..n).all(|i| loaded.data.byte(i) == data.byte(i))
            }
            Bytes::Num(number) => {
                let known = n.min(8);
                let fits = known == 8 || number >> (8 * known) == 0;
                fits && (0..known).all(|i| loaded.data.byte(i) == (number >> (8 * i)) as u8)
            }
        }
    }
}

/// One alternative: the first words of an outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Alternative {
    /// Words of [`OUTCOMES`], head first.
    words: Vec<&'static str>,
    bytes: Option<Bytes>,
}

/// What an outcome may be: one or more alternatives, each the first words of what [`Outcome`] prints.
///
/// `mc srar` matches every software-recoverable machine check, `data | zeros` either; `data 0x1122` asks for these
/// first eight bytes (or all, where fewer were loaded), `data fill=0x5a` for this byte everywhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    alternatives: Vec<Alternative>,
}

impl Pattern {
    /// Whether the outcome is one of the alternatives.
    pub fn matches(&self, outcome: &Outcome) -> bool {
        let printed = outcome.to_string();
        self.alternatives.iter().any(|a| a.matches(outcome, &printed))
    }
}

impl Alternative {
    fn matches(&self, outcome: &Outcome, printed: &str) -> bool {
        if let Outcome::Data(loaded) = outcome {
            if self.words == ["any-data"] {
                return true;
            }
            let class = printed.split(' ').next();
            return self.words.first().copied() == class
                && self.bytes.is_none_or(|bytes| bytes.matches(loaded));
        }
        let mut printed = printed.split(' ');
        self.words.iter().all(|word| printed.next() == Some(word))
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))?;
        match self.bytes {
            None => Ok(()),
            Some(Bytes::Num(n)) => write!(f, " {n:#x}"),
            Some(Bytes::Fill(byte)) => write!(f, " fill={byte:#x}"),
            Some(Bytes::All(data, len)) => {
                f.write_str(" bytes=")?;
                (0..usize::from(len)).try_for_each(|i| write!(f, "{:02x}", data.byte(i)))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, alternative) in self.alternatives.iter().enumerate() {
            if i != 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{alternative}")?;
        }
        Ok(())
    }
}

/// The words of a text with their offsets.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    text.split([' ', '\t']).filter_map(move |word| {
        let at = rest;
        rest += word.len() + 1;
        (!word.is_empty()).then_some((at, word))
    })
}

pub(super) fn trouble(at: usize, word: &str, expected: impl Into<String>) -> PatternError {
    let found = if word.is_empty() { "nothing".to_owned() } else { format!("`{}`", clip(word)) };
    PatternError { at, len: word.len(), found, expected: expected.into() }
}

/// Decimal or `0x` hexadecimal, at most 64 bits, no sign.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

fn bytes(at: usize, word: &str) -> Result<Bytes, PatternError> {
    if let Some(byte) = word.strip_prefix("fill=") {
        let byte = number(byte).and_then(|n| u8::try_from(n).ok());
        return byte.map(Bytes::Fill).ok_or_else(|| trouble(at, word, "fill=BYTE, 0 to 255"));
    }
    if let Some(digits) = word.strip_prefix("bytes=") {
        let expected = "bytes=HEX, two digits for each of at most 64 bytes";
        return all_bytes(digits).ok_or_else(|| trouble(at, word, expected));
    }
    number(word)
        .map(Bytes::Num)
        .ok_or_else(|| trouble(at, word, "a number of at most 64 bits, fill=BYTE or bytes=HEX"))
}

fn all_bytes(digits: &str) -> Option<Bytes> {
    let even = !digits.is_empty() && digits.len().is_multiple_of(2) && digits.len() <= 128;
    if !even || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let mut data = LineData::ZERO;
    for (i, pair) in digits.as_bytes().chunks_exact(2).enumerate() {
        data.set_byte(i, u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
    }
    Some(Bytes::All(data, (digits.len() / 2) as u8))
}

/// Reads one alternative, `text` starting at `offset` of the whole. `heads` are the outcomes allowed here.
fn alternative(
    offset: usize,
    text: &str,
    heads: &dyn Fn(&OutcomeForm) -> bool,
) -> Result<Alternative, PatternError> {
    let mut tokens = words(text).map(|(at, word)| (offset + at, word));
    let expected = || {
        let heads: Vec<&str> = OUTCOMES.iter().filter(|o| heads(o)).map(|o| o.head).collect();
        format!("one of {}", heads.join(", "))
    };
    let Some((at, head)) = tokens.next() else {
        return Err(trouble(offset, "", expected()));
    };
    let form = OUTCOMES.iter().find(|o| o.head == head && heads(o));
    let form = form.ok_or_else(|| trouble(at, head, expected()))?;
    let mut found = Alternative { words: vec![form.head], bytes: None };
    let mut slots = form.rest.iter();
    'words: for (at, word) in tokens {
        let mut expected: Vec<&str> = Vec::new();
        for slot in slots.by_ref() {
            match slot {
                One(choices) => {
                    if let Some(choice) = choices.iter().find(|c| **c == word) {
                        found.words.push(choice);
                        continue 'words;
                    }
                    expected.extend(*choices);
                    return Err(trouble(at, word, format!("one of {}", expected.join(", "))));
                }
                Maybe(choice) if *choice == word => {
                    found.words.push(choice);
                    continue 'words;
                }
                Maybe(choice) => expected.push(choice),
                Value => {
                    found.bytes = Some(bytes(at, word)?);
                    continue 'words;
                }
            }
        }
        return Err(trouble(at, word, format!("nothing after `{found}`, or ` | `")));
    }
    Ok(found)
}

/// The parts between `|`, with their offsets.
fn alternatives(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    text.split('|').map(move |part| {
        let at = rest;
        rest += part.len() + 1;
        (at, part)
    })
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let alternatives: Result<Vec<_>, _> =
            alternatives(text).map(|(at, part)| alternative(at, part, &|_| true)).collect();
        Ok(Pattern { alternatives: alternatives? })
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Pattern, PatternError> {
        text.parse()
    }
}
impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

/// What a read of a line by the controller may return: `poison`, or data as in a [`Pattern`].
///
/// Prints `poison` first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReadPattern {
    poison: bool,
    data: Option<Pattern>,
}

impl ReadPattern {
    /// Whether a fill is one of the alternatives. A poisoned one is `poison` and nothing else.
    pub fn matches(&self, poisoned: bool, loaded: &Loaded) -> bool {
        if poisoned {
            return self.poison;
        }
        self.data.as_ref().is_some_and(|data| data.matches(&Outcome::Data(*loaded)))
    }
}

impl fmt::Display for ReadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.poison, &self.data) {
            (true, Some(data)) => write!(f, "poison | {data}"),
            (_, Some(data)) => write!(f, "{data}"),
            (_, None) => f.write_str("poison"),
        }
    }
}

impl FromStr for ReadPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<ReadPattern, PatternError> {
        let is_data = |o: &OutcomeForm| matches!(o.head, "data" | "zeros" | "garbage" | "any-data");
        let mut poison = false;
        let mut data = Vec::new();
        for (at, part) in alternatives(text) {
            if words(part).map(|(_, word)| word).eq(["poison"]) {
                poison = true;
            } else {
                data.push(alternative(at, part, &is_data).map_err(|mut e| {
                    if let Some(rest) = e.expected.strip_prefix("one of data") {
                        e.expected = format!("one of poison, data{rest}");
                    }
                    e
                })?);
            }
        }
        let data = (!data.is_empty()).then_some(Pattern { alternatives: data });
        Ok(ReadPattern { poison, data })
    }
}

impl TryFrom<String> for ReadPattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<ReadPattern, PatternError> {
        text.parse()
    }
}
impl From<ReadPattern> for String {
    fn from(pattern: ReadPattern) -> String {
        pattern.to_string()
    }
}
