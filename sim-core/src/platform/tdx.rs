//! What the platform's firmware and its TDX module are: convertible memory, features, and what leaves cost.

use crate::time::Ps;
use crate::units::{Area, serde_text};
use serde::{Deserialize, Serialize};

/// The TDX module of a platform, and what it finds there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxSpec {
    /// Convertible memory ranges as the firmware lists them (architecture.md §7.4). TDH.SYS.INIT judges them.
    #[serde(with = "serde_text::areas")]
    pub cmrs: Vec<Area>,
    /// Memory of the module itself, which nobody else can access (architecture.md §8, IA32_SEAMRR_PHYS_BASE/MASK).
    #[serde(with = "serde_text::area")]
    pub seamrr: Area,
    /// An SMRR, which must not overlap convertible memory (architecture.md §7.9 "TDH.SYS.INIT").
    #[serde(with = "serde_text::area")]
    pub smrr: Area,
    /// IA32_TME_ACTIVATE is locked (architecture.md §1.3 1.3.4).
    pub tme_locked: bool,
    /// The module has TDH.SYS.DISABLE (linux-host-paths.md §16.5).
    pub sys_disable: bool,
    /// The module has dynamic PAMT (linux-host-paths.md §13).
    pub dynamic_pamt: bool,
    /// TDX_FEATURES0 bit 23 (architecture.md §13 MC-15). Only enumerated: the module never checks a flush.
    pub clflush_before_alloc: bool,
    /// Highest version of TDH.VP.INIT that the module accepts (architecture.md §10.2 D-22).
    pub vp_init_version: u8,
    /// TDH.VP.INIT takes the TDR exclusively instead of shared (architecture.md §10.2 D-22).
    pub vp_init_exclusive: bool,
    /// Handoff version that TDH.SYS.SHUTDOWN accepts.
    pub handoff_version: u16,
    /// TDCS.HP_LOCK_TIMEOUT (architecture.md §7.2).
    #[serde(with = "serde_text::time")]
    pub hp_lock_timeout: Ps,
    /// Translations that a core's TLB holds, 1 to 65536.
    pub tlb_entries: u32,
    /// A poisoned line met by a page walk in a TD is an unbreakable shutdown, not a machine check (architecture.md §13
    /// MC-07).
    pub walk_poison_shutdown: bool,
    /// What leaves cost besides their memory traffic.
    pub cost: TdxCost,
}

/// Fixed costs of leaves by class: none is in the sources (timing.md §5.3, §6), all are assumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxCost {
    /// SEAMCALL and SEAMRET, there and back.
    #[serde(with = "serde_text::time")]
    pub seamcall: Ps,
    /// VM entry into a TD.
    #[serde(with = "serde_text::time")]
    pub enter: Ps,
    /// VM exit from a TD to the module.
    #[serde(with = "serde_text::time")]
    pub exit: Ps,
    /// Work of a TDH.SYS.* leaf.
    #[serde(with = "serde_text::time")]
    pub sys: Ps,
    /// Work of a TDH.MNG.*, TDH.VP.* or TDH.MR.* leaf.
    #[serde(with = "serde_text::time")]
    pub mng: Ps,
    /// Work of a TDH.MEM.* leaf.
    #[serde(with = "serde_text::time")]
    pub mem: Ps,
    /// Work of a TDH.PHYMEM.* leaf.
    #[serde(with = "serde_text::time")]
    pub phymem: Ps,
    /// Work of a TDCALL leaf.
    #[serde(with = "serde_text::time")]
    pub tdcall: Ps,
    /// SHA-384 of 128 bytes.
    #[serde(with = "serde_text::time")]
    pub hash: Ps,
    /// INVEPT.
    #[serde(with = "serde_text::time")]
    pub invept: Ps,
}

impl Default for TdxSpec {
    /// The model's choice where no source has a number; a small machine with 4 GiB of convertible memory.
    fn default() -> Self {
        TdxSpec {
            cmrs: vec![
                Area { base: 0x10_0000, end: 0x7780_0000 },
                Area { base: 0x1_0000_0000, end: 0x2_0000_0000 },
            ],
            seamrr: Area { base: 0x7a00_0000, end: 0x7e00_0000 },
            smrr: Area { base: 0x7900_0000, end: 0x7980_0000 },
            tme_locked: true,
            sys_disable: false,
            dynamic_pamt: false,
            clflush_before_alloc: true,
            vp_init_version: 0,
            vp_init_exclusive: false,
            handoff_version: 0,
            hp_lock_timeout: Ps(1_000_000_000_000),
            tlb_entries: 1536,
            walk_poison_shutdown: true,
            cost: TdxCost {
                seamcall: Ps::ns(500),
                enter: Ps::ns(500),
                exit: Ps::ns(500),
                sys: Ps::ns(200),
                mng: Ps::ns(200),
                mem: Ps::ns(200),
                phymem: Ps::ns(100),
                tdcall: Ps::ns(100),
                hash: Ps::ns(400),
                invept: Ps::ns(200),
            },
        }
    }
}
