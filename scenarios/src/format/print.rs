//! From [`Scenario`] to text.

use super::{GPAW, Line, Located, Order, Pattern, Scenario, Space, StepRef};
use crate::format::Crypto;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

/// Text as a TOML string of one line.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// A word alone, or a list of words.
fn words<T: Display>(list: &[T]) -> String {
    let quoted: Vec<String> = list.iter().map(|w| quoted(&w.to_string())).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn texts<T: Display>(list: impl Iterator<Item = T>) -> String {
    let quoted: Vec<String> = list.map(|t| quoted(&t.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A size in the largest unit that leaves a whole number.
pub(super) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

impl Scenario {
    /// The scenario as a file. Reading it gives the same scenario; comments of the file it was read from are lost.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "[scenario]")?;
        writeln!(out, "name = {}", quoted(&self.name))?;
        writeln!(out, "title = {}", quoted(&self.title))?;
        writeln!(out, "cite = {}", texts(self.cite.iter()))?;
        writeln!(out, "platform = {}", words(&self.platforms))?;
        if !self.integrity.is_empty() {
            writeln!(out, "integrity = {}", words(&self.integrity))?;
        }
        if self.order != Order::Program {
            writeln!(out, "order = {}", quoted(self.order.word()))?;
        }
        if self.crypto != [Crypto::Symbolic] {
            writeln!(out, "crypto = {}", words(&self.crypto))?;
        }
        if !self.set.is_empty() {
            let entry = |o: &crate::platform::Override| {
                format!("{} = {}", quoted(&o.key), quoted(&o.value))
            };
            let entries: Vec<String> = self.set.iter().map(entry).collect();
            writeln!(out, "set = {{ {} }}", entries.join(", "))?;
        }
        writeln!(out, "program = '''")?;
        let width = self.program.iter().map(|line| match line {
            Line::Op { agent, .. } => agent.len(),
            Line::Barrier => 0,
        });
        let width = width.max().unwrap_or(0);
        for line in &self.program {
            match line {
                Line::Op { agent, op, .. } => writeln!(out, "  {agent:width$} : {op}")?,
                Line::Barrier => writeln!(out, "  barrier")?,
            }
        }
        writeln!(out, "'''")?;
        if !self.regions.is_empty() {
            writeln!(out, "\n[regions]")?;
            for r in &self.regions {
                let size = size(r.size);
                let base = if r.space == Space::Guest { "gpa" } else { "base" };
                writeln!(out, "{} = {{ {base} = \"{:#x}\", size = \"{size}\" }}", r.name, r.base)?;
            }
        }
        if !self.agents.is_empty() {
            writeln!(out, "\n[agents]")?;
            for agent in &self.agents {
                write!(out, "{} = {{ kind = \"{}\"", agent.name, agent.kind)?;
                if let Some(core) = agent.core {
                    write!(out, ", core = {core}")?;
                }
                if let Some(keyid) = agent.keyid {
                    write!(out, ", keyid = \"{keyid}\"")?;
                }
                if let Some(vcpu) = &agent.vcpu {
                    write!(out, ", vcpu = \"{}\"", vcpu.tdvpr)?;
                    if vcpu.gpaw != GPAW {
                        write!(out, ", gpaw = {}", vcpu.gpaw)?;
                    }
                }
                writeln!(out, " }}")?;
            }
        }
        if let Some(tdx) = &self.tdx {
            tdx.write(out)?;
        }
        self.tds.iter().try_for_each(|td| td.write(out))?;
        let checks = &self.checks;
        let finals = (!checks.finals.is_empty()).then_some(&checks.finals);
        table(out, "expect", &checks.expect, finals)?;
        table(out, "forbid", &checks.forbid, None)?;
        table(out, "allow", &checks.allow, None)?;
        for r in &self.refinements {
            writeln!(out, "\n[[when]]")?;
            if !r.platforms.is_empty() {
                writeln!(out, "platform = {}", words(&r.platforms))?;
            }
            if !r.integrity.is_empty() {
                writeln!(out, "integrity = {}", words(&r.integrity))?;
            }
            if !r.crypto.is_empty() {
                writeln!(out, "crypto = {}", words(&r.crypto))?;
            }
            if let Some(erratum) = r.erratum {
                writeln!(out, "erratum = {erratum}")?;
            }
            table(out, "when.expect", &r.expect, r.finals.as_ref())?;
            table(out, "when.forbid", &r.forbid, None)?;
            table(out, "when.allow", &r.allow, None)?;
        }
        Ok(())
    }
}

fn table(
    out: &mut String,
    name: &str,
    entries: &BTreeMap<StepRef, Located<Pattern>>,
    finals: Option<&Vec<Located<super::FinalCheck>>>,
) -> fmt::Result {
    if entries.is_empty() && finals.is_none() {
        return Ok(());
    }
    writeln!(out, "\n[{name}]")?;
    for (step, pattern) in entries {
        writeln!(out, "\"{step}\" = {}", quoted(&pattern.value.to_string()))?;
    }
    if let Some(finals) = finals {
        writeln!(out, "final = {}", texts(finals.iter().map(|check| &check.value)))?;
    }
    Ok(())
}
