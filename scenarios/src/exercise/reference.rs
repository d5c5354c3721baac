//! Random walks of the reference model: everything that groups L, C, P and S look at.

use sim_core::op::{KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::platform::IntegrityMode::{Ci, Li};
use sim_core::prng::Prng;
use sim_core::{Addr, Hpa, KeyId, Op};
use verify::configurations::small;
use verify::invariants::{Checker, Violation};
use verify::reference::{Agent, Choice, Place, Reference, Step};

const BASE: u64 = 0x1000;
const STEPS: u64 = 60;

/// So many walks of some steps each, every one of them checked.
pub(crate) fn walk(walks: u64, seed: u64, checker: &mut Checker) -> Vec<Violation> {
    let mut rng = Prng::new(seed);
    let mut found = Vec::new();
    for walk in 0..walks {
        let mode = if walk % 2 == 0 { Ci } else { Li };
        let mut model = Reference::new(small(mode, walk % 4 < 2, 2));
        let steps: Vec<Step> = (0..STEPS).map(|_| any_step(&mut rng)).collect();
        for step in spy().into_iter().chain(steps) {
            let before = model.clone();
            // A step that cannot be made changes nothing.
            let Ok(out) = model.step(&step) else { continue };
            found.extend(checker.check_step(&before, &step, &out, &model));
            found.extend(checker.check_state(&model));
        }
    }
    found
}

/// A TD writes a line that the host then reads: what every walk begins with.
fn spy() -> [Step; 4] {
    let (td, private) = (Agent::Td(KeyId(32)), Addr::new(Hpa(BASE), KeyId(32)));
    let shared = Addr::new(Hpa(BASE), KeyId::TME);
    let key = Op::Pconfig { keyid: KeyId(32), cmd: PconfigCmd::SetRandom, alg: None };
    [
        Step::Op(Agent::SeamRoot, 0, key),
        Step::Op(td, 0, Op::Movdir64b { dst: private, src: Source::Fill(0x77) }),
        Step::Op(td, 0, Op::Sfence),
        Step::Op(Agent::Kernel, 0, Op::Load { at: shared, bytes: 8, ty: MemType::Wb }),
    ]
}

fn any_key(rng: &mut Prng) -> KeyId {
    // Two shared KeyIDs, of which a key with integrity may be given to the second, and two private ones.
    let keys = [0, 1, 32, 33];
    KeyId(keys.get(rng.below(4) as usize).copied().unwrap_or(0))
}

fn any_step(rng: &mut Prng) -> Step {
    let keyid = any_key(rng);
    let core = rng.below(2) as u16;
    if rng.below(4) == 0 {
        let at = Addr::new(Hpa(BASE + 64 * rng.below(3)), keyid).tagged();
        let place = [Place::Core(0), Place::Core(1), Place::Llc(0)];
        let place = place.get(rng.below(3) as usize).copied().unwrap_or(Place::Core(0));
        return Step::Choice(match rng.below(6) {
            0 => Choice::Evict(place, at),
            1 => Choice::WriteBack(place, at),
            2 => Choice::ToLlc(core, at),
            3 => Choice::WcLeave(core, at),
            4 => Choice::WeakComplete(core, rng.below(3) as usize),
            _ => Choice::Prefetch(Agent::SeamRoot, core, at),
        });
    }
    let agents = [Agent::Kernel, Agent::Td(KeyId(32)), Agent::SeamRoot, Agent::Device];
    let who = agents.get(rng.below(4) as usize).copied().unwrap_or(Agent::Kernel);
    Step::Op(who, core, any_op(rng, keyid))
}

fn any_op(rng: &mut Prng, keyid: KeyId) -> Op {
    let offset = rng.below(192);
    let to = |offset: u64| Addr::new(Hpa(BASE + offset), keyid);
    let (at, line, word) = (to(offset), to(offset & !63), to(offset & !7));
    let bytes = 1 + rng.below(64) as u32;
    let value = match rng.below(3) {
        0 => Value::Unsaid,
        1 => Value::Fill(rng.below(256) as u8),
        _ => Value::Num(rng.next_u64()),
    };
    let types = [MemType::Wb, MemType::Uc, MemType::Wc];
    let ty = types.get(rng.below(3) as usize).copied().unwrap_or(MemType::Wb);
    let small = rng.below(18) as u32;
    match rng.below(36) {
        0..=2 => Op::Load { at, bytes, ty },
        3 => Op::Fetch { at },
        4 => Op::Prefetch { at },
        5..=7 => Op::Store { at, bytes, value, ty },
        8 | 9 => Op::NtStore { at: word, bytes: 8, value },
        10 => Op::Movdiri { at, bytes, value },
        11 | 12 => Op::Movdir64b { dst: line, src: Source::Fill(bytes as u8) },
        13 => Op::Movdir64b { dst: line, src: Source::Mem(at) },
        14 => Op::Movdir64bPage { at: to(0) },
        15 => Op::RepStosb { at, bytes: 3 * bytes, value: 1 },
        16 => Op::LockXadd { at, bytes: 8, value: 1 },
        17 => Op::Clflush { at },
        18 => Op::Clflushopt { at },
        19 => Op::Clwb { at },
        20 => Op::Wbinvd,
        21 => Op::Wbnoinvdp { block: small & 1 },
        22 | 34 => Op::Sfence,
        23 => Op::Interrupt,
        24 => Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None },
        25 => {
            let alg = Some(KeyAlg::Xts128Integrity);
            Op::Pconfig { keyid: KeyId(1), cmd: PconfigCmd::SetDirect(9), alg }
        }
        26 => Op::DmaRead { at, bytes: 2 * bytes },
        27 => Op::DmaWrite { at, bytes: 2 * bytes, value },
        28 => Op::FlipBit { at, bit: small },
        29 => Op::FlipTd { at },
        30 => Op::MoveLine { from: at, to: Addr::new(Hpa(BASE + 64), KeyId::TME) },
        31 => Op::SaveLine { at, slot: small & 1 },
        32 => Op::ReplayLine { slot: small & 1, at },
        33 => Op::InjectUe { at },
        _ => Op::Wbnoinvd,
    }
}
