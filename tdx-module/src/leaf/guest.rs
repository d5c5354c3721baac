//! What a TD does that the module hears of: exits and TDCALLs (architecture.md §6.3, §7.9, §7.11).

use super::vp::{here, store_vcpu};
use crate::cx::{At, Cx, Flow, Stage, ensure, invalid};
use crate::dispatch::GUEST_NOT_MODELLED;
use crate::flight::reg::{R8, R9, R10, RCX, RDX};
use crate::flight::{Answer, GuestEntry, Inject, Live, VmExit};
use crate::sept::{self, Accept, Entry, GuestAccess, SeptOp, State, next};
use crate::td::{ATTRIBUTE_SEPT_VE_DISABLE, LastExit, VcpuState, VeInfo, layout};
use sim_core::tdx::{ExitReason, GuestLeaf, Operand, Status};
use std::fmt::Write;

// ------------------------------------------------------------------------------------------------------------- tables

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
    /// An EPT violation at a private address.
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
            VmExit::EptViolation { gpa, .. } if gpa & shared_bit != 0 => ExitKind::SharedViolation,
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
            ExitEffect::Leaves(status) => format!("TD exit, {status}"),
            ExitEffect::Disables(status) => format!("TD exit, {status}; the VCPU cannot run again"),
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

// ------------------------------------------------------------------------------------------------------------- stages

/// VM entry.
const RESUME: u8 = 2;
/// The guest has left.
const LEFT: u8 = 3;
/// TDR.fatal is read.
const HANDLE: u8 = 4;
/// A 4 KiB page is zeroed.
const ACCEPTED: u8 = 5;
/// A 4 KiB chunk of a 2 MiB page is zeroed.
const CHUNK: u8 = 6;

/// Extended exit-qualification types (architecture.md §7.11).
const EEQ_ACCEPT: u64 = 1;
const EEQ_PENDING: u64 = 6;

/// The stages of TDH.VP.ENTER behind its checks.
pub(super) fn stage(cx: &mut Cx<'_>) -> Stage {
    match cx.f.stage {
        LEFT => left(cx),
        HANDLE => handle(cx),
        ACCEPTED => accepted(cx),
        CHUNK => chunk(cx),
        _ => Ok(Flow::Enter(guest_entry(cx)?, LEFT)),
    }
}

/// The first six of eight registers.
pub(super) const fn first_six(regs: &[u64; 8]) -> [u64; 6] {
    let [rcx, rdx, r8, r9, r10, r11, ..] = *regs;
    [rcx, rdx, r8, r9, r10, r11]
}

/// The TD as the processor sees it.
fn guest_entry(cx: &mut Cx<'_>) -> Result<GuestEntry, Status> {
    let (tdr, tdvpr) = here(cx);
    let inject = std::mem::take(&mut cx.f.inject);
    let (td, shared) = (cx.td(tdr)?, cx.vcpu(tdvpr)?.controls.shared_ept);
    // Of the shared EPTP the VMM gives the root; memory type and levels are the TD's.
    let levels = u64::from(td.levels.saturating_sub(1));
    let shared_eptp = if shared == 0 { 0 } else { shared | levels << 3 | 6 };
    Ok(GuestEntry {
        tdr,
        tdvpr,
        hkid: td.hkid,
        root: td.sept_root(),
        levels: td.levels,
        gpaw: td.gpaw,
        shared_eptp,
        inject,
    })
}

/// Lets the guest go on: the locks of what it asked for are released, its registers and VMCS are read, VM entry.
pub(super) fn go_on(cx: &mut Cx<'_>, inject: Inject) -> Stage {
    let (tdr, tdvpr) = here(cx);
    let kept = cx.f.kept;
    cx.m.release(cx.f, kept);
    let (hkid, vmcs) = (cx.td(tdr)?.hkid, cx.vcpu(tdvpr)?.vmcs());
    for at in [
        layout::tdvps_registers(tdvpr, 0),
        layout::tdvps_registers(tdvpr, 1),
        layout::tdvps_vmcs(vmcs),
    ] {
        cx.f.load(at, hkid, 64);
    }
    cx.spend(|c| c.enter);
    cx.f.inject = inject;
    Ok(Flow::Again(RESUME))
}

/// The first thing after any exit: is the TD still alive? The TDR lies under the global key and can be read anyhow
/// (architecture.md §7.10.5).
fn left(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.exit);
    let (tdr, _) = here(cx);
    cx.load_tdr(tdr);
    Ok(Flow::Again(HANDLE))
}

fn handle(cx: &mut Cx<'_>) -> Stage {
    let (tdr, _) = here(cx);
    let Some(exit) = cx.f.exit.take() else { return go_on(cx, Inject::Nothing) };
    let td = cx.td(tdr)?;
    let row = ExitKind::of(&exit, td.shared_bit()).row();
    let qualification = match exit {
        VmExit::Smi { msmi } => u64::from(msmi),
        VmExit::EptViolation { access, .. } => u64::from(access & 7),
        _ => 0,
    };
    let status = match row.effect {
        // Another VCPU's machine check counts as this one's own (verification.md P9).
        _ if td.fatal => return kill(cx, row, qualification),
        ExitEffect::Kills => return kill(cx, row, qualification),
        ExitEffect::Fatal => return Ok(Flow::Fatal),
        ExitEffect::Leaves(status) | ExitEffect::Disables(status) => Some(status),
        ExitEffect::Module => None,
    };
    save(cx)?;
    match (status, exit) {
        (None, VmExit::Tdcall { leaf, version, regs }) => tdcall(cx, leaf, version, regs),
        (None, VmExit::EptViolation { gpa, access }) => violation(cx, gpa, access),
        (status, exit) => {
            let gpa = match exit {
                VmExit::EptViolation { gpa, .. } | VmExit::EptMisconfiguration { gpa } => {
                    gpa & !0xfff
                }
                _ => 0,
            };
            let disables = matches!(row.effect, ExitEffect::Disables(_));
            let state = if disables { VcpuState::Disabled } else { VcpuState::Ready };
            let status = status.unwrap_or(Status::SUCCESS).exit(row.reason);
            depart(
                cx,
                status,
                state,
                LastExit::AsyncFault,
                [qualification, 0, gpa, row.interruption],
            )
        }
    }
}

/// The exit of a dead TD. Nothing but the TDR is touched; what the VCPU counts for in REFCOUNT stays
/// (architecture.md §6.3, §7.8).
fn kill(cx: &mut Cx<'_>, row: &ExitRow, qualification: u64) -> Stage {
    let (tdr, _) = here(cx);
    cx.td_mut(tdr)?.fatal = true;
    cx.store_tdr(tdr);
    cx.f.out = [qualification, 0, 0, row.interruption, 0, 0];
    Ok(Flow::Done(Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE.exit(row.reason)))
}

/// What every exit of a live TD writes: the VMCS (by the processor), the registers, the TSC.
fn save(cx: &mut Cx<'_>) -> Result<(), Status> {
    let (tdr, tdvpr) = here(cx);
    let tsc = cx.env.tsc;
    let vcpu = cx.vcpu_mut(tdvpr)?;
    vcpu.last_tsc = tsc;
    let (vmcs, [rcx, _, r8, ..]) = (vcpu.vmcs(), vcpu.regs);
    let hkid = cx.td(tdr)?.hkid;
    cx.f.store(layout::tdvps_vmcs(vmcs), hkid, 0);
    cx.f.store(layout::tdvps_registers(tdvpr, 0), hkid, rcx);
    cx.f.store(layout::tdvps_registers(tdvpr, 1), hkid, r8);
    store_vcpu(cx)
}

/// TD exit of a live TD: state and last exit are written, the VCPU is counted out.
fn depart(
    cx: &mut Cx<'_>,
    status: Status,
    state: VcpuState,
    last: LastExit,
    [rcx, rdx, r8, r9]: [u64; 4],
) -> Stage {
    let (tdr, tdvpr) = here(cx);
    // What a TDCALL held, before the VCPU stops counting as running.
    let kept = cx.f.kept;
    cx.m.release(cx.f, kept);
    let vcpu = cx.vcpu_mut(tdvpr)?;
    (vcpu.state, vcpu.last_exit) = (state, last);
    let epoch = vcpu.epoch;
    store_vcpu(cx)?;
    let page = cx.tdcs(tdr)?;
    let td = cx.td_mut(tdr)?;
    if let Some(count) = td.refcount.get_mut((epoch & 1) as usize) {
        *count = count.saturating_sub(1);
    }
    let hkid = td.hkid;
    cx.f.live(layout::tdcs_refcounts(page), hkid, true, Live::Refcount(tdr));
    cx.f.out = [rcx, rdx, r8, r9, 0, 0];
    Ok(Flow::Done(status))
}

/// TD exit by an EPT violation at a private address: where the walk ended, and why the module says so.
fn leave_violation(cx: &mut Cx<'_>, gpa: u64, access: u64, entry: Entry, extended: u64) -> Stage {
    let qualification = access | entry.rights() << 3;
    let status = Status::SUCCESS.exit(ExitKind::PrivateViolation.row().reason);
    let out = [qualification, extended, gpa & !0xfff, 0];
    depart(cx, status, VcpuState::Ready, LastExit::AsyncFault, out)
}

/// An EPT violation at a private address.
fn violation(cx: &mut Cx<'_>, gpa: u64, access: u8) -> Stage {
    /// Page fault: present, reserved bit; and bits 1 and 4 for a write and a fetch.
    const RESERVED: u32 = 1 | 1 << 3;
    let (tdr, _) = here(cx);
    if !cx.is_private_gpa(tdr, gpa) {
        // Bits above the SHARED bit: no address of this TD.
        let error = RESERVED | u32::from(access & 2) | u32::from(access & 4) << 2;
        return go_on(cx, Inject::Exception { vector: 14, error });
    }
    let (at, _) = cx.descend(tdr, gpa, 0)?;
    let entry = cx.entry(at);
    let Some(state) = entry.state() else { return Ok(Flow::Fatal) };
    match fault_at(state, access) {
        Fault::Resumes => go_on(cx, Inject::Nothing),
        Fault::Leaves => leave_violation(cx, gpa, access.into(), entry, 0),
        Fault::Pending if cx.td(tdr)?.attributes & ATTRIBUTE_SEPT_VE_DISABLE != 0 => {
            leave_violation(cx, gpa, access.into(), entry, EEQ_PENDING)
        }
        Fault::Pending => inject_ve(cx, gpa, access),
    }
}

/// #VE; a double fault while the guest has not asked about the last one.
fn inject_ve(cx: &mut Cx<'_>, gpa: u64, access: u8) -> Stage {
    let (tdr, tdvpr) = here(cx);
    let hkid = cx.td(tdr)?.hkid;
    cx.f.load(layout::tdvps_ve_info(tdvpr), hkid, 64);
    let reason = ExitKind::PrivateViolation.row().reason;
    let vcpu = cx.vcpu_mut(tdvpr)?;
    if vcpu.ve.is_some() {
        return go_on(cx, Inject::Exception { vector: 8, error: 0 });
    }
    vcpu.ve = Some(VeInfo { reason, qualification: access.into(), gpa });
    cx.f.store(layout::tdvps_ve_info(tdvpr), hkid, gpa);
    go_on(cx, Inject::Ve { reason, gpa })
}

// ------------------------------------------------------------------------------------------------------------ TDCALLs

/// The TDCALL dispatcher.
fn tdcall(cx: &mut Cx<'_>, leaf: GuestLeaf, version: u8, regs: [u64; 8]) -> Stage {
    cx.spend(|c| c.tdcall);
    cx.vcpu_mut(here(cx).1)?.regs = regs;
    cx.f.regs = regs;
    // A register that the leaf does not return stays as it was.
    cx.f.out = first_six(&regs);
    let stage = tdcall_leaf(cx, leaf, version);
    stage.or_else(|status| answer(cx, status))
}

fn tdcall_leaf(cx: &mut Cx<'_>, leaf: GuestLeaf, version: u8) -> Stage {
    let unknown = Status::OPERAND_INVALID.about(Operand::RAX);
    // Only TDG.VM.RD has versions (intel/tdx-module 1.5.01 tdx_td_dispatcher.c).
    ensure(version == 0 || leaf == GuestLeaf::VM_RD, unknown)?;
    match leaf {
        GuestLeaf::VP_VMCALL => vmcall(cx),
        GuestLeaf::VP_INFO => vp_info(cx),
        GuestLeaf::VP_VEINFO_GET => veinfo_get(cx),
        GuestLeaf::MEM_PAGE_ACCEPT => page_accept(cx),
        GuestLeaf::MEM_PAGE_ATTR_RD => page_attr_rd(cx),
        leaf if GUEST_NOT_MODELLED.contains(&leaf) => Ok(Flow::NotModelled),
        _ => Err(unknown),
    }
}

/// The TDCALL is over: the guest goes on behind it. A lock that is kept for the host looks like any other to it; when
/// that has lasted for HP_LOCK_TIMEOUT the TD exits (architecture.md §7.2).
fn answer(cx: &mut Cx<'_>, status: Status) -> Stage {
    let (tdr, tdvpr) = here(cx);
    let (now, timeout) = (cx.env.now, cx.td(tdr)?.hp_lock_timeout);
    let (mut status, out) = (status, cx.f.out);
    let vcpu = cx.vcpu_mut(tdvpr)?;
    if status.code() == Status::OPERAND_BUSY_HOST_PRIORITY {
        status = Status(Status::OPERAND_BUSY.0 | u64::from(status.low()));
        let since = *vcpu.busy_since.get_or_insert(now);
        // The first attempt only starts the clock, whatever the timeout.
        if now > since && now.since(since) >= timeout {
            vcpu.busy_since = None;
            vcpu.rax = status;
            let status = Status::HOST_PRIORITY_BUSY_TIMEOUT;
            return depart(cx, status, VcpuState::Ready, LastExit::AsyncTrap, [0; 4]);
        }
    } else {
        vcpu.busy_since = None;
    }
    go_on(cx, Inject::Answer(Answer { status, out }))
}

/// A TDCALL that did not meet a lock of the host's ends the row of those that did.
fn settle(cx: &mut Cx<'_>) -> Result<(), Status> {
    cx.vcpu_mut(here(cx).1)?.busy_since = None;
    Ok(())
}

/// TDG.VP.VMCALL (0): a TD exit behind the TDCALL, with the registers that bits 15:0 of RCX name. NO_RBP_MOD, which
/// would forbid bit 5, is not modelled.
fn vmcall(cx: &mut Cx<'_>) -> Stage {
    const FORBIDDEN: u64 = 1 | 1 << 1 | 1 << 4 | 0xffff_ffff << 32;
    let mask = cx.reg(RCX);
    ensure(mask & FORBIDDEN == 0, invalid(RCX))?;
    // By index of `reg`: RDX is bit 2, R8 to R13 are bits 8 to 13. XMM registers (31:16) are not modelled.
    for (r, bit) in [(1, 2), (2, 8), (3, 9), (4, 10), (5, 11), (6, 12), (7, 13)] {
        if let Some(reg) = cx.f.regs.get_mut(r)
            && mask >> bit & 1 == 0
        {
            *reg = 0;
        }
    }
    settle(cx)?;
    let passed = cx.f.regs;
    let status = Status::SUCCESS.exit(ExitKind::Tdcall.row().reason);
    let stage = depart(cx, status, VcpuState::Ready, LastExit::Vmcall, [0; 4]);
    cx.f.out = first_six(&passed);
    stage
}

/// TDG.VP.INFO (1): GPA width, ATTRIBUTES, numbers of VCPUs, index; R10 bit 0: TDG.SYS.RD is there
/// (intel/tdx-module tdg_vp_info.c).
fn vp_info(cx: &mut Cx<'_>) -> Stage {
    let (tdr, tdvpr) = here(cx);
    let page = cx.tdcs(tdr)?;
    let (td, index) = (cx.td(tdr)?, cx.vcpu(tdvpr)?.index);
    let hkid = td.hkid;
    let counts = u64::from(td.vcpus) | u64::from(td.max_vcpus) << 32;
    let out = [td.gpaw.into(), td.attributes, counts, index.into(), 1, 0];
    cx.f.load(layout::tdcs_controls(page), hkid, 64);
    cx.f.load(layout::tdcs_vcpus(page), hkid, 64);
    cx.f.out = out;
    answer(cx, Status::SUCCESS)
}

/// TDG.VP.VEINFO.GET (3): what the last #VE was about, once (intel/tdx-module tdg_vp_veinfo_get.c).
fn veinfo_get(cx: &mut Cx<'_>) -> Stage {
    let (tdr, tdvpr) = here(cx);
    let hkid = cx.td(tdr)?.hkid;
    for r in [RCX, RDX, R8, R9, R10] {
        cx.out(r, 0);
    }
    cx.f.load(layout::tdvps_ve_info(tdvpr), hkid, 64);
    let ve = cx.vcpu_mut(tdvpr)?.ve.take().ok_or(Status::NO_VALID_VE_INFO)?;
    cx.out(RCX, ve.reason.0.into());
    cx.out(RDX, ve.qualification);
    cx.out(R9, ve.gpa);
    cx.f.store(layout::tdvps_ve_info(tdvpr), hkid, 0);
    answer(cx, Status::SUCCESS)
}

/// TDG.MEM.PAGE.ATTR.RD (23): GPA and level of the page, bit 62 when it is pending. Attributes are those of L2 VMs, so
/// that a TD without them has none (intel/tdx-module tdg_mem_page_attr_rd.c).
fn page_attr_rd(cx: &mut Cx<'_>) -> Stage {
    let (tdr, _) = here(cx);
    let gpa = cx.reg(RCX);
    cx.out(RCX, 0);
    cx.out(RDX, 0);
    ensure(cx.is_private_gpa(tdr, gpa), invalid(RCX))?;
    let (at, _) = cx.descend(tdr, gpa, 0)?;
    cx.lock_entry_guest(tdr, at)?;
    let Some(state) = cx.entry(at).state() else { return Ok(Flow::Fatal) };
    if !ATTR_RD_STATES.contains(&state) {
        settle(cx)?;
        return leave_violation(cx, gpa, 0, Entry::FREE, 0);
    }
    let shift = 12 + 9 * u64::from(at.level);
    let page = gpa >> shift << shift;
    cx.out(RCX, page | u64::from(at.level) | u64::from(state.is_pending()) << 62);
    answer(cx, Status::SUCCESS)
}

/// TDG.MEM.PAGE.ACCEPT (6).
fn page_accept(cx: &mut Cx<'_>) -> Stage {
    let (tdr, _) = here(cx);
    let (gpa, level) = cx.gpa(0, 1)?;
    ensure(cx.is_private_gpa(tdr, gpa), invalid(RCX))?;
    let (at, reached) = cx.descend(tdr, gpa, level)?;
    if reached {
        cx.lock_entry_guest(tdr, at)?;
    }
    let entry = cx.entry(at);
    let Some(state) = entry.state() else { return Ok(Flow::Fatal) };
    let with_level = |status: Status| Status(status.0 | u64::from(at.level));
    match sept::accept(reached, state) {
        Accept::AlreadyAccepted => return Err(with_level(Status::PAGE_ALREADY_ACCEPTED)),
        Accept::SizeMismatch => return Err(with_level(Status::PAGE_SIZE_MISMATCH)),
        Accept::Violation => {
            // Details: requested level, level and state of the entry, whether it is a leaf (intel/tdx-module 1.5.01
            // tdx_api_defs.h tdaccept_vmx_eeq_info_t). An ACCEPT counts as a write.
            let info = u64::from(level)
                | u64::from(at.level) << 3
                | u64::from(state.row().public) << 6
                | u64::from(entry.is_leaf()) << 14;
            settle(cx)?;
            return leave_violation(cx, gpa, 2, entry, EEQ_ACCEPT | info << 32);
        }
        Accept::Accepts => {}
    }
    let scratch = &mut cx.f.scratch;
    (scratch.table, scratch.index, scratch.level) = (at.table, at.index, at.level);
    scratch.entry = entry;
    fill(cx)?;
    Ok(Flow::Again(if level == 0 { ACCEPTED } else { CHUNK }))
}

/// Zeroes the 4 KiB at which the entry points; of a pending 2 MiB leaf the counter is part of that address.
fn fill(cx: &mut Cx<'_>) -> Result<(), Status> {
    let (tdr, _) = here(cx);
    let (hkid, page) = (cx.td(tdr)?.hkid, cx.f.scratch.entry.page());
    cx.fill_page(page, hkid, 0);
    Ok(())
}

/// The page is zeroed: the entry lets the guest in. Its lock is held since its state was looked at.
fn accepted(cx: &mut Cx<'_>) -> Stage {
    let (tdr, _) = here(cx);
    let scratch = &cx.f.scratch;
    let at = At { table: scratch.table, index: scratch.index, level: scratch.level };
    let entry = scratch.entry;
    let pending = entry.state().unwrap_or(State::Pending);
    let state = next(SeptOp::Accept, pending).unwrap_or(State::Mapped);
    cx.set_entry(tdr, at, entry.with_state(state));
    answer(cx, Status::SUCCESS)
}

/// A chunk of a 2 MiB page is zeroed. With an interrupt pending the count is kept in the entry, and the guest executes
/// the TDCALL again when it is entered again: RIP and its registers stay as they are (architecture.md §7.9, §7.11). In
/// the real module the guest is resumed first and leaves at once; here the two are one exit.
fn chunk(cx: &mut Cx<'_>) -> Stage {
    const LAST: u16 = 511;
    let (tdr, _) = here(cx);
    let scratch = &mut cx.f.scratch;
    let at = At { table: scratch.table, index: scratch.index, level: scratch.level };
    let done = scratch.entry.accept_counter();
    if done >= LAST {
        scratch.entry = scratch.entry.with_accept_counter(0);
        return accepted(cx);
    }
    scratch.entry = scratch.entry.with_accept_counter(done + 1);
    if !cx.env.irq {
        fill(cx)?;
        return Ok(Flow::Again(CHUNK));
    }
    let entry = cx.f.scratch.entry;
    cx.set_entry(tdr, at, entry);
    settle(cx)?;
    let row = ExitKind::Interrupt.row();
    let status = Status::SUCCESS.exit(row.reason);
    let out = [0, 0, 0, row.interruption];
    depart(cx, status, VcpuState::Ready, LastExit::AsyncFault, out)
}
