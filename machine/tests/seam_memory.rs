//! A TD's pages from the host's hands and back: aliasing scenarios of architecture.md §4.3 with the real leaves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use machine::CryptoKind;
use sim_core::outcome::DataClass;
use sim_core::tdx::{GuestLeaf, Leaf, PageType, Status};
use sim_core::{KeyId, Line, Outcome, Tagged};
use tdx_common::{
    Config, HKID_A, HKID_B, IMAGE, IMAGE_WORD, LEVELS_4, Rig, Running, Vcpu, configs, running,
};
use tdx_module::pamt::Size;

/// A TD like [`running`], not finalised yet; the caller adds pages.
fn being_built(config: Config) -> (Rig, tdx_common::Td, Vcpu) {
    let (mut rig, _) = running(config);
    let td = rig.td(HKID_B, 0, LEVELS_4);
    let vcpu = rig.vcpu(&td);
    rig.sept(&td, 0, 0);
    (rig, td, vcpu)
}

fn data(word: u64) -> (DataClass, u64) {
    (DataClass::Plain, word)
}
/// Zeros in place of the line (architecture.md §2.2, §2.3).
const BLOCKED: (DataClass, u64) = (DataClass::Blocked, 0);

#[track_caller]
fn assert_dies(rig: &mut Rig, vcpu: Vcpu, core: u16, text: &str, what: &str) {
    let outcome = rig.guest(vcpu, text);
    assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{what}: {outcome}");
    assert_eq!(rig.returned(core).status, Status(0x6000_0005_0000_0000), "{what}");
}

/// Whether a line under a KeyID is in some cache, and dirty.
fn cached(rig: &Rig, hpa: u64, keyid: u16) -> Option<bool> {
    rig.m.caches().inspect(Tagged::new(Line(hpa >> 6), KeyId(keyid))).map(|view| view.dirty)
}

/// A page whose first line the host has dirty in its cache, then given to the TD and added at GPA 0.
fn with_dirty_alias(config: Config, flush: bool) -> (Rig, Vcpu, u64) {
    let (mut rig, td, vcpu) = being_built(config);
    let page = rig.page();
    rig.cpu(1, &format!("store [{page:#x}] 8 0xbad"));
    if flush {
        rig.cpu(1, &format!("clflush [{page:#x}]"));
    }
    rig.ok(0, Leaf::MEM_PAGE_ADD, [0, td.tdr, page, IMAGE]);
    rig.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
    (rig, vcpu, page)
}

#[test]
fn al_1_a_dirty_host_line_written_back_after_page_add_kills_the_td() {
    // architecture.md §4.3 AL-1, Q-11.
    for config in configs() {
        let (mut rig, vcpu, page) = with_dirty_alias(config, false);
        assert_eq!(cached(&rig, page, 0), Some(true));
        rig.hw(&format!("evict [{page:#x}]"));
        assert!(!rig.m.memory().line(Line(page >> 6)).td);
        rig.enter(1, vcpu);
        // The other lines are as they should be.
        assert_eq!(rig.reads(vcpu, "load [0x40] 8"), data(8));
        assert_dies(&mut rig, vcpu, 1, "load [0x0] 8", "AL-1");
    }
}

#[test]
fn q_12_the_same_with_a_flush_before_gives_the_td_its_data() {
    for config in configs() {
        let (mut rig, vcpu, page) = with_dirty_alias(config, true);
        rig.hw(&format!("evict [{page:#x}]"));
        rig.enter(1, vcpu);
        assert_eq!(rig.reads(vcpu, "load [0x0] 8"), data(IMAGE_WORD));
    }
}

#[test]
fn al_2_a_td_with_the_line_cached_goes_on_and_repairs_it_if_it_had_written() {
    // architecture.md §4.3 AL-2.
    for config in configs() {
        for writes in [true, false] {
            let (mut rig, vcpu, page) = with_dirty_alias(config, false);
            rig.enter(1, vcpu);
            let access = if writes { "store [0x8] 8 0x77" } else { "load [0x8] 8" };
            rig.guest(vcpu, access);
            rig.hw(&format!("evict [{page:#x}]"));
            assert_eq!(rig.reads(vcpu, "load [0x0] 8"), data(IMAGE_WORD), "it keeps hitting");
            rig.hw(&format!("evict [{page:#x}@{HKID_B}]"));
            assert_eq!(rig.m.memory().line(Line(page >> 6)).td, writes);
            if writes {
                assert_eq!(rig.reads(vcpu, "load [0x8] 8"), data(0x77));
            } else {
                assert_dies(&mut rig, vcpu, 1, "load [0x0] 8", "AL-2, clean");
            }
        }
    }
}

/// The page at GPA 0 with a line that the guest has made dirty; the page is removed, without PAGE.WBINVD.
fn removed_dirty(config: Config) -> (Rig, Running) {
    let (mut rig, run) = running(config);
    rig.enter(1, run.vcpus[0]);
    assert_eq!(rig.guest(run.vcpus[0], "store [0x0] 8 0x99"), Outcome::Done);
    assert_eq!(cached(&rig, run.page, HKID_A), Some(true));
    rig.block_and_track(&run.td, 0);
    rig.m.take_finished();
    let result = rig.ok(0, Leaf::MEM_PAGE_REMOVE, [0, run.td.tdr, 0, 0]);
    assert_eq!(result.out[0], run.page);
    (rig, run)
}

#[test]
fn al_3_a_dirty_private_line_written_back_after_reuse_silently_loses_the_hosts_data() {
    // architecture.md §4.3 AL-3, §7.10.2.
    for config in configs() {
        let (mut rig, run) = removed_dirty(config);
        let page = run.page;
        assert_eq!(cached(&rig, page, HKID_A), Some(true), "REMOVE flushes nothing");
        rig.cpu(0, &format!("movdir64b.page [{page:#x}]"));
        rig.cpu(0, "mfence");
        rig.cpu(0, &format!("store [{page:#x}] 8 0x1234"));
        rig.cpu(0, &format!("clflush [{page:#x}]"));
        rig.hw(&format!("evict [{page:#x}@{HKID_A}]"));
        assert!(rig.m.memory().line(Line(page >> 6)).td);
        let loaded = rig.host_reads(0, page);
        assert_eq!(loaded, BLOCKED, "{config:?}");
        assert!(!rig.m.is_panicked());
    }
}

#[test]
fn al_3_with_page_wbinvd_the_host_keeps_its_data() {
    // architecture.md §4.2 row "One private page removed while TD lives".
    for config in configs() {
        let (mut rig, run) = removed_dirty(config);
        let (page, keyid) = (run.page, rig.m.spec().keyid);
        let with_hkid = page | u64::from(HKID_A) << keyid.address_bits();
        rig.ok(0, Leaf::PHYMEM_PAGE_WBINVD, [with_hkid, 0, 0, 0]);
        assert_eq!(cached(&rig, page, HKID_A), None);
        rig.cpu(0, &format!("movdir64b.page [{page:#x}]"));
        rig.cpu(0, "mfence");
        rig.cpu(0, &format!("store [{page:#x}] 8 0x1234"));
        rig.cpu(0, &format!("clflush [{page:#x}]"));
        rig.hw(&format!("evict [{page:#x}@{HKID_A}]"));
        let loaded = rig.host_reads(0, page);
        assert_eq!(loaded, data(0x1234));
    }
}

#[test]
fn al_4_a_host_read_of_a_private_line_returns_zeros_and_harms_nobody() {
    // architecture.md §4.3 AL-4.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.wbinvd();
        let loaded = rig.host_reads(2, run.page);
        assert_eq!(loaded, BLOCKED);
        assert_eq!(cached(&rig, run.page, 0), Some(false));
        rig.hw(&format!("evict [{:#x}]", run.page));
        rig.enter(1, run.vcpus[0]);
        assert_eq!(rig.reads(run.vcpus[0], "load [0x0] 8"), data(IMAGE_WORD));
    }
}

#[test]
fn al_5_a_host_store_into_those_zeros_takes_the_line_from_the_td() {
    // architecture.md §4.3 AL-5, Q-10.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.wbinvd();
        rig.cpu(2, &format!("store [{:#x}] 8 0x5", run.page + 8));
        rig.hw(&format!("evict [{:#x}]", run.page));
        assert!(!rig.m.memory().line(Line(run.page >> 6)).td);
        // The host reads zeros and its bytes.
        let words = [0, 8].map(|offset| rig.host_reads(2, run.page + offset).1);
        assert_eq!(words, [0, 5]);
        rig.enter(1, run.vcpus[0]);
        assert_dies(&mut rig, run.vcpus[0], 1, "load [0x0] 8", "AL-5");
    }
}

#[test]
fn al_6_a_clean_line_of_a_dead_td_is_never_seen_by_the_next_with_its_hkid() {
    // architecture.md §4.3 AL-6, Q-14; verification.md T3.
    for config in configs() {
        let (mut rig, run) = running(config);
        let (page, tdr) = (run.page, run.td.tdr);
        rig.enter(1, run.vcpus[0]);
        rig.guest(run.vcpus[0], "store [0x0] 8 0x5ec3e7");
        rig.kick(1);
        rig.ok(1, Leaf::VP_FLUSH, [run.vcpus[0].tdvpr, 0, 0, 0]);
        rig.ok(0, Leaf::MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
        for core in [0, 2] {
            rig.ok(core, Leaf::PHYMEM_CACHE_WB, [0; 4]);
        }
        assert_eq!(cached(&rig, page, HKID_A), Some(false), "CACHE.WB does not invalidate");
        rig.ok(0, Leaf::MNG_KEY_FREEID, [tdr, 0, 0, 0]);
        rig.ok(0, Leaf::PHYMEM_PAGE_RECLAIM, [page, 0, 0, 0]);
        // TD B: the same HKID with a new key, and the same page.
        let b = rig.td(HKID_A, 0, LEVELS_4);
        let vcpu = rig.vcpu(&b);
        rig.sept(&b, 0, 0);
        rig.ok(0, Leaf::MEM_PAGE_ADD, [0, b.tdr, page, IMAGE]);
        rig.ok(0, Leaf::MR_FINALIZE, [b.tdr, 0, 0, 0]);
        for line in (page..page + 4096).step_by(64) {
            assert_eq!(cached(&rig, line, HKID_A), None, "PAGE.ADD has dropped what was cached");
        }
        rig.enter(1, vcpu);
        assert_eq!(rig.reads(vcpu, "load [0x0] 8"), data(IMAGE_WORD));
    }
}

#[test]
fn al_7_of_two_dirty_copies_the_last_to_be_written_back_wins() {
    // architecture.md §4.3 AL-7, §13 MC-12.
    for config in configs() {
        for host_last in [true, false] {
            let (mut rig, vcpu, page) = with_dirty_alias(config, false);
            rig.enter(1, vcpu);
            rig.guest(vcpu, "store [0x8] 8 0x77");
            let (host, td) = (format!("evict [{page:#x}]"), format!("evict [{page:#x}@{HKID_B}]"));
            let order = if host_last { [&td, &host] } else { [&host, &td] };
            for evict in order {
                rig.hw(evict);
            }
            assert_eq!(rig.m.memory().line(Line(page >> 6)).td, !host_last);
            let by_host = rig.host_reads(2, page);
            assert_eq!(by_host, if host_last { data(0xbad) } else { BLOCKED });
            if host_last {
                assert_dies(&mut rig, vcpu, 1, "load [0x8] 8", "AL-7");
            } else {
                assert_eq!(rig.reads(vcpu, "load [0x8] 8"), data(0x77));
            }
        }
    }
}

#[test]
fn page_add_and_accept_leave_every_line_the_tds_and_whole_whatever_it_was_before() {
    // verification.md T3: also of a page that was poisoned.
    for config in configs() {
        let (mut rig, td, vcpu) = being_built(config);
        let added = rig.page();
        rig.hw(&format!("inject-ue [{:#x}]", added + 128));
        rig.ok(0, Leaf::MEM_PAGE_ADD, [0, td.tdr, added, IMAGE]);
        rig.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
        let accepted = rig.aug(&td, 0x1000);
        rig.hw(&format!("inject-ue [{:#x}]", accepted + 64));
        rig.enter(1, vcpu);
        let answer = rig.tdcall(vcpu, GuestLeaf::MEM_PAGE_ACCEPT, 0x1000);
        assert_eq!(tdx_common::status_of(answer), Status::SUCCESS);
        for page in [added, accepted] {
            for line in (page..page + 4096).step_by(64) {
                let state = rig.m.memory().line(Line(line >> 6));
                assert_eq!((state.writer, state.poison), (Some(KeyId(HKID_B)), None));
                assert!(state.td);
                assert_eq!(cached(&rig, line, HKID_B), None);
            }
        }
        // verification.md T6: zeros of an accepted page, the source image of an added one.
        assert_eq!(rig.reads(vcpu, "load [0x1040] 8"), data(0));
        assert_eq!(rig.reads(vcpu, "load [0x0] 8"), data(IMAGE_WORD));
        assert_eq!(rig.reads(vcpu, "load [0x88] 8"), data(17));
    }
}

#[test]
fn page_aug_remove_and_reclaim_change_no_line() {
    // verification.md T4, T5; architecture.md §7.10.2, §7.10.3.
    for config in configs() {
        let (mut rig, run) = running(config);
        let page = rig.page();
        rig.cpu(0, &format!("store [{page:#x}] 8 0x42"));
        rig.wbinvd();
        let states = |rig: &Rig, page: u64| {
            let lines = (page..page + 4096).step_by(64);
            lines.map(|l| rig.m.memory().line(Line(l >> 6))).collect::<Vec<_>>()
        };
        let before = states(&rig, page);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [0x1000, run.td.tdr, page, 0]);
        assert_eq!(states(&rig, page), before);
        rig.block_and_track(&run.td, 0x1000);
        rig.ok(0, Leaf::MEM_PAGE_REMOVE, [0x1000, run.td.tdr, 0, 0]);
        assert_eq!(states(&rig, page), before);
        assert_eq!(rig.host_reads(0, page), data(0x42));
    }
}

#[test]
fn q_17_a_removed_page_reads_as_zeros_without_poison_and_belongs_to_nobody() {
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.block_and_track(&run.td, 0);
        rig.ok(0, Leaf::MEM_PAGE_REMOVE, [0, run.td.tdr, 0, 0]);
        assert_eq!(rig.host_reads(0, run.page), BLOCKED);
        let line = rig.m.memory().line(Line(run.page >> 6));
        assert_eq!((line.td, line.poison), (true, None));
        assert_eq!(rig.m.module().pamt(run.page, Size::Small).page_type(), PageType::Nda);
    }
}

#[test]
fn a_page_removed_and_added_again_at_the_same_address_is_zero() {
    // architecture.md §7.10.7.
    for config in configs() {
        let (mut rig, run) = removed_dirty(config);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [0, run.td.tdr, run.page, 0]);
        rig.enter(1, run.vcpus[0]);
        let answer = rig.tdcall(run.vcpus[0], GuestLeaf::MEM_PAGE_ACCEPT, 0);
        assert_eq!(tdx_common::status_of(answer), Status::SUCCESS);
        assert_eq!(rig.reads(run.vcpus[0], "load [0x0] 8"), data(0), "{config:?}");
    }
}

#[test]
fn an_accept_that_leaves_tells_the_guest_physical_address_it_is_about() {
    // architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT": a TD exit by an EPT violation; R8 has the address.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.enter(1, run.vcpus[0]);
        let answer = rig.tdcall(run.vcpus[0], GuestLeaf::MEM_PAGE_ACCEPT, 0x7f_f000);
        assert_eq!(answer.to_string(), "td-exit 48 gpa=0x7ff000", "{config:?}");
        assert_eq!(rig.returned(1).out[2], 0x7f_f000);
    }
}

#[test]
fn an_offered_page_is_the_modules_although_key_configuration_failed() {
    // architecture.md §7.10.1: MNG.CREATE with RND_NO_ENTROPY has overwritten the page.
    for config in configs() {
        let (mut rig, _) = running(config);
        let page = rig.page();
        rig.cpu(0, &format!("store [{page:#x}] 8 0x42"));
        rig.wbinvd();
        rig.hw("starve 0 1000");
        let status = rig.status(0, Leaf::MNG_CREATE, [page, HKID_B.into(), 0, 0]);
        assert_eq!(status, Status::RND_NO_ENTROPY);
        assert_eq!(rig.writer(page), Some(tdx_common::GLOBAL));
        assert_eq!(rig.host_reads(0, page), BLOCKED);
        assert_eq!(rig.m.module().pamt(page, Size::Small).page_type(), PageType::Nda);
    }
}

#[test]
fn page_add_from_a_poisoned_image_is_the_modules_machine_check() {
    // architecture.md §6.3: any machine check in SEAM root; the source is read with an ordinary load.
    for config in configs() {
        let (mut rig, td, _) = being_built(config);
        rig.wbinvd();
        rig.hw(&format!("inject-ue [{:#x}]", IMAGE + 640));
        let page = rig.page();
        let outcome = rig.call(1, Leaf::MEM_PAGE_ADD, [0, td.tdr, page, IMAGE]);
        assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{outcome}");
        rig.assert_tdx_dead(1);
        // Ten lines were copied before; what the processor had sent off is visible sooner or later.
        for line in 0..10 {
            rig.hw(&format!("drain 1 [{:#x}@{HKID_B}]", page + 64 * line));
        }
        let written = |line: u64| rig.writer(page + 64 * line) == Some(HKID_B);
        assert!(written(9) && !written(10), "{config:?}");
    }
}

#[test]
fn with_real_cryptography_what_the_td_wrote_is_not_in_memory_in_the_clear() {
    // architecture.md §4.1 4.1.3.
    for config in configs().into_iter().filter(|c| c.crypto == CryptoKind::Real) {
        let (mut rig, run) = running(config);
        rig.wbinvd();
        let cipher = rig.m.memory().ciphertext(Line(run.page >> 6)).unwrap();
        assert_ne!(cipher[..8], IMAGE_WORD.to_le_bytes());
    }
}
