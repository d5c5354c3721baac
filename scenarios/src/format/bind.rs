//! From [`Scenario`] to [`Program`]: regions, KeyIDs and cores of one platform.

use super::check::{BoundCheck, FinalCheck};
use super::parse::agent_by_name;
use super::pattern::Pattern;
use super::{
    Agent, AgentKind, Crypto, GPAW, Line, Located, Order, Part, Place, Region, SHARED, Scenario,
    Space, StepRef,
};
use crate::diag::{Diag, SourceFile};
use crate::setup::{self, Setup};
use serde::{Deserialize, Serialize};
use sim_core::keyid::AddrError;
use sim_core::op::{AddrExpr, Base, CallRegs, KeyRef, RegBase, RegExpr, Source, TextOp};
use sim_core::{Addr, Hpa, KeyId, Op, PlatformSpec};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

/// A scenario bound to a platform: plain data, ready to run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The scenario's name.
    pub name: String,
    /// How lines follow each other.
    pub order: Order,
    /// With which cryptography.
    pub crypto: Crypto,
    /// Who acts: declared agents first, then the others as they appear.
    pub agents: Vec<AgentSpec>,
    /// What they do, in the order of the file.
    pub lines: Vec<ProgramLine>,
    /// What must and must not come of it.
    pub expectations: Vec<Expectation>,
    /// What may come of it: what a search must find possible, and counts as expected ([`Expectation::forbidden`] is false).
    pub allowed: Vec<Expectation>,
    /// What must hold at the end.
    pub finals: Vec<BoundFinal>,
    /// What is done before it.
    pub setup: Option<Setup>,
    /// The regions of host memory, those that are control pages of its TDs included.
    pub areas: Vec<NamedArea>,
}

/// A region of host memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamedArea {
    /// Its name.
    pub name: String,
    /// First byte.
    pub base: u64,
    /// How many bytes.
    pub size: u64,
}

/// An agent of a [`Program`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentSpec {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: AgentKind,
    /// On which core, below `cpu.cores`; `None` for kinds without one.
    pub core: Option<u16>,
    /// The KeyID of its addresses where they name none.
    pub keyid: KeyId,
    /// Of a guest: the TDVPR page of its VCPU. Its addresses are guest addresses: [`Addr::hpa`] of its operations holds a
    /// guest-physical or linear address, [`Addr::keyid`] is 0.
    pub vcpu: Option<Hpa>,
}

/// A line of a [`Program`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProgramLine {
    /// An operation.
    Step(Step),
    /// Everything above has completed before anything below starts.
    Barrier,
}

/// An operation of a [`Program`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Who: an index into [`Program::agents`].
    pub agent: usize,
    /// Which of the agent's operations, from 1.
    pub index: u32,
    /// What.
    pub op: Op,
    /// What, in the words of the file.
    pub text: String,
    /// Line of the file, from 1.
    pub line: u32,
    /// Column of the operation, from 1.
    pub column: u32,
}

/// What must, or must not, come of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expectation {
    /// Whose: an index into [`Program::agents`].
    pub agent: usize,
    /// Which of the agent's operations, from 1.
    pub index: u32,
    /// The outcome.
    pub pattern: Pattern,
    /// Whether it must not happen.
    pub forbidden: bool,
    /// Line of the file, from 1.
    pub line: u32,
    /// Column of the pattern, from 1.
    pub column: u32,
}

/// What must hold at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BoundFinal {
    /// What.
    pub check: BoundCheck,
    /// What, in the words of the file.
    pub text: String,
    /// Line of the file, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// What is wrong, before it is known where.
pub(crate) struct Trouble {
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Trouble {
    pub(crate) fn new(found: impl Into<String>, expected: impl Into<String>) -> Trouble {
        Trouble { found: found.into(), expected: expected.into() }
    }
}

fn trouble(found: impl Into<String>, expected: impl Into<String>) -> Trouble {
    Trouble::new(found, expected)
}

/// Whose addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    /// Physical ones.
    Host,
    /// A guest's, which has so many guest-physical address bits.
    Guest(u8),
}

/// What an expression of a register may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A physical address.
    Host(Hpa),
    /// A guest-physical or linear one.
    Guest(u64),
}

/// The regions of a scenario by name, and its guests.
pub(crate) struct Regions<'a> {
    by_name: BTreeMap<&'a str, &'a Region>,
    guests: BTreeMap<&'a str, u8>,
}

impl<'a> Regions<'a> {
    /// Those of the file, and those that the control pages of its TDs are.
    pub(crate) fn of(own: &'a [Region], made: &'a [Region], agents: &'a [Agent]) -> Regions<'a> {
        let gpaw = |a: &'a Agent| Some((a.name.as_str(), a.vcpu.as_ref()?.gpaw));
        Regions {
            by_name: own.iter().chain(made).map(|r| (r.name.as_str(), r)).collect(),
            guests: agents.iter().filter_map(gpaw).collect(),
        }
    }

    /// Whose addresses an agent's are. Guests are always declared.
    pub(super) fn whose(&self, agent: &str) -> Whose {
        self.guests.get(agent).map_or(Whose::Host, |gpaw| Whose::Guest(*gpaw))
    }

    /// The address of `bytes` bytes for an agent that has such addresses.
    pub(super) fn of_agent(
        &self,
        whose: Whose,
        expr: &AddrExpr,
        bytes: u64,
    ) -> Result<Named, Trouble> {
        match whose {
            Whose::Host => self.hpa(expr, bytes).map(Named::Host),
            Whose::Guest(gpaw) => self.gpa(expr, bytes, gpaw).map(Named::Guest),
        }
    }

    /// The address in a register of an agent. A host's register may hold a guest's address: leaves take them.
    pub(super) fn in_register(&self, whose: Whose, expr: &AddrExpr) -> Result<Named, Trouble> {
        let guest = match &expr.base {
            Base::Abs(_) => false,
            Base::Region { name, .. } => {
                self.by_name.get(name.as_str()).is_some_and(|r| r.space == Space::Guest)
            }
        };
        let whose = if guest && whose == Whose::Host { Whose::Guest(GPAW) } else { whose };
        self.of_agent(whose, expr, 1)
    }

    /// A guest's address: a number, a region of guest memory, or [`SHARED`] with an offset.
    pub(crate) fn gpa(&self, expr: &AddrExpr, bytes: u64, gpaw: u8) -> Result<u64, Trouble> {
        if let Some(key) = expr.key {
            return Err(trouble(format!("`@{key}`"), "an address without KeyID: it is a guest's"));
        }
        let first = match &expr.base {
            Base::Abs(gpa) => *gpa,
            Base::Region { name, offset } if name == SHARED => {
                let bit = 1u64 << (gpaw - 1);
                if *offset >= bit {
                    let expected = format!("an offset below {bit:#x}, the SHARED bit");
                    return Err(trouble(format!("`{}`", expr.base), expected));
                }
                bit | offset
            }
            Base::Region { .. } => self.in_region(expr, bytes, Space::Guest)?,
        };
        match first.checked_add(bytes.saturating_sub(1)) {
            Some(_) => Ok(first),
            None => Err(trouble("an access beyond 2^64", "a lower address")),
        }
    }

    /// The physical address of `bytes` bytes, all within their region.
    pub(crate) fn hpa(&self, expr: &AddrExpr, bytes: u64) -> Result<Hpa, Trouble> {
        match &expr.base {
            Base::Abs(hpa) => Ok(Hpa(*hpa)),
            Base::Region { .. } => self.in_region(expr, bytes, Space::Host).map(Hpa),
        }
    }

    /// The address of `bytes` bytes, all within their region, which belongs to this memory.
    fn in_region(&self, expr: &AddrExpr, bytes: u64, space: Space) -> Result<u64, Trouble> {
        let (name, offset) = match &expr.base {
            Base::Abs(address) => return Ok(*address),
            Base::Region { name, offset } => (name, *offset),
        };
        let of = match space {
            Space::Host => "host",
            Space::Guest => "guest",
        };
        let found = self.by_name.get(name.as_str());
        let Some(region) = found.filter(|region| region.space == space) else {
            let here = self.by_name.values().filter(|r| r.space == space);
            let names: Vec<&str> = here.map(|r| r.name.as_str()).take(20).collect();
            let expected = match (names.as_slice(), found) {
                ([], None) => "an address, or a table [regions] that names it".to_owned(),
                ([], Some(_)) => format!("an address, or a region of {of} memory"),
                (names, None) if space == Space::Host => format!("a region: {}", names.join(", ")),
                (names, _) => format!("a region of {of} memory: {}", names.join(", ")),
            };
            return Err(match (found, space) {
                (Some(_), Space::Host) => trouble(format!("`{name}`, guest memory"), expected),
                (Some(_), Space::Guest) => {
                    trouble(format!("`{name}`, host memory, by a guest"), expected)
                }
                (None, _) if name == SHARED => {
                    trouble("`SHARED`, a bit of guest addresses, by no guest", expected)
                }
                (None, _) => trouble(format!("unknown region `{name}`"), expected),
            });
        };
        let size = region.size;
        if offset >= size {
            let expected = format!("an offset below {size:#x}, the size of the region");
            return Err(trouble(format!("`{}`", expr.base), expected));
        }
        if bytes > size - offset {
            let found = format!("{bytes} bytes from `{}`", expr.base);
            let expected = format!("an access that ends within `{name}`, {size:#x} bytes");
            return Err(trouble(found, expected));
        }
        match region.base.checked_add(offset) {
            Some(address) => Ok(address),
            None => Err(trouble(format!("`{}`", expr.base), "an address below 2^64")),
        }
    }
}

/// How many bytes each address operand covers, in the order of the text. 1 where any byte of the line will do.
pub(super) fn extents(op: &TextOp) -> [u64; 2] {
    let first = match op {
        Op::Load { bytes, .. }
        | Op::Store { bytes, .. }
        | Op::NtStore { bytes, .. }
        | Op::Movdiri { bytes, .. }
        | Op::RepStosb { bytes, .. }
        | Op::LockXadd { bytes, .. }
        | Op::DmaRead { bytes, .. }
        | Op::DmaWrite { bytes, .. } => u64::from(*bytes),
        Op::Movdir64b { .. } => 64,
        Op::Movdir64bPage { .. } => 4096,
        _ => 1,
    };
    let second = if matches!(op, Op::Movdir64b { src: Source::Mem(_), .. }) { 64 } else { 1 };
    [first, second]
}

/// Where the address operands of an operation stand: from bracket to bracket.
pub(super) fn operand_spans(
    src: &SourceFile,
    op: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    let start = op.start;
    let text = src.text().get(op).unwrap_or("");
    text.match_indices('[').map(move |(at, _)| {
        let len = text.get(at..).and_then(|rest| rest.find(']')).map_or(1, |n| n + 1);
        start + at..start + at + len
    })
}

/// Where the register operand number `index` stands, in the order of [`CallRegs::NAMES`]; of an operation with one such
/// operand, its last word.
pub(super) fn register_span(
    src: &SourceFile,
    op: &TextOp,
    at: Range<usize>,
    index: usize,
) -> Range<usize> {
    let text = src.text().get(at.clone()).unwrap_or("");
    let start = match op {
        Op::MovCr3 { .. } => text.find([' ', '\t']).map(|n| n + 1),
        _ => CallRegs::NAMES.get(index).and_then(|name| {
            let mut hits = text.match_indices(name);
            // `r1=` is no register and `rcx` no region with `=` behind it, so that this is the operand.
            let hit =
                hits.find(|(n, _)| text.get(n + name.len()..).is_some_and(|t| t.starts_with('=')));
            hit.map(|(n, _)| n)
        }),
    };
    let Some(start) = start else { return at };
    let rest = text.get(start..).unwrap_or("");
    let bracket = rest.find(']').filter(|end| {
        rest.get(..*end).is_some_and(|t| {
            // The operand's own bracket, not a later one's.
            t.find('[').is_some_and(|open| t.get(..open).is_some_and(|t| !t.contains([' ', '\t'])))
        })
    });
    let from = bracket.unwrap_or(0);
    let len = rest.get(from..).and_then(|t| t.find([' ', '\t'])).map_or(rest.len(), |n| from + n);
    at.start + start..at.start + start + len
}

struct Binder<'a> {
    scenario: &'a Scenario,
    spec: &'a PlatformSpec,
    regions: Regions<'a>,
}

impl Binder<'_> {
    fn diag(&self, span: Range<usize>, t: Trouble) -> Diag {
        self.scenario.source.diag(span, t.found, t.expected)
    }
    fn place(&self, at: Place) -> (u32, u32) {
        self.scenario.source.line_column(at.span().start)
    }

    /// A KeyID by number: whether it fits the platform's field is for the caller to check.
    fn key_number(&self, key: KeyRef) -> Result<u32, Trouble> {
        let layout = &self.spec.keyid;
        let (found, count, kind) = match key {
            KeyRef::Num(n) => return Ok(n),
            KeyRef::Private(n) => (layout.private(n), layout.tdx_priv_kids, "priv"),
            KeyRef::Shared(n) => (layout.shared(n), layout.mktme_kids, "shared"),
        };
        found.map(|key| u32::from(key.0)).ok_or_else(|| {
            let name = &self.spec.name;
            let expected = match count.checked_sub(1) {
                None => format!("another KeyID: platform {name} has no {kind}N"),
                Some(last) => format!("{kind}0 to {kind}{last} on platform {name}"),
            };
            trouble(format!("`{key}`"), expected)
        })
    }

    /// A KeyID that fits the field of the platform's addresses.
    fn key(&self, key: KeyRef) -> Result<KeyId, Trouble> {
        let n = self.key_number(key)?;
        self.spec.keyid.check(Hpa(0), n).map(|addr| addr.keyid).map_err(beyond)
    }

    /// A private KeyID.
    fn private(&self, key: KeyRef) -> Result<KeyId, Trouble> {
        let found = self.key(key)?;
        let layout = &self.spec.keyid;
        if layout.is_private(found) && layout.is_configured(found) {
            return Ok(found);
        }
        let expected = match layout.tdx_priv_kids.checked_sub(1) {
            None => format!("a platform with private KeyIDs: {} has none", self.spec.name),
            Some(last) => format!("a private KeyID: priv0 to priv{last}"),
        };
        Err(trouble(format!("KeyID {key}"), expected))
    }

    fn addr(&self, expr: &AddrExpr, own: KeyId, bytes: u64) -> Result<Addr, Trouble> {
        let hpa = self.regions.hpa(expr, bytes)?;
        let keyid = match expr.key {
            None => u32::from(own.0),
            Some(key) => self.key_number(key)?,
        };
        let layout = &self.spec.keyid;
        let addr = layout.check(hpa, keyid).map_err(beyond)?;
        let last = hpa.0.checked_add(bytes.saturating_sub(1));
        let last = last.ok_or_else(|| trouble("an access beyond 2^64", "a lower address"))?;
        layout.check(Hpa(last), keyid).map_err(beyond)?;
        Ok(addr)
    }

    fn agent(&self, agent: &Agent) -> Result<AgentSpec, Diag> {
        let cores = self.spec.cpu.cores;
        if let Some(core) = agent.core.filter(|core| *core >= cores) {
            let found = format!("agent `{}` on core {core}", agent.name);
            let expected = format!("a core below {cores}, which is cpu.cores");
            return Err(self.diag(agent.at.span(), trouble(found, expected)));
        }
        let keyid = match agent.keyid {
            None => KeyId::TME,
            Some(key) => self.key(key).map_err(|t| self.diag(agent.at.span(), t))?,
        };
        let vcpu = agent.vcpu.as_ref().map(|vcpu| self.addr(&vcpu.tdvpr, KeyId::TME, 1));
        let vcpu = vcpu.transpose().map_err(|t| self.diag(agent.at.span(), t))?.map(|a| a.hpa);
        if let Some(page) = vcpu.filter(|page| !page.0.is_multiple_of(sim_core::PAGE_BYTES)) {
            let found = format!("TDVPR of `{}` at {page}", agent.name);
            let expected = "the address of a page, a multiple of 4096";
            return Err(self.diag(agent.at.span(), trouble(found, expected)));
        }
        let (name, kind, core) = (agent.name.clone(), agent.kind, agent.core);
        Ok(AgentSpec { name, kind, core, keyid, vcpu })
    }

    /// The number in a register.
    fn reg(&self, expr: &RegExpr, whose: Whose) -> Result<u64, Trouble> {
        let base = match &expr.base {
            RegBase::Num(n) => *n,
            RegBase::Private(n) => self.key_number(KeyRef::Private(*n))?.into(),
            RegBase::Shared(n) => self.key_number(KeyRef::Shared(*n))?.into(),
            RegBase::Place(at) => match self.regions.in_register(whose, at)? {
                Named::Guest(gpa) => gpa,
                Named::Host(_) => self.spec.keyid.join(self.addr(at, KeyId::TME, 1)?),
            },
        };
        Ok(base | expr.or)
    }

    fn op(&self, op: &TextOp, at: Place, whose: Whose, own: KeyId) -> Result<Op, Diag> {
        let mut spans = operand_spans(&self.scenario.source, at.span());
        let mut extents = extents(op).into_iter();
        let registers = Cell::new(0);
        if let Op::WcEvict { core }
        | Op::Drain { core, .. }
        | Op::Irq { core, .. }
        | Op::Starve { core, .. } = op
            && *core >= u32::from(self.spec.cpu.cores)
        {
            let expected = format!("a core below {}, which is cpu.cores", self.spec.cpu.cores);
            return Err(self.diag(at.span(), trouble(format!("core {core}"), expected)));
        }
        op.clone().try_map(
            |expr| {
                let span = spans.next().unwrap_or_else(|| at.span());
                let bytes = extents.next().unwrap_or(1);
                let addr = match whose {
                    Whose::Host => self.addr(&expr, own, bytes),
                    Whose::Guest(gpaw) => {
                        let gpa = self.regions.gpa(&expr, bytes, gpaw);
                        gpa.map(|gpa| Addr::new(Hpa(gpa), KeyId::TME))
                    }
                };
                addr.map_err(|t| self.diag(span, t))
            },
            |key| {
                // PCONFIG itself refuses KeyIDs that the platform does not have (architecture.md §8); only what its
                // operand cannot hold is refused here.
                let n = self.key_number(key).map_err(|t| self.diag(at.span(), t))?;
                let wide = || trouble(format!("KeyID {n}"), "a KeyID of at most 16 bits");
                u16::try_from(n).map(KeyId).map_err(|_| self.diag(at.span(), wide()))
            },
            |expr| {
                let span = || register_span(&self.scenario.source, op, at.span(), registers.get());
                let value = self.reg(&expr, whose).map_err(|t| self.diag(span(), t));
                registers.set(registers.get() + 1);
                value
            },
        )
    }

    fn check(&self, check: &Located<FinalCheck>) -> Result<BoundFinal, Diag> {
        let addr = |expr| self.addr(&expr, KeyId::TME, 1);
        let bound = check.value.clone().try_map(
            |expr| addr(expr).map(|a| a.hpa.line()),
            |expr| addr(expr).map(Addr::tagged),
            |key| self.key(key),
        );
        let bound = bound.map_err(|t| self.diag(check.at.span(), t))?;
        let (line, column) = self.place(check.at);
        Ok(BoundFinal { check: bound, text: check.value.to_string(), line, column })
    }
}

fn beyond(e: AddrError) -> Trouble {
    match e {
        AddrError::BeyondMaxpa { hpa, bits, maxpa, keyid_bits } => trouble(
            format!("address {hpa}"),
            format!("an address of {bits} bits (MAXPA {maxpa} less {keyid_bits} KeyID bits)"),
        ),
        AddrError::KeyIdTooWide { keyid, keyid_bits, max } => {
            trouble(format!("KeyID {keyid}"), format!("a KeyID of {keyid_bits} bits, 0 to {max}"))
        }
    }
}

impl Scenario {
    /// The program on a platform, with the scenario's first kind of cryptography.
    ///
    /// # Errors
    /// What the platform does not have, at its place in the file: an address or KeyID beyond its bits, a `privN` or
    /// `sharedN` too many, a core too many. A private KeyID of an agent outside SEAM is not an error.
    pub fn bind(&self, platform: &PlatformSpec) -> Result<Program, Diag> {
        self.bind_with(platform, self.crypto.first().copied().unwrap_or_default())
    }

    /// [`Scenario::bind`] with a given kind of cryptography, on which refinements may depend.
    ///
    /// # Errors
    /// Those of [`Scenario::bind`].
    pub fn bind_with(&self, platform: &PlatformSpec, crypto: Crypto) -> Result<Program, Diag> {
        let keys = Binder { scenario: self, spec: platform, regions: Regions::of(&[], &[], &[]) };
        let made = self.control_regions()?;
        let laid_out = setup::layout(self, platform, &|key| keys.private(key), made);
        let (setup, made) = laid_out.map_err(|(at, t)| keys.diag(at.span(), t))?;
        let regions = Regions::of(&self.regions, &made, &self.agents);
        let binder = Binder { scenario: self, spec: platform, regions };
        for region in self.regions.iter().filter(|region| region.space == Space::Host) {
            let last = platform.keyid.check(Hpa(region.last()), 0);
            last.map_err(|e| {
                let mut t = beyond(e);
                t.found = format!("region `{}` up to {:#x}", region.name, region.last());
                binder.diag(region.at.span(), t)
            })?;
        }
        let mut agents = Vec::new();
        let mut index_of: BTreeMap<&str, usize> = BTreeMap::new();
        for agent in &self.agents {
            index_of.insert(&agent.name, agents.len());
            agents.push(binder.agent(agent)?);
        }
        let mut counts: Vec<u32> = vec![0; agents.len()];
        let mut saved = 0u16;
        let mut lines = Vec::new();
        for line in &self.program {
            let Line::Op { agent: name, op, at } = line else {
                lines.push(ProgramLine::Barrier);
                continue;
            };
            let agent = match index_of.get(name.as_str()) {
                Some(agent) => *agent,
                None => {
                    let unknown = || trouble(format!("`{name}`"), "an agent");
                    let found = agent_by_name(name, *at);
                    let found = found.ok_or_else(|| binder.diag(at.span(), unknown()))?;
                    index_of.insert(name, agents.len());
                    agents.push(binder.agent(&found)?);
                    counts.push(0);
                    agents.len() - 1
                }
            };
            let own = agents.get(agent).map_or(KeyId::TME, |a| a.keyid);
            let bound = binder.op(op, *at, binder.regions.whose(name), own)?;
            // An attack that never happens would look harmless.
            match bound {
                Op::SaveLine { slot, .. } => saved |= 1 << (slot & 15),
                Op::ReplayLine { slot, .. } if saved >> (slot & 15) & 1 == 0 => {
                    let expected = "a slot that a `save-line` above has filled";
                    return Err(binder.diag(at.span(), trouble(format!("slot {slot}"), expected)));
                }
                _ => {}
            }
            let mut index = 0;
            if let Some(count) = counts.get_mut(agent) {
                *count += 1;
                index = *count;
            }
            let (line, column) = binder.place(*at);
            let text = op.to_string();
            lines.push(ProgramLine::Step(Step { agent, index, op: bound, text, line, column }));
        }

        let checks = self.checks_for(&Part {
            platform: &platform.name,
            integrity: platform.memory.integrity,
            crypto,
            erratum: platform.memory.erratum_pw_mce,
        });
        let (mut expectations, mut allowed) = (Vec::new(), Vec::new());
        let tables =
            [(&checks.expect, false, &mut expectations), (&checks.allow, false, &mut allowed)];
        let mut forbids = Vec::new();
        for (entries, forbidden, out) in
            tables.into_iter().chain([(&checks.forbid, true, &mut forbids)])
        {
            for (StepRef { agent: name, index }, pattern) in entries {
                let agent = index_of.get(name.as_str()).copied();
                let known =
                    agent.filter(|a| counts.get(*a).is_some_and(|n| (1..=*n).contains(index)));
                let agent = known.ok_or_else(|| {
                    let unknown = trouble(format!("`{name}.{index}`"), "a step of the program");
                    binder.diag(pattern.at.span(), unknown)
                })?;
                let (line, column) = binder.place(pattern.at);
                let (index, pattern) = (*index, pattern.value.clone());
                out.push(Expectation { agent, index, pattern, forbidden, line, column });
            }
        }
        expectations.append(&mut forbids);
        let finals = checks.finals.iter().map(|check| binder.check(check));
        let finals = finals.collect::<Result<Vec<_>, Diag>>()?;
        let (name, order) = (self.name.clone(), self.order);
        let host = self.regions.iter().filter(|region| region.space == Space::Host).chain(&made);
        let area = |r: &Region| NamedArea { name: r.name.clone(), base: r.base, size: r.size };
        let areas = host.map(area).collect();
        Ok(Program {
            name,
            order,
            crypto,
            agents,
            lines,
            expectations,
            allowed,
            finals,
            setup,
            areas,
        })
    }
}
