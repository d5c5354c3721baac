//! Flushes of lines, packages and sub-blocks, and devices.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::mesi::Mesi;
use cache::{FenceKind, Hierarchy};
use common::*;
use sim_core::{ByteMask, LineData, Ps, Tagged};

const KEYS: [u16; 3] = [0, 1, 33];

/// Eight lines under three KeyIDs, modified; even lines by package 0, odd ones by package 1.
fn filled() -> (Hierarchy, Memory, Vec<Tagged>) {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let mut tags = Vec::new();
    for line in 0..8 {
        for key in KEYS {
            let tag = at(line, key);
            h.store_line_no_rfo(2 * (line & 1) as u16, tag, &fill(line as u8), &mut m);
            tags.push(tag);
        }
    }
    (h, m, tags)
}

fn here(tag: &Tagged, package: u64) -> bool {
    tag.line().0 & 1 == package
}

#[test]
fn wbinvd_empties_its_package_for_all_keyids_and_touches_no_other() {
    let (mut h, mut m, tags) = filled();
    let counts = h.wbinvd(0, &mut m);
    assert_eq!((counts.written_back, counts.invalidated), (12, 12));
    // Two cores of 16 + 32 slots and an LLC of 64.
    assert_eq!(counts.walked, 2 * 48 + 64);
    assert_eq!((counts.walked_l1, counts.walked_l2, counts.walked_llc), (2 * 16, 2 * 32, 64));
    // Two slices of eight sets of 16 ways.
    assert_eq!(counts.walked_snoop_filter, 256);
    assert_eq!(m.log.len(), 12);
    for tag in &tags {
        assert_eq!(h.inspect(*tag).is_none(), here(tag, 0), "{tag}");
    }
    h.wbinvd(1, &mut m);
    assert_eq!(h.resident_lines().count(), 0);
    assert_eq!(m.log.len(), 24);
    h.check_invariants().unwrap();
}

#[test]
fn wbnoinvd_writes_all_keyids_back_and_keeps_the_lines_clean() {
    let (mut h, mut m, tags) = filled();
    let counts = h.wbnoinvd(0, &mut m);
    assert_eq!((counts.written_back, counts.invalidated), (12, 0));
    for tag in &tags {
        let view = h.inspect(*tag).unwrap();
        assert_eq!(view.dirty, !here(tag, 0), "{tag}");
        assert_eq!(view.state == Mesi::Exclusive, here(tag, 0), "{tag}");
    }
    assert_eq!(h.wbnoinvd(0, &mut m).written_back, 0, "nothing is left to write");
    h.check_invariants().unwrap();
}

#[test]
fn the_sub_blocks_part_the_lines_and_their_sum_is_the_whole_package() {
    for blocks in [1, 2, 3, 4, 7, 8] {
        let mut cpu = roomy();
        cpu.flush_sub_blocks = blocks;
        let (mut h, mut m) = (build(&cpu), Memory::new(false));
        for line in 0..20 {
            for key in KEYS {
                h.store_line_no_rfo(0, at(line, key), &fill(1), &mut m);
            }
        }
        let whole = h.clone().wbinvd(0, &mut m.clone());
        let mut sum = cache::flushes::FlushCounts::default();
        for block in 0..blocks {
            let of_block: Vec<Tagged> = h
                .resident_lines()
                .map(|l| l.tag)
                .filter(|t| h.sub_block_of(t.line()) == block)
                .collect();
            let counts = h.wbinvdp(0, block, &mut m).unwrap();
            assert_eq!(counts.invalidated as usize, of_block.len());
            assert!(of_block.iter().all(|t| h.inspect(*t).is_none()));
            sum.walked += counts.walked;
            sum.walked_l1 += counts.walked_l1;
            sum.walked_l2 += counts.walked_l2;
            sum.walked_llc += counts.walked_llc;
            sum.walked_snoop_filter += counts.walked_snoop_filter;
            let parts = counts.walked_l1 + counts.walked_l2 + counts.walked_llc;
            assert_eq!(counts.walked, parts);
            sum.written_back += counts.written_back;
            sum.invalidated += counts.invalidated;
        }
        assert_eq!(sum, whole);
        assert_eq!(h.resident_lines().count(), 0);
        assert_eq!(h.wbinvdp(0, blocks, &mut m), None);
        assert_eq!(h.wbnoinvdp(0, blocks, &mut m), None);
    }
}

#[test]
fn wbinvd_of_one_package_leaves_the_other_its_shared_clean_copy() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    h.load(0, at(4, 0), &mut m);
    h.load(2, at(4, 0), &mut m);
    let counts = h.wbinvd(0, &mut m);
    assert_eq!((counts.written_back, counts.invalidated), (0, 1));
    assert_eq!((h.mesi(0, at(4, 0)), h.mesi(2, at(4, 0))), (Mesi::Invalid, Mesi::Forward));
    h.check_invariants().unwrap();
}

#[test]
fn line_flushes_touch_only_their_own_keyid() {
    type Act = fn(&mut Hierarchy, &mut Memory, Tagged);
    let flushes: [(Act, bool); 3] = [
        (|h, m, t| h.clflush(1, t, m), false),
        (|h, m, t| h.clflushopt(1, t, Ps::ZERO, m), false),
        (|h, m, t| h.clwb(1, t, Ps::ZERO, m), true),
    ];
    for (act, keeps) in flushes {
        let (mut h, mut m, tags) = filled();
        let before: Vec<_> = tags.iter().map(|t| h.inspect(*t)).collect();
        let flushed = at(3, 33);
        act(&mut h, &mut m, flushed);
        h.fence(1, FenceKind::Mfence, &mut m);
        assert_eq!(m.log, [Call::Write(flushed, fill(3), None)]);
        for (tag, view) in tags.iter().zip(before) {
            if *tag == flushed {
                assert_eq!(h.inspect(*tag).map(|v| v.dirty), keeps.then_some(false));
            } else {
                assert_eq!(h.inspect(*tag), view, "{tag}");
            }
        }
    }
}

#[test]
fn clflushopt_and_clwb_wait_for_a_fence_and_clflush_does_not() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let x = at(4, 0);
    h.store(0, x, &fill(1), ByteMask::FULL, &mut m);
    h.clwb(0, x, Ps::ZERO, &mut m);
    h.clflushopt(1, x, Ps::ZERO, &mut m);
    assert!(h.inspect(x).unwrap().dirty);
    h.fence(0, FenceKind::Sfence, &mut m);
    assert!(!h.inspect(x).unwrap().dirty);
    h.fence(1, FenceKind::Sfence, &mut m);
    assert_eq!(h.inspect(x), None);
    h.store(0, x, &fill(2), ByteMask::FULL, &mut m);
    h.clflush(3, x, &mut m);
    assert_eq!(h.inspect(x), None);
    assert_eq!(m.line(x.line()).data, fill(2));
}

#[test]
fn a_device_reads_the_modified_copy_of_its_own_keyid_and_changes_nothing() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    h.store(0, at(4, 0), &fill(1), ByteMask::FULL, &mut m);
    let before = h.inspect(at(4, 0));
    m.log.clear();
    assert_eq!(h.dma_read(at(4, 0), &mut m).data, fill(1));
    assert_eq!(m.log, []);
    // Another KeyID is another line: the controller answers, and nothing is allocated.
    assert!(h.dma_read(at(4, 1), &mut m).data.is_zero());
    assert_eq!(m.log.len(), 1);
    assert_eq!((h.inspect(at(4, 0)), h.inspect(at(4, 1))), (before, None));
}

#[test]
fn a_device_read_carries_the_poison_of_a_cached_copy() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let td = at(4, 33);
    h.store(0, td, &fill(1), first(8), &mut m);
    let birth = h.inspect(td).unwrap().poison;
    assert!(birth.is_some());
    assert_eq!(h.dma_read(td, &mut m).poison, birth);
}

#[test]
fn a_whole_line_device_write_drops_copies_and_a_partial_one_writes_them_back_first() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let x = at(4, 0);
    h.store(0, x, &fill(1), ByteMask::FULL, &mut m);
    m.log.clear();
    h.dma_write(x, &fill(2), ByteMask::FULL, &mut m);
    assert_eq!(m.log, [Call::Write(x, fill(2), None)]);
    assert_eq!(h.inspect(x), None);

    h.store(0, x, &fill(3), ByteMask::FULL, &mut m);
    m.log.clear();
    let mut data = LineData::ZERO;
    data.merge(&fill(4), first(16));
    h.dma_write(x, &data, first(16), &mut m);
    assert_eq!(m.log, [Call::Write(x, fill(3), None), Call::Partial(x, data, first(16))]);
    assert_eq!(h.inspect(x), None);
    assert_eq!(h.stats().dma_writes, 2);
}

#[test]
fn an_evicted_line_leaves_every_cache_of_every_package() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let x = at(4, 0);
    (0..4).for_each(|core| {
        h.load(core, x, &mut m);
    });
    assert!(h.evict(x, &mut m));
    assert_eq!(h.inspect(x), None);
    assert!(!h.evict(x, &mut m));
    h.check_invariants().unwrap();
}
