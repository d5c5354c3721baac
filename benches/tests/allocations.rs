//! The hot loops allocate nothing: what they need is there after a warm-up, however long they run.
//!
//! `allocation-counter` counts the allocations of a thread, reallocations among them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use allocation_counter::measure;
use benches::controller::Requests;
use benches::dram::{Bare, Pattern};
use benches::streams::{BEYOND, Core, IN_L1, IN_L2, IN_LLC, Mix};
use machine::Speed;
use mktme::CryptoKind;

/// Allocations of the second of two runs.
fn in_steady_state(warm_up: u64, n: u64, mut run: impl FnMut(u64) -> u64) -> u64 {
    run(warm_up);
    measure(|| {
        run(n);
    })
    .count_total
}

#[test]
fn the_counter_counts() {
    let boxed = measure(|| {
        std::hint::black_box(Box::new(1));
    });
    let mut grown = vec![0_u64; 4];
    let regrown = measure(|| {
        grown.extend([0; 100]);
    });
    assert_eq!((boxed.count_total, regrown.count_total), (1, 1));
}

#[test]
fn a_controller_allocates_nothing_over_memory_that_was_written() {
    for crypto in [CryptoKind::Symbolic, CryptoKind::Real] {
        let mut requests = Requests::written(crypto, 12).unwrap();
        for (name, run) in [
            ("read", Requests::read as fn(&mut Requests, u64) -> u64),
            ("write", Requests::write),
            ("partial", Requests::partial),
            ("mix", Requests::mix),
            ("mix, expected", Requests::mix_expected),
        ] {
            let allocated = in_steady_state(1000, 5000, |n| run(&mut requests, n));
            assert_eq!(allocated, 0, "{crypto:?} {name}");
        }
    }
}

#[test]
fn bare_channels_allocate_nothing() {
    for channels in [1, 8] {
        for pattern in Pattern::ALL {
            let mut bare = Bare::new(pattern, channels).unwrap();
            // Refreshes come every few thousand requests, or every few.
            let allocated = in_steady_state(20_000, 50_000, |n| bare.run(n));
            let stats = bare.dram().stats();
            assert!(stats.refresh_all + stats.refresh_same > 0, "{pattern:?}: no refresh");
            assert_eq!(allocated, 0, "{pattern:?} on {channels} channels");
        }
    }
}

#[test]
fn streams_allocate_nothing_whatever_level_answers() {
    for footprint in [IN_L1, IN_L2, IN_LLC, BEYOND] {
        for mix in [Mix::Loads, Mix::Stores, Mix::Half] {
            for speed in [Speed::Timed, Speed::Functional] {
                let mut core = Core::new(speed, footprint, mix).unwrap();
                let before = core.machine().counts().operations;
                let allocated = in_steady_state(80_000, 20_000, |n| core.run(n));
                let done = core.machine().counts().operations - before;
                assert_eq!(done, 100_000, "{footprint:?} {mix:?} {speed:?}");
                assert_eq!(allocated, 0, "{footprint:?} {mix:?} {speed:?}");
            }
        }
    }
}
