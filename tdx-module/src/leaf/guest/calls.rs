//! TDG.*: the TDCALLs of a guest (architecture.md §7.2, §7.9).

use super::{
    ACCEPTED, ATTR_RD_STATES, CHUNK, EEQ_ACCEPT, ExitKind, depart, first_six, go_on, here,
    leave_violation,
};
use crate::cx::{At, Cx, Flow, Stage, ensure, invalid};
use crate::dispatch::GUEST_NOT_MODELLED;
use crate::fields::{self, NO_FIELD};
use crate::flight::reg::{R8, R9, R10, RCX, RDX};
use crate::flight::{Answer, Inject};
use crate::sept::{self, Accept, Entry, SeptOp, State, next};
use crate::td::{LastExit, VcpuState, layout};
use sim_core::planted::Fault;
use sim_core::tdx::{GuestLeaf, Operand, Status};

/// CONFIG_FLAGS bit 2: NO_RBP_MOD (architecture.md §7.11).
const CONFIG_NO_RBP_MOD: u64 = 1 << 2;

/// The TDCALL dispatcher.
pub(super) fn tdcall(cx: &mut Cx<'_>, leaf: GuestLeaf, version: u8, regs: [u64; 8]) -> Stage {
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
        GuestLeaf::SYS_RD => sys_rd(cx),
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

/// TDG.VP.VMCALL (0): a TD exit behind the TDCALL, with the registers that bits 15:0 of RCX name.
fn vmcall(cx: &mut Cx<'_>) -> Stage {
    /// RAX, RCX, RSP, and bits 63:32.
    const FORBIDDEN: u64 = 1 | 1 << 1 | 1 << 4 | 0xffff_ffff << 32;
    const RBP: u64 = 1 << 5;
    let mask = cx.reg(RCX);
    let no_rbp = cx.td(here(cx).0)?.config_flags & CONFIG_NO_RBP_MOD != 0;
    let forbidden = if no_rbp { FORBIDDEN | RBP } else { FORBIDDEN };
    ensure(mask & forbidden == 0, invalid(RCX))?;
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

/// TDG.SYS.RD (11): one field of the module in R8, the next field's id in RDX (intel/tdx-module tdg_sys_rd.c). Which of
/// the fields a guest may read is not modelled: all.
fn sys_rd(cx: &mut Cx<'_>) -> Stage {
    let id = fields::in_context(cx.reg(RDX), 0);
    cx.out(RDX, NO_FIELD);
    cx.out(R8, 0);
    let next = fields::following(fields::sys_fields(cx.m), id);
    if fields::is_none(id) {
        cx.out(RDX, next);
        return Err(Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    }
    let unknown = Status::METADATA_FIELD_ID_INCORRECT;
    ensure(fields::is_single(id), unknown)?;
    let (row, index) = fields::find(fields::sys_fields(cx.m), id).ok_or(unknown)?;
    let value = fields::sys_value(cx.m, row, index);
    cx.out(R8, value);
    cx.out(RDX, next);
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
    if !cx.m.spec.planted.is(Fault::AcceptKeepsContents) {
        cx.fill_page(page, hkid, 0);
    }
    Ok(())
}

/// The page is zeroed: the entry lets the guest in. Its lock is held since its state was looked at.
pub(super) fn accepted(cx: &mut Cx<'_>) -> Stage {
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
pub(super) fn chunk(cx: &mut Cx<'_>) -> Stage {
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
