//! What goes from cores and devices to the home of a line, by the names that the uncore's counters use.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A transaction at a line's home, the CHA of its slice (timing.md §1.4 "CHA/TOR opcodes to model").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[allow(clippy::upper_case_acronyms, reason = "as the sources spell them")]
pub enum Transaction {
    /// DRd: a core reads a line.
    DRd,
    /// RFO: a core reads a line for ownership, or owns one that it has shared.
    RFO,
    /// ItoM: a core owns a line without reading it.
    ItoM,
    /// UCRdF: an uncached read.
    UCRdF,
    /// WiL: an uncached write.
    WiL,
    /// WCiL: part of a line past the caches: a write-combining buffer that is not full, or MOVDIRI.
    WCiL,
    /// WCiLF: a whole line past the caches: a full write-combining buffer, or MOVDIR64B.
    WCiLF,
    /// CLFlush.
    CLFlush,
    /// CLFlushOpt.
    CLFlushOpt,
    /// CLWB.
    CLWB,
    /// WbMtoI: a modified line leaves a core and goes to the LLC.
    WbMtoI,
    /// WbEFtoE: a clean line in E or F leaves a core's L2 and goes to the LLC.
    WbEFtoE,
    /// WbStoI: a clean line in S leaves a core's L2 and goes to the LLC.
    WbStoI,
    /// Back-invalidation: a snoop filter without room takes a physical line from the cores of its package.
    BackInvalidate,
    /// PCIRdCur: a device reads a line.
    PCIRdCur,
    /// ItoM from a device: it writes a whole line.
    IoItoM,
    /// ItoMCacheNear: a device writes a part of a line.
    ItoMCacheNear,
}

/// How many transactions there are.
pub const TRANSACTIONS: usize = 17;

/// A row of [`TRANSACTION_ROWS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransactionRow {
    /// Which.
    pub transaction: Transaction,
    /// Its name as the sources spell it.
    pub name: &'static str,
    /// When it is counted: the definition of its counter.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

const fn row(
    transaction: Transaction,
    name: &'static str,
    meaning: &'static str,
    cite: &'static str,
) -> TransactionRow {
    TransactionRow { transaction, name, meaning, cite }
}

use Transaction as T;

/// All transactions, in order.
#[rustfmt::skip]
pub const TRANSACTION_ROWS: [TransactionRow; TRANSACTIONS] = [
    row(T::DRd,            "DRd",                  "load, fetch or prefetch that misses L1 and L2",                       "timing.md §1.4 [V]"),
    row(T::RFO,            "RFO",                  "store that misses L1 and L2, or hits a shared copy there",            "timing.md §1.4 [V]"),
    row(T::ItoM,           "ItoM",                 "whole-line store that owns without reading, on a miss or a shared copy", "timing.md §1.4 [V]; architecture.md §13 MC-29"),
    row(T::UCRdF,          "UCRdF",                "uncached load, of whatever width",                                    "Intel perfmon, UNC_CHA_TOR_INSERTS.IA_MISS_UCRDF"),
    row(T::WiL,            "WiL",                  "uncached store, of whatever width",                                   "[R] Intel perfmon; architecture.md §5 5.3"),
    row(T::WCiL,           "WCiL",                 "write-combining buffer that leaves with less than 64 bytes, or MOVDIRI", "timing.md §1.4 [V]; MOVDIRI assumed"),
    row(T::WCiLF,          "WCiLF",                "write-combining buffer that leaves with 64 bytes, or MOVDIR64B",      "timing.md §1.4 [V]; MOVDIR64B assumed"),
    row(T::CLFlush,        "CLFlush",              "CLFLUSH",                                                             "timing.md §1.4 [V]"),
    row(T::CLFlushOpt,     "CLFlushOpt",           "CLFLUSHOPT that takes effect",                                        "timing.md §1.4 [V]"),
    row(T::CLWB,           "CLWB",                 "CLWB that takes effect",                                              "architecture.md §4.4; transaction assumed like CLFlushOpt"),
    row(T::WbMtoI,         "WbMtoI",               "modified L2 victim, or modified copy taken back by a snoop filter",   "timing.md §1.4 [V]"),
    row(T::WbEFtoE,        "WbEFtoE",              "clean L2 victim in E or F",                                           "timing.md §1.4 [V]"),
    row(T::WbStoI,         "WbStoI",               "clean L2 victim in S",                                                "Intel perfmon, UNC_CHA_TOR_INSERTS.IA_WBSTOI"),
    row(T::BackInvalidate, "SF back-invalidation", "snoop-filter entry evicted for lack of room",                         "timing.md §1.1 [V] LLC policy: SF eviction"),
    row(T::PCIRdCur,       "PCIRdCur",             "line read by a device",                                               "Intel perfmon, UNC_CHA_TOR_INSERTS.IO_PCIRDCUR"),
    row(T::IoItoM,         "ItoM (IO)",            "whole line written by a device",                                      "Intel perfmon, UNC_CHA_TOR_INSERTS.IO_ITOM"),
    row(T::ItoMCacheNear,  "ItoMCacheNear",        "part of a line written by a device",                                  "timing.md §1.4 [V]"),
];

/// The row of a transaction.
#[inline]
pub const fn transaction_row(transaction: Transaction) -> &'static TransactionRow {
    // As many rows as transactions, in the same order: tested. The index is below the length by the type.
    &TRANSACTION_ROWS[transaction as usize]
}

/// The table as a page of the book.
pub fn transactions_markdown() -> String {
    let mut out = String::from("| Transaction | Counted for | Source |\n|---|---|---|\n");
    for r in &TRANSACTION_ROWS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {} |", r.name, r.meaning, r.cite);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_transaction_has_one_row_in_its_order() {
        for (i, row) in TRANSACTION_ROWS.iter().enumerate() {
            assert_eq!(row.transaction as usize, i, "{row:?}");
            assert_eq!(transaction_row(row.transaction), row);
            assert!(!row.cite.is_empty() && !row.meaning.is_empty());
        }
    }

    #[test]
    fn no_two_rows_have_one_name() {
        let names: BTreeSet<&str> = TRANSACTION_ROWS.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), TRANSACTIONS);
    }

    #[test]
    fn the_table_prints_one_line_per_row() {
        let page = transactions_markdown();
        assert_eq!(page.lines().count(), TRANSACTIONS + 2);
        assert!(page.contains("| WbMtoI | modified L2 victim"));
    }
}
