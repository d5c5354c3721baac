//! TDH.MNG.*: a TD from its first page to the release of its key (architecture.md §7.9).

use super::sys::{key_programmed, package_bit, private_hkid};
use crate::cx::{Cx, Flow, Stage, ensure, invalid};
use crate::fields::{
    self, ARCH_CAPABILITIES_CONFIG, ATTRIBUTE_MIGRATABLE, ATTRIBUTES_FIXED0, CONFIG_FLAGS_FIXED0,
    CONTEXT_TD, CPUID_CONFIGS, MICROSECOND, NO_FIELD, TdValue, XFAM_FIXED0, XFAM_FIXED1,
};
use crate::flight::reg::{R8, R9, RCX, RDX};
use crate::lock::{Lock, Mode};
use crate::measure::Mrtd;
use crate::op_state::{KotState, Lifecycle, OpState, allowed};
use crate::pamt::{PamtEntry, Size};
use crate::sept::Entry;
use crate::td::{ATTRIBUTE_DEBUG, MSR_BITMAPS, SEPT_ROOT, TDCS_MAX, TDCS_MIN, Td, layout};
use crate::{KotEntry, flight::Touch};
use sim_core::planted::Fault;
use sim_core::tdx::{Operand, PageType, Status};
use sim_core::{Hpa, KeyId, Page, Ps};

/// Makes a page one of a TD: type and owner are written, BEPOCH stays as it is (architecture.md §7.4).
fn take(cx: &mut Cx<'_>, page: Page, page_type: PageType, owner: Page) {
    let pa = page.hpa().0;
    let mut entry = PamtEntry::new(page_type, owner);
    entry.bepoch = cx.m.pamt(pa, Size::Small).bepoch;
    cx.set_pamt(pa, Size::Small, entry);
}

/// Writes the line of a TD's key: HKID, and the packages that have it.
fn store_keys(cx: &mut Cx<'_>, tdr: Page) -> Result<(), Status> {
    let td = cx.td(tdr)?;
    let word = u64::from(td.keyed) << 16 | u64::from(td.hkid.0);
    let global = cx.global();
    cx.f.store(layout::tdr_keys(tdr), global, word);
    Ok(())
}

/// The entry of a TD's HKID in the key ownership table.
fn kot_mut<'a>(cx: &'a mut Cx<'_>, hkid: KeyId) -> Result<&'a mut KotEntry, Status> {
    let entry = cx.m.sys.kot.get_mut(usize::from(hkid.0));
    entry.ok_or(Status::OPERAND_INVALID.about(Operand::KOT))
}

/// TDH.MNG.CREATE (9).
pub(crate) fn create(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let hkid = private_hkid(cx, RDX)?;
        let page = cx.free_page(RCX)?;
        cx.lock_kot(Mode::Exclusive)?;
        let free = kot_mut(cx, hkid)?.state == KotState::Free
            || cx.m.spec.planted.is(Fault::TwoTdsOneHkid);
        ensure(free, Status::HKID_NOT_FREE)?;
        // The page is gone from here on, whatever becomes of the call (architecture.md §7.10.1).
        let global = cx.global();
        cx.fill_page(page, global, 0);
        cx.f.touch(Touch::Random);
        cx.f.scratch.page = page;
        cx.f.scratch.hkid = hkid.0;
        return Ok(Flow::Again(1));
    }
    ensure(cx.f.random != Some(false), Status::RND_NO_ENTROPY)?;
    let (tdr, hkid) = (cx.f.scratch.page, KeyId(cx.f.scratch.hkid));
    cx.set_kot(hkid, KotState::Assigned);
    let td = Td {
        hkid,
        lifecycle: Lifecycle::HkidAssigned,
        fatal: false,
        keyed: 0,
        chldcnt: 0,
        tdcs: Vec::with_capacity(TDCS_MAX),
        op_state: OpState::Uninit,
        op_lock: Lock::default(),
        tree_lock: Lock::default(),
        epoch_lock: Lock::default(),
        epoch: 0,
        refcount: [0; 2],
        attributes: 0,
        xfam: 0,
        gpaw: 48,
        levels: 4,
        max_vcpus: 0,
        l2_vms: 0,
        config_flags: 0,
        tsc_frequency: 0,
        tsc_offset: 0,
        vcpus: 0,
        associated: 0,
        mrtd: Mrtd::new(),
        hp_lock_timeout: Ps::ZERO,
    };
    cx.m.tds.insert(tdr, td);
    cx.store_tdr(tdr);
    store_keys(cx, tdr)?;
    take(cx, tdr, PageType::Tdr, Page(0));
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MNG.KEY.CONFIG (8), once per package.
pub(crate) fn key_config(cx: &mut Cx<'_>) -> Stage {
    let bit = package_bit(cx.env.package);
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RCX, Mode::Exclusive)?;
        let global = cx.global();
        cx.f.load(layout::tdr_keys(tdr), global, 64);
        let td = cx.td(tdr)?;
        ensure(!td.fatal, Status::TD_FATAL)?;
        ensure(td.lifecycle == Lifecycle::HkidAssigned, Status::LIFECYCLE_STATE_INCORRECT)?;
        let new = td.keyed & bit == 0 || cx.m.spec.planted.is(Fault::PconfigActiveKey);
        ensure(new, Status::KEY_CONFIGURED)?;
        let hkid = td.hkid;
        cx.pconfig(hkid);
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    if !key_programmed(cx)? {
        return Ok(Flow::Fatal);
    }
    let (tdr, all) = (cx.f.scratch.td, cx.m.sys.keyed);
    let td = cx.td_mut(tdr)?;
    td.keyed |= bit;
    let complete = td.keyed == all;
    if complete {
        td.lifecycle = Lifecycle::KeysConfigured;
    }
    store_keys(cx, tdr)?;
    if complete {
        cx.store_tdr(tdr);
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MNG.ADDCX (1).
pub(crate) fn addcx(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RDX, Mode::Exclusive)?;
        let td = cx.td(tdr)?;
        ensure(!td.fatal, Status::TD_FATAL)?;
        ensure(td.lifecycle == Lifecycle::KeysConfigured, Status::TD_KEYS_NOT_CONFIGURED)?;
        let (index, hkid) = (td.tdcs.len(), td.hkid);
        ensure(index < TDCS_MAX, Status::TDCX_NUM_INCORRECT)?;
        let page = cx.free_page(RCX)?;
        let word = match index {
            MSR_BITMAPS => u64::MAX,
            SEPT_ROOT => Entry::FREE.0,
            _ => 0,
        };
        let wrong = cx.m.spec.planted.is(Fault::TdcsUnderGlobalKey);
        cx.fill_page(page, if wrong { cx.global() } else { hkid }, word);
        if index + 1 == TDCS_MIN {
            // The key of the next migration session.
            cx.f.touch(Touch::Random);
        } else if index >= TDCS_MIN {
            let first = cx.tdcs(tdr)?;
            cx.f.load(layout::tdcs_op_state(first), hkid, 8);
        }
        (cx.f.scratch.td, cx.f.scratch.page) = (tdr, page);
        return Ok(Flow::Again(1));
    }
    let (tdr, page) = (cx.f.scratch.td, cx.f.scratch.page);
    let td = cx.td(tdr)?;
    let index = td.tdcs.len();
    // Both are found out when the page is gone already (architecture.md §7.10.1).
    ensure(cx.f.random != Some(false), Status::RND_NO_ENTROPY)?;
    let right = index < TDCS_MIN || allowed(cx.f.leaf, td.op_state).unwrap_or(true);
    ensure(right, Status::OP_STATE_INCORRECT)?;
    cx.td_mut(tdr)?.tdcs.push(page);
    if index == SEPT_ROOT {
        cx.m.sept_new(page, vec![Entry::FREE; 512].into_boxed_slice());
    }
    cx.add_children(tdr, 1)?;
    take(cx, page, PageType::Tdcx, tdr);
    Ok(Flow::Done(Status::SUCCESS))
}

/// Bytes of TD_PARAMS, and its alignment.
const PARAMS_BYTES: u64 = 1024;
const PARAMS_LINES: usize = 16;
/// EPTP: memory type WB.
const EPT_WB: u64 = 6;
/// Fewest physical address bits of a platform with 5-level EPT (intel/tdx-module 1.5.01 x86_defs.h).
const MAXPA_OF_5_LEVELS: u8 = 49;
/// Most L2 VMs of a TD (architecture.md §9).
const L2_VMS_MAX: u8 = 3;
/// TSC_FREQUENCY in units of 25 MHz: 100 MHz to 10 GHz (intel/tdx-module 1.5.01 td_control_structures.h).
const TSC_FREQUENCIES: std::ops::RangeInclusive<u16> = 4..=400;
/// IA32_TSC_ADJUST.
const TSC_ADJUST: u32 = 0x3B;

/// TD_PARAMS as it was read: 1024 bytes. Word 2 holds MAX_VCPUS (15:0), NUM_L2_VMS (23:16) and MSR_CONFIG_CTLS (31:24),
/// word 3 EPTP_CONTROLS, 4 CONFIG_FLAGS, 5 TSC_FREQUENCY (15:0), 10 to 27 the three MR* fields, 28 IA32_ARCH_CAPABILITIES,
/// 32 on the CPUID values, two words per leaf.
struct Params([u64; 128]);

impl Params {
    const fn word<const N: usize>(&self) -> u64 {
        self.0[N]
    }
    const fn max_vcpus(&self) -> u16 {
        self.word::<2>() as u16
    }
    const fn l2_vms(&self) -> u8 {
        (self.word::<2>() >> 16) as u8
    }
    /// Levels less one.
    const fn walk_length(&self) -> u8 {
        (self.word::<3>() >> 3 & 7) as u8
    }
    const fn tsc_frequency(&self) -> u16 {
        self.word::<5>() as u16
    }
    fn zero(&self, words: std::ops::Range<usize>) -> bool {
        self.0.get(words).is_some_and(|words| words.iter().all(|word| *word == 0))
    }

    /// The checks of TDH.MNG.INIT, in the order of intel/tdx-module 1.5.01 tdh_mng_init.c. An error about a CPUID value
    /// comes with its leaf.
    fn check(&self, cx: &Cx<'_>, pages: usize) -> Result<(), (Status, u64)> {
        let field = |operand| (Status::OPERAND_INVALID.about(operand), 0);
        let reserved = (invalid(RDX), 0);
        let ok = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
        let attributes = self.word::<0>();
        let migratable = attributes & ATTRIBUTE_MIGRATABLE != 0;
        let apart = !migratable || attributes & (ATTRIBUTE_DEBUG | 1 << 63) == 0;
        ok(attributes & !ATTRIBUTES_FIXED0 == 0 && apart, field(Operand::ATTRIBUTES))?;
        ok(xfam_valid(self.word::<1>()), field(Operand::XFAM))?;
        ok(self.max_vcpus() != 0, field(Operand::MAX_VCPUS))?;
        let l2 = self.l2_vms();
        ok(l2 <= L2_VMS_MAX, field(Operand::NUM_L2_VMS))?;
        ok(pages >= TDCS_MIN + usize::from(l2), (Status::TDCS_NOT_ALLOCATED, 0))?;
        ok(self.word::<2>() >> 32 == 0, reserved)?;
        let flags = self.word::<4>();
        ok(flags & !CONFIG_FLAGS_FIXED0 == 0, field(Operand::EXEC_CONTROLS))?;
        let maxpa = cx.m.spec.keyid.maxpa;
        let longest = if maxpa >= MAXPA_OF_5_LEVELS { 4 } else { 3 };
        let length = self.walk_length();
        let eptp = self.word::<3>() & !(7 << 3) == EPT_WB
            && (3..=longest).contains(&length)
            && (flags & 1 == 0 || length == 4);
        ok(eptp, field(Operand::EPTP_CONTROLS))?;
        ok(TSC_FREQUENCIES.contains(&self.tsc_frequency()), field(Operand::TSC_FREQUENCY))?;
        let adjust = |msrs: &[(u32, u64)]| msrs.iter().find(|m| m.0 == TSC_ADJUST).copied();
        let first = cx.m.sys.first.as_ref();
        let same = first.is_none_or(|lp| adjust(&lp.msrs) == adjust(cx.env.msrs));
        ok(same, (Status(Status::INCONSISTENT_MSR.0 | u64::from(TSC_ADJUST)), 0))?;
        ok(self.word::<5>() >> 16 == 0 && self.zero(6..10), reserved)?;
        let controls = self.word::<2>() >> 24 & 0xff;
        ok(controls & !1 == 0 && self.zero(29..32), reserved)?;
        let mut at = 32;
        for row in CPUID_CONFIGS {
            for bits in row.bits {
                let value = self.0.get(at).copied().unwrap_or(0);
                ok(value & !bits == 0, (field(Operand::CPUID_CONFIG).0, row.leaf))?;
                at += 1;
            }
        }
        ok(self.zero(at..128), reserved)?;
        let capabilities = self.word::<28>();
        let free = if controls & 1 == 1 { ARCH_CAPABILITIES_CONFIG } else { 0 };
        ok(capabilities & !free == 0, field(Operand::IA32_ARCH_CAPABILITIES_CONFIG))?;
        ok(!migratable || l2 == 0, reserved)
    }
}

/// Whether an XFAM can be had: allowed bits, x87 and SSE, and features that come together (AVX-512 in three parts and only
/// with AVX, CET, AMX).
const fn xfam_valid(xfam: u64) -> bool {
    const fn bit(xfam: u64, n: u32) -> bool {
        xfam >> n & 1 == 1
    }
    xfam & !XFAM_FIXED0 == 0
        && xfam & XFAM_FIXED1 == XFAM_FIXED1
        && (!bit(xfam, 5) || bit(xfam, 2))
        && bit(xfam, 5) == bit(xfam, 6)
        && bit(xfam, 5) == bit(xfam, 7)
        && bit(xfam, 11) == bit(xfam, 12)
        && bit(xfam, 17) == bit(xfam, 18)
}

/// TDH.MNG.INIT (21).
pub(crate) fn init(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RCX, Mode::Exclusive)?;
        cx.state(tdr, false)?;
        let at = cx.shpa(RDX, PARAMS_BYTES, PARAMS_BYTES)?;
        for line in 0..PARAMS_LINES as u64 {
            cx.f.load(Hpa(at.hpa.0 + 64 * line), at.keyid, 64);
        }
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let mut params = Params([0; 128]);
    for (to, from) in params.0.iter_mut().zip(cx.loaded(PARAMS_LINES)) {
        *to = from;
    }
    if let Err((status, leaf)) = params.check(cx, cx.td(tdr)?.tdcs.len()) {
        cx.out(RCX, leaf);
        return Err(status);
    }
    let (timeout, tsc) = (cx.m.spec.tdx.hp_lock_timeout, cx.env.tsc);
    let first = cx.tdcs(tdr)?;
    let td = cx.td_mut(tdr)?;
    td.attributes = params.word::<0>();
    td.xfam = params.word::<1>();
    td.max_vcpus = params.max_vcpus();
    td.l2_vms = params.l2_vms();
    td.config_flags = params.word::<4>();
    td.gpaw = if td.config_flags & 1 == 1 { 52 } else { 48 };
    td.levels = params.walk_length() + 1;
    td.tsc_frequency = params.tsc_frequency();
    td.tsc_offset = 0u64.wrapping_sub(tsc);
    (td.vcpus, td.associated) = (0, 0);
    (td.epoch, td.refcount) = (1, [0; 2]);
    td.hp_lock_timeout = timeout;
    td.mrtd = Mrtd::new();
    td.op_state = OpState::Initialized;
    let (hkid, attributes) = (td.hkid, td.attributes);
    cx.f.store(layout::tdcs_vcpus(first), hkid, 0);
    // The line's first word is the lock.
    cx.f.store(Hpa(layout::tdcs_epoch(first).0 + 8), hkid, 1);
    cx.f.store(layout::tdcs_controls(first), hkid, attributes);
    cx.f.store(layout::tdcs_mrtd(first), hkid, 0);
    cx.f.store(layout::tdcs_op_state(first), hkid, u64::from(OpState::Initialized.code()));
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MNG.VPFLUSHDONE (19).
pub(crate) fn vpflushdone(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RCX, Mode::Exclusive)?;
        cx.lock_kot(Mode::Exclusive)?;
        let td = cx.td(tdr)?;
        let live = matches!(td.lifecycle, Lifecycle::KeysConfigured | Lifecycle::HkidAssigned);
        ensure(live, Status::LIFECYCLE_STATE_INCORRECT)?;
        let (associated, hkid) = (td.associated, td.hkid);
        if td.tdcs.len() >= TDCS_MIN {
            let first = cx.tdcs(tdr)?;
            cx.f.load(layout::tdcs_op_state(first), hkid, 8);
            cx.f.load(layout::tdcs_vcpus(first), hkid, 8);
        }
        let alone = associated == 0 || cx.m.spec.planted.is(Fault::VpflushdoneIgnoresVcpus);
        ensure(alone, Status::FLUSHVP_NOT_DONE)?;
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let td = cx.td_mut(tdr)?;
    td.lifecycle = Lifecycle::Blocked;
    let (hkid, packages) = (td.hkid, cx.m.sys.keyed);
    kot_mut(cx, hkid)?.wbinvd_bitmap = packages;
    let freed = cx.m.spec.planted.is(Fault::VpflushdoneFreesHkid);
    cx.set_kot(hkid, if freed { KotState::Free } else { KotState::Flushed });
    cx.store_tdr(tdr);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.MNG.KEY.FREEID (20).
pub(crate) fn key_freeid(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.mng);
        let tdr = cx.tdr(RCX, Mode::Exclusive)?;
        let td = cx.td(tdr)?;
        ensure(td.lifecycle == Lifecycle::Blocked, Status::LIFECYCLE_STATE_INCORRECT)?;
        let hkid = td.hkid;
        cx.lock_kot(Mode::Exclusive)?;
        let planted = cx.m.spec.planted;
        let left = kot_mut(cx, hkid)?.wbinvd_bitmap;
        if planted.is(Fault::ErrorLeavesChange) && left != 0 {
            cx.td_mut(tdr)?.lifecycle = Lifecycle::Teardown;
        }
        let clean = left == 0 || planted.is(Fault::FreeidIgnoresBitmap);
        ensure(clean, Status::WBCACHE_NOT_COMPLETE)?;
        cx.f.scratch.td = tdr;
        return Ok(Flow::Again(1));
    }
    let tdr = cx.f.scratch.td;
    let td = cx.td_mut(tdr)?;
    td.lifecycle = Lifecycle::Teardown;
    let hkid = td.hkid;
    cx.set_kot(hkid, KotState::Free);
    cx.store_tdr(tdr);
    Ok(Flow::Done(Status::SUCCESS))
}

/// The checks that TDH.MNG.RD and WR begin with; the TD.
fn metadata(cx: &mut Cx<'_>) -> Result<Page, Status> {
    cx.spend(|c| c.mng);
    // WR has no version above 0: the dispatcher sees to that.
    ensure(cx.f.version <= 1, Status::OPERAND_INVALID.about(Operand::RAX))?;
    let tdr = cx.tdr(RCX, Mode::Shared)?;
    cx.state(tdr, true)?;
    let op_state = cx.td(tdr)?.op_state;
    // The sheet's table has no row for these two; intel/tdx-module 1.5.01 op_state_lookup.c has.
    let exported = matches!(op_state, OpState::PausedExport | OpState::PostExport);
    let right = op_state != OpState::Uninit && !(exported && writes(cx));
    ensure(right, Status::OP_STATE_INCORRECT)?;
    let (first, hkid) = (cx.tdcs(tdr)?, cx.td(tdr)?.hkid);
    cx.f.load(layout::tdcs_controls(first), hkid, 64);
    Ok(tdr)
}

fn writes(cx: &Cx<'_>) -> bool {
    cx.f.leaf == sim_core::tdx::Leaf::MNG_WR
}

/// The field that RDX names, and its value.
fn field(
    cx: &mut Cx<'_>,
    tdr: Page,
    id: u64,
) -> Result<(&'static fields::Field<TdValue>, u64), Status> {
    let unknown = Status::METADATA_FIELD_ID_INCORRECT;
    ensure(fields::is_single(id), unknown)?;
    let (row, index) = fields::find(fields::TD_FIELDS.iter(), id).ok_or(unknown)?;
    let (first, td) = (cx.tdcs(tdr)?, cx.td(tdr)?);
    let (hkid, global) = (td.hkid, cx.global());
    let value = fields::td_value(cx.m, td, row, index);
    if let Some(line) = row.value.line(tdr, first) {
        let keyid = if line.page() == tdr { global } else { hkid };
        cx.f.load(line, keyid, 8);
    }
    Ok((row, value))
}

/// TDH.MNG.RD (11): field id in RDX, value out in R8; version 1: the next field id out in RDX
/// (intel/tdx-module 1.5.01 tdh_mng_rd_wr.c).
pub(crate) fn rd(cx: &mut Cx<'_>) -> Stage {
    if cx.f.version > 0 {
        cx.out(RDX, NO_FIELD);
    }
    let tdr = metadata(cx)?;
    let debug = cx.td(tdr)?.attributes & ATTRIBUTE_DEBUG != 0;
    let id = fields::in_context(cx.reg(RDX), CONTEXT_TD);
    let next = fields::following(fields::td_fields(debug), id);
    if cx.f.version > 0 && fields::is_none(id) {
        cx.out(RDX, next);
        return Err(Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    }
    let (row, value) = field(cx, tdr, id)?;
    ensure(debug || !row.value.debug_only(), Status::METADATA_FIELD_NOT_READABLE)?;
    if cx.f.version > 0 {
        cx.out(RDX, next);
    }
    cx.out(R8, value);
    Ok(Flow::Done(Status::SUCCESS))
}

/// HP_LOCK_TIMEOUT in microseconds: 10 ms to 100 s (intel/tdx-module 1.5.01 td_control_structures.h).
const HP_LOCK_TIMEOUTS: std::ops::RangeInclusive<u64> = 10_000..=100_000_000;

/// TDH.MNG.WR (13): field id in RDX, value in R8, which bits in R9; the old value out in R8.
pub(crate) fn wr(cx: &mut Cx<'_>) -> Stage {
    let (value, mask) = (cx.reg(R8), cx.reg(R9));
    if cx.f.stage == 0 {
        let tdr = metadata(cx)?;
        let id = fields::in_context(cx.reg(RDX), CONTEXT_TD);
        let (row, old) = field(cx, tdr, id)?;
        ensure(row.value.writable() && mask != 0, Status::METADATA_FIELD_NOT_WRITABLE)?;
        // All of the only field that can be written, or nothing.
        ensure(mask == u64::MAX, Status::METADATA_WR_MASK_NOT_VALID)?;
        ensure(HP_LOCK_TIMEOUTS.contains(&value), Status::METADATA_FIELD_VALUE_NOT_VALID)?;
        (cx.f.scratch.td, cx.f.scratch.count) = (tdr, old);
        return Ok(Flow::Again(1));
    }
    let (tdr, old) = (cx.f.scratch.td, cx.f.scratch.count);
    let first = cx.tdcs(tdr)?;
    let td = cx.td_mut(tdr)?;
    td.hp_lock_timeout = Ps(value * MICROSECOND);
    let hkid = td.hkid;
    cx.f.store(layout::tdcs_controls(first), hkid, value);
    cx.out(R8, old);
    Ok(Flow::Done(Status::SUCCESS))
}
