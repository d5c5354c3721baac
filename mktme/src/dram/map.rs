//! Which bank, row and column of which channel holds a line.
//!
//! Every bit of a place is the XOR of some bits of the physical address: a linear function over GF(2), held as a mask. A map
//! is a list of such functions per [`Field`]; it is accepted if it is a bijection, which elimination decides, and is
//! then turned into tables of six bits each, so that decoding is at most eight look-ups whatever the functions are.
//!
//! **Text.** The value of `dram.map` is the name of a row of [`PRESETS`], or the functions themselves:
//!
//! ```text
//! map      = field *( ";" field )
//! field    = ( "channel" | "subchannel" | "rank" | "bank_group" | "bank" | "column" | "row" ) "=" item *( "," item )
//! item     = bit                        a function of one bit
//!          | bit "-" bit                a function of one bit for each in the range, ascending
//!          | term 1*( "^" term )        a function: the XOR of all the bits
//! term     = bit | bit "-" bit          a bit, or all in the range
//! ```
//!
//! Functions are listed from the least significant bit of the field. Bits are those of the physical address, 6 to 51; spaces
//! do not matter. A field of no bits is left out. As many row bits may be given as one likes: the address bits after as many
//! as there are functions go on top of the row, in order. So lines beyond the installed capacity still have a place of
//! their own, in rows that are not installed.
//!
//! The hash of Sapphire Rapids and its successors is not public (timing.md §2.4); the preset `hashed` is assumed.

use super::SpecError;
use super::device::{Bank, Spot};
use super::organisation::Organisation;
use serde::{Deserialize, Serialize};
use sim_core::Line;
use sim_core::platform::DramSpec;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

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
    /// Line within the row: the column divided by 16.
    pub column: u16,
}

/// The lowest address bit that a map may use: a line has 64 bytes.
pub const FIRST_BIT: u32 = 6;
/// Address bits below this one may be used: MAXPA is at most 52.
pub const END_BIT: u32 = 52;
/// Bits of a line's number that a map turns into a place; higher ones are ignored.
pub const LINE_BITS: u32 = END_BIT - FIRST_BIT;

/// A part of a [`Place`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Field {
    /// [`Place::channel`].
    Channel,
    /// [`Place::subchannel`].
    Subchannel,
    /// [`Place::rank`].
    Rank,
    /// [`Place::bank_group`].
    BankGroup,
    /// [`Place::bank`].
    Bank,
    /// [`Place::column`].
    Column,
    /// [`Place::row`].
    Row,
}

/// How many fields there are.
pub const FIELD_COUNT: usize = 7;

impl Field {
    /// All, in order.
    pub const ALL: [Field; FIELD_COUNT] = [
        Field::Channel,
        Field::Subchannel,
        Field::Rank,
        Field::BankGroup,
        Field::Bank,
        Field::Column,
        Field::Row,
    ];
    /// As `dram.map` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Field::Channel => "channel",
            Field::Subchannel => "subchannel",
            Field::Rank => "rank",
            Field::BankGroup => "bank_group",
            Field::Bank => "bank",
            Field::Column => "column",
            Field::Row => "row",
        }
    }
    /// Where a packed place has it. Wide enough for every [`Organisation`].
    const fn shift(self) -> u32 {
        match self {
            Field::Channel => 0,
            Field::Subchannel => 4,
            Field::Rank => 5,
            Field::BankGroup => 7,
            Field::Bank => 10,
            Field::Column => 12,
            Field::Row => 20,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many bits each field of a subchannel's places has; of the row, as many as number the installed rows.
type Widths = [u32; FIELD_COUNT];

fn widths(channels: u8, organisation: &Organisation) -> Widths {
    [
        u32::from(channels).trailing_zeros(),
        1,
        u32::from(organisation.ranks).trailing_zeros(),
        u32::from(organisation.bank_groups).trailing_zeros(),
        u32::from(organisation.banks_per_group).trailing_zeros(),
        organisation.lines_per_row().trailing_zeros(),
        organisation.rows.next_power_of_two().trailing_zeros(),
    ]
}

// ---- Functions and their text ------------------------------------------------------------------------------------------

/// The functions of every field: for each bit of the field, from the least significant, the mask of the address bits
/// whose XOR it is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct MapFunctions([Vec<u64>; FIELD_COUNT]);

/// Why a map is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MapError {
    /// The text is not one.
    #[error("dram.map: found {found} at character {position}, expected {expected}")]
    Text {
        /// Of the offending text, counted from 1.
        position: usize,
        /// What stands there.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A field has not as many functions as it has bits.
    #[error(
        "dram.map: found functions for {found} bits of {field}, expected {expected}: {because}"
    )]
    Width {
        /// The field.
        field: Field,
        /// Functions given.
        found: usize,
        /// Bits of the field.
        expected: u32,
        /// What says so.
        because: &'static str,
    },
    /// More functions than address bits.
    #[error("dram.map: found functions for {0} bits, expected at most {LINE_BITS}")]
    TooMany(usize),
    /// The functions are not independent, so that several lines have one place.
    #[error("dram.map: found that {0} is 0 for every address, expected a bijection")]
    Dependent(String),
}

const fn bit(n: u32) -> u64 {
    1 << n
}

impl MapFunctions {
    /// The functions of a field.
    pub fn of(&self, field: Field) -> &[u64] {
        &self.0[field as usize]
    }
    fn count(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// The rows of the matrix: for every function its place in a packed [`Place`] and its mask over the bits of a line's
    /// number, row bits filled up.
    fn matrix(&self) -> Vec<(Field, u32, u64)> {
        let mut rows = Vec::with_capacity(LINE_BITS as usize);
        for field in Field::ALL {
            for (i, &mask) in (0u32..).zip(self.of(field)) {
                rows.push((field, i, mask >> FIRST_BIT));
            }
        }
        let (given, mut next) = (rows.len() as u32, self.of(Field::Row).len() as u32);
        for n in given..LINE_BITS {
            rows.push((Field::Row, next, bit(n)));
            next += 1;
        }
        rows
    }
}

impl fmt::Display for MapFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for field in Field::ALL.into_iter().filter(|&field| !self.of(field).is_empty()) {
            write!(f, "{}{field}=", if first { "" } else { "; " })?;
            first = false;
            let mut list = self.of(field);
            let mut comma = "";
            while let [mask, rest @ ..] = list {
                // As many functions of one bit as follow one another.
                let mut run = 0;
                while list.get(run).is_some_and(|m| {
                    mask.is_power_of_two() && m.is_power_of_two() && *m == mask << run
                }) {
                    run += 1;
                }
                let low = mask.trailing_zeros();
                if run > 1 {
                    write!(f, "{comma}{low}-{}", low as usize + run - 1)?;
                    list = list.get(run..).unwrap_or_default();
                } else {
                    write!(f, "{comma}")?;
                    write_function(f, *mask)?;
                    list = rest;
                }
                comma = ",";
            }
        }
        Ok(())
    }
}

/// A function: its bits, of which three or more in a row are a range, the first term never.
fn write_function(f: &mut fmt::Formatter<'_>, mask: u64) -> fmt::Result {
    let mut rest = mask;
    while rest != 0 {
        let low = rest.trailing_zeros();
        let run = (rest >> low).trailing_ones();
        let first = rest == mask;
        let run = if first || run < 3 { 1 } else { run };
        write!(f, "{}{low}", if first { "" } else { "^" })?;
        if run > 1 {
            write!(f, "-{}", low + run - 1)?;
        }
        rest &= !(((1u64 << run) - 1) << low);
    }
    Ok(())
}

/// A piece of a map's text and where it begins.
#[derive(Clone, Copy)]
struct Piece<'a> {
    at: usize,
    text: &'a str,
}

impl<'a> Piece<'a> {
    /// The pieces between separators.
    fn split(self, separator: char) -> impl Iterator<Item = Piece<'a>> {
        let mut at = self.at;
        self.text.split(separator).map(move |text| {
            let piece = Piece { at, text };
            at += text.chars().count() + 1;
            piece
        })
    }
    fn trim(self) -> Piece<'a> {
        let text = self.text.trim_start();
        let at = self.at + self.text.chars().count() - text.chars().count();
        Piece { at, text: text.trim_end() }
    }
    fn wrong(self, expected: impl Into<String>) -> MapError {
        let found = match self.text {
            "" => "nothing".to_owned(),
            text => format!("{:?}", text.chars().take(40).collect::<String>()),
        };
        MapError::Text { position: self.at + 1, found, expected: expected.into() }
    }
    fn address_bit(self) -> Result<u32, MapError> {
        let piece = self.trim();
        let digits = piece.text.bytes().all(|b| b.is_ascii_digit());
        match piece.text.parse() {
            Ok(n) if digits && (FIRST_BIT..END_BIT).contains(&n) => Ok(n),
            _ => Err(piece.wrong(format!(
                "an address bit from {FIRST_BIT} to {}",
                END_BIT.saturating_sub(1)
            ))),
        }
    }
    /// A bit or an ascending range of bits, as the first and the last.
    fn range(self) -> Result<(u32, u32), MapError> {
        let mut ends = self.split('-');
        let (Some(first), last) = (ends.next(), ends.next()) else {
            return Err(self.wrong("an address bit"));
        };
        let low = first.address_bit()?;
        let Some(last) = last else { return Ok((low, low)) };
        let high = last.address_bit()?;
        if let Some(more) = ends.next() {
            return Err(more.trim().wrong("two bits in a range"));
        }
        if high <= low {
            return Err(last.trim().wrong(format!("a bit above {low}")));
        }
        Ok((low, high))
    }
    /// Adds the functions of an item to a list.
    fn item(self, list: &mut Vec<u64>) -> Result<(), MapError> {
        let mut terms = self.split('^').peekable();
        let Some(first) = terms.next() else { return Err(self.wrong("a function")) };
        let (low, high) = first.range()?;
        if terms.peek().is_none() {
            list.extend((low..=high).map(bit));
            return Ok(());
        }
        let mut mask = (low..=high).fold(0, |mask, n| mask | bit(n));
        for term in terms {
            let (low, high) = term.range()?;
            for n in low..=high {
                if mask & bit(n) != 0 {
                    return Err(term.trim().wrong(format!("bit {n} once in a function")));
                }
                mask |= bit(n);
            }
        }
        list.push(mask);
        Ok(())
    }
}

impl FromStr for MapFunctions {
    type Err = MapError;

    fn from_str(text: &str) -> Result<MapFunctions, MapError> {
        let mut functions = MapFunctions::default();
        for part in (Piece { at: 0, text }).split(';') {
            let mut sides = part.split('=');
            let (Some(name), list) = (sides.next(), sides.next()) else {
                return Err(part.wrong("a field"));
            };
            let name = name.trim();
            let Some(field) = Field::ALL.into_iter().find(|f| f.name() == name.text) else {
                return Err(name.wrong(format!("{}, or one of {}", preset_names(), field_names())));
            };
            let Some(list) = list else {
                let end = Piece { at: name.at + name.text.len(), text: "" };
                return Err(end.wrong("\"=\" and the functions of the field"));
            };
            if let Some(more) = sides.next() {
                return Err(more.trim().wrong("one \"=\" per field"));
            }
            let into = &mut functions.0[field as usize];
            if !into.is_empty() {
                return Err(name.wrong("each field once"));
            }
            for item in list.split(',') {
                item.item(into)?;
                // Nothing longer can be a bijection, and a text need not be short.
                if into.len() > LINE_BITS as usize {
                    return Err(item.trim().wrong(format!("at most {LINE_BITS} bits in a field")));
                }
            }
        }
        Ok(functions)
    }
}

fn field_names() -> String {
    Field::ALL.map(Field::name).join(", ")
}

fn preset_names() -> String {
    PRESETS.map(|p| p.name).join(", ")
}

// ---- Presets -----------------------------------------------------------------------------------------------------------

/// A stretch of the address, from the least significant bit that is not yet taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// So many of the lowest bits of a field that are not yet placed.
    Low(Field, u32),
    /// The rest of a field.
    All(Field),
}

/// What is XORed into a field after the address has been cut up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// The address bits that lie so many bits above the field's own.
    Above(&'static [u32]),
    /// All address bits from here on that are not the channel's own.
    Parity,
    /// The row, cut into slices as wide as all fields mixed this way, in the order of the list; every slice.
    FoldedRow,
    /// The column, from its lowest bit, shared out to all fields mixed this way, in the order of the list.
    Column,
}

/// A row of [`PRESETS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preset {
    /// As `dram.map` spells it.
    pub name: &'static str,
    /// The address, from bit 6 up.
    pub layout: &'static [Part],
    /// What is XORed into what.
    pub mixed: &'static [(Field, Mix)],
    /// From where.
    pub cite: &'static str,
}

/// The maps that have a name. A subchannel stands where the source has a channel of 32 bits.
///
/// Intel's maps of SKX (timing.md §2.4) are not here: they are for four bank groups of DDR4, and bits for the other four would
/// be invented.
pub const PRESETS: [Preset; 4] = {
    use Field::{Bank, BankGroup, Channel, Column, Rank, Row, Subchannel};
    use Part::{All, Low};
    [
        Preset {
            name: "hashed",
            layout: &[
                All(Subchannel),
                Low(BankGroup, 1),
                All(Channel),
                All(BankGroup),
                All(Column),
                All(Bank),
                All(Rank),
                All(Row),
            ],
            mixed: &[
                (Channel, Mix::Above(&[5, 11, 17])),
                (BankGroup, Mix::FoldedRow),
                (Bank, Mix::FoldedRow),
                (Rank, Mix::FoldedRow),
                (Subchannel, Mix::Parity),
            ],
            cite: "timing.md §2.4 [A]: 256 B channel interleave, XOR over higher bits; distances assumed",
        },
        Preset {
            name: "RoBaRaCoCh",
            layout: &[
                All(Subchannel),
                All(Channel),
                All(Column),
                All(Rank),
                All(BankGroup),
                All(Bank),
                All(Row),
            ],
            mixed: &[],
            cite: "timing.md §2.1 [V]: Ramulator",
        },
        Preset {
            name: "ChRaBaRoCo",
            layout: &[
                All(Column),
                All(Row),
                All(Bank),
                All(BankGroup),
                All(Rank),
                All(Subchannel),
                All(Channel),
            ],
            mixed: &[],
            cite: "timing.md §2.1 [V]: Ramulator",
        },
        Preset {
            name: "MOP4CLXOR",
            layout: &[
                All(Subchannel),
                All(Channel),
                Low(Column, 2),
                All(Rank),
                All(BankGroup),
                All(Bank),
                All(Column),
                All(Row),
            ],
            mixed: &[(Rank, Mix::Column), (BankGroup, Mix::Column), (Bank, Mix::Column)],
            cite: "timing.md §2.1 [V]: Ramulator",
        },
    ]
};

impl Preset {
    /// The functions of the preset for a subchannel of some shape and a number of channels.
    pub fn functions(&self, channels: u8, organisation: &Organisation) -> MapFunctions {
        let widths = widths(channels, organisation);
        let mut functions = MapFunctions::default();
        let mut next = FIRST_BIT;
        for part in self.layout {
            let (field, most) = match *part {
                Part::Low(field, most) => (field, most),
                Part::All(field) => (field, u32::MAX),
            };
            let list = &mut functions.0[field as usize];
            let left = widths[field as usize].saturating_sub(list.len() as u32);
            for _ in 0..left.min(most).min(END_BIT - next) {
                list.push(bit(next));
                next += 1;
            }
        }
        // Row bits beyond the installed ones are mixed in as well.
        let own = functions.clone();
        let mut row = own.of(Field::Row).to_vec();
        row.extend((next..END_BIT).map(bit));
        let all = |mix| {
            let fields = self.mixed.iter().filter(move |(_, m)| *m == mix);
            fields.map(|(f, _)| own.of(*f).len()).sum::<usize>().max(1)
        };
        let (mut folded, mut shared) = (0, 0);
        for &(field, mix) in self.mixed {
            for function in &mut functions.0[field as usize] {
                *function ^= match mix {
                    Mix::Above(distances) => distances
                        .iter()
                        .fold(0, |mask, d| mask | *function << d & (bit(END_BIT) - 1)),
                    Mix::Parity => {
                        let channel = own.of(Field::Channel).iter().fold(0, |all, m| all | m);
                        (bit(END_BIT) - 1) & !(*function | (*function - 1) | channel)
                    }
                    Mix::FoldedRow => {
                        let slices = row.iter().skip(folded).step_by(all(Mix::FoldedRow));
                        folded += 1;
                        slices.fold(0, |mask, m| mask | m)
                    }
                    Mix::Column => {
                        shared += 1;
                        own.of(Field::Column).get(shared - 1).copied().unwrap_or(0)
                    }
                };
            }
        }
        functions
    }
}

/// [`PRESETS`] as a page of the book: the functions for 8 channels of two ranks of 16 Gb x4 devices.
pub fn map_markdown() -> String {
    let shape = Organisation {
        ranks: 2,
        bank_groups: 8,
        banks_per_group: 4,
        rows: 1 << 16,
        columns: 1 << 11,
    };
    let mut out = String::from("| Map | Field | Functions | Source |\n|---|---|---|---|\n");
    for preset in &PRESETS {
        let text = preset.functions(8, &shape).to_string();
        for field in text.split("; ") {
            let (field, functions) = field.split_once('=').unwrap_or((field, ""));
            let functions = functions.replace(',', ", ");
            out += &format!("| `{}` | {field} | {functions} | {} |\n", preset.name, preset.cite);
        }
    }
    out
}

// ---- The map -----------------------------------------------------------------------------------------------------------

/// Bits of a line's number that are looked up at once. With eight, the tables that a footprint of 1 GiB uses would take a fifth
/// of a host's first-level cache, which two subchannels nearly fill; with four, there would be more to look up than is saved.
const DIGIT: u32 = 5;
/// Digits that are always looked up: those of the first 2 GiB. Zero contributes nothing.
const USUAL: usize = 5;
/// A packed [`Place`] per digit of a line's number.
type Tables = [[u64; 1 << DIGIT]; LINE_BITS.div_ceil(DIGIT) as usize];

/// The map between lines and places: a bijection between the lines of 52-bit addresses and their places.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "MapFunctions", into = "MapFunctions")]
pub struct AddressMap {
    functions: MapFunctions,
    tables: Box<Tables>,
    /// For every bit of a line's number, the bits of a packed place whose XOR it is.
    inverse: [u64; LINE_BITS as usize],
    /// How many bits number the banks of a bank group.
    bank_bits: u8,
}

/// Two maps are the same if their functions are.
impl PartialEq for AddressMap {
    fn eq(&self, other: &AddressMap) -> bool {
        self.functions == other.functions
    }
}
impl Eq for AddressMap {}

impl From<AddressMap> for MapFunctions {
    fn from(map: AddressMap) -> MapFunctions {
        map.functions
    }
}

impl TryFrom<MapFunctions> for AddressMap {
    type Error = MapError;

    fn try_from(functions: MapFunctions) -> Result<AddressMap, MapError> {
        if functions.count() > LINE_BITS as usize {
            return Err(MapError::TooMany(functions.count()));
        }
        // Rows fill what the others leave: at least the subchannel and one column bit must be there.
        for (field, next) in Field::ALL.into_iter().zip(Field::ALL.into_iter().skip(1)) {
            let (found, most) = (functions.of(field).len(), next.shift() - field.shift());
            if found > most as usize {
                let because = "no organisation has more";
                return Err(MapError::Width { field, found, expected: most, because });
            }
        }
        let rows = functions.matrix();
        let top = rows.iter().map(|(f, i, _)| f.shift() + i).max().unwrap_or(0);
        if top >= u64::BITS {
            let found = functions.of(Field::Column).len();
            return Err(MapError::Width {
                field: Field::Column,
                found,
                expected: 2,
                because: "at least two bits are not the row's",
            });
        }
        let inverse = invert(&rows)?;
        let mut tables = Box::new([[0; 1 << DIGIT]; LINE_BITS.div_ceil(DIGIT) as usize]);
        for (digit, table) in (0u32..).zip(tables.iter_mut()) {
            // What each bit of the digit contributes, and then every value from a smaller one and its lowest bit.
            let images: [u64; DIGIT as usize] = std::array::from_fn(|n| {
                let own = (1u64 << n) << (DIGIT * digit);
                let rows = rows.iter().filter(|(_, _, mask)| mask & own != 0);
                rows.fold(0, |packed, (field, i, _)| packed | bit(field.shift() + i))
            });
            for value in 1..table.len() {
                let lowest = value.trailing_zeros() as usize;
                table[value] = table[value & (value - 1)] ^ images[lowest % DIGIT as usize];
            }
        }
        let bank_bits = functions.of(Field::Bank).len() as u8;
        Ok(AddressMap { functions, tables, inverse, bank_bits })
    }
}

/// The inverse of the matrix of all functions, by Gauss-Jordan elimination over GF(2): for every bit of a line's number the
/// bits of a packed place.
fn invert(rows: &[(Field, u32, u64)]) -> Result<[u64; LINE_BITS as usize], MapError> {
    // Every row beside the packed bits whose XOR it is by now.
    let mut left: Vec<(u64, u64)> =
        rows.iter().map(|(field, i, mask)| (*mask, bit(field.shift() + i))).collect();
    let mut done: Vec<(u32, u64, u64)> = Vec::with_capacity(left.len());
    while let Some((mask, from)) = left.pop() {
        if mask == 0 {
            let names = rows
                .iter()
                .filter(|(field, i, _)| from & bit(field.shift() + i) != 0)
                .map(|(field, i, _)| format!("{field}[{i}]"));
            return Err(MapError::Dependent(names.collect::<Vec<_>>().join(" ^ ")));
        }
        let pivot = mask.trailing_zeros();
        let clear = |m: &mut u64, f: &mut u64| {
            if *m & bit(pivot) != 0 {
                *m ^= mask;
                *f ^= from;
            }
        };
        left.iter_mut().for_each(|(m, f)| clear(m, f));
        done.iter_mut().for_each(|(_, m, f)| clear(m, f));
        done.push((pivot, mask, from));
    }
    let mut inverse = [0; LINE_BITS as usize];
    for (pivot, _, from) in done {
        if let Some(entry) = inverse.get_mut(pivot as usize) {
            *entry = from;
        }
    }
    Ok(inverse)
}

impl AddressMap {
    /// The map of a specification.
    ///
    /// # Errors
    /// A number outside its range ([`DramSpec`] says which), or a map that is none.
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
        let functions = match PRESETS.iter().find(|p| p.name == spec.map.trim()) {
            Some(preset) => preset.functions(spec.channels, organisation),
            None => spec.map.parse()?,
        };
        let widths = widths(spec.channels, organisation);
        for (field, expected) in Field::ALL.into_iter().zip(widths) {
            let found = functions.of(field).len();
            let because = match field {
                Field::Channel => "dram.channels",
                Field::Subchannel => "a channel has two",
                Field::Rank => "dram.ranks",
                Field::BankGroup | Field::Bank | Field::Column => "dram.density and dram.width",
                Field::Row => continue,
            };
            if found != expected as usize {
                return Err(MapError::Width { field, found, expected, because }.into());
            }
        }
        Ok(functions.try_into()?)
    }

    /// The functions that it is made of.
    pub const fn functions(&self) -> &MapFunctions {
        &self.functions
    }

    #[inline]
    fn packed(&self, line: Line) -> u64 {
        let mut packed = 0;
        let mut rest = line.0;
        let (low, high) = self.tables.split_at(USUAL);
        for table in low {
            packed ^= table[(rest % (1 << DIGIT)) as usize];
            rest >>= DIGIT;
        }
        if rest != 0 {
            for table in high {
                packed ^= table[(rest % (1 << DIGIT)) as usize];
                rest >>= DIGIT;
            }
        }
        packed
    }

    /// Where a line is, as queues see it: the subchannel of its package, by channel and subchannel, and its place there.
    #[inline]
    pub(super) fn spot(&self, line: Line) -> (usize, Spot) {
        let packed = self.packed(line);
        let subchannel = (packed & 15) << 1 | packed >> 4 & 1;
        let index = (packed >> 7 & 7) << (self.bank_bits & 3) | packed >> 10 & 3;
        let bank = Bank::new((packed >> 5 & 3) as u8, index as u8);
        (subchannel as usize, Spot::new(bank, packed >> 20, (packed >> 12 & 255) as u16))
    }

    /// Where a line is.
    #[inline]
    pub fn decode(&self, line: Line) -> Place {
        let packed = self.packed(line);
        Place {
            channel: (packed & 15) as u8,
            subchannel: (packed >> 4 & 1) as u8,
            rank: (packed >> 5 & 3) as u8,
            bank_group: (packed >> 7 & 7) as u8,
            bank: (packed >> 10 & 3) as u8,
            column: (packed >> 12 & 255) as u16,
            row: packed >> 20,
        }
    }

    /// The line at a place: the inverse of [`AddressMap::decode`]. Bits of the place outside the map are ignored.
    pub fn encode(&self, place: &Place) -> Line {
        let parts = [
            place.channel.into(),
            place.subchannel.into(),
            place.rank.into(),
            place.bank_group.into(),
            place.bank.into(),
            place.column.into(),
            place.row,
        ];
        let others = self.functions.count() - self.functions.of(Field::Row).len();
        let mut packed = 0;
        for (field, part) in Field::ALL.into_iter().zip::<[u64; FIELD_COUNT]>(parts) {
            let width = match field {
                Field::Row => LINE_BITS - others as u32,
                _ => self.functions.of(field).len() as u32,
            };
            packed |= (part & (bit(width) - 1)) << field.shift();
        }
        let line = (0u32..)
            .zip(&self.inverse)
            .fold(0, |line, (n, mask)| line | u64::from((packed & mask).count_ones() & 1) << n);
        Line(line)
    }

    /// The channel functions alone.
    pub fn channels(&self) -> ChannelMap {
        let mut masks = [0; 4];
        for (mask, function) in masks.iter_mut().zip(self.functions.of(Field::Channel)) {
            *mask = function >> FIRST_BIT;
        }
        ChannelMap { masks }
    }
}

/// Which channel of its package serves a line: the channel functions of an [`AddressMap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelMap {
    /// Over the bits of a line's number.
    masks: [u64; 4],
}

impl ChannelMap {
    /// [`Place::channel`] of a line.
    pub fn channel_of(&self, line: Line) -> u8 {
        (0u32..)
            .zip(self.masks)
            .fold(0, |channel, (i, mask)| channel | ((line.0 & mask).count_ones() as u8 & 1) << i)
    }
}

#[cfg(test)]
mod tests;
