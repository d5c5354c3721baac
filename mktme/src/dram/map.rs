//! Which bank, row and column of which channel holds a line.
//!
//! The hash of Sapphire Rapids and its successors is not public; everything here is the proposal of timing.md §2.4 and
//! assumed. From the least significant bit of a line's number within its channel: subchannel (XOR the parity of all
//! higher bits), bank group, column, bank, rank, row; bank group, bank and rank are XORed with the folded row.

use super::SpecError;
use super::organisation::Organisation;
use serde::{Deserialize, Serialize};
use sim_core::Line;
use sim_core::platform::DramSpec;

/// Where a line is, within a package.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Channel of the package.
    pub channel: u8,
    /// Subchannel of the channel, 0 or 1.
    pub subchannel: u8,
    /// Rank of the subchannel.
    pub rank: u8,
    /// Bank group of the rank.
    pub bank_group: u8,
    /// Bank of the bank group.
    pub bank: u8,
    /// Row of the bank. Lines above the installed capacity have larger numbers than any installed row.
    pub row: u64,
    /// Line within the row: the column divided by 16 (x4 and x8 devices).
    pub column: u16,
}

/// The map between lines and places: a bijection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressMap {
    channels: u8,
    channel_bits: u32,
    group_bits: u32,
    column_bits: u32,
    bank_bits: u32,
    rank_bits: u32,
}

/// Lines after which addresses go to the next channel: 256 bytes (timing.md §2.4 [A]).
const UNIT_BITS: u32 = 2;

const fn mask(bits: u32) -> u64 {
    (1u64 << bits) - 1
}

/// Takes `bits` bits off the low end of `rest`.
const fn take(rest: &mut u64, bits: u32) -> u64 {
    let low = *rest & mask(bits);
    *rest >>= bits;
    low
}

const fn parity(bits: u64) -> u64 {
    (bits.count_ones() & 1) as u64
}

impl AddressMap {
    /// The map of a specification.
    ///
    /// # Errors
    /// A number outside its range, or a map that is not one.
    pub fn new(spec: &DramSpec) -> Result<AddressMap, SpecError> {
        AddressMap::with_organisation(spec, &Organisation::of(spec))
    }

    /// As [`AddressMap::new`], for subchannels of another shape.
    ///
    /// # Errors
    /// Those of [`AddressMap::new`].
    pub fn with_organisation(
        spec: &DramSpec,
        organisation: &Organisation,
    ) -> Result<AddressMap, SpecError> {
        super::check_spec(spec, organisation)?;
        Ok(AddressMap {
            channels: spec.channels,
            channel_bits: spec.channels.trailing_zeros(),
            group_bits: organisation.bank_groups.trailing_zeros(),
            column_bits: organisation.lines_per_row().trailing_zeros(),
            bank_bits: organisation.banks_per_group.trailing_zeros(),
            rank_bits: organisation.ranks.trailing_zeros(),
        })
    }

    /// Which channel of its package serves a line.
    pub const fn channel_of(&self, line: Line) -> u8 {
        let unit = line.0 >> UNIT_BITS;
        let folded = unit ^ unit >> 5 ^ unit >> 11 ^ unit >> 17;
        (folded & (self.channels as u64 - 1)) as u8
    }

    /// Where a line is.
    pub const fn decode(&self, line: Line) -> Place {
        let channel = self.channel_of(line);
        // The number of the line among those of its channel: the channel bits are cut out.
        let mut rest = line.0;
        let within = take(&mut rest, UNIT_BITS);
        rest = (rest >> self.channel_bits) << UNIT_BITS | within;

        let low = take(&mut rest, 1);
        let subchannel = low ^ parity(rest);
        let group = take(&mut rest, self.group_bits);
        let column = take(&mut rest, self.column_bits);
        let bank = take(&mut rest, self.bank_bits);
        let rank = take(&mut rest, self.rank_bits);
        let row = rest;
        let hash = self.row_hash(row);
        Place {
            channel,
            subchannel: subchannel as u8,
            rank: (rank ^ hash.2) as u8,
            bank_group: (group ^ hash.0) as u8,
            bank: (bank ^ hash.1) as u8,
            row,
            column: column as u16,
        }
    }

    /// The line at a place: the inverse of [`AddressMap::decode`]. Bits of the place outside the geometry are ignored.
    pub const fn encode(&self, place: &Place) -> Line {
        let hash = self.row_hash(place.row);
        let mut rest = place.row;
        rest = rest << self.rank_bits | (place.rank as u64 ^ hash.2) & mask(self.rank_bits);
        rest = rest << self.bank_bits | (place.bank as u64 ^ hash.1) & mask(self.bank_bits);
        rest = rest << self.column_bits | place.column as u64 & mask(self.column_bits);
        rest = rest << self.group_bits | (place.bank_group as u64 ^ hash.0) & mask(self.group_bits);
        rest = rest << 1 | (place.subchannel as u64 ^ parity(rest)) & 1;
        let within = take(&mut rest, UNIT_BITS);
        // The channel number is the XOR of its own bits, zero so far, with higher ones: what is missing is the rest.
        let line = Line(rest << (UNIT_BITS + self.channel_bits) | within);
        let missing = (self.channel_of(line) ^ place.channel) as u64 & mask(self.channel_bits);
        Line(line.0 | missing << UNIT_BITS)
    }

    /// What is XORed into bank group, bank and rank: all row bits, folded to the width of the three, so that lines a power
    /// of two apart spread over banks.
    const fn row_hash(&self, row: u64) -> (u64, u64, u64) {
        let width = self.group_bits + self.bank_bits + self.rank_bits;
        let mut fold = row ^ row >> width;
        fold ^= fold >> (2 * width);
        fold ^= fold >> (4 * width);
        let group = take(&mut fold, self.group_bits);
        let bank = take(&mut fold, self.bank_bits);
        (group, bank, fold & mask(self.rank_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn geometries()(
            channels in 0u32..5, ranks in 0u32..3, groups in 0u32..4, banks in 0u32..3, lines in 0u32..13,
        ) -> (DramSpec, Organisation) {
            let organisation = Organisation {
                ranks: 1 << ranks,
                bank_groups: 1 << groups,
                banks_per_group: 1 << banks,
                rows: 1 << 16,
                columns: 16 << lines,
            };
            (DramSpec { channels: 1 << channels, ranks: 1 << ranks, ..spec() }, organisation)
        }
    }

    proptest! {
        #[test]
        fn every_line_has_its_own_place((spec, shape) in geometries(), line in 0u64..1 << 46) {
            let map = AddressMap::with_organisation(&spec, &shape).unwrap();
            let place = map.decode(Line(line));
            prop_assert_eq!(map.encode(&place), Line(line));
            prop_assert_eq!(place.channel, map.channel_of(Line(line)));
            prop_assert!(place.channel < spec.channels && place.subchannel < 2);
            prop_assert!(place.rank < shape.ranks && place.bank_group < shape.bank_groups);
            prop_assert!(place.bank < shape.banks_per_group && u32::from(place.column) < shape.lines_per_row());
        }

        #[test]
        fn every_place_has_its_own_line(
            (spec, shape) in geometries(), row in 0u64..1 << 20, random: u64,
        ) {
            let map = AddressMap::with_organisation(&spec, &shape).unwrap();
            let place = Place {
                channel: random as u8 & (spec.channels - 1),
                subchannel: (random >> 8) as u8 & 1,
                rank: (random >> 16) as u8 & (shape.ranks - 1),
                bank_group: (random >> 24) as u8 & (shape.bank_groups - 1),
                bank: (random >> 32) as u8 & (shape.banks_per_group - 1),
                row,
                column: (random >> 40) as u16 & (shape.lines_per_row() - 1) as u16,
            };
            prop_assert_eq!(map.decode(map.encode(&place)), place);
        }

        #[test]
        fn any_64_bit_line_number_decodes_without_a_panic((spec, shape) in geometries(), line: u64) {
            let map = AddressMap::with_organisation(&spec, &shape).unwrap();
            let place = map.decode(Line(line));
            prop_assert!(place.rank < shape.ranks && u32::from(place.column) < shape.lines_per_row());
        }
    }

    #[test]
    fn a_page_uses_all_sixteen_subchannels_evenly() {
        let map = AddressMap::new(&spec()).unwrap();
        for page in 0..50u64 {
            let mut count = [0u32; 16];
            for line in 0..64 {
                let place = map.decode(Line(page * 64 + line));
                count[usize::from(place.channel * 2 + place.subchannel)] += 1;
            }
            assert_eq!(count, [4; 16], "page {page}");
        }
    }

    #[test]
    fn lines_a_power_of_two_apart_do_not_all_meet_in_one_bank() {
        let map = AddressMap::new(&spec()).unwrap();
        for shift in 0..28 {
            let mut banks: Vec<_> = (0..256u64)
                .map(|i| {
                    let p = map.decode(Line(i << shift));
                    (p.channel, p.subchannel, p.rank, p.bank_group, p.bank)
                })
                .collect();
            banks.sort_unstable();
            banks.dedup();
            assert!(banks.len() >= 16, "stride 2^{shift}: {} banks", banks.len());
        }
    }
}
