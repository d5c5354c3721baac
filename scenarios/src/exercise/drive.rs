//! Runs one cell of a scenario operation by operation, and shows the invariants what was before and after each.

use crate::run::{Cell, machine_program};
use crate::view::{memory_view, module_view};
use host::mce::{LinuxMce, McPolicy};
use machine::{AgentId, AgentKind, Item, Machine, Options, Speed, StepRecord};
use sim_core::event::EventKind;
use sim_core::mca::{McConsequence, McContext, McRecord};
use sim_core::op::Value;
use sim_core::outcome::{CallResult, NotRun};
use sim_core::tdx::{GuestLeaf, Leaf, Status};
use sim_core::{Addr, KeyId, Line, Op, Outcome, Page, Ps, Tagged};
use std::collections::{BTreeMap, BTreeSet};
use verify::invariants::{CallSeen, Checker, Discipline, McSeen, Moment, Violation, leaves};
use verify::view::ModuleView;

/// How many pages of TDs are looked at line by line.
const WATCHED_PAGES: usize = 64;

/// What a guest's page holds, as far as it is known, and whose it is.
#[derive(Clone)]
struct Known {
    bytes: Box<[u8; 4096]>,
    /// Nobody has written it since it was added or accepted.
    fresh: bool,
    /// Its HKID was another TD's before.
    reused: bool,
}

/// A run under the eyes of the invariants.
struct Driver<'a> {
    machine: Machine,
    os: LinuxMce,
    checker: &'a mut Checker,
    found: Vec<Violation>,
    foreign: BTreeSet<Line>,
    /// By TDR page and guest-physical page.
    known: BTreeMap<(Page, u64), Known>,
    /// HKIDs that were freed.
    freed: BTreeSet<KeyId>,
    /// Pages that are looked at line by line: those that the program names, and the module's.
    named: BTreeSet<Page>,
    /// Cores whose guest met a machine check, until TDH.VP.ENTER returns.
    dying: BTreeSet<u16>,
    /// Errors were injected, memory was tampered with, or the host wrote what is not its own.
    faults: bool,
    events: usize,
    /// Something was done since `now`.
    stale: bool,
    now: Moment,
}

/// Runs a cell in program order, without time, and checks every call, every machine check and every read of a guest.
/// `disciplined` says that its host keeps V1 to V3 of verification.md §2.8.
///
/// # Errors
/// Why the machine could not be built or set up: nothing was looked at.
pub(crate) fn drive(
    cell: &Cell,
    disciplined: bool,
    checker: &mut Checker,
) -> Result<Vec<Violation>, String> {
    let spec = cell.platform();
    let crypto = cell.program().crypto;
    let options = Options { speed: Speed::Functional, crypto, seed: 1, log: true };
    let mut machine = Machine::new(spec, options).map_err(|error| error.to_string())?;
    let mut os = LinuxMce::new(McPolicy {
        seam_nr_recovery: true,
        mask_keyid: true,
        address_bits: spec.keyid.address_bits(),
    });
    if let Some(setup) = &cell.program().setup {
        setup.run(&mut machine, &mut os).map_err(|error| format!("[tdx] or [td]: {error:?}"))?;
    }
    let program = machine_program(cell.program());
    let base = machine.agents().count() as u16;
    for agent in &program.agents {
        machine.add_agent(agent.clone());
    }
    let mut driver = Driver {
        machine,
        os,
        checker,
        found: Vec::new(),
        foreign: BTreeSet::new(),
        known: BTreeMap::new(),
        freed: BTreeSet::new(),
        named: BTreeSet::new(),
        dying: BTreeSet::new(),
        faults: false,
        events: 0,
        stale: false,
        now: Moment::default(),
    };
    driver.name(&program.items);
    driver.look();
    for (item, step) in program.items.iter().enumerate() {
        if let Item::Op(agent, op) = step {
            driver.step(AgentId(base + agent.0), op, item as u32);
        }
    }
    driver.finish(disciplined);
    Ok(driver.found)
}

impl Driver<'_> {
    /// Pages that operations and calls name, so that they are looked at from the start.
    fn name(&mut self, items: &[Item]) {
        let mask = (1u64 << self.machine.spec().keyid.address_bits()) - 1;
        for item in items {
            let Item::Op(_, op) = item else { continue };
            self.named.extend(op.addresses().into_iter().flatten().map(|at| at.hpa.page()));
            if let Op::Seamcall { regs, .. } = op {
                self.named.extend(regs.0.iter().take(4).map(|r| Page((r & mask) >> 12)));
            }
        }
    }

    /// Takes the moment as it is now, and checks what holds at every moment.
    fn look(&mut self) {
        self.stale = false;
        let module = module_view(&self.machine);
        self.watch(&module);
        let memory = memory_view(&self.machine, self.named.iter().copied(), &self.foreign);
        self.now = Moment { module, memory };
        let keyid = self.machine.spec().keyid;
        self.found.extend(self.checker.check_moment(&self.now, &keyid));
    }

    /// Looks at the pages that the module has now, too, and from then on.
    fn watch(&mut self, module: &ModuleView) {
        let pages = &mut self.named;
        pages.extend(module.tds.keys().chain(module.tables.keys()));
        pages.extend(module.tds.values().flat_map(|td| &td.tdcs));
        pages.extend(module.vcpus.values().flat_map(|vcpu| &vcpu.pages));
        pages.extend(module.pamt.keys().map(|(_, page)| *page).take(WATCHED_PAGES));
        for page in module.tds.keys().chain(module.vcpus.keys()) {
            let tdmr = module.tdmrs.iter().find(|t| t.base <= page.hpa().0 && !t.dynamic);
            pages.extend(
                tdmr.map(|t| Page((t.pamt[0].0 + (page.hpa().0 - t.base) / 4096 * 16) >> 12)),
            );
        }
    }

    /// One operation.
    fn step(&mut self, agent: AgentId, op: &Op, item: u32) {
        let Some(spec) = self.machine.agents().nth(usize::from(agent.0)).cloned() else { return };
        if spec.kind != AgentKind::Guest && self.machine.is_in_guest(spec.core) {
            // The guest leaves before the host goes on with its core: its exit is no part of the operation.
            let idle = Op::Delay { time: Ps::ZERO };
            let record = self.machine.execute(agent, &idle, item, &mut self.os);
            self.returned(&record);
            self.stale = true;
        }
        let call = matches!(op, Op::Seamcall { .. } | Op::Tdcall { .. });
        if call && self.stale {
            self.look();
        }
        self.stale = true;
        let before = self.now.clone();
        let disabled = self.machine.is_tdx_disabled();
        let vcpu = spec.vcpu.map(|at| at.page());
        let core = vcpu
            .and_then(|page| self.machine.module().vcpu(page))
            .and_then(|v| v.lp)
            .unwrap_or(spec.core);
        let source = self.source(op);
        self.wrote(spec.kind, op);
        let record = self.machine.execute(agent, op, item, &mut self.os);
        let keys = self.programmed();
        self.machine_checks(&record, vcpu, core);
        if call {
            self.look();
        }
        match (op, record.outcome) {
            (Op::Seamcall { leaf, regs, .. }, Outcome::Call(result)) => {
                if disabled {
                    self.found.extend(self.checker.check_disabled_call(false));
                }
                self.called(&before, spec.core, None, (leaf.0, regs.0), &result, keys);
                self.follow(&before, *leaf, regs.0, &result, source.as_deref());
            }
            (Op::Seamcall { .. }, Outcome::VmFailInvalid) if disabled => {
                self.found.extend(self.checker.check_disabled_call(true));
            }
            (Op::Tdcall { leaf, regs, .. }, Outcome::Call(result)) => {
                self.called(&before, core, vcpu, (leaf.0, regs.0), &result, keys);
                self.accepted(vcpu, *leaf, regs.0, result.status);
            }
            _ => {}
        }
        if spec.kind == AgentKind::Guest {
            self.guest(vcpu, op, &record.outcome);
        }
        self.returned(&record);
    }

    /// Calls of TDH.VP.ENTER that have come back.
    fn returned(&mut self, record: &StepRecord) {
        let mut done = self.machine.take_finished();
        if !matches!(record.outcome, Outcome::NotRun(NotRun::InGuest)) {
            done.push(*record);
        }
        for record in done {
            let Some(spec) = self.machine.agents().nth(usize::from(record.agent.0)) else {
                continue;
            };
            let core = spec.core;
            if let Outcome::Call(CallResult { leaf, status, guest: false, .. }) = record.outcome
                && leaf == Leaf::VP_ENTER.0
                && self.dying.remove(&core)
            {
                self.found.extend(self.checker.check_fatal_entry(true, status));
            }
        }
    }

    /// What a call leaves, under the eyes of the checker.
    fn called(
        &mut self,
        before: &Moment,
        lp: u16,
        vcpu: Option<Page>,
        (leaf, regs): (u16, [u64; 8]),
        result: &CallResult,
        keys: Vec<KeyId>,
    ) {
        let CallResult { status, out, .. } = *result;
        let seen = CallSeen { lp, leaf, vcpu, regs, status, out, keys };
        let keyid = self.machine.spec().keyid;
        self.found.extend(self.checker.check_call(before, &seen, &self.now, &keyid));
        let entered = vcpu.is_none() && leaf == Leaf::VP_ENTER.0;
        let tdr = before.module.vcpus.get(&Page(regs[0] >> 12)).map(|v| v.tdr);
        let fatal = tdr.and_then(|tdr| before.module.tds.get(&tdr)).is_some_and(|td| td.fatal);
        if entered && fatal {
            self.found.extend(self.checker.check_fatal_entry(false, status));
        }
    }

    /// KeyIDs that PCONFIG programmed since it was asked last.
    fn programmed(&mut self) -> Vec<KeyId> {
        let events = self.machine.trace().events();
        let new = events.get(self.events..).unwrap_or_default();
        let keys = new.iter().filter_map(|e| match e.kind {
            EventKind::Pconfig { keyid, status: sim_core::outcome::PconfigStatus::Ok } => {
                Some(keyid)
            }
            _ => None,
        });
        keys.collect()
    }

    /// Machine checks since the last operation.
    fn machine_checks(&mut self, record: &StepRecord, vcpu: Option<Page>, core: u16) {
        let events = self.machine.trace().events();
        let new = events.get(self.events..).unwrap_or_default();
        let taken: Vec<McRecord> = new
            .iter()
            .filter_map(|e| match e.kind {
                EventKind::MachineCheck(record) => Some(record),
                _ => None,
            })
            .collect();
        let consequence = new.iter().find_map(|e| match e.kind {
            EventKind::Consequence(what) => Some(what),
            _ => None,
        });
        self.events = events.len();
        let Some(first) = taken.first().copied() else { return };
        let consequence = match (record.outcome, consequence) {
            (Outcome::MachineCheck { consequence, .. }, _) => consequence,
            (_, Some(consequence)) => consequence,
            (_, None) => return,
        };
        let in_td =
            first.context == McContext::SeamNonRoot && consequence == McConsequence::TdFatal;
        let guest = vcpu.filter(|_| in_td);
        let td = guest.and_then(|page| {
            let tdr = self.machine.module().vcpu(page)?.tdr;
            self.machine.module().td(tdr)
        });
        let graded = self.os.log().iter().find(|g| g.record == first);
        let mce = self.machine.spec().mce;
        let seen = McSeen {
            record: first,
            consequence,
            lmce: mce.lmce,
            seam_nr: mce.seam_nr,
            takers: taken.iter().filter(|r| r.birth == first.birth).count() as u32,
            td_fatal: td.map(|td| td.fatal),
            disabled: self.machine.is_tdx_disabled(),
            panicked: self.machine.is_panicked(),
            marked: graded.map(|g| g.hwpoison.is_some()),
        };
        self.found.extend(self.checker.check_mc(&seen));
        if guest.is_some() {
            self.dying.insert(core);
        }
    }

    /// Notes what an operation of somebody else than the module may have written.
    fn wrote(&mut self, kind: AgentKind, op: &Op) {
        let tampers = matches!(
            op,
            Op::FlipBit { .. }
                | Op::FlipTd { .. }
                | Op::MoveLine { .. }
                | Op::ReplayLine { .. }
                | Op::InjectUe { .. }
        );
        let writes = matches!(
            op,
            Op::Store { .. }
                | Op::NtStore { .. }
                | Op::Movdiri { .. }
                | Op::Movdir64b { .. }
                | Op::Movdir64bPage { .. }
                | Op::RepStosb { .. }
                | Op::LockXadd { .. }
                | Op::DmaWrite { .. }
        );
        self.faults |= tampers;
        if kind == AgentKind::Guest || !(tampers || writes) {
            return;
        }
        let Some(at) = op.addresses().into_iter().flatten().last() else { return };
        let first = op.addresses()[0].unwrap_or(at).hpa.0;
        let last = first + u64::from(op.bytes().max(1)) - 1;
        for at in [first >> 12, last >> 12, at.hpa.0 >> 12] {
            let page = Page(at);
            self.foreign.extend((0..64).map(|i| page.line(i)));
            let leads = |tdr: &Page, gpa: u64| {
                let found = leaves(&self.now.module, *tdr);
                found.iter().any(|l| l.is_leaf() && l.gpa == gpa && l.page() == page)
            };
            let gone: Vec<_> =
                self.known.keys().filter(|(td, gpa)| leads(td, *gpa)).copied().collect();
            for key in gone {
                self.known.remove(&key);
            }
        }
    }

    /// The page that TDH.MEM.PAGE.ADD is about to copy.
    fn source(&self, op: &Op) -> Option<Box<[u8; 4096]>> {
        let Op::Seamcall { leaf: Leaf::MEM_PAGE_ADD, regs, .. } = op else { return None };
        let Addr { hpa, keyid } = self.machine.spec().keyid.split(regs.0[3])?;
        let mut bytes = Box::new([0; 4096]);
        for (i, chunk) in bytes.chunks_mut(64).enumerate() {
            let at = Tagged::new(hpa.page().line(i as u32), keyid);
            let data = match self.machine.caches().inspect(at) {
                Some(view) => view.data,
                None => self.machine.memory().probe(at).data,
            };
            for (j, byte) in chunk.iter_mut().enumerate() {
                *byte = data.byte(j);
            }
        }
        Some(bytes)
    }

    /// Keeps up with what a SEAMCALL did to pages whose contents are known.
    fn follow(
        &mut self,
        before: &Moment,
        leaf: Leaf,
        regs: [u64; 8],
        result: &CallResult,
        source: Option<&[u8; 4096]>,
    ) {
        if result.status != Status::SUCCESS {
            return;
        }
        let (gpa, tdr) = (regs[0] & !0xfff, Page(regs[1] >> 12));
        match leaf {
            Leaf::MEM_PAGE_ADD => {
                if let Some(bytes) = source {
                    let known =
                        Known { bytes: Box::new(*bytes), fresh: true, reused: self.reused(tdr) };
                    self.known.insert((tdr, gpa), known);
                }
            }
            Leaf::MEM_PAGE_REMOVE => {
                let size = 4096u64 << (9 * (regs[0] & 7).min(4));
                self.known.retain(|(td, at), _| *td != tdr || *at < gpa || *at >= gpa + size);
            }
            Leaf::MEM_WR => {
                self.known.remove(&(tdr, gpa));
            }
            Leaf::MNG_KEY_FREEID => {
                let td = before.module.tds.get(&Page(regs[0] >> 12));
                self.freed.extend(td.map(|td| td.hkid));
                self.known.retain(|(td, _), _| *td != Page(regs[0] >> 12));
            }
            _ => {}
        }
    }

    fn reused(&self, tdr: Page) -> bool {
        self.machine.module().td(tdr).is_some_and(|td| self.freed.contains(&td.hkid))
    }

    /// A page was accepted: it holds zeros.
    fn accepted(&mut self, vcpu: Option<Page>, leaf: GuestLeaf, regs: [u64; 8], status: Status) {
        let accept = leaf == GuestLeaf::MEM_PAGE_ACCEPT && status == Status::SUCCESS;
        let tdr = vcpu.and_then(|page| self.machine.module().vcpu(page)).map(|v| v.tdr);
        let Some(tdr) = tdr.filter(|_| accept) else { return };
        let pages = 1u64 << (9 * (regs[0] & 7).min(1));
        let reused = self.reused(tdr);
        for page in 0..pages {
            let known = Known { bytes: Box::new([0; 4096]), fresh: true, reused };
            self.known.insert((tdr, (regs[0] & !0xfff) + 4096 * page), known);
        }
    }

    /// What a guest read or wrote, against what its pages hold.
    fn guest(&mut self, vcpu: Option<Page>, op: &Op, outcome: &Outcome) {
        let tdr = vcpu.and_then(|page| self.machine.module().vcpu(page)).map(|v| v.tdr);
        let (Some(tdr), Some(at)) = (tdr, op.addresses()[0]) else { return };
        let (gpa, offset) = (at.hpa.0 & !0xfff, (at.hpa.0 & 0xfff) as usize);
        let end = offset + op.bytes() as usize;
        let Some(known) = self.known.get_mut(&(tdr, gpa)) else { return };
        match (op, outcome) {
            (Op::Load { .. }, Outcome::Data(loaded)) => {
                let n = (loaded.bytes as usize).min(64);
                let want = known.bytes.get(offset..offset + n);
                let got: Vec<u8> = (0..n).map(|i| loaded.data.byte(i)).collect();
                if let Some(want) = want {
                    let (fresh, reused) = (known.fresh, known.reused);
                    let found = self.checker.check_guest_read(fresh, reused, want, &got);
                    self.found.extend(found);
                }
            }
            (Op::Store { value, .. }, Outcome::Done) if end <= 4096 => {
                known.fresh = false;
                let bytes = known.bytes.iter_mut().take(end).skip(offset);
                match value {
                    Value::Num(n) => {
                        let n = n.to_le_bytes();
                        bytes.enumerate().for_each(|(i, b)| *b = n.get(i).copied().unwrap_or(0));
                    }
                    Value::Fill(byte) => bytes.for_each(|b| *b = *byte),
                    Value::Unsaid => bytes.for_each(|b| *b = Value::UNSAID),
                }
            }
            (Op::Load { .. } | Op::Fetch { .. } | Op::Prefetch { .. } | Op::Invlpg { .. }, _) => {}
            (Op::Clflush { .. } | Op::Clflushopt { .. } | Op::Clwb { .. }, _) => {}
            _ => {
                self.known.remove(&(tdr, gpa));
            }
        }
    }

    /// C10 and P6, at the end.
    fn finish(&mut self, disciplined: bool) {
        self.machine.call_back_all(&mut self.os);
        self.machine.settle();
        let cores = self.machine.spec().cpu.cores.min(128);
        let caches = self.machine.caches();
        for line in caches.resident_lines() {
            let holds = |core: &u16| caches.is_in_l1(*core, line.tag);
            let holders = (0..cores).filter(holds).fold(0u128, |map, core| map | 1 << core);
            self.found.extend(self.checker.check_directory(holders, line.cores));
        }
        let run = Discipline {
            erratum: self.machine.spec().memory.erratum_pw_mce,
            faults: self.faults,
            kept: disciplined,
            births: self.machine.trace().births().len() as u64,
        };
        self.found.extend(self.checker.check_discipline(&run));
    }
}
