//! What a leaf that fails may leave changed. Everything else is as it was before, bit by bit, but for what is cached.

use sim_core::tdx::{Leaf, LeafRow};

/// A row of [`FAILURE_EFFECTS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailureEffect {
    /// Which leaf; `None` for all that take such a lock.
    pub leaf: Option<Leaf>,
    /// What changes.
    pub effect: &'static str,
    /// Whether it is in the module's own structures; otherwise in memory alone.
    pub in_module: bool,
    /// Source.
    pub cite: &'static str,
}

const fn row(
    leaf: Option<Leaf>,
    effect: &'static str,
    in_module: bool,
    cite: &'static str,
) -> FailureEffect {
    FailureEffect { leaf, effect, in_module, cite }
}

/// Everything that a failed leaf may have changed.
#[rustfmt::skip]
pub const FAILURE_EFFECTS: &[FailureEffect] = &[
    row(None, "a lock with host priority that was taken is kept for the host", true, "architecture.md §7.2"),
    row(Some(Leaf::SYS_CONFIG), "the HKID in R8 is RESERVED and is the global one", true, "architecture.md §7.9"),
    row(Some(Leaf::MNG_CREATE), "RND_NO_ENTROPY: the offered page is overwritten under the global HKID", false, "architecture.md §7.10.1"),
    row(Some(Leaf::MNG_ADDCX), "RND_NO_ENTROPY, OP_STATE_INCORRECT: the offered page is overwritten under the TD's HKID", false, "architecture.md §7.9, §7.10.1"),
    row(Some(Leaf::SYS_INFO), "OPERAND_INVALID about R8 or R9: the 1024 bytes at RCX are zero", false, "intel/tdx-module 1.5.01 tdh_sys_info.c"),
    row(Some(Leaf::SYS_RDALL), "METADATA_LIST_OVERFLOW: the fields that fit are written", false, "intel/tdx-module 1.5.01 metadata_generic.c"),
    row(Some(Leaf::MEM_PAGE_DEMOTE), "INTERRUPTED_RESTARTABLE or a busy PAMT: the offered page is overwritten under the TD's HKID", false, "architecture.md §7.10.1"),
    row(Some(Leaf::PHYMEM_CACHE_WB), "INTERRUPTED_RESUMABLE: how far it came", true, "architecture.md §7.11"),
    row(Some(Leaf::VP_ENTER), "behind VCPU_ASSOCIATED: the VCPU is associated with this LP", true, "intel/tdx-module 1.5.01 tdh_vp_enter.c"),
    row(Some(Leaf::VP_RD), "behind VCPU_ASSOCIATED: the VCPU is associated with this LP", true, "intel/tdx-module 1.5.01 tdh_vp_rd_wr.c"),
    row(Some(Leaf::VP_WR), "behind VCPU_ASSOCIATED: the VCPU is associated with this LP", true, "intel/tdx-module 1.5.01 tdh_vp_rd_wr.c"),
    row(Some(Leaf::MEM_SEPT_ADD), "version 1, INTERRUPTED_RESUMABLE: pages that are done", true, "architecture.md §7.11"),
    row(Some(Leaf::SYS_DISABLE), "SYS_BUSY: no new TDH.SYS.* leaf is let in; INTERRUPTED_RESUMABLE: how far it came", true, "linux-host-paths.md §16.5"),
];

/// [`FAILURE_EFFECTS`] as a table of the book.
pub fn failure_effects_markdown() -> String {
    let mut out = String::from(
        "| Leaf | What may have changed although it failed | Source |\n|---|---|---|\n",
    );
    for r in FAILURE_EFFECTS {
        let name = match r.leaf.and_then(Leaf::row) {
            Some(LeafRow { name, .. }) => name,
            None => "every leaf",
        };
        out.push_str(&format!("| {name} | {} | {} |\n", r.effect, r.cite));
    }
    out
}
