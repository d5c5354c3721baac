//! The reader: records out of what was read, accesses out of records.

use super::champsim::{self, Flow, Instruction, OPERANDS_MAX, RECORD_BYTES};
use super::fast;
use super::format::{Access, FORMATS, Format, When};
use super::gem5;
use super::parse::{self, Fault, Found, Item};
use super::window::{Over, Window};
use arrayvec::ArrayVec;
use memchr::memchr;
use sim_core::Ps;
use sim_core::units::clip;
use std::fmt::{self, Display};
use std::io::Read;
use thiserror::Error;

/// Bytes that a line of text may have, its newline not counted. A longer one is refused when so much of it was read.
pub const TEXT_LINE_MAX: usize = 64 << 10;

/// Bytes that are looked at to tell ChampSim's records from anything else.
const DETECT_BYTES: usize = 4 << 10;

/// Which kind of thing went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TraceErrorKind {
    /// The file cannot be opened or read, or its packed data are damaged.
    Input,
    /// No record in it.
    Empty,
    /// A record that the form does not have.
    Record,
    /// The trace ends within a record, or its packed data end too soon, and at least one access was read before
    /// (verification.md §4.2 point 7: such a trace is accepted only when the user says so).
    Truncated,
}

/// A place in a trace, as errors name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Position {
    /// In a line of text.
    Line {
        /// The line, from 1.
        line: u64,
        /// The byte in the line, from 1; a byte-order mark is not counted.
        column: u64,
    },
    /// In a binary record.
    Record {
        /// The record, from 1; 0 is what stands before the first.
        record: u64,
        /// The byte in the unpacked trace, from 0.
        byte: u64,
    },
}

impl Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Position::Line { line, column } => write!(f, "{line}:{column}"),
            Position::Record { record: 0, byte } => write!(f, "header at byte {byte}"),
            Position::Record { record, byte } => write!(f, "record {record} at byte {byte}"),
        }
    }
}

/// Why a trace cannot be read: one line of text, `file:line:column: found X, expected Y` or
/// `file:record N at byte B: found X, expected Y`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{file}:{at}: found {found}, expected {expected}")]
pub struct TraceError {
    /// The trace's name, made printable.
    pub file: String,
    /// Where.
    pub at: Position,
    /// What was found.
    pub found: String,
    /// What the form has there, and its forms.
    pub expected: String,
    /// Which kind of error.
    pub kind: TraceErrorKind,
}

impl TraceError {
    /// The error of a trace of which nothing can be read.
    pub(super) fn input(name: &str, error: &std::io::Error) -> TraceError {
        TraceError {
            file: printable(name),
            at: Position::Line { line: 1, column: 1 },
            found: format!("an input error ({})", printable(&error.to_string())),
            expected: READABLE.to_owned(),
            kind: TraceErrorKind::Input,
        }
    }
}

const READABLE: &str = "a readable trace";

#[derive(Debug)]
enum State {
    Reading,
    Ended,
    Failed(Box<TraceError>),
}

/// What is known of a trace besides its form.
#[derive(Debug)]
enum Decoder {
    /// Lines; the cycle of the last record that had one.
    Text { cycle: u64 },
    /// ChampSim's records.
    Champsim(Box<Flow>),
    /// gem5's packets: ticks per second, 0 before the header, and the time of the last packet.
    Gem5 { freq: u64, time: Ps },
}

/// Reads the accesses of a trace one after the other, in constant memory.
#[derive(Debug)]
pub struct TraceReader<R> {
    window: Window<R>,
    format: Format,
    /// Whether [`fast`] may be asked: nothing is pending, and nothing has ended.
    is_quick: bool,
    decoder: Decoder,
    /// Lines, or binary records, that were read.
    line: u64,
    /// Where the last binary record starts.
    record_at: u64,
    records: u64,
    /// Accesses of the last record that are still to be handed out, the next one last.
    pending: ArrayVec<Access, OPERANDS_MAX>,
    state: State,
    name: String,
}

impl<R: Read> TraceReader<R> {
    /// Reads up to and including the first record. `name` is what errors call the trace. Without a form, the first bytes or
    /// the first line that says anything decide, as [`super::FORMATS`] says.
    ///
    /// # Errors
    /// [`TraceError`]: no record at all, or a record up to the first that is none of the form's.
    pub fn open(name: &str, source: R, format: Option<Format>) -> Result<Self, TraceError> {
        let mut window = Window::new(source);
        let mut known = format.or_else(|| detect_binary(&mut window));
        let decoder = match known {
            Some(Format::Champsim) => Decoder::Champsim(Flow::new()),
            Some(Format::Gem5) => Decoder::Gem5 { freq: 0, time: Ps::ZERO },
            _ => Decoder::Text { cycle: 0 },
        };
        let mut reader = TraceReader {
            window,
            format: known.unwrap_or(Format::Lackey),
            is_quick: false,
            decoder,
            line: 0,
            record_at: 0,
            records: 0,
            pending: ArrayVec::new(),
            state: State::Reading,
            name: printable(name),
        };
        match reader.read(&mut known) {
            Ok(true) => {
                reader.format = known.unwrap_or(reader.format);
                Ok(reader)
            }
            Ok(false) => {
                let what = if reader.window.used() == 0 { "an empty file" } else { "no record" };
                let expected = format!("a record; {}", forms(known));
                Err(reader.error_after(TraceErrorKind::Empty, what.to_owned(), expected))
            }
            Err(refusal) => Err(reader.refused(*refusal, known)),
        }
    }

    /// The next access; `None` at the end of the trace, and ever after. After an error, the same error.
    ///
    /// # Errors
    /// [`TraceError`]: a record that the form does not have, or an input that cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could be collected past its error"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Access>, TraceError> {
        if self.is_quick
            && let Decoder::Text { cycle } = &mut self.decoder
            && let Some((access, bytes)) = fast::record(self.format, self.window.rest(), *cycle)
        {
            if let When::Cycle(now) = access.when {
                *cycle = now;
            }
            self.window.take(bytes);
            self.line += 1;
            self.records += 1;
            return Ok(Some(access));
        }
        self.next_exact()
    }

    #[inline(never)]
    fn next_exact(&mut self) -> Result<Option<Access>, TraceError> {
        self.is_quick = false;
        if self.pending.is_empty() {
            match &self.state {
                State::Reading => {}
                State::Ended => return Ok(None),
                State::Failed(error) => return Err(TraceError::clone(error)),
            }
            let format = self.format;
            match self.read(&mut Some(format)) {
                Ok(true) => {}
                Ok(false) => {
                    self.state = State::Ended;
                    return Ok(None);
                }
                Err(refusal) => {
                    let error = self.refused(*refusal, Some(format));
                    self.state = State::Failed(Box::new(error.clone()));
                    return Err(error);
                }
            }
        }
        let access = self.pending.pop();
        self.records += u64::from(access.is_some());
        self.is_quick = self.pending.is_empty();
        Ok(access)
    }

    /// Reads on to the next record that has an access; `false` at the end.
    fn read(&mut self, known: &mut Option<Format>) -> Result<bool, Box<Refusal>> {
        match self.decoder {
            Decoder::Text { .. } => self.read_line(known),
            Decoder::Champsim(_) => self.read_instruction(),
            Decoder::Gem5 { .. } => self.read_packet(),
        }
    }

    fn read_line(&mut self, known: &mut Option<Format>) -> Result<bool, Box<Refusal>> {
        loop {
            let Some(Line { len, taken, is_last }) = self.line_ahead()? else { return Ok(false) };
            self.line += 1;
            let text = self.window.rest().get(..len).unwrap_or_default();
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let text = match text {
                [0xef, 0xbb, 0xbf, rest @ ..] if self.line == 1 => rest,
                _ => text,
            };
            let Decoder::Text { cycle } = &mut self.decoder else { return Ok(false) };
            let mut item = || {
                if known.is_none() {
                    *known = parse::detect(text)?;
                }
                known.map_or(Ok(Item::Skip), |format| parse::item(format, text, *cycle))
            };
            let item = item().map_err(|fault| refusal(text, fault, is_last))?;
            self.window.take(taken);
            match item {
                Item::Skip => continue,
                Item::Access(access) => {
                    if let When::Cycle(now) = access.when {
                        *cycle = now;
                    }
                    self.pending.push(access);
                }
                Item::Pair(first, second) => self.pending.extend([second, first]),
            }
            return Ok(true);
        }
    }

    /// The next line's extent, once all of it is there; `None` at the end.
    fn line_ahead(&mut self) -> Result<Option<Line>, Box<Refusal>> {
        loop {
            let rest = self.window.rest();
            // One byte more than a line may have, to see whether it ends just there.
            let view = rest.get(..=TEXT_LINE_MAX).unwrap_or(rest);
            if let Some(len) = memchr(b'\n', view) {
                return Ok(Some(Line { len, taken: len + 1, is_last: false }));
            }
            let len = view.len();
            if len > TEXT_LINE_MAX {
                self.line += 1;
                return Err(Box::new(Refusal {
                    kind: TraceErrorKind::Record,
                    at: TEXT_LINE_MAX as u64,
                    found: format!("a line of more than {TEXT_LINE_MAX} bytes"),
                    expected: "a shorter line".to_owned(),
                    at_end: false,
                }));
            }
            if !self.window.more() {
                self.check_input(len as u64)?;
                let is_last = true;
                return Ok((len > 0).then_some(Line { len, taken: len, is_last }));
            }
        }
    }

    /// After [`Window::more`] has said that there is no more: whether that is the end. `partial` bytes of a record are there.
    fn check_input(&mut self, partial: u64) -> Result<(), Box<Refusal>> {
        let Some(Over::Failed { text, at_end }) = self.window.over() else { return Ok(()) };
        let found =
            format!("an input error behind byte {} ({})", self.window.read(), printable(text));
        let at_end = *at_end;
        if matches!(self.decoder, Decoder::Text { .. }) {
            self.line += 1;
        }
        let kind = TraceErrorKind::Input;
        Err(Box::new(Refusal { kind, at: partial, found, expected: READABLE.to_owned(), at_end }))
    }

    fn read_instruction(&mut self) -> Result<bool, Box<Refusal>> {
        while self.begin_record(RECORD_BYTES, "an instruction of 64 bytes")? {
            let Some(record) = self.window.rest().first_chunk() else { return Ok(false) };
            let one = Instruction::decode(record).map_err(|fault| {
                let found = format!("{} {}", fault.name, fault.found);
                record_refusal(fault.at as u64, found, "0 or 1")
            })?;
            self.window.take(RECORD_BYTES);
            let Decoder::Champsim(flow) = &mut self.decoder else { return Ok(false) };
            let mut accesses = flow.step(&one, self.records);
            if !accesses.is_empty() {
                accesses.reverse();
                self.pending = accesses;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_packet(&mut self) -> Result<bool, Box<Refusal>> {
        if let Decoder::Gem5 { freq: 0, .. } = self.decoder {
            self.read_gem5_header()?;
        }
        while let Some((prefix, len)) = self.message("a Packet")? {
            let message = self.window.rest().get(prefix..prefix + len).unwrap_or_default();
            let Decoder::Gem5 { freq, time } = &mut self.decoder else { return Ok(false) };
            let access = gem5::packet(message, *freq, *time)
                .map_err(|fault| record_refusal(0, printable(&fault.found), fault.expected))?;
            self.window.take(prefix + len);
            if let Some(access) = access {
                if let When::Time(now) = access.when {
                    *time = now;
                }
                self.pending.push(access);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The magic and the header. An empty file is left for the caller to see.
    fn read_gem5_header(&mut self) -> Result<(), Box<Refusal>> {
        let magic = gem5::MAGIC.as_slice();
        if !self.window.fill(magic.len()) {
            self.check_input(self.window.rest().len() as u64)?;
            if self.window.rest().is_empty() {
                return Ok(());
            }
        }
        let start = self.window.rest().get(..magic.len()).unwrap_or(self.window.rest());
        if start != magic {
            let found = show(start, start.len() < magic.len());
            return Err(record_refusal(0, found, "the magic `gem5`"));
        }
        self.window.take(magic.len());
        self.record_at = magic.len() as u64;
        let header = "a PacketHeader";
        let message = self.message(header);
        // The header is no record.
        self.line = 0;
        let Some((prefix, len)) = message? else {
            return Err(record_refusal(0, "the end of the file".to_owned(), header));
        };
        let message = self.window.rest().get(prefix..prefix + len).unwrap_or_default();
        let ticks = gem5::header(message)
            .map_err(|fault| record_refusal(0, printable(&fault.found), fault.expected))?;
        self.window.take(prefix + len);
        if let Decoder::Gem5 { freq, .. } = &mut self.decoder {
            *freq = ticks;
        }
        Ok(())
    }

    /// A message behind its length, once all of it is there: the bytes of the length and of the message. `None` at the end.
    fn message(&mut self, what: &str) -> Result<Option<(usize, usize)>, Box<Refusal>> {
        if !self.begin_record(1, what)? {
            return Ok(None);
        }
        // Fewer are enough for most lengths, and all that there may be at the end.
        let _ = self.window.fill(gem5::LENGTH_MAX);
        let mut rest = self.window.rest();
        let before = rest.len();
        let decoded = prost::decode_length_delimiter(&mut rest);
        let prefix = before - rest.len();
        let len = match decoded {
            Ok(len) if len <= gem5::MESSAGE_MAX => len,
            Ok(len) => {
                let found = format!("a message of {len} bytes");
                return Err(record_refusal(0, found, "a message of at most 65536 bytes"));
            }
            Err(_) if before < gem5::LENGTH_MAX => return Err(self.cut(before, what)),
            Err(error) => {
                let found = printable(&error.to_string());
                return Err(record_refusal(0, found, "the length of a message"));
            }
        };
        if !self.window.fill(prefix + len) {
            let there = self.window.rest().len();
            return Err(self.cut(there, what));
        }
        Ok(Some((prefix, len)))
    }

    /// Begins a binary record, of which so many bytes must be there; `false` at the end.
    fn begin_record(&mut self, bytes: usize, what: &str) -> Result<bool, Box<Refusal>> {
        let is_there = self.window.fill(bytes);
        let there = self.window.rest().len();
        if !is_there && there == 0 && self.window.over() == Some(&Over::End) {
            return Ok(false);
        }
        self.record_at = self.window.used();
        self.line += 1;
        if is_there { Ok(true) } else { Err(self.cut(there, what)) }
    }

    /// A record that is cut by the end or by an error of the input.
    fn cut(&mut self, there: usize, what: &str) -> Box<Refusal> {
        if let Err(refusal) = self.check_input(there as u64) {
            return refusal;
        }
        let found = format!("the end of the file after {there} bytes of it");
        let mut refusal = record_refusal(0, found, what);
        refusal.at_end = true;
        refusal
    }
}

impl<R> TraceReader<R> {
    /// How many accesses [`TraceReader::next`] has handed out.
    pub const fn records(&self) -> u64 {
        self.records
    }
    /// The trace's form, given or found.
    pub const fn format(&self) -> Format {
        self.format
    }
    /// How many lines, or binary records, were read; right after an access, the number of its own.
    pub const fn line(&self) -> u64 {
        self.line
    }
    /// An error of the access just handed out, for a caller who cannot use it: an address beyond memory, say.
    pub fn refuse(&self, found: impl Display, expected: impl Display) -> TraceError {
        let (found, expected) = (found.to_string(), expected.to_string());
        self.error(TraceErrorKind::Record, self.position(0), found, expected)
    }

    /// So many bytes into the last line or record.
    const fn position(&self, bytes: u64) -> Position {
        match self.decoder {
            Decoder::Text { .. } => Position::Line { line: self.line, column: bytes + 1 },
            _ => Position::Record { record: self.line, byte: self.record_at + bytes },
        }
    }

    fn error(
        &self,
        kind: TraceErrorKind,
        at: Position,
        found: String,
        expected: String,
    ) -> TraceError {
        TraceError { file: self.name.clone(), at, found, expected, kind }
    }

    /// An error behind the last line or record.
    fn error_after(&self, kind: TraceErrorKind, found: String, expected: String) -> TraceError {
        let next = self.line + 1;
        let at = match self.decoder {
            Decoder::Text { .. } => Position::Line { line: next, column: 1 },
            _ => Position::Record { record: next, byte: self.window.used() },
        };
        self.error(kind, at, found, expected)
    }

    #[cold]
    fn refused(&self, refusal: Refusal, format: Option<Format>) -> TraceError {
        let expected = match refusal.kind {
            TraceErrorKind::Input => refusal.expected,
            _ => format!("{}; {}", refusal.expected, forms(format)),
        };
        let is_cut = refusal.at_end && self.records > 0;
        let kind = if is_cut { TraceErrorKind::Truncated } else { refusal.kind };
        self.error(kind, self.position(refusal.at), refusal.found, expected)
    }
}

#[cfg(test)]
impl<R> TraceReader<R> {
    /// How many bytes the reader has allocated for what it reads.
    pub(super) fn buffer_capacity(&self) -> usize {
        self.window.capacity()
    }
}

/// A line in the window.
struct Line {
    /// Its bytes without its newline.
    len: usize,
    /// Its bytes with it.
    taken: usize,
    /// Whether it has none.
    is_last: bool,
}

/// Why no record was read. The place is that of the line or record just begun.
#[derive(Debug)]
struct Refusal {
    kind: TraceErrorKind,
    /// Bytes from its start.
    at: u64,
    found: String,
    expected: String,
    /// Whether the trace ends within it.
    at_end: bool,
}

#[cold]
fn record_refusal(at: u64, found: String, expected: &str) -> Box<Refusal> {
    let kind = TraceErrorKind::Record;
    Box::new(Refusal { kind, at, found, expected: expected.to_owned(), at_end: false })
}

/// The binary form that the first bytes are, if any.
fn detect_binary<R: Read>(window: &mut Window<R>) -> Option<Format> {
    // Enough to tell bytes from text; a line of text may be all that comes for a while.
    let _ = window.fill(gem5::MAGIC.len());
    if window.rest().starts_with(gem5::MAGIC) {
        return Some(Format::Gem5);
    }
    let _ = window.fill(10);
    if !matches!(window.rest(), [_, _, _, _, _, _, _, 0 | 0xff, 0 | 1, 0 | 1, ..]) {
        return None;
    }
    let _ = window.fill(DETECT_BYTES);
    let bytes = window.rest();
    let bytes = bytes.get(..DETECT_BYTES).unwrap_or(bytes);
    champsim::is_likely(bytes).then_some(Format::Champsim)
}

/// The forms of the form, or of all.
fn forms(format: Option<Format>) -> String {
    match format.map(Format::row) {
        Some(row) => {
            let what = if row.is_binary() { "records" } else { "lines" };
            format!("{} {what} are {}", row.name, row.forms)
        }
        None => {
            let all: Vec<_> =
                FORMATS.iter().map(|row| format!("{} {}", row.name, row.forms)).collect();
            format!("the forms are {}", all.join("; "))
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
    };
    Box::new(Refusal {
        kind: TraceErrorKind::Record,
        at: fault.start as u64,
        found,
        expected: fault.expected.to_owned(),
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
