//! The configurations that are searched exhaustively, X1 to X7 of verification.md §5.3, as data; and random programs.
//!
//! A state is the whole state of the reference model without its history: DRAM by provenance, every cached copy, buffers,
//! keys, and the births of poison that are alive, named in the order of their places. A move is one operation of one agent
//! or one choice of hardware; a store that bypasses the caches becomes visible within its move (except in row W). Evictions
//! may happen at any time.
//!
//! [`Configuration::explore`] searches a row and says how many states, transitions and moves deep it is, and what of
//! interest can happen in it.

use crate::invariants::{Checker, Violation};
use crate::reference::{Agent, Choice, Key, Place, Reference, Seen, Spec, Step, StepOutcome};
use crate::search::{Budget, Search, Searched, System, Visit};
use sim_core::event::BirthCause;
use sim_core::op::{MemType, PconfigCmd, Source, Value};
use sim_core::outcome::DataClass;
use sim_core::platform::IntegrityMode::{self, Ci, Li};
use sim_core::platform::{MemorySpec, XtsWidth};
use sim_core::prng::Prng;
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Line, Op};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

/// What happens in a configuration beside loads, stores and flushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    /// Nothing.
    None,
    /// Uncorrectable errors.
    Errors,
    /// An attacker on the memory bus, who keeps one line's ciphertext, TD bit and MAC and puts it back.
    Replay,
}

/// A row of verification.md §5.3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// Its name in the sheet; `W` for the row that is ours.
    pub id: &'static str,
    /// The platform.
    pub spec: Spec,
    /// The KeyIDs under which agents access, KeyID 0 first.
    pub keyids: Vec<KeyId>,
    /// Lines; 1 in every row of the sheet.
    pub lines: u64,
    /// What else happens.
    pub extra: Extra,
    /// Stores that bypass the caches become visible as they are made. Without it they wait in their buffers for a choice or
    /// a fence, as MOVDIR64B and CLFLUSHOPT do.
    pub prompt: bool,
}

/// The first private KeyIDs of [`small`].
pub const PRIVATE: [KeyId; 2] = [KeyId(32), KeyId(33)];

/// The KeyIDs of the rows with three: KeyID 0 and two private ones.
pub const ALL: [KeyId; 3] = [KeyId::TME, PRIVATE[0], PRIVATE[1]];
/// The KeyIDs of the rows with two.
pub const TWO: [KeyId; 2] = [KeyId::TME, PRIVATE[0]];

/// All rows: those of the sheet, each with every value that it names, and one with buffers.
pub fn rows() -> Vec<Configuration> {
    let row = |id, mode, erratum, cores, keys: &[KeyId]| Configuration {
        id,
        ..Configuration::new(mode, erratum, cores, keys)
    };
    let mut rows = vec![];
    for (id, mode) in [("X1", Li), ("X2", Ci)] {
        rows.extend([false, true].map(|erratum| row(id, mode, erratum, 1, &ALL)));
    }
    rows.push(Configuration { extra: Extra::Errors, ..row("X3", Ci, true, 1, &ALL) });
    for mode in [Ci, Li] {
        rows.push(Configuration { extra: Extra::Replay, ..row("X4", mode, false, 1, &ALL) });
    }
    for erratum in [false, true] {
        rows.extend([Ci, Li].map(|mode| row("X5", mode, erratum, 2, &TWO)));
    }
    rows.push(row("X6", Ci, true, 3, &TWO));
    rows.push(row("X7", Ci, true, 2, &ALL));
    rows.push(Configuration { prompt: false, ..row("W", Ci, true, 1, &TWO) });
    rows
}

/// What is left out of a search because it is known to add nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reduction {
    /// States that differ by a renaming of cores are one.
    pub cores: bool,
    /// States that differ by a renaming of private KeyIDs, with their keys, are one.
    pub keyids: bool,
}

impl Reduction {
    /// Nothing is left out.
    pub const NONE: Reduction = Reduction { cores: false, keyids: false };
    /// Both kinds of symmetry.
    pub const SYMMETRY: Reduction = Reduction { cores: true, keyids: true };
}

/// How a line stands at a moment, without the names of cores, KeyIDs, keys and births.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LineView {
    /// Which line.
    pub line: Line,
    /// TD bit.
    pub td: bool,
    /// Whether a MAC is stored.
    pub mac: bool,
    /// Whether the stored MAC matches what the last writer's key makes of it.
    pub intact: bool,
    /// Poison in DRAM, by its cause.
    pub poison: Option<BirthCause>,
    /// Whether the last whole-line write was under a private KeyID.
    pub private: Option<bool>,
    /// KeyIDs under which a core or an LLC holds it.
    pub aliases: u8,
    /// KeyIDs under which a dirty copy is held.
    pub dirty: u8,
    /// Whether a cached copy is poisoned.
    pub poisoned_copy: bool,
}

/// What an agent saw, without the names of cores, KeyIDs and births.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sight {
    /// Bytes of a class.
    Data(DataClass),
    /// #MC by poison of this cause.
    MachineCheck(BirthCause),
    /// Anything else.
    Other,
}

/// What is seen in a search: whether agents are TDs, and on which line.
pub type Sights = BTreeSet<(bool, Option<Line>, Sight)>;

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The first moves that break an invariant, none shorter, and how many moves they are.
    pub broken: Option<(u32, Vec<Violation>)>,
    /// Moves to the first #MC of the host.
    pub host_mc: Option<u32>,
    /// The causes of all #MCs of the host.
    pub causes: BTreeSet<BirthCause>,
    /// Moves to the first line that is dirty under two KeyIDs.
    pub alias: Option<u32>,
    /// Whether a TD was given garbage without a signal.
    pub garbage: bool,
    /// Everything that an agent saw; empty unless asked for.
    pub sights: Sights,
    /// Every state of every line; empty unless asked for.
    pub lines: BTreeSet<LineView>,
}

/// A configuration that has been searched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explored {
    /// States, transitions, depth.
    pub searched: Searched,
    /// What was found.
    pub found: Found,
    /// The steps of `found.broken`'s moves, from the start.
    pub trace: Option<Vec<Step>>,
    /// Who judged, when the search was judged.
    pub checker: Option<Checker>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |n: Option<u32>| n.map_or("never".to_owned(), |n| format!("after {n} moves"));
        let Searched { states, transitions, depth, .. } = self.searched;
        writeln!(f, "{states} states, {transitions} transitions, depth {depth}")?;
        writeln!(f, "host #MC: {}, causes {:?}", or(self.found.host_mc), self.found.causes)?;
        writeln!(f, "dirty alias: {}", or(self.found.alias))?;
        writeln!(f, "a TD reads garbage: {}", self.found.garbage)
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spec { cores, memory, .. } = self.spec;
        let s = |n: usize| if n == 1 { "" } else { "s" };
        let (keys, mode) = (self.keyids.len(), memory.integrity);
        write!(f, "{}: {cores} core{}, ", self.id, s(usize::from(cores)))?;
        write!(f, "{keys} KeyID{}, {mode}, erratum ", s(keys))?;
        f.write_str(if memory.erratum_pw_mce { "on" } else { "off" })?;
        f.write_str(match self.extra {
            Extra::None => "",
            Extra::Errors => ", injected errors",
            Extra::Replay => ", replay attacker",
        })?;
        f.write_str(if self.prompt { "" } else { ", weakly ordered stores" })
    }
}

impl Configuration {
    /// A configuration of one line with prompt stores and nothing else; its name is empty.
    pub fn new(mode: IntegrityMode, erratum: bool, cores: u16, keyids: &[KeyId]) -> Configuration {
        Configuration {
            id: "",
            spec: small(mode, erratum, cores),
            keyids: keyids.to_vec(),
            lines: 1,
            extra: Extra::None,
            prompt: true,
        }
    }
    /// Every private KeyID has its own key; memory is as at power-on.
    pub fn start(&self) -> Reference {
        with_keys(self.spec, &self.keyids)
    }
    /// Every move: one or two steps made one after another.
    pub fn moves(&self) -> Vec<Vec<Step>> {
        let mut moves = vec![];
        for line in 0..self.lines {
            for core in 0..self.spec.cores {
                for &keyid in &self.keyids {
                    self.moves_of(core, Addr::new(Hpa(BASE.0 + 64 * line), keyid), &mut moves);
                }
            }
        }
        if !self.prompt {
            for core in 0..self.spec.cores {
                moves.push(vec![Step::Choice(Choice::WeakComplete(core, 0))]);
                moves.push(vec![Step::Choice(Choice::WeakComplete(core, 1))]);
                moves.push(vec![Step::Op(Agent::Kernel, core, Op::Mfence)]);
            }
        }
        // A flush of the package completes what its own core has pending; where nothing is, one core is as good as another.
        for core in 0..if self.prompt { 1 } else { self.spec.cores } {
            moves.push(vec![Step::Op(Agent::Kernel, core, Op::Wbinvd)]);
            moves.push(vec![Step::Op(Agent::Kernel, core, Op::Wbnoinvd)]);
        }
        for line in 0..self.lines {
            let at = Addr::new(Hpa(BASE.0 + 64 * line), KeyId::TME);
            let op = |op| vec![Step::Op(Agent::Kernel, 0, op)];
            match self.extra {
                Extra::None => {}
                Extra::Errors => moves.push(op(Op::InjectUe { at })),
                Extra::Replay => {
                    moves.push(op(Op::SaveLine { at, slot: 0 }));
                    moves.push(op(Op::ReplayLine { slot: 0, at }));
                }
            }
        }
        moves
    }
    fn moves_of(&self, core: u16, at: Addr, moves: &mut Vec<Vec<Step>>) {
        let (keyid, tag) = (at.keyid, at.tagged());
        let who = user_of(&self.spec, keyid);
        let op = |op: Op| Step::Op(who, core, op);
        let value = Value::Num(1);
        moves.push(vec![op(Op::Load { at, bytes: 8, ty: MemType::Wb })]);
        moves.push(vec![op(Op::Store { at, bytes: 8, value, ty: MemType::Wb })]);
        moves.push(vec![Step::Choice(Choice::Evict(Place::Core(core), tag))]);
        if self.prompt && core > 0 {
            return; // what follows has the same effect from every core
        }
        moves.push(vec![op(Op::Clflush { at })]);
        let direct = op(Op::Movdir64b { dst: at, src: Source::Fill(0) });
        // verification.md §7: partial writes only with KeyID 0.
        let partial = (keyid == KeyId::TME).then(|| op(Op::NtStore { at, bytes: 8, value }));
        if self.prompt {
            moves.push(vec![direct, Step::Choice(Choice::WeakComplete(core, 0))]);
            moves.extend(partial.map(|partial| vec![partial, op(Op::Sfence)]));
        } else {
            let leave = Step::Choice(Choice::WcLeave(core, tag));
            moves.extend([vec![direct], vec![op(Op::Clflushopt { at })], vec![leave]]);
            moves.extend(partial.map(|partial| vec![partial]));
        }
    }

    /// Searches the configuration: all of it, or until the budget is used up or an invariant breaks. What broke is told
    /// by the shortest real run, which is searched for again without reduction.
    pub fn explore(&self, how: How) -> Explored {
        let mut search = Search::new(World::new(self, how), self.start());
        let searched = search.run(how.budget);
        let mut trace = None;
        if search.system.found.broken.is_some() {
            if how.reduction != Reduction::NONE {
                return self.explore(How { reduction: Reduction::NONE, ..how });
            }
            let (from, mv) = search.system.last;
            trace = search.trace(from).map(|(mut moves, _)| {
                moves.push(mv);
                moves.iter().flat_map(|mv| search.system.steps(*mv).to_vec()).collect()
            });
        }
        let World { found, checker, .. } = search.system;
        Explored { searched, found, trace, checker }
    }
}

/// How a configuration is searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct How {
    /// How far.
    pub budget: Budget,
    /// What is left out.
    pub reduction: Reduction,
    /// Every state and every step is judged by the invariants; the first that breaks ends the search.
    pub judged: bool,
    /// [`Found::sights`] and [`Found::lines`] are wanted.
    pub listed: bool,
}

impl Default for How {
    /// All of it, nothing left out, judged.
    fn default() -> How {
        let reduction = Reduction::NONE;
        How { budget: Budget::UNBOUNDED, reduction, judged: true, listed: false }
    }
}

/// A configuration as a transition system. A move is the number of one of [`Configuration::moves`].
pub struct World {
    moves: Vec<Vec<Step>>,
    how: How,
    /// The cores that may be renamed among each other, and the private KeyIDs.
    cores: u16,
    keyids: Vec<KeyId>,
    found: Found,
    checker: Option<Checker>,
    /// What the move being made showed.
    broken: Vec<Violation>,
    struck: Option<BirthCause>,
    out: StepOutcome,
    middle: Reference,
    /// The move that was visited last, and the state it was made in.
    last: (usize, u16),
}

impl World {
    /// From a configuration.
    pub fn new(config: &Configuration, how: How) -> World {
        let spec = config.spec;
        let private = config.keyids.iter().filter(|k| spec.keyid.is_private(**k));
        World {
            moves: config.moves(),
            how,
            // In another package a core has other controllers near it; no row needs more than one.
            cores: if how.reduction.cores && spec.packages == 1 { spec.cores } else { 1 },
            keyids: if how.reduction.keyids { private.copied().collect() } else { vec![] },
            found: Found::default(),
            checker: how.judged.then(Checker::new),
            broken: vec![],
            struck: None,
            out: StepOutcome::default(),
            middle: Reference::new(spec),
            last: (0, 0),
        }
    }
    /// The steps of a move.
    pub fn steps(&self, mv: u16) -> &[Step] {
        self.moves.get(usize::from(mv)).map_or(&[], Vec::as_slice)
    }
    /// What was found so far.
    pub const fn found(&self) -> &Found {
        &self.found
    }
}

/// Makes the steps of a move, judges them and notes what was seen; whether all could be made.
fn make(world: &mut World, mv: u16, next: &mut Reference) -> bool {
    let World { moves, how, found, checker, broken, struck, out, middle, .. } = world;
    broken.clear();
    *struck = None;
    for step in moves.get(usize::from(mv)).map_or(&[][..], Vec::as_slice) {
        if checker.is_some() {
            middle.clone_from(next);
        }
        if next.replay(step, out).is_err() {
            return false;
        }
        if let Some(checker) = checker {
            broken.extend(checker.check_step(middle, step, out, next));
        }
        let Step::Op(who, _, op) = step else { continue };
        let td = matches!(who, Agent::Td(_));
        let sight = match out.seen {
            Seen::MachineCheck { birth, .. } => {
                let cause = next.state().births.get(&birth).map(|b| b.cause);
                if !td {
                    *struck = struck.or(cause);
                }
                cause.map_or(Sight::Other, Sight::MachineCheck)
            }
            Seen::Data { class, .. } => {
                found.garbage |= td && class == DataClass::Garbage;
                Sight::Data(class)
            }
            _ => Sight::Other,
        };
        if how.listed {
            found.sights.insert((td, line_of(op), sight));
        }
    }
    true
}

/// The line of an operation on one.
fn line_of(op: &Op) -> Option<Line> {
    match op {
        Op::Load { at, .. }
        | Op::Store { at, .. }
        | Op::NtStore { at, .. }
        | Op::Clflush { at }
        | Op::Clflushopt { at }
        | Op::Movdir64b { dst: at, .. } => Some(at.hpa.line()),
        _ => None,
    }
}

/// How many KeyIDs hold a line, of the copies that `which` picks.
fn keyids_holding(
    model: &Reference,
    line: Line,
    which: impl Fn(&crate::reference::Copy) -> bool,
) -> u8 {
    let (mut count, mut last) = (0, None);
    // In the order of KeyIDs, so that those of a KeyID come together.
    for ((at, _), copy) in &model.state().caches {
        if at.line() == line && which(copy) && last != Some(at.keyid()) {
            last = Some(at.keyid());
            count += 1;
        }
    }
    count
}

/// The lines of a state.
pub fn line_views(model: &Reference) -> impl Iterator<Item = LineView> {
    let state = model.state();
    let lines: BTreeSet<Line> =
        state.dram.keys().copied().chain(state.caches.keys().map(|(at, _)| at.line())).collect();
    lines.into_iter().map(move |line| {
        let dram = model.dram(line);
        let key = dram.writer.map_or(Key::Tme, |(_, key)| key);
        let poison = dram.poison.and_then(|id| state.births.get(&id)).map(|b| b.cause);
        let mut copies = state.caches.iter().filter(|((at, _), _)| at.line() == line);
        LineView {
            line,
            td: dram.td,
            mac: dram.mac.is_some(),
            intact: dram.mac_matches(line, key),
            poison,
            private: dram.writer.map(|(keyid, _)| model.spec.keyid.is_private(keyid)),
            aliases: keyids_holding(model, line, |_| true),
            dirty: keyids_holding(model, line, |c| c.state.is_dirty()),
            poisoned_copy: copies.any(|(_, c)| c.poison.is_some()),
        }
    })
}

fn has_dirty_alias(model: &Reference) -> bool {
    let dirty = |line| keyids_holding(model, line, |c| c.state.is_dirty()) > 1;
    model.state().caches.keys().any(|(at, _)| dirty(at.line()))
}

impl System for World {
    type State = Reference;
    type Move = u16;

    fn moves(&self, _: &Reference, out: &mut Vec<u16>) {
        out.extend(0..self.moves.len() as u16);
    }
    fn apply(&mut self, state: &Reference, mv: &u16) -> Option<Reference> {
        let mut next = state.clone();
        make(self, *mv, &mut next).then_some(next)
    }
    fn apply_into(&mut self, state: &Reference, mv: &u16, next: &mut Reference) -> bool {
        next.clone_from(state);
        make(self, *mv, next)
    }
    fn canonical(&mut self, state: &mut Reference) {
        state.forget_history();
        if self.keyids.len() > 1 {
            state.sort_keyids(&self.keyids);
        }
        if self.cores > 1 {
            state.sort_cores(self.cores);
        }
    }
    fn visited(&mut self, visit: &Visit<'_, Self>) -> ControlFlow<()> {
        let depth = visit.depth;
        let found = &mut self.found;
        if let Some(cause) = self.struck {
            found.host_mc.get_or_insert(depth);
            found.causes.insert(cause);
        }
        if visit.new {
            if found.alias.is_none() && has_dirty_alias(visit.after) {
                found.alias = Some(depth);
            }
            if self.how.listed {
                found.lines.extend(line_views(visit.after));
            }
            if let Some(checker) = &mut self.checker {
                self.broken.extend(checker.check_state(visit.after));
            }
        }
        self.last = (visit.from, *visit.mv);
        if self.broken.is_empty() {
            return ControlFlow::Continue(());
        }
        found.broken = Some((depth, std::mem::take(&mut self.broken)));
        ControlFlow::Break(())
    }
}

/// Who uses a KeyID: the host the shared ones, its TD a private one.
pub fn user_of(spec: &Spec, keyid: KeyId) -> Agent {
    if spec.keyid.is_private(keyid) { Agent::Td(keyid) } else { Agent::Kernel }
}

/// A machine whose private KeyIDs, of those given, have keys of their own; memory is as at power-on.
pub fn with_keys(spec: Spec, keyids: &[KeyId]) -> Reference {
    let mut model = Reference::new(spec);
    for &keyid in keyids.iter().filter(|k| spec.keyid.is_private(**k)) {
        for package in 0..spec.packages {
            let op = Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None };
            let core = u16::from(package) * (spec.cores / u16::from(spec.packages.max(1)));
            // The module may, and the KeyID is private: this cannot be refused.
            let _ = model.step(&Step::Op(Agent::SeamRoot, core, op));
        }
    }
    model
}

/// The shape of random programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Watched lines, in a row.
    pub lines: u64,
    /// KeyIDs; line `i` is mostly used under the `i`-th, modulo their number.
    pub keyids: Vec<KeyId>,
    /// One access in so many is under another KeyID than its line's; 0 for none.
    pub stray: u64,
}

/// The first watched line's address.
pub const BASE: Hpa = Hpa(0x1000);

/// A program of about `len` steps, all of them possible from [`with_keys`] on, as a pure function of the seed: loads and
/// stores for the most part, flushes, direct and non-temporal stores, fences, and the choices of hardware.
pub fn random_program(spec: Spec, shape: &Shape, seed: u64, len: usize) -> Vec<Step> {
    let mut rng = Prng::new(seed);
    let mut model = with_keys(spec, &shape.keyids);
    let mut program = Vec::with_capacity(len);
    while program.len() < len {
        let line = rng.below(shape.lines);
        let stray = shape.stray != 0 && rng.below(shape.stray) == 0;
        let index = if stray { rng.next_u64() } else { line };
        let count = shape.keyids.len().max(1) as u64;
        let keyid = shape.keyids.get((index % count) as usize).copied().unwrap_or(KeyId::TME);
        let core = rng.below(u64::from(spec.cores)) as u16;
        let at = Addr::new(Hpa(BASE.0 + 64 * line), keyid);
        let word = Addr::new(Hpa(at.hpa.0 + 8 * rng.below(8)), keyid);
        let (tag, own) = (at.tagged(), Place::Core(core));
        let value = Value::Num(rng.next_u64());
        let who = user_of(&spec, keyid);
        let op = |op| Step::Op(who, core, op);
        let holder = model.copies(tag).next().map_or(own, |(place, _)| place);
        let step = match rng.below(40) {
            0..=15 => op(Op::Load { at: word, bytes: 8, ty: MemType::Wb }),
            16..=25 => op(Op::Store { at: word, bytes: 8, value, ty: MemType::Wb }),
            26..=29 => Step::Choice(Choice::Evict(holder, tag)),
            30 => Step::Choice(Choice::WriteBack(holder, tag)),
            31 => Step::Choice(Choice::ToLlc(core, tag)),
            32 => op(Op::Clflush { at }),
            33 => op(Op::Clflushopt { at }),
            34 => op(Op::Movdir64b { dst: at, src: Source::Fill(line as u8) }),
            35 => op(Op::NtStore { at: word, bytes: 8, value }),
            36 => Step::Choice(Choice::WcLeave(core, tag)),
            37 => Step::Choice(Choice::WeakComplete(core, 0)),
            38 => Step::Choice(Choice::Prefetch(who, core, tag)),
            _ => op(Op::Sfence),
        };
        if model.step(&step).is_ok() {
            program.push(step);
        }
    }
    program
}

/// A platform of one package: 64 KeyIDs, of which those from 32 on are private.
pub const fn small(integrity: IntegrityMode, erratum: bool, cores: u16) -> Spec {
    Spec {
        keyid: KeyIdLayout {
            maxpa: 52,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        },
        memory: MemorySpec {
            integrity,
            erratum_pw_mce: erratum,
            mac_bits: 28,
            xts: XtsWidth::Xts128,
            tme_bypass: false,
        },
        packages: 1,
        cores,
        wc_buffers: 2,
        flush_sub_blocks: 2,
        fast_string_no_rfo: true,
        rfo_poison_mc: false,
        store_buffer: 0,
        #[cfg(test)]
        mutant: 0,
    }
}
