//! The pinned generator. Its algorithm is part of the simulator's output: same seed, same bytes, for ever.

use rand::Rng;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

/// A seeded generator with an integer-only interface (PCG64-MCG; style-and-ecosystem.md B8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prng(Pcg64Mcg);

impl Prng {
    /// From a seed.
    pub fn new(seed: u64) -> Prng {
        Prng(Pcg64Mcg::seed_from_u64(seed))
    }
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A number below `bound`, without bias; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // Lemire's rejection method.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }
    /// Whether an event of probability `num`/`den` happens; never when `den` is 0.
    pub fn ratio(&mut self, num: u64, den: u64) -> bool {
        self.below(den) < num && den != 0
    }
}

/// A 64-bit hash of three words, for values that must be a pure function of their place (power-on content, garbage).
/// The finaliser of splitmix64, applied in a chain.
#[inline]
pub const fn mix(a: u64, b: u64, c: u64) -> u64 {
    splitmix(splitmix(splitmix(a) ^ b) ^ c)
}

#[inline]
const fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut rng = Prng::new(42);
        let got = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        expect_test::expect!["[92d6e5d942f4ad9b, 2220622af23e6e6f, 5b1e9c797ef9e726]"]
            .assert_eq(&format!("{got:x?}"));
    }

    #[test]
    fn bounded_numbers_stay_in_bounds_and_reach_every_value() {
        let mut rng = Prng::new(1);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert!(!rng.ratio(1, 0));
    }
}
