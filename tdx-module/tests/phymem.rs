//! TDH.PHYMEM.CACHE.WB, PAGE.RDMD, PAGE.RECLAIM and PAGE.WBINVD (architecture.md §7.9).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::cases::{Case, LeafCases, check};
use common::{HOST, RunnableTd, TDMR, World, spec};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page};
use std::sync::LazyLock;
use tdx_module::op_state::{KotState, Lifecycle};
use tdx_module::pamt::{PamtEntry, Size};
use tdx_module::{Answer, Call, Reply, Touch, reg};

/// HKID of the TD.
const HKID: u64 = 70;
/// Guest-physical address of the 2 MiB page.
const GPA_2M: u64 = 0x4000_0000;

/// A TD that runs, and a 2 MiB page of it; three LPs on one package.
struct Base {
    world: World,
    td: RunnableTd,
    large: u64,
}

static RUNNING: LazyLock<Base> = LazyLock::new(|| {
    let mut world = World::ready_with(tdx_module::Spec { lps: 3, ..spec() });
    let td = world.runnable_td(HKID);
    world.sept(td.tdr, GPA_2M, 1);
    let large = world.block(2 << 20);
    world.ok(Leaf::MEM_PAGE_AUG, GPA_2M | 1, td.tdr, large, 0);
    Base { world, td, large }
});
/// The same with its HKID FLUSHED.
static FLUSHED: LazyLock<World> = LazyLock::new(|| {
    let mut w = RUNNING.world.clone();
    w.ok(Leaf::VP_FLUSH, RUNNING.td.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, RUNNING.td.tdr, 0, 0, 0);
    w
});
/// The same torn down: its HKID is free.
static TORN_DOWN: LazyLock<World> = LazyLock::new(|| {
    let mut w = FLUSHED.clone();
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, RUNNING.td.tdr, 0, 0, 0);
    w
});

fn call(leaf: Leaf, rcx: u64) -> Call {
    Call::new(leaf, rcx, 0, 0, 0)
}
fn about(status: Status, operand: Operand) -> Status {
    status.about(operand)
}
/// Makes an LP hold what a call holds.
fn hold_on(w: &mut World, lp: usize, call: Call) {
    assert!(w.begin(lp, &call));
    assert_eq!(w.run_some(lp, 2), None, "the call that was to hold locks is over");
}
fn page(pa: u64) -> Page {
    Hpa(pa).page()
}
/// What was written back, in order.
fn blocks(w: &World) -> Vec<u32> {
    let block = |t: &Touch| match t {
        Touch::WriteBackBlock(i) => Some(*i),
        _ => None,
    };
    w.touches.iter().filter_map(block).collect()
}
fn bitmap(w: &World, hkid: u64) -> u8 {
    w.m.kot()[hkid as usize].wbinvd_bitmap
}
/// The pages that a call loaded, stored, filled, copied or flushed.
fn pages(w: &World) -> Vec<Page> {
    let at = |t: &Touch| match t {
        Touch::Load { at, .. }
        | Touch::Store { at, .. }
        | Touch::Fill { at, .. }
        | Touch::FlushPage { at } => Some(at.hpa.page()),
        Touch::Copy { .. } => panic!("a copy"),
        _ => None,
    };
    w.touches.iter().filter_map(at).collect()
}

// --------------------------------------------------------------------------------------------------- PHYMEM.CACHE.WB

#[test]
fn cache_wb_returns_every_status_in_the_order_of_its_checks() {
    check(&LeafCases {
        leaf: Leaf::PHYMEM_CACHE_WB,
        base: || (FLUSHED.clone(), call(Leaf::PHYMEM_CACHE_WB, 0)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            Case {
                when: "neither start nor resume",
                spoils: "RCX",
                fault: |_, c| c.regs[reg::RCX] = 2,
                status: about(Status::OPERAND_INVALID, Operand::RCX),
            },
            Case {
                when: "another LP of the package writes back",
                spoils: "LP 1",
                fault: |w, _| hold_on(w, 1, call(Leaf::PHYMEM_CACHE_WB, 0)),
                status: about(Status::OPERAND_BUSY, Operand::WBCACHE),
            },
            Case {
                when: "the key ownership table is locked",
                spoils: "LP 2",
                fault: |w, _| {
                    let free = w.page();
                    hold_on(w, 2, Call::new(Leaf::MNG_CREATE, free, HKID + 1, 0, 0));
                },
                status: about(Status::OPERAND_BUSY, Operand::KOT),
            },
            Case {
                when: "no HKID is FLUSHED",
                spoils: "start or resume",
                fault: |w, _| {
                    let irq = std::mem::take(&mut w.irq);
                    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
                    w.ok(Leaf::MNG_KEY_FREEID, RUNNING.td.tdr, 0, 0, 0);
                    w.irq = irq;
                },
                status: Status::NO_HKID_READY_TO_WBCACHE,
            },
            Case {
                when: "nothing to resume",
                spoils: "start or resume",
                fault: |_, c| c.regs[reg::RCX] = 1,
                status: Status::WBCACHE_RESUME_ERROR,
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
fn a_write_back_goes_over_every_sub_block_of_the_package_and_touches_nothing_else() {
    let mut w = FLUSHED.clone();
    assert_eq!(bitmap(&w, HKID), 1);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    assert_eq!(blocks(&w), [0, 1, 2, 3]);
    assert!(pages(&w).is_empty(), "the key ownership table lies in SEAMRR");
    assert_eq!(bitmap(&w, HKID), 0);
    assert!(w.m.is_quiet());
    assert_eq!(w.m.kot()[HKID as usize].state, KotState::Flushed);
}

#[test]
fn h8_an_interrupted_write_back_clears_no_bit_and_goes_on_where_it_stopped() {
    let mut w = FLUSHED.clone();
    w.irq = true;
    let mut written = Vec::new();
    let mut command = 0;
    for _ in 0..3 {
        let answer = w.call(Leaf::PHYMEM_CACHE_WB, command, 0, 0, 0);
        assert_eq!(answer.status, Status::INTERRUPTED_RESUMABLE);
        assert_eq!(bitmap(&w, HKID), 1);
        assert!(w.m.is_quiet());
        written.extend(blocks(&w));
        command = 1;
    }
    // Behind the last sub-block no interrupt is looked for.
    w.ok(Leaf::PHYMEM_CACHE_WB, 1, 0, 0, 0);
    written.extend(blocks(&w));
    assert_eq!(written, [0, 1, 2, 3]);
    assert_eq!(bitmap(&w, HKID), 0);
    let again = w.call(Leaf::PHYMEM_CACHE_WB, 1, 0, 0, 0);
    assert_eq!(again.status, Status::WBCACHE_RESUME_ERROR);
}

#[test]
fn h8_an_hkid_that_is_flushed_after_the_start_keeps_its_bit() {
    let mut w = RUNNING.world.clone();
    let late = w.keyed_td(HKID + 1);
    w.ok(Leaf::VP_FLUSH, RUNNING.td.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, RUNNING.td.tdr, 0, 0, 0);
    w.irq = true;
    let answer = w.call(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    assert_eq!(answer.status, Status::INTERRUPTED_RESUMABLE);
    w.irq = false;
    w.ok(Leaf::MNG_VPFLUSHDONE, late, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 1, 0, 0, 0);
    assert_eq!((bitmap(&w, HKID), bitmap(&w, HKID + 1)), (0, 1));
    let answer = w.call(Leaf::MNG_KEY_FREEID, late, 0, 0, 0);
    assert_eq!(answer.status, Status::WBCACHE_NOT_COMPLETE);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, late, 0, 0, 0);
}

#[test]
fn a_start_forgets_what_an_interrupted_write_back_had_saved() {
    let mut w = FLUSHED.clone();
    w.irq = true;
    w.call(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.call(Leaf::PHYMEM_CACHE_WB, 1, 0, 0, 0);
    assert_eq!(blocks(&w), [1]);
    w.irq = false;
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    assert_eq!(blocks(&w), [0, 1, 2, 3]);
}

#[test]
fn while_one_lp_writes_back_hkids_are_neither_given_nor_freed() {
    let mut w = FLUSHED.clone();
    hold_on(&mut w, 1, call(Leaf::PHYMEM_CACHE_WB, 0));
    let (free, kot) = (w.page(), about(Status::OPERAND_BUSY, Operand::KOT));
    assert_eq!(w.call(Leaf::MNG_CREATE, free, HKID + 1, 0, 0).status, kot);
    assert_eq!(w.call(Leaf::MNG_KEY_FREEID, RUNNING.td.tdr, 0, 0, 0).status, kot);
}

#[test]
fn every_package_writes_back_its_own_caches_also_at_the_same_time() {
    let mut w = World::ready_with(tdx_module::Spec { packages: 2, ..spec() });
    let tdr = w.keyed_td(HKID);
    w.ok(Leaf::MNG_VPFLUSHDONE, tdr, 0, 0, 0);
    assert_eq!(bitmap(&w, HKID), 3);
    hold_on(&mut w, 1, call(Leaf::PHYMEM_CACHE_WB, 0));
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    assert_eq!(bitmap(&w, HKID), 2);
    let busy = w.call(Leaf::MNG_KEY_FREEID, tdr, 0, 0, 0).status;
    assert_eq!(busy, about(Status::OPERAND_BUSY, Operand::KOT));
    assert!(matches!(w.run(1, Reply::Done), tdx_module::Action::Return(_)));
    assert_eq!(bitmap(&w, HKID), 0);
    w.ok(Leaf::MNG_KEY_FREEID, tdr, 0, 0, 0);
}

// -------------------------------------------------------------------------------------------------- PHYMEM.PAGE.RDMD

/// The faults of an address that HPA does not accept (architecture.md §7.7).
fn address_cases() -> Vec<Case> {
    vec![
        Case {
            when: "not aligned",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 0x800,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "bits above 51",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 1 << 52,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "outside every TDMR",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] = HOST,
            status: about(Status::OPERAND_ADDR_RANGE_ERROR, Operand::RCX),
        },
        Case {
            when: "the page behind the last TDMR",
            spoils: "RCX",
            fault: |w, c| {
                let last = w.m.tdmrs().last().unwrap().info();
                c.regs[reg::RCX] = last.base + last.size;
            },
            status: about(Status::OPERAND_ADDR_RANGE_ERROR, Operand::RCX),
        },
    ]
}
fn with_keyid() -> Case {
    Case {
        when: "KeyID bits",
        spoils: "RCX",
        fault: |_, c| c.regs[reg::RCX] |= 1 << 45,
        status: about(Status::OPERAND_INVALID, Operand::RCX),
    }
}

#[test]
fn page_rdmd_returns_every_status_in_the_order_of_its_checks() {
    let mut cases = address_cases();
    cases.insert(2, with_keyid());
    cases.push(Case {
        when: "the entry is exclusively locked",
        spoils: "LP 1",
        fault: |w, c| hold_on(w, 1, call(Leaf::PHYMEM_PAGE_RECLAIM, c.regs[reg::RCX])),
        status: about(Status::OPERAND_BUSY, Operand::RCX),
    });
    check(&LeafCases {
        leaf: Leaf::PHYMEM_PAGE_RDMD,
        base: || (TORN_DOWN.clone(), call(Leaf::PHYMEM_PAGE_RDMD, RUNNING.td.page)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn rdmd_tells_type_owner_size_and_epoch_of_every_kind_of_page() {
    let mut w = RUNNING.world.clone();
    let Base { td, large, .. } = &*RUNNING;
    w.ok(Leaf::MEM_RANGE_BLOCK, 0, td.tdr, 0, 0);
    w.ok(Leaf::MEM_RANGE_BLOCK, 1 << 30 | 1, td.tdr, 0, 0);
    let tdcs = w.td(td.tdr).tdcs[0].hpa().0;
    let free = w.page();
    let rdmd = |w: &mut World, pa: u64| w.ok(Leaf::PHYMEM_PAGE_RDMD, pa, 0, 0, 0).out;
    let code = |t: PageType| u64::from(t.code());
    assert_eq!(rdmd(&mut w, free), [0; 6]);
    assert_eq!(rdmd(&mut w, td.tdr), [code(PageType::Tdr), 0, 0, 0, 0, 0]);
    assert_eq!(rdmd(&mut w, tdcs), [code(PageType::Tdcx), td.tdr, 0, 0, 0, 0]);
    assert_eq!(rdmd(&mut w, td.tdvpr), [code(PageType::Tdvpr), td.tdr, 0, 0, 0, 0]);
    assert_eq!(rdmd(&mut w, td.page), [code(PageType::Reg), td.tdr, 0, 1, 0, 0]);
    // Any page of a large one gives the large one's entry.
    assert_eq!(rdmd(&mut w, large + 0x5000), [code(PageType::Reg), td.tdr, 1, 1, 0, 0]);
    assert_eq!(rdmd(&mut w, td.tables[0]), [code(PageType::Ept), td.tdr, 0, 0, 0, 0]);
}

#[test]
fn the_owner_of_a_page_that_was_removed_stays_stale_in_its_entry() {
    // architecture.md §7.4: only the type is written.
    let mut w = TORN_DOWN.clone();
    w.ok(Leaf::PHYMEM_PAGE_RECLAIM, RUNNING.td.page, 0, 0, 0);
    let out = w.ok(Leaf::PHYMEM_PAGE_RDMD, RUNNING.td.page, 0, 0, 0).out;
    assert_eq!(out, [0, RUNNING.td.tdr, 0, 0, 0, 0]);
    // So does the epoch, which is not told of a free page.
    let mut w = RUNNING.world.clone();
    w.ok(Leaf::MEM_RANGE_BLOCK, 0, RUNNING.td.tdr, 0, 0);
    w.ok(Leaf::MEM_TRACK, RUNNING.td.tdr, 0, 0, 0);
    w.ok(Leaf::MEM_PAGE_REMOVE, 0, RUNNING.td.tdr, 0, 0);
    assert_eq!(w.m.pamt(RUNNING.td.page, Size::Small).bepoch, 1);
    let out = w.ok(Leaf::PHYMEM_PAGE_RDMD, RUNNING.td.page, 0, 0, 0).out;
    assert_eq!(out, [0, RUNNING.td.tdr, 0, 0, 0, 0]);
}

#[test]
fn reading_metadata_touches_the_three_pamt_entries_and_changes_nothing() {
    let mut w = RUNNING.world.clone();
    let before = w.m.clone();
    w.ok(Leaf::PHYMEM_PAGE_RDMD, RUNNING.td.page, 0, 0, 0);
    let tdmr = w.m.tdmr_of(RUNNING.td.page).unwrap();
    let mut entries: Vec<Page> = Size::ALL
        .iter()
        .rev()
        .map(|size| tdmr.entry_at(RUNNING.td.page, *size).unwrap().page())
        .collect();
    let taken = entries.clone();
    entries.extend(taken.into_iter().rev());
    assert_eq!(pages(&w), entries, "locked from 1G down to 4K, released from 4K up");
    assert!(w.m == before);
}

// ----------------------------------------------------------------------------------------------- PHYMEM.PAGE.RECLAIM

#[test]
fn page_reclaim_returns_every_status_in_the_order_of_its_checks() {
    let mut cases = address_cases();
    cases.insert(2, with_keyid());
    cases.extend([
        Case {
            when: "the entry is locked",
            spoils: "LP 1",
            fault: |w, c| hold_on(w, 1, call(Leaf::PHYMEM_PAGE_RDMD, c.regs[reg::RCX])),
            status: about(Status::OPERAND_BUSY, Operand::RCX),
        },
        Case {
            when: "the page is free",
            spoils: "RCX",
            fault: |w, c| c.regs[reg::RCX] = w.next_page,
            status: about(Status::PAGE_METADATA_INCORRECT, Operand::RCX),
        },
        Case {
            when: "inside a large page",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] = RUNNING.large + 0x1000,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "the owner TDR is locked",
            spoils: "owner",
            fault: |w, _| hold_on(w, 2, call(Leaf::PHYMEM_PAGE_RECLAIM, RUNNING.td.tdr)),
            status: about(Status::OPERAND_BUSY, Operand::TDR),
        },
        Case {
            when: "the TD is not torn down",
            spoils: "life cycle",
            fault: |w, _| *w = FLUSHED.clone(),
            status: Status::LIFECYCLE_STATE_INCORRECT,
        },
        Case {
            when: "the TDR of a TD that has pages",
            spoils: "owner",
            fault: |_, c| c.regs[reg::RCX] = RUNNING.td.tdr,
            status: Status::TD_ASSOCIATED_PAGES_EXIST,
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::PHYMEM_PAGE_RECLAIM,
        base: || (TORN_DOWN.clone(), call(Leaf::PHYMEM_PAGE_RECLAIM, RUNNING.td.page)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn the_outputs_of_reclaim_stand_also_when_a_check_behind_them_fails() {
    let reg = u64::from(PageType::Reg.code());
    let tdr = RUNNING.td.tdr;
    let reclaim =
        |w: &mut World, pa: u64| -> Answer { w.call(Leaf::PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0) };
    let mut w = TORN_DOWN.clone();
    assert_eq!(reclaim(&mut w, RUNNING.large + 0x1000).out, [reg, tdr, 1, 0, 0, 0]);
    let type_tdr = u64::from(PageType::Tdr.code());
    assert_eq!(reclaim(&mut w, tdr).out, [type_tdr, 0, 0, 0, 0, 0]);
    let mut w = FLUSHED.clone();
    let failed = reclaim(&mut w, RUNNING.td.page);
    assert_eq!(failed.status, Status::LIFECYCLE_STATE_INCORRECT);
    assert_eq!(failed.out, [reg, tdr, 0, 0, 0, 0]);
    // Before them there are none.
    let free = w.next_page;
    assert_eq!(reclaim(&mut w, free).out, [0; 6]);
}

#[test]
fn a_reserved_page_is_nobodys_to_reclaim() {
    let mut w = World::new(spec());
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        assert_eq!(w.call_on(lp, call(Leaf::SYS_LP_INIT, 0)).status, Status::SUCCESS);
    }
    let mut tdmr = w.tdmr();
    tdmr.reserved = vec![(0x4000, 0x1000)];
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, common::GLOBAL, 0);
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    for _ in 0..256 {
        w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    }
    let status = w.call(Leaf::PHYMEM_PAGE_RECLAIM, TDMR + 0x4000, 0, 0, 0).status;
    assert_eq!(status, about(Status::PAGE_METADATA_INCORRECT, Operand::RCX));
    let out = w.ok(Leaf::PHYMEM_PAGE_RDMD, TDMR + 0x4000, 0, 0, 0).out;
    assert_eq!(out, [u64::from(PageType::Rsvd.code()), 0, 0, 0, 0, 0]);
    let status = w.call(Leaf::PHYMEM_PAGE_WBINVD, TDMR + 0x4000, 0, 0, 0).status;
    assert_eq!(status, about(Status::PAGE_METADATA_INCORRECT, Operand::RCX));
}

#[test]
fn reclaiming_a_page_writes_metadata_only() {
    // architecture.md §7.10.2, verification.md T5: neither the page nor anything under the TD's HKID is touched.
    let mut w = TORN_DOWN.clone();
    let Base { td, large, .. } = &*RUNNING;
    for pa in [td.page, *large] {
        let children = w.td(td.tdr).chldcnt;
        let size = if pa == *large { Size::Large } else { Size::Small };
        w.ok(Leaf::PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0);
        let under: Vec<KeyId> = w
            .touches
            .iter()
            .filter_map(|t| match t {
                Touch::Load { at, .. } | Touch::Store { at, .. } => Some(at.keyid),
                Touch::Spend(_) => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(under.iter().all(|keyid| *keyid == KeyId(common::GLOBAL as u16)));
        assert!(!pages(&w).contains(&page(pa)));
        assert_eq!(w.td(td.tdr).chldcnt, children - size.pages());
        assert_eq!(w.m.pamt(pa, size).page_type(), PageType::Nda);
        assert_eq!(w.m.pamt(pa, size), PamtEntry::new(PageType::Reg, page(td.tdr)).released());
        assert!(w.m.is_quiet());
    }
}

#[test]
fn when_the_tdr_is_reclaimed_last_nothing_of_the_td_is_left() {
    let mut w = TORN_DOWN.clone();
    let Base { td, large, .. } = &*RUNNING;
    let mut children: Vec<u64> = (TDMR..w.next_page)
        .step_by(4096)
        .filter(|pa| *pa != td.tdr)
        .filter(|pa| w.m.pamt(*pa, Size::Small).page_type() != PageType::Nda)
        .collect();
    children.push(*large);
    for pa in children {
        let early = w.call(Leaf::PHYMEM_PAGE_RECLAIM, td.tdr, 0, 0, 0).status;
        assert_eq!(early, Status::TD_ASSOCIATED_PAGES_EXIST);
        w.ok(Leaf::PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0);
        let again = w.call(Leaf::PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0).status;
        assert_eq!(again, about(Status::PAGE_METADATA_INCORRECT, Operand::RCX));
    }
    assert_eq!((w.td(td.tdr).chldcnt, w.td(td.tdr).lifecycle), (0, Lifecycle::Teardown));
    assert_eq!((w.m.vcpus().count(), w.m.sept_pages()), (0, vec![]));
    w.ok(Leaf::PHYMEM_PAGE_RECLAIM, td.tdr, 0, 0, 0);
    assert_eq!(w.m.tds().count(), 0);
    for pa in (TDMR..w.next_page).step_by(4096) {
        assert_eq!(w.m.pamt(pa, Size::Small).page_type(), PageType::Nda);
    }
    assert_eq!(w.m.pamt(*large, Size::Large).page_type(), PageType::Nda);
    // All of it can be used again.
    let next = w.next_page;
    w.next_page = TDMR;
    w.runnable_td(HKID);
    assert!(w.next_page <= next);
}

// ------------------------------------------------------------------------------------------------ PHYMEM.PAGE.WBINVD

#[test]
fn page_wbinvd_returns_every_status_in_the_order_of_its_checks() {
    let mut cases = address_cases();
    cases.extend([
        Case {
            when: "the entry is exclusively locked",
            spoils: "LP 1",
            fault: |w, c| {
                hold_on(w, 1, Call::new(Leaf::MNG_CREATE, c.regs[reg::RCX], HKID + 1, 0, 0));
            },
            status: about(Status::OPERAND_BUSY, Operand::RCX),
        },
        Case {
            // architecture.md §11 Q-13.
            when: "a page that a TD still owns",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] = RUNNING.td.page,
            status: Status(0xC000_0300_0000_0001),
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::PHYMEM_PAGE_WBINVD,
        base: || {
            let w = RUNNING.world.clone();
            let free = w.next_page;
            (w, call(Leaf::PHYMEM_PAGE_WBINVD, free))
        },
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn mc_23_a_page_is_flushed_under_whichever_keyid_the_address_carries() {
    let mut w = RUNNING.world.clone();
    let free = w.next_page;
    let before = w.m.clone();
    for keyid in [0, 1, common::GLOBAL, HKID, 127] {
        w.ok(Leaf::PHYMEM_PAGE_WBINVD, free | keyid << 45, 0, 0, 0);
        let flushed: Vec<Addr> = w
            .touches
            .iter()
            .filter_map(|t| match t {
                Touch::FlushPage { at } => Some(*at),
                _ => None,
            })
            .collect();
        assert_eq!(flushed, [Addr::new(Hpa(free), KeyId(keyid as u16))]);
        assert!(w.m == before);
    }
}

#[test]
fn inside_a_large_page_there_is_no_free_page_to_flush() {
    let mut w = RUNNING.world.clone();
    let status = w.call(Leaf::PHYMEM_PAGE_WBINVD, RUNNING.large + 0x3000, 0, 0, 0).status;
    assert_eq!(status, about(Status::PAGE_METADATA_INCORRECT, Operand::RCX));
}
