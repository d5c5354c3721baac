//! Planted faults cannot be reached in a release (sim-core/src/planted.rs).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// What the product's code can see of a planted fault, as constants that the compiler must know: `possible`.
const USER: &str = "
const HELD: usize = core::mem::size_of::<planted::Planted>();
const SEEN: bool = PLANTED.is(planted::Fault::WriteKeepsTd);
const OTHER: bool = PLANTED.is(planted::Fault::MacNotChecked);
const _: () = assert!(POSSIBLE == planted::Planted::POSSIBLE);
const _: () = assert!(POSSIBLE == (HELD != 0));
const _: () = assert!(POSSIBLE == SEEN);
const _: () = assert!(!OTHER);
";

/// Compiles `sim-core/src/planted.rs` by itself, as cargo does with these settings, with assertions of what its users see.
/// `planted` is the expression of the strongest attempt to plant a fault. Returns what the compiler says if it refuses.
fn compile(feature: bool, debug: bool, planted: &str, possible: bool) -> Result<(), String> {
    let name = format!(
        "tdxsim-planted-{}-{feature}-{debug}-{possible}-{}",
        std::process::id(),
        planted.len()
    );
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("user.rs");
    let module = root().join("sim-core/src/planted.rs");
    let text = format!(
        "#![allow(dead_code)]\n#[path = {module:?}]\nmod planted;\nconst POSSIBLE: bool = {possible};\n\
         const PLANTED: planted::Planted = {planted};\n{USER}",
    );
    fs::write(&file, text).unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata"]);
    rustc.arg(format!("-Cdebug-assertions={}", if debug { "on" } else { "off" }));
    if feature {
        rustc.args(["--cfg", "feature=\"planted-fault\""]);
    }
    let output = rustc.arg("--out-dir").arg(&dir).arg(&file).output().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

const ATTEMPT: &str = "planted::Planted::fault(planted::Fault::WriteKeepsTd)";

#[test]
fn a_fault_can_be_planted_only_with_the_feature_and_debug_assertions() {
    compile(true, true, ATTEMPT, true).unwrap();
    // A release with the feature: the attempt compiles and plants nothing.
    compile(true, false, ATTEMPT, false).unwrap();
    // Without the feature there is not even a way to ask.
    for debug in [true, false] {
        compile(false, debug, "planted::Planted::NONE", false).unwrap();
        let refused = compile(false, debug, ATTEMPT, false).unwrap_err();
        assert!(refused.contains("E0599") && refused.contains("`fault`"), "{refused}");
    }
}

#[test]
fn the_check_fails_where_a_fault_is_seen_or_not_seen_against_expectation() {
    assert!(compile(true, true, ATTEMPT, false).is_err());
    assert!(compile(true, false, ATTEMPT, true).is_err());
}

fn manifests() -> Vec<(String, String)> {
    let root = root();
    let text = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let line = text.lines().find(|l| l.starts_with("members")).unwrap();
    let rooms = line.split('"').skip(1).step_by(2);
    let mut all: Vec<_> = rooms
        .map(|room| {
            let manifest = root.join(room).join("Cargo.toml");
            (room.to_owned(), fs::read_to_string(manifest).unwrap())
        })
        .collect();
    all.push(("workspace".to_owned(), text));
    all
}

#[test]
fn nobody_turns_planted_faults_on_but_for_tests() {
    let mut forwarded = 0;
    for (room, manifest) in manifests() {
        let mut section = "";
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            }
            assert!(
                !line.starts_with("debug-assertions"),
                "{room}: {line}: of every profile as cargo has it"
            );
            assert!(!line.starts_with("default ="), "{room}: {line}: nothing is on by default");
            if line.starts_with('#') || !line.contains("planted-fault") {
                continue;
            }
            match section {
                "[features]" => {
                    assert!(line.starts_with("planted-fault = ["), "{room}: {line}");
                    forwarded += 1;
                }
                _ => assert_eq!(section, "[dev-dependencies]", "{room}: {line}"),
            }
        }
    }
    assert!(forwarded >= 7, "only {forwarded} rooms know the feature");
}
