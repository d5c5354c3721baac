//! Random machines driven by random transitions: operations of all agents, changes between functional and timed, and a
//! machine put into bytes and out again. Every one of them is followed by the reference model
//! ([`scenarios::refine`]), which must allow it. The abstract machine of proptest-state-machine is the plan (platform,
//! agents, program so far); what may be seen is the reference's to say.
//!
//! Seeds of failures are kept in `proptest-regressions/` and run first. A failure prints the shrunk program as a scenario
//! file. `TDXSIM_CASES` times as many cases as by default are run (docs/verification.md).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "how many cases to run is for who runs the tests to say"
)]

use machine::{AgentKind, AgentSpec, Item, Machine, Order, Program, Speed};
use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use scenarios::format::Scenario;
use scenarios::refine::{Followed, Refinement};
use scenarios::relations::{Dice, Style, World, random_line, random_world};
use scenarios::report::Verdict;
use scenarios::run::{Request, linux, plan, run};
use scenarios::setup::Stage;
use sim_core::mca::{McConsequence, McContext, McRecord};
use sim_core::op::{CallRegs, IrqKind, MemType, Source, Value};
use sim_core::planted::{Fault, Planted};
use sim_core::port::McHandler;
use sim_core::tdx::{GuestLeaf, Leaf};
use sim_core::{Addr, Hpa, KeyId, Op, PAGE_BYTES};
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{LazyLock, OnceLock};

// ------------------------------------------------------------------------------------------------------ the abstract side

/// What is planned, and was done so far.
#[derive(Clone, Debug)]
struct Plan {
    /// Platform, agents, and the program so far.
    world: World,
    /// Which of [`BASES`] it begins with; power-on where absent.
    base: Option<usize>,
    /// The kernel lives through machine checks, so that more happens.
    lenient: bool,
    /// What besides operations was done, and after how many lines.
    remarks: Vec<(usize, &'static str)>,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Transition {
    /// An operation.
    Line(u16, Op),
    /// From now on so much of time is modelled.
    Speed(Speed),
    /// The machine and its run are put into bytes and out again.
    Restore,
}

impl Plan {
    fn does(mut self, transition: &Transition) -> Plan {
        let lines = self.world.steps.len();
        match transition {
            Transition::Line(agent, op) => self.world.push(*agent, *op),
            Transition::Speed(Speed::Timed) => self.remarks.push((lines, "timed from here on")),
            Transition::Speed(_) => self.remarks.push((lines, "functional from here on")),
            Transition::Restore => self.remarks.push((lines, "saved and restored here")),
        }
        self
    }

    /// As a scenario file, with what a file cannot say as comments.
    fn text(&self, why: &str) -> String {
        let mut told = why.lines().take(3).collect::<Vec<_>>().join("\n");
        if self.lenient {
            told.push_str("\nfound with a kernel that lives through machine checks");
        }
        for (line, what) in &self.remarks {
            told.push_str(&format!("\nafter line {line}: {what}"));
        }
        self.world.text("counterexample", &told, &BTreeMap::new(), &[])
    }
}

fn speeds(line: BoxedStrategy<Transition>) -> BoxedStrategy<Transition> {
    prop_oneof![
        20 => line,
        1 => Just(Transition::Speed(Speed::Timed)),
        1 => Just(Transition::Speed(Speed::Functional)),
        1 => Just(Transition::Restore),
    ]
    .boxed()
}

/// Memory alone: any platform, any operations, no TDX module.
#[derive(Clone, Debug)]
struct Memory;

impl ReferenceStateMachine for Memory {
    type State = Plan;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Plan> {
        let plan = |(seed, lenient): (u64, bool)| {
            let style = Style { length: 0, ..Style::RAW };
            let world = random_world(&mut Dice::new(seed), style).unwrap();
            Plan { world, base: None, lenient, remarks: Vec::new() }
        };
        (any::<u64>().no_shrink(), any::<bool>()).prop_map(plan).boxed()
    }
    fn transitions(plan: &Plan) -> BoxedStrategy<Transition> {
        let world = plan.world.clone();
        let line = any::<u64>().no_shrink().prop_map(move |seed| {
            let (agent, op) = random_line(&mut Dice::new(seed), &world).unwrap();
            Transition::Line(agent, op)
        });
        speeds(line.boxed())
    }
    fn apply(plan: Plan, transition: &Transition) -> Plan {
        plan.does(transition)
    }
}

/// Two TDs with guests on two cores, and leaves of the module in random order.
#[derive(Clone, Debug)]
struct Tdx;

impl ReferenceStateMachine for Tdx {
    type State = Plan;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Plan> {
        let plan = |base: usize| Plan {
            world: BASES.get(base).unwrap().world.clone(),
            base: Some(base),
            lenient: false,
            remarks: Vec::new(),
        };
        (0..BASES.len()).prop_map(plan).boxed()
    }
    fn transitions(plan: &Plan) -> BoxedStrategy<Transition> {
        let base = plan.base.unwrap();
        let entered = BASES.get(base).unwrap().facts.entered(&plan.world);
        let line = any::<u64>().no_shrink().prop_map(move |seed| {
            let facts = &BASES.get(base).unwrap().facts;
            let (agent, op) = facts.line(&mut Dice::new(seed), entered);
            Transition::Line(agent, op)
        });
        speeds(line.boxed())
    }
    fn apply(plan: Plan, transition: &Transition) -> Plan {
        plan.does(transition)
    }
}

// ---------------------------------------------------------------------------------------------------- the concrete side

/// Linux, or a kernel that lives on.
struct Os {
    lenient: bool,
    linux: host::mce::LinuxMce,
}

impl McHandler for Os {
    fn machine_check(&mut self, record: &McRecord) -> McConsequence {
        match record.context {
            McContext::Kernel | McContext::User if self.lenient => McConsequence::Survived,
            _ => self.linux.machine_check(record),
        }
    }
}

/// The timed machine, and the reference that follows it.
struct Followers {
    machine: Machine,
    refinement: Refinement,
    followed: Followed,
    program: Program,
    os: Os,
}

impl Followers {
    fn of(plan: &Plan) -> Followers {
        let world = &plan.world;
        let (mut machine, mut refinement) =
            match plan.base.filter(|_| world.planted == Planted::NONE) {
                Some(base) => BASES.get(base).unwrap().ready(),
                None => start(world),
            };
        machine.set_speed(world.speed);
        let mut os = Os { lenient: plan.lenient, linux: linux(machine.spec()) };
        let items = plan.world.steps.iter().flatten();
        let items: Vec<Item> = items.map(|s| Item::Op(machine::AgentId(s.agent), s.op)).collect();
        let program = Program { agents: world.agents.clone(), items, order: Order::Program };
        let followed = refinement.begin(&mut machine, &program, &mut os);
        let mut all = Followers { machine, refinement, followed, program, os };
        // What a world begins with: keys, and lines that have been written.
        for _ in 0..all.program.items.len() {
            all.advance(plan);
        }
        all
    }

    fn advance(&mut self, plan: &Plan) {
        let Followers { machine, refinement, followed, program, os } = self;
        if let Err(found) = refinement.advance(machine, followed, program, os, &mut ()) {
            panic!("{found}\n{}", plan.text(&found.to_string()));
        }
    }

    fn does(&mut self, plan: &Plan, transition: Transition) {
        match transition {
            Transition::Line(agent, op) => {
                self.refinement.expect(&op);
                self.program.items.push(Item::Op(machine::AgentId(agent), op));
                self.advance(plan);
            }
            Transition::Speed(speed) => self.machine.set_speed(speed),
            Transition::Restore => {
                let saved = postcard::to_allocvec(&(&self.machine, &self.followed)).unwrap();
                let restored: (Machine, Followed) = postcard::from_bytes(&saved).unwrap();
                assert!(restored.0 == self.machine && restored.1 == self.followed, "not the same");
                (self.machine, self.followed) = restored;
            }
        }
    }

    fn holds(&self, plan: &Plan) {
        let broken = self.machine.conservation();
        assert!(broken.is_empty(), "{}\n{}", broken.join("; "), plan.text(&broken.join("\n")));
    }

    /// To the end: everything pending becomes visible, guests leave, and all is compared.
    fn end(mut self, plan: &Plan) {
        self.advance(plan);
        if let Err(found) = self.refinement.finish(&mut self.machine) {
            panic!("{found}\n{}", plan.text(&found.to_string()));
        }
        self.holds(plan);
    }
}

/// A machine as a world's tables leave it, followed from power-on.
fn start(world: &World) -> (Machine, Refinement) {
    let setup = world.setup().unwrap();
    let mut machine = World { tables: String::new(), ..world.clone() }.machine().unwrap();
    let mut refinement = Refinement::new(&mut machine);
    let Some(setup) = setup else { return (machine, refinement) };
    let mut os = linux(machine.spec());
    for stage in [Stage::Module, Stage::Tds] {
        let mut watch = |machine: &mut Machine, op: &Op, record: &machine::StepRecord| {
            refinement.follow(machine, op, record, &mut ()).unwrap();
            machine.forget_events();
            refinement.log_was_cut(machine);
        };
        setup.run_watched(stage, &mut machine, &mut os, Some(&mut watch)).unwrap();
    }
    refinement.sum_up("[tdx] and [td]");
    (machine, refinement)
}

macro_rules! driven {
    ($name:ident, $reference:ty) => {
        struct $name;
        impl StateMachineTest for $name {
            type SystemUnderTest = Followers;
            type Reference = $reference;
            fn init_test(plan: &Plan) -> Followers {
                Followers::of(plan)
            }
            fn apply(mut state: Followers, plan: &Plan, transition: Transition) -> Followers {
                state.does(plan, transition);
                state
            }
            fn check_invariants(state: &Followers, plan: &Plan) {
                state.holds(plan);
            }
            fn teardown(state: Followers, plan: Plan) {
                state.end(&plan);
            }
        }
    };
}
driven!(MemoryTest, Memory);
driven!(TdxTest, Tdx);

/// Runs cases. What comes back is the shrunk program as a scenario file, and why.
fn drive<T: StateMachineTest>(
    cases: u32,
    transitions: std::ops::Range<usize>,
    seeds: Option<&'static str>,
    prepare: impl Fn(&mut Plan),
) -> Result<(), Box<(Plan, String)>>
where
    T::Reference: ReferenceStateMachine<State = Plan, Transition = Transition>,
{
    let persistence = seeds.map(FileFailurePersistence::Direct);
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 4000,
        failure_persistence: persistence.map(|p| Box::new(p) as _),
        ..ProptestConfig::default()
    };
    let strategy = <T::Reference as ReferenceStateMachine>::sequential_strategy(transitions);
    let mut runner = match seeds {
        Some(_) => TestRunner::new(config.clone()),
        // Planted faults are found in the same cases every time.
        None => TestRunner::new_with_rng(
            config.clone(),
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        ),
    };
    let found = runner.run(&strategy, |(mut plan, transitions, seen)| {
        prepare(&mut plan);
        let test = || T::test_sequential(config.clone(), plan, transitions, seen);
        panic::catch_unwind(AssertUnwindSafe(test)).map_err(|why| {
            let why = why.downcast_ref::<String>().cloned();
            TestCaseError::fail(why.unwrap_or_else(|| "a panic without words".to_owned()))
        })
    });
    match found {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, (mut plan, transitions, _))) => {
            prepare(&mut plan);
            let plan = transitions.iter().fold(plan, |plan, t| plan.does(t));
            Err(Box::new((plan, why.to_string())))
        }
        Err(TestError::Abort(why)) => panic!("given up: {why}"),
    }
}

/// How many times as many cases as by default.
fn factor() -> u32 {
    std::env::var("TDXSIM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn must_hold(found: Result<(), Box<(Plan, String)>>) {
    if let Err(found) = found {
        let (plan, why) = *found;
        panic!("{why}\n{}", plan.text(&why));
    }
}

// ------------------------------------------------------------------------------------------------------------ two TDs

/// Pages that TDs get, from here on.
const POOL: u64 = 0x1_0080_0000;
/// How many of them there are.
const POOL_PAGES: u64 = 24;
/// A guest-physical address whose entries have level 1.
const GPA_2M: u64 = 0x4000_0000;

/// A machine with the module up and two TDs, one of them with two VCPUs, and the reference that followed it there.
struct Base {
    world: World,
    facts: Facts,
    ready: OnceLock<(Machine, Refinement)>,
}

impl Base {
    fn ready(&self) -> (Machine, Refinement) {
        self.ready.get_or_init(|| start(&self.world)).clone()
    }
}

/// What calls need to know to get far.
#[derive(Clone, Debug)]
struct Facts {
    tdrs: Vec<u64>,
    vcpus: Vec<u64>,
    /// Kernels, then guests.
    kernels: u16,
    guests: Vec<u16>,
    device: u16,
    hw: u16,
}

/// What an operand should be.
#[derive(Clone, Copy)]
enum Kind {
    Zero,
    Tdr,
    Vcpu,
    Page,
    Gpa,
    Hkid,
    Bit,
}
use Kind::{Bit, Gpa, Hkid, Page, Tdr, Vcpu, Zero};

/// Leaves with what their operands should be; the more often it stands here, the more often it is called.
const CALLS: &[(Leaf, [Kind; 4])] = &[
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER, [Vcpu, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_AUG, [Gpa, Tdr, Page, Zero]),
    (Leaf::MEM_PAGE_AUG, [Gpa, Tdr, Page, Zero]),
    (Leaf::MEM_RANGE_BLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_RANGE_BLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_RANGE_UNBLOCK, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_TRACK, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_TRACK, [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_RELOCATE, [Gpa, Tdr, Page, Zero]),
    (Leaf::MEM_PAGE_ADD, [Gpa, Tdr, Page, Page]),
    (Leaf::MEM_SEPT_ADD, [Gpa, Tdr, Page, Zero]),
    (Leaf::MEM_SEPT_RD, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_RD, [Gpa, Tdr, Zero, Zero]),
    (Leaf::MR_FINALIZE, [Tdr, Zero, Zero, Zero]),
    (Leaf::MNG_CREATE, [Page, Hkid, Zero, Zero]),
    (Leaf::MNG_KEY_CONFIG, [Tdr, Zero, Zero, Zero]),
    (Leaf::VP_CREATE, [Page, Tdr, Zero, Zero]),
    (Leaf::VP_ADDCX, [Page, Vcpu, Zero, Zero]),
    (Leaf::MNG_RD, [Tdr, Zero, Zero, Zero]),
    (Leaf::VP_FLUSH, [Vcpu, Zero, Zero, Zero]),
    (Leaf::MNG_VPFLUSHDONE, [Tdr, Zero, Zero, Zero]),
    (Leaf::PHYMEM_CACHE_WB, [Bit, Zero, Zero, Zero]),
    (Leaf::MNG_KEY_FREEID, [Tdr, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Page, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Page, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RDMD, [Page, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_WBINVD, [Page, Zero, Zero, Zero]),
];

impl Facts {
    /// A guest that may be running: its core entered its VCPU, and has done nothing since.
    fn entered(&self, world: &World) -> Option<u16> {
        let step = world.ops().rev().find(|step| !self.guests.contains(&step.agent))?;
        let Op::Seamcall { leaf: Leaf::VP_ENTER, regs, .. } = step.op else { return None };
        let vcpu = self.vcpus.iter().position(|at| regs.0.first() == Some(at))?;
        self.guests.get(vcpu).copied()
    }

    fn operand(&self, dice: &mut Dice, kind: Kind) -> u64 {
        match kind {
            Zero => 0,
            // Mostly the first: the one that guests run in.
            Tdr if dice.one_in(8) => POOL + PAGE_BYTES * dice.below(POOL_PAGES),
            Tdr => self.tdrs.get(usize::from(dice.one_in(4))).copied().unwrap_or(0),
            Vcpu => dice.pick(&self.vcpus),
            Page => POOL + PAGE_BYTES * dice.below(POOL_PAGES),
            Gpa => match dice.below(10) {
                0..=6 => dice.below(6) * PAGE_BYTES,
                7 => GPA_2M + dice.below(3) * PAGE_BYTES,
                8 => dice.pick(&[1, GPA_2M | 1]),
                _ => dice.pick(&[2, 3, GPA_2M | 2]),
            },
            Hkid => 64 + dice.below(8),
            Bit => dice.below(2),
        }
    }

    /// A line of a program: mostly calls that get far, guests' accesses, and a host that reads and writes what is not
    /// its own any more.
    fn line(&self, dice: &mut Dice, entered: Option<u16>) -> (u16, Op) {
        if let Some(guest) = entered.filter(|_| !dice.one_in(3)) {
            return (guest, self.guest(dice));
        }
        let kernel = dice.below(self.kernels.into()) as u16;
        match dice.below(20) {
            0..=4 => {
                // Each core enters a VCPU of its own, and seldom the other.
                let vcpu = usize::from(kernel) ^ usize::from(dice.one_in(8));
                let at = self.vcpus.get(vcpu).copied().unwrap_or(0);
                (kernel, call(Leaf::VP_ENTER, [at, 0, 0, 0]))
            }
            5..=12 => (kernel, self.call(dice)),
            13..=15 => (kernel, self.raw(dice)),
            16 => (
                self.device,
                match (dice.one_in(2), self.anywhere(dice)) {
                    (true, at) => Op::DmaRead { at, bytes: 64 },
                    (false, at) => {
                        Op::DmaWrite { at, bytes: dice.pick(&[8, 64]), value: Value::Fill(9) }
                    }
                },
            ),
            17 => (
                self.hw,
                match dice.below(8) {
                    0..=3 => Op::Evict { at: Addr::new(self.anywhere(dice).hpa, KeyId(65)) },
                    4..=6 => Op::Irq { core: dice.below(2) as u32, kind: dice.pick_irq() },
                    _ => Op::FlipTd { at: self.anywhere(dice) },
                },
            ),
            _ => (kernel, dice.pick_of(&[Op::Mfence, Op::Wbinvd, Op::Wbnoinvd, Op::Sfence])),
        }
    }

    fn call(&self, dice: &mut Dice) -> Op {
        let n = dice.below(CALLS.len() as u64) as usize;
        let (leaf, kinds) =
            CALLS.get(n).copied().unwrap_or((Leaf::MEM_TRACK, [Tdr, Zero, Zero, Zero]));
        let [rcx, rdx, r8, r9] = kinds.map(|kind| self.operand(dice, kind));
        let mut regs = [rcx, rdx, r8, r9, 0, 0, 0, 0];
        if dice.one_in(12) {
            // Anything, in one of them.
            if let Some(reg) = regs.get_mut(dice.below(4) as usize) {
                *reg = dice.pick(&[1, 0xfff, 1 << 51, 1 << 63, POOL | 4, POOL]);
            }
        }
        let [rcx, rdx, r8, r9, ..] = regs;
        call(leaf, [rcx, rdx, r8, r9])
    }

    /// A place in the pool, mostly where no TD has pages yet; seldom one in the module's structures, whose loss is the end
    /// of TDX.
    fn anywhere(&self, dice: &mut Dice) -> Addr {
        let page = match dice.below(64) {
            0 => self.tdrs.first().copied().unwrap_or(POOL),
            1 => dice.pick(&self.vcpus),
            2..=9 => POOL + PAGE_BYTES * dice.below(4),
            _ => POOL + PAGE_BYTES * (4 + dice.below(POOL_PAGES - 4)),
        };
        Addr::new(Hpa(page + 64 * dice.below(3)), KeyId::TME)
    }

    fn raw(&self, dice: &mut Dice) -> Op {
        let at = self.anywhere(dice);
        let value = Value::Fill(dice.below(256) as u8);
        match dice.below(9) {
            0 | 1 => Op::Load { at, bytes: 8, ty: MemType::Wb },
            2 => Op::Store { at, bytes: 8, value, ty: MemType::Wb },
            3 => Op::NtStore { at, bytes: 8, value },
            4 | 5 => Op::Movdir64b { dst: at, src: Source::Fill(0) },
            6 => Op::Clflush { at },
            7 => Op::Prefetch { at },
            _ => Op::Clwb { at },
        }
    }

    fn guest(&self, dice: &mut Dice) -> Op {
        let gpa = self.operand(dice, Gpa) & !7;
        let at = Addr::new(Hpa(gpa + 64 * dice.below(2)), KeyId::TME);
        let value = Value::Fill(dice.below(256) as u8);
        let tdcall =
            |leaf, rcx| Op::Tdcall { leaf, version: 0, regs: CallRegs([rcx, 0, 0, 0, 0, 0, 0, 0]) };
        match dice.below(9) {
            0..=2 => Op::Load { at, bytes: 8, ty: MemType::Wb },
            3 | 4 => Op::Store { at, bytes: 8, value, ty: MemType::Wb },
            5 => tdcall(GuestLeaf::MEM_PAGE_ACCEPT, gpa & !0xfff),
            6 => tdcall(GuestLeaf::VP_INFO, 0),
            7 => tdcall(GuestLeaf::VP_VMCALL, 0),
            _ => Op::Movdir64b { dst: at, src: Source::Fill(7) },
        }
    }
}

fn call(leaf: Leaf, [rcx, rdx, r8, r9]: [u64; 4]) -> Op {
    Op::Seamcall { leaf, version: 0, regs: CallRegs([rcx, rdx, r8, r9, 0, 0, 0, 0]) }
}

/// What dice cannot pick by themselves.
trait Picks {
    fn pick_irq(&mut self) -> IrqKind;
    fn pick_of(&mut self, from: &[Op]) -> Op;
}
impl Picks for Dice {
    fn pick_irq(&mut self) -> IrqKind {
        match self.below(3) {
            0 => IrqKind::Interrupt,
            1 => IrqKind::Nmi,
            _ => IrqKind::Smi,
        }
    }
    fn pick_of(&mut self, from: &[Op]) -> Op {
        from.get(self.below(from.len() as u64) as usize).copied().unwrap_or(Op::Mfence)
    }
}

/// Tables of a scenario file: TD A runs, with two VCPUs and some pages; TD B is being built.
const TABLES: &str = "[regions]\nPOOL = { base = \"0x100800000\", size = \"96KiB\" }\n\
    [tdx]\nstate = \"ready\"\ntdmrs = \"0x100000000-0x140000000\"\n\
    [td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\nvcpus = 2\ntables = [\"0x40000000 0\"]\n\
    pages = [\"0x0 add POOL fill=0x11\", \"0x1000 add POOL+0x1000\", \"0x2000 aug POOL+0x2000\"]\n\
    [td.B]\nhkid = \"priv2\"\nstate = \"initialized\"\npages = [\"0x0 add POOL+0x3000 fill=0x22\"]\n";

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    [("spr", "ci", Speed::Timed), ("spr", "li", Speed::Functional), ("gnr", "ci", Speed::Timed)]
        .into_iter()
        .map(|(preset, mode, speed)| base(preset, mode, speed))
        .collect()
});

fn base(preset: &'static str, mode: &str, speed: Speed) -> Base {
    let mut world = random_world(&mut Dice::new(5), Style { length: 0, ..Style::RAW }).unwrap();
    world.preset = preset;
    world.set.clear();
    world.steps.clear();
    world.tables = TABLES.to_owned();
    world.speed = speed;
    world.order = Order::Program;
    world.put("cpu.cores", 2);
    world.put("memory.integrity", mode);
    // Small caches, so that what leaves them matters; large enough for the module to work in.
    for (key, value) in [
        ("cpu.l1d.size", "256B"),
        ("cpu.l1d.ways", "2"),
        ("cpu.l2.size", "512B"),
        ("cpu.l2.ways", "2"),
        ("cpu.llc.size", "1KiB"),
        ("cpu.llc.ways", "4"),
        ("cpu.llc_slices", "2"),
        ("cpu.flush_sub_blocks", "2"),
    ] {
        world.put(key, value);
    }
    let plain = world.machine().unwrap();
    let module = plain.module();
    let hpa = |page: sim_core::Page| page.hpa().0;
    let tdrs: Vec<u64> = module.tds().map(|(page, _)| hpa(page)).collect();
    let vcpus: Vec<u64> = module.vcpus().map(|(page, _)| hpa(page)).collect();
    let agent = |name: &str, kind, core, vcpu| AgentSpec {
        name: name.to_owned(),
        kind,
        core,
        keyid: KeyId::TME,
        vcpu,
    };
    world.agents = vec![
        agent("cpu0", AgentKind::Kernel, 0, None),
        agent("cpu1", AgentKind::Kernel, 1, None),
        agent("g0", AgentKind::Guest, 0, vcpus.first().map(|p| Hpa(*p))),
        agent("g1", AgentKind::Guest, 0, vcpus.get(1).map(|p| Hpa(*p))),
        agent("dma0", AgentKind::Device, 0, None),
        agent("hw", AgentKind::Hardware, 0, None),
    ];
    let facts = Facts { tdrs, vcpus, kernels: 2, guests: vec![2, 3], device: 4, hw: 5 };
    Base { world, facts, ready: OnceLock::new() }
}

// -------------------------------------------------------------------------------------------------------------- the tests

#[test]
fn any_machine_under_any_program_is_one_that_the_reference_allows() {
    let cases = 200 * factor();
    must_hold(drive::<MemoryTest>(cases, 1..50, Some("proptest-regressions/memory.txt"), |_| ()));
}

#[test]
fn leaves_guests_and_a_host_that_interferes_do_what_the_reference_allows() {
    let cases = 30 * factor();
    must_hold(drive::<TdxTest>(cases, 1..60, Some("proptest-regressions/tdx.txt"), |_| ()));
}

// What went wrong: found by the machines above.

/// Runs a scenario's text with `--check`.
fn checked(text: &str) -> scenarios::report::RunReport {
    let scenario = Scenario::from_text("x.toml", text).unwrap_or_else(|d| panic!("{}", d.render()));
    let request = Request { check: true, ..Request::default() };
    let report = run(plan_of(&scenario, &request).first().unwrap(), &request).unwrap();
    assert_eq!(report.verdict, Verdict::Pass, "{:#?}", report.notes);
    report
}

/// The comparison had the first line leave its core before the load began: what the second line displaces of it left no
/// trace of when, as both lines were found in the LLC.
#[test]
fn the_first_line_of_a_load_leaves_its_core_for_the_second_after_it_was_read() {
    checked(
        r#"
[scenario]
name = "x"
title = "t"
cite = ["verification.md §5.1"]
platform = "spr"
set = { "cpu.packages" = "1", "cpu.cores" = "1", "cpu.l1d.ways" = "2", "cpu.l1d.size" = "256B", "cpu.l2.ways" = "1", "cpu.l2.size" = "128B", "cpu.llc.ways" = "2", "cpu.llc.size" = "256B", "cpu.llc_slices" = "1", "cpu.slice_hash" = "0x40", "cpu.snoop_filter.sets" = "1", "cpu.snoop_filter.ways" = "1", "cpu.flush_sub_blocks" = "2" }
program = """
  cpu0 : load [0x10000000] 64
  cpu0 : load [0x10000040] 64
  cpu0 : load [0x10000000] 64
  cpu0 : load [0x10000008] 64
"""
[expect]
final = ["births 0"]
"#,
    );
}

/// The record of the TDH.VP.ENTER whose guest had to leave came behind that of the operation that made it leave.
#[test]
fn a_call_that_ends_before_an_operation_begins_is_recorded_before_it() {
    let report = checked(
        r#"
[scenario]
name = "x"
title = "t"
cite = ["architecture.md §6.3"]
platform = "spr"
integrity = "li"
set = { "cpu.cores" = "2" }
program = """
  cpu1 : tdh.vp.enter rcx=[A_VP0]
  g0   : load [0x0] 8
  cpu1 : load [POOL] 8
"""
[agents]
g0 = { kind = "guest", vcpu = "A_VP0" }
[regions]
POOL = { base = "0x100800000", size = "4KiB" }
[tdx]
state = "ready"
[td.A]
hkid = "priv1"
state = "runnable"
pages = ["0x0 add POOL fill=0x11"]
[expect]
"cpu1.1" = "tdx SUCCESS|1"
final = ["births 0"]
"#,
    );
    let steps: Vec<&str> = report.steps.iter().map(|step| step.step.as_str()).collect();
    let ends: Vec<u64> = report.steps.iter().map(|step| step.end_ps).collect();
    assert!(ends.is_sorted(), "{steps:?} {ends:?}");
    assert_eq!(steps, ["g0.1", "cpu1.1", "cpu1.2"]);
}

/// The same, where the guest's exit met the poison that the host had put into its TDR: the core was shut down before the host's
/// next operation, and the comparison learnt of it too late.
#[test]
fn a_core_that_is_shut_down_by_its_guests_exit_is_known_to_be_when_its_host_goes_on() {
    let text = r#"
[scenario]
name = "x"
title = "t"
cite = ["architecture.md §6.3"]
platform = "spr"
integrity = "li"
set = { "cpu.cores" = "2", "cpu.l1d.size" = "256B", "cpu.l1d.ways" = "2", "cpu.l2.size" = "512B", "cpu.l2.ways" = "2", "cpu.llc.size" = "1KiB", "cpu.llc.ways" = "4", "cpu.llc_slices" = "2", "cpu.flush_sub_blocks" = "2" }
program = """
  cpu0  : movdir64b [A_TDR] zero
  cpu1  : tdh.vp.enter rcx=[A_VP1]
  g1    : store [0x2040] 8 fill=0x31
  cpu0  : tdh.mem.range.unblock rcx=0x1 rdx=[A_TDR]
  cpu1  : tdh.vp.flush rcx=[A_VP0]
"""
[agents]
g1 = { kind = "guest", vcpu = "A_VP1" }
[regions]
POOL = { base = "0x100800000", size = "96KiB" }
[tdx]
state = "ready"
tdmrs = "0x100000000-0x140000000"
[td.A]
hkid = "priv1"
state = "runnable"
vcpus = 2
tables = ["0x40000000 0"]
pages = ["0x0 add POOL fill=0x11", "0x1000 add POOL+0x1000", "0x2000 aug POOL+0x2000"]
[td.B]
hkid = "priv2"
state = "initialized"
pages = ["0x0 add POOL+0x3000 fill=0x22"]
[expect]
final = ["not panic"]
"#;
    checked(text);
}

/// The seeds in `proptest-regressions/` are those of programs that once showed something: mutants planted on purpose, for
/// want of disagreements.
#[test]
fn committed_seeds_are_replayed() {
    for file in ["proptest-regressions/memory.txt", "proptest-regressions/tdx.txt"] {
        let seeds = FileFailurePersistence::Direct(file).load_persisted_failures2(None);
        assert!(!seeds.is_empty(), "{file} has no seeds");
    }
}

#[test]
fn planted_faults_are_found_and_shrunk_to_a_scenario_file() {
    if !Planted::POSSIBLE {
        return;
    }
    for fault in [
        Fault::WriteKeepsTd,
        Fault::SharedReadShowsData,
        Fault::PoisonNotStored,
        Fault::StoreLaundersPoison,
        Fault::ClflushTakesAllKeyIds,
    ] {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let found = drive::<MemoryTest>(400, 1..50, None, |plan| {
            plan.world.planted = Planted::fault(fault);
        });
        panic::set_hook(hook);
        let Err(found) = found else { panic!("{} was not found", fault.name()) };
        let (plan, why) = *found;
        let text = plan.text(&why);
        let scenario = Scenario::from_text("x.toml", &text);
        let scenario = scenario.unwrap_or_else(|d| panic!("{}\n{text}", d.render()));
        let World { seed, speed, .. } = plan.world;
        // In the product as it is, the file runs and agrees with the reference.
        let request = Request { seed, speed, check: true, ..Request::default() };
        let cells = plan_of(&scenario, &request);
        let report = run(cells.first().unwrap(), &request).unwrap();
        assert_ne!(report.verdict, Verdict::Broken, "{text}\n{:#?}", report.notes);
        let lines = plan.world.steps.len();
        assert!(lines < 30, "{}: {lines} lines\n{text}", fault.name());
    }
}

fn plan_of(scenario: &Scenario, request: &Request) -> Vec<scenarios::run::Cell> {
    plan(scenario, request).unwrap_or_else(|d| panic!("{}", d.render()))
}

#[test]
fn random_leaves_get_far_guests_run_and_all_of_it_is_judged() {
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    let mut dice = Dice::new(1);
    let (mut judged, mut transitions) = (0, 0);
    for n in 0..12 {
        let base = BASES.get(n % BASES.len()).unwrap();
        let world = World { speed: Speed::Functional, ..base.world.clone() };
        let index = Some(n % BASES.len());
        let mut plan = Plan { world, base: index, lenient: false, remarks: Vec::new() };
        let mut followers = Followers::of(&plan);
        for _ in 0..150 {
            let (agent, op) = base.facts.line(&mut dice, base.facts.entered(&plan.world));
            let next = Transition::Line(agent, op);
            plan = plan.does(&next);
            followers.does(&plan, next);
        }
        let compared = *followers.refinement.compared();
        (judged, transitions) = (judged + compared.judged, transitions + compared.transitions);
        for record in followers.followed.run().records() {
            let Some(Some(step)) = plan.world.steps.get(record.item as usize) else { continue };
            let shown = record.outcome.to_string();
            let mut words = shown.split([' ', '|']);
            let (first, second) = (words.next().unwrap(), words.next().unwrap_or(""));
            let what = match step.op {
                Op::Seamcall { leaf, .. } => format!("{leaf} {first} {second}"),
                Op::Tdcall { leaf, .. } => format!("{leaf} {first} {second}"),
                _ if base.facts.guests.contains(&step.agent) => format!("guest {first}"),
                _ => continue,
            };
            *reached.entry(what).or_default() += 1;
        }
        followers.end(&plan);
    }
    for what in [
        "TDH.VP.ENTER tdx SUCCESS",
        "TDH.MEM.PAGE.AUG tdx SUCCESS",
        "TDH.MEM.RANGE.BLOCK tdx SUCCESS",
        "TDH.MEM.TRACK tdx SUCCESS",
        "TDH.PHYMEM.PAGE.RDMD tdx SUCCESS",
        "TDH.VP.FLUSH tdx SUCCESS",
        "TDG.VP.INFO tdx SUCCESS",
        "guest data",
        "guest done",
        "guest td-exit",
    ] {
        assert!(reached.contains_key(what), "never `{what}`: {reached:#?}");
    }
    assert!(judged > 500 && transitions > 5000, "{judged} judged, {transitions} transitions");
}
