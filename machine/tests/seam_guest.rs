//! Guests: how a VCPU's addresses become lines, and what stops it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use sim_core::outcome::DataClass;
use sim_core::platform::IntegrityMode;
use sim_core::tdx::{GuestLeaf, Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Op, Outcome, Page};
use tdx_common::{
    Config, FUNCTIONAL, HKID_A, HKID_B, IMAGE_WORD, LEVELS_4, LEVELS_5, Rig, SEPT_VE_DISABLE,
    TIMED, Td, Vcpu, configs, running, spr, status_of,
};

/// Field of TDH.VP.WR: the shared EPTP (intel/tdx-module td_vmcs_fields_lookup.c).
const SHARED_EPTP: u64 = 0x0024_0003_0000_203c;
/// The SHARED bit of a GPA width of 48.
const SHARED: u64 = 1 << 47;

/// A TD whose first `pages` guest pages are added, a VCPU of it in the TD on core 1, and where the pages are.
fn with_pages(config: Config, pages: u64) -> (Rig, Td, Vcpu, Vec<u64>) {
    let (mut rig, _) = running(config);
    let td = rig.td(HKID_B, 0, LEVELS_4);
    let vcpu = rig.vcpu(&td);
    rig.sept(&td, 0, 0);
    let hpas = (0..pages).map(|i| rig.add_page(&td, i << 12)).collect();
    rig.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
    rig.enter(1, vcpu);
    (rig, td, vcpu, hpas)
}

#[track_caller]
fn accept(rig: &mut Rig, vcpu: Vcpu, gpa: u64) {
    let answer = rig.tdcall(vcpu, GuestLeaf::MEM_PAGE_ACCEPT, gpa);
    assert_eq!(status_of(answer), Status::SUCCESS);
}

#[test]
fn a_guests_stores_go_through_its_secure_ept_under_its_hkid_and_nobody_else_sees_them() {
    for config in configs() {
        let (mut rig, _, vcpu, pages) = with_pages(config, 2);
        for (text, outcome) in [
            ("store [0x8] 8 0xabcd", "done"),
            ("lock-xadd [0x8] 8 1", "data 0xabcd"),
            ("load [0x8] 8", "data 0xabce"),
            ("movnti [0x10] 8 0x77", "done"),
            ("sfence", "done"),
            ("load [0x10] 8", "data 0x77"),
            ("movdir64b [0x1000] fill=0x31", "done"),
            ("movdir64b [0x1040] [0x1000]", "done"),
            ("mfence", "done"),
            ("load [0x1040] 2", "data 0x3131"),
            ("rep-stosb [0x1080] 128 fill=0x7", "done"),
            ("load [0x10f8] 2", "data 0x0707"),
            ("fetch [0x1000]", "done"),
            ("movdir64b [0x1001] fill=0x31", "gp misaligned"),
            ("wbinvd", "ve"),
            ("clflush [0x8]", "done"),
        ] {
            assert_eq!(rig.says(vcpu, text), outcome, "{config:?} {text}");
        }
        assert_eq!(rig.seen(pages[0] + 8, HKID_B), 0xabce);
        assert_eq!(rig.host_reads(0, pages[0] + 8), (DataClass::Blocked, 0));
    }
}

#[test]
fn an_access_that_crosses_into_another_page_went_on_in_the_next_host_page() {
    // Guest pages 0 and 1 lie in host pages that do not follow each other.
    for config in configs() {
        let (mut rig, run) = running(config);
        let td = rig.td(HKID_B, 0, LEVELS_4);
        let vcpu = rig.vcpu(&td);
        rig.sept(&td, 0, 0);
        let (second, first, third) = (rig.page(), rig.page(), rig.page());
        for (gpa, hpa) in [(0, first), (0x1000, second), (0x2000, third)] {
            rig.ok(0, Leaf::MEM_PAGE_ADD, [gpa, td.tdr, hpa, tdx_common::IMAGE]);
        }
        rig.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
        rig.enter(1, vcpu);
        // The last word of a page is 511, the first of the next IMAGE_WORD.
        let crossing = [
            ("load [0xffc] 8", "data 0x5566778800000000"),
            ("store [0xffe] 8 0x8877665544332211", "done"),
            ("load [0xffe] 8", "data 0x8877665544332211"),
            ("lock-xadd [0xffe] 8 1", "data 0x8877665544332211"),
            ("load [0xffe] 4", "data 0x44332212"),
            ("movdiri [0xffa] 8 0x1111222233334444", "done"),
            ("sfence", "done"),
            ("load [0xffa] 8", "data 0x1111222233334444"),
            ("rep-stosb [0xff0] 4128 fill=0x9", "done"),
            ("load [0xfff] 2", "data 0x0909"),
            ("load [0x1fff] 2", "data 0x0909"),
            ("load [0x2008] 8", "data 0x0909090909090909"),
            ("movdir64b [0x40] [0xfe0]", "done"),
            ("mfence", "done"),
            ("load [0x78] 8", "data 0x0909090909090909"),
        ];
        for (text, outcome) in crossing {
            assert_eq!(rig.says(vcpu, text), outcome, "{config:?} {text}");
        }
        // What lies behind the first page in memory is the third of the guest, its first bytes set by the string.
        assert_eq!(rig.seen(first + 0xff8, HKID_B), 0x0909_0909_0909_0909);
        assert_eq!(rig.seen(third + 16, HKID_B), 2);
        assert_eq!(rig.seen(run.page, HKID_A), IMAGE_WORD);
        // The second page is not there: neither half is done.
        let outcome = rig.says(vcpu, "store [0x2ffc] 8 0xffffffffffffffff");
        assert_eq!(outcome, "td-exit 48 gpa=0x3000");
        assert_eq!(rig.seen(third + 0xff8, HKID_B), 511);
        rig.assert_sound();
    }
}

#[test]
fn a_pending_page_is_a_ve_once_and_a_double_fault_when_nobody_asked_why() {
    // architecture.md §7.6 "guest access".
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.aug(&run.td, 0x1000);
        let vcpu = run.vcpus[0];
        rig.enter(1, vcpu);
        assert_eq!(rig.says(vcpu, "load [0x1008] 8"), "ve");
        assert_eq!(rig.says(vcpu, "load [0x1008] 8"), "double-fault");
        let Outcome::Call(info) = rig.tdcall(vcpu, GuestLeaf::VP_VEINFO_GET, 0) else { panic!() };
        // Exit reason, and the address.
        assert_eq!((info.status, info.out[0], info.out[3]), (Status::SUCCESS, 48, 0x1008));
        assert_eq!(rig.says(vcpu, "store [0x1010] 8 1"), "ve");
        accept(&mut rig, vcpu, 0x1000);
        assert_eq!(rig.says(vcpu, "load [0x1008] 8"), "zeros");
        let twice = rig.tdcall(vcpu, GuestLeaf::MEM_PAGE_ACCEPT, 0x1000);
        assert_eq!(status_of(twice).code(), Status::PAGE_ALREADY_ACCEPTED);
    }
}

#[test]
fn with_sept_ve_disable_a_pending_page_is_an_exit_of_its_own_kind() {
    // architecture.md §7.6, §7.11: extended exit qualification 6.
    for config in configs() {
        let (mut rig, _) = running(config);
        let run = rig.running(HKID_B, SEPT_VE_DISABLE, 1);
        rig.aug(&run.td, 0x1000);
        rig.enter(1, run.vcpus[0]);
        assert_eq!(rig.says(run.vcpus[0], "load [0x1008] 8"), "td-exit 48 gpa=0x1008");
        let result = rig.returned(1);
        assert_eq!(result.status, Status(48));
        // RCX: a read. RDX: pending. R8: the page.
        assert_eq!((result.out[0] & 7, result.out[1], result.out[2]), (1, 6, 0x1000));
    }
}

#[test]
fn a_missing_page_leaves_the_td_and_the_instruction_runs_again_after_the_host_has_given_one() {
    for config in configs() {
        let (mut rig, run) = running(config);
        let vcpu = run.vcpus[0];
        rig.enter(1, vcpu);
        assert_eq!(rig.says(vcpu, "store [0x5010] 8 7"), "td-exit 48 gpa=0x5010");
        let result = rig.returned(1);
        assert_eq!((result.status, result.out[0] & 7, result.out[2]), (Status(48), 2, 0x5000));
        assert_eq!(rig.says(vcpu, "load [0x0] 8"), "not-run not-entered");
        rig.aug(&run.td, 0x5000);
        rig.enter(1, vcpu);
        accept(&mut rig, vcpu, 0x5000);
        assert_eq!(rig.says(vcpu, "store [0x5010] 8 7"), "done");
        assert_eq!(rig.says(vcpu, "load [0x5010] 8"), "data 0x07");
    }
}

#[test]
fn two_mebibytes_are_accepted_at_once_and_mapped_by_one_entry() {
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        let large = rig.block(2 << 20);
        rig.sept(&run.td, 0x20_0000, 1);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [0x20_0000 | 1, run.td.tdr, large, 0]);
        let vcpu = run.vcpus[0];
        rig.enter(1, vcpu);
        assert_eq!(rig.says(vcpu, "load [0x345678] 8"), "ve");
        rig.tdcall(vcpu, GuestLeaf::VP_VEINFO_GET, 0);
        let small = rig.tdcall(vcpu, GuestLeaf::MEM_PAGE_ACCEPT, 0x34_5000);
        assert!(matches!(small, Outcome::TdExit { .. }), "{small}");
        rig.returned(1);
        rig.enter(1, vcpu);
        accept(&mut rig, vcpu, 0x20_0000 | 1);
        assert_eq!(rig.says(vcpu, "store [0x345678] 8 0x42"), "done");
        assert_eq!(rig.seen(large + 0x14_5678, HKID_A), 0x42);
        for page in [0u64, 255, 511] {
            let line = large + (page << 12);
            assert_eq!(rig.writer(line), Some(HKID_A));
        }
        assert_eq!(rig.says(vcpu, "load [0x3ffff8] 8"), "zeros");
        assert_eq!(rig.says(vcpu, "load [0x400000] 8"), "td-exit 48 gpa=0x400000");
    }
}

#[test]
fn a_secure_ept_of_five_levels_maps_what_four_cannot_reach() {
    for config in [FUNCTIONAL, TIMED] {
        let mut spec = spr(config.integrity);
        spec.keyid.maxpa = 52;
        let mut rig = Rig::ready(&spec, config);
        let td = rig.td(HKID_B, 0, LEVELS_5);
        let vcpu = rig.vcpu(&td);
        let far = 0x3_1234_5678_9000;
        assert_eq!(rig.sept(&td, far, 0).len(), 4);
        let page = rig.add_page(&td, far);
        rig.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
        rig.enter(1, vcpu);
        let load = format!("load [{:#x}] 8", far);
        // The simulator's own text holds addresses below 2^46 only.
        let op =
            Op::Load { at: Addr::new(Hpa(far), KeyId(0)), bytes: 8, ty: sim_core::op::MemType::Wb };
        let outcome = rig.execute(vcpu.agent, &op);
        assert_eq!(tdx_common::loaded(outcome), (DataClass::Plain, IMAGE_WORD), "{load}");
        assert_eq!(rig.seen(page, HKID_B), IMAGE_WORD);
    }
}

// ------------------------------------------------------------------------------------------------------ shared memory

/// An operation at an address with the SHARED bit.
fn shared_load(gpa: u64) -> Op {
    let at = Addr::new(Hpa(SHARED | gpa), KeyId(0));
    Op::Load { at, bytes: 8, ty: sim_core::op::MemType::Wb }
}
fn shared_store(gpa: u64, value: u64) -> Op {
    let at = Addr::new(Hpa(SHARED | gpa), KeyId(0));
    let value = sim_core::op::Value::Num(value);
    Op::Store { at, bytes: 8, value, ty: sim_core::op::MemType::Wb }
}

/// The VMM's EPT for shared addresses: tables at 16 KiB from here, all entries written with stores.
const EPT: u64 = 0x1_9200_0000;
/// What it maps.
const BUFFER: u64 = 0x1_9300_0000;
/// R, W, X, WB.
const EPT_RWX_WB: u64 = 7 | 6 << 3;

/// Writes an EPT whose entry for SHARED + 0 at level 1 is `leaf`; the root's address.
fn build_ept(rig: &mut Rig, leaf: u64) -> u64 {
    let tables: [u64; 4] = std::array::from_fn(|i| EPT + 0x1000 * i as u64);
    for table in tables {
        for i in 0..512 {
            rig.poke(table + 8 * i, 0);
        }
    }
    // Bit 47 is the highest bit of the index of the fourth level.
    rig.poke(tables[0] + 8 * 256, tables[1] | 7);
    rig.poke(tables[1], tables[2] | 7);
    rig.poke(tables[2], tables[3] | 7);
    rig.poke(tables[3], leaf);
    tables[0]
}

/// A TD that runs on core 1, with this leaf in its shared EPT.
fn with_shared(config: Config, leaf: u64) -> (Rig, tdx_common::Running) {
    let (mut rig, run) = running(config);
    let root = build_ept(&mut rig, leaf);
    rig.ok(1, Leaf::VP_WR, [run.vcpus[0].tdvpr, SHARED_EPTP, root, u64::MAX]);
    rig.enter(1, run.vcpus[0]);
    (rig, run)
}

#[test]
fn a_shared_address_goes_through_the_vmms_ept_and_both_see_the_same_bytes() {
    // architecture.md §2.5 row "TD, shared GPA".
    for config in configs() {
        let (mut rig, run) = with_shared(config, BUFFER | EPT_RWX_WB);
        let vcpu = run.vcpus[0].agent;
        rig.poke(BUFFER + 16, 0x1234);
        assert_eq!(tdx_common::loaded(rig.execute(vcpu, &shared_load(16))).1, 0x1234);
        assert_eq!(rig.execute(vcpu, &shared_store(24, 0x777)), Outcome::Done);
        assert_eq!(rig.host_reads(0, BUFFER + 24), (DataClass::Plain, 0x777));
        // The private page of the same number is another one.
        assert_eq!(rig.reads(run.vcpus[0], "load [0x0] 8"), (DataClass::Plain, IMAGE_WORD));
        let fetch = Op::Fetch { at: Addr::new(Hpa(SHARED), KeyId(0)) };
        assert_eq!(rig.execute(vcpu, &fetch), Outcome::PageFaultRsvd);
        // Not mapped: the VMM's business.
        let outcome = rig.execute(vcpu, &shared_load(0x5000));
        assert_eq!(outcome.to_string(), format!("td-exit 48 gpa={:#x}", SHARED | 0x5000));
        assert_eq!(rig.returned(1).status, Status(48));
    }
}

#[test]
fn without_a_shared_ept_a_shared_address_leaves_the_td() {
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.enter(1, run.vcpus[0]);
        let outcome = rig.execute(run.vcpus[0].agent, &shared_load(8));
        assert_eq!(outcome.to_string(), format!("td-exit 48 gpa={:#x}", SHARED | 8));
    }
}

#[test]
fn private_keyid_bits_and_malformed_entries_of_the_shared_ept_are_exit_49() {
    // architecture.md §2.5: EPT misconfiguration, TDX_SUCCESS and exit reason 49.
    for config in [FUNCTIONAL, TIMED] {
        let bits = spr(IntegrityMode::Ci).keyid.address_bits();
        let private = BUFFER | u64::from(HKID_A) << bits | EPT_RWX_WB;
        let beyond = BUFFER | 1 << 46 | EPT_RWX_WB;
        let write_only = BUFFER | 2 | 6 << 3;
        for leaf in [private, beyond, write_only] {
            let (mut rig, run) = with_shared(config, leaf);
            let outcome = rig.execute(run.vcpus[0].agent, &shared_load(8));
            assert_eq!(outcome.to_string(), format!("td-exit 49 gpa={:#x}", SHARED | 8));
            let result = rig.returned(1);
            assert_eq!((result.status, result.out[2]), (Status(49), SHARED));
            // The TD is not harmed.
            rig.enter(1, run.vcpus[0]);
            assert_eq!(rig.reads(run.vcpus[0], "load [0x0] 8").1, IMAGE_WORD);
        }
    }
}

#[test]
fn the_shared_epts_root_and_pages_may_lie_under_a_shared_keyid() {
    for config in configs() {
        let (mut rig, run) = running(config);
        let bits = rig.m.spec().keyid.address_bits();
        // Tables and buffer under KeyID 5.
        let key = 5u64 << bits;
        for (table, index, entry) in [
            (EPT, 256, (EPT + 0x1000) | key | 7),
            (EPT + 0x1000, 0, (EPT + 0x2000) | key | 7),
            // A page of 2 MiB.
            (EPT + 0x2000, 0, (BUFFER & !0x1f_ffff) | key | EPT_RWX_WB | 1 << 7),
        ] {
            rig.cpu(0, &format!("store [{:#x}@5] 8 {entry:#x}", table + 8 * index));
        }
        let large = BUFFER & !0x1f_ffff;
        rig.cpu(0, &format!("store [{:#x}@5] 8 0xfeed", large + 0x12_3458));
        rig.ok(1, Leaf::VP_WR, [run.vcpus[0].tdvpr, SHARED_EPTP, EPT | key, u64::MAX]);
        rig.enter(1, run.vcpus[0]);
        let outcome = rig.execute(run.vcpus[0].agent, &shared_load(0x12_3458));
        assert_eq!(tdx_common::loaded(outcome), (DataClass::Plain, 0xfeed), "{config:?}");
    }
}

#[test]
fn a_poisoned_entry_of_the_shared_ept_is_met_by_the_walk_as_the_platform_says() {
    // architecture.md §13 MC-07.
    for shutdown in [true, false] {
        let mut spec = spr(IntegrityMode::Ci);
        spec.tdx.walk_poison_shutdown = shutdown;
        let mut rig = Rig::ready(&spec, FUNCTIONAL);
        let run = rig.running(HKID_A, 0, 1);
        let root = build_ept(&mut rig, BUFFER | EPT_RWX_WB);
        rig.ok(1, Leaf::VP_WR, [run.vcpus[0].tdvpr, SHARED_EPTP, root, u64::MAX]);
        rig.wbinvd();
        rig.hw(&format!("inject-ue [{:#x}]", EPT + 0x3000));
        rig.enter(1, run.vcpus[0]);
        let outcome = rig.execute(run.vcpus[0].agent, &shared_load(0));
        assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{outcome}");
        assert_eq!(rig.m.is_tdx_disabled(), shutdown);
        assert_eq!(rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().fatal, !shutdown);
    }
}

// --------------------------------------------------------------------------------------------------- the guest's tables

/// Guest page-table bits.
const P_RW: u64 = 3;
const XD: u64 = 1 << 63;

/// A guest with tables in its pages 1 to 4 (CR3 is 0x1000): linear 0x0 to 0x7fff is identical.
fn with_tables(config: Config) -> (Rig, Vcpu, Vec<u64>) {
    let (mut rig, _, vcpu, pages) = with_pages(config, 8);
    for table in 1..=4u64 {
        let bytes = format!("rep-stosb [{:#x}] 4096 fill=0x0", table << 12);
        assert_eq!(rig.says(vcpu, &bytes), "done");
    }
    for (at, entry) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000u64)] {
        rig.guest(vcpu, &format!("store [{at:#x}] 8 {:#x}", entry | P_RW));
    }
    for i in 0..8u64 {
        rig.guest(vcpu, &format!("store [{:#x}] 8 {:#x}", 0x4000 + 8 * i, i << 12 | P_RW));
    }
    assert_eq!(rig.says(vcpu, "mov-cr3 0x1000"), "done");
    (rig, vcpu, pages)
}

/// The guest writes an entry of its tables through the identical mapping, and forgets its translation.
fn set_entry(rig: &mut Rig, vcpu: Vcpu, at: u64, entry: u64, linear: u64) {
    assert_eq!(rig.says(vcpu, &format!("store [{at:#x}] 8 {entry:#x}")), "done");
    assert_eq!(rig.says(vcpu, &format!("invlpg [{linear:#x}]")), "done");
}

#[test]
fn a_guests_own_tables_are_walked_through_its_private_ept() {
    for config in configs() {
        let (mut rig, vcpu, pages) = with_tables(config);
        assert_eq!(rig.reads(vcpu, "load [0x5000] 8").1, IMAGE_WORD);
        // Linear page 6 now is page 7.
        rig.guest(vcpu, "store [0x7008] 8 0x1777");
        set_entry(&mut rig, vcpu, 0x4030, 0x7000 | P_RW, 0x6000);
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 0x1777);
        assert_eq!(rig.says(vcpu, "store [0x6010] 8 0x88"), "done");
        assert_eq!(rig.seen(pages[7] + 16, HKID_B), 0x88);
        // Nothing at 2 MiB, at 1 GiB and at 512 GiB.
        for linear in [0x20_0000u64, 0x4000_0000, 0x80_0000_0000] {
            assert_eq!(rig.says(vcpu, &format!("load [{linear:#x}] 8")), "page-fault");
        }
    }
}

#[test]
fn rights_of_a_guests_tables_are_page_faults_of_its_own() {
    for config in configs() {
        let (mut rig, vcpu, _) = with_tables(config);
        // Read-only.
        set_entry(&mut rig, vcpu, 0x4028, 0x5000 | 1, 0x5000);
        assert_eq!(rig.says(vcpu, "store [0x5000] 8 1"), "page-fault");
        assert_eq!(rig.reads(vcpu, "load [0x5000] 8").1, IMAGE_WORD);
        assert_eq!(rig.says(vcpu, "store [0x5000] 8 1"), "page-fault", "from the TLB as well");
        // Execute disabled.
        set_entry(&mut rig, vcpu, 0x4028, 0x5000 | P_RW | XD, 0x5000);
        assert_eq!(rig.says(vcpu, "fetch [0x5000]"), "page-fault");
        assert_eq!(rig.says(vcpu, "store [0x5000] 8 1"), "done");
        assert_eq!(rig.says(vcpu, "fetch [0x5000]"), "page-fault");
        // Not present.
        set_entry(&mut rig, vcpu, 0x4028, 0x5000, 0x5000);
        assert_eq!(rig.says(vcpu, "load [0x5000] 8"), "page-fault");
        // Present, but nothing in the Secure-EPT behind it.
        set_entry(&mut rig, vcpu, 0x4028, 0x9000 | P_RW, 0x5000);
        assert_eq!(rig.says(vcpu, "load [0x5123] 8"), "td-exit 48 gpa=0x9123");
    }
}

#[test]
fn large_pages_of_a_guests_tables_and_the_reserved_bit_above_them() {
    for config in configs() {
        let (mut rig, vcpu, _) = with_tables(config);
        // Linear 2 MiB to 4 MiB is GPA 0 to 2 MiB by one entry.
        set_entry(&mut rig, vcpu, 0x3008, P_RW | 1 << 7, 0x20_0000);
        assert_eq!(rig.reads(vcpu, "load [0x205000] 8").1, IMAGE_WORD);
        // Linear 1 GiB is GPA 0 by an entry of 1 GiB.
        set_entry(&mut rig, vcpu, 0x2008, P_RW | 1 << 7, 0x4000_0000);
        assert_eq!(rig.reads(vcpu, "load [0x40005000] 8").1, IMAGE_WORD);
        // There is no page of 512 GiB.
        set_entry(&mut rig, vcpu, 0x1008, P_RW | 1 << 7, 0x80_0000_0000);
        assert_eq!(rig.says(vcpu, "load [0x8000005000] 8"), "pf rsvd");
    }
}

#[test]
fn the_shared_bit_is_for_leaves_of_a_guests_tables_not_for_pointers() {
    // architecture.md §2.5 row "TD page tables, CR3".
    for config in configs() {
        let (mut rig, vcpu, _) = with_tables(config);
        rig.kick(1);
        let root = build_ept(&mut rig, BUFFER | EPT_RWX_WB);
        rig.poke(BUFFER + 8, 0x4321);
        rig.ok(1, Leaf::VP_WR, [vcpu.tdvpr, SHARED_EPTP, root, u64::MAX]);
        rig.enter(1, vcpu);
        set_entry(&mut rig, vcpu, 0x4030, SHARED | P_RW, 0x6000);
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 0x4321);
        assert_eq!(rig.says(vcpu, "fetch [0x6008]"), "pf rsvd", "{config:?}");
        set_entry(&mut rig, vcpu, 0x3008, SHARED | P_RW, 0x20_0000);
        assert_eq!(rig.says(vcpu, "load [0x200008] 8"), "pf rsvd");
        rig.execute(vcpu.agent, &Op::MovCr3 { value: SHARED | 0x1000 });
        assert_eq!(rig.says(vcpu, "load [0x0] 8"), "pf rsvd");
    }
}

#[test]
fn without_invlpg_or_mov_cr3_a_guest_keeps_its_old_translation() {
    for config in configs() {
        let (mut rig, vcpu, _) = with_tables(config);
        rig.guest(vcpu, "store [0x7008] 8 0x1777");
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 1);
        rig.guest(vcpu, &format!("store [0x4030] 8 {:#x}", 0x7000 | P_RW));
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 1, "still the old page");
        rig.guest(vcpu, "invlpg [0x5000]");
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 1, "that was another page");
        rig.guest(vcpu, "mov-cr3 0x1000");
        assert_eq!(rig.reads(vcpu, "load [0x6008] 8").1, 0x1777);
    }
}

#[test]
fn a_prefetch_faulted_when_the_guests_own_tables_had_no_page() {
    for config in configs() {
        let (mut rig, vcpu, pages) = with_tables(config);
        for linear in [0x20_0000u64, 0x80_0000_0000, 0x9000] {
            assert_eq!(rig.says(vcpu, &format!("prefetch [{linear:#x}]")), "done");
        }
        // Nor does it trap on a poisoned table (architecture.md §13 MC-06, verification.md P7).
        rig.hw(&format!("evict [{:#x}@{HKID_B}]", pages[4] + 0x40));
        rig.hw(&format!("inject-ue [{:#x}]", pages[4] + 0x40));
        assert_eq!(rig.says(vcpu, "prefetch [0x8000]"), "done");
        assert!(rig.os.seen.is_empty());
        let outcome = rig.guest(vcpu, "load [0x8000] 8");
        assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{outcome}");
    }
}

#[test]
fn private_memory_is_write_back_whatever_the_guest_asks_for() {
    // architecture.md §4.1 4.1.11: a partial uncached write would be one to a TD=1 line.
    for config in configs() {
        let (mut rig, _, vcpu, pages) = with_pages(config, 1);
        rig.wbinvd();
        for text in ["store.uc [0x8] 8 0x11", "store.wc [0x10] 8 0x22"] {
            assert_eq!(rig.says(vcpu, text), "done");
        }
        assert_eq!(rig.m.counts().controller_partial_writes, 0);
        let reads = rig.m.counts().controller_reads;
        assert_eq!(rig.says(vcpu, "load.uc [0x8] 8"), "data 0x11");
        assert_eq!(rig.m.counts().controller_reads, reads, "it hits the cache");
        assert_eq!(rig.seen(pages[0] + 16, HKID_B), 0x22);
    }
}

#[test]
fn an_entry_with_keyid_bits_of_its_own_is_a_misconfiguration_that_ends_the_module() {
    // architecture.md §2.5: hardware adds the TD's HKID; §7.7 "On walk": a fatal error of the module. Tampering turns the
    // entry into garbage where nothing checks it: logical integrity.
    let li = Config { integrity: IntegrityMode::Li, ..FUNCTIONAL };
    let (mut rig, run) = running(Config { crypto: machine::CryptoKind::Real, ..li });
    rig.enter(1, run.vcpus[0]);
    rig.wbinvd();
    let mut ended = false;
    for bit in 0..64 {
        let mut rig = rig.clone();
        // Every flipped bit makes another 16 bytes of garbage.
        rig.hw(&format!("flip-bit [{:#x}] {bit}", run.tables[2]));
        let outcome = rig.guest(run.vcpus[0], "load [0x0] 8");
        if outcome == Outcome::NotRun(sim_core::outcome::NotRun::Shutdown) {
            rig.assert_tdx_dead(1);
            ended = true;
        }
    }
    assert!(ended);
}

// -------------------------------------------------------------------------------------------------------- large mappings

#[test]
fn promote_and_demote_change_the_size_of_a_mapping_under_a_guest_that_goes_on() {
    // architecture.md §7.6, §7.8; verification.md E3.
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        let (vcpu, tdr) = (run.vcpus[0], run.td.tdr);
        let large = rig.block(2 << 20);
        let gpa = 0x20_0000;
        rig.sept(&run.td, gpa, 1);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [gpa | 1, tdr, large, 0]);
        rig.enter(1, vcpu);
        accept(&mut rig, vcpu, gpa | 1);
        assert_eq!(rig.says(vcpu, "store [0x234560] 8 0x77"), "done");
        // Large to small.
        let table = rig.page();
        rig.block_and_track(&run.td, gpa | 1);
        rig.ok(0, Leaf::MEM_PAGE_DEMOTE, [gpa | 1, tdr, table, 0]);
        rig.m.take_finished();
        rig.enter(1, vcpu);
        assert_eq!(rig.m.tlb(1).unwrap().iter().count(), 0, "{config:?}");
        assert_eq!(rig.reads(vcpu, "load [0x234560] 8").1, 0x77);
        // One of the 512 moves: only that one.
        let other = rig.page();
        rig.block_and_track(&run.td, 0x23_4000);
        rig.ok(0, Leaf::MEM_PAGE_RELOCATE, [0x23_4000, tdr, other, 0]);
        rig.m.take_finished();
        rig.enter(1, vcpu);
        assert_eq!(rig.says(vcpu, "store [0x234560] 8 0x78"), "done");
        assert_eq!(rig.seen(other + 0x560, HKID_A), 0x78);
        assert_eq!(rig.seen(large + 0x3_4560, HKID_A), 0x77);
        // Back, and small to large: the table is given back and the guest walks to the leaf above it.
        rig.block_and_track(&run.td, 0x23_4000);
        rig.ok(0, Leaf::MEM_PAGE_RELOCATE, [0x23_4000, tdr, large + 0x3_4000, 0]);
        rig.block_and_track(&run.td, gpa | 1);
        let freed = rig.ok(0, Leaf::MEM_PAGE_PROMOTE, [gpa | 1, tdr, 0, 0]);
        assert_eq!(freed.out[0], table);
        rig.m.take_finished();
        // Whatever becomes of the freed table, the guest does not look at it.
        rig.cpu(2, &format!("movdir64b.page [{table:#x}]"));
        rig.cpu(2, "mfence");
        rig.enter(1, vcpu);
        assert_eq!(rig.m.tlb(1).unwrap().iter().count(), 0);
        assert_eq!(rig.reads(vcpu, "load [0x234560] 8").1, 0x78);
        assert_eq!(rig.seen(large + 0x3_4560, HKID_A), 0x78);
        rig.assert_sound();
    }
}

#[test]
fn a_gibibyte_is_mapped_by_one_entry_of_the_secure_ept() {
    // architecture.md §7.6 "PAGE.PROMOTE": AUG gives at most 2 MiB at a time.
    let mut rig = Rig::ready_with(&spr(IntegrityMode::Ci), FUNCTIONAL, 2);
    let run = rig.running(HKID_A, 0, 1);
    let (vcpu, tdr, gib) = (run.vcpus[0], run.td.tdr, 1u64 << 30);
    let huge = rig.block(gib);
    rig.next_page = run.td.tdr + (1 << 20);
    rig.sept(&run.td, gib, 1);
    for i in 0..512 {
        let offset = i << 21;
        rig.ok(0, Leaf::MEM_PAGE_AUG, [(gib + offset) | 1, tdr, huge + offset, 0]);
    }
    rig.enter(1, vcpu);
    for i in 0..512 {
        accept(&mut rig, vcpu, (gib + (i << 21)) | 1);
    }
    rig.guest(vcpu, "store [0x52345678] 8 0x91");
    rig.block_and_track(&run.td, gib | 2);
    rig.ok(0, Leaf::MEM_PAGE_PROMOTE, [gib | 2, tdr, 0, 0]);
    rig.m.take_finished();
    rig.enter(1, vcpu);
    let reads = rig.m.counts().accesses;
    assert_eq!(rig.reads(vcpu, "load [0x52345678] 8").1, 0x91);
    // Two entries of the walk and the load itself.
    assert_eq!(rig.m.counts().accesses - reads, 3);
    assert_eq!(rig.seen(huge + 0x1234_5678, HKID_A), 0x91);
    // Removed as one.
    rig.block_and_track(&run.td, gib | 2);
    rig.ok(0, Leaf::MEM_PAGE_REMOVE, [gib | 2, tdr, 0, 0]);
    rig.m.take_finished();
    rig.enter(1, vcpu);
    assert_eq!(rig.says(vcpu, "load [0x52345678] 8"), "td-exit 48 gpa=0x52345678");
}
