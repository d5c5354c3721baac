//! The machine against the reference model: every timed run must be one of the runs that the reference allows
//! (verification.md §5.1, Q17).
//!
//! The machine's log tells what it chose: which lines left for lack of room, which buffers and weakly ordered operations
//! left by themselves, in which order a fence or a flush of a package let go. These are made on the reference as
//! [`Choice`]s, in the order of the log and at their place between the lines of the operation. Whatever an operation must
//! do the reference does itself, and the log must say the same. After every operation all of the following is equal:
//!
//! - what the agent saw, and for a machine check which poison it names;
//! - the requests at the controller in their order (architecture.md §13 MC-31): line, KeyID, bytes, row, and TD bit, MAC,
//!   poison and writer before and after;
//! - births and deaths, what was logged as UCNA, and who can run no more (architecture.md §6.3);
//! - of every line touched: its state, and what a read would return under every KeyID in use, and by which row;
//! - every cached copy: which cores and packages hold it, whether it is dirty, bytes, class, poison;
//! - every write-combining buffer and pending weakly ordered operation.
//!
//! One thing is looked up in the machine instead of its log, since nothing but residency depends on it: that the LLC of a
//! package dropped a clean copy while another package kept its own. Within a package the reference may have a copy in the
//! LLC that the machine has in a core only: no operation can tell the difference.

use machine::{AgentId, AgentKind, AgentSpec, Item, Machine, Program, StepRecord};
use sim_core::event::{EventKind, LineState, Rule, WeakKind, Why};
use sim_core::mca::{McConsequence, McContext};
use sim_core::outcome::{DataClass, NotRun};
use sim_core::port::McHandler;
use sim_core::{BirthId, ByteMask, KeyId, Line, Op, Outcome, Tagged};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use thiserror::Error;
use verify::reference::tables::read_row;
use verify::reference::{
    Agent, Bytes, Choice, Coherence, NotAllowed, Place, Progress, Reference, Request, Seen, Spec,
    Step, StepOutcome,
};

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

/// What the machine chose, until it has been made on the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    /// All copies go; written back if `dirty`.
    Leave { at: Tagged, dirty: bool },
    /// The dirty copy is written back; copies stay.
    Clean { at: Tagged },
    /// As [`Want::Clean`], by a flush of this package.
    Flushed { at: Tagged, package: u8 },
    /// A core's copy goes to the LLC of its package, from where it may go on.
    Sink { core: u16, at: Tagged },
    /// A write-combining buffer leaves.
    Buffer { core: u16, at: Tagged },
    /// The oldest weakly ordered operation of that kind on the line becomes visible.
    Weak { core: u16, at: Tagged, kind: WeakKind },
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Leave { at, dirty: true } => write!(f, "evicts modified {at}"),
            Want::Leave { at, dirty: false } => write!(f, "drops clean {at}"),
            Want::Clean { at } => write!(f, "writes {at} back"),
            Want::Flushed { at, package } => {
                write!(f, "writes {at} back in a flush of package {package}")
            }
            Want::Sink { core, at } => write!(f, "lets {at} leave core {core}"),
            Want::Buffer { core, at } => {
                write!(f, "lets core {core}'s write-combining buffer for {at} leave")
            }
            Want::Weak { core, at, kind } => {
                write!(f, "lets core {core}'s {kind:?} on {at} become visible")
            }
        }
    }
}

/// A choice at its place: after so many requests and stores of the operation, or after all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Due {
    requests: usize,
    stores: usize,
    after: bool,
    want: Want,
}

/// A request at the controller, as both sides have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seal {
    at: Tagged,
    /// `None` for a read.
    mask: Option<ByteMask>,
    rule: Rule,
    /// Before and after, where the log has them.
    states: Option<(LineState, LineState)>,
}

/// What the log says of one operation.
#[derive(Default)]
struct Record {
    choices: VecDeque<Due>,
    requests: Vec<Seal>,
    ucna: Vec<BirthId>,
}

/// Who can run no more (architecture.md §6.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Fate {
    panicked: bool,
    tdx_disabled: bool,
    dead: BTreeSet<AgentId>,
    shut_down: BTreeSet<u16>,
}

/// A reference that follows a machine, operation by operation.
#[derive(Clone, Debug)]
pub struct Refinement {
    reference: Reference,
    agents: Vec<AgentSpec>,
    fate: Fate,
    lmce: bool,
    /// Events read.
    read: usize,
    /// Lines touched, and the KeyIDs in use.
    lines: BTreeSet<Line>,
    keyids: BTreeSet<KeyId>,
    program: Vec<String>,
}

type Checked = Result<(), Difference>;

/// Stands for an operation where there is none.
const NOTHING: Op = Op::Delay { time: sim_core::Ps::ZERO };

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

/// Why a program that needs the TDX module cannot be checked.
pub const NO_MODULE: &str = "it has no TDX module, which this program needs";

/// Why a program cannot be checked against the reference model; `None` if it can.
pub fn not_checkable(program: &Program) -> Option<&'static str> {
    if program.order == machine::Order::Concurrent {
        return Some("that is not built yet for order = \"concurrent\"");
    }
    let calls = program.items.iter().any(|i| matches!(i, Item::Op(_, op) if op.needs_module()));
    let guests = program.agents.iter().any(|a| a.kind == AgentKind::Guest);
    (calls || guests).then_some(NO_MODULE)
}

/// Runs a program whose operations follow each other ([`machine::Order::Program`], whatever `program.order` says) as
/// [`Machine::run`] does, and checks every operation. After a disagreement the machine runs on, unchecked.
pub fn run<H: McHandler>(
    machine: &mut Machine,
    program: &Program,
    os: &mut H,
) -> (Vec<StepRecord>, Result<(), Disagreement>) {
    let mut refinement = Refinement::new(machine);
    let base = machine.agents().count() as u16;
    for agent in &program.agents {
        machine.add_agent(agent.clone());
    }
    let mut records = Vec::with_capacity(program.items.len());
    let mut verdict = Ok(());
    for (item, step) in program.items.iter().enumerate() {
        let Item::Op(agent, op) = step else { continue };
        let id = AgentId(base + agent.0);
        let mut record = machine.execute(id, op, item as u32, os);
        if verdict.is_ok() {
            verdict = refinement.follow(machine, id, op, &record);
        }
        record.agent = *agent;
        records.push(record);
    }
    machine.settle();
    let verdict = verdict.and_then(|()| refinement.finish(machine));
    (records, verdict)
}

impl Refinement {
    /// For a machine at power-on, whose log is on.
    pub fn new(machine: &Machine) -> Refinement {
        Refinement {
            reference: Reference::new(Spec::new(machine.spec())),
            agents: Vec::new(),
            fate: Fate::default(),
            lmce: machine.spec().mce.lmce,
            read: machine.trace().events().len(),
            lines: BTreeSet::new(),
            keyids: BTreeSet::from([KeyId::TME]),
            program: Vec::new(),
        }
    }
    /// The reference as it stands.
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Checks the operation that the machine has just executed.
    ///
    /// # Errors
    /// What machine and reference differ in. Nothing can be checked after that.
    pub fn follow(
        &mut self,
        machine: &Machine,
        agent: AgentId,
        op: &Op,
        record: &StepRecord,
    ) -> Result<(), Disagreement> {
        for spec in machine.agents().skip(self.agents.len()) {
            self.agents.push(spec.clone());
        }
        let name = self.agents.get(usize::from(agent.0)).map_or("?", |a| a.name.as_str());
        self.program.push(format!("{name}: {op}"));
        self.operation(machine, agent, op, record).map_err(|d| self.disagreement(d))
    }

    /// Checks what happened since the last operation: what [`Machine::settle`] let become visible. Compares everything.
    ///
    /// # Errors
    /// What machine and reference differ in.
    pub fn finish(&mut self, machine: &Machine) -> Result<(), Disagreement> {
        let mut all = std::mem::take(&mut self.lines);
        let checked = self
            .replay(machine, Agent::Kernel, 0, &NOTHING, None, &mut all)
            .and_then(|()| self.compare(machine, &all));
        self.lines = all;
        checked.map_err(|d| self.disagreement(d))
    }

    fn disagreement(&self, difference: Difference) -> Disagreement {
        Disagreement { difference, program: self.program.clone() }
    }

    fn operation(
        &mut self,
        machine: &Machine,
        id: AgentId,
        op: &Op,
        record: &StepRecord,
    ) -> Checked {
        let Some(spec) = self.agents.get(usize::from(id.0)).cloned() else {
            return Err(Difference::NoLog);
        };
        let who = match spec.kind {
            // Its operations are not looked at for who does them.
            AgentKind::Kernel | AgentKind::Hardware => Agent::Kernel,
            AgentKind::User => Agent::User,
            AgentKind::Seam => Agent::SeamRoot,
            AgentKind::Td => Agent::Td(spec.keyid),
            AgentKind::Device => Agent::Device,
            AgentKind::Guest => return Err(Difference::Refused(NotAllowed::NotModelled)),
        };
        let mut touched = BTreeSet::new();
        for at in op.addresses().into_iter().flatten() {
            self.keyids.insert(at.keyid);
            touched.insert(at.hpa.line());
        }
        let late = Outcome::NotRun(NotRun::Horizon);
        let late = (record.outcome == late && machine.now().is_horizon()).then_some(late);
        if let Some(refusal) = late.or_else(|| self.fate.refusal(id, &spec)) {
            same(|| "whether it runs".to_owned(), &record.outcome, &refusal)?;
            self.replay(machine, who, spec.core, &NOTHING, None, &mut touched)?;
        } else {
            self.replay(machine, who, spec.core, op, Some(&record.outcome), &mut touched)?;
            self.suffer(machine, id, &spec, &record.outcome)?;
        }
        self.compare(machine, &touched)?;
        self.lines.extend(touched);
        Ok(())
    }

    /// Makes one operation on the reference, with the choices that the log has for it, and compares what can be compared of
    /// the operation itself.
    fn replay(
        &mut self,
        machine: &Machine,
        who: Agent,
        core: u16,
        op: &Op,
        outcome: Option<&Outcome>,
        touched: &mut BTreeSet<Line>,
    ) -> Checked {
        let Record { mut choices, requests, ucna } = self.read_log(machine, core, op, touched)?;
        let sub_block = |at: Tagged| machine.caches().sub_block_of(at.line());
        let flushed = |at: Tagged| match op {
            Op::Wbinvd | Op::Wbnoinvd => true,
            Op::Wbinvdp { block } | Op::Wbnoinvdp { block } => *block == sub_block(at),
            _ => false,
        };
        let choose = |model: &Reference, progress: Progress| {
            next_choice(&mut choices, model, progress, flushed)
        };
        let step = Step::Op(who, core, *op);
        let done = self.reference.step_among(&step, sub_block, choose);
        let StepOutcome { seen, traffic, ucna: logged, .. } = done.map_err(Difference::Refused)?;
        if let Some(due) = choices.front() {
            return Err(Difference::Choice { choice: due.want.to_string() });
        }
        if let Some(outcome) = outcome
            && !admits(&seen, outcome)
        {
            let (machine, reference) = (format!("{outcome} ({outcome:?})"), format!("{seen:?}"));
            return Err(Difference::Outcome { machine, reference });
        }
        let theirs = traffic.iter().map(|t| Seal {
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
        same(|| "UCNA entries".to_owned(), &ucna, &logged)?;
        self.forget_llcs(machine);
        Ok(())
    }

    /// Reads the events since the last operation: choices, and requests to be compared. Whatever else the log has is a
    /// consequence that the reference must come to by itself.
    fn read_log(
        &mut self,
        machine: &Machine,
        core: u16,
        op: &Op,
        touched: &mut BTreeSet<Line>,
    ) -> Result<Record, Difference> {
        let trace = machine.trace();
        if !trace.is_on() || trace.lost() != 0 {
            return Err(Difference::NoLog);
        }
        let events = trace.events().get(self.read..).unwrap_or_default();
        self.read = trace.events().len();
        // In functional mode 64 direct stores to a page are one event, which follows what they displace.
        let page_at_once = events.iter().any(|e| matches!(e.kind, EventKind::DramWritePage { .. }));
        // Time passes after an operation, or between the lines of one that takes them one by one.
        let line_by_line = matches!(op, Op::RepStosb { .. } | Op::Movdir64bPage { .. });
        let package = self.reference.spec.package_of(core);
        let mut out = Record::default();
        let (mut stores, mut checked) = (0, false);
        for event in events {
            let requests = out.requests.len();
            let timed = matches!(
                event.kind,
                EventKind::WcLeave { why: Why::Time, .. }
                    | EventKind::WeakDone { why: Why::Time, .. }
            );
            let after = checked || timed && !line_by_line;
            // What the page displaces, not what a buffer displaces that leaves before or after.
            let displaced = page_at_once
                && trace.event(event.cause).is_some_and(|c| matches!(c.kind, EventKind::Op { .. }));
            let mut choose =
                |want: Want| out.choices.push_back(Due { requests, stores, after, want });
            match event.kind {
                EventKind::CacheStore { .. } => stores += 1,
                // It ends the operation.
                EventKind::MachineCheck(_) => checked = true,
                EventKind::WriteBack { at, why, kept } => match why {
                    Why::Capacity if kept => choose(Want::Clean { at }),
                    Why::Capacity => choose(Want::Leave { at, dirty: true }),
                    // Whether a dirty line is shared across packages is the reference's `Choice::WriteBack`.
                    Why::Snoop => choose(Want::Clean { at }),
                    // The order is hardware's (architecture.md §13 MC-12), the extent is not.
                    Why::FlushAll => choose(Want::Flushed { at, package }),
                    Why::Bypass if displaced => choose(Want::Leave { at, dirty: true }),
                    _ => {}
                },
                EventKind::Dropped { at, why } => match why {
                    Why::Capacity => choose(Want::Leave { at, dirty: false }),
                    Why::Bypass if displaced => choose(Want::Leave { at, dirty: false }),
                    _ => {}
                },
                EventKind::LeftCore { core, at } => choose(Want::Sink { core, at }),
                EventKind::WcLeave { core, at, why, .. } => match why {
                    // In which order a drain lets go is hardware's choice, also between buffers and weak operations.
                    Why::Time | Why::Fence | Why::Interrupt => choose(Want::Buffer { core, at }),
                    Why::OwnAccess if page_at_once => choose(Want::Buffer { core, at }),
                    _ => {}
                },
                EventKind::WeakDone { core, at, kind, why } => match why {
                    Why::Time | Why::Fence | Why::Interrupt | Why::Capacity => {
                        choose(Want::Weak { core, at, kind });
                    }
                    Why::OwnAccess if page_at_once => choose(Want::Weak { core, at, kind }),
                    _ => {}
                },
                EventKind::DramRead { at, rule, before, after } => {
                    touched.insert(at.line());
                    let states = Some((before, after));
                    out.requests.push(Seal { at, mask: None, rule, states });
                }
                EventKind::DramWrite { at, mask, rule, before, after } => {
                    touched.insert(at.line());
                    let states = Some((before, after));
                    out.requests.push(Seal { at, mask: Some(mask), rule, states });
                }
                EventKind::DramWritePage { page, keyid, lines, rule } => {
                    for i in (0..sim_core::LINES_PER_PAGE).filter(|i| lines >> i & 1 != 0) {
                        let (at, requests) = (Tagged::new(page.line(i), keyid), out.requests.len());
                        let want = Want::Weak { core, at, kind: WeakKind::Movdir64b };
                        out.choices.push_back(Due { requests, stores, after, want });
                        touched.insert(at.line());
                        let mask = Some(ByteMask::FULL);
                        out.requests.push(Seal { at, mask, rule, states: None });
                    }
                }
                EventKind::Ucna(record) => out.ucna.push(record.birth),
                _ => {}
            }
        }
        Ok(out)
    }

    /// A machine check's consequences for who runs on.
    fn suffer(
        &mut self,
        machine: &Machine,
        id: AgentId,
        spec: &AgentSpec,
        outcome: &Outcome,
    ) -> Checked {
        if let Outcome::MachineCheck { record, consequence } = outcome {
            let context = match spec.kind {
                AgentKind::User => McContext::User,
                AgentKind::Seam => McContext::SeamRoot,
                AgentKind::Td | AgentKind::Guest => McContext::SeamNonRoot,
                AgentKind::Kernel | AgentKind::Device | AgentKind::Hardware => McContext::Kernel,
            };
            same(|| "context of the machine check".to_owned(), &record.context, &context)?;
            if spec.kind == AgentKind::Seam {
                self.fate.shut_down.insert(spec.core);
                self.fate.tdx_disabled = true;
            }
            if spec.kind == AgentKind::Td || *consequence == McConsequence::Sigbus {
                self.fate.dead.insert(id);
            }
            self.fate.panicked |= *consequence == McConsequence::Panic;
            if !self.lmce {
                let tds = self.agents.iter().enumerate().filter(|(_, a)| a.kind == AgentKind::Td);
                self.fate.dead.extend(tds.map(|(i, _)| AgentId(i as u16)));
            }
        }
        same(|| "kernel panic".to_owned(), &machine.is_panicked(), &self.fate.panicked)?;
        let disabled = machine.is_tdx_disabled();
        same(|| "TDX disabled".to_owned(), &disabled, &self.fate.tdx_disabled)
    }

    /// Drops clean copies of LLCs whose package holds the line no more, while another does: the log has no event for that.
    /// What does not fit is left as it is, for the comparison to find.
    fn forget_llcs(&mut self, machine: &Machine) {
        let spec = self.reference.spec;
        let all = self.reference.state().caches.iter();
        let in_llc = all.filter_map(|((at, place), copy)| match place {
            Place::Llc(package) if !copy.state.is_dirty() => Some((*at, *package)),
            _ => None,
        });
        let gone = in_llc.filter(|(at, package)| {
            let view = machine.caches().inspect(*at);
            view.is_some_and(|v| !holders(v.cores, v.llc, &spec).contains(package))
        });
        for (at, package) in gone.collect::<Vec<_>>() {
            // The copy is there and clean: always allowed.
            let _ = self.reference.step(&Step::Choice(Choice::Evict(Place::Llc(package), at)));
        }
    }

    /// Compares the states: DRAM of the lines given, all that is cached and pending.
    fn compare(&self, machine: &Machine, lines: &BTreeSet<Line>) -> Checked {
        let model = &self.reference;
        let births = (machine.trace().births().len() as u32, machine.trace().deaths());
        same(|| "births and deaths".to_owned(), &births, &model.births_and_deaths())?;
        for (id, birth) in &model.state().births {
            let ours = machine.trace().birth(*id).map(|b| (b.at, b.cause));
            same(|| format!("birth {}", id.0), &ours, &Some((birth.at, birth.cause)))?;
        }
        for &line in lines {
            same(|| format!("line {line}"), &machine.memory().line(line), &model.line(line))?;
            for &keyid in &self.keyids {
                self.compare_read(machine, Tagged::new(line, keyid))?;
            }
        }
        self.compare_copies(machine)?;
        self.compare_pending(machine)
    }

    /// What a read would return now.
    fn compare_read(&self, machine: &Machine, at: Tagged) -> Checked {
        let model = &self.reference;
        let line = model.dram(at.line());
        let mode = model.spec.memory.integrity;
        let row =
            read_row(mode, model.class(at), line.td, model.mac_valid(at), line.poison.is_some());
        let (bytes, class) = if row.plaintext {
            line.decrypt(at.line(), model.key(at).key)
        } else {
            (Bytes::ZERO, DataClass::Blocked)
        };
        let probe = machine.memory().probe(at);
        let ours = (probe.rule, probe.class, probe.poisoned, probe.birth);
        let what = || format!("a read of {at}");
        same(what, &ours, &(row.rule, class, row.poison, row.birth))?;
        same_bytes(what, &probe.data, &bytes)
    }

    fn compare_copies(&self, machine: &Machine) -> Checked {
        let spec = &self.reference.spec;
        let ours = machine.caches().resident_lines().map(|l| l.tag);
        let theirs = self.reference.state().caches.keys().map(|(at, _)| *at);
        let all: BTreeSet<Tagged> = ours.chain(theirs).collect();
        for at in all {
            let mut cores = 0u128;
            let mut packages = BTreeSet::new();
            let mut dirty = BTreeSet::new();
            for (place, copy) in self.reference.copies(at) {
                let package = match place {
                    Place::Core(c) => {
                        cores |= 1 << (c & 127);
                        spec.package_of(c)
                    }
                    Place::Llc(p) => p,
                };
                packages.insert(package);
                if matches!(copy.state, Coherence::Modified | Coherence::Owned) {
                    dirty.insert(package);
                }
            }
            let view = machine.caches().inspect(at);
            let here = view.map(|v| holders(v.cores, v.llc, spec)).unwrap_or_default();
            same(|| format!("packages that hold {at}"), &here, &packages)?;
            let Some(view) = view else { continue };
            same(|| format!("cores that hold {at}"), &view.cores, &cores)?;
            // A dirty line of the machine has all its holders in one package.
            let duty = if view.dirty { here } else { BTreeSet::new() };
            same(|| format!("packages where {at} is dirty"), &duty, &dirty)?;
            for (place, copy) in self.reference.copies(at) {
                let what = || format!("copy of {at} in {place:?}");
                same(what, &(view.class, view.poison), &(copy.class, copy.poison))?;
                same_bytes(what, &view.data, &copy.data)?;
            }
        }
        Ok(())
    }

    fn compare_pending(&self, machine: &Machine) -> Checked {
        for core in 0..self.reference.spec.cores {
            let theirs = self.reference.state().pending.get(&core);
            let (wc, weak) = theirs.map_or((&[][..], &[][..]), |p| (&p.wc, &p.weak));
            let ours: Vec<_> = machine.caches().wc_buffers(core).map(|b| (b.at, b.mask)).collect();
            let model: Vec<_> = wc.iter().map(|b| (b.at, ByteMask(b.mask))).collect();
            let what = || format!("write-combining buffers of core {core}");
            same(what, &ours, &model)?;
            for (ours, theirs) in machine.caches().wc_buffers(core).zip(wc) {
                same_masked(what, &ours.data, &theirs.data, ours.mask)?;
            }
            let ours: Vec<_> =
                machine.caches().weak_ops(core).map(|w| (w.at, w.kind, w.mask)).collect();
            let model: Vec<_> = weak.iter().map(|w| (w.at, w.kind, ByteMask(w.mask))).collect();
            let what = || format!("weakly ordered operations of core {core}");
            same(what, &ours, &model)?;
            for (ours, theirs) in machine.caches().weak_ops(core).zip(weak) {
                same_masked(what, &ours.data, &theirs.data, ours.mask)?;
            }
        }
        Ok(())
    }
}

impl Fate {
    /// What an agent's operation gets that is not run.
    fn refusal(&self, id: AgentId, spec: &AgentSpec) -> Option<Outcome> {
        if self.panicked && spec.kind != AgentKind::Hardware {
            Some(Outcome::NotRun(NotRun::Panic))
        } else if self.dead.contains(&id) {
            Some(Outcome::NotRun(NotRun::Killed))
        } else if spec.kind.has_core() && self.shut_down.contains(&spec.core) {
            Some(Outcome::NotRun(NotRun::Shutdown))
        } else if self.tdx_disabled && matches!(spec.kind, AgentKind::Seam | AgentKind::Td) {
            Some(Outcome::VmFailInvalid)
        } else {
            None
        }
    }
}

/// What the agent saw, the poison named included: both sides number births in the order of their requests.
fn admits(seen: &Seen, outcome: &Outcome) -> bool {
    let same_birth = match (seen, outcome) {
        (Seen::MachineCheck { birth, .. }, Outcome::MachineCheck { record, .. }) => {
            *birth == record.birth
        }
        (Seen::DmaPoison(a), Outcome::DmaPoison(b)) => a == b,
        _ => true,
    };
    same_birth && seen.admits(outcome)
}

/// The packages with a copy.
fn holders(cores: u128, llc: u8, spec: &Spec) -> BTreeSet<u8> {
    let of_cores = (0..spec.cores.min(128)).filter(|c| cores >> c & 1 != 0);
    let of_llcs = (0..8).filter(|p| llc >> p & 1 != 0);
    of_cores.map(|c| spec.package_of(c)).chain(of_llcs).collect()
}

fn same_bytes(
    what: impl FnOnce() -> String,
    machine: &sim_core::LineData,
    reference: &Bytes,
) -> Checked {
    if reference.admits(machine) {
        return Ok(());
    }
    let (machine, reference) = (format!("{machine:?}"), format!("{reference:?}"));
    Err(Difference::State { what: what(), machine, reference })
}

/// Only the bytes that will be written count.
fn same_masked(
    what: impl FnOnce() -> String,
    machine: &sim_core::LineData,
    reference: &Bytes,
    mask: ByteMask,
) -> Checked {
    let mut ours = sim_core::LineData::ZERO;
    ours.merge(machine, mask);
    let mut theirs = Bytes::ZERO;
    theirs.merge(reference, mask);
    same_bytes(what, &ours, &theirs)
}

/// The next choice whose place has come and that can be made. One that cannot be made yet waits: what it is about (a weakly
/// ordered operation of the line just posted, say) may come with the operation's next line. `flushed` says which lines the
/// operation flushes.
fn next_choice(
    choices: &mut VecDeque<Due>,
    model: &Reference,
    progress: Progress,
    flushed: impl Fn(Tagged) -> bool,
) -> Option<Choice> {
    let due = choices.front()?;
    let come = !due.after && due.requests <= progress.requests && due.stores <= progress.stores;
    if !come && !progress.over {
        return None;
    }
    let modified = |at| model.copies(at).find(|(_, c)| c.state.is_dirty()).map(|(place, _)| place);
    let mut last = true;
    let choice = match due.want {
        Want::Leave { at, dirty } => {
            let duty = modified(at);
            if duty.is_some() != dirty {
                return None;
            }
            // The modified copy goes last, so that it is known to the end what the line was.
            let clean = model.copies(at).map(|(place, _)| place).find(|p| Some(*p) != duty);
            last = model.copies(at).count() == 1;
            Choice::Evict(clean.or(duty)?, at)
        }
        Want::Clean { at } => Choice::WriteBack(modified(at)?, at),
        Want::Flushed { at, package } => {
            let place = modified(at)?;
            let there = match place {
                Place::Core(core) => model.spec.package_of(core),
                Place::Llc(package) => package,
            };
            if there != package || !flushed(at) {
                return None;
            }
            Choice::WriteBack(place, at)
        }
        Want::Sink { core, at } => {
            model.copies(at).find(|(place, _)| *place == Place::Core(core))?;
            Choice::ToLlc(core, at)
        }
        Want::Buffer { core, at } => {
            let held = model.state().pending.get(&core)?;
            held.wc.iter().find(|b| b.at == at)?;
            Choice::WcLeave(core, at)
        }
        Want::Weak { core, at, kind } => {
            let held = model.state().pending.get(&core)?;
            let index = held.weak.iter().position(|w| w.at == at && w.kind == kind)?;
            Choice::WeakComplete(core, index)
        }
    };
    if last {
        choices.pop_front();
    }
    Some(choice)
}
