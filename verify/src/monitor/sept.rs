//! Secure-EPT entries (architecture.md §7.6).

/// State of a Secure-EPT entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SeptState {
    /// Nothing there.
    Free,
    /// A page was there; during import.
    Removed,
    /// A Secure-EPT page is below.
    NlMapped,
    /// The same, blocked.
    NlBlocked,
    /// A page.
    Mapped,
    /// A page, blocked.
    Blocked,
    /// A page, blocked for writing.
    BlockedW,
    /// Migration.
    ExportedBlockedW,
    /// Migration.
    ExportedDirty,
    /// Migration.
    ExportedDirtyBlockedW,
    /// A page that the guest has not accepted.
    Pending,
    /// The same, blocked.
    PendingBlocked,
    /// The same, blocked for writing.
    PendingBlockedW,
    /// Migration.
    PendingExportedBlockedW,
    /// Migration.
    PendingExportedDirty,
    /// Migration.
    PendingExportedDirtyBlockedW,
}

/// A row of [`SEPT_STATES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeptStateRow {
    /// The state.
    pub state: SeptState,
    /// The specification's name.
    pub name: &'static str,
    /// Bits 9, 53 to 56, 6 and 7 of the entry, in this order from bit 0.
    pub code: u8,
    /// The number that TDH.MEM.SEPT.RD and error details give.
    pub public: u8,
    /// The guest can read it.
    pub accessible: bool,
    /// TLB tracking is needed before it is taken away.
    pub tracked: bool,
}

const fn row(
    state: SeptState,
    name: &'static str,
    code: u8,
    public: u8,
    accessible: bool,
    tracked: bool,
) -> SeptStateRow {
    SeptStateRow { state, name, code, public, accessible, tracked }
}

use SeptState as S;

/// The states, as architecture.md §7.6 lays them out. FREE and REMOVED entries differ from NL_MAPPED ones in bits 53 to 56.
#[rustfmt::skip]
pub const SEPT_STATES: &[SeptStateRow] = &[
    row(S::Free,                         "FREE",                             0x0E, 0,   false, false),
    row(S::Removed,                      "REMOVED",                          0x0C, 5,   false, false),
    row(S::NlMapped,                     "NL_MAPPED",                        0x00, 132, false, true),
    row(S::NlBlocked,                    "NL_BLOCKED",                       0x08, 129, false, true),
    row(S::Mapped,                       "MAPPED",                           0x60, 4,   true,  true),
    row(S::Blocked,                      "BLOCKED",                          0x68, 1,   false, true),
    row(S::BlockedW,                     "BLOCKEDW",                         0x64, 8,   true,  true),
    row(S::ExportedBlockedW,             "EXPORTED_BLOCKEDW",                0x66, 9,   true,  false),
    row(S::ExportedDirty,                "EXPORTED_DIRTY",                   0x63, 11,  true,  true),
    row(S::ExportedDirtyBlockedW,        "EXPORTED_DIRTY_BLOCKEDW",          0x67, 12,  true,  true),
    row(S::Pending,                      "PENDING",                          0x70, 2,   false, true),
    row(S::PendingBlocked,               "PENDING_BLOCKED",                  0x78, 3,   false, true),
    row(S::PendingBlockedW,              "PENDING_BLOCKEDW",                 0x74, 16,  false, true),
    row(S::PendingExportedBlockedW,      "PENDING_EXPORTED_BLOCKEDW",        0x76, 17,  false, false),
    row(S::PendingExportedDirty,         "PENDING_EXPORTED_DIRTY",           0x73, 19,  false, true),
    row(S::PendingExportedDirtyBlockedW, "PENDING_EXPORTED_DIRTY_BLOCKEDW",  0x77, 20,  false, true),
];

/// R, W and X.
pub(super) const RWX: u64 = 7;
/// Memory type WB in a leaf.
const WB: u64 = 6 << 3;
/// Suppress #VE. Of leaves and of non-leaf entries the sheet does not say when it is set.
pub(super) const SVE: u64 = 1 << 63;
/// Bits 51:12.
pub(super) const BASE: u64 = 0x000f_ffff_ffff_f000;
/// The ACCEPT counter of a pending 2 MiB leaf.
pub(super) const COUNTER: u64 = 0x001f_f000;
/// A FREE entry.
pub(super) const FREE: u64 = 0x80E0_0000_0000_0000;
/// The bits that hold the state, and R, W, X.
const STATE_BITS: u64 = 0xf << 53 | 1 << 9 | 3 << 6 | RWX;

/// The row of a state.
pub(super) fn row_of(state: SeptState) -> &'static SeptStateRow {
    SEPT_STATES.iter().find(|r| r.state == state).unwrap_or(&SEPT_STATES[0])
}

/// The state that an entry's bits say; `None` when it is none of the sheet's.
pub(super) fn state(entry: u64) -> Option<SeptState> {
    let code = (entry >> 9 & 1) | (entry >> 53 & 0xf) << 1 | (entry >> 6 & 3) << 5;
    SEPT_STATES.iter().find(|r| u64::from(r.code) == code).map(|r| r.state)
}

/// The state bits and R, W, X of a state.
fn bits(state: SeptState) -> u64 {
    let code = u64::from(row_of(state).code);
    let state_bits = (code & 1) << 9 | (code >> 1 & 0xf) << 53 | (code >> 5 & 3) << 6;
    state_bits
        | match state {
            S::Mapped | S::NlMapped | S::ExportedDirty => RWX,
            S::BlockedW => 5,
            S::ExportedBlockedW | S::ExportedDirtyBlockedW => 1,
            _ => 0,
        }
}

/// The entry of a page or of a Secure-EPT page.
pub(super) fn new(state: SeptState, base: u64) -> u64 {
    let leaf = row_of(state).code & 0x60 != 0;
    bits(state) | base & BASE | if leaf { WB } else { 0 }
}

/// The same entry in another state.
pub(super) fn with(entry: u64, state: SeptState) -> u64 {
    entry & !STATE_BITS | bits(state)
}

/// A leaf: it maps a page.
pub(super) fn is_leaf(state: SeptState) -> bool {
    row_of(state).code & 0x60 != 0
}

/// The state without "blocked".
pub(super) fn unblocked(state: SeptState) -> SeptState {
    match state {
        S::NlBlocked => S::NlMapped,
        S::Blocked | S::BlockedW => S::Mapped,
        S::PendingBlocked | S::PendingBlockedW => S::Pending,
        other => other,
    }
}

/// The state that TDH.MEM.RANGE.BLOCK makes; `None` when it does not block this one.
pub(super) fn blocked(state: SeptState) -> Option<SeptState> {
    match state {
        S::NlMapped => Some(S::NlBlocked),
        S::Mapped | S::BlockedW => Some(S::Blocked),
        S::Pending | S::PendingBlockedW => Some(S::PendingBlocked),
        _ => None,
    }
}

/// What error details and TDH.MEM.SEPT.RD give in RCX: mask and value (architecture.md §7.6 "Error detail outputs"). Where the
/// view does not have the entry, it is FREE; SVE of a FREE entry is not known then.
pub(super) fn architectural(entry: u64, state: SeptState) -> (u64, u64) {
    match state {
        S::Free | S::Removed => (!SVE, 0),
        S::NlMapped | S::NlBlocked => (!SVE, entry & (RWX | 1 << 7)),
        // A counter of accepted chunks in the address bits may or may not be shown.
        s => {
            let pending = row_of(s).code & 0x10 != 0;
            let shown = RWX | 7 << 3 | 3 << 6 | BASE | SVE;
            let hidden = if pending { COUNTER } else { 0 };
            (!hidden, entry & shown & !hidden)
        }
    }
}
