//! The loop: offer a request while there is room, else go to the next moment at which something changes.
//!
//! A closed loop needs nothing else to be exact (peers.md §4 lesson 7): a queue that is full stays full until a command is
//! issued, and that is an event. Requests are offered in order; one that finds its queue full holds up those behind it.

use super::DramError;
use super::latency::Latencies;
use crate::commands::CommandSink;
use crate::trace::TraceError;
use mktme::Controller;
use mktme::dram::{Completion, Dram, Kind, Request};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::Trace;
use sim_core::{KeyId, Line, Ps, Tagged};

/// A request to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Which line.
    pub(super) line: Line,
    /// What of it.
    pub(super) kind: Kind,
    /// Of a partial write: which bytes.
    pub(super) mask: ByteMask,
    /// Not before then.
    pub(super) due: Ps,
    /// Whether `due` counts from the moment at which nothing is in flight any more.
    pub(super) behind: bool,
}

/// Where requests come from, in order of `due`.
pub(super) trait Requests {
    /// The next; none at the end, or at a record that cannot be taken.
    fn next(&mut self) -> Option<Wanted>;

    /// Why there is none, if that is not the end. Apart, because an error is large and this loop is hot.
    fn failure(&mut self) -> Option<TraceError> {
        None
    }
}

/// The memory controller's part: what each request means for TD bits, MACs and poison.
pub(super) struct Integrity {
    pub(super) controller: Controller,
    pub(super) trace: Trace,
    pub(super) keyid: KeyId,
    /// What the controller had counted when the run began.
    pub(super) before: mktme::Stats,
    /// Reads by [`sim_core::outcome::DataClass`].
    pub(super) classes: [u64; 3],
    pub(super) poisoned: u64,
}

impl Integrity {
    #[inline]
    fn admit(&mut self, wanted: &Wanted) {
        let at = Tagged::new(wanted.line, self.keyid);
        match wanted.kind {
            Kind::Read => {
                let fill = self.controller.read(at, &mut self.trace);
                if let Some(count) = self.classes.get_mut(fill.class as usize) {
                    *count += 1;
                }
                self.poisoned += u64::from(fill.poison.is_some());
            }
            // A trace has no data.
            Kind::Write => self.controller.write(at, &LineData::ZERO, None, &mut self.trace),
            Kind::PartialWrite => {
                let data = &LineData::ZERO;
                self.controller.write_partial(at, data, wanted.mask, &mut self.trace);
            }
        }
    }
}

/// What the loop has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub(super) offered: u64,
    pub(super) accepted: u64,
    /// Of these, by [`Kind`].
    pub(super) by_kind: [u64; 3],
    pub(super) completed: u64,
    pub(super) wait: Ps,
    pub(super) wait_max: Ps,
    pub(super) latencies: Latencies,
    /// Whether commands were handed on.
    pub(super) recorded: bool,
    pub(super) commands: u64,
    pub(super) commands_lost: u64,
    /// When nothing was left to do.
    pub(super) end: Ps,
    /// Why the run was cut short, if it was.
    pub(super) stopped: Option<String>,
}

impl Tally {
    #[inline]
    fn completed(&mut self, done: &Completion) {
        self.completed += 1;
        if done.kind == Kind::Read {
            self.latencies.add(done.at.since(done.arrived));
        }
    }
}

/// How often, in requests, progress is told.
const CHUNK: u64 = 1 << 14;
/// How often commands are handed on: what is recorded between two times is a few for each.
const HAND_ON: u64 = 1 << 10;
/// The longest time that is run at once while commands are recorded, refreshes being commands: far below what
/// [`mktme::dram::Dram::record_commands`] has room for.
const STRIDE: Ps = Ps(1_000_000_000);
/// From here on time is gone through event by event, so that it ends at the horizon and not behind it.
const LAST: Ps = Ps(Ps::HORIZON.0 / 2);
/// Steps without a completion after which the watchdog is asked.
const PATIENCE: u32 = 1 << 10;

/// A run in progress.
pub(super) struct Drive<'a> {
    pub(super) dram: Dram,
    pub(super) integrity: Option<Integrity>,
    /// Requests in flight at most; 0 for as many as the queues take.
    pub(super) outstanding: u64,
    /// Who takes the commands.
    pub(super) sinks: Vec<&'a mut dyn CommandSink>,
    pub(super) progress: &'a mut dyn FnMut(u64),
    pub(super) tally: Tally,
    /// Steps since the last completion.
    pub(super) idle_steps: u32,
}

impl Drive<'_> {
    /// Makes every request and lets the last of them end.
    pub(super) fn run<R: Requests>(&mut self, source: &mut R) -> Result<(), DramError> {
        while let Some(wanted) = source.next() {
            self.tally.offered += 1;
            if !self.place(&wanted)? {
                break;
            }
            if let Some(integrity) = &mut self.integrity {
                integrity.admit(&wanted);
            }
            if self.tally.accepted.is_multiple_of(HAND_ON) {
                self.hand_on()?;
                if self.tally.accepted.is_multiple_of(CHUNK) {
                    (self.progress)(self.tally.accepted);
                }
            }
        }
        if let Some(error) = source.failure() {
            return Err(error.into());
        }
        self.finish()
    }

    const fn in_flight(&self) -> u64 {
        self.tally.accepted - self.tally.completed
    }

    /// Waits until the request is taken. False when time or the controller stands still: the run is over.
    #[inline]
    fn place(&mut self, wanted: &Wanted) -> Result<bool, DramError> {
        if self.outstanding > 0 && !self.await_answers(self.outstanding) {
            return Ok(false);
        }
        let mut due = wanted.due;
        if wanted.behind {
            if !self.await_answers(1) {
                return Ok(false);
            }
            due = self.dram.now() + due;
        }
        if !self.sinks.is_empty() {
            self.walk_to(due)?;
        }
        let at = due.max(self.dram.now());
        if at.is_horizon() {
            // Simulated time is over: the request is not made.
            self.tally.offered -= 1;
            self.dram.advance(at);
            self.collect();
            return Ok(false);
        }
        let id = self.tally.accepted;
        let request = Request { id, line: wanted.line, kind: wanted.kind, at };
        let (tally, idle_steps) = (&mut self.tally, &mut self.idle_steps);
        let offered = self.dram.offer_to(request, |done| {
            tally.completed(&done);
            *idle_steps = 0;
        });
        match offered {
            Ok(at) => {
                self.tally.accepted += 1;
                if let Some(count) = self.tally.by_kind.get_mut(wanted.kind as usize) {
                    *count += 1;
                }
                if due > Ps::ZERO {
                    let wait = at.since(due);
                    self.tally.wait += wait;
                    self.tally.wait_max = self.tally.wait_max.max(wait);
                }
                Ok(true)
            }
            Err(wait) => {
                self.tally.stopped = Some(wait.to_string());
                Ok(false)
            }
        }
    }

    /// Waits until fewer than so many are in flight. False when time or the controller stands still. Not part of the loop, so that
    /// the loop without it stays short.
    #[inline(never)]
    fn await_answers(&mut self, fewer_than: u64) -> bool {
        while self.in_flight() >= fewer_than {
            if !self.answer() && !self.step() {
                return false;
            }
        }
        true
    }

    /// Goes to a moment in strides, handing commands on in between.
    fn walk_to(&mut self, to: Ps) -> Result<(), DramError> {
        while self.dram.now() + STRIDE < to {
            self.dram.advance(self.dram.now() + STRIDE);
            self.collect();
            self.hand_on()?;
        }
        Ok(())
    }

    /// Goes to the next answer at once. False if none is on its way, or not before time is over or the watchdog barks:
    /// [`Drive::step`] says what happens then.
    #[inline]
    fn answer(&mut self) -> bool {
        if self.dram.now() >= LAST {
            return false;
        }
        let Some(done) = self.dram.next_completion() else { return false };
        self.completed(&done);
        self.collect();
        true
    }

    /// Goes to the next moment at which something changes. False when there is none.
    fn step(&mut self) -> bool {
        match self.dram.next_event() {
            Some(at) if !at.is_horizon() => {
                self.dram.advance(at);
                self.idle_steps += 1;
                self.collect();
                if self.idle_steps > PATIENCE {
                    self.idle_steps = 0;
                    if let Err(wait) = self.dram.check_progress() {
                        self.tally.stopped = Some(wait.to_string());
                        return false;
                    }
                }
                true
            }
            Some(at) => {
                self.dram.advance(at);
                false
            }
            None => {
                self.tally.stopped = Some("requests wait and nothing will happen".to_owned());
                false
            }
        }
    }

    #[inline]
    fn collect(&mut self) {
        while let Some(done) = self.dram.pop_completion() {
            self.completed(&done);
        }
    }

    #[inline]
    fn completed(&mut self, done: &Completion) {
        self.tally.completed(done);
        self.idle_steps = 0;
    }

    /// Hands the commands so far to those who want them.
    fn hand_on(&mut self) -> Result<(), DramError> {
        if self.sinks.is_empty() {
            return Ok(());
        }
        for record in self.dram.take_commands() {
            self.tally.commands += 1;
            for sink in &mut self.sinks {
                sink.put(&record)?;
            }
        }
        Ok(())
    }

    /// Lets what is queued end.
    fn finish(&mut self) -> Result<(), DramError> {
        while self.tally.stopped.is_none() && self.dram.next_event().is_some() && self.step() {}
        self.hand_on()?;
        self.tally.recorded = !self.sinks.is_empty();
        self.tally.commands_lost = self.dram.lost_commands();
        self.tally.end = self.dram.now();
        for sink in &mut self.sinks {
            sink.end(self.tally.end)?;
        }
        Ok(())
    }
}
