//! A machine check, explained.

use super::read::{FoundMce, is_memory_controller};
use super::{Explanation, Kind};
use host::mce::{Context, Grade, MCACOD_L3WB, Severity, Situation, grade, panic_message};
use sim_core::keyid::KeyIdLayout;
use sim_core::mca::{
    MCACOD_DATA_LOAD, MCACOD_FETCH, MCG_FIELDS, McStatus, McgStatus, STATUS_FIELDS, StatusParts,
};

/// KeyID layouts of real machines (architecture.md §9 "KeyIDs seen").
const LAYOUTS: &[KeyIdLayout] = &[
    KeyIdLayout { maxpa: 52, keyid_bits: 7, private_bits: 1, mktme_kids: 63, tdx_priv_kids: 64 },
    KeyIdLayout { maxpa: 52, keyid_bits: 6, private_bits: 1, mktme_kids: 31, tdx_priv_kids: 32 },
];

struct BankRow {
    first: u64,
    last: u64,
    meaning: &'static str,
    cite: &'static str,
}

const fn bank(first: u64, last: u64, meaning: &'static str, cite: &'static str) -> BankRow {
    BankRow { first, last, meaning, cite }
}

/// Banks of Sapphire Rapids (architecture.md §6.2).
#[rustfmt::skip]
const BANKS: &[BankRow] = &[
    bank(0,  0,  "IFU, instruction fetch (assumed: MC-20)", "architecture.md §13 MC-20"),
    bank(1,  1,  "DCU, data cache (assumed: MC-20)",        "architecture.md §13 MC-20"),
    bank(4,  4,  "PCU on Sapphire Rapids",                  "architecture.md §6.2"),
    bank(5,  5,  "UPI on Sapphire Rapids",                  "architecture.md §6.2"),
    bank(12, 12, "M2M on Sapphire Rapids; B2CMI on Granite Rapids", "architecture.md §6.2"),
    bank(13, 20, "memory controller on Sapphire Rapids (channel = bank - 13) and Granite Rapids", "architecture.md §6.2"),
    bank(21, 24, "memory controller on Granite Rapids",     "architecture.md §6.2"),
    bank(29, 29, "HBM M2M on Sapphire Rapids",              "architecture.md §6.2"),
    bank(30, 31, "HBM memory controller on Sapphire Rapids", "architecture.md §6.2"),
];

/// MSCODs of Sapphire Rapids' memory controllers (architecture.md §6.2 "SPR IMC MSCOD").
#[rustfmt::skip]
const IMC_MSCODS: &[(u16, &str)] = &[
    (0x0822, "TME key parity"),
    (0x0826, "TME TEM secure error"),
    (0x082A, "TME integrity error"),
    (0x082B, "TME TDX error"),
    (0x082D, "TME key poison"),
    (0x082E, "TME security engine error"),
];

/// MMM of a memory-controller MCACOD (architecture.md §6.2).
const TRANSACTIONS: &[(u16, &str)] =
    &[(0, "generic"), (1, "read"), (2, "write"), (3, "address or command"), (4, "scrub")];

fn mcacod_meaning(parts: &StatusParts) -> String {
    let code = parts.mcacod;
    match code {
        MCACOD_DATA_LOAD => String::from("data load"),
        MCACOD_FETCH => String::from("instruction fetch"),
        MCACOD_L3WB => String::from("explicit write-back from the last-level cache"),
        0x040C if matches!(parts.mscod & 0xF, 4 | 9) => {
            String::from("unrecoverable error during security flow execution (PCU)")
        }
        code if is_memory_controller(code) => {
            let what = code >> 4 & 7;
            let what = TRANSACTIONS
                .iter()
                .find(|(number, _)| *number == what)
                .map_or("reserved transaction", |(_, text)| *text);
            let channel = match code & 0xF {
                15 => String::from("channel not specified"),
                channel => format!("channel {channel}"),
            };
            let filtered = if code & 0x1000 != 0 { ", corrected-error filtering" } else { "" };
            format!("memory controller, {what}, {channel}{filtered}")
        }
        _ => String::from("not in the tables of this project"),
    }
}

fn mscod_meaning(parts: &StatusParts, bank: Option<u64>) -> &'static str {
    let controller = bank.is_none_or(|bank| matches!(bank, 13..=20 | 30..=31));
    IMC_MSCODS
        .iter()
        .find(|(code, _)| controller && *code == parts.mscod)
        .map_or("model-specific, not in the tables of this project", |(_, text)| *text)
}

fn is_memory_encryption(parts: &StatusParts, bank: Option<u64>) -> bool {
    IMC_MSCODS.iter().any(|(_, text)| *text == mscod_meaning(parts, bank))
}

/// Class of an error (architecture.md §6.2 rows UCNA, SRAO, SRAR).
fn class(parts: &StatusParts) -> &'static str {
    let optional = matches!(parts.mcacod, 0x00C0..=0x00CF | MCACOD_L3WB);
    match (parts.val, parts.uc, parts.pcc, parts.s, parts.ar) {
        (false, ..) => "no valid error",
        (_, false, ..) => "corrected error",
        (_, _, true, ..) => "uncorrected, processor context corrupt",
        (_, _, _, true, true) => "SRAR: software recoverable, action required",
        (_, _, _, true, false) => "SRAO: software recoverable, action optional",
        (_, _, _, false, false) if optional => "SRAO by CMCI: action optional",
        (_, _, _, false, false) => "UCNA: uncorrected, no action required",
        (_, _, _, false, true) => "no legal class (S=0 with AR=1)",
    }
}

fn is_srar(parts: &StatusParts) -> bool {
    parts.val && parts.uc && !parts.pcc && parts.s && parts.ar
}

pub(super) fn explain(found: &FoundMce) -> Explanation {
    let parts = found.status.unpack();
    let mut out = Explanation::new(
        Kind::MciStatus,
        format!(
            "MCi_STATUS {:#018x} = {}; {}",
            found.status.0,
            class(&parts),
            mcacod_meaning(&parts)
        ),
    );
    out.cite("architecture.md §6.2");
    if let Some(cpu) = found.cpu {
        out.field("CPU", cpu.to_string(), "");
    }
    if let Some(bank) = found.bank {
        let row = BANKS.iter().find(|row| (row.first..=row.last).contains(&bank));
        out.field("bank", bank.to_string(), row.map_or("", |row| row.meaning));
        if let Some(row) = row {
            out.cite(row.cite);
        }
    }
    status_fields(&mut out, found.status, &parts, found.bank);
    if let Some(mcg) = found.mcg {
        out.field("MCG_STATUS", format!("{:#x}", mcg.0), "");
        for field in MCG_FIELDS {
            let set = mcg.0 >> field.shift & 1 != 0;
            out.field(field.name, if set { "1" } else { "0" }, bit_meaning(field.meaning, set));
        }
    }
    if let Some(addr) = found.addr {
        address(&mut out, addr);
        if !parts.addrv {
            out.note("ADDRV is clear: MCi_ADDR is not valid.");
        }
    }
    if let Some(misc) = found.misc {
        // SDM: MCi_MISC with SER_P.
        let mode = match misc >> 6 & 7 {
            0 => "segment offset",
            1 => "linear address",
            2 => "physical address",
            3 => "memory address",
            7 => "generic",
            _ => "reserved",
        };
        let lsb = misc & 0x3F;
        out.field("MISC", format!("{misc:#x}"), format!("{mode}, valid from bit {lsb} up"));
        out.cite("SDM vol. 3, IA32_MCi_MISC");
    }
    if let Some((cs, at)) = &found.rip {
        out.field("RIP", at.as_str(), if cs & 3 == 3 { "user code" } else { "kernel code" });
    }
    processor(&mut out, found.cpuid);
    linux(&mut out, found, &parts);
    log_lines(&mut out, found, &parts);
    advice(&mut out, found, &parts);
    if found.ambiguous {
        out.note("The same number is a known completion status, explained above: only where it came from can tell.");
    }
    out
}

fn bit_meaning(meaning: &str, set: bool) -> String {
    if set { meaning.to_owned() } else { format!("not set ({meaning})") }
}

fn status_fields(out: &mut Explanation, status: McStatus, parts: &StatusParts, bank: Option<u64>) {
    for field in STATUS_FIELDS {
        match field.name {
            "MSCOD" => {
                out.field(field.name, format!("{:#06x}", parts.mscod), mscod_meaning(parts, bank))
            }
            "MCACOD" => {
                out.field(field.name, format!("{:#06x}", parts.mcacod), mcacod_meaning(parts));
            }
            name => {
                let set = status.0 >> field.shift & 1 != 0;
                out.field(name, if set { "1" } else { "0" }, bit_meaning(field.meaning, set));
            }
        }
    }
}

fn address(out: &mut Explanation, addr: u64) {
    out.field("MCi_ADDR", format!("{addr:#x}"), "KeyID bits included");
    out.cite("architecture.md §13 MC-24");
    out.cite("architecture.md §9");
    for layout in LAYOUTS {
        let k = layout.keyid_bits;
        let name = format!("if k={k}");
        match layout.split(addr) {
            Some(at) if layout.is_private(at.keyid) => {
                out.field(name, format!("HKID {:#x}, PA {}", at.keyid.0, at.hpa), "private");
            }
            Some(at) => {
                out.field(name, format!("KeyID {:#x}, PA {}", at.keyid.0, at.hpa), "shared");
            }
            None => out.field(name, "", "not an address below MAXPA 52"),
        }
    }
}

pub(super) fn explain_addr(addr: u64) -> Explanation {
    let mut out = Explanation::new(
        Kind::MciAddr,
        format!("MCi_ADDR {addr:#x}, split into KeyID and address"),
    );
    address(&mut out, addr);
    out.note(
        "k is MK_TME_KEYID_BITS, IA32_TME_ACTIVATE (0x982) bits 35:32. The right row is the one whose physical \
         address the machine has.",
    );
    out.cite("architecture.md §8");
    out
}

/// Parts with the partial-write erratum, by CPUID leaf 1 EAX (architecture.md §5 5.6).
fn processor(out: &mut Explanation, cpuid: Option<u64>) {
    let Some(eax) = cpuid else { return };
    let family = eax >> 8 & 0xF;
    let model = eax >> 4 & 0xF | eax >> 12 & 0xF0;
    let meaning = match (family, model) {
        (6, 0x8F) => "Sapphire Rapids (06_8F): has the partial-write erratum",
        (6, 0xCF) => "Emerald Rapids (06_CF): has the partial-write erratum",
        _ => "not one of the parts listed with the partial-write erratum",
    };
    out.field("PROCESSOR", format!("{eax:#x}"), meaning);
    out.cite("architecture.md §5 5.6");
}

/// What follows for the host.
fn consequence(grade: &Grade, context: Context, mcg: McgStatus) -> String {
    match (grade.severity, context) {
        (Severity::Panic, _) => format!("\"Kernel panic - not syncing: {}\"", panic_message(mcg)),
        (Severity::ActionRequired, Context::User) => {
            String::from("memory_failure() of the page, SIGBUS to the process")
        }
        (Severity::ActionRequired, Context::KernelFixup) => {
            String::from("the access fails with an error, the kernel goes on")
        }
        (Severity::ActionRequired, Context::Kernel) => {
            String::from("the page is marked HWPoison, the host goes on behind SEAMCALL")
        }
        (Severity::ActionOptional, _) => String::from("memory_failure() of the page later"),
        (Severity::Ucna | Severity::Keep | Severity::Some, _) => {
            String::from("logged, the host goes on")
        }
        (Severity::None, _) => String::from("ignored"),
    }
}

fn linux(out: &mut Explanation, found: &FoundMce, parts: &StatusParts) {
    let mcg = found.mcg.unwrap_or(McgStatus(McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP));
    let in_exception = match found.mcg {
        Some(mcg) => mcg.has(McgStatus::MCIP),
        None => parts.s || parts.pcc,
    };
    let mut ways = vec![
        ("Linux, kernel", Context::Kernel, mcg),
        ("Linux, fixup", Context::KernelFixup, mcg),
        ("Linux, user", Context::User, mcg),
    ];
    if let Some((cs, _)) = &found.rip {
        let user = cs & 3 == 3;
        ways.retain(|(_, context, _)| (*context == Context::User) == user);
    }
    if mcg.has(McgStatus::SEAM_NR) {
        // The frame points behind SEAMCALL: to the kernel, its own code without a machine-check fixup.
        ways.retain(|(_, context, _)| *context == Context::Kernel);
    } else if found.mcg.is_none() && is_srar(parts) {
        ways.push(("Linux, in TD", Context::Kernel, McgStatus(mcg.0 | McgStatus::SEAM_NR)));
    }
    let graded: Vec<_> = ways
        .into_iter()
        .map(|(name, context, mcg)| {
            let at = Situation { status: found.status, mcg, in_exception, context };
            (name, grade(&at), context, mcg)
        })
        .collect();
    let same = graded.iter().all(|(_, grade, ..)| Some(*grade) == graded.first().map(|g| g.1));
    let shown = if same { 1 } else { graded.len() };
    for (name, grade, context, mcg) in graded.into_iter().take(shown) {
        let name = if same { "Linux" } else { name };
        let row = match grade.row {
            row @ 1..=17 => format!("row {row}"),
            _ => String::from("after row 17"),
        };
        out.field(
            name,
            format!("{} ({row}), \"{}\"", grade.severity, grade.message),
            consequence(&grade, context, mcg),
        );
    }
    out.cite("architecture.md §6.4");
    if found.mcg.is_none() && in_exception {
        out.note("Without MCG_STATUS, RIPV=EIPV=MCIP=1 is assumed for what Linux does.");
    }
}

fn log_lines(out: &mut Explanation, found: &FoundMce, parts: &StatusParts) {
    if let Some(message) = &found.message {
        out.field("logged", message.as_str(), "");
        let known = matches!(parts.mcacod, MCACOD_DATA_LOAD | MCACOD_FETCH);
        if known && message.contains("unknown MCACOD") {
            out.note("The kernel calls a known MCACOD unknown: it is built without CONFIG_MEMORY_FAILURE, or the register has no address.");
        }
    }
    if let Some(panic) = &found.panic {
        out.field("panic", panic.as_str(), "");
    }
    if found.tdx_hint {
        out.note(
            "\"TDX private memory error. Possible kernel bug.\": the module says that the page is in its use, so \
             suspect kernel code that wrote part of a line of it, before the memory.",
        );
        out.cite("linux-host-paths.md §14.2");
    }
}

fn advice(out: &mut Explanation, found: &FoundMce, parts: &StatusParts) {
    let seam_nr = found.mcg.is_some_and(|mcg| mcg.has(McgStatus::SEAM_NR));
    if is_memory_encryption(parts, found.bank) {
        out.note(
            "The memory controller found it while reading: this is where poison is born. That 0x082B is a TD-bit \
             mismatch and 0x082A a MAC mismatch is plausible, not documented.",
        );
        out.note(
            "Who reads the line next takes the machine check; a full-line write (MOVDIR64B) makes the line usable.",
        );
        out.cite("architecture.md §6.1");
        out.cite("architecture.md §13 MC-20");
    }
    if !is_srar(parts) {
        return;
    }
    if seam_nr {
        out.note(
            "SEAM_NR: the poison was consumed in a TD. That TD is fatal: TDH.VP.ENTER returned \
             0x6000000500000000 | exit reason, and later calls return 0xE000060400000000. The host is unharmed.",
        );
        out.cite("architecture.md §6.3");
        if found.addr.is_some_and(|addr| addr >> 45 != 0) {
            out.note(
                "MCi_ADDR has KeyID bits: kernels up to 7.3-rc7 do not mask them in this branch, find no such page and \
                 leave it unmarked.",
            );
            out.cite("linux-host-paths.md §14.3");
        }
        return;
    }
    out.note(
        "A host read with KeyID 0 consumes poison of three kinds only: a real memory error; on parts with the \
         erratum, an earlier write of part of a line to TDX private memory (MOVNTI, UC or WC mapping, DMA); or an \
         earlier failed read by a TD or the module of a line that was not fully rewritten since. On a CPU without \
         SEAM_NR, a machine check of a TD can also look like this.",
    );
    out.note(
        "A read of intact TDX private memory with KeyID 0 gives zeros, never a machine check.",
    );
    out.cite("verification.md §0");
    out.cite("architecture.md §5");
}
