//! Linux's grading row by row (architecture.md §6.4), and the cases of verification.md R3.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use host::mce::{Context, Grade, SEVERITY, Severity, Situation, grade, grade_with};
use proptest::prelude::*;
use proptest::sample::select;
use sim_core::mca::{McStatus, McgStatus, StatusParts};

const RIPV: u64 = McgStatus::RIPV;
const EIPV: u64 = McgStatus::EIPV;
const MCIP: u64 = McgStatus::MCIP;
const SEAM_NR: u64 = McgStatus::SEAM_NR;
const CONTEXTS: [Context; 3] = [Context::Kernel, Context::KernelFixup, Context::User];

/// What a recoverable data load in the kernel looks like, with both instruction pointers.
fn usual() -> (StatusParts, u64) {
    (McStatus::srar(0x10, 0x134).unpack(), RIPV | EIPV | MCIP)
}

fn situation(parts: StatusParts, mcg: u64, in_exception: bool, context: Context) -> Situation {
    Situation { status: McStatus::pack(parts), mcg: McgStatus(mcg), in_exception, context }
}

/// For each row of the sheet: a situation, and what has to be taken back for the next of the sheet's rows that fits it to
/// win. So each step down the table is one change.
struct Rung {
    row: u8,
    severity: Severity,
    at: Situation,
    without: Situation,
    then: u8,
}

fn rung(row: u8, severity: Severity, at: Situation, without: Situation, then: u8) -> Rung {
    Rung { row, severity, at, without, then }
}

#[test]
fn each_row_wins_by_its_own_condition_and_loses_to_the_next_without_it() {
    use Context::{Kernel, KernelFixup, User};
    use Severity::{ActionOptional, ActionRequired, Keep, None as No, Panic, Ucna};
    let (p, mcg) = usual();
    let at = |p, mcg, context| situation(p, mcg, true, context);
    let fine = at(p, mcg, Kernel);
    let fetch = StatusParts { mcacod: 0x150, ..p };
    let scrub = StatusParts { ar: false, mcacod: 0xc1, ..p };
    let l3wb = StatusParts { mcacod: 0x17a, ..scrub };
    let quiet = StatusParts { s: false, ..p };
    let ucna = StatusParts { ar: false, ..quiet };
    let corrected = StatusParts { uc: false, ..ucna };
    let lost = StatusParts { over: true, ..p };
    let ladder = [
        rung(
            1,
            No,
            at(StatusParts { val: false, pcc: true, ..p }, mcg, Kernel),
            at(StatusParts { pcc: true, ..p }, mcg, Kernel),
            3,
        ),
        rung(
            2,
            No,
            at(StatusParts { en: false, pcc: true, ..p }, mcg, Kernel),
            at(StatusParts { pcc: true, ..p }, mcg, Kernel),
            3,
        ),
        // Outside the handler EN is not asked for.
        rung(
            2,
            No,
            at(StatusParts { en: false, ..p }, mcg, Kernel),
            situation(StatusParts { en: false, ..p }, mcg, false, Kernel),
            16,
        ),
        rung(3, Panic, at(StatusParts { pcc: true, ..p }, 0, Kernel), at(p, 0, Kernel), 4),
        rung(4, Panic, at(p, 0, Kernel), at(p, MCIP, Kernel), 5),
        rung(4, Panic, at(p, RIPV | EIPV, User), situation(p, RIPV | EIPV, false, User), 14),
        rung(5, Panic, at(p, MCIP, Kernel), at(p, MCIP | EIPV, Kernel), 6),
        rung(5, Panic, at(p, MCIP, User), at(p, MCIP | EIPV, User), 14),
        rung(6, Panic, at(p, MCIP | EIPV, KernelFixup), at(p, mcg, KernelFixup), 13),
        rung(6, Panic, at(scrub, MCIP | EIPV, Kernel), at(scrub, mcg, Kernel), 7),
        rung(
            7,
            ActionOptional,
            at(StatusParts { s: false, ..scrub }, mcg, Kernel),
            at(ucna, mcg, Kernel),
            8,
        ),
        rung(
            7,
            ActionOptional,
            at(l3wb, mcg, Kernel),
            at(StatusParts { ar: true, ..l3wb }, mcg, Kernel),
            17,
        ),
        rung(8, Ucna, at(ucna, mcg, Kernel), at(quiet, mcg, Kernel), 9),
        rung(
            9,
            Panic,
            at(quiet, mcg, Kernel),
            at(StatusParts { over: true, ..quiet }, mcg, Kernel),
            10,
        ),
        rung(
            10,
            Keep,
            at(corrected, mcg, User),
            at(StatusParts { s: true, ..corrected }, mcg, User),
            20,
        ),
        rung(11, Panic, at(lost, RIPV | MCIP, Kernel), at(p, RIPV | MCIP, Kernel), 12),
        rung(12, Keep, at(p, RIPV | MCIP, KernelFixup), at(p, mcg, KernelFixup), 13),
        rung(12, Keep, at(p, RIPV | MCIP, User), at(p, mcg, User), 14),
        rung(
            13,
            ActionRequired,
            at(p, mcg | SEAM_NR, KernelFixup),
            at(p, mcg | SEAM_NR, Kernel),
            15,
        ),
        rung(14, ActionRequired, at(p, mcg | SEAM_NR, User), at(p, mcg | SEAM_NR, Kernel), 15),
        rung(14, ActionRequired, at(fetch, mcg, User), at(fetch, mcg, Kernel), 16),
        rung(15, ActionRequired, at(p, mcg | SEAM_NR, Kernel), fine, 16),
        rung(15, ActionRequired, at(fetch, mcg | SEAM_NR, Kernel), at(fetch, mcg, Kernel), 16),
        rung(16, Panic, fine, at(StatusParts { mcacod: 0x135, ..p }, mcg, Kernel), 17),
        rung(
            16,
            Panic,
            at(fetch, mcg, Kernel),
            at(StatusParts { miscv: false, ..fetch }, mcg, Kernel),
            17,
        ),
        rung(
            17,
            Panic,
            at(StatusParts { addrv: false, ..p }, mcg | SEAM_NR, Kernel),
            at(p, mcg | SEAM_NR, Kernel),
            15,
        ),
    ];
    for Rung { row, severity, at, without, then } in &ladder {
        let got = grade(at);
        assert_eq!((got.row, got.severity), (*row, *severity), "{at:?}");
        for earlier in SEVERITY.iter().filter(|rule| rule.row < *row) {
            assert!(!earlier.matches(at), "row {} also fits {at:?} of row {row}", earlier.row);
        }
        assert_eq!(grade(without).row, *then, "{without:?} is row {row} without its condition");
    }
    for row in 1..=17 {
        assert!(ladder.iter().any(|r| r.row == row), "row {row} is not on the ladder");
    }
}

#[test]
fn r3_in_linuxs_words() {
    let (p, mcg) = usual();
    let said = |p: StatusParts, mcg: u64, context| {
        let Grade { severity, message, .. } = grade(&situation(p, mcg, true, context));
        (severity, message)
    };
    let kernel = said(p, mcg, Context::Kernel);
    assert_eq!(kernel, (Severity::Panic, "Data load in unrecoverable area of kernel"));
    let (seam_nr, _) = said(p, mcg | SEAM_NR, Context::Kernel);
    assert_eq!(seam_nr, Severity::ActionRequired);
    for context in CONTEXTS {
        let lost = said(StatusParts { over: true, ..p }, mcg, context);
        assert_eq!(lost, (Severity::Panic, "Action required with lost events"));
    }
}

fn any_situation() -> impl Strategy<Value = Situation> {
    let code = select(vec![0x134u64, 0x150, 0x17a, 0xc0, 0xcf, 0xbf, 0xd0, 0x90, 0, 0xffff]);
    let flags = (0u64..512, any::<u16>(), code, 0u64..16, any::<bool>(), any::<bool>());
    (flags, select(CONTEXTS.to_vec())).prop_map(
        |((high, mscod, code, mcg, seam, in_exception), context)| Situation {
            status: McStatus(high << 55 | u64::from(mscod) << 16 | code),
            mcg: McgStatus(mcg | u64::from(seam) << 12),
            in_exception,
            context,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_controller_logs_never_panics_a_host_that_polls(mscod: u16, mcacod: u16, mcg: u64) {
        let status = McStatus::ucna(mscod, mcacod);
        for context in CONTEXTS {
            let at = Situation { status, mcg: McgStatus(mcg), in_exception: false, context };
            let got = grade(&at);
            prop_assert!(matches!(got.severity, Severity::Ucna | Severity::ActionOptional), "{got:?}");
        }
    }

    #[test]
    fn the_fields_that_the_sheet_does_not_name_change_no_grade(at in any_situation(), mscod: u16, mcg: u64) {
        let parts = StatusParts { mscod, ..at.status.unpack() };
        let named = RIPV | EIPV | MCIP | SEAM_NR;
        let mcg = McgStatus(at.mcg.0 & named | mcg & !named);
        let other = Situation { status: McStatus::pack(parts), mcg, ..at };
        prop_assert_eq!(grade(&at), grade(&other));
    }

    #[test]
    fn a_kernel_without_row_15_differs_in_what_row_15_grades_alone(at in any_situation()) {
        let (with, without) = (grade(&at), grade_with(&at, false));
        prop_assert_eq!(with != without, with.row == 15);
        prop_assert!(with.row != 15 || without.row == 16);
    }
}
