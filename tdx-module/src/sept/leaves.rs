//! Which leaf accepts an entry in which state (architecture.md §7.9, the ALLOWED lists), and what ACCEPT makes of it.

use super::{STATES, State};
use sim_core::tdx::Leaf;
use std::fmt::Write;

/// A row of [`LEAF_STATES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafStates {
    /// Which leaf.
    pub leaf: Leaf,
    /// Allowed, and the entry changes as [`super::TRANSITIONS`] has it.
    pub changes: &'static [State],
    /// Allowed, and the entry stays as it is.
    pub keeps: &'static [State],
    /// Source.
    pub cite: &'static str,
}

const fn changes(leaf: Leaf, changes: &'static [State]) -> LeafStates {
    LeafStates { leaf, changes, keeps: &[], cite: "architecture.md §7.9" }
}
const fn keeps(leaf: Leaf, keeps: &'static [State]) -> LeafStates {
    LeafStates { leaf, changes: &[], keeps, cite: "architecture.md §7.9" }
}

use State as S;

const LEAVES: &[State] = &[
    S::Mapped,
    S::Blocked,
    S::BlockedW,
    S::ExportedBlockedW,
    S::ExportedDirty,
    S::ExportedDirtyBlockedW,
    S::Pending,
    S::PendingBlocked,
    S::PendingBlockedW,
    S::PendingExportedBlockedW,
    S::PendingExportedDirty,
    S::PendingExportedDirtyBlockedW,
];
const ALL: &[State] = &{
    let mut all = [S::Free; 16];
    let mut i = 0;
    while i < 16 {
        all[i] = STATES[i].state;
        i += 1;
    }
    all
};

/// The states that each leaf allows, by leaf number. A leaf without a row looks at no entry's state.
#[rustfmt::skip]
pub const LEAF_STATES: &[LeafStates] = &[
    changes(Leaf::MEM_PAGE_ADD, &[S::Free]),
    // NL_MAPPED: "table already there"; it is RDX bit 0 that then decides.
    LeafStates { leaf: Leaf::MEM_SEPT_ADD, changes: &[S::Free], keeps: &[S::NlMapped], cite: "architecture.md §7.9" },
    changes(Leaf::MEM_PAGE_RELOCATE, LEAVES),
    changes(Leaf::MEM_PAGE_AUG, &[S::Free, S::Removed]),
    changes(Leaf::MEM_RANGE_BLOCK, &[S::NlMapped, S::Mapped, S::BlockedW, S::Pending, S::PendingBlockedW]),
    keeps(Leaf::MEM_RD, &[S::Mapped, S::BlockedW, S::ExportedBlockedW, S::ExportedDirty, S::ExportedDirtyBlockedW]),
    keeps(Leaf::MEM_WR, &[S::Mapped, S::ExportedDirty]),
    changes(Leaf::MEM_PAGE_DEMOTE, &[S::Mapped, S::Blocked, S::Pending, S::PendingBlocked]),
    // The sheet gives no list for this leaf.
    LeafStates { leaf: Leaf::MR_EXTEND, changes: &[], keeps: &[S::Mapped], cite: "intel/tdx-module 1.5.01 sept_state_lookup.c" },
    changes(Leaf::MEM_PAGE_PROMOTE, &[S::NlMapped, S::NlBlocked]),
    keeps(Leaf::MEM_SEPT_RD, ALL),
    changes(Leaf::MEM_PAGE_REMOVE, &[S::Mapped, S::Blocked, S::BlockedW, S::Pending, S::PendingBlocked, S::PendingBlockedW]),
    changes(Leaf::MEM_SEPT_REMOVE, &[S::NlMapped, S::NlBlocked]),
    changes(Leaf::MEM_RANGE_UNBLOCK, &[S::NlBlocked, S::Blocked, S::PendingBlocked]),
];

/// Whether a leaf allows an entry in this state (ALLOWED of architecture.md §7.7); `None` for a leaf that looks at no
/// entry's state.
pub fn allowed(leaf: Leaf, state: State) -> Option<bool> {
    LEAF_STATES
        .iter()
        .find(|row| row.leaf == leaf)
        .map(|row| row.changes.contains(&state) || row.keeps.contains(&state))
}

/// What TDG.MEM.PAGE.ACCEPT makes of the entry at which its walk ended (architecture.md §7.9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Accept {
    /// The page is initialised and becomes accessible.
    Accepts,
    /// PAGE_ALREADY_ACCEPTED with the entry's level.
    AlreadyAccepted,
    /// PAGE_SIZE_MISMATCH with the entry's level.
    SizeMismatch,
    /// TD exit: EPT violation with extended qualification type 1.
    Violation,
}

/// A row of [`ACCEPT_OUTCOMES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptRow {
    /// The walk reached the requested level; else it ended above.
    pub at_level: bool,
    /// With the entry in one of these states.
    pub states: &'static [State],
    /// What comes of it.
    pub outcome: Accept,
    /// Source.
    pub cite: &'static str,
}

const fn accepts(at_level: bool, states: &'static [State], outcome: Accept) -> AcceptRow {
    let cite = "architecture.md §7.9 \"TDG.MEM.PAGE.ACCEPT\"";
    AcceptRow { at_level, states, outcome, cite }
}

/// MAPPED, BLOCKEDW and EXPORTED_*: "guest-accessible leaf".
const ACCESSIBLE: &[State] =
    &[S::Mapped, S::BlockedW, S::ExportedBlockedW, S::ExportedDirty, S::ExportedDirtyBlockedW];

/// The outcomes of TDG.MEM.PAGE.ACCEPT by what the walk found, in the order of the sheet. At the requested level the
/// entry's lock is taken first.
#[rustfmt::skip]
pub const ACCEPT_OUTCOMES: &[AcceptRow] = &[
    accepts(false, ACCESSIBLE, Accept::AlreadyAccepted),
    accepts(false, &[
        S::Free, S::Removed, S::NlMapped, S::NlBlocked, S::Blocked, S::Pending, S::PendingBlocked, S::PendingBlockedW,
        S::PendingExportedBlockedW, S::PendingExportedDirty, S::PendingExportedDirtyBlockedW,
    ], Accept::Violation),
    accepts(true, &[S::Removed, S::NlMapped, S::NlBlocked], Accept::SizeMismatch),
    accepts(true, ACCESSIBLE, Accept::AlreadyAccepted),
    accepts(true, &[S::Pending, S::PendingExportedDirty], Accept::Accepts),
    accepts(true, &[
        S::Free, S::Blocked, S::PendingBlocked, S::PendingBlockedW, S::PendingExportedBlockedW,
        S::PendingExportedDirtyBlockedW,
    ], Accept::Violation),
];

/// What TDG.MEM.PAGE.ACCEPT makes of an entry in this state, at the requested level or above it. (A walk does not end
/// above the level at an NL_MAPPED entry.)
pub fn accept(at_level: bool, state: State) -> Accept {
    ACCEPT_OUTCOMES
        .iter()
        .find(|row| row.at_level == at_level && row.states.contains(&state))
        // The last row of each half is "anything else".
        .map_or(Accept::Violation, |row| row.outcome)
}

fn names(states: &[State]) -> String {
    let names: Vec<&str> = states.iter().map(|state| state.name()).collect();
    names.join(", ")
}

/// [`LEAF_STATES`] as a table of the book.
pub fn leaf_states_markdown() -> String {
    let mut out = String::from(
        "| Leaf | Allowed, changes the entry | Allowed, keeps the entry | Source |\n|---|---|---|---|\n",
    );
    for LeafStates { leaf, changes, keeps, cite } in LEAF_STATES {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "| {leaf} | {} | {} | {cite} |", names(changes), names(keeps));
    }
    out
}

/// [`ACCEPT_OUTCOMES`] as a table of the book.
pub fn accept_markdown() -> String {
    let mut out = String::from("| Walk ended | States | Outcome | Source |\n|---|---|---|---|\n");
    for AcceptRow { at_level, states, outcome, cite } in ACCEPT_OUTCOMES {
        let place = if *at_level { "at the level" } else { "above the level" };
        let outcome = match outcome {
            Accept::Accepts => "accepted",
            Accept::AlreadyAccepted => "TDX_PAGE_ALREADY_ACCEPTED",
            Accept::SizeMismatch => "TDX_PAGE_SIZE_MISMATCH",
            Accept::Violation => "TD exit, EPT violation",
        };
        let _ = writeln!(out, "| {place} | {} | {outcome} | {cite} |", names(states));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{OPS, SeptOp, TRANSITIONS, next};
    use super::*;
    use crate::op_state::PERMISSIONS;
    use expect_test::expect;
    use sim_core::tdx::{Check, LEAF_CHECKS, Status};

    #[test]
    fn no_leaf_has_two_lists_and_no_state_is_listed_twice() {
        let leaves: Vec<Leaf> = LEAF_STATES.iter().map(|r| r.leaf).collect();
        let mut sorted = leaves.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(leaves, sorted);
        for row in LEAF_STATES {
            let mut all: Vec<State> = row.changes.iter().chain(row.keeps).copied().collect();
            let listed = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!((all.len(), listed > 0), (listed, true), "{}", row.leaf);
        }
    }

    #[test]
    fn a_leaf_changes_exactly_the_states_from_which_it_has_a_transition() {
        for t in TRANSITIONS {
            if let Some(leaf) = t.op.leaf() {
                assert_eq!(allowed(leaf, t.from), Some(true), "{leaf} {}", t.from);
            }
        }
        for row in LEAF_STATES {
            let ops: Vec<SeptOp> =
                OPS.into_iter().filter(|op| op.leaf() == Some(row.leaf)).collect();
            for state in STATES.map(|r| r.state) {
                let (changes, keeps) = (row.changes.contains(&state), row.keeps.contains(&state));
                assert_eq!(allowed(row.leaf, state), Some(changes || keeps));
                for op in &ops {
                    assert_eq!(next(*op, state).is_some(), changes, "{op} {state}");
                }
                assert!(!ops.is_empty() || !changes, "{} has no transition", row.leaf);
            }
        }
    }

    #[test]
    fn the_leaves_with_a_list_are_those_whose_checks_look_at_the_state() {
        for row in LEAF_CHECKS {
            let looks = row.checks.iter().any(|c| matches!(c, Check::Allowed(_)));
            // SEPT.RD allows all; MR.EXTEND answers with another status.
            let other = [Leaf::MEM_SEPT_RD, Leaf::MR_EXTEND].contains(&row.leaf);
            let listed = allowed(row.leaf, State::Mapped).is_some();
            assert_eq!(listed, looks || other, "{}", row.leaf);
        }
        let not_present =
            |c: &Check| *c == Check::Is(Status::EPT_ENTRY_NOT_PRESENT, "the entry is not MAPPED");
        assert!(Leaf::MR_EXTEND.checks().is_some_and(|row| row.checks.iter().any(not_present)));
        assert_eq!(allowed(Leaf::MNG_CREATE, State::Free), None);
    }

    #[test]
    fn the_words_of_the_checks_name_the_states_of_the_list() {
        for row in LEAF_STATES {
            let words =
                row.leaf.checks().into_iter().flat_map(|r| r.checks).find_map(|c| match c {
                    Check::Allowed(words) => Some(*words),
                    _ => None,
                });
            let Some(words) = words.filter(|w| *w != "any leaf with a page") else { continue };
            let exported = words.contains("EXPORTED_*");
            let named: Vec<&str> = words.split([' ', ',']).collect();
            for state in STATES {
                let family = exported && state.name.starts_with("EXPORTED_");
                let said = named.contains(&state.name) || family;
                assert_eq!(allowed(row.leaf, state.state), Some(said), "{} {words}", row.leaf);
            }
        }
    }

    #[test]
    fn every_leaf_with_a_list_checks_op_state_too() {
        for row in LEAF_STATES {
            assert!(PERMISSIONS.iter().any(|p| p.leaf == row.leaf), "{}", row.leaf);
        }
    }

    #[test]
    fn accept_decides_every_state_once_at_and_above_the_level() {
        for at_level in [false, true] {
            for state in STATES.map(|r| r.state) {
                let rows: Vec<&AcceptRow> = ACCEPT_OUTCOMES
                    .iter()
                    .filter(|r| r.at_level == at_level && r.states.contains(&state))
                    .collect();
                assert_eq!(rows.len(), 1, "{at_level} {state}");
                assert_eq!(accept(at_level, state), rows[0].outcome);
            }
        }
    }

    #[test]
    fn accept_follows_the_walk_table_of_the_sheet() {
        for state in STATES.map(|r| r.state) {
            let accessible = state.is_accessible_leaf();
            let above = if accessible { Accept::AlreadyAccepted } else { Accept::Violation };
            assert_eq!(accept(false, state), above, "{state}");
            let at = if !state.is_leaf() && state != State::Free {
                Accept::SizeMismatch
            } else if accessible {
                Accept::AlreadyAccepted
            } else if next(SeptOp::Accept, state).is_some() {
                Accept::Accepts
            } else {
                Accept::Violation
            };
            assert_eq!(accept(true, state), at, "{state}");
        }
    }

    #[test]
    fn the_lists_as_the_book_prints_them() {
        expect![[r#"
            | Leaf | Allowed, changes the entry | Allowed, keeps the entry | Source |
            |---|---|---|---|
            | TDH.MEM.PAGE.ADD | FREE |  | architecture.md §7.9 |
            | TDH.MEM.SEPT.ADD | FREE | NL_MAPPED | architecture.md §7.9 |
            | TDH.MEM.PAGE.RELOCATE | MAPPED, BLOCKED, BLOCKEDW, EXPORTED_BLOCKEDW, EXPORTED_DIRTY, EXPORTED_DIRTY_BLOCKEDW, PENDING, PENDING_BLOCKED, PENDING_BLOCKEDW, PENDING_EXPORTED_BLOCKEDW, PENDING_EXPORTED_DIRTY, PENDING_EXPORTED_DIRTY_BLOCKEDW |  | architecture.md §7.9 |
            | TDH.MEM.PAGE.AUG | FREE, REMOVED |  | architecture.md §7.9 |
            | TDH.MEM.RANGE.BLOCK | NL_MAPPED, MAPPED, BLOCKEDW, PENDING, PENDING_BLOCKEDW |  | architecture.md §7.9 |
            | TDH.MEM.RD |  | MAPPED, BLOCKEDW, EXPORTED_BLOCKEDW, EXPORTED_DIRTY, EXPORTED_DIRTY_BLOCKEDW | architecture.md §7.9 |
            | TDH.MEM.WR |  | MAPPED, EXPORTED_DIRTY | architecture.md §7.9 |
            | TDH.MEM.PAGE.DEMOTE | MAPPED, BLOCKED, PENDING, PENDING_BLOCKED |  | architecture.md §7.9 |
            | TDH.MR.EXTEND |  | MAPPED | intel/tdx-module 1.5.01 sept_state_lookup.c |
            | TDH.MEM.PAGE.PROMOTE | NL_MAPPED, NL_BLOCKED |  | architecture.md §7.9 |
            | TDH.MEM.SEPT.RD |  | FREE, REMOVED, NL_MAPPED, NL_BLOCKED, MAPPED, BLOCKED, BLOCKEDW, EXPORTED_BLOCKEDW, EXPORTED_DIRTY, EXPORTED_DIRTY_BLOCKEDW, PENDING, PENDING_BLOCKED, PENDING_BLOCKEDW, PENDING_EXPORTED_BLOCKEDW, PENDING_EXPORTED_DIRTY, PENDING_EXPORTED_DIRTY_BLOCKEDW | architecture.md §7.9 |
            | TDH.MEM.PAGE.REMOVE | MAPPED, BLOCKED, BLOCKEDW, PENDING, PENDING_BLOCKED, PENDING_BLOCKEDW |  | architecture.md §7.9 |
            | TDH.MEM.SEPT.REMOVE | NL_MAPPED, NL_BLOCKED |  | architecture.md §7.9 |
            | TDH.MEM.RANGE.UNBLOCK | NL_BLOCKED, BLOCKED, PENDING_BLOCKED |  | architecture.md §7.9 |
        "#]].assert_eq(&leaf_states_markdown());
        expect![[r#"
            | Walk ended | States | Outcome | Source |
            |---|---|---|---|
            | above the level | MAPPED, BLOCKEDW, EXPORTED_BLOCKEDW, EXPORTED_DIRTY, EXPORTED_DIRTY_BLOCKEDW | TDX_PAGE_ALREADY_ACCEPTED | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | above the level | FREE, REMOVED, NL_MAPPED, NL_BLOCKED, BLOCKED, PENDING, PENDING_BLOCKED, PENDING_BLOCKEDW, PENDING_EXPORTED_BLOCKEDW, PENDING_EXPORTED_DIRTY, PENDING_EXPORTED_DIRTY_BLOCKEDW | TD exit, EPT violation | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | at the level | REMOVED, NL_MAPPED, NL_BLOCKED | TDX_PAGE_SIZE_MISMATCH | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | at the level | MAPPED, BLOCKEDW, EXPORTED_BLOCKEDW, EXPORTED_DIRTY, EXPORTED_DIRTY_BLOCKEDW | TDX_PAGE_ALREADY_ACCEPTED | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | at the level | PENDING, PENDING_EXPORTED_DIRTY | accepted | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | at the level | FREE, BLOCKED, PENDING_BLOCKED, PENDING_BLOCKEDW, PENDING_EXPORTED_BLOCKEDW, PENDING_EXPORTED_DIRTY_BLOCKEDW | TD exit, EPT violation | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
        "#]].assert_eq(&accept_markdown());
    }
}
