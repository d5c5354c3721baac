use super::parse::{agent_by_name, may};
use super::*;
use crate::platform::{PRESETS, load};
use expect_test::expect;
use proptest::prelude::*;
use sim_core::event::BirthId;
use sim_core::mca::{
    McAccess, McConsequence, McContext, McRecord, McStatus, McgStatus, StatusParts,
};
use sim_core::op::{Base, MNEMONICS, RegBase, RegExpr};
use sim_core::outcome::{
    CallResult, DataClass, GpReason, Loaded, NotRun, PconfigStatus, low_half, short_status,
};
use sim_core::tdx::{ExitReason, Operand, STATUSES, Status};
use sim_core::{Addr, Hpa, KeyId, LineData, Op, Outcome, PlatformSpec};
use std::num::NonZeroU32;

const GOOD: &str = r#"# A scenario that uses everything.
[scenario]
name = "partial-write"
title = "A partial write poisons a TD's line"
cite = ["architecture.md §5.5", "verification.md R1"]
platform = ["spr", "gnr"]
integrity = ["ci", "li"]
order = "concurrent"
crypto = ["symbolic", "real"]
set = { "cpu.rfo_poison_mc" = "true", "cpu.cores" = "3" }
program = '''
  seam0 : store [P0@priv1] 64 fill=0x11   # the TD's line
  seam0 : clflush [P0@priv1]
  # a comment

  barrier
  cpu0  : movnti [P0+0x8] 8
  cpu1  : load [P0] 64
  td0   : load [P0] 8
  dma3  : dma-write [0x20000000] 64
  hw    : evict [P0@priv1]
  cpu1  : pconfig shared0 set-random
'''

[regions]
P0 = { base = "0x10000000", size = "4KiB" }
P1 = { base = "0x10001000", size = "4KiB" }

[agents]
td0 = { kind = "td", core = 1, keyid = "priv1" }
dma3 = { kind = "device", keyid = "shared2" }

[expect]
"cpu1.1" = "mc srar data-load"
"td0.1" = "mc | not-run killed"
final = ["poisoned P0", "not cached P0@priv1", "reads P0@priv1 poison", "births 1"]

[forbid]
"cpu1.1" = "data"

[[when]]
platform = "gnr"
[when.expect]
"cpu1.1" = "zeros"
final = ["not poisoned P0"]

[[when]]
integrity = "li"
crypto = "real"
[when.forbid]
"td0.1" = "data 0x1111"
"#;

pub(super) fn spr() -> PlatformSpec {
    load(&Origin::Preset("spr".into()), &[]).unwrap().spec
}

pub(super) fn parse(text: &str) -> Result<Scenario, Diag> {
    Scenario::from_text("s.toml", text)
}

/// A small scenario around a program.
fn around(program: &str) -> String {
    format!(
        "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = '''\n{program}\n'''\n\
         [regions]\nP0 = {{ base = \"0x10000\", size = \"4KiB\" }}\n\
         [agents]\ntd0 = {{ kind = \"td\", core = 1, keyid = \"priv1\" }}\n\
         [expect]\nfinal = [\"births 0\"]\n"
    )
}

fn bind(text: &str) -> Result<Program, Diag> {
    parse(text)?.bind(&spr())
}

// --------------------------------------------------------------------------------------------------------- good scenarios

#[test]
fn a_scenario_that_uses_everything_is_read_as_it_is_written() {
    let s = parse(GOOD).unwrap();
    assert_eq!((s.name.as_str(), s.order), ("partial-write", Order::Concurrent));
    assert_eq!(s.platforms, ["spr", "gnr"]);
    assert_eq!(s.integrity, [IntegrityMode::Ci, IntegrityMode::Li]);
    assert_eq!(s.crypto, [Crypto::Symbolic, Crypto::Real]);
    assert_eq!(s.program.len(), 9);
    assert_eq!(
        s.regions[1],
        Region {
            name: "P1".into(),
            space: Space::Host,
            base: 0x1000_1000,
            size: 4096,
            at: Place::default()
        }
    );
    assert_eq!((s.agents[0].kind, s.agents[0].core), (AgentKind::Td, Some(1)));
    assert_eq!(s.checks.expect.len(), 2);
    assert_eq!(s.checks.finals.len(), 4);
    assert_eq!(s.refinements.len(), 2);
}

#[test]
fn a_bound_program_has_addresses_keyids_and_places() {
    let s = parse(GOOD).unwrap();
    let case = &s.cases()[0];
    let platform = s.platform(case, &[]).unwrap();
    assert_eq!((platform.spec.cpu.cores, platform.spec.cpu.rfo_poison_mc), (3, true));
    let program = s.bind_with(&platform.spec, case.crypto).unwrap();
    let names: Vec<_> = program.agents.iter().map(|a| (a.name.as_str(), a.kind, a.core)).collect();
    assert_eq!(
        names,
        [
            ("td0", AgentKind::Td, Some(1)),
            ("dma3", AgentKind::Device, None),
            ("seam0", AgentKind::Seam, Some(0)),
            ("cpu0", AgentKind::Kernel, Some(0)),
            ("cpu1", AgentKind::Kernel, Some(1)),
            ("hw", AgentKind::Hardware, None),
        ]
    );
    let steps: Vec<String> = program
        .lines
        .iter()
        .map(|line| match line {
            ProgramLine::Barrier => "barrier".to_owned(),
            ProgramLine::Step(s) => {
                format!(
                    "{}:{} {}.{} {}",
                    s.line, s.column, program.agents[s.agent].name, s.index, s.op
                )
            }
        })
        .collect();
    expect![[r#"
        12:11 seam0.1 store [0x10000000@65] 64 fill=0x11
        13:11 seam0.2 clflush [0x10000000@65]
        barrier
        17:11 cpu0.1 movnti [0x10000008@0] 8
        18:11 cpu1.1 load [0x10000000@0] 64
        19:11 td0.1 load [0x10000000@65] 8
        20:11 dma3.1 dma-write [0x20000000@3] 64
        21:11 hw.1 evict [0x10000000@65]
        22:11 cpu1.2 pconfig 1 set-random"#]]
    .assert_eq(&steps.join("\n"));
    let finals: Vec<String> = program
        .finals
        .iter()
        .map(|f| format!("{}:{} {} = {}", f.line, f.column, f.text, f.check))
        .collect();
    expect![[r#"
        36:10 poisoned P0 = poisoned 0x10000000
        36:25 not cached P0@priv1 = not cached 0x10000000@65
        36:48 reads P0@priv1 poison = reads 0x10000000@65 poison
        36:73 births 1 = births 1"#]]
    .assert_eq(&finals.join("\n"));
    let expected: Vec<String> = program
        .expectations
        .iter()
        .map(|e| {
            let what = if e.forbidden { "not " } else { "" };
            let name = &program.agents[e.agent].name;
            format!("{}:{} {name}.{} {what}{}", e.line, e.column, e.index, e.pattern)
        })
        .collect();
    expect![[r#"
        34:12 cpu1.1 mc srar data-load
        35:11 td0.1 mc | not-run killed
        39:12 cpu1.1 not data"#]]
    .assert_eq(&expected.join("\n"));
    let json = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<Program>(&json).unwrap(), program);
}

#[test]
fn the_matrix_has_every_combination_once_and_in_order() {
    let s = parse(GOOD).unwrap();
    let shown: Vec<String> = s.cases().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "spr ci",
            "spr ci real",
            "spr li",
            "spr li real",
            "gnr ci",
            "gnr ci real",
            "gnr li",
            "gnr li real",
        ]
    );
    let modes: Vec<_> =
        s.cases().iter().map(|c| s.platform(c, &[]).unwrap().spec.memory.integrity).collect();
    assert_eq!(modes.iter().filter(|m| **m == IntegrityMode::Li).count(), 4);
    let plain = parse(&around("cpu0 : mfence")).unwrap();
    assert_eq!(
        plain.cases(),
        [Case { platform: "spr".into(), integrity: None, crypto: Crypto::Symbolic }]
    );
}

fn part(platform: &str, integrity: IntegrityMode, crypto: Crypto) -> Part<'_> {
    Part { platform, integrity, crypto, erratum: platform != "gnr" }
}

#[test]
fn a_refinement_may_depend_on_the_erratum_alone() {
    let text = around("cpu0 : mfence")
        + "\n[[when]]\nerratum = false\n[when.expect]\n\"cpu0.1\" = \"not-run\"\n";
    let text = text.replacen("[expect]\n", "[expect]\n\"cpu0.1\" = \"done\"\n", 1);
    let s = parse(&text).unwrap();
    assert_eq!(s.refinements[0].erratum, Some(false));
    let step = StepRef { agent: "cpu0".into(), index: 1 };
    let of = |platform| {
        let part = part(platform, IntegrityMode::Ci, Crypto::Symbolic);
        s.checks_for(&part).expect[&step].value.to_string()
    };
    assert_eq!((of("spr").as_str(), of("gnr").as_str()), ("done", "not-run"));
    assert_eq!(parse(&s.to_text()).unwrap(), s);
    let error = parse(&text.replace("erratum = false", "erratum = \"no\"")).unwrap_err();
    assert_eq!(error.expected, "true or false");
}

#[test]
fn refinements_replace_entries_of_the_same_key_and_the_list_of_final_checks() {
    let s = parse(GOOD).unwrap();
    let cpu1 = StepRef { agent: "cpu1".into(), index: 1 };
    let td0 = StepRef { agent: "td0".into(), index: 1 };
    let spr = s.checks_for(&part("spr", IntegrityMode::Ci, Crypto::Symbolic));
    assert_eq!(spr, s.checks);
    let gnr = s.checks_for(&part("gnr", IntegrityMode::Ci, Crypto::Symbolic));
    assert_eq!(gnr.expect[&cpu1].value.to_string(), "zeros");
    assert_eq!(gnr.expect[&td0], s.checks.expect[&td0]);
    assert_eq!(gnr.forbid, s.checks.forbid);
    assert_eq!(gnr.finals.len(), 1);
    assert!(!gnr.forbid.contains_key(&td0));
    let li = s.checks_for(&part("gnr", IntegrityMode::Li, Crypto::Real));
    assert_eq!(li.forbid[&td0].value.to_string(), "data 0x1111");
    assert!(
        !s.checks_for(&part("gnr", IntegrityMode::Li, Crypto::Symbolic)).forbid.contains_key(&td0)
    );
}

#[test]
fn overrides_of_the_command_line_win_over_those_of_the_scenario() {
    let s = parse(GOOD).unwrap();
    let case = &s.cases()[2];
    let extra = [Override::set("cpu.cores", "8"), Override::set("memory.integrity", "ci")];
    let spec = s.platform(case, &extra).unwrap().spec;
    assert_eq!((spec.cpu.cores, spec.memory.integrity), (8, IntegrityMode::Ci));
}

#[test]
fn an_override_that_does_not_fit_the_platform_is_found_in_the_scenario() {
    let text = around("cpu0 : mfence")
        .replace("program =", "set = { \"dram.channels\" = \"3\" }\nprogram =");
    let s = parse(&text).unwrap();
    assert_eq!(
        s.platform(&s.cases()[0], &[]).unwrap_err().to_string(),
        "s.toml:6:27: found `dram.channels` = 3, expected a power of two from 1 to 16"
    );
}

#[test]
fn a_private_keyid_outside_seam_is_left_to_the_run() {
    // architecture.md §2.5: the fault is architectural.
    let program = bind(&around("cpu0 : load [P0@priv0] 8\ndma0 : dma-read [P0@127] 64")).unwrap();
    assert_eq!(program.lines.len(), 2);
}

#[test]
fn quotes_and_line_ends_move_no_place() {
    let want = bind(&around("  cpu0 : load [P0] 8\n\tcpu1 : mfence # now")).unwrap();
    let basic = around("  cpu0 : load [P0] 8\n\tcpu1 : mfence # now").replace("'''", "\"\"\"");
    assert_eq!(bind(&basic).unwrap(), want);
    assert_eq!(bind(&basic.replace('\n', "\r\n")).unwrap(), want);
    assert_eq!(bind(&format!("\u{feff}{basic}")).unwrap(), want);
    // The first line on the line of the quotes, and a program of one line.
    let tight = around("x").replace("'''\nx\n'''", "'''cpu0 : load [P0] 8'''");
    let single = around("x").replace("'''\nx\n'''", "\"cpu0 : load [P0] 8\"");
    for (text, column) in [(tight, 21), (single, 19)] {
        let program = bind(&text).unwrap();
        let ProgramLine::Step(step) = &program.lines[0] else { panic!("{program:?}") };
        assert_eq!((step.line, step.column), (6, column));
    }
}

#[test]
fn a_comment_ends_a_line_wherever_it_begins() {
    let a = parse(&around("cpu0 : mfence#x\n#cpu9 : nothing\n   # : \ncpu0:sfence\nbarrier # now"));
    let b = parse(&around("cpu0 : mfence\ncpu0 : sfence\nbarrier"));
    assert_eq!(a.unwrap(), b.unwrap());
}

// -------------------------------------------------------------------------------------------------------------- bad input

fn shown(label: &str, result: Result<(), Diag>) -> String {
    match result {
        Ok(()) => format!("{label}\n    accepted\n"),
        Err(diag) => format!("{label}\n    {diag}\n"),
    }
}

/// The scenario with one piece replaced; the piece must be there.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn what_is_wrong_with_a_scenario_is_said_at_its_place() {
    let many = |n: usize| "cpu0 : mfence\n".repeat(n);
    let cases: Vec<(&str, String)> = vec![
        ("nothing but a comment", "# nothing\n".into()),
        ("TOML that is none", "[scenario\n".into()),
        ("trailing bytes", format!("{GOOD}trailing")),
        ("an unknown table", format!("{GOOD}[demand]\n\"cpu1.1\" = \"data\"\n")),
        ("an unknown key", with("order =", "ordre =")),
        ("a duplicate key", with("order =", "name = \"again\"\norder =")),
        ("a duplicate table", format!("{GOOD}[regions]\n")),
        ("a duplicate region", with("P1 = {", "P0 = {")),
        ("a duplicate step", with("\"td0.1\" = \"mc", "\"cpu1.1\" = \"mc")),
        ("no name", with("name = \"partial-write\"\n", "")),
        ("an empty name", with("\"partial-write\"", "\"\"")),
        ("a name in capitals", with("\"partial-write\"", "\"Partial\"")),
        ("a name of 41", with("\"partial-write\"", &format!("{:?}", "a".repeat(41)))),
        ("a name of 40", with("\"partial-write\"", &format!("{:?}", "a".repeat(40)))),
        ("a name that is a number", with("\"partial-write\"", "7")),
        ("a title of two lines", with("\"A partial", "\"A\\npartial")),
        ("an empty title", with("title = \"A partial write poisons a TD's line\"", "title = \" \"")),
        ("no cite", with("cite = [\"architecture.md §5.5\", \"verification.md R1\"]\n", "")),
        ("an empty cite", with("[\"architecture.md §5.5\", \"verification.md R1\"]", "[]")),
        ("a cite that is no list", with("[\"architecture.md §5.5\", \"verification.md R1\"]", "\"x\"")),
        ("a cite with a number", with("\"verification.md R1\"]", "7]")),
        ("no platform", with("platform = [\"spr\", \"gnr\"]\n", "")),
        ("an unknown platform", with("[\"spr\", \"gnr\"]", "\"icx\"")),
        ("no platform in the list", with("[\"spr\", \"gnr\"]", "[]")),
        ("a platform twice", with("[\"spr\", \"gnr\"]", "[\"spr\", \"spr\"]")),
        ("an unknown integrity mode", with("[\"ci\", \"li\"]", "\"none\"")),
        ("an unknown order", with("\"concurrent\"", "\"random\"")),
        ("an unknown cryptography", with("[\"symbolic\", \"real\"]", "true")),
        ("set of an unknown parameter", with("\"cpu.cores\" =", "\"cpu.coers\" =")),
        ("set of a bad value", with("\"true\"", "\"yes\"")),
        ("set of a number", with("\"cpu.cores\" = \"3\"", "\"cpu.cores\" = 3")),
        ("set without quotes", with("\"cpu.cores\" = \"3\"", "cpu.cores = \"3\"")),
        ("set of the integrity mode", with("\"cpu.cores\" = \"3\"", "\"memory.integrity\" = \"li\"")),
        ("no program", with("program =", "# program =")),
        ("an empty program", around("# nothing\nbarrier")),
        ("a program that is a list", with("program = '''", "program = ['''").replacen("\n'''\n", "\n''']\n", 1)),
        ("an escape in the program", around("x").replace("'''\nx\n'''", "\"cpu0 : mfence\\ncpu0 : sfence\"")),
        ("a program of 100000", around(&many(100_000))),
        ("a program of 100001", around(&many(100_001))),
        ("a line without colon", around("cpu0 load [P0] 8")),
        ("a line without agent", around(" : load [P0] 8")),
        ("a line without operation", around("cpu0 : ")),
        ("barrier with an operand", around("barrier now")),
        ("an unknown agent", around("gpu0 : mfence")),
        ("an undeclared TD", around("td1 : mfence")),
        ("an agent with a leading zero", around("cpu00 : mfence")),
        ("an agent with a sign", around("cpu+1 : mfence")),
        ("an agent beyond 16 bits", around("cpu65536 : mfence")),
        ("an unknown operation", around("  cpu0 : movnt [P0] 8")),
        ("a bad operand", around("cpu0 : load [P0] 65")),
        ("an address beyond 64 bits", around("cpu0 : load [0x1ffffffffffffffff] 8")),
        ("a negative address", around("cpu0 : load [-1] 8")),
        ("a KeyID beyond 32 bits", around("cpu0 : load [P0@4294967296] 8")),
        ("trailing words", around("cpu0 : mfence now")),
        ("a line of 2000", around(&format!("cpu0 : mfence {}", "x".repeat(2000)))),
        ("an operation of another kind", around("cpu0 : evict [P0]")),
        ("a device that loads", around("dma0 : load [P0] 8")),
        ("hardware that fences", around("hw : mfence")),
        ("a core that does DMA", around("user0 : dma-read [P0] 8")),
        ("an unknown region", around("cpu0 : load [P9] 8")),
        ("an offset at the end", around("cpu0 : load [P0+0x1000] 1")),
        ("an access across the end", around("cpu0 : movdir64b [P0] [P0+0xfc8]")),
        ("an offset of 64 bits", around("cpu0 : load [P0+0xffffffffffffffff] 1")),
        ("a page across the end", around("cpu0 : movdir64b.page [P0+0x40]")),
        ("a region without base", with("{ base = \"0x10000000\", size", "{ size")),
        ("a region without size", with(", size = \"4KiB\" }\nP1", " }\nP1")),
        ("a region with another key", with("size = \"4KiB\" }\nP1", "len = \"4KiB\" }\nP1")),
        ("a base that is an integer", with("\"0x10000000\"", "0x10000000")),
        ("a base that is decimal", with("\"0x10000000\"", "\"268435456\"")),
        ("a base that is negative", with("\"0x10000000\"", "\"-0x40\"")),
        ("a base with a sign", with("\"0x10000000\"", "\"0x+40\"")),
        ("a base of 68 bits", with("\"0x10000000\"", "\"0x1ffffffffffffffff\"")),
        ("a base that is not aligned", with("\"0x10000000\"", "\"0x10000020\"")),
        ("a size of zero", with("\"4KiB\" }\nP1", "\"0B\" }\nP1")),
        ("a size without unit", with("\"4KiB\" }\nP1", "\"4096\" }\nP1")),
        ("a size that is an integer", with("\"4KiB\" }\nP1", "4096 }\nP1")),
        ("a size that is not whole", with("\"4KiB\" }\nP1", "\"0.3B\" }\nP1")),
        ("a region that wraps", with("\"0x10000000\", size = \"4KiB\"", "\"0xffffffffffffffc0\", size = \"64B\"")),
        ("overlapping regions", with("base = \"0x10001000\"", "base = \"0x10000fc0\"")),
        ("overlapping regions, lower second", with("base = \"0x10001000\"", "base = \"0x0ffff040\"")),
        ("equal regions", with("base = \"0x10001000\"", "base = \"0x10000000\"")),
        ("a bad region name", with("P1 = {", "\"P-1\" = {")),
        ("a region name of 33", with("P1 = {", &format!("{} = {{", "P".repeat(33)))),
        ("an agent of no kind", with("kind = \"td\", ", "")),
        ("an agent of an unknown kind", with("kind = \"td\"", "kind = \"vm\"")),
        ("an agent without core", with("core = 1, ", "")),
        ("a core of 128", with("core = 1", "core = 128")),
        ("a negative core", with("core = 1", "core = -1")),
        ("a core as text", with("core = 1", "core = \"1\"")),
        ("a device with a core", with("kind = \"device\"", "kind = \"device\", core = 1")),
        ("a TD without KeyID", with(", keyid = \"priv1\"", "")),
        ("a KeyID as integer", with("keyid = \"priv1\"", "keyid = 65")),
        ("a KeyID of two words", with("keyid = \"priv1\"", "keyid = \"1 set-random\"")),
        ("a KeyID of none", with("keyid = \"priv1\"", "keyid = \"\"")),
        ("a name that says another kind", with("td0 = {", "cpu2 = {")),
        ("a name that says another core", with("td0 = { kind = \"td\"", "cpu2 = { kind = \"kernel\"")),
        ("a bad agent name", with("dma3 = {", "\"dma 3\" = {")),
        ("an expectation of no agent", with("\"cpu1.1\" = \"mc", "\"cpu9.1\" = \"mc")),
        ("an expectation of no step", with("\"cpu1.1\" = \"mc", "\"cpu1.3\" = \"mc")),
        ("an expectation of step 0", with("\"cpu1.1\" = \"mc", "\"cpu1.0\" = \"mc")),
        ("an expectation of step 01", with("\"cpu1.1\" = \"mc", "\"cpu1.01\" = \"mc")),
        ("an expectation without index", with("\"cpu1.1\" = \"mc", "\"cpu1\" = \"mc")),
        ("an expectation without quotes", with("\"cpu1.1\" = \"mc", "cpu1.1 = \"mc")),
        ("an outcome that is a number", with("\"mc srar data-load\"", "1")),
        ("an unknown outcome", with("\"mc srar data-load\"", "\"mce\"")),
        ("an unknown outcome word", with("\"mc srar data-load\"", "\"mc srar load\"")),
        ("an unknown outcome after escapes", with("\"mc srar data-load\"", "\"mc\\u0020srar load\"")),
        ("an outcome word too many", with("\"mc srar data-load\"", "\"zeros 0x0\"")),
        ("an empty outcome", with("\"mc srar data-load\"", "\"\"")),
        ("an empty alternative", with("\"mc srar data-load\"", "\"mc |  | data\"")),
        ("a value of 65 bits", with("\"mc srar data-load\"", "\"data 0x10000000000000000\"")),
        ("a fill of 9 bits", with("\"mc srar data-load\"", "\"data fill=256\"")),
        ("a final check that is text", with("final = [\"poisoned P0\", ", "final = \"poisoned P0\"\nx = [")),
        ("an unknown final check", with("\"poisoned P0\"", "\"clean P0\"")),
        ("an empty final check", with("\"poisoned P0\"", "\"\"")),
        ("a not that is not", with("\"births 1\"", "\"not births 1\"")),
        ("a count that is negative", with("\"births 1\"", "\"births -1\"")),
        ("a count without number", with("\"births 1\"", "\"births\"")),
        ("a hexadecimal count", with("\"births 1\"", "\"births 0x1\"")),
        ("a final check with a tail", with("\"births 1\"", "\"births 1 2\"")),
        ("poisoned under a KeyID", with("\"poisoned P0\"", "\"poisoned P0@priv1\"")),
        ("cached without KeyID", with("\"not cached P0@priv1\"", "\"not cached P0\"")),
        ("writer without KeyID", with("\"births 1\"", "\"writer P0\"")),
        ("reads a machine check", with("\"reads P0@priv1 poison\"", "\"reads P0@priv1 mc\"")),
        ("reads nothing", with("\"reads P0@priv1 poison\"", "\"reads P0@priv1\"")),
        ("a final check beyond its region", with("\"poisoned P0\"", "\"poisoned P0+0x1000\"")),
        ("a final check in brackets", with("\"poisoned P0\"", "\"poisoned [P0]\"")),
        ("a refined check of no region", with("\"not poisoned P0\"", "\"not poisoned P7\"")),
        ("expect as a list", with("[expect]", "[[expect]]")),
        ("when as a table", with("[[when]]\nplatform", "[when]\nplatform").replace("[[when]]\nintegrity = \"li\"\ncrypto = \"real\"\n", "")),
        ("when on another platform", with("[[when]]\nplatform = \"gnr\"", "[[when]]\nplatform = \"emr\"")),
        ("when without condition", with("[[when]]\nplatform = \"gnr\"\n", "[[when]]\n")),
        ("when without entries", with("[when.forbid]\n\"td0.1\" = \"data 0x1111\"\n", "")),
        ("when with an unknown key", with("[[when]]\nplatform", "[[when]]\nfinal = []\nplatform")),
        ("nothing expected", around("cpu0 : mfence").replace("[expect]\nfinal = [\"births 0\"]\n", "")),
        ("an empty table of expectations", around("cpu0 : mfence").replace("final = [\"births 0\"]\n", "")),
        ("nothing expected in a part of the matrix", around("cpu0 : mfence") + "[[when]]\nintegrity = \"li\"\n[when.expect]\nfinal = []\n"),
        ("a carriage return in the program", around("cpu0 : mfence\rcpu0 : mfence")),
        ("an escape character in the program", around("cpu0 : mfence\u{1b}[2J")),
        ("a foreign space", around("cpu0 :\u{a0}mfence")),
        ("a regions table that is text", with("[regions]\nP0 = { base = \"0x10000000\", size = \"4KiB\" }\nP1 = { base = \"0x10001000\", size = \"4KiB\" }\n", "").replacen("[scenario]", "regions = \"none\"\n[scenario]", 1)),
    ];
    let mut out = String::new();
    for (label, text) in cases {
        out += &shown(label, parse(&text).map(|_| ()));
    }
    expect![[r#"
        nothing but a comment
            s.toml:1:1: found a file without `scenario`, expected a table [scenario]
        TOML that is none
            s.toml:1:10: found unclosed table, expected `]`
        trailing bytes
            s.toml:52:9: found key with no value, expected `=`
        an unknown table
            s.toml:52:2: found unknown key `demand`, expected one of the keys scenario, regions, agents, tdx, td, expect, forbid, allow, when
        an unknown key
            s.toml:8:1: found unknown key `ordre`, expected a known key: did you mean `order`?
        a duplicate key
            s.toml:8:1: found `name` a second time, expected each key once
        a duplicate table
            s.toml:52:2: found `regions` a second time, expected each key once
        a duplicate region
            s.toml:27:1: found `P0` a second time, expected each key once
        a duplicate step
            s.toml:35:1: found `"cpu1.1"` a second time, expected each key once
        no name
            s.toml:2:1: found a table without `name`, expected `name = "short-name"`
        an empty name
            s.toml:3:8: found ``, expected a name of a-z, 0-9 and -, 1 to 40 of them
        a name in capitals
            s.toml:3:8: found `Partial`, expected a name of a-z, 0-9 and -, 1 to 40 of them
        a name of 41
            s.toml:3:8: found `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…`, expected a name of a-z, 0-9 and -, 1 to 40 of them
        a name of 40
            accepted
        a name that is a number
            s.toml:3:8: found integer `7`, expected a name of a-z, 0-9 and -, 1 to 40 of them
        a title of two lines
            s.toml:4:9: found `A�partial write poisons a TD's line`, expected text of one line, 1 to 200 bytes
        an empty title
            s.toml:4:9: found ` `, expected text of one line, 1 to 200 bytes
        no cite
            s.toml:2:1: found a table without `cite`, expected `cite = ["architecture.md §5.5"]`
        an empty cite
            s.toml:5:8: found an empty list, expected at least one citation
        a cite that is no list
            s.toml:5:8: found text `x`, expected a list of text: where the expectations come from
        a cite with a number
            s.toml:5:33: found integer `7`, expected a list of text: where the expectations come from
        no platform
            s.toml:2:1: found a table without `platform`, expected `platform = "spr"`
        an unknown platform
            s.toml:6:12: found `icx`, expected one of the platforms spr, emr, gnr
        no platform in the list
            s.toml:6:12: found an empty list, expected one of the platforms spr, emr, gnr
        a platform twice
            s.toml:6:20: found `spr`, expected each word once
        an unknown integrity mode
            s.toml:7:13: found `none`, expected one or both of ci, li
        an unknown order
            s.toml:8:9: found `random`, expected one of program, concurrent
        an unknown cryptography
            s.toml:9:10: found boolean `true`, expected one or both of symbolic, real
        set of an unknown parameter
            s.toml:10:39: found unknown parameter `cpu.coers`, expected a parameter: did you mean `cpu.cores`?
        set of a bad value
            s.toml:10:31: found `yes`, expected true or false
        set of a number
            s.toml:10:53: found integer `3`, expected text such as "true" or "4.4ns"
        set without quotes
            s.toml:10:39: found a table, expected text such as "true" or "4.4ns"
        set of the integrity mode
            s.toml:10:39: found `memory.integrity`, expected another parameter
        no program
            s.toml:12:9: found key with no value, expected `=`
        an empty program
            s.toml:6:11: found a program without operations, expected lines such as `cpu0 : load [P0] 8`
        a program that is a list
            s.toml:11:11: found a list, expected text: one operation per line
        an escape in the program
            s.toml:6:25: found an escape in the program, expected plain text
        a program of 100000
            accepted
        a program of 100001
            s.toml:100007:1: found one operation too many, expected at most 100000 operations
        a line without colon
            s.toml:7:1: found `cpu0 load [P0] 8`, expected `agent : operation`, `barrier` or `# comment`
        a line without agent
            s.toml:7:2: found ``, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        a line without operation
            s.toml:7:7: found the end of the line, expected an operation: load, load.uc, load.wc, fetch, prefetch, store, store.uc, store.wc, movnti, movntdq, movdiri, movdir64b, movdir64b.page, rep-stosb, lock-xadd, clflush, clflushopt, clwb, wbinvd, wbnoinvd, wbinvdp, wbnoinvdp, mfence, sfence, lfence, interrupt, delay, pconfig, dma-read, dma-write, evict, wc-evict, write-back, drain, flip-bit, flip-td, move-line, save-line, replay-line, inject-ue, tdh.LEAF, seamcall, tdg.LEAF, tdcall, irq, wrmsr, starve, mov-cr3, seamldr.install, invlpg
        barrier with an operand
            s.toml:7:1: found `barrier now`, expected `agent : operation`, `barrier` or `# comment`
        an unknown agent
            s.toml:7:1: found `gpu0`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        an undeclared TD
            s.toml:7:1: found `td1`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        an agent with a leading zero
            s.toml:7:1: found `cpu00`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        an agent with a sign
            s.toml:7:1: found `cpu+1`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        an agent beyond 16 bits
            s.toml:7:1: found `cpu65536`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
        an unknown operation
            s.toml:7:10: found `movnt`, expected an operation: did you mean `movnti`?
        a bad operand
            s.toml:7:18: found `65`, expected a number of bytes, 1 to 64
        an address beyond 64 bits
            s.toml:7:14: found `0x1ffffffffffffffff]`, expected an address such as [0x1000], [P0+0x8] or [P0@priv1] (at most 64 bits)
        a negative address
            s.toml:7:14: found `-1]`, expected an address such as [0x1000], [P0+0x8] or [P0@priv1] (at most 64 bits)
        a KeyID beyond 32 bits
            s.toml:7:17: found `4294967296]`, expected a KeyID: a number, privN or sharedN
        trailing words
            s.toml:7:15: found `now`, expected the end of the line
        a line of 2000
            s.toml:7:8: found `mfence`, expected a line of at most 1024 bytes
        an operation of another kind
            s.toml:7:8: found `evict` by `cpu0` (kernel), expected the agent `hw` for this operation
        a device that loads
            s.toml:7:8: found `load` by `dma0` (device), expected dma-read, dma-write or delay
        hardware that fences
            s.toml:7:6: found `mfence` by `hw` (hw), expected a choice of the hardware, a fault, an attack, irq or delay
        a core that does DMA
            s.toml:7:9: found `dma-read` by `user0` (user), expected an agent `dmaN` for this operation
        an unknown region
            s.toml:7:13: found unknown region `P9`, expected a region: P0
        an offset at the end
            s.toml:7:13: found `P0+0x1000`, expected an offset below 0x1000, the size of the region
        an access across the end
            s.toml:7:23: found 64 bytes from `P0+0xfc8`, expected an access that ends within `P0`, 0x1000 bytes
        an offset of 64 bits
            s.toml:7:13: found `P0+0xffffffffffffffff`, expected an offset below 0x1000, the size of the region
        a page across the end
            s.toml:7:23: found 4096 bytes from `P0+0x40`, expected an access that ends within `P0`, 0x1000 bytes
        a region without base
            s.toml:26:6: found a table without `base`, expected an address as text, in hexadecimal such as "0x10000000"
        a region without size
            s.toml:26:6: found a table without `size`, expected a size as text, such as "4KiB"
        a region with another key
            s.toml:26:29: found unknown key `len`, expected one of the keys base, gpa, size
        a base that is an integer
            s.toml:26:15: found integer `0x10000000`, expected an address as text, in hexadecimal such as "0x10000000"
        a base that is decimal
            s.toml:26:15: found `268435456`, expected an address as text, in hexadecimal such as "0x10000000"
        a base that is negative
            s.toml:26:15: found `-0x40`, expected an address as text, in hexadecimal such as "0x10000000"
        a base with a sign
            s.toml:26:15: found `0x+40`, expected an address as text, in hexadecimal such as "0x10000000"
        a base of 68 bits
            s.toml:26:15: found `0x1ffffffffffffffff`, expected an address as text, in hexadecimal such as "0x10000000"
        a base that is not aligned
            s.toml:26:15: found `0x10000020`, expected a multiple of 64, the size of a line
        a size of zero
            s.toml:26:36: found `0B`, expected a size as text, such as "4KiB"
        a size without unit
            s.toml:26:36: found `4096`, expected a size as text, such as "4KiB"
        a size that is an integer
            s.toml:26:36: found integer `4096`, expected a size as text, such as "4KiB"
        a size that is not whole
            s.toml:26:36: found `0.3B`, expected a size as text, such as "4KiB"
        a region that wraps
            s.toml:26:44: found `64B`, expected a region that ends below 2^64
        overlapping regions
            s.toml:27:1: found region `P1` (0x10000fc0 to 0x10001fbf) overlapping region `P0` (0x10000000 to 0x10000fff), expected regions that do not overlap
        overlapping regions, lower second
            s.toml:27:1: found region `P1` (0xffff040 to 0x1000003f) overlapping region `P0` (0x10000000 to 0x10000fff), expected regions that do not overlap
        equal regions
            s.toml:27:1: found region `P1` (0x10000000 to 0x10000fff) overlapping region `P0` (0x10000000 to 0x10000fff), expected regions that do not overlap
        a bad region name
            s.toml:27:1: found `P-1`, expected a name of A-Z, a-z, 0-9 and _, at most 32, not starting with a digit
        a region name of 33
            s.toml:27:1: found `PPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPPP`, expected a name of A-Z, a-z, 0-9 and _, at most 32, not starting with a digit
        an agent of no kind
            s.toml:30:7: found a table without `kind`, expected one of kernel, user, seam, td, guest, device, hw
        an agent of an unknown kind
            s.toml:30:16: found `vm`, expected one of kernel, user, seam, td, guest, device, hw
        an agent without core
            s.toml:30:7: found a table without `core`, expected `core = 0`
        a core of 128
            s.toml:30:29: found integer `128`, expected a core number, 0 to 127
        a negative core
            s.toml:30:29: found integer `-1`, expected a core number, 0 to 127
        a core as text
            s.toml:30:29: found text `1`, expected a core number, 0 to 127
        a device with a core
            s.toml:31:34: found integer `1`, expected no core: a device has none
        a TD without KeyID
            s.toml:30:7: found a table without `keyid`, expected `keyid = "privN"`: a TD has its own
        a KeyID as integer
            s.toml:30:40: found integer `65`, expected a KeyID as text: a number, privN or sharedN
        a KeyID of two words
            s.toml:30:40: found `1 set-random`, expected a KeyID as text: a number, privN or sharedN
        a KeyID of none
            s.toml:30:40: found ``, expected a KeyID as text: a number, privN or sharedN
        a name that says another kind
            s.toml:30:17: found `td`, expected `kernel`, which `cpu2` always is
        a name that says another core
            s.toml:30:34: found integer `1`, expected core 2, where `cpu2` always is
        a bad agent name
            s.toml:31:1: found `dma 3`, expected a name of A-Z, a-z, 0-9 and _, at most 32, not starting with a digit
        an expectation of no agent
            s.toml:34:1: found `cpu9.1`, expected an agent of the program: cpu0, cpu1, dma3, hw, seam0, td0
        an expectation of no step
            s.toml:34:1: found `cpu1.3`, expected one of its operations, cpu1.1 to cpu1.2
        an expectation of step 0
            s.toml:34:1: found `cpu1.0`, expected one of its operations, cpu1.1 to cpu1.2
        an expectation of step 01
            s.toml:34:1: found `cpu1.01`, expected one of its operations, cpu1.1 to cpu1.2
        an expectation without index
            s.toml:34:1: found `cpu1`, expected agent.index such as "cpu1.1"
        an expectation without quotes
            s.toml:34:1: found a table, expected an outcome as text, such as "mc srar data-load"
        an outcome that is a number
            s.toml:34:12: found integer `1`, expected an outcome as text, such as "mc srar data-load"
        an unknown outcome
            s.toml:34:13: found `mce`, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        an unknown outcome word
            s.toml:34:21: found `load`, expected one of data-load, fetch
        an unknown outcome after escapes
            s.toml:34:12: found `load`, expected one of data-load, fetch
        an outcome word too many
            s.toml:34:19: found `0x0`, expected nothing after `zeros`, or ` | `
        an empty outcome
            s.toml:34:13: found nothing, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        an empty alternative
            s.toml:34:17: found nothing, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        a value of 65 bits
            s.toml:34:18: found `0x10000000000000000`, expected a number of at most 64 bits, fill=BYTE or bytes=HEX
        a fill of 9 bits
            s.toml:34:18: found `fill=256`, expected fill=BYTE, 0 to 255
        a final check that is text
            s.toml:37:5: found a list, expected an outcome as text, such as "mc srar data-load"
        an unknown final check
            s.toml:36:11: found `clean`, expected one of poisoned, td, mac, cached, dirty, writer, reads, panic, tdx-disabled, ucna, births, live-poison, partial-writes, module, pamt, owner, kot, life-cycle, op-state, td-fatal, sept, tlb, or `not`
        an empty final check
            s.toml:36:11: found nothing, expected one of poisoned, td, mac, cached, dirty, writer, reads, panic, tdx-disabled, ucna, births, live-poison, partial-writes, module, pamt, owner, kot, life-cycle, op-state, td-fatal, sept, tlb, or `not`
        a not that is not
            s.toml:36:78: found `births`, expected one of poisoned, td, mac, cached, dirty, panic, tdx-disabled, td-fatal, tlb after `not`
        a count that is negative
            s.toml:36:81: found `-1`, expected a decimal number
        a count without number
            s.toml:36:80: found nothing, expected a decimal number
        a hexadecimal count
            s.toml:36:81: found `0x1`, expected a decimal number
        a final check with a tail
            s.toml:36:83: found `2`, expected nothing after `births 1`
        poisoned under a KeyID
            s.toml:36:20: found `P0@priv1`, expected an address without KeyID, such as 0x1000 or P0+0x40
        cached without KeyID
            s.toml:36:37: found `P0`, expected an address with its KeyID, such as 0x1000@0 or P0+0x40@priv1
        writer without KeyID
            s.toml:36:83: found nothing, expected a KeyID: a number, privN or sharedN
        reads a machine check
            s.toml:36:64: found `mc`, expected one of poison, data, zeros, garbage, any-data
        reads nothing
            s.toml:36:63: found nothing, expected one of poison, data, zeros, garbage, any-data
        a final check beyond its region
            s.toml:36:10: found `P0+0x1000`, expected an offset below 0x1000, the size of the region
        a final check in brackets
            s.toml:36:20: found `[P0]`, expected an address without KeyID, such as 0x1000 or P0+0x40
        a refined check of no region
            s.toml:45:10: found unknown region `P7`, expected a region: P0, P1
        expect as a list
            s.toml:33:1: found a list of tables, expected a table [expect]
        when as a table
            s.toml:41:1: found a table, expected tables [[when]]
        when on another platform
            s.toml:42:12: found `emr`, expected platforms of the scenario: spr, gnr
        when without condition
            s.toml:41:1: found a table without `platform`, expected a platform, integrity, crypto or erratum
        when without entries
            s.toml:47:1: found a table without `expect`, expected a table [when.expect], [when.forbid] or [when.allow]
        when with an unknown key
            s.toml:42:1: found unknown key `final`, expected one of the keys platform, integrity, crypto, erratum, expect, forbid, allow
        nothing expected
            s.toml:1:1: found no expectation for spr, ci, symbolic, expected at least one: a scenario that expects nothing cannot fail
        an empty table of expectations
            s.toml:13:2: found no expectation for spr, ci, symbolic, expected at least one: a scenario that expects nothing cannot fail
        nothing expected in a part of the matrix
            s.toml:13:2: found no expectation for spr, li, symbolic, expected at least one: a scenario that expects nothing cannot fail
        a carriage return in the program
            s.toml:7:15: found carriage return must be followed by newline, expected newline
        an escape character in the program
            s.toml:7:14: found invalid multi-line literal string, expected non-single-quote characters
        a foreign space
            s.toml:7:7: found ` mfence`, expected an operation: did you mean `mfence`?
        a regions table that is text
            s.toml:2:11: found text `none`, expected a table [regions]
    "#]].assert_eq(&out);
}

#[test]
fn a_scenario_has_at_most_so_many_agents_and_regions() {
    let lines = |n: usize| (0..n).map(|i| format!("dma{i} : delay 1ns\n")).collect::<String>();
    // `around` declares one more.
    assert!(parse(&around(&lines(AGENTS_MAX - 1))).is_ok());
    let diag = parse(&around(&lines(AGENTS_MAX))).unwrap_err();
    assert_eq!((diag.line, diag.found.as_str()), (6 + 1024, "one agent too many"));
    let table = |n: usize, entry: &dyn Fn(usize) -> String| (0..n).map(entry).collect::<String>();
    let agent = |i: usize| format!("a{i} = {{ kind = \"device\" }}\n");
    let region = |i: usize| format!("r{i} = {{ base = \"{:#x}\", size = \"64B\" }}\n", i * 64);
    let with = |head: &str, entries: String| {
        parse(&around("cpu0 : mfence").replace(head, &format!("{head}{entries}"))).map(|_| ())
    };
    // With `td0` and `cpu0` that is all of them.
    assert_eq!(with("[agents]\n", table(AGENTS_MAX - 2, &agent)), Ok(()));
    let diag = with("[agents]\n", table(AGENTS_MAX, &agent)).unwrap_err();
    assert_eq!(diag.expected, "at most 1024 agents");
    // Region P0 of `around` lies at line 0x400 and takes 64 lines; these begin above it.
    let region = |i: usize| region(i + 2048);
    assert_eq!(with("[regions]\n", table(REGIONS_MAX - 1, &region)), Ok(()));
    let diag = with("[regions]\n", table(REGIONS_MAX, &region)).unwrap_err();
    assert_eq!(diag.expected, "at most 4096 regions");
}

#[test]
fn scenarios_that_say_something_else_differ() {
    let s = parse(GOOD).unwrap();
    for (from, to) in [
        ("\"partial-write\"", "\"other\""),
        ("A partial", "Another partial"),
        ("verification.md R1", "verification.md R2"),
        ("[\"spr\", \"gnr\"]", "[\"gnr\", \"spr\"]"),
        ("integrity = [\"ci\", \"li\"]", "integrity = [\"li\", \"ci\"]"),
        ("\"concurrent\"", "\"program\""),
        ("[\"symbolic\", \"real\"]", "[\"real\", \"symbolic\"]"),
        ("\"cpu.cores\" = \"3\"", "\"cpu.cores\" = \"4\""),
        ("fill=0x11", "fill=0x12"),
        ("\n  barrier", ""),
        ("\"0x10001000\"", "\"0x10002000\""),
        ("core = 1", "core = 2"),
        ("\"mc srar data-load\"", "\"mc srar\""),
        ("\"cpu1.1\" = \"data\"", "\"cpu1.1\" = \"zeros\""),
        ("births 1", "births 2"),
        ("[\"not poisoned P0\"]", "[\"poisoned P0\"]"),
    ] {
        assert_ne!(parse(&with(from, to)).unwrap(), s, "{from}");
    }
    // But not those whose lines stand elsewhere.
    assert_eq!(parse(&format!("\n\n{GOOD}")).unwrap(), s);
}

#[test]
fn what_a_platform_does_not_have_is_said_at_its_place_in_the_file() {
    let cases: &[(&str, String)] = &[
        ("the last address", around("cpu0 : load [0x1fffffffffff] 1")),
        (
            "an address beyond MAXPA",
            around("\n   cpu0 : mfence\n   cpu0 : load [0x200000000000] 1"),
        ),
        ("an access across MAXPA", around("cpu0 : load [0x1fffffffffff] 2")),
        ("an access across 2^64", around("cpu0 : load [0xffffffffffffffff] 2")),
        ("the last KeyID", around("seam0 : load [P0@127] 1")),
        ("a KeyID beyond the field", around("seam0 : load [P0@128] 1")),
        ("the second operand", around("cpu0 : movdir64b [P0] [P0+0x40@128]")),
        ("the last private KeyID", around("seam0 : load [P0@priv63] 1")),
        ("a private KeyID too many", around("seam0 : load [P0@priv64] 1")),
        ("a shared KeyID too many", around("seam0 : load [P0@shared63] 1")),
        ("PCONFIG of a KeyID that is not there", around("cpu0 : pconfig 5000 clear")),
        ("PCONFIG of a KeyID beyond its operand", around("cpu0 : pconfig 65536 clear")),
        ("PCONFIG of a private KeyID too many", around("cpu0 : pconfig priv64 clear")),
        ("the last core", around("cpu3 : mfence")),
        ("a core too many", around("cpu0 : mfence\ncpu4 : mfence")),
        ("a buffer of a core too many", around("hw : wc-evict 4")),
        ("a declared core too many", around("cpu0 : mfence").replace("core = 1", "core = 4")),
        ("a declared KeyID too many", around("cpu0 : mfence").replace("\"priv1\"", "\"priv64\"")),
        ("a declared KeyID too wide", around("cpu0 : mfence").replace("\"priv1\"", "\"128\"")),
        ("a region beyond MAXPA", around("cpu0 : mfence").replace("\"4KiB\"", "\"64TiB\"")),
        (
            "a final check beyond MAXPA",
            around("cpu0 : mfence").replace("births 0", "td 0x200000000000"),
        ),
        (
            "a final check of a KeyID too wide",
            around("cpu0 : mfence").replace("births 0", "cached P0@128"),
        ),
        (
            "a final check of a writer too many",
            around("cpu0 : mfence").replace("births 0", "writer P0 priv64"),
        ),
    ];
    let mut out = String::new();
    for (label, text) in cases {
        out += &shown(label, bind(text).map(|_| ()));
    }
    expect![[r#"
        the last address
            accepted
        an address beyond MAXPA
            s.toml:9:16: found address 0x200000000000, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
        an access across MAXPA
            s.toml:7:13: found address 0x200000000000, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
        an access across 2^64
            s.toml:7:13: found address 0xffffffffffffffff, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
        the last KeyID
            accepted
        a KeyID beyond the field
            s.toml:7:14: found KeyID 128, expected a KeyID of 7 bits, 0 to 127
        the second operand
            s.toml:7:23: found KeyID 128, expected a KeyID of 7 bits, 0 to 127
        the last private KeyID
            accepted
        a private KeyID too many
            s.toml:7:14: found `priv64`, expected priv0 to priv63 on platform spr
        a shared KeyID too many
            s.toml:7:14: found `shared63`, expected shared0 to shared62 on platform spr
        PCONFIG of a KeyID that is not there
            accepted
        PCONFIG of a KeyID beyond its operand
            s.toml:7:8: found KeyID 65536, expected a KeyID of at most 16 bits
        PCONFIG of a private KeyID too many
            s.toml:7:8: found `priv64`, expected priv0 to priv63 on platform spr
        the last core
            accepted
        a core too many
            s.toml:8:8: found agent `cpu4` on core 4, expected a core below 4, which is cpu.cores
        a buffer of a core too many
            s.toml:7:6: found core 4, expected a core below 4, which is cpu.cores
        a declared core too many
            s.toml:12:1: found agent `td0` on core 4, expected a core below 4, which is cpu.cores
        a declared KeyID too many
            s.toml:12:1: found `priv64`, expected priv0 to priv63 on platform spr
        a declared KeyID too wide
            s.toml:12:1: found KeyID 128, expected a KeyID of 7 bits, 0 to 127
        a region beyond MAXPA
            s.toml:10:1: found region `P0` up to 0x40000000ffff, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
        a final check beyond MAXPA
            s.toml:14:10: found address 0x200000000000, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
        a final check of a KeyID too wide
            s.toml:14:10: found KeyID 128, expected a KeyID of 7 bits, 0 to 127
        a final check of a writer too many
            s.toml:14:10: found `priv64`, expected priv0 to priv63 on platform spr
    "#]].assert_eq(&out);
}

#[test]
fn a_scenario_that_was_built_and_is_wrong_is_refused_without_panic() {
    let mut s = Scenario::new("x", "t", "c");
    let op = || "mfence".parse::<TextOp>().unwrap();
    s.program.push(Line::Op { agent: "nobody".into(), op: op(), at: Place::default() });
    assert_eq!(s.bind(&spr()).unwrap_err().to_string(), "x:1:1: found `nobody`, expected an agent");
    s.program.clear();
    s.program.push(Line::Op { agent: "cpu0".into(), op: op(), at: Place::default() });
    let step = StepRef { agent: "cpu0".into(), index: 2 };
    s.checks.expect.insert(step, "done".parse::<Pattern>().unwrap().into());
    let diag = s.bind(&spr()).unwrap_err();
    assert_eq!(diag.to_string(), "x:1:1: found `cpu0.2`, expected a step of the program");
    s.regions.push(Region {
        name: "R".into(),
        space: Space::Host,
        base: u64::MAX,
        size: u64::MAX,
        at: Place::default(),
    });
    assert!(s.bind(&spr()).is_err());
    s.crypto.clear();
    s.checks = Checks::default();
    s.regions.clear();
    assert_eq!(s.bind(&spr()).unwrap().crypto, Crypto::Symbolic);
}

// ----------------------------------------------------------------------------------------------------------------- tables

#[test]
fn every_outcome_prints_words_that_a_pattern_can_say() {
    for outcome in every_outcome() {
        let text = outcome.to_string();
        let pattern: Pattern = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(pattern.matches(&outcome), "{text}");
        let head = text.split(' ').next().unwrap();
        assert!(OUTCOMES.iter().any(|o| o.head == head));
    }
}

#[test]
fn every_row_of_the_outcome_table_is_printed_by_some_outcome_but_any_data() {
    let printed: Vec<String> = every_outcome().iter().map(ToString::to_string).collect();
    for row in OUTCOMES {
        let reached = printed.iter().any(|p| p.split(' ').next() == Some(row.head));
        assert_eq!(reached, row.head != "any-data", "{}", row.head);
        for slot in row.rest {
            let words: &[&str] = match slot {
                Slot::One(words) => words,
                Slot::Maybe(word) => std::slice::from_ref(word),
                Slot::Value | Slot::Status | Slot::Exit | Slot::Named(_) => continue,
            };
            for word in words {
                let hit = printed
                    .iter()
                    .any(|p| p.starts_with(row.head) && p.split(' ').skip(1).any(|w| w == *word));
                assert!(hit, "{} {word}", row.head);
            }
        }
    }
}

#[test]
fn no_two_rows_of_a_table_begin_with_the_same_word() {
    let outcomes: Vec<&str> = OUTCOMES.iter().map(|o| o.head).collect();
    let checks: Vec<&str> = FINAL_CHECKS.iter().map(|c| c.head).collect();
    let prefixes: Vec<&str> = AGENT_KINDS.iter().filter_map(|a| a.prefix).collect();
    for heads in [&outcomes, &checks, &prefixes] {
        for (i, head) in heads.iter().enumerate() {
            assert!(heads[i + 1..].iter().all(|other| other != head), "{head}");
        }
    }
    for a in &prefixes {
        assert!(prefixes.iter().all(|b| a == b || !b.starts_with(a)), "{a}");
    }
}

/// Operands that fit a row of [`FINAL_CHECKS`].
fn operands(row: &CheckForm) -> String {
    row.operands
        .replace("ADDR@KEY", "R@priv0")
        .replace("ADDR", "R")
        .replace("KEY", "shared1")
        .replace("PATTERN", "zeros")
        .replace("NUMBER", "3")
        .replace("PAGE_TYPE", "PT_REG")
        .replace("SYS_STATE", "SYS_READY")
        .replace("KOT_STATE", "ASSIGNED")
        .replace("LIFE_CYCLE", "TEARDOWN")
        .replace("OP_STATE", "RUNNABLE")
        .replace("GPA|LEVEL SEPT_STATE", "0x200000|1 NL_MAPPED")
        .replace("CORE", "3")
        .replace("GVA", "0x1000")
        .replace("TDR", "R")
}

#[test]
fn every_final_check_of_the_table_is_read_and_printed() {
    for row in FINAL_CHECKS {
        let text = format!("{} {}", row.head, operands(row)).trim().to_owned();
        let check: FinalCheck = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(check.to_string(), text);
        let negated = format!("not {text}").parse::<FinalCheck>();
        assert_eq!(negated.is_ok(), row.negatable, "{text}");
        if let Ok(negated) = negated {
            assert_eq!(negated.to_string(), format!("not {text}"));
            assert_ne!(negated, check);
        }
    }
}

#[test]
fn every_kind_of_agent_has_a_row_and_its_name_gives_the_kind() {
    assert_eq!(AGENT_KINDS.iter().map(|a| a.kind).collect::<Vec<_>>(), AgentKind::ALL);
    for row in AGENT_KINDS {
        let name = match (row.prefix, row.kind) {
            (None, kind) => {
                assert!(matches!(kind, AgentKind::Td | AgentKind::Guest));
                assert_eq!(agent_by_name("td0", Place::default()), None);
                assert_eq!(agent_by_name("guest0", Place::default()), None);
                continue;
            }
            (Some(prefix), AgentKind::Hardware) => prefix.to_owned(),
            (Some(prefix), _) => format!("{prefix}7"),
        };
        let agent = agent_by_name(&name, Place::default()).unwrap();
        assert_eq!(agent.kind, row.kind);
        assert_eq!(agent.core, row.kind.has_core().then_some(7));
    }
    for other in ["", "cpu", "cpu07", "cpu+7", "cpu65536", "hw0", "dma", "cpu٣", "Cpu0"] {
        assert_eq!(agent_by_name(other, Place::default()), None, "{other}");
    }
}

#[test]
fn every_operation_belongs_to_some_kind_of_agent() {
    for op in every_op("R") {
        let kinds: Vec<AgentKind> =
            AgentKind::ALL.iter().copied().filter(|k| may(*k, &op).is_ok()).collect();
        let want: &[AgentKind] = match op.to_string().split(' ').next().unwrap() {
            "delay" => AgentKind::ALL,
            "dma-read" | "dma-write" => &[AgentKind::Device],
            "evict" | "write-back" | "drain" | "wc-evict" | "flip-bit" | "flip-td"
            | "move-line" | "save-line" | "replay-line" | "inject-ue" | "starve" => {
                &[AgentKind::Hardware]
            }
            "irq" => &[AgentKind::Kernel, AgentKind::Hardware],
            "wrmsr" | "seamldr.install" => &[AgentKind::Kernel],
            "interrupt" => &[AgentKind::Kernel, AgentKind::User, AgentKind::Seam, AgentKind::Td],
            "mov-cr3" | "invlpg" => &[AgentKind::Guest],
            name if name.starts_with("tdg.") => &[AgentKind::Guest],
            name if name.starts_with("tdh.") => &[AgentKind::Kernel, AgentKind::User],
            _ => &[
                AgentKind::Kernel,
                AgentKind::User,
                AgentKind::Seam,
                AgentKind::Td,
                AgentKind::Guest,
            ],
        };
        assert_eq!(kinds, want, "{op}");
    }
}

#[test]
fn the_manual_lists_every_row() {
    for (text, rows) in [
        (outcomes_markdown(), OUTCOMES.len()),
        (final_checks_markdown(), FINAL_CHECKS.len()),
        (agent_kinds_markdown(), AGENT_KINDS.len()),
    ] {
        assert_eq!(text.lines().count(), rows + 2);
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let head = text.lines().next().map(columns);
        assert!(text.lines().all(|line| Some(columns(line)) == head), "{text}");
    }
    for row in OUTCOMES {
        assert!(outcomes_markdown().contains(&format!("| `{}` | {} |", row.head, row.operands())));
    }
    for row in FINAL_CHECKS {
        assert!(final_checks_markdown().contains(&format!(
            "| `{}` | {} |",
            row.head,
            row.operands.replace('|', "\\|")
        )));
    }
}

// --------------------------------------------------------------------------------------------------------------- patterns

fn birth() -> BirthId {
    BirthId(NonZeroU32::MIN)
}

fn machine_check(
    (s, ar): (bool, bool),
    uc: bool,
    access: McAccess,
    seam_nr: bool,
    consequence: McConsequence,
) -> Outcome {
    let status = McStatus::pack(StatusParts { val: true, uc, s, ar, ..StatusParts::default() });
    let record = McRecord {
        core: 0,
        bank: 1,
        status,
        addr: 0,
        misc: 0,
        mcg: McgStatus(if seam_nr { McgStatus::SEAM_NR } else { 0 }),
        access,
        context: McContext::Kernel,
        at: Addr::new(Hpa(0), KeyId(0)),
        birth: birth(),
    };
    Outcome::MachineCheck { record, consequence }
}

fn loaded(data: LineData, bytes: u32, class: DataClass) -> Loaded {
    Loaded { data, bytes, class }
}

/// Outcomes of every variant, and of every variant within them.
fn every_outcome() -> Vec<Outcome> {
    let mut all = vec![
        Outcome::Done,
        Outcome::PageFaultRsvd,
        Outcome::EptMisconfiguration,
        Outcome::VirtualizationException,
        Outcome::DmaAbort,
        Outcome::DmaPoison(birth()),
        Outcome::VmFailInvalid,
        Outcome::PageFault,
        Outcome::DoubleFault,
    ];
    for status in [
        Status::SUCCESS,
        Status::SUCCESS.exit(ExitReason(48)),
        Status::OPERAND_BUSY.about(Operand::RCX),
        Status::OPERAND_BUSY.about(Operand::SEPT_TREE),
        Status::OPERAND_INVALID,
        Status::SEAMCALL_VMFAILINVALID,
        Status(0x1234_0000_0000_0000),
    ] {
        for out in [[0; 6], [0x1000, 0, 0, 0, 0, 0x8]] {
            let result = CallResult { guest: false, leaf: 0, status, out };
            all.push(Outcome::Call(result));
            all.push(Outcome::Call(CallResult { guest: true, ..result }));
        }
    }
    for (reason, gpa) in [(48, 0x1000), (48, 0), (49, 0x1000), (1, 0), (77, 0)] {
        all.push(Outcome::TdExit { reason: ExitReason(reason), gpa });
    }
    for class in [DataClass::Plain, DataClass::Blocked, DataClass::Garbage] {
        for data in
            [LineData::ZERO, LineData::filled(0x5a), LineData([0x1122, 3, 0, 0, 0, 0, 0, 0])]
        {
            for bytes in [1, 2, 8, 9, 64, 4096] {
                let data = data.slice(0, bytes as usize);
                all.push(Outcome::Data(loaded(data, bytes, class)));
            }
        }
    }
    use GpReason::*;
    all.extend([Misaligned, NotInSeam, Privilege, NoSuchSubBlock].map(Outcome::GeneralProtection));
    use PconfigStatus as P;
    all.extend(
        [P::Ok, P::BadCommand, P::NoEntropy, P::InvalidKeyId, P::InvalidAlgorithm, P::DeviceBusy]
            .map(Outcome::Pconfig),
    );
    all.extend(
        [NotRun::Panic, NotRun::Killed, NotRun::Shutdown, NotRun::Horizon].map(Outcome::NotRun),
    );
    all.extend([NotRun::NotEntered, NotRun::NotModelled].map(Outcome::NotRun));
    use McConsequence as C;
    for consequence in [C::Panic, C::Sigbus, C::Survived, C::TdFatal, C::Shutdown] {
        for access in [McAccess::DataLoad, McAccess::Fetch] {
            for seam_nr in [false, true] {
                for (severity, uc) in [
                    ((true, true), true),
                    ((true, false), true),
                    ((false, false), true),
                    ((false, false), false),
                ] {
                    all.push(machine_check(severity, uc, access, seam_nr, consequence));
                }
            }
        }
    }
    // A new variant must be added above: this match is exhaustive.
    for outcome in &all {
        match outcome {
            Outcome::Done
            | Outcome::Data(_)
            | Outcome::PageFaultRsvd
            | Outcome::GeneralProtection(_)
            | Outcome::EptMisconfiguration
            | Outcome::VirtualizationException
            | Outcome::MachineCheck { .. }
            | Outcome::DmaAbort
            | Outcome::DmaPoison(_)
            | Outcome::Pconfig(_)
            | Outcome::VmFailInvalid
            | Outcome::NotRun(_)
            | Outcome::Call(_)
            | Outcome::TdExit { .. }
            | Outcome::PageFault
            | Outcome::DoubleFault => {}
        }
    }
    all
}

pub(super) fn pattern(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn every_beginning_of_an_outcome_matches_it_and_no_other_word_does() {
    let all = every_outcome();
    for outcome in &all {
        let text = outcome.to_string();
        let words: Vec<&str> = text.split(' ').collect();
        for n in 1..=words.len() {
            let start = words[..n].join(" ");
            let matching = pattern(&start);
            assert!(matching.matches(outcome), "{start}: {text}");
            for other in all.iter().filter(|_| n < 3) {
                let printed = other.to_string();
                // A status without `|` stands for all of its low halves.
                let any_low = words[0] == "tdx" && n > 1 && !words[1].contains('|');
                let cut = |word| {
                    let word: &str = word;
                    if any_low { word.split('|').next().unwrap_or(word) } else { word }
                };
                let same = printed.split(' ').map(cut).take(n).eq(words[..n].iter().copied());
                // Values are compared as numbers, so other texts can match them too.
                if same || !start.contains("0x") {
                    assert_eq!(matching.matches(other), same, "{start}: {printed}");
                }
            }
        }
    }
}

#[test]
fn values_are_compared_as_bytes_not_as_text() {
    let eight =
        |n: u64| Outcome::Data(loaded(LineData([n, 0, 0, 0, 0, 0, 0, 0]), 8, DataClass::Plain));
    assert!(pattern("data 0x8").matches(&eight(8)));
    assert!(pattern("data 8").matches(&eight(8)));
    assert!(!pattern("data 0x8").matches(&eight(0x108)));
    assert!(pattern("data").matches(&eight(8)));
    assert!(!pattern("garbage").matches(&eight(8)));
    assert!(!pattern("zeros").matches(&eight(8)));
    assert!(pattern("any-data").matches(&eight(8)) && pattern("any-data").matches(&eight(0)));
    assert!(pattern("zeros").matches(&eight(0)));
    assert!(!pattern("any-data").matches(&Outcome::Done));
    let fill = Outcome::Data(loaded(LineData::filled(0x5a), 64, DataClass::Plain));
    assert!(pattern("data fill=0x5a").matches(&fill));
    assert!(pattern("data fill=90").matches(&fill));
    assert!(!pattern("data fill=0x5b").matches(&fill));
    let mut spoilt = LineData::filled(0x5a);
    spoilt.set_byte(63, 0);
    let spoilt = Outcome::Data(loaded(spoilt, 64, DataClass::Plain));
    assert!(!pattern("data fill=0x5a").matches(&spoilt));
    assert!(pattern("data fill=0x5a").matches(&eight(0x5a5a_5a5a_5a5a_5a5a)));
    // Of more than eight bytes a number says the first eight.
    assert!(pattern("data 0x5a5a5a5a5a5a5a5a").matches(&fill));
    let two = Outcome::Data(loaded(LineData([0x1122, 0, 0, 0, 0, 0, 0, 0]), 2, DataClass::Plain));
    assert!(pattern("data 0x1122").matches(&two));
    assert!(!pattern("data 0x331122").matches(&two));
    assert!(pattern("zeros | data bytes=2211").matches(&two));
    assert!(!pattern("data bytes=2212").matches(&two));
    assert!(!pattern("data bytes=221100").matches(&two), "another number of bytes");
    for bad in ["data bytes=", "data bytes=221", "data bytes=2g", "data bytes=+1"] {
        assert!(bad.parse::<Pattern>().is_err(), "{bad}");
    }
}

#[test]
fn a_replay_needs_a_line_that_was_saved() {
    let lone = parse(&around("hw : replay-line 3 [P0]"));
    let error = lone.and_then(|s| s.bind(&spr())).unwrap_err();
    assert_eq!(error.expected, "a slot that a `save-line` above has filled");
    assert_eq!((error.line, error.column), (7, 6));
    let saved = around("hw : save-line [P0] 3\nhw : replay-line 3 [P0]");
    parse(&saved).unwrap().bind(&spr()).unwrap();
}

#[test]
fn a_read_pattern_tells_poison_from_data() {
    let zeros = loaded(LineData::ZERO, 64, DataClass::Blocked);
    let read = |text: &str| text.parse::<ReadPattern>().unwrap();
    assert!(read("poison").matches(true, &zeros) && !read("poison").matches(false, &zeros));
    assert!(!read("zeros").matches(true, &zeros) && read("zeros").matches(false, &zeros));
    let both = read("zeros|poison");
    assert!(both.matches(true, &zeros) && both.matches(false, &zeros));
    assert_eq!(both.to_string(), "poison | zeros");
    assert!(!read("garbage | data").matches(false, &zeros));
    for bad in ["", "mc", "poison now", "poison |", "done"] {
        assert!(bad.parse::<ReadPattern>().is_err(), "{bad}");
    }
}

/// Some pattern of the grammar, as text in its printed form.
fn any_alternative() -> impl Strategy<Value = String> {
    (0..OUTCOMES.len(), 0usize..6, any::<[u8; 4]>(), any::<u64>(), any::<bool>()).prop_map(
        |(row, stop, picks, n, fill)| {
            let row = &OUTCOMES[row];
            let mut text = row.head.to_owned();
            for (slot, pick) in row.rest.iter().take(stop).zip(picks) {
                match slot {
                    Slot::One(words) => text += &format!(" {}", words[pick as usize % words.len()]),
                    Slot::Maybe(word) if pick % 2 == 0 => text += &format!(" {word}"),
                    Slot::Maybe(_) => {}
                    Slot::Status => text += &any_status(pick, n, fill),
                    Slot::Exit => text += &format!(" {}", n as u32),
                    Slot::Named(names) => {
                        let asked =
                            names.iter().enumerate().filter(|(i, _)| pick >> (i % 8) & 1 != 0);
                        asked.for_each(|(i, name)| text += &format!(" {name}={:#x}", n >> i));
                    }
                    Slot::Value if fill => text += &format!(" fill={:#x}", n as u8),
                    Slot::Value => text += &format!(" {n:#x}"),
                }
            }
            text
        },
    )
}

/// A status as a pattern prints it.
fn any_status(pick: u8, n: u64, low: bool) -> String {
    let row = &STATUSES[n as usize % STATUSES.len()];
    let name = short_status(row.name);
    match (pick % 4, low) {
        (0, _) => format!(" {n:#x}"),
        (1, true) => " SEAMCALL_VMFAILINVALID".to_owned(),
        (_, false) => format!(" {name}"),
        (2, true) => format!(" {name}|{}", low_half(row, n as u32 % 200)),
        (_, true) => format!(" {name}|{}", low_half(row, n as u32)),
    }
}

fn any_pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec(any_alternative(), 1..4).prop_map(|parts| parts.join(" | "))
}

// ------------------------------------------------------------------------------------------------- printing and reading

/// One operation of every mnemonic, on region `name`.
fn every_op(name: &str) -> Vec<TextOp> {
    MNEMONICS.iter().map(|m| op_of(m.name, m.operands, name, 0, 8, 1)).collect()
}

/// An operation of a row of the manual of operations.
fn op_of(name: &str, operands: &str, addr: &str, pick: u8, bytes: u32, n: u64) -> TextOp {
    let choose = |words: &[&'static str]| words[pick as usize % words.len()];
    let value = choose(&["", "0x7f", "fill=0x7f"]);
    let operands = operands
        .replace("zero|fill=B|[ADDR]", choose(&["zero", "fill=0x9", "[ADDR]"]))
        .replace("16|32|64", choose(&["16", "32", "64"]))
        .replace("1|2|4|8", choose(&["1", "2", "4", "8"]))
        .replace("4|8", choose(&["4", "8"]))
        .replace("VALUE?", value)
        .replace("VALUE", "0x7f")
        .replace("fill=B", "fill=0x1")
        .replace(
            "KEYID CMD ALG?",
            choose(&["priv0 set-random xts-256", "7 clear", "shared0 set-direct=0x5"]),
        )
        .replace("ADDR", addr)
        .replace("FROM", addr)
        .replace("TO]", &format!("{addr}]"))
        .replace("BYTES", &bytes.to_string())
        .replace("BLOCK", &(n % 30).to_string())
        .replace("TIME", &format!("{}ps", n % 1_000_000))
        .replace("CORE", &(n % 4).to_string())
        .replace("BIT", &(n % 512).to_string())
        .replace("SLOT", &(n % 16).to_string())
        .replace(
            "REGS?",
            &choose(&[
                "",
                "r13=0xfff",
                "rcx=[AT]|1 rdx=priv1 r8=[AT]",
                "rcx=0x200000|1 r9=[AT]|0x10",
            ])
            .replace("AT", addr),
        )
        .replace("nmi|smi?", choose(&["", "nmi", "smi"]))
        .replace("MSR", &format!("{:#x}", n as u32))
        .replace("DRAWS", &(n % 7 + 1).to_string())
        .replace("REG", &choose(&["0x1000", "[AT]", "[AT]|24"]).replace("AT", addr))
        .replace("NUMBER", &(n % 128).to_string());
    let host = choose(&["tdh.mng.create", "tdh.mem.sept.add.v1", "tdh.sys.config"]);
    let name = name.replace("tdh.LEAF", host);
    let name = name.replace("tdg.LEAF", choose(&["tdg.mem.page.accept", "tdg.vp.vmcall"]));
    format!("{name} {operands}").parse().unwrap_or_else(|e| panic!("{name} {operands}: {e}"))
}

fn any_op() -> impl Strategy<Value = TextOp> {
    let key = prop_oneof![
        Just(String::new()),
        (0u32..200).prop_map(|n| format!("@{n}")),
        (0u32..70).prop_map(|n| format!("@priv{n}")),
        (0u32..70).prop_map(|n| format!("@shared{n}")),
    ];
    let base = prop_oneof![
        (0u64..1 << 47).prop_map(|a| format!("{a:#x}")),
        (0u64..8192).prop_map(|offset| format!("R+{offset:#x}")),
    ];
    (0..MNEMONICS.len(), base, key, any::<u8>(), 1u32..=64, any::<u64>()).prop_map(
        |(row, base, key, pick, bytes, n)| {
            let m = &MNEMONICS[row];
            op_of(m.name, m.operands, &format!("{base}{key}"), pick, bytes, n)
        },
    )
}

/// The same operation on guest memory: `G` for `R`, and no KeyIDs.
fn of_guest(op: TextOp) -> TextOp {
    let addr = |at: AddrExpr| {
        let base = match at.base {
            Base::Region { offset, .. } => Base::Region { name: "G".into(), offset },
            base @ Base::Abs(_) => base,
        };
        AddrExpr { base, key: None }
    };
    let reg = |reg: RegExpr| match reg.base {
        RegBase::Place(at) => RegExpr { base: RegBase::Place(Box::new(addr(*at))), ..reg },
        _ => reg,
    };
    op.try_map(|at| Ok::<_, ()>(addr(at)), Ok, |r| Ok(reg(r))).unwrap()
}

fn any_final() -> impl Strategy<Value = FinalCheck> {
    (0..FINAL_CHECKS.len(), any::<bool>()).prop_map(|(row, not)| {
        let row = &FINAL_CHECKS[row];
        let not = if not && row.negatable { "not " } else { "" };
        format!("{not}{} {}", row.head, operands(row)).parse().unwrap()
    })
}

fn located(checks: Vec<FinalCheck>) -> Vec<Located<FinalCheck>> {
    checks.into_iter().map(Located::from).collect()
}

/// `[tdx]` with everything that it can say.
fn ready() -> Tdx {
    Tdx {
        state: ModuleState::Ready,
        tdmrs: vec![sim_core::units::Area { base: 4 << 30, end: 6 << 30 }].into(),
        pamt: Some(0x1_a000_0000.into()),
        global: KeyRef::Private(2).into(),
        at: Place::default(),
    }
}

/// `[td.NAME]`; half of them say everything that it can say.
fn built_td(bits: u8) -> Td {
    let all = bits & 128 != 0;
    let at = |hpa| AddrExpr { base: Base::Abs(hpa), key: None };
    let guest =
        AddrExpr { base: Base::Region { name: "G".into(), offset: 0x20_0000 - 4096 }, key: None };
    let page = |gpa, how, hpa, content| PageSpec { gpa, how, page: at(hpa), content }.into();
    let state = if all { TdState::Runnable } else { TdState::Initialized };
    Td {
        name: "T".into(),
        hkid: KeyRef::Private(1).into(),
        state,
        vcpus: if all { 2 } else { 1 },
        max_vcpus: all.then_some(9),
        attributes: if all { vec![Attribute::Debug, Attribute::SeptVeDisable] } else { Vec::new() },
        gpaw: if all { 52 } else { 48 },
        levels: 5,
        pages: vec![
            page(at(0), How::Add, 0x1_2000_0000, Content::Fill(bits)),
            page(guest, How::Add, 0x1_2000_1000, Content::From(at(0x8000))),
            page(at(0x1000), How::Aug, 0x1_2000_2000, Content::Fill(0)),
            page(at(0x20_0000), How::Aug2m, 0x1_2020_0000, Content::Fill(0)),
        ],
        tables: vec![TableSpec { gpa: at(0x8000_0000), level: bits & 3 }.into()],
        at: Place::default(),
    }
}

prop_compose! {
    /// A scenario of random operations, agents and checks. It can be read again, but not always bound.
    fn any_scenario()(
        ops in proptest::collection::vec((any_op(), any::<u8>(), any::<bool>()), 1..12),
        patterns in proptest::collection::vec((any::<u16>(), any_pattern(), 0u8..4), 0..6),
        finals in proptest::collection::vec(any_final(), 1..4),
        refined in proptest::option::of(proptest::collection::vec(any_final(), 1..3)),
        title in "[ -~§é\"'\\\\]{0,30}x",
        bits in any::<u8>(),
    ) -> Scenario {
        let mut s = Scenario::new("random", &title, "verification.md §4.2");
        if bits & 1 != 0 { s.platforms = vec!["gnr".into(), "emr".into()]; }
        if bits & 2 != 0 { s.integrity = vec![IntegrityMode::Li]; }
        if bits & 4 != 0 { s.order = Order::Concurrent; }
        if bits & 8 != 0 { s.crypto = vec![Crypto::Real, Crypto::Symbolic]; }
        if bits & 16 != 0 {
            s.set = vec![Override::set("cpu.cores", "8"), Override::set("latency.xts", "1.5ns")];
        }
        let region = |space, name: &str, base, size| {
            Region { name: name.into(), space, base, size, at: Place::default() }
        };
        s.regions = vec![
            region(Space::Host, "R", 0x4000_0000, 2 << 20),
            region(Space::Host, "Q", 0, 192),
            region(Space::Guest, "G", 0x4000_0000, 2 << 20),
        ];
        let td = |name: &str, keyid| Agent {
            name: name.into(), kind: AgentKind::Td, core: Some(3), keyid: Some(keyid), vcpu: None, at: Place::default(),
        };
        let tdvpr = AddrExpr { base: Base::Region { name: "R".into(), offset: 0x1000 }, key: None };
        let vcpu = Some(Vcpu { tdvpr, gpaw: if bits & 32 != 0 { 52 } else { 48 } });
        let guest = Agent {
            name: "vcpu0".into(), kind: AgentKind::Guest, core: None, keyid: None, vcpu, at: Place::default(),
        };
        s.agents = vec![td("td0", KeyRef::Private(1)), td("guest", KeyRef::Num(65)), guest];
        if bits & 64 != 0 {
            (s.tdx, s.tds) = (Some(ready()), vec![built_td(bits)]);
        }
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for (op, who, barrier) in ops {
            let agents = ["cpu0", "user1", "seam2", "td0", "guest", "dma7", "hw", "vcpu0"];
            let kind = |name: &str| match name {
                "td0" | "guest" => AgentKind::Td,
                "vcpu0" => AgentKind::Guest,
                name => agent_by_name(name, Place::default()).unwrap().kind,
            };
            let able: Vec<&str> = agents.into_iter().filter(|a| may(kind(a), &op).is_ok()).collect();
            let agent = able[who as usize % able.len()].to_owned();
            // The memory that a name belongs to is found when the file is read.
            let op = if agent == "vcpu0" { of_guest(op) } else { op };
            *counts.entry(agent.clone()).or_insert(0) += 1;
            s.program.push(Line::Op { agent, op, at: Place::default() });
            if barrier { s.program.push(Line::Barrier); }
        }
        let counts: Vec<(String, u32)> = counts.into_iter().collect();
        let mut refinement = Refinement { crypto: s.crypto.clone(), ..Refinement::default() };
        for (pick, text, table) in patterns {
            let (agent, count) = &counts[pick as usize % counts.len()];
            let step = StepRef { agent: agent.clone(), index: u32::from(pick) % count + 1 };
            let pattern: Located<Pattern> = pattern(&text).into();
            match table {
                0 => s.checks.expect.insert(step, pattern),
                1 => s.checks.forbid.insert(step, pattern),
                2 => refinement.expect.insert(step, pattern),
                _ => refinement.forbid.insert(step, pattern),
            };
        }
                s.checks.finals = located(finals);
        refinement.finals = refined.map(located);
        let empty = Refinement { crypto: s.crypto.clone(), ..Refinement::default() };
        if refinement != empty { s.refinements.push(refinement); }
        s
    }
}

#[test]
fn the_scenario_that_uses_everything_prints_as_a_file_that_says_the_same() {
    let s = parse(GOOD).unwrap();
    let again = parse(&s.to_text()).unwrap();
    assert_eq!(again, s);
    assert_eq!(again.to_text(), s.to_text());
}

/// Pieces of scenario files.
const SOUP: &[&str] = &[
    "[scenario]\n",
    "[regions]\n",
    "[agents]\n",
    "[expect]\n",
    "[forbid]\n",
    "[[when]]\n",
    "[when.expect]\n",
    "name = ",
    "title = ",
    "cite = ",
    "platform = ",
    "program = ",
    "set = ",
    "final = ",
    "P0 = ",
    "td0 = ",
    "\"x\"",
    "\"spr\"",
    "[\"c\"]",
    "\"births 0\"",
    "'''",
    "\"\"\"",
    "\"",
    "'",
    "\n",
    "\r\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    ".",
    "#",
    "7",
    "-1",
    "0x10",
    "nan",
    "1979-05-27",
    "\u{0}",
    "\u{feff}",
    "é",
    " ",
    "\\",
    "\\n",
    "cpu0 : load [P0] 8\n",
    "barrier\n",
    "base = \"0x40\"",
    "size = \"4KiB\"",
    "kind = \"td\"",
    "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\n",
    "program = '''cpu0 : load [P0] 8'''\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_printed_scenario_reads_as_the_same_scenario(s in any_scenario()) {
        let text = s.to_text();
        let again = parse(&text);
        prop_assert_eq!(again.as_ref().map_err(|d| d.render()), Ok(&s), "{}", text);
    }

    #[test]
    fn a_scenario_binds_or_points_into_its_program_or_checks(s in any_scenario()) {
        let s = parse(&s.to_text()).unwrap();
        for preset in PRESETS {
            let spec = load(&Origin::Preset(preset.name.into()), &[]).unwrap().spec;
            match s.bind(&spec) {
                Ok(program) => {
                    let ops = program.lines.iter().filter(|l| matches!(l, ProgramLine::Step(_))).count();
                    prop_assert_eq!(ops, s.program.iter().filter(|l| **l != Line::Barrier).count());
                    for line in &program.lines {
                        if let ProgramLine::Step(step) = line {
                            let file_line = s.source().text().lines().nth(step.line as usize - 1).unwrap();
                            let there: String = file_line.chars().skip(step.column as usize - 1).collect();
                            prop_assert_eq!(&there, &step.text);
                            prop_assert!(step.agent < program.agents.len());
                        }
                    }
                }
                Err(diag) => prop_assert!(diag.line > 1 && diag.file == "s.toml", "{}", diag),
            }
        }
    }

    #[test]
    fn every_keyid_width_refuses_exactly_what_does_not_fit(
        keyid_bits in 5u8..=15, maxpa in 46u8..=52, hpa: u64, key in 0u32..70_000, shift in 0u32..64,
    ) {
        let mut spec = spr();
        spec.keyid.maxpa = maxpa;
        spec.keyid.keyid_bits = keyid_bits;
        spec.keyid.mktme_kids = (1 << (keyid_bits - 1)) - 1;
        spec.keyid.tdx_priv_kids = 1 << (keyid_bits - 1);
        spec.validate().unwrap();
        let bits = maxpa - keyid_bits;
        for hpa in [hpa >> shift, (1 << bits) - 1, 1 << bits] {
            for key in [key, (1 << keyid_bits) - 1, 1 << keyid_bits] {
                let text = around(&format!("seam0 : load [{hpa:#x}@{key}] 1"));
                let text = text.replace("priv1", "priv0");
                let bound = parse(&text).unwrap().bind(&spec);
                let fits = hpa >> bits == 0 && key >> keyid_bits == 0;
                prop_assert_eq!(bound.is_ok(), fits, "{:#x} {}", hpa, key);
                if let Ok(program) = bound {
                    let want = Op::Load { at: Addr::new(Hpa(hpa), KeyId(key as u16)), bytes: 1, ty: sim_core::op::MemType::Wb };
                    prop_assert!(matches!(&program.lines[0], ProgramLine::Step(s) if s.op == want));
                }
            }
        }
    }

    #[test]
    fn reading_patterns_is_the_inverse_of_printing(text in any_pattern()) {
        let pattern = pattern(&text);
        prop_assert_eq!(pattern.to_string(), text);
        let json = serde_json::to_string(&pattern).unwrap();
        prop_assert_eq!(serde_json::from_str::<Pattern>(&json).unwrap(), pattern);
    }

    #[test]
    fn no_text_panics_a_pattern_or_a_check(text in "\\PC{0,40}|[a-z|0-9@+ =…-]{0,40}") {
        let errors = [text.parse::<Pattern>().err(), text.parse::<ReadPattern>().err(), text.parse::<FinalCheck>().err()];
        for e in errors.into_iter().flatten() {
            prop_assert!(text.get(e.at..e.at + e.len).is_some(), "{:?} {:?}", text, e);
        }
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
        }
    }

    #[test]
    fn no_bytes_panic_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(src) = SourceFile::from_bytes("x", &bytes) {
            prop_assert!(Scenario::parse(src).is_err());
        }
    }

    #[test]
    fn no_soup_of_tokens_panics_the_parser(
        soup in proptest::collection::vec(proptest::sample::select(SOUP), 0..40),
    ) {
        if let Err(diag) = parse(&soup.concat()) {
            prop_assert!(!diag.to_string().chars().any(char::is_control), "{}", diag);
        }
    }

    #[test]
    fn a_printed_size_is_read_as_the_same_size(n in 1u64..1 << 20, shift in 0u32..44) {
        let bytes = n << shift;
        prop_assert_eq!(sim_core::units::parse_size(&super::print::size(bytes)), Ok(bytes));
    }

    #[test]
    fn a_mutated_scenario_is_read_or_refused_in_one_line(
        edits in proptest::collection::vec((0usize..GOOD.len(), 0usize..12, "[\\[\\]{}=\"'a-z0-9.:@+# ,\\n\u{0}é\\\\]{0,3}"), 1..4),
    ) {
        let mut text = GOOD.to_owned();
        for (at, cut, junk) in edits {
            let from = text.floor_char_boundary(at);
            let to = text.floor_char_boundary(at + cut).max(from);
            text.replace_range(from..to, &junk);
        }
        match parse(&text) {
            Ok(s) => {
                let again = parse(&s.to_text());
                prop_assert_eq!(again.as_ref().map_err(|d| d.render()), Ok(&s));
                let _ = s.bind(&spr());
            }
            Err(diag) => {
                let line = diag.to_string();
                prop_assert!(line.starts_with("s.toml:") && !line.chars().any(char::is_control), "{}", line);
                prop_assert!(diag.line as usize <= text.matches('\n').count() + 1);
                prop_assert!(diag.render().lines().count() >= 5);
            }
        }
    }

    #[test]
    fn a_scenario_cut_off_anywhere_is_read_or_refused(at in 0usize..GOOD.len()) {
        let text = &GOOD[..GOOD.floor_char_boundary(at)];
        if let Ok(s) = parse(text) {
            prop_assert!(!s.checks.is_empty());
        }
    }
}
