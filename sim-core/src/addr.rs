//! Physical addresses, lines and pages, and the (line, KeyID) pair that caches use as a tag.

use crate::keyid::KeyId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes in a line: the unit of encryption, of integrity and of coherence (architecture.md §1.1 1.1.1).
pub const LINE_BYTES: usize = 64;
/// Bytes in the smallest page.
pub const PAGE_BYTES: u64 = 4096;
/// Lines in a 4 KiB page: one bit each fits one machine word (style-and-ecosystem.md B8).
pub const LINES_PER_PAGE: u32 = 64;

/// A host physical address in bytes, without KeyID bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Hpa(pub u64);

/// The number of a 64-byte line: a host physical address without KeyID bits, divided by 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Line(pub u64);

/// The number of a 4 KiB page: a host physical address without KeyID bits, divided by 4096.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Page(pub u64);

/// A byte address together with the KeyID under which it is accessed.
///
/// Inside the SoC the KeyID bits are part of the physical address (architecture.md §4.1 4.1.1); they are kept apart here
/// because their position depends on the platform ([`crate::KeyIdLayout`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Addr {
    /// Where, without KeyID bits.
    pub hpa: Hpa,
    /// Under which KeyID.
    pub keyid: KeyId,
}

/// A line together with the KeyID under which it is accessed: the tag of a cached line (architecture.md §4.1 4.1.1).
///
/// Packed in one word, KeyID above line number: a line number has at most 46 bits (MAXPA 52) and a KeyID at most 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tagged(u64);

const TAG_KEY_SHIFT: u32 = 48;

impl Hpa {
    /// The line that holds this byte.
    pub const fn line(self) -> Line {
        Line(self.0 >> 6)
    }
    /// The page that holds this byte.
    pub const fn page(self) -> Page {
        Page(self.0 >> 12)
    }
    /// The byte's position in its line, 0 to 63.
    pub const fn offset_in_line(self) -> usize {
        (self.0 & 63) as usize
    }
}

impl Line {
    /// The address of the line's first byte.
    pub const fn hpa(self) -> Hpa {
        Hpa(self.0 << 6)
    }
    /// The page that holds this line.
    pub const fn page(self) -> Page {
        Page(self.0 >> 6)
    }
    /// The line's position in its page, 0 to 63.
    pub const fn index_in_page(self) -> u32 {
        (self.0 & 63) as u32
    }
}

impl Page {
    /// The address of the page's first byte.
    pub const fn hpa(self) -> Hpa {
        Hpa(self.0 << 12)
    }
    /// The page's line number `index` (0 to 63).
    pub const fn line(self, index: u32) -> Line {
        Line((self.0 << 6) | (index as u64 & 63))
    }
}

impl Addr {
    /// An address under a KeyID.
    pub const fn new(hpa: Hpa, keyid: KeyId) -> Self {
        Addr { hpa, keyid }
    }
    /// The tagged line that holds this byte.
    pub const fn tagged(self) -> Tagged {
        Tagged::new(self.hpa.line(), self.keyid)
    }
}

impl Tagged {
    /// Packs a line and a KeyID.
    pub const fn new(line: Line, keyid: KeyId) -> Self {
        Tagged(((keyid.0 as u64) << TAG_KEY_SHIFT) | line.0)
    }
    /// The line.
    pub const fn line(self) -> Line {
        Line(self.0 & ((1 << TAG_KEY_SHIFT) - 1))
    }
    /// The KeyID.
    pub const fn keyid(self) -> KeyId {
        KeyId((self.0 >> TAG_KEY_SHIFT) as u16)
    }
    /// The packed word: unique for a (line, KeyID) pair and below 2^63.
    pub const fn word(self) -> u64 {
        self.0
    }
    /// The same KeyID, the line `delta` further on.
    pub const fn offset(self, delta: u64) -> Self {
        Tagged::new(Line(self.line().0 + delta), self.keyid())
    }
}

impl fmt::Display for Hpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Debug for Hpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hpa())
    }
}
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {self}")
    }
}
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hpa())
    }
}
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {self}")
    }
}
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hpa, self.keyid)
    }
}
impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.line(), self.keyid())
    }
}
impl fmt::Debug for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_the_widest_line_and_the_widest_keyid_apart() {
        let line = Line((1 << 46) - 1);
        let keyid = KeyId((1 << 15) - 1);
        let tag = Tagged::new(line, keyid);
        assert_eq!((tag.line(), tag.keyid()), (line, keyid));
        assert!(tag.word() < 1 << 63);
    }

    #[test]
    fn a_page_has_sixty_four_lines() {
        let page = Page(5);
        assert_eq!(page.line(0).hpa(), page.hpa());
        assert_eq!(page.line(63).hpa().0 + 64, Page(6).hpa().0);
        assert_eq!(page.line(17).index_in_page(), 17);
    }
}
