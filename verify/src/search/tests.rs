//! The engine on systems whose reachable states can be counted by hand.

use super::{Budget, End, Search, System, Visit};
use std::ops::ControlFlow;

/// Counters, each counting up to `max`; a move is the number of a counter.
#[derive(Clone, Default)]
struct Counters {
    count: usize,
    max: u8,
    sorted: bool,
    ample: bool,
    stop_at: Option<Vec<u8>>,
    stopped: Option<(usize, usize)>,
    /// A counter at its limit begins anew.
    round: bool,
}

impl System for Counters {
    type State = Vec<u8>;
    type Move = usize;
    fn moves(&self, _: &Vec<u8>, out: &mut Vec<usize>) {
        out.extend(0..self.count);
    }
    fn apply(&mut self, state: &Vec<u8>, mv: &usize) -> Option<Vec<u8>> {
        let mut next = state.clone();
        if next[*mv] >= self.max && self.round {
            next[*mv] = 0;
            return Some(next);
        }
        next[*mv] += 1;
        (next[*mv] <= self.max).then_some(next)
    }
    fn canonical(&mut self, state: &mut Vec<u8>) {
        if self.sorted {
            state.sort_unstable();
        }
    }
    fn ample(&mut self, state: &Vec<u8>, moves: &mut Vec<usize>) -> usize {
        if !self.ample {
            return moves.len();
        }
        let Some(first) = moves.iter().position(|m| self.round || state[*m] < self.max) else {
            return moves.len();
        };
        moves.swap(0, first);
        1
    }
    fn visited(&mut self, visit: &Visit<'_, Self>) -> ControlFlow<()> {
        if Some(visit.after) == self.stop_at.as_ref() {
            self.stopped = Some((visit.to, visit.depth as usize));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn counters(count: usize, max: u8) -> Counters {
    Counters { count, max, ..Counters::default() }
}

fn start(system: &Counters) -> Vec<u8> {
    vec![0; system.count]
}

#[test]
fn every_reachable_state_is_reached_once() {
    let system = counters(3, 4);
    let mut search = Search::new(system.clone(), start(&system));
    let done = search.run(Budget::UNBOUNDED);
    // 5^3 states; each counter has 4 ways up from each of the 25 states of the others.
    assert_eq!((done.states, done.transitions, done.depth), (125, 300, 12));
    assert!(done.exhausted());
    let mut all = search.states().to_vec();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 125);
}

#[test]
fn many_states_are_found_again_after_the_table_has_grown() {
    let system = counters(4, 9);
    let done = Search::new(system.clone(), start(&system)).run(Budget::UNBOUNDED);
    assert_eq!((done.states, done.transitions, done.depth), (10_000, 36_000, 36));
}

#[test]
fn the_trace_of_a_state_is_a_shortest_run_to_it() {
    let system = counters(3, 4);
    let mut search = Search::new(system.clone(), start(&system));
    search.run(Budget::UNBOUNDED);
    for number in 0..125 {
        let state = search.state(number).cloned().unwrap();
        let (moves, end) = search.trace(number).unwrap();
        assert_eq!(end, state);
        assert_eq!(moves.len(), state.iter().map(|c| *c as usize).sum::<usize>());
        assert_eq!(search.depth(number), Some(moves.len() as u32));
    }
    assert_eq!(search.trace(125), None);
}

#[test]
fn each_budget_ends_the_search_and_says_which_it_was() {
    let system = counters(3, 4);
    let run = |budget: Budget| Search::new(system.clone(), start(&system)).run(budget);
    let of = |b: Budget| (run(b).end, run(b).states, run(b).transitions);
    let all = Budget::UNBOUNDED;
    assert_eq!(of(Budget { states: 50, ..all }).0, End::States);
    assert_eq!(of(Budget { states: 50, ..all }).1, 50);
    assert_eq!(of(Budget { transitions: 70, ..all }).2, 70);
    assert_eq!(of(Budget { transitions: 70, ..all }).0, End::Transitions);
    // Sums 0, 1, 2.
    assert_eq!(of(Budget { depth: 2, ..all }), (End::Depth, 1 + 3 + 6, 3 + 9));
    // Budgets that are just enough.
    let enough = Budget { states: 125, transitions: 300, depth: 13 };
    assert_eq!(of(enough), (End::Exhausted, 125, 300));
    let short = Budget { transitions: 299, ..enough };
    assert_eq!(run(short).end, End::Transitions);
}

#[test]
fn a_search_goes_on_where_its_depth_ended_it() {
    let system = counters(3, 4);
    let mut search = Search::new(system.clone(), start(&system));
    assert_eq!(search.run(Budget { depth: 3, ..Budget::UNBOUNDED }).end, End::Depth);
    let done = search.run(Budget::UNBOUNDED);
    assert_eq!((done.end, done.states, done.transitions), (End::Exhausted, 125, 300));
}

#[test]
fn a_system_that_has_seen_enough_stops_the_search() {
    let mut system = counters(3, 4);
    system.stop_at = Some(vec![1, 0, 2]);
    let mut search = Search::new(system.clone(), start(&system));
    assert_eq!(search.run(Budget::UNBOUNDED).end, End::Stopped);
    let (to, depth) = search.system.stopped.unwrap();
    assert_eq!(depth, 3);
    assert_eq!(search.trace(to).unwrap().1, vec![1, 0, 2]);
}

#[test]
fn symmetric_states_are_one_and_traces_are_still_real_runs() {
    let system = Counters { sorted: true, ..counters(3, 4) };
    let mut search = Search::new(system.clone(), start(&system));
    let done = search.run(Budget::UNBOUNDED);
    assert_eq!(done.states, 35, "multisets of three out of five");
    for number in 0..35 {
        let (moves, end) = search.trace(number).unwrap();
        let mut run = start(&system);
        for m in moves {
            run[m] += 1;
        }
        assert_eq!(run, end);
        run.sort_unstable();
        assert_eq!(Some(&run), search.state(number));
    }
}

#[test]
fn one_order_of_independent_moves_is_enough_to_reach_the_end() {
    let system = Counters { ample: true, ..counters(3, 4) };
    let mut search = Search::new(system.clone(), start(&system));
    let done = search.run(Budget::UNBOUNDED);
    assert_eq!((done.states, done.transitions), (13, 12));
    assert!(search.states().contains(&vec![4, 4, 4]));
}

#[test]
fn a_move_is_not_put_off_for_ever_round_a_cycle() {
    // The first counter goes round and round: it alone would always be enough.
    let system = Counters { ample: true, round: true, ..counters(2, 3) };
    let mut search = Search::new(system.clone(), start(&system));
    search.run(Budget::UNBOUNDED);
    assert!(search.states().iter().any(|s| s[1] == 3), "{:?}", search.states());
}
