//! The ports between rooms: what a cache asks of the memory controller, and what a core asks of the operating system.

use crate::addr::Tagged;
use crate::data::{ByteMask, LineData};
use crate::event::{BirthId, Trace};
use crate::mca::{McConsequence, McRecord};
use crate::outcome::DataClass;

/// A line as the controller returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// 64 bytes of plaintext; zeros where the read tables say so.
    pub data: LineData,
    /// Poison that travels with the data.
    pub poison: Option<BirthId>,
    /// What the bytes are.
    pub class: DataClass,
}

/// The memory controller as caches, buffers and devices see it. A request takes effect when it is made
/// (architecture.md §13 MC-31); how long it takes is the business of whoever implements the port.
pub trait LinePort {
    /// Reads a line.
    fn read(&mut self, at: Tagged) -> Fill;
    /// Writes a whole line. `poison` is that of the cached copy it comes from (architecture.md §2.6 W-06).
    fn write(&mut self, at: Tagged, data: &LineData, poison: Option<BirthId>);
    /// Writes the bytes in `mask`, which is not full: a partial write (architecture.md §5 5.1).
    fn write_partial(&mut self, at: Tagged, data: &LineData, mask: ByteMask);
    /// What the run records.
    fn trace(&mut self) -> &mut Trace;
}

/// The operating system's machine-check handler.
pub trait McHandler {
    /// A machine check was delivered to host software (`Kernel`, `User`), or reached the host after a TD's exit
    /// (`SeamNonRoot`). Returns what becomes of the host.
    fn machine_check(&mut self, record: &McRecord) -> McConsequence;
}
