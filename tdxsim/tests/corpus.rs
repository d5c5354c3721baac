//! What the fuzzers kept (`fuzz/corpus`), replayed by the functions that they call (docs/verification.md, "Fuzzing").

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "how many mutations are tried is the tester's to say"
)]

use sim_core::prng::Prng;
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

// ---- Mutations -----------------------------------------------------------------------------------------------------------

/// How many mutated inputs each harness gets: few at every run, `TDXSIM_MUTATIONS` on request.
fn mutations() -> u64 {
    let asked = std::env::var("TDXSIM_MUTATIONS").ok();
    asked.map_or(150, |n| n.parse().unwrap())
}

/// An input made of those that were kept: some bytes changed, dropped, doubled, moved in from another, or a number turned
/// into one at the edge of a range. It knows nothing of what it reaches; that is what the fuzz targets are for.
fn mutated(kept: &[Vec<u8>], prng: &mut Prng) -> Vec<u8> {
    const EDGES: [&str; 10] = [
        "0",
        "1",
        "-1",
        "64",
        "4095",
        "0xffffffffffffffff",
        "18446744073709551616",
        "1e9",
        "\u{e9}",
        "\"",
    ];
    let pick = |prng: &mut Prng| &kept[prng.below(kept.len() as u64) as usize];
    let mut input = pick(prng).clone();
    for _ in 0..1 + prng.below(4) {
        let place = |prng: &mut Prng, len: usize| prng.below(len as u64 + 1) as usize;
        let at = place(prng, input.len());
        let end = (at + place(prng, 16)).min(input.len());
        match prng.below(6) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << prng.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = prng.below(256) as u8;
                }
            }
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            4 => {
                let other = pick(prng);
                let from = place(prng, other.len());
                let to = (from + place(prng, 48)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let digits = |b: &u8| b.is_ascii_hexdigit() || *b == b'x';
                let from = input.iter().skip(at).position(u8::is_ascii_digit).map(|n| at + n);
                let Some(from) = from else { continue };
                let to = from + input[from..].iter().take_while(|b| digits(b)).count();
                let edge = EDGES[prng.below(EDGES.len() as u64) as usize];
                input.splice(from..to, edge.bytes());
            }
        }
    }
    input
}

#[test]
fn mutations_of_what_was_kept_find_nothing() {
    for (n, (target, harness)) in fuzz::targets().enumerate() {
        let kept: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
        let seed = std::env::var("TDXSIM_SEED").map_or(0, |seed| seed.parse().unwrap());
        let mut prng = Prng::new(seed + n as u64);
        for execution in 0..mutations() {
            let input = mutated(&kept, &mut prng);
            let found = std::panic::catch_unwind(|| harness(&input));
            let text = input.escape_ascii();
            match found {
                Ok(Ok(())) => {}
                Ok(Err(finding)) => panic!("{target}, execution {execution}: {finding}\n{text}"),
                Err(_) => panic!("{target}, execution {execution}: a panic\n{text}"),
            }
        }
    }
}
