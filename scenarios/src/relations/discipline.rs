//! What a program must keep to for some relations to hold.
//!
//! Several relations of verification.md §2.13 have preconditions: one KeyID between two flushes (M1), the VMM's policy (M8,
//! M10). [`Discipline`] follows a program and says whether its next line keeps to them, so that generators can repair what
//! they propose and a shrunk program is still one that the relation is about.

use super::world::{Step, World, extents};
use machine::{AgentKind, AgentSpec};
use sim_core::op::{MemType, Source};
use sim_core::{Addr, KeyId, Line, Op, PlatformSpec};
use std::collections::{BTreeMap, BTreeSet};

/// Which rules hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// What a core has written past its caches, or flushes in no order, is fenced before anybody else touches the line
    /// (architecture.md §3, §4.1): without that what is seen depends on time.
    pub fenced: bool,
    /// Between two flushes of a line for all KeyIDs it is accessed with one KeyID only (verification.md M1).
    pub one_key: bool,
    /// Private memory is written whole by the module before it is read (verification.md T3), the line is flushed before its
    /// KeyID changes (V1, V2), keys stay.
    pub policy: bool,
    /// With `policy`: memory that was private is cleared by MOVDIR64B and a fence before the host touches it otherwise (V3).
    pub cleared: bool,
}

impl Rules {
    /// Fences only.
    pub const FENCED: Rules = Rules { fenced: true, one_key: false, policy: false, cleared: false };
    /// Fences, and one KeyID between two flushes.
    pub const ONE_KEY: Rules = Rules { one_key: true, ..Rules::FENCED };
    /// The VMM's policy.
    pub const POLICY: Rules = Rules { policy: true, cleared: true, ..Rules::ONE_KEY };
    /// The same without clears.
    pub const UNCLEARED: Rules = Rules { cleared: false, ..Rules::POLICY };
}

/// Why the next line does not keep to the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breach {
    /// This core has to fence first.
    Fence(u16),
    /// A copy under this KeyID may be cached.
    Cached(Line, KeyId),
    /// Private memory that nobody has written under this KeyID.
    Uninitialised(Line, KeyId),
    /// Memory that was private and is not cleared.
    NotCleared(Line),
    /// A physical fault, or a key that changes.
    Forbidden,
}

/// What is known of a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Known {
    /// Under which KeyID copies may be cached, and on which packages it was not flushed since.
    held: Option<(KeyId, u8)>,
    /// Under which KeyID it was accessed last.
    last: Option<KeyId>,
    /// Under which private KeyID it was last written whole.
    owner: Option<KeyId>,
}

/// Follows a program.
#[derive(Clone, Debug)]
pub struct Discipline {
    rules: Rules,
    private_from: u16,
    packages: u8,
    package_of: Vec<u8>,
    lines: BTreeMap<Line, Known>,
    /// By core: lines that are not fenced.
    unfenced: BTreeMap<u16, BTreeSet<Line>>,
    configured: BTreeSet<(u8, KeyId)>,
}

impl Discipline {
    /// At power-on.
    pub fn new(rules: Rules, spec: &PlatformSpec) -> Discipline {
        Discipline {
            rules,
            private_from: spec.keyid.private(0).map_or(u16::MAX, |k| k.0),
            packages: spec.cpu.packages,
            package_of: (0..spec.cpu.cores).map(|core| spec.package_of(core)).collect(),
            lines: BTreeMap::new(),
            unfenced: BTreeMap::new(),
            configured: BTreeSet::new(),
        }
    }

    /// Whether a whole program keeps to the rules.
    pub fn admits(rules: Rules, world: &World) -> bool {
        let Ok(spec) = world.platform() else { return false };
        let mut discipline = Discipline::new(rules, &spec);
        let mut steps = world.steps.iter().flatten();
        steps.all(|step| match world.agents.get(usize::from(step.agent)) {
            Some(agent) => discipline.follow(agent, step).is_ok(),
            None => false,
        })
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// Why it does not keep to the rules; then it was not taken.
    pub fn follow(&mut self, agent: &AgentSpec, step: &Step) -> Result<(), Breach> {
        let op = &step.op;
        self.check(agent, op)?;
        self.take(agent, op);
        Ok(())
    }

    /// Under which private KeyID a line was last written whole, if it was not cleared since.
    pub fn owner(&self, line: Line) -> Option<KeyId> {
        self.lines.get(&line)?.owner
    }

    fn is_private(&self, keyid: KeyId) -> bool {
        keyid.0 >= self.private_from
    }

    /// The lines that an operation accesses.
    fn lines_of(op: &Op) -> Vec<(Line, KeyId)> {
        let lines = |(at, bytes): (Addr, u64)| {
            let last = sim_core::Hpa(at.hpa.0 + bytes.max(1) - 1).line().0;
            (at.hpa.line().0..=last).map(move |line| (Line(line), at.keyid))
        };
        extents(op).flat_map(lines).collect()
    }

    fn check(&self, agent: &AgentSpec, op: &Op) -> Result<(), Breach> {
        match op {
            Op::FlipBit { .. }
            | Op::FlipTd { .. }
            | Op::MoveLine { .. }
            | Op::SaveLine { .. }
            | Op::ReplayLine { .. }
            | Op::InjectUe { .. } => return Err(Breach::Forbidden),
            Op::Pconfig { keyid, .. } if self.rules.one_key => {
                let package = self.package(agent.core);
                let again = self.configured.contains(&(package, *keyid));
                let in_use = self.lines.values().any(|known| {
                    known.owner == Some(*keyid) || known.held.is_some_and(|(k, _)| k == *keyid)
                });
                return if again || in_use { Err(Breach::Forbidden) } else { Ok(()) };
            }
            // The hardware may let go of what it wants, when it wants.
            Op::Evict { .. } => return Ok(()),
            _ => {}
        }
        let core = agent.kind.has_core().then_some(agent.core);
        for (line, keyid) in Discipline::lines_of(op) {
            if self.rules.fenced {
                let late = self
                    .unfenced
                    .iter()
                    .find(|(c, lines)| Some(**c) != core && lines.contains(&line));
                if let Some((core, _)) = late {
                    return Err(Breach::Fence(*core));
                }
            }
            let known = self.lines.get(&line).cloned().unwrap_or_default();
            let flush = matches!(op, Op::Clflush { .. } | Op::Clflushopt { .. } | Op::Clwb { .. });
            if self.rules.one_key
                && let Some((held, _)) = known.held
                && held != keyid
            {
                return Err(Breach::Cached(line, held));
            }
            if self.rules.one_key && known.last.is_some_and(|last| last != keyid) {
                // Nobody's buffers may still hold the line under its last KeyID.
                let other = self.unfenced.iter().find(|(_, lines)| lines.contains(&line));
                if let Some((core, _)) = other {
                    return Err(Breach::Fence(*core));
                }
            }
            if !self.rules.policy || flush {
                continue;
            }
            let whole = matches!(op, Op::Movdir64b { .. } | Op::Movdir64bPage { .. })
                && !is_source(op, line);
            if self.is_private(keyid) {
                let owned = known.owner == Some(keyid);
                let initialises = whole && agent.kind == AgentKind::Seam;
                if !owned && !initialises {
                    return Err(Breach::Uninitialised(line, keyid));
                }
            } else if self.rules.cleared && known.owner.is_some() && !whole {
                return Err(Breach::NotCleared(line));
            }
        }
        Ok(())
    }

    fn package(&self, core: u16) -> u8 {
        self.package_of.get(usize::from(core)).copied().unwrap_or(0)
    }

    fn take(&mut self, agent: &AgentSpec, op: &Op) {
        let all = ((1u16 << self.packages) - 1) as u8;
        match op {
            // Others may be dead by then.
            Op::Mfence if agent.kind == AgentKind::Kernel => {
                self.unfenced.remove(&agent.core);
            }
            Op::Wbinvd if matches!(agent.kind, AgentKind::Kernel | AgentKind::Seam) => {
                let package = self.package(agent.core);
                for known in self.lines.values_mut() {
                    if let Some((_, left)) = &mut known.held {
                        *left &= !(1 << package);
                        if *left == 0 {
                            known.held = None;
                        }
                    }
                }
            }
            Op::Pconfig { keyid, .. } => {
                let package = self.package(agent.core);
                self.configured.insert((package, *keyid));
            }
            // Gone from every cache, but in no order with what the core does next.
            Op::Clflush { at } => {
                if let Some(known) = self.lines.get_mut(&at.hpa.line()) {
                    known.held = None;
                }
            }
            Op::Evict { .. } => {}
            _ => {
                let weak = is_weak(op);
                for (line, keyid) in Discipline::lines_of(op) {
                    let private = self.is_private(keyid);
                    let source = is_source(op, line);
                    let known = self.lines.entry(line).or_default();
                    known.held = Some((keyid, all));
                    known.last = Some(keyid);
                    let whole = matches!(op, Op::Movdir64b { .. } | Op::Movdir64bPage { .. });
                    if whole && !source {
                        known.owner = private.then_some(keyid);
                    }
                    if weak && !source {
                        self.unfenced.entry(agent.core).or_default().insert(line);
                    }
                }
            }
        }
    }
}

/// Whether a line is only what MOVDIR64B reads.
fn is_source(op: &Op, line: Line) -> bool {
    match op {
        Op::Movdir64b { dst, src: Source::Mem(_) } => dst.hpa.line() != line,
        _ => false,
    }
}

/// Whether what an operation writes or flushes becomes visible in no order with the core's next operations.
pub(crate) fn is_weak(op: &Op) -> bool {
    match op {
        Op::Store { ty, .. } => *ty == MemType::Wc,
        Op::NtStore { .. }
        | Op::Movdiri { .. }
        | Op::Movdir64b { .. }
        | Op::Movdir64bPage { .. }
        | Op::Clflushopt { .. }
        | Op::Clwb { .. } => true,
        _ => false,
    }
}
