//! Snoop filters and slices: what two KeyIDs of a physical line share, and what they never share.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::mesi::Mesi;
use cache::{Access, Alias, FenceKind, Hierarchy, Level, Transaction};
use common::*;
use proptest::prelude::*;
use sim_core::platform::{CpuSpec, SnoopFilterGeometry, XorMasks};
use sim_core::{ByteMask, EventKind, Line, LineData, Ps, Tagged};

/// Core 0 and its neighbour 1 are in package 0, core 2 in package 1.
const ME: u16 = 0;
const PEER: u16 = 1;
const FAR: u16 = 2;
/// A line under KeyID 0 and under a TD's.
const A: Tagged = at(4, 0);
const TD: Tagged = at(4, 33);

/// Roomy caches above a filter of one set in each of two slices.
fn tight(ways: u8) -> CpuSpec {
    CpuSpec { snoop_filter: SnoopFilterGeometry { sets: 1, ways }, ..roomy() }
}

fn load(h: &mut Hierarchy, m: &mut Memory, core: u16, tag: Tagged) -> Access {
    let access = h.load(core, tag, m);
    h.check_invariants().unwrap();
    access
}

fn store(h: &mut Hierarchy, m: &mut Memory, core: u16, tag: Tagged, byte: u8) -> Access {
    let access = h.store(core, tag, &fill(byte), ByteMask::FULL, m);
    h.check_invariants().unwrap();
    access
}

#[test]
fn c13_a_request_finds_an_alias_of_another_keyid_clean_or_modified_and_its_core() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let access = load(&mut h, &mut m, ME, A);
    assert_eq!((access.level, access.alias, access.peer), (Level::Memory, Alias::None, None));
    h.evict(A, &mut m);
    // A clean alias.
    load(&mut h, &mut m, PEER, TD);
    let access = load(&mut h, &mut m, ME, A);
    assert_eq!(
        (access.level, access.alias, access.peer),
        (Level::Memory, Alias::Clean, Some(PEER))
    );
    h.evict(A, &mut m);
    // A modified one.
    store(&mut h, &mut m, PEER, TD, 1);
    let access = load(&mut h, &mut m, ME, A);
    assert_eq!((access.alias, access.peer), (Alias::Modified, Some(PEER)));
    // The core's own count as well, for a store as for a load, and for an upgrade of a shared copy.
    let third = at(4, 1);
    assert_eq!(store(&mut h, &mut m, PEER, third, 2).alias, Alias::Modified);
    h.evict(A, &mut m);
    h.evict(third, &mut m);
    load(&mut h, &mut m, ME, A);
    load(&mut h, &mut m, PEER, A);
    let upgrade = store(&mut h, &mut m, ME, A, 3);
    assert_eq!((upgrade.alias, upgrade.peer), (Alias::Modified, Some(PEER)));
    assert_eq!(upgrade.transaction, Some(Transaction::RFO));
    let filter = h.stats().snoop_filter;
    // The loads of A with the alias clean, with it modified (three), the store to the third and the upgrade.
    assert_eq!((filter.alias_clean, filter.alias_modified), (1, 5));
}

#[test]
fn an_alias_in_an_llc_alone_or_in_another_package_is_not_in_the_filter() {
    let (mut h, mut m) = (build(&tiny()), Memory::new(false));
    store(&mut h, &mut m, PEER, TD, 1);
    // Out of the core and into the LLC.
    load(&mut h, &mut m, PEER, at(6, 33));
    load(&mut h, &mut m, PEER, at(8, 33));
    assert_eq!(h.inspect(TD).map(|v| (v.cores, v.llc)), Some((0, 1)));
    assert_eq!(load(&mut h, &mut m, ME, A).alias, Alias::None);
    store(&mut h, &mut m, FAR, TD, 2);
    h.evict(A, &mut m);
    assert_eq!(load(&mut h, &mut m, ME, A).alias, Alias::None);
}

#[test]
fn an_access_that_stays_in_the_core_asks_no_filter_and_sends_nothing() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    store(&mut h, &mut m, PEER, TD, 1);
    load(&mut h, &mut m, ME, A);
    let before = *h.stats();
    let access = load(&mut h, &mut m, ME, A);
    let (alias, transaction) = (access.alias, access.transaction);
    assert_eq!((access.level, alias, transaction), (Level::L1, Alias::None, None));
    // E becomes M in silence.
    assert_eq!(store(&mut h, &mut m, ME, A, 2).transaction, None);
    assert_eq!(h.stats().snoop_filter, before.snoop_filter);
    assert_eq!(h.stats().transactions, before.transactions);
}

#[test]
fn a_full_filter_takes_its_oldest_line_from_every_core_under_every_keyid_as_one_event() {
    let (mut h, mut m) = (build(&tight(2)), Memory::new(false));
    // Line 4 under two KeyIDs in two cores, one of them modified; line 6 shares its home.
    store(&mut h, &mut m, ME, A, 1);
    load(&mut h, &mut m, PEER, TD);
    load(&mut h, &mut m, ME, TD);
    load(&mut h, &mut m, PEER, at(6, 1));
    assert_eq!(h.stats().snoop_filter.back_invalidations, 0);
    m.take_log();
    let events = m.trace.events().len();
    load(&mut h, &mut m, PEER, at(8, 0));
    // Copies went where L2 victims go: into the LLC, the modified one with its duty.
    for (tag, dirty) in [(A, true), (TD, false)] {
        let view = h.inspect(tag).unwrap();
        assert_eq!((view.cores, view.llc, view.dirty, view.state), (0, 1, dirty, Mesi::Invalid));
    }
    assert_eq!(m.take_log().len(), 1, "memory was read for line 8 and not written");
    let new = &m.trace.events()[events..];
    let back = EventKind::BackInvalidate { package: 0, line: Line(4) };
    let event = new.iter().find(|e| e.kind == back).unwrap();
    let left: Vec<(u16, Tagged)> = new
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::LeftCore { core, at } => {
                assert_eq!(e.cause, event.id);
                Some((core, at))
            }
            _ => None,
        })
        .collect();
    assert_eq!(left.len(), 3);
    assert!(left.contains(&(0, A)) && left.contains(&(0, TD)) && left.contains(&(1, TD)));
    let filter = h.stats().snoop_filter;
    assert_eq!((filter.back_invalidations, filter.back_invalidated), (1, 2));
    assert_eq!(filter.back_invalidated_modified, 1);
    assert_eq!(h.stats().transactions_of(Transaction::BackInvalidate), 1);
    // And the next access finds them there.
    assert_eq!(load(&mut h, &mut m, ME, A).level, Level::Llc);
}

#[test]
fn a_use_of_a_line_under_any_keyid_keeps_its_entry_young() {
    let (mut h, mut m) = (build(&tight(2)), Memory::new(false));
    load(&mut h, &mut m, ME, A);
    load(&mut h, &mut m, ME, at(6, 0));
    // Line 4 under another KeyID: its entry is younger than that of line 6 now.
    load(&mut h, &mut m, PEER, TD);
    load(&mut h, &mut m, PEER, at(8, 0));
    assert_eq!(h.mesi(ME, A), Mesi::Exclusive);
    assert_eq!(h.inspect(at(6, 0)).map(|v| v.cores), Some(0));
}

#[test]
fn an_entry_stays_for_one_keyid_when_the_other_leaves_and_goes_with_the_last() {
    let (mut h, mut m) = (build(&tight(1)), Memory::new(false));
    load(&mut h, &mut m, ME, A);
    load(&mut h, &mut m, PEER, TD);
    let filter = |h: &Hierarchy| {
        let f = h.stats().snoop_filter;
        (f.allocations, f.deallocations, f.back_invalidations)
    };
    assert_eq!(filter(&h), (1, 0, 0), "one entry for both");
    h.clflush(ME, A, &mut m);
    h.check_invariants().unwrap();
    assert_eq!(filter(&h), (1, 0, 0));
    h.clflush(ME, TD, &mut m);
    h.check_invariants().unwrap();
    assert_eq!(filter(&h), (1, 1, 0));
    load(&mut h, &mut m, ME, at(6, 0));
    assert_eq!(filter(&h), (2, 1, 0), "there was room");
}

#[test]
fn a_flush_of_a_package_empties_its_filter_and_no_other() {
    let (mut h, mut m) = (build(&tight(2)), Memory::new(false));
    load(&mut h, &mut m, ME, A);
    load(&mut h, &mut m, FAR, A);
    h.wbinvd(0, &mut m);
    h.check_invariants().unwrap();
    let filter = h.stats().snoop_filter;
    assert_eq!((filter.allocations, filter.deallocations), (2, 1));
    h.wbnoinvd(1, &mut m);
    h.check_invariants().unwrap();
    assert_eq!(h.stats().snoop_filter.deallocations, 1);
}

#[test]
fn the_latest_reader_forwards_and_when_it_is_gone_any_sharer_answers() {
    // Four cores in one package.
    let cpu = CpuSpec { packages: 1, ..roomy() };
    let (mut h, mut m) = (build(&cpu), Memory::new(false));
    load(&mut h, &mut m, 0, A);
    assert_eq!(load(&mut h, &mut m, 1, A).peer, Some(0), "the owner");
    assert_eq!([0, 1].map(|c| h.mesi(c, A)), [Mesi::Shared, Mesi::Forward]);
    assert_eq!(load(&mut h, &mut m, 2, A).peer, Some(1), "the forwarder");
    assert_eq!(h.inspect(A).unwrap().forwarder, Some(2));
    // The forwarder loses its copy: sets of eight ways.
    for line in 1..=16 {
        load(&mut h, &mut m, 2, at(4 + 4 * line, 0));
    }
    assert_eq!(h.mesi(2, A), Mesi::Invalid);
    let view = h.inspect(A).unwrap();
    assert_eq!((view.state, view.forwarder), (Mesi::Shared, None));
    m.take_log();
    // Its copy was dropped out of L1 in silence. The lowest-numbered sharer answers.
    let access = load(&mut h, &mut m, 3, A);
    assert_eq!((access.level, access.peer), (Level::PeerClean, Some(0)));
    assert_eq!(m.take_log(), [], "a clean copy exists, so memory is not read");
    assert_eq!(h.inspect(A).unwrap().forwarder, Some(3));
}

#[test]
fn the_slice_is_the_hash_of_the_address_and_the_same_for_every_keyid() {
    let masks = [0x1_0040, 0x2_0080, 0x4_0100];
    let cpu = CpuSpec {
        llc: sets_ways(16, 4),
        llc_slices: 8,
        slice_hash: XorMasks::new(&masks),
        ..roomy()
    };
    let (mut h, mut m) = (build(&cpu), Memory::new(false));
    for line in (0..40).chain([0x400, 0x1234, 0xff_ffff]) {
        let address = line << 6;
        let bits = masks.map(|mask: u64| (address & mask).count_ones() & 1);
        let want = (bits[0] | bits[1] << 1 | bits[2] << 2) as u8;
        assert_eq!(h.slice_of(Line(line)), want, "line {line:#x}");
        for key in [0, 33] {
            assert_eq!(load(&mut h, &mut m, ME, at(line, key)).slice, want);
        }
    }
}

#[test]
fn sub_blocks_are_groups_of_slices_or_parts_of_one() {
    for (blocks, slices) in [(1, 8), (2, 8), (8, 8), (16, 8)] {
        let cpu = CpuSpec {
            llc: sets_ways(32, 4),
            llc_slices: slices,
            // The line's lowest three bits and the three above the set's five.
            slice_hash: XorMasks::new(&[0x840, 0x1080, 0x2100]),
            flush_sub_blocks: blocks,
            ..roomy()
        };
        let h = build(&cpu);
        for line in (0..200).map(Line) {
            let (block, slice) = (h.sub_block_of(line), u32::from(h.slice_of(line)));
            assert_eq!(block % 8 % blocks, slice % blocks, "{line:?} of {blocks}");
            assert!(block < blocks);
        }
        let met: std::collections::BTreeSet<u32> =
            (0..200).map(|line| h.sub_block_of(Line(line))).collect();
        assert_eq!(met.len(), blocks as usize);
    }
}

#[test]
fn each_transaction_is_counted_where_its_request_leaves() {
    let cpu = CpuSpec { wc_buffers: 1, ..tiny() };
    let (mut h, mut m) = (build(&cpu), Memory::new(false));
    let mut seen = [0; cache::transaction::TRANSACTIONS];
    let mut expect = |h: &Hierarchy, news: &[(Transaction, u64)]| {
        for (kind, n) in news {
            seen[*kind as usize] += n;
        }
        assert_eq!(h.stats().transactions, seen, "{news:?}");
        h.check_invariants().unwrap();
    };
    use Transaction as T;
    let half = first(32);
    // Lines of one set; L1 and L2 have one way each.
    assert_eq!(load(&mut h, &mut m, ME, A).transaction, Some(T::DRd));
    expect(&h, &[(T::DRd, 1)]);
    assert_eq!(store(&mut h, &mut m, ME, at(6, 0), 1).transaction, Some(T::RFO));
    expect(&h, &[(T::RFO, 1), (T::WbEFtoE, 1)]);
    let line = h.store_line_no_rfo(ME, at(8, 0), &fill(2), &mut m);
    assert_eq!(line.transaction, Some(T::ItoM));
    expect(&h, &[(T::ItoM, 1), (T::WbMtoI, 1)]);
    load(&mut h, &mut m, PEER, at(8, 0));
    expect(&h, &[(T::DRd, 1)]);
    // Core 1 read last, so core 0's copy is not in F.
    load(&mut h, &mut m, ME, A);
    expect(&h, &[(T::DRd, 1), (T::WbStoI, 1)]);
    h.uc_load(ME, at(10, 0), &mut m);
    h.uc_store(ME, at(10, 0), &LineData::ZERO, half, &mut m);
    expect(&h, &[(T::UCRdF, 1), (T::WiL, 1)]);
    h.wc_store(ME, at(12, 0), &LineData::ZERO, half, Ps::ZERO, &mut m);
    expect(&h, &[]);
    h.wc_store(ME, at(14, 0), &LineData::ZERO, ByteMask::FULL, Ps::ZERO, &mut m);
    expect(&h, &[(T::WCiL, 1), (T::WCiLF, 1)]);
    h.movdir64b(ME, at(12, 0), &LineData::ZERO, Ps::ZERO, &mut m);
    h.movdiri(ME, at(14, 0), &LineData::ZERO, first(4), Ps::ZERO, &mut m);
    expect(&h, &[]);
    h.fence(ME, FenceKind::Sfence, &mut m);
    expect(&h, &[(T::WCiLF, 1), (T::WCiL, 1)]);
    h.clflush(ME, A, &mut m);
    h.clflushopt(ME, A, Ps::ZERO, &mut m);
    h.clwb(ME, A, Ps::ZERO, &mut m);
    h.fence(ME, FenceKind::Sfence, &mut m);
    expect(&h, &[(T::CLFlush, 1), (T::CLFlushOpt, 1), (T::CLWB, 1)]);
    h.dma_read(A, &mut m);
    h.dma_write(A, &LineData::ZERO, half, &mut m);
    h.dma_write(A, &LineData::ZERO, ByteMask::FULL, &mut m);
    expect(&h, &[(T::PCIRdCur, 1), (T::ItoMCacheNear, 1), (T::IoItoM, 1)]);
    let (mut h, mut m) = (build(&tight(1)), Memory::new(false));
    store(&mut h, &mut m, ME, A, 1);
    load(&mut h, &mut m, ME, at(6, 0));
    let of = |kind| h.stats().transactions_of(kind);
    assert_eq!((of(T::BackInvalidate), of(T::WbMtoI)), (1, 1));
}

/// What a KeyID's own core does to its line.
#[derive(Clone, Copy, Debug)]
enum Act {
    Load,
    Store(u8, usize),
    Flush,
    Evict,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Load),
        4 => (1u8.., 1usize..=64).prop_map(|(byte, n)| Act::Store(byte, n)),
        1 => Just(Act::Flush),
        1 => Just(Act::Evict),
    ]
}

/// Plays what concerns one KeyID and returns what its loads saw.
fn play(cpu: &CpuSpec, acts: &[(u64, bool, Act)], alone: bool) -> Vec<LineData> {
    let (mut h, mut seen) = (build(cpu), Vec::new());
    // A memory for each KeyID: what two KeyIDs do to one line of DRAM is the controller's business (C4).
    let mut memories = [Memory::new(false), Memory::new(false)];
    for (line, other, act) in acts {
        if alone && *other {
            continue;
        }
        let (tag, core) = if *other { (at(*line, 2), PEER) } else { (at(*line, 1), ME) };
        let m = &mut memories[usize::from(*other)];
        // What an access drives out may be the other KeyID's and goes to this memory; the lines do not overlap there.
        match act {
            Act::Load => {
                let slot = h.load(core, tag, m).slot;
                if !other {
                    seen.push(h.line(slot).data);
                }
            }
            Act::Store(byte, n) => {
                h.store(core, tag, &fill(*byte), first(*n), m);
            }
            Act::Flush => h.clflush(core, tag, m),
            Act::Evict => {
                h.evict(tag, m);
            }
        }
        h.check_invariants().unwrap();
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn aliases_couple_in_capacity_and_never_in_data(
        ways in 1u8..4,
        acts in proptest::collection::vec((0u64..6, any::<bool>(), acts()), 1..60),
    ) {
        // An LLC that loses nothing, so that write-backs are each KeyID's own flushes and go to its own memory.
        let cpu = CpuSpec { packages: 1, cores: 2, llc: sets_ways(8, 16), ..tight(ways) };
        prop_assert_eq!(play(&cpu, &acts, false), play(&cpu, &acts, true));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_coupled_exactly_if_a_core_of_its_package_holds_an_alias(
        ways in 1u8..4,
        steps in proptest::collection::vec((0u16..4, 0u64..5, 0u16..3, any::<bool>()), 1..80),
    ) {
        let (mut h, mut m) = (build(&tight(ways)), Memory::new(false));
        for (core, line, key, is_store) in steps {
            let tag = at(line, key);
            let here = 0b11u128 << (2 * h.package_of(core));
            let aliases: Vec<_> = (0..3)
                .filter(|k| *k != key)
                .filter_map(|k| h.inspect(at(line, k)))
                .filter(|view| view.cores & here != 0)
                .collect();
            let want = match aliases.iter().any(|view| view.state == Mesi::Modified) {
                true => Alias::Modified,
                false if aliases.is_empty() => Alias::None,
                false => Alias::Clean,
            };
            let access =
                if is_store { store(&mut h, &mut m, core, tag, 1) } else { load(&mut h, &mut m, core, tag) };
            if access.transaction.is_some() {
                prop_assert_eq!(access.alias, want);
                prop_assert_eq!(access.slice, h.slice_of(Line(line)));
            } else {
                prop_assert!(access.level <= Level::L2);
                prop_assert_eq!((access.alias, access.peer), (Alias::None, None));
            }
        }
    }
}
