//! A world with TDs in many states and one whose Secure-EPT has an entry of every kind, for the leaves of memory.

#![allow(dead_code, reason = "each test file uses a part")]

use super::edit::edit_td;
use super::{IMAGE, World};
use sim_core::Page;
use sim_core::tdx::{Leaf, Status};
use std::sync::LazyLock;
use tdx_module::Call;

/// HKID of [`Bench::td`].
pub const HKID: u16 = 65;

/// A TD that was added, and everything around it.
#[derive(Clone)]
pub struct Bench {
    pub w: World,
    /// RUNNABLE, with the memory of [`gpa`].
    pub td: u64,
    /// Its Secure-EPT pages for GPA 0: entries of level 2, 1 and 0.
    pub tables: Vec<u64>,
    /// Its page at [`gpa::BLOCKED`].
    pub blocked: u64,
    /// Its pages at [`gpa::LARGE_BLOCKED`], 2 MiB.
    pub large: u64,
    /// Its Secure-EPT page at [`gpa::MERGE`], and its 512 pages.
    pub merge_table: u64,
    pub merge: u64,
    /// Its Secure-EPT page at [`gpa::EMPTY_BLOCKED`].
    pub empty: u64,
    /// INITIALIZED, with tables for GPA 0 to 2 MiB, one VCPU and a page at GPA 0.
    pub built: u64,
    pub built_tables: Vec<u64>,
    pub built_page: u64,
    /// INITIALIZED, without a VCPU.
    pub bare: u64,
    /// A debug TD, RUNNABLE, with a page at GPA 0 and a pending one behind it.
    pub debug: u64,
    pub debug_tables: Vec<u64>,
    pub debug_page: u64,
    /// A TD after TDH.MNG.CREATE.
    pub created: u64,
    /// A TD with a key and no TDCS.
    pub keyed: u64,
    /// A TD before TDH.MNG.INIT.
    pub uninit: u64,
    /// A TD that met a machine check.
    pub fatal: u64,
    /// A free page.
    pub free: u64,
    /// Free memory, 2 MiB.
    pub free_block: u64,
}

/// Where things are in [`Bench::td`].
pub mod gpa {
    /// MAPPED.
    pub const MAPPED: u64 = 0;
    /// BLOCKED and tracked.
    pub const BLOCKED: u64 = 0x1000;
    /// BLOCKED since the last TRACK.
    pub const UNTRACKED: u64 = 0x2000;
    /// PENDING.
    pub const PENDING: u64 = 0x3000;
    /// FREE.
    pub const FREE: u64 = 0x4000;
    /// PENDING_BLOCKED and tracked.
    pub const PENDING_BLOCKED: u64 = 0x5000;
    /// 2 MiB, PENDING_BLOCKED and tracked.
    pub const LARGE_BLOCKED: u64 = 0x20_0000;
    /// 2 MiB, PENDING.
    pub const LARGE_PENDING: u64 = 0x40_0000;
    /// 2 MiB, PENDING_BLOCKED since the last TRACK.
    pub const LARGE_UNTRACKED: u64 = 0x60_0000;
    /// A table over 512 PENDING pages in one block, blocked and tracked.
    pub const MERGE: u64 = 0x80_0000;
    /// FREE at level 1.
    pub const LARGE_FREE: u64 = 0xA0_0000;
    /// An empty table, blocked and tracked.
    pub const EMPTY_BLOCKED: u64 = 0xC0_0000;
    /// An empty table.
    pub const EMPTY: u64 = 0xE0_0000;
    /// An empty table, blocked since the last TRACK.
    pub const EMPTY_UNTRACKED: u64 = 0x100_0000;
    /// A table with one page, blocked and tracked.
    pub const USED: u64 = 0x120_0000;
    /// Nothing down to level 0.
    pub const NOWHERE: u64 = 1 << 39;
}

impl Bench {
    fn new() -> Bench {
        let mut w = World::ready();
        let created = w.page();
        w.ok(Leaf::MNG_CREATE, created, 70, 0, 0);
        let keyed = w.page();
        w.ok(Leaf::MNG_CREATE, keyed, 71, 0, 0);
        w.ok(Leaf::MNG_KEY_CONFIG, keyed, 0, 0, 0);
        let uninit = w.keyed_td(72);
        let fatal = w.initialized_td(73, 0);
        edit_td(&mut w, fatal, "fatal", true);

        let td = w.initialized_td(u64::from(HKID), 0);
        w.vcpu(td);
        let tables = w.sept(td, 0, 0);
        for at in [gpa::MAPPED, gpa::BLOCKED, gpa::UNTRACKED] {
            w.add(td, at);
        }
        w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
        w.aug(td, gpa::PENDING);
        w.aug(td, gpa::PENDING_BLOCKED);
        let blocked = page_at(&w, &tables, gpa::BLOCKED);

        let mut large = 0;
        for at in [gpa::LARGE_UNTRACKED, gpa::LARGE_PENDING, gpa::LARGE_BLOCKED] {
            large = w.block(2 << 20);
            w.ok(Leaf::MEM_PAGE_AUG, at | 1, td, large, 0);
        }
        let [merge_table, empty] = [gpa::MERGE, gpa::EMPTY_BLOCKED].map(|at| w.sept(td, at, 0)[0]);
        for at in [gpa::EMPTY, gpa::EMPTY_UNTRACKED, gpa::USED] {
            w.sept(td, at, 0);
        }
        w.aug(td, gpa::USED);
        let merge = w.block(2 << 20);
        for i in 0..512 {
            w.ok(Leaf::MEM_PAGE_AUG, gpa::MERGE + (i << 12), td, merge + (i << 12), 0);
        }
        for at in [
            gpa::BLOCKED,
            gpa::PENDING_BLOCKED,
            gpa::LARGE_BLOCKED | 1,
            gpa::MERGE | 1,
            gpa::EMPTY_BLOCKED | 1,
            gpa::USED | 1,
        ] {
            w.ok(Leaf::MEM_RANGE_BLOCK, at, td, 0, 0);
        }
        w.ok(Leaf::MEM_TRACK, td, 0, 0, 0);
        for at in [gpa::UNTRACKED, gpa::LARGE_UNTRACKED | 1, gpa::EMPTY_UNTRACKED | 1] {
            w.ok(Leaf::MEM_RANGE_BLOCK, at, td, 0, 0);
        }

        let bare = w.initialized_td(66, 0);
        let built = w.initialized_td(67, 0);
        w.vcpu(built);
        let built_tables = w.sept(built, 0, 0);
        let built_page = w.add(built, 0);
        let debug = w.initialized_td(68, 1);
        w.vcpu(debug);
        let debug_tables = w.sept(debug, 0, 0);
        let debug_page = w.add(debug, 0);
        w.ok(Leaf::MR_FINALIZE, debug, 0, 0, 0);
        w.aug(debug, 0x1000);

        let (free_block, free) = (w.block(2 << 20), w.page());
        // A line that nobody wrote reads as zero, too: the world is cloned often.
        w.lines.retain(|_, words| *words != [0; 8]);
        Bench {
            w,
            td,
            tables,
            blocked,
            large,
            merge_table,
            merge,
            empty,
            built,
            built_tables,
            built_page,
            bare,
            debug,
            debug_tables,
            debug_page,
            created,
            keyed,
            uninit,
            fatal,
            free,
            free_block,
        }
    }
}

/// The page that a level-0 entry of these tables maps.
pub fn page_at(w: &World, tables: &[u64], gpa: u64) -> u64 {
    let table = Page(tables.last().unwrap() >> 12);
    w.m.sept_entry(table, (gpa >> 12 & 511) as u16).unwrap().hpa().0
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

/// The one bench, built once.
pub fn bench() -> &'static Bench {
    &BENCH
}

/// A world of the bench and a call in it.
pub fn call(leaf: Leaf, rcx: u64, rdx: u64, r8: u64, r9: u64) -> (World, Call) {
    (bench().w.clone(), Call::new(leaf, rcx, rdx, r8, r9))
}

/// A page of the VMM with content, 64 lines of it.
pub fn image(w: &mut World, seed: u64) -> Vec<u64> {
    let words: Vec<u64> = (0..512).map(|i| seed ^ (i * 0x0101_0101_0101)).collect();
    for (i, word) in (0..).zip(&words) {
        w.poke(IMAGE + 8 * i, 0, *word);
    }
    words
}

/// What a call that must fail with this status returns in RCX and RDX.
pub fn fails(w: &mut World, call: Call, status: Status) -> (u64, u64) {
    let answer = w.call_on(0, call);
    assert_eq!(answer.status, status);
    (answer.out[0], answer.out[1])
}
