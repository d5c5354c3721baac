//! What judges the machine: an untimed reference model of memory controller, caches and store paths, and the
//! invariants that hold in it.
//!
//! What must never be here (docs/ARCHITECTURE.md): logic shared with the cycle model. Everything is written from
//! architecture.md and verification.md; only the vocabulary of `sim-core` is common.

pub mod configurations;
pub mod ddr5;
pub mod interleave;
pub mod invariants;
pub mod monitor;
pub mod reference;
pub mod search;
pub mod view;

#[cfg(test)]
mod search_tests;
