//! TDH.SYS.DISABLE (linux-host-paths.md §16.5).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::cases::{Case, LeafCases, check};
use common::{GLOBAL, RunnableTd, TDMR, World, spec};
use sim_core::KeyId;
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tdx_module::pamt::Size;
use tdx_module::{Action, Call, Module, Reply, Spec, SysState, Touch, VmExit};

const HKID: u64 = 70;
const GPA_2M: u64 = 0x4000_0000;
const DISABLE: Call = Call::new(Leaf::SYS_DISABLE, 0, 0, 0, 0);

fn with_disable() -> Spec {
    let mut spec = spec();
    spec.tdx.sys_disable = true;
    spec
}

/// A module that is ready, without TDs.
static READY: LazyLock<World> = LazyLock::new(|| {
    let mut w = World::ready_with(with_disable());
    w.lines.clear();
    w
});
/// A TD that runs, with a 2 MiB page, and another that is torn down and has its pages.
static LIVE: LazyLock<(World, RunnableTd, u64)> = LazyLock::new(|| {
    let mut w = READY.clone();
    let dead = w.runnable_td(HKID + 1);
    let td = w.runnable_td(HKID);
    w.sept(td.tdr, GPA_2M, 1);
    let large = w.block(2 << 20);
    w.ok(Leaf::MEM_PAGE_AUG, GPA_2M | 1, td.tdr, large, 0);
    w.ok(Leaf::VP_FLUSH, dead.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, dead.tdr, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, dead.tdr, 0, 0, 0);
    (w, td, large)
});

/// The 4 KiB pages that a world's module has: of TDs, then of PAMTs.
fn of_tds(w: &World) -> BTreeSet<u64> {
    let free = [PageType::Nda, PageType::Rsvd, PageType::Pamt];
    (TDMR..TDMR + (1 << 30))
        .step_by(4096)
        .filter(|pa| {
            [Size::Small, Size::Large]
                .iter()
                .any(|size| !free.contains(&w.m.pamt(*pa, *size).page_type()))
        })
        .collect()
}
fn of_pamts(w: &World) -> BTreeSet<u64> {
    let areas = w.m.tdmrs().iter().flat_map(|t| t.info().pamt);
    areas.flat_map(|(base, bytes)| (base..base + bytes).step_by(4096)).collect()
}
/// The pages that a call cleared, in order. All under KeyID 0, and no page is touched in any other way but a look at the
/// PAMT.
fn cleared(w: &World) -> Vec<u64> {
    let mut pages = Vec::new();
    let mut looks = Vec::new();
    for touch in &w.touches {
        match touch {
            Touch::Fill { at, lines, word } => {
                assert_eq!((at.keyid, *lines, *word), (KeyId::TME, 64, 0));
                pages.push(at.hpa.0);
            }
            Touch::Load { at, .. } => {
                assert_eq!(at.keyid, KeyId(GLOBAL as u16));
                looks.push(at.hpa.0);
            }
            Touch::Spend(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Each entry that says that a page is the module's is looked at once, as its first page is cleared.
    let entry = |pa: u64| {
        let tdmr = LIVE.0.m.tdmr_of(pa)?;
        let taken = |size: &Size| {
            let kind = tdmr.entry(pa, *size).page_type();
            pa.is_multiple_of(size.bytes()) && ![PageType::Nda, PageType::Rsvd].contains(&kind)
        };
        let size = [Size::Small, Size::Large].into_iter().find(taken)?;
        tdmr.entry_at(pa, size).map(|at| at.0)
    };
    let entries: Vec<u64> = pages.iter().filter_map(|pa| entry(*pa)).collect();
    assert_eq!(looks, entries);
    pages
}
fn pause(w: &mut World, lp: usize, call: Call) {
    assert!(w.begin(lp, &call));
    assert_eq!(w.run_some(lp, 2), None);
}

#[test]
fn sys_disable_returns_every_status_in_the_order_of_its_checks() {
    check(&LeafCases {
        leaf: Leaf::SYS_DISABLE,
        base: || (LIVE.0.clone(), DISABLE),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            Case {
                when: "another LP is in the module",
                spoils: "LP 1",
                fault: |w, _| pause(w, 1, Call::new(Leaf::PHYMEM_PAGE_RDMD, TDMR, 0, 0, 0)),
                status: Status::SYS_BUSY,
            },
            Case {
                when: "an interrupt is pending",
                spoils: "interrupt",
                fault: |w, _| w.irq = true,
                status: Status::INTERRUPTED_RESUMABLE,
            },
        ],
        unreachable: &[],
    });
}

#[test]
fn a_module_without_it_says_so() {
    let mut w = World::new(spec());
    let status = w.call_on(0, DISABLE).status;
    assert_eq!(status, Status::OPERAND_INVALID.about(Operand::RAX));
}

#[test]
fn what_tds_have_is_cleared_and_then_the_pamts_and_nothing_else() {
    let (mut w, td, large) = LIVE.clone();
    let (tds, pamts) = (of_tds(&w), of_pamts(&w));
    assert!(tds.contains(&td.page) && tds.contains(&td.tdr) && tds.contains(&(large + 0x1000)));
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    let cleared = cleared(&w);
    let expected: Vec<u64> = tds.into_iter().chain(pamts).collect();
    assert_eq!(cleared.len(), expected.len(), "none twice");
    let cleared: BTreeSet<u64> = cleared.into_iter().collect();
    assert_eq!(cleared, expected.into_iter().collect());
}

#[test]
fn with_no_tds_left_it_only_rewrites_the_modules_own_memory() {
    let mut w = READY.clone();
    let pamts = of_pamts(&w);
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    assert_eq!(cleared(&w).into_iter().collect::<BTreeSet<_>>(), pamts);
}

#[test]
fn afterwards_the_module_is_as_just_loaded_and_can_be_brought_up_again() {
    let (mut w, ..) = LIVE.clone();
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    assert!(w.m == Module::new(with_disable()));
    let early = w.call(Leaf::MNG_CREATE, TDMR, HKID, 0, 0).status;
    assert_eq!(early, Status::SYS_NOT_READY);
    // Once more is no harm.
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    assert!(cleared(&w).is_empty());
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        let call = Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0);
        assert_eq!(w.call_on(lp, call).status, Status::SUCCESS);
    }
    let tdmr = w.tdmr();
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    assert_eq!(w.m.state(), SysState::SysReady);
}

#[test]
fn it_gets_on_by_a_chunk_between_any_two_interrupts() {
    let (mut w, ..) = LIVE.clone();
    let all = of_tds(&w).len() + of_pamts(&w).len();
    w.irq = true;
    let mut done = Vec::new();
    loop {
        let status = w.call_on(0, DISABLE).status;
        let now = cleared(&w);
        assert_eq!(now.len(), 1);
        done.extend(now);
        // After the last chunk no interrupt is looked for.
        if done.len() == all {
            assert_eq!(status, Status::SUCCESS);
            break;
        }
        assert_eq!(status, Status::INTERRUPTED_RESUMABLE);
        assert!(w.m.is_quiet());
    }
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>().len(), all);
    assert!(w.m == Module::new(with_disable()));
}

#[test]
fn between_two_calls_no_other_leaf_does_anything() {
    let (mut w, td, _) = LIVE.clone();
    w.irq = true;
    assert_eq!(w.call_on(0, DISABLE).status, Status::INTERRUPTED_RESUMABLE);
    let before = w.m.clone();
    for (leaf, rcx) in [
        (Leaf::VP_ENTER, td.tdvpr),
        (Leaf::MNG_VPFLUSHDONE, td.tdr),
        (Leaf::PHYMEM_PAGE_RDMD, td.page),
        (Leaf::SYS_TDMR_INIT, TDMR),
        (Leaf::SYS_SHUTDOWN, 0),
    ] {
        assert_eq!(w.call(leaf, rcx, 0, 0, 0).status, Status::SYS_NOT_READY, "{leaf}");
    }
    for leaf in [Leaf::SYS_INIT, Leaf::SYS_LP_INIT, Leaf::SYS_CONFIG, Leaf::SYS_KEY_CONFIG] {
        assert_eq!(w.call(leaf, 0, 0, 0, 0).status, Status::SYS_BUSY, "{leaf}");
    }
    assert!(w.m == before);
    // It can go on from another LP.
    w.irq = false;
    assert_eq!(w.call_on(1, DISABLE).status, Status::SUCCESS);
}

#[test]
fn while_a_guest_runs_it_is_busy_and_changes_nothing_of_the_td() {
    let (mut w, td, _) = LIVE.clone();
    w.ok(Leaf::VP_FLUSH, td.tdvpr, 0, 0, 0);
    w.enter(1, td.tdvpr);
    let status = w.call_on(0, DISABLE).status;
    assert_eq!(status, Status::SYS_BUSY);
    assert_eq!(w.m.state(), SysState::SysReady);
    assert!(cleared(&w).is_empty());
    let exit = w.exit(1, VmExit::Interrupt);
    assert!(matches!(exit, Action::Return(_)));
    assert_eq!(w.call_on(0, DISABLE).status, Status::SUCCESS);
}

#[test]
fn once_called_it_lets_no_new_leaf_of_the_system_in_but_waits_for_those_that_are() {
    let (mut w, ..) = LIVE.clone();
    pause(&mut w, 1, Call::new(Leaf::PHYMEM_PAGE_RDMD, TDMR, 0, 0, 0));
    assert_eq!(w.call(Leaf::SYS_DISABLE, 0, 0, 0, 0).status, Status::SYS_BUSY);
    assert_eq!(w.call(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0).status, Status::SYS_BUSY);
    assert!(matches!(w.run(1, Reply::Done), Action::Return(_)));
    assert_eq!(w.call(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0).status, Status::SYS_BUSY);
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
}

#[test]
fn a_module_that_was_not_configured_has_nothing_to_clear() {
    let mut w = World::new(with_disable());
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    assert!(cleared(&w).is_empty());
    assert!(w.m == Module::new(with_disable()));
}

#[test]
fn after_shutdown_it_is_refused_as_any_other_leaf() {
    let mut w = READY.clone();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    assert_eq!(w.call(Leaf::SYS_DISABLE, 0, 0, 0, 0).status, Status::SYS_SHUTDOWN);
}
