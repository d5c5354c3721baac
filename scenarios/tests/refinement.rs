//! The machine against the reference model, on random programs and on the library.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]
#![allow(clippy::disallowed_methods, reason = "how much is checked is the tester's to say")]

use expect_test::expect;
use machine::{
    Act, Actor, AgentId, AgentKind, AgentSpec, CryptoKind, Item, Machine, Options, Order, Program,
    Speed,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use scenarios::format::Scenario;
use scenarios::library::LIBRARY;
use scenarios::platform::{Origin, load_with};
use scenarios::refine::{self, Difference, Disagreement, Refinement};
use scenarios::report::Verdict;
use scenarios::run::{Prepared, Request, plan, run_prepared};
use sim_core::mca::{McConsequence, McContext, McRecord};
use sim_core::op::{Base, KeyAlg, KeyRef, MemType, PconfigCmd, Source, TextOp, Value};
use sim_core::platform::{CacheGeometry, IntegrityMode, SnoopFilterGeometry};
use sim_core::port::McHandler;
use sim_core::{Addr, EventKind, Hpa, KeyId, KeyIdLayout, Op, PlatformSpec, Ps};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// A handler that lets the kernel live, or as Linux has it.
struct Os {
    lenient: bool,
}

impl McHandler for Os {
    fn machine_check(&mut self, record: &McRecord) -> McConsequence {
        match record.context {
            McContext::Kernel if !self.lenient => McConsequence::Panic,
            McContext::User if !self.lenient => McConsequence::Sigbus,
            _ => McConsequence::Survived,
        }
    }
}

/// A machine's variable parts.
#[derive(Clone, Debug)]
struct Setting {
    two_packages: bool,
    ci: bool,
    erratum: bool,
    fast_string: bool,
    rfo_mc: bool,
    bypass: bool,
    lmce: bool,
    lenient: bool,
    ways: (u8, u8, u8),
    wc_buffers: u8,
    weak_slots: u8,
    wc_age: bool,
}

fn settings() -> impl Strategy<Value = Setting> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let rare = prop::bool::weighted(0.2);
    let often = prop::bool::weighted(0.8);
    let rarely = (rare, prop::bool::weighted(0.1), often, often, rare);
    let sizes = ((1u8..3, 1u8..3, 1u8..3), 1u8..3, 1u8..4);
    (flags, rarely, sizes).prop_map(
        |(
            (two_packages, ci, erratum, fast_string),
            (rfo_mc, bypass, lmce, lenient, wc_age),
            (ways, wc_buffers, weak_slots),
        )| Setting {
            two_packages,
            ci,
            erratum,
            fast_string,
            rfo_mc,
            bypass,
            lmce,
            lenient,
            ways,
            wc_buffers,
            weak_slots,
            wc_age,
        },
    )
}

static SPR: LazyLock<PlatformSpec> =
    LazyLock::new(|| load_with(&Origin::Preset("spr".to_owned()), &[]).unwrap().spec);

impl Setting {
    fn platform(&self) -> PlatformSpec {
        let cache = |ways: u8| CacheGeometry { size: 2 * 64 * u64::from(ways), ways };
        let mut spec = SPR.clone();
        // KeyIDs from 32 on are private.
        spec.keyid = KeyIdLayout {
            maxpa: 46,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        };
        spec.memory.integrity = if self.ci { IntegrityMode::Ci } else { IntegrityMode::Li };
        spec.memory.erratum_pw_mce = self.erratum;
        spec.memory.tme_bypass = self.bypass;
        spec.mce.lmce = self.lmce;
        let cpu = &mut spec.cpu;
        (cpu.packages, cpu.cores) = if self.two_packages { (2, 4) } else { (1, 2) };
        (cpu.l1d, cpu.l2, cpu.llc) = (cache(self.ways.0), cache(self.ways.1), cache(self.ways.2));
        (cpu.wc_buffers, cpu.weak_slots) = (self.wc_buffers, self.weak_slots);
        cpu.llc_slices = 2;
        // As many physical lines as its cores' L2s hold of a set, so that it often runs out of room.
        cpu.snoop_filter = SnoopFilterGeometry { sets: 1, ways: self.ways.1 };
        cpu.flush_sub_blocks = 2;
        cpu.fast_string_no_rfo = self.fast_string;
        cpu.rfo_poison_mc = self.rfo_mc;
        cpu.wc_age = if self.wc_age { Ps::ns(40) } else { Ps::ZERO };
        spec
    }
}

const AGENTS: [(&str, AgentKind, u16, u16); 10] = [
    ("cpu0", AgentKind::Kernel, 0, 0),
    ("cpu1", AgentKind::Kernel, 1, 0),
    ("cpu2", AgentKind::Kernel, 2, 0),
    ("user0", AgentKind::User, 0, 0),
    ("seam0", AgentKind::Seam, 0, 0),
    ("seam2", AgentKind::Seam, 2, 0),
    ("tdA", AgentKind::Td, 1, 33),
    ("tdB", AgentKind::Td, 3, 34),
    ("dma0", AgentKind::Device, 0, 0),
    ("hw", AgentKind::Hardware, 0, 0),
];

fn agents(spec: &PlatformSpec) -> Vec<AgentSpec> {
    let agent = |(name, kind, core, keyid): (&str, AgentKind, u16, u16)| AgentSpec {
        name: name.to_owned(),
        kind,
        core: core % spec.cpu.cores,
        keyid: KeyId(keyid),
        vcpu: None,
    };
    AGENTS.into_iter().map(agent).collect()
}

/// A page that package 0 serves, and one that package 1 serves where there is one. Few lines of them are used.
const PAGES: [u64; 2] = [0x1000, (1 << 30) + 0x2000];

/// Mostly the KeyIDs that the agent can form, now and then one that it cannot.
fn keyids(kind: AgentKind, own: u16) -> BoxedStrategy<KeyId> {
    let any = || select(vec![0u16, 0, 1, 33, 34]);
    match kind {
        AgentKind::Seam | AgentKind::Hardware => any().prop_map(KeyId).boxed(),
        AgentKind::Td => {
            prop_oneof![8 => Just(own), 2 => Just(0), 1 => any()].prop_map(KeyId).boxed()
        }
        _ => prop_oneof![12 => Just(0), 2 => Just(1), 1 => any()].prop_map(KeyId).boxed(),
    }
}

fn lines() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => Just(PAGES[0]),
        4 => Just(PAGES[0] + 64),
        2 => Just(PAGES[0] + 128),
        3 => Just(PAGES[1]),
        1 => Just(PAGES[1] + 64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::Num),
        any::<u8>().prop_map(Value::Fill),
        Just(Value::Unsaid)
    ]
}

fn op(kind: AgentKind, own: u16, cores: u32) -> BoxedStrategy<Op> {
    let line = (lines(), keyids(kind, own)).prop_map(|(hpa, k)| Addr::new(Hpa(hpa), k)).boxed();
    let within = |a: Addr, offset: u64| Addr::new(Hpa(a.hpa.0 + offset), a.keyid);
    let any_byte =
        (line.clone(), prop_oneof![4 => Just(0u64), 2 => Just(8), 1 => Just(60), 1 => 0u64..64])
            .prop_map(move |(a, o)| within(a, o))
            .boxed();
    let sizes = || select(vec![1u32, 4, 8, 8, 16, 32, 64, 64]);
    let delay = (1u64..200).prop_map(|n| Op::Delay { time: Ps::ns(n) }).boxed();
    match kind {
        AgentKind::Device => prop_oneof![
            3 => (any_byte.clone(), select(vec![1u32, 8, 64, 128])).prop_map(|(at, bytes)| Op::DmaRead { at, bytes }),
            3 => (any_byte, select(vec![1u32, 8, 64, 64, 128]), value())
                .prop_map(|(at, bytes, value)| Op::DmaWrite { at, bytes, value }),
            1 => delay,
        ]
        .boxed(),
        AgentKind::Hardware => prop_oneof![
            4 => line.clone().prop_map(|at| Op::Evict { at }),
            2 => (0..cores).prop_map(|core| Op::WcEvict { core }),
            1 => (line.clone(), 0u32..512).prop_map(|(at, bit)| Op::FlipBit { at, bit }),
            1 => line.clone().prop_map(|at| Op::FlipTd { at }),
            1 => (line.clone(), line.clone()).prop_map(|(from, to)| Op::MoveLine { from, to }),
            1 => (line.clone(), 0u32..2).prop_map(|(at, slot)| Op::SaveLine { at, slot }),
            1 => (line.clone(), 0u32..2).prop_map(|(at, slot)| Op::ReplayLine { at, slot }),
            1 => line.prop_map(|at| Op::InjectUe { at }),
            1 => delay,
        ]
        .boxed(),
        _ => {
            let ty = || select(vec![MemType::Wb, MemType::Wb, MemType::Wb, MemType::Uc, MemType::Wc]);
            let source = prop_oneof![
                any::<u8>().prop_map(Source::Fill),
                any_byte.clone().prop_map(Source::Mem)
            ];
            let alg = select(vec![
                None,
                None,
                Some(KeyAlg::Xts128),
                Some(KeyAlg::Xts128Integrity),
                Some(KeyAlg::Xts256),
                Some(KeyAlg::Xts256Integrity),
            ]);
            let cmd = prop_oneof![
                Just(PconfigCmd::SetRandom),
                (0u64..2).prop_map(PconfigCmd::SetDirect),
                Just(PconfigCmd::ClearKey),
                Just(PconfigCmd::NoEncrypt)
            ];
            let keyid = select(vec![0u16, 1, 1, 33, 33, 34, 64]).prop_map(KeyId);
            let nt = (line.clone(), select(vec![4u32, 8, 16, 32, 64]), 0u64..16, value());
            let nt = nt.prop_map(move |(a, bytes, i, value)| {
                let at = within(a, i * u64::from(bytes) % 64);
                Op::NtStore { at, bytes, value }
            });
            let string = prop_oneof![Just(64u32), Just(128), Just(8), 1u32..200];
            let page = (select(PAGES.to_vec()), keyids(kind, own))
                .prop_map(|(hpa, k)| Op::Movdir64bPage { at: Addr::new(Hpa(hpa), k) });
            prop_oneof![
                16 => prop_oneof![
                    (any_byte.clone(), sizes(), ty()).prop_map(|(at, bytes, ty)| Op::Load { at, bytes, ty }),
                    (any_byte.clone(), sizes(), value(), ty())
                        .prop_map(|(at, bytes, value, ty)| Op::Store { at, bytes, value, ty }),
                ],
                3 => any_byte.clone().prop_map(|at| Op::Fetch { at }),
                3 => any_byte.clone().prop_map(|at| Op::Prefetch { at }),
                5 => nt,
                1 => (any_byte.clone(), sizes(), value())
                    .prop_map(|(at, bytes, value)| Op::NtStore { at, bytes: bytes.max(4), value }),
                3 => (any_byte.clone(), select(vec![4u32, 8]), value())
                    .prop_map(|(at, bytes, value)| Op::Movdiri { at, bytes, value }),
                6 => (line.clone(), source.clone()).prop_map(|(dst, src)| Op::Movdir64b { dst, src }),
                1 => (any_byte.clone(), source).prop_map(|(dst, src)| Op::Movdir64b { dst, src }),
                1 => page,
                3 => (any_byte.clone(), string, any::<u8>())
                    .prop_map(|(at, bytes, value)| Op::RepStosb { at, bytes, value }),
                3 => (any_byte.clone(), select(vec![1u32, 2, 4, 8]), any::<u64>())
                    .prop_map(|(at, bytes, value)| Op::LockXadd { at, bytes, value }),
                2 => any_byte.clone().prop_map(|at| Op::Clflush { at }),
                3 => any_byte.clone().prop_map(|at| Op::Clflushopt { at }),
                3 => any_byte.prop_map(|at| Op::Clwb { at }),
                4 => prop_oneof![
                    Just(Op::Wbinvd),
                    Just(Op::Wbnoinvd),
                    (0u32..3).prop_map(|block| Op::Wbinvdp { block }),
                    (0u32..3).prop_map(|block| Op::Wbnoinvdp { block }),
                ],
                4 => select(vec![Op::Mfence, Op::Sfence, Op::Lfence, Op::Interrupt]),
                2 => delay,
                2 => (keyid, cmd, alg).prop_map(|(keyid, cmd, alg)| Op::Pconfig { keyid, cmd, alg }),
            ]
            .boxed()
        }
    }
}

/// Keys and initialised lines, so that not every private read meets a line of power-on.
fn prelude() -> impl Strategy<Value = Vec<(u16, Op)>> {
    let key = |id, keyid, alg| {
        let (keyid, cmd) = (KeyId(keyid), PconfigCmd::SetRandom);
        (id, Op::Pconfig { keyid, cmd, alg })
    };
    let line = (lines(), select(vec![0u16, 1, 33, 33, 33, 34]), any::<u8>());
    let init = line.prop_map(|(hpa, keyid, byte)| {
        let dst = Addr::new(Hpa(hpa), KeyId(keyid));
        (4, Op::Movdir64b { dst, src: Source::Fill(byte) })
    });
    (any::<bool>(), prop::collection::vec(init, 0..8)).prop_map(move |(integrity, inits)| {
        let alg = integrity.then_some(KeyAlg::Xts128Integrity);
        let mut all = vec![key(4, 33, None), key(4, 34, None), key(5, 33, None), key(0, 1, alg)];
        all.extend(inits);
        all.push((4, Op::Mfence));
        all
    })
}

fn items() -> impl Strategy<Value = Vec<(u16, Op)>> {
    let who = select(vec![0u16, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 6, 6, 7, 7, 8, 9, 9]);
    let one = who.prop_flat_map(|id| {
        let (_, kind, _, own) = AGENTS[usize::from(id)];
        op(kind, own, 2).prop_map(move |op| (id, op))
    });
    let prelude = prop_oneof![1 => Just(vec![]), 4 => prelude()];
    (prelude, prop::collection::vec(one, 1..50)).prop_map(|(mut all, rest)| {
        all.extend(rest);
        all
    })
}

const SPEEDS: [Speed; 2] = [Speed::Functional, Speed::Timed];

fn machine(setting: &Setting, speed: Speed, crypto: CryptoKind) -> Machine {
    Machine::new(&setting.platform(), Options { speed, crypto, seed: 3, log: true }).unwrap()
}

fn program(setting: &Setting, items: &[(u16, Op)]) -> Program {
    let items = items.iter().map(|(id, op)| Item::Op(AgentId(*id), *op)).collect();
    Program { agents: agents(&setting.platform()), items, order: Order::Program }
}

fn replay(
    setting: &Setting,
    items: &[(u16, Op)],
    speed: Speed,
    crypto: CryptoKind,
) -> Result<(), String> {
    let mut machine = machine(setting, speed, crypto);
    let program = program(setting, items);
    let mut os = Os { lenient: setting.lenient };
    let (records, verdict) = refine::run(&mut machine, &program, &mut os);
    assert_eq!(records.len(), program.items.len());
    verdict.map_err(|d| format!("{speed:?}: {d}"))?;
    let broken = machine.conservation();
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// Lines `agent: operation` with absolute addresses, as a disagreement prints them.
fn items_of(text: &str) -> Vec<(u16, Op)> {
    let line = |line: &str| {
        let (name, op) = line.split_once(':').unwrap();
        let id = AGENTS.iter().position(|(n, ..)| *n == name.trim()).unwrap();
        let own = AGENTS[id].3;
        let key = |key: Option<KeyRef>| match key {
            None => Ok(KeyId(own)),
            Some(KeyRef::Num(n)) => u16::try_from(n).map(KeyId).map_err(|_| "KeyID"),
            Some(_) => Err("a number"),
        };
        let op: TextOp = op.trim().parse().unwrap();
        let op = op.try_map(
            |a| match a.base {
                Base::Abs(hpa) => Ok(Addr::new(Hpa(hpa), key(a.key)?)),
                Base::Region { .. } => Err("an address"),
            },
            |k| key(Some(k)),
            |_| Err("no register"),
        );
        (id as u16, op.unwrap())
    };
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

const ROOMY: Setting = Setting {
    two_packages: true,
    ci: true,
    erratum: true,
    fast_string: true,
    rfo_mc: false,
    bypass: false,
    lmce: true,
    lenient: true,
    ways: (2, 2, 2),
    wc_buffers: 2,
    weak_slots: 2,
    wc_age: false,
};

/// Replays lines at both speeds.
#[track_caller]
fn agrees(setting: &Setting, text: &str) {
    for speed in SPEEDS {
        if let Err(why) = replay(setting, &items_of(text), speed, CryptoKind::Symbolic) {
            panic!("{why}");
        }
    }
}

// What the comparison sees: a machine that did something else than is claimed.

/// Runs lines on a machine, but tells the reference the second of the two texts.
fn told(done: &str, claimed: &str) -> Result<(), Disagreement> {
    let spec = ROOMY.platform();
    let options = Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 3, log: true };
    let mut machine = Machine::new(&spec, options).unwrap();
    let mut refinement = Refinement::new(&mut machine);
    for agent in agents(&spec) {
        machine.add_agent(agent);
    }
    let mut os = Os { lenient: true };
    for ((id, op), (claimed, claim)) in items_of(done).iter().zip(&items_of(claimed)) {
        let mut record = machine.execute(AgentId(*id), op, 0, &mut os);
        let mut made = machine.take_transitions();
        if (op, id) != (claim, claimed) {
            record.agent = AgentId(*claimed);
            let (_, kind, core, own) = AGENTS[usize::from(*claimed)];
            for t in &mut made {
                t.actor = match kind {
                    AgentKind::Seam => Actor::SeamRoot,
                    AgentKind::Td => Actor::Td(KeyId(own)),
                    AgentKind::Hardware => Actor::Hardware,
                    _ => Actor::Kernel,
                };
                (t.agent, t.core, t.act) = (Some(record.agent), core, Act::Op(*claim));
            }
        }
        refinement.follow_made(&machine, &made, claim, &record, &mut ())?;
    }
    machine.settle();
    refinement.finish(&mut machine)
}

#[test]
fn whatever_else_the_machine_does_is_seen_and_printed_with_the_program() {
    let keys = "seam0: pconfig 33 set-random\n";
    for (done, claimed, sign) in [
        ("cpu0: store [0x1000] 8 0x1", "cpu0: store [0x1000] 8 0x2", "copy of"),
        ("cpu0: store [0x1000] 8 0x1", "cpu0: load [0x1000] 8", "saw done"),
        ("cpu0: load [0x1000] 8", "cpu1: load [0x1040] 8", "request 1 at"),
        ("cpu0: mfence", "cpu0: movnti [0x1000] 8 0x1", "write-combining buffers"),
        ("cpu0: movnti [0x1000] 8 0x1", "cpu0: movnti [0x1000] 8 0x2", "write-combining buffers"),
        ("cpu0: mfence", "cpu0: clwb [0x1000]", "weakly ordered"),
        ("cpu0: mfence", "hw: inject-ue [0x1000]", "births"),
        ("cpu0: mfence", "hw: flip-td [0x1000]", "line"),
        ("seam0: load [0x1000@33] 8", "cpu0: load [0x1000@33] 8", "saw mc"),
    ] {
        let got = told(&format!("{keys}{done}"), &format!("{keys}{claimed}"));
        let Err(d) = got else { panic!("{done} passed as {claimed}") };
        let text = d.to_string();
        assert!(text.contains(sign), "{done} as {claimed}: {text}");
        let told: Vec<(u16, Op)> = d.program.iter().flat_map(|line| items_of(line)).collect();
        assert_eq!(told, items_of(&format!("{keys}{claimed}")));
        assert!(text.ends_with(&d.program.join("\n")), "{text}");
    }
}

#[test]
fn a_run_without_a_log_cannot_be_checked() {
    let spec = ROOMY.platform();
    let options =
        Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 3, log: false };
    let mut machine = Machine::new(&spec, options).unwrap();
    let items = vec![Item::Op(AgentId(0), Op::Mfence)];
    let program = Program { agents: agents(&spec), items, order: Order::Program };
    let (_, verdict) = refine::run(&mut machine, &program, &mut Os { lenient: true });
    assert_eq!(verdict.map_err(|d| d.difference), Err(Difference::NoLog));
}

// What went wrong.

#[test]
fn a_key_is_programmed_in_one_package_only() {
    agrees(
        &ROOMY,
        "seam2: pconfig 33 set-random
         seam0: movdir64b [0x1000@33] fill=0x1
         seam0: mfence
         seam0: movdir64b [0x40002000@33] fill=0x1
         seam0: mfence
         seam0: pconfig 33 set-random
         seam2: load [0x40002000@33] 8
         seam2: load [0x1000@33] 8",
    );
}

#[test]
fn a_store_whose_rfo_traps_is_not_made() {
    let setting = Setting { rfo_mc: true, ..ROOMY };
    agrees(
        &setting,
        "hw: inject-ue [0x1040]
         cpu0: store [0x103c] 8 0x1
         cpu0: load [0x1000] 64
         hw: inject-ue [0x1000]
         cpu2: store [0x103c] 8 0x1
         user0: store [0x1000] 64 0x1",
    );
}

#[test]
fn a_locked_operation_on_two_lines_that_push_each_other_out_owns_both_before_it_writes() {
    let setting = Setting { rfo_mc: true, two_packages: false, ways: (1, 1, 1), ..ROOMY };
    agrees(
        &setting,
        "cpu0: store [0x1000] 8 0x1
         cpu0: lock-xadd [0x107c] 8 0x1
         cpu0: load [0x1080] 8
         cpu0: load [0x1040] 64",
    );
}

#[test]
fn a_line_that_a_string_store_pushed_out_of_its_core_brings_its_poison_again() {
    let setting = Setting { rfo_mc: true, two_packages: false, ways: (1, 1, 1), ..ROOMY };
    agrees(
        &setting,
        "hw: inject-ue [0x1080]
         cpu0: store [0x1080] 8 0x1
         cpu0: rep-stosb [0x1000] 141 fill=0xd0",
    );
}

#[test]
fn after_the_end_of_simulated_time_nothing_runs() {
    let late = "cpu0: movdir64b [0x1000] fill=0x1
                cpu0: delay 9000000s
                cpu0: delay 9000000s
                cpu1: load [0x1000] 8";
    replay(&ROOMY, &items_of(late), Speed::Functional, CryptoKind::Symbolic).unwrap();
}

#[test]
fn a_second_direct_store_to_a_line_makes_the_first_visible() {
    agrees(
        &ROOMY,
        "cpu0: movdir64b [0x1000] fill=0x1
         cpu0: movdir64b [0x1000] fill=0x2
         cpu0: clwb [0x1000]
         cpu1: load [0x1000] 8",
    );
}

#[test]
fn a_prefetch_of_what_cannot_be_formed_is_dropped_and_misalignment_comes_before_translation() {
    agrees(
        &ROOMY,
        "cpu0: prefetch [0x1000@33]
         tdA: prefetch [0x1000@34]
         cpu0: movdir64b [0x1008@33] fill=0x1
         cpu0: movntdq [0x1008@33] 16
         tdA: fetch [0x1000@0]
         tdA: fetch [0x1000@34]",
    );
}

#[test]
fn privileged_instructions_of_processes_and_tds_do_nothing() {
    agrees(
        &ROOMY,
        "seam0: pconfig 33 set-random
         seam0: movdir64b [0x1000@33] fill=0x1
         tdA: pconfig 1 set-random
         user0: pconfig 1 set-random
         tdA: wbinvd
         user0: wbinvd
         tdA: wbinvdp 0
         user0: wbinvdp 0",
    );
}

#[test]
fn lines_moved_on_a_machine_without_encryption_are_tampered_with() {
    let setting = Setting { bypass: true, ..ROOMY };
    agrees(
        &setting,
        "cpu0: movdir64b [0x1000] fill=0x1
         cpu0: mfence
         hw: move-line [0x1000] [0x1040]
         cpu0: load [0x1040] 8",
    );
}

#[test]
fn an_algorithm_without_integrity_is_accepted_for_a_private_key_and_has_integrity_forced_on() {
    agrees(
        &ROOMY,
        "seam0: pconfig 33 set-random xts-128
         seam0: movdir64b [0x1000@33] fill=0x1
         seam0: mfence
         hw: flip-bit [0x1000] 0
         seam0: load [0x1000@33] 8",
    );
}

/// Every scenario at both speeds; of its platforms and modes one after the other, scenario by scenario, or all of them with
/// `TDXSIM_CHECK_ALL`.
#[test]
fn every_scenario_of_the_library_agrees_with_the_reference() {
    let all = std::env::var_os("TDXSIM_CHECK_ALL").is_some();
    let mut prepared = Prepared::default();
    let mut broken = Vec::new();
    for (n, entry) in LIBRARY.iter().enumerate() {
        let scenario = Scenario::parse(entry.source()).unwrap();
        for (s, speed) in SPEEDS.into_iter().enumerate() {
            let request = Request { speed, check: true, ..Request::default() };
            let cells = plan(&scenario, &request).unwrap();
            let chosen = (n + s) % cells.len();
            for (_, cell) in cells.iter().enumerate().filter(|(i, _)| all || *i == chosen) {
                let report = run_prepared(cell, &request, Some(&mut prepared)).unwrap();
                if report.verdict != Verdict::Pass {
                    broken.push(format!("{} {speed:?}: {:#?}", entry.name, report.notes));
                    break;
                }
                let note = |n: &String| n.contains("operations agree (");
                assert!(report.notes.iter().any(note), "{}: {:#?}", entry.name, report.notes);
            }
        }
    }
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn random_programs_reach_every_row_and_every_choice() {
    let mut runner = TestRunner::deterministic();
    let mut rows = BTreeSet::new();
    let mut whys = BTreeSet::new();
    for _ in 0..600 {
        let (setting, items) = (settings(), items()).new_tree(&mut runner).unwrap().current();
        let mut machine = machine(&setting, Speed::Timed, CryptoKind::Symbolic);
        let program = program(&setting, &items);
        machine.run(&program, &mut Os { lenient: setting.lenient });
        for event in machine.trace().events() {
            match event.kind {
                EventKind::DramRead { rule, .. } | EventKind::DramWrite { rule, .. } => {
                    rows.insert(rule.to_string());
                }
                EventKind::WriteBack { why, .. } => {
                    whys.insert(format!("write-back {why:?}"));
                }
                EventKind::Dropped { why, .. } => {
                    whys.insert(format!("drop {why:?}"));
                }
                EventKind::WcLeave { why, .. } => {
                    whys.insert(format!("buffer {why:?}"));
                }
                EventKind::WeakDone { why, .. } => {
                    whys.insert(format!("weak {why:?}"));
                }
                _ => {}
            }
        }
    }
    let (rc, rl, w) = (1..=16, 1..=8, 1..=10);
    let reads = rc.map(|n| format!("RC-{n:02}")).chain(rl.map(|n| format!("RL-{n:02}")));
    let all: BTreeSet<String> = reads.chain(w.map(|n| format!("W-{n:02}"))).collect();
    assert_eq!(rows, all);
    expect![[r#"
        buffer Capacity
        buffer Chosen
        buffer Fence
        buffer Full
        buffer Interrupt
        buffer OwnAccess
        buffer Time
        drop Bypass
        drop Capacity
        drop Chosen
        drop Dma
        drop Flush
        drop FlushAll
        weak Capacity
        weak Fence
        weak OwnAccess
        weak Time
        write-back Bypass
        write-back Capacity
        write-back Chosen
        write-back Dma
        write-back Flush
        write-back FlushAll
        write-back Snoop"#]]
    .assert_eq(&whys.into_iter().collect::<Vec<_>>().join("\n"));
}

/// More cases on request: `PROPTEST_CASES`. Counterexamples are kept as named tests above, not as seeds.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { ProptestConfig::default().cases } else { cases };
    ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1500))]
    #[test]
    fn every_run_of_the_machine_is_one_that_the_reference_allows(setting in settings(), items in items()) {
        for speed in SPEEDS {
            if let Err(why) = replay(&setting, &items, speed, CryptoKind::Symbolic) {
                prop_assert!(false, "{why}\non {setting:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(config(100))]
    #[test]
    fn the_reference_allows_what_real_cryptography_does(setting in settings(), items in items()) {
        if let Err(why) = replay(&setting, &items, Speed::Functional, CryptoKind::Real) {
            prop_assert!(false, "{why}\non {setting:?}");
        }
    }
}
