//! Bare channels: what goes in comes out, and every counter keeps its rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use scenarios::commands::{CommandCheck, CommandForm, CommandRecord, CommandSink, CommandWriter};
use scenarios::dram::{
    DramReport, Outside, PATTERNS, Pattern, PatternSettings, Settings, TraceSettings, run_pattern,
    run_trace,
};
use scenarios::platform::{Origin, Platform, load};
use scenarios::replay::{self, Place};
use scenarios::report::Verdict;
use scenarios::run::Speed;
use scenarios::stats::{RULES, STATISTICS, Values};
use scenarios::trace::{TraceReader, open_read};
use sim_core::planted::{Fault, Planted};
use sim_core::{KeyId, Ps};
use std::collections::BTreeSet;
use std::io;

fn platform(set: &[(&str, &str)]) -> Platform {
    let mut all = vec![("cpu.packages", "1"), ("dram.channels", "1")];
    all.extend(set);
    let set: Vec<_> = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(&Origin::Preset("spr".to_owned()), &set).unwrap()
}

const HOST: Settings = Settings {
    integrity: Some(Place::Host(KeyId(0))),
    seed: 1,
    every_edge: false,
    outstanding: None,
};

fn with(
    platform: &Platform,
    pattern: &PatternSettings,
    settings: &Settings,
    sink: Option<&mut dyn CommandSink>,
) -> DramReport {
    let mut sinks: Vec<&mut dyn CommandSink> = Vec::new();
    if let Some(sink) = sink {
        sinks.push(sink);
    }
    let outside = Outside { tool: "test", sinks, progress: &mut |_| () };
    run_pattern(platform, pattern, settings, outside).unwrap()
}

fn drive(pattern: Pattern, requests: u64, settings: &Settings) -> DramReport {
    let pattern = PatternSettings { pattern, requests, footprint: 1 << 24, gap: None };
    with(&platform(&[]), &pattern, settings, None)
}

/// Column commands that read and that write.
fn columns(report: &DramReport) -> (u64, u64) {
    let n = |name| report.count(name);
    (n("dram.rds") + n("dram.rdas"), n("dram.wrs") + n("dram.wras"))
}

fn trace(text: &str, settings: &Settings, how: TraceSettings) -> DramReport {
    let mut reader = open_read("t", text.as_bytes(), None).unwrap();
    let outside = Outside { tool: "test", sinks: Vec::new(), progress: &mut |_| () };
    run_trace(&mut reader, "t", &platform(&[]), &how, settings, outside).unwrap()
}

#[test]
fn every_pattern_passes_and_every_request_that_goes_in_comes_out() {
    for row in PATTERNS {
        let report = drive(row.pattern, 3000, &HOST);
        assert_eq!(report.verdict, Verdict::Pass, "{report}");
        for name in ["run.offered", "run.accepted", "run.completed"] {
            assert_eq!(report.count(name), 3000, "{name} of {}", row.name);
        }
        let samples: u64 = report.latency.histogram.iter().map(|b| b.reads).sum();
        assert_eq!(samples, report.count("run.reads"), "{}", row.name);
        assert!(report.bandwidth <= report.peak_bandwidth, "{}", row.name);
    }
}

#[test]
fn a_dependent_chain_waits_for_each_read_and_costs_what_the_timing_says() {
    let off = platform(&[("dram.refresh", "off")]);
    let pattern =
        PatternSettings { pattern: Pattern::Chain, requests: 500, footprint: 1 << 34, gap: None };
    let report = with(&off, &pattern, &HOST, None);
    // tRCD + CL + BL/2 of DDR5-4800B (timing.md §2.2), in clocks of 416 ps.
    let unloaded = (39 + 40 + 8) * 416;
    assert_eq!(report.latency.min_ps, unloaded);
    // One at a time: the run is the sum of its reads, but for rows that are still being closed.
    assert_eq!(report.latency.mean_ps * 500 / 1000, report.count("run.read_latency") / 1000);
    assert!(report.simulated_ps >= report.count("run.read_latency"), "{report}");
    assert!(report.simulated_ps < report.count("run.read_latency") + 200 * 416, "{report}");
}

#[test]
fn a_sparse_pattern_keeps_its_gap() {
    let report = drive(Pattern::Sparse, 100, &HOST);
    assert!((99_000..100_500).contains(&report.cycles), "{}", report.cycles);
    let report = {
        let pattern = PatternSettings {
            pattern: Pattern::Sparse,
            requests: 100,
            footprint: 1 << 24,
            gap: Some(50),
        };
        with(&platform(&[]), &pattern, &HOST, None)
    };
    assert!((4950..6500).contains(&report.cycles), "{}", report.cycles);
}

#[test]
fn a_partial_write_that_misses_the_queue_is_one_read_and_one_write() {
    let report = drive(Pattern::PartialWrite, 1, &HOST);
    assert_eq!(columns(&report), (1, 1));
    let report = drive(Pattern::SequentialWrite, 64, &HOST);
    assert_eq!(columns(&report), (0, 64));
}

#[test]
fn integrity_metadata_cost_no_time_and_a_td_reads_what_it_accepted() {
    let bare = drive(Pattern::Mix, 2000, &Settings { integrity: None, ..HOST });
    let host = drive(Pattern::Mix, 2000, &HOST);
    let private = platform(&[]).spec.keyid.private(1).unwrap();
    let td = drive(Pattern::Mix, 2000, &Settings { integrity: Some(Place::Td(private)), ..HOST });
    assert_eq!((bare.cycles, &bare.latency), (host.cycles, &host.latency));
    assert_eq!((bare.cycles, &bare.latency), (td.cycles, &td.latency));
    assert_eq!(bare.statistics.iter().filter(|s| s.name.starts_with("controller")).count(), 0);
    for report in [&host, &td] {
        assert_eq!(report.count("controller.class_plain"), report.count("run.reads"));
        assert_eq!(report.count("controller.full_writes"), report.count("run.writes"));
    }
    assert_eq!((host.verdict, td.verdict), (Verdict::Pass, Verdict::Pass));
}

#[test]
fn a_trace_with_cycles_keeps_them_and_one_without_is_a_closed_loop() {
    let timed = trace("0x0 READ 100\n0x100000 READ 5000\n", &HOST, TraceSettings::default());
    assert!((5000..5300).contains(&timed.cycles), "{}", timed.cycles);
    assert_eq!(timed.count("run.admission_wait"), 0);
    let closed = trace("LD 0\nLD 0x100000\n", &HOST, TraceSettings::default());
    assert!(closed.cycles < 300, "{}", closed.cycles);
}

#[test]
fn a_full_queue_delays_timed_requests_and_drops_none() {
    let mut text = String::new();
    for i in 0..500u64 {
        text.push_str(&format!("{:#x} READ {}\n", i * 0x1_0040, 10 + i / 100));
    }
    let report = trace(&text, &HOST, TraceSettings::default());
    assert_eq!((report.count("run.accepted"), report.count("run.completed")), (500, 500));
    assert!(report.count("run.admission_wait") > 0);
    assert!(report.count("run.admission_wait_max") > 500 * 416);
}

#[test]
fn the_end_of_a_trace_is_processed_once_and_wide_records_are_split_at_lines() {
    let text = " L 103c,8\n S 2000,64\n M 3000,8\nI  4000,3\n";
    let report = trace(text, &HOST, TraceSettings::default());
    // The load touches two lines; the modify is a read and a partial write.
    assert_eq!(report.count("trace.records"), 4);
    assert_eq!(report.count("run.reads"), 2 + 1 + 1);
    assert_eq!(report.count("run.writes"), 1);
    assert_eq!(report.count("run.partial_writes"), 1);
    let some = trace(text, &HOST, TraceSettings { limit: Some(2), allow_truncated: false });
    assert_eq!((some.count("trace.records"), some.count("run.accepted")), (2, 3));
}

#[test]
fn addresses_beyond_the_platform_are_refused_at_their_line() {
    let mut reader = open_read("t", &b"LD 0\nLD 0xffffffffffffffc0\n"[..], None).unwrap();
    let outside = Outside { tool: "test", sinks: Vec::new(), progress: &mut |_| () };
    let error =
        run_trace(&mut reader, "t", &platform(&[]), &TraceSettings::default(), &HOST, outside);
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("t:2:1: found address 0xffffffffffffff"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn looking_at_every_edge_gives_the_same_report_and_the_same_commands(
        pattern in 0usize..PATTERNS.len(),
        requests in 1u64..150,
        shift in 12u32..30,
        gap in prop_oneof![Just(None), (0u64..300).prop_map(Some)],
        policy in prop_oneof![Just("open"), Just("closed"), Just("adaptive")],
        refresh in prop_oneof![Just("all-bank"), Just("same-bank"), Just("off")],
        channels in prop_oneof![Just("1"), Just("2"), Just("8")],
        outstanding in prop_oneof![Just(None), (0u64..40).prop_map(Some)],
    ) {
        let platform = platform(&[
            ("dram.page_policy", policy), ("dram.refresh", refresh), ("dram.channels", channels),
        ]);
        let pattern = PatternSettings {
            pattern: PATTERNS[pattern].pattern, requests, footprint: 1 << shift, gap,
        };
        let [skipped, looked] = [false, true].map(|every_edge| {
            let mut sink = CommandWriter::new(Vec::new(), CommandForm::Tdxsim, &platform.spec).unwrap();
            let settings = Settings { every_edge, outstanding, ..HOST };
            let report = with(&platform, &pattern, &settings, Some(&mut sink));
            (report, String::from_utf8(sink.into_inner()).unwrap())
        });
        prop_assert_eq!(skipped.0.to_string(), looked.0.to_string());
        prop_assert!(skipped.0 == looked.0);
        prop_assert!(skipped.1 == looked.1, "the commands differ");
        prop_assert_eq!(skipped.0.verdict, Verdict::Pass);
    }
}

#[test]
fn the_command_trace_has_every_command_and_both_forms_have_the_same() {
    let platform = platform(&[("dram.channels", "2")]);
    let pattern =
        PatternSettings { pattern: Pattern::Mix, requests: 400, footprint: 1 << 26, gap: None };
    let [own, other] = [CommandForm::Tdxsim, CommandForm::Dramsim3].map(|form| {
        let mut sink = CommandWriter::new(Vec::new(), form, &platform.spec).unwrap();
        let report = with(&platform, &pattern, &HOST, Some(&mut sink));
        assert_eq!(report.count("run.commands_written"), sink.written());
        (String::from_utf8(sink.into_inner()).unwrap(), report)
    });
    for (word, name) in [
        (" ACT ", "acts"),
        (" PRE ", "pres"),
        (" PREab ", "pre_alls"),
        (" RD ", "rds"),
        (" RDA ", "rdas"),
        (" WR ", "wrs"),
        (" WRA ", "wras"),
        (" REFab ", "refresh_all"),
        (" REFsb ", "refresh_same"),
    ] {
        let lines = own.0.lines().filter(|l| l.contains(word)).count() as u64;
        assert_eq!(lines, own.1.count(&format!("dram.{name}")), "{word}");
    }
    let lines: Vec<&str> = own.0.lines().collect();
    assert_eq!(lines[0], "# tdxsim command trace 1");
    assert!(lines[1].starts_with("# rules: tCK=416ps CL=40 "), "{}", lines[1]);
    assert_eq!(*lines.last().unwrap(), format!("# end {}", own.1.cycles));
    // The same commands at the same clocks; channel 1, subchannel 0 is bus 2.
    assert_eq!(other.0.lines().count(), lines.len() - 3);
    for (own, other) in lines[2..].iter().zip(other.0.lines()) {
        let (own, other): (Vec<&str>, Vec<&str>) =
            (own.split(' ').collect(), other.split_whitespace().collect());
        assert_eq!(other.len(), 8, "{other:?}");
        assert_eq!(own[0], other[0]);
        let place: Vec<u32> = own[1].split('.').map(|n| n.parse().unwrap()).collect();
        assert_eq!((place[1] * 2 + place[2]).to_string(), other[2]);
        assert_eq!(own[3], other[3]);
        if own[2].starts_with("RD") || own[2].starts_with("WR") {
            assert_eq!([own[4], own[5], own[6]], [other[4], other[5], other[6]]);
            let column: u32 = own[7].parse().unwrap();
            assert_eq!(other[7], format!("{:#x}", column * 16));
        }
    }
}

#[test]
fn a_sink_that_cannot_write_ends_the_run_with_its_error() {
    struct Full;
    impl CommandSink for Full {
        fn put(&mut self, _: &CommandRecord) -> io::Result<()> {
            Err(io::Error::other("full"))
        }
        fn end(&mut self, _: Ps) -> io::Result<()> {
            Ok(())
        }
    }
    let pattern =
        PatternSettings { pattern: Pattern::Mix, requests: 10, footprint: 1 << 24, gap: None };
    let mut full = Full;
    let outside = Outside { tool: "test", sinks: vec![&mut full], progress: &mut |_| () };
    let error = run_pattern(&platform(&[]), &pattern, &HOST, outside).unwrap_err();
    assert_eq!(error.to_string(), "full");
}

#[test]
fn a_run_whose_counter_is_off_by_one_is_broken() {
    let mut faulty = platform(&[]);
    faulty.spec.planted = Planted::fault(Fault::CompletionNotCounted);
    let pattern =
        PatternSettings { pattern: Pattern::Mix, requests: 500, footprint: 1 << 24, gap: None };
    let report = with(&faulty, &pattern, &HOST, None);
    assert_eq!(report.verdict, Verdict::Broken);
    let line = "accepted is completed: run.accepted = run.completed does not hold: 500 against 499";
    assert_eq!(report.broken.first().map(String::as_str), Some(line), "{report}");
}

#[test]
fn a_report_with_a_broken_rule_says_so() {
    let report = drive(Pattern::Mix, 500, &HOST);
    let mut values = Values::default();
    report.statistics.iter().for_each(|s| values.set(s.name, s.value));
    assert_eq!(values.broken(true), [""; 0]);
    values.set("run.completed", report.count("run.completed") - 1);
    let broken = values.broken(true);
    assert_eq!(
        broken,
        ["accepted is completed: run.accepted = run.completed does not hold: 500 against 499"]
    );
}

fn replayed() -> Vec<(&'static str, u64)> {
    let text = include_bytes!("../data/dramsim3.trace");
    let mut reader: TraceReader<_> = open_read("t", &text[..], None).unwrap();
    let settings = replay::Settings {
        every_edge: false,
        place: Place::Host(KeyId(0)),
        speed: Speed::Timed,
        seed: 0,
        limit: None,
        allow_truncated: false,
    };
    let report =
        replay::replay(&mut reader, "t", "test", &platform(&[]), &settings, |_| ()).unwrap();
    assert_eq!(report.broken, [""; 0]);
    report.statistics.iter().map(|s| (s.name, s.value)).collect()
}

#[test]
fn every_statistic_is_printed_by_some_command_and_every_rule_is_looked_at() {
    let of_trace = trace("LD 0\nST 64\n", &HOST, TraceSettings::default());
    let platform = platform(&[]);
    let mut sink = CommandWriter::new(Vec::new(), CommandForm::Tdxsim, &platform.spec).unwrap();
    let pattern =
        PatternSettings { pattern: Pattern::Mix, requests: 10, footprint: 1 << 24, gap: None };
    let of_pattern = with(&platform, &pattern, &HOST, Some(&mut sink));
    let rows = |report: &DramReport| -> Vec<_> {
        report.statistics.iter().map(|s| (s.name, s.value)).collect()
    };
    let runs = [rows(&of_trace), rows(&of_pattern), replayed()];
    let printed: BTreeSet<&str> = runs.iter().flatten().map(|(name, _)| *name).collect();
    let listed: BTreeSet<&str> = STATISTICS.iter().map(|s| s.name).collect();
    assert_eq!(listed.difference(&printed).collect::<Vec<_>>(), Vec::<&&str>::new());
    let mut looked_at = BTreeSet::new();
    for run in &runs {
        let mut values = Values::default();
        run.iter().for_each(|(name, value)| values.set(name, *value));
        looked_at.extend(RULES.iter().filter(|r| values.applies(r, true)).map(|r| r.name));
    }
    let all: BTreeSet<&str> = RULES.iter().map(|r| r.name).collect();
    assert_eq!(all, looked_at);
}

#[test]
fn every_counter_of_machine_caches_controller_and_dram_is_defined() {
    let spec = platform(&[]).spec;
    let options = machine::Options {
        speed: Speed::Timed,
        crypto: machine::CryptoKind::Symbolic,
        seed: 0,
        log: false,
    };
    let machine = machine::Machine::new(&spec, options).unwrap();
    assert_eq!(Values::of_machine(&machine).unlisted(), [""; 0]);
}

/// The commands of a run, as the checker reads them from the file: how many, and what it finds.
fn judged(text: &[u8]) -> (u64, Vec<String>) {
    let mut reader = verify::ddr5::Reader::new(text).unwrap();
    let mut checker = verify::ddr5::Checker::new(reader.rules().clone());
    for record in reader.by_ref() {
        checker.check(&record.unwrap());
    }
    checker.finish(reader.end().unwrap());
    (checker.commands(), checker.violations().iter().map(ToString::to_string).collect())
}

#[test]
fn every_pattern_keeps_the_rules_of_ddr5_under_every_policy_and_refresh_mode() {
    for policy in ["open", "closed", "adaptive"] {
        for refresh in ["all-bank", "same-bank", "off"] {
            let platform = platform(&[
                ("dram.page_policy", policy),
                ("dram.refresh", refresh),
                ("dram.channels", "2"),
            ]);
            for row in PATTERNS {
                let pattern = PatternSettings {
                    pattern: row.pattern,
                    requests: 400,
                    footprint: 1 << 22,
                    gap: None,
                };
                let mut check = CommandCheck::new(&platform.spec).unwrap();
                with(&platform, &pattern, &HOST, Some(&mut check));
                let mut file =
                    CommandWriter::new(Vec::new(), CommandForm::Tdxsim, &platform.spec).unwrap();
                with(&platform, &pattern, &HOST, Some(&mut file));
                let (commands, violations) = judged(&file.into_inner());
                assert_eq!(violations, [""; 0], "{policy} {refresh} {}", row.name);
                assert_eq!(check.violations(), violations);
                assert!(commands >= 400 && check.commands() == commands, "{commands}");
            }
        }
    }
}

#[test]
fn a_command_that_comes_a_clock_early_is_found_in_the_file() {
    let platform = platform(&[]);
    let pattern =
        PatternSettings { pattern: Pattern::Chain, requests: 20, footprint: 1 << 30, gap: None };
    let mut file = CommandWriter::new(Vec::new(), CommandForm::Tdxsim, &platform.spec).unwrap();
    with(&platform, &pattern, &HOST, Some(&mut file));
    let text = String::from_utf8(file.into_inner()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|l| l.contains(" RD")).unwrap();
    let (clock, rest) = lines[at].split_once(' ').unwrap();
    lines[at] = format!("{} {rest}", clock.parse::<u64>().unwrap() - 1);
    let (_, violations) = judged((lines.join("\n") + "\n").as_bytes());
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert!(violations[0].starts_with("tRCD "), "{}", violations[0]);
}
