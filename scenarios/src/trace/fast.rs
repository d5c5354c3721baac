//! Plain records of the forms that matter for speed, eight bytes at a time.
//!
//! What is not plain (a tab, two blanks where one is usual, a comment, a number of more than sixteen digits, anything wrong) is
//! `None`, and [`super::parse`] reads the line again. So nothing here needs to know why, and a trace of plain records costs
//! some 60 to 90 instructions a line (docs/performance.md).

use super::format::{
    ACCESS_BYTES_MAX, Access, AccessKind, DRAMSIM3_WORDS, Format, LACKEY_WORDS,
    RAMULATOR_DRAM_WORDS, RAMULATOR_WORDS, TRANSACTION_BYTES, When, Word,
};

/// Bytes that must be there, so that no record of these forms is cut: two numbers of sixteen digits, a word of eight, `0x`
/// and what stands between them, rounded up.
pub(super) const AHEAD: usize = 64;

type Ahead = [u8; AHEAD];

const HIGH: u64 = every(0x80);

/// Eight times the same byte.
const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

#[inline]
fn eight(text: &Ahead, at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*text.get(at..)?.first_chunk()?))
}

/// The high bit of each byte that is a decimal digit.
#[inline]
const fn decimal_digits(x: u64) -> u64 {
    // No byte carries into the next: without its high bit it is below 0x80, and so is what is added.
    let low = x & !HIGH;
    let from_zero = low + every(0x80 - b'0');
    let above_nine = low + every(0x7f - b'9');
    from_zero & !above_nine & !x & HIGH
}

/// The high bit of each byte that is a hexadecimal digit.
#[inline]
const fn hex_digits(x: u64) -> u64 {
    let low = (x & !HIGH) | every(0x20);
    let from_a = low + every(0x80 - b'a');
    let above_f = low + every(0x7f - b'f');
    (from_a & !above_f & !x & HIGH) | decimal_digits(x)
}

/// How many digits there are before the first byte that is none.
#[inline]
const fn count(digits: u64) -> u32 {
    (digits ^ HIGH).trailing_zeros() / 8
}

/// The value of `count` hexadecimal digits, 1 to 8, in the low bytes of `x`.
#[inline]
const fn hex_value(x: u64, count: u32) -> u64 {
    // The digits move up; zeros take their place, which are leading zeros.
    let x = x << (64 - 8 * count);
    let nibbles = (x & every(0x0f)) + 9 * ((x >> 6) & every(0x01));
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs << 8 | pairs >> 16) & 0x0000_ffff_0000_ffff;
    (fours << 16 | fours >> 32) & 0xffff_ffff
}

/// The same of decimal digits.
#[inline]
const fn decimal_value(x: u64, count: u32) -> u64 {
    let x = x << (64 - 8 * count);
    let ones = x & every(0x0f);
    let pairs = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

/// A hexadecimal number of 1 to 16 digits at `at`, and where it ends. More digits are seen by whoever looks at what follows.
#[inline]
fn hex(text: &Ahead, at: usize) -> Option<(u64, usize)> {
    let x = eight(text, at)?;
    let len = count(hex_digits(x));
    if len == 0 {
        return None;
    }
    let value = hex_value(x, len);
    if len < 8 {
        return Some((value, at + len as usize));
    }
    let x = eight(text, at + 8)?;
    let len = count(hex_digits(x));
    if len == 0 {
        return Some((value, at + 8));
    }
    Some((value << (4 * len) | hex_value(x, len), at + 8 + len as usize))
}

/// The same in decimal.
#[inline]
fn decimal(text: &Ahead, at: usize) -> Option<(u64, usize)> {
    const POWERS: [u64; 9] =
        [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
    let x = eight(text, at)?;
    let len = count(decimal_digits(x));
    if len == 0 {
        return None;
    }
    let value = decimal_value(x, len);
    if len < 8 {
        return Some((value, at + len as usize));
    }
    let x = eight(text, at + 8)?;
    let len = count(decimal_digits(x));
    if len == 0 {
        return Some((value, at + 8));
    }
    let scale = POWERS.get(len as usize)?;
    Some((value * scale + decimal_value(x, len), at + 8 + len as usize))
}

/// A word as the text has it.
#[derive(Clone, Copy)]
struct Quick {
    /// The word and, where it is shorter than eight characters, the blank behind it, the first character in the low byte.
    bits: u64,
    /// The bytes of `bits` that count.
    mask: u64,
    /// Characters of the word.
    len: usize,
    kind: AccessKind,
}

const fn quick<const N: usize>(words: &[Word]) -> [Quick; N] {
    let mut out = [Quick { bits: 1, mask: 0, len: 0, kind: AccessKind::Load }; N];
    let mut i = 0;
    while i < N {
        let (word, text) = (&words[i], words[i].text.as_bytes());
        let (mut bits, mut mask, mut at) = (0u64, 0u64, 0);
        while at < text.len() && at < 8 {
            bits |= (text[at] as u64) << (8 * at);
            mask |= 0xff << (8 * at);
            at += 1;
        }
        if at < 8 {
            bits |= (b' ' as u64) << (8 * at);
            mask |= 0xff << (8 * at);
        }
        out[i] = Quick { bits, mask, len: text.len(), kind: word.kind };
        i += 1;
    }
    out
}

const RAMULATOR: [Quick; RAMULATOR_WORDS.len()] = quick(RAMULATOR_WORDS);
const DRAMSIM3: [Quick; DRAMSIM3_WORDS.len()] = quick(DRAMSIM3_WORDS);
const LACKEY: [Quick; LACKEY_WORDS.len()] = quick(LACKEY_WORDS);

/// A word at `at` and one blank behind it: what it means, and where the blank ends.
#[inline]
fn word(text: &Ahead, at: usize, words: &[Quick]) -> Option<(AccessKind, usize)> {
    let x = eight(text, at)?;
    let word = words.iter().find(|word| x & word.mask == word.bits)?;
    let blank = at + word.len;
    if word.len == 8 && *text.get(blank)? != b' ' {
        return None;
    }
    Some((word.kind, blank + 1))
}

/// The end of a line at `at`, and where it ends.
#[inline]
fn line_end(text: &Ahead, at: usize) -> Option<usize> {
    match *text.get(at)? {
        b'\n' => Some(at + 1),
        b'\r' if *text.get(at + 1)? == b'\n' => Some(at + 2),
        _ => None,
    }
}

/// `0x` or `0X` at `at`.
#[inline]
fn is_prefix(text: &Ahead, at: usize) -> Option<bool> {
    let [zero, x] = text.get(at..)?.first_chunk()?;
    Some(*zero == b'0' && (*x | 0x20) == b'x')
}

/// A plain record at the start of `text`, and how many bytes its line has. `cycle` is that of the record before.
#[inline]
pub(super) fn record(format: Format, text: &[u8], cycle: u64) -> Option<(Access, usize)> {
    let text = text.first_chunk()?;
    match format {
        Format::Ramulator => ramulator(text),
        Format::Dramsim3 => dramsim3(text, cycle),
        Format::Lackey => lackey(text),
        Format::RamulatorDram => ramulator_dram(text),
        _ => None,
    }
}

#[inline]
fn ramulator(text: &Ahead) -> Option<(Access, usize)> {
    let (kind, at) = word(text, 0, &RAMULATOR)?;
    let (addr, at) = if is_prefix(text, at)? { hex(text, at + 2)? } else { decimal(text, at)? };
    Some((Access::new(kind, addr, TRANSACTION_BYTES), line_end(text, at)?))
}

#[inline]
fn dramsim3(text: &Ahead, before: u64) -> Option<(Access, usize)> {
    let (addr, at) = hex(text, if is_prefix(text, 0)? { 2 } else { 0 })?;
    if *text.get(at)? != b' ' {
        return None;
    }
    let (kind, mut at) = word(text, at + 1, &DRAMSIM3)?;
    // DRAMsim3's own traces stand in columns.
    while *text.get(at)? == b' ' {
        at += 1;
    }
    let (cycle, at) = decimal(text, at)?;
    if cycle < before {
        return None;
    }
    let access = Access { when: When::Cycle(cycle), ..Access::new(kind, addr, TRANSACTION_BYTES) };
    Some((access, line_end(text, at)?))
}

#[inline]
fn lackey(text: &Ahead) -> Option<(Access, usize)> {
    let (kind, at) = word(text, usize::from(*text.first()? == b' '), &LACKEY)?;
    let (addr, at) = hex(text, at + usize::from(*text.get(at)? == b' '))?;
    if *text.get(at)? != b',' {
        return None;
    }
    let (bytes, at) = decimal(text, at + 1)?;
    let bytes = u32::try_from(bytes).ok().filter(|bytes| (1..=ACCESS_BYTES_MAX).contains(bytes))?;
    addr.checked_add(u64::from(bytes) - 1)?;
    Some((Access::new(kind, addr, bytes), line_end(text, at)?))
}

#[inline]
fn ramulator_dram(text: &Ahead) -> Option<(Access, usize)> {
    let (addr, at) = hex(text, if is_prefix(text, 0)? { 2 } else { 0 })?;
    let [blank, word] = *text.get(at..)?.first_chunk()?;
    let word = RAMULATOR_DRAM_WORDS.iter().find(|known| known.text.as_bytes() == [word])?;
    if blank != b' ' {
        return None;
    }
    Some((Access::new(word.kind, addr, TRANSACTION_BYTES), line_end(text, at + 2)?))
}
