//! SEAM: the module's calls run on a logical processor, one touch after the other, through its caches and in its time.

use crate::agent::{AgentId, Consumed};
use crate::bus::Bus;
use crate::exec::Beat;
use crate::journal::{Act, Actor, Mark, Purpose};
use crate::{Machine, Speed};
use cache::FenceKind;
use serde::{Deserialize, Serialize};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::EventKind;
use sim_core::mca::{McAccess, McRecord};
use sim_core::op::{CallRegs, IrqKind, MemType, PconfigCmd, Source};
use sim_core::outcome::{CallResult, NotRun, PconfigStatus};
use sim_core::tdx::{ExitReason, Leaf};
use sim_core::{Addr, Hpa, LINE_BYTES, Op, Outcome, Page, PlatformSpec, Ps};
use tdx_module::{Action, Answer, Call, Env, Flight, GuestEntry, Reply, Touch, VmExit};

/// What a logical processor has to do with the module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seam {
    /// The call under way.
    pub(crate) flight: Flight,
    /// What came of the module's last action.
    reply: Reply,
    /// A touch of many lines, and which line is next.
    work: Option<(Touch, u32)>,
    /// The agent whose TDH.VP.ENTER is under way.
    pub(crate) host: Option<AgentId>,
    /// The guest that runs, or for which the module is at work.
    pub(crate) guest: Option<GuestEntry>,
    /// The VCPU that the call under way has entered.
    pub(crate) inside: Option<Page>,
    /// Whether the module is at work for the guest.
    pub(crate) asking: bool,
    /// What the call has come to, until its agent takes it.
    over: Option<Over>,
    /// Why the guest is leaving, until the host's call goes on with it.
    leaving: Option<VmExit>,
    /// A machine check that was signalled as MSMI while a guest ran: the host takes it behind SEAMRET.
    pub(crate) msmi: Option<McRecord>,
    /// An interrupt that waits for the host to take it. While it does a guest leaves.
    pub(crate) irq: Option<IrqKind>,
    /// How many draws of random numbers find no entropy.
    pub(crate) starve: u32,
    /// MSRs that were written, by number.
    pub(crate) msrs: Vec<(u32, u64)>,
    /// What WRMSR of IA32_TIME_STAMP_COUNTER and of IA32_TSC_ADJUST added to the TSC.
    tsc_shift: u64,
}

/// What a call under which a guest ran has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Over {
    /// It has returned.
    Answer(Answer),
    /// The model does not know how it would go on.
    NotModelled,
}

/// IA32_TIME_STAMP_COUNTER.
const MSR_TSC: u32 = 0x10;
/// IA32_TSC_ADJUST.
const MSR_TSC_ADJUST: u32 = 0x3b;
/// IA32_MKTME_KEYID_PARTITIONING (architecture.md §8).
const MSR_KEYID_PARTITIONING: u32 = 0x87;
/// IA32_TME_ACTIVATE (architecture.md §8).
const MSR_TME_ACTIVATE: u32 = 0x982;

/// MSRs whose value after a reset is known and not 0: number, value, source. The values are those that TDH.SYS.INIT asks
/// for: a platform that has TDX has them.
const RESET_MSRS: &[(u32, u64, &str)] = &[
    (0x0bc, 1, "IA32_MISC_PACKAGE_CTLS; intel/tdx-module 1.5.01 tdh_sys_init.c"),
    (0x0bd, 1, "IA32_XAPIC_DISABLE_STATUS; intel/tdx-module 1.5.01 tdh_sys_init.c"),
    (0x10a, 0x0020_fd6b, "IA32_ARCH_CAPABILITIES; intel/tdx-module 1.5.01 tdh_sys_init.c"),
    (0x345, 1 << 13, "IA32_PERF_CAPABILITIES; intel/tdx-module 1.5.01 tdh_sys_init.c"),
];

/// Whether WRMSR outside SEAM raises #GP: WBINVDP, WBNOINVDP, INTR_PENDING (architecture.md §4.1 4.1.10, §8).
pub const fn is_seam_msr(msr: u32) -> bool {
    matches!(msr, 0x98..=0x9a)
}

/// What an MSR holds after a reset, as far as somebody looks at it.
pub fn reset_msr(spec: &PlatformSpec, msr: u32) -> u64 {
    let (keyid, memory) = (&spec.keyid, &spec.memory);
    match msr {
        MSR_KEYID_PARTITIONING => {
            u64::from(keyid.mktme_kids) | u64::from(keyid.tdx_priv_kids) << 32
        }
        // Lock, enable, bypass, KeyID bits, of which private ones.
        MSR_TME_ACTIVATE => {
            u64::from(spec.tdx.tme_locked)
                | 1 << 1
                | u64::from(memory.tme_bypass) << 31
                | u64::from(keyid.keyid_bits) << 32
                | u64::from(keyid.private_bits) << 36
        }
        _ => RESET_MSRS.iter().find(|(n, ..)| *n == msr).map_or(0, |(_, value, _)| *value),
    }
}

/// What the module is at.
pub(crate) enum SeamBeat {
    /// A touch is done, more is to come.
    Touched(Beat),
    /// The guest runs.
    Entered(GuestEntry, Ps),
    /// The call is over.
    Returned(Answer, Ps),
    /// The module has given itself up.
    Fatal,
    /// The model does not know.
    NotModelled,
}

impl Machine {
    /// Issues the next part of a SEAMCALL.
    pub(crate) fn seamcall(&mut self, id: AgentId, core: u16, op: SeamOp, done: u32) -> Beat {
        if done == 0 {
            self.tdx_used = true;
            let call = op.call();
            let (rax, regs) = (call.rax, op.regs);
            if self.begin_call(core, &call).is_err() {
                self.mark(|m| {
                    let module = Box::new(m.module.clone());
                    Mark::Refused { core, rax, regs, module }
                });
                return Beat::over(Outcome::VmFailInvalid, self.spec.latency.issue);
            }
            self.mark(|_| Mark::Began { core, vcpu: None, rax, regs });
            self.trace.emit(EventKind::Call { core, guest: false, leaf: op.leaf.0 });
            if let Some(seam) = self.seam_mut(core) {
                (seam.reply, seam.work, seam.over, seam.leaving) = (Reply::Done, None, None, None);
                (seam.guest, seam.asking, seam.host) = (None, false, Some(id));
            }
        }
        let Some(seam) = self.seam_mut(core) else {
            return Beat::over(Outcome::VmFailInvalid, Ps::ZERO);
        };
        match seam.over.take() {
            Some(Over::Answer(answer)) => return self.end_call(core, op, answer, Ps::ZERO),
            Some(Over::NotModelled) => return self.abandon_call(core),
            None => {}
        }
        if let Some(exit) = seam.leaving.take() {
            seam.reply = Reply::Exit(exit);
        }
        match self.seam_beat(core) {
            SeamBeat::Touched(beat) => beat,
            SeamBeat::Entered(guest, cost) => self.enter_guest(core, guest, cost),
            SeamBeat::Returned(answer, cost) => self.end_call(core, op, answer, cost),
            SeamBeat::Fatal => self.module_gone(core),
            SeamBeat::NotModelled => self.abandon_call(core),
        }
    }

    fn abandon_call(&mut self, core: u16) -> Beat {
        self.mark(|_| Mark::Lost { core });
        if let Some(seam) = self.seam_mut(core) {
            (seam.guest, seam.host, seam.inside) = (None, None, None);
        }
        self.take_irq(core);
        Beat::over(Outcome::NotRun(NotRun::NotModelled), Ps::ZERO)
    }

    /// The module gave itself up: as after a machine check in SEAM root (architecture.md §6.3, last row).
    pub(crate) fn module_gone(&mut self, core: u16) -> Beat {
        self.unbreakable_shutdown(core);
        Beat::over(Outcome::NotRun(NotRun::Shutdown), Ps::ZERO)
    }

    fn end_call(&mut self, core: u16, op: SeamOp, answer: Answer, cost: Ps) -> Beat {
        let leaf = op.leaf.0;
        let mut inside = None;
        if let Some(seam) = self.seam_mut(core) {
            (seam.guest, seam.host) = (None, None);
            inside = seam.inside.take();
        }
        let status = answer.status;
        if let Some(vcpu) = inside {
            self.trace.emit(EventKind::TdExit { core, vcpu, status });
        }
        self.trace.emit(EventKind::Returned { core, guest: false, leaf, status });
        // An interrupt that came meanwhile is taken when the host runs again.
        self.take_irq(core);
        let Answer { status, out } = answer;
        let result = CallResult { guest: false, leaf, status, out };
        self.mark(|_| Mark::Returned { core, result });
        Beat::over(Outcome::Call(result), cost)
    }

    fn enter_guest(&mut self, core: u16, guest: GuestEntry, cost: Ps) -> Beat {
        let Some(seam) = self.seam_mut(core) else { return Beat::over(Outcome::Done, cost) };
        seam.inside = Some(guest.tdvpr);
        let (td, vcpu) = (guest.tdr, guest.tdvpr);
        self.mark(|_| Mark::Entered { core, vcpu });
        self.trace.emit(EventKind::TdEnter { core, td, vcpu });
        let Some(seam) = self.seam_mut(core) else { return Beat::over(Outcome::Done, cost) };
        if let Some(irq) = seam.irq {
            // It was pending all the time: the guest does not get to its first instruction.
            seam.leaving = Some(exit_of(irq));
            self.mark(|_| Mark::Exit { core, check: false });
            return Beat { more: true, ..Beat::over(Outcome::Done, cost) };
        }
        seam.guest = Some(guest);
        self.guest_runs(core, guest.tdvpr);
        let parked = Outcome::NotRun(NotRun::InGuest);
        Beat { more: true, parked: true, ..Beat::over(parked, cost) }
    }

    /// A pending interrupt is taken by the host.
    pub(crate) fn take_irq(&mut self, core: u16) {
        let Some(seam) = self.seam_mut(core) else { return };
        if seam.irq.take().is_some() {
            self.drain_core(core);
        }
    }

    /// The guest of a core leaves; the host's call goes on.
    pub(crate) fn guest_leaves(&mut self, core: u16, exit: VmExit) {
        let Some(seam) = self.seam_mut(core) else { return };
        if seam.guest.take().is_none() {
            return;
        }
        seam.leaving = Some(exit);
        if let Some(host) = seam.host {
            self.resumed.push(host);
        }
        let check = matches!(exit, VmExit::MachineCheck | VmExit::Smi { msmi: true });
        self.mark(|_| Mark::Exit { core, check });
    }

    /// A guest asks the module for something: `exit` says what.
    pub(crate) fn guest_asks(&mut self, core: u16, exit: VmExit) {
        let vcpu = self.seam(core).and_then(|s| s.guest).map(|g| g.tdvpr);
        self.mark(|_| match exit {
            VmExit::Tdcall { leaf, version, regs } => {
                let rax = u64::from(version) << 16 | u64::from(leaf.0);
                Mark::Began { core, vcpu, rax, regs: CallRegs(regs) }
            }
            _ => Mark::Exit { core, check: false },
        });
        if let Some(seam) = self.seam_mut(core) {
            (seam.reply, seam.asking) = (Reply::Exit(exit), true);
        }
    }

    /// The module has sent the guest of a core back to the host, whose call is over.
    pub(crate) fn guest_left(&mut self, core: u16, answer: Answer) -> ExitReason {
        self.guest_ends(core, Over::Answer(answer));
        let reason = ExitReason(answer.status.0 as u32);
        self.mark(|_| Mark::Left { core, reason });
        reason
    }
    /// The model does not know what the module does for the guest of a core: neither does the host's call go on.
    pub(crate) fn guest_lost(&mut self, core: u16) -> Beat {
        self.guest_ends(core, Over::NotModelled);
        Beat::over(Outcome::NotRun(NotRun::NotModelled), Ps::ZERO)
    }
    fn guest_ends(&mut self, core: u16, over: Over) {
        if let Some(seam) = self.seam_mut(core) {
            (seam.guest, seam.asking, seam.over) = (None, false, Some(over));
            if let Some(host) = seam.host {
                self.resumed.push(host);
            }
        }
    }

    pub(crate) fn seam(&self, core: u16) -> Option<&Seam> {
        self.lps.get(usize::from(core)).map(|lp| &lp.seam)
    }
    pub(crate) fn seam_mut(&mut self, core: u16) -> Option<&mut Seam> {
        self.lps.get_mut(usize::from(core)).map(|lp| &mut lp.seam)
    }

    /// An interrupt arrives at a core. A guest leaves at the end of the operation that it is at.
    pub(crate) fn interrupt(&mut self, core: u16, kind: IrqKind) {
        let Some(seam) = self.seam_mut(core) else { return };
        seam.irq = Some(kind);
        if seam.guest.is_some() && !self.guest_is_busy(core) {
            self.guest_leaves(core, exit_of(kind));
        }
    }

    /// WRMSR on a core.
    pub(crate) fn wrmsr(&mut self, core: u16, msr: u32, value: u64) {
        let (now, reset) = (self.trace.now, reset_msr(&self.spec, msr));
        let Some(seam) = self.seam_mut(core) else { return };
        if msr == MSR_TSC {
            seam.tsc_shift = value.wrapping_sub(tsc_of(now, 0));
            return;
        }
        if msr == MSR_TSC_ADJUST {
            let old = seam.msrs.iter().find(|(n, _)| *n == msr).map_or(reset, |(_, v)| *v);
            seam.tsc_shift = seam.tsc_shift.wrapping_add(value.wrapping_sub(old));
        }
        let at = seam.msrs.binary_search_by_key(&msr, |(n, _)| *n);
        match at {
            // What it was at reset is not a difference.
            Ok(at) if value == reset => {
                seam.msrs.remove(at);
            }
            Err(_) if value == reset => {}
            Ok(at) => {
                if let Some(slot) = seam.msrs.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => seam.msrs.insert(at, (msr, value)),
        }
    }

    fn begin_call(&mut self, core: u16, call: &Call) -> Result<(), tdx_module::VmFail> {
        let now = self.trace.now;
        let Some(lp) = self.lps.get_mut(usize::from(core)) else {
            return Err(tdx_module::VmFail);
        };
        let Seam { flight, irq, msrs, tsc_shift, .. } = &mut lp.seam;
        let (irq, tsc) = (irq.is_some(), tsc_of(now, *tsc_shift));
        let env = Env { lp: core, package: lp.package, irq, now, tsc, msrs, cpuid: 0 };
        self.module.begin(flight, call, &env)
    }

    fn module_step(&mut self, core: u16) -> Action {
        let now = self.trace.now;
        // A touch that waits to be done is no step of the leaf.
        let waits = self.journal.is_some()
            && self
                .lps
                .get_mut(usize::from(core))
                .is_some_and(|lp| self.module.next_touch(&mut lp.seam.flight).is_some());
        let before = if waits { None } else { self.before_step() };
        let Some(lp) = self.lps.get_mut(usize::from(core)) else { return Action::Fatal };
        let Seam { flight, reply, irq, msrs, tsc_shift, .. } = &mut lp.seam;
        let (irq, tsc) = (irq.is_some(), tsc_of(now, *tsc_shift));
        let env = Env { lp: core, package: lp.package, irq, now, tsc, msrs, cpuid: 0 };
        // Most actions are answered by nothing, and a reply is as large as a line.
        let reply = if *reply == Reply::Done { Reply::Done } else { std::mem::take(reply) };
        let action = self.module.step(flight, reply, &env, &mut self.trace);
        self.after_step(core, before);
        action
    }

    /// Goes on with what the module is at on a core: one touch, or in functional mode all of them.
    pub(crate) fn seam_beat(&mut self, core: u16) -> SeamBeat {
        let timed = self.options.speed == Speed::Timed;
        loop {
            // Who keeps a journal wants every touch in it: they are done one by one.
            let at_once = !timed && self.journal.is_none();
            if at_once && let Some(poison) = self.touch_at_once(core) {
                let beat = Beat::over(Outcome::Done, Ps::ZERO);
                return SeamBeat::Touched(Beat { poison: Some(poison), ..beat });
            }
            // Functionally a touch is done in one go.
            let work = if timed { self.seam_mut(core).and_then(|s| s.work.take()) } else { None };
            let (touch, line) = match work {
                Some(work) => work,
                None => match self.module_step(core) {
                    Action::Touch(touch) => (touch, 0),
                    Action::Enter(guest) => return SeamBeat::Entered(guest, Ps::ZERO),
                    Action::Return(answer) => return SeamBeat::Returned(answer, Ps::ZERO),
                    Action::Fatal => return SeamBeat::Fatal,
                    Action::NotModelled => return SeamBeat::NotModelled,
                },
            };
            let mut beat = self.touch(core, touch, line);
            if beat.more
                && let Some(seam) = self.seam_mut(core)
            {
                seam.work = Some((touch, line + 1));
            }
            // The module never gets over poison: what is left is never done.
            beat.more = beat.poison.is_none();
            if timed || !beat.more {
                return SeamBeat::Touched(beat);
            }
        }
    }

    /// Does the touches that most of a leaf consists of, where nobody asks what they cost: loads and stores within a line, and
    /// time. Stops before any other, and behind one that met poison, which is returned.
    fn touch_at_once(&mut self, core: u16) -> Option<Consumed> {
        let Machine { module, lps, caches, memory, trace, traffic, counts, spec, .. } = self;
        let Seam { flight, reply, .. } = &mut lps.get_mut(usize::from(core))?.seam;
        if *reply != Reply::Done || spec.cpu.rfo_poison_mc {
            return None;
        }
        let mut bus = Bus { memory, trace, traffic, counts, timed: false };
        while let Some(touch) = module.next_touch(flight) {
            // By reference: a touch is copied nowhere.
            let (tagged, level, poison) = match touch {
                Touch::Spend(_) => {
                    flight.touched(None);
                    continue;
                }
                Touch::Load { at, bytes } => {
                    let (offset, bytes) = (at.hpa.offset_in_line(), usize::from(*bytes));
                    if offset + bytes > LINE_BYTES {
                        return None;
                    }
                    let tagged = at.tagged();
                    let hit = caches.load(core, tagged, &mut bus);
                    let (data, _, poison) = caches.loaded(hit.slot);
                    flight.touched(Some(data.slice(offset, bytes)));
                    (tagged, hit.level, poison)
                }
                Touch::Store { at, value, bytes, locked } => {
                    let (tagged, locked) = (at.tagged(), *locked);
                    if locked {
                        caches.fence(core, FenceKind::Locked, &mut bus);
                    }
                    let (data, mask) = words(at.hpa.offset_in_line(), *bytes, *value);
                    let hit = if locked {
                        caches.store_locked(core, tagged, &data, mask, &mut bus)
                    } else {
                        caches.store(core, tagged, &data, mask, &mut bus)
                    };
                    flight.touched(None);
                    (tagged, hit.level, if locked { caches.loaded(hit.slot).2 } else { None })
                }
                _ => return None,
            };
            bus.counts.access(level);
            if let Some(birth) = poison {
                let at = Addr::new(tagged.line().hpa(), tagged.keyid());
                return Some(Consumed { birth, at, access: McAccess::DataLoad, fatal: false });
            }
        }
        None
    }

    /// Does one line of a touch, or all of it in functional mode. `more` says whether lines are left.
    fn touch(&mut self, core: u16, touch: Touch, line: u32) -> Beat {
        let timed = self.options.speed == Speed::Timed;
        match touch {
            Touch::Load { at, bytes } => {
                let bytes = u32::from(bytes);
                let act = Act::Op(Op::Load { at, bytes, ty: MemType::Wb });
                let beat =
                    self.module_act(core, act, |m| m.load(core, at, bytes, McAccess::DataLoad));
                if let (Outcome::Data(loaded), Some(seam)) = (beat.outcome, self.seam_mut(core)) {
                    seam.reply = Reply::Data(loaded.data);
                }
                beat
            }
            Touch::Store { at, value, bytes, locked } => {
                let (data, mask) = words(at.hpa.offset_in_line(), bytes, value);
                let tagged = at.tagged();
                self.module_act(core, Act::Store { at: tagged, mask, data, locked }, |m| {
                    let mut before = Beat::over(Outcome::Done, Ps::ZERO);
                    if locked {
                        before = m.fence(core, FenceKind::Locked, m.spec.latency.mfence);
                    }
                    let beat = m.store_line(core, tagged, &data, mask, locked);
                    Beat {
                        cost: before.cost + beat.cost,
                        after_read: before.after_read.max(beat.after_read),
                        ..beat
                    }
                })
            }
            Touch::Fill { at, lines, word } => {
                self.fill(core, at, &LineData([word; 8]), line, lines)
            }
            Touch::FillSome { at, lines, word, mask } => {
                let data = LineData(std::array::from_fn(|k| word * u64::from(mask >> k & 1)));
                self.fill(core, at, &data, line, lines)
            }
            Touch::FillTable { at, first, step } => {
                let last = if timed { line + 1 } else { 64 };
                let mut beat = Beat::over(Outcome::Done, Ps::ZERO);
                for i in line..last {
                    let word = |k: u64| first.wrapping_add(step.wrapping_mul(8 * u64::from(i) + k));
                    let data = LineData(std::array::from_fn(|k| word(k as u64)));
                    beat = self.direct_line(core, at, &data, i, 64);
                }
                beat
            }
            Touch::Copy { from, to } => {
                let last = if timed { line + 1 } else { 64 };
                let mut beat = Beat::over(Outcome::Done, Ps::ZERO);
                for i in line..last {
                    let at = |a: Addr| Addr::new(Hpa(a.hpa.0 + 64 * u64::from(i)), a.keyid);
                    let (dst, src) = (at(to), Source::Mem(at(from)));
                    let act = Act::Op(Op::Movdir64b { dst, src });
                    beat = self.module_act(core, act, |m| m.movdir64b(core, dst, src));
                    if beat.poison.is_some() {
                        return beat;
                    }
                }
                beat.more = last < 64;
                if !beat.more {
                    beat.cost += self.module_fence(core, Ps::ZERO).cost;
                }
                beat
            }
            Touch::FlushPage { at } => {
                let last = if timed { line + 1 } else { 64 };
                let now = self.trace.now;
                for i in line..last {
                    let at = Addr::new(Hpa(at.hpa.0 + 64 * u64::from(i)), at.keyid);
                    self.module_act(core, Act::Op(Op::Clflushopt { at }), |m| {
                        let (mut bus, caches) = m.bus();
                        caches.clflushopt(core, at.tagged(), now, &mut bus);
                        Beat::over(Outcome::Done, Ps::ZERO)
                    });
                }
                let mut cost = self.spec.latency.clflushopt;
                if last == 64 {
                    cost += self.module_fence(core, self.spec.latency.mfence).cost;
                }
                Beat { more: last < 64, ..Beat::over(Outcome::Done, cost) }
            }
            Touch::WriteBackBlock(block) => {
                self.module_act(core, Act::Op(Op::Wbnoinvdp { block }), |m| {
                    let package = m.spec.package_of(core);
                    let (mut bus, caches) = m.bus();
                    // WRMSR is serialising: what the core has waiting leaves first (architecture.md §13 MC-28).
                    caches.fence(core, FenceKind::Locked, &mut bus);
                    let walked = caches.wbnoinvdp(package, block, &mut bus).map_or(0, |f| f.walked);
                    Beat::over(Outcome::Done, m.spec.latency.flush_walk.times(walked))
                })
            }
            Touch::Pconfig { keyid, alg } => {
                let starved = self.draw_fails(core);
                let mut status = PconfigStatus::NoEntropy;
                if !starved {
                    let (cmd, alg) = (PconfigCmd::SetRandom, Some(alg));
                    let act = Act::Op(Op::Pconfig { keyid, cmd, alg });
                    self.module_act(core, act, |m| {
                        let package = m.spec.package_of(core);
                        status = m.memory.pconfig_on(package, keyid, cmd, alg, true, &mut m.trace);
                        Beat::over(Outcome::Pconfig(status), Ps::ZERO)
                    });
                }
                if let Some(seam) = self.seam_mut(core) {
                    seam.reply = Reply::Pconfig(status);
                }
                Beat::over(Outcome::Done, self.spec.latency.pconfig)
            }
            Touch::Random => {
                let ok = !self.draw_fails(core);
                if let Some(seam) = self.seam_mut(core) {
                    seam.reply = Reply::Random(ok);
                }
                Beat::over(Outcome::Done, self.spec.latency.issue)
            }
            Touch::Invept(td) => {
                if let Some(lp) = self.lps.get_mut(usize::from(core)) {
                    lp.tlb.flush(td);
                }
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Touch::Spend(time) => Beat::over(Outcome::Done, time),
        }
    }

    fn draw_fails(&mut self, core: u16) -> bool {
        let Some(seam) = self.seam_mut(core) else { return false };
        let fails = seam.starve > 0;
        seam.starve = seam.starve.saturating_sub(1);
        fails
    }

    /// One MOVDIR64B of `lines`; behind the last stands MFENCE.
    fn direct_line(&mut self, core: u16, at: Addr, data: &LineData, line: u32, lines: u32) -> Beat {
        let (now, tagged) = (self.trace.now, at.tagged().offset(u64::from(line)));
        let act = Act::Direct { at: tagged, lines: 1, data: *data };
        let mut cost = self
            .module_act(core, act, |m| {
                let (mut bus, caches) = m.bus();
                caches.movdir64b(core, tagged, data, now, &mut bus);
                Beat::over(Outcome::Done, m.direct_cost(core, tagged))
            })
            .cost;
        let more = line + 1 < lines;
        if !more {
            // The fence waits for this store as well, its wait for a place included.
            cost = self.module_fence(core, self.spec.latency.mfence).cost;
        }
        Beat { more, ..Beat::over(Outcome::Done, cost) }
    }

    /// MOVDIR64B of many lines alike: one of them, or in functional mode all.
    fn fill(&mut self, core: u16, at: Addr, data: &LineData, line: u32, lines: u32) -> Beat {
        if self.options.speed == Speed::Timed {
            return self.direct_line(core, at, data, line, lines);
        }
        self.fill_pages(core, at, data, lines);
        self.module_fence(core, Ps::ZERO)
    }

    /// MFENCE of the module.
    fn module_fence(&mut self, core: u16, cost: Ps) -> Beat {
        self.module_act(core, Act::Op(Op::Mfence), |m| m.fence(core, FenceKind::Mfence, cost))
    }

    /// An act of the module, which a journal has as SEAM root's.
    #[inline]
    fn module_act(&mut self, core: u16, act: Act, make: impl FnOnce(&mut Machine) -> Beat) -> Beat {
        self.transition(Actor::SeamRoot, core, Purpose::Module, |_| act, make)
    }

    /// MOVDIR64B of many lines alike, page by page.
    fn fill_pages(&mut self, core: u16, at: Addr, data: &LineData, lines: u32) {
        let mut done = 0;
        while done < lines {
            let first = Hpa(at.hpa.0 + LINE_BYTES as u64 * u64::from(done));
            let page = first.page();
            let skip = first.line().index_in_page();
            let count = (lines - done).min(64 - skip);
            done += count;
            let tagged = Addr::new(first, at.keyid).tagged();
            let act = Act::Direct { at: tagged, lines: count, data: *data };
            self.module_act(core, act, |m| {
                let now = m.trace.now;
                let (mut bus, caches) = m.bus();
                if count < 64 {
                    // Not the whole page: other lines of it stay as they are.
                    for line in 0..count {
                        let line = tagged.offset(u64::from(line));
                        caches.movdir64b(core, line, data, now, &mut bus);
                    }
                } else {
                    caches.bypass_page(core, page, at.keyid, &mut bus);
                    m.counts.controller_writes += u64::from(count);
                    m.memory.write_lines(page, u64::MAX, at.keyid, data, &mut m.trace);
                }
                Beat::over(Outcome::Done, Ps::ZERO)
            });
        }
    }

    /// Whether a core executes the module, for the host or for a guest.
    pub(crate) fn is_in_module(&self, core: u16) -> bool {
        self.seam(core).is_some_and(|s| s.flight.is_under_way() && (s.guest.is_none() || s.asking))
    }
}

/// Words as they lie in a line.
fn words(offset: usize, bytes: u8, value: [u64; 2]) -> (LineData, ByteMask) {
    let (mut data, word) = (LineData::ZERO, offset / 8);
    for (to, from) in data.0.iter_mut().skip(word).zip(value) {
        *to = from;
    }
    (data, ByteMask::span(8 * word, usize::from(bytes)))
}

/// The time-stamp counter: one tick per nanosecond of simulated time, and what WRMSR has made of it.
const fn tsc_of(now: Ps, shift: u64) -> u64 {
    (now.0 / 1000).wrapping_add(shift)
}

/// The exit that an interrupt makes.
pub const fn exit_of(kind: IrqKind) -> VmExit {
    match kind {
        IrqKind::Interrupt => VmExit::Interrupt,
        IrqKind::Nmi => VmExit::Nmi,
        IrqKind::Smi => VmExit::Smi { msmi: false },
    }
}

/// A SEAMCALL in an operation.
#[derive(Clone, Copy)]
pub(crate) struct SeamOp {
    pub(crate) leaf: Leaf,
    pub(crate) version: u8,
    pub(crate) regs: CallRegs,
}

impl SeamOp {
    fn call(self) -> Call {
        Call { rax: u64::from(self.version) << 16 | u64::from(self.leaf.0), regs: self.regs.0 }
    }
}

/// Poison consumed, with nothing known of its access but that it was a page walk's or the module's.
pub(crate) const fn fatal(consumed: Consumed) -> Consumed {
    Consumed { fatal: true, ..consumed }
}
