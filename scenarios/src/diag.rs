//! Bad input: one error type for every platform and scenario file, and the checked way from bytes to text.
//!
//! Whatever is wrong with a file is said in one line, `file:line:column: found X, expected Y`
//! (verification.md §4.2 points 1 and 2). What a [`SourceFile`] accepts, refuses and silently skips is the table
//! [`BYTES_RULES`].

pub(crate) mod envelope;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;
use thiserror::Error;

/// What is wrong with an input file, where, and what would be right.
///
/// Prints as one line without control characters, whatever the input holds. The parts are read through [`Fault`], to
/// which it dereferences.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
#[error("{}:{}:{}: found {}, expected {}", .0.file, .0.line, .0.column, .0.found, .0.expected)]
pub struct Diag(Box<Fault>);

/// The parts of a [`Diag`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// Name of the file as the user gave it; `--set` or `--platform` for text of the command line.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters (not bytes), from 1.
    pub column: u32,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
    /// The line itself, or the part of a long one around the trouble.
    pub excerpt: Excerpt,
    /// What to do, where that is not obvious.
    pub help: Option<String>,
}

/// A piece of one line of the file, and the part of it that is meant.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Excerpt {
    /// The text; control characters are replaced, one for one.
    pub text: String,
    /// First byte of `text` that is meant.
    pub start: usize,
    /// How many bytes are meant; 0 at the end of a line.
    pub len: usize,
}

impl Deref for Diag {
    type Target = Fault;
    fn deref(&self) -> &Fault {
        &self.0
    }
}

impl Diag {
    /// The same with a word of advice.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Diag {
        self.0.help = Some(one_line(&help.into()));
        self
    }

    /// The same place with another message.
    pub(crate) fn reworded(&self, found: &str, expected: &str) -> Diag {
        let mut diag = self.clone();
        diag.0.found = one_line(found);
        diag.0.expected = one_line(expected);
        diag
    }

    /// Several lines for people: the message, the line of the file and a mark below what is meant.
    pub fn render(&self) -> String {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let before = self.excerpt.text.get(..self.excerpt.start).unwrap_or("");
        let marked = self.excerpt.text.get(self.excerpt.start..).unwrap_or("");
        let marked = marked.get(..self.excerpt.len).unwrap_or("");
        let mut out = format!(
            "error: found {}, expected {}\n{gutter}--> {}:{}:{}\n{gutter} |\n{number} | {}\n{gutter} | {}{}\n",
            self.found,
            self.expected,
            self.file,
            self.line,
            self.column,
            self.excerpt.text,
            " ".repeat(before.chars().count()),
            "^".repeat(marked.chars().count().max(1)),
        );
        if let Some(help) = &self.help {
            out.push_str(&format!("{gutter} = help: {help}\n"));
        }
        out
    }
}

/// One row of the table that says what becomes of unusual bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BytesRule {
    /// What the file has.
    pub input: &'static str,
    /// What happens.
    pub outcome: &'static str,
    /// Where the rule comes from.
    pub cite: &'static str,
}

const fn rule(input: &'static str, outcome: &'static str, cite: &'static str) -> BytesRule {
    BytesRule { input, outcome, cite }
}

/// What [`SourceFile::from_bytes`] does with unusual bytes.
#[rustfmt::skip]
pub const BYTES_RULES: &[BytesRule] = &[
    rule("no bytes, or a BOM alone",            "refused at 1:1",                               "verification.md §4.2 point 2"),
    rule("UTF-8 byte order mark at the start",  "skipped; columns count from the byte after it", "verification.md §4.2 point 2"),
    rule("a second byte order mark",            "refused",                                      "TOML's own reader would skip it without a word"),
    rule("CRLF line ends",                      "read as LF; columns are the same",             "verification.md §4.2 point 2"),
    rule("CR without LF",                       "refused where it stands",                      "TOML 1.1 has no such line end"),
    rule("a NUL byte",                          "refused where it stands",                      "verification.md §4.2 point 2"),
    rule("bytes that are not UTF-8",            "refused at the first such byte",               "verification.md §4.2 point 2"),
    rule("a line of more than 1 MiB",           "refused at its end",                           "verification.md §4.2 point 2"),
    rule("more than 16 MiB",                    "refused; no more than that is read",           "verification.md §4.2 point 1"),
    rule("more than 200000 lines",              "refused at the first line too many",           "verification.md §4.2 point 1: bounds the memory of the TOML tree"),
    rule("more than 400000 of the characters `,` `[` `.`", "refused at the first one too many", "verification.md §4.2 point 1: bounds the memory of the TOML tree"),
];

/// [`BYTES_RULES`] as a table of the manual.
pub fn bytes_rules_markdown() -> String {
    let mut out = "| input | what happens | source |\n|---|---|---|\n".to_owned();
    for r in BYTES_RULES {
        out.push_str(&format!("| {} | {} | {} |\n", r.input, r.outcome, r.cite));
    }
    out
}

/// A platform or scenario file as text, checked against [`BYTES_RULES`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFile {
    name: String,
    text: String,
    /// Byte offset at which each line starts; never empty.
    lines: Vec<usize>,
}

impl SourceFile {
    /// The largest file that is read, in bytes.
    pub const BYTES_MAX: usize = 16 << 20;
    /// The longest line, in bytes.
    pub const LINE_BYTES_MAX: usize = 1 << 20;
    /// The most lines.
    pub const LINES_MAX: usize = 200_000;
    /// The most of the characters `,` `[` `.` together: without them, no list, table or dotted key grows.
    pub const ITEMS_MAX: usize = 400_000;

    /// Text that is known to be small and well formed: embedded files and words of the command line.
    pub(crate) fn unchecked(name: &str, text: &str) -> SourceFile {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        SourceFile { name: one_line(name), text: text.to_owned(), lines }
    }

    /// Takes the bytes of a file by the rules of [`BYTES_RULES`].
    ///
    /// # Errors
    /// The first rule broken, at the place where it is.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<SourceFile, Diag> {
        let at_start = |found: &str, expected: &str| {
            SourceFile::unchecked(name, "").diag(0..0, found, expected)
        };
        if bytes.len() > Self::BYTES_MAX {
            return Err(at_start("more than 16 MiB", "a file of at most 16 MiB"));
        }
        let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if body.starts_with(b"\xef\xbb\xbf") {
            return Err(at_start("a second byte order mark", "at most one"));
        }
        if body.is_empty() {
            return Err(at_start("an empty file", "TOML text"));
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(e) => {
                let at = e.valid_up_to();
                let byte = body.get(at).copied().unwrap_or_default();
                // The message quotes the line, so the bytes around the bad one are made printable first.
                let line_end = body.iter().skip(at).position(|b| *b == b'\n');
                let shown = body.get(..line_end.map_or(body.len(), |n| at + n)).unwrap_or(body);
                let diag = SourceFile::unchecked(name, &String::from_utf8_lossy(shown)).diag(
                    at..at,
                    format!("byte {byte:#04x}, which is not UTF-8"),
                    "UTF-8 text",
                );
                let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
                return Err(if utf16 {
                    diag.with_help("the file looks like UTF-16")
                } else {
                    diag
                });
            }
        };
        let source = SourceFile::unchecked(name, text);
        source.check()?;
        Ok(source)
    }

    fn check(&self) -> Result<(), Diag> {
        if let Some(at) = self.text.bytes().position(|b| b == 0) {
            return Err(self.diag(at..at + 1, "a NUL byte", "text"));
        }
        let mut items =
            self.text.bytes().enumerate().filter(|(_, b)| matches!(b, b',' | b'[' | b'.'));
        if let Some((at, _)) = items.nth(Self::ITEMS_MAX) {
            let expected = format!("at most {} of `,` `[` `.`", Self::ITEMS_MAX);
            return Err(self.diag(at..at + 1, "one list item too many", expected));
        }
        if let Some(&at) = self.lines.get(Self::LINES_MAX) {
            let expected = format!("at most {} lines", Self::LINES_MAX);
            return Err(self.diag(at..at, "one line too many", expected));
        }
        let ends = self.lines.iter().skip(1).map(|next| next - 1);
        let ends = ends.chain(std::iter::once(self.text.len()));
        for (start, end) in self.lines.iter().zip(ends) {
            if end - start > Self::LINE_BYTES_MAX {
                let found = format!("a line of {} bytes", end - start);
                return Err(self.diag(end..end, found, "lines of at most 1 MiB"));
            }
        }
        Ok(())
    }

    /// Reads a file, but never more than [`SourceFile::BYTES_MAX`] bytes of it.
    ///
    /// # Errors
    /// The reader's own, or those of [`SourceFile::from_bytes`].
    pub fn read_limited(name: &str, reader: impl Read) -> Result<SourceFile, Diag> {
        let mut bytes = Vec::new();
        match reader.take(Self::BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) => SourceFile::from_bytes(name, &bytes),
            Err(e) => Err(unreadable(name, &e)),
        }
    }

    /// Opens and reads a file.
    ///
    /// # Errors
    /// Those of the file system, or those of [`SourceFile::from_bytes`].
    pub fn open(path: &Path) -> Result<SourceFile, Diag> {
        let name = path.to_string_lossy();
        let file = std::fs::File::open(path).map_err(|e| unreadable(&name, &e))?;
        SourceFile::read_limited(&name, file)
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text, without byte order mark.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column, both from 1, of a byte of the text. The column counts characters; offsets within a character
    /// or beyond the end are taken back to the one before.
    pub fn line_column(&self, offset: usize) -> (u32, u32) {
        let (line, start, offset) = self.locate(offset);
        let column = self.text.get(start..offset).map_or(0, |t| t.chars().count());
        (line as u32 + 1, column as u32 + 1)
    }

    /// Line from 0, its first byte, and the offset moved to the start of a character.
    fn locate(&self, offset: usize) -> (usize, usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= offset).saturating_sub(1);
        (line, self.lines.get(line).copied().unwrap_or(0), offset)
    }

    /// What is wrong with the bytes `span` of this text.
    pub fn diag(
        &self,
        span: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Diag {
        let (_, start, offset) = self.locate(span.start);
        let (line, column) = self.line_column(span.start);
        Diag(Box::new(Fault {
            file: self.name.clone(),
            line,
            column,
            found: one_line(&found.into()),
            expected: one_line(&expected.into()),
            excerpt: self.excerpt(start, offset, span.end),
            help: None,
        }))
    }

    /// The line from `start`, at most 60 characters before `from` and 100 after it.
    fn excerpt(&self, start: usize, from: usize, to: usize) -> Excerpt {
        let before = self.text.get(start..from).unwrap_or("");
        let skip = before.chars().count().saturating_sub(60);
        let before: String = before.chars().skip(skip).map(printable).collect();
        let rest = self.text.get(from..).unwrap_or("").split('\n').next().unwrap_or("");
        let rest = rest.strip_suffix('\r').unwrap_or(rest);
        let after: String = rest.chars().take(100).map(printable).collect();
        let meant = self.text.get(from..self.text.floor_char_boundary(to)).unwrap_or("");
        let meant = meant.chars().take_while(|c| *c != '\n' && *c != '\r').count();
        let len = after.chars().take(meant).map(char::len_utf8).sum();
        Excerpt { start: before.len(), len, text: before + &after }
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Diag {
    let found = format!("a file that cannot be read ({error})");
    SourceFile::unchecked(name, "").diag(0..0, found, "a readable file")
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Text that cannot break a message of one line.
fn one_line(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// The candidate that was probably meant by a misspelt word: the nearest, within two edits.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > 60 {
        return None;
    }
    candidates
        .into_iter()
        .map(|c| (edits(word.as_bytes(), c.as_bytes()), c))
        .min()
        .filter(|(n, c)| *n <= 2 && *n < c.len())
        .map(|(_, c)| c)
}

/// Levenshtein's distance.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, pair) in b.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
