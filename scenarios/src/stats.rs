//! The statistics: every counter that a command prints, with its unit and definition, and the rules that tie them together.
//!
//! A run collects its counters as [`Values`]; at its end [`Values::broken`] checks every rule of [`RULES`] whose statistics
//! the run has. A rule that does not hold is a fault of the simulator, never of its input: exit code 3 (verification.md
//! §2.11 Q1, Q14).

mod rows;

pub use rows::{RULES, STATISTICS};

use machine::{LEVELS, Level, Machine, TRANSACTION_ROWS};
use mktme::dram::Dram;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

/// What a statistic counts, or what it is measured in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Requests for a line, at a queue of DRAM or at the memory controller.
    Requests,
    /// DDR5 commands.
    Commands,
    /// Cached accesses, one per line touched.
    Accesses,
    /// Records of a trace.
    Records,
    /// Lines of 64 bytes.
    Lines,
    /// Pages of 4 KiB.
    Pages,
    /// Operations of a program.
    Operations,
    /// Things that happened: births, machine checks, turnarounds.
    Events,
    /// Picoseconds of simulated time.
    Ps,
    /// Clocks of DRAM.
    Clocks,
    /// A number of requests times the picoseconds that it lasted.
    RequestPs,
    /// A number of requests times the clocks that it lasted.
    RequestClocks,
}

impl Unit {
    /// As reports print it.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Commands => "commands",
            Unit::Accesses => "accesses",
            Unit::Records => "records",
            Unit::Lines => "lines",
            Unit::Pages => "pages",
            Unit::Operations => "operations",
            Unit::Events => "events",
            Unit::Ps => "ps",
            Unit::Clocks => "clocks",
            Unit::RequestPs => "requests x ps",
            Unit::RequestClocks => "requests x clocks",
        }
    }
}

impl Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A row of [`STATISTICS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistic {
    /// Unique, `group.counter`.
    pub name: &'static str,
    /// In what.
    pub unit: Unit,
    /// What is counted, and when.
    pub definition: &'static str,
}

/// How the two sides of a rule compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Equal.
    Same,
    /// The left is at most the right.
    AtMost,
}

/// When a rule holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At every moment.
    Always,
    /// When nothing is queued or on its way: at the end of a run that was not cut short.
    Drained,
}

/// A row of [`RULES`]: the sum of some statistics against the sum of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What a message calls it.
    pub name: &'static str,
    /// Added on the left.
    pub left: &'static [&'static str],
    /// How they compare.
    pub relation: Relation,
    /// Added on the right; nothing for 0.
    pub right: &'static [&'static str],
    /// When it holds.
    pub when: When,
    /// Why it holds, and from where.
    pub why: &'static str,
}

/// One value of a report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct StatValue {
    /// A name of docs/generated/statistics.md.
    pub name: &'static str,
    /// In `unit`.
    pub value: u64,
    /// What it is counted or measured in.
    pub unit: Unit,
}

/// The counters of a run, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Values {
    known: BTreeMap<&'static str, u64>,
    unlisted: Vec<String>,
}

/// The statistic of that name.
pub fn statistic(name: &str) -> Option<&'static Statistic> {
    STATISTICS.iter().find(|s| s.name == name)
}

/// A level as names of statistics have it.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::L1 => "l1",
        Level::L2 => "l2",
        Level::Llc => "llc",
        Level::PeerClean => "peer_clean",
        Level::PeerModified => "peer_modified",
        Level::PeerRemote => "peer_remote",
        Level::Memory => "memory",
    }
}

impl Values {
    /// Sets a value; the later of two for one name stays.
    pub fn set(&mut self, name: &str, value: u64) {
        match statistic(name) {
            Some(row) => {
                self.known.insert(row.name, value);
            }
            None => self.unlisted.push(name.to_owned()),
        }
    }

    /// Takes every counter of a plain structure of counters: its field `reads` becomes `group.reads`, a field of an inner
    /// structure `group.inner.reads`. Fields that are no numbers (histograms, tables) are left to the caller.
    pub fn take<T: Serialize>(&mut self, group: &str, counters: &T) {
        if let Ok(value) = serde_json::to_value(counters) {
            self.take_json(group, &value);
        }
    }

    /// The counters of a machine: its own, its caches', its memory controllers' and its DRAM's.
    pub fn of_machine(machine: &Machine) -> Values {
        let mut values = Values::default();
        let counts = machine.counts();
        values.take("machine", counts);
        for ((level, _), n) in LEVELS.iter().zip(counts.by_level) {
            values.set(&format!("machine.hits.{}", level_name(*level)), n);
        }
        let trace = machine.trace();
        let births = trace.births().len() as u64;
        values.set("machine.births", births);
        values.set("machine.deaths", trace.deaths().into());
        values.set("machine.live_poison", births.saturating_sub(trace.deaths().into()));
        values.set("machine.poison_locations", trace.poison_locations());
        let caches = machine.caches().stats();
        values.take("cache", caches);
        for row in &TRANSACTION_ROWS {
            let name = format!("cache.transactions.{:?}", row.transaction);
            values.set(&name, caches.transactions_of(row.transaction));
        }
        values.take("controller", machine.memory().stats());
        values.set("controller.births", births);
        values.of_dram(machine.dram());
        values
    }

    /// Adds the counters of DRAM and what is in it at this moment.
    pub fn of_dram(&mut self, dram: &Dram) {
        let stats = dram.stats();
        self.take("dram", &stats);
        self.set("dram.latency_samples", stats.read_latencies.total());
        self.take("dram.in_flight", &dram.in_flight());
    }

    fn take_json(&mut self, name: &str, value: &serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (field, value) in fields {
                    self.take_json(&format!("{name}.{field}"), value);
                }
            }
            serde_json::Value::Number(n) => {
                if let Some(n) = n.as_u64() {
                    self.set(name, n);
                }
            }
            _ => {}
        }
    }

    /// A value, if the run has it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.known.get(name).copied()
    }

    /// The values in the order of [`STATISTICS`].
    pub fn rows(&self) -> Vec<StatValue> {
        STATISTICS
            .iter()
            .filter_map(|row| {
                let value = self.get(row.name)?;
                Some(StatValue { name: row.name, value, unit: row.unit })
            })
            .collect()
    }

    /// Names that were given and are not in [`STATISTICS`]: a counter somebody added without defining it.
    pub fn unlisted(&self) -> &[String] {
        &self.unlisted
    }

    /// The sum of some values; none if the run does not have them all.
    fn sum(&self, names: &[&str]) -> Option<u128> {
        names.iter().try_fold(0u128, |sum, name| Some(sum + u128::from(self.get(name)?)))
    }

    /// The rules that do not hold, one line each; empty unless the simulator is broken. A rule is looked at if the run has
    /// all of its statistics; those that hold at rest only if `drained`.
    pub fn broken(&self, drained: bool) -> Vec<String> {
        RULES.iter().filter_map(|rule| self.violation(rule, drained)).collect()
    }

    /// Whether a rule is looked at for these values.
    pub fn applies(&self, rule: &Rule, drained: bool) -> bool {
        (drained || rule.when == When::Always)
            && self.sum(rule.left).is_some()
            && self.sum(rule.right).is_some()
    }

    fn violation(&self, rule: &Rule, drained: bool) -> Option<String> {
        if !self.applies(rule, drained) {
            return None;
        }
        let (left, right) = (self.sum(rule.left)?, self.sum(rule.right)?);
        let (holds, sign) = match rule.relation {
            Relation::Same => (left == right, "="),
            Relation::AtMost => (left <= right, "<="),
        };
        (!holds).then(|| {
            format!(
                "{}: {} {sign} {} does not hold: {left} against {right}",
                rule.name,
                rule.left.join(" + "),
                sum_text(rule.right)
            )
        })
    }
}

/// A sum as text; of nothing, 0.
fn sum_text(names: &[&str]) -> String {
    if names.is_empty() { "0".to_owned() } else { names.join(" + ") }
}

/// [`STATISTICS`] as a page of the book.
pub fn statistics_markdown() -> String {
    let mut out = String::from("| statistic | unit | definition |\n|---|---|---|\n");
    for row in STATISTICS {
        let _ = writeln!(out, "| `{}` | {} | {} |", row.name, row.unit, row.definition);
    }
    out
}

/// [`RULES`] as a page of the book.
pub fn rules_markdown() -> String {
    let mut out = String::from("| rule | | holds | why |\n|---|---|---|---|\n");
    for rule in RULES {
        let sign = match rule.relation {
            Relation::Same => "=",
            Relation::AtMost => "<=",
        };
        let when = match rule.when {
            When::Always => "always",
            When::Drained => "at rest",
        };
        let _ = writeln!(
            out,
            "| {} | `{} {sign} {}` | {when} | {} |",
            rule.name,
            rule.left.join(" + "),
            sum_text(rule.right),
            rule.why
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_every_row_says_something() {
        for (i, row) in STATISTICS.iter().enumerate() {
            assert!(row.name.contains('.'), "{} has no group", row.name);
            assert!(row.definition.len() > 8, "{}: {}", row.name, row.definition);
            assert!(STATISTICS[..i].iter().all(|o| o.name != row.name), "{} twice", row.name);
        }
        for (i, rule) in RULES.iter().enumerate() {
            assert!(!rule.why.is_empty() && !rule.left.is_empty());
            assert!(RULES[..i].iter().all(|o| o.name != rule.name), "{} twice", rule.name);
        }
    }

    #[test]
    fn every_rule_is_about_statistics_of_the_table_and_none_about_itself() {
        for rule in RULES {
            for name in rule.left.iter().chain(rule.right) {
                assert!(statistic(name).is_some(), "{}: {name} is no statistic", rule.name);
            }
            assert!(rule.left.iter().all(|name| !rule.right.contains(name)), "{}", rule.name);
        }
    }

    #[test]
    fn every_rule_is_seen_broken_when_one_of_its_counters_is_off_by_one() {
        for rule in RULES {
            for name in rule.left {
                let mut values = Values::default();
                rule.left.iter().chain(rule.right).for_each(|n| values.set(n, 0));
                assert_eq!(values.broken(true), [""; 0], "{} holds for zeros", rule.name);
                values.set(name, 1);
                let broken = values.broken(true);
                assert!(broken.iter().any(|b| b.starts_with(rule.name)), "{}: {name}", rule.name);
            }
        }
    }

    #[test]
    fn a_rule_whose_statistics_the_run_has_not_is_not_looked_at() {
        for rule in RULES {
            assert!(!Values::default().applies(rule, true), "{}", rule.name);
            for missing in rule.right {
                let mut values = Values::default();
                let rest = rule.left.iter().chain(rule.right).filter(|n| *n != missing);
                rest.for_each(|n| values.set(n, 1));
                assert!(!values.applies(rule, true), "{} without {missing}", rule.name);
            }
        }
    }

    #[test]
    fn a_counter_that_nobody_defined_is_named() {
        #[derive(Serialize)]
        struct Inner {
            made_up: u64,
        }
        let mut values = Values::default();
        values.take("dram", &Inner { made_up: 1 });
        assert_eq!(values.unlisted(), ["dram.made_up"]);
        assert_eq!(values.rows(), []);
    }
}
