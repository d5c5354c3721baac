//! Exhaustive exploration of a scenario on the reference model: every interleaving of its agents, every eviction, write-back
//! and drain of a buffer (verification.md §5.1, §5.3). `[expect]` becomes "always", `[forbid]` "never" and `[allow]` "possibly";
//! what speaks against one comes back as the shortest program that shows it.
//!
//! What is searched, and within which bounds, is told in docs/explore.md. The engine is [`verify::search`].

mod counterexample;
pub mod human;
mod judge;
mod lines;
pub mod report;
mod seam;
pub mod study;
mod world;

#[cfg(test)]
mod tests;

use crate::diag::Diag;
use crate::format::{Expectation, Program, ProgramLine, Scenario};
use crate::report::Verdict;
use crate::run::{Cell, Crypto, Request, plan};
use crate::setup::SetupError;
use counterexample::Way;
use lines::Lines;
use machine::{AgentKind, Order};
use report::{
    BoundsReport, CounterexampleReport, Document, ExplorationReport, FinalReport, JudgedReport,
    OutcomeReport, SCHEMA, SeenReport,
};
use sim_core::{Op, Outcome, Ps};
use std::collections::{BTreeMap, BTreeSet};
use verify::search::{Budget, End, Search};
use world::{Explorer, World};

/// The most outcomes that a report tells one by one.
pub const OUTCOMES_MAX: usize = 1000;

/// About how much memory a state takes.
pub const STATE_BYTES: u64 = 4 << 10;
/// The same of a program that uses the TDX module, which is part of every state.
pub const MODULE_STATE_BYTES: u64 = 64 << 10;

/// How far an exploration goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// By how many of its first lines a page is represented, 1 to 64, beside those that the program names one by one.
    pub lines_per_page: u32,
    /// Different states.
    pub states: usize,
    /// Bytes of memory for states, by the room that one takes: [`STATE_BYTES`], [`MODULE_STATE_BYTES`].
    pub memory: u64,
    /// Transitions made.
    pub transitions: u64,
    /// Whether cores fill lines that nobody asked for.
    pub prefetch: bool,
    /// Ordinary stores that a core may hold back where agents run side by side (x86-TSO); 0: each is visible at once.
    pub store_buffer: u8,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            lines_per_page: 1,
            states: 1_000_000,
            memory: 2 << 30,
            transitions: 10_000_000,
            prefetch: false,
            store_buffer: 2,
        }
    }
}

/// Explores every part of a scenario's matrix, cryptography aside: the reference knows ciphertext by where it comes from.
///
/// # Errors
/// Whatever of scenario, platform or request does not fit together, at its place.
pub fn explore(
    scenario: &Scenario,
    request: &Request,
    bounds: &Bounds,
    tool: &str,
) -> Result<Document, Diag> {
    let request = Request { crypto: Some(Crypto::Symbolic), ..request.clone() };
    let mut explorations = Vec::new();
    for cell in plan(scenario, &request)? {
        explorations.push(explore_cell(scenario, &cell, &request, bounds)?);
    }
    Ok(document(explorations, bounds, tool))
}

/// A document of explorations that were made one by one.
pub fn document(explorations: Vec<ExplorationReport>, bounds: &Bounds, tool: &str) -> Document {
    let verdict = explorations.iter().map(|e| e.verdict).max_by_key(|v| v.badness());
    Document {
        schema: SCHEMA,
        tool: tool.to_owned(),
        bounds: BoundsReport::of(bounds),
        verdict: verdict.unwrap_or(Verdict::Pass),
        explorations,
    }
}

/// How many ways to an ending are tried, shortest first, until one can be written as a program.
const TRIES: usize = 24;

/// One end that the search has found: what everybody saw, and how it stands with the final checks.
struct Ending {
    /// Numbers of the first states that show it, [`TRIES`] of them at most.
    states: Vec<usize>,
    /// How many states show it.
    ends: u64,
    seen: Vec<u16>,
    finals: Vec<(bool, String)>,
    /// The run went on in a way that is not modelled: what was seen before was seen, and nothing is known of the rest.
    astray: bool,
}

impl Ending {
    /// What an operation came to, as far as the model knows.
    fn word<'a>(&self, explored: &'a Explored, line: usize) -> Option<&'a world::Word> {
        let id = self.seen.get(line).copied().filter(|id| *id != world::LOST)?;
        explored.search.system.word(id)
    }
}

/// What everybody saw, how it stands with the final checks, and whether the run was followed no further ([`world::Fate`]).
type Seen = (Vec<u16>, Vec<(bool, String)>, bool);

/// What speaks against an expectation.
struct Judged {
    report: JudgedReport,
    /// The ending that shows it.
    against: Option<usize>,
}

/// A search that is over, and its endings in the order in which they were found.
struct Explored {
    search: Search<Explorer>,
    endings: Vec<Ending>,
    end: End,
    states: usize,
    /// How many there might have been.
    bound: usize,
    transitions: u64,
    depth: u32,
}

/// What is ready to be searched.
struct Prepared {
    explorer: Explorer,
    start: World,
    watched: Vec<String>,
}

/// The world as it stands when a program begins; or what its tables need and is not modelled.
fn prepare(cell: &Cell, bounds: &Bounds) -> Result<Result<Prepared, String>, Diag> {
    let (program, spec) = (cell.program(), cell.platform());
    // One after the other, the next line begins when the one above is over and its store visible.
    let store_buffer = match program.order {
        Order::Program => 0,
        Order::Concurrent => bounds.store_buffer,
    };
    let watch = Lines::of(program, spec, bounds.lines_per_page, store_buffer > 0);
    let watched: Vec<String> = watch.all().map(|line| place(program, line.hpa().0)).collect();
    let mut explorer = Explorer::new(spec, program, watch, bounds.prefetch);
    let guests = program.agents.iter().any(|a| a.kind == AgentKind::Guest);
    let calls = |l: &ProgramLine| matches!(l, ProgramLine::Step(s) if s.op.needs_module());
    let with_module = program.setup.is_some() || guests || program.lines.iter().any(calls);
    let mut start = explorer.power_on(with_module);
    if let Some(setup) = &program.setup {
        let mut prepare =
            |core: u16, op: &Op| -> Outcome { explorer.prepare(&mut start, core, op) };
        match setup.run_on(spec.cpu.cores, spec.cpu.packages, &mut prepare) {
            Ok(()) => {}
            Err(SetupError::Refused { at, found, expected }) => {
                return Err(cell.source().diag(at.span(), found, expected));
            }
            Err(SetupError::NotModelled(leaf)) => return Ok(Err(leaf.to_string())),
        }
        // A line of the module that the reference could not store, say: nothing that is built on it is known.
        if let Some(what) = explorer.not_modelled {
            return Ok(Err(what));
        }
    }
    start.counts = world::Counts::default();
    start.memory.spec.store_buffer = store_buffer;
    explorer.pass_barriers(&mut start);
    Ok(Ok(Prepared { explorer, start, watched }))
}

impl Prepared {
    fn run(self, program: &Program, bounds: &Bounds) -> Explored {
        run_search(program, self.explorer, self.start, bounds)
    }
}

fn run_search(program: &Program, explorer: Explorer, start: World, bounds: &Bounds) -> Explored {
    let each = if start.seam.is_some() { MODULE_STATE_BYTES } else { STATE_BYTES };
    let room = usize::try_from(bounds.memory / each).unwrap_or(usize::MAX).max(1);
    let mut search = Search::new(explorer, start);
    let states = bounds.states.min(room);
    let budget = Budget { states, transitions: bounds.transitions, depth: u32::MAX };
    let searched = search.run(budget);
    let mut found: BTreeMap<Seen, (Vec<usize>, u64)> = BTreeMap::new();
    for (number, state) in search.states().iter().enumerate() {
        if !search.system.is_end(state) {
            continue;
        }
        let finals: Vec<(bool, String)> =
            program.finals.iter().map(|f| search.system.judge(state, &f.check)).collect();
        let seen = (state.seen.clone(), finals, state.fate.astray);
        let entry = found.entry(seen).or_default();
        entry.1 += 1;
        if entry.0.len() < TRIES {
            entry.0.push(number);
        }
    }
    let mut endings: Vec<Ending> = found
        .into_iter()
        .map(|((seen, finals, astray), (states, ends))| Ending {
            states,
            ends,
            seen,
            finals,
            astray,
        })
        .collect();
    endings.sort_by(|a, b| a.states.cmp(&b.states));
    Explored {
        search,
        endings,
        end: searched.end,
        states: searched.states,
        bound: states,
        transitions: searched.transitions,
        depth: searched.depth,
    }
}

/// Explores one part of a scenario's matrix.
///
/// # Errors
/// What its tables `[tdx]` and `[td.NAME]` ask for and the module refuses, at its place.
pub fn explore_cell(
    scenario: &Scenario,
    cell: &Cell,
    request: &Request,
    bounds: &Bounds,
) -> Result<ExplorationReport, Diag> {
    let (program, spec) = (cell.program(), cell.platform());
    let prepared = prepare(cell, bounds)?;
    let mut report = ExplorationReport {
        scenario: program.name.clone(),
        platform: spec.name.clone(),
        integrity: spec.memory.integrity.to_string(),
        erratum: spec.memory.erratum_pw_mce,
        order: program.order.word().to_owned(),
        verdict: Verdict::NotModelled,
        watched: Vec::new(),
        states: 0,
        transitions: 0,
        depth: 0,
        exhausted: false,
        endings: 0,
        outcomes: Vec::new(),
        expectations: Vec::new(),
        counterexamples: Vec::new(),
        notes: Vec::new(),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(what) => {
            report.notes.push(format!("not modelled: {what}, which [tdx] or [td] needs"));
            return Ok(report);
        }
    };
    report.watched = prepared.watched.clone();
    let start_again = prepared.start.clone();
    let mut explored = prepared.run(program, bounds);
    let exhausted = explored.end == End::Exhausted;
    (report.states, report.transitions) = (explored.states as u64, explored.transitions);
    (report.depth, report.exhausted) = (explored.depth, exhausted);
    report.endings = explored.endings.len() as u64;
    // Where a run went on in a way that the model does not know, nothing is known to hold in every run.
    let all_seen = exhausted && explored.search.system.not_modelled.is_none();
    let judged = judge_all(program, &explored, all_seen);
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    for against in judged.iter().filter_map(|j| j.against) {
        shown.insert(against);
    }
    for number in shown {
        let subjects =
            judged.iter().filter(|j| j.against == Some(number)).map(|j| j.report.text()).collect();
        report.counterexamples.push(tell(
            (scenario, cell, request),
            &mut explored,
            &start_again,
            number,
            subjects,
            report.counterexamples.len() + 1,
        ));
    }
    let violated = judged.iter().any(|j| j.report.holds == Some(false));
    let open = all_seen && judged.iter().any(|j| j.report.holds.is_none());
    report.expectations = judged.into_iter().map(|j| j.report).collect();
    let mut outcomes: Vec<OutcomeReport> =
        explored.endings.iter().map(|e| outcome(program, &explored, e)).collect();
    outcomes.sort_by(|a, b| (&a.steps, &a.finals).cmp(&(&b.steps, &b.finals)));
    outcomes.truncate(OUTCOMES_MAX);
    report.outcomes = outcomes;
    let system = &explored.search.system;
    report.verdict = verdict(system, exhausted && !open, report.endings, violated);
    if open {
        report.notes.push(
            "undecided: whether something never comes turns on bytes (`??`) that the reference model does not know"
                .to_owned(),
        );
    }
    if let Some(what) = &system.not_modelled {
        let ends: u64 = explored.endings.iter().filter(|e| e.astray).map(|e| e.ends).sum();
        let runs = human::many(ends, "end");
        report.notes.push(format!(
            "not modelled: {what}; {runs} of the search are where a run went on in such a way, and what came behind was not looked at"
        ));
    }
    if let Some(what) = &system.broken {
        report.notes.push(format!("broken: {what}"));
    } else if report.verdict == Verdict::Broken {
        report.notes.push("broken: the search found no end".to_owned());
    }
    if !exhausted {
        let why = match explored.end {
            End::States => format!("there are more than {} states", explored.bound),
            _ => format!("there are more than {} transitions", bounds.transitions),
        };
        report
            .notes
            .push(format!("not everything was seen: {why} (--states, --memory, --transitions)"));
    }
    Ok(report)
}

/// What came of a search, the worst first (docs/commands.md).
fn verdict(system: &Explorer, exhausted: bool, endings: u64, violated: bool) -> Verdict {
    match () {
        () if system.broken.is_some() || exhausted && endings == 0 => Verdict::Broken,
        // Whatever else there is, this run is one: nothing that is not modelled had happened in it.
        () if violated => Verdict::Fail,
        () if !exhausted => Verdict::Undecided,
        () if system.not_modelled.is_some() => Verdict::NotModelled,
        () => Verdict::Pass,
    }
}

/// An address by the region that it is in.
fn place(program: &Program, at: u64) -> String {
    let inside =
        |a: &&crate::format::NamedArea| (a.base..a.base.saturating_add(a.size)).contains(&at);
    match program.areas.iter().find(inside) {
        Some(area) if area.base == at => area.name.clone(),
        Some(area) => format!("{}+{:#x}", area.name, at - area.base),
        None => format!("{at:#x}"),
    }
}

fn step_name(program: &Program, agent: usize, index: u32) -> String {
    format!("{}.{index}", program.agents.get(agent).map_or("?", |a| a.name.as_str()))
}

/// The words that the operation of a line came to in an ending.
fn word_of(explored: &Explored, ending: &Ending, line: usize) -> String {
    let id = ending.seen.get(line).copied().unwrap_or(world::UNSEEN);
    explored.search.system.word(id).map_or_else(|| "nothing".to_owned(), |w| w.text.clone())
}

fn outcome(program: &Program, explored: &Explored, ending: &Ending) -> OutcomeReport {
    let steps = program.lines.iter().enumerate().filter_map(|(i, line)| match line {
        ProgramLine::Step(step) => Some(SeenReport {
            step: step_name(program, step.agent, step.index),
            outcome: word_of(explored, ending, i),
        }),
        ProgramLine::Barrier => None,
    });
    // Where a run was not followed to its end, nobody knows how it stands there.
    let known = program.finals.iter().zip(&ending.finals).filter(|_| !ending.astray);
    let finals = known.map(|(f, (met, seen))| FinalReport {
        check: f.text.clone(),
        seen: seen.clone(),
        met: *met,
    });
    OutcomeReport {
        steps: steps.collect(),
        finals: finals.collect(),
        moves: ending.states.first().and_then(|s| explored.search.depth(*s)).unwrap_or(0),
        ends: ending.ends,
    }
}

/// Holds every expectation against every ending.
fn judge_all(program: &Program, explored: &Explored, exhausted: bool) -> Vec<Judged> {
    let line_of = |e: &Expectation| {
        program.lines.iter().position(
            |l| matches!(l, ProgramLine::Step(s) if s.agent == e.agent && s.index == e.index),
        )
    };
    let matches = |e: &Expectation, ending: &Ending| {
        let word = line_of(e).and_then(|line| ending.word(explored, line));
        word.is_some_and(|w| w.fits(|outcome| e.pattern.matches(outcome)))
    };
    // An operation that a run did not come to, as it was not followed to its end, speaks for nothing.
    let untold = |e: &Expectation, ending: &Ending| {
        ending.astray && line_of(e).is_none_or(|line| ending.word(explored, line).is_none())
    };
    // A run that was followed to its end, where there is one: it can be run again.
    let first = |bad: &dyn Fn(&Ending) -> bool| {
        let whole = explored.endings.iter().position(|e| !e.astray && bad(e));
        whole.or_else(|| explored.endings.iter().position(bad))
    };
    let words = |e: &Expectation| -> Vec<String> {
        let line = line_of(e).unwrap_or(usize::MAX);
        let all: BTreeSet<String> =
            explored.endings.iter().map(|ending| word_of(explored, ending, line)).collect();
        all.into_iter().collect()
    };
    let mut judged = Vec::new();
    let mut push = |quantifier: &str, subject: String, pattern: String, seen, against, holds| {
        let report =
            JudgedReport { quantifier: quantifier.to_owned(), subject, pattern, seen, holds };
        judged.push(Judged { report, against });
    };
    for e in &program.expectations {
        let subject = step_name(program, e.agent, e.index);
        let allowed: Vec<&Expectation> =
            program.allowed.iter().filter(|a| (a.agent, a.index) == (e.agent, e.index)).collect();
        let bad = |ending: &Ending| match e.forbidden {
            true => matches(e, ending),
            false => {
                let known = !untold(e, ending);
                known && !matches(e, ending) && !allowed.iter().any(|a| matches(a, ending))
            }
        };
        let against = first(&bad);
        // Whether a run has what must not be may turn on bytes that nobody knows.
        let may = |ending: &Ending| {
            let word = line_of(e).and_then(|line| ending.word(explored, line));
            word.is_some_and(|w| w.may_fit(&e.pattern))
        };
        let open = e.forbidden && explored.endings.iter().any(may);
        let holds = match (against, exhausted && !open) {
            (Some(_), _) => Some(false),
            (None, true) => Some(true),
            (None, false) => None,
        };
        let quantifier = if e.forbidden { "never" } else { "always" };
        push(quantifier, subject, e.pattern.to_string(), words(e), against, holds);
    }
    for e in &program.allowed {
        let found = explored.endings.iter().any(|ending| matches(e, ending));
        let holds = if found { Some(true) } else { exhausted.then_some(false) };
        let subject = step_name(program, e.agent, e.index);
        push("possibly", subject, e.pattern.to_string(), words(e), None, holds);
    }
    let ends = || explored.endings.iter().filter(|e| !e.astray);
    for (i, check) in program.finals.iter().enumerate() {
        let fails = |e: &Ending| !e.astray && e.finals.get(i).is_some_and(|(met, _)| !met);
        let against = first(&fails);
        let holds = match (against, exhausted) {
            (Some(_), _) => Some(false),
            (None, true) => Some(true),
            (None, false) => None,
        };
        let all: BTreeSet<String> =
            ends().filter_map(|e| Some(e.finals.get(i)?.1.clone())).collect();
        push(
            "always",
            "final".to_owned(),
            check.text.clone(),
            all.into_iter().collect(),
            against,
            holds,
        );
    }
    judged
}

/// An ending as the shortest program that shows it.
fn tell(
    (scenario, cell, request): (&Scenario, &Cell, &Request),
    explored: &mut Explored,
    start: &World,
    number: usize,
    against: Vec<String>,
    nth: usize,
) -> CounterexampleReport {
    let mut report =
        CounterexampleReport { against, moves: Vec::new(), file: None, reproduced: false };
    let Some(ending) = explored.endings.get(number) else { return report };
    let words: Vec<Option<String>> = (0..ending.seen.len())
        .map(|line| ending.word(explored, line).map(|w| w.pattern.clone()))
        .collect();
    // Of a run that was not followed to its end nothing is known there.
    let finals = if ending.astray { Vec::new() } else { ending.finals.clone() };
    let lost: BTreeSet<usize> =
        (0..ending.seen.len()).filter(|i| ending.seen.get(*i) == Some(&world::LOST)).collect();
    let program = cell.program();
    let what = counterexample::Shown { words: &words, finals: &finals, nth };
    // A file that is silent about what does not hold shows nothing, whatever comes of it.
    let only_finals = report.against.iter().all(|a| a.starts_with("always final:"));
    let shows = !only_finals || counterexample::finals_can_be_said(scenario, cell, &what);
    for state in ending.states.clone() {
        let Some((moves, _)) = explored.search.trace(state) else { continue };
        let system = &mut explored.search.system;
        // What happened within a call can be written before it or after it.
        for way in [Way::Begin, Way::End] {
            let mut ordered = counterexample::ordered(system, start, &moves, way);
            ordered.retain(|item| !item.is_line_of(&lost));
            let text = counterexample::scenario(scenario, cell, request, system, &ordered, &what);
            let reproduced =
                shows && text.as_ref().is_some_and(|t| counterexample::reproduces(t, request));
            if reproduced || report.moves.is_empty() {
                report.moves = counterexample::told(system, start, &moves);
                (report.file, report.reproduced) = (text, reproduced);
            }
            if reproduced {
                return report;
            }
        }
    }
    // Side by side as the scenario has it, with somebody a little later.
    if shows && program.order == Order::Concurrent && report.file.is_some() {
        for agent in 0..program.agents.len() {
            for delay in counterexample::DELAYS {
                let who = (agent, Ps::ns(delay));
                let system = &explored.search.system;
                let text = counterexample::later(scenario, cell, request, system, who, &what);
                if text.as_ref().is_some_and(|t| counterexample::reproduces(t, request)) {
                    (report.file, report.reproduced) = (text, true);
                    return report;
                }
            }
        }
    }
    report
}
