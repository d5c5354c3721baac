//! TDH.MEM.*: what a leaf does when it succeeds, which memory it touches under which KeyID, and what it says when it does
//! not (architecture.md §7.6, §7.8, §7.9).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: the world is the test's own")]

mod common;

use common::bench::{HKID, bench, gpa, image, page_at};
use common::cases::hold;
use common::edit::{edit_entry, edit_td, lock_entry};
use common::faults::LOCKED;
use common::invariants::{mirror, ownership};
use common::{GLOBAL, IMAGE, PAMT, TDMR, TdmrText, World, spec};
use sim_core::tdx::{Leaf, Operand as O, PageType, Status as S};
use sim_core::{Addr, Hpa, KeyId, Page};
use std::sync::LazyLock;
use tdx_module::op_state::OpState;
use tdx_module::pamt::{PamtEntry, Size};
use tdx_module::sept::{Entry, State};
use tdx_module::{Action, Call, Reply, Touch};

const NULL_PA: u64 = u64::MAX;

fn world() -> World {
    bench().w.clone()
}
fn entry(w: &World, table: u64, index: u16) -> Entry {
    w.m.sept_entry(Page(table >> 12), index).unwrap()
}
/// The entry of level 1 for a GPA of the bench's TD.
fn large_entry(w: &World, gpa: u64) -> Entry {
    entry(w, bench().tables[1], (gpa >> 21 & 511) as u16)
}
fn small_entry(w: &World, gpa: u64) -> Entry {
    entry(w, bench().tables[2], (gpa >> 12 & 511) as u16)
}
/// The call of these operands, which must fail; RCX and RDX.
fn fails(w: &mut World, leaf: Leaf, rcx: u64, rdx: u64, r8: u64, status: S) -> (u64, u64) {
    let answer = w.call(leaf, rcx, rdx, r8, 0);
    assert_eq!(answer.status, status, "{leaf}");
    (answer.out[0], answer.out[1])
}
fn call_v1(leaf: Leaf, rcx: u64, rdx: u64, pages: [u64; 4]) -> Call {
    let mut call = Call::new(leaf, rcx, rdx, pages[0], pages[1]);
    call.rax |= 1 << 16;
    (call.regs[4], call.regs[5]) = (pages[2], pages[3]);
    call
}
/// What the last call touched of these bytes, with the KeyID.
fn touched(w: &World, base: u64, bytes: u64) -> Vec<Touch> {
    let inside = |at: &Addr| at.hpa.0.wrapping_sub(base) < bytes;
    let of = |touch: &&Touch| match touch {
        Touch::Load { at, .. } | Touch::Store { at, .. } | Touch::FlushPage { at } => inside(at),
        Touch::Fill { at, .. } | Touch::FillTable { at, .. } | Touch::FillSome { at, .. } => {
            inside(at)
        }
        Touch::Copy { from, to } => inside(from) || inside(to),
        _ => false,
    };
    w.touches.iter().filter(of).copied().collect()
}
fn sound(w: &mut World) {
    mirror(w).unwrap();
    ownership(w).unwrap();
}

// ---------------------------------------------------------------------------------------------------------- SEPT.ADD

#[test]
fn sept_add_fills_the_page_by_movdir64b_under_the_td_s_key_before_the_entry_points_to_it() {
    let (b, mut w) = (bench(), world());
    let children = w.td(b.td).chldcnt;
    w.ok(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.td, b.free, 0);
    let at = Addr::new(Hpa(b.free), KeyId(HKID));
    let fill = Touch::Fill { at, lines: 64, word: 0x80E0_0000_0000_0000 };
    assert_eq!(touched(&w, b.free, 4096), [fill]);
    let entry = large_entry(&w, gpa::LARGE_FREE);
    assert_eq!(entry.0, 0x8000_0000_0000_0007 | b.free);
    let store = w.touches.iter().position(|t| {
        matches!(t, Touch::Store { value, locked: false, .. } if value[0] & !Entry::TDEL == entry.0)
    });
    assert!(w.touches.iter().position(|t| *t == fill) < store);
    assert_eq!(w.m.pamt(b.free, Size::Small), PamtEntry::new(PageType::Ept, Page(b.td >> 12)));
    assert_eq!(w.td(b.td).chldcnt, children + 1);
    sound(&mut w);
}

#[test]
fn sept_add_accepts_a_table_that_is_there_and_gives_the_page_back() {
    let (b, mut w) = (bench(), world());
    let before = w.m.clone();
    w.ok(Leaf::MEM_SEPT_ADD, gpa::EMPTY | 1, b.td | 1, b.free, 0);
    assert!(w.m == before);
    assert_eq!(touched(&w, b.free, 4096), []);
    let call =
        call_v1(Leaf::MEM_SEPT_ADD, gpa::EMPTY | 1, b.td | 1, [b.free, NULL_PA, NULL_PA, NULL_PA]);
    let answer = w.call_on(0, call);
    assert_eq!(answer.status, S::SUCCESS);
    assert_eq!(answer.out, [0, 0, b.free | 1 << 63, NULL_PA, NULL_PA, NULL_PA]);
    // Without a page: the table must be there, the flag does not matter.
    let call = call_v1(Leaf::MEM_SEPT_ADD, gpa::EMPTY | 1, b.td, [NULL_PA; 4]);
    let answer = w.call_on(0, call);
    assert_eq!(
        (answer.status, answer.out),
        (S::SUCCESS, [0, 0, NULL_PA, NULL_PA, NULL_PA, NULL_PA])
    );
    assert!(w.m == before);
}

#[test]
fn sept_add_ignores_bit_63_of_a_page_and_says_in_version_1_that_it_is_used() {
    let (b, mut w) = (bench(), world());
    let pages = [b.free | 1 << 63, NULL_PA, NULL_PA, NULL_PA];
    let answer = w.call_on(0, call_v1(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.td, pages));
    assert_eq!(
        (answer.status, answer.out),
        (S::SUCCESS, [0, 0, NULL_PA, NULL_PA, NULL_PA, NULL_PA])
    );
    assert_eq!(large_entry(&w, gpa::LARGE_FREE).page(), Page(b.free >> 12));
}

#[test]
fn a_page_for_an_l2_vm_is_refused_by_its_own_register() {
    let b = bench();
    for (i, register) in [(1, O::R9), (2, O::R10), (3, O::R11)] {
        let mut w = world();
        let mut pages = [b.free, NULL_PA, NULL_PA, NULL_PA];
        pages[i] = b.free_block;
        let answer = w.call_on(0, call_v1(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.td, pages));
        assert_eq!(answer.status, S::OPERAND_INVALID.about(register));
        assert_eq!(answer.out[2..], pages);
        assert_eq!(w.m.pamt(b.free, Size::Small).page_type(), PageType::Nda);
    }
}

// ------------------------------------------------------------------------------------------------------- SEPT.REMOVE

#[test]
fn sept_remove_reads_the_page_and_leaves_its_memory_as_it_is() {
    let (b, mut w) = (bench(), world());
    let children = w.td(b.td).chldcnt;
    let answer = w.ok(Leaf::MEM_SEPT_REMOVE, gpa::EMPTY_BLOCKED | 1, b.td, 0, 0);
    assert_eq!(answer.out[0], b.empty);
    let reads = touched(&w, b.empty, 4096);
    assert_eq!(reads.len(), 64);
    for (i, read) in (0..).zip(reads) {
        let at = Addr::new(Hpa(b.empty + 64 * i), KeyId(HKID));
        assert_eq!(read, Touch::Load { at, bytes: 64 });
    }
    assert_eq!(large_entry(&w, gpa::EMPTY_BLOCKED), Entry::FREE);
    // Owner and epoch are stale, only the type is written.
    let pamt = w.m.pamt(b.empty, Size::Small);
    assert_eq!((pamt.page_type(), pamt.owner()), (PageType::Nda, Page(b.td >> 12)));
    assert!(pamt.bepoch > 0);
    assert_eq!(w.td(b.td).chldcnt, children - 1);
    assert!(w.m.sept_entry(Page(b.empty >> 12), 0).is_none());
    sound(&mut w);
}

#[test]
fn sept_remove_stops_reading_at_the_first_entry_in_use_and_a_removed_one_is_in_use() {
    let (b, mut w) = (bench(), world());
    let removed = Entry::leaf(State::Removed, Page(0));
    edit_entry(&mut w, b.empty, 17, removed);
    let status = S::EPT_PAGE_NOT_FREE.about(O::RCX);
    let out = fails(&mut w, Leaf::MEM_SEPT_REMOVE, gpa::EMPTY_BLOCKED | 1, b.td, 0, status);
    // The details are those of the entry above.
    assert_eq!(out, (0, 129 << 8 | 1));
    assert_eq!(touched(&w, b.empty, 4096).len(), 17 / 8 + 1);
}

#[test]
fn sept_rd_tells_any_entry_as_the_specification_shows_it() {
    let (b, mut w) = (bench(), world());
    for (info, want) in [
        (gpa::MAPPED, (0x8000_0000_0000_00F7 | page_at(&w, &b.tables, gpa::MAPPED), 4 << 8)),
        (gpa::BLOCKED, (0x8000_0000_0000_00F0 | b.blocked, 1 << 8)),
        (gpa::FREE, (1 << 63, 0)),
        (gpa::LARGE_BLOCKED | 1, (0x8000_0000_0000_00F0 | b.large, 3 << 8 | 1)),
        (gpa::EMPTY | 1, (7, 132 << 8 | 1)),
        (3, (7, 132 << 8 | 3)),
    ] {
        let answer = w.ok(Leaf::MEM_SEPT_RD, info, b.td, 0, 0);
        assert_eq!((answer.out[0], answer.out[1]), want, "{info:#x}");
    }
    let answer = w.ok(Leaf::MEM_SEPT_RD, 0, b.debug | 1, 0, 0);
    assert_eq!(answer.out[2], 0);
}

// ---------------------------------------------------------------------------------------------------- PAGE.ADD, AUG

#[test]
fn page_add_copies_the_source_with_its_own_keyid_to_the_page_under_the_td_s_key() {
    let (b, mut w) = (bench(), world());
    let shared = 5u64;
    for i in 0..512 {
        w.poke(IMAGE + 8 * i, shared as u16, i + 1);
    }
    let (children, hkid) = (w.td(b.built).chldcnt, w.td(b.built).hkid);
    w.ok(Leaf::MEM_PAGE_ADD, 0x3000, b.built, b.free, IMAGE | shared << 45);
    let from = Addr::new(Hpa(IMAGE), KeyId(shared as u16));
    let to = Addr::new(Hpa(b.free), hkid);
    assert_eq!(touched(&w, b.free, 4096), [Touch::Copy { from, to }]);
    assert_eq!(w.peek(b.free + 4088, hkid.0), 512);
    let mapped = Entry::leaf(State::Mapped, Page(b.free >> 12));
    assert_eq!(entry(&w, b.built_tables[2], 3), mapped);
    assert_eq!(w.m.pamt(b.free, Size::Small), PamtEntry::new(PageType::Reg, Page(b.built >> 12)));
    assert_eq!(w.td(b.built).chldcnt, children + 1);
    let hash = w.m.spec().tdx.cost.hash;
    assert_eq!(w.touches.iter().filter(|t| **t == Touch::Spend(hash)).count(), 1);
    sound(&mut w);
}

#[test]
fn a_small_aug_touches_nothing_of_the_page() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_PAGE_AUG, gpa::FREE, b.td, b.free, 0);
    assert_eq!(touched(&w, b.free, 4096), []);
    assert_eq!(small_entry(&w, gpa::FREE), Entry::leaf(State::Pending, Page(b.free >> 12)));
    assert_eq!(w.m.pamt(b.free, Size::Small), PamtEntry::new(PageType::Reg, Page(b.td >> 12)));
    sound(&mut w);
}

#[test]
fn an_aug_leaves_the_entry_unlocked_in_the_one_store_that_fills_it() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_PAGE_AUG, gpa::FREE, b.td, b.free, 0);
    let at = b.tables[2] + 8 * 4;
    let stores: Vec<u64> = touched(&w, at, 8)
        .into_iter()
        .filter_map(|t| match t {
            Touch::Store { value, .. } => Some(value[0]),
            _ => None,
        })
        .collect();
    let pending = Entry::leaf(State::Pending, Page(b.free >> 12));
    assert_eq!(stores, [Entry::FREE.with_locked(true).0, pending.0]);
}

/// Lines of the PAMT of 4 KiB entries of a block that the last call read.
fn child_lines(w: &World, block: u64) -> usize {
    let at = w.m.tdmr_of(block).unwrap().entry_at(block, Size::Small).unwrap().0;
    let reads = touched(w, at, 512 * 16);
    assert!(
        reads.iter().all(
            |t| matches!(t, Touch::Load { at, bytes: 64 } if at.keyid == KeyId(GLOBAL as u16))
        )
    );
    reads.len()
}

#[test]
fn a_large_aug_reads_the_metadata_of_all_its_pages_and_counts_512() {
    let (b, mut w) = (bench(), world());
    let children = w.td(b.td).chldcnt;
    w.ok(Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE | 1, b.td, b.free_block, 0);
    assert_eq!(touched(&w, b.free_block, 2 << 20), []);
    assert_eq!(child_lines(&w, b.free_block), 128);
    assert_eq!(w.td(b.td).chldcnt, children + 512);
    let pamt = PamtEntry::new(PageType::Reg, Page(b.td >> 12));
    assert_eq!(w.m.pamt(b.free_block, Size::Large), pamt);
    assert_eq!(w.m.pamt(b.free_block + 4096, Size::Small), PamtEntry::NDA);
    sound(&mut w);
}

#[test]
fn a_large_aug_stops_reading_at_the_first_page_in_use_and_reads_none_of_a_block_that_is_a_page() {
    let (b, mut w) = (bench(), world());
    let used = b.free_block + (9 << 12);
    w.ok(Leaf::MEM_PAGE_AUG, gpa::FREE, b.td, used, 0);
    let status = S::PAGE_METADATA_INCORRECT.about(O::R8);
    fails(&mut w, Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE | 1, b.td, b.free_block, status);
    assert_eq!(child_lines(&w, b.free_block), 9 / 4 + 1);
    fails(&mut w, Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE | 1, b.td, b.large, status);
    assert_eq!(child_lines(&w, b.large), 0);
}

// ------------------------------------------------------------------------------------------------------------- REMOVE

#[test]
fn page_remove_returns_the_page_and_leaves_free() {
    let (b, mut w) = (bench(), world());
    let children = w.td(b.td).chldcnt;
    let answer = w.ok(Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, b.td, 0, 0);
    assert_eq!(answer.out[0], b.blocked);
    assert_eq!(touched(&w, b.blocked, 4096), []);
    assert_eq!(small_entry(&w, gpa::BLOCKED), Entry::FREE);
    let pamt = w.m.pamt(b.blocked, Size::Small);
    assert_eq!((pamt.page_type(), pamt.owner()), (PageType::Nda, Page(b.td >> 12)));
    let answer = w.ok(Leaf::MEM_PAGE_REMOVE, gpa::LARGE_BLOCKED | 1, b.td, 0, 0);
    assert_eq!(answer.out[0], b.large);
    assert_eq!(w.td(b.td).chldcnt, children - 513);
    sound(&mut w);
}

#[test]
fn page_remove_during_an_import_leaves_removed_which_can_be_augmented() {
    let (b, mut w) = (bench(), world());
    edit_td(&mut w, b.td, "op_state", "LiveImport");
    w.ok(Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, b.td, 0, 0);
    assert_eq!(small_entry(&w, gpa::BLOCKED), Entry::leaf(State::Removed, Page(0)));
    w.ok(Leaf::MEM_PAGE_AUG, gpa::BLOCKED, b.td, b.free, 0);
    assert_eq!(small_entry(&w, gpa::BLOCKED).state(), Some(State::Pending));
    sound(&mut w);
}

#[test]
fn page_remove_locks_the_metadata_of_the_page_alone() {
    let (b, mut w) = (bench(), world());
    let page = b.free_block + 0x7000;
    w.ok(Leaf::MEM_PAGE_AUG, gpa::FREE, b.td, page, 0);
    w.ok(Leaf::MEM_RANGE_BLOCK, gpa::FREE, b.td, 0, 0);
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    // Another LP has the 2 MiB entry of the page's block exclusively: a walk would end there.
    let large = Call::new(Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE | 1, b.td, b.free_block, 0);
    hold(&mut w, large, LOCKED);
    let busy = w.call(Leaf::VP_CREATE, page, b.bare, 0, 0).status;
    assert_eq!(busy, S::OPERAND_BUSY.about(O::RCX));
    assert_eq!(w.ok(Leaf::MEM_PAGE_REMOVE, gpa::FREE, b.td, 0, 0).out[0], page);
}

// -------------------------------------------------------------------------------------------- BLOCK, UNBLOCK, TRACK

#[test]
fn blocking_keeps_the_page_s_address() {
    let (b, mut w) = (bench(), world());
    for at in [gpa::MAPPED, gpa::PENDING] {
        let before = small_entry(&w, at);
        w.ok(Leaf::MEM_RANGE_BLOCK, at, b.td, 0, 0);
        let after = small_entry(&w, at);
        assert_eq!(after.page(), before.page());
        assert_ne!(after.page().0 & 511, 0);
        assert!(after.state().unwrap().is_blocked() && !after.is_present());
        let pamt = w.m.pamt(after.hpa().0, Size::Small);
        assert_eq!(pamt.bepoch, w.td(b.td).epoch);
        w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
        w.ok(Leaf::MEM_RANGE_UNBLOCK, at, b.td, 0, 0);
        assert_eq!(small_entry(&w, at), before);
    }
    let table = large_entry(&w, gpa::EMPTY);
    w.ok(Leaf::MEM_RANGE_BLOCK, gpa::EMPTY | 1, b.td, 0, 0);
    assert_eq!(large_entry(&w, gpa::EMPTY), Entry::table(State::NlBlocked, table.page()));
    assert_eq!(w.m.pamt(table.hpa().0, Size::Small).bepoch, w.td(b.td).epoch);
    sound(&mut w);
}

#[test]
fn blocking_a_large_page_that_is_half_accepted_clears_the_counter_and_marks_the_large_entry() {
    let (b, mut w) = (bench(), world());
    let index = (gpa::LARGE_PENDING >> 21) as u16;
    let pending = large_entry(&w, gpa::LARGE_PENDING);
    edit_entry(&mut w, b.tables[1], index, pending.with_accept_counter(77));
    w.ok(Leaf::MEM_RANGE_BLOCK, gpa::LARGE_PENDING | 1, b.td, 0, 0);
    let blocked = large_entry(&w, gpa::LARGE_PENDING);
    assert_eq!(blocked, pending.with_state(State::PendingBlocked));
    let (pa, epoch) = (pending.hpa().0, w.td(b.td).epoch);
    assert_eq!(w.m.pamt(pa, Size::Large).bepoch, epoch);
    assert_eq!(w.m.pamt(pa, Size::Small).bepoch, 0);
    sound(&mut w);
}

#[test]
fn removing_a_large_page_that_is_half_accepted_returns_its_address_without_the_counter() {
    let (b, mut w) = (bench(), world());
    // In a TD that is built nothing needs blocking.
    w.sept(b.built, 0, 1);
    w.ok(Leaf::MEM_PAGE_AUG, 1 << 21 | 1, b.built, b.free_block, 0);
    let pending = entry(&w, b.built_tables[1], 1);
    edit_entry(&mut w, b.built_tables[1], 1, pending.with_accept_counter(300));
    let answer = w.ok(Leaf::MEM_PAGE_REMOVE, 1 << 21 | 1, b.built, 0, 0);
    assert_eq!(answer.out[0], b.free_block);
    sound(&mut w);
}

#[test]
fn what_is_blocked_already_is_said_with_its_details() {
    let (b, mut w) = (bench(), world());
    let status = S::GPA_RANGE_ALREADY_BLOCKED.about(O::RCX);
    let out = fails(&mut w, Leaf::MEM_RANGE_BLOCK, gpa::BLOCKED, b.td, 0, status);
    assert_eq!(out, (0x8000_0000_0000_00F0 | b.blocked, 1 << 8));
}

#[test]
fn unblocking_does_not_ask_for_tracking_while_the_td_cannot_run() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_RANGE_BLOCK, 0, b.built, 0, 0);
    w.ok(Leaf::MEM_RANGE_UNBLOCK, 0, b.built, 0, 0);
    assert_eq!(entry(&w, b.built_tables[2], 0).state(), Some(State::Mapped));
}

#[test]
fn track_counts_the_epoch_and_flushes_nothing() {
    let (b, mut w) = (bench(), world());
    let epoch = w.td(b.td).epoch;
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    assert_eq!(w.td(b.td).epoch, epoch + 1);
    assert!(!w.touches.iter().any(|t| matches!(t, Touch::Invept(_))));
    w.ok(Leaf::MEM_RANGE_UNBLOCK, gpa::UNTRACKED, b.td, 0, 0);
}

// ----------------------------------------------------------------------------------------------------------- the walk

#[test]
fn a_walk_that_fails_tells_of_the_last_entry_it_met() {
    let (b, mut w) = (bench(), world());
    let status = S::EPT_WALK_FAILED.about(O::RCX);
    for (info, want) in [
        // Nothing at the root.
        (gpa::NOWHERE, (1 << 63, 3)),
        // A large page is in the way.
        (
            gpa::LARGE_PENDING,
            (0x8000_0000_0000_00F0 | large_entry(&w, gpa::LARGE_PENDING).hpa().0, 2 << 8 | 1),
        ),
        // Nothing below a blocked table can be managed.
        (gpa::USED, (0, 129 << 8 | 1)),
    ] {
        assert_eq!(fails(&mut w, Leaf::MEM_RANGE_BLOCK, info, b.td, 0, status), want, "{info:#x}");
    }
    // The tree's lock was released.
    assert!(w.m.is_quiet());
}

#[test]
fn an_entry_that_the_guest_has_is_kept_for_the_host_and_told() {
    let (b, mut w) = (bench(), world());
    lock_entry(&mut w, b.tables[2], 3);
    let page = small_entry(&w, gpa::PENDING).hpa().0;
    let status = S::OPERAND_BUSY.about(O::RCX);
    let out = fails(&mut w, Leaf::MEM_RANGE_BLOCK, gpa::PENDING, b.td, 0, status);
    assert_eq!(out, (0x8000_0000_0000_00F0 | page, 2 << 8));
    let kept = small_entry(&w, gpa::PENDING);
    assert!(kept.locked() && kept.host_priority());
}

#[test]
fn a_range_that_is_not_blocked_is_told_with_its_details() {
    let (b, mut w) = (bench(), world());
    let page = page_at(&w, &b.tables, gpa::MAPPED);
    let status = S::GPA_RANGE_NOT_BLOCKED.about(O::RCX);
    let out = fails(&mut w, Leaf::MEM_PAGE_REMOVE, gpa::MAPPED, b.td, 0, status);
    assert_eq!(out, (0x8000_0000_0000_00F7 | page, 4 << 8));
}

#[test]
fn the_root_s_entries_are_of_level_3_in_a_tree_of_four_levels() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_SEPT_ADD, 1 << 39 | 3, b.td, b.free, 0);
    assert_eq!(entry(&w, w.td(b.td).sept_root().hpa().0, 1).page(), Page(b.free >> 12));
    let status = S::OPERAND_INVALID.about(O::RCX);
    fails(&mut w, Leaf::MEM_SEPT_ADD, 4, b.td, b.free + 4096, status);
}

// ---------------------------------------------------------------------------------------------------- DEMOTE, PROMOTE

#[test]
fn demote_writes_the_table_splits_the_metadata_and_unblocks_the_children() {
    let (b, mut w) = (bench(), world());
    let (children, owner) = (w.td(b.td).chldcnt, Page(b.td >> 12));
    let mut call =
        Call::new(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.td, b.free, b.blocked);
    call.regs[4] = NULL_PA;
    let answer = w.call_on(0, call);
    // The TD has no L2 VMs: what is offered for them is not looked at, and not marked as left over.
    assert_eq!((answer.status, &answer.out[3..6]), (S::SUCCESS, &[b.blocked, NULL_PA, 0][..]));
    let first = Entry::leaf(State::Pending, Page(b.large >> 12)).0;
    let at = Addr::new(Hpa(b.free), KeyId(HKID));
    assert_eq!(touched(&w, b.free, 4096), [Touch::FillTable { at, first, step: 4096 }]);
    assert_eq!(touched(&w, b.large, 2 << 20), []);
    for i in [0, 1, 511u16] {
        let child = Entry::leaf(State::Pending, Page((b.large >> 12) + u64::from(i)));
        assert_eq!(entry(&w, b.free, i), child);
        let pamt = w.m.pamt(b.large + (u64::from(i) << 12), Size::Small);
        assert_eq!(pamt, PamtEntry::new(PageType::Reg, owner));
    }
    let split = Entry::table(State::NlMapped, Page(b.free >> 12));
    assert_eq!(large_entry(&w, gpa::LARGE_BLOCKED), split);
    assert_eq!(w.m.pamt(b.large, Size::Large).page_type(), PageType::Nda);
    assert_eq!(w.m.pamt(b.free, Size::Small).page_type(), PageType::Ept);
    // One more page, the Secure-EPT page; the 512 are the same memory.
    assert_eq!(w.td(b.td).chldcnt, children + 1);
    sound(&mut w);
    // Each child is a page of its own now.
    w.ok(Leaf::MEM_RANGE_BLOCK, gpa::LARGE_BLOCKED + 0x7000, b.td, 0, 0);
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    let answer = w.ok(Leaf::MEM_PAGE_REMOVE, gpa::LARGE_BLOCKED + 0x7000, b.td, 0, 0);
    assert_eq!(answer.out[0], b.large + 0x7000);
}

#[test]
fn demote_drops_the_counter_of_a_large_page_that_is_half_accepted() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_PAGE_AUG, 1 << 21 | 1, b.built, b.free_block, 0);
    let pending = entry(&w, b.built_tables[1], 1);
    edit_entry(&mut w, b.built_tables[1], 1, pending.with_accept_counter(300));
    w.ok(Leaf::MEM_PAGE_DEMOTE, 1 << 21 | 1, b.built, b.free, 0);
    for i in [0, 300, 511] {
        let page = Page((b.free_block >> 12) + u64::from(i));
        assert_eq!(entry(&w, b.free, i), Entry::leaf(State::Pending, page));
    }
    sound(&mut w);
}

#[test]
fn demote_leaves_the_new_table_s_epoch_as_the_page_s_last_owner_left_it() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, b.td, 0, 0);
    let stale = w.m.pamt(b.blocked, Size::Small).bepoch;
    assert!(stale > 0);
    w.ok(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.td, b.blocked, 0);
    assert_eq!(w.m.pamt(b.blocked, Size::Small).bepoch, stale);
    // TDH.MEM.SEPT.ADD writes 0.
    w.ok(Leaf::MEM_PAGE_REMOVE, gpa::PENDING_BLOCKED, b.td, 0, 0);
    let page = page_at(&bench().w, &b.tables, gpa::PENDING_BLOCKED);
    assert!(w.m.pamt(page, Size::Small).bepoch > 0);
    w.ok(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, b.td, page, 0);
    assert_eq!(w.m.pamt(page, Size::Small).bepoch, 0);
}

#[test]
fn an_interrupt_restarts_demote_and_promote_with_their_operands() {
    let b = bench();
    for (leaf, info, page) in [
        (Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.free),
        (Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, 0),
    ] {
        let mut w = world();
        w.irq = true;
        let out = fails(&mut w, leaf, info, b.td, page, S::INTERRUPTED_RESTARTABLE);
        assert_eq!(out, (info, b.td));
        assert!(w.m == bench().w.m);
        w.irq = false;
        w.ok(leaf, out.0, out.1, page, 0);
        sound(&mut w);
    }
}

#[test]
fn promote_makes_one_page_of_512_and_frees_their_table() {
    let (b, mut w) = (bench(), world());
    let (children, owner) = (w.td(b.td).chldcnt, Page(b.td >> 12));
    let answer = w.ok(Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, b.td, 0, 0);
    assert_eq!(answer.out[0], b.merge_table);
    assert_eq!(large_entry(&w, gpa::MERGE), Entry::leaf(State::Pending, Page(b.merge >> 12)));
    assert_eq!(w.m.pamt(b.merge, Size::Large), PamtEntry::new(PageType::Reg, owner));
    let child = w.m.pamt(b.merge + 0x5000, Size::Small);
    assert_eq!((child.page_type(), child.owner()), (PageType::Nda, owner));
    assert_eq!(w.m.pamt(b.merge_table, Size::Small).page_type(), PageType::Nda);
    assert_eq!(w.td(b.td).chldcnt, children - 1);
    assert_eq!(touched(&w, b.merge, 2 << 20), []);
    // The table's memory keeps what the locks of the children left there.
    let word = w.peek(b.merge_table + 8, HKID);
    assert_eq!(word, Entry::leaf(State::Pending, Page((b.merge >> 12) + 1)).with_locked(true).0);
    sound(&mut w);
}

#[test]
fn promote_asks_for_one_state_and_consecutive_aligned_pages() {
    let (b, w) = (bench(), world());
    let child = |i: u64, state| Entry::leaf(state, Page((b.merge >> 12) + i));
    let status = S::EPT_INVALID_PROMOTE_CONDITIONS.about(O::RCX);
    for (index, entry) in [
        (0, child(1, State::Pending)),
        (0, child(0, State::PendingBlocked)),
        (0, Entry::FREE),
        (5, child(6, State::Pending)),
        (511, child(511, State::Mapped)),
        (511, child(511, State::PendingBlocked)),
    ] {
        let mut w = w.clone();
        edit_entry(&mut w, b.merge_table, index, entry);
        let out = fails(&mut w, Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, b.td, 0, status);
        assert_eq!(out, (0, 129 << 8 | 1), "{index} {entry:?}");
        assert!(w.m.is_quiet());
        // Every lock of a child that was taken is released.
        assert!((0..512).all(|i| !entry_locked(&w, b.merge_table, i)));
    }
}
fn entry_locked(w: &World, table: u64, index: u16) -> bool {
    entry(w, table, index).locked()
}

#[test]
fn promote_after_demote_is_what_was_there_before() {
    let (b, mut w) = (bench(), world());
    let before = large_entry(&w, gpa::LARGE_BLOCKED);
    w.ok(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, b.td, b.free, 0);
    w.ok(Leaf::MEM_RANGE_BLOCK, gpa::LARGE_BLOCKED | 1, b.td, 0, 0);
    w.ok(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    let mut call = Call::new(Leaf::MEM_PAGE_PROMOTE, gpa::LARGE_BLOCKED | 1, b.td, 0, 0);
    call.rax |= 1 << 16;
    let answer = w.call_on(0, call);
    assert_eq!(
        (answer.status, answer.out),
        (S::SUCCESS, [b.free, 0, 0, NULL_PA, NULL_PA, NULL_PA])
    );
    assert_eq!(large_entry(&w, gpa::LARGE_BLOCKED), before.with_state(State::Pending));
    sound(&mut w);
}

// ----------------------------------------------------------------------------------------------------------- RELOCATE

#[test]
fn relocate_copies_a_mapped_page_under_the_td_s_key_and_unblocks_it() {
    let (b, mut w) = (bench(), world());
    let words = image(&mut w, 0x55);
    for (i, word) in (0..).zip(&words) {
        w.poke(b.blocked + 8 * i, HKID, *word);
    }
    let answer = w.ok(Leaf::MEM_PAGE_RELOCATE, gpa::BLOCKED, b.td, b.free, 0);
    assert_eq!(answer.out[0], b.blocked);
    let (from, to) = (Addr::new(Hpa(b.blocked), KeyId(HKID)), Addr::new(Hpa(b.free), KeyId(HKID)));
    assert_eq!(touched(&w, b.free, 4096), [Touch::Copy { from, to }]);
    assert_eq!(w.peek(b.free + 4088, HKID), words[511]);
    assert_eq!(small_entry(&w, gpa::BLOCKED), Entry::leaf(State::Mapped, Page(b.free >> 12)));
    assert_eq!(w.m.pamt(b.blocked, Size::Small).page_type(), PageType::Nda);
    assert_eq!(w.m.pamt(b.free, Size::Small), PamtEntry::new(PageType::Reg, Page(b.td >> 12)));
    sound(&mut w);
}

#[test]
fn relocate_copies_nothing_of_a_pending_page() {
    let (b, mut w) = (bench(), world());
    w.ok(Leaf::MEM_PAGE_RELOCATE, gpa::PENDING_BLOCKED, b.td, b.free, 0);
    assert_eq!(touched(&w, b.free, 4096), []);
    let pending = Entry::leaf(State::Pending, Page(b.free >> 12));
    assert_eq!(small_entry(&w, gpa::PENDING_BLOCKED), pending);
    sound(&mut w);
}

// --------------------------------------------------------------------------------------------------------------- debug

#[test]
fn rd_and_wr_access_eight_bytes_under_the_td_s_key() {
    let (b, mut w) = (bench(), world());
    w.poke(b.debug_page + 0x18, 68, 0x1234);
    let answer = w.ok(Leaf::MEM_RD, 0x18, b.debug, 0, 0);
    assert_eq!(answer.out[2], 0x1234);
    let at = Addr::new(Hpa(b.debug_page + 0x18), KeyId(68));
    assert_eq!(touched(&w, b.debug_page, 4096), [Touch::Load { at, bytes: 8 }]);
    let answer = w.ok(Leaf::MEM_WR, 0x18, b.debug, 0x5678, 0);
    assert_eq!(answer.out[2], 0x1234);
    let store = Touch::Store { at, value: [0x5678, 0], bytes: 8, locked: false };
    assert_eq!(touched(&w, b.debug_page, 4096), [Touch::Load { at, bytes: 8 }, store]);
    assert_eq!(w.ok(Leaf::MEM_RD, 0x18, b.debug, 0, 0).out[2], 0x5678);
    let status = S::EPT_ENTRY_NOT_PRESENT.about(O::RCX);
    let out = fails(&mut w, Leaf::MEM_RD, 0x1000, b.debug, 0, status);
    assert_eq!(out.1, 2 << 8);
}

// ---------------------------------------------------------------------------------------------------------------- 1 GiB

/// A TD whose second GiB is one page: PENDING, made of 512 of 2 MiB. The world, the TD, its table of level-2 entries, the
/// table that became free.
static HUGE: LazyLock<(World, u64, u64, u64)> = LazyLock::new(|| {
    let mut w = World::new(spec());
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        assert_eq!(w.call_on(lp, Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0)).status, S::SUCCESS);
    }
    let array = w.write_tdmrs(&[TdmrText::at(TDMR, 2 << 30, PAMT)]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    while w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0).out[1] < TDMR + (2 << 30) {}
    w.lines.retain(|_, words| *words != [0; 8]);
    let td = w.initialized_td(u64::from(HKID), 0);
    let tables = w.sept(td, GIB_1, 1);
    for i in 0..512 {
        let page = TDMR + GIB_1 + (i << 21);
        w.ok(Leaf::MEM_PAGE_AUG, (GIB_1 + (i << 21)) | 1, td, page, 0);
    }
    let answer = w.ok(Leaf::MEM_PAGE_PROMOTE, GIB_1 | 2, td, 0, 0);
    assert_eq!(answer.out[0], tables[1]);
    (w, td, tables[0], tables[1])
});
const GIB_1: u64 = 1 << 30;

#[test]
fn five_hundred_and_twelve_large_pages_become_one_of_a_gib_and_small_ones_again() {
    let (mut w, td, top, table) = HUGE.clone();
    let (huge, owner) = (TDMR + GIB_1, Page(td >> 12));
    assert_eq!(entry(&w, top, 1), Entry::leaf(State::Pending, Page(huge >> 12)));
    assert_eq!(w.m.pamt(huge, Size::Huge), PamtEntry::new(PageType::Reg, owner));
    assert_eq!(w.m.pamt(huge + (5 << 21), Size::Large).page_type(), PageType::Nda);
    let children = w.td(td).chldcnt;
    w.ok(Leaf::MEM_PAGE_DEMOTE, GIB_1 | 2, td, table, 0);
    assert_eq!(w.td(td).chldcnt, children + 1);
    let child = Page((huge >> 12) + (7 << 9));
    assert_eq!(entry(&w, table, 7), Entry::leaf(State::Pending, child));
    assert_eq!(w.m.pamt(huge, Size::Huge).page_type(), PageType::Nda);
    assert_eq!(w.m.pamt(child.hpa().0, Size::Large), PamtEntry::new(PageType::Reg, owner));
    let small = w.page();
    w.ok(Leaf::MEM_PAGE_DEMOTE, (GIB_1 + (7 << 21)) | 1, td, small, 0);
    assert_eq!(w.m.pamt(child.hpa().0 + 4096, Size::Small).owner(), owner);
}

#[test]
fn a_page_of_a_gib_is_blocked_and_removed_as_one() {
    let (mut w, td, top, _) = HUGE.clone();
    w.ok(Leaf::MEM_RANGE_BLOCK, GIB_1 | 2, td, 0, 0);
    assert_eq!(w.m.pamt(TDMR + GIB_1, Size::Huge).bepoch, w.td(td).epoch);
    let children = w.td(td).chldcnt;
    let answer = w.ok(Leaf::MEM_PAGE_REMOVE, GIB_1 | 2, td, 0, 0);
    assert_eq!(answer.out[0], TDMR + GIB_1);
    assert_eq!(w.td(td).chldcnt, children - 262_144);
    assert_eq!(entry(&w, top, 1), Entry::FREE);
    assert_eq!(w.m.pamt(TDMR + GIB_1, Size::Huge).page_type(), PageType::Nda);
    // And it is free for anything.
    let page = TDMR + GIB_1 + 0x5000;
    w.sept(td, 0, 0);
    w.ok(Leaf::MEM_PAGE_AUG, 0, td, page, 0);
}

#[test]
fn a_page_of_a_gib_is_in_the_way_of_any_page_in_it() {
    let (mut w, td, _, _) = HUGE.clone();
    w.sept(td, 0, 0);
    let status = S::PAGE_METADATA_INCORRECT.about(O::R8);
    fails(&mut w, Leaf::MEM_PAGE_AUG, 0, td, TDMR + GIB_1 + 0x5000, status);
    fails(&mut w, Leaf::MEM_PAGE_AUG, 1 << 21 | 1, td, TDMR + GIB_1 + (3 << 21), status);
    assert_eq!(w.td(td).op_state, OpState::Initialized);
}

#[test]
fn the_host_s_priority_ends_with_a_store_that_fills_the_entry_and_stays_after_a_mere_release() {
    let b = bench();
    for (leaf, stays) in [(Leaf::MEM_PAGE_AUG, false), (Leaf::MEM_SEPT_RD, true)] {
        let mut w = world();
        hold(&mut w, Call::new(leaf, gpa::FREE, b.td, b.free, 0), LOCKED);
        let other = w.call(Leaf::MEM_SEPT_RD, gpa::FREE, b.td, 0, 0).status;
        assert_eq!(other, S::OPERAND_BUSY.about(O::RCX));
        assert!(small_entry(&w, gpa::FREE).host_priority());
        assert!(
            matches!(w.run(1, Reply::Done), Action::Return(answer) if answer.status == S::SUCCESS)
        );
        assert_eq!(small_entry(&w, gpa::FREE).host_priority(), stays, "{leaf}");
        sound(&mut w);
    }
}

#[test]
fn promote_refuses_pages_that_are_consecutive_but_not_aligned_and_pages_that_are_all_blocked() {
    let (b, status) = (bench(), S::EPT_INVALID_PROMOTE_CONDITIONS.about(O::RCX));
    // In a TD that is built, where nothing needs tracking.
    let at = 9 << 21;
    for (first, block) in [(b.free_block + 4096, false), (b.free_block, true)] {
        let mut w = world();
        w.sept(b.built, at, 0);
        for i in 0..512 {
            w.ok(Leaf::MEM_PAGE_AUG, at + (i << 12), b.built, first + (i << 12), 0);
            if block {
                w.ok(Leaf::MEM_RANGE_BLOCK, at + (i << 12), b.built, 0, 0);
            }
        }
        fails(&mut w, Leaf::MEM_PAGE_PROMOTE, at | 1, b.built, 0, status);
        sound(&mut w);
    }
}
