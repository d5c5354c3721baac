//! `tdxsim replay`: the address trace of a real program, run through caches and memory controller.
//!
//! The program runs on core 0, one access after the other. Lackey and ChampSim traces hold virtual addresses: a page gets the
//! next frame when it is first touched. The others hold physical addresses, used as they are, but for those of address vectors,
//! which are refused. Cycles and times of a trace are waited for. In a TD a page is accepted at
//! first touch, as TDG.MEM.PAGE.ACCEPT does it: 64 MOVDIR64B of zeros under the HKID and a fence (timing.md §5.1).

use crate::commands::CommandSink;
use crate::platform::Platform;
use crate::report::Verdict;
use crate::run::linux;
use crate::stats::{StatValue, Values};
use crate::trace::{Access, AccessKind, Addresses, TraceError, TraceErrorKind, TraceReader, When};
use host::mce::LinuxMce;
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Machine, Options, Speed};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::op::{MemType, Op, Value};
use sim_core::time::Clock;
use sim_core::{Addr, Hpa, KeyId, Outcome, PAGE_BYTES, Ps};
use std::fmt::{self, Display};
use std::io::{self, Read};
use thiserror::Error;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "tdxsim.replay/1";

/// First frame that is given to a virtual page: 4 GiB, above what firmware and devices use.
const FIRST_FRAME: u64 = 1 << 20;

/// Where the program lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the host, under a shared KeyID.
    Host(KeyId),
    /// In a TD, under its HKID.
    Td(KeyId),
}

/// How to replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where the program lives.
    pub place: Place,
    /// How much of time is modelled.
    pub speed: Speed,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// Stop after so many records.
    pub limit: Option<u64>,
    /// A trace that ends in the middle of a record is replayed up to there.
    pub allow_truncated: bool,
}

/// What a replay reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ReplayReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// The platform.
    pub platform: String,
    /// The modelled kernel; none before host paths exist.
    pub kernel: Option<String>,
    /// Pass when no poison was born and every count adds up.
    pub verdict: Verdict,
    /// The trace.
    pub trace: String,
    /// Its form.
    pub format: String,
    /// The KeyID used.
    pub keyid: u16,
    /// Whether that is a TD's.
    pub td: bool,
    /// `timed` or `functional`.
    pub speed: String,
    /// Records of the trace that were run, by kind; their sum is `records`.
    pub records: u64,
    /// Instruction fetches.
    pub fetches: u64,
    /// Loads.
    pub loads: u64,
    /// Stores.
    pub stores: u64,
    /// Loads followed by a store to the same place.
    pub modifies: u64,
    /// Different 4 KiB pages touched.
    pub pages: u64,
    /// Of those, accepted in the TD.
    pub pages_accepted: u64,
    /// Cached accesses, one per line touched; the sum of `hits`.
    pub accesses: u64,
    /// Accesses by the level that answered them.
    pub hits: Vec<LevelCount>,
    /// Whole-line reads at the controllers.
    pub controller_reads: u64,
    /// Whole-line writes at the controllers.
    pub controller_writes: u64,
    /// Partial writes at the controllers.
    pub controller_partial_writes: u64,
    /// Births of poison.
    pub births: u64,
    /// Machine checks.
    pub machine_checks: u64,
    /// Simulated time, in picoseconds.
    pub simulated_ps: u64,
    /// Every counter; docs/generated/statistics.md defines them.
    pub statistics: Vec<StatValue>,
    /// Whether the trace ended in the middle of a record, which was allowed.
    pub truncated: bool,
    /// Counts that do not add up; empty unless the simulator is broken.
    pub broken: Vec<String>,
}

/// Accesses that one level answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct LevelCount {
    /// Which level.
    pub level: String,
    /// How many accesses.
    pub accesses: u64,
}

/// Physical places of a trace's pages, and which of them have been touched.
struct Pages {
    /// By page number of the trace: page number in memory.
    frames: FxHashMap<u64, u64>,
    last: (u64, u64),
    virtual_addresses: bool,
}

impl Pages {
    /// The frame of a page, and whether this is its first touch.
    fn touch(&mut self, page: u64) -> (u64, bool) {
        if self.last.0 == page {
            return (self.last.1, false);
        }
        let next = FIRST_FRAME + self.frames.len() as u64;
        let mut first = false;
        let new = if self.virtual_addresses { next } else { page };
        let frame = *self.frames.entry(page).or_insert_with(|| {
            first = true;
            new
        });
        self.last = (page, frame);
        (frame, first)
    }
}

struct Replay<'a> {
    machine: Machine,
    os: LinuxMce,
    agent: AgentId,
    module: AgentId,
    place: Place,
    pages: Pages,
    sized: bool,
    accepted: u64,
    controller_clock: Clock,
    platform: &'a Platform,
}

impl Replay<'_> {
    fn run(&mut self, agent: AgentId, op: &Op) -> Outcome {
        self.machine.execute(agent, op, 0, &mut self.os).outcome
    }

    /// The physical address of a byte of the trace; its page is accepted if need be.
    fn place(&mut self, addr: u64) -> Addr {
        let (Place::Host(keyid) | Place::Td(keyid)) = self.place;
        let (frame, first) = self.pages.touch(addr / PAGE_BYTES);
        let page = Hpa(frame.saturating_mul(PAGE_BYTES));
        if first && matches!(self.place, Place::Td(_)) {
            self.accepted += 1;
            self.run(self.module, &Op::Movdir64bPage { at: Addr::new(page, keyid) });
            self.run(self.module, &Op::Mfence);
        }
        Addr::new(Hpa(page.0 + addr % PAGE_BYTES), keyid)
    }

    fn access(&mut self, access: &Access) {
        let due = match access.when {
            When::Cycle(cycle) => Some(self.controller_clock.cycles(cycle)),
            When::Time(time) => Some(time),
            // One access is done before the next begins.
            When::Delay(cycles) => Some(self.machine.now() + self.controller_clock.cycles(cycles)),
            // How long an instruction takes is not modelled here.
            When::Unsaid | When::Gap(_) => None,
        };
        if let Some(due) = due {
            let wait = due.since(self.machine.now());
            if wait > Ps::ZERO {
                self.run(self.agent, &Op::Delay { time: wait });
            }
        }
        // Forms without sizes mean the line that holds the address.
        let mut addr = if self.sized { access.addr } else { access.addr & !63 };
        let mut left = access.bytes;
        while left > 0 {
            // A piece stays within 64 bytes and within its page, whose neighbour may lie elsewhere.
            let to_page_end = PAGE_BYTES - addr % PAGE_BYTES;
            let bytes = left.min(64).min(u32::try_from(to_page_end).unwrap_or(64));
            let at = self.place(addr);
            let load = Op::Load { at, bytes, ty: MemType::Wb };
            let store = Op::Store { at, bytes, value: Value::Unsaid, ty: MemType::Wb };
            match access.kind {
                AccessKind::Fetch => {
                    self.run(self.agent, &Op::Fetch { at });
                    // A fetch that crosses into the next line needs that too.
                    if at.hpa.offset_in_line() + bytes as usize > 64 {
                        let next = Addr::new(Hpa((at.hpa.0 | 63) + 1), at.keyid);
                        self.run(self.agent, &Op::Fetch { at: next });
                    }
                }
                AccessKind::Load => {
                    self.run(self.agent, &load);
                }
                AccessKind::Store => {
                    self.run(self.agent, &store);
                }
                AccessKind::Modify => {
                    self.run(self.agent, &load);
                    self.run(self.agent, &store);
                }
            }
            left -= bytes;
            addr = addr.wrapping_add(u64::from(bytes));
        }
    }
}

/// Replays a trace to its end. `progress` is told the number of records every now and then.
///
/// # Errors
/// [`TraceError`]: a record that cannot be read, or whose address is beyond the platform's memory.
pub fn replay<R: Read>(
    reader: &mut TraceReader<R>,
    name: &str,
    tool: &str,
    platform: &Platform,
    settings: &Settings,
    progress: impl FnMut(u64),
) -> Result<ReplayReport, TraceError> {
    match replay_with(reader, name, tool, platform, settings, None, progress) {
        Ok(report) => Ok(report),
        Err(ReplayError::Trace(error)) => Err(error),
        // Nothing was to be written.
        Err(ReplayError::Write(error)) => Err(reader.refuse(error, "no output")),
    }
}

/// Why a replay was not finished.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The commands could not be written.
    #[error("{0}")]
    Write(#[from] io::Error),
}

/// How often, in records, commands are handed on.
const CHUNK: u64 = 1 << 10;

/// [`replay`] that hands every DDR5 command on.
///
/// # Errors
/// Those of [`replay`], or a command that cannot be written.
pub fn replay_with<R: Read>(
    reader: &mut TraceReader<R>,
    name: &str,
    tool: &str,
    platform: &Platform,
    settings: &Settings,
    mut commands: Option<&mut dyn CommandSink>,
    mut progress: impl FnMut(u64),
) -> Result<ReplayReport, ReplayError> {
    let options = Options {
        speed: settings.speed,
        crypto: CryptoKind::Symbolic,
        seed: settings.seed,
        log: false,
    };
    let mut machine = Machine::new(&platform.spec, options)
        .map_err(|error| reader.refuse(format!("platform {}", platform.spec.name), error))?;
    let (Place::Host(keyid) | Place::Td(keyid)) = settings.place;
    let td = matches!(settings.place, Place::Td(_));
    let kind = if td { AgentKind::Td } else { AgentKind::Kernel };
    let agent = machine.add_agent(AgentSpec {
        name: "program".to_owned(),
        kind,
        core: 0,
        keyid,
        vcpu: None,
    });
    let module =
        AgentSpec { name: "module".to_owned(), kind: AgentKind::Seam, core: 0, keyid, vcpu: None };
    let module = machine.add_agent(module);
    let form = reader.format().row();
    if form.addresses == Addresses::Places {
        let error = reader.refuse(
            format!("the form {}", form.name),
            "addresses: a place in DRAM has none but by the address map of the traced controller, which the trace does not hold",
        );
        return Err(error.into());
    }
    let mut replay = Replay {
        machine,
        os: linux(&platform.spec),
        agent,
        module,
        place: settings.place,
        pages: Pages {
            frames: FxHashMap::default(),
            last: (u64::MAX, 0),
            virtual_addresses: form.addresses == Addresses::Virtual,
        },
        sized: form.sized,
        accepted: 0,
        controller_clock: machine::controller_clock(&platform.spec),
        platform,
    };
    replay.machine.record_commands(commands.is_some());
    let limit = if replay.pages.virtual_addresses {
        u64::MAX
    } else {
        1u64 << replay.platform.spec.keyid.address_bits()
    };
    let mut kinds = [0u64; 4];
    let mut truncated = false;
    while settings.limit.is_none_or(|most| reader.records() < most) {
        let access = match reader.next() {
            Ok(Some(access)) => access,
            Ok(None) => break,
            Err(e) if settings.allow_truncated && e.kind == TraceErrorKind::Truncated => {
                truncated = true;
                break;
            }
            Err(error) => return Err(error.into()),
        };
        if access.addr >= limit {
            let error = reader.refuse(
                format!("address {:#x}", access.addr),
                format!(
                    "an address below {limit:#x}: {} has {} address bits below the KeyID",
                    platform.spec.name,
                    platform.spec.keyid.address_bits()
                ),
            );
            return Err(error.into());
        }
        kinds[access.kind as usize] += 1;
        replay.access(&access);
        if replay.machine.now().is_horizon() {
            break;
        }
        if reader.records().is_multiple_of(CHUNK) {
            hand_on(&mut replay.machine, &mut commands)?;
            progress(reader.records());
        }
    }
    replay.machine.settle();
    hand_on(&mut replay.machine, &mut commands)?;
    if let Some(sink) = &mut commands {
        sink.end(replay.machine.now())?;
    }
    let mut report = report(&replay, reader, name, tool, settings, kinds);
    report.truncated = truncated;
    Ok(report)
}

/// Hands the commands so far to who wants them.
fn hand_on(machine: &mut Machine, commands: &mut Option<&mut dyn CommandSink>) -> io::Result<()> {
    let Some(sink) = commands else { return Ok(()) };
    machine.take_commands().iter().try_for_each(|record| sink.put(record))
}

fn report<R>(
    replay: &Replay<'_>,
    reader: &TraceReader<R>,
    name: &str,
    tool: &str,
    settings: &Settings,
    kinds: [u64; 4],
) -> ReplayReport {
    let machine = &replay.machine;
    let counts = machine.counts();
    let (Place::Host(keyid) | Place::Td(keyid)) = settings.place;
    let births = machine.trace().births().len() as u64;
    let mut values = Values::of_machine(machine);
    values.set("trace.records", reader.records());
    for (name, kind) in [
        ("trace.fetches", AccessKind::Fetch),
        ("trace.loads", AccessKind::Load),
        ("trace.stores", AccessKind::Store),
        ("trace.modifies", AccessKind::Modify),
    ] {
        values.set(name, kinds[kind as usize]);
    }
    values.set("trace.pages", replay.pages.frames.len() as u64);
    values.set("trace.pages_accepted", replay.accepted);
    let mut broken = machine.conservation();
    broken.extend(values.broken(machine.dram().next_event().is_none()));
    let verdict = match (broken.is_empty(), machine.now().is_horizon(), births) {
        (false, ..) => Verdict::Broken,
        (true, true, _) => Verdict::Undecided,
        (true, false, 0) => Verdict::Pass,
        (true, false, _) => Verdict::Fail,
    };
    ReplayReport {
        schema: SCHEMA,
        tool: tool.to_owned(),
        seed: settings.seed,
        platform: replay.platform.spec.name.clone(),
        kernel: None,
        verdict,
        trace: name.to_owned(),
        format: reader.format().to_string(),
        keyid: keyid.0,
        td: matches!(settings.place, Place::Td(_)),
        speed: speed_name(settings.speed).to_owned(),
        records: reader.records(),
        fetches: kinds[AccessKind::Fetch as usize],
        loads: kinds[AccessKind::Load as usize],
        stores: kinds[AccessKind::Store as usize],
        modifies: kinds[AccessKind::Modify as usize],
        pages: replay.pages.frames.len() as u64,
        pages_accepted: replay.accepted,
        accesses: counts.accesses,
        hits: machine::level_counts(counts)
            .map(|(level, accesses)| LevelCount { level: level.to_owned(), accesses })
            .collect(),
        controller_reads: counts.controller_reads,
        controller_writes: counts.controller_writes,
        controller_partial_writes: counts.controller_partial_writes,
        births,
        machine_checks: counts.machine_checks,
        simulated_ps: machine.now().0,
        statistics: values.rows(),
        truncated: false,
        broken,
    }
}

/// The name of a speed, as reports have it.
pub const fn speed_name(speed: Speed) -> &'static str {
    match speed {
        Speed::Timed => "timed",
        Speed::Functional => "functional",
    }
}

impl Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.td { "in a TD, HKID" } else { "on the host, KeyID" };
        writeln!(f, "{} ({}), {place} {}", self.trace, self.format, self.keyid)?;
        writeln!(f, "  platform {}, {}, symbolic crypto", self.platform, self.speed)?;
        let count =
            |f: &mut fmt::Formatter<'_>, name: &str, n: u64| writeln!(f, "  {name:28} {n:>14}");
        count(f, "records", self.records)?;
        count(f, "  fetches", self.fetches)?;
        count(f, "  loads", self.loads)?;
        count(f, "  stores", self.stores)?;
        count(f, "  modifies", self.modifies)?;
        count(f, "pages touched", self.pages)?;
        if self.td {
            count(f, "pages accepted in the TD", self.pages_accepted)?;
        }
        count(f, "accesses (one per line)", self.accesses)?;
        for level in &self.hits {
            let share = (level.accesses * 1000).checked_div(self.accesses).unwrap_or(0);
            writeln!(
                f,
                "    {:26} {:>14}  {:>3}.{} %",
                level.level,
                level.accesses,
                share / 10,
                share % 10
            )?;
        }
        count(f, "controller reads", self.controller_reads)?;
        count(f, "controller writes", self.controller_writes)?;
        count(f, "controller partial writes", self.controller_partial_writes)?;
        writeln!(f, "  {:28} {:>14}", "simulated time", Ps(self.simulated_ps).to_string())?;
        if self.verdict == Verdict::Undecided {
            writeln!(f, "  SIMULATED TIME RAN OUT: the rest of the trace was not run")?;
        }
        if self.truncated {
            writeln!(f, "  the trace is truncated: these are the records before its end")?;
        }
        match self.births {
            0 => writeln!(f, "  no poison was born")?,
            n => {
                writeln!(f, "  POISON WAS BORN {n} TIMES, {} machine checks", self.machine_checks)?
            }
        }
        for line in &self.broken {
            writeln!(f, "  BROKEN: {line}")?;
        }
        Ok(())
    }
}
