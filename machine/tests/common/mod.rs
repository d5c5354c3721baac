//! A small platform for tests, and a handler that grades as Linux does in the plain cases.

use machine::{AgentId, AgentKind, AgentSpec, Item, Machine, Options, Order, Program, Speed};
use machine::{CryptoKind, StepRecord};
use sim_core::mca::{McConsequence, McContext, McRecord};
use sim_core::op::{Base, KeyRef, RegBase, TextOp};
use sim_core::platform::{
    CacheGeometry, CcdLWrRule, CpuSpec, Density, DeviceWidth, DramSpec, FawRule, FunctionalSpec,
    IntegrityMode, LatencySpec, MceSpec, MemorySpec, PagePolicy, PlatformSpec, RefreshMode,
    RrdLRule, SnoopFilterGeometry, SpeedBin, SpeedGrade, UncoreSpec, XorMasks, XtsWidth,
};
use sim_core::port::McHandler;
use sim_core::time::Clock;
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Op, Ps};

/// Two packages of two cores, caches of a few sets, the erratum, Ci.
pub(crate) fn platform() -> PlatformSpec {
    PlatformSpec {
        planted: Default::default(),
        name: "test".to_owned(),
        title: "a small platform for tests".to_owned(),
        keyid: KeyIdLayout {
            maxpa: 46,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        },
        memory: MemorySpec {
            integrity: IntegrityMode::Ci,
            erratum_pw_mce: true,
            mac_bits: 28,
            xts: XtsWidth::Xts128,
            tme_bypass: false,
        },
        cpu: CpuSpec {
            packages: 2,
            cores: 4,
            core_clock: Clock { mhz: 2000 },
            l1d: CacheGeometry { size: 512, ways: 2 },
            l2: CacheGeometry { size: 1024, ways: 4 },
            llc: CacheGeometry { size: 2048, ways: 4 },
            l1_clocks: 5,
            l2_clocks: 9,
            miss_clocks: 5,
            window: 64,
            width: 4,
            fill_buffers: 4,
            superqueue: 8,
            store_buffer: 8,
            direct_stores: 4,
            llc_slices: 2,
            slice_hash: XorMasks::new(&[0x40]),
            snoop_filter: SnoopFilterGeometry { sets: 8, ways: 16 },
            flush_sub_blocks: 2,
            wc_buffers: 2,
            weak_slots: 4,
            wc_age: Ps::ZERO,
            fast_string_no_rfo: true,
            rfo_poison_mc: false,
        },
        uncore: UncoreSpec {
            clock: Clock { mhz: 2500 },
            mesh_columns: 2,
            mesh_rows: 1,
            hop: 2,
            ingress: 6,
            home: 20,
            llc_data: 26,
            snoop: 124,
            snoop_modified: 5,
            controller: 52,
            remote: Ps::ns(91),
            direct_admission: Ps::ns(14),
            direct_lookup: Ps::ns(70),
            direct_lines: 64,
        },
        latency: LatencySpec {
            xts: Ps::ns(10),
            mac: Ps::ns(5),
            write_post: Ps::ns(10),
            weak_wait: Ps::ns(10),
            issue: Ps(500),
            direct_store: Ps(7_500),
            clflush: Ps::ns(30),
            clflushopt: Ps(1_400),
            mfence: Ps::ns(18),
            flush_walk: Ps(100),
            pconfig: Ps::ns(1000),
            dma_path: Ps::ns(300),
        },
        functional: FunctionalSpec { op: Ps::ns(1) },
        dram: DramSpec {
            grade: SpeedGrade::Ddr5_4800,
            bin: SpeedBin::B,
            width: DeviceWidth::X4,
            density: Density::Gb16,
            channels: 2,
            ranks: 1,
            faw: FawRule::Clocks32,
            ccd_l_wr: CcdLWrRule::Ns20,
            rrd_l: RrdLRule::Ns5,
            refresh: RefreshMode::Off,
            refresh_hot: false,
            refresh_postpone: 4,
            read_queue: 8,
            write_queue: 8,
            write_high: 6,
            write_low: 2,
            read_age: 4096,
            write_age: 16384,
            page_policy: PagePolicy::Open,
            map: "hashed".to_owned(),
            watchdog: 1 << 20,
        },
        mce: MceSpec {
            seam_nr: true,
            lmce: true,
            cmci: true,
            bank_dcu: 1,
            bank_ifu: 0,
            bank_imc: 13,
            mscod_core: 0x10,
            mscod_td: 0x82b,
            mscod_mac: 0x82a,
            mcacod_imc: 0x90,
            emca2: false,
        },
        tdx: sim_core::platform::TdxSpec::default(),
    }
}

/// Panics the kernel, kills processes, survives TDs.
#[derive(Clone, Default)]
pub(crate) struct Os {
    /// Every machine check it was told of.
    pub seen: Vec<McRecord>,
    /// A machine check in a TD is the kernel's own to it, as without SEAM_NR.
    pub panics_for_tds: bool,
}

impl McHandler for Os {
    fn machine_check(&mut self, record: &McRecord) -> McConsequence {
        self.seen.push(*record);
        match record.context {
            McContext::Kernel => McConsequence::Panic,
            McContext::SeamNonRoot if self.panics_for_tds => McConsequence::Panic,
            McContext::User => McConsequence::Sigbus,
            McContext::SeamRoot | McContext::SeamNonRoot => McConsequence::Survived,
        }
    }
}

/// A machine with agents `cpu0`–`cpu3` (kernel), `user0`, `seam0`, `td2` (HKID 33 on core 2), `dma`, `hw`.
pub(crate) fn machine(spec: &PlatformSpec, speed: Speed, crypto: CryptoKind) -> Machine {
    spec.validate().unwrap();
    let mut m = Machine::new(spec, Options { speed, crypto, seed: 7, log: true }).unwrap();
    for agent in agents() {
        m.add_agent(agent);
    }
    m
}

/// Names in the order of their ids.
pub(crate) const NAMES: &[&str] =
    &["cpu0", "cpu1", "cpu2", "cpu3", "user0", "seam0", "td2", "dma", "hw", "seam1"];

/// The agents of [`NAMES`].
pub(crate) fn agents() -> Vec<AgentSpec> {
    NAMES
        .iter()
        .map(|name| {
            let (kind, core, keyid) = match *name {
                "user0" => (AgentKind::User, 0, 0),
                "seam0" => (AgentKind::Seam, 0, 0),
                "seam1" => (AgentKind::Seam, 1, 0),
                "td2" => (AgentKind::Td, 2, 33),
                "dma" => (AgentKind::Device, 0, 0),
                "hw" => (AgentKind::Hardware, 0, 0),
                cpu => (AgentKind::Kernel, cpu[3..].parse().unwrap(), 0),
            };
            AgentSpec { name: (*name).to_owned(), kind, core, keyid: KeyId(keyid), vcpu: None }
        })
        .collect()
}

/// An agent's id.
pub(crate) fn id(name: &str) -> AgentId {
    AgentId(NAMES.iter().position(|n| *n == name).unwrap() as u16)
}

/// An operation with absolute addresses; a TD's own KeyID is 33, everybody else's 0.
pub(crate) fn op(agent: &str, text: &str) -> Op {
    let own = if agent.starts_with("td") { 33 } else { 0 };
    let key = |key: Option<KeyRef>| -> Result<KeyId, ()> {
        Ok(KeyId(match key {
            None => own,
            Some(KeyRef::Num(n)) => n as u16,
            Some(KeyRef::Private(n)) => 32 + n,
            Some(KeyRef::Shared(n)) => 1 + n,
        }))
    };
    let text: TextOp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    text.try_map(
        |a| match a.base {
            Base::Abs(hpa) => Ok(Addr::new(Hpa(hpa), key(a.key)?)),
            Base::Region { .. } => Err(()),
        },
        |k| key(Some(k)),
        |reg| match reg.base {
            RegBase::Num(n) => Ok(n | reg.or),
            _ => Err(()),
        },
    )
    .unwrap()
}

/// Runs lines `agent: operation` one after the other; what came of each, as text.
pub(crate) fn run(m: &mut Machine, os: &mut Os, lines: &str) -> Vec<String> {
    lines
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|line| {
            let (agent, text) = line.split_once(':').unwrap();
            let agent = agent.trim();
            m.execute(id(agent), &op(agent, text.trim()), 0, os).outcome.to_string()
        })
        .collect()
}

/// A program of lines `agent: operation` and `barrier`.
pub(crate) fn program(lines: &str, order: Order) -> Program {
    let items = lines
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(|line| match line.split_once(':') {
            None => Item::Barrier,
            Some((agent, text)) => Item::Op(id(agent.trim()), op(agent.trim(), text.trim())),
        })
        .collect();
    Program { agents: agents(), items, order }
}

/// Outcomes in the order of the program.
pub(crate) fn by_item(records: &[StepRecord]) -> Vec<String> {
    let mut records: Vec<_> = records.iter().collect();
    records.sort_by_key(|r| r.item);
    records.iter().map(|r| r.outcome.to_string()).collect()
}
