//! TDH.SYS.*: every status in check order, memory traffic, configuration of real machines, update.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::cases::{Case, LeafCases, check, hold};
use common::*;
use expect_test::expect;
use sim_core::outcome::PconfigStatus;
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::units::Area;
use sim_core::{Addr, Hpa, KeyId};
use std::fmt::Write;
use std::sync::LazyLock;
use tdx_module::fields::{NO_FIELD, SYS_FIELDS, features0};
use tdx_module::op_state::KotState;
use tdx_module::pamt::{Size, pamt_bytes};
use tdx_module::{Call, Spec, SysState, Touch};

const GIB: u64 = 1 << 30;

fn case(
    when: &'static str,
    spoils: &'static str,
    fault: fn(&mut World, &mut Call),
    status: Status,
) -> Case {
    Case { when, spoils, fault, status }
}
fn call(leaf: Leaf) -> Call {
    Call::new(leaf, 0, 0, 0, 0)
}
/// A status with three detail bytes.
fn detail(status: Status, a: u64, b: u64, c: u64) -> Status {
    Status(status.0 | a | b << 8 | c << 16)
}
fn about_msr(status: Status, number: u64) -> Status {
    Status(status.0 | number)
}
/// LP 1 holds the global lock exclusively: in a call that fails, until it has left.
fn global_lock(w: &mut World, _: &mut Call) {
    hold(w, call(Leaf::SYS_KEY_CONFIG), 2);
}

fn fresh() -> World {
    World::new(spec())
}
fn initialized() -> World {
    let mut w = fresh();
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    w
}
fn lps_initialized() -> World {
    let mut w = initialized();
    for lp in 0..w.flights.len() {
        assert!(!w.m.is_lp_initialized(lp as u16));
        assert_eq!(w.call_on(lp, call(Leaf::SYS_LP_INIT)).status, Status::SUCCESS);
        assert!(w.m.is_lp_initialized(lp as u16));
    }
    w
}
/// Two TDMRs of 1 GiB, one behind the other, in memory.
fn two_tdmrs() -> (World, Call) {
    let mut w = lps_initialized();
    let one = TdmrText::at(TDMR, GIB, PAMT);
    let two = TdmrText::at(TDMR + GIB, GIB, PAMT + 0x100_0000);
    let array = w.write_tdmrs(&[one, two]);
    (w, Call::new(Leaf::SYS_CONFIG, array, 2, GLOBAL, 0))
}
fn configured() -> World {
    let (mut w, call) = two_tdmrs();
    assert_eq!(w.call_on(0, call).status, Status::SUCCESS);
    w
}
fn keyed() -> World {
    let mut w = configured();
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    w
}
static READY: LazyLock<World> = LazyLock::new(World::ready);
fn ready() -> World {
    READY.clone()
}

// ------------------------------------------------------------------------------------------------------ every status

#[test]
fn sys_init_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_INIT,
        base: || (fresh(), call(Leaf::SYS_INIT)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case("the global lock is held", "lock", global_lock, Status::SYS_BUSY),
            case(
                "reserved bits",
                "rcx",
                |_, c| c.regs[0] = 1,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "done before",
                "state",
                |w, _| w.edit("sys/state", "SysInitDone".into()),
                Status::SYS_INIT_NOT_PENDING,
            ),
            case(
                "a processor without RDCL_NO",
                "arch capabilities",
                |w, _| w.msrs[0].push((0x10A, 0x0020_FD6A)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0x10A),
            ),
            case(
                "xAPIC mode is not disabled",
                "xapic",
                |w, _| w.msrs[0].push((0xBD, 0)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0xBD),
            ),
            case(
                "no energy filtering",
                "energy",
                |w, _| w.msrs[0].push((0xBC, 0)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0xBC),
            ),
            case(
                "counters cannot be written in full",
                "counters",
                |w, _| w.msrs[0].push((0x345, 0)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0x345),
            ),
            case(
                "an SMRR in the second CMR",
                "smrr",
                |w, _| w.edit("spec/tdx/smrr", "0x180000000-0x180800000".into()),
                detail(Status::SMRR_OVERLAPS_CMR, 0, 1, 0),
            ),
            case(
                "TME is not locked",
                "tme",
                |w, _| w.edit("spec/tdx/tme_locked", false.into()),
                about_msr(Status::INCORRECT_MSR_VALUE, 0x982),
            ),
            case(
                "TME_ACTIVATE of this LP is not locked",
                "tme msr",
                |w, _| w.msrs[0].push((0x982, 2)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0x982),
            ),
            case(
                "the last private HKID is 2048 or above",
                "hkids",
                |w, _| {
                    w.edit("spec/keyid/keyid_bits", 12.into());
                    w.edit("spec/keyid/mktme_kids", 2047.into());
                    w.edit("spec/keyid/tdx_priv_kids", 1.into());
                },
                about_msr(Status::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, 2048),
            ),
            case(
                "WBINVDP and WBNOINVDP have different numbers of sub-blocks",
                "sub-blocks",
                |w, _| w.msrs[0].push((0x99, 5)),
                about_msr(Status::INCORRECT_MSR_VALUE, 0x99),
            ),
            case(
                "a CMR that begins within a page",
                "cmrs",
                |w, _| {
                    w.edit("spec/tdx/cmrs", "0x100000-0x77800000 0x100000800-0x200000000".into())
                },
                Status::CMR_LIST_INVALID,
            ),
            case("no entropy", "entropy", |w, _| w.starve = 1, Status::RND_NO_ENTROPY),
        ],
        unreachable: &[(
            Status::INCORRECT_CPUID_VALUE,
            "one number stands for all of CPUID, and it is only compared between LPs",
        )],
    });
}

#[test]
fn sys_init_refuses_every_list_of_cmrs_that_is_not_as_section_7_4_says() {
    let with = |cmrs: Vec<Area>| {
        let mut spec = spec();
        spec.tdx.smrr = Area { base: 0, end: 0 };
        spec.tdx.cmrs = cmrs;
        World::new(spec).call(Leaf::SYS_INIT, 0, 0, 0, 0).status
    };
    let area = |base: u64, end: u64| Area { base, end };
    let many = |n: u64| (0..n).map(|i| area(i << 12, (i + 1) << 12)).collect::<Vec<_>>();
    for good in [
        vec![],
        many(32),
        vec![area(0x1000, 0x2000), area(0, 0), area(0x2000, 0x3000)],
        vec![area(0x1000, 1 << 45)],
    ] {
        assert_eq!(with(good.clone()), Status::SUCCESS, "{good:?}");
    }
    for bad in [
        many(33),
        vec![area(0x2000, 0x3000), area(0x1000, 0x2000)],
        vec![area(0x1000, 0x3000), area(0x2000, 0x4000)],
        vec![area(0x1000, 0x2800)],
        vec![area(0x3000, 0x2000)],
        vec![area(0x1000, (1 << 45) + 0x1000)],
    ] {
        assert_eq!(with(bad.clone()), Status::CMR_LIST_INVALID, "{bad:?}");
    }
}

#[test]
fn sys_lp_init_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_LP_INIT,
        base: || (initialized(), call(Leaf::SYS_LP_INIT)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case("the global lock is held", "lock", global_lock, Status::SYS_BUSY),
            case(
                "before TDH.SYS.INIT",
                "state",
                |w, _| w.edit("sys/state", "SysInitPending".into()),
                Status::SYS_LP_INIT_NOT_PENDING,
            ),
            case(
                "past TDH.SYS.CONFIG",
                "state",
                |w, _| w.edit("sys/state", "SysConfigDone".into()),
                Status::SYS_LP_INIT_NOT_PENDING,
            ),
            case(
                "done before",
                "lp",
                |w, _| w.edit("lps/0/initialized", true.into()),
                Status::SYS_LP_INIT_DONE,
            ),
            case("no entropy", "entropy", |w, _| w.starve = 1, Status::RND_NO_ENTROPY),
            case(
                "another MISC_PACKAGE_CTLS",
                "package",
                |w, _| w.msrs[0].push((0xBC, 3)),
                about_msr(Status::INCONSISTENT_MSR, 0xBC),
            ),
            case("another CPUID", "cpuid", |w, _| w.cpuid[0] = 1, Status::INCONSISTENT_CPUID_FIELD),
            case(
                "another TSC_ADJUST",
                "tsc",
                |w, _| w.msrs[0].push((0x3B, 1)),
                about_msr(Status::INCONSISTENT_MSR, 0x3B),
            ),
            case(
                "another WBNOINVDP",
                "sub-blocks",
                |w, _| w.msrs[0].push((0x99, 1)),
                about_msr(Status::INCONSISTENT_MSR, 0x99),
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn an_lp_that_is_like_the_first_in_what_is_not_reset_is_accepted_and_all_translations_go() {
    let mut w = fresh();
    w.msrs[0].push((0x3B, 77));
    w.msrs[1].push((0x3B, 77));
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    assert_eq!(w.call_on(1, call(Leaf::SYS_LP_INIT)).status, Status::SUCCESS);
    assert!(w.touches.contains(&Touch::Invept(None)), "{:?}", w.touches);
    w.msrs[0].clear();
    let status = w.call_on(0, call(Leaf::SYS_LP_INIT)).status;
    assert_eq!(status, about_msr(Status::INCONSISTENT_MSR, 0x3B));
}

#[test]
fn lps_are_initialized_side_by_side() {
    let mut w = initialized();
    hold(&mut w, call(Leaf::SYS_LP_INIT), 2);
    assert_eq!(w.call_on(0, call(Leaf::SYS_LP_INIT)).status, Status::SUCCESS);
    // An exclusive holder is kept out as long as one of them is at it.
    assert_eq!(w.call_on(0, call(Leaf::SYS_INIT)).status, Status::SYS_BUSY);
}

/// Word `k` of the second TDMR_INFO: base, size, then base and size of the 1G, 2M and 4K PAMT, then reserved areas.
fn tdmr_word(w: &mut World, k: u64, value: u64) {
    w.poke(HOST + 0x1000 + 512 + 8 * k, 0, value);
}
const RESERVED: u64 = 8;

#[test]
fn sys_config_checks_in_order() {
    let second = |status| detail(status, 1, 0, 0);
    let level = |status, level, other| detail(status, 1, level, other);
    check(&LeafCases {
        leaf: Leaf::SYS_CONFIG,
        base: two_tdmrs,
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case("the global lock is held", "lock", global_lock, Status::SYS_BUSY),
            case(
                "done before",
                "state",
                |w, _| w.edit("sys/state", "SysConfigDone".into()),
                Status::SYS_CONFIG_NOT_PENDING,
            ),
            case(
                "an LP is not initialised",
                "lp",
                |w, _| w.edit("lps/1/initialized", false.into()),
                Status::SYS_CONFIG_NOT_PENDING,
            ),
            case(
                "an array that is not aligned to 512 bytes",
                "rcx",
                |_, c| c.regs[0] += 256,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "an array in SEAMRR",
                "rcx",
                |_, c| c.regs[0] = 0x7a00_0000,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "an array under a private KeyID",
                "rcx",
                |_, c| c.regs[0] |= 64 << 45,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "no TDMR",
                "rdx",
                |_, c| c.regs[1] = 0,
                Status::OPERAND_INVALID.about(Operand::RDX),
            ),
            case(
                "65 TDMRs",
                "rdx",
                |_, c| c.regs[1] = 65,
                Status::OPERAND_INVALID.about(Operand::RDX),
            ),
            case(
                "a shared HKID",
                "r8",
                |_, c| c.regs[2] = 63,
                Status::OPERAND_INVALID.about(Operand::R8),
            ),
            case(
                "bits above the HKID",
                "r8",
                |_, c| c.regs[2] |= 1 << 16,
                Status::OPERAND_INVALID.about(Operand::R8),
            ),
            case(
                "an entry of the array that is not aligned",
                "entry",
                |w, _| w.poke(HOST + 8, 0, HOST + 0x1208),
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "a TDMR that ends beyond all addresses",
                "base",
                |w, _| tdmr_word(w, 0, 0u64.wrapping_sub(GIB / 2)),
                second(Status::INVALID_TDMR),
            ),
            case(
                "a TDMR below its predecessor",
                "base",
                |w, _| tdmr_word(w, 0, 0),
                second(Status::NON_ORDERED_TDMR),
            ),
            case(
                "a TDMR over its predecessor's end",
                "base",
                |w, _| tdmr_word(w, 0, TDMR + GIB - 4096),
                second(Status::NON_ORDERED_TDMR),
            ),
            case(
                "a TDMR with KeyID bits",
                "base",
                |w, _| tdmr_word(w, 0, (TDMR + GIB) | 1 << 45),
                second(Status::INVALID_TDMR),
            ),
            case(
                "a TDMR whose size is not one of GiBs",
                "size",
                |w, _| tdmr_word(w, 1, GIB + 4096),
                second(Status::INVALID_TDMR),
            ),
            case(
                "a TDMR of no size",
                "size",
                |w, _| tdmr_word(w, 1, 0),
                second(Status::INVALID_TDMR),
            ),
            case(
                "a reserved area behind an empty one",
                "reserved",
                |w, _| tdmr_word(w, RESERVED + 3, 4096),
                detail(Status::NON_ORDERED_RESERVED_IN_TDMR, 1, 0, 0),
            ),
            case(
                "reserved areas that overlap",
                "reserved",
                |w, _| {
                    for (k, value) in [(0, 0), (1, 0x2000), (2, 0x1000), (3, 0x1000)] {
                        tdmr_word(w, RESERVED + k, value);
                    }
                },
                detail(Status::NON_ORDERED_RESERVED_IN_TDMR, 1, 1, 0),
            ),
            case(
                "a reserved area that ends beyond all addresses",
                "reserved",
                |w, _| {
                    tdmr_word(w, RESERVED, u64::MAX - 0xfff);
                    tdmr_word(w, RESERVED + 1, 0x2000);
                },
                detail(Status::INVALID_RESERVED_IN_TDMR, 1, 0, 0),
            ),
            case(
                "a reserved area that begins within a page",
                "reserved",
                |w, _| {
                    tdmr_word(w, RESERVED, 8);
                    tdmr_word(w, RESERVED + 1, 0x1000);
                },
                detail(Status::INVALID_RESERVED_IN_TDMR, 1, 0, 0),
            ),
            case(
                "a reserved area that ends outside the TDMR",
                "reserved",
                |w, _| {
                    tdmr_word(w, RESERVED, GIB - 0x1000);
                    tdmr_word(w, RESERVED + 1, 0x2000);
                },
                detail(Status::INVALID_RESERVED_IN_TDMR, 1, 0, 0),
            ),
            case(
                "a 1G PAMT within a page",
                "pamt",
                |w, _| tdmr_word(w, 2, PAMT + 0x100_0010),
                level(Status::INVALID_PAMT, 2, 0),
            ),
            case(
                "a 2M PAMT that is a page too small",
                "pamt",
                |w, _| tdmr_word(w, 5, 0x1000),
                level(Status::INVALID_PAMT, 1, 0),
            ),
            case(
                "a 4K PAMT with KeyID bits",
                "pamt",
                |w, _| tdmr_word(w, 6, PAMT | 1 << 45),
                level(Status::INVALID_PAMT, 0, 0),
            ),
            case(
                "a PAMT that ends beyond all addresses",
                "pamt",
                |w, _| tdmr_word(w, 7, 0u64.wrapping_sub(0x1000)),
                level(Status::INVALID_PAMT, 0, 0),
            ),
            case(
                "a PAMT over one of the first TDMR's",
                "where",
                |w, _| tdmr_word(w, 6, PAMT),
                level(Status::PAMT_OVERLAP, 0, 0),
            ),
            case(
                "two PAMTs of a TDMR over each other",
                "where",
                |w, _| tdmr_word(w, 2, PAMT + 0x100_1000),
                level(Status::PAMT_OVERLAP, 1, 1),
            ),
            case(
                "a PAMT in the first TDMR's memory",
                "where",
                |w, _| tdmr_word(w, 4, TDMR),
                level(Status::PAMT_OVERLAP, 1, 0),
            ),
            case(
                "a PAMT in its own TDMR's memory",
                "base",
                |w, _| tdmr_word(w, 4, TDMR + GIB),
                level(Status::PAMT_OVERLAP, 1, 1),
            ),
            case(
                "a PAMT outside convertible memory",
                "where",
                |w, _| tdmr_word(w, 2, 0x2_0000_0000),
                level(Status::PAMT_OUTSIDE_CMRS, 2, 0),
            ),
            case(
                "a TDMR outside convertible memory",
                "base",
                |w, _| tdmr_word(w, 0, 0x2_4000_0000),
                second(Status::TDMR_OUTSIDE_CMRS),
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn a_later_tdmr_over_an_earlier_pamt_names_the_pamt_and_then_the_tdmr() {
    let mut w = lps_initialized();
    // The first TDMR's PAMT lies where the second TDMR's memory is.
    let one = TdmrText::at(TDMR, GIB, TDMR + GIB);
    let two = TdmrText::at(TDMR + GIB, GIB, PAMT);
    let array = w.write_tdmrs(&[one, two]);
    let status = w.call(Leaf::SYS_CONFIG, array, 2, GLOBAL, 0).status;
    assert_eq!(status, detail(Status::PAMT_OVERLAP, 0, 0, 1));
}

#[test]
fn adjacent_cmrs_count_as_one() {
    for (gap, expected) in [(0, Status::SUCCESS), (0x1000, Status::TDMR_OUTSIDE_CMRS)] {
        let mut spec = spec();
        spec.tdx.cmrs = vec![
            Area { base: 0x1_0000_0000, end: 0x1_1000_0000 - gap },
            Area { base: 0x1_1000_0000, end: 0x1_2000_0000 },
            Area { base: 0x1_2000_0000, end: 0x2_0000_0000 },
        ];
        let mut w = World::new(spec);
        w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
        for lp in 0..2 {
            w.call_on(lp, call(Leaf::SYS_LP_INIT));
        }
        let tdmr = w.tdmr();
        let array = w.write_tdmrs(&[tdmr]);
        assert_eq!(w.call(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0).status, expected);
    }
}

#[test]
fn sys_config_that_fails_on_a_tdmr_keeps_the_hkid_and_nothing_else() {
    let (mut w, call) = two_tdmrs();
    tdmr_word(&mut w, 1, 0);
    let mut expected = w.clone();
    assert_eq!(w.call_on(0, call).status, detail(Status::INVALID_TDMR, 1, 0, 0));
    assert_eq!(w.m.kot()[GLOBAL as usize].state, KotState::Reserved);
    assert_eq!(w.m.global_hkid(), Some(KeyId(GLOBAL as u16)));
    expected.edit(&format!("sys/kot/{GLOBAL}/state"), "Reserved".into());
    expected.edit("sys/global_hkid", GLOBAL.into());
    assert!(w.m == expected.m);
    // A second attempt with another HKID does not give the first one back.
    tdmr_word(&mut w, 1, GIB);
    w.ok(Leaf::SYS_CONFIG, HOST, 2, GLOBAL + 1, 0);
    let states: Vec<KotState> =
        [GLOBAL, GLOBAL + 1, GLOBAL + 2].map(|i| w.m.kot()[i as usize].state).to_vec();
    assert_eq!(states, [KotState::Reserved, KotState::Reserved, KotState::Free]);
    assert_eq!(w.m.global_hkid(), Some(KeyId(GLOBAL as u16 + 1)));
}

#[test]
fn sys_config_reads_the_array_and_the_structures_under_the_keyids_of_their_addresses() {
    let (mut w, mut call) = two_tdmrs();
    // The array under KeyID 1, the second structure under KeyID 2, the first under 0.
    call.regs[0] |= 1 << 45;
    let first = w.peek(HOST, 0);
    let second = w.peek(HOST + 8, 0);
    w.poke(HOST, 1, first);
    w.poke(HOST + 8, 1, second | 2 << 45);
    for i in 0..64 {
        let word = w.peek(second + 8 * i, 0);
        w.poke(second + 8 * i, 2, word);
        w.poke(second + 8 * i, 0, u64::MAX);
    }
    assert_eq!(w.call_on(0, call).status, Status::SUCCESS);
    let load = |hpa: u64, keyid: u16, bytes: u8| Touch::Load {
        at: Addr::new(Hpa(hpa), KeyId(keyid)),
        bytes,
    };
    let mut expected = vec![load(HOST, 1, 8)];
    expected.extend((0..5).map(|i| load(first + 64 * i, 0, 64)));
    expected.push(load(HOST + 8, 1, 8));
    expected.extend((0..5).map(|i| load(second + 64 * i, 2, 64)));
    let memory: Vec<Touch> =
        w.touches.iter().filter(|t| !matches!(t, Touch::Spend(_))).copied().collect();
    assert_eq!(memory, expected);
    assert_eq!(w.m.state(), SysState::SysConfigDone);
}

#[test]
fn sys_key_config_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_KEY_CONFIG,
        base: || (configured(), call(Leaf::SYS_KEY_CONFIG)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "the global lock is held",
                "lock",
                |w, _| hold(w, call(Leaf::SYS_INIT), 2),
                Status::SYS_BUSY,
            ),
            case(
                "before TDH.SYS.CONFIG",
                "state",
                |w, _| w.edit("sys/state", "SysInitDone".into()),
                Status::SYS_KEY_CONFIG_NOT_PENDING,
            ),
            case(
                "this package is done",
                "package",
                |w, _| w.edit("sys/keyed", 1.into()),
                Status::KEY_CONFIGURED,
            ),
            case(
                "PCONFIG is busy",
                "pconfig",
                |w, _| w.pconfig = PconfigStatus::DeviceBusy,
                Status::OPERAND_BUSY.about(Operand::KET),
            ),
            case(
                "PCONFIG has no entropy",
                "pconfig",
                |w, _| w.pconfig = PconfigStatus::NoEntropy,
                Status::KEY_GENERATION_FAILED,
            ),
        ],
        unreachable: &[],
    });
}

fn two_packages() -> Spec {
    Spec { packages: 2, lps: 4, ..spec() }
}

#[test]
fn the_last_package_makes_the_module_ready_and_each_is_keyed_once() {
    let mut w = World::new(two_packages());
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..4 {
        w.call_on(lp, call(Leaf::SYS_LP_INIT));
    }
    let tdmr = w.tdmr();
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    let mut key = |lp: usize| {
        let status = w.call_on(lp, call(Leaf::SYS_KEY_CONFIG)).status;
        let programmed = w.touches.iter().filter(|t| matches!(t, Touch::Pconfig { .. })).count();
        (status, programmed, w.m.state())
    };
    let (done, ready) = (SysState::SysConfigDone, SysState::SysReady);
    assert_eq!(key(0), (Status::SUCCESS, 1, done));
    assert_eq!(key(1), (Status::KEY_CONFIGURED, 0, done));
    assert_eq!(key(2), (Status::SUCCESS, 1, ready));
    assert_eq!(key(3), (Status::SYS_KEY_CONFIG_NOT_PENDING, 0, ready));
}

// ---------------------------------------------------------------------------------------------------------- TDMR.INIT

#[test]
fn tdmr_init_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_TDMR_INIT,
        base: || (keyed(), Call::new(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "an address that is not the base of a TDMR",
                "rcx",
                |_, c| c.regs[0] += 2 * GIB,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "a base with KeyID bits",
                "rcx",
                |_, c| c.regs[0] |= GLOBAL << 45,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "the TDMR is being initialised elsewhere",
                "lock",
                |w, c| hold(w, *c, 2),
                Status::OPERAND_BUSY.about(Operand::RCX),
            ),
            case(
                "the TDMR is complete",
                "next",
                |w, _| w.edit("tdmrs/0/next", (TDMR + GIB).into()),
                Status::TDMR_ALREADY_INITIALIZED,
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn tdmrs_are_initialized_side_by_side() {
    let mut w = keyed();
    hold(&mut w, Call::new(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0), 2);
    w.ok(Leaf::SYS_TDMR_INIT, TDMR + GIB, 0, 0, 0);
}

/// Memory traffic of the last call.
fn traffic(w: &World) -> String {
    let mut out = String::new();
    for touch in &w.touches {
        let _ = match *touch {
            Touch::Fill { at, lines, word } => {
                writeln!(out, "fill {:#x} key {} lines {lines} word {word:#x}", at.hpa.0, at.keyid)
            }
            Touch::FillSome { at, lines, word, mask } => {
                let (hpa, key) = (at.hpa.0, at.keyid);
                writeln!(
                    out,
                    "fill {hpa:#x} key {key} lines {lines} word {word:#x} at {mask:#010b}"
                )
            }
            Touch::Store { at, value, bytes, .. } => {
                writeln!(out, "store {:#x} key {} bytes {bytes} {:x?}", at.hpa.0, at.keyid, value)
            }
            Touch::Spend(_) => Ok(()),
            other => writeln!(out, "{other:?}"),
        };
    }
    out
}

#[test]
fn a_call_initializes_1024_pages_by_movdir64b_and_zeroes_lines_of_larger_entries_when_it_meets_their_first()
 {
    let mut w = keyed();
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    // PAMTs: 1G at PAMT, 2M behind one page, 4K behind two more.
    expect![[r#"
        fill 0x180003000 key 64 lines 64 word 0x0
        fill 0x180004000 key 64 lines 64 word 0x0
        fill 0x180005000 key 64 lines 64 word 0x0
        fill 0x180006000 key 64 lines 64 word 0x0
        fill 0x180001000 key 64 lines 1 word 0x0
        store 0x180001000 key 64 bytes 8 [0, 0]
        store 0x180001010 key 64 bytes 8 [0, 0]
    "#]]
    .assert_eq(&traffic(&w));
    // The second call's large entries share that line.
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    expect![[r#"
        fill 0x180007000 key 64 lines 64 word 0x0
        fill 0x180008000 key 64 lines 64 word 0x0
        fill 0x180009000 key 64 lines 64 word 0x0
        fill 0x18000a000 key 64 lines 64 word 0x0
        store 0x180001020 key 64 bytes 8 [0, 0]
        store 0x180001030 key 64 bytes 8 [0, 0]
    "#]]
    .assert_eq(&traffic(&w));
}

#[test]
fn a_gib_takes_256_calls_and_is_usable_only_after_the_last_which_writes_its_1g_entry() {
    let mut w = keyed();
    for call in 1..=256 {
        let answer = w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
        let next = if call == 256 { TDMR + GIB } else { TDMR };
        assert_eq!(answer.out[1], next, "call {call}");
        let huge = traffic(&w).contains("store 0x180000000 key 64");
        assert_eq!(huge, call == 256, "call {call}");
        let answer = w.call(Leaf::MNG_CREATE, TDMR, 65, 0, 0);
        let expected = if call == 256 {
            Status::SUCCESS
        } else {
            Status::OPERAND_ADDR_RANGE_ERROR.about(Operand::RCX)
        };
        assert_eq!(answer.status, expected, "call {call}");
    }
    let answer = w.call(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    assert_eq!((answer.status, answer.out[1]), (Status::TDMR_ALREADY_INITIALIZED, 0));
}

#[test]
fn reserved_pages_are_pt_rsvd_in_the_pamt_and_in_its_memory() {
    let mut w = lps_initialized();
    let mut tdmr = w.tdmr();
    // Pages 3 to 7, and from page 1020 to the end of the second call.
    tdmr.reserved = vec![(0x3000, 0x5000), (1020 << 12, 1028 << 12)];
    let array = w.write_tdmrs(&[tdmr.clone()]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    expect![[r#"
        fill 0x180003000 key 64 lines 1 word 0x10000 at 0b01000000
        fill 0x180003040 key 64 lines 1 word 0x10000 at 0b01010101
        fill 0x180003080 key 64 lines 62 word 0x0
        fill 0x180004000 key 64 lines 64 word 0x0
        fill 0x180005000 key 64 lines 64 word 0x0
        fill 0x180006000 key 64 lines 63 word 0x0
        fill 0x180006fc0 key 64 lines 1 word 0x10000 at 0b01010101
        fill 0x180001000 key 64 lines 1 word 0x0
        store 0x180001000 key 64 bytes 8 [0, 0]
        store 0x180001010 key 64 bytes 8 [0, 0]
    "#]]
    .assert_eq(&traffic(&w));
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    let array = tdmr.pamt[2].0;
    for page in 0..2048u64 {
        let pa = TDMR + (page << 12);
        let reserved = (3..8).contains(&page) || page >= 1020;
        let expected = if reserved { PageType::Rsvd } else { PageType::Nda };
        let entry = w.m.pamt(pa, Size::Small);
        assert_eq!(entry.page_type(), expected, "page {page}");
        let at = array + 16 * page;
        let words = [w.peek(at, GLOBAL as u16), w.peek(at + 8, GLOBAL as u16)];
        assert_eq!(words, entry.words(0), "page {page}");
    }
}

#[test]
fn with_dynamic_pamt_the_bitmap_is_cleared_instead_of_4k_entries() {
    let mut spec = spec();
    spec.tdx.dynamic_pamt = true;
    let mut w = World::new(spec);
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        w.call_on(lp, call(Leaf::SYS_LP_INIT));
    }
    // 1 GiB is 262144 bits: 32 KiB.
    let mut tdmr = w.tdmr();
    tdmr.pamt[2].1 = 0x7000;
    let array = w.write_tdmrs(&[tdmr.clone()]);
    let status = w.call(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0).status;
    assert_eq!(status, detail(Status::INVALID_PAMT, 0, 0, 0));
    tdmr.pamt[2].1 = 0x8000;
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
    expect![[r#"
        fill 0x180003080 key 64 lines 2 word 0x0
        store 0x180001020 key 64 bytes 8 [0, 0]
        store 0x180001030 key 64 bytes 8 [0, 0]
    "#]]
    .assert_eq(&traffic(&w));
}

// --------------------------------------------------------------------------------------------------- real machines, §9

/// TDMRs over GiBs as Linux makes them: PAMTs lie in the TDMRs' own memory, behind what `room` says, and are reserved as
/// holes between CMRs are.
fn linux_tdmrs(cmrs: &[Area], gibs: &[(u64, u64, u64)]) -> Vec<TdmrText> {
    let tdmr = |&(base, gibs, pamt): &(u64, u64, u64)| {
        let mut tdmr = TdmrText::at(base, gibs * GIB, pamt);
        let end = base + tdmr.size;
        let pamt_bytes: u64 = tdmr.pamt.iter().map(|(_, bytes)| bytes).sum();
        let mut holes = vec![Area { base: pamt, end: pamt + pamt_bytes }];
        let mut at = base;
        for cmr in cmrs.iter().filter(|cmr| cmr.base < end && cmr.end > base) {
            holes.push(Area { base: at, end: cmr.base.max(at) });
            at = cmr.end;
        }
        holes.push(Area { base: at.min(end), end });
        holes.retain(|hole| hole.base < hole.end);
        holes.sort_by_key(|hole| hole.base);
        tdmr.reserved = holes.iter().map(|h| (h.base - base, h.end - h.base)).collect();
        tdmr
    };
    gibs.iter().map(tdmr).collect()
}

fn machine(cmrs: &[Area]) -> World {
    let mut spec = spec();
    spec.tdx.cmrs = cmrs.to_vec();
    let mut w = World::new(spec);
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        w.call_on(lp, call(Leaf::SYS_LP_INIT));
    }
    w
}

#[test]
fn the_pamts_of_both_real_machines_of_section_9_have_the_size_that_their_kernels_printed() {
    let area = |base: u64, end: u64| Area { base, end };
    // canonical/tdx #285.
    let one = vec![
        area(0x10_0000, 0x7780_0000),
        area(0x1_0000_0000, 0x20_6e00_0000),
        area(0x20_8000_0000, 0x40_7000_0000),
    ];
    let one_tdmrs = [
        (0, 2, 0x4000_0000),
        (0x1_0000_0000, 126, 0x10_0000_0000),
        (0x20_8000_0000, 128, 0x30_0000_0000),
    ];
    // canonical/tdx #385: TDMRs of 2, 1021 and 1023 GiB; its CMRs are not in the sheet.
    let two =
        vec![area(0x10_0000, 0x7780_0000), area(4 * GIB, 1025 * GIB), area(1025 * GIB, 2048 * GIB)];
    let two_tdmrs =
        [(0, 2, 0x4000_0000), (4 * GIB, 1021, 64 * GIB), (1025 * GIB, 1023, 1100 * GIB)];
    for (cmrs, gibs, kib) in [(one, one_tdmrs, 1_050_636), (two, two_tdmrs, 8_396_820)] {
        let tdmrs = linux_tdmrs(&cmrs, &gibs);
        let pages = |t: &TdmrText| {
            Size::ALL
                .map(|size| pamt_bytes(t.size, size).next_multiple_of(4096))
                .iter()
                .sum::<u64>()
        };
        let needed: u64 = tdmrs.iter().map(pages).sum();
        assert_eq!(needed, kib * 1024);
        let given: u64 = tdmrs.iter().flat_map(|t| t.pamt).map(|(_, bytes)| bytes).sum();
        assert_eq!(given, needed);

        let mut w = machine(&cmrs);
        let array = w.write_tdmrs(&tdmrs);
        w.ok(Leaf::SYS_CONFIG, array, 3, GLOBAL, 0);
        assert_eq!(w.m.tdmrs().len(), 3);

        // A byte less, and a page less, at every level of every TDMR.
        for i in 0..3 {
            for (level, place) in [(2, 0), (1, 1), (0, 2)] {
                for less in [1, 4096] {
                    let mut w = machine(&cmrs);
                    let mut tdmrs = tdmrs.clone();
                    tdmrs[i].pamt[place].1 -= less;
                    let array = w.write_tdmrs(&tdmrs);
                    let status = w.call(Leaf::SYS_CONFIG, array, 3, GLOBAL, 0).status;
                    let expected = detail(Status::INVALID_PAMT, i as u64, level, 0);
                    assert_eq!(status, expected, "TDMR {i}, level {level}, {less} less");
                }
            }
        }
        // A TDMR whose holes are not reserved.
        let mut w = machine(&cmrs);
        let mut bare = tdmrs.clone();
        bare[0].reserved.retain(|(at, _)| *at == 0x4000_0000);
        let array = w.write_tdmrs(&bare);
        let status = w.call(Leaf::SYS_CONFIG, array, 3, GLOBAL, 0).status;
        assert_eq!(status, Status::TDMR_OUTSIDE_CMRS);
    }
}

// -------------------------------------------------------------------------------------------------------- enumeration

#[test]
fn sys_rd_checks_in_order() {
    let unknown = Status::METADATA_FIELD_ID_INCORRECT;
    check(&LeafCases {
        leaf: Leaf::SYS_RD,
        base: || (lps_initialized(), Call::new(Leaf::SYS_RD, 0, 0x0A00_0003_0000_0008, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "this LP is not initialised",
                "lp",
                |w, _| w.edit("lps/0/initialized", false.into()),
                Status::SYS_LP_INIT_NOT_DONE,
            ),
            case(
                "no field",
                "rdx",
                |_, c| c.regs[1] = NO_FIELD,
                Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT,
            ),
            case("reserved bits", "rdx", |_, c| c.regs[1] |= 1 << 62, unknown),
            case("a sequence", "rdx", |_, c| c.regs[1] |= 1 << 38, unknown),
            case("an unknown field", "rdx", |_, c| c.regs[1] += 1, unknown),
            case("an unknown class", "rdx", |_, c| c.regs[1] |= 1 << 60, unknown),
        ],
        unreachable: &[],
    });
}

fn read(w: &mut World, id: u64) -> u64 {
    w.ok(Leaf::SYS_RD, 0, id, 0, 0).out[2]
}

#[test]
fn a_kernel_reads_what_section_5_5_of_the_real_kernels_sheet_lists() {
    let mut spec = spec();
    spec.tdx.vp_init_version = 1;
    let mut w = World::new(spec);
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    w.ok(Leaf::SYS_LP_INIT, 0, 0, 0, 0);
    let mut rd = |id: u64| read(&mut w, id);
    assert_eq!(
        [0x0800_0001_0000_0003, 0x0800_0001_0000_0004, 0x0800_0001_0000_0005].map(&mut rd),
        [5, 1, 6]
    );
    let features = rd(0x0A00_0003_0000_0008);
    assert_eq!(features >> 1 & features >> 18 & features >> 20 & 1, 1, "{features:#x}");
    assert_eq!([0x9100_0001_0000_0008, 0x9100_0001_0000_0009].map(&mut rd), [64, 16]);
    let entries = [0x9100_0001_0000_0010, 0x9100_0001_0000_0011, 0x9100_0001_0000_0012];
    assert_eq!(entries.map(&mut rd), [16; 3]);
    let sizes = [0x9800_0001_0000_0000, 0x9800_0001_0000_0100, 0x9800_0001_0000_0200];
    // Six TDCS pages: the sheet's five are a stand-in's.
    assert_eq!(sizes.map(&mut rd), [4096, 6 * 4096, 6 * 4096]);
    let must = [0x1900_0003_0000_0001, 0x1900_0003_0000_0003].map(&mut rd);
    assert_eq!(must, [0, 3]);
    assert_eq!(rd(0x1900_0003_0000_0000) & 0x1000_0000, 0x1000_0000);
    assert_eq!(rd(0x1900_0003_0000_0002) & 3, 3);
    assert_eq!([0x9900_0001_0000_0004, 0x9900_0001_0000_0008].map(&mut rd), [1, 576]);
    assert_eq!(rd(0x9900_0003_0000_0400), 0xFFFF_FFFF_8000_0008);
    assert_eq!([0x9900_0003_0000_0500, 0x9900_0003_0000_0501].map(&mut rd), [0x00FF_FFFF, 0]);
    // Entries that are not there.
    assert_eq!(rd(0x9900_0003_0000_0401), u64::MAX);
    assert_eq!(
        [0x9000_0003_0000_0081, 0x9000_0003_0000_0101].map(&mut rd),
        [0x1_0000_0000, 0x1_0000_0000]
    );
    assert_eq!([0x9000_0003_0000_009f, 0x9000_0003_0000_011f].map(&mut rd), [0, 0]);
}

#[test]
fn size_class_bit_and_context_of_a_field_id_do_not_matter_for_one_element() {
    let mut w = lps_initialized();
    for id in
        [0x9100_0001_0000_0008, 0x1100_0001_0000_0008, 0x9100_0003_0000_0008, 0x9170_0001_0000_0008]
    {
        assert_eq!(read(&mut w, id), 64, "{id:#x}");
    }
}

#[test]
fn the_chain_of_next_fields_visits_every_element_once_and_ends() {
    for dynamic in [false, true] {
        let mut spec = spec();
        spec.tdx.dynamic_pamt = dynamic;
        let mut w = World::new(spec);
        w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
        w.ok(Leaf::SYS_LP_INIT, 0, 0, 0, 0);
        let rows = SYS_FIELDS.iter().filter(|r| dynamic || r.name != "PAMT_PAGE_BITMAP_ENTRY_BITS");
        let all: Vec<u64> =
            rows.flat_map(|r| (0..u64::from(r.fields * r.elements)).map(|i| r.id + i)).collect();
        let mut seen = Vec::new();
        let mut id = w.call(Leaf::SYS_RD, 0, NO_FIELD, 0, 0).out[1];
        while id != NO_FIELD {
            seen.push(id);
            id = w.ok(Leaf::SYS_RD, 0, id, 0, 0).out[1];
        }
        assert_eq!(seen, all);
    }
    // A failed read names no next field and no value.
    let answer = lps_initialized().call(Leaf::SYS_RD, 0, 1, 0, 0);
    assert_eq!((answer.out[1], answer.out[2]), (NO_FIELD, 0));
}

#[test]
fn features_follow_the_platform() {
    let bits = |change: fn(&mut Spec)| {
        let mut spec = spec();
        spec.tdx.clflush_before_alloc = false;
        let plain = features0(&spec.tdx);
        change(&mut spec);
        assert_eq!(features0(&spec.tdx) & plain, plain);
        features0(&spec.tdx) ^ plain
    };
    assert_eq!(bits(|_| ()), 0);
    assert_eq!(bits(|s| s.tdx.clflush_before_alloc = true), 1 << 23);
    assert_eq!(bits(|s| s.tdx.vp_init_version = 1), 1 << 20);
    assert_eq!(bits(|s| s.tdx.dynamic_pamt = true), 1 << 36);
    assert_eq!(bits(|s| s.tdx.sys_disable = true), 1 << 53);
    assert_eq!(features0(&spec().tdx) >> 16 & 15, 15);
    // What the module cannot do.
    assert_eq!(features0(&spec().tdx) & (1 << 8 | 1 << 47), 0);
}

#[test]
fn sys_rdall_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_RDALL,
        base: || (lps_initialized(), Call::new(Leaf::SYS_RDALL, 0, HOST, NO_FIELD, 0)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "this LP is not initialised",
                "lp",
                |w, _| w.edit("lps/0/initialized", false.into()),
                Status::SYS_LP_INIT_NOT_DONE,
            ),
            case(
                "not a page",
                "rdx",
                |_, c| c.regs[1] += 512,
                Status::OPERAND_INVALID.about(Operand::RDX),
            ),
            case(
                "a page under a private KeyID",
                "rdx",
                |_, c| c.regs[1] |= 64 << 45,
                Status::OPERAND_INVALID.about(Operand::RDX),
            ),
            case(
                "an unknown field",
                "r8",
                |_, c| c.regs[2] = 0x0A00_0003_0000_0009,
                Status::METADATA_FIELD_ID_INCORRECT,
            ),
            case(
                "a field with another size",
                "r8",
                |_, c| c.regs[2] = 0x0A00_0002_0000_0008,
                Status::METADATA_FIELD_ID_INCORRECT,
            ),
            case(
                "the second element of a field",
                "r8",
                |_, c| c.regs[2] = 0x9900_0003_0000_0501,
                Status::METADATA_FIELD_ID_INCORRECT,
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn sys_rdall_writes_sequences_whose_elements_are_those_of_sys_rd() {
    let mut w = lps_initialized();
    let answer = w.ok(Leaf::SYS_RDALL, 0, HOST | 1 << 45, NO_FIELD, 0);
    assert_eq!(answer.out[2], NO_FIELD);
    let header = w.peek(HOST, 1);
    let (bytes, sequences) = (header & 0xffff, header >> 16);
    assert!(bytes <= 4096);
    let mut at = 8;
    let mut elements = 0;
    for _ in 0..sequences {
        let id = w.peek(HOST + at, 1);
        at += 8;
        let per_field = (id >> 34 & 15) + 1;
        let fields = (id >> 38 & 511) + 1;
        let first = id & !(15 << 34 | 511 << 38);
        for i in 0..per_field * fields {
            let value = w.peek(HOST + at, 1);
            assert_eq!(value, read(&mut w, first + i), "{first:#x} + {i}");
            at += 8;
            elements += 1;
        }
    }
    assert_eq!(at, bytes);
    let rows = SYS_FIELDS.iter().filter(|r| r.name != "PAMT_PAGE_BITMAP_ENTRY_BITS");
    assert_eq!(elements, rows.map(|r| u64::from(r.fields * r.elements)).sum::<u64>());
    // From a field in the middle.
    w.ok(Leaf::SYS_RDALL, 0, HOST, 0x9900_0003_0000_0600, 0);
    assert_eq!(
        [0, 8, 16].map(|i| w.peek(HOST + i, 0)),
        [24 | 1 << 16, 0x9900_0003_0000_0600, 0x0118_0010]
    );
}

#[test]
fn sys_info_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_INFO,
        base: || (lps_initialized(), Call::new(Leaf::SYS_INFO, HOST, 1024, HOST + 1024, 32)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "this LP is not initialised",
                "lp",
                |w, _| w.edit("lps/0/initialized", false.into()),
                Status::SYS_LP_INIT_NOT_DONE,
            ),
            case(
                "an address not aligned to 1024 bytes",
                "rcx",
                |_, c| c.regs[0] += 512,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case(
                "a buffer that is too small",
                "rdx",
                |_, c| c.regs[1] = 1023,
                Status::OPERAND_INVALID.about(Operand::RDX),
            ),
            case(
                "a CMR list not aligned to 512 bytes",
                "r8",
                |_, c| c.regs[2] += 256,
                Status::OPERAND_INVALID.about(Operand::R8),
            ),
            case(
                "a CMR list that is too short",
                "r9",
                |_, c| c.regs[3] = 31,
                Status::OPERAND_INVALID.about(Operand::R9),
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn sys_info_describes_the_module_and_lists_cmrs() {
    let mut w = lps_initialized();
    let answer = w.ok(Leaf::SYS_INFO, HOST, 1024, HOST + 1024, 32);
    assert_eq!((answer.out[1], answer.out[3]), (1024, 32));
    let words: Vec<u64> = (0..20).map(|i| w.peek(HOST + 8 * i, 0)).collect();
    // Vendor; versions and SYS_RD; TDMRs, areas, entry size; TDCS and TDVPS; fixed bits; one CPUID leaf.
    assert_eq!(words[0], 0x8086 << 32);
    assert_eq!([words[1] >> 48, words[2]], [5, 1 | 1 << 16]);
    assert_eq!(words[4], 64 | 16 << 16 | 16 << 32);
    assert_eq!(words[6], 0x6000 | 0x6000 << 32);
    assert_eq!(words[10..12], [0x6_DBE7, 3]);
    let leaf = [1 | 0x8000_0008 << 32, 0xFFFF_FFFF | 0x00FF_FFFF << 32, 0, 0];
    assert_eq!(words[16..20], leaf);
    let cmrs: Vec<u64> = (0..64).map(|i| w.peek(HOST + 1024 + 8 * i, 0)).collect();
    assert_eq!(cmrs[..6], [0x10_0000, 0x7770_0000, 0x1_0000_0000, 0x1_0000_0000, 0, 0]);
}

#[test]
fn sys_info_clears_the_structure_before_it_looks_at_the_list() {
    let mut w = lps_initialized();
    w.poke(HOST + 1016, 0, 7);
    w.poke(HOST + 1024, 0, 7);
    assert!(w.call(Leaf::SYS_INFO, HOST, 1024, HOST + 1024, 0).status.is_error());
    assert_eq!([w.peek(HOST + 1016, 0), w.peek(HOST + 1024, 0)], [0, 7]);
}

// ------------------------------------------------------------------------------------------------------------- update

#[test]
fn sys_shutdown_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_SHUTDOWN,
        base: || (ready(), call(Leaf::SYS_SHUTDOWN)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case(
                "a handoff version that the module cannot write",
                "rcx",
                |_, c| c.regs[0] = 1,
                Status::OPERAND_INVALID.about(Operand::RCX),
            ),
            case("the global lock is held", "others", global_lock, Status::SYS_BUSY),
            case(
                "another LP is in the module",
                "others",
                |w, _| hold(w, call(Leaf::SYS_RD), 1),
                Status::SYS_BUSY,
            ),
        ],
        unreachable: &[],
    });
}

/// Shut down, replaced, and initialised anew.
fn replaced() -> World {
    let mut w = ready();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    w.m.install().unwrap();
    reinitialize(&mut w);
    w
}
fn reinitialize(w: &mut World) {
    w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
    for lp in 0..2 {
        assert_eq!(w.call_on(lp, call(Leaf::SYS_LP_INIT)).status, Status::SUCCESS);
    }
}

#[test]
fn sys_update_checks_in_order() {
    check(&LeafCases {
        leaf: Leaf::SYS_UPDATE,
        base: || (replaced(), call(Leaf::SYS_UPDATE)),
        succeeds: Some(Status::SUCCESS),
        cases: vec![
            case("the global lock is held", "lock", global_lock, Status::SYS_BUSY),
            case(
                "an LP is not initialised",
                "lp",
                |w, _| w.edit("lps/1/initialized", false.into()),
                Status::SYS_STATE_INCORRECT,
            ),
            case(
                "the module is configured",
                "state",
                |w, _| w.edit("sys/state", "SysConfigDone".into()),
                Status::SYS_STATE_INCORRECT,
            ),
            case(
                "handoff data of another version",
                "handoff",
                |w, _| w.edit("sys/handoff/version", 9.into()),
                Status::SYS_INVALID_HANDOFF,
            ),
            case(
                "no handoff data",
                "handoff",
                |w, _| w.edit("sys/handoff", serde_json::Value::Null),
                Status::SYS_INVALID_HANDOFF,
            ),
        ],
        unreachable: &[],
    });
}

#[test]
fn a_module_that_was_shut_down_answers_only_the_leaf_that_does_nothing() {
    let mut w = ready();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    assert_eq!(w.m.state(), SysState::SysShutdown);
    for leaf in
        [Leaf::SYS_INIT, Leaf::SYS_RD, Leaf::SYS_UPDATE, Leaf::MNG_CREATE, Leaf::SYS_SHUTDOWN]
    {
        assert_eq!(w.call(leaf, 0, 0, 0, 0).status, Status::SYS_SHUTDOWN, "{leaf}");
    }
    w.ok(Leaf::SYS_LP_SHUTDOWN, 0, 0, 0, 0);
}

#[test]
fn an_update_keeps_tds_pamts_and_hkids_and_consumes_the_handoff_data() {
    let mut w = ready();
    let tdr = w.initialized_td(65, 0);
    let old = w.m.clone();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    w.m.install().unwrap();
    assert_eq!(w.m.state(), SysState::SysInitPending);
    assert_eq!(w.call(Leaf::MNG_RD, tdr, 0, 0, 0).status, Status::SYS_NOT_READY);
    reinitialize(&mut w);
    let handoff = [0x8900_0000_0000_0004, 0x8900_0001_0000_0005].map(|id| read(&mut w, id));
    assert_eq!(handoff, [1, 0]);
    w.ok(Leaf::SYS_UPDATE, 0, 0, 0, 0);
    assert!(w.m == old, "the module is as it was before");
    assert_eq!(read(&mut w, 0x8900_0000_0000_0004), 0);
    w.ok(Leaf::MNG_VPFLUSHDONE, tdr, 0, 0, 0);
    assert_eq!(w.call(Leaf::SYS_UPDATE, 0, 0, 0, 0).status, Status::SYS_STATE_INCORRECT);
}

#[test]
fn a_module_installed_without_a_shutdown_knows_nothing_of_its_predecessor() {
    let mut w = ready();
    let tdr = w.initialized_td(65, 0);
    w.m.install().unwrap();
    assert_eq!(w.m.tds().count() + w.m.tdmrs().len() + w.m.sept_pages().len(), 0);
    reinitialize(&mut w);
    assert_eq!(w.call(Leaf::SYS_UPDATE, 0, 0, 0, 0).status, Status::SYS_INVALID_HANDOFF);
    // It can be configured anew; the old TDR is no TDR to it.
    let tdmr = w.tdmr();
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL + 1, 0);
    assert_eq!(w.m.kot()[65].state, KotState::Reserved);
    assert_eq!(w.m.pamt(tdr, Size::Small).page_type(), PageType::Nda);
}

#[test]
fn handoff_data_outlives_a_second_installation_but_not_a_configuration() {
    let mut w = ready();
    w.initialized_td(65, 0);
    let old = w.m.clone();
    w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
    w.m.install().unwrap();
    reinitialize(&mut w);
    w.m.install().unwrap();
    reinitialize(&mut w);
    let mut kept = w.clone();
    kept.ok(Leaf::SYS_UPDATE, 0, 0, 0, 0);
    assert!(kept.m == old);

    let tdmr = w.tdmr();
    let array = w.write_tdmrs(&[tdmr]);
    w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
    assert_eq!(w.m.tds().count(), 0);
    w.m.install().unwrap();
    reinitialize(&mut w);
    assert_eq!(w.call(Leaf::SYS_UPDATE, 0, 0, 0, 0).status, Status::SYS_INVALID_HANDOFF);
}

#[test]
fn no_module_is_installed_while_an_lp_is_in_the_old_one_or_tdx_is_disabled() {
    let mut w = ready();
    hold(&mut w, call(Leaf::SYS_RD), 1);
    let before = w.m.clone();
    assert!(w.m.install().is_err());
    assert!(w.m == before);
    let mut w = ready();
    w.m.disable();
    assert!(w.m.install().is_err());
}

#[test]
fn a_bad_answer_of_pconfig_ends_the_module() {
    let mut w = configured();
    w.pconfig = PconfigStatus::InvalidKeyId;
    assert!(w.begin(0, &call(Leaf::SYS_KEY_CONFIG)));
    let action = w.run(0, tdx_module::Reply::Done);
    assert_eq!(action, tdx_module::Action::Fatal);
}
