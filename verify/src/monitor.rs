//! The monitor: what a TDX module may answer to a SEAMCALL or TDCALL, and what the call may change.
//!
//! Written from architecture.md §7 (with §6.3 and §8) alone, by someone who has not read the modelled module. Per leaf
//! there is a row of checks in the order of the sheet ([`rules_markdown`] prints them) and an effect on the [`ModuleView`]; running the row over
//! the view before a call gives every answer that the sheet allows, each with its output registers and the view after.
//! Where the sheet leaves the answer to the moment (a lock that another call may hold, entropy, an interrupt), several
//! are allowed; where it is silent, the field is not compared. An answer that is none of these, or a view that differs in one
//! field, is a [`Complaint`].
//!
//! Not judged: measurements, metadata fields, the content of TDVPS, memory traffic, time. Those leaves of
//! which the sheet gives a number only are in [`NOT_JUDGED`].

mod compare;
mod effect;
mod guest;
mod lock;
mod rules;
mod run;
mod sept;
mod sysconfig;

pub use lock::Flight;
pub use rules::{NOT_JUDGED, NotJudged, judged, rules_markdown};
pub use sept::{SEPT_STATES, SeptState, SeptStateRow};

use crate::view::ModuleView;
use run::Run;
use serde::{Deserialize, Serialize};
use sim_core::op::CallRegs;
use sim_core::outcome::CallResult;
use sim_core::platform::{PlatformSpec, TdxSpec};
use sim_core::tdx::{ExitReason, GuestLeaf, Leaf, Status};
use sim_core::{Addr, KeyIdLayout, Page};
use std::fmt;

/// What firmware and platform decide.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// KeyIDs in a physical address (architecture.md §8).
    pub keyid: KeyIdLayout,
    /// Convertible memory, the module's own memory, and what the module can do.
    pub tdx: TdxSpec,
    /// Packages, 1 to 8.
    pub packages: u8,
    /// Machine checks go to the LP that met them only (architecture.md §6.3).
    pub lmce: bool,
}

impl Spec {
    /// Of a platform.
    pub fn of(platform: &PlatformSpec) -> Spec {
        Spec {
            keyid: platform.keyid,
            tdx: platform.tdx.clone(),
            packages: platform.cpu.packages,
            lmce: platform.mce.lmce,
        }
    }
}

/// A call of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The logical processor that makes it.
    pub lp: u16,
    /// The VCPU (its TDVPR page) that makes it, for a TDCALL; `None` for a SEAMCALL.
    pub guest: Option<Page>,
    /// RAX: leaf in 15:0, version in 23:16 (architecture.md §7.1).
    pub rax: u64,
    /// The other registers.
    pub regs: CallRegs,
}

impl Call {
    /// A SEAMCALL of version 0.
    pub fn host(lp: u16, leaf: Leaf, regs: &[u64]) -> Call {
        Call { lp, guest: None, rax: leaf.0.into(), regs: registers(regs) }
    }
    /// A TDCALL of version 0 by this VCPU.
    pub fn guest(lp: u16, vcpu: Page, leaf: GuestLeaf, regs: &[u64]) -> Call {
        Call { lp, guest: Some(vcpu), rax: leaf.0.into(), regs: registers(regs) }
    }
    /// The same with this version in RAX\[23:16\].
    pub fn version(self, version: u8) -> Call {
        Call { rax: self.rax | u64::from(version) << 16, ..self }
    }
    /// The leaf's number.
    pub fn leaf(&self) -> u16 {
        self.rax as u16
    }
    /// Its name, or its number when it has none.
    pub fn name(&self) -> String {
        match self.guest {
            None => Leaf(self.leaf()).to_string(),
            Some(_) => GuestLeaf(self.leaf()).to_string(),
        }
    }
}

fn registers(given: &[u64]) -> CallRegs {
    let mut regs = [0; 8];
    for (place, value) in regs.iter_mut().zip(given) {
        *place = *value;
    }
    CallRegs(regs)
}

/// What came of a call, at the moment that is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It returned.
    Returned(CallResult),
    /// VMfailInvalid: nothing ran (architecture.md §7.1 step 1).
    VmFailInvalid,
    /// TDH.VP.ENTER is in the TD now. Its end is judged by [`Monitor::judge_exit`].
    Entered,
    /// A TDCALL ended in a TD exit with this reason; the exit itself is judged by [`Monitor::judge_exit`].
    Left(ExitReason),
}

/// Memory as the module would read it, for operands that lie there.
pub trait Memory {
    /// The 8 bytes at an 8-byte aligned address; `None` when they are not known: then the monitor allows what the sheet
    /// allows for any content.
    fn read(&self, at: Addr) -> Option<u64>;
}

impl<F: Fn(Addr) -> Option<u64>> Memory for F {
    fn read(&self, at: Addr) -> Option<u64> {
        self(at)
    }
}

/// Memory of which nothing is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

impl Memory for Unknown {
    fn read(&self, _: Addr) -> Option<u64> {
        None
    }
}

/// What else was going on while a call ran: what the sheet makes its answer depend on beside view and registers.
#[derive(Clone, Copy, Debug)]
pub struct Company<'a> {
    /// The other calls in flight. None: every lock is free but those that a VCPU inside its TD holds.
    pub others: &'a [Flight<'a>],
    /// An interrupt may have been pending for the caller (architecture.md §7.11).
    pub interrupt: bool,
    /// The random number generator may have been without entropy (architecture.md §7.3 RND_NO_ENTROPY).
    pub starved: bool,
    /// MSRs, CPUID or the TSC may be other than those that TDH.SYS.INIT saw, or than TDX can work with.
    pub odd: bool,
}

impl Company<'_> {
    /// Nothing else was going on.
    pub const ALONE: Company<'static> =
        Company { others: &[], interrupt: false, starved: false, odd: false };
}

/// Something that the sheet does not allow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// What is wrong: `status`, a register, a field of the view.
    pub what: String,
    /// What the sheet has there.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Where the sheet says so.
    pub cite: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {} ({})", self.what, self.expected, self.found, self.cite)
    }
}

/// What an answer may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// This status; the low half is not compared where it is `None`.
    Status {
        /// With a low half of zero.
        status: Status,
        /// The low half.
        low: Option<u32>,
    },
    /// Any status.
    AnyStatus,
    /// Any status with ERROR set.
    AnyError,
    /// VMfailInvalid.
    VmFailInvalid,
    /// Into the TD.
    Entered,
    /// A TD exit with this basic reason.
    Left(u16),
}

impl Expected {
    fn allows(self, answer: &Answer) -> bool {
        match (self, answer) {
            (Expected::Status { status, low }, Answer::Returned(result)) => {
                result.status.0 >> 32 == status.0 >> 32
                    && low.is_none_or(|low| result.status.0 as u32 == low)
            }
            (Expected::AnyStatus, Answer::Returned(_))
            | (Expected::VmFailInvalid, Answer::VmFailInvalid)
            | (Expected::Entered, Answer::Entered) => true,
            (Expected::AnyError, Answer::Returned(result)) => result.status.0 >> 63 == 1,
            (Expected::Left(want), Answer::Left(reason)) => want == reason.basic(),
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Status { status, low: None } => write!(f, "{status} | any"),
            Expected::Status { status, low: Some(low) } => {
                write!(f, "{}", Status(status.0 | u64::from(*low)))
            }
            Expected::AnyStatus => f.write_str("any status"),
            Expected::AnyError => f.write_str("any error"),
            Expected::VmFailInvalid => f.write_str("VMfailInvalid"),
            Expected::Entered => f.write_str("into the TD"),
            Expected::Left(reason) => write!(f, "{}", ExitReason((*reason).into())),
        }
    }
}

/// What an output register must hold: `value` where `mask` is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// The bits that the sheet gives.
    pub mask: u64,
    /// Their values.
    pub value: u64,
}

impl Want {
    /// This value.
    pub const fn all(value: u64) -> Want {
        Want { mask: u64::MAX, value }
    }
}

/// One answer that the sheet allows, and what it goes with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// The answer.
    pub answer: Expected,
    /// RCX, RDX, R8 to R11 after it.
    pub out: [Want; 6],
    /// The view after it; `None` when nothing changes.
    pub after: Option<Box<ModuleView>>,
    /// The view after it is not given by the sheet.
    pub open: bool,
    /// Which check or effect it is.
    pub why: &'static str,
}

/// Everything that the sheet allows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prediction {
    /// In the order of the checks; the last one is the success, if the call can succeed.
    pub allowed: Vec<Allowed>,
}

impl Prediction {
    /// Whether some allowed answer is this one.
    pub fn allows(&self, answer: &Answer) -> bool {
        self.allowed.iter().any(|a| a.answer.allows(answer))
    }
}

/// Where a machine check struck (architecture.md §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Struck {
    /// In the module (SEAM root), or an unbreakable shutdown in a TD: TDX is gone.
    Module,
    /// In the TD that runs on the LP: the TD is lost. What the VMM gets from TDH.VP.ENTER.
    Td(CallResult),
}

/// The judge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Monitor {
    spec: Spec,
}

impl Monitor {
    /// A judge for this platform.
    pub fn new(spec: Spec) -> Monitor {
        Monitor { spec }
    }
    /// The platform.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Everything that the sheet allows a call to answer, from the view before it. Fields that the sheet leaves open are as
    /// in `before`.
    pub fn predict(
        &self,
        before: &ModuleView,
        call: &Call,
        company: &Company<'_>,
        memory: &dyn Memory,
    ) -> Prediction {
        Prediction { allowed: Run::new(&self.spec, before, call, company, memory, None).run() }
    }

    /// Judges a call. `before` and `after` are the views around its commit; for a call that failed, `before` is the view
    /// when it began to check.
    ///
    /// # Errors
    /// What the sheet does not allow, measured against the allowed answer that is nearest.
    pub fn judge(
        &self,
        before: &ModuleView,
        call: &Call,
        answer: &Answer,
        after: &ModuleView,
        company: &Company<'_>,
        memory: &dyn Memory,
    ) -> Result<(), Vec<Complaint>> {
        let allowed = Run::new(&self.spec, before, call, company, memory, Some(after)).run();
        let cite = rules::cite(call);
        let mut best: Option<Vec<Complaint>> = None;
        for one in allowed.iter().filter(|a| a.answer.allows(answer)) {
            let mut complaints = Vec::new();
            if let Answer::Returned(result) = answer {
                outputs(one, result, &cite, &mut complaints);
            }
            if !one.open {
                let want = one.after.as_deref().unwrap_or(before);
                compare::views(want, after, company.others.is_empty(), &cite, &mut complaints);
            }
            if complaints.is_empty() {
                return Ok(());
            }
            if best.as_ref().is_none_or(|b| complaints.len() < b.len()) {
                best = Some(complaints);
            }
        }
        Err(best.unwrap_or_else(|| {
            let mut names: Vec<String> =
                allowed.iter().map(|a| format!("{} [{}]", a.answer, a.why)).collect();
            names.dedup();
            vec![Complaint {
                what: format!("answer of {}", call.name()),
                expected: if names.is_empty() {
                    "a view in which every TDR and TDVPR page has its TD and VCPU".to_owned()
                } else {
                    names.join(" or ")
                },
                found: match answer {
                    Answer::Returned(result) => result.status.to_string(),
                    Answer::VmFailInvalid => Expected::VmFailInvalid.to_string(),
                    Answer::Entered => Expected::Entered.to_string(),
                    Answer::Left(reason) => reason.to_string(),
                },
                cite,
            }]
        }))
    }

    /// Judges a TD exit that is no machine check: TDH.VP.ENTER on this LP has returned `result` (architecture.md §7.8,
    /// §7.9 "TDH.VP.ENTER").
    ///
    /// # Errors
    /// What the sheet does not allow.
    pub fn judge_exit(
        &self,
        before: &ModuleView,
        lp: u16,
        result: &CallResult,
        after: &ModuleView,
    ) -> Result<(), Vec<Complaint>> {
        guest::exit(before, lp, result, after)
    }

    /// Judges what a machine check did, which struck this LP (architecture.md §6.3).
    ///
    /// # Errors
    /// What the sheet does not allow.
    pub fn judge_machine_check(
        &self,
        before: &ModuleView,
        lp: u16,
        struck: &Struck,
        after: &ModuleView,
    ) -> Result<(), Vec<Complaint>> {
        guest::machine_check(&self.spec, before, lp, struck, after)
    }
}

fn outputs(allowed: &Allowed, result: &CallResult, cite: &str, into: &mut Vec<Complaint>) {
    let named = CallResult::NAMES.iter().zip(allowed.out).zip(result.out);
    for ((name, want), found) in named {
        if found & want.mask != want.value & want.mask {
            into.push(Complaint {
                what: (*name).to_owned(),
                expected: format!("{:#x} (mask {:#x})", want.value & want.mask, want.mask),
                found: format!("{found:#x}"),
                cite: cite.to_owned(),
            });
        }
    }
}
