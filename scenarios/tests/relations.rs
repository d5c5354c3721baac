//! Relations between runs (verification.md §2.12, §2.13): each holds on random worlds, says something of most of them, and
//! fails when the product or one of the two runs is broken on purpose.
//!
//! `TDXSIM_CASES` times as many worlds as by default are made (docs/verification.md).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "how many cases to run is for who runs the tests to say"
)]

use expect_test::expect;
use scenarios::format::Scenario;
use scenarios::relations::{
    Case, Dice, Discipline, PAGE, PRIVATE, Rules, Style, World, agents,
    aliased_flushes_that_matter, check, check_altered, count_numbers, random_world, relations,
};
use scenarios::report::Verdict;
use scenarios::run::{Request, plan, run};
use sim_core::op::Source;
use sim_core::planted::{Fault, Planted};
use sim_core::{Addr, Hpa, Op};

/// How many times as many cases as by default.
fn factor() -> u64 {
    std::env::var("TDXSIM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn holds(ids: &[&str], cases: u64) {
    for id in ids {
        let cases = cases * factor();
        let got = check(id, 1, cases).unwrap();
        if let Some(found) = got.violation {
            panic!("{id}: {}\n{found}", found.why);
        }
        // Vacuous only where what a relation is about did not come up.
        assert!(got.says_enough(), "{id}: {}", got.told());
    }
}

#[test]
fn runs_are_the_same_to_the_byte_and_go_on_from_any_event() {
    holds(&["N1", "N2"], 8);
}

#[test]
fn logs_unused_features_and_longer_clocks_change_nothing_else() {
    holds(&["N3", "N4", "N5", "N6"], 80);
}

#[test]
fn flushes_orders_and_repetitions_change_no_result() {
    holds(&["M1", "M2", "M3"], 60);
}

#[test]
fn the_erratum_and_the_mode_show_only_where_they_may() {
    holds(&["M4", "M5"], 150);
}

#[test]
fn names_places_and_traffic_elsewhere_change_no_result() {
    holds(&["M6", "M7"], 90);
}

#[test]
fn caches_and_clears_change_no_result_under_the_policy() {
    holds(&["M8", "M9", "M10"], 90);
}

#[test]
fn splitting_joining_and_unused_things_change_no_result() {
    holds(&["M11", "M14"], 90);
    holds(&["M12", "M13"], 30);
}

#[test]
fn every_relation_of_the_sheet_is_there_once() {
    let ids: Vec<&str> = relations().map(|(id, _)| id).collect();
    let sheet = (1..=6).map(|n| format!("N{n}")).chain((1..=14).map(|n| format!("M{n}")));
    assert_eq!(ids, sheet.collect::<Vec<_>>());
    assert_eq!(check("M15", 1, 1), None);
}

#[test]
fn the_same_seed_gives_the_same_worlds_and_another_gives_others() {
    let made = |seed| random_world(&mut Dice::new(seed), Style::RAW).unwrap();
    assert_eq!(made(7), made(7));
    assert_ne!(made(7), made(8));
}

/// What is done to a case so that its relation fails, and what the fault stands for.
type Breaker = (&'static str, &'static str, fn(&mut Case));

fn plant(case: &mut Case, fault: Fault) {
    case.base.planted = Planted::fault(fault);
    case.other.planted = Planted::fault(fault);
}

/// Lines of the changed world that the first has not.
fn added(case: &mut Case, change: impl Fn(&mut Op)) {
    let own: Vec<u32> = case.base.ops().map(|s| s.id).collect();
    let new = case.other.steps.iter_mut().flatten().filter(|s| !own.contains(&s.id));
    new.for_each(|step| change(&mut step.op));
}

fn flip(world: &mut World, key: &str) {
    let on = world.get(key) == Some("true");
    world.put(key, !on);
}

const BREAKERS: &[Breaker] = &[
    ("N1", "a second run draws other keys", |c| c.other.seed += 1),
    ("N2", "a snapshot forgets the seed", |c| c.other.seed += 1),
    ("N3", "recording takes time", |c| c.other.put("latency.issue", "1ns")),
    ("N4", "an idle feature slows hits", |c| c.other.put("cpu.l1_clocks", 6)),
    ("N5", "one time is not scaled", |c| {
        let own = c.base.get("latency.issue").map(str::to_owned).unwrap();
        let functional = c.base.get("functional.op").map(str::to_owned).unwrap();
        c.other.put("latency.issue", own);
        c.other.put("functional.op", functional);
    }),
    ("M1", "MU-7: copies survive MOVDIR64B", |c| plant(c, Fault::Movdir64bKeepsCopies)),
    ("M2", "the last job is lost", |c| {
        c.other.steps.truncate(c.other.steps.len().saturating_sub(2))
    }),
    ("M3", "the second store writes something else", |c| {
        added(c, |op| {
            if let Op::Movdir64b { src: Source::Fill(byte), .. } = op {
                *byte = byte.wrapping_add(1);
            }
        });
    }),
    ("M4", "MU-11: the erratum ignores the TD bit", |c| plant(c, Fault::ErratumIgnoresTd)),
    ("M5", "there are physical faults", |c| {
        for world in [&mut c.base, &mut c.other] {
            let hw = world.agents.iter().position(|a| a.name == "hw").unwrap() as u16;
            for at in [10, 20, 30] {
                let line = Addr::new(Hpa(PAGE), PRIVATE[0]);
                world.insert(at, hw, Op::FlipBit { at: line, bit: 3 });
            }
        }
    }),
    ("M6", "MU-9 in one of the two: tags ignore the KeyID", |c| {
        c.other.planted = Planted::fault(Fault::TagIgnoresKeyId);
    }),
    ("M7", "MU-7: copies survive MOVDIR64B", |c| plant(c, Fault::Movdir64bKeepsCopies)),
    ("M8", "MU-7: copies survive MOVDIR64B", |c| plant(c, Fault::Movdir64bKeepsCopies)),
    ("M9", "MU-6: whole writes keep poison", |c| plant(c, Fault::WriteKeepsPoison)),
    ("M10", "MU-2: shared reads show data", |c| plant(c, Fault::SharedReadShowsData)),
    ("M11", "MU-5: partial writes clear poison", |c| plant(c, Fault::PartialClearsPoison)),
    ("M12", "the snapshot is of a machine with other keys", |c| c.other.seed += 1),
    ("M13", "more memory brings the erratum", |c| flip(&mut c.other, "memory.erratum_pw_mce")),
    ("M14", "the fault hits a line in use", |c| {
        added(c, |op| {
            *op = match *op {
                Op::InjectUe { at } | Op::FlipTd { at } | Op::FlipBit { at, .. } => {
                    Op::InjectUe { at: Addr::new(Hpa(PAGE), at.keyid) }
                }
                other => other,
            };
        });
    }),
];

#[test]
fn every_relation_fails_when_something_is_broken_on_purpose() {
    for (id, what, alter) in BREAKERS {
        if what.starts_with("MU-") && !Planted::POSSIBLE {
            continue;
        }
        let got = check_altered(id, 2, 400, alter).unwrap();
        let found = got.violation.unwrap_or_else(|| panic!("{id} is blind: {what}"));
        let lines = found.worlds.other.ops().count();
        assert!(lines <= 40, "{id}: {lines} lines are left\n{found}");
    }
    let broken: Vec<&str> = BREAKERS.iter().map(|(id, ..)| *id).collect();
    let all = relations().map(|(id, _)| id);
    // What N6 counts is broken by a number, not by a world.
    assert_eq!(broken, all.filter(|id| *id != "N6").collect::<Vec<_>>());
    let world = random_world(&mut Dice::new(1), Style::RAW).unwrap();
    let machine = world.run().unwrap().machine;
    assert!(count_numbers(&machine).unwrap() > 1000);
    assert!(count_numbers(&(&machine, 0.5)).is_err());
}

/// Both files of a counterexample, run as `tdxsim run` runs them.
fn verdicts(files: &[String; 2], seed: u64, speed: scenarios::run::Speed) -> [Verdict; 2] {
    let of = |text: &String| {
        let scenario = Scenario::from_text("counterexample.toml", text);
        let scenario = scenario.unwrap_or_else(|d| panic!("{}\n{text}", d.render()));
        let request = Request { seed, speed, ..Request::default() };
        let cells = plan(&scenario, &request).unwrap_or_else(|d| panic!("{}\n{text}", d.render()));
        run(cells.first().unwrap(), &request).unwrap().verdict
    };
    [of(&files[0]), of(&files[1])]
}

#[test]
fn a_counterexample_is_two_files_of_which_the_second_fails() {
    for id in ["M3", "M14"] {
        let (_, _, alter) = BREAKERS.iter().find(|(broken, ..)| *broken == id).unwrap();
        let found = check_altered(id, 2, 400, alter).unwrap().violation.unwrap();
        let World { seed, speed, .. } = found.worlds.base;
        assert_eq!(verdicts(&found.files, seed, speed), [Verdict::Pass, Verdict::Fail], "{found}");
        let shown = found.to_string();
        assert!(found.files.iter().all(|file| shown.contains(file.as_str())));
    }
}

#[test]
fn every_world_is_a_scenario_file_that_shows_what_the_world_shows() {
    for seed in 0..60 {
        let style = match seed % 3 {
            0 => Style::RAW,
            1 => Style { concurrent: true, ..Style::RAW },
            _ => Style::disciplined(Rules::POLICY),
        };
        let world = random_world(&mut Dice::new(seed), style).unwrap();
        let ran = world.run().unwrap();
        let seen = world.seen(&ran);
        let finals = World::finals(&ran, &world.lines());
        let text = world.text("world", "why", &seen, &finals);
        let got = verdicts(&[text.clone(), text.clone()], world.seed, world.speed);
        assert_eq!(got, [Verdict::Pass; 2], "{text}");
    }
}

#[test]
fn a_shrunk_counterexample_is_small() {
    if !Planted::POSSIBLE {
        return;
    }
    let (_, _, alter) = BREAKERS.iter().find(|(id, ..)| *id == "M9").unwrap();
    let found = check_altered("M9", 2, 400, alter).unwrap().violation.unwrap();
    assert!(found.worlds.other.ops().count() <= 4, "{found}");
}

/// verification.md §0 point 3: the general form of M1 is a detector of planted bugs, and must fail where KeyIDs alias.
#[test]
fn a_flush_more_changes_results_where_keyids_alias() {
    let broken = aliased_flushes_that_matter(1, 300);
    assert!(broken >= 10, "only {broken} of 300");
}

/// M10's precondition: with the erratum, memory that was private has to be cleared.
#[test]
fn with_the_erratum_uncleared_memory_is_not_the_same() {
    let alter: fn(&mut Case) = |c| {
        c.base.put("memory.erratum_pw_mce", true);
        c.other.put("memory.erratum_pw_mce", true);
    };
    let found = check_altered("M10", 1, 400, &alter).unwrap().violation;
    assert!(found.is_some(), "never a difference");
}

#[test]
fn the_rules_of_a_disciplined_program_say_what_they_refuse() {
    let world = random_world(&mut Dice::new(3), Style::disciplined(Rules::POLICY)).unwrap();
    let spec = world.platform().unwrap();
    let agents = agents(&spec);
    let told = |rules: Rules, lines: &[(&str, &str)]| {
        let mut discipline = Discipline::new(rules, &spec);
        for (who, text) in lines {
            let agent = agents.iter().find(|a| a.name == *who).unwrap();
            let op: sim_core::op::TextOp = text.parse().unwrap();
            let key = |key: Option<sim_core::op::KeyRef>| match key {
                Some(sim_core::op::KeyRef::Num(n)) => Ok(sim_core::KeyId(n as u16)),
                _ => Ok(agent.keyid),
            };
            let op: Op = op
                .try_map(
                    |a| match a.base {
                        sim_core::op::Base::Abs(hpa) => Ok(Addr::new(Hpa(hpa), key(a.key)?)),
                        sim_core::op::Base::Region { .. } => Err(()),
                    },
                    |k| key(Some(k)),
                    |_| Err(()),
                )
                .unwrap();
            let step = scenarios::relations::Step { id: 0, agent: 0, op };
            if let Err(breach) = discipline.follow(agent, &step) {
                return format!("{text}: {breach:?}");
            }
        }
        "kept".to_owned()
    };
    let store = ("cpu0", "movnti [0x1000@0] 8");
    let flush = ("cpu0", "clflush [0x1000@0]");
    let give = ("seam0", "movdir64b [0x1000@65] fill=0x1");
    let fence = ("cpu0", "mfence");
    let read = ("tdA", "load [0x1000@65] 8");
    let back = ("seam0", "clflush [0x1000@65]");
    let host = ("cpu0", "load [0x1000@0] 8");
    let clear = ("cpu0", "movdir64b [0x1000@0] fill=0x0");
    let device = ("dma0", "dma-read [0x1000@0] 8");
    let all = [
        told(Rules::FENCED, &[store, host]),
        told(Rules::FENCED, &[store, device]),
        told(Rules::FENCED, &[store, fence, device]),
        told(Rules::ONE_KEY, &[host, give]),
        told(Rules::ONE_KEY, &[host, flush, give]),
        told(Rules::ONE_KEY, &[store, flush, give]),
        told(Rules::POLICY, &[read]),
        told(Rules::POLICY, &[host, flush, give, fence, read, back, host]),
        told(Rules::UNCLEARED, &[host, flush, give, fence, read, back, host]),
        told(Rules::POLICY, &[host, flush, give, fence, read, back, clear, host]),
        told(Rules::POLICY, &[("hw", "inject-ue [0x1000@0]")]),
    ];
    assert_eq!(PRIVATE[0].0, 65);
    expect![[r#"
        kept
        dma-read [0x1000@0] 8: Fence(0)
        kept
        movdir64b [0x1000@65] fill=0x1: Cached(line 0x1000, KeyId(0))
        kept
        movdir64b [0x1000@65] fill=0x1: Fence(0)
        load [0x1000@65] 8: Uninitialised(line 0x1000, KeyId(65))
        load [0x1000@0] 8: NotCleared(line 0x1000)
        kept
        kept
        inject-ue [0x1000@0]: Forbidden
    "#]]
    .assert_eq(&(all.join("\n") + "\n"));
}
