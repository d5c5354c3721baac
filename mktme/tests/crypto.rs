//! Symbolic and real crypto against each other, and the chance that a MAC collides.

mod common;

use common::*;
use mktme::{CryptoKind, Image};
use proptest::prelude::*;
use sim_core::addr::{Line, Page};
use sim_core::data::{ByteMask, LineData};
use sim_core::keyid::KeyId;
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::{DataClass, PconfigStatus};
use sim_core::platform::IntegrityMode;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Read(u64, KeyId),
    Write(u64, KeyId, u8),
    Partial(u64, KeyId, u64, u8),
    Lines(u64, u64, KeyId, u8),
    Pages(u64, u64, KeyId, u8),
    Pconfig(KeyId, PconfigCmd, Option<KeyAlg>),
    FlipBit(u64, u16),
    FlipTd(u64),
    Move(u64, u64),
    Save(u64, usize),
    Restore(u64, usize),
    Ue(u64, KeyId),
}

fn any_keyid() -> impl Strategy<Value = KeyId> {
    prop_oneof![Just(K0), Just(KS), Just(KI), Just(KA), Just(KB), Just(KeyId(40))]
}

fn any_step() -> impl Strategy<Value = Step> {
    let line = || prop_oneof![3 => 0u64..4, 1 => 62u64..66];
    let cmd = prop_oneof![
        3 => Just(PconfigCmd::SetRandom),
        2 => (0u64..2).prop_map(PconfigCmd::SetDirect),
        1 => Just(PconfigCmd::ClearKey),
        1 => Just(PconfigCmd::NoEncrypt),
    ];
    let alg = prop_oneof![
        3 => Just(None),
        1 => Just(Some(KeyAlg::Xts128)),
        1 => Just(Some(KeyAlg::Xts256)),
        1 => Just(Some(KeyAlg::Xts128Integrity)),
        1 => Just(Some(KeyAlg::Xts256Integrity)),
    ];
    prop_oneof![
        8 => (line(), any_keyid()).prop_map(|(l, k)| Step::Read(l, k)),
        6 => (line(), any_keyid(), 0u8..3).prop_map(|(l, k, v)| Step::Write(l, k, v)),
        3 => (line(), any_keyid(), any::<u64>(), 0u8..3).prop_map(|(l, k, m, v)| Step::Partial(l, k, m, v)),
        1 => (0u64..2, any::<u64>(), any_keyid(), 0u8..3).prop_map(|(p, m, k, v)| Step::Lines(p, m, k, v)),
        1 => (0u64..2, 1u64..600, any_keyid(), 0u8..3).prop_map(|(p, n, k, v)| Step::Pages(p, n, k, v)),
        2 => (any_keyid(), cmd, alg).prop_map(|(k, c, a)| Step::Pconfig(k, c, a)),
        2 => (line(), 0u16..3).prop_map(|(l, bit)| Step::FlipBit(l, bit * 200)),
        2 => line().prop_map(Step::FlipTd),
        2 => (line(), line()).prop_map(|(a, b)| Step::Move(a, b)),
        2 => (line(), 0usize..3).prop_map(|(l, s)| Step::Save(l, s)),
        2 => (line(), 0usize..3).prop_map(|(l, s)| Step::Restore(l, s)),
        1 => (line(), any_keyid()).prop_map(|(l, k)| Step::Ue(l, k)),
    ]
}

struct Runner {
    b: Bench,
    slots: [Option<Image>; 3],
}

impl Runner {
    fn new(mode: IntegrityMode, erratum: bool, bypass: bool, kind: CryptoKind) -> Runner {
        let mut s = spec(mode, erratum, kind);
        s.memory.tme_bypass = bypass;
        Runner { b: Bench::of(s, true), slots: [None; 3] }
    }
    fn make(&mut self, step: &Step) -> String {
        let b = &mut self.b;
        match *step {
            Step::Read(l, k) => {
                let fill = b.read(l, k);
                return format!("{:?} {:?}", fill.class, fill.poison);
            }
            Step::Write(l, k, v) => b.write(l, k, v),
            Step::Partial(l, k, m, v) => {
                b.c.write_partial(at(l, k), &LineData::filled(v), ByteMask(m), &mut b.t);
            }
            Step::Lines(p, m, k, v) => {
                b.c.write_lines(Page(p), m, k, &LineData::filled(v), &mut b.t);
            }
            Step::Pages(p, n, k, v) => {
                b.c.write_pages(Page(p)..Page(p + n), k, &LineData::filled(v), &mut b.t);
            }
            Step::Pconfig(k, c, a) => {
                return format!("{:?}", b.c.pconfig(k, c, a, true, &mut b.t));
            }
            Step::FlipBit(l, bit) => b.c.flip_bit(Line(l), bit, &mut b.t),
            Step::FlipTd(l) => b.c.flip_td(Line(l), &mut b.t),
            Step::Move(x, y) => b.c.move_line(Line(x), Line(y), &mut b.t),
            Step::Save(l, s) => self.slots[s] = Some(b.c.save_line(Line(l))),
            Step::Restore(l, s) => {
                if let Some(image) = self.slots[s] {
                    b.c.restore_line(Line(l), &image, &mut b.t);
                }
            }
            Step::Ue(l, k) => b.c.inject_ue(at(l, k), &mut b.t),
        }
        String::new()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn symbolic_and_real_crypto_agree_on_every_outcome(
        ci: bool,
        erratum: bool,
        bypass: bool,
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mode = if ci { IntegrityMode::Ci } else { IntegrityMode::Li };
        let mut symbolic = Runner::new(mode, erratum, bypass, CryptoKind::Symbolic);
        let mut real = Runner::new(mode, erratum, bypass, CryptoKind::Real);
        // Lines whose content descends from garbage: its bytes are each kind's own.
        let mut unclear = BTreeSet::new();
        for step in &steps {
            if let Step::Partial(l, k, ..) = *step
                && symbolic.b.c.probe(at(l, k)).class == DataClass::Garbage
            {
                unclear.insert(l);
            }
            if let Step::Move(..) | Step::Restore(..) = step {
                unclear.extend(0..70);
            }
            prop_assert_eq!(symbolic.make(step), real.make(step), "{:?}", step);
            if let Step::Write(l, ..) = *step {
                unclear.remove(&l);
            }
        }
        prop_assert_eq!(symbolic.b.t, real.b.t);
        prop_assert_eq!(symbolic.b.c.stats(), real.b.c.stats());
        prop_assert_eq!(symbolic.b.c.ucna_log(), real.b.c.ucna_log());
        for line in (0..4).chain(62..66) {
            prop_assert_eq!(symbolic.b.c.line(Line(line)), real.b.c.line(Line(line)));
            for keyid in [K0, KS, KI, KA, KB, KeyId(40)] {
                let (mut s, r) = (symbolic.b.c.probe(at(line, keyid)), real.b.c.probe(at(line, keyid)));
                if s.class == DataClass::Garbage || unclear.contains(&line) {
                    s.data = r.data;
                }
                prop_assert_eq!(s, r);
            }
        }
    }

    #[test]
    fn what_is_written_with_a_key_is_read_with_it(words: [u64; 8], line in 0u64..1 << 46, which in 0usize..4) {
        let keyid = [K0, KS, KI, KA][which];
        let data = LineData(words);
        for kind in KINDS {
            let mut b = Bench::new(IntegrityMode::Ci, false, kind);
            b.c.write(at(line, keyid), &data, None, &mut b.t);
            let fill = b.read(line, keyid);
            prop_assert_eq!((fill.data, fill.class, fill.poison), (data, DataClass::Plain, None));
        }
    }
}

/// Makes `tries` forgeries by `attack` on a line with a MAC of `bits` bits and counts those that a TD's read accepts.
fn accepted(bits: u8, tries: u64, attack: impl Fn(&mut Bench, u64)) -> u64 {
    let mut s = spec(IntegrityMode::Ci, false, CryptoKind::Real);
    s.memory.mac_bits = bits;
    let mut b = Bench::bare(s, false);
    b.program(KA, None);
    let mut count = 0;
    for i in 0..tries {
        let data = LineData([i, 0, 0, 0, 0, 0, 0, u64::from(bits)]);
        b.c.write(at(1, KA), &data, None, &mut b.t);
        attack(&mut b, i);
        let fill = b.read(1, KA);
        if fill.poison.is_none() {
            assert_eq!(fill.class, DataClass::Garbage);
            count += 1;
        }
    }
    count
}

// verification.md §1.2 asks for 256·2^w forgeries, which debug builds have no time for: here `expected`·2^w are made. The
// seed is fixed; the band is four standard deviations wide on each side, 4·sqrt(expected), rounded down.
const WIDTHS: [(u8, u64, std::ops::RangeInclusive<u64>); 3] =
    [(8, 64, 32..=96), (10, 32, 10..=54), (12, 32, 10..=54)];

#[test]
fn a_flipped_bit_is_accepted_once_in_two_to_the_mac_width() {
    for (bits, expected, band) in WIDTHS {
        let count = accepted(bits, expected << bits, |b, i| {
            b.c.flip_bit(Line(1), (i % 512) as u16, &mut b.t);
        });
        assert!(band.contains(&count), "{bits} bits: {count}");
    }
}

#[test]
fn a_line_of_an_old_key_is_accepted_once_in_two_to_the_mac_width() {
    for (bits, expected, band) in &WIDTHS[..2] {
        let count = accepted(*bits, expected << bits, |b, _| {
            assert_eq!(b.program(KA, None), PconfigStatus::Ok);
        });
        assert!(band.contains(&count), "{bits} bits: {count}");
    }
}

#[test]
fn a_line_moved_from_elsewhere_is_accepted_once_in_two_to_the_mac_width() {
    for (bits, expected, band) in &WIDTHS[..2] {
        let count = accepted(*bits, expected << bits, |b, i| {
            b.c.write(at(2, KA), &LineData([i, 1, 0, 0, 0, 0, 0, 0]), None, &mut b.t);
            b.c.move_line(Line(2), Line(1), &mut b.t);
        });
        assert!(band.contains(&count), "{bits} bits: {count}");
    }
}
