//! What the fuzzers kept (`fuzz/corpus`), replayed by the functions that they call (docs/verification.md, "Fuzzing").

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tdxsim::fuzz;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// The inputs of a target by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(target);
    names(&dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

#[track_caller]
fn replayed(target: &str) {
    for (name, bytes) in corpus(target) {
        if let Err(finding) = fuzz::run(target, &bytes) {
            panic!("{target}/{name}: {finding}");
        }
    }
}

#[test]
fn kept_scenarios_are_refused_in_one_line_or_run_unbroken() {
    replayed("scenario");
}

#[test]
fn kept_traces_are_read_the_same_however_their_bytes_come() {
    replayed("trace");
}

#[test]
fn kept_platforms_are_refused_in_one_line_or_make_a_machine() {
    replayed("platform");
}

#[test]
fn kept_operations_agree_with_the_reference_model() {
    replayed("operations");
}

#[test]
fn kept_texts_are_explained_in_printable_words() {
    replayed("explain");
}

#[test]
fn every_fuzz_target_has_a_harness_and_a_corpus_and_all_of_it_is_small() {
    let harnesses: BTreeSet<String> = fuzz::targets().map(|(name, _)| name.to_owned()).collect();
    let targets = names(&fuzz_dir().join("fuzz_targets"));
    let targets: BTreeSet<String> =
        targets.iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(targets, harnesses);
    assert_eq!(names(&fuzz_dir().join("corpus")), harnesses);
    let sizes = harnesses.iter().map(|target| {
        let all = corpus(target);
        assert!(all.len() >= 5, "{target} has {} inputs", all.len());
        (all.len(), all.iter().map(|(_, bytes)| bytes.len()).sum::<usize>())
    });
    let (files, bytes) = sizes.fold((0, 0), |(f, b), (files, bytes)| (f + files, b + bytes));
    assert!(files < 300 && bytes < 1 << 20, "{files} files of {bytes} bytes");
}

#[test]
fn the_corpora_reach_what_the_harnesses_judge() {
    // A harness whose corpus is refused at the first line judges nothing.
    let good = |target: &str, accepts: fn(&[u8]) -> bool| {
        corpus(target).iter().filter(|(_, bytes)| accepts(bytes)).count()
    };
    let source = |bytes: &[u8]| scenarios::diag::SourceFile::from_bytes("corpus", bytes).ok();
    let scenario: fn(&[u8]) -> bool = |bytes| {
        scenarios::diag::SourceFile::from_bytes("corpus", bytes)
            .and_then(scenarios::format::Scenario::parse)
            .is_ok()
    };
    let trace: fn(&[u8]) -> bool =
        |bytes| scenarios::trace::open_read("corpus", bytes.get(1..).unwrap_or(&[]), None).is_ok();
    let explain: fn(&[u8]) -> bool =
        |bytes| tdxsim::explain::explain(&String::from_utf8_lossy(bytes)).is_ok();
    assert!(good("scenario", scenario) >= 5);
    assert!(good("trace", trace) >= 5);
    assert!(good("explain", explain) >= 5);
    let platforms = corpus("platform").into_iter().filter_map(|(_, bytes)| source(&bytes));
    let loaded = platforms
        .filter(|file| {
            let origin = scenarios::platform::Origin::File(file.clone());
            scenarios::platform::load(&origin, &[]).is_ok()
        })
        .count();
    assert!(loaded >= 2, "{loaded}");
}

#[test]
fn a_message_that_a_terminal_must_not_see_is_a_finding() {
    for bad in ["", "two\nlines", "colour \u{1b}[31m", "bell \u{7}", "\u{85}"] {
        assert!(scenarios::fuzz::printable(bad).is_err(), "{bad:?}");
    }
    assert_eq!(scenarios::fuzz::printable("found `é`, expected a number"), Ok(()));
    assert_eq!(fuzz::run("nonsense", b""), Err("no harness nonsense".to_owned()));
}
