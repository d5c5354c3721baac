//! The reference model: memory controller, caches and store paths without time (verification.md §5.1).
//!
//! Written from the tables and rules of architecture.md §2 to §5 and §13. What real hardware decides by capacity, age or
//! luck is a [`Choice`] and comes from outside. Whatever hardware *must* do is done by the operation that demands it;
//! whatever it *may* do besides is a choice, made before the operation.
//!
//! Stores become visible at once where [`Spec::store_buffer`] is 0, as the timed machine has them. Otherwise ordinary
//! write-back stores ([`Op::Store`]) wait in their core, first in, first out, as in x86-TSO (verification.md §3, herdtools7),
//! and when the oldest becomes visible is a choice, [`Choice::StoreLeave`]:
//!
//! - An own load gets every byte from the youngest waiting store to it under the same KeyID. Where stores have some of its
//!   bytes only, it waits for them. A store to the line under another KeyID is a store to another line (architecture.md §4.1
//!   4.1.1).
//! - All leave, in order, before a locked operation, MFENCE, WBINVD and its kin, CLFLUSH, REP STOSB, an uncached access, an
//!   interrupt and whatever faults. LFENCE does not wait for them. Nor does SFENCE: it keeps what comes behind it from being
//!   visible before them.
//! - An operation of the core on the line that bypasses the buffer (fetch, MOVDIR64B, non-temporal store, CLFLUSHOPT, CLWB) waits
//!   for what is there for the line, and thus for all older. With other lines these are weakly ordered, as the sheet says.
//! - Whether the agent can form the KeyID is decided at once; the line is owned, and read for it, when the store leaves. With
//!   [`Spec::rfo_poison_mc`] that could raise a machine check, so there no store waits.
//! - What the TDX module does ([`Act::Store`]) never waits, and devices see memory only.

mod line;
mod run;
pub mod sorted;
mod symmetry;
pub mod tables;
#[cfg(test)]
pub(crate) mod tests;

pub use line::{Bytes, Cipher, DramLine, Flips, Key};
pub use sorted::Sorted;

use run::{Chooser, Run};
use serde::{Deserialize, Serialize};
use sim_core::event::{BirthCause, LineState, Rule, WeakKind};
use sim_core::mca::McAccess;
use sim_core::outcome::{DataClass, GpReason, PconfigStatus};
use sim_core::platform::{IntegrityMode, MemorySpec};
use sim_core::{
    BirthId, ByteMask, KeyId, KeyIdLayout, Line, LineData, Op, Outcome, PlatformSpec, Tagged,
};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use tables::Class;
use thiserror::Error;

/// The parts of a platform that decide what happens, not when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// KeyID layout.
    pub keyid: KeyIdLayout,
    /// Mode, erratum, key width, bypass.
    pub memory: MemorySpec,
    /// Packages.
    pub packages: u8,
    /// Cores in all packages.
    pub cores: u16,
    /// Write-combining buffers of a core (architecture.md §13 MC-28).
    pub wc_buffers: u8,
    /// Sub-blocks of WBINVDP and WBNOINVDP (MC-14).
    pub flush_sub_blocks: u32,
    /// REP STOSB owns whole lines without reading them (MC-29).
    pub fast_string_no_rfo: bool,
    /// A store whose RFO brings poison raises #MC (MC-30).
    pub rfo_poison_mc: bool,
    /// Ordinary stores that a core may hold back before others see them (x86-TSO); 0: every store is visible at once.
    #[serde(default)]
    pub store_buffer: u8,
    /// Which planted defect is active (verification.md §5.4): `n` is MU-n.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) mutant: u8,
}

impl Spec {
    /// From a platform that has been validated. Stores are visible at once, as in the timed machine.
    pub const fn new(platform: &PlatformSpec) -> Spec {
        Spec {
            keyid: platform.keyid,
            memory: platform.memory,
            packages: platform.cpu.packages,
            cores: platform.cpu.cores,
            wc_buffers: platform.cpu.wc_buffers,
            flush_sub_blocks: platform.cpu.flush_sub_blocks,
            fast_string_no_rfo: platform.cpu.fast_string_no_rfo,
            rfo_poison_mc: platform.cpu.rfo_poison_mc,
            store_buffer: 0,
            #[cfg(test)]
            mutant: 0,
        }
    }
    /// The package of a core: cores are numbered package by package.
    pub fn package_of(&self, core: u16) -> u8 {
        let per = (self.cores / u16::from(self.packages.max(1))).max(1);
        (core / per) as u8
    }
    /// The package whose controllers serve a line: 1 GiB in turn, as `PlatformSpec::home_of` has it.
    pub fn home_of(&self, line: Line) -> u8 {
        ((line.0 >> 24) % u64::from(self.packages.max(1))) as u8
    }
    #[cfg(test)]
    const fn mutant(&self, n: u8) -> bool {
        self.mutant == n
    }
    #[cfg(not(test))]
    const fn mutant(&self, _: u8) -> bool {
        false
    }
}

/// Who acts (architecture.md §2.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Agent {
    /// The host kernel.
    Kernel,
    /// A host process.
    User,
    /// A guest that is not a TD.
    Guest,
    /// The TDX module.
    SeamRoot,
    /// A TD with its HKID.
    Td(KeyId),
    /// A device.
    Device,
}

/// Where a cached copy is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Place {
    /// The private caches of a core.
    Core(u16),
    /// The last-level cache of a package.
    Llc(u8),
}

/// Coherence state of a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Coherence {
    /// Clean; others may have copies.
    Shared,
    /// Clean, the only copy.
    Exclusive,
    /// Dirty; others may have `Shared` copies of the same bytes. How hardware avoids this state (by writing back when
    /// another core reads) is the choice [`Choice::WriteBack`].
    Owned,
    /// Dirty, the only copy.
    Modified,
}

impl Coherence {
    /// Whether memory does not have these bytes.
    pub const fn is_dirty(self) -> bool {
        matches!(self, Coherence::Owned | Coherence::Modified)
    }
    const fn of(dirty: bool, alone: bool) -> Coherence {
        match (dirty, alone) {
            (true, true) => Coherence::Modified,
            (true, false) => Coherence::Owned,
            (false, true) => Coherence::Exclusive,
            (false, false) => Coherence::Shared,
        }
    }
}

/// A cached copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Copy {
    /// Coherence state.
    pub state: Coherence,
    /// Plaintext.
    pub data: Bytes,
    /// What the bytes were when they were filled, until all are overwritten.
    pub class: DataClass,
    /// Poison of the copy (architecture.md §13 MC-05).
    pub poison: Option<BirthId>,
}

impl Copy {
    /// Whether there is no other.
    const fn is_only(&self) -> bool {
        matches!(self.state, Coherence::Exclusive | Coherence::Modified)
    }
}

/// A write-combining buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WcBuffer {
    /// Its line.
    pub at: Tagged,
    /// Collected bytes: bit i is byte i.
    pub mask: u64,
    /// Their values.
    pub data: Bytes,
}

/// A weakly ordered operation that is not visible yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Weak {
    /// Which operation.
    pub kind: WeakKind,
    /// Its line.
    pub at: Tagged,
    /// Bytes it writes; none for flushes.
    pub mask: u64,
    /// Their values.
    pub data: Bytes,
}

/// An ordinary store that others do not see yet: its part in one line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Buffered {
    /// Its line.
    pub at: Tagged,
    /// Bytes it writes: bit i is byte i.
    pub mask: u64,
    /// Their values.
    pub data: Bytes,
}

/// Buffers and pending operations of a core, oldest first.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Pending {
    /// Write-combining buffers.
    pub wc: Vec<WcBuffer>,
    /// Weakly ordered operations; at most one for a (line, KeyID), as a second completes the first.
    pub weak: Vec<Weak>,
    /// The store buffer; empty where [`Spec::store_buffer`] is 0.
    #[serde(default)]
    pub stores: Vec<Buffered>,
    /// How many of these, the oldest, came before an SFENCE: what bypasses the buffer behind it waits for them.
    #[serde(default)]
    pub fenced: u8,
}

impl Pending {
    const fn is_empty(&self) -> bool {
        self.wc.is_empty() && self.weak.is_empty() && self.stores.is_empty()
    }
}

/// A birth of poison that is alive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Birth {
    /// Where, and under which KeyID the access was.
    pub at: Tagged,
    /// Why.
    pub cause: BirthCause,
    /// DRAM lines and cached copies that hold it.
    pub locations: u32,
}

/// A key slot of a package.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct KeySlot {
    /// The key.
    pub key: Key,
    /// Whether it has integrity; without effect in Li, forced on for private KeyIDs in Ci (architecture.md §1.3 1.3.1).
    pub integrity: bool,
}

/// The whole state, ordered and hashable for exploration.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// DRAM; absent lines are as at power-on.
    pub dram: Sorted<Line, DramLine>,
    /// Cached copies.
    pub caches: Sorted<(Tagged, Place), Copy>,
    /// Per core; absent is empty.
    pub pending: Sorted<u16, Pending>,
    /// Programmed keys, by package.
    pub keys: Sorted<(u8, KeyId), KeySlot>,
    /// Keys drawn so far.
    pub drawn: u32,
    /// Lines remembered by a physical attacker: ciphertext with TD bit and MAC.
    pub saved: Sorted<u32, DramLine>,
    /// Living births.
    pub births: Sorted<BirthId, Birth>,
    /// Births so far.
    pub born: u32,
    /// Deaths so far.
    pub died: u32,
}

// By hand, so that a clone into a state that is there takes over its memory: a search makes one for every transition.
impl Clone for Pending {
    fn clone(&self) -> Pending {
        let Pending { wc, weak, stores, fenced } = self;
        Pending { wc: wc.clone(), weak: weak.clone(), stores: stores.clone(), fenced: *fenced }
    }
    fn clone_from(&mut self, source: &Pending) {
        let Pending { wc, weak, stores, fenced } = self;
        wc.clone_from(&source.wc);
        weak.clone_from(&source.weak);
        stores.clone_from(&source.stores);
        *fenced = source.fenced;
    }
}
impl Clone for State {
    fn clone(&self) -> State {
        State {
            dram: self.dram.clone(),
            caches: self.caches.clone(),
            pending: self.pending.clone(),
            keys: self.keys.clone(),
            drawn: self.drawn,
            saved: self.saved.clone(),
            births: self.births.clone(),
            born: self.born,
            died: self.died,
        }
    }
    fn clone_from(&mut self, source: &State) {
        let State { dram, caches, pending, keys, drawn, saved, births, born, died } = self;
        dram.clone_from(&source.dram);
        caches.clone_from(&source.caches);
        pending.clone_from(&source.pending);
        keys.clone_from(&source.keys);
        saved.clone_from(&source.saved);
        births.clone_from(&source.births);
        (*drawn, *born, *died) = (source.drawn, source.born, source.died);
    }
}

/// What hardware decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Choice {
    /// A copy leaves its place for memory: written if dirty, else dropped.
    Evict(Place, Tagged),
    /// A dirty copy is written to memory and stays clean.
    WriteBack(Place, Tagged),
    /// A core's copy moves to the last-level cache of its package.
    ToLlc(u16, Tagged),
    /// A write-combining buffer leaves (architecture.md §13 MC-28).
    WcLeave(u16, Tagged),
    /// The i-th pending weakly ordered operation of a core becomes visible.
    WeakComplete(u16, usize),
    /// A core fills a line that nobody asked for, while this agent runs on it (MC-06).
    Prefetch(Agent, u16, Tagged),
    /// The oldest store that a core holds back becomes visible (x86-TSO).
    StoreLeave(u16),
}

/// One step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Step {
    /// An agent does an operation on a core (a device's core is not looked at).
    Op(Agent, u16, Op),
    /// Hardware makes a choice.
    Choice(Choice),
}

/// What an agent does, as a replay has it: an operation, or what the TDX module does and no operation spells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// An operation.
    Op(Op),
    /// A write-back store of any bytes of a line.
    Store {
        /// Which line.
        at: Tagged,
        /// Which bytes.
        mask: ByteMask,
        /// Their values, each at its place.
        data: LineData,
        /// A locked read-modify-write: it reads the line first, and writes nothing if that retires on poison.
        locked: bool,
    },
    /// MOVDIR64B of lines alike.
    Direct {
        /// The first line.
        at: Tagged,
        /// How many.
        lines: u32,
        /// What each holds afterwards.
        data: LineData,
    },
}

/// How far an operation has come when hardware may choose within it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Requests at the controller so far, those of choices within the operation included.
    pub requests: usize,
    /// Stores into cached lines so far.
    pub stores: usize,
    /// How often hardware was asked for a choice before: of an operation on several lines, at least the lines it is done with.
    pub asked: usize,
    /// Whether the operation has done all it does; what it sees is decided.
    pub over: bool,
}

/// Why a step cannot be made in this state. The state has not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NotAllowed {
    /// The platform has fewer cores.
    #[error("there is no core {0}")]
    NoSuchCore(u16),
    /// Nothing to evict, move or write back.
    #[error("{1} is not cached in {0:?}")]
    NoSuchCopy(Place, Tagged),
    /// Nothing to write back.
    #[error("{1} is not dirty in {0:?}")]
    NotDirty(Place, Tagged),
    /// No such write-combining buffer.
    #[error("core {0} has no write-combining buffer for {1}")]
    NoSuchBuffer(u16, Tagged),
    /// No such pending operation.
    #[error("core {0} has no pending operation {1}")]
    NoSuchWeakOp(u16, usize),
    /// The core holds no store back.
    #[error("core {0} has no store in its buffer")]
    NoSuchStore(u16),
    /// A prefetch of what is there.
    #[error("{1} is already cached in core {0}")]
    AlreadyCached(u16, Tagged),
    /// Nothing that runs on the core can form the KeyID.
    #[error("{0:?} cannot form KeyID {1}")]
    CannotForm(Agent, KeyId),
    /// A device cannot run instructions, a core does no DMA; what a guest's privileged instructions do is its VMM's
    /// business.
    #[error("{0:?} cannot do this operation")]
    WrongAgent(Agent),
    /// A size, an address or a slot that does not exist.
    #[error("an operand is out of range")]
    Operand,
    /// TDX calls, interrupts and guests need a TDX module, which the reference has not.
    #[error("the reference model has no TDX module for this operation")]
    NotModelled,
}

/// What an agent sees of its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seen {
    /// It completed.
    Done,
    /// It returned bytes: the first 64 of them, moved to the front.
    Data {
        /// The bytes.
        data: Bytes,
        /// How many were asked for.
        bytes: u32,
        /// The least trustworthy class among the lines touched.
        class: DataClass,
    },
    /// #MC: poison was consumed.
    MachineCheck {
        /// How.
        access: McAccess,
        /// Where.
        at: Tagged,
        /// Which poison.
        birth: BirthId,
    },
    /// #PF with RSVD=1.
    PageFaultRsvd,
    /// #GP.
    GeneralProtection(GpReason),
    /// EPT misconfiguration.
    EptMisconfiguration,
    /// #VE.
    VirtualizationException,
    /// The device's access was aborted.
    DmaAbort,
    /// The device got an error response.
    DmaPoison(BirthId),
    /// PCONFIG returned.
    Pconfig(PconfigStatus),
}

impl Seen {
    /// Whether a machine's outcome is what the reference saw. Births are numbered by each side in its own way and are
    /// not compared; unknown bytes may have any value.
    pub fn admits(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Seen::Done, Outcome::Done)
            | (Seen::PageFaultRsvd, Outcome::PageFaultRsvd)
            | (Seen::EptMisconfiguration, Outcome::EptMisconfiguration)
            | (Seen::VirtualizationException, Outcome::VirtualizationException)
            | (Seen::DmaAbort, Outcome::DmaAbort)
            | (Seen::DmaPoison(_), Outcome::DmaPoison(_)) => true,
            (Seen::Data { data, bytes, class }, Outcome::Data(l)) => {
                *bytes == l.bytes && *class == l.class && data.admits(&l.data)
            }
            (Seen::MachineCheck { access, at, .. }, Outcome::MachineCheck { record, .. }) => {
                *access == record.access && *at == record.at.tagged()
            }
            (Seen::GeneralProtection(a), Outcome::GeneralProtection(b)) => a == b,
            (Seen::Pconfig(a), Outcome::Pconfig(b)) => a == b,
            _ => false,
        }
    }
}

/// What a request at the controller was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A read, and what it returned.
    Read {
        /// Data.
        data: Bytes,
        /// What they are.
        class: DataClass,
    },
    /// A write.
    Write {
        /// Which bytes.
        mask: ByteMask,
        /// Their values.
        data: Bytes,
        /// Poison of the cached copy it comes from.
        source: Option<BirthId>,
    },
}

/// A request that reached the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Which line, under which KeyID.
    pub at: Tagged,
    /// What.
    pub request: Request,
    /// By which row.
    pub rule: Rule,
    /// The line before.
    pub before: DramLine,
    /// The line after.
    pub after: DramLine,
}

/// What a step did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepOutcome {
    /// What its agent saw; [`Seen::Done`] for choices.
    pub seen: Seen,
    /// Requests at the controller, in the order in which they took effect (architecture.md §13 MC-31).
    pub traffic: Vec<Transaction>,
    /// Births.
    pub births: Vec<BirthId>,
    /// Births that the controller logged as UCNA (architecture.md §2.4 2.4.6).
    pub ucna: Vec<BirthId>,
}

impl Default for StepOutcome {
    /// Of a step that did nothing.
    fn default() -> StepOutcome {
        StepOutcome { seen: Seen::Done, traffic: vec![], births: vec![], ucna: vec![] }
    }
}

impl StepOutcome {
    fn clear(&mut self) {
        self.seen = Seen::Done;
        self.traffic.clear();
        self.births.clear();
        self.ucna.clear();
    }
}

/// The reference model.
#[derive(PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// The platform.
    pub spec: Spec,
    state: State,
}

impl Clone for Reference {
    fn clone(&self) -> Reference {
        Reference { spec: self.spec, state: self.state.clone() }
    }
    fn clone_from(&mut self, source: &Reference) {
        self.spec = source.spec;
        self.state.clone_from(&source.state);
    }
}
impl Hash for Reference {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // All models of a search have one platform.
        self.state.hash(hasher);
    }
}

impl Reference {
    /// A machine at power-on.
    pub fn new(spec: Spec) -> Reference {
        Reference { spec, state: State::default() }
    }
    /// A machine in this state: what somebody else shows, to be judged.
    pub const fn of(spec: Spec, state: State) -> Reference {
        Reference { spec, state }
    }
    /// The state.
    pub const fn state(&self) -> &State {
        &self.state
    }
    /// A line of DRAM.
    pub fn line(&self, line: Line) -> LineState {
        self.dram(line).state()
    }
    /// A line of DRAM by provenance.
    pub fn dram(&self, line: Line) -> DramLine {
        self.state.dram.get(&line).copied().unwrap_or_default()
    }
    /// Whether a read with this KeyID would find a matching MAC now.
    pub fn mac_valid(&self, at: Tagged) -> bool {
        self.dram(at.line()).mac_matches(at.line(), self.key(at).key)
    }
    /// Births and deaths of poison so far.
    pub const fn births_and_deaths(&self) -> (u32, u32) {
        (self.state.born, self.state.died)
    }
    /// The stores that a core holds back, oldest first.
    pub fn buffered(&self, core: u16) -> &[Buffered] {
        self.state.pending.get(&core).map_or(&[], |p| p.stores.as_slice())
    }
    /// All copies of a (line, KeyID).
    pub fn copies(&self, at: Tagged) -> impl Iterator<Item = (Place, &Copy)> {
        self.state.caches.alike(at.word()).map(|((_, place), copy)| (*place, copy))
    }
    /// The same state without its history: births renumbered by their first location, dead ones forgotten. Two states
    /// that differ only in history become equal, which is what makes a search end.
    #[must_use]
    pub fn without_history(mut self) -> Reference {
        self.forget_history();
        self
    }
    /// Makes of the state what [`Reference::without_history`] returns.
    pub fn forget_history(&mut self) {
        let s = &mut self.state;
        (s.born, s.died) = (s.births.len() as u32, 0);
        if s.births.is_empty() {
            return;
        }
        let places = s.dram.values().map(|l| l.poison).chain(s.caches.values().map(|c| c.poison));
        // Old names, each in the place of its new one.
        let mut names: Vec<BirthId> = vec![];
        let mut known = 0;
        for id in places.flatten() {
            let named = if names.is_empty() { id.0.get() <= known } else { names.contains(&id) };
            if named {
                continue;
            }
            if names.is_empty() && id.0.get() == known + 1 {
                known += 1; // its name is right, as those of all before it
                continue;
            }
            names.extend((1..=known).filter_map(NonZeroU32::new).map(BirthId));
            known = 0;
            names.push(id);
        }
        if names.is_empty() {
            return;
        }
        let renamed = |id: BirthId| {
            let place = names.iter().position(|name| *name == id).unwrap_or(names.len());
            BirthId(NonZeroU32::MIN.saturating_add(place as u32))
        };
        let dram = s.dram.values_mut().map(|l| &mut l.poison);
        for slot in dram.chain(s.caches.values_mut().map(|c| &mut c.poison)) {
            *slot = slot.map(renamed);
        }
        s.births.rename(renamed);
    }

    /// Makes one step. Sub-blocks of WBINVDP and WBNOINVDP are taken to be line number modulo their number; see
    /// [`Reference::step_with`].
    ///
    /// # Errors
    /// The step cannot be made in this state, which has not changed.
    pub fn step(&mut self, step: &Step) -> Result<StepOutcome, NotAllowed> {
        let blocks = u64::from(self.spec.flush_sub_blocks.max(1));
        self.step_with(step, |at| (at.line().0 % blocks) as u32)
    }

    /// Makes one step, where `sub_block` says which sub-block of the caches a line belongs to (architecture.md §4.1
    /// 4.1.10; the partition is not documented, §13 MC-14).
    ///
    /// # Errors
    /// The step cannot be made in this state, which has not changed.
    pub fn step_with(
        &mut self,
        step: &Step,
        sub_block: impl Fn(Tagged) -> u32,
    ) -> Result<StepOutcome, NotAllowed> {
        self.step_among(step, sub_block, |_, _| None)
    }

    /// Makes one step with choices within it. An operation on several lines is not one moment: before its first line,
    /// between two of them and after its last, `choose` is asked, with the state and the progress of that moment, until it
    /// has no more to choose. An operation on one line is asked about before and after it; a choice is not asked.
    ///
    /// # Errors
    /// The step cannot be made in this state, which has not changed; or a choice within it could not be made, and then the
    /// state is that of an operation broken off in the middle.
    pub fn step_among(
        &mut self,
        step: &Step,
        sub_block: impl Fn(Tagged) -> u32,
        mut choose: impl FnMut(&Reference, Progress) -> Option<Choice>,
    ) -> Result<StepOutcome, NotAllowed> {
        let mut out = StepOutcome::default();
        self.step_into(step, &sub_block, &mut choose, &mut out)?;
        Ok(out)
    }

    /// As [`Reference::step_among`], into an outcome whose memory is used again: makes steps without allocating.
    ///
    /// # Errors
    /// As [`Reference::step_among`]; what the outcome says then is nothing.
    pub fn step_into(
        &mut self,
        step: &Step,
        sub_block: &dyn Fn(Tagged) -> u32,
        choose: &mut dyn FnMut(&Reference, Progress) -> Option<Choice>,
        out: &mut StepOutcome,
    ) -> Result<(), NotAllowed> {
        self.make(step, sub_block, Some(choose), out)
    }
    /// A step, with choices within it if somebody makes them.
    fn make<'a>(
        &'a mut self,
        step: &Step,
        sub_block: &dyn Fn(Tagged) -> u32,
        choose: Option<&'a mut Chooser<'a>>,
        out: &'a mut StepOutcome,
    ) -> Result<(), NotAllowed> {
        out.clear();
        let mut run = Run::new(self, choose, out);
        match step {
            Step::Choice(choice) => run.choose(*choice)?,
            Step::Op(who, core, op) => {
                run.issue(*who, *core, op, sub_block)?;
                if matches!(run.out.seen, Seen::MachineCheck { .. }) {
                    run.drain_at_event(*core);
                }
            }
        }
        run.end()
    }

    /// As [`Reference::step_into`], but where the agent meets poison its machine check is still to come: what that drains
    /// (architecture.md §13 MC-28) is another step, [`Op::Interrupt`] on the cores that take it.
    ///
    /// # Errors
    /// As those of [`Reference::step_among`].
    pub fn issue_into(
        &mut self,
        who: Agent,
        core: u16,
        act: &Act,
        sub_block: &dyn Fn(Tagged) -> u32,
        choose: &mut dyn FnMut(&Reference, Progress) -> Option<Choice>,
        out: &mut StepOutcome,
    ) -> Result<(), NotAllowed> {
        out.clear();
        let mut run = Run::new(self, Some(choose), out);
        match act {
            Act::Op(op) => run.issue(who, core, op, sub_block)?,
            Act::Store { at, mask, data, locked } => {
                run.act(core, |run| run.store_bytes(who, core, *at, *mask, data, *locked))?;
            }
            Act::Direct { at, lines, data } => {
                run.act(core, |run| run.direct(who, core, *at, *lines, data))?;
            }
        }
        run.end()
    }

    /// As [`Reference::step`], into an outcome whose memory is used again: makes steps without allocating.
    ///
    /// # Errors
    /// As [`Reference::step`].
    pub fn replay(&mut self, step: &Step, out: &mut StepOutcome) -> Result<(), NotAllowed> {
        let blocks = u64::from(self.spec.flush_sub_blocks.max(1));
        self.make(step, &|at| (at.line().0 % blocks) as u32, None, out)
    }

    /// The key slot behind a tagged line: that of the package whose controllers serve the line.
    pub fn key(&self, at: Tagged) -> KeySlot {
        let bypass = at.keyid() == KeyId::TME && self.spec.memory.tme_bypass; // MC-09
        let key = if bypass { Key::None } else { Key::Tme }; // MC-27
        let home = self.spec.home_of(at.line());
        let slot = self.state.keys.get(&(home, at.keyid())).copied();
        slot.unwrap_or(KeySlot { key, integrity: false })
    }
    /// The class of a request (architecture.md §2.1 2.1.2, §1.3 1.3.1, 1.3.5).
    pub fn class(&self, at: Tagged) -> Class {
        self.class_with(at, self.key(at))
    }
    fn class_with(&self, at: Tagged, slot: KeySlot) -> Class {
        if self.spec.keyid.is_private(at.keyid()) {
            Class::Private
        } else if self.spec.memory.integrity == IntegrityMode::Ci && slot.integrity {
            Class::SharedIntegrity
        } else {
            Class::Shared
        }
    }
}
