//! What a line holds, by provenance instead of by bits.

use serde::{Deserialize, Serialize};
use sim_core::event::LineState;
use sim_core::outcome::DataClass;
use sim_core::platform::XtsWidth;
use sim_core::{BirthId, ByteMask, KeyId, Line, LineData};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// 64 bytes, some of which the reference cannot know: what a wrong key, a tampered ciphertext or power-on content
/// decrypts to. Unknown bytes are zero in `words`, so that equal means equal.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Bytes {
    words: [u64; 8],
    unknown: u64,
}

impl Bytes {
    /// 64 zero bytes.
    pub const ZERO: Bytes = Bytes { words: [0; 8], unknown: 0 };
    /// 64 bytes of which none is known.
    pub const UNKNOWN: Bytes = Bytes { words: [0; 8], unknown: u64::MAX };

    /// Known bytes.
    pub const fn known(data: LineData) -> Bytes {
        Bytes { words: data.0, unknown: 0 }
    }
    /// The bytes; zero where unknown.
    pub const fn data(&self) -> LineData {
        LineData(self.words)
    }
    /// Which bytes are not known.
    pub const fn unknown(&self) -> ByteMask {
        ByteMask(self.unknown)
    }
    /// Takes the bytes in `mask` from `source`.
    pub fn merge(&mut self, source: &Bytes, mask: ByteMask) {
        let mut data = self.data();
        data.merge(&source.data(), mask);
        self.words = data.0;
        self.unknown = self.unknown & !mask.0 | source.unknown & mask.0;
    }
    /// `len` bytes from `from`, laid into a line of zeros from byte `to` on.
    #[must_use]
    pub fn moved(&self, from: usize, len: usize, to: usize) -> Bytes {
        let len = len.min(64usize.saturating_sub(to)).min(64usize.saturating_sub(from));
        if len == 0 {
            return Bytes::ZERO;
        }
        let front = self.data().slice(from, len);
        let unknown = (self.unknown >> from & ByteMask::span(0, len).0) << to;
        if to == 0 {
            return Bytes { words: front.0, unknown };
        }
        // Up by whole words, and by the bits that are left over.
        let (up, bits) = (to / 8, 8 * (to % 8));
        let mut words = [0; 8];
        let mut carried = 0;
        for (word, low) in words.iter_mut().skip(up).zip(front.0) {
            *word = low << bits | carried;
            carried = if bits == 0 { 0 } else { low >> (64 - bits) };
        }
        Bytes { words, unknown }
    }
    /// Whether `data` is one of the values that these bytes may have.
    pub fn admits(&self, data: &LineData) -> bool {
        let mut known = *data;
        known.merge(&LineData::ZERO, self.unknown());
        known == self.data()
    }
}

/// A key by its identity (architecture.md §8 PCONFIG commands, §13 MC-09, MC-27).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Key {
    /// The TME key.
    Tme,
    /// Given by software.
    Direct(u64, XtsWidth),
    /// The n-th key drawn by the hardware: its generation.
    Random(u32),
    /// No encryption.
    None,
}

/// Ciphertext by provenance: what was encrypted, with which key, for which address (architecture.md §1.1 1.1.6), and
/// which of its bits were flipped since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Cipher {
    /// The plaintext.
    pub plain: Bytes,
    /// The key.
    pub key: Key,
    /// The line it was encrypted for, which may not be the line it is in.
    pub line: Line,
    /// Flipped bits.
    pub flips: Flips,
}

/// Which of the 512 bits of a line are flipped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeSet<u16>", into = "BTreeSet<u16>")]
pub struct Flips([u64; 8]);

impl From<BTreeSet<u16>> for Flips {
    fn from(bits: BTreeSet<u16>) -> Flips {
        let mut flips = Flips::default();
        for bit in bits {
            flips.flip(bit);
        }
        flips
    }
}
impl From<Flips> for BTreeSet<u16> {
    fn from(flips: Flips) -> BTreeSet<u16> {
        flips.iter().collect()
    }
}

impl Flips {
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }
    /// Flips a bit, 0 to 511: one flipped twice is as it was.
    pub fn flip(&mut self, bit: u16) {
        if let Some(word) = self.0.get_mut(usize::from(bit / 64)) {
            *word ^= 1 << (bit % 64);
        }
    }
    /// The bits that are flipped, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..512u16).filter(|bit| {
            self.0.get(usize::from(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 != 0)
        })
    }
}

impl Hash for Flips {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Hardly any line is flipped: one word tells, and only a search for the state itself looks at all of them.
        state.write_u64(self.0.iter().fold(0, |sum, word| sum.rotate_left(7) ^ word));
    }
}

/// A line in DRAM (architecture.md §1.1 1.1.2) and what the reference remembers about it. The default is the state at
/// power-on (§13 MC-10).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct DramLine {
    /// Ciphertext; `None` is the random content of power-on.
    pub ct: Option<Cipher>,
    /// TD-owner bit.
    pub td: bool,
    /// The MAC, by the TD bit that it was computed over. Ciphertext, key and address of its computation are those of
    /// `ct` without its flips: the two are only ever stored, moved and replayed together. `None`: no valid MAC (MC-08).
    pub mac: Option<bool>,
    /// Poison, and which.
    pub poison: Option<BirthId>,
    /// KeyID and key of the last full-line write; not stored by hardware (1.1.5).
    pub writer: Option<(KeyId, Key)>,
    /// Whether a physical fault or attack changed the line since that write.
    pub tampered: bool,
}

impl DramLine {
    /// What the line decrypts to at `line` with `key`.
    pub fn decrypt(&self, line: Line, key: Key) -> (Bytes, DataClass) {
        match &self.ct {
            Some(ct) if ct.key == key && ct.flips.is_empty() && ct.line == line => {
                (ct.plain, DataClass::Plain)
            }
            // Without encryption the bytes do not depend on the address; tampered with they are all the same.
            Some(ct) if ct.key == key && ct.flips.is_empty() && key == Key::None => {
                (ct.plain, DataClass::Garbage)
            }
            _ => (Bytes::UNKNOWN, DataClass::Garbage),
        }
    }
    /// Whether the MAC recomputed at `line` with `key` matches (architecture.md §1.2 1.2.2, 1.2.4).
    pub fn mac_matches(&self, line: Line, key: Key) -> bool {
        self.mac == Some(self.td)
            && self
                .ct
                .as_ref()
                .is_some_and(|ct| ct.key == key && ct.line == line && ct.flips.is_empty())
    }
    /// In the words of the vocabulary.
    pub fn state(&self) -> LineState {
        LineState {
            td: self.td,
            mac: self.mac.is_some(),
            poison: self.poison,
            writer: self.writer.map(|(keyid, _)| keyid),
        }
    }
}
