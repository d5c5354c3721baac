//! A way through the search as a program that `tdxsim run` accepts.
//!
//! The order of the lines is the order of what happened; hardware's choices are lines of `hw`, prefetches and forgotten
//! translations lines of agents made for them. What hardware does by itself after a while must wait: a weakly ordered
//! operation is visible after `latency.weak_wait`, which the file sets long.

use super::seam::told as told_move;
use super::world::{Explorer, Move, World};
use crate::format::{
    Agent, Crypto, FinalCheck, Line, Located, Part, Pattern, Refinement, Scenario, StepRef,
};
use crate::platform::{Origin, Override};
use crate::report::Verdict;
use crate::run::{Cell, Request, plan, run};
use machine::{AgentKind, Order};
use sim_core::op::{AddrExpr, Base, KeyRef, RegBase, RegExpr, TextOp};
use sim_core::{Addr, KeyId, Op, Ps};
use std::collections::{BTreeMap, BTreeSet};
use verify::search::System;

/// Where a call stands among what happened while it was under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Before it.
    Begin,
    /// Behind it.
    End,
}

/// A line of the program to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A line of the scenario's own program.
    Line(usize),
    /// A choice of hardware.
    Hw(Op),
    /// A fill that nobody asked for, on the core of this agent.
    Prefetch(usize, Addr),
    /// A dropped translation of this guest.
    Forget(usize, u64),
}

impl Item {
    /// Whether it is one of these lines of the scenario's own program.
    pub(super) fn is_line_of(&self, lines: &BTreeSet<usize>) -> bool {
        matches!(self, Item::Line(line) if lines.contains(line))
    }
}

/// What stands behind an operation that had begun before.
const GOES_ON: &str = " (goes on)";

/// What the program shows.
pub(super) struct Shown<'a> {
    /// By line: the words that its operation came to.
    pub(super) words: &'a [Option<String>],
    /// By final check: whether it holds, and what is there.
    pub(super) finals: &'a [(bool, String)],
    /// Which counterexample of the scenario, from 1.
    pub(super) nth: usize,
}

/// The moves in words, operations as the program has them.
pub(super) fn told(x: &mut Explorer, start: &World, moves: &[Move]) -> Vec<String> {
    let mut now = start.clone();
    let mut out = Vec::new();
    for mv in moves {
        let text = match *mv {
            Move::Step(agent) => {
                let line = x.turn_of(&now, agent);
                let name = x.agents.get(agent).map_or("?", |a| a.name.as_str());
                let what = line.and_then(|line| x.text_of(line)).unwrap_or("?");
                match line.is_some_and(|line| x.is_under_way(&now, agent, line)) {
                    true => format!("{name}: {what}{GOES_ON}"),
                    false => format!("{name}: {what}"),
                }
            }
            Move::StoreLeave(core) => match now.memory.buffered(core).first() {
                Some(store) => {
                    let (at, keyid) = (store.at.line().hpa().0, store.at.keyid());
                    format!("{} [{at:#x}@{keyid}]", told_move(x, mv))
                }
                None => told_move(x, mv),
            },
            _ => told_move(x, mv),
        };
        // A call's steps, one behind the other, are one thing to a reader.
        if !(text.ends_with(GOES_ON) && out.last() == Some(&text)) {
            out.push(text);
        }
        match x.apply(&now, mv) {
            Some(next) => now = next,
            None => break,
        }
    }
    out
}

/// The lines of a program that does the same.
pub(super) fn ordered(x: &mut Explorer, start: &World, moves: &[Move], way: Way) -> Vec<Item> {
    let mut now = start.clone();
    let mut out = Vec::new();
    for mv in moves {
        let turn = match mv {
            Move::Step(agent) => x.turn_of(&now, *agent).map(|line| (*agent, line)),
            _ => None,
        };
        let begins = turn.is_some_and(|(agent, line)| !x.is_under_way(&now, agent, line));
        let Some(next) = x.apply(&now, mv) else { break };
        let ends = turn.is_some_and(|(agent, line)| !x.is_under_way(&next, agent, line));
        match (mv, turn) {
            (Move::Step(_), Some((_, line)))
                if way == Way::Begin && begins || way == Way::End && ends =>
            {
                out.push(Item::Line(line));
            }
            (Move::Hw(op), _) => out.push(Item::Hw(*op)),
            (Move::StoreLeave(core), _) => visible_later(x, &now, *core, &mut out),
            (Move::Prefetch(agent, at), _) => out.push(Item::Prefetch(*agent, *at)),
            (Move::Forget(agent, linear), _) => out.push(Item::Forget(*agent, *linear)),
            (Move::Timer, _) if x.order == Order::Concurrent => {
                let irq = |core| Item::Hw(Op::Irq { core, kind: sim_core::op::IrqKind::Interrupt });
                out.extend(x.parked_cores(&now).into_iter().map(irq));
            }
            _ => {}
        }
        now = next;
    }
    out
}

/// A store that has just become visible: if its agent did nothing since, the program may as well have it here. What the agent
/// did while its store waited cannot be written: the lines of a program come one after the other.
fn visible_later(x: &Explorer, now: &World, core: u16, out: &mut Vec<Item>) {
    let of_core = |item: &Item| match item {
        Item::Line(line) => x
            .step_of(*line)
            .filter(|(agent, _)| x.agents.get(*agent).is_some_and(|a| a.core == Some(core)))
            .map(|(_, op)| matches!(op, Op::Store { .. })),
        _ => None,
    };
    let Some(last) = out.iter().rposition(|item| of_core(item).is_some()) else { return };
    let youngest = now.memory.buffered(core).len() == 1;
    if youngest && out.get(last).and_then(of_core) == Some(true) {
        let item = out.remove(last);
        out.push(item);
    }
}

/// Weakly ordered operations wait until the file says that they are visible.
fn hold_back(s: &mut Scenario, x: &Explorer) {
    let weak = |op: &Op| {
        matches!(
            op,
            Op::Movdiri { .. }
                | Op::Movdir64b { .. }
                | Op::Movdir64bPage { .. }
                | Op::Clflushopt { .. }
                | Op::Clwb { .. }
        )
    };
    let any_weak = (0..x.lines.len()).any(|i| x.step_of(i).is_some_and(|(_, op)| weak(op)));
    if any_weak && !s.set.iter().any(|o| o.key == "latency.weak_wait") {
        s.set.push(Override::set("latency.weak_wait", "1ms"));
    }
}

/// The file's head: the scenario's own, for this part of its matrix.
fn head(from: &Scenario, cell: &Cell, request: &Request, nth: usize) -> Option<Scenario> {
    let spec = cell.platform();
    let mut s = from.clone();
    let suffix = format!("-cx{}", nth);
    s.name = format!("{}{suffix}", from.name.get(..from.name.len().min(40 - suffix.len()))?);
    s.title = format!("Found by tdxsim explore: {}", from.title);
    if s.title.len() > 160 {
        s.title = format!("Found by tdxsim explore in {}", from.name);
    }
    if let Some(Origin::Preset(name)) = &request.platform {
        s.platforms = vec![name.clone()];
    } else if request.platform.is_none() {
        s.platforms = vec![spec.name.clone()];
    }
    s.integrity = vec![spec.memory.integrity];
    s.checks = Default::default();
    s.refinements = Vec::<Refinement>::new();
    s.crypto = vec![Crypto::Symbolic];
    for over in &request.overrides {
        s.set.retain(|o| o.key != over.key);
        s.set.push(over.clone());
    }
    s.set.retain(|o| o.key != "memory.integrity");
    Some(s)
}

/// Of the matrix.
fn part(cell: &Cell) -> Part<'_> {
    let spec = cell.platform();
    Part {
        platform: &spec.name,
        integrity: spec.memory.integrity,
        crypto: Crypto::Symbolic,
        erratum: spec.memory.erratum_pw_mce,
    }
}

/// Whether a file can say of every final check that does not hold what is there instead.
pub(super) fn finals_can_be_said(from: &Scenario, cell: &Cell, shown: &Shown<'_>) -> bool {
    let finals = from.checks_for(&part(cell)).finals.into_iter();
    finals.zip(shown.finals).all(|(c, (met, seen))| *met || opposite(c.value, seen).is_some())
}

/// What the file expects: what was seen of each line that is one of the scenario's own, and how it stood at the end.
fn expect(
    s: &mut Scenario,
    from: &Scenario,
    cell: &Cell,
    own: &[Option<usize>],
    shown: &Shown<'_>,
) {
    let part = part(cell);
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for (own, line) in own.iter().zip(&s.program) {
        let Line::Op { agent, .. } = line else { continue };
        let count = counts.entry(agent).or_insert(0);
        *count += 1;
        let word = own.and_then(|i| shown.words.get(i).cloned().flatten());
        let Some(pattern) = word.and_then(|w| w.parse::<Pattern>().ok()) else { continue };
        let step = StepRef { agent: agent.clone(), index: *count };
        s.checks.expect.insert(step, Located::from(pattern));
    }
    for (check, (met, seen)) in from.checks_for(&part).finals.into_iter().zip(shown.finals) {
        let check = if *met { Some(check.value) } else { opposite(check.value, seen) };
        s.checks.finals.extend(check.map(Located::from));
    }
}

/// The program as a scenario file; `None` where the grammar has no words for it.
pub(super) fn scenario(
    from: &Scenario,
    cell: &Cell,
    request: &Request,
    x: &Explorer,
    items: &[Item],
    shown: &Shown<'_>,
) -> Option<String> {
    let mut s = head(from, cell, request, shown.nth)?;
    s.order = Order::Program;
    hold_back(&mut s, x);
    let hw = hardware(&mut s)?;
    let mut program = Vec::new();
    let text = |op: Op| text_op(x, cell, op);
    for item in items {
        let line = match *item {
            Item::Line(line) => from.program.get(line)?.clone(),
            Item::Hw(op) => Line::Op { agent: hw.clone(), op: text(op), at: Default::default() },
            Item::Prefetch(agent, at) => {
                let spec = x.agents.get(agent)?;
                let name = named("prefetch", &spec.name);
                declare(
                    &mut s,
                    Agent {
                        name: name.clone(),
                        kind: spec.kind,
                        core: spec.core,
                        keyid: (spec.keyid != KeyId::TME || spec.kind == AgentKind::Td)
                            .then(|| key_ref(x, spec.keyid)),
                        vcpu: None,
                        at: Default::default(),
                    },
                );
                let mut op = text(Op::Prefetch { at });
                if let TextOp::Prefetch { at: expr } = &mut op {
                    expr.key = Some(key_ref(x, at.keyid));
                }
                Line::Op { agent: name, op, at: Default::default() }
            }
            Item::Forget(agent, linear) => {
                let old = &x.agents.get(agent)?.name;
                let guest = from.agents.iter().find(|a| a.name == *old)?.clone();
                let name = named("forget", old);
                declare(&mut s, Agent { name: name.clone(), ..guest });
                let base = Base::Abs(linear);
                let op = TextOp::Invlpg { at: AddrExpr { base, key: None } };
                Line::Op { agent: name, op, at: Default::default() }
            }
        };
        program.push(line);
    }
    s.program = program;

    let own: Vec<Option<usize>> = items
        .iter()
        .map(|i| match i {
            Item::Line(line) => Some(*line),
            _ => None,
        })
        .collect();
    expect(&mut s, from, cell, &own, shown);
    (!s.checks.is_empty()).then(|| s.to_text())
}

/// The scenario's own program, side by side, with an agent that begins later: what happens within calls has no line of its
/// own, but may be a matter of time.
pub(super) fn later(
    from: &Scenario,
    cell: &Cell,
    request: &Request,
    x: &Explorer,
    (agent, delay): (usize, Ps),
    shown: &Shown<'_>,
) -> Option<String> {
    let mut s = head(from, cell, request, shown.nth)?;
    let name = &x.agents.get(agent)?.name;
    let mut own = Vec::new();
    let mut program = Vec::new();
    let mut waits = false;
    for (i, line) in from.program.iter().enumerate() {
        if let Line::Op { agent, .. } = line
            && agent == name
            && !waits
        {
            waits = true;
            let (agent, op) = (name.clone(), TextOp::Delay { time: delay });
            program.push(Line::Op { agent, op, at: Default::default() });
            own.push(None);
        }
        program.push(line.clone());
        own.push(Some(i));
    }
    s.program = program;
    expect(&mut s, from, cell, &own, shown);
    (!s.checks.is_empty()).then(|| s.to_text())
}

/// How much later an agent may begin, in nanoseconds.
pub(super) const DELAYS: [u64; 14] = [1, 3, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 250, 400];

/// Whether `tdxsim run` shows what the file says.
pub(super) fn reproduces(text: &str, request: &Request) -> bool {
    let request = Request { platform: request.platform.clone(), ..Request::default() };
    let Ok(scenario) = Scenario::from_text("counterexample.toml", text) else { return false };
    let Ok(cells) = plan(&scenario, &request) else { return false };
    match cells.as_slice() {
        [cell] => run(cell, &request).is_ok_and(|report| report.verdict == Verdict::Pass),
        _ => false,
    }
}

/// What stands instead of a final check that does not hold, where there are words for it.
fn opposite(check: FinalCheck, seen: &str) -> Option<FinalCheck> {
    Some(match check {
        FinalCheck::Poisoned { at, holds } => FinalCheck::Poisoned { at, holds: !holds },
        FinalCheck::Td { at, holds } => FinalCheck::Td { at, holds: !holds },
        FinalCheck::Mac { at, holds } => FinalCheck::Mac { at, holds: !holds },
        FinalCheck::Cached { at, holds } => FinalCheck::Cached { at, holds: !holds },
        FinalCheck::Dirty { at, holds } => FinalCheck::Dirty { at, holds: !holds },
        FinalCheck::Panic { holds } => FinalCheck::Panic { holds: !holds },
        FinalCheck::TdxDisabled { holds } => FinalCheck::TdxDisabled { holds: !holds },
        FinalCheck::TdFatal { tdr, holds } => FinalCheck::TdFatal { tdr, holds: !holds },
        FinalCheck::Tlb { core, tdr, address, holds } => {
            FinalCheck::Tlb { core, tdr, address, holds: !holds }
        }
        FinalCheck::Reads { at, .. } => {
            FinalCheck::Reads { at, pattern: sayable(seen).parse().ok()? }
        }
        FinalCheck::Ucna(_) => FinalCheck::Ucna(seen.parse().ok()?),
        FinalCheck::Births(_) => FinalCheck::Births(seen.parse().ok()?),
        FinalCheck::LivePoison(_) => FinalCheck::LivePoison(seen.parse().ok()?),
        FinalCheck::PartialWrites(_) => FinalCheck::PartialWrites(seen.parse().ok()?),
        _ => return None,
    })
}

/// Words of which a pattern can say only the class: some of their bytes nobody knows.
fn sayable(seen: &str) -> &str {
    if seen.contains('?') { seen.split(' ').next().unwrap_or(seen) } else { seen }
}

/// The agent that makes hardware's choices: one whose lines nobody counts.
fn hardware(s: &mut Scenario) -> Option<String> {
    let taken = |name: &str, s: &Scenario| {
        let acts = |l: &Line| matches!(l, Line::Op { agent, .. } if agent == name);
        s.program.iter().any(acts) || s.agents.iter().any(|a| a.name == name)
    };
    if !taken("hw", s) {
        return Some("hw".to_owned());
    }
    let name = (2..100).map(|n| format!("hw_{n}")).find(|name| !taken(name, s))?;
    let (kind, at) = (AgentKind::Hardware, Default::default());
    s.agents.push(Agent { name: name.clone(), kind, core: None, keyid: None, vcpu: None, at });
    Some(name)
}
fn declare(s: &mut Scenario, agent: Agent) {
    if !s.agents.iter().any(|a| a.name == agent.name) {
        s.agents.push(agent);
    }
}
fn named(what: &str, agent: &str) -> String {
    let name = format!("{what}_{agent}");
    name.get(..32).map_or(name.clone(), str::to_owned)
}

fn key_ref(x: &Explorer, keyid: KeyId) -> KeyRef {
    let layout = &x.spec.keyid;
    let private = (0..layout.tdx_priv_kids).find(|n| layout.private(*n) == Some(keyid));
    match private {
        Some(n) => KeyRef::Private(n),
        None => KeyRef::Num(keyid.0.into()),
    }
}
fn text_op(x: &Explorer, cell: &Cell, op: Op) -> TextOp {
    let areas = &cell.program().areas;
    let address = |at: Addr| {
        let inside =
            areas.iter().find(|a| (a.base..a.base.saturating_add(a.size)).contains(&at.hpa.0));
        let base = match inside {
            Some(area) => Base::Region { name: area.name.clone(), offset: at.hpa.0 - area.base },
            None => Base::Abs(at.hpa.0),
        };
        let key = (at.keyid != KeyId::TME).then(|| key_ref(x, at.keyid));
        Ok::<_, std::convert::Infallible>(AddrExpr { base, key })
    };
    let register = |n: u64| Ok(RegExpr { base: RegBase::Num(n), or: 0 });
    match op.try_map(address, |k| Ok(KeyRef::Num(k.0.into())), register) {
        Ok(op) => op,
        Err(never) => match never {},
    }
}
