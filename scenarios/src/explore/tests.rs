//! What the search must not do: lose an outcome by its reductions.

use super::*;
use crate::format::Scenario;
use proptest::prelude::*;
use verify::search::System;
use world::Move;

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
    let who = prop_oneof![3 => Just("cpu0"), 3 => Just("cpu1"), 3 => Just("td0"), 1 => Just("dma0"), 1 => Just("seam3")];
    let op = (0..10usize, 1u8..4).prop_map(|(op, v)| match op {
        0 => "load [@] 8".to_owned(),
        1 => format!("store [@] 8 {v}"),
        2 => format!("store [@] 64 fill={v}"),
        3 => format!("movdir64b [@] fill={v}"),
        4 => "clflush [@]".to_owned(),
        5 => "clwb [@]".to_owned(),
        6 => format!("movnti [@] 8 {v}"),
        7 => "mfence".to_owned(),
        8 => format!("rep-stosb [@] 320 fill={v}"),
        _ => format!("lock-xadd [@] 8 {v}"),
    });
    (who, op, at).prop_map(|(who, op, at)| match (who, op.as_bytes().first()) {
        ("dma0", Some(b'l' | b'c')) => format!("  dma0 : dma-read [{at}] 8\n"),
        ("dma0", _) => format!("  dma0 : dma-write [{at}] 8 9\n"),
        ("seam3", Some(b'm' | b'c')) => "  seam3 : pconfig priv1 set-random\n".to_owned(),
        ("seam3", _) => format!("  seam3 : movdir64b [{at}@priv1] zero\n"),
        _ => format!("  {who} : {}\n", op.replace('@', at)),
    })
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

/// A scenario with a TD that is set up, on one page that a TD has.
fn with_td(state: &str, program: &str) -> Scenario {
    let text = format!(
        "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = '''\n{program}'''\n\
         [regions]\nP0 = {{ base = \"0x100800000\", size = \"4KiB\" }}\n[tdx]\nstate = \"ready\"\n\
         [td.A]\nhkid = \"priv2\"\n{state}[expect]\nfinal = [\"not panic\"]\n"
    );
    Scenario::from_text("s.toml", &text).unwrap()
}

#[test]
fn what_leaves_before_the_module_changes_its_key_is_not_forgotten() {
    let program = "  seam1 : pconfig priv2 set-random\n  seam1 : movdir64b [P0@priv2] zero\n  seam1 : mfence\n  \
                   seam1 : store [P0@priv2] 8 0x1\n  cpu0 : tdh.mng.key.config rcx=[A_TDR]\n  \
                   seam1 : load [P0@priv2] 8\n";
    let in_module = with_td("state = \"created\"\n", program);
    let raw = program
        .replace("cpu0 : tdh.mng.key.config rcx=[A_TDR]", "seam0 : pconfig priv2 set-random");
    for scenario in [&in_module, &with_td("state = \"created\"\n", &raw)] {
        let all = outcomes(scenario, true, false);
        let last: Vec<&String> = all.iter().filter_map(|o| o.last()).collect();
        assert_eq!(last, ["data 0x01", "mc srar data-load shutdown"]);
    }
}

#[test]
fn what_is_done_to_the_middle_of_a_page_is_not_looked_at_in_its_first_line() {
    let program = "  cpu0 : rep-stosb [P0@] 512 fill=0x11\n  cpu1 : movdir64b.page [P0@shared0]\n  cpu1 : mfence\n  \
                   dma0 : dma-read [P0@] 512\n";
    for at in ["P0", "P0+0x40", "P0+0x800"] {
        let scenario = scenario("program", &program.replace("P0@]", &format!("{at}]")));
        let all = outcomes(&scenario, true, false);
        let last: Vec<&String> = all.iter().filter_map(|o| o.last()).collect();
        assert_eq!(last.len(), 2, "{at}: {last:?}");
        assert!(last.contains(&&"data fill=0x11".to_owned()), "{at}: {last:?}");
    }
}

#[test]
fn partial_writes_of_lines_that_one_core_alone_uses_are_counted() {
    let program = "  cpu0 : movnti [P0+0x8] 8 0x1\n  cpu0 : sfence\n";
    let mut scenario = scenario("program", program);
    let text = scenario.to_text().replace("\"not tdx-disabled\"", "\"partial-writes 1\"");
    scenario = Scenario::from_text("s.toml", &text).unwrap();
    let document = explore(&scenario, &Request::default(), &Bounds::default(), "test").unwrap();
    let seen: Vec<&str> = document
        .explorations
        .iter()
        .flat_map(|e| &e.expectations)
        .flat_map(|e| e.seen.iter().map(String::as_str))
        .collect();
    assert_eq!((document.verdict, seen.as_slice()), (Verdict::Pass, ["1"].as_slice()));
}

#[test]
fn a_translation_is_forgotten_where_the_walk_would_meet_poison() {
    let program = "  cpu0 : tdh.vp.enter rcx=[A_VP0]\n  g0 : load [0x0] 8\n  \
                   cpu1 : movnti [A_SEPT1] 8 0x0\n  cpu1 : sfence\n  g0 : load [0x0] 8\n";
    let td = "state = \"runnable\"\npages = [\"0x0 add P0 fill=0x11\"]\n\
              [agents]\ng0 = { kind = \"guest\", vcpu = \"A_VP0\" }\n";
    let all = outcomes(&with_td(td, program), true, false);
    let last: Vec<&String> = all.iter().filter_map(|o| o.last()).collect();
    let killed = "mc srar data-load seam-nr shutdown";
    assert_eq!(last, [killed, "data 0x1111111111111111"]);
}

#[test]
fn a_counterexample_to_a_count_says_the_count_and_is_not_reproduced_by_what_was_never_in_doubt() {
    let program = "  td0 : movdir64b [P0] zero\n  td0 : mfence\n  cpu0 : movnti [P0] 8 0x1\n  cpu0 : sfence\n";
    for (check, file, reproduced) in
        [("births 0", Some("births 1"), true), ("writer P0 shared0", None, false)]
    {
        let text = scenario("program", program).to_text().replace("not tdx-disabled", check);
        let scenario = Scenario::from_text("s.toml", &text).unwrap();
        let document = explore(&scenario, &Request::default(), &Bounds::default(), "test").unwrap();
        let found = document.explorations.iter().flat_map(|e| &e.counterexamples).next().unwrap();
        let written = found.file.as_ref().unwrap();
        assert!(file.is_none_or(|says| written.contains(says)), "{written}");
        assert_eq!(found.reproduced, reproduced, "{written}");
    }
}

#[test]
fn a_buffer_that_one_core_alone_fills_under_its_own_key_may_leave_full_or_in_parts() {
    let words = (0..8).map(|i| format!("  td0 : movnti [P0+{}] 8 0x1\n", 8 * i));
    let program: String =
        words.chain(["  td0 : sfence\n  td0 : load [P0] 8\n".to_owned()]).collect();
    let all = outcomes(&scenario("program", &program), true, false);
    let last: Vec<&String> = all.iter().filter_map(|o| o.last()).collect();
    assert_eq!(last, ["data 0x01", "mc srar data-load seam-nr td-fatal"]);
}

#[test]
fn a_choice_that_the_reference_refuses_makes_the_exploration_broken() {
    let scenario = scenario("program", "  cpu0 : store [P0] 8 1\n  cpu1 : load [P0@shared0] 8\n");
    let cell = plan(&scenario, &Request::default()).unwrap().remove(0);
    let at = sim_core::Addr::new(sim_core::Hpa(0x1000_0000), sim_core::KeyId::TME);
    for (mv, says) in [
        (Move::Hw(Op::Drain { core: 99, at }), "hw: drain"),
        (Move::StoreLeave(0), "a store of core 0 leaves"),
        // Whose line is not the first.
        (Move::Step(2), "goes on: it is not its turn"),
    ] {
        let mut prepared = prepare(&cell, &Bounds::default()).unwrap().unwrap();
        let start = prepared.start.clone();
        assert_eq!(prepared.explorer.apply(&start, &mv), None, "{mv:?}");
        let said = prepared.explorer.broken.clone().unwrap_or_default();
        assert!(said.contains(says), "{mv:?}: {said}");
        assert_eq!(prepared.explorer.not_modelled, None);
        // Whatever else was seen.
        let explored = prepared.run(cell.program(), &Bounds::default());
        assert_eq!(verdict(&explored.search.system, true, 1, true), Verdict::Broken);
    }
}

#[test]
fn no_choice_that_is_offered_is_refused_even_to_cores_that_fill_lines_nobody_asked_for() {
    let program = "  td0 : store [P0] 8 1\n  cpu0 : load [P0] 8\n  seam3 : clflush [P0@priv1]\n  user1 : movnti [P0] 8 2\n  dma0 : dma-read [P0] 8\n";
    for order in ["program", "concurrent"] {
        let cell = plan(&scenario(order, program), &Request::default()).unwrap().remove(0);
        let bounds = Bounds { prefetch: true, states: 4000, ..Bounds::default() };
        let prepared = prepare(&cell, &bounds).unwrap().unwrap();
        let explored = prepared.run(cell.program(), &bounds);
        assert_eq!(explored.search.system.broken, None);
        assert!(explored.states > 50, "{order}: {}", explored.states);
    }
}
