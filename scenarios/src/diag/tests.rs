use super::*;
use expect_test::expect;
use proptest::prelude::*;

fn from(bytes: &[u8]) -> String {
    match SourceFile::from_bytes("f.toml", bytes) {
        Ok(src) => format!("accepted: {} bytes, {} lines", src.text.len(), src.lines.len()),
        Err(diag) => diag.to_string(),
    }
}

#[test]
fn unusual_bytes_have_the_outcome_that_the_table_says() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a BOM alone", b"\xef\xbb\xbf".to_vec()),
        ("a BOM and text", b"\xef\xbb\xbfa = 1\n".to_vec()),
        ("a second BOM", b"\xef\xbb\xbf\xef\xbb\xbfa = 1\n".to_vec()),
        ("UTF-16", b"\xff\xfea\0 \0".to_vec()),
        ("CRLF", b"a = 1\r\nb = 2\r\n".to_vec()),
        ("a NUL in line 2", b"a = 1\n\xc3\xa9\0".to_vec()),
        ("a lone continuation byte", b"a = 1\nb = \"\x80\"\n".to_vec()),
        ("a cut-off character", b"a = \"\xc3".to_vec()),
        ("an overlong slash", b"\xc0\xaf".to_vec()),
        ("a surrogate", b"\xed\xa0\x80".to_vec()),
        ("a line of 1 MiB", vec![b'#'; 1 << 20]),
        ("a line of 1 MiB and 1", [b"\n".to_vec(), vec![b'#'; (1 << 20) + 1]].concat()),
        ("16 MiB in lines", b"# 345678901234\n\n".repeat((16 << 20) / 16)),
        ("16 MiB and 1", vec![b'\n'; (16 << 20) + 1]),
        ("199999 lines", b"\n".repeat(199_999)),
        ("200000 line ends", b"\n".repeat(200_000)),
        ("too many commas", b"a,".repeat(400_001)),
    ];
    let shown: Vec<String> =
        cases.iter().map(|(label, bytes)| format!("{label}: {}", from(bytes))).collect();
    expect![[r#"
        nothing: f.toml:1:1: found an empty file, expected TOML text
        a BOM alone: f.toml:1:1: found an empty file, expected TOML text
        a BOM and text: accepted: 6 bytes, 2 lines
        a second BOM: f.toml:1:1: found a second byte order mark, expected at most one
        UTF-16: f.toml:1:1: found byte 0xff, which is not UTF-8, expected UTF-8 text
        CRLF: accepted: 14 bytes, 3 lines
        a NUL in line 2: f.toml:2:2: found a NUL byte, expected text
        a lone continuation byte: f.toml:2:6: found byte 0x80, which is not UTF-8, expected UTF-8 text
        a cut-off character: f.toml:1:6: found byte 0xc3, which is not UTF-8, expected UTF-8 text
        an overlong slash: f.toml:1:1: found byte 0xc0, which is not UTF-8, expected UTF-8 text
        a surrogate: f.toml:1:1: found byte 0xed, which is not UTF-8, expected UTF-8 text
        a line of 1 MiB: accepted: 1048576 bytes, 1 lines
        a line of 1 MiB and 1: f.toml:2:1048578: found a line of 1048577 bytes, expected lines of at most 1 MiB
        16 MiB in lines: f.toml:200001:1: found one line too many, expected at most 200000 lines
        16 MiB and 1: f.toml:1:1: found more than 16 MiB, expected a file of at most 16 MiB
        199999 lines: accepted: 199999 bytes, 200000 lines
        200000 line ends: f.toml:200001:1: found one line too many, expected at most 200000 lines
        too many commas: f.toml:1:800002: found one list item too many, expected at most 400000 of `,` `[` `.`"#]].assert_eq(&shown.join("\n"));
}

#[test]
fn the_manual_lists_every_rule_about_bytes() {
    let text = bytes_rules_markdown();
    assert_eq!(text.lines().count(), BYTES_RULES.len() + 2);
    assert!(text.contains(&SourceFile::LINES_MAX.to_string()));
    assert!(text.contains(&SourceFile::ITEMS_MAX.to_string()));
    for (i, rule) in BYTES_RULES.iter().enumerate() {
        assert!(BYTES_RULES.iter().skip(i + 1).all(|other| other.input != rule.input));
        assert!(text.contains(rule.outcome));
    }
}

/// A reader that never ends and counts what was taken.
struct Endless(usize);
impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(b'\n');
        self.0 += buffer.len();
        Ok(buffer.len())
    }
}

#[test]
fn no_more_than_the_largest_file_is_read() {
    let mut endless = Endless(0);
    let diag = SourceFile::read_limited("/dev/zero", &mut endless).unwrap_err();
    assert_eq!(
        diag.to_string(),
        "/dev/zero:1:1: found more than 16 MiB, expected a file of at most 16 MiB"
    );
    assert!(endless.0 <= SourceFile::BYTES_MAX + 1, "{}", endless.0);
}

#[test]
fn a_file_that_cannot_be_read_is_a_message_and_not_a_panic() {
    let missing = SourceFile::open(Path::new("/no/such/file.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/file.toml:1:1: found a file that cannot be"));
    let directory = SourceFile::open(Path::new("/")).unwrap_err();
    assert!(directory.to_string().starts_with("/:1:1: found a file that cannot be"), "{directory}");
}

#[test]
fn a_file_reads_as_its_bytes() {
    let src = SourceFile::read_limited("x", &b"\xef\xbb\xbfa = 1\r\n"[..]).unwrap();
    assert_eq!(src, SourceFile::from_bytes("x", b"a = 1\r\n").unwrap());
    assert_eq!((src.name(), src.text()), ("x", "a = 1\r\n"));
}

#[test]
fn columns_count_characters_and_lines_count_from_one() {
    let src = SourceFile::from_bytes("x", "é§\tb\r\nc\n".as_bytes()).unwrap();
    assert_eq!(src.line_column(0), (1, 1));
    assert_eq!(src.line_column(2), (1, 2));
    // Within the second character.
    assert_eq!(src.line_column(3), (1, 2));
    assert_eq!(src.line_column(5), (1, 4));
    assert_eq!(src.line_column(8), (2, 1));
    assert_eq!(src.line_column(10), (3, 1));
    assert_eq!(src.line_column(usize::MAX), (3, 1));
}

#[test]
fn a_message_renders_with_its_line_and_a_mark() {
    let src = SourceFile::from_bytes("f.toml", "a = 1\n\tcé\x07pu = zwölf\r\n".as_bytes()).unwrap();
    let at = src.text().find("zw").unwrap();
    let diag = src.diag(at..at + 6, "`zwölf`", "a number").with_help("count\nup");
    expect![[r#"
        error: found `zwölf`, expected a number
         --> f.toml:2:10
          |
        2 |  cé�pu = zwölf
          |          ^^^^^
          = help: count�up
    "#]]
    .assert_eq(&diag.render());
    assert_eq!(diag.to_string(), "f.toml:2:10: found `zwölf`, expected a number");
}

#[test]
fn a_mark_stays_within_its_line_and_a_long_line_is_cut() {
    let text = format!("{}x = 1{}\nnext\n", "a".repeat(5000), "b".repeat(5000));
    let src = SourceFile::from_bytes("f", text.as_bytes()).unwrap();
    let diag = src.diag(5000..text.len(), "x", "y");
    assert_eq!((diag.excerpt.start, diag.excerpt.len), (60, 100));
    assert_eq!(diag.excerpt.text.len(), 160);
    let end = src.diag(text.len()..text.len() + 5, "x", "y");
    assert_eq!((end.line, end.column, end.excerpt.text.as_str()), (3, 1, ""));
    assert!(end.render().ends_with("| ^\n"));
}

#[test]
fn hostile_names_and_words_stay_on_one_line() {
    let src = SourceFile::unchecked("a\nb\u{1b}[2J", "text");
    let diag = src.diag(0..4, "x\ny", "z\rw\u{0}").with_help("h\ni");
    let line = diag.to_string();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let help = diag.help.clone().unwrap();
    assert!(!help.chars().any(char::is_control));
}

#[test]
fn a_message_survives_serialisation() {
    let diag = SourceFile::unchecked("a", "text").diag(1..2, "x", "y").with_help("z");
    let json = serde_json::to_string(&diag).unwrap();
    assert_eq!(serde_json::from_str::<Diag>(&json).unwrap(), diag);
}

#[test]
fn the_nearest_word_is_within_two_edits_or_none() {
    let words = ["cpu.cores", "cpu.packages", "op"];
    assert_eq!(nearest("cpu.core", words), Some("cpu.cores"));
    assert_eq!(nearest("cpu.croes", words), Some("cpu.cores"));
    assert_eq!(nearest("cpu.c", words), None);
    // Two edits make any two letters into any other two: that is no hint.
    assert_eq!(nearest("xy", words), None);
    assert_eq!(nearest(&"c".repeat(10_000), words), None);
}

/// The distance by its recursive definition.
fn slow_edits(a: &[u8], b: &[u8]) -> usize {
    match (a, b) {
        ([], rest) | (rest, []) => rest.len(),
        ([x, a_rest @ ..], [y, b_rest @ ..]) => {
            let substitute = slow_edits(a_rest, b_rest) + usize::from(x != y);
            substitute.min(slow_edits(a_rest, b) + 1).min(slow_edits(a, b_rest) + 1)
        }
    }
}

proptest! {
    #[test]
    fn edits_are_counted_as_defined(a in "[ab]{0,5}", b in "[abc]{0,5}") {
        prop_assert_eq!(edits(a.as_bytes(), b.as_bytes()), slow_edits(a.as_bytes(), b.as_bytes()));
    }

    #[test]
    fn any_bytes_and_any_span_give_a_place_inside_the_file(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), start: usize, len in 0usize..300,
    ) {
        if let Ok(src) = SourceFile::from_bytes("x", &bytes) {
            for start in [start, start % 256] {
                let diag = src.diag(start..start.saturating_add(len), "x", "y");
                prop_assert!(diag.line >= 1 && diag.line as usize <= src.lines.len());
                let excerpt = &diag.excerpt;
                prop_assert!(excerpt.text.get(excerpt.start..excerpt.start + excerpt.len).is_some());
                prop_assert!(!diag.render().is_empty());
            }
        }
    }

    #[test]
    fn a_place_and_its_line_and_column_say_the_same(text in "[a-zé\\n]{1,60}", at in 0usize..60) {
        let src = SourceFile::from_bytes("x", text.as_bytes()).unwrap();
        let at = text.floor_char_boundary(at.min(text.len()));
        let (line, column) = src.line_column(at);
        let before = &text[..at];
        prop_assert_eq!(line as usize, before.matches('\n').count() + 1);
        let last = before.rsplit('\n').next().unwrap_or("");
        prop_assert_eq!(column as usize, last.chars().count() + 1);
    }
}
