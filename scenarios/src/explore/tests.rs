//! What the search must not do: lose an outcome by its reductions.

use super::*;
use crate::format::Scenario;
use proptest::prelude::*;

/// A scenario of one page on two packages' worth of agents, with these lines.
fn scenario(order: &str, program: &str) -> Scenario {
    let text = format!(
        "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\norder = \"{order}\"\n\
         program = '''\n{program}'''\n[regions]\nP0 = {{ base = \"0x10000000\", size = \"4KiB\" }}\n\
         [agents]\ntd0 = {{ kind = \"td\", core = 2, keyid = \"priv1\" }}\n[expect]\nfinal = [\"not tdx-disabled\"]\n"
    );
    Scenario::from_text("s.toml", &text).unwrap()
}

/// What all agents may see, by outcome; `everywhere` without any reduction.
fn outcomes(scenario: &Scenario, erratum: bool, everywhere: bool) -> Vec<Vec<String>> {
    let set = crate::platform::Override::set("memory.erratum_pw_mce", &erratum.to_string());
    let request = Request { overrides: vec![set], ..Request::default() };
    let cells = plan(scenario, &request).unwrap();
    let cell = cells.first().unwrap();
    let bounds = Bounds { states: 30_000, ..Bounds::default() };
    let mut prepared = prepare(cell, &bounds).unwrap().unwrap();
    prepared.explorer.everywhere = everywhere;
    if everywhere {
        prepared.explorer.watch = Lines::every(cell.program(), cell.platform());
    }
    let explored = prepared.run(cell.program(), &bounds);
    assert!(explored.end == End::Exhausted || everywhere, "{} states", explored.states);
    if explored.end != End::Exhausted {
        return Vec::new();
    }
    let lines = 0..cell.program().lines.len();
    let all =
        explored.endings.iter().map(|e| lines.clone().map(|l| word_of(&explored, e, l)).collect());
    let mut all: Vec<Vec<String>> = all.collect();
    all.sort();
    all.dedup();
    all
}

fn line() -> impl Strategy<Value = String> {
    let at = prop_oneof![3 => Just("P0"), 1 => Just("P0+0x40")];
    let who = prop_oneof![Just("cpu0"), Just("cpu1"), Just("td0")];
    let op = (0..9usize, 1u8..4).prop_map(|(op, v)| match op {
        0 => "load [@] 8".to_owned(),
        1 => format!("store [@] 8 {v}"),
        2 => format!("store [@] 64 fill={v}"),
        3 => format!("movdir64b [@] fill={v}"),
        4 => "clflush [@]".to_owned(),
        5 => "clwb [@]".to_owned(),
        6 => format!("movnti [@] 8 {v}"),
        7 => "mfence".to_owned(),
        _ => format!("lock-xadd [@] 8 {v}"),
    });
    (who, op, at).prop_map(|(who, op, at)| format!("  {who} : {}\n", op.replace('@', at)))
}

fn program(lines: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(line(), 1..=lines).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn choices_only_where_somebody_could_tell_lose_no_outcome(
        text in program(5), concurrent: bool, erratum: bool,
    ) {
        let order = if concurrent { "concurrent" } else { "program" };
        let scenario = scenario(order, &text);
        let all = outcomes(&scenario, erratum, true);
        prop_assume!(!all.is_empty());
        prop_assert_eq!(outcomes(&scenario, erratum, false), all);
    }
}

#[test]
fn without_a_choice_there_is_one_outcome_and_with_one_there_are_two() {
    let weak = "  cpu0 : movdir64b [P0] fill=1\n  cpu0 : mfence\n  cpu0 : movdir64b [P0] fill=2\n  cpu1 : load [P0] 8\n";
    let both = outcomes(&scenario("program", weak), true, false);
    assert_eq!(both.len(), 2, "{both:?}");
    let fenced = weak.replace("  cpu1", "  cpu0 : mfence\n  cpu1");
    assert_eq!(outcomes(&scenario("program", &fenced), true, false).len(), 1);
}

#[test]
fn side_by_side_every_order_is_tried() {
    let text =
        "  cpu0 : store [P0] 8 1\n  cpu1 : store [P0] 8 2\n  barrier\n  cpu0 : load [P0] 8\n";
    let all = outcomes(&scenario("concurrent", text), true, false);
    let last: Vec<&String> = all.iter().filter_map(|o| o.last()).collect();
    assert_eq!(last, ["data 0x01", "data 0x02"]);
}
