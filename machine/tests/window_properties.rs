//! Properties of streams over random operations and random, mostly tiny, buffers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test uses a part of it")]
mod common;

use common::{Os, id, machine, platform};
use machine::{AgentId, CryptoKind, Machine, Source, Speed, StreamKind, StreamOp, StreamStats};
use proptest::prelude::*;
use sim_core::op::{MemType, Value};
use sim_core::platform::{PagePolicy, PlatformSpec, RefreshMode};
use sim_core::{Addr, Hpa, KeyId, LINE_BYTES, Op, Outcome, Ps, Tagged};
use std::collections::BTreeMap;

/// A TD's HKID, that of `td2`.
const HKID: u16 = 33;
/// Lines that operations are made on.
const LINES: u64 = 24;

const KINDS: [StreamKind; 10] = [
    StreamKind::Load,
    StreamKind::Fetch,
    StreamKind::Store,
    StreamKind::Prefetch,
    StreamKind::DirectStore,
    StreamKind::NtStore,
    StreamKind::Clflushopt,
    StreamKind::Clwb,
    StreamKind::Mfence,
    StreamKind::Sfence,
];

/// Few lines, some in one set of every cache, in both subchannels.
fn line(n: u64) -> Hpa {
    Hpa(0x1_0000_0000 + (n % 12) * 64 + (n / 12) * 0x1_0000)
}

fn any_op() -> impl Strategy<Value = StreamOp> {
    let place = (0..LINES, 0..64u64, prop_oneof![4 => Just(0u16), 2 => Just(1), 2 => Just(HKID)]);
    let kind = prop::sample::select(KINDS.to_vec());
    let when = (prop_oneof![3 => Just(0u8), 1 => 1..=4u8, 1 => Just(255)], 0..20u32);
    let late = (
        prop_oneof![9 => Just(0u64), 1 => 0..2_000_000u64],
        prop_oneof![9 => Just(0u64), 1 => 0..200_000u64],
    );
    (kind, place, 1..=64u32, when, late).prop_map(
        |(kind, (n, offset, keyid), bytes, (after, gap), (not_before, delay))| {
            // Programs refuse a direct store that is not aligned; streams know lines.
            let cached = matches!(kind, StreamKind::Load | StreamKind::Store);
            let offset = if cached { offset } else { 0 };
            let at = Addr::new(Hpa(line(n).0 + offset), KeyId(keyid));
            let (not_before, delay) = (Ps(not_before), Ps(delay));
            StreamOp { kind, at, bytes, after, gap, not_before, delay }
        },
    )
}

fn any_list(most: usize) -> impl Strategy<Value = Vec<StreamOp>> {
    prop::collection::vec(any_op(), 1..most)
}

/// Nearly all loads and stores, of few lines for a while: most hit.
fn any_mostly_cached(most: usize) -> impl Strategy<Value = Vec<StreamOp>> {
    let kind = prop_oneof![8 => Just(Some(StreamKind::Load)), 8 => Just(Some(StreamKind::Store)), 1 => Just(None)];
    (prop::collection::vec((any_op(), kind), 1..most), 1..=3u64, 8..60usize).prop_map(
        |(mut ops, few, while_)| {
            for (i, (op, kind)) in ops.iter_mut().enumerate() {
                op.kind = kind.unwrap_or(op.kind);
                if kind.is_some() {
                    // Close to one another, so that buffers fill.
                    op.gap /= 8;
                    let first = (i / while_) as u64 * 5 % LINES;
                    let n = (first + op.at.hpa.0 / 64 % few) % LINES;
                    op.at.hpa = Hpa(line(n).0 + op.at.hpa.0 % 64);
                }
            }
            ops.into_iter().map(|(op, _)| op).collect()
        },
    )
}

/// Buffers, caches and queues from the smallest that exist.
fn any_platform() -> impl Strategy<Value = PlatformSpec> {
    let small = |most: u8| prop_oneof![3 => 1..=2u8, 1 => 1..=most];
    let core =
        (small(16), small(48), prop_oneof![3 => 1..=3u16, 1 => 1..=600u16], small(64), small(16));
    let caches =
        (1..=8u8, 1..=2u8, any::<bool>(), any::<bool>(), prop_oneof![Just(0u64), Just(40)]);
    let dram = (1..=4u16, prop_oneof![Just(2u16), Just(8)], 0..3usize, 0..3usize, any::<bool>());
    (core, caches, dram, 1..=2u8).prop_map(|(core, caches, dram, packages)| {
        let mut spec = platform();
        let cpu = &mut spec.cpu;
        (cpu.fill_buffers, cpu.superqueue, cpu.window, cpu.store_buffer, cpu.direct_stores) = core;
        cpu.packages = packages;
        (cpu.weak_slots, cpu.wc_buffers) = (caches.0, caches.1);
        (cpu.fast_string_no_rfo, cpu.rfo_poison_mc) = (caches.2, caches.3);
        cpu.wc_age = Ps::ns(caches.4);
        spec.dram.read_queue = dram.0;
        spec.dram.write_queue = dram.1;
        (spec.dram.write_high, spec.dram.write_low) = if dram.1 == 2 { (1, 0) } else { (6, 2) };
        spec.dram.refresh = [RefreshMode::Off, RefreshMode::AllBank, RefreshMode::SameBank][dram.2];
        spec.dram.page_policy =
            [PagePolicy::Open, PagePolicy::Closed, PagePolicy::Adaptive][dram.3];
        spec.dram.channels = if dram.4 { 1 } else { 2 };
        spec
    })
}

fn timed(spec: &PlatformSpec) -> Machine {
    let mut m = machine(spec, Speed::Timed, CryptoKind::Symbolic);
    m.set_log(false);
    m
}

/// A source that can be copied and begun in the middle.
#[derive(Clone)]
struct List {
    ops: Vec<StreamOp>,
    next: usize,
}

impl Source for List {
    fn next(&mut self) -> Option<StreamOp> {
        let op = self.ops.get(self.next).copied();
        self.next += 1;
        op
    }
}

fn sources(lists: &[(AgentId, Vec<StreamOp>)]) -> Vec<List> {
    lists.iter().map(|(_, ops)| List { ops: ops.clone(), next: 0 }).collect()
}

/// Runs streams by steps of so many operations, and gives up when nothing comes to an end.
fn run(
    m: &mut Machine,
    lists: &[(AgentId, Vec<StreamOp>)],
    chunk: u64,
    os: &mut Os,
) -> Vec<StreamStats> {
    let agents: Vec<_> = lists.iter().map(|(agent, _)| *agent).collect();
    let mut lists = sources(lists);
    m.start_streams(&agents);
    advance(m, &mut lists, chunk, os)
}

fn advance(m: &mut Machine, lists: &mut [List], chunk: u64, os: &mut Os) -> Vec<StreamStats> {
    advance_watched(m, lists, chunk, os, &mut |_| ())
}

/// As [`advance`]; `watch` sees the machine after every step.
fn advance_watched(
    m: &mut Machine,
    lists: &mut [List],
    chunk: u64,
    os: &mut Os,
    watch: &mut dyn FnMut(&Machine),
) -> Vec<StreamStats> {
    let mut refs: Vec<_> = lists.iter_mut().collect();
    let most: usize = refs.iter().map(|l| l.ops.len() + 2).sum();
    let mut steps = 0;
    while m.advance_streams(&mut refs, chunk, os) {
        steps += 1;
        watch(m);
        assert!(steps <= most, "each step but the last issues an operation");
    }
    let stats = m.end_streams();
    assert_eq!(m.conservation(), Vec::<String>::new());
    stats
}

/// One to four streams on cores of their own.
fn any_lists(most: usize) -> impl Strategy<Value = Vec<(AgentId, Vec<StreamOp>)>> {
    any_lists_of(any_list, most)
}

fn any_lists_of<L: Strategy<Value = Vec<StreamOp>>>(
    any_list: fn(usize) -> L,
    most: usize,
) -> impl Strategy<Value = Vec<(AgentId, Vec<StreamOp>)>> {
    let agents = vec!["cpu0", "cpu1", "td2", "cpu3"];
    (prop::sample::subsequence(agents, 1..=4), prop::collection::vec(any_list(most), 4))
        .prop_map(|(agents, lists)| agents.into_iter().map(id).zip(lists).collect())
}

/// The operation of a program that does what a stream's does.
fn in_a_program(op: &StreamOp) -> Op {
    let at = op.at;
    let offset = at.hpa.offset_in_line();
    let bytes = op.bytes.min((LINE_BYTES - offset) as u32);
    let zero = Value::Fill(0);
    match op.kind {
        StreamKind::Load => Op::Load { at, bytes, ty: MemType::Wb },
        StreamKind::Fetch => Op::Fetch { at },
        StreamKind::Store => Op::Store { at, bytes, value: zero, ty: MemType::Wb },
        StreamKind::Prefetch => Op::Prefetch { at },
        StreamKind::DirectStore => Op::Movdir64b { dst: at, src: sim_core::op::Source::Fill(0) },
        StreamKind::NtStore => Op::NtStore { at, bytes: 64, value: zero },
        StreamKind::Clflushopt => Op::Clflushopt { at },
        StreamKind::Clwb => Op::Clwb { at },
        StreamKind::Mfence => Op::Mfence,
        StreamKind::Sfence => Op::Sfence,
    }
}

/// What there is of each line under each KeyID: the cached copy (bytes, poison, dirty, state, holders) and, in memory,
/// poison, TD bit and what a read brings.
fn contents(m: &Machine) -> BTreeMap<Tagged, String> {
    let mut all = BTreeMap::new();
    for n in 0..LINES {
        let hpa = line(n);
        for keyid in [0, 1, HKID] {
            let at = Addr::new(hpa, KeyId(keyid)).tagged();
            let memory = m.memory().line(hpa.line());
            all.insert(at, format!("{:?} {memory:?}", m.caches().inspect(at)));
        }
    }
    all
}

/// A machine whose TD's pages are accepted, and lines of which the host has made poison.
fn prepared(spec: &PlatformSpec, speed: Speed, poisoned: &[u64]) -> Machine {
    let mut m = machine(spec, speed, CryptoKind::Symbolic);
    let mut os = Os::default();
    // A third of the lines is the TD's, a third holds what it held at power-on.
    for n in (0..LINES).filter(|n| n % 3 != 1) {
        let at = Addr::new(line(n), KeyId(if n % 3 == 0 { HKID } else { 0 }));
        let clear = Op::Movdir64b { dst: at, src: sim_core::op::Source::Fill(0) };
        m.execute(id("seam0"), &clear, 0, &mut os);
        m.execute(id("seam0"), &Op::Mfence, 0, &mut os);
    }
    for n in poisoned {
        let at = Addr::new(line(n * 3), KeyId::TME);
        m.execute(id("cpu0"), &Op::NtStore { at, bytes: 8, value: Value::Fill(1) }, 0, &mut os);
        m.execute(id("cpu0"), &Op::Mfence, 0, &mut os);
    }
    m.settle();
    m
}

/// Where the operations of a stream become visible, a fence tells: behind each there is one, so that a program, which
/// takes longer, leaves nothing to time. Without them see the test below.
fn fenced(list: &[StreamOp]) -> Vec<StreamOp> {
    let fence = StreamOp::new(StreamKind::Mfence, Addr::new(line(0), KeyId::TME));
    let weak = |op: &StreamOp| {
        matches!(op.kind, StreamKind::DirectStore | StreamKind::Clflushopt | StreamKind::Clwb)
    };
    list.iter().flat_map(|op| if weak(op) { vec![*op, fence] } else { vec![*op] }).collect()
}

/// Runs a list as a stream, and as a program; what each leaves.
fn both_ways(
    spec: &PlatformSpec,
    agent: &str,
    list: &[StreamOp],
    poisoned: &[u64],
) -> (Machine, Os, Machine, Os) {
    let (mut os, mut program_os) = (Os::default(), Os::default());
    let mut stream = prepared(spec, Speed::Timed, poisoned);
    let mut program = stream.clone();
    let operations = program.counts().operations;
    run(&mut stream, &[(id(agent), list.to_vec())], u64::MAX, &mut os);
    for op in list {
        let record = program.execute(id(agent), &in_a_program(op), 0, &mut program_os);
        if matches!(record.outcome, Outcome::NotRun(_)) {
            break;
        }
    }
    program.settle();
    assert!(program.counts().operations >= operations);
    (stream, os, program, program_os)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    /// One core's stream leaves what the same operations leave as a program: bytes, poison, owner, dirtiness and state of every
    /// line under every KeyID, in caches and memory, the same machine checks, and the same number of accesses by level and of
    /// requests at the controllers. A fence stands behind each weakly ordered operation, because when those become visible is
    /// what time decides.
    #[test]
    fn a_stream_leaves_what_its_operations_leave_as_a_program(
        spec in any_platform(),
        agent in prop::sample::select(vec!["cpu0", "user0", "seam0", "td2"]),
        list in any_list(120),
        poisoned in prop::collection::vec(0..LINES / 3, 0..2),
    ) {
        let list = fenced(&list);
        let (stream, os, program, program_os) = both_ways(&spec, agent, &list, &poisoned);
        prop_assert_eq!(os.seen.len(), program_os.seen.len());
        for (a, b) in os.seen.iter().zip(&program_os.seen) {
            prop_assert_eq!((a.at, a.access, a.context), (b.at, b.access, b.context));
        }
        for (a, b) in contents(&stream).iter().zip(&contents(&program)) {
            prop_assert_eq!(a, b);
        }
        let (a, b) = (stream.counts(), program.counts());
        prop_assert_eq!((a.accesses, a.by_level), (b.accesses, b.by_level));
        prop_assert_eq!(
            (a.controller_reads, a.controller_writes, a.controller_partial_writes, a.machine_checks),
            (b.controller_reads, b.controller_writes, b.controller_partial_writes, b.machine_checks)
        );
    }

    /// Without fences, what is cached may differ (a flush that becomes visible later takes a line later), but not what a line is:
    /// its bytes, owner and poison, once everything has been written back.
    #[test]
    fn weakly_ordered_operations_change_where_lines_are_and_not_what_they_are(
        spec in any_platform(),
        list in any_list(120),
    ) {
        // Two KeyIDs of one line are two copies, whose order of writing back time decides.
        let list: Vec<_> = list
            .iter()
            .map(|op| StreamOp { at: Addr::new(op.at.hpa, KeyId::TME), ..*op })
            .collect();
        let (mut stream, mut os, mut program, mut program_os) = both_ways(&spec, "cpu0", &list, &[]);
        for (m, os) in [(&mut stream, &mut os), (&mut program, &mut program_os)] {
            for n in 0..LINES {
                let at = Addr::new(line(n), KeyId::TME);
                m.execute(id("cpu0"), &Op::Clflush { at }, 0, os);
            }
            m.execute(id("cpu0"), &Op::Mfence, 0, os);
        }
        prop_assert!(os.seen.is_empty() && program_os.seen.is_empty());
        for (a, b) in contents(&stream).iter().zip(&contents(&program)) {
            prop_assert_eq!(a, b);
        }
    }

    /// Every stream comes to its end, whatever its buffers and queues are, and every count adds up.
    #[test]
    fn streams_end_and_counts_add_up(spec in any_platform(), lists in any_lists(150), chunk in 1..40u64) {
        let mut m = timed(&spec);
        let stats = run(&mut m, &lists, chunk, &mut Os::default());
        // What reaches the controllers reaches DRAM.
        let (counts, dram) = (m.counts(), m.dram().stats());
        prop_assert_eq!(counts.controller_reads, dram.reads);
        prop_assert_eq!(counts.controller_writes, dram.writes);
        prop_assert_eq!(counts.controller_partial_writes, dram.partial_writes);
        for (stats, (_, list)) in stats.iter().zip(&lists) {
            // Only a machine check ends a stream early.
            let all = list.len() as u64;
            prop_assert!(stats.operations == all || stats.operations < all && m.counts().machine_checks > 0);
            prop_assert!(stats.begin <= stats.end);
            prop_assert!(stats.loads + stats.stores + stats.prefetches + stats.refused <= stats.operations);
            // No latency is negative, none longer than the stream.
            let longest = stats.end.since(stats.begin).0 * stats.loads;
            prop_assert!(stats.load_latency.0 <= longest, "{:?}", stats);
        }
    }

    /// Neither the steps in which streams are advanced nor looking at every edge of DRAM's clock changes anything.
    #[test]
    fn looking_more_often_changes_nothing(spec in any_platform(), lists in any_lists(80), chunk in 1..40u64) {
        let (mut at_once, mut by_steps, mut looking) = (timed(&spec), timed(&spec), timed(&spec));
        looking.look_at_every_edge(true);
        let a = run(&mut at_once, &lists, u64::MAX, &mut Os::default());
        let b = run(&mut by_steps, &lists, chunk, &mut Os::default());
        let c = run(&mut looking, &lists, u64::MAX, &mut Os::default());
        prop_assert_eq!(&a, &b, "by steps of {}", chunk);
        prop_assert!(at_once == by_steps, "the machine after steps of {}", chunk);
        prop_assert_eq!(&a, &c, "every edge");
        prop_assert_eq!(at_once.counts(), looking.counts());
        prop_assert_eq!(at_once.dram().stats(), looking.dram().stats());
        prop_assert_eq!(at_once.now(), looking.now());
        prop_assert_eq!(contents(&at_once), contents(&looking));
    }

    /// A stream whose accesses hit one after the other is issued in runs if nobody writes a log; what it does and when is the
    /// same. The memory has poison, lines of the TD, and lines that other cores hold.
    #[test]
    fn a_log_changes_nothing(
        spec in any_platform(), lists in any_lists_of(any_mostly_cached, 200), chunk in 1..40u64,
        poisoned in prop::collection::vec(0..LINES / 3, 0..3), functional in prop::bool::weighted(0.2),
    ) {
        let speed = if functional { Speed::Functional } else { Speed::Timed };
        let (mut quiet, mut logged) =
            (prepared(&spec, speed, &poisoned), prepared(&spec, speed, &poisoned));
        quiet.set_log(false);
        logged.set_log(true);
        let mut a = Vec::new();
        let agents: Vec<_> = lists.iter().map(|(agent, _)| *agent).collect();
        for m in [&mut quiet, &mut logged] {
            let (mut lists, mut os) = (sources(&lists), Os::default());
            let mut seen = Vec::new();
            m.start_streams(&agents);
            let watch = &mut |m: &Machine| seen.push((m.now(), m.counts().operations));
            let stats = advance_watched(m, &mut lists, chunk, &mut os, watch);
            a.push((stats, seen));
        }
        prop_assert_eq!(&a[0], &a[1]);
        prop_assert_eq!(quiet.counts(), logged.counts());
        prop_assert_eq!(quiet.caches().stats(), logged.caches().stats());
        prop_assert_eq!(quiet.dram().stats(), logged.dram().stats());
        prop_assert_eq!(quiet.now(), logged.now());
        prop_assert_eq!(contents(&quiet), contents(&logged));
        prop_assert!(quiet.caches() == logged.caches());
    }

    /// A machine saved and restored between any two steps goes on as if nothing had been, and two runs are the same.
    #[test]
    fn a_machine_restored_in_the_middle_of_its_streams_goes_on_the_same(
        spec in any_platform(),
        lists in any_lists(80),
        chunk in 1..20u64,
        steps in 0..12u32,
    ) {
        let mut whole = timed(&spec);
        let stats = run(&mut whole, &lists, chunk, &mut Os::default());
        let agents: Vec<_> = lists.iter().map(|(agent, _)| *agent).collect();
        let mut m = timed(&spec);
        let mut rest = sources(&lists);
        m.start_streams(&agents);
        for _ in 0..steps {
            let mut refs: Vec<_> = rest.iter_mut().collect();
            if !m.advance_streams(&mut refs, chunk, &mut Os::default()) {
                break;
            }
        }
        let bytes = postcard::to_allocvec(&m).unwrap();
        let mut restored: Machine = postcard::from_bytes(&bytes).unwrap();
        prop_assert!(restored == m);
        let again = advance(&mut restored, &mut rest, chunk, &mut Os::default());
        prop_assert_eq!(stats, again);
        prop_assert!(restored == whole);
    }
}

/// More buffers, or a longer window, never make a stream slower by more than what another order of requests in DRAM may cost:
/// a row conflict (tRP + tRCD) now and then, 5 % in all.
#[test]
fn more_buffers_never_make_a_stream_slower() {
    fn span(spec: &PlatformSpec, kind: StreamKind, pattern: u64, after: u8) -> u64 {
        let mut m = timed(spec);
        let list: Vec<_> = (0..600u64)
            .map(|n| {
                let n = if pattern == 0 { n } else { n.wrapping_mul(pattern) >> 44 };
                let at = Addr::new(Hpa(0x1_0000_0000 + n * 64), KeyId::TME);
                StreamOp { after, ..StreamOp::new(kind, at) }
            })
            .collect();
        let stats = run(&mut m, &[(id("cpu0"), list)], u64::MAX, &mut Os::default());
        stats[0].end.since(stats[0].begin).0
    }
    type Set = fn(&mut PlatformSpec, u8);
    let sets: [(&str, Set); 5] = [
        ("fill_buffers", |spec, n| spec.cpu.fill_buffers = n),
        ("superqueue", |spec, n| spec.cpu.superqueue = n),
        ("window", |spec, n| spec.cpu.window = n.into()),
        ("store_buffer", |spec, n| spec.cpu.store_buffer = n),
        ("direct_stores", |spec, n| spec.cpu.direct_stores = n),
    ];
    for kind in [StreamKind::Load, StreamKind::Store, StreamKind::NtStore, StreamKind::DirectStore]
    {
        for pattern in [0, 0x9e37_79b9_7f4a_7c15, 0xd129_8e4f_03ab_12c3] {
            for after in [0, 3] {
                for (name, set) in sets {
                    let mut times = Vec::new();
                    for n in [1, 2, 4, 8, 16, 32] {
                        let mut spec = platform();
                        (spec.cpu.fill_buffers, spec.cpu.superqueue) = (16, 48);
                        (spec.cpu.window, spec.cpu.store_buffer) = (512, 64);
                        (spec.dram.read_queue, spec.cpu.packages) = (32, 1);
                        set(&mut spec, n);
                        times.push(span(&spec, kind, pattern, after));
                    }
                    for pair in times.windows(2) {
                        let most = pair[0] + pair[0] / 20;
                        assert!(pair[1] <= most, "{kind:?} {pattern:x} {after} {name} {times:?}");
                    }
                }
            }
        }
    }
}
