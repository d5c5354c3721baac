//! The machine against the reference model: every timed run must be one of the runs that the reference allows
//! (verification.md §5.1, Q17).
//!
//! The machine keeps a journal of what was done to memory, by whom and in which order ([`machine::Transition`]): operations
//! of a program, reads of page walks, loads and stores of the TDX module, drains by interrupts. Its log tells what it chose
//! besides: which lines left for lack of room, which buffers and weakly ordered operations left by themselves, in which order
//! a fence or a flush of a package let go. Transitions are made on the reference in the order of the journal, choices as
//! [`Choice`]s at their place between and within them. Whatever a transition must do the reference does itself, and the log
//! must say the same. Compared is:
//!
//! - of every transition what it returned, and which poison it met;
//! - the requests at the controller in their order (architecture.md §13 MC-31): line, KeyID, bytes, row, and TD bit, MAC,
//!   poison and writer before and after; births and deaths; what was logged as UCNA;
//! - of an operation that is over that its outcome is what its transitions returned, and who can run no more
//!   (architecture.md §6.3);
//! - of every line touched: its state, and what a read would return under every KeyID in use, and by which row;
//! - the cached copies: which cores and packages hold them, whether they are dirty, bytes, class, poison;
//! - the write-combining buffers and pending weakly ordered operations.
//!
//! States are compared whenever an operation is over, in a concurrent run after every event: what was touched, and
//! everything while the caches hold little ([`EVERYTHING`]) and at the end. [`Depth::Everything`] compares everything always:
//! what [`crate::run::run`] does to find the shortest prefix.
//!
//! What the TDX module decides is no business of the reference: what it stores is taken from the journal. Its decisions are
//! judged beside ([`crate::view`]).
//!
//! One thing is looked up in the machine instead of its log, since nothing but residency depends on it: that the LLC of a
//! package dropped a clean copy while another package kept its own. Within a package the reference may have a copy in the
//! LLC that the machine has in a core only: no operation can tell the difference.

mod checker;
mod compare;
mod fate;
mod judge;
mod log;

pub use checker::Checker;

use compare::{Sides, holders};
use fate::Fate;
use judge::{Judge, Seen, Verdict};
use log::{Record, Seal, next_choice};
use machine::{
    Act, Actor, AgentSpec, Item, Machine, Mark, Order, Program, Purpose, Run, StepRecord,
    Transition,
};
use serde::{Deserialize, Serialize};
use sim_core::event::{Event, EventKind};
use sim_core::mca::McConsequence;
use sim_core::op::{MemType, Source};
use sim_core::port::McHandler;
use sim_core::{KeyId, LINE_BYTES, Line, Op, Outcome, Tagged};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;
use verify::monitor::{Memory, Unknown};
use verify::reference::{
    self, Agent, Choice, NotAllowed, Place, Progress, Reference, Request, Spec, Step, StepOutcome,
};

/// Up to how many cached (line, KeyID)s everything is compared whenever an operation is over.
pub const EVERYTHING: usize = 64;

/// Up to how many operations a [`Disagreement`] tells.
const TOLD: usize = 4096;

/// In what machine and reference differ.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Difference {
    /// The agent saw something else.
    #[error("the machine's agent saw {machine}, the reference's {reference}")]
    Outcome {
        /// In the words of a scenario.
        machine: String,
        /// As the reference has it.
        reference: String,
    },
    /// The reference cannot do the operation at all.
    #[error("the reference cannot do this: {0}")]
    Refused(NotAllowed),
    /// The machine made a choice that the reference does not have.
    #[error("the machine {choice}, which the reference does not allow now")]
    Choice {
        /// What the machine did.
        choice: String,
    },
    /// Something that can be compared is not equal.
    #[error("{what}: the machine has {machine}, the reference {reference}")]
    State {
        /// What.
        what: String,
        /// On the machine.
        machine: String,
        /// On the reference.
        reference: String,
    },
    /// The monitor of the TDX module does not allow an answer, or what a call changed.
    #[error("{call} is not what architecture.md has: {complaints}")]
    Module {
        /// Which call.
        call: String,
        /// What the monitor complains of.
        complaints: String,
    },
    /// The machine's journal of calls does not fit together: nobody can tell what the module did for whom.
    #[error("the machine's journal has {what}")]
    Journal {
        /// What there should not have been.
        what: String,
    },
    /// The log is off or overflowed: nothing can be said.
    #[error("the machine's log is not complete")]
    NoLog,
}

/// Machine and reference disagree. Printed, it ends with the operations so far: a program that shows it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("after `{}`: {difference}\nprogram:\n{}", .program.last().map_or("power-on", String::as_str), .program.join("\n"))]
pub struct Disagreement {
    /// In what they differ.
    pub difference: Difference,
    /// The operations so far, as lines `agent: operation`; the last is the one that showed it.
    pub program: Vec<String>,
}

type Checked = Result<(), Difference>;

fn same<T: PartialEq + fmt::Debug>(
    what: impl FnOnce() -> String,
    machine: &T,
    reference: &T,
) -> Checked {
    if machine == reference {
        return Ok(());
    }
    let (machine, reference) = (format!("{machine:?}"), format!("{reference:?}"));
    Err(Difference::State { what: what(), machine, reference })
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Compared {
    /// Operations that are over.
    pub operations: u64,
    /// Transitions made on the reference, and choices between them that were not part of one.
    pub transitions: u64,
    /// Requests at the controllers.
    pub requests: u64,
    /// Comparisons of a line in DRAM.
    pub lines: u64,
    /// Comparisons of the whole state.
    pub states: u64,
    /// Calls, exits from TDs and machine checks that the monitor of the TDX module judged.
    pub judged: u64,
    /// Calls that it does not judge, that never came to an end, or whose change could not be told from that of others; exits
    /// behind which the guest goes on.
    pub not_judged: u64,
}

/// How much of the state is compared when an operation is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Depth {
    /// What was touched since, and everything while the caches hold little.
    #[default]
    Touched,
    /// Everything.
    Everything,
}

/// Looks on while transitions are made on the reference.
pub trait Observer {
    /// A transition was made; without an act hardware chose between two.
    fn made(&mut self, act: Option<&Act>, outcome: &StepOutcome, after: &Reference);
    /// Machine and reference agree on all that was touched since the last time.
    fn agreed(&mut self, touched: &BTreeSet<Tagged>, now: &Reference);
}

/// Nobody looks on.
impl Observer for () {
    fn made(&mut self, _: Option<&Act>, _: &StepOutcome, _: &Reference) {}
    fn agreed(&mut self, _: &BTreeSet<Tagged>, _: &Reference) {}
}

/// A reference that follows a machine.
#[derive(Clone, Debug)]
pub struct Refinement {
    reference: Reference,
    agents: Vec<AgentSpec>,
    fate: Fate,
    depth: Depth,
    /// Events read.
    read: usize,
    /// What was touched since states were compared last.
    touched: BTreeSet<Tagged>,
    /// Every line touched so far, and the KeyIDs in use.
    lines: BTreeSet<Line>,
    keyids: BTreeSet<KeyId>,
    program: Vec<String>,
    compared: Compared,
    judge: Judge,
    /// Several agents act at once: operands in memory may change while a call reads them, and what led to a disagreement is
    /// the list of transitions.
    concurrent: bool,
    made: Vec<Transition>,
}

/// A program under way that is being followed. Plain data, as the machine is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Followed {
    run: Run,
    /// The machine's number of the program's first agent.
    base: u16,
    /// Records that have been looked at.
    seen: usize,
}

impl Followed {
    /// The run.
    pub const fn run(&self) -> &Run {
        &self.run
    }
}

/// Runs a program as [`Machine::run`] does, and checks it. After a disagreement the machine runs on, unchecked.
pub fn run<H: McHandler>(
    machine: &mut Machine,
    program: &Program,
    os: &mut H,
) -> (Vec<StepRecord>, Result<(), Disagreement>) {
    let mut refinement = Refinement::new(machine);
    let (records, verdict) = refinement.run(machine, program, os, &mut ());
    (records, verdict)
}

/// The first line of a cached access that goes over its end.
fn first_of_two(op: &Op) -> Option<Tagged> {
    let (at, bytes) = match *op {
        Op::Load { at, bytes, ty: MemType::Wb }
        | Op::Store { at, bytes, ty: MemType::Wb, .. }
        | Op::LockXadd { at, bytes, .. } => (at, bytes),
        Op::Movdir64b { src: Source::Mem(at), .. } => (at, 64),
        _ => return None,
    };
    (at.hpa.offset_in_line() + bytes as usize > LINE_BYTES).then(|| at.tagged())
}

impl Refinement {
    /// For a machine at power-on, whose log is on. The machine keeps a journal from now on.
    pub fn new(machine: &mut Machine) -> Refinement {
        machine.record_transitions(true);
        Refinement {
            reference: Reference::new(Spec::new(machine.spec())),
            agents: Vec::new(),
            fate: Fate::default(),
            depth: Depth::default(),
            read: machine.trace().events().len(),
            touched: BTreeSet::new(),
            lines: BTreeSet::new(),
            keyids: BTreeSet::from([KeyId::TME]),
            program: Vec::new(),
            compared: Compared::default(),
            judge: Judge::new(machine),
            concurrent: false,
            made: Vec::new(),
        }
    }
    /// How much is compared.
    #[must_use]
    pub fn with_depth(self, depth: Depth) -> Refinement {
        Refinement { depth, ..self }
    }
    /// The reference as it stands.
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }
    /// What has been compared so far.
    pub const fn compared(&self) -> &Compared {
        &self.compared
    }
    fn heed(&mut self, marks: &[Mark]) -> Result<(), Disagreement> {
        for mark in marks {
            let memory: &dyn Memory = &Seen(&self.reference);
            let memory = if self.concurrent { &Unknown } else { memory };
            if let Err(verdict) = self.judge.mark(mark, memory) {
                let (difference, within) = match verdict {
                    Verdict::Call { call, complaints } => {
                        let all: Vec<String> = complaints.iter().map(ToString::to_string).collect();
                        let complaints = all.join("; ");
                        (Difference::Module { call: call.clone(), complaints }, Some(call))
                    }
                    Verdict::Journal(what) => (Difference::Journal { what }, None),
                };
                return Err(self.disagreement(difference, within));
            }
        }
        (self.compared.judged, self.compared.not_judged) =
            (self.judge.judged.judged, self.judge.judged.not_judged);
        Ok(())
    }

    /// Runs a program as [`Machine::run`] does, and checks it. After a disagreement the machine runs on, unchecked.
    pub fn run<H: McHandler, O: Observer>(
        &mut self,
        machine: &mut Machine,
        program: &Program,
        os: &mut H,
        observer: &mut O,
    ) -> (Vec<StepRecord>, Result<(), Disagreement>) {
        let mut verdict = Ok(());
        let mut followed = self.begin(machine, program, os);
        loop {
            let more = machine.advance(&mut followed.run, program, os);
            if verdict.is_ok() {
                verdict = self.advanced(machine, &mut followed, program, more, observer);
            }
            if !more {
                break;
            }
        }
        let verdict = verdict.and_then(|()| self.finish(machine));
        machine.record_transitions(false);
        (followed.run.records().to_vec(), verdict)
    }

    /// Begins a program, as [`Machine::start`] does.
    pub fn begin<H: McHandler>(
        &mut self,
        machine: &mut Machine,
        program: &Program,
        os: &mut H,
    ) -> Followed {
        for item in &program.items {
            if let Item::Op(_, op) = item {
                self.expect(op);
            }
        }
        self.concurrent = program.order == Order::Concurrent;
        if self.concurrent {
            self.judge.expect_interrupts();
        }
        let run = machine.start(program, os);
        let base = machine.agents().count().saturating_sub(program.agents.len()) as u16;
        Followed { run, base, seen: 0 }
    }

    /// An operation is added to a program that has begun.
    pub fn expect(&mut self, op: &Op) {
        self.judge.expect(op);
    }

    /// Lets the next thing of a program happen, as [`Machine::advance`] does, and checks it. Whether there is more. Between
    /// two of these the machine and the run can be saved and restored, and the machine's speed may change.
    ///
    /// # Errors
    /// What machine and reference differ in. Nothing can be checked after that.
    pub fn advance<H: McHandler, O: Observer>(
        &mut self,
        machine: &mut Machine,
        followed: &mut Followed,
        program: &Program,
        os: &mut H,
        observer: &mut O,
    ) -> Result<bool, Disagreement> {
        let more = machine.advance(&mut followed.run, program, os);
        self.advanced(machine, followed, program, more, observer)?;
        Ok(more)
    }

    fn advanced<O: Observer>(
        &mut self,
        machine: &mut Machine,
        followed: &mut Followed,
        program: &Program,
        more: bool,
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        self.catch_up(machine, observer)?;
        let Followed { run, base, seen } = followed;
        for record in run.records().get(*seen..).unwrap_or_default() {
            let Some(Item::Op(_, op)) = program.items.get(record.item as usize) else {
                continue;
            };
            let mut record = *record;
            if !more {
                // At its end a run has its agents by the program's numbers.
                record.agent.0 += *base;
            }
            self.over(machine, op, &record)?;
        }
        *seen = run.records().len();
        self.compare(machine, observer)
    }

    /// Checks the operation that the machine has just executed by itself ([`Machine::execute`]).
    ///
    /// # Errors
    /// What machine and reference differ in. Nothing can be checked after that.
    pub fn follow<O: Observer>(
        &mut self,
        machine: &mut Machine,
        op: &Op,
        record: &StepRecord,
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        self.judge.expect(op);
        self.catch_up(machine, observer)?;
        self.over(machine, op, record)?;
        self.compare(machine, observer)
    }

    /// As [`Refinement::follow`], with the transitions that the machine is said to have made.
    ///
    /// # Errors
    /// As [`Refinement::follow`].
    pub fn follow_made<O: Observer>(
        &mut self,
        machine: &Machine,
        transitions: &[Transition],
        op: &Op,
        record: &StepRecord,
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        self.make_told(machine, transitions, observer)?;
        self.over(machine, op, record)?;
        self.compare(machine, observer)
    }

    /// What was done so far is told as one line from now on.
    pub fn sum_up(&mut self, what: &str) {
        let n = self.compared.operations;
        self.program.clear();
        self.program.push(format!("({what}: {n} operations)"));
    }

    /// The machine's log has been cut ([`Machine::forget_events`]): what is left has been read.
    pub fn log_was_cut(&mut self, machine: &Machine) {
        self.read = machine.trace().events().len();
    }

    /// Makes on the reference what the machine has done since the last time.
    fn catch_up<O: Observer>(
        &mut self,
        machine: &mut Machine,
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        let transitions = machine.take_transitions();
        let marks = machine.take_marks();
        self.make_told(machine, &transitions, observer)?;
        self.heed(&marks)
    }

    fn make_told<O: Observer>(
        &mut self,
        machine: &Machine,
        transitions: &[Transition],
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        for spec in machine.agents().skip(self.agents.len()) {
            self.agents.push(spec.clone());
        }
        // Which core a guest is on changes.
        for (ours, spec) in self.agents.iter_mut().zip(machine.agents()) {
            ours.core = spec.core;
        }
        let made = self.make_all(machine, transitions, observer);
        made.map_err(|(at, difference)| {
            let extra = at.and_then(|n| transitions.get(n)).map(|t| self.told(t));
            self.disagreement(difference, extra)
        })
    }

    fn make_all<O: Observer>(
        &mut self,
        machine: &Machine,
        transitions: &[Transition],
        observer: &mut O,
    ) -> Result<(), (Option<usize>, Difference)> {
        let trace = machine.trace();
        if !trace.is_on() || trace.lost() != 0 {
            return Err((None, Difference::NoLog));
        }
        for (n, t) in transitions.iter().enumerate() {
            self.between(machine, t.from, observer).map_err(|d| (None, d))?;
            self.make(machine, t, observer).map_err(|d| (Some(n), d))?;
        }
        self.between(machine, trace.events().len(), observer).map_err(|d| (None, d))
    }

    /// What happened between two transitions: nobody acts, hardware may choose.
    fn between<O: Observer>(&mut self, machine: &Machine, to: usize, observer: &mut O) -> Checked {
        let events = machine.trace().events().get(self.read..to).unwrap_or_default();
        self.read = to;
        if events.iter().any(|e| e.kind == EventKind::Consequence(McConsequence::Panic)) {
            self.fate.kernel_panicked();
        }
        let record = self.record(machine, events, 0);
        if record.is_empty() {
            return Ok(());
        }
        let nothing = reference::Act::Op(NOTHING);
        let done = self.replay(machine, Agent::Kernel, 0, &nothing, record, None)?;
        observer.made(None, &done, &self.reference);
        Ok(())
    }

    fn make<O: Observer>(
        &mut self,
        machine: &Machine,
        t: &Transition,
        observer: &mut O,
    ) -> Checked {
        let events = machine.trace().events().get(t.from..t.to).unwrap_or_default();
        self.read = t.to;
        if self.concurrent {
            if self.made.len() == TOLD {
                self.made.drain(..TOLD / 2);
            }
            self.made.push(*t);
        }
        self.fate.made(t, &self.agents)?;
        let who = match t.actor {
            // What hardware does by itself is not looked at for who does it.
            Actor::Kernel | Actor::Hardware => Agent::Kernel,
            Actor::User => Agent::User,
            Actor::SeamRoot => Agent::SeamRoot,
            Actor::Td(hkid) => Agent::Td(hkid),
            Actor::Device => Agent::Device,
        };
        let act = match t.act {
            Act::Op(op) => {
                for at in op.addresses().into_iter().flatten() {
                    self.touch(at.tagged());
                }
                reference::Act::Op(op)
            }
            Act::Store { at, mask, data, locked } => {
                self.touch(at);
                reference::Act::Store { at, mask, data, locked }
            }
            Act::Direct { at, lines, data } => {
                self.touch(at);
                reference::Act::Direct { at, lines, data }
            }
        };
        let record = self.record(machine, events, t.core);
        let made = (t.purpose != Purpose::Drain).then_some(t);
        let done = self.replay(machine, who, t.core, &act, record, made)?;
        observer.made(Some(&t.act), &done, &self.reference);
        Ok(())
    }

    fn touch(&mut self, at: Tagged) {
        self.keyids.insert(at.keyid());
        self.touched.insert(at);
    }

    fn record(&self, machine: &Machine, events: &[Event], core: u16) -> Record {
        let is_operation =
            |id| machine.trace().event(id).is_some_and(|c| matches!(c.kind, EventKind::Op { .. }));
        Record::read(events, core, self.reference.spec.package_of(core), is_operation)
    }

    /// Makes one act on the reference, with the choices that the log has for it, and compares what can be compared of the act
    /// itself.
    fn replay(
        &mut self,
        machine: &Machine,
        who: Agent,
        core: u16,
        act: &reference::Act,
        record: Record,
        made: Option<&Transition>,
    ) -> Result<StepOutcome, Difference> {
        let Record { mut choices, requests, ucna, tags } = record;
        for at in tags {
            self.touch(at);
        }
        let sub_block = |at: Tagged| machine.caches().sub_block_of(at.line());
        let flushed = |at: Tagged| match act {
            reference::Act::Op(Op::Wbinvd | Op::Wbnoinvd) => true,
            reference::Act::Op(Op::Wbinvdp { block } | Op::Wbnoinvdp { block }) => {
                *block == sub_block(at)
            }
            _ => false,
        };
        let first = match act {
            reference::Act::Op(op) => first_of_two(op),
            _ => None,
        };
        let mut choose = |model: &Reference, progress: Progress| {
            next_choice(&mut choices, model, progress, flushed, first)
        };
        let mut done = StepOutcome::default();
        let issued = self.reference.issue_into(who, core, act, &sub_block, &mut choose, &mut done);
        issued.map_err(Difference::Refused)?;
        self.compared.transitions += 1;
        self.compared.requests += requests.len() as u64;
        if let Some(due) = choices.front() {
            return Err(Difference::Choice { choice: due.want.to_string() });
        }
        if let Some(t) = made
            && !admits(&done.seen, t)
        {
            let machine = match t.met {
                Some(met) => format!("mc of {met:?}"),
                None => format!("{} ({:?})", t.outcome, t.outcome),
            };
            return Err(Difference::Outcome { machine, reference: format!("{:?}", done.seen) });
        }
        let theirs = done.traffic.iter().map(|t| Seal {
            at: t.at,
            mask: match t.request {
                Request::Read { .. } => None,
                Request::Write { mask, .. } => Some(mask),
            },
            rule: t.rule,
            states: Some((t.before.state(), t.after.state())),
        });
        let mut theirs: Vec<Seal> = theirs.collect();
        for (ours, theirs) in requests.iter().zip(&mut theirs) {
            if ours.states.is_none() {
                theirs.states = None;
            }
        }
        for n in 0..requests.len().max(theirs.len()) {
            let what = || format!("request {} at the controller", n + 1);
            same(what, &requests.get(n), &theirs.get(n))?;
        }
        same(|| "UCNA entries".to_owned(), &ucna, &done.ucna)?;
        Ok(done)
    }

    /// An operation is over.
    fn over(
        &mut self,
        machine: &Machine,
        op: &Op,
        record: &StepRecord,
    ) -> Result<(), Disagreement> {
        self.compared.operations += 1;
        if self.program.len() < TOLD {
            let name =
                self.agents.get(usize::from(record.agent.0)).map_or("?", |a| a.name.as_str());
            self.program.push(format!("{name}: {op}"));
        }
        let over = self.fate.over(machine, &self.agents, op, record);
        over.map_err(|d| self.disagreement(d, None))
    }

    /// Compares the states: what was touched since the last time, or everything.
    fn compare<O: Observer>(
        &mut self,
        machine: &Machine,
        observer: &mut O,
    ) -> Result<(), Disagreement> {
        let touched = std::mem::take(&mut self.touched);
        let lines: BTreeSet<Line> = touched.iter().map(|at| at.line()).collect();
        let few = self.reference.state().caches.len() <= EVERYTHING;
        if touched.is_empty() {
            return Ok(());
        }
        let compared = if few || self.depth == Depth::Everything {
            self.compare_all(machine, &lines)
        } else {
            self.compare_some(machine, &touched, &lines)
        };
        self.lines.extend(lines);
        compared.map_err(|d| self.disagreement(d, None))?;
        observer.agreed(&touched, &self.reference);
        Ok(())
    }

    /// Compares everything once more. Nothing may be under way.
    ///
    /// # Errors
    /// What machine and reference differ in.
    pub fn finish(&mut self, machine: &mut Machine) -> Result<(), Disagreement> {
        self.catch_up(machine, &mut ())?;
        // A call that never came to its end, as the machine stopped before.
        self.compared.not_judged = self.judge.judged.not_judged + self.judge.under_way();
        let lines = std::mem::take(&mut self.lines);
        let compared = self.compare_all(machine, &lines);
        self.lines = lines;
        compared.map_err(|d| self.disagreement(d, None))
    }

    fn compare_some(
        &mut self,
        machine: &Machine,
        touched: &BTreeSet<Tagged>,
        lines: &BTreeSet<Line>,
    ) -> Checked {
        for &at in touched {
            self.forget_llcs(machine, at);
        }
        let sides = Sides { machine, reference: &self.reference, keyids: &self.keyids };
        sides.births()?;
        lines.iter().try_for_each(|line| sides.line(*line))?;
        touched.iter().try_for_each(|at| sides.copies(*at))?;
        self.compared.lines += lines.len() as u64;
        Ok(())
    }

    fn compare_all(&mut self, machine: &Machine, lines: &BTreeSet<Line>) -> Checked {
        let sides = Sides { machine, reference: &self.reference, keyids: &self.keyids };
        let cached = sides.cached();
        for &at in &cached {
            self.forget_llcs(machine, at);
        }
        let sides = Sides { machine, reference: &self.reference, keyids: &self.keyids };
        sides.births()?;
        lines.iter().try_for_each(|line| sides.line(*line))?;
        cached.iter().try_for_each(|at| sides.copies(*at))?;
        (0..self.reference.spec.cores).try_for_each(|core| sides.pending(core))?;
        self.compared.lines += lines.len() as u64;
        self.compared.states += 1;
        Ok(())
    }

    /// Drops clean copies of LLCs whose package holds the line no more, while another does: the log has no event for that.
    /// What does not fit is left as it is, for the comparison to find.
    fn forget_llcs(&mut self, machine: &Machine, at: Tagged) {
        let spec = self.reference.spec;
        if spec.packages < 2 {
            return;
        }
        let Some(view) = machine.caches().inspect(at) else { return };
        let here = holders(view.cores, view.llc, &spec);
        let gone = self.reference.copies(at).filter_map(|(place, copy)| match place {
            Place::Llc(package) if !copy.state.is_dirty() && !here.contains(&package) => {
                Some(place)
            }
            _ => None,
        });
        for place in gone.collect::<Vec<_>>() {
            // The copy is there and clean: always allowed.
            let _ = self.reference.step(&Step::Choice(Choice::Evict(place, at)));
        }
    }

    fn disagreement(&self, difference: Difference, within: Option<String>) -> Disagreement {
        let mut program = self.program.clone();
        if self.concurrent {
            // Side by side, the operations that are over say little: what was done, in order.
            program.extend(self.made.iter().map(|t| self.told(t)));
        } else {
            program.extend(within);
        }
        Disagreement { difference, program }
    }

    /// A transition within an operation that is not over, in words.
    fn told(&self, t: &Transition) -> String {
        let agent = t.agent.and_then(|id| self.agents.get(usize::from(id.0)));
        let name = agent.map_or("hw", |a| a.name.as_str());
        match (t.purpose, t.act) {
            (Purpose::Operation, Act::Op(op)) => format!("{name}: {op}"),
            (Purpose::Walk, Act::Op(op)) => format!("{name}: (page walk) {op}"),
            (Purpose::Module, Act::Op(op)) => format!("{name}: (module) {op}"),
            (_, act) => format!("{name}: {act:?}"),
        }
    }
}

/// Stands for an operation where there is none.
const NOTHING: Op = Op::Delay { time: sim_core::Ps::ZERO };

/// Whether the reference saw what the transition returned, the poison named included: both sides number births in the order
/// of their requests.
fn admits(seen: &reference::Seen, t: &Transition) -> bool {
    match (seen, t.met, t.outcome) {
        (reference::Seen::MachineCheck { access, at, birth }, Some(met), _) => {
            (*access, *at, *birth) == (met.access, met.at, met.birth)
        }
        (reference::Seen::MachineCheck { .. }, None, _) | (_, Some(_), _) => false,
        (reference::Seen::DmaPoison(a), None, Outcome::DmaPoison(b)) => *a == b,
        (seen, None, outcome) => seen.admits(&outcome),
    }
}
