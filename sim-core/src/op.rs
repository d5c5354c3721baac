//! Operations: what an agent asks of the machine, one to a line of text.
//!
//! There is one grammar, [`std::fmt::Display`] and [`std::str::FromStr`] being inverse of each other: scenario files,
//! counterexamples, shrunk property tests and fuzz corpora are made of the same lines (docs/scenario-format.md).

mod text;

pub use text::{MNEMONICS, Mnemonic, OpParseError, REGS};

use crate::addr::Addr;
use crate::data::LineData;
use crate::keyid::KeyId;
use crate::tdx::{GuestLeaf, Leaf};
use crate::time::Ps;
use serde::{Deserialize, Serialize};

/// Memory type of an access, as the page attribute table or MTRRs give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum MemType {
    /// Write-back.
    Wb,
    /// Uncacheable.
    Uc,
    /// Write-combining.
    Wc,
}

/// What a store writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Value {
    /// Not given in the text: [`Value::UNSAID`] in every byte.
    Unsaid,
    /// A number, little-endian, zero-extended beyond its eighth byte.
    Num(u64),
    /// The same byte everywhere.
    Fill(u8),
}

impl Value {
    /// The byte that a store writes when its line of text gives no value.
    pub const UNSAID: u8 = 0x5a;

    /// Byte `index` of the value.
    pub const fn byte(self, index: usize) -> u8 {
        match self {
            Value::Unsaid => Value::UNSAID,
            Value::Fill(byte) => byte,
            Value::Num(n) if index < 8 => (n >> (8 * index)) as u8,
            Value::Num(_) => 0,
        }
    }
    /// The bytes from `skip` on, laid into a line from byte `offset` on, to the end of the line.
    pub fn line(self, skip: usize, offset: usize) -> LineData {
        match self {
            Value::Unsaid => LineData::filled(Value::UNSAID),
            Value::Fill(byte) => LineData::filled(byte),
            Value::Num(n) => {
                let mut line = LineData::ZERO;
                // What is left of the number lies in one word or in two.
                let left = if skip < 8 { n >> (8 * skip) } else { 0 };
                let (word, shift) = (offset / 8, 8 * (offset % 8));
                if let Some(low) = line.0.get_mut(word) {
                    *low = left << shift;
                }
                if shift != 0
                    && let Some(high) = line.0.get_mut(word + 1)
                {
                    *high = left >> (64 - shift);
                }
                line
            }
        }
    }
}

/// Where MOVDIR64B takes its 64 bytes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Source<A> {
    /// A line of the core's own that holds the same byte everywhere and is not modelled as memory.
    Fill(u8),
    /// Memory, at any alignment: an ordinary 64-byte load (architecture.md §3 3.1, 3.2).
    Mem(A),
}

/// What PCONFIG does with a KeyID (architecture.md §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum PconfigCmd {
    /// 0: key given by software (the model derives it from the number).
    SetDirect(u64),
    /// 1: key drawn by the hardware.
    SetRandom,
    /// 2: back to the TME key.
    ClearKey,
    /// 3: no encryption.
    NoEncrypt,
}

/// Encryption algorithm given to PCONFIG (architecture.md §1.3 1.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum KeyAlg {
    /// AES-XTS-128.
    Xts128,
    /// AES-XTS-128 with integrity.
    Xts128Integrity,
    /// AES-XTS-256.
    Xts256,
    /// AES-XTS-256 with integrity.
    Xts256Integrity,
}

impl KeyAlg {
    /// Whether lines under such a key carry a MAC.
    pub const fn has_integrity(self) -> bool {
        matches!(self, KeyAlg::Xts128Integrity | KeyAlg::Xts256Integrity)
    }
}

/// Which kind of interrupt arrives at a core (architecture.md §6.3, §7.11 "Exit reasons used").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum IrqKind {
    /// An external interrupt.
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// A system-management interrupt.
    Smi,
}

/// The registers that a SEAMCALL or TDCALL takes besides RAX, in the order of [`CallRegs::NAMES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
pub struct CallRegs<R = u64>(pub [R; 8]);

impl CallRegs<()> {
    /// The registers' names, as text has them (architecture.md §7.9: leaves take their operands in these).
    pub const NAMES: [&'static str; 8] = ["rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13"];
}

impl<R> CallRegs<R> {
    /// The same registers in another form.
    ///
    /// # Errors
    /// The first error of `map`.
    pub fn try_map<S, E>(self, mut map: impl FnMut(R) -> Result<S, E>) -> Result<CallRegs<S>, E> {
        let [rcx, rdx, r8, r9, r10, r11, r12, r13] = self.0;
        Ok(CallRegs([
            map(rcx)?,
            map(rdx)?,
            map(r8)?,
            map(r9)?,
            map(r10)?,
            map(r11)?,
            map(r12)?,
            map(r13)?,
        ]))
    }
}

/// One operation. `A` is how addresses, `K` how KeyIDs and `R` how register operands are given: resolved (the default) or
/// as text has them ([`TextOp`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Op<A = Addr, K = KeyId, R = u64> {
    /// A data load of 1 to 64 bytes at any alignment.
    Load {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// Memory type.
        ty: MemType,
    },
    /// An instruction fetch of the line.
    Fetch {
        /// Any byte of the line.
        at: A,
    },
    /// A software prefetch or a speculative load that never retires (architecture.md §13 MC-06).
    Prefetch {
        /// Any byte of the line.
        at: A,
    },
    /// A store of 1 to 64 bytes at any alignment.
    Store {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// What.
        value: Value,
        /// Memory type.
        ty: MemType,
    },
    /// A non-temporal store: MOVNTI of 4 or 8 bytes, MOVNTDQ of 16, 32 or 64 aligned bytes.
    NtStore {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// What.
        value: Value,
    },
    /// MOVDIRI: a direct store of 4 or 8 bytes (architecture.md §3 3.8).
    Movdiri {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// What.
        value: Value,
    },
    /// MOVDIR64B: a direct store of a whole line (architecture.md §3).
    Movdir64b {
        /// The line; must be 64-byte aligned, else #GP.
        dst: A,
        /// Its new content.
        src: Source<A>,
    },
    /// 64 MOVDIR64B of zeros over a 4 KiB page, without a fence: the body of Linux's `tdx_clear_page`
    /// (architecture.md §3 3.9).
    Movdir64bPage {
        /// The page; must be 4 KiB aligned, else #GP.
        at: A,
    },
    /// REP STOSB, the fast-string store (architecture.md §13 MC-29).
    RepStosb {
        /// First byte.
        at: A,
        /// How many bytes, at most 1 MiB.
        bytes: u32,
        /// The byte.
        value: u8,
    },
    /// LOCK XADD: a locked read-modify-write of 1, 2, 4 or 8 bytes.
    LockXadd {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// What is added.
        value: u64,
    },
    /// CLFLUSH.
    Clflush {
        /// Any byte of the line.
        at: A,
    },
    /// CLFLUSHOPT.
    Clflushopt {
        /// Any byte of the line.
        at: A,
    },
    /// CLWB.
    Clwb {
        /// Any byte of the line.
        at: A,
    },
    /// WBINVD on this agent's package.
    Wbinvd,
    /// WBNOINVD on this agent's package.
    Wbnoinvd,
    /// WRMSR 0x98 (WBINVDP) of a cache sub-block, SEAM only (architecture.md §4.1 4.1.10).
    Wbinvdp {
        /// Sub-block index.
        block: u32,
    },
    /// WRMSR 0x99 (WBNOINVDP) of a cache sub-block, SEAM only.
    Wbnoinvdp {
        /// Sub-block index.
        block: u32,
    },
    /// MFENCE.
    Mfence,
    /// SFENCE.
    Sfence,
    /// LFENCE.
    Lfence,
    /// An interrupt taken by this core (it drains the write-combining buffers, architecture.md §13 MC-28).
    Interrupt,
    /// Nothing, for so long.
    Delay {
        /// How long.
        time: Ps,
    },
    /// PCONFIG of a KeyID on this agent's package (architecture.md §8).
    Pconfig {
        /// Which KeyID.
        keyid: K,
        /// What to do.
        cmd: PconfigCmd,
        /// With which algorithm; the platform's own for the KeyID's class where absent.
        alg: Option<KeyAlg>,
    },
    /// A DMA read of 1 to 4096 bytes.
    DmaRead {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
    },
    /// A DMA write of 1 to 4096 bytes.
    DmaWrite {
        /// First byte.
        at: A,
        /// How many bytes.
        bytes: u32,
        /// What.
        value: Value,
    },
    /// The hardware's choice: the line leaves every cache now, as a capacity eviction would make it.
    Evict {
        /// Any byte of the line, with the KeyID of the copy.
        at: A,
    },
    /// The hardware's choice: the core's oldest write-combining buffer leaves now.
    WcEvict {
        /// Which core.
        core: u32,
    },
    /// The hardware's choice: the line's modified copy is written to memory now and stays, clean.
    WriteBack {
        /// Any byte of the line, with the KeyID of the copy.
        at: A,
    },
    /// The hardware's choice: what a core has waiting for the line, a write-combining buffer or a weakly ordered operation,
    /// becomes visible now.
    Drain {
        /// Which core.
        core: u32,
        /// Any byte of the line, with its KeyID.
        at: A,
    },
    /// A physical fault: one bit of the stored ciphertext flips.
    FlipBit {
        /// Any byte of the line.
        at: A,
        /// Bit 0 to 511.
        bit: u32,
    },
    /// A physical fault: the stored TD-owner bit flips.
    FlipTd {
        /// Any byte of the line.
        at: A,
    },
    /// A physical attack: ciphertext, TD bit and MAC of one line are copied over another's.
    MoveLine {
        /// From where.
        from: A,
        /// To where.
        to: A,
    },
    /// A physical attack: remember the line's ciphertext, TD bit and MAC.
    SaveLine {
        /// Any byte of the line.
        at: A,
        /// In which of 16 slots.
        slot: u32,
    },
    /// A physical attack: put back what was remembered (replay).
    ReplayLine {
        /// From which of 16 slots.
        slot: u32,
        /// Any byte of the line.
        at: A,
    },
    /// A physical fault: an uncorrectable memory error poisons the line.
    InjectUe {
        /// Any byte of the line.
        at: A,
    },
    /// SEAMCALL: a leaf of the TDX module, called by the host (architecture.md §7.9).
    Seamcall {
        /// RAX\[15:0\].
        leaf: Leaf,
        /// RAX\[23:16\].
        version: u8,
        /// The other registers.
        regs: CallRegs<R>,
    },
    /// TDCALL: a leaf of the TDX module, called by a TD (architecture.md §7.9, §7.11).
    Tdcall {
        /// RAX\[15:0\].
        leaf: GuestLeaf,
        /// RAX\[23:16\].
        version: u8,
        /// The other registers.
        regs: CallRegs<R>,
    },
    /// The P-SEAMLDR puts a new TDX module in place of the one that was shut down (SEAMLDR.INSTALL; linux-host-paths.md
    /// §2.1 rows 52 and 53).
    SeamldrInstall,
    /// An interrupt arrives at a core. It is taken when the operation that is then running, or next run, there allows it;
    /// a TD exits.
    Irq {
        /// Which core.
        core: u32,
        /// Which kind.
        kind: IrqKind,
    },
    /// WRMSR by the kernel: what TDH.SYS.INIT and TDH.SYS.LP.INIT check (architecture.md §7.9).
    Wrmsr {
        /// Which MSR.
        msr: u32,
        /// Its new value.
        value: u64,
    },
    /// A hardware fault: the next random draws of a core find no entropy (architecture.md §7.3 RND_NO_ENTROPY and
    /// KEY_GENERATION_FAILED).
    Starve {
        /// Which core.
        core: u32,
        /// How many draws.
        draws: u32,
    },
    /// MOV to CR3 by a guest: from now on its addresses are linear, translated by the tables there (architecture.md §2.5).
    MovCr3 {
        /// The new value.
        value: R,
    },
    /// INVLPG by a guest.
    Invlpg {
        /// A linear address of the page.
        at: A,
    },
}

/// An operation as text has it: regions by name, KeyIDs relative to the platform.
pub type TextOp = Op<AddrExpr, KeyRef, RegExpr>;

/// A register operand as text has it: `0x200000|1`, `[P0+0x1000@priv1]`, `priv1`, `[TDR]|1`. The default is 0.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
pub struct RegExpr {
    /// The value.
    pub base: RegBase,
    /// Bits that are or-ed in: a level, a flag.
    pub or: u64,
}

/// The first part of a [`RegExpr`].
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum RegBase {
    /// A number.
    Num(u64),
    /// A physical address with the KeyID bits folded in; KeyID 0 where none is named. Boxed, since a program has very many
    /// operations and most registers hold 0.
    Place(Box<AddrExpr>),
    /// The number of the platform's n-th private KeyID: `priv0`.
    Private(u16),
    /// The number of the n-th shared KeyID above 0: `shared0`.
    Shared(u16),
}

impl Default for RegBase {
    fn default() -> Self {
        RegBase::Num(0)
    }
}

/// An address as text has it.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct AddrExpr {
    /// Where.
    pub base: Base,
    /// Under which KeyID; the agent's own where absent.
    pub key: Option<KeyRef>,
}

/// The place part of an [`AddrExpr`].
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Base {
    /// A host physical address.
    Abs(u64),
    /// A region of the scenario and an offset into it.
    Region {
        /// The region's name.
        name: String,
        /// Bytes from its start.
        offset: u64,
    },
}

/// A KeyID as text has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum KeyRef {
    /// A number. Whether the platform has it is found when the operation is bound to a platform.
    Num(u32),
    /// `priv0` is the platform's first private KeyID, which Linux takes as global HKID.
    Private(u16),
    /// `shared0` is KeyID 1.
    Shared(u16),
}

impl<A, K, R> Op<A, K, R> {
    /// The addresses that the operation names, in the order of its text.
    pub const fn addresses(&self) -> [Option<&A>; 2] {
        match self {
            Op::Load { at, .. }
            | Op::Fetch { at }
            | Op::Prefetch { at }
            | Op::Store { at, .. }
            | Op::NtStore { at, .. }
            | Op::Movdiri { at, .. }
            | Op::Movdir64b { dst: at, src: Source::Fill(_) }
            | Op::Movdir64bPage { at }
            | Op::RepStosb { at, .. }
            | Op::LockXadd { at, .. }
            | Op::Clflush { at }
            | Op::Clflushopt { at }
            | Op::Clwb { at }
            | Op::DmaRead { at, .. }
            | Op::DmaWrite { at, .. }
            | Op::Evict { at }
            | Op::WriteBack { at }
            | Op::Drain { at, .. }
            | Op::FlipBit { at, .. }
            | Op::FlipTd { at }
            | Op::SaveLine { at, .. }
            | Op::ReplayLine { at, .. }
            | Op::InjectUe { at }
            | Op::Invlpg { at } => [Some(at), None],
            Op::Movdir64b { dst, src: Source::Mem(src) } => [Some(dst), Some(src)],
            Op::MoveLine { from, to } => [Some(from), Some(to)],
            Op::Wbinvd
            | Op::Wbnoinvd
            | Op::Wbinvdp { .. }
            | Op::Wbnoinvdp { .. }
            | Op::Mfence
            | Op::Sfence
            | Op::Lfence
            | Op::Interrupt
            | Op::Delay { .. }
            | Op::Pconfig { .. }
            | Op::WcEvict { .. }
            | Op::Seamcall { .. }
            | Op::Tdcall { .. }
            | Op::Irq { .. }
            | Op::Wrmsr { .. }
            | Op::Starve { .. }
            | Op::SeamldrInstall
            | Op::MovCr3 { .. } => [None, None],
        }
    }

    /// Whether the operation belongs to TDX calls, interrupts or guests: what only a machine with a TDX module runs.
    pub const fn needs_module(&self) -> bool {
        matches!(
            self,
            Op::Seamcall { .. }
                | Op::Tdcall { .. }
                | Op::Irq { .. }
                | Op::Wrmsr { .. }
                | Op::Starve { .. }
                | Op::SeamldrInstall
                | Op::MovCr3 { .. }
                | Op::Invlpg { .. }
        )
    }

    /// How many bytes from its first address the operation touches.
    pub const fn bytes(&self) -> u32 {
        match self {
            Op::Load { bytes, .. }
            | Op::Store { bytes, .. }
            | Op::NtStore { bytes, .. }
            | Op::Movdiri { bytes, .. }
            | Op::RepStosb { bytes, .. }
            | Op::LockXadd { bytes, .. }
            | Op::DmaRead { bytes, .. }
            | Op::DmaWrite { bytes, .. } => *bytes,
            Op::Movdir64b { .. } => 64,
            Op::Movdir64bPage { .. } => 4096,
            _ => 1,
        }
    }

    /// The same operation with its addresses, KeyIDs and register operands turned into another form, in the order of its
    /// text.
    ///
    /// # Errors
    /// The first error of `addr`, `key` or `reg`.
    pub fn try_map<B, L, S, E>(
        self,
        mut addr: impl FnMut(A) -> Result<B, E>,
        mut key: impl FnMut(K) -> Result<L, E>,
        mut reg: impl FnMut(R) -> Result<S, E>,
    ) -> Result<Op<B, L, S>, E> {
        Ok(match self {
            Op::Load { at, bytes, ty } => Op::Load { at: addr(at)?, bytes, ty },
            Op::Fetch { at } => Op::Fetch { at: addr(at)? },
            Op::Prefetch { at } => Op::Prefetch { at: addr(at)? },
            Op::Store { at, bytes, value, ty } => Op::Store { at: addr(at)?, bytes, value, ty },
            Op::NtStore { at, bytes, value } => Op::NtStore { at: addr(at)?, bytes, value },
            Op::Movdiri { at, bytes, value } => Op::Movdiri { at: addr(at)?, bytes, value },
            Op::Movdir64b { dst, src } => {
                let dst = addr(dst)?;
                let src = match src {
                    Source::Fill(byte) => Source::Fill(byte),
                    Source::Mem(at) => Source::Mem(addr(at)?),
                };
                Op::Movdir64b { dst, src }
            }
            Op::Movdir64bPage { at } => Op::Movdir64bPage { at: addr(at)? },
            Op::RepStosb { at, bytes, value } => Op::RepStosb { at: addr(at)?, bytes, value },
            Op::LockXadd { at, bytes, value } => Op::LockXadd { at: addr(at)?, bytes, value },
            Op::Clflush { at } => Op::Clflush { at: addr(at)? },
            Op::Clflushopt { at } => Op::Clflushopt { at: addr(at)? },
            Op::Clwb { at } => Op::Clwb { at: addr(at)? },
            Op::Wbinvd => Op::Wbinvd,
            Op::Wbnoinvd => Op::Wbnoinvd,
            Op::Wbinvdp { block } => Op::Wbinvdp { block },
            Op::Wbnoinvdp { block } => Op::Wbnoinvdp { block },
            Op::Mfence => Op::Mfence,
            Op::Sfence => Op::Sfence,
            Op::Lfence => Op::Lfence,
            Op::Interrupt => Op::Interrupt,
            Op::Delay { time } => Op::Delay { time },
            Op::Pconfig { keyid, cmd, alg } => Op::Pconfig { keyid: key(keyid)?, cmd, alg },
            Op::DmaRead { at, bytes } => Op::DmaRead { at: addr(at)?, bytes },
            Op::DmaWrite { at, bytes, value } => Op::DmaWrite { at: addr(at)?, bytes, value },
            Op::Evict { at } => Op::Evict { at: addr(at)? },
            Op::WriteBack { at } => Op::WriteBack { at: addr(at)? },
            Op::Drain { core, at } => Op::Drain { core, at: addr(at)? },
            Op::WcEvict { core } => Op::WcEvict { core },
            Op::FlipBit { at, bit } => Op::FlipBit { at: addr(at)?, bit },
            Op::FlipTd { at } => Op::FlipTd { at: addr(at)? },
            Op::MoveLine { from, to } => Op::MoveLine { from: addr(from)?, to: addr(to)? },
            Op::SaveLine { at, slot } => Op::SaveLine { at: addr(at)?, slot },
            Op::ReplayLine { slot, at } => Op::ReplayLine { slot, at: addr(at)? },
            Op::InjectUe { at } => Op::InjectUe { at: addr(at)? },
            Op::Seamcall { leaf, version, regs } => {
                Op::Seamcall { leaf, version, regs: regs.try_map(reg)? }
            }
            Op::Tdcall { leaf, version, regs } => {
                Op::Tdcall { leaf, version, regs: regs.try_map(reg)? }
            }
            Op::Irq { core, kind } => Op::Irq { core, kind },
            Op::Wrmsr { msr, value } => Op::Wrmsr { msr, value },
            Op::Starve { core, draws } => Op::Starve { core, draws },
            Op::MovCr3 { value } => Op::MovCr3 { value: reg(value)? },
            Op::Invlpg { at } => Op::Invlpg { at: addr(at)? },
            Op::SeamldrInstall => Op::SeamldrInstall,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_laid_into_a_line_byte_by_byte(n: u64, skip in 0usize..70, offset in 0usize..70) {
            let value = Value::Num(n);
            let line = value.line(skip, offset);
            for i in 0..64 {
                let want = if i < offset { 0 } else { value.byte(skip + i - offset) };
                prop_assert_eq!(line.byte(i), want);
            }
        }
    }
}
