//! What a TDX module's structures say at a moment, as plain data: what the monitor and the invariants of
//! groups T, H and E look at.
//!
//! Whoever runs a module fills a view from it; nothing here knows how a module keeps its structures. Numbers are those of
//! architecture.md §7.1, §7.4 and §7.5, as the sheet has them, so that neither side has to share the other's types.
//!
//! What a structure said before it had been initialised, and what the TDCS, TDVPS and Secure-EPT of a TD in TEARDOWN say
//! (their key is gone), means nothing; the judges do not look at it.

use serde::{Deserialize, Serialize};
use sim_core::tdx::PageType;
use sim_core::{KeyId, Page};
use std::collections::{BTreeMap, BTreeSet};

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ModuleView {
    /// Module-global data.
    pub sys: SysView,
    /// Key ownership table; an HKID that is absent is FREE with an empty bitmap (architecture.md §7.5).
    pub kot: BTreeMap<KeyId, KotView>,
    /// TDMRs, in the order of TDH.SYS.CONFIG.
    pub tdmrs: Vec<TdmrView>,
    /// PAMT entries whose page type is not PT_NDA, by (level, first page): level 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB. The
    /// PT_RSVD entries of reserved areas are left out: they follow from [`TdmrView::reserved`].
    pub pamt: BTreeMap<(u8, Page), PamtView>,
    /// TDs by their TDR page.
    pub tds: BTreeMap<Page, TdView>,
    /// VCPUs by their TDVPR page.
    pub vcpus: BTreeMap<Page, VcpuView>,
    /// Secure-EPT pages and the TD of each.
    pub tables: BTreeMap<Page, Page>,
    /// Secure-EPT entries that are not FREE, by (Secure-EPT page, index), without the bits TDEL (11) and TDHP (52): those are
    /// locks (architecture.md §7.6).
    pub sept: BTreeMap<(Page, u16), u64>,
    /// Secure-EPT entries that are kept for the host: those whose bit TDHP (52) is set, FREE ones too (architecture.md §7.2).
    pub kept: BTreeSet<(Page, u16)>,
    /// Per logical processor, by its number.
    pub lps: Vec<LpView>,
}

/// Module-global data (architecture.md §7.1, §7.5).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SysView {
    /// 0 SYSINIT_PENDING, 1 SYSINIT_DONE, 2 SYSCONFIG_DONE, 3 SYS_READY, 4 SYS_SHUTDOWN.
    pub state: u8,
    /// TDX is disabled on the platform: every SEAMCALL fails with VMfailInvalid (architecture.md §6.3).
    pub disabled: bool,
    /// The HKID of PAMT and TDRs.
    pub global_hkid: Option<KeyId>,
    /// Packages whose global key is configured: bit i is package i.
    pub keyed: u8,
    /// Per package, TDH.PHYMEM.CACHE.WB that was interrupted: the HKIDs that were FLUSHED when it started. `None` when none
    /// is to be resumed.
    pub cache_wb: Vec<Option<BTreeSet<KeyId>>>,
}

/// An entry of the key ownership table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KotView {
    /// 0 FREE, 1 ASSIGNED, 2 FLUSHED, 3 RESERVED.
    pub state: u8,
    /// Packages whose caches may still hold dirty lines of it: bit i is package i.
    pub wbinvd_bitmap: u8,
}

/// A TDMR (architecture.md §7.4).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TdmrView {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Base and size of its PAMT arrays by level, in bytes. With dynamic PAMT, level 0 is the bitmap.
    pub pamt: [(u64, u64); 3],
    /// Reserved areas: offset from `base` and size, in bytes.
    pub reserved: Vec<(u64, u64)>,
    /// First address that TDH.SYS.TDMR.INIT has not initialised yet.
    pub next: u64,
    /// Dynamic PAMT: 4K entries exist only where TDH.PHYMEM.PAMT.ADD has given pages for them.
    pub dynamic: bool,
}

/// A PAMT entry (architecture.md §7.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PamtView {
    /// Page type.
    pub page_type: PageType,
    /// The owner's TDR page.
    pub owner: Page,
    /// BEPOCH: TD_EPOCH when the page was blocked last.
    pub bepoch: u64,
}

/// A TD (architecture.md §7.5, §7.8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TdView {
    /// Its HKID; stale in TEARDOWN.
    pub hkid: KeyId,
    /// 0 HKID_ASSIGNED, 1 KEYS_CONFIGURED, 2 BLOCKED, 3 TEARDOWN.
    pub life_cycle: u8,
    /// It met a machine check.
    pub fatal: bool,
    /// Packages whose key is configured: bit i is package i.
    pub keyed: u8,
    /// CHLDCNT: 4 KiB pages it owns besides its TDR.
    pub chldcnt: u64,
    /// TDCS pages, in the order of TDH.MNG.ADDCX; number 3 is the Secure-EPT root.
    pub tdcs: Vec<Page>,
    /// OP_STATE, 0 to 10.
    pub op_state: u8,
    /// TD_EPOCH.
    pub epoch: u64,
    /// VCPUs in the TD since an even and since an odd epoch.
    pub refcount: [u32; 2],
    /// ATTRIBUTES.
    pub attributes: u64,
    /// Guest-physical address width: 48 or 52. The SHARED bit is bit `gpaw` − 1.
    pub gpaw: u8,
    /// Levels of the Secure-EPT: 4 or 5.
    pub levels: u8,
    /// NUM_L2_VMS.
    pub l2_vms: u8,
    /// MAX_VCPUS.
    pub max_vcpus: u16,
    /// VCPUs created by TDH.VP.INIT.
    pub vcpus: u32,
    /// VCPUs associated with an LP.
    pub associated: u32,
}

/// A VCPU (architecture.md §7.5, §7.8).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VcpuView {
    /// Its TD.
    pub tdr: Page,
    /// Its TDVPS pages, the TDVPR first.
    pub pages: Vec<Page>,
    /// 0 VCPU_UNINITIALIZED, 2 VCPU_READY, 4 VCPU_ACTIVE, 8 VCPU_DISABLED.
    pub state: u8,
    /// The LP with which it is associated.
    pub lp: Option<u16>,
    /// VCPU_EPOCH: TD_EPOCH at its last entry; 0 before.
    pub epoch: u64,
}

/// What is known of a logical processor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LpView {
    /// Its package.
    pub package: u8,
    /// TDH.SYS.LP.INIT is done.
    pub initialized: bool,
    /// The VCPU that is in a TD here: behind TDH.VP.ENTER and not yet out.
    pub inside: Option<Page>,
    /// Translations that its TLB holds: (TDR page, guest-linear page number, page of memory), of private memory only.
    pub tlb: BTreeSet<(Page, u64, Page)>,
}
