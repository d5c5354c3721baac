//! The tables: total, without overlap, every row reached by a run, and printed.

mod common;

use common::*;
use mktme::CryptoKind;
use mktme::tables::*;
use sim_core::addr::Line;
use sim_core::event::{BirthCause, EventKind, Rule};
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::PconfigStatus;
use sim_core::platform::IntegrityMode;
use std::collections::BTreeSet;

const BITS: [bool; 2] = [false, true];

fn every_read() -> Vec<(IntegrityMode, KeyClass, bool, bool, bool)> {
    let mut out = Vec::new();
    for mode in MODES {
        for class in KeyClass::ALL {
            for td in BITS {
                for mac in BITS {
                    for poison in BITS {
                        out.push((mode, class, td, mac, poison));
                    }
                }
            }
        }
    }
    out
}

fn reads_describing(q: (IntegrityMode, KeyClass, bool, bool, bool)) -> Vec<&'static ReadRow> {
    let (mode, class, td, mac, poison) = q;
    let mac_fits = |m: Mac| match m {
        Mac::NotChecked => true,
        Mac::Match => mac,
        Mac::Mismatch => !mac,
    };
    READS
        .iter()
        .filter(|r| {
            r.mode == mode
                && r.class.has(class)
                && r.td == td
                && mac_fits(r.mac)
                && r.old_poison == poison
        })
        .collect()
}

fn every_write() -> Vec<(WriteSize, IntegrityMode, KeyClass, bool, bool, bool)> {
    let mut out = Vec::new();
    for size in [WriteSize::Full, WriteSize::Partial] {
        for (mode, class, td, erratum, poison) in every_read() {
            out.push((size, mode, class, td, erratum, poison));
        }
    }
    out
}

fn writes_describing(
    q: (WriteSize, IntegrityMode, KeyClass, bool, bool, bool),
) -> Vec<&'static WriteRow> {
    let (size, mode, class, td, erratum, poison) = q;
    WRITES
        .iter()
        .filter(|r| {
            r.size == size
                && r.mode.has(mode)
                && r.class.has(class)
                && r.td.has(td)
                && r.erratum.has(erratum)
                && r.source_poison.has(poison)
        })
        .collect()
}

#[test]
fn every_read_is_described_by_a_row_and_looked_up_as_that_row() {
    for q in every_read() {
        let rows = reads_describing(q);
        assert!(!rows.is_empty(), "{q:?}");
        assert_eq!(rows[0], read_row(q.0, q.1, q.2, q.3, q.4), "{q:?}");
    }
}

#[test]
fn no_read_is_described_by_two_rows() {
    for q in every_read() {
        assert_eq!(reads_describing(q).len(), 1, "{q:?}");
    }
}

#[test]
fn every_write_is_described_by_a_row_and_looked_up_as_that_row() {
    for q in every_write() {
        let rows = writes_describing(q);
        assert!(!rows.is_empty(), "{q:?}");
        assert_eq!(rows[0], write_row(q.0, q.1, q.2, q.3, q.4, q.5), "{q:?}");
    }
}

#[test]
fn no_write_is_described_by_two_rows() {
    for q in every_write() {
        assert_eq!(writes_describing(q).len(), 1, "{q:?}");
    }
}

/// Brings a line into every state that matters, makes every request to it, and returns the rules that fired.
fn rules_of_a_run(kind: CryptoKind) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    for mode in MODES {
        for erratum in BITS {
            let mut b = Bench::new(mode, erratum, kind);
            let mut line = 0;
            for requester in [K0, KS, KI, KA] {
                for writer in [K0, KI, KA, KB] {
                    for poison in BITS {
                        for request in 0..4 {
                            line += 1;
                            b.write(line, writer, 1);
                            if poison {
                                b.c.inject_ue(at(line, writer), &mut b.t);
                            }
                            match request {
                                0 => drop(b.read(line, requester)),
                                1 => b.write(line, requester, 2),
                                2 => b.partial(line, requester, 2),
                                _ => {
                                    let Some(birth) = b.c.line(Line(line)).poison else { continue };
                                    b.write_poisoned(line, requester, 3, birth);
                                }
                            }
                        }
                    }
                }
            }
            for event in b.t.events() {
                match event.kind {
                    EventKind::DramRead { rule, .. } | EventKind::DramWrite { rule, .. } => {
                        rules.insert(rule);
                    }
                    _ => {}
                }
            }
        }
    }
    rules
}

#[test]
fn every_row_of_the_read_and_write_tables_is_reached_by_a_run_with_either_crypto() {
    let all: BTreeSet<Rule> =
        READS.iter().map(|r| r.rule).chain(WRITES.iter().map(|r| r.rule)).collect();
    assert_eq!(all.len(), 34);
    for kind in KINDS {
        assert_eq!(rules_of_a_run(kind), all, "{kind:?}");
    }
}

#[test]
fn zeros_are_exactly_the_rows_that_block_and_poison_comes_exactly_where_it_is_stored() {
    for row in &READS {
        // verification.md §1.1: rows 1, 3, 5, 6, 8, 9, 12 and every poisoned line.
        let blocked =
            row.old_poison || row.cause.is_some() || (row.td && row.class != Classes::Private);
        assert_eq!(row.data == Returned::Zeros, blocked, "{}", row.rule);
        assert_eq!(row.poison, row.old_poison || row.cause.is_some(), "{}", row.rule);
    }
}

#[test]
fn the_td_bit_after_a_whole_line_write_is_whether_the_keyid_is_private() {
    for row in WRITES.iter().filter(|r| r.size == WriteSize::Full) {
        let want = match row.class {
            Classes::Private => TdAfter::Set,
            Classes::Any => TdAfter::ByClass,
            _ => TdAfter::Clear,
        };
        assert_eq!(row.td_after, want, "{}", row.rule);
    }
}

fn every_erratum() -> Vec<(bool, KeyClass, bool, bool)> {
    let mut out = Vec::new();
    for erratum in BITS {
        for class in KeyClass::ALL {
            for td in BITS {
                for poison in BITS {
                    out.push((erratum, class, td, poison));
                }
            }
        }
    }
    out
}

fn errata_describing(q: (bool, KeyClass, bool, bool)) -> Vec<usize> {
    (0..ERRATUM.len())
        .filter(|i| {
            let r = &ERRATUM[*i];
            r.erratum.has(q.0) && r.class.has(q.1) && r.td.has(q.2) && r.poison.has(q.3)
        })
        .collect()
}

#[test]
fn every_partial_write_is_described_by_an_erratum_row_that_agrees_with_the_write_table() {
    for q in every_erratum() {
        let rows = errata_describing(q);
        assert!(!rows.is_empty(), "{q:?}");
        assert_eq!(erratum_effect(q.0, q.1, q.2, q.3), ERRATUM[rows[0]].effect, "{q:?}");
        for mode in MODES {
            let row = write_row(WriteSize::Partial, mode, q.1, q.2, q.0, false);
            let hit = erratum_effect(q.0, q.1, q.2, q.3) != ErratumEffect::None;
            assert_eq!(row.poison_after == PoisonAfter::Erratum, hit, "{q:?}");
        }
    }
}

#[test]
fn no_partial_write_is_described_by_two_erratum_rows() {
    for q in every_erratum() {
        assert_eq!(errata_describing(q).len(), 1, "{q:?}");
    }
}

#[test]
fn every_erratum_row_is_reached_by_a_run() {
    let mut reached = BTreeSet::new();
    for mode in MODES {
        for erratum in BITS {
            let mut b = Bench::new(mode, erratum, CryptoKind::Symbolic);
            let mut line = 0;
            for (requester, class) in [(K0, KeyClass::Shared), (KA, KeyClass::Private)] {
                for writer in [K0, KA] {
                    for poison in BITS {
                        line += 1;
                        b.write(line, writer, 1);
                        if poison {
                            b.c.inject_ue(at(line, writer), &mut b.t);
                        }
                        let (before, births) = (b.c.line(Line(line)), b.t.births().len());
                        b.partial(line, requester, 2);
                        let after = b.c.line(Line(line));
                        let row = errata_describing((erratum, class, before.td, poison))[0];
                        match ERRATUM[row].effect {
                            // Merged, whatever the underfill met.
                            ErratumEffect::None => assert_eq!(after.writer, Some(requester)),
                            ErratumEffect::Birth => {
                                assert!(after.poison.is_some());
                                assert_eq!(b.t.births()[births].cause, BirthCause::PartialWrite);
                                assert_eq!((after.td, after.mac), (before.td, before.mac));
                                assert_eq!(after.writer, before.writer);
                            }
                            ErratumEffect::Stays => assert_eq!(after, before),
                        }
                        reached.insert(row);
                    }
                }
            }
        }
    }
    assert_eq!(reached.len(), ERRATUM.len());
}

#[test]
fn every_write_source_is_described_once_and_says_which_transactions_the_erratum_can_meet() {
    for from in WriteSource::ALL {
        for whole in BITS {
            let rows: Vec<_> = WRITE_SOURCES
                .iter()
                .filter(|r| r.from == from && r.whole_line.has(whole))
                .collect();
            assert_eq!(rows.len(), 1, "{from:?} {whole}");
            assert_eq!(rows[0].size, write_size(from, whole), "{from:?} {whole}");
        }
    }
}

#[test]
fn every_write_source_reaches_the_controller_as_its_row_says() {
    for row in &WRITE_SOURCES {
        let mut b = Bench::new(IntegrityMode::Ci, true, CryptoKind::Symbolic);
        b.write(1, KA, 1);
        match row.size {
            WriteSize::Full => b.write(1, K0, 2),
            WriteSize::Partial => b.partial(1, K0, 2),
        }
        let poisoned = b.c.line(Line(1)).poison.is_some();
        assert_eq!(poisoned, row.size == WriteSize::Partial, "{}", row.from);
    }
}

#[test]
fn every_birth_cause_has_one_signal_and_a_run_shows_it() {
    let causes: BTreeSet<_> = BIRTH_SIGNALS.iter().map(|row| row.0).collect();
    assert_eq!(causes.len(), BIRTH_SIGNALS.len());
    let mut b = Bench::new(IntegrityMode::Ci, true, CryptoKind::Symbolic);
    b.read(1, KA);
    b.write(2, KA, 1);
    b.read(2, KB);
    b.write(3, KA, 1);
    b.read(3, KI);
    b.write(4, KA, 1);
    b.partial(4, K0, 1);
    b.c.inject_ue(at(5, K0), &mut b.t);
    let mut seen = BTreeSet::new();
    for (i, birth) in b.t.births().iter().enumerate() {
        seen.insert(birth.cause);
        let logged = b.c.ucna_log().iter().find(|r| r.birth.0.get() as usize == i + 1);
        let want = match birth_signal(birth.cause) {
            UcnaCode::Td => Some(0x82b),
            UcnaCode::Mac => Some(0x82a),
            UcnaCode::Silent => None,
        };
        assert_eq!(logged.map(|r| r.status.unpack().mscod), want, "{:?}", birth.cause);
    }
    assert_eq!(seen, causes);
}

#[test]
fn every_pconfig_row_exists_once_with_one_default_and_a_run_shows_it() {
    for mode in MODES {
        for private in BITS {
            let rows: Vec<_> =
                PCONFIG_ALGS.iter().filter(|r| r.mode == mode && r.private == private).collect();
            assert_eq!(rows.len(), 2);
            assert!(rows[0].integrity != rows[1].integrity);
            assert_eq!(rows.iter().filter(|r| r.default).count(), 1);
            assert!(rows.iter().all(|r| r.accepted || !r.default));
            for row in rows {
                let mut b = Bench::new(mode, false, CryptoKind::Symbolic);
                let keyid = if private { KA } else { KS };
                let algs = if row.integrity {
                    [KeyAlg::Xts128Integrity, KeyAlg::Xts256Integrity]
                } else {
                    [KeyAlg::Xts128, KeyAlg::Xts256]
                };
                for alg in algs {
                    let want = if row.accepted {
                        PconfigStatus::Ok
                    } else {
                        PconfigStatus::InvalidAlgorithm
                    };
                    assert_eq!(b.program(keyid, Some(alg)), want, "{row:?}");
                }
                let cmd = PconfigCmd::SetRandom;
                assert_eq!(b.c.pconfig(keyid, cmd, None, true, &mut b.t), PconfigStatus::Ok);
                b.write(1, keyid, 1);
                if row.default {
                    assert_eq!(b.c.line(Line(1)).mac, row.integrity, "{row:?}");
                }
            }
        }
    }
}

#[test]
fn the_tables_print_as_the_sheet_has_them() {
    expect_test::expect_file!["tables.md"].assert_eq(
        &[
            reads_markdown(IntegrityMode::Ci),
            reads_markdown(IntegrityMode::Li),
            writes_markdown(),
            erratum_markdown(),
            write_sources_markdown(),
            birth_signals_markdown(),
            pconfig_algs_markdown(),
        ]
        .join("\n"),
    );
}
