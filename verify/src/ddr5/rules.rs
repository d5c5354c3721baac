//! What a trace must keep: the parameters by their JEDEC names, and whether they can be true together (Q10).

use super::trace::{Cursor, Fault};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A parameter of the rules. Times are in clocks but for tCK.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs, reason = "PARAMS gives name, meaning and source of each")]
pub enum Param {
    Tck,
    Cl,
    Cwl,
    Burst,
    Trcd,
    Trp,
    Tras,
    Trc,
    Trtp,
    Twr,
    TrrdS,
    TrrdL,
    Tfaw,
    TccdS,
    TccdL,
    TccdLWr,
    TwtrS,
    TwtrL,
    Tppd,
    Trfc,
    TrfcSb,
    Trefsbrd,
    GapRw,
    GapWr,
    GapRank,
    Ranks,
    BankGroups,
    Banks,
    Rows,
    Columns,
    Trefi,
    Postpone,
    RefreshSlack,
}

/// A row of [`PARAMS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParamRow {
    /// Which.
    pub param: Param,
    /// As JESD79-5 and the `# rules:` line spell it.
    pub key: &'static str,
    /// What it is, with its unit.
    pub meaning: &'static str,
    /// Where that is said.
    pub cite: &'static str,
    /// The smallest value that can be.
    pub least: u64,
    /// The largest.
    pub most: u64,
}

/// The longest time that a parameter may be, in clocks: 7 ms at 4800 MT/s.
const LONG: u64 = 1 << 24;

const fn time(
    param: Param,
    key: &'static str,
    meaning: &'static str,
    cite: &'static str,
) -> ParamRow {
    ParamRow { param, key, meaning, cite, least: 0, most: LONG }
}

const fn count(
    (param, key): (Param, &'static str),
    (least, most): (u64, u64),
    meaning: &'static str,
    cite: &'static str,
) -> ParamRow {
    ParamRow { param, key, meaning, cite, least, most }
}

/// Every parameter, in the order of the `# rules:` line as it is written.
#[rustfmt::skip]
pub const PARAMS: [ParamRow; 33] = [
    count((Param::Tck, "tCK"), (1, 1_000_000), "the clock, in picoseconds", "timing.md §2.1"),
    time(Param::Cl,       "CL",        "RD to the first clock of data", "timing.md §2.2"),
    time(Param::Cwl,      "CWL",       "WR to the first clock of data", "timing.md §2.1"),
    count((Param::Burst, "BL/2"), (1, 64), "clocks of data per burst", "timing.md §2.4 BL16"),
    time(Param::Trcd,     "tRCD",      "ACT to RD or WR", "timing.md §2.2"),
    time(Param::Trp,      "tRP",       "precharge to ACT or REF", "timing.md §2.2"),
    time(Param::Tras,     "tRAS",      "ACT to precharge", "timing.md §2.2"),
    time(Param::Trc,      "tRC",       "ACT to ACT or REF of a bank", "timing.md §2.2"),
    time(Param::Trtp,     "tRTP",      "RD to precharge", "timing.md §2.2"),
    time(Param::Twr,      "tWR",       "end of written data to precharge", "timing.md §2.2"),
    time(Param::TrrdS,    "tRRD_S",    "ACT to ACT of a rank", "timing.md §2.2"),
    time(Param::TrrdL,    "tRRD_L",    "ACT to ACT of a bank group", "timing.md §2.2"),
    time(Param::Tfaw,     "tFAW",      "window that holds at most four ACTs of a rank", "timing.md §2.2"),
    time(Param::TccdS,    "tCCD_S",    "RD to RD and WR to WR of a rank", "timing.md §2.2"),
    time(Param::TccdL,    "tCCD_L",    "RD to RD of a bank group", "timing.md §2.2"),
    time(Param::TccdLWr,  "tCCD_L_WR", "WR to WR of a bank group", "timing.md §2.2"),
    time(Param::TwtrS,    "tWTR_S",    "end of written data to RD of a rank", "timing.md §2.2"),
    time(Param::TwtrL,    "tWTR_L",    "end of written data to RD of a bank group", "timing.md §2.2"),
    time(Param::Tppd,     "tPPD",      "precharge to precharge of a rank", "timing.md §2.1"),
    time(Param::Trfc,     "tRFC",      "REFab to the next command of its rank", "timing.md §2.2"),
    time(Param::TrfcSb,   "tRFCsb",    "REFsb to its banks and to the next refresh", "timing.md §2.2"),
    time(Param::Trefsbrd, "tREFSBRD",  "REFsb to ACT of another bank", "JESD79-5 refresh parameters: 30 ns"),
    time(Param::GapRw,    "gap_rw",    "idle clocks on the data bus from a burst read to one written in the same rank", "verification.md Q4; timing.md §2.2 tRDWR"),
    time(Param::GapWr,    "gap_wr",    "idle clocks on the data bus from a burst written to one read in the same rank", "verification.md Q4"),
    time(Param::GapRank,  "gap_rank",  "idle clocks on the data bus between bursts of two ranks", "timing.md §2.1 CS"),
    count((Param::Ranks,      "ranks"),       (1, 8),          "ranks of a subchannel", "timing.md §2.1"),
    count((Param::BankGroups, "bank_groups"), (1, 16),         "bank groups of a rank", "timing.md §2.1"),
    count((Param::Banks,      "banks"),       (1, 16),         "banks of a bank group", "timing.md §2.1"),
    count((Param::Rows,       "rows"),        (1, 0xffff_ffff), "rows of a bank", "timing.md §2.1"),
    count((Param::Columns,    "columns"),     (1, 0xffff_ffff), "bursts of a row", "timing.md §2.1"),
    count((Param::Trefi, "tREFI"), (1, LONG), "average interval of the refreshes of a rank, or of a bank index of a rank", "timing.md §2.2"),
    count((Param::Postpone, "postpone"), (0, 64), "refreshes that may be postponed", "verification.md Q8"),
    time(Param::RefreshSlack, "refresh_slack", "clocks that a refresh may be later than that", "assumed; 0 is JEDEC's"),
];

impl Param {
    /// Its row.
    pub const fn row(self) -> &'static ParamRow {
        &PARAMS[self as usize]
    }
    /// The parameter of this name.
    pub fn by_key(key: &[u8]) -> Option<Param> {
        PARAMS.iter().find(|r| r.key.as_bytes() == key).map(|r| r.param)
    }

    /// Its value, with its unit, up to a blank.
    fn read(self, cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
        let ParamRow { key, least, most, .. } = *self.row();
        let unit = if self == Param::Tck { "ps" } else { "" };
        let bad = cursor.fault(&format!("{key} of {least}{unit} to {most}{unit}"));
        let value = cursor.decimal(most, "").ok().filter(|value| *value >= least);
        match value {
            Some(value) if cursor.peek() == unit.as_bytes() => {
                cursor.skip(unit.len());
                Ok(value)
            }
            _ => Err(bad),
        }
    }
}

/// Which refreshes a run makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresh {
    /// REFab, each rank every tREFI.
    AllBank,
    /// REFsb, each bank index of each rank every tREFI; a REFab counts for every bank index.
    SameBank,
    /// None.
    Off,
}

impl Refresh {
    /// All of them.
    pub const ALL: [Refresh; 3] = [Refresh::AllBank, Refresh::SameBank, Refresh::Off];
    /// Its spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Refresh::AllBank => "all-bank",
            Refresh::SameBank => "same-bank",
            Refresh::Off => "off",
        }
    }
}

/// Part of a sum of parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Term {
    /// The parameter is added.
    Plus(Param),
    /// The parameter is taken away.
    Minus(Param),
    /// The parameter is added so often.
    Times(u8, Param),
}

/// A sum as people read it: `CWL + BL/2 + tWR`.
pub fn sum_text(terms: &[Term]) -> String {
    let mut out = String::new();
    for term in terms {
        let lead = out.is_empty();
        let _ = match term {
            Term::Plus(p) if lead => write!(out, "{}", p.row().key),
            Term::Plus(p) => write!(out, " + {}", p.row().key),
            Term::Minus(p) => write!(out, " - {}", p.row().key),
            Term::Times(n, p) if lead => write!(out, "{n}·{}", p.row().key),
            Term::Times(n, p) => write!(out, " + {n}·{}", p.row().key),
        };
    }
    out
}

/// A parameter outside of what it can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} is {value}, expected {least} to {most}")]
pub struct RulesError {
    /// Which.
    pub key: &'static str,
    /// What it was.
    pub value: u64,
    /// The smallest it may be.
    pub least: u64,
    /// The largest.
    pub most: u64,
}

/// The parameters that a trace must keep. As text, what stands behind `# rules:`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Rules {
    values: [u64; PARAMS.len()],
    refresh: Refresh,
}

impl Rules {
    /// Rules of a device that holds nothing, until there are others.
    pub(super) const NONE: Rules = Rules { values: [0; PARAMS.len()], refresh: Refresh::Off };

    /// The rules with these values.
    ///
    /// # Errors
    /// When one is outside of what [`PARAMS`] allows.
    pub fn new(refresh: Refresh, value: impl Fn(Param) -> u64) -> Result<Rules, RulesError> {
        let mut rules = Rules { refresh, ..Rules::NONE };
        for row in &PARAMS {
            rules = rules.with(row.param, value(row.param))?;
        }
        Ok(rules)
    }

    /// The same rules with one value changed.
    ///
    /// # Errors
    /// When it is outside of what [`PARAMS`] allows.
    pub fn with(mut self, param: Param, value: u64) -> Result<Rules, RulesError> {
        let ParamRow { key, least, most, .. } = *param.row();
        if !(least..=most).contains(&value) {
            return Err(RulesError { key, value, least, most });
        }
        self.values[param as usize] = value;
        Ok(self)
    }

    /// The same rules with another kind of refresh.
    #[must_use]
    pub const fn refreshed(mut self, refresh: Refresh) -> Rules {
        self.refresh = refresh;
        self
    }

    /// A value.
    pub const fn get(&self, param: Param) -> u64 {
        self.values[param as usize]
    }
    /// Which refreshes are made.
    pub const fn refresh(&self) -> Refresh {
        self.refresh
    }

    /// A sum of values; zero when it is less.
    pub fn sum(&self, terms: &[Term]) -> u64 {
        let (mut more, mut less) = (0u64, 0u64);
        for term in terms {
            match term {
                Term::Plus(p) => more += self.get(*p),
                Term::Minus(p) => less += self.get(*p),
                Term::Times(n, p) => more += u64::from(*n) * self.get(*p),
            }
        }
        more.saturating_sub(less)
    }

    /// The rows of [`SANITY`] that do not hold (Q10).
    pub fn insane(&self) -> impl Iterator<Item = &'static Sanity> {
        SANITY.iter().filter(|row| {
            let (left, right) = (self.sum(row.left), self.sum(row.right));
            let fine = if row.strict { left > right } else { left >= right };
            !fine && row.when.is_none_or(|refresh| refresh == self.refresh)
        })
    }

    /// Reads what stands behind `# rules:`.
    ///
    /// # Errors
    /// What was found, where, and what was expected there.
    pub fn parse(text: &[u8]) -> Result<Rules, Fault> {
        let mut values: [Option<u64>; PARAMS.len()] = [None; PARAMS.len()];
        let mut refresh = None;
        let mut cursor = Cursor::new(text);
        cursor.blanks();
        while !cursor.is_done() {
            let word = cursor.peek();
            let key = word.split(|b| *b == b'=').next().filter(|key| key.len() < word.len());
            let key = key.unwrap_or(&[]);
            let param = Param::by_key(key);
            let twice = match param {
                Some(param) => values[param as usize].is_some(),
                None => refresh.is_some(),
            };
            if param.is_none() && key != b"refresh" {
                return Err(cursor.fault("KEY=VALUE with a key of the rules, like tRCD=39"));
            }
            if twice {
                return Err(cursor.fault("every parameter only once"));
            }
            cursor.skip(key.len() + 1);
            match param {
                Some(param) => values[param as usize] = Some(param.read(&mut cursor)?),
                None => {
                    let read =
                        |w: &[u8]| Refresh::ALL.into_iter().find(|r| r.name().as_bytes() == w);
                    refresh = Some(cursor.word(read, "all-bank, same-bank or off")?);
                }
            }
            cursor.blanks();
        }
        let missing = |key: &str| cursor.fault(&format!("{key}=..., which is missing"));
        let mut rules = Rules::NONE;
        for (row, value) in PARAMS.iter().zip(values) {
            rules.values[row.param as usize] = value.ok_or_else(|| missing(row.key))?;
        }
        rules.refresh = refresh.ok_or_else(|| missing("refresh"))?;
        Ok(rules)
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &PARAMS {
            let unit = if row.param == Param::Tck { "ps" } else { "" };
            write!(f, "{}={}{unit} ", row.key, self.get(row.param))?;
        }
        write!(f, "refresh={}", self.refresh.name())
    }
}
impl FromStr for Rules {
    type Err = Fault;
    fn from_str(s: &str) -> Result<Rules, Fault> {
        Rules::parse(s.as_bytes())
    }
}
impl From<Rules> for String {
    fn from(rules: Rules) -> String {
        rules.to_string()
    }
}
impl TryFrom<String> for Rules {
    type Error = Fault;
    fn try_from(text: String) -> Result<Rules, Fault> {
        text.parse()
    }
}

/// A row of [`SANITY`]: the left side is at least the right side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sanity {
    /// The larger side.
    pub left: &'static [Term],
    /// Whether equality is not enough.
    pub strict: bool,
    /// The smaller side.
    pub right: &'static [Term],
    /// Only with this kind of refresh; `None`: always.
    pub when: Option<Refresh>,
    /// Why.
    pub text: &'static str,
    /// Source.
    pub cite: &'static str,
}

impl fmt::Display for Sanity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = if self.strict { ">" } else { "≥" };
        write!(f, "{} {relation} {}", sum_text(self.left), sum_text(self.right))
    }
}

const fn sane(
    left: &'static [Term],
    right: &'static [Term],
    text: &'static str,
    cite: &'static str,
) -> Sanity {
    Sanity { left, strict: false, right, when: None, text, cite }
}

use Param::{
    Burst, Cl, Cwl, TccdL, TccdLWr, TccdS, Tfaw, Tras, Trc, Trcd, Trefi, Trefsbrd, Trfc, TrfcSb,
    Trp, TrrdL, TrrdS, Trtp, TwtrL, TwtrS,
};
use Term::{Plus, Times};

/// What must be true of the parameters together (Q10).
#[rustfmt::skip]
pub const SANITY: &[Sanity] = &[
    sane(&[Plus(TrrdL)], &[Plus(TrrdS)], "a bank group is no faster than its rank", "verification.md Q10"),
    sane(&[Plus(TccdL)], &[Plus(TccdS)], "a bank group is no faster than its rank", "verification.md Q10"),
    sane(&[Plus(TccdLWr)], &[Plus(TccdL)], "a write to a bank group may need a read before it", "verification.md Q10; timing.md §2.2 tCCD_L_WR"),
    sane(&[Plus(TwtrL)], &[Plus(TwtrS)], "a bank group is no faster than its rank", "verification.md Q10"),
    sane(&[Plus(Trc)], &[Plus(Tras), Plus(Trp)], "a row is open and then closed", "verification.md Q10"),
    sane(&[Plus(Tfaw)], &[Times(4, TrrdS)], "four ACTs cannot come faster than tRRD_S", "verification.md Q10"),
    Sanity { left: &[Plus(Cl)], strict: true, right: &[Plus(Cwl)], when: None, text: "written data comes sooner than read data", cite: "verification.md Q10" },
    sane(&[Plus(TccdS)], &[Plus(Burst)], "bursts do not overlap", "verification.md Q4"),
    sane(&[Plus(Trfc)], &[Plus(TrfcSb)], "a refresh of all banks is no faster than one of some", "timing.md §2.2 tRFCsb"),
    sane(&[Plus(TrfcSb)], &[Plus(Trefsbrd)], "the banks that are refreshed wait no less than the others", "JESD79-5 refresh parameters"),
    Sanity { left: &[Plus(Trefi)], strict: true, right: &[Plus(Trtp), Plus(Trp), Plus(Trfc), Plus(Trcd)], when: Some(Refresh::AllBank), text: "time is left between refreshes", cite: "verification.md Q12" },
    Sanity { left: &[Plus(Trefi)], strict: true, right: &[Plus(Trtp), Plus(Trp), Plus(TrfcSb), Plus(Trcd)], when: Some(Refresh::SameBank), text: "time is left between refreshes of a bank", cite: "verification.md Q12" },
];

/// The parameters as a page.
pub fn params_markdown() -> String {
    let mut out =
        String::from("| Key | Meaning | Least | Most | Source |\n|---|---|---|---|---|\n");
    for r in &PARAMS {
        let (key, meaning, least, most, cite) = (r.key, r.meaning, r.least, r.most, r.cite);
        let _ = writeln!(out, "| {key} | {meaning} | {least} | {most} | {cite} |");
    }
    out
}

/// The sanity rules as a page.
pub fn sanity_markdown() -> String {
    let mut out = String::from("| Holds | With refresh | Why | Source |\n|---|---|---|---|\n");
    for r in SANITY {
        let when = r.when.map_or("any", Refresh::name);
        let _ = writeln!(out, "| {r} | {when} | {} | {} |", r.text, r.cite);
    }
    out
}

/// The rules of DDR5-4800B, 16 Gb x4, two ranks, all-bank refresh (timing.md §2.1, §2.2): what examples and tests begin with.
pub fn example_rules() -> Rules {
    Rules {
        #[rustfmt::skip]
        values: [
            416, 40, 38, 8, 39, 39, 77, 116, 18, 72, 8, 12, 32, 8, 12, 48, 6, 24, 2, 710, 313, 73, 2, 2, 2,
            2, 8, 4, 65536, 128, 9375, 4, 0,
        ],
        refresh: Refresh::AllBank,
    }
}
