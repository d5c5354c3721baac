//! From text to [`Scenario`]. Everything that does not depend on the platform is checked here.

use super::bind::{Regions, operand_spans, register_span};
use super::check::{FinalCheck, address, key_ref};
use super::pattern::{Pattern, PatternError, number};
use super::{
    AGENTS_MAX, Agent, AgentKind, Checks, Crypto, GPAW, Line, Located, Order, Part, Place,
    REGIONS_MAX, Refinement, Region, SHARED, STEPS_MAX, Scenario, Space, StepRef, Vcpu,
};
use crate::diag::envelope::{Envelope, Field, Section, Text};
use crate::diag::{Diag, SourceFile};
use crate::platform::{Override, preset, preset_list};
use sim_core::Op;
use sim_core::op::{RegBase, TextOp};
use sim_core::platform::IntegrityMode;
use sim_core::units::{clip, parse_size};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

/// One kind of agent: a row of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentForm {
    /// The kind.
    pub kind: AgentKind,
    /// What undeclared agents of the kind are called: this and the number of the core or device. `None` where the
    /// kind must be declared.
    pub prefix: Option<&'static str>,
    /// What the agent is.
    pub meaning: &'static str,
    /// Where the notion comes from.
    pub cite: &'static str,
}

const fn a(
    kind: AgentKind,
    prefix: Option<&'static str>,
    meaning: &'static str,
    cite: &'static str,
) -> AgentForm {
    AgentForm { kind, prefix, meaning, cite }
}

/// Every kind of agent.
#[rustfmt::skip]
pub const AGENT_KINDS: &[AgentForm] = &[
    a(AgentKind::Kernel, Some("cpu"),  "host kernel on core N",                 "architecture.md §2.5 row 1"),
    a(AgentKind::User,   Some("user"), "host user process on core N",           "architecture.md §2.5 row 1"),
    a(AgentKind::Seam,   Some("seam"), "SEAM root (TDX module) on core N",      "architecture.md §2.5 row 2"),
    a(AgentKind::Td,     None,         "SEAM non-root (a TD) on its core",      "architecture.md §2.5 row 3"),
    a(AgentKind::Guest,  None,         "a VCPU of a TD, on the core that has entered it; its addresses are guest addresses", "architecture.md §2.5 rows 3 to 5, §7.9"),
    a(AgentKind::Device, Some("dma"),  "device N",                              "architecture.md §2.5 row 6"),
    a(AgentKind::Hardware,     Some("hw"),   "the hardware's choices, faults and attacks; there is one, without number", "verification.md §1.3"),
];

/// [`AGENT_KINDS`] as a table of the manual.
pub fn agent_kinds_markdown() -> String {
    let mut out = "| kind | undeclared name | meaning | source |\n|---|---|---|---|\n".to_owned();
    for row in AGENT_KINDS {
        let name = match row.prefix {
            None => "must be declared".to_owned(),
            Some(prefix) if row.kind == AgentKind::Hardware => format!("`{prefix}`"),
            Some(prefix) => format!("`{prefix}N`"),
        };
        out.push_str(&format!("| {} | {name} | {} | {} |\n", row.kind, row.meaning, row.cite));
    }
    out
}

/// The agent that a name stands for where it is not declared.
pub(super) fn agent_by_name(name: &str, at: Place) -> Option<Agent> {
    let make = |kind, core| {
        let name = name.to_owned();
        Agent { name, kind, core, keyid: None, vcpu: None, at }
    };
    for row in AGENT_KINDS {
        let Some(rest) = row.prefix.and_then(|prefix| name.strip_prefix(prefix)) else { continue };
        if row.kind == AgentKind::Hardware {
            if rest.is_empty() {
                return Some(make(row.kind, None));
            }
            continue;
        }
        let plain = rest == "0" || (!rest.starts_with('0') && !rest.starts_with('+'));
        let Some(n) = rest.parse::<u16>().ok().filter(|_| plain) else { continue };
        return Some(make(row.kind, row.kind.has_core().then_some(n)));
    }
    None
}

/// Whether a kind of agent can do an operation, and what to say if not.
pub(super) fn may(kind: AgentKind, op: &TextOp) -> Result<(), &'static str> {
    // Exhaustive, so that a new operation is put somewhere.
    let (fits, whose) = match op {
        Op::Delay { .. } => (true, ""),
        Op::DmaRead { .. } | Op::DmaWrite { .. } => {
            (kind == AgentKind::Device, "an agent `dmaN` for this operation")
        }
        Op::Evict { .. }
        | Op::WriteBack { .. }
        | Op::Drain { .. }
        | Op::WcEvict { .. }
        | Op::FlipBit { .. }
        | Op::FlipTd { .. }
        | Op::MoveLine { .. }
        | Op::SaveLine { .. }
        | Op::ReplayLine { .. }
        | Op::InjectUe { .. } => (kind == AgentKind::Hardware, "the agent `hw` for this operation"),
        Op::Load { .. }
        | Op::Fetch { .. }
        | Op::Prefetch { .. }
        | Op::Store { .. }
        | Op::NtStore { .. }
        | Op::Movdiri { .. }
        | Op::Movdir64b { .. }
        | Op::Movdir64bPage { .. }
        | Op::RepStosb { .. }
        | Op::LockXadd { .. }
        | Op::Clflush { .. }
        | Op::Clflushopt { .. }
        | Op::Clwb { .. }
        | Op::Wbinvd
        | Op::Wbnoinvd
        | Op::Wbinvdp { .. }
        | Op::Wbnoinvdp { .. }
        | Op::Mfence
        | Op::Sfence
        | Op::Lfence
        | Op::Pconfig { .. } => {
            let fits = kind.has_core() || kind == AgentKind::Guest;
            (fits, "an agent on a core for this operation")
        }
        Op::Interrupt => (kind.has_core(), "an agent on a core for this operation"),
        Op::Seamcall { .. } => (
            matches!(kind, AgentKind::Kernel | AgentKind::User),
            "a host agent, cpuN or userN, for this operation",
        ),
        Op::Wrmsr { .. } | Op::SeamldrInstall => {
            (kind == AgentKind::Kernel, "an agent `cpuN` for this operation")
        }
        // An interprocessor interrupt by a kernel.
        Op::Irq { .. } => (
            matches!(kind, AgentKind::Kernel | AgentKind::Hardware),
            "an agent `cpuN` or `hw` for this operation",
        ),
        Op::Starve { .. } => (kind == AgentKind::Hardware, "the agent `hw` for this operation"),
        Op::Tdcall { .. } | Op::MovCr3 { .. } | Op::Invlpg { .. } => {
            (kind == AgentKind::Guest, "an agent of kind guest for this operation")
        }
    };
    match (fits, kind) {
        (true, _) => Ok(()),
        (false, AgentKind::Hardware) => {
            Err("a choice of the hardware, a fault, an attack, irq or delay")
        }
        (false, AgentKind::Device) => Err("dma-read, dma-write or delay"),
        (false, AgentKind::Guest) => Err("an instruction that a guest can run, tdcall or delay"),
        (false, _) => Err(whose),
    }
}

/// `[A-Za-z_][A-Za-z0-9_]{0,31}`
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

const NAME: &str = "a name of A-Z, a-z, 0-9 and _, at most 32, not starting with a digit";

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// What is wrong with the file, at its place. What depends on the platform is found by [`Scenario::bind`].
    pub fn parse(source: SourceFile) -> Result<Scenario, Diag> {
        read(&source)
    }

    /// Reads a scenario from text.
    ///
    /// # Errors
    /// Those of [`SourceFile::from_bytes`] and [`Scenario::parse`].
    pub fn from_text(name: &str, text: &str) -> Result<Scenario, Diag> {
        Scenario::parse(SourceFile::from_bytes(name, text.as_bytes())?)
    }
}

fn read(src: &SourceFile) -> Result<Scenario, Diag> {
    let envelope = Envelope::parse(src)?;
    let root = envelope.root();
    root.only(&[
        "scenario", "regions", "agents", "tdx", "td", "expect", "forbid", "allow", "when",
    ])?;
    let head = root.required("scenario", "a table [scenario]")?.section("a table [scenario]")?;
    head.only(&[
        "name",
        "title",
        "cite",
        "platform",
        "integrity",
        "order",
        "crypto",
        "set",
        "program",
    ])?;
    let mut scenario = Scenario::new("", "", "");
    scenario.name = name(&head)?;
    scenario.title = one_line(&head.required("title", "`title = \"one line\"`")?, 200)?;
    scenario.cite = cite(&head)?;
    let platform = head.required("platform", "`platform = \"spr\"`")?;
    scenario.platforms = platforms(&platform)?;
    if let Some(field) = head.field("integrity") {
        scenario.integrity = integrity(&field)?;
    }
    if let Some(field) = head.field("crypto") {
        scenario.crypto = crypto(&field)?;
    }
    if let Some(field) = head.field("order") {
        let expected = format!("one of {}", listed(Order::ALL));
        let text = field.text(&expected)?;
        scenario.order = Order::from_word(text.value).ok_or_else(|| text.bad(&expected))?;
    }
    if let Some(field) = head.field("set") {
        scenario.set = set(src, &field)?;
    }
    if let Some(field) = root.field("regions") {
        scenario.regions = regions(&field.section("a table [regions]")?)?;
    }
    if let Some(field) = root.field("agents") {
        scenario.agents = agents(&field.section("a table [agents]")?)?;
    }
    if let Some(field) = root.field("tdx") {
        let at = Place::new(field.key_span.clone());
        scenario.tdx = Some(super::tdx::tdx(&field.section("a table [tdx]")?, at)?);
    }
    if let Some(field) = root.field("td") {
        scenario.tds = super::tdx::tds(&field.section("tables [td.NAME]")?, scenario.tdx.as_ref())?;
        super::tdx::widths(&scenario.tds, &mut scenario.agents);
    }
    let program = head.required("program", "`program = '''…'''`")?;
    scenario.program = program_lines(src, &program, &scenario.agents)?;
    let steps = Steps::of(&scenario.program);

    if let Some(field) = root.field("expect") {
        let section = field.section("a table [expect]")?;
        scenario.checks.expect = outcomes(&section, &steps, true)?;
        scenario.checks.finals = finals(&section)?.unwrap_or_default();
    }
    if let Some(field) = root.field("forbid") {
        let section = field.section("a table [forbid]")?;
        scenario.checks.forbid = outcomes(&section, &steps, false)?;
    }
    if let Some(field) = root.field("allow") {
        let section = field.section("a table [allow]")?;
        scenario.checks.allow = outcomes(&section, &steps, false)?;
    }
    if let Some(field) = root.field("when") {
        for section in field.sections("tables [[when]]")? {
            scenario.refinements.push(refinement(&section, &scenario, &steps)?);
        }
    }
    can_fail(&root, &scenario)?;
    scenario.source = src.clone();
    region_names(src, &scenario)?;
    Ok(scenario)
}

/// `a, b, c`
fn listed<T: std::fmt::Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn name(head: &Section<'_>) -> Result<String, Diag> {
    let expected = "a name of a-z, 0-9 and -, 1 to 40 of them";
    let text = head.required("name", "`name = \"short-name\"`")?.text(expected)?;
    let good = (1..=40).contains(&text.value.len())
        && text.value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good { Ok(text.value.to_owned()) } else { Err(text.bad(expected)) }
}

fn line_of(text: &Text<'_>, max: usize) -> Result<String, Diag> {
    let good = !text.value.trim().is_empty()
        && text.value.len() <= max
        && !text.value.chars().any(char::is_control);
    if good {
        Ok(text.value.to_owned())
    } else {
        Err(text.bad(format!("text of one line, 1 to {max} bytes")))
    }
}

fn one_line(field: &Field<'_>, max: usize) -> Result<String, Diag> {
    line_of(&field.text("text of one line")?, max)
}

fn cite(head: &Section<'_>) -> Result<Vec<String>, Diag> {
    let example = "`cite = [\"architecture.md §5.5\"]`";
    let field = head.required("cite", example)?;
    let texts = field.texts(false, "a list of text: where the expectations come from")?;
    if texts.is_empty() {
        return Err(field.bad("an empty list", "at least one citation"));
    }
    texts.iter().map(|text| line_of(text, 400)).collect()
}

/// A list of words, each once, or one word alone.
fn list<T: PartialEq>(
    field: &Field<'_>,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Diag> {
    let texts = field.texts(true, expected)?;
    if texts.is_empty() {
        return Err(field.bad("an empty list", expected));
    }
    let mut values = Vec::new();
    for text in texts {
        let value = read(text.value).ok_or_else(|| text.bad(expected))?;
        if values.contains(&value) {
            return Err(text.bad("each word once"));
        }
        values.push(value);
    }
    Ok(values)
}

fn platforms(field: &Field<'_>) -> Result<Vec<String>, Diag> {
    list(field, &preset_list(), |word| preset(word).map(|p| p.name.to_owned()))
}

fn integrity(field: &Field<'_>) -> Result<Vec<IntegrityMode>, Diag> {
    list(field, "one or both of ci, li", |word| match word {
        "ci" => Some(IntegrityMode::Ci),
        "li" => Some(IntegrityMode::Li),
        _ => None,
    })
}

fn crypto(field: &Field<'_>) -> Result<Vec<Crypto>, Diag> {
    list(field, &format!("one or both of {}", listed(Crypto::ALL)), Crypto::from_word)
}

fn set(src: &SourceFile, field: &Field<'_>) -> Result<Vec<Override>, Diag> {
    let section = field.section("a table such as { \"cpu.cores\" = \"2\" }")?;
    let mut set = Vec::new();
    for entry in section.fields() {
        let value = entry.text("text such as \"true\" or \"4.4ns\"").map_err(|diag| {
            diag.with_help("a parameter's name is one key: quote it, \"cpu.cores\" = \"2\"")
        })?;
        if entry.key == "memory.integrity" {
            let diag = src.diag(entry.key_span, "`memory.integrity`", "another parameter");
            return Err(diag.with_help("say `integrity = \"li\"` in [scenario]"));
        }
        let change = Override::at(src, (entry.key, entry.key_span), (value.value, value.span));
        change.check()?;
        set.push(change);
    }
    Ok(set)
}

fn regions(section: &Section<'_>) -> Result<Vec<Region>, Diag> {
    let mut regions: Vec<(Region, Field<'_>)> = Vec::new();
    let example =
        "a table such as { base = \"0x10000000\", size = \"4KiB\" }, or with gpa for base";
    for field in section.fields() {
        if !is_name(field.key) {
            return Err(field.bad_key(NAME));
        }
        if field.key == SHARED {
            return Err(field.bad_key("another name: SHARED is the SHARED bit of guest addresses"));
        }
        if regions.len() == REGIONS_MAX {
            return Err(field.bad_key(&format!("at most {REGIONS_MAX} regions")));
        }
        let table = field.section(example)?;
        table.only(&["base", "gpa", "size"])?;
        let expected = "an address as text, in hexadecimal such as \"0x10000000\"";
        let (space, base) = match (table.field("gpa"), table.field("base")) {
            (Some(gpa), None) => (Space::Guest, gpa),
            (Some(gpa), Some(_)) => return Err(gpa.bad_key("base or gpa, not both")),
            (None, _) => (Space::Host, table.required("base", expected)?),
        };
        let base = base.text(expected)?;
        let address = number(base.value).filter(|_| base.value.starts_with("0x"));
        let address = address.ok_or_else(|| base.bad(expected))?;
        if address % 64 != 0 {
            return Err(base.bad("a multiple of 64, the size of a line"));
        }
        let expected = "a size as text, such as \"4KiB\"";
        let size = table.required("size", expected)?.text(expected)?;
        let bytes = parse_size(size.value).ok().filter(|n| *n > 0);
        let bytes = bytes.ok_or_else(|| size.bad(expected))?;
        if address.checked_add(bytes).is_none() {
            return Err(size.bad("a region that ends below 2^64"));
        }
        let at = Place::new(field.key_span.clone());
        let region = Region { name: field.key.to_owned(), space, base: address, size: bytes, at };
        regions.push((region, field));
    }
    let host = regions.iter().filter(|(region, _)| region.space == Space::Host);
    let mut sorted: Vec<&(Region, Field<'_>)> = host.collect();
    sorted.sort_by_key(|(region, _)| region.base);
    for pair in sorted.windows(2) {
        let &[(low, low_field), (high, high_field)] = pair else { continue };
        if low.base + low.size > high.base {
            // Point at the one that comes second in the file.
            let (first, second, field) = if low_field.key_span.start < high_field.key_span.start {
                (low, high, high_field)
            } else {
                (high, low, low_field)
            };
            let range = |r: &Region| format!("`{}` ({:#x} to {:#x})", r.name, r.base, r.last());
            let found = format!("region {} overlapping region {}", range(second), range(first));
            return Err(field.bad_key_found(&found, "regions that do not overlap"));
        }
    }
    Ok(regions.into_iter().map(|(region, _)| region).collect())
}

impl Region {
    /// The last byte.
    pub const fn last(&self) -> u64 {
        self.base.saturating_add(self.size.saturating_sub(1))
    }
}

fn agents(section: &Section<'_>) -> Result<Vec<Agent>, Diag> {
    let mut agents = Vec::new();
    let example = "a table such as { kind = \"td\", core = 1, keyid = \"priv1\" }";
    for field in section.fields() {
        if !is_name(field.key) {
            return Err(field.bad_key(NAME));
        }
        if agents.len() == AGENTS_MAX {
            return Err(field.bad_key(&format!("at most {AGENTS_MAX} agents")));
        }
        let table = field.section(example)?;
        table.only(&["kind", "core", "keyid", "vcpu", "gpaw"])?;
        let expected = format!("one of {}", listed(AgentKind::ALL));
        let word = table.required("kind", &expected)?.text(&expected)?;
        let kind = AgentKind::from_word(word.value).ok_or_else(|| word.bad(&expected))?;
        let at = Place::new(field.key_span.clone());
        let fixed = agent_by_name(field.key, at);
        if let Some(fixed) = fixed.as_ref().filter(|fixed| fixed.kind != kind) {
            let expected = format!("`{}`, which `{}` always is", fixed.kind, field.key);
            return Err(word.bad(expected));
        }
        let fixed_core = fixed.and_then(|fixed| fixed.core);
        let core = match table.field("core") {
            Some(core) if !kind.has_core() => {
                return Err(core.wrong(&format!("no core: a {kind} has none")));
            }
            None if !kind.has_core() => None,
            None => {
                let missing = || table.missing("core", "`core = 0`");
                Some(fixed_core.ok_or_else(missing)?)
            }
            Some(core) => {
                let expected = "a core number, 0 to 127";
                let n = core.integer().and_then(|n| u16::try_from(n).ok()).filter(|n| *n < 128);
                let n = n.ok_or_else(|| core.wrong(expected))?;
                if let Some(fixed) = fixed_core.filter(|fixed| *fixed != n) {
                    let expected = format!("core {fixed}, where `{}` always is", field.key);
                    return Err(core.wrong(&expected));
                }
                Some(n)
            }
        };
        let keyid = match table.field("keyid") {
            None if kind == AgentKind::Td => {
                return Err(table.missing("keyid", "`keyid = \"privN\"`: a TD has its own"));
            }
            None => None,
            Some(field) if kind == AgentKind::Guest => {
                return Err(field.wrong("no keyid: a guest's addresses have none"));
            }
            Some(field) => {
                let expected = "a KeyID as text: a number, privN or sharedN";
                let text = field.text(expected)?;
                Some(key_ref(text.value).ok_or_else(|| text.bad(expected))?)
            }
        };
        let vcpu = vcpu(&table, kind)?;
        agents.push(Agent { name: field.key.to_owned(), kind, core, keyid, vcpu, at });
    }
    Ok(agents)
}

/// `vcpu` and `gpaw` of a guest.
fn vcpu(table: &Section<'_>, kind: AgentKind) -> Result<Option<Vcpu>, Diag> {
    if kind != AgentKind::Guest {
        for (field, what) in [("vcpu", "no vcpu"), ("gpaw", "no gpaw")] {
            if let Some(field) = table.field(field) {
                return Err(field.wrong(&format!("{what}: a {kind} is no guest")));
            }
        }
        return Ok(None);
    }
    let expected = "the address of the TDVPR page as text, without KeyID, such as \"VP0\"";
    let text = table.required("vcpu", "`vcpu = \"VP0\"`, its TDVPR page")?.text(expected)?;
    let inner = text.value.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let tdvpr = address(inner.unwrap_or(text.value)).filter(|expr| expr.key.is_none());
    let tdvpr = tdvpr.ok_or_else(|| text.bad(expected))?;
    let gpaw = match table.field("gpaw") {
        None => GPAW,
        Some(field) => match field.integer() {
            Some(48) => 48,
            Some(52) => 52,
            _ => return Err(field.wrong("48 or 52, the guest-physical address bits")),
        },
    };
    Ok(Some(Vcpu { tdvpr, gpaw }))
}

/// What may stand around the parts of a line; CR is half of a line end.
const SPACE: [char; 3] = [' ', '\t', '\r'];

/// The lines of a program, with where each operation stands in the file.
fn program_lines(
    src: &SourceFile,
    field: &Field<'_>,
    declared: &[Agent],
) -> Result<Vec<Line>, Diag> {
    let text = field.text("text: one operation per line")?;
    let Some((start, body)) = text.body() else {
        let diag = src.diag(text.escape(), "an escape in the program", "plain text");
        return Err(diag.with_help("use ''' … ''' around it"));
    };
    let mut known: BTreeMap<String, AgentKind> =
        declared.iter().map(|agent| (agent.name.clone(), agent.kind)).collect();
    let mut lines = Vec::new();
    let mut steps = 0;
    let mut offset = start;
    for whole in body.split('\n') {
        let code = whole.split('#').next().unwrap_or("");
        let at = offset + (code.len() - code.trim_start_matches(SPACE).len());
        offset += whole.len() + 1;
        let code = code.trim_matches(SPACE);
        if code.is_empty() {
            continue;
        }
        if code == "barrier" {
            lines.push(Line::Barrier);
        } else {
            steps += 1;
            lines.push(operation(src, at, code, &mut known)?);
        }
        if steps > STEPS_MAX || lines.len() > 2 * STEPS_MAX {
            let span = at..at + code.len();
            let expected = format!("at most {STEPS_MAX} operations");
            return Err(src.diag(span, "one operation too many", expected));
        }
    }
    if steps == 0 {
        let found = "a program without operations";
        return Err(src.diag(text.span, found, "lines such as `cpu0 : load [P0] 8`"));
    }
    Ok(lines)
}

/// `agent : operation`, which stands at byte `at` of the file.
fn operation(
    src: &SourceFile,
    at: usize,
    code: &str,
    known: &mut BTreeMap<String, AgentKind>,
) -> Result<Line, Diag> {
    let Some((who, what)) = code.split_once(':') else {
        let expected = "`agent : operation`, `barrier` or `# comment`";
        return Err(src.diag(at..at + code.len(), format!("`{}`", clip(code)), expected));
    };
    let agent = who.trim_end_matches(SPACE);
    let agent_span = at..at + agent.len().max(1);
    let kind = match known.get(agent) {
        Some(kind) => *kind,
        None => {
            let Some(found) = agent_by_name(agent, Place::default()) else {
                let expected = "an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]";
                return Err(src.diag(agent_span, format!("`{}`", clip(agent)), expected));
            };
            if known.len() == AGENTS_MAX {
                let expected = format!("at most {AGENTS_MAX} agents");
                return Err(src.diag(agent_span, "one agent too many", expected));
            }
            known.insert(agent.to_owned(), found.kind);
            found.kind
        }
    };
    let text = what.trim_start_matches(SPACE);
    let start = at + (code.len() - text.len());
    let op: TextOp = text.parse().map_err(|e: sim_core::op::OpParseError| {
        let rest = text.get(e.at..).unwrap_or("");
        let len = rest.find([' ', '\t']).unwrap_or(rest.len());
        src.diag(start + e.at..start + e.at + len, e.found, e.expected)
    })?;
    if let Err(expected) = may(kind, &op) {
        let word = text.split([' ', '\t']).next().unwrap_or("");
        let found = format!("`{}` by `{agent}` ({kind})", clip(word));
        return Err(src.diag(start..start + word.len(), found, expected));
    }
    let at = Place::new(start..start + text.len());
    Ok(Line::Op { agent: agent.to_owned(), op, at })
}

/// How many lines each agent has.
pub(super) struct Steps<'a>(BTreeMap<&'a str, u32>);

impl<'a> Steps<'a> {
    pub(super) fn of(program: &'a [Line]) -> Steps<'a> {
        let mut counts = BTreeMap::new();
        for line in program {
            if let Line::Op { agent, .. } = line {
                *counts.entry(agent.as_str()).or_insert(0) += 1;
            }
        }
        Steps(counts)
    }

    /// Reads `cpu1.2`. The error says what is expected.
    fn find(&self, text: &str) -> Result<StepRef, String> {
        let form = "agent.index such as \"cpu1.1\"";
        let (agent, index) = text.rsplit_once('.').ok_or(form)?;
        let Some(count) = self.0.get(agent) else {
            let agents: Vec<&str> = self.0.keys().take(20).copied().collect();
            return Err(format!("an agent of the program: {}", agents.join(", ")));
        };
        let plain = index.chars().all(|c| c.is_ascii_digit()) && !index.starts_with('0');
        match index.parse::<u32>() {
            Ok(n) if plain && n <= *count => Ok(StepRef { agent: agent.to_owned(), index: n }),
            _ => Err(format!("one of its operations, {agent}.1 to {agent}.{count}")),
        }
    }
}

/// An error within a text of the file.
fn within(text: &Text<'_>, e: PatternError) -> Diag {
    text.bad_at(e.at..e.at + e.len, e.found, e.expected)
}

fn outcomes(
    section: &Section<'_>,
    steps: &Steps<'_>,
    with_final: bool,
) -> Result<BTreeMap<StepRef, Located<Pattern>>, Diag> {
    let mut outcomes = BTreeMap::new();
    for field in section.fields() {
        if with_final && field.key == "final" {
            continue;
        }
        let expected = "an outcome as text, such as \"mc srar data-load\"";
        let text = field.text(expected).map_err(|diag| {
            diag.with_help("a step's name is one key: quote it, \"cpu1.1\" = \"data\"")
        })?;
        let step = steps.find(field.key).map_err(|expected| field.bad_key(&expected))?;
        let value: Pattern = text.value.parse().map_err(|e| within(&text, e))?;
        outcomes.insert(step, Located { value, at: Place::new(text.span) });
    }
    Ok(outcomes)
}

fn finals(section: &Section<'_>) -> Result<Option<Vec<Located<FinalCheck>>>, Diag> {
    let Some(field) = section.field("final") else { return Ok(None) };
    let texts = field.texts(false, "a list of text such as [\"poisoned P0\"]")?;
    let read = |text: &Text<'_>| {
        let value: FinalCheck = text.value.parse().map_err(|e| within(text, e))?;
        Ok(Located { value, at: Place::new(text.span.clone()) })
    };
    texts.iter().map(read).collect::<Result<Vec<_>, Diag>>().map(Some)
}

fn refinement(
    section: &Section<'_>,
    scenario: &Scenario,
    steps: &Steps<'_>,
) -> Result<Refinement, Diag> {
    section.only(&["platform", "integrity", "crypto", "erratum", "expect", "forbid", "allow"])?;
    let mut r = Refinement::default();
    if let Some(field) = section.field("platform") {
        r.platforms = platforms(&field)?;
        if let Some(other) = r.platforms.iter().find(|p| !scenario.platforms.contains(p)) {
            let expected = format!("platforms of the scenario: {}", scenario.platforms.join(", "));
            return Err(field.bad(format!("`{other}`"), expected));
        }
    }
    if let Some(field) = section.field("integrity") {
        r.integrity = integrity(&field)?;
        let listed = &scenario.integrity;
        if let Some(other) = r.integrity.iter().find(|m| !listed.is_empty() && !listed.contains(m))
        {
            return Err(field.bad(format!("`{other}`"), "an integrity mode of the scenario"));
        }
    }
    if let Some(field) = section.field("crypto") {
        r.crypto = crypto(&field)?;
        if let Some(other) = r.crypto.iter().find(|c| !scenario.crypto.contains(c)) {
            return Err(field.bad(format!("`{other}`"), "a cryptography of the scenario"));
        }
    }
    if let Some(field) = section.field("erratum") {
        let value = field.boolean().ok_or_else(|| field.wrong("true or false"))?;
        r.erratum = Some(value);
    }
    let everywhere = r.platforms.is_empty() && r.integrity.is_empty() && r.crypto.is_empty();
    if everywhere && r.erratum.is_none() {
        return Err(section.missing("platform", "a platform, integrity, crypto or erratum"));
    }
    if let Some(field) = section.field("expect") {
        let section = field.section("a table [when.expect]")?;
        r.expect = outcomes(&section, steps, true)?;
        r.finals = finals(&section)?;
    }
    if let Some(field) = section.field("forbid") {
        r.forbid = outcomes(&field.section("a table [when.forbid]")?, steps, false)?;
    }
    if let Some(field) = section.field("allow") {
        r.allow = outcomes(&field.section("a table [when.allow]")?, steps, false)?;
    }
    let nothing = r.expect.is_empty() && r.forbid.is_empty() && r.allow.is_empty();
    if nothing && r.finals.is_none() {
        return Err(
            section.missing("expect", "a table [when.expect], [when.forbid] or [when.allow]")
        );
    }
    Ok(r)
}

/// A scenario that expects nothing cannot fail: refused, for every part of the matrix.
fn can_fail(root: &Section<'_>, scenario: &Scenario) -> Result<(), Diag> {
    let both = [IntegrityMode::Ci, IntegrityMode::Li];
    let modes = if scenario.integrity.is_empty() { &both[..] } else { &scenario.integrity };
    for platform in &scenario.platforms {
        for mode in modes {
            for (crypto, erratum) in scenario.crypto.iter().flat_map(|c| [(c, false), (c, true)]) {
                let (integrity, crypto) = (*mode, *crypto);
                let part = Part { platform, integrity, crypto, erratum };
                let checks: Checks = scenario.checks_for(&part);
                if checks.is_empty() {
                    let found = format!("no expectation for {platform}, {mode}, {crypto}");
                    let expected = "at least one: a scenario that expects nothing cannot fail";
                    return Err(match root.field("expect") {
                        Some(field) => field.bad_key_found(&found, expected),
                        None => root.bad(&found, expected),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Every region named exists, and every offset and access stays within it.
fn region_names(src: &SourceFile, scenario: &Scenario) -> Result<(), Diag> {
    let made = scenario.control_regions()?;
    let regions = Regions::of(&scenario.regions, &made, &scenario.agents);
    for line in &scenario.program {
        let Line::Op { agent, op, at } = line else { continue };
        let whose = regions.whose(agent);
        let registers = Cell::new(0);
        let mut spans = operand_spans(src, at.span());
        let extents = super::bind::extents(op);
        let mut extents = extents.into_iter();
        op.clone().try_map(
            |expr| {
                let span: Range<usize> = spans.next().unwrap_or_else(|| at.span());
                let bytes = extents.next().unwrap_or(1);
                let found = regions.of_agent(whose, &expr, bytes);
                found.map_err(|t| src.diag(span, t.found, t.expected))
            },
            Ok,
            |expr| {
                let index = registers.replace(registers.get() + 1);
                let RegBase::Place(place) = &expr.base else { return Ok(()) };
                let found = regions.in_register(whose, place);
                let span = || register_span(src, op, at.span(), index);
                found.map(|_| ()).map_err(|t| src.diag(span(), t.found, t.expected))
            },
        )?;
    }
    for agent in &scenario.agents {
        let Some(vcpu) = &agent.vcpu else { continue };
        let found = regions.hpa(&vcpu.tdvpr, 1);
        found.map_err(|t| src.diag(agent.at.span(), t.found, t.expected))?;
    }
    let refined = scenario.refinements.iter().filter_map(|r| r.finals.as_ref()).flatten();
    for check in scenario.checks.finals.iter().chain(refined) {
        let diag = |t: super::bind::Trouble| src.diag(check.at.span(), t.found, t.expected);
        let line = |expr: sim_core::op::AddrExpr| regions.hpa(&expr, 1).map_err(diag);
        check.value.clone().try_map(line, line, Ok)?;
    }
    Ok(())
}
