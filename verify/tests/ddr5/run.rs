//! The checks of a whole run, each broken alone.

use proptest::prelude::*;
use sim_core::time::Ps;
use verify::ddr5::run::{
    Crypto, Queue, QueueTotals, Row, RunChecker, TIMING, timing_markdown, unloaded_read,
};
use verify::ddr5::{Param, example_rules};

fn checker() -> RunChecker {
    RunChecker::new(Ps(10), Ps(100))
}

/// The ids that the checks break.
fn broken(look: impl FnOnce(&mut RunChecker)) -> Vec<&'static str> {
    let mut checker = checker();
    look(&mut checker);
    let found: Vec<&str> = checker.violations().iter().map(|v| v.id).collect();
    assert_eq!(found.len() as u64, checker.total());
    for id in &found {
        assert!(checker.witnesses(id) > 0 && TIMING.iter().any(|t| t.id == *id), "{id}");
    }
    found
}

#[test]
fn a_request_is_answered_once_in_time_and_not_sooner_than_it_can_be() {
    let good = |c: &mut RunChecker| {
        c.request(0, Ps(5));
        c.request(1, Ps(5));
        c.answer(1, Ps(15));
        c.answer(0, Ps(105));
        c.finish(Ps(200), 0);
    };
    assert!(broken(good).is_empty());
    let after = |what: &dyn Fn(&mut RunChecker)| {
        broken(|c| {
            good(c);
            what(c);
        })
    };
    assert_eq!(after(&|c| c.answer(1, Ps(120))), ["Q1"], "answered twice");
    assert_eq!(
        after(&|c| c.answer(2, Ps(120))),
        ["Q1"],
        "never asked: a phantom at the end of a trace"
    );
    assert_eq!(after(&|c| c.request(1, Ps(120))), ["Q1"], "the id was used");
    let answered = |at| {
        broken(|c| {
            c.request(7, Ps(5));
            c.answer(7, Ps(at));
        })
    };
    assert_eq!(answered(14), ["Q1"]);
    assert_eq!(answered(4), ["Q1"], "before it was asked");
    let mut free = RunChecker::new(Ps(0), Ps(100));
    free.request(7, Ps(5));
    free.answer(7, Ps(4));
    assert_eq!(free.violations()[0].id, "Q1", "even when an answer may take no time");
    assert!(answered(15).is_empty() && answered(105).is_empty());
    assert_eq!(answered(106), ["Q16"]);
}

#[test]
fn what_is_left_at_the_end_is_reported_and_not_older_than_the_bound() {
    let left = |end, reported| {
        broken(|c| {
            c.request(0, Ps(50));
            c.request(1, Ps(5));
            c.finish(Ps(end), reported);
        })
    };
    assert!(left(105, 2).is_empty());
    assert_eq!(left(105, 1), ["Q14"]);
    assert_eq!(left(106, 2), ["Q16"]);
}

#[test]
fn events_come_in_order_and_nobody_schedules_in_the_past() {
    let events =
        |list: &[(u64, u64)]| broken(|c| list.iter().for_each(|(t, s)| c.event(Ps(*t), *s)));
    assert!(events(&[(1, 4), (1, 5), (2, 0)]).is_empty());
    assert_eq!(events(&[(1, 4), (1, 4)]), ["Q2"]);
    assert_eq!(events(&[(2, 4), (1, 5)]), ["Q2"]);
    assert!(broken(|c| c.scheduled(Ps(5), Ps(5))).is_empty());
    assert_eq!(broken(|c| c.scheduled(Ps(5), Ps(4))), ["Q2"]);
}

#[test]
fn a_run_moves_at_most_the_peak_and_may_move_all_of_it() {
    let rules = example_rules();
    let burst = 8 * 416;
    assert!(broken(|c| c.bandwidth(&rules, 2, 64 * 20, Ps(10 * burst))).is_empty());
    assert_eq!(broken(|c| c.bandwidth(&rules, 2, 64 * 20, Ps(10 * burst - 1))), ["Q9"]);
    assert_eq!(broken(|c| c.bandwidth(&rules, 2, 64 * 20 + 1, Ps(10 * burst))), ["Q9"]);
}

#[test]
fn parameters_that_cannot_be_true_are_named() {
    assert!(broken(|c| c.parameters(&example_rules())).is_empty());
    let mut c = checker();
    c.parameters(&example_rules().with(Param::TrrdL, 5).unwrap().with(Param::Cwl, 44).unwrap());
    expect_test::expect!["not true: tRRD_L ≥ tRRD_S; CL > CWL"].assert_eq(&c.violations()[0].what);
}

#[test]
fn an_unloaded_read_takes_the_documented_sum_to_the_picosecond() {
    let rules = example_rules();
    let pipe = Ps(1234);
    // timing.md §2.2: 4800B 40-39-39, BL/2 = 8.
    let clocks = [(Row::Hit, 48), (Row::Closed, 87), (Row::Conflict, 126)];
    for (row, clocks) in clocks {
        let want = Ps(clocks * 416 + 1234);
        assert_eq!(unloaded_read(&rules, row, pipe), want);
        assert!(broken(|c| c.unloaded(&rules, row, pipe, want)).is_empty());
        assert_eq!(broken(|c| c.unloaded(&rules, row, pipe, Ps(want.0 + 1))), ["Q11"]);
        assert_eq!(broken(|c| c.unloaded(&rules, row, pipe, Ps(want.0 - 1))), ["Q11"]);
    }
}

#[test]
fn a_stream_reaches_what_refresh_leaves_within_one_percent() {
    let rules = example_rules();
    // In a second: 8.57 % of the peak is lost, (18 + 39 + 710 + 39) / 9375 (timing.md §2.1: 8.5 %).
    let second = Ps(1_000_000_000_000);
    let peak = 64 * second.0 / (8 * 416);
    let want = peak - peak / 9375 * 806;
    let at = |bytes| broken(|c| c.streaming(&rules, bytes, second));
    assert!(
        at(want).is_empty()
            && at(want / 1000 * 991).is_empty()
            && at(want / 1000 * 1009).is_empty()
    );
    assert_eq!(at(want / 1000 * 989), ["Q12"]);
    assert_eq!(at(want / 1000 * 1011), ["Q12"]);
    let mut c = checker();
    c.streaming(&rules, peak, second);
    expect_test::expect!["19230769230 bytes in 1 s: 109.40 % of what refresh leaves"]
        .assert_eq(&c.violations()[0].what);
}

#[test]
fn little_law_holds_within_one_request() {
    let queue = QueueTotals { integral: 5_000, waited: 4_000, elapsed: Ps(1000) };
    assert!(broken(|c| c.little("reads", &queue)).is_empty());
    let less = QueueTotals { waited: 3_999, ..queue };
    assert_eq!(broken(|c| c.little("reads", &less)), ["Q13"]);
    let more = QueueTotals { waited: 6_001, ..queue };
    assert_eq!(broken(|c| c.little("reads", &more)), ["Q13"]);
}

proptest! {
    #[test]
    fn a_queue_that_empties_keeps_little_law_exactly(
        stays in prop::collection::vec((0u64..1000, 0u64..500), 1..60),
    ) {
        let mut events: Vec<(u64, bool, u64)> = Vec::new();
        for (enter, stay) in stays {
            events.push((enter, true, enter));
            events.push((enter + stay, false, enter));
        }
        // At equal times those that come are first: nobody leaves before.
        events.sort_by_key(|(t, enters, _)| (*t, !*enters));
        let mut queue = Queue::new();
        for (t, enters, entered) in events {
            if enters { queue.enter(Ps(t)) } else { queue.leave(Ps(t), Ps(entered)) }
        }
        let totals = queue.totals(Ps(2000));
        prop_assert_eq!(totals.integral, totals.waited);
        prop_assert!(broken(|c| c.little("any", &totals)).is_empty());
    }
}

#[test]
fn crypto_latency_is_added_once_per_fill_and_a_clear_is_no_faster_than_its_bursts() {
    let once = Crypto { fills: 7, latency: Ps(10_000), added: Ps(70_000) };
    assert!(broken(|c| c.crypto(&once)).is_empty());
    assert_eq!(broken(|c| c.crypto(&Crypto { added: Ps(80_000), ..once })), ["Q15"]);
    assert_eq!(broken(|c| c.crypto(&Crypto { fills: 8, ..once })), ["Q15"]);
    let rules = example_rules();
    let clear = |ps| broken(|c| c.cleared(&rules, 64, 2, Ps(ps)));
    assert!(clear(32 * 8 * 416).is_empty());
    assert_eq!(clear(32 * 8 * 416 - 1), ["Q15"]);
}

#[test]
fn the_checks_of_time_print_one_row_each() {
    let page = timing_markdown();
    for t in TIMING {
        assert!(page.contains(&format!("| {} | {} | {} |", t.id, t.text, t.cite)));
    }
    assert_eq!(page.lines().count(), TIMING.len() + 2);
}
