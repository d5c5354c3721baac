//! The reference model: memory controller, caches and store paths without time (verification.md §5.1).
//!
//! Written from the tables and rules of architecture.md §2 to §5 and §13. What real hardware decides by capacity, age or
//! luck is a [`Choice`] and comes from outside. Whatever hardware *must* do is done by the operation that demands it;
//! whatever it *may* do besides is a choice, made before the operation.
//!
//! Stores become visible at once: the store buffer of x86-TSO is not modelled here.

mod line;
pub mod tables;
#[cfg(test)]
mod tests;

pub use line::{Bytes, Cipher, DramLine, Key};

use serde::{Deserialize, Serialize};
use sim_core::event::{BirthCause, LineState, Rule, WeakKind};
use sim_core::mca::McAccess;
use sim_core::op::{KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::outcome::{DataClass, GpReason, PconfigStatus};
use sim_core::platform::{IntegrityMode, MemorySpec, XtsWidth};
use sim_core::{
    Addr, BirthId, ByteMask, Hpa, KeyId, KeyIdLayout, Line, LineData, Op, Outcome, PlatformSpec,
    Tagged,
};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use tables::{Class, WriteCase, WriteEffect};
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
    /// Which planted defect is active (verification.md §5.4): `n` is MU-n.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) mutant: u8,
}

impl Spec {
    /// From a platform that has been validated.
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

/// A write-combining buffer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WcBuffer {
    /// Its line.
    pub at: Tagged,
    /// Collected bytes: bit i is byte i.
    pub mask: u64,
    /// Their values.
    pub data: Bytes,
}

/// A weakly ordered operation that is not visible yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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

/// Buffers and pending operations of a core, oldest first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Pending {
    /// Write-combining buffers.
    pub wc: Vec<WcBuffer>,
    /// Weakly ordered operations; at most one for a (line, KeyID), as a second completes the first.
    pub weak: Vec<Weak>,
}

/// A birth of poison that is alive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// DRAM; absent lines are as at power-on.
    pub dram: BTreeMap<Line, DramLine>,
    /// Cached copies.
    pub caches: BTreeMap<(Tagged, Place), Copy>,
    /// Per core; absent is empty.
    pub pending: BTreeMap<u16, Pending>,
    /// Programmed keys, by package.
    pub keys: BTreeMap<(u8, KeyId), KeySlot>,
    /// Keys drawn so far.
    pub drawn: u32,
    /// Lines remembered by a physical attacker: ciphertext with TD bit and MAC.
    pub saved: BTreeMap<u32, DramLine>,
    /// Living births.
    pub births: BTreeMap<BirthId, Birth>,
    /// Births so far.
    pub born: u32,
    /// Deaths so far.
    pub died: u32,
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
}

/// One step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Step {
    /// An agent does an operation on a core (a device's core is not looked at).
    Op(Agent, u16, Op),
    /// Hardware makes a choice.
    Choice(Choice),
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
    /// A prefetch of what is there.
    #[error("{1} is already cached in core {0}")]
    AlreadyCached(u16, Tagged),
    /// Nothing that runs on the core can form the KeyID.
    #[error("{0:?} cannot form KeyID {1}")]
    CannotForm(Agent, KeyId),
    /// A device cannot run instructions, a core does no DMA; TDs, guests and processes do not run privileged ones.
    #[error("{0:?} cannot do this operation")]
    WrongAgent(Agent),
    /// A size, an address or a slot that does not exist.
    #[error("an operand is out of range")]
    Operand,
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
#[derive(Clone, PartialEq, Eq, Debug)]
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

/// The reference model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// The platform.
    pub spec: Spec,
    state: State,
}

/// A part of an access that lies in one line: the line, the first byte in it, how many, and how many came before.
type Span = (Tagged, usize, usize, usize);

fn spans(at: Addr, bytes: u32) -> impl Iterator<Item = Span> {
    let (start, end) = (at.hpa.0, at.hpa.0 + u64::from(bytes));
    (start >> 6..end.div_ceil(64)).map(move |line| {
        let (from, to) = (start.max(line << 6), end.min((line + 1) << 6));
        let tag = Tagged::new(Line(line), at.keyid);
        (tag, (from & 63) as usize, (to - from) as usize, (from - start) as usize)
    })
}

/// Ends an operation early with what its agent sees.
type Flow<T> = Result<T, Seen>;

impl Reference {
    /// A machine at power-on.
    pub fn new(spec: Spec) -> Reference {
        Reference { spec, state: State::default() }
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
        self.state.dram.get(&line).cloned().unwrap_or_default()
    }
    /// Whether a read with this KeyID would find a matching MAC now.
    pub fn mac_valid(&self, at: Tagged) -> bool {
        self.dram(at.line()).mac_matches(at.line(), self.key(at).key)
    }
    /// Births and deaths of poison so far.
    pub const fn births_and_deaths(&self) -> (u32, u32) {
        (self.state.born, self.state.died)
    }
    /// All copies of a (line, KeyID).
    pub fn copies(&self, at: Tagged) -> impl Iterator<Item = (Place, &Copy)> {
        let all = (at, Place::Core(0))..=(at, Place::Llc(u8::MAX));
        self.state.caches.range(all).map(|((_, place), copy)| (*place, copy))
    }
    /// The same state without its history: births renumbered by their first location, dead ones forgotten. Two states
    /// that differ only in history become equal, which is what makes a search end.
    #[must_use]
    pub fn without_history(&self) -> Reference {
        let mut new = self.clone();
        let mut names: BTreeMap<BirthId, BirthId> = BTreeMap::new();
        let s = &mut new.state;
        let dram = s.dram.values_mut().map(|l| &mut l.poison);
        for slot in dram.chain(s.caches.values_mut().map(|c| &mut c.poison)) {
            if let Some(id) = *slot {
                let next = BirthId(NonZeroU32::MIN.saturating_add(names.len() as u32));
                *slot = Some(*names.entry(id).or_insert(next));
            }
        }
        let old = std::mem::take(&mut s.births);
        s.births = old.into_iter().filter_map(|(id, b)| Some((*names.get(&id)?, b))).collect();
        (s.born, s.died) = (names.len() as u32, 0);
        new
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
        let mut run = Run { m: self, traffic: vec![], births: vec![], ucna: vec![] };
        let seen = match step {
            Step::Choice(choice) => {
                run.choose(*choice)?;
                Seen::Done
            }
            Step::Op(who, core, op) => {
                run.check(*who, *core, op)?;
                run.op(*who, *core, op, &sub_block).unwrap_or_else(|early| early)
            }
        };
        if matches!(seen, Seen::MachineCheck { .. })
            && let Step::Op(_, core, _) = step
        {
            run.drain_wc(*core); // MC-28
        }
        let Run { traffic, births, ucna, .. } = run;
        Ok(StepOutcome { seen, traffic, births, ucna })
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
        if self.spec.keyid.is_private(at.keyid()) {
            Class::Private
        } else if self.spec.memory.integrity == IntegrityMode::Ci && self.key(at).integrity {
            Class::SharedIntegrity
        } else {
            Class::Shared
        }
    }
}

/// A step being made.
struct Run<'a> {
    m: &'a mut Reference,
    traffic: Vec<Transaction>,
    births: Vec<BirthId>,
    ucna: Vec<BirthId>,
}

/// The memory controller.
impl Run<'_> {
    fn born(&mut self, at: Tagged, cause: BirthCause) -> BirthId {
        let s = &mut self.m.state;
        let id = BirthId(NonZeroU32::MIN.saturating_add(s.born));
        s.born = s.born.saturating_add(1);
        s.births.insert(id, Birth { at, cause, locations: 0 });
        self.births.push(id);
        id
    }
    fn gained(&mut self, poison: Option<BirthId>) {
        if let Some(birth) = poison.and_then(|id| self.m.state.births.get_mut(&id)) {
            birth.locations += 1;
        }
    }
    fn lost(&mut self, poison: Option<BirthId>) {
        let Some(id) = poison else { return };
        if let Some(birth) = self.m.state.births.get_mut(&id) {
            birth.locations = birth.locations.saturating_sub(1);
            if birth.locations == 0 {
                self.m.state.births.remove(&id);
                self.m.state.died += 1;
            }
        }
    }
    fn set_dram(&mut self, line: Line, new: DramLine) {
        self.gained(new.poison);
        let dram = &mut self.m.state.dram;
        // Absent is power-on: one state, one value.
        let old =
            if new == DramLine::default() { dram.remove(&line) } else { dram.insert(line, new) };
        self.lost(old.and_then(|l| l.poison));
    }

    /// A read by the tables, without its effect on DRAM: data, class, poison, row.
    fn consult(&mut self, at: Tagged) -> (Bytes, DataClass, Option<BirthId>, Rule) {
        let spec = self.m.spec;
        let line = self.m.dram(at.line());
        let key = self.m.key(at).key;
        let mac = line.mac_matches(at.line(), key) || spec.mutant(3);
        let class = self.m.class(at);
        let row =
            tables::read_row(spec.memory.integrity, class, line.td, mac, line.poison.is_some());
        let poison = match (row.poison, line.poison) {
            (false, _) => None,
            (true, Some(old)) => Some(old),
            (true, None) => row.birth.map(|cause| self.born(at, cause)),
        };
        let (data, class) = if row.plaintext {
            line.decrypt(at.line(), key)
        } else if spec.mutant(2) && class == Class::Shared && !row.poison {
            (line.ct.as_ref().map_or(Bytes::UNKNOWN, |ct| ct.plain), DataClass::Plain)
        } else {
            (Bytes::ZERO, DataClass::Blocked)
        };
        (data, class, poison, row.rule)
    }

    fn read(&mut self, at: Tagged) -> (Bytes, DataClass, Option<BirthId>) {
        let before = self.m.dram(at.line());
        let (data, class, poison, rule) = self.consult(at);
        let mut after = before.clone();
        if !self.m.spec.mutant(4) {
            after.poison = poison; // MC-02
        }
        if before.poison.is_none() {
            self.ucna.extend(poison);
        }
        self.set_dram(at.line(), after.clone());
        let request = Request::Read { data, class };
        self.traffic.push(Transaction { at, request, rule, before, after });
        (data, class, poison)
    }

    fn write(&mut self, at: Tagged, data: Bytes, mask: ByteMask, source: Option<BirthId>) {
        let spec = self.m.spec;
        let before = self.m.dram(at.line());
        let class = self.m.class(at);
        let row = tables::write_row(&WriteCase {
            full: mask.is_full(),
            class,
            mode: spec.memory.integrity,
            source_poison: source.is_some(),
            td: before.td || spec.mutant(11),
            erratum: spec.memory.erratum_pw_mce,
        });
        let (content, poison) = match row.effect {
            WriteEffect::Replace => (Some(data), source),
            WriteEffect::Merge => {
                let (mut merged, _, poison, _) = self.consult(at);
                merged.merge(&data, mask);
                (Some(merged), poison.filter(|_| !spec.mutant(5)))
            }
            WriteEffect::Poison => {
                let old = before.poison;
                (None, old.or_else(|| Some(self.born(at, BirthCause::PartialWrite))))
            }
        };
        let after = match content {
            Some(plain) => self.encrypt(at, plain, class, row.mac, poison),
            None => DramLine { poison, ..before.clone() },
        };
        self.set_dram(at.line(), after.clone());
        let request = Request::Write { mask, data, source };
        self.traffic.push(Transaction { at, request, rule: row.rule, before, after });
    }
    /// The line that a whole-line write leaves behind.
    fn encrypt(
        &self,
        at: Tagged,
        plain: Bytes,
        class: Class,
        mac: Option<bool>,
        poison: Option<BirthId>,
    ) -> DramLine {
        let key = self.m.key(at).key;
        let td = class == Class::Private; // the state rule of §2.6
        let integrity = class != Class::Shared && self.m.spec.memory.integrity == IntegrityMode::Ci;
        DramLine {
            ct: Some(Cipher { plain, key, line: at.line(), flips: Default::default() }),
            td,
            mac: mac.unwrap_or(integrity).then_some(td),
            poison,
            writer: Some((at.keyid(), key)),
            tampered: false,
        }
    }
}

/// The caches.
impl Run<'_> {
    fn put(&mut self, at: Tagged, place: Place, copy: Copy) {
        self.gained(copy.poison);
        let old = self.m.state.caches.insert((at, place), copy);
        self.lost(old.and_then(|c| c.poison));
    }
    fn take(&mut self, at: Tagged, place: Place) {
        let old = self.m.state.caches.remove(&(at, place));
        self.lost(old.and_then(|c| c.poison));
    }
    fn all(&self, at: Tagged) -> Vec<(Place, Copy)> {
        self.m.copies(at).map(|(place, copy)| (place, *copy)).collect()
    }
    fn own(&self, core: u16, at: Tagged) -> Option<Copy> {
        let own = self.m.state.caches.get(&(at, Place::Core(core)));
        if own.is_none() && self.m.spec.mutant(9) {
            let mut caches = self.m.state.caches.iter();
            let hit = |t: &Tagged, p: &Place| t.line() == at.line() && *p == Place::Core(core);
            return caches.find(|((t, p), _)| hit(t, p)).map(|(_, c)| *c);
        }
        own.copied()
    }

    /// Writes a dirty copy to memory; it stays, clean.
    fn clean(&mut self, at: Tagged, place: Place, copy: Copy) {
        if !copy.state.is_dirty() {
            return;
        }
        let old_td = self.m.dram(at.line()).td;
        self.write(at, copy.data, ByteMask::FULL, copy.poison);
        if self.m.spec.mutant(1)
            && let Some(line) = self.m.state.dram.get_mut(&at.line())
        {
            line.td = old_td;
        }
        let state = Coherence::of(false, copy.state == Coherence::Modified);
        self.put(at, place, Copy { state, ..copy });
    }
    /// Writes back if dirty and drops every copy, in the whole coherence domain.
    fn expel(&mut self, at: Tagged) {
        for (place, copy) in self.all(at) {
            self.clean(at, place, copy);
            self.take(at, place);
        }
    }
    /// The core gets a copy to read; returns it.
    fn share(&mut self, core: u16, at: Tagged) -> Copy {
        if let Some(own) = self.own(core, at) {
            return own;
        }
        let others = self.all(at);
        let copy = if let Some(&(_, found)) = others.first() {
            for (place, copy) in others {
                let state = Coherence::of(copy.state.is_dirty(), false);
                self.put(at, place, Copy { state, ..copy });
            }
            Copy { state: Coherence::Shared, ..found }
        } else {
            let (data, class, poison) = self.read(at);
            Copy { state: Coherence::Exclusive, data, class, poison }
        };
        self.put(at, Place::Core(core), copy);
        copy
    }
    /// The core gets the only copy, to write: read for ownership.
    fn own_exclusively(&mut self, core: u16, at: Tagged) -> Copy {
        let copy = self.share(core, at);
        let others = self.all(at);
        let dirty = others.iter().any(|(_, c)| c.state.is_dirty());
        let copy = Copy { state: Coherence::of(dirty, true), ..copy };
        self.put(at, Place::Core(core), copy);
        for (place, _) in others.into_iter().filter(|(p, _)| *p != Place::Core(core)) {
            self.take(at, place);
        }
        copy
    }
    /// Stores into a line that the core owns exclusively. Only a store of all 64 bytes clears poison (MC-05,
    /// verification.md C12).
    fn store(&mut self, core: u16, at: Tagged, data: Bytes, mask: ByteMask) {
        let mut copy = self.own_exclusively(core, at);
        copy.state = Coherence::Modified;
        copy.data.merge(&data, mask);
        if mask.is_full() {
            copy.class = DataClass::Plain;
        }
        if mask.is_full() || self.m.spec.mutant(8) {
            copy.poison = None;
        }
        self.put(at, Place::Core(core), copy);
    }
    /// Flushes every copy in a package that `chosen` picks.
    fn flush_all(&mut self, package: u8, keep: bool, chosen: &dyn Fn(Tagged) -> bool) {
        let spec = self.m.spec;
        let here = |place: Place| match place {
            Place::Core(core) => spec.package_of(core) == package,
            Place::Llc(p) => p == package,
        };
        let copies: Vec<_> = self.m.state.caches.iter().map(|(k, c)| (*k, *c)).collect();
        for ((at, place), copy) in copies.into_iter().filter(|((t, p), _)| here(*p) && chosen(*t)) {
            self.clean(at, place, copy);
            if !keep {
                self.take(at, place);
            }
        }
    }
}

/// Write-combining buffers and weakly ordered operations.
impl Run<'_> {
    fn pending(&mut self, core: u16) -> &mut Pending {
        self.m.state.pending.entry(core).or_default()
    }
    /// Absent is empty: one state, one value.
    fn tidy(&mut self, core: u16) {
        self.m.state.pending.retain(|c, p| *c != core || !p.wc.is_empty() || !p.weak.is_empty());
    }
    fn wc_leave(&mut self, core: u16, index: usize) {
        let buffer = self.pending(core).wc.remove(index);
        self.tidy(core);
        self.expel(buffer.at); // §3 3.4 for direct stores; a bypassing store must not leave a stale copy either
        self.write(buffer.at, buffer.data, ByteMask(buffer.mask), None);
    }
    fn drain_wc(&mut self, core: u16) {
        while self.m.state.pending.get(&core).is_some_and(|p| !p.wc.is_empty()) {
            self.wc_leave(core, 0);
        }
    }
    fn weak_complete(&mut self, core: u16, index: usize) {
        let weak = self.pending(core).weak.remove(index);
        self.tidy(core);
        let (at, spec) = (weak.at, self.m.spec);
        match weak.kind {
            WeakKind::Clwb => {
                for (place, copy) in self.all(at) {
                    self.clean(at, place, copy);
                }
            }
            WeakKind::Clflushopt => self.expel(at),
            WeakKind::Movdir64b | WeakKind::Movdiri => {
                if !spec.mutant(7) {
                    self.expel(at); // §3 3.4
                }
                let source = self.m.dram(at.line()).poison.filter(|_| spec.mutant(6));
                self.write(at, weak.data, ByteMask(weak.mask), source);
            }
        }
    }
    fn drain_weak(&mut self, core: u16) {
        while self.m.state.pending.get(&core).is_some_and(|p| !p.weak.is_empty()) {
            self.weak_complete(core, 0);
        }
    }
    /// What SFENCE, MFENCE and locked or serialising operations complete.
    fn drain(&mut self, core: u16) {
        self.drain_wc(core);
        self.drain_weak(core);
    }
    /// An own access to a (line, KeyID): what the core has pending for it becomes visible first.
    fn own_access(&mut self, core: u16, at: Tagged) {
        self.wc_of(core, at);
        self.weak_of(core, at);
    }
    fn wc_of(&mut self, core: u16, at: Tagged) {
        let held = self.m.state.pending.get(&core);
        if let Some(i) = held.and_then(|p| p.wc.iter().position(|b| b.at == at)) {
            self.wc_leave(core, i);
        }
    }
    fn weak_of(&mut self, core: u16, at: Tagged) {
        let held = self.m.state.pending.get(&core);
        if let Some(i) = held.and_then(|p| p.weak.iter().position(|w| w.at == at)) {
            self.weak_complete(core, i);
        }
    }
    fn weak(&mut self, core: u16, kind: WeakKind, at: Tagged, mask: ByteMask, data: Bytes) {
        self.own_access(core, at);
        self.pending(core).weak.push(Weak { kind, at, mask: mask.0, data });
    }
    fn wc_store(&mut self, core: u16, at: Tagged, mask: ByteMask, data: Bytes) {
        self.weak_of(core, at);
        let limit = usize::from(self.m.spec.wc_buffers.max(1));
        let held = &mut self.pending(core).wc;
        let index = match held.iter().position(|b| b.at == at) {
            Some(index) => index,
            None => {
                if held.len() >= limit {
                    self.wc_leave(core, 0); // MC-28: no free buffer, the oldest leaves
                }
                let held = &mut self.pending(core).wc;
                held.push(WcBuffer { at, mask: 0, data: Bytes::ZERO });
                held.len() - 1
            }
        };
        let mut full = false;
        if let Some(buffer) = self.pending(core).wc.get_mut(index) {
            buffer.data.merge(&data, mask);
            buffer.mask |= mask.0;
            full = ByteMask(buffer.mask).is_full();
        }
        if full {
            self.wc_leave(core, index);
        }
    }
}

/// Choices and operations.
impl Run<'_> {
    fn choose(&mut self, choice: Choice) -> Result<(), NotAllowed> {
        let s = &self.m.state;
        let copy = |place, at: Tagged| {
            s.caches.get(&(at, place)).copied().ok_or(NotAllowed::NoSuchCopy(place, at))
        };
        match choice {
            Choice::Evict(place, at) => {
                let found = copy(place, at)?;
                self.clean(at, place, found);
                self.take(at, place);
            }
            Choice::WriteBack(place, at) => {
                let found = copy(place, at)?;
                if !found.state.is_dirty() {
                    return Err(NotAllowed::NotDirty(place, at));
                }
                self.clean(at, place, found);
            }
            Choice::ToLlc(core, at) => {
                let found = copy(Place::Core(core), at)?;
                let llc = Place::Llc(self.m.spec.package_of(core));
                let dirty = found.state.is_dirty()
                    || self.m.copies(at).any(|(p, c)| p == llc && c.state.is_dirty());
                let others =
                    self.m.copies(at).filter(|(p, _)| *p != llc && *p != Place::Core(core)).count();
                let state = Coherence::of(dirty, others == 0);
                self.put(at, llc, Copy { state, ..found });
                self.take(at, Place::Core(core));
            }
            Choice::WcLeave(core, at) => {
                let buffers = s.pending.get(&core).map(|p| p.wc.as_slice()).unwrap_or_default();
                let index = buffers.iter().position(|b| b.at == at);
                self.wc_leave(core, index.ok_or(NotAllowed::NoSuchBuffer(core, at))?);
            }
            Choice::WeakComplete(core, index) => {
                if s.pending.get(&core).is_none_or(|p| index >= p.weak.len()) {
                    return Err(NotAllowed::NoSuchWeakOp(core, index));
                }
                self.weak_complete(core, index);
            }
            Choice::Prefetch(who, core, at) => {
                self.core(core)?;
                self.operand(at.line().hpa(), 64)?;
                if who == Agent::Device || self.fault(who, at.keyid()).is_some() {
                    return Err(NotAllowed::CannotForm(who, at.keyid()));
                }
                if s.caches.contains_key(&(at, Place::Core(core))) {
                    return Err(NotAllowed::AlreadyCached(core, at));
                }
                self.share(core, at);
            }
        }
        Ok(())
    }

    fn core(&self, core: u16) -> Result<(), NotAllowed> {
        if core < self.m.spec.cores { Ok(()) } else { Err(NotAllowed::NoSuchCore(core)) }
    }
    fn operand(&self, hpa: Hpa, bytes: u32) -> Result<(), NotAllowed> {
        let end = 1u64 << self.m.spec.keyid.address_bits().min(52);
        if hpa.0 < end && u64::from(bytes) <= end - hpa.0 {
            Ok(())
        } else {
            Err(NotAllowed::Operand)
        }
    }

    /// Whether the operation can be asked for at all.
    fn check(&self, who: Agent, core: u16, op: &Op) -> Result<(), NotAllowed> {
        let sized = |at: &Addr, bytes: u32, max: u32| {
            if !(1..=max).contains(&bytes) {
                return Err(NotAllowed::Operand);
            }
            if at.keyid.0 > self.m.spec.keyid.keyid_max() {
                return Err(NotAllowed::Operand);
            }
            self.operand(at.hpa, bytes)
        };
        let (mut dma, mut physical, mut privileged) = (false, false, false);
        match op {
            Op::Load { at, bytes, .. } | Op::Store { at, bytes, .. } => sized(at, *bytes, 64)?,
            Op::NtStore { at, bytes, .. } => sized(at, *bytes, 64)?,
            Op::Movdiri { at, bytes, .. } | Op::LockXadd { at, bytes, .. } => {
                sized(at, *bytes, 8)?;
            }
            Op::RepStosb { at, bytes, .. } => sized(at, *bytes, 1 << 20)?,
            Op::Movdir64b { dst, src } => {
                sized(dst, 64, 64)?;
                if let Source::Mem(at) = src {
                    sized(at, 64, 64)?;
                }
            }
            Op::Movdir64bPage { at } => sized(at, 4096, 4096)?,
            Op::Fetch { at }
            | Op::Prefetch { at }
            | Op::Clflush { at }
            | Op::Clflushopt { at }
            | Op::Clwb { at } => sized(at, 1, 1)?,
            Op::DmaRead { at, bytes } | Op::DmaWrite { at, bytes, .. } => {
                dma = true;
                sized(at, *bytes, 4096)?;
            }
            Op::Wbinvd | Op::Wbnoinvd | Op::Pconfig { .. } => privileged = true,
            Op::Wbinvdp { .. } | Op::Wbnoinvdp { .. } => {}
            Op::Mfence | Op::Sfence | Op::Lfence | Op::Interrupt | Op::Delay { .. } => {}
            Op::Evict { at } | Op::FlipTd { at } | Op::InjectUe { at } => {
                physical = true;
                sized(at, 1, 1)?;
            }
            Op::WcEvict { core } => {
                physical = true;
                self.core(u16::try_from(*core).unwrap_or(u16::MAX))?;
            }
            Op::FlipBit { at, bit } => {
                physical = true;
                sized(at, 1, 1)?;
                if *bit >= 512 {
                    return Err(NotAllowed::Operand);
                }
            }
            Op::MoveLine { from, to } => {
                physical = true;
                sized(from, 1, 1)?;
                sized(to, 1, 1)?;
            }
            Op::SaveLine { at, slot } | Op::ReplayLine { slot, at } => {
                physical = true;
                sized(at, 1, 1)?;
                if *slot >= 16 {
                    return Err(NotAllowed::Operand);
                }
            }
        }
        if physical || matches!(op, Op::Delay { .. }) {
            return Ok(());
        }
        let unprivileged = matches!(who, Agent::User | Agent::Guest | Agent::Td(_));
        if dma != (who == Agent::Device) || privileged && unprivileged {
            return Err(NotAllowed::WrongAgent(who));
        }
        if dma { Ok(()) } else { self.core(core) }
    }

    /// What an access with a KeyID that the agent cannot form meets (architecture.md §2.5).
    fn fault(&self, who: Agent, keyid: KeyId) -> Option<Seen> {
        if !self.m.spec.keyid.is_private(keyid) {
            return None;
        }
        match who {
            Agent::SeamRoot => None,
            Agent::Td(hkid) if hkid == keyid => None,
            Agent::Td(_) | Agent::Guest => Some(Seen::EptMisconfiguration),
            Agent::Kernel | Agent::User => Some(Seen::PageFaultRsvd),
            Agent::Device => Some(Seen::DmaAbort),
        }
    }
    fn form(&self, who: Agent, at: &Addr) -> Flow<()> {
        self.fault(who, at.keyid).map_or(Ok(()), Err)
    }

    /// An access that retires: consumes poison.
    fn consume(&mut self, at: Tagged, poison: Option<BirthId>, access: McAccess) -> Flow<()> {
        match poison {
            Some(birth) => Err(Seen::MachineCheck { access, at, birth }),
            None => Ok(()),
        }
    }
    /// A retired load.
    fn load(&mut self, core: u16, at: Addr, bytes: u32, ty: MemType) -> Flow<(Bytes, DataClass)> {
        let (mut data, mut class) = (Bytes::ZERO, DataClass::Plain);
        for (tag, offset, len, skip) in spans(at, bytes) {
            self.own_access(core, tag);
            let (line, line_class, poison) = if ty == MemType::Wb {
                let copy = self.share(core, tag);
                (copy.data, copy.class, copy.poison)
            } else {
                self.expel(tag);
                self.read(tag)
            };
            self.consume(tag, poison, McAccess::DataLoad)?;
            data.merge(&line.moved(offset, len, skip), ByteMask::span(skip, len));
            class = class.max(line_class);
        }
        Ok((data, class))
    }
    /// A write-back store. All lines are owned before the first is written: a machine check leaves none half done.
    fn store_wb(&mut self, core: u16, at: Addr, bytes: u32, value: Value) -> Flow<()> {
        for (tag, ..) in spans(at, bytes) {
            self.own_access(core, tag);
            let had = self.own(core, tag).is_some();
            let copy = self.own_exclusively(core, tag);
            if self.m.spec.rfo_poison_mc && !had {
                self.consume(tag, copy.poison, McAccess::DataLoad)?; // MC-30
            }
        }
        for (tag, offset, len, skip) in spans(at, bytes) {
            let data = Bytes::known(value.line(skip, offset));
            self.store(core, tag, data, ByteMask::span(offset, len));
        }
        Ok(())
    }

    fn op(
        &mut self,
        who: Agent,
        core: u16,
        op: &Op,
        sub_block: &dyn Fn(Tagged) -> u32,
    ) -> Flow<Seen> {
        match op {
            Op::Load { at, bytes, ty } => {
                self.form(who, at)?;
                let (data, class) = self.load(core, *at, *bytes, *ty)?;
                return Ok(Seen::Data { data, bytes: *bytes, class });
            }
            Op::Fetch { at } => {
                self.form(who, at)?;
                if matches!(who, Agent::Td(hkid) if hkid != at.keyid) {
                    // A fetch from a shared GPA is a #PF (§2.5). The vocabulary has only this one.
                    return Err(Seen::PageFaultRsvd);
                }
                self.own_access(core, at.tagged());
                let copy = self.share(core, at.tagged());
                self.consume(at.tagged(), copy.poison, McAccess::Fetch)?;
            }
            Op::Prefetch { at } => {
                // A prefetch that cannot be translated is dropped; it never faults.
                if self.fault(who, at.keyid).is_none() {
                    self.share(core, at.tagged());
                }
            }
            Op::Store { at, bytes, value, ty } => {
                self.form(who, at)?;
                if *ty == MemType::Wb {
                    self.store_wb(core, *at, *bytes, *value)?;
                    return Ok(Seen::Done);
                }
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    let mask = ByteMask::span(offset, len);
                    if *ty == MemType::Wc {
                        self.wc_store(core, tag, mask, data);
                    } else {
                        self.own_access(core, tag);
                        self.expel(tag);
                        self.write(tag, data, mask, None);
                    }
                }
            }
            Op::NtStore { at, bytes, value } => {
                if *bytes > 8 && !at.hpa.0.is_multiple_of(u64::from(*bytes)) {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    self.wc_store(core, tag, ByteMask::span(offset, len), data);
                }
            }
            Op::Movdiri { at, bytes, value } => {
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    self.weak(core, WeakKind::Movdiri, tag, ByteMask::span(offset, len), data);
                }
            }
            Op::Movdir64b { dst, src } => {
                if dst.hpa.offset_in_line() != 0 {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, dst)?;
                let data = match src {
                    Source::Fill(byte) => Bytes::known(LineData::filled(*byte)),
                    Source::Mem(from) => {
                        self.form(who, from)?;
                        self.load(core, *from, 64, MemType::Wb)?.0
                    }
                };
                self.weak(core, WeakKind::Movdir64b, dst.tagged(), ByteMask::FULL, data);
            }
            Op::Movdir64bPage { at } => {
                if !at.hpa.0.is_multiple_of(4096) {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, at)?;
                for (tag, ..) in spans(*at, 4096) {
                    self.weak(core, WeakKind::Movdir64b, tag, ByteMask::FULL, Bytes::ZERO);
                }
            }
            Op::RepStosb { at, bytes, value } => {
                self.form(who, at)?;
                for (tag, offset, len, _) in spans(*at, *bytes) {
                    let part = Addr::new(Hpa(tag.line().hpa().0 + offset as u64), tag.keyid());
                    if len == 64 && self.m.spec.fast_string_no_rfo {
                        self.own_access(core, tag);
                        self.own_unread(core, tag, Bytes::known(LineData::filled(*value)));
                    } else {
                        self.store_wb(core, part, len as u32, Value::Fill(*value))?;
                    }
                }
            }
            Op::LockXadd { at, bytes, value } => {
                self.form(who, at)?;
                self.drain(core);
                let (old, class) = self.load(core, *at, *bytes, MemType::Wb)?;
                let mut word = [0u8; 8];
                for (i, byte) in word.iter_mut().enumerate().take(*bytes as usize) {
                    *byte = old.data().byte(i);
                }
                let sum = u64::from_le_bytes(word).wrapping_add(*value);
                let width = ByteMask::span(0, *bytes as usize).0;
                let sum = if old.unknown().0 & width == 0 {
                    Bytes::known(Value::Num(sum).line(0, 0))
                } else {
                    Bytes::UNKNOWN
                };
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = sum.moved(skip, len, offset);
                    self.store(core, tag, data, ByteMask::span(offset, len));
                }
                return Ok(Seen::Data { data: old, bytes: *bytes, class });
            }
            Op::Clflush { at } => {
                self.form(who, at)?;
                self.own_access(core, at.tagged());
                self.expel(at.tagged());
                if self.m.spec.mutant(10) {
                    let tags: Vec<_> = self.m.state.caches.keys().map(|(t, _)| *t).collect();
                    for tag in tags.into_iter().filter(|t| t.line() == at.hpa.line()) {
                        self.expel(tag);
                    }
                }
            }
            Op::Clflushopt { at } | Op::Clwb { at } => {
                self.form(who, at)?;
                let opt = matches!(op, Op::Clflushopt { .. });
                let kind = if opt { WeakKind::Clflushopt } else { WeakKind::Clwb };
                self.weak(core, kind, at.tagged(), ByteMask::NONE, Bytes::ZERO);
            }
            Op::Wbinvd | Op::Wbnoinvd => {
                self.drain(core);
                let keep = *op == Op::Wbnoinvd;
                self.flush_all(self.m.spec.package_of(core), keep, &|_| true);
            }
            Op::Wbinvdp { block } | Op::Wbnoinvdp { block } => {
                if who != Agent::SeamRoot {
                    return Err(Seen::GeneralProtection(GpReason::NotInSeam));
                }
                if *block >= self.m.spec.flush_sub_blocks {
                    return Err(Seen::GeneralProtection(GpReason::NoSuchSubBlock));
                }
                self.drain(core);
                let keep = matches!(op, Op::Wbnoinvdp { .. });
                let package = self.m.spec.package_of(core);
                self.flush_all(package, keep, &|at| sub_block(at) == *block);
            }
            Op::Mfence | Op::Sfence => self.drain(core),
            Op::Lfence | Op::Delay { .. } => {}
            Op::Interrupt => self.drain_wc(core),
            Op::Pconfig { keyid, cmd, alg } => {
                return Ok(Seen::Pconfig(self.pconfig(who, core, *keyid, *cmd, *alg)));
            }
            Op::DmaRead { at, bytes } => {
                self.form(who, at)?;
                let (mut data, mut class) = (Bytes::ZERO, DataClass::Plain);
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let cached =
                        self.m.copies(tag).next().map(|(_, c)| (c.data, c.class, c.poison));
                    let (line, line_class, poison) = match cached {
                        Some(copy) => copy,
                        None => self.read(tag),
                    };
                    if let Some(birth) = poison {
                        return Err(Seen::DmaPoison(birth)); // MC-13
                    }
                    data.merge(&line.moved(offset, len, skip), ByteMask::span(skip, len));
                    class = class.max(line_class);
                }
                return Ok(Seen::Data { data, bytes: *bytes, class });
            }
            Op::DmaWrite { at, bytes, value } => {
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    self.expel(tag);
                    self.write(tag, data, ByteMask::span(offset, len), None);
                }
            }
            Op::Evict { at } => self.expel(at.tagged()),
            Op::WcEvict { core } => {
                let core = *core as u16;
                if self.m.state.pending.get(&core).is_some_and(|p| !p.wc.is_empty()) {
                    self.wc_leave(core, 0);
                }
            }
            _ => self.tamper(op),
        }
        Ok(Seen::Done)
    }

    /// Ownership of a whole line without reading it (MC-29).
    fn own_unread(&mut self, core: u16, at: Tagged, data: Bytes) {
        for (place, _) in self.all(at) {
            self.take(at, place);
        }
        let state = Coherence::Modified;
        let copy = Copy { state, data, class: DataClass::Plain, poison: None };
        self.put(at, Place::Core(core), copy);
    }

    /// PCONFIG (architecture.md §8, §1.3). It touches neither caches nor memory (§4.1 4.1.5).
    fn pconfig(
        &mut self,
        who: Agent,
        core: u16,
        keyid: KeyId,
        cmd: PconfigCmd,
        alg: Option<KeyAlg>,
    ) -> PconfigStatus {
        let spec = self.m.spec;
        let private = spec.keyid.is_private(keyid);
        let seam = who == Agent::SeamRoot;
        if keyid == KeyId::TME || !spec.keyid.is_configured(keyid) || private && !seam {
            return PconfigStatus::InvalidKeyId;
        }
        let ci = spec.memory.integrity == IntegrityMode::Ci;
        let wide = matches!(alg, Some(KeyAlg::Xts256 | KeyAlg::Xts256Integrity));
        let integrity = alg.map_or(private, KeyAlg::has_integrity);
        if alg.is_some() && (integrity && !ci || wide && spec.memory.xts == XtsWidth::Xts128) {
            return PconfigStatus::InvalidAlgorithm;
        }
        let width = match alg {
            None => spec.memory.xts,
            Some(_) if wide => XtsWidth::Xts256,
            Some(_) => XtsWidth::Xts128,
        };
        let key = match cmd {
            PconfigCmd::SetDirect(number) => Key::Direct(number, width),
            PconfigCmd::SetRandom => {
                self.m.state.drawn += 1;
                Key::Random(self.m.state.drawn)
            }
            PconfigCmd::ClearKey => Key::Tme,
            PconfigCmd::NoEncrypt => Key::None,
        };
        let set = matches!(cmd, PconfigCmd::SetDirect(_) | PconfigCmd::SetRandom);
        let slot = KeySlot { key, integrity: ci && (private || integrity && set) };
        self.m.state.keys.insert((spec.package_of(core), keyid), slot);
        PconfigStatus::Ok
    }

    /// Physical faults and attacks: on the stored line, whatever KeyID the text names (architecture.md §1.2 1.2.4).
    fn tamper(&mut self, op: &Op) {
        match op {
            Op::FlipBit { at, bit } => {
                let mut line = self.m.dram(at.hpa.line());
                if let Some(ct) = &mut line.ct
                    && !ct.flips.remove(&(*bit as u16))
                {
                    ct.flips.insert(*bit as u16);
                }
                line.tampered = true;
                self.set_dram(at.hpa.line(), line);
            }
            Op::FlipTd { at } => {
                let line = self.m.dram(at.hpa.line());
                let flipped = DramLine { td: !line.td, tampered: true, ..line };
                self.set_dram(at.hpa.line(), flipped);
            }
            Op::MoveLine { from, to } => {
                let source = self.m.dram(from.hpa.line());
                self.overlay(to.hpa.line(), source);
            }
            Op::SaveLine { at, slot } => {
                let line = DramLine { poison: None, ..self.m.dram(at.hpa.line()) };
                self.m.state.saved.insert(*slot, line);
            }
            Op::ReplayLine { slot, at } => {
                if let Some(source) = self.m.state.saved.get(slot).cloned() {
                    self.overlay(at.hpa.line(), source);
                }
            }
            Op::InjectUe { at } => {
                let line = self.m.dram(at.hpa.line());
                let old = line.poison;
                let new =
                    old.unwrap_or_else(|| self.born(at.tagged(), BirthCause::UncorrectableError));
                self.set_dram(at.hpa.line(), DramLine { poison: Some(new), ..line });
            }
            _ => {}
        }
    }
    /// Puts ciphertext, TD bit and MAC of one line over another's; poison indication and writer stay.
    fn overlay(&mut self, line: Line, source: DramLine) {
        let old = self.m.dram(line);
        let DramLine { ct, td, mac, .. } = source;
        self.set_dram(line, DramLine { ct, td, mac, tampered: true, ..old });
    }
}
