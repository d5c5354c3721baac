//! Agents: who issues operations.

use crate::guest::Guest;
use serde::{Deserialize, Serialize};
use sim_core::event::{BirthId, EventId};
use sim_core::mca::McAccess;
pub use sim_core::setting::{AgentKind, Order};
use sim_core::{Addr, Hpa, KeyId, Op, Outcome, Ps};

/// Names an agent of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AgentId(pub u16);

/// An agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Its name in the scenario.
    pub name: String,
    /// What it is.
    pub kind: AgentKind,
    /// On which core; ignored for devices and hardware.
    pub core: u16,
    /// Of a TD: its HKID.
    pub keyid: KeyId,
    /// Of a guest: the TDVPR page of its VCPU.
    pub vcpu: Option<Hpa>,
}

/// One item of a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Item {
    /// An operation of an agent.
    Op(AgentId, Op),
    /// All agents wait here for each other.
    Barrier,
}

/// A program of several agents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its agents.
    pub agents: Vec<AgentSpec>,
    /// Its operations and barriers.
    pub items: Vec<Item>,
    /// Their order.
    pub order: Order,
}

/// What came of an operation of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepRecord {
    /// Who.
    pub agent: AgentId,
    /// Which item of the program.
    pub item: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// When it began.
    pub begin: Ps,
    /// When it was over.
    pub end: Ps,
    /// The event that is the root of its consequences.
    pub event: EventId,
}

/// An operation in flight.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) op: Op,
    pub(crate) progress: Progress,
}

/// How far an operation in flight has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) item: u32,
    pub(crate) begin: Ps,
    pub(crate) event: EventId,
    /// Lines done of an operation on many.
    pub(crate) done: u32,
    /// What is known of its outcome.
    pub(crate) outcome: Outcome,
    /// Whether more lines are to come.
    pub(crate) more: bool,
    /// Whether the rest waits for a guest to leave.
    pub(crate) parked: bool,
    /// Poison on which the operation retires: a machine check when it is over.
    pub(crate) poison: Option<Consumed>,
}

impl Progress {
    /// Nothing has been issued yet.
    pub(crate) const fn new(item: u32, begin: Ps) -> Progress {
        Progress {
            item,
            begin,
            event: EventId::NONE,
            done: 0,
            outcome: Outcome::Done,
            more: true,
            parked: false,
            poison: None,
        }
    }
}

/// Poison that a load or fetch brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Consumed {
    pub(crate) birth: BirthId,
    pub(crate) at: Addr,
    pub(crate) access: McAccess,
    /// Nothing can go on here: a page walk's (architecture.md §13 MC-07).
    pub(crate) fatal: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) spec: AgentSpec,
    /// Killed, or its TD is fatal.
    pub(crate) dead: bool,
    pub(crate) flight: Option<Flight>,
    /// Its registers and its operation in flight, if it is a guest.
    pub(crate) guest: Guest,
    /// A guest that waits for its VCPU to be entered.
    pub(crate) waiting: bool,
    /// A host whose operation in flight waits for a guest to leave.
    pub(crate) parked: bool,
    /// Reads not answered.
    pub(crate) reads: u32,
    /// Requests not admitted.
    pub(crate) unadmitted: u32,
    /// Whether its wake-up is queued.
    pub(crate) armed: bool,
    /// Not over before this.
    pub(crate) until: Ps,
    /// Added to the moment of the last answer.
    pub(crate) after_read: Ps,
}

impl Agent {
    pub(crate) fn new(spec: AgentSpec) -> Agent {
        Agent {
            spec,
            dead: false,
            flight: None,
            guest: Guest::default(),
            waiting: false,
            parked: false,
            reads: 0,
            unadmitted: 0,
            armed: false,
            until: Ps::ZERO,
            after_read: Ps::ZERO,
        }
    }
}
