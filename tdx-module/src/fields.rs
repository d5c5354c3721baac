//! Metadata fields: what TDH.SYS.RD, SYS.RDALL and MNG.RD find under which field id, and what MNG.WR may write.
//!
//! Ids, sizes, rights and constants are facts of intel/tdx-module 1.5.01 (auto_gen/global_sys_fields_lookup.c,
//! tdr_tdcs_fields_lookup.c); the values that a real kernel read are in real-kernel.md §5.5. A field that the model has no
//! value for has no row: reading it says METADATA_FIELD_ID_INCORRECT, as reading an unknown one does.

use crate::Module;
use crate::pamt::{ENTRY_BYTES, RESERVED_MAX, TDMRS_MAX};
use crate::td::{ATTRIBUTE_SEPT_VE_DISABLE, TDCS_MIN, TDVPS_MIN, Td};
use sim_core::platform::TdxSpec;
use sim_core::{Addr, Hpa};
use std::fmt::Write;

/// The field id that stands for "none": all ones, whatever the context code.
pub const NO_FIELD: u64 = u64::MAX;
/// Bits 54:52: the context code, which every leaf sets itself.
const CONTEXT: u64 = 7 << 52;
/// Context code of TDR and TDCS.
pub(crate) const CONTEXT_TD: u64 = 1 << 52;

/// ATTRIBUTES that a TD may have: DEBUG, SEPT_VE_DISABLE, MIGRATABLE, PKS, PERFMON (intel/tdx-module 1.5.01
/// td_control_structures.h).
pub const ATTRIBUTES_FIXED0: u64 = 1 << 63 | 1 << 30 | ATTRIBUTE_MIGRATABLE | 1 << 28 | 1;
/// ATTRIBUTES bit 29.
pub const ATTRIBUTE_MIGRATABLE: u64 = 1 << 29;
/// XFAM bits that may be 1 (intel/tdx-module 1.5.01 td_control_structures.h).
pub const XFAM_FIXED0: u64 = 0x6_DBE7;
/// XFAM bits that must be 1: x87 and SSE (real-kernel.md §5.5).
pub const XFAM_FIXED1: u64 = 3;
/// CONFIG_FLAGS that a TD may have: GPAW, FLEXIBLE_PENDING_VE, NO_RBP_MOD (intel/tdx-module 1.5.01).
pub const CONFIG_FLAGS_FIXED0: u64 = 7;
/// Most VCPUs of a TD (real-kernel.md §5.5; a field of 1.5.06).
pub const MAX_VCPUS_PER_TD: u64 = 576;
/// Bits of IA32_ARCH_CAPABILITIES that TD_PARAMS may set: 4, 19, 20 and 24 (intel/tdx-module 1.5.01 msr_defs.h).
pub const ARCH_CAPABILITIES_CONFIG: u64 = 1 << 4 | 1 << 19 | 1 << 20 | 1 << 24;

/// A CPUID leaf whose values TD_PARAMS configures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidConfig {
    /// Leaf in bits 31:0, sub-leaf in 63:32 (all ones: none).
    pub leaf: u64,
    /// Which bits: EAX and EBX, ECX and EDX.
    pub bits: [u64; 2],
    /// Source.
    pub cite: &'static str,
}

/// The configurable leaves, in the order of TD_PARAMS.
pub const CPUID_CONFIGS: &[CpuidConfig] = &[CpuidConfig {
    leaf: 0xFFFF_FFFF_8000_0008,
    bits: [0x00FF_FFFF, 0],
    cite: "real-kernel.md §5.5",
}];

/// When a bit of TDX_FEATURES0 is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// In every module.
    Always,
    /// TDH.VP.INIT has version 1, whose R8 is the x2APIC id.
    VpInitVersion1,
    /// [`TdxSpec::clflush_before_alloc`].
    ClflushBeforeAlloc,
    /// [`TdxSpec::dynamic_pamt`].
    DynamicPamt,
    /// [`TdxSpec::sys_disable`].
    SysDisable,
}

/// A row of [`FEATURES0`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureRow {
    /// Bit number.
    pub bit: u8,
    /// The source's name.
    pub name: &'static str,
    /// When it is set.
    pub when: When,
    /// Source.
    pub cite: &'static str,
}

const SRC: &str = "intel/tdx-module 1.5.01 metadata_sys.c";
const fn feature(bit: u8, name: &'static str, when: When, cite: &'static str) -> FeatureRow {
    FeatureRow { bit, name, when, cite }
}

/// TDX_FEATURES0. Not in it: 8 LOCAL_ATTESTATION (a property of the processor that no sheet gives) and 47
/// UPDATE_COMPATIBILITY (it promises a flag in RCX of TDH.SYS.SHUTDOWN that this module does not know).
#[rustfmt::skip]
pub const FEATURES0: &[FeatureRow] = &[
    feature(0,  "TD_MIGRATION",                When::Always, SRC),
    feature(1,  "TD_PRESERVING",               When::Always, SRC),
    feature(2,  "SERVICE_TD",                  When::Always, SRC),
    feature(3,  "TDG_VP_RDWR",                 When::Always, SRC),
    feature(4,  "RELAXED_MEM_MNG_CONCURRENCY", When::Always, SRC),
    feature(5,  "CPUID_VIRT_GUEST_CTRL",       When::Always, SRC),
    feature(7,  "TD_PARTITIONING",             When::Always, SRC),
    feature(9,  "TD_ENTRY_ENHANCEMENTS",       When::Always, SRC),
    feature(10, "HOST_PRIORITY_LOCKS",         When::Always, SRC),
    feature(11, "CONFIG_IA32_ARCH_CAP",        When::Always, SRC),
    feature(16, "PENDING_EPT_VIOLATION_V2",    When::Always, "architecture.md §7.11"),
    feature(17, "FMS_CONFIG",                  When::Always, "architecture.md §7.11"),
    feature(18, "NO_RBP_MOD",                  When::Always, "architecture.md §7.11"),
    feature(19, "L2_TLB_INVD_OPT",             When::Always, "architecture.md §7.11"),
    feature(20, "ENUM_TOPOLOGY",               When::VpInitVersion1, "architecture.md §7.11, §10.2 D-22"),
    feature(23, "CLFLUSH_BEFORE_ALLOC",        When::ClflushBeforeAlloc, "architecture.md §7.11, §13 MC-15"),
    feature(36, "DYNAMIC_PAMT",                When::DynamicPamt, "architecture.md §7.11"),
    feature(53, "SYS_DISABLE",                 When::SysDisable, "linux-host-paths.md §16.5"),
];

impl When {
    /// Whether it holds for a module.
    pub const fn holds(self, tdx: &TdxSpec) -> bool {
        match self {
            When::Always => true,
            When::VpInitVersion1 => tdx.vp_init_version >= 1,
            When::ClflushBeforeAlloc => tdx.clflush_before_alloc,
            When::DynamicPamt => tdx.dynamic_pamt,
            When::SysDisable => tdx.sys_disable,
        }
    }
    const fn words(self) -> &'static str {
        match self {
            When::Always => "always",
            When::VpInitVersion1 => "TDH.VP.INIT has version 1",
            When::ClflushBeforeAlloc => "clflush_before_alloc",
            When::DynamicPamt => "dynamic_pamt",
            When::SysDisable => "sys_disable",
        }
    }
}

/// TDX_FEATURES0 of a module.
pub fn features0(tdx: &TdxSpec) -> u64 {
    FEATURES0.iter().filter(|row| row.when.holds(tdx)).fold(0, |bits, row| bits | 1 << row.bit)
}

/// A metadata field: `fields` fields of `elements` elements each, whose codes follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<V> {
    /// Id of the first element: code in 23:0, size in 33:32 (1, 2, 4 or 8 bytes), context in 54:52, class in 61:56, 63 set
    /// when it is not architectural.
    pub id: u64,
    /// The source's name.
    pub name: &'static str,
    /// How many fields.
    pub fields: u16,
    /// Elements per field.
    pub elements: u16,
    /// What it holds.
    pub value: V,
    /// Source.
    pub cite: &'static str,
}

const fn class(id: u64) -> u64 {
    id >> 56 & 0x3f
}
const fn code(id: u64) -> u64 {
    id & 0xff_ffff
}
const fn size(id: u64) -> u64 {
    id >> 32 & 3
}

/// Whether a field id stands for "none".
pub(crate) const fn is_none(id: u64) -> bool {
    id | CONTEXT == NO_FIELD
}
/// Whether a field id can name a single element: everything reserved is 0, as are the numbers of a sequence header
/// (intel/tdx-module 1.5.01 metadata_generic.c).
pub(crate) const fn is_single(id: u64) -> bool {
    const ZERO: u64 = 0xff << 24 | 0xf << 34 | 0x1ff << 38 | 7 << 47 | 1 << 55 | 1 << 62;
    id & ZERO == 0
}
/// A field id with this context code.
pub(crate) const fn in_context(id: u64, context: u64) -> u64 {
    id & !CONTEXT | context
}

impl<V> Field<V> {
    const fn count(&self) -> u64 {
        self.fields as u64 * self.elements as u64
    }
    /// The element of this row that an id names. Class and code decide; the size in the id does not.
    fn element(&self, id: u64) -> Option<u64> {
        let index = code(id).checked_sub(code(self.id))?;
        (class(id) == class(self.id) && index < self.count()).then_some(index)
    }
    /// A value cut to the size of an element.
    const fn cut(&self, value: u64) -> u64 {
        match size(self.id) {
            0 => value & 0xff,
            1 => value & 0xffff,
            2 => value & 0xffff_ffff,
            _ => value,
        }
    }
}

/// The row and the element that an id names.
pub(crate) fn find<V: 'static>(
    rows: impl Iterator<Item = &'static Field<V>>,
    id: u64,
) -> Option<(&'static Field<V>, u64)> {
    let mut rows = rows;
    rows.find_map(|row| Some((row, row.element(id)?)))
}

/// The element after the one that an id names; the first for "none"; "none" after the last.
pub(crate) fn following<V: 'static>(rows: impl Iterator<Item = &'static Field<V>>, id: u64) -> u64 {
    let mut rows = rows;
    if !is_none(id) {
        let Some((row, index)) = find(&mut rows, id) else { return NO_FIELD };
        if index + 1 < row.count() {
            return id + 1;
        }
    }
    rows.next().map_or(NO_FIELD, |row| row.id)
}

/// What a field of the module holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SysValue {
    /// The same in every module.
    Is(u64),
    /// Packages.
    Packages,
    /// TDX_FEATURES0.
    Features0,
    /// CMR bases, up to 32.
    CmrBase,
    /// CMR sizes, up to 32; 0 for none.
    CmrSize,
    /// Handoff version that the module writes, and the least that it takes over.
    HandoffVersion,
    /// Whether there is handoff data of a predecessor.
    HandoffValid,
    /// Its version.
    HandoffDataVersion,
    /// Bits per page in the bitmap of dynamic PAMT; no such field without it.
    BitmapBits,
    /// Configurable CPUID leaves.
    CpuidLeaf,
    /// Their configurable bits.
    CpuidBits,
}

const LOOKUP: &str = "intel/tdx-module 1.5.01 global_sys_fields_lookup.c";
const KERNEL: &str = "real-kernel.md §5.5";
const CMRS: u16 = 32;
const CONFIGS: u16 = 32;

const fn sys(id: u64, name: &'static str, value: SysValue, cite: &'static str) -> Field<SysValue> {
    Field { id, name, fields: 1, elements: 1, value, cite }
}
const fn sys_list(
    id: u64,
    name: &'static str,
    fields: u16,
    elements: u16,
    value: SysValue,
    cite: &'static str,
) -> Field<SysValue> {
    Field { id, name, fields, elements, value, cite }
}

use SysValue::Is;

/// Fields of the module, by class and code.
#[rustfmt::skip]
pub const SYS_FIELDS: &[Field<SysValue>] = &[
    sys(0x0000_0002_0000_0000, "NUM_PKGS",              SysValue::Packages, LOOKUP),
    sys(0x0800_0002_0000_0000, "VENDOR_ID",             Is(0x8086), LOOKUP),
    sys(0x0800_0001_0000_0003, "MINOR_VERSION",         Is(5), KERNEL),
    sys(0x0800_0001_0000_0004, "MAJOR_VERSION",         Is(1), KERNEL),
    sys(0x0800_0001_0000_0005, "UPDATE_VERSION",        Is(6), KERNEL),
    sys(0x0800_0001_0000_0006, "INTERNAL_VERSION",      Is(0), LOOKUP),
    sys(0x8900_0001_0000_0000, "MODULE_HV",             SysValue::HandoffVersion, LOOKUP),
    sys(0x8900_0001_0000_0001, "MIN_UPDATE_HV",         SysValue::HandoffVersion, LOOKUP),
    sys(0x8900_0000_0000_0002, "NO_DOWNGRADE",          Is(0), LOOKUP),
    sys(0x8900_0000_0000_0004, "HANDOFF_DATA_VALID",    SysValue::HandoffValid, LOOKUP),
    sys(0x8900_0001_0000_0005, "HANDOFF_DATA_HV",       SysValue::HandoffDataVersion, LOOKUP),
    sys(0x0A00_0002_0000_0000, "SYS_ATTRIBUTES",        Is(0), LOOKUP),
    sys(0x0A00_0000_0000_0001, "NUM_TDX_FEATURES",      Is(1), LOOKUP),
    sys(0x0A00_0003_0000_0008, "TDX_FEATURES0",         SysValue::Features0, KERNEL),
    sys(0x9000_0001_0000_0000, "NUM_CMRS",              Is(CMRS as u64), LOOKUP),
    sys_list(0x9000_0003_0000_0080, "CMR_BASE",         CMRS, 1, SysValue::CmrBase, LOOKUP),
    sys_list(0x9000_0003_0000_0100, "CMR_SIZE",         CMRS, 1, SysValue::CmrSize, LOOKUP),
    sys(0x9100_0001_0000_0008, "MAX_TDMRS",             Is(TDMRS_MAX as u64), KERNEL),
    sys(0x9100_0001_0000_0009, "MAX_RESERVED_PER_TDMR", Is(RESERVED_MAX as u64), KERNEL),
    sys(0x9100_0001_0000_0010, "PAMT_4K_ENTRY_SIZE",    Is(ENTRY_BYTES), KERNEL),
    sys(0x9100_0001_0000_0011, "PAMT_2M_ENTRY_SIZE",    Is(ENTRY_BYTES), KERNEL),
    sys(0x9100_0001_0000_0012, "PAMT_1G_ENTRY_SIZE",    Is(ENTRY_BYTES), KERNEL),
    sys(0x9100_0001_0000_0013, "PAMT_PAGE_BITMAP_ENTRY_BITS", SysValue::BitmapBits, "linux-host-paths.md §13; the id is assumed"),
    sys(0x9800_0001_0000_0000, "TDR_BASE_SIZE",         Is(4096), KERNEL),
    sys(0x9800_0001_0000_0100, "TDCS_BASE_SIZE",        Is(4096 * TDCS_MIN as u64), "architecture.md §7.5"),
    sys(0x9800_0001_0000_0101, "TDCS_SIZE_PER_L2_VM",   Is(4096), LOOKUP),
    sys(0x9800_0001_0000_0200, "TDVPS_BASE_SIZE",       Is(4096 * TDVPS_MIN as u64), "architecture.md §7.5"),
    sys(0x9800_0001_0000_0201, "TDVPS_SIZE_PER_L2_VM",  Is(3 * 4096), LOOKUP),
    sys(0x1900_0003_0000_0000, "ATTRIBUTES_FIXED0",     Is(ATTRIBUTES_FIXED0), LOOKUP),
    sys(0x1900_0003_0000_0001, "ATTRIBUTES_FIXED1",     Is(0), KERNEL),
    sys(0x1900_0003_0000_0002, "XFAM_FIXED0",           Is(XFAM_FIXED0), LOOKUP),
    sys(0x1900_0003_0000_0003, "XFAM_FIXED1",           Is(XFAM_FIXED1), KERNEL),
    sys(0x9900_0001_0000_0004, "NUM_CPUID_CONFIG",      Is(CPUID_CONFIGS.len() as u64), KERNEL),
    sys(0x9900_0003_0000_0006, "CONFIG_FLAGS_FIXED0",   Is(CONFIG_FLAGS_FIXED0), LOOKUP),
    sys(0x9900_0003_0000_0007, "CONFIG_FLAGS_FIXED1",   Is(0), LOOKUP),
    sys(0x9900_0001_0000_0008, "MAX_VCPUS_PER_TD",      Is(MAX_VCPUS_PER_TD), KERNEL),
    sys_list(0x9900_0003_0000_0400, "CPUID_CONFIG_LEAVES", CONFIGS, 1, SysValue::CpuidLeaf, KERNEL),
    sys_list(0x9900_0003_0000_0500, "CPUID_CONFIG_VALUES", CONFIGS, 2, SysValue::CpuidBits, KERNEL),
    sys(0x9900_0003_0000_0600, "IA32_ARCH_CAPABILITIES_CONFIG_MASK", Is(ARCH_CAPABILITIES_CONFIG), LOOKUP),
];

/// The fields that this module has.
pub(crate) fn sys_fields(m: &Module) -> impl Iterator<Item = &'static Field<SysValue>> {
    let dynamic = m.spec.tdx.dynamic_pamt;
    SYS_FIELDS.iter().filter(move |row| dynamic || row.value != SysValue::BitmapBits)
}

/// What an element of a field holds.
pub(crate) fn sys_value(m: &Module, row: &Field<SysValue>, index: u64) -> u64 {
    let at = index as usize;
    let cmr = m.spec.tdx.cmrs.get(at);
    let value = match row.value {
        Is(value) => value,
        SysValue::Packages => u64::from(m.spec.packages),
        SysValue::Features0 => features0(&m.spec.tdx),
        SysValue::CmrBase => cmr.map_or(0, |cmr| cmr.base),
        SysValue::CmrSize => cmr.map_or(0, |cmr| cmr.end.saturating_sub(cmr.base)),
        SysValue::HandoffVersion => u64::from(m.spec.tdx.handoff_version),
        SysValue::HandoffValid => u64::from(m.sys.handoff.is_some()),
        SysValue::HandoffDataVersion => m.sys.handoff.map_or(0, |h| u64::from(h.version)),
        SysValue::BitmapBits => 1,
        SysValue::CpuidLeaf => CPUID_CONFIGS.get(at).map_or(u64::MAX, |row| row.leaf),
        SysValue::CpuidBits => {
            let bits = CPUID_CONFIGS.get(at / 2).map(|row| row.bits);
            bits.and_then(|bits| bits.get(at % 2).copied()).unwrap_or(0)
        }
    };
    row.cut(value)
}

/// A list of fields as TDH.SYS.RDALL writes it to a page: its words, and the first field that did not fit. Whole fields
/// only; fields whose codes follow each other share a header (intel/tdx-module 1.5.01 metadata_generic.c).
///
/// At most `most` words, of which the first is the list's header. `None` for an id that is no field's first element.
pub(crate) fn sys_list_from(m: &Module, start: u64, most: usize) -> Option<(Vec<u64>, u64)> {
    let ids = |row: &'static Field<SysValue>| {
        (0..u64::from(row.fields)).map(move |i| (row, i * u64::from(row.elements)))
    };
    let fields: Vec<_> = sys_fields(m).flat_map(ids).collect();
    let id = |(row, first): (&Field<SysValue>, u64)| row.id + first;
    let first = if is_none(start) {
        0
    } else {
        let named = |f: &(&Field<SysValue>, u64)| {
            f.0.element(start) == Some(f.1) && size(start) == size(f.0.id)
        };
        fields.iter().position(named)?
    };
    let mut words = vec![0];
    let mut sequences = 0;
    let mut header: Option<usize> = None;
    let mut previous: Option<(&Field<SysValue>, u64)> = None;
    let mut next = NO_FIELD;
    for &(row, index) in fields.iter().skip(first) {
        let here = id((row, index));
        let elements = usize::from(row.elements);
        let follows = previous.is_some_and(|(p, i)| {
            class(p.id) == class(row.id)
                && id((p, i)) + u64::from(p.elements) == here
                && p.elements == row.elements
                && size(p.id) == size(row.id)
        });
        let room = most.saturating_sub(words.len());
        if room < elements + usize::from(!follows) {
            next = here;
            break;
        }
        if let Some(word) = header.filter(|_| follows).and_then(|at| words.get_mut(at)) {
            *word += 1 << 38;
        } else {
            header = Some(words.len());
            words.push(here | (u64::from(row.elements) - 1) << 34);
            sequences += 1;
        }
        words.extend((0..u64::from(row.elements)).map(|i| sys_value(m, row, index + i)));
        previous = Some((row, index));
    }
    let bytes = 8 * words.len() as u64;
    if let Some(word) = words.first_mut() {
        *word = bytes | sequences << 16;
    }
    Some((words, next))
}

/// What a field of a TD holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TdValue {
    /// It met a machine check.
    Fatal,
    /// TDCS pages.
    NumTdcx,
    /// CHLDCNT.
    Chldcnt,
    /// Life cycle.
    Lifecycle,
    /// Addresses of the TDCS pages, KeyID bits included.
    TdcxPa,
    /// HKID.
    Hkid,
    /// Packages that have the key.
    PkgConfigBitmap,
    /// VCPUs.
    NumVcpus,
    /// VCPUs associated with an LP.
    NumAssocVcpus,
    /// OP_STATE.
    OpState,
    /// L2 VMs.
    NumL2Vms,
    /// ATTRIBUTES.
    Attributes,
    /// XFAM.
    Xfam,
    /// MAX_VCPUS.
    MaxVcpus,
    /// 1 when guest-physical addresses have 52 bits.
    Gpaw,
    /// EPTP without KeyID bits.
    Eptp,
    /// TSC_OFFSET.
    TscOffset,
    /// TSC_MULTIPLIER.
    TscMultiplier,
    /// In units of 25 MHz.
    TscFrequency,
    /// HP_LOCK_TIMEOUT in microseconds.
    HpLockTimeout,
    /// CONFIG_FLAGS.
    ConfigFlags,
    /// TD_CTLS: bit 0 is PENDING_VE_DISABLE.
    TdCtls,
    /// TD_EPOCH.
    TdEpoch,
    /// REFCOUNTs.
    Refcount,
    /// MRTD; zero before TDH.MR.FINALIZE.
    Mrtd,
}

const TD_LOOKUP: &str = "intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c";
const fn td(id: u64, name: &'static str, value: TdValue) -> Field<TdValue> {
    Field { id, name, fields: 1, elements: 1, value, cite: TD_LOOKUP }
}

/// Fields of a TD, by class and code: those of TDR, then those of TDCS.
#[rustfmt::skip]
pub const TD_FIELDS: &[Field<TdValue>] = &[
    td(0x8010_0000_0000_0001, "FATAL",             TdValue::Fatal),
    td(0x8010_0002_0000_0002, "NUM_TDCX",          TdValue::NumTdcx),
    td(0x8010_0003_0000_0004, "CHLDCNT",           TdValue::Chldcnt),
    td(0x8010_0002_0000_0005, "LIFECYCLE_STATE",   TdValue::Lifecycle),
    Field { fields: 9, ..td(0x8010_0003_0000_0010, "TDCX_PA", TdValue::TdcxPa) },
    td(0x8110_0001_0000_0001, "HKID",              TdValue::Hkid),
    td(0x8110_0003_0000_0002, "PKG_CONFIG_BITMAP", TdValue::PkgConfigBitmap),
    td(0x9010_0002_0000_0001, "NUM_VCPUS",         TdValue::NumVcpus),
    td(0x9010_0002_0000_0002, "NUM_ASSOC_VCPUS",   TdValue::NumAssocVcpus),
    td(0x9010_0002_0000_0004, "OP_STATE",          TdValue::OpState),
    td(0x9010_0001_0000_0005, "NUM_L2_VMS",        TdValue::NumL2Vms),
    td(0x1110_0003_0000_0000, "ATTRIBUTES",        TdValue::Attributes),
    td(0x1110_0003_0000_0001, "XFAM",              TdValue::Xfam),
    td(0x1110_0002_0000_0002, "MAX_VCPUS",         TdValue::MaxVcpus),
    td(0x1110_0000_0000_0003, "GPAW",              TdValue::Gpaw),
    td(0x1110_0003_0000_0004, "EPTP",              TdValue::Eptp),
    td(0x1110_0003_0000_000A, "TSC_OFFSET",        TdValue::TscOffset),
    td(0x1110_0003_0000_000B, "TSC_MULTIPLIER",    TdValue::TscMultiplier),
    td(0x1110_0001_0000_000C, "TSC_FREQUENCY",     TdValue::TscFrequency),
    td(0x9110_0003_0000_0011, "HP_LOCK_TIMEOUT",   TdValue::HpLockTimeout),
    td(0x1110_0003_0000_0016, "CONFIG_FLAGS",      TdValue::ConfigFlags),
    td(0x1110_0003_0000_0017, "TD_CTLS",           TdValue::TdCtls),
    td(0x9210_0003_0000_0000, "TD_EPOCH",          TdValue::TdEpoch),
    Field { fields: 2, ..td(0x9210_0001_0000_0001, "REFCOUNT", TdValue::Refcount) },
    Field { elements: 6, ..td(0x1310_0003_0000_0000, "MRTD", TdValue::Mrtd) },
];

impl TdValue {
    /// Whether only the host of a debug TD may read it.
    pub const fn debug_only(self) -> bool {
        matches!(self, TdValue::TdCtls)
    }
    /// Whether the host may write it.
    pub const fn writable(self) -> bool {
        matches!(self, TdValue::HpLockTimeout)
    }
    /// The line that it lies in ([`crate::td::layout`]); the TDR's first line is read by every leaf anyway.
    pub(crate) fn line(self, tdr: sim_core::Page, tdcs: sim_core::Page) -> Option<Hpa> {
        use crate::td::layout;
        match self {
            TdValue::Fatal
            | TdValue::NumTdcx
            | TdValue::Chldcnt
            | TdValue::Lifecycle
            | TdValue::TdcxPa => None,
            TdValue::Hkid | TdValue::PkgConfigBitmap => Some(layout::tdr_keys(tdr)),
            TdValue::OpState => Some(layout::tdcs_op_state(tdcs)),
            TdValue::NumVcpus | TdValue::NumAssocVcpus => Some(layout::tdcs_vcpus(tdcs)),
            TdValue::TdEpoch | TdValue::Refcount => Some(layout::tdcs_epoch(tdcs)),
            TdValue::Mrtd => Some(layout::tdcs_mrtd(tdcs)),
            _ => Some(layout::tdcs_controls(tdcs)),
        }
    }
}

/// Picoseconds of a microsecond.
pub(crate) const MICROSECOND: u64 = 1_000_000;

/// What an element of a TD's field holds.
pub(crate) fn td_value(m: &Module, td: &Td, row: &Field<TdValue>, index: u64) -> u64 {
    let at = index as usize;
    let value = match row.value {
        TdValue::Fatal => u64::from(td.fatal),
        TdValue::NumTdcx => td.tdcs.len() as u64,
        TdValue::Chldcnt => td.chldcnt,
        TdValue::Lifecycle => u64::from(td.lifecycle.code()),
        TdValue::TdcxPa => {
            let page = td.tdcs.get(at);
            page.map_or(0, |page| m.spec.keyid.join(Addr::new(page.hpa(), td.hkid)))
        }
        TdValue::Hkid => u64::from(td.hkid.0),
        TdValue::PkgConfigBitmap => u64::from(td.keyed),
        TdValue::NumVcpus => u64::from(td.vcpus),
        TdValue::NumAssocVcpus => u64::from(td.associated),
        TdValue::OpState => u64::from(td.op_state.code()),
        TdValue::NumL2Vms => u64::from(td.l2_vms),
        TdValue::Attributes => td.attributes,
        TdValue::Xfam => td.xfam,
        TdValue::MaxVcpus => u64::from(td.max_vcpus),
        TdValue::Gpaw => td.config_flags & 1,
        TdValue::Eptp => td.sept_root().hpa().0 | 6 | u64::from(td.levels.saturating_sub(1)) << 3,
        TdValue::TscOffset => td.tsc_offset,
        // The platform's TSC is taken to run at the frequency that TD_PARAMS asked for: a factor of 1, with 48 bits behind
        // the point.
        TdValue::TscMultiplier => 1 << 48,
        TdValue::TscFrequency => u64::from(td.tsc_frequency),
        TdValue::HpLockTimeout => td.hp_lock_timeout.0 / MICROSECOND,
        TdValue::ConfigFlags => td.config_flags,
        TdValue::TdCtls => u64::from(td.attributes & ATTRIBUTE_SEPT_VE_DISABLE != 0),
        TdValue::TdEpoch => td.epoch,
        TdValue::Refcount => td.refcount.get(at).map_or(0, |n| u64::from(*n)),
        TdValue::Mrtd => {
            let digest = td.mrtd.digest().unwrap_or([0; 48]);
            let bytes = digest.iter().skip(8 * at).take(8).rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        }
    };
    row.cut(value)
}

/// The fields of a TD that its host may read.
pub(crate) fn td_fields(debug: bool) -> impl Iterator<Item = &'static Field<TdValue>> {
    TD_FIELDS.iter().filter(move |row| debug || !row.value.debug_only())
}

/// [`FEATURES0`] as a table of the book.
pub fn features_markdown() -> String {
    let mut out = String::from("| Bit | Name | Set when | Source |\n|---|---|---|---|\n");
    for FeatureRow { bit, name, when, cite } in FEATURES0 {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "| {bit} | {name} | {} | {cite} |", when.words());
    }
    out
}

fn rows<V>(out: &mut String, rows: &[Field<V>], what: impl Fn(&V) -> String) {
    for Field { id, name, fields, elements, value, cite } in rows {
        let bytes = 1 << size(*id);
        let what = what(value);
        let _ = writeln!(
            out,
            "| {name} | {id:#018X} | {bytes} | {fields} x {elements} | {what} | {cite} |"
        );
    }
}

/// [`SYS_FIELDS`] as a table of the book.
pub fn sys_fields_markdown() -> String {
    let mut out = String::from(
        "| Field | Id | Bytes | Fields x elements | Value | Source |\n|---|---|---|---|---|---|\n",
    );
    rows(&mut out, SYS_FIELDS, |value| match value {
        Is(value) => format!("{value:#X}"),
        SysValue::Packages => "packages".into(),
        SysValue::Features0 => "its own table".into(),
        SysValue::CmrBase | SysValue::CmrSize => "as the firmware lists them".into(),
        SysValue::HandoffVersion => "handoff_version".into(),
        SysValue::HandoffValid | SysValue::HandoffDataVersion => "of the predecessor".into(),
        SysValue::BitmapBits => "1; only with dynamic_pamt".into(),
        SysValue::CpuidLeaf | SysValue::CpuidBits => {
            CPUID_CONFIGS.iter().map(|c| format!("{:#X}", c.leaf)).collect::<Vec<_>>().join(", ")
        }
    });
    out
}

/// [`TD_FIELDS`] as a table of the book.
pub fn td_fields_markdown() -> String {
    let mut out = String::from(
        "| Field | Id | Bytes | Fields x elements | Host | Source |\n|---|---|---|---|---|---|\n",
    );
    rows(&mut out, TD_FIELDS, |value| {
        let words = match (value.debug_only(), value.writable()) {
            (true, _) => "reads it of a debug TD",
            (_, true) => "reads and writes it",
            _ => "reads it",
        };
        words.into()
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;
    use expect_test::expect;
    use sim_core::platform::{IntegrityMode, XtsWidth};
    use std::collections::BTreeSet;
    use std::fmt::Debug;

    fn module() -> Module {
        Module::new(Spec {
            tdx: TdxSpec::default(),
            keyid: sim_core::keyid::KeyIdLayout {
                maxpa: 52,
                keyid_bits: 7,
                private_bits: 1,
                mktme_kids: 63,
                tdx_priv_kids: 64,
            },
            integrity: IntegrityMode::Ci,
            xts: XtsWidth::Xts128,
            packages: 2,
            lps: 2,
            sub_blocks: 4,
            planted: sim_core::Planted::NONE,
        })
    }

    /// Classes in order but for the first-come order of the two halves that bit 63 makes, codes ascending and apart.
    fn apart<V: Debug + 'static>(rows: &'static [Field<V>], context: u64) {
        let mut taken = BTreeSet::new();
        for row in rows {
            assert!(row.fields > 0 && row.elements > 0 && row.elements <= 16, "{}", row.name);
            assert_eq!(row.id & CONTEXT, context, "{}", row.name);
            assert!(is_single(row.id) && !is_none(row.id), "{}", row.name);
            for i in 0..row.count() {
                assert!(taken.insert((class(row.id), code(row.id) + i)), "{} {i}", row.name);
                let (found, at) = find(rows.iter(), row.id + i).unwrap();
                assert_eq!((found.name, at), (row.name, i));
            }
            assert!(!row.cite.is_empty());
        }
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for pair in rows.windows(2) {
            let [a, b] = pair else { continue };
            let ascending = class(a.id) != class(b.id) || code(a.id) + a.count() <= code(b.id);
            assert!(ascending, "{} before {}", a.name, b.name);
        }
    }

    #[test]
    fn no_two_fields_share_an_id_and_each_is_found_by_its_own() {
        apart(SYS_FIELDS, 0);
        apart(TD_FIELDS, CONTEXT_TD);
        // Beside the last element of a list, and in another class.
        assert!(find(SYS_FIELDS.iter(), 0x9000_0003_0000_00A0).is_none());
        assert!(find(SYS_FIELDS.iter(), 0x1200_0001_0000_0008).is_none());
    }

    #[test]
    fn values_fit_the_size_that_their_id_says() {
        let m = module();
        for row in sys_fields(&m) {
            for i in 0..row.count() {
                let value = sys_value(&m, row, i);
                assert!(size(row.id) == 3 || value >> (8 << size(row.id)) == 0, "{}", row.name);
            }
        }
        let byte = Field { id: 0, ..SYS_FIELDS[0] };
        assert_eq!(
            [0, 1, 2, 3].map(|s| Field { id: s << 32, ..byte }.cut(u64::MAX).count_ones()),
            [8, 16, 32, 64]
        );
    }

    #[test]
    fn no_feature_has_two_rows_and_each_is_reached_by_some_module() {
        let bits: Vec<u8> = FEATURES0.iter().map(|row| row.bit).collect();
        assert!(bits.is_sorted_by(|a, b| a < b));
        let all = TdxSpec {
            vp_init_version: 1,
            clflush_before_alloc: true,
            dynamic_pamt: true,
            sys_disable: true,
            ..TdxSpec::default()
        };
        assert_eq!(features0(&all).count_ones() as usize, FEATURES0.len());
        let none = TdxSpec { clflush_before_alloc: false, ..TdxSpec::default() };
        let always = FEATURES0.iter().filter(|row| row.when == When::Always);
        assert_eq!(features0(&none).count_ones() as usize, always.count());
    }

    #[test]
    fn bits_that_are_reserved_in_a_field_id_are_those_of_the_source() {
        // Field code 23:0, size 33:32, increment 50, write mask 51, context 54:52, class 61:56, not architectural 63.
        let free: u64 = 0xff_ffff | 3 << 32 | 1 << 50 | 1 << 51 | 7 << 52 | 0x3f << 56 | 1 << 63;
        for bit in 0..64 {
            assert_eq!(is_single(1 << bit), free >> bit & 1 == 1, "bit {bit}");
        }
        assert!(is_none(NO_FIELD) && is_none(NO_FIELD & !CONTEXT) && !is_none(NO_FIELD - 1));
    }

    #[test]
    fn a_list_without_room_stops_before_the_first_field_that_does_not_fit_whole() {
        let m = module();
        let (all, end) = sys_list_from(&m, NO_FIELD, 512).unwrap();
        assert_eq!(end, NO_FIELD);
        let start = 0x9900_0003_0000_0500;
        // List header, sequence header, two fields of two words; then half a field.
        for words in [6, 7] {
            let (list, next) = sys_list_from(&m, start, words).unwrap();
            assert_eq!(list.len(), 6);
            assert_eq!(list[..2], [48 | 1 << 16, start | 1 << 34 | 1 << 38]);
            assert_eq!(list[2..], [0x00FF_FFFF, 0, 0, 0]);
            assert_eq!(next, start + 4);
        }
        // Nothing fits: an empty list.
        assert_eq!(sys_list_from(&m, start, 3), Some((vec![8], start)));
        // Whatever the room, one list goes on where the other stopped, and no value is lost.
        for most in [4, 5, 9, 40, 100] {
            let (mut at, mut values) = (NO_FIELD, Vec::new());
            loop {
                let (list, next) = sys_list_from(&m, at, most).unwrap();
                values.extend(elements(&list));
                at = next;
                if next == NO_FIELD {
                    break;
                }
            }
            assert_eq!(values, elements(&all), "{most}");
        }
        assert_eq!(sys_list_from(&m, start + 1, 512), None);
        assert_eq!(sys_list_from(&m, start & !(1 << 32), 512), None);
    }

    /// (Id, value) of what is in a list.
    fn elements(list: &[u64]) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut rest = list[1..].iter();
        while let Some(header) = rest.next() {
            let count = ((header >> 34 & 15) + 1) * ((header >> 38 & 511) + 1);
            let first = header & !(15 << 34 | 511 << 38);
            out.extend((0..count).map(|i| (first + i, *rest.next().unwrap())));
        }
        out
    }

    #[test]
    fn the_fields_as_the_book_prints_them() {
        expect![[r#"
            | Bit | Name | Set when | Source |
            |---|---|---|---|
            | 0 | TD_MIGRATION | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 1 | TD_PRESERVING | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 2 | SERVICE_TD | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 3 | TDG_VP_RDWR | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 4 | RELAXED_MEM_MNG_CONCURRENCY | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 5 | CPUID_VIRT_GUEST_CTRL | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 7 | TD_PARTITIONING | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 9 | TD_ENTRY_ENHANCEMENTS | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 10 | HOST_PRIORITY_LOCKS | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 11 | CONFIG_IA32_ARCH_CAP | always | intel/tdx-module 1.5.01 metadata_sys.c |
            | 16 | PENDING_EPT_VIOLATION_V2 | always | architecture.md §7.11 |
            | 17 | FMS_CONFIG | always | architecture.md §7.11 |
            | 18 | NO_RBP_MOD | always | architecture.md §7.11 |
            | 19 | L2_TLB_INVD_OPT | always | architecture.md §7.11 |
            | 20 | ENUM_TOPOLOGY | TDH.VP.INIT has version 1 | architecture.md §7.11, §10.2 D-22 |
            | 23 | CLFLUSH_BEFORE_ALLOC | clflush_before_alloc | architecture.md §7.11, §13 MC-15 |
            | 36 | DYNAMIC_PAMT | dynamic_pamt | architecture.md §7.11 |
            | 53 | SYS_DISABLE | sys_disable | linux-host-paths.md §16.5 |
        "#]]
        .assert_eq(&features_markdown());
        expect![[r#"
            | Field | Id | Bytes | Fields x elements | Value | Source |
            |---|---|---|---|---|---|
            | NUM_PKGS | 0x0000000200000000 | 4 | 1 x 1 | packages | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | VENDOR_ID | 0x0800000200000000 | 4 | 1 x 1 | 0x8086 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | MINOR_VERSION | 0x0800000100000003 | 2 | 1 x 1 | 0x5 | real-kernel.md §5.5 |
            | MAJOR_VERSION | 0x0800000100000004 | 2 | 1 x 1 | 0x1 | real-kernel.md §5.5 |
            | UPDATE_VERSION | 0x0800000100000005 | 2 | 1 x 1 | 0x6 | real-kernel.md §5.5 |
            | INTERNAL_VERSION | 0x0800000100000006 | 2 | 1 x 1 | 0x0 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | MODULE_HV | 0x8900000100000000 | 2 | 1 x 1 | handoff_version | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | MIN_UPDATE_HV | 0x8900000100000001 | 2 | 1 x 1 | handoff_version | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | NO_DOWNGRADE | 0x8900000000000002 | 1 | 1 x 1 | 0x0 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | HANDOFF_DATA_VALID | 0x8900000000000004 | 1 | 1 x 1 | of the predecessor | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | HANDOFF_DATA_HV | 0x8900000100000005 | 2 | 1 x 1 | of the predecessor | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | SYS_ATTRIBUTES | 0x0A00000200000000 | 4 | 1 x 1 | 0x0 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | NUM_TDX_FEATURES | 0x0A00000000000001 | 1 | 1 x 1 | 0x1 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | TDX_FEATURES0 | 0x0A00000300000008 | 8 | 1 x 1 | its own table | real-kernel.md §5.5 |
            | NUM_CMRS | 0x9000000100000000 | 2 | 1 x 1 | 0x20 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | CMR_BASE | 0x9000000300000080 | 8 | 32 x 1 | as the firmware lists them | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | CMR_SIZE | 0x9000000300000100 | 8 | 32 x 1 | as the firmware lists them | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | MAX_TDMRS | 0x9100000100000008 | 2 | 1 x 1 | 0x40 | real-kernel.md §5.5 |
            | MAX_RESERVED_PER_TDMR | 0x9100000100000009 | 2 | 1 x 1 | 0x10 | real-kernel.md §5.5 |
            | PAMT_4K_ENTRY_SIZE | 0x9100000100000010 | 2 | 1 x 1 | 0x10 | real-kernel.md §5.5 |
            | PAMT_2M_ENTRY_SIZE | 0x9100000100000011 | 2 | 1 x 1 | 0x10 | real-kernel.md §5.5 |
            | PAMT_1G_ENTRY_SIZE | 0x9100000100000012 | 2 | 1 x 1 | 0x10 | real-kernel.md §5.5 |
            | PAMT_PAGE_BITMAP_ENTRY_BITS | 0x9100000100000013 | 2 | 1 x 1 | 1; only with dynamic_pamt | linux-host-paths.md §13; the id is assumed |
            | TDR_BASE_SIZE | 0x9800000100000000 | 2 | 1 x 1 | 0x1000 | real-kernel.md §5.5 |
            | TDCS_BASE_SIZE | 0x9800000100000100 | 2 | 1 x 1 | 0x6000 | architecture.md §7.5 |
            | TDCS_SIZE_PER_L2_VM | 0x9800000100000101 | 2 | 1 x 1 | 0x1000 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | TDVPS_BASE_SIZE | 0x9800000100000200 | 2 | 1 x 1 | 0x6000 | architecture.md §7.5 |
            | TDVPS_SIZE_PER_L2_VM | 0x9800000100000201 | 2 | 1 x 1 | 0x3000 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | ATTRIBUTES_FIXED0 | 0x1900000300000000 | 8 | 1 x 1 | 0x8000000070000001 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | ATTRIBUTES_FIXED1 | 0x1900000300000001 | 8 | 1 x 1 | 0x0 | real-kernel.md §5.5 |
            | XFAM_FIXED0 | 0x1900000300000002 | 8 | 1 x 1 | 0x6DBE7 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | XFAM_FIXED1 | 0x1900000300000003 | 8 | 1 x 1 | 0x3 | real-kernel.md §5.5 |
            | NUM_CPUID_CONFIG | 0x9900000100000004 | 2 | 1 x 1 | 0x1 | real-kernel.md §5.5 |
            | CONFIG_FLAGS_FIXED0 | 0x9900000300000006 | 8 | 1 x 1 | 0x7 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | CONFIG_FLAGS_FIXED1 | 0x9900000300000007 | 8 | 1 x 1 | 0x0 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
            | MAX_VCPUS_PER_TD | 0x9900000100000008 | 2 | 1 x 1 | 0x240 | real-kernel.md §5.5 |
            | CPUID_CONFIG_LEAVES | 0x9900000300000400 | 8 | 32 x 1 | 0xFFFFFFFF80000008 | real-kernel.md §5.5 |
            | CPUID_CONFIG_VALUES | 0x9900000300000500 | 8 | 32 x 2 | 0xFFFFFFFF80000008 | real-kernel.md §5.5 |
            | IA32_ARCH_CAPABILITIES_CONFIG_MASK | 0x9900000300000600 | 8 | 1 x 1 | 0x1180010 | intel/tdx-module 1.5.01 global_sys_fields_lookup.c |
        "#]].assert_eq(&sys_fields_markdown());
        expect![[r#"
            | Field | Id | Bytes | Fields x elements | Host | Source |
            |---|---|---|---|---|---|
            | FATAL | 0x8010000000000001 | 1 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | NUM_TDCX | 0x8010000200000002 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | CHLDCNT | 0x8010000300000004 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | LIFECYCLE_STATE | 0x8010000200000005 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TDCX_PA | 0x8010000300000010 | 8 | 9 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | HKID | 0x8110000100000001 | 2 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | PKG_CONFIG_BITMAP | 0x8110000300000002 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | NUM_VCPUS | 0x9010000200000001 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | NUM_ASSOC_VCPUS | 0x9010000200000002 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | OP_STATE | 0x9010000200000004 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | NUM_L2_VMS | 0x9010000100000005 | 2 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | ATTRIBUTES | 0x1110000300000000 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | XFAM | 0x1110000300000001 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | MAX_VCPUS | 0x1110000200000002 | 4 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | GPAW | 0x1110000000000003 | 1 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | EPTP | 0x1110000300000004 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TSC_OFFSET | 0x111000030000000A | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TSC_MULTIPLIER | 0x111000030000000B | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TSC_FREQUENCY | 0x111000010000000C | 2 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | HP_LOCK_TIMEOUT | 0x9110000300000011 | 8 | 1 x 1 | reads and writes it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | CONFIG_FLAGS | 0x1110000300000016 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TD_CTLS | 0x1110000300000017 | 8 | 1 x 1 | reads it of a debug TD | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | TD_EPOCH | 0x9210000300000000 | 8 | 1 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | REFCOUNT | 0x9210000100000001 | 2 | 2 x 1 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
            | MRTD | 0x1310000300000000 | 8 | 1 x 6 | reads it | intel/tdx-module 1.5.01 tdr_tdcs_fields_lookup.c |
        "#]].assert_eq(&td_fields_markdown());
    }
}
