//! Cached accesses through [`Machine::execute`]: the whole way of an operation, with the log off.
//!
//! A footprint is walked round and round in a scattered order. Replacement is LRU, so a footprint beyond a level's
//! capacity never hits there, and each workload is answered by one level alone.

use crate::{Runner, SetupError, Workload, scattered, spr};
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Machine, Options, Speed};
use scenarios::run::linux;
use sim_core::op::{MemType, Op, Value};
use sim_core::{Addr, Hpa, KeyId, Page};

/// 16 KiB: a third of L1D.
const IN_L1: u32 = 8;
/// 1 MiB: beyond L1D, half of L2.
const IN_L2: u32 = 14;
/// 16 MiB: beyond L2, a quarter of the LLC.
const IN_LLC: u32 = 18;
/// 1 GiB: beyond everything.
const IN_DRAM: u32 = 24;

macro_rules! cached {
    ($name:literal, $speed:ident, $bits:ident, $store:literal) => {
        Workload {
            group: "cached",
            name: concat!("cached/", $name),
            unit: "access",
            batch: 1 << 14,
            make: || runner(Walk::new(Speed::$speed, $bits, $store)?),
        }
    };
}

/// Loads and stores of 8 bytes, answered by each level, in both speeds.
pub const WORKLOADS: &[Workload] = &[
    cached!("functional-load-l1", Functional, IN_L1, false),
    cached!("functional-load-l2", Functional, IN_L2, false),
    cached!("functional-load-llc", Functional, IN_LLC, false),
    cached!("functional-load-dram", Functional, IN_DRAM, false),
    cached!("functional-store-l1", Functional, IN_L1, true),
    cached!("functional-store-l2", Functional, IN_L2, true),
    cached!("functional-store-llc", Functional, IN_LLC, true),
    cached!("functional-store-dram", Functional, IN_DRAM, true),
    cached!("timed-load-l1", Timed, IN_L1, false),
    cached!("timed-load-l2", Timed, IN_L2, false),
    cached!("timed-load-llc", Timed, IN_LLC, false),
    cached!("timed-load-dram", Timed, IN_DRAM, false),
    cached!("timed-store-l1", Timed, IN_L1, true),
    cached!("timed-store-l2", Timed, IN_L2, true),
    cached!("timed-store-llc", Timed, IN_LLC, true),
    cached!("timed-store-dram", Timed, IN_DRAM, true),
];

/// Lines that L2 and LLC of the preset hold together, and some more: from then on every fill of a footprint beyond them
/// drives a line out.
const FULL: u64 = 1 << 20;

/// One core that walks a footprint.
pub struct Walk {
    machine: Machine,
    os: host::mce::LinuxMce,
    agent: AgentId,
    bits: u32,
    store: bool,
    next: u64,
}

impl Walk {
    /// A walk over `2^bits` lines on a cold machine.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn cold(speed: Speed, bits: u32, store: bool) -> Result<Walk, SetupError> {
        let spec = spr()?.spec;
        let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 0, log: false };
        let mut machine = Machine::new(&spec, options)?;
        let agent = machine.add_agent(AgentSpec {
            name: "program".to_owned(),
            kind: AgentKind::Kernel,
            core: 0,
            keyid: KeyId::TME,
            vcpu: None,
        });
        Ok(Walk { machine, os: linux(&spec), agent, bits, store, next: 0 })
    }

    /// A walk whose lines are where they will be met.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new(speed: Speed, bits: u32, store: bool) -> Result<Walk, SetupError> {
        let mut walk = Walk::cold(Speed::Functional, bits, store)?;
        // Memory that somebody has written, as a program's is.
        for page in 0..1u64 << bits.saturating_sub(6) {
            let at = Addr::new(Page(page).hpa(), KeyId::TME);
            walk.machine.execute(walk.agent, &Op::Movdir64bPage { at }, 0, &mut walk.os);
        }
        walk.run(FULL.min(1 << bits));
        walk.machine.set_speed(speed);
        Ok(walk)
    }

    /// So many accesses.
    pub fn run(&mut self, accesses: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..accesses {
            // The part of a line that is meant changes from line to line.
            let line = scattered(self.next, self.bits);
            let at = Addr::new(Hpa(line << 6 | (line & 7) << 3), KeyId::TME);
            let (bytes, ty) = (8, MemType::Wb);
            let op = if self.store {
                Op::Store { at, bytes, value: Value::Num(self.next), ty }
            } else {
                Op::Load { at, bytes, ty }
            };
            self.next += 1;
            let record = self.machine.execute(self.agent, &op, 0, &mut self.os);
            sum ^= record.end.0;
        }
        sum
    }

    /// The machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}

fn runner(mut walk: Walk) -> Result<Runner, SetupError> {
    Ok(Box::new(move |n| Ok(walk.run(n))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{Level, level_counts};

    /// Accesses by level of one more walk over `2^bits` lines after a first.
    fn second_walk(speed: Speed, bits: u32, store: bool) -> Vec<(&'static str, u64)> {
        let mut walk = Walk::cold(Speed::Functional, bits, store).unwrap();
        walk.run(1 << bits);
        let before: Vec<u64> = level_counts(walk.machine().counts()).map(|(_, n)| n).collect();
        walk.machine.set_speed(speed);
        walk.run(1 << 10);
        assert_eq!(walk.machine().conservation(), [""; 0]);
        level_counts(walk.machine().counts())
            .zip(before)
            .map(|((name, n), old)| (name, n - old))
            .filter(|(_, n)| *n != 0)
            .collect()
    }

    #[test]
    fn each_footprint_is_answered_by_its_level_alone() {
        let level = |level: Level| machine::LEVELS[level as usize].1;
        for store in [false, true] {
            for (bits, want) in [(IN_L1, Level::L1), (IN_L2, Level::L2), (IN_LLC, Level::Llc)] {
                let speed = if store { Speed::Timed } else { Speed::Functional };
                assert_eq!(second_walk(speed, bits, store), [(level(want), 1 << 10)]);
            }
        }
    }

    #[test]
    fn a_footprint_beyond_the_caches_is_answered_by_memory_alone() {
        let mut walk = Walk::cold(Speed::Timed, IN_DRAM, true).unwrap();
        walk.run(1 << 10);
        assert_eq!(walk.machine().counts().controller_reads, 1 << 10);
        let caches = walk.machine().spec().cpu;
        assert!((caches.l2.size + caches.llc.size) >> 6 < FULL);
        const { assert!(FULL < 1 << IN_DRAM) };
    }
}
