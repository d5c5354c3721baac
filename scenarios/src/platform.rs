//! Platform files: presets, files of the user, and `--set` on top.
//!
//! A file gives every parameter of [`PARAMS`] as `{ v = VALUE, src = "WHERE FROM" }`, with `assumed = true` where no
//! source ties the value to the part; or it says `base = "spr"` and gives only the differences. Nothing is accepted
//! that cannot be placed: unknown, missing and duplicate keys, wrong units and types, and values that do not fit each
//! other are refused at line and column (verification.md §4.2).

mod params;
#[cfg(test)]
mod tests;

pub use params::{Kind, PARAMS, Param, params_markdown};

use crate::diag::envelope::{Envelope, Field, Section};
use crate::diag::{Diag, SourceFile, nearest};
use serde::{Deserialize, Serialize};
use sim_core::PlatformSpec;
use sim_core::platform::XorMasks;
use sim_core::units::{self, UnitError};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

/// A preset: a platform file that is part of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preset {
    /// Its name, as `--platform` takes it.
    pub name: &'static str,
    /// Name of its file, for messages.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// The presets. SPR and EMR have the partial-write erratum, GNR has not (architecture.md §5.6).
pub const PRESETS: &[Preset] = &[
    Preset { name: "spr", file: "platforms/spr.toml", text: include_str!("../platforms/spr.toml") },
    Preset { name: "emr", file: "platforms/emr.toml", text: include_str!("../platforms/emr.toml") },
    Preset { name: "gnr", file: "platforms/gnr.toml", text: include_str!("../platforms/gnr.toml") },
];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

/// A platform with the source of each of its numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Platform {
    /// The validated parameters.
    pub spec: PlatformSpec,
    /// Where each comes from, in the order of [`PARAMS`].
    pub params: Vec<ParamRow>,
}

/// One parameter of a loaded platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ParamRow {
    /// Dotted name.
    pub key: String,
    /// The value as it was written, without quotes.
    pub value: String,
    /// Where it comes from; `--set` or the scenario file's name for an override.
    pub source: String,
    /// Whether no source ties the value to this part. Overrides are assumed.
    pub assumed: bool,
}

/// A value that replaces one of the file's, and the place it was written at.
#[derive(Clone, Debug)]
pub struct Override {
    /// Dotted name of the parameter.
    pub key: String,
    /// The new value as text: `8`, `0x82b`, `true`, `4.4ns`, `ci`.
    pub value: String,
    /// What [`ParamRow::source`] says.
    origin: String,
    /// Where key and value stand, as messages that are still without words.
    key_at: Diag,
    value_at: Diag,
}

impl PartialEq for Override {
    /// Equal when they say the same, wherever they were written.
    fn eq(&self, other: &Self) -> bool {
        (&self.key, &self.value) == (&other.key, &other.value)
    }
}
impl Eq for Override {}

impl Override {
    /// `--set key=value` of the command line.
    pub fn set(key: &str, value: &str) -> Override {
        let text = format!("{key}={value}");
        let file = SourceFile::unchecked("--set", &text);
        Override::at(&file, (key, 0..key.len()), (value, key.len() + 1..text.len()))
    }
    /// An entry of a file.
    pub(crate) fn at(
        file: &SourceFile,
        (key, key_at): (&str, Range<usize>),
        (value, value_at): (&str, Range<usize>),
    ) -> Override {
        Override {
            key: key.to_owned(),
            value: value.to_owned(),
            origin: file.name().to_owned(),
            key_at: file.diag(key_at, "", ""),
            value_at: file.diag(value_at, "", ""),
        }
    }
    fn bad_value(&self, found: &str, expected: &str) -> Diag {
        self.value_at.reworded(found, expected)
    }
    /// Checks name and type; ranges are checked when the platform is loaded.
    pub(crate) fn check(&self) -> Result<(&'static Param, Setting), Diag> {
        let param = param(&self.key).ok_or_else(|| {
            let expected = match nearest(&self.key, PARAMS.iter().map(|p| p.key)) {
                Some(near) => format!("a parameter: did you mean `{near}`?"),
                None => "a parameter of `tdxsim platform show`".to_owned(),
            };
            let found = format!("unknown parameter `{}`", units::clip(&self.key));
            self.key_at.reworded(&found, &expected)
        })?;
        let setting = Setting::from_text(param.kind, &self.value).map_err(|expected| {
            self.bad_value(&format!("`{}`", units::clip(&self.value)), &expected)
        })?;
        Ok((param, setting))
    }
}

/// Where a platform comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A preset, by name.
    Preset(String),
    /// A file.
    File(SourceFile),
}

/// The parameter of that name.
pub fn param(key: &str) -> Option<&'static Param> {
    PARAMS.iter().find(|p| p.key == key)
}

/// A value of the right kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Setting {
    Int(u64),
    Bool(bool),
    Text(String),
}

impl Setting {
    /// From the text of an override. The error says what is expected.
    fn from_text(kind: Kind, text: &str) -> Result<Setting, String> {
        match kind {
            Kind::Int(max) => {
                let digits = |text: &str, radix| {
                    // `from_str_radix` would accept a sign.
                    text.starts_with(|c: char| c.is_digit(radix))
                        .then(|| u64::from_str_radix(text, radix).ok())
                        .flatten()
                };
                let n = match text.strip_prefix("0x") {
                    Some(hex) => digits(hex, 16),
                    None => digits(text, 10),
                };
                n.filter(|n| *n <= max).map(Setting::Int).ok_or_else(|| kind.expected())
            }
            Kind::Bool => match text {
                "true" => Ok(Setting::Bool(true)),
                "false" => Ok(Setting::Bool(false)),
                _ => Err(kind.expected()),
            },
            _ => Setting::text(kind, text),
        }
    }
    /// From text with a unit, or a word.
    fn text(kind: Kind, text: &str) -> Result<Setting, String> {
        let unit = |e: UnitError| match e {
            UnitError::Unit { what, units, .. } => {
                format!("a {what} with one of the units {units}")
            }
            UnitError::Number { example, .. } => {
                format!("a decimal number before the unit, such as {example}")
            }
            UnitError::Range { base, .. } => match kind {
                Kind::Frequency => format!("a whole number of {base}, from 1 to 2^64 - 1"),
                Kind::Time => format!("a whole number of {base} below 2^63"),
                _ => format!("a whole number of {base} below 2^64"),
            },
            UnitError::Area { .. } => kind.expected(),
        };
        match kind {
            Kind::Time => units::parse_time(text).map(|_| ()).map_err(unit)?,
            Kind::Size => units::parse_size(text).map(|_| ()).map_err(unit)?,
            Kind::Frequency => units::parse_frequency(text).map(|_| ()).map_err(unit)?,
            Kind::Area => units::parse_area(text).map(|_| ()).map_err(unit)?,
            Kind::Areas => units::parse_areas(text).map(|_| ()).map_err(unit)?,
            // What it says depends on the other parameters: checked with the whole platform.
            Kind::Map => {}
            Kind::Masks => text.parse::<XorMasks>().map(|_| ()).map_err(|_| kind.expected())?,
            Kind::Word(words) if words.contains(&text) => {}
            _ => return Err(kind.expected()),
        }
        Ok(Setting::Text(text.to_owned()))
    }
    /// From a value of a platform file.
    fn from_field(kind: Kind, field: &Field<'_>) -> Result<Setting, Diag> {
        match kind {
            Kind::Int(max) => {
                let n = field.integer().ok_or_else(|| field.wrong(&kind.expected()))?;
                match u64::try_from(n) {
                    Ok(n) if n <= max => Ok(Setting::Int(n)),
                    _ => Err(field.wrong(&kind.expected())),
                }
            }
            Kind::Bool => {
                field.boolean().map(Setting::Bool).ok_or_else(|| field.wrong(&kind.expected()))
            }
            _ => {
                let text = field.text(&kind.expected())?;
                Setting::text(kind, text.value).map_err(|expected| text.bad(expected))
            }
        }
    }
    fn json(&self) -> serde_json::Value {
        match self {
            Setting::Int(n) => (*n).into(),
            Setting::Bool(b) => (*b).into(),
            Setting::Text(t) => t.as_str().into(),
        }
    }
}

/// A parameter while the platform is being put together.
struct Row {
    setting: Setting,
    row: ParamRow,
    /// Where the value stands in the file being read; `None` for one that came with the base.
    at: Option<Range<usize>>,
}

/// A file before its overrides.
struct Draft {
    name: String,
    title: String,
    /// Where the file says `base = …`.
    base_at: Option<Range<usize>>,
    rows: BTreeMap<&'static str, Row>,
}

/// Loads a platform and puts `--set key=value` on top; of two for the same key the later wins.
///
/// # Errors
/// Whatever is wrong with the file or an override, at its place.
pub fn load(origin: &Origin, overrides: &[(String, String)]) -> Result<Platform, Diag> {
    let overrides: Vec<Override> = overrides.iter().map(|(k, v)| Override::set(k, v)).collect();
    load_with(origin, &overrides)
}

/// [`load`] with overrides that know where they were written.
///
/// # Errors
/// Whatever is wrong with the file or an override, at its place.
pub fn load_with(origin: &Origin, overrides: &[Override]) -> Result<Platform, Diag> {
    let preset_file;
    let src = match origin {
        Origin::File(src) => src,
        Origin::Preset(name) => match preset(name) {
            Some(preset) => {
                preset_file = SourceFile::unchecked(preset.file, preset.text);
                &preset_file
            }
            None => {
                let src = SourceFile::unchecked("--platform", name);
                let found = format!("`{}`", units::clip(name));
                return Err(src.diag(0..name.len(), found, preset_list()));
            }
        },
    };
    let mut draft = Draft::read(src, true)?;
    for change in overrides {
        let (param, setting) = change.check()?;
        let row = ParamRow {
            key: param.key.to_owned(),
            value: change.value.clone(),
            source: change.origin.clone(),
            assumed: true,
        };
        draft.rows.insert(param.key, Row { setting, row, at: None });
    }
    draft.finish(src, overrides)
}

/// The platform of a preset with values put on top, without the sources of its numbers: much faster than [`load`], for runs
/// by the thousand.
///
/// # Errors
/// Whatever is wrong with a value, at its place.
pub(crate) fn preset_with(
    name: &str,
    overrides: &[(String, String)],
) -> Result<PlatformSpec, Diag> {
    static BASES: LazyLock<BTreeMap<&str, serde_json::Map<String, serde_json::Value>>> =
        LazyLock::new(|| {
            let base = |p: &Preset| {
                let platform = load(&Origin::Preset(p.name.to_owned()), &[]).ok()?;
                match serde_json::to_value(platform.spec) {
                    Ok(serde_json::Value::Object(map)) => Some((p.name, map)),
                    _ => None,
                }
            };
            PRESETS.iter().filter_map(base).collect()
        });
    let whole = || load(&Origin::Preset(name.to_owned()), overrides).map(|platform| platform.spec);
    // What is not a preset, or does not fit, is said by the reader of files.
    let Some(base) = BASES.get(name) else { return whole() };
    let mut map = base.clone();
    for (key, value) in overrides {
        let change = Override::set(key, value);
        let (param, setting) = change.check()?;
        insert(&mut map, param.key, setting.json());
    }
    match serde_json::from_value::<PlatformSpec>(map.into()) {
        Ok(spec) if spec.validate().is_ok() => Ok(spec),
        _ => whole(),
    }
}

pub(crate) fn preset_list() -> String {
    let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
    format!("one of the platforms {}", names.join(", "))
}

const ROW_FORM: &str = "a table such as { v = 4, src = \"where from\" }";

impl Draft {
    fn read(src: &SourceFile, may_have_base: bool) -> Result<Draft, Diag> {
        let envelope = Envelope::parse(src)?;
        let root = envelope.root();
        let line = |key: &str, example: &str| -> Result<String, Diag> {
            let text = root.required(key, example)?.text("text of one line")?;
            let good = !text.value.is_empty()
                && text.value.len() <= 200
                && !text.value.chars().any(char::is_control);
            if good {
                Ok(text.value.to_owned())
            } else {
                Err(text.bad("text of one line, 1 to 200 bytes"))
            }
        };
        let name = line("name", "`name = \"short-name\"`")?;
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            let text = root.required("name", "")?.text("")?;
            return Err(text.bad("a name of a-z, 0-9 and -"));
        }
        let title = line("title", "`title = \"what the platform stands for\"`")?;
        let mut draft = Draft { name, title, base_at: None, rows: BTreeMap::new() };
        if let Some(field) = root.field("base") {
            let base = field.text(&preset_list())?;
            let found = preset(base.value).filter(|_| may_have_base);
            let found = found.ok_or_else(|| base.bad(preset_list()))?;
            let file = SourceFile::unchecked(found.file, found.text);
            draft.rows = Draft::read(&file, false)?.rows;
            draft.rows.values_mut().for_each(|row| row.at = None);
            draft.base_at = Some(base.span);
        }
        for field in root.fields() {
            if !matches!(field.key, "name" | "title" | "base") {
                draft.take(&field, "")?;
            }
        }
        match PARAMS.iter().find(|p| !draft.rows.contains_key(p.key)) {
            None => Ok(draft),
            Some(missing) => Err(missing_param(&root, missing)),
        }
    }

    /// Takes a parameter, or the parameters of a table.
    fn take(&mut self, field: &Field<'_>, prefix: &str) -> Result<(), Diag> {
        let key = format!("{prefix}{}", field.key);
        if let Some(param) = param(&key) {
            self.rows.insert(param.key, row(param, field)?);
            return Ok(());
        }
        let inner = format!("{key}.");
        if PARAMS.iter().any(|p| p.key.starts_with(&inner)) {
            for field in field.section("a table of parameters")?.fields() {
                self.take(&field, &inner)?;
            }
            return Ok(());
        }
        // Among the keys that could stand here.
        let here = PARAMS.iter().filter_map(|p| p.key.strip_prefix(prefix));
        let mut here: Vec<&str> = here.filter_map(|rest| rest.split('.').next()).collect();
        here.dedup();
        if prefix.is_empty() {
            here.extend(["name", "title", "base"]);
        }
        Err(field.unknown(here.into_iter()))
    }

    fn finish(self, src: &SourceFile, overrides: &[Override]) -> Result<Platform, Diag> {
        let mut json = serde_json::Map::new();
        json.insert("name".to_owned(), self.name.as_str().into());
        json.insert("title".to_owned(), self.title.as_str().into());
        for (key, row) in &self.rows {
            insert(&mut json, key, row.setting.json());
        }
        let spec: PlatformSpec = serde_json::from_value(json.into()).map_err(|e| {
            // Every value was checked against its kind, so this says that PARAMS and PlatformSpec differ.
            src.diag(0..0, e.to_string(), "the parameters of this version")
        })?;
        if let Err(e) = spec.validate() {
            let message = e.to_string();
            let (found, expected) = message.split_once(", expected ").unwrap_or((&message, ""));
            let value = found.split_once(" is ").map_or(found, |(_, value)| value);
            let found = format!("`{}` = {value}", e.key());
            return Err(self.blame(e.key(), src, overrides, &found, expected));
        }
        if let Err(e) = mktme::dram::AddressMap::new(&spec.dram) {
            // "dram.map: found …, expected …": the last of them, as what was found may quote anything.
            let message = e.to_string();
            let (found, expected) = message.rsplit_once(", expected ").unwrap_or((&message, ""));
            let found = found.strip_prefix("dram.map: found ").unwrap_or(found);
            let found = format!("in `dram.map` {found}");
            return Err(self.blame("dram.map", src, overrides, &found, expected));
        }
        let mut rows = self.rows;
        let params = PARAMS.iter().filter_map(|p| rows.remove(p.key)).map(|r| r.row).collect();
        Ok(Platform { spec, params })
    }

    /// Points at the value that does not fit: the override, the file's value, or, when that value came with the base
    /// or the preset, whatever was changed next to it.
    fn blame(
        &self,
        key: &str,
        src: &SourceFile,
        overrides: &[Override],
        found: &str,
        expected: &str,
    ) -> Diag {
        if let Some(change) = overrides.iter().rev().find(|o| o.key == key) {
            return change.bad_value(found, expected);
        }
        let group = key.rsplit_once('.').map_or("", |(group, _)| group);
        let near = |o: &&Override| o.key.rsplit_once('.').is_some_and(|(g, _)| g == group);
        if let Some(change) = overrides.iter().rev().find(near).or(overrides.last()) {
            return change.bad_value(found, expected);
        }
        let own = self.rows.get(key).and_then(|row| row.at.clone());
        let near = || {
            let mut rows = self.rows.iter();
            rows.find_map(|(k, row)| {
                row.at.clone().filter(|_| k.rsplit_once('.').is_some_and(|(g, _)| g == group))
            })
        };
        let place = own.or_else(near).or(self.base_at.clone()).unwrap_or(0..0);
        src.diag(place, found, expected)
    }
}

/// Points at the deepest table of the file in which the parameter should stand.
fn missing_param(root: &Section<'_>, missing: &Param) -> Diag {
    let example = format!("`{} = {{ v = …, src = \"…\" }}`", missing.key);
    let mut section = root.clone();
    for part in missing.key.split('.') {
        match section.field(part).and_then(|f| f.section("").ok()) {
            Some(inner) => section = inner,
            None => break,
        }
    }
    section.missing(missing.key, &example)
}

/// Reads `{ v = …, src = "…", assumed = true }`.
fn row(param: &'static Param, field: &Field<'_>) -> Result<Row, Diag> {
    let table = field.section(ROW_FORM)?;
    table.only(&["v", "src", "assumed"])?;
    let value = table.required("v", ROW_FORM)?;
    let setting = Setting::from_field(param.kind, &value)?;
    let source = table.required("src", ROW_FORM)?.text("text that says where the value is from")?;
    if source.value.trim().is_empty() || source.value.chars().any(char::is_control) {
        return Err(source.bad("text of one line that says where the value is from"));
    }
    let assumed = match table.field("assumed") {
        None => false,
        Some(field) => field.boolean().ok_or_else(|| field.wrong("true or false"))?,
    };
    let shown = match &setting {
        Setting::Text(text) => text.clone(),
        _ => value.raw().to_owned(),
    };
    let key = param.key.to_owned();
    let row = ParamRow { key, value: shown, source: source.value.to_owned(), assumed };
    Ok(Row { setting, row, at: Some(value.span) })
}

/// Puts a value at its dotted place.
fn insert(
    map: &mut serde_json::Map<String, serde_json::Value>,
    key: &str,
    value: serde_json::Value,
) {
    match key.split_once('.') {
        None => {
            map.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = map
                .entry(head)
                .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
            if let serde_json::Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Platform {
    /// The parameters with value, source and whether assumed, as a table of the manual.
    pub fn markdown(&self) -> String {
        let mut out = format!("### `{}`: {}\n\n", self.spec.name, self.spec.title);
        out.push_str("| parameter | value | source | |\n|---|---|---|---|\n");
        for row in &self.params {
            let mark = if row.assumed { "assumed" } else { "" };
            let source = row.source.replace('|', "\\|");
            out.push_str(&format!("| `{}` | {} | {source} | {mark} |\n", row.key, row.value));
        }
        out
    }
}

/// All presets, parameter by parameter, as tables of the manual.
///
/// # Errors
/// None in a tested build: the presets are part of the program.
pub fn presets_markdown() -> Result<String, Diag> {
    let mut out = String::new();
    for preset in PRESETS {
        out.push_str(&load(&Origin::Preset(preset.name.to_owned()), &[])?.markdown());
        out.push('\n');
    }
    Ok(out)
}
