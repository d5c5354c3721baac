//! Questions that take more than one exploration: tables, and the shortest program behind each cell.

use super::report::CounterexampleReport;
use super::{Bounds, Explored, judge_all, prepare, tell};
use crate::diag::Diag;
use crate::format::Scenario;
use crate::report::Verdict;
use crate::run::{Request, plan};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use sim_core::platform::IntegrityMode;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use verify::configurations::{Extra, How};
use verify::search::End;

/// Name and version of the form.
pub const SCHEMA: &str = "tdxsim.study/1";

/// The answer where a budget ran out before everything was seen.
const UNDECIDED: &str = "undecided";

/// A study: named rows, named columns, an answer in each cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Study {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Program and version.
    pub tool: String,
    /// Which study.
    pub name: String,
    /// The question.
    pub title: String,
    /// The platform behind it.
    pub platform: String,
    /// What the rows are about: heads of [`Row::head`].
    pub heads: Vec<String>,
    /// What is asked of each.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Programs explored, states and transitions, over all rows.
    pub programs: u64,
    /// Different states reached, over all programs.
    pub states: u64,
    /// Transitions made, over all programs.
    pub transitions: u64,
    /// Pass when everything was seen, else undecided.
    pub verdict: Verdict,
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Row {
    /// What it is about.
    pub head: Vec<String>,
    /// An answer for each column.
    pub cells: Vec<StudyCell>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct StudyCell {
    /// In words.
    pub answer: String,
    /// The shortest run behind it, where there is one to show.
    pub shown: Option<CounterexampleReport>,
}

impl Study {
    /// The table as a page of the book has it, and as people read it.
    pub fn markdown(&self) -> String {
        let heads: Vec<String> = self.heads.iter().chain(&self.columns).cloned().collect();
        let body = self.rows.iter().map(|row| {
            row.head.iter().cloned().chain(row.cells.iter().map(|c| c.answer.clone())).collect()
        });
        let rows: Vec<Vec<String>> = std::iter::once(heads).chain(body).collect();
        let width = |i: usize| {
            rows.iter().filter_map(|r| r.get(i)).map(|t| t.chars().count()).max().unwrap_or(0)
        };
        let mut out = String::new();
        for (n, row) in rows.iter().enumerate() {
            for (i, text) in row.iter().enumerate() {
                let pad = width(i) - text.chars().count();
                let _ = write!(out, "| {text}{} ", " ".repeat(pad));
            }
            out.push_str("|\n");
            if n == 0 {
                for i in 0..row.len() {
                    let _ = write!(out, "|{}", "-".repeat(width(i) + 2));
                }
                out.push_str("|\n");
            }
        }
        out
    }
    /// Every run that can be shown, with a name for its file.
    pub fn shown(&self) -> impl Iterator<Item = (String, &CounterexampleReport)> {
        self.rows.iter().enumerate().flat_map(move |(i, row)| {
            row.cells.iter().enumerate().filter_map(move |(k, cell)| {
                Some((format!("{}-{}-{}.toml", self.name, i + 1, k + 1), cell.shown.as_ref()?))
            })
        })
    }
}

impl Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "platform {}; {} programs, {} states, {} transitions, {}",
            self.platform,
            self.programs,
            self.states,
            self.transitions,
            if self.verdict == Verdict::Pass { "all of them seen" } else { "NOT all seen" }
        )?;
        writeln!(f)?;
        f.write_str(&self.markdown())
    }
}

/// What one exploration adds to the totals.
#[derive(Clone, Copy, Default)]
struct Totals {
    programs: u64,
    states: u64,
    transitions: u64,
    left: bool,
}

impl Totals {
    fn add(self, other: Totals) -> Totals {
        Totals {
            programs: self.programs + other.programs,
            states: self.states + other.states,
            transitions: self.transitions + other.transitions,
            left: self.left || other.left,
        }
    }
    fn of(explored: &Explored) -> Totals {
        Totals {
            programs: 1,
            states: explored.states as u64,
            transitions: explored.transitions,
            left: explored.end != End::Exhausted
                || explored.endings.is_empty()
                || explored.search.system.not_modelled.is_some()
                || explored.search.system.broken.is_some(),
        }
    }
}

/// A program that is explored, and to which question each of its expectations belongs.
struct Asked {
    text: String,
    /// By expectation, in the order of the bound program.
    questions: BTreeMap<String, usize>,
}

/// The shortest run against any expectation of each question.
type Found = Vec<Option<(u32, CounterexampleReport)>>;

/// Explores a program and finds, by question, the shortest run that speaks against one of its expectations.
fn ask(
    asked: &Asked,
    count: usize,
    request: &Request,
    bounds: &Bounds,
) -> Result<(Found, Totals), Diag> {
    let scenario = Scenario::from_text("study.toml", &asked.text)?;
    let mut found: Found = vec![None; count];
    let mut totals = Totals::default();
    for cell in plan(&scenario, request)? {
        let Ok(prepared) = prepare(&cell, bounds)? else {
            totals.left = true;
            continue;
        };
        let program = cell.program();
        let start = prepared.start.clone();
        let mut explored = prepared.run(program, bounds);
        totals = totals.add(Totals::of(&explored));
        let judged = judge_all(program, &explored, explored.end == End::Exhausted);
        for judged in judged {
            let Some(against) = judged.against else { continue };
            let key = format!("{} {}", judged.report.quantifier, judged.report.subject);
            let Some(question) = asked.questions.get(&key) else { continue };
            let moves = explored
                .endings
                .get(against)
                .and_then(|e| e.states.first())
                .and_then(|s| explored.search.depth(*s))
                .unwrap_or(u32::MAX);
            let best = found.get(*question).and_then(|f| f.as_ref()).map(|(m, _)| *m);
            if best.is_some_and(|best| best <= moves) {
                continue;
            }
            let why = vec![judged.report.text()];
            let at = (&scenario, &cell, request);
            let shown = tell(at, &mut explored, &start, against, why, 1);
            if let Some(slot) = found.get_mut(*question) {
                *slot = Some((moves, shown));
            }
        }
    }
    Ok((found, totals))
}

fn merge(mut a: Found, b: Found) -> Found {
    for (slot, other) in a.iter_mut().zip(b) {
        let better = match (&slot, &other) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some((m, _)), Some((n, _))) => n < m,
        };
        if better {
            *slot = other;
        }
    }
    a
}

/// What of a study's setting does not come from its table.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The platform and its parameters.
    pub request: &'a Request,
    /// How far each exploration goes.
    pub bounds: &'a Bounds,
    /// Program and version.
    pub tool: &'a str,
}

fn with_erratum(request: &Request, erratum: Option<bool>, mode: IntegrityMode) -> Request {
    let mut request = request.clone();
    let mut set = |key: &str, value: &str| {
        request.overrides.retain(|o| o.key != key);
        request.overrides.push(crate::platform::Override::set(key, value));
    };
    if let Some(erratum) = erratum {
        set("memory.erratum_pw_mce", if erratum { "true" } else { "false" });
    }
    set("memory.integrity", &mode.to_string());
    request.integrity_given = true;
    request
}

// ------------------------------------------------------------------------------------------------------ reclaim order

/// When the page is cleared with MOVDIR64B, relative to the private write-back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clear {
    /// Not at all.
    None,
    /// Before it, or without one.
    Before,
    /// After it.
    After,
}

/// What writes private lines back at reclaim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Nothing.
    None,
    /// TDH.PHYMEM.CACHE.WB: written back and kept (WBNOINVDP).
    CacheWb,
    /// TDH.PHYMEM.PAGE.WBINVD: written back and invalidated.
    PageWbinvd,
}

/// A row of verification.md §2.9.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReclaimRow {
    /// Its number there; two ways to clear are `3a` and `3b`.
    pub row: &'static str,
    /// Whether the part has the partial-write erratum.
    pub erratum: bool,
    /// The private write-back.
    pub flush: Flush,
    /// The clear.
    pub clear: Clear,
    /// Whether the host's next user does partial writes.
    pub partial: bool,
}

const fn reclaim(
    row: &'static str,
    erratum: bool,
    flush: Flush,
    clear: Clear,
    partial: bool,
) -> ReclaimRow {
    ReclaimRow { row, erratum, flush, clear, partial }
}

/// The rows of verification.md §2.9.
#[rustfmt::skip]
pub const RECLAIM_ROWS: [ReclaimRow; 11] = [
    reclaim("1",  false, Flush::None,    Clear::None,   true),
    reclaim("2",  false, Flush::CacheWb, Clear::None,   true),
    reclaim("3a", false, Flush::CacheWb, Clear::Before, true),
    reclaim("3b", false, Flush::CacheWb, Clear::After,  true),
    reclaim("4",  false, Flush::None,    Clear::Before, true),
    reclaim("5",  true,  Flush::None,    Clear::None,   true),
    reclaim("6",  true,  Flush::CacheWb, Clear::None,   true),
    reclaim("7",  true,  Flush::CacheWb, Clear::Before, true),
    reclaim("8",  true,  Flush::CacheWb, Clear::After,  true),
    reclaim("9",  true,  Flush::None,    Clear::Before, true),
    reclaim("10", true,  Flush::CacheWb, Clear::None,   false),
];

/// What the host's next user of the page does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HostUse {
    Load,
    Store,
    Partial,
}

/// The questions of the study, as columns.
const HARMS: [&str; 4] =
    ["host #MC", "host data lost", "next TD harmed", "TD data seen by the host"];

/// How many operations the host's next user does at most.
const USES_MAX: usize = 3;

fn uses(partial: bool) -> Vec<Vec<HostUse>> {
    let alphabet: &[HostUse] = match partial {
        true => &[HostUse::Load, HostUse::Store, HostUse::Partial],
        false => &[HostUse::Load, HostUse::Store],
    };
    let mut all: Vec<Vec<HostUse>> = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..USES_MAX {
        last = last
            .iter()
            .flat_map(|s| {
                alphabet.iter().map(|u| {
                    let mut s = s.clone();
                    s.push(*u);
                    s
                })
            })
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

/// One life of a page: given by the host, used by a TD, taken back, used by the host, given to another TD. What PAGE.REMOVE
/// and PHYMEM.PAGE.RECLAIM do to lines is nothing (verification.md T5), so they have no line here.
fn life(row: &ReclaimRow, uses: &[HostUse]) -> Asked {
    let mut program = String::from(
        "  seam0 : pconfig priv1 set-random\n  seam0 : pconfig priv2 set-random\n  \
         cpu0 : store [P0] 8 0x1\n  cpu0 : clflush [P0]\n  \
         seam0 : movdir64b [P0@priv1] zero\n  seam0 : mfence\n  td0 : store [P0] 8 0x66\n",
    );
    let clear = "  cpu0 : movdir64b [P0] zero\n  cpu0 : mfence\n";
    if row.clear == Clear::Before {
        program += clear;
    }
    match row.flush {
        Flush::None => {}
        Flush::CacheWb => program += "  seam0 : clwb [P0@priv1]\n  seam0 : mfence\n",
        Flush::PageWbinvd => program += "  seam0 : clflushopt [P0@priv1]\n  seam0 : mfence\n",
    }
    if row.clear == Clear::After {
        program += clear;
    }
    let (mut expect, mut forbid) = (String::new(), String::new());
    let mut questions = BTreeMap::new();
    let mut value = None;
    let mut index = 0;
    for (n, what) in uses.iter().enumerate() {
        index += 1;
        let fresh = 0x10 + n as u64;
        match what {
            HostUse::Load => {
                program += "  cpu1 : load [P0] 8\n";
                if let Some(value) = value {
                    let _ = writeln!(
                        expect,
                        "\"cpu1.{index}\" = \"data {value:#x} | mc | not-run panic\""
                    );
                    questions.insert(format!("always cpu1.{index}"), 1);
                }
            }
            HostUse::Store => {
                let _ = writeln!(program, "  cpu1 : store [P0] 8 {fresh:#x}");
                value = Some(fresh);
            }
            HostUse::Partial => {
                let _ = writeln!(program, "  cpu1 : movnti [P0] 8 {fresh:#x}\n  cpu1 : sfence");
                index += 1;
                value = Some(fresh);
            }
        }
        if *what == HostUse::Load {
            let _ = writeln!(forbid, "\"cpu1.{index}\" = \"mc | data 0x66\"");
        }
    }
    // The page goes to another TD; the host flushes what it gives away (verification.md V1).
    program += "  cpu0 : clflush [P0]\n  seam0 : movdir64b [P0@priv2] zero\n  seam0 : mfence\n  \
                td1 : store [P0] 8 0x77\n  td1 : load [P0] 8\n";
    expect += "\"td1.2\" = \"data 0x77 | not-run panic\"\n";
    questions.insert("always td1.2".to_owned(), 2);
    let text = format!(
        "[scenario]\nname = \"reclaim-order\"\ntitle = \"A page taken back from a TD: verification.md §2.9 row {}\"\n\
         cite = [\"verification.md §2.9\"]\nplatform = \"spr\"\nprogram = '''\n{program}'''\n\n[regions]\n\
         P0 = {{ base = \"0x10000000\", size = \"4KiB\" }}\n\n[agents]\n\
         td0 = {{ kind = \"td\", core = 2, keyid = \"priv1\" }}\ntd1 = {{ kind = \"td\", core = 3, keyid = \"priv2\" }}\n\n\
         [expect]\n{expect}\n[forbid]\n{forbid}",
        row.row
    );
    Asked { text, questions }
}

/// The same program with what a host's load must never bring split by question.
fn questions_of(row: &ReclaimRow, uses: &[HostUse]) -> [Asked; 2] {
    let both = life(row, uses);
    let split = |pattern: &str, question: usize| {
        let text = both.text.replace("\"mc | data 0x66\"", &format!("\"{pattern}\""));
        let mut questions = if question == 0 { both.questions.clone() } else { BTreeMap::new() };
        let mut index = 0;
        for what in uses {
            index += 1;
            match what {
                HostUse::Load => {
                    questions.insert(format!("never cpu1.{index}"), question);
                }
                HostUse::Partial => index += 1,
                HostUse::Store => {}
            }
        }
        Asked { text, questions }
    };
    [split("mc", 0), split("data 0x66", 3)]
}

/// "Which order of private flush and clear at reclaim can harm whom?"
///
/// # Errors
/// A platform or parameter that does not fit.
pub fn reclaim_order(setting: &Setting<'_>) -> Result<Study, Diag> {
    reclaim_order_of(&RECLAIM_ROWS, setting)
}

/// [`reclaim_order`] for other rows than those of the sheet.
///
/// # Errors
/// A platform or parameter that does not fit.
pub fn reclaim_order_of(rows: &[ReclaimRow], setting: &Setting<'_>) -> Result<Study, Diag> {
    let modes = [IntegrityMode::Ci, IntegrityMode::Li];
    let jobs: Vec<(&ReclaimRow, IntegrityMode)> =
        rows.iter().flat_map(|row| modes.iter().map(move |mode| (row, *mode))).collect();
    let done: Vec<Result<(Found, Totals), Diag>> = jobs
        .par_iter()
        .map(|(row, mode)| {
            let request = with_erratum(setting.request, Some(row.erratum), *mode);
            let mut found: Found = vec![None; HARMS.len()];
            let mut totals = Totals::default();
            for uses in uses(row.partial) {
                for asked in questions_of(row, &uses) {
                    if asked.questions.is_empty() {
                        continue;
                    }
                    let (one, n) = ask(&asked, HARMS.len(), &request, setting.bounds)?;
                    found = merge(found, one);
                    totals = totals.add(n);
                }
            }
            Ok((found, totals))
        })
        .collect();
    let mut totals = Totals::default();
    let mut table = Vec::new();
    for ((row, mode), done) in jobs.iter().zip(done) {
        let (found, n) = done?;
        totals = totals.add(n);
        let answer = |found: Option<(u32, CounterexampleReport)>| match found {
            None if n.left => StudyCell { answer: UNDECIDED.to_owned(), shown: None },
            None => StudyCell { answer: "never".to_owned(), shown: None },
            Some((moves, shown)) => {
                StudyCell { answer: format!("yes, {moves} moves"), shown: Some(shown) }
            }
        };
        table.push(Row {
            head: vec![
                row.row.to_owned(),
                mode.to_string(),
                if row.erratum { "yes" } else { "no" }.to_owned(),
                match row.flush {
                    Flush::None => "no",
                    Flush::CacheWb => "CACHE.WB",
                    Flush::PageWbinvd => "PAGE.WBINVD",
                }
                .to_owned(),
                match (row.clear, row.flush) {
                    (Clear::None, _) => "none",
                    (_, Flush::None) => "yes",
                    (Clear::Before, _) => "before flush",
                    (Clear::After, _) => "after flush",
                }
                .to_owned(),
                if row.partial { "yes" } else { "no" }.to_owned(),
            ],
            cells: found.into_iter().map(answer).collect(),
        });
    }
    let heads = ["row", "mode", "erratum", "private flush", "clear", "partial writes"];
    Ok(study(
        (
            "reclaim-order",
            "Which order of private flush and clear at reclaim can harm whom? (verification.md §2.9)",
        ),
        setting,
        (&heads, &HARMS),
        table,
        totals,
    ))
}

fn study(
    (name, title): (&str, &str),
    setting: &Setting<'_>,
    (heads, columns): (&[&str], &[&str]),
    rows: Vec<Row>,
    totals: Totals,
) -> Study {
    let platform = match &setting.request.platform {
        Some(crate::platform::Origin::Preset(name)) => name.clone(),
        Some(_) => "of a file".to_owned(),
        None => "spr".to_owned(),
    };
    Study {
        schema: SCHEMA,
        tool: setting.tool.to_owned(),
        name: name.to_owned(),
        title: title.to_owned(),
        platform,
        heads: heads.iter().map(ToString::to_string).collect(),
        columns: columns.iter().map(ToString::to_string).collect(),
        rows,
        programs: totals.programs,
        states: totals.states,
        transitions: totals.transitions,
        verdict: if totals.left { Verdict::Undecided } else { Verdict::Pass },
    }
}

// --------------------------------------------------------------------------------------------------- physical attacks

/// An attack on a line of a TD: what is done, and what the TD's last load should bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttackRow {
    /// What the attacker does.
    pub attack: &'static str,
    /// The program; the last line is the TD's load.
    program: &'static str,
    /// What the TD had stored there last.
    current: &'static str,
    /// Where it comes from.
    pub cite: &'static str,
}

const fn attack(
    attack: &'static str,
    cite: &'static str,
    current: &'static str,
    program: &'static str,
) -> AttackRow {
    AttackRow { attack, program, current, cite }
}

/// The rows of verification.md §1.3, and those of §1.2 that can be written with the same means. A dropped write is the line
/// as it was, put back after the write.
pub const ATTACKS: [AttackRow; 11] = [
    attack(
        "replay of an older line, same address and key",
        "verification.md §1.3",
        "data fill=0x22",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  hw : save-line [P0] 0\n  \
         td0 : store [P0] 64 fill=0x22\n  hw : replay-line 0 [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "a bit of the ciphertext flipped",
        "verification.md §1.3",
        "data fill=0x11",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  hw : flip-bit [P0] 77\n  td0 : load [P0] 64\n",
    ),
    attack(
        "splice: another line of the TD moved there",
        "architecture.md §1.2 1.2.4",
        "data fill=0x22",
        "  seam0 : movdir64b [P0+0x40@priv1] fill=0x11\n  seam0 : movdir64b [P0@priv1] fill=0x22\n  seam0 : mfence\n  \
         hw : move-line [P0+0x40] [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "dropped write over the TD's own older line",
        "verification.md §1.2 DDRop",
        "data fill=0x22",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  hw : save-line [P0] 0\n  \
         seam0 : movdir64b [P0@priv1] fill=0x22\n  seam0 : mfence\n  hw : replay-line 0 [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "dropped write over another TD's line",
        "verification.md §1.2 DDRop",
        "data fill=0x22",
        "  seam0 : movdir64b [P0@priv2] fill=0x11\n  seam0 : mfence\n  hw : save-line [P0] 0\n  \
         seam0 : movdir64b [P0@priv1] fill=0x22\n  seam0 : mfence\n  hw : replay-line 0 [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "dropped write over a line of the host",
        "verification.md §1.2 DDRop",
        "data fill=0x22",
        "  cpu0 : movdir64b [P0] fill=0x11\n  cpu0 : mfence\n  hw : save-line [P0] 0\n  \
         seam0 : movdir64b [P0@priv1] fill=0x22\n  seam0 : mfence\n  hw : replay-line 0 [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "the TD bit cleared",
        "verification.md §1.3",
        "data fill=0x11",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  hw : flip-td [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "KeyID reused: the line is of its former key",
        "verification.md H7",
        "data fill=0x22",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  seam0 : pconfig priv1 set-random\n  td0 : load [P0] 64\n",
    ),
    attack(
        "KeyID reused, and a line of its former key replayed",
        "verification.md H7",
        "data fill=0x22",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  hw : save-line [P0] 0\n  \
         seam0 : pconfig priv1 set-random\n  seam0 : movdir64b [P0@priv1] fill=0x22\n  seam0 : mfence\n  \
         hw : replay-line 0 [P0]\n  td0 : load [P0] 64\n",
    ),
    attack(
        "foreign write: the host writes the whole line",
        "verification.md §1.3",
        "data fill=0x11",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  cpu0 : store [P0] 64 fill=0x33\n  td0 : load [P0] 64\n",
    ),
    attack(
        "foreign write under another TD's key (module bug)",
        "verification.md §1.3",
        "data fill=0x11",
        "  seam0 : movdir64b [P0@priv1] fill=0x11\n  seam0 : mfence\n  seam0 : movdir64b [P0@priv2] fill=0x33\n  \
         seam0 : mfence\n  td0 : load [P0] 64\n",
    ),
];

/// What may come of an attack, worst first: pattern, and the word for it.
const FATES: [(&str, &str); 4] = [
    ("data | zeros", "accepted (stale)"),
    ("garbage", "accepted (garbage)"),
    ("mc", "detected"),
    ("", "no effect"),
];

fn attacked(row: &AttackRow, fate: &str) -> Asked {
    let loads = row.program.lines().filter(|l| l.trim_start().starts_with("td0 :")).count();
    let step = format!("td0.{loads}");
    // What is not the current value is what is asked for; the current value is "no effect".
    let (table, pattern, key) = match fate {
        "" => ("forbid", row.current.to_owned(), format!("never {step}")),
        "data | zeros" => {
            ("expect", format!("{} | garbage | mc", row.current), format!("always {step}"))
        }
        other => ("forbid", other.to_owned(), format!("never {step}")),
    };
    let text = format!(
        "[scenario]\nname = \"physical-attack\"\ntitle = \"{}\"\ncite = [\"{}\"]\nplatform = \"spr\"\nprogram = '''\n  \
         seam0 : pconfig priv1 set-random\n  seam0 : pconfig priv2 set-random\n{}'''\n\n[regions]\n\
         P0 = {{ base = \"0x10000000\", size = \"4KiB\" }}\n\n[agents]\n\
         td0 = {{ kind = \"td\", core = 1, keyid = \"priv1\" }}\n\n[{table}]\n\"{step}\" = \"{pattern}\"\n",
        row.attack, row.cite, row.program
    );
    Asked { text, questions: BTreeMap::from([(key, 0)]) }
}

/// Which physical attacks on a line of a TD are accepted, and which detected?
///
/// # Errors
/// A platform or parameter that does not fit.
pub fn physical_attacks(setting: &Setting<'_>) -> Result<Study, Diag> {
    let modes = [IntegrityMode::Li, IntegrityMode::Ci];
    let done: Vec<Result<(Vec<StudyCell>, Totals), Diag>> = ATTACKS
        .par_iter()
        .map(|row| {
            let mut totals = Totals::default();
            let mut cells = Vec::new();
            for mode in modes {
                let request = with_erratum(setting.request, None, mode);
                let mut words: Vec<&str> = Vec::new();
                let mut worst = None;
                let mut left = false;
                for (fate, word) in FATES {
                    let (found, n) = ask(&attacked(row, fate), 1, &request, setting.bounds)?;
                    totals = totals.add(n);
                    left |= n.left;
                    let Some((_, shown)) = found.into_iter().next().flatten() else { continue };
                    // That a line which is still in a cache is not reached goes without saying.
                    if word != "no effect" || words.is_empty() {
                        words.push(word);
                        worst.get_or_insert(shown);
                    }
                }
                // Something worse may be among what was not seen.
                if left {
                    words.push(UNDECIDED);
                }
                cells.push(StudyCell { answer: words.join(", "), shown: worst });
            }
            Ok((cells, totals))
        })
        .collect();
    let mut totals = Totals::default();
    let mut rows = Vec::new();
    for (row, done) in ATTACKS.iter().zip(done) {
        let (cells, n) = done?;
        totals = totals.add(n);
        rows.push(Row { head: vec![row.attack.to_owned(), row.cite.to_owned()], cells });
    }
    let title = "Which physical attacks on a line of a TD are accepted, and which detected? (verification.md §1.3)";
    let heads: [&str; 2] = ["attack", "source"];
    Ok(study(("physical-attacks", title), setting, (&heads, &["Li", "Ci"]), rows, totals))
}

// ---------------------------------------------------------------------------------------------------- configurations

/// The configurations of verification.md §5.3 ([`verify::configurations`]), each searched as a whole and judged by the
/// invariants.
pub fn configurations(tool: &str) -> Study {
    let rows = verify::configurations::rows();
    let explored: Vec<verify::configurations::Explored> =
        rows.par_iter().map(|row| row.explore(How::default())).collect();
    let mut totals = Totals::default();
    let mut table = Vec::new();
    for (row, e) in rows.iter().zip(&explored) {
        let searched = &e.searched;
        totals = totals.add(Totals {
            programs: 1,
            states: searched.states as u64,
            transitions: searched.transitions,
            left: !searched.exhausted() && e.found.broken.is_none(),
        });
        let moves = |depth: Option<u32>| match depth {
            Some(moves) => format!("yes, {moves} moves"),
            None => "never".to_owned(),
        };
        let broken = match &e.found.broken {
            None => "none".to_owned(),
            Some((moves, all)) => {
                let names: Vec<String> = all.iter().map(|v| v.id.to_owned()).collect();
                format!("{} in {moves} moves", names.join(", "))
            }
        };
        let extra = match row.extra {
            Extra::None if row.prompt => "",
            Extra::None => "buffers wait",
            Extra::Errors => "injected UE",
            Extra::Replay => "replay attacker",
        };
        let cells = [
            searched.states.to_string(),
            searched.transitions.to_string(),
            searched.depth.to_string(),
            broken,
            moves(e.found.host_mc),
            moves(e.found.alias),
            if e.found.garbage { "yes" } else { "never" }.to_owned(),
        ];
        table.push(Row {
            head: vec![
                row.id.to_owned(),
                row.spec.cores.to_string(),
                row.keyids.len().to_string(),
                row.spec.memory.integrity.to_string(),
                if row.spec.memory.erratum_pw_mce { "yes" } else { "no" }.to_owned(),
                extra.to_owned(),
            ],
            cells: cells.into_iter().map(|answer| StudyCell { answer, shown: None }).collect(),
        });
    }
    let broken = explored.iter().any(|e| e.found.broken.is_some());
    Study {
        schema: SCHEMA,
        tool: tool.to_owned(),
        name: "configurations".to_owned(),
        title: "Small configurations of the reference model, all of each (verification.md §5.3)"
            .to_owned(),
        platform: "the smallest that has the cores".to_owned(),
        heads: ["id", "cores", "KeyIDs", "mode", "erratum", "extra"].map(str::to_owned).to_vec(),
        columns: [
            "states",
            "transitions",
            "depth",
            "invariants broken",
            "host #MC",
            "two KeyIDs dirty on one line",
            "garbage read undetected",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: table,
        programs: totals.programs,
        states: totals.states,
        transitions: totals.transitions,
        verdict: match (broken, totals.left) {
            (true, _) => Verdict::Broken,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Pass,
        },
    }
}
