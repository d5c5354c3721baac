//! What a TD does that the module hears of: exits (architecture.md §6.3) and TDCALLs.

mod calls;
mod tables;

pub use tables::{
    ATTR_RD_STATES, EXITS, ExitEffect, ExitKind, ExitRow, FAULTS, Fault, FaultRow, exits_markdown,
    fault_at, faults_markdown,
};

use super::vp::{here, store_vcpu};
use crate::cx::{Cx, Flow, Stage};
use crate::flight::{GuestEntry, Inject, Live, VmExit};
use crate::sept::Entry;
use crate::td::{ATTRIBUTE_SEPT_VE_DISABLE, LastExit, VcpuState, VeInfo, layout};
use calls::{accepted, chunk, tdcall};
use sim_core::planted::Fault as Planted;
use sim_core::tdx::Status;

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
    cx.td_mut(tdr)?.fatal = !cx.m.spec.planted.is(Planted::FatalForgotten);
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
    let one = u32::from(!cx.m.spec.planted.is(Planted::RefcountForgotten));
    let td = cx.td_mut(tdr)?;
    if let Some(count) = td.refcount.get_mut((epoch & 1) as usize) {
        *count = count.saturating_sub(one);
    }
    let hkid = td.hkid;
    cx.f.live(layout::tdcs_refcounts(page), hkid, true, Live::Refcount(tdr));
    cx.f.out = [rcx, rdx, r8, r9, 0, 0];
    Ok(Flow::Done(status))
}

/// Exit qualification of an EPT violation: the access in bits 2:0, what the entry allows in bits 5:3.
const fn ept_qualification(access: u64, entry: Entry) -> u64 {
    access | entry.rights() << 3
}

/// TD exit by an EPT violation at a private address: where the walk ended, and why the module says so.
fn leave_violation(cx: &mut Cx<'_>, gpa: u64, access: u64, entry: Entry, extended: u64) -> Stage {
    let qualification = ept_qualification(access, entry);
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
    match fault_at(state) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sept::State;
    use sim_core::Page;

    #[test]
    fn a_write_to_a_page_that_is_blocked_for_writing_says_that_it_can_be_read_and_executed() {
        let entry = Entry::leaf(State::BlockedW, Page(1));
        assert_eq!(ept_qualification(2, entry), 2 | 1 << 3 | 1 << 5);
        assert_eq!(ept_qualification(2, Entry::FREE), 2);
    }
}
