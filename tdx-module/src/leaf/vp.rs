//! TDH.VP.*: VCPUs, and the way into a TD (architecture.md §7.9). The way out is in [`super::guest`].

use super::guest;
use super::vp_fields::{self, Access};
use crate::cx::{Cx, Flow, Stage, ensure, invalid};
use crate::fields::{self, NO_FIELD};
use crate::flight::reg::{R8, R9, R10, R11, R12, R13, RCX, RDX};
use crate::flight::{Answer, Inject, Live, Touch};
use crate::lock::Mode::{self, Exclusive, Shared};
use crate::op_state::Lifecycle;
use crate::pamt::{PamtEntry, Size};
use crate::td::{
    ATTRIBUTE_DEBUG, L2_MSR_BITMAPS, LastExit, TDVPS_MAX, TDVPS_MIN, Vcpu, VcpuState, layout,
};
use sim_core::Page;
use sim_core::tdx::{Operand, PageType, Status};

/// IA32_TSC_ADJUST: what the VMM could turn time back with.
const TSC_ADJUST: u32 = 0x3b;
/// Bits of RCX of TDH.VP.ENTER that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// RCX bit 52 of TDH.VP.ENTER: the hint bit for the answer of the TDCALL behind which the VCPU left
/// (intel/tdx-module 1.5.01 tdx_api_defs.h vcpu_and_flags_t).
const HINT: u64 = 1 << 52;
/// RCX bit 53 of TDH.VP.ENTER: go on in L1. Without L2 VMs it is never allowed.
const RESUME_L1: u64 = 1 << 53;

/// The TDVPR operand and its TD: HPA(r, mode, TDVPR), then the owner TDR's lock.
fn vcpu(cx: &mut Cx<'_>, r: usize, pa: u64, mode: Mode, owner: Mode) -> Result<(), Status> {
    let tdvpr = cx.hpa_at(r, pa, mode, PageType::Tdvpr)?;
    let tdr = cx.owner_tdr(tdvpr, owner)?;
    (cx.f.scratch.td, cx.f.scratch.vcpu) = (tdr, tdvpr);
    Ok(())
}

/// Reads the TDVPS management line: number of pages, state, LP, last TSC.
fn load_vcpu(cx: &mut Cx<'_>) -> Result<(), Status> {
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    let hkid = cx.td(tdr)?.hkid;
    cx.f.load(layout::tdvps_management(tdvpr), hkid, 64);
    Ok(())
}
/// Writes the TDVPS management line.
pub(super) fn store_vcpu(cx: &mut Cx<'_>) -> Result<(), Status> {
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    let (hkid, word) = (cx.td(tdr)?.hkid, cx.vcpu(tdvpr)?.management_word());
    cx.f.store(layout::tdvps_management(tdvpr), hkid, word);
    Ok(())
}
/// The VCPU has all pages that it needs: six, and three for each L2 VM of its TD.
fn enough_pages(cx: &Cx<'_>) -> Result<(), Status> {
    let least = TDVPS_MIN + 3 * usize::from(cx.td(cx.f.scratch.td)?.l2_vms);
    ensure(cx.vcpu(cx.f.scratch.vcpu)?.pages.len() >= least, Status::TDCX_NUM_INCORRECT)
}
/// IA32_TSC_ADJUST is what TDH.SYS.INIT found.
fn same_tsc_adjust(cx: &Cx<'_>) -> Result<(), Status> {
    let of = |msrs: &[(u32, u64)]| {
        msrs.iter().find(|(number, _)| *number == TSC_ADJUST).map_or(0, |(_, value)| *value)
    };
    let first = cx.m.sys.first.as_ref().map_or(0, |first| of(&first.msrs));
    let msr = Operand(TSC_ADJUST);
    ensure(of(cx.env.msrs) == first, Status::INCONSISTENT_MSR.about(msr))
}
/// Adds to or takes from the TD's counters of VCPUs, in one locked access.
fn store_counts(cx: &mut Cx<'_>) -> Result<(), Status> {
    let tdr = cx.f.scratch.td;
    let (page, td) = (cx.tdcs(tdr)?, cx.td(tdr)?);
    let hkid = td.hkid;
    cx.f.live(layout::tdcs_vcpus(page), hkid, true, Live::Vcpus(tdr));
    Ok(())
}
/// Checks the VCPU's state and associates it with this LP; whether it was not before. A check that fails later does
/// not undo this ([`crate::FAILURE_EFFECTS`]).
fn associate(cx: &mut Cx<'_>, disabled: bool) -> Result<bool, Status> {
    let (tdr, tdvpr, lp) = (cx.f.scratch.td, cx.f.scratch.vcpu, cx.env.lp);
    let vcpu = cx.vcpu_mut(tdvpr)?;
    let fits = vcpu.state == VcpuState::Ready || disabled && vcpu.state == VcpuState::Disabled;
    ensure(fits, Status::VCPU_STATE_INCORRECT)?;
    match vcpu.lp {
        Some(with) if with == lp => return Ok(false),
        Some(_) => return Err(Status::VCPU_ASSOCIATED),
        None => vcpu.lp = Some(lp),
    }
    cx.td_mut(tdr)?.associated += 1;
    store_counts(cx)?;
    store_vcpu(cx)?;
    Ok(true)
}

/// TDH.VP.CREATE (10).
pub(crate) fn create(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RDX, Shared)?;
        cx.state(tdr, true)?;
        let page = cx.free_page(RCX)?;
        let hkid = cx.td(tdr)?.hkid;
        cx.fill_page(page, hkid, 0);
        (cx.f.scratch.td, cx.f.scratch.vcpu) = (tdr, page);
        return Ok(Flow::Again(1));
    }
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    cx.m.vcpus.insert(tdvpr, Vcpu::new(tdr, vec![tdvpr]));
    store_vcpu(cx)?;
    cx.set_pamt(tdvpr.hpa().0, Size::Small, PamtEntry::new(PageType::Tdvpr, tdr));
    cx.add_children(tdr, 1)?;
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.VP.ADDCX (4).
pub(crate) fn addcx(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let pa = cx.reg(RDX);
        vcpu(cx, RDX, pa, Exclusive, Shared)?;
        let tdr = cx.f.scratch.td;
        cx.state(tdr, true)?;
        load_vcpu(cx)?;
        let vcpu = cx.vcpu(cx.f.scratch.vcpu)?;
        let pages = vcpu.pages.len();
        ensure(vcpu.state == VcpuState::Uninitialized, Status::VCPU_STATE_INCORRECT)?;
        ensure(pages < TDVPS_MAX, Status::TDCX_NUM_INCORRECT)?;
        let page = cx.free_page(RCX)?;
        let hkid = cx.td(tdr)?.hkid;
        let word = if L2_MSR_BITMAPS.contains(&pages) { u64::MAX } else { 0 };
        cx.fill_page(page, hkid, word);
        cx.f.scratch.page = page;
        return Ok(Flow::Again(1));
    }
    let (tdr, tdvpr, page) = (cx.f.scratch.td, cx.f.scratch.vcpu, cx.f.scratch.page);
    cx.vcpu_mut(tdvpr)?.pages.push(page);
    store_vcpu(cx)?;
    cx.set_pamt(page.hpa().0, Size::Small, PamtEntry::new(PageType::Tdcx, tdr));
    cx.add_children(tdr, 1)?;
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.VP.INIT (22). Version 1 gives the x2APIC id in R8; whether it is accepted, and whether the leaf takes the TDR
/// exclusively, the platform says (architecture.md §10.2 D-22).
pub(crate) fn init(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let owner = if cx.m.spec.tdx.vp_init_exclusive { Exclusive } else { Shared };
        let pa = cx.reg(RCX);
        vcpu(cx, RCX, pa, Exclusive, owner)?;
        let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
        cx.state(tdr, true)?;
        load_vcpu(cx)?;
        enough_pages(cx)?;
        let state = cx.vcpu(tdvpr)?.state;
        ensure(state == VcpuState::Uninitialized, Status::VCPU_STATE_INCORRECT)?;
        let (index, most) = (cx.td(tdr)?.vcpus, u32::from(cx.td(tdr)?.max_vcpus));
        ensure(index < most, Status::MAX_VCPUS_EXCEEDED)?;
        if cx.f.version > 0 {
            let id = u32::try_from(cx.reg(R8)).map_err(|_| invalid(R8))?;
            let taken = cx.m.vcpus.values().any(|v| v.tdr == tdr && v.x2apic == Some(id));
            let twice = Status(Status::X2APIC_ID_NOT_UNIQUE.0 | u64::from(id));
            ensure(!taken, twice)?;
        }
        same_tsc_adjust(cx)?;
        // Others may initialise VCPUs of this TD at the same time: the index is taken now, in one locked access.
        let td = cx.td_mut(tdr)?;
        (td.vcpus, td.associated) = (index + 1, td.associated + 1);
        store_counts(cx)?;
        cx.f.scratch.count = u64::from(index);
        return Ok(Flow::Again(1));
    }
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    let (lp, tsc, index) = (cx.env.lp, cx.env.tsc, cx.f.scratch.count as u32);
    let (rcx, version, id) = (cx.reg(RDX), cx.f.version, cx.reg(R8) as u32);
    let vcpu = cx.vcpu_mut(tdvpr)?;
    (vcpu.state, vcpu.lp, vcpu.last_tsc) = (VcpuState::Ready, Some(lp), tsc);
    (vcpu.index, vcpu.initial_rcx) = (index, rcx);
    vcpu.x2apic = (version > 0).then_some(id);
    let (vmcs, hkid) = (vcpu.vmcs(), cx.td(tdr)?.hkid);
    store_vcpu(cx)?;
    cx.f.store(layout::tdvps_registers(tdvpr, 0), hkid, rcx);
    cx.f.store(layout::tdvps_registers(tdvpr, 1), hkid, rcx);
    cx.f.store(layout::tdvps_vmcs(vmcs), hkid, 0);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.VP.FLUSH (18): also of a TD that is fatal.
pub(crate) fn flush(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let pa = cx.reg(RCX);
        vcpu(cx, RCX, pa, Exclusive, Shared)?;
        let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
        let keyed = cx.td(tdr)?.lifecycle == Lifecycle::KeysConfigured;
        ensure(keyed, Status::TD_KEYS_NOT_CONFIGURED)?;
        load_vcpu(cx)?;
        enough_pages(cx)?;
        let here = cx.vcpu(tdvpr)?.lp == Some(cx.env.lp);
        ensure(here, Status::VCPU_NOT_ASSOCIATED)?;
        cx.f.touch(Touch::Invept(Some(tdr)));
        cx.spend(|c| c.invept);
        return Ok(Flow::Again(1));
    }
    let (tdr, tdvpr, lp) = (cx.f.scratch.td, cx.f.scratch.vcpu, cx.env.lp);
    let vmcs = cx.vcpu(tdvpr)?.vmcs();
    let td = cx.td_mut(tdr)?;
    td.associated = td.associated.saturating_sub(1);
    let hkid = td.hkid;
    // VMCLEAR.
    cx.f.store(layout::tdvps_vmcs(vmcs), hkid, 0);
    cx.vcpu_mut(tdvpr)?.lp = None;
    store_vcpu(cx)?;
    store_counts(cx)?;
    if let Some(lp) = cx.m.lps.get_mut(usize::from(lp)) {
        lp.last_vcpu = None;
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// What TDH.VP.RD and TDH.VP.WR check before they look for the field.
fn field_checks(cx: &mut Cx<'_>, disabled: bool) -> Result<bool, Status> {
    cx.spend(|c| c.mng);
    let pa = cx.reg(RCX);
    vcpu(cx, RCX, pa, Shared, Shared)?;
    let tdr = cx.f.scratch.td;
    cx.state(tdr, true)?;
    load_vcpu(cx)?;
    enough_pages(cx)?;
    associate(cx, disabled)?;
    Ok(cx.td(tdr)?.attributes & ATTRIBUTE_DEBUG != 0)
}

/// TDH.VP.RD (26): one field of [`vp_fields::VP_FIELDS`], in R8. Version 1 returns the next field in RDX.
pub(crate) fn rd(cx: &mut Cx<'_>) -> Stage {
    let id = cx.reg(RDX);
    if cx.f.version > 0 {
        cx.out(RDX, NO_FIELD);
    }
    ensure(cx.f.version <= 1, Status::OPERAND_INVALID.about(Operand::RAX))?;
    let debug = field_checks(cx, true)?;
    if cx.f.version > 0 && fields::is_none(id) {
        let first = vp_fields::next(None);
        cx.out(RDX, first);
        return Ok(Flow::Done(Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT));
    }
    let row = vp_fields::find(id).ok_or(Status::METADATA_FIELD_ID_INCORRECT)?;
    let mask = row.mask(Access::Read, debug);
    ensure(mask != 0, Status::METADATA_FIELD_NOT_READABLE)?;
    vp_fields::touch(cx, row, None)?;
    let value = vp_fields::read(cx, row.field)? & mask;
    if cx.f.version > 0 {
        cx.out(RDX, vp_fields::next(Some(row)));
    }
    cx.out(R8, value);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.VP.WR (43): R8 is the value, R9 which bits of it. Returns the old value in R8.
pub(crate) fn wr(cx: &mut Cx<'_>) -> Stage {
    let debug = field_checks(cx, false)?;
    let row = vp_fields::find(cx.reg(RDX)).ok_or(Status::METADATA_FIELD_ID_INCORRECT)?;
    let mask = row.mask(Access::Write, debug) & cx.reg(R9);
    ensure(mask != 0, Status::METADATA_FIELD_NOT_WRITABLE)?;
    let old = vp_fields::read(cx, row.field)?;
    let new = old & !mask | cx.reg(R8) & mask;
    vp_fields::check(cx, row.field, new)?;
    vp_fields::write(cx, row.field, new)?;
    vp_fields::touch(cx, row, Some(new))?;
    cx.out(R8, old & row.mask(Access::Read, debug));
    Ok(Flow::Done(Status::SUCCESS))
}

const COUNT: u8 = 1;

/// TDH.VP.ENTER (0), up to the VM entry; what follows is in [`guest::stage`].
///
/// The filter against single and zero steps is not modelled (architecture.md §7.9 "zero-step filter"): it never takes
/// the Secure-EPT's tree lock and never emulates an EPT violation.
///
/// While the guest runs the flight holds the TDVPR's and the TDR's PAMT locks, shared, and no other
/// (architecture.md §7.2): OP_STATE and epoch are released before the entry.
pub(crate) fn enter(cx: &mut Cx<'_>) -> Stage {
    match cx.f.stage {
        0 => check_entry(cx),
        COUNT => count(cx),
        _ => guest::stage(cx),
    }
}

fn check_entry(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.mng);
    let rcx = cx.reg(RCX);
    ensure(rcx & !(ADDRESS | HINT | RESUME_L1) == 0, invalid(RCX))?;
    vcpu(cx, RCX, rcx & ADDRESS, Shared, Shared)?;
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    cx.f.kept = cx.f.locks.len();
    cx.state(tdr, true)?;
    load_vcpu(cx)?;
    enough_pages(cx)?;
    let new = associate(cx, false)?;
    let vcpu = cx.vcpu(tdvpr)?;
    let hinted = rcx & HINT == 0 || vcpu.last_exit == LastExit::AsyncTrap;
    let last_tsc = vcpu.last_tsc;
    ensure(hinted && rcx & RESUME_L1 == 0, invalid(RCX))?;
    same_tsc_adjust(cx)?;
    // Signed, so that a TSC that wraps is not one that went back.
    ensure(cx.env.tsc.wrapping_sub(last_tsc) as i64 >= 0, Status::TSC_ROLLBACK)?;
    cx.lock_epoch(tdr, Shared)?;
    cx.f.scratch.count = u64::from(new);
    Ok(Flow::Again(COUNT))
}

/// Counts the VCPU in (architecture.md §7.8), flushes what this LP's TLB may still have, and takes the guest's state.
fn count(cx: &mut Cx<'_>) -> Stage {
    let (tdr, tdvpr, lp) = (cx.f.scratch.td, cx.f.scratch.vcpu, cx.env.lp);
    let new = cx.f.scratch.count != 0;
    let page = cx.tdcs(tdr)?;
    let td = cx.td_mut(tdr)?;
    let (epoch, hkid) = (td.epoch, td.hkid);
    if let Some(count) = td.refcount.get_mut((epoch & 1) as usize) {
        *count += 1;
    }
    cx.f.live(layout::tdcs_refcounts(page), hkid, true, Live::Refcount(tdr));
    let kept = cx.f.kept;
    cx.m.release(cx.f, kept);
    cx.f.load(layout::tdcs_controls(page), hkid, 64);

    let answer = answer(cx)?;
    let vcpu = cx.vcpu_mut(tdvpr)?;
    let stale = vcpu.epoch != epoch && !new;
    (vcpu.epoch, vcpu.state) = (epoch, VcpuState::Active);
    let last = cx.m.lps.get_mut(usize::from(lp)).map(|lp| lp.last_vcpu.replace(tdvpr));
    let other = last != Some(Some(tdvpr));
    for flush in [stale, other] {
        if flush {
            cx.f.touch(Touch::Invept(Some(tdr)));
            cx.spend(|c| c.invept);
        }
    }
    store_vcpu(cx)?;
    guest::go_on(cx, answer)
}

/// What the guest finds: nothing, or the answer to the TDCALL by which it left. Of TDG.VP.VMCALL, registers that the
/// guest's mask names are the VMM's (architecture.md §7.9 "TDG.VP.VMCALL").
fn answer(cx: &mut Cx<'_>) -> Result<Inject, Status> {
    const BITS: [(usize, u32); 7] =
        [(RDX, 2), (R8, 8), (R9, 9), (R10, 10), (R11, 11), (R12, 12), (R13, 13)];
    let (host, hint) = (cx.f.regs, cx.reg(RCX) & HINT != 0);
    let vcpu = cx.vcpu_mut(cx.f.scratch.vcpu)?;
    let status = match vcpu.last_exit {
        LastExit::AsyncFault => return Ok(Inject::Nothing),
        LastExit::AsyncTrap => Status(vcpu.rax.0 & !(1 << 60) | u64::from(hint) << 60),
        LastExit::Vmcall => {
            let [mask, ..] = vcpu.regs;
            for (r, bit) in BITS {
                if let (Some(to), Some(from)) = (vcpu.regs.get_mut(r), host.get(r))
                    && mask >> bit & 1 != 0
                {
                    *to = *from;
                }
            }
            Status::SUCCESS
        }
    };
    Ok(Inject::Answer(Answer { status, out: guest::first_six(&vcpu.regs) }))
}

/// The page a VCPU is known by; for the other half of the family.
pub(super) const fn here(cx: &Cx<'_>) -> (Page, Page) {
    (cx.f.scratch.td, cx.f.scratch.vcpu)
}
