//! One line of text to one record. Works on bytes, allocates nothing, and says where and why a line is refused.

use super::format::{
    ACCESS_BYTES_MAX, Access, AccessKind, DramPlace, Format, TRANSACTION_BYTES, When,
};

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A record.
    Access(Access),
    /// A record of two accesses.
    Pair(Access, Access),
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
pub(super) const DIGITS: [u8; 256] = {
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

/// Reads a line of a form. `text` is without its line end; `cycle` is that of the record before.
///
/// # Errors
/// Where and why the form has no such line.
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
        Format::RamulatorVector => vector(&mut cursor),
        Format::RamulatorDram => ramulator_dram(&mut cursor),
        Format::SimpleO3 => simple_o3(&mut cursor),
        Format::Dramsim3 => dramsim3(&mut cursor, cycle),
        Format::Usimm => usimm(&mut cursor),
        Format::Dramsys => dramsys(&mut cursor, Some(cycle)),
        Format::DramsysRelative => dramsys(&mut cursor, None),
        // Never asked: their records are no lines.
        Format::Champsim | Format::Gem5 => Err(cursor.here("a binary record")),
    }
}

/// Finds out which form has such a line; `None` for a line that says nothing. Of each form in
/// [`super::FORMATS`], this is what `apart` says.
///
/// # Errors
/// No form has.
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
    for format in [Format::Lackey, Format::Ramulator, Format::RamulatorVector] {
        if format.row().kind(key).is_some() {
            return Ok(Some(format));
        }
    }
    cursor.at = start;
    let is_decimal = !cursor.hex_prefix();
    let digits = cursor.text.get(cursor.at..).unwrap_or_default();
    let (any, decimal) = (leading(digits, 16), leading(digits, 10));
    cursor.at += any;
    let is_decimal = is_decimal && decimal == any;
    if any > 0 && cursor.blanks() {
        let second = cursor.at;
        let key = cursor.word();
        if Format::RamulatorDram.row().kind(key).is_some() {
            cursor.blanks();
            let is_whole = cursor.peek().is_none();
            return Ok(Some(if is_whole { Format::RamulatorDram } else { Format::Usimm }));
        }
        return match text.get(second) {
            Some(byte) if byte.is_ascii_alphabetic() => Ok(Some(Format::Dramsim3)),
            Some(byte) if byte.is_ascii_digit() && is_decimal => Ok(Some(Format::SimpleO3)),
            _ => Err(Cursor { text, at: start }.here("a record")),
        };
    }
    if any > 0 && is_decimal && cursor.peek() == Some(b':') {
        cursor.at = text.len();
        return Err(cursor.since(
            start,
            Found::Text,
            "the form to be named: dramsys (cycles from the start of the run) and dramsys-relative (from the end of the access \
             before) look alike",
        ));
    }
    Err(Cursor { text, at: start }.here("a record"))
}

/// How many digits there are.
fn leading(text: &[u8], radix: u8) -> usize {
    text.iter().take_while(|byte| DIGITS[usize::from(**byte)] < radix).count()
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

const BLANK_BEHIND: &str = "a blank behind the operation";
const ADDRESS: &str = "an address of at most 64 bits, decimal or hexadecimal with 0x";
const HEX_ADDRESS: &str = "a hexadecimal address of at most 64 bits";
const CYCLE: &str = "a decimal cycle of at most 64 bits";
const GAP: &str = "a decimal number of instructions of at most 64 bits";
const SIZE: &str = "a size of 1 to 65536 bytes";

/// The word at this place as an operation of `format`.
fn operation(cursor: &mut Cursor<'_>, format: Format) -> Result<AccessKind, Fault> {
    let row = format.row();
    let start = cursor.at;
    let Some(kind) = row.kind(cursor.word()) else {
        cursor.at = start;
        return Err(cursor.here(row.word_list));
    };
    Ok(kind)
}

/// Blanks, of which there must be one.
fn blanks(cursor: &mut Cursor<'_>, expected: &'static str) -> Result<(), Fault> {
    if cursor.blanks() { Ok(()) } else { Err(cursor.here(expected)) }
}

/// A size in decimal, and where it starts.
fn size(cursor: &mut Cursor<'_>) -> Result<(u32, usize), Fault> {
    let start = cursor.at;
    let size = cursor.number::<10>(SIZE)?;
    match u32::try_from(size) {
        Ok(bytes @ 1..=ACCESS_BYTES_MAX) => Ok((bytes, start)),
        _ => Err(cursor.since(start, Found::Text, SIZE)),
    }
}

/// A hexadecimal number with or without its prefix.
fn hex(cursor: &mut Cursor<'_>, expected: &'static str) -> Result<u64, Fault> {
    cursor.hex_prefix();
    cursor.number::<16>(expected)
}

fn lackey(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const ADDRESS: &str = "a hexadecimal address of at most 64 bits without 0x";
    if matches!(cursor.peek(), Some(b'=' | b'-' | b'*')) {
        return valgrind(cursor);
    }
    let kind = operation(cursor, Format::Lackey)?;
    blanks(cursor, BLANK_BEHIND)?;
    let addr = cursor.number::<16>(ADDRESS)?;
    if !cursor.eat(b',') {
        let more = cursor.peek().is_some_and(|byte| !is_blank(byte));
        return Err(cursor.here(if more { ADDRESS } else { "`,` and the size" }));
    }
    let (bytes, start) = size(cursor)?;
    if addr.checked_add(u64::from(bytes) - 1).is_none() {
        return Err(cursor.since(start, Found::Wraps, "an access that ends within 64 bits"));
    }
    cursor.end(SIZE)?;
    Ok(Item::Access(Access::new(kind, addr, bytes)))
}

/// An address in decimal, or in hexadecimal with its prefix.
fn address(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    if cursor.hex_prefix() { cursor.number::<16>(ADDRESS) } else { cursor.number::<10>(ADDRESS) }
}

fn ramulator(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    let kind = operation(cursor, Format::Ramulator)?;
    blanks(cursor, BLANK_BEHIND)?;
    let addr = address(cursor)?;
    cursor.end(ADDRESS)?;
    Ok(Item::Access(Access::new(kind, addr, TRANSACTION_BYTES)))
}

/// Ramulator 2's `ReadWriteTrace`. The levels are those of its DDR4 and DDR5; other standards have others.
fn vector(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const SMALL: &str = "six numbers with commas between: channel, rank, bank group and bank below 65536, row and column \
                         below 4294967296";
    let kind = operation(cursor, Format::RamulatorVector)?;
    blanks(cursor, BLANK_BEHIND)?;
    let mut level = |is_first: bool, limit: u64| {
        if !is_first && !cursor.eat(b',') {
            return Err(cursor.here(SMALL));
        }
        let start = cursor.at;
        let number = cursor.number::<10>(SMALL)?;
        if number > limit { Err(cursor.since(start, Found::Text, SMALL)) } else { Ok(number) }
    };
    let mut small = |is_first| level(is_first, u64::from(u16::MAX)).map(|number| number as u16);
    let (channel, rank, bank_group, bank) =
        (small(true)?, small(false)?, small(false)?, small(false)?);
    let mut large = || level(false, u64::from(u32::MAX)).map(|number| number as u32);
    let place = DramPlace { channel, rank, bank_group, bank, row: large()?, column: large()? };
    cursor.end(SMALL)?;
    let access = Access::new(kind, Access::NO_ADDR, TRANSACTION_BYTES);
    Ok(Item::Access(Access { place: Some(place), ..access }))
}

fn ramulator_dram(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    let addr = hex(cursor, HEX_ADDRESS)?;
    blanks(cursor, HEX_ADDRESS)?;
    let kind = operation(cursor, Format::RamulatorDram)?;
    cursor.end("the end of the line")?;
    Ok(Item::Access(Access::new(kind, addr, TRANSACTION_BYTES)))
}

fn simple_o3(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    let gap = cursor.number::<10>(GAP)?;
    blanks(cursor, GAP)?;
    let load = address_without_octal(cursor)?;
    let load =
        Access { when: When::Gap(gap), ..Access::new(AccessKind::Load, load, TRANSACTION_BYTES) };
    if !cursor.blanks() || cursor.peek().is_none() {
        cursor.end(ADDRESS)?;
        return Ok(Item::Access(load));
    }
    let store = address_without_octal(cursor)?;
    cursor.end(ADDRESS)?;
    let store =
        Access { when: When::Gap(0), ..Access::new(AccessKind::Store, store, TRANSACTION_BYTES) };
    Ok(Item::Pair(load, store))
}

/// An address that Ramulator 1 and Ramulator 2 read alike.
fn address_without_octal(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let start = cursor.at;
    let digits = cursor.text.get(start..).unwrap_or_default();
    if matches!(digits, [b'0', b'0'..=b'9', ..]) {
        cursor.at += leading(digits, 10);
        return Err(cursor.since(
            start,
            Found::Text,
            "an address without a leading zero: Ramulator 1 reads such a one as octal, Ramulator 2 as decimal",
        ));
    }
    address(cursor)
}

/// Whether a cycle, which stands from `start` to `end`, is none before that of the record before.
fn forward(start: usize, end: usize, before: u64, now: u64) -> Result<(), Fault> {
    if now >= before {
        return Ok(());
    }
    let found = Found::Backwards { before, now };
    Err(Fault { start, end, found, expected: "cycles that never go backwards" })
}

fn dramsim3(cursor: &mut Cursor<'_>, before: u64) -> Result<Item, Fault> {
    let addr = hex(cursor, HEX_ADDRESS)?;
    blanks(cursor, HEX_ADDRESS)?;
    let kind = operation(cursor, Format::Dramsim3)?;
    blanks(cursor, BLANK_BEHIND)?;
    let start = cursor.at;
    let now = cursor.number::<10>(CYCLE)?;
    let number_end = cursor.at;
    cursor.end(CYCLE)?;
    forward(start, number_end, before, now)?;
    let when = When::Cycle(now);
    Ok(Item::Access(Access { when, ..Access::new(kind, addr, TRANSACTION_BYTES) }))
}

fn usimm(cursor: &mut Cursor<'_>) -> Result<Item, Fault> {
    const POINTER: &str = "a hexadecimal instruction pointer of at most 64 bits";
    let gap = cursor.number::<10>(GAP)?;
    blanks(cursor, GAP)?;
    let kind = operation(cursor, Format::Usimm)?;
    blanks(cursor, BLANK_BEHIND)?;
    let addr = hex(cursor, HEX_ADDRESS)?;
    let mut access = Access { when: When::Gap(gap), ..Access::new(kind, addr, TRANSACTION_BYTES) };
    if kind == AccessKind::Load {
        blanks(cursor, if cursor.peek().is_none() { POINTER } else { HEX_ADDRESS })?;
        access.ip = Some(hex(cursor, POINTER)?);
        cursor.end(POINTER)?;
    } else {
        cursor.end(HEX_ADDRESS)?;
    }
    Ok(Item::Access(access))
}

/// DRAMSys; `before` is the cycle of the record before where cycles count from the start.
fn dramsys(cursor: &mut Cursor<'_>, before: Option<u64>) -> Result<Item, Fault> {
    const COLON: &str = "`:` behind the time";
    const DATA: &str = "the data in hexadecimal with 0x, two digits for each byte";
    let start = cursor.at;
    let time = cursor.number::<10>(CYCLE)?;
    let number_end = cursor.at;
    if !cursor.eat(b':') {
        return Err(cursor.here(COLON));
    }
    let when = match before {
        Some(before) => {
            forward(start, number_end, before, time)?;
            When::Cycle(time)
        }
        None => When::Delay(time),
    };
    blanks(cursor, "a blank behind `:`")?;
    let mut given = None;
    if cursor.eat(b'(') {
        let (bytes, start) = size(cursor)?;
        given = Some((bytes, start, cursor.at));
        if !cursor.eat(b')') {
            return Err(cursor.here("`)` behind the size"));
        }
        blanks(cursor, "a blank behind `)`")?;
    }
    let kind = operation(cursor, Format::Dramsys)?;
    blanks(cursor, BLANK_BEHIND)?;
    let addr_start = cursor.at;
    let addr = hex(cursor, HEX_ADDRESS)?;
    let addr_end = cursor.at;
    if cursor.blanks() && cursor.peek().is_some() {
        let start = cursor.at;
        let has_prefix = cursor.hex_prefix();
        let digits = leading(cursor.text.get(cursor.at..).unwrap_or_default(), 16);
        cursor.at += digits;
        let fits = match given {
            Some((bytes, ..)) => digits == bytes as usize * 2,
            None => digits > 0 && digits.is_multiple_of(2),
        };
        if !has_prefix || !fits {
            return Err(cursor.since(start, Found::Text, DATA));
        }
        cursor.end(DATA)?;
    } else {
        cursor.at = addr_end;
        cursor.end(HEX_ADDRESS)?;
    }
    let bytes = given.map_or(TRANSACTION_BYTES, |(bytes, ..)| bytes);
    if addr.checked_add(u64::from(bytes) - 1).is_none() {
        let (found, start, end) = match given {
            Some((_, start, end)) => (Found::Wraps, start, end),
            None => (Found::Text, addr_start, addr_end),
        };
        let expected = "an access that ends within 64 bits";
        return Err(Fault { start, end, found, expected });
    }
    Ok(Item::Access(Access { when, ..Access::new(kind, addr, bytes) }))
}
