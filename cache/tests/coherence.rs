//! Random operations on tiny caches against a flat reference: one value per (line, KeyID), whoever holds it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

mod common;

use cache::{FenceKind, Hierarchy};
use common::*;
use proptest::prelude::*;
use sim_core::event::WeakKind;
use sim_core::platform::SnoopFilterGeometry;
use sim_core::port::Fill;
use sim_core::{BirthId, ByteMask, EventId, EventKind, LineData, Ps, Tagged};
use std::collections::BTreeMap;

const KEYS: [u16; 3] = [0, 33, 34];
const CORES: u16 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(u16, Tagged),
    Prefetch(u16, Tagged),
    Store(u16, Tagged, ByteMask),
    FastString(u16, Tagged),
    Wc(u16, Tagged, ByteMask),
    UcLoad(u16, Tagged),
    UcStore(u16, Tagged, ByteMask),
    Movdir64b(u16, Tagged),
    Movdiri(u16, Tagged, ByteMask),
    Clflush(u16, Tagged),
    Clflushopt(u16, Tagged),
    Clwb(u16, Tagged),
    Fence(u16, FenceKind),
    Interrupt(u16),
    Due(u16),
    FlushPackage { package: u8, block: Option<u32>, invalidates: bool },
    DmaRead(Tagged),
    DmaWrite(Tagged, ByteMask),
    Evict(Tagged),
    WcEvict(u16),
}

/// A line of the same set as the others (`far` false) or of the next.
fn tags() -> impl Strategy<Value = Tagged> {
    (0u64..2, 0usize..3).prop_map(|(line, key)| at(4 + line, KEYS[key]))
}

fn masks() -> impl Strategy<Value = ByteMask> {
    prop_oneof![
        Just(ByteMask::FULL),
        (0usize..8).prop_map(|i| ByteMask::span(8 * i, 8)),
        (0usize..2).prop_map(|i| ByteMask::span(32 * i, 32))
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let core = 0..CORES;
    let kinds = prop_oneof![
        Just(FenceKind::Mfence),
        Just(FenceKind::Sfence),
        Just(FenceKind::Lfence),
        Just(FenceKind::Locked)
    ];
    prop_oneof![
        8 => (core.clone(), tags()).prop_map(|(c, t)| Step::Load(c, t)),
        2 => (core.clone(), tags()).prop_map(|(c, t)| Step::Prefetch(c, t)),
        8 => (core.clone(), tags(), masks()).prop_map(|(c, t, m)| Step::Store(c, t, m)),
        2 => (core.clone(), tags()).prop_map(|(c, t)| Step::FastString(c, t)),
        6 => (core.clone(), tags(), masks()).prop_map(|(c, t, m)| Step::Wc(c, t, m)),
        1 => (core.clone(), tags()).prop_map(|(c, t)| Step::UcLoad(c, t)),
        1 => (core.clone(), tags(), masks()).prop_map(|(c, t, m)| Step::UcStore(c, t, m)),
        3 => (core.clone(), tags()).prop_map(|(c, t)| Step::Movdir64b(c, t)),
        2 => (core.clone(), tags(), 0usize..16)
            .prop_map(|(c, t, i)| Step::Movdiri(c, t, ByteMask::span(4 * i, 4))),
        1 => (core.clone(), tags()).prop_map(|(c, t)| Step::Clflush(c, t)),
        2 => (core.clone(), tags()).prop_map(|(c, t)| Step::Clflushopt(c, t)),
        2 => (core.clone(), tags()).prop_map(|(c, t)| Step::Clwb(c, t)),
        2 => (core.clone(), kinds).prop_map(|(c, k)| Step::Fence(c, k)),
        1 => core.clone().prop_map(Step::Interrupt),
        2 => core.clone().prop_map(Step::Due),
        1 => (0u8..2, proptest::option::of(0u32..2), any::<bool>())
            .prop_map(|(package, block, invalidates)| Step::FlushPackage { package, block, invalidates }),
        1 => tags().prop_map(Step::DmaRead),
        1 => (tags(), masks()).prop_map(|(t, m)| Step::DmaWrite(t, m)),
        1 => tags().prop_map(Step::Evict),
        1 => core.prop_map(Step::WcEvict),
    ]
}

fn platforms() -> impl Strategy<Value = sim_core::platform::CpuSpec> {
    let two_sets = |most: u8| (1..=most).prop_map(|ways| sets_ways(2, ways));
    let filter_ways = prop_oneof![1u8..=2, Just(16)];
    let all = (two_sets(2), two_sets(2), two_sets(2), filter_ways, any::<bool>());
    all.prop_map(|(l1, l2, llc, filter_ways, ages)| {
        let mut cpu = spec(l1, l2, llc);
        // Two lines that share a home compete for its one set, with as many ways as lines or fewer.
        cpu.snoop_filter = SnoopFilterGeometry { sets: 1, ways: filter_ways };
        cpu.wc_age = if ages { Ps::ns(3) } else { Ps::ZERO };
        cpu
    })
}

/// What a step gave back, if anything.
fn run(h: &mut Hierarchy, m: &mut Memory, step: Step, data: &LineData, now: Ps) -> Option<Fill> {
    let line = |h: &Hierarchy, slot| {
        let l = h.line(slot);
        Some(Fill { data: l.data, poison: l.poison, class: l.class })
    };
    match step {
        Step::Load(c, t) => {
            let slot = h.load(c, t, m).slot;
            return line(h, slot);
        }
        Step::Prefetch(c, t) => {
            let slot = h.prefetch(c, t, m).slot;
            return line(h, slot);
        }
        Step::Store(c, t, mask) => {
            let slot = h.store(c, t, data, mask, m).slot;
            return line(h, slot);
        }
        Step::FastString(c, t) => {
            let slot = h.store_line_no_rfo(c, t, data, m).slot;
            return line(h, slot);
        }
        Step::Wc(c, t, mask) => h.wc_store(c, t, data, mask, now, m),
        Step::UcLoad(c, t) => return Some(h.uc_load(c, t, m)),
        Step::UcStore(c, t, mask) => h.uc_store(c, t, data, mask, m),
        Step::Movdir64b(c, t) => h.movdir64b(c, t, data, now, m),
        Step::Movdiri(c, t, mask) => h.movdiri(c, t, data, mask, now, m),
        Step::Clflush(c, t) => h.clflush(c, t, m),
        Step::Clflushopt(c, t) => h.clflushopt(c, t, now, m),
        Step::Clwb(c, t) => h.clwb(c, t, now, m),
        Step::Fence(c, kind) => {
            h.fence(c, kind, m);
        }
        Step::Interrupt(c) => {
            h.interrupt(c, m);
        }
        Step::Due(c) => {
            h.drain_due(c, now, m);
        }
        Step::FlushPackage { package, block: None, invalidates: true } => {
            h.wbinvd(package, m);
        }
        Step::FlushPackage { package, block: None, .. } => {
            h.wbnoinvd(package, m);
        }
        Step::FlushPackage { package, block: Some(b), invalidates: true } => {
            h.wbinvdp(package, b, m).unwrap();
        }
        Step::FlushPackage { package, block: Some(b), .. } => {
            h.wbnoinvdp(package, b, m).unwrap();
        }
        Step::DmaRead(t) => return Some(h.dma_read(t, m)),
        Step::DmaWrite(t, mask) => h.dma_write(t, data, mask, m),
        Step::Evict(t) => {
            h.evict(t, m);
        }
        Step::WcEvict(c) => {
            h.wc_evict(c, m);
        }
    }
    None
}

/// The value of a (line, KeyID) that is cached somewhere: the last store, or what the controller gave at the fill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Value {
    data: LineData,
    poison: Option<BirthId>,
    dirty: bool,
}

#[derive(Default)]
struct Reference {
    cached: BTreeMap<Tagged, Value>,
    wc: BTreeMap<(u16, Tagged), (LineData, ByteMask)>,
    direct: Vec<(u16, Tagged, WeakKind, LineData, ByteMask)>,
}

impl Reference {
    /// Bytes that went past the caches: whose were they? Only the core that acts may let something leave, and of its
    /// direct stores to a line only the oldest.
    fn past_the_caches(
        &mut self,
        step: Step,
        data: &LineData,
        tag: Tagged,
        bytes: (LineData, ByteMask),
    ) {
        let clean = self.cached.remove(&tag).is_none_or(|v| !v.dirty);
        let (core, expected) = match step {
            Step::UcStore(c, t, mask) => (Some(c), Some((t, mask))),
            Step::DmaWrite(t, mask) => (None, Some((t, mask))),
            _ => (step_core(step), None),
        };
        let whole_dma = matches!(step, Step::DmaWrite(_, ByteMask::FULL));
        assert!(clean || whole_dma, "{tag}: a modified copy was lost");
        if let Some(c) = core {
            if self.wc.get(&(c, tag)) == Some(&bytes) {
                self.wc.remove(&(c, tag));
                return;
            }
            if let Some(i) = self.direct.iter().position(|d| d.0 == c && d.1 == tag) {
                assert_eq!((self.direct[i].3, self.direct[i].4), bytes, "{tag}: not the oldest");
                self.direct.remove(i);
                return;
            }
        }
        assert_eq!(expected.map(|(t, mask)| (t, (*data, mask))), Some((tag, bytes)));
    }

    fn account(&mut self, step: Step, data: &LineData, log: &[Call]) {
        let allocates = match step {
            Step::Load(_, t) | Step::Prefetch(_, t) | Step::Store(_, t, _) => Some(t),
            _ => None,
        };
        match step {
            Step::Wc(c, t, mask) => {
                // A direct store to the line leaves first; it is in the log before the buffer.
                let entry = self.wc.entry((c, t)).or_default();
                entry.0.merge(data, mask);
                entry.1 = entry.1.union(mask);
            }
            Step::Movdir64b(c, t) => {
                self.direct.push((c, t, WeakKind::Movdir64b, *data, ByteMask::FULL));
            }
            Step::Movdiri(c, t, mask) => {
                self.direct.push((c, t, WeakKind::Movdiri, *data, mask));
            }
            _ => {}
        }
        for call in log {
            match *call {
                Call::Read(tag, fill) => {
                    // A clean copy may have gone within the step, a modified one not without being written.
                    let gone = self.cached.remove(&tag);
                    assert!(gone.is_none_or(|v| !v.dirty), "{tag} was modified and yet read");
                    if allocates == Some(tag) {
                        let Fill { data, poison, .. } = fill;
                        self.cached.insert(tag, Value { data, poison, dirty: false });
                    } else {
                        assert!(
                            matches!(step, Step::UcLoad(_, t) | Step::DmaRead(t) if t == tag),
                            "nobody asked for {tag}"
                        );
                    }
                }
                Call::Write(tag, written, poison) => {
                    let whole_dma = matches!(step, Step::DmaWrite(_, ByteMask::FULL));
                    match self.cached.get_mut(&tag) {
                        Some(value) if value.dirty && !whole_dma => {
                            assert_eq!((written, poison), (value.data, value.poison), "{tag}");
                            value.dirty = false;
                        }
                        _ => {
                            assert_eq!(poison, None);
                            self.past_the_caches(step, data, tag, (written, ByteMask::FULL));
                        }
                    }
                }
                Call::Partial(tag, written, mask) => {
                    self.past_the_caches(step, data, tag, (written, mask));
                }
            }
        }
        match step {
            Step::Store(_, t, mask) => {
                let value = self.cached.get_mut(&t).expect("a store owns the line");
                value.data.merge(data, mask);
                value.dirty = true;
                value.poison = value.poison.filter(|_| !mask.is_full());
            }
            Step::FastString(_, t) => {
                self.cached.insert(t, Value { data: *data, poison: None, dirty: true });
            }
            _ => {}
        }
    }

    /// The hierarchy agrees with the flat value of every (line, KeyID); clean copies may be gone, modified ones not.
    fn compare(&mut self, h: &Hierarchy, m: &Memory) {
        for tag in (4..6).flat_map(|l| KEYS.map(|k| at(l, k))) {
            let got =
                h.inspect(tag).map(|v| Value { data: v.data, poison: v.poison, dirty: v.dirty });
            let want = self.cached.get(&tag).copied();
            if got.is_none() {
                assert!(want.is_none_or(|v| !v.dirty), "{tag}: a modified line was lost");
                self.cached.remove(&tag);
            } else {
                assert_eq!(got, want, "{tag}");
            }
        }
        for core in 0..CORES {
            let got: BTreeMap<_, _> =
                h.wc_buffers(core).map(|b| ((core, b.at), (b.data, b.mask))).collect();
            let want: BTreeMap<_, _> =
                self.wc.iter().filter(|(k, _)| k.0 == core).map(|(k, v)| (*k, *v)).collect();
            assert_eq!(got, want);
            let direct = |k: WeakKind| matches!(k, WeakKind::Movdir64b | WeakKind::Movdiri);
            let got: Vec<_> = h
                .weak_ops(core)
                .filter(|w| direct(w.kind))
                .map(|w| (core, w.at, w.kind, w.data, w.mask))
                .collect();
            let want: Vec<_> = self.direct.iter().filter(|d| d.0 == core).copied().collect();
            assert_eq!(got, want);
        }
        assert_eq!(m.trace.poison_locations(), poison_places(h, m), "ledger");
        h.check_invariants().unwrap();
    }
}

fn step_core(step: Step) -> Option<u16> {
    match step {
        Step::Load(c, _)
        | Step::Prefetch(c, _)
        | Step::Store(c, ..)
        | Step::FastString(c, _)
        | Step::Wc(c, ..)
        | Step::UcLoad(c, _)
        | Step::UcStore(c, ..)
        | Step::Movdir64b(c, _)
        | Step::Movdiri(c, ..)
        | Step::Clflush(c, _)
        | Step::Clflushopt(c, _)
        | Step::Clwb(c, _)
        | Step::Fence(c, _)
        | Step::Interrupt(c)
        | Step::Due(c)
        | Step::WcEvict(c) => Some(c),
        Step::FlushPackage { .. } | Step::DmaRead(_) | Step::DmaWrite(..) | Step::Evict(_) => None,
    }
}

/// What holds right after a step, whatever went before.
fn afterwards(step: Step, h: &Hierarchy, others: &[(Tagged, Option<cache::View>)]) {
    let nothing_waits_at =
        |c: u16, t: Tagged| h.wc_buffers(c).all(|b| b.at != t) && h.weak_ops(c).all(|w| w.at != t);
    match step {
        Step::Load(c, t) | Step::Store(c, t, _) | Step::FastString(c, t) => {
            assert!(nothing_waits_at(c, t));
            assert!(h.mesi(c, t) != cache::mesi::Mesi::Invalid);
        }
        Step::Clflush(c, t) | Step::UcLoad(c, t) | Step::UcStore(c, t, _) => {
            assert!(nothing_waits_at(c, t));
            assert_eq!(h.inspect(t), None);
        }
        Step::Fence(c, FenceKind::Mfence | FenceKind::Sfence | FenceKind::Locked) => {
            assert_eq!((h.wc_buffers(c).count(), h.weak_ops(c).count()), (0, 0));
        }
        Step::Interrupt(c) => assert_eq!(h.wc_buffers(c).count(), 0),
        Step::FlushPackage { package, block, invalidates } => {
            for line in h.resident_lines() {
                let cores = 0b11u128 << (2 * package);
                let here = line.cores & cores != 0 || line.llc >> package & 1 != 0;
                if here && block.is_none_or(|b| b == h.sub_block_of(line.tag.line())) {
                    assert!(!invalidates && !line.is_dirty(), "{line:?}");
                }
            }
        }
        Step::Evict(t) | Step::DmaWrite(t, _) => assert_eq!(h.inspect(t), None),
        _ => {}
    }
    if let Step::Clflush(_, t) | Step::UcStore(_, t, _) | Step::Evict(t) | Step::DmaWrite(t, _) =
        step
    {
        for (tag, view) in others.iter().filter(|(tag, _)| *tag != t) {
            assert_eq!(h.inspect(*tag), *view, "{tag} is another (line, KeyID)");
        }
    }
}

fn play(cpu: &sim_core::platform::CpuSpec, erratum: bool, steps: &[Step]) {
    let (mut h, mut m) = (build(cpu), Memory::new(erratum));
    let mut reference = Reference::default();
    for (i, step) in steps.iter().enumerate() {
        let data = fill(i as u8 + 1);
        let mut stored = LineData::ZERO;
        // Buffers and partial writes hold zeros where nothing was stored.
        match step {
            Step::Wc(_, _, mask)
            | Step::UcStore(_, _, mask)
            | Step::Movdiri(_, _, mask)
            | Step::DmaWrite(_, mask)
            | Step::Store(_, _, mask) => stored.merge(&data, *mask),
            _ => stored = data,
        }
        let before: Vec<_> =
            (4..6).flat_map(|l| KEYS.map(|k| (at(l, k), h.inspect(at(l, k))))).collect();
        let waited = |t: Tagged| {
            step_core(*step).is_some_and(|c| {
                h.wc_buffers(c).any(|b| b.at == t) || h.weak_ops(c).any(|w| w.at == t)
            })
        };
        let hit = match *step {
            Step::Load(_, t) | Step::Prefetch(_, t) | Step::Store(_, t, _) | Step::DmaRead(t) => {
                before.iter().any(|(tag, v)| *tag == t && v.is_some()) && !waited(t)
            }
            _ => false,
        };
        let was_cached = |t: Tagged| before.iter().any(|(tag, v)| *tag == t && v.is_some());
        m.trace.cause = EventId::NONE;
        m.trace.emit_cause(EventKind::Op { agent: 0, step: i as u32 });
        let cause = m.trace.cause;
        let got = run(&mut h, &mut m, *step, &stored, Ps::ns(i as u64));
        assert_eq!(m.trace.cause, cause, "{step:?} did not restore the cause");
        let log = m.take_log();
        let read = log.iter().any(|c| matches!(c, Call::Read(..)));
        assert!(!(hit && read), "a cached line was read again");
        reference.account(*step, &stored, &log);
        match (step, got) {
            (
                Step::Load(_, t)
                | Step::Prefetch(_, t)
                | Step::Store(_, t, _)
                | Step::FastString(_, t),
                Some(got),
            ) => {
                let want = reference.cached.get(t).map(|v| (v.data, v.poison));
                assert_eq!(Some((got.data, got.poison)), want, "{step:?}");
            }
            (Step::DmaRead(t), Some(got)) if was_cached(*t) => {
                let want = reference.cached.get(t).map(|v| (v.data, v.poison));
                assert_eq!((Some((got.data, got.poison)), log.len()), (want, 0));
            }
            (Step::UcLoad(_, t) | Step::DmaRead(t), Some(got)) => {
                assert_eq!(log.last(), Some(&Call::Read(*t, got)));
            }
            _ => {}
        }
        afterwards(*step, &h, &before);
        reference.compare(&h, &m);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_load_returns_the_last_store_or_the_controllers_answer_at_the_fill(
        cpu in platforms(), erratum: bool, steps in proptest::collection::vec(steps(), 1..80),
    ) {
        play(&cpu, erratum, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_hierarchy_read_back_in_the_middle_of_a_run_goes_on_as_if_nothing_had_happened(
        cpu in platforms(),
        before in proptest::collection::vec(steps(), 1..60),
        after in proptest::collection::vec(steps(), 1..60),
    ) {
        let (mut h, mut m) = (build(&cpu), Memory::new(true));
        let go = |h: &mut Hierarchy, m: &mut Memory, steps: &[Step], from: usize| {
            for (i, step) in steps.iter().enumerate() {
                run(h, m, *step, &fill(i as u8), Ps::ns((from + i) as u64));
            }
        };
        go(&mut h, &mut m, &before, 0);
        let bytes = postcard::to_stdvec(&h).unwrap();
        let mut h2: Hierarchy = postcard::from_bytes(&bytes).unwrap();
        let mut m2 = m.clone();
        prop_assert_eq!(&h2, &h);
        prop_assert_eq!(postcard::to_stdvec(&h2).unwrap(), bytes);
        h2.check_invariants().unwrap();
        go(&mut h, &mut m, &after, before.len());
        go(&mut h2, &mut m2, &after, before.len());
        prop_assert_eq!(h2, h);
        prop_assert_eq!(m2, m);
    }

    #[test]
    fn a_damaged_snapshot_never_panics(
        cpu in platforms(), before in proptest::collection::vec(steps(), 1..30),
        after in proptest::collection::vec(steps(), 1..30), place: prop::sample::Index, bit in 0u8..8,
    ) {
        let (mut h, mut m) = (build(&cpu), Memory::new(false));
        for step in before {
            run(&mut h, &mut m, step, &fill(1), Ps::ZERO);
        }
        let mut bytes = postcard::to_stdvec(&h).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        if let Ok(mut damaged) = postcard::from_bytes::<Hierarchy>(&bytes) {
            let _ = damaged.check_invariants();
            for step in after {
                // Sub-blocks may have become fewer; `run` insists on them.
                if !matches!(step, Step::FlushPackage { .. }) {
                    run(&mut damaged, &mut m, step, &fill(1), Ps::ZERO);
                }
            }
        }
    }
}
