//! Exit codes. They are part of the public interface; docs/commands.md lists them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All expectations were met.
    Met,
    /// An expectation failed, or a counterexample was found.
    Failed,
    /// Bad input or usage.
    BadInput,
    /// An invariant of the simulator itself broke.
    Broken,
    /// Not modelled, skipped.
    NotModelled,
    /// A stated budget of time, memory or states ran out.
    Undecided,
    /// Output could not be written.
    NotWritten,
}

/// Every exit code with its meaning, in the order of the numbers.
pub const TABLE: &[(Exit, u8, &str)] = &[
    (Exit::Met, 0, "all expectations met"),
    (Exit::Failed, 1, "an expectation failed or a counterexample was found"),
    (Exit::BadInput, 2, "bad input or usage"),
    (Exit::Broken, 3, "an invariant of the simulator itself broke"),
    (Exit::NotModelled, 4, "not modelled, skipped"),
    (Exit::Undecided, 5, "undecided: a stated budget of time, memory or states ran out"),
    (Exit::NotWritten, 6, "output could not be written"),
];

/// Over several runs the worst counts, in this order.
const WORST_FIRST: [Exit; 7] = [
    Exit::Broken,
    Exit::BadInput,
    Exit::NotWritten,
    Exit::Failed,
    Exit::Undecided,
    Exit::NotModelled,
    Exit::Met,
];

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        TABLE.iter().find(|(exit, ..)| *exit == self).map_or(3, |(_, code, _)| *code)
    }
    /// The worse of two.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        WORST_FIRST.into_iter().find(|e| *e == self || *e == other).unwrap_or(self)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_runs_counts() {
        assert_eq!(Exit::Met.worse(Exit::Failed), Exit::Failed);
        assert_eq!(Exit::Failed.worse(Exit::BadInput), Exit::BadInput);
        assert_eq!(Exit::Broken.worse(Exit::BadInput), Exit::Broken);
        assert_eq!(Exit::NotModelled.worse(Exit::Undecided), Exit::Undecided);
    }

    #[test]
    fn every_exit_has_one_code() {
        for (i, (exit, code, _)) in TABLE.iter().enumerate() {
            assert_eq!((exit.code(), usize::from(*code)), (*code, i));
        }
    }
}
