//! What a trace says of order and time reaches the core's window.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use machine::Speed;
use scenarios::platform::{self, Origin};
use scenarios::replay::{Place, ReplayReport, Settings, replay};
use scenarios::trace::{Format, open_read};
use sim_core::KeyId;

const HOST: Place = Place::Host(KeyId(0));
const TD: Place = Place::Td(KeyId(64));

/// An instruction of a ChampSim trace (peers.md §2.7) that reads and writes one register each, and loads if `load` is not 0.
fn instruction(reads: u8, writes: u8, load: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&0x40_1000u64.to_le_bytes());
    (bytes[10], bytes[12]) = (writes, reads);
    bytes[32..40].copy_from_slice(&load.to_le_bytes());
    bytes
}

fn run(bytes: &[u8], format: Format, place: Place, speed: Speed) -> ReplayReport {
    let spr = platform::load(&Origin::Preset("spr".to_owned()), &[]).unwrap();
    let mut reader = open_read("t", bytes, Some(format)).unwrap();
    let settings =
        Settings { place, speed, every_edge: false, seed: 0, limit: None, allow_truncated: false };
    let report = replay(&mut reader, "t", "test", &spr, &settings, |_| ()).unwrap();
    assert_eq!(report.broken, [""; 0]);
    report
}

/// Loads of 256 lines of as many pages, so many instructions apart.
fn loads(reads: u8, gap: usize) -> Vec<u8> {
    let load = |n: u64| instruction(reads, 1, 0x7000_0000 + n * (4096 + 64));
    let fill = instruction(9, 9, 0);
    (0..256)
        .flat_map(|n| std::iter::once(load(n)).chain((0..gap).map(|_| fill)).flatten())
        .collect()
}

fn time(reads: u8, gap: usize, place: Place) -> u64 {
    run(&loads(reads, gap), Format::Champsim, place, Speed::Timed).simulated_ps
}

#[test]
fn loads_that_champsim_says_depend_on_one_another_wait_and_others_do_not() {
    let (chain, stream) = (time(1, 0, HOST), time(2, 0, HOST));
    // At least one idle latency each (timing.md §1.2), against 16 at once.
    assert!(chain > 256 * 90_000, "{chain}");
    assert!(stream * 6 < chain, "{stream} {chain}");
}

#[test]
fn in_a_td_every_page_is_accepted_once_before_its_first_access() {
    let report = run(&loads(1, 0), Format::Champsim, TD, Speed::Timed);
    assert_eq!((report.pages_accepted, report.controller_writes), (256, 256 * 64));
    assert_eq!((report.loads, report.births, report.machine_checks), (256, 0, 0));
}

#[test]
fn instructions_between_accesses_fill_the_window() {
    // 511 instructions behind each load leave no room for the next two.
    let (dense, sparse) = (time(2, 0, HOST), time(2, 511, HOST));
    assert!(sparse > 4 * dense, "{dense} {sparse}");
    assert!(sparse > 100 * 90_000, "{sparse}");
}

#[test]
fn cycles_of_a_trace_are_waited_for() {
    let text: String = (0..100u64)
        .map(|n| format!("0x{:x} READ {}\n", 0x1_0000_0000 + n * 4096, n * 5000))
        .collect();
    for speed in [Speed::Timed, Speed::Functional] {
        let report = run(text.as_bytes(), Format::Dramsim3, HOST, speed);
        // 99 times 5000 clocks of 2400 MHz.
        let least = 99 * 5000 * 1_000_000 / 2400;
        assert!(report.simulated_ps >= least, "{speed:?} {}", report.simulated_ps);
        assert!(report.simulated_ps < least + 1_000_000, "{speed:?} {}", report.simulated_ps);
    }
}

#[test]
fn a_long_trace_of_stores_is_run_to_its_end() {
    let text: String = (0..40_000u64).map(|n| format!("ST {}\n", 0x1_0000_0000 + n * 64)).collect();
    let report = run(text.as_bytes(), Format::Ramulator, HOST, Speed::Timed);
    assert_eq!((report.stores, report.accesses), (40_000, 40_000));
}

/// A gem5 packet trace of one read (peers.md §2.7): magic, header with a tick of 1 ps, packet.
fn gem5(addr: u64, bytes: u64) -> Vec<u8> {
    fn varint(mut n: u64, out: &mut Vec<u8>) {
        while n > 0x7f {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }
    let mut out = b"gem5".to_vec();
    for fields in [vec![(3, 1_000_000_000_000)], vec![(1, 0), (2, 1), (3, addr), (4, bytes)]] {
        let mut message = Vec::new();
        if fields.len() == 1 {
            message.extend([0x0a, 1, b'x']);
        }
        for (field, value) in fields {
            varint(field << 3, &mut message);
            varint(value, &mut message);
        }
        varint(message.len() as u64, &mut out);
        out.extend(message);
    }
    out
}

#[test]
fn an_access_that_reaches_beyond_the_platforms_memory_is_refused() {
    let spr = platform::load(&Origin::Preset("spr".to_owned()), &[]).unwrap();
    let limit = 1u64 << spr.spec.keyid.address_bits();
    let inside = run(&gem5(limit - 8, 8), Format::Gem5, HOST, Speed::Timed);
    assert_eq!((inside.loads, inside.accesses), (1, 1));
    for (addr, bytes) in [(limit - 8, 9), (limit - 1, 64), (limit, 1)] {
        let trace = gem5(addr, bytes);
        let mut reader = open_read("t", &trace[..], Some(Format::Gem5)).unwrap();
        let (place, speed) = (HOST, Speed::Timed);
        let settings = Settings {
            place,
            speed,
            every_edge: false,
            seed: 0,
            limit: None,
            allow_truncated: false,
        };
        let error = replay(&mut reader, "t", "test", &spr, &settings, |_| ()).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }
}

#[test]
fn a_platform_that_cannot_be_built_is_said_before_any_experiment_begins() {
    let bad = vec![platform::Override::set("cpu.window", "0")];
    let bench = scenarios::validate::Bench::new(Origin::Preset("spr".to_owned()), bad);
    let mut begun = 0;
    let error = scenarios::validate::validate(&bench, &[], |_| begun += 1).unwrap_err();
    assert!(error.to_string().contains("cpu.window"), "{error}");
    assert_eq!(begun, 0);
}
