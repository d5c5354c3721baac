//! A completion status, explained.

use super::advice::advice;
use super::read::{AnyLeaf, FoundStatus};
use super::{Explanation, Kind};
use sim_core::tdx::{
    DISPATCH, GUEST_DISPATCH, GUEST_LEAF_CHECKS, GuestCheck, GuestLeaf, GuestOutcome, Leaf,
    LeafChecks, Low, Operand, PageType, Reading, Return, STATUS_BITS, Status, who_returns,
};

pub(super) fn explain(found: &FoundStatus) -> Explanation {
    let status = found.status;
    let mut out = Explanation::new(Kind::SeamcallStatus, headline(status));
    out.cite("architecture.md §7.3");
    if let Reading::Module(row) = status.reading() {
        out.cite(row.cite);
    }
    flags(&mut out, status);
    low_half(&mut out, status);
    leaf(&mut out, found);
    match advice(status) {
        Some(row) => {
            out.field("usual cause", "", row.cause);
            out.field("what to do", "", row.remedy);
            out.cite(row.cite);
        }
        None => {
            if let Some(general) = by_flags(status) {
                out.field("what to do", "", general);
            }
        }
    }
    for (name, value) in &found.registers {
        out.field(name, format!("{value:#x}"), register(found, name, *value));
    }
    if found.upper_half {
        out.note("The number was read as the upper half of a status, as headers and fact sheets write them.");
    }
    if found.ambiguous {
        out.note("The same number is a plausible MCi_STATUS, explained below: only where it came from can tell.");
    }
    names(&mut out, status);
    out
}

fn headline(status: Status) -> String {
    let raw = format!("{:#018x}", status.0);
    match status.reading() {
        Reading::Module(row) => format!("{raw} = {status}: {}", row.meaning),
        Reading::Software(row) => format!("{raw} = {status}: {}", row.meaning),
        Reading::Variant(row) => {
            format!("{raw} = {status}, as Linux numbers it ({})", row.cite)
        }
        Reading::Unknown => format!("{raw} is not a completion status known here"),
    }
}

fn flags(out: &mut Explanation, status: Status) {
    let class = status.class_meaning().unwrap_or("no known class");
    out.field("class", format!("{:#04x}", status.class()), class);
    if matches!(status.reading(), Reading::Software(_)) {
        // The flags are the module's; this value is not.
        return;
    }
    out.field("details L1", format!("{:#04x}", status.details_l1()), "");
    for row in STATUS_BITS {
        let set = status.0 >> row.bit & 1 != 0;
        out.field(row.name, if set { "1" } else { "0" }, if set { row.set } else { row.clear });
    }
}

fn low_half(out: &mut Explanation, status: Status) {
    let low = status.low();
    match status.low_kind() {
        Low::Operand => {
            if let Some(operand) = status.operand() {
                let meaning = operand.meaning().unwrap_or("an id that the source does not have");
                out.field("operand", format!("{operand} ({})", operand.0), meaning);
            }
        }
        Low::ExitReason if status.code() == Status::SUCCESS && low == 0 => {
            out.note("From TDH.VP.ENTER the low half is the exit reason, and 0 is an exception or NMI; from every other leaf it is plain success.");
        }
        Low::ExitReason => {
            if let Some(reason) = status.exit_reason() {
                let meaning = reason.meaning().unwrap_or("not one that the module's source names");
                out.field("exit reason", reason.basic().to_string(), meaning);
                if low >> 31 == 1 {
                    out.note("Bit 31 of the exit reason: the VM entry failed.");
                }
                out.cite("architecture.md §7.11");
            }
        }
        Low::Msr => out.field("MSR", format!("{low:#x}"), "the MSR that was found wrong"),
        Low::Level => {
            let page = match low {
                0 => "4 KiB",
                1 => "2 MiB",
                2 => "1 GiB",
                _ => "no page size",
            };
            out.field("level", low.to_string(), page);
        }
        Low::Tdmr => {
            out.field("TDMR", (low & 0xFF).to_string(), "index in the array given to the leaf");
            out.field("area", (low >> 8 & 0xFF).to_string(), "index of the area in that TDMR");
            out.cite("architecture.md §7.9");
        }
        Low::Plain if low != 0 && matches!(status.reading(), Reading::Module(_)) => {
            out.field("low half", format!("{low:#x}"), "details that the sources do not explain");
        }
        Low::Plain => {}
    }
}

fn reason(ret: &Return) -> String {
    if ret.detail.is_empty() { ret.when.to_owned() } else { format!("{} {}", ret.when, ret.detail) }
}

fn leaf(out: &mut Explanation, found: &FoundStatus) {
    let ways = who_returns(found.status);
    match found.leaf {
        Some(AnyLeaf::Guest(leaf)) => {
            let what = leaf.row().map_or("", |row| row.meaning);
            out.field("leaf", format!("{leaf} (TDCALL {})", leaf.0), what);
            for (of, check) in guests(found.status) {
                if of.is_none_or(|of| of == leaf) {
                    out.field("outcome", "", check.when);
                    out.cite(check.cite);
                }
            }
        }
        Some(AnyLeaf::Host(leaf)) => {
            let what = leaf.row().map_or("not a leaf known here", |row| row.meaning);
            out.field("leaf", format!("{leaf} ({:#x})", leaf.0), what);
            let mine: Vec<String> = ways
                .iter()
                .filter(|(of, _)| *of == leaf)
                .map(|(_, ret)| reason(ret))
                .chain(dispatch(found.status))
                .collect();
            for way in &mine {
                out.field("failed check", "", way.as_str());
            }
            if mine.is_empty() && found.status.is_error() {
                out.note(match leaf.checks() {
                    Some(_) => "No check of this leaf in architecture.md §7.9 returns this status: another module version, or the leaf is not this one.",
                    None => "The checks of this leaf are not described in architecture.md §7.9.",
                });
            }
            out.cite(LeafChecks::CITE);
        }
        None => {
            returned_by(out, &ways);
            for way in dispatch(found.status) {
                out.field("returned by", "any leaf", way);
            }
            for (leaf, check) in guests(found.status) {
                let name = leaf.map_or_else(|| String::from("any TDCALL"), |leaf| leaf.to_string());
                let how = match check.outcome {
                    GuestOutcome::Exits { .. } => "TDH.VP.ENTER returns it: ",
                    GuestOutcome::Returns(_) | GuestOutcome::Reexecutes => "",
                };
                out.field("in a guest", name, format!("{how}{}", check.when));
                out.cite(check.cite);
            }
        }
    }
}

/// What the dispatcher checks before any leaf.
fn dispatch(status: Status) -> impl Iterator<Item = String> {
    let operand = |s: Status| s.operand().unwrap_or(Operand::RAX);
    DISPATCH
        .iter()
        .flat_map(|check| check.returns())
        .filter(move |ret| {
            ret.status.code() == status.code() && operand(ret.status) == operand(status)
        })
        .map(|ret| reason(&ret))
}

/// The outcomes of TDCALLs with this status; `None` for those of every leaf.
fn guests(status: Status) -> impl Iterator<Item = (Option<GuestLeaf>, &'static GuestCheck)> {
    let every = GUEST_DISPATCH.iter().map(|check| (None, check));
    let each = GUEST_LEAF_CHECKS
        .iter()
        .flat_map(|row| row.checks.iter().map(move |check| (Some(row.leaf), check)));
    let operand = status.low_kind() == Low::Operand;
    let exit = status.low_kind() == Low::ExitReason;
    every.chain(each).filter(move |(_, check)| {
        let (GuestOutcome::Returns(of) | GuestOutcome::Exits { rax: of, .. }) = check.outcome
        else {
            return false;
        };
        of.code() == status.code() && (!(operand || exit) || of.low() == status.low())
    })
}

/// One field per reason, with all leaves that have it.
fn returned_by(out: &mut Explanation, ways: &[(Leaf, Return)]) {
    let mut groups: Vec<(String, Vec<Leaf>)> = Vec::new();
    for (leaf, ret) in ways {
        let why = reason(ret);
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, leaves)) => leaves.push(*leaf),
            None => groups.push((why, vec![*leaf])),
        }
    }
    for (why, leaves) in groups {
        let names: Vec<String> = leaves.iter().map(Leaf::to_string).collect();
        out.field("returned by", names.join(", "), why);
    }
    if !ways.is_empty() {
        out.cite(LeafChecks::CITE);
    }
}

/// What an output register says, where the leaf tables tell.
fn register(found: &FoundStatus, name: &str, value: u64) -> String {
    let reclaim = matches!(
        found.leaf,
        Some(AnyLeaf::Host(Leaf::PHYMEM_PAGE_RECLAIM | Leaf::PHYMEM_PAGE_RDMD))
    );
    let walked =
        matches!(found.status.code(), Status::EPT_WALK_FAILED | Status::EPT_ENTRY_STATE_INCORRECT);
    match name {
        "RCX" if reclaim => match PageType::from_code(value) {
            Some(page_type) => format!("page type {page_type}"),
            None => String::from("no page type; maybe the operand itself"),
        },
        "RDX" if reclaim => String::from("the owner's TDR"),
        "R8" if reclaim => String::from("page size"),
        "RCX" if walked => String::from("the Secure-EPT entry at which it stopped"),
        "RDX" if walked => format!("level {}, state {}", value & 7, value >> 8 & 0xFF),
        _ => String::new(),
    }
}

fn by_flags(status: Status) -> Option<&'static str> {
    match status.reading() {
        Reading::Unknown if status.is_error() => Some(
            "look the number up in the error codes of the module version that runs; the flags above hold for every version",
        ),
        _ if status.is_fatal() => Some("tear the TD down"),
        _ if status.is_non_recoverable() => Some("do not retry; the call or the state must change"),
        _ if status.is_error() => Some("retry later"),
        _ => None,
    }
}

/// Names that differ between sources (architecture.md §10.1 D-09, §10.2 D-21, D-24).
fn names(out: &mut Explanation, status: Status) {
    match status.reading() {
        Reading::Variant(row) => {
            out.note(format!(
                "The module's source returns {} as {:08X} in the upper half; Linux compares with {:08X}. This is \
                 Linux's number: real modules of the version read do not return it.",
                row.name,
                row.module.0 >> 32,
                row.status.0 >> 32
            ));
            out.cite(row.cite);
        }
        Reading::Module(row) => {
            for variant in sim_core::tdx::LINUX_VARIANTS {
                if variant.module == row.status {
                    out.note(format!(
                        "Linux's headers have {:08X} for this name; {:08X} is what the module's source returns, so a \
                         kernel that compares with its own number does not recognise it.",
                        variant.status.0 >> 32,
                        row.status.0 >> 32
                    ));
                    out.cite(variant.cite);
                }
            }
            if row.status == Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE {
                out.note("The specification calls it TDX_NON_RECOVERABLE_TD_FATAL; it is the same number.");
                out.cite("architecture.md §10.1 D-09");
            }
            if row.status == Status::TD_FATAL {
                out.note("This is what host leaves return on a TD made fatal; descriptions of Linux speak of NON_RECOVERABLE_TD there.");
                out.cite("architecture.md §10.2 D-24");
            }
        }
        Reading::Software(row) => out.cite(row.cite),
        Reading::Unknown => {}
    }
}
