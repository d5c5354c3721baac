//! Cores that issue streams ([`Machine::advance_streams`]): the whole way of an access through window, caches, controller
//! with MKTME and DRAM, with the log off. The caches are those of peers.md §1: L1D 48 KiB, L2 512 KiB, LLC 2 MiB.
//!
//! A footprint of the first three levels is walked round and round in a scattered order. Replacement is LRU, so a footprint
//! beyond a level's capacity never hits there, and each workload is answered by one level alone. The fourth footprint is
//! met at random.

use crate::{Runner, SetupError, Workload, random, spr};
use machine::{
    AgentKind, AgentSpec, CryptoKind, Machine, Options, Source, Speed, StreamKind, StreamOp,
};
use scenarios::run::linux;
use sim_core::op::Op;
use sim_core::platform::CacheGeometry;
use sim_core::{Addr, Hpa, KeyId, Page};

/// A footprint in lines, and the step with which it is walked: odd, and near the golden section of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    lines: u64,
    /// 0: uniform random.
    step: u64,
}

/// 16 KiB: a third of L1D.
pub const IN_L1: Footprint = Footprint { lines: 1 << 8, step: 157 };
/// 256 KiB: half of L2.
pub const IN_L2: Footprint = Footprint { lines: 1 << 12, step: 2531 };
/// 2 MiB: what L2 does not hold of it fills three quarters of the LLC, which holds nothing that L2 holds.
pub const IN_LLC: Footprint = Footprint { lines: 1 << 15, step: 20_251 };
/// 1 GiB: beyond everything.
pub const IN_DRAM: Footprint = Footprint { lines: 1 << BITS, step: 0 };
const BITS: u32 = 24;

macro_rules! stream {
    ($name:literal, $speed:ident, $footprint:ident, $mix:ident) => {
        Workload {
            group: "stream",
            name: concat!("stream/", $name),
            unit: "access",
            batch: 1 << 14,
            make: || runner(Core::new(Speed::$speed, $footprint, Mix::$mix)?),
        }
    };
}

/// Loads, stores and their mix, answered by each level, timed; loads at the functional speed.
pub const WORKLOADS: &[Workload] = &[
    stream!("load-l1", Timed, IN_L1, Loads),
    stream!("load-l2", Timed, IN_L2, Loads),
    stream!("load-llc", Timed, IN_LLC, Loads),
    stream!("load-dram", Timed, IN_DRAM, Loads),
    stream!("store-l1", Timed, IN_L1, Stores),
    stream!("store-l2", Timed, IN_L2, Stores),
    stream!("store-llc", Timed, IN_LLC, Stores),
    stream!("store-dram", Timed, IN_DRAM, Stores),
    stream!("half-l1", Timed, IN_L1, Half),
    stream!("half-dram", Timed, IN_DRAM, Half),
    stream!("functional-l1", Functional, IN_L1, Loads),
    stream!("functional-dram", Functional, IN_DRAM, Loads),
];

/// 4 MiB: beyond all caches, and quickly met whole.
pub const BEYOND: Footprint = Footprint { lines: 1 << 16, step: 40_503 };

/// What the accesses are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mix {
    /// Loads of 8 bytes.
    Loads,
    /// Write-back stores of 8 bytes.
    Stores,
    /// By a coin, one or the other.
    Half,
}

/// An endless stream over a footprint.
struct Accesses {
    footprint: Footprint,
    mix: Mix,
    next: u64,
    line: u64,
}

impl Source for Accesses {
    #[inline]
    fn next(&mut self) -> Option<StreamOp> {
        let Footprint { lines, step } = self.footprint;
        let i = self.next;
        self.next += 1;
        let line = if step == 0 {
            random(i, BITS)
        } else {
            self.line += step;
            if self.line >= lines {
                self.line -= lines;
            }
            self.line
        };
        let store = match self.mix {
            Mix::Loads => false,
            Mix::Stores => true,
            Mix::Half => random(i, 1) == 1,
        };
        let kind = if store { StreamKind::Store } else { StreamKind::Load };
        // The part of a line that is meant changes from line to line.
        Some(StreamOp::new(kind, Addr::new(Hpa(line << 6 | (line & 7) << 3), KeyId::TME)))
    }
}

/// A machine one core of which issues a stream.
pub struct Core {
    machine: Machine,
    os: host::mce::LinuxMce,
    accesses: Accesses,
}

impl Core {
    /// A core whose footprint is where it will be met, in memory that somebody has written, as a program's is.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new(speed: Speed, footprint: Footprint, mix: Mix) -> Result<Core, SetupError> {
        let mut spec = spr()?.spec;
        spec.cpu.l1d = CacheGeometry { size: 48 << 10, ways: 12 };
        spec.cpu.l2 = CacheGeometry { size: 512 << 10, ways: 16 };
        spec.cpu.llc = CacheGeometry { size: 2 << 20, ways: 16 };
        // The preset's slices and their hash are made for 60 MiB. The snoop filter holds four times the lines of L2.
        spec.cpu.llc_slices = 1;
        spec.cpu.snoop_filter.sets = 2048;
        let options =
            Options { speed: Speed::Functional, crypto: CryptoKind::Symbolic, seed: 0, log: false };
        let mut machine = Machine::new(&spec, options)?;
        let agent = machine.add_agent(AgentSpec {
            name: "program".to_owned(),
            kind: AgentKind::Kernel,
            core: 0,
            keyid: KeyId::TME,
            vcpu: None,
        });
        let mut os = linux(&spec);
        for page in 0..(footprint.lines >> 6).max(1) {
            let at = Addr::new(Page(page).hpa(), KeyId::TME);
            machine.execute(agent, &Op::Movdir64bPage { at }, 0, &mut os);
        }
        machine.settle();
        if mix != Mix::Loads {
            // A store to one line of each page: from then on the controller knows the page line by line.
            let mut page = 0;
            let pages = footprint.lines >> 6;
            let mut touch = || {
                let at = Addr::new(Page(page).hpa(), KeyId::TME);
                page += 1;
                (page <= pages).then(|| StreamOp::new(StreamKind::Store, at))
            };
            machine.run_streams(&mut [(agent, &mut touch)], &mut os);
        }
        let accesses = Accesses { footprint, mix, next: 0, line: 0 };
        machine.start_streams(&[agent]);
        let mut core = Core { machine, os, accesses };
        // Twice what the caches hold together fills them.
        core.run(2 * footprint.lines.min(HELD));
        core.machine.set_speed(speed);
        core.run(1 << 10);
        Ok(core)
    }

    /// About so many accesses; gives the moment that this takes the machine to.
    pub fn run(&mut self, accesses: u64) -> u64 {
        self.machine.advance_streams(&mut [&mut self.accesses], accesses, &mut self.os);
        self.machine.now().0
    }

    /// The machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// Lines that L2 and LLC hold together.
const HELD: u64 = (512 + 2048) << 10 >> 6;

fn runner(mut core: Core) -> Result<Runner, SetupError> {
    Ok(Box::new(move |n| Ok(core.run(n))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Level;

    /// Accesses by level of a run of `2^12`, of which at least so many must be made.
    fn levels(speed: Speed, footprint: Footprint, mix: Mix) -> [u64; 7] {
        let mut core = Core::new(speed, footprint, mix).unwrap();
        let before = *core.machine().counts();
        core.run(1 << 12);
        let after = *core.machine().counts();
        assert_eq!(core.machine().conservation(), [""; 0]);
        assert_eq!(after.operations - before.operations, 1 << 12);
        std::array::from_fn(|i| after.by_level[i] - before.by_level[i])
    }

    #[test]
    fn each_footprint_is_answered_by_its_level_alone() {
        for (footprint, level) in [(IN_L1, Level::L1), (IN_L2, Level::L2), (IN_LLC, Level::Llc)] {
            for mix in [Mix::Loads, Mix::Stores] {
                let got = levels(Speed::Timed, footprint, mix);
                let mut want = [0; 7];
                want[level as usize] = 1 << 12;
                assert_eq!(got, want, "{level:?} {mix:?}");
            }
        }
    }

    #[test]
    fn a_footprint_beyond_the_caches_is_answered_by_memory_but_for_chance_hits() {
        let got = levels(Speed::Timed, IN_DRAM, Mix::Half);
        assert!(got[Level::Memory as usize] > 4000, "{got:?}");
    }

    #[test]
    fn every_workload_goes_on_for_as_long_as_it_is_asked_to() {
        for mix in [Mix::Loads, Mix::Stores] {
            let mut core = Core::new(Speed::Timed, BEYOND, mix).unwrap();
            let before = core.machine().counts().operations;
            core.run(40_000);
            assert_eq!(core.machine().counts().operations - before, 40_000, "{mix:?}");
        }
    }
}
