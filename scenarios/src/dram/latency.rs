//! A histogram of latencies: constant memory, whole numbers, and never off by more than a thirty-second.

use schemars::JsonSchema;
use serde::Serialize;
use sim_core::Ps;

/// Bits of a latency that a bucket keeps below its highest: 32 buckets for every power of two.
const FINE: u32 = 5;
const PER_OCTAVE: usize = 1 << FINE;
/// Below `PER_OCTAVE` each value has its own bucket; above, each power of two has `PER_OCTAVE`.
const BUCKETS: usize = (64 - FINE as usize + 1) * PER_OCTAVE;

/// Counts of latencies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    samples: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { buckets: vec![0; BUCKETS], samples: 0, sum: 0, min: u64::MAX, max: 0 }
    }
}

const fn bucket_of(ps: u64) -> usize {
    if ps < PER_OCTAVE as u64 {
        return ps as usize;
    }
    let shift = ps.ilog2() - FINE;
    // The bits below the highest, after the buckets of the powers of two before.
    (shift as usize + 1) * PER_OCTAVE + (ps >> shift) as usize - PER_OCTAVE
}

/// The smallest latency of a bucket.
const fn first_of(bucket: usize) -> u64 {
    if bucket < 2 * PER_OCTAVE {
        return bucket as u64;
    }
    let shift = bucket / PER_OCTAVE - 1;
    ((bucket % PER_OCTAVE + PER_OCTAVE) as u64) << shift
}

impl Latencies {
    /// Counts one.
    #[inline]
    pub fn add(&mut self, latency: Ps) {
        let ps = latency.0;
        if let Some(count) = self.buckets.get_mut(bucket_of(ps)) {
            *count += 1;
        }
        self.samples += 1;
        self.sum += ps;
        self.min = self.min.min(ps);
        self.max = self.max.max(ps);
    }

    /// How many were counted.
    pub const fn samples(&self) -> u64 {
        self.samples
    }
    /// Their sum.
    pub const fn sum(&self) -> Ps {
        Ps(self.sum)
    }
    /// The shortest; none without samples.
    pub fn min(&self) -> Option<Ps> {
        (self.samples > 0).then_some(Ps(self.min))
    }
    /// The longest; none without samples.
    pub fn max(&self) -> Option<Ps> {
        (self.samples > 0).then_some(Ps(self.max))
    }

    /// The latency that `per_10_000` of ten thousand samples do not exceed: the end of its bucket, at most a thirty-second too
    /// long and never longer than the longest.
    pub fn quantile(&self, per_10_000: u64) -> Option<Ps> {
        let max = self.max()?;
        let wanted = (u128::from(self.samples) * u128::from(per_10_000)).div_ceil(10_000).max(1);
        let mut seen = 0u128;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return Some(Ps(first_of(i + 1) - 1).min(max).max(Ps(self.min)));
            }
        }
        Some(max)
    }

    /// The buckets that hold something, in order.
    pub fn rows(&self) -> Vec<Bucket> {
        let row = |(i, reads): (usize, &u64)| {
            let (from_ps, to_ps) = (first_of(i), first_of(i + 1));
            (*reads > 0).then_some(Bucket { from_ps, to_ps, reads: *reads })
        };
        self.buckets.iter().enumerate().filter_map(row).collect()
    }
}

/// Reads whose latency is at least `from_ps` and less than `to_ps`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Bucket {
    /// From here, in picoseconds.
    pub from_ps: u64,
    /// To below here.
    pub to_ps: u64,
    /// How many.
    pub reads: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_latency_is_in_the_bucket_that_says_so() {
        let powers = (0..63).flat_map(|b| [(1u64 << b) - 1, 1 << b, (1 << b) + 1]);
        for ps in powers.chain(0..5000) {
            let i = bucket_of(ps);
            assert!(first_of(i) <= ps && ps < first_of(i + 1), "{ps} in {i}");
            assert!(i + 1 < BUCKETS);
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_below_the_true_one_and_at_most_a_thirty_second_above(
            mut samples in proptest::collection::vec(0u64..10_000_000, 1..200),
            per in 1u64..=10_000,
        ) {
            let mut all = Latencies::default();
            samples.iter().for_each(|s| all.add(Ps(*s)));
            samples.sort_unstable();
            let rank = (samples.len() as u64 * per).div_ceil(10_000).max(1);
            let exact = samples[rank as usize - 1];
            let got = all.quantile(per).unwrap().0;
            prop_assert!(got >= exact && got <= exact + exact / 32, "{got} for {exact}");
            prop_assert_eq!(all.rows().iter().map(|b| b.reads).sum::<u64>(), all.samples());
        }
    }

    #[test]
    fn nothing_measured_has_no_quantile() {
        assert_eq!(Latencies::default().quantile(5000), None);
        assert_eq!(Latencies::default().rows(), []);
    }
}
