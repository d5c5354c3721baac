//! Guests: VCPUs whose addresses go through their own tables, the Secure-EPT and a TLB, under their TD's HKID.
//!
//! ```text
//!            TLB hit, or walked                 last line
//!   Start ───────────────────────▶ Acting ─────────────────▶ over
//!     │  miss        ▲  again
//!     ▼              │ (the module let it go on)
//!   Walking ──▶ Module ──▶ over: #VE, the answer of a TDCALL, or an exit to the host
//! ```

use crate::Machine;
use crate::agent::{AgentId, AgentKind};
use crate::exec::Beat;
use crate::journal::{Act, Actor, Mark, Purpose};
use crate::seam::{SeamBeat, fatal};
use crate::tlb::Translation;
use crate::walk::{Need, Walk, access};
use cache::FenceKind;
use serde::{Deserialize, Serialize};
use sim_core::event::EventKind;
use sim_core::mca::McAccess;
use sim_core::op::{IrqKind, MemType, Source, Value};
use sim_core::outcome::{CallResult, GpReason, Loaded, NotRun};
use sim_core::tdx::ExitReason;
use sim_core::{Addr, Hpa, KeyId, Op, Outcome, PAGE_BYTES, Page, Ps};
use tdx_module::{GuestEntry, Inject, VmExit};

/// EPT violation (architecture.md §7.11 "Exit reasons used").
const EPT_VIOLATION: ExitReason = ExitReason(48);

/// Where an operation of a guest stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
enum Phase {
    /// Its addresses are to be translated.
    #[default]
    Start,
    /// A page walk reads.
    Walking,
    /// It acts on physical memory; the number of the beat at which it began to.
    Acting(u32),
    /// The module is at work for it.
    Module,
}

/// The registers of a guest, and its operation in flight.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// CR3 once it has set one; before that, linear addresses are guest-physical ones.
    cr3: Option<u64>,
    phase: Phase,
    walk: Walk,
    /// What the walk's last read returned.
    walked: u64,
    /// Translations of the pages that the operation accesses, in the order of [`Machine::guest_accesses`]. What it has
    /// found it keeps to its end, also when its own walks push that out of the TLB.
    found: [Option<Translation>; 3],
    /// For which of them the walk is.
    sought: u8,
    /// How many bytes a string operation has done; the page it is at is that of the next one.
    passed: u32,
    /// The guest-physical address of the exit that is being handled.
    gpa: u64,
    /// Whether the exit is a TDCALL.
    call: Option<u16>,
    /// How often the module has let the operation try again.
    retries: u8,
    /// Whether an operation is under way: it has been issued and is not over.
    pub(crate) busy: bool,
}

/// How often an operation tries again when the module finds that its Secure-EPT allows the access. Once is enough for an
/// entry that was changed meanwhile. More than a few times means that the entry in memory is not the module's: somebody has
/// tampered with it where no check notices. The real module would read the same garbage; the model does not know what then.
const RETRIES: u8 = 16;

/// What an operation of a VCPU that is not in its TD comes to.
const NOT_ENTERED: Outcome = Outcome::NotRun(NotRun::NotEntered);

impl Machine {
    /// The core on which a VCPU runs.
    pub(crate) fn core_of_vcpu(&self, tdvpr: Page) -> Option<u16> {
        let at = |lp: &crate::Lp| lp.seam.guest.is_some_and(|g| g.tdvpr == tdvpr);
        self.lps.iter().position(at).map(|core| core as u16)
    }
    /// Whether an operation of the guest that runs on a core is under way.
    pub(crate) fn guest_is_busy(&self, core: u16) -> bool {
        let vcpu = self.seam(core).and_then(|s| s.guest).map(|g| g.tdvpr);
        self.agents
            .iter()
            .any(|a| a.guest.busy && a.spec.vcpu.map(Hpa::page) == vcpu && vcpu.is_some())
    }
    /// A VCPU begins to run on a core: its agents are that core's from now on, and those that waited go on.
    pub(crate) fn guest_runs(&mut self, core: u16, tdvpr: Page) {
        for (i, agent) in self.agents.iter_mut().enumerate() {
            if agent.spec.vcpu.map(Hpa::page) == Some(tdvpr) {
                agent.spec.core = core;
                if agent.waiting {
                    agent.waiting = false;
                    self.resumed.push(AgentId(i as u16));
                }
            }
        }
    }

    /// The core on which an agent's VCPU runs.
    pub(crate) fn core_of_guest(&self, id: AgentId) -> Option<u16> {
        self.core_of_vcpu(self.agents.get(usize::from(id.0))?.spec.vcpu?.page())
    }
    /// Whether an operation of another agent of the same VCPU is under way: a VCPU executes one at a time.
    pub(crate) fn vcpu_is_taken(&self, id: AgentId) -> bool {
        let Some(vcpu) = self.agents.get(usize::from(id.0)).and_then(|a| a.spec.vcpu) else {
            return false;
        };
        let mut agents = self.agents.iter().enumerate();
        agents.any(|(i, a)| {
            i != usize::from(id.0)
                && a.guest.busy
                && a.spec.vcpu.map(Hpa::page) == Some(vcpu.page())
        })
    }

    fn guest_mut(&mut self, id: AgentId) -> Option<&mut Guest> {
        self.agents.get_mut(usize::from(id.0)).map(|a| &mut a.guest)
    }

    /// Issues the next part of a guest's operation.
    pub(crate) fn guest_beat(&mut self, id: AgentId, op: &Op, done: u32) -> Beat {
        let Some(core) = self.core_of_guest(id) else {
            // A machine check of another core, broadcast, has taken the guest away between two lines.
            let gone = Outcome::TdExit { reason: ExitReason(0), gpa: 0 };
            return Beat::over(if done == 0 { NOT_ENTERED } else { gone }, Ps::ZERO);
        };
        if done == 0 {
            let Some(guest) = self.seam(core).and_then(|s| s.guest) else {
                return Beat::over(NOT_ENTERED, Ps::ZERO);
            };
            if let Some(agent) = self.agents.get_mut(usize::from(id.0)) {
                agent.spec.core = core;
                let state = &mut agent.guest;
                (state.phase, state.found, state.call) = (Phase::Start, [None; 3], None);
                (state.passed, state.retries, state.busy) = (0, 0, true);
            }
            if let Some(beat) = self.guest_at_once(id, core, &guest, op) {
                return beat;
            }
        }
        let Some(phase) = self.guest_mut(id).map(|g| g.phase) else {
            return Beat::over(NOT_ENTERED, Ps::ZERO);
        };
        match phase {
            Phase::Module => self.guest_in_module(id, core),
            Phase::Start => self.guest_translate(id, core, op, done),
            Phase::Walking => self.guest_walk(id, core, op, done),
            Phase::Acting(first) => self.guest_act(id, core, op, done - first),
        }
    }

    /// An operation of a guest is over; an interrupt that waited for that makes it leave, and agents of the same VCPU
    /// that waited for that go on.
    pub(crate) fn guest_done(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(usize::from(id.0)) else { return };
        agent.guest.busy = false;
        let vcpu = agent.spec.vcpu.map(Hpa::page);
        for (i, other) in self.agents.iter_mut().enumerate() {
            if other.waiting && other.spec.vcpu.map(Hpa::page) == vcpu {
                other.waiting = false;
                self.resumed.push(AgentId(i as u16));
            }
        }
        if let Some(core) = self.core_of_guest(id)
            && let Some(kind) = self.seam(core).and_then(|s| s.irq)
        {
            self.guest_leaves(core, crate::seam::exit_of(kind));
        }
    }

    /// What needs no translation.
    fn guest_at_once(
        &mut self,
        id: AgentId,
        core: u16,
        guest: &GuestEntry,
        op: &Op,
    ) -> Option<Beat> {
        let issue = self.spec.latency.issue;
        let misaligned = match op {
            Op::NtStore { at, bytes, .. } => {
                *bytes >= 16 && !at.hpa.0.is_multiple_of(u64::from(*bytes))
            }
            Op::Movdir64b { dst, .. } => dst.hpa.offset_in_line() != 0,
            Op::Movdir64bPage { at } => !at.hpa.0.is_multiple_of(PAGE_BYTES),
            _ => false,
        };
        if misaligned {
            let gp = Outcome::GeneralProtection(GpReason::Misaligned);
            return Some(Beat::over(gp, issue));
        }
        match *op {
            Op::Tdcall { leaf, version, regs } => {
                if let Some(state) = self.guest_mut(id) {
                    (state.phase, state.call, state.gpa) = (Phase::Module, Some(leaf.0), 0);
                }
                self.trace.emit(EventKind::Call { core, guest: true, leaf: leaf.0 });
                self.guest_asks(core, VmExit::Tdcall { leaf, version, regs: regs.0 });
                None
            }
            Op::MovCr3 { value } => {
                if let Some(state) = self.guest_mut(id) {
                    state.cr3 = Some(value);
                }
                // Translations of all address spaces of the TD go: more than the instruction must flush.
                if let Some(lp) = self.lps.get_mut(usize::from(core)) {
                    lp.tlb.flush(Some(guest.tdr));
                }
                Some(Beat::over(Outcome::Done, issue))
            }
            Op::Invlpg { at } => {
                if let Some(lp) = self.lps.get_mut(usize::from(core)) {
                    lp.tlb.flush_page(guest.tdr, at.hpa.0 / PAGE_BYTES);
                }
                Some(Beat::over(Outcome::Done, issue))
            }
            // A guest's own interrupt: the host's timer fires while it runs.
            Op::Interrupt => {
                if let Some(state) = self.guest_mut(id) {
                    (state.phase, state.call, state.gpa) = (Phase::Module, None, 0);
                }
                // The host takes it when it runs again.
                if let Some(seam) = self.seam_mut(core) {
                    seam.irq = Some(IrqKind::Interrupt);
                }
                self.guest_asks(core, VmExit::Interrupt);
                None
            }
            _ if op.addresses()[0].is_none() => {
                // Fences, WBINVD and the like: no address, the core does them as for any TD.
                Some(self.act_of_guest(core, op, 0))
            }
            _ => None,
        }
    }

    /// The pages that an operation accesses, by an address in each, and how. The third is what MOVDIR64B writes. A string
    /// operation goes page by page: its page is that of the byte behind the `passed` ones.
    fn guest_accesses(op: &Op, passed: u32) -> [Option<(u64, u8)>; 3] {
        let kind = match op {
            Op::Load { .. }
            | Op::Prefetch { .. }
            | Op::Clflush { .. }
            | Op::Clflushopt { .. }
            | Op::Clwb { .. } => access::READ,
            Op::Fetch { .. } => access::FETCH,
            _ => access::WRITE,
        };
        let (at, kind, to) = match op {
            Op::Movdir64b { dst, src: Source::Mem(src) } => {
                (src.hpa.0, access::READ, Some((dst.hpa.0, access::WRITE)))
            }
            Op::RepStosb { at, .. } => {
                return [Some((at.hpa.0.wrapping_add(u64::from(passed)), kind)), None, None];
            }
            _ => match op.addresses()[0] {
                Some(at) => (at.hpa.0, kind, None),
                None => return [None; 3],
            },
        };
        let next = crosses(at, op.bytes()).map(|next| (next, kind));
        [Some((at, kind)), next, to]
    }

    /// Looks the operation's addresses up; walks for the first that is not there.
    fn guest_translate(&mut self, id: AgentId, core: u16, op: &Op, done: u32) -> Beat {
        let none = Beat::over(NOT_ENTERED, Ps::ZERO);
        let Some(guest) = self.seam(core).and_then(|s| s.guest) else { return none };
        let passed = self.guest_mut(id).map_or(0, |g| g.passed);
        let accesses = Self::guest_accesses(op, passed);
        for (i, wanted) in accesses.iter().enumerate() {
            let Some((linear, kind)) = *wanted else { continue };
            if self.guest_mut(id).is_some_and(|g| g.found.get(i).is_some_and(Option::is_some)) {
                continue;
            }
            let Some(lp) = self.lps.get(usize::from(core)) else { return none };
            let hit = lp.tlb.find(guest.tdr, linear / PAGE_BYTES);
            let enough = hit.filter(|t| match kind {
                access::WRITE => t.write,
                access::FETCH => t.execute && !t.shared,
                _ => true,
            });
            if let Some(found) = enough {
                if let Some(slot) = self.guest_mut(id).and_then(|g| g.found.get_mut(i)) {
                    *slot = Some(found);
                }
                continue;
            }
            let layout = self.spec.keyid;
            let Some(state) = self.guest_mut(id) else { return none };
            state.walk = Walk::new(&guest, &layout, state.cr3, linear, kind);
            (state.phase, state.sought) = (Phase::Walking, i as u8);
            let need = state.walk.start(&guest);
            return self.guest_needs(id, core, op, need, done);
        }
        if let Some(state) = self.guest_mut(id) {
            state.phase = Phase::Acting(done);
        }
        self.guest_act(id, core, op, 0)
    }

    /// Goes on with a walk whose last read has been answered.
    fn guest_walk(&mut self, id: AgentId, core: u16, op: &Op, done: u32) -> Beat {
        let none = Beat::over(NOT_ENTERED, Ps::ZERO);
        let Some(guest) = self.seam(core).and_then(|s| s.guest) else { return none };
        let layout = self.spec.keyid;
        let Some(state) = self.guest_mut(id) else { return none };
        let word = state.walked;
        let need = state.walk.take(&guest, &layout, word);
        self.guest_needs(id, core, op, need, done)
    }

    fn guest_needs(&mut self, id: AgentId, core: u16, op: &Op, need: Need, done: u32) -> Beat {
        let issue = self.spec.latency.issue;
        let fault = |outcome| Beat::over(outcome, issue);
        let prefetch = matches!(op, Op::Prefetch { .. });
        match need {
            Need::Read(at) => {
                let act = Act::Op(Op::Load { at, bytes: 8, ty: MemType::Wb });
                let actor = self.actor_of_guest(core);
                let mut beat = self.transition(
                    actor,
                    core,
                    Purpose::Walk,
                    |_| act,
                    |m| m.load(core, at, 8, McAccess::DataLoad),
                );
                if prefetch && beat.poison.is_some() {
                    // Nothing retires on a prefetch, nor on its walk (architecture.md §13 MC-06).
                    return Beat { poison: None, outcome: Outcome::Done, ..beat };
                }
                if let (Outcome::Data(loaded), Some(state)) = (beat.outcome, self.guest_mut(id)) {
                    state.walked = loaded.data.0[0];
                }
                if self.spec.tdx.walk_poison_shutdown {
                    beat.poison = beat.poison.map(fatal);
                }
                if beat.poison.is_none() && self.options.speed == crate::Speed::Functional {
                    return self.guest_walk(id, core, op, done);
                }
                beat.more = beat.poison.is_none();
                beat
            }
            Need::Found(found) => {
                let capacity = self.spec.tdx.tlb_entries;
                let guest = self.seam(core).and_then(|s| s.guest);
                let linear = self.guest_mut(id).map_or(0, |g| g.walk.linear() / PAGE_BYTES);
                if let (Some(guest), Some(lp)) = (guest, self.lps.get_mut(usize::from(core))) {
                    lp.tlb.insert(guest.tdr, linear, found, capacity);
                }
                if let Some(state) = self.guest_mut(id)
                    && let Some(slot) = state.found.get_mut(usize::from(state.sought))
                {
                    *slot = Some(found);
                }
                self.guest_translate(id, core, op, done)
            }
            // A prefetch never faults and never leaves: what cannot be translated is dropped.
            _ if prefetch => fault(Outcome::Done),
            Need::PageFault => fault(Outcome::PageFault),
            Need::Reserved => fault(Outcome::PageFaultRsvd),
            Need::Exit(exit) => {
                if let Some(state) = self.guest_mut(id) {
                    (state.phase, state.call) = (Phase::Module, None);
                    state.gpa = match exit {
                        VmExit::EptViolation { gpa, .. } | VmExit::EptMisconfiguration { gpa } => {
                            gpa
                        }
                        _ => 0,
                    };
                }
                self.guest_asks(core, exit);
                self.guest_in_module(id, core)
            }
        }
    }

    /// Lets the module go on with the guest's exit.
    fn guest_in_module(&mut self, id: AgentId, core: u16) -> Beat {
        match self.seam_beat(core) {
            SeamBeat::Touched(beat) => beat,
            SeamBeat::Entered(guest, cost) => {
                if let Some(seam) = self.seam_mut(core) {
                    (seam.guest, seam.asking) = (Some(guest), false);
                }
                if !matches!(guest.inject, Inject::Answer(_)) {
                    self.mark(|_| Mark::Resumed { core });
                }
                match guest.inject {
                    Inject::Nothing => {
                        let Some(state) = self.guest_mut(id) else {
                            return Beat::over(NOT_ENTERED, cost);
                        };
                        if state.retries == RETRIES {
                            return self.guest_lost(core);
                        }
                        // What was found before the exit may be gone: the access begins anew.
                        (state.phase, state.found) = (Phase::Start, [None; 3]);
                        state.retries += 1;
                        Beat { more: true, ..Beat::over(Outcome::Done, cost) }
                    }
                    Inject::Exception { vector: 14, error } => {
                        // Error code bit 3: a reserved bit.
                        let rsvd = error & 1 << 3 != 0;
                        let fault = if rsvd { Outcome::PageFaultRsvd } else { Outcome::PageFault };
                        Beat::over(fault, cost)
                    }
                    Inject::Exception { .. } => Beat::over(Outcome::DoubleFault, cost),
                    Inject::Ve { .. } => Beat::over(Outcome::VirtualizationException, cost),
                    Inject::Answer(answer) => {
                        let leaf = self.guest_mut(id).and_then(|g| g.call).unwrap_or(0);
                        let (status, out) = (answer.status, answer.out);
                        self.trace.emit(EventKind::Returned { core, guest: true, leaf, status });
                        let result = CallResult { guest: true, leaf, status, out };
                        self.mark(|_| Mark::Answered { core, result });
                        Beat::over(Outcome::Call(result), cost)
                    }
                }
            }
            SeamBeat::Returned(answer, cost) => {
                let reason = self.guest_left(core, answer);
                // TDG.MEM.PAGE.ACCEPT leaves by an EPT violation as if it had accessed the page: the VMM has the address.
                let [_, _, r8, ..] = answer.out;
                let accept = |g: &Guest| g.call.is_some() && reason == EPT_VIOLATION;
                let gpa = self.guest_mut(id).map_or(0, |g| if accept(g) { r8 } else { g.gpa });
                Beat::over(Outcome::TdExit { reason, gpa }, cost)
            }
            SeamBeat::Fatal => self.module_gone(core),
            SeamBeat::NotModelled => self.guest_lost(core),
        }
    }

    /// The TD that runs on a core.
    fn actor_of_guest(&self, core: u16) -> Actor {
        let guest = self.seam(core).and_then(|s| s.guest);
        Actor::Td(guest.map_or(KeyId::TME, |g| g.hkid))
    }

    /// The next lines of an operation of a guest on physical addresses.
    fn act_of_guest(&mut self, core: u16, op: &Op, done: u32) -> Beat {
        let actor = self.actor_of_guest(core);
        let part = |m: &Machine| Act::Op(m.part_of(op, done));
        self.transition(actor, core, Purpose::Operation, part, |m| {
            m.act_as(AgentKind::Td, core, op, done)
        })
    }

    /// Acts on physical memory: beat `done` of that.
    fn guest_act(&mut self, id: AgentId, core: u16, op: &Op, done: u32) -> Beat {
        let Some(state) = self.guest_mut(id) else { return Beat::over(NOT_ENTERED, Ps::ZERO) };
        let (found, passed) = (state.found, state.passed);
        let to = |slot: usize, linear: u64| {
            let to: Option<Translation> = found.get(slot).copied().flatten();
            to.map(|to| {
                (Addr::new(Hpa(to.page.hpa().0 + linear % PAGE_BYTES), to.keyid), to.shared)
            })
        };
        // A TD's private memory is write-back only (architecture.md §4.1 4.1.11).
        let typed = |op: Op, shared: bool| match op {
            Op::Load { at, bytes, .. } if !shared => Op::Load { at, bytes, ty: MemType::Wb },
            Op::Store { at, bytes, value, .. } if !shared => {
                Op::Store { at, bytes, value, ty: MemType::Wb }
            }
            op => op,
        };
        let none = || Beat::over(NOT_ENTERED, Ps::ZERO);
        let first = Self::guest_accesses(op, passed)[0].map_or(0, |(linear, _)| linear);
        let Some((here, shared)) = to(0, first) else { return none() };
        let next = match *op {
            Op::RepStosb { .. } => None,
            _ => crosses(first, op.bytes()).and_then(|linear| to(1, linear)),
        };
        match (*op, next) {
            (Op::RepStosb { bytes, value, .. }, _) => {
                let left = (bytes - passed).min((PAGE_BYTES - first % PAGE_BYTES) as u32);
                let part = Op::RepStosb { at: here, bytes: left, value };
                let mut beat = self.act_of_guest(core, &part, done);
                if !beat.more && beat.poison.is_none() && passed + left < bytes {
                    beat.more = true;
                    if let Some(state) = self.guest_mut(id) {
                        (state.passed, state.phase) = (passed + left, Phase::Start);
                        state.found = [None; 3];
                    }
                }
                beat
            }
            (Op::Movdir64b { dst, src: Source::Mem(_) }, next) => {
                let Some((dst, _)) = to(2, dst.hpa.0) else { return none() };
                let Some((next, _)) = next else {
                    return self.act_of_guest(
                        core,
                        &Op::Movdir64b { dst, src: Source::Mem(here) },
                        0,
                    );
                };
                let beat = self.load_pages(core, [here, next], 64, MemType::Wb);
                let (Outcome::Data(loaded), None) = (beat.outcome, beat.poison) else {
                    return beat;
                };
                let act = Act::Direct { at: dst.tagged(), lines: 1, data: loaded.data };
                let stored = self.transition(
                    self.actor_of_guest(core),
                    core,
                    Purpose::Operation,
                    |_| act,
                    |m| Beat::over(Outcome::Done, m.direct_store(core, dst, &loaded.data)),
                );
                let cost = beat.cost.max(stored.cost);
                Beat { outcome: Outcome::Done, cost, ..beat }
            }
            (op, None) => {
                let mapped = op.try_map(|_: Addr| Ok::<Addr, ()>(here), Ok, Ok);
                mapped.map_or_else(
                    |()| none(),
                    |op| self.act_of_guest(core, &typed(op, shared), done),
                )
            }
            (Op::Load { bytes, ty, .. }, Some((next, _))) => {
                let ty = if shared { ty } else { MemType::Wb };
                self.load_pages(core, [here, next], bytes, ty)
            }
            (Op::LockXadd { bytes, value, .. }, Some((next, _))) => {
                let fence = self.transition(
                    self.actor_of_guest(core),
                    core,
                    Purpose::Operation,
                    |_| Act::Op(Op::Mfence),
                    |m| m.fence(core, FenceKind::Locked, m.spec.latency.mfence),
                );
                let loaded = self.load_pages(core, [here, next], bytes, MemType::Wb);
                let (Outcome::Data(old), None) = (loaded.outcome, loaded.poison) else {
                    return loaded;
                };
                let sum = Value::Num(old.data.0[0].wrapping_add(value));
                let ty = MemType::Wb;
                let store = Op::Store { at: here, bytes, value: sum, ty };
                let stored = self.store_pages(core, [here, next], &store);
                let mut beat = both(loaded, stored);
                beat.outcome = Outcome::Data(old);
                beat.cost += fence.cost;
                beat
            }
            // Stores; an operation that is none of these lies in one page.
            (op, Some((next, _))) => self.store_pages(core, [here, next], &typed(op, shared)),
        }
    }

    /// A load that crosses into another page.
    fn load_pages(&mut self, core: u16, [here, next]: [Addr; 2], bytes: u32, ty: MemType) -> Beat {
        let split = rest_of_page(here.hpa.0);
        let part = |at, bytes| Op::Load { at, bytes, ty };
        let low = self.act_of_guest(core, &part(here, split), 0);
        let high = self.act_of_guest(core, &part(next, bytes - split), 0);
        let outcome = match (low.outcome, high.outcome) {
            (Outcome::Data(low), Outcome::Data(high)) => {
                let mut data = low.data;
                for i in 0..(bytes - split) as usize {
                    data.set_byte(split as usize + i, high.data.byte(i));
                }
                Outcome::Data(Loaded { data, bytes, class: low.class.max(high.class) })
            }
            (low, _) => low,
        };
        Beat { outcome, ..both(low, high) }
    }

    /// A store that crosses into another page.
    fn store_pages(&mut self, core: u16, [here, next]: [Addr; 2], op: &Op) -> Beat {
        let split = rest_of_page(here.hpa.0);
        let part = |to: Addr, skip: u32, len: u32| {
            let behind = |value: Value| match value {
                Value::Num(n) => Value::Num(n.checked_shr(8 * skip).unwrap_or(0)),
                other => other,
            };
            match *op {
                Op::Store { value, ty, .. } => {
                    Op::Store { at: to, bytes: len, value: behind(value), ty }
                }
                Op::NtStore { value, .. } => {
                    Op::NtStore { at: to, bytes: len, value: behind(value) }
                }
                Op::Movdiri { value, .. } => {
                    Op::Movdiri { at: to, bytes: len, value: behind(value) }
                }
                other => other,
            }
        };
        let (low, high) = (part(here, 0, split), part(next, split, op.bytes() - split));
        let low = self.act_of_guest(core, &low, 0);
        if low.poison.is_some() {
            return low;
        }
        let high = self.act_of_guest(core, &high, 0);
        both(low, high)
    }
}

/// The first byte of the next page, if an access of so many bytes reaches it; behind the last page comes the first.
const fn crosses(linear: u64, bytes: u32) -> Option<u64> {
    let rest = rest_of_page(linear);
    if bytes > rest { Some(linear.wrapping_add(rest as u64)) } else { None }
}

/// How many bytes of the page are left from an address on.
const fn rest_of_page(linear: u64) -> u32 {
    (PAGE_BYTES - linear % PAGE_BYTES) as u32
}

/// Two parts of one operation, side by side.
fn both(low: Beat, high: Beat) -> Beat {
    Beat {
        cost: low.cost.max(high.cost),
        after_read: low.after_read.max(high.after_read),
        poison: low.poison.or(high.poison),
        ..low
    }
}
