//! The transition table seen from outside, and where lines go between levels and packages.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::mesi::{Effect, Elsewhere, Mesi, MesiEvent, TRANSITIONS, Transition, When};
use cache::{FenceKind, Hierarchy, Level, SpecError};
use common::*;
use sim_core::event::Why;
use sim_core::platform::CacheGeometry;
use sim_core::{ByteMask, EventKind, Ps};

/// Core 0 and its neighbour 1 are in package 0, core 2 in package 1.
const ME: u16 = 0;
const PEER: u16 = 1;
const FAR: u16 = 2;
const X: sim_core::Tagged = at(4, 1);

fn load(h: &mut Hierarchy, m: &mut Memory, core: u16, tag: sim_core::Tagged) -> Level {
    let level = h.load(core, tag, m).level;
    h.check_invariants().unwrap();
    level
}

fn store(h: &mut Hierarchy, m: &mut Memory, core: u16, tag: sim_core::Tagged, byte: u8) -> Level {
    let level = h.store(core, tag, &fill(byte), ByteMask::FULL, m).level;
    h.check_invariants().unwrap();
    level
}

/// Two lines of X's set push X out of a core of the tiny platform.
fn push_out(h: &mut Hierarchy, m: &mut Memory, core: u16) {
    load(h, m, core, at(6, 1));
    load(h, m, core, at(8, 1));
}

fn prepare(row: &Transition) -> (Hierarchy, Memory) {
    let (mut h, mut m) = (build(&tiny()), Memory::new(false));
    match (row.from, row.when) {
        (Mesi::Invalid, When::Only(Elsewhere::OwnLlcDirty)) => {
            store(&mut h, &mut m, ME, X, 1);
            push_out(&mut h, &mut m, ME);
            let view = h.inspect(X).unwrap();
            assert_eq!((view.cores, view.llc, view.dirty), (0, 1, true));
        }
        (Mesi::Invalid, When::Only(Elsewhere::Others)) => {
            load(&mut h, &mut m, PEER, X);
        }
        (Mesi::Invalid, _) => {}
        (Mesi::Shared, _) => {
            load(&mut h, &mut m, ME, X);
            load(&mut h, &mut m, PEER, X);
        }
        (Mesi::Forward, _) => {
            load(&mut h, &mut m, PEER, X);
            load(&mut h, &mut m, ME, X);
        }
        (Mesi::Exclusive, _) => {
            load(&mut h, &mut m, ME, X);
        }
        (Mesi::Modified, _) => {
            store(&mut h, &mut m, ME, X, 1);
        }
    }
    assert_eq!(h.mesi(ME, X), row.from);
    m.log.clear();
    (h, m)
}

fn happen(h: &mut Hierarchy, m: &mut Memory, event: MesiEvent) {
    match event {
        MesiEvent::Load => {
            load(h, m, ME, X);
        }
        MesiEvent::Store => {
            store(h, m, ME, X, 2);
        }
        MesiEvent::PeerLoad => {
            // One that does not hold it yet.
            let reader = if h.mesi(PEER, X) == Mesi::Invalid { PEER } else { FAR };
            let alone = h.inspect(X).is_none();
            load(h, m, reader, X);
            let want = if alone { Mesi::Exclusive } else { Mesi::Forward };
            assert_eq!(h.mesi(reader, X), want);
        }
        MesiEvent::PeerStore => {
            store(h, m, PEER, X, 2);
        }
        MesiEvent::Flush => h.clflush(ME, X, m),
        MesiEvent::WriteBackKeep => {
            h.clwb(ME, X, Ps::ZERO, m);
            h.fence(ME, FenceKind::Sfence, m);
        }
        MesiEvent::Evict => push_out(h, m, ME),
    }
    h.check_invariants().unwrap();
}

#[test]
fn every_row_of_the_transition_table_is_reached_and_obeyed() {
    for row in TRANSITIONS {
        let (mut h, mut m) = prepare(row);
        happen(&mut h, &mut m, row.event);
        assert_eq!(h.mesi(ME, X), row.to, "{row:?}");
        let written = m.writes();
        match row.effect {
            Effect::WriteBack => {
                assert_eq!(written, [Call::Write(X, fill(1), None)], "{row:?}");
            }
            Effect::HandOver => {
                assert_eq!(written, [], "{row:?}");
                assert!(h.inspect(X).unwrap().dirty, "{row:?}");
            }
            Effect::Own | Effect::Upgrade => {
                assert_eq!(h.inspect(X).unwrap().cores, 1, "{row:?}");
            }
            Effect::None | Effect::Fill => assert_eq!(written, [], "{row:?}"),
        }
    }
}

#[test]
fn each_level_answers_in_its_turn() {
    let (mut h, mut m) = (build(&tiny()), Memory::new(false));
    assert_eq!(load(&mut h, &mut m, ME, X), Level::Memory);
    assert_eq!(load(&mut h, &mut m, ME, X), Level::L1);
    assert_eq!(load(&mut h, &mut m, PEER, X), Level::PeerClean);
    assert_eq!(load(&mut h, &mut m, FAR, X), Level::PeerRemote);
    assert_eq!(
        store(&mut h, &mut m, ME, X, 1),
        Level::PeerRemote,
        "an upgrade asks the far package"
    );
    assert_eq!(load(&mut h, &mut m, PEER, X), Level::PeerModified);
    push_out(&mut h, &mut m, ME);
    assert_eq!(load(&mut h, &mut m, ME, X), Level::Llc);
    let s = h.stats();
    assert_eq!((s.peer_clean, s.peer_modified, s.peer_remote, s.llc.hits), (1, 1, 1, 1));
    assert_eq!(s.fills, 3, "X and the two lines that pushed it out");
}

#[test]
fn a_line_pushed_out_of_l1_is_found_in_l2() {
    let (mut h, mut m) =
        (build(&spec(sets_ways(2, 1), sets_ways(2, 4), sets_ways(2, 4))), Memory::new(false));
    load(&mut h, &mut m, ME, X);
    load(&mut h, &mut m, ME, at(6, 1));
    assert_eq!(load(&mut h, &mut m, ME, X), Level::L2);
    assert_eq!(store(&mut h, &mut m, ME, at(6, 1), 3), Level::L2);
}

#[test]
fn a_line_pushed_out_of_l2_stays_in_l1_and_returns_to_l2_when_modified() {
    // L2 is not inclusive of L1. One L1 set of two lines; X and 6 share an L2 set of one line, 5 has another.
    let cpu = spec(sets_ways(1, 2), sets_ways(2, 1), sets_ways(2, 4));
    let (mut h, mut m) = (build(&cpu), Memory::new(false));
    store(&mut h, &mut m, ME, X, 1);
    load(&mut h, &mut m, ME, at(6, 1));
    let view = h.inspect(X).unwrap();
    assert_eq!((view.state, view.llc), (Mesi::Modified, 0));
    assert_eq!(load(&mut h, &mut m, ME, X), Level::L1);
    load(&mut h, &mut m, ME, at(6, 1));
    load(&mut h, &mut m, ME, at(5, 1));
    let view = h.inspect(X).unwrap();
    assert_eq!((view.state, view.llc), (Mesi::Modified, 0));
    assert_eq!(load(&mut h, &mut m, ME, X), Level::L2);
}

#[test]
fn a_modified_line_that_a_neighbour_reads_leaves_its_duty_with_the_llc() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    store(&mut h, &mut m, ME, X, 1);
    load(&mut h, &mut m, PEER, X);
    let view = h.inspect(X).unwrap();
    assert_eq!((view.state, view.cores, view.llc, view.dirty), (Mesi::Shared, 0b11, 1, true));
    assert_eq!(m.writes(), []);
    // And back to a core that stores: nobody else keeps a copy, nothing is written.
    store(&mut h, &mut m, PEER, X, 2);
    let view = h.inspect(X).unwrap();
    assert_eq!((view.state, view.cores, view.llc, view.dirty), (Mesi::Modified, 0b10, 0, true));
    assert_eq!(m.writes(), []);
}

#[test]
fn a_modified_line_that_another_package_reads_is_written_back_and_shared_clean() {
    for through_llc in [false, true] {
        let (mut h, mut m) = (build(&roomy()), Memory::new(false));
        store(&mut h, &mut m, ME, X, 1);
        if through_llc {
            load(&mut h, &mut m, PEER, X);
        }
        assert_eq!(load(&mut h, &mut m, FAR, X), Level::PeerRemote);
        assert_eq!(m.writes(), [Call::Write(X, fill(1), None)]);
        let view = h.inspect(X).unwrap();
        assert_eq!((view.state, view.dirty), (Mesi::Shared, false));
        assert_eq!(view.cores & 0b101, 0b101);
        let why = m.trace.events().iter().find_map(|e| match e.kind {
            EventKind::WriteBack { why, kept, .. } => Some((why, kept)),
            _ => None,
        });
        assert_eq!(why, Some((Why::Snoop, true)));
    }
}

#[test]
fn a_modified_line_that_another_package_overwrites_goes_there_without_being_written() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    store(&mut h, &mut m, ME, X, 1);
    h.store(FAR, X, &fill(2), first(8), &mut m);
    assert_eq!(m.writes(), []);
    let mut want = fill(1);
    want.merge(&fill(2), first(8));
    let view = h.inspect(X).unwrap();
    assert_eq!((view.data, view.state, view.cores), (want, Mesi::Modified, 0b100));
}

#[test]
fn a_full_llc_set_writes_its_oldest_modified_line_back_under_its_own_keyid() {
    let (mut h, mut m) = (build(&tiny()), Memory::new(false));
    // All in one set: one in L1 and L2, four in the LLC, the first has to go.
    for i in 0..6 {
        store(&mut h, &mut m, ME, at(4 + 2 * (i / 2), 33 + (i % 2) as u16), i as u8);
    }
    assert_eq!(m.writes(), [Call::Write(at(4, 33), fill(0), None)]);
    assert_eq!(h.inspect(at(4, 33)), None);
    assert_eq!(h.stats().write_backs, 1);
}

#[test]
fn a_clean_line_leaves_without_a_word_to_memory_and_an_event() {
    let (mut h, mut m) = (build(&tiny()), Memory::new(false));
    for i in 0..6 {
        load(&mut h, &mut m, ME, at(4 + 2 * i, 0));
    }
    assert_eq!(m.writes(), []);
    assert_eq!(h.stats().dropped, 1);
    let dropped = |k: EventKind| k == EventKind::Dropped { at: at(4, 0), why: Why::Capacity };
    assert_eq!(m.trace.events().iter().filter(|e| dropped(e.kind)).count(), 1);
}

#[test]
fn the_controllers_write_names_the_write_back_as_its_cause_and_that_the_operation() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    let td = at(4, 33);
    // A read of a shared line under a private KeyID bears poison; its write-back copies the poison.
    m.trace.emit_cause(EventKind::Op { agent: 0, step: 0 });
    h.store(ME, td, &fill(1), first(8), &mut m);
    m.trace.cause = sim_core::EventId::NONE;
    m.trace.emit_cause(EventKind::Op { agent: 0, step: 1 });
    let op = m.trace.cause;
    // Another line's content takes the poison out of memory first, so that the write-back has to copy it.
    m.write_full_host(4);
    h.clflush(ME, td, &mut m);
    assert_eq!(m.trace.cause, op, "the cause is restored");
    let events = m.trace.events();
    let back = events.iter().find(|e| matches!(e.kind, EventKind::WriteBack { .. })).unwrap();
    assert_eq!(back.cause, op);
    let by_it: Vec<_> = events.iter().filter(|e| e.cause == back.id).map(|e| e.kind).collect();
    assert!(matches!(
        by_it[..],
        [EventKind::PoisonCopied { .. }, EventKind::PoisonGone { dead: false, .. }]
    ));
}

impl Memory {
    fn write_full_host(&mut self, line: u64) {
        sim_core::port::LinePort::write(self, at(line, 0), &fill(0), None);
    }
}

#[test]
fn a_specification_that_does_not_fit_is_refused() {
    let with = |change: fn(&mut sim_core::platform::CpuSpec)| {
        let mut cpu = roomy();
        change(&mut cpu);
        Hierarchy::new(&cpu, POST).unwrap_err()
    };
    assert!(matches!(with(|c| c.cores = 3), SpecError::Topology { cores: 3, packages: 2 }));
    assert!(matches!(with(|c| c.packages = 0), SpecError::Topology { .. }));
    assert!(matches!(with(|c| c.l1d.ways = 0), SpecError::Geometry { cache: "cpu.l1d", .. }));
    assert!(matches!(with(|c| c.l2.ways = 17), SpecError::Geometry { cache: "cpu.l2", .. }));
    assert!(matches!(
        with(|c| c.llc = sets_ways(3, 4)),
        SpecError::Geometry { cache: "cpu.llc", .. }
    ));
    // Three lines in two ways are no whole number of sets, even if rounding down gives one.
    assert_eq!(CacheGeometry { size: 3 * 64, ways: 2 }.sets(), 1);
    assert!(matches!(
        with(|c| c.l1d = CacheGeometry { size: 3 * 64, ways: 2 }),
        SpecError::Geometry { cache: "cpu.l1d", size: 192, ways: 2 }
    ));
    assert_eq!(with(|c| c.wc_buffers = 0), SpecError::Zero("wc_buffers"));
}

#[test]
fn a_core_number_beyond_the_last_means_the_last() {
    let (mut h, mut m) = (build(&roomy()), Memory::new(false));
    load(&mut h, &mut m, 999, X);
    assert_eq!(h.mesi(3, X), Mesi::Exclusive);
}
