//! What leaves cost, and the registers that the module finds on a machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use machine::Level;
use sim_core::data::LineData;
use sim_core::event::Trace;
use sim_core::outcome::GpReason;
use sim_core::tdx::{Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Outcome, Ps};
use tdx_common::{FUNCTIONAL, GLOBAL, IMAGE, Rig, TIMED, configs, running, seamcall, spr};
use tdx_module::{Action, Call, Env, Flight, Reply, Touch};

/// What the module asks for in a call that decides on nothing that it loads.
fn touches(rig: &Rig, leaf: Leaf, [rcx, rdx, r8, r9]: [u64; 4]) -> Vec<Touch> {
    let (mut module, mut flight) = (rig.m.module().clone(), Flight::default());
    let (now, tsc) = (rig.m.now(), rig.m.now().0 / 1000);
    let env = Env { lp: 0, package: 0, irq: false, now, tsc, msrs: &[], cpuid: 0 };
    let mut all = Vec::new();
    module.begin(&mut flight, &Call::new(leaf, rcx, rdx, r8, r9), &env).unwrap();
    let mut reply = Reply::Done;
    loop {
        match module.step(&mut flight, reply, &env, &mut Trace::new(false)) {
            Action::Touch(touch) => {
                all.push(touch);
                let load = matches!(touch, Touch::Load { .. });
                reply = if load { Reply::Data(LineData::ZERO) } else { Reply::Done };
            }
            Action::Return(answer) => {
                assert_eq!(answer.status, Status::SUCCESS);
                return all;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What those cost when every line is in the core's L1 and nobody else does anything.
fn warm(rig: &Rig, touches: &[Touch]) -> Ps {
    let l = rig.m.spec().latency;
    let anywhere = Addr::new(Hpa(0), KeyId::TME).tagged();
    let l1_hit = rig.m.idle_latency(0, anywhere, Level::L1, 0);
    let cost = |touch: &Touch| match touch {
        Touch::Load { .. } => l1_hit,
        Touch::Store { locked: false, .. } => l.issue,
        // Read-modify-write behind a fence.
        Touch::Store { locked: true, .. } => l.mfence + l1_hit,
        Touch::Spend(time) => *time,
        // The fence waits for what was posted.
        Touch::FlushPage { .. } => l.clflushopt.times(64) + l.mfence + l.write_post,
        other => panic!("{other:?}"),
    };
    touches.iter().map(cost).fold(Ps::ZERO, |sum, cost| sum + cost)
}

/// How long a call of core 0 takes that must succeed.
fn duration(rig: &mut Rig, leaf: Leaf, regs: [u64; 4]) -> Ps {
    let record = rig.m.execute(rig.host(0), &seamcall(leaf, regs), 0, &mut rig.os);
    assert_eq!(tdx_common::status_of(record.outcome), Status::SUCCESS);
    record.end.since(record.begin)
}

#[test]
fn a_warm_leaf_costs_its_touches_and_its_fixed_costs_to_the_picosecond() {
    // The first lines of many pages share a set of the L1: with 16 ways they all fit.
    let mut spec = spr(TIMED.integrity);
    spec.cpu.l1d = sim_core::platform::CacheGeometry { size: 16 << 10, ways: 16 };
    let mut rig = Rig::ready(&spec, TIMED);
    let run = rig.running(tdx_common::HKID_A, 0, 2);
    let tdr = run.td.tdr;
    let sept_rd = [0, tdr, 0, 0];
    duration(&mut rig, Leaf::MEM_SEPT_RD, sept_rd);
    let list = touches(&rig, Leaf::MEM_SEPT_RD, sept_rd);
    let before = *rig.m.counts();
    assert_eq!(duration(&mut rig, Leaf::MEM_SEPT_RD, sept_rd), warm(&rig, &list));
    // All of it hit the L1.
    let after = rig.m.counts();
    assert_eq!(after.by_level[0] - before.by_level[0], after.accesses - before.accesses);

    // RECLAIM: the second of two pages whose PAMT entries share a line.
    let pages: Vec<u64> = run.td.tdcs.iter().copied().chain(run.tables.clone()).collect();
    rig.ok(0, Leaf::MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
    for core in [0, 2] {
        rig.ok(core, Leaf::PHYMEM_CACHE_WB, [0; 4]);
    }
    rig.ok(0, Leaf::MNG_KEY_FREEID, [tdr, 0, 0, 0]);
    let same = |one: u64, two: u64| one >> 14 == two >> 14;
    let pair = pages.windows(2).find(|w| same(w[0], w[1])).unwrap();
    rig.ok(0, Leaf::PHYMEM_PAGE_RECLAIM, [pair[0], 0, 0, 0]);
    let regs = [pair[1], 0, 0, 0];
    let list = touches(&rig, Leaf::PHYMEM_PAGE_RECLAIM, regs);
    assert!(list.iter().any(|t| matches!(t, Touch::Store { locked: true, .. })));
    assert_eq!(duration(&mut rig, Leaf::PHYMEM_PAGE_RECLAIM, regs), warm(&rig, &list));

    // PAGE.WBINVD of a page of which nothing is cached.
    let bits = rig.m.spec().keyid.address_bits();
    let regs = [pair[1] | u64::from(GLOBAL) << bits, 0, 0, 0];
    duration(&mut rig, Leaf::PHYMEM_PAGE_WBINVD, regs);
    let list = touches(&rig, Leaf::PHYMEM_PAGE_WBINVD, regs);
    assert_eq!(duration(&mut rig, Leaf::PHYMEM_PAGE_WBINVD, regs), warm(&rig, &list));
}

#[test]
fn a_cold_page_add_waits_for_memory_once_for_every_line_that_it_reads() {
    let (mut rig, _) = running(TIMED);
    let td = rig.td(tdx_common::HKID_B, 0, tdx_common::LEVELS_4);
    rig.sept(&td, 0, 0);
    let (cold, warm) = (rig.page(), rig.page());
    rig.wbinvd();
    let before = *rig.m.counts();
    let long = duration(&mut rig, Leaf::MEM_PAGE_ADD, [0, td.tdr, cold, IMAGE]);
    let after = *rig.m.counts();
    let reads = after.controller_reads - before.controller_reads;
    // 64 lines of the source; TDR, TDCS, PAMT and Secure-EPT besides.
    assert!((64 + 5..64 + 20).contains(&reads), "{reads}");
    let writes = after.controller_writes - before.controller_writes;
    assert!(writes >= 64, "{writes}");
    let l = rig.m.spec().latency;
    // The way to the nearest slice and controller is at least a half of the way to the average one.
    let path = rig.m.idle_latency(0, Addr::new(Hpa(IMAGE), KeyId::TME).tagged(), Level::Memory, 0);
    let least = Ps(path.0 / 2).times(reads);
    let most = (path.times(2) + l.mac + rig.m.unloaded_dram_read().times(3)).times(reads);
    let short = duration(&mut rig, Leaf::MEM_PAGE_ADD, [0x1000, td.tdr, warm, IMAGE]);
    let cost = rig.m.spec().tdx.cost;
    let fixed = cost.seamcall + cost.mem;
    assert!(long > fixed + least, "{long} of {fixed} and {least}");
    assert!(long < short + most, "{long} of {short} and {most}");
    // With the source cached a line costs the hit and the store.
    assert!(short > fixed + l.issue.times(64));
    assert!(short + least < long, "{short} {long}");
}

#[test]
fn without_time_every_leaf_costs_one_operation() {
    let (mut rig, run) = running(FUNCTIONAL);
    let op = rig.m.spec().functional.op;
    assert_eq!(duration(&mut rig, Leaf::MEM_SEPT_RD, [0, run.td.tdr, 0, 0]), op);
    let page = rig.page();
    assert_eq!(duration(&mut rig, Leaf::MEM_PAGE_AUG, [0x1000, run.td.tdr, page, 0]), op);
}

#[test]
fn a_fill_of_part_of_a_page_threw_the_rest_of_the_page_out_of_the_caches() {
    // TDH.SYS.TDMR.INIT clears single lines of the arrays of large entries. Residency is the same at both speeds.
    let resident = |config| {
        let mut rig = Rig::new(&spr(tdx_common::TIMED.integrity), config);
        rig.initialize();
        let array = rig.write_tdmr(1);
        rig.ok(0, Leaf::SYS_CONFIG, [array, 1, GLOBAL.into(), 0]);
        for core in [0, 2] {
            rig.ok(core, Leaf::SYS_KEY_CONFIG, [0; 4]);
        }
        for _ in 0..8 {
            rig.ok(0, Leaf::SYS_TDMR_INIT, [tdx_common::TDMR, 0, 0, 0]);
        }
        let mut lines: Vec<_> = rig
            .m
            .caches()
            .resident_lines()
            .map(|l| (l.tag, l.data, l.is_dirty(), l.cores, l.llc))
            .collect();
        lines.sort_by_key(|l| l.0);
        (lines, *rig.m.memory().stats())
    };
    let (timed, functional) = (resident(TIMED), resident(FUNCTIONAL));
    assert!(!timed.0.is_empty());
    assert_eq!(timed, functional);
}

// ------------------------------------------------------------------------------------------------------------ registers

#[test]
fn a_machine_just_switched_on_passes_tdh_sys_init_on_every_processor() {
    for config in configs() {
        Rig::new(&spr(config.integrity), config).initialize();
    }
}

#[test]
fn an_msr_with_a_wrong_value_fails_tdh_sys_init_until_it_is_put_right() {
    // architecture.md §7.9 "TDH.SYS.INIT": INCORRECT_MSR_VALUE|msr.
    let wrong: [(u32, u64, u64); 5] =
        [(0x10a, 0, 0x0020_fd6b), (0xbd, 0, 1), (0xbc, 0, 1), (0x345, 0, 1 << 13), (0x982, 0, 3)];
    for (number, bad, good) in wrong {
        let mut rig = Rig::new(&spr(TIMED.integrity), TIMED);
        rig.cpu(0, &format!("wrmsr {number:#x} {bad:#x}"));
        let status = rig.status(0, Leaf::SYS_INIT, [0; 4]);
        assert_eq!(
            status,
            Status(Status::INCORRECT_MSR_VALUE.0 | u64::from(number)),
            "{number:#x}"
        );
        rig.cpu(0, &format!("wrmsr {number:#x} {good:#x}"));
        rig.ok(0, Leaf::SYS_INIT, [0; 4]);
    }
}

#[test]
fn an_msr_written_with_its_reset_value_made_a_processor_different_from_the_first() {
    let reset: [(u32, u64); 8] = [
        (0x3b, 0),
        (0xfe, 0),
        (0x10a, 0x0020_fd6b),
        (0xbc, 1),
        (0xbd, 1),
        (0x345, 1 << 13),
        (0x87, 31 | 32 << 32),
        (0x982, 1 | 1 << 1 | 6 << 32 | 1 << 36),
    ];
    let mut rig = Rig::new(&spr(TIMED.integrity), TIMED);
    for (number, value) in reset {
        rig.cpu(1, &format!("wrmsr {number:#x} {value:#x}"));
    }
    rig.initialize();
}

#[test]
fn an_msr_that_differs_on_another_processor_fails_its_tdh_sys_lp_init() {
    // architecture.md §7.9 "TDH.SYS.LP.INIT": INCONSISTENT_MSR|msr.
    for number in [0x3bu32, 0xcf, 0xfe, 0x1f2, 0x480, 0x981, 0x87, 0x10a] {
        let mut rig = Rig::new(&spr(TIMED.integrity), TIMED);
        rig.cpu(1, &format!("wrmsr {number:#x} 0x1234"));
        rig.ok(0, Leaf::SYS_INIT, [0; 4]);
        rig.ok(0, Leaf::SYS_LP_INIT, [0; 4]);
        let status = rig.status(1, Leaf::SYS_LP_INIT, [0; 4]);
        assert_eq!(status, Status(Status::INCONSISTENT_MSR.0 | u64::from(number)), "{number:#x}");
        rig.ok(2, Leaf::SYS_LP_INIT, [0; 4]);
    }
}

#[test]
fn registers_of_seam_are_a_general_protection_fault_outside_it() {
    // architecture.md §4.1 4.1.10, §8.
    let mut rig = Rig::new(&spr(TIMED.integrity), TIMED);
    for number in [0x98, 0x99, 0x9a] {
        let outcome = rig.cpu(0, &format!("wrmsr {number:#x} 0"));
        assert_eq!(outcome, Outcome::GeneralProtection(GpReason::NotInSeam));
    }
    rig.initialize();
}

#[test]
fn a_vcpu_cannot_be_entered_with_another_tsc_adjust_or_a_tsc_that_went_back() {
    // architecture.md §7.9 "TDH.VP.ENTER".
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        let enter = [run.vcpus[0].tdvpr, 0, 0, 0];
        rig.cpu(1, "delay 10us");
        rig.enter(1, run.vcpus[0]);
        rig.kick(1);
        rig.cpu(1, "wrmsr 0x3b 0x5");
        let status = rig.status(1, Leaf::VP_ENTER, enter);
        assert_eq!(status, Status(Status::INCONSISTENT_MSR.0 | 0x3b));
        rig.cpu(1, "wrmsr 0x3b 0");
        rig.cpu(1, "wrmsr 0x10 0");
        assert_eq!(rig.status(1, Leaf::VP_ENTER, enter), Status::TSC_ROLLBACK);
        rig.cpu(1, "wrmsr 0x10 0x10000000");
        rig.enter(1, run.vcpus[0]);
    }
}
