//! Counters. They count; nothing reads them to decide anything.

use serde::{Deserialize, Serialize};

/// Counters of one level, over all its caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LevelStats {
    /// Accesses answered here.
    pub hits: u64,
    /// Accesses that had to go on.
    pub misses: u64,
    /// Lines that left for lack of room.
    pub evictions: u64,
}

/// Counters of the hierarchy. All count lines or operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// L1 data caches.
    pub l1: LevelStats,
    /// L2 caches.
    pub l2: LevelStats,
    /// LLCs.
    pub llc: LevelStats,
    /// Misses answered by a clean copy of another core of the package.
    pub peer_clean: u64,
    /// Misses answered by a modified copy of another core of the package.
    pub peer_modified: u64,
    /// Misses answered by another package.
    pub peer_remote: u64,
    /// Lines read from the controller into caches.
    pub fills: u64,
    /// Whole lines owned without being read (ItoM, architecture.md §13 MC-29).
    pub unread_owned: u64,
    /// Stores to a shared copy: every other copy was invalidated.
    pub upgrades: u64,
    /// Modified lines written to the controller.
    pub write_backs: u64,
    /// Lines that left all caches without being written.
    pub dropped: u64,
    /// Write-combining buffers that left with all 64 bytes.
    pub wc_full: u64,
    /// Write-combining buffers that left with less: partial writes at the controller.
    pub wc_partial: u64,
    /// MOVDIR64B that became visible.
    pub movdir64b: u64,
    /// MOVDIRI that became visible: partial writes at the controller.
    pub movdiri: u64,
    /// CLFLUSH, CLFLUSHOPT and CLWB that took effect.
    pub line_flushes: u64,
    /// Uncached loads.
    pub uc_loads: u64,
    /// Uncached stores.
    pub uc_stores: u64,
    /// Lines read by devices.
    pub dma_reads: u64,
    /// Lines or parts of lines written by devices.
    pub dma_writes: u64,
}

/// One more. Wraps: a restored state may hold any number, and nothing is decided by one.
pub(crate) const fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
