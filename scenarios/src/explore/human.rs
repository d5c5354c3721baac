//! An exploration, told to people.

use super::report::{Document, ExplorationReport, JudgedReport, OutcomeReport};
use crate::report::Verdict;
use machine::Order;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// How many outcomes are told.
const OUTCOMES: usize = 40;
/// How many words of one operation are listed.
const WORDS: usize = 8;

/// Prints explorations in full.
pub struct Explorations<'a>(pub &'a Document);

impl Display for Explorations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, exploration) in self.0.explorations.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            one(f, exploration, self.0)?;
        }
        Ok(())
    }
}

/// The word for what came of an exploration.
pub const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "holds in every run",
        Verdict::Fail => "COUNTEREXAMPLE FOUND",
        Verdict::NotModelled => "NOT MODELLED",
        Verdict::Undecided => "UNDECIDED",
        Verdict::Broken => "SIMULATOR BROKEN",
    }
}

/// `1 state`, `2 states`
pub(super) fn many(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn one(f: &mut fmt::Formatter<'_>, e: &ExplorationReport, document: &Document) -> fmt::Result {
    writeln!(f, "{}: {}", e.scenario, verdict_word(e.verdict))?;
    writeln!(
        f,
        "  platform {}{}, integrity {}, order {}",
        e.platform,
        if e.erratum { " (has the partial-write erratum)" } else { "" },
        e.integrity,
        e.order
    )?;
    let bounds = &document.bounds;
    writeln!(
        f,
        "  bounds: {} per page, {} prefetches, {}at most {}, {} MiB of them, {}",
        many(bounds.lines_per_page.into(), "line"),
        if bounds.prefetch { "with" } else { "no" },
        // In the order of the program every store is visible before the next line.
        if e.order == Order::Concurrent.word() {
            format!("store buffers of {}, ", bounds.store_buffer)
        } else {
            String::new()
        },
        many(bounds.states, "state"),
        bounds.memory >> 20,
        many(bounds.transitions, "transition"),
    )?;
    let watched = match e.watched.as_slice() {
        [] => "none: nobody could tell".to_owned(),
        lines => lines.join(" "),
    };
    writeln!(f, "  every choice on: {watched}")?;
    writeln!(
        f,
        "  searched: {}, {}, depth {}{}",
        many(e.states, "state"),
        many(e.transitions, "transition"),
        e.depth,
        if e.exhausted { "" } else { ", NOT all" }
    )?;
    writeln!(f)?;
    outcomes(f, e)?;
    if !e.expectations.is_empty() {
        writeln!(f, "\nExpectations")?;
    }
    let (plain, told): (Vec<_>, Vec<_>) =
        e.expectations.iter().partition(|j| j.holds == Some(true) && j.seen.len() <= 1);
    for judged in told {
        judgement(f, judged)?;
    }
    if !plain.is_empty() {
        writeln!(f, "  holds       {} with one outcome each", many(plain.len() as u64, "other"))?;
    }
    for (i, c) in e.counterexamples.iter().enumerate() {
        writeln!(f, "\nCounterexample {}, {}", i + 1, many(c.moves.len() as u64, "move"))?;
        for against in &c.against {
            writeln!(f, "  against {against}")?;
        }
        for mv in &c.moves {
            writeln!(f, "    {mv}")?;
        }
        let said = match (&c.file, c.reproduced) {
            (Some(_), true) => {
                "a scenario file shows it (--write FILE); `tdxsim run` reproduces it"
            }
            (Some(_), false) => {
                "as a scenario file it is not reproduced: what happens within a call, while a store waits or while a machine check is on its way has no line, and some final checks no opposite"
            }
            (None, _) => "it cannot be written as a scenario file",
        };
        writeln!(f, "  {said}")?;
    }
    for note in &e.notes {
        writeln!(f, "note: {note}")?;
    }
    Ok(())
}

fn judgement(f: &mut fmt::Formatter<'_>, judged: &JudgedReport) -> fmt::Result {
    let holds = match judged.holds {
        Some(true) => "holds",
        Some(false) => "FAILS",
        None => "undecided",
    };
    let mut seen = judged.seen.iter().take(WORDS).cloned().collect::<Vec<_>>().join(" | ");
    if judged.seen.len() > WORDS {
        seen += " | …";
    } else if seen.is_empty() {
        seen += "nothing";
    }
    writeln!(f, "  {holds:11} {}; seen: {seen}", judged.text())
}

/// Outcomes by what differs between them.
fn outcomes(f: &mut fmt::Formatter<'_>, e: &ExplorationReport) -> fmt::Result {
    let parts = |o: &OutcomeReport| -> Vec<(String, String)> {
        let steps = o.steps.iter().map(|s| (s.step.clone(), s.outcome.clone()));
        let finals = o.finals.iter().map(|c| (format!("final {}", c.check), c.seen.clone()));
        steps.chain(finals).collect()
    };
    let all: Vec<Vec<(String, String)>> = e.outcomes.iter().map(parts).collect();
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in all.iter().flatten() {
        let seen = values.entry(name).or_default();
        if !seen.contains(&value.as_str()) {
            seen.push(value);
        }
    }
    let differs = |name: &str| values.get(name).is_some_and(|v| v.len() > 1);
    let same: Vec<String> = all
        .first()
        .iter()
        .flat_map(|o| o.iter())
        .filter(|(name, value)| !differs(name) && value != "done" && !name.starts_with("final"))
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    writeln!(f, "{}", many(e.endings, "different outcome"))?;
    if !same.is_empty() {
        writeln!(f, "  always: {}", same.join(", "))?;
    }
    if e.endings > 1 {
        for (outcome, parts) in e.outcomes.iter().zip(&all).take(OUTCOMES) {
            let told: Vec<String> = parts
                .iter()
                .filter(|(name, _)| differs(name))
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            writeln!(f, "  {:>3} moves: {}", outcome.moves, told.join(", "))?;
        }
        if e.outcomes.len() > OUTCOMES {
            writeln!(f, "  … (--format json has more)")?;
        }
    }
    Ok(())
}
