//! What a subchannel has done, as plain counters, and the rules that tie them together.

use serde::{Deserialize, Serialize};
use sim_core::Ps;
use std::ops::AddAssign;
use thiserror::Error;

/// Counters of a subchannel, or the sum of several.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DramStats {
    /// Reads accepted, forwarded ones included.
    pub reads: u64,
    /// Full writes accepted, merged ones included.
    pub writes: u64,
    /// Partial writes accepted, merged ones included.
    pub partial_writes: u64,
    /// Reads answered from the write queue (timing.md §1.4, WPQ CAM).
    pub forwarded: u64,
    /// Full and partial writes taken by an entry that was already queued.
    pub merged: u64,
    /// Underfill reads queued: one per partial write that misses the write queue (timing.md §1.4).
    pub underfills: u64,
    /// Reads whose data has been delivered, forwarded ones included.
    pub reads_done: u64,
    /// Underfill reads whose data has come.
    pub underfills_done: u64,
    /// ACT commands.
    pub acts: u64,
    /// PRE commands.
    pub pres: u64,
    /// PREab commands.
    pub pre_alls: u64,
    /// RD commands, demand and underfill; RDA not included.
    pub rds: u64,
    /// WR commands; WRA not included.
    pub wrs: u64,
    /// RDA commands: RD with auto-precharge.
    pub rdas: u64,
    /// WRA commands: WR with auto-precharge.
    pub wras: u64,
    /// REFab commands.
    pub refresh_all: u64,
    /// REFsb commands.
    pub refresh_same: u64,
    /// Column commands whose row was open already when their turn came.
    pub row_hits: u64,
    /// Column commands for which a closed bank was opened.
    pub row_misses: u64,
    /// Column commands for which another row was closed first.
    pub row_conflicts: u64,
    /// Turns from reading to writing or back, counted at the column command.
    pub turnarounds: u64,
    /// Time during which the data bus carried bursts.
    pub bus_busy: Ps,
    /// Clocks during which some request was queued.
    pub queued_clocks: u64,
    /// Entries of the read queue, underfill reads included, times the clocks they were there: at each change, the length
    /// before it times the clocks since the last change.
    pub read_queue_clocks: u64,
    /// The same for the write queue.
    pub write_queue_clocks: u64,
    /// Sum over entries that left the read queue: clocks from arrival to the column command.
    pub read_queue_wait: u64,
    /// Sum over entries that left the write queue: clocks from arrival to the column command.
    pub write_queue_wait: u64,
    /// Sum over reads done: from arrival to the last beat of data.
    pub read_latency: Ps,
    /// The longest of these.
    pub read_latency_max: Ps,
    /// How often which latency.
    pub read_latencies: LatencyHistogram,
}

/// Octaves of a [`LatencyHistogram`].
const OCTAVES: usize = 32;
/// The shortest latency told apart is 2^this picoseconds.
const SHORTEST: u32 = 10;

/// How often which read latency came: by the power of two of picoseconds (from 1024 ps) and the quarter of its octave.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LatencyHistogram {
    counts: [[u64; 4]; OCTAVES],
}

impl LatencyHistogram {
    pub(super) fn record(&mut self, latency: Ps) {
        // What is shorter counts as the shortest, what is longer as the longest.
        let ps = latency.0.max(1 << SHORTEST);
        let octave = ps.ilog2();
        let quarter = (ps >> (octave - 2)) as usize & 3;
        let octave = ((octave - SHORTEST) as usize).min(OCTAVES - 1);
        self.counts[octave][quarter] += 1;
    }
    /// The buckets that are not empty, shortest first: the latency from which the bucket counts, and its count. The first
    /// bucket of all (1.024 ns) holds whatever is shorter too.
    pub fn buckets(&self) -> impl Iterator<Item = (Ps, u64)> + '_ {
        let all = (SHORTEST..).zip(&self.counts).flat_map(|(octave, quarters)| {
            (4u64..).zip(quarters).map(move |(n, &count)| (Ps(n << octave >> 2), count))
        });
        all.filter(|&(_, count)| count > 0)
    }
    /// How many latencies were recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }
    /// The start of the bucket that holds the latency below which `per_mille` thousandths of all lie; zero if there are
    /// none.
    pub fn quantile(&self, per_mille: u64) -> Ps {
        let rank = u128::from(self.total()) * u128::from(per_mille.min(1000)) / 1000;
        let mut below = 0u128;
        let mut last = Ps::ZERO;
        for (start, count) in self.buckets() {
            below += u128::from(count);
            last = start;
            if below > rank {
                break;
            }
        }
        last
    }
}

impl AddAssign for LatencyHistogram {
    fn add_assign(&mut self, o: LatencyHistogram) {
        for (to, from) in self.counts.iter_mut().flatten().zip(o.counts.iter().flatten()) {
            *to += from;
        }
    }
}

impl AddAssign for DramStats {
    fn add_assign(&mut self, o: DramStats) {
        self.reads += o.reads;
        self.writes += o.writes;
        self.partial_writes += o.partial_writes;
        self.forwarded += o.forwarded;
        self.merged += o.merged;
        self.underfills += o.underfills;
        self.reads_done += o.reads_done;
        self.underfills_done += o.underfills_done;
        self.acts += o.acts;
        self.pres += o.pres;
        self.pre_alls += o.pre_alls;
        self.rds += o.rds;
        self.wrs += o.wrs;
        self.rdas += o.rdas;
        self.wras += o.wras;
        self.refresh_all += o.refresh_all;
        self.refresh_same += o.refresh_same;
        self.row_hits += o.row_hits;
        self.row_misses += o.row_misses;
        self.row_conflicts += o.row_conflicts;
        self.turnarounds += o.turnarounds;
        self.bus_busy += o.bus_busy;
        self.queued_clocks += o.queued_clocks;
        self.read_queue_clocks += o.read_queue_clocks;
        self.write_queue_clocks += o.write_queue_clocks;
        self.read_queue_wait += o.read_queue_wait;
        self.write_queue_wait += o.write_queue_wait;
        self.read_latency += o.read_latency;
        self.read_latency_max = self.read_latency_max.max(o.read_latency_max);
        self.read_latencies += o.read_latencies;
    }
}

impl DramStats {
    /// Commands that moved data: RD, RDA, WR, WRA.
    pub const fn column_commands(&self) -> u64 {
        self.rds + self.rdas + self.wrs + self.wras
    }
    /// All commands.
    pub const fn commands(&self) -> u64 {
        self.column_commands()
            + self.acts
            + self.pres
            + self.pre_alls
            + self.refresh_all
            + self.refresh_same
    }
}

/// What a subchannel holds at a moment, beside what it has counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct InFlight {
    /// Reads in the read queue.
    pub queued_reads: u64,
    /// Reads whose data is on its way.
    pub flying_reads: u64,
    /// Underfill reads in the read queue.
    pub queued_underfills: u64,
    /// Underfill reads whose data is on its way.
    pub flying_underfills: u64,
    /// Writes in the write queue, those that wait for underfill data included.
    pub queued_writes: u64,
    /// Of these, those that wait.
    pub waiting_writes: u64,
    /// Clocks that the entries now in the read queue have spent there.
    pub read_queue_wait: u64,
    /// Clocks that the entries now in the write queue have spent there.
    pub write_queue_wait: u64,
}

impl InFlight {
    /// Requests and underfill reads that are not done.
    pub const fn total(&self) -> u64 {
        self.queued_reads
            + self.flying_reads
            + self.queued_underfills
            + self.flying_underfills
            + self.queued_writes
    }
}

impl AddAssign for InFlight {
    fn add_assign(&mut self, o: InFlight) {
        self.queued_reads += o.queued_reads;
        self.flying_reads += o.flying_reads;
        self.queued_underfills += o.queued_underfills;
        self.flying_underfills += o.flying_underfills;
        self.queued_writes += o.queued_writes;
        self.waiting_writes += o.waiting_writes;
        self.read_queue_wait += o.read_queue_wait;
        self.write_queue_wait += o.write_queue_wait;
    }
}

/// A rule that holds at every moment: two sums that are equal.
#[derive(Clone, Copy, Debug)]
pub struct ConservationRule {
    /// What is conserved.
    pub name: &'static str,
    /// The left side, from counters and what is held.
    pub left: fn(&DramStats, &InFlight) -> u64,
    /// The right side.
    pub right: fn(&DramStats, &InFlight) -> u64,
    /// Both sides in words, and why they are equal.
    pub definition: &'static str,
}

const fn rule(
    name: &'static str,
    left: fn(&DramStats, &InFlight) -> u64,
    right: fn(&DramStats, &InFlight) -> u64,
    definition: &'static str,
) -> ConservationRule {
    ConservationRule { name, left, right, definition }
}

/// What holds at every moment for each subchannel, and so for their sum (verification.md §2.11 Q1, Q13, Q14).
#[rustfmt::skip]
pub const CONSERVATION_RULES: [ConservationRule; 9] = [
    rule("reads", |s, _| s.reads, |s, f| s.reads_done + f.queued_reads + f.flying_reads,
        "reads accepted = delivered + queued + on their way"),
    rule("writes", |s, _| s.writes + s.partial_writes, |s, f| s.merged + s.wrs + s.wras + f.queued_writes,
        "full and partial writes accepted = merged + WR + WRA + queued"),
    rule("underfill reads", |s, _| s.underfills, |s, f| s.underfills_done + f.queued_underfills + f.flying_underfills,
        "underfill reads queued = returned + queued + on their way"),
    rule("waiting writes", |_, f| f.waiting_writes, |_, f| f.queued_underfills + f.flying_underfills,
        "a partial write waits exactly while its underfill read is out"),
    rule("RD commands", |s, f| s.rds + s.rdas + f.queued_reads + f.queued_underfills, |s, _| s.reads - s.forwarded + s.underfills,
        "RD + RDA + queued = reads that were not forwarded + underfill reads"),
    rule("column commands", |s, _| s.column_commands(), |s, _| s.row_hits + s.row_misses + s.row_conflicts,
        "RD + WR + RDA + WRA = row hits + misses + conflicts"),
    rule("reads delivered", |s, _| s.reads_done, |s, _| s.read_latencies.total(),
        "every delivered read is in the latency histogram once"),
    rule("read-queue occupancy", |s, _| s.read_queue_clocks, |s, f| s.read_queue_wait + f.read_queue_wait,
        "length x elapsed = sum of waits (Little's law before division by time)"),
    rule("write-queue occupancy", |s, _| s.write_queue_clocks, |s, f| s.write_queue_wait + f.write_queue_wait,
        "length x elapsed = sum of waits (Little's law before division by time)"),
];

/// Checks all rules.
///
/// # Errors
/// The first that is broken.
pub(super) fn check(stats: &DramStats, held: &InFlight) -> Result<(), Imbalance> {
    for rule in &CONSERVATION_RULES {
        let (entered, accounted) = ((rule.left)(stats, held), (rule.right)(stats, held));
        if entered != accounted {
            return Err(Imbalance { what: rule.name, entered, accounted });
        }
    }
    Ok(())
}

/// A rule of [`CONSERVATION_RULES`] is broken: a request was lost or made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{what}: {entered} entered, {accounted} are done or in flight")]
pub struct Imbalance {
    /// Name of the rule.
    pub what: &'static str,
    /// Its left side.
    pub entered: u64,
    /// Its right side.
    pub accounted: u64,
}
