//! What a machine's TDX module, its memory and its TLBs say at a moment, as the judges of `verify` look at it.

use machine::Machine;
use sim_core::tdx::PageType;
use sim_core::{KeyId, Line, Page};
use std::collections::{BTreeMap, BTreeSet};
use tdx_module::Module;
use tdx_module::pamt::{Size, Tdmr};
use tdx_module::td::VcpuState;
use verify::invariants::MemoryView;
use verify::view::{KotView, LpView, ModuleView, PamtView, SysView, TdView, TdmrView, VcpuView};

/// The module's structures, and per logical processor who is inside and what its TLB holds.
pub fn module_view(machine: &Machine) -> ModuleView {
    let module = machine.module();
    let spec = machine.spec();
    let lps = (0..spec.cpu.cores).map(|core| lp(machine, module, core)).collect();
    ModuleView { lps, ..structures(module) }
}

/// The module's structures alone; no logical processors.
pub fn structures(module: &Module) -> ModuleView {
    let kot = module.kot().iter().enumerate().filter_map(|(id, entry)| {
        let view = KotView { state: entry.state as u8, wbinvd_bitmap: entry.wbinvd_bitmap };
        (view != KotView::default()).then_some((KeyId(id as u16), view))
    });
    let mut pamt = BTreeMap::new();
    for (size, page, entry) in module.tdmrs().iter().flat_map(Tdmr::in_use) {
        // What these hold is where dynamic PAMT keeps its entries, and no owner.
        let owner = if entry.page_type() == PageType::Pamt { Page(0) } else { entry.owner() };
        let bepoch = if entry.page_type() == PageType::Pamt { 0 } else { entry.bepoch };
        let view = PamtView { page_type: entry.page_type(), owner, bepoch };
        pamt.insert((size.level(), page), view);
    }
    let mut tables = BTreeMap::new();
    let mut sept = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for table in module.sept_pages() {
        tables.insert(table, module.pamt(table.hpa().0, Size::Small).owner());
        for index in 0..512 {
            let Some(entry) = module.sept_entry(table, index) else { continue };
            if entry.host_priority() {
                kept.insert((table, index));
            }
            let entry = entry.with_locked(false).with_host_priority(false);
            if entry.code() != FREE {
                sept.insert((table, index), entry.0);
            }
        }
    }
    ModuleView {
        sys: SysView {
            state: module.state() as u8,
            disabled: module.is_disabled(),
            global_hkid: module.global_hkid(),
            keyed: module.keyed(),
            cache_wb: module.cache_wbs().map(|w| w.map(BTreeSet::from_iter)).collect(),
        },
        kot: kot.collect(),
        tdmrs: module.tdmrs().iter().map(tdmr).collect(),
        pamt,
        tds: module.tds().map(|(page, td)| (page, self::td(td))).collect(),
        vcpus: module.vcpus().map(|(page, vcpu)| (page, self::vcpu(vcpu))).collect(),
        tables,
        sept,
        kept,
        lps: Vec::new(),
    }
}

/// The code of a free Secure-EPT entry (architecture.md §7.6).
const FREE: u8 = 0x0e;

fn tdmr(tdmr: &Tdmr) -> TdmrView {
    let info = tdmr.info();
    TdmrView {
        base: info.base,
        size: info.size,
        pamt: info.pamt,
        reserved: info.reserved.clone(),
        next: tdmr.next(),
        dynamic: tdmr.is_dynamic(),
    }
}

fn td(td: &tdx_module::td::Td) -> TdView {
    TdView {
        hkid: td.hkid,
        life_cycle: td.lifecycle as u8,
        fatal: td.fatal,
        keyed: td.keyed,
        chldcnt: td.chldcnt,
        tdcs: td.tdcs.clone(),
        op_state: td.op_state as u8,
        epoch: td.epoch,
        refcount: td.refcount,
        attributes: td.attributes,
        gpaw: td.gpaw,
        levels: td.levels,
        l2_vms: td.l2_vms,
        max_vcpus: td.max_vcpus,
        vcpus: td.vcpus,
        associated: td.associated,
    }
}

fn vcpu(vcpu: &tdx_module::td::Vcpu) -> VcpuView {
    VcpuView {
        tdr: vcpu.tdr,
        pages: vcpu.pages.clone(),
        state: vcpu.state as u8,
        lp: vcpu.lp,
        epoch: vcpu.epoch,
    }
}

fn lp(machine: &Machine, module: &Module, core: u16) -> LpView {
    let runs = machine.is_in_guest(core);
    // A VCPU that a machine check took out of its TD stays active, and its TD is fatal (architecture.md §6.3).
    let alive = |v: &tdx_module::td::Vcpu| module.td(v.tdr).is_some_and(|td| !td.fatal);
    let here =
        |v: &tdx_module::td::Vcpu| v.lp == Some(core) && v.state == VcpuState::Active && alive(v);
    let inside = module.vcpus().find(|(_, v)| runs && here(v)).map(|(page, _)| page);
    let tlb = machine.tlb(core).map(|tlb| {
        let private = tlb.iter().filter(|(_, _, t)| !t.shared);
        private.map(|(td, linear, t)| (td, linear, t.page)).collect()
    });
    LpView {
        package: machine.spec().package_of(core),
        initialized: module.is_lp_initialized(core),
        inside,
        tlb: tlb.unwrap_or_default(),
    }
}

/// The lines of these pages, every cached copy, and which lines are not the module's doing.
pub fn memory_view(
    machine: &Machine,
    pages: impl IntoIterator<Item = Page>,
    foreign: &BTreeSet<Line>,
) -> MemoryView {
    let lines = pages.into_iter().flat_map(|page| (0..64).map(move |i| page.line(i)));
    MemoryView {
        lines: lines.map(|line| (line, machine.memory().line(line))).collect(),
        copies: machine.caches().resident_lines().map(|c| (c.tag, c.is_dirty())).collect(),
        foreign: foreign.clone(),
    }
}
