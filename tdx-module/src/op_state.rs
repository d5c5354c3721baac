//! OP_STATE of a TD, its life cycle and its key's state, and which leaf is allowed in which OP_STATE (architecture.md §7.5).

use serde::{Deserialize, Serialize};
use sim_core::tdx::Leaf;
use std::fmt::{self, Write};

/// OP_STATE, kept in TDCS (architecture.md §7.5 "OP_STATE").
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum OpState {
    /// 0: TDH.MNG.INIT or an import has not begun.
    #[default]
    Uninit = 0,
    /// 1: being built.
    Initialized = 1,
    /// 2: may run.
    Runnable = 2,
    /// 3: exported while it runs.
    LiveExport = 3,
    /// 4: exported while it is paused.
    PausedExport = 4,
    /// 5: exported.
    PostExport = 5,
    /// 6: memory is imported in order.
    MemoryImport = 6,
    /// 7: VCPU and TD state is imported.
    StateImport = 7,
    /// 8: imported, not yet committed.
    PostImport = 8,
    /// 9: runs while memory is still imported.
    LiveImport = 9,
    /// 10: the import failed.
    FailedImport = 10,
}

/// Life-cycle state of a TD, kept in TDR (architecture.md §7.5 "TD life cycle in TDR").
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum Lifecycle {
    /// 0: TDH.MNG.CREATE gave it an HKID.
    #[default]
    HkidAssigned = 0,
    /// 1: its key is configured on every package.
    KeysConfigured = 1,
    /// 2: TDH.MNG.VPFLUSHDONE ended the use of its HKID.
    Blocked = 2,
    /// 3: its HKID is free; its pages can be reclaimed.
    Teardown = 3,
}

/// State of an HKID in the key ownership table (architecture.md §7.5 "KOT entry").
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum KotState {
    /// 0: nobody's.
    #[default]
    Free = 0,
    /// 1: a TD's.
    Assigned = 1,
    /// 2: its TD does not use it any more; cached lines may still be written back under it.
    Flushed = 2,
    /// 3: the global HKID.
    Reserved = 3,
}

/// A row of [`OP_STATES`], [`LIFECYCLES`] or [`KOT_STATES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedRow<T> {
    /// The state.
    pub state: T,
    /// The source's name; its number is the state's discriminant.
    pub name: &'static str,
    /// Source.
    pub cite: &'static str,
}

const fn op(state: OpState, name: &'static str) -> NamedRow<OpState> {
    NamedRow { state, name, cite: "architecture.md §7.5 \"OP_STATE\"" }
}
const fn life(state: Lifecycle, name: &'static str) -> NamedRow<Lifecycle> {
    NamedRow { state, name, cite: "architecture.md §7.5 \"TD life cycle in TDR\"" }
}
const fn kot(state: KotState, name: &'static str) -> NamedRow<KotState> {
    NamedRow { state, name, cite: "architecture.md §7.5 \"KOT entry\"" }
}

/// Every OP_STATE, by number.
#[rustfmt::skip]
pub const OP_STATES: &[NamedRow<OpState>] = &[
    op(OpState::Uninit,       "UNINIT"),
    op(OpState::Initialized,  "INITIALIZED"),
    op(OpState::Runnable,     "RUNNABLE"),
    op(OpState::LiveExport,   "LIVE_EXPORT"),
    op(OpState::PausedExport, "PAUSED_EXPORT"),
    op(OpState::PostExport,   "POST_EXPORT"),
    op(OpState::MemoryImport, "MEMORY_IMPORT"),
    op(OpState::StateImport,  "STATE_IMPORT"),
    op(OpState::PostImport,   "POST_IMPORT"),
    op(OpState::LiveImport,   "LIVE_IMPORT"),
    op(OpState::FailedImport, "FAILED_IMPORT"),
];

/// Every life-cycle state, by number.
#[rustfmt::skip]
pub const LIFECYCLES: &[NamedRow<Lifecycle>] = &[
    life(Lifecycle::HkidAssigned,   "HKID_ASSIGNED"),
    life(Lifecycle::KeysConfigured, "KEYS_CONFIGURED"),
    life(Lifecycle::Blocked,        "BLOCKED"),
    life(Lifecycle::Teardown,       "TEARDOWN"),
];

/// Every KOT state, by number.
#[rustfmt::skip]
pub const KOT_STATES: &[NamedRow<KotState>] = &[
    kot(KotState::Free,     "FREE"),
    kot(KotState::Assigned, "ASSIGNED"),
    kot(KotState::Flushed,  "FLUSHED"),
    kot(KotState::Reserved, "RESERVED"),
];

macro_rules! named {
    ($type:ident $table:ident) => {
        impl $type {
            /// The number in the module's structures.
            pub const fn code(self) -> u8 {
                self as u8
            }
            /// The state with this number; `None` for a number without one.
            pub fn from_code(code: u64) -> Option<$type> {
                $table.iter().map(|row| row.state).find(|state| u64::from(state.code()) == code)
            }
            /// The source's name.
            pub fn name(self) -> &'static str {
                $table.iter().find(|row| row.state == self).map_or("", |row| row.name)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
named!(OpState OP_STATES);
named!(Lifecycle LIFECYCLES);
named!(KotState KOT_STATES);

/// A row of [`PERMISSIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permission {
    /// Which leaf.
    pub leaf: Leaf,
    /// Bit n: allowed in OP_STATE n.
    pub allowed: u16,
    /// Source.
    pub cite: &'static str,
}

/// The bits of an inclusive range.
const fn to(first: u32, last: u32) -> u16 {
    (((1u32 << (last + 1)) - 1) & !((1 << first) - 1)) as u16
}
/// The bit of one state.
const fn at(state: u32) -> u16 {
    to(state, state)
}
const fn may(leaf: Leaf, allowed: u16) -> Permission {
    Permission { leaf, allowed, cite: "architecture.md §7.5 \"Leaf, OP_STATEs allowed\"" }
}

/// In which OP_STATEs a leaf is allowed, by leaf number. A leaf without a row checks no OP_STATE.
///
/// TDH.MNG.ADDCX checks it only for the pages 7 to 9 (architecture.md §7.9 "TDH.MNG.ADDCX").
#[rustfmt::skip]
pub const PERMISSIONS: &[Permission] = &[
    may(Leaf::VP_ENTER,          to(2, 3) | at(9)),
    may(Leaf::MNG_ADDCX,         at(0)),
    may(Leaf::MEM_PAGE_ADD,      at(1)),
    may(Leaf::MEM_SEPT_ADD,      to(1, 3) | to(6, 9)),
    may(Leaf::VP_ADDCX,          at(1) | at(7)),
    may(Leaf::MEM_PAGE_RELOCATE, to(1, 5) | to(8, 9)),
    may(Leaf::MEM_PAGE_AUG,      to(1, 3) | at(9)),
    may(Leaf::MEM_RANGE_BLOCK,   to(1, 5) | to(8, 9)),
    may(Leaf::VP_CREATE,         at(1) | at(7)),
    may(Leaf::MEM_RD,            to(1, 10)),
    may(Leaf::MEM_WR,            to(1, 3) | to(6, 10)),
    may(Leaf::MEM_PAGE_DEMOTE,   to(1, 5) | to(8, 9)),
    may(Leaf::MR_EXTEND,         at(1)),
    may(Leaf::MR_FINALIZE,       at(1)),
    may(Leaf::MNG_INIT,          at(0)),
    may(Leaf::VP_INIT,           at(1)),
    may(Leaf::MEM_PAGE_PROMOTE,  to(1, 5) | to(8, 9)),
    may(Leaf::MEM_SEPT_RD,       to(1, 10)),
    may(Leaf::MEM_PAGE_REMOVE,   to(1, 5) | to(8, 10)),
    may(Leaf::MEM_SEPT_REMOVE,   to(1, 10)),
    may(Leaf::MEM_TRACK,         to(1, 9)),
    may(Leaf::MEM_RANGE_UNBLOCK, to(1, 5) | to(8, 9)),
];

/// Whether a leaf is allowed in an OP_STATE; `None` for a leaf that checks no OP_STATE (architecture.md §7.5).
pub fn allowed(leaf: Leaf, state: OpState) -> Option<bool> {
    PERMISSIONS.iter().find(|row| row.leaf == leaf).map(|row| row.allowed >> state.code() & 1 == 1)
}

/// Whether the TD may be running, so that a change of a translation needs blocking and tracking: RUNNABLE, LIVE_EXPORT
/// and LIVE_IMPORT (architecture.md §7.5 "TLB tracking is enforced only in 2, 3, 9").
pub const fn tracking_enforced(state: OpState) -> bool {
    matches!(state, OpState::Runnable | OpState::LiveExport | OpState::LiveImport)
}

/// Whether an import is in progress, so that TDH.MEM.PAGE.REMOVE leaves REMOVED instead of FREE (architecture.md §7.6
/// "REMOVED during import"; which states these are: intel/tdx-module 1.5.01 op_state_lookup.c).
pub const fn import_in_progress(state: OpState) -> bool {
    matches!(
        state,
        OpState::MemoryImport | OpState::StateImport | OpState::PostImport | OpState::LiveImport
    )
}

/// [`OP_STATES`], [`LIFECYCLES`] and [`KOT_STATES`] as tables of the book.
pub fn states_markdown() -> String {
    let mut out = String::from(
        "| OP_STATE | Name | TLB tracking | Import | Source |\n|---|---|---|---|---|\n",
    );
    let yes = |holds: bool| if holds { "yes" } else { "no" };
    for NamedRow { state, name, cite } in OP_STATES {
        let (track, import) = (yes(tracking_enforced(*state)), yes(import_in_progress(*state)));
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "| {} | {name} | {track} | {import} | {cite} |", state.code());
    }
    out.push_str("\n| Life cycle | Name | Source |\n|---|---|---|\n");
    for NamedRow { state, name, cite } in LIFECYCLES {
        let _ = writeln!(out, "| {} | {name} | {cite} |", state.code());
    }
    out.push_str("\n| KOT | Name | Source |\n|---|---|---|\n");
    for NamedRow { state, name, cite } in KOT_STATES {
        let _ = writeln!(out, "| {} | {name} | {cite} |", state.code());
    }
    out
}

/// [`PERMISSIONS`] as a table of the book: one column per OP_STATE.
pub fn permissions_markdown() -> String {
    let mut out = String::from("| Leaf | Number |");
    for row in OP_STATES {
        let _ = write!(out, " {} |", row.state.code());
    }
    out.push_str(" Source |\n|---|---|");
    out.push_str(&"---|".repeat(OP_STATES.len()));
    out.push_str("---|\n");
    for Permission { leaf, allowed, cite } in PERMISSIONS {
        let _ = write!(out, "| {leaf} | {} |", leaf.0);
        for row in OP_STATES {
            out.push_str(if allowed >> row.state.code() & 1 == 1 { " x |" } else { " |" });
        }
        let _ = writeln!(out, " {cite} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use sim_core::tdx::{Check, LEAF_CHECKS};
    use std::collections::BTreeSet;

    #[test]
    fn every_state_is_found_by_its_number_and_numbers_beyond_have_none() {
        let numbers: Vec<u8> = OP_STATES.iter().map(|r| r.state.code()).collect();
        assert_eq!(numbers, (0..=10).collect::<Vec<u8>>());
        for row in OP_STATES {
            assert_eq!(OpState::from_code(row.state.code().into()), Some(row.state));
            assert_eq!(row.state.to_string(), row.name);
        }
        for (n, row) in (0..).zip(LIFECYCLES) {
            assert_eq!((row.state.code(), Lifecycle::from_code(n.into())), (n, Some(row.state)));
            assert_eq!(row.state.to_string(), row.name);
        }
        for (n, row) in (0..).zip(KOT_STATES) {
            assert_eq!((row.state.code(), KotState::from_code(n.into())), (n, Some(row.state)));
            assert_eq!(row.state.to_string(), row.name);
        }
        assert_eq!(OpState::from_code(11), None);
        assert_eq!(Lifecycle::from_code(4), None);
        assert_eq!(KotState::from_code(4), None);
        assert_eq!(OpState::from_code(1 << 32), None);
    }

    #[test]
    fn no_leaf_has_two_rows_of_permissions_and_they_are_in_order() {
        let leaves: Vec<Leaf> = PERMISSIONS.iter().map(|r| r.leaf).collect();
        let sorted: BTreeSet<Leaf> = leaves.iter().copied().collect();
        assert_eq!(leaves, sorted.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_leaves_with_permissions_are_those_that_check_op_state() {
        let state = |c: &Check| {
            c.returns().iter().any(|r| r.status == sim_core::tdx::Status::OP_STATE_INCORRECT)
        };
        let checking: Vec<Leaf> =
            LEAF_CHECKS.iter().filter(|r| r.checks.iter().any(state)).map(|r| r.leaf).collect();
        let rows: Vec<Leaf> = PERMISSIONS.iter().map(|r| r.leaf).collect();
        assert_eq!(rows, checking);
    }

    #[test]
    fn every_row_of_permissions_decides_every_state_and_some_allow_it() {
        for row in PERMISSIONS {
            assert!(row.allowed != 0 && row.allowed < 1 << 11, "{}", row.leaf);
            let yes: u16 = OP_STATES
                .iter()
                .filter(|s| allowed(row.leaf, s.state) == Some(true))
                .map(|s| 1 << s.state.code())
                .sum();
            assert_eq!(yes, row.allowed, "{}", row.leaf);
        }
        for state in OP_STATES {
            assert!(PERMISSIONS.iter().any(|r| allowed(r.leaf, state.state) == Some(true)));
            for leaf in [Leaf::VP_FLUSH, Leaf::MNG_VPFLUSHDONE, Leaf::SYS_INIT, Leaf(999)] {
                assert_eq!(allowed(leaf, state.state), None, "{leaf}");
            }
        }
    }

    #[test]
    fn a_td_can_be_entered_exactly_where_tracking_is_enforced() {
        for row in OP_STATES {
            assert_eq!(allowed(Leaf::VP_ENTER, row.state), Some(tracking_enforced(row.state)));
        }
    }

    #[test]
    fn the_states_and_permissions_as_the_book_prints_them() {
        expect![[r#"
            | OP_STATE | Name | TLB tracking | Import | Source |
            |---|---|---|---|---|
            | 0 | UNINIT | no | no | architecture.md §7.5 "OP_STATE" |
            | 1 | INITIALIZED | no | no | architecture.md §7.5 "OP_STATE" |
            | 2 | RUNNABLE | yes | no | architecture.md §7.5 "OP_STATE" |
            | 3 | LIVE_EXPORT | yes | no | architecture.md §7.5 "OP_STATE" |
            | 4 | PAUSED_EXPORT | no | no | architecture.md §7.5 "OP_STATE" |
            | 5 | POST_EXPORT | no | no | architecture.md §7.5 "OP_STATE" |
            | 6 | MEMORY_IMPORT | no | yes | architecture.md §7.5 "OP_STATE" |
            | 7 | STATE_IMPORT | no | yes | architecture.md §7.5 "OP_STATE" |
            | 8 | POST_IMPORT | no | yes | architecture.md §7.5 "OP_STATE" |
            | 9 | LIVE_IMPORT | yes | yes | architecture.md §7.5 "OP_STATE" |
            | 10 | FAILED_IMPORT | no | no | architecture.md §7.5 "OP_STATE" |

            | Life cycle | Name | Source |
            |---|---|---|
            | 0 | HKID_ASSIGNED | architecture.md §7.5 "TD life cycle in TDR" |
            | 1 | KEYS_CONFIGURED | architecture.md §7.5 "TD life cycle in TDR" |
            | 2 | BLOCKED | architecture.md §7.5 "TD life cycle in TDR" |
            | 3 | TEARDOWN | architecture.md §7.5 "TD life cycle in TDR" |

            | KOT | Name | Source |
            |---|---|---|
            | 0 | FREE | architecture.md §7.5 "KOT entry" |
            | 1 | ASSIGNED | architecture.md §7.5 "KOT entry" |
            | 2 | FLUSHED | architecture.md §7.5 "KOT entry" |
            | 3 | RESERVED | architecture.md §7.5 "KOT entry" |
        "#]]
        .assert_eq(&states_markdown());
        expect![[r#"
            | Leaf | Number | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | Source |
            |---|---|---|---|---|---|---|---|---|---|---|---|---|---|
            | TDH.VP.ENTER | 0 | | | x | x | | | | | | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MNG.ADDCX | 1 | x | | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.ADD | 2 | | x | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.SEPT.ADD | 3 | | x | x | x | | | x | x | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.VP.ADDCX | 4 | | x | | | | | | x | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.RELOCATE | 5 | | x | x | x | x | x | | | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.AUG | 6 | | x | x | x | | | | | | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.RANGE.BLOCK | 7 | | x | x | x | x | x | | | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.VP.CREATE | 10 | | x | | | | | | x | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.RD | 12 | | x | x | x | x | x | x | x | x | x | x | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.WR | 14 | | x | x | x | | | x | x | x | x | x | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.DEMOTE | 15 | | x | x | x | x | x | | | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MR.EXTEND | 16 | | x | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MR.FINALIZE | 17 | | x | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MNG.INIT | 21 | x | | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.VP.INIT | 22 | | x | | | | | | | | | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.PROMOTE | 23 | | x | x | x | x | x | | | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.SEPT.RD | 25 | | x | x | x | x | x | x | x | x | x | x | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.PAGE.REMOVE | 29 | | x | x | x | x | x | | | x | x | x | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.SEPT.REMOVE | 30 | | x | x | x | x | x | x | x | x | x | x | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.TRACK | 38 | | x | x | x | x | x | x | x | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
            | TDH.MEM.RANGE.UNBLOCK | 39 | | x | x | x | x | x | | | x | x | | architecture.md §7.5 "Leaf, OP_STATEs allowed" |
        "#]].assert_eq(&permissions_markdown());
    }
}
