//! Simulated time: integer picoseconds, and clocks that divide them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign};

/// A moment or a span of simulated time, in picoseconds. A run may last 106 days.
///
/// Addition saturates at [`Ps::HORIZON`], where the engine ends the run with an error instead of wrapping
/// (verification.md §4.2 point 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ps(pub u64);

impl Ps {
    /// The start of a run, or no time at all.
    pub const ZERO: Ps = Ps(0);
    /// The last moment that can be simulated.
    pub const HORIZON: Ps = Ps(1 << 63);

    /// So many nanoseconds.
    #[inline]
    pub const fn ns(ns: u64) -> Ps {
        Ps(ns.saturating_mul(1000))
    }
    /// From `earlier` to here; zero when `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Ps) -> Ps {
        Ps(self.0.saturating_sub(earlier.0))
    }
    /// `count` times this span, saturating at the horizon.
    #[must_use]
    #[inline]
    pub const fn times(self, count: u64) -> Ps {
        let product = self.0.saturating_mul(count);
        Ps(if product > Self::HORIZON.0 { Self::HORIZON.0 } else { product })
    }
    /// Whether the horizon has been reached.
    #[inline]
    pub const fn is_horizon(self) -> bool {
        self.0 >= Self::HORIZON.0
    }
}

impl Add for Ps {
    type Output = Ps;
    #[inline]
    fn add(self, rhs: Ps) -> Ps {
        Ps(self.0.saturating_add(rhs.0).min(Ps::HORIZON.0))
    }
}
impl AddAssign for Ps {
    #[inline]
    fn add_assign(&mut self, rhs: Ps) {
        *self = *self + rhs;
    }
}

impl fmt::Display for Ps {
    /// In the largest unit that leaves a number of at least one, with three digits behind the point.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ps = self.0;
        let (unit, name) = match ps {
            0..=999 => return write!(f, "{ps} ps"),
            1_000..=999_999 => (1_000, "ns"),
            1_000_000..=999_999_999 => (1_000_000, "us"),
            1_000_000_000..=999_999_999_999 => (1_000_000_000, "ms"),
            _ => (1_000_000_000_000, "s"),
        };
        let (whole, rest) = (ps / unit, ps % unit / (unit / 1000));
        if rest == 0 { write!(f, "{whole} {name}") } else { write!(f, "{whole}.{rest:03} {name}") }
    }
}
impl fmt::Debug for Ps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A clock domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Clock {
    /// Frequency in megahertz. Never zero in a validated platform.
    pub mhz: u64,
}

impl Clock {
    /// How long `cycles` last, rounded up to a picosecond.
    pub const fn cycles(self, cycles: u64) -> Ps {
        let mhz = if self.mhz == 0 { 1 } else { self.mhz as u128 };
        let ps = (cycles as u128 * 1_000_000).div_ceil(mhz);
        if ps > Ps::HORIZON.0 as u128 { Ps::HORIZON } else { Ps(ps as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ends_at_the_horizon_instead_of_wrapping() {
        assert_eq!(Ps(u64::MAX) + Ps(1), Ps::HORIZON);
        assert_eq!(Ps(1 << 62).times(1 << 40), Ps::HORIZON);
        assert!((Ps::HORIZON + Ps(1)).is_horizon());
        assert_eq!(Clock { mhz: 1 }.cycles(u64::MAX), Ps::HORIZON);
    }

    #[test]
    fn a_clock_turns_cycles_into_picoseconds_rounding_up() {
        assert_eq!(Clock { mhz: 2200 }.cycles(5), Ps(2273));
        assert_eq!(Clock { mhz: 2000 }.cycles(3), Ps(1500));
    }

    #[test]
    fn time_prints_in_the_unit_people_read() {
        let shown: Vec<String> =
            [0, 999, 4_400, 36_000, 1_234_567, 2_000_000_000, 5_000_000_000_123]
                .map(|ps| Ps(ps).to_string())
                .to_vec();
        assert_eq!(shown, ["0 ps", "999 ps", "4.400 ns", "36 ns", "1.234 us", "2 ms", "5 s"]);
    }
}
