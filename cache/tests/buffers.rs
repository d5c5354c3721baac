//! Write-combining buffers, direct stores, poison in cached copies.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::mesi::Mesi;
use cache::{FenceKind, Hierarchy, Level};
use common::*;
use sim_core::event::{BirthCause, WeakKind, Why};
use sim_core::{ByteMask, EventKind, LineData, Ps, Tagged};

const NOW: Ps = Ps::ZERO;
const X: Tagged = at(4, 0);
const Y: Tagged = at(5, 0);

fn new() -> (Hierarchy, Memory) {
    (build(&roomy()), Memory::new(true))
}

/// MOVNTI of eight bytes, the `i`-th of the line.
fn movnti(h: &mut Hierarchy, m: &mut Memory, tag: Tagged, i: usize) {
    h.wc_store(0, tag, &fill(7), ByteMask::span(8 * i, 8), NOW, m);
}

/// Why each buffer left, in order.
fn leaves(m: &Memory) -> Vec<(Why, u32)> {
    let why = |k| match k {
        EventKind::WcLeave { why, mask, .. } => Some((why, mask.count())),
        _ => None,
    };
    m.trace.events().iter().filter_map(|e| why(e.kind)).collect()
}

fn weak_dones(m: &Memory) -> Vec<(WeakKind, Why)> {
    let why = |k| match k {
        EventKind::WeakDone { kind, why, .. } => Some((kind, why)),
        _ => None,
    };
    m.trace.events().iter().filter_map(|e| why(e.kind)).collect()
}

#[test]
fn a_loop_of_movnti_over_whole_lines_makes_no_partial_write() {
    let (mut h, mut m) = new();
    for line in 0..16 {
        (0..8).for_each(|i| movnti(&mut h, &mut m, at(line, 0), i));
    }
    assert_eq!(m.log.len(), 16);
    assert!(m.log.iter().all(|c| matches!(c, Call::Write(_, data, None) if *data == fill(7))));
    assert_eq!(leaves(&m), [(Why::Full, 64); 16]);
    assert_eq!(h.wc_buffers(0).count(), 0);
}

#[test]
fn one_movnti_per_line_or_a_fence_inside_a_line_makes_partial_writes() {
    let (mut h, mut m) = new();
    (0..4).for_each(|line| movnti(&mut h, &mut m, at(line, 0), 0));
    // Two buffers: the third and the fourth line push the first two out.
    assert_eq!(leaves(&m), [(Why::Capacity, 8), (Why::Capacity, 8)]);
    assert!(
        matches!(m.log[..], [Call::Partial(a, ..), Call::Partial(b, ..)] if a == at(0, 0) && b == at(1, 0))
    );

    let (mut h, mut m) = new();
    (0..4).for_each(|i| movnti(&mut h, &mut m, X, i));
    h.fence(0, FenceKind::Sfence, &mut m);
    (4..8).for_each(|i| movnti(&mut h, &mut m, X, i));
    h.fence(0, FenceKind::Mfence, &mut m);
    let spans = [ByteMask::span(0, 32), ByteMask::span(32, 32)];
    let want = spans.map(|mask| {
        let mut data = LineData::ZERO;
        data.merge(&fill(7), mask);
        Call::Partial(X, data, mask)
    });
    assert_eq!(m.log, want);
}

#[test]
fn every_trigger_of_mc_28_makes_a_buffer_leave_and_nothing_else_does() {
    type Act = fn(&mut Hierarchy, &mut Memory);
    let triggers: [(&str, Act, Option<Why>); 16] = [
        (
            "sfence",
            |h, m| {
                h.fence(0, FenceKind::Sfence, m);
            },
            Some(Why::Fence),
        ),
        (
            "mfence",
            |h, m| {
                h.fence(0, FenceKind::Mfence, m);
            },
            Some(Why::Fence),
        ),
        (
            "locked or serialising",
            |h, m| {
                h.fence(0, FenceKind::Locked, m);
            },
            Some(Why::Fence),
        ),
        (
            "own load",
            |h, m| {
                h.load(0, X, m);
            },
            Some(Why::OwnAccess),
        ),
        (
            "own fetch",
            |h, m| {
                h.fetch(0, X, m);
            },
            Some(Why::OwnAccess),
        ),
        (
            "own store",
            |h, m| {
                h.store(0, X, &fill(1), first(1), m);
            },
            Some(Why::OwnAccess),
        ),
        (
            "own fast string",
            |h, m| {
                h.store_line_no_rfo(0, X, &fill(1), m);
            },
            Some(Why::OwnAccess),
        ),
        ("own clflush", |h, m| h.clflush(0, X, m), Some(Why::OwnAccess)),
        (
            "no free buffer",
            |h, m| (1..3).for_each(|i| movnti(h, m, at(4 + i, 0), 0)),
            Some(Why::Capacity),
        ),
        (
            "interrupt",
            |h, m| {
                h.interrupt(0, m);
            },
            Some(Why::Interrupt),
        ),
        (
            "the hardware's choice",
            |h, m| {
                h.wc_evict(0, m);
            },
            Some(Why::Chosen),
        ),
        (
            "lfence",
            |h, m| {
                h.fence(0, FenceKind::Lfence, m);
            },
            None,
        ),
        (
            "prefetch",
            |h, m| {
                h.prefetch(0, X, m);
            },
            None,
        ),
        (
            "another core's load",
            |h, m| {
                h.load(1, X, m);
            },
            None,
        ),
        (
            "a load under another KeyID",
            |h, m| {
                h.load(0, at(4, 1), m);
            },
            None,
        ),
        (
            "age, where the platform sets none",
            |h, m| {
                h.drain_due(0, Ps::HORIZON, m);
            },
            None,
        ),
    ];
    for (name, act, why) in triggers {
        let (mut h, mut m) = new();
        movnti(&mut h, &mut m, X, 0);
        act(&mut h, &mut m);
        assert_eq!(leaves(&m), why.map(|w| (w, 8)).into_iter().collect::<Vec<_>>(), "{name}");
        let waits = h.wc_buffers(0).any(|b| b.at == X);
        assert_eq!(waits, why.is_none(), "{name}");
        h.check_invariants().unwrap();
    }
}

#[test]
fn a_buffer_leaves_by_age_only_where_the_platform_says_so() {
    let mut cpu = roomy();
    cpu.wc_age = Ps::ns(50);
    let (mut h, mut m) = (build(&cpu), Memory::new(true));
    h.wc_store(0, X, &fill(1), first(8), Ps::ns(7), &mut m);
    assert_eq!(h.next_due(0), Some(Ps::ns(57)));
    assert_eq!(h.drain_due(0, Ps(56_999), &mut m).buffers, 0);
    assert_eq!(h.drain_due(0, Ps::ns(57), &mut m).buffers, 1);
    assert_eq!(leaves(&m), [(Why::Time, 8)]);
    assert_eq!(h.next_due(0), None);
}

#[test]
fn a_leaving_buffer_writes_own_keyid_copies_back_first_and_leaves_others_alone() {
    let (mut h, mut m) = new();
    h.store(2, X, &fill(1), ByteMask::FULL, &mut m);
    h.store_line_no_rfo(2, at(4, 1), &fill(2), &mut m);
    let other = h.inspect(at(4, 1));
    m.log.clear();
    movnti(&mut h, &mut m, X, 0);
    assert_eq!(m.log, []);
    h.fence(0, FenceKind::Sfence, &mut m);
    assert!(matches!(
        m.log[..],
        [Call::Write(a, data, None), Call::Partial(b, ..)] if a == X && b == X && data == fill(1)
    ));
    assert_eq!((h.inspect(X), h.inspect(at(4, 1))), (None, other));
}

#[test]
fn the_partial_write_names_the_storing_operation_as_its_cause_not_what_made_it_leave() {
    let (mut h, mut m) = new();
    h.movdir64b(0, at(4, 33), &fill(9), NOW, &mut m);
    h.fence(0, FenceKind::Mfence, &mut m);
    m.trace.emit_cause(EventKind::Op { agent: 0, step: 1 });
    let storing = m.trace.cause;
    movnti(&mut h, &mut m, X, 0);
    m.trace.cause = sim_core::EventId::NONE;
    m.trace.emit_cause(EventKind::Op { agent: 0, step: 2 });
    let fencing = m.trace.cause;
    h.fence(0, FenceKind::Sfence, &mut m);
    assert_eq!(m.trace.cause, fencing);
    let birth = m.trace.births()[0];
    assert_eq!(birth.cause, BirthCause::PartialWrite);
    let born = m.trace.event(birth.event).unwrap();
    let left = m.trace.event(born.cause).unwrap();
    assert!(matches!(left.kind, EventKind::WcLeave { why: Why::Fence, .. }));
    assert_eq!(left.cause, storing);
}

#[test]
fn movdir64b_takes_own_keyid_copies_away_and_leaves_other_keyids_alone() {
    for weak in [false, true] {
        let (mut h, mut m) = new();
        h.store(2, X, &fill(1), ByteMask::FULL, &mut m);
        h.store_line_no_rfo(3, at(4, 33), &fill(2), &mut m);
        let other = h.inspect(at(4, 33));
        m.log.clear();
        h.movdir64b(0, X, &fill(9), NOW, &mut m);
        assert_eq!(m.log, [], "not visible yet");
        assert_eq!(h.inspect(X).unwrap().data, fill(1));
        if weak {
            assert_eq!(h.next_due(0), Some(POST));
            h.drain_due(0, POST, &mut m);
        } else {
            h.fence(0, FenceKind::Mfence, &mut m);
        }
        assert_eq!(m.log, [Call::Write(X, fill(1), None), Call::Write(X, fill(9), None)]);
        assert_eq!((h.inspect(X), h.inspect(at(4, 33))), (None, other));
        // The dirty alias can still undo it (architecture.md §3 3.7).
        h.evict(at(4, 33), &mut m);
        assert!(m.line(X.line()).td);
    }
}

#[test]
fn a_weak_operation_takes_effect_for_each_of_its_reasons() {
    type Act = fn(&mut Hierarchy, &mut Memory);
    let reasons: [(&str, Act, Option<Why>); 11] = [
        (
            "time",
            |h, m| {
                h.drain_due(0, POST, m);
            },
            Some(Why::Time),
        ),
        (
            "too early",
            |h, m| {
                h.drain_due(0, Ps(POST.0 - 1), m);
            },
            None,
        ),
        (
            "mfence",
            |h, m| {
                h.fence(0, FenceKind::Mfence, m);
            },
            Some(Why::Fence),
        ),
        (
            "lfence",
            |h, m| {
                h.fence(0, FenceKind::Lfence, m);
            },
            None,
        ),
        (
            "interrupt",
            |h, m| {
                h.interrupt(0, m);
            },
            None,
        ),
        (
            "own load",
            |h, m| {
                h.load(0, X, m);
            },
            Some(Why::OwnAccess),
        ),
        (
            "own uncached load",
            |h, m| {
                h.uc_load(0, X, m);
            },
            Some(Why::OwnAccess),
        ),
        ("own non-temporal store", |h, m| movnti(h, m, X, 0), Some(Why::OwnAccess)),
        (
            "own load of another line",
            |h, m| {
                h.load(0, Y, m);
            },
            None,
        ),
        (
            "another core's load",
            |h, m| {
                h.load(1, X, m);
            },
            None,
        ),
        (
            "a full queue",
            |h, m| (1..3).for_each(|i| h.movdiri(0, at(8 + i, 0), &fill(1), first(4), NOW, m)),
            Some(Why::Capacity),
        ),
    ];
    for (name, act, why) in reasons {
        let (mut h, mut m) = new();
        h.movdir64b(0, X, &fill(9), NOW, &mut m);
        act(&mut h, &mut m);
        let want: Vec<_> = why.map(|w| (WeakKind::Movdir64b, w)).into_iter().collect();
        assert_eq!(weak_dones(&m), want, "{name}");
        assert_eq!(h.weak_ops(0).any(|w| w.at == X), why.is_none(), "{name}");
        assert_eq!(m.line(X.line()).data == fill(9), why.is_some(), "{name}");
    }
}

#[test]
fn waiting_entries_leave_oldest_first_whatever_they_are() {
    let (mut h, mut m) = new();
    h.movdir64b(0, X, &fill(1), NOW, &mut m);
    movnti(&mut h, &mut m, Y, 0);
    h.movdiri(0, at(6, 0), &fill(2), first(4), NOW, &mut m);
    let drained = h.fence(0, FenceKind::Mfence, &mut m);
    assert_eq!((drained.buffers, drained.weak), (1, 2));
    assert!(matches!(
        m.log[..],
        [Call::Write(a, ..), Call::Partial(b, ..), Call::Partial(c, ..)]
            if a == X && b == Y && c == at(6, 0)
    ));
}

#[test]
fn stores_of_one_core_to_one_line_keep_their_order() {
    let (mut h, mut m) = new();
    movnti(&mut h, &mut m, X, 0);
    h.movdir64b(0, X, &fill(1), NOW, &mut m);
    h.movdir64b(0, X, &fill(2), NOW, &mut m);
    h.clflushopt(0, X, NOW, &mut m);
    movnti(&mut h, &mut m, X, 1);
    assert_eq!(h.weak_ops(0).count(), 0);
    assert!(matches!(m.log[0], Call::Partial(..)));
    assert_eq!(m.log[1..], [Call::Write(X, fill(1), None), Call::Write(X, fill(2), None)]);
    h.fence(0, FenceKind::Sfence, &mut m);
    assert!(matches!(m.log[..], [.., Call::Partial(_, _, mask)] if mask == ByteMask::span(8, 8)));
}

#[test]
fn an_uncached_store_bypasses_after_writing_the_own_keyid_copy_back() {
    let (mut h, mut m) = new();
    h.store(1, X, &fill(1), ByteMask::FULL, &mut m);
    m.log.clear();
    h.uc_store(0, X, &fill(2), first(4), &mut m);
    h.uc_store(0, X, &fill(3), ByteMask::FULL, &mut m);
    assert!(matches!(
        m.log[..],
        [Call::Write(_, one, None), Call::Partial(_, _, mask), Call::Write(_, three, None)]
            if one == fill(1) && three == fill(3) && mask == first(4)
    ));
    assert_eq!(h.uc_load(0, X, &mut m).data, fill(3));
    assert_eq!(h.inspect(X), None);
}

/// A host line read under a private KeyID: a poisoned copy in core 0's caches, poison in memory too.
fn poisoned(h: &mut Hierarchy, m: &mut Memory) -> Tagged {
    let td = at(4, 33);
    h.prefetch(0, td, m);
    assert_eq!((m.trace.births().len(), m.trace.poison_locations()), (1, 2));
    td
}

#[test]
fn partial_stores_never_launder_a_poisoned_copy() {
    let (mut h, mut m) = new();
    let td = poisoned(&mut h, &mut m);
    for i in 0..8 {
        let access = h.store(0, td, &fill(1), ByteMask::span(8 * i, 8), &mut m);
        assert_eq!((access.level, access.rfo_poison), (Level::L1, None));
        assert!(h.line(access.slot).poison.is_some(), "all 64 bytes, but never at once");
    }
    h.evict(td, &mut m);
    // W-06, MC-05: poison rides on the write-back, with the TD bit of the KeyID's class.
    let line = m.line(td.line());
    assert!(line.poison.is_some() && line.td && line.data == fill(1));
    assert_eq!((m.trace.poison_locations(), m.trace.deaths()), (1, 0));
}

#[test]
fn a_whole_line_store_launders_the_copy_and_its_write_back_kills_the_poison() {
    for read_first in [true, false] {
        let (mut h, mut m) = new();
        let td = poisoned(&mut h, &mut m);
        let access = if read_first {
            h.store(0, td, &fill(1), ByteMask::FULL, &mut m)
        } else {
            h.store_line_no_rfo(0, td, &fill(1), &mut m)
        };
        assert_eq!(h.line(access.slot).poison, None);
        assert_eq!((m.trace.poison_locations(), m.trace.deaths()), (1, 0));
        h.evict(td, &mut m);
        assert_eq!((m.trace.poison_locations(), m.trace.deaths()), (0, 1));
    }
}

#[test]
fn owning_a_line_for_a_store_that_may_not_be_made_takes_every_copy_and_dirties_nothing() {
    let (mut h, mut m) = new();
    let td = poisoned(&mut h, &mut m);
    let birth = h.inspect(td).and_then(|v| v.poison);
    let access = h.own_for_store(1, td, &mut m);
    assert_eq!(access.rfo_poison, birth);
    assert_eq!((h.mesi(0, td), h.mesi(1, td)), (Mesi::Invalid, Mesi::Exclusive));
    h.evict(td, &mut m);
    assert_eq!(m.writes(), []);
    // A modified line stays modified: the duty to write back moves with it.
    h.store(0, X, &fill(1), first(8), &mut m);
    h.own_for_store(1, X, &mut m);
    assert_eq!((h.mesi(0, X), h.mesi(1, X)), (Mesi::Invalid, Mesi::Modified));
    h.check_invariants().unwrap();
    h.evict(X, &mut m);
    assert_eq!(m.writes().len(), 1);
}

#[test]
fn a_direct_store_is_not_combined_with_a_younger_one_of_its_line() {
    let (mut h, mut m) = new();
    h.movdir64b(0, X, &fill(1), NOW, &mut m);
    h.movdir64b(0, X, &fill(2), NOW, &mut m);
    assert_eq!(m.writes(), [Call::Write(X, fill(1), None)], "architecture.md §3 3.5");
    h.clwb(0, X, NOW, &mut m);
    assert_eq!(m.writes().last(), Some(&Call::Write(X, fill(2), None)));
    assert_eq!(weak_dones(&m), [(WeakKind::Movdir64b, Why::OwnAccess); 2]);
    assert_eq!(h.weak_ops(0).count(), 1);
    // The same line under another KeyID is no reason.
    h.clwb(0, at(4, 33), NOW, &mut m);
    assert_eq!(h.weak_ops(0).count(), 2);
}

#[test]
fn an_rfo_tells_the_poison_it_brought_and_a_fast_string_store_brings_none() {
    let (mut h, mut m) = new();
    let td = at(4, 33);
    let access = h.store(0, td, &fill(1), first(8), &mut m);
    let birth = h.line(access.slot).poison;
    assert!(birth.is_some());
    assert_eq!(access.rfo_poison, birth);
    // From a neighbour's copy as well.
    assert_eq!(h.store(1, td, &fill(2), first(8), &mut m).rfo_poison, birth);
    // And even if the store overwrites the whole line at once.
    let full = h.store(2, td, &fill(3), ByteMask::FULL, &mut m);
    assert_eq!((full.rfo_poison, h.line(full.slot).poison), (birth, None));

    let (mut h, mut m) = new();
    let access = h.store_line_no_rfo(0, td, &fill(1), &mut m);
    assert_eq!((access.level, access.rfo_poison), (Level::Llc, None));
    assert_eq!(m.log, [], "nothing was read");
    assert_eq!(m.trace.births().len(), 0);
    assert_eq!((h.stats().unread_owned, h.stats().fills), (1, 0));
}

#[test]
fn a_dropped_clean_copy_of_poison_leaves_the_poison_in_memory_alive() {
    let (mut h, mut m) = new();
    let td = poisoned(&mut h, &mut m);
    m.log.clear();
    h.clflush(3, td, &mut m);
    assert_eq!(m.log, []);
    assert_eq!((m.trace.poison_locations(), m.trace.deaths()), (1, 0));
}

#[test]
fn poison_moves_with_a_line_between_cores_without_multiplying() {
    let (mut h, mut m) = new();
    let td = poisoned(&mut h, &mut m);
    for core in 0..4 {
        let slot = h.load(core, td, &mut m).slot;
        assert!(h.line(slot).poison.is_some());
    }
    assert_eq!(m.trace.poison_locations(), 2);
}
