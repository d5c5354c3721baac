//! The world that is searched: the reference model, the agents' places in their program, and what they have seen.
//!
//! Some lines are *watched*: on these hardware makes every choice. All others are *calm*: what is done to them is in memory
//! at once and stays nowhere else, or, where nobody but the module looks at them, they are not modelled at all
//! ([`super::lines`]). A choice on a line commutes with every operation that does not touch the line, so it is offered only
//! where the next operation of some agent touches it, and at the end where a final check looks at it.

use super::lines::Lines;
use super::seam::Seam;
use crate::format::{AgentSpec, FinalCheck, Pattern, Program, ProgramLine};
use crate::run::linux;
use host::mce::LinuxMce;
use machine::{AgentKind, Order};
use rustc_hash::FxHashMap;
use sim_core::mca::{
    MCACOD_DATA_LOAD, MCACOD_FETCH, McAccess, McConsequence, McContext, McRecord, McStatus,
    McgStatus,
};
use sim_core::op::{MemType, Source, Value};
use sim_core::outcome::{DataClass, GpReason, Loaded, NotRun};
use sim_core::port::McHandler;
use sim_core::tdx::ExitReason;
use sim_core::{Addr, BirthId, ByteMask, Hpa, Line, LineData, Op, Outcome, PlatformSpec, Tagged};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use verify::reference::{
    Act, Agent, Bytes, Choice, Reference, Request, Seen, Spec, Step, StepOutcome, Transaction,
};
use verify::search::System;

/// What leads from a world to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// An agent, by its number, goes on with its program.
    Step(usize),
    /// A choice of hardware, as an operation of the agent `hw`.
    Hw(Op),
    /// A core on which an agent runs fills a line that nobody asked for.
    Prefetch(usize, Addr),
    /// A logical processor drops its translation of a guest's page: the guest, and a linear address.
    Forget(usize, u64),
    /// A timer fires on every core: guests leave.
    Timer,
    /// The oldest store that a core holds back becomes visible.
    StoreLeave(u16),
}

/// What an operation came to, and which of the bytes that it returned the reference cannot know.
pub(super) type Saw = (Outcome, ByteMask);

/// All bytes are known.
pub(super) const KNOWN: ByteMask = ByteMask(0);

/// What an agent saw, in the words of the scenario format.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// The words. A byte that the reference cannot know is `??`; where it knows none, they are left out.
    pub(super) text: String,
    /// As much of it as a pattern of a scenario file can say.
    pub(super) pattern: String,
    /// What patterns are held against: the outcome with one value in the bytes that nobody knows, and with another.
    outcomes: [Outcome; 2],
    /// The bytes that nobody knows.
    unknown: ByteMask,
}

impl Word {
    pub(super) fn of((outcome, unknown): Saw) -> Word {
        let Outcome::Data(loaded) = outcome else {
            let text = outcome.to_string();
            return Word { pattern: text.clone(), text, outcomes: [outcome; 2], unknown: KNOWN };
        };
        let with = |byte: u8| {
            let mut data = loaded.data;
            data.merge(&LineData::filled(byte), unknown);
            Loaded { data, ..loaded }
        };
        // Neither is zeros, so that the class is that of bytes which are something.
        let outcomes = [with(0x5a), with(0xa5)].map(Outcome::Data);
        let whole = outcomes[0].to_string();
        let class = whole.split(' ').next().unwrap_or_default().to_owned();
        let n = loaded.bytes.min(64) as usize;
        let asked = ByteMask::span(0, n);
        match unknown.0 & asked.0 {
            0 => Word { pattern: whole.clone(), text: whole, outcomes, unknown },
            gone if gone == asked.0 => {
                Word { text: class.clone(), pattern: class, outcomes, unknown }
            }
            gone => {
                let byte = |i: usize| match gone >> i & 1 {
                    0 => format!("{:02x}", loaded.data.byte(i)),
                    _ => "??".to_owned(),
                };
                // As Loaded has them: a number up to 8 bytes, bytes in the order of memory from there on.
                let text = if n > 8 {
                    format!("{class} bytes={}", (0..n).map(byte).collect::<String>())
                } else {
                    format!("{class} 0x{}", (0..n).rev().map(byte).collect::<String>())
                };
                Word { text, pattern: class, outcomes, unknown }
            }
        }
    }
    /// Whether it fits a pattern, whatever the bytes are that the reference cannot know.
    pub(super) fn fits(&self, pattern: impl Fn(&Outcome) -> bool) -> bool {
        self.outcomes.iter().all(pattern)
    }
    /// Whether it fits a pattern for some value of those bytes.
    pub(super) fn may_fit(&self, pattern: &Pattern) -> bool {
        pattern.may_match(&self.outcomes[0], self.unknown)
    }
    /// What tells it from others. Two loads of different sizes may print alike, and are two outcomes: a pattern for all bytes
    /// loaded can fit one of them alone.
    fn key(&self) -> (u32, String) {
        let bytes = match self.outcomes[0] {
            Outcome::Data(loaded) => loaded.bytes,
            _ => 0,
        };
        (bytes, self.text.clone())
    }
}

/// No word yet.
pub(super) const UNSEEN: u16 = u16::MAX;
/// The word of an operation of which the model cannot say what it comes to.
pub(super) const LOST: u16 = 0;

/// Who can run no more (architecture.md §6.3).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Fate {
    pub(super) panicked: bool,
    pub(super) tdx_disabled: bool,
    /// Agents.
    pub(super) dead: BTreeSet<usize>,
    /// Cores.
    pub(super) shut_down: BTreeSet<u16>,
    /// The run went on in a way that is not modelled: it is not followed any further.
    pub(super) astray: bool,
}

/// What final checks count, kept only where one does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Counts {
    pub(super) births: u32,
    pub(super) ucna: u32,
    pub(super) partial_writes: u32,
}

/// A machine check on its way: the access met poison, and what it retires with comes later. Until then others go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Retiring {
    pub(super) core: u16,
    pub(super) context: McContext,
    /// Whether the core cannot go on from it.
    pub(super) fatal: bool,
    pub(super) what: (McAccess, Tagged),
}

/// Of which birth of poison a machine check comes nobody asks here: a search forgets history, and births are named anew.
const SOME_BIRTH: BirthId = BirthId(NonZeroU32::MIN);

/// A state of the search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct World {
    /// Watched lines, caches, buffers, keys.
    pub(super) memory: Reference,
    /// Calm lines and the same keys.
    pub(super) calm: Arc<Reference>,
    /// The TDX module, its calls under way, guests and TLBs; none where the program needs none.
    pub(super) seam: Option<Arc<Seam>>,
    /// In the order of the program: the line that begins next, alone. Concurrent: by agent, the first line that may be its
    /// next.
    pub(super) at: Vec<u32>,
    /// Concurrent: where the present segment begins.
    pub(super) base: u32,
    /// By line of the program: a number of [`Explorer::words`].
    pub(super) seen: Vec<u16>,
    pub(super) fate: Fate,
    /// Concurrent: by agent, the machine check with which its operation retires.
    pub(super) retiring: BTreeMap<usize, Retiring>,
    pub(super) counts: Counts,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Calm lines and the module follow from what was done and seen, nearly always: comparing them is enough.
        self.memory.state().hash(state);
        (&self.at, self.base, &self.seen, &self.fate, &self.retiring, self.counts).hash(state);
        if let Some(seam) = &self.seam {
            seam.hash_cheaply(state);
        }
    }
}

/// Lines whose choices matter now.
#[derive(Clone, Debug, Default)]
pub(super) struct Deps {
    all: bool,
    lines: Vec<Line>,
}

impl Deps {
    fn has(&self, line: Line) -> bool {
        self.all || self.lines.contains(&line)
    }
    pub(super) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }
}

/// The system that is searched: what does not change, and the words interned so far.
pub(super) struct Explorer {
    pub(super) spec: PlatformSpec,
    pub(super) agents: Vec<AgentSpec>,
    pub(super) lines: Vec<ProgramLine>,
    pub(super) order: Order,
    pub(super) watch: Lines,
    pub(super) words: Vec<Word>,
    ids: FxHashMap<(u32, String), u16>,
    /// Final checks: whether there are any, their lines, and whether one counts.
    finals: bool,
    final_lines: Vec<Line>,
    pub(super) counted: bool,
    prefetch: bool,
    /// Offers every choice in every state: what the reductions are held against.
    #[cfg(test)]
    pub(super) everywhere: bool,
    /// Whether at most one agent ever calls the module: then nobody can tell its steps apart.
    pub(super) lone_caller: bool,
    /// Something that a run on the reference cannot show, once it was met.
    pub(super) not_modelled: Option<String>,
    /// A move that was offered and is not possible: a defect of the exploration.
    pub(super) broken: Option<String>,
}

impl Explorer {
    pub(super) fn new(
        spec: &PlatformSpec,
        program: &Program,
        watch: Lines,
        prefetch: bool,
    ) -> Self {
        let calls = |i: usize| {
            program.lines.iter().any(
                |line| matches!(line, ProgramLine::Step(s) if s.agent == i && s.op.needs_module()),
            )
        };
        let guest = |a: &AgentSpec| a.kind == AgentKind::Guest;
        let callers = program.agents.iter().enumerate().filter(|(i, a)| guest(a) || calls(*i));
        let mut final_lines = Vec::new();
        let mut counted = false;
        for check in &program.finals {
            match &check.check {
                FinalCheck::Poisoned { at, .. }
                | FinalCheck::Td { at, .. }
                | FinalCheck::Mac { at, .. }
                | FinalCheck::Writer { at, .. } => final_lines.push(*at),
                FinalCheck::Cached { at, .. }
                | FinalCheck::Dirty { at, .. }
                | FinalCheck::Reads { at, .. } => final_lines.push(at.line()),
                FinalCheck::Ucna(_)
                | FinalCheck::Births(_)
                | FinalCheck::LivePoison(_)
                | FinalCheck::PartialWrites(_) => counted = true,
                _ => {}
            }
        }
        Explorer {
            lone_caller: callers.count() <= 1,
            spec: spec.clone(),
            agents: program.agents.clone(),
            lines: program.lines.clone(),
            order: program.order,
            watch,
            words: vec![Word::of((Outcome::NotRun(NotRun::NotModelled), KNOWN))],
            ids: FxHashMap::default(),
            finals: !program.finals.is_empty(),
            final_lines,
            counted,
            prefetch,
            #[cfg(test)]
            everywhere: false,
            not_modelled: None,
            broken: None,
        }
    }

    /// The world at power-on, with the module loaded if the program needs one.
    pub(super) fn power_on(&self, with_module: bool) -> World {
        let reference = Reference::new(Spec::new(&self.spec));
        let at = match self.order {
            Order::Program => 1,
            Order::Concurrent => self.agents.len(),
        };
        World {
            calm: Arc::new(reference.clone()),
            memory: reference,
            seam: with_module.then(|| Arc::new(Seam::new(&self.spec))),
            at: vec![0; at],
            base: 0,
            seen: vec![UNSEEN; self.lines.len()],
            fate: Fate::default(),
            retiring: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    // ------------------------------------------------------------------------------------------------------- words

    /// The number of a word; none where there are too many.
    fn intern(&mut self, saw: Saw) -> Option<u16> {
        let word = Word::of(saw);
        let key = word.key();
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        let id = u16::try_from(self.words.len()).ok().filter(|id| *id != UNSEEN)?;
        self.ids.insert(key, id);
        self.words.push(word);
        Some(id)
    }
    pub(super) fn word(&self, id: u16) -> Option<&Word> {
        self.words.get(usize::from(id))
    }
    /// The operation of a line is over.
    pub(super) fn over(&mut self, w: &mut World, line: usize, saw: Saw) {
        // Two words with one number would be one outcome.
        let id = self.intern(saw).unwrap_or_else(|| {
            self.goes_astray(w, format!("more than {} different words", UNSEEN - 1));
            LOST
        });
        if let Some(slot) = w.seen.get_mut(line) {
            *slot = id;
        }
    }
    /// The run goes on in a way that the model does not know.
    pub(super) fn goes_astray(&mut self, w: &mut World, why: impl Into<String>) {
        w.fate.astray = true;
        self.not_modelled.get_or_insert_with(|| why.into());
    }
    /// The same, and what the operation came to.
    pub(super) fn lost_track(&mut self, w: &mut World, why: impl Into<String>) -> Saw {
        self.goes_astray(w, why);
        (Outcome::NotRun(NotRun::NotModelled), KNOWN)
    }

    // ------------------------------------------------------------------------------------------------ whose turn it is

    pub(super) fn step_of(&self, line: usize) -> Option<(usize, &Op)> {
        match self.lines.get(line)? {
            ProgramLine::Step(step) => Some((step.agent, &step.op)),
            ProgramLine::Barrier => None,
        }
    }
    /// The end of the segment that begins at `base`.
    fn segment_end(&self, base: usize) -> usize {
        let rest = self.lines.get(base..).unwrap_or_default();
        let barrier = rest.iter().position(|l| matches!(l, ProgramLine::Barrier));
        base + barrier.unwrap_or(rest.len())
    }
    /// The line that an agent begins next, if it has one left in the segment.
    fn next_line(&self, w: &World, agent: usize) -> Option<usize> {
        let base = w.base as usize;
        let from = (*w.at.get(agent)? as usize).max(base);
        (from..self.segment_end(base)).find(|i| self.step_of(*i).is_some_and(|(a, _)| a == agent))
    }
    /// Which agents can move, each with the line that it is at.
    fn turns(&self, w: &World) -> Vec<(usize, usize)> {
        match self.order {
            Order::Program => {
                let line = w.at.first().map_or(0, |at| *at as usize);
                self.step_of(line).map(|(agent, _)| (agent, line)).into_iter().collect()
            }
            Order::Concurrent => {
                let agents = 0..self.agents.len();
                agents
                    .filter_map(|a| Some((a, self.next_line(w, a)?)))
                    .filter(|(agent, line)| {
                        w.retiring.contains_key(agent)
                            || self.can_move(w, *agent, *line) && !self.is_held_up(w, *agent)
                    })
                    .collect()
            }
        }
    }
    /// The line at which an agent is that can move.
    pub(super) fn turn_of(&self, w: &World, agent: usize) -> Option<usize> {
        self.turns(w).into_iter().find(|(a, _)| *a == agent).map(|(_, line)| line)
    }
    /// The operation of a line in the words of the file.
    pub(super) fn text_of(&self, line: usize) -> Option<&str> {
        match self.lines.get(line)? {
            ProgramLine::Step(step) => Some(&step.text),
            ProgramLine::Barrier => None,
        }
    }
    /// The line that an agent waits to begin.
    pub(super) fn waiting_line(&self, w: &World, agent: usize) -> Option<usize> {
        match self.order {
            Order::Program => None,
            Order::Concurrent => self.next_line(w, agent),
        }
    }
    /// Whether nothing is left of the program.
    pub(super) fn is_done(&self, w: &World) -> bool {
        match self.order {
            Order::Program => w.at.first().is_none_or(|at| *at as usize >= self.lines.len()),
            Order::Concurrent => w.base as usize >= self.lines.len(),
        }
    }
    /// Whether a world is an end: the program is over, guests have left, and where anybody looks all that is bound to
    /// become visible is. So is one that is not followed any further.
    pub(super) fn is_end(&self, w: &World) -> bool {
        if w.fate.astray {
            return true;
        }
        let pending = w.memory.state().pending.values().any(|p| !p.weak.is_empty());
        self.is_done(w)
            && !w.seam.as_ref().is_some_and(|s| s.guest_runs())
            && !(pending && self.finals)
    }

    // ------------------------------------------------------------------------------------------------------ choices

    /// The lines that the next operation of an agent touches or may touch.
    fn deps_of(&self, w: &World, agent: usize, line: usize, deps: &mut Deps) {
        let Some((_, op)) = self.step_of(line) else { return };
        let Some(spec) = self.agents.get(agent) else { return };
        if let Some(late) = w.retiring.get(&agent) {
            return self.sent_off_by_check(w, late.core, deps);
        }
        if w.fate.panicked && spec.kind != AgentKind::Hardware {
            return;
        }
        if let Some(seam) = &w.seam
            && seam.deps(self, w, agent, op, deps)
        {
            return;
        }
        let pending = |core: u16, deps: &mut Deps, weak: bool| {
            if let Some(p) = w.memory.state().pending.get(&core) {
                deps.lines.extend(p.wc.iter().map(|b| b.at.line()));
                if weak {
                    deps.lines.extend(p.weak.iter().map(|b| b.at.line()));
                }
            }
        };
        match op {
            Op::Wbinvd
            | Op::Wbnoinvd
            | Op::Wbinvdp { .. }
            | Op::Wbnoinvdp { .. }
            | Op::Pconfig { .. } => deps.all = true,
            Op::WcEvict { core } => pending(*core as u16, deps, false),
            _ => {
                for (at, bytes) in spans(op) {
                    deps.lines.extend(self.watch.watched(at, bytes));
                }
            }
        }
        if let Some(core) = spec.core {
            // A machine check, or a buffer too many, sends buffers off as well.
            let drains =
                matches!(op, Op::Mfence | Op::Sfence | Op::LockXadd { .. } | Op::Interrupt);
            pending(core, deps, drains);
            self.sent_off_by_check(w, core, deps);
        }
    }
    /// The lines of what a machine check of a core sends off, there or, as a broadcast, everywhere.
    pub(super) fn sent_off_by_check(&self, w: &World, core: u16, deps: &mut Deps) {
        let taking = w.memory.state().pending.iter();
        let taking = taking.filter(|(taker, _)| **taker == core || !self.spec.mce.lmce);
        deps.lines.extend(taking.flat_map(|(_, p)| p.wc.iter().map(|b| b.at.line())));
    }

    /// The choices that hardware has on these lines.
    fn choices(&self, w: &World, deps: &Deps, out: &mut Vec<Move>) {
        let state = w.memory.state();
        let mut last = None;
        for ((at, _), _) in &state.caches {
            if last == Some(*at) || !deps.has(at.line()) {
                continue;
            }
            last = Some(*at);
            let place = Addr::new(at.line().hpa(), at.keyid());
            out.push(Move::Hw(Op::Evict { at: place }));
            if w.memory.copies(*at).any(|(_, c)| c.state.is_dirty()) {
                out.push(Move::Hw(Op::WriteBack { at: place }));
            }
        }
        for (core, pending) in &state.pending {
            let wc = pending.wc.iter().map(|b| b.at);
            for at in wc.chain(pending.weak.iter().map(|o| o.at)).filter(|at| deps.has(at.line())) {
                let at = Addr::new(at.line().hpa(), at.keyid());
                out.push(Move::Hw(Op::Drain { core: u32::from(*core), at }));
            }
        }
        // A store that leaves may be what anybody waits for, whatever line it is on: others wait behind it.
        let holding = state.pending.iter().filter(|(_, p)| !p.stores.is_empty());
        out.extend(holding.map(|(core, _)| Move::StoreLeave(*core)));
        if self.prefetch {
            self.prefetches(w, deps, out);
        }
    }

    fn prefetches(&self, w: &World, deps: &Deps, out: &mut Vec<Move>) {
        for (i, agent) in self.agents.iter().enumerate() {
            let Some(core) = agent.core else { continue };
            if self.refusal(w, i).is_some() {
                continue;
            }
            for line in self.watch.all().filter(|line| deps.has(*line)) {
                for keyid in self.watch.keyids() {
                    let private = self.spec.keyid.is_private(*keyid);
                    let formable = match agent.kind {
                        AgentKind::Seam => true,
                        AgentKind::Td => !private || *keyid == agent.keyid,
                        _ => !private,
                    };
                    let at = Tagged::new(line, *keyid);
                    let place = verify::reference::Place::Core(core);
                    if formable && !w.memory.state().caches.contains_key(&(at, place)) {
                        out.push(Move::Prefetch(i, Addr::new(line.hpa(), *keyid)));
                    }
                }
            }
        }
    }

    /// Who an agent is to the reference model. The operations of hardware are not looked at for who does them.
    pub(super) fn who(&self, agent: usize) -> Agent {
        match self.agents.get(agent).map(|a| (a.kind, a.keyid)) {
            Some((AgentKind::User, _)) => Agent::User,
            Some((AgentKind::Seam, _)) => Agent::SeamRoot,
            Some((AgentKind::Td, keyid)) => Agent::Td(keyid),
            Some((AgentKind::Device, _)) => Agent::Device,
            Some((AgentKind::Kernel | AgentKind::Hardware | AgentKind::Guest, _)) | None => {
                Agent::Kernel
            }
        }
    }

    /// What an agent's operation gets that is not run.
    pub(super) fn refusal(&self, w: &World, agent: usize) -> Option<Outcome> {
        let spec = self.agents.get(agent)?;
        let down = |core: u16| w.fate.shut_down.contains(&core);
        if w.fate.panicked && spec.kind != AgentKind::Hardware {
            Some(Outcome::NotRun(NotRun::Panic))
        } else if w.fate.dead.contains(&agent) {
            Some(Outcome::NotRun(NotRun::Killed))
        } else if spec.core.is_some_and(down) {
            Some(Outcome::NotRun(NotRun::Shutdown))
        } else if w.fate.tdx_disabled && matches!(spec.kind, AgentKind::Seam | AgentKind::Td) {
            Some(Outcome::VmFailInvalid)
        } else {
            None
        }
    }

    // -------------------------------------------------------------------------------------------------------- moves

    /// An agent goes on with its program; whether it could.
    fn go_on(&mut self, w: &mut World, agent: usize) -> bool {
        let turns = self.turns(w);
        let Some((_, line)) = turns.into_iter().find(|(a, _)| *a == agent) else { return false };
        let Some((_, op)) = self.step_of(line) else { return false };
        let op = *op;
        let ended = if let Some(late) = w.retiring.remove(&agent) {
            self.retire(w, agent, line, late);
            true
        } else if w.seam.is_some() {
            self.go_on_with_module(w, agent, line, &op)
        } else {
            self.plain(w, agent, line, &op)
        };
        if ended {
            self.advance(w, agent, line);
        }
        true
    }

    /// The line is behind an agent; barriers are passed when everybody has come to them.
    pub(super) fn advance(&self, w: &mut World, agent: usize, line: usize) {
        let next = line as u32 + 1;
        match self.order {
            Order::Program => {
                if let Some(at) = w.at.first_mut() {
                    *at = next;
                }
            }
            Order::Concurrent => {
                if let Some(at) = w.at.get_mut(agent) {
                    *at = next;
                }
            }
        }
        self.pass_barriers(w);
    }
    pub(super) fn pass_barriers(&self, w: &mut World) {
        match self.order {
            Order::Program => {
                if let Some(at) = w.at.first_mut() {
                    while matches!(self.lines.get(*at as usize), Some(ProgramLine::Barrier)) {
                        *at += 1;
                    }
                }
            }
            Order::Concurrent => {
                // Who has met the others knows that what was stored before is visible.
                let busy = |w: &World| {
                    (0..self.agents.len()).any(|a| self.next_line(w, a).is_some())
                        || w.seam.as_ref().is_some_and(|s| s.is_busy())
                        || w.memory.state().pending.values().any(|p| !p.stores.is_empty())
                };
                while (w.base as usize) < self.lines.len() && !busy(w) {
                    w.base = self.segment_end(w.base as usize) as u32 + 1;
                }
            }
        }
    }

    /// An operation that has nothing to do with the module. Whether its line is behind the agent.
    pub(super) fn plain(&mut self, w: &mut World, agent: usize, line: usize, op: &Op) -> bool {
        let core = self.agents.get(agent).and_then(|a| a.core).unwrap_or(0);
        let who = self.who(agent);
        let saw = if let Some(refused) = self.refusal(w, agent) {
            (refused, KNOWN)
        } else {
            match self.access(w, who, core, op) {
                Ok(Seen::MachineCheck { access, at, .. }) if self.others_go_on(w, agent) => {
                    let (context, what) = (self.context_of(agent), (access, at));
                    w.retiring.insert(agent, Retiring { core, context, fatal: false, what });
                    return false;
                }
                Ok(seen) => self.outcome(w, agent, core, seen),
                Err(why) => self.lost_track(w, why),
            }
        };
        self.over(w, line, saw);
        true
    }

    /// Whether somebody else can do something while an agent's machine check is on its way. Otherwise it comes at once: nobody can
    /// tell.
    pub(super) fn others_go_on(&self, w: &World, agent: usize) -> bool {
        self.order == Order::Concurrent
            && (0..self.agents.len()).any(|a| a != agent && self.next_line(w, a).is_some())
    }
    /// Whether the core that an agent needs is at an operation that has not retired.
    fn is_held_up(&self, w: &World, agent: usize) -> bool {
        let Some(spec) = self.agents.get(agent) else { return false };
        let core = spec.core.or_else(|| self.core_of_guest(w, agent));
        w.retiring.iter().any(|(other, late)| *other != agent && core == Some(late.core))
    }

    /// The machine check of an operation comes. Whoever is dead by then takes none, and a guest that has left has it behind it.
    fn retire(&mut self, w: &mut World, agent: usize, line: usize, late: Retiring) {
        let Retiring { core, context, fatal, what } = late;
        let guest = self.agents.get(agent).is_some_and(|a| a.kind == AgentKind::Guest);
        let gone = guest && self.core_of_guest(w, agent).is_none();
        let outcome = if w.fate.panicked {
            Outcome::NotRun(NotRun::Panic)
        } else if w.fate.dead.contains(&agent) {
            Outcome::NotRun(NotRun::Killed)
        } else if w.fate.shut_down.contains(&core) {
            Outcome::NotRun(NotRun::Shutdown)
        } else if gone {
            Outcome::TdExit { reason: ExitReason(0), gpa: 0 }
        } else {
            self.machine_check(w, agent, core, (context, fatal), what)
        };
        self.over(w, line, (outcome, KNOWN));
        if guest {
            self.guest_done(w, core);
        }
    }

    /// In whose context an agent's machine checks come.
    pub(super) fn context_of(&self, agent: usize) -> McContext {
        match self.agents.get(agent).map(|a| a.kind) {
            Some(AgentKind::User) => McContext::User,
            Some(AgentKind::Seam) => McContext::SeamRoot,
            Some(AgentKind::Td | AgentKind::Guest) => McContext::SeamNonRoot,
            _ => McContext::Kernel,
        }
    }

    /// What an agent sees, with what follows from a machine check.
    pub(super) fn outcome(&mut self, w: &mut World, agent: usize, core: u16, seen: Seen) -> Saw {
        let outcome = match seen {
            Seen::Done => Outcome::Done,
            Seen::Data { data, bytes, class } => {
                let loaded = Loaded { data: data.data(), bytes, class };
                return (Outcome::Data(loaded), data.unknown());
            }
            Seen::MachineCheck { access, at, .. } => {
                let context = self.context_of(agent);
                self.machine_check(w, agent, core, (context, false), (access, at))
            }
            Seen::PageFaultRsvd => Outcome::PageFaultRsvd,
            Seen::GeneralProtection(reason) => Outcome::GeneralProtection(reason),
            Seen::EptMisconfiguration => Outcome::EptMisconfiguration,
            Seen::VirtualizationException => Outcome::VirtualizationException,
            Seen::DmaAbort => Outcome::DmaAbort,
            Seen::DmaPoison(birth) => Outcome::DmaPoison(birth),
            Seen::Pconfig(status) => Outcome::Pconfig(status),
        };
        (outcome, KNOWN)
    }

    fn os(&self) -> LinuxMce {
        linux(&self.spec)
    }

    /// A machine check: its registers, and what becomes of whom; `fatal` where the core cannot go on from it (architecture.md §6.2, §6.3).
    pub(super) fn machine_check(
        &mut self,
        w: &mut World,
        agent: usize,
        core: u16,
        (context, fatal): (McContext, bool),
        (access, at): (McAccess, Tagged),
    ) -> Outcome {
        let mce = &self.spec.mce;
        let (bank, mcacod) = match access {
            McAccess::DataLoad => (mce.bank_dcu, MCACOD_DATA_LOAD),
            McAccess::Fetch => (mce.bank_ifu, MCACOD_FETCH),
        };
        let mut mcg = McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP;
        if mce.lmce {
            mcg |= McgStatus::LMCES;
        }
        if context == McContext::SeamNonRoot && mce.seam_nr {
            mcg |= McgStatus::SEAM_NR;
        }
        let at = Addr::new(at.line().hpa(), at.keyid());
        let record = McRecord {
            core,
            bank,
            status: McStatus::srar(mce.mscod_core, mcacod),
            addr: self.spec.keyid.join(at),
            misc: 0,
            mcg: McgStatus(mcg),
            access,
            context,
            at,
            birth: SOME_BIRTH,
        };
        let lmce = mce.lmce;
        let kind = self.agents.get(agent).map(|a| a.kind);
        let consequence = match context {
            McContext::SeamRoot => self.shut_down(w, core),
            McContext::SeamNonRoot if fatal => self.shut_down(w, core),
            McContext::SeamNonRoot => {
                if kind == Some(AgentKind::Guest) {
                    self.guest_dies(w, core, &record)
                } else {
                    w.fate.dead.insert(agent);
                    match self.os().machine_check(&record) {
                        McConsequence::Panic => McConsequence::Panic,
                        _ => McConsequence::TdFatal,
                    }
                }
            }
            McContext::Kernel | McContext::User => self.os().machine_check(&record),
        };
        // Whoever has to go on because of it finds the kernel gone.
        w.fate.panicked |= consequence == McConsequence::Panic;
        if !lmce {
            // Broadcast: every TD that was running dies, and the module does not survive it.
            let tds = self.agents.iter().enumerate().filter(|(_, a)| a.kind == AgentKind::Td);
            w.fate.dead.extend(tds.map(|(i, _)| i));
            self.broadcast(w, core);
        }
        match consequence {
            McConsequence::Sigbus => {
                w.fate.dead.insert(agent);
            }
            McConsequence::Panic
            | McConsequence::Survived
            | McConsequence::TdFatal
            | McConsequence::Shutdown => {}
        }
        // Every core that takes it sends off what it has waiting (architecture.md §13 MC-28).
        let waiting = w.memory.state().pending.keys().copied();
        let cores: Vec<_> = waiting.filter(|waits| !lmce || *waits == core).collect();
        for core in cores {
            if let Err(why) = self.on_watched(w, Agent::Kernel, core, Op::Interrupt) {
                self.refused("what a machine check sends off", &why);
            }
        }
        Outcome::MachineCheck { record, consequence }
    }
    /// The host's handler on a machine check that reached it.
    pub(super) fn host_handles(&self, w: &mut World, record: &McRecord) -> McConsequence {
        let consequence = self.os().machine_check(record);
        w.fate.panicked |= consequence == McConsequence::Panic;
        consequence
    }
    /// Unbreakable shutdown of a logical processor, and the end of TDX.
    pub(super) fn shut_down(&mut self, w: &mut World, core: u16) -> McConsequence {
        w.fate.shut_down.insert(core);
        w.fate.tdx_disabled = true;
        if let Some(seam) = &mut w.seam {
            Arc::make_mut(seam).shut_down(core);
        }
        // A host whose call was under way here never gets it back.
        self.host_over(w, core, Outcome::NotRun(NotRun::Shutdown));
        McConsequence::Shutdown
    }

    // ------------------------------------------------------------------------------------------------------- memory

    /// What final checks count.
    fn count(&self, w: &mut World, done: &StepOutcome) {
        if self.counted {
            w.counts.births += done.births.len() as u32;
            w.counts.ucna += done.ucna.len() as u32;
            let partial = |t: &&Transaction| matches!(t.request, Request::Write { mask, .. } if !mask.is_full());
            w.counts.partial_writes += done.traffic.iter().filter(partial).count() as u32;
        }
    }
    /// Makes visible what a core holds back.
    pub(super) fn drain_stores(&mut self, w: &mut World, core: u16) {
        while !w.memory.buffered(core).is_empty() && self.store_leaves(w, core) {}
    }
    fn store_leaves(&mut self, w: &mut World, core: u16) -> bool {
        match w.memory.step(&Step::Choice(Choice::StoreLeave(core))) {
            Ok(done) => {
                self.count(w, &done);
                true
            }
            Err(why) => self.refused(&format!("a store of core {core} leaves"), &why.to_string()),
        }
    }
    /// A choice that was offered and that the reference does not have: nothing that the search says counts.
    fn refused(&mut self, what: &str, why: &str) -> bool {
        self.broken.get_or_insert_with(|| format!("a choice was refused: {what}: {why}"));
        false
    }
    /// What an operation on calm lines sends off that its core has waiting for watched ones.
    fn drained_by(&mut self, w: &mut World, who: Agent, core: u16, op: &Op) -> Result<(), String> {
        match op {
            Op::LockXadd { .. } => {
                self.on_watched(w, who, core, Op::Mfence)?;
            }
            Op::Clflush { .. }
            | Op::RepStosb { .. }
            | Op::Load { ty: MemType::Uc, .. }
            | Op::Store { ty: MemType::Uc, .. } => self.drain_stores(w, core),
            _ => {}
        }
        Ok(())
    }
    /// What a machine check sends off is not part of it: that comes later, when the operation retires.
    fn on_watched(&self, w: &mut World, who: Agent, core: u16, op: Op) -> Result<Seen, String> {
        let blocks = u64::from(self.spec.cpu.flush_sub_blocks.max(1));
        let block_of = |at: Tagged| (at.line().0 % blocks) as u32;
        let (act, mut done) = (Act::Op(op), StepOutcome::default());
        let made = w.memory.issue_into(who, core, &act, &block_of, &mut |_, _| None, &mut done);
        made.map_err(|e| e.to_string())?;
        self.count(w, &done);
        Ok(done.seen)
    }
    /// On calm lines: nothing of it stays in a cache or waits in a core.
    fn on_calm(w: &mut World, who: Agent, core: u16, op: Op) -> Result<Seen, String> {
        let calm = Arc::make_mut(&mut w.calm);
        let seen = calm.step(&Step::Op(who, core, op)).map_err(|e| e.to_string())?.seen;
        calm_down(calm)?;
        Ok(seen)
    }
    /// What the module does and no operation spells, on a line that is watched or calm.
    pub(super) fn act(
        &self,
        w: &mut World,
        core: u16,
        act: &Act,
        line: Line,
    ) -> Result<Seen, String> {
        let watched = self.watch.is_watched(line);
        let mut done = StepOutcome::default();
        let memory = if watched { &mut w.memory } else { Arc::make_mut(&mut w.calm) };
        let root = Agent::SeamRoot;
        let made = memory.issue_into(root, core, act, &|_| 0, &mut |_, _| None, &mut done);
        made.map_err(|e| e.to_string())?;
        if watched {
            self.count(w, &done);
        } else {
            calm_down(memory)?;
        }
        Ok(done.seen)
    }

    /// An operation on memory, or one without an address: on watched lines, on calm ones, or on nothing at all.
    pub(super) fn access(
        &mut self,
        w: &mut World,
        who: Agent,
        core: u16,
        op: &Op,
    ) -> Result<Seen, String> {
        if op.addresses()[0].is_none() {
            if matches!(op, Op::Pconfig { .. }) {
                Self::on_calm(w, who, core, *op)?;
            }
            return self.on_watched(w, who, core, *op);
        }
        let mut lines = spans(op).flat_map(|(at, bytes)| span_lines(at, bytes));
        if lines.all(|line| self.watch.is_watched(line)) {
            return self.on_watched(w, who, core, *op);
        }
        if let Op::Movdir64bPage { at } = op
            && !at.hpa.0.is_multiple_of(4096)
        {
            return Ok(Seen::GeneralProtection(GpReason::Misaligned));
        }
        self.drained_by(w, who, core, op)?;
        let (mut all, mut worst) = (Bytes::ZERO, None);
        let mut poison = None;
        for (skip, part) in parts(op) {
            let line = part.addresses()[0].map(|a| a.hpa.line());
            let seen = match line {
                Some(line) if self.watch.is_watched(line) => self.on_watched(w, who, core, part)?,
                Some(line) if self.watch.is_kept(line) => Self::on_calm(w, who, core, part)?,
                _ => continue,
            };
            match seen {
                Seen::Done => {}
                Seen::Data { data, bytes, class } => {
                    if skip < 64 {
                        let len = (bytes as usize).min(64 - skip);
                        all.merge(&data.moved(0, len, skip), ByteMask::span(skip, len));
                    }
                    worst = Some(worst.map_or(class, |w: DataClass| w.max(class)));
                }
                // Each line of a device's access is a request of its own; it gets the first one's error.
                Seen::DmaPoison(birth) => {
                    poison.get_or_insert(birth);
                }
                other @ Seen::MachineCheck { .. } => return Ok(other),
                other => {
                    self.drain_stores(w, core);
                    return Ok(other);
                }
            }
        }
        Ok(match (poison, worst) {
            (Some(birth), _) => Seen::DmaPoison(birth),
            (None, Some(class)) => Seen::Data { data: all, bytes: op.bytes(), class },
            (None, None) => Seen::Done,
        })
    }

    /// What a line holds for a reader with this KeyID, without reading it.
    pub(super) fn peek(&self, w: &World, at: Tagged) -> Bytes {
        let from = if self.watch.is_watched(at.line()) { &w.memory } else { w.calm.as_ref() };
        if let Some((_, copy)) = from.copies(at).next() {
            return copy.data;
        }
        from.dram(at.line()).decrypt(at.line(), from.key(at).key).0
    }
}

/// Lets all that waits become visible and leave the caches.
fn calm_down(calm: &mut Reference) -> Result<(), String> {
    let state = calm.state();
    let pending = state.pending.iter().flat_map(|(core, p)| {
        let all = p.wc.iter().map(|b| b.at).chain(p.weak.iter().map(|o| o.at));
        all.map(|at| (Some(*core), at))
    });
    let cached = state.caches.keys().map(|(at, _)| (None, *at));
    // Whatever waits becomes visible first: it may write back a copy.
    for (core, at) in pending.chain(cached).collect::<Vec<_>>() {
        let at = Addr::new(at.line().hpa(), at.keyid());
        let op = match core {
            Some(core) => Op::Drain { core: u32::from(core), at },
            None => Op::Evict { at },
        };
        calm.step(&Step::Op(Agent::Kernel, 0, op)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The places that an operation accesses, and how many bytes there.
pub(super) fn spans(op: &Op) -> impl Iterator<Item = (Hpa, u64)> {
    let [first, second] = op.addresses();
    let source = matches!(op, Op::Movdir64b { .. });
    let first = first.map(|at| (at.hpa, u64::from(op.bytes())));
    let second = second.map(|at| (at.hpa, if source { 64 } else { 1 }));
    first.into_iter().chain(second)
}

/// The lines of some bytes.
pub(super) fn span_lines(at: Hpa, bytes: u64) -> impl Iterator<Item = Line> {
    let end = at.0.saturating_add(bytes.max(1));
    (at.0 >> 6..end.div_ceil(64)).map(Line)
}

/// An operation on many lines, line by line: how many bytes of it lie before, and the part.
fn parts(op: &Op) -> Vec<(usize, Op)> {
    let Some(at) = op.addresses()[0].copied() else { return vec![(0, *op)] };
    let bytes = u64::from(op.bytes());
    let mut out = Vec::new();
    for line in span_lines(at.hpa, bytes) {
        let from = line.hpa().0.max(at.hpa.0);
        let to = (line.hpa().0 + 64).min(at.hpa.0 + bytes);
        let (skip, len) = ((from - at.hpa.0) as usize, (to - from) as u32);
        let here = Addr::new(Hpa(from), at.keyid);
        let value = |value: Value| match value {
            Value::Num(n) if skip < 8 => Value::Num(n >> (8 * skip)),
            Value::Num(_) => Value::Num(0),
            other => other,
        };
        let part = match *op {
            Op::Movdir64bPage { .. } => Op::Movdir64b { dst: here, src: Source::Fill(0) },
            Op::RepStosb { value, .. } => Op::RepStosb { at: here, bytes: len, value },
            Op::DmaRead { .. } => Op::DmaRead { at: here, bytes: len },
            Op::DmaWrite { value: v, .. } => Op::DmaWrite { at: here, bytes: len, value: value(v) },
            Op::Load { ty, .. } => Op::Load { at: here, bytes: len, ty },
            Op::Store { value: v, ty, .. } => {
                Op::Store { at: here, bytes: len, value: value(v), ty }
            }
            other => return vec![(0, other)],
        };
        out.push((skip, part));
    }
    out
}

impl System for Explorer {
    type State = World;
    type Move = Move;

    fn moves(&self, w: &World, out: &mut Vec<Move>) {
        if w.fate.astray {
            return;
        }
        let turns = self.turns(w);
        let mut deps = Deps::default();
        for (agent, line) in &turns {
            self.deps_of(w, *agent, *line, &mut deps);
            if let Some(linear) = self.forgettable(w, *agent, *line) {
                out.push(Move::Forget(*agent, linear));
            }
        }
        #[cfg(test)]
        {
            deps.all |= self.everywhere;
        }
        // A store that leaves is an operation on its line that may come at any time.
        let held: Vec<Line> = {
            let pending = w.memory.state().pending.values();
            pending.flat_map(|p| p.stores.iter().map(|s| s.at.line())).collect()
        };
        let holding = !held.is_empty();
        deps.lines.extend(held);
        if turns.is_empty() && holding {
            self.choices(w, &deps, out);
            if w.seam.as_ref().is_some_and(|s| s.guest_runs()) {
                out.push(Move::Timer);
            }
            return;
        }
        if !turns.is_empty() {
            self.choices(w, &deps, out);
            out.extend(turns.iter().map(|(agent, _)| Move::Step(*agent)));
            return;
        }
        if w.seam.as_ref().is_some_and(|s| s.guest_runs()) || !self.is_done(w) {
            out.push(Move::Timer);
        } else if self.finals {
            let mut deps = Deps { all: self.counted, lines: self.final_lines.clone() };
            // What waits becomes visible in the end, whoever looks.
            let pending = w.memory.state().pending.values();
            deps.lines.extend(pending.flat_map(|p| p.weak.iter().map(|o| o.at.line())));
            self.choices(w, &deps, out);
        }
    }

    /// Whatever [`System::moves`] offers is possible: a move that is not is a defect of the exploration, and said to be one.
    fn apply(&mut self, w: &World, mv: &Move) -> Option<World> {
        let mut next = w.clone();
        let made = match *mv {
            Move::Step(agent) => {
                let made = self.go_on(&mut next, agent);
                if made { Ok(()) } else { Err("it is not its turn".to_owned()) }
            }
            Move::Hw(op) => self.on_watched(&mut next, Agent::Kernel, 0, op).map(|_| ()),
            Move::Prefetch(agent, at) => {
                let core = self.agents.get(agent).and_then(|a| a.core);
                let core = core.ok_or_else(|| "an agent without a core".to_owned());
                let who = self.who(agent);
                core.and_then(|core| self.on_watched(&mut next, who, core, Op::Prefetch { at }))
                    .map(|_| ())
            }
            Move::Forget(agent, linear) => {
                self.forget(&mut next, agent, linear);
                Ok(())
            }
            Move::Timer => {
                self.timer(&mut next);
                Ok(())
            }
            Move::StoreLeave(core) => {
                if !self.store_leaves(&mut next, core) {
                    return None;
                }
                self.pass_barriers(&mut next);
                Ok(())
            }
        };
        if let Err(why) = made {
            self.refused(&super::seam::told(self, mv), &why);
            return None;
        }
        if next.fate.astray {
            // What the move came to is not known either.
            for (now, before) in next.seen.iter_mut().zip(&w.seen) {
                *now = if now == before { *now } else { LOST };
            }
        }
        // Two ways that differ in their history only lead to one state.
        next.memory.forget_history();
        Some(next)
    }
}
