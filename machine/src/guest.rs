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
use crate::seam::{SeamBeat, fatal};
use crate::tlb::Translation;
use crate::walk::{Need, Walk, access};
use serde::{Deserialize, Serialize};
use sim_core::event::EventKind;
use sim_core::op::Source;
use sim_core::outcome::{CallResult, GpReason, NotRun};
use sim_core::{Addr, Hpa, Op, Outcome, PAGE_BYTES, Page, Ps};
use tdx_module::{GuestEntry, Inject, VmExit};

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
    /// Translations of the operation's addresses.
    found: [Option<Translation>; 2],
    /// The guest-physical address of the exit that is being handled.
    gpa: u64,
    /// Whether the exit is a TDCALL.
    call: Option<u16>,
    /// Whether an operation is under way.
    pub(crate) busy: bool,
}

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

    fn guest_mut(&mut self, id: AgentId) -> Option<&mut Guest> {
        self.agents.get_mut(usize::from(id.0)).map(|a| &mut a.guest)
    }

    /// Issues the next part of a guest's operation.
    pub(crate) fn guest_beat(&mut self, id: AgentId, op: &Op, done: u32) -> Beat {
        let issue = self.spec.latency.issue;
        let none = || Beat::over(Outcome::NotRun(NotRun::NotEntered), Ps::ZERO);
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return none() };
        let core = agent.spec.core;
        if done == 0 {
            let vcpu = agent.spec.vcpu.map(Hpa::page);
            let Some(guest) = self.seam(core).and_then(|s| s.guest) else { return none() };
            if Some(guest.tdvpr) != vcpu {
                return none();
            }
            if let Some(state) = self.guest_mut(id) {
                (state.phase, state.found, state.call) = (Phase::Start, [None; 2], None);
                state.busy = true;
            }
            if let Some(beat) = self.guest_at_once(id, core, &guest, op) {
                return self.guest_done(id, core, beat);
            }
        }
        let Some(phase) = self.guest_mut(id).map(|g| g.phase) else { return none() };
        let beat = match phase {
            Phase::Module => self.guest_in_module(id, core),
            Phase::Start => self.guest_translate(id, core, op, done),
            Phase::Walking => self.guest_walk(id, core, op, done),
            Phase::Acting(first) => self.guest_act(id, core, op, done - first),
        };
        let _ = issue;
        if beat.more { beat } else { self.guest_done(id, core, beat) }
    }

    /// An operation of a guest is over; an interrupt that waited for that makes it leave.
    fn guest_done(&mut self, id: AgentId, core: u16, beat: Beat) -> Beat {
        if let Some(state) = self.guest_mut(id) {
            state.busy = false;
        }
        if beat.poison.is_none()
            && let Some(seam) = self.seam_mut(core)
            && seam.guest.is_some()
            && let Some(kind) = seam.irq.take()
        {
            self.guest_leaves(core, crate::seam::exit_of(kind));
        }
        beat
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
                self.guest_asks(core, VmExit::Interrupt);
                None
            }
            _ if op.addresses()[0].is_none() => {
                // Fences, WBINVD and the like: no address, the core does them as for any TD.
                Some(self.act_as(AgentKind::Td, core, op, 0))
            }
            _ => None,
        }
    }

    /// The addresses of an operation and how each is accessed.
    fn guest_accesses(op: &Op) -> [Option<(u64, u8)>; 2] {
        let kind = match op {
            Op::Load { .. }
            | Op::Prefetch { .. }
            | Op::Clflush { .. }
            | Op::Clflushopt { .. }
            | Op::Clwb { .. } => access::READ,
            Op::Fetch { .. } => access::FETCH,
            _ => access::WRITE,
        };
        match op {
            Op::Movdir64b { dst, src: Source::Mem(src) } => {
                [Some((src.hpa.0, access::READ)), Some((dst.hpa.0, access::WRITE))]
            }
            _ => [op.addresses()[0].map(|a| (a.hpa.0, kind)), None],
        }
    }

    /// Looks the operation's addresses up; walks for the first that is not there.
    fn guest_translate(&mut self, id: AgentId, core: u16, op: &Op, done: u32) -> Beat {
        let none = Beat::over(Outcome::NotRun(NotRun::NotEntered), Ps::ZERO);
        let Some(guest) = self.seam(core).and_then(|s| s.guest) else { return none };
        let accesses = Self::guest_accesses(op);
        for (i, wanted) in accesses.iter().enumerate() {
            let Some((linear, kind)) = *wanted else { continue };
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
            let Some(state) = self.guest_mut(id) else { return none };
            state.walk = Walk::new(&guest, state.cr3, linear, kind);
            state.phase = Phase::Walking;
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
        let none = Beat::over(Outcome::NotRun(NotRun::NotEntered), Ps::ZERO);
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
        match need {
            Need::Read(at) => {
                let mut beat = self.load(core, at, 8, sim_core::mca::McAccess::DataLoad);
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
                self.guest_translate(id, core, op, done)
            }
            Need::PageFault => fault(Outcome::PageFault),
            Need::Reserved => fault(Outcome::PageFaultRsvd),
            // A prefetch never faults and never leaves: what cannot be translated is dropped.
            Need::Exit(_) if matches!(op, Op::Prefetch { .. }) => fault(Outcome::Done),
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
        // While the module runs, the guest does not.
        let running = self.seam_mut(core).and_then(|s| s.guest.take());
        match self.seam_beat(core) {
            SeamBeat::Touched(beat) => {
                if let (Some(seam), false) = (self.seam_mut(core), beat.poison.is_some()) {
                    seam.guest = running;
                }
                beat
            }
            SeamBeat::Entered(guest, cost) => {
                if let Some(seam) = self.seam_mut(core) {
                    seam.guest = Some(guest);
                }
                match guest.inject {
                    Inject::Nothing => {
                        if let Some(state) = self.guest_mut(id) {
                            state.phase = Phase::Start;
                        }
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
                        Beat::over(Outcome::Call(result), cost)
                    }
                }
            }
            SeamBeat::Returned(answer, cost) => {
                let reason = self.guest_left(core, answer);
                let gpa = self.guest_mut(id).map_or(0, |g| g.gpa);
                Beat::over(Outcome::TdExit { reason, gpa }, cost)
            }
            SeamBeat::Fatal => self.module_gone(core),
            SeamBeat::NotModelled => Beat::over(Outcome::NotRun(NotRun::NotModelled), Ps::ZERO),
        }
    }

    /// Acts on physical memory.
    fn guest_act(&mut self, id: AgentId, core: u16, op: &Op, done: u32) -> Beat {
        let found = self.guest_mut(id).map(|g| g.found).unwrap_or_default();
        let two = matches!(op, Op::Movdir64b { src: Source::Mem(_), .. });
        let mut index = 0;
        // In the order of the text MOVDIR64B names its destination first, in that of the accesses second.
        let translate = |at: Addr| {
            let slot = if two { 1 - index } else { 0 };
            index += 1;
            let to = found.get(slot).copied().flatten().ok_or(())?;
            let offset = at.hpa.0 % PAGE_BYTES;
            Ok::<Addr, ()>(Addr::new(Hpa(to.page.hpa().0 + offset), to.keyid))
        };
        match op.try_map(translate, Ok, Ok) {
            Ok(op) => self.act_as(AgentKind::Td, core, &op, done),
            Err(()) => Beat::over(Outcome::NotRun(NotRun::NotEntered), Ps::ZERO),
        }
    }
}
