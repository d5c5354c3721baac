//! From text to what there is to explain.

use super::{ExplainError, FINDINGS_MAX};
use sim_core::mca::{McStatus, McgStatus};
use sim_core::tdx::{ExitReason, GuestLeaf, Leaf, OPERANDS, Reading, STATUSES, Status};
use sim_core::units::clip;

/// Registers that came with a status, at most.
const REGISTERS_MAX: usize = 8;
/// Characters of log text that are repeated in an explanation.
const QUOTE_MAX: usize = 72;

/// A leaf of either kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AnyLeaf {
    Host(Leaf),
    Guest(GuestLeaf),
}

/// A status and what came with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FoundStatus {
    pub(super) status: Status,
    /// Given as its upper half alone.
    pub(super) upper_half: bool,
    /// The same number could be an MCi_STATUS.
    pub(super) ambiguous: bool,
    pub(super) leaf: Option<AnyLeaf>,
    pub(super) registers: Vec<(String, u64)>,
}

/// An MCi_STATUS and what came with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct FoundMce {
    pub(super) status: McStatus,
    pub(super) ambiguous: bool,
    pub(super) mcg: Option<McgStatus>,
    pub(super) cpu: Option<u64>,
    pub(super) bank: Option<u64>,
    pub(super) addr: Option<u64>,
    pub(super) misc: Option<u64>,
    /// Code segment and what stands behind it in the RIP line.
    pub(super) rip: Option<(u64, String)>,
    /// CPUID leaf 1 EAX of the PROCESSOR line.
    pub(super) cpuid: Option<u64>,
    /// What Linux graded it as.
    pub(super) message: Option<String>,
    /// The line "TDX private memory error. Possible kernel bug."
    pub(super) tdx_hint: bool,
    pub(super) panic: Option<String>,
}

/// One thing to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    Status(FoundStatus),
    Mce(Box<FoundMce>),
    Addr(u64),
}

fn quote(text: &str) -> String {
    let text = text.trim();
    let mut out: String = text.chars().take(QUOTE_MAX).collect();
    if text.chars().nth(QUOTE_MAX).is_some() {
        out.push('…');
    }
    out
}

/// The number that a word of hexadecimal digits is, with or without `0x`, `_` between digits, and C's suffix.
fn hex(word: &str) -> Option<u64> {
    let word = word.trim_end_matches(['u', 'U', 'l', 'L']);
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(&digits, 16).ok()
}

fn prefixed(word: &str) -> Option<u64> {
    (word.starts_with("0x") || word.starts_with("0X")).then(|| hex(word)).flatten()
}

fn decimal(word: &str) -> Option<u64> {
    let all_digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| word.parse().ok()).flatten()
}

/// What a word may be as a number, likeliest first. Without `0x`, sixteen digits are how kernels print hexadecimal.
fn candidates(word: &str) -> Vec<u64> {
    if let Some(value) = prefixed(word) {
        return vec![value];
    }
    if let Some(rest) = word.strip_prefix('-') {
        // A status printed as a signed number.
        let signed = decimal(rest).and_then(|v| 0i64.checked_sub_unsigned(v));
        return signed.map(|v| v.cast_unsigned()).into_iter().collect();
    }
    let (as_hex, as_decimal) = (hex(word), decimal(word));
    let both = if word.len() == 16 { [as_hex, as_decimal] } else { [as_decimal, as_hex] };
    both.into_iter().flatten().collect()
}

/// Whether the status tables know the value. An exit reason that the processor does not have makes no success.
fn is_known(status: Status) -> bool {
    match status.reading() {
        Reading::Unknown => false,
        _ if status.code() == Status::SUCCESS => {
            let reason = ExitReason(status.low());
            matches!(status.low() >> 16, 0 | 0x8000) && reason.meaning().is_some()
        }
        _ => true,
    }
}

/// Memory-controller errors: 000F 0000 1MMM CCCC (architecture.md §6.2).
pub(super) fn is_memory_controller(mcacod: u16) -> bool {
    mcacod & 0xEF80 == 0x0080
}

fn is_likely_mce(value: u64) -> bool {
    let parts = McStatus(value).unpack();
    let code = parts.mcacod;
    parts.val
        && parts.en
        && (matches!(code, 0x0134 | 0x0150 | 0x017A) || is_memory_controller(code))
}

fn found_status(status: Status) -> FoundStatus {
    FoundStatus { status, upper_half: false, ambiguous: false, leaf: None, registers: Vec::new() }
}

/// How a bare number may be read: none, one or two ways.
fn readings(value: u64) -> Vec<Finding> {
    let status = Status(value);
    if is_known(status) {
        let both = is_likely_mce(value);
        let mut out =
            vec![Finding::Status(FoundStatus { ambiguous: both, ..found_status(status) })];
        if both {
            out.push(mce(FoundMce {
                status: McStatus(value),
                ambiguous: true,
                ..FoundMce::default()
            }));
        }
        return out;
    }
    let upper = Status(value << 32);
    if value <= u64::from(u32::MAX) {
        if value != 0 && upper.reading() != Reading::Unknown {
            let found = FoundStatus { upper_half: true, ..found_status(upper) };
            return vec![Finding::Status(found)];
        }
        return Vec::new();
    }
    if !status.is_error() {
        return Vec::new();
    }
    // No status uses bits 59:48, and an MCi_STATUS without any of them says next to nothing.
    let class_or_details = value >> 32 & 0xFFFF;
    if status.reserved() == 0 && class_or_details != 0 && !is_likely_mce(value) {
        return vec![Finding::Status(found_status(status))];
    }
    vec![mce(FoundMce { status: McStatus(value), ..FoundMce::default() })]
}

fn mce(found: FoundMce) -> Finding {
    Finding::Mce(Box::new(found))
}

/// A leaf by name, also as Linux's wrappers have it (`tdh_phymem_page_wbinvd_hkid`).
fn leaf_by_name(word: &str) -> Option<AnyLeaf> {
    let mut name = word.trim_matches('.');
    let head = name.get(..3)?;
    if !head.eq_ignore_ascii_case("tdh") && !head.eq_ignore_ascii_case("tdg") {
        return None;
    }
    // Longer than any name: bounds the work on hostile text.
    if name.len() > 64 {
        return None;
    }
    loop {
        if let Some(leaf) = Leaf::from_name(name) {
            return Some(AnyLeaf::Host(leaf));
        }
        if let Some(leaf) = GuestLeaf::from_name(name) {
            return Some(AnyLeaf::Guest(leaf));
        }
        name = name.rsplit_once('_')?.0;
    }
}

fn leaf_by_number(value: u64) -> AnyLeaf {
    // RAX[15:0]; above it stands the version (architecture.md §7.1 point 3).
    AnyLeaf::Host(Leaf(value as u16))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/')))
        .map(|word| word.trim_end_matches(['.', '-']))
        .filter(|word| !word.is_empty())
}

fn register(word: &str) -> Option<&'static str> {
    const NAMES: &[(&str, &str)] = &[
        ("rcx", "RCX"),
        ("rdx", "RDX"),
        ("r8", "R8"),
        ("r08", "R8"),
        ("r9", "R9"),
        ("r09", "R9"),
        ("r10", "R10"),
        ("r11", "R11"),
        ("r12", "R12"),
        ("r13", "R13"),
    ];
    NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, full)| *full)
}

fn registers(line: &str, into: &mut Vec<(String, u64)>) {
    let mut name = None;
    for word in words(line) {
        if let (Some(name), Some(value)) = (name, prefixed(word))
            && into.len() < REGISTERS_MAX
        {
            into.push((String::from(name), value));
        }
        name = register(word);
    }
}

/// "CPU 147: Machine Check Exception: f Bank 1: bd80000000100134".
fn mce_head(line: &str, lower: &str) -> Option<FoundMce> {
    let at = lower.find("machine check")?;
    let all: Vec<&str> = words(line.get(at..)?).take(12).collect();
    let bank_at = all.iter().position(|word| word.eq_ignore_ascii_case("bank"))?;
    let status = hex(all.get(bank_at + 2)?)?;
    let mcg = bank_at.checked_sub(1).and_then(|i| all.get(i)).and_then(|word| hex(word));
    let mut before = words(line.get(..at)?);
    let cpu = before.find(|word| word.eq_ignore_ascii_case("cpu")).and(before.next());
    Some(FoundMce {
        status: McStatus(status),
        mcg: mcg.map(McgStatus),
        bank: all.get(bank_at + 1).and_then(|word| decimal(word)),
        cpu: cpu.and_then(decimal),
        ..FoundMce::default()
    })
}

/// The lines that Linux prints below the first of a machine check; true when the line is one of them.
fn mce_tail(line: &str, lower: &str, found: &mut FoundMce) -> bool {
    let text_after = |key: &str| -> Option<String> {
        let at = lower.find(key)?;
        line.get(at + key.len()..).map(quote)
    };
    if let Some(text) = text_after("kernel panic - not syncing:") {
        found.panic.get_or_insert(text);
        return true;
    }
    if let Some(text) = text_after("machine check:") {
        if text.starts_with("TDX private memory error") {
            found.tdx_hint = true;
        } else {
            found.message.get_or_insert(text);
        }
        return true;
    }
    if let Some(text) = text_after("rip ") {
        let inexact = "!INEXACT!";
        let text = text.trim_start_matches(inexact).trim();
        let (cs, rest) = text.split_once(':').unwrap_or((text, ""));
        if let Some(cs) = hex(cs) {
            found.rip.get_or_insert((cs, quote(rest)));
        }
        return true;
    }
    if let Some(text) = text_after("processor ") {
        found.cpuid = found.cpuid.or_else(|| words(&text).nth(1).and_then(hex));
        return true;
    }
    let mut last = "";
    let mut any = false;
    for word in words(line) {
        match last {
            "ADDR" => found.addr = found.addr.or_else(|| hex(word)),
            "MISC" => found.misc = found.misc.or_else(|| hex(word)),
            _ => {}
        }
        any |= matches!(word, "ADDR" | "MISC" | "TSC");
        last = word;
    }
    any
}

/// A line of a SEAMCALL or TDCALL that failed.
fn seamcall(line: &str, lower: &str) -> Option<FoundStatus> {
    let about_tdx = ["seamcall", "tdcall", "tdh_", "tdh.", "tdg_", "tdg.", "tdx"];
    if !about_tdx.iter().any(|key| lower.contains(key)) {
        return None;
    }
    let mut leaf = words(line).find_map(leaf_by_name);
    let mut previous = "";
    let mut numbers = Vec::new();
    let mut after_failed = None;
    for word in words(line) {
        if ["failed", "err", "error", "status", "returned", "ret"]
            .iter()
            .any(|key| word.eq_ignore_ascii_case(key))
        {
            after_failed.get_or_insert(numbers.len());
        }
        let bare = if word.len() == 16 { hex(word) } else { None };
        if let Some(value) = prefixed(word).or(bare) {
            let named =
                previous.eq_ignore_ascii_case("seamcall") || previous.eq_ignore_ascii_case("leaf");
            if named && value <= 0xFF_FFFF {
                leaf = leaf.or(Some(leaf_by_number(value)));
            } else if register(previous).is_none() && numbers.len() < 32 {
                numbers.push(value);
            }
        }
        previous = word;
    }
    let first = numbers.get(after_failed.unwrap_or(0)..)?;
    let known = |value: &&u64| is_known(Status(**value));
    let status = first
        .iter()
        .find(|value| **value > u64::from(u32::MAX) && known(value))
        .or_else(|| first.iter().find(|value| Status(**value).is_error()))
        .or_else(|| after_failed.and_then(|_| first.first()))?;
    let mut found = FoundStatus { leaf, ..found_status(Status(*status)) };
    registers(line, &mut found.registers);
    Some(found)
}

fn in_log(text: &str) -> (Vec<Finding>, bool) {
    let mut out: Vec<Finding> = Vec::new();
    for line in text.lines() {
        let lower = line.to_ascii_lowercase();
        if let Some(head) = mce_head(line, &lower) {
            if out.len() == FINDINGS_MAX {
                return (out, true);
            }
            out.push(mce(head));
            continue;
        }
        if let Some(Finding::Mce(found)) = out.last_mut()
            && mce_tail(line, &lower, found)
        {
            continue;
        }
        if let Some(found) = seamcall(line, &lower) {
            let found = Finding::Status(found);
            if out.contains(&found) {
                continue;
            }
            if out.len() == FINDINGS_MAX {
                return (out, true);
            }
            out.push(found);
            continue;
        }
        if let Some(Finding::Status(found)) = out.last_mut() {
            registers(line, &mut found.registers);
        }
    }
    (out, false)
}

/// Keys of `key=value` and of `KEY value`.
fn key(word: &str) -> Option<&'static str> {
    const KEYS: &[(&str, &str)] = &[
        ("status", "status"),
        ("mci_status", "status"),
        ("mcistatus", "status"),
        ("rax", "status"),
        ("mcg", "mcg"),
        ("mcgstatus", "mcg"),
        ("mcg_status", "mcg"),
        ("addr", "addr"),
        ("mci_addr", "addr"),
        ("misc", "misc"),
        ("mci_misc", "misc"),
        ("bank", "bank"),
        ("cpu", "cpu"),
        ("leaf", "leaf"),
    ];
    KEYS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, full)| *full)
}

fn status_by_name(word: &str) -> Option<Status> {
    STATUSES
        .iter()
        .find(|row| {
            let short = row.name.strip_prefix("TDX_").unwrap_or(row.name);
            word.eq_ignore_ascii_case(row.name) || word.eq_ignore_ascii_case(short)
        })
        .map(|row| row.status)
}

#[derive(Default)]
struct Given<'a> {
    numbers: Vec<&'a str>,
    status: Option<&'a str>,
    named: Option<Status>,
    mce: FoundMce,
    leaf: Option<AnyLeaf>,
    registers: Vec<(String, u64)>,
}

fn word_error(word: &str) -> ExplainError {
    ExplainError::Word { found: clip(word) }
}

fn given(text: &str) -> Result<Given<'_>, ExplainError> {
    let mut given = Given::default();
    let separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '=' | ':' | '|' | '`');
    let mut words = text.split(separator).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if let Some(name) = key(word) {
            let value = words.next().ok_or_else(|| word_error(word))?;
            let number = || hex(value).ok_or_else(|| word_error(value));
            let count =
                || decimal(value).or_else(|| prefixed(value)).ok_or_else(|| word_error(value));
            match name {
                "status" => given.status = Some(value),
                "mcg" => given.mce.mcg = Some(McgStatus(number()?)),
                "addr" => given.mce.addr = Some(number()?),
                "misc" => given.mce.misc = Some(number()?),
                "bank" => given.mce.bank = Some(count()?),
                "cpu" => given.mce.cpu = Some(count()?),
                _ => {
                    given.leaf = match leaf_by_name(value) {
                        Some(leaf) => Some(leaf),
                        None => match count()? {
                            number @ 0..=0xFF_FFFF => Some(leaf_by_number(number)),
                            _ => return Err(word_error(value)),
                        },
                    }
                }
            }
        } else if let (Some(name), None) = (register(word), given.named) {
            let value = words.next().ok_or_else(|| word_error(word))?;
            let value = hex(value).ok_or_else(|| word_error(value))?;
            if given.registers.len() < REGISTERS_MAX {
                given.registers.push((String::from(name), value));
            }
        } else if let Some(status) = status_by_name(word) {
            given.named = Some(status);
        } else if let (Some(status), Some(row)) =
            (given.named, OPERANDS.iter().find(|row| row.name.eq_ignore_ascii_case(word)))
        {
            given.named = Some(status.code().about(row.operand));
        } else if let Some(leaf) = leaf_by_name(word) {
            given.leaf = Some(leaf);
        } else if !candidates(word).is_empty() {
            given.numbers.push(word);
        } else {
            return Err(word_error(word));
        }
    }
    Ok(given)
}

fn from_words(text: &str) -> Result<Vec<Finding>, ExplainError> {
    let mut given = given(text)?;
    if let Some(status) = given.status {
        given.numbers.insert(0, status);
    }
    if let Some(status) = given.named {
        let registers = given.registers;
        let found = FoundStatus { leaf: given.leaf, registers, ..found_status(status) };
        return Ok(vec![Finding::Status(found)]);
    }
    let (main, second) = match given.numbers.as_slice() {
        [] => {
            return match given.mce.addr {
                Some(addr) => Ok(vec![Finding::Addr(addr)]),
                None => Err(word_error(text.trim())),
            };
        }
        [main] => (*main, None),
        [main, second] => (*main, Some(hex(second).ok_or_else(|| word_error(second))?)),
        many => return Err(ExplainError::TooMany { count: many.len() }),
    };
    let mut found = given.mce;
    found.mcg = found.mcg.or(second.map(McgStatus));
    let is_mce = found.mcg.is_some() || found.addr.is_some() || found.bank.is_some();
    let number_error = || ExplainError::Number { found: clip(main) };
    if is_mce {
        let value = if given.status.is_some() { hex(main) } else { None };
        let value = value.or_else(|| candidates(main).first().copied());
        found.status = McStatus(value.ok_or_else(number_error)?);
        return Ok(vec![mce(found)]);
    }
    let mut readings = candidates(main)
        .into_iter()
        .map(readings)
        .find(|readings| !readings.is_empty())
        .ok_or_else(number_error)?;
    for finding in &mut readings {
        match finding {
            Finding::Status(status) => {
                status.leaf = given.leaf;
                status.registers.clone_from(&given.registers);
            }
            Finding::Mce(mce) => {
                mce.cpu = found.cpu;
                mce.misc = found.misc;
            }
            Finding::Addr(_) => {}
        }
    }
    Ok(readings)
}

/// What there is to explain in a text, and whether there is more than [`FINDINGS_MAX`].
pub(super) fn findings(input: &str) -> Result<(Vec<Finding>, bool), ExplainError> {
    let text: String =
        input.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    if text.trim().is_empty() {
        return Err(ExplainError::Empty);
    }
    // Names alone (`TDX_…`, `leaf=TDH.…`) are words too, so the words are tried first where there is but one line.
    if text.trim().lines().count() == 1
        && let Ok(found) = from_words(&text)
    {
        return Ok((found, false));
    }
    let (found, more) = in_log(&text);
    if found.is_empty() { from_words(&text).map(|found| (found, false)) } else { Ok((found, more)) }
}
