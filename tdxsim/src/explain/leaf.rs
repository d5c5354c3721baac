//! A SEAMCALL or TDCALL leaf, explained: what it takes, checks, locks, touches and leaves behind.

use super::{Explanation, Kind};
use sim_core::tdx::{
    GUEST_DISPATCH, GuestCheck, GuestLeaf, GuestOutcome, Leaf, LeafChecks, Low, Status,
};
use tdx_module::op_state::{OP_STATES, allowed};
use tdx_module::profile::{LockRow, Lockable, Present, Profile, guest_profile, profile};
use tdx_module::sept::{LEAF_STATES, OPS, SeptOp, TRANSITIONS};
use tdx_module::{BEFORE_READY, FAILURE_EFFECTS, GUEST_NOT_MODELLED, NOT_MODELLED};

/// A status without the parts that differ from call to call.
fn status(status: Status) -> String {
    match status.name() {
        Some(name) if status.low() == 0 && status.low_kind() != Low::Operand => name.to_owned(),
        _ => status.to_string(),
    }
}

fn shape<L>(out: &mut Explanation, row: &Profile<L>) {
    let versions = match row.version {
        0 => String::from("0"),
        highest => format!("0 to {highest}"),
    };
    out.field("version", versions, row.versions);
    if row.present != Present::Always {
        out.field("present in", row.present.words(), "");
    }
    for operand in row.operands {
        out.field("takes", operand.name, operand.meaning);
    }
    for result in row.results {
        out.field("returns", result.name, result.meaning);
    }
}

fn work<L>(out: &mut Explanation, row: &Profile<L>) {
    if row.locks.is_empty() {
        out.field("locks", "none", "");
    }
    for lock in row.locks {
        out.field("locks", "", lock.words());
    }
    if row.touches.is_empty() {
        out.field("touches", "nothing", "but its registers and the module's own memory");
    }
    for touch in row.touches {
        out.field("touches", "", touch.words());
    }
    out.field("interrupt", row.interrupted.words(), row.resume);
    let costs: Vec<&str> = row.costs.iter().map(|cost| cost.parameter()).collect();
    out.field("fixed costs", costs.join(", "), "all assumed; memory traffic comes on top");
    for note in row.notes {
        out.note(*note);
    }
    for cite in row.cite.split("; ") {
        out.cite(cite);
    }
}

/// Whether a failure may leave a lock kept for the host.
fn has_host_priority(lock: &LockRow) -> bool {
    matches!(lock.of, Lockable::OpState | Lockable::SeptEntry | Lockable::SeptChildren)
}

fn op_states(out: &mut Explanation, leaf: Leaf) {
    let names: Vec<&str> = OP_STATES
        .iter()
        .filter(|row| allowed(leaf, row.state) == Some(true))
        .map(|row| row.name)
        .collect();
    if !names.is_empty() {
        out.field("OP_STATEs", names.join(", "), "");
        out.cite("architecture.md §7.5");
    }
}

fn transitions(out: &mut Explanation, of: impl Fn(SeptOp) -> bool) {
    for op in OPS.into_iter().filter(|op| of(*op)) {
        for row in TRANSITIONS.iter().filter(|row| row.op == op) {
            out.field("entry", format!("{} → {}", row.from, row.to), op.name());
            out.cite("architecture.md §7.6");
        }
    }
}

fn failures(out: &mut Explanation, leaf: Leaf, row: &Profile<Leaf>) {
    let prioritised = row.locks.iter().any(has_host_priority);
    for effect in FAILURE_EFFECTS {
        if effect.leaf == Some(leaf) || effect.leaf.is_none() && prioritised {
            out.field("after failure", "", effect.effect);
            out.cite(effect.cite);
        }
    }
}

/// A SEAMCALL leaf.
pub(super) fn host(leaf: Leaf) -> Explanation {
    let meaning = leaf.row().map_or("", |row| row.meaning);
    let headline = format!("{leaf} = SEAMCALL leaf {} ({:#x}): {meaning}", leaf.0, leaf.0);
    let mut out = Explanation::new(Kind::Leaf, headline);
    if let Some(row) = leaf.row() {
        out.cite(row.cite);
    }
    let Some(row) = profile(leaf) else {
        if NOT_MODELLED.contains(&leaf) {
            let what =
                "the real module acts here; a run ends with `not-run not-modelled`, exit code 4";
            out.field("modelled", "no", what);
        } else {
            out.field(
                "modelled",
                "yes",
                "as in the real module there is no such case: OPERAND_INVALID|RAX",
            );
        }
        return out;
    };
    out.field("modelled", "yes", "");
    shape(&mut out, row);
    let early = BEFORE_READY.contains(&leaf);
    let when = if early { "also before SYS_READY" } else { "in SYS_READY" };
    let shut = if leaf == Leaf::SYS_LP_SHUTDOWN { ", also in SYS_SHUTDOWN" } else { "" };
    out.field(
        "module",
        format!("{when}{shut}"),
        "else SYS_NOT_READY or SYS_SHUTDOWN; these and RAX are checked before all else",
    );
    out.cite("architecture.md §7.1");
    op_states(&mut out, leaf);
    for ret in leaf.checks().map_or(&[][..], |row| row.checks).iter().flat_map(|c| c.returns()) {
        let space = if ret.detail.is_empty() { "" } else { " " };
        out.field("check", status(ret.status), format!("{}{space}{}", ret.when, ret.detail));
    }
    if leaf.checks().is_some() {
        out.cite(LeafChecks::CITE);
    }
    if let Some(states) = LEAF_STATES.iter().find(|row| row.leaf == leaf) {
        let names: Vec<&str> =
            states.changes.iter().chain(states.keeps).map(|state| state.name()).collect();
        out.field("entry states", names.join(", "), "");
        out.cite(states.cite);
    }
    transitions(&mut out, |op| op.leaf() == Some(leaf));
    failures(&mut out, leaf, row);
    work(&mut out, row);
    out
}

fn outcome(out: &mut Explanation, check: &GuestCheck) {
    let value = match check.outcome {
        GuestOutcome::Returns(value) => status(value),
        GuestOutcome::Exits { rax, qualification: 0 } => format!("TD exit, {}", status(rax)),
        GuestOutcome::Exits { rax, qualification } => {
            format!("TD exit, {}, extended qualification {qualification}", status(rax))
        }
        GuestOutcome::Reexecutes => String::from("RIP and RAX unchanged"),
    };
    out.field("check", value, check.when);
    for cite in check.cite.split("; ") {
        out.cite(cite);
    }
}

/// A TDCALL leaf.
pub(super) fn guest(leaf: GuestLeaf) -> Explanation {
    let meaning = leaf.row().map_or("", |row| row.meaning);
    let headline = format!("{leaf} = TDCALL leaf {} ({:#x}): {meaning}", leaf.0, leaf.0);
    let mut out = Explanation::new(Kind::Leaf, headline);
    if let Some(row) = leaf.row() {
        out.cite(row.cite);
    }
    let Some(row) = guest_profile(leaf) else {
        let listed = GUEST_NOT_MODELLED.contains(&leaf);
        let what = if listed {
            "the real module acts here; a run ends with `not-run not-modelled`, exit code 4"
        } else {
            "OPERAND_INVALID|RAX"
        };
        out.field("modelled", "no", what);
        return out;
    };
    out.field("modelled", "yes", "");
    shape(&mut out, row);
    let (timeout, before) =
        GUEST_DISPATCH.split_last().map_or((None, &[][..]), |(l, b)| (Some(l), b));
    for check in before {
        outcome(&mut out, check);
    }
    for check in leaf.checks().map_or(&[][..], |row| row.checks) {
        outcome(&mut out, check);
    }
    if let (Some(timeout), true) = (timeout, row.locks.iter().any(has_host_priority)) {
        outcome(&mut out, timeout);
    }
    transitions(&mut out, |op| leaf == GuestLeaf::MEM_PAGE_ACCEPT && op == SeptOp::Accept);
    work(&mut out, row);
    out.note("TDH.VP.ENTER's shared locks of TDR and TDVPR are held all the time.");
    out
}
