//! Several processors inside the module at once, in simulated time (architecture.md §7.2, §7.8, §7.11).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod tdx_common;

use machine::{Machine, Order, Run};
use proptest::prelude::*;
use sim_core::tdx::{GuestLeaf, Leaf, Operand, Status};
use sim_core::{Op, Outcome, Page, Ps};
use tdx_common::{
    FUNCTIONAL, HKID_A, Rig, TIMED, Who, by_item, running, seamcall, status_of, tdcall, text,
};

fn delay(ns: u64) -> Op {
    Op::Delay { time: Ps::ns(ns) }
}
fn aug(tdr: u64, gpa: u64, page: u64) -> Op {
    seamcall(Leaf::MEM_PAGE_AUG, [gpa, tdr, page, 0])
}
fn statuses(outcomes: &[Outcome]) -> Vec<Status> {
    outcomes.iter().map(|o| status_of(*o)).collect()
}
const RCX: Operand = Operand::RCX;

#[test]
fn two_augs_of_one_page_at_one_time_give_one_of_them_busy() {
    let (mut rig, run) = running(TIMED);
    let page = rig.page();
    let got = rig.together(&[
        (Who::Cpu(0), aug(run.td.tdr, 0x1000, page)),
        (Who::Cpu(1), aug(run.td.tdr, 0x2000, page)),
    ]);
    let busy = Status::OPERAND_BUSY.about(Operand::R8);
    assert_eq!(statuses(&got), [Status::SUCCESS, busy]);
    // The same guest page: the entry's lock.
    let (one, two) = (rig.page(), rig.page());
    let got = rig.together(&[
        (Who::Cpu(0), aug(run.td.tdr, 0x3000, one)),
        (Who::Cpu(1), aug(run.td.tdr, 0x3000, two)),
    ]);
    assert_eq!(statuses(&got), [Status::SUCCESS, Status::OPERAND_BUSY.about(RCX)]);
    // After one another, without time, there is no conflict on locks.
    let (mut rig, run) = running(FUNCTIONAL);
    let page = rig.page();
    let got = rig.together(&[
        (Who::Cpu(0), aug(run.td.tdr, 0x1000, page)),
        (Who::Cpu(1), aug(run.td.tdr, 0x2000, page)),
    ]);
    let taken = Status::PAGE_METADATA_INCORRECT.about(Operand::R8);
    assert_eq!(statuses(&got), [Status::SUCCESS, taken]);
}

#[test]
fn an_aug_of_2_mib_meets_any_4_kib_operation_in_its_block() {
    // architecture.md §7.2: shared locks on the entries above, exclusive on the 2M entry.
    let (mut rig, run) = running(TIMED);
    let large = rig.block(2 << 20);
    rig.sept(&run.td, 0x20_0000, 1);
    let got = rig.together(&[
        (Who::Cpu(0), aug(run.td.tdr, 0x1000, large + 0x5000)),
        (Who::Cpu(1), aug(run.td.tdr, 0x20_0000 | 1, large)),
    ]);
    assert_eq!(statuses(&got), [Status::SUCCESS, Status::OPERAND_BUSY.about(Operand::R8)]);
    // In another block they do not meet.
    let other = rig.block(2 << 20);
    let page = rig.page();
    let got = rig.together(&[
        (Who::Cpu(0), aug(run.td.tdr, 0x2000, page)),
        (Who::Cpu(1), aug(run.td.tdr, 0x20_0000 | 1, other)),
    ]);
    assert_eq!(statuses(&got), [Status::SUCCESS; 2]);
}

#[test]
fn a_td_with_a_vcpu_inside_cannot_be_taken_down() {
    // architecture.md §7.2: TDR shared for the whole time in the TD.
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        rig.enter(1, run.vcpus[0]);
        for leaf in [Leaf::MNG_KEY_FREEID, Leaf::MNG_VPFLUSHDONE] {
            let status = rig.status(0, leaf, [run.td.tdr, 0, 0, 0]);
            assert_eq!(status, Status::OPERAND_BUSY.about(RCX), "{leaf}");
        }
        let status = rig.status(0, Leaf::VP_FLUSH, [run.vcpus[0].tdvpr, 0, 0, 0]);
        assert_eq!(status, Status::OPERAND_BUSY.about(RCX));
        rig.kick(1);
        let status = rig.status(0, Leaf::MNG_VPFLUSHDONE, [run.td.tdr, 0, 0, 0]);
        assert_eq!(status, Status::FLUSHVP_NOT_DONE);
    }
}

#[test]
fn track_meets_an_entry_at_the_epoch_lock_and_an_earlier_epoch_at_its_refcount() {
    // architecture.md §7.8: epoch lock, exclusive and shared.
    let (rig, run) = running(TIMED);
    let epoch = Status::OPERAND_BUSY.about(Operand::TD_EPOCH);
    let mut met = [false; 2];
    for wait in 0..300 {
        let mut rig = rig.clone();
        let got = rig.together(&[
            (Who::Cpu(0), delay(600)),
            (Who::Cpu(0), seamcall(Leaf::VP_ENTER, [run.vcpus[0].tdvpr, 0, 0, 0])),
            (Who::Cpu(1), delay(wait * 5)),
            (Who::Cpu(1), seamcall(Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0])),
        ]);
        let [enter, track] = [status_of(got[1]), status_of(got[3])];
        assert!([Status(1), epoch].contains(&enter), "{enter}");
        assert!([Status::SUCCESS, epoch].contains(&track), "{track}");
        assert!(enter != epoch || track != epoch, "somebody held it");
        met[0] |= track == epoch;
        met[1] |= enter == epoch;
    }
    assert_eq!(met, [true; 2]);
    // A VCPU that stays inside from the epoch before.
    let mut rig = rig;
    rig.enter(1, run.vcpus[0]);
    rig.ok(0, Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]);
    let status = rig.status(0, Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]);
    assert_eq!(status, Status::PREVIOUS_TLB_EPOCH_BUSY);
    rig.kick(1);
    rig.ok(0, Leaf::MEM_TRACK, [run.td.tdr, 0, 0, 0]);
}

#[test]
fn block_meets_sept_add_at_the_lock_of_the_tree() {
    // architecture.md §7.2: exclusive and shared.
    let (mut rig, run) = running(TIMED);
    let page = rig.page();
    let got = rig.together(&[
        (Who::Cpu(0), seamcall(Leaf::MEM_SEPT_ADD, [0x20_0000 | 1, run.td.tdr, page, 0])),
        (Who::Cpu(1), delay(400)),
        (Who::Cpu(1), seamcall(Leaf::MEM_RANGE_BLOCK, [0, run.td.tdr, 0, 0])),
    ]);
    assert_eq!(status_of(got[0]), Status::SUCCESS);
    assert_eq!(status_of(got[2]), Status::OPERAND_BUSY.about(Operand::SEPT_TREE));
}

#[test]
fn accept_holds_its_entry_against_the_host_who_then_comes_first() {
    // architecture.md §7.2 "SEPT-entry lock": the host gets BUSY and its priority, the guest gets BUSY until the host came.
    let (mut rig, run) = running(TIMED);
    let large = rig.block(2 << 20);
    rig.sept(&run.td, 0x20_0000, 1);
    rig.ok(0, Leaf::MEM_PAGE_AUG, [0x20_0000 | 1, run.td.tdr, large, 0]);
    let (tdvpr, tdr) = (run.vcpus[0].tdvpr, run.td.tdr);
    let accept = tdcall(GuestLeaf::MEM_PAGE_ACCEPT, 0x20_0000 | 1);
    let block = seamcall(Leaf::MEM_RANGE_BLOCK, [0x20_0000 | 1, tdr, 0, 0]);
    let got = rig.together(&[
        (Who::Cpu(0), seamcall(Leaf::VP_ENTER, [tdvpr, 0, 0, 0])),
        (Who::Guest(tdvpr), accept),
        (Who::Cpu(1), delay(20_000)),
        (Who::Cpu(1), block),
    ]);
    assert_eq!(status_of(got[3]), Status::OPERAND_BUSY.about(RCX));
    assert_eq!(status_of(got[1]), Status::SUCCESS);
    // The host's priority has stayed: the guest's next attempt is refused, until the host has been there.
    rig.enter(0, run.vcpus[0]);
    let again = rig.tdcall(run.vcpus[0], GuestLeaf::MEM_PAGE_ACCEPT, 0x20_0000 | 1);
    assert_eq!(status_of(again), Status::OPERAND_BUSY.about(RCX));
    assert_eq!(status_of(rig.execute(rig.host(1), &block)), Status::SUCCESS);
    let outcome = rig.tdcall(run.vcpus[0], GuestLeaf::MEM_PAGE_ACCEPT, 0x20_0000 | 1);
    assert_eq!(outcome.to_string(), "td-exit 48 gpa=0x200000", "blocked");
}

#[test]
fn an_ipi_ends_accept_of_2_mib_between_chunks_and_the_guest_goes_on_where_it_was() {
    // architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT", §7.11.
    let (mut rig, run) = running(TIMED);
    let large = rig.block(2 << 20);
    let tables = rig.sept(&run.td, 0x20_0000, 1);
    assert!(tables.is_empty(), "the table of level 1 is there");
    rig.ok(0, Leaf::MEM_PAGE_AUG, [0x20_0000 | 1, run.td.tdr, large, 0]);
    let tdvpr = run.vcpus[0].tdvpr;
    let accept = tdcall(GuestLeaf::MEM_PAGE_ACCEPT, 0x20_0000 | 1);
    let enter = seamcall(Leaf::VP_ENTER, [tdvpr, 0, 0, 0]);
    let got = rig.together(&[
        (Who::Cpu(0), enter),
        (Who::Guest(tdvpr), accept),
        (Who::Hw, delay(60_000)),
        (Who::Hw, text("irq 0")),
    ]);
    assert_eq!(got[1], Outcome::TdExit { reason: sim_core::tdx::ExitReason(1), gpa: 0 });
    assert_eq!(status_of(got[0]), Status(1));
    let entry = |rig: &Rig| rig.m.module().sept_entry(Page(run.tables[1] >> 12), 1).unwrap();
    let done = entry(&rig).accept_counter();
    assert!(done > 0 && done < 511, "{done}");
    let zeroed = |rig: &Rig, chunk: u64| rig.writer(large + (chunk << 12)) == Some(HKID_A);
    assert!(zeroed(&rig, 0) && zeroed(&rig, u64::from(done) - 1) && !zeroed(&rig, 500));
    // Again: only the rest is zeroed.
    let before = rig.m.counts().controller_writes;
    let got = rig.together(&[(Who::Cpu(0), enter), (Who::Guest(tdvpr), accept)]);
    assert_eq!(status_of(got[1]), Status::SUCCESS);
    let written = rig.m.counts().controller_writes - before;
    let rest = 64 * (512 - u64::from(done));
    assert!((rest..rest + 64).contains(&written), "{written} lines for {rest}");
}

#[test]
fn an_ipi_ends_a_leaf_that_can_be_interrupted_and_is_kept_from_one_that_cannot() {
    // architecture.md §7.11.
    let (mut rig, run) = running(TIMED);
    let tdr = run.td.tdr;
    rig.ok(0, Leaf::MNG_VPFLUSHDONE, [tdr, 0, 0, 0]);
    let wb = |resume| seamcall(Leaf::PHYMEM_CACHE_WB, [resume, 0, 0, 0]);
    let got =
        rig.together(&[(Who::Cpu(0), wb(0)), (Who::Hw, delay(300)), (Who::Hw, text("irq 0"))]);
    assert_eq!(status_of(got[0]), Status::INTERRUPTED_RESUMABLE);
    assert_eq!(status_of(rig.execute(rig.host(0), &wb(1))), Status::SUCCESS);
    // RECLAIM does not look; the interrupt is the host's when it is back, and ends nothing later.
    rig.ok(2, Leaf::PHYMEM_CACHE_WB, [0; 4]);
    rig.ok(0, Leaf::MNG_KEY_FREEID, [tdr, 0, 0, 0]);
    let got = rig.together(&[
        (Who::Cpu(0), seamcall(Leaf::PHYMEM_PAGE_RECLAIM, [run.page, 0, 0, 0])),
        (Who::Hw, delay(300)),
        (Who::Hw, text("irq 0")),
    ]);
    assert_eq!(status_of(got[0]), Status::SUCCESS);
}

#[test]
fn an_interrupt_during_the_guests_load_took_it_away_before_its_machine_check() {
    // The load retires on poison; the interrupt comes while memory still answers. Whatever the moment, the TD is dead.
    let (mut rig, run) = running(TIMED);
    rig.wbinvd();
    rig.hw(&format!("inject-ue [{:#x}]", run.page));
    let tdvpr = run.vcpus[0].tdvpr;
    for wait in (1500..4000).step_by(25) {
        let mut rig = rig.clone();
        let got = rig.together(&[
            (Who::Cpu(0), seamcall(Leaf::VP_ENTER, [tdvpr, 0, 0, 0])),
            (Who::Guest(tdvpr), text("load [0x0] 8")),
            (Who::Hw, delay(wait)),
            (Who::Hw, text("irq 0")),
        ]);
        match got[1] {
            Outcome::MachineCheck { .. } => {
                assert_eq!(status_of(got[0]), Status(0x6000_0005_0000_0000), "irq at {wait} ns");
                assert!(rig.m.module().td(Page(run.td.tdr >> 12)).unwrap().fatal);
            }
            // The interrupt was first: the guest never began.
            other => {
                assert_eq!(other.to_string(), "not-run not-entered", "irq at {wait} ns");
                assert_eq!(status_of(got[0]), Status(1));
            }
        }
    }
}

#[test]
fn two_agents_of_one_vcpu_execute_one_after_the_other() {
    let (mut rig, run) = running(TIMED);
    let tdvpr = run.vcpus[0].tdvpr;
    let info = tdcall(GuestLeaf::VP_INFO, 0);
    let first = rig.program(
        &[
            (Who::Cpu(0), seamcall(Leaf::VP_ENTER, [tdvpr, 0, 0, 0])),
            (Who::Guest(tdvpr), info),
            (Who::Guest(tdvpr), text("load [0x0] 8")),
        ],
        Order::Concurrent,
    );
    let mut program = first.clone();
    // A second agent of the same VCPU does the second operation.
    program.agents.push(program.agents[1].clone());
    if let machine::Item::Op(agent, _) = &mut program.items[2] {
        *agent = machine::AgentId(2);
    }
    let records = rig.m.run(&program, &mut rig.os);
    let got = by_item(&records);
    assert_eq!(status_of(got[1]), Status::SUCCESS);
    assert_eq!(tdx_common::loaded(got[2]).1, tdx_common::IMAGE_WORD);
    let of = |item: u32| records.iter().find(|r| r.item == item).unwrap();
    assert!(of(2).begin >= of(1).begin && of(2).end > of(1).end);
}

#[test]
fn a_guest_that_nobody_enters_does_not_run_any_of_its_operations() {
    let (mut rig, run) = running(TIMED);
    let tdvpr = run.vcpus[0].tdvpr;
    let load = text("load [0x0] 8");
    let got = rig.together(&[
        (Who::Guest(tdvpr), load),
        (Who::Guest(tdvpr), load),
        (Who::Cpu(0), delay(100)),
        (Who::All, load),
        (Who::Guest(tdvpr), load),
    ]);
    assert_eq!(got.len(), 4, "every operation has a record");
    let never = got.iter().filter(|o| o.to_string() == "not-run not-entered").count();
    assert_eq!(never, 3);
}

#[test]
fn a_tdcall_that_is_not_modelled_ends_the_hosts_call_as_well() {
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        rig.enter(1, run.vcpus[0]);
        let outcome = rig.tdcall(run.vcpus[0], GuestLeaf::VM_RD, 0);
        assert_eq!(outcome.to_string(), "not-run not-modelled");
        let ended = rig.m.take_finished();
        assert_eq!(ended.len(), 1);
        assert_eq!(
            ended[0].outcome.to_string(),
            "not-run not-modelled",
            "never taken for a success"
        );
    }
}

#[test]
fn a_leaf_takes_time_and_others_run_meanwhile() {
    let (mut rig, run) = running(TIMED);
    let page = rig.page();
    let add = seamcall(Leaf::MEM_SEPT_ADD, [0x20_0000 | 1, run.td.tdr, page, 0]);
    let mut items = vec![(Who::Cpu(0), add)];
    items.extend(
        (0..20).map(|i| (Who::Cpu(1), text(&format!("load [{:#x}] 8", 0x1_9400_0000u64 + 64 * i)))),
    );
    let program = rig.program(&items, Order::Concurrent);
    let records = rig.m.run(&program, &mut rig.os);
    let leaf = records.iter().find(|r| r.item == 0).unwrap();
    assert_eq!(status_of(leaf.outcome), Status::SUCCESS);
    let during = records.iter().filter(|r| r.item > 0 && r.end < leaf.end && r.begin > leaf.begin);
    assert!(during.count() > 5);
    assert!(leaf.end.since(leaf.begin) > Ps::ns(1000));
}

#[test]
fn a_core_in_the_module_goes_down_with_a_broadcast_machine_check() {
    // architecture.md §6.3: any machine check in SEAM root; LMCE off is a broadcast.
    let mut spec = tdx_common::spr(TIMED.integrity);
    spec.mce.lmce = false;
    let mut rig = Rig::ready(&spec, TIMED);
    let run = rig.running(HKID_A, 0, 1);
    let page = rig.page();
    let at = tdx_common::HOST + 0x9_0000;
    rig.hw(&format!("inject-ue [{at:#x}]"));
    let got = rig.together(&[
        (Who::Cpu(0), seamcall(Leaf::MEM_SEPT_ADD, [0x20_0000 | 1, run.td.tdr, page, 0])),
        (Who::Cpu(1), delay(500)),
        (Who::Cpu(1), text(&format!("load [{at:#x}] 8"))),
    ]);
    assert!(matches!(got[2], Outcome::MachineCheck { .. }));
    // The host's handler panics as well: nobody hears of the leaf again.
    assert!(rig.m.is_tdx_disabled());
    assert!(matches!(got[0], Outcome::NotRun(_)), "{}", got[0]);
}

// ---------------------------------------------------------------------------------------------------- saved and restored

/// A program with leaves, guests, interrupts and conflicts.
fn busy_program(rig: &mut Rig, run: &tdx_common::Running) -> Vec<(Who, Op)> {
    let tdr = run.td.tdr;
    let pages: Vec<u64> = (0..4).map(|_| rig.page()).collect();
    let [v0, v1] = [run.vcpus[0].tdvpr, run.vcpus[1].tdvpr];
    let enter = |v| seamcall(Leaf::VP_ENTER, [v, 0, 0, 0]);
    vec![
        (Who::Cpu(0), enter(v0)),
        (Who::Guest(v0), text("load [0x0] 8")),
        (Who::Cpu(1), aug(tdr, 0x1000, pages[0])),
        (Who::Cpu(2), aug(tdr, 0x2000, pages[1])),
        (Who::Guest(v0), text("store [0x40] 8 0x5")),
        (Who::Guest(v0), tdcall(GuestLeaf::MEM_PAGE_ACCEPT, 0x1000)),
        (Who::Cpu(1), enter(v1)),
        (Who::Guest(v1), text("load [0x2000] 8")),
        (Who::Cpu(2), seamcall(Leaf::MEM_RANGE_BLOCK, [0, tdr, 0, 0])),
        (Who::Cpu(2), seamcall(Leaf::MEM_TRACK, [tdr, 0, 0, 0])),
        (Who::Cpu(2), text("irq 0")),
        (Who::Cpu(2), seamcall(Leaf::MEM_PAGE_REMOVE, [0, tdr, 0, 0])),
        (Who::Cpu(0), enter(v0)),
        (Who::Guest(v0), text("load [0x0] 8")),
        (Who::Cpu(3), seamcall(Leaf::MEM_SEPT_ADD, [0x20_0000 | 1, tdr, pages[2], 0])),
    ]
}

#[test]
fn a_machine_saved_between_any_two_beats_goes_on_the_same() {
    let (mut rig, run) = running(TIMED);
    let items = busy_program(&mut rig, &run);
    let program = rig.program(&items, Order::Concurrent);
    let (mut m, mut os) = (rig.m, rig.os);
    let mut state = m.start(&program, &mut os);
    let mut saved = Vec::new();
    let mut beats = 0;
    loop {
        // A leaf in flight among what is saved: not only the quiet moments.
        if beats % 97 == 0 {
            saved.push(postcard::to_stdvec(&(&m, &state)).unwrap());
        }
        beats += 1;
        if !m.advance(&mut state, &program, &mut os) {
            break;
        }
    }
    assert!(saved.len() >= 5, "{beats} beats");
    let in_flight = |bytes: &Vec<u8>| {
        let (m, _): (Machine, Run) = postcard::from_bytes(bytes).unwrap();
        !m.module().is_quiet()
    };
    assert!(saved.iter().any(in_flight), "some were saved inside a leaf");
    for bytes in saved {
        let (mut again, mut from): (Machine, Run) = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(postcard::to_stdvec(&(&again, &from)).unwrap(), bytes);
        let mut os = tdx_common::common::Os::default();
        while again.advance(&mut from, &program, &mut os) {}
        assert_eq!(from.records(), state.records());
        assert!(again == m, "the machine has gone another way");
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let once = || {
        let (mut rig, run) = running(TIMED);
        let items = busy_program(&mut rig, &run);
        let got = rig.together(&items);
        (got, postcard::to_stdvec(&rig.m).unwrap())
    };
    assert!(once() == once());
}

// -------------------------------------------------------------------------------------------------------------- properties

/// Something done with one of four guest pages.
#[derive(Clone, Copy, Debug)]
enum Step {
    Aug(u8),
    Block(u8),
    Unblock(u8),
    Track,
    Remove(u8),
    Relocate(u8),
    /// VCPU on the core of the same number.
    Enter(u8),
    Leave(u8),
    /// The way of a host that does it right: block, track, send the guests out, remove.
    Gone(u8),
    Accept(u8, u8),
    Load(u8, u8),
    Store(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..4u8;
    let cpu = 0..2u8;
    prop_oneof![
        1 => page.clone().prop_map(Step::Aug),
        3 => page.clone().prop_map(Step::Block),
        1 => page.clone().prop_map(Step::Unblock),
        2 => Just(Step::Track),
        2 => page.clone().prop_map(Step::Remove),
        1 => page.clone().prop_map(Step::Relocate),
        2 => cpu.clone().prop_map(Step::Enter),
        1 => cpu.clone().prop_map(Step::Leave),
        2 => page.clone().prop_map(Step::Gone),
        1 => (cpu.clone(), page.clone()).prop_map(|(c, p)| Step::Accept(c, p)),
        3 => (cpu.clone(), page.clone()).prop_map(|(c, p)| Step::Load(c, p)),
        2 => (cpu, page).prop_map(|(c, p)| Step::Store(c, p)),
    ]
}

/// Does a step; what came of it, and the host page that the TD has lost by it.
fn take(rig: &mut Rig, run: &tdx_common::Running, step: Step) -> (String, Option<u64>) {
    let Step::Gone(page) = step else { return take_one(rig, run, step) };
    let way = [
        Step::Load(0, page),
        Step::Load(1, page),
        Step::Block(page),
        Step::Track,
        Step::Leave(0),
        Step::Leave(1),
        Step::Remove(page),
        Step::Enter(0),
        Step::Enter(1),
    ];
    let mut all = (String::new(), None);
    for step in way {
        let (outcome, lost) = take_one(rig, run, step);
        all.0 += &outcome;
        all.1 = all.1.or(lost);
    }
    all
}
fn take_one(rig: &mut Rig, run: &tdx_common::Running, step: Step) -> (String, Option<u64>) {
    let tdr = run.td.tdr;
    let gpa = |page: u8| u64::from(page) << 12;
    let call = |rig: &mut Rig, leaf, regs| rig.call(3, leaf, regs);
    let mut lost = None;
    let outcome = match step {
        Step::Aug(p) => {
            let page = rig.page();
            call(rig, Leaf::MEM_PAGE_AUG, [gpa(p), tdr, page, 0])
        }
        Step::Block(p) => call(rig, Leaf::MEM_RANGE_BLOCK, [gpa(p), tdr, 0, 0]),
        Step::Unblock(p) => call(rig, Leaf::MEM_RANGE_UNBLOCK, [gpa(p), tdr, 0, 0]),
        Step::Track => call(rig, Leaf::MEM_TRACK, [tdr, 0, 0, 0]),
        Step::Remove(_) | Step::Relocate(_) => {
            let page = rig.page();
            let (leaf, p) = match step {
                Step::Remove(p) => (Leaf::MEM_PAGE_REMOVE, p),
                Step::Relocate(p) => (Leaf::MEM_PAGE_RELOCATE, p),
                _ => unreachable!(),
            };
            let outcome = call(rig, leaf, [gpa(p), tdr, page, 0]);
            if let Outcome::Call(result) = outcome
                && result.status == Status::SUCCESS
            {
                lost = Some(result.out[0]);
            }
            outcome
        }
        Step::Gone(_) => unreachable!("several steps"),
        Step::Enter(c) if rig.m.is_in_guest(c.into()) => Outcome::Done,
        Step::Enter(c) => {
            rig.call(c.into(), Leaf::VP_ENTER, [run.vcpus[usize::from(c)].tdvpr, 0, 0, 0])
        }
        Step::Leave(c) if rig.m.is_in_guest(c.into()) => rig.hw(&format!("irq {c}")),
        Step::Leave(_) => Outcome::Done,
        Step::Accept(c, p) => {
            rig.tdcall(run.vcpus[usize::from(c)], GuestLeaf::MEM_PAGE_ACCEPT, gpa(p))
        }
        Step::Load(c, p) => {
            rig.guest(run.vcpus[usize::from(c)], &format!("load [{:#x}] 8", gpa(p)))
        }
        Step::Store(c, p) => {
            rig.guest(run.vcpus[usize::from(c)], &format!("store [{:#x}] 8 {p}", gpa(p) + 8))
        }
    };
    let ended: Vec<String> = rig.m.take_finished().iter().map(|r| r.outcome.to_string()).collect();
    (format!("{outcome} {ended:?}"), lost)
}

/// An operand of a random leaf.
#[derive(Clone, Copy, Debug)]
enum What {
    Tdr,
    Tdvpr(usize),
    Table(usize),
    Free(u64),
    Gpa(u64, u64),
    Number(u64),
}

fn operand() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => Just(What::Tdr),
        1 => (0..2usize).prop_map(What::Tdvpr),
        1 => (0..3usize).prop_map(What::Table),
        3 => (0..16u64).prop_map(What::Free),
        3 => (0..4u64, 0..2u64).prop_map(|(page, level)| What::Gpa(page, level)),
        1 => (0..70u64).prop_map(What::Number),
    ]
}

/// Leaves that a random call may be.
const LEAVES: [Leaf; 24] = [
    Leaf::MNG_CREATE,
    Leaf::MNG_KEY_CONFIG,
    Leaf::MNG_ADDCX,
    Leaf::VP_CREATE,
    Leaf::VP_ADDCX,
    Leaf::VP_INIT,
    Leaf::VP_ENTER,
    Leaf::VP_FLUSH,
    Leaf::MEM_PAGE_AUG,
    Leaf::MEM_PAGE_AUG,
    Leaf::MEM_SEPT_ADD,
    Leaf::MEM_RANGE_BLOCK,
    Leaf::MEM_RANGE_UNBLOCK,
    Leaf::MEM_TRACK,
    Leaf::MEM_PAGE_REMOVE,
    Leaf::MEM_PAGE_RELOCATE,
    Leaf::MEM_SEPT_REMOVE,
    Leaf::MEM_SEPT_RD,
    Leaf::MNG_VPFLUSHDONE,
    Leaf::PHYMEM_CACHE_WB,
    Leaf::MNG_KEY_FREEID,
    Leaf::PHYMEM_PAGE_RECLAIM,
    Leaf::PHYMEM_PAGE_WBINVD,
    Leaf::PHYMEM_PAGE_RDMD,
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn after_a_page_is_gone_no_tlb_maps_it_and_both_speeds_agree(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        // verification.md E3, E4.
        let (mut timed, run) = running(TIMED);
        let (mut functional, same) = running(FUNCTIONAL);
        prop_assert_eq!(&run.tables, &same.tables);
        let tdr = Page(run.td.tdr >> 12);
        let mut gone = std::collections::BTreeSet::new();
        for step in steps {
            let (outcome, lost) = take(&mut timed, &run, step);
            let (without_time, _) = take(&mut functional, &run, step);
            prop_assert_eq!(&outcome, &without_time, "{:?}", step);
            gone.extend(lost);
            // A core whose guest has left may keep a translation: the next entry flushes it before anybody uses it.
            for core in (0..4).filter(|core| timed.m.is_in_guest(*core)) {
                for (td, _, to) in timed.m.tlb(core).unwrap().iter() {
                    let stale = td == tdr && gone.contains(&to.page.hpa().0);
                    prop_assert!(!stale, "core {core} still maps {to:x?} after {step:?}");
                }
            }
            let td = timed.m.module().td(tdr).unwrap();
            let mut inside = [0u32; 2];
            for core in 0..2 {
                if timed.m.is_in_guest(core) {
                    let vcpu = Page(run.vcpus[usize::from(core)].tdvpr >> 12);
                    let epoch = timed.m.module().vcpu(vcpu).unwrap().epoch;
                    prop_assert!(epoch == td.epoch || epoch + 1 == td.epoch);
                    inside[(epoch & 1) as usize] += 1;
                }
            }
            prop_assert_eq!(inside, td.refcount);
        }
        // Time itself is where they may differ: what was read of it is the TSC.
        let same_structures = timed.m.module().sept_pages() == functional.m.module().sept_pages();
        prop_assert!(same_structures);
        for table in timed.m.module().sept_pages() {
            for index in 0..512 {
                let of = |rig: &Rig| rig.m.module().sept_entry(table, index);
                prop_assert_eq!(of(&timed), of(&functional));
            }
        }
        for pa in (run.td.tdr..timed.next_page).step_by(4096) {
            let of = |rig: &Rig| rig.m.module().pamt(pa, tdx_module::pamt::Size::Small);
            prop_assert_eq!(of(&timed), of(&functional));
        }
        for rig in [&mut timed, &mut functional] {
            for core in 0..2 {
                if rig.m.is_in_guest(core) {
                    rig.hw(&format!("irq {core}"));
                }
            }
            rig.wbinvd();
            rig.assert_sound();
        }
        // Every line of the pages that were in play, and of what the module keeps.
        let from = run.td.tdr;
        for at in (from..timed.next_page).step_by(64) {
            let line = sim_core::Line(at >> 6);
            prop_assert_eq!(timed.m.memory().line(line), functional.m.memory().line(line), "{:#x}", at);
        }
    }

    #[test]
    fn random_leaves_with_random_operands_come_to_the_same_at_both_speeds(
        calls in prop::collection::vec((0..LEAVES.len(), 0..4u16, operand(), operand(), operand()), 1..40),
    ) {
        let (mut timed, run) = running(TIMED);
        let (mut functional, _) = running(FUNCTIONAL);
        let free = timed.next_page;
        let value = |o: What| match o {
            What::Tdr => run.td.tdr,
            What::Tdvpr(i) => run.vcpus[i].tdvpr,
            What::Table(i) => run.tables[i],
            What::Free(i) => free + (i << 12),
            What::Gpa(page, level) => page << 12 | level,
            What::Number(n) => n,
        };
        for (leaf, core, rcx, rdx, r8) in calls {
            let regs = [value(rcx), value(rdx), value(r8), tdx_common::IMAGE];
            let leaf = LEAVES[leaf];
            let got = [&mut timed, &mut functional].map(|rig| {
                let outcome = rig.call(core, leaf, regs);
                if rig.m.is_in_guest(core) {
                    rig.kick(core);
                }
                outcome
            });
            prop_assert_eq!(got[0], got[1], "{} {:x?}", leaf, regs);
        }
        for rig in [&mut timed, &mut functional] {
            rig.wbinvd();
            rig.assert_sound();
        }
        for at in (run.td.tdr..free + (16 << 12)).step_by(64) {
            let line = sim_core::Line(at >> 6);
            prop_assert_eq!(timed.m.memory().line(line), functional.m.memory().line(line), "{:#x}", at);
        }
        for pa in (run.td.tdr..free + (16 << 12)).step_by(4096) {
            let of = |rig: &Rig| rig.m.module().pamt(pa, tdx_module::pamt::Size::Small);
            prop_assert_eq!(of(&timed), of(&functional));
        }
    }

    #[test]
    fn work_that_is_independent_comes_to_the_same_in_order_and_side_by_side(
        pages in prop::collection::vec(0u64..16, 1..8),
    ) {
        let (rig, run) = running(TIMED);
        let mut base = rig;
        let mut items = Vec::new();
        let mut augmented = std::collections::BTreeSet::new();
        for page in pages {
            if augmented.insert(page) {
                let hpa = base.page();
                // One processor does all calls; the other works on its own memory.
                items.push((Who::Cpu(0), aug(run.td.tdr, 0x1000 + (page << 12), hpa)));
            }
            let at = 0x1_9500_0000u64 + 64 * page;
            items.push((Who::Cpu(1), text(&format!("lock-xadd [{at:#x}] 8 1"))));
        }
        let outcomes = |order| {
            let mut rig = base.clone();
            let program = rig.program(&items, order);
            let records = rig.m.run(&program, &mut rig.os);
            (by_item(&records), rig)
        };
        let ((one, a), (two, b)) = (outcomes(Order::Program), outcomes(Order::Concurrent));
        prop_assert_eq!(one, two);
        prop_assert!(a.m.module() == b.m.module());
    }
}

#[test]
fn a_stale_translation_reaches_memory_until_the_guest_has_left_and_come_back() {
    // architecture.md §7.8: BLOCK flushes nothing by itself.
    for config in [FUNCTIONAL, TIMED] {
        let (mut rig, run) = running(config);
        let (vcpu, tdr) = (run.vcpus[0], run.td.tdr);
        rig.enter(0, vcpu);
        rig.reads(vcpu, "load [0x0] 8");
        rig.ok(1, Leaf::MEM_RANGE_BLOCK, [0, tdr, 0, 0]);
        assert_eq!(rig.says(vcpu, "store [0x8] 8 0x31"), "done");
        assert_eq!(rig.seen(run.page + 8, HKID_A), 0x31);
        let remove = [0, tdr, 0, 0];
        assert_eq!(
            rig.status(1, Leaf::MEM_PAGE_REMOVE, remove),
            Status::TLB_TRACKING_NOT_DONE.about(RCX)
        );
        rig.ok(1, Leaf::MEM_TRACK, [tdr, 0, 0, 0]);
        assert_eq!(
            rig.status(1, Leaf::MEM_PAGE_REMOVE, remove),
            Status::TLB_TRACKING_NOT_DONE.about(RCX)
        );
        assert_eq!(rig.says(vcpu, "store [0x8] 8 0x32"), "done");
        assert_eq!(rig.m.tlb(0).unwrap().iter().count(), 1);
        rig.kick(0);
        // The translation is still there, but nobody can use it: the next entry flushes.
        rig.ok(1, Leaf::MEM_PAGE_REMOVE, remove);
        rig.enter(0, vcpu);
        assert_eq!(rig.m.tlb(0).unwrap().iter().count(), 0);
        assert_eq!(rig.says(vcpu, "load [0x8] 8"), "td-exit 48 gpa=0x8");
    }
}
