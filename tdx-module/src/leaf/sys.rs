//! TDH.SYS.*: bringing the module up and down (architecture.md §7.9).

use crate::cx::{Cx, Flow, Stage, ensure, invalid};
use crate::fields::{self, NO_FIELD};
use crate::flight::Touch;
use crate::flight::reg::{R8, R9, RCX, RDX};
use crate::lock::{Lock, Mode};
use crate::op_state::KotState;
use crate::pamt::{
    ENTRY_BYTES, INIT_ENTRIES, PamtEntry, RESERVED_MAX, Size, TDMRS_MAX, Tdmr, TdmrInfo, pamt_bytes,
};
use crate::sys::{FirstLp, Handoff, SysState};
use sim_core::outcome::PconfigStatus;
use sim_core::platform::TdxSpec;
use sim_core::tdx::{Operand, Status};
use sim_core::units::Area;
use sim_core::{Addr, Hpa, KeyId};

const GIB: u64 = 1 << 30;
/// Most CMRs (architecture.md §7.4).
const CMRS_MAX: usize = 32;
/// HKIDs that the module has room for (architecture.md §9).
const HKIDS_MAX: u32 = 2048;
/// Bytes of a TDMR_INFO and alignment of the array of their addresses.
const TDMR_INFO_BYTES: u64 = 512;
/// Words of a TDMR_INFO that are read: base, size, three PAMTs, 16 reserved areas.
const TDMR_INFO_WORDS: usize = 8 + 2 * RESERVED_MAX;
/// Lines that hold them.
const TDMR_INFO_LINES: usize = TDMR_INFO_WORDS / 8;

/// A status with details in its low bytes.
const fn detail(status: Status, bytes: [u8; 4]) -> Status {
    Status(status.0 | u32::from_le_bytes(bytes) as u64)
}
/// A status about an MSR.
const fn msr(status: Status, number: u32) -> Status {
    Status(status.0 | number as u64)
}

// -------------------------------------------------------------------------------------------------- processor's registers

const TME_ACTIVATE: u32 = 0x982;
const WBINVDP: u32 = 0x98;
const WBNOINVDP: u32 = 0x99;

/// An MSR that TDH.SYS.INIT looks at: number, bits that it looks at, and what they must be.
struct InitMsr(u32, u64, u64);

/// In the order of intel/tdx-module 1.5.01 tdh_sys_init.c: IA32_ARCH_CAPABILITIES, IA32_XAPIC_DISABLE_STATUS,
/// IA32_MISC_PACKAGE_CTLS, IA32_PERF_CAPABILITIES.
const INIT_MSRS: &[InitMsr] = &[
    InitMsr(0x10A, 0x0020_FD6F, 0x0020_FD6B),
    InitMsr(0xBD, u64::MAX, 1),
    InitMsr(0xBC, 1, 1),
    InitMsr(0x345, 1 << 13, 1 << 13),
];

/// MSRs that TDH.SYS.LP.INIT compares with the first LP's before CPUID (intel/tdx-module 1.5.01 tdh_sys_lp_init.c).
const SAME_MSRS_FIRST: &[u32] = &[0xCF, 0x10A, 0xBC, 0xBD];
/// And after: IA32_TSC_ADJUST, MTRRs and SMRRs, IA32_VMX_*, IA32_PERF_CAPABILITIES, TME, KeyIDs, sub-blocks.
const SAME_MSRS_THEN: &[u32] = &[
    0x3B,
    0xFE,
    0x1F2,
    0x1F3,
    0x1F6,
    0x1F7,
    0x480,
    0x48D,
    0x48E,
    0x48B,
    0x492,
    0x48F,
    0x490,
    0x485,
    0x48C,
    0x486,
    0x487,
    0x488,
    0x489,
    0x345,
    0x981,
    TME_ACTIVATE,
    0x87,
    WBINVDP,
    WBNOINVDP,
];

fn find_msr(msrs: &[(u32, u64)], number: u32) -> Option<u64> {
    msrs.iter().find(|(n, _)| *n == number).map(|(_, value)| *value)
}

/// TDH.SYS.INIT (33).
pub(crate) fn init(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.sys);
        cx.lock_global(Mode::Exclusive)?;
        ensure(cx.reg(RCX) == 0, invalid(RCX))?;
        ensure(cx.m.sys.state == SysState::SysInitPending, Status::SYS_INIT_NOT_PENDING)?;
        platform(cx)?;
        // The stack canary (intel/tdx-module 1.5.01 tdh_sys_init.c).
        cx.f.touch(Touch::Random);
        return Ok(Flow::Again(1));
    }
    ensure(cx.f.random != Some(false), Status::RND_NO_ENTROPY)?;
    cx.m.sys.first = Some(FirstLp { msrs: cx.env.msrs.to_vec(), cpuid: cx.env.cpuid });
    cx.m.sys.state = SysState::SysInitDone;
    Ok(Flow::Done(Status::SUCCESS))
}

/// The checks of TDH.SYS.INIT on processor and firmware. CPUID has no value that is wrong by itself: the model has one
/// number for all its fields.
fn platform(cx: &Cx<'_>) -> Result<(), Status> {
    let value = |number| find_msr(cx.env.msrs, number);
    let wrong = |number| msr(Status::INCORRECT_MSR_VALUE, number);
    for InitMsr(number, bits, want) in INIT_MSRS {
        ensure(value(*number).is_none_or(|v| v & bits == *want), wrong(*number))?;
    }
    let tdx = &cx.m.spec.tdx;
    let met = tdx.cmrs.iter().position(|cmr| cmr.overlaps(&tdx.smrr));
    // SMRR and CMR index.
    ensure(met.is_none(), detail(Status::SMRR_OVERLAPS_CMR, [0, met.unwrap_or(0) as u8, 0, 0]))?;
    let locked = tdx.tme_locked && value(TME_ACTIVATE).is_none_or(|v| v & 1 == 1);
    ensure(locked, wrong(TME_ACTIVATE))?;
    let keyid = &cx.m.spec.keyid;
    let last = u32::from(keyid.mktme_kids) + u32::from(keyid.tdx_priv_kids);
    ensure(last < HKIDS_MAX, msr(Status::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, HKIDS_MAX))?;
    let blocks = |number| value(number).unwrap_or(u64::from(cx.m.spec.sub_blocks));
    ensure(blocks(WBINVDP) == blocks(WBNOINVDP), wrong(WBNOINVDP))?;
    ensure(cmrs_valid(&tdx.cmrs, keyid.address_bits()), Status::CMR_LIST_INVALID)
}

/// Whether a list of CMRs is as architecture.md §7.4 says. An empty one counts as absent.
fn cmrs_valid(cmrs: &[Area], bits: u8) -> bool {
    let mut last = 0;
    let each = |cmr: &Area| {
        let fits = cmr.base < cmr.end
            && (cmr.base | cmr.end) & 0xfff == 0
            && (cmr.end - 1) >> bits == 0
            && cmr.base >= last;
        last = cmr.end;
        fits
    };
    cmrs.len() <= CMRS_MAX && cmrs.iter().filter(|cmr| cmr.base != cmr.end).all(each)
}

/// TDH.SYS.LP.INIT (35).
pub(crate) fn lp_init(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        cx.spend(|c| c.sys);
        cx.lock_global(Mode::Shared)?;
        ensure(cx.m.sys.state == SysState::SysInitDone, Status::SYS_LP_INIT_NOT_PENDING)?;
        let done = cx.m.lps.get(usize::from(cx.env.lp)).is_none_or(|lp| lp.initialized);
        ensure(!done, Status::SYS_LP_INIT_DONE)?;
        // The seed of the single-step defence (intel/tdx-module 1.5.01 tdh_sys_lp_init.c).
        cx.f.touch(Touch::Random);
        return Ok(Flow::Again(1));
    }
    ensure(cx.f.random != Some(false), Status::RND_NO_ENTROPY)?;
    cx.spend(|c| c.invept);
    cx.f.touch(Touch::Invept(None));
    let first = cx.m.sys.first.as_ref();
    let same = |numbers: &[u32]| {
        let differs = |number: &&u32| {
            first.is_some_and(|lp| find_msr(&lp.msrs, **number) != find_msr(cx.env.msrs, **number))
        };
        match numbers.iter().find(differs) {
            Some(number) => Err(msr(Status::INCONSISTENT_MSR, *number)),
            None => Ok(()),
        }
    };
    same(SAME_MSRS_FIRST)?;
    let cpuid = first.is_none_or(|lp| lp.cpuid == cx.env.cpuid);
    ensure(cpuid, Status::INCONSISTENT_CPUID_FIELD)?;
    same(SAME_MSRS_THEN)?;
    if let Some(lp) = cx.m.lps.get_mut(usize::from(cx.env.lp)) {
        lp.initialized = true;
        lp.last_vcpu = None;
    }
    Ok(Flow::Done(Status::SUCCESS))
}

fn all_lps_initialized(cx: &Cx<'_>) -> bool {
    cx.m.lps.iter().all(|lp| lp.initialized)
}

/// TDH.SYS.CONFIG (45). No PAMT memory is touched.
pub(crate) fn config(cx: &mut Cx<'_>) -> Stage {
    match cx.f.stage {
        0 => {
            cx.spend(|c| c.sys);
            cx.lock_global(Mode::Exclusive)?;
            let pending = cx.m.sys.state == SysState::SysInitDone && all_lps_initialized(cx);
            ensure(pending, Status::SYS_CONFIG_NOT_PENDING)?;
            cx.shpa(RCX, TDMR_INFO_BYTES, TDMR_INFO_BYTES)?;
            ensure((1..=TDMRS_MAX as u64).contains(&cx.reg(RDX)), invalid(RDX))?;
            let hkid = private_hkid(cx, R8)?;
            // Before anything is known of the TDMRs, and for good.
            cx.set_kot(hkid, KotState::Reserved);
            cx.m.sys.global_hkid = Some(hkid);
            next_tdmr(cx)
        }
        1 => {
            let full = cx.loaded(1).next().unwrap_or(0);
            let at = cx.shpa_at(RCX, full, TDMR_INFO_BYTES, TDMR_INFO_BYTES)?;
            for line in 0..TDMR_INFO_LINES as u64 {
                cx.f.load(Hpa(at.hpa.0 + 64 * line), at.keyid, 64);
            }
            Ok(Flow::Again(2))
        }
        _ => {
            let words: Vec<u64> = cx.loaded(TDMR_INFO_LINES).collect();
            cx.f.scratch.list.extend(words);
            cx.f.scratch.count += 1;
            let all: Vec<TdmrText> =
                cx.f.scratch.list.chunks_exact(TDMR_INFO_WORDS).map(TdmrText::new).collect();
            check_tdmr(&cx.m.spec.tdx, cx.m.spec.keyid.address_bits(), &all)?;
            if cx.f.scratch.count < cx.reg(RDX) {
                return next_tdmr(cx);
            }
            let dynamic = cx.m.spec.tdx.dynamic_pamt;
            cx.m.tdmrs = all.iter().map(|text| Tdmr::new(text.info(), dynamic)).collect();
            cx.m.tdmr_locks = vec![Lock::default(); all.len()];
            // Whatever a predecessor left is given up.
            cx.m.forget_tds();
            let sys = &mut cx.m.sys;
            (sys.handoff, sys.predecessor) = (None, None);
            sys.keyed = 0;
            sys.state = SysState::SysConfigDone;
            Ok(Flow::Done(Status::SUCCESS))
        }
    }
}

/// Reads the next address of the array.
fn next_tdmr(cx: &mut Cx<'_>) -> Stage {
    let at = cx.shpa(RCX, TDMR_INFO_BYTES, TDMR_INFO_BYTES)?;
    let index = cx.f.scratch.count;
    cx.f.load(Hpa(at.hpa.0 + 8 * index), at.keyid, 8);
    Ok(Flow::Again(1))
}

/// A private HKID in a register whose other bits are 0.
pub(super) fn private_hkid(cx: &Cx<'_>, r: usize) -> Result<KeyId, Status> {
    let value = cx.reg(r);
    let hkid = KeyId(value as u16);
    let layout = &cx.m.spec.keyid;
    let fits = value >> 16 == 0 && layout.is_private(hkid) && layout.is_configured(hkid);
    ensure(fits, invalid(r))?;
    Ok(hkid)
}

/// A TDMR_INFO as it was read.
struct TdmrText {
    base: u64,
    size: u64,
    /// Base and size by level: 4K, 2M, 1G.
    pamt: [(u64, u64); 3],
    /// Offset and size.
    reserved: Vec<(u64, u64)>,
}

impl TdmrText {
    fn new(words: &[u64]) -> TdmrText {
        let pair = |i: usize| {
            let word = |i: usize| words.get(i).copied().unwrap_or(0);
            (word(2 * i), word(2 * i + 1))
        };
        let (base, size) = pair(0);
        // In memory the order is 1G, 2M, 4K.
        let pamt = [pair(3), pair(2), pair(1)];
        TdmrText { base, size, pamt, reserved: (0..RESERVED_MAX).map(|i| pair(4 + i)).collect() }
    }
    fn info(&self) -> TdmrInfo {
        let used = self.reserved.iter().take_while(|(_, size)| *size != 0);
        let reserved = used.copied().collect();
        TdmrInfo { base: self.base, size: self.size, pamt: self.pamt, reserved }
    }
    fn pamt(&self, size: Size) -> Area {
        let (base, bytes) = self.pamt.get(size as usize).copied().unwrap_or_default();
        Area { base, end: base.saturating_add(bytes) }
    }
    /// The parts that are not reserved.
    fn available(&self) -> Vec<Area> {
        let mut areas = Vec::new();
        let mut base = self.base;
        for (offset, size) in self.reserved.iter().take_while(|(_, size)| *size != 0) {
            let end = self.base + offset;
            areas.push(Area { base, end });
            base = end + size;
        }
        areas.push(Area { base, end: self.base + self.size });
        areas.retain(|area| area.base < area.end);
        areas
    }
}

/// The bytes that a PAMT needs. With dynamic PAMT the smallest level is a bitmap of one bit per page
/// (linux-host-paths.md §13).
const fn needed(tdmr: u64, size: Size, dynamic: bool) -> u64 {
    if dynamic && matches!(size, Size::Small) { tdmr / 4096 / 8 } else { pamt_bytes(tdmr, size) }
}

/// Whether convertible memory has all of an area; adjacent CMRs count as one.
fn in_cmrs(cmrs: &[Area], area: &Area) -> bool {
    let mut joined = Area { base: 0, end: 0 };
    cmrs.iter().filter(|cmr| cmr.base != cmr.end).any(|cmr| {
        let base = if cmr.base == joined.end { joined.base } else { cmr.base };
        joined = Area { base, end: cmr.end };
        joined.contains(area)
    })
}

/// The checks on the last of `all` TDMRs, in the order of architecture.md §7.9. The low bytes of a status are the TDMR's
/// index, the area's or level's, and the other TDMR's (intel/tdx-module 1.5.01 tdh_sys_config.c).
fn check_tdmr(tdx: &TdxSpec, bits: u8, all: &[TdmrText]) -> Result<(), Status> {
    let Some((tdmr, before)) = all.split_last() else { return Ok(()) };
    let i = before.len() as u8;
    let about = |status, a: u8, b: u8| detail(status, [i, a, b, 0]);
    let in_range = |base: u64, size: u64| {
        base >> bits == 0 && base.wrapping_add(size).wrapping_sub(1) >> bits == 0
    };

    let wrong = about(Status::INVALID_TDMR, 0, 0);
    let end = tdmr.base.checked_add(tdmr.size).ok_or(wrong)?;
    let ordered = before.last().is_none_or(|p| tdmr.base >= p.base + p.size);
    ensure(ordered, about(Status::NON_ORDERED_TDMR, 0, 0))?;
    let aligned = (tdmr.base | tdmr.size) & (GIB - 1) == 0 && tdmr.size > 0;
    ensure(aligned && in_range(tdmr.base, tdmr.size), wrong)?;

    let mut previous: Option<u64> = None;
    for (j, &(offset, size)) in (0u8..).zip(&tdmr.reserved) {
        let unordered = about(Status::NON_ORDERED_RESERVED_IN_TDMR, j, 0);
        let wrong = about(Status::INVALID_RESERVED_IN_TDMR, j, 0);
        if size == 0 {
            // Only others that are empty may follow.
            let next = tdmr.reserved.get(usize::from(j) + 1);
            ensure(next.is_none_or(|(_, size)| *size == 0), unordered)?;
            continue;
        }
        let area_end = offset.checked_add(size).ok_or(wrong)?;
        ensure(previous.is_none_or(|end| offset >= end), unordered)?;
        ensure((offset | size) & 0xfff == 0, wrong)?;
        ensure(tdmr.base.checked_add(area_end).is_some_and(|e| e <= end), wrong)?;
        previous = Some(area_end);
    }

    for size in [Size::Huge, Size::Large, Size::Small] {
        let (base, bytes) = tdmr.pamt.get(size as usize).copied().unwrap_or_default();
        let fits = base.checked_add(bytes).is_some()
            && (base | bytes) & 0xfff == 0
            && in_range(base, bytes)
            && bytes >= needed(tdmr.size, size, tdx.dynamic_pamt);
        ensure(fits, about(Status::INVALID_PAMT, size.level(), 0))?;
    }

    let overlap = |size: Size, other: u8| about(Status::PAMT_OVERLAP, size.level(), other);
    let meets = |area: &Area, t: &TdmrText| Size::ALL.iter().any(|s| area.overlaps(&t.pamt(*s)));
    for (j, other) in (0u8..).zip(before) {
        for size in Size::ALL {
            ensure(!meets(&tdmr.pamt(size), other), overlap(size, j))?;
        }
    }
    for (one, two) in
        [(Size::Small, Size::Large), (Size::Small, Size::Huge), (Size::Large, Size::Huge)]
    {
        ensure(!tdmr.pamt(one).overlaps(&tdmr.pamt(two)), overlap(one, i))?;
    }
    let in_use = |area: &Area, t: &TdmrText| t.available().iter().any(|a| a.overlaps(area));
    for (j, other) in (0u8..).zip(all) {
        for size in Size::ALL {
            ensure(!in_use(&tdmr.pamt(size), other), overlap(size, j))?;
        }
        if j == i {
            continue;
        }
        for size in Size::ALL {
            let status = detail(Status::PAMT_OVERLAP, [j, size.level(), i, 0]);
            ensure(!in_use(&other.pamt(size), tdmr), status)?;
        }
    }
    for size in [Size::Huge, Size::Large, Size::Small] {
        let inside = in_cmrs(&tdx.cmrs, &tdmr.pamt(size));
        ensure(inside, about(Status::PAMT_OUTSIDE_CMRS, size.level(), 0))?;
    }
    let inside = tdmr.available().iter().all(|area| in_cmrs(&tdx.cmrs, area));
    ensure(inside, about(Status::TDMR_OUTSIDE_CMRS, 0, 0))
}

/// What PCONFIG said of a key: nothing, a status, or that the module gives itself up.
pub(super) fn key_programmed(cx: &Cx<'_>) -> Result<bool, Status> {
    match cx.f.pconfig {
        Some(PconfigStatus::Ok) => Ok(true),
        Some(PconfigStatus::DeviceBusy) => Err(Status::OPERAND_BUSY.about(Operand::KET)),
        Some(PconfigStatus::NoEntropy) => Err(Status::KEY_GENERATION_FAILED),
        _ => Ok(false),
    }
}

/// The bit of this LP's package.
pub(super) const fn package_bit(package: u8) -> u8 {
    1u8.wrapping_shl(package as u32)
}

/// TDH.SYS.KEY.CONFIG (31), once per package.
pub(crate) fn key_config(cx: &mut Cx<'_>) -> Stage {
    let bit = package_bit(cx.env.package);
    if cx.f.stage == 0 {
        cx.spend(|c| c.sys);
        cx.lock_global(Mode::Exclusive)?;
        let pending = cx.m.sys.state == SysState::SysConfigDone;
        ensure(pending, Status::SYS_KEY_CONFIG_NOT_PENDING)?;
        ensure(cx.m.sys.keyed & bit == 0, Status::KEY_CONFIGURED)?;
        let global = cx.global();
        cx.pconfig(global);
        return Ok(Flow::Again(1));
    }
    if !key_programmed(cx)? {
        return Ok(Flow::Fatal);
    }
    cx.m.sys.keyed |= bit;
    if cx.m.sys.keyed == cx.m.sys.all_packages() {
        cx.m.sys.state = SysState::SysReady;
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.SYS.TDMR.INIT (36): 1024 pages of a TDMR.
pub(crate) fn tdmr_init(cx: &mut Cx<'_>) -> Stage {
    let base = cx.reg(RCX);
    let index = cx.m.tdmrs.iter().position(|t| t.info().base == base);
    let piece = INIT_ENTRIES * Size::Small.bytes();
    if cx.f.stage == 0 {
        cx.spend(|c| c.sys);
        // No other address is that of a TDMR: alignment, width and KeyID bits need no check of their own.
        let index = index.ok_or(invalid(RCX))?;
        cx.lock_tdmr(index as u16)?;
        let global = cx.global();
        let Some(tdmr) = cx.m.tdmrs.get(index) else { return Err(invalid(RCX)) };
        ensure(!tdmr.is_complete(), Status::TDMR_ALREADY_INITIALIZED)?;
        let start = tdmr.next();
        if tdmr.is_dynamic() {
            // One bit per page instead of an entry; the entries come with TDH.PHYMEM.PAMT.ADD.
            let bits = tdmr.info().pamt[Size::Small as usize].0 + (start - base) / 4096 / 8;
            let lines = (INIT_ENTRIES / 512) as u32;
            cx.f.touch(Touch::Fill { at: Addr::new(Hpa(bits), global), lines, word: 0 });
        } else {
            fill_entries(cx.f, tdmr, start, global);
        }
        for size in [Size::Large, Size::Huge] {
            let offset = start - base;
            for entry in offset / size.bytes()..(offset + piece) / size.bytes() {
                let array = tdmr.info().pamt.get(size as usize).copied().unwrap_or_default().0;
                let at = Addr::new(Hpa(array + entry * ENTRY_BYTES), global);
                if at.hpa.0 & 63 == 0 {
                    cx.f.touch(Touch::Fill { at, lines: 1, word: 0 });
                }
                let [word, _] = PamtEntry::NDA.words(0);
                cx.f.store(at.hpa, global, word);
            }
        }
        return Ok(Flow::Again(1));
    }
    if let Some(tdmr) = index.and_then(|i| cx.m.tdmrs.get_mut(i)) {
        let next = tdmr.next() + piece;
        tdmr.set_next(next);
        cx.out(RDX, next & !(GIB - 1));
    }
    Ok(Flow::Done(Status::SUCCESS))
}

/// MOVDIR64B of the 4K entries of 1024 pages from `start` on, page of the PAMT by page; lines that are alike go together.
fn fill_entries(f: &mut crate::flight::Flight, tdmr: &Tdmr, start: u64, global: KeyId) {
    const PER_LINE: u64 = 64 / ENTRY_BYTES;
    let [word, _] = PamtEntry::RSVD.words(0);
    // Bit 2i: the first half of entry i, which holds the page type.
    let mask = |line: u64| {
        (0..PER_LINE).fold(0u8, |mask, i| {
            let reserved = tdmr.is_reserved(start + (line * PER_LINE + i) * 4096);
            mask | u8::from(reserved) << (2 * i)
        })
    };
    let Some(first) = tdmr.entry_at(start, Size::Small) else { return };
    let last = INIT_ENTRIES / PER_LINE;
    let mut line = 0;
    while line < last {
        let same = mask(line);
        let end = (line / 64 + 1) * 64;
        let next = (line + 1..end).find(|l| mask(*l) != same).unwrap_or(end);
        let at = Addr::new(Hpa(first.0 + 64 * line), global);
        let lines = (next - line) as u32;
        f.touch(if same == 0 {
            Touch::Fill { at, lines, word: 0 }
        } else {
            Touch::FillSome { at, lines, word, mask: same }
        });
        line = next;
    }
}

// ------------------------------------------------------------------------------------------------------------ enumeration

/// Enumeration needs TDH.SYS.LP.INIT on this LP.
fn lp_initialized(cx: &Cx<'_>) -> Result<(), Status> {
    let done = cx.m.lps.get(usize::from(cx.env.lp)).is_some_and(|lp| lp.initialized);
    ensure(done, Status::SYS_LP_INIT_NOT_DONE)
}

/// Bytes of TDSYSINFO_STRUCT.
const INFO_BYTES: u64 = 1024;

/// TDH.SYS.INFO (32): TDSYSINFO_STRUCT at RCX, CMRs at R8 (intel/tdx-module 1.5.01 tdh_sys_info.c).
pub(crate) fn info(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.sys);
    lp_initialized(cx)?;
    let at = cx.shpa(RCX, INFO_BYTES, INFO_BYTES)?;
    ensure(cx.reg(RDX) >= INFO_BYTES, invalid(RDX))?;
    // The structure is cleared before the rest is checked.
    for i in 0..INFO_BYTES / 16 {
        cx.store16(Addr::new(Hpa(at.hpa.0 + 16 * i), at.keyid), [0; 2]);
    }
    let cmr_bytes = 16 * CMRS_MAX as u64;
    let cmrs = cx.shpa(R8, cmr_bytes, cmr_bytes)?;
    ensure(cx.reg(R9) >= CMRS_MAX as u64, invalid(R9))?;
    for (i, pair) in (0..).zip(info_words(cx).as_chunks::<2>().0) {
        if *pair != [0; 2] {
            cx.store16(Addr::new(Hpa(at.hpa.0 + 16 * i), at.keyid), *pair);
        }
    }
    for i in 0..CMRS_MAX {
        let cmr = cx.m.spec.tdx.cmrs.get(i).map_or([0; 2], |cmr| [cmr.base, cmr.bytes()]);
        cx.store16(Addr::new(Hpa(cmrs.hpa.0 + 16 * i as u64), cmrs.keyid), cmr);
    }
    cx.out(RDX, INFO_BYTES);
    cx.out(R9, CMRS_MAX as u64);
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDSYSINFO_STRUCT, made of the fields that TDH.SYS.RD has too.
fn info_words(cx: &Cx<'_>) -> [u64; INFO_BYTES as usize / 8] {
    let field = |name: &str, index: u64| {
        let row = fields::sys_fields(cx.m).find(|row| row.name == name);
        row.map_or(0, |row| fields::sys_value(cx.m, row, index))
    };
    // Offset, bytes, field.
    const LAYOUT: &[(usize, usize, &str)] = &[
        (4, 4, "VENDOR_ID"),
        (14, 2, "MINOR_VERSION"),
        (16, 2, "MAJOR_VERSION"),
        (32, 2, "MAX_TDMRS"),
        (34, 2, "MAX_RESERVED_PER_TDMR"),
        (36, 2, "PAMT_4K_ENTRY_SIZE"),
        (48, 2, "TDCS_BASE_SIZE"),
        (52, 2, "TDVPS_BASE_SIZE"),
        (64, 8, "ATTRIBUTES_FIXED0"),
        (72, 8, "ATTRIBUTES_FIXED1"),
        (80, 8, "XFAM_FIXED0"),
        (88, 8, "XFAM_FIXED1"),
        (128, 4, "NUM_CPUID_CONFIG"),
    ];
    let mut bytes = [0u8; INFO_BYTES as usize];
    let mut put = |offset: usize, count: usize, value: u64| {
        for (to, from) in bytes.iter_mut().skip(offset).zip(value.to_le_bytes()).take(count) {
            *to = from;
        }
    };
    for (offset, count, name) in LAYOUT {
        put(*offset, *count, field(name, 0));
    }
    // SYS_RD: TDH.SYS.RD is there and should be used.
    put(18, 1, 1);
    for (i, _) in fields::CPUID_CONFIGS.iter().enumerate() {
        let (at, n) = (132 + 24 * i, i as u64);
        put(at, 8, field("CPUID_CONFIG_LEAVES", n));
        put(at + 8, 8, field("CPUID_CONFIG_VALUES", 2 * n));
        put(at + 16, 8, field("CPUID_CONFIG_VALUES", 2 * n + 1));
    }
    let mut words = [0; INFO_BYTES as usize / 8];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

/// TDH.SYS.RD (34): field id in RDX; out the next one in RDX and the value in R8.
pub(crate) fn rd(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.sys);
    cx.out(RDX, NO_FIELD);
    lp_initialized(cx)?;
    let id = fields::in_context(cx.reg(RDX), 0);
    if fields::is_none(id) {
        cx.out(RDX, fields::following(fields::sys_fields(cx.m), id));
        return Err(Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
    }
    let unknown = Status::METADATA_FIELD_ID_INCORRECT;
    ensure(fields::is_single(id), unknown)?;
    let (row, index) = fields::find(fields::sys_fields(cx.m), id).ok_or(unknown)?;
    let value = fields::sys_value(cx.m, row, index);
    cx.out(R8, value);
    cx.out(RDX, fields::following(fields::sys_fields(cx.m), id));
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.SYS.RDALL (37): a list of fields to the page in RDX, from the field in R8 on; out the first that did not fit in R8.
pub(crate) fn rdall(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.sys);
    cx.out(R8, NO_FIELD);
    lp_initialized(cx)?;
    let at = cx.shpa(RDX, 4096, 4096)?;
    let list = fields::sys_list_from(cx.m, fields::in_context(cx.reg(R8), 0), 4096 / 8);
    let (words, next) = list.ok_or(Status::METADATA_FIELD_ID_INCORRECT)?;
    for (i, word) in (0..).zip(words) {
        cx.f.store(Hpa(at.hpa.0 + 8 * i), at.keyid, word);
    }
    cx.out(R8, next);
    ensure(next == NO_FIELD, Status::METADATA_LIST_OVERFLOW)?;
    Ok(Flow::Done(Status::SUCCESS))
}

// ----------------------------------------------------------------------------------------------------------------- update

/// TDH.SYS.SHUTDOWN (52): leaves handoff data in SEAMRR for the next module.
pub(crate) fn shutdown(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.sys);
    let version = cx.m.spec.tdx.handoff_version;
    ensure(cx.reg(RCX) == u64::from(version), invalid(RCX))?;
    cx.lock_global(Mode::Exclusive)?;
    ensure(!cx.m.others_busy(cx.env.lp), Status::SYS_BUSY)?;
    cx.m.sys.handoff = Some(Handoff { version });
    cx.m.sys.state = SysState::SysShutdown;
    Ok(Flow::Done(Status::SUCCESS))
}

/// TDH.SYS.UPDATE (53): takes over what the predecessor left.
pub(crate) fn update(cx: &mut Cx<'_>) -> Stage {
    cx.spend(|c| c.sys);
    cx.lock_global(Mode::Exclusive)?;
    let initialized = cx.m.sys.state == SysState::SysInitDone && all_lps_initialized(cx);
    ensure(initialized, Status::SYS_STATE_INCORRECT)?;
    let version = cx.m.spec.tdx.handoff_version;
    let valid = cx.m.sys.handoff.is_some_and(|h| h.version == version);
    ensure(valid, Status::SYS_INVALID_HANDOFF)?;
    let old = cx.m.sys.predecessor.take().ok_or(Status::SYS_INVALID_HANDOFF)?;
    cx.m.tdmr_locks = vec![Lock::default(); old.tdmrs.len()];
    cx.m.tdmrs = old.tdmrs;
    let sys = &mut cx.m.sys;
    (sys.kot, sys.wbcache) = (old.kot, old.wbcache);
    (sys.global_hkid, sys.keyed) = (old.global_hkid, old.keyed);
    sys.handoff = None;
    sys.state = SysState::SysReady;
    Ok(Flow::Done(Status::SUCCESS))
}
