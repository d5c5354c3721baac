use super::*;
use expect_test::expect;
use proptest::prelude::*;
use sim_core::addr::Addr;
use sim_core::event::BirthId;
use sim_core::keyid::KeyId;
use sim_core::mca::McAccess;
use std::num::NonZeroU32;

/// verification.md R1: the published log of a kernel load of poisoned memory.
const PUBLISHED: McStatus = McStatus(0xbd80_0000_0010_0134);
const CODES: [u16; 8] = [0x0134, 0x0150, 0x017A, 0x00C0, 0x00CF, 0x00BF, 0x00D0, 0x0000];
const CONTEXTS: [Context; 3] = [Context::Kernel, Context::KernelFixup, Context::User];

/// Every situation that the rules can tell apart.
fn situations() -> impl Iterator<Item = Situation> {
    (0u64..1 << 9).flat_map(|high| {
        (0u64..16).flat_map(move |mcg| {
            CODES.iter().flat_map(move |code| {
                CONTEXTS.iter().flat_map(move |context| {
                    [false, true].map(move |in_exception| Situation {
                        status: McStatus(high << 55 | u64::from(*code)),
                        mcg: McgStatus(mcg & 7 | (mcg >> 3) << 12),
                        in_exception,
                        context: *context,
                    })
                })
            })
        })
    })
}

/// architecture.md §6.4 read once more, as a chain of questions instead of masks.
fn sheet(at: &Situation) -> Option<(u8, Severity)> {
    let p = at.status.unpack();
    let (ripv, eipv) = (at.mcg.has(1), at.mcg.has(2));
    let (mcip, seam) = (at.mcg.has(4), at.mcg.has(1 << 12));
    let kernel = at.context != Context::User;
    let fixup = at.context == Context::KernelFixup && ripv && eipv;
    let srar = p.uc && p.s && p.ar;
    let with_address = srar && !p.over && p.addrv && p.miscv;
    let (data, fetch) = (p.mcacod == 0x134, p.mcacod == 0x150);
    Some(if !p.val {
        (1, Severity::None)
    } else if at.in_exception && !p.en {
        (2, Severity::None)
    } else if p.pcc {
        (3, Severity::Panic)
    } else if at.in_exception && !mcip {
        (4, Severity::Panic)
    } else if at.in_exception && !ripv && !eipv {
        (5, Severity::Panic)
    } else if at.in_exception && kernel && !ripv {
        (6, Severity::Panic)
    } else if p.uc && !p.ar && ((0xC0..=0xCF).contains(&p.mcacod) || p.mcacod == 0x17A) {
        (7, Severity::ActionOptional)
    } else if p.uc && !p.s && !p.ar {
        (8, Severity::Ucna)
    } else if p.uc && !p.s && p.ar && !p.over {
        (9, Severity::Panic)
    } else if !p.s {
        (10, Severity::Keep)
    } else if p.over && srar {
        (11, Severity::Panic)
    } else if with_address && ripv && !eipv {
        (12, Severity::Keep)
    } else if with_address && data && fixup {
        (13, Severity::ActionRequired)
    } else if with_address && (data || fetch) && !kernel {
        (14, Severity::ActionRequired)
    } else if with_address && (data || fetch) && kernel && !fixup && seam {
        (15, Severity::ActionRequired)
    } else if with_address && (data || fetch) && kernel && !fixup {
        (16, Severity::Panic)
    } else if srar {
        (17, Severity::Panic)
    } else {
        return None;
    })
}

#[test]
fn every_situation_gets_the_grade_of_the_sheet() {
    for at in situations() {
        let got = grade(&at);
        match sheet(&at) {
            Some(expected) => assert_eq!((got.row, got.severity), expected, "{at:?}"),
            None => assert!(got.row > 17 && got.severity == Severity::Some, "{at:?} {got:?}"),
        }
    }
}

#[test]
fn every_rule_is_reached_and_the_last_matches_everything() {
    let mut reached = BTreeSet::new();
    for at in situations() {
        let first = SEVERITY.iter().position(|rule| rule.matches(&at)).unwrap();
        reached.insert(first);
        assert!(SEVERITY.last().unwrap().matches(&at));
    }
    assert_eq!(reached, (0..SEVERITY.len()).collect());
}

#[test]
fn no_two_rules_ask_the_same_and_rows_ascend() {
    for (i, a) in SEVERITY.iter().enumerate() {
        for b in SEVERITY.iter().skip(i + 1) {
            assert!(a.row <= b.row);
            let ask = |r: &Rule| (r.exception_only, r.context, r.code, r.status, r.mcg);
            assert_ne!(ask(a), ask(b), "{} and {}", a.message, b.message);
            assert_ne!(a.message, b.message);
        }
    }
}

#[test]
fn the_published_kernel_log_is_row_16_in_linuxs_words() {
    let at = Situation {
        status: PUBLISHED,
        mcg: McgStatus(0xf),
        in_exception: true,
        context: Context::Kernel,
    };
    let grade = grade(&at);
    assert_eq!((grade.row, grade.severity), (16, Severity::Panic));
    assert_eq!(grade.message, "Data load in unrecoverable area of kernel");
    assert_eq!(panic_message(at.mcg), "Fatal local machine check");
    assert_eq!(panic_message(McgStatus(7)), "Fatal machine check");
}

#[test]
fn each_row_of_the_sheet_by_an_example() {
    let ucna = McStatus::ucna(0x082B, 0x0090);
    let fetch = McStatus::srar(0, MCACOD_FETCH);
    let lost = McStatus(PUBLISHED.0 | OVER);
    let (k, f, u) = (Context::Kernel, Context::KernelFixup, Context::User);
    let cases: &[(u8, u64, u64, bool, Context, Severity)] = &[
        (1, 0, 7, true, k, Severity::None),
        (2, PUBLISHED.0 & !EN, 7, true, k, Severity::None),
        (3, PUBLISHED.0 | PCC, 7, true, u, Severity::Panic),
        (4, PUBLISHED.0, 3, true, u, Severity::Panic),
        (5, PUBLISHED.0, 4, true, u, Severity::Panic),
        (6, PUBLISHED.0, 6, true, f, Severity::Panic),
        (7, VAL | UC | EN | S | 0xC3, 7, true, k, Severity::ActionOptional),
        (7, VAL | UC | EN | 0x17A, 0, false, k, Severity::ActionOptional),
        (8, ucna.0, 0, false, k, Severity::Ucna),
        (9, VAL | UC | EN | AR, 7, true, k, Severity::Panic),
        (10, VAL | EN, 7, true, k, Severity::Keep),
        (11, lost.0, 7, true, u, Severity::Panic),
        (12, PUBLISHED.0, 5, true, k, Severity::Keep),
        (13, PUBLISHED.0, 7, true, f, Severity::ActionRequired),
        (14, PUBLISHED.0, 7, true, u, Severity::ActionRequired),
        (14, fetch.0, 7, true, u, Severity::ActionRequired),
        (15, PUBLISHED.0, 0x1007, true, k, Severity::ActionRequired),
        (15, fetch.0, 0x100f, true, k, Severity::ActionRequired),
        (16, fetch.0, 7, true, k, Severity::Panic),
        (17, PUBLISHED.0 & !ADDRV, 7, true, k, Severity::Panic),
        (17, fetch.0, 7, true, f, Severity::Panic),
        (18, VAL | UC | EN | S, 7, true, k, Severity::Some),
        (19, VAL | UC | EN | S | OVER, 7, true, k, Severity::Some),
        (20, VAL | EN | S, 7, true, k, Severity::Some),
    ];
    let mut rows = BTreeSet::new();
    for &(row, status, mcg, in_exception, context, severity) in cases {
        let at = Situation { status: McStatus(status), mcg: McgStatus(mcg), in_exception, context };
        let got = grade(&at);
        assert_eq!((got.row, got.severity), (row, severity), "{at:?}");
        rows.insert(row);
    }
    assert_eq!(rows, (1..=20).collect());
}

#[test]
fn without_the_seam_rules_an_error_in_a_td_looks_like_the_kernels() {
    let at = Situation {
        status: PUBLISHED,
        mcg: McgStatus(0x100f),
        in_exception: true,
        context: Context::Kernel,
    };
    assert_eq!(grade_with(&at, true).row, 15);
    assert_eq!(grade_with(&at, false).row, 16);
}

fn policy() -> McPolicy {
    McPolicy { seam_nr_recovery: true, mask_keyid: false, address_bits: 45 }
}

fn record(context: McContext, mcg: u64, keyid: u16) -> McRecord {
    let hpa = Hpa(0x80_A566_9600);
    McRecord {
        core: 3,
        bank: 1,
        status: PUBLISHED,
        addr: hpa.0 | u64::from(keyid) << 45,
        misc: 0x86,
        mcg: McgStatus(mcg),
        access: McAccess::DataLoad,
        context,
        at: Addr::new(hpa, KeyId(keyid)),
        birth: BirthId(NonZeroU32::MIN),
    }
}

const BAD: Page = Page(0x80_A566_9600 >> 12);

#[test]
fn poison_read_by_the_kernel_panics_the_host() {
    let mut linux = LinuxMce::new(policy());
    let said = linux.machine_check(&record(McContext::Kernel, 0xf, 0));
    assert_eq!(said, McConsequence::Panic);
    assert!(linux.hwpoison().is_empty());
    assert_eq!(linux.log()[0].row, 16);
    assert_eq!(linux.log()[0].message, "Data load in unrecoverable area of kernel");
}

#[test]
fn poison_read_by_a_process_costs_the_process_and_the_page() {
    let mut linux = LinuxMce::new(policy());
    let said = linux.machine_check(&record(McContext::User, 0xf, 0));
    assert_eq!(said, McConsequence::Sigbus);
    assert_eq!(linux.hwpoison(), &[BAD].into());
    assert_eq!(linux.log()[0].hwpoison, Some(BAD));
}

#[test]
fn a_td_with_seam_nr_costs_the_host_nothing() {
    let masking = McPolicy { mask_keyid: true, ..policy() };
    let mut linux = LinuxMce::new(masking);
    let said = linux.machine_check(&record(McContext::SeamNonRoot, 0x100f, 0x41));
    assert_eq!(said, McConsequence::Survived);
    assert_eq!(linux.hwpoison(), &[BAD].into());
    assert_eq!(linux.log()[0].row, 15);
}

#[test]
fn kernels_as_they_are_lose_the_page_behind_the_keyid_bits() {
    // linux-host-paths.md §14.3.
    let mut linux = LinuxMce::new(policy());
    let said = linux.machine_check(&record(McContext::SeamNonRoot, 0x100f, 0x41));
    assert_eq!((said, linux.hwpoison().len()), (McConsequence::Survived, 0));
    // A shared line has no such bits.
    linux.machine_check(&record(McContext::SeamNonRoot, 0x100f, 0));
    assert_eq!(linux.hwpoison(), &[BAD].into());
}

#[test]
fn a_td_without_seam_nr_panics_the_host() {
    let mut linux = LinuxMce::new(policy());
    let said = linux.machine_check(&record(McContext::SeamNonRoot, 0xf, 0x41));
    assert_eq!(said, McConsequence::Panic);
    let old = McPolicy { seam_nr_recovery: false, ..policy() };
    let mut linux = LinuxMce::new(old);
    let said = linux.machine_check(&record(McContext::SeamNonRoot, 0x100f, 0x41));
    assert_eq!((said, linux.log()[0].row), (McConsequence::Panic, 16));
}

#[test]
fn an_error_of_another_thread_is_survived_and_marks_nothing() {
    let mut linux = LinuxMce::new(policy());
    let said = linux.machine_check(&record(McContext::User, 5, 0));
    assert_eq!((said, linux.hwpoison().len()), (McConsequence::Survived, 0));
    assert_eq!(linux.log()[0].row, 12);
}

#[test]
fn without_lmce_the_exception_is_recorded_as_broadcast() {
    let mut linux = LinuxMce::new(policy());
    linux.machine_check(&record(McContext::User, 7, 0));
    linux.machine_check(&record(McContext::User, 0xf, 0));
    let broadcast: Vec<bool> = linux.log().iter().map(|g| g.broadcast).collect();
    assert_eq!(broadcast, [true, false]);
}

proptest! {
    #[test]
    fn any_registers_are_graded_and_handled(
        status: u64, mcg: u64, addr: u64, bits: u8, context in 0usize..4,
    ) {
        let context = [
            McContext::Kernel, McContext::User, McContext::SeamRoot, McContext::SeamNonRoot,
        ][context];
        let mut linux = LinuxMce::new(McPolicy { address_bits: bits, ..policy() });
        let mut record = record(context, mcg, 0);
        record.status = McStatus(status);
        record.addr = addr;
        let said = linux.machine_check(&record);
        let logged = &linux.log()[0];
        prop_assert_eq!(said == McConsequence::Panic, logged.severity == Severity::Panic);
        prop_assert_eq!(linux.hwpoison().len(), usize::from(logged.hwpoison.is_some()));
        // Only a process can get SIGBUS.
        prop_assert!(said != McConsequence::Sigbus || context == McContext::User);
    }
}

#[test]
fn the_rules_as_the_book_prints_them() {
    expect![[r#"
        | Row | Condition | Grade | Message | Source |
        |---|---|---|---|---|
        | 1 | VAL=0 | none | Invalid | architecture.md §6.4 |
        | 2 | in exception, EN=0 | none | Not enabled | architecture.md §6.4 |
        | 3 | PCC=1 | PANIC | Processor context corrupt | architecture.md §6.4 |
        | 4 | in exception, MCIP=0 | PANIC | MCIP not set in MCA handler | architecture.md §6.4 |
        | 5 | in exception, RIPV=EIPV=0 | PANIC | Neither restart nor error IP | architecture.md §6.4 |
        | 6 | in exception, kernel, RIPV=0 | PANIC | In kernel and no restart IP | architecture.md §6.4 |
        | 7 | UC=1, AR=0, MCACOD 0x00C0 to 0x00CF | action optional | Action optional: memory scrubbing error | architecture.md §6.4 |
        | 7 | UC=1, AR=0, MCACOD 0x017A | action optional | Action optional: last level cache writeback error | architecture.md §6.4 |
        | 8 | UC=1, S=0, AR=0 | UCNA | Uncorrected no action required | architecture.md §6.4 |
        | 9 | UC=1, S=0, AR=1, OVER=0 | PANIC | Illegal combination (UCNA with AR=1) | architecture.md §6.4 |
        | 10 | S=0 | keep | Non signaled machine check | architecture.md §6.4 |
        | 11 | OVER=1, UC=1, S=1, AR=1 | PANIC | Action required with lost events | architecture.md §6.4 |
        | 12 | SRAR with address, RIPV=1, EIPV=0 | keep | Action required but unaffected thread is continuable | architecture.md §6.4 |
        | 13 | SRAR with address, MCACOD 0x0134, kernel with fixup | action required | Action required: data load in error recoverable area of kernel | architecture.md §6.4 |
        | 14 | SRAR with address, MCACOD 0x0134, user | action required | Action required: data load error in a user process | architecture.md §6.4 |
        | 14 | SRAR with address, MCACOD 0x0150, user | action required | Action required: instruction fetch error in a user process | architecture.md §6.4 |
        | 15 | SRAR with address, MCACOD 0x0134, kernel, SEAM_NR=1 | action required | Data load error in SEAM non-root mode | architecture.md §6.4 |
        | 15 | SRAR with address, MCACOD 0x0150, kernel, SEAM_NR=1 | action required | Instruction fetch error in SEAM non-root mode | architecture.md §6.4 |
        | 16 | SRAR with address, MCACOD 0x0134, kernel | PANIC | Data load in unrecoverable area of kernel | architecture.md §6.4 |
        | 16 | SRAR with address, MCACOD 0x0150, kernel | PANIC | Instruction fetch error in kernel | architecture.md §6.4 |
        | 17 | other SRAR | PANIC | Action required: unknown MCACOD | architecture.md §6.4 |
        | 18 | UC=1, S=1, AR=0, OVER=0 | some | Action optional: unknown MCACOD | Linux arch/x86/kernel/cpu/mce/severity.c |
        | 19 | UC=1, S=1, AR=0, OVER=1 | some | Action optional with lost events | Linux arch/x86/kernel/cpu/mce/severity.c |
        | 20 | anything else | some | No match | Linux arch/x86/kernel/cpu/mce/severity.c |
    "#]].assert_eq(&severity_markdown());
}
