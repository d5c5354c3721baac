//! The grammar of operations: printing, reading, and the table of mnemonics that the manual is made from.

use super::{
    AddrExpr, Base, CallRegs, IrqKind, KeyAlg, KeyRef, MemType, Op, PconfigCmd, RegBase, RegExpr,
    Source, TextOp, Value,
};
use crate::addr::Addr;
use crate::tdx::{GUEST_LEAVES, GuestLeaf, LEAVES, Leaf};
use crate::time::Ps;
use crate::units::clip;
use std::fmt::{self, Display, Write};
use std::str::FromStr;
use thiserror::Error;

/// A row of the manual's table of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mnemonic {
    /// The word that begins the line.
    pub name: &'static str,
    /// Its operands.
    pub operands: &'static str,
    /// What it does, with its citation.
    pub meaning: &'static str,
}

/// Every operation, as the manual lists them.
#[rustfmt::skip]
pub const MNEMONICS: &[Mnemonic] = &[
    m("load",          "[ADDR] BYTES",            "cached load of 1 to 64 bytes"),
    m("load.uc",       "[ADDR] BYTES",            "uncached load"),
    m("load.wc",       "[ADDR] BYTES",            "load through a write-combining mapping"),
    m("fetch",         "[ADDR]",                  "instruction fetch"),
    m("prefetch",      "[ADDR]",                  "prefetch or speculative load that never retires (MC-06)"),
    m("store",         "[ADDR] BYTES VALUE?",     "cached (WB) store of 1 to 64 bytes"),
    m("store.uc",      "[ADDR] BYTES VALUE?",     "store through an uncacheable mapping"),
    m("store.wc",      "[ADDR] BYTES VALUE?",     "store through a write-combining mapping (MC-28)"),
    m("movnti",        "[ADDR] 4|8 VALUE?",       "non-temporal store (MC-28)"),
    m("movntdq",       "[ADDR] 16|32|64 VALUE?",  "non-temporal vector store, aligned"),
    m("movdiri",       "[ADDR] 4|8 VALUE?",       "direct store (architecture.md §3 3.8)"),
    m("movdir64b",     "[ADDR] zero|fill=B|[ADDR]", "direct store of a line (architecture.md §3)"),
    m("movdir64b.page","[ADDR]",                  "64 MOVDIR64B of zeros over a page, no fence (architecture.md §3 3.9)"),
    m("rep-stosb",     "[ADDR] BYTES fill=B",     "fast-string store (MC-29)"),
    m("lock-xadd",     "[ADDR] 1|2|4|8 VALUE",    "locked read-modify-write"),
    m("clflush",       "[ADDR]",                  "write back and invalidate the line under this KeyID"),
    m("clflushopt",    "[ADDR]",                  "the same, weakly ordered"),
    m("clwb",          "[ADDR]",                  "write back and keep, weakly ordered"),
    m("wbinvd",        "",                        "write back and invalidate all caches of the package"),
    m("wbnoinvd",      "",                        "write back all caches of the package and keep"),
    m("wbinvdp",       "BLOCK",                   "WRMSR 0x98: wbinvd of a sub-block, SEAM only (architecture.md §4.1 4.1.10)"),
    m("wbnoinvdp",     "BLOCK",                   "WRMSR 0x99: wbnoinvd of a sub-block, SEAM only"),
    m("mfence",        "",                        "full fence"),
    m("sfence",        "",                        "store fence"),
    m("lfence",        "",                        "load fence"),
    m("interrupt",     "",                        "an interrupt on this core; drains WC buffers (MC-28)"),
    m("delay",         "TIME",                    "nothing, for so long"),
    m("pconfig",       "KEYID CMD ALG?",          "program a key (architecture.md §8)"),
    m("dma-read",      "[ADDR] BYTES",            "device read of 1 to 4096 bytes (MC-13)"),
    m("dma-write",     "[ADDR] BYTES VALUE?",     "device write of 1 to 4096 bytes (MC-13)"),
    m("evict",         "[ADDR]",                  "hardware's choice: the line leaves every cache now"),
    m("wc-evict",      "CORE",                    "hardware's choice: the core's oldest WC buffer leaves now"),
    m("write-back",    "[ADDR]",                  "hardware's choice: the line's modified copy is written to memory now, and kept"),
    m("drain",         "CORE [ADDR]",             "hardware's choice: what the core has waiting for the line, WC buffer or weakly ordered operation, becomes visible now (MC-28)"),
    m("flip-bit",      "[ADDR] BIT",              "physical fault: one bit of the stored ciphertext"),
    m("flip-td",       "[ADDR]",                  "physical fault: the stored TD-owner bit"),
    m("move-line",     "[FROM] [TO]",             "physical attack: copy ciphertext, TD bit and MAC"),
    m("save-line",     "[ADDR] SLOT",             "physical attack: remember the line"),
    m("replay-line",   "SLOT [ADDR]",             "physical attack: put it back"),
    m("inject-ue",     "[ADDR]",                  "physical fault: uncorrectable memory error"),
    m("tdh.LEAF",      "REGS?",                   "SEAMCALL of a leaf by its name, such as `tdh.mng.create` or `tdh.mem.sept.add.v1` (architecture.md §7.9)"),
    m("seamcall",      "NUMBER REGS?",            "SEAMCALL of any leaf number; `seamcall.v1` for version 1 (architecture.md §7.1)"),
    m("tdg.LEAF",      "REGS?",                   "TDCALL of a leaf by its name, such as `tdg.mem.page.accept` (architecture.md §7.9)"),
    m("tdcall",        "NUMBER REGS?",            "TDCALL of any leaf number; `tdcall.v1` for version 1 (architecture.md §7.11)"),
    m("irq",           "CORE nmi|smi?",           "an interrupt, NMI or SMI arrives at the core (architecture.md §7.11 \"Exit reasons used\")"),
    m("wrmsr",         "MSR NUMBER",              "WRMSR by the kernel (architecture.md §7.9 \"TDH.SYS.INIT\")"),
    m("starve",        "CORE DRAWS",              "hardware fault: so many random draws of the core find no entropy (architecture.md §7.3)"),
    m("mov-cr3",       "REG",                     "a guest's new page tables (architecture.md §2.5)"),
    m("seamldr.install", "",                      "P-SEAMLDR: a new TDX module in place of the old one (linux-host-paths.md §2.1)"),
    m("invlpg",        "[ADDR]",                  "a guest drops its translation of a linear address"),
];

/// The registers that a call may name, as the manual writes them.
pub const REGS: &str = "`REGS`: `rcx=` `rdx=` `r8=` to `r13=`, each at most once and 0 where absent. A register holds a \
number, the name of a KeyID (`priv1`), or in brackets a physical address with its KeyID bits (`[P0@priv1]`; KeyID 0 where \
none is named); after `|` a number that is or-ed in: `rcx=0x200000|1`, `rdx=[TDR]|1`.";

const fn m(name: &'static str, operands: &'static str, meaning: &'static str) -> Mnemonic {
    Mnemonic { name, operands, meaning }
}

/// Why a line is not an operation.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("found {found}, expected {expected}")]
pub struct OpParseError {
    /// Byte offset in the text at which the trouble begins.
    pub at: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
}

// ---------------------------------------------------------------------------------------------------------------- print

impl Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::Abs(hpa) => write!(f, "{hpa:#x}"),
            Base::Region { name, offset: 0 } => f.write_str(name),
            Base::Region { name, offset } => write!(f, "{name}+{offset:#x}"),
        }
    }
}

impl Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRef::Num(n) => write!(f, "{n}"),
            KeyRef::Private(n) => write!(f, "priv{n}"),
            KeyRef::Shared(n) => write!(f, "shared{n}"),
        }
    }
}

impl Display for AddrExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            None => write!(f, "{}", self.base),
            Some(key) => write!(f, "{}@{key}", self.base),
        }
    }
}

impl Display for RegExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            RegBase::Num(n) => write!(f, "{n:#x}")?,
            RegBase::Place(at) => write!(f, "[{at}]")?,
            RegBase::Private(n) => write!(f, "{}", KeyRef::Private(*n))?,
            RegBase::Shared(n) => write!(f, "{}", KeyRef::Shared(*n))?,
        }
        match self.or {
            0 => Ok(()),
            or @ 1..10 => write!(f, "|{or}"),
            or => write!(f, "|{or:#x}"),
        }
    }
}

impl fmt::LowerHex for RegExpr {
    /// As [`Display`] does: so that registers print alike, resolved or not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for IrqKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IrqKind::Interrupt => "interrupt",
            IrqKind::Nmi => "nmi",
            IrqKind::Smi => "smi",
        })
    }
}

/// A call: its leaf by name where the number has one, and the registers that are not zero.
fn write_call<R: fmt::LowerHex + Default + PartialEq>(
    f: &mut fmt::Formatter<'_>,
    instruction: &str,
    (name, number): (Option<&str>, u16),
    version: u8,
    regs: &CallRegs<R>,
) -> fmt::Result {
    match name {
        Some(name) => name.chars().try_for_each(|c| f.write_char(c.to_ascii_lowercase()))?,
        None => f.write_str(instruction)?,
    }
    if version != 0 {
        write!(f, ".v{version}")?;
    }
    if name.is_none() {
        write!(f, " {number}")?;
    }
    let zero = R::default();
    for (name, value) in CallRegs::NAMES.iter().zip(&regs.0).filter(|(_, value)| **value != zero) {
        write!(f, " {name}={value:#x}")?;
    }
    Ok(())
}

impl Display for Value {
    /// With a space in front; nothing when the text gave none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unsaid => Ok(()),
            Value::Num(n) => write!(f, " {n:#x}"),
            Value::Fill(byte) => write!(f, " fill={byte:#x}"),
        }
    }
}

impl Display for KeyAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyAlg::Xts128 => "xts-128",
            KeyAlg::Xts128Integrity => "xts-128-integrity",
            KeyAlg::Xts256 => "xts-256",
            KeyAlg::Xts256Integrity => "xts-256-integrity",
        })
    }
}

/// A time in the largest unit that leaves a whole number, as [`crate::units::parse_time`] reads it.
fn write_time(f: &mut fmt::Formatter<'_>, time: Ps) -> fmt::Result {
    let units = [(1_000_000_000_000, "s"), (1_000_000_000, "ms"), (1_000_000, "us"), (1000, "ns")];
    for (scale, unit) in units {
        if time.0 != 0 && time.0.is_multiple_of(scale) {
            return write!(f, "{}{unit}", time.0 / scale);
        }
    }
    write!(f, "{}ps", time.0)
}

impl<A: Display, K: Display, R: fmt::LowerHex + Default + PartialEq> Display for Op<A, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |ty: &MemType| match ty {
            MemType::Wb => "",
            MemType::Uc => ".uc",
            MemType::Wc => ".wc",
        };
        match self {
            Op::Load { at, bytes, ty } => write!(f, "load{} [{at}] {bytes}", suffix(ty)),
            Op::Fetch { at } => write!(f, "fetch [{at}]"),
            Op::Prefetch { at } => write!(f, "prefetch [{at}]"),
            Op::Store { at, bytes, value, ty } => {
                write!(f, "store{} [{at}] {bytes}{value}", suffix(ty))
            }
            Op::NtStore { at, bytes, value } => {
                let name = if *bytes <= 8 { "movnti" } else { "movntdq" };
                write!(f, "{name} [{at}] {bytes}{value}")
            }
            Op::Movdiri { at, bytes, value } => write!(f, "movdiri [{at}] {bytes}{value}"),
            Op::Movdir64b { dst, src: Source::Fill(0) } => write!(f, "movdir64b [{dst}] zero"),
            Op::Movdir64b { dst, src: Source::Fill(byte) } => {
                write!(f, "movdir64b [{dst}] fill={byte:#x}")
            }
            Op::Movdir64b { dst, src: Source::Mem(src) } => write!(f, "movdir64b [{dst}] [{src}]"),
            Op::Movdir64bPage { at } => write!(f, "movdir64b.page [{at}]"),
            Op::RepStosb { at, bytes, value } => {
                write!(f, "rep-stosb [{at}] {bytes} fill={value:#x}")
            }
            Op::LockXadd { at, bytes, value } => write!(f, "lock-xadd [{at}] {bytes} {value:#x}"),
            Op::Clflush { at } => write!(f, "clflush [{at}]"),
            Op::Clflushopt { at } => write!(f, "clflushopt [{at}]"),
            Op::Clwb { at } => write!(f, "clwb [{at}]"),
            Op::Wbinvd => f.write_str("wbinvd"),
            Op::Wbnoinvd => f.write_str("wbnoinvd"),
            Op::Wbinvdp { block } => write!(f, "wbinvdp {block}"),
            Op::Wbnoinvdp { block } => write!(f, "wbnoinvdp {block}"),
            Op::Mfence => f.write_str("mfence"),
            Op::Sfence => f.write_str("sfence"),
            Op::Lfence => f.write_str("lfence"),
            Op::Interrupt => f.write_str("interrupt"),
            Op::Delay { time } => {
                f.write_str("delay ")?;
                write_time(f, *time)
            }
            Op::Pconfig { keyid, cmd, alg } => {
                write!(f, "pconfig {keyid} ")?;
                match cmd {
                    PconfigCmd::SetDirect(key) => write!(f, "set-direct={key:#x}")?,
                    PconfigCmd::SetRandom => f.write_str("set-random")?,
                    PconfigCmd::ClearKey => f.write_str("clear")?,
                    PconfigCmd::NoEncrypt => f.write_str("no-encrypt")?,
                }
                match alg {
                    None => Ok(()),
                    Some(alg) => write!(f, " {alg}"),
                }
            }
            Op::DmaRead { at, bytes } => write!(f, "dma-read [{at}] {bytes}"),
            Op::DmaWrite { at, bytes, value } => write!(f, "dma-write [{at}] {bytes}{value}"),
            Op::Evict { at } => write!(f, "evict [{at}]"),
            Op::WcEvict { core } => write!(f, "wc-evict {core}"),
            Op::WriteBack { at } => write!(f, "write-back [{at}]"),
            Op::Drain { core, at } => write!(f, "drain {core} [{at}]"),
            Op::FlipBit { at, bit } => write!(f, "flip-bit [{at}] {bit}"),
            Op::FlipTd { at } => write!(f, "flip-td [{at}]"),
            Op::MoveLine { from, to } => write!(f, "move-line [{from}] [{to}]"),
            Op::SaveLine { at, slot } => write!(f, "save-line [{at}] {slot}"),
            Op::ReplayLine { slot, at } => write!(f, "replay-line {slot} [{at}]"),
            Op::InjectUe { at } => write!(f, "inject-ue [{at}]"),
            Op::Seamcall { leaf, version, regs } => {
                write_call(f, "seamcall", (leaf.name(), leaf.0), *version, regs)
            }
            Op::Tdcall { leaf, version, regs } => {
                write_call(f, "tdcall", (leaf.name(), leaf.0), *version, regs)
            }
            Op::Irq { core, kind: IrqKind::Interrupt } => write!(f, "irq {core}"),
            Op::Irq { core, kind } => write!(f, "irq {core} {kind}"),
            Op::Wrmsr { msr, value } => write!(f, "wrmsr {msr:#x} {value:#x}"),
            Op::Starve { core, draws } => write!(f, "starve {core} {draws}"),
            Op::MovCr3 { value } => write!(f, "mov-cr3 {value:#x}"),
            Op::Invlpg { at } => write!(f, "invlpg [{at}]"),
            Op::SeamldrInstall => f.write_str("seamldr.install"),
        }
    }
}

// ----------------------------------------------------------------------------------------------------------------- read

/// The longest line that is looked at; longer ones are refused before they are read.
const LINE_MAX: usize = 1024;
/// REP STOSB and DMA lengths.
const STOSB_MAX: u32 = 1 << 20;
const DMA_MAX: u32 = 4096;
/// The highest core number of any platform.
const CORE_MAX: u32 = 127;

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }
    /// The next word or bracketed operand, for a message.
    fn found(&self) -> String {
        let rest = self.rest();
        if rest.is_empty() {
            return "the end of the line".to_owned();
        }
        let len = rest.find([' ', '\t']).filter(|n| *n > 0).unwrap_or(rest.len());
        format!("`{}`", clip(&rest[..len]))
    }
    fn error(&self, expected: impl Into<String>) -> OpParseError {
        OpParseError { at: self.at, found: self.found(), expected: expected.into() }
    }
    fn eat(&mut self, token: &str) -> bool {
        let hit = self.rest().starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let len = rest.find([' ', '\t', '[', ']']).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }
    /// A number, decimal or `0x` hexadecimal.
    fn number(&mut self, expected: &str) -> Result<u64, OpParseError> {
        let start = self.at;
        let rest = self.rest();
        let (digits, radix) = match rest.strip_prefix("0x") {
            Some(hex) => (hex, 16),
            None => (rest, 10),
        };
        let len = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let skipped = rest.len() - digits.len();
        let value = u64::from_str_radix(&digits[..len], radix);
        let next = digits[len..].chars().next();
        if next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.') {
            return Err(self.error(expected));
        }
        self.at += skipped + len;
        value.map_err(|_| {
            self.at = start;
            self.error(format!("{expected} (at most 64 bits)"))
        })
    }
    fn bounded(&mut self, lo: u32, hi: u32, what: &str) -> Result<u32, OpParseError> {
        self.skip_space();
        let start = self.at;
        let expected = format!("{what}, {lo} to {hi}");
        let n = self.number(&expected)?;
        match u32::try_from(n) {
            Ok(n) if (lo..=hi).contains(&n) => Ok(n),
            _ => {
                self.at = start;
                Err(self.error(expected))
            }
        }
    }
    fn one_of(&mut self, choices: &[u32], what: &str) -> Result<u32, OpParseError> {
        self.skip_space();
        let start = self.at;
        let list: Vec<String> = choices.iter().map(u32::to_string).collect();
        let expected = format!("{what}: {}", list.join(", "));
        let n = self.number(&expected)?;
        choices.iter().copied().find(|c| u64::from(*c) == n).ok_or_else(|| {
            self.at = start;
            self.error(expected)
        })
    }
    fn key(&mut self) -> Result<KeyRef, OpParseError> {
        let expected = "a KeyID: a number, privN or sharedN";
        let start = self.at;
        for (prefix, make) in [
            ("priv", KeyRef::Private as fn(u16) -> KeyRef),
            ("shared", KeyRef::Shared as fn(u16) -> KeyRef),
        ] {
            if self.eat(prefix) {
                let n = self.number(expected).ok().and_then(|n| u16::try_from(n).ok());
                return n.map(make).ok_or_else(|| {
                    self.at = start;
                    self.error(expected)
                });
            }
        }
        let n = self.number(expected)?;
        u32::try_from(n).map(KeyRef::Num).map_err(|_| {
            self.at = start;
            self.error(expected)
        })
    }
    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let head = rest.chars().next()?;
        if !(head.is_ascii_alphabetic() || head == '_') {
            return None;
        }
        let len =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += len;
        Some(&rest[..len])
    }
    /// `[0x1000]`, `[P0+0x8]`, `[P0@priv1]`
    fn addr(&mut self) -> Result<AddrExpr, OpParseError> {
        self.skip_space();
        let expected = "an address such as [0x1000], [P0+0x8] or [P0@priv1]";
        if !self.eat("[") {
            return Err(self.error(expected));
        }
        self.skip_space();
        let base = match self.name() {
            Some(name) => {
                let offset = if self.eat("+") { self.number("an offset")? } else { 0 };
                Base::Region { name: name.to_owned(), offset }
            }
            None => Base::Abs(self.number(expected)?),
        };
        let key = if self.eat("@") { Some(self.key()?) } else { None };
        self.skip_space();
        if !self.eat("]") {
            return Err(self.error("`]`"));
        }
        Ok(AddrExpr { base, key })
    }
    fn fill(&mut self) -> Result<u8, OpParseError> {
        self.skip_space();
        if !self.eat("fill=") {
            return Err(self.error("fill=BYTE"));
        }
        let start = self.at;
        let n = self.number("a byte, 0 to 255")?;
        u8::try_from(n).map_err(|_| {
            self.at = start;
            self.error("a byte, 0 to 255")
        })
    }
    /// A value for `bytes` bytes, or none.
    fn value(&mut self, bytes: u32) -> Result<Value, OpParseError> {
        self.skip_space();
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(Value::Unsaid);
        }
        if rest.starts_with("fill=") {
            return Ok(Value::Fill(self.fill()?));
        }
        let start = self.at;
        let n = self.number("a number, fill=BYTE or nothing")?;
        if bytes < 8 && n >> (8 * bytes) != 0 {
            self.at = start;
            return Err(self.error(format!("a number that fits {bytes} bytes")));
        }
        Ok(Value::Num(n))
    }
    /// `0x200000|1`, `[P0@priv1]`, `priv1`
    fn reg(&mut self) -> Result<RegExpr, OpParseError> {
        let expected = "a number, privN, sharedN or an address such as [P0@priv1]";
        let rest = self.rest();
        let base = if rest.starts_with('[') {
            RegBase::Place(Box::new(self.addr()?))
        } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let start = self.at;
            match self.key() {
                Ok(KeyRef::Private(n)) => RegBase::Private(n),
                Ok(KeyRef::Shared(n)) => RegBase::Shared(n),
                Ok(KeyRef::Num(_)) | Err(_) => {
                    self.at = start;
                    return Err(self.error(expected));
                }
            }
        } else {
            RegBase::Num(self.number(expected)?)
        };
        let or = if self.eat("|") { self.number("a number to or in")? } else { 0 };
        if !(self.rest().is_empty() || self.rest().starts_with([' ', '\t'])) {
            return Err(self.error("a space"));
        }
        Ok(RegExpr { base, or })
    }
    /// `rcx=… r8=…`, in any order.
    fn regs(&mut self) -> Result<CallRegs<RegExpr>, OpParseError> {
        let mut regs: CallRegs<RegExpr> = CallRegs::default();
        let mut seen = [false; CallRegs::NAMES.len()];
        loop {
            self.skip_space();
            if self.rest().is_empty() {
                return Ok(regs);
            }
            let start = self.at;
            let named = self.name().filter(|_| self.rest().starts_with('='));
            let slots = CallRegs::NAMES.iter().zip(regs.0.iter_mut().zip(&mut seen));
            let slot = slots.into_iter().find(|(name, _)| Some(**name) == named);
            let Some((name, (reg, seen))) = slot else {
                self.at = start;
                let list = CallRegs::NAMES.join("=, ");
                return Err(self.error(format!("a register: {list}=, or the end of the line")));
            };
            if std::mem::replace(seen, true) {
                self.at = start;
                return Err(self.error(format!("{name} only once")));
            }
            self.at += 1;
            *reg = self.reg()?;
        }
    }
    fn end(&mut self) -> Result<(), OpParseError> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { Err(self.error("the end of the line")) }
    }
}

impl FromStr for TextOp {
    type Err = OpParseError;

    fn from_str(text: &str) -> Result<TextOp, OpParseError> {
        let mut c = Cursor { text, at: 0 };
        if text.len() > LINE_MAX {
            return Err(c.error(format!("a line of at most {LINE_MAX} bytes")));
        }
        let op = operation(&mut c)?;
        c.end()?;
        Ok(op)
    }
}

fn operation(c: &mut Cursor<'_>) -> Result<TextOp, OpParseError> {
    c.skip_space();
    let start = c.at;
    let word = c.word();
    if let Some(call) = call(c, start, word) {
        return call;
    }
    let ty = match word.rsplit_once('.') {
        Some((_, "uc")) => MemType::Uc,
        Some((_, "wc")) => MemType::Wc,
        _ => MemType::Wb,
    };
    Ok(match word {
        "load" | "load.uc" | "load.wc" => {
            Op::Load { at: c.addr()?, bytes: c.bounded(1, 64, "a number of bytes")?, ty }
        }
        "fetch" => Op::Fetch { at: c.addr()? },
        "prefetch" => Op::Prefetch { at: c.addr()? },
        "store" | "store.uc" | "store.wc" => {
            let at = c.addr()?;
            let bytes = c.bounded(1, 64, "a number of bytes")?;
            Op::Store { at, bytes, value: c.value(bytes)?, ty }
        }
        "movnti" | "movntdq" => {
            let at = c.addr()?;
            let sizes: &[u32] = if word == "movnti" { &[4, 8] } else { &[16, 32, 64] };
            let bytes = c.one_of(sizes, "a number of bytes")?;
            Op::NtStore { at, bytes, value: c.value(bytes)? }
        }
        "movdiri" => {
            let at = c.addr()?;
            let bytes = c.one_of(&[4, 8], "a number of bytes")?;
            Op::Movdiri { at, bytes, value: c.value(bytes)? }
        }
        "movdir64b" => {
            let dst = c.addr()?;
            c.skip_space();
            let src = if c.eat("zero") {
                Source::Fill(0)
            } else if c.rest().starts_with('[') {
                Source::Mem(c.addr()?)
            } else {
                let error = c.error("zero, fill=BYTE or a source address");
                Source::Fill(c.fill().map_err(|_| error)?)
            };
            Op::Movdir64b { dst, src }
        }
        "movdir64b.page" => Op::Movdir64bPage { at: c.addr()? },
        "rep-stosb" => Op::RepStosb {
            at: c.addr()?,
            bytes: c.bounded(1, STOSB_MAX, "a number of bytes")?,
            value: c.fill()?,
        },
        "lock-xadd" => {
            let at = c.addr()?;
            let bytes = c.one_of(&[1, 2, 4, 8], "a number of bytes")?;
            c.skip_space();
            let start = c.at;
            let value = c.number("a number")?;
            if bytes < 8 && value >> (8 * bytes) != 0 {
                c.at = start;
                return Err(c.error(format!("a number that fits {bytes} bytes")));
            }
            Op::LockXadd { at, bytes, value }
        }
        "clflush" => Op::Clflush { at: c.addr()? },
        "clflushopt" => Op::Clflushopt { at: c.addr()? },
        "clwb" => Op::Clwb { at: c.addr()? },
        "wbinvd" => Op::Wbinvd,
        "wbnoinvd" => Op::Wbnoinvd,
        "wbinvdp" => Op::Wbinvdp { block: c.bounded(0, u32::MAX, "a sub-block")? },
        "wbnoinvdp" => Op::Wbnoinvdp { block: c.bounded(0, u32::MAX, "a sub-block")? },
        "mfence" => Op::Mfence,
        "sfence" => Op::Sfence,
        "lfence" => Op::Lfence,
        "interrupt" => Op::Interrupt,
        "delay" => {
            c.skip_space();
            let start = c.at;
            let text = c.word();
            let time = crate::units::parse_time(text).map_err(|e| {
                c.at = start;
                c.error(format!("a time such as 100ns ({e})"))
            })?;
            Op::Delay { time }
        }
        "pconfig" => pconfig(c)?,
        "dma-read" => {
            Op::DmaRead { at: c.addr()?, bytes: c.bounded(1, DMA_MAX, "a number of bytes")? }
        }
        "dma-write" => {
            let at = c.addr()?;
            let bytes = c.bounded(1, DMA_MAX, "a number of bytes")?;
            Op::DmaWrite { at, bytes, value: c.value(bytes)? }
        }
        "evict" => Op::Evict { at: c.addr()? },
        "wc-evict" => Op::WcEvict { core: c.bounded(0, CORE_MAX, "a core number")? },
        "write-back" => Op::WriteBack { at: c.addr()? },
        "drain" => Op::Drain { core: c.bounded(0, CORE_MAX, "a core number")?, at: c.addr()? },
        "flip-bit" => Op::FlipBit { at: c.addr()?, bit: c.bounded(0, 511, "a bit number")? },
        "flip-td" => Op::FlipTd { at: c.addr()? },
        "move-line" => Op::MoveLine { from: c.addr()?, to: c.addr()? },
        "save-line" => Op::SaveLine { at: c.addr()?, slot: c.bounded(0, 15, "a slot")? },
        "replay-line" => Op::ReplayLine { slot: c.bounded(0, 15, "a slot")?, at: c.addr()? },
        "inject-ue" => Op::InjectUe { at: c.addr()? },
        "irq" => {
            let core = c.bounded(0, CORE_MAX, "a core number")?;
            c.skip_space();
            let start = c.at;
            let kind = match c.word() {
                "" => IrqKind::Interrupt,
                "nmi" => IrqKind::Nmi,
                "smi" => IrqKind::Smi,
                _ => {
                    c.at = start;
                    return Err(c.error("nmi, smi or nothing"));
                }
            };
            Op::Irq { core, kind }
        }
        "wrmsr" => {
            let msr = c.bounded(0, u32::MAX, "the number of an MSR")?;
            c.skip_space();
            Op::Wrmsr { msr, value: c.number("a number")? }
        }
        "starve" => {
            let core = c.bounded(0, CORE_MAX, "a core number")?;
            Op::Starve { core, draws: c.bounded(1, u32::MAX, "a number of draws")? }
        }
        "mov-cr3" => {
            c.skip_space();
            Op::MovCr3 { value: c.reg()? }
        }
        "invlpg" => Op::Invlpg { at: c.addr()? },
        "seamldr.install" => Op::SeamldrInstall,
        _ => {
            c.at = start;
            let mut expected = "an operation: ".to_owned();
            match nearest(word) {
                Some(near) => {
                    let _ = write!(expected, "did you mean `{near}`?");
                }
                None => {
                    let names: Vec<&str> = MNEMONICS.iter().map(|m| m.name).collect();
                    expected += &names.join(", ");
                }
            }
            return Err(c.error(expected));
        }
    })
}

/// A SEAMCALL or TDCALL, if the word is one: a leaf's name or the instruction's, then `.vN` for a version. `start` is where
/// the word stands.
fn call(c: &mut Cursor<'_>, start: usize, word: &str) -> Option<Result<TextOp, OpParseError>> {
    let (name, version) = match word.rsplit_once(".v") {
        Some((name, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (name, digits.parse::<u8>().ok())
        }
        _ => (word, Some(0)),
    };
    // A leaf's name has one spelling in a line of text, though the table finds it in others.
    let plain = !name.bytes().any(|b| b.is_ascii_uppercase() || b == b'_');
    let (leaf, guest) = match name {
        "seamcall" => (None, false),
        "tdcall" => (None, true),
        _ if !plain => return None,
        _ => match (Leaf::from_name(name), GuestLeaf::from_name(name)) {
            (Some(leaf), _) => (Some(leaf.0), false),
            (None, Some(leaf)) => (Some(leaf.0), true),
            (None, None) => return None,
        },
    };
    let Some(version) = version else {
        c.at = start + name.len() + 2;
        return Some(Err(c.error("a version, 0 to 255")));
    };
    let leaf = match leaf {
        Some(leaf) => leaf,
        None => match c.bounded(0, u16::MAX.into(), "the number of a leaf") {
            Ok(leaf) => leaf as u16,
            Err(error) => return Some(Err(error)),
        },
    };
    Some(c.regs().map(|regs| match guest {
        false => Op::Seamcall { leaf: Leaf(leaf), version, regs },
        true => Op::Tdcall { leaf: GuestLeaf(leaf), version, regs },
    }))
}

fn pconfig(c: &mut Cursor<'_>) -> Result<TextOp, OpParseError> {
    c.skip_space();
    let keyid = c.key()?;
    c.skip_space();
    let expected = "set-random, set-direct=NUMBER, clear or no-encrypt";
    let cmd = if c.eat("set-direct=") {
        PconfigCmd::SetDirect(c.number("a key number")?)
    } else {
        let start = c.at;
        match c.word() {
            "set-random" => PconfigCmd::SetRandom,
            "clear" => PconfigCmd::ClearKey,
            "no-encrypt" => PconfigCmd::NoEncrypt,
            _ => {
                c.at = start;
                return Err(c.error(expected));
            }
        }
    };
    c.skip_space();
    let start = c.at;
    let alg = match c.word() {
        "" => None,
        "xts-128" => Some(KeyAlg::Xts128),
        "xts-128-integrity" => Some(KeyAlg::Xts128Integrity),
        "xts-256" => Some(KeyAlg::Xts256),
        "xts-256-integrity" => Some(KeyAlg::Xts256Integrity),
        _ => {
            c.at = start;
            return Err(c.error("xts-128, xts-128-integrity, xts-256 or xts-256-integrity"));
        }
    };
    Ok(Op::Pconfig { keyid, cmd, alg })
}

/// The mnemonic or the leaf's name within two edits of a misspelt one, in any case.
fn nearest(word: &str) -> Option<String> {
    if word.len() > 40 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('_', ".");
    let leaves = LEAVES.iter().chain(GUEST_LEAVES).map(|row| row.name.to_ascii_lowercase());
    let plain = |name: &str| !name.bytes().any(|b| b.is_ascii_uppercase());
    let others = MNEMONICS.iter().filter(|m| plain(m.name)).map(|m| m.name.to_owned());
    others
        .chain(leaves)
        .map(|name| (edits(word.as_bytes(), name.as_bytes()), name))
        .min()
        .filter(|(n, _)| *n <= 2)
        .map(|(_, name)| name)
}

fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl From<Addr> for AddrExpr {
    /// A resolved address as text: absolute, with its KeyID.
    fn from(addr: Addr) -> AddrExpr {
        AddrExpr { base: Base::Abs(addr.hpa.0), key: Some(KeyRef::Num(u32::from(addr.keyid.0))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr() -> impl Strategy<Value = AddrExpr> {
        let base = prop_oneof![
            any::<u64>().prop_map(Base::Abs),
            ("[A-Za-z_][A-Za-z0-9_]{0,8}", any::<u64>())
                .prop_map(|(name, offset)| Base::Region { name, offset }),
        ];
        (base, proptest::option::of(key())).prop_map(|(base, key)| AddrExpr { base, key })
    }
    fn key() -> impl Strategy<Value = KeyRef> {
        prop_oneof![
            any::<u32>().prop_map(KeyRef::Num),
            any::<u16>().prop_map(KeyRef::Private),
            any::<u16>().prop_map(KeyRef::Shared),
        ]
    }
    fn value(bytes: u32) -> impl Strategy<Value = Value> {
        let mask = if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
        prop_oneof![
            Just(Value::Unsaid),
            any::<u64>().prop_map(move |n| Value::Num(n & mask)),
            any::<u8>().prop_map(Value::Fill),
        ]
    }
    fn sized(sizes: impl Strategy<Value = u32>) -> impl Strategy<Value = (AddrExpr, u32, Value)> {
        (addr(), sizes.prop_flat_map(|n| (Just(n), value(n)))).prop_map(|(a, (n, v))| (a, n, v))
    }
    fn ty() -> impl Strategy<Value = MemType> {
        prop_oneof![Just(MemType::Wb), Just(MemType::Uc), Just(MemType::Wc)]
    }
    fn pconfig_op() -> impl Strategy<Value = TextOp> {
        let cmd = prop_oneof![
            any::<u64>().prop_map(PconfigCmd::SetDirect),
            Just(PconfigCmd::SetRandom),
            Just(PconfigCmd::ClearKey),
            Just(PconfigCmd::NoEncrypt),
        ];
        let alg = prop_oneof![
            Just(KeyAlg::Xts128),
            Just(KeyAlg::Xts128Integrity),
            Just(KeyAlg::Xts256),
            Just(KeyAlg::Xts256Integrity),
        ];
        (key(), cmd, proptest::option::of(alg)).prop_map(|(keyid, cmd, alg)| Op::Pconfig {
            keyid,
            cmd,
            alg,
        })
    }

    /// Every operation there is, with every kind of operand.
    fn any_op() -> impl Strategy<Value = TextOp> {
        let src = prop_oneof![any::<u8>().prop_map(Source::Fill), addr().prop_map(Source::Mem)];
        let nt = proptest::sample::select(vec![4u32, 8, 16, 32, 64]);
        let xadd = proptest::sample::select(vec![1u32, 2, 4, 8]).prop_flat_map(|n| {
            let mask = if n == 8 { u64::MAX } else { (1u64 << (8 * n)) - 1 };
            (Just(n), any::<u64>().prop_map(move |v| v & mask))
        });
        let memory =
            prop_oneof![
                (addr(), 1u32..=64, ty()).prop_map(|(at, bytes, ty)| Op::Load { at, bytes, ty }),
                addr().prop_map(|at| Op::Fetch { at }),
                addr().prop_map(|at| Op::Prefetch { at }),
                (sized(1u32..=64), ty()).prop_map(|((at, bytes, value), ty)| Op::Store {
                    at,
                    bytes,
                    value,
                    ty
                }),
                sized(nt).prop_map(|(at, bytes, value)| Op::NtStore { at, bytes, value }),
                sized(proptest::sample::select(vec![4u32, 8]))
                    .prop_map(|(at, bytes, value)| Op::Movdiri { at, bytes, value }),
                (addr(), src).prop_map(|(dst, src)| Op::Movdir64b { dst, src }),
                addr().prop_map(|at| Op::Movdir64bPage { at }),
                (addr(), 1u32..=STOSB_MAX, any::<u8>())
                    .prop_map(|(at, bytes, value)| Op::RepStosb { at, bytes, value }),
                (addr(), xadd).prop_map(|(at, (bytes, value))| Op::LockXadd { at, bytes, value }),
            ];
        let flush = prop_oneof![
            addr().prop_map(|at| Op::Clflush { at }),
            addr().prop_map(|at| Op::Clflushopt { at }),
            addr().prop_map(|at| Op::Clwb { at }),
            Just(Op::Wbinvd),
            Just(Op::Wbnoinvd),
            any::<u32>().prop_map(|block| Op::Wbinvdp { block }),
            any::<u32>().prop_map(|block| Op::Wbnoinvdp { block }),
            Just(Op::Mfence),
            Just(Op::Sfence),
            Just(Op::Lfence),
            Just(Op::Interrupt),
            (0..Ps::HORIZON.0).prop_map(|t| Op::Delay { time: Ps(t) }),
        ];
        let called = prop_oneof![
            (any::<u16>(), version(), regs()).prop_map(|(leaf, version, regs)| Op::Seamcall {
                leaf: Leaf(leaf),
                version,
                regs
            }),
            (0..100u16, version(), regs()).prop_map(|(leaf, version, regs)| Op::Seamcall {
                leaf: Leaf(leaf),
                version,
                regs
            }),
            (0..40u16, version(), regs()).prop_map(|(leaf, version, regs)| Op::Tdcall {
                leaf: GuestLeaf(leaf),
                version,
                regs
            }),
            (
                0u32..128,
                proptest::sample::select(vec![IrqKind::Interrupt, IrqKind::Nmi, IrqKind::Smi])
            )
                .prop_map(|(core, kind)| Op::Irq { core, kind }),
            any::<(u32, u64)>().prop_map(|(msr, value)| Op::Wrmsr { msr, value }),
            (0u32..128, 1u32..).prop_map(|(core, draws)| Op::Starve { core, draws }),
            reg().prop_map(|value| Op::MovCr3 { value }),
            addr().prop_map(|at| Op::Invlpg { at }),
            Just(Op::SeamldrInstall),
        ];
        let other = prop_oneof![
            pconfig_op(),
            (addr(), 1u32..=DMA_MAX).prop_map(|(at, bytes)| Op::DmaRead { at, bytes }),
            sized(1u32..=DMA_MAX).prop_map(|(at, bytes, value)| Op::DmaWrite { at, bytes, value }),
            addr().prop_map(|at| Op::Evict { at }),
            (0u32..128).prop_map(|core| Op::WcEvict { core }),
            addr().prop_map(|at| Op::WriteBack { at }),
            (0u32..128, addr()).prop_map(|(core, at)| Op::Drain { core, at }),
            (addr(), 0u32..512).prop_map(|(at, bit)| Op::FlipBit { at, bit }),
            addr().prop_map(|at| Op::FlipTd { at }),
            (addr(), addr()).prop_map(|(from, to)| Op::MoveLine { from, to }),
            (addr(), 0u32..16).prop_map(|(at, slot)| Op::SaveLine { at, slot }),
            (0u32..16, addr()).prop_map(|(slot, at)| Op::ReplayLine { slot, at }),
            addr().prop_map(|at| Op::InjectUe { at }),
        ];
        prop_oneof![memory, flush, other, called]
    }

    fn version() -> impl Strategy<Value = u8> {
        prop_oneof![Just(0), Just(1), any::<u8>()]
    }
    fn reg() -> impl Strategy<Value = RegExpr> {
        let base = prop_oneof![
            Just(RegBase::Num(0)),
            any::<u64>().prop_map(RegBase::Num),
            addr().prop_map(|at| RegBase::Place(Box::new(at))),
            any::<u16>().prop_map(RegBase::Private),
            any::<u16>().prop_map(RegBase::Shared),
        ];
        (base, prop_oneof![Just(0), 0u64..20, any::<u64>()])
            .prop_map(|(base, or)| RegExpr { base, or })
    }
    /// Few registers hold anything, as in real calls.
    fn regs() -> impl Strategy<Value = CallRegs<RegExpr>> {
        proptest::collection::vec((0usize..8, reg()), 0..4).prop_map(|some| {
            let mut regs = CallRegs::default();
            for (i, reg) in some {
                regs.0[i] = reg;
            }
            regs
        })
    }

    proptest! {
        #[test]
        fn reading_is_the_inverse_of_printing(op in any_op()) {
            let text = op.to_string();
            prop_assert_eq!(text.parse::<TextOp>().map_err(|e| format!("{text}: {e}")), Ok(op));
        }

        #[test]
        fn what_can_be_read_prints_in_one_form(op in any_op()) {
            let text = op.to_string();
            let again = text.parse::<TextOp>().unwrap().to_string();
            prop_assert_eq!(text, again);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<TextOp>();
        }

        #[test]
        fn no_nearly_right_text_panics(op in any_op(), cut in 0usize..90, junk in "[\\[\\]@+|0-9a-zR_=. ]{0,4}") {
            let text = op.to_string();
            let cut = cut.min(text.len());
            if text.is_char_boundary(cut) {
                let text = format!("{}{junk}{}", &text[..cut], &text[cut..]);
                match text.parse::<TextOp>() {
                    Ok(op) => prop_assert_eq!(op.to_string().parse::<TextOp>(), Ok(op)),
                    Err(e) => prop_assert!(text.get(e.at..).is_some(), "{:?} {:?}", text, e),
                }
            }
        }

        #[test]
        fn registers_are_read_in_any_order(regs in regs(), turn in 0usize..8) {
            let op: TextOp = Op::Seamcall { leaf: Leaf::MNG_CREATE, version: 0, regs };
            let text = op.to_string();
            let mut words: Vec<&str> = text.split(' ').skip(1).collect();
            if !words.is_empty() {
                let n = words.len();
                words.rotate_left(turn % n);
            }
            let turned = format!("tdh.mng.create {}", words.join(" "));
            prop_assert_eq!(turned.parse::<TextOp>(), Ok(op));
        }

        #[test]
        fn a_resolved_call_prints_as_text_that_says_the_same(
            leaf in 0u16..120, version in version(), regs in any::<[u64; 8]>(), guest: bool,
        ) {
            let op: Op = match guest {
                false => Op::Seamcall { leaf: Leaf(leaf), version, regs: CallRegs(regs) },
                true => Op::Tdcall { leaf: GuestLeaf(leaf), version, regs: CallRegs(regs) },
            };
            let read: TextOp = op.to_string().parse().unwrap();
            let number = |reg: RegExpr| match reg {
                RegExpr { base: RegBase::Num(n), or: 0 } => Ok(n),
                other => Err(other),
            };
            let again = read.try_map(|_| Ok(Addr::default()), |_| Ok(crate::KeyId::TME), number);
            prop_assert_eq!(again, Ok(op));
        }
    }

    #[test]
    fn every_leaf_is_read_by_its_name_and_printed_by_it_whatever_way_it_was_given() {
        let zero = CallRegs::<RegExpr>::default;
        for row in LEAVES {
            let name = row.name.to_ascii_lowercase();
            let leaf = Leaf::from_name(row.name).unwrap();
            let op: TextOp = Op::Seamcall { leaf, version: 0, regs: zero() };
            assert_eq!(name.parse::<TextOp>().as_ref(), Ok(&op));
            assert_eq!(format!("seamcall {}", leaf.0).parse::<TextOp>().as_ref(), Ok(&op));
            assert_eq!(op.to_string(), leaf.name().unwrap().to_ascii_lowercase());
            let first = Op::Seamcall { leaf, version: 1, regs: zero() };
            assert_eq!(format!("{name}.v1").parse::<TextOp>().as_ref(), Ok(&first));
            assert_eq!(format!("seamcall.v1 {}", leaf.0).parse::<TextOp>(), Ok(first));
        }
        for row in GUEST_LEAVES {
            let name = row.name.to_ascii_lowercase();
            let leaf = GuestLeaf(row.number);
            let op: TextOp = Op::Tdcall { leaf, version: 0, regs: zero() };
            assert_eq!(name.parse::<TextOp>().as_ref(), Ok(&op));
            assert_eq!(format!("tdcall {}", row.number).parse::<TextOp>().as_ref(), Ok(&op));
            assert_eq!(op.to_string(), name);
        }
    }

    #[test]
    fn a_call_prints_what_is_not_zero_in_the_order_of_the_registers() {
        let shown: Vec<String> = [
            "tdh.mng.create rcx=[TDR] rdx=priv1",
            "tdh.mem.sept.add.v1 rdx=[TDR]|0x1 r8=[S0@0] rcx=2097152|1",
            "tdg.mem.page.accept rcx=0x200000|1",
            "tdh.vp.enter.v0 rcx=[0x1000@shared0]|0x10 r13=0",
            "seamcall 47 rcx=0x0|1 r13=0xffffffffffffffff",
            "seamcall.v255 65535",
            "seamcall 9",
            "tdcall 99",
            "irq 3",
            "irq 3 nmi",
            "wrmsr 59 1",
            "starve 1 12",
            "mov-cr3 [G0]|0x8",
            "invlpg [SHARED+0x1000]",
        ]
        .iter()
        .map(|line| line.parse::<TextOp>().unwrap_or_else(|e| panic!("{line}: {e}")).to_string())
        .collect();
        expect_test::expect![[r#"
            tdh.mng.create rcx=[TDR] rdx=priv1
            tdh.mem.sept.add.v1 rcx=0x200000|1 rdx=[TDR]|1 r8=[S0@0]
            tdg.mem.page.accept rcx=0x200000|1
            tdh.vp.enter rcx=[0x1000@shared0]|0x10
            seamcall 47 rcx=0x0|1 r13=0xffffffffffffffff
            seamcall.v255 65535
            tdh.mng.create
            tdcall 99
            irq 3
            irq 3 nmi
            wrmsr 0x3b 0x1
            starve 1 12
            mov-cr3 [G0]|8
            invlpg [SHARED+0x1000]"#]]
        .assert_eq(&shown.join("\n"));
    }

    #[test]
    fn every_mnemonic_of_the_manual_can_be_read() {
        for m in MNEMONICS {
            let name =
                m.name.replace("tdh.LEAF", "tdh.mem.track").replace("tdg.LEAF", "tdg.vp.info");
            let operands = m
                .operands
                .replace("zero|fill=B|[ADDR]", "zero")
                .replace("16|32|64", "16")
                .replace("1|2|4|8", "8")
                .replace("4|8", "8")
                .replace("VALUE?", "0x1")
                .replace("VALUE", "0x1")
                .replace("fill=B", "fill=0x1")
                .replace("KEYID CMD ALG?", "priv0 set-random xts-256")
                .replace("ADDR", "P0+0x40@33")
                .replace("FROM", "P0")
                .replace("TO", "P1")
                .replace("BYTES", "8")
                .replace("BLOCK", "0")
                .replace("TIME", "10ns")
                .replace("CORE", "0")
                .replace("BIT", "0")
                .replace("SLOT", "0")
                .replace("REGS?", "rcx=[P0@priv1]|1 r8=priv1")
                .replace("nmi|smi?", "smi")
                .replace("MSR", "0x3b")
                .replace("DRAWS", "2")
                .replace("REG", "[P0]")
                .replace("NUMBER", "300");
            let text = format!("{name} {operands}");
            let op = text.parse::<TextOp>().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert!(op.to_string().starts_with(&name), "{text} printed as {op}");
        }
    }

    #[test]
    fn errors_say_where_what_and_what_was_expected() {
        let lines = [
            "movnt [P0] 8",
            "load P0 8",
            "load [P0] 65",
            "load [P0@q] 8",
            "store [P0] 2 0x12345",
            "movnti [P0] 3",
            "load [0x1ffffffffffffffff] 8",
            "movdir64b [P0] one",
            "delay 10",
            "mfence now",
            "",
            "tdh.mng.creat rcx=1",
            "TDH.MNG.CREATE rcx=1",
            "tdh_mng_create",
            "tdh.mng.create.v256 rcx=1",
            "tdh.mng.create.v rcx=1",
            "tdh.mng.create rax=1",
            "tdh.mng.create rcx 1",
            "tdh.mng.create rcx=1 rcx=0",
            "tdh.mng.create rcx=",
            "tdh.mng.create rcx=P0",
            "tdh.mng.create rcx=priv70000",
            "tdh.mng.create rcx=[P0",
            "tdh.mng.create rcx=[P0]|",
            "tdh.mng.create rcx=[P0]|priv1",
            "tdh.mng.create rcx=[P0]rdx=1",
            "tdh.mng.create rcx=0x10000000000000000",
            "seamcall",
            "seamcall 65536",
            "seamcall tdh.mng.create",
            "tdcall -1",
            "irq 128",
            "irq 0 init",
            "wrmsr 0x100000000 0",
            "wrmsr 0x3b",
            "starve 0 0",
            "mov-cr3",
            "mov-cr3 0x1000 8",
            "invlpg 0x1000",
        ];
        let shown: Vec<String> = lines
            .iter()
            .map(|l| {
                let e = l.parse::<TextOp>().unwrap_err();
                let mut e = format!("{l:?}: {}: {e}", e.at);
                e.truncate(150);
                e
            })
            .collect();
        expect_test::expect![[r#"
            "movnt [P0] 8": 0: found `movnt`, expected an operation: did you mean `movnti`?
            "load P0 8": 5: found `P0`, expected an address such as [0x1000], [P0+0x8] or [P0@priv1]
            "load [P0] 65": 10: found `65`, expected a number of bytes, 1 to 64
            "load [P0@q] 8": 9: found `q]`, expected a KeyID: a number, privN or sharedN
            "store [P0] 2 0x12345": 13: found `0x12345`, expected a number that fits 2 bytes
            "movnti [P0] 3": 12: found `3`, expected a number of bytes: 4, 8
            "load [0x1ffffffffffffffff] 8": 6: found `0x1ffffffffffffffff]`, expected an address such as [0x1000], [P0+0x8] or [P0@priv1] (at most 64 bits)
            "movdir64b [P0] one": 15: found `one`, expected zero, fill=BYTE or a source address
            "delay 10": 6: found `10`, expected a time such as 100ns (found `10`, expected a time with one of the units ps, ns, us, ms, s)
            "mfence now": 7: found `now`, expected the end of the line
            "": 0: found the end of the line, expected an operation: load, load.uc, load.wc, fetch, prefetch, store, store.uc, store.wc, movnti, movntdq, movdiri,
            "tdh.mng.creat rcx=1": 0: found `tdh.mng.creat`, expected an operation: did you mean `tdh.mng.create`?
            "TDH.MNG.CREATE rcx=1": 0: found `TDH.MNG.CREATE`, expected an operation: did you mean `tdh.mng.create`?
            "tdh_mng_create": 0: found `tdh_mng_create`, expected an operation: did you mean `tdh.mng.create`?
            "tdh.mng.create.v256 rcx=1": 16: found `256`, expected a version, 0 to 255
            "tdh.mng.create.v rcx=1": 0: found `tdh.mng.create.v`, expected an operation: did you mean `tdh.mng.create`?
            "tdh.mng.create rax=1": 15: found `rax=1`, expected a register: rcx=, rdx=, r8=, r9=, r10=, r11=, r12=, r13=, or the end of the line
            "tdh.mng.create rcx 1": 15: found `rcx`, expected a register: rcx=, rdx=, r8=, r9=, r10=, r11=, r12=, r13=, or the end of the line
            "tdh.mng.create rcx=1 rcx=0": 21: found `rcx=0`, expected rcx only once
            "tdh.mng.create rcx=": 19: found the end of the line, expected a number, privN, sharedN or an address such as [P0@priv1] (at most 64 bits)
            "tdh.mng.create rcx=P0": 19: found `P0`, expected a number, privN, sharedN or an address such as [P0@priv1]
            "tdh.mng.create rcx=priv70000": 19: found `priv70000`, expected a number, privN, sharedN or an address such as [P0@priv1]
            "tdh.mng.create rcx=[P0": 22: found the end of the line, expected `]`
            "tdh.mng.create rcx=[P0]|": 24: found the end of the line, expected a number to or in (at most 64 bits)
            "tdh.mng.create rcx=[P0]|priv1": 24: found `priv1`, expected a number to or in
            "tdh.mng.create rcx=[P0]rdx=1": 23: found `rdx=1`, expected a space
            "tdh.mng.create rcx=0x10000000000000000": 19: found `0x10000000000000000`, expected a number, privN, sharedN or an address such as [P0@priv1] (at most
            "seamcall": 8: found the end of the line, expected the number of a leaf, 0 to 65535 (at most 64 bits)
            "seamcall 65536": 9: found `65536`, expected the number of a leaf, 0 to 65535
            "seamcall tdh.mng.create": 9: found `tdh.mng.create`, expected the number of a leaf, 0 to 65535
            "tdcall -1": 7: found `-1`, expected the number of a leaf, 0 to 65535 (at most 64 bits)
            "irq 128": 4: found `128`, expected a core number, 0 to 127
            "irq 0 init": 6: found `init`, expected nmi, smi or nothing
            "wrmsr 0x100000000 0": 6: found `0x100000000`, expected the number of an MSR, 0 to 4294967295
            "wrmsr 0x3b": 10: found the end of the line, expected a number (at most 64 bits)
            "starve 0 0": 9: found `0`, expected a number of draws, 1 to 4294967295
            "mov-cr3": 7: found the end of the line, expected a number, privN, sharedN or an address such as [P0@priv1] (at most 64 bits)
            "mov-cr3 0x1000 8": 15: found `8`, expected the end of the line
            "invlpg 0x1000": 7: found `0x1000`, expected an address such as [0x1000], [P0+0x8] or [P0@priv1]"#]].assert_eq(&shown.join("\n"));
    }
}
