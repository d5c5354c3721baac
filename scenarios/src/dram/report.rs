//! What a run on bare channels reports.

use super::latency::Bucket;
use super::{End, Pattern, PatternSettings, Settings};
use crate::platform::Platform;
use crate::replay::Place;
use crate::report::Verdict;
use crate::stats::{StatValue, Values};
use crate::trace::{AccessKind, Format};
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::outcome::DataClass;
use sim_core::{LINE_BYTES, Ps};
use std::fmt::{self, Display, Write as _};

/// Name and version of the JSON form.
pub const SCHEMA: &str = "tdxsim.dram/1";

/// What was run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Workload {
    /// A named pattern.
    Pattern {
        /// Which.
        pattern: Pattern,
        /// How many requests.
        requests: u64,
        /// Bytes from address 0 that they go to.
        footprint: u64,
        /// Clocks between two of them; 0 for a closed loop.
        gap: u64,
        /// In flight at most; 0 for as many as the queues take.
        outstanding: u64,
    },
    /// A trace.
    Trace {
        /// Its name.
        name: String,
        /// Its form.
        format: String,
        /// Records that were run.
        records: u64,
        /// In flight at most; 0 for as many as the queues take.
        outstanding: u64,
        /// Whether the trace ended in the middle of a record, which was allowed.
        truncated: bool,
    },
}

impl Workload {
    pub(super) const fn pattern(settings: &PatternSettings, gap: u64, outstanding: u64) -> Self {
        let PatternSettings { pattern, requests, footprint, .. } = *settings;
        Workload::Pattern { pattern, requests, footprint, gap, outstanding }
    }
    pub(super) fn trace(
        name: &str,
        format: Format,
        records: u64,
        outstanding: u64,
        truncated: bool,
    ) -> Self {
        let (name, format) = (name.to_owned(), format.to_string());
        Workload::Trace { name, format, records, outstanding, truncated }
    }
}

/// Latency of reads, from being taken by the queue to the last beat of data.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct LatencyReport {
    /// How many reads.
    pub reads: u64,
    /// Their mean, rounded down.
    pub mean_ps: u64,
    /// The shortest.
    pub min_ps: u64,
    /// Half of the reads took no longer.
    pub p50_ps: u64,
    /// Nine in ten.
    pub p90_ps: u64,
    /// 99 in a hundred.
    pub p99_ps: u64,
    /// 999 in a thousand.
    pub p999_ps: u64,
    /// The longest.
    pub max_ps: u64,
    /// How many took how long; buckets are at most a thirty-second of their latency wide.
    pub histogram: Vec<Bucket>,
}

/// One name and how many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CountOf {
    /// What.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What a run on bare channels reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct DramReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Seed of patterns, keys and power-on content.
    pub seed: u64,
    /// The platform.
    pub platform: String,
    /// The modelled kernel: none has a part in this.
    pub kernel: Option<String>,
    /// Pass when no poison was born, every count adds up and, where asked for, no command broke a rule of DDR5.
    pub verdict: Verdict,
    /// What was run.
    pub workload: Workload,
    /// The KeyID under which requests were made; none if TD bits, MACs and poison were left out.
    pub keyid: Option<u16>,
    /// Whether that is a TD's.
    pub td: bool,
    /// Packages.
    pub packages: u8,
    /// Channels of each package.
    pub channels: u8,
    /// The clock, in picoseconds.
    pub tck_ps: u64,
    /// Clocks until nothing was left to do.
    pub cycles: u64,
    /// The same in picoseconds.
    pub simulated_ps: u64,
    /// Bytes that RD and WR moved.
    pub bytes: u64,
    /// Bytes per second that they moved.
    pub bandwidth: u64,
    /// What the data buses could move.
    pub peak_bandwidth: u64,
    /// Bandwidth in ten-thousandths of the peak.
    pub peak_share_e4: u64,
    /// Latency of reads.
    pub latency: LatencyReport,
    /// Every counter; docs/generated/statistics.md defines them.
    pub statistics: Vec<StatValue>,
    /// Commands that the independent checker saw; none if it was not asked.
    pub commands_checked: Option<u64>,
    /// What it found.
    pub violations: Vec<String>,
    /// Why the run was cut short, if it was: what no command could get past.
    pub stopped: Option<String>,
    /// Counts that do not add up; empty unless the simulator is broken.
    pub broken: Vec<String>,
}

/// `a * b / c`, and 0 where that is not a number.
fn scaled(a: u64, b: u64, c: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    u64::try_from(product.checked_div(c.into()).unwrap_or(0)).unwrap_or(u64::MAX)
}

const PS_PER_SECOND: u64 = 1_000_000_000_000;

impl DramReport {
    pub(super) fn new(
        tool: String,
        platform: &Platform,
        settings: &Settings,
        workload: Workload,
        end: End,
        trace: Option<(u64, [u64; 4])>,
    ) -> DramReport {
        let spec = &platform.spec;
        let stopped = end.tally.stopped.clone();
        let drained = stopped.is_none() && !end.tally.end.is_horizon();
        let values = values(&end, trace);
        let mut broken = values.broken(drained);
        if let Err(imbalance) = end.dram.check_conservation() {
            broken.push(format!("dram: {imbalance}"));
        }
        let births = values.get("controller.births").unwrap_or(0);
        let verdict = match (broken.is_empty() && stopped.is_none(), drained, births) {
            (false, ..) => Verdict::Broken,
            (true, false, _) => Verdict::Undecided,
            (true, true, 0) => Verdict::Pass,
            (true, true, _) => Verdict::Fail,
        };
        let tck = super::dram_clock(spec);
        let simulated = end.tally.end;
        let line = LINE_BYTES as u64;
        let bytes = end.dram.stats().column_commands().saturating_mul(line);
        // A subchannel moves a line in the eight clocks of a burst (timing.md §2.1).
        let buses = u64::from(spec.cpu.packages) * u64::from(spec.dram.channels) * 2;
        let peak = scaled(buses * line / 8, PS_PER_SECOND, tck.0);
        let bandwidth = scaled(bytes, PS_PER_SECOND, simulated.0);
        let keyid = settings.integrity.map(|(Place::Host(keyid) | Place::Td(keyid))| keyid.0);
        DramReport {
            schema: SCHEMA,
            tool,
            seed: settings.seed,
            platform: spec.name.clone(),
            kernel: None,
            verdict,
            workload,
            keyid,
            td: matches!(settings.integrity, Some(Place::Td(_))),
            packages: spec.cpu.packages,
            channels: spec.dram.channels,
            tck_ps: tck.0,
            cycles: simulated.0.checked_div(tck.0).unwrap_or(0),
            simulated_ps: simulated.0,
            bytes,
            bandwidth,
            peak_bandwidth: peak,
            peak_share_e4: scaled(bandwidth, 10_000, peak),
            latency: latency(&end),
            statistics: values.rows(),
            commands_checked: None,
            violations: Vec::new(),
            stopped,
            broken,
        }
    }

    /// Adds what the checker of commands found: a violation is a fault of the simulator.
    pub fn checked(&mut self, commands: u64, violations: Vec<String>) {
        self.commands_checked = Some(commands);
        if !violations.is_empty() {
            self.verdict = Verdict::Broken;
        }
        self.violations = violations;
    }

    /// A counter of [`DramReport::statistics`]; 0 for one that this run has not.
    pub fn count(&self, name: &str) -> u64 {
        self.statistics.iter().find(|s| s.name == name).map_or(0, |s| s.value)
    }

    /// As comma-separated values: a name, a value and a unit to a line.
    pub fn csv(&self) -> String {
        let mut out = String::from("name,value,unit\n");
        let l = &self.latency;
        for (name, value, unit) in [
            ("cycles", self.cycles, "clocks"),
            ("simulated", self.simulated_ps, "ps"),
            ("bytes", self.bytes, "bytes"),
            ("bandwidth", self.bandwidth, "bytes/s"),
            ("peak_bandwidth", self.peak_bandwidth, "bytes/s"),
            ("peak_share", self.peak_share_e4, "1/10000"),
            ("latency.reads", l.reads, "requests"),
            ("latency.mean", l.mean_ps, "ps"),
            ("latency.min", l.min_ps, "ps"),
            ("latency.p50", l.p50_ps, "ps"),
            ("latency.p90", l.p90_ps, "ps"),
            ("latency.p99", l.p99_ps, "ps"),
            ("latency.p99.9", l.p999_ps, "ps"),
            ("latency.max", l.max_ps, "ps"),
        ] {
            let _ = writeln!(out, "{name},{value},{unit}");
        }
        for s in &self.statistics {
            let _ = writeln!(out, "{},{},{}", s.name, s.value, s.unit);
        }
        for b in &l.histogram {
            let _ = writeln!(out, "latency.from_{}_to_{},{},requests", b.from_ps, b.to_ps, b.reads);
        }
        out
    }
}

fn values(end: &End, trace: Option<(u64, [u64; 4])>) -> Values {
    let mut values = Values::default();
    let t = &end.tally;
    let [reads, writes, partial] = t.by_kind;
    for (name, value) in [
        ("run.offered", t.offered),
        ("run.accepted", t.accepted),
        ("run.reads", reads),
        ("run.writes", writes),
        ("run.partial_writes", partial),
        ("run.completed", t.completed),
        ("run.admission_wait", t.wait.0),
        ("run.admission_wait_max", t.wait_max.0),
        ("run.read_latency", t.latencies.sum().0),
        ("run.latency_samples", t.latencies.samples()),
    ] {
        values.set(name, value);
    }
    if t.recorded {
        values.set("run.commands_written", t.commands);
        values.set("run.commands_lost", t.commands_lost);
    }
    if let Some((records, kinds)) = trace {
        values.set("trace.records", records);
        for (name, kind) in [
            ("trace.fetches", AccessKind::Fetch),
            ("trace.loads", AccessKind::Load),
            ("trace.stores", AccessKind::Store),
            ("trace.modifies", AccessKind::Modify),
        ] {
            values.set(name, kinds.get(kind as usize).copied().unwrap_or(0));
        }
    }
    if let Some(integrity) = &end.integrity {
        let mut stats = *integrity.controller.stats();
        // What made the memory ready is no part of the run.
        stats.full_writes -= integrity.before.full_writes.min(stats.full_writes);
        values.take("controller", &stats);
        values.set("controller.births", integrity.trace.births().len() as u64);
        for (name, class) in [
            ("controller.class_plain", DataClass::Plain),
            ("controller.class_blocked", DataClass::Blocked),
            ("controller.class_garbage", DataClass::Garbage),
        ] {
            values.set(name, integrity.classes.get(class as usize).copied().unwrap_or(0));
        }
        values.set("controller.reads_poisoned", integrity.poisoned);
    }
    values.of_dram(&end.dram);
    values
}

fn latency(end: &End) -> LatencyReport {
    let all = &end.tally.latencies;
    let ps = |latency: Option<Ps>| latency.map_or(0, |l| l.0);
    LatencyReport {
        reads: all.samples(),
        mean_ps: all.sum().0.checked_div(all.samples()).unwrap_or(0),
        min_ps: ps(all.min()),
        p50_ps: ps(all.quantile(5_000)),
        p90_ps: ps(all.quantile(9_000)),
        p99_ps: ps(all.quantile(9_900)),
        p999_ps: ps(all.quantile(9_990)),
        max_ps: ps(all.max()),
        histogram: all.rows(),
    }
}

/// Gigabytes per second with two digits.
fn gigabytes(bytes_per_second: u64) -> String {
    let hundredths = bytes_per_second / 10_000_000;
    format!("{}.{:02} GB/s", hundredths / 100, hundredths % 100)
}

/// A share in per cent with one digit.
fn percent(part: u64, of: u64) -> String {
    let tenths = scaled(part, 1000, of);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Nanoseconds with one digit.
fn ns(ps: u64) -> String {
    format!("{}.{} ns", ps / 1000, ps % 1000 / 100)
}

impl Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outstanding = match self {
            Workload::Pattern { pattern, requests, footprint, gap, outstanding } => {
                let (unit, name) = match footprint {
                    n if n.is_multiple_of(1 << 30) => (1 << 30, "GiB"),
                    n if n.is_multiple_of(1 << 20) => (1 << 20, "MiB"),
                    n if n.is_multiple_of(1 << 10) => (1 << 10, "KiB"),
                    _ => (1, "bytes"),
                };
                write!(f, "{pattern}: {requests} requests over {} {name}", footprint / unit)?;
                if *gap > 0 {
                    write!(f, ", one every {gap} clocks")?;
                }
                *outstanding
            }
            Workload::Trace { name, format, records, outstanding, truncated } => {
                write!(f, "{name} ({format}): {records} records")?;
                if *truncated {
                    write!(f, ", cut short")?;
                }
                *outstanding
            }
        };
        match outstanding {
            0 => Ok(()),
            n => write!(f, ", {n} in flight at most"),
        }
    }
}

impl Display for DramReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.workload)?;
        let channels = match (self.packages, self.channels) {
            (1, 1) => "one channel".to_owned(),
            (1, n) => format!("{n} channels"),
            (p, n) => format!("{p} packages of {n} channels"),
        };
        let keyid = match (self.keyid, self.td) {
            (None, _) => "no integrity metadata".to_owned(),
            (Some(keyid), false) => format!("on the host, KeyID {keyid}"),
            (Some(keyid), true) => format!("in a TD, HKID {keyid}"),
        };
        writeln!(
            f,
            "  platform {}, {channels}, clock {}, {keyid}",
            self.platform,
            Ps(self.tck_ps)
        )?;
        let cell = |f: &mut fmt::Formatter<'_>, name: &str, value: u64, more: &str| {
            writeln!(f, "{}", format!("  {name:28} {value:>14}  {more}").trim_end())
        };
        let n = |name| self.count(name);
        cell(f, "cycles", self.cycles, &Ps(self.simulated_ps).to_string())?;
        cell(f, "requests in", n("run.accepted"), "")?;
        cell(f, "requests out", n("run.completed"), "")?;
        let peak = gigabytes(self.peak_bandwidth);
        let share = percent(self.bandwidth, self.peak_bandwidth);
        writeln!(f, "  {:28} {:>14}  {share} of {peak}", "bandwidth", gigabytes(self.bandwidth))?;
        let columns = self.bytes / LINE_BYTES as u64;
        for (label, name) in [
            ("row hits", "dram.row_hits"),
            ("row misses", "dram.row_misses"),
            ("row conflicts", "dram.row_conflicts"),
        ] {
            cell(f, label, n(name), &percent(n(name), columns))?;
        }
        self.fmt_latency(f)?;
        self.fmt_queues(f)?;
        writeln!(f, "  counters that are not zero")?;
        for s in self.statistics.iter().filter(|s| s.value > 0) {
            writeln!(f, "    {:38} {:>16} {}", s.name, s.value, s.unit)?;
        }
        if let Some(commands) = self.commands_checked {
            writeln!(f, "  {commands} commands checked, {} violations", self.violations.len())?;
        }
        for line in &self.violations {
            writeln!(f, "  VIOLATION: {line}")?;
        }
        if let Some(stopped) = &self.stopped {
            writeln!(f, "  STOPPED: {stopped}")?;
        }
        if self.verdict == Verdict::Undecided {
            writeln!(f, "  SIMULATED TIME RAN OUT: the rest was not run")?;
        }
        match n("controller.births") {
            0 => {}
            births => writeln!(f, "  POISON WAS BORN {births} TIMES")?,
        }
        for line in &self.broken {
            writeln!(f, "  BROKEN: {line}")?;
        }
        Ok(())
    }
}

impl DramReport {
    fn fmt_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l = &self.latency;
        if l.reads == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "  read latency: mean {}, least {}, most {}; 50 % {}, 90 % {}, 99 % {}, 99.9 % {}",
            ns(l.mean_ps),
            ns(l.min_ps),
            ns(l.max_ps),
            ns(l.p50_ps),
            ns(l.p90_ps),
            ns(l.p99_ps),
            ns(l.p999_ps)
        )?;
        for b in self.coarse() {
            let bar = scaled(b.reads, 40, l.reads) as usize;
            let (from, to) = (ns(b.from_ps), ns(b.to_ps));
            let share = percent(b.reads, l.reads);
            let bar = "#".repeat(bar);
            let row = format!("    {from:>11} to {to:>11} {:>14} {share:>8}  {bar}", b.reads);
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }

    /// How long the queues were, over the whole run and all subchannels.
    fn fmt_queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buses = u64::from(self.packages) * u64::from(self.channels) * 2;
        let span = self.cycles.saturating_mul(buses);
        let mean = |name| {
            let hundredths = scaled(self.count(name), 100, span);
            format!("{}.{:02}", hundredths / 100, hundredths % 100)
        };
        writeln!(
            f,
            "  mean queue lengths: {} reads, {} writes in a subchannel",
            mean("dram.read_queue_clocks"),
            mean("dram.write_queue_clocks")
        )
    }

    /// The histogram with two rows to a power of two.
    fn coarse(&self) -> Vec<Bucket> {
        let mut rows: Vec<Bucket> = Vec::new();
        for b in &self.latency.histogram {
            let octave = 1u64 << b.from_ps.max(1).ilog2();
            let half = octave / 2;
            let (from_ps, to_ps) = if b.from_ps >= octave + half {
                (octave + half, octave * 2)
            } else {
                (octave, octave + half)
            };
            match rows.last_mut() {
                Some(last) if last.from_ps == from_ps => last.reads += b.reads,
                _ => rows.push(Bucket { from_ps, to_ps, reads: b.reads }),
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Drive, Tally};
    use super::*;
    use crate::platform::{Origin, load};
    use mktme::dram::{Dram, Kind, Request};
    use sim_core::Line;

    const SETTINGS: Settings =
        Settings { integrity: None, seed: 0, every_edge: false, outstanding: None };

    /// The report of a run that ended with this tally, one read having been taken and not answered.
    fn cut_short(stopped: Option<&str>, end: Ps) -> DramReport {
        let platform = load(&Origin::Preset("spr".to_owned()), &[]).unwrap();
        let mut dram = Dram::new(&platform.spec.dram, 1).unwrap();
        let request = Request { id: 0, line: Line(0), kind: Kind::Read, at: Ps::ZERO };
        dram.enqueue(request).unwrap();
        let stopped = stopped.map(str::to_owned);
        let tally =
            Tally { offered: 1, accepted: 1, by_kind: [1, 0, 0], end, stopped, ..Tally::default() };
        let workload = Workload::Trace {
            name: "t".to_owned(),
            format: "f".to_owned(),
            records: 1,
            outstanding: 0,
            truncated: false,
        };
        let end = End { dram, integrity: None, tally };
        DramReport::new("test".to_owned(), &platform, &SETTINGS, workload, end, None)
    }

    #[test]
    fn a_run_that_the_watchdog_stopped_is_broken_and_names_what_blocked_it() {
        let report = cut_short(Some("bank 5: PRE blocked by tWR until 12345"), Ps(1000));
        assert_eq!(report.verdict, Verdict::Broken);
        let text = report.to_string();
        assert!(text.contains("  STOPPED: bank 5: PRE blocked by tWR until 12345\n"), "{text}");
        // What is in flight is no rule broken: the run says why it is there.
        assert_eq!(report.broken, [""; 0]);
    }

    #[test]
    fn a_request_that_is_left_without_a_reason_is_a_broken_rule() {
        let report = cut_short(None, Ps(1000));
        assert_eq!(report.verdict, Verdict::Broken);
        assert!(report.broken.iter().any(|b| b.starts_with("nothing is left in flight: ")));
        assert!(report.broken.iter().any(|b| b.starts_with("accepted is completed: ")));
    }

    #[test]
    fn a_command_that_breaks_a_rule_of_ddr5_breaks_the_run() {
        let mut report = cut_short(None, Ps::HORIZON);
        report.checked(7, Vec::new());
        assert_eq!((report.verdict, report.commands_checked), (Verdict::Undecided, Some(7)));
        report.checked(7, vec!["tRCD".to_owned()]);
        assert_eq!(report.verdict, Verdict::Broken);
        assert!(report.to_string().contains("  VIOLATION: tRCD\n"));
    }

    #[test]
    fn a_run_for_which_time_ran_out_is_undecided() {
        let report = cut_short(None, Ps::HORIZON);
        assert_eq!((report.verdict, report.broken.len()), (Verdict::Undecided, 0));
    }

    #[test]
    fn requests_that_wait_while_nothing_will_happen_stop_the_run() {
        let platform = load(&Origin::Preset("spr".to_owned()), &[]).unwrap();
        let mut drive = Drive {
            dram: Dram::new(&platform.spec.dram, 1).unwrap(),
            integrity: None,
            outstanding: 1,
            sinks: Vec::new(),
            progress: &mut |_| (),
            // A request that DRAM knows nothing of is said to be in flight: its answer never comes.
            tally: Tally { accepted: 1, ..Tally::default() },
            idle_steps: 0,
        };
        let mut source = super::super::PatternRequests::new(Pattern::Chain, 3, 8, 0, Ps::ZERO);
        drive.run(&mut source).unwrap();
        assert_eq!(drive.tally.stopped.as_deref(), Some("requests wait and nothing will happen"));
    }
}
