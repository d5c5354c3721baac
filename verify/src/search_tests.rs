//! Breadth-first search of small configurations (verification.md §5.3) and the planted mutants (§5.4).

use crate::invariants::{Checker, Feed, INVARIANTS, Violation};
use crate::reference::tests::{
    H1, H2, K0, Rig, X, any_step, at, load, movdir64b, movnti, spec, store, user_of,
};
use crate::reference::{
    Agent, Bytes, Choice, Place, Reference, Seen, Spec, State, Step, StepOutcome,
};
use expect_test::expect;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rustc_hash::FxHasher;
use sim_core::event::BirthCause;
use sim_core::op::PconfigCmd;
use sim_core::outcome::DataClass;
use sim_core::platform::IntegrityMode::{self, Ci, Li};
use sim_core::{KeyId, Op};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

/// A move of the search: steps made one after another, each of them checked.
type Move = Vec<Step>;

/// A row of verification.md §5.3.
#[derive(Clone)]
struct Config {
    spec: Spec,
    cores: u16,
    keys: Vec<KeyId>,
    /// Injected errors.
    ue: bool,
    /// Writes become visible as they are issued; without it, buffers and weak operations wait for a choice.
    prompt: bool,
}

impl Config {
    fn new(mode: IntegrityMode, erratum: bool, cores: u16, keys: &[KeyId]) -> Config {
        let spec = Spec { cores, ..spec(mode, erratum) };
        Config { spec, cores, keys: keys.to_vec(), ue: false, prompt: true }
    }
    /// Every private KeyID has its own key; memory is as at power-on.
    fn start(&self) -> Reference {
        let mut model = Reference::new(self.spec);
        for &keyid in self.keys.iter().filter(|k| k.0 >= 32) {
            let op = Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None };
            model.step(&Step::Op(Agent::SeamRoot, 0, op)).unwrap();
        }
        model
    }
    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<Move> = vec![];
        for core in 0..self.cores {
            for &keyid in &self.keys {
                let who = user_of(keyid);
                let op = |op: Op| Step::Op(who, core, op);
                let (line, tag) = (at(X, keyid), at(X, keyid).tagged());
                let own = Place::Core(core);
                moves.push(vec![op(load(X, keyid, 8))]);
                moves.push(vec![op(store(X, keyid, 1))]);
                moves.push(vec![Step::Choice(Choice::Evict(own, tag))]);
                if self.prompt && core > 0 {
                    continue; // what follows has the same effect from every core
                }
                moves.push(vec![op(Op::Clflush { at: line })]);
                let direct = op(movdir64b(X, keyid, 0));
                let partial = op(movnti(X, keyid, 1));
                if self.prompt {
                    moves.push(vec![direct, Step::Choice(Choice::WeakComplete(core, 0))]);
                } else {
                    let tell = Step::Choice(Choice::WcLeave(core, tag));
                    moves.extend([vec![direct], vec![op(Op::Clflushopt { at: line })], vec![tell]]);
                }
                // verification.md §7: partial writes only with KeyID 0.
                if keyid == K0 && self.prompt {
                    moves.push(vec![partial, op(Op::Sfence)]);
                } else if keyid == K0 {
                    moves.push(vec![partial]);
                }
            }
            if !self.prompt {
                moves.push(vec![Step::Choice(Choice::WeakComplete(core, 0))]);
                moves.push(vec![Step::Choice(Choice::WeakComplete(core, 1))]);
                moves.push(vec![Step::Op(Agent::Kernel, core, Op::Mfence)]);
            }
        }
        moves.push(vec![Step::Op(Agent::Kernel, 0, Op::Wbinvd)]);
        moves.push(vec![Step::Op(Agent::Kernel, 0, Op::Wbnoinvd)]);
        if self.ue {
            moves.push(vec![Step::Op(Agent::Kernel, 0, Op::InjectUe { at: at(X, K0) })]);
        }
        moves
    }
}

/// States reached, by a hash first: comparing states all the way is what a search spends its time in.
#[derive(Default)]
struct Reached {
    by_hash: BTreeMap<u64, Vec<State>>,
    count: usize,
}

impl Reached {
    /// Whether the state is new.
    fn insert(&mut self, state: &State) -> bool {
        let mut hasher = FxHasher::default();
        state.hash(&mut hasher);
        let bucket = self.by_hash.entry(hasher.finish()).or_default();
        let new = !bucket.contains(state);
        if new {
            bucket.push(state.clone());
            self.count += 1;
        }
        new
    }
}

/// What a search found.
#[derive(Default)]
struct Found {
    states: usize,
    transitions: usize,
    depth: usize,
    checker: Checker,
    /// The first moves that break an invariant, none shorter, and how many moves they are.
    broken: Option<(usize, Vec<Violation>)>,
    /// Moves to the first #MC of the host, and the causes of all of them.
    host_mc: (Option<usize>, BTreeSet<BirthCause>),
    /// Moves to the first line that is dirty under two KeyIDs.
    alias: Option<usize>,
    /// Whether a TD was given garbage without a signal.
    garbage: bool,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |n: Option<usize>| n.map_or("never".to_owned(), |n| format!("after {n} moves"));
        let Found { states, transitions, depth, .. } = self;
        writeln!(f, "{states} states, {transitions} transitions, depth {depth}")?;
        writeln!(f, "host #MC: {}, causes {:?}", or(self.host_mc.0), self.host_mc.1)?;
        writeln!(f, "dirty alias: {}", or(self.alias))?;
        writeln!(f, "a TD reads garbage: {}", self.garbage)
    }
}

impl Found {
    fn look(&mut self, depth: usize, now: &Reference, step: &Step, out: &StepOutcome) {
        let Step::Op(who, _, _) = step else { return };
        match (who, out.seen) {
            (Agent::Kernel, Seen::MachineCheck { birth, .. }) => {
                self.host_mc.0.get_or_insert(depth);
                self.host_mc.1.extend(now.state().births.get(&birth).map(|b| b.cause));
            }
            (Agent::Td(_), Seen::Data { class: DataClass::Garbage, .. }) => self.garbage = true,
            _ => {}
        }
        let dirty = now.state().caches.iter().filter(|(_, c)| c.state.is_dirty());
        if self.alias.is_none() && dirty.map(|((t, _), _)| t).collect::<BTreeSet<_>>().len() > 1 {
            self.alias = Some(depth);
        }
    }
}

/// Every reachable state, breadth first, until an invariant breaks.
fn search(config: &Config) -> Found {
    let moves = config.moves();
    let start = config.start().without_history();
    let mut reached = Reached::default();
    reached.insert(start.state());
    let mut queue = VecDeque::from([(0, start)]);
    let mut found = Found::default();
    while let Some((depth, model)) = queue.pop_front() {
        found.depth = depth;
        for steps in &moves {
            let (mut before, mut broken) = (Cow::Borrowed(&model), vec![]);
            let mut made = Ok(());
            for step in steps {
                let mut now = before.clone().into_owned();
                let out = match now.step(step) {
                    Ok(out) => out,
                    Err(refused) => {
                        made = Err(refused);
                        break;
                    }
                };
                broken.extend(found.checker.check_step(&before, step, &out, &now));
                found.look(depth + 1, &now, step, &out);
                before = Cow::Owned(now);
            }
            if made.is_err() {
                continue;
            }
            let next = before.into_owned().without_history();
            found.transitions += 1;
            let new = reached.insert(next.state());
            if new {
                broken.extend(found.checker.check_state(&next));
            }
            if !broken.is_empty() {
                found.broken = Some((depth + 1, broken));
                return found;
            }
            if new {
                queue.push_back((depth + 1, next));
            }
        }
    }
    found.states = reached.count;
    found
}

const ALL: [KeyId; 3] = [K0, H1, H2];
const TWO: [KeyId; 2] = [K0, H1];

/// Searches, and says what was found; fails when an invariant broke.
fn explore(config: &Config) -> String {
    let found = search(config);
    assert_eq!(found.broken, None);
    found.to_string()
}

#[test]
fn x1_without_erratum_breaks_nothing() {
    expect![[r#"
        11110 states, 194886 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: true
    "#]]
    .assert_eq(&explore(&Config::new(Li, false, 1, &ALL)));
}
#[test]
fn x1_with_erratum_breaks_nothing() {
    expect![[r#"
        18996 states, 333536 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: true
    "#]]
    .assert_eq(&explore(&Config::new(Li, true, 1, &ALL)));
}
#[test]
fn x2_without_erratum_breaks_nothing() {
    expect![[r#"
        22346 states, 392706 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&explore(&Config::new(Ci, false, 1, &ALL)));
}
#[test]
fn x2_with_erratum_breaks_nothing() {
    expect![[r#"
        31720 states, 557690 transitions, depth 15
        host #MC: after 2 moves, causes {TdMismatch, MacMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&explore(&Config::new(Ci, true, 1, &ALL)));
}

#[test]
fn x5_breaks_nothing_and_is_the_same_in_both_modes_without_erratum() {
    let [ci, li] = [Ci, Li].map(|mode| explore(&Config::new(mode, false, 2, &TWO)));
    assert_eq!(ci, li, "verification.md M5");
    expect![[r#"
        4850 states, 84322 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&ci);
}
#[test]
fn x5_breaks_nothing_and_is_the_same_in_both_modes_with_erratum() {
    let [ci, li] = [Ci, Li].map(|mode| explore(&Config::new(mode, true, 2, &TWO)));
    assert_eq!(ci, li, "verification.md M5");
    expect![[r#"
        7148 states, 124308 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&ci);
}

#[test]
fn weak_order_of_one_core_with_two_keyids_breaks_nothing() {
    let config = Config { prompt: false, ..Config::new(Ci, true, 1, &TWO) };
    expect![[r#"
        5824 states, 99772 transitions, depth 11
        host #MC: after 2 moves, causes {TdMismatch, PartialWrite}
        dirty alias: after 2 moves
        a TD reads garbage: false
    "#]]
    .assert_eq(&explore(&config));
}

#[test]
fn without_erratum_the_host_is_struck_only_behind_a_failed_private_read() {
    // verification.md §0 point 2, by its two steps, and with no private read at all.
    let mut model = Config::new(Li, false, 1, &TWO).start();
    let steps = [H1, K0].map(|k| Step::Op(user_of(k), 0, load(X, k, 8)));
    let seen = steps.map(|step| model.step(&step).unwrap().seen);
    assert!(seen.iter().all(|s| matches!(s, Seen::MachineCheck { .. })), "{seen:?}");
    let mut quiet = Config::new(Ci, false, 2, &[K0]);
    assert_eq!(search(&quiet).host_mc.0, None);
    quiet.ue = true;
    assert_eq!(search(&quiet).host_mc.1, BTreeSet::from([BirthCause::UncorrectableError]));
}

/// What the loads of a program see, with a CLFLUSH put in at `flush`.
fn run(program: &[(KeyId, usize)], flush: Option<(usize, KeyId)>) -> Vec<Option<Bytes>> {
    let mut model = Config::new(Ci, false, 1, &TWO).start();
    let mut seen = vec![];
    for i in 0..=program.len() {
        if let Some((_, keyid)) = flush.filter(|(place, _)| *place == i) {
            let op = Op::Clflush { at: at(X, keyid) };
            model.step(&Step::Op(user_of(keyid), 0, op)).unwrap();
        }
        let Some((keyid, kind)) = program.get(i) else { break };
        let ops = match kind {
            0 => vec![load(X, *keyid, 8)],
            1 => vec![store(X, *keyid, i as u64 + 1)],
            _ => vec![movdir64b(X, *keyid, 7), Op::Sfence],
        };
        for op in ops {
            let out = model.step(&Step::Op(user_of(*keyid), 0, op)).unwrap();
            if *kind == 0 {
                seen.push(match out.seen {
                    // What a core can tell: the bytes, or that there was poison; neither which nor the class.
                    Seen::Data { data, .. } => Some(data),
                    _ => None,
                });
            }
        }
    }
    seen
}

#[test]
fn an_inserted_clflush_changes_results_only_where_keyids_alias() {
    // verification.md §0 point 3 and M1: all programs of four loads, stores and direct stores under two KeyIDs.
    let (mut alone, mut aliased) = ((0, 0), (0, 0));
    for code in 0..6usize.pow(4) {
        let step = |i: u32| code / 6usize.pow(i) % 6;
        let program: Vec<_> = (0..4).map(|i| (TWO[step(i) / 3], step(i) % 3)).collect();
        let single = program.iter().all(|(k, _)| *k == program[0].0);
        let plain = run(&program, None);
        for place in 1..4 {
            for keyid in TWO {
                let differs = run(&program, Some((place, keyid))) != plain;
                let count = if single { &mut alone } else { &mut aliased };
                count.0 += 1;
                count.1 += usize::from(differs);
            }
        }
    }
    assert_eq!(alone.1, 0);
    expect!["(972, 0) (6804, 204)"].assert_eq(&format!("{alone:?} {aliased:?}"));
}

/// Which invariants the first move that shows a mutant breaks.
pub(crate) const KILLERS: [(u8, &[&str]); 11] = [
    (1, &["L1"]),
    (2, &["L2", "L3", "S1", "S4"]),
    (3, &["L2", "L3", "L7", "P4"]),
    (4, &["L7", "P1", "P4", "P8"]),
    (5, &["L4", "L9"]),
    (6, &["C8"]),
    (7, &["C8"]),
    (8, &["C12"]),
    (9, &["C3"]),
    (10, &["C7"]),
    (11, &["L8", "L9", "P1"]),
];

#[test]
fn every_planted_mutant_is_killed_within_five_moves() {
    for (mutant, ids) in KILLERS {
        // Ci with the erratum shows every one of them.
        let mut config = Config::new(Ci, true, 1, &ALL);
        config.spec.mutant = mutant;
        let (moves, broken) = search(&config).broken.expect("the mutant survived");
        let found: BTreeSet<_> = broken.iter().map(|v| v.id).collect();
        assert_eq!(found, ids.iter().copied().collect(), "MU-{mutant} after {moves} moves");
        assert!(moves <= 5, "MU-{mutant} after {moves} moves");
    }
}

#[test]
fn a_line_that_is_dirty_under_two_keyids_is_reachable_unless_a_cache_holds_it_under_one() {
    // C11: in two moves. Caches that give up a line under one KeyID for another never reach it.
    let config = Config::new(Li, false, 1, &TWO);
    let found = search(&config);
    assert_eq!(found.alias, Some(2));
    assert!(found.checker.witnesses("C11") > 0);
    let (mut model, mut checker) = (config.start(), Checker::new());
    for (keyid, other) in [(K0, H1), (H1, K0)] {
        let evict = Choice::Evict(Place::Core(0), at(X, other).tagged());
        let _ = model.step(&Step::Choice(evict)); // there is nothing to evict the first time
        model.step(&Step::Op(user_of(keyid), 0, store(X, keyid, 1))).unwrap();
        assert_eq!(checker.check_state(&model), []);
    }
    assert_eq!(checker.witnesses("C11"), 0);
}

#[test]
fn no_invariant_is_vacuous() {
    let mut runner = TestRunner::deterministic();
    let mut all = Checker::new();
    for walk in 0..400 {
        let mode = if walk % 2 == 0 { Ci } else { Li };
        let mut rig = Rig::new(spec(mode, walk % 4 < 2));
        for _ in 0..60 {
            let step = any_step().new_tree(&mut runner).unwrap().current();
            let _ = rig.try_step(&step);
        }
        all.absorb(&rig.checker);
    }
    let vacuous: Vec<_> = INVARIANTS
        .iter()
        .filter(|i| i.feed == Feed::Reference && all.witnesses(i.id) == 0)
        .collect();
    assert_eq!(vacuous, [] as [&crate::invariants::Invariant; 0]);
}
