//! A small memory controller with a symbolic TD bit per line, and small platforms.
#![allow(dead_code, reason = "each test binary uses a part")]

use cache::Hierarchy;
use sim_core::event::{BirthCause, Location};
use sim_core::outcome::DataClass;
use sim_core::platform::{CacheGeometry, CpuSpec, SnoopFilterGeometry, XorMasks};
use sim_core::port::{Fill, LinePort};
use sim_core::time::Clock;
use sim_core::{BirthId, ByteMask, KeyId, Line, LineData, Ps, Tagged, Trace};
use std::collections::BTreeMap;

pub(crate) const POST: Ps = Ps::ns(10);

/// A line as memory holds it. `wk` is the last full-line writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dram {
    pub(crate) data: LineData,
    pub(crate) td: bool,
    pub(crate) poison: Option<BirthId>,
    pub(crate) wk: Option<KeyId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Read(Tagged, Fill),
    Write(Tagged, LineData, Option<BirthId>),
    Partial(Tagged, LineData, ByteMask),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    pub(crate) lines: BTreeMap<Line, Dram>,
    pub(crate) log: Vec<Call>,
    pub(crate) trace: Trace,
    pub(crate) erratum: bool,
}

/// Private KeyIDs are those from 32 on, as with one private bit of six.
pub(crate) fn private(key: KeyId) -> bool {
    key.0 >= 32
}

impl Memory {
    pub(crate) fn new(erratum: bool) -> Memory {
        Memory { lines: BTreeMap::new(), log: Vec::new(), trace: Trace::new(true), erratum }
    }
    pub(crate) fn line(&self, line: Line) -> Dram {
        self.lines.get(&line).copied().unwrap_or_default()
    }
    pub(crate) fn poisoned(&self) -> u64 {
        self.lines.values().filter(|l| l.poison.is_some()).count() as u64
    }
    pub(crate) fn take_log(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.log)
    }
    pub(crate) fn writes(&self) -> Vec<Call> {
        self.log.iter().copied().filter(|c| !matches!(c, Call::Read(..))).collect()
    }
    /// The content under a key, Li: no MAC; a wrong private key of a TD=1 line gives garbage.
    fn content(&self, at: Tagged) -> (LineData, DataClass) {
        let line = self.line(at.line());
        match line.wk {
            Some(wk) if private(at.keyid()) != private(wk) => (LineData::ZERO, DataClass::Blocked),
            Some(wk) if wk != at.keyid() => (LineData(line.data.0.map(|w| !w)), DataClass::Garbage),
            _ => (line.data, DataClass::Plain),
        }
    }
}

impl LinePort for Memory {
    fn read(&mut self, at: Tagged) -> Fill {
        let mut line = self.line(at.line());
        if line.poison.is_none() && private(at.keyid()) && !line.td {
            line.poison = Some(self.trace.born(at, BirthCause::TdMismatch));
            self.lines.insert(at.line(), line);
        }
        let fill = match line.poison {
            Some(_) => {
                Fill { data: LineData::ZERO, poison: line.poison, class: DataClass::Blocked }
            }
            None => {
                let (data, class) = self.content(at);
                Fill { data, poison: None, class }
            }
        };
        self.log.push(Call::Read(at, fill));
        fill
    }
    fn write(&mut self, at: Tagged, data: &LineData, poison: Option<BirthId>) {
        let old = self.line(at.line()).poison;
        if old != poison {
            if let Some(birth) = poison {
                self.trace.poison_copied(birth, Location::Dram(at.line()));
            }
            if let Some(birth) = old {
                self.trace.poison_gone(birth, Location::Dram(at.line()));
            }
        }
        let line = Dram { data: *data, td: private(at.keyid()), poison, wk: Some(at.keyid()) };
        self.lines.insert(at.line(), line);
        self.log.push(Call::Write(at, *data, poison));
    }
    fn write_partial(&mut self, at: Tagged, data: &LineData, mask: ByteMask) {
        let mut line = self.line(at.line());
        if self.erratum && line.td && !private(at.keyid()) {
            if line.poison.is_none() {
                line.poison = Some(self.trace.born(at, BirthCause::PartialWrite));
            }
        } else {
            let mut merged = self.content(at).0;
            merged.merge(data, mask);
            line = Dram { data: merged, td: private(at.keyid()), wk: Some(at.keyid()), ..line };
        }
        self.lines.insert(at.line(), line);
        self.log.push(Call::Partial(at, *data, mask));
    }
    fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }
}

pub(crate) const fn sets_ways(sets: u64, ways: u8) -> CacheGeometry {
    CacheGeometry { size: 64 * sets * ways as u64, ways }
}

/// Two packages of two cores.
pub(crate) fn spec(l1: CacheGeometry, l2: CacheGeometry, llc: CacheGeometry) -> CpuSpec {
    CpuSpec {
        packages: 2,
        cores: 4,
        core_clock: Clock { mhz: 2000 },
        l1d: l1,
        l2,
        llc,
        l1_clocks: 5,
        l2_clocks: 9,
        miss_clocks: 5,
        window: 64,
        width: 4,
        fill_buffers: 4,
        superqueue: 8,
        store_buffer: 8,
        direct_stores: 4,
        llc_slices: 2,
        // The parity of the line's bits 0 and 6.
        slice_hash: XorMasks::new(&[0x1040]),
        snoop_filter: SnoopFilterGeometry { sets: 8, ways: 16 },
        flush_sub_blocks: 2,
        wc_buffers: 2,
        weak_slots: 2,
        wc_age: Ps::ZERO,
        fast_string_no_rfo: true,
        rfo_poison_mc: false,
    }
}

/// Enough room for everything a short test does.
pub(crate) fn roomy() -> CpuSpec {
    spec(sets_ways(2, 8), sets_ways(4, 8), sets_ways(8, 8))
}

/// One way of two sets in L1 and L2, so that two loads push a line out of a core.
pub(crate) fn tiny() -> CpuSpec {
    spec(sets_ways(2, 1), sets_ways(2, 1), sets_ways(2, 4))
}

pub(crate) fn build(spec: &CpuSpec) -> Hierarchy {
    Hierarchy::new(spec, POST).unwrap()
}

pub(crate) const fn at(line: u64, key: u16) -> Tagged {
    Tagged::new(Line(line), KeyId(key))
}

pub(crate) const fn fill(byte: u8) -> LineData {
    LineData::filled(byte)
}

/// Bytes 0 to `n` of a line.
pub(crate) const fn first(n: usize) -> ByteMask {
    ByteMask::span(0, n)
}

/// Locations of poison that the ledger must know.
pub(crate) fn poison_places(h: &Hierarchy, memory: &Memory) -> u64 {
    memory.poisoned() + h.resident_lines().filter(|l| l.poison.is_some()).count() as u64
}
