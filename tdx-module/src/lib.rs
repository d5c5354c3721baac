//! The TDX module: SEAMCALL and TDCALL leaves, PAMT, Secure-EPT, life cycles of TDs, VCPUs and HKIDs, TLB epochs, locks
//! (architecture.md §7).
//!
//! A leaf is check, then touch, then commit. [`Module::begin`] starts a call, [`Module::step`] says what it wants next: a
//! load or store under some KeyID, a page filled by MOVDIR64B, a PCONFIG. All of it is plain data, so that a call can be
//! interrupted by others, saved and restored between any two steps, and run on a machine with or without time.
//!
//! What the structures say is held here, typed. Because every access also touches the lines they live in, under the
//! KeyID they live under, a host that overwrites them is found out by the memory controller, at the next miss.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests"))]

mod cx;
mod dispatch;
mod failure;
pub mod fields;
mod flight;
mod leaf;
pub mod lock;
pub mod measure;
pub mod metadata;
pub mod op_state;
pub mod pamt;
pub mod profile;
pub mod sept;
mod sys;
pub mod td;

pub use dispatch::{
    BEFORE_READY, GUEST_NOT_MODELLED, NOT_MODELLED, ZEROED, ZeroedRow, not_modelled_markdown,
    zeroed, zeroed_markdown,
};
pub use failure::{FAILURE_EFFECTS, FailureEffect, failure_effects_markdown};
pub use flight::{
    Action, Answer, Call, Env, Flight, GuestEntry, Inject, Reply, Touch, VmExit, reg,
};
pub use leaf::guest::{
    ATTR_RD_STATES, EXITS, ExitEffect, ExitKind, ExitRow, FAULTS, Fault, FaultRow, exits_markdown,
    fault_at, faults_markdown,
};
pub use leaf::vp_fields::vp_fields_markdown;
pub use sys::{KotEntry, SysState};

use flight::{Held, Live, Phase};
use lock::Lock;
use pamt::{PamtEntry, Size, Tdmr};
use rustc_hash::FxHashMap;
use sept::Entry;
use serde::{Deserialize, Serialize};
use sim_core::event::Trace;
use sim_core::planted::Planted;
use sim_core::platform::{IntegrityMode, PlatformSpec, TdxSpec, XtsWidth};
use sim_core::{KeyId, Page};
use std::collections::BTreeMap;
use td::{Td, Vcpu};

/// What a module is built from: the platform as it finds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Firmware and features.
    pub tdx: TdxSpec,
    /// KeyID layout.
    pub keyid: sim_core::keyid::KeyIdLayout,
    /// Integrity mode: which algorithm keys are programmed with (architecture.md §1.3 1.3.3).
    pub integrity: IntegrityMode,
    /// Key width.
    pub xts: XtsWidth,
    /// Packages.
    pub packages: u8,
    /// Logical processors.
    pub lps: u16,
    /// Sub-blocks of WBNOINVDP.
    pub sub_blocks: u32,
    /// A fault planted by a test.
    #[serde(skip)]
    pub planted: Planted,
}

impl Spec {
    /// What a platform says.
    pub fn of_platform(spec: &PlatformSpec) -> Spec {
        Spec {
            tdx: spec.tdx.clone(),
            keyid: spec.keyid,
            integrity: spec.memory.integrity,
            xts: spec.memory.xts,
            packages: spec.cpu.packages,
            lps: spec.cpu.cores,
            sub_blocks: spec.cpu.flush_sub_blocks,
            planted: spec.planted,
        }
    }
}

/// What the module knows of a logical processor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lp {
    /// TDH.SYS.LP.INIT is done.
    pub(crate) initialized: bool,
    /// In the module, or in a guest.
    pub(crate) busy: bool,
    /// Which VCPU ran last here.
    pub(crate) last_vcpu: Option<Page>,
}

/// A Secure-EPT page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct SeptPage(Box<[Entry]>);

/// Why SEAMCALL did not reach the module: VMfailInvalid (architecture.md §7.1 step 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmFail;

/// The module. Plain data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Module {
    pub(crate) spec: Spec,
    /// TDX is disabled on the platform: only a reset recovers.
    disabled: bool,
    pub(crate) sys: sys::Sys,
    pub(crate) lps: Vec<Lp>,
    pub(crate) tdmrs: Vec<Tdmr>,
    /// TDMR mutexes.
    pub(crate) tdmr_locks: Vec<Lock>,
    /// Locks of PAMT entries that somebody holds: few at any time.
    pamt_locks: Vec<(Size, u64, Lock)>,
    pub(crate) tds: BTreeMap<Page, Td>,
    pub(crate) vcpus: BTreeMap<Page, Vcpu>,
    #[serde(with = "sorted")]
    sept: FxHashMap<Page, SeptPage>,
}

/// A map without order is written in the order of its keys: same state, same bytes.
mod sorted {
    use super::{FxHashMap, Page, SeptPage};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(
        map: &FxHashMap<Page, SeptPage>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<BTreeMap<_, _>>().serialize(s)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<FxHashMap<Page, SeptPage>, D::Error> {
        Ok(BTreeMap::deserialize(d)?.into_iter().collect())
    }
}

impl Module {
    /// The module as the SEAM loader leaves it: nothing initialised.
    pub fn new(spec: Spec) -> Module {
        Module {
            disabled: false,
            sys: sys::Sys::new(&spec),
            lps: vec![Lp::default(); usize::from(spec.lps)],
            tdmrs: Vec::new(),
            tdmr_locks: Vec::new(),
            pamt_locks: Vec::new(),
            tds: BTreeMap::new(),
            vcpus: BTreeMap::new(),
            sept: FxHashMap::default(),
            spec,
        }
    }

    /// What the module was built from.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }
    /// The global state (architecture.md §7.1).
    pub const fn state(&self) -> SysState {
        self.sys.state
    }
    /// The HKID of PAMT and TDRs, once TDH.SYS.CONFIG has set it.
    pub const fn global_hkid(&self) -> Option<KeyId> {
        self.sys.global_hkid
    }
    /// Whether TDX is disabled on the platform.
    pub const fn is_disabled(&self) -> bool {
        self.disabled
    }
    /// A machine check in SEAM root, or the module's own end: every later SEAMCALL on every LP fails (architecture.md
    /// §6.3).
    pub fn disable(&mut self) {
        self.disabled = true;
    }
    /// The P-SEAMLDR has put a module in place (linux-host-paths.md §18 step 2): the state is SYSINIT_PENDING and every LP
    /// is uninitialised. After TDH.SYS.SHUTDOWN the handoff data is kept, and with it everything in memory (PAMTs, TDs,
    /// VCPUs, Secure-EPTs), for TDH.SYS.UPDATE to take over. Without a shutdown there is no handoff data: the new module
    /// knows of nothing, and what the old one had in memory is lost to it, still encrypted.
    ///
    /// # Errors
    /// VMfailInvalid: TDX is disabled, or an LP is still in the module; the loader runs on every LP.
    pub fn install(&mut self) -> Result<(), VmFail> {
        if self.disabled || self.lps.iter().any(|lp| lp.busy) {
            return Err(VmFail);
        }
        let fresh = sys::Sys::new(&self.spec);
        let old = std::mem::replace(&mut self.sys, fresh);
        self.sys.handoff = old.handoff;
        self.lps.fill(Lp::default());
        self.tdmr_locks.clear();
        let tdmrs = std::mem::take(&mut self.tdmrs);
        if old.handoff.is_none() {
            self.forget_tds();
            return Ok(());
        }
        let sys::Sys { kot, wbcache, global_hkid, keyed, predecessor, .. } = old;
        // A module that is replaced before it has taken over leaves the data to the next one.
        self.sys.predecessor = predecessor.or_else(|| {
            Some(Box::new(sys::Predecessor { kot, wbcache, global_hkid, keyed, tdmrs }))
        });
        Ok(())
    }
    /// What is in memory is nobody's any more.
    pub(crate) fn forget_tds(&mut self) {
        self.tds.clear();
        self.vcpus.clear();
        self.sept.clear();
    }
    /// Packages whose global key is configured: bit i is package i.
    pub const fn keyed(&self) -> u8 {
        self.sys.keyed
    }
    /// Per package, the HKIDs that were FLUSHED when TDH.PHYMEM.CACHE.WB started that was interrupted there; `None` where
    /// none is to be resumed.
    pub fn cache_wbs(&self) -> impl Iterator<Item = Option<Vec<KeyId>>> {
        let saved =
            |w: &sys::WbCache| w.resume.map(|_| w.flushed.iter().map(|k| KeyId(*k)).collect());
        self.sys.wbcache.iter().map(saved)
    }
    /// Whether TDH.SYS.LP.INIT is done on a logical processor.
    pub fn is_lp_initialized(&self, lp: u16) -> bool {
        self.lps.get(usize::from(lp)).is_some_and(|lp| lp.initialized)
    }
    /// The configured TDMRs.
    pub fn tdmrs(&self) -> &[Tdmr] {
        &self.tdmrs
    }
    /// The key ownership table: index is the KeyID.
    pub fn kot(&self) -> &[KotEntry] {
        &self.sys.kot
    }
    /// The TDs by TDR page.
    pub fn tds(&self) -> impl Iterator<Item = (Page, &Td)> {
        self.tds.iter().map(|(page, td)| (*page, td))
    }
    /// The TD of this TDR page.
    pub fn td(&self, tdr: Page) -> Option<&Td> {
        self.tds.get(&tdr)
    }
    /// The VCPUs by TDVPR page.
    pub fn vcpus(&self) -> impl Iterator<Item = (Page, &Vcpu)> {
        self.vcpus.iter().map(|(page, vcpu)| (*page, vcpu))
    }
    /// The VCPU of this TDVPR page.
    pub fn vcpu(&self, tdvpr: Page) -> Option<&Vcpu> {
        self.vcpus.get(&tdvpr)
    }
    /// The TDMR that covers an address.
    pub fn tdmr_of(&self, pa: u64) -> Option<&Tdmr> {
        let after = self.tdmrs.partition_point(|t| t.info().base <= pa);
        let tdmr = self.tdmrs.get(after.checked_sub(1)?)?;
        (pa < tdmr.area().end).then_some(tdmr)
    }
    pub(crate) fn tdmr_of_mut(&mut self, pa: u64) -> Option<&mut Tdmr> {
        let after = self.tdmrs.partition_point(|t| t.info().base <= pa);
        let tdmr = self.tdmrs.get_mut(after.checked_sub(1)?)?;
        (pa < tdmr.area().end).then_some(tdmr)
    }
    /// What the PAMT says of an address at one level; free outside TDMRs.
    pub fn pamt(&self, pa: u64, size: Size) -> PamtEntry {
        self.tdmr_of(pa).map_or(PamtEntry::NDA, |t| t.entry(pa, size))
    }
    /// An entry of a Secure-EPT page; `None` where there is no such page.
    pub fn sept_entry(&self, table: Page, index: u16) -> Option<Entry> {
        self.sept.get(&table)?.0.get(usize::from(index)).copied()
    }
    /// Every Secure-EPT page, in order.
    pub fn sept_pages(&self) -> Vec<Page> {
        let mut pages: Vec<Page> = self.sept.keys().copied().collect();
        pages.sort_unstable();
        pages
    }
    pub(crate) fn sept_set(&mut self, table: Page, index: u16, entry: Entry) {
        let slot = self.sept.get_mut(&table).and_then(|t| t.0.get_mut(usize::from(index)));
        if let Some(slot) = slot {
            *slot = entry;
        }
    }
    pub(crate) fn sept_new(&mut self, table: Page, entries: Box<[Entry]>) {
        self.sept.insert(table, SeptPage(entries));
    }
    pub(crate) fn sept_drop(&mut self, table: Page) {
        self.sept.remove(&table);
    }
    /// Whether no lock is held and no LP is in the module: between any two calls of one LP alone.
    pub fn is_quiet(&self) -> bool {
        self.pamt_locks.is_empty()
            && self.lps.iter().all(|lp| !lp.busy)
            && self.sys.is_quiet()
            && self.tdmr_locks.iter().all(|l| l.is_idle())
            && self
                .tds
                .values()
                .all(|t| t.op_lock.is_free() && t.tree_lock.is_free() && t.epoch_lock.is_free())
    }
    /// The same with the host's priority taken off every lock: what a leaf that fails leaves unchanged, but for
    /// [`FAILURE_EFFECTS`].
    #[must_use]
    pub fn without_priority(&self) -> Module {
        let mut m = self.clone();
        for td in m.tds.values_mut() {
            td.op_lock.forget_priority();
        }
        for table in m.sept.values_mut() {
            for entry in &mut table.0 {
                *entry = entry.with_host_priority(false);
            }
        }
        m
    }
    /// Whether another LP than this one is in the module or in a guest.
    pub(crate) fn others_busy(&self, lp: u16) -> bool {
        self.lps.iter().enumerate().any(|(i, l)| i != usize::from(lp) && l.busy)
    }

    /// SEAMCALL: starts a call on a logical processor.
    ///
    /// # Errors
    /// VMfailInvalid: TDX is disabled, or this LP is in the module already.
    pub fn begin(&mut self, flight: &mut Flight, call: &Call, env: &Env<'_>) -> Result<(), VmFail> {
        if self.disabled || flight.is_under_way() {
            return Err(VmFail);
        }
        let lp = self.lps.get_mut(usize::from(env.lp)).ok_or(VmFail)?;
        lp.busy = true;
        flight.start(call);
        let round_trip = self.spec.tdx.cost.seamcall;
        flight.touch(Touch::Spend(round_trip));
        Ok(())
    }

    /// Goes on with a call: `reply` is what came of the last action. An idle flight is over at once. A call that was under
    /// way on another LP when TDX was disabled goes on to its end, and so does a guest to its exit.
    pub fn step(
        &mut self,
        flight: &mut Flight,
        reply: Reply,
        env: &Env<'_>,
        trace: &mut Trace,
    ) -> Action {
        match reply {
            Reply::Done => {}
            Reply::Data(line) => flight.data.push(line),
            Reply::Pconfig(status) => flight.pconfig = Some(status),
            Reply::Random(ok) => flight.random = Some(ok),
            Reply::Exit(exit) => {
                flight.exit = Some(exit);
                flight.phase = Phase::Work;
            }
        }
        loop {
            if let Some((touch, from)) = flight.queue.get(flight.next) {
                flight.next += 1;
                return Action::Touch(self.as_of_now(*touch, *from));
            }
            flight.queue.clear();
            flight.next = 0;
            match flight.phase {
                Phase::Work => {
                    let mut cx = cx::Cx { m: self, f: flight, env, trace };
                    let flow = dispatch::run(&mut cx);
                    flight.data.clear();
                    match flow {
                        Ok(cx::Flow::Again(stage)) => flight.stage = stage,
                        Ok(cx::Flow::Enter(guest, stage)) => {
                            flight.stage = stage;
                            flight.phase = Phase::Guest;
                            return Action::Enter(guest);
                        }
                        Ok(cx::Flow::Fatal) => return Action::Fatal,
                        Ok(cx::Flow::NotModelled) => {
                            self.release(flight, 0);
                            self.leave(flight, env);
                            return Action::NotModelled;
                        }
                        Ok(cx::Flow::Done(status)) | Err(status) => {
                            flight.status = status;
                            flight.phase = Phase::Over;
                        }
                    }
                }
                // One lock after the other: to others it is free when the store that releases it is done.
                Phase::Over if !flight.locks.is_empty() => {
                    self.release(flight, flight.locks.len() - 1);
                }
                Phase::Over | Phase::Idle | Phase::Guest => {
                    self.leave(flight, env);
                    return Action::Return(Answer { status: flight.status, out: flight.out });
                }
            }
        }
    }

    fn leave(&mut self, flight: &mut Flight, env: &Env<'_>) {
        flight.phase = Phase::Idle;
        flight.queue.clear();
        if let Some(lp) = self.lps.get_mut(usize::from(env.lp)) {
            lp.busy = false;
        }
    }

    /// Releases every lock from `from` on, the last taken first, and queues what that touches.
    pub(crate) fn release(&mut self, flight: &mut Flight, from: usize) {
        while flight.locks.len() > from {
            if let Some(held) = flight.locks.pop() {
                self.unlock(flight, held);
            }
        }
    }

    fn unlock(&mut self, f: &mut Flight, held: Held) {
        match held {
            Held::Global(mode) => self.sys.lock.release(mode),
            Held::Kot(mode) => self.sys.kot_lock.release(mode),
            Held::Tdmr(index) => {
                if let Some(lock) = self.tdmr_locks.get_mut(usize::from(index)) {
                    lock.release(lock::Mode::Exclusive);
                }
            }
            Held::WbCache(package) => {
                if let Some(lock) = self.sys.wbcache.get_mut(usize::from(package)) {
                    lock.lock.release(lock::Mode::Exclusive);
                }
            }
            Held::Pamt { size, pa, mode } => {
                let at = self.pamt_locks.iter().position(|(s, p, _)| (*s, *p) == (size, pa));
                if let Some((at, (_, _, lock))) =
                    at.zip(at.and_then(|i| self.pamt_locks.get_mut(i)))
                {
                    lock.release(mode);
                    if lock.is_idle() {
                        self.pamt_locks.swap_remove(at);
                    }
                }
                self.touch_pamt(f, pa, size, true);
            }
            Held::OpState(tdr, mode) => {
                if let Some(td) = self.tds.get_mut(&tdr) {
                    td.op_lock.release(mode);
                    if let Some(page) = td.tdcs.first() {
                        let at = td::layout::tdcs_op_state(*page);
                        f.live(at, td.hkid, true, Live::OpState(tdr));
                    }
                }
            }
            Held::Epoch(tdr, mode) => {
                if let Some(td) = self.tds.get_mut(&tdr) {
                    td.epoch_lock.release(mode);
                    if let Some(page) = td.tdcs.first() {
                        f.live(td::layout::tdcs_epoch(*page), td.hkid, true, Live::Epoch(tdr));
                    }
                }
            }
            Held::Tree(tdr, mode) => {
                if let Some(td) = self.tds.get_mut(&tdr) {
                    td.tree_lock.release(mode);
                    if let Some(page) = td.tdcs.first() {
                        f.live(td::layout::tdcs_tree(*page), td.hkid, true, Live::Tree(tdr));
                    }
                }
            }
            Held::Entry { table, index } => {
                if let Some(entry) = self.sept_entry(table, index) {
                    self.sept_set(table, index, entry.with_locked(false));
                    let owner = self.pamt(table.hpa().0, Size::Small).owner();
                    if let Some(td) = self.tds.get(&owner) {
                        f.live(sept_at(table, index), td.hkid, true, Live::Entry(table, index));
                    }
                }
            }
        }
    }

    /// The touch that [`Module::step`] would ask for next, for who does it without leaving the loop: it is done and answered
    /// with [`Flight::touched`]. `None` when the leaf itself has to go on.
    #[inline]
    pub fn next_touch<'f>(&self, flight: &'f mut Flight) -> Option<&'f Touch> {
        let (touch, from) = flight.queue.get_mut(flight.next)?;
        if *from != Live::Fixed {
            *touch = self.as_of_now(*touch, *from);
            *from = Live::Fixed;
        }
        Some(touch)
    }

    /// A touch as it is done now: a store of something that several LPs write carries what that says at this moment.
    fn as_of_now(&self, touch: Touch, from: Live) -> Touch {
        let Touch::Store { at, value, bytes, locked } = touch else { return touch };
        let td = |tdr: Page| self.tds.get(&tdr);
        let now = match from {
            Live::Fixed => None,
            Live::Pamt(pa, size) => self.tdmr_of(pa).map(|tdmr| {
                let key = (size, pa & !(size.bytes() - 1));
                let lock = self.pamt_locks.iter().find(|(s, p, _)| (*s, *p) == key);
                tdmr.entry(pa, size).words(lock.map_or(0, |(_, _, lock)| lock.word()))
            }),
            Live::Entry(table, index) => self.sept_entry(table, index).map(|e| [e.0, 0]),
            Live::OpState(tdr) => td(tdr).map(|td| [u64::from(td.op_lock.word()), 0]),
            Live::Epoch(tdr) => td(tdr).map(|td| [u64::from(td.epoch_lock.word()), 0]),
            Live::Tree(tdr) => td(tdr).map(|td| [u64::from(td.tree_lock.word()), 0]),
            Live::Vcpus(tdr) => {
                td(tdr).map(|td| [u64::from(td.vcpus) | u64::from(td.associated) << 32, 0])
            }
            Live::Refcount(tdr) => {
                td(tdr).map(|td| [u64::from(td.refcount[0]) | u64::from(td.refcount[1]) << 32, 0])
            }
            Live::Bitmap(pa) => self.tdmr_of(pa).map(|tdmr| [tdmr.bitmap_word(pa), 0]),
            Live::Tdr(tdr) => td(tdr).map(|td| {
                [td.chldcnt << 16 | u64::from(td.fatal) << 8 | u64::from(td.lifecycle.code()), 0]
            }),
        };
        Touch::Store { at, value: now.unwrap_or(value), bytes, locked }
    }

    /// Queues a store of a PAMT entry with its lock.
    pub(crate) fn touch_pamt(&self, f: &mut Flight, pa: u64, size: Size, locked: bool) {
        let Some(tdmr) = self.tdmr_of(pa) else { return };
        let (Some(at), Some(hkid)) = (tdmr.entry_at(pa, size), self.sys.global_hkid) else {
            return;
        };
        let at = sim_core::Addr::new(at, hkid);
        let store = Touch::Store { at, value: [0; 2], bytes: 16, locked };
        f.queue.push((store, Live::Pamt(pa, size)));
    }
}

/// Where an entry of a Secure-EPT page lies.
pub const fn sept_at(table: Page, index: u16) -> sim_core::Hpa {
    sim_core::Hpa((table.0 << 12) + 8 * index as u64)
}
