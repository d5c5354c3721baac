//! `cargo bench -p benches`: the speed of every workload.

use benches::{Runner, SetupError, Workload};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

/// Does one batch; makes the workload ready before the first.
fn step(workload: &Workload, runner: &mut Option<Runner>) -> Result<u64, SetupError> {
    let run = match runner {
        Some(run) => run,
        None => runner.insert((workload.make)()?),
    };
    run(black_box(workload.batch))
}

fn speed(c: &mut Criterion) {
    for workload in benches::workloads() {
        let mut group = c.benchmark_group(workload.group);
        group.throughput(Throughput::Elements(workload.batch));
        let name = workload.name.split_once('/').map_or(workload.name, |(_, name)| name);
        // Criterion calls the closure once per sample, and not at all for what was not asked for.
        let mut runner = None;
        group.bench_function(name, |b| {
            let warm = step(workload, &mut runner);
            assert!(warm.is_ok(), "{}: {warm:?}", workload.name);
            b.iter(|| step(workload, &mut runner));
        });
        group.finish();
    }
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = speed
}
criterion_main!(all);
