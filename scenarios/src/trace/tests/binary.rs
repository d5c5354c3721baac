//! ChampSim's and gem5's records, and xz.

use super::*;
use crate::trace::champsim::{Instruction, RECORD_BYTES};
use crate::trace::gem5::{self, Packet, PacketHeader};
use lzma_rust2::{XzOptions, XzWriter};
use prost::Message;
use sim_core::Ps;
use std::num::NonZeroU32;

pub(super) fn samples() -> Vec<(Format, Vec<u8>)> {
    let one = Instruction { ip: 0x40_1000, loads: [0x7fff_0000, 0, 0, 0], ..Default::default() };
    // Low bytes that a text could begin with.
    let text_like = [b'#', b'I', b' ', b'0', b'R', b'=', b'\n'].map(|byte| {
        let ip = 0x7f00_5555_0000 | u64::from(byte);
        (Format::Champsim, Instruction { ip, ..one }.encode().to_vec())
    });
    let packets = [packet(1, 1, 0x40, 64)];
    let gem5 = (Format::Gem5, gem5_trace(PS, &packets));
    text_like.into_iter().chain([(Format::Champsim, one.encode().to_vec()), gem5]).collect()
}

pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

// xz.

#[test]
fn xz_data_are_unpacked_in_one_or_many_streams() {
    let text = b"LD 0x40\nST 0x80\n";
    let want = read(text, None);
    assert_eq!(want.as_ref().map(Vec::len), Ok(2));
    assert_eq!(drain(open_read("t", Cursor::new(xz(text)), None)), want);
    let two = [xz(b"LD 0x4"), vec![0; 8], xz(b"0\nST 0x80\n")].concat();
    for chunk in [1, 3, 64, 8192] {
        let input = BufReader::with_capacity(chunk, two.as_slice());
        assert_eq!(drain(open_read("t", input, None)), want, "in pieces of {chunk}");
    }
    assert_eq!(Source::new(Cursor::new(xz(text))).unwrap().packing(), Packing::Xz);
}

#[test]
fn a_large_xz_trace_is_the_plain_one() {
    let mut text = String::new();
    for i in 0..50_000u64 {
        text.push_str(&format!("LD {:#x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 << 6));
    }
    let plain = read(text.as_bytes(), None);
    assert_eq!(plain.as_ref().map(Vec::len), Ok(50_000));
    assert_eq!(drain(open_read("t.trace", Cursor::new(xz(text.as_bytes())), None)), plain);
}

#[test]
fn xz_data_cut_anywhere_are_an_error_that_says_so() {
    let packed = xz(b"LD 0x40\nST 0x80\nLD 0xc0\n");
    for len in 6..packed.len() {
        let error = drain(open_read("t", Cursor::new(&packed[..len]), None)).unwrap_err();
        assert!(error.found.contains("xz"), "{len}: {error}");
    }
}

#[test]
fn no_flipped_bit_of_xz_data_changes_a_record_silently() {
    let text = b"LD 0x40\nST 0x80\nLD 0xc0\nLD 0x12345680\n";
    let (packed, want) = (xz(text), read(text, None));
    let mut errors = 0;
    // The first six bytes say that it is xz at all.
    for bit in 48..packed.len() * 8 {
        let mut bad = packed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match drain(open_read("t", Cursor::new(bad), None)) {
            Ok(all) => assert_eq!(Ok(all), want, "bit {bit}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > packed.len() * 4, "{errors} errors");
}

#[test]
fn xz_data_that_ask_for_more_memory_than_any_preset_are_refused() {
    let mut options = XzOptions::with_preset(1);
    options.lzma_options.dict_size = 128 << 20;
    let mut packer = XzWriter::new(Vec::new(), options).unwrap();
    packer.write_all(b"LD 0x40\n").unwrap();
    let packed = packer.finish().unwrap();
    let error = drain(open_read("t", Cursor::new(packed), None)).unwrap_err();
    assert_eq!(error.kind, TraceErrorKind::Input);
    assert!(error.found.contains("memory"), "{error}");
}

// ChampSim.

/// What a trace of these instructions holds: kind, address, gap and dependence.
fn flow(all: &[Instruction]) -> Vec<(AccessKind, u64, u64, u32)> {
    let bytes: Vec<u8> = all.iter().flat_map(Instruction::encode).collect();
    let accesses = read(&bytes, Some(Format::Champsim)).unwrap();
    accesses
        .iter()
        .map(|access| {
            let When::Gap(gap) = access.when else { panic!("{access:?} has no gap") };
            (access.kind, access.addr, gap, access.depends_on.map_or(0, NonZeroU32::get))
        })
        .collect()
}

fn load(addr: u64, reads: u8, writes: u8) -> Instruction {
    let (reads, writes, loads) = ([reads, 0, 0, 0], [writes, 0], [addr, 0, 0, 0]);
    Instruction { ip: 0x1000, reads, writes, loads, ..Default::default() }
}

fn compute(reads: [u8; 4], writes: [u8; 2]) -> Instruction {
    Instruction { ip: 0x2000, reads, writes, ..Default::default() }
}

fn store(addr: u64, reads: [u8; 4]) -> Instruction {
    Instruction { ip: 0x3000, reads, stores: [addr, 0], ..Default::default() }
}

use AccessKind::{Load, Store};

#[test]
fn a_pointer_chase_depends_on_the_load_before_and_a_stream_on_none() {
    let chase = [load(0x40, 1, 1), load(0x80, 1, 1), load(0xc0, 1, 1)];
    assert_eq!(flow(&chase), [(Load, 0x40, 0, 0), (Load, 0x80, 0, 1), (Load, 0xc0, 0, 1)]);
    let stream = [load(0x40, 1, 2), compute([1, 0, 0, 0], [1, 0]), load(0x80, 1, 2)];
    assert_eq!(flow(&stream), [(Load, 0x40, 0, 0), (Load, 0x80, 1, 0)]);
}

#[test]
fn a_dependence_goes_through_instructions_without_memory_to_the_youngest_load() {
    let all = [
        load(0x40, 0, 1),
        load(0x80, 0, 2),
        compute([1, 2, 0, 0], [3, 4]),
        compute([0; 4], [2, 0]),
        store(0xc0, [1, 0, 0, 0]),
        load(0x100, 4, 5),
        load(0x140, 2, 5),
    ];
    let want = [
        (Load, 0x40, 0, 0),
        (Load, 0x80, 0, 0),
        (Store, 0xc0, 2, 2),
        // Behind loads 1 and 2, of which 2 is the younger.
        (Load, 0x100, 0, 2),
        // Register 2 was written anew.
        (Load, 0x140, 0, 0),
    ];
    assert_eq!(flow(&all), want);
}

#[test]
fn a_store_waits_for_the_loads_of_its_own_instruction_and_no_load_does() {
    let all = [Instruction {
        ip: 0x10,
        loads: [0x40, 0, 0x80, 0],
        stores: [0, 0xc0],
        ..Default::default()
    }];
    assert_eq!(flow(&all), [(Load, 0x40, 0, 0), (Load, 0x80, 0, 0), (Store, 0xc0, 0, 1)]);
}

#[test]
fn stack_and_instruction_pointer_make_no_dependence_but_a_computed_stack_pointer_does() {
    // pop; ret; call; push: each moves the stack pointer by a fixed amount.
    let pop = Instruction { writes: [1, 6], ..load(0x40, 6, 0) };
    let ret = Instruction { is_branch: 1, branch_taken: 1, writes: [26, 6], ..load(0x48, 6, 0) };
    let call = Instruction {
        is_branch: 1,
        branch_taken: 1,
        writes: [26, 6],
        ..store(0x48, [26, 6, 0, 0])
    };
    let all = [pop, ret, call, store(0x40, [6, 0, 0, 0])];
    assert!(flow(&all).iter().all(|(.., depends_on)| *depends_on == 0), "{:?}", flow(&all));
    // sub rsp, rax with rax from memory.
    let all = [load(0x40, 0, 1), compute([6, 1, 0, 0], [6, 25]), store(0x80, [6, 0, 0, 0])];
    assert_eq!(flow(&all).last(), Some(&(Store, 0x80, 1, 1)));
    // add rsp, 8 after that keeps what it was: nothing but itself is read.
    let fixed = compute([6, 0, 0, 0], [6, 25]);
    let all = [all[0], all[1], fixed, all[2]];
    assert_eq!(flow(&all).last(), Some(&(Store, 0x80, 2, 1)));
}

#[test]
fn the_champsim_sample_is_its_rule() {
    let mut reader = open_path(&data("champsim.trace.xz"), None).unwrap();
    assert_eq!(reader.format(), Format::Champsim);
    let mut gap = 0;
    for i in (0..300u64).filter(|i| i % 3 != 1) {
        let got = reader.next().unwrap().unwrap();
        let (want, depends_on) = if i % 3 == 0 {
            // Register 1 is loaded by the even instructions, six instructions or four accesses apart.
            let back = match i {
                0 => 0,
                i if i % 2 == 0 => 4,
                _ => 2,
            };
            (access(Load, 0x7f00_0000_0000 + 64 * (37 * i % 4096), 64), back)
        } else {
            // Through register 3, the load before.
            (access(Store, 0x7f00_0010_0000 + 64 * (i % 512), 64), 1)
        };
        let (ip, when) = (Some(0x40_0000 + 4 * (i % 64)), When::Gap(gap));
        let depends_on = NonZeroU32::new(depends_on);
        assert_eq!(got, Access { ip, when, depends_on, ..want }, "instruction {i}");
        gap = u64::from(i % 3 == 0);
    }
    assert_eq!(reader.next(), Ok(None));
    assert_eq!((reader.records(), reader.line()), (200, 300));
}

#[test]
fn the_gem5_sample_is_its_rule() {
    let want = (0..200u64)
        .map(|i| Access {
            when: When::Time(Ps(1000 * i)),
            ip: (i % 2 == 1).then_some(0x40_0000 + 4 * i),
            ..access(
                match i % 4 {
                    0 if i % 20 == 0 => AccessKind::Fetch,
                    0 | 2 => Load,
                    _ => Store,
                },
                64 * (37 * i % 4096),
                64,
            )
        })
        .collect();
    let reader = open_path(&data("gem5.trace.gz"), None).unwrap();
    assert_eq!(reader.format(), Format::Gem5);
    assert_eq!(drain(Ok(reader)), Ok(want));
}

#[test]
fn an_instruction_of_six_operands_hands_out_all_in_order() {
    let one = Instruction {
        ip: 0x1234,
        loads: [0x40, 0x80, 0xc0, 0x100],
        stores: [0x140, 0x180],
        ..Default::default()
    };
    let bytes = [compute([0; 4], [0; 2]).encode(), one.encode()].concat();
    let mut reader = TraceReader::open("t", bytes.as_slice(), None).unwrap();
    assert_eq!(reader.format(), Format::Champsim);
    let mut addrs = Vec::new();
    while let Some(access) = reader.next().unwrap() {
        assert_eq!(
            (access.ip, access.bytes, access.kind == Store),
            (Some(0x1234), 64, access.addr > 0x100)
        );
        assert_eq!(access.when, When::Gap(u64::from(addrs.is_empty())));
        addrs.push(access.addr);
    }
    assert_eq!(addrs, [0x40, 0x80, 0xc0, 0x100, 0x140, 0x180]);
    assert_eq!((reader.records(), reader.line()), (6, 2));
}

#[test]
fn a_champsim_trace_cut_anywhere_is_an_error_or_some_instructions_short() {
    let bytes = [load(0x40, 0, 1).encode(), load(0x80, 0, 1).encode()].concat();
    for len in 0..bytes.len() {
        match read(&bytes[..len], Some(Format::Champsim)) {
            Ok(all) => assert_eq!((all.len() * RECORD_BYTES, all.len()), (len, 1)),
            Err(error) if len == 0 => assert_eq!(error.kind, TraceErrorKind::Empty),
            Err(error) => {
                let (record, byte) = if len > 64 { (2, 64) } else { (1, 0) };
                assert_eq!(error.at, Position::Record { record, byte });
                let cut = if len > 64 { TraceErrorKind::Truncated } else { TraceErrorKind::Record };
                assert_eq!(error.kind, cut, "{error}");
            }
        }
    }
}

#[test]
fn a_program_file_is_no_champsim_trace() {
    // The header and the program header of an ELF file, whose bytes 7 to 9 are what ChampSim's could be.
    let mut elf = vec![0u8; 512];
    elf[..10].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0");
    elf[64..72].copy_from_slice(&[6, 0, 0, 0, 4, 0, 0, 0]);
    elf[72] = 0x40;
    let error = read(&elf, None).unwrap_err();
    assert_eq!(place(&error), (1, 1), "{error}");
    assert!(read(&[0; 640], None).is_err(), "zeros");
}

// gem5.

const PS: u64 = 1_000_000_000_000;

fn packet(tick: u64, cmd: u32, addr: u64, size: u32) -> Packet {
    let (tick, cmd, addr, size) = (Some(tick), Some(cmd), Some(addr), Some(size));
    Packet { tick, cmd, addr, size, flags: None, pkt_id: None, pc: None }
}

fn gem5_trace(tick_freq: u64, packets: &[Packet]) -> Vec<u8> {
    let obj_id = Some("system.monitor".to_owned());
    let header = PacketHeader { obj_id, ver: Some(0), tick_freq: Some(tick_freq) };
    let mut out = gem5::MAGIC.to_vec();
    out.extend(header.encode_length_delimited_to_vec());
    for packet in packets {
        out.extend(packet.encode_length_delimited_to_vec());
    }
    out
}

#[test]
fn gem5_packets_are_read_with_their_time_kind_and_instruction_pointer() {
    let fetch = Packet { flags: Some(0x100), pc: Some(0x400_000), ..packet(500, 1, 0x1000, 4) };
    let packets = [
        fetch,
        packet(500, 4, 0x2040, 8),
        packet(600, 17, 0x2040, 64),
        packet(1001, 34, 0x3000, 1),
    ];
    let at = |ps, access| Access { when: When::Time(Ps(ps)), ..access };
    let want = |scale: u64| {
        vec![
            Access { ip: Some(0x400_000), ..at(500 * scale, access(AccessKind::Fetch, 0x1000, 4)) },
            at(500 * scale, access(Store, 0x2040, 8)),
            at(1001 * scale, access(AccessKind::Modify, 0x3000, 1)),
        ]
    };
    assert_eq!(read(&gem5_trace(PS, &packets), None), Ok(want(1)));
    assert_eq!(read(&gem5_trace(PS / 1000, &packets), None), Ok(want(1000)));
    let fine = read(&gem5_trace(PS * 1000, &packets), None).unwrap();
    assert_eq!(fine.last().map(|access| access.when), Some(When::Time(Ps(1))), "rounded down");
    let packed = gzip(&gem5_trace(PS, &packets));
    assert_eq!(drain(open_read("t", packed.as_slice(), None)), Ok(want(1)));
}

#[test]
fn every_gem5_command_is_read_as_its_row_says_and_every_other_number_is_refused() {
    let rows: std::collections::BTreeMap<u32, _> =
        GEM5_COMMANDS.iter().map(|row| (row.number, row)).collect();
    assert_eq!(rows.len(), GEM5_COMMANDS.len());
    assert!(GEM5_COMMANDS.is_sorted_by_key(|row| row.number));
    for cmd in 0..100 {
        let got = read(&gem5_trace(PS, &[packet(1, cmd, 0x40, 8), packet(2, 1, 0x80, 8)]), None);
        match rows.get(&cmd) {
            None => {
                let error = got.unwrap_err();
                assert_eq!(error.found, format!("cmd {cmd}"));
            }
            Some(row) => {
                let kinds: Vec<_> = got.unwrap().iter().map(|access| access.kind).collect();
                assert_eq!(kinds, row.kind.into_iter().chain([Load]).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn the_gem5_commands_print_as_markdown() {
    let shown = commands_markdown();
    assert_eq!(shown.lines().count(), GEM5_COMMANDS.len() + 2);
    for row in GEM5_COMMANDS {
        assert!(shown.contains(&format!("| {} | {} | ", row.number, row.name)));
    }
}

#[test]
fn every_bad_binary_trace_is_refused_with_its_place_and_what_was_expected() {
    let good = packet(10, 1, 0x40, 64);
    let of = |packets: &[Packet]| gem5_trace(PS, packets);
    let raw = |bytes: &[u8]| [of(std::slice::from_ref(&good)), bytes.to_vec()].concat();
    let header =
        |header: PacketHeader| [b"gem5".to_vec(), header.encode_length_delimited_to_vec()].concat();
    let name = || Some("x".to_owned());
    let mut branchy = load(0x40, 0, 0).encode();
    branchy[9] = 7;
    let champsim = [load(0x40, 0, 0).encode(), branchy].concat();
    let cases: Vec<(Option<Format>, Vec<u8>)> = vec![
        (Some(Format::Gem5), vec![]),
        (Some(Format::Gem5), b"ge".to_vec()),
        (Some(Format::Gem5), b"LD 0x40\n".to_vec()),
        (None, b"gem5".to_vec()),
        (None, b"gem5\x05ab".to_vec()),
        (None, b"gem5\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        (None, b"gem5\xff".to_vec()),
        (None, b"gem5\xff\xff\x7f".to_vec()),
        (None, header(PacketHeader { obj_id: None, ver: None, tick_freq: Some(PS) })),
        (None, header(PacketHeader { obj_id: name(), ver: None, tick_freq: None })),
        (None, header(PacketHeader { obj_id: name(), ver: None, tick_freq: Some(0) })),
        (None, of(&[])),
        (None, of(&[packet(1, 17, 0x40, 64)])),
        (None, of(&[Packet { addr: None, ..good.clone() }])),
        (None, of(&[Packet { tick: None, ..good.clone() }])),
        (None, of(&[Packet { cmd: None, ..good.clone() }])),
        (None, of(&[Packet { size: None, ..good.clone() }])),
        (None, of(&[good.clone(), packet(11, 2, 0x40, 64)])),
        (None, of(&[good.clone(), packet(9, 1, 0x40, 64)])),
        (None, of(&[good.clone(), packet(11, 1, 0x40, 0)])),
        (None, of(&[good.clone(), packet(11, 1, 0x40, 65537)])),
        (None, of(&[good.clone(), packet(11, 1, u64::MAX, 2)])),
        (None, of(&[good.clone(), packet(u64::MAX, 1, 0x40, 2)])),
        (None, raw(b"\x0a\x08")),
        (None, raw(b"\x80")),
        (None, raw(b"\x02\xff\xff")),
        (Some(Format::Champsim), vec![]),
        (Some(Format::Champsim), b"LD 0x40\n".to_vec()),
        (Some(Format::Champsim), compute([0; 4], [0; 2]).encode().to_vec()),
        (Some(Format::Champsim), champsim.clone()),
        (None, champsim),
    ];
    let mut shown = String::new();
    for (format, bytes) in &cases {
        let error = read(bytes, *format).unwrap_err();
        let line = error.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
        let (head, _) = line.split_once(';').unwrap();
        shown.push_str(&format!("{:?} {head}\n", error.kind));
    }
    expect![[r#"
        Empty t.trace:record 1 at byte 0: found an empty file, expected a record
        Record t.trace:header at byte 0: found `ge`, expected the magic `gem5`
        Record t.trace:header at byte 0: found `LD 0`, expected the magic `gem5`
        Record t.trace:header at byte 4: found the end of the file, expected a PacketHeader
        Record t.trace:header at byte 4: found the end of the file after 3 bytes of it, expected a PacketHeader
        Record t.trace:header at byte 4: found failed to decode Protobuf message: invalid varint, expected the length of a message
        Record t.trace:header at byte 4: found the end of the file after 1 bytes of it, expected a PacketHeader
        Record t.trace:header at byte 4: found a message of 2097151 bytes, expected a message of at most 65536 bytes
        Record t.trace:header at byte 4: found no obj_id, expected a PacketHeader
        Record t.trace:header at byte 4: found no tick_freq, expected a PacketHeader
        Record t.trace:header at byte 4: found tick_freq 0, expected ticks per second
        Empty t.trace:record 1 at byte 30: found no record, expected a record
        Empty t.trace:record 2 at byte 39: found no record, expected a record
        Record t.trace:record 1 at byte 30: found no addr, expected a Packet
        Record t.trace:record 1 at byte 30: found no tick, expected a Packet
        Record t.trace:record 1 at byte 30: found no cmd, expected a Packet
        Record t.trace:record 1 at byte 30: found no size, expected a Packet
        Record t.trace:record 2 at byte 39: found cmd 2, expected the command of a request, as gem5 24.0 numbers them
        Record t.trace:record 2 at byte 39: found tick 9, 9 ps after 10 ps, expected ticks that never go backwards
        Record t.trace:record 2 at byte 39: found size 0, expected a size of 1 to 65536 bytes
        Record t.trace:record 2 at byte 39: found size 65537, expected a size of 1 to 65536 bytes
        Record t.trace:record 2 at byte 39: found size 2 at 0xffffffffffffffff, which ends beyond 64 bits, expected an access that ends within 64 bits
        Record t.trace:record 2 at byte 39: found tick 18446744073709551615, expected a time within 106 days, the longest that can be simulated
        Truncated t.trace:record 2 at byte 39: found the end of the file after 2 bytes of it, expected a Packet
        Truncated t.trace:record 2 at byte 39: found the end of the file after 1 bytes of it, expected a Packet
        Record t.trace:record 2 at byte 39: found failed to decode Protobuf message: invalid varint, expected a Packet
        Empty t.trace:record 1 at byte 0: found an empty file, expected a record
        Record t.trace:record 1 at byte 0: found the end of the file after 8 bytes of it, expected an instruction of 64 bytes
        Empty t.trace:record 2 at byte 64: found no record, expected a record
        Record t.trace:record 2 at byte 73: found branch_taken 7, expected 0 or 1
        Record t.trace:1:1: found a NUL byte, expected a record
    "#]].assert_eq(&shown);
}

#[test]
fn a_gem5_trace_cut_anywhere_is_an_error_or_some_packets_short() {
    let packets: Vec<Packet> = (0..4).map(|i| packet(i * 1000, 1, i << 20, 64)).collect();
    let bytes = gem5_trace(PS, &packets);
    let ends: Vec<usize> = (1..=4).map(|count| gem5_trace(PS, &packets[..count]).len()).collect();
    for len in 4..bytes.len() {
        let whole = ends.iter().filter(|end| **end <= len).count();
        match read(&bytes[..len], None) {
            Ok(all) => assert!(ends.contains(&len) && all.len() == whole),
            Err(error) => {
                assert!(!ends.contains(&len), "{error}");
                assert_eq!(error.kind == TraceErrorKind::Truncated, whole > 0, "{error}");
            }
        }
    }
}

#[test]
fn a_caller_can_refuse_the_last_binary_record_at_its_place() {
    let bytes = [compute([0; 4], [0; 2]).encode(), load(0x40, 0, 0).encode()].concat();
    let mut reader = TraceReader::open("t", bytes.as_slice(), Some(Format::Champsim)).unwrap();
    reader.next().unwrap();
    let error = reader.refuse("this", "that").to_string();
    assert_eq!(error, "t:record 2 at byte 64: found this, expected that");
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let addr = || prop_oneof![2 => Just(0), 1 => any::<u64>()];
    let register = || prop_oneof![Just(0u8), 0..30u8, any::<u8>()];
    let registers = (proptest::array::uniform2(register()), proptest::array::uniform4(register()));
    let memory = (proptest::array::uniform2(addr()), proptest::array::uniform4(addr()));
    (any::<u64>(), 0..2u8, 0..2u8, registers, memory).prop_map(
        |(ip, is_branch, branch_taken, (writes, reads), (stores, loads))| Instruction {
            ip,
            is_branch,
            branch_taken,
            writes,
            reads,
            stores,
            loads,
        },
    )
}

proptest! {
    #[test]
    fn champsim_records_are_read_as_they_were_written(
        all in proptest::collection::vec(instruction(), 1..40),
        chunk in 1..200usize,
    ) {
        let bytes: Vec<u8> = all.iter().flat_map(Instruction::encode).collect();
        let mut want = Vec::new();
        for (i, one) in all.iter().enumerate() {
            prop_assert_eq!(Instruction::decode(&one.encode()), Ok(*one), "record {}", i);
            want.extend(one.loads.iter().filter(|a| **a != 0).map(|a| (Load, *a, one.ip)));
            want.extend(one.stores.iter().filter(|a| **a != 0).map(|a| (Store, *a, one.ip)));
        }
        let got = read_in_chunks(&bytes, Some(Format::Champsim), chunk);
        if want.is_empty() {
            prop_assert_eq!(got.unwrap_err().kind, TraceErrorKind::Empty);
        } else {
            let got = got.unwrap();
            let shown: Vec<_> =
                got.iter().map(|a| (a.kind, a.addr, a.ip.unwrap_or(0))).collect();
            prop_assert_eq!(shown, want);
            for (i, access) in got.iter().enumerate() {
                // What is waited for is a load that came before.
                if let Some(back) = access.depends_on {
                    let producer = i.checked_sub(back.get() as usize).map(|at| got[at].kind);
                    prop_assert_eq!(producer, Some(Load));
                }
            }
            let instructions = got.iter().map(|access| match access.when {
                When::Gap(gap) => gap,
                _ => u64::MAX,
            });
            prop_assert!(instructions.sum::<u64>() <= all.len() as u64);
            let unpacked = drain(open_read("t", Cursor::new(xz(&bytes)), Some(Format::Champsim)));
            prop_assert_eq!(unpacked.ok(), Some(got));
        }
    }

    #[test]
    fn gem5_packets_are_read_as_they_were_written(
        mut ticks in proptest::collection::vec(0..1u64 << 62, 1..30),
        rows in proptest::collection::vec(proptest::sample::select(GEM5_COMMANDS.to_vec()), 30),
        addr: u64,
        size in 1..=4096u32,
        pc in proptest::option::of(any::<u64>()),
        pkt_id in proptest::option::of(any::<u64>()),
        chunk in 1..100usize,
    ) {
        ticks.sort_unstable();
        let addr = addr.min(u64::MAX - 4096);
        let packets: Vec<Packet> = ticks.iter().zip(&rows).map(|(tick, row)| {
            Packet { pc, pkt_id, flags: Some(0x400), ..packet(*tick, row.number, addr, size) }
        }).collect();
        let want: Vec<Access> = ticks.iter().zip(&rows).filter_map(|(tick, row)| {
            let access = access(row.kind?, addr, size);
            Some(Access { when: When::Time(Ps(*tick)), ip: pc, ..access })
        }).collect();
        let got = read_in_chunks(&gem5_trace(PS, &packets), None, chunk);
        if want.is_empty() {
            prop_assert_eq!(got.unwrap_err().kind, TraceErrorKind::Empty);
        } else {
            prop_assert_eq!(got.ok(), Some(want));
        }
    }

    #[test]
    fn no_damage_to_a_binary_trace_panics_or_hangs(
        all in proptest::collection::vec(instruction(), 1..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_gem5: bool,
        is_packed: bool,
    ) {
        let packets: Vec<Packet> = all.iter().map(|one| packet(one.ip >> 1, 1, one.ip, 8)).collect();
        let mut bytes = if is_gem5 {
            gem5_trace(PS, &packets)
        } else {
            all.iter().flat_map(Instruction::encode).collect()
        };
        if is_packed {
            bytes = xz(&bytes);
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        for format in [None, Some(Format::Champsim), Some(Format::Gem5)] {
            let got = drain(open_read("t", bytes.as_slice(), format));
            let chunked = drain(open_read("t", BufReader::with_capacity(3, bytes.as_slice()), format));
            prop_assert_eq!(got, chunked);
        }
    }
}
