//! The machine: cores, caches, memory controllers and DRAM put together, run in simulated time.
//!
//! An operation takes effect at the moment it is issued, in the order in which operations are issued; what it costs is
//! then found by letting its requests run through the DRAM model (docs/ARCHITECTURE.md, "One operation's way"). That
//! order is one of those the untimed reference model allows.
//!
//! ```text
//!             issue                 last read answered,
//!   Idle ───────────────▶ Waiting ─────────────────────▶ Idle (outcome known)
//!    ▲                      │  writes not yet admitted,
//!    │                      │  issue cost running
//!    └──────────────────────┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests"))]

mod agent;
mod bus;
mod check;
mod exec;
mod guest;
mod journal;
mod seam;
mod time;
mod tlb;
mod uncore;
mod walk;
mod window;

pub use agent::{AgentId, AgentKind, AgentSpec, Item, Order, Program, StepRecord};
pub use cache::Level;
pub use cache::transaction::TRANSACTION_ROWS;
pub use exec::Counts;
pub use journal::{Act, Actor, Mark, Met, Purpose, Transition};
pub use mktme::CryptoKind;
pub use seam::{exit_of, is_seam_msr, reset_msr};
pub use time::Run;
pub use tlb::{Tlb, Translation};
pub use window::{Source, StreamKind, StreamOp, StreamStats};

use agent::Agent;
use bus::{Bus, Traffic};
use cache::Hierarchy;
use mktme::dram::Dram;
use mktme::{Controller, ControllerSpec, Image};
use serde::{Deserialize, Serialize};
use sim_core::engine::Engine;
use sim_core::event::Trace;
use sim_core::platform::{PlatformError, SpeedGrade};
use sim_core::time::Clock;
use sim_core::{PlatformSpec, Ps};
use std::collections::VecDeque;
use thiserror::Error;

/// How much of time is modelled. Line state, residency and dirtiness are exact in both, and the speed can change between
/// any two operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Speed {
    /// Every operation costs the same.
    Functional,
    /// Requests run through queues and DRAM.
    Timed,
}

/// What a machine is built with besides its platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// How much of time is modelled.
    pub speed: Speed,
    /// Which cryptography the controller uses.
    pub crypto: CryptoKind,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// Whether every event is recorded, or only those of poison and machine checks.
    pub log: bool,
}

/// A logical processor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Lp {
    /// Its package.
    package: u8,
    /// Unbreakable shutdown (architecture.md §6.3).
    shutdown: bool,
    /// Which agent is using it.
    user: Option<AgentId>,
    /// Who waits for it, first come first served.
    queue: VecDeque<AgentId>,
    /// When its next due wake-up is armed.
    armed: Option<Ps>,
    /// By place: until when a direct store occupies it.
    direct: Vec<Ps>,
    /// Its calls into the module.
    seam: seam::Seam,
    /// Translations of guests.
    tlb: Tlb,
}

/// Who is woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum Wake {
    /// An agent's operation is over, or it may start.
    Agent(AgentId),
    /// A weakly ordered operation or an aged buffer of this core is due.
    Due(u16),
}

/// The machine. Plain data: it can be cloned, compared, saved and restored between any two events.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    spec: PlatformSpec,
    options: Options,
    caches: Hierarchy,
    memory: Controller,
    dram: Dram,
    trace: Trace,
    engine: Engine<Wake>,
    lps: Vec<Lp>,
    agents: Vec<Agent>,
    /// Requests that a full queue has not admitted yet, per subchannel, in order.
    backlog: Vec<VecDeque<(Traffic, time::Ticket)>>,
    /// How many those are.
    waiting: u64,
    /// Requests of the operation being issued; kept to be used again.
    traffic: Vec<Traffic>,
    requests: u64,
    images: Vec<Option<Image>>,
    panicked: bool,
    tdx_disabled: bool,
    counts: Counts,
    module: tdx_module::Module,
    /// Whether any SEAMCALL was made: without one, nobody looks for guests.
    tdx_used: bool,
    /// Agents that can go on because a guest was entered or has left.
    resumed: Vec<AgentId>,
    /// Records of calls whose guest has left, until somebody takes them.
    finished: Vec<StepRecord>,
    /// Latencies between cores and controllers.
    uncore: uncore::Uncore,
    /// By package: what home agents remember of direct stores.
    direct_lines: Vec<uncore::DirectLines>,
    /// Cores that issue streams, while they do.
    streams: Vec<window::Stream>,
    /// Streams that ended waiting for what never came: a defect.
    stuck: u64,
    /// What is done to memory, for who asked for it.
    journal: Option<Box<journal::Journal>>,
}

/// Why a machine cannot be built.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum MachineError {
    /// The platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Its caches.
    #[error(transparent)]
    Cache(#[from] cache::SpecError),
    /// Its memory controllers.
    #[error(transparent)]
    Memory(#[from] mktme::SpecError),
    /// Its DRAM.
    #[error(transparent)]
    Dram(#[from] mktme::dram::SpecError),
}

impl Machine {
    /// A machine at power-on.
    ///
    /// # Errors
    /// The first number of the platform that does not fit.
    pub fn new(spec: &PlatformSpec, options: Options) -> Result<Machine, MachineError> {
        spec.validate()?;
        let controller = ControllerSpec::of_platform(spec, options.crypto, options.seed);
        let packages = spec.cpu.packages;
        let subchannels = usize::from(packages) * usize::from(spec.dram.channels) * 2;
        Ok(Machine {
            caches: Hierarchy::new(&spec.cpu, spec.latency.weak_wait)?.with_planted(spec.planted),
            memory: Controller::new(controller)?,
            dram: Dram::new(&spec.dram, packages)?,
            trace: Trace::new(options.log),
            engine: Engine::new(),
            lps: (0..spec.cpu.cores)
                .map(|core| Lp {
                    package: spec.package_of(core),
                    direct: vec![Ps::ZERO; spec.cpu.direct_stores.into()],
                    ..Lp::default()
                })
                .collect(),
            agents: Vec::new(),
            backlog: vec![VecDeque::new(); subchannels],
            waiting: 0,
            traffic: Vec::new(),
            requests: 0,
            images: vec![None; 16],
            panicked: false,
            tdx_disabled: false,
            counts: Counts::default(),
            module: tdx_module::Module::new(tdx_module::Spec::of_platform(spec)),
            tdx_used: false,
            resumed: Vec::new(),
            finished: Vec::new(),
            uncore: uncore::Uncore::new(spec),
            direct_lines: vec![uncore::DirectLines::new(spec); packages.into()],
            streams: Vec::new(),
            stuck: 0,
            journal: None,
            options,
            spec: spec.clone(),
        })
    }

    /// The platform.
    pub const fn spec(&self) -> &PlatformSpec {
        &self.spec
    }
    /// What the machine was built with.
    pub const fn options(&self) -> &Options {
        &self.options
    }
    /// Changes how much of time is modelled, from the next operation on.
    pub fn set_speed(&mut self, speed: Speed) {
        self.options.speed = speed;
    }
    /// Whether ordinary events are recorded from now on, or only those of poison and machine checks.
    pub fn set_log(&mut self, on: bool) {
        self.trace.set_on(on);
    }
    /// Forgets all ordinary events that were recorded, as if the log had been off all the time.
    pub fn forget_events(&mut self) {
        self.trace.forget_ordinary();
    }
    /// The caches.
    pub const fn caches(&self) -> &Hierarchy {
        &self.caches
    }
    /// The memory controller.
    pub const fn memory(&self) -> &Controller {
        &self.memory
    }
    /// The DRAM of all packages.
    pub const fn dram(&self) -> &Dram {
        &self.dram
    }
    /// The TDX module.
    pub const fn module(&self) -> &tdx_module::Module {
        &self.module
    }
    /// The TLB of a core; `None` beyond the last core.
    pub fn tlb(&self, core: u16) -> Option<&Tlb> {
        self.lps.get(usize::from(core)).map(|lp| &lp.tlb)
    }
    /// Whether a guest runs on a core.
    pub fn is_in_guest(&self, core: u16) -> bool {
        self.seam(core).is_some_and(|seam| seam.guest.is_some() && !seam.asking)
    }
    /// What has been recorded.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }
    /// What has been counted.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }
    /// The present moment.
    pub const fn now(&self) -> Ps {
        self.trace.now
    }
    /// Whether the host kernel has panicked.
    pub const fn is_panicked(&self) -> bool {
        self.panicked
    }
    /// Whether TDX is disabled platform-wide (architecture.md §6.3).
    pub const fn is_tdx_disabled(&self) -> bool {
        self.tdx_disabled
    }

    /// Counts that do not add up, one line each; empty unless the simulator is broken. Every rule holds between any two
    /// operations.
    pub fn conservation(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let counts = &self.counts;
        if counts.by_level.iter().sum::<u64>() != counts.accesses {
            broken.push("hits by level do not add up to accesses".to_owned());
        }
        let stats = self.memory.stats();
        if stats.reads != counts.controller_reads {
            broken.push(
                "the controller answered another number of reads than it was sent".to_owned(),
            );
        }
        if let Err(imbalance) = self.dram.check_conservation() {
            broken.push(format!("dram: {imbalance}"));
        }
        if let Err(violation) = self.caches.check_invariants() {
            broken.push(format!("caches: {violation}"));
        }
        let alive: u64 = self.trace.births().iter().map(|b| u64::from(b.locations)).sum();
        if alive != self.trace.poison_locations() {
            broken.push("locations of poison do not add up (verification.md P2)".to_owned());
        }
        if self.stuck > 0 {
            broken.push(format!("{} streams waited for what never came", self.stuck));
        }
        broken
    }

    /// Looks at every clock edge of DRAM instead of skipping to the next that matters (`--no-skip`). Nothing changes but
    /// how long it takes.
    pub fn look_at_every_edge(&mut self, on: bool) {
        self.dram.look_at_every_edge(on);
    }

    /// The latency of a read of a closed row with nothing else going on, as DRAM has it (timing.md §2.2).
    pub fn unloaded_dram_read(&self) -> Ps {
        self.dram.unloaded_read()
    }

    /// Starts or stops recording DDR5 commands; what has been recorded is dropped.
    pub fn record_commands(&mut self, on: bool) {
        self.dram.record_commands(on);
    }
    /// Makes the refreshes that are due by now. While nothing is asked of it DRAM is left behind, as what it does meanwhile
    /// changes nothing; at the end of a run commands and counters are to be those of the whole run.
    pub fn catch_up(&mut self) {
        self.dram.advance(self.now());
    }
    /// Takes the DDR5 commands recorded since the last call, in order of time.
    pub fn take_commands(&mut self) -> Vec<mktme::dram::CommandRecord> {
        self.dram.take_commands()
    }

    fn bus(&mut self) -> (Bus<'_>, &mut Hierarchy) {
        let timed = self.options.speed == Speed::Timed;
        let bus = Bus {
            memory: &mut self.memory,
            trace: &mut self.trace,
            traffic: &mut self.traffic,
            counts: &mut self.counts,
            timed,
        };
        (bus, &mut self.caches)
    }
}

/// The clock of a platform's memory controllers: that of its DRAM.
pub const fn controller_clock(spec: &PlatformSpec) -> Clock {
    Clock {
        mhz: match spec.dram.grade {
            SpeedGrade::Ddr5_4800 => 2400,
            SpeedGrade::Ddr5_5200 => 2600,
            SpeedGrade::Ddr5_5600 => 2800,
            SpeedGrade::Ddr5_6400 => 3200,
        },
    }
}

/// Accesses by the level that answered them, nearest first, with the level's name.
pub fn level_counts(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> {
    LEVELS.iter().zip(counts.by_level).map(|((_, name), n)| (*name, n))
}

/// The levels, nearest first, in the order of [`Counts::by_level`].
pub const LEVELS: [(Level, &str); 7] = [
    (Level::L1, "L1"),
    (Level::L2, "L2"),
    (Level::Llc, "LLC"),
    (Level::PeerClean, "another core, clean"),
    (Level::PeerModified, "another core, modified"),
    (Level::PeerRemote, "another package"),
    (Level::Memory, "memory"),
];
