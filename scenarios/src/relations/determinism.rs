//! Determinism: N1 to N6 (verification.md §2.12).

use super::world::{Ran, World, first_difference};
use super::{Case, Dice, Judged, Rule, Style, Unfit, count_numbers, generate};
use crate::run::linux;
use machine::{Machine, Order, Run, Speed};
use rayon::prelude::*;
use sim_core::op::{MemType, Source, Value};
use sim_core::{Addr, Hpa, KeyId, Op, Ps};
use std::fmt::Debug;

pub(crate) const RULES: &[Rule] = &[
    Rule {
        id: "N1",
        says: "the same world gives the same bytes, whatever else runs",
        make: any,
        keeps: always,
        judge: same_bytes,
    },
    Rule {
        id: "N2",
        says: "saved and restored between two events, a run goes on the same",
        make: interrupted,
        keeps: always,
        judge: restored,
    },
    Rule {
        id: "N3",
        says: "what is recorded changes nothing",
        make: unrecorded,
        keeps: always,
        judge: same_but_for_the_log,
    },
    Rule {
        id: "N4",
        says: "a feature that is not used changes nothing",
        make: unused,
        keeps: always,
        judge: same_to_the_last_event,
    },
    Rule {
        id: "N5",
        says: "times as many times longer, every moment comes as many times later",
        make: scaled,
        keeps: always,
        judge: moments_scale,
    },
    Rule {
        id: "N6",
        says: "no state holds a floating-point number",
        make: any,
        keeps: always,
        judge: no_float,
    },
];

fn always(_: &Case) -> bool {
    true
}

/// A world without rules, of operations one after another or side by side.
fn raw(dice: &mut Dice) -> Option<World> {
    let concurrent = dice.one_in(2);
    Some(generate::world(dice, Style { concurrent, ..Style::RAW })?.world)
}

fn twice(base: World, at: u64) -> Case {
    Case { other: base.clone(), base, at }
}

fn any(dice: &mut Dice) -> Option<Case> {
    Some(twice(raw(dice)?, 0))
}

/// `None` if both are equal.
fn differ<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Option<String> {
    (a != b).then(|| format!("{what}: {a:?}, and {b:?}"))
}

fn judged(difference: Option<String>) -> Judged {
    difference.map_or(Judged::Holds, Judged::Broken)
}

/// Two machines equal in everything, as values and as bytes.
fn same_machine(a: &Ran, b: &Ran) -> Option<String> {
    if let Some(difference) = first_difference(a, b) {
        return Some(difference);
    }
    if a.machine != b.machine {
        return Some("the machines are not equal".to_owned());
    }
    let bytes = |ran: &Ran| postcard::to_allocvec(&ran.machine);
    (bytes(a) != bytes(b)).then(|| "the machines are equal, their bytes are not".to_owned())
}

fn same_bytes(case: &Case) -> Result<Judged, Unfit> {
    let alone = case.base.run()?;
    let together: Result<Vec<Ran>, Unfit> =
        (0..3).into_par_iter().map(|_| case.other.run()).collect();
    let difference = together?.iter().find_map(|ran| same_machine(&alone, ran));
    Ok(judged(difference))
}

fn interrupted(dice: &mut Dice) -> Option<Case> {
    let base = raw(dice)?;
    let events = base.steps.len() as u64 * if base.order == Order::Program { 1 } else { 4 };
    Some(twice(base, dice.below(events)))
}

/// Runs the other world up to a moment, puts machine and run into bytes and out again, and lets it go on.
fn restored(case: &Case) -> Result<Judged, Unfit> {
    let straight = case.base.run()?;
    let program = case.other.program();
    let mut machine = case.other.machine()?;
    let mut os = linux(machine.spec());
    let mut run = machine.start(&program, &mut os);
    for _ in 0..case.at {
        if !machine.advance(&mut run, &program, &mut os) {
            break;
        }
    }
    let saved = postcard::to_allocvec(&(&machine, &run)).map_err(|e| Unfit(e.to_string()))?;
    let restored: Result<(Machine, Run), _> = postcard::from_bytes(&saved);
    let (mut machine, mut run) = restored.map_err(|e| Unfit(e.to_string()))?;
    while machine.advance(&mut run, &program, &mut os) {}
    let ran = Ran { records: run.records().to_vec(), machine };
    Ok(judged(same_machine(&straight, &ran)))
}

fn unrecorded(dice: &mut Dice) -> Option<Case> {
    let mut case = any(dice)?;
    case.other.log = false;
    Some(case)
}

fn same_but_for_the_log(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    let lines = |ran: &Ran| -> Vec<_> {
        ran.records.iter().map(|r| (r.agent, r.item, r.outcome, r.begin, r.end)).collect()
    };
    let (x, y) = (&a.machine, &b.machine);
    let difference = differ("what lines showed", &lines(&a), &lines(&b))
        .or_else(|| differ("counters", x.counts(), y.counts()))
        .or_else(|| differ("caches", &cached(x), &cached(y)))
        .or_else(|| (x.memory() != y.memory()).then(|| "memory differs".to_owned()))
        .or_else(|| (x.dram() != y.dram()).then(|| "DRAM differs".to_owned()))
        .or_else(|| differ("time", &x.now(), &y.now()));
    Ok(judged(difference))
}

/// All that caches and buffers hold, but for the events that put it there.
fn cached(machine: &Machine) -> Vec<String> {
    let caches = machine.caches();
    let copies = caches.resident_lines().map(|l| {
        let at = l.tag;
        format!("{at} {:?}", caches.inspect(at))
    });
    let mut all: Vec<String> = copies.collect();
    all.sort();
    for core in 0..machine.spec().cpu.cores {
        let buffers =
            caches.wc_buffers(core).map(|b| format!("{} {:?} {:?}", b.at, b.mask, b.data));
        let weak = caches
            .weak_ops(core)
            .map(|w| format!("{} {:?} {:?} {:?}", w.at, w.kind, w.mask, w.data));
        all.extend(buffers.chain(weak));
    }
    all
}

/// The second socket idles, or the module's features are there and nobody calls it.
fn unused(dice: &mut Dice) -> Option<Case> {
    let mut case = any(dice)?;
    if dice.one_in(2) {
        // All memory in use is the first package's, and so are all agents.
        for world in [&mut case.base, &mut case.other] {
            let cores = world.platform().ok()?.cpu.cores;
            world.put("cpu.packages", 1);
            world.put("cpu.cores", cores);
            for step in world.steps.iter_mut().flatten() {
                step.op = super::metamorphic::moved(&step.op, &|at| {
                    let near =
                        if at.hpa.0 >= generate::FAR { at.hpa.0 - (1 << 30) } else { at.hpa.0 };
                    Addr::new(Hpa(near), at.keyid)
                })?;
            }
        }
        let cores = case.base.platform().ok()?.cpu.cores;
        case.other.put("cpu.packages", 2);
        case.other.put("cpu.cores", cores * 2);
    } else {
        for (key, value) in [
            ("tdx.sys_disable", "true"),
            ("tdx.dynamic_pamt", "true"),
            ("tdx.handoff_version", "3"),
            ("tdx.tlb_entries", "7"),
            ("tdx.cost.seamcall", "3us"),
            ("tdx.hp_lock_timeout", "5s"),
            ("tdx.vp_init_version", "1"),
        ] {
            if dice.one_in(2) {
                case.other.put(key, value);
            }
        }
    }
    Some(case)
}

fn same_to_the_last_event(case: &Case) -> Result<Judged, Unfit> {
    if case.base.set == case.other.set {
        return Ok(Judged::Vacuous);
    }
    Ok(judged(first_difference(&case.base.run()?, &case.other.run()?)))
}

/// Parameters that are times.
const TIMES: [&str; 12] = [
    "latency.xts",
    "latency.mac",
    "latency.write_post",
    "latency.weak_wait",
    "latency.issue",
    "latency.direct_store",
    "latency.clflush",
    "latency.clflushopt",
    "latency.mfence",
    "latency.flush_walk",
    "latency.pconfig",
    "latency.dma_path",
];
const UNCORE_TIMES: [&str; 3] =
    ["uncore.remote", "uncore.direct_admission", "uncore.direct_lookup"];

/// All times, those of the program included, and all clocks are longer by a factor. DRAM's are those of its speed grade and
/// cannot be: a functional world has none, and a timed one here does not wait for any.
fn scaled(dice: &mut Dice) -> Option<Case> {
    let factor = dice.pick(&[2, 4, 5, 10]);
    let mut base = if dice.one_in(2) {
        World { speed: Speed::Functional, ..raw(dice)? }
    } else {
        in_caches(dice)?
    };
    let spec = base.platform().ok()?;
    let latency = &spec.latency;
    let own = [
        latency.xts,
        latency.mac,
        latency.write_post,
        latency.weak_wait,
        latency.issue,
        latency.direct_store,
        latency.clflush,
        latency.clflushopt,
        latency.mfence,
        latency.flush_walk,
        latency.pconfig,
        latency.dma_path,
    ];
    let uncore = &spec.uncore;
    let times = TIMES.into_iter().zip(own).chain(UNCORE_TIMES.into_iter().zip([
        uncore.remote,
        uncore.direct_admission,
        uncore.direct_lookup,
    ]));
    let times: Vec<(&str, Ps)> = times
        .chain([("cpu.wc_age", spec.cpu.wc_age), ("functional.op", spec.functional.op)])
        .collect();
    // Whole picoseconds in a clock: others are rounded (`Clock::cycles`).
    let mut other = base.clone();
    for (world, mhz, factor) in [(&mut base, 2000, 1), (&mut other, 2000 / factor, factor)] {
        world.put("cpu.core_clock", format!("{mhz}MHz"));
        world.put("uncore.clock", format!("{mhz}MHz"));
        for (key, time) in &times {
            world.put(key, format!("{}ps", time.0 * factor));
        }
        for step in world.steps.iter_mut().flatten() {
            if let Op::Delay { time } = &mut step.op {
                *time = time.times(factor);
            }
        }
    }
    Some(Case { base, other, at: factor })
}

/// A timed world that never waits for DRAM: lines come into being in caches, by string stores that read nothing
/// (architecture.md §13 MC-29).
fn in_caches(dice: &mut Dice) -> Option<World> {
    let mut world = raw(dice)?;
    world.speed = Speed::Timed;
    world.order = Order::Program;
    world.steps.clear();
    world.set.retain(|(key, _)| {
        key == "cpu.packages" || key == "cpu.cores" || key.starts_with("memory.")
    });
    world.put("cpu.fast_string_no_rfo", true);
    // Roomy enough that nothing is pushed out.
    world.put("cpu.snoop_filter.sets", 64);
    let cores = world.platform().ok()?.cpu.cores;
    let place = |n: u64| Addr::new(Hpa(generate::PAGE + 64 * n), KeyId::TME);
    for n in 0..4 {
        let core = dice.below(cores.into()) as u16;
        world.push(core, Op::RepStosb { at: place(n), bytes: 64, value: n as u8 });
    }
    for _ in 0..30 {
        let core = dice.below(cores.into()) as u16;
        let at = place(dice.below(4));
        // Lines that are only written, past the caches.
        let past = place(8 + dice.below(4));
        let value = Value::Fill(dice.below(256) as u8);
        let op = match dice.below(12) {
            0..=2 => Op::Load { at, bytes: 8, ty: MemType::Wb },
            3 | 4 => Op::Store { at, bytes: 8, value, ty: MemType::Wb },
            5 => Op::LockXadd { at, bytes: 8, value: 1 },
            6 => Op::Clwb { at },
            7 => Op::Movdir64b { dst: past, src: Source::Fill(3) },
            8 => Op::NtStore { at: past, bytes: 8, value },
            9 => Op::Delay { time: Ps::ns(1 + dice.below(50)) },
            10 => Op::Fetch { at },
            _ => Op::Mfence,
        };
        world.push(core, op);
    }
    Some(world)
}

fn moments_scale(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    if a.machine.counts().controller_reads > 0 && case.base.speed == Speed::Timed {
        // A wait for DRAM: not what the relation is about (a line was left out while shrinking).
        return Ok(Judged::Vacuous);
    }
    let lines = |ran: &Ran, factor: u64| -> Vec<_> {
        let line = |r: &machine::StepRecord| {
            (r.item, r.outcome, r.begin.times(factor), r.end.times(factor))
        };
        ran.records.iter().map(line).collect()
    };
    let (x, y) = (lines(&a, case.at), lines(&b, 1));
    let difference = x.iter().zip(&y).find_map(|(x, y)| differ("a line", x, y));
    Ok(judged(difference.or_else(|| differ("lines", &x.len(), &y.len()))))
}

fn no_float(case: &Case) -> Result<Judged, Unfit> {
    let ran = case.base.run()?;
    let all = (&ran.records, &ran.machine, case.base.platform()?);
    Ok(match count_numbers(&all) {
        Ok(0) => Judged::Vacuous,
        Ok(_) => Judged::Holds,
        Err(e) => Judged::Broken(e.to_string()),
    })
}
