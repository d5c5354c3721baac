//! Events with causes, and the ledger of poison.
//!
//! Every event names the event that caused it, down to the operation of the scenario. Every poison has a birth
//! certificate: live poison is the set of births with at least one location, in DRAM or in a cached copy.

use crate::addr::{Line, Page, Tagged};
use crate::data::ByteMask;
use crate::keyid::KeyId;
use crate::mca::{McConsequence, McRecord, UcnaRecord};
use crate::outcome::PconfigStatus;
use crate::tdx::{PageType, Status};
use crate::time::Ps;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;

/// Names an event of a run; [`EventId::NONE`] where nothing was recorded.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct EventId(pub u32);

impl EventId {
    /// No event.
    pub const NONE: EventId = EventId(0);
}

/// Names a birth of poison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BirthId(pub NonZeroU32);

/// Why poison was born (verification.md P1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum BirthCause {
    /// A private-KeyID read of a line whose TD bit is clear (RC-01, RL-01).
    TdMismatch,
    /// A read whose MAC does not match (RC-05, RC-09).
    MacMismatch,
    /// A read of a TD=1 line with a shared KeyID that has integrity (RC-11).
    SharedIntegrity,
    /// A partial write to a TD=1 line on a part with the erratum (W-09).
    PartialWrite,
    /// An uncorrectable memory error.
    UncorrectableError,
}

/// A row of the read or write tables of architecture.md §2.2, §2.3 and §2.6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// RC-nn: reads in Ci mode.
    Rc(u8),
    /// RL-nn: reads in Li mode.
    Rl(u8),
    /// W-nn: writes.
    W(u8),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Rc(n) => write!(f, "RC-{n:02}"),
            Rule::Rl(n) => write!(f, "RL-{n:02}"),
            Rule::W(n) => write!(f, "W-{n:02}"),
        }
    }
}

/// What a DRAM line holds besides its ciphertext (architecture.md §1.1 1.1.2), and who wrote it last. The writer is the
/// simulator's knowledge: DRAM does not store it (1.1.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct LineState {
    /// TD-owner bit.
    pub td: bool,
    /// Whether the MAC field holds a MAC (architecture.md §13 MC-08).
    pub mac: bool,
    /// Poison, and which.
    pub poison: Option<BirthId>,
    /// KeyID of the last full-line writer; `None` since power-on.
    pub writer: Option<KeyId>,
}

/// Why a cached line was written back, or dropped, or a buffer left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Why {
    /// No room.
    Capacity,
    /// The scenario made the hardware's choice ([`crate::Op::Evict`], [`crate::Op::WcEvict`],
    /// [`crate::Op::WriteBack`], [`crate::Op::Drain`]).
    Chosen,
    /// CLFLUSH, CLFLUSHOPT or CLWB.
    Flush,
    /// WBINVD, WBNOINVD or a sub-block form.
    FlushAll,
    /// A direct, non-temporal, write-combining or uncached access to the same (line, KeyID).
    Bypass,
    /// Another core wants the line.
    Snoop,
    /// A device accesses the same (line, KeyID).
    Dma,
    /// All 64 bytes were collected.
    Full,
    /// A fence, or a locked or serialising operation.
    Fence,
    /// An access of the same core to the same line.
    OwnAccess,
    /// An interrupt or a machine check.
    Interrupt,
    /// Time: a weakly ordered operation became visible, or a buffer reached `wc_age`.
    Time,
}

/// A weakly ordered operation that waits to become visible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum WeakKind {
    /// MOVDIR64B.
    Movdir64b,
    /// MOVDIRI.
    Movdiri,
    /// CLFLUSHOPT.
    Clflushopt,
    /// CLWB.
    Clwb,
}

/// Where poison is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Location {
    /// In DRAM.
    Dram(Line),
    /// In the cached copy of this (line, KeyID).
    Cache(Tagged),
}

/// A physical fault or attack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Tamper {
    /// A ciphertext bit was flipped.
    FlipBit(u16),
    /// The TD bit was flipped.
    FlipTd,
    /// Another line's content was copied here.
    Moved(Line),
    /// An old content was put back.
    Replayed,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum EventKind {
    /// An agent began an operation: the root of a chain of causes.
    Op {
        /// Which agent.
        agent: u16,
        /// Which operation of the program, counted over all agents from 0.
        step: u32,
    },
    /// A core's caches took a line from the controller.
    Fill {
        /// Which core.
        core: u16,
        /// Which line.
        at: Tagged,
        /// Whether it came poisoned.
        poison: Option<BirthId>,
    },
    /// A core stored into a cached line.
    CacheStore {
        /// Which core.
        core: u16,
        /// Which line.
        at: Tagged,
        /// Which bytes.
        mask: ByteMask,
    },
    /// A dirty cached line went to the controller.
    WriteBack {
        /// Which line.
        at: Tagged,
        /// Why.
        why: Why,
        /// Whether a clean copy stays.
        kept: bool,
    },
    /// A clean cached line was dropped everywhere.
    Dropped {
        /// Which line.
        at: Tagged,
        /// Why.
        why: Why,
    },
    /// A core's caches let go of a copy for lack of room: it goes to the LLC of the package, or, clean, is dropped.
    LeftCore {
        /// Which core.
        core: u16,
        /// Which line.
        at: Tagged,
    },
    /// A snoop filter had no room: every core of the package gives up the line, under whatever KeyID. Each copy that
    /// goes is a [`EventKind::LeftCore`] that this causes.
    BackInvalidate {
        /// Which package's.
        package: u8,
        /// Which physical line.
        line: Line,
    },
    /// A write-combining buffer left.
    WcLeave {
        /// Which core.
        core: u16,
        /// Which line.
        at: Tagged,
        /// Which bytes it had collected.
        mask: ByteMask,
        /// Why.
        why: Why,
    },
    /// A weakly ordered operation became visible.
    WeakDone {
        /// Which core.
        core: u16,
        /// Which line.
        at: Tagged,
        /// Which operation.
        kind: WeakKind,
        /// Why now.
        why: Why,
    },
    /// The controller read a line.
    DramRead {
        /// Which line, under which KeyID.
        at: Tagged,
        /// By which row.
        rule: Rule,
        /// Before.
        before: LineState,
        /// After.
        after: LineState,
    },
    /// The controller wrote a line or a part of it.
    DramWrite {
        /// Which line, under which KeyID.
        at: Tagged,
        /// Which bytes.
        mask: ByteMask,
        /// By which row.
        rule: Rule,
        /// Before.
        before: LineState,
        /// After.
        after: LineState,
    },
    /// The controller wrote many whole lines of a page alike.
    DramWritePage {
        /// Which page.
        page: Page,
        /// Under which KeyID.
        keyid: KeyId,
        /// Which lines: bit i is line i.
        lines: u64,
        /// By which row.
        rule: Rule,
    },
    /// Poison was born.
    Birth {
        /// Which.
        birth: BirthId,
        /// Where, and under which KeyID the access was that bore it.
        at: Tagged,
        /// Why.
        cause: BirthCause,
    },
    /// Poison has one location more.
    PoisonCopied {
        /// Which.
        birth: BirthId,
        /// The new location.
        to: Location,
    },
    /// Poison has one location less.
    PoisonGone {
        /// Which.
        birth: BirthId,
        /// The old location.
        from: Location,
        /// Whether that was its last: its death.
        dead: bool,
    },
    /// The controller logged a UCNA error.
    Ucna(UcnaRecord),
    /// A core took a machine check.
    MachineCheck(McRecord),
    /// What became of its consumer.
    Consequence(McConsequence),
    /// PCONFIG programmed a key.
    Pconfig {
        /// Which KeyID.
        keyid: KeyId,
        /// With which result.
        status: PconfigStatus,
    },
    /// A physical fault or attack on a line.
    Tampered {
        /// Which line.
        line: Line,
        /// How.
        how: Tamper,
    },
    /// A SEAMCALL or TDCALL reached the TDX module.
    Call {
        /// Which core.
        core: u16,
        /// TDCALL, not SEAMCALL.
        guest: bool,
        /// RAX\[15:0\].
        leaf: u16,
    },
    /// It returned.
    Returned {
        /// Which core.
        core: u16,
        /// TDCALL, not SEAMCALL.
        guest: bool,
        /// RAX\[15:0\].
        leaf: u16,
        /// RAX after it.
        status: Status,
    },
    /// TDH.VP.ENTER entered a TD. That the module let the guest go on after an exit of its own is no other entry.
    TdEnter {
        /// Which core.
        core: u16,
        /// The TD's TDR page.
        td: Page,
        /// The VCPU's TDVPR page.
        vcpu: Page,
    },
    /// A core left a TD for the VMM.
    TdExit {
        /// Which core.
        core: u16,
        /// The VCPU's TDVPR page.
        vcpu: Page,
        /// What TDH.VP.ENTER returned: class and exit reason.
        status: Status,
    },
    /// The module changed the page type or the owner in a PAMT entry (architecture.md §7.4). That a large page was split or
    /// merged is one event, of its entry; the 512 below change with it.
    Pamt {
        /// The first page that the entry is of.
        page: Page,
        /// Its level: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB.
        level: u8,
        /// Page type before.
        before: PageType,
        /// Page type after.
        after: PageType,
        /// The owner's TDR page after; stale in a free entry.
        owner: Page,
    },
    /// The module changed a Secure-EPT entry by more than its lock (architecture.md §7.6). The entries of a new Secure-EPT
    /// page come with that of the entry which leads to it.
    Sept {
        /// The TD's TDR page.
        td: Page,
        /// The Secure-EPT page.
        table: Page,
        /// Which of its 512 entries.
        index: u16,
        /// The entry before.
        before: u64,
        /// The entry after.
        after: u64,
    },
    /// The module changed an entry of the key ownership table; states by their numbers (architecture.md §7.5).
    Kot {
        /// Which KeyID.
        keyid: KeyId,
        /// State before.
        before: u8,
        /// State after.
        after: u8,
    },
    /// TDX is disabled platform-wide (architecture.md §6.3).
    TdxDisabled {
        /// The core in unbreakable shutdown.
        core: u16,
    },
}

impl EventKind {
    /// Whether the event is kept even when the log is full: the roots of causes.
    const fn is_root(&self) -> bool {
        matches!(self, EventKind::Op { .. })
    }

    /// Whether the event is kept even when the log is off or full: everything about poison and machine checks.
    const fn is_essential(&self) -> bool {
        matches!(
            self,
            EventKind::Birth { .. }
                | EventKind::Ucna(_)
                | EventKind::MachineCheck(_)
                | EventKind::Consequence(_)
        )
    }
}

/// One event of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its name. Ids rise with the order of events.
    pub id: EventId,
    /// The event that caused it; [`EventId::NONE`] for roots.
    pub cause: EventId,
    /// When.
    pub at: Ps,
    /// What.
    pub kind: EventKind,
}

/// A birth of poison and what has become of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Birth {
    /// Where, and under which KeyID the access was that bore it.
    pub at: Tagged,
    /// Why.
    pub cause: BirthCause,
    /// When.
    pub born: Ps,
    /// The event.
    pub event: EventId,
    /// How many locations hold it now; 0 is dead.
    pub locations: u32,
}

/// Everything that a run records, and the present moment and cause under which it does.
///
/// Passed down to whoever acts; nothing reads it to decide anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// The present moment.
    pub now: Ps,
    /// The event that causes what happens now.
    pub cause: EventId,
    on: bool,
    limit: u32,
    events: Vec<Event>,
    lost: u64,
    births: Vec<Birth>,
    deaths: u32,
    locations: u64,
}

impl Trace {
    /// How many events are recorded. Operations, births, UCNA entries and machine checks are recorded beyond it too.
    pub const EVENTS_MAX: u32 = 1_000_000;

    /// A trace that records everything (`on`) or only births, UCNA entries and machine checks.
    pub fn new(on: bool) -> Trace {
        Trace {
            now: Ps::ZERO,
            cause: EventId::NONE,
            on,
            limit: Self::EVENTS_MAX,
            events: Vec::new(),
            lost: 0,
            births: Vec::new(),
            deaths: 0,
            locations: 0,
        }
    }
    /// Whether ordinary events are recorded.
    pub const fn is_on(&self) -> bool {
        self.on
    }
    /// Whether ordinary events are recorded from now on.
    pub fn set_on(&mut self, on: bool) {
        self.on = on;
    }
    /// Records an event caused by [`Trace::cause`]. `NONE` when the log is off or full.
    #[inline]
    pub fn emit(&mut self, kind: EventKind) -> EventId {
        if !self.on && !kind.is_essential() {
            return EventId::NONE;
        }
        self.push(kind)
    }
    #[cold]
    fn push(&mut self, kind: EventKind) -> EventId {
        let kept = kind.is_essential() || kind.is_root();
        if self.events.len() >= self.limit as usize && !kept {
            self.lost += 1;
            return EventId::NONE;
        }
        let id = EventId(self.events.len() as u32 + 1);
        self.events.push(Event { id, cause: self.cause, at: self.now, kind });
        id
    }
    /// Records an event that is the cause of all that follows until [`Trace::cause`] is set again; returns the old
    /// cause for that.
    pub fn emit_cause(&mut self, kind: EventKind) -> EventId {
        let old = self.cause;
        let id = self.emit(kind);
        if id != EventId::NONE {
            self.cause = id;
        }
        old
    }
    /// Forgets all ordinary events, as if the log had been off all the time.
    pub fn forget_ordinary(&mut self) {
        let events = std::mem::take(&mut self.events);
        // Old ids of what is left, in order: its place says the new one.
        let mut old: Vec<EventId> = Vec::new();
        let renamed = |old: &[EventId], id: EventId| {
            old.binary_search(&id).map_or(EventId::NONE, |at| EventId(at as u32 + 1))
        };
        for event in events.into_iter().filter(|e| e.kind.is_essential()) {
            old.push(event.id);
            let (id, cause) = (EventId(old.len() as u32), renamed(&old, event.cause));
            self.events.push(Event { id, cause, ..event });
        }
        for birth in &mut self.births {
            birth.event = renamed(&old, birth.event);
        }
        self.cause = renamed(&old, self.cause);
        self.lost = 0;
    }
    /// All events, in order; an event's place is its id less one.
    pub fn events(&self) -> &[Event] {
        &self.events
    }
    /// The event of that id.
    pub fn event(&self, id: EventId) -> Option<&Event> {
        self.events.get((id.0 as usize).checked_sub(1)?)
    }
    /// How many events were not recorded because the log was full.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Poison is born in a DRAM line.
    pub fn born(&mut self, at: Tagged, cause: BirthCause) -> BirthId {
        let number = NonZeroU32::MIN.saturating_add(self.births.len() as u32);
        let birth = BirthId(number);
        let event = self.emit(EventKind::Birth { birth, at, cause });
        self.births.push(Birth { at, cause, born: self.now, event, locations: 1 });
        self.locations += 1;
        birth
    }
    /// Poison has one location more.
    pub fn poison_copied(&mut self, birth: BirthId, to: Location) {
        if let Some(b) = self.births.get_mut(birth.0.get() as usize - 1) {
            b.locations += 1;
            self.locations += 1;
        }
        self.emit(EventKind::PoisonCopied { birth, to });
    }
    /// Poison has one location less.
    pub fn poison_gone(&mut self, birth: BirthId, from: Location) {
        let mut dead = false;
        if let Some(b) = self.births.get_mut(birth.0.get() as usize - 1) {
            b.locations = b.locations.saturating_sub(1);
            self.locations = self.locations.saturating_sub(1);
            dead = b.locations == 0;
        }
        self.deaths += u32::from(dead);
        self.emit(EventKind::PoisonGone { birth, from, dead });
    }
    /// All births so far; a birth's place is its id less one.
    pub fn births(&self) -> &[Birth] {
        &self.births
    }
    /// The birth of that id.
    pub fn birth(&self, id: BirthId) -> Option<&Birth> {
        self.births.get(id.0.get() as usize - 1)
    }
    /// How many births have no location left.
    pub const fn deaths(&self) -> u32 {
        self.deaths
    }
    /// How many locations hold poison now: poisoned DRAM lines plus poisoned cached lines (verification.md P2).
    pub const fn poison_locations(&self) -> u64 {
        self.locations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_less_deaths_is_live_poison() {
        let mut trace = Trace::new(true);
        let at = Tagged::new(Line(4), KeyId(1));
        let a = trace.born(at, BirthCause::TdMismatch);
        let b = trace.born(at.offset(1), BirthCause::PartialWrite);
        trace.poison_copied(a, Location::Cache(at));
        trace.poison_gone(a, Location::Dram(Line(4)));
        assert_eq!((trace.births().len(), trace.deaths(), trace.poison_locations()), (2, 0, 2));
        trace.poison_gone(a, Location::Cache(at));
        assert_eq!((trace.deaths(), trace.poison_locations()), (1, 1));
        assert_eq!(trace.birth(b).map(|b| b.locations), Some(1));
    }

    #[test]
    fn causes_lead_to_the_root() {
        let mut trace = Trace::new(true);
        let old = trace.emit_cause(EventKind::Op { agent: 0, step: 0 });
        assert_eq!(old, EventId::NONE);
        let at = Tagged::new(Line(4), KeyId(1));
        let id = trace.emit(EventKind::Dropped { at, why: Why::Flush });
        assert_eq!(trace.event(id).map(|e| e.cause), Some(EventId(1)));
    }

    #[test]
    fn a_full_log_still_keeps_births_and_machine_checks() {
        let mut trace = Trace::new(true);
        trace.limit = 3;
        let at = Tagged::new(Line(4), KeyId(1));
        for _ in 0..10 {
            trace.emit(EventKind::Dropped { at, why: Why::Flush });
        }
        let root = trace.emit(EventKind::Op { agent: 0, step: 0 });
        trace.cause = root;
        trace.born(at, BirthCause::PartialWrite);
        assert_eq!((trace.events().len(), trace.lost()), (5, 7));
        assert_eq!(trace.events()[4].cause, root);
        assert!(matches!(trace.events()[4].kind, EventKind::Birth { .. }));
    }

    #[test]
    fn a_trace_that_has_forgotten_what_is_ordinary_is_one_that_was_quiet() {
        let at = Tagged::new(Line(4), KeyId(1));
        let [quiet, mut loud] = [false, true].map(|on| {
            let mut trace = Trace::new(on);
            for _ in 0..2 {
                trace.cause = trace.emit(EventKind::Op { agent: 0, step: 0 });
                trace.emit(EventKind::Dropped { at, why: Why::Flush });
                trace.born(at, BirthCause::PartialWrite);
                let old = trace.emit_cause(EventKind::Consequence(McConsequence::Panic));
                trace.emit(EventKind::Consequence(McConsequence::Survived));
                trace.cause = old;
            }
            trace.cause = EventId::NONE;
            trace
        });
        assert_ne!(loud, quiet);
        loud.forget_ordinary();
        loud.set_on(false);
        assert_eq!(loud, quiet);
    }

    #[test]
    fn a_quiet_trace_keeps_births_and_nothing_else() {
        let mut trace = Trace::new(false);
        let at = Tagged::new(Line(4), KeyId(1));
        trace.emit(EventKind::Dropped { at, why: Why::Flush });
        trace.born(at, BirthCause::PartialWrite);
        assert_eq!(trace.events().len(), 1);
    }
}
