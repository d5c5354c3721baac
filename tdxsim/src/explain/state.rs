//! States, page types, Secure-EPT entries, exit reasons and metadata fields, explained.

use super::{Explanation, Kind};
use sim_core::tdx::{EXIT_REASONS, ExitReason, Leaf, PAGE_TYPES, PageType, Status};
use tdx_module::metadata::{MetadataField, Rights};
use tdx_module::op_state::{
    KotState, Lifecycle, OpState, PERMISSIONS, import_in_progress, tracking_enforced,
};
use tdx_module::profile::{KEY_STEPS, KeyStep};
use tdx_module::sept::{Accept, Entry, LEAF_STATES, State, TRANSITIONS, accept};
use tdx_module::{BEFORE_READY, EXITS, ExitEffect, SysState};

/// What a page type stands for.
struct PageTypeWords {
    page_type: PageType,
    meaning: &'static str,
    /// Under which HKID its memory is.
    key: &'static str,
    /// How it is filled first.
    filled: &'static str,
}

const fn words(
    page_type: PageType,
    meaning: &'static str,
    key: &'static str,
    filled: &'static str,
) -> PageTypeWords {
    PageTypeWords { page_type, meaning, key, filled }
}

/// Rows of architecture.md §7.4 and §7.5.
#[rustfmt::skip]
const PAGE_TYPE_WORDS: &[PageTypeWords] = &[
    words(PageType::Nda,   "nobody's; the page is free when all three levels say so", "the host's", ""),
    words(PageType::Rsvd,  "in a reserved area of its TDMR; only of 4 KiB", "the host's", ""),
    words(PageType::Reg,   "a private page of a TD; 4 KiB, 2 MiB or 1 GiB", "the TD's HKID", "TDH.MEM.PAGE.ADD copies, TDG.MEM.PAGE.ACCEPT zeroes, TDH.MEM.PAGE.RELOCATE copies; MOVDIR64B"),
    words(PageType::Tdr,   "root of a TD", "the global HKID", "TDH.MNG.CREATE; 64 MOVDIR64B of zeros"),
    words(PageType::Tdcx,  "control-structure page of a TD (TDCS) or of a VCPU (TDVPS)", "the TD's HKID", "TDH.MNG.ADDCX, TDH.VP.ADDCX; MOVDIR64B"),
    words(PageType::Tdvpr, "root page of a VCPU", "the TD's HKID", "TDH.VP.CREATE; MOVDIR64B of zeros"),
    words(PageType::Ept,   "Secure-EPT page", "the TD's HKID", "TDH.MEM.SEPT.ADD, TDH.MEM.PAGE.DEMOTE; MOVDIR64B"),
    words(PageType::Pamt,  "with dynamic PAMT: a 2 MiB entry whose 4K entries lie in a pair of pages, and those pages", "the global HKID", "TDH.PHYMEM.PAMT.ADD; MOVDIR64B of zeros"),
];

/// A page type of the PAMT.
pub(super) fn page_type(page_type: PageType) -> Explanation {
    let row = PAGE_TYPE_WORDS.iter().find(|row| row.page_type == page_type);
    let meaning = row.map_or("", |row| row.meaning);
    let headline = format!("{page_type} = page type {} of the PAMT: {meaning}", page_type.code());
    let mut out = Explanation::new(Kind::PageType, headline);
    if let Some(row) = row {
        out.field("memory under", row.key, "");
        if !row.filled.is_empty() {
            out.field("filled by", row.filled, "");
        }
    }
    let gives_back = match page_type {
        PageType::Reg => "TDH.MEM.PAGE.REMOVE, TDH.PHYMEM.PAGE.RECLAIM",
        PageType::Ept => "TDH.MEM.SEPT.REMOVE, TDH.MEM.PAGE.PROMOTE, TDH.PHYMEM.PAGE.RECLAIM",
        PageType::Tdr => "TDH.PHYMEM.PAGE.RECLAIM, the last page of its TD",
        PageType::Tdcx | PageType::Tdvpr => "TDH.PHYMEM.PAGE.RECLAIM",
        PageType::Pamt => "TDH.PHYMEM.PAMT.REMOVE",
        PageType::Nda | PageType::Rsvd => "",
    };
    if !gives_back.is_empty() {
        out.field("given back by", gives_back, "none of them clears or flushes the page");
    }
    if let Some(row) = PAGE_TYPES.iter().find(|row| row.page_type == page_type) {
        out.cite(row.cite);
    }
    out.cite("architecture.md §7.4, §7.5");
    out
}

fn leaves(leaves: impl Iterator<Item = Leaf>) -> String {
    leaves.map(|leaf| leaf.to_string()).collect::<Vec<_>>().join(", ")
}

fn sept_fields(out: &mut Explanation, state: State) {
    let row = state.row();
    out.field("guest access", row.access.words(), "");
    out.field(
        "state in RDX",
        row.public.to_string(),
        "as TDH.MEM.SEPT.RD and error details give it",
    );
    let tracked =
        if row.tracked { "needed while the TD may run (OP_STATEs 2, 3, 9)" } else { "not needed" };
    out.field(
        "tracking",
        tracked,
        "BLOCK, TRACK and an exit of every VCPU before it is taken away",
    );
    for transition in TRANSITIONS.iter().filter(|t| t.from == state) {
        let to = if transition.to == state { "stays" } else { transition.to.name() };
        out.field("goes to", to, transition.op.name());
    }
    for transition in TRANSITIONS.iter().filter(|t| t.to == state && t.from != state) {
        out.field("comes from", transition.from.name(), transition.op.name());
    }
    let keeps = leaves(LEAF_STATES.iter().filter(|r| r.keeps.contains(&state)).map(|r| r.leaf));
    if !keeps.is_empty() {
        out.field("also allows", keeps, "which leave it as it is");
    }
    let accepted = match accept(true, state) {
        Accept::Accepts => "accepted",
        Accept::AlreadyAccepted => "TDX_PAGE_ALREADY_ACCEPTED",
        Accept::SizeMismatch => "TDX_PAGE_SIZE_MISMATCH",
        Accept::Violation => "TD exit, EPT violation with extended qualification 1",
    };
    out.field("ACCEPT", accepted, "TDG.MEM.PAGE.ACCEPT at this entry's level");
    out.cite(row.cite);
    out.cite("architecture.md §7.9");
}

/// A state of a Secure-EPT entry.
pub(super) fn sept(state: State) -> Explanation {
    let row = state.row();
    let headline = format!("{state} = state of a Secure-EPT entry, code {:#04x}", row.code);
    let mut out = Explanation::new(Kind::SeptState, headline);
    out.field("state bits", format!("{:#018x}", row.bits), "");
    sept_fields(&mut out, state);
    out
}

/// A bit or a group of bits of a Secure-EPT entry.
struct EntryBits {
    mask: u64,
    name: &'static str,
    meaning: &'static str,
}

const fn bit(mask: u64, name: &'static str, meaning: &'static str) -> EntryBits {
    EntryBits { mask, name, meaning }
}

/// Bits that are shown where they are set (architecture.md §7.6 "Bits").
const ENTRY_BITS: &[EntryBits] = &[
    bit(Entry::SVE, "63 SVE", "an EPT violation leaves the TD instead of raising #VE"),
    bit(Entry::TDP, "56 TDP", "pending; part of the state"),
    bit(Entry::TDB, "55 TDB", "blocked; part of the state"),
    bit(Entry::TDBW, "54 TDBW", "blocked for writing; part of the state"),
    bit(Entry::TDEX, "53 TDEX", "exported; part of the state"),
    bit(Entry::TDHP, "52 TDHP", "the lock is kept for the host, which has tried in vain"),
    bit(Entry::TDEL, "11 TDEL", "the entry is locked: a leaf is at work on it"),
    bit(Entry::XU, "10 Xu", "execute for user pages"),
    bit(Entry::D, "9 D", "dirty; part of the state"),
    bit(Entry::A, "8 A", "accessed"),
    bit(Entry::PS, "7 PS", "a leaf; part of the state"),
    bit(Entry::IPAT, "6 IPAT", "the guest's PAT is ignored; part of the state"),
];

/// The 64 bits of a Secure-EPT entry.
pub(super) fn entry(entry: Entry) -> Explanation {
    let raw = format!("{:#018x}", entry.0);
    let state = entry.state();
    let headline = match state {
        Some(state) => format!("{raw} = Secure-EPT entry in state {state}"),
        None => format!(
            "{raw} is no Secure-EPT entry: its state bits {:#04x} are of no state",
            entry.code()
        ),
    };
    let mut out = Explanation::new(Kind::SeptEntry, headline);
    for row in ENTRY_BITS.iter().filter(|row| entry.0 & row.mask != 0) {
        out.field(row.name, "1", row.meaning);
    }
    let rights: String = [(Entry::R, 'R'), (Entry::W, 'W'), (Entry::X, 'X')]
        .into_iter()
        .map(|(bit, letter)| if entry.0 & bit == 0 { '-' } else { letter })
        .collect();
    out.field("2:0 RWX", rights, "");
    if entry.0 & Entry::MT == Entry::MT_WB {
        out.field("5:3 MT", "6", "write-back");
    } else if entry.0 & Entry::MT != 0 {
        out.field("5:3 MT", (entry.0 >> 3 & 7).to_string(), "not the write-back of every leaf");
    }
    if entry.0 & Entry::BASE != 0 {
        let what = if entry.is_leaf() { "the private page" } else { "the Secure-EPT page below" };
        out.field("51:12 base", format!("{:#x}", entry.hpa().0), what);
    }
    match state {
        Some(state) => {
            if state.is_pending() && entry.accept_counter() != 0 {
                let chunks = entry.accept_counter().to_string();
                out.field("20:12", chunks, "of a 2 MiB page: 4 KiB chunks that TDG.MEM.PAGE.ACCEPT has zeroed; of a 4 KiB page they are part of the address");
            }
            let shown = format!("{:#x}", entry.architectural());
            out.field("RCX", shown, "what TDH.MEM.SEPT.RD and error details show of it");
            sept_fields(&mut out, state);
        }
        None => {
            out.note("A walk that meets it is a fatal error of the module: it gives itself up, and TDX is disabled on the platform.");
            out.cite("architecture.md §7.6, §7.7");
        }
    }
    out
}

/// OP_STATE.
pub(super) fn op_state(state: OpState) -> Explanation {
    let headline = format!("{state} = OP_STATE {}, kept in TDCS", state.code());
    let mut out = Explanation::new(Kind::OpState, headline);
    let enforced = if tracking_enforced(state) { "enforced" } else { "not enforced" };
    out.field("TLB tracking", enforced, "BLOCK and TRACK before a translation is taken away");
    if import_in_progress(state) {
        out.field("import", "in progress", "TDH.MEM.PAGE.REMOVE leaves REMOVED instead of FREE");
    }
    let may = PERMISSIONS.iter().filter(|row| row.allowed >> state.code() & 1 == 1);
    let may_not = PERMISSIONS.iter().filter(|row| row.allowed >> state.code() & 1 == 0);
    let or_none = |text: String| if text.is_empty() { String::from("none") } else { text };
    out.field("allows", or_none(leaves(may.map(|row| row.leaf))), "");
    out.field("refuses", or_none(leaves(may_not.map(|row| row.leaf))), "OP_STATE_INCORRECT");
    let reached = match state {
        OpState::Uninit => "after TDH.MNG.CREATE",
        OpState::Initialized => "by TDH.MNG.INIT",
        OpState::Runnable => "by TDH.MR.FINALIZE",
        _ => "by migration, which is not modelled",
    };
    out.field("reached", reached, "");
    out.cite("architecture.md §7.5");
    out
}

fn step(out: &mut Explanation, name: &str, step: &KeyStep) {
    let from: Vec<&str> = step.td.0.iter().map(|state| state.name()).collect();
    let from = if from.is_empty() { String::from("no TD") } else { from.join(" or ") };
    let text =
        format!("HKID {} → {}, TD {from} → {}; {}", step.kot.0, step.kot.1, step.td.1, step.when);
    out.field(name, step.leaf.to_string(), text);
    out.cite(step.cite);
}

/// Life-cycle state of a TD.
pub(super) fn lifecycle(state: Lifecycle) -> Explanation {
    let headline = format!("{state} = life-cycle state {} of a TD, kept in its TDR", state.code());
    let mut out = Explanation::new(Kind::Lifecycle, headline);
    for row in KEY_STEPS.iter().filter(|row| row.td.1 == state) {
        step(&mut out, "reached by", row);
    }
    for row in KEY_STEPS.iter().filter(|row| row.td.0.contains(&state)) {
        step(&mut out, "left by", row);
    }
    let note = match state {
        Lifecycle::KeysConfigured => {
            "The only state in which leaves that check STATE go on; in the others they return TDX_TD_KEYS_NOT_CONFIGURED."
        }
        Lifecycle::Teardown => {
            "TDH.PHYMEM.PAGE.RECLAIM takes its pages, the TDR last. None of them is cleared."
        }
        Lifecycle::HkidAssigned | Lifecycle::Blocked => {
            "Leaves that check STATE return TDX_TD_KEYS_NOT_CONFIGURED."
        }
    };
    out.note(note);
    out.cite("architecture.md §7.5, §7.7");
    out
}

/// State of an HKID in the key ownership table.
pub(super) fn kot(state: KotState) -> Explanation {
    let headline =
        format!("{state} = state {} of an HKID in the key ownership table", state.code());
    let mut out = Explanation::new(Kind::KotState, headline);
    for row in KEY_STEPS.iter().filter(|row| row.kot.1 == state && row.kot.0 != state) {
        step(&mut out, "reached by", row);
    }
    for row in KEY_STEPS.iter().filter(|row| row.kot.0 == state && row.kot.1 != state) {
        step(&mut out, "left by", row);
    }
    match state {
        KotState::Reserved => out.field("reached by", "TDH.SYS.CONFIG", "the global HKID, for good"),
        KotState::Flushed => out.note("Dirty lines of the HKID may still be in caches: TDH.PHYMEM.CACHE.WB on every package clears the bitmap that TDH.MNG.KEY.FREEID looks at."),
        KotState::Free => out.note("A freed HKID keeps its old key in the memory controller until another one is programmed."),
        KotState::Assigned => {}
    }
    out.cite("architecture.md §7.5");
    out
}

/// Global state of the module.
pub(super) fn module(state: SysState) -> Explanation {
    let headline = format!("{} = state {} of the TDX module", state.name(), state as u8);
    let mut out = Explanation::new(Kind::ModuleState, headline);
    let (reached, next) = match state {
        SysState::SysInitPending => ("the P-SEAMLDR has loaded the module", "TDH.SYS.INIT"),
        SysState::SysInitDone => {
            ("TDH.SYS.INIT", "TDH.SYS.LP.INIT on every LP, then TDH.SYS.CONFIG or TDH.SYS.UPDATE")
        }
        SysState::SysConfigDone => ("TDH.SYS.CONFIG", "TDH.SYS.KEY.CONFIG on every package"),
        SysState::SysReady => (
            "the last TDH.SYS.KEY.CONFIG, or TDH.SYS.UPDATE",
            "TDH.SYS.TDMR.INIT until every TDMR is done, then TDs",
        ),
        SysState::SysShutdown => ("TDH.SYS.SHUTDOWN", "load another module"),
    };
    out.field("reached by", reached, "");
    out.field("next", next, "");
    let serves = match state {
        SysState::SysReady => String::from("every leaf"),
        SysState::SysShutdown => Leaf::SYS_LP_SHUTDOWN.to_string(),
        _ => leaves(BEFORE_READY.iter().copied()),
    };
    let other = match state {
        SysState::SysReady => "",
        SysState::SysShutdown => "others: SYS_SHUTDOWN",
        _ => "others: SYS_NOT_READY",
    };
    out.field("serves", serves, other);
    out.cite("architecture.md §7.1");
    out
}

/// An exit reason of a TD; `None` for one that the module does not use.
pub(super) fn exit_reason(number: u64) -> Option<Explanation> {
    let reason = ExitReason(u32::try_from(number).ok()?);
    let row = EXIT_REASONS.iter().find(|row| row.number == reason.basic())?;
    // Bit 31 is a failed VM entry, which reason 41 always is.
    (number >> 16 == 0 || number >> 16 == 0x8000).then_some(())?;
    let headline = format!("{} = exit reason of TDH.VP.ENTER: {}", row.number, row.meaning);
    let mut out = Explanation::new(Kind::ExitReason, headline);
    for exit in EXITS.iter().filter(|exit| exit.reason.basic() == row.number) {
        let fatal = Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE;
        let effect = match exit.effect {
            ExitEffect::Leaves(status) => format!("TD exit, {}", status.exit(exit.reason)),
            ExitEffect::Disables(status) => {
                format!("TD exit, {}; the VCPU cannot run again", status.exit(exit.reason))
            }
            ExitEffect::Kills => format!(
                "TD exit, {}; the TD is fatal and its memory is not touched",
                fatal.exit(exit.reason)
            ),
            ExitEffect::Module => String::from(
                "the module looks closer: it answers the TDCALL, injects #VE, or lets the TD exit",
            ),
            ExitEffect::Fatal => {
                String::from("the module gives itself up: TDX is disabled on the platform")
            }
        };
        out.field(format!("{:?}", exit.kind), effect, "");
        for cite in exit.cite.split("; ") {
            out.cite(cite);
        }
    }
    out.cite(row.cite);
    Some(out)
}

fn rights(rights: Rights) -> String {
    let part = |name: &str, mask: u64| match mask {
        0 => format!("{name} none"),
        u64::MAX => format!("{name} all"),
        mask => format!("{name} {mask:#x}"),
    };
    format!("{}, {}", part("reads", rights.read), part("writes", rights.write))
}

/// A metadata field.
pub(super) fn metadata(field: &MetadataField, element: u64) -> Explanation {
    let headline = format!("{} = metadata field {:#018x}", field.name, field.id);
    let mut out = Explanation::new(Kind::MetadataField, headline);
    out.field("of", field.owner.words(), "");
    out.field("bytes", field.bytes.to_string(), "");
    if field.elements > 1 {
        out.field("element", element.to_string(), format!("of {}", field.elements));
    }
    out.field("the host", rights(field.production), "");
    if field.debug != field.production {
        out.field("of a debug TD", rights(field.debug), "");
    }
    out.cite(field.cite);
    out
}
