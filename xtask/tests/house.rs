//! The house is as docs/ARCHITECTURE.md says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use xtask::arrows;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn members() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|l| l.starts_with("members")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn arrows_point_down_only() {
    let members = members();
    assert!(members.len() > 5);
    for room in members {
        let manifest = fs::read_to_string(root().join(&room).join("Cargo.toml")).unwrap();
        assert_eq!(arrows::violations(&room, &manifest), [""; 0]);
    }
}

#[test]
fn an_arrow_that_points_up_is_seen() {
    let manifest = "[dependencies]\nserde.workspace = true\nmachine.workspace = true\n";
    assert_eq!(arrows::violations("cache", manifest), ["cache must not know machine"]);
    let dev_only = "[dependencies]\n[dev-dependencies]\nmachine.workspace = true\n";
    assert_eq!(arrows::violations("cache", dev_only), [""; 0]);
}

#[test]
fn no_room_is_empty() {
    for room in members() {
        let dir = root().join(&room).join("src");
        let of_room = |(path, text): (PathBuf, String)| {
            if path.starts_with(&dir) { text.lines().count() } else { 0 }
        };
        let lines: usize = sources().into_iter().map(of_room).sum();
        assert!(lines > 50, "{room} has {lines} lines");
    }
}

/// Every source file under `src` of every room.
fn sources() -> Vec<(PathBuf, String)> {
    let mut out = Vec::new();
    let mut todo: Vec<PathBuf> = members().iter().map(|m| root().join(m).join("src")).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                out.push((path, text));
            }
        }
    }
    out.sort();
    out
}

#[test]
fn nobody_allows_unsafe_code_or_leaves_a_test_out() {
    let root_manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(root_manifest.contains("unsafe_code = \"forbid\""));
    for room in members() {
        let manifest = fs::read_to_string(root().join(&room).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{room} does not take the lints");
    }
    for (path, text) in sources() {
        // Spelt in halves so that this file does not find itself.
        for banned in [concat!("#[ign", "ore"), concat!("should_", "panic"), concat!("FIX", "ME")] {
            assert!(!text.contains(banned), "{} has {banned}", path.display());
        }
    }
}

#[test]
fn the_vocabulary_knows_no_float() {
    for (path, text) in sources() {
        if path.starts_with(root().join("sim-core")) {
            for float in ["f32", "f64"] {
                assert!(!text.contains(float), "{} has {float}", path.display());
            }
        }
    }
}

#[test]
fn everything_generated_is_committed_as_the_code_says() {
    let files = xtask::generate::files();
    assert!(files.len() > 20);
    for (name, text) in &files {
        let committed = fs::read_to_string(root().join(name)).unwrap_or_default();
        assert!(committed == *text, "{name} is out of date: run `cargo run -p xtask`");
    }
    // And nothing lies there that is generated no more.
    for dir in ["docs/generated", "docs/schemas", "docs/man", "docs/completions"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let name = format!("{dir}/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(files.iter().any(|(f, _)| *f == name), "{name} is not generated");
        }
    }
}
