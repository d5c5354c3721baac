//! The book is true: every command that it shows is run, and prints what the book says.
//!
//! A block marked `console` holds commands after `$ ` and their output. A line `...` stands for any lines. With
//! `UPDATE_DOCS=1` the blocks are rewritten (all but those that leave lines out).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut todo = vec![root().join("docs")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The arguments of a command that runs tdxsim.
fn arguments(command: &str) -> Option<Vec<String>> {
    let rest = command
        .strip_prefix("cargo run --release --quiet -- ")
        .or_else(|| command.strip_prefix("cargo run --release -- "))
        .or_else(|| command.strip_prefix("tdxsim "))?;
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    for c in rest.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    Some(words)
}

fn run(arguments: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tdxsim"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text.push_str(&String::from_utf8(output.stderr).unwrap());
    match output.status.code() {
        Some(0) => {}
        code => text.push_str(&format!("[exit code {}]\n", code.unwrap_or(-1))),
    }
    text
}

/// Whether `shown`, in which a line `...` stands for any lines, is what `real` says.
fn agrees(shown: &[&str], real: &[&str]) -> bool {
    match shown.split_first() {
        None => real.is_empty(),
        Some((&"...", rest)) => (0..=real.len()).any(|skip| agrees(rest, &real[skip..])),
        Some((line, rest)) => real
            .split_first()
            .is_some_and(|(r, tail)| r.trim_end() == line.trim_end() && agrees(rest, tail)),
    }
}

#[test]
fn every_command_the_book_shows_prints_what_the_book_says() {
    let mut commands = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let mut new = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            new.push_str(line);
            new.push('\n');
            if line.trim() != "```console" {
                continue;
            }
            while let Some(command) = lines.next_if(|l| l.starts_with("$ ")) {
                let mut shown = Vec::new();
                while let Some(output) = lines.next_if(|l| !l.starts_with("$ ") && *l != "```") {
                    shown.push(output);
                }
                new.push_str(command);
                new.push('\n');
                let Some(arguments) = arguments(&command[2..]) else {
                    shown.iter().for_each(|l| new.push_str(&format!("{l}\n")));
                    continue;
                };
                commands += 1;
                let real = run(&arguments);
                let real_lines: Vec<&str> = real.lines().collect();
                let elided = shown.contains(&"...");
                if !agrees(&shown, &real_lines) {
                    wrong.push(format!("{}: {command}\n{real}", page.display()));
                }
                if elided {
                    shown.iter().for_each(|l| new.push_str(&format!("{l}\n")));
                } else {
                    real_lines.iter().for_each(|l| new.push_str(&format!("{}\n", l.trim_end())));
                }
            }
        }
        if std::env::var_os("UPDATE_DOCS").is_some() && new != text {
            fs::write(&page, new).unwrap();
        }
    }
    assert!(commands >= 8, "the book shows only {commands} commands");
    assert!(
        wrong.is_empty(),
        "{} commands print something else:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_command_that_prints_something_else_is_seen() {
    assert!(agrees(&["a", "...", "c"], &["a", "x", "y", "c"]));
    assert!(!agrees(&["a", "...", "c"], &["a", "x", "y"]));
    assert!(!agrees(&["a"], &["b"]));
    assert!(!agrees(&["a"], &["a", "b"]));
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{} links to {target}", page.display());
        }
    }
}
