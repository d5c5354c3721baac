//! Plain records of the forms that matter for speed, without a word about what is wrong.
//!
//! What is not plain (a tab, two blanks where one is usual, a comment, a line that is not all there, anything wrong) is `None`,
//! and [`super::parse`] reads the line again. A digit costs some seven instructions, and nothing else in a line costs many
//! (docs/traces.md has the counts).

use super::format::{
    ACCESS_BYTES_MAX, Access, AccessKind, DRAMSIM3_WORDS, Format, LACKEY_WORDS,
    RAMULATOR_DRAM_WORDS, RAMULATOR_WORDS, TRANSACTION_BYTES, When, Word,
};
use super::parse::DIGITS;

/// Bytes that must be there: the longest plain record, with room for the numbers that are looked at whole.
pub(super) const AHEAD: usize = 96;

type Ahead = [u8; AHEAD];

/// The most digits that always fit 64 bits, and one byte behind them.
const HEX_DIGITS: usize = 17;
const DECIMAL_DIGITS: usize = 20;

/// A number at `at` and where it ends, if there are fewer than `MOST` digits and at least one.
#[inline(always)]
fn number<const RADIX: u8, const MOST: usize>(text: &Ahead, at: usize) -> Option<(u64, usize)> {
    let bytes: &[u8; MOST] = text.get(at..)?.first_chunk()?;
    let (mut value, mut len) = (0u64, 0);
    for byte in bytes {
        let digit = DIGITS[usize::from(*byte)];
        if digit >= RADIX {
            break;
        }
        value = value.wrapping_mul(u64::from(RADIX)).wrapping_add(u64::from(digit));
        len += 1;
    }
    (len != 0 && len != MOST).then_some((value, at + len))
}

#[inline(always)]
fn hex(text: &Ahead, at: usize) -> Option<(u64, usize)> {
    number::<16, HEX_DIGITS>(text, at)
}

#[inline(always)]
fn decimal(text: &Ahead, at: usize) -> Option<(u64, usize)> {
    number::<10, DECIMAL_DIGITS>(text, at)
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

/// A word at `at` and one blank: what it means, and where the blank ends.
#[inline(always)]
fn word(text: &Ahead, at: usize, words: &[Quick]) -> Option<(AccessKind, usize)> {
    let x = u64::from_le_bytes(*text.get(at..)?.first_chunk()?);
    let word = words.iter().find(|word| x & word.mask == word.bits)?;
    let blank = at + word.len;
    if word.len == 8 && *text.get(blank)? != b' ' {
        return None;
    }
    Some((word.kind, blank + 1))
}

/// Where the line ends, if that is at `at`.
#[inline(always)]
fn line_end(text: &Ahead, at: usize) -> Option<usize> {
    match *text.get(at)? {
        b'\n' => Some(at + 1),
        b'\r' if *text.get(at + 1)? == b'\n' => Some(at + 2),
        _ => None,
    }
}

/// How long `0x` or `0X` at `at` is: 2, or 0 if there is none.
#[inline(always)]
fn prefix(text: &Ahead, at: usize) -> Option<usize> {
    let [zero, x] = text.get(at..)?.first_chunk()?;
    Some(if *zero == b'0' && *x | 0x20 == b'x' { 2 } else { 0 })
}

/// A plain record at the start of `text`, and how many bytes its line has. `cycle` is that of the record before.
#[inline(always)]
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

#[inline(always)]
fn ramulator(text: &Ahead) -> Option<(Access, usize)> {
    let (kind, at) = word(text, 0, &RAMULATOR)?;
    let (addr, at) = match prefix(text, at)? {
        0 => decimal(text, at)?,
        prefix => hex(text, at + prefix)?,
    };
    Some((Access::new(kind, addr, TRANSACTION_BYTES), line_end(text, at)?))
}

#[inline(always)]
fn dramsim3(text: &Ahead, before: u64) -> Option<(Access, usize)> {
    let (addr, at) = hex(text, prefix(text, 0)?)?;
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

#[inline(always)]
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

#[inline(always)]
fn ramulator_dram(text: &Ahead) -> Option<(Access, usize)> {
    let (addr, at) = hex(text, prefix(text, 0)?)?;
    let [blank, name] = *text.get(at..)?.first_chunk()?;
    let word = RAMULATOR_DRAM_WORDS.iter().find(|word| word.text.as_bytes() == [name])?;
    if blank != b' ' {
        return None;
    }
    Some((Access::new(word.kind, addr, TRANSACTION_BYTES), line_end(text, at + 2)?))
}
