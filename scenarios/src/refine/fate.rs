//! Who can run no more, and what an operation comes to as a whole (architecture.md §6.3).

use super::{Checked, Difference, same};
use machine::{AgentId, AgentKind, AgentSpec, Machine, Met, Purpose, StepRecord, Transition};
use sim_core::mca::{McConsequence, McContext};
use sim_core::outcome::{Loaded, NotRun};
use sim_core::{EventId, Op, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// What an agent's operation has done so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Doing {
    /// Whose it is.
    agent: Option<AgentId>,
    /// What its own accesses returned, in order.
    loaded: Vec<Loaded>,
    /// What the last of them came to.
    last: Option<Outcome>,
    /// The poison that it met first, and for what.
    met: Option<(Met, Purpose)>,
    /// Whether the module was at work for it.
    module: bool,
}

/// Who can run no more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Fate {
    pub(super) panicked: bool,
    tdx_disabled: bool,
    dead: BTreeSet<AgentId>,
    shut_down: BTreeSet<u16>,
    /// Cores on which a broadcast machine check met the module, or a guest that left before it: both are allowed, and which
    /// it is depends on the moment.
    doubt: BTreeSet<u16>,
    /// Operations under way, by their events.
    doing: BTreeMap<EventId, Doing>,
}

const fn not_run(why: NotRun) -> Outcome {
    Outcome::NotRun(why)
}

impl Fate {
    /// Why an agent cannot go on with anything.
    fn stopped(&self, id: AgentId, spec: &AgentSpec) -> Option<NotRun> {
        let cored = spec.kind.has_core() || spec.kind == AgentKind::Guest;
        if self.panicked && spec.kind != AgentKind::Hardware {
            Some(NotRun::Panic)
        } else if self.dead.contains(&id) {
            Some(NotRun::Killed)
        } else if cored && self.shut_down.contains(&spec.core) {
            Some(NotRun::Shutdown)
        } else {
            None
        }
    }

    /// A transition was made: nobody makes one who cannot.
    pub(super) fn made(&mut self, t: &Transition, agents: &[AgentSpec]) -> Checked {
        let Some(id) = t.agent else { return Ok(()) };
        let Some(spec) = agents.get(usize::from(id.0)) else { return unknown(id) };
        if let Some(why) = self.stopped(id, spec) {
            let (machine, reference) = (t.outcome.to_string(), not_run(why).to_string());
            return Err(Difference::Outcome { machine, reference });
        }
        let doing = self.doing.entry(t.operation).or_default();
        doing.agent = Some(id);
        if let Some(met) = t.met {
            doing.met.get_or_insert((met, t.purpose));
        }
        match t.purpose {
            Purpose::Operation => {
                doing.last = Some(t.outcome);
                if let Outcome::Data(loaded) = t.outcome {
                    doing.loaded.push(loaded);
                }
            }
            Purpose::Module => doing.module = true,
            Purpose::Walk | Purpose::Drain => {}
        }
        Ok(())
    }

    /// The kernel gave up: what a handler of machine checks decides is no business of the reference.
    pub(super) fn kernel_panicked(&mut self) {
        self.panicked = true;
    }

    /// An operation is over: what came of it is what its transitions and the fate of its agent make of it.
    pub(super) fn over(
        &mut self,
        machine: &Machine,
        agents: &[AgentSpec],
        op: &Op,
        record: &StepRecord,
    ) -> Checked {
        let id = record.agent;
        let Some(spec) = agents.get(usize::from(id.0)) else { return unknown(id) };
        let doing = self.doing.remove(&record.event).unwrap_or_default();
        let calls = matches!(op, Op::Seamcall { .. }) || spec.kind == AgentKind::Guest;
        match &record.outcome {
            Outcome::MachineCheck { record: check, consequence } => {
                let Some((met, purpose)) = doing.met else {
                    return differ(&record.outcome, "no poison");
                };
                let ours = (check.birth, check.at.tagged(), check.access);
                same(|| "poison consumed".to_owned(), &ours, &(met.birth, met.at, met.access))?;
                let context = context_of(spec.kind, purpose);
                same(|| "context of the machine check".to_owned(), &check.context, &context)?;
                self.suffer(machine, agents, id, spec, context, purpose, *consequence)?;
            }
            Outcome::NotRun(why) => self.accept_not_run(machine, id, spec, *why, calls, &doing)?,
            Outcome::VmFailInvalid => {
                let may = self.tdx_disabled || matches!(op, Op::SeamldrInstall);
                if !may {
                    return differ(&record.outcome, "a call into the module");
                }
            }
            seen => {
                if let Some((met, _)) = doing.met
                    && !matches!(op, Op::Prefetch { .. })
                {
                    // Only a guest that a broadcast machine check took away before its load retired gets around this.
                    let gone = matches!(seen, Outcome::TdExit { .. }) && !machine.spec().mce.lmce;
                    if !gone {
                        return differ(seen, &format!("a machine check of poison at {}", met.at));
                    }
                }
                self.accept(spec, op, seen, &doing)?;
            }
        }
        // A module that gives itself up takes TDX along (architecture.md §6.3).
        let gave_up = calls && machine.is_tdx_disabled();
        self.tdx_disabled |= gave_up;
        same(|| "kernel panic".to_owned(), &machine.is_panicked(), &self.panicked)?;
        same(|| "TDX disabled".to_owned(), &machine.is_tdx_disabled(), &self.tdx_disabled)
    }

    /// Whether an operation may not have run, or not to its end, for this reason.
    fn accept_not_run(
        &mut self,
        machine: &Machine,
        id: AgentId,
        spec: &AgentSpec,
        why: NotRun,
        calls: bool,
        doing: &Doing,
    ) -> Checked {
        let allowed = match why {
            NotRun::Panic => self.panicked && spec.kind != AgentKind::Hardware,
            NotRun::Killed => self.dead.contains(&id),
            NotRun::Horizon => machine.now().is_horizon(),
            NotRun::Shutdown => {
                // The module gave itself up in this very call, or a broadcast met it at work.
                let gave_up = calls && machine.is_tdx_disabled() && doing.module;
                if gave_up || self.doubt.contains(&spec.core) {
                    self.shut_down.insert(spec.core);
                    self.tdx_disabled = true;
                }
                self.shut_down.contains(&spec.core)
            }
            NotRun::InGuest | NotRun::NotEntered | NotRun::NotModelled => calls,
        };
        if allowed { Ok(()) } else { differ(&not_run(why), "an agent that can run") }
    }

    /// Whether an operation that ran to its end came to what its own accesses say.
    fn accept(&self, spec: &AgentSpec, op: &Op, seen: &Outcome, doing: &Doing) -> Checked {
        if let Outcome::Data(loaded) = seen {
            // A guest's access that crosses into another page is two.
            let mut all =
                Loaded { data: sim_core::LineData::ZERO, bytes: 0, class: Default::default() };
            for part in &doing.loaded {
                for i in 0..part.bytes.min(64) as usize {
                    let at = all.bytes as usize + i;
                    if at < 64 {
                        all.data.set_byte(at, part.data.byte(i));
                    }
                }
                (all.bytes, all.class) = (all.bytes + part.bytes, all.class.max(part.class));
            }
            return same(|| "bytes returned".to_owned(), loaded, &all);
        }
        if op.needs_module() {
            return Ok(());
        }
        if spec.kind == AgentKind::Guest {
            // Faults and exits are the tables' and the module's; a guest's operation on memory that is done has acted.
            let acts = op.addresses()[0].is_some() && !matches!(op, Op::Prefetch { .. });
            if acts && *seen == Outcome::Done {
                return same(|| "outcome".to_owned(), &Some(*seen), &doing.last);
            }
            return Ok(());
        }
        same(|| "outcome".to_owned(), &Some(*seen), &doing.last)
    }

    /// A machine check's consequences for who runs on.
    #[expect(clippy::too_many_arguments, reason = "one machine check, told in full")]
    fn suffer(
        &mut self,
        machine: &Machine,
        agents: &[AgentSpec],
        id: AgentId,
        spec: &AgentSpec,
        context: McContext,
        purpose: Purpose,
        consequence: McConsequence,
    ) -> Checked {
        let walk = purpose == Purpose::Walk && machine.spec().tdx.walk_poison_shutdown;
        if context == McContext::SeamRoot || walk {
            same(|| "consequence".to_owned(), &consequence, &McConsequence::Shutdown)?;
            self.shut_down.insert(spec.core);
            self.tdx_disabled = true;
        }
        if spec.kind == AgentKind::Td || consequence == McConsequence::Sigbus {
            self.dead.insert(id);
        }
        self.panicked |= consequence == McConsequence::Panic;
        if !machine.spec().mce.lmce {
            // Broadcast: every TD that was running dies, and so does every module at work.
            let tds = agents.iter().enumerate().filter(|(_, a)| a.kind == AgentKind::Td);
            self.dead.extend(tds.map(|(i, _)| AgentId(i as u16)));
            let busy = self.doing.values().filter(|doing| doing.module);
            let cores = busy.filter_map(|d| agents.get(usize::from(d.agent?.0)).map(|a| a.core));
            self.doubt.extend(cores);
            self.tdx_disabled |= machine.is_tdx_disabled() && !self.doubt.is_empty();
        }
        Ok(())
    }
}

/// In which context poison is consumed that an agent of this kind met.
const fn context_of(kind: AgentKind, purpose: Purpose) -> McContext {
    match (purpose, kind) {
        (Purpose::Module, _) | (_, AgentKind::Seam) => McContext::SeamRoot,
        (_, AgentKind::User) => McContext::User,
        (_, AgentKind::Td | AgentKind::Guest) => McContext::SeamNonRoot,
        _ => McContext::Kernel,
    }
}

/// The machine names an agent that it does not have.
fn unknown(id: machine::AgentId) -> Checked {
    let (what, machine, reference) =
        ("an agent".to_owned(), format!("number {}", id.0), "none of that number".to_owned());
    Err(Difference::State { what, machine, reference })
}

fn differ(machine: &Outcome, reference: &str) -> Checked {
    let (machine, reference) = (format!("{machine} ({machine:?})"), reference.to_owned());
    Err(Difference::Outcome { machine, reference })
}
