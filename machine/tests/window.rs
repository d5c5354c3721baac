//! Streams: what holds an operation of a core back, and how bandwidth comes from latency and buffers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test uses a part of it")]
mod common;
#[path = "common/streams.rs"]
mod streams;

use common::{Os, id, machine};
use machine::{CryptoKind, Level, Speed, StreamKind, StreamOp};
use sim_core::{Addr, KeyId, Ps};
use streams::{line, ops, roomy, run, run_many, span, timed};

/// Lines in an order that meets banks and channels as random ones do.
fn scattered(n: u64) -> Addr {
    line(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)
}

fn loads(n: u64, after: u8) -> Vec<StreamOp> {
    (0..n).map(|i| StreamOp { after, ..StreamOp::new(StreamKind::Load, scattered(i)) }).collect()
}

#[test]
fn a_chain_of_dependent_loads_takes_the_sum_of_its_latencies() {
    let mut m = timed(&roomy());
    let stats = run(&mut m, "cpu0", loads(200, 1));
    assert_eq!(stats.loads, 200);
    // Each begins when the one before has its data: nothing overlaps.
    let sum = stats.load_latency.0;
    let width = 200 * 500;
    assert!(span(&stats) >= sum && span(&stats) <= sum + width, "{} {sum}", span(&stats));
    let outside = m.idle_latency(0, scattered(7).tagged(), Level::Memory, 0).0;
    let mean = sum / 200;
    assert!(mean > outside / 2 + m.unloaded_dram_read().0, "{mean}");
    assert!(mean < outside * 2 + 2 * m.unloaded_dram_read().0, "{mean}");
}

#[test]
fn independent_loads_overlap_as_far_as_there_are_fill_buffers() {
    let mut times = Vec::new();
    for buffers in [1, 2, 4, 8, 16] {
        let mut spec = roomy();
        spec.cpu.fill_buffers = buffers;
        spec.cpu.superqueue = 48;
        let mut m = timed(&spec);
        times.push(span(&run(&mut m, "cpu0", loads(2000, 0))));
    }
    for pair in times.windows(2) {
        let ratio = pair[0] * 100 / pair[1];
        assert!((150..=210).contains(&ratio), "{times:?}");
    }
    let mut m = timed(&roomy());
    let chain = span(&run(&mut m, "cpu0", loads(2000, 1)));
    assert!(chain.abs_diff(times[0]) < chain / 50, "one buffer is a chain: {chain} {times:?}");
}

#[test]
fn a_stream_of_stores_that_miss_goes_on_beyond_every_number_that_wraps() {
    let mut m = timed(&roomy());
    let n = (1 << 16) + 100;
    let stats = run(
        &mut m,
        "cpu0",
        (0..n).map(|i| StreamOp::new(StreamKind::Store, scattered(i))).collect(),
    );
    assert_eq!((stats.operations, stats.stores), (n, n));
}

#[test]
fn the_superqueue_limits_what_the_fill_buffers_do_not() {
    let prefetches = |n: u64| -> Vec<StreamOp> {
        (0..n).map(|i| StreamOp::new(StreamKind::Prefetch, scattered(i))).collect()
    };
    let mut times = Vec::new();
    for superqueue in [4, 8, 16] {
        let mut spec = roomy();
        spec.cpu.fill_buffers = 2;
        spec.cpu.superqueue = superqueue;
        let mut m = timed(&spec);
        let stats = run(&mut m, "cpu0", prefetches(2000));
        assert_eq!(stats.prefetches, 2000);
        times.push(span(&stats));
    }
    for pair in times.windows(2) {
        let ratio = pair[0] * 100 / pair[1];
        assert!((150..=210).contains(&ratio), "{times:?}");
    }
}

#[test]
fn the_window_limits_how_far_ahead_a_load_begins() {
    // Behind a miss come 63 instructions that touch nothing, then the next miss.
    let list = |gap: u32| -> Vec<StreamOp> {
        (0..500)
            .map(|i| StreamOp { gap, ..StreamOp::new(StreamKind::Load, scattered(i)) })
            .collect()
    };
    let mut spec = roomy();
    spec.cpu.fill_buffers = 16;
    spec.cpu.superqueue = 48;
    spec.cpu.window = 256;
    let wide = span(&run(&mut timed(&spec), "cpu0", list(63)));
    spec.cpu.window = 64;
    let narrow = span(&run(&mut timed(&spec), "cpu0", list(63)));
    // Four misses in flight, or one.
    let ratio = narrow * 100 / wide;
    assert!((300..=420).contains(&ratio), "{narrow} {wide}");
}

#[test]
fn a_second_load_of_a_line_on_its_way_waits_for_it_and_asks_nobody() {
    let mut m = timed(&roomy());
    let pair = vec![
        StreamOp::new(StreamKind::Load, line(0)),
        StreamOp::new(StreamKind::Load, line(0)),
        StreamOp::new(StreamKind::Store, line(0)),
    ];
    let stats = run(&mut m, "cpu0", pair);
    assert_eq!(m.counts().controller_reads, 1);
    // Both waited for the same answer.
    let least = 2 * m.unloaded_dram_read().0;
    assert!(stats.load_latency.0 > least, "{} {least}", stats.load_latency.0);
    let warm = run(&mut m, "cpu0", vec![StreamOp::new(StreamKind::Load, line(0))]);
    assert_eq!(warm.load_latency, m.idle_latency(0, line(0).tagged(), Level::L1, 0));
}

#[test]
fn a_load_of_a_prefetched_line_waits_for_the_prefetch() {
    let mut m = timed(&roomy());
    let list = vec![
        StreamOp::new(StreamKind::Prefetch, line(0)),
        StreamOp::new(StreamKind::Load, line(0)),
    ];
    let stats = run(&mut m, "cpu0", list);
    assert_eq!(m.counts().controller_reads, 1);
    assert!(stats.load_latency > m.unloaded_dram_read());
}

#[test]
fn stores_retire_at_once_until_the_store_buffer_is_full() {
    let stores = |n: u64| -> Vec<StreamOp> {
        (0..n).map(|i| StreamOp::new(StreamKind::Store, scattered(i))).collect()
    };
    let mut spec = roomy();
    spec.cpu.fill_buffers = 16;
    spec.cpu.superqueue = 48;
    let mut times = Vec::new();
    for buffer in [1, 2, 4] {
        spec.cpu.store_buffer = buffer;
        let mut m = timed(&spec);
        times.push(span(&run(&mut m, "cpu0", stores(1000))));
    }
    for pair in times.windows(2) {
        let ratio = pair[0] * 100 / pair[1];
        assert!((150..=210).contains(&ratio), "{times:?}");
    }
}

#[test]
fn direct_stores_overlap_as_far_as_there_are_places_and_a_fence_waits_for_them() {
    let direct = |n: u64, fence: bool| -> Vec<StreamOp> {
        let stores = (0..n).map(|i| StreamOp::new(StreamKind::DirectStore, line(i)));
        let fences = fence.then(|| StreamOp::new(StreamKind::Mfence, line(0)));
        stores.chain(fences).collect()
    };
    let mut times = Vec::new();
    for places in [1, 2, 4] {
        let mut spec = roomy();
        spec.cpu.direct_stores = places;
        let mut m = timed(&spec);
        let stats = run(&mut m, "cpu0", direct(640, true));
        assert_eq!(m.counts().controller_writes, 640);
        times.push(span(&stats));
    }
    for pair in times.windows(2) {
        let ratio = pair[0] * 100 / pair[1];
        assert!((190..=205).contains(&ratio), "{times:?}");
    }
    // A place is occupied for less time when the home agent knows the line.
    let mut m = timed(&roomy());
    let cold = span(&run(&mut m, "cpu0", direct(64, false)));
    let warm = span(&run(&mut m, "cpu0", direct(64, false)));
    assert!(warm * 2 < cold, "{warm} {cold}");
}

#[test]
fn the_same_page_clear_costs_the_same_in_a_program_and_in_a_stream() {
    let mut m = timed(&roomy());
    let mut os = Os::default();
    let page = sim_core::Op::Movdir64bPage { at: line(0) };
    let begin = m.now();
    m.execute(id("cpu0"), &page, 0, &mut os);
    m.execute(id("cpu0"), &sim_core::Op::Mfence, 0, &mut os);
    let program = m.now().since(begin).0;
    let mut m = timed(&roomy());
    let mut list: Vec<_> =
        (0..64).map(|i| StreamOp::new(StreamKind::DirectStore, line(i))).collect();
    list.push(StreamOp::new(StreamKind::Mfence, line(0)));
    let stream = span(&run(&mut m, "cpu0", list));
    assert!(program.abs_diff(stream) < program / 20, "{program} {stream}");
}

#[test]
fn two_cores_share_the_controllers_and_end_as_each_alone_would_in_memory() {
    let own = |base: u64| -> Vec<StreamOp> {
        (0..500)
            .map(|i| {
                let kind = if i % 3 == 0 { StreamKind::Store } else { StreamKind::Load };
                StreamOp::new(kind, scattered(base + i))
            })
            .collect()
    };
    let mut m = timed(&roomy());
    let both = run_many(&mut m, vec![("cpu0", own(0)), ("cpu1", own(100_000))]);
    let mut n = timed(&roomy());
    let first = run(&mut n, "cpu0", own(0));
    // Side by side: neither waits for the other to end, and neither is faster than alone.
    assert!(span(&both[0]) >= span(&first));
    assert!(span(&both[0]) < 2 * span(&first));
    assert!(both[0].begin == both[1].begin);
}

#[test]
fn a_stream_is_the_same_whether_every_edge_is_looked_at_or_not() {
    let list = || -> Vec<StreamOp> {
        (0..2000u64)
            .map(|i| {
                let kind = match i % 7 {
                    0 => StreamKind::Store,
                    1 => StreamKind::DirectStore,
                    2 => StreamKind::Prefetch,
                    3 => StreamKind::NtStore,
                    _ => StreamKind::Load,
                };
                StreamOp {
                    after: (i % 3 == 0).into(),
                    ..StreamOp::new(kind, scattered(i * i % 4096))
                }
            })
            .collect()
    };
    let lists = || vec![("cpu0", list()), ("cpu1", list()), ("td2", list())];
    let mut skipping = timed(&roomy());
    let mut looking = timed(&roomy());
    looking.look_at_every_edge(true);
    let (a, b) = (run_many(&mut skipping, lists()), run_many(&mut looking, lists()));
    assert_eq!(a, b);
    assert_eq!(skipping.counts(), looking.counts());
    assert_eq!(skipping.dram().stats(), looking.dram().stats());
}

#[test]
fn a_load_of_poison_in_a_stream_ends_it_with_a_machine_check() {
    let mut m = machine(&roomy(), Speed::Timed, CryptoKind::Symbolic);
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
    let list: Vec<_> = (0..2000).map(|i| StreamOp::new(StreamKind::Load, line(i))).collect();
    let mut streams = [(id("cpu0"), ops(list))];
    let stats = m.run_streams(&mut streams, &mut os);
    assert_eq!(os.seen.len(), 1);
    assert!(m.is_panicked());
    // Loads that had begun before the poison retired are done, later ones are not.
    assert!((4..600).contains(&stats[0].operations), "{}", stats[0].operations);
}

#[test]
fn a_private_keyid_is_refused_to_a_host_stream_and_not_to_its_td() {
    let private = |n: u64| Addr::new(line(n).hpa, KeyId(33));
    let list =
        || -> Vec<_> { (0..64).map(|i| StreamOp::new(StreamKind::Load, private(i))).collect() };
    let mut m = timed(&roomy());
    let host = run(&mut m, "cpu0", list());
    assert_eq!((host.refused, m.counts().accesses), (64, 0));
    let mut os = Os::default();
    m.execute(id("seam0"), &sim_core::Op::Movdir64bPage { at: private(0) }, 0, &mut os);
    m.execute(id("seam0"), &sim_core::Op::Mfence, 0, &mut os);
    let td = run(&mut m, "td2", list());
    assert_eq!((td.refused, m.counts().accesses), (0, 64));
}

#[test]
fn without_time_every_operation_of_a_stream_costs_the_same() {
    let mut m = machine(&roomy(), Speed::Functional, CryptoKind::Symbolic);
    let stats = run(&mut m, "cpu0", loads(100, 1));
    assert_eq!(span(&stats), 100 * m.spec().functional.op.0);
    assert_eq!(m.dram().stats().reads, 0);
}

#[test]
fn an_operation_begins_no_earlier_than_it_says() {
    let mut m = timed(&roomy());
    let late = Ps::ns(5000);
    let op = StreamOp { not_before: late, ..StreamOp::new(StreamKind::Load, line(0)) };
    let stats = run(&mut m, "cpu0", vec![op]);
    assert!(stats.end > late + m.unloaded_dram_read());
}
