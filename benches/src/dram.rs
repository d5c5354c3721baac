//! A bare DDR5 channel, driven as other simulators are measured (peers.md §1): request i is a pure function of i, 1 GiB
//! footprint, one channel, DDR5-4800 of the preset with all its parameters, every command modelled, statistics on.

use crate::{Runner, SetupError, Workload, random, spr};
use mktme::dram::{Dram, Kind, Request, SpecError};
use sim_core::platform::DramSpec;
use sim_core::{Line, Ps};

/// 1 GiB of lines.
const BITS: u32 = 24;
/// Clocks between two requests of the sparse pattern.
const SPARSE: u64 = 1000;

/// Which request comes when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Reads in order, as fast as the queue takes them.
    SequentialRead,
    /// Writes in order, as fast as the queue takes them.
    SequentialWrite,
    /// Uniform random reads, as fast as the queue takes them.
    RandomRead,
    /// Uniform random, half of them writes, as fast as the queues take them.
    Mix,
    /// Uniform random reads, each after the one before is back.
    Chain,
    /// Uniform random reads, one every 1000 clocks.
    Sparse,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Pattern; 6] = [
        Pattern::SequentialRead,
        Pattern::SequentialWrite,
        Pattern::RandomRead,
        Pattern::Mix,
        Pattern::Chain,
        Pattern::Sparse,
    ];
}

macro_rules! pattern {
    ($name:literal, $pattern:ident) => {
        Workload {
            group: "dram",
            name: concat!("dram/", $name),
            unit: "request",
            batch: 1 << 14,
            make: || runner(Pattern::$pattern, 1),
        }
    };
}

/// The six patterns of peers.md §1, and random reads on eight channels of two packages: 32 subchannels.
pub const WORKLOADS: &[Workload] = &[
    pattern!("seqr", SequentialRead),
    pattern!("seqw", SequentialWrite),
    pattern!("rndr", RandomRead),
    pattern!("mix", Mix),
    pattern!("chase", Chain),
    pattern!("sparse", Sparse),
    Workload {
        group: "dram",
        name: "dram/rndr-2x8",
        unit: "request",
        batch: 1 << 14,
        make: || runner(Pattern::RandomRead, 8),
    },
];

fn runner(pattern: Pattern, channels: u8) -> Result<Runner, SetupError> {
    let mut bare = Bare::new(pattern, channels)?;
    Ok(Box::new(move |n| Ok(bare.run(n))))
}

/// A bare channel, or several of two packages, under one pattern.
pub struct Bare {
    dram: Dram,
    pattern: Pattern,
    next: u64,
    tck: Ps,
    done: u64,
}

impl Bare {
    /// Nothing queued yet. With more than one channel there are two packages.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new(pattern: Pattern, channels: u8) -> Result<Bare, SetupError> {
        let spec = DramSpec { channels, ..spr()?.spec.dram };
        let packages = if channels > 1 { 2 } else { 1 };
        let broken = |e: SpecError| SetupError::Dram(Box::new(e));
        let dram = Dram::new(&spec, packages).map_err(broken)?;
        let tck = mktme::dram::Timing::of(&spec).map_err(|e| broken(e.into()))?.tck();
        Ok(Bare { dram, pattern, next: 0, tck, done: 0 })
    }

    fn request(&self, i: u64) -> Request {
        use Pattern::{Mix, SequentialRead, SequentialWrite, Sparse};
        let line = match self.pattern {
            SequentialRead | SequentialWrite => i % (1 << BITS),
            _ => random(i, BITS),
        };
        let kind = match self.pattern {
            SequentialWrite => Kind::Write,
            Mix if random(i, 1 + BITS) & 1 == 1 => Kind::Write,
            _ => Kind::Read,
        };
        let at = match self.pattern {
            Sparse => self.tck.times(i * SPARSE),
            _ => Ps::ZERO,
        };
        // Home lines of two packages alternate by GiB: the footprint is spread over both.
        let line = if self.dram.subchannels().len() > 2 { line | (i & 1) << BITS } else { line };
        Request { id: i, line: Line(line), kind, at }
    }

    /// Offers so many requests, and gives how many are complete by then.
    pub fn run(&mut self, n: u64) -> u64 {
        for i in self.next..self.next + n {
            let request = self.request(i);
            if self.dram.offer_to(request, |_| self.done += 1).is_err() {
                // A stuck channel completes nothing: the sum shows it.
                break;
            }
            if self.pattern == Pattern::Chain {
                self.done += u64::from(self.dram.next_completion().is_some());
            }
        }
        self.next += n;
        self.done
    }

    /// The memory.
    pub const fn dram(&self) -> &Dram {
        &self.dram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pattern: Pattern, channels: u8, n: u64) -> Bare {
        let mut bare = Bare::new(pattern, channels).unwrap();
        bare.run(n);
        assert_eq!(bare.dram().check_conservation(), Ok(()), "{pattern:?}");
        bare
    }

    #[test]
    fn every_pattern_asks_what_its_name_says() {
        for (pattern, reads) in [
            (Pattern::SequentialRead, 4000),
            (Pattern::SequentialWrite, 0),
            (Pattern::RandomRead, 4000),
            (Pattern::Chain, 4000),
            (Pattern::Sparse, 4000),
        ] {
            let stats = after(pattern, 1, 4000).dram().stats();
            assert_eq!((stats.reads, stats.writes), (reads, 4000 - reads), "{pattern:?}");
        }
        let stats = after(Pattern::Mix, 1, 4000).dram().stats();
        assert!((1800..2200).contains(&stats.reads) && stats.reads + stats.writes == 4000);
    }

    #[test]
    fn closed_loops_keep_their_queue_full_and_a_chain_keeps_one_request() {
        for pattern in [Pattern::SequentialRead, Pattern::RandomRead] {
            let bare = after(pattern, 1, 4000);
            let depth = usize::from(bare.dram().subchannels()[0].spec().read_queue);
            let queued = bare.dram().subchannels().iter().map(|s| s.queued().0).max();
            assert_eq!(queued, Some(depth), "{pattern:?}");
        }
        let chain = after(Pattern::Chain, 1, 1000);
        assert_eq!((chain.done, chain.dram().in_flight().total()), (1000, 0));
        // Closed row at least, and time for nothing else.
        assert!(chain.dram().now() >= Ps(1000 * 416 * 87));
    }

    #[test]
    fn a_sparse_request_comes_every_thousand_clocks() {
        let bare = after(Pattern::Sparse, 1, 101);
        assert_eq!(bare.dram().now(), Ps(416 * 100_000));
    }

    #[test]
    fn two_packages_of_eight_channels_share_the_requests() {
        let bare = after(Pattern::RandomRead, 8, 8000);
        let counts: Vec<u64> = bare.dram().subchannels().iter().map(|s| s.stats().reads).collect();
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (32, 8000));
        assert!(counts.iter().all(|&n| n > 150), "{counts:?}");
    }
}
