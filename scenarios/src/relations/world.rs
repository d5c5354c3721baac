//! Worlds: a program, the platform it runs on, and how it is run, small enough to be printed as a scenario file.

use crate::format::Scenario;
use crate::platform::preset_with;
use crate::run::{linux, plan};
use crate::setup::Setup;
use machine::{
    AgentId, AgentKind, AgentSpec, Counts, CryptoKind, Item, Machine, Options, Order, Program,
    Speed, StepRecord,
};
use sim_core::event::Event;
use sim_core::op::{AddrExpr, Base, KeyRef, RegBase, RegExpr, TextOp};
use sim_core::outcome::DataClass;
use sim_core::planted::Planted;
use sim_core::{Addr, Hpa, KeyId, Line, Op, Outcome, PlatformSpec, Ps};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The parameter that scenario files give by a key of its own.
const INTEGRITY: &str = "memory.integrity";

/// One line of a world's program. Lines of two worlds with the same number stand for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its number.
    pub id: u32,
    /// Which agent of [`World::agents`].
    pub agent: u16,
    /// What it does.
    pub op: Op,
}

/// What a world's program does, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct World {
    /// The preset under the platform.
    pub preset: &'static str,
    /// Parameters that differ from the preset's, as `--set` takes them.
    pub set: Vec<(String, String)>,
    /// Who acts.
    pub agents: Vec<AgentSpec>,
    /// What they do. `None` is a barrier.
    pub steps: Vec<Option<Step>>,
    /// How lines follow each other.
    pub order: Order,
    /// How much of time is modelled.
    pub speed: Speed,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// Whether every event is recorded.
    pub log: bool,
    /// Tables `[regions]`, `[tdx]` and `[td.NAME]` of a scenario file, for worlds with a TDX module that is up.
    pub tables: String,
    /// A fault planted by a test.
    pub planted: Planted,
}

/// A world that has been run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What came of the lines, in the order in which they were over.
    pub records: Vec<StepRecord>,
    /// The machine at the end.
    pub machine: Machine,
}

/// Why a world cannot be run: a defect of whoever made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit(pub String);

impl World {
    /// The platform.
    ///
    /// # Errors
    /// A parameter that does not fit.
    pub fn platform(&self) -> Result<PlatformSpec, Unfit> {
        let spec = preset_with(self.preset, &self.set).map_err(|d| Unfit(d.render()))?;
        Ok(PlatformSpec { planted: self.planted, ..spec })
    }

    /// The program as the machine takes it.
    pub fn program(&self) -> Program {
        let item = |step: &Option<Step>| match step {
            Some(step) => Item::Op(AgentId(step.agent), step.op),
            None => Item::Barrier,
        };
        Program {
            agents: self.agents.clone(),
            items: self.steps.iter().map(item).collect(),
            order: self.order,
        }
    }

    /// The machine before the program: at power-on, or as [`World::tables`] leave it.
    ///
    /// # Errors
    /// What of platform or tables does not fit.
    pub fn machine(&self) -> Result<Machine, Unfit> {
        let spec = self.platform()?;
        let options = Options {
            speed: self.speed,
            crypto: CryptoKind::Symbolic,
            seed: self.seed,
            log: self.log,
        };
        let mut machine = Machine::new(&spec, options).map_err(|e| Unfit(e.to_string()))?;
        if let Some(setup) = self.setup()? {
            let mut os = linux(&spec);
            setup.run(&mut machine, &mut os).map_err(|e| Unfit(format!("{e:?}")))?;
        }
        Ok(machine)
    }

    /// What stands before the program.
    ///
    /// # Errors
    /// What of platform or tables does not fit.
    pub fn setup(&self) -> Result<Option<Setup>, Unfit> {
        if self.tables.is_empty() {
            return Ok(None);
        }
        let bare = World { steps: Vec::new(), ..self.clone() };
        let scenario = Scenario::from_text("world", &bare.text("setup", "", &BTreeMap::new(), &[]));
        let scenario = scenario.map_err(|d| Unfit(d.render()))?;
        let cells = plan(&scenario, &Default::default()).map_err(|d| Unfit(d.render()))?;
        Ok(cells.first().and_then(|cell| cell.program().setup.clone()))
    }

    /// Runs it from power-on.
    ///
    /// # Errors
    /// What of platform or tables does not fit.
    pub fn run(&self) -> Result<Ran, Unfit> {
        let mut machine = self.machine()?;
        let mut os = linux(machine.spec());
        let records = machine.run(&self.program(), &mut os);
        Ok(Ran { records, machine })
    }

    /// By number of the line: what its agent saw.
    pub fn seen(&self, ran: &Ran) -> BTreeMap<u32, Seen> {
        let of = |record: &StepRecord| {
            let step = (*self.steps.get(record.item as usize)?)?;
            Some((step.id, Seen::of(&record.outcome)))
        };
        ran.records.iter().filter_map(of).collect()
    }

    /// Operations.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// The world as a scenario file that `tdxsim run` accepts. `expect` says by number what lines must show and `finals` what
    /// must hold at the end; where they are silent nothing is asked. `why` becomes a comment.
    pub fn text(
        &self,
        name: &str,
        why: &str,
        expect: &BTreeMap<u32, Seen>,
        finals: &[String],
    ) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, name, why, expect, finals);
        out
    }

    /// The lines of memory that operations name, but not what lies behind their first byte's line.
    pub fn lines(&self) -> BTreeSet<Line> {
        self.ops().flat_map(|s| extents(&s.op)).map(|(at, _)| at.hpa.line()).collect()
    }

    /// What of these lines scenario files can say of the end of a run.
    pub fn finals(ran: &Ran, lines: &BTreeSet<Line>) -> Vec<String> {
        let said = |line: &Line| {
            let state = ran.machine.memory().line(*line);
            let is = |holds: bool, what: &str| {
                let not = if holds { "" } else { "not " };
                format!("{not}{what} {}", line.hpa())
            };
            [is(state.poison.is_some(), "poisoned"), is(state.td, "td")]
        };
        lines.iter().flat_map(said).collect()
    }

    fn write(
        &self,
        out: &mut String,
        name: &str,
        why: &str,
        expect: &BTreeMap<u32, Seen>,
        finals: &[String],
    ) -> std::fmt::Result {
        for line in why.lines() {
            writeln!(out, "# {line}")?;
        }
        let speed = match self.speed {
            Speed::Timed => "timed",
            Speed::Functional => "functional",
        };
        writeln!(out, "# tdxsim run FILE --seed {} --speed {speed}", self.seed)?;
        writeln!(out, "[scenario]\nname = \"{name}\"\ntitle = \"A world of the relations\"")?;
        writeln!(out, "cite = [\"verification.md §2.12\", \"verification.md §2.13\"]")?;
        writeln!(out, "platform = \"{}\"", self.preset)?;
        if self.order != Order::Program {
            writeln!(out, "order = \"{}\"", self.order.word())?;
        }
        if let Some(mode) = self.get(INTEGRITY) {
            writeln!(out, "integrity = \"{mode}\"")?;
        }
        let set = self.set.iter().filter(|(key, _)| key != INTEGRITY);
        let set: Vec<String> = set.map(|(k, v)| format!("\"{k}\" = \"{v}\"")).collect();
        if !set.is_empty() {
            writeln!(out, "set = {{ {} }}", set.join(", "))?;
        }
        writeln!(out, "program = '''")?;
        let mut count: BTreeMap<u16, u32> = BTreeMap::new();
        let mut expected = Vec::new();
        let mut used = BTreeSet::new();
        for step in &self.steps {
            let Some(step) = step else {
                writeln!(out, "  barrier")?;
                continue;
            };
            used.insert(step.agent);
            let agent = self.name(step.agent);
            writeln!(out, "  {agent:5} : {}", self.told(step))?;
            let index = count.entry(step.agent).or_default();
            *index += 1;
            if let Some(seen) = expect.get(&step.id).filter(|seen| seen.is_a_pattern()) {
                expected.push(format!("\"{agent}.{index}\" = \"{}\"", seen.text));
            }
        }
        if self.steps.iter().all(Option::is_none) {
            // A program has at least one line.
            writeln!(out, "  {:5} : mfence", self.name(0))?;
            used.insert(0);
        }
        writeln!(out, "'''\n\n[agents]")?;
        for (i, agent) in self.agents.iter().enumerate() {
            if !used.contains(&(i as u16)) {
                continue;
            }
            write!(out, "{} = {{ kind = \"{}\"", agent.name, agent.kind)?;
            if agent.kind.has_core() {
                write!(out, ", core = {}", agent.core)?;
            }
            if agent.kind == AgentKind::Td {
                write!(out, ", keyid = \"{}\"", agent.keyid)?;
            }
            if let Some(vcpu) = agent.vcpu {
                write!(out, ", vcpu = \"{:#x}\"", vcpu.0)?;
            }
            writeln!(out, " }}")?;
        }
        writeln!(out, "{}", self.tables)?;
        writeln!(out, "[expect]")?;
        for line in &expected {
            writeln!(out, "{line}")?;
        }
        let finals: Vec<String> = finals.iter().map(|check| format!("\"{check}\"")).collect();
        match (finals.is_empty(), expected.is_empty()) {
            (false, _) => writeln!(out, "final = [{}]", finals.join(", "))?,
            // A scenario asks for something.
            (true, true) => writeln!(out, "final = [\"module SYSINIT_PENDING\"]")?,
            (true, false) => {}
        }
        Ok(())
    }

    /// A line's operation as a file has it: guests' addresses are without KeyIDs.
    fn told(&self, step: &Step) -> String {
        let guest = |a: &AgentSpec| a.kind == AgentKind::Guest;
        if !self.agents.get(usize::from(step.agent)).is_some_and(guest) {
            return step.op.to_string();
        }
        let addr = |at: Addr| Ok(AddrExpr { base: Base::Abs(at.hpa.0), key: None });
        let reg = |value| Ok(RegExpr { base: RegBase::Num(value), or: 0 });
        let keyid = |keyid: KeyId| Ok::<_, ()>(KeyRef::Num(keyid.0.into()));
        let text: Result<TextOp, ()> = step.op.try_map(addr, keyid, reg);
        text.map_or_else(|()| step.op.to_string(), |op| op.to_string())
    }

    fn name(&self, agent: u16) -> &str {
        self.agents.get(usize::from(agent)).map_or("?", |a| a.name.as_str())
    }

    /// Sets a parameter, in place of what was set before.
    pub fn put(&mut self, key: &str, value: impl ToString) {
        self.set.retain(|(k, _)| k != key);
        self.set.push((key.to_owned(), value.to_string()));
    }
    /// A parameter that was set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.set.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
    /// A number no line has.
    pub fn fresh(&self) -> u32 {
        self.ops().map(|s| s.id + 1).max().unwrap_or(0)
    }
    /// Puts a line before another, given by its place.
    pub fn insert(&mut self, at: usize, agent: u16, op: Op) {
        let id = self.fresh();
        self.steps.insert(at.min(self.steps.len()), Some(Step { id, agent, op }));
    }
    /// Puts a line at the end.
    pub fn push(&mut self, agent: u16, op: Op) {
        self.insert(usize::MAX, agent, op);
    }
    /// The first agent of that kind on that core; on any core for agents that have none.
    pub fn agent(&self, kind: AgentKind, core: u16) -> Option<u16> {
        let fits = |a: &AgentSpec| a.kind == kind && (!kind.has_core() || a.core == core);
        self.agents.iter().position(fits).map(|i| i as u16)
    }
}

/// What an agent saw of an operation, without what only the simulator can know: ids of births.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// As scenario files have it.
    pub text: String,
    /// Of a machine check: where, and the line it names.
    pub check: Option<(u16, Hpa, KeyId, u64)>,
    /// Whether bytes are those of no key.
    pub garbage: bool,
}

impl Seen {
    /// Of an outcome.
    pub fn of(outcome: &Outcome) -> Seen {
        let check = match outcome {
            Outcome::MachineCheck { record, .. } => {
                Some((record.core, record.at.hpa, record.at.keyid, record.status.0))
            }
            _ => None,
        };
        let garbage = matches!(outcome, Outcome::Data(l) if l.class == DataClass::Garbage);
        Seen { text: outcome.to_string(), check, garbage }
    }
    /// Whether scenario files can ask for it.
    fn is_a_pattern(&self) -> bool {
        self.text.parse::<crate::format::Pattern>().is_ok()
    }
}

/// The bytes of memory that an operation names: (first byte, how many, KeyID). Where it names none, nothing.
pub fn extents(op: &Op) -> impl Iterator<Item = (Addr, u64)> {
    let bytes = match *op {
        Op::Load { bytes, .. }
        | Op::Store { bytes, .. }
        | Op::NtStore { bytes, .. }
        | Op::Movdiri { bytes, .. }
        | Op::RepStosb { bytes, .. }
        | Op::LockXadd { bytes, .. }
        | Op::DmaRead { bytes, .. }
        | Op::DmaWrite { bytes, .. } => bytes.into(),
        Op::Movdir64b { .. } => 64,
        Op::Movdir64bPage { .. } => sim_core::PAGE_BYTES,
        _ => 1,
    };
    op.addresses().into_iter().flatten().map(move |at| (*at, bytes))
}

/// What was recorded of a run.
pub(super) fn events(ran: &Ran) -> &[Event] {
    ran.machine.trace().events()
}

/// In what two runs differ that should be the same to the last event; `None` if in nothing. Platforms may differ.
pub fn first_difference(a: &Ran, b: &Ran) -> Option<String> {
    for (x, y) in a.records.iter().zip(&b.records) {
        if x != y {
            return Some(format!("a line ended as {x:?}, and as {y:?}"));
        }
    }
    if a.records.len() != b.records.len() {
        return Some(format!("{} lines ended, and {}", a.records.len(), b.records.len()));
    }
    for (x, y) in events(a).iter().zip(events(b)) {
        if x != y {
            return Some(format!("event {x:?}, and {y:?}"));
        }
    }
    if events(a).len() != events(b).len() {
        return Some(format!("{} events, and {}", events(a).len(), events(b).len()));
    }
    same_end(a, b)
}

/// In what the ends of two runs differ: time, counters, copies in caches, poison.
pub(super) fn same_end(a: &Ran, b: &Ran) -> Option<String> {
    let counts = |ran: &Ran| -> (Ps, Counts) { (ran.machine.now(), *ran.machine.counts()) };
    if counts(a) != counts(b) {
        return Some(format!("counters {:?}, and {:?}", counts(a), counts(b)));
    }
    let copies = |ran: &Ran| -> BTreeSet<String> {
        ran.machine.caches().resident_lines().map(|l| format!("{l:?}")).collect()
    };
    if copies(a) != copies(b) {
        return Some(format!("copies in caches {:?}, and {:?}", copies(a), copies(b)));
    }
    let births = |ran: &Ran| ran.machine.trace().births().to_vec();
    (births(a) != births(b)).then(|| format!("births {:?}, and {:?}", births(a), births(b)))
}

impl World {
    /// A line as its program has it.
    pub(crate) fn line(&self, step: &Step) -> String {
        format!("{}: {}", self.name(step.agent), self.told(step))
    }
}

impl Seen {
    /// Whether bytes came, but not which: where garbage may be among them, they depend on where it lies.
    pub(crate) fn no_bytes(&self) -> Seen {
        let text = match self.text.split_once(' ') {
            Some(("data" | "garbage", _)) => "bytes".to_owned(),
            _ => self.text.clone(),
        };
        Seen { text, garbage: false, ..self.clone() }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)?;
        if let Some((core, hpa, keyid, status)) = self.check {
            write!(f, " (core {core}, {hpa}@{keyid}, MCi_STATUS {status:#x})")?;
        }
        Ok(())
    }
}
