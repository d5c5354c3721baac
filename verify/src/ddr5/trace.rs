//! Reads a command trace as text, one line at a time, in memory that does not grow with it. The grammar is in the
//! [module's page](super).

use super::command::Record;
use super::rules::Rules;
use std::io::{self, BufRead, Read};

/// The first line.
pub const VERSION: &str = "# tdxsim command trace 1";
/// How the second line begins.
pub(super) const RULES: &str = "# rules:";
/// How the last line begins.
pub const END: &str = "# end ";
/// A line may be this long, in bytes.
pub const LONGEST: usize = 4096;

/// Where a line is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: found {found}, expected {expected}")]
pub struct Fault {
    /// Counted from 1, in bytes.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line that is not of the grammar.
    #[error("line {line}, {fault}")]
    Syntax {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The trace cannot be read on.
    #[error("line {line}: {error}")]
    Io {
        /// The line that was to be read, counted from 1.
        line: u64,
        /// Why.
        error: io::Error,
    },
}

/// Reads a line from left to right.
pub(super) struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(line: &'a [u8]) -> Cursor<'a> {
        Cursor { line, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or(&[])
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.line.len());
    }

    pub(super) fn blanks(&mut self) {
        let n = self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.skip(n);
    }

    /// The word that begins here, up to a blank.
    pub(super) fn peek(&self) -> &'a [u8] {
        let rest = self.rest();
        let n = rest.iter().take_while(|b| !matches!(b, b' ' | b'\t')).count();
        rest.get(..n).unwrap_or(&[])
    }

    /// That something else was expected here.
    pub(super) fn fault(&self, expected: &str) -> Fault {
        let word = self.peek();
        // A blank is shown as itself, a comment as a whole.
        let word = match word {
            [] => self.rest().get(..1).unwrap_or(&[]),
            [b'#', ..] => self.rest(),
            word => word,
        };
        let found = if word.is_empty() {
            "the end of the line".to_owned()
        } else {
            let shown: String = String::from_utf8_lossy(word).chars().take(32).collect();
            format!("{shown:?}")
        };
        Fault { column: self.at + 1, found, expected: expected.to_owned() }
    }

    pub(super) fn space(&mut self, expected: &str) -> Result<(), Fault> {
        let from = self.at;
        self.blanks();
        if self.at == from || self.rest().is_empty() { Err(self.fault(expected)) } else { Ok(()) }
    }

    pub(super) fn byte(&mut self, byte: u8, expected: &str) -> Result<(), Fault> {
        if self.rest().first() == Some(&byte) {
            self.skip(1);
            Ok(())
        } else {
            Err(self.fault(expected))
        }
    }

    /// Digits of this base, at most `max`.
    fn digits(&mut self, base: u64, max: u64, expected: &str) -> Result<u64, Fault> {
        let mut value: u64 = 0;
        let mut n = 0;
        for &b in self.rest() {
            let digit = match b {
                b'0'..=b'9' => u64::from(b - b'0'),
                b'a'..=b'f' if base == 16 => u64::from(b - b'a') + 10,
                b'A'..=b'F' if base == 16 => u64::from(b - b'A') + 10,
                _ => break,
            };
            let next = value.checked_mul(base).and_then(|v| v.checked_add(digit));
            value = next.filter(|v| *v <= max).ok_or_else(|| self.fault(expected))?;
            n += 1;
        }
        if n == 0 {
            return Err(self.fault(expected));
        }
        self.skip(n);
        Ok(value)
    }

    pub(super) fn decimal(&mut self, max: u64, expected: &str) -> Result<u64, Fault> {
        let zero = self.rest().first() == Some(&b'0');
        if zero && self.rest().get(1).is_some_and(u8::is_ascii_digit) {
            return Err(self.fault(&format!("{expected}, without leading zeros")));
        }
        self.digits(10, max, expected)
    }

    /// Decimal, or hexadecimal after `0x`.
    pub(super) fn number(&mut self, max: u64, expected: &str) -> Result<u64, Fault> {
        match self.rest() {
            [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => {
                self.skip(2);
                self.digits(16, max, expected)
            }
            _ => self.decimal(max, expected),
        }
    }

    pub(super) fn word<T>(
        &mut self,
        read: impl Fn(&[u8]) -> Option<T>,
        expected: &str,
    ) -> Result<T, Fault> {
        let word = self.peek();
        let value = read(word).ok_or_else(|| self.fault(expected))?;
        self.skip(word.len());
        Ok(value)
    }

    pub(super) fn end(&mut self, expected: &str) -> Result<(), Fault> {
        self.blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(self.fault(expected)) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest().is_empty()
    }
}

/// A trace that is being read: an iterator over its commands.
///
/// After the first error nothing more comes.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    rules: Rules,
    buffer: Vec<u8>,
    line: u64,
    end: Option<u64>,
    done: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first two lines.
    ///
    /// # Errors
    /// When they are not those of a command trace, or the rules are not possible.
    pub fn new(input: R) -> Result<Reader<R>, TraceError> {
        let (buffer, rules) = (Vec::with_capacity(256), Rules::NONE);
        let mut reader = Reader { input, rules, buffer, line: 0, end: None, done: false };
        reader.next_line()?;
        if reader.buffer != VERSION.as_bytes() {
            let fault = Cursor::new(&reader.buffer).fault(&format!("the line {VERSION:?}"));
            return Err(reader.syntax(fault));
        }
        let there = reader.next_line()?;
        let Some(text) = reader.buffer.strip_prefix(RULES.as_bytes()).filter(|_| there) else {
            let fault = Cursor::new(&reader.buffer).fault(&format!("{RULES:?} and the rules"));
            return Err(reader.syntax(fault));
        };
        reader.rules = Rules::parse(text).map_err(|mut fault| {
            fault.column += RULES.len();
            reader.syntax(fault)
        })?;
        Ok(reader)
    }

    /// The rules that the trace says it keeps.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }
    /// The clock at which the run ended; known once everything was read, if the trace says it.
    pub const fn end(&self) -> Option<u64> {
        self.end
    }
    /// The line that was read last, counted from 1.
    pub const fn line(&self) -> u64 {
        self.line
    }

    const fn syntax(&self, fault: Fault) -> TraceError {
        TraceError::Syntax { line: self.line, fault }
    }

    /// The next line without its end is in the buffer; `false` at the end of the input.
    fn next_line(&mut self) -> Result<bool, TraceError> {
        self.buffer.clear();
        self.line += 1;
        let mut input = (&mut self.input).take(LONGEST as u64 + 1);
        let read = input.read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|error| TraceError::Io { line: self.line, error })?;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if read > LONGEST {
            let found = "a longer line".to_owned();
            let expected = format!("a line of at most {LONGEST} bytes");
            return Err(self.syntax(Fault { column: LONGEST + 1, found, expected }));
        }
        Ok(read > 0)
    }

    fn step(&mut self) -> Result<Option<Record>, TraceError> {
        while self.next_line()? {
            if self.end.is_some() {
                let blank = self.buffer.iter().all(u8::is_ascii_whitespace);
                let fault = Cursor::new(&self.buffer).fault("nothing after the end");
                if !blank {
                    return Err(self.syntax(fault));
                }
            } else if let Some(clock) = self.buffer.strip_prefix(END.as_bytes()) {
                let mut cursor = Cursor::new(clock);
                let read = cursor.decimal(u64::MAX >> 1, "the clock of the end");
                let read = read.and_then(|c| cursor.end("the end of the line").map(|()| c));
                self.end = Some(read.map_err(|mut fault| {
                    fault.column += END.len();
                    self.syntax(fault)
                })?);
            } else if self.buffer.starts_with(RULES.as_bytes()) {
                let fault = Cursor::new(&self.buffer).fault("the rules only once, in line 2");
                return Err(self.syntax(fault));
            } else if self.buffer.first() == Some(&b'#') || self.buffer.is_empty() {
                continue;
            } else {
                let record = Record::parse(&self.buffer).map_err(|fault| self.syntax(fault))?;
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, TraceError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.step();
        self.done = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// The two lines that a trace begins with.
pub fn head(rules: &Rules) -> String {
    format!("{VERSION}\n{RULES} {rules}\n")
}

/// The line that a trace ends with.
pub fn tail(clock: u64) -> String {
    format!("{END}{clock}\n")
}
