//! Metamorphic relations: M1 to M14 (verification.md §2.13).

use super::discipline::{Discipline, Rules};
use super::generate::{FAR, PAGE, PRIVATE, SHARED, fill, geometry, world};
use super::world::{Ran, Seen, Step, World, events, extents, first_difference};
use super::{Case, Dice, Judged, Rule, Style, Unfit, outcomes_of, plain, same_outcomes};
use crate::run::linux;
use machine::{AgentKind, AgentSpec, Machine, Order, Program, Speed};
use sim_core::event::{EventKind, LineState};
use sim_core::op::{CallRegs, MemType, PconfigCmd, Source, Value};
use sim_core::planted::Planted;
use sim_core::tdx::Leaf;
use sim_core::{Addr, Hpa, KeyId, LINES_PER_PAGE, Line, Op, Outcome, PAGE_BYTES, Ps};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const RULES: &[Rule] = &[
    Rule {
        id: "M1",
        says: "a CLFLUSH more changes no result where a line is accessed with one KeyID between two flushes",
        make: flushed,
        keeps: |case| keep(case, Rules::ONE_KEY),
        judge: |case| same_outcomes(case, plain),
    },
    Rule {
        id: "M2",
        says: "independent clears, initialisations and leaves give the same end in any order",
        make: permuted,
        keeps: |_| true,
        judge: same_memory,
    },
    Rule {
        id: "M3",
        says: "MOVDIR64B twice is MOVDIR64B once",
        make: doubled,
        keeps: |case| keep(case, Rules::ONE_KEY),
        judge: |case| same_outcomes(case, plain),
    },
    Rule {
        id: "M4",
        says: "the erratum changes nothing where no partial write reaches a TD=1 line",
        make: erratum,
        keeps: |_| true,
        judge: same_with_the_erratum,
    },
    Rule {
        id: "M5",
        says: "Ci and Li show the same without physical faults and with one private KeyID per line",
        make: modes,
        keeps: one_private_key_per_line,
        judge: |case| match one_private_key_per_line(case) {
            true => same_outcomes(case, plain),
            false => Ok(Judged::Vacuous),
        },
    },
    Rule {
        id: "M6",
        says: "private HKIDs renamed, or addresses shifted by the interleave period: the same run, its times included",
        make: renamed,
        keeps: |_| true,
        judge: isomorphic,
    },
    Rule {
        id: "M7",
        says: "idle time and traffic elsewhere change no result, and on other channels no moment",
        make: busy_elsewhere,
        keeps: |case| case.at == CHANNELS || keep(case, Rules::ONE_KEY),
        judge: undisturbed,
    },
    Rule {
        id: "M8",
        says: "cache geometry and prefetches change no result under the VMM's policy",
        make: reshaped,
        keeps: |case| keep(case, Rules::POLICY),
        judge: |case| same_outcomes(case, plain),
    },
    Rule {
        id: "M9",
        says: "poison in a line that is then overwritten whole changes nothing but the ledger",
        make: poisoned_then_overwritten,
        keeps: |case| Discipline::admits(Rules::ONE_KEY, &case.base),
        judge: only_the_ledger,
    },
    Rule {
        id: "M10",
        says: "without the erratum, and flushed, memory need not be cleared",
        make: uncleared,
        keeps: |case| Discipline::admits(Rules::UNCLEARED, &case.other) && clears_of_private(case),
        judge: |case| same_outcomes(case, plain),
    },
    Rule {
        id: "M11",
        says: "a DMA write is its lines; in smaller pieces it differs only by the partial writes' rules",
        make: split,
        keeps: |case| case.at == PIECES || keep(case, Rules::ONE_KEY),
        judge: pieces_tell,
    },
    Rule {
        id: "M12",
        says: "A, then B when all is idle, is A, a snapshot, and B",
        make: concatenated,
        keeps: idle_between,
        judge: snapshot_between,
    },
    Rule {
        id: "M13",
        says: "unused memory and an unused TD change no result",
        make: unused,
        keeps: |case| case.base.speed == Speed::Functional || keep(case, Rules::ONE_KEY),
        judge: same_but_garbage,
    },
    Rule {
        id: "M14",
        says: "a fault in a line that nobody accesses changes nothing",
        make: fault_nearby,
        keeps: |_| true,
        judge: unnoticed,
    },
];

fn keep(case: &Case, rules: Rules) -> bool {
    Discipline::admits(rules, &case.base) && Discipline::admits(rules, &case.other)
}

fn case(base: World, other: World) -> Option<Case> {
    Some(Case { base, other, at: 0 })
}

fn made(dice: &mut Dice, rules: Rules) -> Option<World> {
    Some(world(dice, Style::disciplined(rules))?.world)
}

/// An operation with its addresses mapped.
pub(super) fn moved(op: &Op, map: &dyn Fn(Addr) -> Addr) -> Option<Op> {
    let keyid = |keyid| map(Addr::new(Hpa(0), keyid)).keyid;
    op.try_map::<_, _, _, ()>(|at| Ok(map(at)), |k| Ok(keyid(k)), Ok).ok()
}

fn map_all(world: &mut World, map: &dyn Fn(Addr) -> Addr) -> Option<()> {
    for step in world.steps.iter_mut().flatten() {
        step.op = moved(&step.op, map)?;
    }
    Some(())
}

/// Puts lines in random places where the rules still hold. How many went in.
fn insert_anywhere(
    dice: &mut Dice,
    world: &mut World,
    rules: Rules,
    tries: u64,
    mut line: impl FnMut(&mut Dice, &World) -> Option<(u16, Op)>,
) -> u64 {
    let mut done = 0;
    for _ in 0..tries {
        let Some((agent, op)) = line(dice, world) else { continue };
        let at = dice.below(world.steps.len() as u64 + 1) as usize;
        let mut longer = world.clone();
        longer.insert(at, agent, op);
        if Discipline::admits(rules, &longer) {
            *world = longer;
            done += 1;
        }
    }
    done
}

/// A line of a world's pages, with a KeyID.
fn somewhere(dice: &mut Dice) -> Addr {
    let hpa = dice.pick(&[PAGE, PAGE + 64, PAGE + 128, FAR]);
    let keyid = dice.pick(&[KeyId::TME, KeyId::TME, SHARED, PRIVATE[0], PRIVATE[1]]);
    Addr::new(Hpa(hpa), keyid)
}

/// Who can flush it.
fn flusher(dice: &mut Dice, world: &World, keyid: KeyId) -> Option<u16> {
    if PRIVATE.contains(&keyid) {
        return world.agent(AgentKind::Seam, 0);
    }
    let cores = world.agents.iter().filter(|a| a.kind == AgentKind::Kernel).count();
    Some(dice.below(cores as u64) as u16)
}

// --------------------------------------------------------------------------------------------------------------------- M1

fn flushed(dice: &mut Dice) -> Option<Case> {
    let base = made(dice, Rules::ONE_KEY)?;
    let mut other = base.clone();
    insert_anywhere(dice, &mut other, Rules::ONE_KEY, 12, flush_somewhere);
    case(base, other)
}

fn flush_somewhere(dice: &mut Dice, world: &World) -> Option<(u16, Op)> {
    let at = somewhere(dice);
    Some((flusher(dice, world, at.keyid)?, Op::Clflush { at }))
}

/// M1 in its general form, on traces in which KeyIDs alias: false (verification.md §0 point 3). How many of so many worlds
/// break it.
pub fn aliased_flushes_that_matter(seed: u64, cases: u64) -> u64 {
    let mut broken = 0;
    for n in 0..cases {
        let mut dice = Dice::new(sim_core::prng::mix(seed, 0x4d31, n));
        let style = Style { faults: false, ..Style::RAW };
        let Some(made) = world(&mut dice, style) else { continue };
        let base = World { speed: Speed::Functional, ..made.world };
        let mut other = base.clone();
        insert_anywhere(&mut dice, &mut other, Rules::default(), 8, flush_somewhere);
        let judged = case(base, other).map(|case| same_outcomes(&case, plain));
        broken += u64::from(matches!(judged, Some(Ok(Judged::Broken(_)))));
    }
    broken
}

// --------------------------------------------------------------------------------------------------------------------- M2

/// How many pages are worked on.
const PAGES: u64 = 4;

/// Jobs in order, and the same in another order.
fn permuted(dice: &mut Dice) -> Option<Case> {
    if dice.one_in(4) {
        return permuted_leaves(dice);
    }
    let empty = world(dice, Style { length: 0, ..Style::disciplined(Rules::POLICY) })?.world;
    let mut base = World { steps: Vec::new(), ..empty };
    let seam = base.agent(AgentKind::Seam, 0)?;
    for keyid in PRIVATE {
        base.push(seam, Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None });
    }
    // What was there before: lines of the host and of TDs, flushed.
    for _ in 0..6 {
        let at = Hpa(PAGE + PAGE_BYTES * dice.below(PAGES) + 64 * dice.below(64));
        let keyid = dice.pick(&[KeyId::TME, PRIVATE[0], PRIVATE[1]]);
        let src = Source::Fill(dice.below(256) as u8);
        base.push(seam, Op::Movdir64b { dst: Addr::new(at, keyid), src });
        base.push(0, Op::Mfence);
    }
    let mut jobs: Vec<Vec<(u16, Op)>> = Vec::new();
    for page in 0..PAGES {
        let hpa = Hpa(PAGE + PAGE_BYTES * page);
        let cores = base.agents.iter().filter(|a| a.kind == AgentKind::Kernel).count() as u64;
        let core = dice.below(cores) as u16;
        jobs.push(match dice.below(3) {
            0 => {
                vec![(seam, Op::Movdir64bPage { at: Addr::new(hpa, PRIVATE[0]) }), (0, Op::Mfence)]
            }
            1 => {
                let keyid = PRIVATE[1];
                let dst = Addr::new(hpa, keyid);
                vec![(seam, Op::Movdir64b { dst, src: Source::Fill(page as u8) }), (0, Op::Mfence)]
            }
            _ => {
                let at = Addr::new(hpa, KeyId::TME);
                vec![(core, Op::Movdir64bPage { at }), (core, Op::Mfence)]
            }
        });
    }
    let mut other = base.clone();
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    dice.shuffle(&mut order);
    let first = base.fresh();
    let numbered: Vec<Vec<Step>> = {
        let mut id = first;
        let number = |(agent, op): &(u16, Op)| {
            id += 1;
            Step { id: id - 1, agent: *agent, op: *op }
        };
        let mut number = number;
        jobs.iter().map(|job| job.iter().map(&mut number).collect()).collect()
    };
    base.steps.extend(numbered.iter().flatten().map(|s| Some(*s)));
    let shuffled = order.iter().filter_map(|i| numbered.get(*i)).flatten();
    other.steps.extend(shuffled.map(|s| Some(*s)));
    case(base, other)
}

/// Tables for a TD with pages that leaves can work on.
const TD_TABLES: &str = "[regions]\nP = { base = \"0x100800000\", size = \"64KiB\" }\n\
    [tdx]\nstate = \"ready\"\n\
    [td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\n\
    pages = [\"0x0 add P\", \"0x1000 add P+0x1000\", \"0x2000 add P+0x2000\", \"0x3000 add P+0x3000\"]\n";

/// Leaves on pages of a TD of which none depends on another: pages given, mappings blocked, entries looked at. Not
/// TDH.MEM.PAGE.ADD, which extends the measurement: its order is meant to matter (architecture.md §7.9).
fn permuted_leaves(dice: &mut Dice) -> Option<Case> {
    let set = super::settings(dice, &Style::disciplined(Rules::POLICY));
    let mut base = World {
        preset: "spr",
        set,
        agents: Vec::new(),
        steps: Vec::new(),
        order: Order::Program,
        speed: if dice.one_in(2) { Speed::Timed } else { Speed::Functional },
        seed: dice.below(1000),
        log: true,
        tables: TD_TABLES.to_owned(),
        planted: Planted::NONE,
    };
    base.agents = super::agents(&base.platform().ok()?);
    let cores = base.platform().ok()?.cpu.cores;
    let tdr = base.machine().ok()?.module().tds().next().map(|(page, _)| page.hpa().0)?;
    let mut calls = Vec::new();
    for page in 0..4u64 {
        let call = |leaf, rcx, rdx, r8| Op::Seamcall {
            leaf,
            version: 0,
            regs: CallRegs([rcx, rdx, r8, 0, 0, 0, 0, 0]),
        };
        let hpa = 0x1_0080_0000 + PAGE_BYTES * (4 + page);
        calls.push(call(Leaf::MEM_PAGE_AUG, (8 + page) << 12, tdr, hpa));
        calls.push(call(Leaf::MEM_RANGE_BLOCK, page << 12, tdr, 0));
    }
    let mut steps: Vec<Option<Step>> = Vec::new();
    for (id, op) in calls.into_iter().enumerate() {
        let agent = dice.below(cores.into()) as u16;
        steps.push(Some(Step { id: id as u32, agent, op }));
    }
    let mut other = base.clone();
    base.steps = steps.clone();
    dice.shuffle(&mut steps);
    other.steps = steps;
    case(base, other)
}

/// Of a line: everything but which birth its poison is.
fn state(machine: &Machine, line: Line) -> (bool, bool, bool, Option<KeyId>) {
    let LineState { td, mac, poison, writer } = machine.memory().line(line);
    (td, mac, poison.is_some(), writer)
}

fn same_memory(case: &Case) -> Result<Judged, Unfit> {
    if case.base.steps == case.other.steps {
        return Ok(Judged::Vacuous);
    }
    let (a, b) = (case.base.run()?, case.other.run()?);
    let judged = outcomes_of(case, &a, &b, plain);
    if judged != Judged::Holds {
        return Ok(judged);
    }
    for line in 0..PAGES * u64::from(LINES_PER_PAGE) {
        let line = Line((PAGE >> 6) + line);
        let (x, y) = (state(&a.machine, line), state(&b.machine, line));
        let (p, q) = [KeyId::TME, PRIVATE[0], PRIVATE[1]]
            .map(|k| {
                let at = Addr::new(line.hpa(), k).tagged();
                (a.machine.memory().probe(at), b.machine.memory().probe(at))
            })
            .into_iter()
            .find(|(p, q)| (p.data, p.class) != (q.data, q.class))
            .unzip();
        if x != y || p.is_some() {
            return Ok(Judged::Broken(format!("{line}: {x:?} {p:?}, and {y:?} {q:?}")));
        }
    }
    let module = |ran: &Ran| postcard::to_allocvec(ran.machine.module());
    Ok(match module(&a) == module(&b) {
        true => Judged::Holds,
        false => Judged::Broken("the module's state differs".to_owned()),
    })
}

// --------------------------------------------------------------------------------------------------------------------- M3

fn doubled(dice: &mut Dice) -> Option<Case> {
    let base = made(dice, Rules::ONE_KEY)?;
    let mut other = World { steps: Vec::new(), ..base.clone() };
    let mut id = base.fresh();
    for step in &base.steps {
        other.steps.push(*step);
        if let Some(Step { agent, op: op @ Op::Movdir64b { src: Source::Fill(_), .. }, .. }) = step
        {
            other.steps.push(Some(Step { id, agent: *agent, op: *op }));
            id += 1;
        }
    }
    case(base, other)
}

// --------------------------------------------------------------------------------------------------------------------- M4

fn erratum(dice: &mut Dice) -> Option<Case> {
    let style = Style { erratum: Some(false), concurrent: dice.one_in(3), ..Style::RAW };
    let base = world(dice, style)?.world;
    let mut other = base.clone();
    other.put("memory.erratum_pw_mce", true);
    case(base, other)
}

fn same_with_the_erratum(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    let partial = |kind: &EventKind| matches!(kind, EventKind::DramWrite { mask, before, .. } if !mask.is_full() && before.td);
    if events(&a).iter().any(|e| partial(&e.kind)) {
        return Ok(Judged::Vacuous);
    }
    Ok(first_difference(&a, &b).map_or(Judged::Holds, Judged::Broken))
}

// --------------------------------------------------------------------------------------------------------------------- M5

fn modes(dice: &mut Dice) -> Option<Case> {
    // Side by side, or one KeyID at a time: what several KeyIDs show depends on time otherwise, and times differ.
    let base = if dice.one_in(2) {
        let style = Style { faults: false, ..Style::RAW };
        World { speed: Speed::Functional, ..world(dice, style)?.world }
    } else {
        made(dice, Rules::POLICY)?
    };
    let mut base = base;
    // One private KeyID per page, so that an access over the end of a line finds the same in the next.
    map_all(&mut base, &|at| {
        let own = if at.hpa.0 >= FAR { PRIVATE[1] } else { PRIVATE[0] };
        Addr::new(at.hpa, if PRIVATE.contains(&at.keyid) && at.hpa.0 != 0 { own } else { at.keyid })
    })?;
    let mut other = base.clone();
    base.put("memory.integrity", "ci");
    other.put("memory.integrity", "li");
    case(base, other)
}

/// The precondition of M5.
fn one_private_key_per_line(case: &Case) -> bool {
    let mut keys: BTreeMap<Line, BTreeSet<KeyId>> = BTreeMap::new();
    for (at, _) in case.base.ops().flat_map(|s| extents(&s.op)) {
        if PRIVATE.contains(&at.keyid) {
            keys.entry(at.hpa.line()).or_default().insert(at.keyid);
        }
    }
    keys.values().all(|keys| keys.len() == 1)
        && (case.base.speed == Speed::Functional || keep(case, Rules::ONE_KEY))
}

// --------------------------------------------------------------------------------------------------------------------- M6

/// Bytes after which `RoBaRaCoCh` and homes of packages begin anew, well within the installed memory.
const PERIOD: u64 = 1 << 36;
const RENAMED: u64 = 0;

fn renamed(dice: &mut Dice) -> Option<Case> {
    let style = Style { concurrent: dice.one_in(2), ..Style::RAW };
    let mut base = world(dice, style)?.world;
    initialise(&mut base);
    // An interleave with a period: rows are not mixed into banks.
    base.put("dram.map", "RoBaRaCoCh");
    let mut other = base.clone();
    let at = dice.below(4);
    let map = isomorphism(at);
    map_all(&mut other, &map)?;
    for agent in other.agents.iter_mut().filter(|a| a.kind == AgentKind::Td) {
        agent.keyid = map(Addr::new(Hpa(0), agent.keyid)).keyid;
    }
    Some(Case { base, other, at })
}

/// Every line is written first: what memory holds at power-on depends on where it is.
fn initialise(world: &mut World) {
    let mut first = Vec::new();
    let mut id = world.fresh();
    for n in 0..8 {
        let hpa = Hpa(if n < 5 { PAGE + 64 * n } else { FAR + 64 * (n - 5) });
        let dst = Addr::new(hpa, KeyId::TME);
        let op = Op::Movdir64b { dst, src: Source::Fill(n as u8) };
        first.push(Some(Step { id, agent: 0, op }));
        id += 1;
    }
    first.push(Some(Step { id, agent: 0, op: Op::Mfence }));
    if world.order == Order::Concurrent {
        first.push(None);
    }
    first.append(&mut world.steps);
    world.steps = first;
}

/// Whether bytes were read that no key gives: what they are depends on address and key.
fn met_garbage(ran: &Ran) -> bool {
    events(ran).iter().any(|e| match e.kind {
        EventKind::DramRead { at, before, .. } => before.writer != Some(at.keyid()),
        EventKind::DramWrite { at, mask, before, .. } => {
            !mask.is_full() && before.writer != Some(at.keyid())
        }
        EventKind::Tampered { .. } => true,
        _ => false,
    }) || ran.records.iter().any(|r| Seen::of(&r.outcome).garbage)
}

/// HKIDs exchanged, or addresses shifted by so many periods.
fn isomorphism(at: u64) -> impl Fn(Addr) -> Addr {
    move |addr| {
        if at == RENAMED {
            let keyid = match PRIVATE.iter().position(|k| *k == addr.keyid) {
                Some(i) => PRIVATE.get(1 - i).copied().unwrap_or(addr.keyid),
                None => addr.keyid,
            };
            return Addr::new(addr.hpa, keyid);
        }
        Addr::new(Hpa(addr.hpa.0 + at * PERIOD), addr.keyid)
    }
}

fn isomorphic(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    let map = isomorphism(case.at);
    let tainted = met_garbage(&a) || met_garbage(&b);
    // Garbage merged with a partial write is data afterwards.
    let shown = |seen: &Seen| if tainted { seen.no_bytes() } else { seen.clone() };
    let mapped = |seen: &Seen| {
        let mut seen = shown(seen);
        if let Some((_, hpa, keyid, _)) = &mut seen.check {
            let at = map(Addr::new(*hpa, *keyid));
            (*hpa, *keyid) = (at.hpa, at.keyid);
        }
        seen
    };
    let judged = outcomes_of(case, &a, &b, |one, other| (mapped(one), shown(other)));
    if judged != Judged::Holds {
        return Ok(judged);
    }
    let moments = |ran: &Ran| -> Vec<(u32, Ps, Ps)> {
        ran.records.iter().map(|r| (r.item, r.begin, r.end)).collect()
    };
    let (x, y) = (moments(&a), moments(&b));
    if let Some((x, y)) = x.iter().zip(&y).find(|(x, y)| x != y) {
        return Ok(Judged::Broken(format!("line {}: {:?}, and {:?}", x.0, (x.1, x.2), (y.1, y.2))));
    }
    Ok(match a.machine.counts() == b.machine.counts() {
        true => Judged::Holds,
        false => Judged::Broken("counters differ".to_owned()),
    })
}

// --------------------------------------------------------------------------------------------------------------------- M7

const CHANNELS: u64 = 1;

fn busy_elsewhere(dice: &mut Dice) -> Option<Case> {
    if dice.one_in(3) {
        return other_channels(dice);
    }
    let base = made(dice, Rules::ONE_KEY)?;
    let mut other = base.clone();
    let cores = base.platform().ok()?.cpu.cores;
    insert_anywhere(dice, &mut other, Rules::ONE_KEY, 12, |dice, _| {
        let core = dice.below(cores.into()) as u16;
        let at = Addr::new(Hpa(0x2000_0000 + 64 * dice.below(4)), KeyId::TME);
        Some((
            core,
            match dice.below(4) {
                0 | 1 => Op::Delay { time: Ps::ns(1 + dice.below(400)) },
                2 => Op::Load { at, bytes: 8, ty: MemType::Wb },
                _ => Op::Store { at, bytes: 8, value: Value::Unsaid, ty: MemType::Wb },
            },
        ))
    });
    case(base, other)
}

/// Two cores side by side on two channels, against one of them alone. Caches have room for all.
fn other_channels(dice: &mut Dice) -> Option<Case> {
    let mut base = World {
        preset: "spr",
        set: vec![("dram.map".to_owned(), "RoBaRaCoCh".to_owned())],
        agents: Vec::new(),
        steps: Vec::new(),
        order: Order::Concurrent,
        speed: Speed::Timed,
        seed: dice.below(1000),
        log: true,
        tables: String::new(),
        planted: Planted::NONE,
    };
    base.agents = super::agents(&base.platform().ok()?);
    let machine = base.machine().ok()?;
    let channel = |at: u64| machine.memory().channel_of(Hpa(at).line());
    let own = dice.below(8) as u8;
    let mut lines = (0u64..).map(|n| PAGE + 64 * n).filter(|at| channel(*at) == own);
    let mine: Vec<u64> = lines.by_ref().take(40).collect();
    let theirs: Vec<u64> =
        (0u64..).map(|n| PAGE + 64 * n).filter(|at| channel(*at) != own).take(40).collect();
    let op = |dice: &mut Dice, from: &[u64]| {
        let at = Addr::new(Hpa(dice.pick(from)), KeyId::TME);
        match dice.below(6) {
            0 => Op::Store { at, bytes: 8, value: Value::Unsaid, ty: MemType::Wb },
            1 => Op::Clflushopt { at },
            2 => Op::Movdir64b { dst: at, src: Source::Fill(1) },
            3 => Op::Mfence,
            _ => Op::Load { at, bytes: 8, ty: MemType::Wb },
        }
    };
    for _ in 0..30 {
        let mine = op(dice, &mine);
        base.push(0, mine);
    }
    let mut other = base.clone();
    for _ in 0..60 {
        let theirs = op(dice, &theirs);
        other.push(1, theirs);
    }
    Some(Case { base, other, at: CHANNELS })
}

fn undisturbed(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    let judged = outcomes_of(case, &a, &b, plain);
    if judged != Judged::Holds || case.at != CHANNELS {
        return Ok(judged);
    }
    let (x, y) = (moments(&case.base, &a), moments(&case.other, &b));
    Ok(later(case, &x, &y))
}

/// By number of the line: when it began and was over.
fn moments(world: &World, ran: &Ran) -> BTreeMap<u32, (Ps, Ps)> {
    let of = |r: &machine::StepRecord| {
        Some(((*world.steps.get(r.item as usize)?)?.id, (r.begin, r.end)))
    };
    ran.records.iter().filter_map(of).collect()
}

/// The first line that was not at the same time in both.
fn later(case: &Case, x: &BTreeMap<u32, (Ps, Ps)>, y: &BTreeMap<u32, (Ps, Ps)>) -> Judged {
    let differ = x.iter().find_map(|(id, one)| {
        let other = y.get(id).filter(|other| *other != one)?;
        let step = case.base.ops().find(|s| s.id == *id)?;
        Some(format!("`{}` at {one:?}, and at {other:?}", case.base.line(step)))
    });
    differ.map_or(Judged::Holds, Judged::Broken)
}

// --------------------------------------------------------------------------------------------------------------------- M8

fn reshaped(dice: &mut Dice) -> Option<Case> {
    let base = made(dice, Rules::POLICY)?;
    let mut other = base.clone();
    if dice.one_in(4) {
        // The preset's own: caches in which nothing is ever pushed out.
        other.set.retain(|(key, _)| {
            !key.contains(".ways") && !key.contains(".size") && !key.contains("snoop_filter")
        });
        other.put("cpu.llc_slices", 32);
        other.set.retain(|(key, _)| key != "cpu.slice_hash" && key != "cpu.flush_sub_blocks");
    } else {
        geometry(dice, &mut |key, value| other.put(key, value));
    }
    let cores = base.platform().ok()?.cpu.cores;
    insert_anywhere(dice, &mut other, Rules::POLICY, 8, |dice, world| {
        let at = somewhere(dice);
        let td =
            |k: KeyId| world.agents.iter().position(|a| a.kind == AgentKind::Td && a.keyid == k);
        let core = dice.below(cores.into()) as u16;
        let agent = td(at.keyid).map_or(core, |td| td as u16);
        Some((agent, Op::Prefetch { at }))
    });
    case(base, other)
}

// --------------------------------------------------------------------------------------------------------------------- M9

fn poisoned_then_overwritten(dice: &mut Dice) -> Option<Case> {
    let base = World { speed: Speed::Timed, ..made(dice, Rules::ONE_KEY)? };
    let ran = base.run().ok()?;
    let done: BTreeSet<u32> =
        ran.records.iter().filter(|r| r.outcome == Outcome::Done).map(|r| r.item).collect();
    let hw = base.agent(AgentKind::Hardware, 0)?;
    let mut other = World { steps: Vec::new(), ..base.clone() };
    let mut id = base.fresh();
    for (item, step) in base.steps.iter().enumerate() {
        if let Some(Step { op: Op::Movdir64b { dst, src: Source::Fill(_) }, .. }) = step
            && done.contains(&(item as u32))
            && !dice.one_in(3)
        {
            let op = Op::InjectUe { at: *dst };
            other.steps.push(Some(Step { id, agent: hw, op }));
            id += 1;
        }
        other.steps.push(*step);
    }
    case(base, other)
}

fn only_the_ledger(case: &Case) -> Result<Judged, Unfit> {
    // A fault that is not overwritten at once (its line was left out while shrinking) is not meant.
    let mut steps = case.other.steps.iter().flatten().peekable();
    let mut any = false;
    while let Some(step) = steps.next() {
        if let Op::InjectUe { at } = step.op {
            any = true;
            let next = steps.peek().map(|s| s.op);
            if !matches!(next, Some(Op::Movdir64b { dst, .. }) if dst == at) {
                return Ok(Judged::Vacuous);
            }
        }
    }
    if !any {
        return Ok(Judged::Vacuous);
    }
    let (a, b) = (case.base.run()?, case.other.run()?);
    let judged = outcomes_of(case, &a, &b, plain);
    if judged != Judged::Holds {
        return Ok(judged);
    }
    let judged = later(case, &moments(&case.base, &a), &moments(&case.other, &b));
    if judged != Judged::Holds {
        return Ok(judged);
    }
    Ok(same_lines(&case.base, &a, &b, None))
}

/// Whether all lines of a world's pages, but for one, are in the same state at the end, and their copies.
fn same_lines(world: &World, a: &Ran, b: &Ran, but: Option<Line>) -> Judged {
    let lines: BTreeSet<Line> =
        world.ops().flat_map(|s| extents(&s.op)).map(|(at, _)| at.hpa.line()).collect();
    for line in lines.into_iter().filter(|line| Some(*line) != but) {
        let (x, y) = (state(&a.machine, line), state(&b.machine, line));
        if x != y {
            return Judged::Broken(format!("{line}: {x:?}, and {y:?}"));
        }
    }
    let copies = |ran: &Ran| -> BTreeSet<(u64, bool)> {
        let caches = ran.machine.caches();
        let dirty = |tag| caches.inspect(tag).is_some_and(|v| v.dirty);
        caches.resident_lines().map(|l| (l.tag.word(), dirty(l.tag))).collect()
    };
    match copies(a) == copies(b) {
        true => Judged::Holds,
        false => Judged::Broken("copies in caches differ".to_owned()),
    }
}

// -------------------------------------------------------------------------------------------------------------------- M10

fn uncleared(dice: &mut Dice) -> Option<Case> {
    // Linux uses no KeyID above 0: what the host finds under another KeyID than it wrote is not zeros either way.
    let rules = Style::disciplined(Rules::POLICY);
    let style = Style { erratum: Some(false), length: 60, shared: false, ..rules };
    let made = world(dice, style)?;
    let mut other = made.world.clone();
    other.steps.retain(|step| step.is_none_or(|s| !made.clears.contains(&s.id)));
    case(made.world, other)
}

/// Whether the program keeps to the policy, and what the other leaves out clears private memory.
fn clears_of_private(case: &Case) -> bool {
    let Ok(spec) = case.base.platform() else { return false };
    let left: BTreeSet<u32> = case.other.ops().map(|s| s.id).collect();
    let mut discipline = Discipline::new(Rules::POLICY, &spec);
    case.base.ops().all(|step| {
        let private = extents(&step.op).all(|(at, _)| discipline.owner(at.hpa.line()).is_some());
        let agent = case.base.agents.get(usize::from(step.agent));
        (left.contains(&step.id) || private)
            && agent.is_some_and(|agent| discipline.follow(agent, step).is_ok())
    })
}

// -------------------------------------------------------------------------------------------------------------------- M11

const PIECES: u64 = 1;

fn split(dice: &mut Dice) -> Option<Case> {
    if dice.one_in(2) {
        return split_small(dice);
    }
    let mut base = made(dice, Rules::ONE_KEY)?;
    let device = base.agent(AgentKind::Device, 0)?;
    insert_anywhere(dice, &mut base, Rules::ONE_KEY, 8, |dice, _| {
        let bytes = dice.pick(&[128, 192, 64]);
        let keyid = dice.pick(&[KeyId::TME, KeyId::TME, SHARED]);
        let value = Value::Fill(dice.below(256) as u8);
        Some((device, Op::DmaWrite { at: Addr::new(Hpa(PAGE), keyid), bytes, value }))
    });
    let mut other = World { steps: Vec::new(), ..base.clone() };
    let mut id = base.fresh();
    for step in &base.steps {
        let Some(Step { id: first, agent, op: Op::DmaWrite { at, bytes, value } }) = *step else {
            other.steps.push(*step);
            continue;
        };
        if !at.hpa.0.is_multiple_of(64) || !bytes.is_multiple_of(64) {
            other.steps.push(*step);
            continue;
        }
        for n in 0..bytes / 64 {
            let at = Addr::new(Hpa(at.hpa.0 + u64::from(n) * 64), at.keyid);
            let op = Op::DmaWrite { at, bytes: 64, value };
            let own = if n == 0 { first } else { id };
            id += u32::from(n > 0);
            other.steps.push(Some(Step { id: own, agent, op }));
        }
    }
    case(base, other)
}

/// A line in any state, one DMA write over it, and in pieces.
fn split_small(dice: &mut Dice) -> Option<Case> {
    let style = Style { length: 0, ..Style::disciplined(Rules::default()) };
    let mut base = world(dice, style)?.world;
    base.speed = Speed::Functional;
    base.steps.retain(|s| s.is_some_and(|s| matches!(s.op, Op::Pconfig { .. })));
    let (seam, hw) = (base.agent(AgentKind::Seam, 0)?, base.agent(AgentKind::Hardware, 0)?);
    let device = base.agent(AgentKind::Device, 0)?;
    let at = |keyid| Addr::new(Hpa(PAGE), keyid);
    let private = at(PRIVATE[0]);
    match dice.below(4) {
        0 => base.push(seam, Op::Movdir64b { dst: private, src: Source::Fill(7) }),
        1 => base.push(0, Op::Movdir64b { dst: at(KeyId::TME), src: Source::Fill(8) }),
        2 => base.push(seam, Op::Prefetch { at: private }),
        _ => {}
    }
    base.push(0, Op::Mfence);
    if dice.one_in(4) {
        base.push(hw, Op::InjectUe { at: private });
    }
    base.push(hw, Op::Evict { at: private });
    let size = dice.pick(&[4u32, 8, 16, 32]);
    let value = Value::Fill(dice.below(256) as u8);
    let mut other = base.clone();
    base.push(device, Op::DmaWrite { at: at(KeyId::TME), bytes: 64, value });
    for n in 0..64 / size {
        let at = Addr::new(Hpa(PAGE + u64::from(n * size)), KeyId::TME);
        other.push(device, Op::DmaWrite { at, bytes: size, value });
    }
    Some(Case { base, other, at: PIECES })
}

fn pieces_tell(case: &Case) -> Result<Judged, Unfit> {
    if case.at != PIECES {
        return same_outcomes(case, plain);
    }
    let (a, b) = (case.base.run()?, case.other.run()?);
    let whole = events(&a).iter().rev().find_map(|e| match e.kind {
        EventKind::DramWrite { before, .. } => Some(before),
        _ => None,
    });
    let Some(before) =
        whole.filter(|_| case.base.ops().any(|s| matches!(s.op, Op::DmaWrite { .. })))
    else {
        return Ok(Judged::Vacuous);
    };
    let erratum = case.base.get("memory.erratum_pw_mce") == Some("true");
    let line = Hpa(PAGE).line();
    let (x, y) = (state(&a.machine, line), state(&b.machine, line));
    // L8: the first piece poisons, and leaves all else; L9: poison stays, else the pieces add up to the whole.
    let expected = if erratum && before.td {
        (before.td, before.mac, true, before.writer)
    } else {
        (x.0, x.1, before.poison.is_some(), x.3)
    };
    if y != expected {
        return Ok(Judged::Broken(format!("in pieces {y:?}, expected {expected:?}, whole {x:?}")));
    }
    let read = |ran: &Ran| ran.machine.memory().probe(Addr::new(Hpa(PAGE), KeyId::TME).tagged());
    let (p, q) = (read(&a), read(&b));
    if !y.2 && (p.data, p.class) != (q.data, q.class) {
        return Ok(Judged::Broken(format!("the bytes are {p:?}, in pieces {q:?}")));
    }
    Ok(Judged::Holds)
}

// -------------------------------------------------------------------------------------------------------------------- M12

/// How long nobody does anything between A and B.
const IDLE: Ps = Ps::ns(20_000);

/// Where the second barrier is: behind A and the idle time.
fn cut(world: &World) -> Option<usize> {
    world.steps.iter().enumerate().filter(|(_, s)| s.is_none()).nth(1).map(|(i, _)| i)
}

/// Whether every core fences and idles between the first two barriers, and nothing else happens there.
fn idle_between(case: &Case) -> bool {
    let Some(cut) = cut(&case.base) else { return false };
    let first = case.base.steps.iter().position(Option::is_none).unwrap_or(cut);
    let kernels = case.base.agents.iter().filter(|a| a.kind == AgentKind::Kernel).count();
    let between = case.base.steps.get(first..cut).unwrap_or_default();
    let ops: Vec<Op> = between.iter().flatten().map(|s| s.op).collect();
    ops == [Op::Mfence, Op::Delay { time: IDLE }].repeat(kernels)
}

fn concatenated(dice: &mut Dice) -> Option<Case> {
    // Without rules an agent dies in most programs, and then there is nothing to compare.
    let rules = if dice.one_in(3) {
        Style { faults: dice.one_in(4), ..Style::RAW }
    } else {
        Style::disciplined(Rules::ONE_KEY)
    };
    let style = Style { concurrent: true, length: 20, ..rules };
    let mut base = world(dice, style)?.world;
    base.steps.retain(Option::is_some);
    let second = fill(dice, style, World { steps: Vec::new(), ..base.clone() })?.world;
    // All is idle: everything fenced, and time enough for DRAM to finish.
    base.steps.push(None);
    let kernels: Vec<AgentSpec> =
        base.agents.iter().filter(|a| a.kind == AgentKind::Kernel).cloned().collect();
    for core in 0..kernels.len() {
        base.push(core as u16, Op::Mfence);
        base.push(core as u16, Op::Delay { time: IDLE });
    }
    base.steps.push(None);
    let first = base.fresh();
    let later = second.ops().map(|s| Some(Step { id: s.id + first, ..*s }));
    base.steps.extend(later);
    case(base.clone(), base)
}

fn snapshot_between(case: &Case) -> Result<Judged, Unfit> {
    let whole = case.base.run()?;
    let Some(cut) = cut(&case.other) else { return Ok(Judged::Vacuous) };
    let died = |r: &machine::StepRecord| {
        (r.item as usize) < cut && matches!(r.outcome, Outcome::MachineCheck { .. })
    };
    if whole.records.iter().any(died) {
        // Agents of a new program live.
        return Ok(Judged::Vacuous);
    }
    let program = case.other.program();
    let part = |items: &[machine::Item]| Program { items: items.to_vec(), ..program.clone() };
    let mut machine = case.other.machine()?;
    let mut os = linux(machine.spec());
    machine.run(&part(program.items.get(..cut).unwrap_or_default()), &mut os);
    let saved = postcard::to_allocvec(&machine).map_err(|e| Unfit(e.to_string()))?;
    let mut machine: Machine = postcard::from_bytes(&saved).map_err(|e| Unfit(e.to_string()))?;
    let second = part(program.items.get(cut + 1..).unwrap_or_default());
    let records = machine.run(&second, &mut os);
    let lines =
        |records: &[machine::StepRecord], skip: usize| -> BTreeMap<u32, (Outcome, Ps, Ps)> {
            let later = records.iter().filter(|r| r.item as usize >= skip);
            later.map(|r| (r.item - skip as u32, (r.outcome, r.begin, r.end))).collect()
        };
    let (x, y) = (lines(&whole.records, cut + 1), lines(&records, 0));
    if let Some((n, one)) = x.iter().find(|(n, one)| y.get(n) != Some(one)) {
        return Ok(Judged::Broken(format!("line {n} of B: {one:?}, and {:?}", y.get(n))));
    }
    let after = Ran { records, machine };
    Ok(same_lines(&case.base, &whole, &after, None))
}

// -------------------------------------------------------------------------------------------------------------------- M13

fn unused(dice: &mut Dice) -> Option<Case> {
    if dice.one_in(3) {
        return unused_td(dice);
    }
    // Twice the memory needs other devices: their refresh takes longer, so that moments differ.
    let base = if dice.one_in(2) {
        World { speed: Speed::Functional, ..world(dice, Style::RAW)?.world }
    } else {
        made(dice, Rules::ONE_KEY)?
    };
    let mut other = base.clone();
    other.put("dram.density", "32Gb");
    case(base, other)
}

/// The bytes that no key gives depend on keys, and a TD more draws one more.
fn same_but_garbage(case: &Case) -> Result<Judged, Unfit> {
    let (a, b) = (case.base.run()?, case.other.run()?);
    let tainted = !case.base.tables.is_empty() && (met_garbage(&a) || met_garbage(&b));
    let shown = |seen: &Seen| if tainted { seen.no_bytes() } else { seen.clone() };
    Ok(outcomes_of(case, &a, &b, |one, other| (shown(one), shown(other))))
}

/// The module is up; then there is a TD besides, which nobody uses.
fn unused_td(dice: &mut Dice) -> Option<Case> {
    let ready = "[regions]\nP = { base = \"0x10000000\", size = \"16KiB\" }\n\
                 Q = { base = \"0x50000000\", size = \"16KiB\" }\n[tdx]\nstate = \"ready\"\n";
    let mut base = made(dice, Rules::ONE_KEY)?;
    initialise(&mut base);
    base.tables = ready.to_owned();
    let mut other = base.clone();
    other.tables.push_str("[td.X]\nhkid = \"priv5\"\nstate = \"runnable\"\n");
    case(base, other)
}

// -------------------------------------------------------------------------------------------------------------------- M14

fn fault_nearby(dice: &mut Dice) -> Option<Case> {
    let style = Style { concurrent: false, ..Style::RAW };
    let base = World { speed: Speed::Timed, ..world(dice, style)?.world };
    let mut other = base.clone();
    let hw = base.agent(AgentKind::Hardware, 0)?;
    let at = Addr::new(Hpa(0x3000_0000), KeyId(dice.pick(&[0, 65])));
    for _ in 0..3 {
        let op = match dice.below(4) {
            0 => Op::FlipBit { at, bit: 5 },
            1 => Op::FlipTd { at },
            2 => Op::MoveLine { from: Addr::new(Hpa(PAGE), KeyId::TME), to: at },
            _ => Op::InjectUe { at },
        };
        let place = dice.below(other.steps.len() as u64 + 1) as usize;
        other.insert(place, hw, op);
    }
    case(base, other)
}

fn unnoticed(case: &Case) -> Result<Judged, Unfit> {
    if case.base.steps == case.other.steps {
        return Ok(Judged::Vacuous);
    }
    let (a, b) = (case.base.run()?, case.other.run()?);
    let judged = outcomes_of(case, &a, &b, plain);
    if judged != Judged::Holds {
        return Ok(judged);
    }
    let judged = later(case, &moments(&case.base, &a), &moments(&case.other, &b));
    if judged != Judged::Holds {
        return Ok(judged);
    }
    Ok(same_lines(&case.base, &a, &b, Some(Hpa(0x3000_0000).line())))
}
