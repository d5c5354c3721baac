//! The specification tables of the memory controller, as data: one row per row of the sheet, one citation per row.
//!
//! The controller decides by looking a request up here and nowhere else. A request that no row or two rows describe does
//! not compile: the lookup arrays are built and checked at compile time.

use serde::{Deserialize, Serialize};
use sim_core::event::{BirthCause, Rule};
use sim_core::op::KeyAlg;
use sim_core::platform::IntegrityMode;
use std::fmt;

/// The class of a request's KeyID: all that the controller knows of whoever asks (architecture.md §2.1 2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum KeyClass {
    /// One of the top p KeyID bits is set. In Ci such a KeyID always has integrity (architecture.md §1.3 1.3.1).
    Private,
    /// Shared, programmed by PCONFIG with an integrity algorithm. Exists in Ci only (architecture.md §2.1 2.1.5).
    SharedIntegrity,
    /// Shared without integrity. KeyID 0 is always one (architecture.md §1.3 1.3.5).
    Shared,
}

impl KeyClass {
    /// All classes.
    pub const ALL: [KeyClass; 3] = [KeyClass::Private, KeyClass::SharedIntegrity, KeyClass::Shared];
}

/// Which classes a row speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Classes {
    /// Private KeyIDs.
    Private,
    /// Shared KeyIDs with integrity.
    SharedIntegrity,
    /// Shared KeyIDs without integrity.
    Shared,
    /// Shared KeyIDs of either kind.
    AnyShared,
    /// All KeyIDs.
    Any,
}

impl Classes {
    /// Whether a class is among them.
    pub const fn has(self, class: KeyClass) -> bool {
        match self {
            Classes::Private => matches!(class, KeyClass::Private),
            Classes::SharedIntegrity => matches!(class, KeyClass::SharedIntegrity),
            Classes::Shared => matches!(class, KeyClass::Shared),
            Classes::AnyShared => !matches!(class, KeyClass::Private),
            Classes::Any => true,
        }
    }
}

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Classes::Private => "private",
            Classes::SharedIntegrity => "shared, integrity on",
            Classes::Shared => "shared, no integrity (incl. KeyID 0)",
            Classes::AnyShared => "shared (any, incl. KeyID 0)",
            Classes::Any => "any",
        })
    }
}

/// A yes/no column of a row; `Any` where the row does not care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bit {
    /// 0.
    No,
    /// 1.
    Yes,
    /// Either.
    Any,
}

impl Bit {
    /// Whether the row speaks of this value.
    pub const fn has(self, value: bool) -> bool {
        match self {
            Bit::No => !value,
            Bit::Yes => value,
            Bit::Any => true,
        }
    }
}

impl fmt::Display for Bit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bit::No => "0",
            Bit::Yes => "1",
            Bit::Any => "*",
        })
    }
}

/// The MAC column of the read tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mac {
    /// The row does not look at the MAC.
    NotChecked,
    /// The recomputed MAC equals the stored one.
    Match,
    /// It does not, or none is stored.
    Mismatch,
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mac::NotChecked => "not checked",
            Mac::Match => "match",
            Mac::Mismatch => "mismatch",
        })
    }
}

/// The mode column of the write table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modes {
    /// Cryptographic integrity.
    Ci,
    /// Logical integrity.
    Li,
    /// Either.
    Any,
}

impl Modes {
    /// Whether the row speaks of this mode.
    pub const fn has(self, mode: IntegrityMode) -> bool {
        match self {
            Modes::Ci => matches!(mode, IntegrityMode::Ci),
            Modes::Li => matches!(mode, IntegrityMode::Li),
            Modes::Any => true,
        }
    }
}

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Modes::Ci => "Ci",
            Modes::Li => "Li",
            Modes::Any => "any",
        })
    }
}

/// What a read returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// The line decrypted with the reader's key.
    Plaintext,
    /// 64 zero bytes in place of the line.
    Zeros,
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Returned::Plaintext => "pt",
            Returned::Zeros => "0",
        })
    }
}

/// A row of architecture.md §2.2 (Ci) or §2.3 (Li). Where poison is returned it is also stored (MC-02), so one column
/// stands for both "poison returned" and "newP".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRow {
    /// Its name.
    pub rule: Rule,
    /// Which table.
    pub mode: IntegrityMode,
    /// KeyID class of the reader.
    pub class: Classes,
    /// TD bit in DRAM.
    pub td: bool,
    /// MAC recomputation.
    pub mac: Mac,
    /// Poison bit in DRAM before.
    pub old_poison: bool,
    /// Data.
    pub data: Returned,
    /// Poison with the data and in DRAM afterwards.
    pub poison: bool,
    /// Why poison is born, where the row bears it.
    pub cause: Option<BirthCause>,
    /// The sheet's source.
    pub source: &'static str,
}

#[expect(clippy::too_many_arguments, reason = "one per column of the sheet")]
const fn rc(
    rule: u8,
    class: Classes,
    td: bool,
    mac: Mac,
    old_poison: bool,
    data: Returned,
    cause: Option<BirthCause>,
    source: &'static str,
) -> ReadRow {
    let mode = IntegrityMode::Ci;
    let poison = old_poison || cause.is_some();
    ReadRow { rule: Rule::Rc(rule), mode, class, td, mac, old_poison, data, poison, cause, source }
}

const fn rl(
    rule: u8,
    class: Classes,
    td: bool,
    old_poison: bool,
    data: Returned,
    cause: Option<BirthCause>,
    source: &'static str,
) -> ReadRow {
    let mode = IntegrityMode::Li;
    let poison = old_poison || cause.is_some();
    let mac = Mac::NotChecked;
    ReadRow { rule: Rule::Rl(rule), mode, class, td, mac, old_poison, data, poison, cause, source }
}

use BirthCause::{MacMismatch, SharedIntegrity, TdMismatch};
use Returned::{Plaintext, Zeros};

/// Checks on reads: architecture.md §2.2 (Table 16.2) and §2.3 (Table 16.3). Rows with old poison follow the text, not the
/// remark "may" (D-03, MC-01).
#[rustfmt::skip]
pub const READS: [ReadRow; 24] = [
    rc(1,  Classes::Private,         false, Mac::NotChecked, false, Zeros,     Some(TdMismatch),      "Table 16.2 row 1"),
    rc(2,  Classes::Private,         false, Mac::NotChecked, true,  Zeros,     None,                  "Table 16.2 row 1 + text"),
    rc(3,  Classes::Private,         true,  Mac::Match,      false, Plaintext, None,                  "Table 16.2 row 2"),
    rc(4,  Classes::Private,         true,  Mac::Match,      true,  Zeros,     None,                  "Table 16.2 row 2 remark; MC-01"),
    rc(5,  Classes::Private,         true,  Mac::Mismatch,   false, Zeros,     Some(MacMismatch),     "Table 16.2 row 3"),
    rc(6,  Classes::Private,         true,  Mac::Mismatch,   true,  Zeros,     None,                  "Table 16.2 row 3 + text"),
    rc(7,  Classes::SharedIntegrity, false, Mac::Match,      false, Plaintext, None,                  "Table 16.2 row 4"),
    rc(8,  Classes::SharedIntegrity, false, Mac::Match,      true,  Zeros,     None,                  "Table 16.2 row 4 remark; MC-01"),
    rc(9,  Classes::SharedIntegrity, false, Mac::Mismatch,   false, Zeros,     Some(MacMismatch),     "Table 16.2 row 5"),
    rc(10, Classes::SharedIntegrity, false, Mac::Mismatch,   true,  Zeros,     None,                  "Table 16.2 row 5 + text"),
    rc(11, Classes::SharedIntegrity, true,  Mac::NotChecked, false, Zeros,     Some(SharedIntegrity), "Table 16.2 row 6"),
    rc(12, Classes::SharedIntegrity, true,  Mac::NotChecked, true,  Zeros,     None,                  "Table 16.2 row 6 + text"),
    rc(13, Classes::Shared,          false, Mac::NotChecked, false, Plaintext, None,                  "Table 16.2 row 7"),
    rc(14, Classes::Shared,          false, Mac::NotChecked, true,  Zeros,     None,                  "Table 16.2 row 7 remark; MC-01"),
    rc(15, Classes::Shared,          true,  Mac::NotChecked, false, Zeros,     None,                  "Table 16.2 row 8"),
    rc(16, Classes::Shared,          true,  Mac::NotChecked, true,  Zeros,     None,                  "Table 16.2 row 8 remark"),
    rl(1,  Classes::Private,         false,                  false, Zeros,     Some(TdMismatch),      "Table 16.3 row 1"),
    rl(2,  Classes::Private,         false,                  true,  Zeros,     None,                  "Table 16.3 row 1 + text"),
    rl(3,  Classes::Private,         true,                   false, Plaintext, None,                  "Table 16.3 row 2"),
    rl(4,  Classes::Private,         true,                   true,  Zeros,     None,                  "Table 16.3 row 2 remark; MC-01"),
    rl(5,  Classes::AnyShared,       false,                  false, Plaintext, None,                  "Table 16.3 row 3"),
    rl(6,  Classes::AnyShared,       false,                  true,  Zeros,     None,                  "Table 16.3 row 3 remark; MC-01"),
    rl(7,  Classes::AnyShared,       true,                   false, Zeros,     None,                  "Table 16.3 row 4"),
    rl(8,  Classes::AnyShared,       true,                   true,  Zeros,     None,                  "Table 16.3 row 4 remark"),
];

const fn same_mode(a: IntegrityMode, b: IntegrityMode) -> bool {
    a as u8 == b as u8
}

impl ReadRow {
    const fn describes(
        &self,
        mode: IntegrityMode,
        class: KeyClass,
        td: bool,
        mac_ok: bool,
        poison: bool,
    ) -> bool {
        same_mode(self.mode, mode)
            && self.class.has(class)
            && self.td == td
            && self.old_poison == poison
            && match self.mac {
                Mac::NotChecked => true,
                Mac::Match => mac_ok,
                Mac::Mismatch => !mac_ok,
            }
    }
}

const fn read_index(
    mode: IntegrityMode,
    class: KeyClass,
    td: bool,
    mac_ok: bool,
    poison: bool,
) -> usize {
    (mode as usize) << 5
        | (class as usize) << 3
        | (td as usize) << 2
        | (mac_ok as usize) << 1
        | poison as usize
}

const MODES: [IntegrityMode; 2] = [IntegrityMode::Ci, IntegrityMode::Li];
const BITS: [bool; 2] = [false, true];

/// The read tables spread over every combination, and how many combinations one row and no other describes.
const READ_SPREAD: ([ReadRow; 64], usize) = {
    let mut spread = [READS[0]; 64];
    let mut described_once = 0;
    let mut n = 0;
    while n < 2 * 3 * 2 * 2 * 2 {
        let (mode, class) = (MODES[n / 24], KeyClass::ALL[n / 8 % 3]);
        let (td, mac_ok, poison) = (BITS[n / 4 % 2], BITS[n / 2 % 2], BITS[n % 2]);
        let (mut rows, mut i) = (0, 0);
        while i < READS.len() {
            if READS[i].describes(mode, class, td, mac_ok, poison) {
                spread[read_index(mode, class, td, mac_ok, poison)] = READS[i];
                rows += 1;
            }
            i += 1;
        }
        if rows == 1 {
            described_once += 1;
        }
        n += 1;
    }
    (spread, described_once)
};
const _: () = assert!(READ_SPREAD.1 == 48, "a read is described by no row or by two");
static READ_LOOKUP: [ReadRow; 64] = READ_SPREAD.0;

/// The row that describes a read.
#[inline]
pub fn read_row(
    mode: IntegrityMode,
    class: KeyClass,
    td: bool,
    mac_ok: bool,
    poison: bool,
) -> &'static ReadRow {
    &READ_LOOKUP[read_index(mode, class, td, mac_ok, poison) & 63]
}

/// Whether the read tables look at the MAC at all for this class and TD bit: a TD-bit mismatch pre-empts the MAC check
/// (architecture.md §2.1 2.1.4).
#[inline]
pub fn read_checks_mac(mode: IntegrityMode, class: KeyClass, td: bool) -> bool {
    !matches!(read_row(mode, class, td, true, false).mac, Mac::NotChecked)
}

/// How much of a line a write covers at the controller (architecture.md §5 5.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WriteSize {
    /// All 64 bytes.
    Full,
    /// Fewer.
    Partial,
}

impl fmt::Display for WriteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteSize::Full => "full line",
            WriteSize::Partial => "partial",
        })
    }
}

/// The TD bit after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TdAfter {
    /// 1.
    Set,
    /// 0.
    Clear,
    /// Whether the KeyID is private: the state rule of architecture.md §2.6.
    ByClass,
    /// As it was.
    Unchanged,
}

impl fmt::Display for TdAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TdAfter::Set => "1",
            TdAfter::Clear => "0",
            TdAfter::ByClass => "by KeyID class",
            TdAfter::Unchanged => "unchanged",
        })
    }
}

/// The MAC field after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MacAfter {
    /// A MAC over ciphertext, tweak and the new TD bit.
    Computed,
    /// No valid MAC (MC-08).
    NotValid,
    /// Li keeps no MAC.
    Absent,
    /// As the full-line row of the same mode and class says.
    ByClass,
    /// As it was.
    Unchanged,
}

impl fmt::Display for MacAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MacAfter::Computed => "computed",
            MacAfter::NotValid => "not valid",
            MacAfter::Absent => "–",
            MacAfter::ByClass => "by KeyID class",
            MacAfter::Unchanged => "unchanged",
        })
    }
}

/// The poison bit after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoisonAfter {
    /// 0.
    Clear,
    /// 1: that of the cached copy (MC-05).
    Source,
    /// As the underfill read left it: an old one stays, a new one is stored and never signalled (MC-03).
    Underfill,
    /// As [`ERRATUM`] says (MC-04, MC-26).
    Erratum,
}

impl fmt::Display for PoisonAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoisonAfter::Clear => "0",
            PoisonAfter::Source => "1, of the cached copy",
            PoisonAfter::Underfill => "of the underfill read, silently",
            PoisonAfter::Erratum => "1, silently",
        })
    }
}

/// A row of architecture.md §2.6. No write is checked (§2.1 2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteRow {
    /// Its name.
    pub rule: Rule,
    /// How much of the line.
    pub size: WriteSize,
    /// Integrity mode.
    pub mode: Modes,
    /// KeyID class of the writer.
    pub class: Classes,
    /// TD bit in DRAM before.
    pub td: Bit,
    /// Whether the platform has the erratum.
    pub erratum: Bit,
    /// Whether the cached copy that is written carries poison.
    pub source_poison: Bit,
    /// TD bit after.
    pub td_after: TdAfter,
    /// MAC after.
    pub mac_after: MacAfter,
    /// Poison after.
    pub poison_after: PoisonAfter,
    /// The sheet's source.
    pub source: &'static str,
}

const fn full(
    rule: u8,
    mode: Modes,
    class: Classes,
    td_after: TdAfter,
    mac_after: MacAfter,
    source: &'static str,
) -> WriteRow {
    WriteRow {
        rule: Rule::W(rule),
        size: WriteSize::Full,
        mode,
        class,
        td: Bit::Any,
        erratum: Bit::Any,
        source_poison: Bit::No,
        td_after,
        mac_after,
        poison_after: PoisonAfter::Clear,
        source,
    }
}

const fn partial(
    rule: u8,
    class: Classes,
    td: Bit,
    erratum: Bit,
    poison_after: PoisonAfter,
    source: &'static str,
) -> WriteRow {
    let kept = matches!(poison_after, PoisonAfter::Erratum);
    WriteRow {
        rule: Rule::W(rule),
        size: WriteSize::Partial,
        mode: Modes::Any,
        class,
        td,
        erratum,
        source_poison: Bit::Any,
        td_after: if kept { TdAfter::Unchanged } else { TdAfter::ByClass },
        mac_after: if kept { MacAfter::Unchanged } else { MacAfter::ByClass },
        poison_after,
        source,
    }
}

/// What writes do: architecture.md §2.6. A partial write of a poisoned cached copy does not exist (eviction writes whole
/// lines), so partial rows do not look at that column.
#[rustfmt::skip]
pub const WRITES: [WriteRow; 10] = [
    full(1, Modes::Ci, Classes::Private,         TdAfter::Set,   MacAfter::Computed, "BASE §16.2.2, 16.2.3, 16.2.4"),
    full(2, Modes::Li, Classes::Private,         TdAfter::Set,   MacAfter::Absent,   "BASE §16.2.2, 16.2.3, 16.2.4"),
    full(3, Modes::Ci, Classes::SharedIntegrity, TdAfter::Clear, MacAfter::Computed, "BASE §16.2.2, 16.2.3, 16.2.4"),
    full(4, Modes::Ci, Classes::Shared,          TdAfter::Clear, MacAfter::NotValid, "BASE §16.2.2, 16.2.3, 16.2.4; MC-08"),
    full(5, Modes::Li, Classes::AnyShared,       TdAfter::Clear, MacAfter::Absent,   "BASE §16.2.2, 16.2.3, 16.2.4"),
    WriteRow {
        source_poison: Bit::Yes,
        poison_after: PoisonAfter::Source,
        ..full(6, Modes::Any, Classes::Any, TdAfter::ByClass, MacAfter::ByClass, "silent; MC-05")
    },
    partial(7,  Classes::AnyShared, Bit::No,  Bit::Any, PoisonAfter::Underfill, "silent; MC-03, MC-26"),
    partial(8,  Classes::AnyShared, Bit::Yes, Bit::No,  PoisonAfter::Underfill, "LX-KH, HUANG-V12; MC-03"),
    partial(9,  Classes::AnyShared, Bit::Yes, Bit::Yes, PoisonAfter::Erratum,   "HUANG-V12, LX tdx.rst, MEAS; MC-04"),
    partial(10, Classes::Private,   Bit::Any, Bit::Any, PoisonAfter::Underfill, "silent; MC-03"),
];

impl WriteRow {
    const fn describes(
        &self,
        size: WriteSize,
        mode: IntegrityMode,
        class: KeyClass,
        td: bool,
        erratum: bool,
        source_poison: bool,
    ) -> bool {
        self.size as u8 == size as u8
            && self.mode.has(mode)
            && self.class.has(class)
            && self.td.has(td)
            && self.erratum.has(erratum)
            && self.source_poison.has(source_poison)
    }
}

const fn write_index(
    size: WriteSize,
    mode: IntegrityMode,
    class: KeyClass,
    td: bool,
    erratum: bool,
    source_poison: bool,
) -> usize {
    (size as usize) << 6
        | (mode as usize) << 5
        | (class as usize) << 3
        | (td as usize) << 2
        | (erratum as usize) << 1
        | source_poison as usize
}

const WRITE_SPREAD: ([WriteRow; 128], usize) = {
    let mut spread = [WRITES[0]; 128];
    let mut described_once = 0;
    let mut n = 0;
    while n < 2 * 2 * 3 * 2 * 2 * 2 {
        let size = if n >= 48 { WriteSize::Partial } else { WriteSize::Full };
        let (mode, class) = (MODES[n / 24 % 2], KeyClass::ALL[n / 8 % 3]);
        let (td, erratum, poison) = (BITS[n / 4 % 2], BITS[n / 2 % 2], BITS[n % 2]);
        let (mut rows, mut i) = (0, 0);
        while i < WRITES.len() {
            if WRITES[i].describes(size, mode, class, td, erratum, poison) {
                spread[write_index(size, mode, class, td, erratum, poison)] = WRITES[i];
                rows += 1;
            }
            i += 1;
        }
        if rows == 1 {
            described_once += 1;
        }
        n += 1;
    }
    (spread, described_once)
};
const _: () = assert!(WRITE_SPREAD.1 == 96, "a write is described by no row or by two");
static WRITE_LOOKUP: [WriteRow; 128] = WRITE_SPREAD.0;

/// The row that describes a write.
#[inline]
pub fn write_row(
    size: WriteSize,
    mode: IntegrityMode,
    class: KeyClass,
    td: bool,
    erratum: bool,
    source_poison: bool,
) -> &'static WriteRow {
    &WRITE_LOOKUP[write_index(size, mode, class, td, erratum, source_poison) & 127]
}

/// Whether a whole line written under this class carries a MAC: what `ByClass` stands for in the MAC column.
#[inline]
pub fn write_makes_mac(mode: IntegrityMode, class: KeyClass) -> bool {
    let row = write_row(WriteSize::Full, mode, class, false, false, false);
    matches!(row.mac_after, MacAfter::Computed)
}

/// What the erratum X86_BUG_TDX_PW_MCE does to a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ErratumEffect {
    /// Nothing: the write merges.
    None,
    /// Poison is born, silently.
    Birth,
    /// The line's poison stays as it is.
    Stays,
}

impl fmt::Display for ErratumEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErratumEffect::None => "none",
            ErratumEffect::Birth => "poison is born, nothing is logged",
            ErratumEffect::Stays => "the poison stays",
        })
    }
}

/// A row of [`ERRATUM`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErratumRow {
    /// Whether the platform has it.
    pub erratum: Bit,
    /// KeyID class of the writer.
    pub class: Classes,
    /// TD bit in DRAM.
    pub td: Bit,
    /// Poison in DRAM.
    pub poison: Bit,
    /// What comes of it.
    pub effect: ErratumEffect,
    /// The sheet's source.
    pub source: &'static str,
}

/// What a partial write sets off (architecture.md §5.5, §13 MC-04 and MC-26; verification.md L8). The data is not
/// compared: writing the same bytes poisons too (verification.md L10).
#[rustfmt::skip]
pub const ERRATUM: [ErratumRow; 5] = [
    ErratumRow { erratum: Bit::No,  class: Classes::Any,       td: Bit::Any, poison: Bit::Any, effect: ErratumEffect::None,  source: "§5.5: without the erratum never" },
    ErratumRow { erratum: Bit::Yes, class: Classes::Private,   td: Bit::Any, poison: Bit::Any, effect: ErratumEffect::None,  source: "§5.5 \"non-TD software\"; W-10" },
    ErratumRow { erratum: Bit::Yes, class: Classes::AnyShared, td: Bit::No,  poison: Bit::Any, effect: ErratumEffect::None,  source: "MC-26" },
    ErratumRow { erratum: Bit::Yes, class: Classes::AnyShared, td: Bit::Yes, poison: Bit::No,  effect: ErratumEffect::Birth, source: "§5.5; W-09; MC-04" },
    ErratumRow { erratum: Bit::Yes, class: Classes::AnyShared, td: Bit::Yes, poison: Bit::Yes, effect: ErratumEffect::Stays, source: "MC-26" },
];

impl ErratumRow {
    const fn describes(&self, erratum: bool, class: KeyClass, td: bool, poison: bool) -> bool {
        self.erratum.has(erratum)
            && self.class.has(class)
            && self.td.has(td)
            && self.poison.has(poison)
    }
}

/// The erratum's effect on a line that a partial write meets.
pub fn erratum_effect(erratum: bool, class: KeyClass, td: bool, poison: bool) -> ErratumEffect {
    ERRATUM
        .iter()
        .find(|row| row.describes(erratum, class, td, poison))
        .map_or(ErratumEffect::None, |row| row.effect)
}

/// What makes a write transaction, as it leaves the cores, caches and devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WriteSource {
    /// A dirty line leaves a cache.
    WriteBack,
    /// MOVDIR64B.
    Movdir64b,
    /// MOVDIRI.
    Movdiri,
    /// A write-combining buffer leaves: MOVNTI and its family, or stores through a WC mapping.
    WcBuffer,
    /// A store through a UC mapping.
    UcStore,
    /// A device's write.
    Dma,
}

impl WriteSource {
    /// All sources.
    pub const ALL: [WriteSource; 6] = [
        WriteSource::WriteBack,
        WriteSource::Movdir64b,
        WriteSource::Movdiri,
        WriteSource::WcBuffer,
        WriteSource::UcStore,
        WriteSource::Dma,
    ];
}

impl fmt::Display for WriteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteSource::WriteBack => "write-back of a cached line",
            WriteSource::Movdir64b => "MOVDIR64B",
            WriteSource::Movdiri => "MOVDIRI",
            WriteSource::WcBuffer => "write-combining buffer (MOVNTI family, WC stores)",
            WriteSource::UcStore => "store through a UC mapping",
            WriteSource::Dma => "device DMA",
        })
    }
}

/// A row of [`WRITE_SOURCES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceRow {
    /// What makes the transaction.
    pub from: WriteSource,
    /// Whether it holds all 64 bytes of the line.
    pub whole_line: Bit,
    /// What it is at the controller.
    pub size: WriteSize,
    /// The sheet's source.
    pub source: &'static str,
}

/// Which transactions are partial writes at the controller (architecture.md §3 and §5).
#[rustfmt::skip]
pub const WRITE_SOURCES: [SourceRow; 8] = [
    SourceRow { from: WriteSource::WriteBack, whole_line: Bit::Any, size: WriteSize::Full,    source: "§5.2: whatever was stored, the core owns the full line" },
    SourceRow { from: WriteSource::Movdir64b, whole_line: Bit::Any, size: WriteSize::Full,    source: "§3 3.6" },
    SourceRow { from: WriteSource::Movdiri,   whole_line: Bit::Any, size: WriteSize::Partial, source: "§3 3.8" },
    SourceRow { from: WriteSource::WcBuffer,  whole_line: Bit::Yes, size: WriteSize::Full,    source: "§5.4: all 64 bytes were collected" },
    SourceRow { from: WriteSource::WcBuffer,  whole_line: Bit::No,  size: WriteSize::Partial, source: "§5.3, §5.4: evicted early" },
    SourceRow { from: WriteSource::UcStore,   whole_line: Bit::Any, size: WriteSize::Partial, source: "§5.3" },
    SourceRow { from: WriteSource::Dma,       whole_line: Bit::Yes, size: WriteSize::Full,    source: "MC-13" },
    SourceRow { from: WriteSource::Dma,       whole_line: Bit::No,  size: WriteSize::Partial, source: "§5.3, MC-13" },
];

/// What a transaction is at the controller.
pub fn write_size(from: WriteSource, whole_line: bool) -> WriteSize {
    WRITE_SOURCES
        .iter()
        .find(|row| row.from == from && row.whole_line.has(whole_line))
        .map_or(WriteSize::Partial, |row| row.size)
}

/// Which MSCOD of the platform a birth is logged with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UcnaCode {
    /// `mscod_td`.
    Td,
    /// `mscod_mac`.
    Mac,
    /// Nothing is logged.
    Silent,
}

impl fmt::Display for UcnaCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UcnaCode::Td => "UCNA with mscod_td",
            UcnaCode::Mac => "UCNA with mscod_mac",
            UcnaCode::Silent => "silent",
        })
    }
}

/// How a birth of poison is signalled by the controller, per cause (architecture.md §6.1, §13 MC-20). A birth in an
/// underfill read is silent whatever its cause (MC-03).
#[rustfmt::skip]
pub const BIRTH_SIGNALS: [(BirthCause, UcnaCode, &str); 5] = [
    (BirthCause::TdMismatch,         UcnaCode::Td,     "§2.4 2.4.6; MC-20"),
    (BirthCause::MacMismatch,        UcnaCode::Mac,    "§2.4 2.4.6; MC-20"),
    (BirthCause::SharedIntegrity,    UcnaCode::Td,     "our choice: the TD bit was the reason (RC-11), MC-20 names only the other two"),
    (BirthCause::PartialWrite,       UcnaCode::Silent, "§6.1 \"Erratum poisoning\"; MC-04"),
    (BirthCause::UncorrectableError, UcnaCode::Silent, "MC-18: injection hook only"),
];

/// How a birth of that cause is signalled.
pub fn birth_signal(cause: BirthCause) -> UcnaCode {
    BIRTH_SIGNALS.iter().find(|row| row.0 == cause).map_or(UcnaCode::Silent, |row| row.1)
}

/// A row of [`PCONFIG_ALGS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlgRow {
    /// Integrity mode of the platform.
    pub mode: IntegrityMode,
    /// Whether the KeyID is private.
    pub private: bool,
    /// Whether the algorithm has integrity.
    pub integrity: bool,
    /// Whether PCONFIG accepts it.
    pub accepted: bool,
    /// Whether it is what a PCONFIG without algorithm gets.
    pub default: bool,
    /// The sheet's source.
    pub source: &'static str,
}

const fn alg(
    mode: IntegrityMode,
    private: bool,
    integrity: bool,
    accepted: bool,
    default: bool,
    source: &'static str,
) -> AlgRow {
    AlgRow { mode, private, integrity, accepted, default, source }
}

/// Which algorithms PCONFIG accepts (architecture.md §1.3, §8). Independently of this table the key must not be wider than
/// `memory.xts`: the module takes the widest activated algorithm (1.3.3), so that parameter is the widest activated, and
/// IA32_TME_ACTIVATE\[51:48\] can allow the narrower one beside it.
#[rustfmt::skip]
pub const PCONFIG_ALGS: [AlgRow; 8] = [
    alg(IntegrityMode::Ci, true,  true,  true,  true,  "§1.3 1.3.1, 1.3.3"),
    alg(IntegrityMode::Ci, true,  false, true,  false, "§1.3 1.3.1: integrity is forced on for all private HKIDs"),
    alg(IntegrityMode::Ci, false, true,  true,  false, "§2.2 RC-07 to RC-12"),
    alg(IntegrityMode::Ci, false, false, true,  true,  "§2.2 RC-13 to RC-16"),
    alg(IntegrityMode::Li, true,  true,  false, false, "§1.3 1.3.3; §2.1 2.1.5"),
    alg(IntegrityMode::Li, true,  false, true,  true,  "§1.3 1.3.3"),
    alg(IntegrityMode::Li, false, true,  false, false, "§2.1 2.1.5"),
    alg(IntegrityMode::Li, false, false, true,  true,  "§2.3 RL-05 to RL-08"),
];

/// Whether PCONFIG accepts an algorithm with (or without) integrity for a KeyID.
pub fn pconfig_accepts(mode: IntegrityMode, private: bool, alg: KeyAlg) -> bool {
    PCONFIG_ALGS.iter().any(|row| {
        row.accepted
            && row.mode == mode
            && row.private == private
            && row.integrity == alg.has_integrity()
    })
}

/// Whether a PCONFIG without algorithm gets integrity.
pub fn pconfig_default_integrity(mode: IntegrityMode, private: bool) -> bool {
    PCONFIG_ALGS
        .iter()
        .any(|row| row.default && row.mode == mode && row.private == private && row.integrity)
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn table(head: &str, rows: impl Iterator<Item = String>) -> String {
    let columns = head.matches('|').count() - 1;
    let mut out = format!("{head}\n{}|\n", "|---".repeat(columns));
    for row in rows {
        out.push_str(&row);
        out.push('\n');
    }
    out
}

/// The read table of a mode, laid out as architecture.md §2.2 and §2.3.
pub fn reads_markdown(mode: IntegrityMode) -> String {
    table(
        "| Vector | Class | TD | MAC | oldP | Data | Poison returned | newP | Born of | Source |",
        READS.iter().filter(|row| row.mode == mode).map(|r| {
            let cause = r.cause.map_or_else(|| "–".to_owned(), |c| format!("{c:?}"));
            format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {cause} | {} |",
                r.rule,
                r.class,
                u8::from(r.td),
                r.mac,
                u8::from(r.old_poison),
                r.data,
                yes(r.poison),
                u8::from(r.poison),
                r.source
            )
        }),
    )
}

/// The write table, laid out as architecture.md §2.6.
pub fn writes_markdown() -> String {
    table(
        "| Vector | Write | Mode | Class | TD before | Erratum | Source poisoned | TD after | MAC after | Poison after | Check | Source |",
        WRITES.iter().map(|r| {
            format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | none | {} |",
                r.rule,
                r.size,
                r.mode,
                r.class,
                r.td,
                r.erratum,
                r.source_poison,
                r.td_after,
                r.mac_after,
                r.poison_after,
                r.source
            )
        }),
    )
}

/// The trigger of the erratum.
pub fn erratum_markdown() -> String {
    table(
        "| Erratum | Class | TD | oldP | Effect of a partial write | Source |",
        ERRATUM.iter().map(|r| {
            format!(
                "| {} | {} | {} | {} | {} | {} |",
                r.erratum, r.class, r.td, r.poison, r.effect, r.source
            )
        }),
    )
}

/// What is a partial write.
pub fn write_sources_markdown() -> String {
    table(
        "| From | Whole line | At the controller | Source |",
        WRITE_SOURCES
            .iter()
            .map(|r| format!("| {} | {} | {} | {} |", r.from, r.whole_line, r.size, r.source)),
    )
}

/// How births are signalled.
pub fn birth_signals_markdown() -> String {
    table(
        "| Cause | Signal | Source |",
        BIRTH_SIGNALS
            .iter()
            .map(|(cause, code, source)| format!("| {cause:?} | {code} | {source} |")),
    )
}

/// Which algorithms PCONFIG accepts.
pub fn pconfig_algs_markdown() -> String {
    table(
        "| Mode | KeyID | Integrity | Accepted | Default | Source |",
        PCONFIG_ALGS.iter().map(|r| {
            format!(
                "| {} | {} | {} | {} | {} | {} |",
                r.mode,
                if r.private { "private" } else { "shared" },
                yes(r.integrity),
                yes(r.accepted),
                yes(r.default),
                r.source
            )
        }),
    )
}
