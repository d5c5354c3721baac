//! The tables: total, no overlap, every row reached (pairs.rs and states.rs), and the same when printed.

use std::collections::BTreeSet;
use verify::ddr5::run::TIMING;
use verify::ddr5::{
    Cmd, FREE, Kind, PARAMS, Param, RULES, Refresh, Rules, SANITY, example_rules, params_markdown,
    rules_markdown, sanity_markdown, sum_text,
};

#[test]
fn every_ordered_pair_of_commands_has_a_rule_or_a_reason_to_have_none() {
    for a in Cmd::ALL {
        for b in Cmd::ALL {
            let ruled = RULES.iter().any(|r| match r.kind {
                Kind::Pair { before, after, .. } => before.contains(&a) && after.contains(&b),
                _ => false,
            });
            let free = FREE.iter().filter(|(x, y, _)| x.contains(&a) && y.contains(&b)).count();
            assert_eq!(usize::from(ruled) + free, 1, "{a} to {b}");
        }
    }
}

#[test]
fn no_two_rules_of_a_check_speak_of_the_same_pair_in_the_same_scope_and_no_two_have_the_same_name()
{
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    for r in RULES {
        assert!(names.insert(r.id), "{}", r.id);
        assert!(!r.cite.is_empty() && TIMING.iter().any(|t| t.id == r.check), "{}", r.id);
        let Kind::Pair { before, after, scope, .. } = r.kind else {
            assert!(!r.text.is_empty(), "{}", r.id);
            continue;
        };
        for a in before {
            for b in after {
                assert!(seen.insert((*a, *b, scope, r.check)), "{}: {a} to {b}", r.id);
            }
        }
    }
}

#[test]
fn every_parameter_is_in_a_rule_or_says_what_exists() {
    let mut used: BTreeSet<Param> = BTreeSet::new();
    for r in RULES {
        let (Kind::Pair { need, .. } | Kind::Window(need) | Kind::Burst(need)) = r.kind else {
            continue;
        };
        let text = sum_text(need);
        used.extend(
            PARAMS.iter().filter(|p| text.split([' ', '·']).any(|w| w == p.key)).map(|p| p.param),
        );
    }
    let rest: Vec<&str> =
        PARAMS.iter().filter(|p| !used.contains(&p.param)).map(|p| p.key).collect();
    // They are in what exists and in how often refreshes come.
    expect_test::expect!["tCK ranks bank_groups banks rows columns tREFI postpone refresh_slack"]
        .assert_eq(&rest.join(" "));
}

#[test]
fn the_parameters_are_in_the_order_of_their_rows_and_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    for (i, row) in PARAMS.iter().enumerate() {
        assert_eq!(row.param as usize, i, "{}", row.key);
        assert_eq!(row.param.row(), row);
        assert!(names.insert(row.key) && !row.cite.is_empty() && row.least <= row.most);
        assert!(example_rules().with(row.param, row.most).is_ok());
        assert!(example_rules().with(row.param, row.most + 1).is_err(), "{}", row.key);
    }
    for (i, cmd) in Cmd::ALL.into_iter().enumerate() {
        assert_eq!(cmd as usize, i);
        assert_eq!(Cmd::by_name(cmd.name().as_bytes()), Some(cmd));
    }
}

/// The rules with one side of a row of the sanity table made wrong by as little as can be.
fn insane(row: usize) -> Rules {
    let rules = example_rules();
    let one = |param, value| rules.clone().with(param, value).unwrap();
    match row {
        0 => one(Param::TrrdL, 7),
        1 => one(Param::TccdL, 7),
        2 => one(Param::TccdLWr, 11),
        3 => one(Param::TwtrL, 5),
        4 => one(Param::Trc, 115),
        5 => one(Param::Tfaw, 31),
        6 => one(Param::Cwl, 40),
        7 => one(Param::TccdS, 7),
        8 => one(Param::Trfc, 312),
        9 => one(Param::TrfcSb, 72),
        10 => one(Param::Trefi, 18 + 39 + 710 + 39),
        11 => one(Param::Trefi, 18 + 39 + 313 + 39).refreshed(Refresh::SameBank),
        _ => panic!("a row without a test"),
    }
}

#[test]
fn each_row_of_the_sanity_table_is_broken_alone_and_equality_is_where_it_says() {
    assert_eq!(example_rules().insane().count(), 0);
    for (i, row) in SANITY.iter().enumerate() {
        let found: Vec<String> = insane(i).insane().map(ToString::to_string).collect();
        assert_eq!(found, [row.to_string()]);
        assert!(!row.cite.is_empty() && !row.text.is_empty());
    }
    // A clock more is sane again.
    for (row, param) in [(0, Param::TrrdL), (4, Param::Trc), (5, Param::Tfaw), (10, Param::Trefi)] {
        let rules = insane(row);
        let more = rules.get(param) + 1;
        assert_eq!(rules.with(param, more).unwrap().insane().count(), 0);
    }
}

#[test]
fn parameters_and_sanity_print_one_row_each() {
    let page = params_markdown();
    for (row, line) in PARAMS.iter().zip(page.lines().skip(2)) {
        assert!(line.starts_with(&format!("| {} | {} |", row.key, row.meaning)), "{line}");
    }
    assert_eq!(page.lines().count(), PARAMS.len() + 2);
    expect_test::expect![[r#"
        | Holds | With refresh | Why | Source |
        |---|---|---|---|
        | tRRD_L ≥ tRRD_S | any | a bank group is no faster than its rank | verification.md Q10 |
        | tCCD_L ≥ tCCD_S | any | a bank group is no faster than its rank | verification.md Q10 |
        | tCCD_L_WR ≥ tCCD_L | any | a write to a bank group may need a read before it | verification.md Q10; timing.md §2.2 tCCD_L_WR |
        | tWTR_L ≥ tWTR_S | any | a bank group is no faster than its rank | verification.md Q10 |
        | tRC ≥ tRAS + tRP | any | a row is open and then closed | verification.md Q10 |
        | tFAW ≥ 4·tRRD_S | any | four ACTs cannot come faster than tRRD_S | verification.md Q10 |
        | CL > CWL | any | written data comes sooner than read data | verification.md Q10 |
        | tCCD_S ≥ BL/2 | any | bursts do not overlap | verification.md Q4 |
        | tRFC ≥ tRFCsb | any | a refresh of all banks is no faster than one of some | timing.md §2.2 tRFCsb |
        | tRFCsb ≥ tREFSBRD | any | the banks that are refreshed wait no less than the others | JESD79-5 refresh parameters |
        | tREFI > tRTP + tRP + tRFC + tRCD | all-bank | time is left between refreshes | verification.md Q12 |
        | tREFI > tRTP + tRP + tRFCsb + tRCD | same-bank | time is left between refreshes of a bank | verification.md Q12 |
    "#]].assert_eq(&sanity_markdown());
}

#[test]
fn the_table_of_rules_prints_every_row() {
    let page = rules_markdown();
    assert_eq!(page.lines().filter(|l| l.starts_with("| ")).count(), RULES.len() + FREE.len() + 2);
    let some: Vec<&str> = page
        .lines()
        .filter(|l| l.contains("tFAW") || l.contains("tWTR") || l.contains("Q4"))
        .collect();
    expect_test::expect![[r#"
        | tWTRA | Q5 | WR | RDA | bank | CWL + BL/2 + tWR - tRTP | JESD79-5 tWTRA = tWR - tRTP: RDA precharges tRTP later, when tWR must have passed |
        | tFAW | Q5 | the fourth ACT before | ACT | rank | tFAW | timing.md §2.2 |
        | tWTR_L | Q5 | WR, WRA | RD, RDA | bank group | CWL + BL/2 + tWTR_L | timing.md §2.2 |
        | tWTR_S | Q5 | WR, WRA | RD, RDA | rank | CWL + BL/2 + tWTR_S | timing.md §2.2 |
        | data overlap | Q4 | bursts do not overlap | | subchannel | 0 | verification.md Q4 |
        | data read-write | Q4 | RD, RDA | WR, WRA | rank | CL + BL/2 + gap_rw - CWL | verification.md Q4; timing.md §2.2 tRDWR |
        | data write-read | Q4 | WR, WRA | RD, RDA | rank | CWL + BL/2 + gap_wr - CL | verification.md Q4 |
        | data rank | Q4 | idle clocks between bursts of two ranks, whatever their directions | | subchannel | gap_rank | verification.md Q4; timing.md §2.1 CS |"#]].assert_eq(&some.join("\n"));
}
