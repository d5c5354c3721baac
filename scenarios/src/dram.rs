//! `tdxsim dram`: bare channels, driven from a trace or a named pattern as Ramulator and DRAMsim3 drive theirs.
//!
//! No core and no cache is in the way: a request goes to its queue of DRAM as soon as that has room and it is due. With
//! integrity on, each request taken also goes to the memory controller, which decides its class, keeps TD bits and MACs and
//! bears poison; that never changes when anything happens (architecture.md §13 MC-31).
//!
//! A trace with cycles keeps them: a record is not offered before its cycle of the DRAM clock. One without is a closed loop:
//! each record is offered as soon as the one before is taken; bubbles of instructions do not count, as there is no core. A
//! place in DRAM is taken as it is, the trace's channels being subchannels here. At the end nothing is left in flight, and what was accepted
//! and what was completed are counted apart (verification.md §2.11 Q1, Q14).

mod drive;
mod latency;
mod pattern;
mod records;
mod report;

pub use latency::{Bucket, Latencies};
pub use pattern::{PATTERNS, Pattern, PatternRow, patterns_markdown};
pub use report::{CountOf, DramReport, LatencyReport, SCHEMA, Workload};

use crate::commands::CommandSink;
use crate::platform::Platform;
use crate::replay::Place;
use crate::trace::{TraceError, TraceReader};
use drive::{Drive, Integrity, Requests, Tally};
use mktme::dram::{AddressMap, Dram, SpecError as DramSpecError, Timing};
use mktme::{Controller, ControllerSpec, CryptoKind};
use pattern::PatternRequests;
use records::TraceRequests;
use sim_core::data::LineData;
use sim_core::event::Trace;
use sim_core::planted::Fault;
use sim_core::{LINE_BYTES, PAGE_BYTES, Page, PlatformSpec, Ps};
use std::io::{self, Read};
use thiserror::Error;

/// How to drive DRAM, whatever from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Under which KeyID requests are made, on the host or in a TD; none to leave TD bits, MACs and poison out.
    pub integrity: Option<Place>,
    /// Seed of patterns, keys and power-on content.
    pub seed: u64,
    /// Looks at every clock edge instead of at those at which something can happen. The outcome is the same.
    pub every_edge: bool,
    /// Requests in flight at most; none for as many as the queues take, or what the pattern says.
    pub outstanding: Option<u64>,
}

/// A named pattern and how much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatternSettings {
    /// Which.
    pub pattern: Pattern,
    /// How many requests.
    pub requests: u64,
    /// Bytes from address 0 that requests go to.
    pub footprint: u64,
    /// Clocks between two requests; none for what the pattern says.
    pub gap: Option<u64>,
}

/// How to take a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceSettings {
    /// Stop after so many records.
    pub limit: Option<u64>,
    /// A trace that ends in the middle of a record is run up to there.
    pub allow_truncated: bool,
}

/// Why a run could not be made or finished.
#[derive(Debug, Error)]
pub enum DramError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The platform's DRAM.
    #[error("{0}")]
    Dram(#[from] DramSpecError),
    /// The platform's memory controller.
    #[error("{0}")]
    Controller(#[from] mktme::SpecError),
    /// The footprint of a pattern.
    #[error(
        "--footprint: found {found} bytes, expected at least 64 and at most {most}, the memory that {platform} can address"
    )]
    Footprint {
        /// As given.
        found: u64,
        /// What the platform's addresses reach.
        most: u64,
        /// Its name.
        platform: String,
    },
    /// The commands could not be written.
    #[error("{0}")]
    Write(#[from] io::Error),
}

/// What a run is told of from outside.
pub struct Outside<'a> {
    /// Program and version, for the report.
    pub tool: &'a str,
    /// Who takes the commands; empty if nobody does.
    pub sinks: Vec<&'a mut dyn CommandSink>,
    /// Told the number of requests every now and then.
    pub progress: &'a mut dyn FnMut(u64),
}

/// The clock of a platform's DRAM, in picoseconds: the nominal period cut to a whole number.
pub fn dram_clock(spec: &PlatformSpec) -> Ps {
    Timing::of_grade(spec.dram.grade).tck()
}

/// First byte that addresses of the platform do not reach.
fn address_end(spec: &PlatformSpec) -> u64 {
    1u64 << spec.keyid.address_bits()
}

/// Drives DRAM with a pattern.
///
/// # Errors
/// A platform or footprint that does not fit, or commands that cannot be written.
pub fn run_pattern(
    platform: &Platform,
    pattern: &PatternSettings,
    settings: &Settings,
    outside: Outside<'_>,
) -> Result<DramReport, DramError> {
    let spec = &platform.spec;
    let most = address_end(spec);
    if !(LINE_BYTES as u64..=most).contains(&pattern.footprint) {
        let (found, platform) = (pattern.footprint, spec.name.clone());
        return Err(DramError::Footprint { found, most, platform });
    }
    let row = pattern.pattern.row();
    let gap = pattern.gap.unwrap_or(row.gap);
    let lines = pattern.footprint / LINE_BYTES as u64;
    let mut source = PatternRequests::new(
        pattern.pattern,
        pattern.requests,
        lines,
        settings.seed,
        dram_clock(spec).times(gap),
    );
    let outstanding = settings.outstanding.unwrap_or(row.outstanding.into());
    let tool = outside.tool.to_owned();
    let end = run(platform, &mut source, outstanding, settings, outside)?;
    let workload = Workload::pattern(pattern, gap, outstanding);
    Ok(DramReport::new(tool, platform, settings, workload, end, None))
}

/// Drives DRAM with a trace.
///
/// # Errors
/// A platform that does not fit, a record that cannot be read or is beyond its addresses, or commands that cannot be
/// written.
pub fn run_trace<R: Read>(
    reader: &mut TraceReader<R>,
    name: &str,
    platform: &Platform,
    trace: &TraceSettings,
    settings: &Settings,
    outside: Outside<'_>,
) -> Result<DramReport, DramError> {
    let spec = &platform.spec;
    let end = address_end(spec);
    let refusal = format!(
        "an address below {end:#x}: {} has {} address bits below the KeyID",
        spec.name,
        spec.keyid.address_bits()
    );
    let format = reader.format();
    let tck = dram_clock(spec);
    let map = AddressMap::new(&spec.dram)?;
    let mut source = TraceRequests::new(
        reader,
        tck,
        (map, &spec.dram),
        (end, refusal),
        trace.limit,
        trace.allow_truncated,
    );
    let outstanding = settings.outstanding.unwrap_or(0);
    let tool = outside.tool.to_owned();
    let end = run(platform, &mut source, outstanding, settings, outside)?;
    let (kinds, truncated) = (source.kinds, source.truncated);
    let records = reader.records();
    let workload = Workload::trace(name, format, records, outstanding, truncated);
    Ok(DramReport::new(tool, platform, settings, workload, end, Some((records, kinds))))
}

/// What is left when a run is over.
struct End {
    dram: Dram,
    integrity: Option<Integrity>,
    tally: Tally,
}

fn run<R: Requests>(
    platform: &Platform,
    source: &mut R,
    outstanding: u64,
    settings: &Settings,
    outside: Outside<'_>,
) -> Result<End, DramError> {
    let spec = &platform.spec;
    let mut dram = Dram::new(&spec.dram, spec.cpu.packages)?;
    dram.look_at_every_edge(settings.every_edge);
    dram.record_commands(!outside.sinks.is_empty());
    let integrity = match settings.integrity {
        None => None,
        Some(place) => Some(integrity(spec, place, settings.seed)?),
    };
    let mut drive = Drive {
        dram,
        integrity,
        outstanding,
        sinks: outside.sinks,
        progress: outside.progress,
        tally: Tally::default(),
        idle_steps: 0,
    };
    drive.run(source)?;
    if spec.planted.is(Fault::CompletionNotCounted) {
        drive.tally.completed = drive.tally.completed.saturating_sub(1);
    }
    let Drive { dram, integrity, tally, .. } = drive;
    Ok(End { dram, integrity, tally })
}

/// The memory controller, all of whose memory was written whole under the KeyID before: as firmware does on the host, and
/// acceptance in a TD. So no read meets a line that nobody wrote, or that is not the TD's. It costs no time here.
fn integrity(spec: &PlatformSpec, place: Place, seed: u64) -> Result<Integrity, DramError> {
    let of = ControllerSpec::of_platform(spec, CryptoKind::Symbolic, seed);
    let mut controller = Controller::new(of)?;
    let mut trace = Trace::new(false);
    let (Place::Host(keyid) | Place::Td(keyid)) = place;
    let pages = Page(0)..Page(address_end(spec) / PAGE_BYTES);
    controller.write_pages(pages, keyid, &LineData::ZERO, &mut trace);
    let before = *controller.stats();
    Ok(Integrity { controller, trace, keyid, before, classes: [0; 3], poisoned: 0 })
}
