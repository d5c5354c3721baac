//! The MESIF transitions of one core's copy of a (line, KeyID), as a table.
//!
//! Coherence holds per (line, KeyID) and never across KeyIDs (architecture.md §4.1 4.1.1, 4.1.2, 4.1.4).

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// State of a core's copy (verification.md §2 notation: `st` in {I, S, E, M}, and F of Intel's protocol).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Mesi {
    /// I: no copy.
    #[default]
    Invalid,
    /// S: a clean copy; others may have one.
    Shared,
    /// F: as S, and of all sharers the one that answers: whoever read the line last. When it is lost nobody answers in its
    /// place until the next reader; the home then asks any sharer, whose bytes are the same (verification.md C1, C2).
    Forward,
    /// E: the only copy, clean.
    Exclusive,
    /// M: the only copy; memory is older.
    Modified,
}

/// What happens to a core's copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MesiEvent {
    /// The core loads, fetches or prefetches the line.
    Load,
    /// The core stores into it.
    Store,
    /// Another core loads it.
    PeerLoad,
    /// Another core stores into it.
    PeerStore,
    /// CLFLUSH, CLFLUSHOPT, WBINVD, WBINVDP, or a direct or uncached access to the same (line, KeyID).
    Flush,
    /// CLWB, WBNOINVD, WBNOINVDP.
    WriteBackKeep,
    /// The core's caches need the room.
    Evict,
}

/// Who else holds the (line, KeyID) at that moment. It matters only to a load that misses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Elsewhere {
    /// Nobody, or only the LLC of the core's own package with a clean copy, which moves up.
    Nobody,
    /// Only the LLC of the core's own package, with a modified copy, which moves up.
    OwnLlcDirty,
    /// Another core, or the LLC of another package.
    Others,
}

/// For which [`Elsewhere`] a row holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// For all.
    Any,
    /// For this one.
    Only(Elsewhere),
}

/// What has to be done besides the change of state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// The line is fetched: from the LLC, a peer or memory.
    Fill,
    /// The line is fetched and every other copy invalidated (RFO), or only invalidated for a whole-line store (ItoM).
    Own,
    /// Every other copy is invalidated; the data is here.
    Upgrade,
    /// The duty to write back goes with the line: to the LLC of the package (a peer of the package loads, or eviction),
    /// to the storing peer, or to memory at once (a core of another package loads).
    HandOver,
    /// Written to memory under its own KeyID.
    WriteBack,
}

/// A row of [`TRANSITIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transition {
    /// State before.
    pub from: Mesi,
    /// What happens.
    pub event: MesiEvent,
    /// Under which condition.
    pub when: When,
    /// State after.
    pub to: Mesi,
    /// What else is done.
    pub effect: Effect,
    /// Source.
    pub cite: &'static str,
}

/// All states, in order.
pub const STATES: [Mesi; 5] =
    [Mesi::Invalid, Mesi::Shared, Mesi::Forward, Mesi::Exclusive, Mesi::Modified];
/// All events, in order.
pub const EVENTS: [MesiEvent; 7] = [
    MesiEvent::Load,
    MesiEvent::Store,
    MesiEvent::PeerLoad,
    MesiEvent::PeerStore,
    MesiEvent::Flush,
    MesiEvent::WriteBackKeep,
    MesiEvent::Evict,
];
/// All conditions, in order.
pub const ELSEWHERE: [Elsewhere; 3] =
    [Elsewhere::Nobody, Elsewhere::OwnLlcDirty, Elsewhere::Others];

use Effect as X;
use Mesi::{Exclusive as E, Forward as F, Invalid as I, Modified as M, Shared as S};
use MesiEvent as V;

const fn row(
    from: Mesi,
    event: MesiEvent,
    when: When,
    to: Mesi,
    effect: Effect,
    cite: &'static str,
) -> Transition {
    Transition { from, event, when, to, effect, cite }
}

const ANY: When = When::Any;
const ALONE: When = When::Only(Elsewhere::Nobody);
const DIRTY: When = When::Only(Elsewhere::OwnLlcDirty);
const OTHERS: When = When::Only(Elsewhere::Others);

/// The transitions of a core's copy.
#[rustfmt::skip]
pub const TRANSITIONS: &[Transition] = &[
    row(I, V::Load,          ALONE,  E, X::Fill,      "verification.md C1, C2"),
    row(I, V::Load,          DIRTY,  M, X::Fill,      "timing.md §1.1 LLC policy (victim cache): copy and duty move up"),
    row(I, V::Load,          OTHERS, F, X::Fill,      "verification.md C1, C2; the latest reader forwards (MESIF)"),
    row(I, V::Store,         ANY,    M, X::Own,       "architecture.md §5 5.2; §13 MC-29, MC-30"),
    row(I, V::PeerLoad,      ANY,    I, X::None,      "verification.md C1"),
    row(I, V::PeerStore,     ANY,    I, X::None,      "verification.md C1"),
    row(I, V::Flush,         ANY,    I, X::None,      "architecture.md §4.4"),
    row(I, V::WriteBackKeep, ANY,    I, X::None,      "architecture.md §4.4"),
    row(I, V::Evict,         ANY,    I, X::None,      "verification.md C6"),
    row(S, V::Load,          ANY,    S, X::None,      "verification.md C2"),
    row(S, V::Store,         ANY,    M, X::Upgrade,   "verification.md C1"),
    row(S, V::PeerLoad,      ANY,    S, X::None,      "verification.md C1"),
    row(S, V::PeerStore,     ANY,    I, X::None,      "verification.md C1"),
    row(S, V::Flush,         ANY,    I, X::None,      "architecture.md §4.4, clean line: invalidated"),
    row(S, V::WriteBackKeep, ANY,    S, X::None,      "architecture.md §4.4, clean line: kept"),
    row(S, V::Evict,         ANY,    I, X::None,      "verification.md C6"),
    row(F, V::Load,          ANY,    F, X::None,      "verification.md C2"),
    row(F, V::Store,         ANY,    M, X::Upgrade,   "verification.md C1"),
    row(F, V::PeerLoad,      ANY,    S, X::None,      "verification.md C1; the latest reader forwards (MESIF)"),
    row(F, V::PeerStore,     ANY,    I, X::None,      "verification.md C1"),
    row(F, V::Flush,         ANY,    I, X::None,      "architecture.md §4.4, clean line: invalidated"),
    row(F, V::WriteBackKeep, ANY,    F, X::None,      "architecture.md §4.4, clean line: kept"),
    row(F, V::Evict,         ANY,    I, X::None,      "verification.md C6; nobody forwards until the next reader"),
    row(E, V::Load,          ANY,    E, X::None,      "verification.md C2"),
    row(E, V::Store,         ANY,    M, X::None,      "verification.md C1"),
    row(E, V::PeerLoad,      ANY,    S, X::None,      "verification.md C1"),
    row(E, V::PeerStore,     ANY,    I, X::None,      "verification.md C1"),
    row(E, V::Flush,         ANY,    I, X::None,      "architecture.md §4.4, clean line: invalidated"),
    row(E, V::WriteBackKeep, ANY,    E, X::None,      "architecture.md §4.4, clean line: kept"),
    row(E, V::Evict,         ANY,    I, X::None,      "verification.md C6"),
    row(M, V::Load,          ANY,    M, X::None,      "verification.md C2"),
    row(M, V::Store,         ANY,    M, X::None,      "verification.md C1"),
    row(M, V::PeerLoad,      ANY,    S, X::HandOver,  "verification.md C1, C2"),
    row(M, V::PeerStore,     ANY,    I, X::HandOver,  "verification.md C1, C2"),
    row(M, V::Flush,         ANY,    I, X::WriteBack, "architecture.md §4.4, dirty line: written back, invalidated; verification.md C5"),
    row(M, V::WriteBackKeep, ANY,    E, X::WriteBack, "architecture.md §4.4, dirty line: written back, kept; verification.md C5"),
    row(M, V::Evict,         ANY,    I, X::HandOver,  "timing.md §1.1 LLC policy; verification.md C5"),
];

type Cell = (Mesi, Effect);
type Cells = [[[Cell; 3]; 7]; 5];

/// The table unrolled at compile time, so that a look-up costs one load. A cell that no row covers keeps its state; the
/// test of totality says that there is none.
const CELLS: Cells = {
    let mut cells: Cells = [[[(Mesi::Invalid, Effect::None); 3]; 7]; 5];
    let mut r = 0;
    while r < TRANSITIONS.len() {
        let t = TRANSITIONS[r];
        let mut e = 0;
        while e < 3 {
            let holds = match t.when {
                When::Any => true,
                When::Only(only) => only as usize == e,
            };
            if holds {
                cells[t.from as usize][t.event as usize][e] = (t.to, t.effect);
            }
            e += 1;
        }
        r += 1;
    }
    cells
};

/// The state after an event, and what else has to be done.
#[inline]
pub const fn next(from: Mesi, event: MesiEvent, elsewhere: Elsewhere) -> (Mesi, Effect) {
    CELLS[from as usize][event as usize][elsewhere as usize]
}

/// The table as a page of the book.
pub fn transitions_markdown() -> String {
    let mut out = String::from(
        "| Copy | Event | Elsewhere | Copy after | Effect | Source |\n|---|---|---|---|---|---|\n",
    );
    for t in TRANSITIONS {
        let when = match t.when {
            When::Any => "any".to_owned(),
            When::Only(only) => format!("{only:?}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {:?} | {:?} | {when} | {:?} | {:?} | {} |",
            t.from, t.event, t.to, t.effect, t.cite
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covering(from: Mesi, event: MesiEvent, elsewhere: Elsewhere) -> usize {
        let holds = |t: &&Transition| {
            t.from == from
                && t.event == event
                && match t.when {
                    When::Any => true,
                    When::Only(only) => only == elsewhere,
                }
        };
        TRANSITIONS.iter().filter(holds).count()
    }

    fn every_cell() -> impl Iterator<Item = (Mesi, MesiEvent, Elsewhere)> {
        STATES.into_iter().flat_map(|s| {
            EVENTS.into_iter().flat_map(move |v| ELSEWHERE.into_iter().map(move |e| (s, v, e)))
        })
    }

    #[test]
    fn every_state_event_and_condition_has_a_row() {
        for (s, v, e) in every_cell() {
            assert!(covering(s, v, e) >= 1, "{s:?} {v:?} {e:?}");
        }
    }

    #[test]
    fn no_two_rows_overlap() {
        for (s, v, e) in every_cell() {
            assert!(covering(s, v, e) <= 1, "{s:?} {v:?} {e:?}");
        }
    }

    #[test]
    fn every_row_is_what_the_look_up_returns() {
        for t in TRANSITIONS {
            let elsewhere = match t.when {
                When::Any => ELSEWHERE.to_vec(),
                When::Only(only) => vec![only],
            };
            for e in elsewhere {
                assert_eq!(next(t.from, t.event, e), (t.to, t.effect), "{t:?}");
            }
            assert!(!t.cite.is_empty());
        }
    }

    #[test]
    fn a_load_never_changes_a_valid_copy() {
        // The L1 hit path relies on it and looks nothing up.
        for e in ELSEWHERE {
            for s in [Mesi::Shared, Mesi::Forward, Mesi::Exclusive, Mesi::Modified] {
                assert_eq!(next(s, MesiEvent::Load, e), (s, Effect::None));
            }
        }
    }

    #[test]
    fn to_a_forwarder_happens_what_happens_to_a_sharer() {
        // The slab keeps one state for all sharers and who of them forwards beside it; both rest on this.
        for v in EVENTS {
            for e in ELSEWHERE {
                let ((f, of_f), (s, of_s)) = (next(Mesi::Forward, v, e), next(Mesi::Shared, v, e));
                assert_eq!(of_f, of_s, "{v:?} {e:?}");
                let role_kept = matches!(v, MesiEvent::Load | MesiEvent::WriteBackKeep);
                let want = if role_kept && s == Mesi::Shared { Mesi::Forward } else { s };
                assert_eq!(f, want, "{v:?} {e:?}");
            }
        }
    }

    #[test]
    fn only_a_modified_copy_has_something_to_write_back_or_hand_over() {
        for t in TRANSITIONS {
            let duty = matches!(t.effect, Effect::WriteBack | Effect::HandOver);
            let loses = t.from == Mesi::Modified && t.to != Mesi::Modified;
            assert_eq!(duty, loses, "{t:?}");
        }
    }

    #[test]
    fn the_table_prints_one_line_per_row() {
        let page = transitions_markdown();
        assert_eq!(page.lines().count(), TRANSITIONS.len() + 2);
        assert!(page.contains(
            "| Modified | WriteBackKeep | any | Exclusive | WriteBack | architecture.md §4.4"
        ));
    }
}
