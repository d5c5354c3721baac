//! Memory traces of other tools, read for `tdxsim replay` and `tdxsim dram`.
//!
//! [`FORMATS`] says which forms there are, what each record holds and what tells a form from the others. A trace may be
//! plain, gzip or xz, which its first bytes say ([`Source`]). Reading streams: one buffer, whatever the trace's length, and
//! no allocation per record (peers.md §4 lesson 12). A record that a form does not have is an error at `file:line:column`, or
//! at a record's number and byte where the form is binary, never a guess (verification.md §4.2 points 1, 2 and 7; DRAMsim3
//! reads an unknown operation as a read, and its end of file as one more; Ramulator crashes on an empty file: §4.1).
//!
//! What holds for every form of text:
//! - Blank lines and lines whose first visible character is `#` are skipped, and what stands behind the `#` is not
//!   looked at. A trace without any record is an error.
//! - Spaces and tabs around a record are allowed; so are CRLF line ends and one UTF-8 byte-order mark at the very start.
//!   Any other byte that a record does not have is an error, NUL and non-UTF-8 bytes among them.
//! - A line has at most [`TEXT_LINE_MAX`] bytes.
//! - A last line without a newline counts if it is a whole record. If it was cut within its last number, nobody can see
//!   that; if it was cut before, the error's kind is [`TraceErrorKind::Truncated`].
//!
//! Two parsers read text: `fast` takes the plain records of the forms that matter for speed and hands whatever it does not
//! know to `parse`, which reads everything and alone says what is wrong. A property test holds that they never differ.

mod champsim;
mod fast;
mod format;
mod gem5;
mod parse;
mod read;
mod source;
mod window;

#[cfg(test)]
mod tests;

pub use format::{
    ACCESS_BYTES_MAX, Access, AccessKind, Addresses, DramPlace, FORMATS, Format, FormatParseError,
    FormatRow, TRANSACTION_BYTES, When, Word, formats_markdown,
};
pub use gem5::{COMMANDS as GEM5_COMMANDS, CommandRow as Gem5CommandRow, commands_markdown};
pub use read::{Position, TEXT_LINE_MAX, TraceError, TraceErrorKind, TraceReader};
pub use source::{Packing, Source, XZ_MEMORY_KIB, open_path, open_read};
