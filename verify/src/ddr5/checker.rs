//! Judges commands one after the other against [`RULES`], in memory that does not grow with the trace: what is kept is the
//! last command of each kind per bank, bank group and rank.

use super::command::{Cmd, Place, Record};
use super::rules::{Param, Refresh, Rules};
use super::table::{Kind, RULES, Rule, Scope, index_of};
use std::collections::BTreeMap;
use std::fmt;

/// So many violations are kept; more are only counted.
pub const KEPT: usize = 64;
/// A trace may name so many subchannels.
pub const MAX_SUBCHANNELS: usize = 1024;

const TFAW: usize = index_of("tFAW");
const SLOTS: usize = index_of("command slots");
const OVERLAP: usize = index_of("data overlap");
const OTHER_RANK: usize = index_of("data rank");
const BANDWIDTH: usize = index_of("bandwidth");
const TIME: usize = index_of("time");
const ADDRESS: usize = index_of("address");
const ACT_OPEN: usize = index_of("ACT open");
const CLOSED: usize = index_of("column closed");
const WRONG_ROW: usize = index_of("column row");
const REFAB_OPEN: usize = index_of("REFab open");
const REFSB_OPEN: usize = index_of("REFsb open");
const MODE: usize = index_of("refresh mode");
const ORDER: usize = index_of("refresh order");
const LATE: usize = index_of("refresh late");

/// By how much a rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// The second command came `found` clocks after the first; it must come at least `needed` after it.
    Apart {
        /// Clocks from the start of the first to the start of the second.
        found: u64,
        /// What they must be at least.
        needed: u64,
    },
    /// The clock was `found`; it must be at most (a refresh) or at least (time) `needed`.
    Clock {
        /// What it was.
        found: u64,
        /// What it may be.
        needed: u64,
    },
    /// Not a matter of clocks.
    State,
}

/// A rule that a trace breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub rule: &'static Rule,
    /// The bus.
    pub place: Place,
    /// The command that it was broken against; `None` when there was none (no refresh yet, say).
    pub first: Option<Record>,
    /// The command that broke it; `None` at the end of the run.
    pub second: Option<Record>,
    /// By how much.
    pub detail: Detail,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}): ", self.rule.id, self.rule.check, self.rule.cite)?;
        match self.second {
            Some(second) => write!(f, "\"{second}\"")?,
            None => write!(f, "the end of {}", self.place)?,
        }
        match self.detail {
            Detail::Apart { found, needed } => {
                write!(f, " comes {found} clocks after, {needed} needed:")?;
            }
            Detail::Clock { found, needed } => {
                write!(f, ": clock {found}, bound {needed}; since")?;
            }
            Detail::State => write!(f, ": {}; since", self.rule.text)?,
        }
        match self.first {
            Some(first) => write!(f, " \"{first}\""),
            None => write!(f, " the start"),
        }
    }
}

/// The last command of each kind somewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Lasts([Option<Record>; Cmd::COUNT]);

impl Lasts {
    const fn set(&mut self, record: &Record) {
        self.0[record.cmd as usize] = Some(*record);
    }
    const fn get(&self, cmd: Cmd) -> Option<&Record> {
        self.0[cmd as usize].as_ref()
    }
}

/// A pair rule with its clocks worked out, among those of its second command.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pair {
    rule: usize,
    before: &'static [Cmd],
    scope: Scope,
    need: u64,
}

/// The rules worked out.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    rules: Rules,
    /// By second command.
    pairs: [Vec<Pair>; Cmd::COUNT],
    groups: usize,
    banks: usize,
    faw: u64,
    burst: u64,
}

impl Plan {
    fn new(rules: Rules) -> Plan {
        let mut pairs: [Vec<Pair>; Cmd::COUNT] = Default::default();
        for (rule, row) in RULES.iter().enumerate() {
            let Kind::Pair { before, after, scope, need } = row.kind else { continue };
            for cmd in after {
                let need = rules.sum(need);
                pairs[*cmd as usize].push(Pair { rule, before, scope, need });
            }
        }
        let groups = rules.get(Param::BankGroups) as usize;
        let banks = rules.get(Param::Banks) as usize;
        let (faw, burst) = (rules.get(Param::Tfaw), rules.get(Param::Burst));
        Plan { rules, pairs, groups, banks, faw, burst }
    }

    /// From a column command to its data.
    const fn latency(&self, cmd: Cmd) -> u64 {
        self.rules.get(if cmd.reads() { Param::Cl } else { Param::Cwl })
    }

    fn exists(&self, r: &Record) -> bool {
        let below = |value: u64, p: Param| value < self.rules.get(p);
        below(u64::from(r.rank), Param::Ranks)
            && below(u64::from(r.group), Param::BankGroups)
            && below(u64::from(r.bank), Param::Banks)
            && below(u64::from(r.row), Param::Rows)
            && below(u64::from(r.column), Param::Columns)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Bank {
    lasts: Lasts,
    open: Option<u32>,
}

/// The refreshes of a rank, or of one bank index of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Due {
    done: u64,
    /// The least of `clock of the i-th refresh - i·tREFI`, with a refresh number 0 at the start. However the controller
    /// lays its refreshes, none may be later than this by more than what may be postponed: then every window that
    /// begins at a refresh has its average, and an early one earns nothing.
    base: i128,
    last: Option<Record>,
    /// A violation was reported, and no refresh came since.
    overdue: bool,
}

impl Due {
    fn deadline(&self, rules: &Rules) -> u64 {
        let next = i128::from(self.done) + 1 + i128::from(rules.get(Param::Postpone));
        let at = self.base
            + next * i128::from(rules.get(Param::Trefi))
            + i128::from(rules.get(Param::RefreshSlack));
        u64::try_from(at.max(0)).unwrap_or(u64::MAX)
    }

    fn refreshed(&mut self, rules: &Rules, record: &Record) {
        self.done += 1;
        let base =
            i128::from(record.clock) - i128::from(self.done) * i128::from(rules.get(Param::Trefi));
        self.base = if self.overdue { base } else { base.min(self.base) };
        self.overdue = false;
        self.last = Some(*record);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rank {
    lasts: Lasts,
    groups: Vec<Lasts>,
    /// Bank by bank of the first group, then of the next.
    banks: Vec<Bank>,
    /// The last four ACTs; `acts[oldest]` is the fourth from the end.
    acts: [Option<Record>; 4],
    oldest: usize,
    due: Vec<Due>,
    /// Bank indices that had their REFsb in this round.
    round: u32,
}

impl Rank {
    fn new(plan: &Plan) -> Rank {
        let due = match plan.rules.refresh() {
            Refresh::AllBank => 1,
            Refresh::SameBank => plan.banks,
            Refresh::Off => 0,
        };
        Rank {
            lasts: Lasts::default(),
            groups: vec![Lasts::default(); plan.groups],
            banks: vec![Bank::default(); plan.groups * plan.banks],
            acts: [None; 4],
            oldest: 0,
            due: vec![Due::default(); due],
            round: 0,
        }
    }

    /// The banks that a command names one by one: one, of REFsb one per group, none of those that mean the rank.
    fn named(&self, plan: &Plan, r: &Record) -> (usize, usize, usize) {
        match r.cmd {
            Cmd::PreAb | Cmd::RefAb => (0, 0, 1),
            Cmd::RefSb => (usize::from(r.bank), self.banks.len(), plan.banks),
            _ => {
                let at = usize::from(r.group) * plan.banks + usize::from(r.bank);
                (at, at + 1, 1)
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Burst {
    record: Record,
    /// The first clock after it.
    end: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Subchannel {
    ranks: Vec<Rank>,
    last: Option<Record>,
    burst: Option<Burst>,
    bursts: u64,
    /// The greatest of `start of the i-th burst - i·BL/2`: where the window began that is the hardest to keep (Q9).
    window: i128,
    /// The first clock at which a refresh is overdue that is not yet known to be.
    due: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Log {
    witnesses: Vec<u64>,
    counts: Vec<u64>,
    total: u64,
    kept: Vec<Violation>,
}

impl Log {
    fn new() -> Log {
        let (witnesses, counts) = (vec![0; RULES.len()], vec![0; RULES.len()]);
        Log { witnesses, counts, total: 0, kept: Vec::with_capacity(KEPT) }
    }
    fn broken(
        &mut self,
        rule: usize,
        place: Place,
        (first, second): (Option<Record>, Option<Record>),
        detail: Detail,
    ) {
        self.counts[rule] += 1;
        self.total += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Violation { rule: &RULES[rule], place, first, second, detail });
        }
    }
    /// A rule about states had something to say; `holds` is whether it held.
    fn claim(&mut self, rule: usize, holds: bool, first: Option<Record>, second: &Record) {
        self.witnesses[rule] += 1;
        if !holds {
            self.broken(rule, second.place, (first, Some(*second)), Detail::State);
        }
    }
}

impl Subchannel {
    fn new(plan: &Plan) -> Subchannel {
        let ranks = vec![Rank::new(plan); plan.rules.get(Param::Ranks) as usize];
        let mut new = Subchannel {
            ranks,
            last: None,
            burst: None,
            bursts: 0,
            window: i128::MIN,
            due: u64::MAX,
        };
        new.find_due(plan);
        new
    }

    fn find_due(&mut self, plan: &Plan) {
        let all = self.ranks.iter().flat_map(|r| &r.due).filter(|d| !d.overdue);
        self.due = all.map(|d| d.deadline(&plan.rules)).min().unwrap_or(u64::MAX);
    }

    /// Every timing rule that has something to say about this command: rule, the command before, the first clock it may come.
    fn needs(&self, plan: &Plan, r: &Record, mut say: impl FnMut(usize, &Record, u64)) {
        if let Some(last) = &self.last {
            say(SLOTS, last, last.clock + last.cmd.slots());
        }
        if let Some(rank) = self.ranks.get(usize::from(r.rank)) {
            let (from, to, by) = rank.named(plan, r);
            for pair in &plan.pairs[r.cmd as usize] {
                let mut look = |lasts: &Lasts| {
                    for cmd in pair.before {
                        if let Some(first) = lasts.get(*cmd) {
                            say(pair.rule, first, first.clock + pair.need);
                        }
                    }
                };
                match pair.scope {
                    Scope::Rank => look(&rank.lasts),
                    Scope::Group => {
                        rank.groups.get(usize::from(r.group)).into_iter().for_each(look);
                    }
                    Scope::Bank => {
                        let banks = rank.banks.get(from..to).unwrap_or(&[]);
                        banks.iter().step_by(by).for_each(|bank| look(&bank.lasts));
                    }
                }
            }
            if r.cmd == Cmd::Act
                && let Some(first) = rank.acts.get(rank.oldest).and_then(Option::as_ref)
            {
                say(TFAW, first, first.clock + plan.faw);
            }
        }
        if (r.cmd.reads() || r.cmd.writes())
            && let Some(burst) = &self.burst
        {
            let latency = plan.latency(r.cmd);
            let mut after = |rule, gap: u64| {
                say(rule, &burst.record, (burst.end + gap).saturating_sub(latency));
            };
            after(OVERLAP, 0);
            if burst.record.rank != r.rank {
                after(OTHER_RANK, plan.rules.get(Param::GapRank));
            }
        }
    }

    fn check(&mut self, plan: &Plan, r: &Record, log: &mut Log) {
        if let Some(last) = &self.last {
            log.witnesses[TIME] += 1;
            if r.clock < last.clock {
                let detail = Detail::Clock { found: r.clock, needed: last.clock };
                return log.broken(TIME, r.place, (Some(*last), Some(*r)), detail);
            }
        }
        log.claim(ADDRESS, plan.exists(r), self.last, r);
        if !plan.exists(r) {
            self.last = Some(*r);
            return;
        }
        self.needs(plan, r, |rule, first, ready| {
            log.witnesses[rule] += 1;
            if r.clock < ready {
                let found = r.clock.saturating_sub(first.clock);
                let needed = ready.saturating_sub(first.clock);
                let detail = Detail::Apart { found, needed };
                log.broken(rule, r.place, (Some(*first), Some(*r)), detail);
            }
        });
        if r.clock > self.due {
            self.overdue(plan, r.place, r.clock, Some(*r), log);
        }
        self.last = Some(*r);
        if r.cmd.reads() || r.cmd.writes() {
            self.data(plan, r, log);
        }
        let Some(rank) = self.ranks.get_mut(usize::from(r.rank)) else { return };
        rank.states(plan, r, log);
        if matches!(r.cmd, Cmd::RefAb | Cmd::RefSb) {
            rank.refresh(plan, r, log);
            self.find_due(plan);
        }
    }

    /// Notes the burst of a column command, and checks the bandwidth.
    fn data(&mut self, plan: &Plan, r: &Record, log: &mut Log) {
        let start = r.clock + plan.latency(r.cmd);
        let window = i128::from(start) - i128::from(self.bursts) * i128::from(plan.burst);
        if let Some(before) = &self.burst {
            log.claim(BANDWIDTH, window >= self.window, Some(before.record), r);
        }
        self.window = window;
        self.bursts += 1;
        self.burst = Some(Burst { record: *r, end: start + plan.burst });
    }

    /// Reports every refresh that should have come before `clock`.
    fn overdue(
        &mut self,
        plan: &Plan,
        place: Place,
        clock: u64,
        second: Option<Record>,
        log: &mut Log,
    ) {
        for due in self.ranks.iter_mut().flat_map(|r| &mut r.due) {
            let needed = due.deadline(&plan.rules);
            if clock > needed && !due.overdue {
                due.overdue = true;
                log.witnesses[LATE] += 1;
                let detail = Detail::Clock { found: clock, needed };
                log.broken(LATE, place, (due.last, second), detail);
            }
        }
        self.find_due(plan);
    }
}

impl Rank {
    /// Whether banks are open that must be, and what the command makes of them.
    fn states(&mut self, plan: &Plan, r: &Record, log: &mut Log) {
        let (from, to, by) = self.named(plan, r);
        match r.cmd {
            Cmd::PreAb | Cmd::RefAb => {
                if r.cmd == Cmd::PreAb {
                    self.banks.iter_mut().for_each(|b| b.open = None);
                } else {
                    let open = self.banks.iter().find(|b| b.open.is_some());
                    let act = open.and_then(|b| b.lasts.get(Cmd::Act)).copied();
                    log.claim(REFAB_OPEN, open.is_none(), act, r);
                }
            }
            Cmd::RefSb => {
                let banks = self.banks.get_mut(from..to).unwrap_or_default();
                let open = banks.iter().step_by(by).find(|b| b.open.is_some());
                let act = open.and_then(|b| b.lasts.get(Cmd::Act)).copied();
                log.claim(REFSB_OPEN, open.is_none(), act, r);
                banks.iter_mut().step_by(by).for_each(|b| b.lasts.set(r));
            }
            _ => {
                let Some(bank) = self.banks.get_mut(from) else { return };
                let act = bank.lasts.get(Cmd::Act).copied();
                match r.cmd {
                    Cmd::Act => {
                        log.claim(ACT_OPEN, bank.open.is_none(), act, r);
                        bank.open = Some(r.row);
                        if let Some(slot) = self.acts.get_mut(self.oldest) {
                            *slot = Some(*r);
                        }
                        self.oldest = (self.oldest + 1) % self.acts.len();
                    }
                    Cmd::Pre => bank.open = None,
                    _ => {
                        log.claim(CLOSED, bank.open.is_some(), act, r);
                        if let Some(open) = bank.open {
                            log.claim(WRONG_ROW, open == r.row, act, r);
                        }
                        if matches!(r.cmd, Cmd::Rda | Cmd::Wra) {
                            bank.open = None;
                        }
                    }
                }
                bank.lasts.set(r);
                if let Some(group) = self.groups.get_mut(usize::from(r.group)) {
                    group.set(r);
                }
            }
        }
        self.lasts.set(r);
    }

    fn refresh(&mut self, plan: &Plan, r: &Record, log: &mut Log) {
        let all = r.cmd == Cmd::RefAb;
        let fits = match plan.rules.refresh() {
            Refresh::AllBank => all,
            Refresh::SameBank => true,
            Refresh::Off => false,
        };
        log.claim(MODE, fits, None, r);
        if !fits {
            return;
        }
        if all {
            self.round = 0;
        } else {
            let bit = 1 << (u32::from(r.bank) % u32::BITS);
            let last = self.due.get(usize::from(r.bank)).and_then(|d| d.last);
            log.claim(ORDER, self.round & bit == 0, last, r);
            let whole = (1u64 << plan.banks) - 1;
            self.round |= bit;
            if u64::from(self.round) == whole {
                self.round = 0;
            }
        }
        for (i, due) in self.due.iter_mut().enumerate() {
            if all || i == usize::from(r.bank) {
                log.witnesses[LATE] += 1;
                due.refreshed(&plan.rules, r);
            }
        }
    }
}

/// Judges a trace command by command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checker {
    plan: Plan,
    subchannels: BTreeMap<Place, Subchannel>,
    log: Log,
    commands: u64,
}

impl Checker {
    /// A checker that has seen nothing. The run starts at clock 0.
    pub fn new(rules: Rules) -> Checker {
        let plan = Plan::new(rules);
        Checker { plan, subchannels: BTreeMap::new(), log: Log::new(), commands: 0 }
    }

    /// Expects refreshes on this subchannel even if no command of it ever comes.
    pub fn watch(&mut self, place: Place) {
        let plan = &self.plan;
        self.subchannels.entry(place).or_insert_with(|| Subchannel::new(plan));
    }

    /// Judges the next command of its subchannel; whether it broke nothing.
    pub fn check(&mut self, record: &Record) -> bool {
        let before = self.log.total;
        self.commands += 1;
        if !self.subchannels.contains_key(&record.place) {
            if self.subchannels.len() >= MAX_SUBCHANNELS {
                self.log.claim(ADDRESS, false, None, record);
                return false;
            }
            self.watch(record.place);
        }
        if let Some(subchannel) = self.subchannels.get_mut(&record.place) {
            subchannel.check(&self.plan, record, &mut self.log);
        }
        self.log.total == before
    }

    /// The run ended at this clock; whether no refresh is missing at its end.
    pub fn finish(&mut self, end: u64) -> bool {
        let before = self.log.total;
        for (place, subchannel) in &mut self.subchannels {
            if let Some(last) = subchannel.last
                && end < last.clock
            {
                let detail = Detail::Clock { found: end, needed: last.clock };
                self.log.broken(TIME, *place, (Some(last), None), detail);
            }
            if end > subchannel.due {
                subchannel.overdue(&self.plan, *place, end, None, &mut self.log);
            }
        }
        self.log.total == before
    }

    /// The first clock at which the timing rules allow this command (its own clock is not looked at), and the rule that
    /// says so. Rules about states and refresh have no say.
    pub fn earliest(&self, record: &Record) -> (u64, Option<&'static Rule>) {
        let mut found = (0, None);
        if let Some(subchannel) = self.subchannels.get(&record.place) {
            subchannel.needs(&self.plan, record, |rule, _, ready| {
                if ready > found.0 {
                    found = (ready, RULES.get(rule));
                }
            });
        }
        found
    }

    /// Commands that were judged.
    pub const fn commands(&self) -> u64 {
        self.commands
    }
    /// The clock of the last command of all.
    pub fn last_clock(&self) -> u64 {
        self.subchannels.values().filter_map(|s| s.last).map(|r| r.clock).max().unwrap_or(0)
    }
    /// How many rules were broken, counted each time.
    pub const fn total(&self) -> u64 {
        self.log.total
    }
    /// The first [`KEPT`] violations.
    pub fn violations(&self) -> &[Violation] {
        &self.log.kept
    }
    /// Each rule with how often it had something to say, and how often it was broken.
    pub fn tally(&self) -> impl Iterator<Item = (&'static Rule, u64, u64)> {
        let counts = self.log.witnesses.iter().zip(&self.log.counts);
        RULES.iter().zip(counts).map(|(rule, (witnesses, broken))| (rule, *witnesses, *broken))
    }
}
