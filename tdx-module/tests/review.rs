//! What another LP, or an address that no TD has, can do to a leaf between its stages.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{GLOBAL, World};
use sim_core::tdx::{GuestLeaf, Leaf, Operand, Status};
use tdx_module::pamt::Size;
use tdx_module::{Action, Answer, Call, FAILURE_EFFECTS, Inject, Reply, VmExit};

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

/// What the guest does that a call enters: where R9 is not 0 it accepts that page, once, then it is interrupted.
fn next_exit(call: &Call, accepts: &mut bool) -> Reply {
    let regs = [call.regs[3], 0, 0, 0, 0, 0, 0, 0];
    if std::mem::replace(accepts, false) && call.regs[3] != 0 {
        Reply::Exit(VmExit::Tdcall { leaf: GuestLeaf::MEM_PAGE_ACCEPT, version: 0, regs })
    } else {
        Reply::Exit(VmExit::Interrupt)
    }
}
/// Goes on for so many touches, guests included; the answer if the call is over.
fn go_on(
    w: &mut World,
    lp: usize,
    call: &Call,
    touches: usize,
    accepts: &mut bool,
) -> Option<Answer> {
    let mut reply = Reply::Done;
    for _ in 0..touches {
        match w.run_some_with(lp, reply, 1) {
            None => reply = Reply::Done,
            Some(Action::Enter(_)) => reply = next_exit(call, accepts),
            Some(Action::Return(answer)) => return Some(answer),
            Some(other) => panic!("{other:?}"),
        }
    }
    if reply != Reply::Done {
        // The guest has left: the module goes on at least to its next touch.
        assert_eq!(w.run_some_with(lp, reply, 1), None);
    }
    None
}
/// A whole call.
fn whole(w: &mut World, lp: usize, call: &Call) -> Answer {
    assert!(w.begin(lp, call));
    go_on(w, lp, call, usize::MAX, &mut true).unwrap()
}

/// Calls that meet: on one page, one HKID, one TD, one VCPU, one life cycle.
fn that_meet() -> (World, Vec<Call>) {
    let mut w = World::ready();
    let torn = w.runnable_td(69);
    w.ok(Leaf::VP_FLUSH, torn.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, torn.tdr, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, torn.tdr, 0, 0, 0);
    // All but one page and the TDR.
    for page in (torn.tdr + 4096..torn.page).step_by(4096) {
        w.ok(Leaf::PHYMEM_PAGE_RECLAIM, page, 0, 0, 0);
    }
    let flushed = w.runnable_td(67);
    w.ok(Leaf::VP_FLUSH, flushed.tdvpr, 0, 0, 0);
    let created = w.page();
    w.ok(Leaf::MNG_CREATE, created, 68, 0, 0);
    let keyed = w.keyed_td(71);
    let built = w.initialized_td(66, 0);
    w.sept(built, 0, 0);
    w.add(built, 0);
    let [first, second] = [0, 1].map(|_| {
        let tdvpr = w.page();
        w.ok(Leaf::VP_CREATE, tdvpr, built, 0, 0);
        for _ in 0..5 {
            let page = w.page();
            w.ok(Leaf::VP_ADDCX, page, tdvpr, 0, 0);
        }
        tdvpr
    });
    let runs = w.runnable_td(65);
    w.ok(Leaf::VP_FLUSH, runs.tdvpr, 0, 0, 0);
    w.aug(runs.tdr, 0x1000);
    w.ok(Leaf::MEM_RANGE_BLOCK, 0x1000, runs.tdr, 0, 0);
    w.ok(Leaf::MEM_TRACK, runs.tdr, 0, 0, 0);
    // Of `built` 512 pages that can become one, and a table without pages; of `runs` a large page, blocked.
    let (merge, large) = (0x60_0000, 0x80_0000);
    w.sept(built, merge, 0);
    let pages = w.block(2 << 20);
    for i in 0..512 {
        w.ok(Leaf::MEM_PAGE_ADD, merge + (i << 12), built, pages + (i << 12), common::IMAGE);
    }
    w.sept(built, 0x40_0000, 0);
    let at = w.block(2 << 20);
    w.ok(Leaf::MEM_PAGE_AUG, large | 1, runs.tdr, at, 0);
    w.ok(Leaf::MEM_RANGE_BLOCK, large | 1, runs.tdr, 0, 0);
    w.ok(Leaf::MEM_TRACK, runs.tdr, 0, 0, 0);
    w.aug(runs.tdr, 0x4000);
    let (page, other, block) = (w.page(), w.page(), w.block(2 << 20));
    let add = w.td_params(0, 4);
    w.lines.retain(|(line, keyid), _| *keyid == 0 && line << 6 >= common::HOST);
    let call = |leaf, rcx, rdx, r8, r9| Call::new(leaf, rcx, rdx, r8, r9);
    let calls = vec![
        call(Leaf::MNG_CREATE, page, 70, 0, 0),
        call(Leaf::MNG_CREATE, other, 70, 0, 0),
        call(Leaf::MNG_KEY_CONFIG, created, 0, 0, 0),
        call(Leaf::MNG_VPFLUSHDONE, created, 0, 0, 0),
        call(Leaf::MNG_ADDCX, page, keyed, 0, 0),
        call(Leaf::MNG_INIT, keyed, add, 0, 0),
        call(Leaf::VP_CREATE, page, built, 0, 0),
        call(Leaf::VP_INIT, first, 0, 0, 0),
        call(Leaf::VP_INIT, second, 0, 0, 0),
        call(Leaf::VP_ADDCX, page, first, 0, 0),
        call(Leaf::MR_FINALIZE, built, 0, 0, 0),
        call(Leaf::MR_EXTEND, 0, built, 0, 0),
        call(Leaf::MEM_PAGE_ADD, 0x3000, built, page, common::IMAGE),
        call(Leaf::MEM_SEPT_ADD, 0x20_0000 | 1, built, page, 0),
        call(Leaf::MEM_SEPT_ADD, 0x20_0000 | 1, runs.tdr, other, 0),
        call(Leaf::MEM_PAGE_AUG, 0x2000, runs.tdr, page, 0),
        call(Leaf::MEM_PAGE_AUG, 0x20_0000 | 1, runs.tdr, block, 0),
        call(Leaf::MEM_PAGE_REMOVE, 0x1000, runs.tdr, 0, 0),
        call(Leaf::MEM_PAGE_RELOCATE, 0x1000, runs.tdr, page, 0),
        call(Leaf::MEM_RANGE_UNBLOCK, 0x1000, runs.tdr, 0, 0),
        call(Leaf::MEM_RANGE_BLOCK, 0, runs.tdr, 0, 0),
        call(Leaf::MEM_TRACK, runs.tdr, 0, 0, 0),
        call(Leaf::VP_ENTER, runs.tdvpr, 0, 0, 0),
        call(Leaf::VP_ENTER, runs.tdvpr, 0, 0, 0x4000),
        call(Leaf::MEM_RANGE_BLOCK, 0x4000, runs.tdr, 0, 0),
        call(Leaf::MEM_PAGE_DEMOTE, large | 1, runs.tdr, page, 0),
        call(Leaf::MEM_PAGE_REMOVE, large | 1, runs.tdr, 0, 0),
        call(Leaf::MEM_RANGE_UNBLOCK, large | 1, runs.tdr, 0, 0),
        call(Leaf::MEM_RANGE_BLOCK, 2, runs.tdr, 0, 0),
        call(Leaf::MEM_PAGE_PROMOTE, merge | 1, built, 0, 0),
        call(Leaf::MEM_PAGE_REMOVE, merge + 0x5000, built, 0, 0),
        call(Leaf::MEM_PAGE_RELOCATE, merge + 0x5000, built, page, 0),
        call(Leaf::PHYMEM_PAGE_RDMD, pages + 0x5000, 0, 0, 0),
        call(Leaf::MEM_SEPT_REMOVE, 0x40_0000 | 1, built, 0, 0),
        call(Leaf::MEM_PAGE_ADD, 0x40_3000, built, page, common::IMAGE),
        call(Leaf::VP_RD, runs.tdvpr, 0xa020_0002_0000_0002, 0, 0),
        call(Leaf::VP_FLUSH, runs.tdvpr, 0, 0, 0),
        call(Leaf::MNG_VPFLUSHDONE, runs.tdr, 0, 0, 0),
        call(Leaf::MNG_VPFLUSHDONE, flushed.tdr, 0, 0, 0),
        call(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0),
        call(Leaf::MNG_KEY_FREEID, flushed.tdr, 0, 0, 0),
        call(Leaf::PHYMEM_PAGE_RECLAIM, torn.page, 0, 0, 0),
        call(Leaf::PHYMEM_PAGE_RECLAIM, torn.tdr, 0, 0, 0),
        call(Leaf::MNG_CREATE, torn.tdr, 72, 0, 0),
        call(Leaf::VP_CREATE, torn.page, built, 0, 0),
        call(Leaf::PHYMEM_PAGE_RDMD, page, 0, 0, 0),
        call(Leaf::PHYMEM_PAGE_WBINVD, page, 0, 0, 0),
        call(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0),
    ];
    (w, calls)
}

/// Every two of some calls, the first stopped after any number of touches while the second runs: they end as one after
/// the other, or one of them is busy. How often both ended well, and how often the second was refused.
fn meet(base: &World, calls: &[Call]) -> (usize, usize) {
    let busy = |s: Status| {
        // The last: of a VCPU that is in its TD.
        [Status::OPERAND_BUSY, Status::SYS_BUSY, Status::VCPU_STATE_INCORRECT].contains(&s.code())
    };
    // A refused VP.ENTER keeps the VCPU associated.
    let leaves_more = |call: &Call| {
        FAILURE_EFFECTS.iter().any(|row| row.in_module && row.leaf == Some(Leaf(call.rax as u16)))
    };
    let (mut at_once, mut refused) = (0, 0);
    for a in calls {
        let mut alone = base.clone();
        let only_a = whole(&mut alone, 0, a);
        for b in calls {
            let serial = |first: (usize, &Call), then: (usize, &Call)| {
                let mut w = base.clone();
                let answers = [whole(&mut w, first.0, first.1), whole(&mut w, then.0, then.1)];
                (answers, w)
            };
            let ([a1, b2], ab) = serial((0, a), (1, b));
            let ([b1, a2], ba) = serial((1, b), (0, a));
            // Long calls are stopped at fewer places towards their end.
            for touches in (0..40).chain((40..).step_by(97)) {
                let mut w = base.clone();
                assert!(w.begin(0, a));
                let mut accepts = true;
                if go_on(&mut w, 0, a, touches, &mut accepts).is_some() {
                    break;
                }
                let got_b = whole(&mut w, 1, b);
                let got_a = go_on(&mut w, 0, a, usize::MAX, &mut accepts).unwrap();
                let what = format!("{:x?}\n{:x?}\nafter {touches}: {got_a:x?} {got_b:x?}", a, b);
                assert!(w.m.is_quiet(), "{what}");
                let end = w.m.without_priority();
                let is = |other: &World| end == other.m.without_priority();
                let ok = (got_a, got_b) == (a1, b2) && is(&ab)
                    || (got_a, got_b) == (a2, b1) && is(&ba)
                    || got_b.status != b1.status
                        && busy(got_b.status)
                        && got_a == only_a
                        && (leaves_more(b) || is(&alone))
                    || got_a.status != a1.status && busy(got_a.status) && got_b == b1 && {
                        let mut w = base.clone();
                        whole(&mut w, 1, b);
                        leaves_more(a) || is(&w)
                    };
                // A TDCALL that meets a lock is busy, too, and the guest knows it, not the host.
                let accepts =
                    |call: &Call| call.rax == u64::from(Leaf::VP_ENTER.0) && call.regs[3] != 0;
                let met =
                    |got: Answer, serial: [Answer; 2]| serial.contains(&got) || busy(got.status);
                let ok =
                    ok || accepts(b) && met(got_a, [a1, a2]) || accepts(a) && met(got_b, [b1, b2]);
                assert!(ok, "{what}\nserial: {a1:x?} {b2:x?} or {b1:x?} {a2:x?}");
                at_once += usize::from(!got_a.status.is_error() && !got_b.status.is_error());
                refused += usize::from(busy(got_b.status));
            }
        }
    }
    (at_once, refused)
}

#[test]
fn two_calls_at_once_end_as_one_after_the_other_or_one_of_them_is_busy() {
    // architecture.md §7.2: nothing waits, a lock that is taken is a BUSY status.
    let (base, calls) = that_meet();
    let (at_once, refused) = meet(&base, &calls);
    assert!(at_once > 1000 && refused > 1000, "{at_once} {refused}");
}

#[test]
fn two_calls_at_once_on_pages_of_dynamic_pamt_do_too() {
    let mut spec = common::spec();
    spec.tdx.dynamic_pamt = true;
    let mut w = World::ready_with(spec);
    let block = |i: u64| common::TDMR + i * (2 << 20);
    let pages = |i: u64| [0u64, 0x1000].map(|n| block(100) + i * 0x2000 + n);
    let add = |i: u64, pair: [u64; 2]| {
        Call::new(Leaf::PHYMEM_PAMT_ADD, block(i) | 1, pair[0], pair[1], 0)
    };
    for i in 0..3 {
        assert_eq!(whole(&mut w, 0, &add(i, pages(i))).status, Status::SUCCESS);
    }
    let tdr = w.initialized_td(65, 0);
    w.sept(tdr, 0, 0);
    w.sept(tdr, 0x20_0000, 1);
    // The one page of block 1, and the one left of a TD that is torn down in block 2.
    w.ok(Leaf::MEM_PAGE_ADD, 0, tdr, block(1), common::IMAGE);
    w.next_page = block(2);
    let torn = w.page();
    w.ok(Leaf::MNG_CREATE, torn, 66, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, torn, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, torn, 0, 0, 0);
    w.lines.retain(|(line, keyid), _| *keyid == 0 && line << 6 >= common::HOST);
    let call = |leaf, rcx, rdx, r8, r9| Call::new(leaf, rcx, rdx, r8, r9);
    let [first, second] = pages(7);
    let calls = [
        add(5, [first, second]),
        add(5, pages(8)),
        add(6, [first, second]),
        add(6, [second, first]),
        call(Leaf::MEM_SEPT_ADD, 0x4000_0000 | 2, tdr, block(0) + 0x10_0000, 0),
        call(Leaf::MNG_CREATE, block(1) + 0x3000, 67, 0, 0),
        call(Leaf::MNG_CREATE, block(2) + 0x3000, 67, 0, 0),
        call(Leaf::MEM_PAGE_REMOVE, 0, tdr, 0, 0),
        call(Leaf::PHYMEM_PAMT_REMOVE, block(1) | 1, 0, 0, 0),
        call(Leaf::PHYMEM_PAGE_RECLAIM, torn, 0, 0, 0),
        call(Leaf::PHYMEM_PAMT_REMOVE, block(2) | 1, 0, 0, 0),
        call(Leaf::PHYMEM_PAGE_RDMD, block(2), 0, 0, 0),
        call(Leaf::MEM_PAGE_ADD, 0x3000, tdr, block(1) + 0x5000, common::IMAGE),
    ];
    let (at_once, refused) = meet(&w, &calls);
    assert!(at_once > 100 && refused > 100, "{at_once} {refused}");
}
