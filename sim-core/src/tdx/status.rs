//! Completion statuses (RAX of SEAMCALL and TDCALL) and the operand ids they carry (architecture.md §7.3).

use super::ExitReason;
use serde::{Deserialize, Serialize};
use std::fmt;

const SHEET: &str = "architecture.md §7.3";
/// Rows that §7.3 leaves out: name and value from a later public module source, meaning read from the name alone.
const HEADER: &str = "intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h";

/// Dynamic PAMT: the value is that of the kernel series.
const DPAMT: &str = "linux-host-paths.md §13 and its kernel series";
/// Dynamic PAMT: name and meaning are of a later public module source, whose table of values is not public; the value is
/// assumed to follow that of HPA_RANGE_NOT_FREE.
const DPAMT_ASSUMED: &str = "intel/tdx-module 1666adc494db; value assumed";

/// A completion status: bits 31:0 operand id or details, 39:32 details L1, 47:40 class, 60 host-recoverability hint, 61
/// FATAL, 62 NON_RECOVERABLE, 63 ERROR (architecture.md §7.3). ERROR clear with a class is success with information.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Status(pub u64);

/// Operand id: the low half of a status that complains of an operand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Operand(pub u32);

/// What the low half of a status holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Low {
    /// An operand id.
    Operand,
    /// TDH.VP.ENTER's VMX exit reason.
    ExitReason,
    /// The number of an MSR.
    Msr,
    /// A Secure-EPT level.
    Level,
    /// TDMR index and area index in the low bytes (architecture.md §7.9 "TDH.SYS.CONFIG").
    Tdmr,
    /// Nothing, or details that the sheets do not give.
    Plain,
}

/// A row of [`STATUSES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRow {
    /// Intel's name.
    pub name: &'static str,
    /// Its value with a low half of zero.
    pub status: Status,
    /// What the low half holds.
    pub low: Low,
    /// In one line.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

/// A row of [`OPERANDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OperandRow {
    /// The source's name, without OPERAND_ID_.
    pub name: &'static str,
    /// The id.
    pub operand: Operand,
    /// What it stands for.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

/// A row of [`SOFTWARE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SoftwareRow {
    /// Linux's name.
    pub name: &'static str,
    /// The whole value.
    pub status: Status,
    /// In one line.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

/// A row of [`LINUX_VARIANTS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VariantRow {
    /// Linux's name.
    pub name: &'static str,
    /// Linux's value with a low half of zero.
    pub status: Status,
    /// The value of the same name in the module's source.
    pub module: Status,
    /// Source.
    pub cite: &'static str,
}

/// A row of [`CLASSES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassRow {
    /// Bits 47:40.
    pub class: u8,
    /// What its members have in common.
    pub meaning: &'static str,
}

/// One of the four flag bits of a status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BitRow {
    /// Bit number.
    pub bit: u8,
    /// The source's name.
    pub name: &'static str,
    /// What it says when set.
    pub set: &'static str,
    /// What it says when clear.
    pub clear: &'static str,
}

/// The flag bits of a status (architecture.md §7.3 "Layout").
#[rustfmt::skip]
pub const STATUS_BITS: &[BitRow] = &[
    BitRow { bit: 63, name: "ERROR",            set: "the leaf failed",                     clear: "the call itself did not fail" },
    BitRow { bit: 62, name: "NON_RECOVERABLE",  set: "calling again as before cannot help", clear: "retrying is not ruled out" },
    BitRow { bit: 61, name: "FATAL",            set: "the TD is lost",                      clear: "does not say that the TD is lost" },
    BitRow { bit: 60, name: "HOST_RECOVERABLE", set: "a hint that the host can recover",    clear: "no hint" },
];

macro_rules! statuses {
    ($($name:ident $high:literal $low:ident $cite:ident $meaning:literal;)*) => {
        impl Status {
            $(
                #[doc = concat!("TDX_", stringify!($name), ": ", $meaning, " (the source is in [`STATUSES`]).")]
                pub const $name: Status = Status($high << 32);
            )*
        }
        /// Every completion status of the module, in the order of the sheet, then those that only the module's source
        /// has.
        pub const STATUSES: &[StatusRow] = &[
            $(StatusRow {
                name: concat!("TDX_", stringify!($name)),
                status: Status::$name,
                low: Low::$low,
                meaning: $meaning,
                cite: $cite,
            },)*
        ];
    };
}

macro_rules! operands {
    ($($name:ident $id:literal $cite:ident $meaning:literal;)*) => {
        impl Operand {
            $(
                #[doc = concat!($meaning, " (the source is in [`OPERANDS`]).")]
                pub const $name: Operand = Operand($id);
            )*
        }
        /// Every operand id.
        pub const OPERANDS: &[OperandRow] = &[
            $(OperandRow {
                name: stringify!($name),
                operand: Operand::$name,
                meaning: $meaning,
                cite: $cite,
            },)*
        ];
    };
}

#[rustfmt::skip]
statuses! {
    SUCCESS 0x0000_0000 ExitReason SHEET "done; from TDH.VP.ENTER with the exit reason";
    NON_RECOVERABLE_VCPU 0x4000_0001 ExitReason SHEET "this VCPU cannot run again";
    NON_RECOVERABLE_TD 0x6000_0002 ExitReason SHEET "this TD cannot run again";
    INTERRUPTED_RESUMABLE 0x8000_0003 Plain SHEET "an interrupt is pending; call again to go on from where it stopped";
    INTERRUPTED_RESTARTABLE 0x8000_0004 Plain SHEET "an interrupt is pending; call again from the start";
    NON_RECOVERABLE_TD_NON_ACCESSIBLE 0x6000_0005 ExitReason SHEET "this TD cannot run again and its private memory is not touched any more";
    NON_RECOVERABLE_TD_WRONG_APIC_MODE 0xE000_0007 ExitReason SHEET "this TD cannot run: wrong APIC mode";
    CROSS_TD_FAULT 0x8000_0008 ExitReason SHEET "fault-like exit because of another TD";
    CROSS_TD_TRAP 0x9000_0009 ExitReason SHEET "trap-like exit because of another TD";
    NON_RECOVERABLE_TD_CORRUPTED_MD 0x6000_000A ExitReason SHEET "this TD cannot run again: its metadata is corrupted";
    OPERAND_INVALID 0xC000_0100 Operand SHEET "an operand is invalid";
    OPERAND_ADDR_RANGE_ERROR 0xC000_0101 Operand SHEET "an address is outside initialised TDMR memory";
    OPERAND_BUSY 0x8000_0200 Operand SHEET "an operand's lock is taken";
    PREVIOUS_TLB_EPOCH_BUSY 0x8000_0201 Plain SHEET "VCPUs entered in the previous epoch are still in the TD";
    SYS_BUSY 0x8000_0202 Plain SHEET "the module's global lock is taken";
    RND_NO_ENTROPY 0x8000_0203 Plain SHEET "the random number generator had no entropy";
    OPERAND_BUSY_HOST_PRIORITY 0x8000_0204 Operand SHEET "the operand is kept for the host; a guest never sees this one";
    HOST_PRIORITY_BUSY_TIMEOUT 0x9000_0205 ExitReason SHEET "the VCPU's TDCALLs kept meeting locks kept for the host";
    PAGE_METADATA_INCORRECT 0xC000_0300 Operand SHEET "the page's PAMT entry has another type or size than the leaf needs";
    PAGE_NOT_FREE 0xC000_0303 Operand SHEET "the page is not free";
    TD_ASSOCIATED_PAGES_EXIST 0xC000_0400 Plain SHEET "the TD still has pages besides its TDR";
    SYS_INIT_NOT_PENDING 0xC000_0500 Plain SHEET "TDH.SYS.INIT was done before";
    SYS_LP_INIT_NOT_DONE 0xC000_0502 Plain SHEET "TDH.SYS.LP.INIT was not done on this LP";
    SYS_LP_INIT_DONE 0xC000_0503 Plain SHEET "TDH.SYS.LP.INIT was done before on this LP";
    SYS_NOT_READY 0xC000_0505 Plain SHEET "the module is not initialised yet";
    SYS_SHUTDOWN 0xC000_0506 Plain SHEET "the module was shut down";
    SYS_KEY_CONFIG_NOT_PENDING 0xC000_0507 Plain SHEET "the global key is not to be configured in this state";
    SYS_STATE_INCORRECT 0xC000_0508 Plain SHEET "the module's state does not allow this";
    SYS_INVALID_HANDOFF 0xC000_0509 Plain SHEET "the handoff data of the previous module cannot be used";
    SYS_LP_INIT_NOT_PENDING 0xC000_050B Plain SHEET "TDH.SYS.INIT was not done, or the module is past LP initialisation";
    SYS_CONFIG_NOT_PENDING 0xC000_050C Plain SHEET "not every LP is initialised, or TDH.SYS.CONFIG was done before";
    INCOMPATIBLE_SEAM_CAPABILITIES 0xC000_050D Plain SHEET "the processor's SEAM capabilities do not fit the module";
    TD_FATAL 0xE000_0604 Plain SHEET "the TD met a machine check; only its teardown is possible";
    TD_NON_DEBUG 0xC000_0605 Plain SHEET "the leaf needs a debug TD";
    TDCS_NOT_ALLOCATED 0xC000_0606 Plain SHEET "the TD has too few TDCS pages";
    LIFECYCLE_STATE_INCORRECT 0xC000_0607 Operand SHEET "the TD's life-cycle state does not allow this";
    OP_STATE_INCORRECT 0xC000_0608 Plain SHEET "the TD's OP_STATE does not allow this leaf";
    NO_VCPUS 0xC000_0609 Plain SHEET "the TD has no VCPU";
    TDCX_NUM_INCORRECT 0xC000_0610 Plain SHEET "too few or too many control pages";
    VCPU_STATE_INCORRECT 0xC000_0700 Plain SHEET "the VCPU's state does not allow this";
    VCPU_ASSOCIATED 0x8000_0701 Plain SHEET "the VCPU is associated with another LP";
    VCPU_NOT_ASSOCIATED 0x8000_0702 Plain SHEET "the VCPU is not associated with this LP";
    MAX_VCPUS_EXCEEDED 0xC000_0705 Plain SHEET "the TD has as many VCPUs as its parameters allow";
    TSC_ROLLBACK 0xC000_0706 Plain SHEET "the TSC is behind what the TD has seen";
    KEY_GENERATION_FAILED 0x8000_0800 Operand SHEET "PCONFIG had no entropy for a key";
    TD_KEYS_NOT_CONFIGURED 0x8000_0810 Plain SHEET "the TD's key is not configured (or not any more)";
    KEY_STATE_INCORRECT 0xC000_0811 Plain SHEET "the key's state does not allow this";
    KEY_CONFIGURED 0x0000_0815 Plain SHEET "this package was configured before; nothing was done";
    WBCACHE_NOT_COMPLETE 0x8000_0817 Plain SHEET "TDH.PHYMEM.CACHE.WB has not run on every package";
    HKID_NOT_FREE 0xC000_0820 Operand SHEET "the HKID is in use";
    NO_HKID_READY_TO_WBCACHE 0x0000_0821 Plain SHEET "no HKID waits for a cache write-back; nothing was done";
    WBCACHE_RESUME_ERROR 0xC000_0823 Plain SHEET "there is no interrupted cache write-back to resume";
    FLUSHVP_NOT_DONE 0x8000_0824 Plain SHEET "a VCPU of the TD is still associated with an LP";
    NUM_ACTIVATED_HKIDS_NOT_SUPPORTED 0xC000_0825 Plain SHEET "the platform has more private HKIDs than the module supports";
    INCORRECT_CPUID_VALUE 0xC000_0900 Plain SHEET "a CPUID value does not fit the module";
    SMRR_OVERLAPS_CMR 0xC000_0912 Plain SHEET "an SMRR overlaps a CMR";
    INCONSISTENT_MSR 0xC000_0920 Msr SHEET "an MSR differs between LPs";
    INCORRECT_MSR_VALUE 0xC000_0921 Msr SHEET "an MSR has a value that TDX cannot work with";
    INVALID_TDMR 0xC000_0A00 Tdmr SHEET "a TDMR's base, size or alignment is wrong";
    NON_ORDERED_TDMR 0xC000_0A01 Tdmr SHEET "TDMRs overlap or are not in ascending order";
    TDMR_OUTSIDE_CMRS 0xC000_0A02 Tdmr SHEET "a part of a TDMR that is not reserved lies outside the CMRs";
    TDMR_ALREADY_INITIALIZED 0x0000_0A03 Plain SHEET "the TDMR is complete; nothing was done";
    INVALID_PAMT 0xC000_0A10 Tdmr SHEET "a PAMT's base, size or alignment is wrong";
    PAMT_OUTSIDE_CMRS 0xC000_0A11 Tdmr SHEET "a PAMT lies outside the CMRs";
    PAMT_OVERLAP 0xC000_0A12 Tdmr SHEET "a PAMT overlaps another or TDMR memory that is not reserved";
    INVALID_RESERVED_IN_TDMR 0xC000_0A20 Tdmr SHEET "a TDMR's reserved area has a wrong base or size";
    NON_ORDERED_RESERVED_IN_TDMR 0xC000_0A21 Tdmr SHEET "a TDMR's reserved areas overlap or are not in ascending order";
    CMR_LIST_INVALID 0xC000_0A22 Plain SHEET "the firmware's list of CMRs is invalid";
    EPT_WALK_FAILED 0xC000_0B00 Operand SHEET "the Secure-EPT walk ended before the requested level";
    EPT_ENTRY_NOT_PRESENT 0xC000_0B03 Operand SHEET "no page is mapped there";
    GPA_RANGE_NOT_BLOCKED 0xC000_0B06 Operand SHEET "the range must be blocked first";
    GPA_RANGE_ALREADY_BLOCKED 0x0000_0B07 Operand SHEET "the range was blocked before; nothing was done";
    TLB_TRACKING_NOT_DONE 0xC000_0B08 Operand SHEET "a VCPU may still have the old translation in a TLB";
    EPT_INVALID_PROMOTE_CONDITIONS 0xC000_0B09 Operand SHEET "the 512 entries below cannot become one";
    PAGE_ALREADY_ACCEPTED 0x0000_0B0A Level SHEET "the page was accepted before; nothing was done";
    PAGE_SIZE_MISMATCH 0xC000_0B0B Level SHEET "the range is mapped at a smaller size than was to be accepted";
    EPT_ENTRY_STATE_INCORRECT 0xC000_0B0D Operand SHEET "the Secure-EPT entry's state does not allow this leaf";
    EPT_PAGE_NOT_FREE 0xC000_0B0E Operand SHEET "the Secure-EPT page still has entries that are not FREE";
    L2_SEPT_WALK_FAILED 0xC000_0B0F Operand SHEET "the walk of an L2 Secure-EPT failed";
    L2_SEPT_ENTRY_NOT_FREE 0xC000_0B10 Operand SHEET "the L2 Secure-EPT entry is not free";
    L2_SEPT_PAGE_NOT_PROVIDED 0xC000_0B12 Operand SHEET "a page for an L2 Secure-EPT is missing";
    HPA_RANGE_NOT_FREE 0xC000_0304 Operand DPAMT "the 2 MiB block has its pair of PAMT pages already, or is in use";
    MISSING_PAMT_PAGE_PAIR 0xC000_0305 Operand DPAMT_ASSUMED "the 2 MiB block has no pair of PAMT pages";
    NO_PAMT_PAGE_PAIR 0xC000_0306 Operand DPAMT_ASSUMED "there is no pair of PAMT pages to take back from the 2 MiB block";
    PAMT_PAGE_NOT_EMPTY 0xC000_0307 Plain DPAMT_ASSUMED "a page of the 2 MiB block is in use; the low half says under which page of the pair, 0 or 1";
    INVALID_RESUMPTION 0xC000_0006 Plain HEADER "invalid resumption";
    PAGE_ALREADY_FREE 0x0000_0301 Plain HEADER "page already free";
    PAGE_NOT_OWNED_BY_TD 0xC000_0302 Plain HEADER "page not owned by td";
    SYS_INCOMPATIBLE_SIGSTRUCT 0xC000_050A Plain HEADER "sys incompatible sigstruct";
    X2APIC_ID_NOT_UNIQUE 0xC000_0621 Plain HEADER "x2apic id not unique";
    NO_VALID_VE_INFO 0xC000_0704 Plain HEADER "no valid ve info";
    INTERRUPTIBILITY_BLOCKED 0xC000_0707 Plain HEADER "interruptibility blocked";
    TD_VMCS_FIELD_NOT_INITIALIZED 0xC000_0730 Plain HEADER "td vmcs field not initialized";
    LIMIT_CPUID_MAXVAL_SET 0xC000_0901 Plain HEADER "limit cpuid maxval set";
    INCONSISTENT_CPUID_FIELD 0xC000_0902 Plain HEADER "inconsistent cpuid field";
    CPUID_MAX_SUBLEAVES_UNRECOGNIZED 0xC000_0903 Plain HEADER "cpuid max subleaves unrecognized";
    CPUID_LEAF_1F_FORMAT_UNRECOGNIZED 0xC000_0904 Plain HEADER "cpuid leaf 1f format unrecognized";
    INVALID_WBINVD_SCOPE 0xC000_0905 Plain HEADER "invalid wbinvd scope";
    INVALID_PKG_ID 0xC000_0906 Plain HEADER "invalid pkg id";
    ENABLE_MONITOR_FSM_NOT_SET 0xC000_0907 Plain HEADER "enable monitor fsm not set";
    CPUID_LEAF_NOT_SUPPORTED 0xC000_0908 Plain HEADER "cpuid leaf not supported";
    SMRR_NOT_LOCKED 0xC000_0910 Plain HEADER "smrr not locked";
    INVALID_SMRR_CONFIGURATION 0xC000_0911 Plain HEADER "invalid smrr configuration";
    SMRR_LOCK_NOT_SUPPORTED 0xC000_0913 Plain HEADER "smrr lock not supported";
    SMRR_NOT_SUPPORTED 0xC000_0914 Plain HEADER "smrr not supported";
    SEAMREPORT_NOT_AVAILABLE 0xC000_0930 Plain HEADER "seamreport not available";
    SEAMDB_GETREF_NOT_AVAILABLE 0xC000_0931 Plain HEADER "seamdb getref not available";
    SEAMDB_REPORT_NOT_AVAILABLE 0xC000_0932 Plain HEADER "seamdb report not available";
    SEAMVERIFYREPORT_NOT_AVAILABLE 0xC000_0933 Plain HEADER "seamverifyreport not available";
    EPT_ENTRY_FREE 0xC000_0B01 Operand HEADER "ept entry free";
    EPT_ENTRY_NOT_FREE 0xC000_0B02 Operand HEADER "ept entry not free";
    EPT_ENTRY_NOT_LEAF 0xC000_0B04 Operand HEADER "ept entry not leaf";
    EPT_ENTRY_LEAF 0xC000_0B05 Operand HEADER "ept entry leaf";
    GPA_RANGE_BLOCKED 0xC000_0B0C Operand HEADER "gpa range blocked";
    PAGE_ATTR_INVALID 0xC000_0B11 Operand HEADER "page attr invalid";
    METADATA_FIELD_ID_INCORRECT 0xC000_0C00 Plain HEADER "metadata field id incorrect";
    METADATA_FIELD_NOT_WRITABLE 0xC000_0C01 Plain HEADER "metadata field not writable";
    METADATA_FIELD_NOT_READABLE 0xC000_0C02 Plain HEADER "metadata field not readable";
    METADATA_FIELD_VALUE_NOT_VALID 0xC000_0C03 Plain HEADER "metadata field value not valid";
    METADATA_LIST_OVERFLOW 0xC000_0C04 Plain HEADER "metadata list overflow";
    INVALID_METADATA_LIST_HEADER 0xC000_0C05 Plain HEADER "invalid metadata list header";
    REQUIRED_METADATA_FIELD_MISSING 0xC000_0C06 Plain HEADER "required metadata field missing";
    METADATA_ELEMENT_SIZE_INCORRECT 0xC000_0C07 Plain HEADER "metadata element size incorrect";
    METADATA_LAST_ELEMENT_INCORRECT 0xC000_0C08 Plain HEADER "metadata last element incorrect";
    METADATA_FIELD_CURRENTLY_NOT_WRITABLE 0xC000_0C09 Plain HEADER "metadata field currently not writable";
    METADATA_WR_MASK_NOT_VALID 0xC000_0C0A Plain HEADER "metadata wr mask not valid";
    METADATA_FIRST_FIELD_ID_IN_CONTEXT 0x0000_0C0B Plain HEADER "metadata first field id in context";
    METADATA_FIELD_SKIP 0x0000_0C0C Plain HEADER "metadata field skip";
    SERVTD_ALREADY_BOUND_FOR_TYPE 0xC000_0D00 Plain HEADER "servtd already bound for type";
    SERVTD_TYPE_MISMATCH 0xC000_0D01 Plain HEADER "servtd type mismatch";
    SERVTD_ATTR_MISMATCH 0xC000_0D02 Plain HEADER "servtd attr mismatch";
    SERVTD_INFO_HASH_MISMATCH 0xC000_0D03 Plain HEADER "servtd info hash mismatch";
    SERVTD_UUID_MISMATCH 0xC000_0D04 Plain HEADER "servtd uuid mismatch";
    SERVTD_NOT_BOUND 0xC000_0D05 Plain HEADER "servtd not bound";
    SERVTD_BOUND 0xC000_0D06 Plain HEADER "servtd bound";
    TARGET_UUID_MISMATCH 0xC000_0D07 Plain HEADER "target uuid mismatch";
    TARGET_UUID_UPDATED 0xC000_0D08 Plain HEADER "target uuid updated";
    INVALID_MBMD 0xC000_0E00 Plain HEADER "invalid mbmd";
    INCORRECT_MBMD_MAC 0xC000_0E01 Plain HEADER "incorrect mbmd mac";
    NOT_WRITE_BLOCKED 0xC000_0E02 Plain HEADER "not write blocked";
    ALREADY_WRITE_BLOCKED 0x0000_0E03 Plain HEADER "already write blocked";
    NOT_EXPORTED 0xC000_0E04 Plain HEADER "not exported";
    MIGRATION_STREAM_STATE_INCORRECT 0xC000_0E05 Plain HEADER "migration stream state incorrect";
    MAX_MIGS_NUM_EXCEEDED 0xC000_0E06 Plain HEADER "max migs num exceeded";
    EXPORTED_DIRTY_PAGES_REMAIN 0xC000_0E07 Plain HEADER "exported dirty pages remain";
    MIGRATION_DECRYPTION_KEY_NOT_SET 0xC000_0E08 Plain HEADER "migration decryption key not set";
    TD_NOT_MIGRATABLE 0xC000_0E09 Plain HEADER "td not migratable";
    PREVIOUS_EXPORT_CLEANUP_INCOMPLETE 0xC000_0E0A Plain HEADER "previous export cleanup incomplete";
    NUM_MIGS_HIGHER_THAN_CREATED 0xC000_0E0B Plain HEADER "num migs higher than created";
    IMPORT_MISMATCH 0xC000_0E0C Plain HEADER "import mismatch";
    MIGRATION_EPOCH_OVERFLOW 0xC000_0E0D Plain HEADER "migration epoch overflow";
    MAX_EXPORTS_EXCEEDED 0xC000_0E0E Plain HEADER "max exports exceeded";
    INVALID_PAGE_MAC 0xC000_0E0F Plain HEADER "invalid page mac";
    MIGRATED_IN_CURRENT_EPOCH 0xC000_0E10 Plain HEADER "migrated in current epoch";
    DISALLOWED_IMPORT_OVER_REMOVED 0xC000_0E11 Plain HEADER "disallowed import over removed";
    SOME_VCPUS_NOT_MIGRATED 0xC000_0E12 Plain HEADER "some vcpus not migrated";
    ALL_VCPUS_IMPORTED 0xC000_0E13 Plain HEADER "all vcpus imported";
    MIN_MIGS_NOT_CREATED 0xC000_0E14 Plain HEADER "min migs not created";
    VCPU_ALREADY_EXPORTED 0xC000_0E15 Plain HEADER "vcpu already exported";
    INVALID_MIGRATION_DECRYPTION_KEY 0xC000_0E16 Plain HEADER "invalid migration decryption key";
    INVALID_CPUSVN 0xC000_1000 Plain HEADER "invalid cpusvn";
    INVALID_REPORTMACSTRUCT 0xC000_1001 Plain HEADER "invalid reportmacstruct";
    L2_EXIT_HOST_ROUTED_ASYNC 0x0000_1100 Plain HEADER "l2 exit host routed async";
    L2_EXIT_HOST_ROUTED_TDVMCALL 0x0000_1101 Plain HEADER "l2 exit host routed tdvmcall";
    L2_EXIT_PENDING_INTERRUPT 0x0000_1102 Plain HEADER "l2 exit pending interrupt";
    PENDING_INTERRUPT 0x0000_1120 Plain HEADER "pending interrupt";
    TD_EXIT_BEFORE_L2_ENTRY 0x0000_1140 Plain HEADER "td exit before l2 entry";
    TD_EXIT_ON_L2_VM_EXIT 0x0000_1141 Plain HEADER "td exit on l2 vm exit";
    TD_EXIT_ON_L2_TO_L1 0x0000_1142 Plain HEADER "td exit on l2 to l1";
    GLA_NOT_CANONICAL 0xC000_1160 Plain HEADER "gla not canonical";
}

#[rustfmt::skip]
operands! {
    RAX 0 SHEET "register RAX: leaf number and version";
    RCX 1 SHEET "register RCX";
    RDX 2 SHEET "register RDX";
    RBX 3 HEADER "register RBX";
    RBP 5 HEADER "register RBP";
    RSI 6 HEADER "register RSI";
    RDI 7 HEADER "register RDI";
    R8 8 SHEET "register R8";
    R9 9 SHEET "register R9";
    R10 10 SHEET "register R10";
    R11 11 SHEET "register R11";
    R12 12 SHEET "register R12";
    R13 13 SHEET "register R13";
    R14 14 SHEET "register R14";
    R15 15 SHEET "register R15";
    ATTRIBUTES 64 HEADER "TD_PARAMS field ATTRIBUTES";
    XFAM 65 HEADER "TD_PARAMS field XFAM";
    EXEC_CONTROLS 66 HEADER "TD_PARAMS field EXEC_CONTROLS";
    EPTP_CONTROLS 67 HEADER "TD_PARAMS field EPTP_CONTROLS";
    MAX_VCPUS 68 HEADER "TD_PARAMS field MAX_VCPUS";
    CPUID_CONFIG 69 HEADER "TD_PARAMS field CPUID_CONFIG; RCX names the CPUID leaf and sub-leaf";
    TSC_FREQUENCY 70 HEADER "TD_PARAMS field TSC_FREQUENCY";
    NUM_L2_VMS 71 HEADER "TD_PARAMS field NUM_L2_VMS";
    IA32_ARCH_CAPABILITIES_CONFIG 72 HEADER "TD_PARAMS field IA32_ARCH_CAPABILITIES_CONFIG";
    PAGE 95 HEADER "a page";
    TDMR_INFO_PA 96 SHEET "an address in the array of TDMR_INFO addresses";
    GPA_LIST_ENTRY 97 HEADER "an entry of the GPA list";
    MIG_BUFF_LIST_ENTRY 98 HEADER "an entry of the migration buffer list";
    NEW_PAGE_LIST_ENTRY 99 HEADER "an entry of the new page list";
    TDR 128 SHEET "the TD's root page, taken implicitly";
    TDCX 129 SHEET "a control page";
    TDVPR 130 SHEET "the VCPU's root page";
    REG_PAGE 132 HEADER "a private page";
    TDCS 144 SHEET "the TD's control structure";
    TDVPS 145 SHEET "the VCPU's state structure";
    SEPT_TREE 146 SHEET "the TD's Secure-EPT tree lock";
    SEPT_ENTRY 147 SHEET "the lock of a Secure-EPT entry";
    RTMR 168 HEADER "a run-time measurement register";
    TD_EPOCH 169 SHEET "the TD's epoch lock";
    L2_VAPIC_GPA 170 HEADER "GPA of an L2 virtual APIC page";
    MIGSC 171 HEADER "a migration stream context";
    OP_STATE 172 SHEET "the TD's OP_STATE lock";
    MIG 173 HEADER "the TD's migration context";
    SERVTD_BINDINGS 174 HEADER "the TD's service TD bindings";
    METADATA_FIELD 176 HEADER "a metadata field";
    SYS 184 SHEET "the module's global data";
    TDMR 185 SHEET "a TDMR";
    KOT 186 SHEET "the key ownership table";
    KET 187 SHEET "the key encryption table: PCONFIG was busy";
    WBCACHE 188 SHEET "the package's cache write-back lock";
}

/// Values that only Linux's SEAMCALL wrapper makes: class 0xFF, which the module never uses.
#[rustfmt::skip]
pub const SOFTWARE: &[SoftwareRow] = &[
    SoftwareRow { name: "TDX_SEAMCALL_VMFAILINVALID", status: Status::SEAMCALL_VMFAILINVALID, meaning: "SEAMCALL failed with VMfailInvalid: no TDX module is loaded, or TDX is shut down", cite: "architecture.md §7.1" },
    SoftwareRow { name: "TDX_SEAMCALL_GP",            status: Status::SEAMCALL_GP,            meaning: "SEAMCALL raised #GP: TDX is not enabled by the firmware",                          cite: "Linux arch/x86/include/asm/tdx.h" },
    SoftwareRow { name: "TDX_SEAMCALL_UD",            status: Status::SEAMCALL_UD,            meaning: "SEAMCALL raised #UD: the CPU is not in VMX operation",                             cite: "Linux arch/x86/include/asm/tdx.h" },
];

/// Names to which Linux gives another value than the module's source (architecture.md §10.2 D-21).
#[rustfmt::skip]
pub const LINUX_VARIANTS: &[VariantRow] = &[
    VariantRow { name: "TDX_NON_RECOVERABLE_TD",                 status: Status(0x4000_0002 << 32), module: Status::NON_RECOVERABLE_TD,                 cite: "architecture.md §10.2 D-21" },
    VariantRow { name: "TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE", status: Status(0x6000_0007 << 32), module: Status::NON_RECOVERABLE_TD_WRONG_APIC_MODE, cite: "architecture.md §10.2 D-21" },
];

/// The classes, named by what their members in [`STATUSES`] have in common.
#[rustfmt::skip]
pub const CLASSES: &[ClassRow] = &[
    ClassRow { class: 0x00, meaning: "general, and how a TD was left" },
    ClassRow { class: 0x01, meaning: "invalid operand" },
    ClassRow { class: 0x02, meaning: "resource busy" },
    ClassRow { class: 0x03, meaning: "page metadata (PAMT)" },
    ClassRow { class: 0x04, meaning: "dependent resources" },
    ClassRow { class: 0x05, meaning: "module state" },
    ClassRow { class: 0x06, meaning: "TD state" },
    ClassRow { class: 0x07, meaning: "VCPU state" },
    ClassRow { class: 0x08, meaning: "keys and HKIDs" },
    ClassRow { class: 0x09, meaning: "platform configuration" },
    ClassRow { class: 0x0A, meaning: "TDMRs, PAMTs and CMRs" },
    ClassRow { class: 0x0B, meaning: "Secure-EPT and guest memory" },
    ClassRow { class: 0x0C, meaning: "metadata fields" },
    ClassRow { class: 0x0D, meaning: "service TDs" },
    ClassRow { class: 0x0E, meaning: "migration" },
    ClassRow { class: 0x10, meaning: "reports" },
    ClassRow { class: 0x11, meaning: "TD partitioning" },
    ClassRow { class: 0xFF, meaning: "made by software, not by the module" },
];

/// What a value is known as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// A status of the module.
    Module(&'static StatusRow),
    /// A value of Linux's own.
    Software(&'static SoftwareRow),
    /// A status under the value that Linux has for it.
    Variant(&'static VariantRow),
    /// None of these.
    Unknown,
}

impl Status {
    /// TDX_SEAMCALL_VMFAILINVALID of Linux (architecture.md §7.1).
    pub const SEAMCALL_VMFAILINVALID: Status = Status(0x8000_FF00_FFFF_0000);
    /// TDX_SEAMCALL_GP of Linux: the class of software codes and the number of the exception.
    pub const SEAMCALL_GP: Status = Status(0x8000_FF00_0000_000D);
    /// TDX_SEAMCALL_UD of Linux.
    pub const SEAMCALL_UD: Status = Status(0x8000_FF00_0000_0006);

    /// The same status about this operand.
    pub const fn about(self, operand: Operand) -> Status {
        Status(self.0 | operand.0 as u64)
    }
    /// The same status with this VMX exit reason.
    pub const fn exit(self, reason: ExitReason) -> Status {
        Status(self.0 | reason.0 as u64)
    }
    /// The status with a low half of zero: what kernels compare.
    pub const fn code(self) -> Status {
        Status(self.0 & 0xFFFF_FFFF_0000_0000)
    }
    /// Bits 31:0.
    pub const fn low(self) -> u32 {
        self.0 as u32
    }
    /// Bits 39:32.
    pub const fn details_l1(self) -> u8 {
        (self.0 >> 32) as u8
    }
    /// Bits 47:40.
    pub const fn class(self) -> u8 {
        (self.0 >> 40) as u8
    }
    /// Bits 59:48, which no status uses.
    pub const fn reserved(self) -> u16 {
        (self.0 >> 48) as u16 & 0xFFF
    }
    /// Bit 63.
    pub const fn is_error(self) -> bool {
        self.0 >> 63 & 1 != 0
    }
    /// Bit 62.
    pub const fn is_non_recoverable(self) -> bool {
        self.0 >> 62 & 1 != 0
    }
    /// Bit 61.
    pub const fn is_fatal(self) -> bool {
        self.0 >> 61 & 1 != 0
    }
    /// Bit 60.
    pub const fn is_host_recoverable(self) -> bool {
        self.0 >> 60 & 1 != 0
    }
    /// What the value is known as. A whole value of Linux's own wins over a status that has only the same high half.
    pub fn reading(self) -> Reading {
        if let Some(row) = SOFTWARE.iter().find(|row| row.status == self) {
            return Reading::Software(row);
        }
        if let Some(row) = STATUSES.iter().find(|row| row.status == self.code()) {
            return Reading::Module(row);
        }
        match LINUX_VARIANTS.iter().find(|row| row.status == self.code()) {
            Some(row) => Reading::Variant(row),
            None => Reading::Unknown,
        }
    }
    /// Intel's name, or Linux's for a value of its own; `None` for a value that is neither.
    pub fn name(self) -> Option<&'static str> {
        match self.reading() {
            Reading::Module(row) => Some(row.name),
            Reading::Software(row) => Some(row.name),
            Reading::Variant(row) => Some(row.name),
            Reading::Unknown => None,
        }
    }
    /// What the low half holds.
    pub fn low_kind(self) -> Low {
        match self.reading() {
            Reading::Module(row) => row.low,
            Reading::Variant(_) => Low::ExitReason,
            Reading::Software(_) | Reading::Unknown => Low::Plain,
        }
    }
    /// The operand complained of. RAX has the id 0, so that a low half of zero is an operand only in
    /// TDX_OPERAND_INVALID (architecture.md §7.1 points 3, 4 and 7).
    pub fn operand(self) -> Option<Operand> {
        let present = self.low() != 0 || self.code() == Status::OPERAND_INVALID;
        (self.low_kind() == Low::Operand && present).then(|| Operand(self.low()))
    }
    /// The VMX exit reason, where the low half is one. Zero is a reason too, so that TDX_SUCCESS of a leaf other than
    /// TDH.VP.ENTER cannot be told from an exit by an exception.
    pub fn exit_reason(self) -> Option<ExitReason> {
        (self.low_kind() == Low::ExitReason).then(|| ExitReason(self.low()))
    }
    /// What the members of its class have in common; `None` for a class without members.
    pub fn class_meaning(self) -> Option<&'static str> {
        CLASSES.iter().find(|row| row.class == self.class()).map(|row| row.meaning)
    }
}

impl Operand {
    /// The source's name; `None` for an id without one.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }
    /// What it stands for.
    pub fn meaning(self) -> Option<&'static str> {
        self.row().map(|row| row.meaning)
    }
    fn row(self) -> Option<&'static OperandRow> {
        OPERANDS.iter().find(|row| row.operand == self)
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operand {}", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.name() else {
            return write!(f, "{:#018x}", self.0);
        };
        f.write_str(name)?;
        let low = self.low();
        match self.low_kind() {
            Low::Operand => match self.operand() {
                Some(operand) => write!(f, " | {operand}"),
                None => Ok(()),
            },
            Low::ExitReason if self.code() == Status::SUCCESS && low == 0 => Ok(()),
            Low::ExitReason => write!(f, " | {}", ExitReason(low)),
            Low::Msr => write!(f, " | MSR {low:#x}"),
            Low::Level => write!(f, " | level {low}"),
            Low::Tdmr => write!(f, " | TDMR {}, area {}", low & 0xFF, low >> 8 & 0xFF),
            Low::Plain if low == 0 || matches!(self.reading(), Reading::Software(_)) => Ok(()),
            Low::Plain => write!(f, " | {low:#x}"),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// [`STATUSES`], [`SOFTWARE`] and [`LINUX_VARIANTS`] as a table of the book.
pub fn statuses_markdown() -> String {
    let mut out =
        String::from("| Status | Value | Low half | Meaning | Source |\n|---|---|---|---|---|\n");
    let mut row = |name: &str, value: String, low: &str, meaning: &str, cite: &str| {
        out.push_str(&format!("| {name} | {value} | {low} | {meaning} | {cite} |\n"));
    };
    for r in STATUSES {
        let low = match r.low {
            Low::Operand => "operand id",
            Low::ExitReason => "VMX exit reason",
            Low::Msr => "MSR number",
            Low::Level => "level",
            Low::Tdmr => "TDMR and area index",
            Low::Plain => "",
        };
        row(r.name, format!("{:08X}", r.status.0 >> 32), low, r.meaning, r.cite);
    }
    for r in SOFTWARE {
        row(r.name, format!("{:016X}", r.status.0), "", r.meaning, r.cite);
    }
    for r in LINUX_VARIANTS {
        let meaning =
            format!("Linux's value of what the module returns as {:08X}", r.module.0 >> 32);
        row(r.name, format!("{:08X}", r.status.0 >> 32), "VMX exit reason", &meaning, r.cite);
    }
    out
}

/// [`OPERANDS`] as a table of the book.
pub fn operands_markdown() -> String {
    let mut out = String::from("| Id | Operand | Meaning | Source |\n|---|---|---|---|\n");
    for r in OPERANDS {
        let line = format!("| {} | {} | {} | {} |\n", r.operand.0, r.name, r.meaning, r.cite);
        out.push_str(&line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_statuses_share_a_value_or_a_name_within_the_module() {
        let values: BTreeSet<Status> = STATUSES.iter().map(|r| r.status).collect();
        let names: BTreeSet<&str> = STATUSES.iter().map(|r| r.name).collect();
        assert_eq!((values.len(), names.len()), (STATUSES.len(), STATUSES.len()));
        for row in LINUX_VARIANTS {
            assert!(!values.contains(&row.status), "{} would hide a module status", row.name);
            assert!(values.contains(&row.module));
            assert_eq!(Some(row.name), row.module.name());
        }
        for row in SOFTWARE {
            assert!(!values.contains(&row.status.code()), "{}", row.name);
            assert_eq!(row.status.class(), 0xFF);
        }
    }

    #[test]
    fn every_row_is_reached_by_its_value() {
        for row in STATUSES {
            assert_eq!(row.status.reading(), Reading::Module(row));
            assert_eq!(row.status.name(), Some(row.name));
            assert_eq!(row.status.low(), 0, "{}", row.name);
        }
        for row in SOFTWARE {
            assert_eq!(row.status.reading(), Reading::Software(row));
        }
        for row in LINUX_VARIANTS {
            assert_eq!(row.status.reading(), Reading::Variant(row));
        }
        for row in OPERANDS {
            assert_eq!(row.operand.name(), Some(row.name));
        }
    }

    #[test]
    fn no_two_operands_or_classes_share_a_number() {
        let ids: BTreeSet<Operand> = OPERANDS.iter().map(|r| r.operand).collect();
        assert_eq!(ids.len(), OPERANDS.len());
        let classes: BTreeSet<u8> = CLASSES.iter().map(|r| r.class).collect();
        assert_eq!(classes.len(), CLASSES.len());
    }

    #[test]
    fn every_status_has_a_class_and_every_class_has_a_status() {
        for row in STATUSES {
            assert!(row.status.class_meaning().is_some(), "{}", row.name);
        }
        let used: BTreeSet<u8> = STATUSES
            .iter()
            .map(|r| r.status)
            .chain(SOFTWARE.iter().map(|r| r.status))
            .map(Status::class)
            .collect();
        assert_eq!(used, CLASSES.iter().map(|r| r.class).collect());
    }

    #[test]
    fn no_status_uses_the_reserved_bits() {
        for row in STATUSES {
            assert_eq!(row.status.reserved(), 0, "{}", row.name);
        }
    }

    #[test]
    fn a_status_prints_as_the_specification_writes_it() {
        let cases = [
            // architecture.md §11 Q-13, Q-15, Q-19, Q-20, Q-04, Q-05, Q-21; §7.1; §1.3 1.3.4.
            (0xC000_0300_0000_0001, "TDX_PAGE_METADATA_INCORRECT | RCX"),
            (0x0000_0B07_0000_0001, "TDX_GPA_RANGE_ALREADY_BLOCKED | RCX"),
            (0x0000_0815_0000_0000, "TDX_KEY_CONFIGURED"),
            (0xC000_0100_0000_0000, "TDX_OPERAND_INVALID | RAX"),
            (
                0x6000_0005_0000_0000,
                "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE | exit reason 0 (exception or NMI)",
            ),
            (0xE000_0604_0000_0000, "TDX_TD_FATAL"),
            (0x0000_0000_0000_0006, "TDX_SUCCESS | exit reason 6 (other SMI)"),
            (0, "TDX_SUCCESS"),
            (0x8000_FF00_FFFF_0000, "TDX_SEAMCALL_VMFAILINVALID"),
            (0xC000_0921_0000_0982, "TDX_INCORRECT_MSR_VALUE | MSR 0x982"),
            (0x8000_0200_0000_0092, "TDX_OPERAND_BUSY | SEPT_TREE"),
            (0xC000_0100_0000_0045, "TDX_OPERAND_INVALID | CPUID_CONFIG"),
            (0xC000_0A02_0000_0201, "TDX_TDMR_OUTSIDE_CMRS | TDMR 1, area 2"),
            (0x0000_0B0A_0000_0001, "TDX_PAGE_ALREADY_ACCEPTED | level 1"),
            (0x4000_0002_0000_0002, "TDX_NON_RECOVERABLE_TD | exit reason 2 (triple fault)"),
            (0x8000_01C0_0000_0000, "0x800001c000000000"),
            (0x8000_0200_0000_1234, "TDX_OPERAND_BUSY | operand 4660"),
        ];
        for (raw, text) in cases {
            assert_eq!(Status(raw).to_string(), text, "{raw:#x}");
        }
    }

    #[test]
    fn flags_are_where_the_layout_says() {
        let fatal = Status::TD_FATAL;
        assert!(fatal.is_error() && fatal.is_non_recoverable() && fatal.is_fatal());
        assert!(!fatal.is_host_recoverable());
        assert!(Status::CROSS_TD_TRAP.is_host_recoverable());
        let info = Status::GPA_RANGE_ALREADY_BLOCKED;
        assert!(!info.is_error() && info.class() == 0x0B && info.details_l1() == 0x07);
        let bits: Vec<u8> = STATUS_BITS.iter().map(|r| r.bit).collect();
        assert_eq!(bits, [63, 62, 61, 60]);
    }

    #[test]
    fn only_an_invalid_operand_can_be_rax() {
        assert_eq!(Status::OPERAND_INVALID.operand(), Some(Operand::RAX));
        assert_eq!(Status::OPERAND_BUSY.operand(), None);
        assert_eq!(Status::OPERAND_BUSY.about(Operand::TDR).operand(), Some(Operand::TDR));
        assert_eq!(Status::SUCCESS.exit(ExitReason(48)).exit_reason(), Some(ExitReason(48)));
    }

    proptest! {
        #[test]
        fn any_value_has_one_reading_and_prints(raw: u64) {
            let status = Status(raw);
            prop_assert_eq!(status.name().is_none(), status.reading() == Reading::Unknown);
            prop_assert!(!status.to_string().is_empty());
        }

        #[test]
        fn the_low_half_never_changes_which_status_it_is(index in 0..STATUSES.len(), low: u32) {
            let row = &STATUSES[index];
            prop_assert_eq!(Status(row.status.0 | u64::from(low)).reading(), Reading::Module(row));
        }
    }

    #[test]
    fn the_tables_as_the_book_prints_them() {
        expect![[r#"
            | Status | Value | Low half | Meaning | Source |
            |---|---|---|---|---|
            | TDX_SUCCESS | 00000000 | VMX exit reason | done; from TDH.VP.ENTER with the exit reason | architecture.md §7.3 |
            | TDX_NON_RECOVERABLE_VCPU | 40000001 | VMX exit reason | this VCPU cannot run again | architecture.md §7.3 |
            | TDX_NON_RECOVERABLE_TD | 60000002 | VMX exit reason | this TD cannot run again | architecture.md §7.3 |
            | TDX_INTERRUPTED_RESUMABLE | 80000003 |  | an interrupt is pending; call again to go on from where it stopped | architecture.md §7.3 |
            | TDX_INTERRUPTED_RESTARTABLE | 80000004 |  | an interrupt is pending; call again from the start | architecture.md §7.3 |
            | TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE | 60000005 | VMX exit reason | this TD cannot run again and its private memory is not touched any more | architecture.md §7.3 |
            | TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE | E0000007 | VMX exit reason | this TD cannot run: wrong APIC mode | architecture.md §7.3 |
            | TDX_CROSS_TD_FAULT | 80000008 | VMX exit reason | fault-like exit because of another TD | architecture.md §7.3 |
            | TDX_CROSS_TD_TRAP | 90000009 | VMX exit reason | trap-like exit because of another TD | architecture.md §7.3 |
            | TDX_NON_RECOVERABLE_TD_CORRUPTED_MD | 6000000A | VMX exit reason | this TD cannot run again: its metadata is corrupted | architecture.md §7.3 |
            | TDX_OPERAND_INVALID | C0000100 | operand id | an operand is invalid | architecture.md §7.3 |
            | TDX_OPERAND_ADDR_RANGE_ERROR | C0000101 | operand id | an address is outside initialised TDMR memory | architecture.md §7.3 |
            | TDX_OPERAND_BUSY | 80000200 | operand id | an operand's lock is taken | architecture.md §7.3 |
            | TDX_PREVIOUS_TLB_EPOCH_BUSY | 80000201 |  | VCPUs entered in the previous epoch are still in the TD | architecture.md §7.3 |
            | TDX_SYS_BUSY | 80000202 |  | the module's global lock is taken | architecture.md §7.3 |
            | TDX_RND_NO_ENTROPY | 80000203 |  | the random number generator had no entropy | architecture.md §7.3 |
            | TDX_OPERAND_BUSY_HOST_PRIORITY | 80000204 | operand id | the operand is kept for the host; a guest never sees this one | architecture.md §7.3 |
            | TDX_HOST_PRIORITY_BUSY_TIMEOUT | 90000205 | VMX exit reason | the VCPU's TDCALLs kept meeting locks kept for the host | architecture.md §7.3 |
            | TDX_PAGE_METADATA_INCORRECT | C0000300 | operand id | the page's PAMT entry has another type or size than the leaf needs | architecture.md §7.3 |
            | TDX_PAGE_NOT_FREE | C0000303 | operand id | the page is not free | architecture.md §7.3 |
            | TDX_TD_ASSOCIATED_PAGES_EXIST | C0000400 |  | the TD still has pages besides its TDR | architecture.md §7.3 |
            | TDX_SYS_INIT_NOT_PENDING | C0000500 |  | TDH.SYS.INIT was done before | architecture.md §7.3 |
            | TDX_SYS_LP_INIT_NOT_DONE | C0000502 |  | TDH.SYS.LP.INIT was not done on this LP | architecture.md §7.3 |
            | TDX_SYS_LP_INIT_DONE | C0000503 |  | TDH.SYS.LP.INIT was done before on this LP | architecture.md §7.3 |
            | TDX_SYS_NOT_READY | C0000505 |  | the module is not initialised yet | architecture.md §7.3 |
            | TDX_SYS_SHUTDOWN | C0000506 |  | the module was shut down | architecture.md §7.3 |
            | TDX_SYS_KEY_CONFIG_NOT_PENDING | C0000507 |  | the global key is not to be configured in this state | architecture.md §7.3 |
            | TDX_SYS_STATE_INCORRECT | C0000508 |  | the module's state does not allow this | architecture.md §7.3 |
            | TDX_SYS_INVALID_HANDOFF | C0000509 |  | the handoff data of the previous module cannot be used | architecture.md §7.3 |
            | TDX_SYS_LP_INIT_NOT_PENDING | C000050B |  | TDH.SYS.INIT was not done, or the module is past LP initialisation | architecture.md §7.3 |
            | TDX_SYS_CONFIG_NOT_PENDING | C000050C |  | not every LP is initialised, or TDH.SYS.CONFIG was done before | architecture.md §7.3 |
            | TDX_INCOMPATIBLE_SEAM_CAPABILITIES | C000050D |  | the processor's SEAM capabilities do not fit the module | architecture.md §7.3 |
            | TDX_TD_FATAL | E0000604 |  | the TD met a machine check; only its teardown is possible | architecture.md §7.3 |
            | TDX_TD_NON_DEBUG | C0000605 |  | the leaf needs a debug TD | architecture.md §7.3 |
            | TDX_TDCS_NOT_ALLOCATED | C0000606 |  | the TD has too few TDCS pages | architecture.md §7.3 |
            | TDX_LIFECYCLE_STATE_INCORRECT | C0000607 | operand id | the TD's life-cycle state does not allow this | architecture.md §7.3 |
            | TDX_OP_STATE_INCORRECT | C0000608 |  | the TD's OP_STATE does not allow this leaf | architecture.md §7.3 |
            | TDX_NO_VCPUS | C0000609 |  | the TD has no VCPU | architecture.md §7.3 |
            | TDX_TDCX_NUM_INCORRECT | C0000610 |  | too few or too many control pages | architecture.md §7.3 |
            | TDX_VCPU_STATE_INCORRECT | C0000700 |  | the VCPU's state does not allow this | architecture.md §7.3 |
            | TDX_VCPU_ASSOCIATED | 80000701 |  | the VCPU is associated with another LP | architecture.md §7.3 |
            | TDX_VCPU_NOT_ASSOCIATED | 80000702 |  | the VCPU is not associated with this LP | architecture.md §7.3 |
            | TDX_MAX_VCPUS_EXCEEDED | C0000705 |  | the TD has as many VCPUs as its parameters allow | architecture.md §7.3 |
            | TDX_TSC_ROLLBACK | C0000706 |  | the TSC is behind what the TD has seen | architecture.md §7.3 |
            | TDX_KEY_GENERATION_FAILED | 80000800 | operand id | PCONFIG had no entropy for a key | architecture.md §7.3 |
            | TDX_TD_KEYS_NOT_CONFIGURED | 80000810 |  | the TD's key is not configured (or not any more) | architecture.md §7.3 |
            | TDX_KEY_STATE_INCORRECT | C0000811 |  | the key's state does not allow this | architecture.md §7.3 |
            | TDX_KEY_CONFIGURED | 00000815 |  | this package was configured before; nothing was done | architecture.md §7.3 |
            | TDX_WBCACHE_NOT_COMPLETE | 80000817 |  | TDH.PHYMEM.CACHE.WB has not run on every package | architecture.md §7.3 |
            | TDX_HKID_NOT_FREE | C0000820 | operand id | the HKID is in use | architecture.md §7.3 |
            | TDX_NO_HKID_READY_TO_WBCACHE | 00000821 |  | no HKID waits for a cache write-back; nothing was done | architecture.md §7.3 |
            | TDX_WBCACHE_RESUME_ERROR | C0000823 |  | there is no interrupted cache write-back to resume | architecture.md §7.3 |
            | TDX_FLUSHVP_NOT_DONE | 80000824 |  | a VCPU of the TD is still associated with an LP | architecture.md §7.3 |
            | TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED | C0000825 |  | the platform has more private HKIDs than the module supports | architecture.md §7.3 |
            | TDX_INCORRECT_CPUID_VALUE | C0000900 |  | a CPUID value does not fit the module | architecture.md §7.3 |
            | TDX_SMRR_OVERLAPS_CMR | C0000912 |  | an SMRR overlaps a CMR | architecture.md §7.3 |
            | TDX_INCONSISTENT_MSR | C0000920 | MSR number | an MSR differs between LPs | architecture.md §7.3 |
            | TDX_INCORRECT_MSR_VALUE | C0000921 | MSR number | an MSR has a value that TDX cannot work with | architecture.md §7.3 |
            | TDX_INVALID_TDMR | C0000A00 | TDMR and area index | a TDMR's base, size or alignment is wrong | architecture.md §7.3 |
            | TDX_NON_ORDERED_TDMR | C0000A01 | TDMR and area index | TDMRs overlap or are not in ascending order | architecture.md §7.3 |
            | TDX_TDMR_OUTSIDE_CMRS | C0000A02 | TDMR and area index | a part of a TDMR that is not reserved lies outside the CMRs | architecture.md §7.3 |
            | TDX_TDMR_ALREADY_INITIALIZED | 00000A03 |  | the TDMR is complete; nothing was done | architecture.md §7.3 |
            | TDX_INVALID_PAMT | C0000A10 | TDMR and area index | a PAMT's base, size or alignment is wrong | architecture.md §7.3 |
            | TDX_PAMT_OUTSIDE_CMRS | C0000A11 | TDMR and area index | a PAMT lies outside the CMRs | architecture.md §7.3 |
            | TDX_PAMT_OVERLAP | C0000A12 | TDMR and area index | a PAMT overlaps another or TDMR memory that is not reserved | architecture.md §7.3 |
            | TDX_INVALID_RESERVED_IN_TDMR | C0000A20 | TDMR and area index | a TDMR's reserved area has a wrong base or size | architecture.md §7.3 |
            | TDX_NON_ORDERED_RESERVED_IN_TDMR | C0000A21 | TDMR and area index | a TDMR's reserved areas overlap or are not in ascending order | architecture.md §7.3 |
            | TDX_CMR_LIST_INVALID | C0000A22 |  | the firmware's list of CMRs is invalid | architecture.md §7.3 |
            | TDX_EPT_WALK_FAILED | C0000B00 | operand id | the Secure-EPT walk ended before the requested level | architecture.md §7.3 |
            | TDX_EPT_ENTRY_NOT_PRESENT | C0000B03 | operand id | no page is mapped there | architecture.md §7.3 |
            | TDX_GPA_RANGE_NOT_BLOCKED | C0000B06 | operand id | the range must be blocked first | architecture.md §7.3 |
            | TDX_GPA_RANGE_ALREADY_BLOCKED | 00000B07 | operand id | the range was blocked before; nothing was done | architecture.md §7.3 |
            | TDX_TLB_TRACKING_NOT_DONE | C0000B08 | operand id | a VCPU may still have the old translation in a TLB | architecture.md §7.3 |
            | TDX_EPT_INVALID_PROMOTE_CONDITIONS | C0000B09 | operand id | the 512 entries below cannot become one | architecture.md §7.3 |
            | TDX_PAGE_ALREADY_ACCEPTED | 00000B0A | level | the page was accepted before; nothing was done | architecture.md §7.3 |
            | TDX_PAGE_SIZE_MISMATCH | C0000B0B | level | the range is mapped at a smaller size than was to be accepted | architecture.md §7.3 |
            | TDX_EPT_ENTRY_STATE_INCORRECT | C0000B0D | operand id | the Secure-EPT entry's state does not allow this leaf | architecture.md §7.3 |
            | TDX_EPT_PAGE_NOT_FREE | C0000B0E | operand id | the Secure-EPT page still has entries that are not FREE | architecture.md §7.3 |
            | TDX_L2_SEPT_WALK_FAILED | C0000B0F | operand id | the walk of an L2 Secure-EPT failed | architecture.md §7.3 |
            | TDX_L2_SEPT_ENTRY_NOT_FREE | C0000B10 | operand id | the L2 Secure-EPT entry is not free | architecture.md §7.3 |
            | TDX_L2_SEPT_PAGE_NOT_PROVIDED | C0000B12 | operand id | a page for an L2 Secure-EPT is missing | architecture.md §7.3 |
            | TDX_HPA_RANGE_NOT_FREE | C0000304 | operand id | the 2 MiB block has its pair of PAMT pages already, or is in use | linux-host-paths.md §13 and its kernel series |
            | TDX_MISSING_PAMT_PAGE_PAIR | C0000305 | operand id | the 2 MiB block has no pair of PAMT pages | intel/tdx-module 1666adc494db; value assumed |
            | TDX_NO_PAMT_PAGE_PAIR | C0000306 | operand id | there is no pair of PAMT pages to take back from the 2 MiB block | intel/tdx-module 1666adc494db; value assumed |
            | TDX_PAMT_PAGE_NOT_EMPTY | C0000307 |  | a page of the 2 MiB block is in use; the low half says under which page of the pair, 0 or 1 | intel/tdx-module 1666adc494db; value assumed |
            | TDX_INVALID_RESUMPTION | C0000006 |  | invalid resumption | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_PAGE_ALREADY_FREE | 00000301 |  | page already free | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_PAGE_NOT_OWNED_BY_TD | C0000302 |  | page not owned by td | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SYS_INCOMPATIBLE_SIGSTRUCT | C000050A |  | sys incompatible sigstruct | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_X2APIC_ID_NOT_UNIQUE | C0000621 |  | x2apic id not unique | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_NO_VALID_VE_INFO | C0000704 |  | no valid ve info | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INTERRUPTIBILITY_BLOCKED | C0000707 |  | interruptibility blocked | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TD_VMCS_FIELD_NOT_INITIALIZED | C0000730 |  | td vmcs field not initialized | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_LIMIT_CPUID_MAXVAL_SET | C0000901 |  | limit cpuid maxval set | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INCONSISTENT_CPUID_FIELD | C0000902 |  | inconsistent cpuid field | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_CPUID_MAX_SUBLEAVES_UNRECOGNIZED | C0000903 |  | cpuid max subleaves unrecognized | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED | C0000904 |  | cpuid leaf 1f format unrecognized | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_WBINVD_SCOPE | C0000905 |  | invalid wbinvd scope | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_PKG_ID | C0000906 |  | invalid pkg id | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_ENABLE_MONITOR_FSM_NOT_SET | C0000907 |  | enable monitor fsm not set | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_CPUID_LEAF_NOT_SUPPORTED | C0000908 |  | cpuid leaf not supported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SMRR_NOT_LOCKED | C0000910 |  | smrr not locked | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_SMRR_CONFIGURATION | C0000911 |  | invalid smrr configuration | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SMRR_LOCK_NOT_SUPPORTED | C0000913 |  | smrr lock not supported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SMRR_NOT_SUPPORTED | C0000914 |  | smrr not supported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SEAMREPORT_NOT_AVAILABLE | C0000930 |  | seamreport not available | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SEAMDB_GETREF_NOT_AVAILABLE | C0000931 |  | seamdb getref not available | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SEAMDB_REPORT_NOT_AVAILABLE | C0000932 |  | seamdb report not available | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SEAMVERIFYREPORT_NOT_AVAILABLE | C0000933 |  | seamverifyreport not available | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_EPT_ENTRY_FREE | C0000B01 | operand id | ept entry free | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_EPT_ENTRY_NOT_FREE | C0000B02 | operand id | ept entry not free | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_EPT_ENTRY_NOT_LEAF | C0000B04 | operand id | ept entry not leaf | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_EPT_ENTRY_LEAF | C0000B05 | operand id | ept entry leaf | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_GPA_RANGE_BLOCKED | C0000B0C | operand id | gpa range blocked | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_PAGE_ATTR_INVALID | C0000B11 | operand id | page attr invalid | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_ID_INCORRECT | C0000C00 |  | metadata field id incorrect | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_NOT_WRITABLE | C0000C01 |  | metadata field not writable | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_NOT_READABLE | C0000C02 |  | metadata field not readable | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_VALUE_NOT_VALID | C0000C03 |  | metadata field value not valid | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_LIST_OVERFLOW | C0000C04 |  | metadata list overflow | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_METADATA_LIST_HEADER | C0000C05 |  | invalid metadata list header | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_REQUIRED_METADATA_FIELD_MISSING | C0000C06 |  | required metadata field missing | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_ELEMENT_SIZE_INCORRECT | C0000C07 |  | metadata element size incorrect | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_LAST_ELEMENT_INCORRECT | C0000C08 |  | metadata last element incorrect | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_CURRENTLY_NOT_WRITABLE | C0000C09 |  | metadata field currently not writable | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_WR_MASK_NOT_VALID | C0000C0A |  | metadata wr mask not valid | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT | 00000C0B |  | metadata first field id in context | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_METADATA_FIELD_SKIP | 00000C0C |  | metadata field skip | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_ALREADY_BOUND_FOR_TYPE | C0000D00 |  | servtd already bound for type | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_TYPE_MISMATCH | C0000D01 |  | servtd type mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_ATTR_MISMATCH | C0000D02 |  | servtd attr mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_INFO_HASH_MISMATCH | C0000D03 |  | servtd info hash mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_UUID_MISMATCH | C0000D04 |  | servtd uuid mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_NOT_BOUND | C0000D05 |  | servtd not bound | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SERVTD_BOUND | C0000D06 |  | servtd bound | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TARGET_UUID_MISMATCH | C0000D07 |  | target uuid mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TARGET_UUID_UPDATED | C0000D08 |  | target uuid updated | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_MBMD | C0000E00 |  | invalid mbmd | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INCORRECT_MBMD_MAC | C0000E01 |  | incorrect mbmd mac | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_NOT_WRITE_BLOCKED | C0000E02 |  | not write blocked | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_ALREADY_WRITE_BLOCKED | 00000E03 |  | already write blocked | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_NOT_EXPORTED | C0000E04 |  | not exported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MIGRATION_STREAM_STATE_INCORRECT | C0000E05 |  | migration stream state incorrect | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MAX_MIGS_NUM_EXCEEDED | C0000E06 |  | max migs num exceeded | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_EXPORTED_DIRTY_PAGES_REMAIN | C0000E07 |  | exported dirty pages remain | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MIGRATION_DECRYPTION_KEY_NOT_SET | C0000E08 |  | migration decryption key not set | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TD_NOT_MIGRATABLE | C0000E09 |  | td not migratable | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_PREVIOUS_EXPORT_CLEANUP_INCOMPLETE | C0000E0A |  | previous export cleanup incomplete | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_NUM_MIGS_HIGHER_THAN_CREATED | C0000E0B |  | num migs higher than created | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_IMPORT_MISMATCH | C0000E0C |  | import mismatch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MIGRATION_EPOCH_OVERFLOW | C0000E0D |  | migration epoch overflow | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MAX_EXPORTS_EXCEEDED | C0000E0E |  | max exports exceeded | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_PAGE_MAC | C0000E0F |  | invalid page mac | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MIGRATED_IN_CURRENT_EPOCH | C0000E10 |  | migrated in current epoch | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_DISALLOWED_IMPORT_OVER_REMOVED | C0000E11 |  | disallowed import over removed | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SOME_VCPUS_NOT_MIGRATED | C0000E12 |  | some vcpus not migrated | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_ALL_VCPUS_IMPORTED | C0000E13 |  | all vcpus imported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_MIN_MIGS_NOT_CREATED | C0000E14 |  | min migs not created | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_VCPU_ALREADY_EXPORTED | C0000E15 |  | vcpu already exported | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_MIGRATION_DECRYPTION_KEY | C0000E16 |  | invalid migration decryption key | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_CPUSVN | C0001000 |  | invalid cpusvn | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_INVALID_REPORTMACSTRUCT | C0001001 |  | invalid reportmacstruct | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_L2_EXIT_HOST_ROUTED_ASYNC | 00001100 |  | l2 exit host routed async | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_L2_EXIT_HOST_ROUTED_TDVMCALL | 00001101 |  | l2 exit host routed tdvmcall | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_L2_EXIT_PENDING_INTERRUPT | 00001102 |  | l2 exit pending interrupt | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_PENDING_INTERRUPT | 00001120 |  | pending interrupt | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TD_EXIT_BEFORE_L2_ENTRY | 00001140 |  | td exit before l2 entry | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TD_EXIT_ON_L2_VM_EXIT | 00001141 |  | td exit on l2 vm exit | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_TD_EXIT_ON_L2_TO_L1 | 00001142 |  | td exit on l2 to l1 | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_GLA_NOT_CANONICAL | C0001160 |  | gla not canonical | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | TDX_SEAMCALL_VMFAILINVALID | 8000FF00FFFF0000 |  | SEAMCALL failed with VMfailInvalid: no TDX module is loaded, or TDX is shut down | architecture.md §7.1 |
            | TDX_SEAMCALL_GP | 8000FF000000000D |  | SEAMCALL raised #GP: TDX is not enabled by the firmware | Linux arch/x86/include/asm/tdx.h |
            | TDX_SEAMCALL_UD | 8000FF0000000006 |  | SEAMCALL raised #UD: the CPU is not in VMX operation | Linux arch/x86/include/asm/tdx.h |
            | TDX_NON_RECOVERABLE_TD | 40000002 | VMX exit reason | Linux's value of what the module returns as 60000002 | architecture.md §10.2 D-21 |
            | TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE | 60000007 | VMX exit reason | Linux's value of what the module returns as E0000007 | architecture.md §10.2 D-21 |
        "#]].assert_eq(&statuses_markdown());
        expect![[r#"
            | Id | Operand | Meaning | Source |
            |---|---|---|---|
            | 0 | RAX | register RAX: leaf number and version | architecture.md §7.3 |
            | 1 | RCX | register RCX | architecture.md §7.3 |
            | 2 | RDX | register RDX | architecture.md §7.3 |
            | 3 | RBX | register RBX | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 5 | RBP | register RBP | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 6 | RSI | register RSI | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 7 | RDI | register RDI | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 8 | R8 | register R8 | architecture.md §7.3 |
            | 9 | R9 | register R9 | architecture.md §7.3 |
            | 10 | R10 | register R10 | architecture.md §7.3 |
            | 11 | R11 | register R11 | architecture.md §7.3 |
            | 12 | R12 | register R12 | architecture.md §7.3 |
            | 13 | R13 | register R13 | architecture.md §7.3 |
            | 14 | R14 | register R14 | architecture.md §7.3 |
            | 15 | R15 | register R15 | architecture.md §7.3 |
            | 64 | ATTRIBUTES | TD_PARAMS field ATTRIBUTES | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 65 | XFAM | TD_PARAMS field XFAM | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 66 | EXEC_CONTROLS | TD_PARAMS field EXEC_CONTROLS | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 67 | EPTP_CONTROLS | TD_PARAMS field EPTP_CONTROLS | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 68 | MAX_VCPUS | TD_PARAMS field MAX_VCPUS | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 69 | CPUID_CONFIG | TD_PARAMS field CPUID_CONFIG; RCX names the CPUID leaf and sub-leaf | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 70 | TSC_FREQUENCY | TD_PARAMS field TSC_FREQUENCY | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 71 | NUM_L2_VMS | TD_PARAMS field NUM_L2_VMS | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 72 | IA32_ARCH_CAPABILITIES_CONFIG | TD_PARAMS field IA32_ARCH_CAPABILITIES_CONFIG | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 95 | PAGE | a page | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 96 | TDMR_INFO_PA | an address in the array of TDMR_INFO addresses | architecture.md §7.3 |
            | 97 | GPA_LIST_ENTRY | an entry of the GPA list | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 98 | MIG_BUFF_LIST_ENTRY | an entry of the migration buffer list | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 99 | NEW_PAGE_LIST_ENTRY | an entry of the new page list | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 128 | TDR | the TD's root page, taken implicitly | architecture.md §7.3 |
            | 129 | TDCX | a control page | architecture.md §7.3 |
            | 130 | TDVPR | the VCPU's root page | architecture.md §7.3 |
            | 132 | REG_PAGE | a private page | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 144 | TDCS | the TD's control structure | architecture.md §7.3 |
            | 145 | TDVPS | the VCPU's state structure | architecture.md §7.3 |
            | 146 | SEPT_TREE | the TD's Secure-EPT tree lock | architecture.md §7.3 |
            | 147 | SEPT_ENTRY | the lock of a Secure-EPT entry | architecture.md §7.3 |
            | 168 | RTMR | a run-time measurement register | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 169 | TD_EPOCH | the TD's epoch lock | architecture.md §7.3 |
            | 170 | L2_VAPIC_GPA | GPA of an L2 virtual APIC page | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 171 | MIGSC | a migration stream context | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 172 | OP_STATE | the TD's OP_STATE lock | architecture.md §7.3 |
            | 173 | MIG | the TD's migration context | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 174 | SERVTD_BINDINGS | the TD's service TD bindings | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 176 | METADATA_FIELD | a metadata field | intel/tdx-module 1e6369859b43 include/auto_gen/tdx_error_codes_defs.h |
            | 184 | SYS | the module's global data | architecture.md §7.3 |
            | 185 | TDMR | a TDMR | architecture.md §7.3 |
            | 186 | KOT | the key ownership table | architecture.md §7.3 |
            | 187 | KET | the key encryption table: PCONFIG was busy | architecture.md §7.3 |
            | 188 | WBCACHE | the package's cache write-back lock | architecture.md §7.3 |
        "#]].assert_eq(&operands_markdown());
    }
}
