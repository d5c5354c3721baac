//! Where the module's structures are, under which KeyID, and who dies of a host that writes over them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use sim_core::mca::McConsequence;
use sim_core::outcome::NotRun;
use sim_core::platform::IntegrityMode;
use sim_core::tdx::{GuestLeaf, Leaf, PageType, Status};
use sim_core::{Hpa, Outcome, Page};
use tdx_common::{
    Config, FUNCTIONAL, GLOBAL, HKID_A, HKID_B, IMAGE_WORD, PAMT, Rig, Running, TDMR, TIMED,
    configs, running, spr, status_of,
};
use tdx_module::pamt::Size;

#[test]
fn every_structure_lies_under_its_keyid_once_caches_are_written_back() {
    // verification.md T11: PAMT and TDR under the global HKID, all else under the TD's.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.wbinvd();
        let end = PAMT + 4096 + 8192 + (4 << 20);
        // Every line that holds an entry: one of 1 GiB, 512 of 2 MiB, all of 4 KiB.
        let entries = [(PAMT, PAMT + 16), (PAMT + 4096, PAMT + 4096 + 8192), (PAMT + 12288, end)];
        for line in entries.into_iter().flat_map(|(from, to)| (from..to).step_by(64)) {
            assert_eq!(rig.writer(line), Some(GLOBAL), "{config:?} PAMT {line:#x}");
        }
        let mut pages = vec![(run.td.tdr, GLOBAL), (run.page, HKID_A)];
        pages.extend(run.td.tdcs.iter().chain(&run.tables).map(|page| (*page, HKID_A)));
        for (_, vcpu) in rig.m.module().vcpus() {
            pages.extend(vcpu.pages.iter().map(|page| (page.hpa().0, HKID_A)));
        }
        assert_eq!(pages.len(), 2 + 6 + 3 + 2 * 6);
        for (page, hkid) in pages {
            for line in (page..page + 4096).step_by(64) {
                assert_eq!(rig.writer(line), Some(hkid), "{config:?} {line:#x}");
                assert!(rig.m.memory().line(sim_core::Line(line >> 6)).td);
            }
        }
        rig.assert_sound();
    }
}

/// Every word of Secure-EPT and PAMT in memory, through the caches, is the module's.
#[track_caller]
fn assert_words_agree(rig: &Rig) {
    for table in rig.m.module().sept_pages() {
        let owner = rig.m.module().pamt(table.hpa().0, Size::Small).owner();
        let hkid = rig.m.module().td(owner).unwrap().hkid.0;
        for index in 0..512u16 {
            let typed = rig.m.module().sept_entry(table, index).unwrap().0;
            let at = table.hpa().0 + 8 * u64::from(index);
            assert_eq!(rig.seen(at, hkid), typed, "entry {index} of {table:?}");
        }
    }
    for pa in (TDMR..rig.next_page + 0x4000).step_by(4096) {
        for size in [Size::Small, Size::Large, Size::Huge] {
            let typed = rig.m.module().pamt(pa, size).words(0);
            let at = rig.pamt_at(pa, size);
            let memory = [rig.seen(at, GLOBAL), rig.seen(at + 8, GLOBAL)];
            assert_eq!(memory, typed, "{size:?} entry of {pa:#x}");
        }
    }
}

#[test]
fn secure_ept_and_pamt_in_memory_are_the_modules_at_every_step_of_a_tds_life() {
    for config in configs() {
        let (mut rig, run) = running(config);
        assert_words_agree(&rig);
        let tdr = run.td.tdr;
        rig.aug(&run.td, 0x1000);
        let large = rig.block(2 << 20);
        rig.sept(&run.td, 0x20_0000, 1);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [0x20_0000 | 1, tdr, large, 0]);
        assert_words_agree(&rig);
        rig.block_and_track(&run.td, 0x20_0000 | 1);
        assert_words_agree(&rig);
        let table = rig.page();
        rig.ok(0, Leaf::MEM_PAGE_DEMOTE, [0x20_0000 | 1, tdr, table, 0]);
        assert_words_agree(&rig);
        rig.block_and_track(&run.td, 0x1000);
        let to = rig.page();
        rig.ok(0, Leaf::MEM_PAGE_RELOCATE, [0x1000, tdr, to, 0]);
        rig.block_and_track(&run.td, 0x1000);
        rig.ok(0, Leaf::MEM_PAGE_REMOVE, [0x1000, tdr, 0, 0]);
        rig.block_and_track(&run.td, 0x20_0000 | 1);
        rig.ok(0, Leaf::MEM_PAGE_PROMOTE, [0x20_0000 | 1, tdr, 0, 0]);
        assert_words_agree(&rig);
        rig.wbinvd();
        assert_words_agree(&rig);
    }
}

// ------------------------------------------------------------------------------------------- a host that writes over them

/// How a host writes over a line so that memory has lost what was there.
const WRITES: &[&[&str]] = &[
    // Write-back, then written back.
    &["store [AT] 64 fill=0x5a", "clflush [AT]"],
    // Part of the line: the rest of it is what the host read, zeros.
    &["store [AT] 8 0x5a", "clflush [AT]"],
    // Past the caches: on this platform with the erratum (architecture.md §5.5).
    &["movnti [AT] 8 0x5a", "sfence"],
    &["movdir64b [AT] fill=0x5a", "mfence"],
];
/// The same by a device.
const DMA: &str = "dma-write [AT] 64 fill=0x5a";

/// Every way to write over the line at `at`, whose copies were written back before.
fn spoiled(rig: &Rig, at: u64) -> Vec<(String, Rig)> {
    let mut base = rig.clone();
    base.wbinvd();
    let mut all = Vec::new();
    for way in WRITES {
        let mut rig = base.clone();
        for line in *way {
            let outcome = rig.cpu(1, &line.replace("AT", &format!("{at:#x}")));
            assert_eq!(outcome, Outcome::Done, "{line}");
        }
        all.push((way[0].to_owned(), rig));
    }
    let mut rig = base;
    assert_eq!(rig.dma(&DMA.replace("AT", &format!("{at:#x}"))), Outcome::Done);
    all.push((DMA.to_owned(), rig));
    all
}

#[track_caller]
fn assert_shutdown(outcome: Outcome, what: &str) {
    let shutdown =
        matches!(outcome, Outcome::MachineCheck { consequence: McConsequence::Shutdown, .. });
    assert!(shutdown, "{what}: {outcome}");
}

#[test]
fn whoever_overwrites_what_the_module_reads_takes_tdx_down_at_its_next_miss() {
    // architecture.md §6.3 row "TDX module", §7.10.4; verification.md P10.
    for config in configs() {
        let (rig, run) = running(config);
        let next = rig.next_page;
        let pamt = |pa| rig.pamt_at(pa, Size::Small);
        let entry = run.tables[2] + 8;
        let tdvpr = run.vcpus[0].tdvpr;
        // A line, and a call that reads it.
        let victims: [(&str, u64, Leaf, [u64; 4]); 6] = [
            ("PAMT", pamt(next), Leaf::MEM_PAGE_AUG, [0x1000, run.td.tdr, next, 0]),
            ("PAMT of the TDR", pamt(run.td.tdr), Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]),
            ("TDR", run.td.tdr, Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]),
            ("TDCS", run.td.tdcs[0], Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]),
            ("Secure-EPT", entry, Leaf::MEM_SEPT_RD, [0x1000, run.td.tdr, 0, 0]),
            ("TDVPS", tdvpr, Leaf::VP_ENTER, [tdvpr, 0, 0, 0]),
        ];
        for (name, line, leaf, regs) in victims {
            for (how, mut rig) in spoiled(&rig, line & !63) {
                let what = format!("{config:?} {name}: {how}");
                assert!(!rig.m.is_tdx_disabled(), "{what}: before anybody looks");
                assert_shutdown(rig.call(2, leaf, regs), &what);
                rig.assert_tdx_dead(2);
                assert!(!rig.m.is_panicked());
                rig.assert_sound();
            }
        }
    }
}

#[test]
fn a_line_that_the_module_still_has_cached_is_not_missed() {
    // architecture.md §7.10.4: noticed only at the next miss.
    for config in configs() {
        let (mut rig, run) = running(config);
        let tdr = run.td.tdr;
        let next = rig.next_page;
        rig.status(0, Leaf::MEM_SEPT_RD, [0x1000, tdr, 0, 0]);
        let entry = (run.tables[2] + 8) & !63;
        rig.cpu(1, &format!("movdir64b [{entry:#x}] fill=0x5a"));
        rig.cpu(1, "mfence");
        rig.ok(0, Leaf::MEM_SEPT_RD, [0x1000, tdr, 0, 0]);
        rig.ok(0, Leaf::MEM_PAGE_AUG, [0x1000, tdr, next, 0]);
        assert!(!rig.m.is_tdx_disabled());
    }
}

/// Enters a VCPU and loads from a GPA; what came of the load.
fn enter_and_load(rig: &mut Rig, run: &Running, core: u16, gpa: u64) -> Outcome {
    rig.enter(core, run.vcpus[0]);
    rig.guest(run.vcpus[0], &format!("load [{gpa:#x}] 8"))
}

const DEAD: Status = Status(0x6000_0005_0000_0000);

#[track_caller]
fn assert_td_dead(rig: &mut Rig, run: &Running) {
    assert!(rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().fatal);
    for vcpu in &run.vcpus {
        // Q-05, verification.md P9.
        let status = rig.status(3, Leaf::VP_ENTER, [vcpu.tdvpr, 0, 0, 0]);
        assert_eq!(status, Status::TD_FATAL);
        assert_eq!(status.0, 0xE000_0604_0000_0000);
    }
    let status = rig.status(0, Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]);
    assert_eq!(status, Status::TD_FATAL);
}

#[test]
fn a_td_dies_of_its_own_page_when_the_host_has_overwritten_it_and_another_td_does_not() {
    // verification.md P9, P11.
    for config in configs() {
        let (mut rig, run) = running(config);
        let other = rig.running(HKID_B, 0, 1);
        for (how, mut rig) in spoiled(&rig, run.page) {
            let what = format!("{config:?} {how}");
            let outcome = enter_and_load(&mut rig, &run, 1, 8);
            let Outcome::MachineCheck { record, consequence } = outcome else {
                panic!("{what}: {outcome}");
            };
            assert_eq!(consequence, McConsequence::TdFatal, "{what}");
            assert_eq!((record.core, record.at.hpa, record.at.keyid.0), (1, Hpa(run.page), HKID_A));
            let result = rig.returned(1);
            assert_eq!(result.status, DEAD, "{what}");
            // R9: a valid hardware exception 18.
            assert_eq!(result.out[3], 0x8000_0312);
            assert_td_dead(&mut rig, &run);
            assert_eq!(rig.os.seen.len(), 1, "{what}: exactly one #MC");
            assert!(!rig.m.is_tdx_disabled());
            let lives = enter_and_load(&mut rig, &other, 2, 0);
            assert_eq!(lives.to_string(), format!("data {IMAGE_WORD:#x}"), "{what}");
            rig.assert_sound();
        }
    }
}

#[test]
fn after_a_machine_check_the_module_touches_nothing_of_the_td_but_its_tdr() {
    // architecture.md §6.3 row 1, §7.10.5: TDCS and TDVPS of the dead TD are spoiled, too, and nobody notices.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.enter(1, run.vcpus[0]);
        rig.wbinvd();
        let pages: Vec<Page> =
            rig.m.module().vcpu(Page(run.vcpus[0].tdvpr >> 12)).unwrap().pages.clone();
        // The root of the Secure-EPT is a TDCS page, which the processor's own walk reads.
        let root = rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().sept_root().hpa().0;
        let tdcs = run.td.tdcs.iter().copied().filter(|page| *page != root);
        for page in tdcs.chain(pages.iter().map(|p| p.hpa().0)) {
            rig.cpu(2, &format!("movdir64b.page [{page:#x}]"));
        }
        rig.cpu(2, &format!("movdir64b [{:#x}] fill=0", run.page));
        rig.cpu(2, "mfence");
        let before = rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().refcount;
        assert_eq!(before, [0, 1]);
        let outcome = rig.guest(run.vcpus[0], "load [0x0] 8");
        assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{config:?} {outcome}");
        assert_eq!(rig.returned(1).status, DEAD);
        assert!(!rig.m.is_tdx_disabled());
        // What the VCPU counts for in REFCOUNT stays.
        let after = rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().refcount;
        assert_eq!(after, before);
    }
}

#[test]
fn with_emca2_the_exit_is_an_smi_with_the_msmi_bit_and_the_td_is_dead_all_the_same() {
    for config in [FUNCTIONAL, TIMED] {
        let mut spec = spr(config.integrity);
        spec.mce.emca2 = true;
        let mut rig = Rig::ready(&spec, config);
        let run = rig.running(HKID_A, 0, 1);
        rig.wbinvd();
        rig.cpu(1, &format!("movdir64b [{:#x}] fill=0x5a", run.page));
        rig.cpu(1, "mfence");
        enter_and_load(&mut rig, &run, 1, 0);
        let result = rig.returned(1);
        // The measured value (architecture.md §6.3 row 2).
        assert_eq!(result.status, Status(0x6000_0005_0000_0006));
        // Exit qualification bit 0: MSMI.
        assert_eq!(result.out[0] & 1, 1);
        assert_td_dead(&mut rig, &run);
    }
}

#[test]
fn the_machine_check_of_an_msmi_reaches_the_host_behind_the_module_s_answer() {
    // architecture.md §6.3 row 2: the SMI stays pending and is taken after SEAMRET. Without SEAM_NR it looks like the
    // kernel's own, which panics; the TD is fatal by then.
    for config in [FUNCTIONAL, TIMED] {
        let mut spec = spr(config.integrity);
        (spec.mce.emca2, spec.mce.seam_nr) = (true, false);
        let mut rig = Rig::ready(&spec, config);
        rig.os.panics_for_tds = true;
        let run = rig.running(HKID_A, 0, 1);
        rig.wbinvd();
        rig.cpu(1, &format!("movdir64b [{:#x}] fill=0x5a", run.page));
        rig.cpu(1, "mfence");
        let loaded = enter_and_load(&mut rig, &run, 1, 0);
        assert_eq!(loaded.to_string(), "mc srar data-load td-fatal", "{config:?}");
        assert_eq!(rig.returned(1).status, Status(0x6000_0005_0000_0006));
        assert!(rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().fatal);
        assert_eq!(rig.os.seen.len(), 1);
        assert!(rig.m.is_panicked());
    }
}

#[test]
fn an_smi_an_nmi_and_an_interrupt_leave_the_td_alive() {
    // Q-21, architecture.md §6.3 row 5.
    for config in configs() {
        let (mut rig, run) = running(config);
        let exits = [("smi", 6, 0), ("nmi", 0, 0x8000_0202), ("", 1, 0)];
        for (kind, reason, info) in exits {
            rig.enter(1, run.vcpus[0]);
            rig.hw(&format!("irq 1 {kind}"));
            let result = rig.returned(1);
            assert_eq!(result.status, Status(reason), "{config:?} {kind}");
            assert_eq!(result.out[3], info);
        }
        let loaded = enter_and_load(&mut rig, &run, 1, 0);
        assert_eq!(loaded.to_string(), format!("data {IMAGE_WORD:#x}"));
    }
}

#[test]
fn without_lmce_a_machine_check_kills_every_td_that_runs_and_no_other() {
    // architecture.md §6.3 row "LMCE off".
    for (emca2, status) in [(false, 0x6000_0005_0000_0000), (true, 0x6000_0005_0000_0006)] {
        for config in [FUNCTIONAL, TIMED] {
            let mut spec = spr(config.integrity);
            (spec.mce.lmce, spec.mce.emca2) = (false, emca2);
            let mut rig = Rig::ready(&spec, config);
            let a = rig.running(HKID_A, 0, 1);
            let b = rig.running(HKID_B, 0, 1);
            let c = rig.running(HKID_B + 1, 0, 1);
            rig.hw(&format!("inject-ue [{:#x}]", a.page));
            rig.wbinvd();
            rig.enter(1, b.vcpus[0]);
            let outcome = enter_and_load(&mut rig, &a, 2, 0);
            assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{outcome}");
            let ended = rig.m.take_finished();
            let statuses: Vec<Status> = ended.iter().map(|r| status_of(r.outcome)).collect();
            assert_eq!(statuses, [Status(status); 2], "{config:?} emca2 {emca2}");
            assert_td_dead(&mut rig, &a);
            assert_td_dead(&mut rig, &b);
            assert!(!rig.m.is_tdx_disabled());
            let lives = enter_and_load(&mut rig, &c, 0, 0);
            assert_eq!(lives.to_string(), format!("data {IMAGE_WORD:#x}"));
        }
    }
}

#[test]
fn another_vcpu_of_a_dead_td_leaves_with_the_same_status_at_its_next_exit() {
    // verification.md P9.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.enter(2, run.vcpus[1]);
        let fine = rig.says(run.vcpus[1], "load [0x0] 8");
        rig.hw(&format!("inject-ue [{:#x}]", run.page + 64));
        rig.enter(1, run.vcpus[0]);
        rig.guest(run.vcpus[0], "load [0x40] 8");
        assert_eq!(rig.returned(1).status, DEAD, "{config:?}");
        // It runs on until then.
        assert_eq!(rig.says(run.vcpus[1], "load [0x0] 8"), fine);
        let exit = rig.tdcall(run.vcpus[1], GuestLeaf::VP_INFO, 0);
        assert!(matches!(exit, Outcome::TdExit { .. }), "{exit}");
        let reason = 77;
        assert_eq!(rig.returned(2).status, Status(DEAD.0 | reason));
        assert_td_dead(&mut rig, &run);
    }
}

#[test]
fn a_page_walk_that_meets_poison_is_a_shutdown_or_a_machine_check_as_the_platform_says() {
    // architecture.md §13 MC-07.
    for config in [FUNCTIONAL, TIMED] {
        for shutdown in [true, false] {
            let mut spec = spr(config.integrity);
            spec.tdx.walk_poison_shutdown = shutdown;
            let mut rig = Rig::ready(&spec, config);
            let run = rig.running(HKID_A, 0, 1);
            rig.enter(1, run.vcpus[0]);
            rig.wbinvd();
            rig.cpu(2, &format!("movdir64b [{:#x}] fill=0x5a", run.tables[2]));
            rig.cpu(2, "mfence");
            let outcome = rig.guest(run.vcpus[0], "load [0x0] 8");
            let Outcome::MachineCheck { record, consequence } = outcome else {
                panic!("{outcome}");
            };
            assert_eq!(record.at.hpa.0, run.tables[2]);
            if shutdown {
                assert_eq!(consequence, McConsequence::Shutdown);
                let ended = rig.m.take_finished();
                assert_eq!(ended[0].outcome, Outcome::NotRun(NotRun::Shutdown));
                rig.assert_tdx_dead(1);
            } else {
                assert_eq!(consequence, McConsequence::TdFatal);
                assert_eq!(rig.returned(1).status, DEAD);
                assert_td_dead(&mut rig, &run);
            }
        }
    }
}

#[test]
fn when_tdx_goes_down_a_guest_elsewhere_runs_on_until_its_exit_and_then_never_again() {
    // architecture.md §6.3: later SEAMCALLs fail; SEAMRET is not one.
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.enter(2, run.vcpus[1]);
        let fine = rig.says(run.vcpus[1], "load [0x0] 8");
        let next = rig.next_page;
        let line = rig.pamt_at(next, Size::Small) & !63;
        rig.hw(&format!("evict [{line:#x}@{GLOBAL}]"));
        rig.hw(&format!("inject-ue [{line:#x}]"));
        let outcome = rig.call(1, Leaf::PHYMEM_PAGE_RDMD, [next, 0, 0, 0]);
        assert_shutdown(outcome, "RDMD");
        assert_eq!(rig.says(run.vcpus[1], "load [0x0] 8"), fine);
        assert_eq!(rig.kick(2).status, Status(1));
        rig.assert_tdx_dead(1);
        assert_eq!(rig.guest(run.vcpus[1], "load [0x0] 8"), Outcome::NotRun(NotRun::NotEntered));
    }
}

#[test]
fn a_fatal_td_is_torn_down_and_its_pages_serve_another() {
    // architecture.md §6.3 "Recovery of a fatal TD".
    for config in configs() {
        let (mut rig, run) = running(config);
        rig.hw(&format!("inject-ue [{:#x}]", run.page));
        rig.hw(&format!("evict [{:#x}@{HKID_A}]", run.page));
        enter_and_load(&mut rig, &run, 1, 0);
        assert_eq!(rig.returned(1).status, DEAD);
        let tdr = run.td.tdr;
        rig.ok(1, Leaf::VP_FLUSH, [run.vcpus[0].tdvpr, 0, 0, 0]);
        rig.ok(0, Leaf::MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
        for core in [0, 2] {
            rig.ok(core, Leaf::PHYMEM_CACHE_WB, [0; 4]);
        }
        rig.ok(0, Leaf::MNG_KEY_FREEID, [tdr, 0, 0, 0]);
        rig.ok(0, Leaf::PHYMEM_PAGE_RECLAIM, [run.page, 0, 0, 0]);
        assert_eq!(rig.m.module().pamt(run.page, Size::Small).page_type(), PageType::Nda);
        let other = rig.td(HKID_B, 0, tdx_common::LEVELS_4);
        rig.sept(&other, 0, 0);
        rig.ok(0, Leaf::MEM_PAGE_ADD, [0, other.tdr, run.page, tdx_common::IMAGE]);
        assert_eq!(rig.seen(run.page, HKID_B), IMAGE_WORD);
        let line = rig.m.memory().line(sim_core::Line(run.page >> 6));
        assert_eq!(line.poison, None);
    }
}

#[test]
fn both_integrity_modes_are_among_the_configurations() {
    let modes: Vec<IntegrityMode> = configs().iter().map(|c: &Config| c.integrity).collect();
    assert!(modes.contains(&IntegrityMode::Ci) && modes.contains(&IntegrityMode::Li));
}
