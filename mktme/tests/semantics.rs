//! What requests, attacks and PCONFIG do, line by line.

mod common;

use common::*;
use mktme::{Controller, CryptoKind, SpecError};
use sim_core::addr::{Line, Page, Tagged};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::{BirthCause, EventKind, LineState, Location};
use sim_core::keyid::KeyId;
use sim_core::mca::McStatus;
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::{DataClass, PconfigStatus};
use sim_core::platform::{IntegrityMode, XtsWidth};
use sim_core::prng::Prng;

fn benches() -> impl Iterator<Item = (IntegrityMode, CryptoKind, Bench)> {
    MODES.into_iter().flat_map(|mode| {
        KINDS.into_iter().map(move |kind| (mode, kind, Bench::new(mode, false, kind)))
    })
}

#[test]
fn at_power_on_lines_are_random_and_td_0_and_a_private_read_poisons() {
    for (mode, kind, mut b) in benches() {
        assert_eq!(b.c.line(Line(9)), LineState::default());
        let fill = b.read(9, K0);
        assert_eq!((fill.class, fill.poison), (DataClass::Garbage, None), "{mode:?} {kind:?}");
        assert!(!fill.data.is_zero());
        assert_eq!(b.read(9, K0).data, fill.data);
        assert_ne!(b.read(10, K0).data, fill.data);
        let fill = b.read(9, KA);
        assert_eq!((fill.class, fill.data), (DataClass::Blocked, LineData::ZERO));
        assert_eq!(b.t.births()[0].cause, BirthCause::TdMismatch);
        assert_eq!(fill.poison, b.c.line(Line(9)).poison);
        assert!(fill.poison.is_some());
    }
}

#[test]
fn a_line_reads_back_under_its_own_key_only() {
    for (mode, kind, mut b) in benches() {
        for (line, keyid) in [(1, K0), (2, KS), (3, KI), (4, KA)] {
            b.write(line, keyid, 0x11);
            let fill = b.read(line, keyid);
            assert_eq!(fill.data, LineData::filled(0x11), "{mode:?} {kind:?} {keyid}");
            assert_eq!((fill.class, fill.poison), (DataClass::Plain, None));
        }
        // Shared keys see each other's lines as garbage, and private ones as zeros.
        let fill = b.read(2, K0);
        assert_eq!((fill.class, fill.poison), (DataClass::Garbage, None), "{mode:?} {kind:?}");
        assert_ne!(fill.data, LineData::filled(0x11));
        let fill = b.read(4, K0);
        assert_eq!((fill.class, fill.poison), (DataClass::Blocked, None));
        assert!(b.c.line(Line(4)).poison.is_none());
    }
}

#[test]
fn poison_is_sticky_until_a_whole_line_is_written() {
    for (_, _, mut b) in benches() {
        b.write(1, K0, 1);
        let birth = b.read(1, KA).poison;
        assert_eq!(b.read(1, K0).poison, birth);
        b.partial(1, K0, 2);
        assert_eq!(b.read(1, K0).poison, birth);
        assert_eq!(b.t.births().len(), 1);
        b.write(1, KA, 3);
        let fill = b.read(1, KA);
        assert_eq!((fill.poison, fill.data), (None, LineData::filled(3)));
        assert_eq!((b.t.deaths(), b.t.poison_locations()), (1, 0));
    }
}

#[test]
fn a_failing_private_read_is_logged_once_in_the_bank_of_its_channel_with_the_keyid_in_the_address()
{
    let mut b = Bench::new(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    let line = 0x80_A566_9610 >> 6;
    b.read(line, KA);
    b.read(line, KA);
    let [record] = b.c.ucna_log() else { panic!("{:?}", b.c.ucna_log()) };
    let channel = b.c.channel_of(Line(line));
    assert!(channel != 0);
    assert_eq!(record.bank, 13 + channel);
    assert_eq!(record.status, McStatus::ucna(0x82b, 0x90 + u16::from(channel)));
    assert_eq!(record.addr, 0x80_A566_9600 | 33 << 46);
    assert!(record.cmci);
    assert_eq!((b.c.stats().ucna, b.c.stats().cmci), (1, 1));
    let mut quiet = spec(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    quiet.mce.cmci = false;
    let mut b = Bench::of(quiet, true);
    b.read(line, KA);
    assert!(!b.c.ucna_log()[0].cmci);
    assert_eq!((b.c.stats().ucna, b.c.stats().cmci), (1, 0));
}

#[test]
fn a_poisoned_cached_copy_brings_its_poison_and_ends_an_older_one() {
    for (_, _, mut b) in benches() {
        let cached = b.read(1, KA).poison.unwrap();
        b.t.poison_copied(cached, Location::Cache(at(1, KA)));
        // Back to where it came from: the ledger does not move, even where DRAM is the only location left.
        b.t.poison_gone(cached, Location::Cache(at(1, KA)));
        b.write_poisoned(1, KA, 5, cached);
        assert_eq!((b.t.poison_locations(), b.t.deaths()), (1, 0));
        b.t.poison_copied(cached, Location::Cache(at(1, KA)));
        let state = b.c.line(Line(1));
        assert_eq!((state.td, state.poison, state.writer), (true, Some(cached), Some(KA)));
        // Onto a line with poison of its own, under KeyID 0.
        b.c.inject_ue(at(2, K0), &mut b.t);
        b.write_poisoned(2, K0, 5, cached);
        assert_eq!((b.t.poison_locations(), b.t.deaths()), (3, 1));
        let state = b.c.line(Line(2));
        assert_eq!((state.td, state.poison), (false, Some(cached)));
        assert_eq!(b.read(2, K0).data, LineData::ZERO);
    }
}

#[test]
fn the_erratum_poisons_silently_even_with_the_same_data_and_touches_nothing_else() {
    for mode in MODES {
        for kind in KINDS {
            let mut b = Bench::new(mode, true, kind);
            b.write(1, KA, 0x11);
            let (before, bits) = (b.c.save_line(Line(1)), b.c.ciphertext(Line(1)));
            b.partial(1, K0, 0x11);
            assert_eq!(b.t.births()[0].cause, BirthCause::PartialWrite);
            assert_eq!(b.t.births()[0].at, at(1, K0));
            assert!(b.c.ucna_log().is_empty());
            assert_eq!(b.c.save_line(Line(1)), before);
            assert_eq!(b.c.ciphertext(Line(1)), bits);
            assert_eq!(b.c.line(Line(1)).writer, Some(KA));
            // The host's own next read takes it (5.7); a second partial write bears nothing.
            assert!(b.read(1, K0).poison.is_some());
            b.partial(1, KS, 1);
            assert_eq!((b.t.births().len(), b.c.stats().erratum_hits), (1, 2));
            assert_eq!(b.c.stats().underfills, 0);
            // A TD=0 line is safe.
            b.write(2, K0, 1);
            b.partial(2, K0, 2);
            assert_eq!(b.t.births().len(), 1);
        }
    }
}

#[test]
fn without_the_erratum_a_partial_write_of_a_private_line_merges_onto_zeros_and_makes_it_shared() {
    for (mode, kind, mut b) in benches() {
        b.write(1, KA, 0x11);
        b.partial(1, K0, 0x22);
        let mut want = LineData::ZERO;
        want.merge(&LineData::filled(0x22), ByteMask::span(8, 8));
        let fill = b.read(1, K0);
        assert_eq!((fill.data, fill.class, fill.poison), (want, DataClass::Plain, None));
        assert!(b.t.births().is_empty(), "{mode:?} {kind:?}");
        assert!(!b.c.line(Line(1)).td);
        assert_eq!((b.c.stats().partial_writes, b.c.stats().underfills), (1, 1));
    }
}

#[test]
fn a_partial_write_of_an_own_line_merges() {
    for (_, _, mut b) in benches() {
        for keyid in [K0, KS, KI, KA] {
            b.write(1, keyid, 0x11);
            b.partial(1, keyid, 0x22);
            let mut want = LineData::filled(0x11);
            want.merge(&LineData::filled(0x22), ByteMask::span(8, 8));
            assert_eq!(b.read(1, keyid).data, want);
        }
        assert!(b.t.births().is_empty());
    }
}

#[test]
fn poison_of_an_underfill_read_is_stored_and_never_signalled() {
    let cases: &[(IntegrityMode, KeyId, KeyId, BirthCause)] = &[
        (IntegrityMode::Ci, K0, KA, BirthCause::TdMismatch),
        (IntegrityMode::Li, K0, KA, BirthCause::TdMismatch),
        (IntegrityMode::Ci, KB, KA, BirthCause::MacMismatch),
        (IntegrityMode::Ci, K0, KI, BirthCause::MacMismatch),
        (IntegrityMode::Ci, KA, KI, BirthCause::SharedIntegrity),
    ];
    for &(mode, writer, requester, cause) in cases {
        for kind in KINDS {
            let mut b = Bench::new(mode, false, kind);
            b.write(1, writer, 1);
            b.partial(1, requester, 2);
            assert_eq!(b.t.births().iter().map(|x| x.cause).collect::<Vec<_>>(), [cause]);
            let state = b.c.line(Line(1));
            assert!(state.poison.is_some() && state.writer == Some(requester));
            assert_eq!(state.td, requester == KA);
            assert!(b.c.ucna_log().is_empty());
            assert_eq!(b.t.poison_locations(), 1);
        }
    }
}

#[test]
fn a_full_mask_is_a_whole_line_write_and_an_empty_one_is_nothing() {
    let mut b = Bench::new(IntegrityMode::Ci, true, CryptoKind::Symbolic);
    b.write(1, KA, 1);
    let (before, events) = (b.c.clone(), b.t.events().len());
    b.c.write_partial(at(1, K0), &LineData::ZERO, ByteMask::NONE, &mut b.t);
    assert_eq!((&b.c, b.t.events().len()), (&before, events));
    b.c.write_partial(at(1, K0), &LineData::ZERO, ByteMask::FULL, &mut b.t);
    let state = b.c.line(Line(1));
    assert_eq!((state.td, state.poison, state.writer), (false, None, Some(K0)));
    assert_eq!((b.c.stats().full_writes, b.c.stats().partial_writes), (2, 0));
}

#[test]
fn a_line_written_without_integrity_has_no_valid_mac() {
    for kind in KINDS {
        let mut b = Bench::new(IntegrityMode::Ci, false, kind);
        b.write(1, KI, 1);
        assert!(b.c.line(Line(1)).mac);
        assert!(b.read(1, KI).poison.is_none());
        b.write(1, KS, 1);
        assert!(!b.c.line(Line(1)).mac);
        assert!(b.read(1, KI).poison.is_some());
        assert_eq!(b.t.births()[0].cause, BirthCause::MacMismatch);
        assert_eq!(b.c.ucna_log()[0].status.unpack().mscod, 0x82a);
    }
}

#[test]
fn the_two_columns_for_shared_keyids_differ_where_the_line_is_private() {
    for kind in KINDS {
        let mut b = Bench::new(IntegrityMode::Ci, false, kind);
        b.write(1, KA, 1);
        assert!(b.read(1, K0).poison.is_none());
        assert!(b.read(1, KI).poison.is_some());
        assert_eq!(b.t.births()[0].cause, BirthCause::SharedIntegrity);
        assert_eq!(b.c.ucna_log()[0].status.unpack().mscod, 0x82b);
    }
}

#[test]
fn reads_and_writes_are_recorded_with_the_state_before_and_after_and_only_when_asked() {
    for on in [true, false] {
        let mut b = Bench::of(spec(IntegrityMode::Ci, false, CryptoKind::Symbolic), on);
        b.write(1, K0, 1);
        b.read(1, KA);
        let kinds: Vec<_> = b.t.events().iter().map(|e| e.kind).collect();
        let shared = LineState { td: false, mac: false, poison: None, writer: Some(K0) };
        let birth = b.c.line(Line(1)).poison;
        let after = LineState { poison: birth, ..shared };
        let find = |want: &EventKind| kinds.contains(want);
        let rule = sim_core::event::Rule::W(4);
        let mask = ByteMask::FULL;
        let write = EventKind::DramWrite {
            at: at(1, K0),
            mask,
            rule,
            before: LineState::default(),
            after: shared,
        };
        let rule = sim_core::event::Rule::Rc(1);
        let read = EventKind::DramRead { at: at(1, KA), rule, before: shared, after };
        assert_eq!((find(&write), find(&read)), (on, on));
        // Births and UCNA entries are kept either way.
        assert!(find(&EventKind::Birth {
            birth: birth.unwrap(),
            at: at(1, KA),
            cause: BirthCause::TdMismatch
        }));
        assert!(find(&EventKind::Ucna(b.c.ucna_log()[0])));
        assert!(on || kinds.len() == 2, "{kinds:?}");
    }
}

#[test]
fn a_probe_says_what_the_read_then_does() {
    for (_, _, mut b) in benches() {
        for (line, writer) in [(1, K0), (2, KS), (3, KI), (4, KA), (5, KB)] {
            for reader in [K0, KS, KI, KA] {
                b.write(line, writer, 7);
                let (before, probe) = (b.c.clone(), b.c.probe(at(line, reader)));
                assert_eq!(b.c, before);
                let births = b.t.births().len();
                let fill = b.read(line, reader);
                assert_eq!((probe.data, probe.class), (fill.data, fill.class));
                assert_eq!(probe.poisoned, fill.poison.is_some());
                assert_eq!(probe.birth, b.t.births().get(births).map(|x| x.cause));
            }
        }
    }
}

// ---- verification.md §1.3 ------------------------------------------------------------------------------------------

/// What a TD's next read meets.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Stale,
    Garbage,
    Detected(BirthCause),
}

fn verdict(b: &mut Bench, line: u64) -> Verdict {
    let fill = b.read(line, KA);
    match (fill.poison, fill.class) {
        (Some(birth), _) => {
            assert_eq!(fill.data, LineData::ZERO);
            let births = b.t.births();
            assert_eq!(births.len(), birth.0.get() as usize);
            Verdict::Detected(births[births.len() - 1].cause)
        }
        (None, DataClass::Plain) => Verdict::Stale,
        (None, class) => {
            assert_eq!(class, DataClass::Garbage);
            assert_ne!(fill.data, LineData::filled(0x11));
            Verdict::Garbage
        }
    }
}

type Attack = fn(&mut Bench);

/// The physical-attack matrix, row by row: attack, Li, Ci.
const MATRIX: [(&str, Attack, Verdict, Verdict); 7] = [
    (
        "replay of an old (ciphertext, TD bit, MAC) of the same line and key",
        |b| {
            let image = b.c.save_line(Line(1));
            b.write(1, KA, 0x22);
            b.c.restore_line(Line(1), &image, &mut b.t);
        },
        Verdict::Stale,
        Verdict::Stale,
    ),
    (
        "ciphertext bit flip",
        |b| b.c.flip_bit(Line(1), 300, &mut b.t),
        Verdict::Garbage,
        Verdict::Detected(BirthCause::MacMismatch),
    ),
    (
        "TD bit cleared",
        |b| b.c.flip_td(Line(1), &mut b.t),
        Verdict::Detected(BirthCause::TdMismatch),
        Verdict::Detected(BirthCause::TdMismatch),
    ),
    (
        "host full-line write",
        |b| b.write(1, K0, 0x22),
        Verdict::Detected(BirthCause::TdMismatch),
        Verdict::Detected(BirthCause::TdMismatch),
    ),
    (
        "other TD's private-key write",
        |b| b.write(1, KB, 0x22),
        Verdict::Garbage,
        Verdict::Detected(BirthCause::MacMismatch),
    ),
    // architecture.md §1.2 1.2.4, beyond the matrix.
    (
        "ciphertext moved to another address",
        |b| {
            b.write(2, KA, 0x11);
            b.c.move_line(Line(2), Line(1), &mut b.t);
        },
        Verdict::Garbage,
        Verdict::Detected(BirthCause::MacMismatch),
    ),
    (
        "KeyID programmed anew",
        |b| assert_eq!(b.program(KA, None), PconfigStatus::Ok),
        Verdict::Garbage,
        Verdict::Detected(BirthCause::MacMismatch),
    ),
];

#[test]
fn each_physical_attack_ends_as_the_acceptance_matrix_says() {
    for kind in KINDS {
        for (what, attack, li, ci) in &MATRIX {
            for (mode, want) in [(IntegrityMode::Li, li), (IntegrityMode::Ci, ci)] {
                let mut b = Bench::new(mode, false, kind);
                b.write(1, KA, 0x11);
                attack(&mut b);
                assert_eq!(&verdict(&mut b, 1), want, "{what} in {mode} with {kind:?}");
            }
        }
    }
}

#[test]
fn an_attack_undone_is_undetected() {
    for (_, _, mut b) in benches() {
        b.write(1, KA, 0x11);
        let before = b.c.clone();
        b.c.flip_bit(Line(1), 300, &mut b.t);
        b.c.flip_td(Line(1), &mut b.t);
        assert!(!b.c.same_content(&before, [Line(1)]));
        b.c.flip_td(Line(1), &mut b.t);
        b.c.flip_bit(Line(1), 300, &mut b.t);
        assert!(b.c.same_content(&before, [Line(1)]));
        let fill = b.read(1, KA);
        assert_eq!((fill.data, fill.class), (LineData::filled(0x11), DataClass::Plain));
        b.c.move_line(Line(1), Line(70), &mut b.t);
        b.write(1, KA, 0x22);
        b.c.move_line(Line(70), Line(1), &mut b.t);
        assert_eq!(b.read(1, KA).data, LineData::filled(0x11));
    }
}

#[test]
fn attacks_neither_heal_nor_spread_poison_and_are_recorded() {
    for (_, _, mut b) in benches() {
        b.write(1, KA, 1);
        let image = b.c.save_line(Line(1));
        b.c.inject_ue(at(1, KA), &mut b.t);
        b.write(2, KA, 2);
        b.c.restore_line(Line(1), &image, &mut b.t);
        assert!(b.read(1, KA).poison.is_some());
        b.c.move_line(Line(1), Line(2), &mut b.t);
        assert!(b.c.line(Line(2)).poison.is_none());
        assert_eq!(b.c.line(Line(2)).writer, Some(KA));
        let tampered =
            b.t.events().iter().filter(|e| matches!(e.kind, EventKind::Tampered { .. })).count();
        assert_eq!((tampered, b.t.poison_locations()), (2, 1));
        // Injecting into a poisoned line bears nothing.
        b.c.inject_ue(at(1, KA), &mut b.t);
        assert_eq!(b.c.stats().births(), 1);
    }
}

#[test]
fn a_whole_line_write_heals_every_attack() {
    for (_, _, mut b) in benches() {
        b.write(1, KA, 0x11);
        b.c.flip_bit(Line(1), 3, &mut b.t);
        b.c.flip_td(Line(1), &mut b.t);
        b.write(1, KA, 0x22);
        let fill = b.read(1, KA);
        assert_eq!((fill.data, fill.class), (LineData::filled(0x22), DataClass::Plain));
        b.c.flip_td(Line(1), &mut b.t);
        b.c.write_lines(Page(0), u64::MAX, KA, &LineData::ZERO, &mut b.t);
        assert_eq!(b.read(1, KA).class, DataClass::Plain);
    }
}

#[test]
fn the_td_bit_is_under_the_mac() {
    // architecture.md §1.2 1.2.2 (c). Only where a private and a shared KeyID with integrity hold the same key can a flipped
    // TD bit get past the TD check.
    for kind in KINDS {
        let mut b = Bench::new(IntegrityMode::Ci, false, kind);
        let (cmd, alg) = (PconfigCmd::SetDirect(7), Some(KeyAlg::Xts256Integrity));
        for keyid in [KI, KA] {
            assert_eq!(b.c.pconfig(keyid, cmd, alg, true, &mut b.t), PconfigStatus::Ok);
        }
        for (line, writer, reader) in [(1, KI, KA), (2, KA, KI)] {
            b.write(line, writer, 0x11);
            b.c.flip_td(Line(line), &mut b.t);
            assert_eq!(b.c.probe(at(line, reader)).birth, Some(BirthCause::MacMismatch));
            b.c.flip_td(Line(line), &mut b.t);
            assert_eq!(b.c.probe(at(line, writer)).class, DataClass::Plain);
        }
    }
}

// ---- Encryption ----------------------------------------------------------------------------------------------------

#[test]
fn encryption_is_deterministic_and_differs_by_place_key_and_plaintext() {
    for xts in [XtsWidth::Xts128, XtsWidth::Xts256] {
        let mut s = spec(IntegrityMode::Li, false, CryptoKind::Real);
        s.memory.xts = xts;
        let mut b = Bench::bare(s, false);
        for keyid in [KA, KB] {
            assert_eq!(b.program(keyid, None), PconfigStatus::Ok);
        }
        let mut bits = |line: u64, keyid, byte| {
            b.write(line, keyid, byte);
            b.c.ciphertext(Line(line)).unwrap()
        };
        let first = bits(1, KA, 0x11);
        let all = [
            bits(2, KA, 0x11),
            bits(65, KA, 0x11),
            bits(1, KB, 0x11),
            bits(1, K0, 0x11),
            bits(1, KA, 0x12),
            [0x11; 64],
        ];
        assert_eq!(bits(1, KA, 0x11), first);
        for (i, other) in all.iter().enumerate() {
            assert_ne!(*other, first, "{i}");
        }
        b.program(KA, None);
        b.write(1, KA, 0x11);
        assert_ne!(b.c.ciphertext(Line(1)).unwrap(), first);
    }
}

#[test]
fn a_uniform_page_stores_the_bits_that_single_writes_store() {
    let mut bulk = Bench::new(IntegrityMode::Ci, false, CryptoKind::Real);
    let mut single = Bench::new(IntegrityMode::Ci, false, CryptoKind::Real);
    bulk.c.write_lines(Page(3), u64::MAX, KA, &LineData::filled(9), &mut bulk.t);
    for i in 0..64 {
        single.write(3 * 64 + i, KA, 9);
        let line = Line(3 * 64 + i);
        assert_eq!(bulk.c.ciphertext(line), single.c.ciphertext(line));
        assert_eq!(bulk.c.stored_mac(line), single.c.stored_mac(line));
        assert!(bulk.c.stored_mac(line).is_some());
    }
    // Also after the key has changed: what is stored was encrypted with the old one.
    let before = bulk.c.ciphertext(Line(200));
    bulk.program(KA, None);
    assert_eq!(bulk.c.ciphertext(Line(200)), before);
}

#[test]
fn symbolic_crypto_has_no_bits_to_show() {
    let mut b = Bench::new(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    b.write(1, KA, 1);
    assert_eq!((b.c.ciphertext(Line(1)), b.c.stored_mac(Line(1))), (None, None));
}

#[test]
fn keyid_0_in_bypass_reads_and_writes_the_stored_bits() {
    for kind in KINDS {
        let mut s = spec(IntegrityMode::Li, false, kind);
        s.memory.tme_bypass = true;
        let mut b = Bench::of(s, true);
        b.write(1, K0, 0x11);
        assert_eq!(b.read(1, K0).data, LineData::filled(0x11));
        if kind == CryptoKind::Real {
            assert_eq!(b.c.ciphertext(Line(1)), Some([0x11; 64]));
        }
        b.write(2, KS, 0x11);
        assert_eq!(b.read(2, K0).class, DataClass::Garbage);
        // A flipped bit of plaintext is that bit of the data.
        b.c.flip_bit(Line(1), 9, &mut b.t);
        let fill = b.read(1, K0);
        assert_eq!((fill.data.byte(1), fill.class), (0x13, DataClass::Garbage));
        // Other KeyIDs keep the TME key until programmed (MC-27).
        b.write(3, KeyId(9), 0x11);
        assert_eq!(b.read(3, K0).class, DataClass::Garbage);
        assert_eq!(b.read(3, KeyId(10)).class, DataClass::Plain);
    }
}

// ---- PCONFIG -------------------------------------------------------------------------------------------------------

#[test]
fn pconfig_refuses_keyid_0_unconfigured_ones_and_private_ones_outside_seam() {
    let mut b = Bench::new(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    let mut pconfig =
        |keyid, seam| b.c.pconfig(KeyId(keyid), PconfigCmd::SetRandom, None, seam, &mut b.t);
    assert_eq!(pconfig(0, true), PconfigStatus::InvalidKeyId);
    assert_eq!(pconfig(64, true), PconfigStatus::InvalidKeyId);
    assert_eq!(pconfig(33, false), PconfigStatus::InvalidKeyId);
    assert_eq!(pconfig(33, true), PconfigStatus::Ok);
    assert_eq!(pconfig(31, false), PconfigStatus::Ok);
    assert_eq!(pconfig(63, true), PconfigStatus::Ok);
}

#[test]
fn pconfig_programs_the_key_table_of_its_own_package_only() {
    for kind in KINDS {
        let mut s = spec(IntegrityMode::Ci, false, kind);
        s.packages = 2;
        let mut b = Bench::bare(s, true);
        // Two lines that package 0 serves, and one of package 1.
        let (here, beside, there) = (Line(1), Line(2), Line(1 << 24));
        let lines = [here, beside, there];
        let at = |line| Tagged::new(line, KA);
        let read = |b: &mut Bench, line| b.c.read(at(line), &mut b.t).class;
        let set = |b: &mut Bench, package| {
            let cmd = PconfigCmd::SetRandom;
            let got = b.c.pconfig_on(package, KA, cmd, None, true, &mut b.t);
            assert_eq!(got, PconfigStatus::Ok);
        };
        for line in lines {
            b.c.write(at(line), &LineData::filled(1), None, &mut b.t);
        }
        set(&mut b, 1);
        assert_eq!(read(&mut b, here), DataClass::Plain, "{kind:?}");
        assert_eq!(read(&mut b, there), DataClass::Blocked, "{kind:?}");
        set(&mut b, 0);
        assert_eq!(read(&mut b, beside), DataClass::Blocked, "{kind:?}");
        // The same bytes, drawn keys: the two packages' keys are two.
        for line in lines {
            b.c.write(at(line), &LineData::filled(1), None, &mut b.t);
        }
        b.c.move_line(there, here, &mut b.t);
        assert_eq!(read(&mut b, here), DataClass::Blocked, "{kind:?}");
        assert_eq!(read(&mut b, there), DataClass::Plain, "{kind:?}");
    }
}

#[test]
fn pages_of_two_packages_are_written_with_the_key_of_each() {
    let mut s = spec(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    s.packages = 2;
    let (mut bulk, mut single) = (Bench::bare(s.clone(), false), Bench::bare(s, false));
    let border = 1 << 18;
    let (pages, data) = (Page(border - 2)..Page(border + 2), LineData::filled(7));
    for b in [&mut bulk, &mut single] {
        for package in [0, 1] {
            let cmd = PconfigCmd::SetRandom;
            b.c.pconfig_on(package, KA, cmd, None, true, &mut b.t);
        }
    }
    bulk.c.write_pages(pages.clone(), KA, &data, &mut bulk.t);
    for page in pages.start.0..pages.end.0 {
        for i in 0..64 {
            let line = Page(page).line(i);
            single.c.write(Tagged::new(line, KA), &data, None, &mut single.t);
            let got = bulk.c.read(Tagged::new(line, KA), &mut bulk.t);
            assert_eq!((got.class, got.data), (DataClass::Plain, data), "page {page} line {i}");
        }
    }
    let lines = (pages.start.0..pages.end.0).flat_map(|p| (0..64).map(move |i| Page(p).line(i)));
    assert!(bulk.c.same_content(&single.c, lines));
}

#[test]
fn a_private_key_has_integrity_whatever_algorithm_is_given() {
    let mut b = Bench::new(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    assert_eq!(b.program(KA, Some(KeyAlg::Xts128)), PconfigStatus::Ok);
    b.write(1, KA, 0x11);
    assert_eq!(b.read(1, KA).class, DataClass::Plain);
    b.c.flip_bit(Line(1), 0, &mut b.t);
    assert!(b.read(1, KA).poison.is_some());
}

#[test]
fn a_refused_pconfig_changes_nothing() {
    let mut b = Bench::new(IntegrityMode::Li, false, CryptoKind::Symbolic);
    let before = b.c.clone();
    let bad = b.program(KA, Some(KeyAlg::Xts256Integrity));
    assert_eq!((bad, &b.c), (PconfigStatus::InvalidAlgorithm, &before));
    let last = b.t.events().last().unwrap().kind;
    assert_eq!(last, EventKind::Pconfig { keyid: KA, status: PconfigStatus::InvalidAlgorithm });
}

#[test]
fn reads_and_writes_after_a_pconfig_use_the_new_key_however_often_the_old_one_was_used() {
    for kind in KINDS {
        // Not recorded, so that answers may be kept.
        let mut b = Bench::of(spec(IntegrityMode::Ci, false, kind), false);
        for line in 1..4 {
            b.write(line, KA, 0x11);
            assert_eq!(b.read(line, KA).class, DataClass::Plain, "{kind:?}");
        }
        assert_eq!(b.program(KA, None), PconfigStatus::Ok);
        // The MAC was made with the old key.
        let fill = b.read(1, KA);
        assert!(fill.poison.is_some() && fill.data.is_zero(), "{kind:?}");
        b.write(2, KA, 0x22);
        assert_eq!(b.read(2, KA).data, LineData::filled(0x22), "{kind:?}");
        assert!(b.read(3, KA).poison.is_some(), "{kind:?}");
    }
}

#[test]
fn a_key_wider_than_the_platform_has_is_refused_and_a_narrower_one_is_not() {
    let mut s = spec(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    let mut wide = Bench::of(s.clone(), false);
    assert_eq!(wide.program(KS, Some(KeyAlg::Xts128)), PconfigStatus::Ok);
    s.memory.xts = XtsWidth::Xts128;
    let mut narrow = Bench::bare(s, false);
    assert_eq!(narrow.program(KS, Some(KeyAlg::Xts256)), PconfigStatus::InvalidAlgorithm);
    assert_eq!(narrow.program(KS, Some(KeyAlg::Xts128)), PconfigStatus::Ok);
}

#[test]
fn what_pconfig_programs_is_what_lines_are_encrypted_with() {
    for kind in KINDS {
        let mut b = Bench::new(IntegrityMode::Li, false, kind);
        let (x, y) = (KeyId(5), KeyId(6));
        let set = |b: &mut Bench, keyid, cmd| {
            assert_eq!(b.c.pconfig(keyid, cmd, None, false, &mut b.t), PconfigStatus::Ok);
        };
        set(&mut b, x, PconfigCmd::SetDirect(77));
        set(&mut b, y, PconfigCmd::SetDirect(77));
        b.write(1, x, 0x11);
        assert_eq!(b.read(1, y).class, DataClass::Plain);
        set(&mut b, y, PconfigCmd::SetDirect(78));
        assert_eq!(b.read(1, y).class, DataClass::Garbage);
        set(&mut b, y, PconfigCmd::SetRandom);
        b.write(1, y, 0x11);
        set(&mut b, y, PconfigCmd::ClearKey);
        assert_eq!(b.read(1, y).class, DataClass::Garbage);
        b.write(1, y, 0x11);
        assert_eq!(b.read(1, K0).class, DataClass::Plain);
        set(&mut b, y, PconfigCmd::NoEncrypt);
        b.write(1, y, 0x11);
        if kind == CryptoKind::Real {
            assert_eq!(b.c.ciphertext(Line(1)), Some([0x11; 64]));
        }
    }
}

#[test]
fn clearing_a_shared_key_ends_its_integrity() {
    let mut b = Bench::new(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    b.write(1, KA, 1);
    let cleared = b.c.pconfig(KI, PconfigCmd::ClearKey, None, false, &mut b.t);
    assert_eq!(cleared, PconfigStatus::Ok);
    assert!(b.read(1, KI).poison.is_none());
    // A private KeyID has integrity whatever it is programmed with (1.3.1).
    for cmd in [PconfigCmd::ClearKey, PconfigCmd::NoEncrypt] {
        for kind in KINDS {
            let mut b = Bench::new(IntegrityMode::Ci, false, kind);
            assert_eq!(b.c.pconfig(KA, cmd, None, true, &mut b.t), PconfigStatus::Ok);
            b.write(1, KA, 1);
            assert!(b.c.line(Line(1)).mac);
            assert_eq!(b.read(1, KA).class, DataClass::Plain);
            b.c.flip_bit(Line(1), 0, &mut b.t);
            assert!(b.read(1, KA).poison.is_some());
        }
    }
}

// ---- State ---------------------------------------------------------------------------------------------------------

#[test]
fn a_saved_controller_goes_on_as_if_it_had_not_been_saved() {
    for (_, _, mut b) in benches() {
        for line in 0..200 {
            b.write(line * 37, if line % 3 == 0 { KA } else { K0 }, line as u8);
        }
        b.c.write_pages(Page(1000)..Page(5000), KA, &LineData::filled(1), &mut b.t);
        b.c.flip_bit(Line(37), 5, &mut b.t);
        b.read(37, KA);
        let bytes = postcard::to_allocvec(&b.c).unwrap();
        let mut copy = Bench { c: postcard::from_bytes(&bytes).unwrap(), t: b.t.clone() };
        assert_eq!(copy.c, b.c);
        for line in 0..200 {
            assert_eq!(b.read(line * 37, KA), copy.read(line * 37, KA));
            b.partial(line, K0, 3);
            copy.partial(line, K0, 3);
        }
        assert_eq!((&copy.c, &copy.t), (&b.c, &b.t));
        assert_eq!(postcard::to_allocvec(&copy.c), postcard::to_allocvec(&b.c));
    }
}

#[test]
fn a_spec_that_cannot_be_computed_with_is_refused() {
    let good = spec(IntegrityMode::Ci, false, CryptoKind::Symbolic);
    let mut bad = good.clone();
    bad.memory.mac_bits = 40;
    assert_eq!(Controller::new(bad).unwrap_err(), SpecError::MacBits(40));
    let mut bad = good.clone();
    bad.dram.channels = 3;
    assert!(matches!(Controller::new(bad), Err(SpecError::Dram(_))));
    let mut bad = good;
    bad.layout.private_bits = 9;
    assert!(matches!(Controller::new(bad), Err(SpecError::Layout(_))));
}

#[test]
fn what_the_controller_remembers_of_the_last_request_never_answers_for_what_has_changed_since() {
    // With the log on nothing is remembered. Few lines and KeyIDs, so that each event comes between two requests alike.
    let mut seen = [0u32; 3];
    for seed in 0..400 {
        let mut dice = Prng::new(seed);
        let mode = MODES[dice.below(2) as usize];
        let spec = spec(mode, dice.ratio(1, 2), CryptoKind::Symbolic);
        let (mut off, mut on) = (Bench::of(spec.clone(), false), Bench::of(spec, true));
        let mut saved = off.c.save_line(Line(0));
        for step in 0..120 {
            let (line, other) = (Line(dice.below(3)), Line(dice.below(3)));
            let keyid = [K0, KI, KA, KB][dice.below(4) as usize];
            let (what, n) = (dice.below(20), dice.next_u64());
            let both = [&mut off, &mut on].map(|b| {
                match what {
                    0..8 => return Some(b.read(line.0, keyid)),
                    8..13 => b.write(line.0, keyid, n as u8),
                    13 => b.partial(line.0, keyid, n as u8),
                    14 => {
                        let alg = (n % 2 == 0).then_some(KeyAlg::Xts256Integrity);
                        b.program(keyid, alg);
                    }
                    15 => b.c.flip_bit(line, n as u16, &mut b.t),
                    16 => b.c.flip_td(line, &mut b.t),
                    17 => b.c.move_line(line, other, &mut b.t),
                    18 => b.c.restore_line(line, &saved, &mut b.t),
                    _ => b.c.inject_ue(Tagged::new(line, keyid), &mut b.t),
                }
                None
            });
            assert_eq!(both[0], both[1], "seed {seed}, step {step}");
            if let Some(fill) = both[0] {
                seen[fill.class as usize] += 1;
            }
            if dice.ratio(1, 10) {
                saved = off.c.save_line(line);
            }
        }
        assert_eq!(off.c, on.c, "seed {seed}");
    }
    assert!(seen.iter().all(|n| *n > 500), "{seen:?}");
}
