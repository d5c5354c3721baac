//! The memory controller: line store, keys, crypto and MAC, check tables, partial writes, RAS log, DDR5.
//!
//! It sees requests with a KeyID and nothing else: no TD, no Secure-EPT, no SEAMCALL and never the CPU mode
//! (architecture.md §2.1 2.1.2).
//!
//! [`Controller`] decides what a request does and returns; [`tables`] is what it decides by; [`dram`] is what a request
//! costs. A request takes effect when it is made (architecture.md §13 MC-31).

pub mod controller;
pub mod crypto;
pub mod dram;
pub mod keys;
mod store;
pub mod tables;

pub use controller::{Controller, ControllerSpec, Probe, SpecError, Stats};
pub use crypto::{CryptoKind, Image};
