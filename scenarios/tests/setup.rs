//! What stands before a program: `[tdx]` and `[td.NAME]` of scenario files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use expect_test::expect;
use machine::{AgentKind, AgentSpec, Machine, Options};
use scenarios::diag::Diag;
use scenarios::format::Scenario;
use scenarios::platform::Override;
use scenarios::report::{RunReport, Verdict};
use scenarios::run::{Request, Speed, linux, plan, run};
use sim_core::event::EventKind;
use sim_core::op::CallRegs;
use sim_core::tdx::Leaf;
use sim_core::{KeyId, Op};

/// A scenario of these tables, this program and these final checks.
fn text(tables: &str, program: &str, finals: &[&str]) -> String {
    let finals: Vec<String> = finals.iter().map(|check| format!("{check:?}")).collect();
    format!(
        "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = '''\n{program}\n'''\n\
         [expect]\nfinal = [{}]\n{tables}\n",
        finals.join(", ")
    )
}

fn run_with(text: &str, request: &Request) -> Result<RunReport, Diag> {
    let scenario = Scenario::from_text("s.toml", text)?;
    let cells = plan(&scenario, request)?;
    run(cells.first().unwrap(), request)
}

fn good(text: &str, request: &Request) -> RunReport {
    let report = run_with(text, request).unwrap_or_else(|d| panic!("{}", d.render()));
    assert_eq!(
        report.verdict,
        Verdict::Pass,
        "{text}\n{:#?}\n{:?}",
        report.expectations,
        report.notes
    );
    report
}

const READY: &str = "[tdx]\nstate = \"ready\"\n";
const P0: &str = "[regions]\nP0 = { base = \"0x100800000\", size = \"8KiB\" }\n";

#[test]
fn the_module_is_ready_whatever_the_platform_has() {
    let finals = ["module SYS_READY", "kot priv0 RESERVED", "births 0", "pamt 0x13ffff000 PT_NDA"];
    for (set, tables) in [
        (&[][..], READY.to_owned()),
        (&[("cpu.packages", "2"), ("cpu.cores", "8")], READY.to_owned()),
        (&[("tdx.dynamic_pamt", "true")], READY.to_owned()),
        (&[], format!("{READY}tdmrs = \"0x100000000-0x180000000 0x200000000-0x240000000\"\n")),
        // A PAMT inside its own TDMR is a reserved area of it.
        (&[], format!("{READY}pamt = \"0x100000000\"\n")),
    ] {
        for speed in [Speed::Timed, Speed::Functional] {
            let overrides = set.iter().map(|(key, value)| Override::set(key, value)).collect();
            let request = Request { overrides, speed, ..Request::default() };
            good(&text(&tables, "cpu0 : mfence", &finals), &request);
        }
    }
    let inside = format!("{READY}pamt = \"0x100000000\"\n");
    let reserved =
        ["pamt 0x100000000 PT_RSVD", "pamt 0x100402000 PT_RSVD", "pamt 0x100403000 PT_NDA"];
    good(&text(&inside, "cpu0 : mfence", &reserved), &Request::default());
    let holes = format!("{READY}tdmrs = \"0x0-0x80000000\"\n");
    let reserved = [
        "pamt 0x0 PT_RSVD",
        "pamt 0xff000 PT_RSVD",
        "pamt 0x100000 PT_NDA",
        "pamt 0x77800000 PT_RSVD",
    ];
    good(&text(&holes, "cpu0 : mfence", &reserved), &Request::default());
    good(&text("", "cpu0 : mfence", &["module SYSINIT_PENDING"]), &Request::default());
}

#[test]
fn a_td_is_built_as_far_as_its_table_says() {
    for (state, finals) in [
        (
            "created",
            &["life-cycle A_TDR HKID_ASSIGNED", "pamt A_TDR PT_TDR", "kot priv1 ASSIGNED"][..],
        ),
        ("keyed", &["life-cycle A_TDR KEYS_CONFIGURED", "op-state A_TDR UNINIT"]),
        (
            "initialized",
            &[
                "op-state A_TDR INITIALIZED",
                "pamt A_VP0 PT_TDVPR",
                "pamt A_TDCS5 PT_TDCX",
                "owner A_VP0_5 A_TDR",
            ],
        ),
        ("runnable", &["op-state A_TDR RUNNABLE", "not td-fatal A_TDR"]),
    ] {
        for (packages, dynamic) in [("1", "false"), ("2", "true")] {
            let tables = format!("{READY}[td.A]\nhkid = \"priv1\"\nstate = \"{state}\"\n");
            let overrides = vec![
                Override::set("cpu.packages", packages),
                Override::set("tdx.dynamic_pamt", dynamic),
            ];
            let request = Request { overrides, speed: Speed::Functional, ..Request::default() };
            good(&text(&tables, "cpu0 : mfence", finals), &request);
        }
    }
}

#[test]
fn the_pages_of_a_td_are_those_of_its_table_and_hold_what_it_says() {
    let tables = format!(
        "[regions]\nP = {{ base = \"0x100800000\", size = \"12KiB\" }}\nBIG = {{ base = \"0x100a00000\", size = \"2MiB\" }}\n\
         G = {{ gpa = \"0x3000\", size = \"4KiB\" }}\n\
         [agents]\ng0 = {{ kind = \"guest\", vcpu = \"A_VP1\" }}\n{READY}\
         [td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\nvcpus = 2\nattributes = [\"debug\", \"sept-ve-disable\"]\n\
         pages = [\"0x0 add P\", \"0x1000 add P+0x1000 fill=0x77\", \"G aug P+0x2000\", \"0x200000 aug-2m BIG\"]\n\
         tables = [\"0x40000000 1\", \"0x40200000 0\"]\n\
"
    );
    // VCPU 1 is associated with core 1.
    let program = "cpu0 : tdh.mem.rd rcx=0x1008 rdx=[A_TDR]\ncpu0 : tdh.vp.enter rcx=[A_VP1]\ncpu1 : tdh.vp.enter rcx=[A_VP1]\n\
                   g0 : load [0x0] 8\ng0 : load [0x1000] 8\ng0 : tdg.mem.page.accept rcx=0x200000|1\ng0 : load [0x200040] 8\n\
                   g0 : load [G] 8";
    let finals = [
        "sept A_TDR 0x0|0 MAPPED",
        "sept A_TDR 0x1000|0 MAPPED",
        "sept A_TDR 0x3000|0 PENDING",
        "sept A_TDR 0x200000|1 MAPPED",
        "sept A_TDR 0x40000000|1 FREE",
        "sept A_TDR 0x40200000|1 NL_MAPPED",
        "sept A_TDR 0x40200000|0 FREE",
        "pamt BIG+0x5000 PT_REG",
        "owner P A_TDR",
        // Three tables for the first GiB and one for the small pages at its begin; one and one more for the second.
        "pamt A_SEPT4 PT_EPT",
        "births 0",
    ];
    let report = good(&text(&tables, program, &finals), &Request::default());
    let seen: Vec<String> =
        report.steps.iter().map(|s| format!("{} {}", s.step, s.outcome)).collect();
    expect![[r#"
        cpu0.1 tdx SUCCESS r8=0x7777777777777777
        cpu0.2 tdx VCPU_ASSOCIATED rcx=0x10000d000
        g0.1 zeros
        g0.2 data 0x7777777777777777
        g0.3 tdx SUCCESS rcx=0x200001
        g0.4 zeros
        g0.5 td-exit 48 gpa=0x3000
        cpu1.1 tdx SUCCESS|48 rcx=0x1 rdx=0x6 r8=0x3000"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn control_pages_get_the_lowest_memory_that_no_region_has() {
    let tables = format!(
        "[regions]\nLOW = {{ base = \"0x100000000\", size = \"8256B\" }}\nMID = {{ base = \"0x100006000\", size = \"4KiB\" }}\n{READY}\
         [td.A]\nhkid = \"priv1\"\nstate = \"initialized\"\nvcpus = 0\npages = [\"0x0 add 0x100004000\"]\n\
         [td.B]\nhkid = \"priv2\"\nstate = \"created\"\n"
    );
    let scenario =
        Scenario::from_text("s.toml", &text(&tables, "cpu0 : mfence", &["births 0"])).unwrap();
    let cells = plan(&scenario, &Request::default()).unwrap();
    let areas = &cells.first().unwrap().program().areas;
    let shown: Vec<String> = areas.iter().map(|a| format!("{:#x} {}", a.base, a.name)).collect();
    expect![[r#"
        0x100000000 LOW
        0x100006000 MID
        0x100003000 A_TDR
        0x100005000 A_TDCS0
        0x100007000 A_TDCS1
        0x100008000 A_TDCS2
        0x100009000 A_TDCS3
        0x10000a000 A_TDCS4
        0x10000b000 A_TDCS5
        0x10000c000 A_SEPT0
        0x10000d000 A_SEPT1
        0x10000e000 A_SEPT2
        0x10000f000 B_TDR"#]]
    .assert_eq(&shown.join("\n"));
}

#[test]
fn a_setup_leaves_no_event_and_no_dirty_line_of_the_host() {
    let tables = format!(
        "{P0}{READY}[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\npages = [\"0x0 add P0 fill=0x11\", \"0x1000 aug P0+0x1000\"]\n"
    );
    let scenario =
        Scenario::from_text("s.toml", &text(&tables, "cpu0 : mfence", &["births 0"])).unwrap();
    let cells = plan(&scenario, &Request::default()).unwrap();
    let cell = cells.first().unwrap();
    let setup = cell.program().setup.as_ref().unwrap();
    for speed in [Speed::Timed, Speed::Functional] {
        let options = Options { speed, crypto: cell.program().crypto, seed: 7, log: true };
        let mut machine = Machine::new(cell.platform(), options).unwrap();
        setup.run(&mut machine, &mut linux(cell.platform())).unwrap();
        assert_eq!(machine.trace().events(), []);
        assert!(machine.trace().is_on() && machine.options().speed == speed);
        assert!(machine.module().is_quiet());
        let dirty = |keyid| {
            let lines = machine.caches().resident_lines().map(|line| line.tag);
            let is_dirty = |at| machine.caches().inspect(at).is_some_and(|view| view.dirty);
            lines.filter(|at| at.keyid() == keyid && is_dirty(*at)).count()
        };
        assert_eq!(dirty(KeyId::TME), 0);
        assert!(dirty(KeyId(64)) > 0, "the module's own lines stay in the caches");
        assert_eq!(machine.conservation(), [""; 0]);
    }
}

#[test]
fn what_the_tables_ask_for_and_cannot_have_is_said_at_its_place() {
    let td = |lines: &str| {
        format!("{P0}{READY}[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\n{lines}\n")
    };
    let mut out = String::new();
    for tables in [
        "[tdx]\nstate = \"up\"\n".to_owned(),
        "[tdx]\nstat = \"ready\"\n".to_owned(),
        "[tdx]\nglobal = \"priv1\"\n".to_owned(),
        format!("{READY}global = \"shared0\"\n"),
        format!("{READY}global = 7\n"),
        format!("{READY}tdmrs = \"0x100000000\"\n"),
        format!("{READY}tdmrs = \"0x100000000-0x120000000\"\n"),
        format!("{READY}tdmrs = \"0x140000000-0x180000000 0x100000000-0x140000000\"\n"),
        format!("{READY}tdmrs = \"0x5000000000-0x5040000000\"\n"),
        format!("{READY}pamt = \"0x100000800\"\n"),
        format!("{READY}pamt = \"0x79000000\"\n"),
        format!("{P0}[td.A]\nhkid = \"priv1\"\nstate = \"created\"\n"),
        format!("{READY}[td.A-B]\nhkid = \"priv1\"\nstate = \"created\"\n"),
        format!("{READY}[td.A]\nstate = \"created\"\n"),
        format!("{READY}[td.A]\nhkid = \"priv1\"\n"),
        format!("{READY}[td.A]\nhkid = \"priv1\"\nstate = \"created\"\nvcpus = 1\n"),
        format!("{READY}[td.A]\nhkid = \"priv0\"\nstate = \"created\"\n"),
        format!("{READY}[td.A]\nhkid = \"priv4000\"\nstate = \"created\"\n"),
        format!("{READY}[td.A]\nhkid = \"5\"\nstate = \"created\"\n"),
        format!(
            "[regions]\nA_TDR = {{ base = \"0x100000000\", size = \"4KiB\" }}\n{READY}[td.A]\nhkid = \"priv1\"\nstate = \"created\"\n"
        ),
        td("vcpus = 2\nmax-vcpus = 1"),
        td("vcpus = 0"),
        td("vcpus = \"two\""),
        td("gpaw = 50"),
        td("gpaw = 52\nlevels = 4"),
        td("attributes = [\"perfmon\"]"),
        td("attributes = [\"debug\", \"debug\"]"),
        td("pages = \"0x0 add P0\""),
        td("pages = [\"0x0 add\"]"),
        td("pages = [\"0x0 put P0\"]"),
        td("pages = [\"0x0 add P0@priv1\"]"),
        td("pages = [\"0x0 aug P0 fill=0x11\"]"),
        td("pages = [\"0x0 add P0 fill=0x111\"]"),
        td("pages = [\"0x0 add P1\"]"),
        td("pages = [\"0x800 add P0\"]"),
        td("pages = [\"0x0 add P0+0x800\"]"),
        td("pages = [\"0x0 add P0+0x2000\"]"),
        td("pages = [\"0x0 add 0x200000\"]"),
        td("pages = [\"0x0 aug-2m 0x100801000\"]"),
        td("pages = [\"0x0 add P0\", \"0x0 add P0+0x1000\"]"),
        td("pages = [\"0x0 add P0\", \"0x1000 aug P0\"]"),
        td("pages = [\"0x800000000000 add P0\"]"),
        td("tables = [\"0x0 4\"]"),
        td("tables = [\"0x0 1 2\"]"),
    ] {
        let shown =
            match run_with(&text(&tables, "cpu0 : mfence", &["births 0"]), &Request::default()) {
                Ok(report) => format!("accepted, {:?}", report.verdict),
                Err(diag) => diag.to_string(),
            };
        let last = tables.trim_end().lines().last().unwrap_or("");
        out.push_str(&format!("{last}\n    {shown}\n"));
    }
    expect![[r#"
        state = "up"
            s.toml:12:9: found `up`, expected one of loaded, ready
        stat = "ready"
            s.toml:12:1: found unknown key `stat`, expected a known key: did you mean `state`?
        global = "priv1"
            s.toml:12:1: found `global` of a module that is only loaded, expected `state = "ready"`, or no such key
        global = "shared0"
            s.toml:13:10: found KeyID shared0, expected a private KeyID: priv0 to priv63
        global = 7
            s.toml:13:10: found integer `7`, expected a KeyID as text: privN or a number
        tdmrs = "0x100000000"
            s.toml:13:9: found `0x100000000`, expected ranges as text, such as "0x100000000-0x140000000"
        tdmrs = "0x100000000-0x120000000"
            s.toml:13:9: found TDMR 0x100000000-0x120000000, expected whole GiB from a multiple of 1 GiB
        tdmrs = "0x140000000-0x180000000 0x100000000-0x140000000"
            s.toml:13:9: found `0x140000000-0x180000000 0x100000000-0x14…`, expected TDMRs that rise and do not overlap
        tdmrs = "0x5000000000-0x5040000000"
            s.toml:13:9: found TDMR 0x5000000000-0x5040000000 without convertible memory, expected some of tdx.cmrs: 0x100000-0x77800000 0x100000000-0x206e000000 0x2080000000-0x4070000000
        pamt = "0x100000800"
            s.toml:13:8: found `0x100000800`, expected a multiple of 4096
        pamt = "0x79000000"
            s.toml:11:2: found TDH.SYS.CONFIG: 0xc0000a1100000200 TDX_PAMT_OUTSIDE_CMRS | TDMR 0, area 2, expected TDMRs, PAMTs and a global HKID that the module accepts
        state = "created"
            s.toml:13:5: found TD `A` of a module that is only loaded, expected a table [tdx] with `state = "ready"`
        state = "created"
            s.toml:13:5: found `A-B`, expected a name of A-Z, a-z, 0-9 and _, at most 16, not starting with a digit
        state = "created"
            s.toml:13:1: found a table without `hkid`, expected `hkid = "priv1"`
        hkid = "priv1"
            s.toml:13:1: found a table without `state`, expected `state = "runnable"`
        vcpus = 1
            s.toml:16:1: found `vcpus` of a TD that is only created, expected a TD that is initialized or runnable
        state = "created"
            s.toml:13:5: found TDH.MNG.CREATE: 0xc000082000000000 TDX_HKID_NOT_FREE, expected an HKID that nobody has
        state = "created"
            s.toml:14:8: found `priv4000`, expected priv0 to priv63 on platform spr
        state = "created"
            s.toml:14:8: found KeyID 5, expected a private KeyID: priv0 to priv63
        state = "created"
            s.toml:12:1: found region `A_TDR`, expected another name: TD `A` names its pages so
        max-vcpus = 1
            s.toml:15:5: found TDH.VP.INIT: 0xc000070500000000 TDX_MAX_VCPUS_EXCEEDED, expected max-vcpus that has room for every VCPU
        vcpus = 0
            s.toml:15:5: found TDH.MR.FINALIZE: 0xc000060900000000 TDX_NO_VCPUS, expected at least one VCPU
        vcpus = "two"
            s.toml:18:9: found text `two`, expected a number, 0 to 64
        gpaw = 50
            s.toml:18:8: found integer `50`, expected 48 or 52
        levels = 4
            s.toml:15:5: found TDH.MNG.INIT: 0xc000010000000043 TDX_OPERAND_INVALID | EPTP_CONTROLS, expected attributes, gpaw, levels and max-vcpus that the module accepts
        attributes = ["perfmon"]
            s.toml:18:15: found `perfmon`, expected a list of debug, sept-ve-disable
        attributes = ["debug", "debug"]
            s.toml:18:24: found `debug`, expected each attribute once
        pages = "0x0 add P0"
            s.toml:18:9: found text `0x0 add P0`, expected a list of text such as ["0x0 add P0"]
        pages = ["0x0 add"]
            s.toml:18:18: found nothing, expected a page of the host: a region or a number, without KeyID
        pages = ["0x0 put P0"]
            s.toml:18:15: found `put`, expected one of add, aug, aug-2m
        pages = ["0x0 add P0@priv1"]
            s.toml:18:19: found `P0@priv1`, expected a page of the host: a region or a number, without KeyID
        pages = ["0x0 aug P0 fill=0x11"]
            s.toml:18:22: found `fill=0x11`, expected nothing: only add has content
        pages = ["0x0 add P0 fill=0x111"]
            s.toml:18:22: found `fill=0x111`, expected fill=BYTE, 0 to 255
        pages = ["0x0 add P1"]
            s.toml:18:10: found unknown region `P1`, expected a region: P0
        pages = ["0x800 add P0"]
            s.toml:18:10: found guest-physical address 0x800, expected a multiple of 0x1000
        pages = ["0x0 add P0+0x800"]
            s.toml:18:10: found page 0x100800800, expected a multiple of 0x1000
        pages = ["0x0 add P0+0x2000"]
            s.toml:18:10: found `P0+0x2000`, expected an offset below 0x2000, the size of the region
        pages = ["0x0 add 0x200000"]
            s.toml:18:10: found page 0x200000, expected memory of a TDMR: 0x100000000-0x140000000
        pages = ["0x0 aug-2m 0x100801000"]
            s.toml:18:10: found page 0x100801000, expected a multiple of 0x200000
        pages = ["0x0 add P0", "0x0 add P0+0x1000"]
            s.toml:18:24: found TDH.MEM.PAGE.ADD: 0xc0000b0d00000001 TDX_EPT_ENTRY_STATE_INCORRECT | RCX, expected a free page, a free guest-physical address, and an HKID in use
        pages = ["0x0 add P0", "0x1000 aug P0"]
            s.toml:18:24: found TDH.MEM.PAGE.AUG: 0xc000030000000008 TDX_PAGE_METADATA_INCORRECT | R8, expected a free page, a free guest-physical address, and an HKID in use
        pages = ["0x800000000000 add P0"]
            s.toml:15:5: found TDH.MEM.SEPT.ADD: 0xc000010000000001 TDX_OPERAND_INVALID | RCX, expected guest-physical addresses that are private and below gpaw
        tables = ["0x0 4"]
            s.toml:18:16: found `4`, expected the level of an entry, 0 to 3
        tables = ["0x0 1 2"]
            s.toml:18:18: found `2`, expected nothing more
    "#]].assert_eq(&out);
}

#[test]
fn a_call_that_is_not_modelled_is_named_and_its_run_is_neither_good_nor_bad() {
    let program = "cpu0 : tdh.servtd.bind\ncpu0 : mfence";
    // The final check does not hold, which would be a failure if the run said anything.
    let report = run_with(&text(READY, program, &["births 1"]), &Request::default()).unwrap();
    assert_eq!(report.verdict, Verdict::NotModelled);
    assert_eq!(report.notes, ["not modelled: TDH.SERVTD.BIND"]);
}

#[test]
fn entries_and_exits_are_told_in_either_order() {
    for order in ["program", "concurrent"] {
        for speed in [Speed::Timed, Speed::Functional] {
            let tables = format!(
                "{P0}[agents]\ng0 = {{ kind = \"guest\", vcpu = \"A_VP0\" }}\n{READY}\
                 [td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\npages = [\"0x0 add P0 fill=0x11\"]\n"
            );
            let program = "cpu0 : tdh.vp.enter rcx=[A_VP0]\ng0 : load [0x0] 8\ng0 : tdg.vp.vmcall\ncpu1 : load [P0] 8";
            let text = text(&tables, program, &["births 0"])
                .replace("platform = \"spr\"\n", &format!("platform = \"spr\"\norder = \"{order}\"\n"))
                .replace("[expect]\n", "[expect]\n\"g0.1\" = \"data 0x1111111111111111\"\n\"cpu0.1\" = \"tdx SUCCESS|77\"\n\"cpu1.1\" = \"zeros\"\n");
            let request = Request { speed, ..Request::default() };
            let report = good(&text, &request);
            let told: Vec<String> = report
                .td_events
                .iter()
                .map(|e| {
                    let vcpu = e.vcpu.as_ref().and_then(|v| v.region.clone()).unwrap_or_default();
                    let step = e.step.clone().unwrap_or_default();
                    format!(
                        "{step} {} {vcpu} {}",
                        e.what,
                        e.status_name.clone().unwrap_or_default()
                    )
                })
                .collect();
            assert_eq!(
                told,
                ["cpu0.1 enter A_VP0 ", "cpu0.1 exit A_VP0 TDX_SUCCESS | exit reason 77 (TDCALL)"]
            );
            assert!(report.td_events.iter().all(|e| e.at_ps >= report.setup_ps));
        }
    }
}

#[test]
fn what_the_tables_set_up_is_checked_as_the_program_is() {
    let request = Request { check: true, ..Request::default() };
    let report = good(&text(READY, "cpu0 : mfence", &["births 0"]), &request);
    let checked = report.check.unwrap();
    assert_eq!((checked.operations, checked.calls_not_judged), (1, 0));
    // TDH.SYS.INIT, TDH.SYS.LP.INIT on every core and the rest of linux-host-paths.md §3.
    assert!(checked.setup_operations > 100 && checked.calls_judged > 100, "{checked:?}");
}

#[test]
fn a_guest_has_the_addresses_of_its_td() {
    let tables = format!(
        "{P0}[agents]\ng0 = {{ kind = \"guest\", vcpu = \"A_VP0\" }}\n{READY}\
         [td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\ngpaw = 52\npages = [\"0x800000000000 add P0 fill=0x11\"]\n"
    );
    // Bit 47 is the SHARED bit with 48 address bits; with 52 it is an address bit, and bit 51 the SHARED bit.
    let program = "cpu0 : tdh.vp.enter rcx=[A_VP0]\ng0 : load [0x800000000000] 8\ng0 : load [SHARED+0x1000] 8";
    let report = good(&text(&tables, program, &["births 0"]), &Request::default());
    let seen: Vec<&str> = report.steps.iter().map(|s| s.outcome.as_str()).collect();
    expect![[r#"
        data 0x1111111111111111
        td-exit 48 gpa=0x8000000001000
        tdx SUCCESS|48 rcx=0x1 r8=0x8000000001000"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn a_final_check_that_does_not_hold_says_what_is_there() {
    let tables = format!(
        "{P0}{READY}[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\npages = [\"0x0 add P0\"]\ntables = [\"0x40000000 1\"]\n"
    );
    let finals = [
        "module SYS_SHUTDOWN",
        "pamt P0 PT_NDA",
        "pamt P0+0x1000 PT_REG",
        "pamt 0x10000000 PT_REG",
        "owner P0 P0",
        "owner P0+0x1000 A_TDR",
        "kot priv1 FREE",
        "kot shared0 ASSIGNED",
        "life-cycle A_TDR TEARDOWN",
        "life-cycle P0 TEARDOWN",
        "op-state A_TDR INITIALIZED",
        "td-fatal A_TDR",
        "not td-fatal P0",
        "sept A_TDR 0x0|0 PENDING",
        "sept A_TDR 0x0|1 MAPPED",
        "sept A_TDR 0x40000000|0 FREE",
        "sept A_TDR 0x8000000000|2 FREE",
        "sept P0 0x0|0 FREE",
        "tlb 0 A_TDR 0x0",
        "tlb 99 A_TDR 0x0",
    ];
    let report = run_with(&text(&tables, "cpu0 : mfence", &finals), &Request::default()).unwrap();
    assert!(report.expectations.iter().all(|e| !e.met), "{:#?}", report.expectations);
    let seen: Vec<String> =
        report.expectations.iter().map(|e| format!("{}: {}", e.subject, e.seen)).collect();
    expect![[r#"
        module SYS_SHUTDOWN: SYS_READY
        pamt P0 PT_NDA: PT_REG
        pamt P0+0x1000 PT_REG: PT_NDA
        pamt 0x10000000 PT_REG: PT_NDA
        owner P0 P0: PT_REG, owner 0x100000000
        owner P0+0x1000 A_TDR: PT_NDA, owner 0x0
        kot priv1 FREE: ASSIGNED
        kot shared0 ASSIGNED: FREE
        life-cycle A_TDR TEARDOWN: KEYS_CONFIGURED
        life-cycle P0 TEARDOWN: no TD at 0x100800000
        op-state A_TDR INITIALIZED: RUNNABLE
        td-fatal A_TDR: it is not
        not td-fatal P0: no TD at 0x100800000
        sept A_TDR 0x0|0 PENDING: MAPPED
        sept A_TDR 0x0|1 MAPPED: NL_MAPPED
        sept A_TDR 0x40000000|0 FREE: the walk ends at level 1: FREE
        sept A_TDR 0x8000000000|2 FREE: the walk ends at level 3: FREE
        sept P0 0x0|0 FREE: no TD at 0x100800000
        tlb 0 A_TDR 0x0: no translation
        tlb 99 A_TDR 0x0: no translation"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn a_call_is_told_as_a_kernel_trace_has_it() {
    let tables = format!(
        "{P0}{READY}[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\ntables = [\"0x0 0\"]\n"
    );
    let program = "cpu0 : tdh.mem.page.aug rcx=0x0 rdx=[A_TDR] r8=[P0]\n\
                   cpu0 : tdh.mem.page.aug rcx=0x0 rdx=[A_TDR] r8=[P0+0x1000]\n\
                   cpu0 : tdh.mem.range.block rcx=0x0 rdx=[A_TDR]\n\
                   cpu0 : tdh.mem.track rcx=[A_TDR] r13=7\n\
                   cpu0 : tdh.mem.page.remove rcx=0x0 rdx=[A_TDR]\n\
                   cpu0 : tdh.phymem.page.wbinvd rcx=[P0@priv1]\n\
                   cpu0 : tdh.vp.rd.v1 rcx=[A_VP0] rdx=0x1\n\
                   cpu0 : seamcall 99 r9=5";
    let report = run_with(&text(&tables, program, &["births 0"]), &Request::default()).unwrap();
    let told: Vec<String> = report
        .steps
        .iter()
        .filter_map(|s| s.call.as_ref())
        .map(|call| format!("{}  # {}", call.trace("nothing"), call.margin()))
        .collect();
    expect![[r#"
        tdh_mem_page_aug(rcx=0x0, rdx=0x100000000, r8=0x100800000) = 0x0000000000000000 TDX_SUCCESS  # rdx A_TDR, r8 P0
        tdh_mem_page_aug(rcx=0x0, rdx=0x100000000, r8=0x100801000) = 0xc0000b0d00000001 TDX_EPT_ENTRY_STATE_INCORRECT | RCX; rcx=0x80000001008000f0 rdx=0x200  # rdx A_TDR, r8 P0+0x1000
        tdh_mem_range_block(rcx=0x0, rdx=0x100000000) = 0x0000000000000000 TDX_SUCCESS  # rdx A_TDR
        tdh_mem_track(rcx=0x100000000, r13=0x7) = 0x0000000000000000 TDX_SUCCESS  # rcx A_TDR
        tdh_mem_page_remove(rcx=0x0, rdx=0x100000000) = 0x0000000000000000 TDX_SUCCESS; rcx=0x100800000  # rdx A_TDR, -> rcx P0
        tdh_phymem_page_wbinvd(rcx=0x8200100800000) = 0x0000000000000000 TDX_SUCCESS  # rcx P0@65
        tdh_vp_rd_v1(rcx=0x100007000, rdx=0x1) = 0xc0000c0000000000 TDX_METADATA_FIELD_ID_INCORRECT; rdx=0xffffffffffffffff  # rcx A_VP0
        seamcall_99(r9=0x5) = 0xc000010000000000 TDX_OPERAND_INVALID | RAX  # "#]].assert_eq(&told.join("\n"));
}

#[test]
fn the_log_has_what_the_module_changed() {
    let tables = format!(
        "{P0}{READY}[td.A]\nhkid = \"priv1\"\nstate = \"runnable\"\ntables = [\"0x0 0\"]\n"
    );
    let text = text(&tables, "cpu0 : mfence", &["births 0"]);
    let cells = plan(&Scenario::from_text("s.toml", &text).unwrap(), &Request::default()).unwrap();
    let cell = cells.first().unwrap();
    let options =
        Options { speed: Speed::Functional, crypto: cell.program().crypto, seed: 0, log: true };
    let mut machine = Machine::new(cell.platform(), options).unwrap();
    let mut os = linux(cell.platform());
    cell.program().setup.as_ref().unwrap().run(&mut machine, &mut os).unwrap();
    let place = |name: &str| cell.program().areas.iter().find(|a| a.name == name).unwrap().base;
    let (tdr, page) = (place("A_TDR"), place("P0"));
    let cpu = machine.add_agent(AgentSpec {
        name: "cpu0".to_owned(),
        kind: AgentKind::Kernel,
        core: 0,
        keyid: KeyId::TME,
        vcpu: None,
    });
    let mut call = |leaf, [rcx, rdx, r8]: [u64; 3]| {
        let regs = CallRegs([rcx, rdx, r8, 0, 0, 0, 0, 0]);
        machine.execute(cpu, &Op::Seamcall { leaf, version: 0, regs }, 0, &mut os);
    };
    call(Leaf::MEM_PAGE_AUG, [0, tdr, page]);
    // Refused: nothing changes.
    call(Leaf::MEM_PAGE_AUG, [0, tdr, page + 0x1000]);
    call(Leaf::MNG_CREATE, [page + 0x1000, 66, 0]);
    let told: Vec<String> = machine
        .trace()
        .events()
        .iter()
        .filter(|e| {
            matches!(
                e.kind,
                EventKind::Call { .. }
                    | EventKind::Returned { .. }
                    | EventKind::Pamt { .. }
                    | EventKind::Sept { .. }
                    | EventKind::Kot { .. }
            )
        })
        .map(|e| format!("{:x?}", e.kind))
        .collect();
    expect![[r#"
        Call { core: 0, guest: false, leaf: 6 }
        Sept { td: page 0x100000000, table: page 0x10000f000, index: 0, before: 80e0000000000800, after: 81000001008000f0 }
        Pamt { page: page 0x100800000, level: 0, before: Nda, after: Reg, owner: page 0x100000000 }
        Returned { core: 0, guest: false, leaf: 6, status: 0x0000000000000000 }
        Call { core: 0, guest: false, leaf: 6 }
        Returned { core: 0, guest: false, leaf: 6, status: 0xc0000b0d00000001 }
        Call { core: 0, guest: false, leaf: 9 }
        Kot { keyid: KeyId(42), before: 0, after: 1 }
        Pamt { page: page 0x100801000, level: 0, before: Nda, after: Tdr, owner: page 0x0 }
        Returned { core: 0, guest: false, leaf: 9, status: 0x0000000000000000 }"#]].assert_eq(&told.join("\n"));
}
