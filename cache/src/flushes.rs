//! What each flush does, as a table (architecture.md §4.4), and the flushes of a whole package.

use crate::hierarchy::Hierarchy;
use serde::{Deserialize, Serialize};
use sim_core::Line;
use sim_core::event::Why;
use sim_core::port::LinePort;
use std::fmt::Write;

/// An operation that moves modified lines to memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlushKind {
    /// CLFLUSH.
    Clflush,
    /// CLFLUSHOPT.
    Clflushopt,
    /// CLWB.
    Clwb,
    /// WBINVD.
    Wbinvd,
    /// WBNOINVD.
    Wbnoinvd,
    /// WRMSR WBINVDP(i).
    Wbinvdp,
    /// WRMSR WBNOINVDP(i).
    Wbnoinvdp,
    /// MOVDIR64B, and every other store past the caches.
    Movdir64b,
}

/// Which lines a flush reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reach {
    /// One line under the KeyID of the address, in every cache of every package.
    LineAndKeyId,
    /// Every line of every KeyID in the package's caches.
    Package,
    /// Every line of every KeyID of one sub-block of the package's caches.
    SubBlock,
}

/// A row of [`FLUSHES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushRow {
    /// Which operation.
    pub kind: FlushKind,
    /// Which lines.
    pub reach: Reach,
    /// Whether the copies go; modified ones are written back first in any case.
    pub invalidates: bool,
    /// Whether it may take effect later than it is issued, until a fence.
    pub weak: bool,
    /// Source.
    pub cite: &'static str,
}

/// All kinds, in order.
pub const FLUSH_KINDS: [FlushKind; 8] = [
    FlushKind::Clflush,
    FlushKind::Clflushopt,
    FlushKind::Clwb,
    FlushKind::Wbinvd,
    FlushKind::Wbnoinvd,
    FlushKind::Wbinvdp,
    FlushKind::Wbnoinvdp,
    FlushKind::Movdir64b,
];

const fn row(
    kind: FlushKind,
    reach: Reach,
    invalidates: bool,
    weak: bool,
    cite: &'static str,
) -> FlushRow {
    FlushRow { kind, reach, invalidates, weak, cite }
}

/// The flush operations compared (architecture.md §4.4; the two TDH leaves of that table are made of these).
#[rustfmt::skip]
pub const FLUSHES: [FlushRow; 8] = [
    row(FlushKind::Clflush,    Reach::LineAndKeyId, true,  false, "architecture.md §4.4 CLFLUSH; §4.1 4.1.8"),
    row(FlushKind::Clflushopt, Reach::LineAndKeyId, true,  true,  "architecture.md §4.4 CLFLUSHOPT; §4.1 4.1.8"),
    row(FlushKind::Clwb,       Reach::LineAndKeyId, false, true,  "architecture.md §4.4 CLWB; §4.1 4.1.8"),
    row(FlushKind::Wbinvd,     Reach::Package,      true,  false, "architecture.md §4.4 WBINVD; §4.1 4.1.9"),
    row(FlushKind::Wbnoinvd,   Reach::Package,      false, false, "architecture.md §4.4 WBNOINVD"),
    row(FlushKind::Wbinvdp,    Reach::SubBlock,     true,  false, "architecture.md §4.4 WRMSR WBINVDP(i); §4.1 4.1.10"),
    row(FlushKind::Wbnoinvdp,  Reach::SubBlock,     false, false, "architecture.md §4.4 WRMSR WBNOINVDP(i); §4.1 4.1.10"),
    row(FlushKind::Movdir64b,  Reach::LineAndKeyId, true,  true,  "architecture.md §4.4 MOVDIR64B; §3 3.4, 3.5"),
];

/// The row of an operation.
#[inline]
pub const fn flush_row(kind: FlushKind) -> &'static FlushRow {
    // As many rows as kinds, in the same order: tested.
    &FLUSHES[kind as usize & 7]
}

/// The table as a page of the book.
pub fn flushes_markdown() -> String {
    let mut out = String::from(
        "| Operation | Reach | Modified line | Clean line | Order | Source |\n|---|---|---|---|---|---|\n",
    );
    for r in &FLUSHES {
        let (modified, clean) = if r.invalidates {
            ("written back, invalidated", "invalidated")
        } else {
            ("written back, kept", "kept")
        };
        let order = if r.weak { "weak" } else { "at once" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {:?} | {:?} | {modified} | {clean} | {order} | {} |",
            r.kind, r.reach, r.cite
        );
    }
    out
}

/// What a flush of a package did. Slots count whether in use or not: all of the package's, or the sub-block's share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FlushCounts {
    /// Line slots walked in L1, L2 and LLC together.
    pub walked: u64,
    /// Of these, in the L1s.
    pub walked_l1: u64,
    /// In the L2s.
    pub walked_l2: u64,
    /// In the LLC.
    pub walked_llc: u64,
    /// Entries walked in the snoop filter, beside `walked`.
    pub walked_snoop_filter: u64,
    /// Modified lines written back.
    pub written_back: u64,
    /// Lines that left the package's caches.
    pub invalidated: u64,
}

impl Hierarchy {
    /// WBINVD on a package: all lines of all KeyIDs written back and invalidated. It is a serialising operation: the
    /// caller drains the core that executes it first ([`crate::FenceKind::Locked`]).
    pub fn wbinvd<P: LinePort>(&mut self, package: u8, port: &mut P) -> FlushCounts {
        self.flush_package(package, None, FlushKind::Wbinvd, port)
    }
    /// WBNOINVD on a package: all lines of all KeyIDs written back and kept.
    pub fn wbnoinvd<P: LinePort>(&mut self, package: u8, port: &mut P) -> FlushCounts {
        self.flush_package(package, None, FlushKind::Wbnoinvd, port)
    }
    /// WRMSR WBINVDP of a sub-block; `None` where there is no such sub-block (architecture.md §4.1 4.1.10: #GP).
    pub fn wbinvdp<P: LinePort>(
        &mut self,
        package: u8,
        block: u32,
        port: &mut P,
    ) -> Option<FlushCounts> {
        (block < self.sub_blocks)
            .then(|| self.flush_package(package, Some(block), FlushKind::Wbinvdp, port))
    }
    /// WRMSR WBNOINVDP of a sub-block; `None` where there is no such sub-block.
    pub fn wbnoinvdp<P: LinePort>(
        &mut self,
        package: u8,
        block: u32,
        port: &mut P,
    ) -> Option<FlushCounts> {
        (block < self.sub_blocks)
            .then(|| self.flush_package(package, Some(block), FlushKind::Wbnoinvdp, port))
    }
    /// How many sub-blocks there are: what RDMSR of the two registers returns.
    pub const fn sub_blocks(&self) -> u32 {
        self.sub_blocks
    }
    /// The sub-block of a line, the same for every KeyID (architecture.md §13 MC-14).
    pub fn sub_block_of(&self, line: Line) -> u32 {
        self.slab.sub_block_of(line)
    }

    /// What a flush of a sub-block of a package, or of all of it, has to walk.
    fn slots_walked(&self, package: u8, block: Option<u32>) -> FlushCounts {
        let blocks = u64::from(self.sub_blocks.max(1));
        let share = |all: u64| match block {
            None => all,
            Some(block) => all / blocks + u64::from(u64::from(block) < all % blocks),
        };
        let first = usize::from(package) * usize::from(self.cores_per_package);
        let cores = || {
            let numbers = first..first + usize::from(self.cores_per_package);
            numbers.map(|c| self.cores.at(c))
        };
        let walked_l1 = share(cores().map(|core| core.l1.slots()).sum());
        let walked_l2 = share(cores().map(|core| core.l2.slots()).sum());
        let walked_llc = share(self.llcs.at(package.into()).slots());
        FlushCounts {
            walked: walked_l1 + walked_l2 + walked_llc,
            walked_l1,
            walked_l2,
            walked_llc,
            walked_snoop_filter: share(self.filters.at(package.into()).slots()),
            ..FlushCounts::default()
        }
    }

    fn flush_package<P: LinePort>(
        &mut self,
        package: u8,
        block: Option<u32>,
        kind: FlushKind,
        port: &mut P,
    ) -> FlushCounts {
        if usize::from(package) >= self.llcs.len() {
            return FlushCounts::default();
        }
        let invalidates = flush_row(kind).invalidates;
        let cores = self.cores_of(package);
        let llc = 1u8 << (package & 7);
        let mut counts = self.slots_walked(package, block);
        let mut from = 1;
        while let Some(slot) = self.slab.next_in(block, from) {
            from = slot as usize + 1;
            let line = self.slab.get(slot);
            if line.cores & cores == 0 && line.llc & llc == 0 {
                continue;
            }
            // A dirty line has all its holders in one package, so a dirty line that is here is this package's duty.
            let dirty = line.is_dirty();
            counts.written_back += u64::from(dirty);
            if invalidates {
                counts.invalidated += 1;
                self.leave_cores(slot, cores);
                self.leave_llcs(slot, llc);
            }
            let kept = self.slab.get(slot).is_held();
            if dirty {
                self.write_back(slot, Why::FlushAll, kept, port);
            } else {
                self.release_if_free(slot, Why::FlushAll, port);
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_one_row_and_finds_it() {
        assert_eq!(FLUSHES.len(), FLUSH_KINDS.len());
        for (i, kind) in FLUSH_KINDS.into_iter().enumerate() {
            assert_eq!(FLUSHES.iter().filter(|r| r.kind == kind).count(), 1, "{kind:?}");
            assert_eq!(FLUSHES[i].kind, kind);
            assert_eq!(flush_row(kind), &FLUSHES[i]);
        }
    }

    #[test]
    fn the_table_prints_as_the_sheet_lays_it_out() {
        expect_test::expect![[r#"
            | Operation | Reach | Modified line | Clean line | Order | Source |
            |---|---|---|---|---|---|
            | Clflush | LineAndKeyId | written back, invalidated | invalidated | at once | architecture.md §4.4 CLFLUSH; §4.1 4.1.8 |
            | Clflushopt | LineAndKeyId | written back, invalidated | invalidated | weak | architecture.md §4.4 CLFLUSHOPT; §4.1 4.1.8 |
            | Clwb | LineAndKeyId | written back, kept | kept | weak | architecture.md §4.4 CLWB; §4.1 4.1.8 |
            | Wbinvd | Package | written back, invalidated | invalidated | at once | architecture.md §4.4 WBINVD; §4.1 4.1.9 |
            | Wbnoinvd | Package | written back, kept | kept | at once | architecture.md §4.4 WBNOINVD |
            | Wbinvdp | SubBlock | written back, invalidated | invalidated | at once | architecture.md §4.4 WRMSR WBINVDP(i); §4.1 4.1.10 |
            | Wbnoinvdp | SubBlock | written back, kept | kept | at once | architecture.md §4.4 WRMSR WBNOINVDP(i); §4.1 4.1.10 |
            | Movdir64b | LineAndKeyId | written back, invalidated | invalidated | weak | architecture.md §4.4 MOVDIR64B; §3 3.4, 3.5 |
        "#]]
        .assert_eq(&flushes_markdown());
    }
}
