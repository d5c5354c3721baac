//! `tdxsim replay`: the address trace of a real program, run through caches and memory controller.
//!
//! The program runs on core 0, whose window lets accesses overlap ([`machine::StreamOp`]): those that the trace says depend on a
//! load wait for it, others are taken to be independent. Lackey and ChampSim traces hold virtual addresses: a page gets the
//! next frame when it is first touched. The others hold physical addresses, used as they are, but for those of address vectors,
//! which are refused. Cycles and times of a trace are waited for. In a TD a page is accepted at
//! first touch, as TDG.MEM.PAGE.ACCEPT does it: 64 MOVDIR64B of zeros under the HKID and a fence (timing.md §5.1).

use crate::commands::CommandSink;
use crate::platform::Platform;
use crate::report::Verdict;
use crate::run::linux;
use crate::stats::{StatValue, Values};
use crate::trace::{AccessKind, Addresses, TraceError, TraceErrorKind, TraceReader, When};
use machine::{
    AgentKind, AgentSpec, CryptoKind, Machine, Options, Source, Speed, StreamKind, StreamOp,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::time::Clock;
use sim_core::{Addr, Hpa, KeyId, LINE_BYTES, PAGE_BYTES, Ps};
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
    /// Whether every clock edge of DRAM is looked at, not only those at which something can happen.
    pub every_edge: bool,
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

/// How far back dependences of a trace reach, in accesses.
const REACH: u64 = 256;

/// The operations of a trace's records, as the core's window takes them.
struct Replay<'a, R> {
    reader: &'a mut TraceReader<R>,
    settings: &'a Settings,
    pages: Pages,
    sized: bool,
    /// First address that the platform has not.
    limit: u64,
    platform: &'a Platform,
    clock: Clock,
    /// Records by [`AccessKind`].
    kinds: [u64; 4],
    accepted: u64,
    truncated: bool,
    error: Option<TraceError>,
    /// What is left of the present record.
    rest: Option<Piece>,
    /// Lines of a page that are still to be accepted, the fence behind them included.
    accepting: Option<(Addr, u32)>,
    /// Operations so far.
    operations: u64,
    /// By access number: the number of its last operation.
    last_of: [u64; REACH as usize],
    accesses: u64,
}

/// What is left of a record.
#[derive(Clone, Copy)]
struct Piece {
    kind: AccessKind,
    addr: u64,
    left: u32,
    /// Of a place that is read and written: whether it has been read.
    was_read: bool,
    when: When,
    depends_on: u64,
    /// Whether this is the record's first operation.
    first: bool,
}

impl<R: Read> Replay<'_, R> {
    /// The next record, if there is one that can be run.
    fn record(&mut self) -> Option<Piece> {
        if self.error.is_some()
            || self.settings.limit.is_some_and(|most| self.reader.records() >= most)
        {
            return None;
        }
        let access = match self.reader.next() {
            Ok(access) => access?,
            Err(e) if self.settings.allow_truncated && e.kind == TraceErrorKind::Truncated => {
                self.truncated = true;
                return None;
            }
            Err(error) => {
                self.error = Some(error);
                return None;
            }
        };
        // Its last byte: an access may begin below the limit and reach beyond it.
        let last = access.addr.saturating_add(u64::from(access.bytes.max(1)) - 1);
        if access.addr >= self.limit || self.sized && last >= self.limit {
            let (limit, spec) = (self.limit, &self.platform.spec);
            self.error = Some(self.reader.refuse(
                match access.addr >= self.limit {
                    true => format!("address {:#x}", access.addr),
                    false => format!("{} bytes at {:#x}", access.bytes, access.addr),
                },
                format!(
                    "an address below {limit:#x}: {} has {} address bits below the KeyID",
                    spec.name,
                    spec.keyid.address_bits()
                ),
            ));
            return None;
        }
        self.kinds[access.kind as usize] += 1;
        self.accesses += 1;
        Some(Piece {
            kind: access.kind,
            // Forms without sizes mean the line that holds the address.
            addr: if self.sized { access.addr } else { access.addr & !63 },
            left: access.bytes,
            was_read: false,
            when: access.when,
            depends_on: access.depends_on.map_or(0, |n| n.get().into()),
            first: true,
        })
    }

    /// How many operations back the one is on which a record depends; 0 for none, or none within reach.
    fn after(&self, piece: &Piece) -> u8 {
        let back = match piece.when {
            // Counted from the end of the access before.
            When::Delay(_) => 1,
            _ => piece.depends_on,
        };
        if back == 0 || back >= REACH || back >= self.accesses {
            return 0;
        }
        let needed = self.last_of[((self.accesses - back) % REACH) as usize];
        u8::try_from(self.operations - needed).unwrap_or(0)
    }

    /// One operation of what is left of a record.
    fn operation(&mut self, mut piece: Piece) -> StreamOp {
        let (Place::Host(keyid) | Place::Td(keyid)) = self.settings.place;
        let (frame, first_touch) = self.pages.touch(piece.addr / PAGE_BYTES);
        let page = Hpa(frame.saturating_mul(PAGE_BYTES));
        if first_touch && matches!(self.settings.place, Place::Td(_)) {
            self.accepted += 1;
            self.accepting = Some((Addr::new(page, keyid), 0));
            self.rest = Some(piece);
            return self
                .accept()
                .unwrap_or(StreamOp::new(StreamKind::Mfence, Addr::new(page, keyid)));
        }
        let at = Addr::new(Hpa(page.0 + piece.addr % PAGE_BYTES), keyid);
        // Within the line: what goes beyond it is an operation of its own.
        let bytes = piece.left.min(LINE_BYTES as u32 - at.hpa.offset_in_line() as u32);
        let kind = match piece.kind {
            AccessKind::Fetch => StreamKind::Fetch,
            AccessKind::Load => StreamKind::Load,
            AccessKind::Modify if !piece.was_read => StreamKind::Load,
            AccessKind::Store | AccessKind::Modify => StreamKind::Store,
        };
        let mut op = StreamOp { bytes, ..StreamOp::new(kind, at) };
        if piece.first {
            match piece.when {
                When::Unsaid => {}
                When::Cycle(cycle) => op.not_before = self.clock.cycles(cycle),
                When::Time(time) => op.not_before = time,
                When::Gap(gap) => op.gap = u32::try_from(gap).unwrap_or(u32::MAX),
                When::Delay(cycles) => op.delay = self.clock.cycles(cycles),
            }
            op.after = self.after(&piece);
            piece.first = false;
        } else if piece.kind == AccessKind::Modify && piece.was_read {
            // What is written depends on what was read.
            op.after = 1;
        }
        if piece.kind == AccessKind::Modify && !piece.was_read {
            piece.was_read = true;
            self.rest = Some(piece);
        } else {
            piece.left -= bytes;
            piece.addr = piece.addr.wrapping_add(bytes.into());
            piece.was_read = false;
            if piece.left > 0 {
                self.rest = Some(piece);
            } else {
                self.last_of[(self.accesses % REACH) as usize] = self.operations;
            }
        }
        op
    }

    /// The next operation of TDG.MEM.PAGE.ACCEPT: 64 MOVDIR64B and a fence (timing.md §5.1).
    fn accept(&mut self) -> Option<StreamOp> {
        let (page, done) = self.accepting?;
        if u64::from(done) * 64 >= PAGE_BYTES {
            self.accepting = None;
            return Some(StreamOp::new(StreamKind::Mfence, page));
        }
        self.accepting = Some((page, done + 1));
        let at = Addr::new(Hpa(page.hpa.0 + 64 * u64::from(done)), page.keyid);
        Some(StreamOp { bytes: 64, ..StreamOp::new(StreamKind::DirectStore, at) })
    }
}

impl<R: Read> Source for Replay<'_, R> {
    #[inline]
    fn next(&mut self) -> Option<StreamOp> {
        let op = match self.accept() {
            Some(op) => op,
            None => {
                let piece = match self.rest.take() {
                    Some(piece) => piece,
                    None => self.record()?,
                };
                self.operation(piece)
            }
        };
        self.operations += 1;
        Some(op)
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

/// How often, in operations, commands are handed on.
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
    let spec = &platform.spec;
    let mut machine = Machine::new(spec, options)
        .map_err(|error| reader.refuse(format!("platform {}", spec.name), error))?;
    machine.look_at_every_edge(settings.every_edge);
    let (Place::Host(keyid) | Place::Td(keyid)) = settings.place;
    let td = matches!(settings.place, Place::Td(_));
    let kind = if td { AgentKind::Td } else { AgentKind::Kernel };
    let name_of_agent = "program".to_owned();
    let agent =
        machine.add_agent(AgentSpec { name: name_of_agent, kind, core: 0, keyid, vcpu: None });
    let form = reader.format().row();
    if form.addresses == Addresses::Places {
        let error = reader.refuse(
            format!("the form {}", form.name),
            "addresses: a place in DRAM has none but by the address map of the traced controller, which the trace does not hold",
        );
        return Err(error.into());
    }
    let virtual_addresses = form.addresses == Addresses::Virtual;
    let mut replay = Replay {
        settings,
        pages: Pages { frames: FxHashMap::default(), last: (u64::MAX, 0), virtual_addresses },
        sized: form.sized,
        limit: if virtual_addresses { u64::MAX } else { 1u64 << spec.keyid.address_bits() },
        platform,
        clock: machine::controller_clock(spec),
        kinds: [0; 4],
        accepted: 0,
        truncated: false,
        error: None,
        rest: None,
        accepting: None,
        operations: 0,
        last_of: [0; REACH as usize],
        accesses: 0,
        reader,
    };
    machine.record_commands(commands.is_some());
    let mut os = linux(spec);
    machine.start_streams(&[agent]);
    while machine.advance_streams(&mut [&mut replay], CHUNK, &mut os) {
        hand_on(&mut machine, &mut commands)?;
        progress(replay.reader.records());
    }
    machine.end_streams();
    if let Some(error) = replay.error {
        return Err(error.into());
    }
    machine.catch_up();
    hand_on(&mut machine, &mut commands)?;
    if let Some(sink) = &mut commands {
        sink.end(machine.now())?;
    }
    Ok(report(&machine, &replay, name, tool))
}

/// Hands the commands so far to who wants them.
fn hand_on(machine: &mut Machine, commands: &mut Option<&mut dyn CommandSink>) -> io::Result<()> {
    let Some(sink) = commands else { return Ok(()) };
    machine.take_commands().iter().try_for_each(|record| sink.put(record))
}

fn report<R>(machine: &Machine, replay: &Replay<'_, R>, name: &str, tool: &str) -> ReplayReport {
    let Replay { reader, settings, kinds, .. } = replay;
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
        truncated: replay.truncated,
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
