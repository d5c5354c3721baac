//! What is checked before any leaf (architecture.md §7.1).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{GLOBAL, World, spec};
use sim_core::tdx::{LEAVES, Leaf, Operand, Status};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tdx_module::{Action, Call, NOT_MODELLED, Reply, Spec, SysState, ZEROED, reg, zeroed};

/// A world that is ready, without the lines that nobody reads here: clones are cheap.
static READY: LazyLock<World> = LazyLock::new(|| {
    let mut w = World::ready();
    w.lines.clear();
    w
});
static SHUT_DOWN: LazyLock<World> = LazyLock::new(|| {
    let mut w = READY.clone();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    w
});

/// Leaves before TDH.SYS.CONFIG and the other steps of architecture.md §7.1 step 6.
const EARLY: [Leaf; 9] = [
    Leaf::SYS_INFO,
    Leaf::SYS_RD,
    Leaf::SYS_RDALL,
    Leaf::SYS_INIT,
    Leaf::SYS_LP_INIT,
    Leaf::SYS_CONFIG,
    Leaf::SYS_KEY_CONFIG,
    Leaf::SYS_LP_SHUTDOWN,
    Leaf::SYS_UPDATE,
];
/// Leaves that take versions above 0 (architecture.md §7.1 step 4).
const VERSIONED: [Leaf; 5] =
    [Leaf::MEM_PAGE_PROMOTE, Leaf::MEM_SEPT_ADD, Leaf::MEM_SEPT_REMOVE, Leaf::MNG_RD, Leaf::VP_RD];
/// Leaves that 1.5.01 has not.
const LATER: [Leaf; 3] = [Leaf::SYS_DISABLE, Leaf::PHYMEM_PAMT_ADD, Leaf::PHYMEM_PAMT_REMOVE];

fn rax() -> Status {
    Status::OPERAND_INVALID.about(Operand::RAX)
}

/// How a call in a world ends.
fn end(w: &mut World, rax: u64) -> Action {
    assert!(w.begin(0, &Call { rax, regs: [0; 8] }));
    w.run(0, Reply::Done)
}
fn status(w: &mut World, rax: u64) -> Option<Status> {
    match end(w, rax) {
        Action::Return(answer) => Some(answer.status),
        Action::NotModelled => None,
        other => panic!("{other:?}"),
    }
}
fn is_known(leaf: Leaf) -> bool {
    leaf.row().is_some() && leaf != Leaf::MEM_SEPT_WR && !LATER.contains(&leaf)
}

#[test]
fn step_1_once_tdx_is_disabled_no_seamcall_reaches_the_module() {
    let mut w = READY.clone();
    assert!(!w.m.is_disabled());
    w.m.disable();
    assert!(w.m.is_disabled());
    let before = w.m.clone();
    for lp in 0..2 {
        for row in LEAVES {
            assert!(!w.begin(lp, &Call::new(Leaf(row.number), 0, 0, 0, 0)), "{}", row.name);
        }
    }
    assert!(w.m == before);
}

#[test]
fn step_1_also_a_call_under_way_on_another_lp_is_the_last() {
    let mut w = READY.clone();
    let page = w.page();
    assert!(w.begin(1, &Call::new(Leaf::PHYMEM_PAGE_RDMD, page, 0, 0, 0)));
    assert_eq!(w.run_some(1, 2), None);
    w.m.disable();
    assert!(!w.begin(0, &Call::new(Leaf::SYS_LP_SHUTDOWN, 0, 0, 0, 0)));
}

#[test]
fn step_2_an_lp_is_busy_from_the_call_to_the_return_and_can_make_no_second_call() {
    let mut w = READY.clone();
    let call = Call::new(Leaf::SYS_LP_SHUTDOWN, 0, 0, 0, 0);
    assert!(w.begin(0, &call));
    assert!(!w.m.is_quiet());
    assert!(!w.begin(0, &call));
    assert!(matches!(w.run(0, Reply::Done), Action::Return(_)));
    assert!(w.m.is_quiet());
    assert!(w.begin(0, &call));
}

#[test]
fn step_3_reserved_bits_of_rax_come_before_version_state_and_leaf() {
    for w in [World::new(spec()), READY.clone(), SHUT_DOWN.clone()] {
        for bit in 24..64 {
            for low in [44, 32, 9, 28, 0xffff, 9 | 1 << 16] {
                assert_eq!(status(&mut w.clone(), 1 << bit | low), Some(rax()), "{bit} {low:#x}");
            }
        }
    }
}

#[test]
fn step_4_a_version_that_the_leaf_has_not_comes_before_the_state() {
    for w in [World::new(spec()), READY.clone(), SHUT_DOWN.clone()] {
        for row in LEAVES.iter().filter(|row| !VERSIONED.contains(&Leaf(row.number))) {
            for version in 1..=255 {
                let rax_in = u64::from(row.number) | version << 16;
                assert_eq!(status(&mut w.clone(), rax_in), Some(rax()), "{} {version}", row.name);
            }
        }
    }
    // The five that take versions go on to the next step.
    for leaf in VERSIONED {
        for version in 0..=255 {
            let mut w = World::new(spec());
            let rax_in = u64::from(leaf.0) | version << 16;
            assert_eq!(status(&mut w, rax_in), Some(Status::SYS_NOT_READY), "{leaf} {version}");
        }
    }
}

#[test]
fn step_4_the_version_of_vp_init_is_that_of_the_platform() {
    let call = u64::from(Leaf::VP_INIT.0) | 1 << 16;
    assert_eq!(status(&mut World::new(spec()), call), Some(rax()));
    let mut later: Spec = spec();
    later.tdx.vp_init_version = 1;
    assert_eq!(status(&mut World::new(later.clone()), call), Some(Status::SYS_NOT_READY));
    assert_eq!(status(&mut World::new(later), call + (1 << 16)), Some(rax()));
}

#[test]
fn step_5_after_shutdown_only_lp_shutdown_is_served() {
    assert_eq!(SHUT_DOWN.m.state(), SysState::SysShutdown);
    let mut w = SHUT_DOWN.clone();
    for number in 0..=u16::MAX {
        let served = Leaf(number) == Leaf::SYS_LP_SHUTDOWN;
        let expected = if served { Status::SUCCESS } else { Status::SYS_SHUTDOWN };
        assert_eq!(status(&mut w, number.into()), Some(expected), "{number}");
    }
    assert!(w.m == SHUT_DOWN.m);
}

#[test]
fn step_6_before_the_module_is_ready_nine_leaves_are_served() {
    let w = World::new(spec());
    assert_eq!(w.m.state(), SysState::SysInitPending);
    for number in 0..=u16::MAX {
        let leaf = Leaf(number);
        if EARLY.contains(&leaf) {
            let status = status(&mut w.clone(), number.into()).unwrap();
            assert!(![Status::SYS_NOT_READY, rax()].contains(&status), "{leaf}: {status}");
        } else if leaf == Leaf::SYS_DISABLE {
            // Not of this module, which its step 7 says.
            assert_eq!(status(&mut w.clone(), number.into()), Some(rax()));
        } else {
            let status = status(&mut w.clone(), number.into());
            assert_eq!(status, Some(Status::SYS_NOT_READY), "{leaf}");
        }
    }
}

#[test]
fn step_7_an_unknown_leaf_is_an_invalid_operand_whatever_its_version() {
    let mut w = READY.clone();
    for number in (0..=u16::MAX).filter(|n| !is_known(Leaf(*n))) {
        for version in [0, 1, 2, 3, 127, 255] {
            let rax_in = u64::from(number) | version << 16;
            assert_eq!(status(&mut w, rax_in), Some(rax()), "{number} {version}");
        }
    }
    assert!(w.m == READY.m);
}

#[test]
fn step_7_every_leaf_that_the_module_has_is_served_or_said_to_be_not_modelled() {
    for row in LEAVES.iter().filter(|row| is_known(Leaf(row.number))) {
        let leaf = Leaf(row.number);
        let mut w = READY.clone();
        // An address that no leaf takes: what is meant here is which leaf answers.
        let end = end(&mut w, leaf.0.into());
        let modelled = !NOT_MODELLED.contains(&leaf);
        match end {
            Action::Return(answer) => {
                assert!(modelled, "{leaf}");
                assert_ne!(answer.status, rax(), "{leaf}");
            }
            Action::NotModelled => assert!(!modelled, "{leaf}"),
            other => panic!("{leaf}: {other:?}"),
        }
    }
}

#[test]
fn leaves_of_later_modules_are_there_only_where_the_platform_has_them() {
    for leaf in LATER {
        assert_eq!(status(&mut READY.clone(), leaf.0.into()), Some(rax()), "{leaf}");
    }
    let mut later = spec();
    (later.tdx.sys_disable, later.tdx.dynamic_pamt) = (true, true);
    for leaf in [Leaf::PHYMEM_PAMT_ADD, Leaf::PHYMEM_PAMT_REMOVE] {
        let status = status(&mut World::new(later.clone()), leaf.0.into());
        assert_eq!(status, Some(Status::SYS_NOT_READY));
    }
    let disable = u64::from(Leaf::SYS_DISABLE.0);
    assert_eq!(status(&mut World::new(later), disable), Some(Status::SUCCESS));
}

#[test]
fn nothing_of_the_leaf_tables_is_not_modelled() {
    for leaf in NOT_MODELLED {
        let row = leaf.row().unwrap();
        assert!(!row.cite.contains("§7.9"), "{leaf} is a leaf of architecture.md §7.9");
        assert!(leaf.checks().is_none(), "{leaf} has checks");
    }
}

#[test]
fn a_leaf_that_is_not_modelled_leaves_the_module_as_it_was() {
    for leaf in NOT_MODELLED {
        let mut w = READY.clone();
        assert_eq!(end(&mut w, leaf.0.into()), Action::NotModelled, "{leaf}");
        assert!(w.m == READY.m, "{leaf}");
    }
}

#[test]
fn a_register_that_a_leaf_does_not_write_comes_back_as_it_was_passed() {
    // A call that succeeds, and one that the leaf refuses: neither writes any.
    let mut w = World::ready();
    let (tdr, hkid) = (w.page(), GLOBAL + 1);
    assert_eq!(w.ok(Leaf::MNG_CREATE, tdr, hkid, 7, 8).out, [tdr, hkid, 7, 8, 0, 0]);
    let again = w.call(Leaf::MNG_CREATE, tdr, hkid, 7, 8);
    assert_eq!(again.status, Status::PAGE_METADATA_INCORRECT.about(Operand::RCX));
    assert_eq!(again.out, [tdr, hkid, 7, 8, 0, 0]);
}

#[test]
fn a_refusal_by_the_dispatcher_writes_no_register_not_even_those_that_the_leaf_would() {
    let mut w = World::new(spec());
    for leaf in [Leaf::MEM_PAGE_AUG, Leaf::PHYMEM_PAGE_RECLAIM, Leaf(47)] {
        let answer = w.call(leaf, 1, 2, 3, 4);
        assert!(answer.status.is_error());
        assert_eq!(answer.out, [1, 2, 3, 4, 0, 0], "{leaf}");
    }
}

#[test]
fn a_leaf_that_fails_returns_zero_in_the_registers_that_it_zeroes_and_no_other() {
    let w = World::ready();
    for row in ZEROED.iter().filter(|row| !zeroes_otherwise(row.leaf)) {
        // No leaf can make anything of these operands.
        let regs = [u64::MAX - 7; 8];
        let answer = w.clone().call_on(0, Call { rax: row.leaf.0.into(), regs });
        assert!(answer.status.is_error(), "{}: {}", row.leaf, answer.status);
        for (r, value) in answer.out.iter().enumerate() {
            let wanted = if row.registers.contains(&r) { 0 } else { regs[r] };
            assert_eq!(*value, wanted, "{} {}", row.leaf, reg::NAMES[r]);
        }
    }
    // Leaves of private memory make room for an entry's details.
    for row in LEAVES.iter().filter(|row| row.name.starts_with("TDH.MEM.")) {
        let details = ![Leaf::MEM_TRACK, Leaf::MEM_SEPT_WR].contains(&Leaf(row.number));
        let begins = zeroed(Leaf(row.number)).starts_with(&[reg::RCX, reg::RDX]);
        assert_eq!(begins, details, "{}", row.name);
    }
    // One row for each leaf.
    let leaves: BTreeSet<u16> = ZEROED.iter().map(|row| row.leaf.0).collect();
    assert_eq!(leaves.len(), ZEROED.len());
    assert_eq!(zeroed(Leaf::MEM_TRACK), [0; 0]);
}

/// Leaves that write other values there before they check anything, or take no operand that could be wrong.
fn zeroes_otherwise(leaf: Leaf) -> bool {
    let other = [Leaf::SYS_LP_INIT, Leaf::SYS_RD, Leaf::MNG_RD, Leaf::VP_RD];
    other.contains(&leaf)
}
