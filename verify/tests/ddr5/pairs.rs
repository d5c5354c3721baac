//! Every rule about clocks: kept by the slow reference, broken by one clock less.

use crate::slow::{earliest, small, walk};
use proptest::prelude::*;
use std::collections::BTreeMap;
use verify::ddr5::{Checker, Detail, Kind, Param, RULES, Record, Rules};

/// Parameters that the rules about clocks are made of.
const CLOCKS: [Param; 24] = [
    Param::Cl,
    Param::Cwl,
    Param::Burst,
    Param::Trcd,
    Param::Trp,
    Param::Tras,
    Param::Trc,
    Param::Trtp,
    Param::Twr,
    Param::TrrdS,
    Param::TrrdL,
    Param::Tfaw,
    Param::TccdS,
    Param::TccdL,
    Param::TccdLWr,
    Param::TwtrS,
    Param::TwtrL,
    Param::Tppd,
    Param::Trfc,
    Param::TrfcSb,
    Param::Trefsbrd,
    Param::GapRw,
    Param::GapWr,
    Param::GapRank,
];

/// Rules with any clocks at all: the checker must not need them to be sane.
fn any_rules() -> impl Strategy<Value = Rules> {
    prop::collection::vec(0u64..60, CLOCKS.len()).prop_map(|values| {
        let mut rules = small();
        for (param, value) in CLOCKS.into_iter().zip(values) {
            // A read and a write are kept close on the data bus, or one could overtake the other there.
            let value = match param {
                Param::Cl => 40 + value % 3,
                Param::Cwl => 38 + value % 3,
                Param::Burst => 4 + value % 8,
                Param::Tfaw => 4 * value,
                _ => value,
            };
            rules = rules.with(param, value).unwrap();
        }
        rules
    })
}

fn steps(most: usize) -> impl Strategy<Value = Vec<(u32, u8)>> {
    let delay = prop_oneof![3 => Just(0u8), 1 => 0u8..40];
    prop::collection::vec((any::<u32>(), delay), 1..most)
}

/// What one command breaks, without the bandwidth that an overlap breaks too.
fn broken(checker: &Checker, record: &Record) -> BTreeMap<&'static str, u64> {
    let mut after = checker.clone();
    let before = checker.violations().len();
    after.check(record);
    let mut found = BTreeMap::new();
    for v in &after.violations()[before..] {
        let short = match v.detail {
            Detail::Apart { found, needed } => needed - found,
            _ => 0,
        };
        found.insert(v.rule.id, short);
    }
    let both = (found.contains_key("data overlap"), found.remove("bandwidth").is_some());
    assert_eq!(both.0, both.1, "an overlap is too much bandwidth, and nothing else is: {record}");
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_trace_that_the_slow_reference_makes_breaks_nothing(rules in any_rules(), steps in steps(160)) {
        let mut checker = Checker::new(rules.clone());
        for (record, _) in walk(&rules, &steps) {
            prop_assert!(checker.check(&record), "{}", checker.violations()[0]);
        }
        prop_assert!(checker.finish(checker.last_clock()));
    }

    #[test]
    fn checker_and_slow_reference_agree_on_the_first_clock_of_any_command(
        rules in any_rules(), steps in steps(80), others in steps(12),
    ) {
        let mut checker = Checker::new(rules.clone());
        let mut history = Vec::new();
        for (record, _) in walk(&rules, &steps) {
            checker.check(&record);
            history.push(record);
        }
        // Any command, whether the states allow it or not.
        for (record, _) in walk(&rules, &others) {
            let slow = earliest(&rules, &history, &record);
            prop_assert_eq!(checker.earliest(&record).0, slow, "{}", record);
        }
    }

    #[test]
    fn a_command_that_comes_a_clock_too_early_is_named_with_one_clock_missing(
        rules in any_rules(), steps in steps(120),
    ) {
        let mut checker = Checker::new(rules.clone());
        for (record, tight) in walk(&rules, &steps) {
            if tight {
                let early = Record { clock: record.clock - 1, ..record };
                let found = broken(&checker, &early);
                prop_assert!(!found.is_empty(), "{} went through", early);
                prop_assert!(found.values().all(|short| *short == 1), "{:?}", found);
                let named = checker.earliest(&record).1.map(|r| r.id);
                prop_assert!(named.is_some_and(|id| found.contains_key(id)), "{:?}", named);
            }
            checker.check(&record);
        }
    }
}

#[test]
fn every_rule_about_clocks_is_broken_alone_by_one_command_moved_by_one_clock() {
    let timed: Vec<&str> =
        RULES.iter().filter(|r| r.kind != Kind::State || r.check == "Q3").map(|r| r.id).collect();
    let mut alone: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..400u64 {
        let mut n = 0;
        let mut random = |of: u64| {
            n += 1;
            sim_core::prng::mix(seed, n, 0) % of
        };
        let mut rules = small();
        for param in CLOCKS {
            let value = match param {
                Param::Cl => 40 + random(3),
                Param::Cwl => 38 + random(3),
                Param::Burst => 4 + random(8),
                Param::Tfaw => random(400),
                _ => random(60),
            };
            rules = rules.with(param, value).unwrap();
        }
        let steps: Vec<(u32, u8)> = (0..120).map(|_| (random(1 << 32) as u32, 0)).collect();
        let mut checker = Checker::new(rules.clone());
        for (record, tight) in walk(&rules, &steps) {
            if tight {
                let found = broken(&checker, &Record { clock: record.clock - 1, ..record });
                if let [id] = *found.keys().copied().collect::<Vec<_>>() {
                    *alone.entry(id).or_default() += 1;
                }
            }
            checker.check(&record);
        }
    }
    let missing: Vec<&&str> = timed.iter().filter(|id| !alone.contains_key(**id)).collect();
    assert!(missing.is_empty(), "never broken alone: {missing:?}");
    assert_eq!(alone.len(), timed.len(), "{alone:?}");
}
