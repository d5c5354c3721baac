//! The library as a whole: what it has to answer, and that what it shows happens.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use scenarios::format::Scenario;
use scenarios::library::{LIBRARY, find};
use scenarios::report::Verdict;
use scenarios::run::{Request, Speed, plan, run};

/// Scenarios that cite a row of a section, and call leaves of the module or have a TD that was built with them.
fn with_leaves(section: &str, row: &str) -> Vec<&'static str> {
    let cites = |scenario: &Scenario| {
        let one = |cite: &String| cite.contains(section) && cite.contains(row);
        scenario.cite.iter().any(one)
    };
    let calls = |text: &str| [" : tdh.", " : tdg.", "[td."].iter().any(|t| text.contains(t));
    let entries = LIBRARY.iter().filter(|entry| calls(entry.text));
    entries
        .filter(|entry| cites(&Scenario::parse(entry.source()).unwrap()))
        .map(|entry| entry.name)
        .collect()
}

#[test]
fn every_question_and_every_trap_of_the_architecture_has_a_scenario_with_real_leaves() {
    let questions = (1..=21).map(|n| ("architecture.md §11", format!("Q-{n:02}")));
    let traps = (1..=7).map(|n| ("architecture.md §7.10", format!("7.10.{n}")));
    for (section, row) in questions.chain(traps) {
        assert!(!with_leaves(section, &row).is_empty(), "{row}");
    }
    // The lookup can tell rows apart.
    assert!(with_leaves("architecture.md §11", "Q-22").is_empty());
    assert!(!with_leaves("architecture.md §11", "Q-13").contains(&"q14-cache-wb-keeps-lines"));
}

#[test]
fn where_time_passes_the_leaves_of_two_processors_meet() {
    // Their files allow for functional runs, too, in which a leaf takes no time and nothing meets.
    for (name, step, meeting, apart) in [
        ("accept-2m-interrupted", "g0.1", "td-exit 1", "tdx SUCCESS"),
        ("aug-2m-against-a-4k-leaf", "cpu0.2", "tdx OPERAND_BUSY|R8", "tdx SUCCESS"),
        ("host-priority", "cpu1.2", "tdx OPERAND_BUSY|RCX", "tdx SUCCESS"),
        ("host-priority", "g0.2", "tdx OPERAND_BUSY|RCX", "td-exit 48"),
    ] {
        let scenario = Scenario::parse(find(name).unwrap().source()).unwrap();
        for (speed, wanted) in [(Speed::Timed, meeting), (Speed::Functional, apart)] {
            let request = Request { speed, ..Request::default() };
            let cells = plan(&scenario, &request).unwrap();
            assert_eq!(cells.len(), 4);
            for cell in &cells {
                let report = run(cell, &request).unwrap();
                assert_eq!(report.verdict, Verdict::Pass, "{name}");
                let seen = report.expectations.iter().find(|e| e.subject == step).unwrap();
                assert!(seen.seen.starts_with(wanted), "{name} {step}: {}", seen.seen);
            }
        }
    }
}
