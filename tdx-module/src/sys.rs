//! The module's global data: state, key ownership table, cache write-back (architecture.md §7.1, §7.5).
//!
//! It lies in SEAMRR, which nobody else can access (architecture.md §7.5 "Module code/stack"); its lines are not touched.

use crate::Spec;
use crate::lock::Lock;
use crate::op_state::KotState;
use serde::{Deserialize, Serialize};
use sim_core::KeyId;

/// Global state of the module (architecture.md §7.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SysState {
    /// 0: before TDH.SYS.INIT.
    SysInitPending,
    /// 1: before TDH.SYS.CONFIG.
    SysInitDone,
    /// 2: before the last TDH.SYS.KEY.CONFIG.
    SysConfigDone,
    /// 3: TDs can be made.
    SysReady,
    /// 4: after TDH.SYS.SHUTDOWN.
    SysShutdown,
}

impl SysState {
    /// The source's name.
    pub const fn name(self) -> &'static str {
        match self {
            SysState::SysInitPending => "SYSINIT_PENDING",
            SysState::SysInitDone => "SYSINIT_DONE",
            SysState::SysConfigDone => "SYSCONFIG_DONE",
            SysState::SysReady => "SYS_READY",
            SysState::SysShutdown => "SYS_SHUTDOWN",
        }
    }
}

/// An entry of the key ownership table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KotEntry {
    /// Who has the HKID.
    pub state: KotState,
    /// Packages whose caches may still hold dirty lines of it.
    pub wbinvd_bitmap: u8,
}

/// TDH.PHYMEM.CACHE.WB on one package.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WbCache {
    pub(crate) lock: Lock,
    /// The sub-block to go on with.
    pub(crate) resume: Option<u32>,
    /// HKIDs that were FLUSHED when it started.
    pub(crate) flushed: Vec<u16>,
}

/// What TDH.SYS.SHUTDOWN keeps for the next module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Handoff {
    pub(crate) version: u16,
}

/// What a module that was shut down has left, beside the TDs and PAMTs in memory: what TDH.SYS.UPDATE of the next one
/// takes over (intel/tdx-module 1.5.01 tdx_global_data.h).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Predecessor {
    pub(crate) kot: Vec<KotEntry>,
    pub(crate) wbcache: Vec<WbCache>,
    pub(crate) global_hkid: Option<KeyId>,
    pub(crate) keyed: u8,
    pub(crate) tdmrs: Vec<crate::pamt::Tdmr>,
}

/// How far TDH.SYS.DISABLE has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Disabling {
    /// It was called and could not begin, because others were in the module.
    Wanted,
    /// It clears the pages that the module has; the next is at or above this address.
    Pages(u64),
    /// It clears the PAMTs: of this TDMR, this of the three arrays, from this offset on.
    Pamt { tdmr: u16, array: u8, offset: u64 },
}

/// The module's global data.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Sys {
    pub(crate) state: SysState,
    pub(crate) lock: Lock,
    pub(crate) kot: Vec<KotEntry>,
    pub(crate) kot_lock: Lock,
    pub(crate) global_hkid: Option<KeyId>,
    /// Packages whose global key is configured.
    pub(crate) keyed: u8,
    pub(crate) wbcache: Vec<WbCache>,
    /// Registers of the first LP, which others must equal (architecture.md §7.9 "TDH.SYS.LP.INIT").
    pub(crate) first: Option<FirstLp>,
    /// Valid handoff data.
    pub(crate) handoff: Option<Handoff>,
    /// What it holds, once another module is in place.
    pub(crate) predecessor: Option<Box<Predecessor>>,
    /// How far TDH.SYS.DISABLE has come, once it was called.
    pub(crate) disabling: Option<Disabling>,
}

/// What TDH.SYS.INIT found on its LP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FirstLp {
    pub(crate) msrs: Vec<(u32, u64)>,
    pub(crate) cpuid: u64,
}

impl Sys {
    pub(crate) fn new(spec: &Spec) -> Sys {
        let kids = usize::from(spec.keyid.keyid_max()) + 1;
        Sys {
            state: SysState::SysInitPending,
            lock: Lock::default(),
            kot: vec![KotEntry { state: KotState::Free, wbinvd_bitmap: 0 }; kids],
            kot_lock: Lock::default(),
            global_hkid: None,
            keyed: 0,
            wbcache: vec![WbCache::default(); usize::from(spec.packages)],
            first: None,
            handoff: None,
            predecessor: None,
            disabling: None,
        }
    }
    pub(crate) fn is_quiet(&self) -> bool {
        self.lock.is_idle()
            && self.kot_lock.is_idle()
            && self.wbcache.iter().all(|w| w.lock.is_idle())
    }
    /// Every package, as a bitmap.
    pub(crate) fn all_packages(&self) -> u8 {
        (0..self.wbcache.len().min(8)).fold(0, |map, i| map | 1 << i)
    }
}
