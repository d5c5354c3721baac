//! What a subchannel has done, as plain counters.

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
    /// RD commands: demand and underfill.
    pub rds: u64,
    /// WR commands.
    pub wrs: u64,
    /// ACT commands.
    pub acts: u64,
    /// PRE commands.
    pub pres: u64,
    /// RD and WR whose row was open already when their turn came.
    pub row_hits: u64,
    /// RD and WR for which a closed bank was opened.
    pub row_misses: u64,
    /// RD and WR for which another row was closed first.
    pub row_conflicts: u64,
    /// Turns from reading to writing or back, counted at the column command.
    pub turnarounds: u64,
    /// Time during which the data bus carried bursts.
    pub bus_busy: Ps,
    /// Sum over reads done: from arrival to the last beat of data.
    pub read_latency: Ps,
    /// The longest of these.
    pub read_latency_max: Ps,
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
        self.rds += o.rds;
        self.wrs += o.wrs;
        self.acts += o.acts;
        self.pres += o.pres;
        self.row_hits += o.row_hits;
        self.row_misses += o.row_misses;
        self.row_conflicts += o.row_conflicts;
        self.turnarounds += o.turnarounds;
        self.bus_busy += o.bus_busy;
        self.read_latency += o.read_latency;
        self.read_latency_max = self.read_latency_max.max(o.read_latency_max);
    }
}

/// A request was lost or made up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{what}: {entered} entered, {accounted} are done or in flight")]
pub struct Imbalance {
    /// Which kind of request.
    pub what: &'static str,
    /// How many came in.
    pub entered: u64,
    /// How many are done, queued or on their way.
    pub accounted: u64,
}
