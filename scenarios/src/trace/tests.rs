use super::*;
use expect_test::expect;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Cursor, Read, Write as _};
use std::path::{Path, PathBuf};

mod binary;
mod differential;

const ALL: [Format; 11] = [
    Format::Lackey,
    Format::Ramulator,
    Format::RamulatorVector,
    Format::RamulatorDram,
    Format::SimpleO3,
    Format::Dramsim3,
    Format::Usimm,
    Format::Dramsys,
    Format::DramsysRelative,
    Format::Champsim,
    Format::Gem5,
];

/// The two that must be named.
const UNDETECTED: [Format; 2] = [Format::Dramsys, Format::DramsysRelative];

fn text_forms() -> impl Iterator<Item = &'static FormatRow> {
    FORMATS.iter().filter(|row| !row.is_binary())
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// All records, or the first error; an error and the end must both stay what they are.
fn drain<R: Read>(opened: Result<TraceReader<R>, TraceError>) -> Result<Vec<Access>, TraceError> {
    let mut reader = opened?;
    let mut all = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(access)) => {
                all.push(access);
                assert_eq!(reader.records(), all.len() as u64);
            }
            Ok(None) => {
                assert_eq!(reader.next(), Ok(None));
                return Ok(all);
            }
            Err(error) => {
                assert_eq!(reader.next(), Err(error.clone()));
                assert_eq!(reader.records(), all.len() as u64);
                return Err(error);
            }
        }
    }
}

fn read(text: &[u8], format: Option<Format>) -> Result<Vec<Access>, TraceError> {
    drain(TraceReader::open("t.trace", text, format))
}

fn read_in_chunks(
    text: &[u8],
    format: Option<Format>,
    chunk: usize,
) -> Result<Vec<Access>, TraceError> {
    drain(TraceReader::open("t.trace", BufReader::with_capacity(chunk, text), format))
}

fn access(kind: AccessKind, addr: u64, bytes: u32) -> Access {
    Access::new(kind, addr, bytes)
}

fn at_cycle(kind: AccessKind, addr: u64, cycle: u64) -> Access {
    Access { when: When::Cycle(cycle), ..access(kind, addr, 64) }
}

/// Line and column of an error.
fn place(error: &TraceError) -> (u64, u64) {
    match error.at {
        Position::Line { line, column } => (line, column),
        Position::Record { .. } => panic!("{error} is no error of text"),
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(text).unwrap();
    packer.finish().unwrap()
}

// The table.

#[test]
fn every_format_has_exactly_its_own_row() {
    assert_eq!(FORMATS.len(), ALL.len());
    for (row, format) in FORMATS.iter().zip(ALL) {
        assert_eq!(row.format, format);
        assert_eq!(format.row(), row);
    }
}

#[test]
fn no_name_belongs_to_two_forms_and_no_word_to_one_form_twice() {
    let names: BTreeSet<_> = FORMATS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), FORMATS.len());
    for row in FORMATS {
        let texts: BTreeSet<_> = row.words.iter().map(|word| word.text).collect();
        let keys: BTreeSet<_> =
            row.words.iter().map(|word| Word::pack(word.text.as_bytes())).collect();
        assert_eq!((texts.len(), keys.len()), (row.words.len(), row.words.len()));
        assert!(!keys.contains(&0), "a word of more than eight letters is never found");
    }
}

/// Every record of a form that two forms could share, alone in a trace.
fn samples() -> Vec<(Format, Vec<u8>)> {
    let mut all: Vec<(Format, Vec<u8>)> = text_forms()
        .flat_map(|row| row.example.lines().map(|line| (row.format, line.as_bytes().to_vec())))
        .collect();
    all.extend(binary::samples());
    for row in FORMATS {
        assert!(all.iter().any(|(format, _)| *format == row.format), "{} has none", row.name);
    }
    all
}

#[test]
fn every_record_is_read_by_its_own_form_alone_and_found_to_be_of_it() {
    for (format, text) in samples() {
        let shown = String::from_utf8_lossy(&text);
        assert!(read(&text, Some(format)).is_ok(), "{shown} as {format}");
        for other in ALL.into_iter().filter(|other| *other != format) {
            // DRAMSys says by the file's name what its times are, and by nothing else.
            let alike = UNDETECTED.contains(&format) && UNDETECTED.contains(&other);
            assert_eq!(read(&text, Some(other)).is_ok(), alike, "{shown} of {format} as {other}");
        }
        let found = TraceReader::open("t", text.as_slice(), None).map(|reader| reader.format());
        if UNDETECTED.contains(&format) {
            let error = found.unwrap_err();
            assert!(error.expected.contains("the form to be named"), "{error}");
        } else {
            assert_eq!(found, Ok(format), "{shown}");
        }
    }
}

#[test]
fn every_word_of_every_form_is_read_as_its_kind_and_listed_in_errors() {
    for row in FORMATS {
        for word in row.words {
            let (text, is_load) = (word.text, word.kind == AccessKind::Load);
            let plain = access(word.kind, 0x40, 64);
            let (line, want) = match row.format {
                Format::Lackey => (format!("{text} 40,8"), access(word.kind, 0x40, 8)),
                Format::Ramulator => (format!("{text} 0x40"), plain),
                Format::RamulatorVector => {
                    let (channel, rank, bank_group, bank) = (1, 2, 3, 4);
                    let place = DramPlace { channel, rank, bank_group, bank, row: 5, column: 6 };
                    let want = access(word.kind, Access::NO_ADDR, 64);
                    (format!("{text} 1,2,3,4,5,6"), Access { place: Some(place), ..want })
                }
                Format::RamulatorDram => (format!("0x40 {text}"), plain),
                Format::Dramsim3 => (format!("0x40 {text} 7"), at_cycle(word.kind, 0x40, 7)),
                Format::Usimm if is_load => {
                    let want = Access { when: When::Gap(7), ip: Some(0x80), ..plain };
                    (format!("7 {text} 0x40 0x80"), want)
                }
                Format::Usimm => (format!("7 {text} 0x40"), Access { when: When::Gap(7), ..plain }),
                Format::Dramsys => (format!("7: {text} 0x40"), at_cycle(word.kind, 0x40, 7)),
                Format::DramsysRelative => {
                    (format!("7: {text} 0x40"), Access { when: When::Delay(7), ..plain })
                }
                Format::SimpleO3 | Format::Champsim | Format::Gem5 => panic!("no words"),
            };
            assert_eq!(read(line.as_bytes(), Some(row.format)), Ok(vec![want]), "{line}");
            if !UNDETECTED.contains(&row.format) {
                assert_eq!(read(line.as_bytes(), None), Ok(vec![want]), "{line}");
            }
            let listed = row.word_list.replace(" or ", ", ");
            assert!(listed.split(", ").any(|text| text == word.text), "{}", word.text);
        }
        let listed = row.word_list.replace(" or ", ", ");
        let count = listed.split(", ").filter(|word| !word.is_empty()).count();
        assert_eq!(count, row.words.len());
    }
}

#[test]
fn format_names_are_read_as_they_are_printed() {
    for format in ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
        let json = serde_json::to_string(&format).unwrap();
        assert_eq!(json, format!("\"{format}\""));
    }
    let error = "Lackey\n".parse::<Format>().unwrap_err();
    expect!["found `Lackey�`, expected one of lackey, ramulator, ramulator-vector, ramulator-dram, simple-o3, dramsim3, usimm, dramsys, dramsys-relative, champsim, gem5"]
        .assert_eq(&error.to_string());
}

#[test]
fn the_table_prints_as_markdown() {
    expect![[r#"
        | form | records | how it is told apart | operations | addresses | bytes | time and order | skipped | source |
        |---|---|---|---|---|---|---|---|---|
        | lackey | `I  <hex>,<size>` or ` L\|S\|M <hex>,<size>` | begins with I, L, S or M as a word, or is a line of Valgrind's own | I = Fetch, L = Load, S = Store, M = Modify | virtual | as given | nothing | `==1==`, `--1--`, `**1**`: Valgrind's own, with its process number | style-and-ecosystem.md B5; Valgrind manual §11.2 --trace-mem |
        | ramulator | `LD\|ST <address>`, decimal or hexadecimal with 0x | begins with LD or ST as a word | LD = Load, ST = Store | physical | 64: the line that holds the address | nothing | none | peers.md §2.1 LoadStoreTrace |
        | ramulator-vector | `R\|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal | begins with R or W as a word | R = Load, W = Store | none; a place in DRAM | 64: the line that holds the address | nothing | none | peers.md §2.1 ReadWriteTrace |
        | ramulator-dram | `<hex address> R\|W` | a hexadecimal number, R or W, and no more | R = Load, W = Store | physical | 64: the line that holds the address | nothing | none | peers.md §2.2 DRAM mode; Ramulator 1 Processor.cpp |
        | simple-o3 | `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x | a decimal number, and a second field that begins with a digit | by place | physical | 64: the line that holds the address | instructions without memory access before the load; the store (a write-back) is made with the load | none | peers.md §2.1 SimpleO3, §2.2 CPU mode; Ramulator 1 Processor.cpp, Ramulator 2 simpleO3/trace.cpp |
        | dramsim3 | `<hex address> <operation> <cycle>` | a hexadecimal number, and a word other than R and W | READ = Load, WRITE = Store, read = Load, write = Store, P_MEM_RD = Load, P_MEM_WR = Store, P_FETCH = Fetch, IFETCH = Fetch, BOFF = Store | physical | 64: the line that holds the address | the earliest clock cycle of the memory controller | none | peers.md §2.3 |
        | usimm | `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>` | a number, R or W, and more | R = Load, W = Store | physical | 64: the line that holds the address | instructions without memory access before it; a read's instruction pointer | none | peers.md §2.9 |
        | dramsys | `<cycle>: [(<bytes>)] read\|write <hex address> [<hex data>]` | nothing tells it from dramsys-relative: it must be named | read = Load, write = Store | physical | as given | the earliest clock cycle of the memory controller | none | peers.md §2.5 .stl; DRAMSys StlPlayer.cpp |
        | dramsys-relative | `<delay>: [(<bytes>)] read\|write <hex address> [<hex data>]` | nothing tells it from dramsys: it must be named | read = Load, write = Store | physical | as given | clock cycles behind the end of the access before | none | peers.md §2.5 .rstl; DRAMSys StlPlayer.cpp |
        | champsim | instructions of 64 bytes | is_branch and branch_taken are 0 or 1 and bits 63-56 of ip all 0 or all 1, with ip not 0, in every record within the first 4096 bytes, of which there is at least one | by place | virtual | 64: the line that holds the address | instructions without memory access before it; instruction pointer; the load that it depends on, from the registers | instructions without memory access | peers.md §2.7, which has the layout; ChampSim inc/trace_instruction.h |
        | gem5 | protobuf packets behind the magic `gem5` | begins with the bytes `gem5` | by place | physical | as given | the moment, from the tick and the header's ticks per second; the instruction pointer where the trace has it | requests that move no data ([commands](#commands-of-gem5-packets)) | peers.md §2.6; gem5 src/proto/packet.proto, which has the fields, and protoio.cc |

        `lackey`:

        ```
        I  04016b80,3
         L 1ffefff8f8,8
         S 1ffefff8f0,8
         M 04225ce8,4
        ```

        `ramulator`:

        ```
        LD 0x12345680
        ST 305419896
        ```

        `ramulator-vector`:

        ```
        R 0,0,1,2,100,32
        W 1,0,7,3,65535,1008
        ```

        `ramulator-dram`:

        ```
        0x12345680 R
        0x4CBD56C0 W
        ```

        `simple-o3`:

        ```
        3 20734016
        1 0x13BC400 20734080
        8 20734016
        ```

        `dramsim3`:

        ```
        0x2000D5C0 READ 30
        0x1FF96FC0 WRITE   160
        ```

        `usimm`:

        ```
        10 R 0x1fffff80 0x400100
        0 W 0x2000d5c0
        ```

        `dramsys`:

        ```
        31: read 0x400140
        33: (32) write 0x400180
        40: (4) write 0x400180 0x8f4ab001
        ```

        `dramsys-relative`:

        ```
        31: read 0x400140
        2: (32) write 0x400180
        ```
    "#]].assert_eq(&formats_markdown());
}

// Good traces.

#[test]
fn lackey_records_are_read_and_valgrinds_own_lines_are_not() {
    let text = b"==7594== Lackey, an example Valgrind tool\n==7594== \n--7594-- warning\n**7594** said\n\
        ==00:00:00:00.123 7594== late\nI  04016b80,3\n L 1ffefff8f8,8\n==7594== between\n S 1ffefff8F0,16\n M ffffffffffffffff,1\n";
    let want = vec![
        access(AccessKind::Fetch, 0x0401_6b80, 3),
        access(AccessKind::Load, 0x1f_feff_f8f8, 8),
        access(AccessKind::Store, 0x1f_feff_f8f0, 16),
        access(AccessKind::Modify, u64::MAX, 1),
    ];
    assert_eq!(read(text, None), Ok(want));
}

#[test]
fn decimal_and_hexadecimal_ramulator_addresses_are_the_same_address() {
    let want = vec![
        access(AccessKind::Load, 0x1234_5678, 64),
        access(AccessKind::Store, 0x1234_5678, 64),
        access(AccessKind::Store, u64::MAX, 64),
        access(AccessKind::Load, u64::MAX, 64),
    ];
    let text = b"LD 0x12345678\nST 305419896\nST 18446744073709551615\nLD 0XFFFFFFFFFFFFFFFF\n";
    assert_eq!(read(text, None), Ok(want));
}

#[test]
fn dramsim3_addresses_are_hexadecimal_with_or_without_the_prefix() {
    let want = |cycle| at_cycle(AccessKind::Load, 0x2000_d5c0, cycle);
    assert_eq!(read(b"0x2000D5C0 READ 30\n2000d5c0\tREAD\t30\n", None), Ok(vec![want(30); 2]));
    let last = u64::MAX;
    assert_eq!(read(format!("2000d5c0 READ {last}").as_bytes(), None), Ok(vec![want(last)]));
}

#[test]
fn leading_zeros_do_not_count_against_the_width() {
    let zeros = "0".repeat(1000);
    let want = Ok(vec![access(AccessKind::Load, 0xabc, 7)]);
    assert_eq!(read(format!(" L {zeros}abc,{zeros}7").as_bytes(), None), want);
}

#[test]
fn byte_order_mark_crlf_blanks_and_comments_change_nothing() {
    let plain = read(b"LD 0x40\nST 0x80\n", None);
    assert_eq!(plain.as_ref().map(Vec::len), Ok(2));
    assert_eq!(read(b"\xef\xbb\xbfLD 0x40\r\nST 0x80\r\n", None), plain);
    assert_eq!(read(b"\n \t\n# one\xff\0\n  # two\n\t LD \t 0x40 \t\n\r\nST 0x80", None), plain);
    assert_eq!(read(b"\xef\xbb\xbf# one\nLD 0x40\nST 0x80", None), plain);
}

#[test]
fn the_real_lackey_trace_has_the_counts_that_grep_found() {
    let mut reader = open_path(&data("lackey-true.trace.gz"), None).unwrap();
    assert_eq!(reader.format(), Format::Lackey);
    let (mut counts, mut bytes) = ([0u64; 4], 0u64);
    while let Some(access) = reader.next().unwrap() {
        counts[access.kind as usize] += 1;
        bytes += u64::from(access.bytes);
        assert_eq!(access.when, When::Unsaid);
    }
    assert_eq!((counts, bytes), ([109_555, 24_427, 10_265, 1_504], 635_069));
    assert_eq!((reader.records(), reader.line()), (145_751, 145_776));
}

#[test]
fn the_ramulator_sample_is_its_rule() {
    let (mut text, mut want) = (String::new(), Vec::new());
    for i in 0..200u64 {
        let (word, kind) =
            if i % 3 == 2 { ("ST", AccessKind::Store) } else { ("LD", AccessKind::Load) };
        let addr = 64 * (37 * i % 4096);
        let shown = if i % 2 == 0 { format!("{addr:#x}") } else { addr.to_string() };
        text.push_str(&format!("{word} {shown}\n"));
        want.push(access(kind, addr, 64));
    }
    let path = data("ramulator-loadstore.trace");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(drain(open_path(&path, None)), Ok(want));
}

#[test]
fn the_dramsim3_sample_is_its_rule() {
    use AccessKind::{Fetch, Load, Store};
    const OPERATIONS: [(&str, AccessKind); 9] = [
        ("READ", Load),
        ("WRITE", Store),
        ("read", Load),
        ("write", Store),
        ("P_MEM_RD", Load),
        ("P_MEM_WR", Store),
        ("P_FETCH", Fetch),
        ("IFETCH", Fetch),
        ("BOFF", Store),
    ];
    let (mut text, mut want) = (String::new(), Vec::new());
    for i in 0..200u64 {
        let (word, kind) = OPERATIONS[i as usize % 9];
        let (addr, cycle) = (64 * (29 * i * i % 65536), 30 + 7 * i + i % 5);
        text.push_str(&format!("0x{addr:08X} {word} {cycle}\n"));
        want.push(at_cycle(kind, addr, cycle));
    }
    let path = data("dramsim3.trace");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(drain(open_path(&path, None)), Ok(want));
}

#[test]
fn every_other_sample_of_text_is_its_rule() {
    let kind = |i: u64| if i % 3 == 2 { AccessKind::Store } else { AccessKind::Load };
    let addr = |i: u64| 64 * (37 * i % 4096);
    let plain = |i: u64| access(kind(i), addr(i), 64);
    let check = |name: &str, format, rule: &dyn Fn(u64) -> Vec<Access>| {
        let want: Vec<Access> = (0..200).flat_map(rule).collect();
        assert_eq!(drain(open_path(&data(name), Some(format))), Ok(want.clone()), "{name}");
        if !UNDETECTED.contains(&format) {
            let found = open_path(&data(name), None).unwrap();
            assert_eq!((found.format(), drain(Ok(found))), (format, Ok(want)), "{name}");
        }
    };
    check("ramulator-vector.trace", Format::RamulatorVector, &|i| {
        let place = DramPlace {
            channel: (i % 2) as u16,
            rank: (i / 2 % 2) as u16,
            bank_group: (i % 8) as u16,
            bank: (i / 8 % 4) as u16,
            row: (37 * i % 65536) as u32,
            column: (16 * i % 1024) as u32,
        };
        vec![Access { place: Some(place), addr: Access::NO_ADDR, ..plain(i) }]
    });
    check("ramulator-dram.trace", Format::RamulatorDram, &|i| vec![plain(i)]);
    check("simple-o3.trace", Format::SimpleO3, &|i| {
        let when = When::Gap(i % 7);
        let load = Access { when, ..access(AccessKind::Load, addr(i), 64) };
        let store = access(AccessKind::Store, 64 * (41 * i % 4096), 64);
        let store = (i % 4 == 3).then_some(Access { when: When::Gap(0), ..store });
        [load].into_iter().chain(store).collect()
    });
    check("usimm.trace", Format::Usimm, &|i| {
        let ip = (i % 3 != 2).then_some(0x40_0000 + 4 * i);
        vec![Access { when: When::Gap(i % 11), ip, ..plain(i) }]
    });
    check("dramsys.stl", Format::Dramsys, &|i| {
        let bytes = [64, 32, 64, 4][i as usize % 4];
        vec![Access { when: When::Cycle(30 + 7 * i), bytes, ..plain(i) }]
    });
    check("dramsys.rstl", Format::DramsysRelative, &|i| {
        vec![Access { when: When::Delay(i % 13), ..plain(i) }]
    });
}

// Bad traces.

#[test]
fn every_bad_input_is_refused_with_its_place_and_what_was_expected() {
    let cases: &[(Option<Format>, &[u8])] = &[
        (None, b""),
        (Some(Format::Lackey), b""),
        (None, b"\n# nothing\n\n"),
        (None, b"# nothing"),
        (None, b"==1== only\n==1== Valgrind\n"),
        (None, b"\xef\xbb\xbf"),
        (None, b"garbage in\n"),
        (None, b"\x7fELF\x02\x01\x01\0\0\0\0"),
        (None, b"\0\0\0\0"),
        (None, b"\x1f"),
        (None, b"\xff\xfeI\0 \0"),
        (None, "é 12\n".as_bytes()),
        (None, b"BZh91AY&SY\n"),
        (None, b"R 0,1,2,100,32\n"),
        (None, b"W 0x1234\n"),
        (None, b"R 0,1,2,3,100,32,1\n"),
        (None, b"R 0,65536,2,3,100,32\n"),
        (None, b"R 0,1,2,3,4294967296,32\n"),
        (None, b"R 0,1,2,3,100 32\n"),
        (None, b"R 0,1,,3,100,32\n"),
        (None, b"R 0,-1,2,3,100,32\n"),
        (None, b"R\n"),
        (Some(Format::Ramulator), b"W 0x1234\n"),
        (None, b"0x40 R\n0x80\n"),
        (None, b"0x40 R\n0x80 READ\n"),
        (None, b"0x40 R\n0x80 RW\n"),
        (None, b"0x40 R\n0x80 W 3\n"),
        (None, b"0x40 R\nxyz W\n"),
        (None, b"40\n"),
        (None, b"3 20734016\n3\n"),
        (None, b"3 20734016\n3 -1\n"),
        (None, b"3 20734016\n0x3 20734016\n"),
        (None, b"3 20734016\n3 020734016\n"),
        (None, b"3 20734016\n3 20734016 0777\n"),
        (None, b"3 20734016\n3 20734016 5 6\n"),
        (None, b"3 20734016\n18446744073709551616 64\n"),
        (None, b"3 20734016ab\n"),
        (None, b"a3 20734016\n"),
        (None, b"10 R 0x40\n"),
        (None, b"10 R 0x40 0x400100\n10 R 0x40\n"),
        (None, b"10 R 0x40 0x400100 1\n"),
        (None, b"10 W 0x40 0x400100\n"),
        (None, b"10 W 0x40\n0x10 W 0x40\n"),
        (None, b"10 W 0x40\n10 X 0x40\n"),
        (None, b"31: read 0x40\n"),
        (None, b"0x31: read 0x40\n"),
        (Some(Format::Dramsys), b"31 read 0x40\n"),
        (Some(Format::Dramsys), b"31:read 0x40\n"),
        (Some(Format::Dramsys), b"31: Read 0x40\n"),
        (Some(Format::Dramsys), b"31: (0) read 0x40\n"),
        (Some(Format::Dramsys), b"31: (4 read 0x40\n"),
        (Some(Format::Dramsys), b"31: (4)read 0x40\n"),
        (Some(Format::Dramsys), b"31: read 0x40g\n"),
        (Some(Format::Dramsys), b"31: (4) write 0x40 0x123456\n"),
        (Some(Format::Dramsys), b"31: write 0x40 12345678\n"),
        (Some(Format::Dramsys), b"31: write 0x40 0x12 3\n"),
        (Some(Format::Dramsys), b"31: read 0xffffffffffffffc1\n"),
        (Some(Format::Dramsys), b"31: (16) read 0xfffffffffffffff1\n"),
        (Some(Format::Dramsys), b"31: read 0x40\n30: read 0x40\n"),
        (Some(Format::DramsysRelative), b"3.5: read 0x40\n"),
        (None, b"LD 0x40\nR 0,1,2\n"),
        (Some(Format::Ramulator), b"I  40,8\n"),
        (Some(Format::Lackey), b"LD 0x40\n"),
        (None, b"==1== x\nLD 0x40\n"),
        (None, b" L 40,8\n==1= x\n"),
        (None, b" L 40,8\n==x== x\n"),
        (None, b" L 40,8\n==== x\n"),
        (None, b"\n\xef\xbb\xbf L 40,8\n"),
        (None, b" L 40,8\nLO 40,8\n"),
        (None, b" L 40,8\n L40,8\n"),
        (None, b" L 0x40,8\n"),
        (None, b" L 40 8\n"),
        (None, b" L 40\n L 40,8\n"),
        (None, b" L 40, 8\n"),
        (None, b" L -40,8\n"),
        (None, b" L 40,-8\n"),
        (None, b" L 40,0\n"),
        (None, b" L 40,65537\n"),
        (None, b" L 40,99999999999999999999\n"),
        (None, b" L 10000000000000000,8\n"),
        (None, b" L ffffffffffffffff,2\n"),
        (None, b" L 40,8 x\n"),
        (None, b" L 40,8x\n"),
        (None, b" L 40,8\0\n"),
        (None, b" L 40,8\r\r\n"),
        (None, b" L 40,8\n\xef\xbb\xbf L 40,8\n"),
        (None, b"LD\n"),
        (None, b"LD 0x\n"),
        (None, b"LD 12ab\n"),
        (None, b"LD -64\n"),
        (None, b"LD +64\n"),
        (None, b"LD 18446744073709551616\n"),
        (None, b"LD 0x10000000000000000\n"),
        (None, b"LD 0x40 0x80\n"),
        (None, b"LD,0x40\n"),
        (None, b"LDx 0x40\n"),
        (Some(Format::Ramulator), b"LD\xff 0x40\n"),
        (None, b"LD 0x40\nLD \xff\n"),
        (None, b"0x40 REED 3\n"),
        (None, b"0x40 Read 3\n"),
        (None, b"0x40 P_MEM_WRITE 3\n"),
        (None, b"0x40 READ\n"),
        (None, b"0x40 READ 0x3\n"),
        (None, b"0x40 READ -3\n"),
        (None, b"0x40 READ 3.5\n"),
        (None, b"0x40 READ 18446744073709551616\n"),
        (None, b"0x40 READ 3 4\n"),
        (None, b"0x40 READ 30\n0x80 WRITE 29\n"),
        (None, b"0x40 READ 1\n0x40 READ 30\n# up, then down\n0x80 WRITE 29\n"),
        (None, b"0x40 XP_MEM_WR 3\n"),
        (None, b"0x40 READ 30\n0x80g WRITE 31\n"),
        (None, b"0x40 READ 30\n0x10000000000000000 WRITE 31\n"),
        // Cut in the last line.
        (None, b"I  04016b80,3\nI  04016b"),
        (None, b"I  04016b80,3\nI  04016b80,"),
        (None, b"I  04016b80,3\nI  "),
        (None, b"I  04016b80,3\n==12"),
        (None, b"LD 0x40\nLD 0x"),
        (None, b"LD 0x40\nL"),
        (None, b"0x40 READ 30\n0x80 WRI"),
        (None, b"0x40 READ 30\n0x80 WRITE 3"),
        (None, b"0x40 READ 30\nx0x80 WRITE 33"),
        (None, b"I  04016b"),
    ];
    let mut shown = String::new();
    for (format, text) in cases {
        let error = read(text, *format).unwrap_err();
        let line = error.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
        shown.push_str(&format!("{:?} {line}\n", error.kind));
    }
    expect![[r#"
        Empty t.trace:1:1: found an empty file, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Empty t.trace:1:1: found an empty file, expected a record; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Empty t.trace:4:1: found no record, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Empty t.trace:2:1: found no record, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Empty t.trace:3:1: found no record, expected a record; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Empty t.trace:2:1: found no record, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found `garbage`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found byte 0x7f, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found a NUL byte, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found byte 0x1f, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found byte 0xff, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found `é`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found `BZh91AY&SY`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:15: found the end of the line, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:4: found `x1234`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:17: found `,`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:5: found `65536`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:11: found `4294967296`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:14: found a blank, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:7: found `,`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:5: found `-1`, expected six numbers with commas between: channel, rank, bank group and bank below 65536, row and column below 4294967296; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:2: found the end of the line, expected a blank behind the operation; ramulator-vector lines are `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal
        Record t.trace:1:1: found `W`, expected LD or ST; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:2:5: found the end of the line, expected a hexadecimal address of at most 64 bits; ramulator-dram lines are `<hex address> R|W`
        Record t.trace:2:6: found `READ`, expected R or W; ramulator-dram lines are `<hex address> R|W`
        Record t.trace:2:6: found `RW`, expected R or W; ramulator-dram lines are `<hex address> R|W`
        Record t.trace:2:8: found `3`, expected the end of the line; ramulator-dram lines are `<hex address> R|W`
        Record t.trace:2:1: found `xyz`, expected a hexadecimal address of at most 64 bits; ramulator-dram lines are `<hex address> R|W`
        Record t.trace:1:1: found `40`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:2:2: found the end of the line, expected a decimal number of instructions of at most 64 bits; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:3: found `-1`, expected an address of at most 64 bits, decimal or hexadecimal with 0x; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:2: found `x3`, expected a decimal number of instructions of at most 64 bits; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:3: found `020734016`, expected an address without a leading zero: Ramulator 1 reads such a one as octal, Ramulator 2 as decimal; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:12: found `0777`, expected an address without a leading zero: Ramulator 1 reads such a one as octal, Ramulator 2 as decimal; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:14: found `6`, expected the end of the line; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:2:1: found `18446744073709551616`, more than 64 bits, expected a decimal number of instructions of at most 64 bits; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:1:11: found `ab`, expected an address of at most 64 bits, decimal or hexadecimal with 0x; simple-o3 lines are `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x
        Record t.trace:1:1: found `a3`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:10: found the end of the line, expected a hexadecimal instruction pointer of at most 64 bits; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:2:10: found the end of the line, expected a hexadecimal instruction pointer of at most 64 bits; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:1:20: found `1`, expected the end of the line; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:1:11: found `0x400100`, expected the end of the line; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:2:2: found `x10`, expected a decimal number of instructions of at most 64 bits; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:2:4: found `X`, expected R or W; usimm lines are `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`
        Record t.trace:1:1: found `31: read 0x40`, expected the form to be named: dramsys (cycles from the start of the run) and dramsys-relative (from the end of the access before) look alike; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:1: found `0x31:`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:3: found a blank, expected `:` behind the time; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:4: found `read`, expected a blank behind `:`; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:5: found `Read`, expected read or write; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:6: found `0`, expected a size of 1 to 65536 bytes; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:7: found a blank, expected `)` behind the size; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:8: found `read`, expected a blank behind `)`; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:14: found `g`, expected a hexadecimal address of at most 64 bits; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:20: found `0x123456`, expected the data in hexadecimal with 0x, two digits for each byte; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:16: found `12345678`, expected the data in hexadecimal with 0x, two digits for each byte; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:21: found `3`, expected the end of the line; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:10: found `0xffffffffffffffc1`, expected an access that ends within 64 bits; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:6: found size `16`, which ends beyond 64 bits, expected an access that ends within 64 bits; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:2:1: found cycle 30 after cycle 31, expected cycles that never go backwards; dramsys lines are `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:1:2: found `.5:`, expected `:` behind the time; dramsys-relative lines are `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`
        Record t.trace:2:1: found `R`, expected LD or ST; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:1: found `I`, expected LD or ST; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:1: found `LD`, expected I, L, S or M; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:1: found `LD`, expected I, L, S or M; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:5: found a blank, expected Valgrind's process number between two marks, such as `==123==`; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:3: found `x==`, expected Valgrind's process number between two marks, such as `==123==`; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:3: found `==`, expected Valgrind's process number between two marks, such as `==123==`; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:1: found a byte-order mark, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:2:1: found `LO`, expected I, L, S or M; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:2: found `L40`, expected I, L, S or M; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:5: found `x40`, expected a hexadecimal address of at most 64 bits without 0x; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:6: found a blank, expected `,` and the size; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:6: found the end of the line, expected `,` and the size; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:7: found a blank, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:4: found `-40`, expected a hexadecimal address of at most 64 bits without 0x; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:7: found `-8`, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:7: found `0`, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:7: found `65537`, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:7: found `99999999999999999999`, more than 64 bits, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:4: found `10000000000000000`, more than 64 bits, expected a hexadecimal address of at most 64 bits without 0x; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:21: found size `2`, which ends beyond 64 bits, expected an access that ends within 64 bits; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:9: found `x`, expected the end of the line; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:8: found `x`, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:8: found a NUL byte, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:8: found byte 0x0d, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:2:1: found a byte-order mark, expected I, L, S or M; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Record t.trace:1:3: found the end of the line, expected a blank behind the operation; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:6: found the end of the line, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:6: found `ab`, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:4: found `-64`, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:4: found `+64`, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:4: found `18446744073709551616`, more than 64 bits, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:6: found `10000000000000000`, more than 64 bits, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:9: found `0x80`, expected the end of the line; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:3: found `,`, expected a blank behind the operation; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:1: found `LDx`, expected a record; the forms are lackey `I  <hex>,<size>` or ` L|S|M <hex>,<size>`; ramulator `LD|ST <address>`, decimal or hexadecimal with 0x; ramulator-vector `R|W <channel>,<rank>,<bank group>,<bank>,<row>,<column>`, decimal; ramulator-dram `<hex address> R|W`; simple-o3 `<bubbles> <load address> [<store address>]`, decimal or hexadecimal with 0x; dramsim3 `<hex address> <operation> <cycle>`; usimm `<gap> R <hex address> <hex instruction pointer>` or `<gap> W <hex address>`; dramsys `<cycle>: [(<bytes>)] read|write <hex address> [<hex data>]`; dramsys-relative `<delay>: [(<bytes>)] read|write <hex address> [<hex data>]`; champsim instructions of 64 bytes; gem5 protobuf packets behind the magic `gem5`
        Record t.trace:1:3: found byte 0xff, expected a blank behind the operation; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:2:4: found byte 0xff, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Record t.trace:1:6: found `REED`, expected READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:6: found `Read`, expected READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:6: found `P_MEM_WRITE`, expected READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:10: found the end of the line, expected a blank behind the operation; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:12: found `x3`, expected a decimal cycle of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:11: found `-3`, expected a decimal cycle of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:12: found `.5`, expected a decimal cycle of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:11: found `18446744073709551616`, more than 64 bits, expected a decimal cycle of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:13: found `4`, expected the end of the line; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:2:12: found cycle 29 after cycle 30, expected cycles that never go backwards; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:4:12: found cycle 29 after cycle 30, expected cycles that never go backwards; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:6: found `XP_MEM_WR`, expected READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:2:5: found `g`, expected a hexadecimal address of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:2:3: found `10000000000000000`, more than 64 bits, expected a hexadecimal address of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Truncated t.trace:2:10: found the end of the file, expected `,` and the size; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Truncated t.trace:2:13: found the end of the file, expected a size of 1 to 65536 bytes; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Truncated t.trace:2:4: found the end of the file, expected a hexadecimal address of at most 64 bits without 0x; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Truncated t.trace:2:5: found the end of the file, expected Valgrind's process number between two marks, such as `==123==`; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
        Truncated t.trace:2:6: found the end of the file, expected an address of at most 64 bits, decimal or hexadecimal with 0x; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Truncated t.trace:2:1: found `L`, expected LD or ST; ramulator lines are `LD|ST <address>`, decimal or hexadecimal with 0x
        Truncated t.trace:2:6: found `WRI`, expected READ, WRITE, read, write, P_MEM_RD, P_MEM_WR, P_FETCH, IFETCH or BOFF; dramsim3 lines are `<hex address> <operation> <cycle>`
        Truncated t.trace:2:12: found cycle 3 after cycle 30, expected cycles that never go backwards; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:2:1: found `x0x80`, expected a hexadecimal address of at most 64 bits; dramsim3 lines are `<hex address> <operation> <cycle>`
        Record t.trace:1:10: found the end of the file, expected `,` and the size; lackey lines are `I  <hex>,<size>` or ` L|S|M <hex>,<size>`
    "#]].assert_eq(&shown);
}

#[test]
fn a_last_line_without_its_newline_counts_if_it_is_whole() {
    let want = Ok(vec![access(AccessKind::Load, 0x40, 8), access(AccessKind::Store, 0x80, 16)]);
    assert_eq!(read(b" L 40,8\n S 80,16", None), want);
    assert_eq!(read(b" L 40,8\n S 80,16\r", None), want);
}

#[test]
fn a_cut_trace_is_an_error_or_one_record_short_or_has_a_shorter_last_number() {
    let text = b"I  04016b80,3\n L 1ffefff8f8,8\n S 1ffefff8f0,16";
    let whole = read(text, None).unwrap();
    let mut kinds = BTreeSet::new();
    for len in 0..text.len() {
        match read(&text[..len], None) {
            Ok(part) => {
                kinds.insert("read");
                let same = part.iter().zip(&whole).take_while(|(a, b)| a == b).count();
                assert!(same == part.len() || (same + 1 == part.len() && text[len - 1] == b'1'));
            }
            Err(error) => {
                let first_is_whole = len > b"I  04016b80,3".len();
                kinds.insert(if first_is_whole { "cut" } else { "none" });
                assert_eq!(error.kind == TraceErrorKind::Truncated, first_is_whole, "{error}");
            }
        }
    }
    assert_eq!(kinds.len(), 3);
}

#[test]
fn the_longest_line_is_read_and_a_byte_more_is_refused_however_the_text_is_buffered() {
    for chunk in [1 << 20, 8192, 1000, 7] {
        for end in ["", "\n", "\nLD 0x80\n"] {
            let line = |len: usize| format!("LD 0x40{}{end}", " ".repeat(len - 7));
            let good = read_in_chunks(line(TEXT_LINE_MAX).as_bytes(), None, chunk).unwrap();
            assert_eq!(good.len(), if end.len() > 1 { 2 } else { 1 });
            let long = line(TEXT_LINE_MAX + 1);
            let error = read_in_chunks(long.as_bytes(), None, chunk).unwrap_err();
            assert_eq!(place(&error), (1, TEXT_LINE_MAX as u64 + 1));
            assert_eq!(error.found, "a line of more than 65536 bytes");
            assert_eq!(error.kind, TraceErrorKind::Record);
            assert_eq!(read(long.as_bytes(), None), Err(error));
        }
    }
}

/// Counts what is read of it.
#[derive(Debug)]
struct Counted<'a, R>(R, &'a mut u64);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(out)?;
        *self.1 += len as u64;
        Ok(len)
    }
}

#[test]
fn a_hundred_megabytes_without_a_newline_are_refused_after_little_of_it() {
    for byte in [b'a', b'#', b' ', 0] {
        let mut taken = 0;
        let endless = Counted(io::repeat(byte).take(100 << 20), &mut taken);
        let error = open_read("t.trace", endless, None).unwrap_err();
        assert_eq!(error.found, "a line of more than 65536 bytes");
        assert!(taken <= 256 << 10, "{taken} bytes were read");
    }
}

#[test]
fn memory_does_not_grow_with_the_trace() {
    let line = b"LD 0x40                                                     \n";
    let long = io::repeat(0).take(20_000 * line.len() as u64);
    struct Lines<R>(R, usize, &'static [u8; 61]);
    impl<R: Read> Read for Lines<R> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = self.0.read(out)?;
            for byte in &mut out[..len] {
                *byte = self.2[self.1 % self.2.len()];
                self.1 += 1;
            }
            Ok(len)
        }
    }
    let source = BufReader::with_capacity(1000, Lines(long, 0, line));
    let mut reader = TraceReader::open("t", source, None).unwrap();
    for _ in 0..100 {
        reader.next().unwrap();
    }
    let early = reader.buffer_capacity();
    while reader.next().unwrap().is_some() {}
    assert_eq!((reader.records(), reader.buffer_capacity()), (20_000, early));
}

/// Gives text, then the end of the file, then more text, as a growing file does.
struct Growing(Vec<&'static [u8]>);

impl Read for Growing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let text = self.0.remove(0);
        out[..text.len()].copy_from_slice(text);
        Ok(text.len())
    }
}

#[test]
fn the_end_of_the_file_is_taken_once() {
    for first in [b"LD 0x40\n".as_slice(), b"LD 0x40"] {
        let source = BufReader::new(Growing(vec![first, b"", b"LD 0x80\n"]));
        let got = drain(TraceReader::open("t", source, None));
        assert_eq!(got, Ok(vec![access(AccessKind::Load, 0x40, 64)]));
    }
}

/// Fails as told, before each piece of text.
struct Failing(Vec<Result<&'static [u8], io::ErrorKind>>);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let text = self.0.remove(0)?;
        out[..text.len()].copy_from_slice(text);
        Ok(text.len())
    }
}

#[test]
fn an_error_of_the_source_is_reported_once_for_all_and_an_interruption_is_not_one() {
    use io::ErrorKind::{Interrupted, Other};
    let source = Failing(vec![Ok(b"LD 0x40\n"), Err(Interrupted), Ok(b"ST"), Err(Interrupted)]);
    let error = drain(TraceReader::open("t", BufReader::new(source), None)).unwrap_err();
    assert_eq!(place(&error), (2, 3), "{error}");
    for (pieces, want, behind) in [
        (vec![Ok(b"LD 0x40\n".as_slice()), Err(Other), Ok(b"ST 0x80\n")], (2, 1), 8),
        (vec![Ok(b"LD 0x40\nST".as_slice()), Err(Other), Ok(b" 0x80\n")], (2, 3), 10),
        (vec![Err(Other), Ok(b"ST 0x80\n")], (1, 1), 0),
    ] {
        let source = BufReader::new(Failing(pieces));
        let error = drain(TraceReader::open("t", source, None)).unwrap_err();
        assert_eq!(place(&error), want);
        assert_eq!(error.kind, TraceErrorKind::Input);
        assert_eq!(error.found, format!("an input error behind byte {behind} (other error)"));
    }
}

#[test]
fn a_file_that_cannot_be_opened_or_read_is_an_error_that_names_it() {
    let missing = open_path(Path::new("no\nsuch.trace"), None).unwrap_err();
    assert_eq!(missing.kind, TraceErrorKind::Input);
    assert!(missing.to_string().starts_with("no\u{fffd}such.trace:1:1: found an input error ("));
    let directory = open_path(&data(""), None).unwrap_err();
    assert_eq!(directory.kind, TraceErrorKind::Input);
}

#[test]
fn a_caller_can_refuse_the_last_record_at_its_place() {
    let mut reader = TraceReader::open("t", b"# x\nLD 0x40\n\nLD 0x80".as_slice(), None).unwrap();
    reader.next().unwrap();
    assert_eq!(reader.line(), 2);
    reader.next().unwrap();
    let error = reader.refuse("address 0x80", "an address below 0x80");
    assert_eq!(error.to_string(), "t:4:1: found address 0x80, expected an address below 0x80");
}

// Gzip.

#[test]
fn gzip_data_are_unpacked_in_one_or_many_members() {
    let text = b"LD 0x40\nST 0x80\n";
    let want = read(text, None);
    assert_eq!(want.as_ref().map(Vec::len), Ok(2));
    assert_eq!(drain(open_read("t", Cursor::new(gzip(text)), None)), want);
    let two = [gzip(b"LD 0x4"), gzip(b"0\nST 0x80\n")].concat();
    assert_eq!(drain(open_read("t", Cursor::new(two), None)), want);
    assert_eq!(Source::new(Cursor::new(gzip(text))).unwrap().packing(), Packing::Gzip);
    assert_eq!(Source::new(text.as_slice()).unwrap().packing(), Packing::Plain);
}

#[test]
fn gzip_data_cut_anywhere_are_an_error_that_says_so() {
    let packed = gzip(b"LD 0x40\nST 0x80\nLD 0xc0\n");
    for len in 2..packed.len() {
        let error = drain(open_read("t", Cursor::new(&packed[..len]), None)).unwrap_err();
        assert!(error.found.contains("gzip"), "{error}");
    }
    let real = std::fs::read(data("lackey-true.trace.gz")).unwrap();
    let mut reader = open_read("t", &real[..real.len() / 2], None).unwrap();
    let error = loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the trace was cut in half and has an end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, TraceErrorKind::Truncated);
    assert!(error.found.contains("gzip") && reader.records() > 10_000, "{error}");
}

#[test]
fn no_flipped_bit_of_gzip_data_changes_a_record_silently() {
    let text = b"LD 0x40\nST 0x80\nLD 0xc0\nLD 0x12345680\n";
    let (packed, want) = (gzip(text), read(text, None));
    let mut errors = 0;
    // The first two bytes say that it is gzip at all.
    for bit in 16..packed.len() * 8 {
        let mut bad = packed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        match drain(open_read("t", Cursor::new(bad), None)) {
            Ok(all) => assert_eq!(Ok(all), want, "bit {bit}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > packed.len() * 4, "{errors} errors");
}

/// Bytes that come one at a time, as from a slow pipe.
struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let one = self.0.len().min(1);
        self.0.read(&mut out[..one])
    }
}

/// A fuzzer's finding: the decoder gives out more before it finds the damage if it gets the bytes in pieces.
#[test]
fn damaged_gzip_data_end_in_the_same_error_however_the_bytes_come() {
    let packed = gzip(b"LD 0x40\nST 0x80\nLD 0xc0\nLD 0x12345680\n");
    for bit in 16..packed.len() * 8 {
        let mut bad = packed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let whole = drain(open_read("t", bad.as_slice(), None));
        assert_eq!(drain(open_read("t", OneByOne(&bad), None)), whole, "bit {bit}");
    }
}

#[test]
fn an_input_that_fails_behind_packed_data_fails_once_they_are_read() {
    let packed: &'static [u8] = gzip(b"LD 0x40\nST 0x80\n").leak();
    // As many as are looked at to see how the input is packed.
    let (head, tail) = packed.split_at(6);
    let failing = Failing(vec![Ok(head), Ok(tail), Err(io::ErrorKind::Other)]);
    let mut reader = open_read("t", failing, None).unwrap();
    assert_eq!(reader.next().map(|access| access.is_some()), Ok(true));
    assert_eq!(reader.next().map(|access| access.is_some()), Ok(true));
    let error = reader.next().unwrap_err();
    assert!(error.found.contains("other error"), "{error}");
}

#[test]
fn text_behind_gzip_data_is_an_error() {
    let packed = [gzip(b"LD 0x40\n"), b"ST 0x80\nLD 0xc0\n".to_vec()].concat();
    let error = drain(open_read("t", Cursor::new(packed), None)).unwrap_err();
    assert!(error.found.contains("gzip"), "{error}");
    assert_eq!(error.kind, TraceErrorKind::Input);
}

// Properties.

/// The formats once more, from their description, with strings and splits: the records, or the number of the bad line.
fn plain_reading(format: Format, text: &[u8]) -> Result<Vec<Access>, u64> {
    const BLANKS: [char; 2] = [' ', '\t'];
    fn number(text: &str, radix: u32) -> Option<u64> {
        let good = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
        good.then(|| u64::from_str_radix(text, radix).ok()).flatten()
    }
    fn unprefixed(text: &str) -> Option<&str> {
        text.strip_prefix("0x").or(text.strip_prefix("0X"))
    }
    fn is_valgrinds(line: &str) -> bool {
        ["==", "--", "**"].iter().any(|mark| {
            line.strip_prefix(mark).and_then(|rest| rest.split_once(mark)).is_some_and(
                |(inside, _)| {
                    !inside.is_empty() && inside.chars().all(|c| "0123456789:. ".contains(c))
                },
            )
        })
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let (mut all, mut before, mut lines) = (Vec::new(), 0, 0u64);
    for line in text.split(|byte| *byte == b'\n') {
        lines += 1;
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let line = line.trim_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(BLANKS).filter(|field| !field.is_empty()).collect();
        let record = match (format, fields.as_slice()) {
            (Format::Lackey, _) if is_valgrinds(line) => continue,
            (Format::Lackey, [word, place]) => {
                let kind = match *word {
                    "I" => Some(AccessKind::Fetch),
                    "L" => Some(AccessKind::Load),
                    "S" => Some(AccessKind::Store),
                    "M" => Some(AccessKind::Modify),
                    _ => None,
                };
                kind.zip(place.split_once(',')).and_then(|(kind, (addr, size))| {
                    let (addr, size) = (number(addr, 16)?, number(size, 10)?);
                    let fits = (1..=65536).contains(&size) && addr <= u64::MAX - (size - 1);
                    fits.then(|| access(kind, addr, size as u32))
                })
            }
            (Format::Ramulator, [word @ ("LD" | "ST"), addr]) => {
                let kind = if *word == "LD" { AccessKind::Load } else { AccessKind::Store };
                let addr = match unprefixed(addr) {
                    Some(digits) => number(digits, 16),
                    None => number(addr, 10),
                };
                addr.map(|addr| access(kind, addr, 64))
            }
            (Format::RamulatorVector, [word @ ("R" | "W"), place]) => {
                let kind = if *word == "R" { AccessKind::Load } else { AccessKind::Store };
                let levels: Option<Vec<u64>> =
                    place.split(',').map(|level| number(level, 10)).collect();
                match levels.as_deref() {
                    Some([channel, rank, group, bank, row, column]) => {
                        let small = |level: &u64| u16::try_from(*level).ok();
                        let large = |level: &u64| u32::try_from(*level).ok();
                        (|| {
                            let place = DramPlace {
                                channel: small(channel)?,
                                rank: small(rank)?,
                                bank_group: small(group)?,
                                bank: small(bank)?,
                                row: large(row)?,
                                column: large(column)?,
                            };
                            Some(Access { place: Some(place), ..access(kind, u64::MAX, 64) })
                        })()
                    }
                    _ => None,
                }
            }
            (Format::RamulatorDram, [addr, word @ ("R" | "W")]) => {
                let kind = if *word == "R" { AccessKind::Load } else { AccessKind::Store };
                number(unprefixed(addr).unwrap_or(addr), 16).map(|addr| access(kind, addr, 64))
            }
            (Format::SimpleO3, [gap, addrs @ ..]) if matches!(addrs.len(), 1 | 2) => {
                let addr = |text: &str| match unprefixed(text) {
                    Some(digits) => number(digits, 16),
                    None if text.len() > 1 && text.starts_with('0') => None,
                    None => number(text, 10),
                };
                let gap = number(gap, 10);
                let load = gap.zip(addr(addrs[0])).map(|(gap, addr)| Access {
                    when: When::Gap(gap),
                    ..access(AccessKind::Load, addr, 64)
                });
                match addrs.get(1).map(|text| addr(text)) {
                    None => load,
                    Some(store) => load.zip(store).map(|(load, store)| {
                        all.push(load);
                        Access { when: When::Gap(0), ..access(AccessKind::Store, store, 64) }
                    }),
                }
            }
            (Format::Usimm, [gap, "W", addr]) => {
                let addr = number(unprefixed(addr).unwrap_or(addr), 16);
                number(gap, 10).zip(addr).map(|(gap, addr)| Access {
                    when: When::Gap(gap),
                    ..access(AccessKind::Store, addr, 64)
                })
            }
            (Format::Usimm, [gap, "R", addr, ip]) => {
                let hex = |text: &str| number(unprefixed(text).unwrap_or(text), 16);
                number(gap, 10).zip(hex(addr)).zip(hex(ip)).map(|((gap, addr), ip)| Access {
                    when: When::Gap(gap),
                    ip: Some(ip),
                    ..access(AccessKind::Load, addr, 64)
                })
            }
            (Format::Dramsys | Format::DramsysRelative, [time, rest @ ..]) => (|| {
                let time = number(time.strip_suffix(':')?, 10)?;
                let (bytes, rest) = match rest {
                    [size, rest @ ..] if size.starts_with('(') => {
                        let size = number(size.strip_prefix('(')?.strip_suffix(')')?, 10)?;
                        ((1..=65536).contains(&size).then_some(Some(size))?, rest)
                    }
                    rest => (None, rest),
                };
                let (word, addr, data) = match rest {
                    [word, addr] => (*word, *addr, None),
                    [word, addr, data] => (*word, *addr, Some(*data)),
                    _ => return None,
                };
                let kind = match word {
                    "read" => AccessKind::Load,
                    "write" => AccessKind::Store,
                    _ => return None,
                };
                let addr = number(unprefixed(addr).unwrap_or(addr), 16)?;
                if let Some(data) = data {
                    let digits = unprefixed(data)?;
                    let good = digits.chars().all(|c| c.is_ascii_hexdigit()) && !digits.is_empty();
                    let want = bytes.map_or(digits.len() / 2, |bytes| bytes as usize);
                    if !good || digits.len() != want * 2 {
                        return None;
                    }
                }
                let bytes = bytes.unwrap_or(64);
                addr.checked_add(bytes - 1)?;
                let when = match format {
                    Format::Dramsys if time < before => return None,
                    Format::Dramsys => When::Cycle(time),
                    _ => When::Delay(time),
                };
                before = time;
                Some(Access { when, ..access(kind, addr, bytes as u32) })
            })(),
            (Format::Dramsim3, [addr, word, cycle]) => {
                let kind = match *word {
                    "READ" | "read" | "P_MEM_RD" => Some(AccessKind::Load),
                    "WRITE" | "write" | "P_MEM_WR" | "BOFF" => Some(AccessKind::Store),
                    "P_FETCH" | "IFETCH" => Some(AccessKind::Fetch),
                    _ => None,
                };
                let addr = number(unprefixed(addr).unwrap_or(addr), 16);
                let cycle = number(cycle, 10).filter(|cycle| *cycle >= before);
                kind.zip(addr).zip(cycle).map(|((kind, addr), cycle)| {
                    before = cycle;
                    at_cycle(kind, addr, cycle)
                })
            }
            _ => None,
        };
        all.push(record.ok_or(lines)?);
    }
    if all.is_empty() { Err(0) } else { Ok(all) }
}

fn good_line(format: Format) -> BoxedStrategy<String> {
    let words = format.row().words;
    let word = (0..words.len().max(1)).prop_map(move |i| words.get(i).map_or("", |word| word.text));
    let addr = prop_oneof![any::<u64>(), 0..1u64 << 40, Just(u64::MAX)];
    let line = (word, addr, 1..=65536u64, 0..4u64, any::<bool>(), any::<u64>());
    line.prop_map(move |(word, addr, size, cycle, flag, more)| match format {
        Format::Lackey => {
            let size = size.min(u64::MAX - addr + u64::from(addr > 0)).max(1);
            let lead = if word == "I" { "I  " } else { &format!(" {word} ") };
            if flag { format!("{lead}{addr:08x},{size}") } else { format!("{lead}{addr:X},{size}") }
        }
        Format::Ramulator if flag => format!("{word} {addr:#x}"),
        Format::Ramulator => format!("{word} {addr}"),
        Format::RamulatorVector => {
            let (a, b, c) = (more as u16, (more >> 16) as u16, (more >> 32) as u16);
            format!("{word} {a},{b},{c},{cycle},{},{}", addr as u32, (addr >> 32) as u32)
        }
        Format::RamulatorDram if flag => format!("{addr:#x} {word}"),
        Format::RamulatorDram => format!("{addr:X} {word}"),
        Format::SimpleO3 if flag => format!("{size} {addr}"),
        Format::SimpleO3 => format!("{cycle} {addr:#x} {more}"),
        Format::Dramsim3 => format!("{addr:#X} {word} {cycle}").replacen("0X", "0x", 1),
        Format::Usimm if word == "R" => format!("{size} R {addr:#x} {more:x}"),
        Format::Usimm => format!("{size} W {addr:x}"),
        Format::Dramsys | Format::DramsysRelative => {
            let addr = addr.min(u64::MAX - 63);
            let given = if size <= 64 { format!("({size}) ") } else { String::new() };
            let data = if flag {
                format!(" 0x{}", "5a".repeat(size as usize % 65))
            } else {
                String::new()
            };
            let data = if size <= 64 || size % 65 > 0 { data } else { String::new() };
            format!("{cycle}: {given}{word} {addr:#x}{data}")
        }
        Format::Champsim | Format::Gem5 => panic!("no lines"),
    })
    .boxed()
}

fn text_format() -> impl Strategy<Value = Format> {
    proptest::sample::select(text_forms().map(|row| row.format).collect::<Vec<_>>())
}

fn good_trace() -> impl Strategy<Value = (Format, String)> {
    text_format().prop_flat_map(|format| {
        let mut lines = proptest::collection::vec(good_line(format), 1..12).boxed();
        let cycle: Option<fn(&String) -> Option<String>> = match format {
            Format::Dramsim3 => Some(|line| line.rsplit(' ').next().map(str::to_owned)),
            Format::Dramsys => Some(|line| line.split(':').next().map(str::to_owned)),
            _ => None,
        };
        if let Some(cycle) = cycle {
            // In the order of their cycles.
            lines = lines
                .prop_map(move |mut lines| {
                    lines.sort_by_key(cycle);
                    lines
                })
                .boxed();
        }
        (Just(format), lines.prop_map(|lines| lines.join("\n") + "\n"))
    })
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || {
        prop_oneof![
            3 => proptest::sample::select(b" \t\r\n,0x9fILSMDTRW#=-*+\0\xff\xef\xbb\xbf".to_vec()),
            1 => any::<u8>(),
        ]
    };
    prop_oneof![
        (any::<usize>(), byte()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<usize>(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<usize>().prop_map(Change::Remove),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), 1..30usize).prop_map(|(at, len)| Change::Repeat(at, len)),
    ]
}

fn changed(text: &str, changes: &[Change]) -> Vec<u8> {
    let mut text = text.as_bytes().to_vec();
    for change in changes {
        let len = text.len().max(1);
        match *change {
            Change::Put(at, byte) => {
                if let Some(old) = text.get_mut(at % len) {
                    *old = byte;
                }
            }
            Change::Insert(at, byte) => text.insert(at % len.min(text.len() + 1), byte),
            Change::Remove(at) if !text.is_empty() => drop(text.remove(at % len)),
            Change::Cut(at) => text.truncate(at % len),
            Change::Repeat(at, count) if !text.is_empty() => {
                let byte = text[at % len];
                for _ in 0..count {
                    text.insert(at % len, byte);
                }
            }
            _ => {}
        }
    }
    text
}

/// What both readings must agree on.
fn agree(format: Format, text: &[u8]) -> Result<Option<Vec<Access>>, TestCaseError> {
    let got = read(text, Some(format));
    match (&got, plain_reading(format, text)) {
        (Ok(all), Ok(want)) => prop_assert_eq!(all, &want),
        (Err(error), Err(0)) => prop_assert_eq!(error.kind, TraceErrorKind::Empty),
        (Err(error), Err(line)) => {
            let (error_line, column) = place(error);
            prop_assert_eq!(error_line, line);
            let len = text.split(|b| *b == b'\n').nth(line as usize - 1).map_or(0, <[u8]>::len);
            prop_assert!(column <= len as u64 + 1, "{}", error);
            prop_assert!(!error.to_string().contains(char::is_control));
        }
        (got, want) => prop_assert!(false, "{:?} but {:?}", got, want),
    }
    Ok(got.ok())
}

proptest! {
    #[test]
    fn a_good_trace_is_read_alike_by_two_readings_and_detected((format, text) in good_trace()) {
        let all = agree(format, text.as_bytes())?;
        let lines = text.lines().count();
        let count = all.as_ref().map_or(0, Vec::len);
        prop_assert!(count == lines || format == Format::SimpleO3 && count > lines);
        let detected = TraceReader::open("t", text.as_bytes(), None);
        if UNDETECTED.contains(&format) {
            prop_assert!(detected.is_err());
        } else {
            prop_assert_eq!(detected.as_ref().map(TraceReader::format).ok(), Some(format));
            prop_assert_eq!(drain(detected).ok(), all);
        }
    }

    #[test]
    fn cycles_in_any_order_are_read_alike_by_two_readings(
        lines in proptest::collection::vec(good_line(Format::Dramsim3), 1..6),
    ) {
        agree(Format::Dramsim3, lines.join("\n").as_bytes())?;
    }

    #[test]
    fn a_damaged_trace_is_read_alike_by_two_readings(
        (format, text) in good_trace(),
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        agree(format, &changed(&text, &changes))?;
    }

    #[test]
    fn what_is_read_does_not_depend_on_the_buffer(
        (format, text) in good_trace(),
        changes in proptest::collection::vec(change(), 0..3),
        chunk in 1..70usize,
        given: bool,
    ) {
        let (text, format) = (changed(&text, &changes), given.then_some(format));
        prop_assert_eq!(read_in_chunks(&text, format, chunk), read(&text, format));
        let unpacked = drain(open_read("t.trace", Cursor::new(gzip(&text)), format));
        prop_assert_eq!(unpacked, read(&text, format));
    }

    #[test]
    fn detection_only_chooses_between_the_formats(
        (_, text) in good_trace(),
        changes in proptest::collection::vec(change(), 0..3),
    ) {
        let text = changed(&text, &changes);
        if let Ok(reader) = TraceReader::open("t.trace", text.as_slice(), None) {
            let format = reader.format();
            prop_assert_eq!(drain(Ok(reader)), read(&text, Some(format)));
        } else {
            for format in ALL.into_iter().filter(|format| !UNDETECTED.contains(format)) {
                // No form reads the first record, or the first lines are of several forms.
                let opened = TraceReader::open("t.trace", text.as_slice(), Some(format));
                prop_assert!(opened.is_err(), "{:?}", opened.map(|reader| reader.format()));
            }
        }
    }

    #[test]
    fn no_bytes_panic_or_hang(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        chunk in 1..40usize,
        packed: bool,
    ) {
        prop_assume!(packed || !bytes.starts_with(b"\x1f\x8b") && !bytes.starts_with(b"\xfd7zXZ\0"));
        let bytes = if packed { [b"\x1f\x8b\x08\0".to_vec(), bytes].concat() } else { bytes };
        for format in ALL.map(Some).into_iter().chain([None]) {
            let got = drain(open_read("t", bytes.as_slice(), format));
            if packed {
                prop_assert!(got.is_err());
            } else {
                let raw = BufReader::with_capacity(chunk, bytes.as_slice());
                prop_assert_eq!(drain(TraceReader::open("t", raw, format)), got);
            }
        }
    }
}
