//! Requests to the memory controller alone, with a quiet trace.

use crate::{Runner, SetupError, Workload, random, spr};
use mktme::{Controller, ControllerSpec, CryptoKind};
use sim_core::op::PconfigCmd;
use sim_core::{ByteMask, KeyId, Line, LineData, Page, Tagged, Trace};

/// 1 GiB of lines.
const BITS: u32 = 24;
/// 64 GiB of pages, cleared in order.
const SWEPT: u64 = 1 << 24;
/// Different lines that are written: a prime number, so that a line in memory gets another each time.
const LINES: u64 = 61;
/// Lines written one by one before reads begin: four in each page, more or less.
const WRITTEN: u64 = 1 << 20;

macro_rules! random {
    ($name:literal, $crypto:ident, $batch:literal, $request:ident) => {
        random!($name, $batch, Requests::new(CryptoKind::$crypto, WRITTEN)?, $request)
    };
    ($name:literal, $batch:literal, $requests:expr, $request:ident) => {
        Workload {
            group: "controller",
            name: concat!("controller/", $name),
            unit: "request",
            batch: $batch,
            make: || runner($requests, Requests::$request),
        }
    };
}

/// Random requests over 1 GiB, and clearing in order.
pub const WORKLOADS: &[Workload] = &[
    random!("read", Symbolic, 16384, read),
    random!("write", Symbolic, 16384, write),
    random!("partial", Symbolic, 16384, partial),
    random!("read-full", 16384, Requests::full()?, read),
    random!("write-full", 16384, Requests::full()?, write),
    random!("mix-expected", 16384, Requests::full()?, mix_expected),
    random!("mix-full", 16384, Requests::full()?, mix),
    random!("read-real", Real, 1024, read),
    random!("write-real", Real, 1024, write),
    random!("partial-real", Real, 1024, partial),
    Workload {
        group: "clear",
        name: "clear/pages",
        unit: "page",
        batch: 1 << 16,
        make: || {
            let mut sweep = Sweep::new()?;
            Ok(Box::new(move |n| Ok(sweep.run(n))))
        },
    },
];

fn runner(
    mut requests: Requests,
    run: fn(&mut Requests, u64) -> u64,
) -> Result<Runner, SetupError> {
    Ok(Box::new(move |n| Ok(run(&mut requests, n))))
}

/// A controller with its KeyID of a TD, programmed.
fn controller(crypto: CryptoKind) -> Result<(Controller, KeyId, Trace), SetupError> {
    let spec = spr()?.spec;
    let keyid = spec.keyid.private(1).ok_or(SetupError::NoPrivateKeyId)?;
    let mut memory = Controller::new(ControllerSpec::of_platform(&spec, crypto, 0))?;
    let mut trace = Trace::new(false);
    memory.pconfig(keyid, PconfigCmd::SetRandom, None, true, &mut trace);
    Ok((memory, keyid, trace))
}

/// Requests to memory, 1 GiB of it in all benchmarks, of which the lower half is a TD's and the upper half the host's; each is made under the KeyID of its
/// half, so that no poison is born.
pub struct Requests {
    memory: Controller,
    trace: Trace,
    keyid: KeyId,
    /// What is written, in turn: lines that lie ready, as those of a cache do.
    lines: Vec<LineData>,
    next: u64,
    /// Of the footprint in lines.
    bits: u32,
}

impl Requests {
    /// Every page is written alike, then so many lines are written one by one.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new(crypto: CryptoKind, written: u64) -> Result<Requests, SetupError> {
        let mut requests = Requests::empty(crypto, BITS)?;
        requests.write(written);
        Ok(requests)
    }

    fn empty(crypto: CryptoKind, bits: u32) -> Result<Requests, SetupError> {
        let (mut memory, keyid, mut trace) = controller(crypto)?;
        let (half, pages) = (Page(1 << (bits - 7)), Page(1 << (bits - 6)));
        memory.write_pages(Page(0)..half, keyid, &LineData::ZERO, &mut trace);
        memory.write_pages(half..pages, KeyId::TME, &LineData::ZERO, &mut trace);
        let lines = (1..=LINES).map(|n| LineData([n; 8])).collect();
        Ok(Requests { memory, trace, keyid, lines, next: 0, bits })
    }

    /// Every line has been written with bytes of its own, so that the host's memory holds each of them.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn full() -> Result<Requests, SetupError> {
        Requests::written(CryptoKind::Symbolic, BITS)
    }

    /// As [`Requests::full`], with `2^bits` lines, 128 of them at least.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn written(crypto: CryptoKind, bits: u32) -> Result<Requests, SetupError> {
        let mut requests = Requests::empty(crypto, bits.max(7))?;
        for line in 0..1 << requests.bits {
            let at = requests.tagged(line);
            requests.memory.write(at, &LineData([line; 8]), None, &mut requests.trace);
        }
        Ok(requests)
    }

    const fn tagged(&self, line: u64) -> Tagged {
        let keyid = if line >> (self.bits - 1) == 0 { self.keyid } else { KeyId::TME };
        Tagged::new(Line(line), keyid)
    }

    fn place(&mut self) -> Tagged {
        let line = random(self.next, self.bits);
        self.next += 1;
        self.tagged(line)
    }

    /// So many requests, a read and a whole-line write in turn.
    pub fn mix(&mut self, n: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..n / 2 {
            sum ^= self.read(1);
            sum ^= self.write(1);
        }
        sum
    }

    /// [`Requests::mix`] by a caller that knows its next requests, as one with a queue or a trace does.
    pub fn mix_expected(&mut self, n: u64) -> u64 {
        let mut sum = 0;
        for i in 0..n {
            let number = self.next;
            self.memory.expect_page(Line(random(number + 12, self.bits)));
            self.memory.expect_line(Line(random(number + 6, self.bits)));
            sum ^= if i & 1 == 0 { self.read(1) } else { self.write(1) };
        }
        sum
    }

    /// So many reads.
    pub fn read(&mut self, n: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..n {
            let at = self.place();
            sum ^= self.memory.read(at, &mut self.trace).data.0[0];
        }
        sum
    }

    /// So many whole-line writes.
    pub fn write(&mut self, n: u64) -> u64 {
        for _ in 0..n {
            let at = self.place();
            if let Some(data) = self.lines.get((self.next % LINES) as usize) {
                self.memory.write(at, data, None, &mut self.trace);
            }
        }
        self.memory.stats().full_writes
    }

    /// So many writes of 8 bytes.
    pub fn partial(&mut self, n: u64) -> u64 {
        for _ in 0..n {
            let at = self.place();
            if let Some(data) = self.lines.get((self.next % LINES) as usize) {
                self.memory.write_partial(at, data, ByteMask::span(8, 8), &mut self.trace);
            }
        }
        self.memory.stats().partial_writes
    }

    /// The controller.
    pub const fn memory(&self) -> &Controller {
        &self.memory
    }
}

/// Uniform private pages that the host clears in order, as `tdx_clear_page` does after a teardown: the state of one page a
/// step, one event with a mask of lines.
pub struct Sweep {
    memory: Controller,
    trace: Trace,
    keyid: KeyId,
    next: u64,
}

impl Sweep {
    /// 64 GiB of private pages.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new() -> Result<Sweep, SetupError> {
        let (mut memory, keyid, mut trace) = controller(CryptoKind::Symbolic)?;
        memory.write_pages(Page(0)..Page(SWEPT), keyid, &LineData::filled(1), &mut trace);
        Ok(Sweep { memory, trace, keyid, next: 0 })
    }

    /// Clears so many pages; what has been cleared becomes private again when all of it has been.
    pub fn run(&mut self, pages: u64) -> u64 {
        let Sweep { memory, trace, keyid, next } = self;
        for _ in 0..pages {
            if *next == SWEPT {
                memory.write_pages(Page(0)..Page(SWEPT), *keyid, &LineData::filled(1), trace);
                *next = 0;
            }
            memory.write_lines(Page(*next), u64::MAX, KeyId::TME, &LineData::ZERO, trace);
            *next += 1;
        }
        memory.stats().full_writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_requests_bear_no_poison_and_meet_what_was_written() {
        for crypto in [CryptoKind::Symbolic, CryptoKind::Real] {
            let mut requests = Requests::new(crypto, 100).unwrap();
            requests.read(100);
            requests.write(100);
            requests.partial(100);
            let stats = requests.memory().stats();
            assert_eq!((stats.reads, stats.partial_writes, stats.births()), (100, 100, 0));
            // Writes come first, so number 0 is one of them.
            let at = Tagged::new(Line(random(0, BITS)), requests.keyid);
            let at =
                if at.line().0 < 1 << (BITS - 1) { at } else { Tagged::new(at.line(), KeyId::TME) };
            assert_eq!(requests.memory.probe(at).data, LineData([2; 8]));
        }
    }

    #[test]
    fn a_caller_that_says_what_it_will_access_gets_the_same() {
        let make = || Requests::new(CryptoKind::Symbolic, 100).unwrap();
        let (mut plain, mut expected) = (make(), make());
        assert_eq!(plain.mix(100), expected.mix_expected(100));
        assert!(plain.memory == expected.memory);
        let stats = plain.memory().stats();
        assert_eq!((stats.reads, stats.full_writes - written_before()), (50, 50));
    }

    /// Whole-line writes before the first request that is measured.
    fn written_before() -> u64 {
        Requests::new(CryptoKind::Symbolic, 100).unwrap().memory().stats().full_writes
    }

    #[test]
    fn a_sweep_takes_the_td_bit_from_each_page_in_turn() {
        let mut sweep = Sweep::new().unwrap();
        sweep.run(600);
        let td = |page: u64| sweep.memory.line(Page(page).line(7)).td;
        assert_eq!((td(0), td(599), td(600), td(SWEPT - 1)), (false, false, true, true));
    }
}
