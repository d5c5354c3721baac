//! What the module holds of a TD and of a VCPU: TDR, TDCS and TDVPS (architecture.md §7.5).

use crate::lock::Lock;
use crate::measure::Mrtd;
use crate::op_state::{Lifecycle, OpState};
use serde::{Deserialize, Serialize};
use sim_core::tdx::{ExitReason, Status};
use sim_core::{Hpa, KeyId, Page, Ps};

/// Fewest TDCS pages of a TD that can be initialised (architecture.md §7.5).
pub const TDCS_MIN: usize = 6;
/// Most TDCS pages: three more for L2 VMs.
pub const TDCS_MAX: usize = 9;
/// Fewest pages of a VCPU without L2 VMs.
pub const TDVPS_MIN: usize = 6;
/// Most pages of a VCPU.
pub const TDVPS_MAX: usize = 15;
/// Which page of a VCPU is its VMCS (intel/tdx-module 1.5.01 tdx_tdvps.h).
pub const VMCS: usize = 1;
/// Which pages of a VCPU hold MSR bitmaps of L2 VMs: all ones (architecture.md §7.5; intel/tdx-module 1.5.01
/// tdx_tdvps.h).
pub const L2_MSR_BITMAPS: [usize; 6] = [7, 8, 10, 11, 13, 14];
/// Which TDCS page holds the MSR bitmaps: all ones (architecture.md §7.5).
pub const MSR_BITMAPS: usize = 2;
/// Which TDCS page is the root of the Secure-EPT (architecture.md §7.5).
pub const SEPT_ROOT: usize = 3;
/// ATTRIBUTES bit 0: a debug TD (architecture.md §7.9 "TDH.MEM.RD"; the bit is that of the ABI's ATTRIBUTES.DEBUG).
pub const ATTRIBUTE_DEBUG: u64 = 1;
/// ATTRIBUTES bit 28: SEPT_VE_DISABLE, an EPT violation on a pending page leaves the TD instead of raising #VE
/// (architecture.md §7.6 "PENDING_VE_DISABLE").
pub const ATTRIBUTE_SEPT_VE_DISABLE: u64 = 1 << 28;

/// A TD: its TDR, and the part of its TDCS that leaves decide on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Td {
    /// Its HKID. Stale once the life cycle is TEARDOWN.
    pub hkid: KeyId,
    /// Life cycle.
    pub lifecycle: Lifecycle,
    /// It met a machine check (architecture.md §6.3).
    pub fatal: bool,
    /// Packages whose key is configured: bit i is package i.
    pub keyed: u8,
    /// CHLDCNT: how many 4 KiB pages it owns besides its TDR.
    pub chldcnt: u64,
    /// TDCS pages.
    pub tdcs: Vec<Page>,

    /// OP_STATE.
    pub op_state: OpState,
    /// Lock of OP_STATE, of the host-priority kind.
    pub op_lock: Lock,
    /// Lock of the Secure-EPT tree.
    pub tree_lock: Lock,
    /// Lock of the epoch.
    pub epoch_lock: Lock,
    /// TD_EPOCH.
    pub epoch: u64,
    /// How many VCPUs are in the TD since an even and since an odd epoch.
    pub refcount: [u32; 2],
    /// ATTRIBUTES.
    pub attributes: u64,
    /// XFAM.
    pub xfam: u64,
    /// Guest-physical address width: 48 or 52.
    pub gpaw: u8,
    /// Levels of the Secure-EPT: 4 or 5.
    pub levels: u8,
    /// MAX_VCPUS.
    pub max_vcpus: u16,
    /// NUM_L2_VMS.
    pub l2_vms: u8,
    /// CONFIG_FLAGS: bit 0 GPAW, 1 FLEXIBLE_PENDING_VE, 2 NO_RBP_MOD.
    pub config_flags: u64,
    /// TSC_FREQUENCY in units of 25 MHz.
    pub tsc_frequency: u16,
    /// TSC_OFFSET: the virtual TSC was 0 at TDH.MNG.INIT.
    pub tsc_offset: u64,
    /// VCPUs created by TDH.VP.INIT.
    pub vcpus: u32,
    /// VCPUs associated with an LP.
    pub associated: u32,
    /// The measurement.
    pub mrtd: Mrtd,
    /// How long a VCPU's TDCALLs may keep meeting locks kept for the host.
    pub hp_lock_timeout: Ps,
}

impl Td {
    /// The page of the Secure-EPT root; page 0 before it is there.
    pub fn sept_root(&self) -> Page {
        self.tdcs.get(SEPT_ROOT).copied().unwrap_or(Page(0))
    }
    /// The SHARED bit of its guest-physical addresses.
    pub const fn shared_bit(&self) -> u64 {
        1 << (self.gpaw - 1)
    }
    /// Whether tracking of a page blocked in `bepoch` has finished (architecture.md §7.8, verification.md E1). The bits
    /// of migration are not modelled.
    pub fn is_tracked(&self, bepoch: u64) -> bool {
        let last = self.epoch.wrapping_sub(1);
        let running = self.refcount.get((bepoch & 1) as usize).copied().unwrap_or(0);
        bepoch < last || bepoch == last && running == 0
    }
}

/// State of a VCPU, with its number in TDVPS (intel/tdx-module 1.5.01 tdx_tdvps.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VcpuState {
    /// 0: before TDH.VP.INIT.
    Uninitialized = 0,
    /// 2: it can be entered.
    Ready = 2,
    /// 4: it is in the TD, or was when its TD became fatal.
    Active = 4,
    /// 8: it can never run again.
    Disabled = 8,
}

/// How a VCPU left the TD last (intel/tdx-module 1.5.01 tdx_tdvps.h, td_exit.c).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LastExit {
    /// 0: not by its own will; what it did is done again.
    AsyncFault = 0,
    /// 1: behind a TDCALL that has its answer; the VMM may set the hint bit of that answer (RCX bit 52).
    AsyncTrap = 1,
    /// 2: by TDG.VP.VMCALL; the next entry answers it.
    Vmcall = 2,
}

/// What TDG.VP.VEINFO.GET returns, once, about the last #VE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VeInfo {
    /// The exit reason that the #VE stands for.
    pub reason: ExitReason,
    /// Exit qualification: bits 2:0 are the access, as in [`crate::VmExit::EptViolation`].
    pub qualification: u64,
    /// Guest-physical address. (The guest-linear one is not modelled and reads as 0.)
    pub gpa: u64,
}

/// The fields of a VCPU that the VMM writes with TDH.VP.WR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VmmControls {
    /// Posted-interrupt notification vector; all ones before it is written.
    pub posted_vector: u16,
    /// Posted-interrupt descriptor, 64-byte aligned; [`VmmControls::NO_DESCRIPTOR`] before it is written.
    pub posted_descriptor: u64,
    /// Pin-based controls: of them only bit 7, "process posted interrupts", is the VMM's.
    pub pin_controls: u32,
    /// Root page of the VMM's EPT for shared addresses; 0 before it is written.
    pub shared_ept: u64,
    /// An NMI that the VMM wants the guest to get.
    pub pend_nmi: bool,
}

impl VmmControls {
    /// No descriptor: all ones, as far as the VMM can write them.
    pub const NO_DESCRIPTOR: u64 = !0x3f;
    /// As TDH.VP.INIT leaves them.
    pub const INITIAL: VmmControls = VmmControls {
        posted_vector: u16::MAX,
        posted_descriptor: Self::NO_DESCRIPTOR,
        pin_controls: 0,
        shared_ept: 0,
        pend_nmi: false,
    };
}

/// A VCPU: the part of its TDVPS that leaves decide on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vcpu {
    /// Its TD.
    pub tdr: Page,
    /// Its pages, the TDVPR first.
    pub pages: Vec<Page>,
    /// State.
    pub state: VcpuState,
    /// With which LP it is associated.
    pub lp: Option<u16>,
    /// VCPU_EPOCH: TD_EPOCH at its last entry; 0 before.
    pub epoch: u64,
    /// Index among the TD's VCPUs.
    pub index: u32,
    /// x2APIC id, where the VMM gave one (version 1 of TDH.VP.INIT).
    pub x2apic: Option<u32>,
    /// The TSC at its last exit.
    pub last_tsc: u64,
    /// What the VMM gave as initial RCX; the guest finds it in RCX and R8.
    pub initial_rcx: u64,
    /// How it left the TD last.
    pub last_exit: LastExit,
    /// What its last TDCALL finds in RAX, when the TD left in between.
    pub rax: Status,
    /// RCX, RDX, R8 to R13 of the guest at its last TDCALL.
    pub regs: [u64; 8],
    /// The #VE that it has not asked about yet.
    pub ve: Option<VeInfo>,
    /// Since when its TDCALLs have kept meeting locks that are kept for the host.
    pub busy_since: Option<Ps>,
    /// What the VMM wrote with TDH.VP.WR.
    pub controls: VmmControls,
}

impl Vcpu {
    /// A VCPU of one page, as TDH.VP.CREATE makes it.
    pub const fn new(tdr: Page, pages: Vec<Page>) -> Vcpu {
        Vcpu {
            tdr,
            pages,
            state: VcpuState::Uninitialized,
            lp: None,
            epoch: 0,
            index: 0,
            x2apic: None,
            last_tsc: 0,
            initial_rcx: 0,
            last_exit: LastExit::AsyncFault,
            rax: Status::SUCCESS,
            regs: [0; 8],
            ve: None,
            busy_since: None,
            controls: VmmControls::INITIAL,
        }
    }
    /// The page of its VMCS; the TDVPR before it has one.
    pub fn vmcs(&self) -> Page {
        self.pages.get(VMCS).or(self.pages.first()).copied().unwrap_or(Page(0))
    }
    /// Bytes 0 to 7 of its management line: state, last exit, LP, number of pages.
    pub(crate) fn management_word(&self) -> u64 {
        let lp = self.lp.map_or(u64::from(u16::MAX), u64::from);
        self.state as u64
            | (self.last_exit as u64) << 8
            | (self.pages.len() as u64) << 16
            | lp << 32
    }
}

/// Where fields of the control structures lie. The sources give no offsets (architecture.md §12); what matters is which
/// fields share a line. All assumed.
pub mod layout {
    use super::{Hpa, Page};

    const fn line(page: Page, index: u64) -> Hpa {
        Hpa((page.0 << 12) + index * 64)
    }
    /// TDR: life cycle, fatal, CHLDCNT, TDCS pages.
    pub const fn tdr_management(tdr: Page) -> Hpa {
        line(tdr, 0)
    }
    /// TDR: HKID and the packages that have its key.
    pub const fn tdr_keys(tdr: Page) -> Hpa {
        line(tdr, 1)
    }
    /// TDCS: OP_STATE and its lock.
    pub const fn tdcs_op_state(tdcs: Page) -> Hpa {
        line(tdcs, 0)
    }
    /// TDCS: numbers of VCPUs.
    pub const fn tdcs_vcpus(tdcs: Page) -> Hpa {
        line(tdcs, 1)
    }
    /// TDCS: REFCOUNTs, in the line of the epoch.
    pub const fn tdcs_refcounts(tdcs: Page) -> Hpa {
        Hpa(tdcs_epoch(tdcs).0 + 16)
    }
    /// TDCS: TD_EPOCH, its lock, REFCOUNTs.
    pub const fn tdcs_epoch(tdcs: Page) -> Hpa {
        line(tdcs, 2)
    }
    /// TDCS: Secure-EPT root and the lock of the tree.
    pub const fn tdcs_tree(tdcs: Page) -> Hpa {
        line(tdcs, 3)
    }
    /// TDCS: attributes and execution controls.
    pub const fn tdcs_controls(tdcs: Page) -> Hpa {
        line(tdcs, 4)
    }
    /// TDCS: MRTD.
    pub const fn tdcs_mrtd(tdcs: Page) -> Hpa {
        line(tdcs, 5)
    }
    /// TDVPS: state, LP, epoch.
    pub const fn tdvps_management(tdvpr: Page) -> Hpa {
        line(tdvpr, 0)
    }
    /// TDVPS: general registers of the guest, two lines.
    pub const fn tdvps_registers(tdvpr: Page, half: u64) -> Hpa {
        line(tdvpr, 1 + half)
    }
    /// TDVPS: the VMCS, in the second page.
    pub const fn tdvps_vmcs(page: Page) -> Hpa {
        line(page, 0)
    }
    /// TDVPS: #VE information.
    pub const fn tdvps_ve_info(tdvpr: Page) -> Hpa {
        line(tdvpr, 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn td(epoch: u64, refcount: [u32; 2]) -> Td {
        Td {
            hkid: KeyId(33),
            lifecycle: Lifecycle::KeysConfigured,
            fatal: false,
            keyed: 1,
            chldcnt: 0,
            tdcs: Vec::new(),
            op_state: OpState::Runnable,
            op_lock: Lock::default(),
            tree_lock: Lock::default(),
            epoch_lock: Lock::default(),
            epoch,
            refcount,
            attributes: 0,
            xfam: 3,
            gpaw: 48,
            levels: 4,
            max_vcpus: 1,
            l2_vms: 0,
            config_flags: 0,
            tsc_frequency: 40,
            tsc_offset: 0,
            vcpus: 0,
            associated: 0,
            mrtd: Mrtd::new(),
            hp_lock_timeout: Ps::ZERO,
        }
    }

    #[test]
    fn tracking_is_finished_two_epochs_on_or_one_with_nobody_left() {
        // architecture.md §7.8: epoch 7, so 6 is the previous one.
        let quiet = td(7, [0, 3]);
        assert!(!quiet.is_tracked(7) && quiet.is_tracked(6) && quiet.is_tracked(5));
        let running = td(7, [1, 0]);
        assert!(!running.is_tracked(7) && !running.is_tracked(6) && running.is_tracked(5));
    }
}
