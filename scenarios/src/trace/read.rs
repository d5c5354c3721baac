//! The reader: lines out of a buffered source, records out of lines.

use super::format::{Access, FORMATS, Format};
use super::parse::{self, Fault, Found, Item};
use sim_core::units::clip;
use std::fmt::Display;
use std::io::{BufRead, ErrorKind};
use thiserror::Error;

/// Bytes that a line of text may have, its newline not counted. A longer one is refused when so much of it was read.
pub const TEXT_LINE_MAX: usize = 64 << 10;

/// Which kind of thing went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TraceErrorKind {
    /// The file cannot be opened or read, or its gzip data are damaged.
    Input,
    /// No record in it.
    Empty,
    /// A line that the format does not have.
    Record,
    /// The trace ends within a record, or its gzip data end too soon, and at least one record was read before
    /// (verification.md §4.2 point 7: such a trace is accepted only when the user says so).
    Truncated,
}

/// Why a trace cannot be read: one line of text, `file:line:column: found X, expected Y`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{file}:{line}:{column}: found {found}, expected {expected}")]
pub struct TraceError {
    /// The trace's name, made printable.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The byte in the line, from 1; a byte-order mark is not counted.
    pub column: u64,
    /// What was found.
    pub found: String,
    /// What the format has there, and its forms.
    pub expected: String,
    /// Which kind of error.
    pub kind: TraceErrorKind,
}

impl TraceError {
    /// The error of a trace of which nothing can be read.
    pub(super) fn input(name: &str, error: &std::io::Error) -> TraceError {
        TraceError {
            file: printable(name),
            line: 1,
            column: 1,
            found: format!("an input error ({})", printable(&error.to_string())),
            expected: READABLE.to_owned(),
            kind: TraceErrorKind::Input,
        }
    }
}

const READABLE: &str = "a readable trace";

#[derive(Debug)]
enum State {
    /// The first record, read when the trace was opened.
    First(Access),
    Reading,
    Ended,
    Failed(TraceError),
}

/// Reads the records of a trace one after the other, in constant memory.
#[derive(Debug)]
pub struct TraceReader<R> {
    lines: Lines<R>,
    format: Format,
    cycle: u64,
    records: u64,
    state: State,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads up to and including the first record. `name` is what errors call the trace. Without a format, the first line
    /// that says anything decides.
    ///
    /// # Errors
    /// [`TraceError`]: no record at all, or a line up to the first record that is none of the format's.
    pub fn open(name: &str, source: R, format: Option<Format>) -> Result<Self, TraceError> {
        let mut lines = Lines::new(name, source);
        let mut known = format;
        loop {
            let is_first = lines.number == 0;
            let step = lines.next(|text| {
                let text = match text {
                    [0xef, 0xbb, 0xbf, rest @ ..] if is_first => rest,
                    _ => text,
                };
                if known.is_none() {
                    known = parse::detect(text)?;
                }
                known.map_or(Ok(Item::Skip), |format| parse::item(format, text, 0))
            });
            match step {
                Ok(Some(Item::Skip)) => {}
                Ok(Some(Item::Access(first))) => {
                    let format = known.unwrap_or(Format::Lackey);
                    let (cycle, state) = (first.cycle.unwrap_or(0), State::First(first));
                    return Ok(TraceReader { lines, format, cycle, records: 0, state });
                }
                Ok(None) => {
                    let what = if lines.bytes == 0 { "an empty file" } else { "no record" };
                    return Err(lines.error_after(
                        TraceErrorKind::Empty,
                        what.to_owned(),
                        format!("a record; {}", forms(known)),
                    ));
                }
                Err(refusal) => return Err(lines.refused(*refusal, known, 0)),
            }
        }
    }

    /// The next record; `None` at the end of the trace, and ever after. After an error, the same error.
    ///
    /// # Errors
    /// [`TraceError`]: a line that the format does not have, or an input that cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could be collected past its error"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Access>, TraceError> {
        if !matches!(self.state, State::Reading) {
            return self.next_unusual();
        }
        let (format, cycle) = (self.format, self.cycle);
        loop {
            match self.lines.next(|text| parse::item(format, text, cycle)) {
                Ok(Some(Item::Access(access))) => {
                    self.cycle = access.cycle.unwrap_or(0);
                    self.records += 1;
                    return Ok(Some(access));
                }
                Ok(Some(Item::Skip)) => {}
                Ok(None) => {
                    self.state = State::Ended;
                    return Ok(None);
                }
                Err(refusal) => {
                    let error = self.lines.refused(*refusal, Some(format), self.records);
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    #[cold]
    fn next_unusual(&mut self) -> Result<Option<Access>, TraceError> {
        match &self.state {
            State::First(access) => {
                let access = *access;
                self.state = State::Reading;
                self.records = 1;
                Ok(Some(access))
            }
            State::Failed(error) => Err(error.clone()),
            State::Reading | State::Ended => Ok(None),
        }
    }
}

impl<R> TraceReader<R> {
    /// How many records [`TraceReader::next`] has handed out.
    pub const fn records(&self) -> u64 {
        self.records
    }
    /// The trace's format, given or found.
    pub const fn format(&self) -> Format {
        self.format
    }
    /// How many lines were read; right after a record, the number of its line.
    pub const fn line(&self) -> u64 {
        self.lines.number
    }
    /// An error of the record just handed out, for a caller who cannot use it: an address beyond memory, say.
    pub fn refuse(&self, found: impl Display, expected: impl Display) -> TraceError {
        let (found, expected) = (found.to_string(), expected.to_string());
        self.lines.error(TraceErrorKind::Record, self.lines.number, 1, found, expected)
    }
}

#[cfg(test)]
impl<R> TraceReader<R> {
    /// How many bytes the reader has allocated for lines that end outside of the source's buffer.
    pub(super) fn carry_capacity(&self) -> usize {
        self.lines.carry.capacity()
    }
}

/// Why [`Lines::next`] gave no line. The position is that of the line just read.
struct Refusal {
    kind: TraceErrorKind,
    column: usize,
    found: String,
    expected: &'static str,
    /// Whether the file ends where the fault does, with no line end.
    at_end: bool,
}

/// The lines of a source.
#[derive(Debug)]
struct Lines<R> {
    name: String,
    source: R,
    /// The start of a line whose end is not in the source's buffer. At most [`TEXT_LINE_MAX`] bytes; reused.
    carry: Vec<u8>,
    /// Lines read.
    number: u64,
    /// Bytes read.
    bytes: u64,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(name: &str, source: R) -> Lines<R> {
        Lines {
            name: printable(name),
            source,
            carry: Vec::new(),
            number: 0,
            bytes: 0,
            ended: false,
        }
    }

    /// Shows the next line, without its end, to `look`. `None` at the end of the source.
    #[inline]
    fn next<T>(
        &mut self,
        look: impl FnOnce(&[u8]) -> Result<T, Fault>,
    ) -> Result<Option<T>, Box<Refusal>> {
        if self.ended {
            return Ok(None);
        }
        match self.source.fill_buf() {
            Ok(buffer) => {
                if let Some((line, len)) = first_line(buffer) {
                    self.number += 1;
                    self.bytes += len as u64;
                    let looked = look(line).map_err(|fault| refusal(line, fault, false));
                    self.source.consume(len);
                    return looked.map(Some);
                }
                if buffer.is_empty() {
                    // Not to be asked for again: a growing file has no second end.
                    self.ended = true;
                    return Ok(None);
                }
            }
            // Not to be asked for again: a source need not repeat an error.
            Err(error) => self.failed(error, true)?,
        }
        self.next_in_pieces(look)
    }

    /// Stops at an error of the source, unless it is one to try again after.
    #[cold]
    fn failed(&mut self, error: std::io::Error, is_new_line: bool) -> Result<(), Box<Refusal>> {
        if error.kind() == ErrorKind::Interrupted {
            return Ok(());
        }
        self.ended = true;
        self.number += u64::from(is_new_line);
        let (byte, error_text) = (self.bytes, printable(&error.to_string()));
        Err(Box::new(Refusal {
            kind: TraceErrorKind::Input,
            column: if is_new_line { 0 } else { self.carry.len() },
            found: format!("an input error behind byte {byte} ({error_text})"),
            expected: READABLE,
            at_end: error.kind() == ErrorKind::UnexpectedEof,
        }))
    }

    /// The same for a line whose end is not in the buffer: it is put together in `carry`.
    #[cold]
    fn next_in_pieces<T>(
        &mut self,
        look: impl FnOnce(&[u8]) -> Result<T, Fault>,
    ) -> Result<Option<T>, Box<Refusal>> {
        self.carry.clear();
        let mut begun = false;
        loop {
            let buffer = match self.source.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => {
                    self.failed(error, !begun)?;
                    continue;
                }
            };
            if buffer.is_empty() {
                self.ended = true;
                if !begun {
                    return Ok(None);
                }
                let line = without_cr(&self.carry);
                return look(line).map(Some).map_err(|fault| refusal(line, fault, true));
            }
            self.number += u64::from(!begun);
            begun = true;
            // One byte more than may be taken, to see whether the line ends just there.
            let room = TEXT_LINE_MAX - self.carry.len();
            let window = buffer.get(..=room).unwrap_or(buffer);
            let end = newline(window);
            let piece = window.get(..end.unwrap_or(window.len())).unwrap_or_default();
            if piece.len() > room {
                self.ended = true;
                return Err(Box::new(Refusal {
                    kind: TraceErrorKind::Record,
                    column: TEXT_LINE_MAX,
                    found: format!("a line of more than {TEXT_LINE_MAX} bytes"),
                    expected: "a shorter line",
                    at_end: false,
                }));
            }
            self.carry.extend_from_slice(piece);
            let taken = piece.len() + usize::from(end.is_some());
            self.source.consume(taken);
            self.bytes += taken as u64;
            if end.is_some() {
                let line = without_cr(&self.carry);
                return look(line).map(Some).map_err(|fault| refusal(line, fault, false));
            }
        }
    }
}

impl<R> Lines<R> {
    fn error(
        &self,
        kind: TraceErrorKind,
        line: u64,
        column: u64,
        found: String,
        expected: String,
    ) -> TraceError {
        TraceError { file: self.name.clone(), line, column, found, expected, kind }
    }

    /// An error behind the last line.
    fn error_after(&self, kind: TraceErrorKind, found: String, expected: String) -> TraceError {
        self.error(kind, self.number + 1, 1, found, expected)
    }

    #[cold]
    fn refused(&self, refusal: Refusal, format: Option<Format>, records: u64) -> TraceError {
        let expected = match refusal.kind {
            TraceErrorKind::Input => refusal.expected.to_owned(),
            _ => format!("{}; {}", refusal.expected, forms(format)),
        };
        let kind =
            if refusal.at_end && records > 0 { TraceErrorKind::Truncated } else { refusal.kind };
        self.error(kind, self.number, refusal.column as u64 + 1, refusal.found, expected)
    }
}

/// The first line of a buffer without its end, and its length with it; `None` if it does not end here or is too long.
#[inline]
fn first_line(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let window = buffer.get(..=TEXT_LINE_MAX).unwrap_or(buffer);
    let end = newline(window)?;
    Some((without_cr(window.get(..end)?), end + 1))
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const NEWLINES: u64 = u64::from_ne_bytes([b'\n'; 8]);

/// Where the first newline is. Eight bytes at a time, which makes the whole reader a fifth faster.
#[inline]
fn newline(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        // A byte of `x` is zero where the text has a newline; the lowest set bit of `hit` marks the first of them.
        let x = u64::from_le_bytes(*word) ^ NEWLINES;
        let hit = x.wrapping_sub(ONES) & !x & (ONES << 7);
        if hit != 0 {
            return Some(i * 8 + (hit.trailing_zeros() / 8) as usize);
        }
    }
    let tail = rest.iter().position(|byte| *byte == b'\n')?;
    Some(text.len() - rest.len() + tail)
}

#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The forms of the format, or of all.
fn forms(format: Option<Format>) -> String {
    match format {
        Some(format) => format!("{} lines are {}", format, format.row().forms),
        None => {
            let all: Vec<_> =
                FORMATS.iter().map(|row| format!("{} {}", row.name, row.forms)).collect();
            format!("the formats are {}", all.join("; "))
        }
    }
}

#[cold]
fn refusal(line: &[u8], fault: Fault, is_last: bool) -> Box<Refusal> {
    let text = line.get(fault.start..fault.end).unwrap_or_default();
    let found = match fault.found {
        Found::Text => show(text, is_last),
        Found::Wide => format!("{}, more than 64 bits", show(text, is_last)),
        Found::Backwards { before, now } => format!("cycle {now} after cycle {before}"),
        Found::Wraps => format!("size {}, which ends beyond 64 bits", show(text, is_last)),
        Found::Vector => format!("Ramulator's address vector {}", show(text, is_last)),
    };
    Box::new(Refusal {
        kind: TraceErrorKind::Record,
        column: fault.start,
        found,
        expected: fault.expected,
        at_end: is_last && fault.end == line.len(),
    })
}

/// Text as a message quotes it: a byte by its number where it is not printable text.
fn show(text: &[u8], is_last: bool) -> String {
    // Forty characters are shown, of at most four bytes each.
    let head = text.get(..160).unwrap_or(text);
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => head
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    };
    match (text.first(), valid.chars().next()) {
        (None, _) if is_last => "the end of the file".to_owned(),
        (None, _) => "the end of the line".to_owned(),
        (Some(b' ' | b'\t'), _) => "a blank".to_owned(),
        (Some(_), Some('\u{feff}')) => "a byte-order mark".to_owned(),
        (Some(0), _) => "a NUL byte".to_owned(),
        (Some(byte), None) => format!("byte {byte:#04x}"),
        (Some(byte), Some(first)) if first.is_control() => format!("byte {byte:#04x}"),
        (Some(_), Some(_)) => format!("`{}`", clip(valid)),
    }
}

/// A name or message on one line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
