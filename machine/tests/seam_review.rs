//! What guests and hosts can make a machine with a module do that no hardware does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use machine::Act;
use sim_core::op::{MemType, Value};
use sim_core::platform::IntegrityMode;
use sim_core::tdx::Leaf;
use sim_core::{Addr, Hpa, KeyId, Line, Op, Outcome, Ps, Tagged};
use tdx_common::{
    Config, FUNCTIONAL, GLOBAL, HKID_A, HOST, LEVELS_4, Rig, TIMED, configs, running,
};
use tdx_module::pamt::Size;

#[test]
fn a_guest_s_access_at_the_end_of_the_address_space_is_a_page_fault() {
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        rig.enter(0, run.vcpus[0]);
        let at = Addr::new(Hpa(u64::MAX - 3), KeyId(0));
        for op in [
            Op::Load { at, bytes: 8, ty: MemType::Wb },
            Op::Store { at, bytes: 8, value: Value::Num(1), ty: MemType::Wb },
            Op::RepStosb { at, bytes: 4096, value: 0 },
            Op::Fetch { at },
        ] {
            let outcome = rig.execute(run.vcpus[0].agent, &op);
            assert!(
                matches!(outcome, Outcome::PageFault | Outcome::PageFaultRsvd),
                "{op:?} {outcome:?}"
            );
        }
    }
}

#[test]
fn an_access_that_needs_more_translations_than_the_tlb_holds_is_done() {
    for config in [FUNCTIONAL, TIMED] {
        let mut spec = tdx_common::spr(config.integrity);
        spec.tdx.tlb_entries = 1;
        if spec.validate().is_err() {
            return;
        }
        let mut rig = tdx_common::Rig::ready(&spec, config);
        let run = rig.running(tdx_common::HKID_A, 0, 1);
        rig.aug(&run.td, 0x1000);
        rig.enter(0, run.vcpus[0]);
        rig.tdcall(run.vcpus[0], sim_core::tdx::GuestLeaf::MEM_PAGE_ACCEPT, 0x1000);
        let at = Addr::new(Hpa(0xffc), KeyId(0));
        let outcome = rig.execute(run.vcpus[0].agent, &Op::Load { at, bytes: 8, ty: MemType::Wb });
        assert!(matches!(outcome, Outcome::Data(_)), "{outcome:?}");
    }
}

#[test]
fn a_guest_whose_secure_ept_was_changed_behind_the_processor_leaves_instead_of_trying_for_ever() {
    // Without integrity (Li) changed ciphertext is read as if it were data (architecture.md §2.3): the walk meets an entry
    // that is not what the module wrote.
    let config = Config { integrity: IntegrityMode::Li, ..FUNCTIONAL };
    let (mut rig, run) = running(config);
    rig.wbinvd();
    let table = *run.tables.last().unwrap();
    let mut left = 0;
    for bit in 0..48 {
        let mut rig = rig.clone();
        rig.hw(&format!("flip-bit [{table:#x}] {bit}"));
        rig.enter(0, run.vcpus[0]);
        let outcome = rig.guest(run.vcpus[0], "load [0x0] 8");
        left += usize::from(matches!(outcome, Outcome::TdExit { .. }));
    }
    assert!(left > 0);
}

#[test]
fn a_locked_store_of_the_module_that_meets_poison_writes_nothing_before_its_machine_check() {
    for config in configs() {
        for journal in [false, true] {
            let (mut rig, _) = running(config);
            rig.m.record_transitions(journal);
            let next = rig.next_page;
            let line = rig.pamt_at(next, Size::Small) & !63;
            rig.hw(&format!("evict [{line:#x}@{GLOBAL}]"));
            rig.hw(&format!("inject-ue [{line:#x}]"));
            let before = rig.m.memory().line(Line(line >> 6));
            rig.m.take_transitions();
            // It takes the lock of the entry first.
            let outcome = rig.call(1, Leaf::PHYMEM_PAGE_RDMD, [next, 0, 0, 0]);
            assert!(matches!(outcome, Outcome::MachineCheck { .. }), "{outcome}");
            if journal {
                let made = rig.m.take_transitions();
                let last = made.iter().rev().find(|t| t.met.is_some()).unwrap();
                assert!(matches!(last.act, Act::Store { locked: true, .. }), "{last:?}");
            }
            let at = Tagged::new(Line(line >> 6), KeyId(GLOBAL));
            let copy = rig.m.caches().inspect(at).unwrap();
            assert_eq!((copy.dirty, copy.poison), (false, before.poison), "{config:?}");
            let writes = rig.m.counts().controller_writes;
            rig.hw(&format!("evict [{line:#x}@{GLOBAL}]"));
            assert_eq!(rig.m.counts().controller_writes, writes, "{config:?}");
            assert_eq!(rig.m.memory().line(Line(line >> 6)), before);
        }
    }
}

#[test]
fn what_a_core_has_waiting_leaves_it_before_the_module_writes_back_its_caches() {
    // architecture.md §13 MC-28: WRMSR is serialising.
    let mut spec = tdx_common::spr(IntegrityMode::Ci);
    spec.cpu.wc_age = Ps::ns(1_000_000_000);
    for config in [FUNCTIONAL, TIMED] {
        let mut rig = Rig::ready(&spec, config);
        let run = rig.running(HKID_A, 0, 1);
        rig.ok(0, Leaf::MNG_VPFLUSHDONE, [run.td.tdr, 0, 0, 0]);
        let page = HOST + 0x20_0000;
        let in_memory = |rig: &Rig, at: u64| {
            rig.m.memory().probe(Tagged::new(Line(at >> 6), KeyId(0))).data.0[0]
        };
        assert_eq!(rig.cpu(0, &format!("movnti [{page:#x}] 8 0x77")), Outcome::Done);
        // Where nothing needs it to leave, it waits.
        assert_ne!(in_memory(&rig, page), 0x77, "{config:?}");
        rig.ok(0, Leaf::PHYMEM_CACHE_WB, [0; 4]);
        assert_eq!(in_memory(&rig, page), 0x77, "{config:?}");
    }
}

#[test]
fn a_store_of_the_module_that_owns_its_line_before_it_is_made_takes_no_less_time() {
    // architecture.md §13 MC-30: cpu.rfo_poison_mc changes when poison is met, not what a store costs.
    let after = |early: bool, cold: bool| {
        let mut spec = tdx_common::spr(IntegrityMode::Ci);
        spec.cpu.rfo_poison_mc = early;
        let mut rig = Rig::ready(&spec, TIMED);
        let td = rig.td(HKID_A, 0, LEVELS_4);
        rig.sept(&td, 0, 0);
        if cold {
            rig.wbinvd();
        }
        let begin = rig.m.now();
        rig.add_page(&td, 0);
        rig.m.now().0 - begin.0
    };
    for cold in [false, true] {
        assert_eq!(after(true, cold), after(false, cold), "cold: {cold}");
    }
    assert!(after(true, true) > after(true, false));
}
