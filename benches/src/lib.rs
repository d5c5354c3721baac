//! What is measured: one table of workloads, for criterion (`benches/speed.rs`), for instruction counts
//! (`src/bin/instructions.rs`) and for the tests here, which see that each workload does what its name says.
//!
//! Platforms, scenarios and traces are the product's own. Addresses are pure functions of the number of the access, so
//! that two runs do the same work.

pub mod caches;
pub mod controller;
pub mod dram;
pub mod leaves;
pub mod reference;
pub mod streams;
pub mod traces;
pub mod whole;

use machine::MachineError;
use scenarios::diag::Diag;
use scenarios::platform::{Origin, Platform, load_with};
use scenarios::trace::TraceError;
use thiserror::Error;

/// Does a number of operations and returns a number that depends on what came of them, so that none can be left out.
pub type Runner = Box<dyn FnMut(u64) -> Result<u64, SetupError>>;

/// One thing that is measured.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Its group in criterion's output.
    pub group: &'static str,
    /// Its name: unique, and what `instructions` takes.
    pub name: &'static str,
    /// What one operation is.
    pub unit: &'static str,
    /// How many operations criterion times at once.
    pub batch: u64,
    /// Makes everything ready.
    pub make: fn() -> Result<Runner, SetupError>,
}

/// Why a workload cannot be made ready or run.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A platform or scenario of the product.
    #[error("{}", .0.render())]
    Input(Box<Diag>),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The controller.
    #[error(transparent)]
    Controller(#[from] mktme::SpecError),
    /// The DDR5 model.
    #[error(transparent)]
    Dram(Box<mktme::dram::SpecError>),
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The platform has no private KeyID.
    #[error("the platform has too few private KeyIDs")]
    NoPrivateKeyId,
    /// A leaf of the TDX module that must succeed did not.
    #[error("a leaf returned {0}")]
    Leaf(sim_core::tdx::Status),
    /// A run that must pass did not.
    #[error("the run of {0} did not pass")]
    Verdict(&'static str),
}

impl From<Diag> for SetupError {
    fn from(diag: Diag) -> SetupError {
        SetupError::Input(Box::new(diag))
    }
}

/// All workloads.
pub fn workloads() -> impl Iterator<Item = &'static Workload> {
    caches::WORKLOADS
        .iter()
        .chain(controller::WORKLOADS)
        .chain(dram::WORKLOADS)
        .chain(leaves::WORKLOADS)
        .chain(reference::WORKLOADS)
        .chain(streams::WORKLOADS)
        .chain(traces::WORKLOADS)
        .chain(whole::WORKLOADS)
}

/// The workload of that name.
pub fn workload(name: &str) -> Option<&'static Workload> {
    workloads().find(|w| w.name == name)
}

/// The preset that everything runs on.
///
/// # Errors
/// None, unless the preset is broken.
pub fn spr() -> Result<Platform, SetupError> {
    Ok(load_with(&Origin::Preset("spr".to_owned()), &[])?)
}

/// Number `i` of a walk that meets each of the first `2^bits` numbers once before it meets one again, in an order that no
/// prefetcher of the host follows.
pub const fn scattered(i: u64, bits: u32) -> u64 {
    // An odd factor permutes the residues of a power of two.
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << bits) - 1)
}

/// Number `i` of a sequence without order: a hash of `i`, below `2^bits`.
pub const fn random(i: u64, bits: u32) -> u64 {
    sim_core::prng::mix(0x6265_6e63, i, 0) >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_workload_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = workloads().map(|w| w.name).collect();
        assert_eq!(names.len(), workloads().count());
        for w in workloads() {
            assert_eq!(workload(w.name).map(|found| found.name), Some(w.name));
        }
        assert!(workload("no such workload").is_none());
    }

    #[test]
    fn a_scattered_walk_meets_every_number_once() {
        let met: BTreeSet<u64> = (0..1 << 10).map(|i| scattered(i, 10)).collect();
        assert_eq!(met.len(), 1 << 10);
        assert!(met.iter().all(|n| *n < 1 << 10));
        assert_eq!(scattered(1 << 10, 10), scattered(0, 10));
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_differ() {
        let met: BTreeSet<u64> = (0..1000).map(|i| random(i, 24)).collect();
        assert!(met.len() > 990 && met.iter().all(|n| *n < 1 << 24));
    }
}
