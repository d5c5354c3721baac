//! What another LP, or an address that no TD has, can do to a leaf between its stages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{GLOBAL, World};
use sim_core::tdx::{Leaf, Operand, Status};
use tdx_module::pamt::Size;
use tdx_module::{Action, Call, Inject, Reply, VmExit};

/// Bits 15:0 of a PAMT entry in memory: its lock.
fn lock_in_memory(w: &World, pa: u64, size: Size) -> u64 {
    let at = w.m.tdmr_of(pa).unwrap().entry_at(pa, size).unwrap().0;
    w.peek(at, GLOBAL as u16) & 0xffff
}

#[test]
fn a_lock_is_free_for_others_only_when_the_store_that_releases_it_is_done() {
    // architecture.md §7.2: the lock is a word in memory, and releasing it is the store.
    let mut w = World::ready();
    let tdr = w.initialized_td(65, 0);
    w.sept(tdr, 0, 1);
    let block = w.block(2 << 20);
    let (mut met, mut free) = (0, 0);
    assert!(w.begin(0, &Call::new(Leaf::PHYMEM_PAGE_RDMD, block, 0, 0, 0)));
    while w.run_some(0, 1).is_none() {
        let mut other = w.clone();
        let aug = Call::new(Leaf::MEM_PAGE_AUG, 1, tdr, block, 0);
        match other.call_on(1, aug).status {
            Status::SUCCESS => {
                assert_eq!(lock_in_memory(&w, block, Size::Large), 0);
                free += 1;
            }
            status => {
                assert_eq!(status, Status::OPERAND_BUSY.about(Operand::R8));
                met += 1;
            }
        }
    }
    assert!(met > 0 && free > 0, "{met} {free}");
}

#[test]
fn bits_above_the_shared_bit_are_a_page_fault_with_the_shared_bit_too() {
    // intel/tdx-module 1.5.01 td_ept_violation.c looks at them before it looks at the SHARED bit.
    let mut w = World::ready();
    let td = w.runnable_td(65);
    w.enter(0, td.tdvpr);
    for gpa in [1 << 50 | 1 << 47, 1 << 48 | 1 << 47, u64::MAX] {
        match w.exit(0, VmExit::EptViolation { gpa, access: 1 }) {
            Action::Enter(guest) => {
                assert_eq!(guest.inject, Inject::Exception { vector: 14, error: 9 }, "{gpa:#x}");
            }
            other => panic!("{gpa:#x}: {other:?}"),
        }
    }
}

/// What came of a call, whatever it was.
fn end(w: &mut World, call: Call) -> Action {
    assert!(w.begin(0, &call));
    w.run(0, Reply::Done)
}

/// A TD that was configured with one L2 VM.
fn with_l2_vm() -> (World, u64) {
    let mut w = World::ready();
    let tdr = w.keyed_td(65);
    let page = w.page();
    w.ok(Leaf::MNG_ADDCX, page, tdr, 0, 0);
    let params = w.td_params(0, 4);
    w.poke(params + 16, 0, 4 | 1 << 16);
    w.ok(Leaf::MNG_INIT, tdr, params, 0, 0);
    (w, tdr)
}

#[test]
fn a_page_for_an_l2_vm_that_the_td_has_is_not_modelled_rather_than_refused() {
    // intel/tdx-module 1.5.01 tdh_mem_sept_add.c process_l2_pages: the real module walks the L2 VM's tree.
    let (mut w, tdr) = with_l2_vm();
    let [l1, l2] = [w.page(), w.page()];
    let add = |r9, r10| Call {
        rax: u64::from(Leaf::MEM_SEPT_ADD.0) | 1 << 16,
        regs: [3, tdr, l1, r9, r10, u64::MAX, 0, 0],
    };
    let before = w.m.clone();
    // The TD has one, not two.
    let invalid = Status::OPERAND_INVALID.about(Operand::R10);
    match end(&mut w, add(u64::MAX, l2)) {
        Action::Return(answer) => assert_eq!(answer.status, invalid),
        other => panic!("{other:?}"),
    }
    assert_eq!(end(&mut w, add(l2, u64::MAX)), Action::NotModelled);
    assert!(w.m == before);
    assert!(
        matches!(end(&mut w, add(u64::MAX, u64::MAX)), Action::Return(a) if a.status == Status::SUCCESS)
    );
}

#[test]
fn a_demotion_that_would_give_an_l2_vm_a_table_is_not_modelled() {
    // intel/tdx-module 1.5.01 tdh_mem_page_demote.c: without RDX bit 0 each L2 VM gets the page in its register.
    let (mut w, tdr) = with_l2_vm();
    w.sept(tdr, 0, 1);
    let large = w.block(2 << 20);
    w.edit_td(tdr, "op_state", "Runnable".into());
    w.ok(Leaf::MEM_PAGE_AUG, 1, tdr, large, 0);
    w.edit_td(tdr, "op_state", "Initialized".into());
    let [l1, l2] = [w.page(), w.page()];
    let demote = |flag: u64, r9| Call {
        rax: u64::from(Leaf::MEM_PAGE_DEMOTE.0),
        regs: [1, tdr | flag, l1, r9, u64::MAX, u64::MAX, 0, 0],
    };
    let mut sparse = w.clone();
    assert_eq!(end(&mut w, demote(0, l2)), Action::NotModelled);
    // Nothing of the page is the L2 VM's, so that in the sparse mode it gets none, and none offered is none needed.
    let mut none = sparse.clone();
    for (w, call) in [(&mut sparse, demote(1, l2)), (&mut none, demote(0, u64::MAX))] {
        match end(w, call) {
            Action::Return(answer) => assert_eq!(answer.status, Status::SUCCESS),
            other => panic!("{other:?}"),
        }
    }
}
