//! What the checker is told: one command, its time, its place. The text form is the line of a command trace.

use super::trace::{Cursor, Fault};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A DDR5 command (JESD79-5 command truth table).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Cmd {
    /// Activate: opens a row.
    Act,
    /// Precharge of one bank.
    Pre,
    /// Precharge of all banks of a rank.
    PreAb,
    /// Read.
    Rd,
    /// Read with auto-precharge.
    Rda,
    /// Write.
    Wr,
    /// Write with auto-precharge.
    Wra,
    /// Refresh of all banks of a rank.
    RefAb,
    /// Same-bank refresh: the bank of one index in every bank group.
    RefSb,
}

/// How a command is spelled and what it names.
struct Spelling {
    cmd: Cmd,
    name: &'static str,
    fields: &'static [Field],
    /// Slots on the command bus, in clocks (timing.md §2.1: ACT, RD, WR take two).
    slots: u64,
}

/// An operand of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Rank,
    Group,
    Bank,
    Row,
    Column,
}

const COLUMN: &[Field] = &[Field::Rank, Field::Group, Field::Bank, Field::Row, Field::Column];

#[rustfmt::skip]
const SPELLINGS: [Spelling; Cmd::COUNT] = [
    Spelling { cmd: Cmd::Act,   name: "ACT",   fields: &[Field::Rank, Field::Group, Field::Bank, Field::Row], slots: 2 },
    Spelling { cmd: Cmd::Pre,   name: "PRE",   fields: &[Field::Rank, Field::Group, Field::Bank], slots: 1 },
    Spelling { cmd: Cmd::PreAb, name: "PREab", fields: &[Field::Rank], slots: 1 },
    Spelling { cmd: Cmd::Rd,    name: "RD",    fields: COLUMN, slots: 2 },
    Spelling { cmd: Cmd::Rda,   name: "RDA",   fields: COLUMN, slots: 2 },
    Spelling { cmd: Cmd::Wr,    name: "WR",    fields: COLUMN, slots: 2 },
    Spelling { cmd: Cmd::Wra,   name: "WRA",   fields: COLUMN, slots: 2 },
    Spelling { cmd: Cmd::RefAb, name: "REFab", fields: &[Field::Rank], slots: 1 },
    Spelling { cmd: Cmd::RefSb, name: "REFsb", fields: &[Field::Rank, Field::Bank], slots: 1 },
];

impl Cmd {
    /// How many there are.
    pub const COUNT: usize = 9;
    /// All of them, in the order of their discriminants.
    #[rustfmt::skip]
    pub const ALL: [Cmd; Cmd::COUNT] = [
        Cmd::Act, Cmd::Pre, Cmd::PreAb, Cmd::Rd, Cmd::Rda, Cmd::Wr, Cmd::Wra, Cmd::RefAb, Cmd::RefSb,
    ];

    const fn spelling(self) -> &'static Spelling {
        &SPELLINGS[self as usize]
    }
    /// As JESD79-5 spells it.
    pub const fn name(self) -> &'static str {
        self.spelling().name
    }
    /// Slots (clocks) it holds the command bus for.
    pub const fn slots(self) -> u64 {
        self.spelling().slots
    }
    /// Whether it is RD or RDA.
    pub const fn reads(self) -> bool {
        matches!(self, Cmd::Rd | Cmd::Rda)
    }
    /// Whether it is WR or WRA.
    pub const fn writes(self) -> bool {
        matches!(self, Cmd::Wr | Cmd::Wra)
    }
    /// The command that is spelled so.
    pub fn by_name(name: &[u8]) -> Option<Cmd> {
        SPELLINGS.iter().find(|s| s.name.as_bytes() == name).map(|s| s.cmd)
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A subchannel: a command bus and a 32-bit data bus of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// The package (socket).
    pub package: u16,
    /// The channel of the package.
    pub channel: u16,
    /// The subchannel of the channel.
    pub subchannel: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.package, self.channel, self.subchannel)
    }
}

/// A command as it stood on the bus. What the command does not name is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its (first) slot, in clocks since the start of the run.
    pub clock: u64,
    /// The bus.
    pub place: Place,
    /// What.
    pub cmd: Cmd,
    /// The rank.
    pub rank: u8,
    /// The bank group; of REFsb, PREab and REFab 0.
    pub group: u8,
    /// The bank in its group; of REFsb the bank of this index in every group.
    pub bank: u8,
    /// The row.
    pub row: u32,
    /// The column, in bursts of 64 bytes.
    pub column: u32,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.clock, self.place, self.cmd)?;
        for field in self.cmd.spelling().fields {
            match field {
                Field::Rank => write!(f, " {}", self.rank)?,
                Field::Group => write!(f, " {}", self.group)?,
                Field::Bank => write!(f, " {}", self.bank)?,
                Field::Row => write!(f, " {:#x}", self.row)?,
                Field::Column => write!(f, " {}", self.column)?,
            }
        }
        Ok(())
    }
}

impl Record {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// What was found, where, and what was expected there.
    pub fn parse(line: &[u8]) -> Result<Record, Fault> {
        let mut cursor = Cursor::new(line);
        let clock = cursor.decimal(u64::MAX >> 1, "a clock, in decimal")?;
        cursor.space("the place after the clock")?;
        let part = |c: &mut Cursor<'_>, what| -> Result<u16, Fault> {
            Ok(c.decimal(u64::from(u16::MAX), what)? as u16)
        };
        let package = part(&mut cursor, "a package")?;
        cursor.byte(b'.', "\".\" and a channel")?;
        let channel = part(&mut cursor, "a channel")?;
        cursor.byte(b'.', "\".\" and a subchannel")?;
        let place = Place { package, channel, subchannel: part(&mut cursor, "a subchannel")? };
        cursor.space("the command after the place")?;
        let cmd =
            cursor.word(Cmd::by_name, "one of ACT, PRE, PREab, RD, RDA, WR, WRA, REFab, REFsb")?;
        let mut record =
            Record { clock, place, cmd, rank: 0, group: 0, bank: 0, row: 0, column: 0 };
        let byte = u64::from(u8::MAX);
        let word = u64::from(u32::MAX);
        for field in cmd.spelling().fields {
            match field {
                Field::Rank => {
                    cursor.space("a rank")?;
                    record.rank = cursor.decimal(byte, "a rank, 0 to 255")? as u8;
                }
                Field::Group => {
                    cursor.space("a bank group")?;
                    record.group = cursor.decimal(byte, "a bank group, 0 to 255")? as u8;
                }
                Field::Bank => {
                    cursor.space("a bank")?;
                    record.bank = cursor.decimal(byte, "a bank, 0 to 255")? as u8;
                }
                Field::Row => {
                    cursor.space("a row")?;
                    record.row = cursor.number(word, "a row, like 0x1a2b")? as u32;
                }
                Field::Column => {
                    cursor.space("a column")?;
                    record.column = cursor.decimal(word, "a column, in decimal")? as u32;
                }
            }
        }
        cursor.end("the end of the line")?;
        Ok(record)
    }
}

impl FromStr for Record {
    type Err = Fault;
    fn from_str(s: &str) -> Result<Record, Fault> {
        Record::parse(s.as_bytes())
    }
}
