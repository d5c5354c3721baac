use super::*;
use expect_test::expect;
use proptest::prelude::*;
use sim_core::Ps;
use sim_core::keyid::KeyId;
use sim_core::platform::{IntegrityMode, SpeedGrade};
use sim_core::units::Area;
use std::collections::BTreeSet;

fn named(name: &str) -> Platform {
    load(&Origin::Preset(name.to_owned()), &[]).unwrap()
}

fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn file(text: &str) -> SourceFile {
    SourceFile::from_bytes("my.toml", text.as_bytes()).unwrap()
}

/// Dotted names of the leaves of a JSON tree.
fn leaves(value: &serde_json::Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                leaves(inner, &format!("{prefix}.{key}"), out);
            }
        }
        _ => {
            out.insert(prefix.trim_start_matches('.').to_owned());
        }
    }
}

// ------------------------------------------------------------------------------------------------- the parameter table

#[test]
fn the_table_names_every_parameter_of_a_platform_and_nothing_else() {
    let mut want = BTreeSet::new();
    leaves(&serde_json::to_value(named("spr").spec).unwrap(), "", &mut want);
    assert!(want.remove("name") && want.remove("title"));
    let have: BTreeSet<String> = PARAMS.iter().map(|p| p.key.to_owned()).collect();
    assert_eq!(have, want);
}

#[test]
fn no_two_rows_of_the_table_name_the_same_parameter_and_none_is_a_group_of_others() {
    for (i, a) in PARAMS.iter().enumerate() {
        for b in PARAMS.iter().skip(i + 1) {
            assert_ne!(a.key, b.key);
            assert!(!b.key.starts_with(&format!("{}.", a.key)), "{} and {}", a.key, b.key);
        }
    }
}

#[test]
fn every_row_of_the_table_can_be_set_and_changes_the_platform() {
    let spr = named("spr");
    for (param, row) in PARAMS.iter().zip(&spr.params) {
        assert_eq!(param.key, row.key);
        // Pairs that are only valid together.
        let other: &[(&str, &str)] = match param.key {
            "keyid.keyid_bits" | "keyid.mktme_kids" => &[
                ("keyid.keyid_bits", "6"),
                ("keyid.mktme_kids", "31"),
                ("keyid.tdx_priv_kids", "32"),
            ],
            "keyid.private_bits" => &[("keyid.private_bits", "2"), ("keyid.mktme_kids", "31")],
            "keyid.tdx_priv_kids" => &[("keyid.tdx_priv_kids", "63")],
            "keyid.maxpa" => &[("keyid.maxpa", "46")],
            "cpu.packages" => &[("cpu.packages", "2")],
            "cpu.l1d.size" => &[("cpu.l1d.size", "96KiB")],
            "cpu.l1d.ways" => &[("cpu.l1d.ways", "6")],
            "cpu.l2.size" => &[("cpu.l2.size", "1MiB")],
            "cpu.llc.size" => &[("cpu.llc.size", "30MiB")],
            "cpu.llc.ways" => &[("cpu.llc.ways", "15"), ("cpu.llc.size", "15MiB")],
            "dram.watchdog" => &[("dram.watchdog", "65536")],
            "dram.refresh_postpone" => &[("dram.refresh_postpone", "2")],
            "dram.write_high" => &[("dram.write_high", "20")],
            "dram.write_queue" => &[("dram.write_queue", "64")],
            "dram.write_low" => &[("dram.write_low", "8")],
            "mce.mcacod_imc" => &[("mce.mcacod_imc", "0x80")],
            key => match (param.kind, row.value.as_str()) {
                (Kind::Bool, "true") => &[("", "false")],
                (Kind::Bool, _) => &[("", "true")],
                (Kind::Time, _) => &[("", "123ps")],
                (Kind::Size, _) => &[("", "4KiB")],
                (Kind::Frequency, _) => &[("", "4.1GHz")],
                (Kind::Area, _) => &[("", "0x80000000-0x90000000")],
                (Kind::Areas, _) => &[("", "0x1000-0x2000 0x4000-0x8000")],
                (Kind::Map, _) => &[("", "RoBaRaCoCh")],
                (Kind::Masks, _) => &[("", "0x40 0x80 0x100 0x200 0x400")],
                (Kind::Word(words), now) => {
                    let word = words.iter().find(|w| **w != now).unwrap();
                    let changed = load(&Origin::Preset("spr".into()), &set(&[(key, word)]));
                    assert_ne!(changed.unwrap().spec, spr.spec, "{key}");
                    continue;
                }
                (Kind::Int(_), "4") => &[("", "2")],
                (Kind::Int(_), _) => &[("", "4")],
            },
        };
        let pairs: Vec<_> =
            other.iter().map(|(k, v)| (if k.is_empty() { param.key } else { *k }, *v)).collect();
        let changed = load(&Origin::Preset("spr".into()), &set(&pairs)).unwrap();
        assert_ne!(changed.spec, spr.spec, "{}", param.key);
        let row = changed.params.iter().find(|r| r.key == pairs[0].0).unwrap();
        assert_eq!((row.source.as_str(), row.assumed), ("--set", true));
    }
}

#[test]
fn the_manual_lists_every_parameter_once() {
    let text = params_markdown();
    assert_eq!(text.lines().count(), PARAMS.len() + 2);
    for param in PARAMS {
        assert!(text.contains(&format!("| `{}` | ", param.key)), "{}", param.key);
        assert!(!param.meaning.is_empty() && !param.cite.is_empty());
    }
    let presets = presets_markdown().unwrap();
    assert_eq!(presets.lines().filter(|l| l.starts_with("| `")).count(), 3 * PARAMS.len());
}

// -------------------------------------------------------------------------------------------------------------- presets

/// Tags of the sheets that stand for a source somebody has read or derived from (timing.md §0, architecture.md §0).
const READ: &[&str] =
    &["[V]", "[D]", "[LX]", "[SRC]", "[MEAS]", "[WP]", "[BASE", "[MCEL", "KeyIDs seen", "dmesg of"];

#[test]
fn every_preset_loads_and_says_where_each_number_is_from() {
    for preset in PRESETS {
        let platform = named(preset.name);
        assert_eq!(platform.spec.name, preset.name);
        assert_eq!(platform.params.len(), PARAMS.len());
        for row in &platform.params {
            let place = format!("{}: {}: {}", preset.name, row.key, row.source);
            let cites = [".md §", "no source", "no GNR value", "the model's choice", "fitted: "];
            assert!(cites.iter().any(|c| row.source.contains(c)), "{place}");
            if !row.assumed {
                assert!(READ.iter().any(|tag| row.source.contains(tag)), "{place}");
                for word in ["[R]", "[A]", "assumed", "not found", "no source", "model's choice"] {
                    assert!(!row.source.contains(word), "{place}");
                }
            }
        }
    }
}

#[test]
fn the_presets_say_what_the_sheets_say() {
    let [spr, emr, gnr] = ["spr", "emr", "gnr"].map(|n| named(n).spec);
    // architecture.md §9 "KeyIDs seen".
    assert_eq!((spr.keyid.keyid_bits, spr.keyid.private_bits), (7, 1));
    assert_eq!((spr.keyid.private(0), spr.keyid.private(63)), (Some(KeyId(64)), Some(KeyId(127))));
    assert_eq!(spr.keyid.private(64), None);
    assert_eq!((emr.keyid.keyid_bits, emr.keyid.private_bits), (6, 1));
    assert_eq!((emr.keyid.private(0), emr.keyid.private(31)), (Some(KeyId(32)), Some(KeyId(63))));
    // architecture.md §8: the TDX module is built for MAXPA 52.
    assert_eq!([&spr, &emr, &gnr].map(|p| p.keyid.maxpa), [52; 3]);
    // architecture.md §5.6.
    assert_eq!([&spr, &emr, &gnr].map(|p| p.memory.erratum_pw_mce), [true, true, false]);
    for p in [&spr, &emr, &gnr] {
        assert_eq!((p.memory.integrity, p.memory.mac_bits), (IntegrityMode::Ci, 28));
        // timing.md §1.1.
        assert_eq!((p.cpu.l1d.size, p.cpu.l1d.ways), (48 << 10, 12));
        assert_eq!((p.cpu.l2.size, p.cpu.l2.ways, p.cpu.l2.sets()), (2 << 20, 16, 2048));
        // timing.md §1.2.
        assert_eq!(p.cpu.l1_clocks, 5);
        let l2 = p.cpu.core_clock.cycles(p.cpu.l2_clocks.into());
        assert!(l2.0.abs_diff(4_400) * 20 < 4_400, "{l2}");
        // timing.md §1.4, §1.1.
        assert_eq!((p.cpu.fill_buffers, p.cpu.superqueue), (16, 48));
        assert!(p.uncore.clock.mhz <= 2500);
        assert!((Ps::ns(81)..=Ps::ns(92)).contains(&p.uncore.remote));
        // timing.md §3 and §1.4.
        assert_eq!((p.latency.xts, p.latency.mac), (Ps::ns(10), Ps::ns(5)));
        assert_eq!(p.latency.write_post, Ps::ns(10));
        assert_eq!((p.cpu.cores, p.cpu.packages), (4, 1));
        assert_eq!(p.dram.channels, 8);
        // architecture.md §13 MC-20 and §6.2.
        assert_eq!((p.mce.mscod_td, p.mce.mscod_mac, p.mce.mcacod_imc), (0x82b, 0x82a, 0x90));
        assert_eq!((p.mce.bank_imc, p.mce.bank_dcu, p.mce.bank_ifu), (13, 1, 0));
    }
    // architecture.md §9, both checks: TDMRs of whole GiB around the convertible ranges.
    let tdmrs = |p: &sim_core::PlatformSpec| -> Vec<u64> {
        let gib = |a: &Area| a.end.div_ceil(1 << 30) - (a.base >> 30);
        p.tdx.cmrs.iter().map(gib).collect()
    };
    assert_eq!(tdmrs(&spr), [2, 126, 128]);
    assert_eq!(spr.tdx.cmrs[1], Area { base: 0x1_0000_0000, end: 0x20_6e00_0000 });
    assert_eq!(tdmrs(&emr), [2, 1021, 1023]);
    assert_eq!(gnr.tdx.cmrs, spr.tdx.cmrs);
    for p in [&spr, &emr, &gnr] {
        let tdx = &p.tdx;
        // architecture.md §7.4: 4 KiB granular, ordered, disjoint; §7.9 "TDH.SYS.INIT": no SMRR in them.
        assert!(tdx.cmrs.is_sorted_by(|a, b| a.end <= b.base));
        assert!(tdx.cmrs.iter().all(|a| a.base % 4096 == 0 && a.end % 4096 == 0));
        for own in [&tdx.seamrr, &tdx.smrr] {
            assert!(tdx.cmrs.iter().all(|a| !a.overlaps(own)), "{own}");
        }
        // architecture.md §8.
        assert_eq!((tdx.seamrr.base % (32 << 20), tdx.seamrr.bytes() % (32 << 20)), (0, 0));
        assert!(!tdx.seamrr.overlaps(&tdx.smrr));
        // timing.md §5.3, §6.
        assert!((Ps::ns(500)..=Ps::ns(1500)).contains(&tdx.cost.seamcall));
        let tdcall = tdx.cost.exit.0 + tdx.cost.tdcall.0 + tdx.cost.enter.0;
        assert!((Ps::ns(900).0..=Ps::ns(1200).0).contains(&tdcall), "{tdcall}");
    }
    assert_eq!((spr.cpu.llc.size, spr.cpu.llc.ways), (60 << 20, 15));
    assert_eq!((emr.cpu.llc.size, emr.cpu.llc.ways), (60 << 20, 15));
    assert_eq!((gnr.cpu.llc.size, gnr.cpu.llc.ways), (128 << 20, 16));
    assert_eq!([&spr, &emr, &gnr].map(|p| p.cpu.core_clock.mhz), [2200, 2500, 3000]);
    assert_eq!(
        [&spr, &emr, &gnr].map(|p| p.dram.grade),
        [SpeedGrade::Ddr5_4800, SpeedGrade::Ddr5_5200, SpeedGrade::Ddr5_6400]
    );
}

#[test]
fn each_preset_runs_in_either_integrity_mode() {
    for preset in PRESETS {
        for (word, mode) in [("ci", IntegrityMode::Ci), ("li", IntegrityMode::Li)] {
            let origin = Origin::Preset(preset.name.to_owned());
            let platform = load(&origin, &set(&[("memory.integrity", word)])).unwrap();
            assert_eq!(platform.spec.memory.integrity, mode);
        }
    }
}

#[test]
fn a_platform_survives_serialisation() {
    let platform = named("emr");
    let json = serde_json::to_string(&platform).unwrap();
    assert_eq!(serde_json::from_str::<Platform>(&json).unwrap(), platform);
}

// ------------------------------------------------------------------------------------------------- base and overrides

const SMALL: &str = "name = \"small\"\ntitle = \"A small one\"\nbase = \"spr\"\n";

#[test]
fn a_file_with_a_base_gives_only_the_differences() {
    let text = format!("{SMALL}[cpu]\ncores = {{ v = 2, src = \"mine\" }}\n");
    let platform = load(&Origin::File(file(&text)), &[]).unwrap();
    let spr = named("spr");
    assert_eq!((platform.spec.name.as_str(), platform.spec.cpu.cores), ("small", 2));
    let mut same = platform.spec.clone();
    same.name.clone_from(&spr.spec.name);
    same.title.clone_from(&spr.spec.title);
    same.cpu.cores = spr.spec.cpu.cores;
    assert_eq!(same, spr.spec);
    let changed: Vec<_> = platform.params.iter().filter(|r| !spr.params.contains(r)).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].source.as_str(), changed[0].assumed), ("mine", false));
}

#[test]
fn a_preset_as_a_file_is_the_same_platform() {
    for preset in PRESETS {
        let src = SourceFile::from_bytes(preset.file, preset.text.as_bytes()).unwrap();
        assert_eq!(load(&Origin::File(src), &[]).unwrap(), named(preset.name));
    }
}

#[test]
fn of_two_overrides_the_later_wins() {
    let pairs = set(&[("cpu.cores", "8"), ("cpu.cores", "0x10")]);
    let platform = load(&Origin::Preset("spr".into()), &pairs).unwrap();
    assert_eq!(platform.spec.cpu.cores, 16);
}

// ------------------------------------------------------------------------------------------------------------ bad input

fn shown(label: &str, result: Result<Platform, Diag>) -> String {
    match result {
        Ok(_) => format!("{label}\n    accepted\n"),
        Err(diag) => format!("{label}\n    {diag}\n"),
    }
}

#[test]
fn what_is_wrong_with_an_override_is_said_at_its_place() {
    let cases: &[&[(&str, &str)]] = &[
        &[("cpu.core", "8")],
        &[("frobnicate", "8")],
        &[("", "")],
        &[("cpu", "8")],
        &[("cpu.cores", "")],
        &[("cpu.cores", "-1")],
        &[("cpu.cores", "+1")],
        &[("cpu.cores", "0x+1")],
        &[("cpu.cores", "1e3")],
        &[("cpu.cores", "70000")],
        &[("cpu.cores", "99999999999999999999")],
        &[("cpu.cores", "0")],
        &[("cpu.cores", "129")],
        &[("cpu.packages", "3")],
        &[("cpu.rfo_poison_mc", "yes")],
        &[("latency.xts", "10")],
        &[("latency.xts", "10KiB")],
        &[("latency.xts", "nan")],
        &[("latency.xts", "-1ns")],
        &[("latency.xts", "9223372036854775808ps")],
        &[("latency.xts", "0.0001ns")],
        &[("cpu.core_clock", "0MHz")],
        &[("cpu.llc.size", "0B")],
        &[("cpu.llc.size", "99999999999999999999B")],
        &[("cpu.llc.ways", "16")],
        &[("cpu.llc.ways", "0")],
        &[("cpu.llc.ways", "17")],
        &[("memory.integrity", "none")],
        &[("memory.mac_bits", "29")],
        &[("keyid.maxpa", "53")],
        &[("keyid.keyid_bits", "16")],
        &[("keyid.private_bits", "8")],
        &[("keyid.keyid_bits", "6")],
        &[("keyid.tdx_priv_kids", "65")],
        &[("keyid.tdx_priv_kids", "0")],
        &[("dram.channels", "0")],
        &[("dram.channels", "3")],
        &[("dram.channels", "12")],
        &[("dram.ranks", "0")],
        &[("dram.bin", "c")],
        &[("dram.grade", "ddr5-5200"), ("dram.bin", "an")],
        &[("dram.width", "x16")],
        &[("dram.density", "64Gb")],
        &[("dram.faw", "13ns")],
        &[("dram.refresh", "on")],
        &[("dram.refresh_postpone", "9")],
        &[("dram.read_age", "0")],
        &[("dram.watchdog", "65535")],
        &[("dram.map", "")],
        &[("dram.map", "rowbank")],
        &[("dram.map", "channel=8-10; subchannel=6; bank_group=7,11^,13; bank=14-15")],
        &[(
            "dram.map",
            "channel=8-10; subchannel=6; bank_group=7,11,12; bank=13-14; column=16-22; row=23-38",
        )],
        &[(
            "dram.map",
            "channel=8-9,8; subchannel=6; rank=10; bank_group=7,11,12; bank=13-14; column=16-22; row=23-38",
        )],
        &[("dram.read_queue", "0")],
        &[("dram.write_queue", "0")],
        &[("dram.write_low", "26")],
        &[("dram.page_policy", "timeout")],
        &[("dram.grade", "ddr4-3200")],
        &[("mce.bank_imc", "60")],
        &[("tdx.cmrs", "")],
        &[("tdx.cmrs", "0x1000")],
        &[("tdx.cmrs", "0x1000-0x2000,0x3000-0x4000")],
        &[("tdx.cmrs", "0x1000-0x2000 4096-8192")],
        &[("tdx.seamrr", "")],
        &[("tdx.seamrr", "0x2000-0x2000")],
        &[("tdx.seamrr", "0x+1-0x2000")],
        &[("tdx.seamrr", "0x1-0x10000000000000000")],
        &[("tdx.smrr", "0x1000-0x2000 0x3000-0x4000")],
        &[("tdx.tlb_entries", "0")],
        &[("tdx.cost.enter", "1")],
        &[("tdx.cost", "1ns")],
        &[("latency.xts\n\u{1b}[2J", "1ns")],
        // The one that is wrong, the last one for the same key, the one in the same group.
        &[("cpu.cores", "8"), ("dram.channels", "3"), ("dram.ranks", "1")],
        &[("cpu.cores", "8"), ("cpu.cores", "0")],
        &[("latency.xts", "1ns"), ("cpu.llc.ways", "16"), ("dram.ranks", "1")],
    ];
    let mut out = String::new();
    for pairs in cases {
        let label = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        let result = load(&Origin::Preset("spr".into()), &set(pairs));
        out += &shown(&format!("{label:?}"), result);
    }
    out += &shown("--platform icx", load(&Origin::Preset("icx".into()), &[]));
    out += &shown("--platform (nothing)", load(&Origin::Preset(String::new()), &[]));
    expect![[r#"
        "cpu.core=8"
            --set:1:1: found unknown parameter `cpu.core`, expected a parameter: did you mean `cpu.cores`?
        "frobnicate=8"
            --set:1:1: found unknown parameter `frobnicate`, expected a parameter of `tdxsim platform show`
        "="
            --set:1:1: found unknown parameter ``, expected a parameter of `tdxsim platform show`
        "cpu=8"
            --set:1:1: found unknown parameter `cpu`, expected a parameter of `tdxsim platform show`
        "cpu.cores="
            --set:1:11: found ``, expected an integer from 0 to 65535
        "cpu.cores=-1"
            --set:1:11: found `-1`, expected an integer from 0 to 65535
        "cpu.cores=+1"
            --set:1:11: found `+1`, expected an integer from 0 to 65535
        "cpu.cores=0x+1"
            --set:1:11: found `0x+1`, expected an integer from 0 to 65535
        "cpu.cores=1e3"
            --set:1:11: found `1e3`, expected an integer from 0 to 65535
        "cpu.cores=70000"
            --set:1:11: found `70000`, expected an integer from 0 to 65535
        "cpu.cores=99999999999999999999"
            --set:1:11: found `99999999999999999999`, expected an integer from 0 to 65535
        "cpu.cores=0"
            --set:1:11: found `cpu.cores` = 0, expected 1 to 128
        "cpu.cores=129"
            --set:1:11: found `cpu.cores` = 129, expected 1 to 128
        "cpu.packages=3"
            --set:1:14: found `cpu.cores` = 4, expected a multiple of cpu.packages, which is 3
        "cpu.rfo_poison_mc=yes"
            --set:1:19: found `yes`, expected true or false
        "latency.xts=10"
            --set:1:13: found `10`, expected a time with one of the units ps, ns, us, ms, s
        "latency.xts=10KiB"
            --set:1:13: found `10KiB`, expected a time with one of the units ps, ns, us, ms, s
        "latency.xts=nan"
            --set:1:13: found `nan`, expected a time with one of the units ps, ns, us, ms, s
        "latency.xts=-1ns"
            --set:1:13: found `-1ns`, expected a time with one of the units ps, ns, us, ms, s
        "latency.xts=9223372036854775808ps"
            --set:1:13: found `9223372036854775808ps`, expected a whole number of picoseconds below 2^63
        "latency.xts=0.0001ns"
            --set:1:13: found `0.0001ns`, expected a whole number of picoseconds below 2^63
        "cpu.core_clock=0MHz"
            --set:1:16: found `0MHz`, expected a whole number of megahertz, from 1 to 2^64 - 1
        "cpu.llc.size=0B"
            --set:1:14: found `cpu.llc.size` = 0 bytes, expected a power of two of sets (at most 2^24) of 15 ways of 64 bytes
        "cpu.llc.size=99999999999999999999B"
            --set:1:14: found `99999999999999999999B`, expected a whole number of bytes below 2^64
        "cpu.llc.ways=16"
            --set:1:14: found `cpu.llc.size` = 62914560 bytes, expected a power of two of sets (at most 2^24) of 16 ways of 64 bytes
        "cpu.llc.ways=0"
            --set:1:14: found `cpu.llc.ways` = 0, expected 1 to 16
        "cpu.llc.ways=17"
            --set:1:14: found `cpu.llc.ways` = 17, expected 1 to 16
        "memory.integrity=none"
            --set:1:18: found `none`, expected one of ci, li
        "memory.mac_bits=29"
            --set:1:17: found `memory.mac_bits` = 29, expected 4 to 28
        "keyid.maxpa=53"
            --set:1:13: found `keyid.maxpa` = 53, expected 32 to 52
        "keyid.keyid_bits=16"
            --set:1:18: found `keyid.keyid_bits` = 16, expected 0 to 15 (MK_TME_KEYID_BITS is a 4-bit field)
        "keyid.private_bits=8"
            --set:1:20: found `keyid.private_bits` = 8, expected at most keyid_bits, which is 7
        "keyid.keyid_bits=6"
            --set:1:18: found `keyid.mktme_kids` = 63, expected 31: with 1 of 6 KeyID bits private, the first private KeyID is 32
        "keyid.tdx_priv_kids=65"
            --set:1:21: found `keyid.tdx_priv_kids` = 65, expected 1 to 64
        "keyid.tdx_priv_kids=0"
            --set:1:21: found `keyid.tdx_priv_kids` = 0, expected 1 to 64
        "dram.channels=0"
            --set:1:15: found `dram.channels` = 0, expected a power of two from 1 to 16
        "dram.channels=3"
            --set:1:15: found `dram.channels` = 3, expected a power of two from 1 to 16
        "dram.channels=12"
            --set:1:15: found `dram.channels` = 12, expected a power of two from 1 to 16
        "dram.ranks=0"
            --set:1:12: found `dram.ranks` = 0, expected a power of two from 1 to 4
        "dram.bin=c"
            --set:1:10: found `c`, expected one of b, an
        "dram.grade=ddr5-5200 dram.bin=an"
            --set:1:10: found `dram.bin` = an, expected b, as DDR5-5200 has no AN column (timing.md §2.1)
        "dram.width=x16"
            --set:1:12: found `x16`, expected one of x4, x8
        "dram.density=64Gb"
            --set:1:14: found `64Gb`, expected one of 8Gb, 16Gb, 24Gb, 32Gb
        "dram.faw=13ns"
            --set:1:10: found `13ns`, expected one of 32-clocks, 20ns
        "dram.refresh=on"
            --set:1:14: found `on`, expected one of all-bank, same-bank, off
        "dram.refresh_postpone=9"
            --set:1:23: found `dram.refresh_postpone` = 9, expected 0 to 8
        "dram.read_age=0"
            --set:1:15: found `dram.read_age` = 0, expected 1 to 16777216
        "dram.watchdog=65535"
            --set:1:15: found `dram.watchdog` = 65535, expected 65536 to 2147483648
        "dram.map="
            --set:1:10: found in `dram.map` nothing at character 1, expected hashed, RoBaRaCoCh, ChRaBaRoCo, MOP4CLXOR, or one of channel, subchannel, rank, bank_group, bank, column, row
        "dram.map=rowbank"
            --set:1:10: found in `dram.map` "rowbank" at character 1, expected hashed, RoBaRaCoCh, ChRaBaRoCo, MOP4CLXOR, or one of channel, subchannel, rank, bank_group, bank, column, row
        "dram.map=channel=8-10; subchannel=6; bank_group=7,11^,13; bank=14-15"
            --set:1:10: found in `dram.map` nothing at character 45, expected an address bit from 6 to 51
        "dram.map=channel=8-10; subchannel=6; bank_group=7,11,12; bank=13-14; column=16-22; row=23-38"
            --set:1:10: found in `dram.map` functions for 0 bits of rank, expected 1: dram.ranks
        "dram.map=channel=8-9,8; subchannel=6; rank=10; bank_group=7,11,12; bank=13-14; column=16-22; row=23-38"
            --set:1:10: found in `dram.map` that channel[0] ^ channel[2] is 0 for every address, expected a bijection
        "dram.read_queue=0"
            --set:1:17: found `dram.read_queue` = 0, expected 1 to 256
        "dram.write_queue=0"
            --set:1:18: found `dram.write_queue` = 0, expected 1 to 256
        "dram.write_low=26"
            --set:1:16: found `dram.write_low` = 26, expected 0 to 13
        "dram.page_policy=timeout"
            --set:1:18: found `timeout`, expected one of open, closed, adaptive
        "dram.grade=ddr4-3200"
            --set:1:12: found `ddr4-3200`, expected one of ddr5-4800, ddr5-5200, ddr5-5600, ddr5-6400
        "mce.bank_imc=60"
            --set:1:14: found `mce.bank_imc` = 60, expected 0 to 56
        "tdx.cmrs="
            accepted
        "tdx.cmrs=0x1000"
            --set:1:10: found `0x1000`, expected ranges as text, such as "0x100000-0x77800000 0x100000000-0x200000000"
        "tdx.cmrs=0x1000-0x2000,0x3000-0x4000"
            --set:1:10: found `0x1000-0x2000,0x3000-0x4000`, expected ranges as text, such as "0x100000-0x77800000 0x100000000-0x200000000"
        "tdx.cmrs=0x1000-0x2000 4096-8192"
            --set:1:10: found `0x1000-0x2000 4096-8192`, expected ranges as text, such as "0x100000-0x77800000 0x100000000-0x200000000"
        "tdx.seamrr="
            --set:1:12: found ``, expected a range as text, such as "0x100000-0x77800000", not empty
        "tdx.seamrr=0x2000-0x2000"
            --set:1:12: found `0x2000-0x2000`, expected a range as text, such as "0x100000-0x77800000", not empty
        "tdx.seamrr=0x+1-0x2000"
            --set:1:12: found `0x+1-0x2000`, expected a range as text, such as "0x100000-0x77800000", not empty
        "tdx.seamrr=0x1-0x10000000000000000"
            --set:1:12: found `0x1-0x10000000000000000`, expected a range as text, such as "0x100000-0x77800000", not empty
        "tdx.smrr=0x1000-0x2000 0x3000-0x4000"
            --set:1:10: found `0x1000-0x2000 0x3000-0x4000`, expected a range as text, such as "0x100000-0x77800000", not empty
        "tdx.tlb_entries=0"
            --set:1:17: found `tdx.tlb_entries` = 0, expected 1 to 65536
        "tdx.cost.enter=1"
            --set:1:16: found `1`, expected a time with one of the units ps, ns, us, ms, s
        "tdx.cost=1ns"
            --set:1:1: found unknown parameter `tdx.cost`, expected a parameter of `tdxsim platform show`
        "latency.xts\n\u{1b}[2J=1ns"
            --set:1:1: found unknown parameter `latency.xts��[2J`, expected a parameter of `tdxsim platform show`
        "cpu.cores=8 dram.channels=3 dram.ranks=1"
            --set:1:15: found `dram.channels` = 3, expected a power of two from 1 to 16
        "cpu.cores=8 cpu.cores=0"
            --set:1:11: found `cpu.cores` = 0, expected 1 to 128
        "latency.xts=1ns cpu.llc.ways=16 dram.ranks=1"
            --set:1:14: found `cpu.llc.size` = 62914560 bytes, expected a power of two of sets (at most 2^24) of 16 ways of 64 bytes
        --platform icx
            --platform:1:1: found `icx`, expected one of the platforms spr, emr, gnr
        --platform (nothing)
            --platform:1:1: found ``, expected one of the platforms spr, emr, gnr
    "#]].assert_eq(&out);
}

#[test]
fn what_is_wrong_with_a_platform_file_is_said_at_its_place() {
    let spr = PRESETS[0].text;
    let cases = [
        ("a file that says nothing", "# nothing\n".to_owned()),
        ("no title", "name = \"x\"\n".to_owned()),
        ("a name with a space", "name = \"a b\"\ntitle = \"t\"\n".to_owned()),
        ("a title of two lines", "name = \"a\"\ntitle = \"t\\nu\"\n".to_owned()),
        ("a base that is not a preset", "name = \"a\"\ntitle = \"t\"\nbase = \"icx\"\n".to_owned()),
        ("a missing parameter", spr.replace("cores = ", "# cores = ")),
        ("a missing table", spr.replace("[functional]\nop = ", "# ")),
        ("a missing deep parameter", spr.replace("l2.ways = ", "# ")),
        ("an unknown key", spr.replace("cores = ", "coers = ")),
        ("an unknown table", format!("{spr}[gpu]\n")),
        ("an unknown key of a parameter", spr.replace("{ v = 4,", "{ v = 4, unit = \"none\",")),
        ("a duplicate key", spr.replace("[memory]\n", "[memory]\nmac_bits = 1\n")),
        ("a duplicate table", format!("{spr}[mce]\n")),
        ("a bare number", spr.replace("cores = { v = 4, ", "cores = 4 # ")),
        ("no source", format!("{SMALL}[cpu]\ncores = {{ v = 2 }}\n")),
        ("an empty source", format!("{SMALL}[cpu]\ncores = {{ v = 2, src = \" \" }}\n")),
        ("no value", format!("{SMALL}[cpu]\ncores = {{ src = \"mine\" }}\n")),
        ("assumed = 1", format!("{SMALL}[cpu]\ncores = {{ v = 2, src = \"m\", assumed = 1 }}\n")),
        ("text for a number", format!("{SMALL}[cpu]\ncores = {{ v = \"2\", src = \"m\" }}\n")),
        ("a float", format!("{SMALL}[cpu]\ncores = {{ v = 2.0, src = \"m\" }}\n")),
        ("not a number", format!("{SMALL}[cpu]\ncores = {{ v = nan, src = \"m\" }}\n")),
        ("infinity", format!("{SMALL}[cpu]\ncores = {{ v = inf, src = \"m\" }}\n")),
        ("a negative number", format!("{SMALL}[cpu]\ncores = {{ v = -2, src = \"m\" }}\n")),
        (
            "a number beyond its field",
            format!("{SMALL}[cpu]\ncores = {{ v = 65536, src = \"m\" }}\n"),
        ),
        (
            "a number beyond TOML",
            format!("{SMALL}[cpu]\ncores = {{ v = 9223372036854775808, src = \"m\" }}\n"),
        ),
        ("a number for a time", format!("{SMALL}[latency]\nxts = {{ v = 10, src = \"m\" }}\n")),
        ("a time without unit", format!("{SMALL}[latency]\nxts = {{ v = \"10\", src = \"m\" }}\n")),
        (
            "a size for a time",
            format!("{SMALL}[latency]\nxts = {{ v = \"10KiB\", src = \"m\" }}\n"),
        ),
        ("a date", format!("{SMALL}[latency]\nxts = {{ v = 2025-01-01, src = \"m\" }}\n")),
        ("a value out of range", format!("{SMALL}[dram]\nchannels = {{ v = 3, src = \"m\" }}\n")),
        (
            "a value that does not fit the base",
            format!("{SMALL}[cpu]\nllc.ways = {{ v = 16, src = \"m\" }}\n"),
        ),
        ("a table for a group", format!("{SMALL}cpu = 3\n")),
        ("two tables of parameters", format!("{SMALL}[[cpu]]\n[[cpu]]\n")),
        ("TOML without end", format!("{SMALL}[cpu\n")),
        ("a key without value", format!("{SMALL}[cpu]\ncores\n")),
        ("a key without equals", format!("{SMALL}[cpu]\ncores 4\n")),
        ("text without end", "name = \"x\n".to_owned()),
        ("a carriage return alone", "name = \"x\"\rtitle = \"y\"\n".to_owned()),
        ("deep nesting", format!("a = {}", "[".repeat(100_000))),
        ("deep keys", format!("{} = 1", vec!["a"; 5000].join("."))),
    ];
    let mut out = String::new();
    for (label, text) in cases {
        out += &shown(label, load(&Origin::File(file(&text)), &[]));
    }
    expect![[r#"
        a file that says nothing
            my.toml:1:1: found a file without `name`, expected `name = "short-name"`
        no title
            my.toml:1:1: found a file without `title`, expected `title = "what the platform stands for"`
        a name with a space
            my.toml:1:8: found `a b`, expected a name of a-z, 0-9 and -
        a title of two lines
            my.toml:2:9: found `t�u`, expected text of one line, 1 to 200 bytes
        a base that is not a preset
            my.toml:3:8: found `icx`, expected one of the platforms spr, emr, gnr
        a missing parameter
            my.toml:20:1: found a table without `cpu.cores`, expected `cpu.cores = { v = …, src = "…" }`
        a missing table
            my.toml:1:1: found a file without `functional.op`, expected `functional.op = { v = …, src = "…" }`
        a missing deep parameter
            my.toml:26:1: found a table without `cpu.l2.ways`, expected `cpu.l2.ways = { v = …, src = "…" }`
        an unknown key
            my.toml:22:1: found unknown key `coers`, expected a known key: did you mean `cores`?
        an unknown table
            my.toml:145:2: found unknown key `gpu`, expected a known key: did you mean `cpu`?
        an unknown key of a parameter
            my.toml:22:18: found unknown key `unit`, expected one of the keys v, src, assumed
        a duplicate key
            my.toml:17:1: found `mac_bits` a second time, expected each key once
        a duplicate table
            my.toml:145:2: found `mce` a second time, expected each key once
        a bare number
            my.toml:22:9: found integer `4`, expected a table such as { v = 4, src = "where from" }
        no source
            my.toml:5:9: found a table without `src`, expected a table such as { v = 4, src = "where from" }
        an empty source
            my.toml:5:24: found ` `, expected text of one line that says where the value is from
        no value
            my.toml:5:9: found a table without `v`, expected a table such as { v = 4, src = "where from" }
        assumed = 1
            my.toml:5:39: found integer `1`, expected true or false
        text for a number
            my.toml:5:15: found text `2`, expected an integer from 0 to 65535
        a float
            my.toml:5:15: found float `2.0`, expected an integer from 0 to 65535
        not a number
            my.toml:5:15: found float `nan`, expected an integer from 0 to 65535
        infinity
            my.toml:5:15: found float `inf`, expected an integer from 0 to 65535
        a negative number
            my.toml:5:15: found integer `-2`, expected an integer from 0 to 65535
        a number beyond its field
            my.toml:5:15: found integer `65536`, expected an integer from 0 to 65535
        a number beyond TOML
            my.toml:5:15: found `9223372036854775808`, expected an integer from -2^63 to 2^63 - 1
        a number for a time
            my.toml:5:13: found integer `10`, expected a time as text, such as "4.4ns"
        a time without unit
            my.toml:5:13: found `10`, expected a time with one of the units ps, ns, us, ms, s
        a size for a time
            my.toml:5:13: found `10KiB`, expected a time with one of the units ps, ns, us, ms, s
        a date
            my.toml:5:13: found date `2025-01-01`, expected a time as text, such as "4.4ns"
        a value out of range
            my.toml:5:18: found `dram.channels` = 3, expected a power of two from 1 to 16
        a value that does not fit the base
            my.toml:5:18: found `cpu.llc.size` = 62914560 bytes, expected a power of two of sets (at most 2^24) of 16 ways of 64 bytes
        a table for a group
            my.toml:4:7: found integer `3`, expected a table of parameters
        two tables of parameters
            my.toml:4:1: found a list of tables, expected a table of parameters
        TOML without end
            my.toml:4:5: found unclosed table, expected `]`
        a key without value
            my.toml:5:6: found key with no value, expected `=`
        a key without equals
            my.toml:5:7: found key with no value, expected `=`
        text without end
            my.toml:1:10: found invalid basic string, expected `"`
        a carriage return alone
            my.toml:1:12: found carriage return must be followed by newline, expected newline
        deep nesting
            my.toml:1:85: found deeper nesting, expected at most 80 levels
        deep keys
            my.toml:1:1: found deeper nesting, expected at most 80 levels
    "#]].assert_eq(&out);
}

#[test]
fn line_ends_and_byte_order_mark_make_no_difference() {
    let spr = PRESETS[0].text;
    let crlf = spr.replace('\n', "\r\n");
    let marked = format!("\u{feff}{spr}");
    for text in [crlf, marked] {
        assert_eq!(load(&Origin::File(file(&text)), &[]).unwrap(), named("spr"));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(src) = SourceFile::from_bytes("x", &bytes) {
            prop_assert!(load(&Origin::File(src), &[]).is_err());
        }
    }

    #[test]
    fn no_override_panics(key in "\\PC{0,20}", index in 0..PARAMS.len(), value in "\\PC{0,20}|[0-9]{1,22}(ns|KiB|MHz)?") {
        let _ = load(&Origin::Preset("spr".into()), &set(&[(&key, &value)]));
        let _ = load(&Origin::Preset("gnr".into()), &set(&[(PARAMS[index].key, &value)]));
    }

    #[test]
    fn a_mutated_preset_loads_or_says_one_line(
        at in 0usize..PRESETS[1].text.len(), cut in 0usize..20, junk in "[\\[\\]{}=\"'a-z0-9.,\\n]{0,4}",
    ) {
        let text = PRESETS[1].text;
        let (from, to) = (text.floor_char_boundary(at), text.floor_char_boundary(at + cut));
        let mutated = format!("{}{junk}{}", &text[..from], &text[to..]);
        if let Err(diag) = load(&Origin::File(file(&mutated)), &[]) {
            let line = diag.to_string();
            prop_assert!(line.starts_with("my.toml:") && !line.contains('\n'), "{}", line);
            prop_assert!(diag.line >= 1 && diag.line <= mutated.lines().count() as u32 + 1);
        }
    }
}
