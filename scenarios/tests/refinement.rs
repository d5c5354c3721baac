//! The machine against the reference model, on random programs and on the library.

use machine::{
    AgentId, AgentKind, AgentSpec, CryptoKind, Item, Machine, Options, Order, Program, Speed,
};
use proptest::prelude::*;
use proptest::sample::select;
use scenarios::platform::{Origin, load_with};
use scenarios::refine;
use sim_core::mca::{McConsequence, McContext, McRecord};
use sim_core::op::{Base, KeyAlg, KeyRef, MemType, PconfigCmd, Source, TextOp, Value};
use sim_core::platform::{CacheGeometry, IntegrityMode};
use sim_core::port::McHandler;
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Op, PlatformSpec, Ps};
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
    let rarely = (rare, prop::bool::weighted(0.1), often.clone(), often, rare);
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
    };
    AGENTS.into_iter().map(agent).collect()
}

/// Two lines of a page that package 0 serves, and two of one that package 1 serves where there is one.
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
        5 => Just(PAGES[0]), 4 => Just(PAGES[0] + 64), 2 => Just(PAGES[1]), 1 => Just(PAGES[1] + 64)
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

fn items() -> impl Strategy<Value = Vec<(u16, Op)>> {
    // Seam and the hardware can reach every KeyID: they act more often.
    let who = select(vec![0u16, 0, 1, 2, 3, 4, 4, 5, 6, 6, 7, 8, 9]);
    let one = who.prop_flat_map(|id| {
        let (_, kind, _, own) = AGENTS[usize::from(id)];
        op(kind, own, 2).prop_map(move |op| (id, op))
    });
    let keys = prop::bool::weighted(0.8).prop_map(|keyed| {
        let key = |id, keyid| {
            let (keyid, cmd, alg) = (KeyId(keyid), PconfigCmd::SetRandom, None);
            (id, Op::Pconfig { keyid, cmd, alg })
        };
        if keyed { vec![key(4, 33), key(4, 34), key(5, 33)] } else { vec![] }
    });
    (keys, prop::collection::vec(one, 1..40)).prop_map(|(mut all, rest)| {
        all.extend(rest);
        all
    })
}

fn replay(
    setting: &Setting,
    items: &[(u16, Op)],
    speed: Speed,
    crypto: CryptoKind,
) -> Result<(), String> {
    let spec = setting.platform();
    let options = Options { speed, crypto, seed: 3, log: true };
    let mut machine = Machine::new(&spec, options).unwrap();
    let items = items.iter().map(|(id, op)| Item::Op(AgentId(*id), *op)).collect();
    let program = Program { agents: agents(&spec), items, order: Order::Program };
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
        );
        (id as u16, op.unwrap())
    };
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

#[test]
fn scratch() {
    let Ok(text) = std::fs::read_to_string("/tmp/scratch.txt") else { return };
    let setting = Setting {
        two_packages: false,
        ci: false,
        erratum: false,
        fast_string: false,
        rfo_mc: false,
        bypass: false,
        lmce: false,
        lenient: false,
        ways: (1, 1, 1),
        wc_buffers: 1,
        weak_slots: 2,
        wc_age: false,
    };
    for speed in [Speed::Functional, Speed::Timed] {
        let spec = setting.platform();
        let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 3, log: true };
        let mut machine = Machine::new(&spec, options).unwrap();
        let items = items_of(&text).iter().map(|(id, op)| Item::Op(AgentId(*id), *op)).collect();
        let program = Program { agents: agents(&spec), items, order: Order::Program };
        let mut os = Os { lenient: setting.lenient };
        let (records, verdict) = refine::run(&mut machine, &program, &mut os);
        for r in records {
            eprintln!("{} {:?}", r.outcome, r.begin);
        }
        for e in machine.trace().events() {
            eprintln!("{:?} {:?}", e.at, e.kind);
        }
        if let Err(d) = verdict {
            eprintln!("{d}");
        }
    }
}

/// More cases on request: `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { ProptestConfig::default().cases } else { 1500 };
    ProptestConfig { cases, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn every_run_of_the_machine_is_one_that_the_reference_allows(setting in settings(), items in items()) {
        for speed in [Speed::Functional, Speed::Timed] {
            if let Err(why) = replay(&setting, &items, speed, CryptoKind::Symbolic) {
                prop_assert!(false, "{why}\non {setting:?}");
            }
        }
    }
}
