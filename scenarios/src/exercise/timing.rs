//! Q1 to Q16: bare memories asked by a generator, before the judges of `verify::ddr5`.

use crate::commands::{CommandCheck, CommandSink, check_rules};
use crate::platform::{Origin, load};
use mktme::dram::timing::Parameter as P;
use mktme::dram::{Dram, Kind, Place, Request, SubchannelSpec};
use sim_core::prng::Prng;
use sim_core::{Line, Ps};
use std::collections::BTreeMap;
use verify::ddr5::Rules;
use verify::ddr5::run::{Crypto, Queue, QueueTotals, Row, RunChecker};
use verify::invariants::{Checker, Violation};

/// A memory of one package and channel, its first subchannel, and its rules.
struct Bare {
    dram: Dram,
    sub: SubchannelSpec,
    rules: Rules,
}

/// What went wrong in setting up is a violation of the check it was for.
type Made<T> = Result<T, String>;

fn text<E: ToString>(error: E) -> String {
    error.to_string()
}

fn bare(set: &[(&str, &str)]) -> Made<Bare> {
    let mut all = vec![("cpu.packages", "1"), ("dram.channels", "1")];
    all.extend(set);
    let set: Vec<_> = all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let platform = load(&Origin::Preset("spr".to_owned()), &set).map_err(|d| d.found.clone())?;
    let spec = platform.spec.dram;
    let sub = SubchannelSpec::of(&spec).map_err(text)?;
    let mut dram = Dram::new(&spec, 1).map_err(text)?;
    dram.record_commands(true);
    Ok(Bare { dram, sub, rules: check_rules(&sub)? })
}

impl Bare {
    fn check(&self) -> Made<CommandCheck> {
        CommandCheck::of_subchannels(&self.sub, 1, 1)
    }
    fn line(&self, bank_group: u8, row: u64, column: u16) -> Line {
        let at = Place { channel: 0, subchannel: 0, rank: 0, bank_group, bank: 0, row, column };
        self.dram.map().encode(&at)
    }
    fn clocks(&self, parameter: P) -> u64 {
        self.sub.timing.clocks(parameter).into()
    }
}

/// Every check of time: `requests` random requests in every organisation, and the runs whose outcome is known.
pub(crate) fn exercise(requests: u64, seed: u64, checker: &mut Checker) -> Vec<Violation> {
    let mut found = Vec::new();
    let organisations: [&[(&str, &str)]; 4] = [
        &[("dram.refresh", "all-bank"), ("dram.ranks", "1"), ("dram.refresh_hot", "true")],
        &[("dram.refresh", "same-bank"), ("dram.ranks", "2"), ("dram.page_policy", "closed")],
        &[("dram.grade", "ddr5-6400"), ("dram.page_policy", "adaptive")],
        &[("dram.grade", "ddr5-5600"), ("dram.density", "8Gb"), ("dram.ranks", "2")],
    ];
    for set in organisations {
        run("Q1", random(set, requests, seed, checker), &mut found);
    }
    run("Q11", unloaded(checker), &mut found);
    run("Q12", stream(checker), &mut found);
    run("Q15", clear(checker), &mut found);
    found
}

fn run(id: &'static str, made: Made<Vec<Violation>>, found: &mut Vec<Violation>) {
    match made {
        Ok(more) => found.extend(more),
        Err(what) => found.push(Violation { id, what }),
    }
}

/// Q1 to Q5, Q7 to Q10, Q13, Q14, Q16: random requests.
fn random(
    set: &[(&str, &str)],
    requests: u64,
    seed: u64,
    checker: &mut Checker,
) -> Made<Vec<Violation>> {
    let mut bare = bare(set)?;
    let mut check = bare.check()?;
    let tck = bare.sub.timing.tck();
    let bound = bound(&bare);
    let mut judge = RunChecker::new(Ps::ZERO, tck.times(bound));
    judge.parameters(&bare.rules);
    let mut rng = Prng::new(seed);
    let (mut reads, mut taken, mut events) = (Queue::new(), BTreeMap::new(), 0u64);
    let mut collect = |dram: &mut Dram,
                       judge: &mut RunChecker,
                       reads: &mut Queue,
                       taken: &mut BTreeMap<u64, Ps>| {
        while let Some(done) = dram.pop_completion() {
            judge.event(done.at, events);
            events += 1;
            judge.answer(done.id, done.at);
            if let Some(at) = taken.remove(&done.id) {
                reads.leave(done.at, at);
            }
        }
    };
    let dram = &mut bare.dram;
    let mut due = Ps::ZERO;
    for id in 0..requests {
        if rng.below(8) == 0 {
            due = due.max(dram.now()) + Ps(rng.below(400_000));
        }
        dram.advance(due);
        collect(dram, &mut judge, &mut reads, &mut taken);
        let kind = match rng.below(5) {
            0..=2 => Kind::Read,
            3 => Kind::Write,
            _ => Kind::PartialWrite,
        };
        let line = Line(rng.below(1 << 16));
        while !dram.can_accept(line, kind) {
            let next = dram.next_event().ok_or("a full queue has nothing to do")?;
            judge.scheduled(dram.now(), next);
            dram.advance(next);
            collect(dram, &mut judge, &mut reads, &mut taken);
        }
        let now = dram.now();
        dram.enqueue(Request { id, line, kind, at: now }).map_err(|e| format!("{e:?}"))?;
        judge.request(id, now);
        if kind == Kind::Read {
            reads.enter(now);
            taken.insert(id, now);
        }
        collect(dram, &mut judge, &mut reads, &mut taken);
    }
    dram.drain();
    collect(dram, &mut judge, &mut reads, &mut taken);
    let (end, stats, flying) = (dram.now(), dram.stats(), dram.in_flight());
    judge.finish(end, flying.queued_reads + flying.flying_reads);
    let seen = reads.totals(end);
    judge.little("reads", &QueueTotals { waited: stats.read_latency.0.into(), ..seen });
    let columns = stats.rds + stats.rdas + stats.wrs + stats.wras;
    let sub = bare.sub;
    let tail = u64::from(sub.timing.clocks(P::Cl)) + u64::from(sub.timing.clocks(P::HalfBurst));
    judge.bandwidth(&bare.rules, 2, 64 * columns, end + tck.times(tail));
    dram.advance(end + tck.times(3 * u64::from(sub.timing.clocks(P::Refi))));
    for record in dram.take_commands() {
        check.put(&record).map_err(text)?;
    }
    check.end(dram.now()).map_err(text)?;
    let mut found = checker.check_run(&judge);
    found.extend(checker.check_commands(check.checker()));
    Ok(found)
}

/// The longest that any request may take (Q16), in clocks: its age, and then all that both queues hold, each with a row
/// conflict and a turn of the bus, and all refreshes that were postponed.
fn bound(bare: &Bare) -> u64 {
    let sub = &bare.sub;
    let one: u64 = [P::Ras, P::Rp, P::Rcd, P::Cl, P::Cwl, P::HalfBurst, P::Wr, P::WtrL]
        .map(|p| bare.clocks(p))
        .iter()
        .sum();
    let entries = u64::from(sub.read_queue) + u64::from(sub.write_queue);
    let refreshes = u64::from(sub.geometry.ranks) * (u64::from(sub.refresh_postpone) + 2);
    u64::from(sub.read_age.max(sub.write_age))
        + one * (entries + 2)
        + refreshes * (bare.clocks(P::Rfc) + one)
}

/// Q6, Q11: reads long after one another, of a row that is open, closed, or in the way.
fn unloaded(checker: &mut Checker) -> Made<Vec<Violation>> {
    let set = [("dram.refresh", "off"), ("dram.page_policy", "open")];
    let mut bare = bare(&set)?;
    let mut check = bare.check()?;
    let tck = bare.sub.timing.tck();
    let mut judge = RunChecker::new(Ps::ZERO, Ps::HORIZON);
    let mut found = Vec::new();
    let reads = [(1, Row::Closed), (1, Row::Hit), (2, Row::Conflict), (2, Row::Hit)];
    for (id, (row, find)) in reads.into_iter().enumerate() {
        let clock = 1000 * (id as u64 + 1);
        let at = tck.times(clock);
        let line = bare.line(3, row, id as u16);
        let request = Request { id: id as u64, line, kind: Kind::Read, at };
        bare.dram.enqueue(request).map_err(|e| format!("{e:?}"))?;
        let done = bare.dram.next_completion().ok_or("a read was not answered")?;
        judge.unloaded(&bare.rules, find, Ps::ZERO, done.at.since(at));
        for command in bare.dram.take_commands() {
            let record = check.record(&command);
            let earliest = check.checker().earliest(&record).0.max(clock);
            found.extend(checker.check_tight(record.clock, earliest));
            check.put(&command).map_err(text)?;
        }
    }
    found.extend(checker.check_run(&judge));
    found.extend(checker.check_commands(check.checker()));
    Ok(found)
}

/// Q9, Q12: a stream of reads.
fn stream(checker: &mut Checker) -> Made<Vec<Violation>> {
    let set = [("dram.ranks", "1"), ("dram.refresh", "all-bank"), ("dram.refresh_postpone", "0")];
    let mut bare = bare(&set)?;
    let mut judge = RunChecker::new(Ps::ZERO, Ps::HORIZON);
    let end = bare.sub.timing.time(P::Refi).times(30);
    let mut bytes = 0;
    for id in 0u64.. {
        let line = bare.line((id % 8) as u8, id / 1024, (id / 8 % 128) as u16);
        let request = Request { id, line, kind: Kind::Read, at: Ps::ZERO };
        bare.dram.offer(request).map_err(|e| format!("{e:?}"))?;
        while let Some(done) = bare.dram.pop_completion() {
            bytes += if done.at <= end { 64 } else { 0 };
        }
        if bare.dram.now() > end {
            break;
        }
    }
    judge.streaming(&bare.rules, bytes, end);
    judge.bandwidth(&bare.rules, 1, bytes, end);
    Ok(checker.check_run(&judge))
}

/// Q15: clears are no faster than their bursts, and crypto latency is added once to every fill.
fn clear(checker: &mut Checker) -> Made<Vec<Violation>> {
    let mut bare = bare(&[])?;
    let mut judge = RunChecker::new(Ps::ZERO, Ps::HORIZON);
    let lines = 1024;
    for id in 0..lines {
        let request = Request { id, line: Line(id), kind: Kind::Write, at: Ps::ZERO };
        bare.dram.offer(request).map_err(|e| format!("{e:?}"))?;
    }
    judge.cleared(&bare.rules, lines, 2, bare.dram.drain());
    let fills = 4;
    let (latency, added) = super::runs::crypto(fills)?;
    judge.crypto(&Crypto { fills, latency, added });
    Ok(checker.check_run(&judge))
}
