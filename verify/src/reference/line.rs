//! What a line holds, by provenance instead of by bits.

use serde::{Deserialize, Serialize};
use sim_core::event::LineState;
use sim_core::outcome::DataClass;
use sim_core::platform::XtsWidth;
use sim_core::{BirthId, ByteMask, KeyId, Line, LineData};
use std::collections::BTreeSet;

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
        let (mut data, mut unknown) = (LineData::ZERO, 0);
        for i in 0..len.min(64 - to.min(64)).min(64 - from.min(64)) {
            data.set_byte(to + i, self.data().byte(from + i));
            unknown |= u64::from(self.unknown().contains(from + i)) << (to + i);
        }
        Bytes { words: data.0, unknown }
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Cipher {
    /// The plaintext.
    pub plain: Bytes,
    /// The key.
    pub key: Key,
    /// The line it was encrypted for, which may not be the line it is in.
    pub line: Line,
    /// Flipped bits, 0 to 511.
    pub flips: BTreeSet<u16>,
}

/// A line in DRAM (architecture.md §1.1 1.1.2) and what the reference remembers about it. The default is the state at
/// power-on (§13 MC-10).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
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
