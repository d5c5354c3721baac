//! Every rule about states, broken alone in a trace that one can read.

use crate::slow::{cmd, small};
use verify::ddr5::{
    Checker, Cmd, Detail, Kind, Param, Place, RULES, Record, Refresh, Rules, example_rules,
};

/// The names of the rules that a trace breaks.
fn broken(rules: &Rules, trace: &[Record], end: u64) -> Vec<&'static str> {
    let mut checker = Checker::new(rules.clone());
    trace.iter().for_each(|r| {
        checker.check(r);
    });
    checker.finish(end);
    assert_eq!(checker.total(), checker.violations().len() as u64);
    checker.violations().iter().map(|v| v.rule.id).collect()
}

/// A trace that breaks nothing, and one that differs in one command and breaks one rule.
struct Planted {
    rule: &'static str,
    rules: Rules,
    good: Vec<Record>,
    bad: Vec<Record>,
}

/// `good` with its last command replaced.
fn last(rule: &'static str, rules: Rules, good: &[Record], other: Record) -> Planted {
    let mut bad = good.to_vec();
    bad.pop();
    bad.push(other);
    Planted { rule, rules, good: good.to_vec(), bad }
}

fn planted() -> Vec<Planted> {
    use Cmd::{Act, Pre, PreAb, Rd, RefAb, RefSb, Wra};
    let act = cmd(100, Act, 0, 1, 1, 3);
    let read = cmd(300, Rd, 0, 1, 1, 3);
    let precharge = cmd(500, Pre, 0, 1, 1, 0);
    let all = cmd(500, PreAb, 0, 0, 0, 0);
    let off = small().refreshed(Refresh::Off);
    let all_bank = small().refreshed(Refresh::AllBank);
    vec![
        last("time", small(), &[act, read], Record { clock: 99, ..read }),
        last("address", small(), &[act, read], Record { column: 128, ..read }),
        last("address", small(), &[act], Record { rank: 2, ..act }),
        last("address", small(), &[act], Record { group: 2, ..act }),
        last("address", small(), &[act], Record { bank: 2, ..act }),
        last("address", small(), &[act], Record { row: 4, ..act }),
        // The bank beside it instead of the open one.
        last("ACT open", small(), &[act, cmd(900, Act, 0, 1, 0, 2)], cmd(900, Act, 0, 1, 1, 2)),
        last("column closed", small(), &[act, read], cmd(300, Rd, 0, 1, 0, 3)),
        last(
            "column closed",
            small(),
            &[act, precharge, cmd(700, Act, 0, 1, 1, 3), cmd(800, Rd, 0, 1, 1, 3)],
            cmd(800, Rd, 0, 0, 1, 3),
        ),
        last("column row", small(), &[act, read], Record { row: 2, ..read }),
        // A write with auto-precharge closes.
        last(
            "column closed",
            small(),
            &[act, cmd(300, Wra, 0, 1, 1, 3)],
            cmd(300, Wra, 1, 1, 1, 3),
        ),
        last(
            "REFab open",
            small(),
            &[act, all, cmd(900, RefAb, 0, 0, 0, 0)],
            cmd(900, RefAb, 0, 0, 0, 0),
        )
        .without(1),
        last(
            "REFsb open",
            small(),
            &[act, precharge, cmd(900, RefSb, 0, 0, 1, 0)],
            cmd(900, RefSb, 0, 0, 1, 0),
        )
        .without(1),
        // Of another bank index it is legal although the bank is open.
        last(
            "REFsb open",
            small(),
            &[act, cmd(900, RefSb, 0, 0, 0, 0)],
            cmd(900, RefSb, 0, 0, 1, 0),
        ),
        last("refresh mode", off.clone(), &[act, all], cmd(500, RefAb, 1, 0, 0, 0)),
        last("refresh mode", off, &[act, all], cmd(500, RefSb, 1, 0, 0, 0)),
        last(
            "refresh mode",
            all_bank,
            &[act, all, cmd(900, RefAb, 0, 0, 0, 0)],
            cmd(900, RefSb, 0, 0, 1, 0),
        ),
        last(
            "refresh order",
            small(),
            &[cmd(100, RefSb, 0, 0, 1, 0), cmd(900, RefSb, 0, 0, 0, 0)],
            cmd(900, RefSb, 0, 0, 1, 0),
        ),
    ]
}

impl Planted {
    /// The bad trace misses a command as well.
    fn without(mut self, index: usize) -> Planted {
        self.bad.remove(index);
        self
    }
}

#[test]
fn every_rule_about_states_is_broken_alone_by_one_command_altered() {
    let mut reached = vec!["command slots", "bandwidth", "refresh late"]; // pairs.rs and refresh.rs
    for p in planted() {
        assert_eq!(broken(&p.rules, &p.good, 2000), [""; 0], "{}", p.rule);
        assert_eq!(broken(&p.rules, &p.bad, 2000), [p.rule]);
        reached.push(p.rule);
    }
    let all = RULES.iter().filter(|r| r.kind == Kind::State);
    let missing: Vec<&str> = all.map(|r| r.id).filter(|id| !reached.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_read_with_auto_precharge_closes_its_bank_and_an_activate_may_follow() {
    let trace = [
        cmd(100, Cmd::Act, 0, 0, 0, 1),
        cmd(200, Cmd::Rda, 0, 0, 0, 1),
        cmd(400, Cmd::Act, 0, 0, 0, 2),
    ];
    assert!(broken(&small(), &trace, 500).is_empty());
    let mut twice = trace.to_vec();
    twice.insert(2, cmd(300, Cmd::Rd, 0, 0, 0, 1));
    assert_eq!(broken(&small(), &twice, 500), ["column closed"]);
}

#[test]
fn a_refresh_of_all_banks_begins_a_new_round_of_same_bank_refreshes() {
    let once = cmd(100, Cmd::RefSb, 0, 0, 1, 0);
    let all = cmd(900, Cmd::RefAb, 0, 0, 0, 0);
    let again = Record { clock: 2000, ..once };
    assert!(broken(&small(), &[once, all, again], 3000).is_empty());
    assert_eq!(broken(&small(), &[once, again], 3000), ["refresh order"]);
}

#[test]
fn subchannels_do_not_hold_each_other_up() {
    let here = cmd(100, Cmd::Act, 0, 0, 0, 1);
    let there = Record { place: Place { package: 1, channel: 2, subchannel: 1 }, ..here };
    assert!(broken(&small(), &[here, there], 200).is_empty());
    assert_eq!(broken(&small(), &[here, Record { bank: 1, ..here }], 200).len(), 3);
    // One subchannel may be told about long after the other.
    assert!(broken(&small(), &[Record { clock: 150, ..here }, there], 200).is_empty());
}

#[test]
fn a_violation_names_the_rule_both_commands_and_the_clocks() {
    let rules = example_rules();
    let mut checker = Checker::new(rules);
    checker.check(&cmd(100, Cmd::Act, 0, 5, 2, 0x1a2b));
    checker.check(&cmd(138, Cmd::Rd, 0, 5, 2, 0x1a2b));
    checker.check(&cmd(200, Cmd::Rd, 0, 5, 2, 0x1a2c));
    checker.finish(60_000);
    let shown: Vec<String> = checker.violations().iter().map(ToString::to_string).collect();
    expect_test::expect![[r#"
        tRCD (Q5, timing.md §2.2): "138 0.0.0 RD 0 5 2 0x1a2b 0" comes 38 clocks after, 39 needed: "100 0.0.0 ACT 0 5 2 0x1a2b"
        column row (Q7, verification.md Q7): "200 0.0.0 RD 0 5 2 0x1a2c 0": the row that RD and WR mean is the open one; since "100 0.0.0 ACT 0 5 2 0x1a2b"
        refresh late (Q8, verification.md Q8): the end of 0.0.0: clock 60000, bound 46875; since the start
        refresh late (Q8, verification.md Q8): the end of 0.0.0: clock 60000, bound 46875; since the start"#]]
    .assert_eq(&shown.join("\n"));
    let first = checker.violations()[0];
    assert_eq!(first.detail, Detail::Apart { found: 38, needed: 39 });
    let heard = checker.tally().filter(|(_, witnesses, _)| *witnesses > 0);
    let heard: Vec<String> = heard.map(|(r, w, b)| format!("{} {w} {b}", r.id)).collect();
    expect_test::expect!["tRCD 2 1, tCCD_L 1 0, tCCD_S 1 0, command slots 2 0, data overlap 1 0, bandwidth 1 0, time 2 0, address 3 0, ACT open 1 0, column closed 2 0, column row 2 1, refresh late 2 2"].assert_eq(&heard.join(", "));
}

#[test]
fn nothing_is_stored_per_command() {
    let round = |checker: &mut Checker, from: u64, rounds: u64| {
        for i in 0..rounds {
            let t = from + i * 1000;
            checker.check(&cmd(t, Cmd::Act, 0, 1, 0, 1));
            checker.check(&cmd(t + 100, Cmd::Rd, 0, 1, 0, 9));
            checker.check(&cmd(t + 300, Cmd::PreAb, 0, 0, 0, 0));
        }
    };
    let records = |c: &Checker| format!("{c:?}").matches("Record {").count();
    let mut checker = Checker::new(small().with(Param::Rows, 2).unwrap());
    round(&mut checker, 100, 100);
    let before = records(&checker);
    round(&mut checker, 200_000, 1000);
    assert_eq!(
        records(&checker),
        before,
        "every read meant a row that does not exist, and was counted"
    );
    assert_eq!(checker.total(), 1100);
    // A trace with any number of subchannels neither.
    let mut checker = Checker::new(small());
    for channel in 0..3000 {
        let place = Place { channel, ..Place::default() };
        checker.check(&Record { place, ..cmd(1, Cmd::PreAb, 0, 0, 0, 0) });
    }
    assert_eq!(checker.total(), 3000 - verify::ddr5::MAX_SUBCHANNELS as u64);
}
