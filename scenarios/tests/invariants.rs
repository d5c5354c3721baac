//! The invariants, exercised.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use scenarios::exercise::{Effort, Exercise, Standing, exercise};

#[test]
fn every_invariant_that_is_judged_is_exercised_and_holds() {
    let what = Exercise { effort: Effort::SMALL, ..Exercise::default() };
    let report = exercise(&what, "test", &mut |_| ());
    let bad = |i: &&scenarios::exercise::InvariantReport| {
        matches!(i.standing, Standing::Broken | Standing::NotExercised)
    };
    let bad: Vec<_> = report.invariants.iter().filter(bad).collect();
    assert_eq!(bad, [] as [&scenarios::exercise::InvariantReport; 0], "{report}");
}
