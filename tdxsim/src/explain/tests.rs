use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use sim_core::tdx::{LINUX_VARIANTS, SOFTWARE, STATUSES};

fn check(input: &str, expected: Expect) {
    expected.assert_eq(&explain(input).unwrap().to_string());
}

fn values(input: &str, name: &str) -> Vec<String> {
    let all = explain(input).unwrap();
    all.fields.iter().filter(|f| f.name == name).map(|f| f.value.clone()).collect()
}

/// The log of the kernel commit "x86/mce: Differentiate real hardware #MCs from TDX erratum ones" (verification.md §1.2)
/// with the lines that Linux prints around it; RIP, address and processor are made up.
const PANIC: &str = "\
[  133.000001][ T2153] mce: [Hardware Error]: CPU 147: Machine Check Exception: f Bank 1: bd80000000100134
[  133.000002][ T2153] mce: [Hardware Error]: RIP 10:<ffffffffadb69870> {__tlb_remove_page_size+0x10/0xa0}
[  133.000003][ T2153] mce: [Hardware Error]: TSC 1c5e4b3a2f ADDR 80a5669600 MISC 86 \n\
[  133.000004][ T2153] mce: [Hardware Error]: PROCESSOR 0:806f8 TIME 1700000000 SOCKET 1 APIC 93 microcode 2b000000
[  133.000005][ T2153] mce: [Hardware Error]: Run the above through 'mcelog --ascii'
[  133.000006][ T2153] mce: [Hardware Error]: Machine check: Data load in unrecoverable area of kernel
[  133.000007][ T2153] mce: [Hardware Error]: Machine check: TDX private memory error. Possible kernel bug.
[  133.000008][ T2153] Kernel panic - not syncing: Fatal local machine check
";

#[test]
fn an_mci_status_alone() {
    check(
        "0xbd80000000100134",
        expect![[r#"
        MCi_STATUS 0xbd80000000100134 = SRAR: software recoverable, action required;
        data load
          VAL            1: the register holds a valid error
          OVER           0: not set (an earlier error was overwritten)
          UC             1: uncorrected
          EN             1: reporting of this error was enabled
          MISCV          1: MCi_MISC is valid
          ADDRV          1: MCi_ADDR is valid
          PCC            0: not set (processor context corrupt)
          S              1: signalled as a machine check
          AR             1: recovery action required
          MSCOD          0x0010: model-specific, not in the tables of this project
          MCACOD         0x0134: data load
          Linux, kernel  PANIC (row 16), "Data load in unrecoverable area of kernel":
                         "Kernel panic - not syncing: Fatal machine check"
          Linux, fixup   action required (row 13), "Action required: data load in error
                         recoverable area of kernel": the access fails with an error,
                         the kernel goes on
          Linux, user    action required (row 14), "Action required: data load error in
                         a user process": memory_failure() of the page, SIGBUS to the
                         process
          Linux, in TD   action required (row 15), "Data load error in SEAM non-root
                         mode": the page is marked HWPoison, the host goes on behind
                         SEAMCALL

        - Without MCG_STATUS, RIPV=EIPV=MCIP=1 is assumed for what Linux does.
        - A host read with KeyID 0 consumes poison of three kinds only: a real memory
          error; on parts with the erratum, an earlier write of part of a line to TDX
          private memory (MOVNTI, UC or WC mapping, DMA); or an earlier failed read by a
          TD or the module of a line that was not fully rewritten since. On a CPU
          without SEAM_NR, a machine check of a TD can also look like this.
        - A read of intact TDX private memory with KeyID 0 gives zeros, never a machine
          check.

        Sources: architecture.md §6.2; architecture.md §6.4; verification.md §0;
                 architecture.md §5
    "#]],
    );
}

#[test]
fn an_mci_status_with_mcg_status() {
    check(
        "0xbd80000000100134 0xf",
        expect![[r#"
        MCi_STATUS 0xbd80000000100134 = SRAR: software recoverable, action required;
        data load
          VAL            1: the register holds a valid error
          OVER           0: not set (an earlier error was overwritten)
          UC             1: uncorrected
          EN             1: reporting of this error was enabled
          MISCV          1: MCi_MISC is valid
          ADDRV          1: MCi_ADDR is valid
          PCC            0: not set (processor context corrupt)
          S              1: signalled as a machine check
          AR             1: recovery action required
          MSCOD          0x0010: model-specific, not in the tables of this project
          MCACOD         0x0134: data load
          MCG_STATUS     0xf
          RIPV           1: the interrupted instruction can be restarted
          EIPV           1: the interrupted instruction is the one in error
          MCIP           1: a machine check is in progress
          LMCES          1: delivered to this logical processor only
          SEAM_NR        0: not set (hit in SEAM non-root, that is, in a TD)
          Linux, kernel  PANIC (row 16), "Data load in unrecoverable area of kernel":
                         "Kernel panic - not syncing: Fatal local machine check"
          Linux, fixup   action required (row 13), "Action required: data load in error
                         recoverable area of kernel": the access fails with an error,
                         the kernel goes on
          Linux, user    action required (row 14), "Action required: data load error in
                         a user process": memory_failure() of the page, SIGBUS to the
                         process

        - A host read with KeyID 0 consumes poison of three kinds only: a real memory
          error; on parts with the erratum, an earlier write of part of a line to TDX
          private memory (MOVNTI, UC or WC mapping, DMA); or an earlier failed read by a
          TD or the module of a line that was not fully rewritten since. On a CPU
          without SEAM_NR, a machine check of a TD can also look like this.
        - A read of intact TDX private memory with KeyID 0 gives zeros, never a machine
          check.

        Sources: architecture.md §6.2; architecture.md §6.4; verification.md §0;
                 architecture.md §5
    "#]],
    );
}

#[test]
fn a_pasted_panic() {
    check(
        PANIC,
        expect![[r#"
        MCi_STATUS 0xbd80000000100134 = SRAR: software recoverable, action required;
        data load
          CPU            147
          bank           1: DCU, data cache (assumed: MC-20)
          VAL            1: the register holds a valid error
          OVER           0: not set (an earlier error was overwritten)
          UC             1: uncorrected
          EN             1: reporting of this error was enabled
          MISCV          1: MCi_MISC is valid
          ADDRV          1: MCi_ADDR is valid
          PCC            0: not set (processor context corrupt)
          S              1: signalled as a machine check
          AR             1: recovery action required
          MSCOD          0x0010: model-specific, not in the tables of this project
          MCACOD         0x0134: data load
          MCG_STATUS     0xf
          RIPV           1: the interrupted instruction can be restarted
          EIPV           1: the interrupted instruction is the one in error
          MCIP           1: a machine check is in progress
          LMCES          1: delivered to this logical processor only
          SEAM_NR        0: not set (hit in SEAM non-root, that is, in a TD)
          MCi_ADDR       0x80a5669600: KeyID bits included
          if k=7         KeyID 0x0, PA 0x80a5669600: shared
          if k=6         KeyID 0x0, PA 0x80a5669600: shared
          MISC           0x86: physical address, valid from bit 6 up
          RIP            <ffffffffadb69870> {__tlb_remove_page_size+0x10/0xa0}: kernel
                         code
          PROCESSOR      0x806f8: Sapphire Rapids (06_8F): has the partial-write erratum
          Linux, kernel  PANIC (row 16), "Data load in unrecoverable area of kernel":
                         "Kernel panic - not syncing: Fatal local machine check"
          Linux, fixup   action required (row 13), "Action required: data load in error
                         recoverable area of kernel": the access fails with an error,
                         the kernel goes on
          logged         Data load in unrecoverable area of kernel
          panic          Fatal local machine check

        - "TDX private memory error. Possible kernel bug.": the module says that the
          page is in its use, so suspect kernel code that wrote part of a line of it,
          before the memory.
        - A host read with KeyID 0 consumes poison of three kinds only: a real memory
          error; on parts with the erratum, an earlier write of part of a line to TDX
          private memory (MOVNTI, UC or WC mapping, DMA); or an earlier failed read by a
          TD or the module of a line that was not fully rewritten since. On a CPU
          without SEAM_NR, a machine check of a TD can also look like this.
        - A read of intact TDX private memory with KeyID 0 gives zeros, never a machine
          check.

        Sources: architecture.md §6.2; architecture.md §13 MC-20; architecture.md §13
                 MC-24; architecture.md §9; SDM vol. 3, IA32_MCi_MISC; architecture.md
                 §5 5.6; architecture.md §6.4; linux-host-paths.md §14.2;
                 verification.md §0; architecture.md §5
    "#]],
    );
}

#[test]
fn a_page_that_is_not_what_it_should_be() {
    check(
        "0xC000030000000001",
        expect![[r#"
            0xc000030000000001 = TDX_PAGE_METADATA_INCORRECT | RCX: the page's PAMT entry
            has another type or size than the leaf needs
              class             0x03: page metadata (PAMT)
              details L1        0x00
              ERROR             1: the leaf failed
              NON_RECOVERABLE   1: calling again as before cannot help
              FATAL             0: does not say that the TD is lost
              HOST_RECOVERABLE  0: no hint
              operand           RCX (1): register RCX
              returned by       TDH.VP.ENTER, TDH.VP.FLUSH, TDH.VP.INIT: the page must be
                                PT_TDVPR
              returned by       TDH.MNG.ADDCX, TDH.VP.ADDCX, TDH.MNG.CREATE, TDH.VP.CREATE:
                                the page must be PT_NDA (free)
              returned by       TDH.MNG.KEY.CONFIG, TDH.MR.FINALIZE, TDH.MNG.VPFLUSHDONE,
                                TDH.MNG.KEY.FREEID, TDH.MNG.INIT, TDH.MEM.TRACK: the page
                                must be PT_TDR
              returned by       TDH.PHYMEM.PAGE.RECLAIM: the page is PT_NDA (reclaimed or
                                removed before) or PT_RSVD
              returned by       TDH.PHYMEM.PAGE.WBINVD: the page must be PT_NDA: a page
                                still owned by a TD is refused; KeyID bits are allowed
              usual cause       the page is not what the leaf takes: not free when it must
                                be free, not the TDR it should be, reclaimed twice, or
                                mapped at another size
              what to do        ask TDH.PHYMEM.PAGE.RDMD for its type and owner; look for a
                                double reclaim or a page given away twice

            Sources: architecture.md §7.3; architecture.md §7.9; architecture.md §7.7
        "#]],
    );
}

#[test]
fn the_exit_of_a_td_that_read_poison() {
    check(
        "0x6000000500000000",
        expect![[r#"
            0x6000000500000000 = TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE | exit reason 0
            (exception or NMI): this TD cannot run again and its private memory is not
            touched any more
              class             0x00: general, and how a TD was left
              details L1        0x05
              ERROR             0: the call itself did not fail
              NON_RECOVERABLE   1: calling again as before cannot help
              FATAL             1: the TD is lost
              HOST_RECOVERABLE  0: no hint
              exit reason       0: exception or NMI
              returned by       TDH.VP.ENTER: a machine check in the TD (architecture.md
                                §6.3)
              usual cause       a machine check in the TD: it read a poisoned line. Often a
                                host write to its private memory
              what to do        look for the #MC in the log; tear the TD down (VP.FLUSH,
                                VPFLUSHDONE, CACHE.WB, KEY.FREEID, RECLAIM work); clear its
                                pages with MOVDIR64B

            - The specification calls it TDX_NON_RECOVERABLE_TD_FATAL; it is the same
              number.

            Sources: architecture.md §7.3; architecture.md §7.11; architecture.md §7.9;
                     architecture.md §6.3; architecture.md §10.1 D-09
        "#]],
    );
}

#[test]
fn a_fatal_td() {
    check(
        "0xE000060400000000",
        expect![[r#"
        0xe000060400000000 = TDX_TD_FATAL: the TD met a machine check; only its teardown
        is possible
          class             0x06: TD state
          details L1        0x04
          ERROR             1: the leaf failed
          NON_RECOVERABLE   1: calling again as before cannot help
          FATAL             1: the TD is lost
          HOST_RECOVERABLE  0: no hint
          returned by       TDH.VP.ENTER, TDH.MNG.ADDCX, TDH.MEM.PAGE.ADD,
                            TDH.MEM.SEPT.ADD, TDH.VP.ADDCX, TDH.MEM.PAGE.RELOCATE,
                            TDH.MEM.PAGE.AUG, TDH.MEM.RANGE.BLOCK, TDH.MNG.KEY.CONFIG,
                            TDH.VP.CREATE, TDH.MEM.RD, TDH.MEM.WR, TDH.MEM.PAGE.DEMOTE,
                            TDH.MR.EXTEND, TDH.MR.FINALIZE, TDH.MNG.INIT, TDH.VP.INIT,
                            TDH.MEM.PAGE.PROMOTE, TDH.MEM.SEPT.RD, TDH.MEM.PAGE.REMOVE,
                            TDH.MEM.SEPT.REMOVE, TDH.MEM.TRACK, TDH.MEM.RANGE.UNBLOCK:
                            the TD met a machine check
          usual cause       a machine check made the TD fatal earlier
          what to do        tear the TD down; the teardown leaves do not test this

        - This is what host leaves return on a TD made fatal; descriptions of Linux
          speak of NON_RECOVERABLE_TD there.

        Sources: architecture.md §7.3; architecture.md §7.9; architecture.md §6.3;
                 architecture.md §10.2 D-24
    "#]],
    );
}

#[test]
fn a_seamcall_without_a_module() {
    check(
        "0x8000FF00FFFF0000",
        expect![[r#"
            0x8000ff00ffff0000 = TDX_SEAMCALL_VMFAILINVALID: SEAMCALL failed with
            VMfailInvalid: no TDX module is loaded, or TDX is shut down
              class        0xff: made by software, not by the module
              usual cause  no module is loaded; or a machine check in the module (SEAM root)
                           or one of its sanity checks shut TDX down for the whole platform
              what to do   look for an earlier machine check; only a platform reset brings
                           TDX back

            Sources: architecture.md §7.3; architecture.md §6.3; architecture.md §7.1
        "#]],
    );
}

#[test]
fn success_with_information() {
    check(
        "0x00000B0700000001",
        expect![[r#"
            0x00000b0700000001 = TDX_GPA_RANGE_ALREADY_BLOCKED | RCX: the range was blocked
            before; nothing was done
              class             0x0b: Secure-EPT and guest memory
              details L1        0x07
              ERROR             0: the call itself did not fail
              NON_RECOVERABLE   0: retrying is not ruled out
              FATAL             0: does not say that the TD is lost
              HOST_RECOVERABLE  0: no hint
              operand           RCX (1): register RCX
              returned by       TDH.MEM.RANGE.BLOCK: the entry is a *_BLOCKED one
              usual cause       the range was blocked before; its epoch did not change
              what to do        nothing

            Sources: architecture.md §7.3; architecture.md §7.9; architecture.md §11 Q-15
        "#]],
    );
}

#[test]
fn a_seamcall_line_names_the_check_that_failed() {
    check(
        "virt/tdx: SEAMCALL (0x000000000000001c) failed: 0xc000030000000001",
        expect![[r#"
            0xc000030000000001 = TDX_PAGE_METADATA_INCORRECT | RCX: the page's PAMT entry
            has another type or size than the leaf needs
              class             0x03: page metadata (PAMT)
              details L1        0x00
              ERROR             1: the leaf failed
              NON_RECOVERABLE   1: calling again as before cannot help
              FATAL             0: does not say that the TD is lost
              HOST_RECOVERABLE  0: no hint
              operand           RCX (1): register RCX
              leaf              TDH.PHYMEM.PAGE.RECLAIM (0x1c): take a page back from a
                                torn-down TD
              failed check      the page is PT_NDA (reclaimed or removed before) or PT_RSVD
              usual cause       the page is not what the leaf takes: not free when it must
                                be free, not the TDR it should be, reclaimed twice, or
                                mapped at another size
              what to do        ask TDH.PHYMEM.PAGE.RDMD for its type and owner; look for a
                                double reclaim or a page given away twice

            Sources: architecture.md §7.3; architecture.md §7.9; architecture.md §7.7
        "#]],
    );
}

#[test]
fn the_number_that_linux_and_the_module_disagree_on() {
    check(
        "0x4000000200000002",
        expect![[r#"
            0x4000000200000002 = TDX_NON_RECOVERABLE_TD | exit reason 2 (triple fault), as
            Linux numbers it (architecture.md §10.2 D-21)
              class             0x00: general, and how a TD was left
              details L1        0x02
              ERROR             0: the call itself did not fail
              NON_RECOVERABLE   1: calling again as before cannot help
              FATAL             0: does not say that the TD is lost
              HOST_RECOVERABLE  0: no hint
              exit reason       2: triple fault
              usual cause       the TD was left in a way it cannot be entered again
              what to do        tear the TD down

            - The module's source returns TDX_NON_RECOVERABLE_TD as 60000002 in the upper
              half; Linux compares with 40000002. This is Linux's number: real modules of
              the version read do not return it.

            Sources: architecture.md §7.3; architecture.md §7.11; architecture.md §7.9;
                     architecture.md §10.2 D-21
        "#]],
    );
    check(
        "0x6000000200000002",
        expect![[r#"
            0x6000000200000002 = TDX_NON_RECOVERABLE_TD | exit reason 2 (triple fault): this
            TD cannot run again
              class             0x00: general, and how a TD was left
              details L1        0x02
              ERROR             0: the call itself did not fail
              NON_RECOVERABLE   1: calling again as before cannot help
              FATAL             1: the TD is lost
              HOST_RECOVERABLE  0: no hint
              exit reason       2: triple fault
              returned by       TDH.VP.ENTER: the TD left for good
              usual cause       the TD was left in a way it cannot be entered again
              what to do        tear the TD down

            - Linux's headers have 40000002 for this name; 60000002 is what the module's
              source returns, so a kernel that compares with its own number does not
              recognise it.

            Sources: architecture.md §7.3; architecture.md §7.11; architecture.md §7.9;
                     architecture.md §10.2 D-21
        "#]],
    );
}

#[test]
fn a_number_that_fits_both_registers_is_explained_as_both() {
    let both = explain("0x9000000900000134").unwrap();
    assert_eq!(both.kind, Kind::SeamcallStatus);
    assert_eq!(both.also.iter().map(|e| e.kind).collect::<Vec<_>>(), [Kind::MciStatus]);
    assert!(both.notes.iter().any(|n| n.contains("plausible MCi_STATUS")));
    assert!(both.also[0].notes.iter().any(|n| n.contains("completion status")));
}

#[test]
fn the_measured_mci_addr_is_taken_apart() {
    // architecture.md §6.2: PA 0x80A5669610 with HKID 0x41, at 64-byte granularity.
    assert_eq!(values("addr=0x82080A5669600", "if k=7"), ["HKID 0x41, PA 0x80a5669600"]);
    assert_eq!(explain("addr=0x82080A5669600").unwrap().kind, Kind::MciAddr);
    let with = "status=0xbd80000000100134 mcg=0x100f addr=0x82080A5669600 bank=1";
    assert_eq!(values(with, "if k=7"), ["HKID 0x41, PA 0x80a5669600"]);
    assert_eq!(values("addr=0x80A5669600", "if k=7"), ["KeyID 0x0, PA 0x80a5669600"]);
}

#[test]
fn a_machine_check_in_a_td_spares_the_host() {
    let found = explain("mcg=0x100f status=0xbd80000000100134 addr=0x82080A5669600").unwrap();
    let linux: Vec<_> = found.fields.iter().filter(|f| f.name == "Linux").collect();
    assert_eq!(linux.len(), 1);
    assert!(linux[0].value.contains("row 15"), "{}", linux[0].value);
    assert!(found.notes.iter().any(|n| n.contains("do not mask")));
}

#[test]
fn poison_born_at_a_memory_controller_is_named() {
    // architecture.md §13 MC-20.
    let line = "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 15: bc000000082b0092";
    let found = explain(line).unwrap();
    assert!(found.headline.contains("UCNA"), "{}", found.headline);
    let meaning = |name: &str| -> String {
        found.fields.iter().find(|f| f.name == name).map(|f| f.meaning.clone()).unwrap()
    };
    assert_eq!(meaning("MSCOD"), "TME TDX error");
    assert_eq!(meaning("MCACOD"), "memory controller, read, channel 2");
    assert!(meaning("bank").contains("memory controller"));
    assert_eq!(values(line, "Linux").len(), 1);
}

#[test]
fn every_printed_form_of_a_failed_seamcall_is_read() {
    let reclaim = "TDH.PHYMEM.PAGE.RECLAIM (0x1c)";
    let remove = "TDH.MEM.PAGE.REMOVE (0x1d)";
    let cases = [
        ("SEAMCALL (0x1c) failed: 0xc000030000000001 RCX 0x12 RDX 0x34", reclaim),
        ("[ 12.3] virt/tdx: SEAMCALL (0x000000000000001c) failed: 0xc000030000000001", reclaim),
        ("SEAMCALL[TDH.PHYMEM.PAGE.RECLAIM] failed, 0xc000030000000001", reclaim),
        ("SEAMCALL[0x1c] failed: 0xc000030000000001", reclaim),
        ("SEAMCALL failed: leaf 0x1c, error 0xc000030000000001.", reclaim),
        ("TDH_MEM_PAGE_REMOVE failed: 0xc000030000000001", remove),
        ("tdh_mem_page_remove() failed: 0xc000030000000001", remove),
        (
            "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc000030000000001, rcx 0x1, rdx 0x2",
            remove,
        ),
        ("tdh_phymem_page_wbinvd_hkid failed: 0xc000030000000001", "TDH.PHYMEM.PAGE.WBINVD (0x29)"),
        ("tdx_seamret: op: TDH_MEM_PAGE_REMOVE(1d) err: c000030000000001 rcx 0x0", remove),
    ];
    for (line, leaf) in cases {
        let found = explain(line).unwrap();
        assert!(found.headline.contains("TDX_PAGE_METADATA_INCORRECT | RCX"), "{line}");
        assert_eq!(values(line, "leaf"), [leaf], "{line}");
    }
    assert_eq!(values(cases[0].0, "RCX"), ["0x12"]);
    assert_eq!(values(cases[7].0, "RDX"), ["0x2"]);
}

#[test]
fn registers_on_the_next_lines_belong_to_the_seamcall_above() {
    let log = "virt/tdx: SEAMCALL (0x000000000000001c) failed: 0xc000060700000000\n\
               virt/tdx: RCX 0x0000000000000003 RDX 0x0000000012345000 R08 0x0000000000000000\n";
    let found = explain(log).unwrap();
    let register = |name: &str| found.fields.iter().find(|f| f.name == name).unwrap();
    assert_eq!(register("RCX").meaning, "page type PT_REG");
    assert_eq!(register("RDX").meaning, "the owner's TDR");
}

#[test]
fn several_things_of_one_log_are_explained_in_order_without_repeats() {
    let fail = "virt/tdx: SEAMCALL (0x1f) failed: 0x800001c000000000\n";
    let log = format!("{fail}{fail}{PANIC}SEAMCALL TDH_VP_ENTER failed: 0x6000000500000000\n");
    let found = explain(&log).unwrap();
    assert!(found.headline.contains("not a completion status known here"));
    let also: Vec<Kind> = found.also.iter().map(|e| e.kind).collect();
    assert_eq!(also, [Kind::MciStatus, Kind::SeamcallStatus]);
}

#[test]
fn a_log_with_too_many_things_says_so() {
    let line = |i: u64| format!("SEAMCALL (0x1c) failed: {:#x}\n", 0xc000_0300_0000_0000 + i);
    let log: String = (0..40).map(line).collect();
    let found = explain(&log).unwrap();
    assert_eq!(found.also.len(), FINDINGS_MAX - 1);
    assert!(found.notes.iter().any(|n| n.contains("The text has more")));
}

#[test]
fn a_status_is_read_in_every_spelling() {
    let expected = explain("0xC000030000000001").unwrap();
    for spelling in [
        "C000030000000001",
        "c000030000000001",
        "13835061353817047041",
        "-4611682719892504575",
        "0xC000_0300_0000_0001",
        "0xC000030000000001ULL",
        "TDX_PAGE_METADATA_INCORRECT | RCX",
        "page_metadata_incorrect rcx",
        "status=0xC000030000000001",
        "  0xC000030000000001\n",
    ] {
        assert_eq!(explain(spelling).unwrap(), expected, "{spelling}");
    }
    assert_eq!(values("8000020100000000", "class"), ["0x02"]);
}

#[test]
fn the_upper_half_alone_is_enough() {
    for input in ["0xC0000300", "C0000300", "0x815"] {
        let found = explain(input).unwrap();
        assert!(found.notes.iter().any(|n| n.contains("upper half")), "{input}");
    }
    assert!(explain("0x815").unwrap().headline.contains("TDX_KEY_CONFIGURED"));
}

#[test]
fn every_known_status_is_explained_as_itself() {
    let all = STATUSES
        .iter()
        .map(|r| (r.status, r.name))
        .chain(SOFTWARE.iter().map(|r| (r.status, r.name)))
        .chain(LINUX_VARIANTS.iter().map(|r| (r.status, r.name)));
    for (status, name) in all {
        let found = explain(&format!("{:#x}", status.0)).unwrap();
        assert!(found.headline.contains(name), "{name}: {}", found.headline);
    }
}

#[test]
fn a_given_leaf_narrows_the_answer() {
    let found = explain("0x8000020000000001 leaf=TDH.MEM.TRACK").unwrap();
    let checks: Vec<_> = found.fields.iter().filter(|f| f.name == "failed check").collect();
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0].meaning, "the page's PAMT entry is locked");
    let wrong = explain("0x8000020000000001 leaf=40").unwrap();
    assert!(wrong.notes.iter().any(|n| n.contains("No check of this leaf")));
}

#[test]
fn a_leaf_may_be_given_by_its_name_alone_and_the_dispatcher_counts_as_its_check() {
    let by_key = explain("0x8000020000000001 leaf=TDH.MEM.TRACK").unwrap();
    assert_eq!(explain("0x8000020000000001 tdh_mem_track").unwrap(), by_key);
    // architecture.md §11 Q-20.
    let found = explain("0xC000010000000000 leaf=TDH.MEM.SEPT.WR").unwrap();
    let checks: Vec<_> = found.fields.iter().filter(|f| f.name == "failed check").collect();
    // Its own, and the dispatcher's three, of which the unknown leaf is the last (architecture.md §7.1).
    assert_eq!(checks.len(), 4);
    assert!(checks[3].meaning.contains("unknown leaf"));
}

#[test]
fn an_unknown_status_is_explained_as_far_as_its_layout_goes() {
    let found = explain("0x800001C000000000").unwrap();
    assert_eq!(found.kind, Kind::SeamcallStatus);
    assert_eq!(values("0x800001C000000000", "class"), ["0x01"]);
}

#[test]
fn sixteen_digits_are_hexadecimal_as_the_kernel_prints_them() {
    let found = explain("9400000000000150 100").unwrap();
    assert!(found.headline.starts_with("MCi_STATUS 0x9400000000000150"), "{}", found.headline);
    assert_eq!(values("9400000000000150 100", "MCG_STATUS"), ["0x100"]);
}

#[test]
fn an_error_found_by_polling_is_not_graded_as_an_exception() {
    let found = explain("status=0xbd80000000100134 mcg=0x3").unwrap();
    assert!(!found.to_string().contains("MCIP not set in MCA handler"));
}

#[test]
fn memory_controller_codes_mean_nothing_in_other_banks() {
    let meaning = |input: &str| -> String {
        let found = explain(input).unwrap();
        found.fields.iter().find(|f| f.name == "MSCOD").map(|f| f.meaning.clone()).unwrap()
    };
    assert_eq!(meaning("status=0xbc000000082a0090 bank=13"), "TME integrity error");
    assert_eq!(meaning("0xbc000000082a0090"), "TME integrity error");
    assert!(meaning("status=0xbc000000082a0090 bank=1").contains("model-specific"));
}

#[test]
fn what_cannot_be_explained_is_refused_with_what_is_accepted() {
    let refuse = |input: &str| explain(input).unwrap_err();
    assert_eq!(refuse(" \n\t"), ExplainError::Empty);
    assert_eq!(refuse("hello"), ExplainError::Word { found: "hello".into() });
    assert_eq!(refuse("0x80a5669600"), ExplainError::Number { found: "0x80a5669600".into() });
    assert_eq!(refuse("0x1 0x2 0x3"), ExplainError::TooMany { count: 3 });
    assert_eq!(refuse("status="), ExplainError::Word { found: "status".into() });
    assert_eq!(
        refuse("0xC000030000000001 leaf=0x100001c"),
        ExplainError::Word { found: "0x100001c".into() }
    );
    assert_eq!(
        refuse("0x11111111111111111"),
        ExplainError::Word { found: "0x11111111111111111".into() }
    );
    for input in ["", "hello", "0x80a5669600", "1 2 3"] {
        assert!(refuse(input).to_string().contains("accepted are:"), "{input}");
    }
}

#[test]
fn control_characters_do_not_reach_the_text() {
    let found = explain("SEAMCALL (0x1c) failed: 0xc000030000000001\u{1b}[31m\u{7}\r\n").unwrap();
    assert!(found.headline.contains("TDX_PAGE_METADATA_INCORRECT"));
    let log = PANIC.replace("__tlb_remove_page_size", "\u{1b}[2J\u{7}\u{9b}x");
    let text = explain(&log).unwrap().to_string();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
    let error = explain("\u{1b}[31mx").unwrap_err().to_string();
    assert!(!error.chars().any(char::is_control));
}

#[test]
fn megabytes_are_read_in_one_pass() {
    let digits = "f".repeat(4 << 20);
    assert!(explain(&digits).is_err());
    let names = format!("SEAMCALL tdh{} failed: 0xc000030000000001", "_a".repeat(2 << 20));
    assert!(explain(&names).unwrap().headline.contains("TDX_PAGE_METADATA_INCORRECT"));
    let lines = PANIC.repeat(2000);
    assert_eq!(explain(&lines).unwrap().also.len(), FINDINGS_MAX - 1);
}

#[test]
fn no_line_is_wider_than_eighty_columns() {
    let mut inputs: Vec<String> =
        STATUSES.iter().map(|r| format!("status={:#x}", r.status.0 | 1)).collect();
    inputs.push(PANIC.to_owned());
    inputs.push("0xbd80000000100134".to_owned());
    inputs.extend(["0x8000020000000001", "0xC000010000000000"].map(String::from));
    for input in inputs {
        for line in explain(&input).unwrap().to_string().lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }
}

#[test]
fn the_structure_serialises_by_name() {
    let json = serde_json::to_value(explain("0xC000030000000001").unwrap()).unwrap();
    assert_eq!(json["kind"], "seamcall-status");
    assert_eq!(json["fields"][0]["name"], "class");
    assert!(json["citations"].as_array().unwrap().iter().any(|c| c == "architecture.md §7.9"));
    assert_eq!(json["also"], serde_json::json!([]));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        if let Ok(found) = explain(&text) {
            prop_assert!(!found.to_string().is_empty());
        }
    }

    #[test]
    fn no_text_of_known_words_panics(
        words in proptest::collection::vec(
            prop_oneof![
                Just("SEAMCALL"), Just("Machine Check"), Just("Bank"), Just("failed:"), Just(":"),
                Just("0x1c"), Just("f"), Just("bd80000000100134"), Just("ADDR"), Just("MISC"),
                Just("TSC"), Just("RIP"), Just("10:<"), Just("!INEXACT!"), Just("PROCESSOR"),
                Just("Kernel panic - not syncing:"), Just("Machine check:"), Just("tdh_"), Just("TDH."),
                Just("\n"), Just("é"), Just("status="), Just("mcg="), Just("leaf="), Just("RCX"),
                Just("0xffffffffffffffff"), Just("-1"), Just("|"), Just("TDX_OPERAND_BUSY"), Just("\u{0}"),
            ],
            0..24,
        ),
    ) {
        let text = words.join(" ");
        if let Ok(found) = explain(&text) {
            prop_assert!(!found.to_string().is_empty());
        }
    }

    #[test]
    fn every_number_is_explained_or_refused_as_a_number(value: u64) {
        match explain(&format!("{value:#x}")) {
            Ok(found) => {
                let is_known = sim_core::tdx::Status(value).name().is_some()
                    || (value <= u64::from(u32::MAX));
                prop_assert!(is_known || value >> 63 == 1);
                prop_assert!(!found.fields.is_empty());
            }
            Err(e) => prop_assert!(matches!(e, ExplainError::Number { .. }), "{}", e),
        }
    }

    #[test]
    fn every_error_with_mcg_is_graded(status: u64, mcg: u64, addr: u64, bank: u8) {
        let text = format!("status={status:#x} mcg={mcg:#x} addr={addr:#x} bank={bank}");
        let found = explain(&text).unwrap();
        prop_assert_eq!(found.kind, Kind::MciStatus);
        prop_assert!(found.fields.iter().any(|f| f.name.starts_with("Linux")));
        for line in found.to_string().lines() {
            prop_assert!(line.chars().count() <= COLUMNS, "{}", line);
        }
    }
}
