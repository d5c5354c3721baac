//! Counters. They count; nothing reads them to decide anything.

use crate::transaction::{TRANSACTIONS, Transaction};
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

/// Counters of the snoop filters, over all packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SnoopFilterStats {
    /// Requests of cores that looked: every DRd, RFO and ItoM.
    pub lookups: u64,
    /// Those that found the line held by a core of the package under another KeyID, clean (verification.md C13).
    pub alias_clean: u64,
    /// Those that found it held so, modified.
    pub alias_modified: u64,
    /// Entries made.
    pub allocations: u64,
    /// Entries that went because the last copy had left the cores of the package.
    pub deallocations: u64,
    /// Entries evicted for lack of room, each a back-invalidation of a physical line.
    pub back_invalidations: u64,
    /// (line, KeyID) pairs that back-invalidations took from cores.
    pub back_invalidated: u64,
    /// Those of them that were modified: each is a WbMtoI.
    pub back_invalidated_modified: u64,
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
    /// L2 victims that stayed in their core, because its L1 had them: no transaction.
    pub l2_kept: u64,
    /// Snoop filters.
    pub snoop_filter: SnoopFilterStats,
    /// Transactions at the lines' homes, in the order of [`crate::transaction::TRANSACTION_ROWS`], which defines each.
    pub transactions: [u64; TRANSACTIONS],
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

impl Stats {
    /// How many of a transaction.
    pub const fn transactions_of(&self, transaction: Transaction) -> u64 {
        // As many counters as transactions: the index is below the length by the type.
        self.transactions[transaction as usize]
    }
    /// One more of a transaction.
    #[inline]
    pub(crate) const fn transaction(&mut self, transaction: Transaction) {
        count(&mut self.transactions[transaction as usize]);
    }
    /// The first rule of conservation that does not hold, of those that need no more than the counters. All sums wrap, as
    /// the counters do.
    pub fn broken_rule(&self) -> Option<&'static str> {
        use Transaction as T;
        let of = |kinds: &[Transaction]| {
            kinds.iter().fold(0, |sum: u64, kind| sum.wrapping_add(self.transactions_of(*kind)))
        };
        let sum = |parts: &[u64]| parts.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part));
        let requests = of(&[T::DRd, T::RFO, T::ItoM]);
        let victims = of(&[T::WbMtoI, T::WbEFtoE, T::WbStoI]);
        let rules = [
            (
                "L1 misses = L2 hits + L2 misses",
                self.l1.misses,
                sum(&[self.l2.hits, self.l2.misses]),
            ),
            (
                "DRd + RFO + ItoM = L2 misses + upgrades",
                requests,
                sum(&[self.l2.misses, self.upgrades]),
            ),
            ("snoop-filter look-ups = DRd + RFO + ItoM", self.snoop_filter.lookups, requests),
            (
                "L2 misses = LLC hits + LLC misses + lines owned unread",
                self.l2.misses,
                sum(&[self.llc.hits, self.llc.misses, self.unread_owned]),
            ),
            (
                "LLC misses = answers of peers + fills",
                self.llc.misses,
                sum(&[self.peer_clean, self.peer_modified, self.peer_remote, self.fills]),
            ),
            (
                "WbMtoI + WbEFtoE + WbStoI + L2 victims kept by L1 = L2 evictions + modified copies back-invalidated",
                sum(&[victims, self.l2_kept]),
                sum(&[self.l2.evictions, self.snoop_filter.back_invalidated_modified]),
            ),
            (
                "WCiLF = full buffers + MOVDIR64B",
                of(&[T::WCiLF]),
                sum(&[self.wc_full, self.movdir64b]),
            ),
            (
                "WCiL = partial buffers + MOVDIRI",
                of(&[T::WCiL]),
                sum(&[self.wc_partial, self.movdiri]),
            ),
            (
                "CLFlush + CLFlushOpt + CLWB = flushes of lines",
                of(&[T::CLFlush, T::CLFlushOpt, T::CLWB]),
                self.line_flushes,
            ),
            ("UCRdF = uncached loads", of(&[T::UCRdF]), self.uc_loads),
            ("WiL = uncached stores", of(&[T::WiL]), self.uc_stores),
            ("PCIRdCur = device reads", of(&[T::PCIRdCur]), self.dma_reads),
            (
                "ItoM (IO) + ItoMCacheNear = device writes",
                of(&[T::IoItoM, T::ItoMCacheNear]),
                self.dma_writes,
            ),
            (
                "back-invalidations = snoop-filter entries evicted",
                of(&[T::BackInvalidate]),
                self.snoop_filter.back_invalidations,
            ),
        ];
        rules.into_iter().find(|(_, left, right)| left != right).map(|(rule, ..)| rule)
    }
}

/// One more. Wraps: a restored state may hold any number, and nothing is decided by one.
pub(crate) const fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
