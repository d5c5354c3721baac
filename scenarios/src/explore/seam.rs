//! The TDX module on the reference: the product's module, one touch at a time, with guests and TLBs.
//!
//! A call is under way on a logical processor: a step of the module, then the touch that it asks for. On watched lines a
//! touch is an operation of SEAM root on the reference model, and hardware's choices come before it. While more than one
//! agent uses the module, every step is a move of its own; while only one does, nobody can tell.
//!
//! Guests' addresses are translated by the module's Secure-EPT, not by what lies in memory; a translation stays in the TLB of
//! its processor until something flushes it, or hardware forgets it.

use super::world::{Deps, Explorer, KNOWN, Move, Retiring, Saw, World, spans};
use machine::{AgentKind, Order, Translation, exit_of, is_seam_msr, reset_msr};
use sim_core::data::LineData;
use sim_core::mca::{McAccess, McConsequence, McContext, McRecord};
use sim_core::op::{IrqKind, MemType, PconfigCmd, Value};
use sim_core::outcome::{CallResult, GpReason, NotRun, PconfigStatus};
use sim_core::tdx::ExitReason;
use sim_core::{
    Addr, Hpa, LINES_PER_PAGE, Line, Op, Outcome, PAGE_BYTES, Page, PlatformSpec, Ps, Tagged,
};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tdx_module::sept::Entry;
use tdx_module::{
    Action, Answer, Call, Env, Flight, GuestEntry, Inject, Module, Reply, Touch, VmExit,
};
use verify::reference::{Act, Agent, Seen};

/// The moment at which everything happens: there is no time here, and a TSC that does not go back.
const NOW: Ps = Ps(1_000_000_000);
/// IA32_TIME_STAMP_COUNTER.
const MSR_TSC: u32 = 0x10;
/// IA32_TSC_ADJUST.
const MSR_TSC_ADJUST: u32 = 0x3b;
/// How often an access tries again when the module finds that its Secure-EPT allows it.
const RETRIES: u8 = 16;
/// Of an EPT violation's exit qualification.
const READ: u8 = 1;
const WRITE: u8 = 2;
const FETCH: u8 = 4;
/// EPT violation.
const EPT_VIOLATION: ExitReason = ExitReason(48);

/// An operation of a guest that the module is at work for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ask {
    agent: usize,
    line: usize,
    op: Op,
    /// The leaf of a TDCALL.
    call: Option<u16>,
    gpa: u64,
    retries: u8,
}

/// A logical processor and the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Lp {
    flight: Flight,
    reply: Reply,
    /// A touch that is to be done next.
    next: Option<Touch>,
    /// The poison that the last touch met: its machine check is on its way.
    retiring: Option<(McAccess, Tagged)>,
    /// Steps of the module since the call began.
    steps: u32,
    /// Whose call is under way: agent and line.
    caller: Option<(usize, usize)>,
    /// The guest that runs.
    guest: Option<GuestEntry>,
    /// For whose operation in the guest the module is at work.
    ask: Option<Ask>,
    irq: Option<IrqKind>,
    starve: u32,
    msrs: Vec<(u32, u64)>,
    tsc_shift: u64,
    tlb: BTreeMap<(Page, u64), Translation>,
    msmi: Option<McRecord>,
}

impl Lp {
    /// Whether the host's call waits for a guest that runs.
    const fn is_parked(&self) -> bool {
        self.guest.is_some() && self.ask.is_none()
    }
}

/// The module and all logical processors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seam {
    pub(super) module: Module,
    lps: BTreeMap<u16, Lp>,
}

/// Why a flight stopped.
enum Ran {
    /// Something else may happen now.
    Suspended,
    /// A guest runs.
    Parked,
    /// The host's call is over.
    Over(Outcome),
    /// The guest's operation is over.
    Asked(Ask, Saw),
}

/// What keeps a guest's access from memory.
enum Refused {
    /// The guest leaves.
    Exit(VmExit, u64),
    /// Its own tables, or a fetch from a shared address.
    Reserved,
    /// A page walk met poison.
    Seen(Seen),
}

impl Seam {
    pub(super) fn new(spec: &PlatformSpec) -> Seam {
        let module = Module::new(tdx_module::Spec::of_platform(spec));
        Seam { module, lps: BTreeMap::new() }
    }
    pub(super) fn hash_cheaply<H: Hasher>(&self, state: &mut H) {
        for (core, lp) in &self.lps {
            (core, lp.steps, lp.caller, lp.irq, lp.tlb.len()).hash(state);
            lp.guest.hash(state);
        }
    }
    /// Whether a guest runs anywhere.
    pub(super) fn guest_runs(&self) -> bool {
        self.lps.values().any(|lp| lp.guest.is_some())
    }
    /// Whether a call is under way anywhere.
    pub(super) fn is_busy(&self) -> bool {
        self.lps.values().any(|lp| lp.caller.is_some())
    }
    pub(super) fn shut_down(&mut self, core: u16) {
        self.module.disable();
        if let Some(lp) = self.lps.get_mut(&core) {
            (lp.guest, lp.ask, lp.next, lp.retiring) = (None, None, None, None);
        }
    }
    /// A core's translation of a guest-linear page.
    pub(super) fn translation(&self, core: u16, td: Page, linear: u64) -> Option<Translation> {
        self.lps.get(&core)?.tlb.get(&(td, linear)).copied()
    }
    fn lp(&mut self, core: u16) -> &mut Lp {
        self.lps.entry(core).or_default()
    }
    /// The core on which a VCPU runs.
    fn core_of(&self, tdvpr: Page) -> Option<u16> {
        let mut lps = self.lps.iter();
        lps.find(|(_, lp)| lp.guest.is_some_and(|g| g.tdvpr == tdvpr)).map(|(core, _)| *core)
    }
    /// The core on which an operation of an agent is under way, and whether it waits for a guest: while one runs, and while the
    /// module is at work for it, which is then the guest's own operation and nobody else's.
    fn flight_of(&self, agent: usize) -> Option<(u16, bool)> {
        self.lps.iter().find_map(|(core, lp)| {
            if lp.ask.is_some_and(|ask| ask.agent == agent) {
                return Some((*core, false));
            }
            (lp.caller?.0 == agent).then(|| (*core, lp.guest.is_some() || lp.ask.is_some()))
        })
    }

    /// The lines that an agent's next move touches in a call, or in a guest. False for an ordinary operation.
    pub(super) fn deps(
        &self,
        x: &Explorer,
        w: &World,
        agent: usize,
        op: &Op,
        deps: &mut Deps,
    ) -> bool {
        if let Some((core, _)) = self.flight_of(agent) {
            let next = self.lps.get(&core).and_then(|lp| lp.next);
            if let Some(touch) = next {
                touched(x, &touch).into_iter().for_each(|line| deps.add(line));
            }
            x.sent_off_by_check(w, core, deps);
            return true;
        }
        if matches!(op, Op::Seamcall { .. }) {
            return true;
        }
        let Some(spec) = x.agents.get(agent).filter(|a| a.kind == AgentKind::Guest) else {
            return false;
        };
        let core = spec.vcpu.and_then(|vcpu| self.core_of(vcpu.page()));
        let guest = core.and_then(|core| self.lps.get(&core)).and_then(|lp| lp.guest);
        if let (Some(core), Some(guest)) = (core, guest) {
            x.sent_off_by_check(w, core, deps);
            for (at, bytes) in spans(op) {
                let linear = at.0;
                let known = self.translation(core, guest.tdr, linear / PAGE_BYTES);
                if known.is_none() {
                    let walked = walked(&self.module, &guest, linear);
                    walked.filter(|l| x.watch.is_watched(*l)).for_each(|line| deps.add(line));
                }
                if let Some(to) = known.or_else(|| x.walk(w, &guest, linear)) {
                    let at = Hpa(to.page.hpa().0 + linear % PAGE_BYTES);
                    x.watch.watched(at, bytes).for_each(|line| deps.add(line));
                }
            }
        }
        true
    }
}

/// Whether an operation that the reference has not is a serialising instruction or a VM entry or exit.
const fn is_serialising(op: &Op) -> bool {
    matches!(
        op,
        Op::Seamcall { .. }
            | Op::Tdcall { .. }
            | Op::Wrmsr { .. }
            | Op::MovCr3 { .. }
            | Op::Invlpg { .. }
            | Op::SeamldrInstall
    )
}

/// The watched lines of a touch.
fn touched(x: &Explorer, touch: &Touch) -> Vec<Line> {
    let lines = |at: Addr, count: u32| x.watch.watched(at.hpa.line().hpa(), 64 * u64::from(count));
    match *touch {
        Touch::Load { at, .. } | Touch::Store { at, .. } => lines(at, 1).collect(),
        Touch::Fill { at, lines: n, .. } | Touch::FillSome { at, lines: n, .. } => {
            lines(at, n).collect()
        }
        Touch::FillTable { at, .. } | Touch::FlushPage { at } => {
            lines(at, LINES_PER_PAGE).collect()
        }
        Touch::Copy { from, to } => {
            lines(from, LINES_PER_PAGE).chain(lines(to, LINES_PER_PAGE)).collect()
        }
        // Of a block of the caches any line may be.
        Touch::WriteBackBlock(_) => x.watch.all().collect(),
        // What leaves before it is encrypted with the old key.
        Touch::Pconfig { .. } => x.watch.all().collect(),
        Touch::Random | Touch::Invept(_) | Touch::Spend(_) => Vec::new(),
    }
}

/// The lines of the Secure-EPT that a walk reads.
fn walked(module: &Module, g: &GuestEntry, gpa: u64) -> impl Iterator<Item = Line> {
    let mut table = Some(g.root);
    (0..g.levels).rev().map_while(move |level| {
        let from = table?;
        let index = (gpa >> (12 + 9 * u32::from(level)) & 511) as u16;
        let entry = module.sept_entry(from, index);
        let onward = entry.filter(|e| level > 0 && e.0 & Entry::RWX != 0 && !e.is_leaf());
        table = onward.map(|e| e.page());
        Some(tdx_module::sept_at(from, index).line())
    })
}

/// The translation of a private guest-physical address by the module's Secure-EPT; else the exit.
fn private_leaf(module: &Module, g: &GuestEntry, gpa: u64) -> Result<Translation, VmExit> {
    let violation = VmExit::EptViolation { gpa, access: READ };
    let (mut table, mut level) = (g.root, g.levels);
    loop {
        level = level.checked_sub(1).ok_or(violation)?;
        let index = (gpa >> (12 + 9 * u32::from(level)) & 511) as u16;
        let entry = module.sept_entry(table, index).ok_or(violation)?;
        if entry.0 & Entry::RWX == 0 {
            return Err(violation);
        }
        if level > 0 && !entry.is_leaf() {
            table = entry.page();
            continue;
        }
        let mask = (1u64 << (12 + 9 * u32::from(level))) - 1;
        return Ok(Translation {
            page: Hpa(entry.hpa().0 & !mask | gpa & mask).page(),
            keyid: g.hkid,
            write: entry.0 & Entry::W != 0,
            execute: entry.0 & Entry::X != 0,
            shared: false,
        });
    }
}

impl Explorer {
    fn seam(w: &mut World) -> Option<&mut Seam> {
        w.seam.as_mut().map(Arc::make_mut)
    }
    fn lp(w: &mut World, core: u16) -> Option<&mut Lp> {
        Self::seam(w).map(|seam| seam.lp(core))
    }
    fn peek_lp(w: &World, core: u16) -> Option<&Lp> {
        w.seam.as_ref()?.lps.get(&core)
    }

    /// Whether an agent of a concurrent program can move: its core is its own, its VCPU runs.
    pub(super) fn can_move(&self, w: &World, agent: usize, _line: usize) -> bool {
        let Some(seam) = &w.seam else { return true };
        if let Some((_, parked)) = seam.flight_of(agent) {
            return !parked;
        }
        let Some(spec) = self.agents.get(agent) else { return false };
        if self.refusal(w, agent).is_some() {
            return true;
        }
        match spec.kind {
            AgentKind::Guest => {
                let core = spec.vcpu.and_then(|vcpu| seam.core_of(vcpu.page()));
                core.and_then(|core| seam.lps.get(&core)).is_some_and(|lp| lp.ask.is_none())
            }
            _ => spec
                .core
                .is_none_or(|core| seam.lps.get(&core).is_none_or(|lp| lp.caller.is_none())),
        }
    }

    /// Whether the operation of a line has begun and goes on when its agent moves.
    pub(super) fn is_under_way(&self, w: &World, agent: usize, line: usize) -> bool {
        if w.retiring.contains_key(&agent) {
            return true;
        }
        let Some(seam) = &w.seam else { return false };
        seam.lps.values().any(|lp| {
            lp.ask.is_some_and(|ask| (ask.agent, ask.line) == (agent, line))
                || lp.caller == Some((agent, line)) && !lp.is_parked()
        })
    }
    /// The cores on which guests run and nobody is at work for them.
    pub(super) fn parked_cores(&self, w: &World) -> Vec<u32> {
        let lps = w.seam.iter().flat_map(|s| &s.lps);
        lps.filter(|(_, lp)| lp.is_parked()).map(|(core, _)| u32::from(*core)).collect()
    }

    /// An agent goes on in a world that has a module. Whether its line is behind it.
    pub(super) fn go_on_with_module(
        &mut self,
        w: &mut World,
        agent: usize,
        line: usize,
        op: &Op,
    ) -> bool {
        if let Some((core, _)) = w.seam.as_ref().and_then(|s| s.flight_of(agent)) {
            // In the order of the program a parked host is behind its line, and this is its next one.
            let here = Self::peek_lp(w, core).is_some_and(|lp| {
                lp.caller == Some((agent, line)) || lp.ask.is_some_and(|a| a.agent == agent)
            });
            if here {
                return self.fly_on(w, core, line);
            }
        }
        let Some(spec) = self.agents.get(agent) else { return true };
        let (kind, core) = (spec.kind, spec.core);
        if let Some(refused) = self.refusal(w, agent) {
            self.over(w, line, (refused, KNOWN));
            return true;
        }
        if kind == AgentKind::Guest {
            return self.guest(w, agent, line, op);
        }
        if let Some(core) = core {
            // The host goes on with a core on which a guest runs: a timer interrupt makes the guest leave.
            self.call_back(w, core);
            if let Some(refused) = self.refusal(w, agent) {
                self.over(w, line, (refused, KNOWN));
                return true;
            }
            if is_serialising(op) {
                self.drain_stores(w, core);
            }
            // A call leaves it to the module to look.
            if !matches!(op, Op::Seamcall { .. }) {
                self.take_irq(w, core);
            }
        }
        let outcome = match (*op, core) {
            (Op::Seamcall { leaf, version, regs }, Some(core)) if kind == AgentKind::Kernel => {
                let call = Call { rax: u64::from(version) << 16 | u64::from(leaf.0), regs: regs.0 };
                if self.begin(w, core, &call, (agent, line)) {
                    return self.fly_on(w, core, line);
                }
                Outcome::VmFailInvalid
            }
            (
                Op::Seamcall { .. } | Op::Tdcall { .. } | Op::MovCr3 { .. } | Op::Invlpg { .. },
                _,
            ) => Outcome::GeneralProtection(GpReason::Privilege),
            (Op::Irq { core, kind }, _) => {
                self.interrupt(w, core as u16, kind);
                Outcome::Done
            }
            (Op::Starve { core, draws }, _) => {
                if let Some(lp) = Self::lp(w, core as u16) {
                    lp.starve = draws;
                }
                Outcome::Done
            }
            (Op::Wrmsr { msr, value }, Some(core)) => match kind {
                AgentKind::Kernel if is_seam_msr(msr) => {
                    Outcome::GeneralProtection(GpReason::NotInSeam)
                }
                AgentKind::Kernel | AgentKind::Seam => {
                    self.wrmsr(w, core, msr, value);
                    Outcome::Done
                }
                _ => Outcome::GeneralProtection(GpReason::Privilege),
            },
            (Op::Wrmsr { .. }, None) => Outcome::GeneralProtection(GpReason::Privilege),
            (Op::SeamldrInstall, _) if kind != AgentKind::Kernel => {
                Outcome::GeneralProtection(GpReason::Privilege)
            }
            (Op::SeamldrInstall, _) => match Self::seam(w).map(|s| s.module.install()) {
                Some(Ok(())) => Outcome::Done,
                _ => Outcome::VmFailInvalid,
            },
            _ => return self.plain(w, agent, line, op),
        };
        self.over(w, line, (outcome, KNOWN));
        true
    }

    /// An operation of a kernel before the program, from begin to end.
    pub(super) fn prepare(&mut self, w: &mut World, core: u16, op: &Op) -> Outcome {
        let nobody = (usize::MAX, usize::MAX);
        if let Op::Seamcall { leaf, version, regs } = *op {
            let call = Call { rax: u64::from(version) << 16 | u64::from(leaf.0), regs: regs.0 };
            if !self.begin(w, core, &call, nobody) {
                return Outcome::VmFailInvalid;
            }
            return match self.fly(w, core, true) {
                Ran::Over(outcome) => outcome,
                _ => self.lost_track(w, "a call before the program that does not return").0,
            };
        }
        match self.access(w, Agent::Kernel, core, op) {
            Ok(seen) => self.outcome(w, usize::MAX, core, seen).0,
            Err(why) => self.lost_track(w, why).0,
        }
    }

    // ------------------------------------------------------------------------------------------------------- flights

    fn env<T>(
        &self,
        w: &mut World,
        core: u16,
        f: impl FnOnce(&mut Module, &mut Flight, Reply, &Env<'_>) -> T,
    ) -> Option<T> {
        let package = self.spec.package_of(core);
        let seam = Self::seam(w)?;
        let lp = seam.lps.entry(core).or_default();
        let reply = std::mem::take(&mut lp.reply);
        let irq = lp.irq.is_some();
        let tsc = (NOW.0 / 1000).wrapping_add(lp.tsc_shift);
        let env = Env { lp: core, package, irq, now: NOW, tsc, msrs: &lp.msrs, cpuid: 0 };
        Some(f(&mut seam.module, &mut lp.flight, reply, &env))
    }

    fn begin(&mut self, w: &mut World, core: u16, call: &Call, caller: (usize, usize)) -> bool {
        let begun = self.env(w, core, |module, flight, _, env| module.begin(flight, call, env));
        if !matches!(begun, Some(Ok(()))) {
            return false;
        }
        if let Some(lp) = Self::lp(w, core) {
            (lp.reply, lp.next, lp.steps) = (Reply::Done, None, 0);
            (lp.caller, lp.guest, lp.ask) = (Some(caller), None, None);
        }
        true
    }

    /// A flight goes on for the agent that is at `line`, and whoever else is over with it. Whether that line is behind.
    fn fly_on(&mut self, w: &mut World, core: u16, line: usize) -> bool {
        match self.fly(w, core, false) {
            Ran::Suspended => false,
            // In the order of the program others go on meanwhile; side by side the host is at its call.
            Ran::Parked => self.order == Order::Program,
            Ran::Over(_) => true,
            // The access has met poison, and its machine check comes.
            Ran::Asked(ask, _) if w.retiring.contains_key(&ask.agent) => false,
            Ran::Asked(ask, seen) => {
                self.over(w, ask.line, seen);
                self.guest_done(w, core);
                ask.line == line
            }
        }
    }

    /// Runs a flight until something else may happen; to its end if `through`.
    fn fly(&mut self, w: &mut World, core: u16, through: bool) -> Ran {
        if w.fate.panicked {
            // Nobody calls after that, so the call was under way: the host's processors have stopped wherever they were.
            let cut = Outcome::NotRun(NotRun::Panic);
            return self.lost(w, core, cut, cut);
        }
        let alone = self.lone_caller || self.order == Order::Program;
        // VM entries and exits drain the store buffer, and nothing that the module does waits in it.
        self.drain_stores(w, core);
        if let Some(what) = Self::lp(w, core).and_then(|lp| lp.retiring.take()) {
            return self.flight_checked(w, core, what);
        }
        loop {
            let next = Self::lp(w, core).and_then(|lp| lp.next.take());
            let touch = match next {
                Some(touch) => touch,
                None => {
                    let trace = &mut sim_core::event::Trace::new(false);
                    let action = self.env(w, core, |module, flight, reply, env| {
                        module.step(flight, reply, env, trace)
                    });
                    if let Some(lp) = Self::lp(w, core) {
                        lp.steps += 1;
                    }
                    match action {
                        Some(Action::Touch(touch)) => {
                            let watched = !through && !touched(self, &touch).is_empty();
                            if watched && let Some(lp) = Self::lp(w, core) {
                                lp.next = Some(touch);
                                return Ran::Suspended;
                            }
                            touch
                        }
                        Some(Action::Enter(guest)) => match self.entered(w, core, guest, through) {
                            Some(ran) => return ran,
                            None => continue,
                        },
                        Some(Action::Return(answer)) => return self.returned(w, core, answer),
                        Some(Action::Fatal) | None => {
                            self.shut_down(w, core);
                            let lost = Outcome::NotRun(NotRun::Shutdown);
                            return self.lost(w, core, lost, lost);
                        }
                        Some(Action::NotModelled) => {
                            let (lost, _) = self.lost_track(w, "a leaf of the module");
                            self.take_irq(w, core);
                            return self.lost(w, core, lost, lost);
                        }
                    }
                }
            };
            match self.touch(w, core, &touch) {
                Ok(reply) => {
                    if let Some(lp) = Self::lp(w, core) {
                        lp.reply = reply;
                    }
                }
                Err(Seen::MachineCheck { access, at, .. }) => {
                    let what = (access, at);
                    if !through && self.others_go_on(w, Self::flyer(w, core)) {
                        if let Some(lp) = Self::lp(w, core) {
                            lp.retiring = Some(what);
                        }
                        return Ran::Suspended;
                    }
                    return self.flight_checked(w, core, what);
                }
                Err(other) => {
                    // The module forms every KeyID: nothing else can come of its accesses.
                    let (lost, _) = self.lost_track(w, format!("the module met {other:?}"));
                    return self.lost(w, core, lost, lost);
                }
            }
            // What is queued behind a touch says nothing new to anybody: only the leaf's own steps are seen by others.
            let queued = self
                .env(w, core, |module, flight, reply, _| {
                    (module.next_touch(flight).is_some(), reply)
                })
                .map(|(queued, reply)| {
                    if let Some(lp) = Self::lp(w, core) {
                        lp.reply = reply;
                    }
                    queued
                });
            if !alone && !through && queued == Some(false) {
                return Ran::Suspended;
            }
        }
    }

    /// For whom a core flies: the guest that asked, else the host that called.
    fn flyer(w: &World, core: u16) -> usize {
        let lp = Self::peek_lp(w, core);
        let asker = lp.and_then(|lp| lp.ask).map(|ask| ask.agent);
        asker.or_else(|| lp.and_then(|lp| lp.caller).map(|c| c.0)).unwrap_or(usize::MAX)
    }
    /// The module meets a machine check.
    fn flight_checked(&mut self, w: &mut World, core: u16, what: (McAccess, Tagged)) -> Ran {
        let agent = Self::flyer(w, core);
        let lp = Self::peek_lp(w, core);
        let (asking, caller) = (lp.and_then(|lp| lp.ask), lp.and_then(|lp| lp.caller));
        let outcome = self.machine_check(w, agent, core, (McContext::SeamRoot, false), what);
        if let Some(lp) = Self::lp(w, core) {
            (lp.ask, lp.caller) = (asking, caller);
        }
        let host = match asking {
            Some(_) => Outcome::NotRun(NotRun::Shutdown),
            None => outcome,
        };
        self.lost(w, core, host, outcome)
    }

    /// The host's call is over.
    pub(super) fn host_over(&mut self, w: &mut World, core: u16, outcome: Outcome) {
        let Some(lp) = Self::lp(w, core) else { return };
        (lp.guest, lp.next, lp.retiring) = (None, None, None);
        let Some((agent, line)) = lp.caller.take() else { return };
        let msmi = lp.msmi.take();
        if let (Outcome::Call(_), Some(record)) = (&outcome, msmi) {
            self.host_handles(w, &record);
        }
        self.over(w, line, (outcome, KNOWN));
        if self.order == Order::Concurrent && line < self.lines.len() {
            self.advance(w, agent, line);
        }
    }
    /// A flight never comes to its end: what its host, and the guest's operation that it was for, come to.
    fn lost(&mut self, w: &mut World, core: u16, host: Outcome, asker: Outcome) -> Ran {
        let ask = Self::lp(w, core).and_then(|lp| lp.ask.take());
        self.host_over(w, core, host);
        match ask {
            Some(ask) => Ran::Asked(ask, (asker, KNOWN)),
            None => Ran::Over(host),
        }
    }
    fn returned(&mut self, w: &mut World, core: u16, answer: Answer) -> Ran {
        let Answer { status, out } = answer;
        let Some(lp) = Self::lp(w, core) else { return Ran::Suspended };
        let leaf = lp.flight.leaf().0;
        let ask = lp.ask.take();
        self.take_irq(w, core);
        let outcome = Outcome::Call(CallResult { guest: false, leaf, status, out });
        self.host_over(w, core, outcome);
        let Some(ask) = ask else { return Ran::Over(outcome) };
        let reason = ExitReason(status.0 as u32);
        // TDG.MEM.PAGE.ACCEPT leaves as if it had accessed the page: the VMM has the address.
        let gpa = if ask.call.is_some() && reason == EPT_VIOLATION { out[2] } else { ask.gpa };
        Ran::Asked(ask, (Outcome::TdExit { reason, gpa }, KNOWN))
    }
    /// The module enters a guest, or lets it go on. `None`: the flight goes on.
    fn entered(
        &mut self,
        w: &mut World,
        core: u16,
        guest: GuestEntry,
        through: bool,
    ) -> Option<Ran> {
        let lp = Self::lp(w, core)?;
        let Some(ask) = lp.ask else {
            if let Some(irq) = lp.irq {
                // It was pending all the time: the guest does not get to its first instruction.
                lp.reply = Reply::Exit(exit_of(irq));
                return None;
            }
            lp.guest = Some(guest);
            return Some(Ran::Parked);
        };
        (lp.guest, lp.ask) = (Some(guest), None);
        let outcome = match guest.inject {
            Inject::Nothing => {
                if ask.retries == RETRIES {
                    let lost = self.lost_track(w, "a guest that never gets on");
                    return Some(Ran::Asked(ask, lost));
                }
                let again = Ask { retries: ask.retries + 1, ..ask };
                return match self.guest_access(w, core, again) {
                    Ok(seen) => Some(Ran::Asked(again, seen)),
                    Err(exit) => {
                        self.ask(w, core, again, exit);
                        (!through && self.order == Order::Concurrent).then_some(Ran::Suspended)
                    }
                };
            }
            Inject::Exception { vector: 14, error } if error & 1 << 3 != 0 => {
                Outcome::PageFaultRsvd
            }
            Inject::Exception { vector: 14, .. } => Outcome::PageFault,
            Inject::Exception { .. } => Outcome::DoubleFault,
            Inject::Ve { .. } => Outcome::VirtualizationException,
            Inject::Answer(Answer { status, out }) => {
                let leaf = ask.call.unwrap_or(0);
                Outcome::Call(CallResult { guest: true, leaf, status, out })
            }
        };
        Some(Ran::Asked(ask, (outcome, KNOWN)))
    }

    // ------------------------------------------------------------------------------------------------------- touches

    /// A touch as operations of SEAM root.
    fn touch(&mut self, w: &mut World, core: u16, touch: &Touch) -> Result<Reply, Seen> {
        let line =
            |at: Addr, i: u32| Addr::new(Hpa(at.hpa.line().hpa().0 + 64 * u64::from(i)), at.keyid);
        match *touch {
            Touch::Load { at, bytes } => {
                let bytes = u32::from(bytes);
                let data = self.root(w, core, &Op::Load { at, bytes, ty: MemType::Wb })?;
                return Ok(Reply::Data(data));
            }
            Touch::Store { at, value, bytes, locked } => {
                if locked {
                    self.root(w, core, &Op::Mfence)?;
                }
                for (i, word) in value.iter().enumerate().take(usize::from(bytes / 8)) {
                    let at = Addr::new(Hpa(at.hpa.0 + 8 * i as u64), at.keyid);
                    let value = Value::Num(*word);
                    if locked && i == 0 {
                        // It is read as well, and retires on poison.
                        self.root(w, core, &Op::Load { at, bytes: 8, ty: MemType::Wb })?;
                    }
                    self.root(w, core, &Op::Store { at, bytes: 8, value, ty: MemType::Wb })?;
                }
            }
            Touch::Fill { at, lines, word } => {
                self.fill(w, core, at, lines, |_| [word; 8])?;
            }
            Touch::FillSome { at, lines, word, mask } => {
                let data = std::array::from_fn(|k| word * u64::from(mask >> k & 1));
                self.fill(w, core, at, lines, |_| data)?;
            }
            Touch::FillTable { at, first, step } => {
                let word = |i: u64| first.wrapping_add(step.wrapping_mul(i));
                let data = |i: u32| std::array::from_fn(|k| word(8 * u64::from(i) + k as u64));
                self.fill(w, core, at, LINES_PER_PAGE, data)?;
            }
            Touch::Copy { from, to } => {
                for i in self.watch.modelled(to.hpa.line(), LINES_PER_PAGE) {
                    let load = Op::Load { at: line(from, i), bytes: 64, ty: MemType::Wb };
                    let data = self.root(w, core, &load)?;
                    self.direct(w, core, line(to, i), data.0)?;
                }
                self.root(w, core, &Op::Mfence)?;
            }
            Touch::FlushPage { at } => {
                for i in self.watch.modelled(at.hpa.line(), LINES_PER_PAGE) {
                    self.root(w, core, &Op::Clflushopt { at: line(at, i) })?;
                }
                self.root(w, core, &Op::Mfence)?;
            }
            Touch::WriteBackBlock(block) => {
                self.root(w, core, &Op::Wbnoinvdp { block })?;
            }
            Touch::Pconfig { keyid, alg } => {
                if self.starved(w, core) {
                    return Ok(Reply::Pconfig(PconfigStatus::NoEntropy));
                }
                let op = Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: Some(alg) };
                match self.access(w, Agent::SeamRoot, core, &op) {
                    Ok(Seen::Pconfig(status)) => return Ok(Reply::Pconfig(status)),
                    // #GP: the module asked for a KeyID or an algorithm that PCONFIG has not.
                    Ok(other) => return Err(other),
                    Err(why) => self.goes_astray(w, why),
                }
            }
            Touch::Random => return Ok(Reply::Random(!self.starved(w, core))),
            Touch::Invept(td) => {
                if let Some(lp) = Self::lp(w, core) {
                    lp.tlb.retain(|(of, _), _| td.is_some_and(|td| td != *of));
                }
            }
            Touch::Spend(_) => {}
        }
        Ok(Reply::Done)
    }
    fn starved(&self, w: &mut World, core: u16) -> bool {
        let Some(lp) = Self::lp(w, core) else { return false };
        let fails = lp.starve > 0;
        lp.starve = lp.starve.saturating_sub(1);
        fails
    }
    /// An operation of SEAM root: the bytes of a load.
    fn root(&mut self, w: &mut World, core: u16, op: &Op) -> Result<LineData, Seen> {
        let at = op.addresses()[0].copied();
        if let Some(at) = at
            && !self.watch.is_watched(at.hpa.line())
            && !self.watch.is_kept(at.hpa.line())
        {
            return Ok(LineData::ZERO);
        }
        let seen = self.access(w, Agent::SeamRoot, core, op);
        self.drain_stores(w, core);
        match seen {
            Ok(Seen::Data { data, .. }) => Ok(data.data()),
            Ok(Seen::Done) => Ok(LineData::ZERO),
            Ok(other) => Err(other),
            Err(why) => {
                self.goes_astray(w, why);
                Ok(LineData::ZERO)
            }
        }
    }
    /// MOVDIR64B of many lines, then MFENCE.
    fn fill(
        &mut self,
        w: &mut World,
        core: u16,
        at: Addr,
        lines: u32,
        data: impl Fn(u32) -> [u64; 8],
    ) -> Result<(), Seen> {
        for i in self.watch.modelled(at.hpa.line(), lines) {
            let to = Addr::new(Hpa(at.hpa.line().hpa().0 + 64 * u64::from(i)), at.keyid);
            self.direct(w, core, to, data(i))?;
        }
        self.root(w, core, &Op::Mfence)?;
        Ok(())
    }
    /// MOVDIR64B of any 64 bytes.
    fn direct(&mut self, w: &mut World, core: u16, dst: Addr, words: [u64; 8]) -> Result<(), Seen> {
        let line = dst.hpa.line();
        if !self.watch.is_watched(line) && !self.watch.is_kept(line) {
            return Ok(());
        }
        let act = Act::Direct { at: dst.tagged(), lines: 1, data: LineData(words) };
        match self.act(w, core, &act, line) {
            Ok(Seen::Done) => {}
            Ok(other) => return Err(other),
            Err(why) => self.goes_astray(w, why),
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------------ interrupts, MSRs

    fn interrupt(&mut self, w: &mut World, core: u16, kind: IrqKind) {
        // What has not retired goes first.
        let busy = w.retiring.values().any(|late| late.core == core);
        let Some(lp) = Self::lp(w, core) else { return };
        lp.irq = Some(kind);
        if lp.is_parked() && !busy {
            self.guest_leaves(w, core, exit_of(kind));
            self.resume(w, core);
        }
    }
    /// A guest leaves; the host's call goes on with why.
    fn guest_leaves(&mut self, w: &mut World, core: u16, exit: VmExit) {
        let Some(lp) = Self::lp(w, core) else { return };
        if lp.guest.take().is_some() {
            lp.reply = Reply::Exit(exit);
        }
    }
    /// In the order of the program a call whose guest has left runs to its end at once.
    fn resume(&mut self, w: &mut World, core: u16) {
        let left =
            Self::peek_lp(w, core).is_some_and(|lp| lp.caller.is_some() && lp.guest.is_none());
        if self.order == Order::Program && left {
            self.fly(w, core, true);
        }
    }
    fn call_back(&mut self, w: &mut World, core: u16) {
        if Self::peek_lp(w, core).is_some_and(Lp::is_parked) {
            self.interrupt(w, core, IrqKind::Interrupt);
        }
    }
    fn take_irq(&mut self, w: &mut World, core: u16) {
        if Self::peek_lp(w, core).is_none_or(|lp| lp.irq.is_none()) {
            return;
        }
        if let Some(lp) = Self::lp(w, core) {
            lp.irq = None;
        }
        // The host's: it drains buffers and sees nothing.
        if let Err(why) = self.access(w, Agent::Kernel, core, &Op::Interrupt) {
            self.goes_astray(w, why);
        }
    }
    /// A timer on every core. Where no guest runs, guests that nobody enters do not run what they are at.
    pub(super) fn timer(&mut self, w: &mut World) {
        let seam = w.seam.as_ref();
        let parked: Vec<u16> = seam.map_or(Vec::new(), |s| {
            s.lps.iter().filter(|(_, lp)| lp.is_parked()).map(|(core, _)| *core).collect()
        });
        if parked.is_empty() {
            for agent in 0..self.agents.len() {
                if let Some(line) = self.waiting_line(w, agent) {
                    self.over(w, line, (Outcome::NotRun(NotRun::NotEntered), KNOWN));
                    self.advance(w, agent, line);
                }
            }
        }
        for core in parked {
            self.call_back(w, core);
        }
        self.pass_barriers(w);
    }

    fn wrmsr(&mut self, w: &mut World, core: u16, msr: u32, value: u64) {
        let reset = reset_msr(&self.spec, msr);
        let Some(lp) = Self::lp(w, core) else { return };
        if msr == MSR_TSC {
            lp.tsc_shift = value.wrapping_sub(NOW.0 / 1000);
            return;
        }
        let at = lp.msrs.binary_search_by_key(&msr, |(n, _)| *n);
        if msr == MSR_TSC_ADJUST {
            let old = at.ok().and_then(|i| lp.msrs.get(i)).map_or(reset, |(_, v)| *v);
            lp.tsc_shift = lp.tsc_shift.wrapping_add(value.wrapping_sub(old));
        }
        match at {
            Ok(at) => {
                lp.msrs.remove(at);
                if value != reset {
                    lp.msrs.insert(at, (msr, value));
                }
            }
            Err(at) if value != reset => lp.msrs.insert(at, (msr, value)),
            Err(_) => {}
        }
    }

    // -------------------------------------------------------------------------------------------------------- guests

    /// A guest dies of poison; what the host makes of it.
    pub(super) fn guest_dies(
        &mut self,
        w: &mut World,
        core: u16,
        record: &McRecord,
    ) -> McConsequence {
        let msmi = self.spec.mce.emca2;
        let exit = if msmi { VmExit::Smi { msmi } } else { VmExit::MachineCheck };
        self.guest_leaves(w, core, exit);
        if msmi {
            if let Some(lp) = Self::lp(w, core) {
                lp.msmi = Some(*record);
            }
            return McConsequence::TdFatal;
        }
        match self.host_handles(w, record) {
            McConsequence::Panic => McConsequence::Panic,
            _ => McConsequence::TdFatal,
        }
    }
    /// A machine check on every core but this one: guests leave, and no processor in the module survives it.
    pub(super) fn broadcast(&mut self, w: &mut World, from: u16) {
        let msmi = self.spec.mce.emca2;
        let exit = if msmi { VmExit::Smi { msmi } } else { VmExit::MachineCheck };
        let Some(seam) = &w.seam else { return };
        let others: Vec<(u16, bool)> = seam
            .lps
            .iter()
            .filter(|(core, lp)| **core != from && lp.caller.is_some())
            .map(|(core, lp)| (*core, lp.is_parked()))
            .collect();
        for (core, parked) in others {
            if parked {
                self.guest_leaves(w, core, exit);
                self.resume(w, core);
            } else {
                self.shut_down(w, core);
            }
        }
    }

    fn guest(&mut self, w: &mut World, agent: usize, line: usize, op: &Op) -> bool {
        let vcpu = self.agents.get(agent).and_then(|a| a.vcpu);
        let core = vcpu.and_then(|v| w.seam.as_ref()?.core_of(v.page()));
        let guest = core.and_then(|core| Self::peek_lp(w, core)?.guest);
        let (Some(core), Some(guest)) = (core, guest) else {
            self.over(w, line, (Outcome::NotRun(NotRun::NotEntered), KNOWN));
            return true;
        };
        if is_serialising(op) {
            self.drain_stores(w, core);
        }
        let ask = Ask { agent, line, op: *op, call: None, gpa: 0, retries: 0 };
        let exit = match *op {
            Op::Tdcall { leaf, version, regs } => {
                let exit = VmExit::Tdcall { leaf, version, regs: regs.0 };
                (Ask { call: Some(leaf.0), ..ask }, exit)
            }
            Op::Interrupt => {
                if let Some(lp) = Self::lp(w, core) {
                    lp.irq = Some(IrqKind::Interrupt);
                }
                (ask, VmExit::Interrupt)
            }
            Op::Invlpg { at } => {
                if let Some(lp) = Self::lp(w, core) {
                    lp.tlb.remove(&(guest.tdr, at.hpa.0 / PAGE_BYTES));
                }
                self.over(w, line, (Outcome::Done, KNOWN));
                return true;
            }
            Op::MovCr3 { .. } => {
                let lost = self.lost_track(w, "page tables of a guest");
                self.over(w, line, lost);
                return true;
            }
            _ => match self.guest_access(w, core, ask) {
                Ok(_) if w.retiring.contains_key(&agent) => return false,
                Ok(seen) => {
                    self.over(w, line, seen);
                    self.guest_done(w, core);
                    return true;
                }
                Err((gpa, exit)) => (Ask { gpa, ..ask }, exit),
            },
        };
        self.ask(w, core, exit.0, (exit.0.gpa, exit.1));
        self.fly_on(w, core, line)
    }
    fn ask(&mut self, w: &mut World, core: u16, ask: Ask, (gpa, exit): (u64, VmExit)) {
        if let Some(lp) = Self::lp(w, core) {
            lp.ask = Some(Ask { gpa, ..ask });
            lp.reply = Reply::Exit(exit);
        }
    }
    /// An operation of a guest is over; an interrupt that waited for that makes it leave.
    pub(super) fn guest_done(&mut self, w: &mut World, core: u16) {
        if let Some(lp) = Self::peek_lp(w, core) {
            if let (Some(irq), true) = (lp.irq, lp.is_parked()) {
                self.guest_leaves(w, core, exit_of(irq));
            }
            self.resume(w, core);
        }
    }

    /// What a guest's operation on memory sees; or the exit with which it leaves, and the address of that.
    fn guest_access(&mut self, w: &mut World, core: u16, ask: Ask) -> Result<Saw, (u64, VmExit)> {
        let Ask { agent, op, .. } = ask;
        let Some(guest) = Self::peek_lp(w, core).and_then(|lp| lp.guest) else {
            return Ok((Outcome::NotRun(NotRun::NotEntered), KNOWN));
        };
        let misaligned = match op {
            Op::NtStore { at, bytes, .. } => bytes >= 16 && !at.hpa.0.is_multiple_of(bytes.into()),
            Op::Movdir64b { dst, .. } => dst.hpa.offset_in_line() != 0,
            Op::Movdir64bPage { at } => !at.hpa.0.is_multiple_of(PAGE_BYTES),
            _ => false,
        };
        if misaligned {
            return Ok((Outcome::GeneralProtection(GpReason::Misaligned), KNOWN));
        }
        let kind = match op {
            Op::Load { .. }
            | Op::Prefetch { .. }
            | Op::Clflush { .. }
            | Op::Clflushopt { .. }
            | Op::Clwb { .. } => READ,
            Op::Fetch { .. } => FETCH,
            _ => WRITE,
        };
        let mut to = Vec::new();
        for (i, (at, bytes)) in spans(&op).enumerate() {
            if at.0 % PAGE_BYTES + bytes > PAGE_BYTES {
                let why = "a guest's access that crosses into another page";
                return Ok(self.lost_track(w, why));
            }
            // The second address of MOVDIR64B is what it reads.
            let kind = if i == 1 { READ } else { kind };
            match self.translate(w, core, &guest, at.0, kind) {
                Ok(found) => to.push(found),
                Err(_) if matches!(op, Op::Prefetch { .. }) => return Ok((Outcome::Done, KNOWN)),
                Err(Refused::Exit(exit, gpa)) => return Err((gpa, exit)),
                Err(Refused::Reserved) => return Ok((Outcome::PageFaultRsvd, KNOWN)),
                Err(Refused::Seen(Seen::MachineCheck { access, at, .. })) => {
                    // architecture.md §13 MC-07: nothing can go on behind a page walk's.
                    let fatal = self.spec.tdx.walk_poison_shutdown;
                    return Ok(self.guest_checked(w, agent, core, fatal, (access, at)));
                }
                Err(Refused::Seen(seen)) => return Ok(self.outcome(w, agent, core, seen)),
            }
        }
        let mut found = to.iter();
        let mut shared = false;
        let mapped = op.try_map(
            |at: Addr| {
                let to = found.next().ok_or(())?;
                shared |= to.shared;
                Ok::<Addr, ()>(Addr::new(Hpa(to.page.hpa().0 + at.hpa.0 % PAGE_BYTES), to.keyid))
            },
            Ok,
            Ok,
        );
        // A TD's private memory is write-back only (architecture.md §4.1 4.1.11).
        let physical = match mapped {
            Ok(Op::Load { at, bytes, .. }) if !shared => Op::Load { at, bytes, ty: MemType::Wb },
            Ok(Op::Store { at, bytes, value, .. }) if !shared => {
                Op::Store { at, bytes, value, ty: MemType::Wb }
            }
            Ok(op) => op,
            Err(()) => op,
        };
        match self.access(w, Agent::Td(guest.hkid), core, &physical) {
            Ok(Seen::MachineCheck { access, at, .. }) => {
                Ok(self.guest_checked(w, agent, core, false, (access, at)))
            }
            Ok(seen) => Ok(self.outcome(w, agent, core, seen)),
            Err(why) => Ok(self.lost_track(w, why)),
        }
    }

    /// A guest's access has met poison: its machine check comes at once or, where others go on meanwhile, later
    /// ([`Explorer::retire`]); then what is seen here is not looked at.
    fn guest_checked(
        &mut self,
        w: &mut World,
        agent: usize,
        core: u16,
        fatal: bool,
        what: (McAccess, Tagged),
    ) -> Saw {
        let context = McContext::SeamNonRoot;
        if self.others_go_on(w, agent) {
            w.retiring.insert(agent, Retiring { core, context, fatal, what });
            return (Outcome::Done, KNOWN);
        }
        (self.machine_check(w, agent, core, (context, fatal), what), KNOWN)
    }

    /// The core on which a guest's VCPU runs.
    pub(super) fn core_of_guest(&self, w: &World, agent: usize) -> Option<u16> {
        let vcpu = self.agents.get(agent).and_then(|a| a.vcpu)?;
        w.seam.as_ref()?.core_of(vcpu.page())
    }

    /// Where a guest's page is: in the TLB, or by a walk.
    fn translate(
        &mut self,
        w: &mut World,
        core: u16,
        g: &GuestEntry,
        linear: u64,
        access: u8,
    ) -> Result<Translation, Refused> {
        let allowed = |t: &Translation| match access {
            WRITE => t.write,
            FETCH => t.execute && !t.shared,
            _ => true,
        };
        let page = linear / PAGE_BYTES;
        let hit = w.seam.as_ref().and_then(|s| s.translation(core, g.tdr, page));
        if let Some(found) = hit.filter(allowed) {
            return Ok(found);
        }
        let violation = Refused::Exit(VmExit::EptViolation { gpa: linear, access }, linear);
        let is_shared = linear & 1 << (g.gpaw - 1) != 0;
        if linear >> g.gpaw != 0 {
            return Err(violation);
        }
        let found = if is_shared {
            if access == FETCH {
                return Err(Refused::Reserved);
            }
            self.shared_leaf(w, g, linear, access)?
        } else {
            self.walk_private(w, core, g, linear, access)?
        };
        if !allowed(&found) {
            return Err(violation);
        }
        if let Some(lp) = Self::lp(w, core) {
            lp.tlb.insert((g.tdr, page), found);
        }
        Ok(found)
    }
    /// Whatever the Secure-EPT's lines hold, the module's entries are taken; poison in a watched one is consumed.
    fn walk_private(
        &mut self,
        w: &mut World,
        core: u16,
        g: &GuestEntry,
        gpa: u64,
        access: u8,
    ) -> Result<Translation, Refused> {
        let (mut table, mut level) = (g.root, g.levels);
        while level > 0 {
            level -= 1;
            let index = (gpa >> (12 + 9 * u32::from(level)) & 511) as u16;
            let at = Addr::new(tdx_module::sept_at(table, index), g.hkid);
            if self.watch.is_watched(at.hpa.line()) {
                let op = Op::Load { at, bytes: 8, ty: MemType::Wb };
                match self.access(w, Agent::Td(g.hkid), core, &op) {
                    Ok(seen @ Seen::MachineCheck { .. }) => return Err(Refused::Seen(seen)),
                    Ok(_) => {}
                    Err(why) => self.goes_astray(w, why),
                }
            }
            let entry = w.seam.as_ref().and_then(|s| s.module.sept_entry(table, index));
            match entry {
                Some(entry) if level > 0 && entry.0 & Entry::RWX != 0 && !entry.is_leaf() => {
                    table = entry.page();
                }
                _ => break,
            }
        }
        let leaf = w.seam.as_ref().map(|s| private_leaf(&s.module, g, gpa));
        match leaf {
            Some(Ok(found)) => Ok(found),
            _ => Err(Refused::Exit(VmExit::EptViolation { gpa, access }, gpa)),
        }
    }
    /// The VMM's EPT, as it lies in memory.
    fn shared_leaf(
        &self,
        w: &World,
        g: &GuestEntry,
        gpa: u64,
        access: u8,
    ) -> Result<Translation, Refused> {
        const FRAME: u64 = 0x000f_ffff_ffff_f000;
        const PS: u64 = 1 << 7;
        let violation = || Refused::Exit(VmExit::EptViolation { gpa, access }, gpa);
        let misconfigured = || Refused::Exit(VmExit::EptMisconfiguration { gpa }, gpa);
        if g.shared_eptp == 0 {
            return Err(violation());
        }
        let layout = self.spec.keyid;
        let mut table = layout.split(g.shared_eptp & FRAME).ok_or_else(violation)?;
        let mut level = (g.shared_eptp >> 3 & 7) as u8 + 1;
        while level > 0 {
            level -= 1;
            let index = gpa >> (12 + 9 * u32::from(level)) & 511;
            let at = Addr::new(Hpa(table.hpa.0 + 8 * index), table.keyid);
            let line = self.peek(w, at.tagged());
            let word = line.data().slice(at.hpa.offset_in_line(), 8).0[0];
            if word & Entry::RWX == 0 {
                return Err(violation());
            }
            let to = layout.split(word & FRAME).ok_or_else(misconfigured)?;
            let malformed = word & (Entry::R | Entry::W) == Entry::W || level > 2 && word & PS != 0;
            if layout.is_private(to.keyid) || malformed {
                return Err(misconfigured());
            }
            if level > 0 && word & PS == 0 {
                table = to;
                continue;
            }
            let mask = (1u64 << (12 + 9 * u32::from(level))) - 1;
            return Ok(Translation {
                page: Hpa(to.hpa.0 & !mask | gpa & mask).page(),
                keyid: to.keyid,
                write: word & Entry::W != 0,
                execute: word & Entry::X != 0,
                shared: true,
            });
        }
        Err(violation())
    }

    /// What a walk of a guest would find now.
    fn walk(&self, w: &World, g: &GuestEntry, linear: u64) -> Option<Translation> {
        if linear & 1 << (g.gpaw - 1) != 0 {
            return self.shared_leaf(w, g, linear, READ).ok();
        }
        private_leaf(&w.seam.as_ref()?.module, g, linear).ok()
    }

    /// A translation that the guest's next operation would use and that its processor may have forgotten by then.
    pub(super) fn forgettable(&self, w: &World, agent: usize, line: usize) -> Option<u64> {
        let spec = self.agents.get(agent).filter(|a| a.kind == AgentKind::Guest)?;
        let (_, op) = self.step_of(line)?;
        let seam = w.seam.as_ref()?;
        let core = seam.core_of(spec.vcpu?.page())?;
        let guest = seam.lps.get(&core)?.guest?;
        if matches!(op, Op::Invlpg { .. }) || seam.lps.get(&core)?.ask.is_some() {
            return None;
        }
        let linear = spans(op).next()?.0.0;
        // Where a walk finds the same, and no poison on its way, nobody could tell.
        let known = seam.translation(core, guest.tdr, linear / PAGE_BYTES)?;
        let stale = self.walk(w, &guest, linear) != Some(known);
        let mut walked = walked(&seam.module, &guest, linear);
        let mut meets = || !known.shared && walked.any(|line| self.watch.is_watched(line));
        (stale || meets()).then_some(linear)
    }
    pub(super) fn forget(&mut self, w: &mut World, agent: usize, linear: u64) {
        let vcpu = self.agents.get(agent).and_then(|a| a.vcpu);
        let core = vcpu.and_then(|v| w.seam.as_ref()?.core_of(v.page()));
        if let Some(core) = core
            && let Some(lp) = Self::lp(w, core)
            && let Some(guest) = lp.guest
        {
            lp.tlb.remove(&(guest.tdr, linear / PAGE_BYTES));
        }
    }
}

/// A move in words.
pub(super) fn told(x: &Explorer, mv: &Move) -> String {
    let name = |agent: usize| x.agents.get(agent).map_or("?", |a| a.name.as_str());
    match mv {
        Move::Step(agent) => format!("{} goes on", name(*agent)),
        Move::Hw(op) => format!("hw: {op}"),
        Move::Prefetch(agent, at) => {
            let at = format!("{:#x}@{}", at.hpa.0, at.keyid);
            format!("the core of {} prefetches [{at}]", name(*agent))
        }
        Move::Forget(agent, linear) => {
            format!("the core of {} drops its translation of {linear:#x}", name(*agent))
        }
        Move::Timer => "a timer interrupts every guest".to_owned(),
        Move::StoreLeave(core) => format!("hw: a store of core {core} becomes visible"),
    }
}
