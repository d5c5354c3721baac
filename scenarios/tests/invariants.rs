//! The invariants, exercised.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use scenarios::exercise::{Effort, Exercise, Standing, exercise, watch};
use scenarios::format::Scenario;
use scenarios::library::LIBRARY;
use scenarios::run::{Request, plan};
use sim_core::planted::{Fault, Planted};
use verify::invariants::Checker;

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

/// A fault planted in the product, and the invariants that it breaks.
const PLANTED: &[(Fault, &[&str])] = &[
    (Fault::AddWithoutPamtOwner, &["T1"]),
    (Fault::AugTakenPage, &["T2"]),
    (Fault::AcceptKeepsContents, &["T3", "T6", "H7"]),
    (Fault::AugClearsPage, &["T4"]),
    (Fault::RemoveKeepsPamt, &["T5"]),
    (Fault::ChldcntForgotten, &["T7"]),
    (Fault::ReclaimBeforeTeardown, &["T8"]),
    (Fault::RemoveKeepsEntry, &["T9"]),
    (Fault::ErrorLeavesChange, &["T10"]),
    (Fault::TdcsUnderGlobalKey, &["T11"]),
    (Fault::RdmdSaysFree, &["T12"]),
    (Fault::VpflushdoneFreesHkid, &["H1"]),
    (Fault::FreeidIgnoresBitmap, &["H2"]),
    (Fault::VpflushdoneIgnoresVcpus, &["H3"]),
    (Fault::CacheWbWritesNothing, &["H4"]),
    (Fault::PconfigActiveKey, &["H5"]),
    (Fault::TwoTdsOneHkid, &["H6"]),
    (Fault::CacheWbClearsEarly, &["H8"]),
    (Fault::TrackedTooEarly, &["E1", "E3"]),
    (Fault::TrackIgnoresRefcount, &["E2"]),
    (Fault::RefcountForgotten, &["E4"]),
    (Fault::RemoveWithoutBlock, &["E5"]),
    (Fault::FatalForgotten, &["P9", "R5"]),
    (Fault::DisableForgotten, &["P10"]),
    (Fault::LmceBroadcast, &["P11"]),
    (Fault::OtherMscod, &["R1"]),
    (Fault::SeamNrForgotten, &["R2"]),
    (Fault::WriteKeepsTd, &["P6"]),
];

#[test]
fn scratch_discovery() {
    for (fault, ids) in PLANTED {
        let mut hits: std::collections::BTreeMap<&str, Vec<String>> = Default::default();
        for entry in LIBRARY {
            let scenario = Scenario::parse(entry.source()).unwrap();
            let cells = plan(&scenario, &Request::default()).unwrap();
            let mut done = false;
            for mut cell in [cells.first().unwrap().clone(), cells.last().unwrap().clone()] {
                cell.plant(Planted::fault(*fault));
                let mut checker = Checker::new();
                let t = std::time::Instant::now();
                let found = watch(&cell, true, &mut checker);
                for id in *ids {
                    if !done && found.iter().any(|v| v.id == *id) {
                        let other: std::collections::BTreeSet<_> =
                            found.iter().map(|v| v.id).collect();
                        hits.entry(id).or_default().push(format!(
                            "{} {}ms {:?}",
                            entry.name,
                            t.elapsed().as_millis(),
                            other
                        ));
                    }
                }
                if cells.len() < 2 {
                    break;
                }
                let _ = &mut done;
            }
        }
        for id in *ids {
            eprintln!("{fault:?} {id}: {:?}", hits.get(id).map(|h| &h[..h.len().min(3)]));
        }
    }
}
