//! tdxsim.
fn main() {}
