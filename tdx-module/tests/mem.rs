//! TDH.MEM.*: every status in check order, and what each leaf does (architecture.md §7.9).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: the world is the test's own")]

mod common;

use common::World;
use common::bench::{bench, call, gpa};
use common::cases::{Case, LeafCases, check, hold};
use common::edit::{edit_entry, edit_td, lock_entry};
use common::faults::*;
use sim_core::Page;
use sim_core::tdx::{Leaf, Operand as O, Status as S};
use tdx_module::Call;
use tdx_module::reg::{R8, R9, RCX, RDX};
use tdx_module::sept::{Entry, State};

const NO_L2: &str = "a TD of this model has no L2 VMs";

fn version(c: &mut Call, version: u64) {
    c.rax = c.rax & 0xFFFF | version << 16;
}
fn too_new() -> Vec<Case> {
    vec![case("version 2", "rax", S::OPERAND_INVALID.about(O::RAX), |_, c| version(c, 2))]
}
fn not_allowed(when: &'static str, fault: Fault) -> Vec<Case> {
    vec![rcx(when, S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX), fault)]
}
/// The PAMT entry of what the entry holds.
fn page_locked() -> Vec<Case> {
    vec![held("the PAMT entry is locked", S::OPERAND_BUSY.about(O::RCX), |w, c| {
        let (info, tables) = (c.regs[RCX], &bench().tables);
        let (table, shift) = if info & 7 == 0 { (tables[2], 12) } else { (tables[1], 21) };
        let entry = w.m.sept_entry(Page(table >> 12), (info >> shift & 511) as u16);
        hold_page(w, entry.unwrap().hpa().0);
    })]
}

#[test]
fn sept_add_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_SEPT_ADD,
        base: || call(Leaf::MEM_SEPT_ADD, gpa::LARGE_FREE | 1, bench().td, bench().free, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            too_new(),
            vec![
                rdx("reserved bits 11:1", S::OPERAND_INVALID.about(O::RDX), |_, c| {
                    c.regs[RDX] |= 2
                }),
                rdx("reserved bits 63:52", S::OPERAND_INVALID.about(O::RDX), |_, c| {
                    c.regs[RDX] |= 1 << 60;
                }),
            ],
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 0", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] &= !7)],
            walk_shared(),
            not_allowed("a page", |_, c| c.regs[RCX] = gpa::LARGE_PENDING | 1),
            vec![
                r8("version 0 without a page", S::OPERAND_INVALID.about(O::R8), |_, c| {
                    version(c, 0);
                    c.regs[R8] = u64::MAX;
                }),
                case(
                    "version 1 without a page and no table",
                    "r8",
                    S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX),
                    |_, c| {
                        version(c, 1);
                        (c.regs[RCX], c.regs[R8]) = (gpa::LARGE_FREE | 1, u64::MAX);
                    },
                ),
            ],
            not_allowed("a table, not expected", |_, c| c.regs[RCX] = gpa::EMPTY | 1),
            free_page(),
            vec![case("a page for an L2 VM", "r9", S::OPERAND_INVALID.about(O::R9), |_, c| {
                version(c, 1);
                c.regs[R9..].fill(u64::MAX);
                c.regs[R9] = 0;
            })],
        ]),
        unreachable: &[(S::INTERRUPTED_RESUMABLE, NO_L2)],
    });
}

#[test]
fn sept_remove_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_SEPT_REMOVE,
        base: || call(Leaf::MEM_SEPT_REMOVE, gpa::EMPTY_BLOCKED | 1, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            too_new(),
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 0", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] &= !7)],
            walk_exclusive(),
            not_allowed("a page", |_, c| c.regs[RCX] = gpa::LARGE_PENDING | 1),
            page_locked(),
            track(
                |_, c| c.regs[RCX] = gpa::EMPTY | 1,
                |_, c| c.regs[RCX] = gpa::EMPTY_UNTRACKED | 1,
            ),
            vec![rcx("a page is below", S::EPT_PAGE_NOT_FREE.about(O::RCX), |_, c| {
                c.regs[RCX] = gpa::USED | 1;
            })],
        ]),
        unreachable: &[],
    });
}

#[test]
fn sept_rd_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_SEPT_RD,
        base: || call(Leaf::MEM_SEPT_RD, gpa::MAPPED, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            vec![case(
                "attributes of L2 VMs of a TD that is not for debugging",
                "rdx",
                S::OPERAND_INVALID.about(O::RDX),
                |_, c| c.regs[RDX] |= 1,
            )],
            gpa_operand(),
            walk_shared(),
        ]),
        unreachable: &[],
    });
}

#[test]
fn page_add_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_ADD,
        base: || call(Leaf::MEM_PAGE_ADD, 0x1000, bench().built, bench().free, common::IMAGE),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(false),
            vec![rdx("the TD is finalized", S::OP_STATE_INCORRECT, |_, c| {
                c.regs[RDX] = bench().td
            })],
            gpa_operand(),
            vec![
                rcx("level 1", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] = 1),
                rcx("no table", S::EPT_WALK_FAILED.about(O::RCX), |_, c| c.regs[RCX] = 1 << 21),
            ],
            not_allowed("a page", |_, c| c.regs[RCX] = 0),
            vec![
                case("R9 is not aligned", "r9", S::OPERAND_INVALID.about(O::R9), |_, c| {
                    c.regs[R9] |= 64;
                }),
                case("R9 is in SEAMRR", "r9", S::OPERAND_INVALID.about(O::R9), |_, c| {
                    c.regs[R9] = 0x7a00_0000;
                }),
                case("R9 has a private KeyID", "r9", S::OPERAND_INVALID.about(O::R9), |_, c| {
                    c.regs[R9] |= 64 << 45;
                }),
                case("R9 is too wide", "r9", S::OPERAND_INVALID.about(O::R9), |_, c| {
                    c.regs[R9] |= 1 << 52;
                }),
            ],
            free_page(),
        ]),
        unreachable: &[],
    });
}

#[test]
fn page_aug_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_AUG,
        base: || call(Leaf::MEM_PAGE_AUG, gpa::FREE, bench().td, bench().free, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 2", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] = 2)],
            walk_shared(),
            not_allowed("a page", |_, c| c.regs[RCX] = gpa::MAPPED),
            free_page(),
        ]),
        unreachable: &[],
    });
}

#[test]
fn a_large_aug_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_AUG,
        base: || call(Leaf::MEM_PAGE_AUG, gpa::LARGE_FREE | 1, bench().td, bench().free_block, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            walk_shared(),
            not_allowed("a table", |_, c| c.regs[RCX] = gpa::EMPTY | 1),
            vec![
                r8("R8 is aligned to 4 KiB", S::OPERAND_INVALID.about(O::R8), |_, c| {
                    c.regs[R8] += 0x1000;
                }),
                r8("R8 is in no TDMR", S::OPERAND_ADDR_RANGE_ERROR.about(O::R8), |_, c| {
                    c.regs[R8] = 0x9000_0000;
                }),
                // architecture.md §7.2: an operation on any 4 KiB page of the block is in the way.
                held("a page of the block is locked", S::OPERAND_BUSY.about(O::R8), |w, c| {
                    hold_page(w, c.regs[R8] + 0x7000);
                }),
                r8("R8 is a large page", S::PAGE_METADATA_INCORRECT.about(O::R8), |_, c| {
                    c.regs[R8] = bench().large;
                }),
                case(
                    "the last page of the block is in use",
                    "block",
                    S::PAGE_METADATA_INCORRECT.about(O::R8),
                    |w, c| {
                        let last = (c.regs[R8] & !((2 << 20) - 1)) + (511 << 12);
                        w.ok(Leaf::VP_CREATE, last, bench().bare, 0, 0);
                    },
                ),
            ],
        ]),
        unreachable: &[],
    });
}

#[test]
fn page_remove_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_REMOVE,
        base: || call(Leaf::MEM_PAGE_REMOVE, gpa::BLOCKED, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 3", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] = 3)],
            walk_shared(),
            not_allowed("nothing", |_, c| c.regs[RCX] = gpa::FREE),
            page_locked(),
            track(|_, c| c.regs[RCX] = gpa::MAPPED, |_, c| c.regs[RCX] = gpa::UNTRACKED),
        ]),
        unreachable: &[],
    });
}

#[test]
fn page_relocate_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_RELOCATE,
        base: || call(Leaf::MEM_PAGE_RELOCATE, gpa::BLOCKED, bench().td, bench().free, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 1", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] = 1)],
            walk_shared(),
            not_allowed("nothing", |_, c| c.regs[RCX] = gpa::FREE),
            vec![r8("the page is there already", S::OPERAND_INVALID.about(O::R8), |_, c| {
                c.regs[RCX] = gpa::BLOCKED;
                c.regs[R8] = bench().blocked;
            })],
            page_locked(),
            track(|_, c| c.regs[RCX] = gpa::MAPPED, |_, c| c.regs[RCX] = gpa::UNTRACKED),
            free_page(),
        ]),
        unreachable: &[],
    });
}

#[test]
fn page_demote_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_DEMOTE,
        base: || call(Leaf::MEM_PAGE_DEMOTE, gpa::LARGE_BLOCKED | 1, bench().td, bench().free, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            vec![rdx("reserved bits", S::OPERAND_INVALID.about(O::RDX), |_, c| c.regs[RDX] |= 2)],
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![
                rcx("level 0", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] &= !7),
                rcx("level 3", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] = 3),
            ],
            walk_shared(),
            not_allowed("nothing", |_, c| c.regs[RCX] = gpa::LARGE_FREE | 1),
            track(
                |_, c| c.regs[RCX] = gpa::LARGE_PENDING | 1,
                |_, c| c.regs[RCX] = gpa::LARGE_UNTRACKED | 1,
            ),
            free_page(),
            vec![
                case("an interrupt is pending", "irq", S::INTERRUPTED_RESTARTABLE, |w, _| {
                    w.irq = true;
                }),
                held("the PAMT is locked", S::OPERAND_BUSY.about(O::RCX), |w, _| {
                    hold_page(w, bench().large + 0x5000);
                }),
            ],
        ]),
        unreachable: &[(S::L2_SEPT_PAGE_NOT_PROVIDED, NO_L2)],
    });
}

#[test]
fn page_promote_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_PAGE_PROMOTE,
        base: || call(Leaf::MEM_PAGE_PROMOTE, gpa::MERGE | 1, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            too_new(),
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            vec![rcx("level 0", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] &= !7)],
            walk_shared(),
            not_allowed("a page", |_, c| c.regs[RCX] = gpa::LARGE_PENDING | 1),
            page_locked(),
            track(
                |_, c| c.regs[RCX] = gpa::EMPTY | 1,
                |_, c| c.regs[RCX] = gpa::EMPTY_UNTRACKED | 1,
            ),
            vec![
                case("a child is locked", "child", S::OPERAND_BUSY.about(O::RCX), |w, c| {
                    // The first child is looked at before any other.
                    c.regs[RCX] = gpa::MERGE | 1;
                    lock_entry(w, bench().merge_table, 0);
                }),
                rcx(
                    "the children are not alike",
                    S::EPT_INVALID_PROMOTE_CONDITIONS.about(O::RCX),
                    |_, c| c.regs[RCX] = gpa::USED | 1,
                ),
                case("an interrupt is pending", "irq", S::INTERRUPTED_RESTARTABLE, |w, _| {
                    w.irq = true;
                }),
                held("the PAMT is locked", S::OPERAND_BUSY.about(O::RCX), |w, _| {
                    hold_page(w, bench().merge + 0x5000);
                }),
            ],
        ]),
        unreachable: &[],
    });
}

#[test]
fn range_block_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_RANGE_BLOCK,
        base: || call(Leaf::MEM_RANGE_BLOCK, gpa::MAPPED, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            walk_exclusive(),
            vec![rcx("it is blocked", S::GPA_RANGE_ALREADY_BLOCKED.about(O::RCX), |_, c| {
                c.regs[RCX] = gpa::BLOCKED;
            })],
            not_allowed("nothing", |_, c| c.regs[RCX] = gpa::FREE),
        ]),
        unreachable: &[],
    });
}

#[test]
fn range_unblock_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_RANGE_UNBLOCK,
        base: || call(Leaf::MEM_RANGE_UNBLOCK, gpa::BLOCKED, bench().td, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(true),
            gpa_operand(),
            walk_exclusive(),
            not_allowed("not blocked", |_, c| c.regs[RCX] = gpa::MAPPED),
            vec![rcx(
                "tracking is not done",
                S::TLB_TRACKING_NOT_DONE.about(O::SEPT_TREE),
                |_, c| {
                    c.regs[RCX] = gpa::UNTRACKED;
                },
            )],
        ]),
        unreachable: &[],
    });
}

#[test]
fn track_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_TRACK,
        base: || call(Leaf::MEM_TRACK, bench().td, 0, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RCX>(),
            state::<RCX>(true),
            vec![
                held("the epoch is locked", S::OPERAND_BUSY.about(O::TD_EPOCH), |w, _| {
                    hold(w, Call::new(Leaf::MEM_TRACK, bench().td, 0, 0, 0), LOCKED);
                }),
                case(
                    "VCPUs of the last epoch are inside",
                    "refcount",
                    S::PREVIOUS_TLB_EPOCH_BUSY,
                    |w, _| vcpu_inside(w, bench().td),
                ),
            ],
        ]),
        unreachable: &[],
    });
}

/// A VCPU that has been in the TD since the previous epoch.
fn vcpu_inside(w: &mut World, td: u64) {
    let mut count = [0, 0];
    count[((w.td(td).epoch + 1) & 1) as usize] = 1;
    edit_td(w, td, "refcount", count.to_vec());
}

/// The checks of TDH.MEM.RD and TDH.MEM.WR up to the entry's state.
fn debug_checks() -> Vec<Case> {
    all(vec![
        tdr::<RDX>(),
        state::<RDX>(true),
        vec![
            rdx("the TD is not for debugging", S::TD_NON_DEBUG, |_, c| c.regs[RDX] = bench().td),
            rcx("RCX is not aligned", S::OPERAND_INVALID.about(O::RCX), |_, c| c.regs[RCX] |= 4),
            held("the tree is locked", S::OPERAND_BUSY.about(O::SEPT_TREE), |w, _| {
                hold(w, Call::new(Leaf::MEM_RANGE_BLOCK, 0, bench().debug, 0, 0), LOCKED);
            }),
            rcx("the GPA is shared", S::OPERAND_INVALID.about(O::RCX), |_, c| {
                c.regs[RCX] |= 1 << 47;
            }),
            rcx("the page is pending", S::EPT_ENTRY_NOT_PRESENT.about(O::RCX), |_, c| {
                c.regs[RCX] = 0x1008;
            }),
            held("the entry is locked", S::OPERAND_BUSY.about(O::RCX), |w, _| {
                hold_entry(w, bench().debug, 0);
            }),
        ],
    ])
}

const READABLE: &[(S, &str)] = &[(
    S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX),
    "every page that the walk accepts can be read; only a change between walk and lock could show it",
)];

#[test]
fn rd_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MEM_RD,
        base: || call(Leaf::MEM_RD, 0x18, bench().debug, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: debug_checks(),
        unreachable: READABLE,
    });
}

#[test]
fn wr_returns_every_status_in_order() {
    let mut cases = debug_checks();
    // The state of a page that was exported; no leaf of this model exports.
    let wrong = S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX);
    cases.push(case("the page is blocked for writing", "entry", wrong, |w, _| {
        let entry = Entry::leaf(State::BlockedW, Page(bench().debug_page >> 12));
        edit_entry(w, bench().debug_tables[2], 0, entry);
    }));
    check(&LeafCases {
        leaf: Leaf::MEM_WR,
        base: || call(Leaf::MEM_WR, 0x18, bench().debug, 7, 0),
        succeeds: Some(S::SUCCESS),
        cases,
        unreachable: &[],
    });
}
