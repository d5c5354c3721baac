//! A machine with a TDX module that has been brought up, TDs on it, and their guests as agents. Everything is done by
//! operations of agents: SEAMCALLs, stores, TDCALLs.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
pub(crate) mod common;

use common::{Os, op, platform};
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Item, Machine, Options, Order, Program};
use machine::{Speed, StepRecord};
use sim_core::op::{CallRegs, MemType, Value};
use sim_core::outcome::{CallResult, DataClass, NotRun};
use sim_core::platform::{CacheGeometry, IntegrityMode, PlatformSpec};
use sim_core::tdx::{GuestLeaf, Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Line, Op, Outcome, Page, Tagged};
use std::sync::LazyLock;
use tdx_module::pamt::Size;

/// First byte of the TDMR of 1 GiB.
pub(crate) const TDMR: u64 = 0x1_0000_0000;
/// PAMTs: behind the TDMR.
pub(crate) const PAMT: u64 = 0x1_8000_0000;
/// Where the host keeps what it hands to the module.
pub(crate) const HOST: u64 = 0x1_9000_0000;
/// A page of the host whose content PAGE.ADD copies.
pub(crate) const IMAGE: u64 = 0x1_9010_0000;
/// The first 8 bytes of that page.
pub(crate) const IMAGE_WORD: u64 = 0x1122_3344_5566_7788;
/// The global HKID, as Linux chooses it: the first private one.
pub(crate) const GLOBAL: u16 = 32;
/// HKIDs of TDs.
pub(crate) const HKID_A: u16 = 33;
/// Of a second TD.
pub(crate) const HKID_B: u16 = 34;
/// ATTRIBUTES.SEPT_VE_DISABLE.
pub(crate) const SEPT_VE_DISABLE: u64 = 1 << 28;
/// Secure-EPT levels.
pub(crate) const LEVELS_4: u64 = 3 << 3;
/// The other kind; needs a GPA width of 52.
pub(crate) const LEVELS_5: u64 = 4 << 3;

/// How a machine is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Config {
    pub(crate) speed: Speed,
    pub(crate) integrity: IntegrityMode,
    pub(crate) crypto: CryptoKind,
}

/// Timed, Ci, symbolic.
pub(crate) const TIMED: Config =
    Config { speed: Speed::Timed, integrity: IntegrityMode::Ci, crypto: CryptoKind::Symbolic };
/// The same without time.
pub(crate) const FUNCTIONAL: Config = Config { speed: Speed::Functional, ..TIMED };

/// Both speeds, both integrity modes, both cryptographies.
pub(crate) fn configs() -> Vec<Config> {
    let mut all = Vec::new();
    for speed in [Speed::Functional, Speed::Timed] {
        for integrity in [IntegrityMode::Ci, IntegrityMode::Li] {
            for crypto in [CryptoKind::Symbolic, CryptoKind::Real] {
                all.push(Config { speed, integrity, crypto });
            }
        }
    }
    all
}

/// Four cores in two packages, like Sapphire Rapids but for the size of its caches.
pub(crate) fn spr(integrity: IntegrityMode) -> PlatformSpec {
    let mut spec = platform();
    spec.memory.integrity = integrity;
    spec.cpu.l1d = CacheGeometry { size: 8 << 10, ways: 8 };
    spec.cpu.l2 = CacheGeometry { size: 32 << 10, ways: 8 };
    spec.cpu.llc = CacheGeometry { size: 128 << 10, ways: 8 };
    spec
}

/// The machine, and what its host has to remember.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) m: Machine,
    pub(crate) os: Os,
    /// Next page of the TDMR that the VMM has not given away.
    pub(crate) next_page: u64,
    cores: u16,
}

/// A TD.
#[derive(Clone, Debug)]
pub(crate) struct Td {
    pub(crate) tdr: u64,
    pub(crate) tdcs: Vec<u64>,
    pub(crate) hkid: u16,
}

/// A VCPU, and the agent that executes on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vcpu {
    pub(crate) tdvpr: u64,
    pub(crate) agent: AgentId,
}

/// A TD that can run: page of content at GPA 0, tables for the 2 MiB around it.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) td: Td,
    pub(crate) vcpus: Vec<Vcpu>,
    /// Secure-EPT pages of GPA 0, from the top.
    pub(crate) tables: Vec<u64>,
    /// The page at GPA 0.
    pub(crate) page: u64,
}

/// A machine with a TD of two VCPUs, once per configuration.
static BASES: LazyLock<Vec<(Config, Rig, Running)>> = LazyLock::new(|| {
    let each = |config: Config| {
        let mut rig = Rig::ready(&spr(config.integrity), config);
        let running = rig.running(HKID_A, 0, 2);
        (config, rig, running)
    };
    configs().into_iter().map(each).collect()
});

/// A machine with a TD of two VCPUs that can run.
pub(crate) fn running(config: Config) -> (Rig, Running) {
    let (_, rig, running) = BASES.iter().find(|(c, ..)| *c == config).unwrap();
    (rig.clone(), running.clone())
}

impl Rig {
    /// A machine just switched on.
    pub(crate) fn new(spec: &PlatformSpec, config: Config) -> Rig {
        let Config { speed, crypto, .. } = config;
        let m = Machine::new(spec, Options { speed, crypto, seed: 7, log: false }).unwrap();
        let mut rig = Rig { m, os: Os::default(), next_page: TDMR, cores: spec.cpu.cores };
        for core in 0..spec.cpu.cores {
            rig.add(AgentKind::Kernel, core, None);
        }
        rig.add(AgentKind::Device, 0, None);
        rig.add(AgentKind::Hardware, 0, None);
        rig
    }
    fn add(&mut self, kind: AgentKind, core: u16, vcpu: Option<Hpa>) -> AgentId {
        let name = format!("{kind}{}", self.m.agents().count());
        self.m.add_agent(AgentSpec { name, kind, core, keyid: KeyId(0), vcpu })
    }
    /// A module up to SYS_READY with one TDMR whose PAMT is initialised. The PAMT, which is long, without time.
    pub(crate) fn ready(spec: &PlatformSpec, config: Config) -> Rig {
        Rig::ready_with(spec, config, 1)
    }
    /// The same with a TDMR of so many GiB, at most 2.
    pub(crate) fn ready_with(spec: &PlatformSpec, config: Config, gibs: u64) -> Rig {
        let mut rig = Rig::new(spec, config);
        rig.initialize();
        let array = rig.write_tdmr(gibs);
        rig.ok(0, Leaf::SYS_CONFIG, [array, 1, GLOBAL.into(), 0]);
        let per = spec.cpu.cores / u16::from(spec.cpu.packages);
        for package in 0..u16::from(spec.cpu.packages) {
            rig.ok(package * per, Leaf::SYS_KEY_CONFIG, [0; 4]);
        }
        rig.m.set_speed(Speed::Functional);
        while rig.ok(0, Leaf::SYS_TDMR_INIT, [TDMR, 0, 0, 0]).out[1] != TDMR + (gibs << 30) {}
        rig.m.set_speed(config.speed);
        for i in 0..512 {
            let value = if i == 0 { IMAGE_WORD } else { i };
            rig.poke(IMAGE + 8 * i, value);
        }
        rig
    }
    /// TDH.SYS.INIT, and TDH.SYS.LP.INIT everywhere.
    pub(crate) fn initialize(&mut self) {
        self.ok(0, Leaf::SYS_INIT, [0; 4]);
        for core in 0..self.cores {
            self.ok(core, Leaf::SYS_LP_INIT, [0; 4]);
        }
    }
    /// Writes one TDMR_INFO and the array of its address; returns the array's address.
    pub(crate) fn write_tdmr(&mut self, gibs: u64) -> u64 {
        let (huge, large, small) = (4096, gibs * 8192, gibs << 22);
        let words =
            [(TDMR, gibs << 30), (PAMT, huge), (PAMT + huge, large), (PAMT + huge + large, small)];
        self.poke(HOST, HOST + 0x1000);
        for i in 0..64 {
            self.poke(HOST + 0x1000 + 8 * i, 0);
        }
        for (i, (base, size)) in words.into_iter().enumerate() {
            self.poke(HOST + 0x1000 + 16 * i as u64, base);
            self.poke(HOST + 0x1008 + 16 * i as u64, size);
        }
        HOST
    }

    // ---------------------------------------------------------------------------------------------------- operations

    /// The kernel's agent on a core.
    pub(crate) fn host(&self, core: u16) -> AgentId {
        AgentId(core)
    }
    /// The device.
    pub(crate) fn device(&self) -> AgentId {
        AgentId(self.cores)
    }
    /// What nobody executes: faults, evictions, interrupts from outside.
    pub(crate) fn hardware(&self) -> AgentId {
        AgentId(self.cores + 1)
    }
    /// One operation of an agent.
    pub(crate) fn execute(&mut self, agent: AgentId, op: &Op) -> Outcome {
        self.m.execute(agent, op, 0, &mut self.os).outcome
    }
    /// One operation of the kernel, as text.
    pub(crate) fn cpu(&mut self, core: u16, text: &str) -> Outcome {
        let agent = self.host(core);
        self.execute(agent, &op("cpu", text))
    }
    /// One operation of the device.
    pub(crate) fn dma(&mut self, text: &str) -> Outcome {
        let agent = self.device();
        self.execute(agent, &op("dma", text))
    }
    /// One operation of the hardware.
    pub(crate) fn hw(&mut self, text: &str) -> Outcome {
        let agent = self.hardware();
        self.execute(agent, &op("hw", text))
    }
    /// One operation of a guest; addresses are the guest's.
    pub(crate) fn guest(&mut self, vcpu: Vcpu, text: &str) -> Outcome {
        self.execute(vcpu.agent, &op("guest", text))
    }
    /// One operation of a guest, as text.
    pub(crate) fn says(&mut self, vcpu: Vcpu, text: &str) -> String {
        self.guest(vcpu, text).to_string()
    }
    /// What a load of 8 bytes by a guest returns, and where it came from.
    #[track_caller]
    pub(crate) fn reads(&mut self, vcpu: Vcpu, text: &str) -> (DataClass, u64) {
        loaded(self.guest(vcpu, text))
    }
    /// The same of the kernel of a core.
    #[track_caller]
    pub(crate) fn host_reads(&mut self, core: u16, hpa: u64) -> (DataClass, u64) {
        loaded(self.cpu(core, &format!("load [{hpa:#x}] 8")))
    }
    /// A TDCALL.
    pub(crate) fn tdcall(&mut self, vcpu: Vcpu, leaf: GuestLeaf, rcx: u64) -> Outcome {
        self.execute(vcpu.agent, &tdcall(leaf, rcx))
    }
    /// A store of 8 bytes by the kernel of core 0.
    pub(crate) fn poke(&mut self, hpa: u64, value: u64) {
        let (at, ty) = (Addr::new(Hpa(hpa), KeyId(0)), MemType::Wb);
        let store = Op::Store { at, bytes: 8, value: Value::Num(value), ty };
        assert_eq!(self.execute(AgentId(0), &store), Outcome::Done);
    }
    /// What came of a SEAMCALL.
    pub(crate) fn call(&mut self, core: u16, leaf: Leaf, regs: [u64; 4]) -> Outcome {
        let agent = self.host(core);
        self.execute(agent, &seamcall(leaf, regs))
    }
    /// The answer of a SEAMCALL that returns.
    #[track_caller]
    pub(crate) fn result(&mut self, core: u16, leaf: Leaf, regs: [u64; 4]) -> CallResult {
        match self.call(core, leaf, regs) {
            Outcome::Call(result) => result,
            other => panic!("{leaf}: {other}"),
        }
    }
    /// Its status.
    #[track_caller]
    pub(crate) fn status(&mut self, core: u16, leaf: Leaf, regs: [u64; 4]) -> Status {
        self.result(core, leaf, regs).status
    }
    /// A SEAMCALL that must succeed.
    #[track_caller]
    pub(crate) fn ok(&mut self, core: u16, leaf: Leaf, regs: [u64; 4]) -> CallResult {
        let result = self.result(core, leaf, regs);
        assert_eq!(result.status, Status::SUCCESS, "{leaf} {regs:x?}");
        result
    }
    /// Enters a VCPU, which stays in its TD.
    #[track_caller]
    pub(crate) fn enter(&mut self, core: u16, vcpu: Vcpu) {
        let outcome = self.call(core, Leaf::VP_ENTER, [vcpu.tdvpr, 0, 0, 0]);
        assert_eq!(outcome, Outcome::NotRun(NotRun::InGuest));
    }
    /// What TDH.VP.ENTER of a core returned, now that its guest has left.
    #[track_caller]
    pub(crate) fn returned(&mut self, core: u16) -> CallResult {
        let records: Vec<StepRecord> = self.m.take_finished();
        let mine: Vec<_> = records.iter().filter(|r| r.agent == AgentId(core)).collect();
        match mine[..] {
            [StepRecord { outcome: Outcome::Call(result), .. }] => *result,
            _ => panic!("{records:?}"),
        }
    }
    /// An IPI makes the guest of a core leave.
    #[track_caller]
    pub(crate) fn kick(&mut self, core: u16) -> CallResult {
        self.hw(&format!("irq {core}"));
        self.returned(core)
    }
    /// Runs a program of operations side by side, each agent's in order; outcomes in the order of the items.
    pub(crate) fn together(&mut self, items: &[(Who, Op)]) -> Vec<Outcome> {
        let program = self.program(items, Order::Concurrent);
        by_item(&self.m.run(&program, &mut self.os))
    }
    /// The program of these operations, with agents of its own that stand for the rig's.
    pub(crate) fn program(&self, items: &[(Who, Op)], order: Order) -> Program {
        let mut agents: Vec<AgentSpec> = Vec::new();
        let mut who: Vec<Who> = Vec::new();
        let mut list = Vec::new();
        for (from, op) in items {
            let at = who.iter().position(|w| w == from).unwrap_or_else(|| {
                who.push(*from);
                let (kind, core, vcpu) = match *from {
                    Who::Cpu(core) => (AgentKind::Kernel, core, None),
                    Who::Guest(vcpu) => (AgentKind::Guest, 0, Some(Hpa(vcpu))),
                    Who::Hw => (AgentKind::Hardware, 0, None),
                    Who::All => (AgentKind::Hardware, 1, None),
                };
                let name = format!("{from:?}");
                agents.push(AgentSpec { name, kind, core, keyid: KeyId(0), vcpu });
                who.len() - 1
            });
            list.push(if *from == Who::All {
                Item::Barrier
            } else {
                Item::Op(AgentId(at as u16), *op)
            });
        }
        Program { agents, items: list, order }
    }

    // ----------------------------------------------------------------------------------------- what every VMM must do

    /// A page of the TDMR that was not given away before.
    pub(crate) fn page(&mut self) -> u64 {
        self.block(4096)
    }
    /// Pages aligned to `bytes`.
    pub(crate) fn block(&mut self, bytes: u64) -> u64 {
        let at = self.next_page.next_multiple_of(bytes);
        self.next_page = at + bytes;
        at
    }
    /// TD_PARAMS (architecture.md §7.9 "TDH.MNG.INIT"); returns its address.
    pub(crate) fn td_params(&mut self, attributes: u64, levels: u64) -> u64 {
        let at = HOST + 0x1_0000;
        for i in 0..128 {
            self.poke(at + 8 * i, 0);
        }
        let wide = levels == LEVELS_5;
        // ATTRIBUTES, XFAM, MAX_VCPUS, EPTP_CONTROLS (WB and levels), CONFIG_FLAGS (GPAW), TSC_FREQUENCY.
        for (i, word) in [attributes, 3, 8, 6 | levels, u64::from(wide), 40].into_iter().enumerate()
        {
            self.poke(at + 8 * i as u64, word);
        }
        at
    }
    /// A TD with OP_STATE INITIALIZED.
    pub(crate) fn td(&mut self, hkid: u16, attributes: u64, levels: u64) -> Td {
        let tdr = self.page();
        self.ok(0, Leaf::MNG_CREATE, [tdr, hkid.into(), 0, 0]);
        let packages = u16::from(self.m.spec().cpu.packages);
        for package in 0..packages {
            self.ok(package * (self.cores / packages), Leaf::MNG_KEY_CONFIG, [tdr, 0, 0, 0]);
        }
        let tdcs: Vec<u64> = (0..6).map(|_| self.page()).collect();
        for page in &tdcs {
            self.ok(0, Leaf::MNG_ADDCX, [*page, tdr, 0, 0]);
        }
        let params = self.td_params(attributes, levels);
        self.ok(0, Leaf::MNG_INIT, [tdr, params, 0, 0]);
        Td { tdr, tdcs, hkid }
    }
    /// A VCPU that can be entered, made on a core and with which it is not associated any more.
    pub(crate) fn vcpu(&mut self, td: &Td) -> Vcpu {
        let tdvpr = self.page();
        self.ok(0, Leaf::VP_CREATE, [tdvpr, td.tdr, 0, 0]);
        for _ in 0..5 {
            let page = self.page();
            self.ok(0, Leaf::VP_ADDCX, [page, tdvpr, 0, 0]);
        }
        self.ok(0, Leaf::VP_INIT, [tdvpr, 0x1234, 0, 0]);
        self.ok(0, Leaf::VP_FLUSH, [tdvpr, 0, 0, 0]);
        let agent = self.add(AgentKind::Guest, 0, Some(Hpa(tdvpr)));
        Vcpu { tdvpr, agent }
    }
    /// Secure-EPT pages for a guest-physical address down to entries of `level`, those that are not there yet.
    pub(crate) fn sept(&mut self, td: &Td, gpa: u64, level: u64) -> Vec<u64> {
        let top = u64::from(self.m.module().td(Page(td.tdr >> 12)).unwrap().levels) - 1;
        let mut pages = Vec::new();
        for at in (level + 1..=top).rev() {
            let page = self.page();
            let base = gpa >> (12 + 9 * at) << (12 + 9 * at);
            let status = self.status(0, Leaf::MEM_SEPT_ADD, [base | at, td.tdr, page, 0]);
            if status == Status::SUCCESS {
                pages.push(page);
            } else {
                self.next_page = page;
            }
        }
        pages
    }
    /// A page given and left pending; returns its address.
    pub(crate) fn aug(&mut self, td: &Td, gpa: u64) -> u64 {
        let page = self.page();
        self.ok(0, Leaf::MEM_PAGE_AUG, [gpa, td.tdr, page, 0]);
        page
    }
    /// A page added with the content of [`IMAGE`]; returns its address.
    pub(crate) fn add_page(&mut self, td: &Td, gpa: u64) -> u64 {
        let page = self.page();
        self.ok(0, Leaf::MEM_PAGE_ADD, [gpa, td.tdr, page, IMAGE]);
        page
    }
    /// A TD that can run, with a page of content at GPA 0.
    pub(crate) fn running(&mut self, hkid: u16, attributes: u64, vcpus: usize) -> Running {
        let td = self.td(hkid, attributes, LEVELS_4);
        let vcpus = (0..vcpus).map(|_| self.vcpu(&td)).collect();
        let tables = self.sept(&td, 0, 0);
        let page = self.add_page(&td, 0);
        self.ok(0, Leaf::MR_FINALIZE, [td.tdr, 0, 0, 0]);
        Running { td, vcpus, tables, page }
    }
    /// BLOCK and TRACK of a page; whoever runs is sent out.
    pub(crate) fn block_and_track(&mut self, td: &Td, gpa: u64) {
        self.ok(0, Leaf::MEM_RANGE_BLOCK, [gpa, td.tdr, 0, 0]);
        self.ok(0, Leaf::MEM_TRACK, [td.tdr, 0, 0, 0]);
        self.kick_all();
    }
    /// An IPI to every core on which a guest runs.
    pub(crate) fn kick_all(&mut self) {
        for core in 0..self.cores {
            if self.m.is_in_guest(core) {
                self.hw(&format!("irq {core}"));
            }
        }
    }
    /// Everything in caches goes to memory and the caches are empty.
    pub(crate) fn wbinvd(&mut self) {
        let packages = u16::from(self.m.spec().cpu.packages);
        for package in 0..packages {
            let outcome = self.cpu(package * (self.cores / packages), "wbinvd");
            assert_eq!(outcome, Outcome::Done);
        }
    }

    // ---------------------------------------------------------------------------------------------------- looking at it

    /// Where the PAMT entry of a page lies.
    pub(crate) fn pamt_at(&self, pa: u64, size: Size) -> u64 {
        self.m.module().tdmr_of(pa).unwrap().entry_at(pa, size).unwrap().0
    }
    /// 8 bytes as somebody with this KeyID would see them: in the caches, else in memory.
    pub(crate) fn seen(&self, hpa: u64, keyid: u16) -> u64 {
        let at = Tagged::new(Line(hpa >> 6), KeyId(keyid));
        let word = (hpa >> 3 & 7) as usize;
        match self.m.caches().inspect(at) {
            Some(view) => view.data.0[word],
            None => self.m.memory().probe(at).data.0[word],
        }
    }
    /// Under which KeyID a line was last written whole.
    pub(crate) fn writer(&self, hpa: u64) -> Option<u16> {
        self.m.memory().line(Line(hpa >> 6)).writer.map(|k| k.0)
    }
    /// Whether a core is in unbreakable shutdown: it does not execute what it is given.
    pub(crate) fn is_shut_down(&mut self, core: u16) -> bool {
        self.cpu(core, "mfence") == Outcome::NotRun(NotRun::Shutdown)
    }
    /// TDX is gone: every SEAMCALL on every core that still runs is VMfailInvalid (verification.md P10).
    #[track_caller]
    pub(crate) fn assert_tdx_dead(&mut self, dead: u16) {
        assert!(self.m.is_tdx_disabled());
        for core in 0..self.cores {
            let outcome = self.call(core, Leaf::SYS_INFO, [0; 4]);
            let expected = if core == dead {
                Outcome::NotRun(NotRun::Shutdown)
            } else {
                Outcome::VmFailInvalid
            };
            assert_eq!(outcome, expected, "core {core}");
        }
    }
    /// Nothing of the simulator is broken.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.m.conservation(), [""; 0]);
    }
}

/// Who does an item of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The kernel on a core.
    Cpu(u16),
    /// The VCPU of this TDVPR.
    Guest(u64),
    /// The hardware.
    Hw,
    /// A barrier.
    All,
}

/// A SEAMCALL.
pub(crate) fn seamcall(leaf: Leaf, [rcx, rdx, r8, r9]: [u64; 4]) -> Op {
    Op::Seamcall { leaf, version: 0, regs: CallRegs([rcx, rdx, r8, r9, 0, 0, 0, 0]) }
}
/// A TDCALL.
pub(crate) fn tdcall(leaf: GuestLeaf, rcx: u64) -> Op {
    Op::Tdcall { leaf, version: 0, regs: CallRegs([rcx, 0, 0, 0, 0, 0, 0, 0]) }
}
/// An operation as text, with absolute addresses.
pub(crate) fn text(text: &str) -> Op {
    op("any", text)
}
/// Outcomes in the order of the items.
pub(crate) fn by_item(records: &[StepRecord]) -> Vec<Outcome> {
    let mut records: Vec<_> = records.to_vec();
    records.sort_by_key(|r| r.item);
    records.iter().map(|r| r.outcome).collect()
}
/// What a load returned.
#[track_caller]
pub(crate) fn loaded(outcome: Outcome) -> (DataClass, u64) {
    match outcome {
        Outcome::Data(loaded) => (loaded.class, loaded.data.0[0]),
        other => panic!("{other}"),
    }
}
/// The status of a call.
#[track_caller]
pub(crate) fn status_of(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Call(result) => result.status,
        other => panic!("{other}"),
    }
}
