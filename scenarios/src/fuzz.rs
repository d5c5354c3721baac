//! What fuzzers call with bytes that they made up, and tests with bytes that were kept (docs/verification.md, "Fuzzing").
//!
//! Each harness takes any bytes and says what is wrong with the simulator, not with the bytes: bad input has to be refused in
//! one printable line, good input has to keep what the harness names. A panic is a finding, too.

use crate::diag::{Diag, SourceFile};
use crate::format::{ProgramLine, Scenario};
use crate::platform::{Origin, Override, load_with};
use crate::refine;
use crate::replay::{self, Place};
use crate::report::Verdict;
use crate::run::{Request, Speed, plan, run};
use crate::trace::{Access, Format, TraceError, TraceReader, open_read};
use host::mce::{LinuxMce, McPolicy};
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Item, Machine, Options, Order, Program};
use sim_core::op::{KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::platform::{CacheGeometry, IntegrityMode, SnoopFilterGeometry};
use sim_core::{Addr, Hpa, KeyId, KeyIdLayout, Op, Planted, PlatformSpec, Ps};
use std::io::{self, Read};

/// A harness: `Err` is a finding, in words.
pub type Harness = fn(&[u8]) -> Result<(), String>;

/// The harnesses by the name of their fuzz target and corpus.
pub const TARGETS: &[(&str, Harness)] =
    &[("scenario", scenario), ("trace", trace), ("platform", platform), ("operations", operations)];

/// Whether text is one line that a terminal can be shown.
///
/// # Errors
/// A control character, or nothing at all.
pub fn printable(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a message without words".to_owned());
    }
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(c) => Err(format!("a message with {c:?}: {text:?}")),
    }
}

fn refused(diag: &Diag) -> Result<(), String> {
    printable(&diag.to_string())?;
    let shown = diag.render();
    match shown.chars().find(|c| c.is_control() && *c != '\n') {
        None => Ok(()),
        Some(c) => Err(format!("a rendering with {c:?}: {shown:?}")),
    }
}

// ---- Scenarios -----------------------------------------------------------------------------------------------------------

/// The most of a scenario that is run: lines, bytes that one operation touches, and matrix cells.
const LINES: usize = 48;
const BYTES: u32 = 1 << 14;
const CELLS: usize = 2;

/// A scenario file: what is parsed prints as a file that parses to the same; what binds runs, functionally, under the
/// reference model's eyes, and no run is broken.
///
/// # Errors
/// What does not hold.
pub fn scenario(bytes: &[u8]) -> Result<(), String> {
    let source = match SourceFile::from_bytes("fuzz.toml", bytes) {
        Ok(source) => source,
        Err(diag) => return refused(&diag),
    };
    let scenario = match Scenario::parse(source) {
        Ok(scenario) => scenario,
        Err(diag) => return refused(&diag),
    };
    let text = scenario.to_text();
    let again = SourceFile::from_bytes("again.toml", text.as_bytes()).and_then(Scenario::parse);
    match again {
        Ok(again) if again.to_text() == text => {}
        Ok(again) => return Err(format!("printed twice:\n{text}\nand\n{}", again.to_text())),
        Err(diag) => return Err(format!("printed and refused: {diag}\n{text}")),
    }
    let request = Request { speed: Speed::Functional, check: true, ..Request::default() };
    let cells = match plan(&scenario, &request) {
        Ok(cells) => cells,
        Err(diag) => return refused(&diag),
    };
    for cell in cells.iter().take(CELLS) {
        let lines = &cell.program().lines;
        let large = |line: &ProgramLine| match line {
            ProgramLine::Step(step) => bytes_of(&step.op) > BYTES,
            ProgramLine::Barrier => false,
        };
        if lines.len() > LINES || lines.iter().any(large) {
            continue;
        }
        match run(cell, &request) {
            Err(diag) => refused(&diag)?,
            Ok(report) if report.verdict == Verdict::Broken => {
                return Err(format!("broken: {:?}\n{text}", report.notes));
            }
            Ok(report) => {
                serde_json::to_string(&report).map_err(|error| format!("report: {error}"))?;
            }
        }
    }
    Ok(())
}

/// How many bytes an operation goes through, where a file may ask for many.
const fn bytes_of(op: &Op) -> u32 {
    match op {
        Op::Load { bytes, .. }
        | Op::Store { bytes, .. }
        | Op::RepStosb { bytes, .. }
        | Op::DmaRead { bytes, .. }
        | Op::DmaWrite { bytes, .. } => *bytes,
        _ => 0,
    }
}

// ---- Platforms -----------------------------------------------------------------------------------------------------------

/// A platform file: what is accepted is valid, is the same after JSON and back, and a machine can be built of it.
///
/// # Errors
/// What does not hold.
pub fn platform(bytes: &[u8]) -> Result<(), String> {
    let loaded = SourceFile::from_bytes("fuzz.toml", bytes)
        .and_then(|source| load_with(&Origin::File(source), &[]));
    let platform = match loaded {
        Ok(platform) => platform,
        Err(diag) => return refused(&diag),
    };
    let spec = &platform.spec;
    spec.validate().map_err(|error| format!("accepted, and not valid: {error}"))?;
    let json = serde_json::to_string(spec).map_err(|error| format!("not JSON: {error}"))?;
    let back: PlatformSpec =
        serde_json::from_str(&json).map_err(|error| format!("JSON is refused: {error}"))?;
    if back != *spec {
        return Err(format!("another platform after JSON: {json}"));
    }
    // Many cores take long to build and show nothing that a few do not.
    if spec.cpu.cores > 16 || spec.cpu.l1d.size > 1 << 20 {
        return Ok(());
    }
    let options =
        Options { speed: Speed::Timed, crypto: CryptoKind::Symbolic, seed: 0, log: false };
    Machine::new(spec, options)
        .map(|_| ())
        .map_err(|error| format!("valid, and no machine: {error}"))
}

// ---- Traces --------------------------------------------------------------------------------------------------------------

/// Records that are read of one trace at most: packed bytes may hold very many.
const RECORDS: usize = 2000;

/// Bytes that come a few at a time, as from a pipe.
struct Trickle<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.step.min(buffer.len()).min(self.bytes.len());
        let (head, tail) = self.bytes.split_at(n);
        for (to, from) in buffer.iter_mut().zip(head) {
            *to = *from;
        }
        self.bytes = tail;
        Ok(n)
    }
}

/// The accesses of a trace, and how it ended.
type Told = (Option<Format>, Vec<Access>, Result<(), String>);

fn told<R: Read>(input: R, format: Option<Format>) -> Result<Told, String> {
    let ended = |error: TraceError| {
        let line = error.to_string();
        printable(&line).map(|()| Err(line))
    };
    let mut reader: TraceReader<_> = match open_read("fuzz", input, format) {
        Ok(reader) => reader,
        Err(error) => return Ok((None, Vec::new(), ended(error)?)),
    };
    let mut all = Vec::new();
    let form = Some(reader.format());
    while all.len() < RECORDS {
        match reader.next() {
            Ok(Some(access)) => all.push(access),
            Ok(None) => {
                if !matches!(reader.next(), Ok(None)) {
                    return Err("a record behind the end".to_owned());
                }
                return Ok((form, all, Ok(())));
            }
            Err(error) => {
                let line = error.to_string();
                match reader.next() {
                    Err(again) if again.to_string() == line => {}
                    other => return Err(format!("after {line:?} comes {other:?}")),
                }
                return Ok((form, all, ended(error)?));
            }
        }
    }
    Ok((form, all, Ok(())))
}

/// A trace in any form: the first byte says in which it is to be read, or that the reader finds out. However the bytes
/// come, the same records come out and the same end; a short one can be replayed.
///
/// # Errors
/// What does not hold.
pub fn trace(bytes: &[u8]) -> Result<(), String> {
    let Some((first, bytes)) = bytes.split_first() else { return Ok(()) };
    let forms: Vec<Format> = crate::trace::FORMATS.iter().map(|row| row.format).collect();
    // A letter, so that a corpus reads well: `a` is the first form, any other byte none.
    let format = forms.get(usize::from(first.wrapping_sub(b'a'))).copied();
    let whole = told(bytes, format)?;
    for step in [1, 7] {
        let pieces = told(Trickle { bytes, step }, format)?;
        if pieces != whole {
            return Err(format!("{step} bytes at a time give {pieces:?}, all at once {whole:?}"));
        }
    }
    let (form, accesses, _) = whole;
    if form.is_none() || accesses.len() > 64 {
        return Ok(());
    }
    let platform =
        load_with(&Origin::Preset("spr".to_owned()), &small()).map_err(|diag| diag.to_string())?;
    let settings = replay::Settings {
        every_edge: false,
        place: Place::Host(KeyId::TME),
        speed: Speed::Timed,
        seed: 0,
        limit: None,
        allow_truncated: false,
    };
    let Ok(mut reader) = open_read("fuzz", bytes, format) else {
        return Err("a trace that opens but once".to_owned());
    };
    match replay::replay(&mut reader, "fuzz", "fuzz", &platform, &settings, |_| ()) {
        Err(error) => printable(&error.to_string()),
        Ok(report) if report.verdict == Verdict::Broken => Err(format!("broken: {report}")),
        Ok(_) => Ok(()),
    }
}

/// One package of two cores.
fn small() -> [Override; 2] {
    [Override::set("cpu.packages", "1"), Override::set("cpu.cores", "2")]
}

// ---- Operations ----------------------------------------------------------------------------------------------------------

/// The agents of [`operations`]: kind, core, KeyID.
const AGENTS: [(AgentKind, u16, u16); 8] = [
    (AgentKind::Kernel, 0, 0),
    (AgentKind::Kernel, 1, 0),
    (AgentKind::User, 0, 0),
    (AgentKind::Seam, 0, 0),
    (AgentKind::Td, 1, 33),
    (AgentKind::Td, 0, 34),
    (AgentKind::Device, 0, 0),
    (AgentKind::Hardware, 0, 0),
];

/// Operations read from bytes at most.
const OPERATIONS: usize = 64;

/// A machine of two cores with caches of two sets, so that everything meets everything; `how` says the rest.
fn tiny(spec: &mut PlatformSpec, how: [u8; 2]) {
    let [flags, sizes] = how;
    let flag = |n: u8| flags >> n & 1 != 0;
    let cache = |ways: u8| CacheGeometry { size: 2 * 64 * u64::from(ways), ways };
    let ways = |n: u8| 1 + (sizes >> n & 1);
    // KeyIDs from 32 on are private.
    spec.keyid = KeyIdLayout {
        maxpa: 46,
        keyid_bits: 6,
        private_bits: 1,
        mktme_kids: 31,
        tdx_priv_kids: 32,
    };
    spec.memory.integrity = if flag(0) { IntegrityMode::Ci } else { IntegrityMode::Li };
    spec.memory.erratum_pw_mce = flag(1);
    spec.memory.tme_bypass = flag(2) && flag(3);
    spec.mce.lmce = !flag(4);
    let cpu = &mut spec.cpu;
    (cpu.packages, cpu.cores) = (1, 2);
    (cpu.l1d, cpu.l2, cpu.llc) = (cache(ways(0)), cache(ways(1)), cache(ways(2)));
    cpu.llc_slices = 2;
    cpu.snoop_filter = SnoopFilterGeometry { sets: 1, ways: ways(1) };
    cpu.flush_sub_blocks = 2;
    (cpu.wc_buffers, cpu.weak_slots) = (ways(3), ways(4) + (sizes >> 5 & 1));
    cpu.fast_string_no_rfo = flag(5);
    cpu.rfo_poison_mc = flag(6) && flag(7);
    cpu.wc_age = if sizes >> 6 & 1 != 0 { Ps::ns(40) } else { Ps::ZERO };
}

/// Four bytes make an operation: who, what, where, and how much of what.
fn operation([who, what, place, much]: [u8; 4]) -> (u16, Op) {
    let id = u16::from(who & 7);
    let (kind, _, own) = AGENTS.get(usize::from(id)).copied().unwrap_or((AgentKind::Kernel, 0, 0));
    // Three lines of one page and one of another; at the start, within, and across the end of a line.
    let line = [0x1000, 0x1040, 0x1080, 0x3000][usize::from(place & 3)];
    let offset = [0, 8, 60, 0][usize::from(place >> 2 & 3)];
    let keyid = [own, own, own, 0, 1, 33, 34, 0][usize::from(place >> 4 & 7)];
    let whole = Addr::new(Hpa(line), KeyId(keyid));
    let at = Addr::new(Hpa(line + offset), KeyId(keyid));
    let other = Addr::new(Hpa(0x1040), KeyId(own));
    let bytes = [1, 4, 8, 8, 16, 32, 64, 64][usize::from(much & 7)];
    let value = match much >> 3 & 3 {
        0 => Value::Unsaid,
        1 => Value::Fill(what),
        _ => Value::Num(0x0101_0101_0101_0101 * u64::from(place)),
    };
    let ty = [MemType::Wb, MemType::Wb, MemType::Uc, MemType::Wc][usize::from(much >> 5 & 3)];
    let delay = Op::Delay { time: Ps::ns(1 + u64::from(much)) };
    let op = match kind {
        AgentKind::Device => match what % 3 {
            0 => Op::DmaRead { at, bytes: 2 * bytes },
            1 => Op::DmaWrite { at, bytes: 2 * bytes, value },
            _ => delay,
        },
        AgentKind::Hardware => match what % 9 {
            0 | 1 => Op::Evict { at: whole },
            2 => Op::WcEvict { core: u32::from(much & 1) },
            3 => Op::FlipBit { at: whole, bit: u32::from(much) * 2 },
            4 => Op::FlipTd { at: whole },
            5 => Op::MoveLine { from: whole, to: other },
            6 => Op::SaveLine { at: whole, slot: u32::from(much & 1) },
            7 => Op::ReplayLine { at: whole, slot: u32::from(much & 1) },
            _ => Op::InjectUe { at: whole },
        },
        _ => match what % 24 {
            0..4 => Op::Load { at, bytes, ty },
            4..8 => Op::Store { at, bytes, value, ty },
            8 | 9 => Op::NtStore { at, bytes, value },
            10 => Op::Movdiri { at, bytes: if much & 1 == 0 { 4 } else { 8 }, value },
            11 => Op::Movdir64b { dst: whole, src: Source::Fill(much) },
            12 => Op::Movdir64b { dst: whole, src: Source::Mem(other) },
            13 => Op::Movdir64bPage { at: Addr::new(Hpa(line & !0xfff), KeyId(keyid)) },
            14 => Op::RepStosb { at, bytes: u32::from(much) + 1, value: place },
            15 => Op::LockXadd { at, bytes: if much & 1 == 0 { 4 } else { 8 }, value: 3 },
            16 => Op::Clflush { at },
            17 => Op::Clflushopt { at },
            18 => Op::Clwb { at },
            19 => match much & 3 {
                0 => Op::Wbinvd,
                1 => Op::Wbnoinvd,
                2 => Op::Wbinvdp { block: u32::from(much >> 2 & 3) },
                _ => Op::Wbnoinvdp { block: u32::from(much >> 2 & 3) },
            },
            20 => match much & 3 {
                0 => Op::Mfence,
                1 => Op::Sfence,
                2 => Op::Lfence,
                _ => Op::Interrupt,
            },
            21 => Op::Prefetch { at },
            22 => {
                let alg = [None, Some(KeyAlg::Xts128), Some(KeyAlg::Xts128Integrity), None];
                let cmds = [
                    PconfigCmd::SetRandom,
                    PconfigCmd::SetDirect(u64::from(much >> 4 & 1)),
                    PconfigCmd::ClearKey,
                    PconfigCmd::NoEncrypt,
                ];
                let alg = alg[usize::from(much & 3)];
                Op::Pconfig { keyid: KeyId(keyid), cmd: cmds[usize::from(much >> 2 & 3)], alg }
            }
            _ => match much & 1 {
                0 => Op::Fetch { at },
                _ => delay,
            },
        },
    };
    (id, op)
}

/// A sequence of operations on a tiny machine, as bytes: two for the machine, one for the speed, then four for each. After
/// every one the reference model agrees, counts add up, and the caches keep their own invariants.
///
/// # Errors
/// What does not hold, with the operations up to there.
pub fn operations(bytes: &[u8]) -> Result<(), String> {
    operations_with(bytes, Planted::NONE)
}

/// [`operations`] on a machine with a planted fault: whether the input finds it.
///
/// # Errors
/// As [`operations`].
pub fn operations_with(bytes: &[u8], planted: Planted) -> Result<(), String> {
    let [a, b, speed, rest @ ..] = bytes else { return Ok(()) };
    let loaded = load_with(&Origin::Preset("spr".to_owned()), &small());
    let mut spec = loaded.map_err(|diag| diag.to_string())?.spec;
    tiny(&mut spec, [*a, *b]);
    spec.planted = planted;
    let speed = if speed & 1 == 0 { Speed::Functional } else { Speed::Timed };
    let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 0, log: true };
    let mut machine = Machine::new(&spec, options).map_err(|error| error.to_string())?;
    let (items, _) = rest.as_chunks::<4>();
    let items: Vec<Item> = items
        .iter()
        .take(OPERATIONS)
        .map(|four| {
            let (id, op) = operation(*four);
            Item::Op(AgentId(id), op)
        })
        .collect();
    let agents = AGENTS.iter().enumerate().map(|(n, (kind, core, keyid))| AgentSpec {
        name: format!("a{n}"),
        kind: *kind,
        core: *core,
        keyid: KeyId(*keyid),
        vcpu: None,
    });
    let program = Program { agents: agents.collect(), items, order: Order::Program };
    let address_bits = spec.keyid.address_bits();
    let mut os = LinuxMce::new(McPolicy { seam_nr_recovery: true, mask_keyid: true, address_bits });
    let (_, verdict) = refine::run(&mut machine, &program, &mut os);
    verdict.map_err(|disagreement| disagreement.to_string())?;
    machine.caches().check_invariants().map_err(|violation| violation.to_string())?;
    match machine.conservation().first() {
        None => Ok(()),
        Some(broken) => Err(broken.clone()),
    }
}
