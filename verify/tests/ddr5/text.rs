//! The text form of a command trace.

use proptest::prelude::*;
use std::io::{self, BufReader, Read};
use verify::ddr5::{
    Cmd, LONGEST, PARAMS, Param, Place, Reader, Record, Refresh, Rules, TraceError, example_rules,
    head, tail,
};

fn any_record() -> impl Strategy<Value = Record> {
    let place = (any::<u16>(), any::<u16>(), any::<u16>());
    let at = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>(), any::<u32>());
    (0..u64::MAX >> 1, place, 0..Cmd::COUNT, at).prop_map(|(clock, place, cmd, at)| {
        let (package, channel, subchannel) = place;
        let (rank, group, bank, row, column) = at;
        let cmd = Cmd::ALL[cmd];
        let column_too = cmd.reads() || cmd.writes();
        let one_bank = column_too || matches!(cmd, Cmd::Act | Cmd::Pre);
        Record {
            clock,
            place: Place { package, channel, subchannel },
            cmd,
            rank,
            group: if one_bank { group } else { 0 },
            bank: if one_bank || cmd == Cmd::RefSb { bank } else { 0 },
            row: if column_too || cmd == Cmd::Act { row } else { 0 },
            column: if column_too { column } else { 0 },
        }
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (prop::collection::vec(any::<u64>(), PARAMS.len()), 0..3usize).prop_map(|(values, refresh)| {
        let value = |p: Param| {
            let row = p.row();
            row.least + values[p as usize] % (row.most - row.least + 1)
        };
        Rules::new(Refresh::ALL[refresh], value).unwrap()
    })
}

proptest! {
    #[test]
    fn a_command_is_read_as_it_was_written(record in any_record()) {
        prop_assert_eq!(record.to_string().parse::<Record>().unwrap(), record);
    }

    #[test]
    fn rules_are_read_as_they_were_written(rules in any_rules()) {
        prop_assert_eq!(&rules.to_string().parse::<Rules>().unwrap(), &rules);
        let bytes = postcard::to_stdvec(&rules).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Rules>(&bytes).unwrap(), rules);
    }

    #[test]
    fn a_trace_is_read_as_it_was_written(
        rules in any_rules(), records in prop::collection::vec(any_record(), 0..20), end in 0..u64::MAX >> 1,
    ) {
        let lines: String = records.iter().map(|r| format!("{r}\n")).collect();
        let (start, end_line) = (head(&rules), tail(end));
        let loose = lines.replace(' ', " \t ");
        for text in [
            format!("{start}{lines}{end_line}"),
            format!("{start}{lines}{end_line}").replace('\n', "\r\n"),
            format!("{start}{loose}{end_line}"),
        ] {
            let mut reader = Reader::new(text.as_bytes()).unwrap();
            prop_assert_eq!(reader.rules(), &rules);
            let read: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
            prop_assert_eq!(&read, &records);
            prop_assert_eq!(reader.end(), Some(end));
        }
    }

    #[test]
    fn no_bytes_at_all_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut text = head(&example_rules()).into_bytes();
        if let Ok(reader) = Reader::new(bytes.as_slice()) {
            prop_assert_eq!(reader.count(), 0, "these bytes are no trace");
        }
        text.extend(bytes);
        let read = Reader::new(text.as_slice()).unwrap().take(1000).count();
        prop_assert!(read <= 201);
    }
}

/// What is said of a text that cannot be read.
fn error(text: &str) -> String {
    match Reader::new(text.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(mut reader) => {
            let error = reader.by_ref().find_map(Result::err).expect("an error").to_string();
            assert!(reader.next().is_none(), "nothing comes after an error");
            error
        }
    }
}

#[test]
fn errors_name_line_column_what_was_found_and_what_was_expected() {
    let first = head(&example_rules());
    let lines = [
        "x",
        "-1 0.0.0 PREab 0",
        "012 0.0.0 PREab 0",
        "99999999999999999999 0.0.0 PREab 0",
        "5",
        "5 ",
        "5 0",
        "5 0.0",
        "5 0.0.70000 PREab 0",
        "5 0.0.0",
        "5 0.0.0 rd 0 0 0 0x1 0",
        "5 0.0.0 RD 0 0 0 0x1",
        "5 0.0.0 RD 0 0 0 0xfffffffff 0",
        "5 0.0.0 ACT 0 0 0 x",
        "5 0.0.0 ACT 256 0 0 0x1",
        "5 0.0.0 REFab 0 1",
        "5 0.0.0 REFsb 0",
        "5 0.0.0 PRE 0 1 2 # why",
        "# end soon",
        "# end 5\n6 0.0.0 REFab 0",
        "# rules: tCK=416ps",
    ];
    let mut shown: Vec<String> = lines.iter().map(|l| error(&(first.clone() + l + "\n"))).collect();
    let rules = example_rules().to_string();
    let version = first.lines().next().unwrap();
    let heads = [
        String::new(),
        "# tdxsim command trace 2\n".to_owned(),
        format!("{version}\n"),
        format!("{version}\n5 0.0.0 REFab 0\n"),
        format!("{version}\n# rules: {}\n", rules.replace("416ps", "416")),
        format!("{version}\n# rules: {}\n", rules.replace("CWL", "CVL")),
        format!("{version}\n# rules: {}\n", rules.replace("all-bank", "always")),
        format!("{version}\n# rules: {}\n", rules.replace("tRAS=77", "tRAS=77ns")),
        format!("{version}\n# rules: {}\n", rules.replace("tRAS=77 ", "")),
        format!("{version}\n# rules: {rules} tRAS=78\n"),
        format!("{version}\n# rules: {rules} refresh=off\n"),
        format!("{version}\n# rules: {}\n", rules.replace("ranks=2", "ranks=9")),
        format!("{version}\n# rules:{}\n", " ".repeat(LONGEST)),
    ];
    shown.extend(heads.iter().map(|h| error(h)));
    expect_test::expect![[r##"
        line 3, column 1: found "x", expected a clock, in decimal
        line 3, column 1: found "-1", expected a clock, in decimal
        line 3, column 1: found "012", expected a clock, in decimal, without leading zeros
        line 3, column 1: found "99999999999999999999", expected a clock, in decimal
        line 3, column 2: found the end of the line, expected the place after the clock
        line 3, column 3: found the end of the line, expected the place after the clock
        line 3, column 4: found the end of the line, expected "." and a channel
        line 3, column 6: found the end of the line, expected "." and a subchannel
        line 3, column 7: found "70000", expected a subchannel
        line 3, column 8: found the end of the line, expected the command after the place
        line 3, column 9: found "rd", expected one of ACT, PRE, PREab, RD, RDA, WR, WRA, REFab, REFsb
        line 3, column 21: found the end of the line, expected a column
        line 3, column 20: found "fffffffff", expected a row, like 0x1a2b
        line 3, column 19: found "x", expected a row, like 0x1a2b
        line 3, column 13: found "256", expected a rank, 0 to 255
        line 3, column 17: found "1", expected the end of the line
        line 3, column 16: found the end of the line, expected a bank
        line 3, column 19: found "# why", expected the end of the line
        line 3, column 7: found "soon", expected the clock of the end
        line 4, column 1: found "6", expected nothing after the end
        line 3, column 1: found "# rules: tCK=416ps", expected the rules only once, in line 2
        line 1, column 1: found the end of the line, expected the line "# tdxsim command trace 1"
        line 1, column 1: found "# tdxsim command trace 2", expected the line "# tdxsim command trace 1"
        line 2, column 1: found the end of the line, expected "# rules:" and the rules
        line 2, column 1: found "5", expected "# rules:" and the rules
        line 2, column 14: found "416", expected tCK of 1ps to 1000000ps
        line 2, column 26: found "CVL=38", expected KEY=VALUE with a key of the rules, like tRCD=39
        line 2, column 331: found "always", expected all-bank, same-bank or off
        line 2, column 60: found "77ns", expected tRAS of 0 to 16777216
        line 2, column 331: found the end of the line, expected tRAS=..., which is missing
        line 2, column 340: found "tRAS=78", expected every parameter only once
        line 2, column 340: found "refresh=off", expected every parameter only once
        line 2, column 238: found "9", expected ranks of 1 to 8
        line 2, column 4097: found a longer line, expected a line of at most 4096 bytes"##]].assert_eq(&shown.join("\n"));
}

#[test]
fn comments_empty_lines_and_a_last_line_without_an_end_are_read() {
    let text =
        head(&example_rules()) + "\n# a comment\n7 0.0.0 ACT 0 0 0 26\n\n8 0.0.0 ACT 0 0 0 0X1A";
    let mut reader = Reader::new(text.as_bytes()).unwrap();
    let rows: Vec<u32> = reader.by_ref().map(|r| r.unwrap().row).collect();
    assert_eq!((rows, reader.end(), reader.line()), (vec![26, 26], None, 8));
}

/// Endless lines of the same byte, then a failing disk.
struct Endless(u64);
impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0 += buf.len() as u64;
        if self.0 > 1 << 20 {
            return Err(io::Error::other("the disk is gone"));
        }
        buf.fill(b'7');
        Ok(buf.len())
    }
}

#[test]
fn a_line_that_never_ends_is_not_read_to_its_end_and_a_failing_disk_is_said() {
    let start = head(&example_rules());
    let mut reader = Reader::new(BufReader::new(start.as_bytes().chain(Endless(0)))).unwrap();
    let error = reader.next().unwrap().unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "line 3, column {}: found a longer line, expected a line of at most {LONGEST} bytes",
            LONGEST + 1
        )
    );
    let mut reader = Reader::new(BufReader::new(start.as_bytes().chain(Endless(1 << 20)))).unwrap();
    let error = reader.next().unwrap().unwrap_err();
    assert!(matches!(error, TraceError::Io { line: 3, .. }), "{error}");
}
