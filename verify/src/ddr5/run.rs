//! Checks of a whole run (Q1, Q2, Q9 to Q16) over requests, answers and counters. They know nothing of what made them.
//!
//! A check that has nothing to look at is seen by its witnesses, as in [`crate::invariants`].

use super::rules::{Param, Rules, Term};
use crate::invariants::Violation;
use sim_core::time::Ps;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A check of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its id in verification.md §2.11.
    pub id: &'static str,
    /// Source.
    pub cite: &'static str,
    /// What holds.
    pub text: &'static str,
}

const fn inv(id: &'static str, cite: &'static str, text: &'static str) -> Check {
    Check { id, cite, text }
}

/// The checks of time (verification.md §2.11). Q3 to Q8 are judged by [`super::Checker`] on commands, rule by rule.
#[rustfmt::skip]
pub const TIMING: &[Check] = &[
    inv("Q1",  "verification.md §2.11", "every request is answered exactly once, no sooner than the documented minimum, and nothing else is answered"),
    inv("Q2",  "verification.md §2.11", "events come in the order of (time, sequence), and nobody schedules in the past"),
    inv("Q3",  "verification.md §2.11; timing.md §2.1", "a command begins when the slots of the one before it are over"),
    inv("Q4",  "verification.md §2.11", "bursts do not overlap, and the data bus rests where its direction or rank changes"),
    inv("Q5",  "verification.md §2.11; timing.md §2.2", "every ordered pair of commands is as far apart as its parameter says"),
    inv("Q7",  "verification.md §2.11", "rows are open when read or written, and closed when opened or refreshed"),
    inv("Q8",  "verification.md §2.11", "refreshes come every tREFI on average, less those that may be postponed"),
    inv("Q9",  "verification.md §2.11", "no window moves more bytes than the peak"),
    inv("Q10", "verification.md §2.11", "the parameters can be true together"),
    inv("Q11", "verification.md §2.11", "an unloaded read takes the documented sum"),
    inv("Q12", "verification.md §2.11; timing.md §2.1", "streaming reaches peak·(1 − (tRTP+tRP+tRFC+tRCD)/tREFI) within 1 %"),
    inv("Q13", "verification.md §2.11", "Little's law: the mean length of a queue is its arrivals times their mean wait, within one request"),
    inv("Q14", "verification.md §2.11", "what is in flight at the end is what is reported"),
    inv("Q15", "verification.md §2.11; timing.md §3", "crypto latency is added once per fill; clears are no faster than their bursts"),
    inv("Q16", "verification.md §2.11", "no request waits longer than the bound"),
];

/// So many violations are kept; more are only counted.
const KEPT: usize = 64;

/// What a read finds in its bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row {
    /// The row is open.
    Hit,
    /// The bank is closed.
    Closed,
    /// Another row is open.
    Conflict,
}

/// What a queue says about itself over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueTotals {
    /// Length times time, summed: request·picoseconds.
    pub integral: u128,
    /// Time in the queue of those that left it, summed.
    pub waited: u128,
    /// How long it was looked at.
    pub elapsed: Ps,
}

/// A queue that is looked at from outside: who comes and who leaves. Works out the totals anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    length: u64,
    changed: Ps,
    totals: QueueTotals,
}

impl Queue {
    /// A queue that is empty at time 0.
    pub fn new() -> Queue {
        Queue::default()
    }
    fn pass(&mut self, now: Ps) {
        let span = u128::from(now.since(self.changed).0);
        self.totals.integral += u128::from(self.length) * span;
        self.changed = self.changed.max(now);
    }
    /// A request comes.
    pub fn enter(&mut self, now: Ps) {
        self.pass(now);
        self.length += 1;
    }
    /// A request that came at `entered` leaves.
    pub fn leave(&mut self, now: Ps, entered: Ps) {
        self.pass(now);
        self.length = self.length.saturating_sub(1);
        self.totals.waited += u128::from(now.since(entered).0);
    }
    /// The totals from time 0 to `end`.
    pub fn totals(mut self, end: Ps) -> QueueTotals {
        self.pass(end);
        QueueTotals { elapsed: end, ..self.totals }
    }
}

/// What a run says about encryption.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Crypto {
    /// Lines read from DRAM into a cache or to a requester through the crypto pipeline.
    pub fills: u64,
    /// The latency that the platform sets for one.
    pub latency: Ps,
    /// What was added to answers, summed.
    pub added: Ps,
}

/// Looks at a run. Memory grows with the requests in flight only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunChecker {
    minimum: Ps,
    bound: Ps,
    open: BTreeMap<u64, Ps>,
    next: u64,
    popped: Option<(Ps, u64)>,
    witnesses: BTreeMap<&'static str, u64>,
    found: Vec<Violation>,
    total: u64,
}

impl RunChecker {
    /// No request is answered sooner than `minimum` after it was made, nor later than `bound`.
    pub const fn new(minimum: Ps, bound: Ps) -> RunChecker {
        RunChecker {
            minimum,
            bound,
            open: BTreeMap::new(),
            next: 0,
            popped: None,
            witnesses: BTreeMap::new(),
            found: Vec::new(),
            total: 0,
        }
    }

    /// How often the check had something to say.
    pub fn witnesses(&self, id: &str) -> u64 {
        self.witnesses.get(id).copied().unwrap_or(0)
    }
    /// The first violations.
    pub fn violations(&self) -> &[Violation] {
        &self.found
    }
    /// All violations, counted.
    pub const fn total(&self) -> u64 {
        self.total
    }

    fn claim(&mut self, id: &'static str, holds: bool, what: impl FnOnce() -> String) {
        *self.witnesses.entry(id).or_default() += 1;
        if !holds {
            self.total += 1;
            if self.found.len() < KEPT {
                self.found.push(Violation { id, what: what() });
            }
        }
    }

    /// A request was accepted. Ids count upwards, in the order of acceptance.
    pub fn request(&mut self, id: u64, at: Ps) {
        let fresh = id >= self.next;
        self.claim("Q1", fresh, || format!("request {id} at {at}: its id was used before"));
        if fresh {
            self.next = id.saturating_add(1);
            self.open.insert(id, at);
        }
    }

    /// A request was answered.
    pub fn answer(&mut self, id: u64, at: Ps) {
        let Some(asked) = self.open.remove(&id) else {
            let why = if id < self.next { "answered before" } else { "never asked" };
            return self
                .claim("Q1", false, || format!("request {id} answered at {at}: it was {why}"));
        };
        let (minimum, bound) = (self.minimum, self.bound);
        let soon = at >= asked && at.since(asked) >= minimum;
        self.claim("Q1", soon, || {
            format!("request {id} of {asked} answered at {at}, minimum {minimum}")
        });
        let late = at.since(asked) > bound;
        self.claim("Q16", !late, || {
            format!("request {id} of {asked} answered at {at}, bound {bound}")
        });
    }

    /// The run ended, and says that so many requests are in flight.
    pub fn finish(&mut self, end: Ps, reported: u64) {
        let left = self.open.len() as u64;
        self.claim("Q14", left == reported, || {
            format!("{left} in flight at {end}, {reported} reported")
        });
        let (bound, oldest) = (self.bound, self.open.iter().min_by_key(|(_, at)| **at));
        if let Some((id, at)) = oldest.map(|(id, at)| (*id, *at)) {
            let fine = end.since(at) <= bound;
            self.claim("Q16", fine, || {
                format!("request {id} of {at} in flight at {end}, bound {bound}")
            });
        }
    }

    /// An event was popped.
    pub fn event(&mut self, time: Ps, sequence: u64) {
        if let Some(before) = self.popped {
            let fine = (time, sequence) > before;
            self.claim("Q2", fine, || format!("event {sequence} at {time} after {before:?}"));
        }
        self.popped = Some((time, sequence));
    }

    /// At `now` something was scheduled for `at`.
    pub fn scheduled(&mut self, now: Ps, at: Ps) {
        self.claim("Q2", at >= now, || format!("scheduled for {at} at {now}"));
    }

    /// Q9 for a run: what went over `buses` data buses from the start of the first burst to the end of the last.
    pub fn bandwidth(&mut self, rules: &Rules, buses: u64, bytes: u64, window: Ps) {
        let moved = u128::from(bytes) * burst_ps(rules);
        let most = u128::from(window.0) * u128::from(buses) * LINE;
        self.claim("Q9", moved <= most, || format!("{bytes} bytes in {window} over {buses} buses"));
    }

    /// Q10: the parameters.
    pub fn parameters(&mut self, rules: &Rules) {
        let broken: Vec<String> = rules.insane().map(ToString::to_string).collect();
        self.claim("Q10", broken.is_empty(), || format!("not true: {}", broken.join("; ")));
    }

    /// Q11: an unloaded read took `found`; `pipe` is what is documented outside of the device.
    pub fn unloaded(&mut self, rules: &Rules, row: Row, pipe: Ps, found: Ps) {
        let want = unloaded_read(rules, row, pipe);
        self.claim("Q11", found == want, || format!("{row:?}: {found}, documented {want}"));
    }

    /// Q12: a stream of reads over one bus moved `bytes` in `elapsed`. For all-bank refresh and one rank.
    pub fn streaming(&mut self, rules: &Rules, bytes: u64, elapsed: Ps) {
        use Param::{Trcd, Trefi, Trfc, Trp, Trtp};
        let lost = [Term::Plus(Trtp), Term::Plus(Trp), Term::Plus(Trfc), Term::Plus(Trcd)];
        let refi = u128::from(rules.get(Trefi));
        let left = refi.saturating_sub(u128::from(rules.sum(&lost)));
        // Both sides times tREFI and the length of a burst.
        let want = LINE * u128::from(elapsed.0) * left;
        let found = u128::from(bytes) * burst_ps(rules) * refi;
        let fine = found.abs_diff(want) * 100 <= want;
        self.claim("Q12", fine, || {
            let percent = (found * 10_000).checked_div(want).unwrap_or(0);
            let (whole, rest) = (percent / 100, percent % 100);
            format!("{bytes} bytes in {elapsed}: {whole}.{rest:02} % of what refresh leaves")
        });
    }

    /// Q13: Little's law for one queue.
    pub fn little(&mut self, name: &str, queue: &QueueTotals) {
        let apart = queue.integral.abs_diff(queue.waited);
        let fine = apart <= u128::from(queue.elapsed.0);
        self.claim("Q13", fine, || format!("{name}: {queue:?}"));
    }

    /// Q15: crypto latency on fills.
    pub fn crypto(&mut self, crypto: &Crypto) {
        let want = u128::from(crypto.fills) * u128::from(crypto.latency.0);
        self.claim("Q15", u128::from(crypto.added.0) == want, || format!("{crypto:?}"));
    }

    /// Q15: clearing `lines` lines took `found`, over `buses` data buses.
    pub fn cleared(&mut self, rules: &Rules, lines: u64, buses: u64, found: Ps) {
        let fine = u128::from(found.0) * u128::from(buses) >= u128::from(lines) * burst_ps(rules);
        self.claim("Q15", fine, || format!("{lines} lines in {found} over {buses} buses"));
    }
}

/// Bytes of a line and of a burst.
const LINE: u128 = 64;

/// How long a burst is on the data bus, in picoseconds.
fn burst_ps(rules: &Rules) -> u128 {
    u128::from(rules.get(Param::Burst)) * u128::from(rules.get(Param::Tck))
}

/// What a read takes that meets no other: (tRP + tRCD + CL)·tCK + BL/2·tCK + the pipe outside of the device, less what the
/// row spares (Q11).
pub fn unloaded_read(rules: &Rules, row: Row, pipe: Ps) -> Ps {
    use Param::{Burst, Cl, Trcd, Trp};
    use Term::Plus;
    let clocks = rules.sum(match row {
        Row::Hit => &[Plus(Cl), Plus(Burst)],
        Row::Closed => &[Plus(Trcd), Plus(Cl), Plus(Burst)],
        Row::Conflict => &[Plus(Trp), Plus(Trcd), Plus(Cl), Plus(Burst)],
    });
    Ps(rules.get(Param::Tck)).times(clocks) + pipe
}

/// The checks of time as a page.
pub fn timing_markdown() -> String {
    let mut out = String::from("| Id | Holds | Source |\n|---|---|---|\n");
    for i in TIMING {
        let _ = writeln!(out, "| {} | {} | {} |", i.id, i.text, i.cite);
    }
    out
}
