//! The controller of one 32-bit subchannel: queues, write drain and the FR-FCFS scheduler.
//!
//! **Order of service.** Reads come first; writes are served when no read is queued, or while the write queue is being
//! drained from its high to its low watermark. Of the commands that the queue being served could use, the one that is
//! legal earliest is issued; among those legal at the same edge RD and WR come before ACT, ACT before PRE, and older
//! before younger. A row is not closed while a ready entry of the queue being served hits it.
//!
//! **Age bound.** A read older than [`SubchannelSpec::read_age`], or a write older than
//! [`SubchannelSpec::write_age`], is overdue. Of the overdue, the one whose time ran out first decides which queue is
//! served; its bank works for it alone, it wins ties, and no other entry issues a command of the kind that it needs next
//! (else another rank's hits could hold it up for ever). This bounds every wait (verification.md §2.11 Q16).
//!
//! **Skipping.** Between two commands the state cannot change but by an arrival or by returning underfill data. `wake` is
//! a lower bound of the next edge at which a command is issued; the scheduler looks at that edge and at no other. Which
//! banks could go is kept in masks; under test every decision is compared with a plain scan of all banks.

use super::constraint::Command;
use super::device::{Bank, Blocked, Device, Geometry};
use super::map::Place;
use super::queue::{Entry, Found, NIL, Queue, Want, bits};
use super::stats::{DramStats, Imbalance};
use super::timing::{Parameter, Timing};
use super::{Completion, Full, Kind, SpecError};
use serde::{Deserialize, Serialize};
use sim_core::Ps;
use sim_core::platform::{DramSpec, PagePolicy};
use std::collections::VecDeque;

/// The edge of what never happens.
pub(super) const NEVER: u64 = u64::MAX;

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
        })
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
    /// Where: for ACT the row opened, for PRE the row closed (column 0 for both), for RD and WR the line.
    pub place: Place,
}

/// A decided command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Choice {
    command: Command,
    bank: Bank,
    /// On whose behalf; [`NIL`] for a PRE of the closed-page policy.
    slot: u16,
    /// Whose slot it is.
    writes: bool,
}

/// Read data on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Flight {
    due: u64,
    id: u64,
    at: Ps,
    underfills: u16,
}

/// A subchannel: its devices, queues and scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subchannel {
    spec: SubchannelSpec,
    package: u8,
    channel: u8,
    subchannel: u8,
    device: Device,
    reads: Queue,
    writes: Queue,
    draining: bool,
    /// What the last column command was.
    wrote_last: bool,
    /// No command is issued before this edge.
    wake: u64,
    /// What is issued at `wake`, unless something arrives. None: not decided yet.
    planned: Option<Choice>,
    /// The [`Best::key`] of `planned`.
    planned_key: u64,
    /// In order of `due`: RD commands go out in order and take the same time.
    flight: VecDeque<Flight>,
    /// Looks at every edge instead of at `wake` only.
    every_edge: bool,
    /// The last edge looked at in that mode.
    looked: u64,
    stats: DramStats,
    trace: Option<Vec<CommandRecord>>,
}

/// The smallest of (edge, rank among commands of the same edge, age), and what it stands for.
struct Best {
    key: u64,
    age: u64,
    choice: Option<Choice>,
}

impl Best {
    const NONE: Best = Best { key: NEVER, age: NEVER, choice: None };
    const fn edge(&self) -> u64 {
        self.key >> 2
    }
}

const CLOSE_IDLE: u64 = 3;

const fn command_of(want: Want, writes: bool) -> Command {
    match want {
        Want::Column if writes => Command::Wr,
        Want::Column => Command::Rd,
        Want::Row => Command::Act,
        Want::Close => Command::Pre,
    }
}

/// What an entry for `row` needs next.
fn wish(open: Option<u64>, row: u64) -> Want {
    match open {
        None => Want::Row,
        Some(open) if open == row => Want::Column,
        Some(_) => Want::Close,
    }
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
        let ranks = device.geometry().ranks;
        let t = &spec.timing;
        let bursts = (t.clocks(Parameter::Cl) / t.clocks(Parameter::CcdS).max(1)) as usize + 2;
        Subchannel {
            spec,
            package,
            channel,
            subchannel,
            device,
            reads: Queue::new(spec.read_queue.clamp(1, 256), ranks),
            writes: Queue::new(spec.write_queue.clamp(1, 256), ranks),
            draining: false,
            wrote_last: false,
            wake: NEVER,
            planned: None,
            planned_key: NEVER,
            flight: VecDeque::with_capacity(bursts.min(1024)),
            every_edge: false,
            looked: 0,
            stats: DramStats::default(),
            trace: None,
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
        (self.reads.len(), self.writes.len())
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
        self.every_edge = on;
    }
    /// Starts or stops recording commands; what has been recorded is dropped.
    pub(super) fn record_commands(&mut self, on: bool) {
        self.trace = on.then(Vec::new);
    }
    /// Moves the commands recorded so far to the end of `out`, in the order of issue.
    pub(super) fn take_commands(&mut self, out: &mut Vec<CommandRecord>) {
        if let Some(trace) = &mut self.trace {
            out.append(trace);
        }
    }

    /// Whether a request for a line would be taken now.
    pub(super) fn can_accept(&self, kind: Kind, place: &Place) -> bool {
        let Some(bank) = self.device.geometry().bank(place) else { return false };
        let (reads, writes) = (self.reads.has_room(), self.writes.has_room());
        let queued = || self.writes.find(bank, place.row, place.column);
        match kind {
            Kind::Read => reads || queued().is_some_and(|w| !w.waiting),
            Kind::Write => writes || queued().is_some(),
            Kind::PartialWrite => reads && writes || queued().is_some(),
        }
    }

    /// Takes a request that arrives at `at`; edges up to `at` must have been run. Says whether it is complete at once
    /// (posted, merged or forwarded); read data otherwise comes out of [`Subchannel::run`].
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub(super) fn enqueue(
        &mut self,
        id: u64,
        kind: Kind,
        place: &Place,
        at: Ps,
    ) -> Result<bool, Full> {
        let bank = self.device.geometry().bank(place).ok_or(Full)?;
        let edge = self.spec.timing.edge_from(at);
        let open = self.device.row_of(bank);
        let queued = self.writes.find(bank, place.row, place.column);
        let mut entry = Entry::new(id, bank, place.row, place.column, at);
        match kind {
            Kind::Read => {
                if queued.is_some_and(|w| !w.waiting) {
                    self.stats.reads += 1;
                    self.stats.forwarded += 1;
                    self.stats.reads_done += 1;
                    return Ok(true);
                }
                // A partial write whose underfill is still out has no whole line to forward: DRAM is read as well, and
                // the controller lays the queued bytes over the data.
                entry.deadline = edge + u64::from(self.spec.read_age);
                self.push(false, entry, open, edge)?;
                self.stats.reads += 1;
                Ok(false)
            }
            Kind::Write => {
                if queued.is_some() {
                    self.stats.merged += 1;
                } else {
                    entry.deadline = edge + u64::from(self.spec.write_age);
                    self.push(true, entry, open, edge)?;
                }
                self.stats.writes += 1;
                Ok(true)
            }
            Kind::PartialWrite => {
                if queued.is_some() {
                    self.stats.merged += 1;
                } else {
                    if !self.reads.has_room() {
                        return Err(Full);
                    }
                    entry.waiting = true;
                    let slot = self.push(true, entry, open, edge)?;
                    entry.waiting = false;
                    entry.deadline = edge + u64::from(self.spec.read_age);
                    entry.underfills = slot;
                    self.push(false, entry, open, edge)?;
                    self.stats.underfills += 1;
                }
                self.stats.partial_writes += 1;
                Ok(true)
            }
        }
    }

    /// Queues an entry and lowers `wake` to the earliest edge at which the entry can make a difference.
    fn push(
        &mut self,
        writes: bool,
        entry: Entry,
        open: Option<u64>,
        edge: u64,
    ) -> Result<u16, Full> {
        let before = self.serving_writes();
        let queue = if writes { &mut self.writes } else { &mut self.reads };
        let Entry { bank, row, .. } = entry;
        let slot = queue.push(entry, open).ok_or(Full)?;
        // Edges before the arrival are over.
        self.looked = self.looked.max(edge);
        let picked = queue.pick(bank) == slot;
        if picked {
            let ready = |want, bank| self.device.ready(command_of(want, writes), bank);
            queue.note(bank.rank, bank.bit(), ready);
        }
        self.update_draining();
        let after = self.serving_writes();
        // What is planned holds only while nothing becomes overdue, this entry included, and while the same queue is served.
        if after != before || self.first_deadline().2 <= self.wake {
            self.look_from(edge);
            return Ok(slot);
        }
        // Only this bank's wish may have changed, or whether its idle row should be closed.
        let stale = self.planned.is_some_and(|p| p.bank == bank);
        if stale && (picked && after == writes || self.spec.page_policy == PagePolicy::Closed) {
            self.planned = None;
        }
        if picked && after == writes {
            let want = wish(open, row);
            let command = command_of(want, writes);
            let edge = self.device.earliest(command, bank).max(edge);
            let key = edge << 2 | want as u64;
            if self.planned.is_none() {
                self.wake = self.wake.min(edge);
            } else if key < self.planned_key {
                // Younger than all others: it wins no tie.
                self.planned = Some(Choice { command, bank, slot, writes });
                (self.planned_key, self.wake) = (key, edge);
            }
        }
        Ok(slot)
    }

    /// Decide again, at `edge` or at `wake` if that is earlier.
    fn look_from(&mut self, edge: u64) {
        self.wake = self.wake.min(edge);
        self.planned = None;
    }

    fn update_draining(&mut self) {
        let ready = self.writes.ready();
        if ready >= self.spec.write_high {
            self.draining = true;
        } else if ready <= self.spec.write_low {
            self.draining = false;
        }
    }

    /// Whether writes are being served, overdue entries aside.
    fn serving_writes(&self) -> bool {
        self.writes.ready() > 0 && (self.draining || self.reads.is_empty())
    }

    /// The next edge at which anything can change: a command, or the arrival of read data.
    pub(super) fn next_edge(&self) -> u64 {
        let next = self.flight.front().map_or(self.wake, |f| f.due.min(self.wake));
        if self.every_edge && next != NEVER { next.min(self.looked + 1) } else { next }
    }

    /// Issues every command up to and including the edge `to`, and appends the reads whose data has come by then, in
    /// order.
    pub(super) fn run(&mut self, to: u64, out: &mut Vec<Completion>) {
        if self.every_edge {
            for edge in self.looked..=to {
                if self.next_edge() == NEVER {
                    break;
                }
                self.look_from(edge);
                self.run_skipping(edge, out);
            }
            self.looked = self.looked.max(to);
        } else {
            self.run_skipping(to, out);
        }
    }

    fn run_skipping(&mut self, to: u64, out: &mut Vec<Completion>) {
        loop {
            while let Some(&flight) = self.flight.front()
                && flight.due <= to.min(self.wake)
            {
                self.flight.pop_front();
                self.land(flight, out);
            }
            if self.wake > to {
                return;
            }
            let now = self.wake;
            if let Some(choice) = self.planned.take() {
                self.issue(choice, now);
                self.plan(now + 1);
            } else {
                self.plan(now);
            }
        }
    }

    /// Read data has come.
    fn land(&mut self, flight: Flight, out: &mut Vec<Completion>) {
        if flight.underfills == NIL {
            let at = self.spec.timing.moment(flight.due);
            let latency = at.since(flight.at);
            self.stats.reads_done += 1;
            self.stats.read_latency += latency;
            self.stats.read_latency_max = self.stats.read_latency_max.max(latency);
            out.push(Completion { id: flight.id, at, kind: Kind::Read });
            return;
        }
        self.stats.underfills_done += 1;
        let bank = self.writes.entry(flight.underfills).bank;
        let open = self.device.row_of(bank);
        let deadline = flight.due + u64::from(self.spec.write_age);
        self.writes.make_ready(flight.underfills, deadline, open);
        let ready = |want, bank| self.device.ready(command_of(want, true), bank);
        self.writes.note(bank.rank, bank.bit(), ready);
        self.update_draining();
        self.look_from(flight.due);
    }

    /// The overdue entry whose time ran out first, if any, and else when that will be: (queue, slot, edge).
    fn first_deadline(&self) -> (bool, u16, u64) {
        let read = self.reads.oldest().map_or(NEVER, |e| e.deadline);
        let write = self.writes.oldest().map_or(NEVER, |e| e.deadline);
        if write < read {
            (true, self.writes.oldest_slot(), write)
        } else {
            (false, self.reads.oldest_slot(), read)
        }
    }

    /// Decides which command goes out next, at `floor` or later, and when.
    fn plan(&mut self, floor: u64) {
        let (overdue_writes, overdue, deadline) = self.first_deadline();
        let mut best;
        if deadline <= floor {
            best = self.best_beside_overdue(overdue_writes, overdue, floor);
        } else {
            best = self.best_wish(self.serving_writes(), floor);
            #[cfg(test)]
            assert_eq!(
                (best.key, best.choice),
                self.best_wish_by_scan(self.serving_writes(), floor),
                "the masks mislead"
            );
            if self.spec.page_policy == PagePolicy::Closed {
                self.consider_closing(floor, &mut best);
            }
            if deadline <= best.edge() && deadline != NEVER {
                (self.wake, self.planned) = (deadline, None);
                return;
            }
        }
        (self.planned, self.planned_key) = (best.choice, best.key);
        self.wake = if best.choice.is_some() { best.edge() } else { NEVER };
    }

    /// The best of all banks' wishes on behalf of a queue.
    fn best_wish(&mut self, writes: bool, floor: u64) -> Best {
        let queue = if writes { &mut self.writes } else { &mut self.reads };
        let device = &self.device;
        let ranks = usize::from(device.geometry().ranks);
        let commands = Want::ALL.map(|want| command_of(want, writes));
        // Plain loops: this is where the time of a busy memory goes.
        loop {
            // Per kind and rank a lower bound, exact where some bank is ripe. Gates never go back, so a ripe bank stays
            // so until its own constraints are raised.
            let (mut least, mut tied) = (NEVER, 0);
            let mut rank = 0;
            while rank < ranks {
                let masks = &queue.masks[rank & 3];
                let mut kind = 0;
                while kind < 3 {
                    if masks.want[kind] != 0 {
                        let wait = if masks.ripe[kind] != 0 { 0 } else { masks.soonest[kind] };
                        let edge = device.gate(commands[kind], rank).max(wait).max(floor);
                        let key = edge << 2 | kind as u64;
                        if key < least {
                            (least, tied) = (key, 1 << rank);
                        } else if key == least {
                            tied |= 1 << rank;
                        }
                    }
                    kind += 1;
                }
                rank += 1;
            }
            if tied == 0 {
                return Best::NONE;
            }
            // The command is among those with the least bound, unless the bound was not exact.
            let kind = (least & 3) as usize % 3;
            let command = commands[kind];
            let mut best = Best::NONE;
            for rank in bits(tied) {
                let bank = |index| Bank { rank, index };
                let rank = usize::from(rank & 3);
                let gate = device.gate(command, rank).max(floor);
                let masks = &mut queue.masks[rank];
                let mut ripe = masks.ripe[kind];
                let mut edge = gate;
                let mut banks = ripe;
                if masks.soonest[kind] <= gate || ripe == 0 {
                    // Who comes first among those that are not ripe yet.
                    let (mut soonest, mut first) = (NEVER, 0);
                    let mut left = masks.want[kind] & !ripe;
                    while left != 0 {
                        let index = left.trailing_zeros() as u8;
                        left &= left - 1;
                        let ready = device.ready(command, bank(index));
                        if ready <= gate {
                            ripe |= 1 << index;
                        } else if ready < soonest {
                            (soonest, first) = (ready, 1 << index);
                        } else if ready == soonest {
                            first |= 1 << index;
                        }
                    }
                    (masks.ripe[kind], masks.soonest[kind]) = (ripe, soonest);
                    (edge, banks) = if ripe == 0 { (soonest, first) } else { (gate, ripe) };
                }
                let key = edge << 2 | kind as u64;
                while banks != 0 {
                    let bank = bank(banks.trailing_zeros() as u8);
                    banks &= banks - 1;
                    let age = queue.pick_age(bank);
                    if (key, age) < (best.key, best.age) {
                        let slot = queue.pick(bank);
                        best =
                            Best { key, age, choice: Some(Choice { command, bank, slot, writes }) };
                    }
                }
            }
            if best.key == least {
                return best;
            }
        }
    }

    /// [`Subchannel::best_wish`] the slow and obvious way.
    #[cfg(test)]
    fn best_wish_by_scan(&self, writes: bool, floor: u64) -> (u64, Option<Choice>) {
        let queue = if writes { &self.writes } else { &self.reads };
        let mut best = (NEVER, NEVER, None);
        for rank in 0..self.device.geometry().ranks {
            for bank in (0..32).map(|index| Bank { rank, index }) {
                let slot = queue.pick(bank);
                if slot != NIL {
                    let entry = queue.entry(slot);
                    let want = wish(self.device.row_of(bank), entry.row);
                    let command = command_of(want, writes);
                    let key = self.device.earliest(command, bank).max(floor) << 2 | want as u64;
                    let choice = Some(Choice { command, bank, slot, writes });
                    if (key, entry.sequence) < (best.0, best.1) {
                        best = (key, entry.sequence, choice);
                    }
                }
            }
        }
        (best.0, best.2)
    }

    /// Considers closing rows that no queued entry wants, after everything else.
    fn consider_closing(&self, floor: u64, best: &mut Best) {
        for rank in 0..usize::from(self.device.geometry().ranks) {
            let hit = self.reads.masks[rank & 3].hit | self.writes.masks[rank & 3].hit;
            let gate = self.device.gate(Command::Pre, rank).max(floor);
            for index in bits(self.device.open_mask(rank) & !hit) {
                let bank = Bank { rank: rank as u8, index };
                let edge = self.device.ready(Command::Pre, bank).max(gate);
                let key = edge << 2 | CLOSE_IDLE;
                if key < best.key {
                    let command = Command::Pre;
                    let choice = Some(Choice { command, bank, slot: NIL, writes: false });
                    *best = Best { key, age: NEVER, choice };
                }
            }
        }
    }

    /// What an overdue entry needs next or, if that is earlier, a command of another kind in another bank.
    fn best_beside_overdue(&self, writes: bool, slot: u16, floor: u64) -> Best {
        let queue = if writes { &self.writes } else { &self.reads };
        let entry = queue.entry(slot);
        let own = wish(self.device.row_of(entry.bank), entry.row);
        let command = command_of(own, writes);
        let edge = self.device.earliest(command, entry.bank).max(floor);
        let choice = Some(Choice { command, bank: entry.bank, slot, writes });
        // Before all others at its edge: as old as can be, and of the first kind.
        let mut best = Best { key: edge << 2, age: 0, choice };
        for (rank, masks) in (0..self.device.geometry().ranks).zip(&queue.masks) {
            for want in Want::ALL.into_iter().filter(|&want| want != own) {
                for index in bits(masks.want[want as usize]) {
                    let bank = Bank { rank, index };
                    let command = command_of(want, writes);
                    let key = self.device.earliest(command, bank).max(floor) << 2 | want as u64;
                    let (age, slot) = (queue.pick_age(bank), queue.pick(bank));
                    if (key, age) < (best.key, best.age) && bank != entry.bank {
                        best =
                            Best { key, age, choice: Some(Choice { command, bank, slot, writes }) };
                    }
                }
            }
        }
        best
    }

    fn issue(&mut self, choice: Choice, edge: u64) {
        let Choice { command, bank, slot, writes } = choice;
        let queue = if writes { &mut self.writes } else { &mut self.reads };
        let mut row = self.device.row_of(bank).unwrap_or(0);
        let mut column = 0;
        match command {
            Command::Act => {
                let entry = queue.entry_mut(slot);
                row = entry.row;
                if entry.found == Found::Open {
                    entry.found = Found::Closed;
                }
                self.stats.acts += 1;
            }
            Command::Pre => {
                if slot != NIL {
                    queue.entry_mut(slot).found = Found::Other;
                }
                self.stats.pres += 1;
            }
            _ => {
                let entry = queue.remove(slot, Some(row));
                column = entry.column;
                match entry.found {
                    Found::Open => self.stats.row_hits += 1,
                    Found::Closed => self.stats.row_misses += 1,
                    Found::Other => self.stats.row_conflicts += 1,
                }
                let t = &self.spec.timing;
                self.stats.bus_busy += t.time(Parameter::HalfBurst);
                if writes {
                    self.stats.wrs += 1;
                } else {
                    self.stats.rds += 1;
                    let wait = t.clocks(Parameter::Cl) + t.clocks(Parameter::HalfBurst);
                    self.flight.push_back(Flight {
                        due: edge + u64::from(wait),
                        id: entry.id,
                        at: entry.at,
                        underfills: entry.underfills,
                    });
                }
                if writes != self.wrote_last {
                    self.wrote_last = writes;
                    self.stats.turnarounds += 1;
                }
                self.update_draining();
            }
        }
        self.device.apply(command, bank, row, edge);
        if matches!(command, Command::Act | Command::Pre) {
            let open = self.device.row_of(bank);
            self.reads.refresh(bank, open);
            self.writes.refresh(bank, open);
        }
        // A command raises the readiness of its bank group at most; beyond that, gates.
        let group = self.device.geometry().group_mask(bank);
        for (queue, writes) in [(&mut self.reads, false), (&mut self.writes, true)] {
            let ready = |want, bank| self.device.ready(command_of(want, writes), bank);
            queue.note(bank.rank, group, ready);
        }
        if let Some(trace) = &mut self.trace {
            let (bank_group, in_group) = self.device.geometry().split(bank);
            trace.push(CommandRecord {
                at: self.spec.timing.moment(edge),
                package: self.package,
                command,
                place: Place {
                    channel: self.channel,
                    subchannel: self.subchannel,
                    rank: bank.rank,
                    bank_group,
                    bank: in_group,
                    row,
                    column,
                },
            });
        }
    }

    /// Checks that every request is done, queued or on its way (verification.md §2.11 Q1, Q14).
    ///
    /// # Errors
    /// The kind of request that was lost or made up.
    pub fn check_conservation(&self) -> Result<(), Imbalance> {
        let s = &self.stats;
        let flying = |underfill: bool| {
            self.flight.iter().filter(|f| (f.underfills != NIL) == underfill).count() as u64
        };
        let waiting = self.writes.len() as u64 - u64::from(self.writes.ready());
        // Underfill reads are queued or flying exactly while their write waits.
        let queued_underfills = waiting - flying(true).min(waiting);
        let queued_reads = (self.reads.len() as u64).saturating_sub(queued_underfills);
        for (what, entered, accounted) in [
            ("reads", s.reads, s.reads_done + queued_reads + flying(false)),
            ("writes", s.writes + s.partial_writes, s.merged + s.wrs + self.writes.len() as u64),
            ("underfill reads", s.underfills, s.underfills_done + waiting),
            (
                "RD commands",
                s.rds + queued_reads + queued_underfills,
                s.reads - s.forwarded + s.underfills,
            ),
            ("column commands", s.rds + s.wrs, s.row_hits + s.row_misses + s.row_conflicts),
        ] {
            if entered != accounted {
                return Err(Imbalance { what, entered, accounted });
            }
        }
        Ok(())
    }

    /// The banks' wishes, as kept and as worked out anew.
    #[cfg(test)]
    pub(super) fn wishes(&self) -> [impl PartialEq + std::fmt::Debug + use<>; 2] {
        let mut copy = self.clone();
        for rank in 0..self.device.geometry().ranks {
            for index in 0..32 {
                let bank = Bank { rank, index };
                let open = self.device.row_of(bank);
                copy.reads.refresh(bank, open);
                copy.writes.refresh(bank, open);
            }
        }
        [self, &copy].map(|s| (s.reads.wishes(), s.writes.wishes()))
    }
}
