//! Dynamic PAMT: TDH.PHYMEM.PAMT.ADD and REMOVE, and what other leaves make of it (linux-host-paths.md §13; order of
//! checks and layout of a later public module source, intel/tdx-module 1666adc494db).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::cases::{Case, LeafCases, check};
use common::{GLOBAL, HOST, TDMR, World, spec};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page};
use std::sync::LazyLock;
use tdx_module::pamt::Size;
use tdx_module::{Call, Spec, Touch, reg};

const HKID: u64 = 70;
const MB2: u64 = 2 << 20;
/// Bit 62 of an output: the pair can be taken back.
const HINT: u64 = 1 << 62;
/// Level 1 in RCX.
const L1: u64 = 1;

fn dynamic() -> Spec {
    let mut spec = Spec { lps: 4, ..spec() };
    spec.tdx.dynamic_pamt = true;
    spec
}
/// A 2 MiB block of the TDMR, counted from its end: those are nobody's.
fn spare(i: u64) -> u64 {
    TDMR + (1 << 30) - (i + 1) * MB2
}
/// The pair of pages for the first block.
const PAIR: [u64; 2] = [TDMR + (1 << 30) - MB2 + 0x3000, TDMR + (1 << 30) - 2 * MB2];

/// Four LPs, no pairs.
static READY: LazyLock<World> = LazyLock::new(|| {
    let mut w = World::ready_with(dynamic());
    w.lines.clear();
    w
});
/// The first block has its pair.
static PAIRED: LazyLock<World> = LazyLock::new(|| {
    let mut w = READY.clone();
    w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, PAIR[0], PAIR[1], 0);
    w
});

fn about(status: Status, operand: Operand) -> Status {
    status.about(operand)
}
fn hold_on(w: &mut World, lp: usize, call: Call) {
    assert!(w.begin(lp, &call));
    assert_eq!(w.run_some(lp, 2), None, "the call that was to hold locks is over");
}
/// Holds the 2M entry of an address exclusively, by the attempt to give its block a pair.
fn hold_block(w: &mut World, lp: usize, pa: u64) {
    let block = pa & !(MB2 - 1);
    let (a, b) = (spare(9) + (lp as u64) * 0x2000, spare(9) + (lp as u64) * 0x2000 + 0x1000);
    hold_on(w, lp, Call::new(Leaf::PHYMEM_PAMT_ADD, block | L1, a, b, 0));
}
/// A page that is a TDR, in a block of its own.
fn used(w: &mut World, i: u64) -> u64 {
    let (tdr, pages) = (spare(20 + i), spare(30 + i));
    w.ok(Leaf::PHYMEM_PAMT_ADD, tdr | L1, pages, pages + 0x1000, 0);
    w.ok(Leaf::MNG_CREATE, tdr, HKID + 10 + i, 0, 0);
    tdr
}

fn block_cases() -> Vec<Case> {
    vec![
        Case {
            when: "level 0",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] &= !7,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "level 2",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] += 1,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "reserved bits",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 8,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "not aligned to 2 MiB",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 0x1000,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "KeyID bits",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 1 << 45,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
        Case {
            when: "bits above 51",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] |= 1 << 60,
            status: about(Status::OPERAND_INVALID, Operand::RCX),
        },
    ]
}
fn entry_cases() -> Vec<Case> {
    vec![
        Case {
            when: "the block is outside every TDMR",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] = HOST | L1,
            status: about(Status::OPERAND_ADDR_RANGE_ERROR, Operand::RCX),
        },
        Case {
            when: "somebody looks at a page of the block",
            spoils: "LP 1",
            fault: |w, c| {
                let page = c.regs[reg::RCX] & !0xfff;
                hold_on(w, 1, Call::new(Leaf::PHYMEM_PAGE_RDMD, page, 0, 0, 0));
            },
            status: about(Status::OPERAND_BUSY, Operand::RCX),
        },
    ]
}

#[test]
fn pamt_add_returns_every_status_in_the_order_of_its_checks() {
    let mut cases = block_cases();
    cases.extend([
        Case {
            when: "the first page is not aligned",
            spoils: "RDX",
            fault: |_, c| c.regs[reg::RDX] |= 0x10,
            status: about(Status::OPERAND_INVALID, Operand::RDX),
        },
        Case {
            when: "the first page has KeyID bits",
            spoils: "RDX",
            fault: |_, c| c.regs[reg::RDX] |= 1 << 45,
            status: about(Status::OPERAND_INVALID, Operand::RDX),
        },
        Case {
            when: "the first page is outside every TDMR",
            spoils: "RDX",
            fault: |_, c| c.regs[reg::RDX] = HOST,
            status: about(Status::OPERAND_ADDR_RANGE_ERROR, Operand::RDX),
        },
        Case {
            when: "the second page is not aligned",
            spoils: "R8",
            fault: |_, c| c.regs[reg::R8] |= 0x10,
            status: about(Status::OPERAND_INVALID, Operand::R8),
        },
        Case {
            when: "the second page is outside every TDMR",
            spoils: "R8",
            fault: |_, c| c.regs[reg::R8] = HOST,
            status: about(Status::OPERAND_ADDR_RANGE_ERROR, Operand::R8),
        },
    ]);
    cases.extend(entry_cases());
    cases.extend([
        Case {
            when: "the block has its pair",
            spoils: "block",
            fault: |w, _| {
                w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, spare(8), spare(8) + 0x1000, 0);
            },
            status: about(Status::HPA_RANGE_NOT_FREE, Operand::RCX),
        },
        Case {
            when: "the first page's entry is locked",
            spoils: "LP 2",
            fault: |w, c| hold_block(w, 2, c.regs[reg::RDX]),
            status: about(Status::OPERAND_BUSY, Operand::RDX),
        },
        Case {
            when: "the first page is in use",
            spoils: "RDX",
            fault: |w, c| c.regs[reg::RDX] = used(w, 0),
            status: about(Status::PAGE_NOT_FREE, Operand::RDX),
        },
        Case {
            when: "the second page's entry is locked",
            spoils: "LP 3",
            fault: |w, c| hold_block(w, 3, c.regs[reg::R8]),
            status: about(Status::OPERAND_BUSY, Operand::R8),
        },
        Case {
            when: "the second page is in use",
            spoils: "R8",
            fault: |w, c| c.regs[reg::R8] = used(w, 1),
            status: about(Status::PAGE_NOT_FREE, Operand::R8),
        },
        Case {
            when: "the first page is a PAMT page",
            spoils: "RDX",
            fault: |w, c| {
                let (block, pages) = (spare(40), spare(41));
                w.ok(Leaf::PHYMEM_PAMT_ADD, block | L1, pages, pages + 0x1000, 0);
                c.regs[reg::RDX] = pages;
            },
            status: about(Status::PAGE_NOT_FREE, Operand::RDX),
        },
        Case {
            when: "the second page is the first",
            // Its entry could then not be locked but with that of the first.
            spoils: "LP 3",
            fault: |_, c| c.regs[reg::R8] = c.regs[reg::RDX],
            status: about(Status::PAGE_NOT_FREE, Operand::R8),
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::PHYMEM_PAMT_ADD,
        base: || (READY.clone(), Call::new(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, PAIR[0], PAIR[1], 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn pamt_remove_returns_every_status_in_the_order_of_its_checks() {
    let mut cases = block_cases();
    cases.extend(entry_cases());
    cases.extend([
        Case {
            when: "the block has no pair",
            spoils: "RCX",
            fault: |_, c| c.regs[reg::RCX] = spare(5) | L1,
            status: about(Status::NO_PAMT_PAGE_PAIR, Operand::RCX),
        },
        Case {
            when: "a page of the first half is in use",
            spoils: "page",
            fault: |w, _| {
                w.ok(Leaf::MNG_CREATE, TDMR + 0xff000, HKID, 0, 0);
            },
            status: Status::PAMT_PAGE_NOT_EMPTY,
        },
        Case {
            when: "a page of the second half is in use",
            spoils: "page",
            fault: |w, _| {
                w.ok(Leaf::MNG_CREATE, TDMR + 0x10_0000, HKID, 0, 0);
            },
            status: Status(Status::PAMT_PAGE_NOT_EMPTY.0 | 1),
        },
    ]);
    check(&LeafCases {
        leaf: Leaf::PHYMEM_PAMT_REMOVE,
        base: || (PAIRED.clone(), Call::new(Leaf::PHYMEM_PAMT_REMOVE, TDMR | L1, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn a_pair_is_zeroed_under_the_global_key_and_marked_before_the_entry_names_it() {
    let mut w = READY.clone();
    w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, PAIR[0], PAIR[1], 0);
    let global = KeyId(GLOBAL as u16);
    let filled: Vec<Touch> =
        w.touches.iter().copied().filter(|t| matches!(t, Touch::Fill { .. })).collect();
    let fill = |pa| Touch::Fill { at: Addr::new(Hpa(pa), global), lines: 64, word: 0 };
    assert_eq!(filled, PAIR.map(fill));
    let tdmr = &w.m.tdmrs()[0];
    let position = |at: Hpa, word: u64| {
        w.touches.iter().rposition(|t| match t {
            Touch::Store { at: a, value, .. } => {
                *a == Addr::new(at, global) && value[0] & !0xffff == word & !0xffff
            }
            _ => false,
        })
    };
    let entry = tdmr.entry_at(TDMR, Size::Large).unwrap();
    let named = position(entry, (PAIR[0] >> 12) << 28 | 15 << 16).unwrap();
    let last_fill = w.touches.iter().rposition(|t| matches!(t, Touch::Fill { .. })).unwrap();
    assert!(last_fill < named);
    for pa in PAIR {
        let bits = tdmr.bitmap_word(pa);
        let marked = w.touches.iter().position(|t| {
            matches!(t, Touch::Store { at, value, locked: true, .. }
                if at.hpa == tdmr.bitmap_at(pa).unwrap() && value[0] == bits)
        });
        assert!(marked.unwrap() < last_fill);
    }
    assert_eq!(w.m.pamt(TDMR, Size::Large).pages(), Some(PAIR.map(|pa| Hpa(pa).page())));
    assert!(w.m.is_quiet());
}

#[test]
fn without_a_pair_no_page_of_the_block_can_be_given_to_the_module() {
    let missing = |op| about(Status::MISSING_PAMT_PAGE_PAIR, op);
    let mut w = PAIRED.clone();
    let bare = spare(5);
    assert_eq!(w.call(Leaf::MNG_CREATE, bare, HKID, 0, 0).status, missing(Operand::RCX));
    assert_eq!(w.call(Leaf::PHYMEM_PAGE_WBINVD, bare, 0, 0, 0).status, missing(Operand::RCX));
    let tdr = w.initialized_td(HKID, 0);
    assert_eq!(w.call(Leaf::VP_CREATE, bare, tdr, 0, 0).status, missing(Operand::RCX));
    let tdvpr = w.page();
    w.ok(Leaf::VP_CREATE, tdvpr, tdr, 0, 0);
    assert_eq!(w.call(Leaf::VP_ADDCX, bare, tdvpr, 0, 0).status, missing(Operand::RCX));
    assert_eq!(w.call(Leaf::MEM_SEPT_ADD, 3, tdr, bare, 0).status, missing(Operand::R8));
    w.sept(tdr, 0, 0);
    let image = common::IMAGE;
    assert_eq!(w.call(Leaf::MEM_PAGE_ADD, 0, tdr, bare, image).status, missing(Operand::R8));
    assert_eq!(w.call(Leaf::MEM_PAGE_AUG, 0, tdr, bare, 0).status, missing(Operand::R8));
    w.add(tdr, 0);
    assert_eq!(w.call(Leaf::MEM_PAGE_RELOCATE, 0, tdr, bare, 0).status, missing(Operand::R8));
    // Where the page must have an owner it is merely the wrong type.
    let incorrect = about(Status::PAGE_METADATA_INCORRECT, Operand::RCX);
    assert_eq!(w.call(Leaf::PHYMEM_PAGE_RECLAIM, bare, 0, 0, 0).status, incorrect);
    assert_eq!(w.call(Leaf::MNG_KEY_CONFIG, bare, 0, 0, 0).status, incorrect);
}

#[test]
fn entries_of_small_pages_are_read_and_written_in_the_pair_under_the_global_key() {
    let mut w = PAIRED.clone();
    let tdr = w.page();
    w.ok(Leaf::MNG_CREATE, tdr, HKID, 0, 0);
    let at = Addr::new(Hpa(PAIR[0] + 16 * ((tdr - TDMR) >> 12)), KeyId(GLOBAL as u16));
    let stores = |w: &World| -> Vec<u64> {
        w.touches
            .iter()
            .filter_map(|t| match t {
                Touch::Store { at: a, value, .. } if *a == at => Some(value[0] >> 16 & 0xff),
                _ => None,
            })
            .collect()
    };
    let tdr_type = u64::from(PageType::Tdr.code());
    assert_eq!(stores(&w), [0, tdr_type, tdr_type], "locked, given, released");
    assert_eq!(w.m.pamt(TDMR, Size::Large).page_count(), 1);
    let large = w.m.tdmrs()[0].entry_at(TDMR, Size::Large).unwrap();
    let counted = w.touches.iter().any(|t| {
        matches!(t, Touch::Store { at, value, locked: true, .. }
            if at.hpa == large && value[1] & 0x3ff == 1)
    });
    assert!(counted);
}

#[test]
fn a_large_page_needs_no_pair_but_a_block_without_pamt_pages() {
    let mut w = PAIRED.clone();
    let tdr = w.initialized_td(HKID, 0);
    w.vcpu(tdr);
    w.sept(tdr, 0x4000_0000, 1);
    let aug = |w: &mut World, pa| w.call(Leaf::MEM_PAGE_AUG, 0x4000_0000 | 1, tdr, pa, 0).status;
    let incorrect = about(Status::PAGE_METADATA_INCORRECT, Operand::R8);
    w.ok(Leaf::PHYMEM_PAMT_ADD, spare(4) | L1, spare(0) + 0x10_0000, spare(0) + 0x11_0000, 0);
    assert_eq!(aug(&mut w, spare(4)), incorrect, "it has a pair");
    // In the block of the TD's own TDR the leaf meets its own shared lock (architecture.md §7.2).
    assert_eq!(aug(&mut w, TDMR), about(Status::OPERAND_BUSY, Operand::R8));
    assert_eq!(aug(&mut w, spare(0)), incorrect, "it has a page of the pair");
    assert_eq!(aug(&mut w, spare(3)), Status::SUCCESS);
    let add = w.call(Leaf::PHYMEM_PAMT_ADD, spare(3) | L1, spare(6), spare(6) + 0x1000, 0).status;
    assert_eq!(add, about(Status::HPA_RANGE_NOT_FREE, Operand::RCX));
    let add = w.call(Leaf::PHYMEM_PAMT_ADD, spare(7) | L1, spare(3), spare(6) + 0x1000, 0).status;
    assert_eq!(add, about(Status::PAGE_NOT_FREE, Operand::RDX));
}

#[test]
fn a_pamt_page_cannot_be_given_to_a_td_also_when_its_own_block_has_a_pair() {
    let mut w = READY.clone();
    // A block whose pair lies in itself.
    let pair = [TDMR + 0x1f_e000, TDMR + 0x1f_f000];
    w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, pair[0], pair[1], 0);
    let incorrect = about(Status::PAGE_METADATA_INCORRECT, Operand::RCX);
    for page in pair {
        assert_eq!(w.call(Leaf::MNG_CREATE, page, HKID, 0, 0).status, incorrect);
        assert_eq!(w.call(Leaf::PHYMEM_PAGE_WBINVD, page, 0, 0, 0).status, incorrect);
        assert_eq!(w.call(Leaf::PHYMEM_PAGE_RECLAIM, page, 0, 0, 0).status, incorrect);
    }
    w.ok(Leaf::MNG_CREATE, TDMR, HKID, 0, 0);
}

#[test]
fn rdmd_tells_pamt_pages_and_the_pair_of_a_block() {
    let mut w = PAIRED.clone();
    let pamt = u64::from(PageType::Pamt.code());
    let rdmd = |w: &mut World, rcx: u64| w.call(Leaf::PHYMEM_PAGE_RDMD, rcx, 0, 0, 0);
    assert_eq!(rdmd(&mut w, TDMR | L1).out, [pamt, 0, 1, 0, PAIR[0], PAIR[1]]);
    assert_eq!(rdmd(&mut w, PAIR[0]).out, [pamt, 0, 0, 0, 0, 0]);
    assert_eq!(rdmd(&mut w, PAIR[1]).out, [pamt, 0, 0, 0, 0, 0]);
    // Asked for 2 MiB, the block that holds it is free.
    assert_eq!(rdmd(&mut w, spare(0) | L1).out, [0, 0, 1, 0, 0, 0]);
    assert_eq!(rdmd(&mut w, TDMR).out, [0; 6]);
    assert_eq!(rdmd(&mut w, TDMR | 2).out, [0, 0, 2, 0, 0, 0]);
    for rcx in [TDMR | 3, TDMR | 8, (TDMR + 0x1000) | L1, (TDMR + MB2) | 2, TDMR | 1 << 52] {
        assert_eq!(rdmd(&mut w, rcx).status, about(Status::OPERAND_INVALID, Operand::RCX));
    }
}

#[test]
fn a_pair_comes_back_untouched_when_the_last_page_of_its_block_was_reclaimed() {
    let mut w = PAIRED.clone();
    let td = w.runnable_td(HKID);
    w.ok(Leaf::VP_FLUSH, td.tdvpr, 0, 0, 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, td.tdr, 0, 0, 0);
    w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
    w.ok(Leaf::MNG_KEY_FREEID, td.tdr, 0, 0, 0);
    let pages: Vec<u64> = (TDMR..w.next_page)
        .step_by(4096)
        .filter(|pa| *pa != td.tdr)
        .filter(|pa| w.m.pamt(*pa, Size::Small).page_type() != PageType::Nda)
        .collect();
    assert_eq!(w.m.pamt(TDMR, Size::Large).page_count(), pages.len() as u64 + 1);
    for pa in pages {
        assert_eq!(w.ok(Leaf::PHYMEM_PAGE_RECLAIM, pa, 0, 0, 0).out[3] & HINT, 0);
        let early = w.call(Leaf::PHYMEM_PAMT_REMOVE, TDMR | L1, 0, 0, 0).status;
        assert_eq!(early.code(), Status::PAMT_PAGE_NOT_EMPTY);
    }
    assert_eq!(w.ok(Leaf::PHYMEM_PAGE_RECLAIM, td.tdr, 0, 0, 0).out[3], HINT);
    let answer = w.ok(Leaf::PHYMEM_PAMT_REMOVE, TDMR | L1, 0, 0, 0);
    assert_eq!(answer.out, [TDMR | L1, PAIR[0], PAIR[1], 0, 0, 0]);
    // Every line of the pair was read, none written.
    let mut lines: Vec<u64> = Vec::new();
    for touch in &w.touches {
        match touch {
            Touch::Load { at, bytes: 64 } => lines.push(at.hpa.0),
            Touch::Fill { .. } | Touch::FlushPage { .. } => panic!("{touch:?}"),
            Touch::Store { at, .. } => assert!(!PAIR.contains(&(at.hpa.0 & !0xfff))),
            _ => {}
        }
    }
    let expected: Vec<u64> =
        PAIR.iter().flat_map(|page| (0..64).map(move |i| page + 64 * i)).collect();
    assert_eq!(lines, expected);
    for pa in PAIR {
        assert!(!w.m.tdmrs()[0].is_marked(pa));
    }
    let again = w.call(Leaf::PHYMEM_PAMT_REMOVE, TDMR | L1, 0, 0, 0).status;
    assert_eq!(again, about(Status::NO_PAMT_PAGE_PAIR, Operand::RCX));
    w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, PAIR[0], PAIR[1], 0);
}

#[test]
fn while_a_page_of_the_block_is_worked_on_its_pair_stays() {
    let mut w = PAIRED.clone();
    let page = w.page();
    hold_on(&mut w, 1, Call::new(Leaf::MNG_CREATE, page, HKID, 0, 0));
    let status = w.call(Leaf::PHYMEM_PAMT_REMOVE, TDMR | L1, 0, 0, 0).status;
    assert_eq!(status, about(Status::OPERAND_BUSY, Operand::RCX));
}

#[test]
fn disabling_the_module_clears_pairs_too() {
    let mut spec = dynamic();
    spec.tdx.sys_disable = true;
    let mut w = World::ready_with(spec);
    w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | L1, PAIR[0], PAIR[1], 0);
    w.ok(Leaf::SYS_DISABLE, 0, 0, 0, 0);
    for pa in PAIR {
        let fill = Touch::Fill { at: Addr::new(Hpa(pa), KeyId::TME), lines: 64, word: 0 };
        assert_eq!(w.touches.iter().filter(|t| **t == fill).count(), 1);
    }
    assert_eq!(w.m.pamt(TDMR, Size::Large).pages(), None);
    assert_eq!(w.m.pamt(TDMR, Size::Large).owner(), Page(0));
}
