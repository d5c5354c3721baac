//! What came of an operation.

use crate::data::LineData;
use crate::event::BirthId;
use crate::mca::{McConsequence, McRecord};
use crate::tdx::{ExitReason, Low, OPERANDS, Operand, Reading, Status, StatusRow};
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
    /// A guest whose VCPU is in no TD entry.
    NotEntered,
    /// TDH.VP.ENTER has entered a guest that is still running: the call is not over.
    InGuest,
    /// The simulator does not model it.
    NotModelled,
}

/// What a SEAMCALL or TDCALL returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct CallResult {
    /// TDCALL, not SEAMCALL.
    pub guest: bool,
    /// The leaf's number.
    pub leaf: u16,
    /// RAX (architecture.md §7.3).
    pub status: Status,
    /// The registers [`CallResult::NAMES`] after the call.
    pub out: [u64; 6],
}

impl CallResult {
    /// The registers of `out`, as text has them.
    pub const NAMES: [&'static str; 6] = ["rcx", "rdx", "r8", "r9", "r10", "r11"];
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
    /// A leaf of the TDX module returned (architecture.md §7.9).
    Call(CallResult),
    /// A guest's operation ended in an exit to the VMM; it did not complete (architecture.md §7.9 "TDH.VP.ENTER").
    TdExit {
        /// Why.
        reason: ExitReason,
        /// The guest-physical address of an EPT violation or misconfiguration; else 0.
        gpa: u64,
    },
    /// #DF in a guest: a #VE while it has not read the cause of the last one (architecture.md §7.11, TDG.VP.VEINFO.GET).
    DoubleFault,
    /// #PF in a guest: its own tables do not map the linear address (architecture.md §2.5).
    PageFault,
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
                    NotRun::NotEntered => "not-entered",
                    NotRun::InGuest => "in-guest",
                    NotRun::NotModelled => "not-modelled",
                })
            }
            Outcome::Call(result) => write!(f, "tdx {result}"),
            Outcome::TdExit { reason, gpa } => {
                write!(f, "td-exit {}", reason.0)?;
                // Address 0 of an EPT violation or misconfiguration is an address too.
                let faulted = matches!(reason.basic(), 48 | 49);
                if faulted || *gpa != 0 { write!(f, " gpa={gpa:#x}") } else { Ok(()) }
            }
            Outcome::DoubleFault => f.write_str("double-fault"),
            Outcome::PageFault => f.write_str("page-fault"),
        }
    }
}

impl fmt::Display for CallResult {
    /// The status's own name without `TDX_`, after `|` what its low half holds, then the registers that are not zero:
    /// `OPERAND_BUSY|RCX rcx=0x1`. A status without a name is a number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        match status.reading() {
            Reading::Software(row) => f.write_str(short_status(row.name))?,
            Reading::Module(row) => {
                f.write_str(short_status(row.name))?;
                if status.low() != 0 || status.operand().is_some() {
                    write!(f, "|{}", low_half(row, status.low()))?;
                }
            }
            // Linux's other value for a name would look like the module's own.
            Reading::Variant(_) | Reading::Unknown => write!(f, "{:#018x}", status.0)?,
        }
        let named = CallResult::NAMES.iter().zip(self.out);
        named.filter(|(_, n)| *n != 0).try_for_each(|(name, n)| write!(f, " {name}={n:#x}"))
    }
}

/// A status's name without the `TDX_` that all have.
pub fn short_status(name: &str) -> &str {
    name.strip_prefix("TDX_").unwrap_or(name)
}

/// What the low half of this status holds, as text: an operand's name, else a number.
pub fn low_half(row: &StatusRow, low: u32) -> String {
    match (row.low, Operand(low).name()) {
        (Low::Operand, Some(name)) => name.to_owned(),
        (Low::ExitReason | Low::Level, _) => low.to_string(),
        _ => format!("{low:#x}"),
    }
}

/// The operand's id, if the low half of this status holds operands and one has this name.
pub fn named_low_half(row: &StatusRow, name: &str) -> Option<u32> {
    let found = OPERANDS.iter().find(|o| row.low == Low::Operand && o.name == name);
    found.map(|o| o.operand.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tdx::{Leaf, STATUSES};
    use std::collections::BTreeSet;

    fn call(status: Status, out: [u64; 6]) -> Outcome {
        Outcome::Call(CallResult { guest: false, leaf: Leaf::MEM_TRACK.0, status, out })
    }

    #[test]
    fn a_call_prints_its_status_by_name_and_the_registers_that_are_not_zero() {
        let none = [0; 6];
        let shown: Vec<String> = [
            call(Status::SUCCESS, none),
            call(Status::SUCCESS.exit(ExitReason(48)), [1, 0, 0x1000, 0, 0, u64::MAX]),
            call(Status::OPERAND_BUSY.about(Operand::SEPT_TREE), none),
            call(Status::OPERAND_BUSY.about(Operand(12345)), none),
            call(Status::OPERAND_INVALID, none),
            call(Status::OPERAND_BUSY, none),
            call(Status::GPA_RANGE_ALREADY_BLOCKED.about(Operand::RCX), none),
            call(Status(Status::PAGE_SIZE_MISMATCH.0 | 1), none),
            call(Status(Status::INCORRECT_MSR_VALUE.0 | 0x982), none),
            call(Status(Status::INVALID_TDMR.0 | 0x102), none),
            call(Status::SEAMCALL_VMFAILINVALID, none),
            call(Status(Status::OP_STATE_INCORRECT.0 | 7), none),
            // Linux's own value for a name of the module's.
            call(Status(0x4000_0002_0000_0000), none),
            call(Status(0x1234), none),
            call(Status(0xFFFF_0000_0000_0001), none),
            Outcome::TdExit { reason: ExitReason(48), gpa: 0x1000 },
            Outcome::TdExit { reason: ExitReason(49), gpa: 0 },
            Outcome::TdExit { reason: ExitReason(1), gpa: 0 },
            Outcome::PageFault,
            Outcome::DoubleFault,
            Outcome::NotRun(NotRun::NotEntered),
            Outcome::NotRun(NotRun::InGuest),
            Outcome::NotRun(NotRun::NotModelled),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        expect_test::expect![[r#"
            tdx SUCCESS
            tdx SUCCESS|48 rcx=0x1 r8=0x1000 r11=0xffffffffffffffff
            tdx OPERAND_BUSY|SEPT_TREE
            tdx OPERAND_BUSY|0x3039
            tdx OPERAND_INVALID|RAX
            tdx OPERAND_BUSY
            tdx GPA_RANGE_ALREADY_BLOCKED|RCX
            tdx PAGE_SIZE_MISMATCH|1
            tdx INCORRECT_MSR_VALUE|0x982
            tdx INVALID_TDMR|0x102
            tdx SEAMCALL_VMFAILINVALID
            tdx OP_STATE_INCORRECT|0x7
            tdx 0x4000000200000000
            tdx SUCCESS|4660
            tdx 0xffff000000000001
            td-exit 48 gpa=0x1000
            td-exit 49 gpa=0x0
            td-exit 1
            page-fault
            double-fault
            not-run not-entered
            not-run in-guest
            not-run not-modelled"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn no_two_statuses_of_the_module_print_alike() {
        let printed: BTreeSet<String> =
            STATUSES.iter().map(|row| call(row.status, [0; 6]).to_string()).collect();
        assert_eq!(printed.len(), STATUSES.len());
        assert!(printed.iter().all(|text| !text.contains("TDX_") && text.starts_with("tdx ")));
    }

    #[test]
    fn calls_made_outcomes_no_larger() {
        // Machines keep very many of them; a machine check is the largest.
        assert_eq!(size_of::<Outcome>(), 80);
        assert!(size_of::<CallResult>() <= size_of::<Loaded>());
    }
}
