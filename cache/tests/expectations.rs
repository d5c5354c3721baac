//! What the host is asked for ahead of an access ([`Hierarchy::expect`] and what follows it) is what the access then meets.
//! Wrong guesses would change no result and cost the speed for which they are made, so nothing else would find them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use cache::{CachedLine, Hierarchy};
use common::{Call, Memory, at, build, fill, first, sets_ways, spec};
use sim_core::{ByteMask, Line, LineData, Tagged};

/// The line of each of many accesses: 0 to 127, scattered.
fn lines() -> impl Iterator<Item = u64> {
    (0..3000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(13) & 127)
}

fn held(caches: &Hierarchy, tag: Tagged) -> Option<CachedLine> {
    caches.resident_lines().find(|line| line.tag == tag)
}

#[test]
fn the_lines_that_are_expected_to_leave_l2_and_llc_are_those_that_leave() {
    let mut caches = build(&spec(sets_ways(2, 1), sets_ways(4, 2), sets_ways(8, 2)));
    let mut memory = Memory::new(false);
    let (mut of_l2, mut of_llc, mut written, mut wrong) = (0, 0, 0, 0);
    for (i, line) in lines().enumerate() {
        let line = at(line, 1);
        if held(&caches, line).is_some() {
            caches.load(0, line, &mut memory);
            continue;
        }
        let leaves = caches.expect(0, line);
        let victim = leaves.and_then(|l| caches.expect_in_llc(0, l));
        let dirty = victim.and_then(|v| caches.expect_victim(v));
        let (leaves, victim) = (leaves.map(|s| caches.line(s)), victim.map(|s| caches.line(s)));
        // What L1 has as well does not leave the core, and for what the LLC has already nothing has to leave that.
        let stays = leaves.is_none_or(|l| l.llc != 0 || caches.is_in_l1(0, l.tag));
        memory.take_log();
        if i % 3 == 0 {
            caches.store(0, line, &fill(i as u8), first(8), &mut memory);
        } else {
            caches.load(0, line, &mut memory);
        }
        let (Some(leaves), false) = (leaves, stays) else { continue };
        let left = held(&caches, leaves.tag).is_some_and(|l| l.cores == 0 && l.llc != 0);
        of_l2 += u32::from(left);
        wrong += u32::from(!left);
        let Some(victim) = victim else { continue };
        let gone = held(&caches, victim.tag).is_none_or(|l| l.llc == 0);
        of_llc += u32::from(gone);
        wrong += u32::from(!gone);
        if let Some(dirty) = dirty {
            let wrote = |c: &Call| matches!(c, Call::Write(at, ..) if at.line() == dirty);
            let is = dirty == victim.tag.line() && memory.writes().iter().any(wrote);
            written += u32::from(is);
            wrong += u32::from(!is);
        }
    }
    caches.check_invariants().unwrap();
    // A modified victim of L1 may go first, and change what is the oldest.
    assert!(of_l2 > 1000 && of_llc > 1000 && written > 300, "{of_l2} {of_llc} {written} {wrong}");
    assert!(wrong * 10 < of_l2, "{of_l2} {of_llc} {written} {wrong}");
}

#[test]
fn a_line_is_in_l1_from_when_it_was_met_until_it_leaves() {
    let mut caches = build(&spec(sets_ways(4, 4), sets_ways(4, 4), sets_ways(16, 4)));
    let mut memory = Memory::new(false);
    // The four lines of each set that were met last, as L1 replaces.
    let mut sets: [Vec<u64>; 4] = Default::default();
    for line in lines() {
        caches.load(0, at(line, 1), &mut memory);
        let set = &mut sets[(line & 3) as usize];
        set.retain(|l| *l != line);
        set.insert(0, line);
        set.truncate(4);
        for other in 0..128 {
            let there = sets[(other & 3) as usize].contains(&other);
            assert_eq!(caches.is_in_l1(0, at(other, 1)), there, "{:?}", Line(other));
            assert!(!caches.is_in_l1(0, at(other, 2)), "another KeyID of {:?}", Line(other));
            assert!(!caches.is_in_l1(1, at(other, 1)), "another core, {:?}", Line(other));
        }
    }
}

#[test]
fn a_store_asks_nobody_only_where_the_line_is_owned() {
    let mut spec = spec(sets_ways(4, 4), sets_ways(4, 4), sets_ways(16, 4));
    spec.cores = 2;
    let mut caches = build(&spec);
    let mut memory = Memory::new(false);
    let line = at(7, 1);
    let owned = |caches: &cache::Hierarchy| [0, 1].map(|core| caches.is_owned_in_l1(core, line));
    assert_eq!(owned(&caches), [false, false]);
    caches.load(0, line, &mut memory);
    assert_eq!(owned(&caches), [true, false], "alone");
    caches.load(1, line, &mut memory);
    assert_eq!(owned(&caches), [false, false], "shared");
    for core in [1, 0] {
        let mut store = || caches.store(core, line, &LineData::ZERO, ByteMask::FULL, &mut memory);
        let (first, second) = (store(), store());
        assert!(first.transaction.is_some() && second.transaction.is_none(), "core {core}");
        assert_eq!(owned(&caches), [core == 0, core == 1]);
    }
}
