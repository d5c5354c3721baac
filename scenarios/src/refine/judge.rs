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
    /// Calls of leaves that the monitor does not know, that the model does not, whose change is not their own, or that never
    /// came to an end; exits behind which the guest goes on.
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

/// What is wrong.
#[derive(Debug)]
pub(super) enum Verdict {
    /// What the monitor complains of, and in which call.
    Call { call: String, complaints: Vec<Complaint> },
    /// The journal has something that does not follow from what it had before: what the monitor is shown is not what happened.
    Journal(String),
}

/// Of something in the journal that belongs to no call.
fn stray<T>(what: &str, core: u16) -> Result<T, Verdict> {
    Err(Verdict::Journal(format!("{what} on core {core}, where none was under way")))
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
                let before = match vcpu {
                    Some(_) => lp.guest.replace(running),
                    None => lp.host.replace(running),
                };
                match before {
                    None => Ok(()),
                    Some(before) => {
                        let name = before.call.name();
                        Err(Verdict::Journal(format!(
                            "a call on core {core} while {name} was under way"
                        )))
                    }
                }
            }
            Mark::Refused { core, rax, regs, ref module } => {
                let view = self.view(module);
                let running = Running::new(Call { lp: core, guest: None, rax, regs });
                self.judge(&running, &view, &Answer::VmFailInvalid, &view, memory)
            }
            Mark::Stepped { core, ref before, ref after } => self.stepped(core, before, after),
            Mark::Entered { core, vcpu } => {
                let Some(running) = self.lp(core).host.take() else {
                    return stray("a TD was entered", core);
                };
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
                // A TDCALL that a machine check elsewhere, or the host's timer, cut short.
                let cut = u64::from(lp.host.replace(Running::new(call)).is_some())
                    + u64::from(lp.guest.take().is_some());
                self.judged.not_judged += cut;
                Ok(())
            }
            Mark::Resumed { core } => {
                // Behind an exit, or a TDCALL that an exception or another try is the answer to: architecture.md §7 says
                // nothing of what the module does for itself there.
                let lp = self.lp(core);
                let (exit, call) = (lp.host.take(), lp.guest.take());
                if exit.is_none() && call.is_none() {
                    return stray("a guest goes on behind an exit", core);
                }
                self.judged.not_judged += 1;
                Ok(())
            }
            Mark::Answered { core, result } => {
                let Some(running) = self.lp(core).guest.take() else {
                    return stray("a TDCALL was answered", core);
                };
                let (before, after) = self.around(&running);
                self.judge_own(&running, before, &Answer::Returned(result), after, memory)
            }
            Mark::Left { core, reason } => {
                // A TDCALL that ends in the host: what it changed before is its own, the rest is the exit's.
                let lp = self.lp(core);
                match lp.guest.take() {
                    Some(running) => self.left(running, &Answer::Left(reason), memory),
                    // An exit of another kind: judged when the host has it.
                    None if lp.host.is_some() => Ok(()),
                    None => stray("a TD was left", core),
                }
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
                verdict.map_err(|complaints| Verdict::Call {
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

    /// How many calls and exits are under way: at the end of a run nobody has judged them.
    pub(super) fn under_way(&self) -> u64 {
        let of = |lp: &Lp| u64::from(lp.host.is_some()) + u64::from(lp.guest.is_some());
        self.lps.values().map(of).sum()
    }

    fn stepped(
        &mut self,
        core: u16,
        before: &tdx_module::Module,
        after: &tdx_module::Module,
    ) -> Result<(), Verdict> {
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
        let Some(running) = lp.guest.as_mut().or(lp.host.as_mut()) else {
            return stray("a step of the module", core);
        };
        running.steps.push((before_view, after_view));
        for other in others {
            if !running.others.contains(&other) {
                running.others.push(other);
            }
        }
        let Some(mine) = running.began().map(|view| (running.call, view.clone())) else {
            return Ok(());
        };
        for (other, lp) in &mut self.lps {
            if *other != core
                && let Some(running) = lp.guest.as_mut().or(lp.host.as_mut())
                && !running.others.contains(&mine)
            {
                running.others.push(mine.clone());
            }
        }
        Ok(())
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
        verdict.map_err(|complaints| Verdict::Call { call: running.call.name(), complaints })
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
        let Some(running) = lp.host.take() else { return stray("a SEAMCALL returned", core) };
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
        let call = "TDH.VP.ENTER (exit)".to_owned();
        verdict.map_err(|complaints| Verdict::Call { call, complaints })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Origin, load};
    use crate::run::Crypto;
    use machine::{Options, Speed};
    use sim_core::op::CallRegs;
    use sim_core::tdx::ExitReason;

    fn judge() -> (Judge, Machine) {
        let spec = load(&Origin::Preset("spr".to_owned()), &[]).unwrap().spec;
        let (speed, crypto) = (Speed::Functional, Crypto::Symbolic);
        let machine = Machine::new(&spec, Options { speed, crypto, seed: 1, log: true }).unwrap();
        (Judge::new(&machine), machine)
    }

    fn said(judge: &mut Judge, mark: &Mark) -> String {
        match judge.mark(mark, &Unknown) {
            Err(Verdict::Journal(what)) => what,
            other => panic!("{mark:?}: {other:?}"),
        }
    }

    #[test]
    fn what_belongs_to_no_call_is_found() {
        let (mut judge, machine) = judge();
        let result = CallResult { guest: false, leaf: 0, status: Default::default(), out: [0; 6] };
        let module = Box::new(machine.module().clone());
        let core = 1;
        for (mark, what) in [
            (Mark::Stepped { core, before: module.clone(), after: module }, "a step of the module"),
            (Mark::Entered { core, vcpu: Page(1) }, "a TD was entered"),
            (Mark::Resumed { core }, "a guest goes on behind an exit"),
            (Mark::Answered { core, result }, "a TDCALL was answered"),
            (Mark::Left { core, reason: ExitReason(1) }, "a TD was left"),
            (Mark::Returned { core, result }, "a SEAMCALL returned"),
        ] {
            let found = said(&mut judge, &mark);
            assert_eq!(found, format!("{what} on core 1, where none was under way"));
        }
        assert_eq!(judge.judged, Judged::default());
        let (vcpu, rax, regs) = (None, u64::from(Leaf::VP_FLUSH.0), CallRegs([0; 8]));
        let began = Mark::Began { core, vcpu, rax, regs };
        assert!(judge.mark(&began, &Unknown).is_ok());
        assert_eq!(said(&mut judge, &began), "a call on core 1 while TDH.VP.FLUSH was under way");
    }

    #[test]
    fn an_exit_behind_which_the_guest_goes_on_and_a_call_without_an_end_are_counted_as_not_judged()
    {
        let (mut judge, _) = judge();
        let core = 0;
        let (rax, regs) = (0, CallRegs([0; 8]));
        for mark in [
            Mark::Exit { core, check: false },
            Mark::Resumed { core },
            Mark::Began { core, vcpu: Some(Page(1)), rax, regs },
            Mark::Resumed { core },
        ] {
            judge.mark(&mark, &Unknown).unwrap();
        }
        assert_eq!(judge.judged, Judged { judged: 0, not_judged: 2 });
        assert_eq!(judge.under_way(), 0);
        judge.mark(&Mark::Began { core, vcpu: None, rax, regs }, &Unknown).unwrap();
        assert_eq!(judge.under_way(), 1);
    }
}
