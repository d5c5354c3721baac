//! What only one leaf checks, and what each leaf changes (architecture.md §7.5, §7.6, §7.8, §7.9).

use super::lock::{Lock, Mode, block};
use super::run::{Ended, GIB, R8, RCX, RDX, Run, Step, operand, span};
use super::sept::{self, SVE, SeptState};
use super::{Expected, Want};
use crate::view::{KotView, LpView, ModuleView, PamtView, TdView, VcpuView};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Hpa, KeyId, Page};

/// KOT states.
const ASSIGNED: u8 = 1;
const FLUSHED: u8 = 2;
/// VCPU states.
const UNINITIALIZED: u8 = 0;
pub(super) const VCPU_READY: u8 = 2;
const VCPU_ACTIVE: u8 = 4;
/// TD life cycle.
const HKID_ASSIGNED: u8 = 0;
const KEYS_CONFIGURED: u8 = 1;
const BLOCKED: u8 = 2;
const TEARDOWN: u8 = 3;
/// Secure-EPT entries in a page.
const ENTRIES: u16 = 512;

fn td_mut(after: &mut ModuleView, tdr: Page) -> Result<&mut TdView, Ended> {
    after.tds.get_mut(&tdr).ok_or(Ended)
}
fn vcpu_mut(after: &mut ModuleView, vcpu: Page) -> Result<&mut VcpuView, Ended> {
    after.vcpus.get_mut(&vcpu).ok_or(Ended)
}
fn lp_mut(after: &mut ModuleView, lp: u16) -> Result<&mut LpView, Ended> {
    after.lps.get_mut(usize::from(lp)).ok_or(Ended)
}
/// 4 KiB pages in a page of this level.
fn pages(level: u8) -> u64 {
    span(level) >> 12
}

impl Run<'_> {
    fn give(&self, after: &mut ModuleView, level: u8, page: Page, page_type: PageType) {
        let entry = PamtView { page_type, owner: self.tdr, bepoch: 0 };
        after.pamt.insert((level, page), entry);
    }
    /// A page of the TD: its PAMT entry and CHLDCNT.
    fn adopt(&self, after: &mut ModuleView, page_type: PageType) -> Step {
        self.give(after, 0, self.page, page_type);
        let td = td_mut(after, self.tdr)?;
        td.chldcnt = td.chldcnt.saturating_add(1);
        Ok(())
    }
    /// A new entry. When SVE (bit 63) is set in one the sheet does not say.
    fn put(&self, after: &mut ModuleView, at: (Page, u16), entry: u64) {
        let sve = self.seen.and_then(|seen| seen.sept.get(&at)).map_or(0, |found| found & SVE);
        after.sept.insert(at, entry & !SVE | sve);
    }
    /// A Secure-EPT page and all that was in it.
    fn drop_table(after: &mut ModuleView, table: Page) {
        after.tables.remove(&table);
        after.sept.retain(|(page, _), _| *page != table);
        after.kept.retain(|(page, _)| *page != table);
    }
    /// Takes a page off the TD at this level.
    fn release(&self, after: &mut ModuleView, level: u8, page: Page) -> Step {
        after.pamt.remove(&(level, page));
        let td = td_mut(after, self.tdr)?;
        td.chldcnt = td.chldcnt.saturating_sub(pages(level));
        Ok(())
    }
    fn whole(&self) -> u8 {
        ((1u16 << self.spec.packages.min(8)) - 1) as u8
    }
    fn package_bit(&self) -> u8 {
        1u8.checked_shl(self.package().into()).unwrap_or(0)
    }

    /// TDH.VP.RD and WR associate the VCPU they read, as the source does; the sheet does not say so.
    pub(super) fn associations(&mut self) {
        let leaf = Leaf(self.call.leaf());
        let Some(seen) = self.seen.filter(|_| [Leaf::VP_RD, Leaf::VP_WR].contains(&leaf)) else {
            return;
        };
        let here = Some(self.call.lp);
        let fresh = self.view.vcpus.iter().find(|(page, vcpu)| {
            vcpu.lp.is_none() && seen.vcpus.get(*page).is_some_and(|found| found.lp == here)
        });
        if let Some((page, vcpu)) = fresh {
            let after = associated(self.view, *page, vcpu.tdr, self.call.lp);
            self.may_answer(Expected::AnyStatus, Some(after));
        }
    }
}

fn associated(view: &ModuleView, vcpu: Page, tdr: Page, lp: u16) -> ModuleView {
    let mut after = view.clone();
    if let Some(vcpu) = after.vcpus.get_mut(&vcpu) {
        vcpu.lp = Some(lp);
    }
    if let Some(td) = after.tds.get_mut(&tdr) {
        td.associated = td.associated.saturating_add(1);
    }
    after
}

/// No effect.
pub(super) fn nothing(run: &mut Run<'_>) -> Step {
    run.succeed(run.after())
}

// TDH.SYS.*

/// MSRs, CPUID, TME_ACTIVATE, the number of HKIDs, the SMRR and the list of CMRs. More than one may be wrong, and the sheet
/// orders them loosely: each of the wrong ones may be named.
pub(super) fn platform(run: &mut Run<'_>) -> Step {
    if run.company.odd {
        run.may_answer(Expected::AnyError, None);
    }
    let tdx = &run.spec.tdx;
    let keyid = &run.spec.keyid;
    let mut wrong = Vec::new();
    if !tdx.tme_locked {
        wrong.push(Status::INCORRECT_MSR_VALUE);
    }
    if u32::from(keyid.mktme_kids) + u32::from(keyid.tdx_priv_kids) >= 2048 {
        wrong.push(Status::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED);
    }
    if tdx.cmrs.iter().any(|cmr| cmr.base < tdx.smrr.end && tdx.smrr.base < cmr.end) {
        wrong.push(Status::SMRR_OVERLAPS_CMR);
    }
    let mut last = 0;
    let mut ordered = true;
    for cmr in &tdx.cmrs {
        ordered &= cmr.base >= last && cmr.base < cmr.end && (cmr.base | cmr.end) & 0xfff == 0;
        ordered &= cmr.end <= 1 << 52 && run.keyid(cmr.end.wrapping_sub(1)) == 0;
        last = cmr.end;
    }
    if !ordered || tdx.cmrs.len() > 32 {
        wrong.push(Status::CMR_LIST_INVALID);
    }
    for status in &wrong {
        run.may((*status, None));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Ended) }
}
pub(super) fn sys_init(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.sys.state = 1;
    run.succeed(after)
}

pub(super) fn lp_pending(run: &mut Run<'_>) -> Step {
    let done = run.view.lps.get(usize::from(run.call.lp)).is_some_and(|lp| lp.initialized);
    if done { run.fail((Status::SYS_LP_INIT_DONE, None)) } else { Ok(()) }
}
pub(super) fn odd_lp(run: &mut Run<'_>) -> Step {
    if run.company.odd {
        run.may_answer(Expected::AnyError, None);
    }
    Ok(())
}
pub(super) fn sys_lp_init(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let lp = lp_mut(&mut after, run.call.lp)?;
    lp.initialized = true;
    // "global INVEPT"
    lp.tlb.clear();
    run.succeed(after)
}

pub(super) fn config_pending(run: &mut Run<'_>) -> Step {
    if run.view.sys.state == 1 && run.view.lps.iter().all(|lp| lp.initialized) {
        Ok(())
    } else {
        run.fail((Status::SYS_CONFIG_NOT_PENDING, None))
    }
}
pub(super) fn tdmr_count(run: &mut Run<'_>) -> Step {
    if (1..=64).contains(&run.reg(RDX)) { Ok(()) } else { run.invalid(RDX) }
}

pub(super) fn package_not_keyed_sys(run: &mut Run<'_>) -> Step {
    if run.view.sys.keyed & run.package_bit() != 0 {
        run.fail((Status::KEY_CONFIGURED, None))
    } else {
        Ok(())
    }
}
/// PCONFIG on this package: busy, or without entropy.
pub(super) fn pconfig(run: &mut Run<'_>) -> Step {
    let busy = Run::busy_with(Operand::KET);
    run.lock(Lock::Ket(run.package()), Mode::Exclusive, busy)?;
    if run.company.starved {
        run.may((Status::KEY_GENERATION_FAILED, None));
    }
    Ok(())
}
pub(super) fn sys_key_config(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.sys.keyed |= run.package_bit();
    if after.sys.keyed == run.whole() {
        after.sys.state = 3;
    }
    run.succeed(after)
}

fn tdmr_at(run: &Run<'_>) -> Option<usize> {
    let base = run.reg(RCX);
    let aligned = base & (GIB - 1) == 0 && base < 1 << 52 && run.keyid(base) == 0;
    run.view.tdmrs.iter().position(|t| aligned && t.base == base)
}
pub(super) fn tdmr_to_init(run: &mut Run<'_>) -> Step {
    let Some(index) = tdmr_at(run) else {
        return run.invalid(RCX);
    };
    run.lock(Lock::Tdmr(index), Mode::Exclusive, Run::busy(RCX))?;
    match run.view.tdmrs.get(index) {
        Some(t) if t.next >= t.base.saturating_add(t.size) => {
            run.fail((Status::TDMR_ALREADY_INITIALIZED, None))
        }
        _ => Ok(()),
    }
}
/// 1024 4K entries: 4 MiB of the TDMR. Of the bitmap of dynamic PAMT the sheet gives no pace.
pub(super) fn tdmr_init(run: &mut Run<'_>) -> Step {
    const PIECE: u64 = 1024 * 4096;
    let index = tdmr_at(run).ok_or(Ended)?;
    let mut after = run.after();
    let tdmr = after.tdmrs.get_mut(index).ok_or(Ended)?;
    let end = tdmr.base.saturating_add(tdmr.size);
    let from = tdmr.next;
    tdmr.next = from.saturating_add(PIECE).min(end);
    if tdmr.dynamic {
        let found = run.seen.and_then(|seen| seen.tdmrs.get(index)).map(|seen| seen.next);
        tdmr.next = found.filter(|next| *next > from && *next <= end).unwrap_or(tdmr.next);
    }
    run.out[RDX] = Want::all(tdmr.next / GIB * GIB);
    run.succeed(after)
}

pub(super) fn handoff_version(run: &mut Run<'_>) -> Step {
    if run.reg(RCX) == u64::from(run.spec.tdx.handoff_version) { Ok(()) } else { run.invalid(RCX) }
}
/// "any other LP in the module": in a TD, or in a call.
pub(super) fn others_in_module(run: &mut Run<'_>) -> Step {
    let busy = (Status::SYS_BUSY, None);
    let inside = (0u16..)
        .zip(&run.view.lps)
        .any(|(number, lp)| number != run.call.lp && lp.inside.is_some());
    if inside && run.company.others.is_empty() {
        return run.fail(busy);
    }
    if inside || !run.company.others.is_empty() {
        run.may(busy);
    }
    Ok(())
}
pub(super) fn sys_shutdown(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.sys.state = 4;
    run.succeed(after)
}

// TDH.MNG.*

fn hkid(run: &Run<'_>) -> KeyId {
    KeyId(run.reg(RDX) as u16)
}
pub(super) fn hkid_free(run: &mut Run<'_>) -> Step {
    match run.view.kot.get(&hkid(run)) {
        Some(kot) if kot.state != 0 => run.fail((Status::HKID_NOT_FREE, None)),
        _ => Ok(()),
    }
}
pub(super) fn entropy(run: &mut Run<'_>) -> Step {
    if run.company.starved {
        run.may((Status::RND_NO_ENTROPY, None));
    }
    Ok(())
}
pub(super) fn mng_create(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.kot.insert(hkid(run), KotView { state: ASSIGNED, wbinvd_bitmap: 0 });
    run.tdr = run.page;
    run.give(&mut after, 0, run.page, PageType::Tdr);
    let td = TdView {
        hkid: hkid(run),
        life_cycle: HKID_ASSIGNED,
        fatal: false,
        keyed: 0,
        chldcnt: 0,
        tdcs: Vec::new(),
        op_state: 0,
        epoch: 0,
        refcount: [0; 2],
        attributes: 0,
        gpaw: 0,
        levels: 0,
        l2_vms: 0,
        max_vcpus: 0,
        vcpus: 0,
        associated: 0,
    };
    after.tds.insert(run.page, td);
    run.succeed(after)
}

pub(super) fn package_not_keyed(run: &mut Run<'_>) -> Step {
    if run.td()?.keyed & run.package_bit() != 0 {
        run.fail((Status::KEY_CONFIGURED, None))
    } else {
        Ok(())
    }
}
pub(super) fn key_config(run: &mut Run<'_>) -> Step {
    let (bit, whole) = (run.package_bit(), run.whole());
    let mut after = run.after();
    let td = td_mut(&mut after, run.tdr)?;
    td.keyed |= bit;
    if td.keyed == whole {
        td.life_cycle = KEYS_CONFIGURED;
    }
    run.succeed(after)
}

pub(super) fn room_for_tdcx(run: &mut Run<'_>) -> Step {
    let td = run.td()?;
    if td.tdcs.len() >= 9 {
        return run.fail((Status::TDCX_NUM_INCORRECT, None));
    }
    if td.tdcs.len() >= 6 && td.op_state != 0 {
        // Whether this comes before or after the checks of the page the sheet does not order.
        run.may((Status::OP_STATE_INCORRECT, None));
    }
    Ok(())
}
/// "At page 6 draws a key; pages 7…9: OP_STATE must be 0".
pub(super) fn tdcx_sixth(run: &mut Run<'_>) -> Step {
    let td = run.td()?;
    if td.tdcs.len() == 5 {
        return entropy(run);
    }
    if td.tdcs.len() >= 6 && td.op_state != 0 {
        return run.fail((Status::OP_STATE_INCORRECT, None));
    }
    Ok(())
}
pub(super) fn mng_addcx(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    run.adopt(&mut after, PageType::Tdcx)?;
    td_mut(&mut after, run.tdr)?.tdcs.push(run.page);
    run.succeed(after)
}

/// The sheet does not say which parameters are valid: any may be refused.
pub(super) fn td_params(run: &mut Run<'_>) -> Step {
    let any = Expected::Status { status: Status::OPERAND_INVALID, low: None };
    run.may_answer(any, None);
    Ok(())
}
/// TD_PARAMS: ATTRIBUTES at 0, MAX_VCPUS at 16 and NUM_L2_VMS at 18, EPTP_CONTROLS at 24 (levels − 1 in 5:3), EXEC_CONTROLS at 32
/// (GPAW in bit 0), as Linux's `struct td_params` has them.
pub(super) fn mng_init(run: &mut Run<'_>) -> Step {
    let params = run.reg(RDX);
    let words = [0, 16, 24, 32].map(|at| run.read(params.wrapping_add(at)));
    let seen = run.seen.and_then(|seen| seen.tds.get(&run.tdr));
    let mut after = run.after();
    let td = td_mut(&mut after, run.tdr)?;
    if let Some(seen) = seen {
        td.attributes = seen.attributes;
        td.max_vcpus = seen.max_vcpus;
        td.l2_vms = seen.l2_vms;
        td.levels = seen.levels;
        td.gpaw = seen.gpaw;
    }
    let [attributes, vcpus, eptp, exec] = words;
    td.attributes = attributes.unwrap_or(td.attributes);
    td.max_vcpus = vcpus.map_or(td.max_vcpus, |word| word as u16);
    td.l2_vms = vcpus.map_or(td.l2_vms, |word| (word >> 16) as u8);
    td.levels = eptp.map_or(td.levels, |word| (word >> 3 & 7) as u8 + 1);
    td.gpaw = exec.map_or(td.gpaw, |word| if word & 1 == 0 { 48 } else { 52 });
    td.epoch = 1;
    td.refcount = [0; 2];
    td.op_state = 1;
    run.succeed(after)
}

pub(super) fn none_associated(run: &mut Run<'_>) -> Step {
    if run.td()?.associated == 0 { Ok(()) } else { run.fail((Status::FLUSHVP_NOT_DONE, None)) }
}
pub(super) fn vpflushdone(run: &mut Run<'_>) -> Step {
    let (hkid, keyed) = (run.td()?.hkid, run.view.sys.keyed);
    let mut after = run.after();
    // "bitmap := configured packages": those that TDH.SYS.KEY.CONFIG configured, which are all (verification.md H3), also when the
    // TD's own key is not configured on each.
    after.kot.insert(hkid, KotView { state: FLUSHED, wbinvd_bitmap: keyed });
    td_mut(&mut after, run.tdr)?.life_cycle = BLOCKED;
    run.succeed(after)
}

pub(super) fn written_back(run: &mut Run<'_>) -> Step {
    let hkid = run.td()?.hkid;
    if run.view.kot.get(&hkid).is_some_and(|kot| kot.wbinvd_bitmap != 0) {
        run.fail((Status::WBCACHE_NOT_COMPLETE, None))
    } else {
        Ok(())
    }
}
pub(super) fn key_freeid(run: &mut Run<'_>) -> Step {
    let hkid = run.td()?.hkid;
    let mut after = run.after();
    after.kot.remove(&hkid);
    td_mut(&mut after, run.tdr)?.life_cycle = TEARDOWN;
    run.succeed(after)
}

pub(super) fn some_vcpu(run: &mut Run<'_>) -> Step {
    if run.td()?.vcpus == 0 { run.fail((Status::NO_VCPUS, None)) } else { Ok(()) }
}
pub(super) fn mr_finalize(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    td_mut(&mut after, run.tdr)?.op_state = 2;
    run.succeed(after)
}

// TDH.VP.*

pub(super) fn vp_create(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    run.adopt(&mut after, PageType::Tdvpr)?;
    let vcpu =
        VcpuView { tdr: run.tdr, pages: vec![run.page], state: UNINITIALIZED, lp: None, epoch: 0 };
    after.vcpus.insert(run.page, vcpu);
    run.succeed(after)
}
pub(super) fn vcpu_new(run: &mut Run<'_>) -> Step {
    if run.vcpu()?.state == UNINITIALIZED {
        Ok(())
    } else {
        run.fail((Status::VCPU_STATE_INCORRECT, None))
    }
}
pub(super) fn room_for_vcpu_page(run: &mut Run<'_>) -> Step {
    if run.vcpu()?.pages.len() < 15 {
        if run.vcpu()?.pages.len() >= needed(run)? {
            // "6 min, 15 max (3 per L2 VM)": whether the limit counts the L2 VMs that there are is not said.
            run.may((Status::TDCX_NUM_INCORRECT, None));
        }
        Ok(())
    } else {
        run.fail((Status::TDCX_NUM_INCORRECT, None))
    }
}
pub(super) fn vp_addcx(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    run.adopt(&mut after, PageType::Tdcx)?;
    vcpu_mut(&mut after, run.vcpu)?.pages.push(run.page);
    run.succeed(after)
}
/// TDVPS pages that a VCPU needs.
fn needed(run: &Run<'_>) -> Result<usize, Ended> {
    Ok(6 + 3 * usize::from(run.td()?.l2_vms))
}
pub(super) fn enough_vcpu_pages(run: &mut Run<'_>) -> Step {
    if run.vcpu()?.pages.len() >= needed(run)? {
        Ok(())
    } else {
        run.fail((Status::TDCX_NUM_INCORRECT, None))
    }
}
pub(super) fn max_vcpus(run: &mut Run<'_>) -> Step {
    let td = run.td()?;
    if td.vcpus < u32::from(td.max_vcpus) {
        Ok(())
    } else {
        run.fail((Status::MAX_VCPUS_EXCEEDED, None))
    }
}
pub(super) fn odd_msrs_init(run: &mut Run<'_>) -> Step {
    if run.company.odd {
        run.may((Status::INCONSISTENT_MSR, None));
    }
    if run.call.rax >> 16 != 0 {
        // The x2APIC id of version 1, of which the sheet knows nothing (architecture.md §10.2 D-22).
        run.may((Status::X2APIC_ID_NOT_UNIQUE, None));
        run.may((Status::OPERAND_INVALID, Some(operand(R8).0)));
    }
    Ok(())
}
pub(super) fn vp_init(run: &mut Run<'_>) -> Step {
    let mut after = associated(&run.after(), run.vcpu, run.tdr, run.call.lp);
    vcpu_mut(&mut after, run.vcpu)?.state = VCPU_READY;
    let td = td_mut(&mut after, run.tdr)?;
    td.vcpus = td.vcpus.saturating_add(1);
    run.succeed(after)
}

pub(super) fn vcpu_ready(run: &mut Run<'_>) -> Step {
    if run.vcpu()?.state == VCPU_READY {
        Ok(())
    } else {
        run.fail((Status::VCPU_STATE_INCORRECT, None))
    }
}
pub(super) fn associate(run: &mut Run<'_>) -> Step {
    match run.vcpu()?.lp {
        Some(lp) if lp != run.call.lp => run.fail((Status::VCPU_ASSOCIATED, None)),
        Some(_) => Ok(()),
        None => {
            // Whether an entry that is refused later leaves the VCPU associated the sheet does not say.
            run.also = Some(Box::new(associated(run.view, run.vcpu, run.tdr, run.call.lp)));
            Ok(())
        }
    }
}
pub(super) fn odd_msrs_vcpu(run: &mut Run<'_>) -> Step {
    if run.company.odd {
        run.may((Status::INCONSISTENT_MSR, None));
        run.may((Status::TSC_ROLLBACK, None));
    }
    Ok(())
}
pub(super) fn epoch_shared(run: &mut Run<'_>) -> Step {
    run.lock(Lock::Epoch(run.tdr), Mode::Shared, Run::busy_with(Operand::TD_EPOCH))
}
pub(super) fn vp_enter(run: &mut Run<'_>) -> Step {
    let (tdr, lp) = (run.tdr, run.call.lp);
    let epoch = run.td()?.epoch;
    let vcpu = run.vcpu()?;
    let mut after = match vcpu.lp {
        None => associated(run.view, run.vcpu, tdr, lp),
        Some(_) => run.after(),
    };
    let here = lp_mut(&mut after, lp)?;
    here.inside = Some(run.vcpu);
    // "if VCPU_EPOCH ≠ TD_EPOCH: flush … unless the VCPU is newly associated"
    if vcpu.lp.is_some() && vcpu.epoch != epoch {
        here.tlb.retain(|(td, ..)| *td != tdr);
    }
    let td = td_mut(&mut after, tdr)?;
    if let Some(count) = td.refcount.get_mut((epoch & 1) as usize) {
        *count = count.saturating_add(1);
    }
    let vcpu = vcpu_mut(&mut after, run.vcpu)?;
    vcpu.epoch = epoch;
    vcpu.state = VCPU_ACTIVE;
    run.may_answer(Expected::Entered, Some(after));
    Ok(())
}

pub(super) fn associated_here(run: &mut Run<'_>) -> Step {
    if run.vcpu()?.lp == Some(run.call.lp) {
        Ok(())
    } else {
        run.fail((Status::VCPU_NOT_ASSOCIATED, None))
    }
}
pub(super) fn vp_flush(run: &mut Run<'_>) -> Step {
    let tdr = run.tdr;
    let mut after = run.after();
    vcpu_mut(&mut after, run.vcpu)?.lp = None;
    // "INVEPT all TD ASIDs"
    lp_mut(&mut after, run.call.lp)?.tlb.retain(|(td, ..)| *td != tdr);
    let td = td_mut(&mut after, tdr)?;
    td.associated = td.associated.saturating_sub(1);
    run.succeed(after)
}

// TDH.MEM.*

pub(super) fn page_add(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    run.adopt(&mut after, PageType::Reg)?;
    run.put(&mut after, run.at, sept::new(SeptState::Mapped, run.page.hpa().0));
    run.succeed(after)
}

/// R8, and with version 1 R9 to R11.
pub(super) fn sept_pages(run: &mut Run<'_>) -> Step {
    let version = run.call.rax >> 16;
    let l2 = run.call.regs.0.get(3..6).unwrap_or_default();
    if version != 0 {
        // Pages for L2 VMs: what the sheet says of them is only that they are (architecture.md §7.9 "R9–R11 for L2").
        if l2.iter().any(|r| *r != 0) || run.td()?.l2_vms != 0 {
            run.may_answer(Expected::AnyError, None);
        }
        if run.company.interrupt {
            run.may((Status::INTERRUPTED_RESUMABLE, None));
        }
    }
    let existing = run.state == SeptState::NlMapped;
    let accept = run.reg(RDX) & 1 != 0;
    if existing && !accept {
        run.details(run.entry, run.state, run.level);
        return run.fail((Status::EPT_ENTRY_STATE_INCORRECT, Some(Operand::RCX.0)));
    }
    const NULL: u64 = u64::MAX;
    if run.reg(R8) == NULL && version != 0 {
        // What the status is without a table the sheet does not say.
        if !existing {
            run.may_answer(Expected::AnyError, None);
            return Err(Ended);
        }
        return Ok(());
    }
    if existing {
        // The page is not used. Whether it is looked at the sheet leaves open.
        let states = run.allowed.len();
        run.may(Run::busy(R8));
        run.may((Status::OPERAND_INVALID, Some(operand(R8).0)));
        run.may((Status::OPERAND_ADDR_RANGE_ERROR, Some(operand(R8).0)));
        run.may((Status::PAGE_METADATA_INCORRECT, Some(operand(R8).0)));
        let good = free_page(run);
        if good {
            run.allowed.truncate(states);
        }
        return Ok(());
    }
    run.page = run.hpa(R8, run.reg(R8), Mode::Exclusive, PageType::Nda)?;
    Ok(())
}
/// R8 is a free page beyond doubt.
fn free_page(run: &Run<'_>) -> bool {
    let value = run.reg(R8);
    let page = Hpa(value).page();
    value & 0xfff == 0
        && run.company.others.is_empty()
        && run.tdmr(page).is_some_and(|t| {
            let at = value.wrapping_sub(t.base);
            !t.reserved.iter().any(|(offset, size)| (*offset..offset + size).contains(&at))
        })
        && [0, 1, 2].iter().all(|level| !run.view.pamt.contains_key(&(*level, block(page, *level))))
}
pub(super) fn sept_add(run: &mut Run<'_>) -> Step {
    if run.state == SeptState::NlMapped {
        return run.succeed(run.after());
    }
    let mut after = run.after();
    run.adopt(&mut after, PageType::Ept)?;
    after.tables.insert(run.page, run.tdr);
    run.put(&mut after, run.at, sept::new(SeptState::NlMapped, run.page.hpa().0));
    run.succeed(after)
}

/// "free range: HPA(R8) with level-size alignment, 2M: all 512 children NDA".
pub(super) fn free_range(run: &mut Run<'_>) -> Step {
    if run.level == 0 {
        run.page = run.hpa(R8, run.reg(R8), Mode::Exclusive, PageType::Nda)?;
        return Ok(());
    }
    let page = run.aligned(R8, run.reg(R8), span(run.level))?;
    run.in_tdmr(R8, page)?;
    let level = run.level;
    let found = run.walk_pamt(page, level, Mode::Exclusive, Run::busy(R8), R8, false)?;
    let tdmr = run.tdmr(page).ok_or(Ended)?;
    let at = page.hpa().0 - tdmr.base;
    let reserved = tdmr
        .reserved
        .iter()
        .any(|(offset, size)| *offset < at + span(level) && at < offset.saturating_add(*size));
    let children = run.view.pamt.range((0, page)..(0, Page(page.0 + pages(level)))).next();
    if found.level != level || found.page_type != PageType::Nda || reserved || children.is_some() {
        if tdmr.dynamic {
            run.may((Status::HPA_RANGE_NOT_FREE, None));
        }
        return run.fail((Status::PAGE_METADATA_INCORRECT, Some(operand(R8).0)));
    }
    run.page = page;
    Ok(())
}
pub(super) fn page_aug(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    run.give(&mut after, run.level, run.page, PageType::Reg);
    let td = td_mut(&mut after, run.tdr)?;
    td.chldcnt = td.chldcnt.saturating_add(pages(run.level));
    run.put(&mut after, run.at, sept::new(SeptState::Pending, run.page.hpa().0));
    run.succeed(after)
}

pub(super) fn blockable(run: &mut Run<'_>) -> Step {
    if [SeptState::NlBlocked, SeptState::Blocked, SeptState::PendingBlocked].contains(&run.state) {
        return run.fail((Status::GPA_RANGE_ALREADY_BLOCKED, Some(Operand::RCX.0)));
    }
    if sept::blocked(run.state).is_none() {
        return run.allowed_states(&[]);
    }
    Ok(())
}
/// The ACCEPT counter of a pending 2 MiB page is cleared (architecture.md §7.6).
fn without_counter(entry: u64, state: SeptState, level: u8) -> u64 {
    let pending = [SeptState::Pending, SeptState::PendingBlocked].contains(&state);
    if pending && level == 1 { entry & !sept::COUNTER } else { entry }
}
pub(super) fn range_block(run: &mut Run<'_>) -> Step {
    let state = sept::blocked(run.state).ok_or(Ended)?;
    let mut after = run.after();
    let entry = without_counter(sept::with(run.entry, state), state, run.level);
    after.sept.insert(run.at, entry);
    let epoch = run.td()?.epoch;
    after.pamt.get_mut(&run.mapped_key()).ok_or(Ended)?.bepoch = epoch;
    run.succeed(after)
}
pub(super) fn range_unblock(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    after.sept.insert(run.at, sept::with(run.entry, sept::unblocked(run.state)));
    run.succeed(after)
}

pub(super) fn epoch_exclusive(run: &mut Run<'_>) -> Step {
    run.lock(Lock::Epoch(run.tdr), Mode::Exclusive, Run::busy_with(Operand::TD_EPOCH))
}
pub(super) fn previous_left(run: &mut Run<'_>) -> Step {
    let td = run.td()?;
    let previous = td.refcount.get((td.epoch.wrapping_sub(1) & 1) as usize);
    if previous.is_some_and(|count| *count != 0) {
        run.fail((Status::PREVIOUS_TLB_EPOCH_BUSY, None))
    } else {
        Ok(())
    }
}
pub(super) fn mem_track(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let td = td_mut(&mut after, run.tdr)?;
    td.epoch = td.epoch.wrapping_add(1);
    run.succeed(after)
}

/// The entry is FREE again; during import it is REMOVED.
fn free_entry(run: &Run<'_>, after: &mut ModuleView) -> Step {
    after.sept.remove(&run.at);
    if run.td()?.op_state >= 6
        && let Some(found) = run.seen.and_then(|seen| seen.sept.get(&run.at))
        && sept::state(*found) == Some(SeptState::Removed)
    {
        after.sept.insert(run.at, *found);
    }
    Ok(())
}
pub(super) fn page_remove(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let (level, page) = run.mapped_key();
    run.release(&mut after, level, page)?;
    free_entry(run, &mut after)?;
    run.out[RCX] = Want::all(page.hpa().0);
    run.succeed(after)
}

/// "interrupt → INTERRUPTED_RESTARTABLE with RCX/RDX restored".
pub(super) fn restartable(run: &mut Run<'_>) -> Step {
    if run.company.interrupt {
        let out = run.out;
        run.out[RCX] = Want::all(run.reg(RCX));
        run.out[RDX] = Want::all(run.reg(RDX));
        run.may((Status::INTERRUPTED_RESTARTABLE, None));
        run.out = out;
    }
    Ok(())
}
/// Dynamic PAMT: a 2 MiB page has no pair of pages for the 4K entries of its parts.
pub(super) fn demote_pamt(run: &mut Run<'_>) -> Step {
    let (level, page) = run.mapped_key();
    if level == 1 && run.tdmr(page).is_some_and(|t| t.dynamic) {
        run.may((Status::MISSING_PAMT_PAGE_PAIR, None));
    }
    Ok(())
}
pub(super) fn page_demote(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let (level, page) = run.mapped_key();
    let below = level.checked_sub(1).ok_or(Ended)?;
    after.pamt.remove(&(level, page));
    let state = sept::unblocked(run.state);
    let whole = without_counter(sept::with(run.entry, state), state, level);
    for index in 0..ENTRIES {
        let child = Page(page.0 + u64::from(index) * pages(below));
        run.give(&mut after, below, child, PageType::Reg);
        let entry = whole & !sept::BASE | child.hpa().0;
        run.put(&mut after, (run.page, index), entry);
    }
    run.adopt(&mut after, PageType::Ept)?;
    after.tables.insert(run.page, run.tdr);
    run.put(&mut after, run.at, sept::new(SeptState::NlMapped, run.page.hpa().0));
    run.succeed(after)
}

fn child(run: &Run<'_>, index: u16) -> u64 {
    let table = Hpa(run.entry & sept::BASE).page();
    run.view.sept.get(&(table, index)).copied().unwrap_or(sept::FREE)
}
/// "first HPA aligned to big size, first state MAPPED or PENDING, every other = same bits with consecutive HPA".
pub(super) fn children(run: &mut Run<'_>) -> Step {
    let first = child(run, 0);
    let state = sept::state(first).ok_or(Ended)?;
    let step = span(run.level.saturating_sub(1));
    let fits = [SeptState::Mapped, SeptState::Pending].contains(&state)
        && first & sept::BASE & (span(run.level) - 1) == 0
        && (0..ENTRIES).all(|index| child(run, index) == first + u64::from(index) * step);
    if fits {
        Ok(())
    } else {
        run.fail((Status::EPT_INVALID_PROMOTE_CONDITIONS, Some(Operand::RCX.0)))
    }
}
pub(super) fn promote_pamt(run: &mut Run<'_>) -> Step {
    let page = Hpa(child(run, 0) & sept::BASE).page();
    run.walk_pamt(page, run.level, Mode::Exclusive, Run::busy(RCX), RCX, false)?;
    Ok(())
}
pub(super) fn page_promote(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let first = child(run, 0);
    let page = Hpa(first & sept::BASE).page();
    let table = Hpa(run.entry & sept::BASE).page();
    let below = run.level.saturating_sub(1);
    for index in 0..ENTRIES {
        after.pamt.remove(&(below, Page(page.0 + u64::from(index) * pages(below))));
    }
    run.give(&mut after, run.level, page, PageType::Reg);
    // The large page's BEPOCH is not in the sheet.
    if let Some(found) = run.seen.and_then(|seen| seen.pamt.get(&(run.level, page)))
        && let Some(entry) = after.pamt.get_mut(&(run.level, page))
    {
        entry.bepoch = found.bepoch;
    }
    Run::drop_table(&mut after, table);
    run.release(&mut after, 0, table)?;
    run.put(&mut after, run.at, first);
    run.out[RCX] = Want::all(table.hpa().0);
    run.succeed(after)
}

pub(super) fn another_page(run: &mut Run<'_>) -> Step {
    if run.reg(R8) == run.entry & sept::BASE { run.invalid(R8) } else { Ok(()) }
}
pub(super) fn page_relocate(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let (level, old) = run.mapped_key();
    after.pamt.remove(&(level, old));
    run.give(&mut after, 0, run.page, PageType::Reg);
    let entry = sept::with(run.entry, sept::unblocked(run.state)) & !sept::BASE;
    after.sept.insert(run.at, entry | run.page.hpa().0);
    run.out[RCX] = Want::all(old.hpa().0);
    run.succeed(after)
}

/// Versions above 0 pass the dispatcher (architecture.md §7.1 step 4); which of them the leaf has the sheet does not say.
pub(super) fn version_of_remove(run: &mut Run<'_>) -> Step {
    if run.call.rax >> 16 > 1 {
        run.may((Status::OPERAND_INVALID, Some(Operand::RAX.0)));
    }
    Ok(())
}
pub(super) fn all_free(run: &mut Run<'_>) -> Step {
    let table = Hpa(run.entry & sept::BASE).page();
    let used = run.view.sept.range((table, 0)..=(table, u16::MAX)).next().is_some();
    if used { run.fail((Status::EPT_PAGE_NOT_FREE, Some(Operand::RCX.0))) } else { Ok(()) }
}
pub(super) fn sept_remove(run: &mut Run<'_>) -> Step {
    let mut after = run.after();
    let table = Hpa(run.entry & sept::BASE).page();
    Run::drop_table(&mut after, table);
    run.release(&mut after, 0, table)?;
    after.sept.remove(&run.at);
    run.out[RCX] = Want::all(table.hpa().0);
    run.succeed(after)
}
pub(super) fn sept_rd(run: &mut Run<'_>) -> Step {
    run.details(run.entry, run.state, run.level);
    run.succeed(run.after())
}

pub(super) fn debug(run: &mut Run<'_>) -> Step {
    if run.td()?.attributes & 1 == 0 { run.fail((Status::TD_NON_DEBUG, None)) } else { Ok(()) }
}
/// "walk to a present leaf else EPT_ENTRY_NOT_PRESENT|RCX". What a leaf without R is called, and an entry above the
/// leaf, the sheet leaves to the reader.
pub(super) fn present_leaf(run: &mut Run<'_>) -> Step {
    let levels = run.td()?.levels;
    for level in (0..levels).rev() {
        let Ok(found) = run.walk_to(level)? else { break };
        if found.state == SeptState::NlMapped {
            continue;
        }
        if !sept::is_leaf(found.state) {
            break;
        }
        (run.at, run.entry, run.state, run.level) = (found.at, found.entry, found.state, level);
        if found.entry & sept::RWX == 0 {
            run.may((Status::EPT_ENTRY_NOT_PRESENT, Some(Operand::RCX.0)));
        }
        return Ok(());
    }
    run.may((Status::EPT_WALK_FAILED, Some(Operand::RCX.0)));
    run.fail((Status::EPT_ENTRY_NOT_PRESENT, Some(Operand::RCX.0)))
}
pub(super) fn readable(run: &mut Run<'_>) -> Step {
    use SeptState as S;
    run.allowed_states(&[
        S::Mapped,
        S::BlockedW,
        S::ExportedBlockedW,
        S::ExportedDirty,
        S::ExportedDirtyBlockedW,
    ])
}
pub(super) fn writable(run: &mut Run<'_>) -> Step {
    run.allowed_states(&[SeptState::Mapped, SeptState::ExportedDirty])
}
/// TDH.MR.EXTEND of what is not mapped: the sheet has no status.
pub(super) fn measured(run: &mut Run<'_>) -> Step {
    let levels = run.td()?.levels;
    for level in (0..levels).rev() {
        match run.walk_to(level)? {
            Ok(found) if found.state == SeptState::Mapped => return Ok(()),
            Ok(found) if found.state == SeptState::NlMapped => {}
            _ => break,
        }
    }
    run.may_answer(Expected::AnyError, None);
    Err(Ended)
}

// TDH.PHYMEM.*

pub(super) fn wb_command(run: &mut Run<'_>) -> Step {
    if run.reg(RCX) > 1 { run.invalid(RCX) } else { Ok(()) }
}
pub(super) fn wb_lock(run: &mut Run<'_>) -> Step {
    let busy = Run::busy_with(Operand::WBCACHE);
    run.lock(Lock::WbCache(run.package()), Mode::Exclusive, busy)
}
fn wb_set(run: &Run<'_>) -> Option<std::collections::BTreeSet<KeyId>> {
    if run.reg(RCX) == 0 {
        let flushed = run.view.kot.iter().filter(|(_, kot)| kot.state == FLUSHED);
        return Some(flushed.map(|(hkid, _)| *hkid).collect());
    }
    run.view.sys.cache_wb.get(usize::from(run.package())).cloned().flatten()
}
fn set_saved(
    after: &mut ModuleView,
    package: u8,
    saved: Option<std::collections::BTreeSet<KeyId>>,
) {
    let package = usize::from(package);
    if after.sys.cache_wb.len() <= package {
        after.sys.cache_wb.resize(package + 1, None);
    }
    if let Some(place) = after.sys.cache_wb.get_mut(package) {
        *place = saved;
    }
}
pub(super) fn wb_hkids(run: &mut Run<'_>) -> Step {
    match wb_set(run) {
        None => run.fail((Status::WBCACHE_RESUME_ERROR, None)),
        Some(set) if set.is_empty() && run.reg(RCX) == 0 => {
            // A point saved before may or may not survive that.
            let mut after = run.after();
            set_saved(&mut after, run.package(), None);
            run.may_with((Status::NO_HKID_READY_TO_WBCACHE, None), after);
            run.fail((Status::NO_HKID_READY_TO_WBCACHE, None))
        }
        Some(set) => {
            if run.company.interrupt {
                let mut after = run.after();
                set_saved(&mut after, run.package(), Some(set));
                run.may_with((Status::INTERRUPTED_RESUMABLE, None), after);
            }
            Ok(())
        }
    }
}
pub(super) fn cache_wb(run: &mut Run<'_>) -> Step {
    let bit = run.package_bit();
    let mut after = run.after();
    for hkid in wb_set(run).ok_or(Ended)? {
        if let Some(kot) = after.kot.get_mut(&hkid) {
            kot.wbinvd_bitmap &= !bit;
        }
    }
    set_saved(&mut after, run.package(), None);
    run.succeed(after)
}

/// The address checks of TDH.PHYMEM.PAGE.RECLAIM and RDMD, and their outputs.
fn metadata(run: &mut Run<'_>, mode: Mode) -> Step {
    run.page = run.aligned(RCX, run.reg(RCX), 4096)?;
    run.in_tdmr(RCX, run.page)?;
    run.pamt = Some(run.walk_pamt(run.page, 0, mode, Run::busy(RCX), RCX, false)?);
    Ok(())
}
fn metadata_out(run: &mut Run<'_>) -> Step {
    let found = run.pamt.ok_or(Ended)?;
    run.out[RCX] = Want::all(found.page_type.code().into());
    let Some(entry) = found.entry else { return Ok(()) };
    // What a TDR's entry has as owner is not in the sheet.
    if found.page_type != PageType::Tdr && found.page_type != PageType::Pamt {
        run.out[RDX] = Want::all(entry.owner.hpa().0);
    }
    run.out[R8] = Want::all(found.level.into());
    Ok(())
}
pub(super) fn rdmd_page(run: &mut Run<'_>) -> Step {
    metadata(run, Mode::Shared)?;
    metadata_out(run)?;
    let found = run.pamt.ok_or(Ended)?;
    if let (PageType::Reg | PageType::Ept, Some(entry)) = (found.page_type, found.entry) {
        run.out[super::run::R9] = Want::all(entry.bepoch);
    }
    Ok(())
}
pub(super) fn reclaim_page(run: &mut Run<'_>) -> Step {
    metadata(run, Mode::Exclusive)?;
    let found = run.pamt.ok_or(Ended)?;
    if [PageType::Nda, PageType::Rsvd, PageType::Pamt].contains(&found.page_type) {
        return run.fail((Status::PAGE_METADATA_INCORRECT, Some(Operand::RCX.0)));
    }
    metadata_out(run)?;
    if run.page != found.page {
        return run.invalid(RCX);
    }
    let wrong = (Status::LIFECYCLE_STATE_INCORRECT, None);
    if found.page_type == PageType::Tdr {
        run.tdr = run.page;
        if run.td()?.life_cycle != TEARDOWN {
            return run.fail(wrong);
        }
        if run.td()?.chldcnt != 0 {
            return run.fail((Status::TD_ASSOCIATED_PAGES_EXIST, None));
        }
        return Ok(());
    }
    run.owner(found.entry.ok_or(Ended)?.owner, Mode::Shared)?;
    if run.td()?.life_cycle == TEARDOWN { Ok(()) } else { run.fail(wrong) }
}
pub(super) fn page_reclaim(run: &mut Run<'_>) -> Step {
    let found = run.pamt.ok_or(Ended)?;
    let mut after = run.after();
    if found.page_type == PageType::Tdr {
        after.pamt.remove(&(0, found.page));
        after.tds.remove(&found.page);
    } else {
        run.release(&mut after, found.level, found.page)?;
        after.vcpus.remove(&found.page);
        Run::drop_table(&mut after, found.page);
    }
    run.succeed(after)
}
