//! Between the cores and the memory controllers: mesh, home agents, snoops.

use super::{PlatformError, in_range, power_of_two};
use crate::time::{Clock, Ps};
use crate::units::serde_text;
use serde::{Deserialize, Serialize};

/// The mesh of a package, with a home agent (CHA) and an LLC slice in every tile, and what a request spends there. The
/// latency of an access is the sum of the parts that it passes (docs/validation.md); each part is a number of clocks of
/// `clock`. Sources give sums only (timing.md §1.2), so how a sum falls into parts is assumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UncoreSpec {
    /// Clock of mesh, home agents and LLC (timing.md §1.1).
    #[serde(with = "serde_text::frequency")]
    pub clock: Clock,
    /// Columns of the mesh, 1 to 32.
    pub mesh_columns: u8,
    /// Rows of the mesh, 1 to 32.
    pub mesh_rows: u8,
    /// Clocks from one tile to the next (timing.md §1.1 "Mesh hop").
    pub hop: u8,
    /// Clocks from a core into the mesh, or out of it.
    pub ingress: u8,
    /// Clocks in the home agent: LLC tags and snoop filter.
    pub home: u8,
    /// Clocks to read a line out of an LLC slice.
    pub llc_data: u8,
    /// Clocks in which a core answers a snoop, with its data if it has the line.
    pub snoop: u8,
    /// Clocks more if its copy is modified.
    pub snoop_modified: u8,
    /// Clocks in a memory controller on the way in and out, without queues, DRAM, decryption and MAC.
    pub controller: u8,
    /// To another package and back.
    #[serde(with = "serde_text::time")]
    pub remote: Ps,
    /// From the home agent to the controller's queue, for a direct store.
    #[serde(with = "serde_text::time")]
    pub direct_admission: Ps,
    /// How much longer a direct store takes whose line the home agent has not seen of late: it looks the line up.
    #[serde(with = "serde_text::time")]
    pub direct_lookup: Ps,
    /// Lines written by direct stores that a package's home agents remember, a power of two.
    pub direct_lines: u32,
}

impl UncoreSpec {
    pub(super) fn validate(&self) -> Result<(), PlatformError> {
        in_range("uncore.clock", self.clock.mhz, 100, 10_000)?;
        in_range("uncore.mesh_columns", self.mesh_columns.into(), 1, 32)?;
        in_range("uncore.mesh_rows", self.mesh_rows.into(), 1, 32)?;
        power_of_two("uncore.direct_lines", self.direct_lines.into(), 1, 1 << 20)
    }
}
