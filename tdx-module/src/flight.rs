//! A call into the module while it is under way: plain data that asks for one thing after the other.
//!
//! The module does no I/O. [`crate::Module::step`] says what it wants done next, an [`Action`]; whoever runs it (a machine
//! with caches and time, or one without) does that and comes back with a [`Reply`]. Between two steps others run.

use crate::lock::Mode;
use crate::pamt::Size;
use crate::sept::Entry;
use serde::{Deserialize, Serialize};
use sim_core::data::LineData;
use sim_core::op::KeyAlg;
use sim_core::outcome::PconfigStatus;
use sim_core::tdx::{ExitReason, GuestLeaf, Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Page, Ps};

/// Registers that carry operands, in the order of [`Call::regs`].
pub mod reg {
    /// Their names, in that order.
    pub const NAMES: [&str; 8] = ["RCX", "RDX", "R8", "R9", "R10", "R11", "R12", "R13"];
    /// RCX.
    pub const RCX: usize = 0;
    /// RDX.
    pub const RDX: usize = 1;
    /// R8.
    pub const R8: usize = 2;
    /// R9.
    pub const R9: usize = 3;
    /// R10.
    pub const R10: usize = 4;
    /// R11.
    pub const R11: usize = 5;
    /// R12.
    pub const R12: usize = 6;
    /// R13.
    pub const R13: usize = 7;
}

/// A SEAMCALL as its caller makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Call {
    /// RAX: leaf in bits 15:0, version in 23:16.
    pub rax: u64,
    /// RCX, RDX, R8 to R13.
    pub regs: [u64; 8],
}

impl Call {
    /// A call of version 0.
    pub const fn new(leaf: Leaf, rcx: u64, rdx: u64, r8: u64, r9: u64) -> Call {
        Call { rax: leaf.0 as u64, regs: [rcx, rdx, r8, r9, 0, 0, 0, 0] }
    }
}

/// What a call returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// RAX.
    pub status: Status,
    /// RCX, RDX, R8 to R11.
    pub out: [u64; 6],
}

/// What the processor tells the module besides registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Env<'a> {
    /// The logical processor.
    pub lp: u16,
    /// Its package.
    pub package: u8,
    /// Whether an interrupt is pending for the host (architecture.md §7.11).
    pub irq: bool,
    /// The present moment.
    pub now: Ps,
    /// The TSC of this LP.
    pub tsc: u64,
    /// Model-specific registers of this LP that differ from their reset value, by number.
    pub msrs: &'a [(u32, u64)],
    /// CPUID of this LP as far as the module compares it between LPs: one number stands for all fields.
    pub cpuid: u64,
}

/// Something the module does in the world: memory traffic, an instruction with an effect outside, or mere time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Touch {
    /// A cached load of `bytes` bytes within a line: answered by [`Reply::Data`], the bytes moved to the front.
    Load {
        /// Where, and under which KeyID.
        at: Addr,
        /// How many bytes, 1 to 64.
        bytes: u8,
    },
    /// A cached store of 8 or 16 bytes within a line.
    Store {
        /// Where, and under which KeyID.
        at: Addr,
        /// What.
        value: [u64; 2],
        /// 8 or 16.
        bytes: u8,
        /// Whether it is a locked read-modify-write.
        locked: bool,
    },
    /// MOVDIR64B of `lines` lines, every 8 bytes the same, then MFENCE.
    Fill {
        /// The first line.
        at: Addr,
        /// How many lines.
        lines: u32,
        /// Every 8 bytes.
        word: u64,
    },
    /// MOVDIR64B of the 64 lines of a page, then MFENCE: word i of 512 is `first + i * step`. A Secure-EPT page full of
    /// entries over consecutive pages (architecture.md §7.9 "TDH.MEM.PAGE.DEMOTE").
    FillTable {
        /// The page.
        at: Addr,
        /// Word 0.
        first: u64,
        /// From one word to the next.
        step: u64,
    },
    /// MOVDIR64B of `lines` lines, in each of them `word` at the 8 bytes whose bit is set in `mask` and zero at the
    /// others, then MFENCE.
    FillSome {
        /// The first line.
        at: Addr,
        /// How many lines.
        lines: u32,
        /// What the chosen 8 bytes hold.
        word: u64,
        /// Which 8 bytes of a line: bit i is bytes 8i to 8i + 7.
        mask: u8,
    },
    /// MOVDIR64B of 64 lines from one page to another, then MFENCE. The source is read with ordinary loads.
    Copy {
        /// From which page, under which KeyID.
        from: Addr,
        /// To which page, under which KeyID.
        to: Addr,
    },
    /// CLFLUSHOPT of the 64 lines of a page, then MFENCE.
    FlushPage {
        /// The page, and under which KeyID.
        at: Addr,
    },
    /// WRMSR 0x99 (WBNOINVDP) of a cache sub-block of this package.
    WriteBackBlock(u32),
    /// PCONFIG SET_KEY_RANDOM on this package: answered by [`Reply::Pconfig`].
    Pconfig {
        /// Which KeyID.
        keyid: KeyId,
        /// With which algorithm.
        alg: KeyAlg,
    },
    /// RDRAND or RDSEED: answered by [`Reply::Random`].
    Random,
    /// INVEPT on this LP: translations of one TD, or all.
    Invept(Option<Page>),
    /// Work that has no memory traffic of its own.
    Spend(Ps),
}

/// A TD as the processor sees it while a VCPU runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct GuestEntry {
    /// The TD.
    pub tdr: Page,
    /// The VCPU.
    pub tdvpr: Page,
    /// TD-HKID of the VMCS: on every access to private memory and Secure-EPT.
    pub hkid: KeyId,
    /// Root of the Secure-EPT.
    pub root: Page,
    /// Levels of the Secure-EPT.
    pub levels: u8,
    /// Guest-physical address width.
    pub gpaw: u8,
    /// The VMM's EPT for shared addresses, as it wrote it with TDH.VP.WR: EPTP, or 0 where there is none.
    pub shared_eptp: u64,
    /// What the guest finds when it goes on.
    pub inject: Inject,
}

/// What a guest finds when it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub enum Inject {
    /// Nothing: it goes on, or runs the instruction again that had left.
    #[default]
    Nothing,
    /// #VE.
    Ve {
        /// The exit reason that it stands for.
        reason: ExitReason,
        /// The guest-physical address.
        gpa: u64,
    },
    /// The answer to its TDCALL.
    Answer(Answer),
    /// Another exception.
    Exception {
        /// 8 (#DF) or 14 (#PF).
        vector: u8,
        /// Error code; of #PF without bit 2 (user mode), which the processor knows.
        error: u32,
    },
}

/// Why a guest left to the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum VmExit {
    /// TDCALL.
    Tdcall {
        /// RAX\[15:0\].
        leaf: GuestLeaf,
        /// RAX\[23:16\].
        version: u8,
        /// RCX, RDX, R8 to R13.
        regs: [u64; 8],
    },
    /// The Secure-EPT does not allow an access.
    EptViolation {
        /// Guest-physical address.
        gpa: u64,
        /// Bits 2:0 of the exit qualification: 1 a read, 2 a write, 4 a fetch.
        access: u8,
    },
    /// A shared mapping with private KeyID bits (architecture.md §2.5).
    EptMisconfiguration {
        /// Guest-physical address.
        gpa: u64,
    },
    /// An external interrupt.
    Interrupt,
    /// An NMI.
    Nmi,
    /// An SMI; `msmi` when it stands for a machine check (exit qualification bit 0).
    Smi {
        /// Exit qualification bit 0.
        msmi: bool,
    },
    /// #MC.
    MachineCheck,
    /// A machine check during VM entry: exit reason 41.
    EntryMachineCheck,
    /// Triple fault.
    TripleFault,
}

/// What came of an [`Action`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Reply {
    /// It is done; also the first reply of a call.
    #[default]
    Done,
    /// What a load returned.
    Data(LineData),
    /// What PCONFIG returned.
    Pconfig(PconfigStatus),
    /// Whether there was entropy.
    Random(bool),
    /// The guest left.
    Exit(VmExit),
}

/// What the module wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Do this and come back.
    Touch(Touch),
    /// VM entry: come back with [`Reply::Exit`].
    Enter(GuestEntry),
    /// SEAMRET: the call is over.
    Return(Answer),
    /// The module gives itself up (UD2): TDX is disabled on the platform (architecture.md §6.3).
    Fatal,
    /// The real module would act here and the model does not know how: the call must not be taken for a success.
    NotModelled,
}

/// A lock that a flight holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Held {
    Global(Mode),
    Kot(Mode),
    Tdmr(u16),
    WbCache(u8),
    Pamt { size: Size, pa: u64, mode: Mode },
    OpState(Page, Mode),
    Epoch(Page, Mode),
    Tree(Page, Mode),
    Entry { table: Page, index: u16 },
}

/// Where a flight stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Nobody calls.
    #[default]
    Idle,
    /// The leaf is at work.
    Work,
    /// In the guest.
    Guest,
    /// The leaf is over but for its last touches and the release of its locks.
    Over,
}

/// Where the value of a queued store comes from. Between the moment a store is queued and the moment it is done, others
/// run: a store of what several LPs change carries what the structure says when it is done, so that memory never goes
/// back to an older word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Live {
    /// As queued.
    Fixed,
    /// A PAMT entry with its lock.
    Pamt(u64, Size),
    /// A Secure-EPT entry.
    Entry(Page, u16),
    /// A lock in TDCS.
    OpState(Page),
    Epoch(Page),
    Tree(Page),
    /// CHLDCNT, life cycle, fatal.
    Tdr(Page),
    /// Numbers of VCPUs.
    Vcpus(Page),
    /// REFCOUNTs.
    Refcount(Page),
    /// Dynamic PAMT: the bitmap word of a page.
    Bitmap(u64),
}

/// What a leaf remembers between its stages. Each uses what it needs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Scratch {
    pub(crate) td: Page,
    pub(crate) vcpu: Page,
    pub(crate) page: Page,
    pub(crate) gpa: u64,
    pub(crate) level: u8,
    pub(crate) table: Page,
    pub(crate) index: u16,
    pub(crate) entry: Entry,
    pub(crate) hkid: u16,
    pub(crate) count: u64,
    pub(crate) list: Vec<u64>,
}

/// A call into the module under way on one logical processor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Flight {
    pub(crate) phase: Phase,
    pub(crate) leaf: Leaf,
    pub(crate) version: u8,
    /// Reserved bits of RAX were set.
    pub(crate) reserved: bool,
    pub(crate) regs: [u64; 8],
    pub(crate) out: [u64; 6],
    pub(crate) status: Status,
    pub(crate) stage: u8,
    pub(crate) queue: Vec<(Touch, Live)>,
    pub(crate) next: usize,
    pub(crate) data: Vec<LineData>,
    pub(crate) pconfig: Option<PconfigStatus>,
    pub(crate) random: Option<bool>,
    pub(crate) exit: Option<VmExit>,
    pub(crate) locks: Vec<Held>,
    /// Locks held since before the guest was entered: those of TDH.VP.ENTER. A TDCALL releases only what came after.
    pub(crate) kept: usize,
    /// What the guest finds at the next VM entry.
    pub(crate) inject: Inject,
    pub(crate) scratch: Scratch,
}

impl Flight {
    /// Which leaf was called.
    pub const fn leaf(&self) -> Leaf {
        self.leaf
    }
    /// Whether a call is under way.
    pub fn is_under_way(&self) -> bool {
        self.phase != Phase::Idle
    }
    /// Whether a guest runs.
    pub fn is_in_guest(&self) -> bool {
        self.phase == Phase::Guest
    }
    /// The VCPU that was entered, while a guest runs.
    pub fn vcpu(&self) -> Option<Page> {
        self.is_in_guest().then_some(self.scratch.vcpu)
    }
    /// RCX, RDX, R8 to R13: of the caller, as it made the call; after TDG.VP.VMCALL those that the guest passes to the
    /// VMM (RCX is its mask; what the mask does not name is 0), of which [`Answer::out`] has the first six.
    pub const fn regs(&self) -> &[u64; 8] {
        &self.regs
    }

    /// The touch that [`crate::Module::next_touch`] gave is done; with what a load returned.
    #[inline]
    pub fn touched(&mut self, data: Option<LineData>) {
        self.next += 1;
        if let Some(data) = data {
            self.data.push(data);
        }
    }

    pub(crate) fn start(&mut self, call: &Call) {
        // The buffers are kept: a call allocates nothing once they have grown.
        self.queue.clear();
        self.data.clear();
        self.locks.clear();
        self.scratch.list.clear();
        let list = std::mem::take(&mut self.scratch.list);
        self.scratch = Scratch { list, ..Scratch::default() };
        self.phase = Phase::Work;
        self.leaf = Leaf(call.rax as u16);
        self.version = (call.rax >> 16) as u8;
        self.reserved = call.rax >> 24 != 0;
        self.regs = call.regs;
        // What a leaf does not write keeps what its caller put there.
        let [rcx, rdx, r8, r9, r10, r11, ..] = call.regs;
        self.out = [rcx, rdx, r8, r9, r10, r11];
        self.status = Status::SUCCESS;
        (self.stage, self.next, self.kept) = (0, 0, 0);
        (self.pconfig, self.random, self.exit) = (None, None, None);
        self.inject = Inject::Nothing;
    }
    pub(crate) fn touch(&mut self, touch: Touch) {
        self.queue.push((touch, Live::Fixed));
    }
    /// A store of 8 bytes that several LPs write.
    pub(crate) fn live(&mut self, at: Hpa, keyid: KeyId, locked: bool, from: Live) {
        let at = Addr::new(at, keyid);
        self.queue.push((Touch::Store { at, value: [0; 2], bytes: 8, locked }, from));
    }
    pub(crate) fn load(&mut self, at: Hpa, keyid: KeyId, bytes: u8) {
        self.touch(Touch::Load { at: Addr::new(at, keyid), bytes });
    }
    pub(crate) fn store(&mut self, at: Hpa, keyid: KeyId, value: u64) {
        let at = Addr::new(at, keyid);
        self.touch(Touch::Store { at, value: [value, 0], bytes: 8, locked: false });
    }
}
