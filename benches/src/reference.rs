//! The reference model: steps replayed, and transitions of exhaustive searches.
//!
//! Programs and configurations are `verify`'s own.

use crate::{Runner, SetupError, Workload};
use sim_core::platform::IntegrityMode::Ci;
use verify::configurations::{
    ALL, Configuration, How, Reduction, Shape, random_program, small, with_keys,
};
use verify::reference::{Reference, Step, StepOutcome};
use verify::search::Budget;

/// Steps of a program.
const STEPS: usize = 50_000;

/// Replay over few lines and over many; exploration of row X2 with and without its judges and symmetry.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        group: "reference",
        name: "reference/replay",
        unit: "step",
        batch: STEPS as u64,
        make: || Ok(Replay::runner(16)),
    },
    Workload {
        group: "reference",
        name: "reference/replay-256",
        unit: "step",
        batch: STEPS as u64,
        make: || Ok(Replay::runner(256)),
    },
    Workload {
        group: "reference",
        name: "reference/explore",
        unit: "transition",
        batch: 500_000,
        make: || explorer(How { judged: false, ..How::default() }),
    },
    Workload {
        group: "reference",
        name: "reference/explore-judged",
        unit: "transition",
        batch: 500_000,
        make: || explorer(How::default()),
    },
    Workload {
        group: "reference",
        name: "reference/explore-symmetry",
        unit: "transition",
        batch: 250_000,
        make: || explorer(How { judged: false, reduction: Reduction::SYMMETRY, ..How::default() }),
    },
];

/// A random program of four cores that is run over and over from the start.
struct Replay {
    start: Reference,
    now: Reference,
    program: Vec<Step>,
    at: usize,
    out: StepOutcome,
}

impl Replay {
    fn runner(lines: u64) -> Runner {
        let spec = small(Ci, true, 4);
        let shape = Shape { lines, keyids: ALL.to_vec(), stray: 20 };
        let start = with_keys(spec, &ALL);
        let program = random_program(spec, &shape, 1, STEPS);
        let now = start.clone();
        let mut replay = Replay { start, now, program, at: 0, out: StepOutcome::default() };
        Box::new(move |n| Ok(replay.run(n)))
    }
    fn run(&mut self, n: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..n {
            if self.at == self.program.len() {
                self.at = 0;
                self.now.clone_from(&self.start);
            }
            let Some(step) = self.program.get(self.at) else { break };
            self.at += 1;
            // Every step of the program is possible here.
            sum += u64::from(self.now.replay(step, &mut self.out).is_ok());
            sum += self.out.traffic.len() as u64;
        }
        sum
    }
}

/// Searches row X2 with the erratum, again from the start when it has been searched through.
fn explorer(how: How) -> Result<Runner, SetupError> {
    let row = Configuration::new(Ci, true, 1, &ALL);
    Ok(Box::new(move |n| {
        let (mut left, mut sum) = (n, 0);
        while left > 0 {
            let budget = Budget { transitions: left, ..Budget::UNBOUNDED };
            let searched = row.explore(How { budget, ..how }).searched;
            sum += searched.states as u64;
            left = left.saturating_sub(searched.transitions.max(1));
        }
        Ok(sum)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_run_over_and_over_makes_every_step() {
        let mut run = Replay::runner(16);
        // Each step counts once, and each request once more.
        let once = run(STEPS as u64).unwrap_or_default();
        assert!(once > STEPS as u64 * 5 / 4, "{once}");
        assert_eq!(run(STEPS as u64).unwrap_or_default(), once);
    }

    #[test]
    fn a_search_is_begun_again_when_it_is_through() {
        let how = How { judged: false, ..How::default() };
        let mut run = explorer(how).ok().map(|mut run| move |n| run(n).unwrap_or_default());
        let Some(run) = &mut run else { return assert!(run.is_some()) };
        assert_eq!(run(557_690), 31_720);
        assert_eq!(run(557_690 + 100) - 31_720, run(100));
    }
}
