//! The experiments of `tdxsim validate`.

use super::{Bench, Experiment, Point, Results, Row, Standing, ValidateError};
use crate::run::linux;
use machine::{
    AgentId, AgentKind, AgentSpec, CryptoKind, Level, Machine, Options, Speed, StreamKind,
    StreamOp, StreamStats,
};
use mktme::dram::{Dram, Kind, Request, timing::Parameter};
use sim_core::op::{Op, Value};
use sim_core::{Addr, Hpa, KeyId, LINE_BYTES, Line, PlatformSpec, Ps, prng};
use std::cell::Cell;

/// Everything that is measured, in the order of the page.
pub const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "idle-latency",
        how: "One core follows a chain of dependent loads, each to another line, through a footprint that one level answers. \
              The lines of other cores are spread over 31 cores of the package.",
        run: idle_latency,
    },
    Experiment {
        name: "sum-of-parts",
        how: "One load of a line in a closed row, on an idle machine, arriving at an edge of the controller's clock: its \
              latency is the documented sum of mesh, home agent, controller, tRCD + CL + BL/2 and decryption, to the picosecond.",
        run: sum_of_parts,
    },
    Experiment {
        name: "alias",
        how: "A core loads lines under KeyID 0 that nobody else holds, that another core holds clean under KeyID 1, or modified. \
              The snoop filter knows no KeyIDs, so the other core is asked in vain (verification.md C13).",
        run: alias,
    },
    Experiment {
        name: "encryption",
        how: "The same lone loads of the same lines, far apart in time and without refresh: KeyID 0 in the clear, KeyID 0 \
              encrypted, a TD's KeyID in Li, a TD's KeyID in Ci. Only the configured latency is added, and no command at the DRAM.",
        run: encryption,
    },
    Experiment {
        name: "partial-write",
        how: "One MOVNTI of 8 bytes and SFENCE on an idle machine: the write misses the write queue, so the rest of the line is \
              read first (timing.md §1.4, underfill read).",
        run: partial_write,
    },
    Experiment {
        name: "single-thread",
        how: "One core loads random lines of 1 GiB, independent of each other; then the same with a prefetch 40 lines ahead of each \
              load. Bandwidth follows from latency and the number of fill buffers, or superqueue entries.",
        run: single_thread,
    },
    Experiment {
        name: "bandwidth-by-mix",
        how: "32 cores stream through their own memory, a line at a time: loads only; two loads and a store; a load and a store; stores \
              only. A store reads its line for ownership and writes it back later, so that the controllers see reads and writes as 1:0, \
              3:1, 2:1 and 1:1. Caches are made small (L2 128 KiB, LLC 1.875 MiB) so that write-backs begin soon.",
        run: bandwidth_by_mix,
    },
    Experiment {
        name: "loaded-latency",
        how: "One core follows a chain of dependent random loads while 31 others prefetch random lines into L2, with fewer and fewer \
              instructions between two prefetches. The curve is latency (ns) over bandwidth (GB/s).",
        run: loaded_latency,
    },
    Experiment {
        name: "direct-store",
        how: "One core clears memory with MOVDIR64B: 512 different pages, an MFENCE behind each (tdx_clear_page); then one 4 KiB \
              buffer again and again without fences.",
        run: direct_store,
    },
    Experiment {
        name: "refresh-limited",
        how: "One bare channel is read line after line, as fast as it takes requests, over many refresh intervals.",
        run: refresh_limited,
    },
];

/// Address of the first line that experiments use: 4 GiB.
const BASE: u64 = 1 << 32;

fn line(n: u64) -> Addr {
    Addr::new(Hpa(BASE + n * LINE_BYTES as u64), KeyId::TME)
}

/// Number `i` of a walk that meets each of the first `2^bits` numbers once, without order.
fn scattered(i: u64, bits: u32) -> u64 {
    // An odd factor permutes the residues of a power of two; the shifted sum breaks up its stride.
    let i = i & ((1 << bits) - 1);
    let swapped = i ^ i >> (bits / 2 + 1);
    swapped.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << bits) - 1)
}

/// A line of 1 GiB by a hash of `i`.
fn random(i: u64, salt: u64) -> Addr {
    line(prng::mix(salt, i, 0) >> (64 - 24))
}

/// A timed machine with one kernel agent per core.
fn machine(spec: &PlatformSpec) -> Result<(Machine, Vec<AgentId>), ValidateError> {
    let options =
        Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 0, log: false };
    let mut machine = Machine::new(spec, options)?;
    let agents = (0..spec.cpu.cores)
        .map(|core| {
            let (kind, keyid) = (AgentKind::Kernel, KeyId::TME);
            machine.add_agent(AgentSpec {
                name: format!("cpu{core}"),
                kind,
                core,
                keyid,
                vcpu: None,
            })
        })
        .collect();
    Ok((machine, agents))
}

/// Runs one stream alone.
fn alone(m: &mut Machine, agent: AgentId, ops: impl Iterator<Item = StreamOp>) -> StreamStats {
    let mut ops = ops.fuse();
    let mut os = linux(&m.spec().clone());
    let mut streams = [(agent, move || ops.next())];
    m.run_streams(&mut streams, &mut os).first().copied().unwrap_or_default()
}

/// The same without the time it takes: only where the lines are afterwards counts.
fn prepare(m: &mut Machine, agent: AgentId, ops: impl Iterator<Item = StreamOp>) {
    m.set_speed(Speed::Functional);
    alone(m, agent, ops);
    m.set_speed(Speed::Timed);
}

fn op(kind: StreamKind, at: Addr) -> StreamOp {
    StreamOp::new(kind, at)
}
fn dependent(at: Addr) -> StreamOp {
    StreamOp { after: 1, ..StreamOp::new(StreamKind::Load, at) }
}

/// Mean latency of a chain of loads, in picoseconds.
fn chain(m: &mut Machine, agent: AgentId, lines: impl Iterator<Item = Addr>) -> u64 {
    let stats = alone(m, agent, lines.map(dependent));
    stats.load_latency.0 / stats.loads.max(1)
}

/// A share of a number, in thousandths of it.
const fn share(n: u64, per_mille: u64) -> u64 {
    n * per_mille / 1000
}

const TMA: &str = "timing.md §1.2 [V] TMA constant";

fn idle_latency(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[("cpu.cores", "32")])?;
    let mut add = |what: &str, measured, least, most, source, standing| {
        let (experiment, what) = ("idle-latency", what.to_owned());
        out.rows.push(Row {
            experiment,
            what,
            unit: "ns",
            measured,
            least,
            most,
            source,
            standing,
        });
    };
    let within = |target: u64| (share(target, 850), share(target, 1150));
    for (what, bits, count, target) in [
        ("L1D hit", 8, 2000, spec.cpu.core_clock.cycles(5).0),
        ("L2 hit", 14, 4000, 4_400),
        ("LLC hit", 18, 8000, 37_000),
    ] {
        let (mut m, agents) = machine(&spec)?;
        let Some(&agent) = agents.first() else { continue };
        for _ in 0..2 {
            let walk = (0..1 << bits).map(|i| op(StreamKind::Load, line(scattered(i, bits))));
            prepare(&mut m, agent, walk);
        }
        let measured = chain(&mut m, agent, (0..count).map(|i| line(scattered(i, bits))));
        let (least, most) = if bits == 8 { (target, target) } else { within(target) };
        let source = if bits == 8 { "timing.md §1.2 [R] 5 c" } else { TMA };
        add(what, measured, least, most, source, Standing::Fitted);
    }
    for (what, kind, target) in [
        ("another core's clean line", StreamKind::Load, 79_000),
        ("another core's modified line", StreamKind::Store, 81_000),
    ] {
        let (mut m, agents) = machine(&spec)?;
        let (Some(&agent), others) = (agents.first(), agents.get(1..).unwrap_or_default()) else {
            continue;
        };
        let count = others.len() as u64;
        for (i, &other) in (0u64..).zip(others) {
            let mine = (0..1 << 13).filter(|n| n % count == i);
            prepare(&mut m, other, mine.map(|n| op(kind, line(scattered(n, 13)))));
        }
        let measured = chain(&mut m, agent, (0..4000).map(|i| line(scattered(i, 13))));
        let (least, most) = within(target);
        add(what, measured, least, most, TMA, Standing::Fitted);
    }
    let (mut m, agents) = machine(&spec)?;
    if let Some(&agent) = agents.first() {
        let measured = chain(&mut m, agent, (0..8000).map(|i| random(i, 1)));
        let source = "timing.md §1.2 [V] MLC 95 to 97, TMA 109; §1.2 Mess 85 to 130";
        add("local DRAM", measured, 90_000, 115_000, source, Standing::Fitted);
    }
    let two = bench.platform(&[("cpu.cores", "32"), ("cpu.packages", "2")])?;
    let (mut m, agents) = machine(&two)?;
    if let (Some(&agent), Some(&far)) = (agents.first(), agents.last()) {
        // Memory is local and remote by the GiB: the second one is the other package's.
        let remote = (0..4000).map(|i| random(i, 2)).map(|a| {
            let gib = a.hpa.0 >> 30 & !1 | 1;
            Addr::new(Hpa(gib << 30 | a.hpa.0 & ((1 << 30) - 1)), a.keyid)
        });
        let measured = chain(&mut m, agent, remote);
        let (least, most) = within(190_000);
        add("DRAM of another package", measured, least, most, TMA, Standing::Fitted);
        prepare(&mut m, far, (0..1 << 12).map(|i| op(StreamKind::Store, line(i))));
        let measured = chain(&mut m, agent, (0..4000).map(|i| line(scattered(i, 12))));
        let (least, most) = within(170_000);
        add("cache of another package", measured, least, most, TMA, Standing::Predicted);
    }
    Ok(())
}

/// So many loads, each alone: so far apart that nothing is left of the one before, at edges of the controller's clock.
fn lone_loads(
    m: &mut Machine,
    agent: AgentId,
    keyid: KeyId,
    count: u64,
    tck: Ps,
) -> (u64, StreamStats) {
    let from = m.now().0 / tck.0 + 10_000;
    let ops = (0..count).map(|i| {
        let at = Addr::new(random(i, 3).hpa, keyid);
        StreamOp { not_before: tck.times(from + i * 5_000), ..op(StreamKind::Load, at) }
    });
    let stats = alone(m, agent, ops);
    (stats.load_latency.0 / stats.loads.max(1), stats)
}

fn sum_of_parts(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[("dram.refresh", "off"), ("dram.page_policy", "closed")])?;
    let (mut m, agents) = machine(&spec)?;
    let Some(&agent) = agents.first() else { return Ok(()) };
    let tck = crate::dram::dram_clock(&spec);
    let count = 1000;
    let expected: u64 = (0..count)
        .map(|i| m.idle_latency(0, random(i, 3).tagged(), Level::Memory, 0).0)
        .map(|outside| outside + m.unloaded_dram_read().0)
        .sum();
    let (measured, _) = lone_loads(&mut m, agent, KeyId::TME, count, tck);
    out.rows.push(Row {
        experiment: "sum-of-parts",
        what: "mean of 1000 lone loads, each from a closed row".to_owned(),
        unit: "ns",
        measured,
        least: expected / count,
        most: expected / count,
        source: "verification.md Q11",
        standing: Standing::Exact,
    });
    Ok(())
}

fn alias(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[("dram.refresh", "off")])?;
    let shared = KeyId(1);
    let mut last = 0;
    for (what, prepared) in [
        ("nobody else holds the line", None),
        ("another core holds it clean under KeyID 1", Some(StreamKind::Load)),
        ("another core holds it modified under KeyID 1", Some(StreamKind::Store)),
    ] {
        let (mut m, agents) = machine(&spec)?;
        let (Some(&agent), Some(&other)) = (agents.first(), agents.get(1)) else { return Ok(()) };
        let mut os = linux(&spec);
        let cmd = sim_core::op::PconfigCmd::SetRandom;
        m.execute(agent, &Op::Pconfig { keyid: shared, cmd, alg: None }, 0, &mut os);
        if let Some(kind) = prepared {
            let held = (0..1000).map(|i| op(kind, Addr::new(random(i, 3).hpa, shared)));
            prepare(&mut m, other, held);
        }
        let tck = crate::dram::dram_clock(&spec);
        let (measured, _) = lone_loads(&mut m, agent, KeyId::TME, 1000, tck);
        out.rows.push(Row {
            experiment: "alias",
            what: what.to_owned(),
            unit: "ns",
            measured,
            least: last + 1,
            most: u64::MAX,
            source: "verification.md C13: larger than the row before",
            standing: Standing::Exact,
        });
        last = measured;
    }
    Ok(())
}

fn encryption(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let mut last = None;
    for (what, bypass, mode, private) in [
        ("KeyID 0, TME bypassed", "true", "ci", false),
        ("KeyID 0, XTS", "false", "ci", false),
        ("a TD's KeyID, Li", "false", "li", true),
        ("a TD's KeyID, Ci", "false", "ci", true),
    ] {
        let spec = bench.platform(&[
            ("dram.refresh", "off"),
            ("memory.tme_bypass", bypass),
            ("memory.integrity", mode),
        ])?;
        let (mut m, agents) = machine(&spec)?;
        let Some(&host) = agents.first() else { return Ok(()) };
        let keyid = spec.keyid.private(0).filter(|_| private).unwrap_or(KeyId::TME);
        let kind = if private { AgentKind::Td } else { AgentKind::Kernel };
        let name = "program".to_owned();
        let agent = m.add_agent(AgentSpec { name, kind, core: 0, keyid, vcpu: None });
        let name = "module".to_owned();
        let seam = AgentKind::Seam;
        let module = m.add_agent(AgentSpec { name, kind: seam, core: 0, keyid, vcpu: None });
        let mut os = linux(&spec);
        m.set_speed(Speed::Functional);
        for i in 0..500 {
            let page = random(i, 3).hpa.page().hpa();
            m.execute(module, &Op::Movdir64bPage { at: Addr::new(page, keyid) }, 0, &mut os);
        }
        m.execute(host, &Op::Mfence, 0, &mut os);
        m.set_speed(Speed::Timed);
        let before = m.dram().stats();
        let tck = crate::dram::dram_clock(&spec);
        let (measured, _) = lone_loads(&mut m, agent, keyid, 500, tck);
        let after = m.dram().stats();
        let commands = after.rds + after.rdas + after.wrs + after.wras
            - (before.rds + before.rdas + before.wrs + before.wras);
        let mut row = |what: String, unit, measured, expected, source| {
            let (experiment, standing) = ("encryption", Standing::Exact);
            let (least, most) = (expected, expected);
            out.rows.push(Row { experiment, what, unit, measured, least, most, source, standing });
        };
        if let Some((latency, _)) = last {
            let added: u64 = match what {
                "KeyID 0, XTS" => spec.latency.xts.0,
                "a TD's KeyID, Ci" => spec.latency.mac.0,
                _ => 0,
            };
            let source = "platform: latency.xts, latency.mac; verification.md Q15";
            row(format!("{what}: latency added"), "ns", measured - latency, added, source);
        }
        let source = "timing.md §3 bandwidth adder: none";
        row(
            format!("{what}: column commands for 500 loads"),
            "1",
            commands * 1000,
            500_000,
            source,
        );
        last = Some((measured, commands));
    }
    Ok(())
}

fn partial_write(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[])?;
    let (mut m, agents) = machine(&spec)?;
    let Some(&agent) = agents.first() else { return Ok(()) };
    let mut os = linux(&spec);
    let store = Op::NtStore { at: line(5), bytes: 8, value: Value::Fill(1) };
    m.execute(agent, &store, 0, &mut os);
    m.execute(agent, &Op::Sfence, 0, &mut os);
    m.settle();
    let s = m.dram().stats();
    for (what, measured) in [("RD commands", s.rds + s.rdas), ("WR commands", s.wrs + s.wras)] {
        out.rows.push(Row {
            experiment: "partial-write",
            what: what.to_owned(),
            unit: "1",
            measured: measured * 1000,
            least: 1000,
            most: 1000,
            source: "timing.md §1.4 underfill reads",
            standing: Standing::Exact,
        });
    }
    Ok(())
}

/// Thousandths of GB/s: bytes per picosecond, times 10^6.
const fn bandwidth(bytes: u64, time: Ps) -> u64 {
    let time = if time.0 == 0 { 1 } else { time.0 };
    (bytes as u128 * 1_000_000 / time as u128) as u64
}

fn single_thread(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[])?;
    let loads = 10_000;
    for (what, ahead, least, most, source) in [
        (
            "random loads",
            0,
            7_500,
            10_600,
            "timing.md §1.3 [D]: at most 16 fill buffers x 64 B / 97 ns = 10.6",
        ),
        (
            "random loads, prefetched into L2",
            40,
            15_000,
            31_700,
            "timing.md §1.3 [D]: at most 48 superqueue entries x 64 B / 97 ns = 31.7",
        ),
    ] {
        let (mut m, agents) = machine(&spec)?;
        let Some(&agent) = agents.first() else { return Ok(()) };
        let ops = (0..loads).flat_map(|i| {
            let prefetch = (ahead > 0).then(|| op(StreamKind::Prefetch, random(i + ahead, 4)));
            prefetch.into_iter().chain([op(StreamKind::Load, random(i, 4))])
        });
        let stats = alone(&mut m, agent, ops);
        out.rows.push(Row {
            experiment: "single-thread",
            what: what.to_owned(),
            unit: "GB/s",
            measured: bandwidth(loads * LINE_BYTES as u64, stats.end.since(stats.begin)),
            least,
            most,
            source,
            standing: Standing::Predicted,
        });
    }
    Ok(())
}

/// What a line of a stream is for.
const MIXES: [(&str, &[StreamKind], u64); 4] = {
    use StreamKind::{Load, Store};
    [
        ("reads only", &[Load], 800),
        ("3 reads : 1 write", &[Load, Load, Store], 700),
        ("2 reads : 1 write", &[Load, Store], 690),
        ("1 read : 1 write", &[Store], 650),
    ]
};

fn peak(spec: &PlatformSpec) -> u64 {
    // Two subchannels of 32 bits: 8 bytes a transfer, nominal rate (timing.md §1.1).
    let rate: u64 = machine::controller_clock(spec).mhz * 2;
    rate * 8 * u64::from(spec.dram.channels)
}

fn bandwidth_by_mix(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[
        ("cpu.cores", "32"),
        ("cpu.l2.size", "128KiB"),
        ("cpu.llc.size", "1920KiB"),
        ("cpu.llc.ways", "15"),
        ("cpu.llc_slices", "32"),
        ("cpu.flush_sub_blocks", "32"),
    ])?;
    let mut last = u64::MAX;
    for (what, kinds, target) in MIXES {
        let (mut m, agents) = machine(&spec)?;
        let phase = |m: &mut Machine, from: u64, count: u64| -> Vec<StreamStats> {
            let mut streams: Vec<_> = (0u64..)
                .zip(&agents)
                .map(|(core, &agent)| {
                    let mut next = from;
                    let source = move || {
                        let i = next;
                        next += 1;
                        let kind = *kinds.get(i as usize % kinds.len())?;
                        // 64 MiB of its own, begun where no other core begins.
                        let n = (i + core * 4099) & ((1 << 20) - 1);
                        (i < from + count).then(|| op(kind, line(core << 20 | n)))
                    };
                    (agent, source)
                })
                .collect();
            m.run_streams(&mut streams, &mut linux(&spec))
        };
        // Until the caches are full of lines to be written back.
        phase(&mut m, 0, 5_000);
        let before = m.dram().stats();
        let stats = phase(&mut m, 5_000, 5_000);
        let after = m.dram().stats();
        let begin = stats.iter().map(|s| s.begin).min().unwrap_or_default();
        let end = stats.iter().map(|s| s.end).max().unwrap_or_default();
        let moved = after.rds + after.rdas + after.wrs + after.wras
            - (before.rds + before.rdas + before.wrs + before.wras);
        let got = bandwidth(moved * LINE_BYTES as u64, end.since(begin));
        let measured = got * 1000 / peak(&spec).max(1) * 100;
        let experiment = "bandwidth-by-mix";
        out.rows.push(Row {
            experiment,
            what: format!("{what} ({} GB/s)", super::thousandths(got / 100 * 100)),
            unit: "% of peak",
            measured,
            least: (target - 80) * 100,
            most: (target + 80) * 100,
            source: "timing.md §1.3 [V] MLC, [D] per socket, within 8 points",
            standing: Standing::Fitted,
        });
        out.rows.push(Row {
            experiment,
            what: format!("{what}: not above the row before"),
            unit: "% of peak",
            measured,
            least: 0,
            most: last,
            source: "timing.md §1.3 [V] MLC: the order",
            standing: Standing::Fitted,
        });
        last = measured;
    }
    Ok(())
}

/// The operations of a core, whatever makes them.
type Operations<'a> = Box<dyn FnMut() -> Option<StreamOp> + 'a>;

fn loaded_latency(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[("cpu.cores", "32")])?;
    let mut curve: Vec<(u64, u64)> = Vec::new();
    for gap in [511, 255, 191, 159, 143, 127, 119, 113, 108, 104, 100, 96, 92, 88, 80, 63] {
        let (mut m, agents) = machine(&spec)?;
        let done = Cell::new(false);
        let probes = 400;
        let mut streams: Vec<(AgentId, Operations<'_>)> = Vec::new();
        for (core, &agent) in (0u64..).zip(&agents) {
            let mut i = 0u64;
            let done = &done;
            streams.push(if core == 0 {
                let probe = move || {
                    i += 1;
                    done.set(i > probes);
                    (i <= probes).then(|| dependent(random(i, 5)))
                };
                (agent, Box::new(probe))
            } else {
                let load = move || {
                    i += 1;
                    let at = random(i, 6 + core);
                    // The first loads of the cores do not come together.
                    let gap = if i == 1 { (gap as u64 * core / 32) as u32 } else { gap };
                    (!done.get()).then(|| StreamOp { gap, ..op(StreamKind::Prefetch, at) })
                };
                (agent, Box::new(load))
            });
        }
        let stats = m.run_streams(&mut streams, &mut linux(&spec));
        let Some(probe) = stats.first() else { continue };
        let s = m.dram().stats();
        let got = bandwidth((s.rds + s.rdas) * LINE_BYTES as u64, probe.end.since(probe.begin));
        let latency = probe.load_latency.0 / probe.loads.max(1);
        curve.push((got, latency));
        out.points.push(Point {
            curve: "loaded-latency",
            x_name: "bandwidth (GB/s)",
            x: got,
            y_name: "latency of a dependent load (ns)",
            y: latency,
        });
    }
    let experiment = "loaded-latency";
    let idle = curve.iter().map(|p| p.1).min().unwrap_or(1).max(1);
    let most = curve.iter().map(|p| p.0).max().unwrap_or(0);
    let near = curve.iter().filter(|p| p.0 * 100 >= most * 95).map(|p| p.1).min().unwrap_or(0);
    out.rows.push(Row {
        experiment,
        what: "bandwidth at saturation".to_owned(),
        unit: "% of peak",
        measured: most * 1000 / peak(&spec).max(1) * 100,
        least: 70_000,
        most: 92_000,
        source: "timing.md §1.3 [D]: saturation at 70 to 92 % of peak",
        standing: Standing::Predicted,
    });
    out.rows.push(Row {
        experiment,
        what: "latency where 95 % of that flows, over idle latency".to_owned(),
        unit: "1",
        measured: near * 1000 / idle,
        least: 1_500,
        most: 2_500,
        source: "timing.md §1.3 [D]: about twice idle near saturation",
        standing: Standing::Predicted,
    });
    Ok(())
}

fn direct_store(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[])?;
    let mut row = |what: &str, measured, least, most, source| {
        let (experiment, what) = ("direct-store", what.to_owned());
        let (unit, standing) = ("GB/s", Standing::Fitted);
        out.rows.push(Row { experiment, what, unit, measured, least, most, source, standing });
    };
    let (mut m, agents) = machine(&spec)?;
    let Some(&agent) = agents.first() else { return Ok(()) };
    let pages = 512u64;
    let cold = (0..pages).flat_map(|page| {
        let lines = (0..64).map(move |i| op(StreamKind::DirectStore, line(page * 64 + i)));
        lines.chain([op(StreamKind::Mfence, line(0))])
    });
    let stats = alone(&mut m, agent, cold);
    let got = bandwidth(pages * 4096, stats.end.since(stats.begin));
    let source = "timing.md §5.2 [D] 2.0 to 2.3 GB/s of two mails; §6";
    row("cold pages, a fence behind each", got, 1_500, 3_000, source);
    let warm = (0..200 * 64).map(|i| op(StreamKind::DirectStore, line((1 << 20) + i % 64)));
    let stats = alone(&mut m, agent, warm);
    let got = bandwidth(200 * 4096, stats.end.since(stats.begin));
    row("one 4 KiB buffer, no fence", got, 4_400, 8_600, "timing.md §4.1 [D] client parts");
    Ok(())
}

fn refresh_limited(bench: &Bench, out: &mut Results) -> Result<(), ValidateError> {
    let spec = bench.platform(&[
        ("dram.channels", "1"),
        ("dram.ranks", "1"),
        ("dram.page_policy", "open"),
        ("dram.refresh", "all-bank"),
        ("dram.refresh_postpone", "0"),
    ])?;
    let mut dram = Dram::new(&spec.dram, 1)?;
    let (mut next, mut done, count) = (0u64, 0u64, 300_000u64);
    let mut now = Ps::ZERO;
    while done < count {
        while next < count {
            let request = Request { id: next, line: Line(next), kind: Kind::Read, at: now };
            if !dram.can_accept(request.line, request.kind) || dram.enqueue(request).is_err() {
                break;
            }
            next += 1;
        }
        let Some(at) = dram.next_event() else { break };
        dram.advance(at);
        now = at;
        while dram.pop_completion().is_some() {
            done += 1;
        }
    }
    let t = mktme::dram::Timing::of(&spec.dram).map_err(mktme::dram::SpecError::from)?;
    let lost = [Parameter::Rtp, Parameter::Rp, Parameter::Rfc, Parameter::Rcd];
    let lost: u64 = lost.iter().map(|p| t.time(*p).0).sum();
    let refi = t.time(Parameter::Refi).0;
    // Two subchannels, 64 bytes in BL/2 clocks each.
    let peak = bandwidth(2 * LINE_BYTES as u64, t.time(Parameter::HalfBurst));
    let expected = (peak as u128 * (refi - lost) as u128 / refi as u128) as u64;
    out.rows.push(Row {
        experiment: "refresh-limited",
        what: format!(
            "sequential reads of one channel ({} GB/s at peak)",
            super::thousandths(peak)
        ),
        unit: "GB/s",
        measured: bandwidth(done * LINE_BYTES as u64, now),
        least: share(expected, 990),
        most: share(expected, 1010),
        source: "verification.md Q12: peak·(1 − (tRTP + tRP + tRFC + tRCD)/tREFI)",
        standing: Standing::Exact,
    });
    Ok(())
}
