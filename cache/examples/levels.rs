//! Accesses answered by one level each, for instruction counts: `levels LEVEL COUNT` with LEVEL `l1`, `l2`, `llc`, `memory`
//! or `warm` (nothing but what comes before), loads; with `+` behind it, stores.
//!
//! Geometry of peers.md §1: L1 48 KiB in 12 ways, L2 512 KiB in 8, LLC 2 MiB in 16. Count with
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null`, and take the difference of two counts.

use cache::Hierarchy;
use sim_core::outcome::DataClass;
use sim_core::platform::{CacheGeometry, CpuSpec, SnoopFilterGeometry, XorMasks};
use sim_core::port::{Fill, LinePort};
use sim_core::time::Clock;
use sim_core::{BirthId, ByteMask, KeyId, Line, LineData, Ps, Tagged, Trace};
use std::hint::black_box;

/// Memory of zeros that costs nothing.
struct Zeros(Trace);

impl LinePort for Zeros {
    fn read(&mut self, _: Tagged) -> Fill {
        Fill { data: LineData::ZERO, poison: None, class: DataClass::Plain }
    }
    fn write(&mut self, at: Tagged, data: &LineData, _: Option<BirthId>) {
        black_box((at, data));
    }
    fn write_partial(&mut self, at: Tagged, data: &LineData, _: ByteMask) {
        black_box((at, data));
    }
    fn trace(&mut self) -> &mut Trace {
        &mut self.0
    }
}

fn cpu() -> CpuSpec {
    CpuSpec {
        packages: 1,
        cores: 4,
        core_clock: Clock { mhz: 2200 },
        l1d: CacheGeometry { size: 48 << 10, ways: 12 },
        l2: CacheGeometry { size: 512 << 10, ways: 8 },
        llc: CacheGeometry { size: 2 << 20, ways: 16 },
        llc_slices: 4,
        slice_hash: XorMasks::new(&[0x2_0040, 0x4_0080]),
        snoop_filter: SnoopFilterGeometry { sets: 1024, ways: 16 },
        l1_clocks: 5,
        l2_clocks: 10,
        miss_clocks: 6,
        window: 512,
        width: 6,
        fill_buffers: 16,
        superqueue: 48,
        store_buffer: 112,
        direct_stores: 4,
        flush_sub_blocks: 4,
        wc_buffers: 16,
        weak_slots: 16,
        wc_age: Ps::ZERO,
        fast_string_no_rfo: true,
        rfo_poison_mc: false,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let level = args.next().unwrap_or_default();
    let count: u64 = args.next().unwrap_or_default().parse()?;
    let store = level.ends_with('+');
    let lines: u64 = match level.trim_end_matches('+') {
        "l1" => 256,
        "l2" => 4 << 10,
        "llc" => 16 << 10,
        "memory" => 1 << 20,
        other => return Err(format!("no level {other:?}").into()),
    };
    let mut caches = Hierarchy::new(&cpu(), Ps::ns(10))?;
    let mut memory = Zeros(Trace::new(false));
    // Scattered and round and round: with LRU a footprint beyond a level never hits there.
    let scattered = |i: u64| i.wrapping_mul(0x9E37_79B1) & (lines - 1);
    let data = LineData::filled(7);
    let mask = ByteMask::span(8, 8);
    for i in 0..lines.min(1 << 17) + count {
        let at = Tagged::new(Line(scattered(i)), KeyId(1));
        if store {
            black_box(caches.store(0, at, &data, mask, &mut memory));
        } else {
            black_box(caches.load(0, at, &mut memory));
        }
    }
    black_box(caches.stats());
    Ok(())
}
