//! The machine against the reference model, and the module's answers before the monitor, on random programs with SEAMCALLs,
//! a guest and two processors: in order, and side by side.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

use machine::{AgentId, AgentKind, AgentSpec, Item, Machine, Options, Order, Program, Speed};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use scenarios::format::Scenario;
use scenarios::refine::{Checker, Depth, Disagreement};
use scenarios::report::CheckReport;
use scenarios::run::{Crypto, Request, linux, plan};
use sim_core::op::{CallRegs, IrqKind, MemType, Source, Value};
use sim_core::tdx::{GuestLeaf, Leaf};
use sim_core::{Addr, EventKind, Hpa, KeyId, Op};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// One TD with a VCPU and some pages, one that only has its key; free pages from 0x100100000 on.
const WORLD: &str = r#"
[scenario]
name = "world"
title = "A TD, and pages to do things with"
cite = ["verification.md §5.1"]
platform = "spr"
program = "cpu0 : mfence"

[tdx]
state = "ready"

[td.A]
hkid  = "priv1"
state = "runnable"
vcpus = 1
pages = ["0x0 add 0x100200000 fill=0x11", "0x1000 aug 0x100201000", "0x2000 aug 0x100202000"]

[td.B]
hkid  = "priv2"
state = "keyed"

[expect]
final = ["births 0"]
"#;

/// The machine after the set-up, with what follows it, and the first pages of the TDs: A's TDR and TDVPR, B's TDR.
struct World {
    machine: Machine,
    checker: Checker,
    td: u64,
    vcpu: u64,
    other: u64,
}

static WORLD_MADE: LazyLock<World> = LazyLock::new(|| {
    let scenario = Scenario::from_text("world.toml", WORLD).unwrap();
    let cells = plan(&scenario, &Request::default()).unwrap();
    let cell = &cells[0];
    let options = Options { speed: Speed::Timed, crypto: Crypto::Symbolic, seed: 5, log: true };
    let mut machine = Machine::new(cell.platform(), options).unwrap();
    let mut os = linux(cell.platform());
    let mut checker = Checker::new(&mut machine, Depth::Touched);
    let setup = cell.program().setup.as_ref().unwrap();
    checker.setup(setup, &mut machine, &mut os).unwrap();
    let of = |name: &str| cell.program().areas.iter().find(|a| a.name == name).unwrap().base;
    let (td, vcpu, other) = (of("A_TDR"), of("A_VP0"), of("B_TDR"));
    World { machine, checker, td, vcpu, other }
});

const CPUS: [(&str, AgentKind, u16); 4] = [
    ("cpu0", AgentKind::Kernel, 0),
    ("cpu1", AgentKind::Kernel, 1),
    ("g0", AgentKind::Guest, 0),
    ("hw", AgentKind::Hardware, 0),
];

fn pages() -> impl Strategy<Value = u64> {
    let world = &*WORLD_MADE;
    let free = select(vec![0x1_0010_0000u64, 0x1_0010_1000, 0x1_0010_2000]);
    let mapped = select(vec![0x1_0020_0000u64, 0x1_0020_1000, 0x1_0020_2000]);
    let control = select(vec![world.td, world.vcpu, world.other]);
    prop_oneof![6 => free, 4 => mapped, 2 => control]
}

fn gpas() -> impl Strategy<Value = u64> {
    select(vec![0u64, 0x1000, 0x2000, 0x3000, 0x4000, 0x20_0000])
}

fn seamcall() -> impl Strategy<Value = Op> {
    let world = &*WORLD_MADE;
    let td = || prop_oneof![9 => Just(world.td), 1 => Just(world.other)];
    let level = || prop_oneof![8 => Just(0u64), 1 => Just(1)];
    let mapping = || (gpas(), level()).prop_map(|(gpa, level)| gpa | level);
    let call = |leaf: Leaf, regs: [u64; 4]| {
        let [rcx, rdx, r8, r9] = regs;
        Op::Seamcall { leaf, version: 0, regs: CallRegs([rcx, rdx, r8, r9, 0, 0, 0, 0]) }
    };
    let mapped = select(vec![
        Leaf::MEM_RANGE_BLOCK,
        Leaf::MEM_RANGE_UNBLOCK,
        Leaf::MEM_PAGE_REMOVE,
        Leaf::MEM_SEPT_RD,
        Leaf::MEM_SEPT_REMOVE,
    ]);
    let one_page = select(vec![
        Leaf::PHYMEM_PAGE_RECLAIM,
        Leaf::PHYMEM_PAGE_RDMD,
        Leaf::MNG_VPFLUSHDONE,
        Leaf::MNG_KEY_FREEID,
        Leaf::VP_FLUSH,
    ]);
    let (vcpu, hkid) = (world.vcpu, 64u64);
    prop_oneof![
        5 => (mapping(), td(), pages()).prop_map(move |(m, td, page)| call(Leaf::MEM_PAGE_AUG, [m, td, page, 0])),
        2 => (mapping(), td(), pages()).prop_map(move |(m, td, page)| call(Leaf::MEM_SEPT_ADD, [m | 1, td, page, 0])),
        2 => (mapping(), td(), pages()).prop_map(move |(m, td, page)| call(Leaf::MEM_PAGE_RELOCATE, [m, td, page, 0])),
        8 => (mapped, mapping(), td()).prop_map(move |(leaf, m, td)| call(leaf, [m, td, 0, 0])),
        3 => td().prop_map(move |td| call(Leaf::MEM_TRACK, [td, 0, 0, 0])),
        4 => (one_page, pages()).prop_map(move |(leaf, page)| call(leaf, [page, 0, 0, 0])),
        1 => pages().prop_map(move |page| call(Leaf::MNG_CREATE, [page, hkid, 0, 0])),
        1 => pages().prop_map(move |page| call(Leaf::PHYMEM_PAGE_WBINVD, [page, 0, 0, 0])),
        1 => Just(call(Leaf::PHYMEM_CACHE_WB, [0; 4])),
        8 => Just(call(Leaf::VP_ENTER, [vcpu, 0, 0, 0])),
    ]
}

fn host() -> impl Strategy<Value = Op> {
    let line = (pages(), 0u64..3, prop_oneof![9 => Just(0u16), 1 => Just(1)])
        .prop_map(|(page, line, key)| Addr::new(Hpa(page + 64 * line), KeyId(key)));
    let line = line.boxed();
    prop_oneof![
        20 => seamcall(),
        3 => line.clone().prop_map(|at| Op::Load { at, bytes: 8, ty: MemType::Wb }),
        1 => line.clone()
            .prop_map(|at| Op::Store { at, bytes: 8, value: Value::Num(7), ty: MemType::Wb }),
        1 => line.clone().prop_map(|at| Op::NtStore { at, bytes: 8, value: Value::Num(9) }),
        1 => line.clone().prop_map(|dst| Op::Movdir64b { dst, src: Source::Fill(3) }),
        2 => line.prop_map(|at| Op::Clflush { at }),
        1 => Just(Op::Mfence),
        1 => Just(Op::Wbinvd),
        2 => (1u64..40).prop_map(|n| Op::Delay { time: sim_core::Ps::ns(1000 * n) }),
    ]
}

fn guest() -> impl Strategy<Value = Op> {
    let at = || (gpas(), 0u64..70).prop_map(|(gpa, o)| Addr::new(Hpa(gpa + 60 * o), KeyId(0)));
    let call = |leaf: GuestLeaf, regs: [u64; 2]| {
        let regs = CallRegs([regs[0], regs[1], 0, 0, 0, 0, 0, 0]);
        Op::Tdcall { leaf, version: 0, regs }
    };
    prop_oneof![
        4 => at().prop_map(|at| Op::Load { at, bytes: 8, ty: MemType::Wb }),
        4 => (at(), any::<u64>()).prop_map(|(at, n)| {
            Op::Store { at, bytes: 8, value: Value::Num(n), ty: MemType::Wb }
        }),
        1 => at().prop_map(|at| Op::RepStosb { at, bytes: 100, value: 5 }),
        1 => at().prop_map(|at| Op::LockXadd { at, bytes: 8, value: 3 }),
        1 => at().prop_map(|at| Op::Clflushopt { at }),
        1 => Just(Op::Mfence),
        4 => gpas().prop_map(move |gpa| call(GuestLeaf::MEM_PAGE_ACCEPT, [gpa, 0])),
        1 => Just(call(GuestLeaf::VP_INFO, [0, 0])),
        1 => Just(call(GuestLeaf::VP_VMCALL, [0, 0])),
    ]
}

fn hardware() -> impl Strategy<Value = Op> {
    let line = (pages(), 0u64..3, select(vec![0u16, 41, 65]))
        .prop_map(|(page, line, key)| Addr::new(Hpa(page + 64 * line), KeyId(key)))
        .boxed();
    prop_oneof![
        6 => line.clone().prop_map(|at| Op::Evict { at }),
        1 => line.clone().prop_map(|at| Op::InjectUe { at }),
        1 => line.prop_map(|at| Op::FlipTd { at }),
        2 => (0u32..2).prop_map(|core| Op::Irq { core, kind: IrqKind::Interrupt }),
    ]
}

fn items() -> impl Strategy<Value = Vec<(u16, Op)>> {
    let one = prop_oneof![
        6 => host().prop_map(|op| (0, op)),
        4 => host().prop_map(|op| (1, op)),
        5 => guest().prop_map(|op| (2, op)),
        1 => hardware().prop_map(|op| (3, op)),
    ];
    prop::collection::vec(one, 1..30)
}

fn program(items: &[(u16, Op)], order: Order) -> Program {
    let world = &*WORLD_MADE;
    let agents = CPUS.map(|(name, kind, core)| AgentSpec {
        name: name.to_owned(),
        kind,
        core,
        keyid: KeyId(0),
        vcpu: (kind == AgentKind::Guest).then_some(Hpa(world.vcpu)),
    });
    let items = items.iter().map(|(id, op)| Item::Op(AgentId(*id), *op)).collect();
    Program { agents: agents.to_vec(), items, order }
}

fn replay(
    items: &[(u16, Op)],
    order: Order,
    speed: Speed,
) -> (Machine, CheckReport, Result<(), Disagreement>) {
    let world = &*WORLD_MADE;
    let (mut machine, mut checker) = (world.machine.clone(), world.checker.clone());
    machine.set_speed(speed);
    let mut os = linux(machine.spec());
    checker.program(&program(items, order), &mut machine, &mut os);
    let (report, verdict) = checker.outcome();
    (machine, report, verdict)
}

const WAYS: [(Order, Speed); 3] = [
    (Order::Program, Speed::Functional),
    (Order::Program, Speed::Timed),
    (Order::Concurrent, Speed::Timed),
];

/// More cases on request: `PROPTEST_CASES`.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { ProptestConfig::default().cases } else { cases };
    ProptestConfig {
        cases,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(60))]
    #[test]
    fn every_run_with_calls_and_guests_is_one_that_reference_and_monitor_allow(items in items()) {
        for (order, speed) in WAYS {
            let (machine, report, verdict) = replay(&items, order, speed);
            if let Err(why) = verdict {
                prop_assert!(false, "{order:?} {speed:?}: {why}\n{items:?}");
            }
            prop_assert_eq!(report.operations, items.len() as u64);
            let broken = machine.conservation();
            prop_assert!(broken.is_empty(), "{}", broken.join("; "));
        }
    }
}

#[test]
fn random_programs_with_calls_reach_success_failure_guests_and_company() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    let mut judged = 0;
    for n in 0..40 {
        let items = items().new_tree(&mut runner).unwrap().current();
        let (order, speed) = WAYS[n % WAYS.len()];
        let (machine, report, verdict) = replay(&items, order, speed);
        verdict.unwrap();
        judged += report.calls_judged;
        for event in machine.trace().events() {
            match event.kind {
                EventKind::Returned { guest, status, .. } => {
                    seen.insert((guest, status.0 >> 63 == 0));
                }
                EventKind::TdEnter { .. } => {
                    seen.insert((true, true));
                }
                _ => {}
            }
        }
    }
    assert!(seen.contains(&(false, true)) && seen.contains(&(false, false)), "{seen:?}");
    assert!(seen.contains(&(true, true)), "{seen:?}");
    assert!(judged > 300, "{judged}");
}

/// TDH.MEM.TRACK moves TD_EPOCH between the guest's TDCALL and the exit that it ends in: that change is not the exit's.
#[test]
fn what_another_processor_changes_between_a_tdcall_and_its_exit_is_not_put_down_to_the_exit() {
    let world = &*WORLD_MADE;
    let call = |leaf, regs: [u64; 3]| {
        let [rcx, rdx, r8] = regs;
        Op::Seamcall { leaf, version: 0, regs: CallRegs([rcx, rdx, r8, 0, 0, 0, 0, 0]) }
    };
    let accept = Op::Tdcall {
        leaf: GuestLeaf::MEM_PAGE_ACCEPT,
        version: 0,
        regs: CallRegs([0x3000, 0, 0, 0, 0, 0, 0, 0]),
    };
    let items = [
        (0, call(Leaf::VP_ENTER, [world.vcpu, 0, 0])),
        (2, accept),
        (1, call(Leaf::MEM_PAGE_AUG, [0, world.td, world.td + 0x10_0000])),
        (1, call(Leaf::MEM_TRACK, [world.td, 0, 0])),
    ];
    let (_, report, verdict) = replay(&items, Order::Concurrent, Speed::Timed);
    verdict.unwrap();
    // The TDCALL, the entry with its exit, and both calls of the other processor.
    assert_eq!((report.calls_judged >= 5, report.calls_not_judged), (true, 0), "{report:?}");
}

#[test]
fn a_guest_that_runs_beside_another_processor_is_followed_to_its_loads() {
    let world = &*WORLD_MADE;
    let enter = Op::Seamcall {
        leaf: Leaf::VP_ENTER,
        version: 0,
        regs: CallRegs([world.vcpu, 0, 0, 0, 0, 0, 0, 0]),
    };
    let load = Op::Load { at: Addr::new(Hpa(0), KeyId(0)), bytes: 8, ty: MemType::Wb };
    for (order, speed) in WAYS {
        let items = [(0, enter), (2, load), (1, Op::Wbinvd)];
        let (machine, report, verdict) = replay(&items, order, speed);
        verdict.unwrap();
        assert_eq!(report.operations, 3);
        // TDH.VP.ENTER, the exit, and the page walk of four levels are in it.
        assert!(report.transitions > 20, "{report:?}");
        let filled = machine.trace().events().iter().any(|e| {
            matches!(e.kind, EventKind::Fill { at, .. } if at.line() == Hpa(0x1_0020_0000).line())
        });
        assert!(filled, "{order:?} {speed:?}");
    }
}
