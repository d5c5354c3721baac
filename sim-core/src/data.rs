//! The 64 bytes of a line, and masks of bytes within it.

use crate::addr::LINE_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The plaintext (or ciphertext) of a line, as eight little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LineData(pub [u64; 8]);

/// Which bytes of a line: bit i is byte i.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ByteMask(pub u64);

impl ByteMask {
    /// No byte.
    pub const NONE: ByteMask = ByteMask(0);
    /// All 64 bytes.
    pub const FULL: ByteMask = ByteMask(u64::MAX);

    /// `bytes` bytes from `offset`, cut at the end of the line.
    pub const fn span(offset: usize, bytes: usize) -> ByteMask {
        if bytes == 0 || offset >= LINE_BYTES {
            return ByteMask::NONE;
        }
        let ones = if bytes >= LINE_BYTES { u64::MAX } else { (1u64 << bytes) - 1 };
        ByteMask(ones << offset)
    }
    /// Whether all 64 bytes are in it.
    pub const fn is_full(self) -> bool {
        self.0 == u64::MAX
    }
    /// Whether no byte is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The bytes of both.
    #[must_use]
    pub const fn union(self, other: ByteMask) -> ByteMask {
        ByteMask(self.0 | other.0)
    }
    /// How many bytes are in it.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
    /// Whether byte `index` (0 to 63) is in it.
    pub const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 != 0
    }
}

impl LineData {
    /// 64 zero bytes: what a blocked read returns (architecture.md §2.2).
    pub const ZERO: LineData = LineData([0; 8]);

    /// 64 times the same byte.
    pub const fn filled(byte: u8) -> LineData {
        LineData([u64::from_ne_bytes([byte; 8]); 8])
    }
    /// From bytes.
    pub fn from_bytes(bytes: &[u8; LINE_BYTES]) -> LineData {
        let mut words = [0u64; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut le = [0u8; 8];
            le.copy_from_slice(chunk);
            *word = u64::from_le_bytes(le);
        }
        LineData(words)
    }
    /// As bytes.
    pub fn to_bytes(self) -> [u8; LINE_BYTES] {
        let mut bytes = [0u8; LINE_BYTES];
        for (word, chunk) in self.0.iter().zip(bytes.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
    /// Whether all bytes are zero.
    pub const fn is_zero(&self) -> bool {
        let w = &self.0;
        w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7] == 0
    }
    /// Byte `index` (0 to 63).
    pub const fn byte(&self, index: usize) -> u8 {
        (self.0[(index / 8) & 7] >> (8 * (index % 8))) as u8
    }
    /// Sets byte `index` (0 to 63).
    pub fn set_byte(&mut self, index: usize, value: u8) {
        let shift = 8 * (index % 8);
        let word = &mut self.0[(index / 8) & 7];
        *word = *word & !(0xff << shift) | u64::from(value) << shift;
    }
    /// Takes the bytes in `mask` from `source`.
    pub fn merge(&mut self, source: &LineData, mask: ByteMask) {
        if mask.is_full() {
            *self = *source;
            return;
        }
        // Most masks touch a word or two.
        let mut left = mask.0;
        while left != 0 {
            let i = (left.trailing_zeros() as usize / 8) & 7;
            let bits = spread(left >> (8 * i) & 0xff);
            self.0[i] = self.0[i] & !bits | source.0[i] & bits;
            left &= !(0xff << (8 * i));
        }
    }
    /// The `bytes` bytes (at most 64) from `offset`, moved to the front of a line of zeros.
    #[inline]
    #[must_use]
    pub const fn slice(&self, offset: usize, bytes: usize) -> LineData {
        let mut out = LineData::ZERO;
        let mut i = 0;
        while i < 8 && 8 * i < bytes && offset + 8 * i < LINE_BYTES {
            let (word, shift) = ((offset / 8 + i) & 7, 8 * (offset % 8));
            out.0[i] = self.0[word] >> shift;
            if shift != 0 && word < 7 {
                out.0[i] |= self.0[word + 1] << (64 - shift);
            }
            let rest = bytes - 8 * i;
            if rest < 8 {
                out.0[i] &= (1 << (8 * rest)) - 1;
            }
            i += 1;
        }
        out
    }
}

/// Spreads eight mask bits over the eight bytes of a word.
const fn spread(bits: u64) -> u64 {
    let mut x = bits & 0xff;
    x = (x | x << 28) & 0x0000_000f_0000_000f;
    x = (x | x << 14) & 0x0003_0003_0003_0003;
    x = (x | x << 7) & 0x0101_0101_0101_0101;
    x * 0xff
}

impl fmt::Debug for LineData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in self.0 {
            write!(f, "{:016x}", word.swap_bytes())?;
        }
        Ok(())
    }
}
impl fmt::Debug for ByteMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merge_takes_exactly_the_masked_bytes(a: [u64; 8], b: [u64; 8], mask: u64) {
            let (a, b, mask) = (LineData(a), LineData(b), ByteMask(mask));
            let mut merged = a;
            merged.merge(&b, mask);
            for i in 0..LINE_BYTES {
                let want = if mask.contains(i) { b.byte(i) } else { a.byte(i) };
                prop_assert_eq!(merged.byte(i), want);
            }
        }

        #[test]
        fn a_slice_is_the_bytes_from_its_offset_and_zeros_behind(
            words: [u64; 8], offset in 0usize..80, bytes in 0usize..80,
        ) {
            let line = LineData(words);
            let slice = line.slice(offset, bytes);
            for i in 0..LINE_BYTES {
                let there = i < bytes && offset + i < LINE_BYTES;
                let want = if there { line.byte(offset + i) } else { 0 };
                prop_assert_eq!(slice.byte(i), want);
            }
        }

        #[test]
        fn bytes_and_words_are_two_views_of_one_line(words: [u64; 8], i in 0usize..64, v: u8) {
            let mut line = LineData(words);
            prop_assert_eq!(LineData::from_bytes(&line.to_bytes()), line);
            line.set_byte(i, v);
            prop_assert_eq!(line.to_bytes()[i], v);
        }

        #[test]
        fn a_span_has_as_many_bytes_as_fit(offset in 0usize..64, bytes in 0usize..200) {
            let mask = ByteMask::span(offset, bytes);
            prop_assert_eq!(mask.count() as usize, bytes.min(64 - offset));
            prop_assert!(bytes == 0 || mask.contains(offset));
        }
    }
}
