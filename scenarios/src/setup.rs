//! What stands before a program: the module brought up and TDs built, with the leaves that a VMM calls.
//!
//! [`Setup`] is plain data: which memory is used for what, on one platform. [`Setup::run`] makes the calls, in the order
//! of linux-host-paths.md §3 (module) and §5 (TDs): on the machine of the run, functionally, and without leaving events in
//! its log. A leaf that does not succeed is bad input: the tables ask for what the module refuses.

use crate::format::tdx::{Misplaced, Shape};
use crate::format::{Content, How, ModuleState, Place, Region, Scenario, Space, TdState};
use crate::format::{Regions, Trouble};
use machine::{AgentId, AgentKind, AgentSpec, Machine, Speed, StepRecord};
use serde::{Deserialize, Serialize};
use sim_core::op::{AddrExpr, Base, CallRegs, KeyRef, MemType, Value};
use sim_core::outcome::{CallResult, NotRun};
use sim_core::port::McHandler;
use sim_core::tdx::{Leaf, Status};
use sim_core::units::Area;
use sim_core::{Addr, Hpa, KeyId, LINE_BYTES, Op, Outcome, PAGE_BYTES, PlatformSpec};
use std::collections::{BTreeMap, BTreeSet};
use tdx_module::pamt::{RESERVED_MAX, Size, pamt_bytes};
use tdx_module::td::TDCS_MIN;

/// Bytes of a TDMR_INFO (architecture.md §7.4).
const TDMR_INFO: u64 = 512;
/// Where the host keeps TDMR_INFOs behind the array of their addresses.
const INFOS: u64 = PAGE_BYTES;
/// Where TD_PARAMS stands (1024 bytes): behind room for 64 TDMR_INFOs.
const PARAMS: u64 = INFOS + 64 * TDMR_INFO;
/// The page whose content TDH.MEM.PAGE.ADD copies.
const SOURCE: u64 = PARAMS + PAGE_BYTES;
/// Pages that the host keeps for itself.
const OWN_BYTES: u64 = SOURCE + PAGE_BYTES;

/// What is done before a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The TDMRs, in order.
    tdmrs: Vec<TdmrSetup>,
    /// The global HKID.
    global: KeyId,
    /// The host's own memory: [`OWN_BYTES`] from here.
    own: u64,
    /// With dynamic PAMT: the pair of pages that each 2 MiB block with small pages of a TD needs.
    pairs: Vec<(u64, [u64; 2])>,
    /// The TDs, in order.
    tds: Vec<TdSetup>,
    /// Where `[tdx]` stands.
    at: Place,
}

/// A TDMR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct TdmrSetup {
    area: Area,
    /// Base and size of the PAMT of 4K, 2M and 1G entries.
    pamt: [(u64, u64); 3],
    /// What of it is no memory of TDs.
    reserved: Vec<Area>,
}

/// A TD.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct TdSetup {
    hkid: KeyId,
    state: TdState,
    /// TDR, then whatever else [`crate::format::Td::control_pages`] names, in its order.
    control: Vec<u64>,
    vcpus: u16,
    max_vcpus: u16,
    attributes: u64,
    gpaw: u8,
    levels: u8,
    tables: Vec<(u64, u8)>,
    pages: Vec<PageSetup>,
    at: Place,
}

/// A page of a TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PageSetup {
    gpa: u64,
    how: How,
    page: u64,
    /// The byte of its content, or the page that has it.
    content: Result<u8, u64>,
    at: Place,
}

/// Why a setup came to no good end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// The module refused.
    Refused {
        /// The line that asked for it.
        at: Place,
        /// Leaf and status.
        found: String,
        /// What it needed.
        expected: String,
    },
    /// The simulator does not model this leaf.
    NotModelled(Leaf),
}

// -------------------------------------------------------------------------------------------------------------- layout

/// Memory that is given away from its lowest address on.
struct Free {
    /// What is there, in order.
    from: Vec<Area>,
    /// What is taken.
    taken: Vec<Area>,
}

impl Free {
    /// So many bytes, page-aligned, not below `from`.
    fn take(&mut self, bytes: u64, from: u64) -> Option<u64> {
        for area in &self.from {
            let mut at = area.base.max(from).next_multiple_of(PAGE_BYTES);
            while at.checked_add(bytes).is_some_and(|end| end <= area.end) {
                let wanted = Area { base: at, end: at + bytes };
                let Some(other) = self.taken.iter().find(|t| t.overlaps(&wanted)) else {
                    self.taken.push(wanted);
                    return Some(at);
                };
                at = other.end.next_multiple_of(PAGE_BYTES);
            }
        }
        None
    }
    /// The same, from its lowest address where nothing is behind `from`.
    fn room(&mut self, bytes: u64, from: u64, what: &str) -> Result<u64, Trouble> {
        self.take(bytes, from).or_else(|| self.take(bytes, 0)).ok_or_else(|| {
            let found = format!("no room for {what}, {bytes:#x} bytes");
            Trouble::new(found, "that much memory of the right kind that no region uses")
        })
    }
}

/// An area in whole pages.
fn pages(area: Area) -> Area {
    let mask = PAGE_BYTES - 1;
    Area { base: area.base & !mask, end: area.end.saturating_add(mask) & !mask }
}

/// What of `area` is in none of `holes`.
fn without(area: Area, holes: &[Area]) -> Vec<Area> {
    let mut holes: Vec<Area> = holes.iter().filter(|h| h.overlaps(&area)).copied().collect();
    holes.sort_unstable();
    let (mut left, mut at) = (Vec::new(), area.base);
    for hole in holes {
        if at < hole.base {
            left.push(Area { base: at, end: hole.base });
        }
        at = at.max(hole.end);
    }
    if at < area.end {
        left.push(Area { base: at, end: area.end });
    }
    left
}

/// What a scenario's tables need on a platform, and the regions that its control pages are.
///
/// # Errors
/// What cannot be had there, and where it is asked for.
pub(crate) fn layout(
    scenario: &Scenario,
    spec: &PlatformSpec,
    private: &dyn Fn(KeyRef) -> Result<KeyId, Trouble>,
    mut made: Vec<Region>,
) -> Result<(Option<Setup>, Vec<Region>), Misplaced> {
    let Some(tdx) = scenario.tdx.as_ref().filter(|tdx| tdx.state == ModuleState::Ready) else {
        return Ok((None, made));
    };
    let global = private(tdx.global.value).map_err(|t| (tdx.global.at, t))?;
    let areas = match tdx.tdmrs.value.as_slice() {
        [] => vec![default_tdmr(spec).ok_or_else(|| {
            let found = format!("platform {} without a GiB of convertible memory", spec.name);
            (
                tdx.at,
                Trouble::new(found, "tdx.cmrs that contain a whole GiB at a multiple of 1 GiB"),
            )
        })?],
        areas => areas.to_vec(),
    };
    let named = scenario.regions.iter().filter(|r| r.space == Space::Host);
    let mut used: Vec<Area> =
        named.map(|r| pages(Area { base: r.base, end: r.last().saturating_add(1) })).collect();
    for page in scenario.tds.iter().flat_map(|td| &td.pages) {
        if let AddrExpr { base: Base::Abs(at), .. } = page.value.page {
            let bytes = 4096u64 << (9 * page.value.how.level());
            used.push(pages(Area { base: at, end: at.saturating_add(bytes) }));
        }
    }

    // The PAMTs, then the host's own pages: convertible memory that nobody uses, behind the TDMRs if there is any.
    let taken = [used.as_slice(), &areas].concat();
    let mut convertible = Free { from: spec.tdx.cmrs.clone(), taken };
    let behind = areas.last().map_or(0, |a| a.end);
    let level = |area: &Area, size| pamt_bytes(area.bytes(), size).next_multiple_of(PAGE_BYTES);
    let levels = |area: &Area| Size::ALL.map(|size| level(area, size));
    let total: u64 = areas.iter().flat_map(levels).sum();
    let mut pamt = match &tdx.pamt {
        Some(at) => at.value,
        None => convertible.room(total, behind, "the PAMTs").map_err(|t| (tdx.at, t))?,
    };
    let all_pamts = Area { base: pamt, end: pamt.saturating_add(total) };
    if tdx.pamt.is_some() {
        convertible.taken.push(all_pamts);
    }
    let own = convertible.room(OWN_BYTES, behind, "pages of the host").map_err(|t| (tdx.at, t))?;
    let mut tdmrs = Vec::new();
    for area in &areas {
        if !spec.tdx.cmrs.iter().any(|cmr| cmr.overlaps(area)) {
            let found = format!("TDMR {area} without convertible memory");
            let list: Vec<String> = spec.tdx.cmrs.iter().map(Area::to_string).collect();
            let expected = format!("some of tdx.cmrs: {}", list.join(" "));
            return Err((tdx.tdmrs.at, Trouble::new(found, expected)));
        }
        let mut reserved: Vec<Area> =
            without(*area, &spec.tdx.cmrs).into_iter().map(pages).collect();
        if all_pamts.overlaps(area) {
            let (base, end) = (all_pamts.base.max(area.base), all_pamts.end.min(area.end));
            reserved.push(Area { base, end });
        }
        reserved.sort_unstable();
        if reserved.len() > RESERVED_MAX {
            let found = format!("TDMR {area} with {} reserved areas", reserved.len());
            let expected =
                format!("at most {RESERVED_MAX}: one is needed for each hole in tdx.cmrs");
            return Err((tdx.tdmrs.at, Trouble::new(found, expected)));
        }
        let sizes = levels(area);
        let bases = sizes.map(|size| {
            let at = pamt;
            pamt = pamt.saturating_add(size);
            (at, size)
        });
        tdmrs.push(TdmrSetup { area: *area, pamt: bases, reserved });
    }

    // Control pages: memory of the TDMRs that nobody uses, lowest first.
    let holes: Vec<Area> = tdmrs.iter().flat_map(|t| t.reserved.iter().copied()).collect();
    let from = areas.iter().flat_map(|area| without(*area, &holes)).collect();
    let mut protected = Free { from, taken: used };
    let mut at = BTreeMap::new();
    let mut lowest = 0;
    for region in &mut made {
        let page = protected.take(PAGE_BYTES, lowest).ok_or_else(|| {
            let found = format!("no page for `{}`", region.name);
            (region.at, Trouble::new(found, "memory of a TDMR that no region uses"))
        })?;
        lowest = page;
        region.base = page;
        at.insert(region.name.clone(), page);
    }
    let regions = Regions::of(&scenario.regions, &made, &scenario.agents);
    let mut tds = Vec::new();
    for td in &scenario.tds {
        let shape = td.shape(&regions)?;
        let names = td.control_pages(&shape);
        let control = names.iter().filter_map(|name| at.get(name).copied()).collect();
        let Shape { pages: gpas, tables } = shape;
        let mut given = Vec::new();
        for (page, gpa) in td.pages.iter().zip(gpas) {
            let bytes = 4096u64 << (9 * page.value.how.level());
            let misplaced = |t| (page.at, t);
            let host = regions.hpa(&page.value.page, bytes).map_err(misplaced)?.0;
            let taken = Area { base: host, end: host.saturating_add(bytes) };
            if !host.is_multiple_of(bytes) {
                let expected = format!("a multiple of {bytes:#x}");
                return Err(misplaced(Trouble::new(format!("page {host:#x}"), expected)));
            }
            if !protected.from.iter().any(|area| area.contains(&taken)) {
                let list: Vec<String> = protected.from.iter().map(Area::to_string).collect();
                let expected = format!("memory of a TDMR: {}", list.join(" "));
                return Err(misplaced(Trouble::new(format!("page {host:#x}"), expected)));
            }
            let content = match &page.value.content {
                Content::Fill(byte) => Ok(*byte),
                Content::From(from) => {
                    let from = regions.hpa(from, PAGE_BYTES).map_err(misplaced)?.0;
                    if !from.is_multiple_of(PAGE_BYTES) {
                        let found = format!("page {from:#x}");
                        return Err(misplaced(Trouble::new(found, "a multiple of 0x1000")));
                    }
                    Err(from)
                }
            };
            given.push(PageSetup { gpa, how: page.value.how, page: host, content, at: page.at });
        }
        tds.push(TdSetup {
            hkid: private(td.hkid.value).map_err(|t| (td.hkid.at, t))?,
            state: td.state,
            control,
            vcpus: td.vcpus,
            max_vcpus: td.max_vcpus.unwrap_or(td.vcpus.max(1)),
            attributes: td.attributes.iter().fold(0, |bits, a| bits | a.bit()),
            gpaw: td.gpaw,
            levels: td.levels,
            tables,
            pages: given,
            at: td.at,
        });
    }
    let mut pairs = Vec::new();
    if spec.tdx.dynamic_pamt {
        let small = |td: &TdSetup| {
            let pages = td.pages.iter().filter(|p| p.how != How::Aug2m).map(|p| p.page);
            td.control.iter().copied().chain(pages).collect::<Vec<u64>>()
        };
        let block = |page: u64| page & !(Size::Large.bytes() - 1);
        let blocks: BTreeSet<u64> = tds.iter().flat_map(small).map(block).collect();
        for block in blocks {
            let mut page = || protected.room(PAGE_BYTES, lowest, "pages of the dynamic PAMT");
            let pair = page().and_then(|first| Ok([first, page()?]));
            pairs.push((block, pair.map_err(|t| (tdx.at, t))?));
        }
    }
    Ok((Some(Setup { tdmrs, global, own, pairs, tds, at: tdx.at }), made))
}

/// The first whole GiB of convertible memory.
fn default_tdmr(spec: &PlatformSpec) -> Option<Area> {
    let gib = Size::Huge.bytes();
    let first = |cmr: &Area| {
        let base = cmr.base.checked_next_multiple_of(gib)?;
        let area = Area { base, end: base.checked_add(gib)? };
        cmr.contains(&area).then_some(area)
    };
    spec.tdx.cmrs.iter().find_map(first)
}

// ------------------------------------------------------------------------------------------------------------- running

/// A stage of a setup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The module is brought up, on a machine that has no agents yet.
    Module,
    /// The TDs are built.
    Tds,
}

/// Looks on while a setup runs: called behind every operation.
pub type Watch<'a> = dyn FnMut(&mut Machine, &Op, &StepRecord) + 'a;

/// Whoever runs what a VMM does: an operation of the kernel on a core, and what came of it.
pub(crate) type Executor<'a> = dyn FnMut(u16, &Op) -> Outcome + 'a;

/// A VMM at work.
struct Vmm<'a> {
    run: &'a mut Executor<'a>,
    /// Logical processors.
    cores: u16,
    /// Cores of a package.
    per_package: u16,
    packages: u8,
}

/// A line that asks for a call, and what the call needs.
#[derive(Clone, Copy)]
struct Ask {
    at: Place,
    needs: &'static str,
}

const fn ask(at: Place, needs: &'static str) -> Ask {
    Ask { at, needs }
}

impl Vmm<'_> {
    fn execute(&mut self, core: u16, op: &Op) -> Outcome {
        (self.run)(core, op)
    }
    /// Writes 8 bytes as the host does: cached, under KeyID 0.
    fn store(&mut self, at: u64, value: u64) {
        let at = Addr::new(Hpa(at), KeyId::TME);
        let value = Value::Num(value);
        self.execute(0, &Op::Store { at, bytes: 8, value, ty: MemType::Wb });
    }
    /// CLFLUSH of every line, as Linux does with a page before it gives it away (linux-host-paths.md §4).
    fn clflush(&mut self, base: u64, bytes: u64) {
        for line in 0..bytes / LINE_BYTES as u64 {
            let at = Addr::new(Hpa(base + LINE_BYTES as u64 * line), KeyId::TME);
            self.execute(0, &Op::Clflush { at });
        }
        self.execute(0, &Op::Mfence);
    }
    /// A call on a core: what it returned.
    fn call(
        &mut self,
        core: u16,
        leaf: Leaf,
        regs: [u64; 4],
        ask: Ask,
    ) -> Result<CallResult, SetupError> {
        let [rcx, rdx, r8, r9] = regs;
        let regs = CallRegs([rcx, rdx, r8, r9, 0, 0, 0, 0]);
        match self.execute(core, &Op::Seamcall { leaf, version: 0, regs }) {
            Outcome::Call(result) if result.status == Status::SUCCESS => Ok(result),
            Outcome::NotRun(NotRun::NotModelled) => Err(SetupError::NotModelled(leaf)),
            other => {
                let found = match other {
                    Outcome::Call(CallResult { status, .. }) => {
                        format!("{leaf}: {:#018x} {status}", status.0)
                    }
                    other => format!("{leaf}: {other}"),
                };
                Err(SetupError::Refused { at: ask.at, found, expected: ask.needs.to_owned() })
            }
        }
    }
    /// The same call on one core of every package.
    fn on_packages(&mut self, leaf: Leaf, rcx: u64, ask: Ask) -> Result<(), SetupError> {
        for package in 0..u16::from(self.packages) {
            self.call(package * self.per_package, leaf, [rcx, 0, 0, 0], ask)?;
        }
        Ok(())
    }
    /// A page is flushed, and given to the module.
    fn give(&mut self, page: u64) {
        self.clflush(page, PAGE_BYTES);
    }
}

impl Setup {
    /// Makes the calls.
    ///
    /// # Errors
    /// The first leaf that did not succeed.
    pub fn run<H: McHandler>(&self, machine: &mut Machine, os: &mut H) -> Result<(), SetupError> {
        let log = machine.trace().is_on();
        machine.set_log(false);
        let done = self
            .run_watched(Stage::Module, machine, os, None)
            .and_then(|()| self.run_watched(Stage::Tds, machine, os, None));
        machine.set_log(log);
        done
    }

    /// As [`Setup::run`] for one stage of it, but the log stays as it is, and somebody may look on.
    ///
    /// # Errors
    /// The first leaf that did not succeed.
    pub fn run_watched<H: McHandler>(
        &self,
        stage: Stage,
        machine: &mut Machine,
        os: &mut H,
        mut watch: Option<&mut Watch<'_>>,
    ) -> Result<(), SetupError> {
        let speed = machine.options().speed;
        machine.set_speed(Speed::Functional);
        let cores = machine.spec().cpu.cores;
        let packages = machine.spec().cpu.packages;
        if stage == Stage::Module {
            for core in 0..cores {
                let (name, kind) = (format!("setup{core}"), AgentKind::Kernel);
                machine.add_agent(AgentSpec { name, kind, core, keyid: KeyId::TME, vcpu: None });
            }
        }
        let mut execute = |core: u16, op: &Op| {
            // The machine had no agents before: those of the setup are numbered as the cores.
            let record = machine.execute(AgentId(core), op, u32::MAX, os);
            if let Some(watch) = &mut watch {
                watch(machine, op, &record);
            }
            record.outcome
        };
        let done = self.run_stage(stage, cores, packages, &mut execute);
        if stage == Stage::Tds || done.is_err() {
            machine.settle();
        }
        machine.set_speed(speed);
        done
    }

    /// Whether the module is brought up alike: [`Stage::Module`] makes the same calls on the same platform.
    pub fn has_module_of(&self, other: &Setup) -> bool {
        let part = |s: &Setup| (s.tdmrs.clone(), s.global, s.own, s.pairs.clone());
        part(self) == part(other)
    }

    /// Makes the calls of one stage on whatever executes operations of the kernel on so many cores.
    ///
    /// # Errors
    /// The first leaf that did not succeed.
    pub(crate) fn run_stage(
        &self,
        stage: Stage,
        cores: u16,
        packages: u8,
        run: &mut Executor<'_>,
    ) -> Result<(), SetupError> {
        let packages = packages.max(1);
        let per_package = cores / u16::from(packages);
        // The executor lives as long as the VMM does.
        let mut run = |core: u16, op: &Op| run(core, op);
        let mut vmm = Vmm { run: &mut run, cores, per_package, packages };
        match stage {
            Stage::Module => self.module(&mut vmm),
            Stage::Tds => self.tds.iter().try_for_each(|td| self.td(&mut vmm, td)),
        }
    }
    /// Makes all calls on whatever executes operations of the kernel on so many cores.
    ///
    /// # Errors
    /// The first leaf that did not succeed.
    pub(crate) fn run_on(
        &self,
        cores: u16,
        packages: u8,
        run: &mut Executor<'_>,
    ) -> Result<(), SetupError> {
        self.run_stage(Stage::Module, cores, packages, run)?;
        self.run_stage(Stage::Tds, cores, packages, run)
    }
    /// The host's own memory, from its first byte on.
    pub(crate) const fn own(&self) -> (u64, u64) {
        (self.own, OWN_BYTES)
    }
    /// Whether the module may use an address under a private KeyID: memory of TDs, and PAMTs.
    pub(crate) fn may_be_private(&self, at: u64) -> bool {
        self.tdmrs.iter().any(|t| {
            (t.area.base..t.area.end).contains(&at)
                || t.pamt.iter().any(|(base, size)| (*base..base + size).contains(&at))
        })
    }
    /// Control pages of TDs.
    pub(crate) fn control_pages(&self) -> impl Iterator<Item = u64> {
        self.tds.iter().flat_map(|td| td.control.iter().copied())
    }
    /// Pages that TDs have before the program, and their sizes.
    pub(crate) fn td_pages(&self) -> impl Iterator<Item = (u64, u64)> {
        let pages = self.tds.iter().flat_map(|td| &td.pages);
        pages.map(|p| (p.page, PAGE_BYTES << (9 * p.how.level())))
    }

    /// linux-host-paths.md §3.
    fn module(&self, vmm: &mut Vmm<'_>) -> Result<(), SetupError> {
        let fits = ask(self.at, "a platform on which the module starts");
        vmm.call(0, Leaf::SYS_INIT, [0; 4], fits)?;
        for core in 0..vmm.cores {
            vmm.call(core, Leaf::SYS_LP_INIT, [0; 4], fits)?;
        }
        for (i, tdmr) in (0u64..).zip(&self.tdmrs) {
            let info = self.own + INFOS + TDMR_INFO * i;
            vmm.store(self.own + 8 * i, info);
            // The structure has the PAMTs from the largest entries to the smallest (architecture.md §7.4).
            let head = [tdmr.area.base, tdmr.area.bytes()];
            let pamt = tdmr.pamt.iter().rev().flat_map(|(base, size)| [*base, *size]);
            let reserved = tdmr.reserved.iter().flat_map(|r| [r.base - tdmr.area.base, r.bytes()]);
            let areas = reserved.chain(std::iter::repeat(0)).take(2 * RESERVED_MAX);
            for (k, word) in (0u64..).zip(head.into_iter().chain(pamt).chain(areas)) {
                vmm.store(info + 8 * k, word);
            }
        }
        let count = self.tdmrs.len() as u64;
        let config = [self.own, count, u64::from(self.global.0), 0];
        let needs = "TDMRs, PAMTs and a global HKID that the module accepts";
        vmm.call(0, Leaf::SYS_CONFIG, config, ask(self.at, needs))?;
        vmm.on_packages(Leaf::SYS_KEY_CONFIG, 0, ask(self.at, "a key on every package"))?;
        for tdmr in &self.tdmrs {
            // Each call does a piece; RDX is the next address, rounded down to 1 GiB.
            let pieces = tdmr.area.bytes() / PAGE_BYTES / tdx_module::pamt::INIT_ENTRIES;
            for _ in 0..pieces {
                let base = [tdmr.area.base, 0, 0, 0];
                vmm.call(0, Leaf::SYS_TDMR_INIT, base, ask(self.at, "a TDMR to initialise"))?;
            }
        }
        vmm.clflush(self.own, PARAMS);
        for (block, [first, second]) in &self.pairs {
            vmm.give(*first);
            vmm.give(*second);
            let regs = [block | u64::from(Size::Large.level()), *first, *second, 0];
            vmm.call(0, Leaf::PHYMEM_PAMT_ADD, regs, ask(self.at, "pages for a block's entries"))?;
        }
        Ok(())
    }

    /// linux-host-paths.md §5.
    fn td(&self, vmm: &mut Vmm<'_>, td: &TdSetup) -> Result<(), SetupError> {
        let at = td.at;
        let mut control = td.control.iter().copied();
        let mut page = || {
            control.next().ok_or_else(|| SetupError::Refused {
                at,
                found: "a control page without memory".to_owned(),
                expected: "a page for each".to_owned(),
            })
        };
        let tdr = page()?;
        vmm.give(tdr);
        let hkid = u64::from(td.hkid.0);
        vmm.call(0, Leaf::MNG_CREATE, [tdr, hkid, 0, 0], ask(at, "an HKID that nobody has"))?;
        if td.state == TdState::Created {
            return Ok(());
        }
        vmm.on_packages(Leaf::MNG_KEY_CONFIG, tdr, ask(at, "a key on every package"))?;
        if td.state == TdState::Keyed {
            return Ok(());
        }
        let takes = ask(at, "a control page that the TD takes");
        for _ in 0..TDCS_MIN {
            let tdcx = page()?;
            vmm.give(tdcx);
            vmm.call(0, Leaf::MNG_ADDCX, [tdcx, tdr, 0, 0], takes)?;
        }
        let params = self.own + PARAMS;
        self.write_params(vmm, td);
        let needs = "attributes, gpaw, levels and max-vcpus that the module accepts";
        vmm.call(0, Leaf::MNG_INIT, [tdr, params, 0, 0], ask(at, needs))?;
        for vcpu in 0..td.vcpus {
            // It is associated with the logical processor that initialises it.
            let core = vcpu % vmm.cores.max(1);
            let tdvpr = page()?;
            vmm.give(tdvpr);
            vmm.call(core, Leaf::VP_CREATE, [tdvpr, tdr, 0, 0], takes)?;
            for _ in 1..tdx_module::td::TDVPS_MIN {
                let tdcx = page()?;
                vmm.give(tdcx);
                vmm.call(core, Leaf::VP_ADDCX, [tdcx, tdvpr, 0, 0], takes)?;
            }
            let needs = ask(at, "max-vcpus that has room for every VCPU");
            vmm.call(core, Leaf::VP_INIT, [tdvpr, 0, 0, 0], needs)?;
        }
        for (gpa, level) in &td.tables {
            let sept = page()?;
            vmm.give(sept);
            let entry = gpa | u64::from(*level);
            let needs = ask(at, "guest-physical addresses that are private and below gpaw");
            vmm.call(0, Leaf::MEM_SEPT_ADD, [entry, tdr, sept, 0], needs)?;
        }
        for page in td.pages.iter().filter(|p| p.how == How::Add) {
            let source = match page.content {
                Err(from) => from,
                Ok(byte) => {
                    let source = self.own + SOURCE;
                    for word in 0..PAGE_BYTES / 8 {
                        vmm.store(source + 8 * word, u64::from_ne_bytes([byte; 8]));
                    }
                    source
                }
            };
            vmm.give(page.page);
            let regs = [page.gpa, tdr, page.page, source];
            vmm.call(0, Leaf::MEM_PAGE_ADD, regs, ask(page.at, FREE))?;
        }
        if td.state == TdState::Runnable {
            vmm.call(0, Leaf::MR_FINALIZE, [tdr, 0, 0, 0], ask(at, "at least one VCPU"))?;
        }
        for page in td.pages.iter().filter(|p| p.how != How::Add) {
            let level = page.how.level();
            vmm.clflush(page.page, PAGE_BYTES << (9 * level));
            let regs = [page.gpa | u64::from(level), tdr, page.page, 0];
            vmm.call(0, Leaf::MEM_PAGE_AUG, regs, ask(page.at, FREE))?;
        }
        vmm.clflush(self.own, OWN_BYTES);
        Ok(())
    }

    /// TD_PARAMS: ATTRIBUTES, XFAM, MAX_VCPUS, EPTP_CONTROLS, CONFIG_FLAGS, TSC_FREQUENCY.
    fn write_params(&self, vmm: &mut Vmm<'_>, td: &TdSetup) {
        let at = self.own + PARAMS;
        for word in 0..1024 / 8 {
            vmm.store(at + 8 * word, 0);
        }
        vmm.store(at, td.attributes);
        // x87 and SSE: the least that a processor allows.
        vmm.store(at + 8, 3);
        vmm.store(at + 16, td.max_vcpus.into());
        // Memory type WB, levels less one in bits 5:3.
        vmm.store(at + 24, 6 | u64::from(td.levels - 1) << 3);
        // GPAW: 52 bits instead of 48.
        vmm.store(at + 32, u64::from(td.gpaw == 52));
        // In units of 25 MHz: the model's TSC counts nanoseconds.
        vmm.store(at + 40, 1000 / 25);
    }
}

const FREE: &str = "a free page, a free guest-physical address, and an HKID in use";
