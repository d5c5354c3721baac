//! Exploration against runs: what a run does is among what the search finds, and what the search finds a run can show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use expect_test::expect;
use proptest::prelude::*;
use scenarios::explore::report::{ExplorationReport, OutcomeReport};
use scenarios::explore::study::{self, Clear, Flush, RECLAIM_ROWS, ReclaimRow, Setting, Study};
use scenarios::explore::{Bounds, explore, explore_cell};
use scenarios::format::Scenario;
use scenarios::library::LIBRARY;
use scenarios::report::{RunReport, Verdict};
use scenarios::run::{Cell, Crypto, Request, plan, run};
use std::collections::{BTreeMap, BTreeSet};

const TOOL: &str = "test";

/// Whether a word of the search, which leaves out bytes that nobody can know, is what a run said.
fn says(word: &str, real: &str) -> bool {
    match word {
        "garbage" => real.starts_with("garbage") || real == "zeros",
        "data" => real.starts_with("data") || real == "zeros",
        _ if word.contains('?') => fits_but_for_unknown_bytes(word, real),
        _ => word == real,
    }
}

/// As [`says`] of words with some bytes that nobody knows, `??`.
fn fits_but_for_unknown_bytes(word: &str, real: &str) -> bool {
    let (class, bytes) = word.split_once(' ').unwrap();
    let Some(rest) = real.strip_prefix(class) else { return false };
    let (bytes, rest) = match bytes.strip_prefix("0x") {
        Some(digits) => (digits, rest.trim_start_matches(" 0x")),
        None => (bytes.strip_prefix("bytes=").unwrap(), rest.trim_start_matches(" bytes=")),
    };
    let real = format!("{rest:0>width$}", width = bytes.len());
    bytes.len() == real.len() && bytes.chars().zip(real.chars()).all(|(a, b)| a == '?' || a == b)
}

/// Whether an outcome of the search is what a run came to.
fn is_run(outcome: &OutcomeReport, report: &RunReport) -> bool {
    let seen: BTreeMap<&str, &str> =
        report.steps.iter().map(|s| (s.step.as_str(), s.outcome.as_str())).collect();
    let steps = outcome.steps.iter().all(|s| {
        seen.get(s.step.as_str()).map_or(s.outcome == "nothing", |real| says(&s.outcome, real))
    });
    let finals: Vec<(&str, bool)> = report
        .expectations
        .iter()
        .filter(|e| e.kind == "final")
        .map(|e| (e.subject.as_str(), e.met))
        .collect();
    let theirs: Vec<(&str, bool)> =
        outcome.finals.iter().map(|f| (f.check.as_str(), f.met)).collect();
    steps && finals == theirs
}

fn symbolic() -> Request {
    Request { crypto: Some(Crypto::Symbolic), ..Request::default() }
}

/// Every built-in scenario with the cells that are looked at: one each, or all of them (TDXSIM_EXPLORE_ALL=1).
fn library() -> Vec<(Scenario, Vec<Cell>)> {
    let all = std::env::var_os("TDXSIM_EXPLORE_ALL").is_some();
    LIBRARY
        .iter()
        .map(|entry| {
            let scenario = Scenario::parse(entry.source()).unwrap();
            let mut cells = plan(&scenario, &symbolic()).unwrap();
            if !all {
                cells.truncate(1);
            }
            (scenario, cells)
        })
        .collect()
}

#[test]
fn every_run_of_the_library_is_among_the_explored_ones() {
    let bounds = Bounds { states: 3000, ..Bounds::default() };
    let (mut undecided, mut untold) = (BTreeSet::new(), BTreeSet::new());
    let (mut cells, mut states, mut told) = (0, 0, 0);
    for (scenario, parts) in library() {
        for cell in parts {
            let found = explore_cell(&scenario, &cell, &symbolic(), &bounds).unwrap();
            cells += 1;
            states += found.states;
            assert!(
                matches!(found.verdict, Verdict::Pass | Verdict::Fail | Verdict::Undecided),
                "{}: {:?} {:?}",
                found.scenario,
                found.verdict,
                found.notes
            );
            for c in &found.counterexamples {
                if c.reproduced {
                    told += 1;
                } else {
                    untold.insert(found.scenario.clone());
                }
            }
            if !found.exhausted {
                undecided.insert(found.scenario.clone());
                continue;
            }
            let real = run(&cell, &symbolic()).unwrap();
            assert!(
                found.outcomes.iter().any(|o| is_run(o, &real)),
                "{} on {} {}: the run's outcome is not among {}: {:#?}\n{:#?}",
                found.scenario,
                found.platform,
                found.integrity,
                found.endings,
                real.steps.iter().map(|s| (&s.step, &s.outcome)).collect::<Vec<_>>(),
                found.outcomes
            );
        }
    }
    println!("{cells} explorations, {states} states, {told} counterexamples that a run reproduces");
    println!("undecided within {} states: {undecided:?}", bounds.states);
    assert!(cells >= 120 && told >= 15, "{cells} {told}");
    expect![[r#"
        undecided: accept-2m-interrupted host-priority q18-pamt-of-a-real-machine
        within a call: host-priority"#]]
    .assert_eq(&format!(
        "undecided: {}\nwithin a call: {}",
        undecided.into_iter().collect::<Vec<_>>().join(" "),
        untold.into_iter().collect::<Vec<_>>().join(" ")
    ));
}

/// Scenarios with operations on whole pages.
const PAGES: [&str; 16] = [
    "clear-a-page",
    "clear-with-movdir64b",
    "forgotten-flush-to-private",
    "forgotten-flush-to-shared",
    "hkid-reused",
    "q10-erratum-wb-store",
    "q11-page-add-without-clflush",
    "q12-page-add-after-clflush",
    "q17-removed-page-read-by-host",
    "reclaim-uncleared-read",
    "relocate-a-page",
    "removed-without-wbinvd",
    "td-hello",
    "trap-freed-pages-stay-private",
    "trap-readded-page-is-zero",
    "two-cpus-one-line",
];

#[test]
fn one_line_for_a_page_shows_every_outcome_that_two_show() {
    let seen = |e: &ExplorationReport| -> BTreeSet<Vec<String>> {
        let steps = |o: &OutcomeReport| o.steps.iter().map(|s| s.outcome.clone()).collect();
        e.outcomes.iter().map(steps).collect()
    };
    let mut more = 0;
    for name in PAGES {
        let entry = scenarios::library::find(name).unwrap();
        let scenario = Scenario::parse(entry.source()).unwrap();
        let cells = plan(&scenario, &symbolic()).unwrap();
        let cell = cells.first().unwrap();
        let of = |lines_per_page| {
            let bounds = Bounds { lines_per_page, states: 20_000, ..Bounds::default() };
            let found = explore_cell(&scenario, cell, &symbolic(), &bounds).unwrap();
            assert!(found.exhausted, "{name}, {lines_per_page}: {} states", found.states);
            found
        };
        let (one, two) = (of(1), of(2));
        more += usize::from(two.states > one.states);
        assert_eq!(seen(&one), seen(&two), "{name}");
    }
    // A page is really looked at more closely.
    assert!(more >= 5, "{more}");
}

// -------------------------------------------------------------------------------------------------- random programs

fn line() -> impl Strategy<Value = String> {
    let who = prop_oneof![Just("cpu0"), Just("cpu1"), Just("td0"), Just("dma0"), Just("seam3")];
    let at = prop_oneof![4 => Just("P0"), 1 => Just("P0+0x40")];
    (who, 0..10usize, 1u8..4, at).prop_map(|(who, op, v, at)| {
        let at = if who == "seam3" { format!("{at}@priv1") } else { at.to_owned() };
        let op = match (who, op) {
            ("dma0", 0..5) => format!("dma-read [{at}] 8"),
            ("dma0", 5..8) => format!("dma-write [{at}] 64 fill={v}"),
            ("dma0", _) => format!("dma-write [{at}] 8 {v}"),
            (_, 0..3) => format!("load [{at}] 8"),
            (_, 3) => format!("store [{at}] 8 {v}"),
            (_, 4) => format!("store [{at}] 64 fill={v}"),
            (_, 5) => format!("movdir64b [{at}] fill={v}"),
            (_, 6) => format!("clflush [{at}]"),
            (_, 7) => format!("movnti [{at}] 8 {v}"),
            (_, 8) => "sfence".to_owned(),
            _ => format!("clwb [{at}]"),
        };
        format!("  {who} : {op}\n")
    })
}

fn text(order: &str, program: &str, rest: &str) -> String {
    let td = "td0 = { kind = \"td\", core = 2, keyid = \"priv1\" }";
    a_page_at("0x10000000", td, order, program, rest)
}

/// A scenario with one page and one agent that is not there anyway.
fn a_page_at(base: &str, agent: &str, order: &str, program: &str, rest: &str) -> String {
    format!(
        "[scenario]\nname = \"random\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\norder = \"{order}\"\n\
         program = '''\n{program}'''\n[regions]\nP0 = {{ base = \"{base}\", size = \"4KiB\" }}\n\
         [agents]\n{agent}\n{rest}"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_random_programs_run_is_explored_and_every_other_outcome_is_a_program_that_runs(
        lines in proptest::collection::vec(line(), 2..6), concurrent: bool, erratum: bool, ci: bool,
    ) {
        let order = if concurrent { "concurrent" } else { "program" };
        let program = lines.concat();
        let set = |key: &str, value: &str| scenarios::platform::Override::set(key, value);
        let request = Request {
            overrides: vec![
                set("memory.erratum_pw_mce", if erratum { "true" } else { "false" }),
                set("memory.integrity", if ci { "ci" } else { "li" }),
            ],
            integrity_given: true,
            ..symbolic()
        };
        let exhausted = explored_both_ways(&request, |expect| text(order, &program, expect))?;
        prop_assume!(exhausted);
    }
}

/// What a run of a file saw is expected of every run; then the run is among the explored ones, and whatever else the search finds
/// comes back as a counterexample that a run shows. `file` makes the file from its expectations. Whether the search was exhausted.
fn explored_both_ways(
    request: &Request,
    file: impl Fn(&str) -> String,
) -> Result<bool, TestCaseError> {
    let first = file("[expect]\nfinal = [\"not tdx-disabled\"]\n");
    let scenario = Scenario::from_text("random.toml", &first).unwrap();
    let cell = plan(&scenario, request).unwrap().remove(0);
    let real = run(&cell, request).unwrap();
    let expects: String = real
        .steps
        .iter()
        .map(|s| {
            let head = s.outcome.split(' ').next().unwrap();
            let pattern = if head == "garbage" { head } else { s.outcome.as_str() };
            format!("\"{}\" = \"{pattern}\"\n", s.step)
        })
        .collect();
    let second = file(&format!("[expect]\n{expects}"));
    let scenario = Scenario::from_text("random.toml", &second).unwrap();
    let cell = plan(&scenario, request).unwrap().remove(0);
    // No run shows what needs a store to wait (tests/tso.rs).
    let bounds = Bounds { states: 20_000, store_buffer: 0, ..Bounds::default() };
    let found = explore_cell(&scenario, &cell, request, &bounds).unwrap();
    if !found.exhausted {
        return Ok(false);
    }
    let real = run(&cell, request).unwrap();
    prop_assert!(
        found.outcomes.iter().any(|o| is_run(o, &real)),
        "{second}\nnot explored: {:?}\n{:#?}",
        real.steps.iter().map(|s| (&s.step, &s.outcome)).collect::<Vec<_>>(),
        found.outcomes
    );
    for c in &found.counterexamples {
        // The lines of a program come one after the other: what others did while a machine check was on its way is reproduced
        // only where the scenario's own program, begun a little later, happens to show it; and so is what they did while a call
        // was under way, but for VM entries, which wait for their guest.
        let moves: Vec<_> = c.moves.iter().map(|m| m.trim_end_matches(" (goes on)")).collect();
        let parted = |call: &str| {
            let first = moves.iter().position(|m| *m == call);
            let last = moves.iter().rposition(|m| *m == call);
            first
                .zip(last)
                .is_some_and(|(first, last)| moves[first..last].iter().any(|m| *m != call))
        };
        let entry = |m: &str| m.contains("tdh.vp.enter");
        let is_call = |m: &str| (m.contains(" tdg.") || m.contains(" tdh.")) && !entry(m);
        let check = |m: &[String]| {
            m[1].ends_with(" (goes on)") && !m[1].starts_with(&m[0]) && !entry(&m[1])
        };
        // A VM entry that ends with its processor: its guest may have left, and the module was still at that.
        let ended = |line: &str| line.starts_with("\"cpu0.") && line.contains("not-run");
        let cut = moves.iter().any(|m| entry(m)) && c.file.iter().any(|f| f.lines().any(ended));
        let window =
            cut || c.moves.windows(2).any(check) || moves.iter().any(|m| is_call(m) && parted(m));
        prop_assert!(
            c.reproduced || window,
            "{second}\nnot reproduced: {:?}\n{}",
            c.moves,
            c.file.clone().unwrap_or_default()
        );
    }
    Ok(true)
}

/// A line of a host beside a guest.
fn host_line() -> impl Strategy<Value = String> {
    (0..12usize, 1u8..4).prop_map(|(op, v)| {
        let op = match op {
            0 => "load [P0] 8".to_owned(),
            1 => format!("store [P0] 8 {v}"),
            2 => format!("store [P0] 64 fill={v}"),
            3 => format!("movdir64b [P0] fill={v}"),
            4 => "clflush [P0]".to_owned(),
            5 => format!("movnti [P0] 8 {v}"),
            6 => "mfence".to_owned(),
            7 => "tdh.mem.range.block rcx=0x1000|0 rdx=[A_TDR]".to_owned(),
            8 => "tdh.mem.track rcx=[A_TDR]".to_owned(),
            9 => "tdh.mem.page.remove rcx=0x1000|0 rdx=[A_TDR]".to_owned(),
            10 => "tdh.phymem.page.wbinvd rcx=[P0@priv1]".to_owned(),
            _ => "tdh.phymem.page.rdmd rcx=[P0]".to_owned(),
        };
        format!("  cpu1 : {op}\n")
    })
}

/// A line of the guest, whose page is pending until it is accepted.
fn guest_line() -> impl Strategy<Value = String> {
    (0..8usize, 1u8..4).prop_map(|(op, v)| {
        let op = match op {
            0..3 => "tdg.mem.page.accept rcx=0x1000".to_owned(),
            3..5 => "load [0x1000] 8".to_owned(),
            5 => format!("store [0x1000] 8 {v}"),
            6 => format!("store [0x1000] 64 fill={v}"),
            _ => "tdg.vp.vmcall".to_owned(),
        };
        format!("  g0 : {op}\n")
    })
}

fn with_guest(order: &str, program: &str, rest: &str) -> String {
    let guest = "g0 = { kind = \"guest\", vcpu = \"A_VP0\" }";
    let td = "[tdx]\nstate = \"ready\"\n[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\npages = [\"0x1000 aug P0\"]\n";
    a_page_at("0x100800000", guest, order, program, &format!("{td}{rest}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// With a guest and calls of the module, which others' moves come between.
    #[test]
    fn a_random_run_with_a_guest_is_explored_and_every_other_outcome_is_a_program_that_runs(
        guest in proptest::collection::vec(guest_line(), 1..4),
        host in proptest::collection::vec(host_line(), 1..4),
        again: bool, concurrent: bool, ci: bool, lmce in prop::bool::weighted(0.7),
    ) {
        let order = if concurrent { "concurrent" } else { "program" };
        let enter = "  cpu0 : tdh.vp.enter rcx=[A_VP0]\n";
        let second = if again { enter } else { "" };
        let program = format!("{enter}{}{}{second}", guest.concat(), host.concat());
        let set = |key: &str, value: &str| scenarios::platform::Override::set(key, value);
        let request = Request {
            overrides: vec![
                set("memory.integrity", if ci { "ci" } else { "li" }),
                set("mce.lmce", if lmce { "true" } else { "false" }),
            ],
            integrity_given: true,
            ..symbolic()
        };
        let exhausted = explored_both_ways(&request, |expect| with_guest(order, &program, expect))?;
        prop_assume!(exhausted);
    }
}

#[test]
fn what_others_do_while_a_machine_check_is_on_its_way_is_explored() {
    // Poison comes back from memory after a while; until its load retires, nobody has stopped.
    let program =
        "  seam3 : load [P0@priv1] 8\n  td0 : store [P0] 64 fill=1\n  cpu0 : load [P0] 8\n";
    let scenario = Scenario::from_text(
        "s.toml",
        &text("concurrent", program, "[expect]\n\"td0.1\" = \"done\"\n"),
    )
    .unwrap();
    let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
    let real = run(&cell, &symbolic()).unwrap();
    let said: Vec<_> = real.steps.iter().map(|s| (s.step.as_str(), s.outcome.as_str())).collect();
    assert!(said.contains(&("seam3.1", "mc srar data-load shutdown")), "{said:?}");
    assert!(said.contains(&("td0.1", "done")), "{said:?}");
    let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
    assert!(found.outcomes.iter().any(|o| is_run(o, &real)), "{:#?}", found.outcomes);
    // And the other order: what begins behind it finds TDX gone.
    let late = |o: &scenarios::explore::report::OutcomeReport| {
        let said =
            |step: &str, what: &str| o.steps.iter().any(|s| s.step == step && s.outcome == what);
        said("seam3.1", "mc srar data-load shutdown") && said("td0.1", "vmfail-invalid")
    };
    assert!(found.outcomes.iter().any(late), "{:#?}", found.outcomes);
}

#[test]
fn what_a_machine_check_sends_off_leaves_with_it_and_not_with_the_access() {
    // Once cpu1 has overwritten the poison, cpu0 meets none. So cpu0 has met it when cpu1 reads, and has not yet retired: its
    // write-combining buffer is still its own.
    let program = "  seam3 : load [P0@priv1] 8\n  barrier\n\
                   \u{20} cpu0 : movnti [P0+64] 8 7\n  cpu0 : load [P0] 8\n\
                   \u{20} cpu1 : movdir64b [P0] fill=1\n  cpu1 : mfence\n  cpu1 : load [P0+64] 8\n";
    let check = "mc srar data-load panic";
    let file = text("concurrent", program, "[expect]\n\"cpu1.1\" = \"done\"\n");
    let scenario = Scenario::from_text("s.toml", &file).unwrap();
    let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
    let real = run(&cell, &symbolic()).unwrap();
    let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
    let outcome = |o: &scenarios::explore::report::OutcomeReport, step: &str| {
        o.steps.iter().find(|s| s.step == step).map(|s| s.outcome.clone()).unwrap_or_default()
    };
    assert!(found.outcomes.iter().any(|o| is_run(o, &real)), "{:#?}", found.outcomes);
    let with = found.outcomes.iter().filter(|o| outcome(o, "cpu0.2") == check);
    let saw: std::collections::BTreeSet<_> = with.map(|o| outcome(o, "cpu1.3")).collect();
    // What was there at power-on; the buffer may leave earlier, too.
    assert!(saw.contains("garbage") && saw.contains("data 0x07"), "{saw:?} {:#?}", found.outcomes);
}

#[test]
fn a_guests_call_is_made_once_whoever_else_could_move() {
    // Its host, which waits for it, once took the module through the guest's call, and the guest made it again.
    let program = "  cpu0 : tdh.vp.enter rcx=[A_VP0]\n  g0 : tdg.mem.page.accept rcx=0x1000\n";
    let file = with_guest("concurrent", program, "[expect]\n\"g0.1\" = \"tdx SUCCESS\"\n");
    let scenario = Scenario::from_text("s.toml", &file).unwrap();
    let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
    let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
    assert!(found.exhausted);
    let accepted = |o: &scenarios::explore::report::OutcomeReport| {
        o.steps.iter().find(|s| s.step == "g0.1").map(|s| s.outcome.clone())
    };
    let said: std::collections::BTreeSet<_> = found.outcomes.iter().filter_map(accepted).collect();
    assert_eq!(said.into_iter().collect::<Vec<_>>(), ["tdx SUCCESS rcx=0x1000"]);
}

#[test]
fn a_host_whose_guest_ran_when_the_kernel_panicked_never_has_its_answer() {
    // In the order of the program the search once let the guest leave and the host go on, as if nothing had happened.
    let program = "  cpu0 : tdh.vp.enter rcx=[A_VP0]\n  g0 : tdg.mem.page.accept rcx=0x1000\n\
                   \u{20} cpu1 : movnti [P0] 8 1\n  cpu1 : load [P0] 8\n";
    for lmce in ["true", "false"] {
        let overrides = vec![scenarios::platform::Override::set("mce.lmce", lmce)];
        let request = Request { overrides, ..symbolic() };
        let file = with_guest("program", program, "[expect]\n\"cpu0.1\" = \"not-run panic\"\n");
        let scenario = Scenario::from_text("s.toml", &file).unwrap();
        let cell = plan(&scenario, &request).unwrap().remove(0);
        let real = run(&cell, &request).unwrap();
        let found = explore_cell(&scenario, &cell, &request, &Bounds::default()).unwrap();
        assert!(found.exhausted && found.verdict == Verdict::Pass, "{lmce}: {:#?}", found.outcomes);
        assert!(found.outcomes.iter().all(|o| is_run(o, &real)), "{lmce}: {:#?}", found.outcomes);
    }
}

// ------------------------------------------------------------------------------------------------ always, never, possibly

const WEAK: &str = "  cpu0 : movdir64b [P0] fill=1\n  cpu0 : mfence\n  cpu0 : movdir64b [P0] fill=2\n  cpu1 : load [P0] 8\n";

fn holds(rest: &str) -> Vec<(String, Option<bool>)> {
    let scenario = Scenario::from_text("s.toml", &text("program", WEAK, rest)).unwrap();
    let document = explore(&scenario, &symbolic(), &Bounds::default(), TOOL).unwrap();
    let of = |e: &ExplorationReport| e.expectations.iter().map(|j| (j.text(), j.holds)).collect();
    of(document.explorations.first().unwrap())
}

#[test]
fn expect_is_always_forbid_is_never_and_allow_is_possibly() {
    let (one, two) = ("data 0x101010101010101", "data 0x202020202020202");
    let always = format!("always cpu1.1: {one}");
    assert_eq!(
        holds(&format!("[expect]\n\"cpu1.1\" = \"{one}\"\n")),
        [(always.clone(), Some(false))]
    );
    assert_eq!(
        holds(&format!("[forbid]\n\"cpu1.1\" = \"{two}\"\n")),
        [(format!("never cpu1.1: {two}"), Some(false))]
    );
    assert_eq!(
        holds("[forbid]\n\"cpu1.1\" = \"mc\"\n"),
        [("never cpu1.1: mc".to_owned(), Some(true))]
    );
    // What is allowed is expected as well, and must be possible.
    assert_eq!(
        holds(&format!("[expect]\n\"cpu1.1\" = \"{one}\"\n[allow]\n\"cpu1.1\" = \"{two}\"\n")),
        [(always, Some(true)), (format!("possibly cpu1.1: {two}"), Some(true))]
    );
    assert_eq!(
        holds("[expect]\n\"cpu1.1\" = \"any-data\"\n[allow]\n\"cpu1.1\" = \"mc\"\n"),
        [
            ("always cpu1.1: any-data".to_owned(), Some(true)),
            ("possibly cpu1.1: mc".to_owned(), Some(false))
        ]
    );
}

#[test]
fn a_search_that_runs_out_of_its_budget_decides_nothing_but_what_it_has_seen() {
    let scenario = |pattern: &str| {
        let rest = format!("[expect]\n\"cpu1.1\" = \"{pattern}\"\n");
        Scenario::from_text("s.toml", &text("program", WEAK, &rest)).unwrap()
    };
    let verdict = |pattern: &str, bounds: &Bounds| {
        let found = explore(&scenario(pattern), &symbolic(), bounds, TOOL).unwrap();
        (found.verdict, found.explorations.first().unwrap().expectations.first().unwrap().holds)
    };
    let all = Bounds::default();
    assert_eq!(verdict("any-data", &all), (Verdict::Pass, Some(true)));
    for few in [
        Bounds { states: 5, ..all },
        Bounds { transitions: 5, ..all },
        Bounds { memory: 5 * scenarios::explore::STATE_BYTES, ..all },
    ] {
        assert_eq!(verdict("any-data", &few), (Verdict::Undecided, None), "{few:?}");
    }
    // A counterexample is one however much was left unseen.
    let found = explore(&scenario("mc"), &symbolic(), &all, TOOL).unwrap();
    let needed = found.explorations.first().unwrap().states as usize;
    let few = Bounds { states: needed - 1, ..all };
    assert_eq!(verdict("mc", &few), (Verdict::Fail, Some(false)));
}

// --------------------------------------------------------------------------------------------------------------- studies

fn answers(study: &Study) -> String {
    let row = |r: &study::Row| {
        let cells: Vec<&str> = r.cells.iter().map(|c| c.answer.as_str()).collect();
        format!("{}: {}\n", r.head.join(" "), cells.join(" | "))
    };
    study.rows.iter().map(row).collect()
}

fn all_reproduced(study: &Study) {
    let mut shown = 0;
    for (name, c) in study.shown() {
        assert!(c.reproduced, "{name}: {:?}\n{}", c.moves, c.file.clone().unwrap_or_default());
        shown += 1;
    }
    assert!(shown > 0);
    assert_eq!(study.verdict, Verdict::Pass);
}

#[test]
fn physical_attacks_come_to_what_the_sheet_says() {
    let (request, bounds) = (symbolic(), Bounds::default());
    let setting = Setting { request: &request, bounds: &bounds, tool: TOOL };
    let made = study::physical_attacks(&setting).unwrap();
    all_reproduced(&made);
    // verification.md §1.3, columns Li and Ci.
    expect![[r#"
        replay of an older line, same address and key verification.md §1.3: accepted (stale) | accepted (stale)
        a bit of the ciphertext flipped verification.md §1.3: accepted (garbage) | detected
        splice: another line of the TD moved there architecture.md §1.2 1.2.4: accepted (garbage) | detected
        dropped write over the TD's own older line verification.md §1.2 DDRop: accepted (stale) | accepted (stale)
        dropped write over another TD's line verification.md §1.2 DDRop: accepted (garbage) | detected
        dropped write over a line of the host verification.md §1.2 DDRop: detected | detected
        the TD bit cleared verification.md §1.3: detected | detected
        KeyID reused: the line is of its former key verification.md H7: accepted (garbage) | detected
        KeyID reused, and a line of its former key replayed verification.md H7: accepted (garbage) | detected
        foreign write: the host writes the whole line verification.md §1.3: detected | detected
        foreign write under another TD's key (module bug) verification.md §1.3: accepted (garbage) | detected
    "#]]
    .assert_eq(&answers(&made));
}

#[test]
fn only_a_clear_after_the_private_write_back_keeps_everybody_from_harm_on_erratum_parts() {
    let (request, bounds) = (symbolic(), Bounds::default());
    let setting = Setting { request: &request, bounds: &bounds, tool: TOOL };
    // The erratum rows: those without it differ in nothing but the first column, which is "never" (docs/explore.md).
    let rows: Vec<ReclaimRow> =
        RECLAIM_ROWS.into_iter().filter(|r| r.erratum && r.partial).collect();
    let made = study::reclaim_order_of(&rows, &setting).unwrap();
    all_reproduced(&made);
    let yes = |n: usize, k: usize| made.rows[n].cells[k].answer != "never";
    for (n, row) in made.rows.iter().enumerate() {
        let spec = rows[n / 2];
        let flushed = spec.flush != Flush::None;
        let safe = flushed && spec.clear == Clear::After;
        assert_eq!(yes(n, 0), !safe, "host #MC: {:?}", row.head);
        assert_eq!(yes(n, 1), !flushed, "host data: {:?}", row.head);
        assert_eq!(yes(n, 2), !flushed, "next TD: {:?}", row.head);
        assert!(!yes(n, 3), "TD data seen: {:?}", row.head);
    }
    // PAGE.WBINVD in place of CACHE.WB changes no answer, only how long it takes.
    let other: Vec<ReclaimRow> = rows
        .iter()
        .filter(|r| r.flush != Flush::None)
        .map(|r| ReclaimRow { flush: Flush::PageWbinvd, ..*r })
        .collect();
    let wbinvd = study::reclaim_order_of(&other, &setting).unwrap();
    let harms = |s: &Study, flush: &str| -> Vec<(Vec<String>, Vec<bool>)> {
        let flushed = s.rows.iter().filter(|r| r.head[3] == flush);
        flushed
            .map(|r| {
                let harm = r.cells.iter().map(|c| c.answer != "never").collect();
                (r.head.iter().filter(|h| *h != flush).cloned().collect(), harm)
            })
            .collect()
    };
    assert_eq!(harms(&made, "CACHE.WB"), harms(&wbinvd, "PAGE.WBINVD"));
}

#[test]
fn a_study_that_runs_out_of_its_budget_does_not_say_never() {
    let (request, bounds) = (symbolic(), Bounds { states: 3, ..Bounds::default() });
    let setting = Setting { request: &request, bounds: &bounds, tool: TOOL };
    let rows = [RECLAIM_ROWS[0]];
    for made in [
        study::reclaim_order_of(&rows, &setting).unwrap(),
        study::physical_attacks(&setting).unwrap(),
    ] {
        assert_eq!(made.verdict, Verdict::Undecided);
        let cells = made.rows.iter().flat_map(|r| &r.cells);
        assert!(cells.clone().count() > 0);
        assert!(cells.clone().all(|c| c.answer == "undecided"), "{}", made.markdown());
    }
}

// ---------------------------------------------------------------------------------------------------- what is not modelled

/// [`WEAK`], with a leaf that the module has not behind it, and whatever else.
fn with_a_strange_leaf(rest: &str) -> Scenario {
    let program = format!("{WEAK}  cpu0 : tdh.export.pause\n  cpu1 : load [P0] 8\n");
    Scenario::from_text(
        "s.toml",
        &text("program", &program, &format!("[tdx]\nstate = \"ready\"\n{rest}")),
    )
    .unwrap()
}

fn strange(rest: &str) -> (Verdict, ExplorationReport) {
    let found = explore(&with_a_strange_leaf(rest), &symbolic(), &Bounds::default(), TOOL).unwrap();
    (found.verdict, found.explorations.into_iter().next().unwrap())
}

#[test]
fn a_counterexample_that_was_seen_before_a_run_went_on_unmodelled_counts_and_the_rest_is_said_to_be_unknown()
 {
    let (verdict, found) = strange("[expect]\n\"cpu1.1\" = \"data 0x101010101010101\"\n");
    assert_eq!(verdict, Verdict::Fail);
    let c = found.counterexamples.first().unwrap();
    assert!(c.reproduced, "{:?}\n{:?}", c.moves, c.file);
    assert!(!c.file.as_ref().unwrap().contains("tdh.export.pause"));
    let notes: Vec<&String> = found.notes.iter().filter(|n| n.contains("not modelled")).collect();
    let [note] = notes.as_slice() else { panic!("{:?}", found.notes) };
    assert!(note.contains("2 ends of the search are where a run went on in such a way"), "{note}");
}

#[test]
fn what_a_run_that_went_on_unmodelled_might_have_seen_speaks_against_nothing() {
    // Of the call itself, of what is behind it, and of how it stands at the end.
    for rest in [
        "[expect]\n\"cpu0.4\" = \"tdx SUCCESS\"\n",
        "[expect]\n\"cpu1.2\" = \"mc\"\n",
        "[forbid]\n\"cpu1.2\" = \"data\"\n",
        "[forbid]\n\"cpu0.4\" = \"not-run not-modelled\"\n",
        "[expect]\nfinal = [\"poisoned P0\"]\n",
        "[expect]\n\"cpu1.1\" = \"data\"\n[allow]\n\"cpu1.1\" = \"mc\"\n",
    ] {
        let (verdict, found) = strange(rest);
        assert_eq!(verdict, Verdict::NotModelled, "{rest}");
        assert_eq!(found.counterexamples, [], "{rest}");
        assert_eq!(found.expectations.last().unwrap().holds, None, "{rest}");
    }
    // What is possible was seen before.
    let (_, found) = strange(
        "[expect]\n\"cpu1.1\" = \"data\"\n[allow]\n\"cpu1.1\" = \"data 0x202020202020202\"\n",
    );
    assert_eq!(found.expectations.last().unwrap().holds, Some(true));
}

#[test]
fn a_search_that_ran_out_of_its_budget_and_met_what_is_not_modelled_is_undecided() {
    let scenario = with_a_strange_leaf("[expect]\n\"cpu1.1\" = \"data\"\n");
    let all = explore(&scenario, &symbolic(), &Bounds::default(), TOOL).unwrap();
    let states = all.explorations.first().unwrap().states as usize;
    assert_eq!(all.verdict, Verdict::NotModelled);
    let few = Bounds { states: states - 1, ..Bounds::default() };
    let found = explore(&scenario, &symbolic(), &few, TOOL).unwrap();
    let notes = &found.explorations.first().unwrap().notes;
    assert_eq!(found.verdict, Verdict::Undecided, "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("not modelled")), "{notes:?}");
}

#[test]
fn words_that_differ_in_a_byte_that_is_known_are_two_outcomes_though_others_are_not_known() {
    let program = "  cpu0 : store [P0] 4 0x1\n  cpu1 : store [P0] 4 0x2\n  barrier\n  cpu0 : load [P0] 8\n  cpu0 : load [P0] 12\n";
    let explored = |rest: &str| {
        let scenario = Scenario::from_text("s.toml", &text("concurrent", program, rest)).unwrap();
        let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
        let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
        (found, run(&cell, &symbolic()).unwrap())
    };
    let (found, real) = explored("[expect]\n\"cpu0.2\" = \"data\"\n\"cpu0.3\" = \"data\"\n");
    let seen: Vec<&str> =
        found.expectations.iter().flat_map(|e| e.seen.iter().map(String::as_str)).collect();
    assert_eq!(
        seen,
        [
            "data 0x????????00000001",
            "data 0x????????00000002",
            "data bytes=01000000????????????????",
            "data bytes=02000000????????????????"
        ]
    );
    assert_eq!((found.endings, found.verdict), (2, Verdict::Pass));
    assert!(found.outcomes.iter().any(|o| is_run(o, &real)));
    // Bytes that nobody knows are no number that anybody could expect.
    for number in ["0x5a5a5a5a00000001", "0xa5a5a5a500000001", "0x1"] {
        let (found, _) =
            explored(&format!("[expect]\n\"cpu0.2\" = \"data {number} | data 0x2\"\n"));
        assert_eq!(found.verdict, Verdict::Fail, "{number}");
        assert!(
            found.counterexamples.iter().all(|c| c
                .file
                .as_ref()
                .unwrap()
                .contains("\"cpu0.2\" = \"data\""))
        );
    }
}

#[test]
fn loads_of_different_sizes_that_print_alike_are_two_outcomes() {
    let judged = |order: &str, program: &str, rest: &str| {
        let scenario = Scenario::from_text("s.toml", &text(order, program, rest)).unwrap();
        let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
        let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
        (found.verdict, run(&cell, &symbolic()).unwrap().verdict)
    };
    // All bytes loaded are 5 of the one, and not of the other.
    let small = "  cpu0 : store [P0] 8 0x5\n  cpu0 : load [P0] 1\n  cpu0 : load [P0] 8\n";
    let both = |one, eight| {
        judged(
            "program",
            small,
            &format!("[expect]\n\"cpu0.2\" = \"data {one}\"\n\"cpu0.3\" = \"data {eight}\"\n"),
        )
    };
    assert_eq!(both("fill=0x5", "fill=0x5"), (Verdict::Fail, Verdict::Fail));
    assert_eq!(both("fill=0x5", "0x5"), (Verdict::Pass, Verdict::Pass));
    let large =
        "  cpu0 : rep-stosb [P0] 64 fill=0x5\n  cpu0 : load [P0] 16\n  cpu0 : load [P0] 64\n";
    let sixteen = format!("[expect]\n\"cpu0.3\" = \"data bytes={}\"\n", "05".repeat(16));
    assert_eq!(judged("program", large, &sixteen), (Verdict::Fail, Verdict::Fail));
}

#[test]
fn what_must_not_come_is_undecided_where_only_bytes_that_nobody_knows_could_make_it_come() {
    let program = "  cpu0 : load [P0] 8\n  cpu0 : store [P0] 1 0x1\n  cpu0 : load [P0] 8\n";
    let verdict = |pattern: &str| {
        let rest = format!("[forbid]\n\"cpu0.3\" = \"{pattern}\"\n");
        let scenario = Scenario::from_text("s.toml", &text("program", program, &rest)).unwrap();
        let cell = plan(&scenario, &symbolic()).unwrap().remove(0);
        let found = explore_cell(&scenario, &cell, &symbolic(), &Bounds::default()).unwrap();
        let known = run(&cell, &symbolic()).unwrap();
        let said = known.steps.iter().find(|s| s.step == "cpu0.3").unwrap().outcome.clone();
        (found.verdict, found.expectations.first().unwrap().holds, known.verdict, said)
    };
    let (_, _, _, real) = verdict("zeros");
    // It is this in a run, and could be another value: neither is ruled out.
    for pattern in [real.as_str(), "data 0x1", "data fill=0x1"] {
        let (searched, holds, ..) = verdict(pattern);
        assert_eq!((searched, holds), (Verdict::Undecided, None), "{pattern}");
    }
    assert_eq!(verdict(&real).2, Verdict::Fail);
    // The byte that was stored is known.
    for pattern in ["data 0x2", "zeros", "data fill=0x2"] {
        assert_eq!(verdict(pattern).0, Verdict::Pass, "{pattern}");
    }
    assert_eq!(verdict("any-data").0, Verdict::Fail);
}

#[test]
fn a_line_outside_the_tdmrs_may_leave_before_or_after_the_module_changes_its_key() {
    let program = "  seam1 : rep-stosb [P0@priv2] 64 fill=0x11\n  cpu0 : tdh.mng.key.config rcx=[A_TDR]\n  \
                   seam1 : load [P0@priv2] 8\n";
    let rest = "[tdx]\nstate = \"ready\"\n[td.A]\nhkid = \"priv2\"\nstate = \"created\"\n\
                [expect]\nfinal = [\"not panic\"]\n";
    let scenario = Scenario::from_text("s.toml", &text("program", program, rest)).unwrap();
    let found = explore(&scenario, &symbolic(), &Bounds::default(), TOOL).unwrap();
    let last = |o: &OutcomeReport| o.steps.last().unwrap().outcome.clone();
    let seen: Vec<String> =
        found.explorations.iter().flat_map(|e| e.outcomes.iter().map(last)).collect();
    assert_eq!(seen, ["data 0x1111111111111111", "mc srar data-load shutdown"]);
}
