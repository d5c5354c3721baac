//! Locks: who holds what, and who is refused (architecture.md §7.2).

use super::run::Run;
use super::{Call, Company, Spec, Unknown};
use crate::view::ModuleView;
use sim_core::Page;

/// Another call in flight.
#[derive(Clone, Copy, Debug)]
pub struct Flight<'a> {
    /// The call.
    pub call: Call,
    /// The view when it began to check: which locks it holds depends on it.
    pub began: &'a ModuleView,
}

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mode {
    /// With others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lock {
    /// The global lock.
    Sys,
    /// Key ownership table.
    Kot,
    /// The key table of a package: PCONFIG.
    Ket(u8),
    /// TDH.PHYMEM.CACHE.WB of a package.
    WbCache(u8),
    /// A TDMR, by its place.
    Tdmr(usize),
    /// A PAMT entry: level and first page.
    Pamt(u8, Page),
    /// OP_STATE of a TD.
    OpState(Page),
    /// The Secure-EPT tree of a TD.
    Tree(Page),
    /// TD_EPOCH of a TD.
    Epoch(Page),
    /// Secure-EPT entries of a TD, by the first byte and the size of what they map. Entries of different levels over one range
    /// are taken for one lock, which allows a BUSY too many and never one too few.
    Entries(Page, u64, u64),
    /// Any: of a leaf of which the sheet does not say which it takes.
    Any,
}

impl Lock {
    fn same(self, other: Lock) -> bool {
        match (self, other) {
            (Lock::Entries(td, at, bytes), Lock::Entries(other_td, other_at, other_bytes)) => {
                td == other_td
                    && at < other_at.saturating_add(other_bytes)
                    && other_at < at.saturating_add(bytes)
            }
            (Lock::Any, _) | (_, Lock::Any) => true,
            (a, b) => a == b,
        }
    }
}

/// Locks held.
pub(super) type Held = Vec<(Lock, Mode)>;

/// Whether a lock cannot be had beside these.
pub(super) fn refused(held: &Held, lock: Lock, mode: Mode) -> bool {
    held.iter().any(|(other, other_mode)| {
        lock.same(*other) && (mode == Mode::Exclusive || *other_mode == Mode::Exclusive)
    })
}

/// What a PAMT walk to a 4 KiB entry holds.
fn walk(page: Page, mode: Mode, into: &mut Held) {
    into.push((Lock::Pamt(2, block(page, 2)), Mode::Shared));
    into.push((Lock::Pamt(1, block(page, 1)), Mode::Shared));
    into.push((Lock::Pamt(0, page), mode));
}

/// What VCPUs inside their TDs hold: TDR and TDVPR, shared (architecture.md §7.2 "TDR lock modes").
pub(super) fn of_insiders(view: &ModuleView, except: u16) -> Held {
    let mut held = Held::new();
    for (lp, seen) in (0u16..).zip(&view.lps) {
        if let Some(vcpu) = seen.inside.filter(|_| lp != except) {
            walk(vcpu, Mode::Shared, &mut held);
            if let Some(vcpu) = view.vcpus.get(&vcpu) {
                walk(vcpu.tdr, Mode::Shared, &mut held);
            }
        }
    }
    held
}

/// What a call in flight may hold.
pub(super) fn of_flight(spec: &Spec, flight: &Flight<'_>) -> Held {
    // Interrupts and entropy do not change which locks are taken; memory operands of unknown content allow every path.
    let company = Company { others: &[], interrupt: true, starved: true, odd: true };
    Run::new(spec, flight.began, &flight.call, &company, &Unknown, None).held()
}

/// The first page of the block of this level that holds a page: level 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB.
pub(super) fn block(page: Page, level: u8) -> Page {
    Page(page.0 >> (9 * u32::from(level)) << (9 * u32::from(level)))
}
