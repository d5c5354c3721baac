//! Cores that issue streams of operations with many in flight.
//!
//! A scenario's program waits for each operation. A stream does not: an operation begins as soon as its operands and the
//! buffers it needs are there, so that bandwidth comes from latency and from how many lines a core can wait for. What an
//! operation *does* it does when it begins, in the order of the stream, exactly as a program's would
//! (architecture.md §13 MC-31): the window decides when, never what.
//!
//! What holds an operation back, each a number of the platform:
//! * `cpu.width`: so many instructions begin in one core clock.
//! * `cpu.window`: an instruction begins only when all but the last so many before it have retired, in order.
//! * its dependence ([`StreamOp::after`]): the operation so many back must have its data.
//! * `cpu.fill_buffers`: every line that misses L1D occupies one until it is there. A later access to the same line waits for
//!   the same buffer.
//! * `cpu.superqueue`: every line that misses L2 occupies an entry as well; a prefetch into L2 only that.
//! * `cpu.store_buffer`: a store retires into it and leaves it, in order, one per clock, when the core owns its line.
//! * `cpu.direct_stores`: a direct store (MOVDIR64B) occupies a place until its line is admitted to a controller's queue.
//!
//! DRAM answers when it answers, so an operation's end may be unknown for a while: such an end is [`PENDING`] and becomes known
//! when the controller completes the request. The run goes from one moment at which something can begin to the next; DRAM
//! is moved on event by event only while somebody waits for it.

mod hits;

use crate::Machine;
use crate::Speed;
use crate::agent::{AgentId, AgentKind, Consumed};
use crate::bus::Bus;
use crate::time::Ticket;
use cache::{FenceKind, Hierarchy, Level};
use mktme::Controller;
use serde::{Deserialize, Serialize};
use sim_core::data::{ByteMask, LineData};
use sim_core::mca::McAccess;
use sim_core::port::McHandler;
use sim_core::{Addr, KeyIdLayout, Line, Ps, Tagged};
use std::collections::VecDeque;

/// The end of what DRAM has not answered yet: later than every moment.
const PENDING: Ps = Ps(u64::MAX);
/// No waiter.
const NIL: u16 = u16::MAX;
/// Marks a waiter that is a store of the store buffer, not an entry of the window.
const STORE: u16 = 1 << 15;

/// A store as a waiter. Its place in the store buffer needs eight bits; with all of them set it would be [`NIL`].
const fn store_waiter(number: u64) -> u16 {
    STORE | (number & 0xff) as u16
}

/// What an operation of a stream does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum StreamKind {
    /// A load.
    Load,
    /// An instruction fetch: costs what a load costs.
    Fetch,
    /// A write-back store.
    Store,
    /// A software prefetch into L2.
    Prefetch,
    /// MOVDIR64B of zeros.
    DirectStore,
    /// A non-temporal store of a whole line.
    NtStore,
    /// CLFLUSHOPT.
    Clflushopt,
    /// CLWB.
    Clwb,
    /// MFENCE.
    Mfence,
    /// SFENCE.
    Sfence,
}

/// One operation of a stream. It touches one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamOp {
    /// What.
    pub kind: StreamKind,
    /// Where; ignored for fences.
    pub at: Addr,
    /// Bytes, 1 to 64, within the line of `at`; what goes beyond it is left out.
    pub bytes: u32,
    /// The operation needs the result of the one so many back in its stream; 0 for none.
    pub after: u8,
    /// Instructions before it that touch no memory.
    pub gap: u32,
    /// It begins no earlier than this moment.
    pub not_before: Ps,
    /// It begins so long after everything it needs is there.
    pub delay: Ps,
}

impl StreamOp {
    /// An operation of 8 bytes that depends on nothing.
    pub const fn new(kind: StreamKind, at: Addr) -> StreamOp {
        let (not_before, delay) = (Ps::ZERO, Ps::ZERO);
        StreamOp { kind, at, bytes: 8, after: 0, gap: 0, not_before, delay }
    }

    /// Which bytes of its line.
    const fn mask(&self) -> ByteMask {
        let bytes = if self.bytes == 0 { 1 } else { self.bytes };
        ByteMask::span(self.at.hpa.offset_in_line(), bytes as usize)
    }
}

/// Where a core's operations come from.
pub trait Source {
    /// The next operation; `None` at the end, and ever after.
    fn next(&mut self) -> Option<StreamOp>;
}

impl<F: FnMut() -> Option<StreamOp>> Source for F {
    fn next(&mut self) -> Option<StreamOp> {
        self()
    }
}

/// What a stream has done. Times are of simulated time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct StreamStats {
    /// Operations issued.
    pub operations: u64,
    /// Operations that the agent may not make, dropped (architecture.md §2.5).
    pub refused: u64,
    /// Loads and fetches among the operations.
    pub loads: u64,
    /// Stores among them, direct and non-temporal ones included.
    pub stores: u64,
    /// Prefetches among them.
    pub prefetches: u64,
    /// Sum over loads and fetches: from issue to data.
    pub load_latency: Ps,
    /// The moment at which the stream began.
    pub begin: Ps,
    /// The moment at which its last operation was over.
    pub end: Ps,
}

/// An operation that has not retired.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct InFlight {
    done: Ps,
    /// Instructions of the stream up to and including it.
    instructions: u64,
    /// While it waits for a buffer: it ends no earlier, though DRAM, which is asked late, may have answered before.
    least: Ps,
    /// The next waiter for the same buffer.
    next: u16,
    /// Whether its latency is counted.
    load: bool,
}

/// A retired store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Retired {
    /// When the core owns its line.
    owned: Ps,
    /// As for an operation in flight.
    least: Ps,
    next: u16,
}

/// A line on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Fill {
    at: Tagged,
    release: Ps,
    /// Added to DRAM's answer.
    after: Ps,
    /// Whether it missed L2.
    in_superqueue: bool,
    waiter: u16,
}

impl Fill {
    const NONE: Fill = Fill {
        at: Tagged::new(Line(0), sim_core::KeyId(0)),
        release: Ps::ZERO,
        after: Ps::ZERO,
        in_superqueue: false,
        waiter: NIL,
    };
}

/// A core's stream and its buffers. Plain data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Stream {
    agent: AgentId,
    core: u16,
    kind: AgentKind,
    own: sim_core::KeyId,
    /// The next operation begins no earlier.
    at: Ps,
    /// Nor than this: when what it waited for was there.
    floor: Ps,
    /// When it is worth looking at the stream again; [`PENDING`]: when DRAM has answered.
    wake: Ps,
    /// Whether it waits and DRAM's next answer may end that.
    blocked: bool,
    ended: bool,
    next: Option<StreamOp>,
    // The window: a ring by operation number.
    window: Vec<InFlight>,
    head: u64,
    tail: u64,
    /// When everything before `head` had retired.
    retired: Ps,
    instructions: u64,
    // The store buffer: a ring by store number.
    stores: Vec<Retired>,
    store_head: u64,
    store_tail: u64,
    /// When the last store before `store_head` was written.
    written: Ps,
    /// Fill buffers, then places for prefetches, which occupy the superqueue alone.
    fills: Vec<Fill>,
    /// How many of them are fill buffers.
    buffers: u32,
    /// Those, as a mask.
    all_buffers: u128,
    /// Those in use, or not known to be free.
    busy: u128,
    /// How many these are.
    in_use: u32,
    /// Of those, whose end is not known.
    pending: u128,
    /// The others with their ends, earliest first.
    ends: VecDeque<(Ps, u8)>,
    /// One bit for each line of those in use, by [`near_bit`]: what has none there is not on its way.
    near: u64,
    /// No fill whose end is known ends later.
    latest_fill: Ps,
    /// By place: until when a direct store occupies it.
    direct: Vec<Ps>,
    /// Writes of this stream that wait for room in a controller's queue.
    unadmitted: u32,
    /// When the first weakly ordered operation must become visible.
    due: Ps,
    /// Poison that a load brought, and the load's number.
    consumed: Option<(u64, Consumed)>,
    stats: StreamStats,
    #[serde(skip)]
    ahead: Ahead,
    /// One clock of the core.
    clock: Ps,
    /// From the beginning of one instruction to that of the next.
    step: Ps,
}

/// What the host has been asked for on behalf of the operation that comes next, while it waits. Not state.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    /// How many steps have been made: [`Machine::expect_first`], then those of [`Stream::expect_more`].
    steps: u8,
    /// The line that will probably leave L2, then that which will probably leave the LLC.
    victim: Option<cache::Slot>,
    /// The line that will probably be written back.
    written: Option<Line>,
}

impl Ahead {
    /// Whether there are more steps to be made of those that have begun.
    #[inline]
    const fn goes_on(&self) -> bool {
        matches!(self.steps, 1..4)
    }
}

impl PartialEq for Ahead {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Ahead {}

/// The bit of a line in [`Stream::near`].
const fn near_bit(line: Line) -> u64 {
    1 << ((line.0 ^ line.0 >> 6 ^ line.0 >> 12) & 63)
}

/// How far a stream may go before the others are looked at.
#[derive(Clone, Copy)]
struct Bounds {
    /// Not beyond this moment, at which another stream goes on.
    until: Ps,
    /// Whether the other one comes first if both would at that moment: the order of streams decides.
    other_first: bool,
    /// Not beyond so many operations of the machine.
    stop: u64,
    /// Somebody else waits for DRAM, so its events come first.
    others_blocked: bool,
}

/// Why an operation cannot begin.
enum Hold {
    /// Until this moment.
    Until(Ps),
    /// Until DRAM answers, or until this moment if that is earlier.
    Blocked(Ps),
}

impl Bounds {
    /// Whether another stream goes on before this one may at `t`.
    #[inline]
    fn passed_by(&self, t: Ps) -> bool {
        t > self.until || self.other_first && t == self.until
    }
}

impl Stream {
    fn new(machine: &Machine, agent: AgentId) -> Stream {
        let cpu = &machine.spec.cpu;
        let spec = machine.agents.get(usize::from(agent.0)).map(|a| &a.spec);
        let now = machine.trace.now;
        let none =
            InFlight { done: Ps::ZERO, instructions: 0, least: Ps::ZERO, next: NIL, load: false };
        // A dependence may reach 255 back.
        let window = usize::from(cpu.window).next_power_of_two().max(256);
        let stores = usize::from(cpu.store_buffer).next_power_of_two();
        let fills = usize::from(cpu.fill_buffers) + usize::from(cpu.superqueue);
        let clock = cpu.core_clock.cycles(1);
        Stream {
            clock,
            step: Ps((clock.0 / u64::from(cpu.width.max(1))).max(1)),
            agent,
            core: spec.map_or(0, |s| s.core),
            kind: spec.map_or(AgentKind::Kernel, |s| s.kind),
            own: spec.map_or(sim_core::KeyId::TME, |s| s.keyid),
            at: now,
            floor: now,
            wake: now,
            blocked: false,
            ended: spec.is_none(),
            next: None,
            window: vec![none; window],
            head: 0,
            tail: 0,
            retired: now,
            instructions: 0,
            stores: vec![Retired { owned: Ps::ZERO, least: Ps::ZERO, next: NIL }; stores],
            store_head: 0,
            store_tail: 0,
            written: now,
            fills: vec![Fill::NONE; fills],
            ends: VecDeque::with_capacity(fills),
            near: 0,
            buffers: cpu.fill_buffers.into(),
            all_buffers: (1 << cpu.fill_buffers) - 1,
            busy: 0,
            in_use: 0,
            pending: 0,
            latest_fill: Ps::ZERO,
            direct: vec![Ps::ZERO; usize::from(cpu.direct_stores).max(1)],
            unadmitted: 0,
            due: PENDING,
            consumed: None,
            stats: StreamStats { begin: now, end: now, ..StreamStats::default() },
            ahead: Ahead::default(),
        }
    }

    /// The operation is the youngest of the window, with its end.
    #[inline]
    fn retires(&mut self, done: Ps, load: bool, t: Ps) {
        let (tail, instructions) = (self.tail, self.instructions);
        let flight = self.flight_mut(tail);
        (flight.done, flight.instructions, flight.load) = (done, instructions, load);
        self.tail += 1;
        if load {
            let known = if done == PENDING { 0 } else { done.0 };
            let sum = &mut self.stats.load_latency.0;
            *sum = sum.wrapping_add(known).wrapping_sub(t.0);
        }
    }

    /// The end of a load that was not known when it retired into the window; nothing if it is still not known.
    #[inline]
    fn load_ends(&mut self, number: u64, end: Ps) {
        if end != PENDING {
            self.flight_mut(number).done = end;
            self.stats.load_latency.0 = self.stats.load_latency.0.wrapping_add(end.0);
        }
    }

    #[inline]
    fn flight(&self, number: u64) -> &InFlight {
        // A power of two of entries: the mask is in range.
        &self.window[(number & (self.window.len() as u64 - 1)) as usize]
    }
    #[inline]
    fn flight_mut(&mut self, number: u64) -> &mut InFlight {
        let mask = self.window.len() as u64 - 1;
        &mut self.window[(number & mask) as usize]
    }
    #[inline]
    fn retired_store(&mut self, number: u64) -> &mut Retired {
        let mask = self.stores.len() as u64 - 1;
        &mut self.stores[(number & mask) as usize]
    }

    /// When the window has room for an operation and its operands are there.
    // A call and its answer through memory cost more than what it does.
    #[inline(always)]
    fn operands(&mut self, op: &StreamOp, window: u64) -> Result<Ps, Hold> {
        let mut t = self.at.max(op.not_before);
        if op.gap != 0 {
            t = t.max(self.at + self.step.times(op.gap.into()));
        }
        // Room in the window.
        let number = self.instructions + u64::from(op.gap) + 1;
        let room = self.window.len() as u64;
        while self.head < self.tail
            && (self.tail - self.head >= room
                || number - self.flight(self.head).instructions >= window)
        {
            self.retire()?;
            // It may be looked at again before it begins: the floor remembers what has retired for it.
            self.floor = self.floor.max(self.retired);
        }
        t = t.max(self.floor);
        if op.after != 0
            && let Some(needed) = self.tail.checked_sub(op.after.into())
            && needed >= self.head
        {
            let done = self.flight(needed).done;
            if done == PENDING {
                return Err(Hold::Blocked(PENDING));
            }
            t = t.max(done);
        }
        Ok(t)
    }

    /// When the store buffer has a place, and no earlier than anything else for which a moment is remembered.
    // A call and its answer through memory cost more than what it does.
    #[inline(always)]
    fn store_place(&mut self, store_buffer: u64) -> Result<Ps, Hold> {
        while self.store_tail - self.store_head >= store_buffer {
            self.write_oldest(self.clock)?;
            self.floor = self.floor.max(self.written);
        }
        Ok(self.floor)
    }

    /// An operation begins at `t`.
    #[inline]
    fn begins(&mut self, op: &StreamOp, t: Ps) {
        self.at = t + self.step;
        self.instructions += u64::from(op.gap) + 1;
        self.stats.operations += 1;
    }

    /// Whether the agent may make the operation (architecture.md §2.5).
    #[inline]
    fn may(&self, op: &StreamOp, keyid: &KeyIdLayout) -> bool {
        let at = op.at.keyid;
        let own = self.kind == AgentKind::Td && at == self.own;
        // A TD fetches nothing from shared memory.
        let fetch = op.kind == StreamKind::Fetch && self.kind == AgentKind::Td && !own;
        if !keyid.is_private(at) && !fetch {
            return true;
        }
        let mine = self.kind == AgentKind::Seam || own;
        mine && !fetch || matches!(op.kind, StreamKind::Mfence | StreamKind::Sfence)
    }

    /// Retires the oldest operation of the window.
    #[inline]
    fn retire(&mut self) -> Result<(), Hold> {
        let done = self.flight(self.head).done;
        if done == PENDING {
            return Err(Hold::Blocked(PENDING));
        }
        self.retired = self.retired.max(done);
        self.head += 1;
        Ok(())
    }

    /// Writes the oldest store of the store buffer into L1D.
    #[inline]
    fn write_oldest(&mut self, clock: Ps) -> Result<(), Hold> {
        let owned = self.retired_store(self.store_head).owned;
        if owned == PENDING {
            return Err(Hold::Blocked(PENDING));
        }
        self.written = (self.written + clock).max(owned);
        self.store_head += 1;
        Ok(())
    }

    /// Frees fill buffers whose lines are there at `t`.
    #[inline]
    fn expire(&mut self, t: Ps) {
        while let Some(&(end, slot)) = self.ends.front()
            && end <= t
        {
            self.ends.pop_front();
            self.busy &= !(1 << (slot & 127));
            self.in_use -= 1;
        }
    }

    /// The end of a fill is known.
    #[inline]
    fn note_end(&mut self, end: Ps, slot: usize) {
        self.latest_fill = self.latest_fill.max(end);
        let mut place = self.ends.len();
        self.ends.push_back((end, slot as u8));
        // Most end in the order in which they began.
        while place > 0 && self.ends.get(place - 1).is_some_and(|(before, _)| *before > end) {
            self.ends.swap(place - 1, place);
            place -= 1;
        }
    }

    /// The first moment at which one of these is known to become free.
    #[inline]
    fn first_release(&self, of: u128) -> Ps {
        let mut known = self.ends.iter().filter(|(_, slot)| of >> (slot & 127) & 1 != 0);
        known.next().map_or(PENDING, |(end, _)| *end)
    }

    /// The fill buffer of a line that is on its way at `t`.
    #[inline]
    fn on_its_way(&mut self, at: Tagged, t: Ps) -> Option<usize> {
        if self.busy == 0 || self.near & near_bit(at.line()) == 0 {
            return None;
        }
        self.search(at, t)
    }
    #[inline(never)]
    fn search(&mut self, at: Tagged, t: Ps) -> Option<usize> {
        let (mut left, mut near) = (self.busy, 0);
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(fill) = self.fills.get(slot) {
                if fill.at == at && fill.release > t {
                    return Some(slot);
                }
                near |= near_bit(fill.at.line());
            }
        }
        // What has left since leaves no bit.
        self.near = near;
        None
    }

    /// Superqueue entries in use, as a mask of fills. Fills that are over may be among them: see [`Stream::expire`].
    fn superqueue(&self) -> u128 {
        let (mut left, mut used) = (self.busy, 0);
        while left != 0 {
            let slot = left.trailing_zeros();
            left &= left - 1;
            if self.fills.get(slot as usize).is_some_and(|f| f.in_superqueue) {
                used |= 1 << slot;
            }
        }
        used
    }

    /// Has a window entry or a store wait for a fill buffer, or takes the buffer's end if that is known; not before `least`.
    fn wait_for(&mut self, slot: usize, waiter: u16, least: Ps) -> Ps {
        let Some(fill) = self.fills.get_mut(slot) else { return Ps::ZERO };
        if fill.release != PENDING {
            return fill.release.max(least);
        }
        let next = std::mem::replace(&mut fill.waiter, waiter);
        if waiter & STORE != 0 {
            let store = self.retired_store(u64::from(waiter & !STORE));
            (store.next, store.least) = (next, least);
        } else {
            let flight = self.flight_mut(u64::from(waiter));
            (flight.next, flight.least) = (next, least);
        }
        PENDING
    }

    /// DRAM has answered for a fill buffer: whoever waits for it knows its end.
    fn filled(&mut self, slot: usize, at: Ps) {
        let Some(fill) = self.fills.get_mut(slot) else { return };
        let release = at + fill.after;
        fill.release = release;
        let mut waiter = std::mem::replace(&mut fill.waiter, NIL);
        self.pending &= !(1 << slot);
        self.note_end(release, slot);
        while waiter != NIL {
            if waiter & STORE != 0 {
                let store = self.retired_store(u64::from(waiter & !STORE));
                store.owned = release.max(store.least);
                waiter = store.next;
            } else {
                let flight = self.flight_mut(u64::from(waiter));
                let done = release.max(flight.least);
                flight.done = done;
                waiter = flight.next;
                if flight.load {
                    self.stats.load_latency.0 = self.stats.load_latency.0.wrapping_add(done.0);
                }
            }
        }
        self.awake(release);
    }

    /// Something that the stream may wait for ends at `t`.
    fn awake(&mut self, t: Ps) {
        if self.blocked {
            self.wake = self.wake.min(t);
        }
    }

    /// DRAM has gone on: with what [`Machine::expect_first`] asked for the next question can be answered, step by step. No
    /// effect but on speed.
    fn expect_more(&mut self, caches: &Hierarchy, memory: &Controller) {
        let (ahead, Some(op)) = (&mut self.ahead, &self.next) else { return };
        if !ahead.goes_on() {
            return;
        }
        if ahead.steps == 1 {
            ahead.victim = ahead.victim.and_then(|v| caches.expect_in_llc(self.core, v));
            memory.expect_line(op.at.hpa.line());
        } else if ahead.steps == 2 {
            ahead.written = ahead.victim.and_then(|v| caches.expect_victim(v));
            if let Some(line) = ahead.written {
                memory.expect_page(line);
            }
        } else if let Some(line) = ahead.written {
            memory.expect_line(line);
        }
        ahead.steps += 1;
    }

    /// The end of everything it has issued. Nothing is pending any more.
    fn finish(&mut self, clock: Ps) {
        while self.head < self.tail && self.retire().is_ok() {}
        while self.store_head < self.store_tail && self.write_oldest(clock).is_ok() {}
        let direct = self.direct.iter().copied().max().unwrap_or(Ps::ZERO);
        let last = self.retired.max(self.written).max(direct).max(self.latest_fill).max(self.at);
        self.stats.end = self.stats.end.max(last);
    }
}

impl Machine {
    /// Runs one stream per agent, each on the agent's core, until all have ended and everything they issued is over.
    /// Guests, devices and a second stream on one core are not served: they end at once.
    ///
    /// A load that brings poison retires with a machine check, of which `os` is told; after a panic nothing more is issued.
    pub fn run_streams<S: Source, H: McHandler>(
        &mut self,
        streams: &mut [(AgentId, S)],
        os: &mut H,
    ) -> Vec<StreamStats> {
        let agents: Vec<AgentId> = streams.iter().map(|(agent, _)| *agent).collect();
        let mut sources: Vec<&mut S> = streams.iter_mut().map(|(_, source)| source).collect();
        self.start_streams(&agents);
        while self.advance_streams(&mut sources, u64::MAX, os) {}
        self.end_streams()
    }

    /// Begins streams, as [`Machine::run_streams`] does. Between two calls of [`Machine::advance_streams`] the machine can
    /// be saved and restored.
    pub fn start_streams(&mut self, agents: &[AgentId]) {
        self.settle();
        // What programs have sent.
        self.traffic.clear();
        self.streams = agents.iter().map(|agent| Stream::new(self, *agent)).collect();
        for i in 0..self.streams.len() {
            let (earlier, rest) = self.streams.split_at(i);
            let Some(stream) = rest.first() else { continue };
            let taken = earlier.iter().any(|s| s.core == stream.core);
            let served = matches!(
                stream.kind,
                AgentKind::Kernel | AgentKind::User | AgentKind::Seam | AgentKind::Td
            );
            let ended = stream.ended || taken || !served || self.is_stopped(stream.agent);
            if let Some(stream) = self.streams.get_mut(i).filter(|_| ended) {
                (stream.ended, stream.wake) = (true, PENDING);
            }
        }
    }

    /// Whether an agent issues nothing any more: a panic, its death, its processor's shutdown.
    fn is_stopped(&self, agent: AgentId) -> bool {
        self.agents.get(usize::from(agent.0)).is_none_or(|a| self.not_run(a).is_some())
    }

    /// Lets streams issue about so many operations. Whether any of them goes on. `sources` are those of the streams, in
    /// their order.
    pub fn advance_streams<S: Source, H: McHandler>(
        &mut self,
        sources: &mut [&mut S],
        operations: u64,
        os: &mut H,
    ) -> bool {
        let stop = self.counts.operations.saturating_add(operations);
        loop {
            let (mut first, mut wake, mut blocked) = (0, PENDING, 0);
            let (mut other, mut second) = (0, PENDING);
            let mut waits = None;
            for (i, stream) in self.streams.iter().enumerate() {
                blocked += u32::from(stream.blocked);
                if stream.blocked && stream.ahead.goes_on() {
                    waits = Some(i);
                }
                let next = stream.wake.min(stream.due);
                if next < wake {
                    (other, second) = (first, wake);
                    (first, wake) = (i, next);
                } else if next < second {
                    (other, second) = (i, next);
                }
            }
            // DRAM is looked at only while somebody waits for it.
            let memory = self.dram.next_event().filter(|_| blocked > 0 || self.waiting > 0);
            if let Some(at) = memory
                && at <= wake
            {
                self.dram.advance(at);
                if let Some(stream) = waits.and_then(|i| self.streams.get_mut(i)) {
                    stream.expect_more(&self.caches, &self.memory);
                }
                if self.waiting == 0 {
                    // Until there is an answer, nobody has anything to do.
                    self.dram.advance_to_completion(wake);
                }
                self.trace.now = self.trace.now.max(self.dram.now());
                self.take_answers();
                continue;
            }
            if wake == PENDING || wake.is_horizon() {
                return false;
            }
            if self.streams.get(first).is_some_and(|s| s.due == wake) {
                self.trace.now = self.trace.now.max(wake);
                self.become_visible(first, wake);
                continue;
            }
            if self.counts.operations >= stop {
                return true;
            }
            let Some(source) = sources.get_mut(first) else { return false };
            let others = blocked - u32::from(self.streams.get(first).is_some_and(|s| s.blocked));
            let bounds = Bounds {
                until: second,
                other_first: second != PENDING && other < first,
                stop,
                others_blocked: others > 0,
            };
            self.advance_stream(first, *source, bounds, os);
        }
    }

    /// Ends streams: what they have issued is done. One statistic for each, in their order.
    pub fn end_streams(&mut self) -> Vec<StreamStats> {
        // What is still weakly ordered becomes visible in its time.
        for i in 0..self.streams.len() {
            while let Some(due) = self.streams.get(i).map(|s| s.due).filter(|due| *due != PENDING) {
                self.trace.now = self.trace.now.max(due);
                self.become_visible(i, due);
            }
        }
        self.settle();
        // Nothing is under way any more: who still waits for memory waits for what was never asked, or is never told.
        let waits = |s: &&Stream| s.blocked && !s.ended && s.wake == PENDING;
        self.stuck += self.streams.iter().filter(waits).count() as u64;
        let clock = self.spec.cpu.core_clock.cycles(1);
        let mut stats = Vec::with_capacity(self.streams.len());
        for mut stream in std::mem::take(&mut self.streams) {
            stream.finish(clock);
            self.trace.now = self.trace.now.max(stream.stats.end.min(Ps::HORIZON));
            stats.push(stream.stats);
        }
        stats
    }

    /// Issues a stream's operations until the next one begins later than `until`, or than DRAM's next event if somebody
    /// waits for DRAM.
    fn advance_stream<S: Source, H: McHandler>(
        &mut self,
        i: usize,
        source: &mut S,
        bounds: Bounds,
        os: &mut H,
    ) {
        let Bounds { until, stop, others_blocked, .. } = bounds;
        let alone = self.streams.len() == 1;
        loop {
            let Some(stream) = self.streams.get_mut(i) else { return };
            if stream.blocked {
                (stream.blocked, stream.floor) = (false, stream.floor.max(stream.wake));
                stream.expect_more(&self.caches, &self.memory);
            }
            if stream.consumed.is_some() {
                match self.retire_on_poison(i, bounds, os) {
                    true => continue,
                    false => return,
                }
            }
            if stream.next.is_none()
                && stream.busy == 0
                && let Some(t) = self.issue_hits(i, source, &bounds)
            {
                // It may have been all that was asked for.
                if self.counts.operations >= stop {
                    if let Some(stream) = self.streams.get_mut(i) {
                        stream.wake = stream.wake.max(t);
                    }
                    return;
                }
            }
            let Some(stream) = self.streams.get_mut(i) else { return };
            // It stays where it is until it begins: it is large.
            if stream.next.is_none() {
                stream.next = source.next();
            }
            if stream.next.is_none() {
                (stream.ended, stream.wake) = (true, PENDING);
                return;
            }
            let ahead = stream.ahead.steps;
            let t = loop {
                let (wake, blocked) = match self.earliest(i) {
                    Ok(t) => break t,
                    Err(Hold::Until(t)) => (t, false),
                    Err(Hold::Blocked(t)) => (t, true),
                };
                let Some(stream) = self.streams.get_mut(i) else { return };
                // Nobody else and nothing of DRAM comes before the end that it waits for.
                let next = blocked && wake < until && !wake.is_horizon();
                if next && self.dram.next_event().is_none_or(|m| m > wake) {
                    stream.floor = stream.floor.max(wake);
                    continue;
                }
                (stream.blocked, stream.wake) = (blocked, wake);
                if blocked && stream.ahead.steps == 0 {
                    self.expect_first(i);
                }
                return;
            };
            let watched = others_blocked || self.waiting > 0;
            let memory_first = watched && self.dram.next_event().is_some_and(|m| m <= t);
            let visible_first = self.streams.get(i).is_some_and(|s| s.due <= t);
            if bounds.passed_by(t) || memory_first || visible_first {
                if let Some(stream) = self.streams.get_mut(i) {
                    stream.wake = t;
                }
                return;
            }
            if t.is_horizon() {
                if let Some(stream) = self.streams.get_mut(i) {
                    (stream.next, stream.ended, stream.wake) = (None, true, PENDING);
                }
                return;
            }
            self.trace.now = self.trace.now.max(t);
            let requests = self.requests;
            let Some(stream) = self.streams.get_mut(i) else { return };
            if ahead > 0 {
                stream.expect_more(&self.caches, &self.memory);
                stream.ahead = Ahead::default();
            }
            let Some(op) = stream.next.take() else { return };
            self.issue_streamed(i, &op, t);
            let over = self.counts.operations >= stop;
            if over || !alone && self.requests != requests {
                // Somebody may have been answered: look at all streams again.
                if let Some(stream) = self.streams.get_mut(i) {
                    stream.wake = stream.wake.max(t);
                }
                return;
            }
        }
    }

    /// A stream begins to wait for DRAM: the host is asked for what the operation that comes next will look at, if it is one
    /// that meets a line as most do. No effect but on speed.
    fn expect_first(&mut self, i: usize) {
        let Machine { streams, caches, memory, options, .. } = self;
        let Some(stream) = streams.get_mut(i) else { return };
        if let Some(op) = &stream.next
            && matches!(op.kind, StreamKind::Load | StreamKind::Fetch | StreamKind::Store)
            && options.speed == Speed::Timed
        {
            stream.ahead = Ahead {
                steps: 1,
                victim: caches.expect(stream.core, op.at.tagged()),
                written: None,
            };
            memory.expect_page(op.at.hpa.line());
        }
    }

    /// When the operation that comes next can begin.
    #[inline]
    fn earliest(&mut self, i: usize) -> Result<Ps, Hold> {
        let window = u64::from(self.spec.cpu.window);
        let superqueue = usize::from(self.spec.cpu.superqueue);
        let store_buffer = u64::from(self.spec.cpu.store_buffer);
        let Some(stream) = self.streams.get_mut(i) else { return Err(Hold::Until(PENDING)) };
        let Some(op) = stream.next else { return Err(Hold::Until(PENDING)) };
        let clock = stream.clock;
        let mut t = stream.operands(&op, window)?;
        match op.kind {
            StreamKind::Load | StreamKind::Fetch => {}
            StreamKind::Store => t = t.max(stream.store_place(store_buffer)?),
            StreamKind::Prefetch => {
                if stream.in_use as usize >= superqueue {
                    stream.expire(t);
                    let used = stream.superqueue();
                    if used.count_ones() as usize >= superqueue {
                        return Err(Hold::Blocked(stream.first_release(used)));
                    }
                }
                return Ok(t + op.delay);
            }
            StreamKind::DirectStore => {
                let first = stream.direct.iter().copied().min().unwrap_or(Ps::ZERO);
                if stream.unadmitted as usize >= stream.direct.len() {
                    return Err(Hold::Blocked(PENDING));
                }
                return Ok(t.max(first) + op.delay);
            }
            StreamKind::Clflushopt | StreamKind::Clwb => {
                // What they write back has to be admitted before many more may follow.
                if stream.unadmitted as usize >= stream.direct.len() {
                    return Err(Hold::Blocked(PENDING));
                }
                return Ok(t + op.delay);
            }
            StreamKind::Mfence | StreamKind::Sfence => {
                if op.kind == StreamKind::Mfence {
                    while stream.head < stream.tail {
                        stream.retire()?;
                    }
                    t = t.max(stream.retired);
                }
                while stream.store_head < stream.store_tail {
                    stream.write_oldest(clock)?;
                }
                if stream.unadmitted > 0 {
                    return Err(Hold::Blocked(PENDING));
                }
                let direct = stream.direct.iter().copied().max().unwrap_or(Ps::ZERO);
                return Ok(t.max(stream.written).max(direct) + op.delay);
            }
            StreamKind::NtStore => {
                if stream.unadmitted >= stream.buffers {
                    return Err(Hold::Blocked(PENDING));
                }
            }
        }
        // A fill buffer and an entry of the superqueue, unless L1D has what is wanted.
        if stream.busy != 0 {
            stream.expire(t);
            let all = stream.all_buffers;
            let mut held = 0;
            if stream.busy & all == all {
                held = all;
            } else if stream.in_use as usize >= superqueue {
                let used = stream.superqueue();
                if used.count_ones() as usize >= superqueue {
                    held = used;
                }
            }
            if held != 0 {
                let first = stream.first_release(held);
                let (core, at) = (stream.core, op.at.tagged());
                let here = match op.kind {
                    StreamKind::NtStore => false,
                    // A shared line has to be asked for like one that is missing. (Where nobody else holds it any more, the
                    // store waits for a buffer that it does not take.)
                    StreamKind::Store => self.caches.is_owned_in_l1(core, at),
                    _ => self.caches.is_in_l1(core, at),
                };
                // What still waits to become visible goes first, and may take the line away.
                let hits = here
                    && self.caches.weak_ops(core).all(|w| w.at != at)
                    && self.caches.wc_buffers(core).all(|b| b.at != at);
                if !hits {
                    return Err(Hold::Blocked(first));
                }
            }
        }
        Ok(t + op.delay)
    }

    /// An operation begins at `t`: it takes effect, and its end is known or pending.
    #[inline]
    fn issue_streamed(&mut self, i: usize, op: &StreamOp, t: Ps) {
        let Some(stream) = self.streams.get_mut(i) else { return };
        let (core, step) = (stream.core, stream.step);
        stream.begins(op, t);
        self.counts.operations += 1;
        let at = op.at.tagged();
        if !stream.may(op, &self.spec.keyid) {
            stream.stats.refused += 1;
            return stream.retires(t + step, false, t);
        }
        let timed = self.options.speed == Speed::Timed;
        if !timed {
            stream.at = t + self.spec.functional.op;
        }
        debug_assert!(self.traffic.is_empty());
        match op.kind {
            StreamKind::Load | StreamKind::Fetch => {
                self.load_streamed(i, op, t);
                // Also where nothing was waited for: what the access made leave, or drove out.
                self.send_streamed(Ticket::NOBODY, Ticket::stream_write(i));
            }
            StreamKind::Store => {
                self.store_streamed(i, op, t);
                self.send_streamed(Ticket::NOBODY, Ticket::stream_write(i));
            }
            StreamKind::Prefetch => {
                let (mut bus, caches) = self.bus();
                let hit = caches.prefetch(core, at, &mut bus);
                let after = self.known_or_after(core, &hit, at);
                let Some(stream) = self.streams.get_mut(i) else { return };
                stream.stats.prefetches += 1;
                let mut read = Ticket::NOBODY;
                if timed && !matches!(hit.level, Level::L1 | Level::L2) {
                    let (release, after) = match after {
                        Latency::Known(latency) => (t + latency, Ps::ZERO),
                        Latency::AfterRead(after) => (PENDING, after),
                    };
                    let from = stream.buffers;
                    let slot = stream.take_fill(from, at, release, after, true);
                    read = Ticket::fill(i, slot);
                }
                // Nobody waits for a prefetch but whoever wants its line.
                self.send_streamed(read, Ticket::stream_write(i));
                self.retires(i, t + step, false, t);
            }
            StreamKind::DirectStore => {
                let (mut bus, caches) = self.bus();
                caches.movdir64b(core, at, &LineData::ZERO, t, &mut bus);
                let occupied = self.direct_occupancy(core, at);
                let Some(stream) = self.streams.get_mut(i) else { return };
                stream.stats.stores += 1;
                if timed && let Some(place) = stream.direct.iter_mut().min() {
                    *place = t + occupied;
                }
                self.weak_from_now(i);
                self.retires(i, t + step, false, t);
            }
            StreamKind::NtStore => {
                let (mut bus, caches) = self.bus();
                caches.wc_store(core, at, &LineData::ZERO, ByteMask::FULL, t, &mut bus);
                let occupied = self.direct_occupancy(core, at);
                let Some(stream) = self.streams.get_mut(i) else { return };
                stream.stats.stores += 1;
                if timed {
                    stream.take_fill(0, at, t + occupied, Ps::ZERO, false);
                }
                self.weak_from_now(i);
                self.retires(i, t + step, false, t);
            }
            StreamKind::Clflushopt | StreamKind::Clwb => {
                let (mut bus, caches) = self.bus();
                if op.kind == StreamKind::Clflushopt {
                    caches.clflushopt(core, at, t, &mut bus);
                } else {
                    caches.clwb(core, at, t, &mut bus);
                }
                let cost = self.spec.latency.clflushopt;
                if timed && let Some(stream) = self.streams.get_mut(i) {
                    stream.at = t + cost;
                }
                self.weak_from_now(i);
                self.retires(i, t + step, false, t);
            }
            StreamKind::Mfence | StreamKind::Sfence => {
                let full = op.kind == StreamKind::Mfence;
                let kind = if full { FenceKind::Mfence } else { FenceKind::Sfence };
                let cost = if full { self.spec.latency.mfence } else { self.spec.latency.issue };
                let beat = self.fence(core, kind, cost);
                self.weak_from_now(i);
                if timed && let Some(stream) = self.streams.get_mut(i) {
                    stream.at = t + beat.cost;
                }
                self.retires(i, t + step, false, t);
            }
        }
    }

    /// The operation is the youngest of the window, with its end.
    fn retires(&mut self, i: usize, done: Ps, load: bool, t: Ps) {
        if let Some(stream) = self.streams.get_mut(i) {
            stream.retires(done, load, t);
        }
    }

    #[inline]
    fn load_streamed(&mut self, i: usize, op: &StreamOp, t: Ps) {
        let timed = self.options.speed == Speed::Timed;
        let Machine { streams, caches, memory, trace, traffic, counts, .. } = self;
        let Some(stream) = streams.get_mut(i) else { return };
        stream.stats.loads += 1;
        let tail = stream.tail;
        let at = op.at.tagged();
        let hit = caches.load(
            stream.core,
            at,
            &mut Bus { memory, trace, traffic, counts: &mut *counts, timed },
        );
        counts.access(hit.level);
        if let Some(birth) = caches.poison_of(hit.slot) {
            let fetch = op.kind == StreamKind::Fetch;
            let access = if fetch { McAccess::Fetch } else { McAccess::DataLoad };
            let at = Addr::new(op.at.hpa.line().hpa(), op.at.keyid);
            stream.consumed = Some((tail, Consumed { birth, at, access, fatal: false }));
        }
        if !timed {
            return stream.retires(t + self.spec.functional.op, true, t);
        }
        let waiter = (tail & 0x7fff) as u16;
        if hit.level == Level::L1 {
            let Some(slot) = stream.on_its_way(at, t) else {
                return stream.retires(t + self.uncore.l1, true, t);
            };
            stream.retires(PENDING, true, t);
            let end = stream.wait_for(slot, waiter, t + self.uncore.l1);
            return stream.load_ends(tail, end);
        }
        stream.retires(PENDING, true, t);
        let end = self.line_comes(i, &hit, at, t, waiter);
        if let Some(stream) = self.streams.get_mut(i) {
            stream.load_ends(tail, end);
        }
    }

    #[inline]
    fn store_streamed(&mut self, i: usize, op: &StreamOp, t: Ps) {
        let timed = self.options.speed == Speed::Timed;
        let Machine { streams, caches, memory, trace, traffic, counts, spec, .. } = self;
        let Some(stream) = streams.get_mut(i) else { return };
        stream.stats.stores += 1;
        let number = stream.store_tail;
        let (at, mask) = (op.at.tagged(), op.mask());
        let mut bus = Bus { memory, trace, traffic, counts: &mut *counts, timed };
        let mut owned = None;
        if spec.cpu.rfo_poison_mc {
            let hit = caches.own_for_store(stream.core, at, &mut bus);
            if let Some(birth) = hit.rfo_poison {
                return self.store_meets_poison(i, &hit, birth, at, t);
            }
            owned = Some(hit);
        }
        let hit = caches.store(stream.core, at, &LineData::ZERO, mask, &mut bus);
        let hit = owned.unwrap_or(hit);
        counts.access(hit.level);
        stream.retires(t + stream.step, false, t);
        if !timed {
            return;
        }
        stream.store_tail += 1;
        let waiter = store_waiter(number);
        if hit.level == Level::L1 {
            let end = match stream.on_its_way(at, t) {
                Some(slot) => {
                    stream.retired_store(number).owned = PENDING;
                    stream.wait_for(slot, waiter, t)
                }
                None => t,
            };
            if end != PENDING {
                stream.retired_store(number).owned = end;
            }
            return;
        }
        stream.retired_store(number).owned = PENDING;
        let end = self.line_comes(i, &hit, at, t, waiter);
        if end != PENDING
            && let Some(stream) = self.streams.get_mut(i)
        {
            stream.retired_store(number).owned = end;
        }
    }

    /// A store's RFO has brought poison and the platform wants a machine check for it (architecture.md §13 MC-30): nothing
    /// is stored, and the store retires like a load, when its line is there.
    #[cold]
    fn store_meets_poison(
        &mut self,
        i: usize,
        hit: &cache::Access,
        birth: sim_core::BirthId,
        at: Tagged,
        t: Ps,
    ) {
        self.counts.access(hit.level);
        let Some(stream) = self.streams.get_mut(i) else { return };
        let tail = stream.tail;
        let line = Addr::new(at.line().hpa(), at.keyid());
        let access = McAccess::DataLoad;
        stream.consumed = Some((tail, Consumed { birth, at: line, access, fatal: false }));
        if self.options.speed == Speed::Functional {
            return self.retires(i, t + self.spec.functional.op, false, t);
        }
        self.retires(i, PENDING, false, t);
        let end = self.line_comes(i, hit, at, t, (tail & 0x7fff) as u16);
        if end != PENDING
            && let Some(stream) = self.streams.get_mut(i)
        {
            stream.flight_mut(tail).done = end;
        }
    }

    /// When a line is there that an access of a stream has met, and the requests that this makes. If that is not known, the
    /// waiter learns it later.
    fn line_comes(&mut self, i: usize, hit: &cache::Access, at: Tagged, t: Ps, waiter: u16) -> Ps {
        // What is in L1D when it is asked for takes no less than that.
        let least = if waiter & STORE != 0 { t } else { t + self.uncore.l1 };
        if matches!(hit.level, Level::L1 | Level::L2) {
            let Some(stream) = self.streams.get_mut(i) else { return t };
            match stream.on_its_way(at, t) {
                Some(slot) => return stream.wait_for(slot, waiter, least),
                None if hit.level == Level::L2 => {}
                None => return least,
            }
        }
        let latency = self.known_or_after(stream_core(&self.streams, i), hit, at);
        let missed = hit.level != Level::L2;
        let Some(stream) = self.streams.get_mut(i) else { return t };
        match latency {
            Latency::Known(latency) => {
                let end = t + latency;
                stream.take_fill(0, at, end, Ps::ZERO, missed);
                self.send_streamed(Ticket::NOBODY, Ticket::stream_write(i));
                end
            }
            Latency::AfterRead(after) => {
                let slot = stream.take_fill(0, at, PENDING, after, true);
                stream.wait_for(slot, waiter, least);
                self.send_streamed(Ticket::fill(i, slot), Ticket::stream_write(i));
                // Whoever waits learns it, at once if DRAM has answered at once.
                PENDING
            }
        }
    }

    /// What is known of an access's latency when it is made.
    fn known_or_after(&self, core: u16, hit: &cache::Access, at: Tagged) -> Latency {
        if hit.level == Level::Memory {
            return Latency::AfterRead(self.after_miss(core, hit, at));
        }
        Latency::Known(self.latency_of(core, hit, at).0)
    }

    /// Lets a core's weakly ordered operations that are due become visible, and sends their requests.
    fn become_visible(&mut self, i: usize, t: Ps) {
        let core = stream_core(&self.streams, i);
        self.traffic.clear();
        let (mut bus, caches) = self.bus();
        caches.drain_due(core, t, &mut bus);
        self.weak_from_now(i);
    }

    /// Sends what weakly ordered operations have requested, and notes when the next becomes visible.
    fn weak_from_now(&mut self, i: usize) {
        self.send_streamed(Ticket::NOBODY, Ticket::stream_write(i));
        let core = stream_core(&self.streams, i);
        let due = self.caches.next_due(core).unwrap_or(PENDING);
        if let Some(stream) = self.streams.get_mut(i) {
            stream.due = due;
        }
    }

    /// Sends the recorded requests: the demand read with its ticket, everything else with the other.
    #[inline]
    fn send_streamed(&mut self, read: Ticket, other: Ticket) {
        if self.traffic.is_empty() {
            return;
        }
        let traffic = std::mem::take(&mut self.traffic);
        for t in &traffic {
            let ticket = if t.demand { read } else { other };
            self.send_one(*t, ticket);
        }
        self.traffic = traffic;
        self.traffic.clear();
        self.collect();
    }

    /// DRAM has answered a request of a stream.
    pub(crate) fn answer_stream(&mut self, ticket: Ticket, at: Ps) {
        if let Some((i, slot)) = ticket.of_stream()
            && let Some(stream) = self.streams.get_mut(i)
        {
            stream.filled(slot, at);
        }
    }

    /// A write of a stream has to wait for room in a controller's queue, or no longer has.
    pub(crate) fn count_unadmitted(&mut self, ticket: Ticket, more: bool) {
        // A read that waits holds its fill buffer, nothing else.
        let write = |(_, slot): &(usize, usize)| *slot == Ticket::WRITE as usize;
        let Some((i, _)) = ticket.of_stream().filter(write) else { return };
        let now = self.trace.now;
        let Some(stream) = self.streams.get_mut(i) else { return };
        if more {
            stream.unadmitted += 1;
        } else {
            stream.unadmitted = stream.unadmitted.saturating_sub(1);
            stream.awake(now);
        }
    }

    /// The load that brought poison retires with a machine check, if its data is there before another stream goes on.
    /// Whether the stream may be looked at again at once.
    fn retire_on_poison<H: McHandler>(&mut self, i: usize, bounds: Bounds, os: &mut H) -> bool {
        let Some(stream) = self.streams.get_mut(i) else { return false };
        let Some((number, consumed)) = stream.consumed else { return true };
        let t = stream.flight(number).done;
        if t == PENDING {
            (stream.blocked, stream.wake) = (true, PENDING);
            return false;
        }
        if bounds.passed_by(t) {
            stream.wake = t;
            return false;
        }
        stream.consumed = None;
        stream.at = stream.at.max(t);
        let agent = stream.agent;
        self.trace.now = self.trace.now.max(t);
        self.traffic.clear();
        self.consume(agent, consumed, os);
        self.send_streamed(Ticket::NOBODY, Ticket::NOBODY);
        for i in 0..self.streams.len() {
            let stopped = self.streams.get(i).is_some_and(|s| self.is_stopped(s.agent));
            if let Some(stream) = self.streams.get_mut(i).filter(|_| stopped) {
                (stream.ended, stream.wake, stream.blocked) = (true, PENDING, false);
            }
        }
        self.streams.get(i).is_some_and(|s| !s.ended)
    }
}

/// What is known of a latency before DRAM has answered.
enum Latency {
    Known(Ps),
    /// Added to DRAM's answer.
    AfterRead(Ps),
}

fn stream_core(streams: &[Stream], i: usize) -> u16 {
    streams.get(i).map_or(0, |s| s.core)
}

impl Stream {
    /// Takes the first free fill at or behind `from`. There is one: whoever calls has looked.
    fn take_fill(
        &mut self,
        from: u32,
        at: Tagged,
        release: Ps,
        after: Ps,
        in_superqueue: bool,
    ) -> usize {
        let free = !self.busy >> from;
        // Fill buffers before `buffers`, then places of the superqueue alone.
        let end = if from == 0 { self.buffers } else { self.fills.len() as u32 };
        debug_assert!(free.trailing_zeros() + from < end);
        let slot = (free.trailing_zeros() + from).min(self.fills.len() as u32 - 1) as usize;
        if let Some(fill) = self.fills.get_mut(slot) {
            *fill = Fill { at, release, after, in_superqueue, waiter: NIL };
        }
        self.near = if self.busy == 0 { 0 } else { self.near } | near_bit(at.line());
        self.in_use += u32::from(self.busy >> slot & 1 == 0);
        self.busy |= 1 << slot;
        if release == PENDING {
            self.pending |= 1 << slot;
        } else {
            self.note_end(release, slot);
        }
        slot
    }
}
