//! The controller before two judges that share nothing with it: `verify::ddr5`'s checker of commands (verification.md
//! §2.11 Q3 to Q9) and its checks of whole runs (Q1, Q2, Q9, Q11 to Q16).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use mktme::dram::organisation::Organisation;
use mktme::dram::timing::{Parameter as P, TIMING_TABLE};
use mktme::dram::{Dram, Kind, Place as Bank, Request, SubchannelSpec};
use proptest::prelude::*;
use scenarios::commands::{CommandCheck, CommandSink, check_rules};
use scenarios::dram::{Outside, PATTERNS, PatternSettings, Settings, run_pattern};
use scenarios::format::Scenario;
use scenarios::library::LIBRARY;
use scenarios::platform::{Origin, Platform, load};
use scenarios::replay::{self, Place, replay_with};
use scenarios::report::Verdict;
use scenarios::run::{self, Speed, plan, run_all};
use scenarios::trace::{TraceReader, open_read};
use sim_core::platform::{
    CcdLWrRule, Density, DeviceWidth, DramSpec, FawRule, PagePolicy, RefreshMode, RrdLRule,
    SpeedBin, SpeedGrade,
};
use sim_core::prng::Prng;
use sim_core::{KeyId, Line, Ps};
use std::collections::BTreeMap;
use verify::ddr5::Rules;
use verify::ddr5::run::{Queue, QueueTotals, Row, RunChecker};

fn platform(set: &[(&str, &str)]) -> Platform {
    let mut all = vec![("cpu.packages", "1"), ("dram.channels", "1")];
    all.extend(set);
    let set: Vec<_> = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(&Origin::Preset("spr".to_owned()), &set).unwrap()
}

/// How often each rule had something to say, over several runs.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    fn add(&mut self, check: &CommandCheck) {
        for (rule, witnesses, _) in check.checker().tally() {
            *self.0.entry(rule.id).or_default() += witnesses;
        }
    }
    /// Rules that never had anything to say.
    fn silent(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect()
    }
}

const BARE: Settings = Settings { integrity: None, seed: 1, every_edge: false, outstanding: None };

// ---- Patterns --------------------------------------------------------------------------------------------------------

/// A run of a pattern and what the checker found.
fn checked(platform: &Platform, pattern: &PatternSettings, seen: &mut Seen) -> Vec<String> {
    let mut check = CommandCheck::new(&platform.spec).unwrap();
    let sinks: Vec<&mut dyn CommandSink> = vec![&mut check];
    let outside = Outside { tool: "test", sinks, progress: &mut |_| () };
    let report = run_pattern(platform, pattern, &BARE, outside).unwrap();
    assert_eq!(report.verdict, Verdict::Pass, "{report}");
    assert_eq!(report.count("run.commands_written"), check.commands());
    seen.add(&check);
    check.violations()
}

#[test]
fn every_pattern_with_every_policy_refresh_grade_and_number_of_ranks_keeps_the_rules_of_ddr5() {
    let mut seen = Seen::default();
    let mut runs = 0u64;
    for (grade, bin) in [
        ("ddr5-4800", "b"),
        ("ddr5-4800", "an"),
        ("ddr5-5200", "b"),
        ("ddr5-5600", "b"),
        ("ddr5-6400", "b"),
        ("ddr5-6400", "an"),
    ] {
        for policy in ["open", "closed", "adaptive"] {
            for refresh in ["all-bank", "same-bank", "off"] {
                for ranks in ["1", "2"] {
                    let density = ["8Gb", "16Gb", "24Gb", "32Gb"][runs as usize / 7 % 4];
                    let platform = platform(&[
                        ("dram.grade", grade),
                        ("dram.bin", bin),
                        ("dram.page_policy", policy),
                        ("dram.refresh", refresh),
                        ("dram.refresh_hot", "true"),
                        ("dram.refresh_postpone", if runs.is_multiple_of(2) { "0" } else { "4" }),
                        ("dram.ranks", ranks),
                        ("dram.density", density),
                    ]);
                    for row in PATTERNS {
                        runs += 1;
                        // Enough for refreshes to come between the requests; few rows, or many.
                        let requests = if row.gap > 0 { 40 } else { 300 };
                        let footprint = if runs.is_multiple_of(3) { 1 << 34 } else { 1 << 15 };
                        let pattern = PatternSettings {
                            pattern: row.pattern,
                            requests,
                            footprint,
                            gap: None,
                        };
                        let found = checked(&platform, &pattern, &mut seen);
                        let run = (row.name, grade, bin, policy, refresh, ranks, density);
                        assert_eq!(found, [""; 0], "{run:?}");
                    }
                }
            }
        }
    }
    assert_eq!(runs, 6 * 3 * 3 * 2 * 7);
    // All banks are closed at once only for REFab.
    assert_eq!(seen.silent(), ["tRP PREab REFsb"], "these rules judged nothing");
}

// ---- The machine -----------------------------------------------------------------------------------------------------

#[test]
fn every_scenario_of_the_library_keeps_the_rules_of_ddr5_when_timed() {
    let (mut runs, mut commands) = (0, 0);
    for entry in LIBRARY {
        let scenario = Scenario::parse(entry.source()).unwrap();
        let request = run::Request { commands: true, ..run::Request::default() };
        assert_eq!(request.speed, Speed::Timed);
        let cells = plan(&scenario, &request).unwrap();
        let reports = run_all(&cells, &request, "test").unwrap();
        for (cell, report) in cells.iter().zip(&reports.runs) {
            let mut check = CommandCheck::new(cell.platform()).unwrap();
            for record in &report.commands {
                check.put(record).unwrap();
            }
            let last = report.commands.iter().map(|c| c.at).max().unwrap_or(Ps::ZERO);
            check.end(last.max(Ps(report.simulated_ps))).unwrap();
            assert_eq!(check.violations(), [""; 0], "{}", entry.name);
            runs += 1;
            commands += check.commands();
        }
    }
    assert!(runs >= LIBRARY.len() && commands > 10_000, "{runs} runs, {commands} commands");
}

#[test]
fn every_sample_trace_keeps_the_rules_of_ddr5_when_replayed() {
    let samples: [(&str, &[u8], u64); 3] = [
        ("lackey-true.trace.gz", include_bytes!("../data/lackey-true.trace.gz"), 20_000),
        ("dramsim3.trace", include_bytes!("../data/dramsim3.trace"), 200),
        ("gem5.trace.gz", include_bytes!("../data/gem5.trace.gz"), 200),
    ];
    for (name, bytes, limit) in samples {
        for refresh in ["all-bank", "same-bank"] {
            let platform = platform(&[("dram.refresh", refresh)]);
            let mut reader: TraceReader<_> = open_read(name, bytes, None).unwrap();
            let settings = replay::Settings {
                every_edge: false,
                place: Place::Host(KeyId(0)),
                speed: Speed::Timed,
                seed: 0,
                limit: Some(limit),
                allow_truncated: false,
            };
            let mut check = CommandCheck::new(&platform.spec).unwrap();
            let sink: Option<&mut dyn CommandSink> = Some(&mut check);
            replay_with(&mut reader, name, "test", &platform, &settings, sink, |_| ()).unwrap();
            assert_eq!(check.violations(), [""; 0], "{name}");
            assert!(check.commands() > 100, "{name}: {} commands", check.commands());
        }
    }
}

// ---- Anything that is legal ------------------------------------------------------------------------------------------

/// A bare memory and what it is asked.
#[derive(Clone, Debug)]
struct Case {
    spec: DramSpec,
    sub: SubchannelSpec,
    /// Kinds that are asked: as many of each.
    kinds: Vec<Kind>,
    lines: u64,
    requests: u64,
    /// One in so many requests comes after a pause.
    pause: u64,
    seed: u64,
}

fn any_spec() -> impl Strategy<Value = DramSpec> {
    use CcdLWrRule::{CcdL, Ns10, Ns20};
    use Density::{Gb8, Gb16, Gb24, Gb32};
    use SpeedGrade::{Ddr5_4800, Ddr5_5200, Ddr5_5600, Ddr5_6400};
    let grade = prop::sample::select(vec![
        (Ddr5_4800, SpeedBin::B),
        (Ddr5_4800, SpeedBin::An),
        (Ddr5_5200, SpeedBin::B),
        (Ddr5_5600, SpeedBin::B),
        (Ddr5_5600, SpeedBin::An),
        (Ddr5_6400, SpeedBin::B),
        (Ddr5_6400, SpeedBin::An),
    ]);
    let device = (
        prop::sample::select(vec![Gb8, Gb16, Gb24, Gb32]),
        prop::sample::select(vec![DeviceWidth::X4, DeviceWidth::X8]),
        prop::sample::select(vec![1u8, 2]),
        prop::sample::select(vec![1u8, 2, 4]),
    );
    let rules = (
        prop::sample::select(vec![FawRule::Clocks32, FawRule::Ns20]),
        prop::sample::select(vec![Ns20, Ns10, CcdL]),
        prop::sample::select(vec![RrdLRule::Ns5, RrdLRule::Clocks8]),
    );
    let refresh = (
        prop::sample::select(vec![RefreshMode::AllBank, RefreshMode::SameBank, RefreshMode::Off]),
        any::<bool>(),
        0u8..=8,
    );
    let policy =
        prop::sample::select(vec![PagePolicy::Open, PagePolicy::Closed, PagePolicy::Adaptive]);
    let queues = (1u16..40, 1u16..40, any::<u16>(), any::<u16>());
    let ages = prop::sample::select(vec![(4096u32, 16384u32), (300, 500), (60, 40), (1, 1)]);
    (grade, device, rules, refresh, policy, queues, ages).prop_map(
        |(grade, device, rules, refresh, page_policy, queues, ages)| {
            let write_high = 1 + queues.2 % queues.1;
            DramSpec {
                grade: grade.0,
                bin: grade.1,
                density: device.0,
                width: device.1,
                channels: device.2,
                ranks: device.3,
                faw: rules.0,
                ccd_l_wr: rules.1,
                rrd_l: rules.2,
                refresh: refresh.0,
                refresh_hot: refresh.1,
                refresh_postpone: refresh.2,
                read_queue: queues.0,
                write_queue: queues.1,
                write_high,
                write_low: queues.3 % write_high,
                read_age: ages.0,
                write_age: ages.1,
                page_policy,
                map: "hashed".to_owned(),
                watchdog: 1 << 20,
            }
        },
    )
}

/// The subchannels of a specification with some clocks changed, as far as controller and checker still take them.
fn change(sub: SubchannelSpec, changes: &[(usize, u32)], often: bool) -> SubchannelSpec {
    let mut now = sub;
    let or = |changed: SubchannelSpec, before: SubchannelSpec| {
        let sane = check_rules(&changed).is_ok_and(|rules| rules.insane().next().is_none());
        if sane && changed.timing.check().is_ok() { changed } else { before }
    };
    if often {
        let t = now.timing.with(P::Rfc, 200).with(P::RfcSb, 90).with(P::RefSbRd, 20);
        let timing = t.with(P::Refi, 3500).with(P::Refi2, 3000);
        now = or(SubchannelSpec { timing, ..now }, now);
    }
    for (row, percent) in changes {
        let parameter = TIMING_TABLE[row % TIMING_TABLE.len()].parameter;
        // The slots and the burst are what they are.
        if !matches!(parameter, P::LongSlots | P::ShortSlots | P::HalfBurst) {
            let clocks = now.timing.clocks(parameter) * percent / 100;
            // A trace has one tCCD_S, for reads and for writes.
            let timing = match parameter {
                P::CcdS | P::CcdSWr => now.timing.with(P::CcdS, clocks).with(P::CcdSWr, clocks),
                _ => now.timing.with(parameter, clocks),
            };
            now = or(SubchannelSpec { timing, ..now }, now);
        }
    }
    now
}

fn any_case() -> impl Strategy<Value = Case> {
    let shape = prop::option::of((0u32..4, 0u32..3, 5u32..9));
    let changes = prop::collection::vec((0usize..40, 30u32..250), 0..8);
    let kinds = prop::sample::select(vec![
        vec![Kind::Read],
        vec![Kind::Write],
        vec![Kind::PartialWrite],
        vec![Kind::Read, Kind::Write],
        vec![Kind::Read, Kind::Write, Kind::PartialWrite],
        vec![Kind::Read, Kind::Read, Kind::Read, Kind::Write],
    ]);
    let lines = prop::sample::select(vec![16u64, 200, 3000, 1 << 24]);
    let traffic = (2u64..500, prop::sample::select(vec![2u64, 30, 1 << 20]), any::<u64>());
    (any_spec(), shape, changes, any::<bool>(), kinds, lines, traffic).prop_map(
        |(spec, shape, changes, often, kinds, lines, (requests, pause, seed))| {
            let mut sub = SubchannelSpec::of(&spec).unwrap();
            if let Some((groups, banks, columns)) = shape {
                sub.geometry = Organisation {
                    bank_groups: 1 << groups,
                    banks_per_group: 1 << banks,
                    columns: 1 << columns,
                    ..sub.geometry
                };
            }
            let sub = change(sub, &changes, often);
            // Beyond what is installed there are no rows (mktme::dram::map).
            let installed = 2 * u64::from(spec.channels) * sub.geometry.lines();
            Case { spec, sub, kinds, lines: lines.min(installed), requests, pause, seed }
        },
    )
}

/// The longest that any request may take (Q16), in clocks: its age, and then all that both queues hold, each with a row
/// conflict and a turn of the bus, and all refreshes that were postponed.
fn bound(sub: &SubchannelSpec) -> u64 {
    let t = |p| u64::from(sub.timing.clocks(p));
    let one: u64 =
        [P::Ras, P::Rp, P::Rcd, P::Cl, P::Cwl, P::HalfBurst, P::Wr, P::WtrL].map(t).iter().sum();
    let entries = u64::from(sub.read_queue) + u64::from(sub.write_queue);
    let refreshes = u64::from(sub.geometry.ranks) * (u64::from(sub.refresh_postpone) + 2);
    u64::from(sub.read_age.max(sub.write_age)) + one * (entries + 2) + refreshes * (t(P::Rfc) + one)
}

/// Makes all requests, waits for a few refreshes more, and shows all there is to see to both judges.
fn judged(case: &Case) -> (CommandCheck, RunChecker) {
    let Case { spec, sub, .. } = case;
    let tck = sub.timing.tck();
    let rules: Rules = check_rules(sub).unwrap();
    let mut check = CommandCheck::of_subchannels(sub, 1, spec.channels).unwrap();
    // A read that can not be forwarded takes as long as its data does.
    let reads_only = case.kinds == [Kind::Read];
    let least =
        if reads_only { sub.timing.clocks(P::Cl) + sub.timing.clocks(P::HalfBurst) } else { 0 };
    let mut run = RunChecker::new(tck.times(least.into()), tck.times(bound(sub)));
    run.parameters(&rules);
    let mut dram = Dram::with_subchannels(spec, 1, *sub).unwrap();
    dram.record_commands(true);
    let mut random = Prng::new(case.seed);
    // Reads alone: from the moment they are taken to the last beat of their data.
    let (mut reads, mut taken) = (Queue::new(), BTreeMap::new());
    let (mut events, mut due) = (0, Ps::ZERO);
    let mut collect = |dram: &mut Dram,
                       run: &mut RunChecker,
                       reads: &mut Queue,
                       taken: &mut BTreeMap<u64, Ps>| {
        while let Some(done) = dram.pop_completion() {
            run.event(done.at, events);
            events += 1;
            run.answer(done.id, done.at);
            if let Some(at) = taken.remove(&done.id) {
                reads.leave(done.at, at);
            }
        }
    };
    for id in 0..case.requests {
        if random.below(case.pause) == 0 {
            let most = if random.below(20) == 0 { 40_000_000 } else { 200_000 };
            due = due.max(dram.now()) + Ps(random.below(most));
        }
        // Everything that is over before the next request is: answers are taken in their order.
        dram.advance(due);
        collect(&mut dram, &mut run, &mut reads, &mut taken);
        let kind = case.kinds[random.below(case.kinds.len() as u64) as usize];
        let line = Line(random.below(case.lines));
        while !dram.can_accept(line, kind) {
            let next = dram.next_event().unwrap();
            run.scheduled(dram.now(), next);
            dram.advance(next);
            collect(&mut dram, &mut run, &mut reads, &mut taken);
        }
        let now = dram.now();
        dram.enqueue(Request { id, line, kind, at: now }).unwrap();
        run.request(id, now);
        if kind == Kind::Read {
            reads.enter(now);
            taken.insert(id, now);
        }
        collect(&mut dram, &mut run, &mut reads, &mut taken);
    }
    // Q14 in the middle: what the counters say is on its way.
    let flying = dram.in_flight();
    run.clone().finish(dram.now(), flying.queued_reads + flying.flying_reads);
    dram.drain();
    collect(&mut dram, &mut run, &mut reads, &mut taken);
    let (end, stats, flying) = (dram.now(), dram.stats(), dram.in_flight());
    run.finish(end, flying.queued_reads + flying.flying_reads);
    // Q13: lengths seen from outside against waits counted inside; and the queues by their own counters.
    let seen = reads.totals(end);
    run.little("reads", &QueueTotals { waited: stats.read_latency.0.into(), ..seen });
    let clocks = end.0 / tck.0;
    let queues = [
        ("read queue", stats.read_queue_clocks, stats.read_queue_wait),
        ("write queue", stats.write_queue_clocks, stats.write_queue_wait),
    ];
    for (name, integral, waited) in queues {
        let (integral, waited) = (integral.into(), waited.into());
        run.little(name, &QueueTotals { integral, waited, elapsed: Ps(clocks) });
    }
    let columns = stats.rds + stats.rdas + stats.wrs + stats.wras;
    let last =
        end + tck.times(u64::from(sub.timing.clocks(P::Cl) + sub.timing.clocks(P::HalfBurst)));
    run.bandwidth(&rules, 2 * u64::from(spec.channels), 64 * columns, last);
    dram.advance(end + tck.times(6 * u64::from(sub.timing.clocks(P::Refi))));
    for record in dram.take_commands() {
        check.put(&record).unwrap();
    }
    check.end(dram.now()).unwrap();
    assert_eq!(dram.lost_commands(), 0);
    (check, run)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_legal_configuration_keeps_the_rules_of_ddr5_and_of_a_run(case in any_case()) {
        let (check, run) = judged(&case);
        prop_assert_eq!(check.violations(), [""; 0]);
        prop_assert_eq!(run.violations(), []);
        for id in ["Q1", "Q2", "Q9", "Q10", "Q13", "Q14", "Q16"] {
            prop_assert!(run.witnesses(id) > 0, "{} judged nothing", id);
        }
    }
}

// ---- Runs of which the outcome is known ------------------------------------------------------------------------------

/// The first subchannel of a memory of one channel, and its rules.
fn bare(set: &[(&str, &str)]) -> (Dram, SubchannelSpec, Rules) {
    let spec = platform(set).spec.dram;
    let sub = SubchannelSpec::of(&spec).unwrap();
    let mut dram = Dram::new(&spec, 1).unwrap();
    dram.record_commands(true);
    (dram, sub, check_rules(&sub).unwrap())
}

fn line(dram: &Dram, bank_group: u8, row: u64, column: u16) -> Line {
    let bank = Bank { channel: 0, subchannel: 0, rank: 0, bank_group, bank: 0, row, column };
    dram.map().encode(&bank)
}

/// Q11 of verification.md §2.11: the sum, not a tolerance.
#[test]
fn an_unloaded_read_takes_the_documented_sum_whatever_its_bank_holds() {
    for (grade, bin) in [("ddr5-4800", "b"), ("ddr5-5600", "an"), ("ddr5-6400", "b")] {
        let set = [
            ("dram.grade", grade),
            ("dram.bin", bin),
            ("dram.refresh", "off"),
            ("dram.page_policy", "open"),
        ];
        let (mut dram, sub, rules) = bare(&set);
        let tck = sub.timing.tck();
        let mut run = RunChecker::new(Ps::ZERO, Ps::HORIZON);
        for (id, (row, find)) in
            [(1, Row::Closed), (1, Row::Hit), (2, Row::Conflict), (2, Row::Hit)]
                .into_iter()
                .enumerate()
        {
            // Long after one another, on a clock edge.
            let at = tck.times(1000 * (id as u64 + 1));
            let (id, line) = (id as u64, line(&dram, 3, row, id as u16));
            dram.enqueue(Request { id, line, kind: Kind::Read, at }).unwrap();
            let done = dram.next_completion().unwrap();
            run.unloaded(&rules, find, Ps::ZERO, done.at.since(at));
        }
        assert_eq!(run.witnesses("Q11"), 4);
        assert_eq!(run.violations(), [], "{grade} {bin}");
    }
}

/// Q12: what refresh leaves of the peak, to 1 %.
#[test]
fn a_stream_of_reads_reaches_what_refresh_leaves_and_never_more_than_the_peak() {
    for (grade, density) in [("ddr5-4800", "16Gb"), ("ddr5-5600", "8Gb"), ("ddr5-6400", "32Gb")] {
        let set = [
            ("dram.grade", grade),
            ("dram.density", density),
            ("dram.ranks", "1"),
            ("dram.refresh", "all-bank"),
            ("dram.refresh_postpone", "0"),
        ];
        let (mut dram, sub, rules) = bare(&set);
        let mut run = RunChecker::new(Ps::ZERO, Ps::HORIZON);
        let mut bytes = 0;
        let intervals = 30;
        let end = sub.timing.time(P::Refi).times(intervals);
        for n in 0u64.. {
            let line = line(&dram, (n % 8) as u8, n / 1024, (n / 8 % 128) as u16);
            dram.offer(Request { id: n, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
            while let Some(done) = dram.pop_completion() {
                bytes += if done.at <= end { 64 } else { 0 };
            }
            if dram.now() > end {
                break;
            }
        }
        run.streaming(&rules, bytes, end);
        run.bandwidth(&rules, 1, bytes, end);
        assert_eq!((run.witnesses("Q12"), run.witnesses("Q9")), (1, 1));
        assert_eq!(run.violations(), [], "{grade} {density}");
    }
}

/// Q15: posted writes are quick for whoever makes them, not for memory.
#[test]
fn clearing_takes_at_least_the_bursts_of_its_lines() {
    let (mut dram, _, rules) = bare(&[]);
    let mut run = RunChecker::new(Ps::ZERO, Ps::HORIZON);
    let lines = 4096;
    for id in 0..lines {
        dram.offer(Request { id, line: Line(id), kind: Kind::Write, at: Ps::ZERO }).unwrap();
    }
    run.cleared(&rules, lines, 2, dram.drain());
    assert_eq!(dram.stats().wrs + dram.stats().wras, lines);
    assert_eq!(run.violations(), []);
}
