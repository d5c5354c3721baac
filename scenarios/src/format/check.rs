//! Final checks: what must hold when the program has ended.

use super::pattern::{PatternError, ReadPattern, number, trouble, words};
use serde::{Deserialize, Serialize};
use sim_core::op::{AddrExpr, KeyRef, TextOp};
use sim_core::tdx::{PAGE_TYPES, PageType};
use sim_core::{KeyId, Op, Tagged};
use std::fmt;
use std::str::FromStr;
use tdx_module::SysState;
use tdx_module::op_state::{KOT_STATES, KotState, LIFECYCLES, Lifecycle, OP_STATES, OpState};
use tdx_module::sept::{STATES, State};

/// One form of final check: a row of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckForm {
    /// First word.
    pub head: &'static str,
    /// Its operands.
    pub operands: &'static str,
    /// Whether `not` may stand before it.
    pub negatable: bool,
    /// What it says.
    pub meaning: &'static str,
    /// Where the notion comes from.
    pub cite: &'static str,
}

const fn c(
    head: &'static str,
    operands: &'static str,
    negatable: bool,
    meaning: &'static str,
    cite: &'static str,
) -> CheckForm {
    CheckForm { head, operands, negatable, meaning, cite }
}

/// Every form of final check.
#[rustfmt::skip]
pub const FINAL_CHECKS: &[CheckForm] = &[
    c("poisoned",       "ADDR",             true,  "the line is poisoned in DRAM",                  "architecture.md §1.1 1.1.2"),
    c("td",             "ADDR",             true,  "the line's TD-owner bit is set",                "architecture.md §1.1 1.1.2"),
    c("mac",            "ADDR",             true,  "the line's MAC field holds a MAC",              "architecture.md §13 MC-08"),
    c("cached",         "ADDR@KEY",         true,  "some cache holds the line under that KeyID",    "architecture.md §4.1 4.1.1"),
    c("dirty",          "ADDR@KEY",         true,  "some cache holds it modified",                  "architecture.md §4.1"),
    c("writer",         "ADDR KEY",         false, "the last full-line writer's KeyID",             "architecture.md §1.1 1.1.5"),
    c("reads",          "ADDR@KEY PATTERN", false, "what a fresh read by the controller would return", "architecture.md §2.2, §2.3"),
    c("panic",          "",                 true,  "the host kernel has panicked",                  "architecture.md §6.3"),
    c("tdx-disabled",   "",                 true,  "TDX is disabled platform-wide",                 "architecture.md §6.3"),
    c("ucna",           "NUMBER",           false, "so many UCNA errors were logged",               "architecture.md §6.1"),
    c("births",         "NUMBER",           false, "so many births of poison",                      "verification.md P1"),
    c("live-poison",    "NUMBER",           false, "so many births of poison that have not died",   "verification.md P2"),
    c("partial-writes", "NUMBER",           false, "so many partial writes reached the controller", "architecture.md §5 5.1"),
    c("module",         "SYS_STATE",        false, "the module's global state, such as SYS_READY",  "architecture.md §7.1"),
    c("pamt",           "ADDR PAGE_TYPE",   false, "page type of the PAMT entry (4K, 2M or 1G) that covers the page, such as PT_NDA", "architecture.md §7.4"),
    c("owner",          "ADDR TDR",         false, "that entry's owner",                            "architecture.md §7.4"),
    c("kot",            "KEY KOT_STATE",    false, "the HKID's state in the key ownership table",   "architecture.md §7.5"),
    c("life-cycle",     "TDR LIFE_CYCLE",   false, "the TD's life-cycle state, such as TEARDOWN",   "architecture.md §7.5"),
    c("op-state",       "TDR OP_STATE",     false, "the TD's OP_STATE, such as RUNNABLE",           "architecture.md §7.5"),
    c("td-fatal",       "TDR",              true,  "the TD met a machine check",                    "architecture.md §6.3"),
    c("sept",           "TDR GPA|LEVEL SEPT_STATE", false, "state of a Secure-EPT entry, such as PENDING", "architecture.md §7.6"),
    c("tlb",            "CORE TDR GVA",     true,  "the core's TLB translates the TD's page of this address", "architecture.md §7.8"),
];

/// [`FINAL_CHECKS`] as a table of the manual.
pub fn final_checks_markdown() -> String {
    let mut out =
        "| check | operands | `not` | meaning | source |\n|---|---|---|---|---|\n".to_owned();
    for row in FINAL_CHECKS {
        let not = if row.negatable { "yes" } else { "" };
        let operands = row.operands.replace('|', "\\|");
        out.push_str(&format!(
            "| `{}` | {operands} | {not} | {} | {} |\n",
            row.head, row.meaning, row.cite
        ));
    }
    out
}

/// Why a text is not a final check.
pub type CheckParseError = PatternError;

/// What must hold when the program has ended. `L` is how lines, `T` how lines under a KeyID, and `K` how KeyIDs are
/// given: as text has them (the default), or resolved ([`BoundCheck`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FinalCheck<L = AddrExpr, T = AddrExpr, K = KeyRef> {
    /// The line is poisoned in DRAM.
    Poisoned {
        /// Which line.
        at: L,
        /// False for `not`.
        holds: bool,
    },
    /// The line's TD-owner bit is set.
    Td {
        /// Which line.
        at: L,
        /// False for `not`.
        holds: bool,
    },
    /// The line's MAC field holds a MAC.
    Mac {
        /// Which line.
        at: L,
        /// False for `not`.
        holds: bool,
    },
    /// Some cache holds the line under that KeyID.
    Cached {
        /// Which line, under which KeyID.
        at: T,
        /// False for `not`.
        holds: bool,
    },
    /// Some cache holds the line under that KeyID, modified.
    Dirty {
        /// Which line, under which KeyID.
        at: T,
        /// False for `not`.
        holds: bool,
    },
    /// The last full-line writer's KeyID.
    Writer {
        /// Which line.
        at: L,
        /// Which KeyID.
        keyid: K,
    },
    /// What a fresh read by the controller would return.
    Reads {
        /// Which line, under which KeyID.
        at: T,
        /// What.
        pattern: ReadPattern,
    },
    /// The host kernel has panicked.
    Panic {
        /// False for `not`.
        holds: bool,
    },
    /// TDX is disabled platform-wide.
    TdxDisabled {
        /// False for `not`.
        holds: bool,
    },
    /// So many UCNA errors were logged.
    Ucna(u64),
    /// So many births of poison.
    Births(u64),
    /// So many births of poison that have not died.
    LivePoison(u64),
    /// So many partial writes reached the controller.
    PartialWrites(u64),
    /// The module's global state.
    Module(SysState),
    /// The page type of the PAMT entry that covers a page.
    Pamt {
        /// Any line of the page.
        at: L,
        /// Its type.
        page_type: PageType,
    },
    /// The owner in that entry.
    Owner {
        /// Any line of the page.
        at: L,
        /// The owner's TDR page.
        tdr: L,
    },
    /// The state of an HKID.
    Kot {
        /// Which.
        keyid: K,
        /// Its state.
        state: KotState,
    },
    /// The life cycle of a TD.
    LifeCycle {
        /// Its TDR page.
        tdr: L,
        /// Its state.
        state: Lifecycle,
    },
    /// The OP_STATE of a TD.
    OpState {
        /// Its TDR page.
        tdr: L,
        /// Its state.
        state: OpState,
    },
    /// The TD met a machine check.
    TdFatal {
        /// Its TDR page.
        tdr: L,
        /// False for `not`.
        holds: bool,
    },
    /// The state of a Secure-EPT entry.
    Sept {
        /// The TD's TDR page.
        tdr: L,
        /// Guest-physical address.
        gpa: u64,
        /// Level, 0 for 4 KiB.
        level: u8,
        /// Its state.
        state: State,
    },
    /// A core's TLB has a translation.
    Tlb {
        /// Which core.
        core: u16,
        /// The TD's TDR page.
        tdr: L,
        /// A guest-linear address of the page.
        address: u64,
        /// False for `not`.
        holds: bool,
    },
}

/// Every global state of the module.
const SYS_STATES: [SysState; 5] = [
    SysState::SysInitPending,
    SysState::SysInitDone,
    SysState::SysConfigDone,
    SysState::SysReady,
    SysState::SysShutdown,
];

/// A final check with its addresses and KeyIDs resolved.
pub type BoundCheck = FinalCheck<sim_core::Line, Tagged, KeyId>;

impl<L, T, K> FinalCheck<L, T, K> {
    /// The same check with its addresses and KeyIDs turned into another form.
    ///
    /// # Errors
    /// The first error of the functions.
    pub fn try_map<L2, T2, K2, E>(
        self,
        mut line: impl FnMut(L) -> Result<L2, E>,
        tagged: impl FnOnce(T) -> Result<T2, E>,
        key: impl FnOnce(K) -> Result<K2, E>,
    ) -> Result<FinalCheck<L2, T2, K2>, E> {
        use FinalCheck as C;
        Ok(match self {
            C::Poisoned { at, holds } => C::Poisoned { at: line(at)?, holds },
            C::Td { at, holds } => C::Td { at: line(at)?, holds },
            C::Mac { at, holds } => C::Mac { at: line(at)?, holds },
            C::Cached { at, holds } => C::Cached { at: tagged(at)?, holds },
            C::Dirty { at, holds } => C::Dirty { at: tagged(at)?, holds },
            C::Writer { at, keyid } => C::Writer { at: line(at)?, keyid: key(keyid)? },
            C::Reads { at, pattern } => C::Reads { at: tagged(at)?, pattern },
            C::Panic { holds } => C::Panic { holds },
            C::TdxDisabled { holds } => C::TdxDisabled { holds },
            C::Ucna(n) => C::Ucna(n),
            C::Births(n) => C::Births(n),
            C::LivePoison(n) => C::LivePoison(n),
            C::PartialWrites(n) => C::PartialWrites(n),
            C::Module(state) => C::Module(state),
            C::Pamt { at, page_type } => C::Pamt { at: line(at)?, page_type },
            C::Owner { at, tdr } => C::Owner { at: line(at)?, tdr: line(tdr)? },
            C::Kot { keyid, state } => C::Kot { keyid: key(keyid)?, state },
            C::LifeCycle { tdr, state } => C::LifeCycle { tdr: line(tdr)?, state },
            C::OpState { tdr, state } => C::OpState { tdr: line(tdr)?, state },
            C::TdFatal { tdr, holds } => C::TdFatal { tdr: line(tdr)?, holds },
            C::Sept { tdr, gpa, level, state } => C::Sept { tdr: line(tdr)?, gpa, level, state },
            C::Tlb { core, tdr, address, holds } => {
                C::Tlb { core, tdr: line(tdr)?, address, holds }
            }
        })
    }
}

impl<L: fmt::Display, T: fmt::Display, K: fmt::Display> fmt::Display for FinalCheck<L, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FinalCheck as C;
        let not = |holds: &bool| if *holds { "" } else { "not " };
        match self {
            C::Poisoned { at, holds } => write!(f, "{}poisoned {at}", not(holds)),
            C::Td { at, holds } => write!(f, "{}td {at}", not(holds)),
            C::Mac { at, holds } => write!(f, "{}mac {at}", not(holds)),
            C::Cached { at, holds } => write!(f, "{}cached {at}", not(holds)),
            C::Dirty { at, holds } => write!(f, "{}dirty {at}", not(holds)),
            C::Writer { at, keyid } => write!(f, "writer {at} {keyid}"),
            C::Reads { at, pattern } => write!(f, "reads {at} {pattern}"),
            C::Panic { holds } => write!(f, "{}panic", not(holds)),
            C::TdxDisabled { holds } => write!(f, "{}tdx-disabled", not(holds)),
            C::Ucna(n) => write!(f, "ucna {n}"),
            C::Births(n) => write!(f, "births {n}"),
            C::LivePoison(n) => write!(f, "live-poison {n}"),
            C::PartialWrites(n) => write!(f, "partial-writes {n}"),
            C::Module(state) => write!(f, "module {}", state.name()),
            C::Pamt { at, page_type } => write!(f, "pamt {at} {page_type}"),
            C::Owner { at, tdr } => write!(f, "owner {at} {tdr}"),
            C::Kot { keyid, state } => write!(f, "kot {keyid} {state}"),
            C::LifeCycle { tdr, state } => write!(f, "life-cycle {tdr} {state}"),
            C::OpState { tdr, state } => write!(f, "op-state {tdr} {state}"),
            C::TdFatal { tdr, holds } => write!(f, "{}td-fatal {tdr}", not(holds)),
            C::Sept { tdr, gpa, level, state } => {
                write!(f, "sept {tdr} {gpa:#x}|{level} {}", state.name())
            }
            C::Tlb { core, tdr, address, holds } => {
                write!(f, "{}tlb {core} {tdr} {address:#x}", not(holds))
            }
        }
    }
}

const KEY: &str = "a KeyID: a number, privN or sharedN";

/// An address without brackets, read by the one grammar of operations.
pub(super) fn address(word: &str) -> Option<AddrExpr> {
    match format!("fetch [{word}]").parse::<TextOp>() {
        Ok(Op::Fetch { at }) if !word.is_empty() => Some(at),
        _ => None,
    }
}

fn addr(at: usize, word: &str, expected: &str) -> Result<AddrExpr, CheckParseError> {
    address(word).ok_or_else(|| trouble(at, word, expected))
}

/// An address of a line: no KeyID, for DRAM has none.
fn line(at: usize, word: &str) -> Result<AddrExpr, CheckParseError> {
    let expected = "an address without KeyID, such as 0x1000 or P0+0x40";
    let expr = addr(at, word, expected)?;
    if expr.key.is_some() { Err(trouble(at, word, expected)) } else { Ok(expr) }
}

/// An address under a KeyID.
fn tagged(at: usize, word: &str) -> Result<AddrExpr, CheckParseError> {
    let expected = "an address with its KeyID, such as 0x1000@0 or P0+0x40@priv1";
    let expr = addr(at, word, expected)?;
    if expr.key.is_none() { Err(trouble(at, word, expected)) } else { Ok(expr) }
}

/// A KeyID, read by the one grammar of operations.
pub(super) fn key_ref(word: &str) -> Option<KeyRef> {
    match format!("pconfig {word} clear").parse::<TextOp>() {
        Ok(Op::Pconfig { keyid, alg: None, .. }) if !word.is_empty() => Some(keyid),
        _ => None,
    }
}

/// A state by its name.
fn named<T: Copy>(
    at: usize,
    word: &str,
    names: impl IntoIterator<Item = (T, &'static str)>,
) -> Result<T, CheckParseError> {
    let names: Vec<(T, &str)> = names.into_iter().collect();
    let found = names.iter().find(|(_, name)| *name == word);
    found.map(|(value, _)| *value).ok_or_else(|| {
        let list: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        trouble(at, word, format!("one of {}", list.join(", ")))
    })
}

impl FromStr for FinalCheck {
    type Err = CheckParseError;

    fn from_str(text: &str) -> Result<FinalCheck, CheckParseError> {
        use FinalCheck as C;
        let mut tokens = words(text);
        // The next word, or where it would stand.
        let mut next = || tokens.next().unwrap_or((text.len(), ""));
        let (mut at, mut head) = next();
        let holds = head != "not";
        if !holds {
            (at, head) = next();
        }
        let form = FINAL_CHECKS.iter().find(|c| c.head == head && (holds || c.negatable));
        let Some(form) = form else {
            let forms = FINAL_CHECKS.iter().filter(|c| holds || c.negatable);
            let heads: Vec<&str> = forms.map(|c| c.head).collect();
            let not = if holds { ", or `not`" } else { " after `not`" };
            return Err(trouble(at, head, format!("one of {}{not}", heads.join(", "))));
        };
        let mut count = || {
            let (at, word) = next();
            let n = number(word).filter(|_| !word.starts_with("0x"));
            n.ok_or_else(|| trouble(at, word, "a decimal number"))
        };
        let check = match form.head {
            "ucna" => C::Ucna(count()?),
            "births" => C::Births(count()?),
            "live-poison" => C::LivePoison(count()?),
            "partial-writes" => C::PartialWrites(count()?),
            "panic" => C::Panic { holds },
            "tdx-disabled" => C::TdxDisabled { holds },
            "module" => {
                let (at, word) = next();
                C::Module(named(at, word, SYS_STATES.map(|s| (s, s.name())))?)
            }
            "kot" => {
                let (at, word) = next();
                let keyid = key_ref(word).ok_or_else(|| trouble(at, word, KEY))?;
                let (at, word) = next();
                let state = named(at, word, KOT_STATES.iter().map(|row| (row.state, row.name)))?;
                C::Kot { keyid, state }
            }
            "tlb" => {
                let (at, word) = next();
                let core = number(word).and_then(|n| u16::try_from(n).ok());
                let core = core.ok_or_else(|| trouble(at, word, "the number of a core"))?;
                let (at, word) = next();
                let tdr = line(at, word)?;
                let (at, word) = next();
                let expected = "a guest-linear address such as 0x1000";
                let address = number(word).ok_or_else(|| trouble(at, word, expected))?;
                C::Tlb { core, tdr, address, holds }
            }
            head => {
                let (at, word) = next();
                match head {
                    "td-fatal" => C::TdFatal { tdr: line(at, word)?, holds },
                    "pamt" => {
                        let page = line(at, word)?;
                        let (at, word) = next();
                        let types = PAGE_TYPES.iter().map(|row| (row.page_type, row.name));
                        C::Pamt { at: page, page_type: named(at, word, types)? }
                    }
                    "owner" => {
                        let page = line(at, word)?;
                        let (at, word) = next();
                        C::Owner { at: page, tdr: line(at, word)? }
                    }
                    "life-cycle" => {
                        let tdr = line(at, word)?;
                        let (at, word) = next();
                        let states = LIFECYCLES.iter().map(|row| (row.state, row.name));
                        C::LifeCycle { tdr, state: named(at, word, states)? }
                    }
                    "op-state" => {
                        let tdr = line(at, word)?;
                        let (at, word) = next();
                        let states = OP_STATES.iter().map(|row| (row.state, row.name));
                        C::OpState { tdr, state: named(at, word, states)? }
                    }
                    "sept" => {
                        let tdr = line(at, word)?;
                        let (at, word) = next();
                        let (gpa, level) = word.split_once('|').unwrap_or((word, ""));
                        let level = number(level).and_then(|n| u8::try_from(n).ok());
                        let both = number(gpa).zip(level.filter(|n| *n <= 4));
                        let expected = "GPA|LEVEL such as 0x200000|1";
                        let (gpa, level) = both.ok_or_else(|| trouble(at, word, expected))?;
                        let (at, word) = next();
                        let states = STATES.iter().map(|row| (row.state, row.name));
                        C::Sept { tdr, gpa, level, state: named(at, word, states)? }
                    }
                    "poisoned" => C::Poisoned { at: line(at, word)?, holds },
                    "td" => C::Td { at: line(at, word)?, holds },
                    "mac" => C::Mac { at: line(at, word)?, holds },
                    "cached" => C::Cached { at: tagged(at, word)?, holds },
                    "dirty" => C::Dirty { at: tagged(at, word)?, holds },
                    "writer" => {
                        let line = line(at, word)?;
                        let (at, word) = next();
                        let keyid = key_ref(word).ok_or_else(|| trouble(at, word, KEY))?;
                        C::Writer { at: line, keyid }
                    }
                    // "reads": the rest of the text is its pattern.
                    _ => {
                        let tag = tagged(at, word)?;
                        let start = (at + word.len()).min(text.len());
                        let rest = text.get(start..).unwrap_or("");
                        let pattern = rest.parse::<ReadPattern>().map_err(|mut e| {
                            e.at += start;
                            e
                        })?;
                        return Ok(C::Reads { at: tag, pattern });
                    }
                }
            }
        };
        match next() {
            (_, "") => Ok(check),
            (at, word) => Err(trouble(at, word, format!("nothing after `{check}`"))),
        }
    }
}
