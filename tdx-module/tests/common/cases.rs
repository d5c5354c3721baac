//! Every status of a leaf, in the order of its checks (architecture.md §7.9): alone, and with a later fault present too.

#![allow(dead_code, reason = "each test file uses a part")]

use super::World;
use sim_core::tdx::{Leaf, Status};
use std::collections::BTreeSet;
use tdx_module::{Action, Answer, Call, FAILURE_EFFECTS, Reply};

/// A fault, and the status that it ends the leaf with.
pub struct Case {
    /// What is wrong, in words.
    pub when: &'static str,
    /// What the fault spoils: two that spoil the same are never put together.
    pub spoils: &'static str,
    /// Spoils the world, or the operands. Locks are held by another LP with [`hold`].
    pub fault: fn(&mut World, &mut Call),
    /// The whole status, operand id included.
    pub status: Status,
}

/// The cases of a leaf, in the order in which it checks.
pub struct LeafCases {
    /// Which leaf.
    pub leaf: Leaf,
    /// A world and a call that succeeds in it.
    pub base: fn() -> (World, Call),
    /// What the call returns then; `None` for an entry into a TD.
    pub succeeds: Option<Status>,
    /// In check order.
    pub cases: Vec<Case>,
    /// Statuses of `LEAF_CHECKS` (without their low half where that is no operand) that no case can show, with the reason.
    pub unreachable: &'static [(Status, &'static str)],
}

/// Makes LP 1 hold what a call holds: runs the call there until it has taken `touches` steps.
pub fn hold(w: &mut World, call: Call, touches: usize) {
    assert!(w.begin(1, &call));
    let ended = w.run_some(1, touches);
    assert_eq!(ended, None, "the call that was to hold locks is over");
}

fn run(w: &mut World, call: &Call) -> Option<Answer> {
    assert!(w.begin(0, call), "VMfailInvalid");
    match w.run(0, Reply::Done) {
        Action::Return(answer) => Some(answer),
        Action::Enter(_) => None,
        other => panic!("{other:?}"),
    }
}

/// Shows every status alone and against every later fault; that a failed leaf leaves the module as it was but for
/// [`FAILURE_EFFECTS`]; and that no status of `LEAF_CHECKS` was forgotten.
pub fn check(l: &LeafCases) {
    let (mut w, call) = (l.base)();
    assert_eq!(call.rax as u16, l.leaf.0);
    assert_eq!(run(&mut w, &call).map(|a| a.status), l.succeeds, "{}: the base", l.leaf);

    let excused = FAILURE_EFFECTS.iter().any(|row| row.leaf == Some(l.leaf) && row.in_module);
    for (i, case) in l.cases.iter().enumerate() {
        let (mut w, mut call) = (l.base)();
        (case.fault)(&mut w, &mut call);
        let before = w.clone();
        let answer = run(&mut w, &call);
        let status = answer.map(|a| a.status);
        assert_eq!(status, Some(case.status), "{}: {}", l.leaf, case.when);
        if case.status.is_error() && !excused {
            assert!(
                w.m.without_priority() == before.m.without_priority(),
                "{}: {}: the module has changed",
                l.leaf,
                case.when
            );
        }
        for later in l.cases.iter().skip(i + 1).filter(|c| c.spoils != case.spoils) {
            let (mut w, mut call) = (l.base)();
            (later.fault)(&mut w, &mut call);
            (case.fault)(&mut w, &mut call);
            let status = run(&mut w, &call).map(|a| a.status);
            let both = (case.when, later.when);
            assert_eq!(status, Some(case.status), "{}: {both:?}", l.leaf);
        }
    }

    let shown: BTreeSet<Status> =
        l.cases.iter().map(|c| c.status).chain(l.succeeds).map(key).collect();
    let unreachable: BTreeSet<Status> = l.unreachable.iter().map(|(s, _)| key(*s)).collect();
    let checks = l.leaf.checks().map_or(&[][..], |row| row.checks);
    for ret in checks.iter().flat_map(|c| c.returns()) {
        let status = key(ret.status);
        assert!(
            shown.contains(&status) || unreachable.contains(&status),
            "{}: no case for {} ({})",
            l.leaf,
            ret.status,
            ret.when
        );
    }
    for status in &unreachable {
        assert!(!shown.contains(status), "{}: {status} is shown after all", l.leaf);
    }
}

/// A status with its operand, without other details.
fn key(status: Status) -> Status {
    match status.low_kind() {
        sim_core::tdx::Low::Operand => status,
        _ => status.code(),
    }
}
