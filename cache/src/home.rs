//! Which LLC slice is home to a line, and which set of it.

use serde::{Deserialize, Serialize};
use sim_core::Line;
use sim_core::platform::{CpuSpec, XorMasks};

/// Bytes of a line number that the tables cover: line numbers are below 2^48.
const BYTES: usize = 6;

/// The home of every line. A home set is a number whose low bits are the slice and whose high bits are the set in the slice,
/// so that any rule which parts home sets parts slices as well.
///
/// A parity is linear, so the slice of a line is the XOR of what each byte of its number contributes: six look-ups.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Homes {
    stored: Stored,
    by_byte: Box<[[u8; 256]; BYTES]>,
}

/// What [`Homes`] is made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Stored {
    hash: XorMasks,
    slice_bits: u32,
    set_mask: u64,
}

impl From<Homes> for Stored {
    fn from(homes: Homes) -> Stored {
        homes.stored
    }
}

impl From<Stored> for Homes {
    fn from(stored: Stored) -> Homes {
        // A damaged snapshot may say anything.
        let stored = Stored { slice_bits: stored.slice_bits.min(7), ..stored };
        let mut by_byte = Box::new([[0; 256]; BYTES]);
        for (byte, table) in by_byte.iter_mut().enumerate() {
            for (value, slice) in (0u64..).zip(table.iter_mut()) {
                let line = Line(value << (8 * byte));
                *slice = stored.hash.number(line.hpa(), stored.slice_bits) as u8;
            }
        }
        Homes { stored, by_byte }
    }
}

impl Homes {
    /// The homes of a platform that has been checked: slices and sets are powers of two.
    pub(crate) fn new(cpu: &CpuSpec) -> Homes {
        let slices = u64::from(cpu.llc_slices.max(1));
        Homes::from(Stored {
            hash: cpu.slice_hash,
            slice_bits: slices.trailing_zeros(),
            set_mask: (cpu.llc.sets() / slices).max(1) - 1,
        })
    }
    /// The slice of a line.
    #[inline]
    pub(crate) fn slice(&self, line: Line) -> u8 {
        if self.stored.slice_bits == 0 {
            return 0;
        }
        let bytes = line.0.to_le_bytes();
        let of_bytes = self.by_byte.iter().zip(bytes);
        of_bytes.fold(0, |slice, (table, byte)| slice ^ table[usize::from(byte)])
    }
    /// The home set of a line.
    #[inline]
    pub(crate) fn home(&self, line: Line) -> u32 {
        let set = (line.0 & self.stored.set_mask) as u32;
        set << self.stored.slice_bits | u32::from(self.slice(line))
    }
    /// The slice of a home set.
    #[inline]
    pub(crate) const fn slice_of_home(&self, home: u32) -> u8 {
        (home & ((1 << self.stored.slice_bits) - 1)) as u8
    }
    /// The snoop-filter set of a line whose slice is known, numbered like home sets; the array wraps it.
    #[inline]
    pub(crate) const fn filter_set(&self, line: Line, slice: u8) -> u64 {
        line.0 << self.stored.slice_bits | slice as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sim_core::Hpa;

    fn homes(hash: XorMasks, slice_bits: u32, sets: u64) -> Homes {
        Homes::from(Stored { hash, slice_bits, set_mask: sets - 1 })
    }

    proptest! {
        #[test]
        fn the_slice_is_the_parity_of_the_masked_address(
            masks in proptest::collection::vec(64u64..1 << 52, 7), bits in 0u32..8, line in 0u64..1 << 46,
        ) {
            let masks: Vec<u64> = masks.iter().map(|m| m & !63).map(|m| m.max(64)).collect();
            let homes = homes(XorMasks::new(&masks), bits, 16);
            let Hpa(address) = Line(line).hpa();
            for (i, mask) in masks.iter().enumerate().take(bits as usize) {
                let parity = (address & mask).count_ones() & 1;
                prop_assert_eq!(u32::from(homes.slice(Line(line))) >> i & 1, parity, "bit {}", i);
            }
            prop_assert!(u32::from(homes.slice(Line(line))) < 1 << bits);
            let home = homes.home(Line(line));
            prop_assert_eq!(homes.slice_of_home(home), homes.slice(Line(line)));
            prop_assert_eq!(u64::from(home >> bits), line & 15);
        }
    }

    #[test]
    fn homes_read_back_are_the_same() {
        let homes = homes(XorMasks::new(&[0x2_0040, 0x4_0080]), 2, 64);
        let bytes = postcard::to_stdvec(&homes).unwrap();
        assert_eq!(postcard::from_bytes::<Homes>(&bytes), Ok(homes));
    }
}
