//! What the reference model is searched and measured with.

use crate::reference::{Agent, Choice, Place, Reference, Spec, Step};
use sim_core::op::{MemType, PconfigCmd, Source, Value};
use sim_core::platform::{IntegrityMode, MemorySpec, XtsWidth};
use sim_core::prng::Prng;
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Op};

/// Who uses a KeyID: the host the shared ones, its TD a private one.
pub fn user_of(spec: &Spec, keyid: KeyId) -> Agent {
    if spec.keyid.is_private(keyid) { Agent::Td(keyid) } else { Agent::Kernel }
}

/// A machine whose private KeyIDs, of those given, have keys of their own; memory is as at power-on.
pub fn with_keys(spec: Spec, keyids: &[KeyId]) -> Reference {
    let mut model = Reference::new(spec);
    for &keyid in keyids.iter().filter(|k| spec.keyid.is_private(**k)) {
        for package in 0..spec.packages {
            let op = Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None };
            let core = u16::from(package) * (spec.cores / u16::from(spec.packages.max(1)));
            // The module may, and the KeyID is private: this cannot be refused.
            let _ = model.step(&Step::Op(Agent::SeamRoot, core, op));
        }
    }
    model
}

/// The shape of random programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Watched lines, in a row.
    pub lines: u64,
    /// KeyIDs; line `i` is mostly used under the `i`-th, modulo their number.
    pub keyids: Vec<KeyId>,
    /// One access in so many is under another KeyID than its line's; 0 for none.
    pub stray: u64,
}

/// The first watched line's address.
pub const BASE: Hpa = Hpa(0x1000);

/// A program of about `len` steps, all of them possible from [`with_keys`] on, as a pure function of the seed: loads and
/// stores for the most part, flushes, direct and non-temporal stores, fences, and the choices of hardware.
pub fn random_program(spec: Spec, shape: &Shape, seed: u64, len: usize) -> Vec<Step> {
    let mut rng = Prng::new(seed);
    let mut model = with_keys(spec, &shape.keyids);
    let mut program = Vec::with_capacity(len);
    while program.len() < len {
        let line = rng.below(shape.lines);
        let stray = shape.stray != 0 && rng.below(shape.stray) == 0;
        let index = if stray { rng.next_u64() } else { line };
        let count = shape.keyids.len().max(1) as u64;
        let keyid = shape.keyids.get((index % count) as usize).copied().unwrap_or(KeyId::TME);
        let core = rng.below(u64::from(spec.cores)) as u16;
        let at = Addr::new(Hpa(BASE.0 + 64 * line), keyid);
        let word = Addr::new(Hpa(at.hpa.0 + 8 * rng.below(8)), keyid);
        let (tag, own) = (at.tagged(), Place::Core(core));
        let value = Value::Num(rng.next_u64());
        let who = user_of(&spec, keyid);
        let op = |op| Step::Op(who, core, op);
        let holder = model.copies(tag).next().map_or(own, |(place, _)| place);
        let step = match rng.below(40) {
            0..=15 => op(Op::Load { at: word, bytes: 8, ty: MemType::Wb }),
            16..=25 => op(Op::Store { at: word, bytes: 8, value, ty: MemType::Wb }),
            26..=29 => Step::Choice(Choice::Evict(holder, tag)),
            30 => Step::Choice(Choice::WriteBack(holder, tag)),
            31 => Step::Choice(Choice::ToLlc(core, tag)),
            32 => op(Op::Clflush { at }),
            33 => op(Op::Clflushopt { at }),
            34 => op(Op::Movdir64b { dst: at, src: Source::Fill(line as u8) }),
            35 => op(Op::NtStore { at: word, bytes: 8, value }),
            36 => Step::Choice(Choice::WcLeave(core, tag)),
            37 => Step::Choice(Choice::WeakComplete(core, 0)),
            38 => Step::Choice(Choice::Prefetch(who, core, tag)),
            _ => op(Op::Sfence),
        };
        if model.step(&step).is_ok() {
            program.push(step);
        }
    }
    program
}

/// A platform of one package: 64 KeyIDs, of which those from 32 on are private.
pub const fn small(integrity: IntegrityMode, erratum: bool, cores: u16) -> Spec {
    Spec {
        keyid: KeyIdLayout {
            maxpa: 52,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        },
        memory: MemorySpec {
            integrity,
            erratum_pw_mce: erratum,
            mac_bits: 28,
            xts: XtsWidth::Xts128,
            tme_bypass: false,
        },
        packages: 1,
        cores,
        wc_buffers: 2,
        flush_sub_blocks: 2,
        fast_string_no_rfo: true,
        rfo_poison_mc: false,
        #[cfg(test)]
        mutant: 0,
    }
}
