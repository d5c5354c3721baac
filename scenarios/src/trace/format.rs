//! The forms as data: which records each has, where that is written, and an example.

use serde::{Deserialize, Serialize};
use sim_core::{LINE_BYTES, Ps};
use std::fmt::{self, Write as _};
use std::num::NonZeroU32;
use std::str::FromStr;
use thiserror::Error;

/// Bytes of a record whose form gives no size: one line, the transaction of the simulators that read such traces.
pub const TRANSACTION_BYTES: u32 = LINE_BYTES as u32;

/// The largest access that a record may name, in bytes. The largest that Valgrind knows is far below (FXSAVE and XSAVE
/// areas); more is a damaged trace.
pub const ACCESS_BYTES_MAX: u32 = 64 << 10;

/// A form of trace. `Display` and `FromStr` use the name in [`FORMATS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `valgrind --tool=lackey --trace-mem=yes` (style-and-ecosystem.md B5).
    Lackey,
    /// Ramulator 2 `LoadStoreTrace` (peers.md §2.1).
    Ramulator,
    /// Ramulator 2 `ReadWriteTrace`: address vectors (peers.md §2.1).
    RamulatorVector,
    /// Ramulator 1 in DRAM mode (peers.md §2.2).
    RamulatorDram,
    /// Ramulator 2 `SimpleO3` and Ramulator 1 in CPU mode (peers.md §2.1, §2.2).
    SimpleO3,
    /// DRAMsim3 (peers.md §2.3).
    Dramsim3,
    /// USIMM (peers.md §2.9).
    Usimm,
    /// DRAMSys `.stl` (peers.md §2.5).
    Dramsys,
    /// DRAMSys `.rstl` (peers.md §2.5).
    DramsysRelative,
    /// ChampSim's binary records (peers.md §2.7).
    Champsim,
    /// gem5's packet traces (peers.md §2.6).
    Gem5,
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

/// When an access is made, as far as the trace says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum When {
    /// The trace does not say: as soon as whoever runs it takes it.
    Unsaid,
    /// Not before this clock cycle of the memory controller. It never falls within a trace.
    Cycle(u64),
    /// Not before this moment of simulated time, in picoseconds. It never falls within a trace.
    Time(Ps),
    /// Behind so many instructions without a memory access ("bubbles"), counted from the access before.
    Gap(u64),
    /// So many clock cycles of the memory controller behind the end of the access before.
    Delay(u64),
}

/// A place in DRAM, as a trace of address vectors has it: numbers of the traced configuration, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DramPlace {
    /// The channel.
    pub channel: u16,
    /// The rank in the channel.
    pub rank: u16,
    /// The bank group in the rank.
    pub bank_group: u16,
    /// The bank in the bank group.
    pub bank: u16,
    /// The row in the bank.
    pub row: u32,
    /// The column in the row.
    pub column: u32,
}

/// One memory access of a trace. A record may hold several: a load and a store of SimpleO3, the operands of an instruction
/// of ChampSim.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// The address as the trace has it, of the kind that [`FormatRow::addresses`] says; nothing is masked.
    /// [`Access::NO_ADDR`] where the trace has [`Access::place`] instead.
    pub addr: u64,
    /// How many bytes, 1 to [`ACCESS_BYTES_MAX`]. In a form that has no sizes ([`FormatRow::sized`]) it is
    /// [`TRANSACTION_BYTES`], and what is meant is the line that holds `addr`, which need not be aligned. In a form that has
    /// sizes, the last byte `addr + bytes - 1` is within 64 bits.
    pub bytes: u32,
    /// When.
    pub when: When,
    /// The address of the instruction, where the form has it.
    pub ip: Option<u64>,
    /// The access so many accesses of this trace before this one (1 is the one before) is a load that this one cannot start
    /// without: its value reaches a source register of this access's instruction, straight or through instructions without
    /// loads. Of several such loads it is the youngest. `None`: independent, or the form does not say.
    pub depends_on: Option<NonZeroU32>,
    /// The place in DRAM, where the form has that and no address.
    pub place: Option<DramPlace>,
}

impl Access {
    /// The address of an access that has none. It is beyond the memory of every platform, so that nobody takes it for one.
    pub const NO_ADDR: u64 = u64::MAX;

    /// An access of which no more than this is known.
    pub const fn new(kind: AccessKind, addr: u64, bytes: u32) -> Access {
        Access { kind, addr, bytes, when: When::Unsaid, ip: None, depends_on: None, place: None }
    }

    /// The earliest clock cycle of the memory controller, where the form has it.
    pub const fn cycle(&self) -> Option<u64> {
        match self.when {
            When::Cycle(cycle) => Some(cycle),
            _ => None,
        }
    }
}

/// What a form's addresses are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Of the traced program.
    Virtual,
    /// Of the memory.
    Physical,
    /// None: [`Access::place`] instead.
    Places,
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

/// One form: a row of [`FORMATS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FormatRow {
    /// Which.
    pub format: Format,
    /// Its name on the command line.
    pub name: &'static str,
    /// The forms of a record, as an error message lists them.
    pub forms: &'static str,
    /// What tells it from the others, looking at the first line that is not skipped, or at the first bytes.
    pub apart: &'static str,
    /// The words that name the kind of access; the most frequent first.
    pub words: &'static [Word],
    /// The words, as an error message lists them.
    pub word_list: &'static str,
    /// What its addresses are.
    pub addresses: Addresses,
    /// Whether a record says how many bytes it touches.
    pub sized: bool,
    /// What a record says about time and about other records.
    pub when: &'static str,
    /// Lines that are skipped, besides blank lines and `#` comments.
    pub skipped: &'static str,
    /// Example records, one to a line; of a binary form, none.
    pub example: &'static str,
    /// Where the form is described.
    pub cite: &'static str,
}

impl FormatRow {
    /// What the word whose [`Word::pack`] is `key` means.
    #[inline]
    pub(super) fn kind(&self, key: u64) -> Option<AccessKind> {
        self.words.iter().find(|word| word.key == key).map(|word| word.kind)
    }

    /// Whether records are bytes, not lines of text.
    pub const fn is_binary(&self) -> bool {
        matches!(self.format, Format::Champsim | Format::Gem5)
    }
}

const fn read_write(cite: &'static str) -> [Word; 2] {
    [Word::new("R", AccessKind::Load, cite), Word::new("W", AccessKind::Store, cite)]
}

const DRAMSYS_WORDS: &[Word] = &[
    Word::new("read", AccessKind::Load, "peers.md §2.5; DRAMSys StlPlayer.cpp"),
    Word::new("write", AccessKind::Store, "peers.md §2.5; DRAMSys StlPlayer.cpp"),
];

/// The words of [`Format::Lackey`].
pub(super) const LACKEY_WORDS: &[Word] = &[
    Word::new("I", AccessKind::Fetch, "lackey/lk_main.c: instruction read"),
    Word::new("L", AccessKind::Load, "lackey/lk_main.c: data load"),
    Word::new("S", AccessKind::Store, "lackey/lk_main.c: data store"),
    Word::new("M", AccessKind::Modify, "lackey/lk_main.c: data modify, a load and a store"),
];

/// The words of [`Format::Ramulator`].
pub(super) const RAMULATOR_WORDS: &[Word] = &[
    Word::new("LD", AccessKind::Load, "peers.md §2.1 LoadStoreTrace"),
    Word::new("ST", AccessKind::Store, "peers.md §2.1 LoadStoreTrace"),
];

/// The words of [`Format::Dramsim3`].
///
/// DRAMsim3 has a list of writes and takes every other word for a read; the reads listed here are those of DRAMSim2, whose
/// traces it was made to take. DRAMSim2 also makes reads of P_LOCK_RD and P_LOCK_WR; a locked write is none, and both are
/// refused.
pub(super) const DRAMSIM3_WORDS: &[Word] = &[
    Word::new("READ", AccessKind::Load, "peers.md §2.3"),
    Word::new("WRITE", AccessKind::Store, "peers.md §2.3"),
    Word::new("read", AccessKind::Load, "DRAMSim2 TraceBasedSim.cpp, misc traces (peers.md §2.4)"),
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
];

/// The words of [`Format::RamulatorDram`].
pub(super) const RAMULATOR_DRAM_WORDS: &[Word] = &read_write("peers.md §2.2 DRAM mode");

const NO_TIME: &str = "nothing";

/// The forms, in the order of [`Format`].
pub const FORMATS: &[FormatRow; 11] = &[
    FormatRow {
        format: Format::Lackey,
        name: "lackey",
        forms: "`I  <hex>,<size>` or ` L|S|M <hex>,<size>`",
        apart: "begins with I, L, S or M as a word, or is a line of Valgrind's own",
        words: LACKEY_WORDS,
        word_list: "I, L, S or M",
        addresses: Addresses::Virtual,
        sized: true,
        when: NO_TIME,
        skipped: "`==1==`, `--1--`, `**1**`: Valgrind's own, with its process number",
        example: "I  04016b80,3\n L 1ffefff8f8,8\n S 1ffefff8f0,8\n M 04225ce8,4",
        cite: "style-and-ecosystem.md B5; Valgrind manual §11.2 --trace-mem",
    },
    FormatRow {
        format: Format::Ramulator,
        name: "ramulator",
        forms: "`LD|ST <address>`, decimal or hexadecimal with 0x",
        apart: "begins with LD or ST as a word",
        words: RAMULATOR_WORDS,
        word_list: "LD or ST",
        addresses: Addresses::Physical,
        sized: false,
        when: NO_TIME,
        skipped: "none",
        example: "LD 0x12345680\nST 305419896",
        cite: "peers.md §2.1 LoadStoreTrace",
    },
    FormatRow {
        format: Format::RamulatorVector,
        name: "ramulator-vector",
        forms: "`R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal",
        apart: "begins with R or W as a word",
        words: &read_write("peers.md §2.1 ReadWriteTrace"),
        word_list: "R or W",
        addresses: Addresses::Places,
        sized: false,
        when: NO_TIME,
        skipped: "none",
        example: "R 0,0,1,2,100,32\nW 1,0,7,3,65535,1008",
        cite: "peers.md §2.1 ReadWriteTrace",
    },
    FormatRow {
        format: Format::RamulatorDram,
        name: "ramulator-dram",
        forms: "`<hex address> R|W`",
        apart: "a hexadecimal number, R or W, and no more",
        words: RAMULATOR_DRAM_WORDS,
        word_list: "R or W",
        addresses: Addresses::Physical,
        sized: false,
        when: NO_TIME,
        skipped: "none",
        example: "0x12345680 R\n0x4CBD56C0 W",
        cite: "peers.md §2.2 DRAM mode; Ramulator 1 Processor.cpp",
    },
    // Ramulator 1 reads addresses as C does, so that a leading zero means octal; Ramulator 2 reads them as decimal. Such an
    // address is refused.
    FormatRow {
        format: Format::SimpleO3,
        name: "simple-o3",
        forms: "`<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x",
        apart: "a decimal number, and a second field that begins with a digit",
        words: &[],
        word_list: "",
        addresses: Addresses::Physical,
        sized: false,
        when: "instructions without memory access before the load; the store (a write-back) is made with the load",
        skipped: "none",
        example: "3 20734016\n1 0x13BC400 20734080\n8 20734016",
        cite: "peers.md §2.1 SimpleO3, §2.2 CPU mode; Ramulator 1 Processor.cpp, Ramulator 2 simpleO3/trace.cpp",
    },
    FormatRow {
        format: Format::Dramsim3,
        name: "dramsim3",
        forms: "`<hex address> <operation> <cycle>`",
        apart: "a hexadecimal number, and a word other than R and W",
        words: DRAMSIM3_WORDS,
        word_list: "READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF",
        addresses: Addresses::Physical,
        sized: false,
        when: "the earliest clock cycle of the memory controller",
        skipped: "none",
        example: "0x2000D5C0 READ 30\n0x1FF96FC0 WRITE   160",
        cite: "peers.md §2.3",
    },
    FormatRow {
        format: Format::Usimm,
        name: "usimm",
        forms: "`<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`",
        apart: "a number, R or W, and more",
        words: &read_write("peers.md §2.9"),
        word_list: "R or W",
        addresses: Addresses::Physical,
        sized: false,
        when: "instructions without memory access before it; a read's instruction pointer",
        skipped: "none",
        example: "10 R 0x1fffff80 0x400100\n0 W 0x2000d5c0",
        cite: "peers.md §2.9",
    },
    FormatRow {
        format: Format::Dramsys,
        name: "dramsys",
        forms: "`<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`",
        apart: "nothing tells it from dramsys-relative: it must be named",
        words: DRAMSYS_WORDS,
        word_list: "read or write",
        addresses: Addresses::Physical,
        sized: true,
        when: "the earliest clock cycle of the memory controller",
        skipped: "none",
        example: "31: read 0x400140\n33: (32) write 0x400180\n40: (4) write 0x400180 0x8f4ab001",
        cite: "peers.md §2.5 .stl; DRAMSys StlPlayer.cpp",
    },
    FormatRow {
        format: Format::DramsysRelative,
        name: "dramsys-relative",
        forms: "`<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`",
        apart: "nothing tells it from dramsys: it must be named",
        words: DRAMSYS_WORDS,
        word_list: "read or write",
        addresses: Addresses::Physical,
        sized: true,
        when: "clock cycles behind the end of the access before",
        skipped: "none",
        example: "31: read 0x400140\n2: (32) write 0x400180",
        cite: "peers.md §2.5 .rstl; DRAMSys StlPlayer.cpp",
    },
    FormatRow {
        format: Format::Champsim,
        name: "champsim",
        forms: "instructions of 64 bytes",
        apart: "is_branch and branch_taken are 0 or 1 and bits 63-56 of ip all 0 or all 1, with ip not 0, in every record within \
                the first 4096 bytes, of which there is at least one",
        words: &[],
        word_list: "",
        addresses: Addresses::Virtual,
        sized: false,
        when: "instructions without memory access before it; instruction pointer; the load that it depends on, from the \
               registers",
        skipped: "instructions without memory access",
        example: "",
        cite: "peers.md §2.7, which has the layout; ChampSim inc/trace_instruction.h",
    },
    FormatRow {
        format: Format::Gem5,
        name: "gem5",
        forms: "protobuf packets behind the magic `gem5`",
        apart: "begins with the bytes `gem5`",
        words: &[],
        word_list: "",
        addresses: Addresses::Physical,
        sized: true,
        when: "the moment, from the tick and the header's ticks per second; the instruction pointer where the trace has it",
        skipped: "requests that move no data ([commands](#commands-of-gem5-packets))",
        example: "",
        cite: "peers.md §2.6; gem5 src/proto/packet.proto, which has the fields, and protoio.cc",
    },
];

impl Format {
    /// The form's row.
    pub const fn row(self) -> &'static FormatRow {
        // In the order of the variants, which a test holds.
        let [a, b, c, d, e, f, g, h, i, j, k] = FORMATS;
        match self {
            Format::Lackey => a,
            Format::Ramulator => b,
            Format::RamulatorVector => c,
            Format::RamulatorDram => d,
            Format::SimpleO3 => e,
            Format::Dramsim3 => f,
            Format::Usimm => g,
            Format::Dramsys => h,
            Format::DramsysRelative => i,
            Format::Champsim => j,
            Format::Gem5 => k,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}

/// A name that no form has.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("found `{found}`, expected one of {}", names())]
pub struct FormatParseError {
    /// The name, cut and made printable.
    pub found: String,
}

fn names() -> String {
    FORMATS.map(|row| row.name).join(", ")
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
    // A bar within a cell would end it, and GitHub's tables take `\|` even within code.
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = String::from(
        "| form | records | how it is told apart | operations | addresses | bytes | time and order | skipped | source |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in FORMATS {
        let words: Vec<String> =
            row.words.iter().map(|w| format!("{} = {:?}", w.text, w.kind)).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            cell(row.forms),
            row.apart,
            if words.is_empty() { "by place".to_owned() } else { words.join(", ") },
            match row.addresses {
                Addresses::Virtual => "virtual",
                Addresses::Physical => "physical",
                Addresses::Places => "none; a place in DRAM",
            },
            if row.sized { "as given" } else { "64: the line that holds the address" },
            row.when,
            cell(row.skipped),
            row.cite,
        );
    }
    for row in FORMATS.iter().filter(|row| !row.is_binary()) {
        let _ = write!(out, "\n`{}`:\n\n```\n{}\n```\n", row.name, row.example);
    }
    out
}
