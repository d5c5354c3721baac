//! The store buffer of x86-TSO in explorations: the litmus catalogue in miniature (verification.md §3, herdtools7: forbidden
//! outcomes must never appear), with fences, aliases by KeyID, and what bypasses the buffer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use scenarios::explore::report::{Document, ExplorationReport};
use scenarios::explore::{Bounds, explore};
use scenarios::format::Scenario;
use scenarios::report::Verdict;
use scenarios::run::Request;
use std::collections::BTreeSet;

/// Agents side by side. `X` and `Y` are lines of one page, both zero.
fn scenario(program: &str, expect: &str) -> Scenario {
    let program = program.replace('X', "[P0]").replace('Y', "[P0+0x40]");
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

/// `cpu0 x=1 ry | cpu1 y=1 rx` as lines of a program: stores, loads and fences by thread; what stands behind `||` is done
/// by the first thread when all are over.
fn lines(litmus: &str) -> String {
    let (threads, end) = litmus.split_once("||").unwrap_or((litmus, ""));
    let mut out = String::new();
    let mut thread = |core: usize, words: &str| {
        for word in words.split_whitespace() {
            let op = match word.split_once('=') {
                Some((at, value)) if at.starts_with("nt") => {
                    format!("movnti {} 8 {value}", at.trim_start_matches("nt"))
                }
                Some((at, value)) => format!("store {at} 8 {value}"),
                None => match word.strip_prefix('r') {
                    Some(at) => format!("load {at} 8"),
                    None => word.replace("lock", "lock-xadd [P0+0x80] 8 1"),
                },
            };
            out += &format!("  cpu{core} : {}\n", op.replace('x', "X").replace('y', "Y"))
                .replace("lock-Xadd", "lock-xadd");
        }
    };
    threads.split('|').enumerate().for_each(|(core, words)| thread(core, words));
    if !end.is_empty() {
        thread(9, "");
    }
    if end.is_empty() {
        return out;
    }
    out += "  barrier\n";
    for word in end.split_whitespace() {
        let at = word.trim_start_matches('r').replace('x', "X").replace('y', "Y");
        out += &format!("  cpu0 : load {at} 8\n");
    }
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
    for (name, litmus, outcome, allowed) in catalogue {
        let all = outcomes(litmus, 2);
        assert_eq!(all.contains(outcome), allowed, "{name}: {litmus}: {all:?}");
        // One after another becomes visible at once: only what sequential consistency allows is left of ordinary stores.
        if allowed && !litmus.contains("nt") && !name.ends_with("in order") {
            assert!(!outcomes(litmus, 0).contains(outcome), "{name} without a store buffer");
        }
    }
}
