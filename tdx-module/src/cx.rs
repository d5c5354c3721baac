//! What a leaf works with: the module, its own flight, the processor; and the check sequences that leaves share
//! (architecture.md §7.7), under the names of the sheet.

use crate::flight::{Env, Flight, GuestEntry, Held, Live, Touch, reg};
use crate::lock::{Busy, Mode};
use crate::op_state::{self, KotState, Lifecycle};
use crate::pamt::{PamtEntry, Size};
use crate::sept::{self, Entry, State};
use crate::td::{TDCS_MIN, Td, Vcpu, layout};
use crate::{Module, sept_at};
use sim_core::event::{EventKind, Trace};
use sim_core::op::KeyAlg;
use sim_core::planted::Fault;
use sim_core::platform::{IntegrityMode, XtsWidth};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page};

/// How a stage of a leaf ends when no check has failed.
pub(crate) enum Flow {
    /// What was queued is touched, then the leaf goes on with this stage.
    Again(u8),
    /// What was queued is touched, locks are released, the leaf is over.
    Done(Status),
    /// The guest runs; when it has left, the leaf goes on with this stage. Nothing may be queued.
    Enter(GuestEntry, u8),
    /// The module gives itself up.
    Fatal,
    /// The real module would act and this one does not know how.
    NotModelled,
}

/// How a stage of a leaf ends. An error is a status: what was touched so far is touched, locks are released.
pub(crate) type Stage = Result<Flow, Status>;

/// Where a Secure-EPT entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At {
    pub(crate) table: Page,
    pub(crate) index: u16,
    pub(crate) level: u8,
}

/// A leaf at work.
pub(crate) struct Cx<'a> {
    pub(crate) m: &'a mut Module,
    pub(crate) f: &'a mut Flight,
    pub(crate) env: &'a Env<'a>,
    pub(crate) trace: &'a mut Trace,
}

/// The operand id of a register, by its index in [`reg`].
pub(crate) const fn operand(r: usize) -> Operand {
    match r {
        reg::RCX => Operand::RCX,
        reg::RDX => Operand::RDX,
        r => Operand(r as u32 + 6),
    }
}

/// OPERAND_INVALID about a register.
pub(crate) const fn invalid(r: usize) -> Status {
    Status::OPERAND_INVALID.about(operand(r))
}

/// Fails with a status unless a condition holds.
pub(crate) const fn ensure(condition: bool, otherwise: Status) -> Result<(), Status> {
    if condition { Ok(()) } else { Err(otherwise) }
}

impl Cx<'_> {
    /// An operand.
    pub(crate) fn reg(&self, r: usize) -> u64 {
        self.f.regs.get(r).copied().unwrap_or(0)
    }
    /// Sets an output register.
    pub(crate) fn out(&mut self, r: usize, value: u64) {
        if let Some(out) = self.f.out.get_mut(r) {
            *out = value;
        }
    }
    /// The global HKID; KeyID 0 before it is set, when nobody touches anything under it.
    pub(crate) fn global(&self) -> KeyId {
        self.m.sys.global_hkid.unwrap_or(KeyId::TME)
    }
    /// Work without memory traffic.
    pub(crate) fn spend(&mut self, cost: impl Fn(&sim_core::platform::TdxCost) -> sim_core::Ps) {
        let time = cost(&self.m.spec.tdx.cost);
        self.f.touch(Touch::Spend(time));
    }
    /// PCONFIG SET_KEY_RANDOM for a KeyID, with the platform's algorithm (architecture.md §1.3 1.3.3).
    pub(crate) fn pconfig(&mut self, keyid: KeyId) {
        let alg = match (self.m.spec.integrity, self.m.spec.xts) {
            (IntegrityMode::Ci, XtsWidth::Xts128) => KeyAlg::Xts128Integrity,
            (IntegrityMode::Ci, XtsWidth::Xts256) => KeyAlg::Xts256Integrity,
            (IntegrityMode::Li, XtsWidth::Xts128) => KeyAlg::Xts128,
            (IntegrityMode::Li, XtsWidth::Xts256) => KeyAlg::Xts256,
        };
        self.f.touch(Touch::Pconfig { keyid, alg });
    }
    /// A cached store of 16 bytes.
    pub(crate) fn store16(&mut self, at: Addr, value: [u64; 2]) {
        self.f.touch(Touch::Store { at, value, bytes: 16, locked: false });
    }
    /// The lines that the last `count` loads returned, as one array of words.
    pub(crate) fn loaded(&self, count: usize) -> impl Iterator<Item = u64> {
        let from = self.f.data.len().saturating_sub(count);
        self.f.data.iter().skip(from).flat_map(|line| line.0)
    }
    /// 64 MOVDIR64B over a page, every 8 bytes the same, then MFENCE.
    pub(crate) fn fill_page(&mut self, page: Page, keyid: KeyId, word: u64) {
        self.f.touch(Touch::Fill { at: Addr::new(page.hpa(), keyid), lines: 64, word });
    }

    // ----------------------------------------------------------------------------------------------------- structures

    /// The TD; `Err` never happens behind [`Cx::tdr`].
    pub(crate) fn td(&self, tdr: Page) -> Result<&Td, Status> {
        self.m.tds.get(&tdr).ok_or(Status::PAGE_METADATA_INCORRECT.about(Operand::TDR))
    }
    /// The TD, to change it.
    pub(crate) fn td_mut(&mut self, tdr: Page) -> Result<&mut Td, Status> {
        self.m.tds.get_mut(&tdr).ok_or(Status::PAGE_METADATA_INCORRECT.about(Operand::TDR))
    }
    /// The VCPU; `Err` never happens behind a check for PT_TDVPR.
    pub(crate) fn vcpu(&self, tdvpr: Page) -> Result<&Vcpu, Status> {
        self.m.vcpus.get(&tdvpr).ok_or(Status::PAGE_METADATA_INCORRECT.about(Operand::TDVPR))
    }
    /// The VCPU, to change it.
    pub(crate) fn vcpu_mut(&mut self, tdvpr: Page) -> Result<&mut Vcpu, Status> {
        self.m.vcpus.get_mut(&tdvpr).ok_or(Status::PAGE_METADATA_INCORRECT.about(Operand::TDVPR))
    }
    /// TDCS page 0 of a TD, where its management fields lie.
    pub(crate) fn tdcs(&self, tdr: Page) -> Result<Page, Status> {
        self.td(tdr)?.tdcs.first().copied().ok_or(Status::TDCS_NOT_ALLOCATED)
    }
    /// Reads the TDR's management line, and the line of its key.
    pub(crate) fn load_tdr(&mut self, tdr: Page) {
        let global = self.global();
        self.f.load(layout::tdr_management(tdr), global, 64);
    }
    /// Writes the TDR's management line: CHLDCNT, life cycle, fatal.
    pub(crate) fn store_tdr(&mut self, tdr: Page) {
        let global = self.global();
        self.f.live(layout::tdr_management(tdr), global, false, Live::Tdr(tdr));
    }
    /// Adds to CHLDCNT and writes it.
    pub(crate) fn add_children(&mut self, tdr: Page, pages: u64) -> Result<(), Status> {
        let td = self.td_mut(tdr)?;
        td.chldcnt = td.chldcnt.wrapping_add(pages);
        self.store_tdr(tdr);
        Ok(())
    }
    /// Takes from CHLDCNT and writes it.
    pub(crate) fn sub_children(&mut self, tdr: Page, pages: u64) -> Result<(), Status> {
        let planted = self.m.spec.planted;
        let td = self.td_mut(tdr)?;
        let pages = if planted.is(Fault::ChldcntForgotten) { 0 } else { pages };
        td.chldcnt = td.chldcnt.saturating_sub(pages);
        self.store_tdr(tdr);
        Ok(())
    }
    /// Writes a PAMT entry, here and in memory: an ordinary cached store under the global HKID.
    pub(crate) fn set_pamt(&mut self, pa: u64, size: Size, entry: PamtEntry) {
        let above = self.m.pamt(pa, Size::Large);
        self.note_pamt(pa, size, self.m.pamt(pa, size).page_type(), entry);
        if let Some(tdmr) = self.m.tdmr_of_mut(pa) {
            tdmr.set(pa, size, entry);
        }
        self.m.touch_pamt(self.f, pa, size, false);
        // Dynamic PAMT: the entry above counts the pages in use, by a locked addition.
        if size == Size::Small && self.m.pamt(pa, Size::Large) != above {
            self.m.touch_pamt(self.f, pa, Size::Large, true);
        }
    }

    /// Where the byte of a guest-physical address lies in the page that an entry maps.
    pub(crate) fn byte_of(&self, at: At, gpa: u64) -> Hpa {
        let offset = gpa & ((1 << (12 + 9 * u64::from(at.level))) - 1);
        Hpa(self.entry(at).hpa_at(at.level).0 | offset)
    }
    /// Reads TDCS: the root of the Secure-EPT, by leaves that do not take the tree's lock in the same line.
    pub(crate) fn load_root(&mut self, tdr: Page) -> Result<(), Status> {
        let (page, hkid) = (self.tdcs(tdr)?, self.td(tdr)?.hkid);
        self.f.load(layout::tdcs_tree(page), hkid, 8);
        Ok(())
    }
    /// Reads TDCS: the measurement in progress.
    pub(crate) fn load_mrtd(&mut self, tdr: Page) -> Result<(), Status> {
        let (page, hkid) = (self.tdcs(tdr)?, self.td(tdr)?.hkid);
        self.f.load(layout::tdcs_mrtd(page), hkid, 64);
        Ok(())
    }
    /// Writes TDCS: the measurement in progress, of which the number of blocks stands for all.
    pub(crate) fn store_mrtd(&mut self, tdr: Page) -> Result<(), Status> {
        let td = self.td(tdr)?;
        let (page, hkid, blocks) = (self.tdcs(tdr)?, td.hkid, td.mrtd.blocks());
        self.f.store(layout::tdcs_mrtd(page), hkid, blocks);
        Ok(())
    }
    /// Reads a PAMT entry without its lock.
    pub(crate) fn load_pamt(&mut self, pa: u64, size: Size) {
        let at = self.m.tdmr_of(pa).and_then(|tdmr| tdmr.entry_at(pa, size));
        if let Some(at) = at {
            let global = self.global();
            self.f.load(at, global, 16);
        }
    }

    /// Records that a PAMT entry has another page type or owner.
    pub(crate) fn note_pamt(&mut self, pa: u64, size: Size, before: PageType, entry: PamtEntry) {
        if !self.trace.is_on() {
            return;
        }
        let (after, owner) = (entry.page_type(), entry.owner());
        if before != after || owner != self.m.pamt(pa, size).owner() {
            let page = sim_core::Hpa(pa & !(size.bytes() - 1)).page();
            let level = size.level();
            self.trace.emit(EventKind::Pamt { page, level, before, after, owner });
        }
    }
    /// Records that a Secure-EPT entry has changed by more than its lock and the host's priority.
    fn note_entry(&mut self, tdr: Page, at: At, before: Entry, after: Entry) {
        let plain = |entry: Entry| entry.with_locked(false).with_host_priority(false);
        if self.trace.is_on() && plain(before) != plain(after) {
            let (td, table, index) = (tdr, at.table, at.index);
            let (before, after) = (before.0, after.0);
            self.trace.emit(EventKind::Sept { td, table, index, before, after });
        }
    }
    /// Writes the state of an HKID in the key ownership table.
    pub(crate) fn set_kot(&mut self, hkid: KeyId, state: KotState) {
        if let Some(entry) = self.m.sys.kot.get_mut(usize::from(hkid.0)) {
            let (before, after) = (entry.state.code(), state.code());
            entry.state = state;
            self.trace.emit(EventKind::Kot { keyid: hkid, before, after });
        }
    }

    // ---------------------------------------------------------------------------------------------------------- locks

    /// The module's global lock, else SYS_BUSY.
    pub(crate) fn lock_global(&mut self, mode: Mode) -> Result<(), Status> {
        // TDH.SYS.DISABLE, once called, locks out new TDH.SYS.* leaves, so that it gets on (linux-host-paths.md §16.5,
        // comment of the kernel series).
        let disabling = self.m.sys.disabling.is_some() && self.f.leaf != Leaf::SYS_DISABLE;
        ensure(!disabling, Status::SYS_BUSY)?;
        self.m.sys.lock.try_take(mode).map_err(|_| Status::SYS_BUSY)?;
        self.f.locks.push(Held::Global(mode));
        Ok(())
    }
    /// The key ownership table's lock, else OPERAND_BUSY|186.
    pub(crate) fn lock_kot(&mut self, mode: Mode) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::KOT);
        self.m.sys.kot_lock.try_take(mode).map_err(|_| busy)?;
        self.f.locks.push(Held::Kot(mode));
        Ok(())
    }
    /// The mutex of a TDMR, else OPERAND_BUSY|RCX.
    pub(crate) fn lock_tdmr(&mut self, index: u16) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::RCX);
        let lock = self.m.tdmr_locks.get_mut(usize::from(index)).ok_or(invalid(reg::RCX))?;
        lock.try_take(Mode::Exclusive).map_err(|_| busy)?;
        self.f.locks.push(Held::Tdmr(index));
        Ok(())
    }
    /// The lock of one PAMT entry.
    pub(crate) fn lock_pamt(&mut self, pa: u64, size: Size, mode: Mode) -> Result<(), Busy> {
        let pa = pa & !(size.bytes() - 1);
        let locks = &mut self.m.pamt_locks;
        let at = locks.iter().position(|(s, p, _)| (*s, *p) == (size, pa));
        let taken = match at.and_then(|at| locks.get_mut(at)) {
            Some((_, _, lock)) => lock.try_take(mode),
            None => {
                let mut lock = crate::lock::Lock::default();
                let taken = lock.try_take(mode);
                locks.push((size, pa, lock));
                taken
            }
        };
        if taken.is_ok() {
            self.f.locks.push(Held::Pamt { size, pa, mode });
        }
        // A failed attempt has read the line for ownership as well.
        self.m.touch_pamt(self.f, pa, size, true);
        taken
    }
    /// Turns the shared lock of a PAMT entry, the last one taken, into an exclusive one.
    fn promote_pamt(&mut self, pa: u64, size: Size) -> Result<(), Busy> {
        let pa = pa & !(size.bytes() - 1);
        let lock = self.m.pamt_locks.iter_mut().find(|(s, p, _)| (*s, *p) == (size, pa));
        let (_, _, lock) = lock.ok_or(Busy::Taken)?;
        lock.promote()?;
        if let Some(Held::Pamt { mode, .. }) = self.f.locks.last_mut() {
            *mode = Mode::Exclusive;
        }
        self.m.touch_pamt(self.f, pa, size, true);
        Ok(())
    }
    /// The PAMT walk of architecture.md §7.2: shared locks down to the entry of `size`, that one in `mode`. The walk
    /// stops above at a PT_REG entry, which is then locked in `mode`; where it stopped is returned.
    pub(crate) fn pamt_walk(&mut self, pa: u64, size: Size, mode: Mode) -> Result<Size, Busy> {
        for at in [Size::Huge, Size::Large] {
            self.lock_pamt(pa, at, Mode::Shared)?;
            // With dynamic PAMT there may be no entries below 2 MiB.
            let last = at == Size::Large
                && self.m.tdmr_of(pa).is_none_or(|t| t.entry_at(pa, Size::Small).is_none());
            if at == size || last || self.m.pamt(pa, at).page_type() == PageType::Reg {
                if mode == Mode::Exclusive {
                    self.promote_pamt(pa, at)?;
                }
                return Ok(at);
            }
        }
        self.lock_pamt(pa, Size::Small, mode)?;
        Ok(Size::Small)
    }
    /// The OP_STATE lock, else OPERAND_BUSY|172. It has host priority.
    pub(crate) fn lock_op_state(&mut self, tdr: Page, mode: Mode) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::OP_STATE);
        let td = self.td_mut(tdr)?;
        let (taken, hkid) = (td.op_lock.try_take_host(mode), td.hkid);
        let page = self.tdcs(tdr)?;
        self.f.live(layout::tdcs_op_state(page), hkid, true, Live::OpState(tdr));
        taken.map_err(|_| busy)?;
        self.f.locks.push(Held::OpState(tdr, mode));
        Ok(())
    }
    /// The epoch lock, else OPERAND_BUSY|169.
    pub(crate) fn lock_epoch(&mut self, tdr: Page, mode: Mode) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::TD_EPOCH);
        let td = self.td_mut(tdr)?;
        let (taken, hkid) = (td.epoch_lock.try_take(mode), td.hkid);
        let page = self.tdcs(tdr)?;
        self.f.live(layout::tdcs_epoch(page), hkid, true, Live::Epoch(tdr));
        taken.map_err(|_| busy)?;
        self.f.locks.push(Held::Epoch(tdr, mode));
        Ok(())
    }
    /// The lock of the Secure-EPT tree, else OPERAND_BUSY|146.
    pub(crate) fn lock_tree(&mut self, tdr: Page, mode: Mode) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::SEPT_TREE);
        let td = self.td_mut(tdr)?;
        let (taken, hkid) = (td.tree_lock.try_take(mode), td.hkid);
        let page = self.tdcs(tdr)?;
        self.f.live(layout::tdcs_tree(page), hkid, true, Live::Tree(tdr));
        taken.map_err(|_| busy)?;
        self.f.locks.push(Held::Tree(tdr, mode));
        Ok(())
    }

    // ------------------------------------------------------------------------------------- §7.7, names of the sheet

    /// A physical address of the module's memory: aligned to `align`, without KeyID bits, in range; inside a TDMR whose
    /// GiB is initialised.
    pub(crate) fn physical(&self, r: usize, align: u64) -> Result<u64, Status> {
        self.physical_at(r, self.reg(r), align)
    }
    /// The same where bits of the register that are not the address were taken off before.
    pub(crate) fn physical_at(&self, r: usize, pa: u64, align: u64) -> Result<u64, Status> {
        let bits = self.m.spec.keyid.address_bits();
        ensure(pa & (align - 1) == 0 && pa >> bits == 0, invalid(r))?;
        let usable = self.m.tdmr_of(pa).is_some_and(|t| t.is_usable(pa));
        ensure(usable, Status::OPERAND_ADDR_RANGE_ERROR.about(operand(r)))?;
        Ok(pa)
    }
    /// HPA(r, lock, PT): a private 4 KiB page operand in register `r`.
    pub(crate) fn hpa(&mut self, r: usize, mode: Mode, want: PageType) -> Result<Page, Status> {
        self.hpa_at(r, self.reg(r), mode, want)
    }
    /// The same where bits of the register that are not the address were taken off before.
    pub(crate) fn hpa_at(
        &mut self,
        r: usize,
        pa: u64,
        mode: Mode,
        want: PageType,
    ) -> Result<Page, Status> {
        let pa = self.physical_at(r, pa, Size::Small.bytes())?;
        self.metadata(pa, r, mode, want)
    }
    /// The second half of HPA: PAMT walk, level and type. Also for addresses that come with KeyID bits.
    pub(crate) fn metadata(
        &mut self,
        pa: u64,
        r: usize,
        mode: Mode,
        want: PageType,
    ) -> Result<Page, Status> {
        let op = operand(r);
        let walk = self.pamt_walk(pa, Size::Small, mode);
        let reached = walk.map_err(|_| Status::OPERAND_BUSY.about(op))?;
        let found = self.m.pamt(pa, reached).page_type();
        if reached == Size::Large && found == PageType::Nda && want == PageType::Nda {
            return Err(Status::MISSING_PAMT_PAGE_PAIR.about(op));
        }
        let fits = reached == Size::Small && found == want;
        ensure(fits, Status::PAGE_METADATA_INCORRECT.about(op))?;
        // Dynamic PAMT: a page that is free by its entry may be a PAMT page.
        if let (PageType::Nda, Some(at)) = (want, self.bitmap_at(pa)) {
            let global = self.global();
            self.f.load(at, global, 8);
            let marked = self.m.tdmr_of(pa).is_some_and(|t| t.is_marked(pa));
            ensure(!marked, Status::PAGE_METADATA_INCORRECT.about(op))?;
        }
        Ok(sim_core::Hpa(pa).page())
    }
    /// Dynamic PAMT: where the bitmap word of a page lies.
    pub(crate) fn bitmap_at(&self, pa: u64) -> Option<sim_core::Hpa> {
        self.m.tdmr_of(pa)?.bitmap_at(pa)
    }
    /// Dynamic PAMT: makes a page a PAMT page in the bitmap, or not, by a locked instruction; whether that is a change.
    pub(crate) fn mark_pamt_page(&mut self, page: Page, is: bool) -> bool {
        let (pa, global) = (page.hpa().0, self.global());
        let Some(tdmr) = self.m.tdmr_of_mut(pa) else { return false };
        let changes = tdmr.is_marked(pa) != is;
        if changes {
            tdmr.mark(pa, is);
        }
        if let Some(at) = tdmr.bitmap_at(pa) {
            self.f.live(at, global, true, Live::Bitmap(pa));
        }
        changes
    }
    /// A free page in register `r`, exclusively locked: HPA(r, ex, NDA).
    pub(crate) fn free_page(&mut self, r: usize) -> Result<Page, Status> {
        self.hpa(r, Mode::Exclusive, PageType::Nda)
    }
    /// TDR(r, mode).
    pub(crate) fn tdr(&mut self, r: usize, mode: Mode) -> Result<Page, Status> {
        self.tdr_at(r, self.reg(r), mode)
    }
    /// TDR(r, mode) where bits of the register that are not the address were taken off before.
    pub(crate) fn tdr_at(&mut self, r: usize, pa: u64, mode: Mode) -> Result<Page, Status> {
        let tdr = self.hpa_at(r, pa, mode, PageType::Tdr)?;
        self.load_tdr(tdr);
        Ok(tdr)
    }
    /// The TDR that owns a page, locked through its own PAMT entry, else OPERAND_BUSY|128.
    pub(crate) fn owner_tdr(&mut self, page: Page, mode: Mode) -> Result<Page, Status> {
        let tdr = self.m.pamt(page.hpa().0, Size::Small).owner();
        self.lock_owner(tdr, mode)?;
        Ok(tdr)
    }
    /// The lock of a TDR that is known by other means than an operand, else OPERAND_BUSY|128.
    pub(crate) fn lock_owner(&mut self, tdr: Page, mode: Mode) -> Result<(), Status> {
        let busy = Status::OPERAND_BUSY.about(Operand::TDR);
        self.lock_pamt(tdr.hpa().0, Size::Small, mode).map_err(|_| busy)?;
        self.load_tdr(tdr);
        Ok(())
    }
    /// STATE(lock): fatal, keys, TDCS, OP_STATE.
    pub(crate) fn state(&mut self, tdr: Page, lock: bool) -> Result<(), Status> {
        let td = self.td(tdr)?;
        ensure(!td.fatal, Status::TD_FATAL)?;
        ensure(td.lifecycle == Lifecycle::KeysConfigured, Status::TD_KEYS_NOT_CONFIGURED)?;
        ensure(td.tdcs.len() >= TDCS_MIN, Status::TDCS_NOT_ALLOCATED)?;
        if lock {
            self.lock_op_state(tdr, Mode::Shared)?;
        } else {
            let (page, hkid) = (self.tdcs(tdr)?, self.td(tdr)?.hkid);
            self.f.load(layout::tdcs_op_state(page), hkid, 8);
        }
        let allowed = op_state::allowed(self.f.leaf, self.td(tdr)?.op_state);
        ensure(allowed.unwrap_or(true), Status::OP_STATE_INCORRECT)
    }
    /// GPA(lo..=hi): address and level of RCX.
    pub(crate) fn gpa(&self, lo: u8, hi: u8) -> Result<(u64, u8), Status> {
        let info = self.reg(reg::RCX);
        let level = (info & 7) as u8;
        let gpa = info & !0xfff;
        let fits = info & 0xff8 == 0
            && info >> 52 == 0
            && (lo..=hi).contains(&level)
            && gpa & ((1 << (12 + 9 * u64::from(level))) - 1) == 0;
        ensure(fits, invalid(reg::RCX))?;
        Ok((gpa, level))
    }
    /// Whether a guest-physical address is private: SHARED bit 0, within the width.
    pub(crate) fn is_private_gpa(&self, tdr: Page, gpa: u64) -> bool {
        self.m.tds.get(&tdr).is_some_and(|td| gpa & td.shared_bit() == 0 && gpa >> td.gpaw == 0)
    }
    /// The highest level of an entry: those of the root.
    pub(crate) fn root_level(&self, tdr: Page) -> u8 {
        self.m.tds.get(&tdr).map_or(3, |td| td.levels.saturating_sub(1))
    }
    /// WALK(tree lock).
    pub(crate) fn walk(
        &mut self,
        tdr: Page,
        gpa: u64,
        level: u8,
        tree: Mode,
    ) -> Result<At, Status> {
        ensure(self.is_private_gpa(tdr, gpa), invalid(reg::RCX))?;
        self.lock_tree(tdr, tree)?;
        self.walk_unlocked(tdr, gpa, level)
    }
    /// The walk itself, to the entry of the requested level, else EPT_WALK_FAILED|RCX with the details of the last entry
    /// met.
    pub(crate) fn walk_unlocked(&mut self, tdr: Page, gpa: u64, level: u8) -> Result<At, Status> {
        let (at, reached) = self.descend(tdr, gpa, level)?;
        if reached {
            return Ok(at);
        }
        self.details(at);
        Err(Status::EPT_WALK_FAILED.about(Operand::RCX))
    }
    /// Walks down as far as it goes, at most to `level`: the last entry met, and whether it is that of `level`. A walk
    /// stops at an entry that is not present and at a leaf.
    pub(crate) fn descend(&mut self, tdr: Page, gpa: u64, level: u8) -> Result<(At, bool), Status> {
        let td = self.td(tdr)?;
        let (hkid, mut table, mut at_level) = (td.hkid, td.sept_root(), self.root_level(tdr));
        loop {
            let index = (gpa >> (12 + 9 * u64::from(at_level)) & 511) as u16;
            let at = At { table, index, level: at_level };
            self.f.load(sept_at(table, index), hkid, 8);
            if at_level <= level {
                return Ok((at, true));
            }
            let entry = self.entry(at);
            if !entry.is_present() || entry.is_leaf() {
                return Ok((at, false));
            }
            table = entry.page();
            at_level -= 1;
        }
    }
    /// A Secure-EPT entry.
    pub(crate) fn entry(&self, at: At) -> Entry {
        self.m.sept_entry(at.table, at.index).unwrap_or(Entry::FREE)
    }
    /// The state of a Secure-EPT entry.
    pub(crate) fn entry_state(&self, at: At) -> State {
        self.entry(at).state().unwrap_or(State::Free)
    }
    /// Writes a Secure-EPT entry: one aligned 64-bit cached store under the TD's HKID. The lock bits stay as they are.
    pub(crate) fn set_entry(&mut self, tdr: Page, at: At, entry: Entry) {
        let old = self.entry(at);
        let entry = entry.with_locked(old.locked()).with_host_priority(old.host_priority());
        self.note_entry(tdr, at, old, entry);
        self.m.sept_set(at.table, at.index, entry);
        if let Some(hkid) = self.m.tds.get(&tdr).map(|td| td.hkid) {
            self.store_entry(at, hkid, false);
        }
    }
    fn store_entry(&mut self, at: At, hkid: KeyId, locked: bool) {
        let At { table, index, .. } = at;
        self.f.live(sept_at(table, index), hkid, locked, Live::Entry(table, index));
    }
    /// The walk of leaves that find a page at whatever level it is: to a leaf with any of R, W and X, else
    /// EPT_ENTRY_NOT_PRESENT|RCX with the details of the last entry met (architecture.md §7.9 "TDH.MEM.RD"). The caller
    /// holds what keeps the tree from changing.
    pub(crate) fn walk_to_leaf(&mut self, tdr: Page, gpa: u64) -> Result<At, Status> {
        ensure(self.is_private_gpa(tdr, gpa), invalid(reg::RCX))?;
        let (at, _) = self.descend(tdr, gpa, 0)?;
        let entry = self.entry(at);
        if entry.is_leaf() && entry.is_present() {
            return Ok(at);
        }
        self.details(at);
        Err(Status::EPT_ENTRY_NOT_PRESENT.about(Operand::RCX))
    }
    /// Writes the locked entry of a leaf and ends its lock, host priority included, in the one store (architecture.md
    /// §7.6 "Entry writes are single aligned 64-bit cached stores").
    pub(crate) fn set_entry_unlocked(&mut self, tdr: Page, at: At, entry: Entry) {
        let mine = Held::Entry { table: at.table, index: at.index };
        self.f.locks.retain(|held| *held != mine);
        let entry = entry.with_locked(false).with_host_priority(false);
        self.note_entry(tdr, at, self.entry(at), entry);
        self.m.sept_set(at.table, at.index, entry);
        if let Some(hkid) = self.m.tds.get(&tdr).map(|td| td.hkid) {
            self.store_entry(at, hkid, false);
        }
    }
    /// ENTRY: the entry's lock, by the host, else OPERAND_BUSY|RCX with details.
    pub(crate) fn lock_entry(&mut self, tdr: Page, at: At) -> Result<(), Status> {
        let mut entry = self.entry(at);
        let won = entry.try_lock_host();
        self.m.sept_set(at.table, at.index, entry);
        let hkid = self.td(tdr)?.hkid;
        self.store_entry(at, hkid, true);
        if !won {
            self.details(at);
            return Err(Status::OPERAND_BUSY.about(Operand::RCX));
        }
        self.f.locks.push(Held::Entry { table: at.table, index: at.index });
        Ok(())
    }
    /// The entry's lock, by a guest: OPERAND_BUSY|RCX when it is taken, OPERAND_BUSY_HOST_PRIORITY|RCX when it is kept
    /// for the host (architecture.md §7.2 "SEPT-entry lock"). TDHP stays as it is.
    pub(crate) fn lock_entry_guest(&mut self, tdr: Page, at: At) -> Result<(), Status> {
        let mut entry = self.entry(at);
        let taken = entry.try_lock_guest();
        self.m.sept_set(at.table, at.index, entry);
        let hkid = self.td(tdr)?.hkid;
        self.store_entry(at, hkid, true);
        taken.map_err(|busy| match busy {
            sept::GuestBusy::Taken => Status::OPERAND_BUSY.about(Operand::RCX),
            sept::GuestBusy::HostPriority => Status::OPERAND_BUSY_HOST_PRIORITY.about(Operand::RCX),
        })?;
        self.f.locks.push(Held::Entry { table: at.table, index: at.index });
        Ok(())
    }
    /// ALLOWED: the entry's state is in the leaf's list, else EPT_ENTRY_STATE_INCORRECT|RCX with details.
    pub(crate) fn allowed(&mut self, at: At) -> Result<State, Status> {
        let state = self.entry_state(at);
        if sept::allowed(self.f.leaf, state) == Some(true) {
            return Ok(state);
        }
        self.details(at);
        Err(Status::EPT_ENTRY_STATE_INCORRECT.about(Operand::RCX))
    }
    /// Returns an entry's details in RCX and RDX (architecture.md §7.6).
    pub(crate) fn details(&mut self, at: At) {
        let (rcx, rdx) = self.entry(at).details(at.level);
        self.out(reg::RCX, rcx);
        self.out(reg::RDX, rdx);
    }
    /// TRACK: where tracking is enforced and the state needs it, the entry is blocked and no TLB can still have it.
    pub(crate) fn track(&mut self, tdr: Page, at: At, bepoch: u64) -> Result<(), Status> {
        let state = self.entry_state(at);
        let td = self.td(tdr)?;
        let planted = self.m.spec.planted;
        if !state.needs_tracking(td.op_state) || planted.is(Fault::RemoveWithoutBlock) {
            return Ok(());
        }
        let tracked = td.is_tracked(bepoch) || planted.is(Fault::TrackedTooEarly);
        if !state.is_blocked() {
            self.details(at);
            return Err(Status::GPA_RANGE_NOT_BLOCKED.about(Operand::RCX));
        }
        self.load_epoch(tdr)?;
        ensure(tracked, Status::TLB_TRACKING_NOT_DONE.about(Operand::RCX))
    }
    /// Reads the line of TD_EPOCH and its REFCOUNTs.
    pub(crate) fn load_epoch(&mut self, tdr: Page) -> Result<(), Status> {
        let (page, hkid) = (self.tdcs(tdr)?, self.td(tdr)?.hkid);
        self.f.load(layout::tdcs_epoch(page), hkid, 64);
        Ok(())
    }
    /// SHPA(r, align): a shared operand, with the KeyID that it carries.
    pub(crate) fn shpa(&self, r: usize, align: u64, bytes: u64) -> Result<Addr, Status> {
        self.shpa_at(r, self.reg(r), align, bytes)
    }
    /// SHPA of an address that was read from memory: a failure is about register `r`.
    pub(crate) fn shpa_at(
        &self,
        r: usize,
        full: u64,
        align: u64,
        bytes: u64,
    ) -> Result<Addr, Status> {
        ensure(full & (align - 1) == 0, invalid(r))?;
        let layout = &self.m.spec.keyid;
        let addr = layout.split(full).ok_or(invalid(r))?;
        let area =
            sim_core::units::Area { base: addr.hpa.0, end: addr.hpa.0.saturating_add(bytes) };
        let fits = !layout.is_private(addr.keyid) && !area.overlaps(&self.m.spec.tdx.seamrr);
        ensure(fits, invalid(r))?;
        Ok(addr)
    }
}
