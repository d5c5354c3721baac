//! What each leaf takes, locks and touches: one row per leaf, from which the book and `tdxsim explain` are made.
//!
//! `tests/profile.rs` runs every leaf and compares: the versions that the dispatcher lets through, the locks held at any
//! moment, the kinds of touches with their KeyIDs, and the fixed costs are those of its row, no more and no fewer.

mod rows;

pub use rows::{GUEST_PROFILES, PROFILES};

use crate::Flight;
use crate::flight::Held;
use crate::lock::Mode;
use crate::op_state::{KotState, Lifecycle};
use crate::pamt::Size;
use sim_core::Page;
use sim_core::tdx::{GuestLeaf, Leaf};
use std::fmt::Write;

/// An operand or result: a register and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// Its name; two registers of one meaning as `R9-R11`.
    pub name: &'static str,
    /// What it holds.
    pub meaning: &'static str,
}

/// What a lock protects (architecture.md §7.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lockable {
    /// The module's global lock.
    Global,
    /// The key ownership table.
    Kot,
    /// A TDMR's mutex.
    Tdmr,
    /// The package's mutex of TDH.PHYMEM.CACHE.WB.
    CacheWb,
    /// The PAMT entry of the TDR.
    Tdr,
    /// The PAMT entry of the TDVPR.
    Tdvpr,
    /// The PAMT entry of the page or block that an operand names.
    Page,
    /// The PAMT entry of the page or block that the Secure-EPT entry holds.
    Mapped,
    /// OP_STATE; has host priority.
    OpState,
    /// TD_EPOCH and its REFCOUNTs.
    Epoch,
    /// The Secure-EPT tree.
    SeptTree,
    /// The Secure-EPT entry; has host priority.
    SeptEntry,
    /// The 512 entries below it.
    SeptChildren,
}

/// How long a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Until {
    /// To the leaf's end.
    End,
    /// Until the guest is entered.
    Entry,
    /// Taken and released within one step: nobody can come in between.
    Moment,
}

/// A lock of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// What it protects.
    pub of: Lockable,
    /// How it is taken.
    pub mode: Mode,
    /// Of a PAMT entry: the 2M and 1G entries above are locked shared as well.
    pub walk: bool,
    /// How long.
    pub until: Until,
    /// When it is taken; empty for always.
    pub when: &'static str,
}

/// How memory is touched, or what is done beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// A cached load.
    Load,
    /// A cached store.
    Store,
    /// A locked read-modify-write.
    Locked,
    /// MOVDIR64B of whole lines.
    Movdir64b,
    /// CLFLUSHOPT.
    Clflushopt,
    /// WRMSR IA32_WBNOINVDP.
    Wbnoinvdp,
    /// PCONFIG.
    Pconfig,
    /// RDRAND or RDSEED.
    Random,
    /// INVEPT.
    Invept,
}

/// What is touched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// No memory.
    None,
    /// The PAMT.
    Pamt,
    /// The TDR.
    Tdr,
    /// TDCS pages other than the Secure-EPT root.
    Tdcs,
    /// TDVPS pages.
    Tdvps,
    /// Secure-EPT pages, the root included.
    SecureEpt,
    /// A private page of the TD.
    Private,
    /// The VMM's memory that an operand names.
    Operand,
    /// A page that is nobody's.
    Free,
    /// Every page that the module has, and the PAMTs.
    Everything,
    /// A pair of pages that holds 4K entries of the PAMT (dynamic PAMT), and the bitmap of such pages.
    PamtPages,
}

/// Under which KeyID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// None: no memory.
    None,
    /// The global HKID.
    Global,
    /// The TD's HKID.
    Td,
    /// The KeyID that the operand carries.
    Operand,
    /// KeyID 0.
    Zero,
}

/// A kind of touch of a leaf that succeeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TouchRow {
    /// How.
    pub access: Access,
    /// What.
    pub place: Place,
    /// Under which KeyID.
    pub key: Key,
    /// When; empty for always.
    pub when: &'static str,
}

/// What an interrupt does to a leaf (architecture.md §7.11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Interrupted {
    /// It waits for SEAMRET.
    Waits,
    /// INTERRUPTED_RESUMABLE: the progress is kept.
    Resumable,
    /// INTERRUPTED_RESTARTABLE: nothing is kept.
    Restartable,
    /// The guest leaves.
    TdExit,
    /// The TDCALL is executed again; the progress is kept.
    Reexecuted,
}

/// A fixed cost, by the platform parameter `tdx.cost.*` (timing.md §5; all assumed).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cost {
    /// SEAMCALL and SEAMRET.
    Seamcall,
    /// VM entry.
    Enter,
    /// VM exit.
    Exit,
    /// A TDH.SYS.* leaf.
    Sys,
    /// A TDH.MNG.*, TDH.VP.* or TDH.MR.* leaf.
    Mng,
    /// A TDH.MEM.* leaf.
    Mem,
    /// A TDH.PHYMEM.* leaf.
    Phymem,
    /// A TDCALL leaf.
    Tdcall,
    /// SHA-384 of 128 bytes.
    Hash,
    /// INVEPT.
    Invept,
}

/// Whether a module has a leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Present {
    /// Every module has it.
    Always,
    /// With `tdx.sys_disable`.
    SysDisable,
    /// With `tdx.dynamic_pamt`.
    DynamicPamt,
}

/// A leaf's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile<L: 'static> {
    /// Which leaf.
    pub leaf: L,
    /// Highest version that it takes.
    pub version: u8,
    /// What a version above 0 changes; empty where there is none.
    pub versions: &'static str,
    /// Which modules have it.
    pub present: Present,
    /// Operands.
    pub operands: &'static [Register],
    /// Results of a call that succeeds, besides RAX.
    pub results: &'static [Register],
    /// Locks, in the order in which they are taken.
    pub locks: &'static [LockRow],
    /// Touches of a call that succeeds.
    pub touches: &'static [TouchRow],
    /// What an interrupt does.
    pub interrupted: Interrupted,
    /// How it goes on after an interrupt; empty where it waits.
    pub resume: &'static str,
    /// Fixed costs; each may be there several times.
    pub costs: &'static [Cost],
    /// What it does and does not do to memory, and what else a caller should know.
    pub notes: &'static [&'static str],
    /// Source.
    pub cite: &'static str,
}

/// A step of a TD and its HKID from the first page to the last (architecture.md §7.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyStep {
    /// The leaf that makes it.
    pub leaf: Leaf,
    /// The HKID in the key ownership table before and after.
    pub kot: (KotState, KotState),
    /// The TD's life cycle before (none: there is no TD yet) and after.
    pub td: (&'static [Lifecycle], Lifecycle),
    /// What else must hold.
    pub when: &'static str,
    /// Source.
    pub cite: &'static str,
}

const fn step(
    leaf: Leaf,
    kot: (KotState, KotState),
    td: (&'static [Lifecycle], Lifecycle),
    when: &'static str,
) -> KeyStep {
    KeyStep { leaf, kot, td, when, cite: "architecture.md §7.5 \"Step\"" }
}

use KotState::{Assigned, Flushed, Free};
use Lifecycle::{Blocked, HkidAssigned, KeysConfigured, Teardown};

/// The steps that change the life cycle, in their order. TDH.PHYMEM.CACHE.WB comes between the last two and changes
/// neither state, but clears its package's bit of every HKID that was FLUSHED when it began.
pub const KEY_STEPS: &[KeyStep] = &[
    step(Leaf::MNG_CREATE, (Free, Assigned), (&[], HkidAssigned), "the HKID is FREE"),
    step(
        Leaf::MNG_KEY_CONFIG,
        (Assigned, Assigned),
        (&[HkidAssigned], KeysConfigured),
        "on the last package",
    ),
    step(
        Leaf::MNG_VPFLUSHDONE,
        (Assigned, Flushed),
        (&[HkidAssigned, KeysConfigured], Blocked),
        "no VCPU is associated with an LP",
    ),
    step(
        Leaf::MNG_KEY_FREEID,
        (Flushed, Free),
        (&[Blocked], Teardown),
        "TDH.PHYMEM.CACHE.WB has run on every package",
    ),
];

/// [`KEY_STEPS`] as a table of the book.
pub fn key_steps_markdown() -> String {
    let mut out =
        String::from("| Leaf | HKID | Life cycle | When | Source |\n|---|---|---|---|---|\n");
    for KeyStep { leaf, kot, td, when, cite } in KEY_STEPS {
        let from: Vec<&str> = td.0.iter().map(|state| state.name()).collect();
        let from = if from.is_empty() { String::from("-") } else { from.join(" or ") };
        let _ = writeln!(
            out,
            "| {leaf} | {} → {} | {from} → {} | {when} | {cite} |",
            kot.0, kot.1, td.1
        );
    }
    out
}

/// The row of a SEAMCALL leaf; `None` for one that is not modelled or does not exist.
pub fn profile(leaf: Leaf) -> Option<&'static Profile<Leaf>> {
    PROFILES.iter().find(|row| row.leaf == leaf)
}
/// The row of a TDCALL leaf; `None` for one that is not modelled or does not exist.
pub fn guest_profile(leaf: GuestLeaf) -> Option<&'static Profile<GuestLeaf>> {
    GUEST_PROFILES.iter().find(|row| row.leaf == leaf)
}

/// A lock that a call holds at the moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HeldLock {
    /// The module's global lock.
    Global(Mode),
    /// The key ownership table.
    Kot(Mode),
    /// A TDMR's mutex, by index.
    Tdmr(u16),
    /// A package's mutex of TDH.PHYMEM.CACHE.WB.
    CacheWb(u8),
    /// The PAMT entry of an address at a level.
    Pamt(Size, u64, Mode),
    /// OP_STATE of a TD.
    OpState(Page, Mode),
    /// Epoch of a TD.
    Epoch(Page, Mode),
    /// Secure-EPT tree of a TD.
    SeptTree(Page, Mode),
    /// A Secure-EPT entry: page and index.
    SeptEntry(Page, u16),
}

impl Flight {
    /// The locks that the call holds at the moment, in the order in which it took them.
    pub fn held(&self) -> impl Iterator<Item = HeldLock> {
        self.locks.iter().map(|held| match *held {
            Held::Global(mode) => HeldLock::Global(mode),
            Held::Kot(mode) => HeldLock::Kot(mode),
            Held::Tdmr(index) => HeldLock::Tdmr(index),
            Held::WbCache(package) => HeldLock::CacheWb(package),
            Held::Pamt { size, pa, mode } => HeldLock::Pamt(size, pa, mode),
            Held::OpState(td, mode) => HeldLock::OpState(td, mode),
            Held::Epoch(td, mode) => HeldLock::Epoch(td, mode),
            Held::Tree(td, mode) => HeldLock::SeptTree(td, mode),
            Held::Entry { table, index } => HeldLock::SeptEntry(table, index),
        })
    }
}

impl Lockable {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Lockable::Global => "the module's global lock",
            Lockable::Kot => "the key ownership table",
            Lockable::Tdmr => "the TDMR's mutex",
            Lockable::CacheWb => "the package's write-back mutex",
            Lockable::Tdr => "TDR",
            Lockable::Tdvpr => "TDVPR",
            Lockable::Page => "the operand page's PAMT entry",
            Lockable::Mapped => "the PAMT entry of what the Secure-EPT entry holds",
            Lockable::OpState => "OP_STATE",
            Lockable::Epoch => "TD_EPOCH",
            Lockable::SeptTree => "the Secure-EPT tree",
            Lockable::SeptEntry => "the Secure-EPT entry",
            Lockable::SeptChildren => "the 512 entries below it",
        }
    }
}

impl LockRow {
    /// In words.
    pub fn words(&self) -> String {
        let mut out = String::from(self.of.words());
        out.push_str(match self.mode {
            Mode::Shared => " shared",
            Mode::Exclusive => " exclusive",
        });
        if self.walk {
            out.push_str(" (its 2M and 1G entries shared)");
        }
        out.push_str(match self.until {
            Until::End => "",
            Until::Entry => ", until the guest is entered",
            Until::Moment => ", for a moment",
        });
        if !self.when.is_empty() {
            out.push_str(", ");
            out.push_str(self.when);
        }
        out
    }
}

impl TouchRow {
    /// In words.
    pub fn words(&self) -> String {
        let access = match self.access {
            Access::Load => "loads of",
            Access::Store => "stores to",
            Access::Locked => "locked stores to",
            Access::Movdir64b => "MOVDIR64B to",
            Access::Clflushopt => "CLFLUSHOPT of",
            Access::Wbnoinvdp => "WBNOINVDP of each cache sub-block of the package",
            Access::Pconfig => "PCONFIG with a random key",
            Access::Random => "RDRAND or RDSEED",
            Access::Invept => "INVEPT",
        };
        let place = match self.place {
            Place::None => "",
            Place::Pamt => " the PAMT",
            Place::Tdr => " the TDR",
            Place::Tdcs => " TDCS",
            Place::Tdvps => " TDVPS",
            Place::SecureEpt => " Secure-EPT pages",
            Place::Private => " the private page",
            Place::Operand => " the VMM's operand",
            Place::Free => " the free page",
            Place::Everything => " every page of the module and the PAMTs",
            Place::PamtPages => " the pair of PAMT pages",
        };
        let key = match self.key {
            Key::None => "",
            Key::Global => ", global HKID",
            Key::Td => ", the TD's HKID",
            Key::Operand => ", the operand's KeyID",
            Key::Zero => ", KeyID 0",
        };
        let mut out = format!("{access}{place}{key}");
        if !self.when.is_empty() {
            out.push_str(": ");
            out.push_str(self.when);
        }
        out
    }
}

impl Interrupted {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Interrupted::Waits => "not interruptible: an interrupt waits for SEAMRET",
            Interrupted::Resumable => "INTERRUPTED_RESUMABLE, progress is kept",
            Interrupted::Restartable => "INTERRUPTED_RESTARTABLE, no progress is kept",
            Interrupted::TdExit => "the guest leaves with exit reason 1 (NMI: 0)",
            Interrupted::Reexecuted => "no status: RIP stays, progress is kept",
        }
    }
}

impl Cost {
    /// The platform parameter.
    pub const fn parameter(self) -> &'static str {
        match self {
            Cost::Seamcall => "tdx.cost.seamcall",
            Cost::Enter => "tdx.cost.enter",
            Cost::Exit => "tdx.cost.exit",
            Cost::Sys => "tdx.cost.sys",
            Cost::Mng => "tdx.cost.mng",
            Cost::Mem => "tdx.cost.mem",
            Cost::Phymem => "tdx.cost.phymem",
            Cost::Tdcall => "tdx.cost.tdcall",
            Cost::Hash => "tdx.cost.hash",
            Cost::Invept => "tdx.cost.invept",
        }
    }
}

impl Present {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Present::Always => "every module",
            Present::SysDisable => "modules with tdx.sys_disable",
            Present::DynamicPamt => "modules with tdx.dynamic_pamt",
        }
    }
}

fn list<T>(rows: &[T], each: impl Fn(&T) -> String) -> String {
    rows.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn write_rows<L: std::fmt::Display>(
    out: &mut String,
    number: impl Fn(&L) -> u16,
    rows: &[Profile<L>],
) {
    for r in rows {
        let regs = |regs: &[Register]| list(regs, |reg| format!("{} {}", reg.name, reg.meaning));
        let (operands, results) = (regs(r.operands), regs(r.results));
        let locks = list(r.locks, LockRow::words);
        let touches = list(r.touches, TouchRow::words);
        let costs = list(r.costs, |cost| cost.parameter().replace("tdx.cost.", ""));
        let more = if r.resume.is_empty() { "" } else { "; " };
        let interrupted = format!("{}{more}{}", r.interrupted.words(), r.resume);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {operands} | {results} | {locks} | {touches} | {interrupted} | {costs} | {} |",
            r.leaf,
            number(&r.leaf),
            r.version,
            r.cite
        );
    }
}

/// [`PROFILES`] and [`GUEST_PROFILES`] as tables of the book.
pub fn profiles_markdown() -> String {
    const HEAD: &str = " | Number | Version up to | Operands | Results | Locks | Touches | Interrupts | Fixed costs | Source |\n\
                        |---|---|---|---|---|---|---|---|---|---|\n";
    let mut out = format!("| SEAMCALL{HEAD}");
    write_rows(&mut out, |leaf: &Leaf| leaf.0, PROFILES);
    out.push_str("\n| TDCALL");
    out.push_str(HEAD);
    write_rows(&mut out, |leaf: &GuestLeaf| leaf.0, GUEST_PROFILES);
    out
}
