//! What may be asked for by name: a leaf, a state, a page type, a Secure-EPT entry, an exit reason, a metadata field.

use super::read::AnyLeaf;
use super::{ExplainError, Explanation, leaf, state};
use sim_core::tdx::{GuestLeaf, Leaf, PAGE_TYPES, PageType};
use sim_core::units::clip;
use tdx_module::SysState;
use tdx_module::metadata::{find_metadata, metadata_fields};
use tdx_module::op_state::{KOT_STATES, KotState, LIFECYCLES, Lifecycle, OP_STATES, OpState};
use tdx_module::sept::{Entry, STATES, State};

/// Longer than any name: bounds the work on hostile text.
const NAME_MAX: usize = 64;

/// Something that has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    Leaf(AnyLeaf),
    PageType(PageType),
    SeptState(State),
    OpState(OpState),
    Lifecycle(Lifecycle),
    Kot(KotState),
    Module(SysState),
}

impl Subject {
    pub(super) fn explain(self) -> Explanation {
        match self {
            Subject::Leaf(AnyLeaf::Host(leaf)) => leaf::host(leaf),
            Subject::Leaf(AnyLeaf::Guest(leaf)) => leaf::guest(leaf),
            Subject::PageType(page_type) => state::page_type(page_type),
            Subject::SeptState(state) => state::sept(state),
            Subject::OpState(state) => state::op_state(state),
            Subject::Lifecycle(state) => state::lifecycle(state),
            Subject::Kot(state) => state::kot(state),
            Subject::Module(state) => state::module(state),
        }
    }
}

/// Same name but for case and for what stands between the words.
fn same(a: &str, b: &str) -> bool {
    let fold = |c: u8| match c {
        b'_' | b'-' => b'.',
        c => c.to_ascii_uppercase(),
    };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| fold(a) == fold(b))
}

/// The leaves of a name: with or without TDH or TDG, words apart by `.`, `_` or `-`, in any case.
fn leaves_of(name: &str) -> Vec<AnyLeaf> {
    let is = |full: &str| same(full, name) || full.get(4..).is_some_and(|short| same(short, name));
    let host = sim_core::tdx::LEAVES.iter().filter(|row| is(row.name));
    let guest = sim_core::tdx::GUEST_LEAVES.iter().filter(|row| is(row.name));
    host.map(|row| AnyLeaf::Host(Leaf(row.number)))
        .chain(guest.map(|row| AnyLeaf::Guest(GuestLeaf(row.number))))
        .collect()
}

fn page_type(name: &str) -> Option<PageType> {
    let is = |full: &str| same(full, name) || full.get(3..).is_some_and(|short| same(short, name));
    PAGE_TYPES.iter().find(|row| is(row.name)).map(|row| row.page_type)
}

const MODULE_STATES: [SysState; 5] = [
    SysState::SysInitPending,
    SysState::SysInitDone,
    SysState::SysConfigDone,
    SysState::SysReady,
    SysState::SysShutdown,
];

/// Everything of this name.
pub(super) fn named(name: &str) -> Vec<Subject> {
    if name.len() > NAME_MAX {
        return Vec::new();
    }
    let mut all: Vec<Subject> = leaves_of(name).into_iter().map(Subject::Leaf).collect();
    all.extend(page_type(name).map(Subject::PageType));
    all.extend(STATES.iter().filter(|r| same(r.name, name)).map(|r| Subject::SeptState(r.state)));
    all.extend(OP_STATES.iter().filter(|r| same(r.name, name)).map(|r| Subject::OpState(r.state)));
    all.extend(
        LIFECYCLES.iter().filter(|r| same(r.name, name)).map(|r| Subject::Lifecycle(r.state)),
    );
    all.extend(KOT_STATES.iter().filter(|r| same(r.name, name)).map(|r| Subject::Kot(r.state)));
    all.extend(MODULE_STATES.into_iter().filter(|s| same(s.name(), name)).map(Subject::Module));
    all
}

fn number(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match hex {
        Some(digits) if !digits.starts_with('+') => {
            let digits: String = digits.chars().filter(|c| *c != '_').collect();
            u64::from_str_radix(&digits, 16).ok()
        }
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// A word that says what kind of thing the next word is.
struct Keyword {
    words: &'static [&'static str],
    /// What may follow, for the message.
    expected: &'static str,
    explain: fn(&str) -> Vec<Explanation>,
}

/// By number with `of_number`, else by name those of `wanted`.
fn pick(
    text: &str,
    of_number: impl Fn(u64) -> Option<Subject>,
    wanted: fn(&Subject) -> bool,
) -> Vec<Explanation> {
    let subjects = match number(text) {
        Some(number) => of_number(number).into_iter().collect(),
        None => named(text),
    };
    subjects.into_iter().filter(wanted).map(Subject::explain).collect()
}

fn host_leaf(number: u64) -> Option<Subject> {
    // RAX[15:0]; above it stands the version (architecture.md §7.1 point 3).
    let leaf = Leaf(number as u16);
    (number >> 24 == 0 && leaf.row().is_some()).then_some(Subject::Leaf(AnyLeaf::Host(leaf)))
}
fn guest_leaf(number: u64) -> Option<Subject> {
    let leaf = GuestLeaf(number as u16);
    (number >> 24 == 0 && leaf.row().is_some()).then_some(Subject::Leaf(AnyLeaf::Guest(leaf)))
}

const KEYWORDS: &[Keyword] = &[
    Keyword {
        words: &["leaf", "seamcall"],
        expected: "the name or number of a SEAMCALL leaf",
        explain: |text| pick(text, host_leaf, |s| matches!(s, Subject::Leaf(_))),
    },
    Keyword {
        words: &["tdcall"],
        expected: "the name or number of a TDCALL leaf",
        explain: |text| pick(text, guest_leaf, |s| matches!(s, Subject::Leaf(AnyLeaf::Guest(_)))),
    },
    Keyword {
        words: &["sept", "secure-ept"],
        expected: "a Secure-EPT entry as a number, or the name of a state",
        explain: |text| match number(text) {
            Some(entry) => vec![state::entry(Entry(entry))],
            None => pick(text, |_| None, |s| matches!(s, Subject::SeptState(_))),
        },
    },
    Keyword {
        words: &["page-type", "pt"],
        expected: "the name or number of a page type",
        explain: |text| {
            let of = |n| PageType::from_code(n).map(Subject::PageType);
            pick(text, of, |s| matches!(s, Subject::PageType(_)))
        },
    },
    Keyword {
        words: &["op-state"],
        expected: "the name or number of an OP_STATE",
        explain: |text| {
            let of = |n| OpState::from_code(n).map(Subject::OpState);
            pick(text, of, |s| matches!(s, Subject::OpState(_)))
        },
    },
    Keyword {
        words: &["lifecycle", "life-cycle"],
        expected: "the name or number of a TD's life-cycle state",
        explain: |text| {
            let of = |n| Lifecycle::from_code(n).map(Subject::Lifecycle);
            pick(text, of, |s| matches!(s, Subject::Lifecycle(_)))
        },
    },
    Keyword {
        words: &["kot"],
        expected: "the name or number of an HKID's state",
        explain: |text| {
            let of = |n| KotState::from_code(n).map(Subject::Kot);
            pick(text, of, |s| matches!(s, Subject::Kot(_)))
        },
    },
    Keyword {
        words: &["exit", "exit-reason"],
        expected: "the number of an exit reason",
        explain: |text| number(text).and_then(state::exit_reason).into_iter().collect(),
    },
    Keyword {
        words: &["field", "metadata"],
        expected: "the id or name of a metadata field",
        explain: |text| {
            let found = match number(text) {
                Some(id) => find_metadata(id),
                None => metadata_fields().filter(|f| same(f.name, text)).map(|f| (f, 0)).collect(),
            };
            found.into_iter().map(|(field, element)| state::metadata(&field, element)).collect()
        },
    },
];

/// Two words of which the first says what the second is; `None` where the first does not.
pub(super) fn keyword(text: &str) -> Option<Result<Vec<Explanation>, ExplainError>> {
    let mut words = text.split(|c: char| c.is_whitespace() || c == '=').filter(|w| !w.is_empty());
    let (Some(first), Some(second), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let keyword = KEYWORDS.iter().find(|k| k.words.iter().any(|word| same(word, first)))?;
    let found = if second.len() > NAME_MAX { Vec::new() } else { (keyword.explain)(second) };
    Some(if found.is_empty() {
        Err(ExplainError::Subject { found: clip(second), expected: keyword.expected })
    } else {
        Ok(found)
    })
}
