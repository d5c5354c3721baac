//! The module's structures lie in memory as it has them, after any sequence of its memory leaves, also when two LPs are
//! in it at once (architecture.md §7.5, §7.6 "Entry writes").

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: the world is the test's own")]

mod common;

use common::World;
use common::bench::bench;
use common::invariants::{entries, mirror, ownership};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sim_core::tdx::{Leaf, Status};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use tdx_module::{Action, Call, Reply};

/// What is called, with operands to be chosen from what there is.
#[derive(Clone, Copy, Debug)]
struct Step {
    leaf: Leaf,
    td: bool,
    pick: u64,
    level: u64,
    irq: bool,
}

const LEAVES: &[Leaf] = &[
    Leaf::MEM_SEPT_ADD,
    Leaf::MEM_SEPT_REMOVE,
    Leaf::MEM_SEPT_RD,
    Leaf::MEM_PAGE_ADD,
    Leaf::MEM_PAGE_AUG,
    Leaf::MEM_PAGE_REMOVE,
    Leaf::MEM_PAGE_DEMOTE,
    Leaf::MEM_PAGE_PROMOTE,
    Leaf::MEM_PAGE_RELOCATE,
    Leaf::MEM_RANGE_BLOCK,
    Leaf::MEM_RANGE_UNBLOCK,
    Leaf::MEM_TRACK,
];

fn step() -> impl Strategy<Value = Step> {
    let leaf = proptest::sample::select(LEAVES);
    (leaf, any::<bool>(), any::<u64>(), 0..3u64, proptest::bool::weighted(0.1))
        .prop_map(|(leaf, td, pick, level, irq)| Step { leaf, td, pick, level, irq })
}

/// The free pages and blocks that calls are offered: few, so that they meet.
fn pool(w: &World) -> Vec<u64> {
    let b = bench();
    let block = b.free_block;
    let mut pages: Vec<u64> = (0..8).map(|i| block + (i << 12)).collect();
    pages.extend([b.free, b.large, b.blocked, b.empty, b.merge_table, b.merge, b.merge + 0x3000]);
    pages.push(w.next_page - 4096);
    pages
}

/// A call made of a step: mostly a level that the leaf has, GPAs where something is or could be.
fn call(w: &World, s: Step) -> Call {
    let b = bench();
    let tdr = match s.leaf {
        Leaf::MEM_PAGE_ADD => b.built,
        _ if s.td => b.td,
        _ => b.built,
    };
    let level = match s.leaf {
        _ if s.pick >> 60 == 0 => s.level,
        Leaf::MEM_PAGE_ADD | Leaf::MEM_PAGE_RELOCATE => 0,
        Leaf::MEM_PAGE_AUG => s.level & 1,
        Leaf::MEM_SEPT_ADD
        | Leaf::MEM_SEPT_REMOVE
        | Leaf::MEM_PAGE_DEMOTE
        | Leaf::MEM_PAGE_PROMOTE => 1 + (s.level >> 1 & s.pick),
        _ => s.level,
    };
    let pages = pool(w);
    let mut page = pages[(s.pick >> 32) as usize % pages.len()];
    let gpa = match s.leaf {
        // Where nothing may be yet.
        Leaf::MEM_SEPT_ADD | Leaf::MEM_PAGE_ADD | Leaf::MEM_PAGE_AUG => {
            if level == 1 && s.leaf == Leaf::MEM_PAGE_AUG {
                page &= !((2 << 20) - 1);
            }
            let large = (s.pick >> 4 & s.pick & 15) << 21;
            if level == 0 { large | (s.pick >> 8 & 7) << 12 } else { large }
        }
        // Where something is.
        _ => {
            let mut all = entries(w, tdr);
            all.retain(|used| u64::from(used.level) == level);
            if all.is_empty() { 0 } else { all[s.pick as usize % all.len()].gpa }
        }
    };
    match s.leaf {
        Leaf::MEM_TRACK => Call::new(s.leaf, tdr, 0, 0, 0),
        _ => Call::new(s.leaf, gpa | level, tdr, page, common::IMAGE),
    }
}

/// What succeeded how often.
type Seen = BTreeMap<Leaf, u32>;

fn status(action: &Action) -> Status {
    match action {
        Action::Return(answer) => answer.status,
        other => panic!("{other:?}"),
    }
}

fn sound(w: &mut World) -> Result<(), TestCaseError> {
    mirror(w).map_err(TestCaseError::fail)?;
    ownership(w).map_err(TestCaseError::fail)
}

/// Runs a property over the same sequences every time.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn reached(seen: &RefCell<Seen>) {
    let seen: BTreeSet<Leaf> = seen.borrow().keys().copied().collect();
    assert_eq!(seen, LEAVES.iter().copied().collect(), "leaves that succeeded");
}

#[test]
fn memory_says_what_the_module_knows_after_every_call() {
    let seen = RefCell::new(Seen::new());
    let steps = proptest::collection::vec(step(), 1..60);
    runner(48)
        .run(&steps, |steps| {
            let mut w = bench().w.clone();
            for s in steps {
                let call = call(&w, s);
                w.irq = s.irq;
                let status = w.call_on(0, call).status;
                if status == Status::SUCCESS {
                    *seen.borrow_mut().entry(s.leaf).or_default() += 1;
                }
            }
            sound(&mut w)
        })
        .unwrap();
    reached(&seen);
}

#[test]
fn memory_says_what_the_module_knows_when_two_calls_were_in_it_at_once() {
    let seen = RefCell::new(Seen::new());
    let turns = proptest::collection::vec(0..12usize, 0..12);
    let steps = proptest::collection::vec((step(), step(), turns), 1..12);
    runner(600)
        .run(&steps, |steps| {
            let mut w = bench().w.clone();
            for (first, second, turns) in steps {
                let calls = [call(&w, first), call(&w, second)];
                w.irq = first.irq;
                for (lp, call) in calls.iter().enumerate() {
                    assert!(w.begin(lp, call));
                }
                // They take turns for so many touches each, then one ends after the other.
                let mut over = [None, None];
                for (i, touches) in turns.into_iter().enumerate() {
                    if over[i % 2].is_none() {
                        over[i % 2] = w.run_some(i % 2, touches).map(|action| status(&action));
                    }
                }
                for (lp, (step, ended)) in [first, second].into_iter().zip(over).enumerate() {
                    let status = ended.unwrap_or_else(|| status(&w.run(lp, Reply::Done)));
                    if status == Status::SUCCESS && over == [None, None] {
                        *seen.borrow_mut().entry(step.leaf).or_default() += 1;
                    }
                }
            }
            sound(&mut w)
        })
        .unwrap();
    reached(&seen);
}
