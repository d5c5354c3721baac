//! The module's answers and what they changed, before the monitor (`verify::monitor`).
//!
//! The machine's journal marks where calls begin and end and has the module around every step that may change it
//! ([`machine::Mark`]). A call alone is judged on the views before its first and after its last step. Of calls side by side
//! each is judged on the views around its own steps that change something; where somebody else changed something between two
//! of those, the difference is not the call's own and it is not judged.

use crate::view::structures;
use machine::{Machine, Mark};
use sim_core::outcome::CallResult;
use sim_core::tdx::Leaf;
use sim_core::{Addr, Op, Page};
use std::collections::BTreeMap;
use verify::monitor::{
    Answer, Call, Company, Complaint, Flight, Memory, Monitor, NOT_JUDGED, Spec, Struck, Unknown,
};
use verify::view::{LpView, ModuleView};

/// What was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Judged {
    /// Calls, exits from TDs and machine checks that were judged.
    pub(super) judged: u64,
    /// Calls of leaves that the monitor does not know, that the model does not, or whose change is not their own.
    pub(super) not_judged: u64,
}

/// A call under way, or an exit from a TD.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Running {
    call: Call,
    /// Views around its own steps.
    steps: Vec<(ModuleView, ModuleView)>,
    /// Others that were under way meanwhile, each with the view when it began.
    others: Vec<(Call, ModuleView)>,
}

impl Running {
    fn new(call: Call) -> Running {
        Running { call, steps: Vec::new(), others: Vec::new() }
    }
    fn began(&self) -> Option<&ModuleView> {
        self.steps.first().map(|(before, _)| before)
    }
}

/// Whether the monitor knows what the call changes.
fn judges(call: &Call) -> bool {
    let open = NOT_JUDGED.iter().filter(|n| !n.unchanged);
    !open.into_iter().any(|n| n.guest == call.guest.is_some() && n.leaf == call.leaf())
}

/// What a logical processor has to do with the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Lp {
    /// The SEAMCALL under way, or the exit of its guest.
    host: Option<Running>,
    /// A TDCALL, or an exit that the module handles.
    guest: Option<Running>,
    /// Whether the exit is that of a machine check.
    check: bool,
    /// The VCPU behind TDH.VP.ENTER.
    inside: Option<Page>,
}

/// Brings calls before the monitor.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    monitor: Monitor,
    packages: Vec<u8>,
    lps: BTreeMap<u16, Lp>,
    /// Somebody sent interrupts, took entropy away or wrote MSRs.
    interrupt: bool,
    starved: bool,
    odd: bool,
    pub(super) judged: Judged,
}

/// What the monitor complains of, and in which call.
pub(super) struct Verdict {
    pub(super) call: String,
    pub(super) complaints: Vec<Complaint>,
}

impl Judge {
    pub(super) fn new(machine: &Machine) -> Judge {
        let spec = machine.spec();
        Judge {
            monitor: Monitor::new(Spec::of(spec)),
            packages: (0..spec.cpu.cores).map(|core| spec.package_of(core)).collect(),
            lps: BTreeMap::new(),
            interrupt: false,
            starved: false,
            odd: false,
            judged: Judged::default(),
        }
    }

    /// A program may do this from now on.
    pub(super) fn expect(&mut self, op: &Op) {
        match op {
            Op::Irq { .. } | Op::Interrupt => self.interrupt = true,
            Op::Starve { .. } => self.starved = true,
            Op::Wrmsr { .. } => self.odd = true,
            _ => {}
        }
    }
    /// A concurrent program: guests leave by timer interrupts at any moment.
    pub(super) fn expect_interrupts(&mut self) {
        self.interrupt = true;
    }

    fn view(&self, module: &tdx_module::Module) -> ModuleView {
        let lps = self.packages.iter().enumerate().map(|(lp, package)| LpView {
            package: *package,
            initialized: module.is_lp_initialized(lp as u16),
            inside: self.lps.get(&(lp as u16)).and_then(|lp| lp.inside),
            // Translations are judged elsewhere (verification.md E3).
            tlb: Default::default(),
        });
        ModuleView { lps: lps.collect(), ..structures(module) }
    }

    fn lp(&mut self, core: u16) -> &mut Lp {
        self.lps.entry(core).or_default()
    }

    /// Something happened.
    pub(super) fn mark(&mut self, mark: &Mark, memory: &dyn Memory) -> Result<(), Verdict> {
        match *mark {
            Mark::Began { core, vcpu, rax, regs } => {
                let running = Running::new(Call { lp: core, guest: vcpu, rax, regs });
                let lp = self.lp(core);
                if vcpu.is_some() {
                    lp.guest = Some(running)
                } else {
                    lp.host = Some(running)
                }
                Ok(())
            }
            Mark::Refused { core, rax, regs, ref module } => {
                let view = self.view(module);
                let running = Running::new(Call { lp: core, guest: None, rax, regs });
                self.judge(&running, &view, &Answer::VmFailInvalid, &view, memory)
            }
            Mark::Stepped { core, ref before, ref after } => {
                self.stepped(core, before, after);
                Ok(())
            }
            Mark::Entered { core, vcpu } => {
                let Some(running) = self.lp(core).host.take() else { return Ok(()) };
                let (before, mut after) = self.around(&running);
                if let Some(lp) = after.as_mut().and_then(|v| v.lps.get_mut(usize::from(core))) {
                    lp.inside = Some(vcpu);
                }
                self.lp(core).inside = Some(vcpu);
                self.judge_own(&running, before, &Answer::Entered, after, memory)
            }
            Mark::Exit { core, check } => {
                // The exit's own steps go with the call that it ends.
                let call = Call::host(core, Leaf::VP_ENTER, &[]);
                let lp = self.lp(core);
                lp.check |= check;
                lp.host = Some(Running::new(call));
                lp.guest = None;
                Ok(())
            }
            Mark::Resumed { core } => {
                let lp = self.lp(core);
                lp.host = None;
                Ok(())
            }
            Mark::Answered { core, result } => {
                let Some(running) = self.lp(core).guest.take() else { return Ok(()) };
                let (before, after) = self.around(&running);
                self.judge_own(&running, before, &Answer::Returned(result), after, memory)
            }
            Mark::Left { core, reason } => {
                // A TDCALL that ends in the host: what it changed before is its own, the rest is the exit's.
                let Some(running) = self.lp(core).guest.take() else { return Ok(()) };
                self.left(running, &Answer::Left(reason), memory)
            }
            Mark::Returned { core, result } => self.returned(core, &result, memory),
            Mark::Gone { core, ref module } => {
                let after = self.view(module);
                let lp = std::mem::take(self.lp(core));
                let running = lp.host.or(lp.guest);
                let before = running.as_ref().and_then(Running::began).unwrap_or(&after).clone();
                self.judged.judged += 1;
                let verdict =
                    self.monitor.judge_machine_check(&before, core, &Struck::Module, &after);
                verdict.map_err(|complaints| Verdict {
                    call: running.map_or_else(|| "a machine check".to_owned(), |r| r.call.name()),
                    complaints,
                })
            }
            Mark::Lost { core } => {
                *self.lp(core) = Lp::default();
                self.judged.not_judged += 1;
                Ok(())
            }
        }
    }

    fn stepped(&mut self, core: u16, before: &tdx_module::Module, after: &tdx_module::Module) {
        let before_view = self.view(before);
        let after_view = if before == after { before_view.clone() } else { self.view(after) };
        // Everybody who is under way is company of everybody else.
        let began = |lp: &Lp| {
            let running = lp.guest.as_ref().or(lp.host.as_ref())?;
            Some((running.call, running.began()?.clone()))
        };
        let others: Vec<(Call, ModuleView)> = self
            .lps
            .iter()
            .filter(|(other, _)| **other != core)
            .filter_map(|(_, lp)| began(lp))
            .collect();
        let lp = self.lp(core);
        let Some(running) = lp.guest.as_mut().or(lp.host.as_mut()) else { return };
        running.steps.push((before_view, after_view));
        for other in others {
            if !running.others.contains(&other) {
                running.others.push(other);
            }
        }
        let Some(mine) = running.began().map(|view| (running.call, view.clone())) else { return };
        for (other, lp) in &mut self.lps {
            if *other != core
                && let Some(running) = lp.guest.as_mut().or(lp.host.as_mut())
                && !running.others.contains(&mine)
            {
                running.others.push(mine.clone());
            }
        }
    }

    /// The views between which the change is the call's own; `None` where there are none.
    fn around(&self, running: &Running) -> (Option<ModuleView>, Option<ModuleView>) {
        let (Some(first), Some(last)) = (running.steps.first(), running.steps.last()) else {
            return (None, None);
        };
        if running.others.is_empty() {
            return (Some(first.0.clone()), Some(last.1.clone()));
        }
        let mut own = running.steps.iter().filter(|(before, after)| before != after);
        let Some(begin) = own.next() else {
            return (Some(first.0.clone()), Some(first.0.clone()));
        };
        let mut end = begin;
        for step in own {
            if end.1 != step.0 {
                return (None, None);
            }
            end = step;
        }
        // Others may have kept an entry for the host since the call took it.
        let begin = ModuleView { kept: first.0.kept.clone(), ..begin.0.clone() };
        (Some(begin), Some(end.1.clone()))
    }

    fn judge_own(
        &mut self,
        running: &Running,
        before: Option<ModuleView>,
        answer: &Answer,
        after: Option<ModuleView>,
        memory: &dyn Memory,
    ) -> Result<(), Verdict> {
        let (Some(before), Some(after)) = (before, after) else {
            self.judged.not_judged += 1;
            return Ok(());
        };
        if !running.others.is_empty() && before == after {
            // It changed nothing: which of the moments at which it looked counts is not known from outside.
            let mut first = None;
            for (view, _) in &running.steps {
                let verdict = self.judge(running, view, answer, view, memory);
                match verdict {
                    Ok(()) => return Ok(()),
                    Err(verdict) => first = first.or(Some(verdict)),
                }
            }
            return first.map_or(Ok(()), Err);
        }
        self.judge(running, &before, answer, &after, memory)
    }

    fn judge(
        &mut self,
        running: &Running,
        before: &ModuleView,
        answer: &Answer,
        after: &ModuleView,
        memory: &dyn Memory,
    ) -> Result<(), Verdict> {
        if !judges(&running.call) {
            self.judged.not_judged += 1;
            return Ok(());
        }
        self.judged.judged += 1;
        let others: Vec<Flight<'_>> =
            running.others.iter().map(|(call, began)| Flight { call: *call, began }).collect();
        let company = Company {
            others: &others,
            interrupt: self.interrupt,
            starved: self.starved,
            odd: self.odd,
        };
        // Others may have written operands since.
        let memory = if others.is_empty() { memory } else { &Unknown };
        let verdict = self.monitor.judge(before, &running.call, answer, after, &company, memory);
        verdict.map_err(|complaints| Verdict { call: running.call.name(), complaints })
    }

    /// A TDCALL has ended in an exit.
    fn left(
        &mut self,
        running: Running,
        answer: &Answer,
        memory: &dyn Memory,
    ) -> Result<(), Verdict> {
        let core = running.call.lp;
        let (Some(before), Some(last)) = self.around(&running) else {
            // Neither the call's change nor the exit's can be told from that of others.
            self.judged.not_judged += 2;
            self.lp(core).host = None;
            return Ok(());
        };
        // A TDCALL changes Secure-EPT entries at most; what an exit changes lies elsewhere.
        let (sept, kept) = (last.sept.clone(), last.kept.clone());
        let between = ModuleView { sept, kept, ..before.clone() };
        let verdict = self.judge_own(&running, Some(before), answer, Some(between.clone()), memory);
        // What is left of the change is the exit's.
        let call = Call::host(core, Leaf::VP_ENTER, &[]);
        let steps = vec![(between, last)];
        self.lp(core).host = Some(Running { call, steps, others: running.others });
        verdict
    }

    fn returned(
        &mut self,
        core: u16,
        result: &CallResult,
        memory: &dyn Memory,
    ) -> Result<(), Verdict> {
        let lp = self.lp(core);
        let (inside, check) = (lp.inside.take(), std::mem::take(&mut lp.check));
        let Some(running) = lp.host.take() else { return Ok(()) };
        let (before, mut after) = self.around(&running);
        if inside.is_none() {
            return self.judge_own(&running, before, &Answer::Returned(*result), after, memory);
        }
        if let Some(lp) = after.as_mut().and_then(|v| v.lps.get_mut(usize::from(core))) {
            lp.inside = None;
        }
        let (Some(before), Some(after)) = (before, after) else {
            self.judged.not_judged += 1;
            return Ok(());
        };
        self.judged.judged += 1;
        let verdict = if check {
            self.monitor.judge_machine_check(&before, core, &Struck::Td(*result), &after)
        } else {
            self.monitor.judge_exit(&before, core, result, &after)
        };
        verdict.map_err(|complaints| Verdict { call: "TDH.VP.ENTER (exit)".to_owned(), complaints })
    }
}

/// Memory as the reference has it: what a host would read.
pub(super) struct Seen<'a>(pub(super) &'a verify::reference::Reference);

impl Memory for Seen<'_> {
    fn read(&self, at: Addr) -> Option<u64> {
        let tagged = at.tagged();
        let cached = self.0.copies(tagged).next().map(|(_, copy)| copy.data);
        let data = cached.unwrap_or_else(|| {
            let line = self.0.dram(tagged.line());
            line.decrypt(tagged.line(), self.0.key(tagged).key).0
        });
        let offset = at.hpa.offset_in_line() & !7;
        let mask = sim_core::ByteMask::span(offset, 8);
        let known = data.unknown().0 & mask.0 == 0;
        known.then(|| data.data().0.get(offset / 8).copied()).flatten()
    }
}
