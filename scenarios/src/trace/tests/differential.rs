//! The fast reading of a line against the exact one.

use super::*;
use crate::trace::{fast, parse};

const QUICK: [Format; 4] =
    [Format::Ramulator, Format::Dramsim3, Format::Lackey, Format::RamulatorDram];

/// What the fast reading makes of the first line of a text, if it takes it; it must be what the exact one makes.
fn quick(format: Format, text: &[u8], cycle: u64) -> Result<Option<Access>, TestCaseError> {
    let Some((access, taken)) = fast::record(format, text, cycle) else { return Ok(None) };
    let end = text.iter().position(|byte| *byte == b'\n');
    prop_assert_eq!(end.map(|end| end + 1), Some(taken), "the line's length");
    let line = &text[..taken - 1];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let exact = parse::item(format, line, cycle);
    prop_assert_eq!(exact, Ok(parse::Item::Access(access)), "{:?}", String::from_utf8_lossy(line));
    Ok(Some(access))
}

fn padded(mut text: Vec<u8>, behind: u8) -> Vec<u8> {
    text.extend([behind; fast::AHEAD]);
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_fast_reading_is_the_exact_one_on_damaged_lines(
        (format, line) in proptest::sample::select(QUICK.to_vec())
            .prop_flat_map(|format| (Just(format), good_line(format))),
        changes in proptest::collection::vec(change(), 0..4),
        before in 0..4u64,
        crlf: bool,
        behind in prop_oneof![Just(b'0'), Just(b'\n'), Just(b' '), any::<u8>()],
        read_as in proptest::sample::select(ALL.to_vec()),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let text = padded(changed(&format!("{line}{end}"), &changes), behind);
        quick(format, &text, before)?;
        quick(read_as, &text, before)?;
    }

    #[test]
    fn the_fast_reading_is_the_exact_one_on_any_bytes_of_the_forms(
        text in proptest::collection::vec(
            proptest::sample::select(b"0123456789abcdefABCDEFxXg \t\r\n,LDSTIMRWEAP_".to_vec()),
            0..40,
        ),
        format in proptest::sample::select(QUICK.to_vec()),
    ) {
        quick(format, &padded(text, b'\n'), 0)?;
    }
}

#[test]
fn plain_lines_of_every_width_take_the_fast_way() {
    for format in QUICK {
        for word in format.row().words {
            let word = word.text;
            for digits in 1..=16 {
                let addr = &"123456789abcdef0"[..digits];
                let decimal = &"1234567890123456"[..digits];
                let lines = match format {
                    Format::Ramulator => [format!("{word} 0x{addr}"), format!("{word} {decimal}")],
                    Format::Dramsim3 => {
                        [format!("0x{addr} {word} 7"), format!("{addr} {word}    {decimal}")]
                    }
                    Format::Lackey if word == "I" => {
                        [format!("I  {addr},3"), format!("I  {addr},16")]
                    }
                    Format::Lackey => {
                        [format!(" {word} {addr},8"), format!(" {word} {addr},65536")]
                    }
                    _ => [format!("0x{addr} {word}"), format!("0X{} {word}", addr.to_uppercase())],
                };
                for line in lines {
                    for end in ["\n", "\r\n"] {
                        let text = padded(format!("{line}{end}").into_bytes(), b'1');
                        let got = quick(format, &text, 0).unwrap();
                        assert!(got.is_some(), "{line:?} is read the slow way");
                    }
                }
            }
        }
    }
}

#[test]
fn a_line_is_read_alike_wherever_the_buffer_ends() {
    // Longer than the buffer, with lines of different lengths, so that every place of a line meets its end.
    let mut text = String::new();
    let mut want = Vec::new();
    for i in 0..40_000u64 {
        let addr = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 50);
        text.push_str(&format!("0x{addr:X} READ {i}\n"));
        want.push(at_cycle(AccessKind::Load, addr, i));
    }
    assert!(text.len() > 4 * 128 * 1024);
    assert_eq!(read(text.as_bytes(), None).unwrap(), want);
    assert_eq!(read_in_chunks(text.as_bytes(), None, 4093).unwrap(), want);
}
