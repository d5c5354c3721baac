//! What the module holds of a TD and of a VCPU: TDR, TDCS and TDVPS (architecture.md §7.5).

use crate::lock::Lock;
use crate::measure::Mrtd;
use crate::op_state::{Lifecycle, OpState};
use serde::{Deserialize, Serialize};
use sim_core::{Hpa, KeyId, Page, Ps};

/// Fewest TDCS pages of a TD that can be initialised (architecture.md §7.5).
pub const TDCS_MIN: usize = 6;
/// Most TDCS pages: three more for L2 VMs.
pub const TDCS_MAX: usize = 9;
/// Fewest pages of a VCPU without L2 VMs.
pub const TDVPS_MIN: usize = 6;
/// Most pages of a VCPU.
pub const TDVPS_MAX: usize = 15;
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

/// State of a VCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VcpuState {
    /// Before TDH.VP.INIT.
    Uninitialized,
    /// It can be entered.
    Ready,
    /// It is in the TD.
    Active,
    /// It can never run again.
    Disabled,
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
    /// VCPU_EPOCH.
    pub epoch: u64,
    /// Index among the TD's VCPUs.
    pub index: u32,
    /// The TSC at its last exit.
    pub last_tsc: u64,
    /// Whether it has not run since it was associated with its LP.
    pub fresh: bool,
    /// What the VMM gave as initial RCX; the guest finds it in RCX and R8.
    pub initial_rcx: u64,
    /// Whether it left the TD by a TDCALL that the next entry answers.
    pub in_call: bool,
    /// Since when its TDCALLs have kept meeting locks that are kept for the host.
    pub busy_since: Option<Ps>,
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
