//! Secure-EPT entries: their bits, states and transitions, and which leaf accepts which state (architecture.md §7.6, §7.9).

mod entry;
mod leaves;
mod transitions;

pub use entry::{Entry, GuestBusy};
pub use leaves::{
    ACCEPT_OUTCOMES, Accept, AcceptRow, LEAF_STATES, LeafStates, accept, accept_markdown, allowed,
    leaf_states_markdown,
};
pub use transitions::{OPS, SeptOp, TRANSITIONS, Transition, next, transitions_markdown};

use crate::op_state::{OpState, tracking_enforced};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// State of a Secure-EPT entry, in the order of the sheet (architecture.md §7.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum State {
    /// Nothing there.
    Free,
    /// A page was removed during an import.
    Removed,
    /// A Secure-EPT page, in use.
    NlMapped,
    /// A Secure-EPT page, blocked.
    NlBlocked,
    /// A private page, in use.
    Mapped,
    /// A private page, blocked.
    Blocked,
    /// A private page, blocked for writing.
    BlockedW,
    /// Exported, blocked for writing.
    ExportedBlockedW,
    /// Exported, written since.
    ExportedDirty,
    /// Exported, written since, blocked for writing.
    ExportedDirtyBlockedW,
    /// Waits for the guest's acceptance.
    Pending,
    /// Pending, blocked.
    PendingBlocked,
    /// Pending, blocked for writing.
    PendingBlockedW,
    /// Pending, exported, blocked for writing.
    PendingExportedBlockedW,
    /// Pending, exported, changed since.
    PendingExportedDirty,
    /// Pending, exported, changed since, blocked for writing.
    PendingExportedDirtyBlockedW,
}

/// What a guest access meets (architecture.md §7.6 column "guest access").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GuestAccess {
    /// Reads, writes and executes.
    Full,
    /// Reads and executes; a write is an EPT violation.
    ReadExecute,
    /// Reads. The entry's bits let it execute, too: blocking for writing clears only W
    /// (intel/tdx-module 1.5.01 tdh_export_blockw.c).
    Read,
    /// EPT violation.
    Violation,
    /// #VE in the guest, or an EPT violation exit with PENDING_VE_DISABLE.
    VeOrExit,
    /// The walk goes on one level below.
    Walk,
}

/// A row of [`STATES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateRow {
    /// The state.
    pub state: State,
    /// The sheet's name.
    pub name: &'static str,
    /// 7-bit code: b0 = D (bit 9), b1 to b4 = bits 53 to 56, b5 and b6 = bits 6 and 7.
    pub code: u8,
    /// The code's bits where they lie in an entry.
    pub bits: u64,
    /// The state as TDH.MEM.SEPT.RD and error details give it.
    pub public: u8,
    /// What the guest meets.
    pub access: GuestAccess,
    /// Whether a leaf that takes the translation away needs it blocked and tracked while the TD may run.
    pub tracked: bool,
    /// Source.
    pub cite: &'static str,
}

const fn row(
    state: State,
    name: &'static str,
    code: u8,
    bits: u64,
    public: u8,
    access: GuestAccess,
    tracked: bool,
) -> StateRow {
    StateRow { state, name, code, bits, public, access, tracked, cite: "architecture.md §7.6" }
}

use GuestAccess as G;
use State as S;
const YES: bool = true;
const NO: bool = false;

/// The states, in the order of the sheet.
#[rustfmt::skip]
pub const STATES: [StateRow; 16] = [
    row(S::Free,                  "FREE",                     0x0E, 0x00E0_0000_0000_0000, 0,   G::Violation,   NO),
    row(S::Removed,               "REMOVED",                  0x0C, 0x00C0_0000_0000_0000, 5,   G::Violation,   NO),
    row(S::NlMapped,              "NL_MAPPED",                0x00, 0x0000_0000_0000_0000, 132, G::Walk,        YES),
    row(S::NlBlocked,             "NL_BLOCKED",               0x08, 0x0080_0000_0000_0000, 129, G::Violation,   YES),
    row(S::Mapped,                "MAPPED",                   0x60, 0x0000_0000_0000_00C0, 4,   G::Full,        YES),
    row(S::Blocked,               "BLOCKED",                  0x68, 0x0080_0000_0000_00C0, 1,   G::Violation,   YES),
    row(S::BlockedW,              "BLOCKEDW",                 0x64, 0x0040_0000_0000_00C0, 8,   G::ReadExecute, YES),
    row(S::ExportedBlockedW,      "EXPORTED_BLOCKEDW",        0x66, 0x0060_0000_0000_00C0, 9,   G::Read,        NO),
    row(S::ExportedDirty,         "EXPORTED_DIRTY",           0x63, 0x0020_0000_0000_02C0, 11,  G::Full,        YES),
    row(S::ExportedDirtyBlockedW, "EXPORTED_DIRTY_BLOCKEDW",  0x67, 0x0060_0000_0000_02C0, 12,  G::Read,        YES),
    row(S::Pending,               "PENDING",                  0x70, 0x0100_0000_0000_00C0, 2,   G::VeOrExit,    YES),
    row(S::PendingBlocked,        "PENDING_BLOCKED",          0x78, 0x0180_0000_0000_00C0, 3,   G::Violation,   YES),
    row(S::PendingBlockedW,       "PENDING_BLOCKEDW",         0x74, 0x0140_0000_0000_00C0, 16,  G::Violation,   YES),
    row(S::PendingExportedBlockedW, "PENDING_EXPORTED_BLOCKEDW", 0x76, 0x0160_0000_0000_00C0, 17, G::Violation, NO),
    row(S::PendingExportedDirty,  "PENDING_EXPORTED_DIRTY",   0x73, 0x0120_0000_0000_02C0, 19,  G::VeOrExit,    YES),
    row(S::PendingExportedDirtyBlockedW, "PENDING_EXPORTED_DIRTY_BLOCKEDW", 0x77, 0x0160_0000_0000_02C0, 20, G::Violation, YES),
];

/// [`STATES`] by code, so that a look-up costs one load.
const BY_CODE: [Option<State>; 128] = {
    let mut table = [None; 128];
    let mut i = 0;
    while i < STATES.len() {
        table[STATES[i].code as usize] = Some(STATES[i].state);
        i += 1;
    }
    table
};

impl GuestAccess {
    /// The bits R, W and X (2:0) of an entry with this access (architecture.md §7.6: MAPPED and NL_MAPPED have RWX, a
    /// blocked or pending entry none).
    pub const fn rights(self) -> u64 {
        match self {
            GuestAccess::Full | GuestAccess::Walk => Entry::RWX,
            GuestAccess::ReadExecute | GuestAccess::Read => Entry::R | Entry::X,
            GuestAccess::Violation | GuestAccess::VeOrExit => 0,
        }
    }
    /// The sheet's words.
    pub const fn words(self) -> &'static str {
        match self {
            GuestAccess::Full => "full",
            GuestAccess::ReadExecute => "read/execute; write: violation",
            GuestAccess::Read => "read",
            GuestAccess::Violation => "violation",
            GuestAccess::VeOrExit => "#VE, or exit if PENDING_VE_DISABLE",
            GuestAccess::Walk => "walk continues",
        }
    }
}

impl State {
    /// The state of an entry; `None` for a code that no state has: a misconfigured entry, which is a fatal error of the
    /// module (architecture.md §7.7 "On walk").
    #[inline]
    pub const fn of(entry: Entry) -> Option<State> {
        BY_CODE[entry.code() as usize]
    }
    /// Its row of [`STATES`].
    #[inline]
    pub const fn row(self) -> &'static StateRow {
        const ROWS: &[StateRow; 16] = &STATES;
        &ROWS[self as usize]
    }
    /// The sheet's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
    /// Bit PS is set: the entry holds a page of the TD, not a Secure-EPT page, and is not empty.
    #[inline]
    pub const fn is_leaf(self) -> bool {
        self.row().bits & Entry::PS != 0
    }
    /// NL_BLOCKED, BLOCKED or PENDING_BLOCKED: what TRACK (architecture.md §7.7) and TDH.MEM.RANGE.BLOCK mean by
    /// `*_BLOCKED`.
    #[inline]
    pub const fn is_blocked(self) -> bool {
        matches!(self, State::NlBlocked | State::Blocked | State::PendingBlocked)
    }
    /// Any PENDING state: the page's memory has not been initialised yet.
    #[inline]
    pub const fn is_pending(self) -> bool {
        self.row().bits & Entry::TDP != 0
    }
    /// A leaf that the guest can access at least for reading (architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT").
    #[inline]
    pub const fn is_accessible_leaf(self) -> bool {
        use GuestAccess::{Full, Read, ReadExecute};
        matches!(self.row().access, Full | ReadExecute | Read)
    }
    /// The state that a blocked one had before; any other state itself (architecture.md §7.6 rows "RANGE.UNBLOCK",
    /// "PAGE.RELOCATE", "PAGE.DEMOTE").
    #[inline]
    pub const fn unblocked(self) -> State {
        match self {
            State::NlBlocked => State::NlMapped,
            State::Blocked => State::Mapped,
            State::PendingBlocked => State::Pending,
            other => other,
        }
    }
    /// Whether TRACK applies: the state needs tracking and the TD may be running (architecture.md §7.7 "TRACK").
    #[inline]
    pub const fn needs_tracking(self, op_state: OpState) -> bool {
        self.row().tracked && tracking_enforced(op_state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// [`STATES`] as a table of the book.
pub fn states_markdown() -> String {
    let mut out = String::from(
        "| State | Code | State bits | Public state | Guest access | R/W/X | Tracking needed | Source |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for r in &STATES {
        let rights: String = [(Entry::R, 'R'), (Entry::W, 'W'), (Entry::X, 'X')]
            .into_iter()
            .map(|(bit, letter)| if r.access.rights() & bit != 0 { letter } else { '-' })
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {:#04X} | {:#018X} | {} | {} | {rights} | {} | {} |",
            r.name,
            r.code,
            r.bits,
            r.public,
            r.access.words(),
            if r.tracked { "yes" } else { "no" },
            r.cite
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;

    #[test]
    fn every_state_has_one_row_at_its_own_place_with_a_code_and_public_number_of_its_own() {
        for (i, r) in STATES.iter().enumerate() {
            assert_eq!((r.state as usize, r.state.row()), (i, r));
            assert_eq!(r.state.to_string(), r.name);
        }
        for own in [
            STATES.map(|r| u64::from(r.code)),
            STATES.map(|r| u64::from(r.public)),
            STATES.map(|r| r.bits),
        ] {
            assert_eq!(BTreeSet::from(own).len(), STATES.len());
        }
    }

    #[test]
    fn the_state_bits_are_the_code_spread_over_an_entry() {
        for r in &STATES {
            let code = u64::from(r.code);
            let bits = (code & 1) << 9 | (code >> 1 & 15) << 53 | (code >> 5 & 3) << 6;
            assert_eq!(r.bits, bits, "{}", r.name);
        }
    }

    #[test]
    fn every_code_has_at_most_one_state_and_sixteen_have_one() {
        let mut with = 0;
        for code in 0..128u64 {
            let bits = (code & 1) << 9 | (code >> 1 & 15) << 53 | (code >> 5 & 3) << 6;
            // What is not part of the code never changes the state.
            for noise in [0, !Entry::STATE] {
                let state = State::of(Entry(bits | noise));
                let row = STATES.iter().find(|r| u64::from(r.code) == code);
                assert_eq!(state, row.map(|r| r.state), "{code:#x}");
            }
            with += usize::from(State::of(Entry(bits)).is_some());
        }
        assert_eq!(with, 16);
    }

    #[test]
    fn names_and_properties_of_the_states_agree() {
        for r in &STATES {
            let (s, name) = (r.state, r.name);
            assert_eq!(s.is_blocked(), name.ends_with("_BLOCKED") || name == "BLOCKED", "{name}");
            assert_eq!(s.is_pending(), name.starts_with("PENDING"), "{name}");
            let page = !name.starts_with("NL_") && !["FREE", "REMOVED"].contains(&name);
            assert_eq!(s.is_leaf(), page, "{name}");
            // The public state has bit 7 for a Secure-EPT page.
            assert_eq!(r.public >= 128, name.starts_with("NL_"), "{name}");
            let writable = r.access.rights() & Entry::W != 0;
            assert_eq!(writable, !name.contains("BLOCKED") && r.access.rights() != 0, "{name}");
        }
    }

    #[test]
    fn unblocking_takes_the_word_away_and_nothing_else() {
        for r in &STATES {
            let to = r.state.unblocked();
            assert!(!to.is_blocked());
            if r.state.is_blocked() {
                assert_eq!(to.row().bits, r.bits & !Entry::TDB, "{}", r.name);
            } else {
                assert_eq!(to, r.state);
            }
        }
    }

    #[test]
    fn tracking_applies_to_tracked_states_of_a_td_that_may_run() {
        assert!(State::Mapped.needs_tracking(OpState::Runnable));
        // Q-16: REMOVE of a MAPPED page while OP_STATE is INITIALIZED.
        assert!(!State::Mapped.needs_tracking(OpState::Initialized));
        assert!(!State::ExportedBlockedW.needs_tracking(OpState::LiveExport));
    }

    #[test]
    fn the_states_as_the_book_prints_them() {
        expect![[r#"
            | State | Code | State bits | Public state | Guest access | R/W/X | Tracking needed | Source |
            |---|---|---|---|---|---|---|---|
            | FREE | 0x0E | 0x00E0000000000000 | 0 | violation | --- | no | architecture.md §7.6 |
            | REMOVED | 0x0C | 0x00C0000000000000 | 5 | violation | --- | no | architecture.md §7.6 |
            | NL_MAPPED | 0x00 | 0x0000000000000000 | 132 | walk continues | RWX | yes | architecture.md §7.6 |
            | NL_BLOCKED | 0x08 | 0x0080000000000000 | 129 | violation | --- | yes | architecture.md §7.6 |
            | MAPPED | 0x60 | 0x00000000000000C0 | 4 | full | RWX | yes | architecture.md §7.6 |
            | BLOCKED | 0x68 | 0x00800000000000C0 | 1 | violation | --- | yes | architecture.md §7.6 |
            | BLOCKEDW | 0x64 | 0x00400000000000C0 | 8 | read/execute; write: violation | R-X | yes | architecture.md §7.6 |
            | EXPORTED_BLOCKEDW | 0x66 | 0x00600000000000C0 | 9 | read | R-X | no | architecture.md §7.6 |
            | EXPORTED_DIRTY | 0x63 | 0x00200000000002C0 | 11 | full | RWX | yes | architecture.md §7.6 |
            | EXPORTED_DIRTY_BLOCKEDW | 0x67 | 0x00600000000002C0 | 12 | read | R-X | yes | architecture.md §7.6 |
            | PENDING | 0x70 | 0x01000000000000C0 | 2 | #VE, or exit if PENDING_VE_DISABLE | --- | yes | architecture.md §7.6 |
            | PENDING_BLOCKED | 0x78 | 0x01800000000000C0 | 3 | violation | --- | yes | architecture.md §7.6 |
            | PENDING_BLOCKEDW | 0x74 | 0x01400000000000C0 | 16 | violation | --- | yes | architecture.md §7.6 |
            | PENDING_EXPORTED_BLOCKEDW | 0x76 | 0x01600000000000C0 | 17 | violation | --- | no | architecture.md §7.6 |
            | PENDING_EXPORTED_DIRTY | 0x73 | 0x01200000000002C0 | 19 | #VE, or exit if PENDING_VE_DISABLE | --- | yes | architecture.md §7.6 |
            | PENDING_EXPORTED_DIRTY_BLOCKEDW | 0x77 | 0x01600000000002C0 | 20 | violation | --- | yes | architecture.md §7.6 |
        "#]].assert_eq(&states_markdown());
    }
}
