//! That the reduction loses no end, and that one line of a page says what two say.

use super::*;
use crate::configurations::{BASE, PRIVATE, Shape, random_program, small, with_keys};
use expect_test::expect;
use sim_core::op::Value;
use sim_core::platform::IntegrityMode::{Ci, Li};
use sim_core::prng::Prng;
use sim_core::{Addr, Hpa, KeyId};

const KEYS: [KeyId; 2] = [KeyId::TME, PRIVATE[0]];

fn programs(
    start: &Reference,
    programs: &[Vec<Step>],
    reduced: bool,
) -> (Searched, BTreeSet<Ending>) {
    let mut all = Interleave::new(start.clone(), programs.to_vec());
    all.reduced = reduced;
    let (searched, endings) = all.explore(Budget { states: 400_000, ..Budget::UNBOUNDED });
    assert!(searched.exhausted(), "{searched:?}");
    assert!(!endings.is_empty());
    (searched, endings)
}

fn line(i: u64, keyid: KeyId) -> Addr {
    Addr::new(Hpa(BASE.0 + 64 * i), keyid)
}
fn load(at: Addr) -> Op {
    Op::Load { at, bytes: 8, ty: MemType::Wb }
}
fn store(at: Addr, n: u64) -> Op {
    Op::Store { at, bytes: 8, value: Value::Num(n), ty: MemType::Wb }
}

#[test]
fn two_loads_and_two_stores_on_a_line_end_as_coherence_allows() {
    let start = with_keys(small(Ci, false, 2), &KEYS);
    let at = line(0, KeyId::TME);
    let first =
        vec![Step::Op(Agent::Kernel, 0, store(at, 1)), Step::Op(Agent::Kernel, 0, load(at))];
    let second =
        vec![Step::Op(Agent::Kernel, 1, store(at, 2)), Step::Op(Agent::Kernel, 1, load(at))];
    let (_, endings) = programs(&start, &[first, second], false);
    let number = |answer: &Answer| match answer {
        Answer::Data(data, _) => data.data().0[0],
        other => panic!("{other:?}"),
    };
    let seen: BTreeSet<(u64, u64, u64)> = endings
        .iter()
        .map(|e| {
            let last = e.lines[0].1.ct.map_or(0, |ct| ct.plain.data().0[0]);
            (number(&e.seen[0][1]), number(&e.seen[1][1]), last)
        })
        .collect();
    // The last store is what stays, and its own program reads it; the other may have read before it.
    assert_eq!(seen, BTreeSet::from([(1, 2, 1), (1, 2, 2), (1, 1, 1), (2, 2, 2)]));
}

/// Random programs over two lines: one for each of two cores, of so many operations.
fn random(seed: u64, len: usize, erratum: bool) -> (Reference, Vec<Vec<Step>>) {
    let spec = small(if seed.is_multiple_of(2) { Ci } else { Li }, erratum, 2);
    let mut rng = Prng::new(seed);
    // Sometimes the programs share lines, sometimes they do not.
    let shape = Shape { lines: 2, keyids: KEYS.to_vec(), stray: 1 + rng.below(8) };
    let mut steps = random_program(spec, &shape, seed, 60 * len);
    steps.retain(|s| matches!(s, Step::Op(..)));
    let apart = rng.below(2) == 0;
    let mut programs = vec![vec![], vec![]];
    for step in steps {
        let Step::Op(_, core, op) = step else { continue };
        let touched = named(&op);
        let mine = u64::from(core) == touched.first().map_or(u64::from(core), |l| l.0 & 1);
        let program: &mut Vec<Step> = &mut programs[usize::from(core)];
        if program.len() < len && (mine || !apart) {
            program.push(step);
        }
    }
    (with_keys(spec, &KEYS), programs)
}

#[test]
fn the_moves_on_a_few_lines_are_enough_to_reach_every_end() {
    let (mut full, mut less, mut ends) = (0, 0, 0);
    for seed in 0..120 {
        let (start, list) = random(seed, 3, seed % 4 < 2);
        let (all, endings) = programs(&start, &list, false);
        let (few, same) = programs(&start, &list, true);
        assert_eq!(same, endings, "seed {seed}: {list:#?}");
        full += all.states;
        less += few.states;
        ends += endings.len();
        assert!(few.states <= all.states);
    }
    expect!["319 ends; 39749 states, reduced 14915"]
        .assert_eq(&format!("{ends} ends; {full} states, reduced {less}"));
}

#[test]
fn programs_on_lines_of_their_own_need_few_interleavings() {
    let start = with_keys(small(Ci, true, 2), &KEYS);
    let program = |core: u16| {
        let at = line(u64::from(core), KeyId::TME);
        let op = |op| Step::Op(Agent::Kernel, core, op);
        vec![op(store(at, 1)), op(load(at)), op(Op::Clflush { at }), op(store(at, 2))]
    };
    let list = [program(0), program(1)];
    let (all, endings) = programs(&start, &list, false);
    let (few, same) = programs(&start, &list, true);
    assert_eq!(same, endings);
    expect!["121 states, reduced 21"]
        .assert_eq(&format!("{} states, reduced {}", all.states, few.states));
}

#[test]
fn a_machine_check_that_drains_a_buffer_couples_lines() {
    // The load of line 1 may strike and so let the buffered store of line 0 go before the other core reads line 0.
    let start = with_keys(small(Ci, true, 2), &KEYS);
    let op = |core, op| Step::Op(Agent::Kernel, core, op);
    let host = KeyId::TME;
    let first = vec![
        op(0, Op::InjectUe { at: line(1, host) }),
        op(0, Op::NtStore { at: line(0, host), bytes: 8, value: Value::Num(7) }),
        op(0, load(line(1, host))),
    ];
    let second = vec![op(1, load(line(0, host))), op(1, load(line(1, host)))];
    let list = [first, second];
    assert_eq!(programs(&start, &list, true).1, programs(&start, &list, false).1);
}

/// What an end is for one line: what the operations on it saw, and what it holds, as if it were line 0.
fn of_line(
    ending: &Ending,
    program: &[Step],
    i: u64,
) -> (Vec<Answer>, Option<(DramLine, Option<BirthCause>)>) {
    let at = Line((BASE.0 >> 6) + i);
    let home = Line(BASE.0 >> 6);
    let mine = |step: &Step| matches!(step, Step::Op(_, _, op) if named(op).contains(&at));
    let answers = program.iter().zip(&ending.seen[0]).filter(|(step, _)| mine(step));
    let held = ending.lines.iter().find(|(line, ..)| *line == at).map(|(_, dram, cause)| {
        let mut dram = *dram;
        if let Some(ct) = &mut dram.ct {
            assert_eq!(ct.line, at);
            ct.line = home;
        }
        (dram, *cause)
    });
    (answers.map(|(_, answer)| *answer).collect(), held)
}

#[test]
fn a_page_of_one_line_comes_to_the_same_as_a_page_of_two() {
    let mut shown = String::new();
    for (mode, erratum) in [(Ci, true), (Li, true), (Ci, false)] {
        for (flush, clear) in
            [(false, [false; 2]), (true, [false; 2]), (true, [true, false]), (true, [false, true])]
        {
            let spec = small(mode, erratum, 1);
            let start = with_keys(spec, &KEYS);
            let reclaim = Reclaim { flush, clear, partial: true };
            let life = |lines| page_life(&spec, lines, reclaim);
            let ends = |lines| {
                let mut all = Interleave::new(start.clone(), vec![life(lines)]);
                all.reduced = true;
                let (searched, endings) = all.explore(Budget::UNBOUNDED);
                assert!(searched.exhausted());
                (searched.states, endings)
            };
            let (few, one) = ends(1);
            let (many, two) = ends(2);
            let project = |ends: &BTreeSet<Ending>, lines, i| -> BTreeSet<_> {
                ends.iter().map(|e| of_line(e, &life(lines), i)).collect()
            };
            let want = project(&one, 1, 0);
            assert_eq!(project(&two, 2, 0), want, "{reclaim:?}, first line");
            assert_eq!(project(&two, 2, 1), want, "{reclaim:?}, second line");
            let struck = want
                .iter()
                .filter(|(seen, _)| seen.iter().any(|a| matches!(a, Answer::Poison(_))))
                .count();
            shown += &format!(
                "{mode} erratum {erratum} flush {flush} clear {clear:?}: {} ends of a line, {struck} with #MC; {few} and {many} states\n",
                want.len()
            );
        }
    }
    expect![[r#"
        ci erratum true flush false clear [false, false]: 5 ends of a line, 4 with #MC; 97 and 3575 states
        ci erratum true flush true clear [false, false]: 1 ends of a line, 1 with #MC; 24 and 91 states
        ci erratum true flush true clear [true, false]: 2 ends of a line, 1 with #MC; 44 and 304 states
        ci erratum true flush true clear [false, true]: 1 ends of a line, 0 with #MC; 25 and 91 states
        li erratum true flush false clear [false, false]: 5 ends of a line, 4 with #MC; 97 and 3575 states
        li erratum true flush true clear [false, false]: 1 ends of a line, 1 with #MC; 24 and 91 states
        li erratum true flush true clear [true, false]: 2 ends of a line, 1 with #MC; 44 and 304 states
        li erratum true flush true clear [false, true]: 1 ends of a line, 0 with #MC; 25 and 91 states
        ci erratum false flush false clear [false, false]: 4 ends of a line, 0 with #MC; 80 and 2240 states
        ci erratum false flush true clear [false, false]: 1 ends of a line, 0 with #MC; 23 and 84 states
        ci erratum false flush true clear [true, false]: 1 ends of a line, 0 with #MC; 34 and 160 states
        ci erratum false flush true clear [false, true]: 1 ends of a line, 0 with #MC; 25 and 91 states
    "#]].assert_eq(&shown);
}
