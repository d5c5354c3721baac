//! The line store: what it remembers, and what that costs.

mod common;

use common::*;
use mktme::CryptoKind;
use proptest::prelude::*;
use sim_core::addr::{Line, Page};
use sim_core::data::LineData;
use sim_core::event::{BirthId, Location};
use sim_core::keyid::KeyId;
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::{DataClass, PconfigStatus};
use sim_core::platform::IntegrityMode;
use sim_core::prng::Prng;
use std::collections::BTreeMap;

fn quiet() -> Bench {
    Bench::of(spec(IntegrityMode::Ci, false, CryptoKind::Symbolic), false)
}

#[derive(Clone, Debug)]
enum Step {
    Write { line: u64, keyid: KeyId, byte: u8 },
    Lines { page: u64, lines: u64, keyid: KeyId, byte: u8 },
    Pages { first: u64, pages: u64, keyid: KeyId, byte: u8 },
    Ue { line: u64 },
    Flip { line: u64 },
    Partial { line: u64, keyid: KeyId },
}

/// Few keys, few bytes and few places, so that lines, pages and regions become alike again and again. Pages 500 to 530 lie
/// on both sides of a region's end.
fn any_step() -> impl Strategy<Value = Step> {
    let keyid = || prop_oneof![Just(K0), Just(KA)];
    let line = || (500u64..504, 0u64..64).prop_map(|(p, i)| p * 64 + i);
    let lines = prop_oneof![
        3 => Just(u64::MAX),
        1 => any::<u64>(),
        1 => (0u32..64).prop_map(|n| u64::MAX << n),
        1 => (0u32..64).prop_map(|n| u64::MAX >> n),
    ];
    let place = prop_oneof![Just(0u64), Just(500), Just(511), Just(512), Just(1024), Just(3)];
    let count = prop_oneof![Just(1u64), Just(2), Just(512), Just(513), Just(1100), Just(509)];
    prop_oneof![
        6 => (line(), keyid(), 0u8..2).prop_map(|(line, keyid, byte)| Step::Write { line, keyid, byte }),
        6 => (500u64..530, lines, keyid(), 0u8..2)
            .prop_map(|(page, lines, keyid, byte)| Step::Lines { page, lines, keyid, byte }),
        3 => (place, count, keyid(), 0u8..2)
            .prop_map(|(first, pages, keyid, byte)| Step::Pages { first, pages, keyid, byte }),
        2 => line().prop_map(|line| Step::Ue { line }),
        1 => line().prop_map(|line| Step::Flip { line }),
        1 => (line(), keyid()).prop_map(|(line, keyid)| Step::Partial { line, keyid }),
    ]
}

/// Makes a step, bulk writes line by line if `single`.
fn make(b: &mut Bench, step: &Step, single: bool) {
    match *step {
        Step::Write { line, keyid, byte } => b.write(line, keyid, byte),
        Step::Lines { page, lines, keyid, byte } => {
            if single {
                for i in (0..64).filter(|i| lines >> i & 1 != 0) {
                    b.write(page * 64 + i, keyid, byte);
                }
            } else {
                b.c.write_lines(Page(page), lines, keyid, &LineData::filled(byte), &mut b.t);
            }
        }
        Step::Pages { first, pages, keyid, byte } => {
            let data = LineData::filled(byte);
            if single {
                for page in first..first + pages {
                    b.c.write_lines(Page(page), u64::MAX, keyid, &data, &mut b.t);
                }
            } else {
                b.c.write_pages(Page(first)..Page(first + pages), keyid, &data, &mut b.t);
            }
        }
        Step::Ue { line } => b.c.inject_ue(at(line, K0), &mut b.t),
        Step::Flip { line } => b.c.flip_bit(Line(line), 1, &mut b.t),
        Step::Partial { line, keyid } => b.partial(line, keyid, 0x77),
    }
}

/// The lines that steps can reach and a few that they cannot: some of every page touched.
fn lines_of_interest() -> impl Iterator<Item = Line> {
    let ends = [0, 1, 2, 3, 4, 5, 499, 504, 505, 510, 511, 512, 513, 529, 530, 1011, 1012, 1013]
        .into_iter()
        .chain([1023, 1024, 1025, 1026, 1532, 1533, 1535, 1536, 1537, 1610, 1611, 1612, 2123, 2124])
        .flat_map(|p| [Line(p * 64), Line(p * 64 + 17)]);
    ends.chain((500 * 64..504 * 64).map(Line))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bulk_writes_equal_the_same_single_writes(steps in proptest::collection::vec(any_step(), 1..30)) {
        let (mut bulk, mut single) = (quiet(), quiet());
        for step in &steps {
            make(&mut bulk, step, false);
            make(&mut single, step, true);
        }
        prop_assert_eq!(bulk.c.stats(), single.c.stats());
        prop_assert_eq!(bulk.t.births(), single.t.births());
        prop_assert_eq!(bulk.t.deaths(), single.t.deaths());
        prop_assert_eq!(bulk.t.poison_locations(), single.t.poison_locations());
        prop_assert!(bulk.c.same_content(&single.c, lines_of_interest()));
        let mut poisoned = 0;
        for line in lines_of_interest() {
            prop_assert_eq!(bulk.c.line(line), single.c.line(line));
            for keyid in [K0, KA] {
                let at = sim_core::addr::Tagged::new(line, keyid);
                prop_assert_eq!(bulk.c.probe(at), single.c.probe(at));
            }
            poisoned += u64::from(bulk.c.line(line).poison.is_some());
        }
        // Every poisoned line is among those looked at, so the ledger is the lines.
        prop_assert_eq!(poisoned, bulk.t.poison_locations());
    }

    #[test]
    fn the_store_remembers_what_a_map_of_lines_remembers(steps in proptest::collection::vec(any_step(), 1..30)) {
        let mut b = quiet();
        let mut map: BTreeMap<u64, (KeyId, u8)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Write { line, keyid, byte } => drop(map.insert(line, (keyid, byte))),
                Step::Lines { page, lines, keyid, byte } => {
                    for i in (0..64).filter(|i| lines >> i & 1 != 0) {
                        map.insert(page * 64 + i, (keyid, byte));
                    }
                }
                Step::Pages { first, pages, keyid, byte } => {
                    for page in first..first + pages {
                        for i in [0, 17] {
                            map.insert(page * 64 + i, (keyid, byte));
                        }
                        if (500..504).contains(&page) {
                            map.extend((0..64).map(|i| (page * 64 + i, (keyid, byte))));
                        }
                    }
                }
                _ => continue,
            }
            make(&mut b, &step, false);
        }
        for line in lines_of_interest() {
            match map.get(&line.0) {
                None => prop_assert_eq!(b.c.line(line).writer, None),
                Some((keyid, byte)) => {
                    prop_assert_eq!(b.c.line(line).writer, Some(*keyid));
                    prop_assert_eq!(b.c.line(line).td, *keyid == KA);
                    let probe = b.c.probe(sim_core::addr::Tagged::new(line, *keyid));
                    prop_assert_eq!((probe.data, probe.class), (LineData::filled(*byte), DataClass::Plain));
                }
            }
        }
    }

    #[test]
    fn poison_is_born_and_buried_as_often_as_the_lines_say(
        steps in proptest::collection::vec((0u64..8, 0u8..6, prop_oneof![Just(K0), Just(KS), Just(KI), Just(KA), Just(KB)]), 1..80),
        erratum: bool,
        ci: bool,
    ) {
        let mode = if ci { IntegrityMode::Ci } else { IntegrityMode::Li };
        let mut b = Bench::new(mode, erratum, CryptoKind::Symbolic);
        let mut copies: Vec<(BirthId, Location)> = Vec::new();
        for (line, what, keyid) in steps {
            match what {
                0 => b.write(line, keyid, 1),
                1 => b.partial(line, keyid, 2),
                2 => if let Some(birth) = b.read(line, keyid).poison {
                    let copy = Location::Cache(at(line, keyid));
                    b.t.poison_copied(birth, copy);
                    copies.push((birth, copy));
                },
                3 => if let Some((birth, copy)) = copies.pop() {
                    b.write_poisoned(line, keyid, 3, birth);
                    b.t.poison_gone(birth, copy);
                },
                4 => b.c.inject_ue(at(line, keyid), &mut b.t),
                _ => b.c.write_lines(Page(0), 0xff, keyid, &LineData::ZERO, &mut b.t),
            }
        }
        let poisoned = (0..8).filter(|l| b.c.line(Line(*l)).poison.is_some()).count() as u64;
        prop_assert_eq!(poisoned + copies.len() as u64, b.t.poison_locations());
        let live: std::collections::BTreeSet<_> = (0..8)
            .filter_map(|l| b.c.line(Line(l)).poison)
            .chain(copies.iter().map(|(birth, _)| *birth))
            .collect();
        prop_assert_eq!(b.t.births().len() - b.t.deaths() as usize, live.len());
        prop_assert_eq!(b.c.stats().births() as usize, b.t.births().len());
    }
}

#[test]
fn a_million_lines_scattered_over_all_memory_stay_under_a_gigabyte() {
    let mut b = quiet();
    let mut rng = Prng::new(1);
    let mut last = Line(0);
    for i in 0..1_000_000u64 {
        last = Line(rng.next_u64() >> 18);
        let data = LineData([i, 1, 2, 3, 4, 5, 6, 7]);
        b.c.write(sim_core::addr::Tagged::new(last, K0), &data, None, &mut b.t);
    }
    let used = b.c.memory_use();
    assert!(used < 700_000_000, "{used}");
    // Nor is it too good to be true: a line's data alone is 64 bytes.
    assert!(used > 64_000_000, "{used}");
    assert_eq!(b.c.probe(sim_core::addr::Tagged::new(last, K0)).data.0[0], 999_999);
}

#[test]
fn a_terabyte_of_one_owner_costs_next_to_nothing_and_reads_do_not_add_to_it() {
    let mut b = quiet();
    b.c.write_pages(Page(0)..Page(1 << 28), KA, &LineData::ZERO, &mut b.t);
    for i in 0..100_000 {
        let fill = b.read(i * 171_798, KA);
        assert_eq!((fill.class, fill.data), (DataClass::Plain, LineData::ZERO));
    }
    assert!(b.c.memory_use() < 100_000, "{}", b.c.memory_use());
    assert_eq!(b.c.stats().full_writes, 1 << 34);
    assert_eq!(b.c.line(Line((1 << 34) - 1)).writer, Some(KA));
    assert_eq!(b.c.line(Line(1 << 34)).writer, None);
}

const GIB_PAGES: u64 = 1 << 18;

fn clear_a_gib_of_a_terabyte(order: impl Iterator<Item = u64>) -> (usize, Bench) {
    let mut b = quiet();
    b.c.write_pages(Page(0)..Page(1 << 28), KA, &LineData::filled(9), &mut b.t);
    let mut most = 0;
    for (n, page) in order.enumerate() {
        b.c.write_lines(Page(5 * GIB_PAGES + page), u64::MAX, K0, &LineData::ZERO, &mut b.t);
        if n % 4096 == 0 {
            most = most.max(b.c.memory_use());
        }
    }
    for page in (0..GIB_PAGES).step_by(97) {
        let line = Page(5 * GIB_PAGES + page).line(3);
        assert_eq!(b.c.line(line).writer, Some(K0));
    }
    assert_eq!(b.c.line(Page(5 * GIB_PAGES - 1).line(63)).writer, Some(KA));
    assert_eq!(b.c.line(Page(6 * GIB_PAGES).line(0)).writer, Some(KA));
    (most, b)
}

#[test]
fn clearing_a_gib_page_by_page_in_order_keeps_one_region_open_and_ends_as_a_run() {
    let (most, b) = clear_a_gib_of_a_terabyte(0..GIB_PAGES);
    assert!(most < 100_000, "{most}");
    assert!(b.c.memory_use() < 100_000, "{}", b.c.memory_use());
}

#[test]
fn clearing_a_gib_page_by_page_in_random_order_costs_a_bit_per_page_and_ends_as_a_run() {
    let mut order: Vec<u64> = (0..GIB_PAGES).collect();
    let mut rng = Prng::new(3);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i as u64 + 1) as usize);
    }
    let (most, b) = clear_a_gib_of_a_terabyte(order.into_iter());
    assert!(most < 1_000_000, "{most}");
    assert!(b.c.memory_use() < 300_000, "{}", b.c.memory_use());
}

#[test]
fn clearing_line_by_line_in_any_order_ends_as_a_run_too() {
    let mut b = quiet();
    b.c.write_pages(Page(0)..Page(1 << 20), KA, &LineData::filled(9), &mut b.t);
    let empty = b.c.memory_use();
    let mut order: Vec<u64> = (0..512 * 64).collect();
    for pass in 0..2 {
        for line in &order {
            b.write(512 * 64 + line, K0, pass);
        }
        assert!(b.c.memory_use() < empty + 4000, "pass {pass}: {}", b.c.memory_use());
        let mut rng = Prng::new(5);
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
    }
}

#[test]
fn a_page_that_most_lines_of_which_agree_keeps_only_the_others() {
    let mut b = quiet();
    for i in 0..64 {
        b.write(i, K0, if i % 8 == 0 { i as u8 } else { 0xee });
    }
    let few = b.c.memory_use();
    let mut c = quiet();
    for i in 0..64 {
        c.write(i, K0, i as u8);
    }
    assert!(few + 50 * 64 <= c.c.memory_use(), "{few} {}", c.c.memory_use());
    for i in 0..64 {
        let want = if i % 8 == 0 { i as u8 } else { 0xee };
        assert_eq!(b.read(i, K0).data, LineData::filled(want));
    }
}

#[test]
fn a_page_of_64_different_lines_written_alike_in_any_order_is_uniform_again() {
    let mut b = quiet();
    let empty = b.c.memory_use();
    let mut rng = Prng::new(2);
    for round in 0..20 {
        for i in 0..64 {
            b.write(i, K0, i as u8);
        }
        assert!(b.c.memory_use() > empty + 64 * 64);
        let mut order: Vec<u64> = (0..64).collect();
        for i in (1..64).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
        for i in order {
            b.write(i, KA, 0xee);
        }
        assert!(b.c.memory_use() < empty + 2000, "round {round}: {}", b.c.memory_use());
    }
}

#[test]
fn a_page_that_becomes_alike_keeps_what_is_poisoned_or_tampered_with() {
    for first in [true, false] {
        let mut b = quiet();
        if !first {
            // The page is full of other lines already.
            for i in 0..64 {
                b.write(i, K0, i as u8);
            }
        }
        for i in 0..64 {
            b.write(i, KA, 0xee);
            match i {
                5 => b.c.inject_ue(at(5, KA), &mut b.t),
                6 => b.c.flip_bit(Line(6), 0, &mut b.t),
                7 => b.c.flip_td(Line(7), &mut b.t),
                _ => {}
            }
        }
        for i in 0..64 {
            let probe = b.c.probe(at(i, KA));
            assert_eq!(probe.poison.is_some(), i == 5, "{i}");
            assert_eq!(probe.poisoned, (5..8).contains(&i), "{i}");
        }
    }
}

#[test]
fn lines_that_differ_in_their_mac_alone_are_not_alike() {
    for bulk in [true, false] {
        let mut b = quiet();
        for (half, alg) in [(0, KeyAlg::Xts256Integrity), (1, KeyAlg::Xts256)] {
            let cmd = PconfigCmd::SetDirect(1);
            assert_eq!(b.c.pconfig(KI, cmd, Some(alg), false, &mut b.t), PconfigStatus::Ok);
            if bulk {
                let lines = 0xffff_ffff << (32 * half);
                b.c.write_lines(Page(0), lines, KI, &LineData::filled(1), &mut b.t);
            } else {
                for i in 0..32 {
                    b.write(32 * half + i, KI, 1);
                }
            }
        }
        for i in 0..64 {
            assert_eq!(b.c.line(Line(i)).mac, i < 32, "{i}");
        }
    }
}

#[test]
fn an_untouched_line_costs_nothing() {
    let mut b = quiet();
    let before = b.c.memory_use();
    for i in 0..1000 {
        assert_eq!(b.read(i * 1_000_003, K0).class, DataClass::Garbage);
    }
    assert_eq!(b.c.memory_use(), before);
}

#[test]
fn real_crypto_keeps_uniform_memory_uniform() {
    let s = spec(IntegrityMode::Ci, false, CryptoKind::Real);
    let mut b = Bench::bare(s, false);
    b.program(KA, None);
    b.c.write_pages(Page(0)..Page(1 << 28), KA, &LineData::ZERO, &mut b.t);
    for i in 0..100 {
        assert_eq!(b.read(i * 171_798_691, KA).class, DataClass::Plain);
    }
    assert!(b.c.memory_use() < 100_000, "{}", b.c.memory_use());
}

#[test]
fn lines_that_are_expected_are_as_they_were_and_cost_nothing() {
    let mut b = quiet();
    for i in 0..64 {
        b.write(i, K0, i as u8);
    }
    b.write(64 * 600, KA, 1);
    let (before, used) = (b.c.clone(), b.c.memory_use());
    // In a page of which all lines have a slot, in one of which few have, in none, and where no region is.
    for line in [0, 63, 64 * 600, 64 * 601, 64 * 5000].map(Line) {
        b.c.expect_page(line);
        b.c.expect_line(line);
    }
    assert_eq!(b.c, before);
    assert_eq!(b.c.memory_use(), used);
}
