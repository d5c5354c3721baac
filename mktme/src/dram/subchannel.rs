//! The controller of one 32-bit subchannel: queues, write drain, refresh and the FR-FCFS scheduler.
//!
//! **Order of service.** Reads come first; writes are served when no read is queued, or while the write queue is being
//! drained from its high to its low watermark. At every clock edge at most one command is issued. Of the commands that the
//! queue being served could use and that are legal at this edge, RD and WR come before ACT, ACT before PRE, and older
//! before younger. A row is not closed while a ready entry of the queue being served hits it. Commands of a refresh under
//! way come before all others.
//!
//! **Page policy.** *Open*: rows stay open until another row is wanted. *Closed*: a column command carries auto-precharge
//! (RDA, WRA) unless another queued entry, read or write, hits the row. *Adaptive*: with auto-precharge if no queued entry
//! hits the row and one wants another row of the bank. A read never waits in order to close its row: so soon behind a write
//! that RDA is not legal (tWTRA) it is RD, and the row stays open until another is wanted or its bank is refreshed.
//!
//! **Age bound.** A read older than [`SubchannelSpec::read_age`], or a write older than
//! [`SubchannelSpec::write_age`], is overdue. Of the overdue, the one whose time ran out first decides which queue is
//! served; its bank works for it alone, it wins ties, and no other entry issues a command of the kind that it needs next
//! (else another rank's hits could hold it up for ever). This bounds every wait (verification.md §2.11 Q16).
//!
//! **Skipping.** Between two commands the state cannot change but by an arrival, by returning underfill data or by a refresh
//! that comes due. `wake` is a lower bound of the next edge at which a command is issued; the scheduler looks at such edges
//! and at no other. What it does at an edge depends on the state alone, so looking at all edges does the same.

use super::constraint::Command;
use super::device::{Bank, Blocked, Device, Geometry, RANKS, Spot};
use super::map::Place;
use super::queue::{Entry, Found, NIL, New, Queue, Want};
use super::refresh::{self, Refresh};
use super::ring::Ring;
use super::stats::{self, DramStats, Imbalance, InFlight};
use super::timing::{Parameter, Timing};
use super::{Completion, Full, Kind, SpecError};
use serde::{Deserialize, Serialize};
use sim_core::Ps;
use sim_core::platform::{DramSpec, PagePolicy, RefreshMode};
use std::fmt;
use thiserror::Error;

/// The edge of what never happens.
pub(super) const NEVER: u64 = u64::MAX;

/// Rounds of refreshes after which an idle subchannel stops making them one by one.
const IDLE_ROUNDS: u64 = 8;
/// The same while commands are recorded or every edge is looked at: a tenth of a second.
const IDLE_ROUNDS_SHOWN: u64 = 1 << 15;

/// The parameters of a subchannel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubchannelSpec {
    /// DDR5 timing.
    pub timing: Timing,
    /// Ranks and banks.
    pub geometry: Geometry,
    /// Read queue entries.
    pub read_queue: u16,
    /// Write queue entries.
    pub write_queue: u16,
    /// Writes ready to be served at which draining starts.
    pub write_high: u16,
    /// Writes ready to be served at which draining ends.
    pub write_low: u16,
    /// Row policy.
    pub page_policy: PagePolicy,
    /// Clocks after which a read is overdue. Assumed: no source gives the bound of an Intel controller.
    pub read_age: u32,
    /// Clocks after which a write is overdue. Assumed.
    pub write_age: u32,
    /// How rows are refreshed.
    pub refresh: RefreshMode,
    /// Refresh commands of a rank that may be postponed while requests for its banks are queued.
    pub refresh_postpone: u8,
    /// Clocks without a command for a request, although some is queued, after which the subchannel counts as stuck.
    pub watchdog: u32,
}

impl SubchannelSpec {
    /// The subchannels of a platform.
    ///
    /// # Errors
    /// A bin that the speed grade does not have.
    pub fn of(spec: &DramSpec) -> Result<SubchannelSpec, SpecError> {
        Ok(SubchannelSpec {
            timing: Timing::of(spec)?,
            geometry: Geometry::of(spec),
            read_queue: spec.read_queue,
            write_queue: spec.write_queue,
            write_high: spec.write_high,
            write_low: spec.write_low,
            page_policy: spec.page_policy,
            read_age: spec.read_age,
            write_age: spec.write_age,
            refresh: spec.refresh,
            refresh_postpone: spec.refresh_postpone,
            watchdog: spec.watchdog,
        })
    }

    /// By how many clocks a refresh may be off its time, for its banks to be closed: work on it begins so much before.
    pub fn refresh_lead(&self) -> u64 {
        refresh::lead(self.refresh, &self.timing, &self.geometry)
    }
}

/// A command that was issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandRecord {
    /// First slot on the command bus.
    pub at: Ps,
    /// Package of the subchannel.
    pub package: u8,
    /// What.
    pub command: Command,
    /// Where: for ACT the row opened, for PRE the row closed (column 0 for both), for column commands the line. PREab and
    /// REFab name a rank alone, REFsb a rank and a bank; the rest of the place is zero then.
    pub place: Place,
}

/// Why the oldest request of a subchannel waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub struct Wait {
    /// Package of the subchannel.
    pub package: u8,
    /// The line that is waited for.
    pub place: Place,
    /// Whether the request is a write.
    pub write: bool,
    /// Since when it has been queued.
    pub since: Ps,
    /// What its bank needs next.
    pub command: Command,
    /// Why that is not issued.
    pub reason: Reason,
}

/// Why a command is not issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is not legal.
    Blocked(Blocked),
    /// Its bank is being refreshed.
    Refresh,
    /// The write waits for its underfill read.
    Underfill,
    /// It is legal; others go first.
    Turn,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { channel, subchannel, rank, bank_group, bank, row, .. } = self.place;
        let what = if self.write { "write" } else { "read" };
        write!(
            f,
            "package {} channel {channel} subchannel {subchannel} rank {rank} bank group {bank_group} bank {bank}: {what} \
             of row {row} queued since {}: ",
            self.package, self.since
        )?;
        let command = self.command;
        match self.reason {
            Reason::Blocked(blocked) => blocked.fmt(f),
            Reason::Refresh => write!(f, "{command} blocked by the refresh of its bank"),
            Reason::Underfill => write!(f, "{command} blocked by its underfill read"),
            Reason::Turn => write!(f, "{command} is legal, others go first"),
        }
    }
}

/// Read data on its way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Flight {
    due: u64,
    id: u64,
    at: Ps,
}

/// Underfill data on its way, and the write that waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Underfill {
    due: u64,
    slot: u16,
}

/// A read that is alone, and the edges of the commands that it still needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Lone {
    id: u64,
    spot: Spot,
    at: Ps,
    /// The first clock edge at or after its arrival.
    edge: u64,
    found: Found,
    /// The next command: PRE if it is not one of those below.
    first: u64,
    /// ACT; past if the row is open.
    act: u64,
    /// RD.
    column: u64,
    /// When the entry is overdue.
    deadline: u64,
}

/// Recorded commands, not yet taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Recorder {
    commands: Vec<CommandRecord>,
    /// Commands for which there was no room.
    lost: u64,
}

/// Most commands that are kept for [`Dram::take_commands`](super::Dram::take_commands); what comes beyond is counted as lost.
pub const RECORDED_COMMANDS: usize = 1 << 16;

/// A subchannel: its devices, queues and scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subchannel {
    spec: SubchannelSpec,
    package: u8,
    channel: u8,
    subchannel: u8,
    device: Device,
    /// Ranks in use.
    ranks: usize,
    reads: Queue,
    writes: Queue,
    /// A read that came when nothing else was queued or on its way. While it is alone it is in no queue.
    lone: Option<Lone>,
    refresh: Refresh,
    draining: bool,
    /// Whether writes are being served, overdue entries aside: [`Subchannel::renew_turn`].
    writes_turn: bool,
    /// What the last column command was.
    wrote_last: bool,
    /// No command is issued before this edge.
    wake: u64,
    /// In order of `due`: RD commands go out in order and take the same time.
    flight: Ring<Flight>,
    /// When the first of them is due; never if there is none.
    flight_due: u64,
    underfills: Ring<Underfill>,
    /// When the first of them is due; never if there is none.
    underfill_due: u64,
    /// Requests queued and reads on their way, underfill reads included.
    work: u32,
    /// Clocks from RD to the last beat of its data.
    read_clocks: u64,
    /// Picoseconds of a burst.
    burst: u64,
    /// Clocks of [`IDLE_ROUNDS`].
    idle_clocks: u64,
    /// The last edge at which underfill data came.
    underfilled: u64,
    /// Looks at every edge instead of at `wake` only.
    every_edge: bool,
    /// The last edge looked at in that mode.
    looked: u64,
    /// Edges looked at: what it costs, not what it does.
    looks: u64,
    /// Up to which edge the lengths of the queues are accounted for.
    counted: u64,
    /// The last edge at which a request was served, or came to an idle subchannel.
    progress: u64,
    stats: DramStats,
    recorder: Option<Recorder>,
}

impl Subchannel {
    /// An idle subchannel with all rows closed. `package`, `channel` and `subchannel` are its name in traces.
    pub(super) fn new(
        spec: SubchannelSpec,
        package: u8,
        channel: u8,
        subchannel: u8,
    ) -> Subchannel {
        let device = Device::new(spec.timing, spec.geometry);
        let geometry = device.geometry();
        let t = &spec.timing;
        let read_clocks = t.clocks(Parameter::Cl) + t.clocks(Parameter::HalfBurst);
        let (reads, writes) = (spec.read_queue.clamp(1, 256), spec.write_queue.clamp(1, 256));
        let refresh = Refresh::new(spec.refresh, spec.refresh_postpone, t, &geometry);
        Subchannel {
            spec,
            package,
            channel,
            subchannel,
            ranks: usize::from(geometry.ranks),
            reads: Queue::new(reads, spec.read_age, false),
            writes: Queue::new(writes, spec.write_age, true),
            lone: None,
            device,
            draining: false,
            writes_turn: false,
            wrote_last: false,
            // Between two arrivals no more is served than was queued.
            flight: Ring::new(2 * usize::from(reads)),
            flight_due: NEVER,
            underfills: Ring::new(usize::from(reads)),
            underfill_due: NEVER,
            work: 0,
            read_clocks: read_clocks.into(),
            burst: t.time(Parameter::HalfBurst).0,
            idle_clocks: refresh.rounds(IDLE_ROUNDS),
            underfilled: NEVER,
            wake: refresh.wake,
            refresh,
            every_edge: false,
            looked: 0,
            looks: 0,
            counted: 0,
            progress: 0,
            stats: DramStats::default(),
            recorder: None,
        }
    }

    /// Its parameters.
    pub const fn spec(&self) -> &SubchannelSpec {
        &self.spec
    }
    /// Its devices: open rows and earliest legal moments.
    pub const fn device(&self) -> &Device {
        &self.device
    }
    /// What it has done.
    pub const fn stats(&self) -> &DramStats {
        &self.stats
    }
    /// Reads, underfill reads included, and writes that are queued.
    pub fn queued(&self) -> (usize, usize) {
        let lone = usize::from(self.lone.is_some());
        (self.reads.len() as usize + lone, self.writes.len() as usize)
    }
    /// How many clock edges the scheduler has looked at.
    pub const fn looks(&self) -> u64 {
        self.looks
    }
    /// Whether nothing is queued or on its way.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.work == 0
    }
    /// What is queued and on its way.
    pub fn in_flight(&self) -> InFlight {
        let waiting = self.writes.len() - u64::from(self.writes.ready());
        let flying = self.underfills.len() as u64;
        let queued = waiting - flying.min(waiting);
        let wait = |queue: &Queue| queue.entries().map(|e| self.counted - e.edge).sum();
        // A lone read came when the lengths were last accounted for.
        let lone = u64::from(self.lone.is_some());
        let reads = self.reads.entries().filter(|e| e.underfills == NIL).count() as u64;
        InFlight {
            queued_reads: reads + lone,
            flying_reads: self.flight.len() as u64,
            queued_underfills: queued,
            flying_underfills: flying,
            queued_writes: self.writes.len(),
            waiting_writes: waiting,
            read_queue_wait: wait(&self.reads),
            write_queue_wait: wait(&self.writes),
        }
    }
    /// Whether a command may be issued at a moment, in the present state. Changes nothing.
    ///
    /// # Errors
    /// What blocks it, and until when.
    pub fn probe(&self, command: Command, place: &Place, at: Ps) -> Result<(), Blocked> {
        self.device.probe(command, place, at)
    }
    /// Looks at every clock edge instead of skipping to the next that matters. The outcome is the same.
    pub(super) fn look_at_every_edge(&mut self, on: bool) {
        self.settle();
        self.every_edge = on;
    }
    /// Starts or stops recording commands; what has been recorded is dropped.
    pub(super) fn record_commands(&mut self, on: bool) {
        self.recorder = on.then(|| Recorder { commands: Vec::new(), lost: 0 });
    }
    /// Commands recorded and not taken, and commands for which there was no room.
    pub(super) fn recorded(&self) -> (usize, u64) {
        self.recorder.as_ref().map_or((0, 0), |r| (r.commands.len(), r.lost))
    }
    /// Moves the commands recorded so far to the end of `out`, in the order of issue.
    pub(super) fn take_commands(&mut self, out: &mut Vec<CommandRecord>) {
        if let Some(recorder) = &mut self.recorder {
            out.append(&mut recorder.commands);
        }
    }

    #[inline]
    fn reads_have_room(&self) -> bool {
        self.reads.has_room() && (self.lone.is_none() || self.spec.read_queue > 1)
    }

    /// Whether a request for a line would be taken now.
    #[inline(always)]
    pub(super) fn has_room(&self, kind: Kind, spot: Spot) -> bool {
        let queued = || self.writes.find(spot);
        match kind {
            Kind::Read => {
                self.reads_have_room() || {
                    let slot = queued();
                    slot != NIL && !self.writes.entry(slot).waiting
                }
            }
            Kind::Write => self.writes.has_room() || queued() != NIL,
            Kind::PartialWrite => {
                self.reads_have_room() && self.writes.has_room() || queued() != NIL
            }
        }
    }

    /// Takes a request that arrives at `at`, whose next clock edge is `edge`; edges up to `at` must have been run. Says
    /// whether it is complete at once (posted, merged or forwarded); read data otherwise comes out of
    /// [`Subchannel::run`].
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    #[inline]
    pub(super) fn enqueue(
        &mut self,
        id: u64,
        kind: Kind,
        spot: Spot,
        at: Ps,
        edge: u64,
    ) -> Result<bool, Full> {
        if self.work == 0 && kind == Kind::Read && !self.every_edge && !self.refresh.any_held() {
            self.enter_lone(id, spot, at, edge);
            return Ok(false);
        }
        let queued = self.writes.find(spot);
        match kind {
            Kind::Read => {
                if queued != NIL && !self.writes.entry(queued).waiting {
                    self.stats.reads += 1;
                    self.stats.forwarded += 1;
                    self.delivered(Ps::ZERO);
                    return Ok(true);
                }
                // A partial write whose underfill is still out has no whole line to forward: DRAM is read as well, and
                // the controller lays the queued bytes over the data.
                if !self.reads_have_room() {
                    return Err(Full);
                }
                self.stats.reads += 1;
                self.push::<false>(id, spot, at, edge, NIL, false)?;
                Ok(false)
            }
            Kind::Write => {
                if queued != NIL {
                    self.stats.merged += 1;
                } else {
                    if !self.writes.has_room() {
                        return Err(Full);
                    }
                    self.push::<true>(id, spot, at, edge, NIL, false)?;
                }
                self.stats.writes += 1;
                Ok(true)
            }
            Kind::PartialWrite => {
                if queued != NIL {
                    self.stats.merged += 1;
                } else {
                    if !self.reads_have_room() || !self.writes.has_room() {
                        return Err(Full);
                    }
                    let slot = self.push::<true>(id, spot, at, edge, NIL, true)?;
                    self.push::<false>(id, spot, at, edge, slot, false)?;
                    self.stats.underfills += 1;
                }
                self.stats.partial_writes += 1;
                Ok(true)
            }
        }
    }

    #[inline]
    fn delivered(&mut self, latency: Ps) {
        self.stats.reads_done += 1;
        self.stats.read_latency.0 += latency.0;
        self.stats.read_latency_max = self.stats.read_latency_max.max(latency);
        self.stats.read_latencies.record(latency);
    }

    /// Accounts for the lengths of the queues up to an edge.
    #[inline]
    fn count_to(&mut self, edge: u64) {
        let elapsed = edge - self.counted;
        if elapsed == 0 {
            // Accounted for, and progress with it.
            return;
        }
        let (reads, writes) = (self.reads.len(), self.writes.len());
        self.counted = edge;
        if reads + writes == 0 {
            // Work begins: the watchdog counts from here.
            self.progress = edge;
        } else {
            self.stats.queued_clocks += elapsed;
            self.stats.read_queue_clocks += elapsed * reads;
            self.stats.write_queue_clocks += elapsed * writes;
        }
    }

    /// Queues an entry, given in parts as [`Queue::push`] wants it, and lowers `wake` to the earliest edge at which the entry can
    /// make a difference.
    #[inline]
    fn push<const WRITES: bool>(
        &mut self,
        id: u64,
        spot: Spot,
        at: Ps,
        edge: u64,
        underfills: u16,
        waiting: bool,
    ) -> Result<u16, Full> {
        self.settle();
        let bank = spot.bank();
        self.count_to(edge);
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let new = New { id, spot, at, edge, underfills, waiting, found: Found::Open };
        let slot = queue.push(new).ok_or(Full)?;
        let mut wake = queue.deadline();
        // The first read, and the first write that may go, can change which queue is served.
        let mut turn = if WRITES { queue.ready() == 1 } else { queue.len() == 1 };
        self.work += 1;
        self.refresh.queued(bank);
        // Edges before the arrival are over.
        self.looked = self.looked.max(edge);
        let draining = self.draining;
        self.renew_turn();
        turn |= self.draining != draining;
        if turn {
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            queue.mark_stale(bank);
            self.renew_picks(edge);
            wake = edge;
        } else if self.writes_turn == WRITES {
            let open = self.device.row_of(bank);
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            if !waiting && queue.pick_youngest(slot, spot, open) {
                wake = wake.min(self.arm::<WRITES>(bank, edge));
            }
        } else {
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            queue.mark_stale(bank);
        }
        self.wake = self.wake.min(wake.max(edge).max(self.device.bus()));
        Ok(slot)
    }

    /// Puts a bank's pick among those that may go, or on the wheel if the bank is not ready yet. Gives a lower bound of the
    /// edge at which it may go.
    #[inline]
    fn arm<const WRITES: bool>(&mut self, bank: Bank, now: u64) -> u64 {
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let (pick, want) = queue.pick(bank);
        if pick == NIL || self.refresh.holds(bank) {
            return NEVER;
        }
        let (ready, gate) = (self.device.ready(want, bank), self.device.gate(WRITES, want, bank));
        let earliest = ready.max(gate);
        if ready <= now {
            queue.arm(bank, earliest);
        } else {
            // Gates only ever rise: nobody need look at it before.
            queue.wheel.put(bank, earliest, now);
        }
        earliest
    }

    /// Brings the picks of the queue that is served up to date. It is so whenever an edge or an arrival is over.
    #[inline]
    fn renew_picks(&mut self, now: u64) {
        if self.writes_turn {
            self.renew_picks_of::<true>(now);
        } else {
            self.renew_picks_of::<false>(now);
        }
    }

    #[inline]
    fn renew_picks_of<const WRITES: bool>(&mut self, now: u64) {
        let queue = if WRITES { &self.writes } else { &self.reads };
        if queue.any_stale() {
            self.choose_stale::<WRITES>(now);
        }
    }

    #[inline(never)]
    fn choose_stale<const WRITES: bool>(&mut self, now: u64) {
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let stale = queue.take_stale();
        // What goes on the wheel must not find it behind the time.
        self.turn_wheel::<WRITES>(now, stale);
        for (rank, &mask) in stale.iter().enumerate() {
            for bank in Refresh::banks(rank, mask) {
                let open = self.device.row_of(bank);
                let queue = if WRITES { &mut self.writes } else { &mut self.reads };
                queue.choose(bank, open);
                self.arm::<WRITES>(bank, now);
            }
        }
    }

    /// After the refresh of a bank: its picks go on the wheels until the bank is ready for what they want.
    #[inline]
    fn rearm(&mut self, bank: Bank, now: u64) {
        if self.reads.unarmed(bank) {
            self.arm::<false>(bank, now);
        }
        if self.writes.unarmed(bank) {
            self.arm::<true>(bank, now);
        }
    }

    /// Arms the picks of a queue's banks whose time has come, but for those of some banks. Only of the queue that is served need
    /// that be done in time.
    #[inline]
    fn turn_wheel<const WRITES: bool>(&mut self, now: u64, but: [u32; RANKS]) {
        loop {
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            if queue.wheel.next() > now {
                break;
            }
            let masks = queue.wheel.take();
            let two = |rank: usize| u64::from(but[rank]) | u64::from(but[rank + 1]) << 32;
            for (first, mut mask) in [(0, masks[0] & !two(0)), (64, masks[1] & !two(2))] {
                while mask != 0 {
                    let bank = Bank(first + mask.trailing_zeros() as u8);
                    mask &= mask - 1;
                    let queue = if WRITES { &self.writes } else { &self.reads };
                    if queue.unarmed(bank) {
                        self.arm::<WRITES>(bank, now);
                    }
                }
            }
        }
    }

    /// What the lengths of the queues say about whose turn it is, after any of them has changed.
    #[inline]
    fn renew_turn(&mut self) {
        let ready = self.writes.ready();
        if ready >= self.spec.write_high {
            self.draining = true;
        } else if ready <= self.spec.write_low {
            self.draining = false;
        }
        // Both sides are worked out: the host would often foresee the first one's outcome wrongly.
        self.writes_turn = (ready > 0) & (self.draining | self.reads.is_empty());
    }

    /// The next edge at which anything can change: a command, or the arrival of read data.
    #[inline]
    pub(super) fn next_edge(&self) -> u64 {
        let next = self.wake.min(self.flight_due).min(self.underfill_due);
        if self.every_edge { self.edge_after(next) } else { next }
    }
    #[cold]
    fn edge_after(&self, next: u64) -> u64 {
        if next == NEVER { NEVER } else { next.min(self.looked + 1) }
    }

    /// Issues every command up to and including the edge `to`, and hands out the reads whose data has come by then, in
    /// order.
    #[inline]
    pub(super) fn run(&mut self, to: u64, out: &mut impl FnMut(Completion)) {
        if self.every_edge {
            self.tick(to);
        } else {
            self.step(to, out);
        }
        self.deliver(to, out);
    }

    #[cold]
    fn tick(&mut self, to: u64) {
        self.skip_idle(to, IDLE_ROUNDS_SHOWN);
        for edge in self.looked..=to {
            self.land_underfills(edge);
            self.look(edge);
        }
        self.looked = self.looked.max(to);
    }

    /// As [`Subchannel::run`], but only until a request finds room. Gives the edge up to which it has run, that of the
    /// command that made room; None if there is room already.
    ///
    /// # Errors
    /// Nothing moves.
    #[inline]
    pub(super) fn run_until_room(
        &mut self,
        kind: Kind,
        spot: Spot,
        out: &mut impl FnMut(Completion),
    ) -> Result<Option<u64>, Wait> {
        if self.has_room(kind, spot) {
            return Ok(None);
        }
        self.settle();
        let (as_read, as_write) = (kind != Kind::Write, kind != Kind::Read);
        let mut wake = self.wake;
        loop {
            let edge = self.change_by(wake);
            if edge.saturating_sub(self.progress) > u64::from(self.spec.watchdog) {
                self.check_progress(edge)?;
            }
            if self.every_edge {
                self.tick(edge);
                self.deliver(edge, out);
                wake = self.wake;
            } else {
                self.land_underfills(edge);
                wake = self.look(edge);
            }
            // What is queued for the line stays the same, but for a write that its underfill data makes whole.
            let room = (!as_read | self.reads.has_room()) & (!as_write | self.writes.has_room());
            if room || self.underfilled == edge && self.has_room(kind, spot) {
                self.deliver(edge, out);
                return Ok(Some(edge));
            }
        }
    }

    /// As [`Subchannel::run`], up to and including the edge `limit` or the first completion. Gives the edge.
    ///
    /// # Errors
    /// Nothing moves.
    #[inline]
    pub(super) fn run_to_completion(
        &mut self,
        limit: u64,
        out: &mut impl FnMut(Completion),
    ) -> Result<u64, Wait> {
        let mut edge = 0;
        loop {
            let next = self.next_change();
            if next > limit.min(self.flight_due) {
                break;
            }
            if next.saturating_sub(self.progress) > u64::from(self.spec.watchdog) {
                self.check_progress(next)?;
            }
            edge = next;
            if self.every_edge {
                self.tick(next);
            } else if let Some(last) = self.serve_lone(limit, out) {
                edge = last;
            } else {
                self.settle();
                self.land_underfills(next);
                self.look(next);
            }
            if self.work == 0 {
                return Ok(edge);
            }
        }
        if self.flight_due <= limit {
            edge = self.flight_due;
            self.deliver(edge, out);
        }
        Ok(edge)
    }

    /// The next edge at which the state can change: read data that nobody in here waits for does not count.
    #[inline]
    fn next_change(&self) -> u64 {
        self.change_by(self.wake)
    }
    /// The same, `wake` being known. A branch that is foreseen: the host need not wait for the comparison.
    #[inline]
    fn change_by(&self, wake: u64) -> u64 {
        if self.underfill_due < wake { self.underfilled_first() } else { wake }
    }
    #[cold]
    #[inline(never)]
    fn underfilled_first(&self) -> u64 {
        self.underfill_due
    }

    #[inline]
    fn step(&mut self, to: u64, out: &mut impl FnMut(Completion)) {
        let mut edge = self.next_change();
        while edge <= to {
            if self.lone.is_some() {
                if self.serve_lone(to, out).is_some() {
                    edge = self.next_change();
                    continue;
                }
                self.settle();
            }
            if to - edge > self.idle_clocks {
                let rounds = if self.recorder.is_some() { IDLE_ROUNDS_SHOWN } else { IDLE_ROUNDS };
                self.skip_idle(to, rounds);
                edge = self.next_change();
            }
            self.land_underfills(edge);
            let wake = self.look(edge);
            edge = self.change_by(wake);
        }
    }

    /// A read comes to an idle subchannel: it stays beside the queues while it is alone.
    #[inline]
    fn enter_lone(&mut self, id: u64, spot: Spot, at: Ps, edge: u64) {
        self.stats.reads += 1;
        self.work = 1;
        // Nothing was queued until now.
        (self.counted, self.progress) = (edge, edge);
        self.looked = self.looked.max(edge);
        // Whoever is still on the wheels is not wanted any more.
        self.reads.wheel.clear();
        self.writes.wheel.clear();
        let (first, act, column) = self.device.read_edges(spot.bank(), spot.row, edge);
        let deadline = edge + u64::from(self.spec.read_age);
        self.wake = first.min(self.refresh.wake).min(deadline).max(self.device.bus());
        let found = Found::Open;
        self.lone = Some(Lone { id, spot, at, edge, found, first, act, column, deadline });
    }

    /// A lone read takes its place in the read queue: from now on there is something to choose.
    #[inline]
    fn settle(&mut self) {
        if self.lone.is_some() {
            self.settle_now();
        }
    }

    #[inline(never)]
    fn settle_now(&mut self) {
        let Some(Lone { id, spot, at, edge, found, .. }) = self.lone.take() else { return };
        let bank = spot.bank();
        self.refresh.queued(bank);
        // There is room: the queue is empty.
        let new = New { id, spot, at, edge, underfills: NIL, waiting: false, found };
        if let Some(slot) = self.reads.push(new) {
            let open = self.device.row_of(bank);
            self.renew_turn();
            self.reads.pick_youngest(slot, spot, open);
            self.arm::<false>(bank, self.progress);
        }
    }

    /// The short path of a read that is all there is to do: the edges of its commands follow from those of its bank, and
    /// nothing has to be chosen. Issues those that go by the edge `to` and before a refresh or the age bound comes up, and
    /// hands the data out if it comes by then too. Gives the last edge of that; None if nothing was done. What is left behind
    /// is what [`Subchannel::look`] would leave, but for banks on the wheels that nobody wants any more.
    #[inline]
    fn serve_lone(&mut self, to: u64, out: &mut impl FnMut(Completion)) -> Option<u64> {
        let lone = self.lone.as_mut()?;
        let Lone { id, spot, at, edge: arrived, mut found, first, act, column, deadline } = *lone;
        let end = self.refresh.wake.min(deadline).min(to.saturating_add(1));
        if first >= end || column.saturating_sub(self.progress) > u64::from(self.spec.watchdog) {
            return None;
        }
        self.looks += 1;
        let (bank, row) = (spot.bank(), spot.row);
        if first != column {
            if first != act {
                found = Found::Other;
                (lone.found, lone.first) = (found, act);
                self.stats.pres += 1;
                let open = self.device.row_of(bank).unwrap_or(0);
                self.device.apply_pre(bank, first);
                self.record(Command::Pre, bank, open, 0, first);
                if act >= end {
                    return Some(self.pause_lone(first, act.min(deadline)));
                }
            }
            let lone = self.lone.as_mut()?;
            found = if found == Found::Open { Found::Closed } else { found };
            (lone.found, lone.first) = (found, column);
            self.stats.acts += 1;
            self.device.apply_act(bank, row, act);
            self.record(Command::Act, bank, row, 0, act);
            if column >= end {
                return Some(self.pause_lone(act, column.min(deadline)));
            }
        }
        self.lone = None;
        self.count_column::<false>(found, arrived, column);
        let wait = column - arrived;
        self.counted = column;
        self.stats.queued_clocks += wait;
        self.stats.read_queue_clocks += wait;
        let auto =
            self.spec.page_policy == PagePolicy::Closed && self.device.auto_read(bank) <= column;
        if auto {
            self.stats.rdas += 1;
            self.device.apply_column(false, true, bank, column);
            self.record(Command::Rda, bank, row, spot.column(), column);
        } else {
            self.stats.rds += 1;
            self.device.apply_column(false, false, bank, column);
            self.record(Command::Rd, bank, row, spot.column(), column);
        }
        self.wake = self.refresh.wake.max(self.device.bus());
        let flight = Flight { due: column + self.read_clocks, id, at };
        if flight.due <= to && flight.due < self.wake {
            self.hand_out(flight, out);
            return Some(flight.due);
        }
        self.flight_due = flight.due;
        self.flight.push(flight);
        Some(column)
    }

    /// A lone read has come as far as a command at `edge`, and nothing goes before `next`. Gives the former.
    #[inline]
    fn pause_lone(&mut self, edge: u64, next: u64) -> u64 {
        self.progress = edge;
        self.wake = next.min(self.refresh.wake).max(self.device.bus());
        edge
    }

    /// If it is idle for more than so many rounds of refreshes: skips all but the last ones.
    #[cold]
    fn skip_idle(&mut self, to: u64, rounds: u64) {
        let edge = self.refresh.wake;
        if !self.reads.is_empty()
            || !self.writes.is_empty()
            || to.saturating_sub(edge) <= self.refresh.rounds(rounds)
        {
            return;
        }
        let skipped = self.refresh.skip(&self.device, edge, to);
        match self.spec.refresh {
            RefreshMode::SameBank => self.stats.refresh_same += skipped,
            RefreshMode::AllBank | RefreshMode::Off => self.stats.refresh_all += skipped,
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.lost += skipped;
        }
        if skipped > 0 {
            self.wake = self.refresh.wake;
            self.looked = self.looked.max(self.wake.saturating_sub(1));
        }
    }

    /// Hands out the read data that has come by an edge.
    #[inline]
    fn deliver(&mut self, to: u64, out: &mut impl FnMut(Completion)) {
        if self.flight_due <= to {
            self.deliver_now(to, out);
        }
    }

    fn deliver_now(&mut self, to: u64, out: &mut impl FnMut(Completion)) {
        while self.flight_due <= to {
            let Some(flight) = self.flight.pop() else { break };
            self.flight_due = self.flight.front().map_or(NEVER, |f| f.due);
            self.hand_out(flight, out);
        }
    }

    #[inline(always)]
    fn hand_out(&mut self, flight: Flight, out: &mut impl FnMut(Completion)) {
        let Flight { due, id, at } = flight;
        self.work -= 1;
        let done = self.spec.timing.moment(due);
        self.delivered(done.since(at));
        out(Completion { id, at: done, arrived: at, kind: Kind::Read });
    }

    /// Underfill data that has come makes its write ready.
    #[inline]
    fn land_underfills(&mut self, to: u64) {
        if self.underfill_due <= to {
            self.land_underfills_now(to);
        }
    }

    #[inline(never)]
    fn land_underfills_now(&mut self, to: u64) {
        while self.underfill_due <= to {
            let Some(Underfill { due, slot }) = self.underfills.pop() else { break };
            self.underfill_due = self.underfills.front().map_or(NEVER, |u| u.due);
            self.underfilled = due;
            self.work -= 1;
            self.stats.underfills_done += 1;
            let bank = self.writes.entry(slot).bank;
            self.writes.make_ready(slot, due);
            self.writes.mark_stale(bank);
            self.renew_turn();
            self.renew_picks(due);
            self.wake = self.wake.min(due.max(self.device.bus()));
        }
    }

    /// Issues what is to be issued at an edge, and finds the next edge to look at. All earlier edges are over.
    #[inline]
    fn look(&mut self, edge: u64) -> u64 {
        self.looks += 1;
        if edge < self.device.bus() {
            return self.wakes(self.wake.max(self.device.bus()));
        }
        if self.next_duty() <= edge && self.do_duty(edge) {
            return self.wake;
        }
        if self.writes_turn { self.serve::<true>(edge) } else { self.serve::<false>(edge) }
    }

    /// Notes and gives the edge before which no command is issued.
    #[inline]
    fn wakes(&mut self, edge: u64) -> u64 {
        self.wake = edge;
        edge
    }

    /// When a refresh or the age of an entry may matter.
    #[inline]
    fn next_duty(&self) -> u64 {
        self.refresh.wake.min(self.reads.deadline().min(self.writes.deadline()))
    }

    /// What goes before the choice of the queues: refreshes, then what is overdue. False if there is no such thing.
    #[inline(never)]
    fn do_duty(&mut self, edge: u64) -> bool {
        if self.refresh.wake <= edge && self.look_at_refresh(edge) {
            return true;
        }
        if self.reads.deadline().min(self.writes.deadline()) > edge {
            return false;
        }
        let overdue = self.reads.renew_deadline().min(self.writes.renew_deadline()) <= edge;
        if overdue {
            // Either may be served.
            self.renew_picks_of::<false>(edge);
            self.renew_picks_of::<true>(edge);
            self.turn_wheel::<false>(edge, [0; RANKS]);
            self.turn_wheel::<true>(edge, [0; RANKS]);
            self.look_overdue(edge);
        }
        overdue
    }

    /// Issues the best command of a queue, and finds the next edge to look at.
    #[inline]
    fn serve<const WRITES: bool>(&mut self, edge: u64) -> u64 {
        self.turn_wheel::<WRITES>(edge, [0; RANKS]);
        let queue = if WRITES { &self.writes } else { &self.reads };
        let device = &self.device;
        let [mut column, mut row, mut close] = queue.soonest();
        if column <= edge {
            column = NEVER;
            let slot = queue.oldest_armed(Want::Column, |bank| {
                let ready = device.gate(WRITES, Want::Column, bank);
                column = column.min(ready);
                ready <= edge
            });
            if slot != NIL {
                return self.issue_column::<WRITES>(slot, edge);
            }
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            queue.set_soonest(Want::Column, column);
        }
        let queue = if WRITES { &self.writes } else { &self.reads };
        if row <= edge {
            row = NEVER;
            let refresh = &self.refresh;
            let slot = queue.oldest_armed(Want::Row, |bank| {
                if refresh.holds_acts(bank.rank()) {
                    // Until its refresh is out, which makes the scheduler look again.
                    row = row.min(edge + 1);
                    return false;
                }
                let ready = device.gate(WRITES, Want::Row, bank);
                row = row.min(ready);
                ready <= edge
            });
            if slot != NIL {
                return self.issue_act::<WRITES>(slot, edge);
            }
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            queue.set_soonest(Want::Row, row);
        }
        let queue = if WRITES { &self.writes } else { &self.reads };
        if close <= edge {
            close = NEVER;
            let slot = queue.oldest_armed(Want::Close, |bank| {
                let ready = device.gate(WRITES, Want::Close, bank);
                close = close.min(ready);
                ready <= edge
            });
            if slot != NIL {
                return self.issue_pre::<WRITES>(slot, edge);
            }
            let queue = if WRITES { &mut self.writes } else { &mut self.reads };
            queue.set_soonest(Want::Close, close);
        }
        let queue = if WRITES { &self.writes } else { &self.reads };
        let next = queue.wheel.next().min(self.next_duty());
        self.wakes(next.min(column).min(row).min(close))
    }

    /// After a command on behalf of a queue: the gates of what it was have risen, and the next edge to look at follows.
    #[inline]
    fn issued<const WRITES: bool>(&mut self, want: Want, edge: u64) -> u64 {
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let mut soonest = NEVER;
        let mut rank = 0;
        while rank < self.ranks {
            let gate = self.device.gate_of_rank(WRITES, want, rank);
            soonest = if queue.any_armed(want, rank) { soonest.min(gate) } else { soonest };
            rank += 1;
        }
        queue.set_soonest(want, soonest);
        if self.writes_turn == WRITES && !queue.any_stale() {
            // As [`Subchannel::bound`]. The host learns `soonest` last, and waits for nothing else then.
            let rest = queue.soonest_but(want).min(queue.wheel.next());
            let rest = rest.min(self.next_duty());
            return self.wakes(rest.min(soonest).max(self.device.bus()));
        }
        self.renew_picks(edge);
        self.wakes(self.bound())
    }

    /// A lower bound of the next edge at which a command is issued, after one was.
    #[inline]
    fn bound(&self) -> u64 {
        let queue = if self.writes_turn { &self.writes } else { &self.reads };
        let [column, row, close] = queue.soonest();
        let next = queue.wheel.next().min(self.next_duty());
        next.min(column).min(row).min(close).max(self.device.bus())
    }

    /// What an overdue entry needs next or, if that cannot go, a command of another kind in another bank.
    #[cold]
    fn look_overdue(&mut self, edge: u64) {
        let writes = self.writes.deadline() < self.reads.deadline();
        let queue = if writes { &self.writes } else { &self.reads };
        let slot = queue.oldest();
        let Entry { bank: own_bank, row, .. } = *queue.entry(slot);
        let own = match self.device.row_of(own_bank) {
            None => Want::Row,
            Some(open) if open == row => Want::Column,
            Some(_) => Want::Close,
        };
        let command = |want| match want {
            Want::Column if writes => Command::Wr,
            Want::Column => Command::Rd,
            Want::Row => Command::Act,
            Want::Close => Command::Pre,
        };
        let held = |want, bank: Bank| {
            self.refresh.holds(bank) || want == Want::Row && self.refresh.holds_acts(bank.rank())
        };
        let wheels = self.reads.wheel.next().min(self.writes.wheel.next());
        let mut next = wheels.min(self.refresh.wake);
        let mut found = None;
        if !held(own, own_bank) {
            let earliest = self.device.earliest(command(own), own_bank);
            if earliest <= edge {
                found = Some((own, slot));
            } else {
                next = next.min(earliest);
            }
        }
        for want in [Want::Column, Want::Row, Want::Close] {
            if found.is_some() || want == own {
                continue;
            }
            let slot = queue.oldest_armed(want, |bank| {
                if bank == own_bank || held(want, bank) {
                    return false;
                }
                let earliest = self.device.earliest(command(want), bank);
                if earliest > edge {
                    next = next.min(earliest);
                }
                earliest <= edge
            });
            if slot != NIL {
                found = Some((want, slot));
            }
        }
        let wake = match found {
            Some((Want::Column, slot)) if writes => self.issue_column::<true>(slot, edge),
            Some((Want::Column, slot)) => self.issue_column::<false>(slot, edge),
            Some((Want::Row, slot)) if writes => self.issue_act::<true>(slot, edge),
            Some((Want::Row, slot)) => self.issue_act::<false>(slot, edge),
            Some((Want::Close, slot)) if writes => self.issue_pre::<true>(slot, edge),
            Some((Want::Close, slot)) => self.issue_pre::<false>(slot, edge),
            None => next,
        };
        self.wakes(wake);
    }

    /// Begins and continues refreshes. Says whether a command was issued.
    #[inline(never)]
    fn look_at_refresh(&mut self, edge: u64) -> bool {
        let geometry = self.device.geometry();
        // Of empty queues no bank wants anything.
        let queued = |banks, sub: &Self| {
            if sub.reads.is_empty() && sub.writes.is_empty() { 0 } else { banks }
        };
        while let Some((rank, banks)) = self.refresh.begin(&geometry, edge) {
            for bank in Refresh::banks(rank, queued(banks, self)) {
                self.reads.disarm(bank);
                self.writes.disarm(bank);
            }
        }
        let Some((command, bank)) = self.refresh.next(&self.device, edge) else { return false };
        let row = self.device.row_of(bank).unwrap_or(0);
        self.device.apply(command, bank, row, edge);
        match command {
            Command::PreAb | Command::Pre => {
                let closed = match command {
                    Command::Pre => bank.bit(),
                    _ => geometry.all_banks(),
                };
                if command == Command::Pre {
                    self.stats.pres += 1;
                } else {
                    self.stats.pre_alls += 1;
                }
                for bank in Refresh::banks(bank.rank(), queued(closed, self)) {
                    for queue in [&mut self.reads, &mut self.writes] {
                        if queue.has_entries(bank) {
                            queue.choose(bank, None);
                        }
                    }
                }
            }
            _ => {
                if command == Command::RefSb {
                    self.stats.refresh_same += 1;
                } else {
                    self.stats.refresh_all += 1;
                }
                let banks = self.refresh.done(bank.rank());
                for bank in Refresh::banks(bank.rank(), queued(banks, self)) {
                    self.rearm(bank, edge);
                }
            }
        }
        // Whatever else is under way is looked at when the bus is free.
        self.refresh.wake = self.device.bus();
        self.wake = self.device.bus();
        self.record(command, bank, row, 0, edge);
        true
    }

    // One copy of each `issue_` per queue: a second one, and reads and writes at random no longer fit the host's first-level
    // instruction cache.
    #[inline(never)]
    fn issue_act<const WRITES: bool>(&mut self, slot: u16, edge: u64) -> u64 {
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let entry = queue.entry_mut(slot);
        let Entry { bank, row, .. } = *entry;
        entry.found = if entry.found == Found::Open { Found::Closed } else { entry.found };
        self.stats.acts += 1;
        self.progress = edge;
        self.device.apply_act(bank, row, edge);
        // The pick is the oldest of the bank, and so the oldest that hits its row; an overdue entry need not be the pick.
        if queue.pick(bank).0 == slot {
            queue.want(bank, Want::Column);
            // What [`Subchannel::arm`] would do: tRCD has only begun.
            let ready = self.device.ready(Want::Column, bank);
            let gate = self.device.gate(WRITES, Want::Column, bank);
            queue.wheel.put(bank, ready.max(gate), edge);
        } else {
            queue.choose(bank, Some(row));
            self.arm::<WRITES>(bank, edge);
        }
        let other = if WRITES { &mut self.reads } else { &mut self.writes };
        other.mark_stale(bank);
        self.record(Command::Act, bank, row, 0, edge);
        self.issued::<WRITES>(Want::Row, edge)
    }

    #[inline(never)]
    fn issue_pre<const WRITES: bool>(&mut self, slot: u16, edge: u64) -> u64 {
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let entry = queue.entry_mut(slot);
        entry.found = Found::Other;
        let bank = entry.bank;
        self.stats.pres += 1;
        self.progress = edge;
        if self.recorder.is_some() {
            let row = self.device.row_of(bank).unwrap_or(0);
            self.record(Command::Pre, bank, row, 0, edge);
        }
        self.device.apply_pre(bank, edge);
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        let (pick, want) = queue.pick(bank);
        if pick != NIL && want == Want::Close {
            // The oldest of the bank, as before.
            queue.want(bank, Want::Row);
        } else if pick != NIL {
            queue.choose(bank, None);
        }
        self.arm::<WRITES>(bank, edge);
        let other = if WRITES { &mut self.reads } else { &mut self.writes };
        other.mark_stale(bank);
        self.issued::<WRITES>(Want::Close, edge)
    }

    #[inline(never)]
    fn issue_column<const WRITES: bool>(&mut self, slot: u16, edge: u64) -> u64 {
        self.count_to(edge);
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        // In a stream of row hits the next of the bank takes the place of this one.
        let passed_on = queue.pass_on(slot);
        if !passed_on {
            queue.remove(slot);
        }
        // The slot is free, but nobody has taken it yet.
        let entry = *queue.entry(slot);
        let Entry { bank, row, .. } = entry;
        self.count_column::<WRITES>(entry.found, entry.edge, edge);
        self.refresh.left(bank, edge);
        self.renew_turn();
        if WRITES {
            self.work -= 1;
        } else {
            let due = edge + self.read_clocks;
            if entry.underfills == NIL {
                self.flight_due = self.flight_due.min(due);
                self.flight.push(Flight { due, id: entry.id, at: entry.at });
            } else {
                self.underfill_due = self.underfill_due.min(due);
                self.underfills.push(Underfill { due, slot: entry.underfills });
            }
        }
        let auto = !passed_on
            && self.spec.page_policy != PagePolicy::Open
            && self.closes_behind(bank, row)
            && (WRITES || self.device.auto_read(bank) <= edge);
        self.device.apply_column(WRITES, auto, bank, edge);
        let queue = if WRITES { &mut self.writes } else { &mut self.reads };
        if auto {
            self.stats.wras += u64::from(WRITES);
            self.stats.rdas += u64::from(!WRITES);
            if queue.has_entries(bank) {
                queue.choose(bank, None);
                self.arm::<WRITES>(bank, edge);
            }
        } else {
            self.stats.wrs += u64::from(WRITES);
            self.stats.rds += u64::from(!WRITES);
            if !passed_on && queue.has_entries(bank) {
                queue.choose(bank, Some(row));
                self.arm::<WRITES>(bank, edge);
            }
        }
        // Of the other queue, if the row stays open, PRE must wait longer now.
        let other = if WRITES { &mut self.reads } else { &mut self.writes };
        other.mark_stale(bank);
        if self.recorder.is_some() {
            let command = match (WRITES, auto) {
                (false, false) => Command::Rd,
                (false, true) => Command::Rda,
                (true, false) => Command::Wr,
                (true, true) => Command::Wra,
            };
            self.record(command, bank, row, entry.column, edge);
        }
        self.issued::<WRITES>(Want::Column, edge)
    }

    /// Accounts for a column command, whichever, and for the end of its entry's wait.
    #[inline(always)]
    fn count_column<const WRITES: bool>(&mut self, found: Found, arrived: u64, edge: u64) {
        // What the host cannot foresee is added rather than branched on.
        self.stats.row_hits += u64::from(found == Found::Open);
        self.stats.row_misses += u64::from(found == Found::Closed);
        self.stats.row_conflicts += u64::from(found == Found::Other);
        self.stats.bus_busy.0 += self.burst;
        self.progress = edge;
        let wait = edge - arrived;
        if WRITES {
            self.stats.write_queue_wait += wait;
        } else {
            self.stats.read_queue_wait += wait;
        }
        self.stats.turnarounds += u64::from(WRITES != self.wrote_last);
        self.wrote_last = WRITES;
    }

    /// Whether a column command to a row carries auto-precharge, its own entry no longer being queued.
    fn closes_behind(&self, bank: Bank, row: u64) -> bool {
        if self.reads.hits(bank, row) || self.writes.hits(bank, row) {
            return false;
        }
        match self.spec.page_policy {
            PagePolicy::Open => false,
            PagePolicy::Closed => true,
            // No entry hits, so every entry of the bank is for another row.
            PagePolicy::Adaptive => self.reads.has_entries(bank) || self.writes.has_entries(bank),
        }
    }

    #[inline]
    fn record(&mut self, command: Command, bank: Bank, row: u64, column: u16, edge: u64) {
        if self.recorder.is_some() {
            self.record_now(command, bank, row, column, edge);
        }
    }

    #[cold]
    fn record_now(&mut self, command: Command, bank: Bank, row: u64, column: u16, edge: u64) {
        let place = self.place(bank, row, column);
        let Some(recorder) = &mut self.recorder else { return };
        if recorder.commands.len() >= RECORDED_COMMANDS {
            recorder.lost += 1;
            return;
        }
        let place = match command {
            Command::PreAb | Command::RefAb | Command::RefSb => {
                let bank = if command == Command::RefSb { place.bank } else { 0 };
                Place { bank_group: 0, bank, row: 0, column: 0, ..place }
            }
            _ => place,
        };
        let at = self.spec.timing.moment(edge);
        recorder.commands.push(CommandRecord { at, package: self.package, command, place });
    }

    fn place(&self, bank: Bank, row: u64, column: u16) -> Place {
        let (bank_group, in_group) = self.device.geometry().split(bank);
        Place {
            channel: self.channel,
            subchannel: self.subchannel,
            rank: bank.rank() as u8,
            bank_group,
            bank: in_group,
            row,
            column,
        }
    }

    /// What the oldest request waits for at a moment. None if nothing is queued.
    pub fn why_blocked(&self, at: Ps) -> Option<Wait> {
        let oldest = |queue: &Queue| queue.entries().min_by_key(|e| e.edge).copied();
        let (read, write) = (
            self.lone
                .map(|lone| Entry::new(lone.id, lone.spot, lone.at, lone.edge))
                .or_else(|| oldest(&self.reads)),
            oldest(&self.writes),
        );
        let (entry, writes) = match (read, write) {
            (Some(read), Some(write)) if write.edge < read.edge => (write, true),
            (Some(read), _) => (read, false),
            (None, write) => (write?, true),
        };
        let place = self.place(entry.bank, entry.row, entry.column);
        let command = match self.device.row_of(entry.bank) {
            None => Command::Act,
            Some(open) if open == entry.row && writes => Command::Wr,
            Some(open) if open == entry.row => Command::Rd,
            Some(_) => Command::Pre,
        };
        let edge = self.spec.timing.moment(self.spec.timing.edge_from(at));
        let reason = if self.refresh.holds(entry.bank) {
            Reason::Refresh
        } else if entry.waiting {
            Reason::Underfill
        } else {
            match self.device.probe(command, &place, edge) {
                Err(blocked) => Reason::Blocked(blocked),
                Ok(()) => Reason::Turn,
            }
        };
        let package = self.package;
        Some(Wait { package, place, write: writes, since: entry.at, command, reason })
    }

    /// Whether requests are served, as seen from an edge: none is queued, or one was served in the last
    /// [`SubchannelSpec::watchdog`] clocks.
    ///
    /// # Errors
    /// What the oldest request waits for.
    pub(super) fn check_progress(&self, edge: u64) -> Result<(), Wait> {
        if self.reads.is_empty() && self.writes.is_empty() && self.lone.is_none()
            || edge.saturating_sub(self.progress) <= u64::from(self.spec.watchdog)
        {
            return Ok(());
        }
        let last = self.spec.timing.moment(self.progress);
        self.why_blocked(last).map_or(Ok(()), Err)
    }

    /// What a request for a place waits for if nothing more is known.
    pub(super) fn stuck(&self, spot: Spot) -> Wait {
        let last = self.spec.timing.moment(self.progress);
        self.why_blocked(last).unwrap_or(Wait {
            package: self.package,
            place: self.place(spot.bank(), spot.row, spot.column()),
            write: false,
            since: Ps::ZERO,
            command: Command::Act,
            reason: Reason::Blocked(Blocked::Place),
        })
    }

    /// Checks that every request is done, queued or on its way, by the rules of [`stats::CONSERVATION_RULES`].
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check_conservation(&self) -> Result<(), Imbalance> {
        stats::check(&self.stats, &self.in_flight())
    }

    /// The banks' wishes, as kept and as worked out anew.
    #[cfg(test)]
    pub(super) fn wishes(&self) -> [impl PartialEq + std::fmt::Debug + use<>; 2] {
        let mut kept = self.clone();
        // Only while a queue is not served need its picks not be up to date.
        if self.writes_turn {
            kept.renew_picks_of::<false>(self.looked);
        } else {
            kept.renew_picks_of::<true>(self.looked);
        }
        let mut copy = self.clone();
        for rank in 0..self.device.geometry().ranks {
            for index in 0..32 {
                let bank = Bank::new(rank, index);
                let open = self.device.row_of(bank);
                copy.reads.choose(bank, open);
                copy.writes.choose(bank, open);
            }
        }
        [&kept, &copy].map(|s| (s.reads.wishes(), s.writes.wishes()))
    }
}
