//! What operations do on a whole machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{Os, by_item, id, machine, op, platform, program, run};
use machine::{CryptoKind, Level, Machine, Options, Order, Speed};
use sim_core::event::{BirthCause, EventKind};
use sim_core::mca::{McStatus, McgStatus};
use sim_core::platform::IntegrityMode;
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Op, Ps, Tagged};

const SPEEDS: [Speed; 2] = [Speed::Functional, Speed::Timed];

/// Runs lines on a fresh machine at both speeds; the outcomes must be the same.
#[track_caller]
fn outcomes(lines: &str) -> (Vec<String>, Machine, Os) {
    let spec = platform();
    let mut last: Option<(Vec<String>, Machine, Os)> = None;
    for speed in SPEEDS {
        for crypto in [CryptoKind::Symbolic, CryptoKind::Real] {
            let mut m = machine(&spec, speed, crypto);
            let mut os = Os::default();
            let got = run(&mut m, &mut os, lines);
            m.caches().check_invariants().unwrap();
            assert_eq!(m.conservation(), [""; 0]);
            // The same by class; which garbage a wrong key gives is the cryptography's own affair.
            let classes = |outcomes: &[String]| -> Vec<String> {
                let garbage = |o: &String| o.starts_with("garbage");
                outcomes
                    .iter()
                    .map(|o| if garbage(o) { "garbage".to_owned() } else { o.clone() })
                    .collect()
            };
            if let Some((before, ..)) = &last {
                assert_eq!(classes(&got), classes(before), "{speed:?} {crypto:?}");
            }
            last = Some((got, m, os));
        }
    }
    last.unwrap()
}

#[test]
fn the_published_machine_check_is_reproduced() {
    let (got, m, os) = outcomes(
        "seam0: movdir64b [0x1000@33] fill=0x11
         seam0: mfence
         cpu0: movnti [0x1008] 8 0x1
         cpu0: sfence
         cpu1: load [0x1000] 8
         cpu0: load [0x2000] 8",
    );
    assert_eq!(got[4], "mc srar data-load panic");
    assert_eq!(got[5], "not-run panic");
    assert!(m.is_panicked());
    // verification.md R1, architecture.md §6.2.
    let record = os.seen[0];
    assert_eq!(record.status, McStatus(0xbd80_0000_0010_0134));
    assert_eq!(record.mcg, McgStatus(0xf));
    assert_eq!((record.bank, record.addr, record.core), (1, 0x1000, 1));
    assert_eq!(m.trace().births()[0].cause, BirthCause::PartialWrite);
    assert!(m.memory().ucna_log().is_empty(), "a birth by the erratum logs nothing");
}

#[test]
fn a_fetch_reports_the_other_bank_and_code() {
    let (got, _, os) = outcomes(
        "hw: inject-ue [0x1000]
         user0: fetch [0x1010]",
    );
    assert_eq!(got[1], "mc srar fetch sigbus");
    assert_eq!((os.seen[0].bank, os.seen[0].status.0 & 0xffff), (0, 0x150));
}

#[test]
fn a_td_dies_of_its_own_read_and_the_address_carries_its_keyid() {
    let (got, m, os) = outcomes(
        "seam0: movdir64b [0x1000@33] fill=0x11
         seam0: mfence
         cpu0: store [0x1000] 8 0x1
         cpu0: clflush [0x1000]
         td2: load [0x1000] 8
         td2: load [0x1040] 8
         cpu0: load [0x2000] 8",
    );
    assert_eq!(got[4], "mc srar data-load seam-nr td-fatal");
    assert_eq!(got[5], "not-run killed");
    assert!(got[6].starts_with("garbage"), "never written: {}", got[6]);
    assert_eq!(os.seen[0].addr, 0x1000 | 33 << 40);
    assert_eq!(m.memory().ucna_log().len(), 1);
    assert_eq!(m.memory().ucna_log()[0].addr, 0x1000 | 33 << 40);
}

#[test]
fn the_module_shuts_down_its_processor_and_tdx_with_it() {
    let (got, m, os) = outcomes(
        "seam0: load [0x1000@32] 8
         cpu0: load [0x2000] 8
         seam1: load [0x3000@32] 8
         td2: load [0x3000] 8
         cpu1: mfence",
    );
    assert_eq!(
        got,
        [
            "mc srar data-load shutdown",
            "not-run shutdown",
            "vmfail-invalid",
            "vmfail-invalid",
            "done"
        ]
    );
    assert!(m.is_tdx_disabled() && os.seen.is_empty());
}

#[test]
fn without_lmce_every_running_td_dies_of_a_broadcast() {
    let mut spec = platform();
    spec.mce.lmce = false;
    let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    let mut os = Os::default();
    let got = run(
        &mut m,
        &mut os,
        "hw: inject-ue [0x1000]
         user0: load [0x1000] 8
         td2: mfence",
    );
    assert_eq!(got[1..], ["mc srar data-load sigbus", "not-run killed"]);
    assert_eq!(os.seen[0].mcg, McgStatus(0x7), "LMCES is clear");
}

#[test]
fn accessors_meet_the_faults_of_section_2_5() {
    let (got, m, _) = outcomes(
        "cpu0: load [0x1000@33] 8
         user0: store [0x1000@63] 8 0x1
         cpu0: movdir64b [0x1000@33] zero
         cpu0: clflush [0x1000@33]
         dma: dma-read [0x1000@33] 64
         dma: dma-write [0x1000@33] 64
         td2: load [0x1000@34] 8
         cpu0: pconfig priv1 set-random
         seam0: pconfig 64 set-random
         seam0: pconfig 0 set-random
         cpu0: wbinvdp 0
         seam0: wbinvdp 2
         seam0: wbinvdp 1
         user0: wbinvd
         td2: wbinvd
         cpu0: movdir64b [0x1008] zero
         cpu0: movntdq [0x1008] 16",
    );
    assert_eq!(
        got,
        [
            "pf rsvd",
            "pf rsvd",
            "pf rsvd",
            "pf rsvd",
            "dma-abort",
            "dma-abort",
            "ept-misconfiguration",
            "pconfig invalid-keyid",
            "pconfig invalid-keyid",
            "pconfig invalid-keyid",
            "gp not-in-seam",
            "gp no-such-sub-block",
            "done",
            "gp privilege",
            "ve",
            "gp misaligned",
            "gp misaligned"
        ]
    );
    assert_eq!(m.counts().controller_reads + m.counts().controller_writes, 0);
    assert!(
        !m.trace().events().iter().any(|e| matches!(
            e.kind,
            EventKind::DramRead { .. } | EventKind::DramWrite { .. } | EventKind::Fill { .. }
        )),
        "a refused access reaches neither cache nor memory (verification.md L11)"
    );
}

#[test]
fn accesses_of_every_size_and_alignment_return_what_was_stored() {
    let spec = platform();
    for speed in SPEEDS {
        let mut m = machine(&spec, speed, CryptoKind::Symbolic);
        let mut os = Os::default();
        for bytes in 1..=64u64 {
            for offset in [0u64, 1, 7, 31, 60, 63] {
                let at = 0x10_0000 + bytes * 0x1000 + offset;
                let ty = [".wc", ".uc", ""][(bytes % 3) as usize];
                let lines = format!(
                    "cpu0: store{ty} [{at:#x}] {bytes} fill={bytes:#x}
                     cpu0: sfence
                     cpu1: load [{at:#x}] {bytes}"
                );
                let got = run(&mut m, &mut os, &lines);
                let want = if bytes > 8 {
                    format!("fill={bytes:#x}")
                } else {
                    format!("0x{}", format!("{bytes:02x}").repeat(bytes as usize))
                };
                assert_eq!(got[2], format!("data {want}"), "{bytes} bytes at offset {offset}");
            }
        }
    }
}

#[test]
fn a_locked_add_reads_adds_and_writes() {
    let (got, ..) = outcomes(
        "cpu0: movdir64b [0x1000] zero
         cpu0: mfence
         cpu0: lock-xadd [0x1000] 8 0x5
         cpu1: lock-xadd [0x1000] 8 0xffffffffffffffff
         cpu2: lock-xadd [0x1000] 2 0xfffe
         cpu0: load [0x1000] 8",
    );
    assert_eq!(got[2..], ["zeros", "data 0x05", "data 0x04", "data 0x02"]);
}

#[test]
fn a_failed_source_load_of_movdir64b_stores_nothing() {
    let (got, m, _) = outcomes(
        "cpu0: movdir64b [0x2000] fill=0x22
         cpu0: mfence
         hw: inject-ue [0x1000]
         user0: movdir64b [0x2000] [0x1000]
         hw: evict [0x2000]",
    );
    assert_eq!(got[3], "mc srar data-load sigbus");
    assert_eq!(m.memory().line(Hpa(0x2000).line()).poison, None);
}

#[test]
fn a_page_clear_is_one_event_when_functional_and_leaves_the_same_lines_as_64_stores() {
    let spec = platform();
    let setup = "seam0: movdir64b [0x1040@33] fill=0x11
                 seam0: mfence
                 cpu0: store [0x1080] 8 0x1
                 cpu0: movnti [0x1040] 8 0x1
                 cpu0: sfence
                 cpu0: movdir64b.page [0x1000]
                 cpu0: mfence";
    let mut lines = Vec::new();
    for speed in SPEEDS {
        let mut m = machine(&spec, speed, CryptoKind::Real);
        run(&mut m, &mut Os::default(), setup);
        let pages = m
            .trace()
            .events()
            .iter()
            .filter(|e| matches!(e.kind, EventKind::DramWritePage { .. }))
            .count();
        assert_eq!(pages, usize::from(speed == Speed::Functional));
        assert_eq!(m.trace().poison_locations(), 0);
        assert_eq!(m.trace().deaths(), 1);
        let state: Vec<_> = (0..64).map(|i| m.memory().line(Hpa(0x1000 + 64 * i).line())).collect();
        lines.push(state);
    }
    assert_eq!(lines[0], lines[1]);
    assert!(lines[0].iter().all(|l| !l.td && l.poison.is_none() && l.writer.is_some()));
}

#[test]
fn rep_stosb_owns_whole_lines_without_reading_them() {
    for (no_rfo, reads) in [(true, 2), (false, 4)] {
        let mut spec = platform();
        spec.cpu.fast_string_no_rfo = no_rfo;
        let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
        let got = run(
            &mut m,
            &mut Os::default(),
            "cpu0: rep-stosb [0x1030] 160 fill=0x7
             cpu0: load [0x1088] 8",
        );
        assert_eq!(got[1], "data 0x0707070707070707");
        assert_eq!(m.counts().controller_reads, reads, "MC-29, no_rfo {no_rfo}");
    }
}

#[test]
fn a_store_to_poison_raises_only_where_the_platform_says_so() {
    for (raises, want) in [(false, "done"), (true, "mc srar data-load sigbus")] {
        let mut spec = platform();
        spec.cpu.rfo_poison_mc = raises;
        let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
        let got = run(
            &mut m,
            &mut Os::default(),
            "hw: inject-ue [0x1000]
             user0: store [0x1000] 8 0x1",
        );
        assert_eq!(got[1], want, "MC-30");
    }
}

#[test]
fn a_store_that_traps_on_one_of_its_lines_writes_none_and_traps_once() {
    for poison in [0x1000, 0x1040] {
        let mut spec = platform();
        spec.cpu.rfo_poison_mc = true;
        let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
        let mut os = Os::default();
        let got = run(
            &mut m,
            &mut os,
            &format!(
                "cpu0: movdir64b [0x1000] fill=0x11
                 cpu0: movdir64b [0x1040] fill=0x11
                 cpu0: mfence
                 hw: inject-ue [{poison:#x}]
                 user0: store [0x103c] 8 fill=0x22
                 dma: dma-read [0x1000] 8"
            ),
        );
        assert_eq!(got[4], "mc srar data-load sigbus", "MC-30");
        assert_eq!(os.seen.len(), 1);
        assert_eq!(os.seen[0].at.hpa.0, poison);
        for line in [Hpa(0x1000), Hpa(0x1040)] {
            let view = m.caches().inspect(Tagged::new(line.line(), KeyId(0))).unwrap();
            assert!(!view.dirty);
        }
    }
}

#[test]
fn a_prefetch_never_faults() {
    let (got, m, _) = outcomes(
        "cpu0: prefetch [0x1000@33]
         user0: prefetch [0x1000@33]
         td2: prefetch [0x1000@34]
         seam0: prefetch [0x2000@34]",
    );
    assert_eq!(got, ["done"; 4]);
    assert_eq!(m.counts().controller_reads, 1);
}

#[test]
fn misalignment_is_found_before_the_address_is_translated() {
    let (got, ..) = outcomes(
        "cpu0: movdir64b [0x1008@33] fill=0x1
         cpu0: movdir64b.page [0x1040@33]
         td2: movntdq [0x1008@34] 16
         cpu0: movdir64b [0x1000@33] fill=0x1",
    );
    assert_eq!(got, ["gp misaligned", "gp misaligned", "gp misaligned", "pf rsvd"]);
}

#[test]
fn a_td_fetches_from_private_memory_only() {
    let (got, m, _) = outcomes(
        "td2: fetch [0x1000@0]
         td2: fetch [0x1000@34]",
    );
    assert_eq!(got, ["pf rsvd", "ept-misconfiguration"], "architecture.md §2.5");
    assert_eq!(m.counts().controller_reads, 0);
}

#[test]
fn pconfig_is_for_ring_0_and_programs_its_own_package() {
    let (got, m, _) = outcomes(
        "user0: pconfig 1 set-random
         td2: pconfig 1 set-random
         cpu2: movdir64b [0x1000@1] fill=0x11
         cpu2: movdir64b [0x40001000@1] fill=0x11
         cpu2: mfence
         cpu2: pconfig 1 set-random
         cpu2: load [0x1000@1] 8
         cpu2: load [0x40001000@1] 8",
    );
    assert_eq!(got[..2], ["gp privilege", "ve"]);
    assert!(got[6].starts_with("data") && got[7].starts_with("garbage"), "{got:?}");
    assert_eq!(m.memory().stats().pconfigs, 1);
}

#[test]
fn weakly_ordered_stores_become_visible_in_time_or_at_a_fence() {
    let spec = platform();
    let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    let got = run(
        &mut m,
        &mut Os::default(),
        "cpu0: movdir64b [0x1000] fill=0x11
         cpu0: mfence
         cpu0: movdir64b [0x1000] fill=0x22
         cpu1: load.uc [0x1000] 8
         cpu1: delay 20ns
         cpu1: load.uc [0x1000] 8",
    );
    assert_eq!(got[3], "data 0x1111111111111111", "not visible yet");
    assert_eq!(got[5], "data 0x2222222222222222", "visible by itself");
}

#[test]
fn agents_side_by_side_interleave_in_time_and_share_their_core() {
    let spec = platform();
    let text = "cpu0: store [0x1000] 8 0x1
                cpu0: delay 100ns
                cpu0: store [0x1000] 8 0x2
                cpu1: delay 50ns
                cpu1: load [0x1000] 8
                user0: load [0x1000] 8
                barrier
                cpu1: load [0x1000] 8";
    let mut m = Machine::new(
        &spec,
        Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 1, log: true },
    )
    .unwrap();
    let records = m.run(&program(text, Order::Concurrent), &mut Os::default());
    let got = by_item(&records);
    assert_eq!(got.len(), 7);
    assert_eq!(got[4], "data 0x01", "between the two stores");
    assert_eq!(got[6], "data 0x02");
    let on_core_0: Vec<_> =
        records.iter().filter(|r| [id("cpu0"), id("user0")].contains(&r.agent)).collect();
    for pair in on_core_0.windows(2) {
        assert!(pair[0].end <= pair[1].end);
    }
}

#[test]
fn a_machine_saved_and_restored_between_operations_goes_on_the_same() {
    let spec = platform();
    for speed in SPEEDS {
        let mut a = machine(&spec, speed, CryptoKind::Symbolic);
        let mut os = Os::default();
        run(
            &mut a,
            &mut os,
            "seam0: movdir64b [0x1000@33] fill=0x11
             cpu0: movdir64b [0x2000] fill=0x1
             cpu0: store.wc [0x3000] 16 fill=0x3
             cpu1: store [0x4000] 8 0x4",
        );
        let saved = postcard::to_stdvec(&a).unwrap();
        let mut b: Machine = postcard::from_bytes(&saved).unwrap();
        assert!(a == b, "restored state differs");
        let rest = "cpu0: sfence
                    cpu2: load [0x3000] 64
                    td2: load [0x1000] 8
                    cpu3: load [0x4000] 8
                    cpu0: wbinvd";
        assert_eq!(run(&mut a, &mut os, rest), run(&mut b, &mut os, rest));
        assert!(a == b, "the suffix differs");
        assert_eq!(a.trace().events(), b.trace().events());
    }
}

#[test]
fn latencies_are_sums_of_their_parts() {
    let mut spec = platform();
    spec.cpu.packages = 1;
    let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    let mut os = Os::default();
    let mut time = |m: &mut Machine, agent: &str, text: &str| {
        let r = m.execute(id(agent), &op(agent, text), 0, &mut os);
        r.end.since(r.begin)
    };
    time(&mut m, "seam0", "movdir64b [0x1000@33] zero");
    time(&mut m, "seam0", "mfence");
    time(&mut m, "cpu0", "delay 10us");
    // Far from anything touched before: a closed row. A request waits for the next clock edge of the controller.
    let host = time(&mut m, "cpu0", "load [0x1234568000] 8");
    let latency = &spec.latency;
    let at = Addr::new(Hpa(0x1234568000), KeyId::TME).tagged();
    let sum = m.idle_latency(0, at, Level::Memory, 0) + m.unloaded_dram_read();
    assert!(m.idle_latency(0, at, Level::Memory, 0) > latency.xts);
    assert!(host >= sum && host < sum + Ps(417), "{host} is not {sum}");
    time(&mut m, "cpu0", "delay 10us");
    assert_eq!(time(&mut m, "cpu0", "load [0x1234568000] 8"), m.idle_latency(0, at, Level::L1, 0));
    assert_eq!(
        time(&mut m, "cpu1", "load [0x1234568000] 8"),
        m.idle_latency(1, at, Level::PeerClean, 0)
    );
    time(&mut m, "cpu1", "store [0x1234568000] 8");
    assert_eq!(
        time(&mut m, "cpu0", "load [0x1234568000] 8"),
        m.idle_latency(0, at, Level::PeerModified, 1)
    );
    // In Ci a private line is checked: once per fill (verification.md Q15).
    let td = time(&mut m, "td2", "load [0x1000] 8");
    assert!(td >= latency.xts + latency.mac + m.unloaded_dram_read());
    let mut li = spec.clone();
    li.memory.integrity = IntegrityMode::Li;
    let mut n = machine(&li, Speed::Timed, CryptoKind::Symbolic);
    time(&mut n, "seam0", "movdir64b [0x1000@33] zero");
    time(&mut n, "seam0", "mfence");
    time(&mut n, "cpu0", "delay 10us");
    let mut c = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    time(&mut c, "seam0", "movdir64b [0x1000@33] zero");
    time(&mut c, "seam0", "mfence");
    time(&mut c, "cpu0", "delay 10us");
    let (in_li, in_ci) =
        (time(&mut n, "td2", "load [0x1000] 8"), time(&mut c, "td2", "load [0x1000] 8"));
    assert_eq!(in_ci, in_li + latency.mac);
}

#[test]
fn a_partial_write_costs_one_read_and_one_write_at_the_dram() {
    let spec = platform();
    let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    run(&mut m, &mut Os::default(), "cpu0: store.uc [0x1000] 8 0x1");
    m.settle();
    assert_eq!(m.dram().stats().underfills, 1, "timing.md §1.4");
    assert!(m.now() > Ps::ZERO);
}

#[test]
fn every_keyid_width_works_from_its_first_private_keyid_to_its_last() {
    for maxpa in [40u8, 46, 52] {
        for keyid_bits in 1..=15u8 {
            let mut spec = platform();
            let first = 1u16 << (keyid_bits - 1);
            spec.keyid = KeyIdLayout {
                maxpa,
                keyid_bits,
                private_bits: 1,
                mktme_kids: first - 1,
                tdx_priv_kids: first,
            };
            let mut m = machine(&spec, Speed::Functional, CryptoKind::Symbolic);
            let top = (1u64 << spec.keyid.address_bits()) - 64;
            for keyid in [first, first + (first - 1)] {
                let got = run(
                    &mut m,
                    &mut Os::default(),
                    &format!(
                        "seam0: pconfig {keyid} set-random
                         seam0: movdir64b [{top:#x}@{keyid}] fill=0x11
                         seam0: mfence
                         seam0: load [{top:#x}@{keyid}] 8
                         cpu0: load [{top:#x}@{keyid}] 8
                         cpu0: load [{top:#x}] 8
                         hw: evict [{top:#x}]
                         hw: evict [{top:#x}@{keyid}]"
                    ),
                );
                assert_eq!(
                    got[..6],
                    ["pconfig ok", "done", "done", "data 0x1111111111111111", "pf rsvd", "zeros"],
                    "MAXPA {maxpa}, {keyid_bits} KeyID bits, KeyID {keyid}"
                );
            }
        }
    }
}

#[test]
fn the_speed_may_change_at_any_operation_without_changing_any_outcome() {
    let spec = platform();
    let lines = "seam0: movdir64b [0x1000@33] fill=0x11
                 seam0: mfence
                 td2: store [0x1000] 8 0x22
                 cpu0: store.wc [0x2000] 16 fill=0x3
                 cpu1: store [0x3000] 8 0x4
                 cpu0: sfence
                 hw: evict [0x1000@33]
                 user0: movnti [0x1008] 8 0x1
                 user0: mfence
                 td2: load [0x1000] 8
                 cpu3: load [0x3000] 8
                 user0: load [0x1000] 8";
    let mut want: Option<(Vec<String>, Vec<_>)> = None;
    for pattern in [0u32, u32::MAX, 0x5555, 0x3333, 0x0f0f, 0x1248] {
        let mut m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
        let mut os = Os::default();
        let mut got = Vec::new();
        for (i, line) in lines.lines().enumerate() {
            let timed = pattern >> i & 1 == 0;
            m.set_speed(if timed { Speed::Timed } else { Speed::Functional });
            got.extend(run(&mut m, &mut os, line));
        }
        m.settle();
        assert_eq!(m.conservation(), [""; 0]);
        let state: Vec<_> =
            [0x1000, 0x2000, 0x3000].map(|a| m.memory().line(Hpa(a).line())).to_vec();
        match &want {
            None => want = Some((got, state)),
            Some(want) => assert_eq!((got, state), *want, "{pattern:#x}"),
        }
    }
    let (outcomes, _) = want.unwrap();
    assert!(outcomes.iter().any(|o| o.starts_with("mc")), "{outcomes:?}");
}

#[test]
fn a_machine_check_happens_when_its_load_is_over() {
    let spec = platform();
    let text = "hw: inject-ue [0x1000]
                barrier
                cpu1: load [0x1000] 8
                cpu0: delay 10ns
                cpu0: delay 10ns
                cpu0: delay 500ns
                cpu0: mfence
                cpu2: movdir64b.page [0x4000]";
    let options = Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 1, log: true };
    let mut m = Machine::new(&spec, options).unwrap();
    let records = m.run(&program(text, Order::Concurrent), &mut Os::default());
    let got = by_item(&records);
    assert_eq!(got[1], "mc srar data-load panic");
    assert_eq!(got[2..5], ["done", "done", "done"], "what was under way is not undone");
    assert_eq!(got[5], "not-run panic");
    assert_eq!(got[6], "not-run panic", "an operation cut short has not completed");
    let check =
        m.trace().events().iter().find(|e| matches!(e.kind, EventKind::MachineCheck(_))).unwrap();
    let over = records.iter().find(|r| r.agent == id("cpu1")).unwrap();
    assert_eq!(check.at, over.end);
}

#[test]
fn the_class_of_data_does_not_depend_on_the_size_of_the_cache() {
    let (got, ..) = outcomes(
        "cpu0: load [0x1000] 8
         cpu0: store [0x1000] 8 0x5
         cpu0: load [0x1000] 8
         hw: evict [0x1000]
         cpu0: load [0x1000] 8",
    );
    assert!(got[0].starts_with("garbage"), "{}", got[0]);
    assert_eq!(got[2..], ["data 0x05", "done", "data 0x05"]);
}

#[test]
fn wbinvd_takes_the_time_that_its_write_backs_take() {
    use sim_core::platform::CacheGeometry;
    let mut spec = platform();
    spec.cpu.packages = 1;
    spec.cpu.l1d = CacheGeometry { size: 48 << 10, ways: 12 };
    spec.cpu.l2 = CacheGeometry { size: 1 << 20, ways: 16 };
    spec.cpu.snoop_filter.sets = 1 << 12;
    // Only the write-backs are to count.
    spec.latency.flush_walk = Ps::ZERO;
    let lines = 8192;
    let time = |dirty: bool, flush: Op| {
        let mut m = machine(&spec, Speed::Functional, CryptoKind::Symbolic);
        m.set_log(false);
        let mut os = Os::default();
        for n in 0..lines {
            let at = Addr::new(Hpa(0x1_0000_0000 + n * 64), KeyId::TME);
            let (bytes, ty) = (8, sim_core::op::MemType::Wb);
            let value = sim_core::op::Value::Num(n);
            let store = Op::Store { at, bytes, value, ty };
            let op = if dirty { store } else { Op::Load { at, bytes, ty } };
            m.execute(id("cpu0"), &op, 0, &mut os);
        }
        m.set_speed(Speed::Timed);
        let before = m.counts().controller_writes;
        let r = m.execute(id("cpu0"), &flush, 0, &mut os);
        (r.end.since(r.begin), m.counts().controller_writes - before)
    };
    for flush in [Op::Wbinvd, Op::Wbnoinvd] {
        let (clean, none) = time(false, flush);
        let (dirty, written) = time(true, flush);
        assert_eq!((none, written), (0, lines));
        // Two channels of two subchannels move a line in eight clocks each; what the write queues hold at the end is admitted.
        let queued = 4 * u64::from(spec.dram.write_queue);
        let least = Ps(416 * 8 * (lines - queued) / 4);
        assert!(dirty >= least, "{dirty} is less than {least}");
        assert!(dirty < least.times(3), "{dirty} is far more than {least}");
        assert!(clean < Ps::ns(100), "{clean}");
    }
}

/// The parts of `machine::uncore`'s page, added up by hand: core at 2 GHz, uncore at 2.5 GHz, two tiles side by side.
#[test]
fn an_idle_latency_is_the_sum_of_the_parts_on_its_way() {
    let mut spec = platform();
    spec.cpu.packages = 1;
    let m = machine(&spec, Speed::Timed, CryptoKind::Symbolic);
    // Nine and five core clocks; twice six, and twenty uncore clocks.
    let common = 7_000 + 32 * 400;
    let hop = 2 * 400;
    let mut tiles = std::collections::BTreeSet::new();
    for n in 0..64 {
        let at = Addr::new(Hpa(n * 64), KeyId::TME).tagged();
        // Slices lie in turn in the two tiles; cores 0 and 1 in the first, 2 and 3 in the second.
        let tile = u64::from(m.caches().slice_of(at.line())) % 2;
        tiles.insert(tile);
        for core in 0..4 {
            let mine = u64::from(core) / 2;
            let home = mine.abs_diff(tile);
            let sum = |level, peer| m.idle_latency(core, at, level, peer);
            assert_eq!(sum(Level::L1, 0), Ps(2_500));
            assert_eq!(sum(Level::L2, 0), Ps(4_500));
            assert_eq!(sum(Level::Llc, 0), Ps(common + 26 * 400 + 2 * home * hop));
            for peer in 0..4 {
                let theirs = u64::from(peer) / 2;
                let hops = home + tile.abs_diff(theirs) + theirs.abs_diff(mine);
                let clean = common + 124 * 400 + hops * hop;
                assert_eq!(sum(Level::PeerClean, peer), Ps(clean));
                assert_eq!(sum(Level::PeerModified, peer), Ps(clean + 5 * 400));
            }
            assert_eq!(sum(Level::PeerRemote, 0), Ps(common + 124 * 400 + 2 * home * hop + 91_000));
            // Both controllers of two channels lie at the left edge.
            let hops = home + tile + mine;
            assert_eq!(sum(Level::Memory, 0), Ps(common + 52 * 400 + hops * hop + 10_000));
        }
    }
    assert_eq!(tiles.len(), 2);
}
