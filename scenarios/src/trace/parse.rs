//! One line of text to one record. Works on bytes, allocates nothing, and says where and why a line is refused.

use super::format::{ACCESS_BYTES_MAX, Access, AccessKind, Format, TRANSACTION_BYTES, Word};

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A record.
    Access(Access),
    /// Nothing: blank, a comment, or a line of Valgrind's own.
    Skip,
}

/// What was found in a line instead of what its format has there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The text itself, or the end of the line.
    Text,
    /// A number that 64 bits do not hold.
    Wide,
    /// A cycle below that of an earlier record.
    Backwards {
        /// The earlier record's.
        before: u64,
        /// This record's.
        now: u64,
    },
    /// An access whose end 64 bits do not hold.
    Wraps,
    /// A record of Ramulator's `ReadWriteTrace`.
    Vector,
}

/// Why a line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// Where what was found starts: bytes from the start of the line.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// What was found.
    pub(super) found: Found,
    /// What was expected instead.
    pub(super) expected: &'static str,
}

/// The value of each byte as a digit; 255 where it is none.
const DIGITS: [u8; 256] = {
    let mut table = [255; 256];
    let mut i: u8 = 0;
    while i < 16 {
        let digit = b"0123456789abcdef"[i as usize];
        table[digit as usize] = i;
        table[digit.to_ascii_uppercase() as usize] = i;
        i += 1;
    }
    table
};

/// Whether a byte is a letter, a digit or an underscore.
const IN_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        byte -= 1;
    }
    table
};

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The value of digits, if 64 bits hold it.
#[cold]
fn checked(digits: &[u8], radix: u8) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = DIGITS[usize::from(*byte)];
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    const fn new(text: &'a [u8]) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Steps over spaces and tabs; whether there were any.
    #[inline]
    fn blanks(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
        self.at != start
    }

    /// Steps over `byte` if it is next.
    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Steps over letters, digits and underscores; what [`Word::pack`] makes of them.
    #[inline]
    fn word(&mut self) -> u64 {
        let start = self.at;
        let mut key = 0;
        while let Some(byte) = self.peek() {
            if !IN_WORD[usize::from(byte)] {
                break;
            }
            key = key << 8 | u64::from(byte);
            self.at += 1;
        }
        if self.at - start > 8 { 0 } else { key }
    }

    /// Reads digits. At least one, and at most 64 bits of value; leading zeros do not count.
    #[inline]
    fn number<const RADIX: u8>(&mut self, expected: &'static str) -> Result<u64, Fault> {
        let start = self.at;
        let mut value = 0u64;
        while let Some(byte) = self.peek() {
            let digit = DIGITS[usize::from(byte)];
            if digit >= RADIX {
                break;
            }
            value = value.wrapping_mul(u64::from(RADIX)).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        let len = self.at - start;
        if len == 0 {
            Err(self.here(expected))
        } else if len > (if RADIX == 16 { 16 } else { 19 }) {
            // So many digits may have wrapped.
            let digits = self.text.get(start..self.at).unwrap_or_default();
            checked(digits, RADIX).ok_or_else(|| self.since(start, Found::Wide, expected))
        } else {
            Ok(value)
        }
    }

    /// Steps over `0x` or `0X` if it is next; whether it was.
    #[inline]
    fn hex_prefix(&mut self) -> bool {
        let next = matches!(self.text.get(self.at..), Some([b'0', b'x' | b'X', ..]));
        self.at += 2 * usize::from(next);
        next
    }

    /// Nothing but blanks up to the end.
    #[inline]
    fn end(&mut self, expected: &'static str) -> Result<(), Fault> {
        let solid = self.peek();
        self.blanks();
        match self.peek() {
            None => Ok(()),
            // Right behind a number, more of the number is what was expected.
            Some(_) if solid.is_some_and(|byte| !is_blank(byte)) => Err(self.here(expected)),
            Some(_) => Err(self.here("the end of the line")),
        }
    }

    /// A fault at this place, of the text up to the next blank or comma.
    #[cold]
    fn here(&self, expected: &'static str) -> Fault {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let solid =
            rest.iter().position(|byte| is_blank(*byte) || *byte == b',').unwrap_or(rest.len());
        // A blank or a comma at this very place is itself what was found.
        let len = solid.max(usize::from(!rest.is_empty()));
        Fault { start: self.at, end: self.at + len, found: Found::Text, expected }
    }

    /// A fault of the text from `start` to this place.
    #[cold]
    fn since(&self, start: usize, found: Found, expected: &'static str) -> Fault {
        Fault { start, end: self.at, found, expected }
    }
}

/// Reads a line of a format. `text` is without its line end; `cycle` is that of the record before.
///
/// # Errors
/// Where and why the format has no such line.
#[inline]
pub(super) fn item(format: Format, text: &[u8], cycle: u64) -> Result<Item, Fault> {
    let mut cursor = Cursor::new(text);
    cursor.blanks();
    match cursor.peek() {
        None | Some(b'#') => return Ok(Item::Skip),
        Some(_) => {}
    }
    match format {
        Format::Lackey => lackey(&mut cursor),
        Format::Ramulator => ramulator(&mut cursor),
        Format::Dramsim3 => dramsim3(&mut cursor, cycle),
    }
}

/// Finds out which format has such a line; `None` for a line that says nothing.
///
/// # Errors
/// No format has.
pub(super) fn detect(text: &[u8]) -> Result<Option<Format>, Fault> {
    let mut cursor = Cursor::new(text);
    cursor.blanks();
    match cursor.peek() {
        None | Some(b'#') => return Ok(None),
        Some(b'=' | b'-' | b'*') if valgrind(&mut Cursor::new(text)).is_ok() => {
            return Ok(Some(Format::Lackey));
        }
        Some(_) => {}
    }
    let start = cursor.at;
    let key = cursor.word();
    if Format::Lackey.row().kind(key).is_some() {
        return Ok(Some(Format::Lackey));
    }
    if Format::Ramulator.row().kind(key).is_some() || is_vector(key) {
        return Ok(Some(Format::Ramulator));
    }
    cursor.at = start;
    cursor.hex_prefix();
    // A letter must follow, or Ramulator's SimpleO3 traces (`<bubbles> <address>`) would pass for DRAMsim3's.
    if cursor.number::<16>("").is_ok()
        && cursor.blanks()
        && cursor.peek().is_some_and(|byte| byte.is_ascii_alphabetic())
    {
        return Ok(Some(Format::Dramsim3));
    }
    cursor.at = start;
    Err(cursor.here("a record"))
}

/// `==123== text`, and with `--` or `**`; between the marks Valgrind can also put the time.
fn valgrind(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const EXPECTED: &str = "Valgrind's process number between two marks, such as `==123==`";
    let Some(mark) = cursor.peek() else { return Err(cursor.here(EXPECTED)) };
    if !(cursor.eat(mark) && cursor.eat(mark)) {
        return Err(cursor.here(EXPECTED));
    }
    let start = cursor.at;
    while cursor.peek().is_some_and(|b| matches!(b, b'0'..=b'9' | b':' | b'.' | b' ')) {
        cursor.at += 1;
    }
    if cursor.at == start || !(cursor.eat(mark) && cursor.eat(mark)) {
        return Err(cursor.here(EXPECTED));
    }
    Ok(Item::Skip)
}

/// The word at this place as an operation of `format`, and the blanks behind it.
#[inline]
fn operation(cursor: &mut Cursor<'_>, format: Format) -> Result<AccessKind, Fault> {
    let row = format.row();
    let start = cursor.at;
    let Some(kind) = row.kind(cursor.word()) else {
        cursor.at = start;
        return Err(cursor.here(row.word_list));
    };
    if !cursor.blanks() {
        return Err(cursor.here("a blank behind the operation"));
    }
    Ok(kind)
}

#[inline]
fn lackey(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const ADDRESS: &str = "a hexadecimal address of at most 64 bits without 0x";
    const SIZE: &str = "a size of 1 to 65536 bytes";
    if matches!(cursor.peek(), Some(b'=' | b'-' | b'*')) {
        return valgrind(cursor);
    }
    let kind = operation(cursor, Format::Lackey)?;
    let addr = cursor.number::<16>(ADDRESS)?;
    if !cursor.eat(b',') {
        let more = cursor.peek().is_some_and(|byte| !is_blank(byte));
        return Err(cursor.here(if more { ADDRESS } else { "`,` and the size" }));
    }
    let start = cursor.at;
    let size = cursor.number::<10>(SIZE)?;
    let bytes = match u32::try_from(size) {
        Ok(bytes @ 1..=ACCESS_BYTES_MAX) => bytes,
        _ => return Err(cursor.since(start, Found::Text, SIZE)),
    };
    if addr.checked_add(u64::from(bytes) - 1).is_none() {
        return Err(cursor.since(start, Found::Wraps, "an access that ends within 64 bits"));
    }
    cursor.end(SIZE)?;
    Ok(Item::Access(Access { kind, addr, bytes, cycle: None }))
}

/// Whether the word is an operation of Ramulator's `ReadWriteTrace` (peers.md §2.1).
const fn is_vector(key: u64) -> bool {
    key == Word::pack(b"R") || key == Word::pack(b"W")
}

#[inline]
fn ramulator(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const ADDRESS: &str = "an address of at most 64 bits, decimal or hexadecimal with 0x";
    let start = cursor.at;
    let kind = match operation(cursor, Format::Ramulator) {
        Ok(kind) => kind,
        Err(fault) => return Err(vector(cursor, start).unwrap_or(fault)),
    };
    let addr = if cursor.hex_prefix() {
        cursor.number::<16>(ADDRESS)?
    } else {
        cursor.number::<10>(ADDRESS)?
    };
    cursor.end(ADDRESS)?;
    Ok(Item::Access(Access { kind, addr, bytes: TRANSACTION_BYTES, cycle: None }))
}

/// The fault of a line that `R` or `W` begins.
#[cold]
fn vector(cursor: &mut Cursor<'_>, start: usize) -> Option<Fault> {
    const EXPECTED: &str = "a flat address: channel, rank, bank, row and column make one only by the address mapping of the \
         Ramulator configuration, which the trace does not hold";
    cursor.at = start;
    if !is_vector(cursor.word()) || !cursor.blanks() {
        return None;
    }
    cursor.at = cursor.text.len();
    Some(cursor.since(start, Found::Vector, EXPECTED))
}

#[inline]
fn dramsim3(cursor: &mut Cursor<'_>, before: u64) -> Result<Item, Fault> {
    const ADDRESS: &str = "a hexadecimal address of at most 64 bits";
    const CYCLE: &str = "a decimal cycle of at most 64 bits";
    cursor.hex_prefix();
    let addr = cursor.number::<16>(ADDRESS)?;
    if !cursor.blanks() {
        return Err(cursor.here(ADDRESS));
    }
    let kind = operation(cursor, Format::Dramsim3)?;
    let start = cursor.at;
    let now = cursor.number::<10>(CYCLE)?;
    let number_end = cursor.at;
    cursor.end(CYCLE)?;
    if now < before {
        return Err(Fault {
            start,
            end: number_end,
            found: Found::Backwards { before, now },
            expected: "cycles that never go backwards",
        });
    }
    Ok(Item::Access(Access { kind, addr, bytes: TRANSACTION_BYTES, cycle: Some(now) }))
}
