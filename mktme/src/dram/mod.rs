//! DDR5 behind the controller: what a request costs, never what comes of it (architecture.md §13 MC-31).
//!
//! [`Dram`] holds the subchannels of all packages. A [`Request`] is decoded once, queued, and served by the commands
//! ACT, PRE, RD and WR under the constraints of [`constraint::CONSTRAINTS`]. Latencies outside the subchannel (the path
//! from the core, decryption, the MAC) are not here.
//!
//! Time moves only forward: [`Dram::advance`] processes everything up to and including a moment, and the outcome does not
//! depend on the number of calls in which one gets there. [`Dram::next_event`] says how far one may jump.
//!
//! Write queue (timing.md §1.4): a write is complete when admitted. A read that hits it is forwarded; a full or partial
//! write that hits it merges at no cost; a partial write that misses it costs one underfill read, which takes a read-queue
//! entry, and then its write. Two requests for one line are otherwise not ordered: outcomes are decided at admission.
//!
//! Not modelled yet: refresh, auto-precharge, power-down, MRDIMM.

pub mod constraint;
pub mod device;
pub mod map;
pub mod organisation;
mod queue;
pub mod stats;
pub mod subchannel;
pub mod timing;

pub use constraint::Command;
pub use device::{Blocked, Device, Geometry};
pub use map::{AddressMap, ChannelMap, MapError, Place};
pub use organisation::Organisation;
pub use stats::{DramStats, Imbalance};
pub use subchannel::{CommandRecord, Subchannel, SubchannelSpec};
pub use timing::Timing;

use serde::{Deserialize, Serialize};
use sim_core::platform::{DramSpec, PlatformError, home_of};
use sim_core::{Line, Ps};
use std::collections::VecDeque;
use subchannel::NEVER;
use thiserror::Error;
use timing::TimingError;

/// What is asked of a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// All 64 bytes are read.
    Read,
    /// All 64 bytes are written.
    Write,
    /// Some bytes are written: the rest is read first, unless the line is in the write queue.
    PartialWrite,
}

/// A request to the controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Given back with the completion. Need not be unique.
    pub id: u64,
    /// Which line.
    pub line: Line,
    /// What.
    pub kind: Kind,
    /// Arrival at the controller. A moment that has passed counts as now.
    pub at: Ps,
}

/// A request that is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Completion {
    /// Of the request.
    pub id: u64,
    /// Reads: the last beat of data is there. Writes: admitted to the write queue.
    pub at: Ps,
    /// Of the request.
    pub kind: Kind,
}

/// The queue that a request needs has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the controller's queue is full")]
pub struct Full;

/// Why a specification is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SpecError {
    /// A number outside its range.
    #[error("{0}")]
    Value(#[from] PlatformError),
    /// A shape beyond the limits ([`Organisation`]).
    #[error("{what}: {found} is out of range or not a power of two")]
    Organisation {
        /// Which number.
        what: &'static str,
        /// As given.
        found: u64,
    },
    /// The address map.
    #[error("{0}")]
    Map(#[from] MapError),
    /// Packages outside 1 to 8.
    #[error("cpu.packages is {0}, expected 1 to 8")]
    Packages(u8),
    /// The timing.
    #[error("dram timing: {0}")]
    Timing(#[from] TimingError),
}

/// Checks the numbers that shape this model, with the ranges of
/// [`PlatformSpec::validate`](sim_core::PlatformSpec::validate).
fn check_spec(spec: &DramSpec, organisation: &Organisation) -> Result<(), SpecError> {
    spec.validate()?;
    organisation.check().map_err(|(what, found)| SpecError::Organisation { what, found })
}

/// The memory of a platform: every subchannel of every package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dram {
    map: AddressMap,
    timing: Timing,
    packages: u8,
    channels: u8,
    /// By package, channel and subchannel.
    subchannels: Vec<Subchannel>,
    /// The next edge at which each can change.
    wakes: Vec<u64>,
    /// The least of them.
    next: u64,
    now: Ps,
    done: VecDeque<Completion>,
    /// Empty between calls.
    #[serde(skip)]
    landed: Vec<Completion>,
}

impl Dram {
    /// The idle memory of a platform with so many packages.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn new(spec: &DramSpec, packages: u8) -> Result<Dram, SpecError> {
        Dram::with_subchannels(spec, packages, SubchannelSpec::of(spec)?)
    }

    /// As [`Dram::new`], with the parameters of the subchannels given: for experiments with timing, shape and age bounds.
    /// Of `spec`, channels and map count.
    ///
    /// # Errors
    /// A number outside its range, or a timing that does not fit together.
    pub fn with_subchannels(
        spec: &DramSpec,
        packages: u8,
        subchannel: SubchannelSpec,
    ) -> Result<Dram, SpecError> {
        let map = AddressMap::with_organisation(spec, &subchannel.geometry)?;
        subchannel.timing.check()?;
        if !(1..=8).contains(&packages) {
            return Err(SpecError::Packages(packages));
        }
        let subchannels: Vec<_> = (0..packages)
            .flat_map(|p| (0..spec.channels).flat_map(move |c| (0..2).map(move |s| (p, c, s))))
            .map(|(p, c, s)| Subchannel::new(subchannel, p, c, s))
            .collect();
        Ok(Dram {
            map,
            timing: subchannel.timing,
            packages,
            channels: spec.channels,
            wakes: vec![NEVER; subchannels.len()],
            subchannels,
            next: NEVER,
            now: Ps::ZERO,
            done: VecDeque::new(),
            landed: Vec::new(),
        })
    }

    /// The present moment: the latest to which time was moved.
    pub const fn now(&self) -> Ps {
        self.now
    }
    /// The map from lines to places.
    pub const fn map(&self) -> &AddressMap {
        &self.map
    }
    /// The subchannels, by package, channel and subchannel.
    pub fn subchannels(&self) -> &[Subchannel] {
        &self.subchannels
    }

    fn locate(&self, line: Line) -> (usize, Place) {
        let place = self.map.decode(line);
        let package = usize::from(home_of(line, self.packages));
        let channel = package * usize::from(self.channels) + usize::from(place.channel);
        (channel * 2 + usize::from(place.subchannel), place)
    }

    /// Whether a request for a line that arrives now would be taken. If not, none will be before [`Dram::next_event`].
    pub fn can_accept(&self, line: Line, kind: Kind) -> bool {
        let (index, place) = self.locate(line);
        self.subchannels[index].can_accept(kind, &place)
    }

    /// Takes a request, after moving time to its arrival.
    ///
    /// # Errors
    /// [`Full`]: try again after [`Dram::next_event`].
    pub fn enqueue(&mut self, request: Request) -> Result<(), Full> {
        let at = request.at.max(self.now).min(Ps::HORIZON);
        self.advance(at);
        let (index, place) = self.locate(request.line);
        let sub = &mut self.subchannels[index];
        if sub.enqueue(request.id, request.kind, &place, at)? {
            self.done.push_back(Completion { id: request.id, at, kind: request.kind });
        }
        // What has become due at this very moment is done at once: nothing is ever left to do in the past or the present.
        self.wakes[index] = sub.next_edge();
        if self.wakes[index] <= self.timing.edge_until(at) {
            sub.run(self.timing.edge_until(at), &mut self.landed);
            self.wakes[index] = sub.next_edge();
            self.deliver();
        }
        self.next = self.next.min(self.wakes[index]);
        Ok(())
    }

    /// How long a read of a closed row takes from its first command to its last data, with nothing else going on:
    /// tRCD + CL + BL/2 (timing.md §2.2). A request that arrives between two clock edges waits for the next one first.
    pub const fn unloaded_read(&self) -> Ps {
        let clocks = self.timing.clocks(timing::Parameter::Rcd)
            + self.timing.clocks(timing::Parameter::Cl)
            + self.timing.clocks(timing::Parameter::HalfBurst);
        self.timing.tck().times(clocks as u64)
    }

    /// The next moment at which anything can change, always later than now (but for the horizon). None when idle.
    pub fn next_event(&self) -> Option<Ps> {
        (self.next != NEVER).then(|| self.timing.moment(self.next))
    }

    /// Processes everything up to and including `to`. Going back in time does nothing.
    pub fn advance(&mut self, to: Ps) {
        let to = to.max(self.now).min(Ps::HORIZON);
        self.now = to;
        if self.next == NEVER {
            return;
        }
        let edge = self.timing.edge_until(to);
        if self.next > edge {
            return;
        }
        let mut next = NEVER;
        let mut sources = 0;
        for (sub, wake) in self.subchannels.iter_mut().zip(&mut self.wakes) {
            if *wake <= edge {
                let before = self.landed.len();
                sub.run(edge, &mut self.landed);
                sources += usize::from(self.landed.len() > before);
                *wake = sub.next_edge();
            }
            next = next.min(*wake);
        }
        self.next = next;
        if sources > 1 {
            // Stable: at one moment, in the order of subchannels.
            self.landed.sort_by_key(|c| c.at);
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        for completion in self.landed.drain(..) {
            self.done.push_back(completion);
        }
    }

    /// Takes the next completion, in order of time.
    pub fn pop_completion(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Runs until nothing is left to do, or to the horizon, and returns the moment.
    pub fn drain(&mut self) -> Ps {
        while let Some(at) = self.next_event() {
            self.advance(at);
            if at.is_horizon() {
                break;
            }
        }
        self.now
    }

    /// The sum of all subchannels' counters.
    pub fn stats(&self) -> DramStats {
        let mut sum = DramStats::default();
        for sub in &self.subchannels {
            sum += *sub.stats();
        }
        sum
    }

    /// Checks that every request is done, queued or on its way (verification.md §2.11 Q1, Q14).
    ///
    /// # Errors
    /// The kind of request that was lost or made up.
    pub fn check_conservation(&self) -> Result<(), Imbalance> {
        self.subchannels.iter().try_for_each(Subchannel::check_conservation)
    }

    /// Looks at every clock edge instead of skipping to the next that matters (`--no-skip`). The outcome is the same.
    pub fn look_at_every_edge(&mut self, on: bool) {
        for sub in &mut self.subchannels {
            sub.look_at_every_edge(on);
        }
    }

    /// Starts or stops recording commands; what has been recorded is dropped.
    pub fn record_commands(&mut self, on: bool) {
        for sub in &mut self.subchannels {
            sub.record_commands(on);
        }
    }

    /// Takes the commands recorded since the last call, in order of time; at one moment, in the order of subchannels.
    pub fn take_commands(&mut self) -> Vec<CommandRecord> {
        let mut out = Vec::new();
        for sub in &mut self.subchannels {
            sub.take_commands(&mut out);
        }
        out.sort_by_key(|c| c.at);
        out
    }
}

#[cfg(test)]
mod tests;
