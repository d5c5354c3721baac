//! Relations between runs (verification.md §2.12, §2.13).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use scenarios::relations::{check, relations};

#[test]
fn explore() {
    for (id, _) in relations() {
        if std::env::var("ONLY").is_ok_and(|o| !o.split(",").any(|o| o == id)) {
            continue;
        }
        let start = std::time::Instant::now();
        let n: u64 = if id == "N1" || id == "N2" { 10 } else { 1 };
        let got =
            check(id, 1, std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(40) / n)
                .unwrap();
        eprintln!("{id}: {} of {} {:?}", got.witnesses, got.cases, start.elapsed());
        if let Some(v) = got.violation {
            eprintln!("{v}");
        }
    }
}
