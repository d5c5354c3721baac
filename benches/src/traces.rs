//! Reading traces: text, records and packed text, streamed from memory. Nothing is simulated.

use crate::{Workload, random};
use scenarios::trace::{Format, TraceError, TraceReader, open_read};
use std::fmt::Write as _;

/// Records of one pass, after which the trace is opened anew: some megabytes of text, more than the host's second-level
/// cache.
const RECORDS: u64 = 1 << 17;

/// What is measured.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        group: "traces",
        name: "traces/ramulator",
        unit: "line",
        batch: RECORDS,
        make: || Ok(passes(ramulator().into_bytes(), Format::Ramulator)),
    },
    Workload {
        group: "traces",
        name: "traces/dramsim3",
        unit: "line",
        batch: RECORDS,
        make: || Ok(passes(dramsim3().into_bytes(), Format::Dramsim3)),
    },
    Workload {
        group: "traces",
        name: "traces/lackey",
        unit: "line",
        batch: RECORDS,
        make: || Ok(passes(lackey().into_bytes(), Format::Lackey)),
    },
    Workload {
        group: "traces",
        name: "traces/exact",
        unit: "line",
        batch: RECORDS,
        // A form without a fast way: what every line cost if there were none.
        make: || Ok(passes(vectors().into_bytes(), Format::RamulatorVector)),
    },
    Workload {
        group: "traces",
        name: "traces/champsim",
        unit: "access",
        batch: RECORDS,
        make: || Ok(passes(champsim(), Format::Champsim)),
    },
    Workload {
        group: "traces",
        name: "traces/lackey-gzip",
        unit: "record",
        batch: 145_751,
        make: || {
            Ok(Box::new(|n| {
                Ok(read(n, || open_read("t", crate::whole::TRACE, Some(Format::Lackey)))?)
            }))
        },
    },
];

/// Reads so many accesses, opening the trace as often as it takes; a sum over all of them.
///
/// # Errors
/// A trace that cannot be read.
pub fn read<R: std::io::Read>(
    accesses: u64,
    open: impl Fn() -> Result<TraceReader<R>, TraceError>,
) -> Result<u64, TraceError> {
    let (mut left, mut sum) = (accesses, 0u64);
    while left > 0 {
        let mut reader = open()?;
        while left > 0
            && let Some(access) = reader.next()?
        {
            sum = sum.wrapping_add(access.addr ^ access.kind as u64 ^ access.cycle().unwrap_or(0));
            left -= 1;
        }
    }
    Ok(sum)
}

fn passes(bytes: Vec<u8>, format: Format) -> crate::Runner {
    Box::new(move |n| Ok(read(n, || TraceReader::open("t", bytes.as_slice(), Some(format)))?))
}

/// The address and a coin of record `i`: without order, within 64 GiB, so that the host guesses no branch.
fn record(i: u64) -> (u64, bool) {
    (random(i, 30) << 6, random(i, 1) == 0)
}

fn text(line: impl Fn(&mut String, u64)) -> String {
    let mut out = String::new();
    for i in 0..RECORDS {
        line(&mut out, i);
    }
    out
}

/// `LD|ST 0x<address>`.
pub fn ramulator() -> String {
    text(|out, i| {
        let (addr, is_load) = record(i);
        let _ = writeln!(out, "{} {addr:#x}", if is_load { "LD" } else { "ST" });
    })
}

/// `0x<address> READ|WRITE <cycle>`.
pub fn dramsim3() -> String {
    text(|out, i| {
        let (addr, is_load) = record(i);
        let word = if is_load { "READ" } else { "WRITE" };
        let _ = writeln!(out, "0x{addr:X} {word} {}", i * 7);
    })
}

/// As Valgrind writes it.
pub fn lackey() -> String {
    text(|out, i| {
        let (addr, is_load) = record(i);
        let word = if is_load { "I " } else { " L" };
        let _ = writeln!(out, "{word} {addr:08x},{}", 1 + i % 8);
    })
}

/// `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`.
pub fn vectors() -> String {
    text(|out, i| {
        let (addr, is_load) = record(i);
        let word = if is_load { "R" } else { "W" };
        let (row, column) = (addr >> 20, addr >> 6 & 1023);
        let _ = writeln!(out, "{word} {},0,{},{},{row},{column}", i % 2, i % 8, i / 8 % 4);
    })
}

/// ChampSim's records, of one load each.
pub fn champsim() -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..RECORDS {
        let (addr, _) = record(i);
        out.extend((0x40_0000 + 4 * (i % 4096)).to_le_bytes());
        // No branch; register 1 + i mod 16 from register 1 + 3 i mod 16.
        out.extend([0, 0, 1 + (i % 16) as u8, 0, 1 + (3 * i % 16) as u8, 0, 0, 0]);
        out.extend([0; 16]);
        out.extend((addr | 1 << 46).to_le_bytes());
        out.extend([0; 24]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trace_is_of_its_form_and_has_its_records() {
        let traces = [
            (ramulator().into_bytes(), Format::Ramulator),
            (dramsim3().into_bytes(), Format::Dramsim3),
            (lackey().into_bytes(), Format::Lackey),
            (vectors().into_bytes(), Format::RamulatorVector),
            (champsim(), Format::Champsim),
        ];
        for (bytes, format) in traces {
            let mut reader = TraceReader::open("t", bytes.as_slice(), None).unwrap();
            assert_eq!(reader.format(), format);
            while reader.next().unwrap().is_some() {}
            assert_eq!(reader.records(), RECORDS);
        }
    }

    #[test]
    fn more_than_one_pass_is_read_by_opening_the_trace_again() {
        let text = b"LD 0x40\nLD 0x80\n".as_slice();
        let sum = |n| read(n, || TraceReader::open("t", text, None)).unwrap();
        let load = scenarios::trace::AccessKind::Load as u64;
        assert_eq!(sum(5), 3 * (0x40 ^ load) + 2 * (0x80 ^ load));
    }
}
