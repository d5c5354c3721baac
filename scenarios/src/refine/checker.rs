//! What `run --check` does: everything that happens on a machine is followed, from power-on to the end of the program.

use super::{Compared, Depth, Disagreement, Refinement};
use crate::report::CheckReport;
use crate::setup::{Setup, SetupError, Stage};
use machine::{Machine, Program, StepRecord};
use sim_core::Op;
use sim_core::port::McHandler;

/// Follows one run.
#[derive(Clone, Debug)]
pub struct Checker {
    refinement: Refinement,
    verdict: Result<(), Disagreement>,
    /// What was compared before the program.
    setup: Compared,
}

impl Checker {
    /// For a machine at power-on, whose log is on.
    pub fn new(machine: &mut Machine, depth: Depth) -> Checker {
        let refinement = Refinement::new(machine).with_depth(depth);
        Checker { refinement, verdict: Ok(()), setup: Compared::default() }
    }

    /// Runs what stands before a program. The machine's log is left as [`Setup::run`] leaves it: nothing ordinary is in it.
    ///
    /// # Errors
    /// As [`Setup::run`].
    pub fn setup<H: McHandler>(
        &mut self,
        setup: &Setup,
        machine: &mut Machine,
        os: &mut H,
    ) -> Result<(), SetupError> {
        self.stage(setup, Stage::Module, machine, os)?;
        self.stage(setup, Stage::Tds, machine, os)
    }

    /// Runs one stage of it.
    ///
    /// # Errors
    /// As [`Setup::run`].
    pub fn stage<H: McHandler>(
        &mut self,
        setup: &Setup,
        stage: Stage,
        machine: &mut Machine,
        os: &mut H,
    ) -> Result<(), SetupError> {
        let Checker { refinement, verdict, .. } = self;
        let mut watch = |machine: &mut Machine, op: &Op, record: &StepRecord| {
            if verdict.is_ok() {
                *verdict = refinement.follow(machine, op, record, &mut ());
            } else {
                machine.record_transitions(false);
            }
            machine.forget_events();
            refinement.log_was_cut(machine);
        };
        let done = setup.run_watched(stage, machine, os, Some(&mut watch));
        if self.verdict.is_ok() {
            self.verdict = self.refinement.catch_up(machine, &mut ());
        }
        self.refinement.sum_up("[tdx] and [td]");
        machine.forget_events();
        self.refinement.log_was_cut(machine);
        self.setup = *self.refinement.compared();
        done
    }

    /// Runs a program.
    pub fn program<H: McHandler>(
        &mut self,
        program: &Program,
        machine: &mut Machine,
        os: &mut H,
    ) -> Vec<StepRecord> {
        if self.verdict.is_err() {
            return machine.run(program, os);
        }
        let (records, verdict) = self.refinement.run(machine, program, os, &mut ());
        self.verdict = verdict;
        records
    }

    /// What was compared, and whether it was equal.
    pub fn outcome(self) -> (CheckReport, Result<(), Disagreement>) {
        let (all, setup) = (*self.refinement.compared(), self.setup);
        let report = CheckReport {
            operations: all.operations - setup.operations,
            setup_operations: setup.operations,
            transitions: all.transitions,
            requests: all.requests,
            lines: all.lines,
            states: all.states,
            calls_judged: all.judged,
            calls_not_judged: all.not_judged,
        };
        (report, self.verdict)
    }
}
