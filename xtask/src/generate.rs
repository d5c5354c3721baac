//! Everything that is generated: pages of tables, schemas, the manual page and the completions. The files are committed;
//! a test sees that they equal what the code says.

/// Every generated file, by its path from the root.
pub fn files() -> Vec<(String, String)> {
    Vec::new()
}
