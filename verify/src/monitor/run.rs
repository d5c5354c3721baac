//! Runs the row of a leaf over a view: every check in order, collecting what the sheet allows.

use super::lock::{self, Held, Lock, Mode};
use super::rules::{self, Check, Kind};
use super::sept::{self, SeptState};
use super::{Allowed, Call, Company, Expected, Memory, Spec, Want};
use crate::view::{ModuleView, PamtView, TdView, TdmrView, VcpuView};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page};

/// A register operand: its place in `CallRegs`.
pub(super) type Reg = usize;
pub(super) const RCX: Reg = 0;
pub(super) const RDX: Reg = 1;
pub(super) const R8: Reg = 2;
pub(super) const R9: Reg = 3;

/// The operand id of a register.
pub(super) fn operand(reg: Reg) -> Operand {
    match reg {
        RCX => Operand::RCX,
        RDX => Operand::RDX,
        more => Operand(8 + more as u32 - 2),
    }
}

/// Bytes in a GiB, the unit of TDMRs.
pub(super) const GIB: u64 = 1 << 30;
/// The end of the address space for which the module is built (architecture.md §8).
const TOP: u64 = 1 << 52;

/// The run has ended: the last answer is in `allowed`.
#[derive(Debug)]
pub(super) struct Ended;
pub(super) type Step = Result<(), Ended>;

/// What a PAMT walk found (architecture.md §7.2 "PAMT walk").
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    pub(super) level: u8,
    pub(super) page: Page,
    pub(super) page_type: PageType,
    pub(super) entry: Option<PamtView>,
}

pub(super) struct Run<'a> {
    pub(super) spec: &'a Spec,
    pub(super) view: &'a ModuleView,
    pub(super) call: &'a Call,
    pub(super) company: &'a Company<'a>,
    pub(super) memory: &'a dyn Memory,
    /// The view after the call, for what the sheet leaves open.
    pub(super) seen: Option<&'a ModuleView>,
    pub(super) allowed: Vec<Allowed>,
    /// Changes that stay even when the call fails from here on.
    pub(super) kept: Option<Box<ModuleView>>,
    /// The view that a failure from here on may leave instead.
    pub(super) also: Option<Box<ModuleView>>,
    /// Outputs that a failure from here on gives.
    pub(super) out: [Want; 6],
    own: Held,
    insiders: Held,
    others: Vec<Held>,
    /// Only which locks are taken is asked: no lock is refused.
    gather: bool,
    why: &'static str,
    // What the checks have found.
    pub(super) tdr: Page,
    pub(super) vcpu: Page,
    pub(super) page: Page,
    pub(super) level: u8,
    pub(super) gpa: u64,
    pub(super) at: (Page, u16),
    pub(super) entry: u64,
    pub(super) state: SeptState,
    pub(super) pamt: Option<Walked>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        spec: &'a Spec,
        view: &'a ModuleView,
        call: &'a Call,
        company: &'a Company<'a>,
        memory: &'a dyn Memory,
        seen: Option<&'a ModuleView>,
    ) -> Run<'a> {
        Run {
            spec,
            view,
            call,
            company,
            memory,
            seen,
            allowed: Vec::new(),
            kept: None,
            also: None,
            out: [Want::default(); 6],
            own: Held::new(),
            insiders: Held::new(),
            others: Vec::new(),
            gather: false,
            why: "",
            tdr: Page(0),
            vcpu: Page(0),
            page: Page(0),
            level: 0,
            gpa: 0,
            at: (Page(0), 0),
            entry: sept::FREE,
            state: SeptState::Free,
            pamt: None,
        }
    }

    /// Everything that is allowed.
    pub(super) fn run(mut self) -> Vec<Allowed> {
        self.insiders = lock::of_insiders(self.view, self.call.lp);
        self.others = self.company.others.iter().map(|f| lock::of_flight(self.spec, f)).collect();
        let _ended = self.dispatch();
        self.allowed
    }

    /// The locks that the call takes.
    pub(super) fn held(mut self) -> Held {
        self.gather = true;
        let _ended = self.dispatch();
        self.own
    }

    fn dispatch(&mut self) -> Step {
        if self.call.guest.is_some() {
            return self.guest();
        }
        // architecture.md §7.1, the dispatcher's order.
        self.why = "dispatch";
        if self.view.sys.disabled {
            self.push(Expected::VmFailInvalid, None);
            return Err(Ended);
        }
        let (leaf, version) = (Leaf(self.call.leaf()), self.call.rax >> 16 & 0xff);
        let invalid = (Status::OPERAND_INVALID, Some(Operand::RAX.0));
        if self.call.rax >> 24 != 0 {
            return self.fail(invalid);
        }
        let highest = match leaf {
            Leaf::VP_INIT => u64::from(self.spec.tdx.vp_init_version),
            leaf if rules::VERSIONED.contains(&leaf) => u64::MAX,
            _ => 0,
        };
        if version > highest {
            return self.fail(invalid);
        }
        const READY: u8 = 3;
        const SHUTDOWN: u8 = 4;
        if self.view.sys.state == SHUTDOWN && leaf != Leaf::SYS_LP_SHUTDOWN {
            return self.fail((Status::SYS_SHUTDOWN, None));
        }
        let early = rules::EARLY.contains(&leaf);
        // The sheet does not say whether TDH.SYS.DISABLE may come before SYS_READY.
        let disable = leaf == Leaf::SYS_DISABLE && self.spec.tdx.sys_disable;
        if self.view.sys.state != READY && !early && !disable {
            return self.fail((Status::SYS_NOT_READY, None));
        }
        match rules::kind(self.spec, leaf) {
            Kind::Unknown => self.fail(invalid),
            Kind::NotJudged => {
                self.why = "not judged";
                self.own.push((Lock::Any, Mode::Exclusive));
                self.push(Expected::AnyStatus, None);
                if let Some(last) = self.allowed.last_mut() {
                    last.open = true;
                }
                Err(Ended)
            }
            Kind::Unchanged => {
                self.why = "not judged, but for that nothing may change";
                self.push(Expected::AnyStatus, None);
                self.associations();
                if self.gather {
                    // architecture.md §7.2 "TDR lock modes"; how the TDVPR is locked it does not say.
                    let checks: &[Check] = match leaf {
                        Leaf::MNG_RD | Leaf::MNG_WR => {
                            &[Check::Tdr(RCX, Mode::Shared), Check::State(true)]
                        }
                        Leaf::VP_RD | Leaf::VP_WR => &[
                            Check::Vcpu(RCX, Mode::Exclusive),
                            Check::Owner(Mode::Shared),
                            Check::State(true),
                        ],
                        _ => &[],
                    };
                    for check in checks {
                        self.check(check)?;
                    }
                }
                Err(Ended)
            }
            Kind::Judged(rule) => {
                for check in rule.checks {
                    self.why = check.name();
                    self.check(check)?;
                }
                self.why = "done";
                (rule.effect)(self)
            }
        }
    }

    // What to answer.

    fn push(&mut self, answer: Expected, after: Option<Box<ModuleView>>) {
        let (out, why) = (self.out, self.why);
        if after.is_none() && self.also.is_some() {
            let after = self.also.clone();
            self.allowed.push(Allowed { answer, out, after, open: false, why });
        }
        let after = after.or_else(|| self.kept.clone());
        self.allowed.push(Allowed { answer, out, after, open: false, why });
    }
    /// The call ends so.
    pub(super) fn fail(&mut self, (status, low): (Status, Option<u32>)) -> Step {
        self.may((status, low));
        Err(Ended)
    }
    /// The call may end so.
    pub(super) fn may(&mut self, (status, low): (Status, Option<u32>)) {
        let low = low.or(if has_operand(status) { None } else { Some(0) });
        self.push(Expected::Status { status, low }, None);
    }
    /// The call may end so, with this view after it.
    pub(super) fn may_with(&mut self, (status, low): (Status, Option<u32>), after: ModuleView) {
        let low = low.or(if has_operand(status) { None } else { Some(0) });
        self.push(Expected::Status { status, low }, Some(Box::new(after)));
    }
    /// The call may end so.
    pub(super) fn may_answer(&mut self, answer: Expected, after: Option<ModuleView>) {
        self.push(answer, after.map(Box::new));
    }
    /// An operand's register is invalid.
    pub(super) fn invalid(&mut self, reg: Reg) -> Step {
        self.fail((Status::OPERAND_INVALID, Some(operand(reg).0)))
    }
    /// The call succeeds: the view after it and its outputs.
    pub(super) fn succeed(&mut self, after: ModuleView) -> Step {
        self.push(
            Expected::Status { status: Status::SUCCESS, low: Some(0) },
            Some(Box::new(after)),
        );
        Ok(())
    }
    /// The view before, with what stays.
    pub(super) fn after(&self) -> ModuleView {
        self.kept.as_deref().unwrap_or(self.view).clone()
    }

    // What is there.

    pub(super) fn reg(&self, reg: Reg) -> u64 {
        self.call.regs.0.get(reg).copied().unwrap_or(0)
    }
    /// The TD of this run. A view whose PAMT has a TDR without TD is a defect of the view; the run ends without an answer.
    pub(super) fn td(&self) -> Result<&'a TdView, Ended> {
        self.view.tds.get(&self.tdr).ok_or(Ended)
    }
    /// The VCPU of this run.
    pub(super) fn vcpu(&self) -> Result<&'a VcpuView, Ended> {
        self.view.vcpus.get(&self.vcpu).ok_or(Ended)
    }
    pub(super) fn package(&self) -> u8 {
        self.view.lps.get(usize::from(self.call.lp)).map_or(0, |lp| lp.package)
    }
    pub(super) fn keyid(&self, address: u64) -> u64 {
        let k = u32::from(self.spec.keyid.keyid_bits);
        let shift = u32::from(self.spec.keyid.maxpa).saturating_sub(k);
        address >> shift & ((1 << k) - 1)
    }
    pub(super) fn without_keyid(&self, address: u64) -> u64 {
        let k = u32::from(self.spec.keyid.keyid_bits);
        let shift = u32::from(self.spec.keyid.maxpa).saturating_sub(k);
        address & !(((1 << k) - 1) << shift)
    }
    /// architecture.md §8: private KeyIDs are NUM_MKTME_KIDS + 1 to NUM_MKTME_KIDS + NUM_TDX_PRIV_KIDS.
    pub(super) fn is_private(&self, keyid: u64) -> bool {
        let first = u64::from(self.spec.keyid.mktme_kids) + 1;
        (first..first + u64::from(self.spec.keyid.tdx_priv_kids)).contains(&keyid)
    }
    /// 8 bytes of memory, at an address that may carry a KeyID.
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let keyid = KeyId(u16::try_from(self.keyid(address)).ok()?);
        self.memory.read(Addr::new(Hpa(self.without_keyid(address)), keyid))
    }
    /// The TDMR of a page, if the page can be used.
    pub(super) fn tdmr(&self, page: Page) -> Option<&'a TdmrView> {
        let address = page.hpa().0;
        self.view.tdmrs.iter().find(|t| {
            address.checked_sub(t.base).is_some_and(|at| at < t.size)
                && address < t.next / GIB * GIB
        })
    }
    fn is_reserved(&self, page: Page) -> bool {
        self.tdmr(page).is_some_and(|t| {
            let at = page.hpa().0 - t.base;
            t.reserved
                .iter()
                .any(|(offset, size)| at.checked_sub(*offset).is_some_and(|x| x < *size))
        })
    }

    // Locks.

    /// Takes a lock; `busy` is the answer when it cannot.
    pub(super) fn lock(&mut self, lock: Lock, mode: Mode, busy: (Status, Option<u32>)) -> Step {
        if !self.gather {
            if lock::refused(&self.own, lock, mode) {
                return self.fail(busy);
            }
            let alone = self.company.others.is_empty();
            if lock::refused(&self.insiders, lock, mode) {
                // The VCPU may leave, in company, before the lock is asked for.
                if alone {
                    return self.fail(busy);
                }
                self.may(busy);
            } else if self.others.iter().any(|held| lock::refused(held, lock, mode)) {
                self.may(busy);
            }
        }
        self.own.push((lock, mode));
        Ok(())
    }
    pub(super) fn busy(reg: Reg) -> (Status, Option<u32>) {
        (Status::OPERAND_BUSY, Some(operand(reg).0))
    }
    pub(super) fn busy_with(operand: Operand) -> (Status, Option<u32>) {
        (Status::OPERAND_BUSY, Some(operand.0))
    }

    /// The PAMT walk of a page down to a level, or to a larger PT_REG on the way.
    pub(super) fn walk_pamt(
        &mut self,
        page: Page,
        to: u8,
        mode: Mode,
        busy: (Status, Option<u32>),
        reg: Reg,
        must_exist: bool,
    ) -> Result<Walked, Ended> {
        for level in [2, 1] {
            let first = lock::block(page, level);
            let entry = self.view.pamt.get(&(level, first)).copied();
            let page_type = entry.map_or(PageType::Nda, |e| e.page_type);
            if page_type == PageType::Reg || level == to {
                self.lock(Lock::Pamt(level, first), mode, busy)?;
                return Ok(Walked { level, page: first, page_type, entry });
            }
            self.lock(Lock::Pamt(level, first), Mode::Shared, busy)?;
            let dynamic = self.tdmr(page).is_some_and(|t| t.dynamic);
            if level == 1 && dynamic && page_type != PageType::Pamt {
                // linux-host-paths.md §13: no 4K entries without a pair of pages.
                let missing = (Status::MISSING_PAMT_PAGE_PAIR, Some(operand(reg).0));
                if must_exist {
                    return Err(match self.fail(missing) {
                        Ok(()) => Ended,
                        Err(ended) => ended,
                    });
                }
                self.may(missing);
            }
        }
        self.lock(Lock::Pamt(0, page), mode, busy)?;
        let entry = self.view.pamt.get(&(0, page)).copied();
        let page_type = match entry {
            Some(entry) => entry.page_type,
            None if self.is_reserved(page) => PageType::Rsvd,
            None => PageType::Nda,
        };
        Ok(Walked { level: 0, page, page_type, entry })
    }

    // The sequences of architecture.md §7.7.

    /// A page operand: alignment and width.
    pub(super) fn aligned(&mut self, reg: Reg, value: u64, align: u64) -> Result<Page, Ended> {
        if value & (align - 1) != 0 || value >= TOP || self.keyid(value) != 0 {
            self.invalid(reg)?;
        }
        if value >> self.spec.keyid.maxpa != 0 {
            // Between MAXPA and the 52 bits of the sheet.
            self.may((Status::OPERAND_INVALID, Some(operand(reg).0)));
        }
        Ok(Hpa(value).page())
    }
    /// Inside a TDMR whose GiB is initialised.
    pub(super) fn in_tdmr(&mut self, reg: Reg, page: Page) -> Step {
        match self.tdmr(page) {
            Some(_) => Ok(()),
            None => self.fail((Status::OPERAND_ADDR_RANGE_ERROR, Some(operand(reg).0))),
        }
    }
    /// HPA(r, lock, PT).
    pub(super) fn hpa(
        &mut self,
        reg: Reg,
        value: u64,
        mode: Mode,
        page_type: PageType,
    ) -> Result<Page, Ended> {
        let page = self.aligned(reg, value, 4096)?;
        self.in_tdmr(reg, page)?;
        // A page that is only asked about needs no 4K entries; one that is to be given a type does.
        let must_exist = mode == Mode::Exclusive && page_type == PageType::Nda;
        let found = self.walk_pamt(page, 0, mode, Self::busy(reg), reg, must_exist)?;
        if found.level != 0 || found.page_type != page_type {
            self.fail((Status::PAGE_METADATA_INCORRECT, Some(operand(reg).0)))?;
        }
        Ok(page)
    }
    /// The lock of the TDR of a VCPU or page (OPERAND_BUSY|128).
    pub(super) fn owner(&mut self, tdr: Page, mode: Mode) -> Step {
        let busy = Self::busy_with(Operand::TDR);
        let found = self.walk_pamt(tdr, 0, mode, busy, RCX, false)?;
        if found.page_type != PageType::Tdr {
            // A view in which an owner is no TDR.
            return Err(Ended);
        }
        self.tdr = tdr;
        Ok(())
    }
    /// STATE.
    fn state(&mut self, locked: bool) -> Step {
        self.not_fatal()?;
        self.keys()?;
        let td = self.td()?;
        if td.tdcs.len() < 6 {
            return self.fail((Status::TDCS_NOT_ALLOCATED, None));
        }
        if locked {
            let busy = Self::busy_with(Operand::OP_STATE);
            self.lock(Lock::OpState(self.tdr), Mode::Shared, busy)?;
        }
        if !rules::op_state_allowed(Leaf(self.call.leaf()), td.op_state) {
            return self.fail((Status::OP_STATE_INCORRECT, None));
        }
        Ok(())
    }
    fn not_fatal(&mut self) -> Step {
        if self.td()?.fatal { self.fail((Status::TD_FATAL, None)) } else { Ok(()) }
    }
    fn keys(&mut self) -> Step {
        if self.td()?.life_cycle == 1 {
            Ok(())
        } else {
            self.fail((Status::TD_KEYS_NOT_CONFIGURED, None))
        }
    }
    /// The highest level of an entry: that of the root's entries.
    fn root(&self) -> Result<u8, Ended> {
        Ok(self.td()?.levels.saturating_sub(1))
    }
    /// GPA(min..max): the page-info operand of architecture.md §7.4.
    fn gpa_operand(&mut self, min: u8, max: u8) -> Step {
        let value = self.reg(RCX);
        let max = if max == rules::ROOT { self.root()? } else { max };
        let level = (value & 7) as u8;
        let gpa = value & sept::BASE;
        let bad = value >> 52 != 0
            || value & 0xff8 != 0
            || !(min..=max).contains(&level)
            || gpa & (span(level) - 1) != 0;
        if bad {
            return self.invalid(RCX);
        }
        (self.level, self.gpa) = (level, gpa);
        Ok(())
    }
    /// The SHARED bit is 0 and the address is within the width of the TD.
    pub(super) fn private(&mut self) -> Step {
        let gpaw = u32::from(self.td()?.gpaw).clamp(1, 63);
        if self.gpa >> (gpaw - 1) != 0 { self.invalid(RCX) } else { Ok(()) }
    }
    /// The walk itself: the entry at this level, or that at which the walk ends.
    pub(super) fn walk_to(&self, level: u8) -> Result<Result<Walk, Walk>, Ended> {
        let td = self.td()?;
        let mut table = *td.tdcs.get(3).ok_or(Ended)?;
        for at in (level..td.levels).rev() {
            let index = (self.gpa >> (12 + 9 * u32::from(at)) & 0x1ff) as u16;
            let entry = self.view.sept.get(&(table, index)).copied().unwrap_or(sept::FREE);
            let state = sept::state(entry).ok_or(Ended)?;
            let here = Walk { at: (table, index), entry, state, level: at };
            if at == level {
                return Ok(Ok(here));
            }
            if state != SeptState::NlMapped || entry & sept::RWX == 0 {
                return Ok(Err(here));
            }
            table = Hpa(entry & sept::BASE).page();
        }
        Err(Ended)
    }
    fn walk(&mut self) -> Step {
        match self.walk_to(self.level)? {
            Ok(found) => {
                (self.at, self.entry, self.state) = (found.at, found.entry, found.state);
                Ok(())
            }
            Err(last) => {
                self.details(last.entry, last.state, last.level);
                self.fail((Status::EPT_WALK_FAILED, Some(Operand::RCX.0)))
            }
        }
    }
    /// From now on RCX and RDX give this entry (architecture.md §7.6).
    pub(super) fn details(&mut self, entry: u64, state: SeptState, level: u8) {
        let (mask, value) = sept::architectural(entry, state);
        let public = u64::from(sept::row_of(state).public);
        self.out[RCX] = Want { mask, value };
        self.out[RDX] = Want::all(u64::from(level) | public << 8);
    }
    /// ENTRY.
    pub(super) fn lock_entry(&mut self, bytes: u64) -> Step {
        let lock = Lock::Entries(self.tdr, self.gpa & !(bytes - 1), bytes);
        self.lock(lock, Mode::Exclusive, Self::busy(RCX))?;
        // A host that wins the lock clears its priority (architecture.md §7.2); it stays cleared if a later check fails.
        if self.view.kept.contains(&self.at) && self.call.guest.is_none() {
            let mut kept = self.after();
            kept.kept.remove(&self.at);
            self.kept = Some(Box::new(kept));
        }
        Ok(())
    }
    /// ALLOWED.
    pub(super) fn allowed_states(&mut self, states: &[SeptState]) -> Step {
        if states.contains(&self.state) {
            return Ok(());
        }
        self.details(self.entry, self.state, self.level);
        self.fail((Status::EPT_ENTRY_STATE_INCORRECT, Some(Operand::RCX.0)))
    }
    /// The PAMT entry of the page that the Secure-EPT entry maps, at its level, or of the Secure-EPT page.
    fn lock_mapped(&mut self) -> Step {
        let page = Hpa(self.entry & sept::BASE).page();
        let to = if sept::is_leaf(self.state) { self.level.min(2) } else { 0 };
        let page = lock::block(page, to);
        let low = Some(Operand::RCX.0);
        let found =
            self.walk_pamt(page, to, Mode::Exclusive, (Status::OPERAND_BUSY, low), RCX, false)?;
        self.pamt = Some(found);
        Ok(())
    }
    /// Tracked(page) of architecture.md §7.8.
    fn is_tracked(&self, bepoch: u64) -> Result<bool, Ended> {
        let td = self.td()?;
        let old = bepoch.checked_add(1).ok_or(Ended)?;
        Ok(bepoch >> 63 == 0
            && (old < td.epoch
                || old == td.epoch
                    && td.refcount.get((bepoch & 1) as usize).is_some_and(|count| *count == 0)))
    }
    /// TLB tracking is enforced in this OP_STATE (architecture.md §7.5).
    fn tracks(&self) -> Result<bool, Ended> {
        Ok([2, 3, 9].contains(&self.td()?.op_state))
    }
    /// TRACK; `unblock`: TDH.MEM.RANGE.UNBLOCK, whose states are all blocked and whose status names the tree.
    fn track(&mut self, unblock: bool) -> Step {
        if !self.tracks()? || !sept::row_of(self.state).tracked {
            return Ok(());
        }
        let blocked = [SeptState::NlBlocked, SeptState::Blocked, SeptState::PendingBlocked];
        if !blocked.contains(&self.state) {
            return self.fail((Status::GPA_RANGE_NOT_BLOCKED, Some(Operand::RCX.0)));
        }
        let found = match self.mapped() {
            Some(found) => found,
            None => return Err(Ended),
        };
        if !self.is_tracked(found.bepoch)? {
            let low = if unblock { Operand::SEPT_TREE } else { Operand::RCX };
            return self.fail((Status::TLB_TRACKING_NOT_DONE, Some(low.0)));
        }
        Ok(())
    }
    /// The PAMT entry of what the Secure-EPT entry points to.
    pub(super) fn mapped(&self) -> Option<PamtView> {
        self.view.pamt.get(&self.mapped_key()).copied()
    }
    /// Its key in the view.
    pub(super) fn mapped_key(&self) -> (u8, Page) {
        let level = if sept::is_leaf(self.state) { self.level.min(2) } else { 0 };
        (level, lock::block(Hpa(self.entry & sept::BASE).page(), level))
    }
    /// SHPA(r, align).
    fn shared_hpa(&mut self, reg: Reg, align: u64) -> Step {
        let value = self.reg(reg);
        if self.bad_shared(value, align, align) { self.invalid(reg) } else { Ok(()) }
    }
    /// Whether a shared operand of so many bytes is refused.
    pub(super) fn bad_shared(&self, value: u64, align: u64, bytes: u64) -> bool {
        let address = self.without_keyid(value);
        let seamrr = self.spec.tdx.seamrr;
        value & (align - 1) != 0
            || value >= TOP
            || self.keyid(value) > u64::from(self.spec.keyid.mktme_kids)
            || address < seamrr.end && seamrr.base < address.saturating_add(bytes)
    }

    fn check(&mut self, check: &Check) -> Step {
        match *check {
            Check::Sys(mode) => self.lock(Lock::Sys, mode, (Status::SYS_BUSY, None)),
            Check::SysState(state, status) => {
                if self.view.sys.state == state {
                    Ok(())
                } else {
                    self.fail((status, None))
                }
            }
            Check::Zero(reg) => {
                if self.reg(reg) == 0 {
                    Ok(())
                } else {
                    self.invalid(reg)
                }
            }
            Check::Version(max) => {
                if self.call.rax >> 16 & 0xff > max {
                    self.fail((Status::OPERAND_INVALID, Some(Operand::RAX.0)))
                } else {
                    Ok(())
                }
            }
            Check::Flags(reg, allowed) => {
                if self.reg(reg) & 0xfff & !allowed != 0 {
                    self.invalid(reg)
                } else {
                    Ok(())
                }
            }
            Check::Hkid(reg) => {
                if self.is_private(self.reg(reg)) {
                    Ok(())
                } else {
                    self.invalid(reg)
                }
            }
            Check::Tdr(reg, mode) => {
                let leaf = Leaf(self.call.leaf());
                let asks = leaf == Leaf::MEM_SEPT_RD && self.reg(reg) & 1 != 0;
                if asks {
                    // A flag for the attributes of L2 VMs: the sheet has no row for it, the source has
                    // (intel/tdx-module tdh_mem_sept_rd.c).
                    self.may((Status::OPERAND_INVALID, Some(operand(reg).0)));
                }
                let flags = u64::from(asks || rules::FLAGGED.contains(&leaf));
                self.tdr = self.hpa(reg, self.reg(reg) & !flags, mode, PageType::Tdr)?;
                Ok(())
            }
            Check::Vcpu(reg, mode) => {
                self.vcpu = self.hpa(reg, self.reg(reg), mode, PageType::Tdvpr)?;
                Ok(())
            }
            Check::Entering => {
                let value = self.reg(RCX);
                let flags = 0xfff | !((1 << 52) - 1);
                if value & flags != 0 {
                    // Which of these bits are flags and which reserved is not in the sheet.
                    self.may((Status::OPERAND_INVALID, Some(Operand::RCX.0)));
                }
                self.vcpu = self.hpa(RCX, value & !flags, Mode::Shared, PageType::Tdvpr)?;
                Ok(())
            }
            Check::NewPage(reg) => {
                self.page = self.hpa(reg, self.reg(reg), Mode::Exclusive, PageType::Nda)?;
                Ok(())
            }
            Check::FreePage(reg) => {
                let value = self.without_keyid(self.reg(reg));
                self.page = self.hpa(reg, value, Mode::Shared, PageType::Nda)?;
                Ok(())
            }
            Check::Owner(mode) => {
                let tdr = self.vcpu()?.tdr;
                let exclusive =
                    Leaf(self.call.leaf()) == Leaf::VP_INIT && self.spec.tdx.vp_init_exclusive;
                self.owner(tdr, if exclusive { Mode::Exclusive } else { mode })
            }
            Check::NotFatal => self.not_fatal(),
            Check::Keys => self.keys(),
            Check::LifeCycle(states) => {
                if states.contains(&self.td()?.life_cycle) {
                    Ok(())
                } else {
                    self.fail((Status::LIFECYCLE_STATE_INCORRECT, None))
                }
            }
            Check::State(locked) => self.state(locked),
            Check::Gpa(min, max) => self.gpa_operand(min, max),
            Check::GpaAligned(align) => {
                let value = self.reg(RCX);
                if value & (align - 1) != 0 || value >= TOP {
                    return self.invalid(RCX);
                }
                self.gpa = value;
                Ok(())
            }
            Check::Private => self.private(),
            Check::Tree(mode) => {
                let busy = Self::busy_with(Operand::SEPT_TREE);
                self.lock(Lock::Tree(self.tdr), mode, busy)
            }
            Check::Walk => self.walk(),
            Check::Entry => self.lock_entry(span(self.level)),
            Check::Allowed(states) => self.allowed_states(states),
            Check::MappedPage => self.lock_mapped(),
            Check::Track => self.track(false),
            Check::TrackUnblock => self.track(true),
            Check::SharedPage(reg, align) => self.shared_hpa(reg, align),
            Check::Kot(mode) => self.lock(Lock::Kot, mode, Self::busy_with(Operand::KOT)),
            Check::Own(_, check) => check(self),
        }
    }
}

/// Where a Secure-EPT walk came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub(super) at: (Page, u16),
    pub(super) entry: u64,
    pub(super) state: SeptState,
    pub(super) level: u8,
}

/// Bytes that an entry of this level maps.
pub(super) fn span(level: u8) -> u64 {
    1 << (12 + 9 * u32::from(level.min(4)))
}

/// Whether the sheet leaves the low half of a status open when it gives none: statuses whose low half holds an operand or
/// details.
fn has_operand(status: Status) -> bool {
    use sim_core::tdx::{Low, STATUSES};
    STATUSES.iter().any(|row| row.status == status && row.low != Low::Plain)
        && status != Status::SUCCESS
}
