//! Machine-check architecture: register images and their fields (architecture.md §6.2).

use crate::addr::Addr;
use crate::event::BirthId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// IA32_MCi_STATUS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct McStatus(pub u64);

/// IA32_MCG_STATUS (0x17A).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct McgStatus(pub u64);

/// IA32_MCi_MISC of a recoverable error. The layout is the SDM's (vol. 3B, "IA32_MCi_MISC MSRs"); the sheets give no value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct McMisc(pub u64);

/// A named bit or field of a machine-check register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Lowest bit.
    pub shift: u8,
    /// How many bits.
    pub bits: u8,
    /// The manual's name.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn field(shift: u8, bits: u8, name: &'static str, meaning: &'static str) -> Field {
    Field { shift, bits, name, meaning }
}

/// The fields of [`McStatus`], architecture.md §6.2 row "MCi_STATUS".
#[rustfmt::skip]
pub const STATUS_FIELDS: &[Field] = &[
    field(63, 1,  "VAL",    "the register holds a valid error"),
    field(62, 1,  "OVER",   "an earlier error was overwritten"),
    field(61, 1,  "UC",     "uncorrected"),
    field(60, 1,  "EN",     "reporting of this error was enabled"),
    field(59, 1,  "MISCV",  "MCi_MISC is valid"),
    field(58, 1,  "ADDRV",  "MCi_ADDR is valid"),
    field(57, 1,  "PCC",    "processor context corrupt"),
    field(56, 1,  "S",      "signalled as a machine check"),
    field(55, 1,  "AR",     "recovery action required"),
    field(16, 16, "MSCOD",  "model-specific error code"),
    field(0,  16, "MCACOD", "architectural error code"),
];

/// The fields of [`McgStatus`], architecture.md §6.2 row "MCG_STATUS".
#[rustfmt::skip]
pub const MCG_FIELDS: &[Field] = &[
    field(0,  1, "RIPV",    "the interrupted instruction can be restarted"),
    field(1,  1, "EIPV",    "the interrupted instruction is the one in error"),
    field(2,  1, "MCIP",    "a machine check is in progress"),
    field(3,  1, "LMCES",   "delivered to this logical processor only"),
    field(12, 1, "SEAM_NR", "hit in SEAM non-root, that is, in a TD"),
];

/// The fields of [`McMisc`].
#[rustfmt::skip]
pub const MISC_FIELDS: &[Field] = &[
    field(6, 3, "ADDR_MODE", "what MCi_ADDR holds: 0 segment offset, 1 linear, 2 physical, 3 memory address, 7 generic"),
    field(0, 6, "ADDR_LSB",  "the least significant valid bit of MCi_ADDR"),
];

/// MCACOD of a recoverable data load (architecture.md §6.2).
pub const MCACOD_DATA_LOAD: u16 = 0x0134;
/// MCACOD of a recoverable instruction fetch.
pub const MCACOD_FETCH: u16 = 0x0150;

/// The parts of an MCi_STATUS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the manual's and STATUS_FIELDS explains them")]
pub struct StatusParts {
    pub val: bool,
    pub over: bool,
    pub uc: bool,
    pub en: bool,
    pub miscv: bool,
    pub addrv: bool,
    pub pcc: bool,
    pub s: bool,
    pub ar: bool,
    pub mscod: u16,
    pub mcacod: u16,
}

impl McStatus {
    /// Packs the parts; the bits that [`STATUS_FIELDS`] does not name are zero.
    pub const fn pack(p: StatusParts) -> McStatus {
        McStatus(
            (p.val as u64) << 63
                | (p.over as u64) << 62
                | (p.uc as u64) << 61
                | (p.en as u64) << 60
                | (p.miscv as u64) << 59
                | (p.addrv as u64) << 58
                | (p.pcc as u64) << 57
                | (p.s as u64) << 56
                | (p.ar as u64) << 55
                | (p.mscod as u64) << 16
                | p.mcacod as u64,
        )
    }
    /// Takes the parts out.
    pub fn unpack(self) -> StatusParts {
        let bit = |n: u32| self.0 >> n & 1 != 0;
        StatusParts {
            val: bit(63),
            over: bit(62),
            uc: bit(61),
            en: bit(60),
            miscv: bit(59),
            addrv: bit(58),
            pcc: bit(57),
            s: bit(56),
            ar: bit(55),
            mscod: (self.0 >> 16) as u16,
            mcacod: self.0 as u16,
        }
    }
    /// A software-recoverable error whose recovery is required: UC, EN, S, AR, with address and MISC
    /// (architecture.md §6.2 row "SRAR").
    pub const fn srar(mscod: u16, mcacod: u16) -> McStatus {
        McStatus::uncorrected(true, mscod, mcacod)
    }
    /// An uncorrected error that requires no action: S=AR=0 (architecture.md §6.2 row "UCNA", §13 MC-20).
    pub const fn ucna(mscod: u16, mcacod: u16) -> McStatus {
        McStatus::uncorrected(false, mscod, mcacod)
    }
    const fn uncorrected(action_required: bool, mscod: u16, mcacod: u16) -> McStatus {
        McStatus::pack(StatusParts {
            val: true,
            over: false,
            uc: true,
            en: true,
            miscv: true,
            addrv: true,
            pcc: false,
            s: action_required,
            ar: action_required,
            mscod,
            mcacod,
        })
    }
}

impl McMisc {
    /// ADDR_MODE of a physical address.
    pub const PHYSICAL: u8 = 2;

    /// Packs the fields; of `mode` bits 2:0 count and of `lsb` bits 5:0.
    pub const fn pack(mode: u8, lsb: u8) -> McMisc {
        McMisc((mode as u64 & 7) << 6 | lsb as u64 & 63)
    }
    /// What MCi_ADDR holds.
    pub const fn mode(self) -> u8 {
        (self.0 >> 6 & 7) as u8
    }
    /// The least significant valid bit of MCi_ADDR.
    pub const fn lsb(self) -> u8 {
        (self.0 & 63) as u8
    }
}

impl McgStatus {
    /// Bit 0.
    pub const RIPV: u64 = 1 << 0;
    /// Bit 1.
    pub const EIPV: u64 = 1 << 1;
    /// Bit 2.
    pub const MCIP: u64 = 1 << 2;
    /// Bit 3.
    pub const LMCES: u64 = 1 << 3;
    /// Bit 12.
    pub const SEAM_NR: u64 = 1 << 12;

    /// Whether all bits of `mask` are set.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }
}

/// How poison was consumed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum McAccess {
    /// A retired data load.
    DataLoad,
    /// An instruction fetch.
    Fetch,
}

/// Whose instruction consumed it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum McContext {
    /// The host kernel.
    Kernel,
    /// A host user process.
    User,
    /// The TDX module.
    SeamRoot,
    /// A TD.
    SeamNonRoot,
}

/// What a machine check does to its consumer, before any operating system has a say (architecture.md §6.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum McConsequence {
    /// The host kernel panics.
    Panic,
    /// The process gets SIGBUS.
    Sigbus,
    /// The kernel carries on (the access had a fixup, or no action is required).
    Survived,
    /// The TD exits to the module, which makes it fatal.
    TdFatal,
    /// Unbreakable shutdown of this logical processor; TDX is disabled platform-wide.
    Shutdown,
}

impl fmt::Display for McConsequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            McConsequence::Panic => "panic",
            McConsequence::Sigbus => "sigbus",
            McConsequence::Survived => "survived",
            McConsequence::TdFatal => "td-fatal",
            McConsequence::Shutdown => "shutdown",
        })
    }
}

/// One machine check, as its registers show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct McRecord {
    /// Which core.
    pub core: u16,
    /// Which bank.
    pub bank: u8,
    /// IA32_MCi_STATUS.
    pub status: McStatus,
    /// IA32_MCi_ADDR, KeyID bits included (architecture.md §13 MC-24).
    pub addr: u64,
    /// IA32_MCi_MISC.
    pub misc: u64,
    /// IA32_MCG_STATUS.
    pub mcg: McgStatus,
    /// What the core was doing.
    pub access: McAccess,
    /// Who did it.
    pub context: McContext,
    /// The line, without KeyID bits, and the KeyID of the access.
    pub at: Addr,
    /// Which poison was consumed.
    pub birth: BirthId,
}

impl McRecord {
    /// In the words of an expectation: `srar data-load`, `srar fetch`, with ` seam-nr` where MCG_STATUS says so.
    pub fn class(&self) -> String {
        let p = self.status.unpack();
        let severity = match (p.uc, p.s, p.ar) {
            (true, true, true) => "srar",
            (true, true, false) => "srao",
            (true, false, false) => "ucna",
            _ => "other",
        };
        let access = match self.access {
            McAccess::DataLoad => "data-load",
            McAccess::Fetch => "fetch",
        };
        let seam = if self.mcg.has(McgStatus::SEAM_NR) { " seam-nr" } else { "" };
        format!("{severity} {access}{seam}")
    }
}

/// A UCNA entry that the memory controller logged at the birth of poison (architecture.md §2.4 2.4.6, §13 MC-20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct UcnaRecord {
    /// Which bank: one per channel.
    pub bank: u8,
    /// IA32_MCi_STATUS.
    pub status: McStatus,
    /// IA32_MCi_ADDR, KeyID bits included.
    pub addr: u64,
    /// Whether a CMCI was signalled.
    pub cmci: bool,
    /// Which poison was born.
    pub birth: BirthId,
}

impl fmt::Debug for McStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}
impl fmt::Debug for McgStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_published_kernel_log_is_a_recoverable_data_load() {
        // verification.md R1: bank 1, STATUS=0xbd80000000100134.
        assert_eq!(McStatus::srar(0x0010, MCACOD_DATA_LOAD), McStatus(0xbd80_0000_0010_0134));
    }

    proptest! {
        #[test]
        fn status_unpacks_what_it_packs(raw: u64) {
            let named = STATUS_FIELDS
                .iter()
                .fold(0u64, |m, f| m | (u64::MAX >> (64 - f.bits)) << f.shift);
            prop_assert_eq!(McStatus::pack(McStatus(raw).unpack()).0, raw & named);
        }
    }

    #[test]
    fn fields_do_not_overlap() {
        for table in [STATUS_FIELDS, MCG_FIELDS] {
            let mut seen = 0u64;
            for f in table {
                let mask = (u64::MAX >> (64 - f.bits)) << f.shift;
                assert_eq!(seen & mask, 0, "{} overlaps", f.name);
                seen |= mask;
            }
        }
    }
}
