//! What guests and hosts can make a machine with a module do that no hardware does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use sim_core::op::{MemType, Value};
use sim_core::{Addr, Hpa, KeyId, Op, Outcome};
use tdx_common::{FUNCTIONAL, TIMED, running};

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
