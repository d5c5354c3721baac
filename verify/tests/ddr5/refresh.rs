//! Q8: refreshes are never skipped, and postponed only as far as is allowed, over every window.

use crate::slow::cmd;
use proptest::prelude::*;
use verify::ddr5::{Checker, Cmd, Detail, Param, Place, Record, Refresh, Rules, example_rules};

/// One rank with a refresh every 1000 clocks that takes 100, of which two may be postponed.
fn rules(refresh: Refresh) -> Rules {
    let mut rules = example_rules().refreshed(refresh);
    for (param, value) in [
        (Param::Ranks, 1),
        (Param::Banks, 2),
        (Param::Trefi, 1000),
        (Param::Trfc, 100),
        (Param::TrfcSb, 50),
        (Param::Postpone, 2),
    ] {
        rules = rules.with(param, value).unwrap();
    }
    rules
}

fn refresh(clock: u64) -> Record {
    cmd(clock, Cmd::RefAb, 0, 0, 0, 0)
}

fn same_bank(clock: u64, bank: u8) -> Record {
    cmd(clock, Cmd::RefSb, 0, 0, bank, 0)
}

/// Which commands of the trace, by number, are reported late; the end of the run counts as one more.
fn late(rules: &Rules, trace: &[Record], end: u64) -> Vec<usize> {
    let mut checker = Checker::new(rules.clone());
    let mut found = Vec::new();
    for (i, record) in trace.iter().enumerate() {
        if !checker.check(record) {
            found.push(i);
        }
    }
    if !checker.finish(end) {
        found.push(trace.len());
    }
    assert!(checker.violations().iter().all(|v| v.rule.id == "refresh late"), "{found:?}");
    found
}

#[test]
fn a_refresh_may_be_postponed_as_often_as_the_rules_say_and_not_a_clock_longer() {
    let rules = rules(Refresh::AllBank);
    let on_time: Vec<Record> = (1..20).map(|i| refresh(i * 1000)).collect();
    assert!(late(&rules, &on_time, 20_000).is_empty());
    // Two of them postponed, and made up for.
    let burst = [refresh(1000), refresh(4000), refresh(4100), refresh(4200), refresh(5000)];
    assert!(late(&rules, &burst, 6000).is_empty());
    let clock_later = [refresh(1000), refresh(4001)];
    assert_eq!(late(&rules, &clock_later, 5000), [1]);
    // All of them as late as they may be; without one of them the next is too late.
    let mut latest: Vec<Record> = (1..20).map(|i| refresh((i + 2) * 1000)).collect();
    assert!(late(&rules, &latest, 22_000).is_empty());
    latest.remove(9);
    assert_eq!(late(&rules, &latest, 22_000), [9]);
    let slack = rules.with(Param::RefreshSlack, 1).unwrap();
    assert!(late(&slack, &clock_later, 5000).is_empty());
}

#[test]
fn the_first_refresh_counts_from_the_start_and_the_last_to_the_end() {
    let rules = rules(Refresh::AllBank);
    assert!(late(&rules, &[refresh(3000)], 4000).is_empty());
    assert_eq!(late(&rules, &[refresh(3001)], 4000), [0]);
    assert_eq!(late(&rules, &[refresh(3000)], 4001), [1]);
    assert_eq!(late(&rules.refreshed(Refresh::Off), &[], 1 << 40), [0; 0]);
}

#[test]
fn a_rank_that_is_never_refreshed_is_found_by_the_next_command_of_any_rank_and_told_once() {
    let rules = rules(Refresh::AllBank).with(Param::Ranks, 2).unwrap();
    let one: Vec<Record> = (1..20).map(|i| refresh(i * 1000)).collect();
    assert_eq!(late(&rules, &one, 20_000), [3], "rank 1 was due at 3000");
    let mut checker = Checker::new(rules);
    checker.watch(Place::default());
    assert!(
        !checker.finish(9000),
        "a subchannel without any command is looked at when it is watched"
    );
    assert_eq!(checker.total(), 2);
    let v = checker.violations()[0];
    assert_eq!((v.first, v.second), (None, None));
    assert_eq!(v.detail, Detail::Clock { found: 9000, needed: 3000 });
}

#[test]
fn each_rank_is_late_on_its_own_clock_and_told_once() {
    let rules = rules(Refresh::AllBank).with(Param::Ranks, 2).unwrap();
    let rules = rules.with(Param::Tppd, 0).unwrap();
    let other = |clock| cmd(clock, Cmd::RefAb, 1, 0, 0, 0);
    let precharge = |clock| cmd(clock, Cmd::PreAb, 0, 0, 0, 0);
    // Rank 0 is due at 3 · 1001, rank 1 a clock later, at 1 + 3 · 1001.
    let close = rules.clone().with(Param::Trefi, 1001).unwrap();
    let trace = [other(1), precharge(3003), precharge(3004), precharge(3005)];
    assert_eq!(late(&close, &trace, 4000), [2, 3]);
    let apart = [other(500), precharge(3500), precharge(3501), precharge(9000)];
    assert_eq!(late(&rules, &apart, 9000), [1, 2]);
    let mut checker = Checker::new(rules);
    apart.iter().for_each(|r| {
        checker.check(r);
    });
    checker.finish(9000);
    assert_eq!(checker.total(), 2);
}

#[test]
fn each_bank_index_is_refreshed_on_its_own_and_by_a_refresh_of_all() {
    let rules = rules(Refresh::SameBank);
    let both: Vec<Record> =
        (1..9).flat_map(|i| [same_bank(i * 1000, 0), same_bank(i * 1000 + 500, 1)]).collect();
    assert!(late(&rules, &both, 9000).is_empty());
    let one = [same_bank(1000, 0), same_bank(1500, 1), refresh(2000), same_bank(3000, 0)];
    assert!(late(&rules, &one, 5000).is_empty());
    assert_eq!(
        late(&rules, &one, 5001),
        [4],
        "bank 1 is due three intervals after the refresh of all"
    );
    // Bank 1 alone is left out. It cannot be made up for by its neighbour.
    let missing = [same_bank(1000, 0), refresh(1500), same_bank(2500, 0), refresh(4501)];
    assert_eq!(late(&rules, &missing, 4600), [3]);
}

#[test]
fn an_early_refresh_earns_nothing() {
    let rules = rules(Refresh::AllBank);
    let early = [refresh(100), refresh(200), refresh(300), refresh(400)];
    assert!(late(&rules, &early, 3400).is_empty());
    assert_eq!(late(&rules, &early, 3401), [4]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_first_late_refresh_is_the_one_that_a_look_at_every_window_finds(
        gaps in prop::collection::vec(100u64..2600, 1..40),
    ) {
        let rules = rules(Refresh::AllBank);
        let mut clocks = vec![0u64];
        for gap in gaps {
            clocks.push(clocks.last().unwrap() + gap);
        }
        // Between refreshes i and j there may be (j - i + postponed) intervals.
        let bad = |j: usize| (0..j).any(|i| clocks[j] - clocks[i] > (j - i + 2) as u64 * 1000);
        let slow = (1..clocks.len()).find(|j| bad(*j)).map(|j| j - 1);
        let trace: Vec<Record> = clocks[1..].iter().map(|c| refresh(*c)).collect();
        let found = late(&rules, &trace, *clocks.last().unwrap());
        prop_assert_eq!(found.first().copied(), slow);
    }
}
