//! Streams on a machine whose caches nothing has to leave.

use crate::common::{Os, id, machine, platform};
use machine::{CryptoKind, Machine, Source, Speed, StreamOp, StreamStats};
use sim_core::platform::{CacheGeometry, PlatformSpec};
use sim_core::{Addr, Hpa, KeyId};

/// One package with caches of real size, so that nothing is evicted that a test did not evict.
pub(crate) fn roomy() -> PlatformSpec {
    let mut spec = platform();
    spec.cpu.packages = 1;
    spec.cpu.l1d = CacheGeometry { size: 48 << 10, ways: 12 };
    spec.cpu.l2 = CacheGeometry { size: 512 << 10, ways: 16 };
    spec.cpu.llc = CacheGeometry { size: 2 << 20, ways: 16 };
    spec.cpu.window = 512;
    spec.cpu.weak_slots = 16;
    spec.dram.read_queue = 64;
    spec
}

pub(crate) fn timed(spec: &PlatformSpec) -> Machine {
    let mut m = machine(spec, Speed::Timed, CryptoKind::Symbolic);
    m.set_log(false);
    m
}

pub(crate) fn line(n: u64) -> Addr {
    Addr::new(Hpa(0x1_0000_0000 + n * 64), KeyId::TME)
}

pub(crate) fn ops(list: Vec<StreamOp>) -> impl Source {
    let mut list = list.into_iter();
    move || list.next()
}

pub(crate) fn run(m: &mut Machine, agent: &str, list: Vec<StreamOp>) -> StreamStats {
    run_many(m, vec![(agent, list)])[0]
}

pub(crate) fn run_many(m: &mut Machine, lists: Vec<(&str, Vec<StreamOp>)>) -> Vec<StreamStats> {
    let mut streams: Vec<_> = lists.into_iter().map(|(a, l)| (id(a), ops(l))).collect();
    let stats = m.run_streams(&mut streams, &mut Os::default());
    assert_eq!(m.conservation(), Vec::<String>::new());
    stats
}

pub(crate) fn span(stats: &StreamStats) -> u64 {
    stats.end.since(stats.begin).0
}
