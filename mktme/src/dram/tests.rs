//! The controller as a whole, judged by a checker that reads nothing but (time, command, place).

use super::timing::Parameter as P;
use super::*;
use proptest::prelude::*;
use sim_core::platform::{
    CcdLWrRule, Density, DeviceWidth, FawRule, PagePolicy, RefreshMode, RrdLRule, SpeedBin,
    SpeedGrade,
};
use sim_core::prng::Prng;
use std::collections::BTreeMap;

pub(super) fn spec() -> DramSpec {
    DramSpec {
        grade: SpeedGrade::Ddr5_4800,
        bin: SpeedBin::B,
        width: DeviceWidth::X4,
        density: Density::Gb16,
        channels: 8,
        ranks: 2,
        faw: FawRule::Clocks32,
        ccd_l_wr: CcdLWrRule::Ns20,
        rrd_l: RrdLRule::Ns5,
        refresh: RefreshMode::Off,
        refresh_hot: false,
        refresh_postpone: 4,
        read_queue: 64,
        write_queue: 64,
        write_high: 48,
        write_low: 16,
        read_age: 4096,
        write_age: 16384,
        page_policy: PagePolicy::Open,
        map: "hashed".to_owned(),
        watchdog: 1 << 20,
    }
}

/// One channel of few banks and short queues: much happens in little traffic.
fn small() -> DramSpec {
    DramSpec { channels: 1, read_queue: 6, write_queue: 8, write_high: 6, write_low: 2, ..spec() }
}

/// Few banks and rows of four lines, for [`small`].
fn few(ranks: u8) -> Organisation {
    Organisation { ranks, bank_groups: 2, banks_per_group: 2, rows: 1 << 16, columns: 64 }
}

fn small_subchannel(spec: &DramSpec) -> SubchannelSpec {
    SubchannelSpec { geometry: few(spec.ranks), ..SubchannelSpec::of(spec).unwrap() }
}

// ---- The checker -----------------------------------------------------------------------------------------------------

/// What of a subchannel's parameters bears on legality.
struct Rules<'a> {
    sub: &'a SubchannelSpec,
    /// The end of the run.
    end: Ps,
}

/// JEDEC rules for pairs of commands, written out by hand: no table of the model, only its parameters.
fn check_commands(rules: &Rules, commands: &[CommandRecord]) -> Result<(), String> {
    let mut by_subchannel: BTreeMap<_, Vec<&CommandRecord>> = BTreeMap::new();
    for c in commands {
        by_subchannel.entry((c.package, c.place.channel, c.place.subchannel)).or_default().push(c);
    }
    for list in by_subchannel.values() {
        check_subchannel(&rules.sub.timing, list)?;
        check_refreshes(rules, list)?;
    }
    Ok(())
}

/// Refresh number n of a rank is out after n intervals and those that may be postponed (verification.md §2.11 Q8).
fn check_refreshes(rules: &Rules, commands: &[&CommandRecord]) -> Result<(), String> {
    let t = |p| u64::from(rules.sub.timing.clocks(p));
    let (command, interval, banks) = match rules.sub.refresh {
        RefreshMode::Off => {
            let found =
                commands.iter().find(|c| matches!(c.command, Command::RefAb | Command::RefSb));
            return found.map_or(Ok(()), |c| Err(format!("{c:?} although refresh is off")));
        }
        RefreshMode::AllBank => (Command::RefAb, t(P::Refi), 1),
        RefreshMode::SameBank => {
            let banks = u64::from(rules.sub.geometry.banks_per_group);
            (Command::RefSb, t(P::Refi2) / banks, banks)
        }
    };
    let end = rules.end.0 / rules.sub.timing.tck().0;
    let late = u64::from(rules.sub.refresh_postpone);
    for rank in 0..rules.sub.geometry.ranks {
        let mut count = 0;
        for c in commands.iter().filter(|c| c.command == command && c.place.rank == rank) {
            let edge = c.at.0 / rules.sub.timing.tck().0;
            if command == Command::RefSb && u64::from(c.place.bank) != count % banks {
                return Err(format!("{c:?} out of turn"));
            }
            count += 1;
            if edge > (count + late) * interval {
                return Err(format!("{c:?} is number {count} of rank {rank}, at clock {edge}"));
            }
            if edge + 2 * interval < count * interval {
                return Err(format!("{c:?} is number {count} of rank {rank}, already at {edge}"));
            }
        }
        if (count + 1 + late) * interval < end {
            return Err(format!("rank {rank} has {count} refreshes after {end} clocks"));
        }
    }
    Ok(())
}

fn check_subchannel(timing: &Timing, commands: &[&CommandRecord]) -> Result<(), String> {
    use Command::{Act, Pre, PreAb, Rd, Rda, RefAb, RefSb, Wr, Wra};
    let t = |p| i64::from(timing.clocks(p));
    let (cl, cwl, burst) = (t(P::Cl), t(P::Cwl), t(P::HalfBurst));
    let data = |c: Command| match c {
        Rd | Rda => Some(cl),
        Wr | Wra => Some(cwl),
        _ => None,
    };
    // From a column command until the row may be closed.
    let close = |c: Command| if c.writes() { cwl + burst + t(P::Wr) } else { t(P::Rtp) };
    // Nothing reaches further back than this.
    let horizon =
        [P::Rc, P::Faw, P::CcdLWr, P::Ras, P::Rp, P::Rfc, P::RfcSb].map(t).iter().sum::<i64>()
            + cwl
            + burst
            + t(P::Wr);
    let mut rows: BTreeMap<(u8, u8, u8), u64> = BTreeMap::new();
    let edge = |c: &CommandRecord| (c.at.0 / timing.tck().0) as i64;
    for (i, b) in commands.iter().enumerate() {
        if b.at.0 % timing.tck().0 != 0 {
            return Err(format!("{b:?} between two clock edges"));
        }
        let key = (b.place.rank, b.place.bank_group, b.place.bank);
        let open = rows.get(&key).copied();
        let fits = match b.command {
            Act => open.is_none(),
            Pre | Rd | Wr | Rda | Wra => open == Some(b.place.row),
            PreAb => true,
            RefAb => rows.keys().all(|k| k.0 != b.place.rank),
            RefSb => rows.keys().all(|k| (k.0, k.2) != (b.place.rank, b.place.bank)),
        };
        if !fits {
            return Err(format!("{b:?} with open row {open:?}"));
        }
        match b.command {
            Act => _ = rows.insert(key, b.place.row),
            Pre | Rda | Wra => _ = rows.remove(&key),
            PreAb => rows.retain(|k, _| k.0 != b.place.rank),
            _ => {}
        }
        let mut acts = 0;
        for a in commands[..i].iter().rev() {
            let gap = edge(b) - edge(a);
            if gap > horizon {
                break;
            }
            let rank = a.place.rank == b.place.rank;
            let group = rank && a.place.bank_group == b.place.bank_group;
            let number = rank && a.place.bank == b.place.bank;
            let bank = group && a.place.bank == b.place.bank;
            let pick = |l, s| if group { t(l) } else { t(s) };
            let slots = |c: Command| if c.two_slots() { 2 } else { 1 };
            let mut need = vec![slots(a.command)];
            // Between last slots: one clock more when one slot follows two.
            let longer = i64::from(a.command.two_slots() && !b.command.two_slots());
            let mut apart = |clocks: i64| need.push(clocks + longer);
            match (a.command, b.command) {
                (Act, Act) if rank => {
                    acts += 1;
                    apart(pick(P::RrdL, P::RrdS));
                    if acts == 4 {
                        apart(t(P::Faw));
                    }
                    if bank {
                        apart(t(P::Rc));
                    }
                }
                (Act, Pre) if bank => apart(t(P::Ras)),
                (Act, PreAb) if rank => apart(t(P::Ras)),
                (Act, RefAb) if rank => apart(t(P::Rc)),
                (Act, RefSb) if rank => apart(if number { t(P::Rc) } else { t(P::RrdL) }),
                (Act, Rd | Wr | Rda | Wra) if bank => apart(t(P::Rcd)),
                (Pre, Act) if bank => apart(t(P::Rp)),
                (Pre, RefSb) if number => apart(t(P::Rp)),
                (PreAb, Act | RefSb | RefAb) | (Pre, RefAb) if rank => apart(t(P::Rp)),
                (Pre | PreAb, Pre | PreAb) if rank => apart(t(P::Ppd)),
                (Rd | Wr, Pre) if bank => apart(close(a.command)),
                (Rd | Wr | Rda | Wra, PreAb) if rank => apart(close(a.command)),
                (Rda | Wra, Act) if bank => apart(close(a.command) + t(P::Rp)),
                (Rda | Wra, RefSb) if number => apart(close(a.command) + t(P::Rp)),
                (Rda | Wra, RefAb) if rank => apart(close(a.command) + t(P::Rp)),
                (Rd | Rda, Rd | Rda) if rank => apart(pick(P::CcdL, P::CcdS)),
                (Wr | Wra, Wr | Wra) if rank => apart(pick(P::CcdLWr, P::CcdSWr)),
                (Wr | Wra, Rd | Rda) if rank => apart(cwl + burst + pick(P::WtrL, P::WtrS)),
                (RefAb, Act | Pre | PreAb | RefAb | RefSb) if rank => apart(t(P::Rfc)),
                (RefSb, Act | RefSb) if number => apart(t(P::RfcSb)),
                (RefSb, Act | RefSb) if rank => apart(t(P::RefSbRd)),
                (RefSb, PreAb | RefAb) if rank => apart(t(P::RfcSb)),
                _ => {}
            }
            if let (Some(first), Some(second)) = (data(a.command), data(b.command)) {
                // Bursts do not overlap, and the bus rests when the rank or the direction changes. Write to read in one
                // rank is covered by tWTR.
                let rest = match (rank, a.command.writes(), b.command.writes()) {
                    (false, ..) => t(P::Cs),
                    (true, false, true) => t(P::RtwGap),
                    _ => 0,
                };
                let free = first + burst + rest;
                if gap + second < free {
                    return Err(format!("data of {a:?} and {b:?} overlap or touch"));
                }
            }
            if let Some(need) = need.into_iter().find(|&n| gap < n) {
                return Err(format!("{a:?} to {b:?}: {gap} clocks, {need} needed"));
            }
        }
    }
    Ok(())
}

// ---- Traffic ---------------------------------------------------------------------------------------------------------

/// A step of random traffic.
#[derive(Clone, Copy, Debug)]
struct Step {
    line: u64,
    kind: Kind,
    /// Picoseconds after the last request.
    gap: u64,
}

fn steps(lines: u64, count: usize) -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        3 => Just(Kind::Read),
        2 => Just(Kind::Write),
        1 => Just(Kind::PartialWrite),
    ];
    let gap = prop_oneof![40 => Just(0u64), 40 => 0u64..4_000, 10 => 0u64..200_000, 1 => 0u64..40_000_000];
    let step = (0..lines, kind, gap).prop_map(|(line, kind, gap)| Step { line, kind, gap });
    prop::collection::vec(step, 1..count)
}

/// Any legal configuration: grade, shape, row policy, refresh, queues, watermarks, ages. Refreshes come often.
fn variants() -> impl Strategy<Value = (DramSpec, SubchannelSpec)> {
    let grade = prop_oneof![
        Just(SpeedGrade::Ddr5_4800),
        Just(SpeedGrade::Ddr5_5200),
        Just(SpeedGrade::Ddr5_5600),
        Just(SpeedGrade::Ddr5_6400),
    ];
    let policy = prop_oneof![
        2 => Just(PagePolicy::Open),
        1 => Just(PagePolicy::Closed),
        1 => Just(PagePolicy::Adaptive),
    ];
    let refresh = prop_oneof![
        1 => Just(RefreshMode::Off),
        2 => Just(RefreshMode::AllBank),
        2 => Just(RefreshMode::SameBank),
    ];
    let age = prop_oneof![Just((4096u32, 16384u32)), (50u32..600, 50u32..600)];
    let shape = (0u32..3, 0u32..4, 0u32..3, 6u32..9);
    let queues = prop_oneof![3 => Just((6u16, 8u16, 6u16)), 1 => (1u16..20, 2u16..20, 1u16..20)];
    let numbers = (0u16..3, prop::bool::ANY, 0u8..5, prop::bool::ANY);
    (grade, policy, refresh, age, shape, queues, numbers).prop_map(
        |(
            grade,
            page_policy,
            refresh,
            age,
            shape,
            queues,
            (write_low, tight_faw, postpone, often),
        )| {
            let (ranks, bank_groups, banks_per_group, columns) = shape;
            let (read_queue, write_queue, high) = queues;
            let write_high = high.clamp(1, write_queue);
            let spec = DramSpec {
                grade,
                page_policy,
                refresh,
                refresh_postpone: postpone,
                ranks: 1 << ranks,
                read_queue,
                write_queue,
                write_high,
                write_low: write_low.min(write_high - 1),
                ..small()
            };
            let geometry = Organisation {
                ranks: 1 << ranks,
                bank_groups: 1 << bank_groups,
                banks_per_group: 1 << banks_per_group,
                rows: 1 << 16,
                columns: 1 << columns,
            };
            let mut sub = SubchannelSpec { geometry, ..SubchannelSpec::of(&spec).unwrap() };
            (sub.read_age, sub.write_age) = age;
            if tight_faw {
                sub.timing = sub.timing.with(P::Faw, 48);
            }
            if often {
                let t = sub.timing.with(P::Rfc, 200).with(P::RfcSb, 90).with(P::RefSbRd, 20);
                sub.timing = t.with(P::Refi, 3500).with(P::Refi2, 3000);
            }
            (spec, sub)
        },
    )
}

/// Everything a run shows.
#[derive(PartialEq, Debug)]
struct Shown {
    completions: Vec<Completion>,
    commands: Vec<CommandRecord>,
    stats: DramStats,
    end: Ps,
}

fn show(mut dram: Dram, mut completions: Vec<Completion>) -> Shown {
    dram.check_conservation().unwrap();
    let end = dram.drain();
    dram.check_conservation().unwrap();
    while let Some(c) = dram.pop_completion() {
        completions.push(c);
    }
    Shown { completions, commands: dram.take_commands(), stats: dram.stats(), end }
}

/// Equal, or the first difference.
fn same(a: &Shown, b: &Shown) -> Result<(), TestCaseError> {
    for (x, y) in a.commands.iter().zip(&b.commands) {
        prop_assert_eq!(x, y);
    }
    for (x, y) in a.completions.iter().zip(&b.completions) {
        prop_assert_eq!(x, y);
    }
    prop_assert_eq!((&a.stats, a.end), (&b.stats, b.end));
    prop_assert!(a == b);
    Ok(())
}

fn dram((spec, sub): &(DramSpec, SubchannelSpec)) -> Dram {
    let mut dram = Dram::with_subchannels(spec, 1, *sub).unwrap();
    dram.record_commands(true);
    dram
}

/// Offers all steps in order, each at its time or as soon after as there is room, moving time only as `advance` says.
fn offer(dram: &mut Dram, steps: &[Step], mut advance: impl FnMut(&mut Dram, Ps)) {
    let mut at = Ps::ZERO;
    for (id, step) in (0u64..).zip(steps) {
        at += Ps(step.gap);
        at = at.max(dram.now());
        advance(dram, at);
        let request = Request { id, line: Line(step.line), kind: step.kind, at };
        while dram.enqueue(request).is_err() {
            let next = dram.next_event().expect("a full queue has something to do");
            advance(dram, next);
        }
        at = dram.now();
    }
}

fn jump(dram: &mut Dram, to: Ps) {
    dram.advance(to);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_traffic_obeys_the_checker_and_answers_every_request_once(
        variant in variants(), steps in steps(512, 150),
    ) {
        let mut dram = dram(&variant);
        offer(&mut dram, &steps, jump);
        let shown = show(dram, Vec::new());
        check_commands(&Rules { sub: &variant.1, end: shown.end }, &shown.commands).map_err(TestCaseError::fail)?;

        let mut ids: Vec<u64> = shown.completions.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        prop_assert!(ids.iter().copied().eq(0..steps.len() as u64));
        prop_assert!(shown.completions.windows(2).all(|w| w[0].at <= w[1].at));
        for c in &shown.completions {
            prop_assert_eq!(c.kind, steps[c.id as usize].kind);
        }

        let s = shown.stats;
        let count = |kind| steps.iter().filter(|s| s.kind == kind).count() as u64;
        let issued = |c| shown.commands.iter().filter(|r| r.command == c).count() as u64;
        prop_assert_eq!(s.reads, count(Kind::Read));
        prop_assert_eq!(s.writes, count(Kind::Write));
        prop_assert_eq!(s.partial_writes, count(Kind::PartialWrite));
        prop_assert_eq!(issued(Command::Rd) + issued(Command::Rda), s.reads - s.forwarded + s.underfills);
        prop_assert_eq!(issued(Command::Wr) + issued(Command::Wra), s.writes + s.partial_writes - s.merged);
        for (command, count) in [
            (Command::Act, s.acts), (Command::Pre, s.pres), (Command::PreAb, s.pre_alls), (Command::Rd, s.rds),
            (Command::Wr, s.wrs), (Command::Rda, s.rdas), (Command::Wra, s.wras), (Command::RefAb, s.refresh_all),
            (Command::RefSb, s.refresh_same),
        ] {
            prop_assert_eq!(issued(command), count, "{}", command);
        }
        prop_assert_eq!(s.commands(), shown.commands.len() as u64);
        prop_assert!(s.reads_done == s.reads && s.underfills_done == s.underfills);
    }

    #[test]
    fn one_jump_many_small_steps_and_every_clock_edge_show_the_same(
        variant in variants(), steps in steps(256, 100), small in 1u64..5_000,
    ) {
        let mut jumping = dram(&variant);
        offer(&mut jumping, &steps, jump);

        let mut walking = dram(&variant);
        let mut popped = Vec::new();
        offer(&mut walking, &steps, |dram, to| {
            while dram.now() < to {
                dram.advance((dram.now() + Ps(small)).min(to));
                dram.advance(dram.now());
                popped.extend(std::iter::from_fn(|| dram.pop_completion()));
            }
            dram.advance(to);
        });

        let mut ticking = dram(&variant);
        ticking.look_at_every_edge(true);
        offer(&mut ticking, &steps, jump);

        let jumped = show(jumping, Vec::new());
        same(&show(walking, popped), &jumped).map_err(|e| TestCaseError::fail(format!("walk {e}")))?;
        same(&show(ticking, Vec::new()), &jumped)?;
    }

    /// Nothing is recorded here, so idle stretches are skipped in one go.
    #[test]
    fn offering_at_once_shows_the_same_as_trying_again_at_every_event(
        variant in variants(), mut steps in steps(256, 100), long in prop::collection::vec((0usize..100, 0u64..400_000_000), 3),
    ) {
        for (at, gap) in long {
            if let Some(step) = steps.get_mut(at) {
                step.gap = gap;
            }
        }
        let quiet = || Dram::with_subchannels(&variant.0, 1, variant.1).unwrap();
        let mut trying = quiet();
        offer(&mut trying, &steps, jump);
        let mut ticking = quiet();
        ticking.look_at_every_edge(true);
        let mut offering = quiet();
        for dram in [&mut ticking, &mut offering] {
            let mut at = Ps::ZERO;
            for (id, step) in (0u64..).zip(&steps) {
                at = dram.now().max(at + Ps(step.gap));
                at = dram.offer(Request { id, line: Line(step.line), kind: step.kind, at }).unwrap();
                prop_assert_eq!(at, dram.now());
            }
        }
        let mut one_by_one = offering.clone();
        let popped: Vec<_> = std::iter::from_fn(|| one_by_one.next_completion()).collect();
        let want = show(trying, Vec::new());
        prop_assert_eq!(&popped, &want.completions);
        same(&show(offering, Vec::new()), &want)?;
        same(&show(one_by_one, popped), &want)?;
        same(&show(ticking, Vec::new()), &want).map_err(|e| TestCaseError::fail(format!("tick {e}")))?;
    }

    /// [`Dram::offer_to`] against [`Dram::offer`], request by request.
    #[test]
    fn completions_handed_on_at_once_are_those_that_wait_to_be_taken(
        variant in variants(), steps in steps(256, 100),
    ) {
        let (mut waiting, mut handing) = (dram(&variant), dram(&variant));
        let mut latest = vec![Ps::ZERO; waiting.subchannels().len()];
        for (id, step) in (0u64..).zip(&steps) {
            let at = waiting.now() + Ps(step.gap);
            let request = Request { id, line: Line(step.line), kind: step.kind, at };
            let mut handed = Vec::new();
            let taken = handing.offer_to(request, |done| handed.push(done)).unwrap();
            prop_assert_eq!(waiting.offer(request).unwrap(), taken);
            for done in &handed {
                let (of, _) = waiting.map().spot(Line(steps[done.id as usize].line));
                prop_assert!(latest[of] <= done.at, "of one subchannel in order of time");
                latest[of] = done.at;
            }
            let mut popped: Vec<_> = std::iter::from_fn(|| waiting.pop_completion()).collect();
            handed.sort_by_key(|done| (done.at, done.id));
            popped.sort_by_key(|done| (done.at, done.id));
            prop_assert_eq!(handed, popped);
            prop_assert!(waiting == handing);
        }
    }

    #[test]
    fn a_saved_and_restored_state_has_the_same_future(
        variant in variants(), first in steps(128, 40), second in steps(128, 40),
    ) {
        let mut dram = dram(&variant);
        offer(&mut dram, &first, jump);
        let bytes = postcard::to_stdvec(&dram).unwrap();
        let mut restored: Dram = postcard::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&restored, &dram);
        offer(&mut dram, &second, jump);
        offer(&mut restored, &second, jump);
        same(&show(restored, Vec::new()), &show(dram, Vec::new()))?;
    }

    #[test]
    fn the_masks_kept_up_to_date_are_those_worked_out_anew(
        variant in variants(), steps in steps(128, 60),
    ) {
        let mut dram = dram(&variant);
        for step in &steps {
            offer(&mut dram, &[*step], jump);
            for sub in dram.subchannels() {
                let [kept, anew] = sub.wishes();
                prop_assert_eq!(kept, anew);
            }
        }
    }

    #[test]
    fn room_is_promised_exactly_when_a_request_is_taken(
        variant in variants(), steps in steps(64, 100),
    ) {
        let mut dram = dram(&variant);
        let mut refused = 0;
        for (id, step) in (0u64..).zip(&steps) {
            let promised = dram.can_accept(Line(step.line), step.kind);
            let before = dram.clone();
            let at = dram.now();
            let request = Request { id, line: Line(step.line), kind: step.kind, at };
            prop_assert_eq!(dram.enqueue(request).is_ok(), promised);
            prop_assert!(dram.next_event().is_none_or(|next| next > dram.now()));
            if !promised {
                refused += 1;
                prop_assert_eq!(&dram, &before);
                dram.advance(at + Ps(20_000));
            }
        }
        // Long queues may have room for all.
        let short = variant.1.read_queue <= 6 && variant.1.write_queue <= 8;
        prop_assert!(!short || steps.len() < 60 || refused > 0, "the queues never filled");
    }
}

// ---- Latency ---------------------------------------------------------------------------------------------------------

/// The line of a place in the first subchannel of a one-channel memory.
fn line_at(dram: &Dram, rank: u8, bank_group: u8, bank: u8, row: u64, column: u16) -> Line {
    let place = Place { channel: 0, subchannel: 0, rank, bank_group, bank, row, column };
    dram.map().encode(&place)
}

fn one_channel(grade: SpeedGrade, page_policy: PagePolicy) -> Dram {
    let spec = DramSpec { channels: 1, grade, page_policy, ..spec() };
    let mut dram = Dram::new(&spec, 1).unwrap();
    dram.record_commands(true);
    dram
}

fn ask(dram: &mut Dram, kind: Kind, line: Line, at: Ps) -> Ps {
    dram.enqueue(Request { id: 0, line, kind, at }).unwrap();
    dram.drain();
    let done = dram.pop_completion().unwrap();
    assert_eq!(dram.pop_completion(), None);
    Ps(done.at.0 - at.0)
}

#[test]
fn an_unloaded_read_takes_the_documented_sum_of_clocks() {
    for (grade, tck, cl, rcd, rp) in [
        (SpeedGrade::Ddr5_4800, 416, 40, 39, 39),
        (SpeedGrade::Ddr5_5200, 384, 42, 42, 42),
        (SpeedGrade::Ddr5_5600, 357, 46, 45, 45),
        (SpeedGrade::Ddr5_6400, 312, 52, 52, 52),
    ] {
        let mut dram = one_channel(grade, PagePolicy::Open);
        let [a, hit, conflict] =
            [(5, 0), (5, 1), (6, 0)].map(|(r, c)| line_at(&dram, 0, 3, 1, r, c));
        let at = |n: u64| Ps(n * 1000 * tck);
        assert_eq!(ask(&mut dram, Kind::Read, a, at(0)), Ps((rcd + cl + 8) * tck), "closed row");
        assert_eq!(ask(&mut dram, Kind::Read, hit, at(1)), Ps((cl + 8) * tck), "row hit");
        assert_eq!(ask(&mut dram, Kind::Read, conflict, at(2)), Ps((rp + rcd + cl + 8) * tck));
        // A read that arrives between two edges waits for the next one.
        let off = Ps(at(3).0 + 1);
        assert_eq!(ask(&mut dram, Kind::Read, conflict, off), Ps((cl + 8) * tck + tck - 1));
        let s = dram.stats();
        assert_eq!((s.row_hits, s.row_misses, s.row_conflicts), (2, 1, 1));
    }
}

#[test]
fn with_closed_pages_a_row_is_closed_behind_the_last_request_that_wants_it() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Closed);
    let [a, b, other] = [(5, 0), (5, 1), (6, 0)].map(|(r, c)| line_at(&dram, 0, 3, 1, r, c));
    for line in [a, b] {
        dram.enqueue(Request { id: 0, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
    }
    dram.drain();
    let shown: Vec<_> = dram.take_commands().iter().map(|c| (c.at.0 / 416, c.command)).collect();
    // tRCD 39, tCCD_L 12; the last closes the row behind it.
    use Command::{Act, Rd, Rda};
    assert_eq!(shown, [(0, Act), (39, Rd), (51, Rda)]);
    while dram.pop_completion().is_some() {}
    let again = ask(&mut dram, Kind::Read, other, Ps(416_000));
    assert_eq!(again, Ps((39 + 40 + 8) * 416), "no conflict is left to pay for");
}

/// The checker in `verify` found RDA 92 clocks after WR, where tWTRA makes it 100: what is written must be in the array
/// before the row closes.
#[test]
fn a_read_just_behind_a_write_of_its_row_does_not_close_the_row_before_the_data_is_in() {
    let spec = DramSpec { write_high: 1, write_low: 0, page_policy: PagePolicy::Closed, ..spec() };
    let sub = SubchannelSpec::of(&spec).unwrap();
    // tWTR_L makes RD wait 38 + 8 + 24 clocks; tWTRA makes RDA wait 38 + 8 + tWR - 18.
    for (write_recovery, read) in [(42, Command::Rda), (43, Command::Rd), (72, Command::Rd)] {
        let timing = sub.timing.with(P::Wr, write_recovery);
        let mut dram = Dram::with_subchannels(&spec, 1, SubchannelSpec { timing, ..sub }).unwrap();
        dram.record_commands(true);
        let [written, wanted] = [0, 1].map(|column| line_at(&dram, 0, 0, 0, 0, column));
        put(&mut dram, 0, Kind::Read, wanted, Ps::ZERO);
        put(&mut dram, 1, Kind::Write, written, Ps::ZERO);
        dram.drain();
        let commands = dram.take_commands();
        let shown: Vec<_> = commands.iter().map(|c| (c.command, c.at.0 / 416)).collect();
        let expected = [(Command::Act, 0), (Command::Wr, 39), (read, 39 + 70)];
        assert_eq!(shown, expected, "{write_recovery}");
    }
}

#[test]
fn a_stream_of_row_hits_fills_the_data_bus() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    let mut next = (0..2000u64).map(Line);
    let mut waiting = next.next();
    while let Some(line) = waiting {
        let at = dram.now();
        if dram.enqueue(Request { id: 0, line, kind: Kind::Read, at }).is_ok() {
            waiting = next.next();
        } else {
            let at = dram.next_event().unwrap();
            dram.advance(at);
        }
    }
    let end = dram.drain();
    let (busy, span) = (dram.stats().bus_busy.0, 2 * end.0);
    assert!(busy <= span && busy * 100 >= span * 85, "{busy} of {span}");
}

// ---- Write queue (timing.md §1.4) ------------------------------------------------------------------------------------

fn commands(dram: &mut Dram) -> (usize, usize) {
    let list = dram.take_commands();
    let count = |c| list.iter().filter(|r| r.command == c).count();
    (count(Command::Rd), count(Command::Wr))
}

/// A memory in which a read stands in the way, so that a write stays queued.
fn with_write_held() -> (Dram, Line, Ps) {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    let [busy, line] = [(9, 0), (5, 0)].map(|(r, c)| line_at(&dram, 0, 3, 1, r, c));
    dram.enqueue(Request { id: 100, line: busy, kind: Kind::Read, at: Ps::ZERO }).unwrap();
    (dram, line, Ps(416))
}

fn put(dram: &mut Dram, id: u64, kind: Kind, line: Line, at: Ps) {
    dram.enqueue(Request { id, line, kind, at }).unwrap();
}

#[test]
fn a_partial_write_that_misses_the_write_queue_costs_one_read_and_one_write() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    let line = line_at(&dram, 0, 3, 1, 5, 0);
    assert_eq!(ask(&mut dram, Kind::PartialWrite, line, Ps(1)), Ps::ZERO, "posted at arrival");
    let list = dram.take_commands();
    let shown: Vec<_> = list.iter().map(|c| (c.at.0 / 416, c.command)).collect();
    // The write goes out when the underfill data is there: RD + CL + BL/2.
    use Command::{Act, Rd, Wr};
    assert_eq!(shown, [(1, Act), (40, Rd), (88, Wr)]);
    assert_eq!(dram.stats().underfills, 1);
}

#[test]
fn writes_that_hit_the_write_queue_cost_nothing() {
    for (first, second, want) in [
        (Kind::Write, Kind::Write, (0, 1)),
        (Kind::Write, Kind::PartialWrite, (0, 1)),
        (Kind::PartialWrite, Kind::PartialWrite, (1, 1)),
        (Kind::PartialWrite, Kind::Write, (1, 1)),
    ] {
        let (mut dram, line, at) = with_write_held();
        put(&mut dram, 1, first, line, at);
        put(&mut dram, 2, second, line, at);
        dram.drain();
        assert_eq!(commands(&mut dram), (1 + want.0, want.1), "{first:?} then {second:?}");
        assert_eq!(dram.stats().merged, 1);
    }
}

#[test]
fn a_read_that_hits_the_write_queue_is_forwarded_at_once() {
    let (mut dram, line, at) = with_write_held();
    put(&mut dram, 1, Kind::Write, line, at);
    put(&mut dram, 2, Kind::Read, line, at);
    let done: Vec<_> = std::iter::from_fn(|| dram.pop_completion()).map(|c| (c.id, c.at)).collect();
    assert_eq!(done, [(1, at), (2, at)]);
    dram.drain();
    assert_eq!(commands(&mut dram), (1, 1));
    assert_eq!(dram.stats().forwarded, 1);
}

#[test]
fn a_read_of_a_line_whose_underfill_is_out_reads_dram_too() {
    let (mut dram, line, at) = with_write_held();
    put(&mut dram, 1, Kind::PartialWrite, line, at);
    put(&mut dram, 2, Kind::Read, line, at);
    dram.drain();
    assert_eq!(commands(&mut dram), (3, 1));
    assert_eq!((dram.stats().forwarded, dram.stats().underfills), (0, 1));
}

#[test]
fn draining_starts_at_the_high_watermark_and_ends_at_the_low_one() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    // Reads keep coming, so that only the watermark can make the controller write.
    let mut id = 0;
    let mut read = |dram: &mut Dram, n: u64| {
        let line = line_at(dram, 0, (n % 8) as u8, 0, 1, (n / 8 % 128) as u16);
        id += 1;
        put(dram, id, Kind::Read, line, dram.now());
    };
    (0..60).for_each(|n| read(&mut dram, n));
    for n in 0..47 {
        let line = line_at(&dram, 0, (n % 8) as u8, 1, 2, n / 8);
        put(&mut dram, 1000, Kind::Write, line, Ps::ZERO);
    }
    for n in 0..200 {
        let at = dram.next_event().unwrap();
        dram.advance(at);
        if dram.subchannels()[0].queued().0 < 60 {
            read(&mut dram, n);
        }
    }
    assert_eq!(dram.stats().wrs, 0, "below the high watermark reads come first");
    let line = line_at(&dram, 0, 7, 1, 2, 100);
    let now = dram.now();
    put(&mut dram, 1000, Kind::Write, line, now);
    while dram.stats().wrs < 32 {
        let before = dram.stats();
        let at = dram.next_event().unwrap();
        dram.advance(at);
        assert!(dram.stats().rds == before.rds, "no read goes out during the drain");
    }
    assert_eq!(dram.subchannels()[0].queued().1, 16);
    for n in 0..100 {
        let at = dram.next_event().unwrap();
        dram.advance(at);
        if dram.subchannels()[0].queued().0 < 60 {
            read(&mut dram, n);
        }
    }
    assert_eq!(dram.stats().wrs, 32, "at the low watermark reads come first again");
}

// ---- Refresh and row policies (timing.md §2.2) -----------------------------------------------------------------------

fn refreshing(refresh: RefreshMode, postpone: u8) -> DramSpec {
    DramSpec { channels: 1, refresh, refresh_postpone: postpone, ..spec() }
}

#[test]
fn an_idle_memory_refreshes_every_rank_at_every_interval_and_closes_rows_once() {
    for (refresh, commands) in [
        (RefreshMode::AllBank, 100),
        // Half the interval, and one of four banks at a time.
        (RefreshMode::SameBank, 800),
        (RefreshMode::Off, 0),
    ] {
        let mut dram = Dram::new(&refreshing(refresh, 4), 1).unwrap();
        dram.record_commands(true);
        let line = line_at(&dram, 1, 3, 1, 5, 0);
        put(&mut dram, 1, Kind::Read, line, Ps::ZERO);
        dram.drain();
        assert_eq!(dram.next_event(), None, "refreshes are nothing to wait for");
        // 100 times 9360 clocks (3.9 us at the exact rate), for two ranks of two subchannels.
        dram.advance(Ps(416 * 9360 * 100));
        let s = dram.stats();
        assert_eq!((s.refresh_all + s.refresh_same), commands * 4, "{refresh:?}");
        let closed = match refresh {
            RefreshMode::AllBank => (0, 1),
            RefreshMode::SameBank => (1, 0),
            RefreshMode::Off => (0, 0),
        };
        assert_eq!((s.pres, s.pre_alls), closed, "{refresh:?}");
        let sub = SubchannelSpec::of(&refreshing(refresh, 0)).unwrap();
        let rules = Rules { sub: &sub, end: dram.now() };
        assert_eq!(check_commands(&rules, &dram.take_commands()), Ok(()));
        assert_eq!(dram.lost_commands(), 0);
    }
}

/// Reads of one subchannel as fast as it takes them, to the banks of one rank or more, for so many clocks.
fn saturate(spec: &DramSpec, ranks: u8, clocks: u64) -> (Dram, Vec<CommandRecord>) {
    let mut dram = Dram::new(spec, 1).unwrap();
    dram.record_commands(true);
    let (mut n, mut commands) = (0u64, Vec::new());
    while dram.now() < Ps(416 * clocks) {
        let (rank, group) = ((n / 128 % u64::from(ranks)) as u8, (n % 8) as u8);
        let line = line_at(&dram, rank, group, 0, n / 1024, (n / 8 % 16) as u16);
        dram.offer(Request { id: n, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
        n += 1;
        if n % 1000 == 0 {
            commands.append(&mut dram.take_commands());
        }
    }
    commands.append(&mut dram.take_commands());
    (dram, commands)
}

#[test]
fn a_busy_rank_postpones_as_many_refreshes_as_it_may_and_then_none() {
    for (postpone, busy) in [(0, 20), (4, 16), (8, 12)] {
        let spec = DramSpec { ranks: 1, ..refreshing(RefreshMode::AllBank, postpone) };
        let (_, commands) = saturate(&spec, 1, 9360 * 20 + 100);
        let count = |sub| {
            let mine = commands.iter().filter(|c| c.place.subchannel == sub);
            mine.filter(|c| c.command == Command::RefAb).count()
        };
        assert_eq!((count(0), count(1)), (busy, 20), "{postpone}: subchannel 1 is idle");
    }
}

/// The checker in `verify` found refreshes forced up to 195 clocks too late, counted from one that was made in an idle rank.
#[test]
fn no_time_between_two_refreshes_is_longer_than_those_that_may_be_postponed_and_one() {
    for refresh in [RefreshMode::AllBank, RefreshMode::SameBank] {
        for postpone in [1, 4, 8] {
            let spec = DramSpec { ranks: 1, ..refreshing(refresh, postpone) };
            let interval = if refresh == RefreshMode::AllBank { 9360 } else { 4680 / 4 };
            let mut dram = Dram::new(&spec, 1).unwrap();
            dram.record_commands(true);
            // Idle for some refreshes, then busy in every bank.
            let (mut id, start) = (0, Ps(416 * 3 * 9360));
            while dram.now() < Ps(416 * 30 * 9360) {
                let line = line_at(&dram, 0, (id % 8) as u8, (id / 8 % 4) as u8, id / 1024, 0);
                dram.offer(Request { id, line, kind: Kind::Read, at: start }).unwrap();
                id += 1;
            }
            let commands = dram.take_commands();
            let mine = commands.iter().filter(|c| c.place.subchannel == 0);
            let refreshes = mine.filter(|c| matches!(c.command, Command::RefAb | Command::RefSb));
            let edges: Vec<u64> = refreshes.map(|c| c.at.0 / 416).collect();
            let longest = edges.windows(2).map(|w| w[1] - w[0]).max();
            let bound = (u64::from(postpone) + 1) * interval;
            // As late as may be, but for the lead, and no later.
            let lead = SubchannelSpec::of(&spec).unwrap().refresh_lead();
            assert!(
                longest.is_some_and(|l| l <= bound && l > bound - lead),
                "{refresh:?} {postpone}: {longest:?} of {bound}"
            );
        }
    }
}

/// As found by random timings: tRC from the last ACT may be longer than everything else that closing takes.
#[test]
fn a_refresh_is_out_in_time_where_a_row_cycle_is_what_takes_longest() {
    for refresh in [RefreshMode::AllBank, RefreshMode::SameBank] {
        let spec = DramSpec { ranks: 1, ..refreshing(refresh, 0) };
        let sub = SubchannelSpec::of(&spec).unwrap();
        let sub = SubchannelSpec { timing: sub.timing.with(P::Rc, 700), ..sub };
        let mut dram = Dram::with_subchannels(&spec, 1, sub).unwrap();
        dram.record_commands(true);
        for id in 0..4000 {
            // Every read opens a row.
            let line = line_at(&dram, 0, (id % 8) as u8, (id / 8 % 4) as u8, id, 0);
            dram.offer(Request { id, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
        }
        let rules = Rules { sub: &sub, end: dram.now() };
        let commands = dram.take_commands();
        assert!(commands.iter().filter(|c| c.command == Command::Act).count() >= 3900);
        assert_eq!(check_commands(&rules, &commands), Ok(()));
    }
}

#[test]
fn postponed_refreshes_are_made_up_for_when_the_requests_are_gone() {
    let spec = DramSpec { ranks: 1, ..refreshing(RefreshMode::AllBank, 4) };
    let (mut dram, mut commands) = saturate(&spec, 1, 9360 * 10 - 1000);
    dram.drain();
    let end = dram.now();
    // Each takes tRFC1, 708 clocks.
    dram.advance(end + Ps(416 * 800 * 6));
    commands.append(&mut dram.take_commands());
    let late = commands.iter().filter(|c| c.place.subchannel == 0 && c.at > end);
    let edges: Vec<u64> =
        late.filter(|c| c.command == Command::RefAb).map(|c| c.at.0 / 416).collect();
    assert!(edges.len() >= 4, "{edges:?}");
    assert!(edges.windows(2).take(3).all(|w| w[1] - w[0] == 708), "{edges:?}");
}

/// Q12 of verification.md §2.11, for one rank: streaming reads lose what a refresh costs and no more.
#[test]
fn a_stream_reaches_the_bandwidth_that_refresh_leaves() {
    let spec = DramSpec { ranks: 1, ..refreshing(RefreshMode::AllBank, 0) };
    let clocks = 9360 * 40;
    let (dram, commands) = saturate(&spec, 1, clocks);
    let end = dram.now().0 / 416;
    let bursts = commands.iter().filter(|c| c.command == Command::Rd).count() as u64;
    // tRTP + tRP + tRFC1 + tRCD of tREFI1.
    let left = end * (9360 - (18 + 39 + 708 + 39)) / 9360;
    let (got, want) = (bursts * 8, left);
    assert!(got.abs_diff(want) * 100 <= want, "{got} of {want} clocks carry data");
}

#[test]
fn the_other_banks_work_on_while_one_bank_of_each_group_is_refreshed() {
    let spec = DramSpec { ranks: 1, ..refreshing(RefreshMode::SameBank, 0) };
    // Only bank 0 of each group is read.
    let (_, commands) = saturate(&spec, 1, 9360 * 20);
    let mine: Vec<_> = commands.iter().filter(|c| c.place.subchannel == 0).collect();
    let reads_within = |from: Ps| {
        mine.iter()
            .filter(|c| c.command == Command::Rd && c.at > from && c.at < from + Ps(416 * 312))
            .count()
    };
    let mut of_others = 0;
    for refresh in mine.iter().filter(|c| c.command == Command::RefSb) {
        let reads = reads_within(refresh.at);
        if refresh.place.bank == 0 {
            assert_eq!(reads, 0, "{refresh:?}: all banks in use are being refreshed");
        } else {
            of_others += 1;
            assert!(reads > 15, "{refresh:?}: {reads} reads");
        }
    }
    assert!(of_others > 50, "{of_others}");
}

#[test]
fn a_stream_of_activates_does_not_hold_up_the_refresh_of_other_banks() {
    let refresh = RefreshMode::SameBank;
    let page_policy = PagePolicy::Closed;
    let spec = DramSpec { ranks: 1, page_policy, ..refreshing(refresh, 0) };
    let mut dram = Dram::new(&spec, 1).unwrap();
    dram.record_commands(true);
    for n in 0..6000 {
        // A row of its own for each read, in banks 0 to 2: an ACT every tRRD_S, less than tRRD_L apart.
        let line = line_at(&dram, 0, (n % 8) as u8, (n / 8 % 3) as u8, n, 0);
        dram.offer(Request { id: n, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
    }
    let sub = SubchannelSpec::of(&spec).unwrap();
    let rules = Rules { sub: &sub, end: dram.now() };
    let commands = dram.take_commands();
    assert!(commands.iter().filter(|c| c.command == Command::RefSb).count() > 40);
    assert_eq!(check_commands(&rules, &commands), Ok(()));
}

#[test]
fn an_adaptive_row_is_closed_only_when_another_row_is_waited_for() {
    use Command::{Act, Rd, Rda};
    for (rows, want) in [
        (vec![5], vec![Act, Rd]),
        (vec![5, 5], vec![Act, Rd, Rd]),
        (vec![5, 6], vec![Act, Rda, Act, Rd]),
        (vec![5, 6, 5], vec![Act, Rd, Rda, Act, Rd]),
    ] {
        let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Adaptive);
        for (column, row) in (0u16..).zip(&rows) {
            let line = line_at(&dram, 0, 3, 1, *row, column);
            put(&mut dram, 0, Kind::Read, line, Ps::ZERO);
        }
        dram.drain();
        let shown: Vec<_> = dram.take_commands().iter().map(|c| c.command).collect();
        assert_eq!(shown, want, "{rows:?}");
    }
}

#[test]
fn a_sparse_trace_costs_its_commands_and_refreshes_and_no_more() {
    let mut dram = Dram::new(&refreshing(RefreshMode::AllBank, 4), 1).unwrap();
    let mut rng = Prng::new(3);
    for n in 0..2000 {
        let at = Ps(416_000 * n);
        put(&mut dram, n, Kind::Read, Line(rng.below(1 << 24)), at);
    }
    dram.drain();
    let commands = dram.stats().commands();
    // One look per command, and a look after each that finds nothing.
    assert!(dram.looks() <= 2 * commands + 2000, "{} looks for {commands} commands", dram.looks());
    let before = dram.looks();
    // Twelve days of nothing.
    let later = dram.now() + Ps(1 << 60);
    dram.advance(later);
    assert!(dram.looks() < before + 100, "{}", dram.looks() - before);
    let refreshes = dram.stats().refresh_all;
    let want = 4 * (dram.now().0 / (416 * 9360));
    assert!(refreshes.abs_diff(want) <= 4, "{refreshes}, {want}");
}

// ---- Nothing moves ---------------------------------------------------------------------------------------------------

#[test]
fn the_watchdog_names_the_constraint_that_blocks() {
    let spec = DramSpec { channels: 1, watchdog: 1 << 16, ..spec() };
    let mut sub = SubchannelSpec::of(&spec).unwrap();
    // A write that takes forever to recover from.
    sub.timing = sub.timing.with(P::Wr, 1 << 19);
    let mut dram = Dram::with_subchannels(&spec, 1, sub).unwrap();
    let lines = [5, 6].map(|row| line_at(&dram, 0, 3, 1, row, 0));
    put(&mut dram, 1, Kind::Write, lines[0], Ps::ZERO);
    dram.drain();
    assert_eq!(dram.check_progress(), Ok(()));
    put(&mut dram, 2, Kind::Read, lines[1], Ps(416_000));
    dram.drain();
    assert!(dram.now() < Ps(416 * (1 << 17)), "the run is not waited out");
    let shown = dram.check_progress().unwrap_err().to_string();
    expect_test::expect!["package 0 channel 0 subchannel 0 rank 0 bank group 3 bank 1: read of row 6 queued since 416 ns: PRE blocked by tWR until 218.139 us"].assert_eq(&shown);
    assert_eq!(dram.why_blocked().len(), 1);
    assert_eq!(dram.next_completion().map(|c| c.id), Some(1), "the write was posted");
    assert_eq!(dram.next_completion(), None);
    // The same for a closed loop whose queue is full.
    let refused = (0..100).find_map(|n| {
        let line = line_at(&dram, 0, 3, 1, 7, n);
        dram.offer(Request { id: 3, line, kind: Kind::Read, at: Ps::ZERO }).err()
    });
    assert!(refused.is_some_and(|wait| wait.command == Command::Pre));
}

#[test]
fn why_blocked_says_what_the_oldest_request_waits_for() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    let line = line_at(&dram, 0, 3, 1, 5, 0);
    assert!(dram.why_blocked().is_empty());
    put(&mut dram, 1, Kind::PartialWrite, line, Ps::ZERO);
    let reasons =
        |dram: &Dram| dram.why_blocked().iter().map(|w| (w.write, w.reason)).collect::<Vec<_>>();
    let until = Ps(39 * 416);
    let blocked = Blocked::Timing { command: Command::Rd, by: "tRCD", until };
    assert_eq!(reasons(&dram), [(false, Reason::Blocked(blocked))]);
    dram.advance(until);
    assert_eq!(reasons(&dram), [(true, Reason::Underfill)]);
}

// ---- Records and counters --------------------------------------------------------------------------------------------

#[test]
fn records_beyond_the_bound_are_counted_as_lost() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Closed);
    let mut issued = 0;
    for n in 0..50_000u64 {
        // Another row each time: ACT and RDA.
        let line = line_at(&dram, 0, (n % 8) as u8, (n / 8 % 4) as u8, n, 0);
        dram.offer(Request { id: n, line, kind: Kind::Read, at: Ps::ZERO }).unwrap();
        issued = dram.stats().commands();
        if issued >= 80_000 {
            break;
        }
    }
    assert_eq!(dram.recorded_commands(), subchannel::RECORDED_COMMANDS);
    assert_eq!(dram.lost_commands(), issued - subchannel::RECORDED_COMMANDS as u64);
    assert_eq!(dram.take_commands().len(), subchannel::RECORDED_COMMANDS);
    assert_eq!((dram.recorded_commands(), dram.take_commands().len()), (0, 0));
}

#[test]
fn latencies_fall_into_quarters_of_powers_of_two() {
    let mut histogram = LatencyHistogram::default();
    for ps in [0, 1023, 1024, 1279, 1280, 2047, 2048, 3 << 40, u64::MAX] {
        histogram.record(Ps(ps));
    }
    let shown: Vec<_> = histogram.buckets().map(|(from, count)| (from.0, count)).collect();
    assert_eq!(shown, [(1024, 4), (1280, 1), (1792, 1), (2048, 1), (3 << 40, 1), (7 << 39, 1)]);
    assert_eq!(histogram.total(), 9);
    assert_eq!(histogram.quantile(0), Ps(1024));
    assert_eq!(histogram.quantile(500), Ps(1280));
    assert_eq!(histogram.quantile(1000), Ps(7 << 39));
}

#[test]
fn every_rule_of_conservation_notices_a_lost_or_made_up_count() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    for n in 0..40 {
        let line = line_at(&dram, 0, (n % 8) as u8, 0, n / 16, n as u16);
        put(
            &mut dram,
            n,
            [Kind::Read, Kind::Write, Kind::PartialWrite][n as usize % 3],
            line,
            Ps::ZERO,
        );
    }
    dram.advance(Ps(60_000));
    assert_eq!(dram.check_conservation(), Ok(()));
    let (stats, held) = (dram.stats(), dram.in_flight());
    assert!(held.total() > 0 && stats.read_queue_clocks > 0);
    let broken = |stats: DramStats, held: InFlight| stats::check(&stats, &held).map_err(|e| e.what);
    assert_eq!(broken(stats, held), Ok(()));
    for (name, stats, held) in [
        ("reads", DramStats { reads: stats.reads + 1, ..stats }, held),
        ("writes", DramStats { merged: stats.merged + 1, ..stats }, held),
        (
            "underfill reads",
            DramStats { underfills_done: stats.underfills_done + 1, ..stats },
            held,
        ),
        ("waiting writes", stats, InFlight { waiting_writes: held.waiting_writes + 1, ..held }),
        ("RD commands", DramStats { rds: stats.rds + 1, ..stats }, held),
        ("column commands", DramStats { row_hits: stats.row_hits + 1, ..stats }, held),
        (
            "reads delivered",
            DramStats { read_latencies: LatencyHistogram::default(), ..stats },
            held,
        ),
        (
            "read-queue occupancy",
            DramStats { read_queue_clocks: stats.read_queue_clocks + 1, ..stats },
            held,
        ),
        (
            "write-queue occupancy",
            stats,
            InFlight { write_queue_wait: held.write_queue_wait + 1, ..held },
        ),
    ] {
        assert_eq!(broken(stats, held), Err(name));
    }
    let names: std::collections::BTreeSet<_> = CONSERVATION_RULES.iter().map(|r| r.name).collect();
    assert_eq!(names.len(), CONSERVATION_RULES.len());
}

// ---- Order of service ------------------------------------------------------------------------------------------------

#[test]
fn a_younger_row_hit_passes_an_older_row_conflict() {
    let mut dram = one_channel(SpeedGrade::Ddr5_4800, PagePolicy::Open);
    let [a, conflict, hit] = [(5, 0), (6, 0), (5, 1)].map(|(r, c)| line_at(&dram, 0, 3, 1, r, c));
    for (id, line) in [(1, a), (2, conflict), (3, hit)] {
        put(&mut dram, id, Kind::Read, line, Ps::ZERO);
    }
    dram.drain();
    let order: Vec<_> = std::iter::from_fn(|| dram.pop_completion()).map(|c| c.id).collect();
    assert_eq!(order, [1, 3, 2]);
}

/// Feeds row hits as fast as they are taken, and returns how long the victim waited.
fn starve(victim: Place, hits: impl Fn(u64) -> Place, age: u32) -> u64 {
    let spec = DramSpec { channels: 1, read_queue: 8, ..spec() };
    let sub = SubchannelSpec { read_age: age, ..SubchannelSpec::of(&spec).unwrap() };
    let mut dram = Dram::with_subchannels(&spec, 1, sub).unwrap();
    let mut n = 0;
    let mut feed = |dram: &mut Dram| {
        let line = dram.map().encode(&hits(n));
        let taken = dram.can_accept(line, Kind::Read);
        if taken {
            put(dram, 0, Kind::Read, line, dram.now());
            n += 1;
        }
        taken
    };
    // The row is open and its stream under way before the victim comes.
    for _ in 0..50 {
        while feed(&mut dram) {}
        let at = dram.next_event().unwrap();
        dram.advance(at);
    }
    let line = dram.map().encode(&victim);
    while !dram.can_accept(line, Kind::Read) {
        let at = dram.next_event().unwrap();
        dram.advance(at);
    }
    let start = dram.now();
    put(&mut dram, 1, Kind::Read, line, start);
    for _ in 0..20_000 {
        while feed(&mut dram) {}
        let at = dram.next_event().unwrap();
        dram.advance(at);
        while let Some(done) = dram.pop_completion() {
            if done.id == 1 {
                return done.at.since(start).0 / 416;
            }
        }
    }
    u64::MAX
}

#[test]
fn neither_row_hits_nor_another_rank_hold_up_a_read_beyond_its_age() {
    let place = |rank, row, column| Place {
        channel: 0,
        subchannel: 0,
        rank,
        bank_group: 0,
        bank: 0,
        row,
        column,
    };
    let other_group =
        |n: u64| Place { bank_group: (n % 8) as u8, ..place(1, 1, (n / 8 % 128) as u16) };
    for age in [300, 1000, 4000] {
        // PRE (after tRTP and tRAS), ACT, RD, data, and what is already on the buses.
        let service = 77 + 39 + 39 + 40 + 8 + 60;
        let same_bank = starve(place(0, 2, 0), |n| place(0, 1, (n % 128) as u16), age);
        assert!(
            (u64::from(age)..u64::from(age) + service).contains(&same_bank),
            "{age}: {same_bank}"
        );
        let other_rank = starve(place(0, 2, 0), other_group, age);
        assert!(other_rank < u64::from(age) + service, "{age}: {other_rank}");
    }
}

#[test]
fn no_request_waits_beyond_its_age_and_a_full_queue_of_service() {
    let spec = DramSpec { page_policy: PagePolicy::Open, ..small() };
    let sub = SubchannelSpec { read_age: 400, write_age: 400, ..small_subchannel(&spec) };
    let t = sub.timing;
    // All that both queues hold, each with a row conflict and a turn of the bus.
    let one = [P::Ras, P::Rp, P::Rcd, P::Cwl, P::HalfBurst, P::Wr, P::WtrL].map(|p| t.clocks(p));
    let bound = 400 + u64::from(one.iter().sum::<u32>()) * 14;
    let mut rng = Prng::new(7);
    for lines in [8u64, 64, 512] {
        let mut dram = Dram::with_subchannels(&spec, 1, sub).unwrap();
        let (mut oldest, mut id): (BTreeMap<u64, Ps>, u64) = (BTreeMap::new(), 0);
        for _ in 0..20_000 {
            let line = Line(rng.below(lines));
            let kind = [Kind::Read, Kind::Write, Kind::PartialWrite][rng.below(3) as usize];
            if dram.can_accept(line, kind) {
                let now = dram.now();
                put(&mut dram, id, kind, line, now);
                oldest.insert(id, now);
                id += 1;
            } else {
                let at = dram.next_event().unwrap();
                dram.advance(at);
            }
            while let Some(done) = dram.pop_completion() {
                let start = oldest.remove(&done.id).unwrap();
                assert!(done.at.since(start) < t.tck().times(bound), "{done:?} from {start}");
            }
            if let Some((id, start)) = oldest.first_key_value() {
                assert!(dram.now().since(*start) < t.tck().times(bound), "{id} from {start}");
            }
        }
        dram.drain();
        assert_eq!(dram.check_conservation(), Ok(()));
        assert!(dram.stats().reads > 1000, "{lines}");
    }
}

// ---- Edges of the interface ------------------------------------------------------------------------------------------

#[test]
fn an_idle_memory_has_no_next_event_and_time_only_moves_forward() {
    let mut dram = Dram::new(&spec(), 2).unwrap();
    assert_eq!(dram.next_event(), None);
    dram.advance(Ps(5000));
    dram.advance(Ps(10));
    assert_eq!(dram.now(), Ps(5000));
    // An arrival in the past counts as now.
    put(&mut dram, 1, Kind::Read, Line(77), Ps(10));
    assert_eq!(dram.next_event(), Some(Ps(13 * 416)));
    let end = dram.drain();
    assert_eq!(end, Ps((13 + 39 + 40 + 8) * 416));
    assert_eq!(
        dram.pop_completion(),
        Some(Completion { id: 1, at: end, arrived: Ps(5000), kind: Kind::Read })
    );
    assert_eq!(dram.next_event(), None);
}

/// Once, subchannels that look at every edge waited for one another for ever.
#[test]
fn answers_gone_to_at_once_are_those_found_event_by_event_also_where_every_edge_is_looked_at() {
    let by_event = |dram: &mut Dram| loop {
        if let Some(done) = dram.pop_completion() {
            break Some(done);
        }
        let at = dram.next_event()?;
        dram.advance(at);
    };
    let run = |every_edge, next: &dyn Fn(&mut Dram) -> Option<Completion>| {
        let mut dram = Dram::new(&spec(), 2).unwrap();
        dram.look_at_every_edge(every_edge);
        let mut answers = Vec::new();
        for id in 0..60 {
            let now = dram.now();
            put(&mut dram, id, Kind::Read, Line(id * 7919), now);
            if id % 3 == 2 {
                for _ in 0..3 {
                    let done = next(&mut dram);
                    answers.push((done.map(|d| (d.id, d.at, d.arrived)), dram.now()));
                }
            }
        }
        (answers, dram.stats())
    };
    let wanted = run(false, &by_event);
    assert!(wanted.0.iter().all(|(done, _)| done.is_some()));
    for every_edge in [false, true] {
        assert_eq!(run(every_edge, &by_event), wanted);
        assert_eq!(run(every_edge, &Dram::next_completion), wanted);
        let to_answer = |dram: &mut Dram| {
            dram.advance_to_completion(Ps(1 << 40));
            dram.pop_completion()
        };
        assert_eq!(run(every_edge, &to_answer), wanted);
    }
}

#[test]
fn every_package_has_its_own_channels() {
    let mut dram = Dram::new(&spec(), 2).unwrap();
    dram.record_commands(true);
    for (id, gib) in [(1u64, 0u64), (2, 1), (3, 2)] {
        put(&mut dram, id, Kind::Read, Line(gib << 24), Ps::ZERO);
    }
    dram.drain();
    let mut packages: Vec<u8> = dram
        .take_commands()
        .iter()
        .filter(|c| c.command == Command::Rd)
        .map(|c| c.package)
        .collect();
    packages.sort_unstable();
    assert_eq!(packages, [0, 0, 1]);
}

#[test]
fn the_end_of_time_is_reached_without_a_panic() {
    let refresh = RefreshMode::SameBank;
    let spec = DramSpec { channels: 1, refresh, page_policy: PagePolicy::Closed, ..spec() };
    let mut dram = Dram::new(&spec, 1).unwrap();
    dram.record_commands(true);
    let line = line_at(&dram, 0, 3, 1, 5, 0);
    put(&mut dram, 1, Kind::PartialWrite, line, Ps(u64::MAX));
    put(&mut dram, 2, Kind::Read, Line(u64::MAX), Ps(u64::MAX));
    assert!(dram.drain().is_horizon());
}

#[test]
fn specifications_out_of_range_are_refused_by_name() {
    let good = spec();
    let shown: Vec<String> = [
        DramSpec { channels: 0, ..good.clone() },
        DramSpec { ranks: 8, ..good.clone() },
        DramSpec { read_queue: 257, ..good.clone() },
        DramSpec { write_queue: 0, ..good.clone() },
        DramSpec { write_high: 65, ..good.clone() },
        DramSpec { write_low: 48, ..good.clone() },
        DramSpec { refresh_postpone: 9, ..good.clone() },
        DramSpec { read_age: 0, ..good.clone() },
        DramSpec { watchdog: 1, ..good.clone() },
        DramSpec { grade: SpeedGrade::Ddr5_5200, bin: SpeedBin::An, ..good.clone() },
    ]
    .iter()
    .map(|spec| Dram::new(spec, 1).unwrap_err().to_string())
    .chain([Dram::new(&good, 9).unwrap_err().to_string()])
    .collect();
    expect_test::expect![[r#"
        dram.channels is 0, expected a power of two from 1 to 16
        dram.ranks is 8, expected a power of two from 1 to 4
        dram.read_queue is 257, expected 1 to 256
        dram.write_queue is 0, expected 1 to 256
        dram.write_high is 65, expected 1 to 64
        dram.write_low is 48, expected 0 to 47
        dram.refresh_postpone is 9, expected 0 to 8
        dram.read_age is 0, expected 1 to 16777216
        dram.watchdog is 1, expected 65536 to 2147483648
        dram timing: Ddr5_5200 has no AN column (timing.md §2.1)
        cpu.packages is 9, expected 1 to 8"#]]
    .assert_eq(&shown.join("\n"));
    let mut sub = SubchannelSpec::of(&good).unwrap();
    sub.timing = sub.timing.with(P::Faw, 1);
    assert!(matches!(Dram::with_subchannels(&good, 1, sub), Err(SpecError::Timing(_))));
}

#[test]
fn the_checker_itself_refuses_each_kind_of_wrong_command() {
    let t = Timing::of_grade(SpeedGrade::Ddr5_4800);
    let at = |edge: u64, command, rank, bank_group, row| CommandRecord {
        at: Ps(edge * 416),
        package: 0,
        command,
        place: Place { channel: 0, subchannel: 0, rank, bank_group, bank: 0, row, column: 0 },
    };
    use Command::{Act, Pre, Rd, Wr};
    let legal =
        [at(0, Act, 0, 0, 1), at(39, Rd, 0, 0, 1), at(78, Pre, 0, 0, 1), at(117, Act, 0, 0, 2)];
    let sub = SubchannelSpec { timing: t, ..SubchannelSpec::of(&spec()).unwrap() };
    let check = |list: &[CommandRecord]| check_commands(&Rules { sub: &sub, end: Ps::ZERO }, list);
    assert_eq!(check(&legal), Ok(()));
    for wrong in [
        vec![at(0, Rd, 0, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(38, Rd, 0, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(39, Rd, 0, 0, 2)],
        vec![at(0, Act, 0, 0, 1), at(200, Act, 0, 0, 2)],
        vec![at(0, Act, 0, 0, 1), at(77, Pre, 0, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(7, Act, 0, 1, 1)],
        vec![at(0, Act, 0, 0, 1), at(1, Act, 1, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(8, Act, 1, 0, 1), at(60, Rd, 0, 0, 1), at(69, Rd, 1, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(60, Rd, 0, 0, 1), at(73, Wr, 0, 0, 1)],
        vec![at(0, Act, 0, 0, 1), at(60, Wr, 0, 0, 1), at(129, Rd, 0, 0, 1)],
    ] {
        assert!(check(&wrong).is_err(), "{wrong:?}");
    }
}
