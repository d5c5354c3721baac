//! What each exit does, and each end of the module's walk at an EPT violation (architecture.md §6.3, §7.6, §7.11).

use crate::flight::VmExit;
use crate::sept::{Entry, GuestAccess, State};
use sim_core::tdx::{ExitReason, Status};
use std::fmt::Write;

/// Why a guest left, as far as the module tells it apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ExitKind {
    /// #MC.
    MachineCheck,
    /// An NMI.
    Nmi,
    /// An external interrupt.
    Interrupt,
    /// A triple fault.
    TripleFault,
    /// An SMI that stands for a machine check: exit qualification bit 0.
    Msmi,
    /// Another SMI.
    Smi,
    /// A machine check during VM entry.
    EntryMachineCheck,
    /// An EPT violation at a shared address.
    SharedViolation,
    /// An EPT violation at a private address, or at one with bits above the SHARED bit, which is none of the TD's.
    PrivateViolation,
    /// An EPT misconfiguration at a shared address.
    SharedMisconfiguration,
    /// An EPT misconfiguration at a private address.
    PrivateMisconfiguration,
    /// TDCALL.
    Tdcall,
}

/// What the module does about an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitEffect {
    /// TDH.VP.ENTER returns this class and the exit reason; the VCPU can be entered again.
    Leaves(Status),
    /// The same, but the VCPU can never run again.
    Disables(Status),
    /// TDR.fatal := 1. TDCS, TDVPS and private memory are not touched and the REFCOUNT stays; TDH.VP.ENTER returns
    /// NON_RECOVERABLE_TD_NON_ACCESSIBLE and the exit reason.
    Kills,
    /// The module looks closer: [`FAULTS`], or the TDCALL.
    Module,
    /// The module gives itself up.
    Fatal,
}

/// A row of [`EXITS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitRow {
    /// Which exit.
    pub kind: ExitKind,
    /// VMX exit reason; bit 31 is a failed VM entry.
    pub reason: ExitReason,
    /// VM-exit interruption information, in R9.
    pub interruption: u64,
    /// What is done.
    pub effect: ExitEffect,
    /// Source.
    pub cite: &'static str,
}

/// Valid, NMI, vector 2.
const NMI_INFO: u64 = 0x8000_0202;
/// Valid, hardware exception, vector 18.
const MC_INFO: u64 = 0x8000_0312;
/// A failed VM entry.
const ENTRY_FAILED: u32 = 1 << 31;

const fn exit(
    kind: ExitKind,
    reason: u32,
    interruption: u64,
    effect: ExitEffect,
    cite: &'static str,
) -> ExitRow {
    ExitRow { kind, reason: ExitReason(reason), interruption, effect, cite }
}

use ExitEffect as E;
use ExitKind as K;

/// What each exit does, in the order of the exit reasons.
#[rustfmt::skip]
pub const EXITS: [ExitRow; 12] = [
    exit(K::MachineCheck,            0,  MC_INFO,  E::Kills,                                 "architecture.md §6.3 row 1"),
    exit(K::Nmi,                     0,  NMI_INFO, E::Leaves(Status::SUCCESS),               "architecture.md §6.3 row 5"),
    exit(K::Interrupt,               1,  0,        E::Leaves(Status::SUCCESS),               "architecture.md §6.3 row 5"),
    exit(K::TripleFault,             2,  0,        E::Disables(Status::NON_RECOVERABLE_VCPU), "intel/tdx-module 1.5.01 tdx_td_dispatcher.c"),
    exit(K::Msmi,                    6,  0,        E::Kills,                                 "architecture.md §6.3 row 2"),
    exit(K::Smi,                     6,  0,        E::Leaves(Status::SUCCESS),               "architecture.md §6.3 row 5, Q-21"),
    exit(K::EntryMachineCheck, ENTRY_FAILED | 41, 0, E::Kills,                               "architecture.md §6.3 row 3"),
    exit(K::SharedViolation,         48, 0,        E::Leaves(Status::SUCCESS),               "intel/tdx-module td_ept_violation.c"),
    exit(K::PrivateViolation,        48, 0,        E::Module,                                "architecture.md §7.6 \"guest access\""),
    exit(K::SharedMisconfiguration,  49, 0,        E::Leaves(Status::SUCCESS),               "architecture.md §2.5; intel/tdx-module td_other_exits.c"),
    exit(K::PrivateMisconfiguration, 49, 0,        E::Fatal,                                 "architecture.md §7.7 \"On walk\""),
    exit(K::Tdcall,                  77, 0,        E::Module,                                "architecture.md §7.9"),
];

/// What becomes of an access to a private page that the Secure-EPT did not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The guest goes on: it tries again.
    Resumes,
    /// TD exit, EPT violation.
    Leaves,
    /// #VE; TD exit with extended qualification type 6 in a TD with ATTRIBUTES.SEPT_VE_DISABLE.
    Pending,
}

/// A row of [`FAULTS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultRow {
    /// The entry at which the module's walk ended: what it lets the guest do.
    pub access: GuestAccess,
    /// Whether that covers the access that failed, so that the entry has changed since.
    pub covers: bool,
    /// What becomes of it.
    pub fault: Fault,
    /// Source.
    pub cite: &'static str,
}

const fn fault(access: GuestAccess, covers: bool, fault: Fault, cite: &'static str) -> FaultRow {
    FaultRow { access, covers, fault, cite }
}

use GuestAccess as G;
/// The public source leaves the TD here as well; the host would then find nothing to do and enter again.
const RACE: &str = "the model's choice; intel/tdx-module td_ept_violation.c has no such case";
const PENDING: &str = "architecture.md §7.6 \"guest access\"";

/// What the module's own walk finds at an EPT violation, and what it does then. A walk never ends at
/// [`GuestAccess::Walk`].
#[rustfmt::skip]
pub const FAULTS: &[FaultRow] = &[
    fault(G::Full,        true,  Fault::Resumes, RACE),
    fault(G::ReadExecute, true,  Fault::Resumes, RACE),
    fault(G::ReadExecute, false, Fault::Leaves,  PENDING),
    fault(G::Read,        true,  Fault::Resumes, RACE),
    fault(G::Read,        false, Fault::Leaves,  PENDING),
    fault(G::Violation,   false, Fault::Leaves,  PENDING),
    fault(G::VeOrExit,    false, Fault::Pending, PENDING),
];

/// The states of an entry of which TDG.MEM.PAGE.ATTR.RD tells: leaves that are not blocked.
pub const ATTR_RD_STATES: &[State] = &[
    State::Mapped,
    State::BlockedW,
    State::ExportedBlockedW,
    State::ExportedDirty,
    State::ExportedDirtyBlockedW,
    State::Pending,
    State::PendingBlockedW,
    State::PendingExportedBlockedW,
    State::PendingExportedDirty,
    State::PendingExportedDirtyBlockedW,
];

impl ExitKind {
    /// The kind of an exit of a TD whose SHARED bit is this.
    pub const fn of(exit: &VmExit, shared_bit: u64) -> ExitKind {
        match *exit {
            VmExit::MachineCheck => ExitKind::MachineCheck,
            VmExit::Nmi => ExitKind::Nmi,
            VmExit::Interrupt => ExitKind::Interrupt,
            VmExit::TripleFault => ExitKind::TripleFault,
            VmExit::Smi { msmi: true } => ExitKind::Msmi,
            VmExit::Smi { msmi: false } => ExitKind::Smi,
            VmExit::EntryMachineCheck => ExitKind::EntryMachineCheck,
            // Bits above the SHARED bit are looked at first (intel/tdx-module 1.5.01 td_ept_violation.c).
            VmExit::EptViolation { gpa, .. }
                if gpa >= shared_bit && (gpa ^ shared_bit) < shared_bit =>
            {
                ExitKind::SharedViolation
            }
            VmExit::EptViolation { .. } => ExitKind::PrivateViolation,
            VmExit::EptMisconfiguration { gpa } if gpa & shared_bit != 0 => {
                ExitKind::SharedMisconfiguration
            }
            VmExit::EptMisconfiguration { .. } => ExitKind::PrivateMisconfiguration,
            VmExit::Tdcall { .. } => ExitKind::Tdcall,
        }
    }
    /// Its row of [`EXITS`].
    pub const fn row(self) -> &'static ExitRow {
        const ROWS: &[ExitRow; 12] = &EXITS;
        &ROWS[self as usize]
    }
}

/// What becomes of an access that a walk with this end did not allow; `access` as in [`VmExit::EptViolation`].
pub fn fault_at(state: State, access: u8) -> Fault {
    let allows = state.row().access;
    // Every access at least reads.
    let wanted = if access & 7 == 0 { Entry::R } else { u64::from(access & 7) };
    let covers = wanted & !allows.rights() == 0;
    FAULTS
        .iter()
        .find(|row| row.access == allows && row.covers == covers)
        .map_or(Fault::Leaves, |row| row.fault)
}

/// [`EXITS`] as a table of the book.
pub fn exits_markdown() -> String {
    let mut out = String::from(
        "| Exit | Reason | R9 | What the module does | Source |\n|---|---|---|---|---|\n",
    );
    for r in &EXITS {
        let effect = match r.effect {
            ExitEffect::Leaves(status) => format!("TD exit, {}", status.name().unwrap_or_default()),
            ExitEffect::Disables(status) => {
                let status = status.name().unwrap_or_default();
                format!("TD exit, {status}; the VCPU cannot run again")
            }
            ExitEffect::Kills => {
                let status = Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE.name().unwrap_or_default();
                format!("TD exit, {status}; the TD is fatal and its memory not touched")
            }
            ExitEffect::Module => "looks closer".to_owned(),
            ExitEffect::Fatal => "gives itself up".to_owned(),
        };
        let (kind, reason, info) = (r.kind, r.reason.0, r.interruption);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "| {kind:?} | {reason:#x} | {info:#x} | {effect} | {} |", r.cite);
    }
    out
}

/// [`FAULTS`] as a table of the book.
pub fn faults_markdown() -> String {
    let mut out = String::from(
        "| The entry's guest access | Covers the access | Then | Source |\n|---|---|---|---|\n",
    );
    for r in FAULTS {
        let then = match r.fault {
            Fault::Resumes => "the guest tries again",
            Fault::Leaves => "TD exit, EPT violation",
            Fault::Pending => "#VE, or TD exit with extended qualification 6",
        };
        let covers = if r.covers { "yes" } else { "no" };
        let _ = writeln!(out, "| {} | {covers} | {then} | {} |", r.access.words(), r.cite);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sept::STATES;
    use expect_test::expect;
    use sim_core::tdx::GuestLeaf;
    use std::collections::BTreeSet;

    const SHARED: u64 = 1 << 47;

    #[test]
    fn every_kind_of_exit_has_one_row_at_its_own_place() {
        for (i, row) in EXITS.iter().enumerate() {
            assert_eq!((row.kind as usize, row.kind.row()), (i, row));
            assert!(row.reason.meaning().is_some());
        }
    }

    #[test]
    fn every_exit_is_of_one_kind_and_every_kind_is_that_of_some_exit() {
        let (leaf, regs) = (GuestLeaf::VP_INFO, [0; 8]);
        let exits = [
            VmExit::MachineCheck,
            VmExit::Nmi,
            VmExit::Interrupt,
            VmExit::TripleFault,
            VmExit::Smi { msmi: true },
            VmExit::Smi { msmi: false },
            VmExit::EntryMachineCheck,
            VmExit::EptViolation { gpa: SHARED, access: 1 },
            VmExit::EptViolation { gpa: 0, access: 1 },
            VmExit::EptMisconfiguration { gpa: SHARED },
            VmExit::EptMisconfiguration { gpa: 0 },
            VmExit::Tdcall { leaf, version: 0, regs },
        ];
        let kinds: BTreeSet<ExitKind> = exits.iter().map(|e| ExitKind::of(e, SHARED)).collect();
        assert_eq!(kinds.len(), EXITS.len());
    }

    #[test]
    fn every_end_of_a_walk_and_every_access_meet_exactly_one_row_and_every_row_is_met() {
        let mut met = BTreeSet::new();
        // A walk goes on below NL_MAPPED.
        for state in STATES.map(|r| r.state).into_iter().filter(|s| *s != State::NlMapped) {
            for access in 1..8u8 {
                let allows = state.row().access;
                let covers = u64::from(access) & !allows.rights() == 0;
                let rows: Vec<usize> = (0..FAULTS.len())
                    .filter(|i| (FAULTS[*i].access, FAULTS[*i].covers) == (allows, covers))
                    .collect();
                assert_eq!(rows.len(), 1, "{state} {access}");
                assert_eq!(fault_at(state, access), FAULTS[rows[0]].fault);
                met.extend(rows);
            }
        }
        assert_eq!(met.len(), FAULTS.len());
    }

    #[test]
    fn attributes_are_read_of_leaves_that_are_not_blocked() {
        for state in STATES.map(|r| r.state) {
            let told = state.is_leaf() && !state.is_blocked();
            assert_eq!(ATTR_RD_STATES.contains(&state), told, "{state}");
        }
    }

    #[test]
    fn the_exits_as_the_book_prints_them() {
        expect![[r#"
            | Exit | Reason | R9 | What the module does | Source |
            |---|---|---|---|---|
            | MachineCheck | 0x0 | 0x80000312 | TD exit, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE; the TD is fatal and its memory not touched | architecture.md §6.3 row 1 |
            | Nmi | 0x0 | 0x80000202 | TD exit, TDX_SUCCESS | architecture.md §6.3 row 5 |
            | Interrupt | 0x1 | 0x0 | TD exit, TDX_SUCCESS | architecture.md §6.3 row 5 |
            | TripleFault | 0x2 | 0x0 | TD exit, TDX_NON_RECOVERABLE_VCPU; the VCPU cannot run again | intel/tdx-module 1.5.01 tdx_td_dispatcher.c |
            | Msmi | 0x6 | 0x0 | TD exit, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE; the TD is fatal and its memory not touched | architecture.md §6.3 row 2 |
            | Smi | 0x6 | 0x0 | TD exit, TDX_SUCCESS | architecture.md §6.3 row 5, Q-21 |
            | EntryMachineCheck | 0x80000029 | 0x0 | TD exit, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE; the TD is fatal and its memory not touched | architecture.md §6.3 row 3 |
            | SharedViolation | 0x30 | 0x0 | TD exit, TDX_SUCCESS | intel/tdx-module td_ept_violation.c |
            | PrivateViolation | 0x30 | 0x0 | looks closer | architecture.md §7.6 "guest access" |
            | SharedMisconfiguration | 0x31 | 0x0 | TD exit, TDX_SUCCESS | architecture.md §2.5; intel/tdx-module td_other_exits.c |
            | PrivateMisconfiguration | 0x31 | 0x0 | gives itself up | architecture.md §7.7 "On walk" |
            | Tdcall | 0x4d | 0x0 | looks closer | architecture.md §7.9 |
        "#]].assert_eq(&exits_markdown());
        expect![[r#"
            | The entry's guest access | Covers the access | Then | Source |
            |---|---|---|---|
            | full | yes | the guest tries again | the model's choice; intel/tdx-module td_ept_violation.c has no such case |
            | read/execute; write: violation | yes | the guest tries again | the model's choice; intel/tdx-module td_ept_violation.c has no such case |
            | read/execute; write: violation | no | TD exit, EPT violation | architecture.md §7.6 "guest access" |
            | read | yes | the guest tries again | the model's choice; intel/tdx-module td_ept_violation.c has no such case |
            | read | no | TD exit, EPT violation | architecture.md §7.6 "guest access" |
            | violation | no | TD exit, EPT violation | architecture.md §7.6 "guest access" |
            | #VE, or exit if PENDING_VE_DISABLE | no | #VE, or TD exit with extended qualification 6 | architecture.md §7.6 "guest access" |
        "#]].assert_eq(&faults_markdown());
    }
}
