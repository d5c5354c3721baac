//! The traps of architecture.md §7.10 that the module alone can show, and what verification.md §2.5 asks of PAMT,
//! Secure-EPT and lines.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: the world is the test's own")]

mod common;

use common::bench::{HKID, bench, gpa};
use common::edit::{edit_entry, edit_td};
use common::faults::hold_page;
use common::invariants::ownership;
use common::{IMAGE, World};
use sim_core::Page;
use sim_core::tdx::{Leaf, Operand as O, PageType, Status as S};
use tdx_module::Call;
use tdx_module::op_state::{OP_STATES, OpState, PERMISSIONS};
use tdx_module::pamt::Size;
use tdx_module::sept::{Entry, LEAF_STATES, STATES, State};

/// What the memory of a page holds under every KeyID that ever wrote to it.
fn memory(w: &World, base: u64, bytes: u64) -> Vec<((u64, u16), [u64; 8])> {
    w.lines
        .iter()
        .filter(|((line, _), words)| (line << 6).wrapping_sub(base) < bytes && **words != [0; 8])
        .map(|(at, words)| (*at, *words))
        .collect()
}
fn written(w: &mut World, base: u64, keyid: u16) {
    for i in 0..64 {
        w.poke(base + 64 * i, keyid, 0xDEAD_0000 + i);
    }
}

#[test]
fn an_interrupted_demote_has_overwritten_the_page_that_it_was_offered() {
    // architecture.md §7.10.1.
    let b = bench();
    type Fault = fn(&mut World);
    let faults: [(S, Fault); 2] = [
        (S::INTERRUPTED_RESTARTABLE, |w| w.irq = true),
        (S::OPERAND_BUSY.about(O::RCX), |w| hold_page(w, bench().large + 0x1000)),
    ];
    for (status, fault) in faults {
        let mut w = b.w.clone();
        written(&mut w, b.free, HKID);
        fault(&mut w);
        let answer = w.call(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.td, b.free, 0);
        assert_eq!(answer.status, status);
        assert_eq!(w.m.pamt(b.free, Size::Small).page_type(), PageType::Nda);
        let first = Entry::leaf(State::Pending, Page(b.large >> 12));
        for i in 0..512 {
            assert_eq!(w.peek(b.free + 8 * i, HKID), first.0 + (i << 12));
        }
    }
}

#[test]
fn what_becomes_free_keeps_its_memory_and_its_lines() {
    // architecture.md §7.10.2; verification.md T5. RECLAIM is the other half of T5.
    let b = bench();
    for (leaf, info, new, freed, bytes) in [
        (Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, 0, b.blocked, 4096),
        (Leaf::MEM_PAGE_REMOVE, gpa::LARGE_BLOCKED | 1, 0, b.large, 2 << 20),
        (Leaf::MEM_PAGE_RELOCATE, gpa::BLOCKED, b.free, b.blocked, 4096),
        (Leaf::MEM_SEPT_REMOVE, gpa::EMPTY_BLOCKED | 1, 0, b.empty, 4096),
    ] {
        let mut w = b.w.clone();
        if leaf != Leaf::MEM_SEPT_REMOVE {
            written(&mut w, freed, HKID);
        }
        let before = memory(&w, freed, bytes);
        assert!(!before.is_empty());
        assert_eq!(w.ok(leaf, info, b.td, new, 0).out[0], freed, "{leaf}");
        assert_eq!(memory(&w, freed, bytes), before, "{leaf}");
        let page_size = if bytes == 4096 { Size::Small } else { Size::Large };
        assert_eq!(w.m.pamt(freed, page_size).page_type(), PageType::Nda, "{leaf}");
    }
    // PROMOTE: the table's entries stay, locked as they were when they were looked at.
    let mut w = b.w.clone();
    assert_eq!(w.ok(Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, b.td, 0, 0).out[0], b.merge_table);
    for i in 0..512 {
        let left = Entry::leaf(State::Pending, Page((b.merge >> 12) + i)).with_locked(true);
        assert_eq!(w.peek(b.merge_table + 8 * i, HKID), left.0);
    }
}

#[test]
fn an_augmented_page_is_as_the_host_left_it_and_no_guest_can_read_it() {
    // architecture.md §7.10.3; verification.md T4.
    let (b, mut w) = (bench(), bench().w.clone());
    for (info, page, bytes) in
        [(gpa::FREE, b.free, 4096u64), (gpa::LARGE_FREE | 1, b.free_block, 2 << 20)]
    {
        written(&mut w, page, 0);
        let before = memory(&w, page, bytes);
        w.ok(Leaf::MEM_PAGE_AUG, info, b.td, page, 0);
        assert_eq!(memory(&w, page, bytes), before);
        let level = usize::from(info & 1 == 0);
        let (table, shift) = (b.tables[1 + level], if level == 1 { 12 } else { 21 });
        let entry = w.m.sept_entry(Page(table >> 12), (info >> shift & 511) as u16).unwrap();
        assert_eq!((entry.state(), entry.rights()), (Some(State::Pending), 0));
    }
}

#[test]
fn a_tree_is_built_from_above_and_taken_down_from_below() {
    // architecture.md §7.10.6.
    let mut w = bench().w.clone();
    let td = bench().built;
    let at = 7 << 30;
    let walk = S::EPT_WALK_FAILED.about(O::RCX);
    let page = w.page();
    let try_add = |w: &mut World| w.call(Leaf::MEM_PAGE_ADD, at, td, page, IMAGE).status;
    assert_eq!(try_add(&mut w), walk);
    let lower = w.call(Leaf::MEM_SEPT_ADD, at | 1, td, page, 0).status;
    assert_eq!(lower, walk);
    let tables: Vec<u64> = [2u64, 1]
        .map(|level| {
            let table = w.page();
            let base = at >> (12 + 9 * level) << (12 + 9 * level);
            w.ok(Leaf::MEM_SEPT_ADD, base | level, td, table, 0);
            table
        })
        .to_vec();
    assert_eq!(try_add(&mut w), S::SUCCESS);
    let full = S::EPT_PAGE_NOT_FREE.about(O::RCX);
    for level in [2, 1] {
        assert_eq!(w.call(Leaf::MEM_SEPT_REMOVE, at | level, td, 0, 0).status, full);
    }
    w.ok(Leaf::MEM_PAGE_REMOVE, at, td, 0, 0);
    assert_eq!(w.call(Leaf::MEM_SEPT_REMOVE, at | 2, td, 0, 0).status, full);
    assert_eq!(w.ok(Leaf::MEM_SEPT_REMOVE, at | 1, td, 0, 0).out[0], tables[1]);
    assert_eq!(w.ok(Leaf::MEM_SEPT_REMOVE, at | 2, td, 0, 0).out[0], tables[0]);
    ownership(&w).unwrap();
}

#[test]
fn a_page_cannot_be_given_twice_nor_taken_from_its_owner() {
    // verification.md T1, T2: the PAMT is what keeps two mappings apart.
    let (b, mut w) = (bench(), bench().w.clone());
    ownership(&w).unwrap();
    let incorrect = S::PAGE_METADATA_INCORRECT.about(O::R8);
    for used in [b.blocked, b.debug, b.tables[2], b.debug_page, b.merge + 0x4000, b.large + 0x4000]
    {
        let aug = w.call(Leaf::MEM_PAGE_AUG, gpa::FREE, b.td, used, 0).status;
        let add = w.call(Leaf::MEM_PAGE_ADD, 0x8000, b.built, used, IMAGE).status;
        let table = w.call(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.td, used, 0).status;
        let demote = Call::new(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.td, used, 0);
        let demote = w.call_on(0, demote).status;
        let relocate = w.call(Leaf::MEM_PAGE_RELOCATE, gpa::PENDING_BLOCKED, b.td, used, 0).status;
        assert_eq!([aug, add, table, demote, relocate], [incorrect; 5], "{used:#x}");
    }
    ownership(&w).unwrap();
}

#[test]
fn chldcnt_is_the_number_of_pages_whatever_their_size() {
    // verification.md T7.
    let (b, mut w) = (bench(), bench().w.clone());
    for (leaf, info, page, more) in [
        (Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.free, 1),
        (Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE, b.free_block, 1),
        (Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, 0, -1),
        (Leaf::MEM_PAGE_RELOCATE, gpa::PENDING_BLOCKED, b.blocked, 0),
        (Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.free_block + 4096, 1),
        (Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, 0, -1),
        (Leaf::MEM_SEPT_REMOVE, gpa::EMPTY_BLOCKED | 1, 0, -1),
        (Leaf::MEM_RANGE_BLOCK, gpa::MAPPED, 0, 0),
    ] {
        let before = w.td(b.td).chldcnt;
        w.ok(leaf, info, b.td, page, 0);
        assert_eq!(w.td(b.td).chldcnt as i64, before as i64 + more, "{leaf}");
        ownership(&w).unwrap();
    }
}

/// A call of a leaf on the entry of [`gpa::BLOCKED`], or of [`gpa::EMPTY_BLOCKED`] for leaves that have no level 0, with
/// everything else as it should be.
fn on_entry(leaf: Leaf, table: bool) -> Option<(u64, Call)> {
    let b = bench();
    let small =
        ![Leaf::MEM_SEPT_ADD, Leaf::MEM_PAGE_DEMOTE, Leaf::MEM_PAGE_PROMOTE, Leaf::MEM_SEPT_REMOVE]
            .contains(&leaf);
    let large = ![Leaf::MEM_PAGE_ADD, Leaf::MEM_PAGE_RELOCATE].contains(&leaf);
    let info = match (small && !table, large) {
        (true, _) => gpa::BLOCKED,
        (false, true) => gpa::LARGE_BLOCKED | 1,
        // A table cannot stand where only pages are looked for.
        (false, false) => return None,
    };
    let info = if [Leaf::MEM_RD, Leaf::MEM_WR, Leaf::MR_EXTEND].contains(&leaf) {
        info & !0xFFF
    } else {
        info
    };
    // A table that is there already is accepted.
    let flag = u64::from(leaf == Leaf::MEM_SEPT_ADD);
    Some((info, Call::new(leaf, info, b.td | flag, b.free, IMAGE)))
}

#[test]
fn each_leaf_accepts_the_states_of_its_row_and_no_other() {
    // verification.md T9: every leaf with a row, every state, put there as no modelled leaf could.
    let b = bench();
    let mut decided = 0;
    for row in LEAF_STATES {
        for state in STATES {
            let table = [State::NlMapped, State::NlBlocked].contains(&state.state);
            let Some((info, call)) = on_entry(row.leaf, table) else { continue };
            let mut w = b.w.clone();
            // A debug TD in the one state in which the leaf is allowed and no tracking is asked for.
            let quiet = PERMISSIONS
                .iter()
                .find(|p| p.leaf == row.leaf)
                .and_then(|p| OP_STATES.iter().find(|s| p.allowed >> s.state.code() & 1 == 1))
                .unwrap();
            assert_eq!(quiet.state, OpState::Initialized);
            edit_td(&mut w, b.td, "op_state", "Initialized");
            edit_td(&mut w, b.td, "attributes", 1);
            let (at, index, page) = match info & 7 {
                0 if info < 1 << 21 => (b.tables[2], (info >> 12) as u16, b.blocked),
                _ => (b.tables[1], (info >> 21) as u16, if table { b.empty } else { b.large }),
            };
            edit_entry(&mut w, at, index, Entry::leaf(state.state, Page(page >> 12)));
            let status = w.call_on(0, call).status;
            let allowed = row.changes.contains(&state.state) || row.keeps.contains(&state.state);
            let refused = [
                S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX),
                // Leaves that look for a page say it so, and so does BLOCK of what is blocked.
                S::EPT_ENTRY_NOT_PRESENT.about(O::RCX),
                S::EPT_ENTRY_NOT_PRESENT,
                S::GPA_RANGE_ALREADY_BLOCKED.about(O::RCX),
            ];
            let here = (row.leaf, state.name, status);
            assert_eq!(!refused.contains(&status), allowed, "{here:?}");
            // What is allowed goes through, but for the children of an empty table, which cannot be merged.
            let excused = match (row.leaf, state.state) {
                (Leaf::MEM_PAGE_PROMOTE, _) => S::EPT_INVALID_PROMOTE_CONDITIONS.about(O::RCX),
                _ => S::SUCCESS,
            };
            assert!(!allowed || status == excused, "{here:?}");
            decided += 1;
        }
    }
    // No table for the two leaves that look for small pages alone.
    assert_eq!(decided, LEAF_STATES.len() * 16 - 2 * 2);
}
