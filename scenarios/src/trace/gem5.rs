//! gem5's packet traces (peers.md §2.6; gem5 src/proto/packet.proto and protoio.cc): a magic, then a header and packets, each
//! behind its length as a varint.

use super::format::{ACCESS_BYTES_MAX, Access, AccessKind, When};
use prost::Message;
use sim_core::Ps;
use std::fmt::Write as _;

/// The first four bytes (protoio.hh: `magicNumber`, little-endian).
pub(super) const MAGIC: &[u8; 4] = b"gem5";

/// Bytes that a message may have. A packet has at most some 60; the header names every requestor of the system.
pub(super) const MESSAGE_MAX: usize = 64 << 10;

/// Bytes that a length takes at most.
pub(super) const LENGTH_MAX: usize = 10;

/// `Request::INST_FETCH` (gem5 src/mem/request.hh; the same since 2008).
const INST_FETCH: u32 = 0x100;

const PS_PER_SECOND: u64 = 1_000_000_000_000;

/// `PacketHeader`. What it requires is optional here, so that its absence is seen.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PacketHeader {
    #[prost(string, optional, tag = "1")]
    pub(super) obj_id: Option<String>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) ver: Option<u32>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) tick_freq: Option<u64>,
}

/// `Packet`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Packet {
    #[prost(uint64, optional, tag = "1")]
    pub(super) tick: Option<u64>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) cmd: Option<u32>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) addr: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) size: Option<u32>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) flags: Option<u32>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) pkt_id: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) pc: Option<u64>,
}

/// A command of a packet: a row of [`COMMANDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandRow {
    /// `Packet.cmd`.
    pub number: u32,
    /// gem5's name.
    pub name: &'static str,
    /// What it does to memory; `None` where it moves no data, and the packet is skipped.
    pub kind: Option<AccessKind>,
}

const fn row(number: u32, name: &'static str, kind: Option<AccessKind>) -> CommandRow {
    CommandRow { number, name, kind }
}

const LOAD: Option<AccessKind> = Some(AccessKind::Load);
const STORE: Option<AccessKind> = Some(AccessKind::Store);

/// The requests of `MemCmd::Command`, gem5 24.0 src/mem/packet.hh (peers.md §2.6). A trace does not say which version wrote it, and
/// versions before 2020 number all but ReadReq and WriteReq otherwise; these two are all that gem5's own
/// util/encode_packet_trace.py writes. Every other number is refused: a trace has requests only
/// (src/mem/probes/mem_trace.cc), and the numbers from 46 on are errors, or differ from version to version.
pub const COMMANDS: &[CommandRow; 24] = &[
    row(1, "ReadReq", LOAD),
    row(4, "WriteReq", STORE),
    row(7, "WritebackDirty", STORE),
    row(8, "WritebackClean", STORE),
    row(9, "WriteClean", STORE),
    row(10, "CleanEvict", None),
    row(11, "SoftPFReq", LOAD),
    row(12, "SoftPFExReq", LOAD),
    row(13, "HardPFReq", LOAD),
    row(16, "WriteLineReq", STORE),
    row(17, "UpgradeReq", None),
    row(18, "SCUpgradeReq", None),
    row(22, "ReadExReq", LOAD),
    row(24, "ReadCleanReq", LOAD),
    row(25, "ReadSharedReq", LOAD),
    row(26, "LoadLockedReq", LOAD),
    row(27, "StoreCondReq", STORE),
    row(30, "LockedRMWReadReq", LOAD),
    row(32, "LockedRMWWriteReq", STORE),
    row(34, "SwapReq", Some(AccessKind::Modify)),
    row(38, "MemFenceReq", None),
    row(39, "MemSyncReq", None),
    row(42, "CleanSharedReq", None),
    row(44, "CleanInvalidReq", None),
];

/// [`COMMANDS`] as the documentation shows it.
pub fn commands_markdown() -> String {
    let mut out = String::from("| number | command | access |\n|---:|---|---|\n");
    for row in COMMANDS {
        let kind = row.kind.map_or_else(|| "skipped".to_owned(), |kind| format!("{kind:?}"));
        let _ = writeln!(out, "| {} | {} | {kind} |", row.number, row.name);
    }
    out
}

/// What is wrong with a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) found: String,
    pub(super) expected: &'static str,
}

fn fault(found: String, expected: &'static str) -> Fault {
    Fault { found, expected }
}

fn absent(field: &str, expected: &'static str) -> Fault {
    fault(format!("no {field}"), expected)
}

/// Reads the header: how many ticks a second has.
pub(super) fn header(message: &[u8]) -> Result<u64, Fault> {
    const EXPECTED: &str = "a PacketHeader";
    let header = PacketHeader::decode(message).map_err(|e| fault(e.to_string(), EXPECTED))?;
    if header.obj_id.is_none() {
        return Err(absent("obj_id", EXPECTED));
    }
    match header.tick_freq {
        Some(0) => Err(fault("tick_freq 0".to_owned(), "ticks per second")),
        Some(freq) => Ok(freq),
        None => Err(absent("tick_freq", EXPECTED)),
    }
}

/// A tick as time. Below a picosecond it is rounded down.
fn time(tick: u64, freq: u64) -> Option<Ps> {
    let ps = u128::from(tick) * u128::from(PS_PER_SECOND) / u128::from(freq.max(1));
    u64::try_from(ps).ok().map(Ps).filter(|time| *time < Ps::HORIZON)
}

/// Reads a packet; `None` for one that moves no data. `before` is the time of the packet before.
pub(super) fn packet(message: &[u8], freq: u64, before: Ps) -> Result<Option<Access>, Fault> {
    const EXPECTED: &str = "a Packet";
    let packet = Packet::decode(message).map_err(|e| fault(e.to_string(), EXPECTED))?;
    let tick = packet.tick.ok_or_else(|| absent("tick", EXPECTED))?;
    let cmd = packet.cmd.ok_or_else(|| absent("cmd", EXPECTED))?;
    let addr = packet.addr.ok_or_else(|| absent("addr", EXPECTED))?;
    let size = packet.size.ok_or_else(|| absent("size", EXPECTED))?;
    let now = time(tick, freq).ok_or_else(|| {
        fault(format!("tick {tick}"), "a time within 106 days, the longest that can be simulated")
    })?;
    if now < before {
        let found = format!("tick {tick}, {now} after {before}");
        return Err(fault(found, "ticks that never go backwards"));
    }
    let Some(row) = COMMANDS.iter().find(|row| row.number == cmd) else {
        return Err(fault(
            format!("cmd {cmd}"),
            "the command of a request, as gem5 24.0 numbers them",
        ));
    };
    let Some(mut kind) = row.kind else { return Ok(None) };
    if kind == AccessKind::Load && packet.flags.unwrap_or(0) & INST_FETCH != 0 {
        kind = AccessKind::Fetch;
    }
    if !(1..=ACCESS_BYTES_MAX).contains(&size) {
        return Err(fault(format!("size {size}"), "a size of 1 to 65536 bytes"));
    }
    if addr.checked_add(u64::from(size) - 1).is_none() {
        let found = format!("size {size} at {addr:#x}, which ends beyond 64 bits");
        return Err(fault(found, "an access that ends within 64 bits"));
    }
    Ok(Some(Access { when: When::Time(now), ip: packet.pc, ..Access::new(kind, addr, size) }))
}
