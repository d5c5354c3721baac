//! The transitions of a Secure-EPT entry (architecture.md §7.6 "Transitions"), without migration.

use super::State;
use sim_core::tdx::Leaf;
use std::fmt::{self, Write};

/// What changes the state of an entry. Where the sheet's new state depends on more than the old one, there is one
/// operation for each case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SeptOp {
    /// TDH.MEM.SEPT.ADD.
    SeptAdd,
    /// TDH.MEM.PAGE.ADD.
    PageAdd,
    /// TDH.MEM.PAGE.AUG.
    PageAug,
    /// TDG.MEM.PAGE.ACCEPT, finished.
    Accept,
    /// TDH.MEM.RANGE.BLOCK.
    RangeBlock,
    /// TDH.MEM.RANGE.UNBLOCK.
    RangeUnblock,
    /// TDH.MEM.PAGE.REMOVE, when no import is in progress ([`crate::op_state::import_in_progress`]).
    PageRemove,
    /// TDH.MEM.PAGE.REMOVE during an import.
    PageRemoveImport,
    /// TDH.MEM.PAGE.RELOCATE.
    PageRelocate,
    /// TDH.MEM.PAGE.DEMOTE: the entry that was split. The 512 below get the old state unblocked ([`State::unblocked`]).
    PageDemote,
    /// TDH.MEM.PAGE.PROMOTE over 512 MAPPED children.
    PagePromote,
    /// TDH.MEM.PAGE.PROMOTE over 512 PENDING children.
    PagePromotePending,
    /// TDH.MEM.SEPT.REMOVE.
    SeptRemove,
}

/// All operations, in the order of the sheet.
pub const OPS: [SeptOp; 13] = [
    SeptOp::SeptAdd,
    SeptOp::PageAdd,
    SeptOp::PageAug,
    SeptOp::Accept,
    SeptOp::RangeBlock,
    SeptOp::RangeUnblock,
    SeptOp::PageRemove,
    SeptOp::PageRemoveImport,
    SeptOp::PageRelocate,
    SeptOp::PageDemote,
    SeptOp::PagePromote,
    SeptOp::PagePromotePending,
    SeptOp::SeptRemove,
];

impl SeptOp {
    /// The SEAMCALL leaf that does it; `None` for ACCEPT, which is a TDCALL.
    pub const fn leaf(self) -> Option<Leaf> {
        Some(match self {
            SeptOp::SeptAdd => Leaf::MEM_SEPT_ADD,
            SeptOp::PageAdd => Leaf::MEM_PAGE_ADD,
            SeptOp::PageAug => Leaf::MEM_PAGE_AUG,
            SeptOp::Accept => return None,
            SeptOp::RangeBlock => Leaf::MEM_RANGE_BLOCK,
            SeptOp::RangeUnblock => Leaf::MEM_RANGE_UNBLOCK,
            SeptOp::PageRemove | SeptOp::PageRemoveImport => Leaf::MEM_PAGE_REMOVE,
            SeptOp::PageRelocate => Leaf::MEM_PAGE_RELOCATE,
            SeptOp::PageDemote => Leaf::MEM_PAGE_DEMOTE,
            SeptOp::PagePromote | SeptOp::PagePromotePending => Leaf::MEM_PAGE_PROMOTE,
            SeptOp::SeptRemove => Leaf::MEM_SEPT_REMOVE,
        })
    }
    /// The sheet's name, with the case where it has several.
    pub const fn name(self) -> &'static str {
        match self {
            SeptOp::SeptAdd => "SEPT.ADD",
            SeptOp::PageAdd => "PAGE.ADD",
            SeptOp::PageAug => "PAGE.AUG",
            SeptOp::Accept => "ACCEPT",
            SeptOp::RangeBlock => "RANGE.BLOCK",
            SeptOp::RangeUnblock => "RANGE.UNBLOCK",
            SeptOp::PageRemove => "PAGE.REMOVE",
            SeptOp::PageRemoveImport => "PAGE.REMOVE (during import)",
            SeptOp::PageRelocate => "PAGE.RELOCATE",
            SeptOp::PageDemote => "PAGE.DEMOTE",
            SeptOp::PagePromote => "PAGE.PROMOTE (over MAPPED)",
            SeptOp::PagePromotePending => "PAGE.PROMOTE (over PENDING)",
            SeptOp::SeptRemove => "SEPT.REMOVE",
        }
    }
}

impl fmt::Display for SeptOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row of [`TRANSITIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// What happens.
    pub op: SeptOp,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// Source.
    pub cite: &'static str,
}

const fn row(op: SeptOp, from: State, to: State) -> Transition {
    Transition { op, from, to, cite: "architecture.md §7.6 \"Transitions\"" }
}

use SeptOp as O;
use State as S;

/// The transitions, in the order of the sheet; a pair without a row is refused.
#[rustfmt::skip]
pub const TRANSITIONS: &[Transition] = &[
    row(O::SeptAdd,            S::Free,                         S::NlMapped),
    row(O::PageAdd,            S::Free,                         S::Mapped),
    row(O::PageAug,            S::Free,                         S::Pending),
    row(O::PageAug,            S::Removed,                      S::Pending),
    row(O::Accept,             S::Pending,                      S::Mapped),
    row(O::Accept,             S::PendingExportedDirty,         S::ExportedDirty),
    row(O::RangeBlock,         S::NlMapped,                     S::NlBlocked),
    row(O::RangeBlock,         S::Mapped,                       S::Blocked),
    row(O::RangeBlock,         S::BlockedW,                     S::Blocked),
    row(O::RangeBlock,         S::Pending,                      S::PendingBlocked),
    row(O::RangeBlock,         S::PendingBlockedW,              S::PendingBlocked),
    row(O::RangeUnblock,       S::NlBlocked,                    S::NlMapped),
    row(O::RangeUnblock,       S::Blocked,                      S::Mapped),
    row(O::RangeUnblock,       S::PendingBlocked,               S::Pending),
    row(O::PageRemove,         S::Mapped,                       S::Free),
    row(O::PageRemove,         S::Blocked,                      S::Free),
    row(O::PageRemove,         S::BlockedW,                     S::Free),
    row(O::PageRemove,         S::Pending,                      S::Free),
    row(O::PageRemove,         S::PendingBlocked,               S::Free),
    row(O::PageRemove,         S::PendingBlockedW,              S::Free),
    row(O::PageRemoveImport,   S::Mapped,                       S::Removed),
    row(O::PageRemoveImport,   S::Blocked,                      S::Removed),
    row(O::PageRemoveImport,   S::BlockedW,                     S::Removed),
    row(O::PageRemoveImport,   S::Pending,                      S::Removed),
    row(O::PageRemoveImport,   S::PendingBlocked,               S::Removed),
    row(O::PageRemoveImport,   S::PendingBlockedW,              S::Removed),
    row(O::PageRelocate,       S::Mapped,                       S::Mapped),
    row(O::PageRelocate,       S::Blocked,                      S::Mapped),
    row(O::PageRelocate,       S::BlockedW,                     S::BlockedW),
    row(O::PageRelocate,       S::ExportedBlockedW,             S::ExportedBlockedW),
    row(O::PageRelocate,       S::ExportedDirty,                S::ExportedDirty),
    row(O::PageRelocate,       S::ExportedDirtyBlockedW,        S::ExportedDirtyBlockedW),
    row(O::PageRelocate,       S::Pending,                      S::Pending),
    row(O::PageRelocate,       S::PendingBlocked,               S::Pending),
    row(O::PageRelocate,       S::PendingBlockedW,              S::PendingBlockedW),
    row(O::PageRelocate,       S::PendingExportedBlockedW,      S::PendingExportedBlockedW),
    row(O::PageRelocate,       S::PendingExportedDirty,         S::PendingExportedDirty),
    row(O::PageRelocate,       S::PendingExportedDirtyBlockedW, S::PendingExportedDirtyBlockedW),
    row(O::PageDemote,         S::Mapped,                       S::NlMapped),
    row(O::PageDemote,         S::Blocked,                      S::NlMapped),
    row(O::PageDemote,         S::Pending,                      S::NlMapped),
    row(O::PageDemote,         S::PendingBlocked,               S::NlMapped),
    row(O::PagePromote,        S::NlMapped,                     S::Mapped),
    row(O::PagePromote,        S::NlBlocked,                    S::Mapped),
    row(O::PagePromotePending, S::NlMapped,                     S::Pending),
    row(O::PagePromotePending, S::NlBlocked,                    S::Pending),
    row(O::SeptRemove,         S::NlMapped,                     S::Free),
    row(O::SeptRemove,         S::NlBlocked,                    S::Free),
];

/// The table unrolled at compile time, so that a look-up costs one load.
const CELLS: [[Option<State>; 16]; 13] = {
    let mut cells = [[None; 16]; 13];
    let mut i = 0;
    while i < TRANSITIONS.len() {
        let t = TRANSITIONS[i];
        cells[t.op as usize][t.from as usize] = Some(t.to);
        i += 1;
    }
    cells
};

/// The state after an operation; `None` where the sheet has no such transition.
#[inline]
pub const fn next(op: SeptOp, from: State) -> Option<State> {
    CELLS[op as usize][from as usize]
}

/// [`TRANSITIONS`] as a table of the book.
pub fn transitions_markdown() -> String {
    let mut out = String::from("| Operation | From | To | Source |\n|---|---|---|---|\n");
    for Transition { op, from, to, cite } in TRANSITIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {op} | {from} | {to} | {cite} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, STATES};
    use super::*;
    use expect_test::expect;
    use sim_core::Page;

    #[test]
    fn every_pair_of_operation_and_state_is_decided_by_at_most_one_row_and_the_look_up_agrees() {
        for (i, op) in OPS.into_iter().enumerate() {
            assert_eq!(op as usize, i);
            for from in STATES.map(|r| r.state) {
                let rows: Vec<State> = TRANSITIONS
                    .iter()
                    .filter(|t| t.op == op && t.from == from)
                    .map(|t| t.to)
                    .collect();
                assert!(rows.len() <= 1, "{op} {from}");
                assert_eq!(next(op, from), rows.first().copied(), "{op} {from}");
            }
        }
    }

    #[test]
    fn every_row_belongs_to_an_operation_in_the_order_of_the_sheet_and_every_operation_has_rows() {
        let mut ops: Vec<SeptOp> = TRANSITIONS.iter().map(|t| t.op).collect();
        assert!(ops.is_sorted());
        ops.dedup();
        assert_eq!(ops, OPS);
        assert!(TRANSITIONS.iter().all(|t| !t.cite.is_empty()));
    }

    #[test]
    fn blocking_and_unblocking_undo_each_other() {
        for t in TRANSITIONS {
            match t.op {
                // The write-blocked ones come back as writable.
                SeptOp::RangeBlock => assert!(t.to.is_blocked()),
                SeptOp::RangeUnblock => {
                    assert_eq!(t.to, t.from.unblocked());
                    assert_eq!(next(SeptOp::RangeBlock, t.to), Some(t.from));
                }
                SeptOp::PageRelocate => assert_eq!(t.to, t.from.unblocked()),
                _ => {}
            }
        }
    }

    #[test]
    fn what_demote_splits_promote_can_merge() {
        for t in TRANSITIONS.iter().filter(|t| t.op == SeptOp::PageDemote) {
            let (child, op) = match t.from.unblocked() {
                State::Pending => (State::Pending, SeptOp::PagePromotePending),
                other => (other, SeptOp::PagePromote),
            };
            assert_eq!(next(op, t.to), Some(child), "{}", t.from);
        }
    }

    #[test]
    fn a_page_comes_and_goes_only_by_the_operations_that_move_pages() {
        use SeptOp::*;
        for t in TRANSITIONS {
            let holds = |s: State| !matches!(s, State::Free | State::Removed);
            match t.op {
                SeptAdd | PageAdd | PageAug => assert!(!holds(t.from) && holds(t.to)),
                PageRemove | PageRemoveImport | SeptRemove => {
                    assert!(holds(t.from) && !holds(t.to));
                }
                PageDemote => assert!(t.from.is_leaf() && !t.to.is_leaf()),
                PagePromote | PagePromotePending => assert!(!t.from.is_leaf() && t.to.is_leaf()),
                Accept | RangeBlock | RangeUnblock | PageRelocate => {
                    assert_eq!(t.from.is_leaf(), t.to.is_leaf());
                    let entry = Entry::leaf(t.from, Page(0x300));
                    assert_eq!(entry.with_state(t.to), Entry::leaf(t.to, Page(0x300)), "{t:?}");
                }
            }
        }
    }

    #[test]
    fn the_transitions_as_the_book_prints_them() {
        expect![[r#"
            | Operation | From | To | Source |
            |---|---|---|---|
            | SEPT.ADD | FREE | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.ADD | FREE | MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.AUG | FREE | PENDING | architecture.md §7.6 "Transitions" |
            | PAGE.AUG | REMOVED | PENDING | architecture.md §7.6 "Transitions" |
            | ACCEPT | PENDING | MAPPED | architecture.md §7.6 "Transitions" |
            | ACCEPT | PENDING_EXPORTED_DIRTY | EXPORTED_DIRTY | architecture.md §7.6 "Transitions" |
            | RANGE.BLOCK | NL_MAPPED | NL_BLOCKED | architecture.md §7.6 "Transitions" |
            | RANGE.BLOCK | MAPPED | BLOCKED | architecture.md §7.6 "Transitions" |
            | RANGE.BLOCK | BLOCKEDW | BLOCKED | architecture.md §7.6 "Transitions" |
            | RANGE.BLOCK | PENDING | PENDING_BLOCKED | architecture.md §7.6 "Transitions" |
            | RANGE.BLOCK | PENDING_BLOCKEDW | PENDING_BLOCKED | architecture.md §7.6 "Transitions" |
            | RANGE.UNBLOCK | NL_BLOCKED | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | RANGE.UNBLOCK | BLOCKED | MAPPED | architecture.md §7.6 "Transitions" |
            | RANGE.UNBLOCK | PENDING_BLOCKED | PENDING | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | MAPPED | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | BLOCKED | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | BLOCKEDW | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | PENDING | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | PENDING_BLOCKED | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE | PENDING_BLOCKEDW | FREE | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | MAPPED | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | BLOCKED | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | BLOCKEDW | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | PENDING | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | PENDING_BLOCKED | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.REMOVE (during import) | PENDING_BLOCKEDW | REMOVED | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | MAPPED | MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | BLOCKED | MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | BLOCKEDW | BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | EXPORTED_BLOCKEDW | EXPORTED_BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | EXPORTED_DIRTY | EXPORTED_DIRTY | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | EXPORTED_DIRTY_BLOCKEDW | EXPORTED_DIRTY_BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING | PENDING | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING_BLOCKED | PENDING | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING_BLOCKEDW | PENDING_BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING_EXPORTED_BLOCKEDW | PENDING_EXPORTED_BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING_EXPORTED_DIRTY | PENDING_EXPORTED_DIRTY | architecture.md §7.6 "Transitions" |
            | PAGE.RELOCATE | PENDING_EXPORTED_DIRTY_BLOCKEDW | PENDING_EXPORTED_DIRTY_BLOCKEDW | architecture.md §7.6 "Transitions" |
            | PAGE.DEMOTE | MAPPED | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.DEMOTE | BLOCKED | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.DEMOTE | PENDING | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.DEMOTE | PENDING_BLOCKED | NL_MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.PROMOTE (over MAPPED) | NL_MAPPED | MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.PROMOTE (over MAPPED) | NL_BLOCKED | MAPPED | architecture.md §7.6 "Transitions" |
            | PAGE.PROMOTE (over PENDING) | NL_MAPPED | PENDING | architecture.md §7.6 "Transitions" |
            | PAGE.PROMOTE (over PENDING) | NL_BLOCKED | PENDING | architecture.md §7.6 "Transitions" |
            | SEPT.REMOVE | NL_MAPPED | FREE | architecture.md §7.6 "Transitions" |
            | SEPT.REMOVE | NL_BLOCKED | FREE | architecture.md §7.6 "Transitions" |
        "#]].assert_eq(&transitions_markdown());
    }
}
