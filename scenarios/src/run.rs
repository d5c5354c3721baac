//! Running scenarios: each cell of a scenario's matrix on a machine of its own, and what came of it against what was
//! expected.

use crate::diag::{Diag, SourceFile};
use crate::format::{BoundCheck, Case, FinalCheck, Program, ProgramLine, Scenario};
use crate::platform::{Origin, Override, Platform, load_with};
use crate::refine::{self, Checker, Depth, Disagreement};
use crate::report::calls::Caller;
use crate::report::{
    BIRTHS_MAX, CheckReport, CountsReport, Document, ExpectationReport, MACHINE_CHECKS_MAX,
    RunReport, SCHEMA, StepLabel, StepReport, Story, Verdict,
};
use crate::setup::{Setup, SetupError, Stage};
use crate::stats::Values;
use host::mce::{LinuxMce, McPolicy, Situation, grade_with};
use machine::{AgentId, AgentSpec, Counts, Item, Machine, Options, StepRecord, Translation};
use rayon::prelude::*;
use sim_core::mca::McContext;
use sim_core::outcome::{Loaded, NotRun};
use sim_core::planted::Planted;
use sim_core::tdx::PageType;
use sim_core::{Line, Op, Outcome, PAGE_BYTES, Page, PlatformSpec, Ps};
use std::collections::BTreeSet;
use std::fmt::Write;
use tdx_module::Module;
use tdx_module::pamt::{PamtEntry, Size};
use tdx_module::sept::State;

pub use crate::format::Crypto;
pub use machine::Speed;

/// What a run is asked for beyond its scenario.
#[derive(Clone, Debug)]
pub struct Request {
    /// Instead of the scenario's platforms.
    pub platform: Option<Origin>,
    /// Platform parameters to change.
    pub overrides: Vec<Override>,
    /// Whether `overrides` has the integrity mode, so that the scenario's own modes do not matter.
    pub integrity_given: bool,
    /// Instead of the scenario's cryptography.
    pub crypto: Option<Crypto>,
    /// How much of time is modelled.
    pub speed: Speed,
    /// Whether every clock edge of DRAM is looked at, not only those at which something can happen.
    pub every_edge: bool,
    /// Seed of keys and power-on content.
    pub seed: u64,
    /// Whether every operation is checked against the reference model ([`crate::refine`]).
    pub check: bool,
    /// Whether the DDR5 commands of each run are kept in its report.
    pub commands: bool,
}

impl Default for Request {
    /// What the scenario says, timed, seed 0.
    fn default() -> Request {
        Request {
            platform: None,
            overrides: Vec::new(),
            integrity_given: false,
            crypto: None,
            speed: Speed::Timed,
            every_edge: false,
            seed: 0,
            check: false,
            commands: false,
        }
    }
}

/// One cell of a scenario's matrix, bound to its platform and ready to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    title: String,
    cite: Vec<String>,
    platform: Platform,
    program: Program,
    /// The file, for messages about what stands before the program.
    source: SourceFile,
}

impl Cell {
    /// The bound program.
    pub const fn program(&self) -> &Program {
        &self.program
    }
    /// The platform.
    pub const fn platform(&self) -> &PlatformSpec {
        &self.platform.spec
    }
    /// Plants a fault in everything that runs the cell.
    pub fn plant(&mut self, planted: Planted) {
        self.platform.spec.planted = planted;
    }
    /// The same program on another platform of the same addresses and KeyIDs.
    pub(crate) fn move_to(&mut self, platform: Platform) {
        self.platform = platform;
    }
    /// The file, for messages about what stands before the program.
    pub(crate) const fn source(&self) -> &SourceFile {
        &self.source
    }
}

/// The cells of a scenario's matrix, as far as the request leaves it one.
///
/// # Errors
/// Whatever of scenario, platform or request does not fit together, at its place.
pub fn plan(scenario: &Scenario, request: &Request) -> Result<Vec<Cell>, Diag> {
    let mut cases: Vec<Case> = Vec::new();
    for mut case in scenario.cases() {
        if request.platform.is_some() {
            case.platform.clear();
        }
        if request.integrity_given {
            case.integrity = None;
        }
        if let Some(crypto) = request.crypto {
            case.crypto = crypto;
        }
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
        .into_iter()
        .map(|case| {
            let platform = match &request.platform {
                None => scenario.platform(&case, &request.overrides)?,
                Some(origin) => load_with(origin, &scenario.overrides(&case, &request.overrides))?,
            };
            let program = scenario.bind_with(&platform.spec, case.crypto)?;
            let (title, cite) = (scenario.title.clone(), scenario.cite.clone());
            Ok(Cell { title, cite, platform, program, source: scenario.source().clone() })
        })
        .collect()
}

/// Runs cells, side by side; the report has them in order.
///
/// # Errors
/// Of the first cell that has one: what its tables `[tdx]` and `[td.NAME]` ask for and the module refuses.
pub fn run_all(cells: &[Cell], request: &Request, tool: &str) -> Result<Document, Diag> {
    let runs: Vec<Result<RunReport, Diag>> =
        cells.par_iter().map(|cell| run(cell, request)).collect();
    let runs = runs.into_iter().collect::<Result<Vec<RunReport>, Diag>>()?;
    let verdict = runs.iter().map(|r| r.verdict).max_by_key(|v| v.badness());
    let verdict = verdict.unwrap_or(Verdict::Pass);
    let platform = match runs.split_first() {
        Some((first, rest)) if rest.iter().all(|r| r.platform == first.platform) => {
            Some(first.platform.clone())
        }
        _ => None,
    };
    Ok(Document {
        schema: SCHEMA,
        tool: tool.to_owned(),
        seed: request.seed,
        platform,
        kernel: None,
        verdict,
        runs,
    })
}

/// Machines on which the module was brought up under the eyes of the reference model, to go on from: most of what a checked
/// run of a program with TDs does is that.
#[derive(Debug, Default)]
pub struct Prepared(Vec<BroughtUp>);

#[derive(Debug)]
struct BroughtUp {
    platform: PlatformSpec,
    crypto: Crypto,
    seed: u64,
    setup: Setup,
    machine: Machine,
    check: Checker,
}

/// Runs one cell.
///
/// # Errors
/// What its tables `[tdx]` and `[td.NAME]` ask for and the module refuses, at its place.
pub fn run(cell: &Cell, request: &Request) -> Result<RunReport, Diag> {
    run_prepared(cell, request, None)
}

/// As [`run`]; a checked run goes on from a machine that is there, and leaves one there that was not.
///
/// # Errors
/// As [`run`].
pub fn run_prepared(
    cell: &Cell,
    request: &Request,
    prepared: Option<&mut Prepared>,
) -> Result<RunReport, Diag> {
    let (report, differs) = run_at(cell, request, prepared, Depth::Touched)?;
    if !differs {
        return Ok(report);
    }
    // The same once more, everything compared behind every operation: which is the first to show it.
    let (closer, differs) = run_at(cell, request, None, Depth::Everything)?;
    Ok(if differs { closer } else { report })
}

/// A run, and whether machine and reference, or module and monitor, disagreed.
fn run_at(
    cell: &Cell,
    request: &Request,
    mut prepared: Option<&mut Prepared>,
    depth: Depth,
) -> Result<(RunReport, bool), Diag> {
    let spec = &cell.platform.spec;
    let crypto = cell.program.crypto;
    if cell.program.expectations.is_empty() && cell.program.finals.is_empty() {
        let found = format!("nothing but [allow] for {}, {crypto}", spec.name);
        let expected = "an expectation: nothing of it can fail in one run; `tdxsim explore` tells what is possible";
        return Err(cell.source.diag(0..0, found, expected));
    }
    let options = Options { speed: request.speed, crypto, seed: request.seed, log: true };
    let mut report = RunReport {
        scenario: cell.program.name.clone(),
        title: cell.title.clone(),
        cite: cell.cite.clone(),
        platform: spec.name.clone(),
        integrity: spec.memory.integrity.to_string(),
        crypto: cell.program.crypto.to_string(),
        erratum: spec.memory.erratum_pw_mce,
        speed: crate::replay::speed_name(request.speed).to_owned(),
        verdict: Verdict::Broken,
        simulated_ps: 0,
        steps: Vec::new(),
        td_events: Vec::new(),
        expectations: Vec::new(),
        machine_checks: Vec::new(),
        births: Vec::new(),
        setup_ps: 0,
        lines: Vec::new(),
        ucna: Vec::new(),
        counts: CountsReport::default(),
        check: None,
        notes: Vec::new(),
        commands: Vec::new(),
    };
    let mut machine = match Machine::new(spec, options) {
        Ok(machine) => machine,
        Err(error) => {
            // A loaded platform has been validated.
            report.notes.push(format!("the platform was refused: {error}"));
            return Ok((report, false));
        }
    };
    machine.record_commands(request.commands);
    machine.look_at_every_edge(request.every_edge);
    let mut os = linux(spec);
    let mut check = request.check.then(|| Checker::new(&mut machine, depth));
    if let Some(setup) = &cell.program.setup {
        let done = match &mut check {
            None => setup.run(&mut machine, &mut os),
            Some(check) => {
                let known = prepared
                    .as_ref()
                    .and_then(|p| p.0.iter().find(|b| b.fits(cell, request, setup)));
                let module = if let Some(known) = known {
                    (machine, *check) = (known.machine.clone(), known.check.clone());
                    machine.set_speed(request.speed);
                    machine.record_commands(request.commands);
                    Ok(())
                } else {
                    let done = check.stage(setup, Stage::Module, &mut machine, &mut os);
                    if let Some(prepared) = &mut prepared {
                        let (platform, setup) = (spec.clone(), setup.clone());
                        let (machine, check) = (machine.clone(), check.clone());
                        let seed = request.seed;
                        prepared.0.push(BroughtUp {
                            platform,
                            crypto,
                            seed,
                            setup,
                            machine,
                            check,
                        });
                    }
                    done
                };
                module.and_then(|()| check.stage(setup, Stage::Tds, &mut machine, &mut os))
            }
        };
        match done {
            Ok(()) => {}
            Err(SetupError::Refused { at, found, expected }) => {
                return Err(cell.source.diag(at.span(), found, expected));
            }
            Err(SetupError::NotModelled(leaf)) => {
                report.verdict = Verdict::NotModelled;
                report.notes.push(format!("not modelled: {leaf}, which [tdx] or [td] needs"));
                return Ok((report, false));
            }
        }
    }
    let before = Before { at: machine.now(), counts: *machine.counts() };
    let program = machine_program(&cell.program);
    let records = match &mut check {
        Some(check) => check.program(&program, &mut machine, &mut os),
        None => machine.run(&program, &mut os),
    };
    fill(&mut report, cell, &machine, &os, &records, &before);
    machine.catch_up();
    report.commands = machine.take_commands();
    let mut differs = false;
    if let Some(check) = check {
        let (compared, checked) = check.outcome();
        differs = checked.as_ref().is_err_and(|d| d.difference != refine::Difference::NoLog);
        note_check(&mut report, (compared, checked));
    }
    Ok((report, differs))
}

impl BroughtUp {
    fn fits(&self, cell: &Cell, request: &Request, setup: &Setup) -> bool {
        self.setup.has_module_of(setup)
            && (self.crypto, self.seed) == (cell.program.crypto, request.seed)
            && self.platform == cell.platform.spec
    }
}

/// What was there when the program began.
struct Before {
    at: Ps,
    counts: Counts,
}

/// The operations that led to a disagreement, the last of them at least.
fn last_of(program: &[String]) -> String {
    const TOLD: usize = 64;
    let skipped = program.len().saturating_sub(TOLD);
    let rest = program.get(skipped..).unwrap_or_default().join("; ");
    if skipped == 0 { rest } else { format!("({skipped} before these); {rest}") }
}

/// Enters what came of the check against the reference model.
fn note_check(
    report: &mut RunReport,
    (compared, checked): (CheckReport, Result<(), Disagreement>),
) {
    let n = compared.operations;
    report.check = Some(compared);
    match checked {
        Ok(()) => {
            let CheckReport { transitions, requests, calls_judged, .. } = compared;
            report.notes.push(format!(
                "checked against the reference model: {n} operations agree ({transitions} transitions, {requests} requests, \
                 {calls_judged} calls of the module judged)"
            ));
        }
        Err(d) if d.difference == refine::Difference::NoLog => {
            let why = &d.difference;
            if report.verdict == Verdict::Pass {
                // What was asked for, a check of all of it, was not done.
                report.verdict = Verdict::Undecided;
            }
            report.notes.push(format!(
                "checked against the reference model: {n} operations agree, then {why}"
            ));
        }
        Err(d) => {
            report.verdict = Verdict::Broken;
            let last = d.program.last().map_or("power-on", String::as_str);
            let why = &d.difference;
            report
                .notes
                .push(format!("broken: not what the reference model does: after `{last}`: {why}"));
            report.notes.push(format!("the operations up to there: {}", last_of(&d.program)));
        }
    }
}

/// The kernel that a scenario without one gets: Linux of 6.12 or later, as far as machine checks go.
pub fn linux(spec: &PlatformSpec) -> LinuxMce {
    LinuxMce::new(McPolicy {
        seam_nr_recovery: true,
        mask_keyid: false,
        address_bits: spec.keyid.address_bits(),
    })
}

pub(crate) fn machine_program(program: &Program) -> machine::Program {
    machine::Program {
        agents: program
            .agents
            .iter()
            .map(|a| AgentSpec {
                name: a.name.clone(),
                kind: a.kind,
                core: a.core.unwrap_or(0),
                keyid: a.keyid,
                vcpu: a.vcpu,
            })
            .collect(),
        items: program
            .lines
            .iter()
            .map(|line| match line {
                ProgramLine::Step(step) => Item::Op(AgentId(step.agent as u16), step.op),
                ProgramLine::Barrier => Item::Barrier,
            })
            .collect(),
        order: program.order,
    }
}

fn fill(
    report: &mut RunReport,
    cell: &Cell,
    machine: &Machine,
    os: &LinuxMce,
    records: &[StepRecord],
    before: &Before,
) {
    let program = &cell.program;
    let name = |agent: usize| program.agents.get(agent).map_or("?", |a| a.name.as_str());
    let labels: Vec<Option<StepLabel>> = program
        .lines
        .iter()
        .map(|line| match line {
            ProgramLine::Step(step) => Some(StepLabel {
                step: format!("{}.{}", name(step.agent), step.index),
                text: step.text.clone(),
                line: step.line,
            }),
            ProgramLine::Barrier => None,
        })
        .collect();
    let caller = Caller { areas: &program.areas, spec: machine.spec() };
    report.steps = records
        .iter()
        .filter_map(|record| {
            let label = labels.get(record.item as usize)?.as_ref()?;
            let call = match program.lines.get(record.item as usize) {
                Some(ProgramLine::Step(step)) => caller.call(&step.op, &record.outcome),
                _ => None,
            };
            Some(StepReport {
                call,
                step: label.step.clone(),
                operation: label.text.clone(),
                line: label.line,
                outcome: record.outcome.to_string(),
                begin_ps: record.begin.0,
                end_ps: record.end.0,
            })
        })
        .collect();
    for e in &program.expectations {
        let item = program.lines.iter().position(
            |line| matches!(line, ProgramLine::Step(s) if s.agent == e.agent && s.index == e.index),
        );
        let record = records.iter().find(|r| Some(r.item as usize) == item);
        let matched = record.is_some_and(|r| e.pattern.matches(&r.outcome));
        report.expectations.push(ExpectationReport {
            kind: if e.forbidden { "forbid" } else { "expect" }.to_owned(),
            subject: format!("{}.{}", name(e.agent), e.index),
            pattern: e.pattern.to_string(),
            seen: record.map_or_else(|| "nothing".to_owned(), |r| r.outcome.to_string()),
            met: matched != e.forbidden,
        });
    }
    for check in &program.finals {
        let (met, seen) = judge(&check.check, machine, before);
        report.expectations.push(ExpectationReport {
            kind: "final".to_owned(),
            subject: check.text.clone(),
            pattern: String::new(),
            seen,
            met,
        });
    }
    let story = Story::new(machine.trace(), &labels);
    report.td_events = story.td_events(&caller);
    report.births = story.births();
    report.lines = story.lines();
    report.ucna = story.ucna();
    report.machine_checks = story.machine_checks(|record| {
        if record.context == McContext::SeamRoot {
            return None;
        }
        let context = match record.context {
            McContext::User => host::mce::Context::User,
            _ => host::mce::Context::Kernel,
        };
        let at = Situation { status: record.status, mcg: record.mcg, in_exception: true, context };
        let grade = grade_with(&at, os.policy().seam_nr_recovery);
        let mut text = format!(
            "{}: \"{}\" (architecture.md §6.4 row {})",
            grade.severity, grade.message, grade.row
        );
        if let Some(page) = os.log().iter().find(|g| g.record == *record).and_then(|g| g.hwpoison) {
            let _ = write!(text, "; page {page} marked HWPoison");
        }
        Some(text)
    });
    let (counts, first) = (machine.counts(), &before.counts);
    report.counts = CountsReport {
        operations: counts.operations - first.operations,
        accesses: counts.accesses - first.accesses,
        controller_reads: counts.controller_reads - first.controller_reads,
        controller_writes: counts.controller_writes - first.controller_writes,
        controller_partial_writes: counts.controller_partial_writes
            - first.controller_partial_writes,
        births: machine.trace().births().len() as u64,
        live_poison: live_poison(machine),
        poison_locations: machine.trace().poison_locations(),
        machine_checks: counts.machine_checks,
    };
    report.simulated_ps = machine.now().0;
    report.setup_ps = before.at.0;
    report.notes = notes(machine);
    let mut broken = machine.conservation();
    broken.extend(Values::of_machine(machine).broken(machine.dram().next_event().is_none()));
    let met = report.expectations.iter().all(|e| e.met);
    let unknown = not_modelled(program, records);
    report.verdict = match (broken.is_empty(), unknown.is_empty(), machine.now().is_horizon()) {
        (false, ..) => Verdict::Broken,
        // What came after it may be wrong as well: nothing is said of the expectations.
        (true, false, _) => Verdict::NotModelled,
        (true, true, true) => Verdict::Undecided,
        (true, true, false) if met => Verdict::Pass,
        (true, true, false) => Verdict::Fail,
    };
    report.notes.extend(unknown.into_iter().map(|leaf| format!("not modelled: {leaf}")));
    report.notes.extend(broken.into_iter().map(|line| format!("broken: {line}")));
}

/// The leaves that the program called and the simulator does not model, each once.
fn not_modelled(program: &Program, records: &[StepRecord]) -> BTreeSet<String> {
    let unknown = records.iter().filter(|r| r.outcome == Outcome::NotRun(NotRun::NotModelled));
    let name = |record: &StepRecord| match program.lines.get(record.item as usize) {
        Some(ProgramLine::Step(step)) => match step.op {
            Op::Seamcall { leaf, .. } => leaf.to_string(),
            Op::Tdcall { leaf, .. } => leaf.to_string(),
            _ => step.text.clone(),
        },
        _ => "an operation".to_owned(),
    };
    unknown.map(name).collect()
}

fn live_poison(machine: &Machine) -> u64 {
    let trace = machine.trace();
    (trace.births().len() as u64).saturating_sub(trace.deaths().into())
}

/// Whether a final check holds, and what is there instead.
fn judge(check: &BoundCheck, machine: &Machine, before: &Before) -> (bool, String) {
    let flag = |real: bool, holds: bool| {
        (real == holds, if real { "it is".to_owned() } else { "it is not".to_owned() })
    };
    let number = |real: u64, want: u64| (real == want, real.to_string());
    let memory = machine.memory();
    let trace = machine.trace();
    match check {
        FinalCheck::Poisoned { at, holds } => flag(memory.line(*at).poison.is_some(), *holds),
        FinalCheck::Td { at, holds } => flag(memory.line(*at).td, *holds),
        FinalCheck::Mac { at, holds } => flag(memory.line(*at).mac, *holds),
        FinalCheck::Cached { at, holds } => flag(machine.caches().inspect(*at).is_some(), *holds),
        FinalCheck::Dirty { at, holds } => {
            flag(machine.caches().inspect(*at).is_some_and(|v| v.dirty), *holds)
        }
        FinalCheck::Writer { at, keyid } => {
            let writer = memory.line(*at).writer;
            let seen = writer.map_or_else(|| "never written".to_owned(), |k| format!("KeyID {k}"));
            (writer == Some(*keyid), seen)
        }
        FinalCheck::Reads { at, pattern } => {
            let probe = memory.probe(*at);
            let loaded = Loaded { data: probe.data, bytes: 64, class: probe.class };
            let seen = if probe.poisoned { "poison".to_owned() } else { loaded.to_string() };
            (pattern.matches(probe.poisoned, &loaded), seen)
        }
        FinalCheck::Panic { holds } => flag(machine.is_panicked(), *holds),
        FinalCheck::TdxDisabled { holds } => flag(machine.is_tdx_disabled(), *holds),
        FinalCheck::Ucna(n) => number(memory.ucna_log().len() as u64, *n),
        FinalCheck::Births(n) => number(trace.births().len() as u64, *n),
        FinalCheck::LivePoison(n) => number(live_poison(machine), *n),
        FinalCheck::PartialWrites(n) => {
            let first = before.counts.controller_partial_writes;
            number(machine.counts().controller_partial_writes - first, *n)
        }
        _ => judge_module(check, machine.module(), |core, tdr, page| {
            machine.tlb(core).and_then(|tlb| tlb.find(tdr, page))
        }),
    }
}

/// Final checks on the TDX module and on TLBs.
pub(crate) fn judge_module(
    check: &BoundCheck,
    module: &Module,
    translation: impl Fn(u16, Page, u64) -> Option<Translation>,
) -> (bool, String) {
    let is = |real: &str, holds: bool| (holds, real.to_owned());
    let no_td = |tdr: &Line| (false, format!("no TD at {}", tdr.page().hpa()));
    let td = |tdr: &Line| module.td(tdr.page());
    match check {
        FinalCheck::Module(state) => is(module.state().name(), module.state() == *state),
        FinalCheck::Pamt { at, page_type } => {
            let found = covering(module, *at).page_type();
            is(found.name(), found == *page_type)
        }
        FinalCheck::Owner { at, tdr } => {
            let entry = covering(module, *at);
            let seen = format!("{}, owner {}", entry.page_type(), entry.owner().hpa());
            (entry.page_type() != PageType::Nda && entry.owner() == tdr.page(), seen)
        }
        FinalCheck::Kot { keyid, state } => match module.kot().get(usize::from(keyid.0)) {
            Some(entry) => is(entry.state.name(), entry.state == *state),
            None => is("no such KeyID", false),
        },
        FinalCheck::LifeCycle { tdr, state } => {
            td(tdr).map_or_else(|| no_td(tdr), |t| is(t.lifecycle.name(), t.lifecycle == *state))
        }
        FinalCheck::OpState { tdr, state } => {
            td(tdr).map_or_else(|| no_td(tdr), |t| is(t.op_state.name(), t.op_state == *state))
        }
        FinalCheck::TdFatal { tdr, holds } => {
            let seen = |fatal| if fatal { "it is" } else { "it is not" };
            td(tdr).map_or_else(|| no_td(tdr), |t| is(seen(t.fatal), t.fatal == *holds))
        }
        FinalCheck::Sept { tdr, gpa, level, state } => {
            let Some(td) = td(tdr) else { return no_td(tdr) };
            let (mut table, mut at) = (td.sept_root(), td.levels.saturating_sub(1));
            loop {
                let index = (gpa >> (12 + 9 * u32::from(at)) & 511) as u16;
                let Some(entry) = module.sept_entry(table, index) else {
                    return is("no Secure-EPT page", false);
                };
                let name = entry.state().map_or("no state", State::name);
                if at == *level {
                    return is(name, entry.state() == Some(*state));
                }
                let below = matches!(entry.state(), Some(State::NlMapped | State::NlBlocked));
                if !below || at == 0 {
                    return (false, format!("the walk ends at level {at}: {name}"));
                }
                (table, at) = (entry.page(), at - 1);
            }
        }
        FinalCheck::Tlb { core, tdr, address, holds } => {
            let page = address / PAGE_BYTES;
            let found = translation(*core, tdr.page(), page);
            let seen = found.map_or_else(
                || "no translation".to_owned(),
                |t| format!("page {} under KeyID {}", t.page.hpa(), t.keyid),
            );
            (found.is_some() == *holds, seen)
        }
        // The others are looked at by the caller.
        _ => is("not a check on the module", false),
    }
}

/// The PAMT entry that covers a line's page: the largest that is not free.
fn covering(module: &Module, at: Line) -> PamtEntry {
    let pa = at.page().hpa().0;
    let larger = [Size::Huge, Size::Large].map(|size| module.pamt(pa, size));
    // PT_PAMT only says where the smaller entries lie.
    let free = |entry: &PamtEntry| matches!(entry.page_type(), PageType::Nda | PageType::Pamt);
    let covers = larger.into_iter().find(|entry| !free(entry));
    covers.unwrap_or_else(|| module.pamt(pa, Size::Small))
}

/// What a reader of an unexpected verdict should know.
fn notes(machine: &Machine) -> Vec<String> {
    let mut notes = Vec::new();
    for core in 0..machine.spec().cpu.cores {
        for buffer in machine.caches().wc_buffers(core) {
            notes.push(format!(
                "core {core} still holds {} bytes for line {} in a write-combining buffer; a fence, a locked \
                 operation, an interrupt or `wc-evict` would send them off (MC-28)",
                buffer.mask.count(),
                buffer.at.line()
            ));
        }
    }
    if machine.now().is_horizon() {
        notes.push("simulated time ran out (106 days): what came after was not run".to_owned());
    }
    let (births, checks) = (machine.trace().births().len(), machine.counts().machine_checks);
    if births > BIRTHS_MAX || checks > MACHINE_CHECKS_MAX as u64 {
        notes.push(format!(
            "{births} births of poison and {checks} machine checks; at most {BIRTHS_MAX} and \
             {MACHINE_CHECKS_MAX} are told in full"
        ));
    }
    if machine.trace().lost() > 0 {
        notes.push(format!(
            "{} events were not recorded: the log holds {}",
            machine.trace().lost(),
            sim_core::Trace::EVENTS_MAX
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;
    use refine::{Difference, Disagreement};

    fn report(check: bool) -> RunReport {
        let scenario = Scenario::parse(library::find("partial-write").unwrap().source()).unwrap();
        let request = Request { check, ..Request::default() };
        run(plan(&scenario, &request).unwrap().first().unwrap(), &request).unwrap()
    }

    #[test]
    fn a_check_changes_nothing_but_a_note() {
        let (plain, mut checked) = (report(false), report(true));
        let note = checked.notes.pop().unwrap();
        assert!(note.contains("operations agree ("), "{note}");
        let compared = checked.check.take().unwrap();
        assert_eq!(compared.operations, plain.steps.len() as u64);
        assert!(compared.transitions >= compared.operations && compared.lines > 0);
        assert_eq!(plain, checked);
    }

    #[test]
    fn a_disagreement_breaks_the_run_and_tells_the_program() {
        let mut broken = report(false);
        let difference = Difference::Choice { choice: "drops clean 0x40@0".to_owned() };
        let program = vec!["cpu0: mfence".to_owned(), "cpu1: sfence".to_owned()];
        let checked = Err(Disagreement { difference, program });
        note_check(&mut broken, (CheckReport::default(), checked));
        assert_eq!(broken.verdict, Verdict::Broken);
        let told = broken.notes.join("\n");
        assert!(told.contains("after `cpu1: sfence`: the machine drops clean 0x40@0"), "{told}");
        assert!(told.contains("cpu0: mfence; cpu1: sfence"), "{told}");
    }

    #[test]
    fn a_run_that_was_not_checked_to_its_end_is_undecided() {
        let checked = Err(Disagreement { difference: Difference::NoLog, program: vec![] });
        let mut run = report(false);
        run.verdict = Verdict::Pass;
        let before = run.notes.len();
        note_check(&mut run, (CheckReport::default(), checked));
        assert_eq!((run.notes.len(), run.verdict), (before + 1, Verdict::Undecided));
        assert!(run.notes[before].ends_with("then the machine's log is not complete"));
    }

    #[test]
    fn every_kind_of_program_is_checked() {
        for (order, line) in [
            ("program", "cpu0 : tdh.sys.init"),
            ("program", "cpu0 : seamcall 47"),
            ("program", "cpu0 : wrmsr 0x3b 0x1"),
            ("program", "hw : irq 1 nmi"),
            ("program", "hw : starve 1 2"),
            ("program", "g0 : load [0x1000] 8"),
            ("program", "g0 : tdg.vp.info"),
            ("concurrent", "cpu0 : mfence"),
            ("program", "cpu0 : mfence"),
        ] {
            let agents = if line.starts_with("g0") {
                "[agents]\ng0 = { kind = \"guest\", vcpu = \"0x40000000\" }\n"
            } else {
                ""
            };
            let text = format!(
                "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\norder = \"{order}\"\n\
                 program = '''{line}'''\n{agents}[expect]\nfinal = [\"births 0\"]\n"
            );
            let scenario = Scenario::from_text("s.toml", &text).unwrap();
            let request = Request { check: true, ..Request::default() };
            let run = run(plan(&scenario, &request).unwrap().first().unwrap(), &request).unwrap();
            assert!(run.notes.iter().any(|n| n.contains(": 1 operations agree (")), "{line}");
            assert_eq!(run.check.map(|c| c.operations), Some(1), "{line}");
            assert_eq!(run.verdict, Verdict::Pass, "{line}: {:?}", run.notes);
        }
    }
}
