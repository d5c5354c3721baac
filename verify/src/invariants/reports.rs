//! Machine checks as registers show them, and what follows (verification.md §2.3 P9 to P11, §2.10).

use super::{Checker, Violation};
use sim_core::mca::{McAccess, McConsequence, McContext, McRecord, McStatus, McgStatus};
use sim_core::tdx::Status;

/// The only MCi_STATUS of a host's load of poison that is published (R1; architecture.md §6.2).
const PUBLISHED: u64 = 0xbd80_0000_0010_0134;

/// A machine check and what was found afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct McSeen {
    /// The registers.
    pub record: McRecord,
    /// What became of the consumer.
    pub consequence: McConsequence,
    /// Local machine checks are on.
    pub lmce: bool,
    /// The processor tells that it was in SEAM non-root mode.
    pub seam_nr: bool,
    /// How many processors took a #MC for this consumption.
    pub takers: u32,
    /// The TD is fatal now; `None` where none was running.
    pub td_fatal: Option<bool>,
    /// TDX is disabled now.
    pub disabled: bool,
    /// The kernel has panicked.
    pub panicked: bool,
    /// The page is marked HWPoison; `None` where the kernel would not mark it.
    pub marked: Option<bool>,
}

/// A situation that was graded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grading<'a> {
    /// IA32_MCi_STATUS.
    pub status: McStatus,
    /// IA32_MCG_STATUS.
    pub mcg: McgStatus,
    /// A user's instruction, not the kernel's.
    pub user: bool,
    /// Linux's word for the grade is `PANIC`.
    pub panic: bool,
    /// Linux's message.
    pub message: &'a str,
}

impl Checker {
    /// R1, R2, R5, P9, P10, P11 on one machine check.
    pub fn check_mc(&mut self, seen: &McSeen) -> Vec<Violation> {
        let McRecord { bank, status, mcg, access, context, .. } = seen.record;
        let says = || format!("{seen:?}");
        let local = if seen.lmce { McgStatus::LMCES } else { 0 };
        let base = McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP | local;
        let load = access == McAccess::DataLoad;
        if load && matches!(context, McContext::Kernel | McContext::User) {
            let right = bank == 1 && status.0 == PUBLISHED && mcg.0 == base;
            self.claim("R1", right, says);
        }
        if load && context == McContext::SeamNonRoot && seen.seam_nr {
            let p = status.unpack();
            let right =
                mcg.0 == base | McgStatus::SEAM_NR && p.uc && p.ar && p.s && p.mcacod == 0x134;
            self.claim("R2", right, says);
        }
        if seen.lmce {
            let right = seen.takers == 1 && mcg.has(McgStatus::LMCES);
            self.claim("P11", right, says);
        }
        if let Some(fatal) = seen.td_fatal {
            self.claim("P9", fatal, says);
            if seen.seam_nr && seen.lmce {
                let marked = seen.marked.unwrap_or(true);
                self.claim("R5", fatal && !seen.panicked && marked, says);
            }
        }
        if context == McContext::SeamRoot {
            let right = seen.consequence == McConsequence::Shutdown && seen.disabled;
            self.claim("P10", right, says);
        }
        self.take()
    }

    /// P9: how TDH.VP.ENTER ended: `taken` if the TD's #MC ended it, else an entry of a TD that was fatal already.
    pub fn check_fatal_entry(&mut self, taken: bool, status: Status) -> Vec<Violation> {
        let want = if taken { Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE } else { Status::TD_FATAL };
        self.claim("P9", status.code() == want, || format!("{status}, expected {want}"));
        self.take()
    }

    /// P10: a SEAMCALL after TDX was disabled: whether it failed with VMfailInvalid.
    pub fn check_disabled_call(&mut self, refused: bool) -> Vec<Violation> {
        self.claim("P10", refused, || "a SEAMCALL reached a module that is disabled".to_owned());
        self.take()
    }

    /// R3: a grade, as far as verification.md says it. Only for valid, enabled errors of a handler that runs.
    pub fn check_grade(&mut self, g: &Grading<'_>) -> Vec<Violation> {
        let p = g.status.unpack();
        let running = McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP;
        if !p.val || !p.en || p.pcc || !g.mcg.has(running) {
            return Vec::new();
        }
        let srar = p.uc && p.s && p.ar && p.miscv && p.addrv && p.mcacod == 0x134;
        let want = match (p.over, g.user) {
            (true, _) if p.uc && p.s && p.ar => {
                Some((true, Some("Action required with lost events")))
            }
            _ if p.uc && !p.s && !p.ar => Some((false, None)),
            (false, false) if srar && g.mcg.has(McgStatus::SEAM_NR) => Some((false, None)),
            (false, false) if srar => {
                Some((true, Some("Data load in unrecoverable area of kernel")))
            }
            _ => None,
        };
        if let Some((panic, message)) = want {
            let right = g.panic == panic && message.is_none_or(|m| m == g.message);
            self.claim("R3", right, || format!("{g:?}"));
        }
        self.take()
    }
}
