//! Memory traces of other tools, read for `tdxsim replay`.
//!
//! Three text formats, plain or gzip: [`FORMATS`] says which lines each has. Reading streams: one buffer, whatever the
//! trace's length, and no allocation per record (peers.md §4 lesson 12). A line that a format does not have is an error
//! at `file:line:column`, never a guess (verification.md §4.2 points 1, 2 and 7; DRAMsim3 reads an unknown operation as a
//! read, Ramulator crashes on an empty file: §4.1).
//!
//! What holds for every format:
//! - Blank lines and lines whose first visible character is `#` are skipped, and what stands behind the `#` is not
//!   looked at. A trace without any record is an error.
//! - Spaces and tabs around a record are allowed; so are CRLF line ends and one UTF-8 byte-order mark at the very start.
//!   Any other byte that a record does not have is an error, NUL and non-UTF-8 bytes among them.
//! - A line has at most [`TEXT_LINE_MAX`] bytes.
//! - A last line without a newline counts if it is a whole record. If it was cut within its last number, nobody can see
//!   that; if it was cut before, the error's kind is [`TraceErrorKind::Truncated`].

mod format;
mod parse;
mod read;
mod source;

#[cfg(test)]
mod tests;

pub use format::{
    ACCESS_BYTES_MAX, Access, AccessKind, FORMATS, Format, FormatParseError, FormatRow,
    TRANSACTION_BYTES, Word, formats_markdown,
};
pub use read::{TEXT_LINE_MAX, TraceError, TraceErrorKind, TraceReader};
pub use source::{Source, open_path, open_read};
