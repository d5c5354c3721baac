//! What came of an operation.

use crate::data::LineData;
use crate::event::BirthId;
use crate::mca::{McConsequence, McRecord};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where the bytes of a line came from, as far as anybody outside the controller can tell the difference.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize,
)]
pub enum DataClass {
    /// What was last written under this key.
    #[default]
    Plain,
    /// The controller returned zeros in place of the line (architecture.md §2.2, §2.3).
    Blocked,
    /// Ciphertext decrypted with another key than the one that encrypted it, or never written, or tampered with.
    Garbage,
}

/// Bytes that a load returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Loaded {
    /// The bytes, moved to the front; at most 64 of a longer DMA read.
    pub data: LineData,
    /// How many bytes were asked for.
    pub bytes: u32,
    /// The least trustworthy class among the lines touched.
    pub class: DataClass,
}

/// Why #GP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum GpReason {
    /// An operand that must be aligned is not (architecture.md §3 3.1).
    Misaligned,
    /// A SEAM-only MSR outside SEAM (architecture.md §4.1 4.1.10).
    NotInSeam,
    /// An instruction for ring 0 only.
    Privilege,
    /// A sub-block index at or beyond the number of sub-blocks (architecture.md §4.1 4.1.10).
    NoSuchSubBlock,
}

/// Result of PCONFIG (architecture.md §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum PconfigStatus {
    /// 0.
    Ok,
    /// 1: no such command.
    BadCommand,
    /// 2: no entropy.
    NoEntropy,
    /// 3: KeyID 0, beyond the configured ones, or private outside SEAM.
    InvalidKeyId,
    /// 4: algorithm not activated on this platform.
    InvalidAlgorithm,
    /// 5: another PCONFIG is running.
    DeviceBusy,
}

impl PconfigStatus {
    /// The number that PCONFIG returns.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why an operation was not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum NotRun {
    /// The kernel has panicked.
    Panic,
    /// This agent was killed or its TD is fatal.
    Killed,
    /// This logical processor is in unbreakable shutdown.
    Shutdown,
    /// The run reached the end of simulated time.
    Horizon,
}

/// What came of an operation, as its agent sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// It completed and returned nothing.
    Done,
    /// It returned bytes.
    Data(Loaded),
    /// #PF with RSVD=1: private KeyID bits outside SEAM (architecture.md §2.5).
    PageFaultRsvd,
    /// #GP.
    GeneralProtection(GpReason),
    /// EPT misconfiguration: a TD's or guest's shared mapping with private KeyID bits (architecture.md §2.5).
    EptMisconfiguration,
    /// #VE: an instruction that a TD may not execute (architecture.md §4.4, WBINVD).
    VirtualizationException,
    /// #MC, by consumption of poison.
    MachineCheck {
        /// The registers.
        record: McRecord,
        /// What the consumer does then (architecture.md §6.3).
        consequence: McConsequence,
    },
    /// The device's access was aborted with a remapping fault (architecture.md §2.5).
    DmaAbort,
    /// The device received an error response instead of data (architecture.md §13 MC-13).
    DmaPoison(BirthId),
    /// PCONFIG returned.
    Pconfig(PconfigStatus),
    /// SEAM code could not run: TDX is disabled on this platform (architecture.md §6.3).
    VmFailInvalid,
    /// It was not run.
    NotRun(NotRun),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Data(loaded) => write!(f, "{loaded}"),
            Outcome::PageFaultRsvd => f.write_str("pf rsvd"),
            Outcome::GeneralProtection(reason) => {
                f.write_str("gp ")?;
                f.write_str(match reason {
                    GpReason::Misaligned => "misaligned",
                    GpReason::NotInSeam => "not-in-seam",
                    GpReason::Privilege => "privilege",
                    GpReason::NoSuchSubBlock => "no-such-sub-block",
                })
            }
            Outcome::EptMisconfiguration => f.write_str("ept-misconfiguration"),
            Outcome::VirtualizationException => f.write_str("ve"),
            Outcome::MachineCheck { record, consequence } => {
                write!(f, "mc {} {consequence}", record.class())
            }
            Outcome::DmaAbort => f.write_str("dma-abort"),
            Outcome::DmaPoison(_) => f.write_str("dma-poison"),
            Outcome::Pconfig(status) => {
                f.write_str("pconfig ")?;
                f.write_str(match status {
                    PconfigStatus::Ok => "ok",
                    PconfigStatus::BadCommand => "bad-command",
                    PconfigStatus::NoEntropy => "no-entropy",
                    PconfigStatus::InvalidKeyId => "invalid-keyid",
                    PconfigStatus::InvalidAlgorithm => "invalid-algorithm",
                    PconfigStatus::DeviceBusy => "device-busy",
                })
            }
            Outcome::VmFailInvalid => f.write_str("vmfail-invalid"),
            Outcome::NotRun(why) => {
                f.write_str("not-run ")?;
                f.write_str(match why {
                    NotRun::Panic => "panic",
                    NotRun::Killed => "killed",
                    NotRun::Shutdown => "shutdown",
                    NotRun::Horizon => "horizon",
                })
            }
        }
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.bytes.min(64) as usize;
        let class = match self.class {
            DataClass::Garbage => "garbage",
            _ if self.data.is_zero() => return f.write_str("zeros"),
            _ => "data",
        };
        f.write_str(class)?;
        let first = self.data.byte(0);
        if n > 8 && (1..n).all(|i| self.data.byte(i) == first) {
            return write!(f, " fill={first:#x}");
        }
        if n > 8 {
            // In the order of memory.
            f.write_str(" bytes=")?;
            return (0..n).try_for_each(|i| write!(f, "{:02x}", self.data.byte(i)));
        }
        // Little-endian, as a store's number is written.
        f.write_str(" 0x")?;
        let top = (0..n).rev().find(|i| self.data.byte(*i) != 0).unwrap_or(0);
        (0..=top).rev().try_for_each(|i| write!(f, "{:02x}", self.data.byte(i)))
    }
}
