//! tdxsim's caches: L1D and L2 of every core, a sliced LLC and a snoop filter per package, write-combining buffers and weakly ordered operations,
//! and every flush.
//!
//! Lines are tagged (line, KeyID): two addresses that differ in the KeyID only are two lines, and hardware keeps nothing
//! coherent between them (architecture.md §4.1). The crate never asks which class a KeyID has. A hit is never checked;
//! checks happen where the controller is asked ([`sim_core::port::LinePort`]).
//!
//! A request takes effect when it is made. What takes effect later are the weakly ordered operations: write-combining
//! stores wait in buffers (architecture.md §13 MC-28), MOVDIR64B, MOVDIRI, CLFLUSHOPT and CLWB in a queue of the core
//! (architecture.md §3 3.5, §4.4).
//!
//! - [`mesi`]: the transitions of a core's copy, as a table.
//! - [`flushes`]: what each flush does, as a table.
//! - [`transaction`]: what goes from cores and devices to the homes of lines, as a table.
//! - [`Hierarchy`]: the state and everything that can be asked of it.

mod array;
mod buffers;
mod check;
mod dma;
pub mod flushes;
mod hierarchy;
mod hits;
mod home;
mod index;
pub mod mesi;
mod rows;
mod slab;
mod snoop;
mod stats;
pub mod transaction;
mod weak;

pub use buffers::{WcBuffer, WeakOp};
pub use check::{View, Violation};
pub use hierarchy::{Access, Drained, FenceKind, Hierarchy, Level, Slot, SpecError};
pub use hits::Hits;
pub use slab::CachedLine;
pub use snoop::Alias;
pub use stats::{LevelStats, SnoopFilterStats, Stats};
pub use transaction::Transaction;
