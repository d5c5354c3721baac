//! The journal: every transition that the machine makes, in order, for who replays a run on another model
//! (verification.md §5.1, architecture.md §13 MC-31).
//!
//! A [`Transition`] says who did what where, line by line as it was issued: an operation of a program, a read of a page
//! walk, a load or store of the TDX module. What came of it stands beside it, for comparison. What hardware chose meanwhile
//! (what left for lack of room, what became visible by itself) is in the log: the transition names its stretch of that.
//!
//! Off by default. A machine that keeps a journal does exactly what one without does.

use crate::Machine;
use crate::agent::{AgentId, AgentKind, Consumed};
use crate::exec::Beat;
use serde::{Deserialize, Serialize};
use sim_core::data::{ByteMask, LineData};
use sim_core::mca::McAccess;
use sim_core::op::{CallRegs, Source};
use sim_core::outcome::CallResult;
use sim_core::tdx::ExitReason;
use sim_core::{Addr, BirthId, EventId, Hpa, KeyId, LINE_BYTES, Op, Outcome, Page, Tagged};
use tdx_module::Module;

/// Who makes a transition (architecture.md §2.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Actor {
    /// The host kernel.
    Kernel,
    /// A host process.
    User,
    /// SEAM root: the TDX module, or an agent that stands for it.
    SeamRoot,
    /// A TD, with its HKID: a guest, the page walks for it, or an agent that stands for one.
    Td(KeyId),
    /// A device.
    Device,
    /// Physics, or hardware's own choice that the program makes.
    Hardware,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Act {
    /// An operation on physical addresses: all of it, or the lines of it that were issued at once.
    Op(Op),
    /// A write-back store of any bytes of a line, by the module.
    Store {
        /// Which line.
        at: Tagged,
        /// Which bytes.
        mask: ByteMask,
        /// Their values, each at its place.
        data: LineData,
        /// Whether it is a locked read-modify-write.
        locked: bool,
    },
    /// MOVDIR64B of lines alike.
    Direct {
        /// The first line.
        at: Tagged,
        /// How many.
        lines: u32,
        /// What each holds afterwards.
        data: LineData,
    },
}

/// For what a transition was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// It is, or is part of, the operation itself.
    Operation,
    /// A page walk of a guest reads an entry.
    Walk,
    /// The module is at work for the operation's agent.
    Module,
    /// An interrupt or a machine check drains a core (architecture.md §13 MC-28).
    Drain,
}

/// Poison that an access met and on which it retires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Met {
    /// Which poison.
    pub birth: BirthId,
    /// Where.
    pub at: Tagged,
    /// By what access.
    pub access: McAccess,
}

/// A transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transition {
    /// Whose operation it belongs to; `None` for a drain.
    pub agent: Option<AgentId>,
    /// The event of that operation: that of its [`crate::StepRecord`].
    pub operation: EventId,
    /// Who acts.
    pub actor: Actor,
    /// On which core.
    pub core: u16,
    /// For what.
    pub purpose: Purpose,
    /// What.
    pub act: Act,
    /// What it returned. An access that met poison is not over: see `met`.
    pub outcome: Outcome,
    /// The poison on which it retires.
    pub met: Option<Met>,
    /// The events that it made: from this place in the log ([`sim_core::event::Trace::events`]) ...
    pub from: usize,
    /// ... to before this one.
    pub to: usize,
}

/// Transitions since they were taken last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Whose operation is being issued.
    acting: Option<AgentId>,
    made: Vec<Transition>,
    /// What happened between the module and its callers.
    marks: Vec<Mark>,
}

/// What happened between the module and its callers, with the module's structures around every step that may change them:
/// what a monitor of the module needs (architecture.md §7).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mark {
    /// A SEAMCALL reached the module, or a TDCALL of this VCPU.
    Began {
        /// On which core.
        core: u16,
        /// The TDVPR page, of a TDCALL.
        vcpu: Option<Page>,
        /// RAX: leaf and version.
        rax: u64,
        /// The other registers.
        regs: CallRegs,
    },
    /// A SEAMCALL did not reach the module: VMfailInvalid.
    Refused {
        /// On which core.
        core: u16,
        /// RAX: leaf and version.
        rax: u64,
        /// The other registers.
        regs: CallRegs,
        /// The module at that moment.
        module: Box<Module>,
    },
    /// The leaf on a core, or the handler of an exit, went on.
    Stepped {
        /// On which core.
        core: u16,
        /// The module before.
        before: Box<Module>,
        /// The module after.
        after: Box<Module>,
    },
    /// TDH.VP.ENTER is in the TD.
    Entered {
        /// On which core.
        core: u16,
        /// The TDVPR page.
        vcpu: Page,
    },
    /// The guest of a core left to the module, not by a TDCALL.
    Exit {
        /// On which core.
        core: u16,
        /// By a machine check.
        check: bool,
    },
    /// The module let the guest go on behind such an exit.
    Resumed {
        /// On which core.
        core: u16,
    },
    /// A TDCALL was answered to the guest.
    Answered {
        /// On which core.
        core: u16,
        /// The answer.
        result: CallResult,
    },
    /// What the guest did ends in the host: TDH.VP.ENTER is about to return.
    Left {
        /// On which core.
        core: u16,
        /// Why.
        reason: ExitReason,
    },
    /// A SEAMCALL returned.
    Returned {
        /// On which core.
        core: u16,
        /// The answer.
        result: CallResult,
    },
    /// The core is in unbreakable shutdown: a machine check in the module, or its own end.
    Gone {
        /// On which core.
        core: u16,
        /// The module afterwards.
        module: Box<Module>,
    },
    /// The model does not know how the call goes on.
    Lost {
        /// On which core.
        core: u16,
    },
}

impl Machine {
    /// Starts or stops the journal; what it has is dropped.
    pub fn record_transitions(&mut self, on: bool) {
        self.journal = on.then(Box::default);
    }
    /// Takes the transitions made since the last call, in order. None without a journal.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        self.journal.as_mut().map(|j| std::mem::take(&mut j.made)).unwrap_or_default()
    }
    /// Takes what happened between the module and its callers since the last call of this, in order. None without a journal.
    pub fn take_marks(&mut self) -> Vec<Mark> {
        self.journal.as_mut().map(|j| std::mem::take(&mut j.marks)).unwrap_or_default()
    }

    /// An agent's next lines are being issued.
    pub(crate) fn journal_agent(&mut self, agent: AgentId) {
        if let Some(journal) = &mut self.journal {
            journal.acting = Some(agent);
        }
    }
    /// Something happened between the module and a caller.
    #[inline]
    pub(crate) fn mark(&mut self, mark: impl FnOnce(&Machine) -> Mark) {
        if self.journal.is_some() {
            let mark = mark(self);
            if let Some(journal) = &mut self.journal {
                journal.marks.push(mark);
            }
        }
    }
    /// The module, for who compares it with what it is after a step.
    pub(crate) fn before_step(&self) -> Option<Box<Module>> {
        self.journal.as_ref().map(|_| Box::new(self.module.clone()))
    }
    /// The module went on with the call on a core.
    pub(crate) fn after_step(&mut self, core: u16, before: Option<Box<Module>>) {
        if let Some(before) = before {
            let after = Box::new(self.module.clone());
            self.mark(|_| Mark::Stepped { core, before, after });
        }
    }

    fn enter(&mut self, from: usize, made: Transition) {
        let to = self.trace.events().len();
        if let Some(journal) = &mut self.journal {
            let agent = (made.purpose != Purpose::Drain).then_some(journal.acting).flatten();
            journal.made.push(Transition { agent, from, to, ..made });
        }
    }

    /// Makes a transition and enters it, if there is a journal.
    #[inline]
    pub(crate) fn transition(
        &mut self,
        actor: Actor,
        core: u16,
        purpose: Purpose,
        act: impl FnOnce(&Machine) -> Act,
        make: impl FnOnce(&mut Machine) -> Beat,
    ) -> Beat {
        if self.journal.is_none() {
            return make(self);
        }
        let (act, from) = (act(self), self.trace.events().len());
        let operation = self.trace.cause;
        let beat = make(self);
        let met = beat.poison.map(|Consumed { birth, at, access, .. }| {
            let at = Tagged::new(at.hpa.line(), at.keyid);
            Met { birth, at, access }
        });
        let outcome = beat.outcome;
        let (agent, to) = (None, from);
        self.enter(
            from,
            Transition { agent, operation, actor, core, purpose, act, outcome, met, from, to },
        );
        beat
    }

    /// Lets everything leave that waits in a core: an interrupt or a machine check is taken there.
    pub(crate) fn drain_core(&mut self, core: u16) {
        let drain = |machine: &mut Machine| {
            let (mut bus, caches) = machine.bus();
            caches.interrupt(core, &mut bus);
            Beat::over(Outcome::Done, sim_core::Ps::ZERO)
        };
        let act = |_: &Machine| Act::Op(Op::Interrupt);
        self.transition(Actor::Kernel, core, Purpose::Drain, act, drain);
    }

    /// The next lines of an operation of an agent that is no guest, as [`Machine::act_allowed`] issues them.
    #[cold]
    #[inline(never)]
    pub(crate) fn act_in_journal(
        &mut self,
        kind: AgentKind,
        own: KeyId,
        core: u16,
        op: &Op,
        done: u32,
    ) -> Beat {
        let actor = match kind {
            AgentKind::Kernel => Actor::Kernel,
            AgentKind::User => Actor::User,
            AgentKind::Seam => Actor::SeamRoot,
            AgentKind::Td | AgentKind::Guest => Actor::Td(own),
            AgentKind::Device => Actor::Device,
            AgentKind::Hardware => Actor::Hardware,
        };
        if done == 0
            && let Some(outcome) = self.refused(kind, own, op)
        {
            let refuse = |m: &mut Machine| Beat::over(outcome, m.spec.latency.issue);
            return self.transition(actor, core, Purpose::Operation, |_| Act::Op(*op), refuse);
        }
        if done == 0 {
            self.take_pending_irq(kind, core);
        }
        if op.needs_module() {
            // It touches no memory.
            return self.act_as(kind, core, op, done);
        }
        let part = |m: &Machine| Act::Op(m.part_of(op, done));
        self.transition(actor, core, Purpose::Operation, part, |m| m.act_as(kind, core, op, done))
    }

    /// The lines of an operation that are issued at once, the first time (`done` = 0) or later.
    pub(crate) fn part_of(&self, op: &Op, done: u32) -> Op {
        if self.options.speed == crate::Speed::Functional {
            return *op;
        }
        match *op {
            Op::Movdir64bPage { at } => {
                let line = at.hpa.page().line(done);
                Op::Movdir64b { dst: Addr::new(line.hpa(), at.keyid), src: Source::Fill(0) }
            }
            Op::RepStosb { at, bytes, value } => {
                let first = at.hpa.offset_in_line() as u32;
                let skip = if done == 0 { 0 } else { done * LINE_BYTES as u32 - first };
                let at = Addr::new(Hpa(at.hpa.0 + u64::from(skip)), at.keyid);
                let room = LINE_BYTES as u32 - at.hpa.offset_in_line() as u32;
                Op::RepStosb { at, bytes: bytes.saturating_sub(skip).min(room), value }
            }
            op => op,
        }
    }
}
