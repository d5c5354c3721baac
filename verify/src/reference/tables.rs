//! The read and write tables of architecture.md §2.2, §2.3 and §2.6, one row per row of the sheet.

use sim_core::event::{BirthCause, Rule};
use sim_core::platform::IntegrityMode::{self, Ci, Li};
use std::fmt::Write as _;

/// The class of a request's KeyID: all that the controller decides by (architecture.md §2.1 2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Private.
    Private,
    /// Shared, with integrity. Does not exist in Li (2.1.5).
    SharedIntegrity,
    /// Shared, without integrity; KeyID 0 always.
    Shared,
}

/// A row of a read table. `None` is the sheet's "not checked" or "do not care".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRow {
    /// Its name in the sheet.
    pub rule: Rule,
    /// KeyID class of the request.
    pub class: Class,
    /// TD bit in DRAM.
    pub td: bool,
    /// Whether the recomputed MAC matches.
    pub mac: Option<bool>,
    /// Poison before.
    pub poisoned: bool,
    /// Whether the plaintext is returned; else zeros, in the rows marked MC-01 too.
    pub plaintext: bool,
    /// Poison with the data, and in DRAM afterwards: the same in every row.
    pub poison: bool,
    /// The cause of the poison, where it is new.
    pub birth: Option<BirthCause>,
    /// Source.
    pub cite: &'static str,
}

/// Columns: name, class, TD bit, MAC, old poison; returned; source. A returned "new" poison has a cause.
const fn read(
    rule: Rule,
    (class, td, mac, old): (Class, u8, Option<bool>, u8),
    (plaintext, poison, birth): (bool, bool, Option<BirthCause>),
    cite: &'static str,
) -> ReadRow {
    ReadRow { rule, class, td: td != 0, mac, poisoned: old != 0, plaintext, poison, birth, cite }
}

const PT: (bool, bool, Option<BirthCause>) = (true, false, None);
const ZERO: (bool, bool, Option<BirthCause>) = (false, false, None);
const STICKY: (bool, bool, Option<BirthCause>) = (false, true, None);
const NEW_TD: (bool, bool, Option<BirthCause>) = (false, true, Some(BirthCause::TdMismatch));
const NEW_MAC: (bool, bool, Option<BirthCause>) = (false, true, Some(BirthCause::MacMismatch));
const NEW_SHARED: (bool, bool, Option<BirthCause>) =
    (false, true, Some(BirthCause::SharedIntegrity));
const MATCH: Option<bool> = Some(true);
const MISMATCH: Option<bool> = Some(false);

use Class::{Private, Shared, SharedIntegrity};

/// Reads in Ci mode (architecture.md §2.2).
#[rustfmt::skip]
pub const READS_CI: [ReadRow; 16] = [
    read(Rule::Rc(1),  (Private,         0, None,     0), NEW_TD,     "Table 16.2 row 1"),
    read(Rule::Rc(2),  (Private,         0, None,     1), STICKY,     "row 1 + text"),
    read(Rule::Rc(3),  (Private,         1, MATCH,    0), PT,         "row 2"),
    read(Rule::Rc(4),  (Private,         1, MATCH,    1), STICKY,     "row 2 remark, MC-01"),
    read(Rule::Rc(5),  (Private,         1, MISMATCH, 0), NEW_MAC,    "row 3"),
    read(Rule::Rc(6),  (Private,         1, MISMATCH, 1), STICKY,     "row 3 + text"),
    read(Rule::Rc(7),  (SharedIntegrity, 0, MATCH,    0), PT,         "row 4"),
    read(Rule::Rc(8),  (SharedIntegrity, 0, MATCH,    1), STICKY,     "row 4 remark, MC-01"),
    read(Rule::Rc(9),  (SharedIntegrity, 0, MISMATCH, 0), NEW_MAC,    "row 5"),
    read(Rule::Rc(10), (SharedIntegrity, 0, MISMATCH, 1), STICKY,     "row 5 + text"),
    read(Rule::Rc(11), (SharedIntegrity, 1, None,     0), NEW_SHARED, "row 6"),
    read(Rule::Rc(12), (SharedIntegrity, 1, None,     1), STICKY,     "row 6 + text"),
    read(Rule::Rc(13), (Shared,          0, None,     0), PT,         "row 7"),
    read(Rule::Rc(14), (Shared,          0, None,     1), STICKY,     "row 7 remark, MC-01"),
    read(Rule::Rc(15), (Shared,          1, None,     0), ZERO,       "row 8"),
    read(Rule::Rc(16), (Shared,          1, None,     1), STICKY,     "row 8 remark"),
];

/// Reads in Li mode (architecture.md §2.3).
#[rustfmt::skip]
pub const READS_LI: [ReadRow; 8] = [
    read(Rule::Rl(1), (Private, 0, None, 0), NEW_TD, "Table 16.3 row 1"),
    read(Rule::Rl(2), (Private, 0, None, 1), STICKY, "row 1 + text"),
    read(Rule::Rl(3), (Private, 1, None, 0), PT,     "row 2"),
    read(Rule::Rl(4), (Private, 1, None, 1), STICKY, "row 2 remark, MC-01"),
    read(Rule::Rl(5), (Shared,  0, None, 0), PT,     "row 3"),
    read(Rule::Rl(6), (Shared,  0, None, 1), STICKY, "row 3 remark, MC-01"),
    read(Rule::Rl(7), (Shared,  1, None, 0), ZERO,   "row 4"),
    read(Rule::Rl(8), (Shared,  1, None, 1), STICKY, "row 4 remark"),
];

impl ReadRow {
    /// Whether the row is about such a read.
    pub fn covers(&self, class: Class, td: bool, mac: bool, poisoned: bool) -> bool {
        self.class == class
            && self.td == td
            && self.mac.is_none_or(|m| m == mac)
            && self.poisoned == poisoned
    }
}

/// The row for a read. Total: a test shows that exactly one row covers each possible input.
pub fn read_row(
    mode: IntegrityMode,
    class: Class,
    td: bool,
    mac: bool,
    poisoned: bool,
) -> &'static ReadRow {
    // Without a row the read fails closed: zeros with poison, as row 1 says.
    let (table, closed): (&'static [ReadRow], _) = match mode {
        Ci => (&READS_CI, &READS_CI[0]),
        Li => (&READS_LI, &READS_LI[0]),
    };
    table.iter().find(|row| row.covers(class, td, mac, poisoned)).unwrap_or(closed)
}

/// What a write does to the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteEffect {
    /// New ciphertext; TD bit and MAC by class; poison becomes that of the source.
    Replace,
    /// Underfill read that never signals, merge, then as [`WriteEffect::Replace`]; poison survives (MC-03).
    Merge,
    /// Poison, and nothing else (MC-04).
    Poison,
}

/// A row of the write table. `None` is "any".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteRow {
    /// Its name in the sheet.
    pub rule: Rule,
    /// All 64 bytes, or fewer.
    pub full: bool,
    /// KeyID classes of the request.
    pub class: &'static [Class],
    /// Mode.
    pub mode: Option<IntegrityMode>,
    /// Whether it comes from a cached copy that carries poison.
    pub source_poison: bool,
    /// TD bit in DRAM before.
    pub td: Option<bool>,
    /// Whether the part has the erratum.
    pub erratum: Option<bool>,
    /// What it does.
    pub effect: WriteEffect,
    /// Whether a MAC is stored (Ci, keys with integrity; MC-08).
    pub mac: Option<bool>,
    /// Source.
    pub cite: &'static str,
}

/// Columns: name, full, classes, mode, source poison; TD bit, erratum; effect, MAC stored; source.
const fn write(
    rule: Rule,
    (full, class, mode, source_poison): (bool, &'static [Class], Option<IntegrityMode>, bool),
    (td, erratum): (Option<bool>, Option<bool>),
    (effect, mac): (WriteEffect, Option<bool>),
    cite: &'static str,
) -> WriteRow {
    WriteRow { rule, full, class, mode, source_poison, td, erratum, effect, mac, cite }
}

const ANY: (Option<bool>, Option<bool>) = (None, None);
const REPLACE: WriteEffect = WriteEffect::Replace;
const MERGE: WriteEffect = WriteEffect::Merge;
const P: &[Class] = &[Private];
const SI: &[Class] = &[SharedIntegrity];
const S: &[Class] = &[Shared];
const SHARED: &[Class] = &[SharedIntegrity, Shared];
const ALL: &[Class] = &[Private, SharedIntegrity, Shared];

/// Writes (architecture.md §2.6). `mac: None` means by the key's class.
#[rustfmt::skip]
pub const WRITES: [WriteRow; 10] = [
    write(Rule::W(1),  (true,  P,      Some(Ci), false), ANY, (REPLACE, Some(true)),  "BASE §16.2.2, 16.2.3, 16.2.4"),
    write(Rule::W(2),  (true,  P,      Some(Li), false), ANY, (REPLACE, Some(false)), "same"),
    write(Rule::W(3),  (true,  SI,     Some(Ci), false), ANY, (REPLACE, Some(true)),  "same"),
    write(Rule::W(4),  (true,  S,      Some(Ci), false), ANY, (REPLACE, Some(false)), "same, MC-08"),
    write(Rule::W(5),  (true,  SHARED, Some(Li), false), ANY, (REPLACE, Some(false)), "same"),
    write(Rule::W(6),  (true,  ALL,    None,     true),  ANY, (REPLACE, None),        "silent, MC-05"),
    write(Rule::W(7),  (false, SHARED, None,     false), (Some(false), None), (MERGE, None), "silent, MC-03, MC-26"),
    write(Rule::W(8),  (false, SHARED, None,     false), (Some(true), Some(false)), (MERGE, None), "LX-KH, HUANG-V12, MC-03"),
    write(Rule::W(9),  (false, SHARED, None,     false), (Some(true), Some(true)), (WriteEffect::Poison, None), "HUANG-V12, MC-04"),
    write(Rule::W(10), (false, P,      None,     false), ANY, (MERGE, None),          "silent, MC-03"),
];

/// A write as the table sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteCase {
    /// All 64 bytes.
    pub full: bool,
    /// KeyID class.
    pub class: Class,
    /// Mode.
    pub mode: IntegrityMode,
    /// From a poisoned cached copy.
    pub source_poison: bool,
    /// TD bit before.
    pub td: bool,
    /// Erratum.
    pub erratum: bool,
}

impl WriteRow {
    /// Whether the row is about such a write.
    pub fn covers(&self, w: &WriteCase) -> bool {
        self.full == w.full
            && self.class.contains(&w.class)
            && self.mode.is_none_or(|m| m == w.mode)
            && self.source_poison == w.source_poison
            && self.td.is_none_or(|t| t == w.td)
            && self.erratum.is_none_or(|e| e == w.erratum)
    }
}

/// The row for a write. Total over what can be: a partial write never comes from a cached copy.
pub fn write_row(case: &WriteCase) -> &'static WriteRow {
    WRITES.iter().find(|row| row.covers(case)).unwrap_or(&WRITES[5])
}

fn bit(value: Option<bool>, no: &'static str, yes: &'static str) -> &'static str {
    value.map_or("*", |v| if v { yes } else { no })
}

/// Both read tables as a page.
pub fn reads_markdown() -> String {
    let mut out = String::from(
        "| Row | Class | TD | MAC | Old poison | Data | Poison | Birth | Source |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for r in READS_CI.iter().chain(&READS_LI) {
        let data = if r.plaintext { "plaintext" } else { "zeros" };
        let birth = r.birth.map_or(String::from("-"), |b| format!("{b:?}"));
        let _ = writeln!(
            out,
            "| {} | {:?} | {} | {} | {} | {data} | {} | {birth} | {} |",
            r.rule,
            r.class,
            u8::from(r.td),
            bit(r.mac, "mismatch", "match"),
            u8::from(r.poisoned),
            u8::from(r.poison),
            r.cite
        );
    }
    out
}

/// The write table as a page.
pub fn writes_markdown() -> String {
    let mut out = String::from(
        "| Row | Bytes | Class | Mode | Source poison | TD | Erratum | Effect | MAC | Source |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for r in &WRITES {
        let bytes = if r.full { "64" } else { "fewer" };
        let mode = r.mode.map_or(String::from("*"), |m| m.to_string());
        let _ = writeln!(
            out,
            "| {} | {bytes} | {:?} | {mode} | {} | {} | {} | {:?} | {} | {} |",
            r.rule,
            r.class,
            u8::from(r.source_poison),
            bit(r.td, "0", "1"),
            bit(r.erratum, "no", "yes"),
            r.effect,
            bit(r.mac, "none", "stored"),
            r.cite
        );
    }
    out
}
