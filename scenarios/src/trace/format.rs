//! The formats as data: which lines each has, where that is written, and an example.

use serde::{Deserialize, Serialize};
use sim_core::LINE_BYTES;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use thiserror::Error;

/// Bytes of a record whose format gives no size: one line, the transaction of the simulators that read such traces.
pub const TRANSACTION_BYTES: u32 = LINE_BYTES as u32;

/// The largest access that a record may name, in bytes. The largest that Valgrind knows is far below (FXSAVE and XSAVE
/// areas); more is a damaged trace.
pub const ACCESS_BYTES_MAX: u32 = 64 << 10;

/// A trace format. `Display` and `FromStr` use the name in [`FORMATS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `valgrind --tool=lackey --trace-mem=yes` (style-and-ecosystem.md B5).
    Lackey,
    /// Ramulator 2 `LoadStoreTrace` (peers.md §2.1).
    Ramulator,
    /// DRAMsim3 (peers.md §2.3).
    Dramsim3,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum AccessKind {
    /// An instruction fetch.
    Fetch,
    /// A data load.
    Load,
    /// A data store.
    Store,
    /// A load and then a store of the same bytes by one instruction.
    Modify,
}

/// One record of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// The address as the trace has it: virtual in lackey traces, physical in the others; nothing is masked.
    pub addr: u64,
    /// How many bytes, 1 to [`ACCESS_BYTES_MAX`]. In a format that has no sizes it is [`TRANSACTION_BYTES`], and what is
    /// meant is the line that holds `addr`, which need not be aligned. In a format that has sizes, the last byte
    /// `addr + bytes - 1` is within 64 bits.
    pub bytes: u32,
    /// The earliest clock cycle of the memory controller, where the format has it. It never falls within a trace.
    pub cycle: Option<u64>,
}

/// A word that names the kind of access in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// The word, at most eight characters; case counts.
    pub text: &'static str,
    /// What it means.
    pub kind: AccessKind,
    /// Where that is written.
    pub cite: &'static str,
    /// The word's characters in one integer, so that a word is found by comparing integers.
    key: u64,
}

impl Word {
    const fn new(text: &'static str, kind: AccessKind, cite: &'static str) -> Word {
        Word { text, kind, cite, key: Word::pack(text.as_bytes()) }
    }

    /// Different for different words of at most eight characters other than NUL. Longer ones are 0, which is no word.
    pub(super) const fn pack(text: &[u8]) -> u64 {
        let (mut key, mut rest) = (0, text);
        if text.len() > 8 {
            return 0;
        }
        while let [byte, behind @ ..] = rest {
            key = key << 8 | *byte as u64;
            rest = behind;
        }
        key
    }
}

/// One format: a row of [`FORMATS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatRow {
    /// Which.
    pub format: Format,
    /// Its name on the command line.
    pub name: &'static str,
    /// The forms of a record, as an error message lists them.
    pub forms: &'static str,
    /// The words that name the kind of access; the most frequent first.
    pub words: &'static [Word],
    /// The words, as an error message lists them.
    pub word_list: &'static str,
    /// Where [`Access::bytes`] comes from.
    pub size: &'static str,
    /// Lines that are skipped, besides blank lines and `#` comments.
    pub skipped: &'static str,
    /// Example records, one to a line.
    pub example: &'static str,
    /// Where the format is described.
    pub cite: &'static str,
}

impl FormatRow {
    /// What the word whose [`Word::pack`] is `key` means.
    #[inline]
    pub(super) fn kind(&self, key: u64) -> Option<AccessKind> {
        self.words.iter().find(|word| word.key == key).map(|word| word.kind)
    }
}

/// The formats, in the order of [`Format`].
pub const FORMATS: &[FormatRow; 3] = &[
    FormatRow {
        format: Format::Lackey,
        name: "lackey",
        forms: "`I  <hex>,<size>` or ` L|S|M <hex>,<size>`",
        words: &[
            Word::new("I", AccessKind::Fetch, "lackey/lk_main.c: instruction read"),
            Word::new("L", AccessKind::Load, "lackey/lk_main.c: data load"),
            Word::new("S", AccessKind::Store, "lackey/lk_main.c: data store"),
            Word::new("M", AccessKind::Modify, "lackey/lk_main.c: data modify, a load and a store"),
        ],
        word_list: "I, L, S or M",
        size: "as given",
        skipped: "`==1==`, `--1--`, `**1**`: Valgrind's own, with its process number",
        example: "I  04016b80,3\n L 1ffefff8f8,8\n S 1ffefff8f0,8\n M 04225ce8,4",
        cite: "style-and-ecosystem.md B5; Valgrind manual §11.2 --trace-mem",
    },
    FormatRow {
        format: Format::Ramulator,
        name: "ramulator",
        forms: "`LD|ST <address>`, decimal or hexadecimal with 0x",
        words: &[
            Word::new("LD", AccessKind::Load, "peers.md §2.1 LoadStoreTrace"),
            Word::new("ST", AccessKind::Store, "peers.md §2.1 LoadStoreTrace"),
        ],
        word_list: "LD or ST",
        size: "64: the line that holds the address",
        skipped: "none",
        example: "LD 0x12345680\nST 305419896",
        cite: "peers.md §2.1 LoadStoreTrace",
    },
    // DRAMsim3 has a list of writes and takes every other word for a read; the reads listed here are those of DRAMSim2, whose
    // traces it was made to take. DRAMSim2 also makes reads of P_LOCK_RD and P_LOCK_WR; a locked write is none, and both are
    // refused.
    FormatRow {
        format: Format::Dramsim3,
        name: "dramsim3",
        forms: "`<hex address> <operation> <cycle>`",
        words: &[
            Word::new("READ", AccessKind::Load, "peers.md §2.3"),
            Word::new("WRITE", AccessKind::Store, "peers.md §2.3"),
            Word::new(
                "read",
                AccessKind::Load,
                "DRAMSim2 TraceBasedSim.cpp, misc traces (peers.md §2.4)",
            ),
            Word::new("write", AccessKind::Store, "peers.md §2.3"),
            Word::new(
                "P_MEM_RD",
                AccessKind::Load,
                "DRAMSim2 TraceBasedSim.cpp, k6 traces (peers.md §2.4)",
            ),
            Word::new("P_MEM_WR", AccessKind::Store, "peers.md §2.3"),
            Word::new(
                "P_FETCH",
                AccessKind::Fetch,
                "DRAMSim2 TraceBasedSim.cpp, k6 traces (peers.md §2.4)",
            ),
            Word::new(
                "IFETCH",
                AccessKind::Fetch,
                "DRAMSim2 TraceBasedSim.cpp, mase traces (peers.md §2.4)",
            ),
            Word::new("BOFF", AccessKind::Store, "peers.md §2.3"),
        ],
        word_list: "READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF",
        size: "64: the line that holds the address",
        skipped: "none",
        example: "0x2000D5C0 READ 30\n0x1FF96FC0 WRITE   160",
        cite: "peers.md §2.3",
    },
];

impl Format {
    /// The format's row.
    pub const fn row(self) -> &'static FormatRow {
        let [lackey, ramulator, dramsim3] = FORMATS;
        match self {
            Format::Lackey => lackey,
            Format::Ramulator => ramulator,
            Format::Dramsim3 => dramsim3,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}

/// A name that no format has.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("found `{found}`, expected lackey, ramulator or dramsim3")]
pub struct FormatParseError {
    /// The name, cut and made printable.
    pub found: String,
}

impl FromStr for Format {
    type Err = FormatParseError;

    fn from_str(text: &str) -> Result<Format, FormatParseError> {
        FORMATS
            .iter()
            .find(|row| row.name == text)
            .map(|row| row.format)
            .ok_or_else(|| FormatParseError { found: sim_core::units::clip(text) })
    }
}

/// [`FORMATS`] as the documentation shows it.
pub fn formats_markdown() -> String {
    let mut out = String::from(
        "| format | records | operations | bytes | skipped lines | source |\n|---|---|---|---|---|---|\n",
    );
    // A bar within a cell would end it, and GitHub's tables take `\|` even within code.
    let cell = |text: &str| text.replace('|', "\\|");
    for row in FORMATS {
        let words: Vec<String> =
            row.words.iter().map(|w| format!("{} = {:?}", w.text, w.kind)).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            cell(row.forms),
            words.join(", "),
            row.size,
            cell(row.skipped),
            row.cite,
        );
    }
    for row in FORMATS {
        let _ = write!(out, "\n`{}`:\n\n```\n{}\n```\n", row.name, row.example);
    }
    out
}
