//! How Linux grades a machine check, and what becomes of the host (architecture.md §6.4, linux-host-paths.md §14).

use serde::{Deserialize, Serialize};
use sim_core::addr::{Hpa, Page};
use sim_core::mca::{
    MCACOD_DATA_LOAD, MCACOD_FETCH, McConsequence, McContext, McRecord, McStatus, McgStatus,
};
use sim_core::port::McHandler;
use std::collections::BTreeSet;
use std::fmt;

/// Linux's severities that the rules give on an Intel machine with recovery support, mildest first
/// (architecture.md §6.4; the order is that of the kernel's `enum severity_level`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Severity {
    /// NO: nothing to do.
    None,
    /// UCNA: uncorrected, no action required.
    Ucna,
    /// KEEP: left for the poller, or another thread's.
    Keep,
    /// SOME: logged.
    Some,
    /// AO: recovery may be tried later.
    ActionOptional,
    /// AR: recovery must be tried before anything uses the data.
    ActionRequired,
    /// PANIC.
    Panic,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::None => "none",
            Severity::Ucna => "UCNA",
            Severity::Keep => "keep",
            Severity::Some => "some",
            Severity::ActionOptional => "action optional",
            Severity::ActionRequired => "action required",
            Severity::Panic => "PANIC",
        })
    }
}

/// What was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Context {
    /// The kernel.
    Kernel,
    /// The kernel, at an instruction with a machine-check-safe fixup.
    KernelFixup,
    /// A user process.
    User,
}

/// What the rules look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Situation {
    /// IA32_MCi_STATUS.
    pub status: McStatus,
    /// IA32_MCG_STATUS.
    pub mcg: McgStatus,
    /// In the #MC handler, as against the poller or CMCI.
    pub in_exception: bool,
    /// What was interrupted.
    pub context: Context,
}

/// Which contexts a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum In {
    Any,
    Kernel,
    /// The kernel, with or without a fixup.
    KernelEither,
    Fixup,
    User,
}

/// Which MCACODs a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Code {
    Any,
    /// 0x00C0 to 0x00CF.
    Scrub,
    Is(u16),
}

/// A rule: what it asks of the registers and the context, and the grade it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Number in architecture.md §6.4; rules of one number differ in what Linux prints. Above 17: rules of the same
    /// kernel table that §6.4 leaves out and that make it total.
    pub row: u8,
    /// The grade.
    pub severity: Severity,
    /// Linux's words, as in "Machine check: …".
    pub message: &'static str,
    /// The condition in words.
    pub condition: &'static str,
    /// Source.
    pub cite: &'static str,
    exception_only: bool,
    context: In,
    code: Code,
    status: (u64, u64),
    mcg: (u64, u64),
}

const VAL: u64 = 1 << 63;
const OVER: u64 = 1 << 62;
const UC: u64 = 1 << 61;
const EN: u64 = 1 << 60;
const MISCV: u64 = 1 << 59;
const ADDRV: u64 = 1 << 58;
const PCC: u64 = 1 << 57;
const S: u64 = 1 << 56;
const AR: u64 = 1 << 55;
const SAR: u64 = UC | S | AR;
const ADDR: u64 = ADDRV | MISCV;
const RIPV: u64 = McgStatus::RIPV;
const EIPV: u64 = McgStatus::EIPV;
const SEAM_NR: u64 = McgStatus::SEAM_NR;
/// MCACOD of an explicit write-back from the last-level cache (architecture.md §6.2).
pub const MCACOD_L3WB: u16 = 0x017A;
const DATA: Code = Code::Is(MCACOD_DATA_LOAD);
const FETCH: Code = Code::Is(MCACOD_FETCH);
/// SRAR with an address, and not overflowed: what the recoverable rules have in common.
const SRAR_ADDR: (u64, u64) = (OVER | SAR | ADDR, SAR | ADDR);

const SHEET: &str = "architecture.md §6.4";
const LINUX: &str = "Linux arch/x86/kernel/cpu/mce/severity.c";

const fn rule(
    row: u8,
    severity: Severity,
    message: &'static str,
    condition: &'static str,
    status: (u64, u64),
) -> Rule {
    Rule {
        row,
        severity,
        message,
        condition,
        cite: if row <= 17 { SHEET } else { LINUX },
        exception_only: false,
        context: In::Any,
        code: Code::Any,
        status,
        mcg: (0, 0),
    }
}

impl Rule {
    const fn exception(self) -> Rule {
        Rule { exception_only: true, ..self }
    }
    const fn within(self, context: In) -> Rule {
        Rule { context, ..self }
    }
    const fn code(self, code: Code) -> Rule {
        Rule { code, ..self }
    }
    const fn mcg(self, mask: u64, value: u64) -> Rule {
        Rule { mcg: (mask, value), ..self }
    }
    /// Whether the rule is for this situation.
    pub const fn matches(&self, at: &Situation) -> bool {
        let mcacod = at.status.0 as u16;
        let code = match self.code {
            Code::Any => true,
            Code::Scrub => mcacod & 0xFFF0 == 0x00C0,
            Code::Is(code) => mcacod == code,
        };
        let context = match self.context {
            In::Any => true,
            In::Kernel => matches!(at.context, Context::Kernel),
            In::KernelEither => !matches!(at.context, Context::User),
            In::Fixup => matches!(at.context, Context::KernelFixup),
            In::User => matches!(at.context, Context::User),
        };
        code && context
            && (at.in_exception || !self.exception_only)
            && at.status.0 & self.status.0 == self.status.1
            && at.mcg.0 & self.mcg.0 == self.mcg.1
    }
}

/// Linux's severity rules for Intel with recovery support (MCG_CAP.SER_P) and CONFIG_MEMORY_FAILURE; the first match wins
/// (architecture.md §6.4).
///
/// Left out: the patrol-scrub rule of one Skylake stepping, rules for machines without recovery support, and the rules
/// "Overflowed uncorrected", "Uncorrected in kernel" and "Uncorrected", which no status reaches with recovery support.
#[rustfmt::skip]
pub const SEVERITY: &[Rule] = &[
    rule(1,  Severity::None,           "Invalid",                                 "VAL=0",                      (VAL, 0)),
    rule(2,  Severity::None,           "Not enabled",                             "in exception, EN=0",         (EN, 0)).exception(),
    rule(3,  Severity::Panic,          "Processor context corrupt",               "PCC=1",                      (PCC, PCC)),
    rule(4,  Severity::Panic,          "MCIP not set in MCA handler",             "in exception, MCIP=0",       (0, 0)).exception().mcg(McgStatus::MCIP, 0),
    rule(5,  Severity::Panic,          "Neither restart nor error IP",            "in exception, RIPV=EIPV=0",  (0, 0)).exception().mcg(RIPV | EIPV, 0),
    rule(6,  Severity::Panic,          "In kernel and no restart IP",             "in exception, kernel, RIPV=0", (0, 0)).exception().mcg(RIPV, 0).within(In::KernelEither),
    rule(7,  Severity::ActionOptional, "Action optional: memory scrubbing error", "UC=1, AR=0, MCACOD 0x00C0 to 0x00CF", (UC | AR, UC)).code(Code::Scrub),
    rule(7,  Severity::ActionOptional, "Action optional: last level cache writeback error", "UC=1, AR=0, MCACOD 0x017A", (UC | AR, UC)).code(Code::Is(MCACOD_L3WB)),
    rule(8,  Severity::Ucna,           "Uncorrected no action required",          "UC=1, S=0, AR=0",            (SAR, UC)),
    rule(9,  Severity::Panic,          "Illegal combination (UCNA with AR=1)",    "UC=1, S=0, AR=1, OVER=0",    (OVER | SAR, UC | AR)),
    rule(10, Severity::Keep,           "Non signaled machine check",              "S=0",                        (S, 0)),
    rule(11, Severity::Panic,          "Action required with lost events",        "OVER=1, UC=1, S=1, AR=1",    (OVER | SAR, OVER | SAR)),
    rule(12, Severity::Keep,           "Action required but unaffected thread is continuable", "SRAR with address, RIPV=1, EIPV=0", SRAR_ADDR).mcg(RIPV | EIPV, RIPV),
    rule(13, Severity::ActionRequired, "Action required: data load in error recoverable area of kernel", "SRAR with address, MCACOD 0x0134, kernel with fixup", SRAR_ADDR).code(DATA).within(In::Fixup),
    rule(14, Severity::ActionRequired, "Action required: data load error in a user process", "SRAR with address, MCACOD 0x0134, user", SRAR_ADDR).code(DATA).within(In::User),
    rule(14, Severity::ActionRequired, "Action required: instruction fetch error in a user process", "SRAR with address, MCACOD 0x0150, user", SRAR_ADDR).code(FETCH).within(In::User),
    rule(15, Severity::ActionRequired, "Data load error in SEAM non-root mode",   "SRAR with address, MCACOD 0x0134, kernel, SEAM_NR=1", SRAR_ADDR).code(DATA).within(In::Kernel).mcg(SEAM_NR, SEAM_NR),
    rule(15, Severity::ActionRequired, "Instruction fetch error in SEAM non-root mode", "SRAR with address, MCACOD 0x0150, kernel, SEAM_NR=1", SRAR_ADDR).code(FETCH).within(In::Kernel).mcg(SEAM_NR, SEAM_NR),
    rule(16, Severity::Panic,          "Data load in unrecoverable area of kernel", "SRAR with address, MCACOD 0x0134, kernel", SRAR_ADDR).code(DATA).within(In::Kernel),
    rule(16, Severity::Panic,          "Instruction fetch error in kernel",       "SRAR with address, MCACOD 0x0150, kernel", SRAR_ADDR).code(FETCH).within(In::Kernel),
    rule(17, Severity::Panic,          "Action required: unknown MCACOD",         "other SRAR",                 (OVER | SAR, SAR)),
    rule(18, Severity::Some,           "Action optional: unknown MCACOD",         "UC=1, S=1, AR=0, OVER=0",    (OVER | SAR, UC | S)),
    rule(19, Severity::Some,           "Action optional with lost events",        "UC=1, S=1, AR=0, OVER=1",    (OVER | SAR, OVER | UC | S)),
    rule(20, Severity::Some,           "No match",                                "anything else",              (0, 0)),
];

/// The grade of a machine check.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Grade {
    /// Row of architecture.md §6.4, or above 17 as [`Rule::row`] says.
    pub row: u8,
    /// How bad.
    pub severity: Severity,
    /// Linux's words.
    pub message: &'static str,
}

/// Grades a machine check by [`SEVERITY`]. `seam_nr_rules` is whether the kernel has the rules of row 15, which
/// 7911f145de5fe added (linux-host-paths.md §14.1; knob `mce_seam_nr_recovery`).
pub fn grade_with(at: &Situation, seam_nr_rules: bool) -> Grade {
    // Without both instruction pointers the kernel does not look for a fixup (severity.c error_context).
    let known_ip = at.mcg.has(RIPV | EIPV);
    let context = match at.context {
        Context::KernelFixup if !known_ip => Context::Kernel,
        context => context,
    };
    let at = Situation { context, ..*at };
    SEVERITY.iter().find(|rule| (seam_nr_rules || rule.row != 15) && rule.matches(&at)).map_or(
        // The last rule matches everything; this arm only spares a panic path.
        Grade { row: 20, severity: Severity::Some, message: "No match" },
        |rule| Grade { row: rule.row, severity: rule.severity, message: rule.message },
    )
}

/// [`grade_with`] of a kernel that has all rules (6.12 and later).
pub fn grade(at: &Situation) -> Grade {
    grade_with(at, true)
}

/// What `mce_panic` prints behind "Kernel panic - not syncing: " (real-kernel.md §6.5).
pub const fn panic_message(mcg: McgStatus) -> &'static str {
    if mcg.has(McgStatus::LMCES) { "Fatal local machine check" } else { "Fatal machine check" }
}

/// How one kernel version handles a machine check on TDX memory (linux-host-paths.md §14, knobs of §24).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McPolicy {
    /// Knob `mce_seam_nr_recovery`: no in 6.8, yes from 6.12.
    pub seam_nr_recovery: bool,
    /// Knob `mce_mask_keyid`: the SEAM_NR branch drops the KeyID bits of MCi_ADDR before it looks for the page. No kernel
    /// up to 7.3-rc7 does (linux-host-paths.md §14.3), so that there the page of a private line is not marked.
    pub mask_keyid: bool,
    /// Physical address bits below the KeyID field, m − k of the platform; at most 52.
    pub address_bits: u8,
}

/// A machine check that reached the handler, and what came of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Graded {
    /// Its registers.
    pub record: McRecord,
    /// Row of the rule that graded it.
    pub row: u8,
    /// The grade.
    pub severity: Severity,
    /// Linux's words.
    pub message: String,
    /// MCG_STATUS.LMCES is clear: every logical processor got the exception. Recorded only (architecture.md §6.3).
    pub broadcast: bool,
    /// The page that was marked HWPoison for it, if any.
    pub hwpoison: Option<Page>,
    /// What becomes of the host.
    pub consequence: McConsequence,
}

/// Linux's machine-check handler: `do_machine_check` as far as memory errors go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinuxMce {
    policy: McPolicy,
    hwpoison: BTreeSet<Page>,
    log: Vec<Graded>,
}

impl LinuxMce {
    /// A handler that has seen nothing.
    pub const fn new(policy: McPolicy) -> LinuxMce {
        LinuxMce { policy, hwpoison: BTreeSet::new(), log: Vec::new() }
    }
    /// How it handles them.
    pub const fn policy(&self) -> &McPolicy {
        &self.policy
    }
    /// The 4 KiB pages with the HWPoison flag: not handed out again once freed (architecture.md §6.4).
    pub const fn hwpoison(&self) -> &BTreeSet<Page> {
        &self.hwpoison
    }
    /// Every machine check seen, oldest first.
    pub fn log(&self) -> &[Graded] {
        &self.log
    }

    /// The page of MCi_ADDR, or `None` where the address, KeyID bits and all, is not in memory. Every rule that requires
    /// action asks for a valid address, so that this does not.
    fn page(&self, record: &McRecord, mask: bool) -> Option<Page> {
        let below = 1u64.checked_shl(self.policy.address_bits.into()).map_or(u64::MAX, |b| b - 1);
        if record.addr & !below != 0 && !mask {
            return None;
        }
        Some(Hpa(record.addr & below).page())
    }
}

impl McHandler for LinuxMce {
    fn machine_check(&mut self, record: &McRecord) -> McConsequence {
        // After a TD's exit the frame points behind SEAMCALL: to the kernel it is the kernel's own
        // (linux-host-paths.md §14.2 point 2). No modelled access has a machine-check-safe fixup.
        let context = match record.context {
            McContext::User => Context::User,
            McContext::Kernel | McContext::SeamRoot | McContext::SeamNonRoot => Context::Kernel,
        };
        let at = Situation { status: record.status, mcg: record.mcg, in_exception: true, context };
        let grade = grade_with(&at, self.policy.seam_nr_recovery);
        let (consequence, hwpoison) = match (grade.severity, context) {
            (Severity::Panic, _) => (McConsequence::Panic, None),
            // kill_me_maybe: memory_failure() masks the address on its own.
            (Severity::ActionRequired, Context::User) => {
                (McConsequence::Sigbus, self.page(record, true))
            }
            // Row 15: SetPageHWPoison only, and back behind SEAMCALL.
            (Severity::ActionRequired, _) => {
                (McConsequence::Survived, self.page(record, self.policy.mask_keyid))
            }
            _ => (McConsequence::Survived, None),
        };
        self.hwpoison.extend(hwpoison);
        self.log.push(Graded {
            record: *record,
            row: grade.row,
            severity: grade.severity,
            message: grade.message.to_owned(),
            broadcast: !record.mcg.has(McgStatus::LMCES),
            hwpoison,
            consequence,
        });
        consequence
    }
}

/// [`SEVERITY`] as a table of the book.
pub fn severity_markdown() -> String {
    let mut out =
        String::from("| Row | Condition | Grade | Message | Source |\n|---|---|---|---|---|\n");
    for r in SEVERITY {
        out.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            r.row, r.condition, r.severity, r.message, r.cite
        ));
    }
    out
}

#[cfg(test)]
mod tests;
