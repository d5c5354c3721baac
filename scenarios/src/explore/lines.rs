//! Which lines are watched, which are calm, and which nobody looks at.

use crate::format::{FinalCheck, Program, ProgramLine};
use machine::AgentKind;
use sim_core::op::MemType;
use sim_core::tdx::Leaf;
use sim_core::{Hpa, KeyId, LINES_PER_PAGE, Line, Op, PlatformSpec};
use std::collections::{BTreeMap, BTreeSet};

use super::world::{span_lines, spans};

/// An operation on more lines than this is one on pages: their first lines stand for them.
const SMALL: u64 = 4;
/// Of an operation on more pages than this only the first ones are looked at line by line.
const PAGES_MAX: usize = 64;

/// Who uses a line.
#[derive(Default)]
struct Use {
    keyids: BTreeSet<KeyId>,
    cores: BTreeSet<Option<u16>>,
    /// Stores that wait in a core before others see them.
    waits: bool,
    /// Stores that reach the controller as parts of lines, or may.
    parts: bool,
    /// Hardware's choices, faults and attacks, the module, or a final check.
    special: bool,
}

impl Use {
    /// Whether anybody could tell when hardware writes the line back: under one KeyID caches are coherent, and a core sees
    /// its own stores (verification.md M1). Under KeyID 0, that is: elsewhere a buffer that leaves in parts reads what was
    /// there, and may find that its MAC is not valid, where a full one reads nothing (architecture.md §2.6).
    fn is_contended(&self) -> bool {
        let waits = self.waits && (self.cores.len() > 1 || self.has_keys());
        self.special || self.keyids.len() > 1 || waits
    }
    fn has_keys(&self) -> bool {
        self.keyids.iter().any(|keyid| *keyid != KeyId::TME)
    }
    /// Whether partial writes or poison may come of it.
    fn counts(&self) -> bool {
        self.parts || self.has_keys()
    }
}

/// The lines of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    watched: BTreeSet<Line>,
    keyids: BTreeSet<KeyId>,
    /// Calm lines, as ranges of line numbers.
    kept: Vec<(u64, u64)>,
    /// The program's own memory, in bytes, and which lines of its pages are kept.
    areas: Vec<(u64, u64)>,
    offsets: u64,
}

impl Lines {
    /// Of a program, where a page is represented by so many of its first lines, and ordinary stores wait in their cores or
    /// not.
    pub(super) fn of(
        program: &Program,
        spec: &PlatformSpec,
        per_page: u32,
        stores_wait: bool,
    ) -> Lines {
        let per_page = per_page.clamp(1, LINES_PER_PAGE);
        let setup = program.setup.as_ref();
        let control: BTreeSet<u64> = setup.iter().flat_map(|s| s.control_pages()).collect();
        let mut out = Lines { offsets: u64::MAX >> (64 - per_page), ..Lines::default() };
        out.keyids.insert(KeyId::TME);
        let areas = program.areas.iter().filter(|a| !control.contains(&a.base));
        out.areas = areas.map(|a| (a.base, a.base.saturating_add(a.size))).collect();
        let mut operands: BTreeSet<u64> =
            setup.iter().flat_map(|s| s.td_pages().map(|p| p.0)).collect();
        let mut with_module = setup.is_some();

        // What is named line by line, and pages that are named as a whole.
        let mut exact: BTreeSet<Line> = BTreeSet::new();
        let mut pages: BTreeSet<u64> = BTreeSet::new();
        // Of an operation on many lines the first ones in each page: where two such operations meet in a page, they meet in the
        // line with which one of them begins.
        let mut firsts: BTreeSet<Line> = BTreeSet::new();
        for line in &program.lines {
            let ProgramLine::Step(step) = line else { continue };
            with_module |= step.op.needs_module();
            let kind = program.agents.get(step.agent).map(|a| a.kind);
            if let Op::Seamcall { regs, .. } = &step.op {
                for at in regs.0.iter().filter_map(|value| spec.keyid.split(*value)) {
                    let inside = |a: &crate::format::NamedArea| {
                        (a.base..a.base.saturating_add(a.size)).contains(&at.hpa.0)
                    };
                    if program.areas.iter().any(inside) {
                        operands.insert(at.hpa.page().hpa().0);
                    }
                }
            }
            for (at, bytes) in spans(&step.op) {
                if kind == Some(AgentKind::Guest) {
                    for line in span_lines(at, bytes).take(LINES_PER_PAGE as usize) {
                        out.offsets |= 1 << line.index_in_page();
                    }
                    continue;
                }
                let lines = span_lines(at, bytes);
                let (first, last) = (at.line().0, at.line().0 + lines.count() as u64);
                out.kept.push((first, last));
                if last - first <= SMALL {
                    exact.extend((first..last).map(Line));
                } else {
                    for page in (first >> 6..=(last - 1) >> 6).take(PAGES_MAX) {
                        let from = first.max(page << 6);
                        let to = last.min((page + 1) << 6);
                        pages.insert(page << 12);
                        firsts.extend((from..to).take(per_page as usize).map(Line));
                    }
                }
            }
            out.keyids.extend(step.op.addresses().into_iter().flatten().map(|a| a.keyid));
        }
        let mut checked: BTreeSet<Line> = BTreeSet::new();
        // Whoever counts can tell a full buffer from one that leaves in two parts.
        let mut counted = false;
        for check in &program.finals {
            match &check.check {
                FinalCheck::Ucna(_)
                | FinalCheck::Births(_)
                | FinalCheck::LivePoison(_)
                | FinalCheck::PartialWrites(_) => counted = true,
                FinalCheck::Poisoned { at, .. }
                | FinalCheck::Td { at, .. }
                | FinalCheck::Mac { at, .. }
                | FinalCheck::Writer { at, .. } => {
                    checked.insert(*at);
                }
                FinalCheck::Cached { at, .. }
                | FinalCheck::Dirty { at, .. }
                | FinalCheck::Reads { at, .. } => {
                    checked.insert(at.line());
                    out.keyids.insert(at.keyid());
                }
                _ => {}
            }
        }
        exact.extend(&checked);
        for line in &exact {
            out.offsets |= 1 << line.index_in_page();
        }
        // A page that only the module knows is its own business; one that others name too is not.
        let named: BTreeSet<u64> = exact.iter().map(|l| l.page().hpa().0).collect();
        let shared: Vec<u64> =
            operands.iter().filter(|p| named.contains(p) || pages.contains(p)).copied().collect();
        let mut candidates = exact;
        candidates.extend(firsts);
        for page in pages.iter().chain(&shared) {
            candidates.extend((0..u64::from(per_page)).map(|i| Line((page >> 6) + i)));
        }
        // Guests use a page at offsets of their own.
        for page in shared {
            let offsets = (0..u64::from(LINES_PER_PAGE)).filter(|i| out.offsets >> i & 1 != 0);
            candidates.extend(offsets.map(|i| Line((page >> 6) + i)));
        }

        let by_module =
            |line: &Line| with_module && setup.is_none_or(|s| s.may_be_private(line.hpa().0));
        let fresh = |line: Line| {
            let special = by_module(&line) || checked.contains(&line);
            (line, Use { special, ..Use::default() })
        };
        let mut uses: BTreeMap<Line, Use> = candidates.into_iter().map(fresh).collect();
        let mut keyed: BTreeSet<KeyId> = BTreeSet::new();
        // By the module any private KeyID may get a new key, wherever in memory it is used.
        let mut module_keys = false;
        for line in &program.lines {
            let ProgramLine::Step(step) = line else { continue };
            let Some(agent) = program.agents.get(step.agent) else { continue };
            match &step.op {
                Op::Pconfig { keyid, .. } => {
                    keyed.insert(*keyid);
                }
                Op::Seamcall { leaf, .. } => {
                    module_keys |= [Leaf::MNG_KEY_CONFIG, Leaf::SYS_KEY_CONFIG].contains(leaf);
                }
                _ => {}
            }
            if agent.kind == AgentKind::Guest {
                continue;
            }
            let waits = matches!(
                step.op,
                Op::NtStore { .. }
                    | Op::Movdiri { .. }
                    | Op::Movdir64b { .. }
                    | Op::Movdir64bPage { .. }
                    | Op::Clflushopt { .. }
                    | Op::Clwb { .. }
                    | Op::Store { ty: MemType::Wc, .. }
            ) || stores_wait && matches!(step.op, Op::Store { ty: MemType::Wb, .. });
            let parts =
                waits || matches!(step.op, Op::DmaWrite { .. } | Op::Store { ty: MemType::Uc, .. });
            for ((at, bytes), to) in spans(&step.op).zip(step.op.addresses().into_iter().flatten())
            {
                let end = at.line().0 + span_lines(at, bytes).count() as u64;
                for (_, used) in uses.range_mut(at.line()..Line(end)) {
                    used.keyids.insert(to.keyid);
                    used.cores.insert(agent.core);
                    used.waits |= waits;
                    used.parts |= parts;
                    used.special |= agent.kind == AgentKind::Hardware;
                }
            }
        }
        let rekeyed = |k: &KeyId| keyed.contains(k) || module_keys && spec.keyid.is_private(*k);
        let contended =
            |u: &Use| u.is_contended() || counted && u.counts() || u.keyids.iter().any(rekeyed);
        out.watched =
            uses.into_iter().filter(|(_, u)| contended(u)).map(|(line, _)| line).collect();
        if let Some(setup) = setup {
            let (base, bytes) = setup.own();
            out.kept.push((base >> 6, (base + bytes) >> 6));
        }
        out.kept.sort_unstable();
        out
    }

    /// The same with every line watched that anybody names.
    #[cfg(test)]
    pub(super) fn every(program: &Program, spec: &PlatformSpec) -> Lines {
        let mut out = Lines::of(program, spec, LINES_PER_PAGE, true);
        for line in &program.lines {
            let ProgramLine::Step(step) = line else { continue };
            out.watched.extend(spans(&step.op).flat_map(|(at, bytes)| span_lines(at, bytes)));
        }
        out
    }

    /// Whether hardware makes every choice on a line.
    pub(super) fn is_watched(&self, line: Line) -> bool {
        self.watched.contains(&line)
    }
    /// Whether a line that is not watched is modelled at all.
    pub(super) fn is_kept(&self, line: Line) -> bool {
        let at = line.hpa().0;
        let own = || self.areas.iter().any(|(base, end)| (*base..*end).contains(&at));
        self.kept.iter().any(|(first, end)| (*first..*end).contains(&line.0))
            || self.offsets >> line.index_in_page() & 1 != 0 && own()
    }
    /// The watched lines of some bytes.
    pub(super) fn watched(&self, at: Hpa, bytes: u64) -> impl Iterator<Item = Line> {
        let end = at.line().0 + span_lines(at, bytes).count() as u64;
        self.watched.range(at.line()..Line(end)).copied()
    }
    /// The lines of `count` from `first` on that are watched or kept, in order, by their distance from `first`.
    pub(super) fn modelled(&self, first: Line, count: u32) -> Vec<u32> {
        let end = first.0 + u64::from(count);
        let mut out: BTreeSet<u64> = self.watched.range(first..Line(end)).map(|l| l.0).collect();
        for (from, to) in &self.kept {
            out.extend((*from).max(first.0)..(*to).min(end));
        }
        for (base, top) in &self.areas {
            let lines = (base >> 6).max(first.0)..top.div_ceil(64).min(end);
            out.extend(lines.filter(|line| self.offsets >> (line & 63) & 1 != 0));
        }
        out.into_iter().map(|line| (line - first.0) as u32).collect()
    }
    /// The watched lines, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = Line> {
        self.watched.iter().copied()
    }
    /// The KeyIDs that the program names, and KeyID 0.
    pub(super) fn keyids(&self) -> impl Iterator<Item = &KeyId> {
        self.keyids.iter()
    }
}
