//! What caches and devices see of the memory controller: its semantics at once, its time on record.

use crate::exec::Counts;
use mktme::Controller;
use mktme::dram::Kind;
use serde::{Deserialize, Serialize};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::{BirthId, Trace};
use sim_core::port::{Fill, LinePort};
use sim_core::{Line, Tagged};

/// A request whose time has still to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Traffic {
    pub(crate) line: Line,
    pub(crate) kind: Kind,
    /// Whether the operation waits for the answer.
    pub(crate) demand: bool,
}

pub(crate) struct Bus<'a> {
    pub(crate) memory: &'a mut Controller,
    pub(crate) trace: &'a mut Trace,
    pub(crate) traffic: &'a mut Vec<Traffic>,
    pub(crate) counts: &'a mut Counts,
    pub(crate) timed: bool,
}

impl Bus<'_> {
    fn record(&mut self, line: Line, kind: Kind) {
        if self.timed {
            self.traffic.push(Traffic { line, kind, demand: matches!(kind, Kind::Read) });
        }
    }
}

impl LinePort for Bus<'_> {
    fn read(&mut self, at: Tagged) -> Fill {
        self.counts.controller_reads += 1;
        self.record(at.line(), Kind::Read);
        self.memory.read(at, self.trace)
    }
    fn write(&mut self, at: Tagged, data: &LineData, poison: Option<BirthId>) {
        self.counts.controller_writes += 1;
        self.record(at.line(), Kind::Write);
        self.memory.write(at, data, poison, self.trace);
    }
    fn write_partial(&mut self, at: Tagged, data: &LineData, mask: ByteMask) {
        self.counts.controller_partial_writes += 1;
        self.record(at.line(), Kind::PartialWrite);
        self.memory.write_partial(at, data, mask, self.trace);
    }
    fn trace(&mut self) -> &mut Trace {
        self.trace
    }
}
