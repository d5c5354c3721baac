//! The command line as its users meet it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn tdxsim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdxsim"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = tdxsim(arguments);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", stderr(&output)))
}

/// A file for this test alone, below the build directory.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn the_first_command_tells_how_the_kernel_dies() {
    let output = tdxsim(&["run", "partial-write"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for part in ["0xbd80000000100134", "W-09", "movnti", "panic", "as expected"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 100), "a line is too long for a mail");
}

#[test]
fn a_program_that_calls_what_is_not_modelled_ends_with_4_and_a_setup_that_is_refused_with_2() {
    let with = |tables: &str, program: &str| {
        format!(
            "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = '{program}'\n\
             [expect]\nfinal = [\"births 0\"]\n{tables}"
        )
    };
    let ready = "[tdx]\nstate = \"ready\"\n";
    let unknown = file("unknown.toml", with(ready, "cpu0 : tdh.export.abort").as_bytes());
    let output = tdxsim(&["run", unknown.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).contains("not modelled: TDH.EXPORT.ABORT"), "{}", stdout(&output));

    let pamt = format!("{ready}pamt = \"0x79000000\"\n");
    let refused = file("refused.toml", with(&pamt, "cpu0 : mfence").as_bytes());
    let output = tdxsim(&["run", refused.to_str().unwrap()]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    let said = stderr(&output);
    assert!(
        said.contains(
            "refused.toml:9:2: found TDH.SYS.CONFIG: 0xc0000a1100000200 TDX_PAMT_OUTSIDE_CMRS"
        ),
        "{said}"
    );
}

#[test]
fn the_narration_of_a_killed_td_has_its_calls_by_name() {
    let text = stdout(&tdxsim(&["run", "td-killed", "--platform", "spr", "--integrity", "ci"]));
    for part in [
        "= 0x6000000500000000 TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE",
        "# rcx A_VP0",
        "-> core 0 enters A_VP0",
        "<- core 0 leaves A_VP0",
        "0xe000060400000000 TDX_TD_FATAL",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let report =
        json(&["run", "td-killed", "--platform", "spr", "--integrity", "ci", "--format", "json"]);
    let steps = report["runs"][0]["steps"].as_array().unwrap();
    let enter = steps.iter().find(|s| s["step"] == "cpu0.1").unwrap();
    assert_eq!(enter["call"]["name"], "TDH.VP.ENTER");
    assert_eq!(enter["call"]["status"], "0x6000000500000000");
    assert_eq!(enter["call"]["operands"][0]["region"], "A_VP0");
}

#[test]
fn on_a_part_without_the_erratum_the_kernel_lives() {
    let output = tdxsim(&["run", "partial-write", "--platform", "gnr"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(!text.contains("mc srar data-load panic (seen"), "{text}");
}

#[test]
fn the_whole_library_is_as_expected_timed_and_functional_and_agrees_with_the_reference_model() {
    // The check replays what the timed run logged; it changes nothing of that run.
    for args in [&["--check"][..], &["--speed", "functional"]] {
        let report = json(&[&["run", "--all", "--format", "json"], args].concat());
        let runs = report["runs"].as_array().unwrap();
        assert!(runs.len() > 400, "only {} runs", runs.len());
        let bad: Vec<_> = runs
            .iter()
            .filter(|r| r["verdict"] != "pass")
            .map(|r| (r["scenario"].clone(), r["platform"].clone(), r["expectations"].clone()))
            .collect();
        assert!(bad.is_empty(), "{args:?}: {bad:#?}");
        assert_eq!(report["verdict"], "pass");
        let checked = |run: &serde_json::Value| {
            let notes = run["notes"].as_array().unwrap();
            let told = "checked against the reference model";
            notes.iter().any(|n| n.as_str().unwrap().contains(told))
        };
        assert_eq!(runs.iter().all(checked), args == ["--check"]);
    }
}

#[test]
fn same_inputs_give_the_same_bytes_with_any_number_of_threads() {
    let run = |threads: &str| {
        Command::new(env!("CARGO_BIN_EXE_tdxsim"))
            .args(["run", "--all", "--format", "json"])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap()
            .stdout
    };
    let one = run("1");
    assert!(one.len() > 100_000);
    assert_eq!(one, run("7"));
}

#[test]
fn the_seed_changes_keys_and_nothing_else() {
    let with = |seed| json(&["run", "measured-other-key", "--seed", seed, "--format", "json"]);
    let (a, b) = (with("1"), with("2"));
    assert_eq!(a["verdict"], "pass");
    assert_eq!(b["verdict"], "pass");
    assert_ne!(a["seed"], b["seed"]);
}

#[test]
fn a_failed_expectation_is_exit_one() {
    let text = include_str!("../../scenarios/library/partial-write.toml")
        .replace("births 1\"", "births 7\"");
    let path = file("wrong-expectation.toml", text.as_bytes());
    let output = tdxsim(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).contains("NOT MET"));
}

#[test]
fn a_broken_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tdxsim"))
        .args(["run", "--all", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_exit_six() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tdxsim"))
        .args(["list"])
        .stdout(full)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(6));
}

#[test]
fn a_counterexample_that_cannot_be_written_is_printed_and_ends_with_6() {
    let inside_a_file = file("no-directory", b"").join("cx.toml");
    let to = inside_a_file.to_str().unwrap();
    let found =
        &["explore", "forgotten-flush-to-shared", "--platform", "gnr", "--integrity", "ci"][..];
    for (arguments, says) in [
        (found, "COUNTEREXAMPLE FOUND"),
        (&["explore", "--study", "physical-attacks"][..], "| attack"),
    ] {
        let output = tdxsim(&[arguments, &["--write", to][..]].concat());
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(says), "{arguments:?}: {}", stdout(&output));
        assert!(stderr(&output).contains("no-directory/cx.toml: "), "{}", stderr(&output));
    }
}

#[test]
fn a_scenario_that_only_allows_is_explored_and_not_run() {
    let with = |outcome: &str| {
        let text = format!(
            "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\norder = \"concurrent\"\n\
             program = \"\"\"\n  cpu0 : store [P0] 8 1\n  cpu1 : store [P0] 8 2\n  barrier\n  cpu0 : load [P0] 8\n\"\"\"\n\
             [regions]\nP0 = {{ base = \"0x10000000\", size = \"4KiB\" }}\n[allow]\n\"cpu0.2\" = \"{outcome}\"\n"
        );
        file("allow.toml", text.as_bytes())
    };
    for (outcome, code) in [("data 0x1", 0), ("data 0x2", 0), ("data 0x3", 1)] {
        let path = with(outcome);
        let output = tdxsim(&["explore", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{outcome}: {}", stdout(&output));
        let output = tdxsim(&["run", path.to_str().unwrap()]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
        assert!(stderr(&output).contains("nothing but [allow]"), "{}", stderr(&output));
    }
}

#[test]
fn a_real_trace_runs_on_the_host_and_in_a_td() {
    let trace = "scenarios/data/lackey-true.trace.gz";
    let host = json(&["replay", trace, "--format", "json"]);
    let td = json(&["replay", trace, "--td", "--format", "json"]);
    for report in [&host, &td] {
        assert_eq!(report["verdict"], "pass");
        assert_eq!(report["births"], 0);
        assert_eq!(report["controller_partial_writes"], 0);
        assert!(report["records"].as_u64().unwrap() > 50_000);
        let hits: u64 = report["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| h["accesses"].as_u64().unwrap())
            .sum();
        assert_eq!(report["accesses"].as_u64().unwrap(), hits);
        assert!(report["controller_reads"].as_u64().unwrap() > 0);
    }
    assert_eq!(host["pages_accepted"], 0);
    assert_eq!(td["pages_accepted"], td["pages"]);
    assert_eq!(host["records"], td["records"]);
    assert_eq!(td["keyid"], 65);
}

#[test]
fn traces_of_other_simulators_run() {
    for (trace, format, is_named) in [
        ("scenarios/data/ramulator-loadstore.trace", "ramulator", false),
        ("scenarios/data/ramulator-dram.trace", "ramulator-dram", false),
        ("scenarios/data/simple-o3.trace", "simple-o3", false),
        ("scenarios/data/dramsim3.trace", "dramsim3", false),
        ("scenarios/data/usimm.trace", "usimm", false),
        ("scenarios/data/dramsys.stl", "dramsys", true),
        ("scenarios/data/dramsys.rstl", "dramsys-relative", true),
        ("scenarios/data/champsim.trace.xz", "champsim", false),
        ("scenarios/data/gem5.trace.gz", "gem5", false),
    ] {
        let mut arguments = vec!["replay", trace, "--format", "json"];
        if is_named {
            arguments.extend(["--trace-format", format]);
        }
        let report = json(&arguments);
        assert_eq!(report["format"], format);
        assert_eq!(report["verdict"], "pass");
        assert!(report["accesses"].as_u64().unwrap() >= report["records"].as_u64().unwrap());
    }
}

#[test]
fn a_trace_waits_for_its_cycles_times_and_delays() {
    // 199 records behind the first: cycles and delays of DDR5-4800's 2400 MHz clock, ticks of a picosecond.
    for (trace, format, at_least) in [
        ("scenarios/data/dramsim3.trace", "dramsim3", (30 + 7 * 199) * 1_000_000 / 2400),
        ("scenarios/data/dramsys.stl", "dramsys", (30 + 7 * 199) * 1_000_000 / 2400),
        ("scenarios/data/dramsys.rstl", "dramsys-relative", 15 * 78 * 1_000_000 / 2400),
        ("scenarios/data/gem5.trace.gz", "gem5", 199_000),
    ] {
        let report = json(&["replay", trace, "--trace-format", format, "--format", "json"]);
        let simulated = report["simulated_ps"].as_u64().unwrap();
        assert!(simulated >= at_least, "{trace}: {simulated} ps");
    }
}

#[test]
fn explain_decodes_the_three_kinds() {
    for (input, parts) in [
        (&["0xbd80000000100134"][..], &["SRAR", "0x0134", "data load"][..]),
        (&["0xC000030000000001"], &["PAGE_METADATA_INCORRECT", "RCX"]),
        (&["0xbd80000000100134", "0xf"], &["RIPV", "unrecoverable area of kernel"]),
    ] {
        let mut arguments = vec!["explain"];
        arguments.extend(input);
        let output = tdxsim(&arguments);
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for part in parts {
            assert!(text.contains(part), "{input:?}: {part} is missing:\n{text}");
        }
    }
}

// ------------------------------------------------------------------------------------------------------- bad input

/// Runs what must be refused: exit 2, one message, nothing on stdout.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = tdxsim(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout: {}", stdout(&output));
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// The same for a file: one line that names file, line and column, what was found and what was expected.
#[track_caller]
fn refused_file(command: &str, name: &str, content: &[u8]) -> String {
    let path = file(name, content);
    let message = refused(&[command, path.to_str().unwrap()]);
    assert_eq!(message.lines().count(), 1, "{message}");
    let rest = message.split(name).nth(1).unwrap_or_else(|| panic!("no file name in {message}"));
    let mut parts = rest.trim_start_matches(':').split(':');
    for what in ["line", "column"] {
        let number = parts.next().unwrap();
        assert!(number.parse::<u64>().is_ok_and(|n| n > 0), "no {what} in {message}");
    }
    assert!(message.contains("found") && message.contains("expected"), "{message}");
    message
}

fn good() -> String {
    include_str!("../../scenarios/library/partial-write.toml").to_owned()
}

#[test]
fn bad_scenario_files_are_refused_with_one_line() {
    let cases: &[(&str, String, &str)] = &[
        ("unknown-key.toml", good().replace("title =", "titel ="), "titel"),
        ("wrong-unit.toml", good().replace("4KiB", "4ns"), "4ns"),
        ("keyid-range.toml", good().replace("@priv1]", "@99999]"), "99999"),
        ("no-such-private.toml", good().replace("@priv1]", "@priv4000]"), "priv4000"),
        ("beyond-maxpa.toml", good().replace("[P0+0x8]", "[0xffffffffffffff]"), "address"),
        (
            "overlap.toml",
            good().replace(
                "[regions]\n",
                "[regions]\nP1 = { base = \"0x10000800\", size = \"4KiB\" }\n",
            ),
            "P1",
        ),
        ("beyond-region.toml", good().replace("[P0+0x8]", "[P0+0x1000]"), "P0"),
        ("no-such-op.toml", good().replace("sfence", "sfense"), "sfence"),
        (
            "no-such-agent.toml",
            good().replace("\"cpu1.1\" = \"mc srar", "\"cpu9.1\" = \"mc srar"),
            "cpu9",
        ),
        ("empty.toml", String::new(), "empty"),
        ("nul.toml", good().replace("title", "ti\0tle"), "NUL"),
    ];
    for (name, text, part) in cases {
        let message = refused_file("run", name, text.as_bytes());
        assert!(message.contains(part), "{name}: {message}");
    }
    let mut not_utf8 = good().into_bytes();
    not_utf8[30] = 0xff;
    refused_file("run", "not-utf8.toml", &not_utf8);
}

#[test]
fn line_ends_and_a_byte_order_mark_have_a_defined_outcome() {
    let crlf = file("crlf.toml", good().replace('\n', "\r\n").as_bytes());
    assert_eq!(tdxsim(&["run", crlf.to_str().unwrap()]).status.code(), Some(0));
    let bom = file("bom.toml", format!("\u{feff}{}", good()).as_bytes());
    assert_eq!(tdxsim(&["run", bom.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn a_hundred_megabytes_of_garbage_are_refused_at_once() {
    // Not text, no newline, no repeating pattern that a reader could skip.
    let mut state = 1u64;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(100 << 20)
    .collect();
    let path = file("garbage.bin", &garbage);
    let name = path.to_str().unwrap();
    for command in ["run", "replay"] {
        let message = refused(&[command, name]);
        assert!(message.len() < 1000, "{message}");
    }
    let letters = vec![b'a'; 100 << 20];
    fs::write(&path, letters).unwrap();
    for command in ["run", "replay"] {
        let message = refused(&[command, name]);
        assert!(message.len() < 1000, "{message}");
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn bad_traces_are_refused_with_one_line() {
    let cases: &[(&str, &[u8])] = &[
        ("empty.trace", b""),
        ("binary.trace", b"\x7fELF\x02\x01\x01\0\0\0\0\0"),
        ("truncated.trace", b" L 1ffefff8f8,8\n S 1ffe"),
        ("mixed.trace", b"LD 0x1000\nXX 0x1000\n"),
        ("wide.trace", b"LD 0xfffffffffffffffff\n"),
        ("beyond.trace", b"LD 0xfffffffffffffff0\n"),
        ("backwards.trace", b"0x1000 READ 10\n0x2000 READ 5\n"),
    ];
    for (name, content) in cases {
        refused_file("replay", name, content);
    }
    let whole =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/data/lackey-true.trace.gz"))
            .unwrap();
    let path = file("truncated.trace.gz", &whole[..whole.len() / 2]);
    let message = refused(&["replay", path.to_str().unwrap()]);
    assert!(message.contains("gzip"), "{message}");
    let path = file("cut.trc", b"gem5\x09\x0a\x01x\x18");
    let message = refused(&["replay", path.to_str().unwrap()]);
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(":header at byte 4: found the end of the file"), "{message}");
}

#[test]
fn bad_arguments_are_refused() {
    for arguments in [
        &["run"][..],
        &["run", "no-such-scenario"],
        &["run", "/no/such/file.toml"],
        &["run", "partial-write", "--platform", "skx"],
        &["run", "partial-write", "--set", "cpu.cores"],
        &["run", "partial-write", "--set", "cpu.cores=0"],
        &["run", "partial-write", "--set", "cpu.corse=4"],
        &["run", "partial-write", "--set", "latency.xts=4"],
        &["run", "partial-write", "--seed", "-1"],
        &["run", "partial-write", "--all"],
        &["replay", "/no/such/trace"],
        &["replay", "scenarios/data/ramulator-vector.trace"],
        &["replay", "scenarios/data/dramsys.stl"],
        &["replay", "scenarios/data/dramsim3.trace", "--trace-format", "ramulator"],
        &["replay", "scenarios/data/dramsim3.trace", "--trace-format", "dramsim4"],
        &["replay", "scenarios/data/lackey-true.trace.gz", "--keyid", "64"],
        &["replay", "scenarios/data/lackey-true.trace.gz", "--keyid", "65535"],
        &["explain", "hello"],
        &["platform", "show", "skx"],
        &["frobnicate"],
    ] {
        let message = refused(arguments);
        assert!(!message.is_empty());
    }
}

#[test]
fn host_software_with_a_private_keyid_is_a_fault_of_the_model_not_of_the_file() {
    let output = tdxsim(&["run", "host-private-keyid", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("pf rsvd"));
}

/// `cargo test -p tdxsim --features planted-fault`
#[cfg(feature = "planted-fault")]
#[test]
fn a_fault_that_only_the_reference_model_sees_ends_a_checked_run_with_exit_code_3() {
    let path = std::env::temp_dir().join(format!("tdxsim-planted-{}.toml", std::process::id()));
    // The line was never written: the read for ownership finds no TD bit (RC-01), and the store of all of it heals it.
    let text = "[scenario]\nname = \"planted\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\n\
                program = '''\ntd0 : store [0x1000] 64 0x1\nhw : evict [0x1000@priv1]\ncpu1 : mfence\n'''\n\
                [agents]\ntd0 = { kind = \"td\", core = 0, keyid = \"priv1\" }\n[expect]\nfinal = [\"births 1\"]\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let plant = ["--plant", "WriteKeepsTd"];
    for (arguments, code) in [
        (vec!["run", file, "--check"], 0),
        // Nothing that the program expects is touched by it.
        (["run", file].into_iter().chain(plant).collect(), 0),
        (["run", file, "--check"].into_iter().chain(plant).collect(), 3),
    ] {
        let output = tdxsim(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        // Both sides, and the shortest prefix: what comes behind it is not told.
        let told =
            ["broken: not what the reference model does", "the machine has", "the reference"];
        assert!(code != 3 || told.iter().all(|t| text.contains(t)), "{text}");
        let prefix = text.lines().find(|l| l.contains("the operations up to there"));
        assert_eq!(prefix.is_some(), code == 3, "{text}");
        assert!(!prefix.is_some_and(|l| l.contains("mfence")), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn invariants_are_exercised_by_group_and_what_is_not_there_is_refused() {
    let output = tdxsim(&["invariants", "--effort", "small", "--group", "L"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(
        text.ends_with("13 hold, 0 broken, 0 not exercised, 0 pending, 0 left out\n"),
        "{text}"
    );
    let pending = tdxsim(&["invariants", "--group", "V"]);
    assert_eq!(pending.status.code(), Some(0));
    assert!(stdout(&pending).contains("9 pending"), "{}", stdout(&pending));
    let unknown = tdxsim(&["invariants", "--id", "X9"]);
    assert_eq!((unknown.status.code(), stdout(&unknown)), (Some(2), String::new()));
    assert!(stderr(&unknown).contains("found `X9`, expected an invariant"), "{}", stderr(&unknown));
}
