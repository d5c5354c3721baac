//! Exhaustive search of a transition system, breadth first: every reachable state once, in an order that depends on
//! nothing but the system (verification.md §5.3).
//!
//! States are compared exactly; a hash only says where to look. A state is stored once, with the number of the state it was
//! reached from, so that the shortest way to any of them can be told without storing ways.
//!
//! Two reductions can be asked of the system, which must know that they are sound for what it wants to learn:
//!
//! - *Symmetry* ([`System::canonical`]): states that differ only by a renaming are one. The renaming must map moves to moves
//!   and what is looked for to itself.
//! - *Partial order* ([`System::ample`]): of the moves of a state only some are taken, when the others commute with them
//!   and stay possible. Should all of these lead back to states that have been expanded already, the others are taken too,
//!   so that no move is put off for ever (the breadth-first form of the cycle proviso).

use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

/// A transition system: what can happen next in a state.
pub trait System {
    /// A state. All of it counts: two states that compare equal have the same future.
    type State: Clone + Eq + Hash;
    /// What leads from a state to the next.
    type Move: Clone;

    /// Every move that may be possible in a state, in a fixed order, appended to `out`.
    fn moves(&self, state: &Self::State, out: &mut Vec<Self::Move>);

    /// Makes a move; `None` when it is not possible after all. It may leave notes about the move for
    /// [`System::visited`]; it is also called to tell a trace, without `visited` after it.
    fn apply(&mut self, state: &Self::State, mv: &Self::Move) -> Option<Self::State>;

    /// As [`System::apply`], into `next`, of which nothing is left, with `false` for `None` (and then `next` may hold
    /// anything). A system whose states own memory does better than the default by taking over that of `next`.
    fn apply_into(&mut self, state: &Self::State, mv: &Self::Move, next: &mut Self::State) -> bool {
        match self.apply(state, mv) {
            Some(made) => {
                *next = made;
                true
            }
            None => false,
        }
    }

    /// Makes of a state the representative of its symmetry class; leaves it alone where there is no symmetry.
    fn canonical(&mut self, state: &mut Self::State) {
        let _ = state;
    }

    /// Puts first those of a state's moves that are enough, and says how many they are (partial-order reduction). All of
    /// them by default.
    fn ample(&mut self, state: &Self::State, moves: &mut Vec<Self::Move>) -> usize {
        let _ = state;
        moves.len()
    }

    /// Whether no sequence of moves leads back to a state: then no move can be put off for ever, and the ample ones are
    /// always enough.
    fn acyclic(&self) -> bool {
        false
    }

    /// Told of every transition once it has been made. [`ControlFlow::Break`] ends the search.
    fn visited(&mut self, visit: &Visit<'_, Self>) -> ControlFlow<()> {
        let _ = visit;
        ControlFlow::Continue(())
    }
}

/// A transition that was made.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a, S: System + ?Sized> {
    /// Number of the state it was made in.
    pub from: usize,
    /// Number of the state it led to.
    pub to: usize,
    /// The state it was made in.
    pub before: &'a S::State,
    /// What was done.
    pub mv: &'a S::Move,
    /// The state it led to, canonical.
    pub after: &'a S::State,
    /// Whether that state had not been reached before.
    pub new: bool,
    /// How many moves from the start `after` is, on this way.
    pub depth: u32,
}

/// How far a search may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Different states.
    pub states: usize,
    /// Transitions made.
    pub transitions: u64,
    /// Moves from the start.
    pub depth: u32,
}

impl Budget {
    /// No bound but that of memory and of the numbering of states.
    pub const UNBOUNDED: Budget =
        Budget { states: u32::MAX as usize - 1, transitions: u64::MAX, depth: u32::MAX };
}

/// Why a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Everything reachable has been seen.
    Exhausted,
    /// The system had seen enough ([`System::visited`]).
    Stopped,
    /// There are more states than the budget allows.
    States,
    /// There are more transitions than the budget allows.
    Transitions,
    /// There may be states further from the start than the budget allows: one at its bound has moves.
    Depth,
}

/// What a search has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Searched {
    /// Different states reached, the start among them.
    pub states: usize,
    /// Transitions made, those to states already known among them.
    pub transitions: u64,
    /// Moves from the start to the furthest state reached.
    pub depth: u32,
    /// Why it ended.
    pub end: End,
}

impl Searched {
    /// Whether everything reachable has been seen.
    pub fn exhausted(&self) -> bool {
        self.end == End::Exhausted
    }
}

/// How a state was reached first.
#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    parent: u32,
    /// The move's place among the parent's.
    mv: u32,
    depth: u32,
}

/// A search and all that it has reached.
pub struct Search<S: System> {
    /// The system, with what it has noted.
    pub system: S,
    start: S::State,
    states: Vec<S::State>,
    nodes: Vec<Node>,
    /// Open addressing: number of a state plus one, or 0; a power of two of them, at most half in use.
    slots: Vec<u32>,
    /// The state to be expanded next: states are numbered in the order in which they are reached.
    next: usize,
    transitions: u64,
}

fn hash_of<T: Hash>(state: &T) -> u64 {
    let mut hasher = FxHasher::default();
    state.hash(&mut hasher);
    hasher.finish()
}

impl<S: System> Search<S> {
    /// A search that knows its start only, which is state 0.
    pub fn new(mut system: S, start: S::State) -> Search<S> {
        let mut first = start.clone();
        system.canonical(&mut first);
        let node = Node { hash: hash_of(&first), parent: 0, mv: 0, depth: 0 };
        let mut search = Search {
            system,
            start,
            states: vec![first],
            nodes: vec![node],
            slots: vec![0; 1024],
            next: 0,
            transitions: 0,
        };
        search.rehash(1024);
        search
    }

    /// A state by its number.
    pub fn state(&self, number: usize) -> Option<&S::State> {
        self.states.get(number)
    }
    /// All states reached, in the order in which they were reached.
    pub fn states(&self) -> &[S::State] {
        &self.states
    }
    /// How many moves from the start a state is, at least (exactly so without partial-order reduction).
    pub fn depth(&self, number: usize) -> Option<u32> {
        self.nodes.get(number).map(|n| n.depth)
    }

    fn rehash(&mut self, size: usize) {
        self.slots.clear();
        self.slots.resize(size, 0);
        for (i, node) in self.nodes.iter().enumerate() {
            let mut slot = node.hash as usize & (size - 1);
            while self.slots.get(slot).is_some_and(|s| *s != 0) {
                slot = (slot + 1) & (size - 1);
            }
            if let Some(free) = self.slots.get_mut(slot) {
                *free = i as u32 + 1;
            }
        }
    }
    /// The number of a state that is known, or the slot for it.
    fn find(&self, hash: u64, state: &S::State) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let number = match self.slots.get(slot) {
                Some(s) if *s > 0 => *s as usize - 1,
                _ => return Err(slot),
            };
            let same = self.nodes.get(number).is_some_and(|n| n.hash == hash);
            if same && self.states.get(number) == Some(state) {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }
    fn insert(&mut self, slot: usize, state: S::State, node: Node) -> usize {
        let number = self.states.len();
        self.states.push(state);
        self.nodes.push(node);
        if let Some(free) = self.slots.get_mut(slot) {
            *free = number as u32 + 1;
        }
        if self.states.len() * 2 > self.slots.len() {
            self.rehash(self.slots.len() * 2);
        }
        number
    }

    /// Searches until everything is seen, the system has seen enough, or the budget is used up. A budget is the total's: a
    /// search that ended for its budget of depth goes on when called with a larger one; one that ended for another
    /// budget, or was stopped, has made some of a state's moves and makes them again.
    pub fn run(&mut self, budget: Budget) -> Searched {
        let end = self.advance(budget).err().unwrap_or(End::Exhausted);
        let depth = self.nodes.last().map_or(0, |n| n.depth);
        Searched { states: self.states.len(), transitions: self.transitions, depth, end }
    }

    fn advance(&mut self, budget: Budget) -> Result<(), End> {
        let mut moves = vec![];
        let mut scratch = self.start.clone();
        let states = budget.states.min(Budget::UNBOUNDED.states);
        while let (Some(state), Some(node)) =
            (self.states.get(self.next), self.nodes.get(self.next))
        {
            let depth = node.depth;
            moves.clear();
            self.system.moves(state, &mut moves);
            if depth >= budget.depth {
                if moves.is_empty() {
                    self.next += 1;
                    continue;
                }
                return Err(End::Depth);
            }
            let few = self.system.ample(state, &mut moves).min(moves.len());
            let mut onward = self.system.acyclic();
            for (i, mv) in moves.iter().enumerate() {
                // The rest only if the ample ones all led back (cycle proviso).
                if i == few && onward {
                    break;
                }
                let Some(state) = self.states.get(self.next) else { break };
                if !self.system.apply_into(state, mv, &mut scratch) {
                    continue;
                }
                if self.transitions >= budget.transitions {
                    return Err(End::Transitions);
                }
                self.transitions += 1;
                self.system.canonical(&mut scratch);
                let hash = hash_of(&scratch);
                let (to, new) = match self.find(hash, &scratch) {
                    Ok(known) => (known, false),
                    Err(_) if self.states.len() >= states => return Err(End::States),
                    Err(slot) => {
                        let (parent, mv) = (self.next as u32, i as u32);
                        let node = Node { hash, parent, mv, depth: depth + 1 };
                        (self.insert(slot, scratch.clone(), node), true)
                    }
                };
                onward |= to > self.next;
                if let (Some(before), Some(after)) =
                    (self.states.get(self.next), self.states.get(to))
                {
                    let from = self.next;
                    let visit = Visit { from, to, before, mv, after, new, depth: depth + 1 };
                    if self.system.visited(&visit).is_break() {
                        return Err(End::Stopped);
                    }
                }
            }
            self.next += 1;
        }
        Ok(())
    }

    /// The moves from the start to a state, none shorter (without partial-order reduction), and the state they lead to.
    /// Where the system renames, these are moves of a real run from the start as it was given: at each step the move as it
    /// was made is tried first, then the others, until one leads into the class of the next state. `None` when there is no
    /// such state, or the system is not as symmetric as it says.
    pub fn trace(&mut self, number: usize) -> Option<(Vec<S::Move>, S::State)> {
        let mut way = vec![];
        let mut at = number;
        while at != 0 {
            let node = self.nodes.get(at)?;
            way.push((at, node.mv as usize));
            at = node.parent as usize;
        }
        let mut now = self.start.clone();
        let (mut trace, mut moves) = (Vec::with_capacity(way.len()), vec![]);
        for (to, first) in way.into_iter().rev() {
            moves.clear();
            self.system.moves(&now, &mut moves);
            self.system.ample(&now, &mut moves);
            let order = std::iter::once(first).chain(0..moves.len());
            let found = order.into_iter().find_map(|i| {
                let mv = moves.get(i)?;
                let next = self.system.apply(&now, mv)?;
                let mut class = next.clone();
                self.system.canonical(&mut class);
                (self.states.get(to) == Some(&class)).then(|| (mv.clone(), next))
            });
            let (mv, next) = found?;
            trace.push(mv);
            now = next;
        }
        Some((trace, now))
    }
}

#[cfg(test)]
mod tests;
