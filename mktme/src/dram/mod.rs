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
//! Refreshes are made at their times whether or not anybody asks; alone they are no work to wait for.
//!
//! Not modelled: power-down, MRDIMM, refresh management (RFM).

mod arrays;
pub mod constraint;
pub mod device;
pub mod map;
pub mod organisation;
mod queue;
mod refresh;
mod ring;
pub mod stats;
pub mod subchannel;
pub mod timing;
mod wheel;

pub use constraint::Command;
pub use device::{Blocked, Device, Geometry};
pub use map::{AddressMap, ChannelMap, MapError, Place};
pub use organisation::Organisation;
pub use stats::{
    CONSERVATION_RULES, ConservationRule, DramStats, Imbalance, InFlight, LatencyHistogram,
};
pub use subchannel::{CommandRecord, Reason, Subchannel, SubchannelSpec, Wait};
pub use timing::Timing;

use device::Spot;
use ring::Ring;
use serde::{Deserialize, Serialize};
use sim_core::platform::{DramSpec, PlatformError, home_of};
use sim_core::{Line, Ps};
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
    /// When the request was taken.
    pub arrived: Ps,
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
    /// Packages outside 1 to 8.
    #[error("cpu.packages is {0}, expected 1 to 8")]
    Packages(u8),
    /// The address map.
    #[error("{0}")]
    Map(#[from] MapError),
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

/// A completion and the subchannel it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Done {
    id: u64,
    at: Ps,
    arrived: Ps,
    kind: Kind,
    /// [`REQUEST`] if it came at once with its request.
    source: u16,
}

/// Behind all completions of the same moment that were on their way.
const REQUEST: u16 = u16::MAX;

impl Default for Done {
    fn default() -> Done {
        Done { id: 0, at: Ps::ZERO, arrived: Ps::ZERO, kind: Kind::Read, source: 0 }
    }
}

/// Where completions go.
trait Out {
    /// One of a subchannel, or of [`REQUEST`]. Those of one subchannel come in order of time.
    fn put(&mut self, source: u16, completion: Completion);
}

/// In order of time and, at one moment, in the order of subchannels.
impl Out for Ring<Done> {
    #[inline]
    fn put(&mut self, source: u16, Completion { id, at, arrived, kind }: Completion) {
        self.push_sorted(Done { id, at, arrived, kind, source }, |before, new| {
            (before.at, before.source) > (new.at, new.source)
        });
    }
}

/// To whoever asked, as they come.
struct AsTheyCome<F>(F);

impl<F: FnMut(Completion)> Out for AsTheyCome<F> {
    #[inline]
    fn put(&mut self, _: u16, completion: Completion) {
        (self.0)(completion);
    }
}

/// The memory of a platform: every subchannel of every package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dram {
    lanes: Lanes,
    /// Completions not taken yet.
    done: Ring<Done>,
}

/// The subchannels, and when each has something to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Lanes {
    map: AddressMap,
    timing: Timing,
    packages: u8,
    channels: u8,
    /// By package, channel and subchannel.
    subchannels: Vec<Subchannel>,
    /// The next edge at which each can change, as the leaves of a tree of minima; node 1 is the root.
    wakes: Vec<u64>,
    /// Position of the first leaf.
    leaves: usize,
    /// Subchannels in which something is queued or on its way.
    busy: u32,
    now: Ps,
    /// The clock edge at or after now.
    edge: u64,
    /// Whether every clock edge is looked at.
    every_edge: bool,
}

impl Lanes {
    #[inline]
    fn locate(&self, line: Line) -> (usize, Spot) {
        let (index, spot) = self.map.spot(line);
        if self.packages == 1 {
            return (index, spot);
        }
        let package = usize::from(home_of(line, self.packages));
        (package * usize::from(self.channels) * 2 + index, spot)
    }

    /// Carries the next edge of a subchannel up the tree.
    #[inline(always)]
    fn renew(&mut self, index: usize, next: u64) {
        let mut least = next;
        if let [_, root, wakes @ ..] = &mut self.wakes[..]
            && let [left, right] = wakes
        {
            // One channel.
            let (own, other) = if index == 0 { (left, right) } else { (right, left) };
            *root = least.min(*other);
            *own = least;
            return;
        }
        let mut node = self.leaves + index;
        while node > 1 {
            self.wakes[node] = least;
            least = least.min(self.wakes[node ^ 1]);
            node /= 2;
        }
        self.wakes[1] = least;
    }

    /// [`Dram::offer`].
    #[inline]
    fn offer(&mut self, request: &Request, out: &mut impl Out) -> Result<Ps, Wait> {
        if request.at > self.now {
            self.advance(request.at, out);
        }
        let (index, spot) = self.locate(request.line);
        let sub = &mut self.subchannels[index];
        let was_idle = sub.is_idle();
        let room = sub.run_until_room(request.kind, spot, &mut |c| out.put(index as u16, c));
        match room {
            Ok(None) => {}
            Ok(Some(edge)) => {
                self.now = self.now.max(self.timing.moment(edge));
                self.edge = edge;
                if self.leaves > 2 {
                    self.after_run(index, was_idle);
                    self.run_below(1, edge, out);
                } else if self.wakes[3 - index] <= edge {
                    // The subchannel itself is accounted for when it has taken the request.
                    self.run_one(1 - index, edge, out);
                }
            }
            Err(wait) => {
                self.after_run(index, was_idle);
                return Err(wait);
            }
        }
        match self.take(request, index, spot, was_idle, out) {
            Ok(()) => Ok(self.now),
            // Does not happen: there is room.
            Err(Full) => Err(self.subchannels[index].stuck(spot)),
        }
    }

    /// Takes a request that arrives now, if there is room; `was_idle` says whether the subchannel was when last accounted for.
    #[inline]
    fn take(
        &mut self,
        request: &Request,
        index: usize,
        spot: Spot,
        was_idle: bool,
        out: &mut impl Out,
    ) -> Result<(), Full> {
        let (at, edge) = (self.now, self.edge);
        let sub = &mut self.subchannels[index];
        let &Request { id, kind, .. } = request;
        if sub.enqueue(id, kind, spot, at, edge)? {
            out.put(REQUEST, Completion { id, at, arrived: at, kind });
        }
        // What has become due at this very moment is done at once: nothing is ever left to do in the past or the present.
        let mut next = sub.next_edge();
        if next <= edge && self.timing.moment(edge) == at {
            sub.run(edge, &mut |c| out.put(index as u16, c));
            next = sub.next_edge();
        }
        let is_idle = sub.is_idle();
        self.account(index, was_idle, is_idle, next);
        Ok(())
    }

    /// Accounts for what a subchannel has done.
    #[inline(always)]
    fn after_run(&mut self, index: usize, was_idle: bool) {
        let sub = &self.subchannels[index];
        let (is_idle, next) = (sub.is_idle(), sub.next_edge());
        self.account(index, was_idle, is_idle, next);
    }
    #[inline(always)]
    fn account(&mut self, index: usize, was_idle: bool, is_idle: bool, next: u64) {
        self.busy = self.busy + u32::from(was_idle) - u32::from(is_idle);
        self.renew(index, next);
    }

    /// [`Dram::advance`]: processes everything up to and including `to`. Going back in time does nothing.
    fn advance(&mut self, to: Ps, out: &mut impl Out) {
        let to = to.max(self.now).min(Ps::HORIZON);
        self.now = to;
        let edge = self.timing.edge_until(to);
        self.edge = edge + u64::from(self.timing.moment(edge) < to);
        if self.wakes[1] <= edge {
            self.run_to(edge, out);
        }
    }

    /// Runs the subchannels up to an edge, in their order.
    #[inline]
    fn run_to(&mut self, edge: u64, out: &mut impl Out) {
        if self.leaves > 2 {
            self.run_below(1, edge, out);
            return;
        }
        for index in 0..2 {
            if self.wakes[2 + index] <= edge {
                self.run_one(index, edge, out);
            }
        }
    }

    /// Runs the subchannels below a node of the tree up to an edge, in their order.
    fn run_below(&mut self, node: usize, edge: u64, out: &mut impl Out) {
        if self.wakes[node] > edge {
            return;
        }
        if node < self.leaves {
            self.run_below(2 * node, edge, out);
            self.run_below(2 * node + 1, edge, out);
        } else {
            self.run_one(node - self.leaves, edge, out);
        }
    }

    fn run_one(&mut self, index: usize, edge: u64, out: &mut impl Out) {
        let sub = &mut self.subchannels[index];
        let was_idle = sub.is_idle();
        sub.run(edge, &mut |c| out.put(index as u16, c));
        self.after_run(index, was_idle);
    }
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
        let leaves = subchannels.len().next_power_of_two();
        let mut lanes = Lanes {
            map,
            timing: subchannel.timing,
            packages,
            channels: spec.channels,
            wakes: vec![NEVER; 2 * leaves],
            leaves,
            subchannels,
            busy: 0,
            now: Ps::ZERO,
            edge: 0,
            every_edge: false,
        };
        for index in 0..lanes.subchannels.len() {
            lanes.renew(index, lanes.subchannels[index].next_edge());
        }
        Ok(Dram { lanes, done: Ring::new(64) })
    }

    /// The present moment: the latest to which time was moved.
    pub const fn now(&self) -> Ps {
        self.lanes.now
    }
    /// The map from lines to places.
    pub const fn map(&self) -> &AddressMap {
        &self.lanes.map
    }
    /// The subchannels, by package, channel and subchannel.
    pub fn subchannels(&self) -> &[Subchannel] {
        &self.lanes.subchannels
    }

    /// Whether a request for a line that arrives now would be taken. If not, none will be before [`Dram::next_event`].
    pub fn can_accept(&self, line: Line, kind: Kind) -> bool {
        let (index, spot) = self.lanes.locate(line);
        self.lanes.subchannels[index].has_room(kind, spot)
    }

    /// Takes a request, after moving time to its arrival.
    ///
    /// # Errors
    /// [`Full`]: try again after [`Dram::next_event`].
    pub fn enqueue(&mut self, request: Request) -> Result<(), Full> {
        self.advance(request.at);
        let (index, spot) = self.lanes.locate(request.line);
        let was_idle = self.lanes.subchannels[index].is_idle();
        self.lanes.take(&request, index, spot, was_idle, &mut self.done)
    }

    /// Takes a request if one that arrives now would be taken ([`Dram::can_accept`]), after moving time to its arrival: both in
    /// one, with the place found once.
    ///
    /// # Errors
    /// [`Full`]: nothing has moved; try again after [`Dram::next_event`].
    pub fn try_enqueue(&mut self, request: Request) -> Result<(), Full> {
        let (index, spot) = self.lanes.locate(request.line);
        if !self.lanes.subchannels[index].has_room(request.kind, spot) {
            return Err(Full);
        }
        self.advance(request.at);
        let was_idle = self.lanes.subchannels[index].is_idle();
        self.lanes.take(&request, index, spot, was_idle, &mut self.done)
    }

    /// Takes a request as soon as there is room for it: moves time to its arrival and on to the command that makes room, if
    /// there is none yet. Gives the moment at which it was taken. This is how a closed loop drives a bare channel: what
    /// lies between two requests is run in one go.
    ///
    /// # Errors
    /// Nothing moves: what the subchannel waits for. The request was not taken.
    pub fn offer(&mut self, request: Request) -> Result<Ps, Wait> {
        self.lanes.offer(&request, &mut self.done)
    }

    /// As [`Dram::offer`], and hands what completes on to `done` at once: of one subchannel in order of time, of several as they
    /// come. For who counts completions and does not ask which was first.
    ///
    /// # Errors
    /// As [`Dram::offer`].
    #[inline]
    pub fn offer_to(&mut self, request: Request, done: impl FnMut(Completion)) -> Result<Ps, Wait> {
        self.lanes.offer(&request, &mut AsTheyCome(done))
    }

    /// How long a read of a closed row takes from its first command to its last data, with nothing else going on:
    /// tRCD + CL + BL/2 (timing.md §2.2). A request that arrives between two clock edges waits for the next one first.
    pub const fn unloaded_read(&self) -> Ps {
        let clocks = self.lanes.timing.clocks(timing::Parameter::Rcd)
            + self.lanes.timing.clocks(timing::Parameter::Cl)
            + self.lanes.timing.clocks(timing::Parameter::HalfBurst);
        self.lanes.timing.tck().times(clocks as u64)
    }

    /// The next moment at which anything can change, always later than now (but for the horizon). None when nothing is
    /// queued or on its way: refreshes alone are made at their times by [`Dram::advance`], but nobody need wait for them.
    #[inline]
    pub fn next_event(&self) -> Option<Ps> {
        let next = self.lanes.wakes[1];
        (self.lanes.busy > 0 && next != NEVER).then(|| self.lanes.timing.moment(next))
    }

    /// Processes everything up to and including `to`. Going back in time does nothing.
    pub fn advance(&mut self, to: Ps) {
        self.lanes.advance(to, &mut self.done);
    }

    /// Goes on from event to event, as [`Dram::next_event`] and [`Dram::advance`] would, until a request is complete or the next
    /// event would lie beyond `until`. Does nothing while a completion has not been taken.
    pub fn advance_to_completion(&mut self, until: Ps) {
        let last = self.lanes.timing.edge_until(until.min(Ps::HORIZON));
        while self.done.is_empty() && self.lanes.busy > 0 && self.lanes.wakes[1] <= last {
            let edge = self.lanes.wakes[1];
            let at = self.lanes.timing.moment(edge);
            if at.is_horizon() {
                break;
            }
            (self.lanes.now, self.lanes.edge) = (self.lanes.now.max(at), self.lanes.edge.max(edge));
            self.lanes.run_to(edge, &mut self.done);
        }
    }

    /// Takes the next completion, in order of time.
    pub fn pop_completion(&mut self) -> Option<Completion> {
        self.done.pop().map(|Done { id, at, arrived, kind, .. }| Completion {
            id,
            at,
            arrived,
            kind,
        })
    }

    /// Takes the next completion, in order of time, moving time to it if there is none yet. None if nothing is on its way
    /// or nothing moves.
    pub fn next_completion(&mut self) -> Option<Completion> {
        if self.done.is_empty() && self.lanes.every_edge {
            self.walk_to_completion();
            return self.pop_completion();
        }
        let (mut edge, mut first) = (0, None);
        while first.is_none() && self.done.is_empty() && self.lanes.busy > 0 {
            // The subchannel that comes first runs alone as far as the others let it.
            let (mut node, mut limit) = (1, NEVER - 1);
            while node < self.lanes.leaves {
                let (left, right) = (self.lanes.wakes[2 * node], self.lanes.wakes[2 * node + 1]);
                node = 2 * node + usize::from(right < left);
                limit = limit.min(left.max(right));
            }
            let index = node - self.lanes.leaves;
            let sub = &mut self.lanes.subchannels[index];
            let was_idle = sub.is_idle();
            let run = {
                // The first is handed on without being queued, if no other comes at the same moment.
                let mut queue = |c| self.done.put(index as u16, c);
                let mut out = |completion| match first {
                    None => first = Some((index as u16, completion)),
                    Some(_) => queue(completion),
                };
                sub.run_to_completion(limit, &mut out)
            };
            self.lanes.after_run(index, was_idle);
            match run {
                Ok(to) => edge = edge.max(to),
                Err(_) => break,
            }
        }
        if edge > 0 {
            self.lanes.now = self.lanes.now.max(self.lanes.timing.moment(edge));
            self.lanes.edge = self.lanes.edge.max(edge);
            if self.lanes.wakes[1] <= edge {
                // At one moment, in the order of subchannels.
                if let Some((index, completion)) = first.take() {
                    self.done.put(index, completion);
                }
                self.lanes.run_to(edge, &mut self.done);
            }
        }
        if first.is_some() && self.done.is_empty() {
            return first.map(|(_, completion)| completion);
        }
        if let Some((index, completion)) = first {
            self.done.put(index, completion);
        }
        self.pop_completion()
    }

    /// Moves time to the next completion, edge by edge: where every edge is looked at, no subchannel may run ahead.
    #[cold]
    fn walk_to_completion(&mut self) {
        while self.done.is_empty() && self.check_progress().is_ok() {
            match self.next_event() {
                Some(at) if !at.is_horizon() => self.advance(at),
                _ => break,
            }
        }
    }

    /// Runs until nothing is left to do, or to the horizon, and returns the moment. Ends as well if nothing moves
    /// ([`Dram::check_progress`]).
    pub fn drain(&mut self) -> Ps {
        while let Some(at) = self.next_event() {
            self.advance(at);
            if at.is_horizon() || self.check_progress().is_err() {
                break;
            }
        }
        self.lanes.now
    }

    /// Checks that requests are served: in no subchannel has the oldest waited for `dram.watchdog` clocks without any other
    /// being served (verification.md §2.11 Q16).
    ///
    /// # Errors
    /// What the first stuck subchannel waits for, such as "bank 5: PRE blocked by tWR until 12345".
    pub fn check_progress(&self) -> Result<(), Wait> {
        if self.lanes.busy == 0 {
            return Ok(());
        }
        let edge = self.lanes.timing.edge_until(self.lanes.now);
        self.lanes.subchannels.iter().try_for_each(|sub| sub.check_progress(edge))
    }

    /// What the oldest request of every subchannel waits for at this moment.
    pub fn why_blocked(&self) -> Vec<Wait> {
        self.lanes.subchannels.iter().filter_map(|sub| sub.why_blocked(self.lanes.now)).collect()
    }

    /// The sum of all subchannels' counters.
    pub fn stats(&self) -> DramStats {
        let mut sum = DramStats::default();
        for sub in &self.lanes.subchannels {
            sum += *sub.stats();
        }
        sum
    }

    /// What is queued and on its way, over all subchannels.
    pub fn in_flight(&self) -> InFlight {
        let mut sum = InFlight::default();
        for sub in &self.lanes.subchannels {
            sum += sub.in_flight();
        }
        sum
    }

    /// Clock edges at which a scheduler has looked: what the run cost, not what it did.
    pub fn looks(&self) -> u64 {
        self.lanes.subchannels.iter().map(Subchannel::looks).sum()
    }

    /// Checks that every request is done, queued or on its way (verification.md §2.11 Q1, Q14).
    ///
    /// # Errors
    /// The rule of [`stats::CONSERVATION_RULES`] that is broken.
    pub fn check_conservation(&self) -> Result<(), Imbalance> {
        self.lanes.subchannels.iter().try_for_each(Subchannel::check_conservation)
    }

    /// Looks at every clock edge instead of skipping to the next that matters (`--no-skip`). The outcome is the same.
    pub fn look_at_every_edge(&mut self, on: bool) {
        self.lanes.every_edge = on;
        for index in 0..self.lanes.subchannels.len() {
            self.lanes.subchannels[index].look_at_every_edge(on);
            self.lanes.renew(index, self.lanes.subchannels[index].next_edge());
        }
    }

    /// Starts or stops recording commands; what has been recorded is dropped. Each subchannel keeps
    /// [`subchannel::RECORDED_COMMANDS`] until [`Dram::take_commands`] is called; what comes beyond is lost and counted.
    pub fn record_commands(&mut self, on: bool) {
        for sub in &mut self.lanes.subchannels {
            sub.record_commands(on);
        }
    }

    /// The most commands that any subchannel has recorded and not handed out: take them before this comes near
    /// [`subchannel::RECORDED_COMMANDS`].
    pub fn recorded_commands(&self) -> usize {
        self.lanes.subchannels.iter().map(|sub| sub.recorded().0).max().unwrap_or(0)
    }

    /// Commands that were not recorded, because there was no room or, in an idle stretch of a tenth of a second and more,
    /// because refreshes were skipped in one go. They are in the counters.
    pub fn lost_commands(&self) -> u64 {
        self.lanes.subchannels.iter().map(|sub| sub.recorded().1).sum()
    }

    /// Takes the commands recorded since the last call, in order of time; at one moment, in the order of subchannels. Later
    /// calls give no earlier commands.
    pub fn take_commands(&mut self) -> Vec<CommandRecord> {
        let mut out = Vec::new();
        for sub in &mut self.lanes.subchannels {
            sub.take_commands(&mut out);
        }
        out.sort_by_key(|c| c.at);
        out
    }
}

#[cfg(test)]
mod tests;
