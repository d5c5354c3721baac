//! `tdxsim dram`, `replay --dram-only` and command traces, as their users meet them.

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

/// Stdout of a run that must succeed.
fn good(arguments: &[&str]) -> String {
    let output = tdxsim(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a run that must be refused.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = tdxsim(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed");
    String::from_utf8(output.stderr).unwrap()
}

/// A directory for one test alone, below the build directory.
fn dir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dram").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn names(dir: &PathBuf) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_three_forms_say_the_same() {
    let run =
        |format| good(&["dram", "--pattern", "mix", "--requests", "5000", "--format", format]);
    let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    let (human, csv) = (run("human"), run("csv"));
    assert_eq!(json["schema"], "tdxsim.dram/1");
    assert_eq!(json["verdict"], "pass");
    let rows = json["statistics"].as_array().unwrap();
    assert!(rows.len() > 30);
    for row in rows {
        let (name, value) = (row["name"].as_str().unwrap(), row["value"].as_u64().unwrap());
        assert!(csv.contains(&format!("\n{name},{value},")), "{name} in csv");
        if value == 0 {
            assert!(!human.contains(&format!("    {name} ")), "{name}: zeros are left out");
            continue;
        }
        let shown = human.lines().find(|l| l.trim().starts_with(&format!("{name} "))).unwrap();
        assert!(shown.contains(&format!(" {value} ")), "{shown}");
    }
    let cycles = json["cycles"].as_u64().unwrap();
    assert!(csv.contains(&format!("\ncycles,{cycles},clocks\n")));
    assert!(human.contains(&format!(" {cycles}  ")));
}

#[test]
fn patterns_run_on_one_channel_until_the_user_says_more_and_traces_on_the_platforms() {
    let channels = |arguments: &[&str]| {
        let mut all = vec!["dram", "--format", "json"];
        all.extend(arguments);
        let json: serde_json::Value = serde_json::from_str(&good(&all)).unwrap();
        json["channels"].as_u64().unwrap()
    };
    assert_eq!(channels(&["--pattern", "random-read", "--requests", "10"]), 1);
    let four = ["--pattern", "random-read", "--requests", "10", "--set", "dram.channels=4"];
    assert_eq!(channels(&four), 4);
    assert_eq!(channels(&["scenarios/data/dramsim3.trace"]), 8);
}

#[test]
fn replay_with_dram_only_is_the_same_path() {
    let trace = "scenarios/data/ramulator-loadstore.trace";
    assert_eq!(good(&["dram", trace]), good(&["replay", trace, "--dram-only"]));
    let td = good(&["replay", trace, "--dram-only", "--td"]);
    assert!(td.contains("in a TD, HKID 65"), "{td}");
}

#[test]
fn no_skip_gives_the_same_bytes() {
    for pattern in ["random-read", "mix", "chain", "sparse", "partial-write"] {
        let run = ["dram", "--pattern", pattern, "--requests", "300", "--format", "json"];
        let mut every = run.to_vec();
        every.push("--no-skip");
        assert!(good(&run) == good(&every), "{pattern}");
    }
    let json = ["--format", "json"];
    for run in [&["replay", "scenarios/data/dramsim3.trace"][..], &["run", "partial-write"]] {
        let short = [run, &json].concat();
        let every = [run, &json, &["--no-skip"]].concat();
        assert!(good(&short) == good(&every), "{run:?}");
    }
}

#[test]
fn the_same_command_gives_the_same_bytes_and_another_seed_others() {
    let run =
        |seed| good(&["dram", "--pattern", "random-read", "--requests", "3000", "--seed", seed]);
    assert_eq!(run("1"), run("1"));
    assert_ne!(run("1"), run("2"));
}

#[test]
fn a_command_trace_appears_whole_and_nothing_is_left_beside_it() {
    let dir = dir("whole");
    let file = dir.join("t.txt");
    let path = file.to_str().unwrap();
    let base = ["dram", "--pattern", "mix", "--requests", "500", "--command-trace", path];
    good(&base);
    let own = fs::read_to_string(&file).unwrap();
    assert!(own.starts_with("# tdxsim command trace 1\n# rules: tCK=416ps "));
    assert!(own.lines().last().unwrap().starts_with("# end "));
    // Over what was there.
    let mut other = base.to_vec();
    other.extend(["--command-trace-format", "dramsim3"]);
    good(&other);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), own.lines().count() - 3);
    let words = [
        "activate",
        "precharge",
        "precharge_all",
        "read",
        "read_p",
        "write",
        "write_p",
        "refresh",
        "refresh_bank",
    ];
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields.len(), 8, "{line}");
        assert!(words.contains(&fields[1]), "{line}");
        assert!(fields[6].starts_with("0x") && fields[7].starts_with("0x"), "{line}");
    }
    assert_eq!(names(&dir), ["t.txt"]);
}

#[test]
fn a_run_that_fails_leaves_no_command_trace_and_what_was_there_stays() {
    let dir = dir("half");
    let bad = dir.join("bad.trace");
    fs::write(&bad, "LD 0\nLD 64\nLD what\n").unwrap();
    let file = dir.join("t.txt");
    fs::write(&file, "before").unwrap();
    let (bad, path) = (bad.to_str().unwrap(), file.to_str().unwrap());
    for command in [&["dram"][..], &["replay"], &["replay", "--dram-only"]] {
        let mut arguments = command.to_vec();
        arguments.extend([bad, "--command-trace", path]);
        let said = refused(&arguments, 2);
        assert!(said.contains("bad.trace:3:4: found `what`"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    assert_eq!(names(&dir), ["bad.trace", "t.txt"]);
}

#[test]
fn addresses_beyond_the_installed_rows_were_called_a_fault_of_the_simulator() {
    let args = ["dram", "--pattern", "random-read", "--requests", "200", "--footprint", "8TiB"];
    let out = good(&[&args[..], &["--check"]].concat());
    assert!(out.contains("commands checked, 0 violations"), "{out}");
}

#[test]
fn a_pattern_that_outlives_simulated_time_is_undecided_and_its_counts_add_up() {
    for gap in ["1000000000000000", "18446744073709551615"] {
        let args = ["dram", "--pattern", "sparse", "--requests", "100", "--gap", gap];
        let Output { status, stdout: out, .. } = tdxsim(&args);
        let code = status.code();
        assert_eq!(code, Some(5), "{}", String::from_utf8_lossy(&out));
        assert!(!String::from_utf8_lossy(&out).contains("BROKEN"));
    }
}

#[test]
fn a_command_trace_that_cannot_be_written_is_exit_six() {
    let pattern = ["dram", "--pattern", "mix", "--requests", "5000", "--command-trace"];
    for (path, what) in [("/dev/full", "No space left"), ("no/such/dir/x", "No such file")] {
        let mut arguments = pattern.to_vec();
        arguments.push(path);
        let said = refused(&arguments, 6);
        assert!(said.starts_with(&format!("tdxsim: cannot write {path}: {what}")), "{said}");
    }
    let run = ["run", "partial-write", "--command-trace", "/dev/full"];
    assert!(refused(&run, 6).contains("cannot write /dev/full"));
    let trace = "scenarios/data/dramsim3.trace";
    assert!(refused(&["replay", trace, "--command-trace", "/dev/full"], 6).contains("/dev/full"));
}

#[test]
fn what_is_no_regular_file_is_written_to_and_not_replaced() {
    good(&["dram", "--pattern", "mix", "--requests", "50", "--command-trace", "/dev/null"]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn check_says_how_many_commands_it_saw() {
    let text = good(&["dram", "--pattern", "mix", "--requests", "2000", "--check"]);
    let line = text.lines().find(|l| l.contains("commands checked")).unwrap();
    assert!(line.ends_with(" commands checked, 0 violations"), "{line}");
    let commands: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(commands > 4000, "{line}");
}

#[test]
fn run_and_replay_write_commands_too() {
    let dir = dir("others");
    let (one, two) = (dir.join("run.txt"), dir.join("replay.txt"));
    good(&["run", "partial-write", "--command-trace", one.to_str().unwrap()]);
    let trace = "scenarios/data/dramsim3.trace";
    good(&["replay", trace, "--command-trace", two.to_str().unwrap()]);
    for file in [one, two] {
        let text = fs::read_to_string(&file).unwrap();
        for part in ["# rules: ", " ACT ", " RD", "# end "] {
            assert!(text.contains(part), "{part} in {}", file.display());
        }
    }
    let many = dir.join("many.txt");
    let said = refused(&["run", "--all", "--command-trace", many.to_str().unwrap()], 2);
    assert!(said.contains("runs, expected one"), "{said}");
    assert!(!many.exists());
}

#[test]
fn bad_arguments_are_refused() {
    for (arguments, part) in [
        (&["--pattern", "mix", "--footprint", "3"][..], "--footprint: found `3`"),
        (
            &["--pattern", "mix", "--footprint", "16B"],
            "--footprint: found 16 bytes, expected at least 64",
        ),
        (&["--pattern", "mix", "--footprint", "65536TiB"], "expected at least 64 and at most"),
        (&["--pattern", "random"], "invalid value 'random'"),
        (&["--pattern", "mix", "x.trace"], "cannot be used with"),
        (&["x.trace", "--requests", "3"], "cannot be used with"),
        (&["x.trace"], "x.trace:1:1: found an input error"),
        (&[], "<TRACE|--pattern <NAME>>"),
        (&["--pattern", "mix", "--keyid", "70"], "expected a shared KeyID of spr"),
        (&["--pattern", "mix", "--keyid", "1", "--td"], "cannot be used with"),
        (&["--pattern", "mix", "--set", "dram.channels=3"], "--set:1:15: found"),
        (&["--pattern", "mix", "--platform", "skx"], "expected one of the platforms"),
        (
            &["scenarios/data/dramsim3.trace", "--trace-format", "csv"],
            "invalid value 'csv' for '--trace-format",
        ),
    ] {
        let mut all = vec!["dram"];
        all.extend(arguments);
        let said = refused(&all, 2);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn the_progress_of_a_run_leaves_stderr_empty_when_it_is_no_terminal() {
    let output = tdxsim(&["dram", "--pattern", "mix", "--requests", "20000"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// `cargo test -p tdxsim --features planted-fault`
#[cfg(feature = "planted-fault")]
#[test]
fn a_counter_that_is_off_by_one_ends_the_run_with_exit_code_3() {
    let plant = ["--plant", "CompletionNotCounted"];
    let output = tdxsim(&[&["dram", "--pattern", "mix", "--requests", "500"][..], &plant].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    let line = "  BROKEN: accepted is completed: run.accepted = run.completed does not hold: 500 against 499";
    assert!(text.lines().any(|l| l == line), "{text}");
}
