//! The store buffer of x86-TSO in explorations: the litmus catalogue in miniature (verification.md §3, herdtools7: forbidden
//! outcomes must never appear), with fences, aliases by KeyID, and what bypasses the buffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use scenarios::explore::report::{Document, ExplorationReport};
use scenarios::explore::{Bounds, explore};
use scenarios::format::Scenario;
use scenarios::report::Verdict;
use scenarios::run::Request;
use std::collections::BTreeSet;

/// Agents side by side on a page whose first two lines begin with zeros.
fn scenario(program: &str, expect: &str) -> Scenario {
    let text = format!(
        "[scenario]\nname = \"litmus\"\ntitle = \"t\"\ncite = [\"verification.md §3\"]\nplatform = \"spr\"\n\
         order = \"concurrent\"\nprogram = '''\n  cpu0 : store [P0] 8 0\n  cpu0 : store [P0+0x40] 8 0\n  barrier\n\
         {program}'''\n[regions]\nP0 = {{ base = \"0x10000000\", size = \"4KiB\" }}\n{expect}"
    );
    Scenario::from_text("litmus.toml", &text).unwrap()
}

fn explored(program: &str, expect: &str, store_buffer: u8) -> Document {
    let bounds = Bounds { store_buffer, ..Bounds::default() };
    explore(&scenario(program, expect), &Request::default(), &bounds, "test").unwrap()
}

/// `x=1 ry | y=1 rx || rx` as lines of a program: what each thread does, and behind `||` what the first looks at when all
/// are through. `x` and `y` are two lines, both zero; `nt` is a non-temporal store.
fn lines(litmus: &str) -> String {
    let at = |name: &str| if name == "x" { "[P0]" } else { "[P0+0x40]" };
    let op = |word: &str| match (word.split_once('='), word.strip_prefix('r')) {
        (Some((name, value)), _) => match name.strip_prefix("nt") {
            Some(name) => format!("movnti {} 8 {value}", at(name)),
            None => format!("store {} 8 {value}", at(name)),
        },
        (None, Some(name)) => format!("load {} 8", at(name)),
        (None, None) if word == "lock" => "lock-xadd [P0+0x80] 8 1".to_owned(),
        (None, None) => word.to_owned(),
    };
    let (threads, end) = litmus.split_once("||").unwrap_or((litmus, ""));
    let mut out = String::new();
    for (core, words) in threads.split('|').enumerate() {
        words.split_whitespace().for_each(|word| out += &format!("  cpu{core} : {}\n", op(word)));
    }
    let barrier = if end.is_empty() { "" } else { "  barrier\n" };
    out += barrier;
    end.split_whitespace().for_each(|word| out += &format!("  cpu0 : {}\n", op(word)));
    out
}

const NOTHING_TO_EXPECT: &str = "[expect]\nfinal = [\"not tdx-disabled\"]\n";

fn only(document: &Document) -> &ExplorationReport {
    let exploration = document.explorations.first().unwrap();
    assert!(exploration.exhausted, "{exploration:?}");
    exploration
}

/// What the loads of a litmus test may bring, in the order of the lines.
fn outcomes(litmus: &str, store_buffer: u8) -> BTreeSet<Vec<u64>> {
    let document = explored(&lines(litmus), NOTHING_TO_EXPECT, store_buffer);
    let exploration = only(&document);
    let number = |word: &str| match word {
        "zeros" => Some(0),
        _ => word.strip_prefix("data 0x").map(|n| u64::from_str_radix(n, 16).unwrap()),
    };
    let all = exploration.outcomes.iter();
    all.map(|o| o.steps.iter().filter_map(|s| number(&s.outcome)).collect()).collect()
}

#[test]
fn allowed_outcomes_appear_and_forbidden_ones_never() {
    // Name, threads, what the loads bring, and whether x86-TSO allows it.
    let catalogue: [(&str, &str, &[u64], bool); 29] = [
        ("SB", "x=1 ry | y=1 rx", &[0, 0], true),
        ("SB+mfences", "x=1 mfence ry | y=1 mfence rx", &[0, 0], false),
        ("SB+mfence+po", "x=1 mfence ry | y=1 rx", &[0, 0], true),
        ("SB+lfences", "x=1 lfence ry | y=1 lfence rx", &[0, 0], true),
        ("SB+sfences", "x=1 sfence ry | y=1 sfence rx", &[0, 0], true),
        ("SB+locks", "x=1 lock ry | y=1 lock rx", &[0, 0], false),
        ("SB+rfi-pos", "x=1 rx ry | y=1 ry rx", &[1, 0, 1, 0], true),
        ("MP", "x=1 y=1 | ry rx", &[1, 0], false),
        ("MP in order", "x=1 y=1 | ry rx", &[1, 1], true),
        ("LB", "rx y=1 | ry x=1", &[1, 1], false),
        ("S", "x=2 y=1 | ry x=1 || rx", &[1, 2], false),
        ("R", "x=1 y=1 | y=2 rx || ry", &[0, 2], true),
        ("R+mfences", "x=1 mfence y=1 | y=2 mfence rx || ry", &[0, 2], false),
        ("2+2W", "x=1 y=2 | y=1 x=2 || rx ry", &[1, 1], false),
        ("2+2W in order", "x=1 y=2 | y=1 x=2 || rx ry", &[1, 2], true),
        ("n6", "x=1 rx ry | y=2 x=2 || rx", &[1, 0, 1], true),
        ("n6+mfence", "x=1 mfence rx ry | y=2 x=2 || rx", &[1, 0, 1], false),
        ("n4b", "rx x=1 | rx x=2", &[2, 1], false),
        ("CoRR", "x=1 | rx rx", &[1, 0], false),
        ("CoWW", "x=1 x=2 || rx", &[1], false),
        ("CoWR", "x=1 rx | x=2 || rx", &[2, 1], false),
        ("WRC", "x=1 | rx y=1 | ry rx", &[1, 1, 0], false),
        ("RWC", "x=1 | rx ry | y=1 rx", &[1, 0, 0], true),
        ("RWC+mfence", "x=1 | rx ry | y=1 mfence rx", &[1, 0, 0], false),
        ("IRIW", "x=1 | rx ry | y=1 | ry rx", &[1, 0, 1, 0], false),
        ("MP+nt", "ntx=1 y=1 | ry rx", &[1, 0], true),
        ("MP+nt+sfence", "ntx=1 sfence y=1 | ry rx", &[1, 0], false),
        ("MP+po+nt", "x=1 nty=1 | ry rx", &[1, 0], true),
        ("MP+sfence+nt", "x=1 sfence nty=1 | ry rx", &[1, 0], false),
    ];
    let mut wrong = Vec::new();
    for (name, litmus, outcome, allowed) in catalogue {
        let all = outcomes(litmus, 2);
        if all.contains(outcome) != allowed {
            wrong.push(format!("{name}, {litmus}: {outcome:?} among {all:?}"));
        }
        // Visible at once, ordinary stores are sequentially consistent.
        let weak = allowed && !litmus.contains("nt") && !name.ends_with("in order");
        if weak && outcomes(litmus, 0).contains(outcome) {
            wrong.push(format!("{name} without a store buffer"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_core_may_hold_as_many_stores_back_as_its_buffer_has_places() {
    // The writer has read before the other's store is visible; the other, which waits for that, reads after it.
    let litmus = "x=1 x=2 ry | y=1 mfence rx";
    let neither: Vec<u64> = vec![0, 0];
    assert!(!outcomes(litmus, 0).contains(&neither));
    assert!(!outcomes(litmus, 1).contains(&neither), "the second store pushes the first out");
    assert!(outcomes(litmus, 2).contains(&neither));
}

#[test]
fn a_store_that_waits_is_forwarded_under_its_own_keyid_only() {
    let program = "  cpu0 : pconfig shared1 set-random\n  cpu0 : store [P0] 8 7\n  cpu0 : load [P0] 8\n  cpu0 : load [P0@shared1] 8\n  cpu1 : load [P0] 8\n";
    let document = explored(program, NOTHING_TO_EXPECT, 2);
    let exploration = only(&document);
    let seen = |step: &str| -> BTreeSet<&str> {
        let steps = exploration.outcomes.iter().flat_map(|o| &o.steps);
        steps.filter(|s| s.step == step).map(|s| s.outcome.as_str()).collect()
    };
    assert_eq!(seen("cpu0.5"), BTreeSet::from(["data 0x07"]));
    assert!(!seen("cpu0.6").iter().any(|word| word.contains("0x07")), "{:?}", seen("cpu0.6"));
    assert_eq!(seen("cpu1.1"), BTreeSet::from(["data 0x07", "zeros"]));
}

#[test]
fn the_order_of_the_program_makes_every_store_visible_before_the_next_line() {
    let text = "  cpu0 : store [P0] 8 7\n  cpu1 : load [P0] 8\n";
    let mut scenario = scenario(text, "[expect]\n\"cpu1.1\" = \"data 0x7\"\n");
    let bounds = Bounds::default();
    let verdict = |scenario: &Scenario| {
        explore(scenario, &Request::default(), &bounds, "test").unwrap().verdict
    };
    assert_eq!(verdict(&scenario), Verdict::Fail);
    scenario.order = machine::Order::Program;
    assert_eq!(verdict(&scenario), Verdict::Pass);
}

#[test]
fn a_counterexample_that_needs_a_store_to_wait_is_told_and_said_to_be_no_run() {
    // A load that is forwarded does not look at its line: only so the poison is not met.
    let program = "  hw : inject-ue [P0]\n  hw : evict [P0]\n  hw : inject-ue [P0]\n  barrier\n  cpu0 : store [P0] 8 7\n  \
                   cpu0 : load [P0] 8\n";
    let document = explored(program, "[expect]\n\"cpu0.4\" = \"mc\"\n", 2);
    let told = only(&document).counterexamples.first().unwrap();
    assert!(!told.reproduced, "{told:#?}");
    let text = scenarios::explore::human::Explorations(&document).to_string();
    for part in [
        "store buffers of 2",
        "hw: a store of core 0 becomes visible [0x10000000@0]",
        "while a store waits",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(explored(program, "[expect]\n\"cpu0.4\" = \"mc\"\n", 0).verdict, Verdict::Pass);
}

#[test]
fn a_counterexample_of_side_by_side_stores_that_need_not_wait_is_a_run() {
    let program = lines("x=1 ry | y=1 mfence rx");
    let document = explored(&program, "[forbid]\n\"cpu0.4\" = \"data 0x1\"\n", 2);
    let told = &only(&document).counterexamples;
    assert!(told.len() == 1 && told.iter().all(|c| c.reproduced), "{told:#?}");
}

#[test]
fn an_sfence_or_a_fault_leaves_no_way_round_for_what_comes_behind() {
    // What the reader sees of y = 1 and then of x, which was stored before.
    let stale =
        |first: &str| outcomes(&format!("x=1 {first} nty=1 | ry rx"), 2).contains(&vec![1, 0]);
    assert!(stale("lfence") && stale("") && !stale("sfence") && !stale("mfence") && !stale("lock"));
    // A fault drains: the other does not read what was there before.
    let with = |op: &str| {
        let program = format!(
            "  cpu0 : store [P0] 8 1\n  cpu0 : {op}\n  cpu0 : load [P0+0x40] 8\n  cpu1 : store [P0+0x40] 8 1\n  \
             cpu1 : mfence\n  cpu1 : load [P0] 8\n"
        );
        let document = explored(&program, NOTHING_TO_EXPECT, 2);
        let all = only(&document).outcomes.iter();
        all.map(|o| (o.steps[4].outcome.clone(), o.steps[7].outcome.clone()))
            .any(|(own, other)| own == "zeros" && other == "zeros")
    };
    assert!(with("lfence") && with("load [P0+0x80] 8") && with("clwb [P0+0x80]"));
    assert!(!with("load [P0@priv1] 8"), "#PF");
    assert!(!with("load.uc [P0+0x80] 8") && !with("store.uc [P0+0x80] 8 1"));
    assert!(
        !with("clflush [P0+0x80]") && !with("rep-stosb [P0+0x80] 64 fill=1") && !with("wbinvd")
    );
    assert!(!with("clwb [P0]") && !with("movnti [P0+8] 8 1") && !with("load [P0] 16"), "own line");
    assert!(with("load [P0+8] 8") && with("load [P0] 4"), "not the same bytes, or all of them");
}
