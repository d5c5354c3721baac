//! TDX calls and guests in scenario files.

use super::tests::{parse, pattern, spr};
use super::*;
use expect_test::expect;
use proptest::prelude::*;
use sim_core::outcome::CallResult;
use sim_core::tdx::{ExitReason, Leaf, Operand, Status};
use sim_core::{Addr, Hpa, KeyId, Op, Outcome};

/// A scenario with two guests, host and guest regions.
fn with(program: &str, expect: &str) -> String {
    format!(
        "[scenario]\nname = \"x\"\ntitle = \"t\"\ncite = [\"c\"]\nplatform = \"spr\"\nprogram = '''\n{program}\n'''\n\
         [regions]\nTDR = {{ base = \"0x40000000\", size = \"4KiB\" }}\nVP0 = {{ base = \"0x40001000\", size = \"8KiB\" }}\n\
         G0 = {{ gpa = \"0x1000\", size = \"8KiB\" }}\nG1 = {{ gpa = \"0x2000\", size = \"4KiB\" }}\n\
         [agents]\ng0 = {{ kind = \"guest\", vcpu = \"VP0\" }}\n\
         g1 = {{ kind = \"guest\", vcpu = \"[VP0+0x1000]\", gpaw = 52 }}\n\
         [expect]\nfinal = [\"births 0\"]\n{expect}\n"
    )
}

fn bound(program: &str) -> Vec<Op> {
    let program = parse(&with(program, "")).unwrap_or_else(|d| panic!("{}", d.render()));
    let program = program.bind(&spr()).unwrap_or_else(|d| panic!("{}", d.render()));
    let op = |line: &ProgramLine| match line {
        ProgramLine::Step(step) => Some(step.op),
        ProgramLine::Barrier => None,
    };
    program.lines.iter().filter_map(op).collect()
}

fn regs(op: Op) -> [u64; 8] {
    match op {
        Op::Seamcall { regs, .. } | Op::Tdcall { regs, .. } => regs.0,
        other => panic!("{other}"),
    }
}

#[test]
fn a_register_holds_the_physical_address_with_its_keyid_bits() {
    // architecture.md §8: KeyID = PA bits [m-1 : m-k]; SPR has m = 52, k = 7 and private KeyIDs from 64.
    let ops = bound(
        "cpu0 : tdh.mng.create rcx=[TDR] rdx=priv1\n\
         cpu0 : tdh.phymem.page.wbinvd rcx=[TDR+0x40@priv1]|1\n\
         cpu0 : tdh.mem.sept.add.v1 r8=[VP0] rcx=[G0+0x1000]|1 rdx=[TDR]|1\n\
         cpu0 : seamcall 47 r13=shared0 r12=0x10|0x3 r11=0x3|0x5",
    );
    assert_eq!(regs(ops[0]), [0x4000_0000, 65, 0, 0, 0, 0, 0, 0]);
    assert_eq!(regs(ops[1])[0], 65 << 45 | 0x4000_0041);
    assert_eq!(regs(ops[2]), [0x2001, 0x4000_0001, 0x4000_1000, 0, 0, 0, 0, 0]);
    assert!(matches!(ops[2], Op::Seamcall { leaf: Leaf::MEM_SEPT_ADD, version: 1, .. }));
    assert_eq!(regs(ops[3]), [0, 0, 0, 0, 0, 7, 0x13, 1]);
}

#[test]
fn a_guests_addresses_are_numbers_guest_regions_and_the_shared_bit() {
    let ops = bound(
        "g0 : load [G0+0x8] 8\n\
         g0 : load [0xffff800000000000] 8\n\
         g0 : load [SHARED+0x1000] 8\n\
         g1 : load [SHARED+0x1000] 8\n\
         g0 : tdg.vp.vmcall r12=[SHARED]|0x1\n\
         g1 : mov-cr3 [G1]|0x18\n\
         g1 : invlpg [SHARED]",
    );
    let at = |op: Op| op.addresses()[0].copied();
    let guest = |address| Some(Addr::new(Hpa(address), KeyId::TME));
    assert_eq!(at(ops[0]), guest(0x1008));
    assert_eq!(at(ops[1]), guest(0xffff_8000_0000_0000));
    assert_eq!(at(ops[2]), guest(1 << 47 | 0x1000));
    assert_eq!(at(ops[3]), guest(1 << 51 | 0x1000));
    assert_eq!(regs(ops[4])[6], 1 << 47 | 1);
    assert_eq!(ops[5], Op::MovCr3 { value: 0x2018 });
    assert_eq!(at(ops[6]), guest(1 << 51));
}

#[test]
fn a_bound_guest_knows_its_vcpu_and_has_no_core() {
    let scenario = parse(&with("g1 : mfence", "")).unwrap();
    let program = scenario.bind(&spr()).unwrap();
    let agents: Vec<_> = program.agents.iter().map(|a| (a.kind, a.core, a.vcpu)).collect();
    let guest = |hpa| (AgentKind::Guest, None, Some(Hpa(hpa)));
    assert_eq!(agents, [guest(0x4000_1000), guest(0x4000_2000)]);
    assert_eq!(scenario.agents[0].vcpu.as_ref().map(|v| v.gpaw), Some(48));
    let text = scenario.to_text();
    assert!(text.contains("g0 = { kind = \"guest\", vcpu = \"VP0\" }"), "{text}");
    assert!(text.contains("g1 = { kind = \"guest\", vcpu = \"VP0+0x1000\", gpaw = 52 }"), "{text}");
    assert!(text.contains("G0 = { gpa = \"0x1000\", size = \"8KiB\" }"), "{text}");
    assert_eq!(parse(&text).unwrap(), scenario);
}

fn shown(label: &str, text: &str) -> String {
    let error = match parse(text).and_then(|s| s.bind(&spr())) {
        Ok(_) => "accepted".to_owned(),
        // The mark of the rendered message shows what is meant.
        Err(diag) => {
            let rendered = diag.render();
            let lines: Vec<&str> = rendered.lines().collect();
            format!("{diag}\n    {}\n    {}", lines[3], lines[4])
        }
    };
    format!("{label}\n    {error}\n")
}

#[test]
fn what_is_wrong_with_an_operand_is_said_at_its_place() {
    let lines = [
        "g0 : load [TDR] 8",
        "g0 : load [G0+0x2000] 8",
        "g0 : load [G0+0x1ffc] 8",
        "g0 : load [G0@priv1] 8",
        "g0 : load [0x1000@0] 8",
        "g0 : load [NONE] 8",
        "g0 : load [SHARED+0x800000000000] 8",
        "g0 : load [0xfffffffffffffffc] 8",
        "g0 : tdg.mem.page.accept rcx=[TDR]|1",
        "g0 : tdg.mem.page.accept rcx=[0x1000@priv1]",
        "g0 : interrupt",
        "g0 : dma-read [G0] 8",
        "g0 : tdh.mng.create",
        "cpu0 : tdg.vp.info",
        "cpu0 : invlpg [0x1000]",
        "cpu0 : mov-cr3 0x1000",
        "user0 : wrmsr 0x3b 0x1",
        "seam0 : tdh.sys.init",
        "dma0 : tdh.sys.init",
        "hw : tdh.sys.init",
        "cpu0 : starve 0 1",
        "hw : starve 4 1",
        "cpu0 : irq 4",
        "cpu0 : load [G0] 8",
        "cpu0 : load [SHARED] 8",
        "cpu0 : tdh.mng.create r8=[TDR] rcx=[NONE]",
        "cpu0 : tdh.mng.create  rdx=priv64 rcx=[ TDR ]",
        "cpu0 : tdh.mng.create rcx=[TDR] r8=[TDR+0x1000]|1 r9=[TDR]",
        "cpu0 : tdh.mng.create rcx=[TDR@128]",
        "cpu0 : tdh.mng.create rcx=[0x200000000000]",
        "cpu0 : tdh.mng.create rcx=[G0@priv1]",
        "cpu0 : tdh.mng.create rcx=[SHARED+0x1000]",
        "g0 : mov-cr3 [TDR]|1",
        "cpu0 : tdh.mng.create rcx=[TDR] rcx=1",
        "guest0 : mfence",
    ];
    let out: String = lines.iter().map(|line| shown(line, &with(line, ""))).collect();
    expect![[r#"
        g0 : load [TDR] 8
            s.toml:7:11: found `TDR`, host memory, by a guest, expected a region of guest memory: G0, G1
            7 | g0 : load [TDR] 8
              |           ^^^^^
        g0 : load [G0+0x2000] 8
            s.toml:7:11: found `G0+0x2000`, expected an offset below 0x2000, the size of the region
            7 | g0 : load [G0+0x2000] 8
              |           ^^^^^^^^^^^
        g0 : load [G0+0x1ffc] 8
            s.toml:7:11: found 8 bytes from `G0+0x1ffc`, expected an access that ends within `G0`, 0x2000 bytes
            7 | g0 : load [G0+0x1ffc] 8
              |           ^^^^^^^^^^^
        g0 : load [G0@priv1] 8
            s.toml:7:11: found `@priv1`, expected an address without KeyID: it is a guest's
            7 | g0 : load [G0@priv1] 8
              |           ^^^^^^^^^^
        g0 : load [0x1000@0] 8
            s.toml:7:11: found `@0`, expected an address without KeyID: it is a guest's
            7 | g0 : load [0x1000@0] 8
              |           ^^^^^^^^^^
        g0 : load [NONE] 8
            s.toml:7:11: found unknown region `NONE`, expected a region of guest memory: G0, G1
            7 | g0 : load [NONE] 8
              |           ^^^^^^
        g0 : load [SHARED+0x800000000000] 8
            s.toml:7:11: found `SHARED+0x800000000000`, expected an offset below 0x800000000000, the SHARED bit
            7 | g0 : load [SHARED+0x800000000000] 8
              |           ^^^^^^^^^^^^^^^^^^^^^^^
        g0 : load [0xfffffffffffffffc] 8
            s.toml:7:11: found an access beyond 2^64, expected a lower address
            7 | g0 : load [0xfffffffffffffffc] 8
              |           ^^^^^^^^^^^^^^^^^^^^
        g0 : tdg.mem.page.accept rcx=[TDR]|1
            s.toml:7:26: found `TDR`, host memory, by a guest, expected a region of guest memory: G0, G1
            7 | g0 : tdg.mem.page.accept rcx=[TDR]|1
              |                          ^^^^^^^^^^^
        g0 : tdg.mem.page.accept rcx=[0x1000@priv1]
            s.toml:7:26: found `@priv1`, expected an address without KeyID: it is a guest's
            7 | g0 : tdg.mem.page.accept rcx=[0x1000@priv1]
              |                          ^^^^^^^^^^^^^^^^^^
        g0 : interrupt
            s.toml:7:6: found `interrupt` by `g0` (guest), expected an instruction that a guest can run, tdcall or delay
            7 | g0 : interrupt
              |      ^^^^^^^^^
        g0 : dma-read [G0] 8
            s.toml:7:6: found `dma-read` by `g0` (guest), expected an instruction that a guest can run, tdcall or delay
            7 | g0 : dma-read [G0] 8
              |      ^^^^^^^^
        g0 : tdh.mng.create
            s.toml:7:6: found `tdh.mng.create` by `g0` (guest), expected an instruction that a guest can run, tdcall or delay
            7 | g0 : tdh.mng.create
              |      ^^^^^^^^^^^^^^
        cpu0 : tdg.vp.info
            s.toml:7:8: found `tdg.vp.info` by `cpu0` (kernel), expected an agent of kind guest for this operation
            7 | cpu0 : tdg.vp.info
              |        ^^^^^^^^^^^
        cpu0 : invlpg [0x1000]
            s.toml:7:8: found `invlpg` by `cpu0` (kernel), expected an agent of kind guest for this operation
            7 | cpu0 : invlpg [0x1000]
              |        ^^^^^^
        cpu0 : mov-cr3 0x1000
            s.toml:7:8: found `mov-cr3` by `cpu0` (kernel), expected an agent of kind guest for this operation
            7 | cpu0 : mov-cr3 0x1000
              |        ^^^^^^^
        user0 : wrmsr 0x3b 0x1
            s.toml:7:9: found `wrmsr` by `user0` (user), expected an agent `cpuN` for this operation
            7 | user0 : wrmsr 0x3b 0x1
              |         ^^^^^
        seam0 : tdh.sys.init
            s.toml:7:9: found `tdh.sys.init` by `seam0` (seam), expected a host agent, cpuN or userN, for this operation
            7 | seam0 : tdh.sys.init
              |         ^^^^^^^^^^^^
        dma0 : tdh.sys.init
            s.toml:7:8: found `tdh.sys.init` by `dma0` (device), expected dma-read, dma-write or delay
            7 | dma0 : tdh.sys.init
              |        ^^^^^^^^^^^^
        hw : tdh.sys.init
            s.toml:7:6: found `tdh.sys.init` by `hw` (hw), expected a choice of the hardware, a fault, an attack, irq or delay
            7 | hw : tdh.sys.init
              |      ^^^^^^^^^^^^
        cpu0 : starve 0 1
            s.toml:7:8: found `starve` by `cpu0` (kernel), expected the agent `hw` for this operation
            7 | cpu0 : starve 0 1
              |        ^^^^^^
        hw : starve 4 1
            s.toml:7:6: found core 4, expected a core below 4, which is cpu.cores
            7 | hw : starve 4 1
              |      ^^^^^^^^^^
        cpu0 : irq 4
            s.toml:7:8: found core 4, expected a core below 4, which is cpu.cores
            7 | cpu0 : irq 4
              |        ^^^^^
        cpu0 : load [G0] 8
            s.toml:7:13: found `G0`, guest memory, expected a region of host memory: TDR, VP0
            7 | cpu0 : load [G0] 8
              |             ^^^^
        cpu0 : load [SHARED] 8
            s.toml:7:13: found `SHARED`, a bit of guest addresses, by no guest, expected a region: TDR, VP0
            7 | cpu0 : load [SHARED] 8
              |             ^^^^^^^^
        cpu0 : tdh.mng.create r8=[TDR] rcx=[NONE]
            s.toml:7:32: found unknown region `NONE`, expected a region: TDR, VP0
            7 | cpu0 : tdh.mng.create r8=[TDR] rcx=[NONE]
              |                                ^^^^^^^^^^
        cpu0 : tdh.mng.create  rdx=priv64 rcx=[ TDR ]
            s.toml:7:24: found `priv64`, expected priv0 to priv63 on platform spr
            7 | cpu0 : tdh.mng.create  rdx=priv64 rcx=[ TDR ]
              |                        ^^^^^^^^^^
        cpu0 : tdh.mng.create rcx=[TDR] r8=[TDR+0x1000]|1 r9=[TDR]
            s.toml:7:33: found `TDR+0x1000`, expected an offset below 0x1000, the size of the region
            7 | cpu0 : tdh.mng.create rcx=[TDR] r8=[TDR+0x1000]|1 r9=[TDR]
              |                                 ^^^^^^^^^^^^^^^^^
        cpu0 : tdh.mng.create rcx=[TDR@128]
            s.toml:7:23: found KeyID 128, expected a KeyID of 7 bits, 0 to 127
            7 | cpu0 : tdh.mng.create rcx=[TDR@128]
              |                       ^^^^^^^^^^^^^
        cpu0 : tdh.mng.create rcx=[0x200000000000]
            s.toml:7:23: found address 0x200000000000, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
            7 | cpu0 : tdh.mng.create rcx=[0x200000000000]
              |                       ^^^^^^^^^^^^^^^^^^^^
        cpu0 : tdh.mng.create rcx=[G0@priv1]
            s.toml:7:23: found `@priv1`, expected an address without KeyID: it is a guest's
            7 | cpu0 : tdh.mng.create rcx=[G0@priv1]
              |                       ^^^^^^^^^^^^^^
        cpu0 : tdh.mng.create rcx=[SHARED+0x1000]
            s.toml:7:23: found `SHARED`, a bit of guest addresses, by no guest, expected a region: TDR, VP0
            7 | cpu0 : tdh.mng.create rcx=[SHARED+0x1000]
              |                       ^^^^^^^^^^^^^^^^^^^
        g0 : mov-cr3 [TDR]|1
            s.toml:7:14: found `TDR`, host memory, by a guest, expected a region of guest memory: G0, G1
            7 | g0 : mov-cr3 [TDR]|1
              |              ^^^^^^^
        cpu0 : tdh.mng.create rcx=[TDR] rcx=1
            s.toml:7:33: found `rcx=1`, expected rcx only once
            7 | cpu0 : tdh.mng.create rcx=[TDR] rcx=1
              |                                 ^^^^^
        guest0 : mfence
            s.toml:7:1: found `guest0`, expected an agent: cpuN, userN, seamN, dmaN, hw, or one of [agents]
            7 | guest0 : mfence
              | ^^^^^^
    "#]].assert_eq(&out);
}

#[test]
fn what_is_wrong_with_a_guest_or_a_region_is_said_at_its_place() {
    let replaced = |from: &str, to: &str| {
        let text = with("g0 : mfence", "");
        assert!(text.contains(from), "{from}");
        shown(&format!("{from} -> {to}"), &text.replacen(from, to, 1))
    };
    let (g0, g1) =
        ("{ kind = \"guest\", vcpu = \"VP0\" }", "G1 = { gpa = \"0x2000\", size = \"4KiB\" }");
    let out: String = [
        (g0, "{ kind = \"guest\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0\", core = 1 }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0\", keyid = \"priv1\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0\", gpaw = 57 }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0\", gpaw = \"48\" }"),
        (g0, "{ kind = \"guest\", vcpu = 0x40000000 }"),
        (g0, "{ kind = \"guest\", vcpu = \"\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"[VP0\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0@priv1\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"G0\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"NONE\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"SHARED\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"VP0+0x40\" }"),
        (g0, "{ kind = \"guest\", vcpu = \"0x200000000000\" }"),
        (g0, "{ kind = \"kernel\", core = 0, vcpu = \"VP0\" }"),
        (g0, "{ kind = \"td\", core = 0, keyid = \"priv1\", gpaw = 48 }"),
        (g1, "SHARED = { gpa = \"0x2000\", size = \"4KiB\" }"),
        (g1, "G1 = { gpa = \"0x2000\", base = \"0x2000\", size = \"4KiB\" }"),
        (g1, "G1 = { gpa = 0x2000, size = \"4KiB\" }"),
        (g1, "G1 = { gpa = \"0x2001\", size = \"4KiB\" }"),
        (g1, "G1 = { gpa = \"0xffffffffffffffc0\", size = \"4KiB\" }"),
    ]
    .iter()
    .map(|(from, to)| replaced(from, to))
    .collect();
    expect![[r#"
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest" }
            s.toml:15:6: found a table without `vcpu`, expected `vcpu = "VP0"`, its TDVPR page
            15 | g0 = { kind = "guest" }
               |      ^^^^^^^^^^^^^^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0", core = 1 }
            s.toml:15:45: found integer `1`, expected no core: a guest has none
            15 | g0 = { kind = "guest", vcpu = "VP0", core = 1 }
               |                                             ^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0", keyid = "priv1" }
            s.toml:15:46: found text `priv1`, expected no keyid: a guest's addresses have none
            15 | g0 = { kind = "guest", vcpu = "VP0", keyid = "priv1" }
               |                                              ^^^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0", gpaw = 57 }
            s.toml:15:45: found integer `57`, expected 48 or 52, the guest-physical address bits
            15 | g0 = { kind = "guest", vcpu = "VP0", gpaw = 57 }
               |                                             ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0", gpaw = "48" }
            s.toml:15:45: found text `48`, expected 48 or 52, the guest-physical address bits
            15 | g0 = { kind = "guest", vcpu = "VP0", gpaw = "48" }
               |                                             ^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = 0x40000000 }
            s.toml:15:31: found integer `0x40000000`, expected the address of the TDVPR page as text, without KeyID, such as "VP0"
            15 | g0 = { kind = "guest", vcpu = 0x40000000 }
               |                               ^^^^^^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "" }
            s.toml:15:31: found ``, expected the address of the TDVPR page as text, without KeyID, such as "VP0"
            15 | g0 = { kind = "guest", vcpu = "" }
               |                               ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "[VP0" }
            s.toml:15:31: found `[VP0`, expected the address of the TDVPR page as text, without KeyID, such as "VP0"
            15 | g0 = { kind = "guest", vcpu = "[VP0" }
               |                               ^^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0@priv1" }
            s.toml:15:31: found `VP0@priv1`, expected the address of the TDVPR page as text, without KeyID, such as "VP0"
            15 | g0 = { kind = "guest", vcpu = "VP0@priv1" }
               |                               ^^^^^^^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "G0" }
            s.toml:15:1: found `G0`, guest memory, expected a region of host memory: TDR, VP0
            15 | g0 = { kind = "guest", vcpu = "G0" }
               | ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "NONE" }
            s.toml:15:1: found unknown region `NONE`, expected a region: TDR, VP0
            15 | g0 = { kind = "guest", vcpu = "NONE" }
               | ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "SHARED" }
            s.toml:15:1: found `SHARED`, a bit of guest addresses, by no guest, expected a region: TDR, VP0
            15 | g0 = { kind = "guest", vcpu = "SHARED" }
               | ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "VP0+0x40" }
            s.toml:15:1: found TDVPR of `g0` at 0x40001040, expected the address of a page, a multiple of 4096
            15 | g0 = { kind = "guest", vcpu = "VP0+0x40" }
               | ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "guest", vcpu = "0x200000000000" }
            s.toml:15:1: found address 0x200000000000, expected an address of 45 bits (MAXPA 52 less 7 KeyID bits)
            15 | g0 = { kind = "guest", vcpu = "0x200000000000" }
               | ^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "kernel", core = 0, vcpu = "VP0" }
            s.toml:15:42: found text `VP0`, expected no vcpu: a kernel is no guest
            15 | g0 = { kind = "kernel", core = 0, vcpu = "VP0" }
               |                                          ^^^^^
        { kind = "guest", vcpu = "VP0" } -> { kind = "td", core = 0, keyid = "priv1", gpaw = 48 }
            s.toml:15:55: found integer `48`, expected no gpaw: a td is no guest
            15 | g0 = { kind = "td", core = 0, keyid = "priv1", gpaw = 48 }
               |                                                       ^^
        G1 = { gpa = "0x2000", size = "4KiB" } -> SHARED = { gpa = "0x2000", size = "4KiB" }
            s.toml:13:1: found `SHARED`, expected another name: SHARED is the SHARED bit of guest addresses
            13 | SHARED = { gpa = "0x2000", size = "4KiB" }
               | ^^^^^^
        G1 = { gpa = "0x2000", size = "4KiB" } -> G1 = { gpa = "0x2000", base = "0x2000", size = "4KiB" }
            s.toml:13:8: found `gpa`, expected base or gpa, not both
            13 | G1 = { gpa = "0x2000", base = "0x2000", size = "4KiB" }
               |        ^^^
        G1 = { gpa = "0x2000", size = "4KiB" } -> G1 = { gpa = 0x2000, size = "4KiB" }
            s.toml:13:14: found integer `0x2000`, expected an address as text, in hexadecimal such as "0x10000000"
            13 | G1 = { gpa = 0x2000, size = "4KiB" }
               |              ^^^^^^
        G1 = { gpa = "0x2000", size = "4KiB" } -> G1 = { gpa = "0x2001", size = "4KiB" }
            s.toml:13:14: found `0x2001`, expected a multiple of 64, the size of a line
            13 | G1 = { gpa = "0x2001", size = "4KiB" }
               |              ^^^^^^^^
        G1 = { gpa = "0x2000", size = "4KiB" } -> G1 = { gpa = "0xffffffffffffffc0", size = "4KiB" }
            s.toml:13:43: found `4KiB`, expected a region that ends below 2^64
            13 | G1 = { gpa = "0xffffffffffffffc0", size = "4KiB" }
               |                                           ^^^^^^
    "#]].assert_eq(&out);
}

#[test]
fn guest_regions_may_overlap_and_lie_where_no_memory_is() {
    let text = with("g0 : load [G9] 8\ng1 : load [G0+0x1000] 8\ng1 : load [G1] 8", "")
        .replace("[agents]", "G9 = { gpa = \"0x40000000\", size = \"4KiB\" }\nG8 = { gpa = \"0xffff800000000000\", size = \"1GiB\" }\n[agents]");
    parse(&text).and_then(|s| s.bind(&spr())).unwrap_or_else(|d| panic!("{}", d.render()));
}

#[test]
fn what_is_wrong_with_a_pattern_is_said_at_its_place() {
    let patterns = [
        "tdx SUCCES",
        "tdx success",
        "tdx TDX_SUCCESS",
        "tdx NONSENSE",
        "tdx OPERAND_BUSY|RCY",
        "tdx OPERAND_BUSY|NONSENSE",
        "tdx OPERAND_BUSY|RCX|RDX",
        "tdx OPERAND_BUSY| RCX",
        "tdx OPERAND_BUSY |RCX",
        "tdx OPERAND_BUSY|0x100000000",
        "tdx SUCCESS|RCX",
        "tdx PAGE_SIZE_MISMATCH|2M",
        "tdx SYS_BUSY|RCX",
        "tdx SEAMCALL_GP|1",
        "tdx 0x10000000000000000",
        "tdx 12x",
        "tdx rcx=1",
        "tdx SUCCESS rax=1",
        "tdx SUCCESS rcx",
        "tdx SUCCESS rcx=",
        "tdx SUCCESS rcx=-1",
        "tdx SUCCESS rcx=1 rcx=2",
        "tdx SUCCESS done",
        "tdx|done|",
        "td-exit EPT",
        "td-exit 4294967296",
        "td-exit gpa=0x1000",
        "td-exit 48 rcx=1",
        "td-exit 48 gpa=0x1000 gpa=0x1000",
        "page-fault 0x1000",
        "not-run not-there",
    ];
    let show = |text: &&str| {
        let e = text.parse::<Pattern>().expect_err(text);
        let meant = text.get(e.at..e.at + e.len).unwrap_or("?");
        format!("{text:?} at {} `{meant}`: {e}\n", e.at)
    };
    let out: String = patterns.iter().map(show).collect();
    expect![[r#"
        "tdx SUCCES" at 4 `SUCCES`: found `SUCCES`, expected a status: did you mean `SUCCESS`?
        "tdx success" at 4 `success`: found `success`, expected a status: did you mean `SUCCESS`?
        "tdx TDX_SUCCESS" at 4 `TDX_SUCCESS`: found `TDX_SUCCESS`, expected a status: did you mean `SUCCESS`?
        "tdx NONSENSE" at 4 `NONSENSE`: found `NONSENSE`, expected a status such as SUCCESS or OPERAND_BUSY|RCX, or its number
        "tdx OPERAND_BUSY|RCY" at 17 `RCY`: found `RCY`, expected an operand: did you mean `RCX`?
        "tdx OPERAND_BUSY|NONSENSE" at 17 `NONSENSE`: found `NONSENSE`, expected an operand such as RCX or SEPT_TREE, or its number
        "tdx OPERAND_BUSY|RCX|RDX" at 21 `RDX`: found `RDX`, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        "tdx OPERAND_BUSY| RCX" at 18 `RCX`: found `RCX`, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        "tdx OPERAND_BUSY |RCX" at 18 `RCX`: found `RCX`, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        "tdx OPERAND_BUSY|0x100000000" at 17 `0x100000000`: found `0x100000000`, expected an operand such as RCX or SEPT_TREE, or its number
        "tdx SUCCESS|RCX" at 12 `RCX`: found `RCX`, expected the number of an exit reason
        "tdx PAGE_SIZE_MISMATCH|2M" at 23 `2M`: found `2M`, expected the number of a level
        "tdx SYS_BUSY|RCX" at 13 `RCX`: found `RCX`, expected a number of at most 32 bits
        "tdx SEAMCALL_GP|1" at 4 `SEAMCALL_GP`: found `SEAMCALL_GP`, expected a status such as SUCCESS or OPERAND_BUSY|RCX, or its number
        "tdx 0x10000000000000000" at 4 `0x10000000000000000`: found `0x10000000000000000`, expected a number of at most 64 bits
        "tdx 12x" at 4 `12x`: found `12x`, expected a number of at most 64 bits
        "tdx rcx=1" at 4 `rcx=1`: found `rcx=1`, expected a status such as SUCCESS or OPERAND_BUSY|RCX, or its number
        "tdx SUCCESS rax=1" at 12 `rax=1`: found `rax=1`, expected rcx=NUMBER, rdx=NUMBER, r8=NUMBER, r9=NUMBER, r10=NUMBER, r11=NUMBER
        "tdx SUCCESS rcx" at 12 `rcx`: found `rcx`, expected rcx=NUMBER, a number of at most 64 bits
        "tdx SUCCESS rcx=" at 12 `rcx=`: found `rcx=`, expected rcx=NUMBER, a number of at most 64 bits
        "tdx SUCCESS rcx=-1" at 12 `rcx=-1`: found `rcx=-1`, expected rcx=NUMBER, a number of at most 64 bits
        "tdx SUCCESS rcx=1 rcx=2" at 18 `rcx=2`: found `rcx=2`, expected rcx only once
        "tdx SUCCESS done" at 12 `done`: found `done`, expected rcx=NUMBER, rdx=NUMBER, r8=NUMBER, r9=NUMBER, r10=NUMBER, r11=NUMBER
        "tdx|done|" at 9 ``: found nothing, expected one of done, data, zeros, garbage, any-data, mc, pf, gp, ept-misconfiguration, ve, dma-abort, dma-poison, pconfig, vmfail-invalid, not-run, tdx, td-exit, page-fault, double-fault
        "td-exit EPT" at 8 `EPT`: found `EPT`, expected the number of an exit reason, such as 48
        "td-exit 4294967296" at 8 `4294967296`: found `4294967296`, expected the number of an exit reason, such as 48
        "td-exit gpa=0x1000" at 8 `gpa=0x1000`: found `gpa=0x1000`, expected the number of an exit reason, such as 48
        "td-exit 48 rcx=1" at 11 `rcx=1`: found `rcx=1`, expected gpa=NUMBER
        "td-exit 48 gpa=0x1000 gpa=0x1000" at 22 `gpa=0x1000`: found `gpa=0x1000`, expected gpa only once
        "page-fault 0x1000" at 11 `0x1000`: found `0x1000`, expected nothing after `page-fault`, or ` | `
        "not-run not-there" at 8 `not-there`: found `not-there`, expected one of panic, killed, shutdown, horizon, not-entered, not-modelled
    "#]].assert_eq(&out);
}

fn call(status: Status, out: [u64; 6]) -> Outcome {
    Outcome::Call(CallResult { guest: false, leaf: Leaf::MNG_CREATE.0, status, out })
}

#[test]
fn a_status_is_matched_with_any_low_half_or_with_one() {
    let busy = Status::OPERAND_BUSY;
    let (rcx, tree) =
        (call(busy.about(Operand::RCX), [0; 6]), call(busy.about(Operand::SEPT_TREE), [0; 6]));
    for (text, first, second) in [
        ("tdx", true, true),
        ("tdx OPERAND_BUSY", true, true),
        ("tdx OPERAND_BUSY|RCX", true, false),
        ("tdx OPERAND_BUSY|1", true, false),
        ("tdx OPERAND_BUSY|SEPT_TREE", false, true),
        ("tdx OPERAND_BUSY|0x92", false, true),
        ("tdx OPERAND_BUSY|RDX", false, false),
        ("tdx OPERAND_BUSY|RAX", false, false),
        ("tdx OPERAND_INVALID|RCX", false, false),
        ("tdx 0x8000020000000001", true, false),
        ("tdx 0x8000020000000000", false, false),
        ("tdx SUCCESS | tdx OPERAND_BUSY|RCX", true, false),
        ("tdx OPERAND_BUSY|RDX|tdx OPERAND_BUSY|146", false, true),
        ("done | tdx OPERAND_BUSY", true, true),
        ("done|td-exit", false, false),
    ] {
        let pattern = pattern(text);
        assert_eq!((pattern.matches(&rcx), pattern.matches(&tree)), (first, second), "{text}");
        let again: Pattern = pattern.to_string().parse().unwrap();
        assert_eq!(again, pattern, "{text}");
    }
}

#[test]
fn success_of_an_entry_is_matched_with_its_exit_reason() {
    let (zero, ept) =
        (call(Status::SUCCESS, [0; 6]), call(Status::SUCCESS.exit(ExitReason(48)), [0; 6]));
    let both = |text: &str| (pattern(text).matches(&zero), pattern(text).matches(&ept));
    assert_eq!(both("tdx SUCCESS"), (true, true));
    assert_eq!(both("tdx SUCCESS|48"), (false, true));
    assert_eq!(both("tdx SUCCESS|0"), (true, false));
    assert_eq!(both("tdx 0x0"), (true, false));
}

#[test]
fn linuxs_own_value_for_a_name_is_not_the_modules() {
    // architecture.md §10.2 D-21.
    let linux = call(Status(0x4000_0002_0000_0000), [0; 6]);
    assert!(!pattern("tdx NON_RECOVERABLE_TD").matches(&linux));
    assert!(pattern(&linux.to_string()).matches(&linux));
    let fail = call(Status::SEAMCALL_VMFAILINVALID, [0; 6]);
    assert!(pattern("tdx SEAMCALL_VMFAILINVALID").matches(&fail));
    assert!(!pattern("tdx SEAMCALL_VMFAILINVALID").matches(&call(Status::SEAMCALL_GP, [0; 6])));
}

#[test]
fn registers_of_a_pattern_must_all_match_and_others_are_free() {
    let seen = call(Status::SUCCESS, [0x1000, 0, 3, 0, 0, u64::MAX]);
    for (text, want) in [
        ("tdx SUCCESS rcx=0x1000", true),
        ("tdx SUCCESS rcx=4096 r8=3", true),
        ("tdx SUCCESS r8=3 rcx=4096", true),
        ("tdx SUCCESS rdx=0", true),
        ("tdx SUCCESS rdx=1", false),
        ("tdx SUCCESS rcx=0x1000 r8=4", false),
        ("tdx SUCCESS r11=0xffffffffffffffff", true),
        ("tdx SYS_BUSY rcx=0x1000", false),
    ] {
        assert_eq!(pattern(text).matches(&seen), want, "{text}");
    }
    assert_eq!(pattern("tdx SUCCESS r8=3 rcx=1").to_string(), "tdx SUCCESS rcx=0x1 r8=0x3");
}

#[test]
fn an_exit_is_matched_by_reason_and_address() {
    let exit = |reason, gpa| Outcome::TdExit { reason: ExitReason(reason), gpa };
    for (text, outcome, want) in [
        ("td-exit", exit(1, 0), true),
        ("td-exit 48", exit(48, 0x1000), true),
        ("td-exit 48", exit(49, 0x1000), false),
        ("td-exit 48 gpa=0x1000", exit(48, 0x1000), true),
        ("td-exit 48 gpa=0x1000", exit(48, 0), false),
        ("td-exit 48 gpa=0x0", exit(48, 0), true),
        ("td-exit", Outcome::PageFault, false),
        ("page-fault", Outcome::PageFault, true),
        ("pf", Outcome::PageFault, false),
        ("td-exit", call(Status::SUCCESS, [0; 6]), false),
        ("tdx", exit(1, 0), false),
    ] {
        assert_eq!(pattern(text).matches(&outcome), want, "{text} {outcome}");
    }
}

/// Pieces of lines with calls.
const SOUP: &[&str] = &[
    "tdh.mng.create",
    "tdg.vp.info",
    "seamcall",
    "tdcall",
    ".v1",
    ".v",
    "irq",
    "starve",
    "mov-cr3",
    "invlpg",
    "wrmsr",
    " ",
    " ",
    " ",
    "rcx=",
    "r13=",
    "rax=",
    "=",
    "|",
    "[",
    "]",
    "[TDR]",
    "[G0]",
    "[SHARED",
    "+0x1000",
    "@priv1",
    "priv1",
    "shared0",
    "0x200000",
    "1",
    "47",
    "-",
    "é",
    "[VP0+0x1000@65]",
    "rdx=[TDR]|1",
    "0xffffffffffffffff",
];

proptest! {
    #[test]
    fn no_line_of_calls_panics_and_errors_stand_in_it(
        who in proptest::sample::select(vec!["cpu0", "g0", "g1", "hw", "user0"]),
        soup in proptest::collection::vec(proptest::sample::select(SOUP), 0..10),
    ) {
        let text = with(&format!("{who} : {}", soup.concat()), "");
        match parse(&text).and_then(|s| s.bind(&spr()).map(|p| (s, p))) {
            Ok((s, program)) => {
                let again = parse(&s.to_text()).unwrap();
                prop_assert_eq!(&again, &s);
                let ops = |p: &Program| p.lines.iter().map(|l| match l {
                    ProgramLine::Step(step) => Some(step.op),
                    ProgramLine::Barrier => None,
                }).collect::<Vec<_>>();
                prop_assert_eq!(ops(&again.bind(&spr()).unwrap()), ops(&program));
            }
            Err(diag) => prop_assert_eq!(diag.line, 7, "{}", diag),
        }
    }

    #[test]
    fn no_hostile_status_panics_a_pattern(text in "tdx [A-Z_|0-9a-fx]{0,30}( (rcx|r8|gpa)=[0-9a-fx|]{0,20}){0,2}") {
        match text.parse::<Pattern>() {
            Ok(pattern) => prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern)),
            Err(e) => prop_assert!(text.get(e.at..e.at + e.len).is_some(), "{:?} {:?}", text, e),
        }
    }

    #[test]
    fn what_a_call_prints_is_a_pattern_for_it_alone(status: u64, other: u64, out: [u64; 6], low: bool, row: u8) {
        let rows = sim_core::tdx::STATUSES;
        let of = |n: u64| if low { Status(n) } else {
            Status(rows[usize::from(row) % rows.len()].status.0 | n & 0xff)
        };
        let seen = call(of(status), out);
        let printed: Pattern = seen.to_string().parse().unwrap();
        prop_assert!(printed.matches(&seen), "{}", seen);
        let different = call(of(other), out);
        // A status that prints no low half is matched with all of them.
        let exact = seen.to_string().contains('|');
        if exact && of(status) != of(other) {
            prop_assert!(!printed.matches(&different), "{} {}", seen, different);
        }
    }
}
