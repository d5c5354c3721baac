//! Faults planted on purpose, to see that whoever judges the product finds them (verification.md §5.4).
//!
//! The product asks [`Planted::is`] at the places where a fault would sit. Unless cargo feature `planted-fault` is on *and*
//! the build has debug assertions, [`Planted`] holds nothing, cannot be made to hold anything, and `is` is `false` for the
//! compiler, which leaves the fault out: no release can have one. `xtask/tests/planted.rs` compiles this file, which
//! therefore names nothing outside `core`, in every combination.

/// Writes the enumeration and the list of it.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A fault that can be planted. Each says which rule it breaks.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// Every fault.
            pub const ALL: &[Fault] = &[$(Fault::$name),+];

            /// The fault's name, as its variant is spelt.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Fault::$name => stringify!($name),)+
                }
            }
        }
    };
}

faults! {
    // The memory controller.

    /// MU-1: a whole-line write, as an eviction makes, leaves the TD bit as it was (architecture.md §2.6; verification.md L1).
    WriteKeepsTd,
    /// MU-2: a shared read of a line with TD=1 shows its bytes instead of zeros (architecture.md §2.2; verification.md L3, S1).
    SharedReadShowsData,
    /// MU-3: no read compares MACs in Ci (architecture.md §2.2; verification.md L7).
    MacNotChecked,
    /// MU-4: poison that a read bears is returned, and not stored in the line (architecture.md §13 MC-02; verification.md P4).
    PoisonNotStored,
    /// MU-5: a partial write that merges clears the line's poison (architecture.md §2.6; verification.md L4).
    PartialClearsPoison,
    /// MU-6: a whole-line write, as MOVDIR64B makes, leaves poison in the line (architecture.md §2.6; verification.md C8).
    WriteKeepsPoison,
    /// MU-11: a partial write meets the erratum on lines with TD=0, too (architecture.md §5.6; verification.md L8).
    ErratumIgnoresTd,

    // The caches.

    /// MU-7: MOVDIR64B does not invalidate copies under its own KeyID (architecture.md §3 3.4; verification.md C8).
    Movdir64bKeepsCopies,
    /// MU-8: a store of a part of a poisoned line clears its poison (architecture.md §13 MC-05; verification.md C12).
    StoreLaundersPoison,
    /// MU-9: a core's lookup compares the line and not the KeyID (architecture.md §4.1; verification.md C3).
    TagIgnoresKeyId,
    /// MU-10: CLFLUSH takes the copies under every KeyID (architecture.md §4.1 4.1.8; verification.md C7).
    ClflushTakesAllKeyIds,

    // The TDX module.

    /// PAGE.ADD leaves the owner of the page's PAMT entry empty (architecture.md §7.9; verification.md T1, T7).
    AddWithoutPamtOwner,
    /// PAGE.AUG takes a page that somebody has already (architecture.md §7.9; verification.md T2).
    AugTakenPage,
    /// PAGE.AUG clears the page (architecture.md §7.9; verification.md T4).
    AugClearsPage,
    /// PAGE.ACCEPT does not clear the page (architecture.md §7.9; verification.md T3, T6, H7).
    AcceptKeepsContents,
    /// PAGE.REMOVE leaves the page's PAMT entry (architecture.md §7.9; verification.md T5).
    RemoveKeepsPamt,
    /// PAGE.REMOVE leaves the Secure-EPT entry (architecture.md §7.6; verification.md T9, T1).
    RemoveKeepsEntry,
    /// Pages that a TD loses are still counted (architecture.md §7.9; verification.md T7).
    ChldcntForgotten,
    /// PAGE.RECLAIM does not ask for TD_TEARDOWN (architecture.md §7.9; verification.md T8).
    ReclaimBeforeTeardown,
    /// KEY.FREEID that is refused for want of a write-back tears the TD down all the same (architecture.md §7.9;
    /// verification.md T10).
    ErrorLeavesChange,
    /// MNG.ADDCX fills the page under the global HKID (architecture.md §7.5; verification.md T11).
    TdcsUnderGlobalKey,
    /// PAGE.RDMD calls every page free (architecture.md §7.9; verification.md T12).
    RdmdSaysFree,
    /// VPFLUSHDONE frees the HKID at once (architecture.md §7.5; verification.md H1).
    VpflushdoneFreesHkid,
    /// KEY.FREEID does not ask for write-backs (architecture.md §7.9; verification.md H2).
    FreeidIgnoresBitmap,
    /// VPFLUSHDONE does not ask whether VCPUs are associated (architecture.md §7.9; verification.md H3).
    VpflushdoneIgnoresVcpus,
    /// CACHE.WB writes nothing back (architecture.md §7.9; verification.md H4).
    CacheWbWritesNothing,
    /// KEY.CONFIG programs a key that the package has (architecture.md §7.9; verification.md H5).
    PconfigActiveKey,
    /// MNG.CREATE takes an HKID that is not free (architecture.md §7.9; verification.md H6).
    TwoTdsOneHkid,
    /// CACHE.WB that is interrupted counts as done (architecture.md §7.11; verification.md H8).
    CacheWbClearsEarly,
    /// Tracking counts as done at once (architecture.md §7.8; verification.md E1, E3).
    TrackedTooEarly,
    /// MEM.TRACK does not ask for VCPUs of the previous epoch (architecture.md §7.8; verification.md E2).
    TrackIgnoresRefcount,
    /// A VCPU that leaves its TD is still counted (architecture.md §7.8; verification.md E4).
    RefcountForgotten,
    /// What takes a page from a running TD does not ask whether it is blocked (architecture.md §7.6; verification.md E5).
    RemoveWithoutBlock,
    /// A TD that met a machine check is not fatal (architecture.md §6.3; verification.md P9, R5).
    FatalForgotten,

    // Machine checks.

    /// A machine check in SEAM root does not disable TDX (architecture.md §6.3; verification.md P10).
    DisableForgotten,
    /// Machine checks go to every processor although local ones are on (architecture.md §6.2; verification.md P11).
    LmceBroadcast,
    /// MCi_STATUS has another MSCOD (architecture.md §6.2; verification.md R1).
    OtherMscod,
    /// MCG_STATUS does not tell SEAM non-root mode (architecture.md §6.2; verification.md R2).
    SeamNrForgotten,

    // Runs.

    /// A request's completion is not counted: the totals of a DRAM run do not add up (verification.md Q1).
    CompletionNotCounted,
}

impl Fault {
    /// The fault of that name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

/// Which fault is planted, if any: one at most. No part of a platform file or a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Planted {
    #[cfg(all(feature = "planted-fault", debug_assertions))]
    fault: Option<Fault>,
}

impl Planted {
    /// None.
    pub const NONE: Planted = Planted {
        #[cfg(all(feature = "planted-fault", debug_assertions))]
        fault: None,
    };
    /// Whether this build can plant faults at all.
    pub const POSSIBLE: bool = cfg!(all(feature = "planted-fault", debug_assertions));

    /// This fault. Nothing where [`Planted::POSSIBLE`] is false.
    #[cfg(feature = "planted-fault")]
    pub const fn fault(fault: Fault) -> Planted {
        #[cfg(debug_assertions)]
        return Planted { fault: Some(fault) };
        #[cfg(not(debug_assertions))]
        {
            let _ = fault;
            Planted::NONE
        }
    }

    /// Whether this fault is planted.
    #[inline(always)]
    pub const fn is(self, fault: Fault) -> bool {
        #[cfg(all(feature = "planted-fault", debug_assertions))]
        return match self.fault {
            Some(planted) => planted as u32 == fault as u32,
            None => false,
        };
        #[cfg(not(all(feature = "planted-fault", debug_assertions)))]
        {
            let _ = fault;
            false
        }
    }
}

// Where a fault cannot be planted there is no place to keep one.
const _: () = assert!(Planted::POSSIBLE || size_of::<Planted>() == 0);
