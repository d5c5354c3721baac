//! `[tdx]` and `[td.NAME]`: what the TDX module and its TDs are before the program begins.
//!
//! The file says what is wanted; [`crate::setup`] finds memory for it and makes the calls.

use super::bind::{Regions, Trouble};
use super::check::{address, key_ref};
use super::parse::is_name;
use super::pattern::{PatternError, number, trouble, words};
use super::{Agent, Located, Place, Region, Scenario, Space};
use crate::diag::Diag;
use crate::diag::envelope::{Field, Section};
use serde::{Deserialize, Serialize};
use sim_core::op::{AddrExpr, Base, KeyRef};
use sim_core::units::{Area, parse_areas};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use tdx_module::pamt::{Size, TDMRS_MAX};
use tdx_module::td::{
    ATTRIBUTE_DEBUG, ATTRIBUTE_SEPT_VE_DISABLE, TDCS_MAX, TDCS_MIN, TDVPS_MAX, TDVPS_MIN,
};

/// The most TDs of a scenario.
pub const TDS_MAX: usize = 64;
/// The most pages, and the most tables, of a TD.
pub const TD_PAGES_MAX: usize = 4096;
/// The most VCPUs of a TD.
pub const VCPUS_MAX: u16 = 64;
/// The longest name of a TD: those of its pages begin with it.
const TD_NAME_MAX: usize = 16;

/// What the module is before the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ModuleState {
    /// Loaded, and nothing called: the program brings it up itself.
    #[default]
    Loaded,
    /// Initialised on every logical processor, configured, keyed, every TDMR initialised to its end.
    Ready,
}

impl ModuleState {
    const WORDS: [(ModuleState, &'static str); 2] =
        [(ModuleState::Loaded, "loaded"), (ModuleState::Ready, "ready")];
    /// As the file has it.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}

/// `[tdx]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tdx {
    /// What the module is.
    pub state: ModuleState,
    /// Its TDMRs, in order; where empty one of 1 GiB, the first in convertible memory.
    pub tdmrs: Located<Vec<Area>>,
    /// Where the PAMTs lie; the first free convertible memory behind the TDMRs where absent.
    pub pamt: Option<Located<u64>>,
    /// The global HKID.
    pub global: Located<KeyRef>,
    /// Where the table stands.
    pub at: Place,
}

/// The global HKID that Linux chooses: the first private one.
const GLOBAL: KeyRef = KeyRef::Private(0);

impl Default for Tdx {
    fn default() -> Tdx {
        let (state, pamt, at) = (ModuleState::Loaded, None, Place::default());
        Tdx { state, tdmrs: Vec::new().into(), pamt, global: GLOBAL.into(), at }
    }
}

/// How far a TD is built before the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum TdState {
    /// TDH.MNG.CREATE.
    Created,
    /// Its key is configured on every package.
    Keyed,
    /// TDCS pages, TDH.MNG.INIT, then VCPUs, Secure-EPT and pages as the table says. OP_STATE INITIALIZED.
    Initialized,
    /// TDH.MR.FINALIZE too. OP_STATE RUNNABLE.
    Runnable,
}

impl TdState {
    const WORDS: [(TdState, &'static str); 4] = [
        (TdState::Created, "created"),
        (TdState::Keyed, "keyed"),
        (TdState::Initialized, "initialized"),
        (TdState::Runnable, "runnable"),
    ];
    /// As the file has it.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
}

/// A bit of ATTRIBUTES.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Attribute {
    /// Bit 0: the host may read and write the TD's memory.
    Debug,
    /// Bit 28: an access to a pending page leaves the TD instead of raising #VE.
    SeptVeDisable,
}

impl Attribute {
    const WORDS: [(Attribute, &'static str); 2] =
        [(Attribute::Debug, "debug"), (Attribute::SeptVeDisable, "sept-ve-disable")];
    /// As the file has it.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
    /// The bit.
    pub const fn bit(self) -> u64 {
        match self {
            Attribute::Debug => ATTRIBUTE_DEBUG,
            Attribute::SeptVeDisable => ATTRIBUTE_SEPT_VE_DISABLE,
        }
    }
}

/// How a TD gets a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum How {
    /// TDH.MEM.PAGE.ADD of 4 KiB, with content.
    Add,
    /// TDH.MEM.PAGE.AUG of 4 KiB: it is pending until the guest accepts it.
    Aug,
    /// TDH.MEM.PAGE.AUG of 2 MiB.
    Aug2m,
}

impl How {
    const WORDS: [(How, &'static str); 3] =
        [(How::Add, "add"), (How::Aug, "aug"), (How::Aug2m, "aug-2m")];
    /// As the file has it.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize].1
    }
    /// The level of the Secure-EPT entry.
    pub const fn level(self) -> u8 {
        match self {
            How::Add | How::Aug => 0,
            How::Aug2m => 1,
        }
    }
}

/// Where TDH.MEM.PAGE.ADD takes a page's content from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Content {
    /// A page of the host that holds this byte everywhere.
    Fill(u8),
    /// This page of the host, whatever it holds.
    From(AddrExpr),
}

/// An entry of `pages`: `0x1000 add P0 fill=0x11`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageSpec {
    /// Guest-physical address: a number or a region of guest memory.
    pub gpa: AddrExpr,
    /// How.
    pub how: How,
    /// The host's page.
    pub page: AddrExpr,
    /// Its content, with [`How::Add`].
    pub content: Content,
}

/// An entry of `tables`: `0x200000 1`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSpec {
    /// Guest-physical address: a number or a region of guest memory.
    pub gpa: AddrExpr,
    /// The level of the entry that Secure-EPT pages lead to.
    pub level: u8,
}

/// `[td.NAME]`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Td {
    /// `[A-Za-z_][A-Za-z0-9_]{0,15}`
    pub name: String,
    /// Its HKID.
    pub hkid: Located<KeyRef>,
    /// How far it is built.
    pub state: TdState,
    /// How many VCPUs.
    pub vcpus: u16,
    /// MAX_VCPUS of TD_PARAMS; as many as there are where absent, at least 1.
    pub max_vcpus: Option<u16>,
    /// ATTRIBUTES of TD_PARAMS.
    pub attributes: Vec<Attribute>,
    /// Guest-physical address bits: 48 or 52.
    pub gpaw: u8,
    /// Levels of the Secure-EPT: 4 or 5.
    pub levels: u8,
    /// Its pages, in the order in which they are given.
    pub pages: Vec<Located<PageSpec>>,
    /// Secure-EPT without pages.
    pub tables: Vec<Located<TableSpec>>,
    /// Where its name stands.
    pub at: Place,
}

impl fmt::Display for PageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.gpa, self.how.word(), self.page)?;
        match &self.content {
            Content::Fill(0) => Ok(()),
            Content::Fill(byte) => write!(f, " fill={byte:#x}"),
            Content::From(page) => write!(f, " from {page}"),
        }
    }
}

impl fmt::Display for TableSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.gpa, self.level)
    }
}

fn listed<T>(words: &[(T, &'static str)]) -> String {
    words.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}

fn find<T: Copy>(words: &[(T, &'static str)], word: &str) -> Option<T> {
    words.iter().find(|(_, w)| *w == word).map(|(value, _)| *value)
}

/// An address without brackets and KeyID.
fn place(at: usize, word: &str, expected: &str) -> Result<AddrExpr, PatternError> {
    let expr = address(word).filter(|expr| expr.key.is_none());
    expr.ok_or_else(|| trouble(at, word, expected))
}

const GPA: &str = "a guest-physical address: a number such as 0x1000, or a region with gpa";
const HPA: &str = "a page of the host: a region or a number, without KeyID";

impl FromStr for PageSpec {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<PageSpec, PatternError> {
        let mut tokens = words(text);
        let mut next = || tokens.next().unwrap_or((text.len(), ""));
        let (at, word) = next();
        let gpa = place(at, word, GPA)?;
        let (at, word) = next();
        let how = find(&How::WORDS, word);
        let how =
            how.ok_or_else(|| trouble(at, word, format!("one of {}", listed(&How::WORDS))))?;
        let (at, word) = next();
        let page = place(at, word, HPA)?;
        let (at, word) = next();
        let content = match (word, word.strip_prefix("fill=")) {
            ("", _) => Content::Fill(0),
            _ if how != How::Add => return Err(trouble(at, word, "nothing: only add has content")),
            ("from", _) => {
                let (at, word) = next();
                Content::From(place(at, word, HPA)?)
            }
            (_, Some(byte)) => {
                let byte = number(byte).and_then(|n| u8::try_from(n).ok());
                Content::Fill(byte.ok_or_else(|| trouble(at, word, "fill=BYTE, 0 to 255"))?)
            }
            _ => return Err(trouble(at, word, "nothing, fill=BYTE or from PAGE")),
        };
        match next() {
            (_, "") => Ok(PageSpec { gpa, how, page, content }),
            (at, word) => Err(trouble(at, word, "nothing more")),
        }
    }
}

impl FromStr for TableSpec {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<TableSpec, PatternError> {
        let mut tokens = words(text);
        let mut next = || tokens.next().unwrap_or((text.len(), ""));
        let (at, word) = next();
        let gpa = place(at, word, GPA)?;
        let (at, word) = next();
        let level = number(word).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= 3);
        let level = level.ok_or_else(|| trouble(at, word, "the level of an entry, 0 to 3"))?;
        match next() {
            (_, "") => Ok(TableSpec { gpa, level }),
            (at, word) => Err(trouble(at, word, "nothing more")),
        }
    }
}

// ------------------------------------------------------------------------------------------------------------- reading

fn key(field: &Field<'_>) -> Result<Located<KeyRef>, Diag> {
    let expected = "a KeyID as text: privN or a number";
    let text = field.text(expected)?;
    let value = key_ref(text.value).ok_or_else(|| text.bad(expected))?;
    Ok(Located { value, at: Place::new(text.span) })
}

/// A small number of a table.
fn count(section: &Section<'_>, name: &str, range: [u16; 2]) -> Result<Option<u16>, Diag> {
    let Some(field) = section.field(name) else { return Ok(None) };
    let [low, high] = range;
    let n = field.integer().and_then(|n| u16::try_from(n).ok());
    let n = n.filter(|n| (low..=high).contains(n));
    n.map(Some).ok_or_else(|| field.wrong(&format!("a number, {low} to {high}")))
}

/// One of two numbers.
fn either(section: &Section<'_>, name: &str, of: [u8; 2]) -> Result<Option<u8>, Diag> {
    let Some(field) = section.field(name) else { return Ok(None) };
    let n = field.integer().and_then(|n| u8::try_from(n).ok()).filter(|n| of.contains(n));
    n.map(Some).ok_or_else(|| field.wrong(&format!("{} or {}", of[0], of[1])))
}

/// `[tdx]`
pub(super) fn tdx(section: &Section<'_>, at: Place) -> Result<Tdx, Diag> {
    section.only(&["state", "tdmrs", "pamt", "global"])?;
    let mut tdx = Tdx { at, ..Tdx::default() };
    if let Some(field) = section.field("state") {
        let expected = format!("one of {}", listed(&ModuleState::WORDS));
        let text = field.text(&expected)?;
        tdx.state =
            find(&ModuleState::WORDS, text.value).ok_or_else(|| text.bad(expected.as_str()))?;
    }
    if let Some(field) = section.field("tdmrs") {
        let expected = "ranges as text, such as \"0x100000000-0x140000000\"";
        let text = field.text(expected)?;
        let areas = parse_areas(text.value).ok().filter(|areas| !areas.is_empty());
        let areas = areas.ok_or_else(|| text.bad(expected))?;
        if areas.len() > TDMRS_MAX {
            return Err(text.bad(format!("at most {TDMRS_MAX} TDMRs")));
        }
        let gib = Size::Huge.bytes();
        let aligned = |a: &Area| a.base.is_multiple_of(gib) && a.end.is_multiple_of(gib);
        if let Some(area) = areas.iter().find(|a| !aligned(a)) {
            return Err(field.bad(format!("TDMR {area}"), "whole GiB from a multiple of 1 GiB"));
        }
        if areas.windows(2).any(|pair| matches!(pair, [a, b] if a.end > b.base)) {
            return Err(text.bad("TDMRs that rise and do not overlap"));
        }
        tdx.tdmrs = Located { value: areas, at: Place::new(text.span) };
    }
    if let Some(field) = section.field("pamt") {
        let expected = "an address as text, in hexadecimal such as \"0x180000000\"";
        let text = field.text(expected)?;
        let value = number(text.value).filter(|_| text.value.starts_with("0x"));
        let value = value.ok_or_else(|| text.bad(expected))?;
        if !value.is_multiple_of(Size::Small.bytes()) {
            return Err(text.bad("a multiple of 4096"));
        }
        tdx.pamt = Some(Located { value, at: Place::new(text.span) });
    }
    if let Some(field) = section.field("global") {
        tdx.global = key(&field)?;
    }
    if tdx.state == ModuleState::Loaded
        && let Some(field) = ["tdmrs", "pamt", "global"].iter().find_map(|k| section.field(k))
    {
        let found = format!("`{}` of a module that is only loaded", field.key);
        return Err(field.bad_key_found(&found, "`state = \"ready\"`, or no such key"));
    }
    Ok(tdx)
}

/// `[td.*]`
pub(super) fn tds(section: &Section<'_>, module: Option<&Tdx>) -> Result<Vec<Td>, Diag> {
    let mut tds = Vec::new();
    for field in section.fields() {
        if !is_name(field.key) || field.key.len() > TD_NAME_MAX {
            return Err(field.bad_key(&format!(
                "a name of A-Z, a-z, 0-9 and _, at most {TD_NAME_MAX}, not starting with a digit"
            )));
        }
        if tds.len() == TDS_MAX {
            return Err(field.bad_key(&format!("at most {TDS_MAX} TDs")));
        }
        if module.is_none_or(|module| module.state != ModuleState::Ready) {
            let found = format!("TD `{}` of a module that is only loaded", field.key);
            return Err(field.bad_key_found(&found, "a table [tdx] with `state = \"ready\"`"));
        }
        tds.push(td(&field)?);
    }
    Ok(tds)
}

/// A guest that is a VCPU of one of the TDs has that TD's guest-physical addresses.
pub(super) fn widths(tds: &[Td], agents: &mut [Agent]) {
    for vcpu in agents.iter_mut().filter_map(|agent| agent.vcpu.as_mut()) {
        let Base::Region { name, .. } = &vcpu.tdvpr.base else { continue };
        if let Some(td) = tds.iter().find(|td| td.claims(name)) {
            vcpu.gpaw = td.gpaw;
        }
    }
}

fn td(field: &Field<'_>) -> Result<Td, Diag> {
    let table = field.section("a table [td.NAME]")?;
    let built = ["vcpus", "max-vcpus", "attributes", "gpaw", "levels", "pages", "tables"];
    let keys: Vec<&str> = ["hkid", "state"].into_iter().chain(built).collect();
    table.only(&keys)?;
    let expected = format!("one of {}", listed(&TdState::WORDS));
    let text = table.required("state", "`state = \"runnable\"`")?.text(&expected)?;
    let state = find(&TdState::WORDS, text.value).ok_or_else(|| text.bad(expected.as_str()))?;
    if state < TdState::Initialized
        && let Some(field) = built.iter().find_map(|k| table.field(k))
    {
        let found = format!("`{}` of a TD that is only {}", field.key, state.word());
        return Err(field.bad_key_found(&found, "a TD that is initialized or runnable"));
    }
    let mut td = Td {
        name: field.key.to_owned(),
        hkid: key(&table.required("hkid", "`hkid = \"priv1\"`")?)?,
        state,
        vcpus: count(&table, "vcpus", [0, VCPUS_MAX])?.unwrap_or(1),
        max_vcpus: count(&table, "max-vcpus", [1, u16::MAX])?,
        attributes: Vec::new(),
        gpaw: either(&table, "gpaw", [48, 52])?.unwrap_or(48),
        levels: 4,
        pages: Vec::new(),
        tables: Vec::new(),
        at: Place::new(field.key_span.clone()),
    };
    // 52 bits of guest-physical address take five levels.
    let usual = if td.gpaw == 52 { 5 } else { 4 };
    td.levels = either(&table, "levels", [4, 5])?.unwrap_or(usual);
    if let Some(field) = table.field("attributes") {
        let expected = format!("a list of {}", listed(&Attribute::WORDS));
        for text in field.texts(false, &expected)? {
            let attribute = find(&Attribute::WORDS, text.value);
            let attribute = attribute.ok_or_else(|| text.bad(expected.as_str()))?;
            if td.attributes.contains(&attribute) {
                return Err(text.bad("each attribute once"));
            }
            td.attributes.push(attribute);
        }
    }
    td.pages = entries(&table, "pages", "a list of text such as [\"0x0 add P0\"]")?;
    td.tables = entries(&table, "tables", "a list of text such as [\"0x200000 1\"]")?;
    Ok(td)
}

/// The entries of a list, each read by its own grammar.
fn entries<T: FromStr<Err = PatternError>>(
    table: &Section<'_>,
    name: &str,
    expected: &str,
) -> Result<Vec<Located<T>>, Diag> {
    let Some(field) = table.field(name) else { return Ok(Vec::new()) };
    let texts = field.texts(false, expected)?;
    if texts.len() > TD_PAGES_MAX {
        return Err(
            field.bad(format!("{} entries", texts.len()), format!("at most {TD_PAGES_MAX}"))
        );
    }
    let read = |text: &crate::diag::envelope::Text<'_>| {
        let bad = |e: PatternError| text.bad_at(e.at..e.at + e.len, e.found, e.expected);
        let value = text.value.parse().map_err(bad)?;
        Ok(Located { value, at: Place::new(text.span.clone()) })
    };
    texts.iter().map(read).collect()
}

// --------------------------------------------------------------------------------------------- what the tables stand for

/// What of a TD's table depends on the regions of guest memory: where its entries are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Guest-physical address of each of [`Td::pages`].
    pub(crate) pages: Vec<u64>,
    /// The Secure-EPT pages to add, in order: guest-physical address and level of the entry that each fills.
    pub(crate) tables: Vec<(u64, u8)>,
}

/// What is wrong, and where.
pub(crate) type Misplaced = (Place, Trouble);

impl Td {
    /// The Secure-EPT pages that the TD's pages and tables need, from the top down, none twice, in the order of the file.
    pub(crate) fn shape(&self, regions: &Regions<'_>) -> Result<Shape, Misplaced> {
        let gpa = |expr: &AddrExpr, at: Place, level: u8| {
            let gpa = regions.gpa(expr, 1, self.gpaw).map_err(|t| (at, t))?;
            let bytes = 4096u64 << (9 * level);
            if !gpa.is_multiple_of(bytes) {
                let found = format!("guest-physical address {gpa:#x}");
                return Err((at, Trouble::new(found, format!("a multiple of {bytes:#x}"))));
            }
            Ok(gpa)
        };
        let mut pages = Vec::new();
        let mut wanted = Vec::new();
        for page in &self.pages {
            let level = page.value.how.level();
            let gpa = gpa(&page.value.gpa, page.at, level)?;
            pages.push(gpa);
            wanted.push((gpa, level));
        }
        for table in &self.tables {
            wanted.push((gpa(&table.value.gpa, table.at, 0)?, table.value.level));
        }
        let mut there = BTreeSet::new();
        let mut tables = Vec::new();
        for (gpa, level) in wanted {
            for at in (level + 1..self.levels).rev() {
                let shift = 12 + 9 * u32::from(at);
                let entry = (gpa >> shift << shift, at);
                if there.insert(entry) {
                    tables.push(entry);
                }
            }
        }
        Ok(Shape { pages, tables })
    }

    /// The names of the TD's control pages, in the order in which they are given memory.
    pub(crate) fn control_pages(&self, shape: &Shape) -> Vec<String> {
        let name = &self.name;
        let mut names = vec![format!("{name}_TDR")];
        if self.state >= TdState::Initialized {
            names.extend((0..TDCS_MIN).map(|i| format!("{name}_TDCS{i}")));
            for vcpu in 0..self.vcpus {
                names.push(format!("{name}_VP{vcpu}"));
                names.extend((1..TDVPS_MIN).map(|i| format!("{name}_VP{vcpu}_{i}")));
            }
            names.extend((0..shape.tables.len()).map(|i| format!("{name}_SEPT{i}")));
        }
        names
    }

    /// Whether a region's name could be that of one of this TD's control pages.
    fn claims(&self, region: &str) -> bool {
        let Some(rest) = region.strip_prefix(&self.name).and_then(|r| r.strip_prefix('_')) else {
            return false;
        };
        let below = |text: &str, limit: usize| text.parse::<usize>().is_ok_and(|n| n < limit);
        rest == "TDR"
            || rest.strip_prefix("TDCS").is_some_and(|n| below(n, TDCS_MAX))
            || rest.strip_prefix("SEPT").is_some_and(|n| below(n, usize::MAX))
            || rest.strip_prefix("VP").is_some_and(|vp| {
                let (vcpu, page) = vp.split_once('_').unwrap_or((vp, "0"));
                below(vcpu, usize::from(VCPUS_MAX)) && below(page, TDVPS_MAX)
            })
    }
}

impl Scenario {
    /// The regions that the TDs' control pages are, without their addresses: those depend on the platform.
    pub(crate) fn control_regions(&self) -> Result<Vec<Region>, Diag> {
        let own = Regions::of(&self.regions, &[], &self.agents);
        let mut made = Vec::new();
        for td in &self.tds {
            let diag = |(at, t): Misplaced| self.source.diag(at.span(), t.found, t.expected);
            let shape = td.shape(&own).map_err(diag)?;
            for page in &td.pages {
                let mut named = vec![&page.value.page];
                if let Content::From(from) = &page.value.content {
                    named.push(from);
                }
                for expr in named {
                    let bytes = 4096u64 << (9 * page.value.how.level());
                    own.hpa(expr, bytes).map_err(|t| diag((page.at, t)))?;
                }
            }
            if let Some(region) = self.regions.iter().find(|r| td.claims(&r.name)) {
                let found = format!("region `{}`", region.name);
                let expected = format!("another name: TD `{}` names its pages so", td.name);
                return Err(self.source.diag(region.at.span(), found, expected));
            }
            let at = td.at;
            made.extend(td.control_pages(&shape).into_iter().map(|name| {
                let (space, size) = (Space::Host, Size::Small.bytes());
                Region { name, space, base: 0, size, at }
            }));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = made.iter().find(|region| !names.insert(region.name.as_str())) {
            let found = format!("a second page `{}`", twice.name);
            return Err(self.source.diag(twice.at.span(), found, "another name of the TD"));
        }
        Ok(made)
    }
}

// ------------------------------------------------------------------------------------------------------------ printing

impl Tdx {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        use fmt::Write;
        writeln!(out, "\n[tdx]\nstate = \"{}\"", self.state.word())?;
        if !self.tdmrs.value.is_empty() {
            let areas: Vec<String> = self.tdmrs.value.iter().map(Area::to_string).collect();
            writeln!(out, "tdmrs = \"{}\"", areas.join(" "))?;
        }
        if let Some(pamt) = &self.pamt {
            writeln!(out, "pamt = \"{:#x}\"", pamt.value)?;
        }
        if self.global.value != GLOBAL {
            writeln!(out, "global = \"{}\"", self.global.value)?;
        }
        Ok(())
    }
}

impl Td {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        use fmt::Write;
        writeln!(out, "\n[td.{}]\nhkid = \"{}\"", self.name, self.hkid.value)?;
        writeln!(out, "state = \"{}\"", self.state.word())?;
        if self.state < TdState::Initialized {
            return Ok(());
        }
        if self.vcpus != 1 {
            writeln!(out, "vcpus = {}", self.vcpus)?;
        }
        if let Some(max) = self.max_vcpus {
            writeln!(out, "max-vcpus = {max}")?;
        }
        if !self.attributes.is_empty() {
            let words = self.attributes.iter().map(|a| format!("\"{}\"", a.word()));
            writeln!(out, "attributes = [{}]", words.collect::<Vec<_>>().join(", "))?;
        }
        if self.gpaw != 48 {
            writeln!(out, "gpaw = {}", self.gpaw)?;
        }
        let usual = if self.gpaw == 52 { 5 } else { 4 };
        if self.levels != usual {
            writeln!(out, "levels = {}", self.levels)?;
        }
        let lists: [(&str, Vec<String>); 2] = [
            ("pages", self.pages.iter().map(|p| p.value.to_string()).collect()),
            ("tables", self.tables.iter().map(|t| t.value.to_string()).collect()),
        ];
        for (name, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
            let list: Vec<String> = list.iter().map(|text| format!("\"{text}\"")).collect();
            writeln!(out, "{name} = [{}]", list.join(", "))?;
        }
        Ok(())
    }
}
