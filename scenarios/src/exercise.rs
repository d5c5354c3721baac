//! What exercises the invariants of verification.md §2, and what came of it: `tdxsim invariants`.

mod drive;

#[cfg(test)]
mod tests {
    use super::drive::drive;
    use crate::format::Scenario;
    use crate::library::LIBRARY;
    use crate::run::{Request, plan};
    use verify::invariants::{Checker, INVARIANTS};

    #[test]
    fn scratch() {
        let mut checker = Checker::new();
        let mut bad = std::collections::BTreeMap::new();
        for entry in LIBRARY {
            let scenario = Scenario::parse(entry.source()).unwrap();
            for cell in plan(&scenario, &Request::default()).unwrap().iter().take(1) {
                for v in drive(cell, false, &mut checker) {
                    bad.entry((v.id, entry.name)).or_insert(vec![]).push(v.what);
                }
            }
        }
        for ((id, name), what) in &bad {
            eprintln!("{id} {name} {}: {}", what.len(), what[0]);
        }
        for i in INVARIANTS {
            eprint!("{}={} ", i.id, checker.witnesses(i.id));
        }
    }
}
