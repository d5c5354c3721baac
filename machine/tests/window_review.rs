//! Streams at the edges of their buffers: each test is named after what once went wrong there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test uses a part of it")]
mod common;
#[path = "common/streams.rs"]
mod streams;

use common::{Os, id, machine};
use machine::{CryptoKind, Level, Speed, StreamKind, StreamOp};
use sim_core::platform::CacheGeometry;
use sim_core::{Addr, KeyId, Ps};
use streams::{line, ops, roomy, run, run_many, span, timed};

fn op(kind: StreamKind, n: u64) -> StreamOp {
    StreamOp::new(kind, line(n))
}

/// Places in the window and in the store buffer go round; the last number before they start again once meant "nobody".
#[test]
fn the_stores_of_a_long_stream_are_all_told_when_their_lines_are_there() {
    let mut m = timed(&roomy());
    let stats = run(&mut m, "cpu0", (0..33_000).map(|n| op(StreamKind::Store, n)).collect());
    assert_eq!(stats.stores, 33_000);
}

/// Once a stream had been set aside, it forgot what it had waited for in its window.
#[test]
fn another_stream_does_not_widen_the_window() {
    let mut spec = roomy();
    spec.cpu.window = 1;
    // Loads that L2 answers, one after the other, beside a stream that touches nothing but its own L1.
    let far = |n: u64| line(n % 256 * 16);
    let loads: Vec<_> = (0..512).map(|n| StreamOp::new(StreamKind::Load, far(n))).collect();
    let busy: Vec<_> = (0..20_000)
        .map(|n| StreamOp { gap: 2, ..op(StreamKind::Load, 1_000_000 + n % 2) })
        .collect();
    let mut m = timed(&spec);
    let alone = span(&run(&mut m, "cpu0", loads.clone()));
    let mut m = timed(&spec);
    let both = run_many(&mut m, vec![("cpu0", loads), ("cpu1", busy)]);
    assert!(span(&both[0]) >= alone, "{} {alone}", span(&both[0]));
}

/// It once forgot what it had waited for in the store buffer, too.
#[test]
fn another_stream_does_not_enlarge_the_store_buffer() {
    let mut spec = roomy();
    spec.cpu.store_buffer = 1;
    spec.cpu.snoop_filter.sets = 1024;
    let warm: Vec<_> = (0..256).map(|n| StreamOp::new(StreamKind::Load, line(n * 16))).collect();
    let stores: Vec<_> = (0..256).map(|n| StreamOp::new(StreamKind::Store, line(n * 16))).collect();
    let busy: Vec<_> = (0..20_000)
        .map(|n| StreamOp { gap: 2, ..op(StreamKind::Load, 1_000_000 + n % 2) })
        .collect();
    let mut m = timed(&spec);
    run(&mut m, "cpu0", warm.clone());
    let alone = span(&run(&mut m, "cpu0", stores.clone()));
    let mut m = timed(&spec);
    run(&mut m, "cpu0", warm);
    let both = run_many(&mut m, vec![("cpu0", stores), ("cpu1", busy)]);
    assert!(span(&both[0]) >= alone, "{} {alone}", span(&both[0]));
}

/// A store to a line that L1 has and others have too was let pass as a hit with no buffer free, and its RFO took somebody
/// else's: one buffer then became free twice.
#[test]
fn a_store_to_a_shared_line_waits_for_a_buffer_for_its_rfo() {
    let mut spec = roomy();
    (spec.cpu.fill_buffers, spec.cpu.superqueue) = (1, 1);
    let mut m = timed(&spec);
    for core in ["cpu1", "cpu0"] {
        run(&mut m, core, vec![op(StreamKind::Load, 1), op(StreamKind::Load, 2)]);
    }
    let list = [(StreamKind::Load, 3), (StreamKind::Store, 1), (StreamKind::Store, 2)];
    let fence = op(StreamKind::Mfence, 0);
    let stats =
        run(&mut m, "cpu0", list.map(|(kind, n)| op(kind, n)).into_iter().chain([fence]).collect());
    // One after the other: the load's answer, then each of the RFOs that the other core answers.
    let rfo = m.idle_latency(0, line(1).tagged(), Level::PeerClean, 1);
    let least = m.unloaded_dram_read() + rfo.times(2);
    assert!(span(&stats) > least.0, "{} {least}", span(&stats));
}

/// Of two streams that would begin at the same moment, whichever was being advanced went first, so that what happened
/// depended on when the machine had looked.
#[test]
fn of_streams_that_begin_at_one_moment_the_first_goes_first() {
    let warm = || {
        let mut m = timed(&roomy());
        for (core, own) in [("cpu0", 1), ("cpu1", 2)] {
            run(&mut m, core, vec![op(StreamKind::Load, own)]);
        }
        m
    };
    let list = |own| vec![op(StreamKind::Load, own), op(StreamKind::Load, 3)];
    let stats = run_many(&mut warm(), vec![("cpu0", list(1)), ("cpu1", list(2))]);
    // The first brings the line as if it were alone, and the second asks the first for it.
    assert_eq!(stats[0].load_latency, run(&mut warm(), "cpu0", list(1)).load_latency);
    assert_ne!(stats[0].load_latency, stats[1].load_latency);
}

/// A flush that was still to come made a load miss that had been let pass as a hit, with no buffer free: the load took
/// somebody else's, whose waiters never heard of their line.
#[test]
fn a_load_behind_its_lines_flush_does_not_take_a_buffer_that_is_in_use() {
    let mut spec = roomy();
    (spec.cpu.fill_buffers, spec.cpu.superqueue) = (1, 1);
    let list = vec![
        op(StreamKind::Load, 0),
        op(StreamKind::Mfence, 0),
        // The only fill buffer, the only entry of the superqueue, and somebody who waits for that.
        op(StreamKind::NtStore, 1000),
        op(StreamKind::Prefetch, 2000),
        op(StreamKind::Clflushopt, 0),
        op(StreamKind::Load, 2000),
        op(StreamKind::Load, 0),
        op(StreamKind::Load, 3000),
        op(StreamKind::Mfence, 0),
    ];
    let mut m = timed(&spec);
    let stats = run(&mut m, "cpu0", list);
    assert_eq!((stats.operations, stats.loads), (9, 4));
    // Both waited for memory.
    assert!(stats.load_latency.0 > 4 * m.unloaded_dram_read().0, "{}", stats.load_latency);
}

/// CLWB's write-back, which a load of its line made leave, was never sent: the load itself asked nobody.
#[test]
fn what_a_load_makes_leave_reaches_dram_though_the_load_hits_l1() {
    let mut m = timed(&roomy());
    // The load comes before CLWB has become visible by itself.
    run(
        &mut m,
        "cpu0",
        vec![op(StreamKind::Store, 1), op(StreamKind::Clwb, 1), op(StreamKind::Load, 1)],
    );
    assert_eq!(m.counts().by_level[Level::L1 as usize], 1);
    assert_eq!(m.counts().controller_writes, 1);
    assert_eq!(m.dram().stats().writes, 1);
}

/// A line that L1D had dropped while it was on its way was there at once for whoever met it in L2.
#[test]
fn a_line_on_its_way_is_waited_for_in_l2_as_well() {
    let mut spec = roomy();
    spec.cpu.l1d = CacheGeometry { size: 512, ways: 2 };
    (spec.cpu.fill_buffers, spec.cpu.superqueue) = (8, 16);
    let mut m = timed(&spec);
    // Three lines of one set of L1D, the first of them twice.
    let list = [0, 4, 8, 0].map(|n| op(StreamKind::Load, n)).to_vec();
    let before = m.counts().by_level;
    let stats = run(&mut m, "cpu0", list);
    assert_eq!(m.counts().by_level[1] - before[1], 1, "the fourth met its line in L2");
    let idle = |n| m.idle_latency(0, line(n).tagged(), Level::Memory, 0) + m.unloaded_dram_read();
    // Each began a quarter of a clock after the one before.
    let least = idle(0).times(2) + idle(4) + idle(8);
    assert!(stats.load_latency + Ps::ns(4) > least, "{} {least}", stats.load_latency);
}

/// A stream's direct store became visible when its own core did something again, however late.
#[test]
fn a_direct_store_becomes_visible_in_its_time_whatever_its_core_does() {
    let mut m = timed(&roomy());
    let late = StreamOp { not_before: Ps::ns(3000), ..op(StreamKind::Load, 7) };
    let other = vec![late];
    let private = |n: u64| Addr::new(line(n).hpa, KeyId(33));
    // The store takes the line from a TD. The TD reads it, long after it should be visible.
    let mut os = Os::default();
    m.execute(id("seam0"), &sim_core::Op::Movdir64bPage { at: private(0) }, 0, &mut os);
    m.execute(id("seam0"), &sim_core::Op::Mfence, 0, &mut os);
    let begin = m.now();
    let writes = m.counts().controller_writes;
    let list = vec![op(StreamKind::DirectStore, 0)];
    let mut sources = [ops(list), ops(other)];
    m.start_streams(&[id("cpu0"), id("cpu1")]);
    let mut refs: Vec<_> = sources.iter_mut().collect();
    // One operation of each stream: the load, 3 µs late, is the last thing that happens.
    while m.advance_streams(&mut refs, 1, &mut os) {
        if m.now().since(begin) >= Ps::ns(2000) {
            break;
        }
    }
    assert_eq!(m.counts().controller_writes - writes, 1, "visible before {}", m.now());
    m.end_streams();
}

/// Reads that waited for room in a controller's queue held back direct stores as if they were such.
#[test]
fn only_writes_that_wait_for_admission_hold_direct_stores_back() {
    let mut spec = roomy();
    spec.cpu.direct_stores = 1;
    (spec.cpu.fill_buffers, spec.cpu.superqueue) = (16, 48);
    spec.dram.read_queue = 1;
    spec.dram.channels = 1;
    let mut list: Vec<_> = (0..16).map(|n| op(StreamKind::Load, n * 1024)).collect();
    list.push(op(StreamKind::DirectStore, 77_777));
    let mut m = timed(&spec);
    m.start_streams(&[id("cpu0")]);
    let mut source = ops(list);
    m.advance_streams(&mut [&mut source], 17, &mut Os::default());
    assert_eq!(m.counts().operations, 17);
    assert!(m.now() < m.unloaded_dram_read(), "{}", m.now());
    while m.advance_streams(&mut [&mut source], 17, &mut Os::default()) {}
    m.end_streams();
}

/// A store to poison went through where a program's takes a machine check (`cpu.rfo_poison_mc`).
#[test]
fn a_store_that_finds_poison_is_a_machine_check_where_the_platform_says_so() {
    let mut seen = Vec::new();
    for early in [false, true] {
        let mut spec = roomy();
        spec.cpu.rfo_poison_mc = early;
        let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
        let mut os = Os::default();
        let private = Addr::new(line(3).hpa, KeyId(33));
        for (agent, op) in [
            ("seam0", sim_core::Op::Movdir64b { dst: private, src: sim_core::op::Source::Fill(0) }),
            ("seam0", sim_core::Op::Mfence),
            ("cpu0", common::op("cpu0", "movnti [0x1000000c0] 8")),
            ("cpu0", sim_core::Op::Mfence),
        ] {
            m.execute(id(agent), &op, 0, &mut os);
        }
        let mut streams = [(id("cpu0"), ops(vec![op(StreamKind::Store, 3)]))];
        m.run_streams(&mut streams, &mut os);
        assert_eq!(m.conservation(), Vec::<String>::new());
        seen.push(os.seen.len());
    }
    assert_eq!(seen, [0, 1]);
}

/// A stream that began after the panic ran as if nothing had been.
#[test]
fn nothing_is_issued_after_a_panic() {
    let mut m = timed(&roomy());
    let mut os = Os::default();
    let private = Addr::new(line(3).hpa, KeyId(33));
    for (agent, op) in [
        ("seam0", sim_core::Op::Movdir64b { dst: private, src: sim_core::op::Source::Fill(0) }),
        ("seam0", sim_core::Op::Mfence),
        ("cpu0", common::op("cpu0", "movnti [0x1000000c0] 8")),
        ("cpu0", sim_core::Op::Mfence),
        ("cpu0", common::op("cpu0", "load [0x1000000c0] 8")),
    ] {
        m.execute(id(agent), &op, 0, &mut os);
    }
    assert!(m.is_panicked());
    assert_eq!(run(&mut m, "cpu0", vec![op(StreamKind::Load, 9)]).operations, 0);
}

/// DRAM is asked when somebody waits for it, which may be long after it has answered: a load that began later ended before
/// it had begun, and latencies added up to less than nothing.
#[test]
fn a_load_of_a_line_that_came_before_it_was_asked_for_takes_a_hit_in_l1() {
    let mut m = timed(&roomy());
    let late = StreamOp { not_before: Ps::ns(2000), ..op(StreamKind::Load, 0) };
    let stats = run(&mut m, "cpu0", vec![op(StreamKind::Store, 0), late]);
    assert_eq!(stats.load_latency, m.idle_latency(0, line(0).tagged(), Level::L1, 0));
}
