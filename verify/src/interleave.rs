//! Small programs on the reference model: every interleaving of their operations, with every choice of hardware, to every
//! end.
//!
//! Hardware may evict and write back any copy, let any write-combining buffer go and complete any weakly ordered
//! operation, at any time. At an end all programs are through and nothing is cached or pending. What is left out: copies
//! that move to an LLC of their own accord, prefetches nobody asked for, and the store buffer: the start's
//! `Spec::store_buffer` is 0.
//!
//! Lines interact only through what a core holds for several of them: a fence or a machine check empties its buffers, and
//! a buffer too many pushes out the oldest. Operations and choices on other lines commute, so that of the moves of a
//! state those on a set of lines are enough when every program that will come to one of these lines is there already
//! ([`Interleave::reduced`]). This is a persistent set, and it preserves every end (verification.md §5.3: the
//! independent-line argument).

use crate::reference::{
    Agent, Bytes, Choice, DramLine, Place, Reference, Seen, Spec, Step, StepOutcome,
};
use crate::search::{Budget, Search, Searched, System, Visit};
use arrayvec::ArrayVec;
use sim_core::event::BirthCause;
use sim_core::op::{MemType, Source};
use sim_core::outcome::DataClass;
use sim_core::{Line, Op, Tagged};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What an operation's agent saw, without the names of births.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Answer {
    /// It completed.
    Done,
    /// It returned bytes of a class.
    Data(Bytes, DataClass),
    /// #MC, or an error response, by poison of this cause.
    Poison(Option<BirthCause>),
    /// A fault.
    Fault,
}

/// Where programs and machine stand.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Moment {
    /// The machine.
    pub model: Reference,
    /// What each program's operations saw so far.
    pub seen: Vec<Vec<Answer>>,
}

/// What can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The next operation of a program.
    Program(u8),
    /// A copy leaves.
    Evict(Place, Tagged),
    /// A dirty copy is written back and stays.
    WriteBack(Place, Tagged),
    /// A write-combining buffer leaves.
    WcLeave(u16, Tagged),
    /// A pending weakly ordered operation completes.
    WeakComplete(u16, Tagged),
}

/// How it can end: what every operation saw, and every line in DRAM with the cause of its poison.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ending {
    /// By program.
    pub seen: Vec<Vec<Answer>>,
    /// In order; the poison of the line itself is left out.
    pub lines: Vec<(Line, DramLine, Option<BirthCause>)>,
}

/// Lines as a set: bit i is the i-th of [`Interleave::lines`].
type Lines = u64;

/// Programs to be interleaved. Only their [`Step::Op`]s are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interleave {
    /// The machine they start on.
    pub start: Reference,
    /// One list of operations for each program.
    pub programs: Vec<Vec<Step>>,
    /// Partial-order reduction.
    pub reduced: bool,
    /// All ends found so far.
    pub endings: BTreeSet<Ending>,
    lines: Vec<Line>,
    /// For every operation of every program, the lines that it and all that follow may touch.
    touched: Vec<Vec<(Lines, Lines)>>,
    out: StepOutcome,
    scratch: Vec<Move>,
}

/// How many lines of an operation are looked at one by one: those of a page.
const NAMED_MAX: usize = 64;

/// The lines that an operation names; one too many, if there are more than [`NAMED_MAX`].
fn named(op: &Op) -> ArrayVec<Line, { NAMED_MAX + 1 }> {
    let mut lines = ArrayVec::new();
    let mut add = |at: sim_core::Addr, bytes: u32| {
        for line in at.hpa.0 >> 6..at.hpa.0.saturating_add(u64::from(bytes)).div_ceil(64) {
            if lines.try_push(Line(line)).is_err() {
                return;
            }
        }
    };
    match op {
        Op::Load { at, bytes, .. }
        | Op::Store { at, bytes, .. }
        | Op::NtStore { at, bytes, .. }
        | Op::Movdiri { at, bytes, .. }
        | Op::LockXadd { at, bytes, .. }
        | Op::RepStosb { at, bytes, .. }
        | Op::DmaRead { at, bytes }
        | Op::DmaWrite { at, bytes, .. } => add(*at, *bytes),
        Op::Movdir64b { dst, src } => {
            add(*dst, 64);
            if let Source::Mem(from) = src {
                add(*from, 64);
            }
        }
        Op::Movdir64bPage { at } => add(*at, 4096),
        Op::Fetch { at }
        | Op::Prefetch { at }
        | Op::Clflush { at }
        | Op::Clflushopt { at }
        | Op::Clwb { at }
        | Op::Evict { at }
        | Op::FlipBit { at, .. }
        | Op::FlipTd { at }
        | Op::InjectUe { at } => add(*at, 1),
        _ => {}
    }
    lines
}

/// Whether an operation leaves something in a core's buffers.
fn is_buffered(op: &Op) -> bool {
    matches!(
        op,
        Op::NtStore { .. }
            | Op::Movdiri { .. }
            | Op::Movdir64b { .. }
            | Op::Movdir64bPage { .. }
            | Op::Clflushopt { .. }
            | Op::Clwb { .. }
            | Op::Store { ty: MemType::Wc, .. }
    )
}

/// What an operation may reach beside the lines it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Nothing.
    Named,
    /// What its core has pending: it completes it, or ends in a machine check that drains it (architecture.md §13 MC-28), or
    /// needs a buffer that another line has.
    Core,
    /// Everything.
    All,
}

fn reach(op: &Op) -> Reach {
    match op {
        Op::Prefetch { .. } | Op::Clflush { .. } | Op::Clflushopt { .. } | Op::Clwb { .. } => {
            Reach::Named
        }
        Op::Evict { .. } | Op::FlipBit { .. } | Op::FlipTd { .. } | Op::InjectUe { .. } => {
            Reach::Named
        }
        Op::DmaRead { .. } | Op::DmaWrite { .. } | Op::Movdiri { .. } => Reach::Named,
        Op::Movdir64b { src: Source::Fill(_), .. } | Op::Movdir64bPage { .. } => Reach::Named,
        Op::Load { .. } | Op::Store { .. } | Op::NtStore { .. } | Op::RepStosb { .. } => {
            Reach::Core
        }
        Op::Fetch { .. } | Op::Movdir64b { .. } | Op::LockXadd { .. } => Reach::Core,
        Op::Sfence | Op::Mfence | Op::Interrupt => Reach::Core,
        Op::Lfence | Op::Delay { .. } => Reach::Named,
        _ => Reach::All,
    }
}

impl Interleave {
    /// Programs on a machine.
    pub fn new(start: Reference, programs: Vec<Vec<Step>>) -> Interleave {
        let steps = || programs.iter().flatten();
        let ops = || {
            steps().filter_map(|s| match s {
                Step::Op(_, core, op) => Some((*core, op)),
                Step::Choice(_) => None,
            })
        };
        let all: BTreeSet<Line> = ops().flat_map(|(_, op)| named(op)).collect();
        let lines: Vec<Line> = all.into_iter().collect();
        // More lines than bits: the last bit stands for all that are left, which loses reduction and nothing else.
        let bit =
            |line: &Line| lines.iter().position(|l| l == line).map_or(0, |i| 1u64 << i.min(63));
        let set = |op: &Op| named(op).iter().fold(0, |set, line| set | bit(line));
        let pending = |core: u16| {
            let buffered = ops().filter(|(c, op)| *c == core && is_buffered(op));
            buffered.fold(0, |lines, (_, op)| lines | set(op))
        };
        let touches = |step: &Step| {
            let Step::Op(_, core, op) = step else { return 0 };
            if named(op).len() > NAMED_MAX {
                return Lines::MAX;
            }
            match reach(op) {
                Reach::Named => set(op),
                Reach::Core => set(op) | pending(*core),
                Reach::All => Lines::MAX,
            }
        };
        let touched = programs
            .iter()
            .map(|program| {
                let mut left = 0;
                let mut all: Vec<(Lines, Lines)> = vec![];
                for step in program.iter().rev() {
                    left |= touches(step);
                    all.push((touches(step), left));
                }
                all.reverse();
                all
            })
            .collect();
        Interleave {
            start,
            programs,
            reduced: false,
            endings: BTreeSet::new(),
            lines,
            touched,
            out: StepOutcome::default(),
            scratch: vec![],
        }
    }

    /// Everything that can come of the programs, and how much of it was looked at.
    pub fn explore(mut self, budget: Budget) -> (Searched, BTreeSet<Ending>) {
        self.endings.clear();
        let seen = vec![vec![]; self.programs.len()];
        let start = Moment { model: self.start.clone().without_history(), seen };
        let mut search = Search::new(self, start);
        let searched = search.run(budget);
        (searched, search.system.endings)
    }

    fn set_of(&self, line: Line) -> Lines {
        self.lines.iter().position(|l| *l == line).map_or(1 << 63, |i| 1 << i.min(63))
    }
    /// The lines that a move touches, and that its program will touch from there on.
    fn footprint(&self, now: &Moment, mv: &Move) -> (Lines, Lines) {
        match mv {
            Move::Program(i) => {
                let i = usize::from(*i);
                let at = now.seen.get(i).map_or(0, Vec::len);
                let touched = self.touched.get(i).and_then(|t| t.get(at));
                touched.copied().unwrap_or((Lines::MAX, Lines::MAX))
            }
            Move::Evict(_, at)
            | Move::WriteBack(_, at)
            | Move::WcLeave(_, at)
            | Move::WeakComplete(_, at) => {
                let set = self.set_of(at.line());
                (set, set)
            }
        }
    }

    fn step_of(&self, now: &Moment, mv: &Move) -> Option<Step> {
        Some(match mv {
            Move::Program(i) => {
                let i = usize::from(*i);
                let step = self.programs.get(i)?.get(now.seen.get(i)?.len())?;
                match step {
                    Step::Op(..) => step.clone(),
                    Step::Choice(_) => return None,
                }
            }
            Move::Evict(place, at) => Step::Choice(Choice::Evict(*place, *at)),
            Move::WriteBack(place, at) => Step::Choice(Choice::WriteBack(*place, *at)),
            Move::WcLeave(core, at) => Step::Choice(Choice::WcLeave(*core, *at)),
            Move::WeakComplete(core, at) => {
                let held = now.model.state().pending.get(core)?;
                let index = held.weak.iter().position(|w| w.at == *at)?;
                Step::Choice(Choice::WeakComplete(*core, index))
            }
        })
    }
    fn ending(now: &Moment) -> Ending {
        let state = now.model.state();
        let lines = state.dram.iter().map(|(line, dram)| {
            let cause = dram.poison.and_then(|id| state.births.get(&id)).map(|b| b.cause);
            (*line, DramLine { poison: None, ..*dram }, cause)
        });
        Ending { seen: now.seen.clone(), lines: lines.collect() }
    }
}

impl System for Interleave {
    type State = Moment;
    type Move = Move;

    fn moves(&self, now: &Moment, out: &mut Vec<Move>) {
        for (i, (program, seen)) in self.programs.iter().zip(&now.seen).enumerate() {
            if seen.len() < program.len() {
                out.push(Move::Program(i as u8));
            }
        }
        for ((at, place), copy) in &now.model.state().caches {
            out.push(Move::Evict(*place, *at));
            if copy.state.is_dirty() {
                out.push(Move::WriteBack(*place, *at));
            }
        }
        for (core, held) in &now.model.state().pending {
            out.extend(held.wc.iter().map(|b| Move::WcLeave(*core, b.at)));
            out.extend(held.weak.iter().map(|w| Move::WeakComplete(*core, w.at)));
        }
    }
    fn apply(&mut self, now: &Moment, mv: &Move) -> Option<Moment> {
        let mut next = now.clone();
        let step = self.step_of(now, mv)?;
        next.model.replay(&step, &mut self.out).ok()?;
        if let Move::Program(i) = mv {
            let births = &next.model.state().births;
            let answer = match self.out.seen {
                Seen::Done | Seen::Pconfig(_) => Answer::Done,
                Seen::Data { data, class, .. } => Answer::Data(data, class),
                Seen::MachineCheck { birth, .. } | Seen::DmaPoison(birth) => {
                    Answer::Poison(births.get(&birth).map(|b| b.cause))
                }
                _ => Answer::Fault,
            };
            next.seen.get_mut(usize::from(*i))?.push(answer);
        }
        Some(next)
    }
    fn canonical(&mut self, now: &mut Moment) {
        now.model.forget_history();
    }
    fn acyclic(&self) -> bool {
        true // programs only go on; between their operations copies only leave, or become clean
    }
    fn ample(&mut self, now: &Moment, moves: &mut Vec<Move>) -> usize {
        if !self.reduced {
            return moves.len();
        }
        // An operation that touches no line commutes with everything: it alone is enough.
        if let Some(place) = moves.iter().position(|mv| self.footprint(now, mv).0 == 0) {
            moves.swap(0, place);
            return 1;
        }
        let mut best: Option<(usize, Lines)> = None;
        for seed in moves.iter() {
            let (mut set, _) = self.footprint(now, seed);
            // Until every program that will touch the set is about to touch it.
            loop {
                let mut grown = set;
                for mv in moves.iter().filter(|mv| matches!(mv, Move::Program(_))) {
                    let (next, left) = self.footprint(now, mv);
                    if left & grown != 0 {
                        grown |= next;
                    }
                }
                if grown == set {
                    break;
                }
                set = grown;
            }
            let count = moves.iter().filter(|mv| self.footprint(now, mv).0 & !set == 0).count();
            if best.is_none_or(|(least, _)| count < least) {
                best = Some((count, set));
            }
        }
        let Some((count, set)) = best else { return moves.len() };
        self.scratch.clear();
        self.scratch.extend(moves.iter().copied());
        let inside = |mv: &Move| self.footprint(now, mv).0 & !set == 0;
        moves.clear();
        moves.extend(self.scratch.iter().filter(|mv| inside(mv)));
        moves.extend(self.scratch.iter().filter(|mv| !inside(mv)));
        count
    }
    fn visited(&mut self, visit: &Visit<'_, Self>) -> ControlFlow<()> {
        if visit.new {
            let mut moves = std::mem::take(&mut self.scratch);
            moves.clear();
            self.moves(visit.after, &mut moves);
            if moves.is_empty() {
                self.endings.insert(Interleave::ending(visit.after));
            }
            self.scratch = moves;
        }
        ControlFlow::Continue(())
    }
}

/// How a page of a TD comes back to the host (verification.md §2.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reclaim {
    /// Private lines are flushed: by the module, or not at all.
    pub flush: bool,
    /// The host clears the page with MOVDIR64B: before the flush, after it.
    pub clear: [bool; 2],
    /// The host that uses the page afterwards writes parts of lines past the caches.
    pub partial: bool,
}

/// The life of a page as its first `lines` lines see it: the host writes it and flushes it, a TD takes it with a direct
/// store, stores and loads; it is reclaimed; the host stores, writes parts and loads. What is done to a page is done to
/// one line after the other.
pub fn page_life(spec: &Spec, lines: u64, reclaim: Reclaim) -> Vec<Step> {
    use crate::configurations::{BASE, PRIVATE};
    use sim_core::op::Value;
    use sim_core::{Addr, Hpa, KeyId};
    let private = PRIVATE.first().copied().unwrap_or(KeyId::TME);
    let (host, td) = (Agent::Kernel, crate::configurations::user_of(spec, private));
    let mut life = vec![];
    let mut each = |who, keyid, op: &dyn Fn(Addr) -> Op| {
        for line in 0..lines {
            let at = Addr::new(Hpa(BASE.0 + 64 * line), keyid);
            life.push(Step::Op(who, 0, op(at)));
        }
    };
    let store = |at, value| Op::Store { at, bytes: 8, value: Value::Num(value), ty: MemType::Wb };
    let load = |at| Op::Load { at, bytes: 8, ty: MemType::Wb };
    let direct = |dst| Op::Movdir64b { dst, src: Source::Fill(0) };
    each(host, KeyId::TME, &|at| store(at, 1));
    each(host, KeyId::TME, &|at| Op::Clflush { at });
    // A load under the own KeyID completes the direct store.
    each(Agent::SeamRoot, private, &direct);
    each(td, private, &load);
    each(td, private, &|at| store(at, 2));
    let [before, after] = reclaim.clear;
    if before {
        each(host, KeyId::TME, &direct);
    }
    if reclaim.flush {
        each(Agent::SeamRoot, private, &|at| Op::Clflush { at });
    }
    if after {
        each(host, KeyId::TME, &direct);
    }
    if reclaim.partial {
        each(host, KeyId::TME, &|at| Op::NtStore { at, bytes: 8, value: Value::Num(3) });
    }
    each(host, KeyId::TME, &load);
    each(host, KeyId::TME, &|at| store(at, 4));
    each(host, KeyId::TME, &load);
    life
}

#[cfg(test)]
mod tests;
