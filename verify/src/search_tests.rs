//! Breadth-first search of small configurations (verification.md §5.3) and the planted mutants (§5.4).

use crate::configurations::{Configuration, Explored, Extra, How, Reduction, rows};
use crate::invariants::{Checker, Feed, INVARIANTS};
use crate::reference::tests::{
    H1, H2, K0, Rig, X, any_step, at, load, movdir64b, spec, store, user_of,
};
use crate::reference::{Bytes, Choice, Place, Seen, Step};
use crate::search::Budget;
use expect_test::expect;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use sim_core::event::BirthCause;
use sim_core::platform::IntegrityMode::{Ci, Li};
use sim_core::{KeyId, Op};
use std::collections::BTreeSet;

const ALL: [KeyId; 3] = [K0, H1, H2];
const TWO: [KeyId; 2] = [K0, H1];

/// Searches a configuration to its end, judged.
fn search(config: &Configuration) -> Explored {
    config.explore(How::default())
}

/// The rows of that name, searched as far as the budget goes; no invariant may break.
fn table(id: &str, budget: Budget) -> String {
    let mut shown = String::new();
    for row in rows().into_iter().filter(|row| row.id == id) {
        let explored = row.explore(How { budget, ..How::default() });
        assert_eq!(explored.found.broken, None, "{row}: {:?}", explored.trace);
        assert_eq!(explored.searched.exhausted(), budget == Budget::UNBOUNDED, "{row}");
        shown += &format!("{row}\n{explored}");
    }
    shown
}
fn whole(id: &str) -> String {
    table(id, Budget::UNBOUNDED)
}
/// A row that is too large for every day: its first moves; all of it when `TDXSIM_ALL_CONFIGURATIONS` is set
/// (docs/verification.md), where it must have as many states and transitions as is said there.
fn first_moves(id: &str, depth: u32, all: &[(usize, u64, u32)]) -> String {
    if std::env::var_os("TDXSIM_ALL_CONFIGURATIONS").is_some() {
        for (row, want) in rows().into_iter().filter(|row| row.id == id).zip(all) {
            let explored = search(&row);
            assert_eq!(explored.found.broken, None, "{row}: {:?}", explored.trace);
            let s = explored.searched;
            assert_eq!((s.states, s.transitions, s.depth), *want, "{row}");
        }
    }
    table(id, Budget { depth, ..Budget::UNBOUNDED })
}

#[test]
fn x1_breaks_nothing() {
    expect![[r#"
        X1: 1 core, 3 KeyIDs, li, erratum off
        11110 states, 194886 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: true
        X1: 1 core, 3 KeyIDs, li, erratum on
        18996 states, 333536 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: true
    "#]]
    .assert_eq(&whole("X1"));
}
#[test]
fn x2_breaks_nothing() {
    expect![[r#"
        X2: 1 core, 3 KeyIDs, ci, erratum off
        22346 states, 392706 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
        X2: 1 core, 3 KeyIDs, ci, erratum on
        31720 states, 557690 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&whole("X2"));
}
#[test]
fn x3_breaks_nothing() {
    expect![[r#"
        X3: 1 core, 3 KeyIDs, ci, erratum on, injected errors
        69852 states, 1303265 transitions, depth 17
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch, PartialWrite, UncorrectableError}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&whole("X3"));
}
#[test]
fn x4_breaks_nothing() {
    let all = [(0, 0, 0), (228_421, 4_476_560, 22)];
    expect![[r#"
        X4: 1 core, 3 KeyIDs, ci, erratum off, replay attacker
        25351 states, 167759 transitions, depth 6
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
        X4: 1 core, 3 KeyIDs, li, erratum off, replay attacker
        20853 states, 144726 transitions, depth 6
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: true
    "#]]
    .assert_eq(&first_moves("X4", 6, &all));
}
#[test]
fn x5_breaks_nothing() {
    expect![[r#"
        X5: 2 cores, 2 KeyIDs, ci, erratum off
        4850 states, 84322 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
        X5: 2 cores, 2 KeyIDs, li, erratum off
        4850 states, 84322 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
        X5: 2 cores, 2 KeyIDs, ci, erratum on
        7148 states, 124308 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
        X5: 2 cores, 2 KeyIDs, li, erratum on
        7148 states, 124308 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&whole("X5"));
}
#[test]
fn x6_breaks_nothing() {
    expect![[r#"
        X6: 3 cores, 2 KeyIDs, ci, erratum on
        33324 states, 740499 transitions, depth 12
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&whole("X6"));
}
#[test]
fn x7_breaks_nothing() {
    let all = [(3_349_649, 82_536_805, 20)];
    expect![[r#"
        X7: 2 cores, 3 KeyIDs, ci, erratum on
        108367 states, 841837 transitions, depth 6
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&first_moves("X7", 6, &all));
}
#[test]
fn weak_order_of_one_core_with_two_keyids_breaks_nothing() {
    expect![[r#"
        W: 1 core, 2 KeyIDs, ci, erratum on, weakly ordered stores
        5824 states, 99772 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&whole("W"));
}

#[test]
fn with_one_private_keyid_both_modes_are_the_same() {
    // verification.md M5, on row X5.
    for erratum in [false, true] {
        let [ci, li] = [Ci, Li].map(|mode| search(&Configuration::new(mode, erratum, 2, &TWO)));
        assert_eq!(ci.to_string(), li.to_string());
    }
}

#[test]
fn states_that_differ_by_names_only_need_one_search() {
    let mut shown = String::new();
    let small = |row: &Configuration| !["X4", "X7"].contains(&row.id);
    for row in rows().into_iter().filter(small) {
        let how = How { listed: true, judged: false, ..How::default() };
        let whole = row.explore(how);
        let states = |n: usize| whole.searched.states as u64 * 100 / n.max(1) as u64;
        shown += &format!("{row}: {}", whole.searched.states);
        let cores = Reduction { cores: true, keyids: false };
        for (name, reduction) in [("cores", cores), ("and KeyIDs", Reduction::SYMMETRY)] {
            let less = row.explore(How { reduction, ..how });
            assert!(less.searched.exhausted(), "{row}");
            // What is seen and how lines stand, who is struck, by what, and after how many moves.
            assert_eq!(less.found, whole.found, "{row}, {name}");
            let n = less.searched.states;
            shown += &format!("; {name} {n} (/{}.{:02})", states(n) / 100, states(n) % 100);
        }
        shown += "\n";
    }
    expect![[r#"
        X1: 1 core, 3 KeyIDs, li, erratum off: 11110; cores 11110 (/1.00); and KeyIDs 5703 (/1.94)
        X1: 1 core, 3 KeyIDs, li, erratum on: 18996; cores 18996 (/1.00); and KeyIDs 9791 (/1.94)
        X2: 1 core, 3 KeyIDs, ci, erratum off: 22346; cores 22346 (/1.00); and KeyIDs 11592 (/1.92)
        X2: 1 core, 3 KeyIDs, ci, erratum on: 31720; cores 31720 (/1.00); and KeyIDs 16496 (/1.92)
        X3: 1 core, 3 KeyIDs, ci, erratum on, injected errors: 69852; cores 69852 (/1.00); and KeyIDs 37918 (/1.84)
        X5: 2 cores, 2 KeyIDs, ci, erratum off: 4850; cores 2485 (/1.95); and KeyIDs 2485 (/1.95)
        X5: 2 cores, 2 KeyIDs, li, erratum off: 4850; cores 2485 (/1.95); and KeyIDs 2485 (/1.95)
        X5: 2 cores, 2 KeyIDs, ci, erratum on: 7148; cores 3661 (/1.95); and KeyIDs 3661 (/1.95)
        X5: 2 cores, 2 KeyIDs, li, erratum on: 7148; cores 3661 (/1.95); and KeyIDs 3661 (/1.95)
        X6: 3 cores, 2 KeyIDs, ci, erratum on: 33324; cores 7286 (/4.57); and KeyIDs 7286 (/4.57)
        W: 1 core, 2 KeyIDs, ci, erratum on, weakly ordered stores: 5824; cores 5824 (/1.00); and KeyIDs 5824 (/1.00)
    "#]].assert_eq(&shown);
}

#[test]
fn a_search_with_symmetry_still_kills_every_mutant_with_a_real_trace() {
    for (mutant, _) in KILLERS {
        let mut config = Configuration::new(Ci, true, 2, &ALL);
        config.spec.mutant = mutant;
        let how = How { reduction: Reduction::SYMMETRY, ..How::default() };
        let killed = config.explore(how);
        let (depth, broken) = killed.found.broken.expect("the mutant survived");
        let steps = killed.trace.expect("a trace");
        assert!(steps.len() >= depth as usize);
        // The steps, made again from the start, break the same.
        let (mut now, mut checker, mut again) = (config.start(), Checker::new(), vec![]);
        for step in &steps {
            let before = now.clone();
            let out = now.step(step).unwrap();
            again.extend(checker.check_step(&before, step, &out, &now));
            again.extend(checker.check_state(&now));
        }
        let ids = |found: &[crate::invariants::Violation]| -> BTreeSet<_> {
            found.iter().map(|v| v.id).collect()
        };
        assert_eq!(ids(&again), ids(&broken), "MU-{mutant}");
    }
}

#[test]
fn without_erratum_the_host_is_struck_only_behind_a_failed_private_read() {
    // verification.md §0 point 2, by its two steps, and with no private read at all.
    let mut model = Configuration::new(Li, false, 1, &TWO).start();
    let steps = [H1, K0].map(|k| Step::Op(user_of(k), 0, load(X, k, 8)));
    let seen = steps.map(|step| model.step(&step).unwrap().seen);
    assert!(seen.iter().all(|s| matches!(s, Seen::MachineCheck { .. })), "{seen:?}");
    let mut quiet = Configuration::new(Ci, false, 2, &[K0]);
    assert_eq!(search(&quiet).found.host_mc, None);
    quiet.extra = Extra::Errors;
    assert_eq!(search(&quiet).found.causes, BTreeSet::from([BirthCause::UncorrectableError]));
}

/// What the loads of a program see, with a CLFLUSH put in at `flush`.
fn run(program: &[(KeyId, usize)], flush: Option<(usize, KeyId)>) -> Vec<Option<Bytes>> {
    let mut model = Configuration::new(Ci, false, 1, &TWO).start();
    let mut seen = vec![];
    for i in 0..=program.len() {
        if let Some((_, keyid)) = flush.filter(|(place, _)| *place == i) {
            let op = Op::Clflush { at: at(X, keyid) };
            model.step(&Step::Op(user_of(keyid), 0, op)).unwrap();
        }
        let Some((keyid, kind)) = program.get(i) else { break };
        let ops = match kind {
            0 => vec![load(X, *keyid, 8)],
            1 => vec![store(X, *keyid, i as u64 + 1)],
            _ => vec![movdir64b(X, *keyid, 7), Op::Sfence],
        };
        for op in ops {
            let out = model.step(&Step::Op(user_of(*keyid), 0, op)).unwrap();
            if *kind == 0 {
                seen.push(match out.seen {
                    // What a core can tell: the bytes, or that there was poison; neither which nor the class.
                    Seen::Data { data, .. } => Some(data),
                    _ => None,
                });
            }
        }
    }
    seen
}

#[test]
fn an_inserted_clflush_changes_results_only_where_keyids_alias() {
    // verification.md §0 point 3 and M1: all programs of four loads, stores and direct stores under two KeyIDs.
    let (mut alone, mut aliased) = ((0, 0), (0, 0));
    for code in 0..6usize.pow(4) {
        let step = |i: u32| code / 6usize.pow(i) % 6;
        let program: Vec<_> = (0..4).map(|i| (TWO[step(i) / 3], step(i) % 3)).collect();
        let single = program.iter().all(|(k, _)| *k == program[0].0);
        let plain = run(&program, None);
        for place in 1..4 {
            for keyid in TWO {
                let differs = run(&program, Some((place, keyid))) != plain;
                let count = if single { &mut alone } else { &mut aliased };
                count.0 += 1;
                count.1 += usize::from(differs);
            }
        }
    }
    assert_eq!(alone.1, 0);
    expect!["(972, 0) (6804, 204)"].assert_eq(&format!("{alone:?} {aliased:?}"));
}

/// Which invariants the first move that shows a mutant breaks.
pub(crate) const KILLERS: [(u8, &[&str]); 11] = [
    (1, &["L1"]),
    (2, &["L2", "L3", "S1", "S4"]),
    (3, &["L2", "L3", "L7", "P4"]),
    (4, &["L7", "P1", "P4", "P8"]),
    (5, &["L4", "L9"]),
    (6, &["C8"]),
    (7, &["C8"]),
    (8, &["C12"]),
    (9, &["C3"]),
    (10, &["C7"]),
    (11, &["L8", "L9", "P1"]),
];

#[test]
fn every_planted_mutant_is_killed_within_five_moves() {
    for (mutant, ids) in KILLERS {
        // Ci with the erratum shows every one of them.
        let mut config = Configuration::new(Ci, true, 1, &ALL);
        config.spec.mutant = mutant;
        let (moves, broken) = search(&config).found.broken.expect("the mutant survived");
        let found: BTreeSet<_> = broken.iter().map(|v| v.id).collect();
        assert_eq!(found, ids.iter().copied().collect(), "MU-{mutant} after {moves} moves");
        assert!(moves <= 5, "MU-{mutant} after {moves} moves");
    }
}

#[test]
fn a_line_that_is_dirty_under_two_keyids_is_reachable_unless_a_cache_holds_it_under_one() {
    // C11: in two moves. Caches that give up a line under one KeyID for another never reach it.
    let config = Configuration::new(Li, false, 1, &TWO);
    let explored = search(&config);
    assert_eq!(explored.found.alias, Some(2));
    assert!(explored.checker.is_some_and(|c| c.witnesses("C11") > 0));
    let (mut model, mut checker) = (config.start(), Checker::new());
    for (keyid, other) in [(K0, H1), (H1, K0)] {
        let evict = Choice::Evict(Place::Core(0), at(X, other).tagged());
        let _ = model.step(&Step::Choice(evict)); // there is nothing to evict the first time
        model.step(&Step::Op(user_of(keyid), 0, store(X, keyid, 1))).unwrap();
        assert_eq!(checker.check_state(&model), []);
    }
    assert_eq!(checker.witnesses("C11"), 0);
}

#[test]
fn no_invariant_is_vacuous() {
    let mut runner = TestRunner::deterministic();
    let mut all = Checker::new();
    for walk in 0..400 {
        let mode = if walk % 2 == 0 { Ci } else { Li };
        let mut rig = Rig::new(spec(mode, walk % 4 < 2));
        for _ in 0..60 {
            let step = any_step().new_tree(&mut runner).unwrap().current();
            let _ = rig.try_step(&step);
        }
        all.absorb(&rig.checker);
    }
    let vacuous: Vec<_> = INVARIANTS
        .iter()
        .filter(|i| i.feed == Feed::Reference && all.witnesses(i.id) == 0)
        .collect();
    assert_eq!(vacuous, [] as [&crate::invariants::Invariant; 0]);
}
