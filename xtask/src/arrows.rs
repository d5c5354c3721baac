//! Which room may know which: the arrows of docs/ARCHITECTURE.md, checked against the crates' manifests.

/// A room and the rooms it may depend on. Arrows point down only.
pub const ALLOWED: &[(&str, &[&str])] = &[
    ("sim-core", &[]),
    ("mktme", &["sim-core"]),
    ("cache", &["sim-core"]),
    ("tdx-module", &["sim-core"]),
    ("host", &["sim-core"]),
    ("verify", &["sim-core"]),
    ("machine", &["cache", "mktme", "sim-core", "tdx-module"]),
    ("scenarios", &["host", "machine", "mktme", "sim-core", "tdx-module", "verify"]),
    ("tdxsim", &["host", "scenarios", "sim-core", "tdx-module"]),
    (
        "benches",
        &["cache", "host", "machine", "mktme", "scenarios", "sim-core", "tdx-module", "verify"],
    ),
    (
        "xtask",
        &["cache", "host", "mktme", "scenarios", "sim-core", "tdx-module", "tdxsim", "verify"],
    ),
];

/// The rooms that a manifest's `[dependencies]` and `[build-dependencies]` name. Test-only dependencies are free.
pub fn rooms_in(manifest: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            counts = line == "[dependencies]" || line == "[build-dependencies]";
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if counts && ALLOWED.iter().any(|(room, _)| *room == name) {
            rooms.push(name.to_owned());
        }
    }
    rooms
}

/// What is wrong with a room's manifest, one line each.
pub fn violations(room: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{room} is not in the table of rooms")];
    };
    rooms_in(manifest)
        .into_iter()
        .filter(|dep| !allowed.contains(&dep.as_str()))
        .map(|dep| format!("{room} must not know {dep}"))
        .collect()
}
