//! The invariants of verification.md §2, exercised; and that each catches the bug that was planted for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use scenarios::exercise::{Effort, Exercise, Standing, compare, exercise, follow, watch};
use scenarios::format::Scenario;
use scenarios::library::find;
use scenarios::report::Verdict;
use scenarios::run::{Cell, Request, plan};
use sim_core::Ps;
use sim_core::mca::{McStatus, McgStatus};
use sim_core::planted::{Fault, Planted};
use std::collections::BTreeSet;
use verify::invariants::{
    AliasTiming, Checker, Feed, Grading, INVARIANTS, Shown, Violation, find as row,
};

#[test]
fn every_invariant_that_is_judged_is_exercised_and_holds() {
    let what = Exercise { effort: Effort::SMALL, ..Exercise::default() };
    let mut said = 0;
    let report = exercise(&what, "test", &mut |_| said += 1);
    assert_eq!(report.verdict, Verdict::Pass, "{report}");
    let with = |standing| -> Vec<&str> {
        let some = report.invariants.iter().filter(|i| i.standing == standing);
        some.map(|i| i.id.as_str()).collect()
    };
    assert_eq!(report.invariants.len(), 120);
    assert_eq!(with(Standing::Pending), ["V1", "V2", "V3", "V4", "V5", "V6", "V7", "V8", "V9"]);
    assert_eq!(with(Standing::LeftOut), ["R4", "R6"]);
    assert!(report.invariants.iter().all(|i| (i.witnesses > 0) == (i.standing == Standing::Holds)));
    assert!(said > 100, "progress was told {said} times");
    assert_eq!(report.not_run, [] as [String; 0]);
}

#[test]
fn one_group_or_one_invariant_can_be_asked_for_and_the_same_seed_gives_the_same_counts() {
    let small = Exercise { effort: Effort::SMALL, ..Exercise::default() };
    let group = Exercise { group: Some('q'), ..small.clone() };
    let (a, b) = (exercise(&group, "test", &mut |_| ()), exercise(&group, "test", &mut |_| ()));
    assert_eq!(a, b);
    let ids: BTreeSet<char> = a.invariants.iter().filter_map(|i| i.id.chars().next()).collect();
    assert_eq!((ids, a.invariants.len()), (BTreeSet::from(['Q']), 17));
    let one = Exercise { id: Some("l2".to_owned()), ..small };
    let report = exercise(&one, "test", &mut |_| ());
    assert_eq!(report.invariants.len(), 1);
    assert_eq!((report.invariants[0].id.as_str(), report.verdict), ("L2", Verdict::Pass));
}

#[test]
fn what_was_not_exercised_makes_the_whole_fail() {
    let none = Effort { cells: 0, replays: false, walks: 0, requests: 0, worlds: 0 };
    let what = Exercise { effort: none, id: Some("L2".to_owned()), ..Exercise::default() };
    let report = exercise(&what, "test", &mut |_| ());
    assert_eq!(report.invariants[0].standing, Standing::NotExercised);
    assert_eq!(report.verdict, Verdict::Fail);
}

/// The cell of a library scenario on a part without the erratum, the first there is otherwise.
fn cell(name: &str) -> Cell {
    let scenario = Scenario::parse(find(name).unwrap().source()).unwrap();
    let cells = plan(&scenario, &Request::default()).unwrap();
    let quiet = cells.iter().find(|c| !c.platform().memory.erratum_pw_mce);
    quiet.unwrap_or(&cells[0]).clone()
}

fn ids(found: &[Violation]) -> Vec<&'static str> {
    found.iter().map(|v| v.id).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A fault planted in the product, a scenario that meets it, and all invariants that it breaks there.
#[rustfmt::skip]
const PLANTED: &[(Fault, &str, &[&str])] = &[
    (Fault::AddWithoutPamtOwner,    "debug-memory",             &["T1", "T7"]),
    (Fault::AugTakenPage,           "page-given-twice",         &["T1", "T2", "T7"]),
    (Fault::AcceptKeepsContents,    "hkid-reused",              &["H7", "T3", "T6"]),
    (Fault::AugClearsPage,          "aug-2m-against-a-4k-leaf", &["T4"]),
    (Fault::RemoveKeepsPamt,        "q16-remove-while-building", &["T5", "T7"]),
    (Fault::ChldcntForgotten,       "demote-then-promote",      &["T7"]),
    (Fault::ReclaimBeforeTeardown,  "teardown-in-wrong-orders", &["T1", "T8"]),
    (Fault::RemoveKeepsEntry,       "q16-remove-while-building", &["T1", "T9"]),
    (Fault::ErrorLeavesChange,      "cache-wb-interrupted",     &["T10"]),
    (Fault::TdcsUnderGlobalKey,     "td-lifecycle",             &["T11"]),
    (Fault::RdmdSaysFree,           "q15-range-block-twice",    &["T12"]),
    (Fault::VpflushdoneFreesHkid,   "cache-wb-interrupted",     &["H1", "H3"]),
    (Fault::FreeidIgnoresBitmap,    "cache-wb-on-every-package", &["H2"]),
    (Fault::VpflushdoneIgnoresVcpus, "vpflushdone-while-entered", &["H3"]),
    (Fault::CacheWbWritesNothing,   "cache-wb-on-every-package", &["H4"]),
    (Fault::PconfigActiveKey,       "q19-key-config-twice",     &["H5"]),
    (Fault::TwoTdsOneHkid,          "teardown-in-wrong-orders", &["H1", "H6"]),
    (Fault::CacheWbClearsEarly,     "cache-wb-interrupted",     &["H8"]),
    (Fault::TrackedTooEarly,        "tracking-forgotten",       &["E1", "E3", "E5"]),
    (Fault::TrackIgnoresRefcount,   "tracking-forgotten",       &["E2", "E4"]),
    (Fault::RefcountForgotten,      "accept-2m",                &["E4"]),
    (Fault::RemoveWithoutBlock,     "relocate-a-page",          &["E5"]),
    (Fault::FatalForgotten,         "q04-td-reads-overwritten", &["P9", "R5"]),
    (Fault::DisableForgotten,       "pamt-overwritten",         &["P10"]),
    (Fault::LmceBroadcast,          "al-1",                     &["P11", "R2"]),
    (Fault::OtherMscod,             "measured-erratum",         &["R1"]),
    (Fault::SeamNrForgotten,        "al-1",                     &["R2"]),
    (Fault::WriteKeepsTd,           "td-lifecycle",             &["P6"]),
    (Fault::WriteKeepsTd,           "al-1",                     &["Q17"]),
];

#[test]
fn every_planted_fault_breaks_the_invariants_it_should_and_no_other() {
    for (fault, name, broken) in PLANTED {
        let disciplined = broken.contains(&"P6");
        let look = |cell: &Cell| match *broken {
            ["Q17"] => follow(cell, &mut Checker::new()),
            _ => watch(cell, disciplined, &mut Checker::new()).unwrap(),
        };
        let mut cell = cell(name);
        assert_eq!(look(&cell), [], "{name} without a fault");
        cell.plant(Planted::fault(*fault));
        let found = look(&cell);
        let missing: Vec<_> = broken.iter().filter(|id| !ids(&found).contains(id)).collect();
        assert!(
            missing.is_empty(),
            "{fault:?} on {name}: {missing:?} missing of {:?}",
            ids(&found)
        );
        assert_eq!(ids(&found), *broken, "{fault:?} on {name}: {found:#?}");
    }
}

#[test]
fn a_host_that_is_shown_private_bytes_is_found_by_comparing_two_secrets() {
    let mut checker = Checker::new();
    assert_eq!(compare(Planted::NONE, &mut checker), []);
    assert!(["S2", "S3", "S5", "C13", "R3"].iter().all(|id| checker.witnesses(id) > 0));
    let shown = Planted::fault(Fault::SharedReadShowsData);
    assert_eq!(ids(&compare(shown, &mut Checker::new())), ["S2", "S5"]);
}

/// What no fault of the product stands for: results that are altered.
#[test]
fn altered_results_are_found() {
    let mut c = Checker::new();
    let shown = |took| [Shown { outcome: "data 0x0".to_owned(), took: Ps(took) }];
    assert_eq!(c.check_secret_pair(&shown(5), &shown(5)), []);
    assert_eq!(ids(&c.check_secret_pair(&shown(5), &shown(6))), ["S3"]);
    assert_eq!(c.check_directory(0b11, 0b111), []);
    assert_eq!(ids(&c.check_directory(0b11, 0b1)), ["C10"]);
    let times = AliasTiming { uncached: Ps(1), clean: Ps(2), modified: Ps(3) };
    assert_eq!(c.check_alias_timing(&times), []);
    let flat = AliasTiming { clean: Ps(1), ..times };
    assert_eq!(ids(&c.check_alias_timing(&flat)), ["C13"]);
    // The published log (architecture.md §6.2) is a panic.
    let log = Grading {
        status: McStatus(0xbd80_0000_0010_0134),
        mcg: McgStatus(0xf),
        user: false,
        panic: true,
        message: "Data load in unrecoverable area of kernel",
    };
    assert_eq!(c.check_grade(&log), []);
    assert_eq!(ids(&c.check_grade(&Grading { panic: false, ..log })), ["R3"]);
    assert_eq!(c.check_tight(100, 100), []);
    assert_eq!(ids(&c.check_tight(101, 100)), ["Q6"]);
    assert_eq!(ids(&c.check_refinement(0, Some("they differ".to_owned()))), ["Q17"]);
}

const ALTERED: [&str; 5] = ["S3", "C10", "C13", "R3", "Q6"];
const COMPARED: [&str; 2] = ["S2", "S5"];

#[test]
fn every_invariant_of_calls_machine_checks_and_runs_has_a_planted_bug_that_it_catches() {
    let planted = PLANTED.iter().flat_map(|(_, _, ids)| ids.iter().copied());
    let caught: BTreeSet<&str> = planted.chain(ALTERED).chain(COMPARED).collect();
    let judged = |i: &&verify::invariants::Invariant| {
        matches!(i.feed, Feed::Module | Feed::Reports | Feed::Runs)
    };
    let want: BTreeSet<&str> = INVARIANTS.iter().filter(judged).map(|i| i.id).collect();
    assert_eq!(want.difference(&caught).collect::<Vec<_>>(), [] as [&&str; 0]);
    for (fault, _, ids) in PLANTED {
        let named = ids.iter().filter_map(|id| row(id)).any(|i| i.fault.contains(fault.name()));
        assert!(named, "the registry does not name {fault:?}");
    }
    // Groups L, C, P and S are seen to in verify's own tests, Q in verify/tests/ddr5, N and M in relations.rs.
    assert!(INVARIANTS.iter().all(|i| i.fault.is_empty() != i.feed.is_checked()));
}
