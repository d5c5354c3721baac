//! The rows.

use super::{
    Access, Cost, Interrupted, Key, LockRow, Lockable, Place, Present, Profile, Register, TouchRow,
    Until,
};
use crate::lock::Mode;
use sim_core::tdx::{GuestLeaf, Leaf};

const D: &str = "architecture.md §7.2, §7.9";
/// The sheet gives only the number.
const N: &str =
    "architecture.md §7.2, §7.11; intel/tdx-module 1.5.01 tdh_mng_rd_wr.c, tdh_vp_rd_wr.c";
const E: &str =
    "architecture.md §7.9; intel/tdx-module 1.5.01 tdh_sys_info.c, tdh_sys_rd.c, tdh_sys_rdall.c";
const I: &str = "architecture.md §7.2, §7.9, §7.11";
const P: &str = "linux-host-paths.md §2.1, §13; intel/tdx-module 1666adc494db";
const G: &str = "architecture.md §7.11; intel/tdx-module tdg_vp_info.c, tdg_vp_veinfo_get.c, tdg_mem_page_attr_rd.c";

const fn r(name: &'static str, meaning: &'static str) -> Register {
    Register { name, meaning }
}
const fn lock(of: Lockable, mode: Mode, walk: bool) -> LockRow {
    LockRow { of, mode, walk, until: Until::End, when: "" }
}
/// Exclusive.
const fn ex(of: Lockable) -> LockRow {
    lock(of, Mode::Exclusive, false)
}
/// Shared.
const fn sh(of: Lockable) -> LockRow {
    lock(of, Mode::Shared, false)
}
/// A PAMT entry at the end of a walk, exclusive.
const fn wex(of: Lockable) -> LockRow {
    lock(of, Mode::Exclusive, true)
}
/// A PAMT entry at the end of a walk, shared.
const fn wsh(of: Lockable) -> LockRow {
    lock(of, Mode::Shared, true)
}
const fn until(until: Until, row: LockRow) -> LockRow {
    LockRow { until, ..row }
}
const fn lock_when(when: &'static str, row: LockRow) -> LockRow {
    LockRow { when, ..row }
}
const fn t(access: Access, place: Place, key: Key) -> TouchRow {
    TouchRow { access, place, key, when: "" }
}
const fn when(when: &'static str, row: TouchRow) -> TouchRow {
    TouchRow { when, ..row }
}

use Access as A;
use Lockable as L;
use Place as W;

// Touches by name, as most leaves have them.
const PAMT_LOCKS: TouchRow = t(A::Locked, W::Pamt, Key::Global);
const PAMT_LOADS: TouchRow = t(A::Load, W::Pamt, Key::Global);
const PAMT_STORES: TouchRow = t(A::Store, W::Pamt, Key::Global);
const TDR_LOADS: TouchRow = t(A::Load, W::Tdr, Key::Global);
const TDR_STORES: TouchRow = t(A::Store, W::Tdr, Key::Global);
const TDCS_LOADS: TouchRow = t(A::Load, W::Tdcs, Key::Td);
const TDCS_STORES: TouchRow = t(A::Store, W::Tdcs, Key::Td);
const TDCS_LOCKS: TouchRow = t(A::Locked, W::Tdcs, Key::Td);
const TDVPS_LOADS: TouchRow = t(A::Load, W::Tdvps, Key::Td);
const TDVPS_STORES: TouchRow = t(A::Store, W::Tdvps, Key::Td);
const SEPT_LOADS: TouchRow = t(A::Load, W::SecureEpt, Key::Td);
const SEPT_STORES: TouchRow = t(A::Store, W::SecureEpt, Key::Td);
const SEPT_LOCKS: TouchRow = t(A::Locked, W::SecureEpt, Key::Td);
const OPERAND_LOADS: TouchRow = t(A::Load, W::Operand, Key::Operand);
const OPERAND_STORES: TouchRow = t(A::Store, W::Operand, Key::Operand);
const RANDOM: TouchRow = t(A::Random, W::None, Key::None);
const PCONFIG: TouchRow = t(A::Pconfig, W::None, Key::None);
const INVEPT: TouchRow = t(A::Invept, W::None, Key::None);

// Locks by name.
const TDR_EX: LockRow = wex(L::Tdr);
const TDR_SH: LockRow = wsh(L::Tdr);
const OWNER: LockRow = sh(L::Tdr);
const OP_STATE: LockRow = sh(L::OpState);
const PAGE: LockRow = wex(L::Page);
const ENTRY: LockRow = ex(L::SeptEntry);
const TREE_SH: LockRow = sh(L::SeptTree);
const TREE_EX: LockRow = ex(L::SeptTree);

// Registers by name.
const TDR_RCX: Register = r("RCX", "TDR page");
const TDR_RDX: Register = r("RDX", "TDR page");
const TDVPR_RCX: Register = r("RCX", "TDVPR page");
const FIELD: Register = r("RDX", "field id; all ones for the first");
const PA_RCX: Register = r("RCX", "physical address of the page");

const TRACKED: &str = "where TRACK applies";
const UNTOUCHED: &str = "The page's memory is not read, written, flushed or cleared.";

const SYS: Profile<Leaf> = Profile {
    leaf: Leaf::SYS_INIT,
    version: 0,
    versions: "",
    present: Present::Always,
    operands: &[],
    results: &[],
    locks: &[],
    touches: &[],
    interrupted: Interrupted::Waits,
    resume: "",
    costs: &[Cost::Seamcall, Cost::Sys],
    notes: &[],
    cite: D,
};
const MNG: Profile<Leaf> = Profile { costs: &[Cost::Seamcall, Cost::Mng], ..SYS };
const MEM: Profile<Leaf> = Profile { costs: &[Cost::Seamcall, Cost::Mem], ..SYS };
const PHYMEM: Profile<Leaf> = Profile { costs: &[Cost::Seamcall, Cost::Phymem], ..SYS };

const GPA_4K: Register = r("RCX", "GPA; bits 2:0 level 0");
const GPA_TO_ROOT: Register = r("RCX", "GPA; bits 2:0 level of the entry, 0 to the root's");
const GPA_TABLE: Register = r("RCX", "GPA; bits 2:0 level of the entry, 1 to the root's");

/// SEAMCALL leaves, by number. A leaf that is not modelled has no row.
pub const PROFILES: &[Profile<Leaf>] = &[
    Profile {
        leaf: Leaf::VP_ENTER,
        operands: &[
            r("RCX", "TDVPR page in 51:12; bit 52 the hint of a TDCALL's answer, bit 53 resume L1"),
            r("RDX-R13", "after TDG.VP.VMCALL: what the registers of the guest's mask become"),
        ],
        results: &[
            r("RCX", "exit qualification; after TDG.VP.VMCALL the guest's register mask"),
            r("RDX", "extended exit qualification; after TDG.VP.VMCALL the guest's"),
            r("R8", "GPA of an EPT violation; after TDG.VP.VMCALL the guest's"),
            r("R9", "interruption information; after TDG.VP.VMCALL the guest's"),
            r("R10-R13", "after TDG.VP.VMCALL the guest's"),
        ],
        locks: &[
            wsh(L::Tdvpr),
            OWNER,
            until(Until::Entry, OP_STATE),
            until(Until::Entry, sh(L::Epoch)),
        ],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            TDCS_LOADS,
            TDVPS_LOADS,
            TDVPS_STORES,
            when(
                "the epoch has moved since the VCPU's last entry, or another VCPU ran here last",
                INVEPT,
            ),
        ],
        interrupted: Interrupted::TdExit,
        resume: "call it again: the guest goes on where it was",
        costs: &[Cost::Seamcall, Cost::Mng, Cost::Enter, Cost::Exit, Cost::Invept],
        notes: &[
            "TDVPR and TDR stay locked shared for as long as the guest runs: TDH.MNG.VPFLUSHDONE and TDH.MNG.KEY.FREEID meet OPERAND_BUSY.",
            "After a machine check in the TD only the TDR is touched: TDCS, TDVPS and private memory are left alone, and the REFCOUNT stays.",
        ],
        cite: "architecture.md §6.3, §7.2, §7.8, §7.9",
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_ADDCX,
        operands: &[r("RCX", "page to give"), TDR_RDX],
        locks: &[TDR_EX, PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            when("every page but the fourth", t(A::Movdir64b, W::Tdcs, Key::Td)),
            when(
                "the fourth page, which is the Secure-EPT root",
                t(A::Movdir64b, W::SecureEpt, Key::Td),
            ),
            when("the sixth page: the key of a migration session", RANDOM),
            when("pages 7 to 9: OP_STATE", TDCS_LOADS),
        ],
        notes: &[
            "RND_NO_ENTROPY and OP_STATE_INCORRECT come when the page is overwritten already.",
        ],
        cite: "architecture.md §7.2, §7.9, §7.10.1",
        ..MNG
    },
    Profile {
        leaf: Leaf::MEM_PAGE_ADD,
        operands: &[
            GPA_4K,
            TDR_RDX,
            r("R8", "page to give"),
            r("R9", "the VMM's page with the content"),
        ],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_EX, PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOADS,
            TDCS_STORES,
            SEPT_LOADS,
            SEPT_STORES,
            OPERAND_LOADS,
            t(A::Movdir64b, W::Private, Key::Td),
        ],
        costs: &[Cost::Seamcall, Cost::Mem, Cost::Hash],
        notes: &[
            "The exclusive TDR stands for the tree's and the entry's locks.",
            "MRTD is extended by the GPA, not by the content.",
        ],
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_SEPT_ADD,
        version: 1,
        versions: "version 1: R8 may be all ones (no page), R9-R11 are pages for L2 VMs, and pages not used come back",
        operands: &[
            GPA_TABLE,
            r("RDX", "TDR page; bit 0 allows an existing table"),
            r("R8", "page to give"),
            r("R9-R11", "version 1: pages for L2 VMs; all ones"),
        ],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
            r("R8-R11", "version 1: pages not used; all ones for one that was"),
        ],
        locks: &[
            TDR_SH,
            OP_STATE,
            TREE_SH,
            ENTRY,
            lock_when("unless the table is there already", PAGE),
        ],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            when("unless the table is there already", t(A::Movdir64b, W::SecureEpt, Key::Td)),
            when("unless the table is there already", SEPT_STORES),
            when("unless the table is there already", PAMT_STORES),
            when("unless the table is there already", TDR_STORES),
        ],
        notes: &[
            "Version 1 is interruptible only between pages of L2 VMs, which this model has not.",
        ],
        cite: I,
        ..MEM
    },
    Profile {
        leaf: Leaf::VP_ADDCX,
        operands: &[r("RCX", "page to give"), r("RDX", "TDVPR page")],
        locks: &[wex(L::Tdvpr), OWNER, OP_STATE, PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            TDVPS_LOADS,
            TDVPS_STORES,
            t(A::Movdir64b, W::Tdvps, Key::Td),
        ],
        ..MNG
    },
    Profile {
        leaf: Leaf::MEM_PAGE_RELOCATE,
        operands: &[GPA_4K, TDR_RDX, r("R8", "page to give")],
        results: &[
            r("RCX", "the old page"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY, ex(L::Mapped), PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when(TRACKED, TDCS_LOADS),
            when("unless the page is pending", t(A::Load, W::Private, Key::Td)),
            when("unless the page is pending", t(A::Movdir64b, W::Private, Key::Td)),
        ],
        notes: &["The old page's memory keeps its content: TD bit set, caches dirty."],
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_PAGE_AUG,
        operands: &[
            r("RCX", "GPA; bits 2:0 level 0 or 1"),
            TDR_RDX,
            r("R8", "page or 2 MiB block to give"),
        ],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY, PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when("2 MiB: the entries of its 512 pages", PAMT_LOADS),
        ],
        notes: &[UNTOUCHED],
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_RANGE_BLOCK,
        operands: &[GPA_TO_ROOT, TDR_RDX],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_EX, ENTRY],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDCS_LOCKS,
            TDCS_LOADS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
        ],
        notes: &[
            "No TLB is flushed: translations stay until TDH.MEM.TRACK and an exit of every VCPU.",
        ],
        cite: "architecture.md §7.2, §7.8, §7.9",
        ..MEM
    },
    Profile {
        leaf: Leaf::MNG_KEY_CONFIG,
        operands: &[TDR_RCX],
        locks: &[TDR_EX],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDR_STORES, PCONFIG],
        notes: &["Once on every package; the last one makes the TD's life cycle KEYS_CONFIGURED."],
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_CREATE,
        operands: &[r("RCX", "page to become the TDR"), r("RDX", "HKID")],
        locks: &[PAGE, ex(L::Kot)],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            t(A::Movdir64b, W::Tdr, Key::Global),
            TDR_STORES,
            RANDOM,
        ],
        notes: &["RND_NO_ENTROPY comes when the page is overwritten already."],
        cite: "architecture.md §7.2, §7.9, §7.10.1",
        ..MNG
    },
    Profile {
        leaf: Leaf::VP_CREATE,
        operands: &[r("RCX", "page to become the TDVPR"), TDR_RDX],
        locks: &[TDR_SH, OP_STATE, PAGE],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            t(A::Movdir64b, W::Tdvps, Key::Td),
            TDVPS_STORES,
        ],
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_RD,
        version: 1,
        versions: "version 1: the next field id comes back in RDX",
        operands: &[TDR_RCX, FIELD],
        results: &[r("RDX", "version 1: the next field id"), r("R8", "value")],
        locks: &[TDR_SH, OP_STATE],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDCS_LOADS],
        cite: N,
        ..MNG
    },
    Profile {
        leaf: Leaf::MEM_RD,
        operands: &[r("RCX", "GPA, aligned to 8 bytes"), TDR_RDX],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
            r("R8", "the 8 bytes"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            TDCS_LOADS,
            SEPT_LOADS,
            SEPT_LOCKS,
            t(A::Load, W::Private, Key::Td),
        ],
        notes: &["Of a debug TD only."],
        ..MEM
    },
    Profile {
        leaf: Leaf::MNG_WR,
        operands: &[TDR_RCX, r("RDX", "field id"), r("R8", "value"), r("R9", "which bits of it")],
        results: &[r("R8", "the value before")],
        locks: &[TDR_SH, OP_STATE],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDCS_LOADS, TDCS_STORES],
        cite: N,
        ..MNG
    },
    Profile {
        leaf: Leaf::MEM_WR,
        operands: &[r("RCX", "GPA, aligned to 8 bytes"), TDR_RDX, r("R8", "the 8 bytes")],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
            r("R8", "the 8 bytes before"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            TDCS_LOADS,
            SEPT_LOADS,
            SEPT_LOCKS,
            t(A::Load, W::Private, Key::Td),
            t(A::Store, W::Private, Key::Td),
        ],
        notes: &["Of a debug TD only."],
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_PAGE_DEMOTE,
        operands: &[
            r("RCX", "GPA; bits 2:0 level 1 or 2"),
            r("RDX", "TDR page; bit 0 is about L2 VMs"),
            r("R8", "page for the new table"),
            r("R9-R11", "pages for L2 VMs: for a TD with L2 VMs not modelled"),
        ],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY, PAGE, until(Until::Moment, ex(L::Mapped))],
        touches: &[
            PAMT_LOCKS,
            PAMT_LOADS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            t(A::Movdir64b, W::SecureEpt, Key::Td),
            when(TRACKED, TDCS_LOADS),
        ],
        interrupted: Interrupted::Restartable,
        resume: "call it again with the same operands; the page in R8 is overwritten already",
        notes: &[
            "The large page's memory is not touched.",
            "INTERRUPTED_RESTARTABLE and a busy PAMT come when the page in R8 is overwritten already.",
        ],
        cite: "architecture.md §7.2, §7.9, §7.10.1, §7.11",
        ..MEM
    },
    Profile {
        leaf: Leaf::MR_EXTEND,
        operands: &[r("RCX", "GPA, aligned to 256 bytes"), TDR_RDX],
        results: &[
            r("RCX", "on an error of the walk: the entry"),
            r("RDX", "on an error of the walk: its level and state"),
        ],
        locks: &[TDR_EX],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOADS,
            TDCS_STORES,
            SEPT_LOADS,
            t(A::Load, W::Private, Key::Td),
        ],
        costs: &[Cost::Seamcall, Cost::Mng, Cost::Hash],
        ..MNG
    },
    Profile {
        leaf: Leaf::MR_FINALIZE,
        operands: &[TDR_RCX],
        locks: &[TDR_EX],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOADS, TDCS_STORES],
        costs: &[Cost::Seamcall, Cost::Mng, Cost::Hash],
        ..MNG
    },
    Profile {
        leaf: Leaf::VP_FLUSH,
        operands: &[TDVPR_RCX],
        locks: &[wex(L::Tdvpr), OWNER],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDVPS_LOADS, TDVPS_STORES, INVEPT],
        costs: &[Cost::Seamcall, Cost::Mng, Cost::Invept],
        notes: &["Also of a TD that is fatal. On the LP with which the VCPU is associated."],
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_VPFLUSHDONE,
        operands: &[TDR_RCX],
        locks: &[TDR_EX, ex(L::Kot)],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDR_STORES, when("with all TDCS pages", TDCS_LOADS)],
        notes: &[
            "Nothing is flushed: dirty lines of the HKID stay in the caches until TDH.PHYMEM.CACHE.WB.",
        ],
        cite: "architecture.md §7.2, §7.5, §7.9",
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_KEY_FREEID,
        operands: &[TDR_RCX],
        locks: &[TDR_EX, ex(L::Kot)],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDR_STORES],
        notes: &["The key stays in the memory controller until the HKID gets another one."],
        cite: "architecture.md §7.2, §7.5, §7.9",
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_INIT,
        operands: &[TDR_RCX, r("RDX", "TD_PARAMS, 1024 bytes of the VMM's memory")],
        results: &[r("RCX", "on an error of a CPUID value: its leaf and sub-leaf")],
        locks: &[TDR_EX],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOADS, TDCS_STORES, OPERAND_LOADS],
        ..MNG
    },
    Profile {
        leaf: Leaf::VP_INIT,
        versions: "version 1, where tdx.vp_init_version is 1: the x2APIC id in R8",
        operands: &[
            TDVPR_RCX,
            r("RDX", "what the guest finds in RCX and R8"),
            r("R8", "version 1: x2APIC id"),
        ],
        locks: &[wex(L::Tdvpr), OWNER, OP_STATE],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDVPS_LOADS, TDVPS_STORES],
        notes: &["With tdx.vp_init_exclusive the TDR is locked exclusively."],
        cite: "architecture.md §7.2, §7.9, §10.2 D-22",
        ..MNG
    },
    Profile {
        leaf: Leaf::MEM_PAGE_PROMOTE,
        version: 1,
        versions: "version 1: R9-R11 return the pages of L2 VMs that became free, none",
        operands: &[r("RCX", "GPA; bits 2:0 level 1 or 2"), TDR_RDX],
        results: &[
            r("RCX", "the Secure-EPT page that is free now"),
            r("RDX", "on an error of the entry: its level and state"),
            r("R9-R11", "version 1: all ones"),
        ],
        locks: &[
            TDR_SH,
            OP_STATE,
            TREE_SH,
            ENTRY,
            ex(L::Mapped),
            ex(L::SeptChildren),
            until(Until::Moment, ex(L::Page)),
        ],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when(TRACKED, TDCS_LOADS),
        ],
        interrupted: Interrupted::Restartable,
        resume: "call it again with the same operands",
        notes: &["The memory of the freed Secure-EPT page is not touched."],
        cite: I,
        ..MEM
    },
    Profile {
        leaf: Leaf::PHYMEM_PAGE_RDMD,
        operands: &[r("RCX", "physical address; with dynamic PAMT bits 1:0 a level")],
        results: &[
            r("RCX", "page type"),
            r("RDX", "owner"),
            r("R8", "size"),
            r("R9", "BEPOCH of PT_REG and PT_EPT"),
            r("R10-R11", "with dynamic PAMT: the pair of a PT_PAMT entry"),
        ],
        locks: &[wsh(L::Page)],
        touches: &[PAMT_LOCKS],
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::MEM_SEPT_RD,
        operands: &[GPA_TO_ROOT, r("RDX", "TDR page; bit 0 asks for L2 attributes of a debug TD")],
        results: &[
            r("RCX", "the entry as architecture.md §7.6 shows it"),
            r("RDX", "level 2:0, state 15:8"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, SEPT_LOADS, SEPT_LOCKS],
        ..MEM
    },
    Profile {
        leaf: Leaf::VP_RD,
        version: 1,
        versions: "version 1: the next field id comes back in RDX",
        operands: &[TDVPR_RCX, FIELD],
        results: &[r("RDX", "version 1: the next field id"), r("R8", "value")],
        locks: &[wsh(L::Tdvpr), OWNER, OP_STATE],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            TDVPS_LOADS,
            when("the VCPU was with no LP", TDVPS_STORES),
        ],
        notes: &["Associates the VCPU with this LP."],
        cite: N,
        ..MNG
    },
    Profile {
        leaf: Leaf::MNG_KEY_RECLAIMID,
        operands: &[TDR_RCX],
        costs: &[Cost::Seamcall],
        notes: &["Does nothing."],
        ..MNG
    },
    Profile {
        leaf: Leaf::PHYMEM_PAGE_RECLAIM,
        operands: &[PA_RCX],
        results: &[
            r("RCX", "page type"),
            r("RDX", "owner"),
            r("R8", "size"),
            r("R9", "with dynamic PAMT: bit 62, the pair of PAMT pages can be taken back"),
        ],
        locks: &[wex(L::Page), lock_when("unless the page is a TDR itself", OWNER)],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            when("unless the page is a TDR itself", TDR_STORES),
        ],
        notes: &[UNTOUCHED, "RCX, RDX and R8 are set before the checks of owner and life cycle."],
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::MEM_PAGE_REMOVE,
        operands: &[r("RCX", "GPA; bits 2:0 level 0 to 2"), TDR_RDX],
        results: &[r("RCX", "the page"), r("RDX", "on an error of the entry: its level and state")],
        locks: &[TDR_SH, OP_STATE, TREE_SH, ENTRY, ex(L::Mapped)],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when(TRACKED, TDCS_LOADS),
        ],
        notes: &[UNTOUCHED],
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_SEPT_REMOVE,
        version: 1,
        versions: "version 1: R9-R11 return the pages of L2 VMs that became free, none",
        operands: &[GPA_TABLE, TDR_RDX],
        results: &[
            r("RCX", "the page"),
            r("RDX", "on an error of the entry: its level and state"),
            r("R9-R11", "version 1: all ones"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_EX, ENTRY, ex(L::Mapped)],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            TDR_LOADS,
            TDR_STORES,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when(TRACKED, TDCS_LOADS),
        ],
        notes: &[
            "The page is read, to see that all 512 entries are FREE; it is not written, flushed or cleared.",
        ],
        ..MEM
    },
    Profile {
        leaf: Leaf::SYS_KEY_CONFIG,
        locks: &[ex(L::Global)],
        touches: &[PCONFIG],
        notes: &["Once on every package; the last one makes the module SYS_READY."],
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_INFO,
        operands: &[
            r("RCX", "where TDSYSINFO_STRUCT goes"),
            r("RDX", "its size"),
            r("R8", "where the CMRs go"),
            r("R9", "their number"),
        ],
        results: &[r("RDX", "bytes written"), r("R9", "CMRs written")],
        touches: &[OPERAND_STORES],
        cite: E,
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_INIT,
        operands: &[r("RCX", "attributes: 0")],
        locks: &[ex(L::Global)],
        touches: &[RANDOM],
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_RD,
        operands: &[FIELD],
        results: &[r("RDX", "the next field id"), r("R8", "value")],
        cite: E,
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_LP_INIT,
        locks: &[sh(L::Global)],
        touches: &[RANDOM, INVEPT],
        costs: &[Cost::Seamcall, Cost::Sys, Cost::Invept],
        notes: &["Once on every LP; LPs may do it at the same time."],
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_TDMR_INIT,
        operands: &[r("RCX", "base of the TDMR")],
        results: &[r("RDX", "next address, rounded down to 1 GiB")],
        locks: &[ex(L::Tdmr)],
        touches: &[t(A::Movdir64b, W::Pamt, Key::Global), PAMT_STORES],
        notes: &["1024 entries of 4K pages per call. Different TDMRs run at the same time."],
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_RDALL,
        operands: &[
            r("RDX", "page for the list"),
            r("R8", "field id to begin with; all ones for the first"),
        ],
        results: &[r("R8", "the field id that did not fit; all ones")],
        touches: &[OPERAND_STORES],
        cite: E,
        ..SYS
    },
    Profile {
        leaf: Leaf::MEM_TRACK,
        operands: &[TDR_RCX],
        locks: &[TDR_SH, OP_STATE, ex(L::Epoch)],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDCS_STORES],
        notes: &[
            "Flushes nothing: VCPUs flush when they are entered again, so they must be kicked out.",
        ],
        cite: "architecture.md §7.2, §7.8, §7.9",
        ..MEM
    },
    Profile {
        leaf: Leaf::MEM_RANGE_UNBLOCK,
        operands: &[GPA_TO_ROOT, TDR_RDX],
        results: &[
            r("RCX", "on an error of the entry: the entry"),
            r("RDX", "on an error of the entry: its level and state"),
        ],
        locks: &[TDR_SH, OP_STATE, TREE_EX, ENTRY],
        touches: &[
            PAMT_LOCKS,
            TDR_LOADS,
            TDCS_LOCKS,
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            when(TRACKED, PAMT_LOADS),
            when(TRACKED, TDCS_LOADS),
        ],
        cite: "architecture.md §7.2, §7.8, §7.9",
        ..MEM
    },
    Profile {
        leaf: Leaf::PHYMEM_CACHE_WB,
        operands: &[r("RCX", "0 to start, 1 to go on")],
        locks: &[ex(L::CacheWb), sh(L::Kot)],
        touches: &[t(A::Wbnoinvdp, W::None, Key::None)],
        interrupted: Interrupted::Resumable,
        resume: "call it again with RCX = 1",
        notes: &[
            "Writes back without invalidating: clean lines of the HKID stay in the caches.",
            "Once on every package, between TDH.MNG.VPFLUSHDONE and TDH.MNG.KEY.FREEID.",
        ],
        cite: I,
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::PHYMEM_PAGE_WBINVD,
        operands: &[r(
            "RCX",
            "physical address of a free page, with the KeyID to flush, whichever that is",
        )],
        locks: &[wsh(L::Page)],
        touches: &[PAMT_LOCKS, t(A::Clflushopt, W::Free, Key::Operand)],
        cite: "architecture.md §7.2, §7.9, §13 MC-23",
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::VP_WR,
        operands: &[TDVPR_RCX, r("RDX", "field id"), r("R8", "value"), r("R9", "which bits of it")],
        results: &[r("R8", "the value before")],
        locks: &[wsh(L::Tdvpr), OWNER, OP_STATE],
        touches: &[PAMT_LOCKS, TDR_LOADS, TDCS_LOCKS, TDVPS_LOADS, TDVPS_STORES],
        notes: &["Associates the VCPU with this LP."],
        cite: N,
        ..MNG
    },
    Profile {
        leaf: Leaf::SYS_LP_SHUTDOWN,
        costs: &[Cost::Seamcall],
        notes: &["Does nothing."],
        cite: "architecture.md §7.9, §10.1 D-18",
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_CONFIG,
        operands: &[
            r("RCX", "array of the addresses of TDMR_INFO"),
            r("RDX", "their number, 1 to 64"),
            r("R8", "HKID to be the global one"),
        ],
        locks: &[ex(L::Global)],
        touches: &[OPERAND_LOADS],
        notes: &[
            "No PAMT memory is touched.",
            "The HKID is reserved before the TDMRs are checked, and stays so if they are refused.",
        ],
        ..SYS
    },
    Profile {
        leaf: Leaf::SYS_SHUTDOWN,
        operands: &[r("RCX", "handoff version")],
        locks: &[ex(L::Global)],
        ..SYS
    },
    Profile { leaf: Leaf::SYS_UPDATE, locks: &[ex(L::Global)], ..SYS },
    Profile {
        leaf: Leaf::PHYMEM_PAMT_ADD,
        present: Present::DynamicPamt,
        operands: &[
            r("RCX", "2 MiB block; bits 2:0 level 1"),
            r("RDX", "first PAMT page"),
            r("R8", "second PAMT page"),
        ],
        locks: &[
            wex(L::Page),
            lock_when(
                "for each PAMT page outside the block, where it has a 4K entry",
                wsh(L::Page),
            ),
        ],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            t(A::Locked, W::PamtPages, Key::Global),
            t(A::Movdir64b, W::PamtPages, Key::Global),
        ],
        cite: P,
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::PHYMEM_PAMT_REMOVE,
        present: Present::DynamicPamt,
        operands: &[r("RCX", "2 MiB block; bits 2:0 level 1")],
        results: &[r("RDX", "first PAMT page"), r("R8", "second PAMT page")],
        locks: &[wex(L::Page)],
        touches: &[
            PAMT_LOCKS,
            PAMT_STORES,
            t(A::Load, W::PamtPages, Key::Global),
            t(A::Locked, W::PamtPages, Key::Global),
        ],
        notes: &[
            "The memory of the two pages is read, to see that no entry is in use; it is not written, flushed or cleared.",
        ],
        cite: P,
        ..PHYMEM
    },
    Profile {
        leaf: Leaf::SYS_DISABLE,
        present: Present::SysDisable,
        locks: &[ex(L::Global)],
        touches: &[
            when("the module has pages of TDs", PAMT_LOADS),
            t(A::Movdir64b, W::Everything, Key::Zero),
        ],
        interrupted: Interrupted::Resumable,
        resume: "call it again",
        notes: &[
            "No other SEAMCALL works until the module is initialised again.",
            "Caches are not flushed: WBINVD has to follow.",
            "That it clears with MOVDIR64B under KeyID 0, and in which order, is assumed.",
        ],
        cite: "linux-host-paths.md §16.5",
        ..SYS
    },
];

const TDG: Profile<GuestLeaf> = Profile {
    leaf: GuestLeaf::VP_VMCALL,
    version: 0,
    versions: "",
    present: Present::Always,
    operands: &[],
    results: &[],
    locks: &[],
    touches: &[],
    interrupted: Interrupted::Waits,
    resume: "",
    costs: &[Cost::Exit, Cost::Tdcall, Cost::Enter],
    notes: &[],
    cite: G,
};

/// What every TDCALL touches: the way out of the guest and into it.
const OUT_AND_IN: [TouchRow; 3] = [TDR_LOADS, TDVPS_STORES, TDVPS_LOADS];

/// TDCALL leaves, by number. A leaf that is not modelled has no row. The locks of TDH.VP.ENTER are held all the time.
pub const GUEST_PROFILES: &[Profile<GuestLeaf>] = &[
    Profile {
        leaf: GuestLeaf::VP_VMCALL,
        operands: &[
            r("RCX", "which registers are passed, by number: bits 0, 1, 4 and above 31 are 0"),
            r("RDX, R8-R13", "what the VMM gets in them"),
        ],
        results: &[r("RDX, R8-R13", "what the VMM left in them")],
        touches: &[OUT_AND_IN[0], OUT_AND_IN[1], TDCS_LOCKS, PAMT_LOCKS],
        costs: &[Cost::Exit, Cost::Tdcall],
        notes: &[
            "TDH.VP.ENTER returns with exit reason 77.",
            "MapGPA is sub-function 0x10001: the VMM does it all, the module nothing.",
        ],
        cite: "architecture.md §7.9",
        ..TDG
    },
    Profile {
        leaf: GuestLeaf::VP_INFO,
        results: &[
            r("RCX", "GPA width"),
            r("RDX", "ATTRIBUTES"),
            r("R8", "VCPUs 31:0, MAX_VCPUS 63:32"),
            r("R9", "VCPU index"),
            r("R10", "bit 0: TDG.SYS.RD is there"),
        ],
        touches: &[OUT_AND_IN[0], OUT_AND_IN[1], OUT_AND_IN[2], TDCS_LOADS],
        ..TDG
    },
    Profile {
        leaf: GuestLeaf::VP_VEINFO_GET,
        results: &[
            r("RCX", "exit reason"),
            r("RDX", "exit qualification"),
            r("R8", "guest-linear address: 0"),
            r("R9", "GPA"),
            r("R10", "0"),
        ],
        touches: &[OUT_AND_IN[0], OUT_AND_IN[1], OUT_AND_IN[2]],
        notes: &["Once for each #VE; a #VE before it is asked for becomes a double fault."],
        ..TDG
    },
    Profile {
        leaf: GuestLeaf::MEM_PAGE_ACCEPT,
        operands: &[r("RCX", "GPA; bits 2:0 level 0 or 1")],
        locks: &[ENTRY],
        touches: &[
            OUT_AND_IN[0],
            OUT_AND_IN[1],
            OUT_AND_IN[2],
            SEPT_LOADS,
            SEPT_LOCKS,
            SEPT_STORES,
            t(A::Movdir64b, W::Private, Key::Td),
        ],
        interrupted: Interrupted::Reexecuted,
        resume: "of 2 MiB only, after each 4 KiB: the entry counts, the guest executes the TDCALL again",
        notes: &[
            "The page is zeroed with MOVDIR64B, which is the first write under the TD's HKID.",
        ],
        cite: "architecture.md §7.2, §7.9, §7.11",
        ..TDG
    },
    Profile {
        leaf: GuestLeaf::SYS_RD,
        operands: &[FIELD],
        results: &[r("RDX", "the next field id"), r("R8", "value")],
        touches: &[OUT_AND_IN[0], OUT_AND_IN[1], OUT_AND_IN[2]],
        notes: &[
            "Every field that the host may read, the guest may read too; which ones really is not modelled.",
        ],
        cite: "architecture.md §7.11; intel/tdx-module tdg_sys_rd.c",
        ..TDG
    },
    Profile {
        leaf: GuestLeaf::MEM_PAGE_ATTR_RD,
        operands: &[r("RCX", "GPA")],
        results: &[
            r("RCX", "GPA and level of the page; bit 62 it is pending"),
            r("RDX", "attributes of L2 VMs: 0"),
        ],
        locks: &[until(Until::Moment, ENTRY)],
        touches: &[OUT_AND_IN[0], OUT_AND_IN[1], OUT_AND_IN[2], SEPT_LOADS, SEPT_LOCKS],
        ..TDG
    },
];
