//! Time: agents, DRAM and due wake-ups, each taken at its moment.

use crate::agent::{Agent, AgentId, AgentSpec, Flight, Item, Order, Program, Progress, StepRecord};
use crate::bus::Traffic;
use crate::{AgentKind, Machine, Wake};
use mktme::dram::{Kind, Request};
use serde::{Deserialize, Serialize};
use sim_core::event::EventKind;
use sim_core::outcome::NotRun;
use sim_core::port::McHandler;
use sim_core::tdx::ExitReason;
use sim_core::{Line, Op, Outcome, Ps};
use std::collections::VecDeque;

/// A program under way ([`Machine::start`], [`Machine::advance`]). Plain data, as the machine is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The machine's number of the program's first agent.
    base: u16,
    /// The item that comes next; of a concurrent program the first behind the segment that runs.
    at: usize,
    /// The end of that segment.
    end: usize,
    /// By agent of the machine: from which item on its next operation is.
    next: Vec<usize>,
    /// Operations of the segment that are not over.
    left: usize,
    /// How many records the machine kept for somebody else when the program began.
    earlier: usize,
    over: bool,
    records: Vec<StepRecord>,
}

impl Run {
    /// What is over, in the order in which it was. While the program runs, agents go by the machine's numbers.
    pub fn records(&self) -> &[StepRecord] {
        &self.records
    }
    fn agent(&self, id: AgentId) -> AgentId {
        AgentId(self.base + id.0)
    }
}

/// What [`Machine::take_event`] took.
enum Happened {
    /// This agent's operation is over, or it may begin.
    Agent(AgentId),
    /// DRAM moved on, or a weakly ordered operation became visible.
    Elsewhere,
}

/// Whose request it is. A request's id carries it in its low 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Ticket(u32);

impl Ticket {
    /// Nobody waits for it.
    pub(crate) const NOBODY: Ticket = Ticket(0);
    const STREAM: u32 = 1 << 31;
    /// The slot of a stream's write: nobody waits for its answer, but the stream for its admission.
    pub(crate) const WRITE: u32 = 0xff;

    const fn agent(agent: AgentId) -> Ticket {
        Ticket(agent.0 as u32 + 1)
    }
    /// The read for a fill buffer of a stream.
    pub(crate) const fn fill(stream: usize, slot: usize) -> Ticket {
        Ticket(Ticket::STREAM | (stream as u32 & 0xff) << 8 | slot as u32 & 0xff)
    }
    /// A write of a stream.
    pub(crate) const fn stream_write(stream: usize) -> Ticket {
        Ticket::fill(stream, Ticket::WRITE as usize)
    }
    /// Stream and slot.
    pub(crate) const fn of_stream(self) -> Option<(usize, usize)> {
        if self.0 & Ticket::STREAM == 0 {
            return None;
        }
        Some(((self.0 >> 8 & 0xff) as usize, (self.0 & 0xff) as usize))
    }
    /// The agent, if it is one's.
    const fn of_agent(self) -> Option<AgentId> {
        if self.0 == 0 || self.0 & Ticket::STREAM != 0 {
            return None;
        }
        Some(AgentId((self.0 - 1) as u16))
    }
    const fn is_stream(self) -> bool {
        self.0 & Ticket::STREAM != 0
    }
}

const TICKET_BITS: u32 = 32;

impl Machine {
    /// Adds an agent. At most 65,534 fit; more are refused with the last id given again.
    pub fn add_agent(&mut self, spec: AgentSpec) -> AgentId {
        if self.agents.len() < usize::from(u16::MAX) - 1 {
            self.agents.push(Agent::new(spec));
        }
        AgentId(self.agents.len() as u16 - 1)
    }

    /// The machine's agents.
    pub fn agents(&self) -> impl Iterator<Item = &AgentSpec> {
        self.agents.iter().map(|a| &a.spec)
    }

    /// Runs a program from its first item to its last, then lets weakly ordered operations become visible and DRAM
    /// finish. Records come in the order in which operations were over. At the end, and between two segments of a
    /// concurrent program, all guests have left.
    pub fn run<H: McHandler>(&mut self, program: &Program, os: &mut H) -> Vec<StepRecord> {
        let mut run = self.start(program, os);
        while self.advance(&mut run, program, os) {}
        run.records
    }

    /// Begins a program: adds its agents. Guests that run from before leave.
    pub fn start<H: McHandler>(&mut self, program: &Program, os: &mut H) -> Run {
        if self.tdx_used {
            self.call_back_all(os);
        }
        let base = self.agents.len() as u16;
        for agent in &program.agents {
            self.add_agent(agent.clone());
        }
        let next = vec![0; self.agents.len()];
        // Those of agents from before are not this program's.
        let earlier = self.finished.len();
        let records = Vec::with_capacity(program.items.len());
        Run { base, at: 0, end: 0, next, left: 0, earlier, over: false, records }
    }

    /// Lets the next thing of a program happen: one operation of a program in order, one event of a concurrent one.
    /// Whether there is more. Between two of these the machine and the [`Run`] can be saved and restored.
    pub fn advance<H: McHandler>(&mut self, run: &mut Run, program: &Program, os: &mut H) -> bool {
        if run.over {
            return false;
        }
        match program.order {
            Order::Program => match program.items.get(run.at) {
                None => {
                    self.call_back_all(os);
                    self.end_run(run);
                }
                Some(item) => {
                    if let Item::Op(agent, op) = item {
                        let id = run.agent(*agent);
                        if self.tdx_used {
                            self.call_back_from(id, os);
                        }
                        // What ended before the operation began comes first, what ends because of it behind it.
                        let earlier = run.earlier.min(self.finished.len());
                        run.records.extend(self.finished.split_off(earlier));
                        let record = self.execute(id, op, run.at as u32, os);
                        let own = record.outcome != Outcome::NotRun(NotRun::InGuest);
                        run.records.extend(own.then_some(record));
                        let earlier = run.earlier.min(self.finished.len());
                        run.records.extend(self.finished.split_off(earlier));
                    }
                    run.at += 1;
                }
            },
            Order::Concurrent if run.left > 0 => self.advance_side_by_side(run, program, os),
            Order::Concurrent if run.at >= program.items.len() => self.end_run(run),
            Order::Concurrent => self.begin_segment(run, program),
        }
        !run.over
    }

    fn end_run(&mut self, run: &mut Run) {
        let others = self.finished.split_off(run.earlier.min(self.finished.len()));
        run.records.extend(others);
        for record in &mut run.records {
            record.agent = AgentId(record.agent.0.saturating_sub(run.base));
        }
        self.settle();
        run.over = true;
    }

    /// Runs one operation of one agent until it is over, and everything else that is due meanwhile.
    pub fn execute<H: McHandler>(
        &mut self,
        agent: AgentId,
        op: &Op,
        item: u32,
        os: &mut H,
    ) -> StepRecord {
        if self.tdx_used {
            self.call_back_from(agent, os);
        }
        let mut progress = Progress::new(item, self.trace.now);
        self.issue(agent, op, &mut progress);
        self.wait(agent);
        if !self.is_over(agent, &progress) {
            self.execute_rest(agent, op, &mut progress);
            if progress.parked {
                return self.park(agent, op, progress);
            }
        }
        let record = self.finish(agent, &progress, os);
        if !self.resumed.is_empty() {
            self.resume(os);
        }
        record
    }

    /// TDH.VP.ENTER has entered a guest: the operation waits, and its record comes with [`Machine::take_finished`].
    fn park(&mut self, id: AgentId, op: &Op, progress: Progress) -> StepRecord {
        let Progress { item, outcome, begin, event, .. } = progress;
        let end = self.trace.now;
        if let Some(agent) = self.agents.get_mut(usize::from(id.0)) {
            agent.flight = Some(Flight { op: *op, progress });
            agent.parked = true;
        }
        StepRecord { agent: id, item, outcome, begin, end, event }
    }

    /// Records of calls of TDH.VP.ENTER whose guest has left since they were last taken.
    pub fn take_finished(&mut self) -> Vec<StepRecord> {
        std::mem::take(&mut self.finished)
    }

    /// Runs calls whose guest has left to their end.
    fn resume<H: McHandler>(&mut self, os: &mut H) {
        while let Some(id) = self.resumed.pop() {
            let Some(agent) = self.agents.get_mut(usize::from(id.0)) else { continue };
            if !agent.parked {
                continue;
            }
            agent.parked = false;
            let Some(Flight { op, mut progress }) = agent.flight.take() else { continue };
            progress.parked = false;
            self.execute_rest(id, &op, &mut progress);
            let record = self.finish(id, &progress, os);
            self.finished.push(record);
        }
    }

    /// The host goes on with a core on which a guest runs: a timer interrupt makes the guest leave.
    fn call_back_from<H: McHandler>(&mut self, id: AgentId, os: &mut H) {
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return };
        let core = agent.spec.core;
        if agent.spec.kind.has_core() && self.call_back(core) {
            self.resume(os);
        }
    }

    /// A timer interrupt makes the guest of a core leave, if one runs there.
    fn call_back(&mut self, core: u16) -> bool {
        let runs = self.seam(core).is_some_and(|s| s.guest.is_some());
        if runs {
            self.interrupt(core, sim_core::op::IrqKind::Interrupt);
        }
        runs
    }

    /// A timer interrupt on every core: all guests leave and all calls end.
    pub fn call_back_all<H: McHandler>(&mut self, os: &mut H) {
        for core in 0..self.spec.cpu.cores {
            if self.call_back(core) {
                self.resume(os);
            }
        }
    }

    /// The lines of an operation on many that are left after its first. Apart, so that an operation on one line has no
    /// loop around it.
    #[inline(never)]
    fn execute_rest(&mut self, agent: AgentId, op: &Op, progress: &mut Progress) {
        while !self.is_over(agent, progress) && !progress.parked {
            self.issue(agent, op, progress);
            self.wait(agent);
        }
    }

    /// Lets every weakly ordered operation become visible and DRAM finish. Write-combining buffers stay: they never
    /// leave by mere age unless `wc_age` says so (architecture.md §13 MC-28).
    pub fn settle(&mut self) {
        while self.take_event().is_some() {}
    }

    /// The agents of the next segment begin, in the order in which the text names them; each does its operations in
    /// order.
    fn begin_segment(&mut self, run: &mut Run, program: &Program) {
        let rest = program.items.get(run.at..).unwrap_or_default();
        let len = rest.iter().position(|i| matches!(i, Item::Barrier)).unwrap_or(rest.len());
        let first = run.at;
        (run.end, run.at) = (first + len, first + len + 1);
        run.left = len;
        run.next.fill(first);
        let mut agents: Vec<AgentId> = Vec::new();
        for item in rest.iter().take(len) {
            if let Item::Op(agent, _) = item
                && !agents.contains(agent)
            {
                agents.push(*agent);
            }
        }
        for agent in agents {
            self.begin_next(run, program, run.agent(agent));
        }
    }

    fn advance_side_by_side<H: McHandler>(&mut self, run: &mut Run, program: &Program, os: &mut H) {
        self.wake_resumed();
        self.arm_ready();
        match self.take_event() {
            None => {
                // Nobody has anything to do but guests that run on: a timer fires.
                let mut any = false;
                for core in 0..self.spec.cpu.cores {
                    any |= self.call_back(core);
                }
                if !any {
                    self.give_up(run, program);
                }
            }
            Some(Happened::Elsewhere) => {}
            Some(Happened::Agent(agent)) => {
                let flight = self.agents.get_mut(usize::from(agent.0));
                let Some(mut flight) = flight.and_then(|a| a.flight.take()) else { return };
                if flight.progress.done == 0 && self.must_wait(agent) {
                    if let Some(a) = self.agents.get_mut(usize::from(agent.0)) {
                        (a.flight, a.waiting) = (Some(flight), true);
                    }
                    return;
                }
                if self.is_over(agent, &flight.progress) {
                    run.records.push(self.finish(agent, &flight.progress, os));
                    run.left -= 1;
                    self.vacate(agent);
                    self.begin_next(run, program, agent);
                } else {
                    self.issue(agent, &flight.op, &mut flight.progress);
                    if let Some(a) = self.agents.get_mut(usize::from(agent.0)) {
                        a.parked = flight.progress.parked;
                        a.flight = Some(flight);
                    }
                }
            }
        }
    }

    /// Whether an agent is a guest whose VCPU is not entered, or executes for another agent.
    fn must_wait(&self, id: AgentId) -> bool {
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return false };
        agent.spec.kind == AgentKind::Guest
            && (self.core_of_guest(id).is_none() || self.vcpu_is_taken(id))
    }

    /// Wakes agents that can go on because a guest was entered or has left.
    fn wake_resumed(&mut self) {
        for id in std::mem::take(&mut self.resumed) {
            let Some(agent) = self.agents.get_mut(usize::from(id.0)) else { continue };
            let Some(flight) = &mut agent.flight else { continue };
            // An operation that waits for memory is woken by that, once.
            let waits = agent.parked || flight.progress.done == 0 && !agent.armed;
            if waits {
                (agent.parked, flight.progress.parked, agent.armed) = (false, false, true);
                self.engine.schedule(self.trace.now, Wake::Agent(id));
            }
        }
    }

    /// Nothing will happen any more: guests whose VCPU nobody enters do not run what they are at.
    fn give_up(&mut self, run: &mut Run, program: &Program) {
        let now = self.trace.now;
        let before = run.left;
        for i in usize::from(run.base)..self.agents.len() {
            let Some(agent) = self.agents.get_mut(i) else { continue };
            agent.waiting = false;
            let Some(Flight { progress, .. }) = agent.flight.take() else { continue };
            let id = AgentId(i as u16);
            let outcome = Outcome::NotRun(NotRun::NotEntered);
            let Progress { item, event, .. } = progress;
            run.records.push(StepRecord { agent: id, item, outcome, begin: now, end: now, event });
            run.left -= 1;
            self.vacate(id);
            self.begin_next(run, program, id);
        }
        if run.left == before {
            // Nobody has an operation left: what was counted is not there.
            run.left = 0;
        }
    }

    /// The agent's next operation of the segment begins.
    fn begin_next(&mut self, run: &mut Run, program: &Program, id: AgentId) {
        let Some(cursor) = run.next.get_mut(usize::from(id.0)) else { return };
        let here = AgentId(id.0.saturating_sub(run.base));
        let rest = program.items.get(*cursor..run.end).unwrap_or_default();
        let mine = rest.iter().enumerate().find_map(|(i, item)| match item {
            Item::Op(agent, op) if *agent == here => Some((i, *op)),
            _ => None,
        });
        let Some((skipped, op)) = mine else {
            *cursor = run.end;
            return;
        };
        let item = *cursor + skipped;
        *cursor = item + 1;
        self.begin(id, &op, item as u32);
        self.occupy(id);
    }

    // --------------------------------------------------------------------------------------- one agent's operation

    fn begin(&mut self, agent: AgentId, op: &Op, item: u32) {
        let progress = Progress::new(item, self.trace.now);
        if let Some(a) = self.agents.get_mut(usize::from(agent.0)) {
            a.flight = Some(Flight { op: *op, progress });
        }
    }

    pub(crate) fn not_run(&self, agent: &Agent) -> Option<Outcome> {
        let kind = agent.spec.kind;
        let lp_down = kind.has_core()
            && self.lps.get(usize::from(agent.spec.core)).is_some_and(|lp| lp.shutdown);
        if self.trace.now.is_horizon() {
            Some(Outcome::NotRun(NotRun::Horizon))
        } else if self.panicked && kind != AgentKind::Hardware {
            Some(Outcome::NotRun(NotRun::Panic))
        } else if agent.dead {
            Some(Outcome::NotRun(NotRun::Killed))
        } else if lp_down {
            Some(Outcome::NotRun(NotRun::Shutdown))
        } else if self.tdx_disabled && matches!(kind, AgentKind::Seam | AgentKind::Td) {
            Some(Outcome::VmFailInvalid)
        } else {
            None
        }
    }

    /// Issues the next lines of an agent's operation and sends its requests off.
    #[inline]
    fn issue(&mut self, id: AgentId, op: &Op, progress: &mut Progress) {
        let Some(agent) = self.agents.get(usize::from(id.0)) else {
            // Nobody: nothing is done, and that is over.
            progress.more = false;
            return;
        };
        let core = agent.spec.core;
        let done = progress.done;
        progress.done += 1;
        if done == 0 {
            self.trace.cause = sim_core::EventId::NONE;
            if let Some(outcome) = self.not_run(agent) {
                self.await_until(id, self.trace.now, Ps::ZERO);
                (progress.outcome, progress.more) = (outcome, false);
                return;
            }
            let op = EventKind::Op { agent: id.0, step: progress.item };
            progress.event = self.trace.emit(op);
        }
        self.trace.cause = progress.event;
        self.traffic.clear();
        let beat = self.beat(id, op, done);
        self.await_until(id, self.trace.now + beat.cost, beat.after_read);
        (progress.outcome, progress.more) = (beat.outcome, beat.more);
        progress.parked = beat.parked;
        progress.poison = beat.poison;
        self.send(Some(id));
        self.arm_due(core);
        self.trace.cause = sim_core::EventId::NONE;
    }

    /// What has been issued is not over before `until`, nor before `after_read` has passed since its last answer.
    fn await_until(&mut self, id: AgentId, until: Ps, after_read: Ps) {
        if let Some(agent) = self.agents.get_mut(usize::from(id.0)) {
            (agent.until, agent.after_read) = (until, after_read);
        }
    }

    /// Why the rest of an agent's operation will never be issued.
    fn cut_short(&self, id: AgentId) -> Option<NotRun> {
        if self.panicked {
            Some(NotRun::Panic)
        } else if self.agents.get(usize::from(id.0)).is_some_and(|a| a.dead) {
            Some(NotRun::Killed)
        } else if self.trace.now.is_horizon() {
            Some(NotRun::Horizon)
        } else if self.tdx_disabled && self.is_shut_down(id) {
            Some(NotRun::Shutdown)
        } else {
            None
        }
    }

    /// Whether the agent's logical processor is in unbreakable shutdown.
    fn is_shut_down(&self, id: AgentId) -> bool {
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return false };
        (agent.spec.kind.has_core() || agent.spec.kind == AgentKind::Guest)
            && self.lps.get(usize::from(agent.spec.core)).is_some_and(|lp| lp.shutdown)
    }

    /// Whether all of an agent's operation has been issued, or the rest never will be. What has been issued is answered.
    fn is_over(&self, id: AgentId, progress: &Progress) -> bool {
        !progress.more || progress.done != 0 && self.cut_short(id).is_some()
    }

    /// The record of an operation that is over. If it retires on poison, this is the moment of its machine check.
    fn finish<H: McHandler>(&mut self, id: AgentId, progress: &Progress, os: &mut H) -> StepRecord {
        let Progress { item, begin, event, more, poison, .. } = *progress;
        let mut outcome = progress.outcome;
        let end = self.trace.now;
        if more || poison.is_some() {
            outcome = match (self.cut_short(id), poison) {
                // Lines were left to do: it never completed. Whoever is dead already takes no machine check.
                (Some(why), _) => Outcome::NotRun(why),
                // A broadcast machine check was first: the guest has left before its load retired.
                (None, Some(_)) if self.is_gone(id) => {
                    Outcome::TdExit { reason: ExitReason(0), gpa: 0 }
                }
                (None, Some(consumed)) => {
                    self.trace.cause = event;
                    let outcome = self.consume(id, consumed, os);
                    self.send(None);
                    self.trace.cause = sim_core::EventId::NONE;
                    outcome
                }
                (None, None) => outcome,
            };
        }
        if self.tdx_used && self.is_guest(id) {
            self.guest_done(id);
        } else if let Outcome::Call(_) = outcome
            && let Some(core) = self.agents.get(usize::from(id.0)).map(|a| a.spec.core)
        {
            self.trace.cause = event;
            self.take_msmi(core, os);
            self.trace.cause = sim_core::EventId::NONE;
        }
        StepRecord { agent: id, item, outcome, begin, end, event }
    }

    fn is_guest(&self, id: AgentId) -> bool {
        self.agents.get(usize::from(id.0)).is_some_and(|a| a.spec.kind == AgentKind::Guest)
    }
    /// Whether an agent is a guest whose VCPU is not in its TD.
    fn is_gone(&self, id: AgentId) -> bool {
        self.is_guest(id) && self.core_of_guest(id).is_none()
    }

    fn is_ready(&self, id: AgentId) -> bool {
        self.agents.get(usize::from(id.0)).is_none_or(|a| a.reads == 0 && a.unadmitted == 0)
    }

    /// Lets time pass until an agent's requests are answered and its latency is over.
    fn wait(&mut self, id: AgentId) {
        loop {
            let until = self.agents.get(usize::from(id.0)).map_or(Ps::ZERO, |a| a.until);
            let ready = self.is_ready(id);
            match self.next_moment() {
                Some(moment) if !ready || moment < until => {
                    self.take_event();
                }
                _ => {
                    // Nothing else happens before: no wake-up is needed.
                    self.trace.now = self.trace.now.max(until);
                    return;
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------ logical processors

    /// The agent takes its core, or queues for it.
    fn occupy(&mut self, id: AgentId) {
        if self.must_wait(id) {
            if let Some(agent) = self.agents.get_mut(usize::from(id.0)) {
                agent.waiting = true;
            }
            return;
        }
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return };
        if agent.spec.kind.has_core()
            && let Some(lp) = self.lps.get_mut(usize::from(agent.spec.core))
        {
            if lp.user.is_some() {
                lp.queue.push_back(id);
                return;
            }
            lp.user = Some(id);
        }
        self.engine.schedule(self.trace.now, Wake::Agent(id));
    }

    /// The agent leaves its core to whoever waits for it.
    fn vacate(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(usize::from(id.0)) else { return };
        if agent.spec.kind.has_core()
            && let Some(lp) = self.lps.get_mut(usize::from(agent.spec.core))
        {
            lp.user = lp.queue.pop_front();
            if let Some(next) = lp.user {
                self.engine.schedule(self.trace.now, Wake::Agent(next));
            }
        }
    }

    /// Arms the wake-up of every agent whose operation has been issued and answered.
    fn arm_ready(&mut self) {
        for (i, agent) in self.agents.iter_mut().enumerate() {
            let issued = agent.flight.as_ref().is_some_and(|f| f.progress.done > 0);
            if issued && !agent.armed && !agent.parked && agent.reads == 0 && agent.unadmitted == 0
            {
                agent.armed = true;
                self.engine.schedule(agent.until, Wake::Agent(AgentId(i as u16)));
            }
        }
    }

    fn arm_due(&mut self, core: u16) {
        let Some(due) = self.caches.next_due(core) else { return };
        let Some(lp) = self.lps.get_mut(usize::from(core)) else { return };
        if lp.armed.is_none_or(|armed| due < armed) {
            lp.armed = Some(due);
            self.engine.schedule(due, Wake::Due(core));
        }
    }

    // ------------------------------------------------------------------------------------------------ the next event

    fn next_moment(&self) -> Option<Ps> {
        match (self.dram.next_event(), self.engine.next_at()) {
            (Some(d), Some(e)) => Some(d.min(e)),
            (d, e) => d.or(e),
        }
    }

    /// Takes the next event. DRAM goes first at equal times, so that whoever is woken finds its answers. `None` when
    /// nothing is left to happen.
    fn take_event(&mut self) -> Option<Happened> {
        let wake_at = self.engine.next_at();
        if let Some(at) = self.dram.next_event()
            && wake_at.is_none_or(|w| at <= w)
        {
            self.trace.now = self.trace.now.max(at);
            self.advance_dram(at);
            return Some(Happened::Elsewhere);
        }
        let (at, wake) = self.engine.pop()?;
        self.trace.now = self.trace.now.max(at);
        match wake {
            Wake::Agent(agent) => {
                if let Some(a) = self.agents.get_mut(usize::from(agent.0)) {
                    a.armed = false;
                }
                Some(Happened::Agent(agent))
            }
            Wake::Due(core) => {
                if let Some(lp) = self.lps.get_mut(usize::from(core)) {
                    lp.armed = None;
                }
                self.traffic.clear();
                self.drain_due(core);
                self.send(None);
                self.arm_due(core);
                Some(Happened::Elsewhere)
            }
        }
    }

    pub(crate) fn advance_dram(&mut self, at: Ps) {
        self.dram.advance(at);
        self.take_answers();
    }

    /// Takes what DRAM has answered, and sends what now has room.
    pub(crate) fn take_answers(&mut self) {
        self.collect();
        self.admit();
    }

    /// Takes what DRAM has answered to whoever waits for it.
    #[inline]
    pub(crate) fn collect(&mut self) {
        while let Some(done) = self.dram.pop_completion() {
            if done.kind == Kind::Read {
                self.answered(Ticket(done.id as u32), done.at);
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, at: Ps) {
        if ticket.is_stream() {
            self.answer_stream(ticket, at);
        } else if let Some(id) = ticket.of_agent()
            && let Some(agent) = self.agents.get_mut(usize::from(id.0))
        {
            agent.reads = agent.reads.saturating_sub(1);
            agent.until = agent.until.max(at + agent.after_read);
        }
    }

    /// Sends the recorded requests to their controllers' queues; what a queue has no room for waits in order.
    fn send(&mut self, agent: Option<AgentId>) {
        if !self.traffic.is_empty() {
            self.send_traffic(agent);
        }
    }

    fn send_traffic(&mut self, agent: Option<AgentId>) {
        let traffic = std::mem::take(&mut self.traffic);
        let ticket = agent.map_or(Ticket::NOBODY, Ticket::agent);
        for t in &traffic {
            self.send_one(*t, ticket);
        }
        self.traffic = traffic;
    }

    /// Sends a request to its controller's queue, or has it wait there.
    pub(crate) fn send_one(&mut self, t: Traffic, ticket: Ticket) {
        // Nothing overtakes a request that waits for the same queue.
        let subchannel = if self.waiting == 0 { None } else { Some(self.subchannel(t.line)) };
        let waits = subchannel.is_some_and(|s| !self.backlog.get(s).is_none_or(VecDeque::is_empty));
        if waits || !self.try_enqueue(t, ticket) {
            let subchannel = subchannel.unwrap_or_else(|| self.subchannel(t.line));
            if let Some(backlog) = self.backlog.get_mut(subchannel) {
                backlog.push_back((t, ticket));
                self.waiting += 1;
            }
            self.count_waiting(ticket, true);
        }
    }

    fn subchannel(&self, line: Line) -> usize {
        let place = self.dram.map().decode(line);
        let channel = usize::from(self.spec.home_of(line)) * usize::from(self.spec.dram.channels)
            + usize::from(place.channel);
        channel * 2 + usize::from(place.subchannel)
    }

    /// Sends what waits, as far as there is room.
    fn admit(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for subchannel in 0..self.backlog.len() {
            while let Some(&(t, ticket)) = self.backlog.get(subchannel).and_then(VecDeque::front) {
                if !self.try_enqueue(t, ticket) {
                    break;
                }
                if let Some(backlog) = self.backlog.get_mut(subchannel) {
                    backlog.pop_front();
                    self.waiting -= 1;
                }
                self.count_waiting(ticket, false);
            }
        }
        self.collect();
    }

    fn try_enqueue(&mut self, t: Traffic, ticket: Ticket) -> bool {
        // Whoever does not wait for the answer is not told.
        let owner = if t.demand || ticket.is_stream() { ticket } else { Ticket::NOBODY };
        let id = (self.requests + 1) << TICKET_BITS | u64::from(owner.0);
        let request = Request { id, line: t.line, kind: t.kind, at: self.trace.now };
        if self.dram.try_enqueue(request).is_err() {
            return false;
        }
        self.requests += 1;
        if let Some(agent) = owner.of_agent()
            && let Some(agent) = self.agents.get_mut(usize::from(agent.0))
        {
            agent.reads += 1;
        }
        true
    }

    /// A request has to wait for room in its controller's queue, or no longer has.
    fn count_waiting(&mut self, ticket: Ticket, more: bool) {
        if ticket.is_stream() {
            self.count_unadmitted(ticket, more);
            return;
        }
        let now = self.trace.now;
        let Some(id) = ticket.of_agent() else { return };
        let Some(agent) = self.agents.get_mut(usize::from(id.0)) else { return };
        if more {
            agent.unadmitted += 1;
        } else {
            agent.unadmitted = agent.unadmitted.saturating_sub(1);
            agent.until = agent.until.max(now);
        }
    }
}
