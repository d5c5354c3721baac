//! Outcome patterns: what an expectation says about an [`Outcome`].

use crate::diag::nearest;
use serde::{Deserialize, Serialize};
use sim_core::outcome::{CallResult, Loaded, low_half, named_low_half, short_status};
use sim_core::tdx::{self, Low, OPERANDS, SOFTWARE, STATUSES, SoftwareRow, StatusRow};
use sim_core::units::clip;
use sim_core::{ByteMask, LineData, Outcome};
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
    /// A completion status by its name without `TDX_`, with any low half or with the one after `|`; or its number.
    Status,
    /// The number of an exit reason.
    Exit,
    /// `NAME=NUMBER` for any of these names.
    Named(&'static [&'static str]),
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

use Slot::{Exit, Maybe, Named, One, Status, Value};

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
    o("not-run",  &[One(&["panic", "killed", "shutdown", "horizon", "not-entered", "not-modelled"])], "it was not run, and why", "DESIGN §6"),
    o("tdx",      &[Status, Named(&CallResult::NAMES)], "a leaf of the TDX module returned: its status, and registers after it", "architecture.md §7.3"),
    o("td-exit",  &[Exit, Named(&["gpa"])], "a guest's operation ended in a TD exit: exit reason and guest-physical address", "architecture.md §7.9, §7.11"),
    o("page-fault", &[],    "a guest's own tables do not map the linear address",      "architecture.md §2.5"),
    o("double-fault", &[],  "a guest met a #VE before it had read the cause of the last one", "architecture.md §7.11"),
];

impl OutcomeForm {
    /// The words after the head as the manual writes them.
    pub fn operands(&self) -> String {
        let slot = |slot: &Slot| match slot {
            One(words) => words.join("\\|"),
            Maybe(word) => format!("{word}?"),
            Value => "NUMBER\\|fill=BYTE".to_owned(),
            Status => "STATUS or STATUS\\|OPERAND or NUMBER".to_owned(),
            Exit => "NUMBER".to_owned(),
            Named(names) => {
                names.iter().map(|n| format!("{n}=NUMBER?")).collect::<Vec<_>>().join(" ")
            }
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

/// The status after `tdx`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StatusPattern {
    /// A status of the module, with this low half or with any.
    Module(&'static StatusRow, Option<u32>),
    /// A whole value that only software makes.
    Software(&'static SoftwareRow),
    /// This value.
    Number(u64),
}

impl StatusPattern {
    fn matches(self, status: tdx::Status) -> bool {
        match self {
            StatusPattern::Module(row, low) => {
                status.code() == row.status && low.is_none_or(|low| low == status.low())
            }
            StatusPattern::Software(row) => status == row.status,
            StatusPattern::Number(n) => status.0 == n,
        }
    }

    fn read(at: usize, word: &str) -> Result<StatusPattern, PatternError> {
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let number = number(word).map(StatusPattern::Number);
            return number.ok_or_else(|| trouble(at, word, "a number of at most 64 bits"));
        }
        let (name, low) = word.split_once('|').map_or((word, None), |(n, low)| (n, Some(low)));
        if let (Some(row), None) = (SOFTWARE.iter().find(|r| short_status(r.name) == name), low) {
            return Ok(StatusPattern::Software(row));
        }
        let Some(row) = STATUSES.iter().find(|r| short_status(r.name) == name) else {
            let all = STATUSES.iter().map(|r| short_status(r.name));
            let upper = name.to_ascii_uppercase();
            let expected = match nearest(short_status(&upper), all) {
                Some(near) => format!("a status: did you mean `{near}`?"),
                None => "a status such as SUCCESS or OPERAND_BUSY|RCX, or its number".to_owned(),
            };
            return Err(trouble(at, name, expected));
        };
        let Some(low) = low else { return Ok(StatusPattern::Module(row, None)) };
        let value = named_low_half(row, low);
        let value = value.or_else(|| number(low).and_then(|n| u32::try_from(n).ok()));
        let value = value.ok_or_else(|| {
            let expected = match row.low {
                Low::Operand => match nearest(low, OPERANDS.iter().map(|o| o.name)) {
                    Some(near) => format!("an operand: did you mean `{near}`?"),
                    None => "an operand such as RCX or SEPT_TREE, or its number".to_owned(),
                },
                Low::ExitReason => "the number of an exit reason".to_owned(),
                Low::Level => "the number of a level".to_owned(),
                Low::Msr | Low::Tdmr | Low::Plain => "a number of at most 32 bits".to_owned(),
            };
            trouble(at + name.len() + 1, low, expected)
        })?;
        Ok(StatusPattern::Module(row, Some(value)))
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusPattern::Module(row, None) => f.write_str(short_status(row.name)),
            StatusPattern::Module(row, Some(low)) => {
                write!(f, "{}|{}", short_status(row.name), low_half(row, *low))
            }
            StatusPattern::Software(row) => f.write_str(short_status(row.name)),
            StatusPattern::Number(n) => write!(f, "{n:#x}"),
        }
    }
}

/// What follows the words of an alternative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Detail {
    /// Nothing that is asked for.
    Any,
    /// After `data` or `garbage`.
    Bytes(Bytes),
    /// After `tdx`.
    Status(StatusPattern),
    /// After `td-exit`.
    Exit(u32),
}

/// One alternative: the first words of an outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Alternative {
    /// Words of [`OUTCOMES`], head first.
    words: Vec<&'static str>,
    detail: Detail,
    /// Names of a [`Slot::Named`] and what they must be, in the order of the slot.
    named: Vec<(&'static str, u64)>,
}

/// What an outcome may be: one or more alternatives, each the first words of what [`Outcome`] prints.
///
/// `mc srar` matches every software-recoverable machine check, `data | zeros` either; `data 0x1122` asks for these
/// first eight bytes (or all, where fewer were loaded), `data fill=0x5a` for this byte everywhere; `tdx OPERAND_BUSY` for
/// this status about any operand, `tdx OPERAND_BUSY|RCX` about RCX. A `|` without spaces after the name of a status is part
/// of it.
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
    /// Whether the outcome is one of the alternatives for some value of the bytes in `unknown`.
    pub(crate) fn may_match(&self, outcome: &Outcome, unknown: ByteMask) -> bool {
        let Outcome::Data(loaded) = outcome else { return self.matches(outcome) };
        self.alternatives.iter().any(|alternative| {
            // If any value will do, then the one that the alternative names, or one without a meaning of its own.
            let wanted = match alternative.detail {
                Detail::Bytes(Bytes::Num(number)) => LineData([number, 0, 0, 0, 0, 0, 0, 0]),
                Detail::Bytes(Bytes::Fill(byte)) => LineData::filled(byte),
                Detail::Bytes(Bytes::All(data, _)) => data,
                _ => LineData::ZERO,
            };
            [wanted, LineData::filled(0x5a)].into_iter().any(|value| {
                let mut data = loaded.data;
                data.merge(&value, unknown);
                let one = Outcome::Data(Loaded { data, ..*loaded });
                alternative.matches(&one, &one.to_string())
            })
        })
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
                && match self.detail {
                    Detail::Bytes(bytes) => bytes.matches(loaded),
                    _ => true,
                };
        }
        let named = |name: &str, want: u64| match outcome {
            Outcome::Call(result) => {
                let slot = CallResult::NAMES.iter().position(|n| *n == name);
                slot.and_then(|i| result.out.get(i)) == Some(&want)
            }
            Outcome::TdExit { gpa, .. } => name == "gpa" && *gpa == want,
            _ => false,
        };
        let detail = match (self.detail, outcome) {
            (Detail::Any, _) => true,
            (Detail::Status(status), Outcome::Call(result)) => status.matches(result.status),
            (Detail::Exit(number), Outcome::TdExit { reason, .. }) => reason.0 == number,
            _ => false,
        };
        if !detail || !self.named.iter().all(|(name, want)| named(name, *want)) {
            return false;
        }
        let mut printed = printed.split(' ');
        self.words.iter().all(|word| printed.next() == Some(word))
    }
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))?;
        match self.detail {
            Detail::Any => {}
            Detail::Bytes(Bytes::Num(n)) => write!(f, " {n:#x}")?,
            Detail::Bytes(Bytes::Fill(byte)) => write!(f, " fill={byte:#x}")?,
            Detail::Bytes(Bytes::All(data, len)) => {
                f.write_str(" bytes=")?;
                (0..usize::from(len)).try_for_each(|i| write!(f, "{:02x}", data.byte(i)))?;
            }
            Detail::Status(status) => write!(f, " {status}")?,
            Detail::Exit(number) => write!(f, " {number}")?,
        }
        self.named.iter().try_for_each(|(name, n)| write!(f, " {name}={n:#x}"))
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
    let mut found = Alternative { words: vec![form.head], detail: Detail::Any, named: Vec::new() };
    let mut slots = form.rest.iter();
    'words: for (at, word) in tokens {
        if let Some(Named(names)) = form.rest.last()
            && matches!(found.detail, Detail::Status(_) | Detail::Exit(_))
        {
            read_named(&mut found.named, names, at, word)?;
            continue;
        }
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
                    found.detail = Detail::Bytes(bytes(at, word)?);
                    continue 'words;
                }
                Status => {
                    found.detail = Detail::Status(StatusPattern::read(at, word)?);
                    continue 'words;
                }
                Exit => {
                    let reason = number(word).and_then(|n| u32::try_from(n).ok());
                    let reason = reason.ok_or_else(|| {
                        trouble(at, word, "the number of an exit reason, such as 48")
                    })?;
                    found.detail = Detail::Exit(reason);
                    continue 'words;
                }
                // Read above, once what stands before it has been.
                Named(_) => {}
            }
        }
        return Err(trouble(at, word, format!("nothing after `{found}`, or ` | `")));
    }
    Ok(found)
}

/// Reads `NAME=NUMBER` into its place among those read.
fn read_named(
    named: &mut Vec<(&'static str, u64)>,
    names: &'static [&'static str],
    at: usize,
    word: &str,
) -> Result<(), PatternError> {
    let list = || names.iter().map(|n| format!("{n}=NUMBER")).collect::<Vec<_>>().join(", ");
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let rank = |name: &str| names.iter().position(|n| *n == name);
    let known = rank(name).and_then(|i| Some((i, *names.get(i)?)));
    let (index, name) = known.ok_or_else(|| trouble(at, word, list()))?;
    if named.iter().any(|(other, _)| *other == name) {
        return Err(trouble(at, word, format!("{name} only once")));
    }
    let value = number(value)
        .ok_or_else(|| trouble(at, word, format!("{name}=NUMBER, a number of at most 64 bits")))?;
    let place = named.partition_point(|(other, _)| rank(other) < Some(index));
    named.insert(place, (name, value));
    Ok(())
}

/// The parts between `|`, with their offsets. A `|` that stands without spaces in the word after `tdx` is no separator.
fn alternatives(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(0);
    std::iter::from_fn(move || {
        let at = rest?;
        let tail = text.get(at..).unwrap_or("");
        let mut bars = tail.match_indices('|').map(|(bar, _)| bar);
        let end = bars.find(|bar| {
            let (part, after) = (tail.get(..*bar).unwrap_or(""), tail.get(bar + 1..).unwrap_or(""));
            let joined = !part.ends_with([' ', '\t'])
                && after.starts_with(|c: char| !matches!(c, ' ' | '\t' | '|'));
            let mut words = words(part).map(|(_, word)| word);
            let status = (words.next(), words.next(), words.next());
            let bare = |word: &str| !word.contains('|');
            !(joined && matches!(status, (Some("tdx"), Some(name), None) if bare(name)))
        });
        rest = end.map(|end| at + end + 1);
        Some((at, tail.get(..end.unwrap_or(tail.len())).unwrap_or("")))
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
