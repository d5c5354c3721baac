//! Which leaf checks what, in which order: architecture.md §7.9 as tables.

use super::Call;
use super::Spec;
use super::effect as fx;
use super::lock::Mode::{self, Exclusive, Shared};
use super::run::{R8, R9, RCX, RDX, Reg, Run, Step};
use super::sept::SeptState::{self, *};
use sim_core::tdx::{GuestLeaf, Leaf, Status};

/// One check of a leaf. The sequences are those of architecture.md §7.7, with its statuses.
#[derive(Clone, Copy)]
pub(super) enum Check {
    /// The global lock: SYS_BUSY.
    Sys(Mode),
    /// The module's state: this status otherwise.
    SysState(u8, Status),
    /// A register is zero: OPERAND_INVALID.
    Zero(Reg),
    /// Version at most this: OPERAND_INVALID|RAX.
    Version(u64),
    /// Of bits 11:0 only these may be set: OPERAND_INVALID.
    Flags(Reg, u64),
    /// A private HKID with reserved bits 0: OPERAND_INVALID.
    Hkid(Reg),
    /// TDR(r, mode).
    Tdr(Reg, Mode),
    /// HPA(r, mode, PT_TDVPR).
    Vcpu(Reg, Mode),
    /// HPA(RCX, sh, PT_TDVPR), with the flags of TDH.VP.ENTER.
    Entering,
    /// HPA(r, ex, PT_NDA).
    NewPage(Reg),
    /// HPA(r, sh, PT_NDA) of an address whose HKID is stripped.
    FreePage(Reg),
    /// The TDR of the VCPU: OPERAND_BUSY|128.
    Owner(Mode),
    /// TD_FATAL.
    NotFatal,
    /// Life cycle KEYS_CONFIGURED: TD_KEYS_NOT_CONFIGURED.
    Keys,
    /// Life cycle among these: LIFECYCLE_STATE_INCORRECT.
    LifeCycle(&'static [u8]),
    /// STATE, with the OP_STATE lock or without.
    State(bool),
    /// GPA(min..max).
    Gpa(u8, u8),
    /// A GPA without level, aligned so: OPERAND_INVALID|RCX.
    GpaAligned(u64),
    /// The GPA is private: OPERAND_INVALID|RCX.
    Private,
    /// The tree lock: OPERAND_BUSY|146.
    Tree(Mode),
    /// EPT_WALK_FAILED|RCX with details.
    Walk,
    /// ENTRY.
    Entry,
    /// ALLOWED.
    Allowed(&'static [SeptState]),
    /// The PAMT entry of the mapped page, exclusive: OPERAND_BUSY|RCX.
    MappedPage,
    /// TRACK.
    Track,
    /// TRACK of TDH.MEM.RANGE.UNBLOCK: TLB_TRACKING_NOT_DONE|146.
    TrackUnblock,
    /// SHPA(r, align).
    SharedPage(Reg, u64),
    /// The key ownership table: OPERAND_BUSY|186.
    Kot(Mode),
    /// What only this leaf checks.
    Own(&'static str, fn(&mut Run<'_>) -> Step),
}

impl Check {
    /// In a word.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Check::Sys(_) => "global lock",
            Check::SysState(..) => "module state",
            Check::Zero(_) => "reserved register",
            Check::Version(_) => "version",
            Check::Flags(..) => "reserved bits",
            Check::Hkid(_) => "HKID",
            Check::Tdr(..) => "TDR",
            Check::Vcpu(..) | Check::Entering => "TDVPR",
            Check::NewPage(_) => "HPA of a new page",
            Check::FreePage(_) => "HPA of a free page",
            Check::Owner(_) => "owner TDR",
            Check::NotFatal => "fatal",
            Check::Keys => "keys configured",
            Check::LifeCycle(_) => "life cycle",
            Check::State(_) => "STATE",
            Check::Gpa(..) | Check::GpaAligned(_) => "GPA",
            Check::Private => "private GPA",
            Check::Tree(_) => "tree lock",
            Check::Walk => "WALK",
            Check::Entry => "ENTRY",
            Check::Allowed(_) => "ALLOWED",
            Check::MappedPage => "PAMT lock of the page",
            Check::Track | Check::TrackUnblock => "TRACK",
            Check::SharedPage(..) => "SHPA",
            Check::Kot(_) => "KOT lock",
            Check::Own(name, _) => name,
        }
    }
}

/// A leaf: its checks in the order of the sheet, and what it does then.
pub(super) struct Rule {
    pub(super) leaf: Leaf,
    pub(super) checks: &'static [Check],
    pub(super) effect: fn(&mut Run<'_>) -> Step,
}

const fn rule(leaf: Leaf, checks: &'static [Check], effect: fn(&mut Run<'_>) -> Step) -> Rule {
    Rule { leaf, checks, effect }
}

/// The level of the entries of the root: the highest of the TD.
pub(super) const ROOT: u8 = u8::MAX;

/// Leaves that may have a version above 0 (architecture.md §7.1 step 4).
pub(super) const VERSIONED: &[Leaf] =
    &[Leaf::MEM_PAGE_PROMOTE, Leaf::MEM_SEPT_ADD, Leaf::MEM_SEPT_REMOVE, Leaf::MNG_RD, Leaf::VP_RD];

/// Leaves that run before SYS_READY (architecture.md §7.1 step 6).
pub(super) const EARLY: &[Leaf] = &[
    Leaf::SYS_INFO,
    Leaf::SYS_RD,
    Leaf::SYS_RDALL,
    Leaf::SYS_INIT,
    Leaf::SYS_LP_INIT,
    Leaf::SYS_CONFIG,
    Leaf::SYS_KEY_CONFIG,
    Leaf::SYS_LP_SHUTDOWN,
    Leaf::SYS_UPDATE,
];

/// Leaves whose TDR operand has flag bit 0 (architecture.md §7.9 SEPT.ADD, PAGE.DEMOTE).
pub(super) const FLAGGED: &[Leaf] = &[Leaf::MEM_SEPT_ADD, Leaf::MEM_PAGE_DEMOTE];

/// OP_STATEs in which a leaf may run, as bits (architecture.md §7.5).
#[rustfmt::skip]
const OP_STATES: &[(Leaf, &[u8])] = &[
    (Leaf::VP_ENTER,          &[2, 3, 9]),
    (Leaf::MNG_ADDCX,         &[0]),
    (Leaf::MEM_PAGE_ADD,      &[1]),
    (Leaf::MEM_SEPT_ADD,      &[1, 2, 3, 6, 7, 8, 9]),
    (Leaf::VP_ADDCX,          &[1, 7]),
    (Leaf::MEM_PAGE_RELOCATE, &[1, 2, 3, 4, 5, 8, 9]),
    (Leaf::MEM_PAGE_AUG,      &[1, 2, 3, 9]),
    (Leaf::MEM_RANGE_BLOCK,   &[1, 2, 3, 4, 5, 8, 9]),
    (Leaf::VP_CREATE,         &[1, 7]),
    (Leaf::MEM_RD,            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    (Leaf::MEM_WR,            &[1, 2, 3, 6, 7, 8, 9, 10]),
    (Leaf::MEM_PAGE_DEMOTE,   &[1, 2, 3, 4, 5, 8, 9]),
    (Leaf::MR_EXTEND,         &[1]),
    (Leaf::MR_FINALIZE,       &[1]),
    (Leaf::VP_INIT,           &[1]),
    (Leaf::MNG_INIT,          &[0]),
    (Leaf::MEM_PAGE_PROMOTE,  &[1, 2, 3, 4, 5, 8, 9]),
    (Leaf::MEM_SEPT_RD,       &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    (Leaf::MEM_PAGE_REMOVE,   &[1, 2, 3, 4, 5, 8, 9, 10]),
    (Leaf::MEM_SEPT_REMOVE,   &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    (Leaf::MEM_TRACK,         &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    (Leaf::MEM_RANGE_UNBLOCK, &[1, 2, 3, 4, 5, 8, 9]),
];

pub(super) fn op_state_allowed(leaf: Leaf, op_state: u8) -> bool {
    OP_STATES
        .iter()
        .find(|(of, _)| *of == leaf)
        .is_none_or(|(_, states)| states.contains(&op_state))
}

const LEAF_STATES: &[SeptState] = &[
    Mapped,
    Blocked,
    BlockedW,
    ExportedBlockedW,
    ExportedDirty,
    ExportedDirtyBlockedW,
    Pending,
    PendingBlocked,
    PendingBlockedW,
    PendingExportedBlockedW,
    PendingExportedDirty,
    PendingExportedDirtyBlockedW,
];

use Check as C;

/// Every leaf that is judged, in the order of its number.
#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    rule(Leaf::VP_ENTER, &[
        C::Entering, C::Owner(Shared), C::State(true), C::Own("TDVPS pages", fx::enough_vcpu_pages),
        C::Own("VCPU state", fx::vcpu_ready), C::Own("association", fx::associate),
        C::Own("MSRs and TSC", fx::odd_msrs_vcpu), C::Own("epoch lock", fx::epoch_shared),
    ], fx::vp_enter),
    rule(Leaf::MNG_ADDCX, &[
        C::Tdr(RDX, Exclusive), C::NotFatal, C::Keys, C::Own("TDCS pages", fx::room_for_tdcx),
        C::NewPage(RCX), C::Own("entropy, OP_STATE", fx::tdcx_sixth),
    ], fx::mng_addcx),
    rule(Leaf::MEM_PAGE_ADD, &[
        C::Tdr(RDX, Exclusive), C::State(false), C::Gpa(0, 0), C::Private, C::Walk,
        C::Allowed(&[Free]), C::SharedPage(R9, 4096), C::NewPage(R8),
    ], fx::page_add),
    rule(Leaf::MEM_SEPT_ADD, &[
        C::Version(1), C::Flags(RDX, 1), C::Tdr(RDX, Shared), C::State(true), C::Gpa(1, ROOT), C::Private,
        C::Tree(Shared), C::Walk, C::Entry, C::Allowed(&[Free, NlMapped]), C::Own("offered pages", fx::sept_pages),
    ], fx::sept_add),
    rule(Leaf::VP_ADDCX, &[
        C::Vcpu(RDX, Exclusive), C::Owner(Shared), C::State(true), C::Own("VCPU state", fx::vcpu_new),
        C::Own("TDVPS pages", fx::room_for_vcpu_page), C::NewPage(RCX),
    ], fx::vp_addcx),
    rule(Leaf::MEM_PAGE_RELOCATE, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, 0), C::Private, C::Tree(Shared), C::Walk, C::Entry,
        C::Allowed(LEAF_STATES), C::Own("another page", fx::another_page), C::MappedPage, C::Track, C::NewPage(R8),
    ], fx::page_relocate),
    rule(Leaf::MEM_PAGE_AUG, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, 1), C::Private, C::Tree(Shared), C::Walk, C::Entry,
        C::Allowed(&[Free, Removed]), C::Own("HPA of a free range", fx::free_range),
    ], fx::page_aug),
    rule(Leaf::MEM_RANGE_BLOCK, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, ROOT), C::Private, C::Tree(Exclusive), C::Walk, C::Entry,
        C::Own("state to block", fx::blockable),
    ], fx::range_block),
    rule(Leaf::MNG_KEY_CONFIG, &[
        C::Tdr(RCX, Exclusive), C::NotFatal, C::LifeCycle(&[0]), C::Own("this package", fx::package_not_keyed),
        C::Own("PCONFIG", fx::pconfig),
    ], fx::key_config),
    rule(Leaf::MNG_CREATE, &[
        C::Hkid(RDX), C::NewPage(RCX), C::Kot(Exclusive), C::Own("KOT", fx::hkid_free), C::Own("entropy", fx::entropy),
    ], fx::mng_create),
    rule(Leaf::VP_CREATE, &[C::Tdr(RDX, Shared), C::State(true), C::NewPage(RCX)], fx::vp_create),
    rule(Leaf::MEM_RD, &[
        C::Tdr(RDX, Shared), C::State(true), C::Own("debug TD", fx::debug), C::GpaAligned(8), C::Private,
        C::Tree(Shared), C::Own("present leaf", fx::present_leaf), C::Entry,
        C::Own("ALLOWED", fx::readable),
    ], fx::nothing),
    rule(Leaf::MEM_WR, &[
        C::Tdr(RDX, Shared), C::State(true), C::Own("debug TD", fx::debug), C::GpaAligned(8), C::Private,
        C::Tree(Shared), C::Own("present leaf", fx::present_leaf), C::Entry,
        C::Own("ALLOWED", fx::writable),
    ], fx::nothing),
    rule(Leaf::MEM_PAGE_DEMOTE, &[
        C::Flags(RDX, 1), C::Tdr(RDX, Shared), C::State(true), C::Gpa(1, 2), C::Private, C::Tree(Shared), C::Walk,
        C::Entry, C::Allowed(&[Mapped, Blocked, Pending, PendingBlocked]), C::Track, C::NewPage(R8),
        C::Own("interrupt", fx::restartable), C::MappedPage, C::Own("PAMT pages", fx::demote_pamt),
    ], fx::page_demote),
    rule(Leaf::MR_EXTEND, &[
        C::Tdr(RDX, Exclusive), C::State(false), C::GpaAligned(256), C::Private, C::Own("mapped page", fx::measured),
    ], fx::nothing),
    rule(Leaf::MR_FINALIZE, &[
        C::Tdr(RCX, Exclusive), C::State(false), C::Own("VCPUs", fx::some_vcpu),
    ], fx::mr_finalize),
    rule(Leaf::VP_FLUSH, &[
        C::Vcpu(RCX, Exclusive), C::Owner(Shared), C::Keys, C::Own("TDVPS pages", fx::enough_vcpu_pages),
        C::Own("association", fx::associated_here),
    ], fx::vp_flush),
    rule(Leaf::MNG_VPFLUSHDONE, &[
        C::Tdr(RCX, Exclusive), C::Kot(Exclusive), C::LifeCycle(&[0, 1]), C::Own("associations", fx::none_associated),
    ], fx::vpflushdone),
    rule(Leaf::MNG_KEY_FREEID, &[
        C::Tdr(RCX, Exclusive), C::LifeCycle(&[2]), C::Kot(Exclusive), C::Own("wbinvd_bitmap", fx::written_back),
    ], fx::key_freeid),
    rule(Leaf::MNG_INIT, &[
        C::Tdr(RCX, Exclusive), C::State(false), C::SharedPage(RDX, 1024), C::Own("TD_PARAMS", fx::td_params),
    ], fx::mng_init),
    rule(Leaf::VP_INIT, &[
        C::Vcpu(RCX, Exclusive), C::Owner(Shared), C::State(true), C::Own("TDVPS pages", fx::enough_vcpu_pages),
        C::Own("VCPU state", fx::vcpu_new), C::Own("MAX_VCPUS", fx::max_vcpus), C::Own("MSRs and x2APIC id", fx::odd_msrs_init),
    ], fx::vp_init),
    rule(Leaf::MEM_PAGE_PROMOTE, &[
        C::Version(1), C::Tdr(RDX, Shared), C::State(true), C::Gpa(1, 2), C::Private, C::Tree(Shared), C::Walk, C::Entry,
        C::Allowed(&[NlMapped, NlBlocked]), C::MappedPage, C::Track, C::Own("the 512 entries below", fx::children),
        C::Own("interrupt", fx::restartable), C::Own("PAMT lock of the block", fx::promote_pamt),
    ], fx::page_promote),
    rule(Leaf::PHYMEM_PAGE_RDMD, &[C::Own("page", fx::rdmd_page)], fx::nothing),
    rule(Leaf::MEM_SEPT_RD, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, ROOT), C::Private, C::Tree(Shared), C::Walk, C::Entry,
    ], fx::sept_rd),
    rule(Leaf::MNG_KEY_RECLAIMID, &[], fx::nothing),
    rule(Leaf::PHYMEM_PAGE_RECLAIM, &[C::Own("page and owner", fx::reclaim_page)], fx::page_reclaim),
    rule(Leaf::MEM_PAGE_REMOVE, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, 2), C::Private, C::Tree(Shared), C::Walk, C::Entry,
        C::Allowed(&[Mapped, Blocked, BlockedW, Pending, PendingBlocked, PendingBlockedW]), C::MappedPage, C::Track,
    ], fx::page_remove),
    rule(Leaf::MEM_SEPT_REMOVE, &[
        C::Own("version", fx::version_of_remove), C::Tdr(RDX, Shared), C::State(true), C::Gpa(1, ROOT), C::Private, C::Tree(Exclusive), C::Walk, C::Entry,
        C::Allowed(&[NlMapped, NlBlocked]), C::MappedPage, C::Track, C::Own("all 512 entries FREE", fx::all_free),
    ], fx::sept_remove),
    rule(Leaf::SYS_KEY_CONFIG, &[
        C::Sys(Exclusive), C::SysState(2, Status::SYS_KEY_CONFIG_NOT_PENDING),
        C::Own("this package", fx::package_not_keyed_sys), C::Own("PCONFIG", fx::pconfig),
    ], fx::sys_key_config),
    rule(Leaf::SYS_INIT, &[
        C::Sys(Exclusive), C::Zero(RCX), C::SysState(0, Status::SYS_INIT_NOT_PENDING),
        C::Own("MSRs, CPUID, HKIDs, CMRs", fx::platform),
    ], fx::sys_init),
    rule(Leaf::SYS_LP_INIT, &[
        C::Sys(Shared), C::SysState(1, Status::SYS_LP_INIT_NOT_PENDING), C::Own("this LP", fx::lp_pending),
        C::Own("MSRs, CPUID", fx::odd_lp),
    ], fx::sys_lp_init),
    rule(Leaf::SYS_TDMR_INIT, &[
        C::Own("TDMR", fx::tdmr_to_init),
    ], fx::tdmr_init),
    rule(Leaf::MEM_TRACK, &[
        C::Tdr(RCX, Shared), C::State(true), C::Own("epoch lock", fx::epoch_exclusive), C::Own("previous epoch", fx::previous_left),
    ], fx::mem_track),
    rule(Leaf::MEM_RANGE_UNBLOCK, &[
        C::Tdr(RDX, Shared), C::State(true), C::Gpa(0, ROOT), C::Private, C::Tree(Exclusive), C::Walk, C::Entry,
        C::Allowed(&[NlBlocked, Blocked, PendingBlocked]), C::TrackUnblock,
    ], fx::range_unblock),
    rule(Leaf::PHYMEM_CACHE_WB, &[
        C::Own("start or resume", fx::wb_command), C::Own("package mutex", fx::wb_lock), C::Kot(Shared),
        C::Own("HKIDs", fx::wb_hkids),
    ], fx::cache_wb),
    rule(Leaf::PHYMEM_PAGE_WBINVD, &[C::FreePage(RCX)], fx::nothing),
    rule(Leaf::SYS_LP_SHUTDOWN, &[], fx::nothing),
    rule(Leaf::SYS_CONFIG, &[
        C::Sys(Exclusive), C::Own("all LPs initialised", fx::config_pending), C::SharedPage(RCX, 512),
        C::Own("number of TDMRs", fx::tdmr_count), C::Hkid(R8), C::Own("TDMRs", super::sysconfig::tdmrs),
    ], super::sysconfig::config),
    rule(Leaf::SYS_SHUTDOWN, &[
        C::Own("handoff version", fx::handoff_version), C::Sys(Exclusive), C::Own("other LPs", fx::others_in_module),
    ], fx::sys_shutdown),
];

/// A leaf without a row, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotJudged {
    /// The leaf's number.
    pub leaf: u16,
    /// TDCALL, not SEAMCALL.
    pub guest: bool,
    /// That no metadata may change is judged.
    pub unchanged: bool,
    /// Why no more is.
    pub reason: &'static str,
}

const fn same(leaf: Leaf, reason: &'static str) -> NotJudged {
    NotJudged { leaf: leaf.0, guest: false, unchanged: true, reason }
}
const fn free(leaf: Leaf, reason: &'static str) -> NotJudged {
    NotJudged { leaf: leaf.0, guest: false, unchanged: false, reason }
}
const fn guest(leaf: GuestLeaf, reason: &'static str) -> NotJudged {
    NotJudged { leaf: leaf.0, guest: true, unchanged: true, reason }
}

const ENUMERATION: &str =
    "enumeration: architecture.md §7.9 says what it is for, not what it returns";
const METADATA: &str = "metadata fields: architecture.md §7.11 gives the number only";
const MIGRATION: &str = "migration: architecture.md §7.11 \"not modelled\"";
const SERVICE: &str = "service TDs: architecture.md §7.11 gives the number only";
const HANDOFF: &str =
    "what an update takes over is in no view: architecture.md §7.9 \"with old TDMR/KOT state\"";
const DPAMT: &str =
    "dynamic PAMT: architecture.md has no rows for it; linux-host-paths.md §13 has the host's side";
const DISABLE: &str =
    "architecture.md has no row for it; linux-host-paths.md §16.5 has what the host sees";
const NUMBER: &str = "architecture.md §7.11 gives the number only";

/// Every leaf of which the sheet does not say what it does to the metadata.
pub const NOT_JUDGED: &[NotJudged] = &[
    same(Leaf::SYS_INFO, ENUMERATION),
    same(Leaf::SYS_RD, ENUMERATION),
    same(Leaf::SYS_RDALL, ENUMERATION),
    same(Leaf::MNG_RD, METADATA),
    same(Leaf::MNG_WR, METADATA),
    same(Leaf::VP_RD, METADATA),
    same(Leaf::VP_WR, METADATA),
    free(Leaf::SYS_UPDATE, HANDOFF),
    free(Leaf::SYS_DISABLE, DISABLE),
    free(Leaf::PHYMEM_PAMT_ADD, DPAMT),
    free(Leaf::PHYMEM_PAMT_REMOVE, DPAMT),
    free(Leaf::SERVTD_BIND, SERVICE),
    free(Leaf::SERVTD_PREBIND, SERVICE),
    free(Leaf::EXPORT_ABORT, MIGRATION),
    free(Leaf::EXPORT_BLOCKW, MIGRATION),
    free(Leaf::EXPORT_RESTORE, MIGRATION),
    free(Leaf::EXPORT_MEM, MIGRATION),
    free(Leaf::EXPORT_PAUSE, MIGRATION),
    free(Leaf::EXPORT_TRACK, MIGRATION),
    free(Leaf::EXPORT_STATE_IMMUTABLE, MIGRATION),
    free(Leaf::EXPORT_STATE_TD, MIGRATION),
    free(Leaf::EXPORT_STATE_VP, MIGRATION),
    free(Leaf::EXPORT_UNBLOCKW, MIGRATION),
    free(Leaf::IMPORT_ABORT, MIGRATION),
    free(Leaf::IMPORT_END, MIGRATION),
    free(Leaf::IMPORT_COMMIT, MIGRATION),
    free(Leaf::IMPORT_MEM, MIGRATION),
    free(Leaf::IMPORT_TRACK, MIGRATION),
    free(Leaf::IMPORT_STATE_IMMUTABLE, MIGRATION),
    free(Leaf::IMPORT_STATE_TD, MIGRATION),
    free(Leaf::IMPORT_STATE_VP, MIGRATION),
    free(Leaf::MIG_STREAM_CREATE, MIGRATION),
    guest(GuestLeaf::VP_INFO, NUMBER),
    guest(GuestLeaf::MR_RTMR_EXTEND, NUMBER),
    guest(GuestLeaf::VP_VEINFO_GET, NUMBER),
    guest(GuestLeaf::MR_REPORT, NUMBER),
    guest(GuestLeaf::VP_CPUIDVE_SET, NUMBER),
    guest(GuestLeaf::VM_RD, NUMBER),
    guest(GuestLeaf::VM_WR, NUMBER),
    guest(GuestLeaf::VP_RD, NUMBER),
    guest(GuestLeaf::VP_WR, NUMBER),
    guest(GuestLeaf::SYS_RD, NUMBER),
    guest(GuestLeaf::SYS_RDALL, NUMBER),
    guest(GuestLeaf::SERVTD_RD, NUMBER),
    guest(GuestLeaf::SERVTD_WR, NUMBER),
    guest(GuestLeaf::MR_VERIFYREPORT, NUMBER),
    guest(GuestLeaf::MEM_PAGE_ATTR_RD, NUMBER),
    guest(GuestLeaf::MEM_PAGE_ATTR_WR, NUMBER),
    guest(GuestLeaf::VP_ENTER, NUMBER),
    guest(GuestLeaf::VP_INVEPT, NUMBER),
    guest(GuestLeaf::VP_INVVPID, NUMBER),
];

/// What is known of a SEAMCALL leaf number.
pub(super) enum Kind {
    /// No such leaf (42 is in the enumeration but has no case: architecture.md §7.1 step 7).
    Unknown,
    NotJudged,
    Unchanged,
    Judged(&'static Rule),
}

pub(super) fn kind(spec: &Spec, leaf: Leaf) -> Kind {
    if let Some(rule) = RULES.iter().find(|r| r.leaf == leaf) {
        return Kind::Judged(rule);
    }
    let missing = match leaf {
        Leaf::PHYMEM_PAMT_ADD | Leaf::PHYMEM_PAMT_REMOVE => !spec.tdx.dynamic_pamt,
        Leaf::SYS_DISABLE => !spec.tdx.sys_disable,
        _ => false,
    };
    match NOT_JUDGED.iter().find(|n| !n.guest && n.leaf == leaf.0) {
        _ if missing => Kind::Unknown,
        Some(NotJudged { unchanged: true, .. }) => Kind::Unchanged,
        Some(_) => Kind::NotJudged,
        None => Kind::Unknown,
    }
}

/// The SEAMCALL leaves that have a row of checks, in the order of their numbers.
pub fn judged() -> impl Iterator<Item = Leaf> {
    RULES.iter().map(|r| r.leaf)
}

/// Where the sheet has the rule of a call.
pub(super) fn cite(call: &Call) -> String {
    format!("architecture.md §7.9 \"{}\"", call.name())
}

/// The checks of each leaf and the leaves that are not judged, as tables of the book.
pub fn rules_markdown() -> String {
    let mut out = String::from("| Leaf | Checks, in order |\n|---|---|\n");
    for rule in RULES {
        let names: Vec<&str> = rule.checks.iter().map(Check::name).collect();
        out.push_str(&format!("| {} | {} |\n", rule.leaf, names.join(" → ")));
    }
    out.push_str("\n| Not judged | Metadata must stay | Why |\n|---|---|---|\n");
    for row in NOT_JUDGED {
        let name =
            if row.guest { GuestLeaf(row.leaf).to_string() } else { Leaf(row.leaf).to_string() };
        let stays = if row.unchanged { "yes" } else { "no" };
        out.push_str(&format!("| {name} | {stays} | {} |\n", row.reason));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::tdx::{GUEST_LEAVES, LEAVES};

    #[test]
    fn every_leaf_has_a_rule_or_a_reason_and_never_both() {
        for row in LEAVES {
            let judged = RULES.iter().filter(|r| r.leaf.0 == row.number).count();
            let excused = NOT_JUDGED.iter().filter(|n| !n.guest && n.leaf == row.number).count();
            let none = row.number == Leaf::MEM_SEPT_WR.0;
            assert_eq!(judged + excused + usize::from(none), 1, "{}", row.name);
        }
        for row in GUEST_LEAVES {
            let judged =
                [GuestLeaf::VP_VMCALL, GuestLeaf::MEM_PAGE_ACCEPT].contains(&GuestLeaf(row.number));
            let excused = NOT_JUDGED.iter().filter(|n| n.guest && n.leaf == row.number).count();
            assert_eq!(usize::from(judged) + excused, 1, "{}", row.name);
        }
    }
}
