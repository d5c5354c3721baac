//! Which leaf returns which status, and why: the checks of architecture.md §7.9 in their order, the common sequences of
//! §7.7 by name.
//!
//! Where the sheet is silent and the source that it cites (intel/tdx-module 1.5.01) has a check, the row says so in a
//! comment.

use super::{ExitReason, GuestLeaf, Leaf, Low, Operand, Status};

/// One check of a leaf, or one of the named sequences of architecture.md §7.7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// HPA(r, lock, PT): a private page operand in this register, with what its page must be.
    Hpa(Operand, &'static str),
    /// STATE(lock): whether the OP_STATE lock is taken.
    State(bool),
    /// GPA(min..max) in RCX.
    Gpa,
    /// WALK(tree lock).
    Walk,
    /// ENTRY: the Secure-EPT entry's lock.
    Entry,
    /// ALLOWED: the entry's state, with the list.
    Allowed(&'static str),
    /// TRACK.
    Track,
    /// SHPA(r, align): a shared page operand in this register.
    Shpa(Operand),
    /// A check of the leaf's own.
    Is(Status, &'static str),
    /// A parameter check whose operand id is a field of TD_PARAMS (64 and above).
    Field,
}

/// A status that a check may end a leaf with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Return {
    /// With its operand, where the low half is one.
    pub status: Status,
    /// What was found.
    pub when: &'static str,
    /// More about it; empty where there is no more.
    pub detail: &'static str,
}

/// The checks of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafChecks {
    /// Which leaf.
    pub leaf: Leaf,
    /// In the order of the source.
    pub checks: &'static [Check],
}

impl LeafChecks {
    /// Where the checks are written.
    pub const CITE: &'static str = "architecture.md §7.9";
}

use Check::{Allowed, Entry, Field, Gpa, Hpa, Is, Shpa, State, Track, Walk};
type O = Operand;
type S = Status;

const fn about(status: Status, operand: Operand, when: &'static str) -> Check {
    Is(status.about(operand), when)
}
const fn invalid(operand: Operand, when: &'static str) -> Check {
    about(S::OPERAND_INVALID, operand, when)
}
const fn busy(operand: Operand, when: &'static str) -> Check {
    about(S::OPERAND_BUSY, operand, when)
}
const fn tdr(operand: Operand) -> Check {
    Hpa(operand, "PT_TDR")
}
const fn tdvpr(operand: Operand) -> Check {
    Hpa(operand, "PT_TDVPR")
}
const fn free(operand: Operand) -> Check {
    Hpa(operand, "PT_NDA (free)")
}
const fn leaf(leaf: Leaf, checks: &'static [Check]) -> LeafChecks {
    LeafChecks { leaf, checks }
}

const OWNER: Check = busy(O::TDR, "the owner TDR's lock is taken");
const FATAL: Check = Is(S::TD_FATAL, "the TD met a machine check");
const SYS: Check = Is(S::SYS_BUSY, "the module's global lock is taken");
const KEYS: Check =
    Is(S::TD_KEYS_NOT_CONFIGURED, "the TD's life-cycle state is not KEYS_CONFIGURED");
const KOT: Check = busy(O::KOT, "the key ownership table's lock is taken");
const TDCX: Check = Is(S::TDCX_NUM_INCORRECT, "the VCPU has too few or too many control pages");
const VCPU: Check = Is(S::VCPU_STATE_INCORRECT, "the VCPU's state does not allow this");
const PAGE: Check = busy(O::RCX, "the PAMT lock of the mapped page is taken");
const ENTROPY: Check =
    Is(S::RND_NO_ENTROPY, "no entropy; the page is overwritten but not the module's");

/// What the dispatcher checks before any leaf (architecture.md §7.1).
#[rustfmt::skip]
pub const DISPATCH: &[Check] = &[
    invalid(O::RAX, "reserved bits of RAX"),
    invalid(O::RAX, "a version above 0, which only TDH.MEM.PAGE.PROMOTE, TDH.MEM.SEPT.ADD, TDH.MEM.SEPT.REMOVE, TDH.MNG.RD and TDH.VP.RD have"),
    Is(S::SYS_SHUTDOWN,  "the module was shut down and the leaf is not TDH.SYS.LP.SHUTDOWN"),
    Is(S::SYS_NOT_READY, "the module is not initialised and the leaf is not one of its initialisation"),
    invalid(O::RAX, "an unknown leaf"),
];

/// The checks of every leaf that architecture.md §7.9 describes, by leaf number.
#[rustfmt::skip]
pub const LEAF_CHECKS: &[LeafChecks] = &[
    leaf(Leaf::VP_ENTER, &[
        invalid(O::RCX, "reserved bits"), tdvpr(O::RCX), OWNER, State(true), TDCX, VCPU,
        Is(S::VCPU_ASSOCIATED, "the VCPU is associated with another LP"),
        Is(S::INCONSISTENT_MSR, "an MSR differs from its value at TDH.SYS.INIT"),
        Is(S::TSC_ROLLBACK, "the TSC went back"),
        busy(O::TD_EPOCH, "TDH.MEM.TRACK holds the epoch lock"),
        // §7.2: the zero-step filter may take the tree lock exclusively.
        busy(O::SEPT_TREE, "the zero-step filter could not take the tree lock"),
        Is(S::SUCCESS, "the TD ran and left with this exit reason"),
        Is(S::NON_RECOVERABLE_TD_NON_ACCESSIBLE, "a machine check in the TD (architecture.md §6.3)"),
        Is(S::NON_RECOVERABLE_TD, "the TD left for good"),
        Is(S::NON_RECOVERABLE_VCPU, "the VCPU left for good"),
        Is(S::NON_RECOVERABLE_TD_WRONG_APIC_MODE, "the LP's APIC mode"),
        Is(S::HOST_PRIORITY_BUSY_TIMEOUT, "TDCALLs kept meeting the host's locks (architecture.md §7.2)"),
    ]),
    leaf(Leaf::MNG_ADDCX, &[
        tdr(O::RDX), FATAL, KEYS, Is(S::TDCX_NUM_INCORRECT, "the TD has 9 TDCS pages"), free(O::RCX), ENTROPY,
        Is(S::OP_STATE_INCORRECT, "pages 7 to 9 need OP_STATE UNINIT"),
    ]),
    leaf(Leaf::MEM_PAGE_ADD, &[
        tdr(O::RDX), State(false), Gpa, invalid(O::RCX, "the GPA is shared"),
        about(S::EPT_WALK_FAILED, O::RCX, "no Secure-EPT down to level 0"),
        Allowed("FREE"), Shpa(O::R9), free(O::R8),
    ]),
    leaf(Leaf::MEM_SEPT_ADD, &[
        invalid(O::RAX, "version above 1"), invalid(O::RDX, "reserved bits"), tdr(O::RDX), State(true), Gpa, Walk,
        Entry, Allowed("FREE or NL_MAPPED"),
        invalid(O::R8, "version 0 without a page"),
        about(S::EPT_ENTRY_STATE_INCORRECT, O::RCX, "version 1 without a page where no table exists, or a page where one exists and RDX bit 0 is 0"),
        free(O::R8),
        Is(S::INTERRUPTED_RESUMABLE, "version 1, interrupted between L2 pages"),
    ]),
    leaf(Leaf::VP_ADDCX, &[
        tdvpr(O::RDX), OWNER, State(true), VCPU, Is(S::TDCX_NUM_INCORRECT, "the VCPU has 15 pages"), free(O::RCX),
    ]),
    leaf(Leaf::MEM_PAGE_RELOCATE, &[
        tdr(O::RDX), State(true), Gpa, Walk, Entry, Allowed("any leaf with a page"),
        invalid(O::R8, "the page is there already"), PAGE, Track, free(O::R8),
    ]),
    leaf(Leaf::MEM_PAGE_AUG, &[
        tdr(O::RDX), State(true), Gpa, Walk, Entry, Allowed("FREE or REMOVED"),
        Hpa(O::R8, "PT_NDA (free), for 2 MiB at all 512 children"),
    ]),
    leaf(Leaf::MEM_RANGE_BLOCK, &[
        tdr(O::RDX), State(true), Gpa, Walk, Entry,
        about(S::GPA_RANGE_ALREADY_BLOCKED, O::RCX, "the entry is a *_BLOCKED one"),
        Allowed("NL_MAPPED, MAPPED, BLOCKEDW, PENDING or PENDING_BLOCKEDW"),
    ]),
    leaf(Leaf::MNG_KEY_CONFIG, &[
        tdr(O::RCX), FATAL,
        Is(S::LIFECYCLE_STATE_INCORRECT, "the TD's life-cycle state is not HKID_ASSIGNED"),
        Is(S::KEY_CONFIGURED, "this package is done"),
        busy(O::KET, "PCONFIG was busy"), Is(S::KEY_GENERATION_FAILED, "PCONFIG had no entropy"),
    ]),
    leaf(Leaf::MNG_CREATE, &[
        invalid(O::RDX, "the HKID is not private, or reserved bits"), free(O::RCX), KOT,
        Is(S::HKID_NOT_FREE, "the HKID is in use, or the global one"), ENTROPY,
    ]),
    leaf(Leaf::VP_CREATE, &[tdr(O::RDX), State(true), free(O::RCX)]),
    leaf(Leaf::MEM_RD, &[
        tdr(O::RDX), State(true), Is(S::TD_NON_DEBUG, "not a debug TD"), invalid(O::RCX, "alignment"),
        busy(O::SEPT_TREE, "the tree lock is taken"),
        // [SRC tdh_mem_rd_wr.c]: the walk checks the GPA, here after the tree lock.
        invalid(O::RCX, "the GPA is shared or too wide"),
        about(S::EPT_ENTRY_NOT_PRESENT, O::RCX, "no page is mapped"),
        Entry, Allowed("MAPPED, BLOCKEDW or EXPORTED_*"),
    ]),
    leaf(Leaf::MEM_WR, &[
        tdr(O::RDX), State(true), Is(S::TD_NON_DEBUG, "not a debug TD"), invalid(O::RCX, "alignment"),
        busy(O::SEPT_TREE, "the tree lock is taken"),
        // [SRC tdh_mem_rd_wr.c]: the walk checks the GPA, here after the tree lock.
        invalid(O::RCX, "the GPA is shared or too wide"),
        about(S::EPT_ENTRY_NOT_PRESENT, O::RCX, "no page is mapped"),
        Entry, Allowed("MAPPED or EXPORTED_DIRTY"),
    ]),
    leaf(Leaf::MEM_PAGE_DEMOTE, &[
        invalid(O::RDX, "reserved bits"), tdr(O::RDX), State(true), Gpa, Walk, Entry,
        Allowed("MAPPED, BLOCKED, PENDING or PENDING_BLOCKED"), Track, free(O::R8),
        Is(S::L2_SEPT_PAGE_NOT_PROVIDED, "a page for an L2 table is missing"),
        Is(S::INTERRUPTED_RESTARTABLE, "an interrupt is pending; nothing is committed, but the R8 page is overwritten"),
        busy(O::RCX, "the PAMT cannot be split now"),
    ]),
    leaf(Leaf::MR_EXTEND, &[
        tdr(O::RDX), State(false), invalid(O::RCX, "the GPA is not aligned to 256 bytes"),
        // [SRC tdh_mr_extend.c]: the last one without an operand.
        invalid(O::RCX, "the GPA is shared or too wide"),
        about(S::EPT_ENTRY_NOT_PRESENT, O::RCX, "no page is mapped"),
        Is(S::EPT_ENTRY_NOT_PRESENT, "the entry is not MAPPED"),
    ]),
    leaf(Leaf::MR_FINALIZE, &[tdr(O::RCX), State(false), Is(S::NO_VCPUS, "the TD has no VCPU")]),
    leaf(Leaf::VP_FLUSH, &[
        tdvpr(O::RCX), OWNER, KEYS, TDCX, Is(S::VCPU_NOT_ASSOCIATED, "the VCPU is not associated with this LP"),
    ]),
    leaf(Leaf::MNG_VPFLUSHDONE, &[
        tdr(O::RCX), KOT,
        Is(S::LIFECYCLE_STATE_INCORRECT, "the TD's life-cycle state is not KEYS_CONFIGURED or HKID_ASSIGNED"),
        Is(S::FLUSHVP_NOT_DONE, "a VCPU is still associated with an LP"),
    ]),
    leaf(Leaf::MNG_KEY_FREEID, &[
        tdr(O::RCX), Is(S::LIFECYCLE_STATE_INCORRECT, "the TD's life-cycle state is not BLOCKED"), KOT,
        Is(S::WBCACHE_NOT_COMPLETE, "TDH.PHYMEM.CACHE.WB has not run on every package since TDH.MNG.VPFLUSHDONE"),
    ]),
    leaf(Leaf::MNG_INIT, &[tdr(O::RCX), State(false), Shpa(O::RDX), Field]),
    leaf(Leaf::VP_INIT, &[
        tdvpr(O::RCX), OWNER, State(true), TDCX, VCPU, Is(S::MAX_VCPUS_EXCEEDED, "MAX_VCPUS of TD_PARAMS is reached"),
        Is(S::INCONSISTENT_MSR, "IA32_TSC_ADJUST differs from its value at TDH.SYS.INIT"),
    ]),
    leaf(Leaf::MEM_PAGE_PROMOTE, &[
        invalid(O::RAX, "version above 1"), tdr(O::RDX), State(true), Gpa, Walk, Entry,
        Allowed("NL_MAPPED or NL_BLOCKED"), busy(O::RCX, "the PAMT lock of the Secure-EPT page is taken"), Track,
        // [SRC tdh_mem_page_promote.c]: child after child, each locked and then checked.
        busy(O::RCX, "the entry lock of a child is taken"),
        about(S::EPT_INVALID_PROMOTE_CONDITIONS, O::RCX, "the 512 children are not all MAPPED or all PENDING with consecutive pages from an aligned one"),
        Is(S::INTERRUPTED_RESTARTABLE, "an interrupt is pending; nothing is committed"),
        busy(O::RCX, "the PAMT cannot be merged now"),
    ]),
    leaf(Leaf::PHYMEM_PAGE_RDMD, &[
        invalid(O::RCX, "alignment, KeyID bits, or bits above 51"),
        about(S::OPERAND_ADDR_RANGE_ERROR, O::RCX, "outside initialised TDMR memory"),
        busy(O::RCX, "the page's PAMT entry is locked"),
    ]),
    leaf(Leaf::MEM_SEPT_RD, &[tdr(O::RDX), State(true), Gpa, Walk, Entry]),
    leaf(Leaf::MNG_KEY_RECLAIMID, &[Is(S::SUCCESS, "always")]),
    leaf(Leaf::PHYMEM_PAGE_RECLAIM, &[
        invalid(O::RCX, "alignment, KeyID bits, or bits above 51"),
        about(S::OPERAND_ADDR_RANGE_ERROR, O::RCX, "outside initialised TDMR memory"),
        busy(O::RCX, "the page's PAMT entry is locked"),
        about(S::PAGE_METADATA_INCORRECT, O::RCX, "the page is PT_NDA (reclaimed or removed before) or PT_RSVD"),
        invalid(O::RCX, "not aligned to the page's size"),
        OWNER,
        Is(S::LIFECYCLE_STATE_INCORRECT, "the owner TD's life-cycle state is not TEARDOWN"),
        Is(S::TD_ASSOCIATED_PAGES_EXIST, "the page is a TDR and its TD still has pages"),
    ]),
    leaf(Leaf::MEM_PAGE_REMOVE, &[
        tdr(O::RDX), State(true), Gpa, Walk, Entry,
        Allowed("MAPPED, BLOCKED, BLOCKEDW, PENDING, PENDING_BLOCKED or PENDING_BLOCKEDW"), PAGE, Track,
    ]),
    leaf(Leaf::MEM_SEPT_REMOVE, &[
        // [SRC tdh_mem_sept_remove.c]; §7.1 names it among the leaves with versions.
        invalid(O::RAX, "version above 1"), tdr(O::RDX), State(true), Gpa, Walk, Entry, Allowed("NL_MAPPED or NL_BLOCKED"), PAGE, Track,
        about(S::EPT_PAGE_NOT_FREE, O::RCX, "one of the 512 entries is not FREE; REMOVED does not count as FREE"),
    ]),
    leaf(Leaf::SYS_KEY_CONFIG, &[
        SYS, Is(S::SYS_KEY_CONFIG_NOT_PENDING, "the module's state is not SYSCONFIG_DONE"),
        Is(S::KEY_CONFIGURED, "this package is done"), busy(O::KET, "PCONFIG was busy"),
        Is(S::KEY_GENERATION_FAILED, "PCONFIG had no entropy"),
    ]),
    leaf(Leaf::SYS_INIT, &[
        SYS, invalid(O::RCX, "reserved bits"), Is(S::SYS_INIT_NOT_PENDING, "done before"),
        Is(S::INCORRECT_MSR_VALUE, "an MSR"),
        Is(S::INCORRECT_CPUID_VALUE, "a CPUID value; RCX to R10 say which"),
        Is(S::SMRR_OVERLAPS_CMR, "SMRR check"),
        Is(S::INCORRECT_MSR_VALUE, "TME is not locked or without a fitting algorithm"),
        Is(S::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, "2048 or more private HKIDs"),
        Is(S::INCORRECT_MSR_VALUE, "WBINVDP and WBNOINVDP have different numbers of sub-blocks"),
        Is(S::CMR_LIST_INVALID, "CMRs not ordered, not 4 KiB granular, or with KeyID bits"),
    ]),
    leaf(Leaf::SYS_RD, &[Is(S::SYS_LP_INIT_NOT_DONE, "TDH.SYS.LP.INIT was not done on this LP")]),
    leaf(Leaf::SYS_LP_INIT, &[
        SYS, Is(S::SYS_LP_INIT_NOT_PENDING, "the module's state is not SYSINIT_DONE"),
        Is(S::SYS_LP_INIT_DONE, "done before on this LP"),
        Is(S::INCONSISTENT_MSR, "an MSR differs from the first LP's"),
        Is(S::INCONSISTENT_CPUID_FIELD, "a CPUID field differs from the first LP's"),
    ]),
    leaf(Leaf::SYS_TDMR_INIT, &[
        invalid(O::RCX, "not the base of a configured TDMR"), busy(O::RCX, "the TDMR is being initialised elsewhere"),
        Is(S::TDMR_ALREADY_INITIALIZED, "the TDMR is complete"),
    ]),
    leaf(Leaf::MEM_TRACK, &[
        tdr(O::RCX), State(true), busy(O::TD_EPOCH, "a VCPU is just being entered"),
        Is(S::PREVIOUS_TLB_EPOCH_BUSY, "VCPUs entered in the previous epoch are still in the TD"),
    ]),
    leaf(Leaf::MEM_RANGE_UNBLOCK, &[
        tdr(O::RDX), State(true), Gpa, Walk, Entry, Allowed("NL_BLOCKED, BLOCKED or PENDING_BLOCKED"),
        about(S::TLB_TRACKING_NOT_DONE, O::SEPT_TREE, "tracking is not finished"),
    ]),
    leaf(Leaf::PHYMEM_CACHE_WB, &[
        invalid(O::RCX, "neither 0 (start) nor 1 (resume)"),
        busy(O::WBCACHE, "another write-back runs on this package"), KOT,
        Is(S::NO_HKID_READY_TO_WBCACHE, "no HKID is FLUSHED"),
        Is(S::WBCACHE_RESUME_ERROR, "nothing to resume"),
        Is(S::INTERRUPTED_RESUMABLE, "an interrupt is pending; call again with RCX = 1"),
    ]),
    leaf(Leaf::PHYMEM_PAGE_WBINVD, &[
        Hpa(O::RCX, "PT_NDA: a page still owned by a TD is refused; KeyID bits are allowed"),
    ]),
    leaf(Leaf::MEM_SEPT_WR, &[invalid(O::RAX, "not implemented: in the enumeration but without a case")]),
    leaf(Leaf::SYS_LP_SHUTDOWN, &[Is(S::SUCCESS, "always")]),
    leaf(Leaf::SYS_CONFIG, &[
        SYS, Is(S::SYS_CONFIG_NOT_PENDING, "not every LP is initialised, or done before"), Shpa(O::RCX),
        invalid(O::RDX, "0 or more than 64 TDMRs"), invalid(O::R8, "the HKID is not private, or reserved bits"),
        // [SRC tdh_sys_config.c]: the operand is RCX for the entries of the array, too.
        invalid(O::RCX, "an address in the array: alignment, bits above 51, inside SEAMRR, or a private KeyID"),
        Is(S::INVALID_TDMR, "overflow"),
        Is(S::NON_ORDERED_TDMR, "order or overlap"),
        Is(S::INVALID_TDMR, "alignment, size, KeyID bits or width"),
        Is(S::NON_ORDERED_RESERVED_IN_TDMR, "order or overlap"),
        Is(S::INVALID_RESERVED_IN_TDMR, "base, size or alignment"),
        Is(S::INVALID_PAMT, "base, size or alignment"),
        Is(S::PAMT_OVERLAP, "with another PAMT or TDMR memory"),
        Is(S::PAMT_OUTSIDE_CMRS, "not in convertible memory"),
        Is(S::TDMR_OUTSIDE_CMRS, "memory outside the CMRs is not in a reserved area"),
    ]),
    leaf(Leaf::SYS_SHUTDOWN, &[
        invalid(O::RCX, "handoff version"), SYS, Is(S::SYS_BUSY, "another LP is in the module"),
    ]),
    leaf(Leaf::SYS_UPDATE, &[
        // [SRC tdh_sys_update.c].
        SYS,
        Is(S::SYS_STATE_INCORRECT, "TDH.SYS.INIT and TDH.SYS.LP.INIT are not both done"),
        Is(S::SYS_INVALID_HANDOFF, "the handoff data cannot be used"),
    ]),
];

/// How a TDCALL ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestOutcome {
    /// The guest goes on with this status in RAX.
    Returns(Status),
    /// The TD exits: TDH.VP.ENTER returns this RAX (the exit reason in the low half).
    Exits {
        /// RAX of the host.
        rax: Status,
        /// Extended exit-qualification type ([`super::EXT_EXIT_QUALIFICATIONS`]).
        qualification: u16,
    },
    /// RIP and RAX stay as they were: after the interrupt the guest executes the TDCALL again.
    Reexecutes,
}

/// One outcome of a TDCALL, decided by the first row that holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestCheck {
    /// How it ends.
    pub outcome: GuestOutcome,
    /// When.
    pub when: &'static str,
    /// Source.
    pub cite: &'static str,
}

/// The outcomes of a TDCALL leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestLeafChecks {
    /// Which leaf.
    pub leaf: GuestLeaf,
    /// In the order of the source; the first row that holds decides.
    pub checks: &'static [GuestCheck],
}

const ACCEPT: &str = "architecture.md §7.9 \"TDG.MEM.PAGE.ACCEPT\"";
const VMCALL: &str = "architecture.md §7.9 \"TDG.VP.VMCALL\"";
const TDCALL: &str = "architecture.md §7.2, §7.9; intel/tdx-module 1.5.01 tdx_td_dispatcher.c";

const fn returns(status: Status, when: &'static str, cite: &'static str) -> GuestCheck {
    GuestCheck { outcome: GuestOutcome::Returns(status), when, cite }
}
const fn exits(
    rax: Status,
    qualification: u16,
    when: &'static str,
    cite: &'static str,
) -> GuestCheck {
    GuestCheck { outcome: GuestOutcome::Exits { rax, qualification }, when, cite }
}
/// A TD exit for an EPT violation that says it came from an ACCEPT (extended qualification type 1).
const fn violation(when: &'static str) -> GuestCheck {
    exits(S::SUCCESS.exit(ExitReason(48)), 1, when, ACCEPT)
}

/// What the dispatcher checks before (first rows) and after (last row) any TDCALL leaf.
#[rustfmt::skip]
pub const GUEST_DISPATCH: &[GuestCheck] = &[
    returns(S::OPERAND_INVALID.about(O::RAX), "reserved bits of RAX", TDCALL),
    returns(S::OPERAND_INVALID.about(O::RAX), "a version above 0, which only TDG.VM.RD has", TDCALL),
    returns(S::OPERAND_INVALID.about(O::RAX), "an unknown leaf", TDCALL),
    exits(S::HOST_PRIORITY_BUSY_TIMEOUT, 0, "the leaf met a lock kept for the host, as every TDCALL of the VCPU for HP_LOCK_TIMEOUT did", TDCALL),
];

/// The outcomes of the TDCALL leaves that architecture.md §7.9 describes, by leaf number. Success is a row, too: what
/// comes after it applies only when it does not hold.
#[rustfmt::skip]
pub const GUEST_LEAF_CHECKS: &[GuestLeafChecks] = &[
    GuestLeafChecks { leaf: GuestLeaf::VP_VMCALL, checks: &[
        returns(S::OPERAND_INVALID.about(O::RCX), "bit 0, 1 or 4 of the register mask, or one of 63:32", VMCALL),
        returns(S::OPERAND_INVALID.about(O::RCX), "bit 5 of the register mask in a TD with NO_RBP_MOD", VMCALL),
        exits(S::SUCCESS.exit(ExitReason(77)), 0, "otherwise; trap-like, RIP is behind the TDCALL", VMCALL),
    ] },
    GuestLeafChecks { leaf: GuestLeaf::MEM_PAGE_ACCEPT, checks: &[
        returns(S::OPERAND_INVALID.about(O::RCX), "reserved bits, level above 1, or alignment", ACCEPT),
        returns(S::OPERAND_INVALID.about(O::RCX), "the GPA is shared or too wide", ACCEPT),
        returns(S::PAGE_ALREADY_ACCEPTED, "the walk ends above the level at a leaf that the guest can access; that leaf's level", ACCEPT),
        violation("the walk ends above the level for another reason"),
        returns(S::OPERAND_BUSY.about(O::RCX), "the entry's lock is taken, or free but kept for the host", ACCEPT),
        returns(S::PAGE_SIZE_MISMATCH, "the entry is not a leaf and not FREE; its level", ACCEPT),
        returns(S::PAGE_ALREADY_ACCEPTED, "the entry is a leaf that the guest can access; its level", ACCEPT),
        violation("the entry is neither PENDING nor PENDING_EXPORTED_DIRTY (FREE, blocked, ...)"),
        GuestCheck { outcome: GuestOutcome::Reexecutes, when: "2 MiB: an interrupt is pending after a 4 KiB chunk; the entry keeps the count", cite: "architecture.md §7.9 \"TDG.MEM.PAGE.ACCEPT\", §7.11" },
        returns(S::SUCCESS, "otherwise: the page is zeroed and the entry MAPPED (EXPORTED_DIRTY)", ACCEPT),
    ] },
];

impl GuestLeaf {
    /// Its outcomes; `None` for a leaf that architecture.md §7.9 does not describe.
    pub fn checks(self) -> Option<&'static GuestLeafChecks> {
        GUEST_LEAF_CHECKS.iter().find(|row| row.leaf == self)
    }
}

impl Check {
    /// The statuses that this check may end a leaf with, in order.
    pub fn returns(self) -> Vec<Return> {
        let plain = |status, when| Return { status, when, detail: "" };
        match self {
            Hpa(r, page) => vec![
                plain(S::OPERAND_INVALID.about(r), "alignment, KeyID bits, or bits above 51"),
                plain(S::OPERAND_ADDR_RANGE_ERROR.about(r), "outside initialised TDMR memory"),
                plain(S::OPERAND_BUSY.about(r), "the page's PAMT entry is locked"),
                Return {
                    status: S::PAGE_METADATA_INCORRECT.about(r),
                    when: "the page must be",
                    detail: page,
                },
            ],
            State(lock) => {
                let mut all = vec![
                    plain(S::TD_FATAL, "the TD met a machine check"),
                    plain(
                        S::TD_KEYS_NOT_CONFIGURED,
                        "the TD's life-cycle state is not KEYS_CONFIGURED",
                    ),
                    plain(S::TDCS_NOT_ALLOCATED, "fewer than 6 TDCS pages"),
                ];
                if lock {
                    all.push(plain(
                        S::OPERAND_BUSY.about(O::OP_STATE),
                        "the OP_STATE lock is taken",
                    ));
                }
                all.push(plain(S::OP_STATE_INCORRECT, "OP_STATE (architecture.md §7.5)"));
                all
            }
            Gpa => vec![plain(S::OPERAND_INVALID.about(O::RCX), "reserved bits, level, alignment")],
            Walk => vec![
                plain(S::OPERAND_INVALID.about(O::RCX), "the GPA is shared or too wide"),
                plain(S::OPERAND_BUSY.about(O::SEPT_TREE), "the tree lock is taken"),
                plain(
                    S::EPT_WALK_FAILED.about(O::RCX),
                    "the walk ended above the level; RCX and RDX say at which entry",
                ),
            ],
            Entry => vec![plain(S::OPERAND_BUSY.about(O::RCX), "the entry's lock is taken")],
            Allowed(list) => vec![Return {
                status: S::EPT_ENTRY_STATE_INCORRECT.about(O::RCX),
                when: "the entry must be",
                detail: list,
            }],
            Track => vec![
                plain(S::GPA_RANGE_NOT_BLOCKED.about(O::RCX), "the entry is not a *_BLOCKED one"),
                plain(
                    S::TLB_TRACKING_NOT_DONE.about(O::RCX),
                    "no TDH.MEM.TRACK since the block, or a VCPU has not left since",
                ),
            ],
            Shpa(r) => vec![plain(
                S::OPERAND_INVALID.about(r),
                "alignment, bits above 51, inside SEAMRR, or a private KeyID",
            )],
            Is(status, when) => vec![plain(status, when)],
            Field => vec![plain(
                S::OPERAND_INVALID.about(O::ATTRIBUTES),
                "this field of TD_PARAMS is not what the module accepts",
            )],
        }
    }

    fn matches(self, found: Status, ret: &Return) -> bool {
        if self == Field {
            return found.code() == S::OPERAND_INVALID && (64..=95).contains(&found.low());
        }
        ret.status.code() == found.code()
            && (found.low_kind() != Low::Operand || ret.status.low() == found.low())
    }
}

impl Leaf {
    /// Its checks; `None` for a leaf that architecture.md §7.9 does not describe.
    pub fn checks(self) -> Option<&'static LeafChecks> {
        LEAF_CHECKS.iter().find(|row| row.leaf == self)
    }
}

/// Every way in which a leaf of architecture.md §7.9 returns this status, by leaf number; what the dispatcher checks for
/// all leaves is not among them ([`DISPATCH`]).
pub fn who_returns(status: Status) -> Vec<(Leaf, Return)> {
    let mut out = Vec::new();
    for row in LEAF_CHECKS {
        for check in row.checks {
            for ret in check.returns() {
                if check.matches(status, &ret) {
                    out.push((row.leaf, ret));
                }
            }
        }
    }
    out
}

/// A status in a cell of a table. Low halves that differ from call to call (MSR, TDMR, level, exit reason) are left out.
fn cell(status: Status) -> String {
    match status.name() {
        Some(name) if status.low() == 0 && status.low_kind() != Low::Operand => name.to_owned(),
        _ => status.to_string().replace('|', "\\|"),
    }
}

/// [`GUEST_DISPATCH`] and [`GUEST_LEAF_CHECKS`] as a table of the book.
pub fn guest_leaf_checks_markdown() -> String {
    let mut out = String::from("| Leaf | Outcome | When | Source |\n|---|---|---|---|\n");
    let mut rows = |leaf: &str, checks: &[GuestCheck]| {
        for GuestCheck { outcome, when, cite } in checks {
            let outcome = match *outcome {
                GuestOutcome::Returns(status) => format!("returns {}", cell(status)),
                GuestOutcome::Exits { rax, qualification: 0 } => format!("TD exit, {}", cell(rax)),
                GuestOutcome::Exits { rax, qualification } => {
                    format!("TD exit, {}, extended qualification {qualification}", cell(rax))
                }
                GuestOutcome::Reexecutes => String::from("RIP and RAX unchanged"),
            };
            out.push_str(&format!("| {leaf} | {outcome} | {when} | {cite} |\n"));
        }
    };
    rows("every TDCALL", GUEST_DISPATCH);
    for row in GUEST_LEAF_CHECKS {
        rows(&row.leaf.to_string(), row.checks);
    }
    out
}

/// [`DISPATCH`] and [`LEAF_CHECKS`] as a table of the book.
pub fn leaf_checks_markdown() -> String {
    let mut out = String::from("| Leaf | Status | When |\n|---|---|---|\n");
    let mut rows = |leaf: &str, checks: &[Check]| {
        for ret in checks.iter().flat_map(|check| check.returns()) {
            let (status, when) = (cell(ret.status), ret.when);
            let space = if ret.detail.is_empty() { "" } else { " " };
            out.push_str(&format!("| {leaf} | {status} | {when}{space}{} |\n", ret.detail));
        }
    };
    rows("every leaf", DISPATCH);
    for row in LEAF_CHECKS {
        rows(&row.leaf.to_string(), row.checks);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{LEAVES, STATUSES};
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;

    #[test]
    fn no_leaf_has_two_rows_and_every_row_is_a_known_leaf_in_order() {
        let numbers: Vec<u16> = LEAF_CHECKS.iter().map(|r| r.leaf.0).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(numbers, sorted);
        for row in LEAF_CHECKS {
            assert!(row.leaf.row().is_some(), "{}", row.leaf);
        }
    }

    #[test]
    fn the_leaves_of_section_7_9_have_checks_and_enumeration_alone_has_none() {
        let without: BTreeSet<&str> = LEAVES
            .iter()
            .filter(|r| r.cite == LeafChecks::CITE && Leaf(r.number).checks().is_none())
            .map(|r| r.name)
            .collect();
        // "SYS.INFO (32), SYS.RD (34), SYS.RDALL (37): enumeration": no status is given for these two.
        assert_eq!(without, ["TDH.SYS.INFO", "TDH.SYS.RDALL"].into());
    }

    #[test]
    fn every_return_is_a_known_status_and_is_found_again() {
        for row in LEAF_CHECKS {
            for check in row.checks {
                for ret in check.returns() {
                    assert!(ret.status.name().is_some(), "{:?}", ret.status);
                    let found = who_returns(ret.status);
                    assert!(found.contains(&(row.leaf, ret)), "{} {}", row.leaf, ret.status);
                }
            }
        }
    }

    #[test]
    fn statuses_of_the_sheet_that_no_described_leaf_returns_are_these() {
        let mut returned: BTreeSet<Status> = BTreeSet::new();
        let all = LEAF_CHECKS.iter().flat_map(|r| r.checks).chain(DISPATCH);
        for ret in all.flat_map(|c| c.returns()) {
            returned.insert(ret.status.code());
        }
        for check in GUEST_LEAF_CHECKS.iter().flat_map(|r| r.checks).chain(GUEST_DISPATCH) {
            if let GuestOutcome::Returns(status) | GuestOutcome::Exits { rax: status, .. } =
                check.outcome
            {
                returned.insert(status.code());
            }
        }
        let silent: Vec<&str> = STATUSES
            .iter()
            .filter(|r| r.cite == "architecture.md §7.3" && !returned.contains(&r.status))
            .map(|r| r.name)
            .collect();
        expect![[r#"
            TDX_CROSS_TD_FAULT
            TDX_CROSS_TD_TRAP
            TDX_NON_RECOVERABLE_TD_CORRUPTED_MD
            TDX_OPERAND_BUSY_HOST_PRIORITY
            TDX_PAGE_NOT_FREE
            TDX_INCOMPATIBLE_SEAM_CAPABILITIES
            TDX_KEY_STATE_INCORRECT
            TDX_L2_SEPT_WALK_FAILED
            TDX_L2_SEPT_ENTRY_NOT_FREE"#]]
        .assert_eq(&silent.join("\n"));
    }

    #[test]
    fn no_leaf_returns_the_same_status_twice_for_the_same_reason() {
        for row in LEAF_CHECKS {
            let all: Vec<Return> = row.checks.iter().flat_map(|c| c.returns()).collect();
            for (i, ret) in all.iter().enumerate() {
                assert!(!all[..i].contains(ret), "{} {} {}", row.leaf, ret.status, ret.when);
            }
        }
    }

    /// The place of the first check of a leaf that returns this for this reason.
    fn place(leaf: Leaf, status: Status, when: &str) -> usize {
        let row = leaf.checks().unwrap();
        let all: Vec<Return> = row.checks.iter().flat_map(|c| c.returns()).collect();
        all.iter().position(|r| r.status == status && r.when.contains(when)).unwrap()
    }

    #[test]
    fn checks_that_share_a_status_stand_where_section_7_9_has_them() {
        let inv = |r| S::OPERAND_INVALID.about(r);
        // "misaligned for its size" comes after the page type.
        let reclaim = Leaf::PHYMEM_PAGE_RECLAIM;
        let kind = place(reclaim, S::PAGE_METADATA_INCORRECT.about(O::RCX), "");
        assert!(place(reclaim, inv(O::RCX), "KeyID bits") < kind);
        assert!(kind < place(reclaim, inv(O::RCX), "page's size"));
        // "overflow INVALID_TDMR; order/overlap NON_ORDERED_TDMR; alignment/size/HKID/width INVALID_TDMR".
        let order = place(Leaf::SYS_CONFIG, S::NON_ORDERED_TDMR, "");
        assert!(place(Leaf::SYS_CONFIG, S::INVALID_TDMR, "overflow") < order);
        assert!(order < place(Leaf::SYS_CONFIG, S::INVALID_TDMR, "alignment"));
        // The Secure-EPT page's lock before the tracking, the children's locks after it.
        let promote = |s: Status, when| place(Leaf::MEM_PAGE_PROMOTE, s, when);
        let track = promote(S::TLB_TRACKING_NOT_DONE.about(O::RCX), "");
        assert!(promote(S::OPERAND_BUSY.about(O::RCX), "PAMT lock") < track);
        assert!(track < promote(S::OPERAND_BUSY.about(O::RCX), "child"));
        // MNG.VPFLUSHDONE takes the KOT lock before it looks at the life cycle, MNG.KEY.FREEID after.
        let kot = |leaf| {
            let busy = place(leaf, S::OPERAND_BUSY.about(O::KOT), "");
            busy < place(leaf, S::LIFECYCLE_STATE_INCORRECT, "")
        };
        assert_eq!((kot(Leaf::MNG_VPFLUSHDONE), kot(Leaf::MNG_KEY_FREEID)), (true, false));
    }

    #[test]
    fn the_dispatcher_finds_an_unknown_leaf_last() {
        let whens: Vec<&str> =
            DISPATCH.iter().flat_map(|c| c.returns()).map(|ret| ret.when).collect();
        let place = |word: &str| whens.iter().position(|w| w.contains(word)).unwrap();
        let order = ["reserved", "version", "shut down", "not initialised", "unknown"].map(place);
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_described_tdcalls_have_outcomes_and_no_other_has() {
        let described: Vec<u16> = super::super::GUEST_LEAVES
            .iter()
            .filter(|r| r.cite == LeafChecks::CITE)
            .map(|r| r.number)
            .collect();
        let rows: Vec<u16> = GUEST_LEAF_CHECKS.iter().map(|r| r.leaf.0).collect();
        assert_eq!(rows, described);
        for row in GUEST_LEAF_CHECKS {
            assert_eq!(row.leaf.checks(), Some(row));
            // Total: the last row is what happens otherwise, and no other row is.
            let otherwise = row.checks.iter().position(|c| c.when.starts_with("otherwise"));
            assert_eq!(otherwise, Some(row.checks.len() - 1), "{}", row.leaf);
        }
        assert_eq!(GuestLeaf::VP_INFO.checks(), None);
    }

    #[test]
    fn no_guest_outcome_is_listed_twice_and_each_is_known() {
        for row in GUEST_LEAF_CHECKS {
            for (i, check) in row.checks.iter().enumerate() {
                assert!(!row.checks[..i].contains(check), "{} {}", row.leaf, check.when);
                assert!(!check.cite.is_empty());
                match check.outcome {
                    GuestOutcome::Returns(status) => {
                        assert!(status.name().is_some());
                        assert_ne!(status.code(), S::OPERAND_BUSY_HOST_PRIORITY);
                    }
                    GuestOutcome::Exits { rax, qualification } => {
                        assert!(rax.exit_reason().and_then(ExitReason::meaning).is_some());
                        let known = super::super::EXT_EXIT_QUALIFICATIONS;
                        assert!(known.iter().any(|r| r.number == qualification));
                    }
                    GuestOutcome::Reexecutes => {
                        assert_eq!(row.leaf, GuestLeaf::MEM_PAGE_ACCEPT);
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_of_a_generated_table_has_as_many_cells_as_its_heading() {
        for table in [leaf_checks_markdown(), guest_leaf_checks_markdown()] {
            let cells = |line: &str| line.replace("\\|", "").matches('|').count();
            let heading = table.lines().next().map(cells);
            for line in table.lines() {
                assert_eq!(Some(cells(line)), heading, "{line}");
            }
        }
    }

    #[test]
    fn the_operand_selects_the_check() {
        let by = |status: Status| -> Vec<String> {
            who_returns(status).iter().map(|(leaf, ret)| format!("{leaf}: {}", ret.when)).collect()
        };
        // architecture.md §7.9 "TDH.MEM.RANGE.UNBLOCK" is alone in naming the tree.
        assert_eq!(
            by(S::TLB_TRACKING_NOT_DONE.about(O::SEPT_TREE)),
            ["TDH.MEM.RANGE.UNBLOCK: tracking is not finished"]
        );
        assert_eq!(
            by(S::OPERAND_INVALID.about(O::CPUID_CONFIG)),
            ["TDH.MNG.INIT: this field of TD_PARAMS is not what the module accepts"]
        );
        assert_eq!(by(S::OPERAND_BUSY.about(O::WBCACHE)).len(), 1);
        assert_eq!(by(S::OPERAND_BUSY.about(O::R15)), [""; 0]);
    }

    #[test]
    fn msr_numbers_and_exit_reasons_do_not_hide_a_leaf() {
        let msr = who_returns(Status(0xC000_0921_0000_0982));
        assert!(!msr.is_empty() && msr.iter().all(|(leaf, _)| *leaf == Leaf::SYS_INIT));
        let mc = who_returns(Status(0x6000_0005_0000_0006));
        assert_eq!(mc.iter().map(|(leaf, _)| *leaf).collect::<Vec<_>>(), [Leaf::VP_ENTER]);
    }

    #[test]
    fn the_guest_checks_as_the_book_prints_them() {
        expect![[r#"
            | Leaf | Outcome | When | Source |
            |---|---|---|---|
            | every TDCALL | returns TDX_OPERAND_INVALID \| RAX | reserved bits of RAX | architecture.md §7.2, §7.9; intel/tdx-module 1.5.01 tdx_td_dispatcher.c |
            | every TDCALL | returns TDX_OPERAND_INVALID \| RAX | a version above 0, which only TDG.VM.RD has | architecture.md §7.2, §7.9; intel/tdx-module 1.5.01 tdx_td_dispatcher.c |
            | every TDCALL | returns TDX_OPERAND_INVALID \| RAX | an unknown leaf | architecture.md §7.2, §7.9; intel/tdx-module 1.5.01 tdx_td_dispatcher.c |
            | every TDCALL | TD exit, TDX_HOST_PRIORITY_BUSY_TIMEOUT | the leaf met a lock kept for the host, as every TDCALL of the VCPU for HP_LOCK_TIMEOUT did | architecture.md §7.2, §7.9; intel/tdx-module 1.5.01 tdx_td_dispatcher.c |
            | TDG.VP.VMCALL | returns TDX_OPERAND_INVALID \| RCX | bit 0, 1 or 4 of the register mask, or one of 63:32 | architecture.md §7.9 "TDG.VP.VMCALL" |
            | TDG.VP.VMCALL | returns TDX_OPERAND_INVALID \| RCX | bit 5 of the register mask in a TD with NO_RBP_MOD | architecture.md §7.9 "TDG.VP.VMCALL" |
            | TDG.VP.VMCALL | TD exit, TDX_SUCCESS \| exit reason 77 (TDCALL) | otherwise; trap-like, RIP is behind the TDCALL | architecture.md §7.9 "TDG.VP.VMCALL" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_OPERAND_INVALID \| RCX | reserved bits, level above 1, or alignment | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_PAGE_ALREADY_ACCEPTED | the walk ends above the level at a leaf that the guest can access; that leaf's level | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | TD exit, TDX_SUCCESS \| exit reason 48 (EPT violation), extended qualification 1 | the walk ends above the level for another reason | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_OPERAND_BUSY \| RCX | the entry's lock is taken, or free but kept for the host | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_PAGE_SIZE_MISMATCH | the entry is not a leaf and not FREE; its level | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_PAGE_ALREADY_ACCEPTED | the entry is a leaf that the guest can access; its level | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | TD exit, TDX_SUCCESS \| exit reason 48 (EPT violation), extended qualification 1 | the entry is neither PENDING nor PENDING_EXPORTED_DIRTY (FREE, blocked, ...) | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
            | TDG.MEM.PAGE.ACCEPT | RIP and RAX unchanged | 2 MiB: an interrupt is pending after a 4 KiB chunk; the entry keeps the count | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT", §7.11 |
            | TDG.MEM.PAGE.ACCEPT | returns TDX_SUCCESS | otherwise: the page is zeroed and the entry MAPPED (EXPORTED_DIRTY) | architecture.md §7.9 "TDG.MEM.PAGE.ACCEPT" |
        "#]].assert_eq(&guest_leaf_checks_markdown());
    }

    #[test]
    fn the_checks_as_the_book_prints_them() {
        expect![[r#"
            | Leaf | Status | When |
            |---|---|---|
            | every leaf | TDX_OPERAND_INVALID \| RAX | reserved bits of RAX |
            | every leaf | TDX_OPERAND_INVALID \| RAX | a version above 0, which only TDH.MEM.PAGE.PROMOTE, TDH.MEM.SEPT.ADD, TDH.MEM.SEPT.REMOVE, TDH.MNG.RD and TDH.VP.RD have |
            | every leaf | TDX_SYS_SHUTDOWN | the module was shut down and the leaf is not TDH.SYS.LP.SHUTDOWN |
            | every leaf | TDX_SYS_NOT_READY | the module is not initialised and the leaf is not one of its initialisation |
            | every leaf | TDX_OPERAND_INVALID \| RAX | an unknown leaf |
            | TDH.VP.ENTER | TDX_OPERAND_INVALID \| RCX | reserved bits |
            | TDH.VP.ENTER | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.ENTER | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.VP.ENTER | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.VP.ENTER | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDVPR |
            | TDH.VP.ENTER | TDX_OPERAND_BUSY \| TDR | the owner TDR's lock is taken |
            | TDH.VP.ENTER | TDX_TD_FATAL | the TD met a machine check |
            | TDH.VP.ENTER | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.VP.ENTER | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.VP.ENTER | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.VP.ENTER | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.VP.ENTER | TDX_TDCX_NUM_INCORRECT | the VCPU has too few or too many control pages |
            | TDH.VP.ENTER | TDX_VCPU_STATE_INCORRECT | the VCPU's state does not allow this |
            | TDH.VP.ENTER | TDX_VCPU_ASSOCIATED | the VCPU is associated with another LP |
            | TDH.VP.ENTER | TDX_INCONSISTENT_MSR | an MSR differs from its value at TDH.SYS.INIT |
            | TDH.VP.ENTER | TDX_TSC_ROLLBACK | the TSC went back |
            | TDH.VP.ENTER | TDX_OPERAND_BUSY \| TD_EPOCH | TDH.MEM.TRACK holds the epoch lock |
            | TDH.VP.ENTER | TDX_OPERAND_BUSY \| SEPT_TREE | the zero-step filter could not take the tree lock |
            | TDH.VP.ENTER | TDX_SUCCESS | the TD ran and left with this exit reason |
            | TDH.VP.ENTER | TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE | a machine check in the TD (architecture.md §6.3) |
            | TDH.VP.ENTER | TDX_NON_RECOVERABLE_TD | the TD left for good |
            | TDH.VP.ENTER | TDX_NON_RECOVERABLE_VCPU | the VCPU left for good |
            | TDH.VP.ENTER | TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE | the LP's APIC mode |
            | TDH.VP.ENTER | TDX_HOST_PRIORITY_BUSY_TIMEOUT | TDCALLs kept meeting the host's locks (architecture.md §7.2) |
            | TDH.MNG.ADDCX | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.ADDCX | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MNG.ADDCX | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MNG.ADDCX | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MNG.ADDCX | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MNG.ADDCX | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MNG.ADDCX | TDX_TDCX_NUM_INCORRECT | the TD has 9 TDCS pages |
            | TDH.MNG.ADDCX | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.ADDCX | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.ADDCX | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.ADDCX | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_NDA (free) |
            | TDH.MNG.ADDCX | TDX_RND_NO_ENTROPY | no entropy; the page is overwritten but not the module's |
            | TDH.MNG.ADDCX | TDX_OP_STATE_INCORRECT | pages 7 to 9 need OP_STATE UNINIT |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.ADD | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.ADD | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.ADD | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.ADD | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.ADD | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_INVALID \| RCX | the GPA is shared |
            | TDH.MEM.PAGE.ADD | TDX_EPT_WALK_FAILED \| RCX | no Secure-EPT down to level 0 |
            | TDH.MEM.PAGE.ADD | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be FREE |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_INVALID \| R9 | alignment, bits above 51, inside SEAMRR, or a private KeyID |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_INVALID \| R8 | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_ADDR_RANGE_ERROR \| R8 | outside initialised TDMR memory |
            | TDH.MEM.PAGE.ADD | TDX_OPERAND_BUSY \| R8 | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.ADD | TDX_PAGE_METADATA_INCORRECT \| R8 | the page must be PT_NDA (free) |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| RAX | version above 1 |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| RDX | reserved bits |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.SEPT.ADD | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.SEPT.ADD | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.SEPT.ADD | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.SEPT.ADD | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.SEPT.ADD | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.SEPT.ADD | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.SEPT.ADD | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be FREE or NL_MAPPED |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| R8 | version 0 without a page |
            | TDH.MEM.SEPT.ADD | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | version 1 without a page where no table exists, or a page where one exists and RDX bit 0 is 0 |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_INVALID \| R8 | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_ADDR_RANGE_ERROR \| R8 | outside initialised TDMR memory |
            | TDH.MEM.SEPT.ADD | TDX_OPERAND_BUSY \| R8 | the page's PAMT entry is locked |
            | TDH.MEM.SEPT.ADD | TDX_PAGE_METADATA_INCORRECT \| R8 | the page must be PT_NDA (free) |
            | TDH.MEM.SEPT.ADD | TDX_INTERRUPTED_RESUMABLE | version 1, interrupted between L2 pages |
            | TDH.VP.ADDCX | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.ADDCX | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.VP.ADDCX | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.VP.ADDCX | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDVPR |
            | TDH.VP.ADDCX | TDX_OPERAND_BUSY \| TDR | the owner TDR's lock is taken |
            | TDH.VP.ADDCX | TDX_TD_FATAL | the TD met a machine check |
            | TDH.VP.ADDCX | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.VP.ADDCX | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.VP.ADDCX | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.VP.ADDCX | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.VP.ADDCX | TDX_VCPU_STATE_INCORRECT | the VCPU's state does not allow this |
            | TDH.VP.ADDCX | TDX_TDCX_NUM_INCORRECT | the VCPU has 15 pages |
            | TDH.VP.ADDCX | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.ADDCX | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.VP.ADDCX | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.VP.ADDCX | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_NDA (free) |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.RELOCATE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.RELOCATE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.RELOCATE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.RELOCATE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.PAGE.RELOCATE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.PAGE.RELOCATE | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.PAGE.RELOCATE | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be any leaf with a page |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_INVALID \| R8 | the page is there already |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| RCX | the PAMT lock of the mapped page is taken |
            | TDH.MEM.PAGE.RELOCATE | TDX_GPA_RANGE_NOT_BLOCKED \| RCX | the entry is not a *_BLOCKED one |
            | TDH.MEM.PAGE.RELOCATE | TDX_TLB_TRACKING_NOT_DONE \| RCX | no TDH.MEM.TRACK since the block, or a VCPU has not left since |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_INVALID \| R8 | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_ADDR_RANGE_ERROR \| R8 | outside initialised TDMR memory |
            | TDH.MEM.PAGE.RELOCATE | TDX_OPERAND_BUSY \| R8 | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.RELOCATE | TDX_PAGE_METADATA_INCORRECT \| R8 | the page must be PT_NDA (free) |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.AUG | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.AUG | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.AUG | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.AUG | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.PAGE.AUG | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.PAGE.AUG | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.PAGE.AUG | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be FREE or REMOVED |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_INVALID \| R8 | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_ADDR_RANGE_ERROR \| R8 | outside initialised TDMR memory |
            | TDH.MEM.PAGE.AUG | TDX_OPERAND_BUSY \| R8 | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.AUG | TDX_PAGE_METADATA_INCORRECT \| R8 | the page must be PT_NDA (free), for 2 MiB at all 512 children |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.RANGE.BLOCK | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.RANGE.BLOCK | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.RANGE.BLOCK | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.RANGE.BLOCK | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.RANGE.BLOCK | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.RANGE.BLOCK | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.RANGE.BLOCK | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.RANGE.BLOCK | TDX_GPA_RANGE_ALREADY_BLOCKED \| RCX | the entry is a *_BLOCKED one |
            | TDH.MEM.RANGE.BLOCK | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be NL_MAPPED, MAPPED, BLOCKEDW, PENDING or PENDING_BLOCKEDW |
            | TDH.MNG.KEY.CONFIG | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.KEY.CONFIG | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.KEY.CONFIG | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.KEY.CONFIG | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MNG.KEY.CONFIG | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MNG.KEY.CONFIG | TDX_LIFECYCLE_STATE_INCORRECT | the TD's life-cycle state is not HKID_ASSIGNED |
            | TDH.MNG.KEY.CONFIG | TDX_KEY_CONFIGURED | this package is done |
            | TDH.MNG.KEY.CONFIG | TDX_OPERAND_BUSY \| KET | PCONFIG was busy |
            | TDH.MNG.KEY.CONFIG | TDX_KEY_GENERATION_FAILED | PCONFIG had no entropy |
            | TDH.MNG.CREATE | TDX_OPERAND_INVALID \| RDX | the HKID is not private, or reserved bits |
            | TDH.MNG.CREATE | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.CREATE | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.CREATE | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.CREATE | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_NDA (free) |
            | TDH.MNG.CREATE | TDX_OPERAND_BUSY \| KOT | the key ownership table's lock is taken |
            | TDH.MNG.CREATE | TDX_HKID_NOT_FREE | the HKID is in use, or the global one |
            | TDH.MNG.CREATE | TDX_RND_NO_ENTROPY | no entropy; the page is overwritten but not the module's |
            | TDH.VP.CREATE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.CREATE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.VP.CREATE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.VP.CREATE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.VP.CREATE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.VP.CREATE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.VP.CREATE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.VP.CREATE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.VP.CREATE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.VP.CREATE | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.CREATE | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.VP.CREATE | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.VP.CREATE | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_NDA (free) |
            | TDH.MEM.RD | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.RD | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.RD | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.RD | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.RD | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.RD | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.RD | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.RD | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.RD | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.RD | TDX_TD_NON_DEBUG | not a debug TD |
            | TDH.MEM.RD | TDX_OPERAND_INVALID \| RCX | alignment |
            | TDH.MEM.RD | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.RD | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.RD | TDX_EPT_ENTRY_NOT_PRESENT \| RCX | no page is mapped |
            | TDH.MEM.RD | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.RD | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be MAPPED, BLOCKEDW or EXPORTED_* |
            | TDH.MEM.WR | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.WR | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.WR | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.WR | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.WR | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.WR | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.WR | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.WR | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.WR | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.WR | TDX_TD_NON_DEBUG | not a debug TD |
            | TDH.MEM.WR | TDX_OPERAND_INVALID \| RCX | alignment |
            | TDH.MEM.WR | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.WR | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.WR | TDX_EPT_ENTRY_NOT_PRESENT \| RCX | no page is mapped |
            | TDH.MEM.WR | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.WR | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be MAPPED or EXPORTED_DIRTY |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_INVALID \| RDX | reserved bits |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.DEMOTE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.DEMOTE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.DEMOTE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.DEMOTE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.PAGE.DEMOTE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.PAGE.DEMOTE | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.PAGE.DEMOTE | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be MAPPED, BLOCKED, PENDING or PENDING_BLOCKED |
            | TDH.MEM.PAGE.DEMOTE | TDX_GPA_RANGE_NOT_BLOCKED \| RCX | the entry is not a *_BLOCKED one |
            | TDH.MEM.PAGE.DEMOTE | TDX_TLB_TRACKING_NOT_DONE \| RCX | no TDH.MEM.TRACK since the block, or a VCPU has not left since |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_INVALID \| R8 | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_ADDR_RANGE_ERROR \| R8 | outside initialised TDMR memory |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| R8 | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.DEMOTE | TDX_PAGE_METADATA_INCORRECT \| R8 | the page must be PT_NDA (free) |
            | TDH.MEM.PAGE.DEMOTE | TDX_L2_SEPT_PAGE_NOT_PROVIDED | a page for an L2 table is missing |
            | TDH.MEM.PAGE.DEMOTE | TDX_INTERRUPTED_RESTARTABLE | an interrupt is pending; nothing is committed, but the R8 page is overwritten |
            | TDH.MEM.PAGE.DEMOTE | TDX_OPERAND_BUSY \| RCX | the PAMT cannot be split now |
            | TDH.MR.EXTEND | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MR.EXTEND | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MR.EXTEND | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MR.EXTEND | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MR.EXTEND | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MR.EXTEND | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MR.EXTEND | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MR.EXTEND | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MR.EXTEND | TDX_OPERAND_INVALID \| RCX | the GPA is not aligned to 256 bytes |
            | TDH.MR.EXTEND | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MR.EXTEND | TDX_EPT_ENTRY_NOT_PRESENT \| RCX | no page is mapped |
            | TDH.MR.EXTEND | TDX_EPT_ENTRY_NOT_PRESENT | the entry is not MAPPED |
            | TDH.MR.FINALIZE | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MR.FINALIZE | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MR.FINALIZE | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MR.FINALIZE | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MR.FINALIZE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MR.FINALIZE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MR.FINALIZE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MR.FINALIZE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MR.FINALIZE | TDX_NO_VCPUS | the TD has no VCPU |
            | TDH.VP.FLUSH | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.FLUSH | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.VP.FLUSH | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.VP.FLUSH | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDVPR |
            | TDH.VP.FLUSH | TDX_OPERAND_BUSY \| TDR | the owner TDR's lock is taken |
            | TDH.VP.FLUSH | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.VP.FLUSH | TDX_TDCX_NUM_INCORRECT | the VCPU has too few or too many control pages |
            | TDH.VP.FLUSH | TDX_VCPU_NOT_ASSOCIATED | the VCPU is not associated with this LP |
            | TDH.MNG.VPFLUSHDONE | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.VPFLUSHDONE | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.VPFLUSHDONE | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.VPFLUSHDONE | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MNG.VPFLUSHDONE | TDX_OPERAND_BUSY \| KOT | the key ownership table's lock is taken |
            | TDH.MNG.VPFLUSHDONE | TDX_LIFECYCLE_STATE_INCORRECT | the TD's life-cycle state is not KEYS_CONFIGURED or HKID_ASSIGNED |
            | TDH.MNG.VPFLUSHDONE | TDX_FLUSHVP_NOT_DONE | a VCPU is still associated with an LP |
            | TDH.MNG.KEY.FREEID | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.KEY.FREEID | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.KEY.FREEID | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.KEY.FREEID | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MNG.KEY.FREEID | TDX_LIFECYCLE_STATE_INCORRECT | the TD's life-cycle state is not BLOCKED |
            | TDH.MNG.KEY.FREEID | TDX_OPERAND_BUSY \| KOT | the key ownership table's lock is taken |
            | TDH.MNG.KEY.FREEID | TDX_WBCACHE_NOT_COMPLETE | TDH.PHYMEM.CACHE.WB has not run on every package since TDH.MNG.VPFLUSHDONE |
            | TDH.MNG.INIT | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MNG.INIT | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MNG.INIT | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MNG.INIT | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MNG.INIT | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MNG.INIT | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MNG.INIT | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MNG.INIT | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MNG.INIT | TDX_OPERAND_INVALID \| RDX | alignment, bits above 51, inside SEAMRR, or a private KeyID |
            | TDH.MNG.INIT | TDX_OPERAND_INVALID \| ATTRIBUTES | this field of TD_PARAMS is not what the module accepts |
            | TDH.VP.INIT | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.VP.INIT | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.VP.INIT | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.VP.INIT | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDVPR |
            | TDH.VP.INIT | TDX_OPERAND_BUSY \| TDR | the owner TDR's lock is taken |
            | TDH.VP.INIT | TDX_TD_FATAL | the TD met a machine check |
            | TDH.VP.INIT | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.VP.INIT | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.VP.INIT | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.VP.INIT | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.VP.INIT | TDX_TDCX_NUM_INCORRECT | the VCPU has too few or too many control pages |
            | TDH.VP.INIT | TDX_VCPU_STATE_INCORRECT | the VCPU's state does not allow this |
            | TDH.VP.INIT | TDX_MAX_VCPUS_EXCEEDED | MAX_VCPUS of TD_PARAMS is reached |
            | TDH.VP.INIT | TDX_INCONSISTENT_MSR | IA32_TSC_ADJUST differs from its value at TDH.SYS.INIT |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_INVALID \| RAX | version above 1 |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.PROMOTE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.PROMOTE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.PROMOTE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.PROMOTE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.PAGE.PROMOTE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.PAGE.PROMOTE | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.PAGE.PROMOTE | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be NL_MAPPED or NL_BLOCKED |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| RCX | the PAMT lock of the Secure-EPT page is taken |
            | TDH.MEM.PAGE.PROMOTE | TDX_GPA_RANGE_NOT_BLOCKED \| RCX | the entry is not a *_BLOCKED one |
            | TDH.MEM.PAGE.PROMOTE | TDX_TLB_TRACKING_NOT_DONE \| RCX | no TDH.MEM.TRACK since the block, or a VCPU has not left since |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| RCX | the entry lock of a child is taken |
            | TDH.MEM.PAGE.PROMOTE | TDX_EPT_INVALID_PROMOTE_CONDITIONS \| RCX | the 512 children are not all MAPPED or all PENDING with consecutive pages from an aligned one |
            | TDH.MEM.PAGE.PROMOTE | TDX_INTERRUPTED_RESTARTABLE | an interrupt is pending; nothing is committed |
            | TDH.MEM.PAGE.PROMOTE | TDX_OPERAND_BUSY \| RCX | the PAMT cannot be merged now |
            | TDH.PHYMEM.PAGE.RDMD | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.PHYMEM.PAGE.RDMD | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.PHYMEM.PAGE.RDMD | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.SEPT.RD | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.SEPT.RD | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.SEPT.RD | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.SEPT.RD | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.SEPT.RD | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.SEPT.RD | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.SEPT.RD | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MNG.KEY.RECLAIMID | TDX_SUCCESS | always |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_PAGE_METADATA_INCORRECT \| RCX | the page is PT_NDA (reclaimed or removed before) or PT_RSVD |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_OPERAND_INVALID \| RCX | not aligned to the page's size |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_OPERAND_BUSY \| TDR | the owner TDR's lock is taken |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_LIFECYCLE_STATE_INCORRECT | the owner TD's life-cycle state is not TEARDOWN |
            | TDH.PHYMEM.PAGE.RECLAIM | TDX_TD_ASSOCIATED_PAGES_EXIST | the page is a TDR and its TD still has pages |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.PAGE.REMOVE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.PAGE.REMOVE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.PAGE.REMOVE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.PAGE.REMOVE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.PAGE.REMOVE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.PAGE.REMOVE | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.PAGE.REMOVE | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be MAPPED, BLOCKED, BLOCKEDW, PENDING, PENDING_BLOCKED or PENDING_BLOCKEDW |
            | TDH.MEM.PAGE.REMOVE | TDX_OPERAND_BUSY \| RCX | the PAMT lock of the mapped page is taken |
            | TDH.MEM.PAGE.REMOVE | TDX_GPA_RANGE_NOT_BLOCKED \| RCX | the entry is not a *_BLOCKED one |
            | TDH.MEM.PAGE.REMOVE | TDX_TLB_TRACKING_NOT_DONE \| RCX | no TDH.MEM.TRACK since the block, or a VCPU has not left since |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_INVALID \| RAX | version above 1 |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.SEPT.REMOVE | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.SEPT.REMOVE | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.SEPT.REMOVE | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.SEPT.REMOVE | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.SEPT.REMOVE | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.SEPT.REMOVE | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.SEPT.REMOVE | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be NL_MAPPED or NL_BLOCKED |
            | TDH.MEM.SEPT.REMOVE | TDX_OPERAND_BUSY \| RCX | the PAMT lock of the mapped page is taken |
            | TDH.MEM.SEPT.REMOVE | TDX_GPA_RANGE_NOT_BLOCKED \| RCX | the entry is not a *_BLOCKED one |
            | TDH.MEM.SEPT.REMOVE | TDX_TLB_TRACKING_NOT_DONE \| RCX | no TDH.MEM.TRACK since the block, or a VCPU has not left since |
            | TDH.MEM.SEPT.REMOVE | TDX_EPT_PAGE_NOT_FREE \| RCX | one of the 512 entries is not FREE; REMOVED does not count as FREE |
            | TDH.SYS.KEY.CONFIG | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.KEY.CONFIG | TDX_SYS_KEY_CONFIG_NOT_PENDING | the module's state is not SYSCONFIG_DONE |
            | TDH.SYS.KEY.CONFIG | TDX_KEY_CONFIGURED | this package is done |
            | TDH.SYS.KEY.CONFIG | TDX_OPERAND_BUSY \| KET | PCONFIG was busy |
            | TDH.SYS.KEY.CONFIG | TDX_KEY_GENERATION_FAILED | PCONFIG had no entropy |
            | TDH.SYS.INIT | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.INIT | TDX_OPERAND_INVALID \| RCX | reserved bits |
            | TDH.SYS.INIT | TDX_SYS_INIT_NOT_PENDING | done before |
            | TDH.SYS.INIT | TDX_INCORRECT_MSR_VALUE | an MSR |
            | TDH.SYS.INIT | TDX_INCORRECT_CPUID_VALUE | a CPUID value; RCX to R10 say which |
            | TDH.SYS.INIT | TDX_SMRR_OVERLAPS_CMR | SMRR check |
            | TDH.SYS.INIT | TDX_INCORRECT_MSR_VALUE | TME is not locked or without a fitting algorithm |
            | TDH.SYS.INIT | TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED | 2048 or more private HKIDs |
            | TDH.SYS.INIT | TDX_INCORRECT_MSR_VALUE | WBINVDP and WBNOINVDP have different numbers of sub-blocks |
            | TDH.SYS.INIT | TDX_CMR_LIST_INVALID | CMRs not ordered, not 4 KiB granular, or with KeyID bits |
            | TDH.SYS.RD | TDX_SYS_LP_INIT_NOT_DONE | TDH.SYS.LP.INIT was not done on this LP |
            | TDH.SYS.LP.INIT | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.LP.INIT | TDX_SYS_LP_INIT_NOT_PENDING | the module's state is not SYSINIT_DONE |
            | TDH.SYS.LP.INIT | TDX_SYS_LP_INIT_DONE | done before on this LP |
            | TDH.SYS.LP.INIT | TDX_INCONSISTENT_MSR | an MSR differs from the first LP's |
            | TDH.SYS.LP.INIT | TDX_INCONSISTENT_CPUID_FIELD | a CPUID field differs from the first LP's |
            | TDH.SYS.TDMR.INIT | TDX_OPERAND_INVALID \| RCX | not the base of a configured TDMR |
            | TDH.SYS.TDMR.INIT | TDX_OPERAND_BUSY \| RCX | the TDMR is being initialised elsewhere |
            | TDH.SYS.TDMR.INIT | TDX_TDMR_ALREADY_INITIALIZED | the TDMR is complete |
            | TDH.MEM.TRACK | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.TRACK | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.MEM.TRACK | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.MEM.TRACK | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_TDR |
            | TDH.MEM.TRACK | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.TRACK | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.TRACK | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.TRACK | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.TRACK | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.TRACK | TDX_OPERAND_BUSY \| TD_EPOCH | a VCPU is just being entered |
            | TDH.MEM.TRACK | TDX_PREVIOUS_TLB_EPOCH_BUSY | VCPUs entered in the previous epoch are still in the TD |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_INVALID \| RDX | alignment, KeyID bits, or bits above 51 |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_ADDR_RANGE_ERROR \| RDX | outside initialised TDMR memory |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_BUSY \| RDX | the page's PAMT entry is locked |
            | TDH.MEM.RANGE.UNBLOCK | TDX_PAGE_METADATA_INCORRECT \| RDX | the page must be PT_TDR |
            | TDH.MEM.RANGE.UNBLOCK | TDX_TD_FATAL | the TD met a machine check |
            | TDH.MEM.RANGE.UNBLOCK | TDX_TD_KEYS_NOT_CONFIGURED | the TD's life-cycle state is not KEYS_CONFIGURED |
            | TDH.MEM.RANGE.UNBLOCK | TDX_TDCS_NOT_ALLOCATED | fewer than 6 TDCS pages |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_BUSY \| OP_STATE | the OP_STATE lock is taken |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OP_STATE_INCORRECT | OP_STATE (architecture.md §7.5) |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_INVALID \| RCX | reserved bits, level, alignment |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_INVALID \| RCX | the GPA is shared or too wide |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_BUSY \| SEPT_TREE | the tree lock is taken |
            | TDH.MEM.RANGE.UNBLOCK | TDX_EPT_WALK_FAILED \| RCX | the walk ended above the level; RCX and RDX say at which entry |
            | TDH.MEM.RANGE.UNBLOCK | TDX_OPERAND_BUSY \| RCX | the entry's lock is taken |
            | TDH.MEM.RANGE.UNBLOCK | TDX_EPT_ENTRY_STATE_INCORRECT \| RCX | the entry must be NL_BLOCKED, BLOCKED or PENDING_BLOCKED |
            | TDH.MEM.RANGE.UNBLOCK | TDX_TLB_TRACKING_NOT_DONE \| SEPT_TREE | tracking is not finished |
            | TDH.PHYMEM.CACHE.WB | TDX_OPERAND_INVALID \| RCX | neither 0 (start) nor 1 (resume) |
            | TDH.PHYMEM.CACHE.WB | TDX_OPERAND_BUSY \| WBCACHE | another write-back runs on this package |
            | TDH.PHYMEM.CACHE.WB | TDX_OPERAND_BUSY \| KOT | the key ownership table's lock is taken |
            | TDH.PHYMEM.CACHE.WB | TDX_NO_HKID_READY_TO_WBCACHE | no HKID is FLUSHED |
            | TDH.PHYMEM.CACHE.WB | TDX_WBCACHE_RESUME_ERROR | nothing to resume |
            | TDH.PHYMEM.CACHE.WB | TDX_INTERRUPTED_RESUMABLE | an interrupt is pending; call again with RCX = 1 |
            | TDH.PHYMEM.PAGE.WBINVD | TDX_OPERAND_INVALID \| RCX | alignment, KeyID bits, or bits above 51 |
            | TDH.PHYMEM.PAGE.WBINVD | TDX_OPERAND_ADDR_RANGE_ERROR \| RCX | outside initialised TDMR memory |
            | TDH.PHYMEM.PAGE.WBINVD | TDX_OPERAND_BUSY \| RCX | the page's PAMT entry is locked |
            | TDH.PHYMEM.PAGE.WBINVD | TDX_PAGE_METADATA_INCORRECT \| RCX | the page must be PT_NDA: a page still owned by a TD is refused; KeyID bits are allowed |
            | TDH.MEM.SEPT.WR | TDX_OPERAND_INVALID \| RAX | not implemented: in the enumeration but without a case |
            | TDH.SYS.LP.SHUTDOWN | TDX_SUCCESS | always |
            | TDH.SYS.CONFIG | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.CONFIG | TDX_SYS_CONFIG_NOT_PENDING | not every LP is initialised, or done before |
            | TDH.SYS.CONFIG | TDX_OPERAND_INVALID \| RCX | alignment, bits above 51, inside SEAMRR, or a private KeyID |
            | TDH.SYS.CONFIG | TDX_OPERAND_INVALID \| RDX | 0 or more than 64 TDMRs |
            | TDH.SYS.CONFIG | TDX_OPERAND_INVALID \| R8 | the HKID is not private, or reserved bits |
            | TDH.SYS.CONFIG | TDX_OPERAND_INVALID \| RCX | an address in the array: alignment, bits above 51, inside SEAMRR, or a private KeyID |
            | TDH.SYS.CONFIG | TDX_INVALID_TDMR | overflow |
            | TDH.SYS.CONFIG | TDX_NON_ORDERED_TDMR | order or overlap |
            | TDH.SYS.CONFIG | TDX_INVALID_TDMR | alignment, size, KeyID bits or width |
            | TDH.SYS.CONFIG | TDX_NON_ORDERED_RESERVED_IN_TDMR | order or overlap |
            | TDH.SYS.CONFIG | TDX_INVALID_RESERVED_IN_TDMR | base, size or alignment |
            | TDH.SYS.CONFIG | TDX_INVALID_PAMT | base, size or alignment |
            | TDH.SYS.CONFIG | TDX_PAMT_OVERLAP | with another PAMT or TDMR memory |
            | TDH.SYS.CONFIG | TDX_PAMT_OUTSIDE_CMRS | not in convertible memory |
            | TDH.SYS.CONFIG | TDX_TDMR_OUTSIDE_CMRS | memory outside the CMRs is not in a reserved area |
            | TDH.SYS.SHUTDOWN | TDX_OPERAND_INVALID \| RCX | handoff version |
            | TDH.SYS.SHUTDOWN | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.SHUTDOWN | TDX_SYS_BUSY | another LP is in the module |
            | TDH.SYS.UPDATE | TDX_SYS_BUSY | the module's global lock is taken |
            | TDH.SYS.UPDATE | TDX_SYS_STATE_INCORRECT | TDH.SYS.INIT and TDH.SYS.LP.INIT are not both done |
            | TDH.SYS.UPDATE | TDX_SYS_INVALID_HANDOFF | the handoff data cannot be used |
        "#]].assert_eq(&leaf_checks_markdown());
    }
}
