//! Named patterns of requests. Request `i` is a pure function of `i`, the seed and the footprint, so that a run is the same
//! wherever and however often it is made (peers.md §1 measures every simulator with the same ones).

use super::drive::{Requests, Wanted};
use mktme::dram::Kind;
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::data::ByteMask;
use sim_core::prng::mix;
use sim_core::{Line, Ps};
use std::fmt::{self, Display};

/// A named pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Reads of one line after the other, as many at once as the queues take.
    SequentialRead,
    /// Writes of one line after the other.
    SequentialWrite,
    /// Reads of uniformly random lines.
    RandomRead,
    /// Reads and whole-line writes of uniformly random lines, one in two a write.
    Mix,
    /// Partial writes of 8 bytes to uniformly random lines.
    PartialWrite,
    /// Reads of random lines, each begun when the one before is complete.
    Chain,
    /// Reads of random lines, one every 1000 clocks.
    Sparse,
}

/// What a pattern is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatternRow {
    /// Which.
    pub pattern: Pattern,
    /// Its name on the command line.
    pub name: &'static str,
    /// Whether lines come in order.
    pub in_order: bool,
    /// What is asked of a line: one kind for even, one for odd hashes.
    pub kinds: [Kind; 2],
    /// Requests in flight at most; 0 for as many as the queues take.
    pub outstanding: u32,
    /// Clocks between two requests; 0 for none.
    pub gap: u64,
    /// In words.
    pub meaning: &'static str,
}

const fn row(
    pattern: Pattern,
    name: &'static str,
    in_order: bool,
    kinds: [Kind; 2],
    meaning: &'static str,
) -> PatternRow {
    PatternRow { pattern, name, in_order, kinds, outstanding: 0, gap: 0, meaning }
}

const READS: [Kind; 2] = [Kind::Read; 2];

/// The patterns, in the order of [`Pattern`].
#[rustfmt::skip]
pub const PATTERNS: &[PatternRow; 7] = &[
    row(Pattern::SequentialRead, "sequential-read", true, READS, "reads of one line after the other"),
    row(Pattern::SequentialWrite, "sequential-write", true, [Kind::Write; 2], "writes of one line after the other"),
    row(Pattern::RandomRead, "random-read", false, READS, "reads of uniformly random lines"),
    row(Pattern::Mix, "mix", false, [Kind::Read, Kind::Write], "random lines, reads and whole-line writes with equal chance"),
    row(Pattern::PartialWrite, "partial-write", false, [Kind::PartialWrite; 2], "8 bytes written to uniformly random lines"),
    PatternRow { outstanding: 1, ..row(Pattern::Chain, "chain", false, READS, "dependent reads of random lines: one at a time") },
    PatternRow { gap: 1000, ..row(Pattern::Sparse, "sparse", false, READS, "reads of random lines, one every 1000 clocks") },
];

impl Pattern {
    /// What it is.
    pub fn row(self) -> &'static PatternRow {
        let [first, ..] = PATTERNS;
        PATTERNS.get(self as usize).unwrap_or(first)
    }
    /// The pattern of that name.
    pub fn named(name: &str) -> Option<Pattern> {
        PATTERNS.iter().find(|row| row.name == name).map(|row| row.pattern)
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}

/// The requests of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PatternRequests {
    row: &'static PatternRow,
    requests: u64,
    lines: u64,
    seed: u64,
    gap: Ps,
    next: u64,
    /// Of patterns in order: the line of the next.
    line: u64,
}

impl PatternRequests {
    /// `gap` is the time between two requests, zero for none.
    pub(super) fn new(pattern: Pattern, requests: u64, lines: u64, seed: u64, gap: Ps) -> Self {
        PatternRequests {
            row: pattern.row(),
            requests,
            lines: lines.max(1),
            seed,
            gap,
            next: 0,
            line: 0,
        }
    }
}

impl Requests for PatternRequests {
    #[inline]
    fn next(&mut self) -> Option<Wanted> {
        let i = self.next;
        if i >= self.requests {
            return None;
        }
        self.next = i + 1;
        let (hash, line);
        if self.row.in_order {
            // i modulo the lines of the footprint, without the division.
            (hash, line) = (0, self.line);
            self.line = if line + 1 == self.lines { 0 } else { line + 1 };
        } else {
            // High bits choose the line, the lowest the kind.
            hash = mix(self.seed, 0, i);
            line = ((u128::from(hash) * u128::from(self.lines)) >> 64) as u64;
        }
        let [even, odd] = self.row.kinds;
        let kind = if hash & 1 == 0 { even } else { odd };
        let mask = ByteMask(0xff);
        let due = if self.gap == Ps::ZERO { Ps::ZERO } else { self.gap.times(i) };
        Some(Wanted { line: Line(line), kind, mask, due, behind: false })
    }
}

/// [`PATTERNS`] as a page of the book.
pub fn patterns_markdown() -> String {
    let mut out = String::from("| pattern | requests |\n|---|---|\n");
    for row in PATTERNS {
        out.push_str(&format!("| `{}` | {} |\n", row.name, row.meaning));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pattern: Pattern, requests: u64, lines: u64) -> Vec<Wanted> {
        let mut source = PatternRequests::new(pattern, requests, lines, 7, Ps(3));
        let mut out = Vec::new();
        while let Some(wanted) = source.next() {
            out.push(wanted);
        }
        out
    }

    #[test]
    fn the_table_has_every_pattern_in_order_and_each_name_finds_its_own() {
        for (i, row) in PATTERNS.iter().enumerate() {
            assert_eq!(row.pattern as usize, i);
            assert_eq!(Pattern::named(row.name), Some(row.pattern));
            assert_eq!(row.pattern.row(), row);
        }
        assert_eq!(Pattern::named("random"), None);
    }

    #[test]
    fn random_patterns_reach_the_whole_footprint_and_nothing_beyond_it() {
        for row in PATTERNS {
            let wanted = all(row.pattern, 5000, 100);
            assert_eq!(wanted.len(), 5000);
            let mut seen = [false; 100];
            wanted.iter().for_each(|w| seen[w.line.0 as usize] = true);
            assert!(seen.iter().all(|s| *s), "{}", row.name);
            assert!(wanted.is_sorted_by_key(|w| w.due), "{}", row.name);
        }
    }

    #[test]
    fn half_of_the_mix_are_writes() {
        let writes = all(Pattern::Mix, 10_000, 1 << 24);
        let writes = writes.iter().filter(|w| w.kind == Kind::Write).count();
        assert!((4800..5200).contains(&writes), "{writes}");
    }

    #[test]
    fn request_i_is_a_function_of_i() {
        let (short, long) = (all(Pattern::Mix, 10, 1 << 20), all(Pattern::Mix, 100, 1 << 20));
        assert_eq!(short, long[..10]);
    }
}
