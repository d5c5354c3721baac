//! Leaves, states and structures by name.

use super::*;
use expect_test::{Expect, expect};
use sim_core::tdx::{
    EXIT_REASONS, GUEST_LEAF_CHECKS, GUEST_LEAVES, GuestOutcome, LEAVES, PAGE_TYPES,
};
use std::collections::BTreeSet;
use tdx_module::metadata::metadata_fields;
use tdx_module::op_state::{KOT_STATES, LIFECYCLES, OP_STATES};
use tdx_module::profile::PROFILES;
use tdx_module::sept::{Entry, STATES, State};

fn check(input: &str, expected: Expect) {
    expected.assert_eq(&explain(input).unwrap().to_string());
}

/// What is explained, the first and what comes after it.
fn kinds(input: &str) -> Vec<Kind> {
    let first = explain(input).unwrap_or_else(|e| panic!("{input}: {e}"));
    std::iter::once(first.kind).chain(first.also.iter().map(|e| e.kind)).collect()
}

#[test]
fn a_leaf_of_private_memory() {
    check(
        "tdh_mem_page_aug",
        expect![[r#"
        TDH.MEM.PAGE.AUG = SEAMCALL leaf 6 (0x6): add a page that the guest has to
        accept
          modelled       yes
          version        0
          takes          RCX: GPA; bits 2:0 level 0 or 1
          takes          RDX: TDR page
          takes          R8: page or 2 MiB block to give
          returns        RCX: on an error of the entry: the entry
          returns        RDX: on an error of the entry: its level and state
          module         in SYS_READY: else SYS_NOT_READY or SYS_SHUTDOWN; these and RAX
                         are checked before all else
          OP_STATEs      INITIALIZED, RUNNABLE, LIVE_EXPORT, LIVE_IMPORT
          check          TDX_OPERAND_INVALID | RDX: alignment, KeyID bits, or bits above
                         51
          check          TDX_OPERAND_ADDR_RANGE_ERROR | RDX: outside initialised TDMR
                         memory
          check          TDX_OPERAND_BUSY | RDX: the page's PAMT entry is locked
          check          TDX_PAGE_METADATA_INCORRECT | RDX: the page must be PT_TDR
          check          TDX_TD_FATAL: the TD met a machine check
          check          TDX_TD_KEYS_NOT_CONFIGURED: the TD's life-cycle state is not
                         KEYS_CONFIGURED
          check          TDX_TDCS_NOT_ALLOCATED: fewer than 6 TDCS pages
          check          TDX_OPERAND_BUSY | OP_STATE: the OP_STATE lock is taken
          check          TDX_OP_STATE_INCORRECT: OP_STATE (architecture.md §7.5)
          check          TDX_OPERAND_INVALID | RCX: reserved bits, level, alignment
          check          TDX_OPERAND_INVALID | RCX: the GPA is shared or too wide
          check          TDX_OPERAND_BUSY | SEPT_TREE: the tree lock is taken
          check          TDX_EPT_WALK_FAILED | RCX: the walk ended above the level; RCX
                         and RDX say at which entry
          check          TDX_OPERAND_BUSY | RCX: the entry's lock is taken
          check          TDX_EPT_ENTRY_STATE_INCORRECT | RCX: the entry must be FREE or
                         REMOVED
          check          TDX_OPERAND_INVALID | R8: alignment, KeyID bits, or bits above
                         51
          check          TDX_OPERAND_ADDR_RANGE_ERROR | R8: outside initialised TDMR
                         memory
          check          TDX_OPERAND_BUSY | R8: the page's PAMT entry is locked
          check          TDX_PAGE_METADATA_INCORRECT | R8: the page must be PT_NDA
                         (free), for 2 MiB at all 512 children
          entry states   FREE, REMOVED
          entry          FREE → PENDING: PAGE.AUG
          entry          REMOVED → PENDING: PAGE.AUG
          after failure  a lock with host priority that was taken is kept for the host
          locks          TDR shared (its 2M and 1G entries shared)
          locks          OP_STATE shared
          locks          the Secure-EPT tree shared
          locks          the Secure-EPT entry exclusive
          locks          the operand page's PAMT entry exclusive (its 2M and 1G entries
                         shared)
          touches        locked stores to the PAMT, global HKID
          touches        stores to the PAMT, global HKID
          touches        loads of the TDR, global HKID
          touches        stores to the TDR, global HKID
          touches        locked stores to TDCS, the TD's HKID
          touches        loads of Secure-EPT pages, the TD's HKID
          touches        locked stores to Secure-EPT pages, the TD's HKID
          touches        stores to Secure-EPT pages, the TD's HKID
          touches        loads of the PAMT, global HKID: 2 MiB: the entries of its 512
                         pages
          interrupt      not interruptible: an interrupt waits for SEAMRET
          fixed costs    tdx.cost.seamcall, tdx.cost.mem: all assumed; memory traffic
                         comes on top

        - The page's memory is not read, written, flushed or cleared.

        Sources: architecture.md §7.9; architecture.md §7.1; architecture.md §7.5;
                 architecture.md §7.6; architecture.md §7.2; architecture.md §7.2, §7.9
    "#]],
    );
}

#[test]
fn a_leaf_that_an_interrupt_ends() {
    check(
        "PHYMEM.CACHE.WB",
        expect![[r#"
        TDH.PHYMEM.CACHE.WB = SEAMCALL leaf 40 (0x28): write back the package's caches
          modelled       yes
          version        0
          takes          RCX: 0 to start, 1 to go on
          module         in SYS_READY: else SYS_NOT_READY or SYS_SHUTDOWN; these and RAX
                         are checked before all else
          check          TDX_OPERAND_INVALID | RCX: neither 0 (start) nor 1 (resume)
          check          TDX_OPERAND_BUSY | WBCACHE: another write-back runs on this
                         package
          check          TDX_OPERAND_BUSY | KOT: the key ownership table's lock is taken
          check          TDX_NO_HKID_READY_TO_WBCACHE: no HKID is FLUSHED
          check          TDX_WBCACHE_RESUME_ERROR: nothing to resume
          check          TDX_INTERRUPTED_RESUMABLE: an interrupt is pending; call again
                         with RCX = 1
          after failure  INTERRUPTED_RESUMABLE: how far it came
          locks          the package's write-back mutex exclusive
          locks          the key ownership table shared
          touches        WBNOINVDP of each cache sub-block of the package
          interrupt      INTERRUPTED_RESUMABLE, progress is kept: call it again with RCX
                         = 1
          fixed costs    tdx.cost.seamcall, tdx.cost.phymem: all assumed; memory traffic
                         comes on top

        - Writes back without invalidating: clean lines of the HKID stay in the caches.
        - Once on every package, between TDH.MNG.VPFLUSHDONE and TDH.MNG.KEY.FREEID.

        Sources: architecture.md §7.9; architecture.md §7.1; architecture.md §7.11;
                 architecture.md §7.2, §7.9, §7.11
    "#]],
    );
}

#[test]
fn a_tdcall() {
    check(
        "tdcall 6",
        expect![[r#"
        TDG.MEM.PAGE.ACCEPT = TDCALL leaf 6 (0x6): accept a page
          modelled     yes
          version      0
          takes        RCX: GPA; bits 2:0 level 0 or 1
          check        TDX_OPERAND_INVALID | RAX: reserved bits of RAX
          check        TDX_OPERAND_INVALID | RAX: a version above 0, which only
                       TDG.VM.RD has
          check        TDX_OPERAND_INVALID | RAX: an unknown leaf
          check        TDX_OPERAND_INVALID | RCX: reserved bits, level above 1, or
                       alignment
          check        TDX_OPERAND_INVALID | RCX: the GPA is shared or too wide
          check        TDX_PAGE_ALREADY_ACCEPTED: the walk ends above the level at a
                       leaf that the guest can access; that leaf's level
          check        TD exit, TDX_SUCCESS | exit reason 48 (EPT violation), extended
                       qualification 1: the walk ends above the level for another reason
          check        TDX_OPERAND_BUSY | RCX: the entry's lock is taken, or free but
                       kept for the host
          check        TDX_PAGE_SIZE_MISMATCH: the entry is not a leaf and not FREE; its
                       level
          check        TDX_PAGE_ALREADY_ACCEPTED: the entry is a leaf that the guest can
                       access; its level
          check        TD exit, TDX_SUCCESS | exit reason 48 (EPT violation), extended
                       qualification 1: the entry is neither PENDING nor
                       PENDING_EXPORTED_DIRTY (FREE, blocked, ...)
          check        RIP and RAX unchanged: 2 MiB: an interrupt is pending after a 4
                       KiB chunk; the entry keeps the count
          check        TDX_SUCCESS: otherwise: the page is zeroed and the entry MAPPED
                       (EXPORTED_DIRTY)
          check        TD exit, TDX_HOST_PRIORITY_BUSY_TIMEOUT: the leaf met a lock kept
                       for the host, as every TDCALL of the VCPU for HP_LOCK_TIMEOUT did
          entry        PENDING → MAPPED: ACCEPT
          entry        PENDING_EXPORTED_DIRTY → EXPORTED_DIRTY: ACCEPT
          locks        the Secure-EPT entry exclusive
          touches      loads of the TDR, global HKID
          touches      stores to TDVPS, the TD's HKID
          touches      loads of TDVPS, the TD's HKID
          touches      loads of Secure-EPT pages, the TD's HKID
          touches      locked stores to Secure-EPT pages, the TD's HKID
          touches      stores to Secure-EPT pages, the TD's HKID
          touches      MOVDIR64B to the private page, the TD's HKID
          interrupt    no status: RIP stays, progress is kept: of 2 MiB only, after each
                       4 KiB: the entry counts, the guest executes the TDCALL again
          fixed costs  tdx.cost.exit, tdx.cost.tdcall, tdx.cost.enter: all assumed;
                       memory traffic comes on top

        - The page is zeroed with MOVDIR64B, which is the first write under the TD's
          HKID.
        - TDH.VP.ENTER's shared locks of TDR and TDVPR are held all the time.

        Sources: architecture.md §7.9; architecture.md §7.2, §7.9; intel/tdx-module
                 1.5.01 tdx_td_dispatcher.c; architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT";
                 architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT", §7.11; architecture.md
                 §7.6; architecture.md §7.2, §7.9, §7.11
    "#]],
    );
}

#[test]
fn an_entry_of_the_secure_ept() {
    check(
        "sept 0x80E0000000000000",
        expect![[r#"
        0x80e0000000000000 = Secure-EPT entry in state FREE
          63 SVE        1: an EPT violation leaves the TD instead of raising #VE
          55 TDB        1: blocked; part of the state
          54 TDBW       1: blocked for writing; part of the state
          53 TDEX       1: exported; part of the state
          2:0 RWX       ---
          RCX           0x8000000000000000: what TDH.MEM.SEPT.RD and error details show
                        of it
          guest access  violation
          state in RDX  0: as TDH.MEM.SEPT.RD and error details give it
          tracking      not needed: BLOCK, TRACK and an exit of every VCPU before it is
                        taken away
          goes to       NL_MAPPED: SEPT.ADD
          goes to       MAPPED: PAGE.ADD
          goes to       PENDING: PAGE.AUG
          comes from    MAPPED: PAGE.REMOVE
          comes from    BLOCKED: PAGE.REMOVE
          comes from    BLOCKEDW: PAGE.REMOVE
          comes from    PENDING: PAGE.REMOVE
          comes from    PENDING_BLOCKED: PAGE.REMOVE
          comes from    PENDING_BLOCKEDW: PAGE.REMOVE
          comes from    NL_MAPPED: SEPT.REMOVE
          comes from    NL_BLOCKED: SEPT.REMOVE
          also allows   TDH.MEM.SEPT.RD: which leave it as it is
          ACCEPT        TD exit, EPT violation with extended qualification 1:
                        TDG.MEM.PAGE.ACCEPT at this entry's level

        Sources: architecture.md §7.6; architecture.md §7.9
    "#]],
    );
}

#[test]
fn an_entry_that_is_locked_and_half_accepted() {
    check(
        "sept 0x81100040123018f0",
        expect![[r#"
        0x81100040123018f0 = Secure-EPT entry in state PENDING
          63 SVE        1: an EPT violation leaves the TD instead of raising #VE
          56 TDP        1: pending; part of the state
          52 TDHP       1: the lock is kept for the host, which has tried in vain
          11 TDEL       1: the entry is locked: a leaf is at work on it
          7 PS          1: a leaf; part of the state
          6 IPAT        1: the guest's PAT is ignored; part of the state
          2:0 RWX       ---
          5:3 MT        6: write-back
          51:12 base    0x4012301000: the private page
          20:12         257: of a 2 MiB page: 4 KiB chunks that TDG.MEM.PAGE.ACCEPT has
                        zeroed; of a 4 KiB page they are part of the address
          RCX           0x80000040123010f0: what TDH.MEM.SEPT.RD and error details show
                        of it
          guest access  #VE, or exit if PENDING_VE_DISABLE
          state in RDX  2: as TDH.MEM.SEPT.RD and error details give it
          tracking      needed while the TD may run (OP_STATEs 2, 3, 9): BLOCK, TRACK
                        and an exit of every VCPU before it is taken away
          goes to       MAPPED: ACCEPT
          goes to       PENDING_BLOCKED: RANGE.BLOCK
          goes to       FREE: PAGE.REMOVE
          goes to       REMOVED: PAGE.REMOVE (during import)
          goes to       stays: PAGE.RELOCATE
          goes to       NL_MAPPED: PAGE.DEMOTE
          comes from    FREE: PAGE.AUG
          comes from    REMOVED: PAGE.AUG
          comes from    PENDING_BLOCKED: RANGE.UNBLOCK
          comes from    PENDING_BLOCKED: PAGE.RELOCATE
          comes from    NL_MAPPED: PAGE.PROMOTE (over PENDING)
          comes from    NL_BLOCKED: PAGE.PROMOTE (over PENDING)
          also allows   TDH.MEM.SEPT.RD: which leave it as it is
          ACCEPT        accepted: TDG.MEM.PAGE.ACCEPT at this entry's level

        Sources: architecture.md §7.6; architecture.md §7.9
    "#]],
    );
}

#[test]
fn a_state_by_name() {
    check(
        "sept BLOCKED",
        expect![[r#"
        BLOCKED = state of a Secure-EPT entry, code 0x68
          state bits    0x00800000000000c0
          guest access  violation
          state in RDX  1: as TDH.MEM.SEPT.RD and error details give it
          tracking      needed while the TD may run (OP_STATEs 2, 3, 9): BLOCK, TRACK
                        and an exit of every VCPU before it is taken away
          goes to       MAPPED: RANGE.UNBLOCK
          goes to       FREE: PAGE.REMOVE
          goes to       REMOVED: PAGE.REMOVE (during import)
          goes to       MAPPED: PAGE.RELOCATE
          goes to       NL_MAPPED: PAGE.DEMOTE
          comes from    MAPPED: RANGE.BLOCK
          comes from    BLOCKEDW: RANGE.BLOCK
          also allows   TDH.MEM.SEPT.RD: which leave it as it is
          ACCEPT        TD exit, EPT violation with extended qualification 1:
                        TDG.MEM.PAGE.ACCEPT at this entry's level

        Sources: architecture.md §7.6; architecture.md §7.9
    "#]],
    );
    check(
        "op-state RUNNABLE",
        expect![[r#"
        RUNNABLE = OP_STATE 2, kept in TDCS
          TLB tracking  enforced: BLOCK and TRACK before a translation is taken away
          allows        TDH.VP.ENTER, TDH.MEM.SEPT.ADD, TDH.MEM.PAGE.RELOCATE,
                        TDH.MEM.PAGE.AUG, TDH.MEM.RANGE.BLOCK, TDH.MEM.RD, TDH.MEM.WR,
                        TDH.MEM.PAGE.DEMOTE, TDH.MEM.PAGE.PROMOTE, TDH.MEM.SEPT.RD,
                        TDH.MEM.PAGE.REMOVE, TDH.MEM.SEPT.REMOVE, TDH.MEM.TRACK,
                        TDH.MEM.RANGE.UNBLOCK
          refuses       TDH.MNG.ADDCX, TDH.MEM.PAGE.ADD, TDH.VP.ADDCX, TDH.VP.CREATE,
                        TDH.MR.EXTEND, TDH.MR.FINALIZE, TDH.MNG.INIT, TDH.VP.INIT:
                        OP_STATE_INCORRECT
          reached       by TDH.MR.FINALIZE

        Sources: architecture.md §7.5
    "#]],
    );
    check(
        "lifecycle BLOCKED",
        expect![[r#"
        BLOCKED = life-cycle state 2 of a TD, kept in its TDR
          reached by  TDH.MNG.VPFLUSHDONE: HKID ASSIGNED → FLUSHED, TD HKID_ASSIGNED or
                      KEYS_CONFIGURED → BLOCKED; no VCPU is associated with an LP
          left by     TDH.MNG.KEY.FREEID: HKID FLUSHED → FREE, TD BLOCKED → TEARDOWN;
                      TDH.PHYMEM.CACHE.WB has run on every package

        - Leaves that check STATE return TDX_TD_KEYS_NOT_CONFIGURED.

        Sources: architecture.md §7.5 "Step"; architecture.md §7.5, §7.7
    "#]],
    );
    check(
        "kot flushed",
        expect![[r#"
        FLUSHED = state 2 of an HKID in the key ownership table
          reached by  TDH.MNG.VPFLUSHDONE: HKID ASSIGNED → FLUSHED, TD HKID_ASSIGNED or
                      KEYS_CONFIGURED → BLOCKED; no VCPU is associated with an LP
          left by     TDH.MNG.KEY.FREEID: HKID FLUSHED → FREE, TD BLOCKED → TEARDOWN;
                      TDH.PHYMEM.CACHE.WB has run on every package

        - Dirty lines of the HKID may still be in caches: TDH.PHYMEM.CACHE.WB on every
          package clears the bitmap that TDH.MNG.KEY.FREEID looks at.

        Sources: architecture.md §7.5 "Step"; architecture.md §7.5
    "#]],
    );
    check(
        "SYS_READY",
        expect![[r#"
        SYS_READY = state 3 of the TDX module
          reached by  the last TDH.SYS.KEY.CONFIG, or TDH.SYS.UPDATE
          next        TDH.SYS.TDMR.INIT until every TDMR is done, then TDs
          serves      every leaf

        Sources: architecture.md §7.1
    "#]],
    );
}

#[test]
fn a_page_type_an_exit_reason_and_a_field() {
    check(
        "PT_TDR",
        expect![[r#"
        PT_TDR = page type 4 of the PAMT: root of a TD
          memory under   the global HKID
          filled by      TDH.MNG.CREATE; 64 MOVDIR64B of zeros
          given back by  TDH.PHYMEM.PAGE.RECLAIM, the last page of its TD: none of them
                         clears or flushes the page

        Sources: architecture.md §7.4 "PT codes"; architecture.md §7.4, §7.5
    "#]],
    );
    check(
        "exit 48",
        expect![[r#"
        48 = exit reason of TDH.VP.ENTER: EPT violation
          SharedViolation   TD exit, TDX_SUCCESS | exit reason 48 (EPT violation)
          PrivateViolation  the module looks closer: it answers the TDCALL, injects #VE,
                            or lets the TD exit

        Sources: intel/tdx-module td_ept_violation.c; architecture.md §7.6 "guest
                 access"; architecture.md §7.11 "Exit reasons used"
    "#]],
    );
    check(
        "field HP_LOCK_TIMEOUT",
        expect![[r#"
        HP_LOCK_TIMEOUT = metadata field 0x9110000300000011
          of        a TD: TDH.MNG.RD, TDH.MNG.WR
          bytes     8
          the host  reads all, writes all

        Sources: intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c
    "#]],
    );
    check(
        "field 0x2016",
        expect![[r#"
        posted-interrupt descriptor address = metadata field 0x0024000300002016
          of        a VCPU: TDH.VP.RD, TDH.VP.WR
          bytes     8
          the host  reads all, writes 0xffffffffffffffc0

        Sources: intel/tdx-module td_vmcs_fields_lookup.c
    "#]],
    );
}

#[test]
fn every_leaf_is_explained_by_name_in_every_spelling_and_by_number() {
    for (table, keyword) in [(LEAVES, "seamcall"), (GUEST_LEAVES, "tdcall")] {
        for row in table {
            let by_name = explain(row.name).unwrap();
            assert!(by_name.headline.starts_with(row.name), "{}", by_name.headline);
            let number = format!("{keyword} {}", row.number);
            let spellings = [
                row.name.replace('.', "_"),
                row.name.to_lowercase(),
                row.name.replace('.', "-").to_lowercase(),
                format!("{keyword} {}", row.name),
                format!("leaf={}", row.name),
                format!("{keyword} {:#x}", row.number),
                number,
            ];
            for spelling in spellings {
                let found = explain(&spelling).unwrap_or_else(|e| panic!("{spelling}: {e}"));
                assert_eq!(found, by_name, "{spelling}");
            }
        }
    }
    // Without TDH or TDG a name may be that of two leaves.
    assert_eq!(kinds("vp.enter"), [Kind::Leaf, Kind::Leaf]);
    assert_eq!(kinds("mem_page_accept"), [Kind::Leaf]);
}

#[test]
fn a_modelled_leaf_says_all_that_its_row_says() {
    for p in PROFILES {
        let name = p.leaf.to_string();
        let all = explain(&name).unwrap();
        let count = |field: &str| all.fields.iter().filter(|f| f.name == field).count();
        assert_eq!(count("takes"), p.operands.len(), "{name}");
        assert_eq!(count("returns"), p.results.len(), "{name}");
        assert_eq!(count("locks"), p.locks.len().max(1), "{name}");
        assert_eq!(count("touches"), p.touches.len().max(1), "{name}");
        let checks = p.leaf.checks().map_or(&[][..], |row| row.checks);
        assert_eq!(
            count("check"),
            checks.iter().map(|c| c.returns().len()).sum::<usize>(),
            "{name}"
        );
        assert_eq!(count("interrupt"), 1, "{name}");
    }
}

#[test]
fn a_leaf_that_is_not_modelled_says_so() {
    for name in ["TDH.EXPORT.MEM", "TDG.MR.REPORT"] {
        let all = explain(name).unwrap();
        let modelled = all.fields.iter().find(|f| f.name == "modelled").unwrap();
        assert_eq!(modelled.value, "no", "{name}");
    }
    let written = explain("TDH.MEM.SEPT.WR").unwrap();
    assert!(written.fields.iter().any(|f| f.meaning.contains("OPERAND_INVALID|RAX")));
}

#[test]
fn every_state_page_type_exit_reason_and_field_is_explained() {
    for row in &STATES {
        assert!(kinds(&format!("sept {}", row.name)).contains(&Kind::SeptState), "{}", row.name);
        assert!(kinds(row.name).contains(&Kind::SeptState), "{}", row.name);
        let entry = Entry::leaf(row.state, sim_core::Page(0x1234));
        let all = explain(&format!("sept {:#x}", entry.0)).unwrap();
        assert!(all.headline.ends_with(&format!("in state {}", row.name)), "{}", all.headline);
    }
    for row in OP_STATES {
        assert_eq!(kinds(&format!("op_state {}", row.state.code())), [Kind::OpState]);
        assert!(kinds(row.name).contains(&Kind::OpState), "{}", row.name);
    }
    for row in LIFECYCLES {
        assert_eq!(kinds(&format!("lifecycle {}", row.state.code())), [Kind::Lifecycle]);
        assert!(kinds(row.name).contains(&Kind::Lifecycle), "{}", row.name);
    }
    for row in KOT_STATES {
        assert_eq!(kinds(&format!("kot {}", row.state.code())), [Kind::KotState]);
        assert!(kinds(row.name).contains(&Kind::KotState), "{}", row.name);
    }
    for row in PAGE_TYPES {
        assert_eq!(kinds(&format!("pt {}", row.code)), [Kind::PageType]);
        assert_eq!(kinds(row.name), [Kind::PageType]);
    }
    for row in EXIT_REASONS {
        assert_eq!(kinds(&format!("exit {}", row.number)), [Kind::ExitReason]);
    }
    for row in metadata_fields() {
        let by_id = explain(&format!("field {:#x}", row.id)).unwrap();
        let all = std::iter::once(&by_id).chain(&by_id.also);
        let names: BTreeSet<&str> = all.map(|e| e.headline.as_str()).collect();
        assert!(names.iter().any(|h| h.starts_with(row.name)), "{}: {names:?}", row.name);
    }
}

#[test]
fn a_name_of_several_things_is_explained_as_each() {
    assert_eq!(kinds("BLOCKED"), [Kind::SeptState, Kind::Lifecycle]);
    assert_eq!(kinds("FREE"), [Kind::SeptState, Kind::KotState]);
    // A status, a leaf and a state of the module.
    assert_eq!(kinds("SYS_SHUTDOWN"), [Kind::SeamcallStatus, Kind::Leaf, Kind::ModuleState]);
}

#[test]
fn what_a_word_of_its_kind_may_not_be_followed_by_is_refused() {
    for (input, found) in [
        ("seamcall 46", "46"),
        ("seamcall 0x1000006", "0x1000006"),
        ("tdcall TDH.MEM.PAGE.AUG", "TDH.MEM.PAGE.AUG"),
        ("sept RUNNABLE", "RUNNABLE"),
        ("op-state 11", "11"),
        ("exit 3", "3"),
        ("field 0x3f00000000abcdef", "0x3f00000000abcdef"),
        ("kot -1", "-1"),
    ] {
        let error = explain(input).unwrap_err();
        assert!(matches!(&error, ExplainError::Subject { found: f, .. } if f == found), "{error}");
    }
}

#[test]
fn a_status_names_the_tdcalls_that_return_it() {
    for row in GUEST_LEAF_CHECKS {
        for check in row.checks {
            let (GuestOutcome::Returns(status) | GuestOutcome::Exits { rax: status, .. }) =
                check.outcome
            else {
                continue;
            };
            let all = explain(&format!("{:#x}", status.0));
            // Plain success is every leaf's.
            let Ok(all) = all else { panic!("{status}") };
            let named = all.fields.iter().any(|f| {
                f.name == "in a guest"
                    && f.value == row.leaf.to_string()
                    && f.meaning.contains(check.when)
            });
            assert!(named, "{status}: {} {}", row.leaf, check.when);
        }
    }
}

#[test]
fn an_entry_without_a_state_is_called_what_it_is() {
    // TDB and TDBW without TDEX, in a leaf.
    let entry = Entry::leaf(State::Mapped, sim_core::Page(1)).0 | Entry::TDB | Entry::TDBW;
    let all = explain(&format!("sept {entry:#x}")).unwrap();
    assert!(all.headline.contains("no Secure-EPT entry"), "{}", all.headline);
    assert!(all.notes.iter().any(|note| note.contains("gives itself up")));
}

#[test]
fn nothing_that_is_explained_by_name_is_wider_than_eighty_columns() {
    let leaves = LEAVES.iter().chain(GUEST_LEAVES).map(|r| r.name.to_owned());
    let states = STATES.iter().map(|r| r.name.to_owned());
    let others = OP_STATES.iter().map(|r| r.name.to_owned());
    for input in leaves.chain(states).chain(others) {
        for line in explain(&input).unwrap().to_string().lines() {
            assert!(line.chars().count() <= 80, "{input}: {line}");
        }
    }
}
