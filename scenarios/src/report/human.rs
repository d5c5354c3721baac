//! A run, told to people: 80 columns, no colour, fit for a mail.

use super::{
    BirthReport, ExpectationReport, HistoryRow, LineReport, Link, MachineCheckReport, RunReport,
    StepReport, TdEventReport, Verdict,
};
use sim_core::Ps;
use std::fmt::{self, Display, Write};

const WIDTH: usize = 80;

/// Prints a run in full.
pub struct Narrative<'a>(pub &'a RunReport);

impl Display for Narrative<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        writeln!(f, "{}: {}", run.scenario, verdict_word(run.verdict))?;
        wrap(f, "  ", "  ", &run.title)?;
        writeln!(
            f,
            "  platform {}{}, integrity {}, {} crypto, {}",
            run.platform,
            if run.erratum { " (has the partial-write erratum)" } else { "" },
            run.integrity,
            run.crypto,
            run.speed
        )?;
        writeln!(f)?;
        steps(f, run)?;
        for check in &run.machine_checks {
            writeln!(f)?;
            machine_check(f, check, run)?;
        }
        let consumed: Vec<u32> = run.machine_checks.iter().map(|c| c.birth).collect();
        for birth in run.births.iter().filter(|b| !consumed.contains(&b.birth)) {
            writeln!(f)?;
            writeln!(f, "Poison {} in line {} ({})", birth.birth, birth.line, birth.cause)?;
            chain(f, &birth.chain)?;
            fate(f, birth)?;
        }
        for line in &run.lines {
            writeln!(f)?;
            history(f, line)?;
        }
        for ucna in &run.ucna {
            writeln!(f)?;
            writeln!(
                f,
                "UCNA log: bank {} MCi_STATUS {} MCi_ADDR {}{} (poison {})",
                ucna.bank,
                ucna.status,
                ucna.addr,
                if ucna.cmci { ", CMCI" } else { "" },
                ucna.birth
            )?;
        }
        writeln!(f)?;
        writeln!(f, "Expectations")?;
        for e in &run.expectations {
            expectation(f, e)?;
        }
        for note in &run.notes {
            wrap(f, "note: ", "      ", note)?;
        }
        let met = run.expectations.iter().filter(|e| e.met).count();
        writeln!(f)?;
        writeln!(
            f,
            "Verdict: {} ({met} of {} expectations met; {} simulated)",
            verdict_word(run.verdict),
            run.expectations.len(),
            Ps(run.simulated_ps)
        )
    }
}

/// The word for a verdict.
pub const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "as expected",
        Verdict::Fail => "NOT as expected",
        Verdict::NotModelled => "NOT MODELLED",
        Verdict::Undecided => "UNDECIDED",
        Verdict::Broken => "SIMULATOR BROKEN",
    }
}

/// What came of a run, in a few words: how much poison was born, and what machine checks did.
pub fn summary(run: &RunReport) -> String {
    let mut text = match run.counts.births {
        0 => "no poison".to_owned(),
        n => format!("poison born {n}×"),
    };
    let mut consequences: Vec<&str> = Vec::new();
    for check in &run.machine_checks {
        if !consequences.contains(&check.consequence.as_str()) {
            consequences.push(&check.consequence);
        }
    }
    if !consequences.is_empty() {
        let _ = write!(text, ", #MC: {}", consequences.join(", "));
    }
    text
}

fn steps(f: &mut fmt::Formatter<'_>, run: &RunReport) -> fmt::Result {
    let steps = &run.steps;
    let name = steps.iter().map(|s| s.step.len()).max().unwrap_or(0);
    let plain = steps.iter().filter(|s| s.call.is_none());
    let operation = plain.map(|s| s.operation.len()).max().unwrap_or(0).min(38);
    let mut events = run.td_events.iter().peekable();
    for s in steps {
        while let Some(event) = events.next_if(|e| comes_before(e, s)) {
            td_event(f, event, name)?;
        }
        let end = Ps(s.end_ps).to_string();
        write!(f, "  {end:>11}  {:name$}  ", s.step)?;
        match &s.call {
            None => writeln!(f, "{:operation$}  {}", s.operation, s.outcome)?,
            Some(call) => {
                let (trace, margin) = (call.trace(&s.outcome), call.margin());
                let mark = if margin.is_empty() { "" } else { "  # " };
                writeln!(f, "{trace}{mark}{margin}")?;
            }
        }
    }
    events.try_for_each(|event| td_event(f, event, name))
}

/// Whether an event is told before an operation: if it happened earlier, or made it end.
fn comes_before(event: &TdEventReport, step: &StepReport) -> bool {
    let own = event.step.as_ref() == Some(&step.step) && event.what == "exit";
    event.at_ps < step.end_ps || event.at_ps == step.end_ps && own
}

/// An entry, an exit or the end of TDX, between the operations.
fn td_event(f: &mut fmt::Formatter<'_>, event: &TdEventReport, name: usize) -> fmt::Result {
    let at = Ps(event.at_ps).to_string();
    let step = event.step.as_deref().unwrap_or("-");
    let vcpu = event.vcpu.as_ref().map_or("", |v| v.region.as_ref().unwrap_or(&v.value));
    let core = event.core;
    write!(f, "  {at:>11}  {step:name$}  ")?;
    match event.what.as_str() {
        "enter" => writeln!(f, "-> core {core} enters {vcpu}"),
        "exit" => writeln!(f, "<- core {core} leaves {vcpu}"),
        _ => writeln!(f, "!! core {core} in unbreakable shutdown, TDX disabled"),
    }
}

fn machine_check(
    f: &mut fmt::Formatter<'_>,
    check: &MachineCheckReport,
    run: &RunReport,
) -> fmt::Result {
    writeln!(
        f,
        "Machine check on core {} at {}: {}, {}",
        check.core,
        Ps(check.at_ps),
        check.class,
        check.consequence
    )?;
    writeln!(
        f,
        "  bank {}  MCi_STATUS {}  MCG_STATUS {}  MCi_ADDR {}",
        check.bank, check.status, check.mcg_status, check.addr
    )?;
    if let Some(grade) = &check.grade {
        wrap(f, "  Linux: ", "         ", grade)?;
    }
    chain(f, &check.chain)?;
    run.births.iter().find(|b| b.birth == check.birth).map_or(Ok(()), |birth| fate(f, birth))
}

fn chain(f: &mut fmt::Formatter<'_>, links: &[Link]) -> fmt::Result {
    for link in links {
        let text = match (&link.step, link.line) {
            (Some(step), Some(line)) => format!("{step}: {} (line {line})", link.text),
            _ => link.text.clone(),
        };
        wrap(f, "  <- ", "     ", &text)?;
    }
    Ok(())
}

fn fate(f: &mut fmt::Formatter<'_>, birth: &BirthReport) -> fmt::Result {
    match birth.locations {
        0 => writeln!(f, "  The poison has been overwritten since."),
        1 => writeln!(f, "  The poison is still there, in one place."),
        n => writeln!(f, "  The poison is still there, in {n} places."),
    }
}

fn history(f: &mut fmt::Formatter<'_>, birth: &LineReport) -> fmt::Result {
    writeln!(f, "History of line {}", birth.line)?;
    let name = birth
        .history
        .iter()
        .map(|r| r.step.as_ref().map_or(1, String::len))
        .chain([2])
        .max()
        .unwrap_or(2);
    let what = birth.history.iter().map(|r| r.what.len()).chain([4]).max().unwrap_or(4);
    writeln!(
        f,
        "  {:>11}  {:name$}  {:what$}  {:5}  {:>5}  TD  MAC  poison",
        "time", "by", "what", "row", "KeyID"
    )?;
    for row in &birth.history {
        history_row(f, row, name, what)?;
    }
    match birth.omitted {
        0 => Ok(()),
        n => writeln!(f, "  ... and {n} more"),
    }
}

fn history_row(
    f: &mut fmt::Formatter<'_>,
    row: &HistoryRow,
    name: usize,
    what: usize,
) -> fmt::Result {
    let bit = |b: Option<bool>| b.map_or("-", |b| if b { "1" } else { "0" });
    let word = |b: Option<bool>| b.map_or("-", |b| if b { "yes" } else { "no" });
    let key = row.keyid.map_or_else(|| "-".to_owned(), |k| k.to_string());
    writeln!(
        f,
        "  {:>11}  {:name$}  {:what$}  {:5}  {key:>5}  {:2}  {:3}  {}",
        Ps(row.at_ps).to_string(),
        row.step.as_deref().unwrap_or("-"),
        row.what,
        row.rule.as_deref().unwrap_or("-"),
        bit(row.td),
        word(row.mac),
        word(row.poison)
    )
}

fn expectation(f: &mut fmt::Formatter<'_>, e: &ExpectationReport) -> fmt::Result {
    let mark = if e.met { "met    " } else { "NOT MET" };
    let mut text = match e.kind.as_str() {
        "final" => format!("finally {}", e.subject),
        "forbid" => format!("{} is not {}", e.subject, e.pattern),
        _ => format!("{} is {}", e.subject, e.pattern),
    };
    if !e.met || e.kind == "forbid" {
        let _ = write!(text, " (seen: {})", e.seen);
    }
    wrap(f, &format!("  {mark} "), "          ", &text)
}

/// Writes `text` in lines of at most 80 columns.
fn wrap(f: &mut fmt::Formatter<'_>, first: &str, rest: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut used = line.chars().count();
    let mut empty = true;
    for word in text.split(' ') {
        let len = word.chars().count();
        if !empty && used + 1 + len > WIDTH {
            writeln!(f, "{line}")?;
            line = rest.to_owned();
            used = line.chars().count();
            empty = true;
        }
        if !empty {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += len;
        empty = false;
    }
    writeln!(f, "{line}")
}
