//! TDH.MNG.*: every status in check order, memory traffic, the life of an HKID (verification.md §2.6), metadata.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::cases::{Case, LeafCases, check, hold};
use common::*;
use expect_test::expect;
use proptest::prelude::*;
use sim_core::outcome::PconfigStatus;
use sim_core::platform::{IntegrityMode, XtsWidth};
use sim_core::tdx::{Leaf, Operand, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page, Ps};
use std::fmt::Write;
use std::sync::LazyLock;
use tdx_module::fields::{NO_FIELD, TD_FIELDS};
use tdx_module::op_state::{KotState, Lifecycle, OP_STATES, OpState};
use tdx_module::pamt::Size;
use tdx_module::sept::Entry;
use tdx_module::{Call, Spec, Touch};

fn case(
    when: &'static str,
    spoils: &'static str,
    fault: fn(&mut World, &mut Call),
    status: Status,
) -> Case {
    Case { when, spoils, fault, status }
}
const fn invalid(operand: Operand) -> Status {
    Status::OPERAND_INVALID.about(operand)
}
fn success(w: &mut World, leaf: Leaf, rcx: u64, rdx: u64) {
    w.ok(leaf, rcx, rdx, 0, 0);
}

/// HKID of the TDs here.
const HKID: u64 = 65;
/// A page that nobody has.
const FREE_PAGE: u64 = TDMR + 0x100_0000;
/// Where a TD's first page is: the first that a world gives away.
const TDR: u64 = TDMR;

static READY: LazyLock<World> = LazyLock::new(World::ready);
fn ready() -> World {
    READY.clone()
}
static CREATED: LazyLock<World> = LazyLock::new(|| {
    let mut w = ready();
    let tdr = w.page();
    success(&mut w, Leaf::MNG_CREATE, tdr, HKID);
    w
});
/// A TD without a key.
fn created() -> World {
    CREATED.clone()
}
static KEYED: LazyLock<World> = LazyLock::new(|| {
    let mut w = ready();
    assert_eq!(w.keyed_td(HKID), TDR);
    w
});
/// A TD with 6 TDCS pages.
fn keyed() -> World {
    KEYED.clone()
}
static INITIALIZED: LazyLock<World> = LazyLock::new(|| {
    let mut w = ready();
    assert_eq!(w.initialized_td(HKID, 0), TDR);
    w
});
/// A TD with OP_STATE INITIALIZED.
fn initialized() -> World {
    INITIALIZED.clone()
}

/// HPA of a free page in RCX, in check order; `OWNED` is a page that a TD has.
fn free_page_cases<const OWNED: u64>() -> Vec<Case> {
    vec![
        case("RCX within a page", "rcx", |_, c| c.regs[0] |= 64, invalid(Operand::RCX)),
        case("RCX with KeyID bits", "rcx", |_, c| c.regs[0] |= 1 << 45, invalid(Operand::RCX)),
        case(
            "RCX outside TDMRs",
            "rcx",
            |_, c| c.regs[0] = HOST,
            Status::OPERAND_ADDR_RANGE_ERROR.about(Operand::RCX),
        ),
        case(
            "the page is locked",
            "lock",
            // The call finds no TD there; until it has left, it holds its locks.
            |w, c| hold(w, Call::new(Leaf::MNG_KEY_CONFIG, c.regs[0], 0, 0, 0), 2),
            Status::OPERAND_BUSY.about(Operand::RCX),
        ),
        case(
            "the page is a TD's",
            "rcx",
            |_, c| c.regs[0] = OWNED,
            Status::PAGE_METADATA_INCORRECT.about(Operand::RCX),
        ),
    ]
}

/// TDR in RCX or RDX (register index `R`), in check order.
fn tdr_cases<const R: usize>() -> Vec<Case> {
    let op = if R == 0 { Operand::RCX } else { Operand::RDX };
    vec![
        case("a TDR within a page", "tdr", |_, c| c.regs[R] |= 64, invalid(op)),
        case("a TDR with KeyID bits", "tdr", |_, c| c.regs[R] |= 1 << 45, invalid(op)),
        case(
            "a TDR outside TDMRs",
            "tdr",
            |_, c| c.regs[R] = HOST,
            Status::OPERAND_ADDR_RANGE_ERROR.about(op),
        ),
        case(
            "the TDR is locked",
            "lock",
            |w, c| hold(w, Call::new(Leaf::MNG_VPFLUSHDONE, c.regs[R], 0, 0, 0), 2),
            Status::OPERAND_BUSY.about(op),
        ),
        case(
            "no TDR",
            "tdr",
            |_, c| c.regs[R] = FREE_PAGE + 4096,
            Status::PAGE_METADATA_INCORRECT.about(op),
        ),
    ]
}

fn fatal() -> Case {
    case(
        "the TD met a machine check",
        "fatal",
        |w, _| w.edit_td(TDR, "fatal", true.into()),
        Status::TD_FATAL,
    )
}

/// The STATE checks, with or without the lock of OP_STATE.
fn state_cases(lock: bool) -> Vec<Case> {
    let mut cases = vec![
        fatal(),
        case(
            "the TD's key is gone",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "Blocked".into()),
            Status::TD_KEYS_NOT_CONFIGURED,
        ),
        case(
            "5 TDCS pages",
            "tdcs",
            |w, _| {
                let pages: Vec<u64> = w.td(TDR).tdcs.iter().take(5).map(|p| p.0).collect();
                w.edit_td(TDR, "tdcs", pages.into());
            },
            Status::TDCS_NOT_ALLOCATED,
        ),
    ];
    if lock {
        cases.push(case(
            "the OP_STATE lock is held",
            "op_lock",
            // EXCLUSIVE.
            |w, _| w.edit_td(TDR, "op_lock", 1.into()),
            Status::OPERAND_BUSY.about(Operand::OP_STATE),
        ));
    }
    cases
}

// --------------------------------------------------------------------------------------------------------- MNG.CREATE

#[test]
fn mng_create_checks_in_order() {
    let mut cases = vec![
        case("a shared HKID", "hkid", |_, c| c.regs[1] = 63, invalid(Operand::RDX)),
        case("an HKID beyond the last", "hkid", |_, c| c.regs[1] = 128, invalid(Operand::RDX)),
        case("bits above the HKID", "hkid", |_, c| c.regs[1] |= 1 << 16, invalid(Operand::RDX)),
    ];
    cases.extend(free_page_cases::<TDR>());
    cases.extend([
        case(
            "the key ownership table is locked",
            "lock",
            |w, _| hold(w, Call::new(Leaf::MNG_CREATE, FREE_PAGE + 0x20_0000, 67, 0, 0), 2),
            Status::OPERAND_BUSY.about(Operand::KOT),
        ),
        case("an HKID in use", "hkid", |_, c| c.regs[1] = HKID, Status::HKID_NOT_FREE),
        case("the global HKID", "hkid", |_, c| c.regs[1] = GLOBAL, Status::HKID_NOT_FREE),
        case("no entropy", "entropy", |w, _| w.starve = 1, Status::RND_NO_ENTROPY),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_CREATE,
        base: || (created(), Call::new(Leaf::MNG_CREATE, FREE_PAGE, 66, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

/// Memory traffic of the last call.
fn traffic(w: &World) -> String {
    let mut out = String::new();
    for touch in &w.touches {
        let _ = match *touch {
            Touch::Fill { at, lines, word } => {
                writeln!(out, "fill  {:#x} key {} lines {lines} word {word:#x}", at.hpa.0, at.keyid)
            }
            Touch::Store { at, value, bytes, locked } => {
                let lock = if locked { "lock" } else { "store" };
                let value = &value[..usize::from(bytes) / 8];
                writeln!(out, "{lock:5} {:#x} key {} {value:x?}", at.hpa.0, at.keyid)
            }
            Touch::Load { at, bytes } => {
                writeln!(out, "load  {:#x} key {} bytes {bytes}", at.hpa.0, at.keyid)
            }
            Touch::Spend(_) => Ok(()),
            other => writeln!(out, "{other:?}"),
        };
    }
    out
}

#[test]
fn mng_create_zeroes_the_page_under_the_global_key_and_then_writes_it_by_cached_stores() {
    let mut w = ready();
    success(&mut w, Leaf::MNG_CREATE, TDR, HKID);
    // PAMT locks from 1G to 4K, the page, its fields, its PAMT entry, and the locks in reverse.
    expect![[r#"
        lock  0x180000000 key 64 [4, 0]
        lock  0x180001000 key 64 [4, 0]
        lock  0x180003000 key 64 [1, 0]
        fill  0x100000000 key 64 lines 64 word 0x0
        Random
        store 0x100000000 key 64 [0]
        store 0x100000040 key 64 [41]
        store 0x180003000 key 64 [40001, 0]
        lock  0x180003000 key 64 [40000, 0]
        lock  0x180001000 key 64 [0, 0]
        lock  0x180000000 key 64 [0, 0]
    "#]]
    .assert_eq(&traffic(&w));
    let td = w.td(TDR);
    assert_eq!((td.hkid, td.lifecycle, td.chldcnt), (KeyId(65), Lifecycle::HkidAssigned, 0));
    assert_eq!(w.m.kot()[65].state, KotState::Assigned);
    assert_eq!(w.m.pamt(TDR, Size::Small).page_type(), PageType::Tdr);
    assert!(w.m.is_quiet());
}

#[test]
fn pages_offered_in_vain_are_overwritten_but_not_taken() {
    // architecture.md §7.10.1: TDH.MNG.CREATE.
    let mut w = ready();
    w.poke(FREE_PAGE, 0, 7);
    w.starve = 1;
    assert_eq!(w.call(Leaf::MNG_CREATE, FREE_PAGE, HKID, 0, 0).status, Status::RND_NO_ENTROPY);
    let fill = |hpa: u64, keyid: u64, word: u64| Touch::Fill {
        at: Addr::new(Hpa(hpa), KeyId(keyid as u16)),
        lines: 64,
        word,
    };
    assert!(w.touches.contains(&fill(FREE_PAGE, GLOBAL, 0)));
    assert_eq!(w.m.pamt(FREE_PAGE, Size::Small).page_type(), PageType::Nda);
    assert_eq!(w.m.kot()[HKID as usize].state, KotState::Free);
    // The page and the HKID can be offered again.
    success(&mut w, Leaf::MNG_CREATE, FREE_PAGE, HKID);

    // The sixth TDCS page without entropy, and the seventh of an initialised TD.
    let mut w = keyed();
    let pages: Vec<u64> = w.td(TDR).tdcs.iter().take(5).map(|p| p.0).collect();
    w.edit_td(TDR, "tdcs", pages.into());
    w.starve = 1;
    assert_eq!(w.call(Leaf::MNG_ADDCX, FREE_PAGE, TDR, 0, 0).status, Status::RND_NO_ENTROPY);
    assert!(w.touches.contains(&fill(FREE_PAGE, HKID, 0)));
    assert_eq!((w.td(TDR).tdcs.len(), w.td(TDR).chldcnt), (5, 6));
    let mut w = initialized();
    assert_eq!(w.call(Leaf::MNG_ADDCX, FREE_PAGE, TDR, 0, 0).status, Status::OP_STATE_INCORRECT);
    assert!(w.touches.contains(&fill(FREE_PAGE, HKID, 0)));
    assert_eq!(w.m.pamt(FREE_PAGE, Size::Small).page_type(), PageType::Nda);
}

// ------------------------------------------------------------------------------------------------------- keys and ADDCX

#[test]
fn mng_key_config_checks_in_order() {
    let mut cases = tdr_cases::<0>();
    cases.extend([
        fatal(),
        case(
            "the TD has its key",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "KeysConfigured".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "this package is done",
            "package",
            |w, _| w.edit_td(TDR, "keyed", 1.into()),
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
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_KEY_CONFIG,
        base: || (created(), Call::new(Leaf::MNG_KEY_CONFIG, TDR, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn a_td_has_its_key_after_the_last_package() {
    // Question Q-19.
    let mut w = World::ready_with(Spec { packages: 2, lps: 4, ..spec() });
    success(&mut w, Leaf::MNG_CREATE, TDR, HKID);
    let mut key = |lp: usize| {
        let status = w.call_on(lp, Call::new(Leaf::MNG_KEY_CONFIG, TDR, 0, 0, 0)).status;
        (status.0, w.td(TDR).keyed, w.td(TDR).lifecycle)
    };
    let (assigned, configured) = (Lifecycle::HkidAssigned, Lifecycle::KeysConfigured);
    assert_eq!(key(0), (0, 1, assigned));
    assert_eq!(key(1), (0x0000_0815_0000_0000, 1, assigned));
    assert_eq!(key(2), (0, 3, configured));
    assert_eq!(key(0), (Status::LIFECYCLE_STATE_INCORRECT.0, 3, configured));
}

#[test]
fn keys_are_programmed_with_the_platforms_algorithm() {
    use sim_core::op::KeyAlg;
    for (integrity, xts, expected) in [
        (IntegrityMode::Ci, XtsWidth::Xts128, KeyAlg::Xts128Integrity),
        (IntegrityMode::Ci, XtsWidth::Xts256, KeyAlg::Xts256Integrity),
        (IntegrityMode::Li, XtsWidth::Xts128, KeyAlg::Xts128),
        (IntegrityMode::Li, XtsWidth::Xts256, KeyAlg::Xts256),
    ] {
        let mut w = created();
        w.edit("spec/integrity", serde_json::to_value(integrity).unwrap());
        w.edit("spec/xts", serde_json::to_value(xts).unwrap());
        success(&mut w, Leaf::MNG_KEY_CONFIG, TDR, 0);
        let keyid = KeyId(HKID as u16);
        assert!(w.touches.contains(&Touch::Pconfig { keyid, alg: expected }), "{:?}", w.touches);
    }
}

#[test]
fn mng_addcx_checks_in_order() {
    let mut cases = tdr_cases::<1>();
    cases.extend([
        fatal(),
        case(
            "the TD's key is not configured",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "HkidAssigned".into()),
            Status::TD_KEYS_NOT_CONFIGURED,
        ),
        case(
            "9 TDCS pages",
            "tdcs",
            |w, _| {
                let pages: Vec<u64> = (0..9).map(|i| (TDR >> 12) + 1 + i).collect();
                w.edit_td(TDR, "tdcs", pages.into());
            },
            Status::TDCX_NUM_INCORRECT,
        ),
    ]);
    cases.extend(free_page_cases::<{ TDR + 4096 }>());
    cases.extend([
        case(
            "no entropy for the sixth page",
            "tdcs",
            |w, _| {
                let pages: Vec<u64> = w.td(TDR).tdcs.iter().take(5).map(|p| p.0).collect();
                w.edit_td(TDR, "tdcs", pages.into());
                w.starve = 1;
            },
            Status::RND_NO_ENTROPY,
        ),
        case(
            "a seventh page of an initialised TD",
            "tdcs",
            |w, _| w.edit_td(TDR, "op_state", "Initialized".into()),
            Status::OP_STATE_INCORRECT,
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_ADDCX,
        base: || (keyed(), Call::new(Leaf::MNG_ADDCX, FREE_PAGE, TDR, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn tdcs_pages_are_filled_under_the_tds_key_with_what_section_7_5_says() {
    let mut w = created();
    success(&mut w, Leaf::MNG_KEY_CONFIG, TDR, 0);
    for index in 0..9 {
        let page = FREE_PAGE + 4096 * index;
        success(&mut w, Leaf::MNG_ADDCX, page, TDR);
        let word = match index {
            2 => u64::MAX,
            3 => 0x80E0_0000_0000_0000,
            _ => 0,
        };
        let at = Addr::new(Hpa(page), KeyId(HKID as u16));
        let fills: Vec<&Touch> =
            w.touches.iter().filter(|t| matches!(t, Touch::Fill { .. })).collect();
        assert_eq!(fills, [&Touch::Fill { at, lines: 64, word }], "page {index}");
        assert_eq!(w.touches.contains(&Touch::Random), index == 5, "page {index}");
        assert_eq!(w.td(TDR).chldcnt, index + 1);
        let entry = w.m.pamt(page, Size::Small);
        assert_eq!((entry.page_type(), entry.owner()), (PageType::Tdcx, Page(TDR >> 12)));
    }
    let root = w.td(TDR).sept_root();
    assert_eq!(root.hpa().0, FREE_PAGE + 3 * 4096);
    assert_eq!(w.m.sept_entry(root, 511), Some(Entry::FREE));
    assert_eq!(w.m.sept_pages(), [root]);
    let status = w.call(Leaf::MNG_ADDCX, FREE_PAGE + 0x10_0000, TDR, 0, 0).status;
    assert_eq!(status, Status::TDCX_NUM_INCORRECT);
}

#[test]
fn a_page_that_is_taken_keeps_the_block_epoch_of_its_last_life() {
    // architecture.md §7.4: only type and owner are written.
    let mut w = keyed();
    w.edit("tdmrs/0/gibs/0/blocks/0/pages/Each/20/bepoch", 9.into());
    w.edit("tdmrs/0/gibs/0/blocks/0/pages/Each/21/bepoch", 8.into());
    success(&mut w, Leaf::MNG_ADDCX, TDR + 20 * 4096, TDR);
    success(&mut w, Leaf::MNG_CREATE, TDR + 21 * 4096, 66);
    let epochs = [20, 21].map(|i| w.m.pamt(TDR + i * 4096, Size::Small).bepoch);
    assert_eq!(epochs, [9, 8]);
}

// ----------------------------------------------------------------------------------------------------------- MNG.INIT

/// Where [`World::td_params`] writes.
const PARAMS: u64 = HOST + 0x10_000;
/// Changes an 8-byte word of TD_PARAMS.
fn param(w: &mut World, offset: u64, value: u64) {
    w.poke(PARAMS + offset, 0, value);
}

#[test]
fn mng_init_checks_in_order() {
    let mut cases = tdr_cases::<0>();
    cases.extend(state_cases(false));
    cases.extend([
        case(
            "done before",
            "op_state",
            |w, _| w.edit_td(TDR, "op_state", "Initialized".into()),
            Status::OP_STATE_INCORRECT,
        ),
        case(
            "TD_PARAMS not aligned to 1024 bytes",
            "rdx",
            |_, c| c.regs[1] += 512,
            invalid(Operand::RDX),
        ),
        case(
            "TD_PARAMS under a private KeyID",
            "rdx",
            |_, c| c.regs[1] |= HKID << 45,
            invalid(Operand::RDX),
        ),
        case(
            "reserved ATTRIBUTES",
            "attributes",
            |w, _| param(w, 0, 2),
            invalid(Operand::ATTRIBUTES),
        ),
        case(
            "a migratable debug TD",
            "attributes",
            |w, _| param(w, 0, 1 << 29 | 1),
            invalid(Operand::ATTRIBUTES),
        ),
        case("XFAM without SSE", "xfam", |w, _| param(w, 8, 1), invalid(Operand::XFAM)),
        case("no VCPUs", "vcpus", |w, _| param(w, 16, 0), invalid(Operand::MAX_VCPUS)),
        case("4 L2 VMs", "vcpus", |w, _| param(w, 16, 1 | 4 << 16), invalid(Operand::NUM_L2_VMS)),
        case(
            "an L2 VM without a TDCS page for it",
            "vcpus",
            |w, _| param(w, 16, 1 | 1 << 16),
            Status::TDCS_NOT_ALLOCATED,
        ),
        case(
            "reserved bytes behind NUM_L2_VMS",
            "vcpus",
            |w, _| param(w, 16, 1 | 1 << 32),
            invalid(Operand::RDX),
        ),
        case(
            "reserved CONFIG_FLAGS",
            "flags",
            |w, _| param(w, 32, 8),
            invalid(Operand::EXEC_CONTROLS),
        ),
        case(
            "an EPT that is not WB",
            "eptp",
            |w, _| param(w, 24, 3 << 3),
            invalid(Operand::EPTP_CONTROLS),
        ),
        case("3 levels", "eptp", |w, _| param(w, 24, 6 | 2 << 3), invalid(Operand::EPTP_CONTROLS)),
        case(
            "a 52-bit GPA with 4 levels",
            "flags",
            |w, _| param(w, 32, 1),
            invalid(Operand::EPTP_CONTROLS),
        ),
        case("a TSC of 75 MHz", "tsc", |w, _| param(w, 40, 3), invalid(Operand::TSC_FREQUENCY)),
        case(
            "a TSC above 10 GHz",
            "tsc",
            |w, _| param(w, 40, 401),
            invalid(Operand::TSC_FREQUENCY),
        ),
        case(
            "IA32_TSC_ADJUST has changed",
            "adjust",
            |w, _| w.msrs[0].push((0x3B, 1)),
            Status(Status::INCONSISTENT_MSR.0 | 0x3B),
        ),
        case(
            "reserved bytes behind TSC_FREQUENCY",
            "reserved 1",
            |w, _| param(w, 72, 1),
            invalid(Operand::RDX),
        ),
        case(
            "reserved MSR_CONFIG_CTLS",
            "vcpus",
            |w, _| param(w, 16, 1 | 2 << 24),
            invalid(Operand::RDX),
        ),
        case(
            "reserved bytes behind IA32_ARCH_CAPABILITIES",
            "reserved 2",
            |w, _| param(w, 248, 1),
            invalid(Operand::RDX),
        ),
        case(
            "a CPUID bit that cannot be configured",
            "cpuid",
            |w, _| param(w, 256, 1 << 24),
            invalid(Operand::CPUID_CONFIG),
        ),
        case(
            "reserved bytes at the end",
            "reserved 3",
            |w, _| param(w, 1016, 1),
            invalid(Operand::RDX),
        ),
        case(
            "IA32_ARCH_CAPABILITIES without its control",
            "capabilities",
            |w, _| param(w, 224, 1 << 4),
            invalid(Operand::IA32_ARCH_CAPABILITIES_CONFIG),
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_INIT,
        base: || {
            let mut w = keyed();
            let params = w.td_params(0, 1);
            (w, Call::new(Leaf::MNG_INIT, TDR, params, 0, 0))
        },
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

/// What becomes of a TD whose parameters differ from good ones in these words, and RCX.
fn init_with(words: &[(u64, u64)]) -> (Status, u64, World) {
    let mut w = keyed();
    let params = w.td_params(0, 1);
    for (offset, value) in words {
        param(&mut w, *offset, *value);
    }
    let answer = w.call(Leaf::MNG_INIT, TDR, params, 0, 0);
    (answer.status, answer.out[0], w)
}

#[test]
fn a_cpuid_value_that_is_refused_is_named_by_its_leaf() {
    let (status, leaf, _) = init_with(&[(264, 1)]);
    assert_eq!((status, leaf), (invalid(Operand::CPUID_CONFIG), 0xFFFF_FFFF_8000_0008));
    assert_eq!(init_with(&[(256, 0x00FF_FFFF)]).0, Status::SUCCESS);
}

#[test]
fn features_of_xfam_come_together() {
    // XFAM beside x87 and SSE, and whether it can be had.
    for (bits, good) in [
        (0, true),
        (1 << 2, true),
        (1 << 5 | 1 << 6 | 1 << 7, false),
        (1 << 2 | 1 << 5 | 1 << 6 | 1 << 7, true),
        (1 << 2 | 1 << 5 | 1 << 6, false),
        (1 << 2 | 1 << 5 | 1 << 7, false),
        (1 << 2 | 1 << 6, false),
        (1 << 8 | 1 << 9 | 1 << 14 | 1 << 15, true),
        (1 << 11 | 1 << 12, true),
        (1 << 12, false),
        (1 << 17 | 1 << 18, true),
        (1 << 17, false),
        (1 << 3, false),
        (1 << 63, false),
    ] {
        let expected = if good { Status::SUCCESS } else { invalid(Operand::XFAM) };
        assert_eq!(init_with(&[(8, 3 | bits)]).0, expected, "{bits:#x}");
    }
}

#[test]
fn levels_width_and_capabilities_are_taken_from_the_parameters() {
    let (status, _, w) = init_with(&[(24, 6 | 4 << 3), (32, 1)]);
    assert_eq!(status, Status::SUCCESS);
    assert_eq!((w.td(TDR).levels, w.td(TDR).gpaw, w.td(TDR).shared_bit()), (5, 52, 1 << 51));
    let (status, _, w) = init_with(&[(24, 6 | 4 << 3)]);
    assert_eq!((status, w.td(TDR).levels, w.td(TDR).gpaw), (Status::SUCCESS, 5, 48));
    assert_eq!(init_with(&[(24, 6 | 5 << 3)]).0, invalid(Operand::EPTP_CONTROLS));
    assert_eq!(init_with(&[(24, 6 | 3 << 3 | 1 << 6)]).0, invalid(Operand::EPTP_CONTROLS));
    let capable = [(16, 1 | 1 << 24), (224, 1 << 4 | 1 << 19 | 1 << 20 | 1 << 24)];
    assert_eq!(init_with(&capable).0, Status::SUCCESS);
    let refused = init_with(&[(16, 1 | 1 << 24), (224, 1)]).0;
    assert_eq!(refused, invalid(Operand::IA32_ARCH_CAPABILITIES_CONFIG));
    // The three MR* fields may hold anything.
    let measured: Vec<(u64, u64)> = (80..224).step_by(8).map(|at| (at, u64::MAX)).collect();
    assert_eq!(init_with(&measured).0, Status::SUCCESS);
}

#[test]
fn a_migratable_td_has_no_l2_vms() {
    for (attributes, expected) in [(0, Status::SUCCESS), (1 << 29, invalid(Operand::RDX))] {
        let mut w = keyed();
        success(&mut w, Leaf::MNG_ADDCX, FREE_PAGE, TDR);
        let params = w.td_params(attributes, 1);
        param(&mut w, 16, 1 | 1 << 16);
        assert_eq!(w.call(Leaf::MNG_INIT, TDR, params, 0, 0).status, expected);
        assert_eq!(w.td(TDR).l2_vms, u8::from(attributes == 0));
    }
}

#[test]
fn mng_init_reads_1024_bytes_under_their_keyid_and_writes_tdcs_under_the_tds() {
    let mut w = keyed();
    let params = w.td_params(1 << 28, 9);
    for i in 0..128 {
        let word = w.peek(params + 8 * i, 0);
        w.poke(params + 8 * i, 3, word);
        w.poke(params + 8 * i, 0, u64::MAX);
    }
    w.tsc = 0x1234;
    success(&mut w, Leaf::MNG_INIT, TDR, params | 3 << 45);
    let loads =
        (0..16).map(|i| Touch::Load { at: Addr::new(Hpa(params + 64 * i), KeyId(3)), bytes: 64 });
    let params_loads: Vec<Touch> = w
        .touches
        .iter()
        .filter(|t| matches!(t, Touch::Load { at, .. } if at.keyid == KeyId(3)))
        .copied()
        .collect();
    assert_eq!(params_loads, loads.collect::<Vec<_>>());
    let td = w.td(TDR);
    let first = td.tdcs[0].hpa().0;
    let stores: Vec<(u64, u64)> = w
        .touches
        .iter()
        .filter_map(|t| match t {
            Touch::Store { at, value, locked: false, .. } => {
                assert_eq!(at.keyid, KeyId(HKID as u16));
                Some((at.hpa.0 - first, value[0]))
            }
            _ => None,
        })
        .collect();
    assert_eq!(stores, [(64, 0), (136, 1), (256, 1 << 28), (320, 0), (0, 1)]);
    assert_eq!((td.op_state, td.epoch, td.refcount), (OpState::Initialized, 1, [0, 0]));
    assert_eq!((td.attributes, td.max_vcpus), (1 << 28, 9));
    assert_eq!(td.tsc_offset.wrapping_add(0x1234), 0);
    assert_eq!(td.hp_lock_timeout, Ps(1_000_000_000_000));
    assert_eq!(td.mrtd.blocks(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn parameters_never_make_a_td_that_breaks_their_rules(
        word in 0u64..64, value: u64, bit in 0u32..64,
    ) {
        for value in [value, 1 << bit] {
            let (status, _, w) = init_with(&[(8 * word, value)]);
            let td = w.td(TDR);
            if status == Status::SUCCESS {
                prop_assert!(td.max_vcpus > 0 && td.xfam & 3 == 3);
                prop_assert!(td.levels == 5 || td.levels == 4 && td.gpaw == 48);
                prop_assert!((4..=400).contains(&td.tsc_frequency));
            } else {
                prop_assert!(status.is_error());
                prop_assert!(w.m == keyed().m);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------- the life of an HKID

#[test]
fn mng_vpflushdone_checks_in_order() {
    let mut cases = tdr_cases::<0>();
    cases.extend([
        case(
            "the key ownership table is locked",
            "lock",
            |w, _| hold(w, Call::new(Leaf::MNG_CREATE, FREE_PAGE, 67, 0, 0), 2),
            Status::OPERAND_BUSY.about(Operand::KOT),
        ),
        case(
            "done before",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "Blocked".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "the TD is torn down",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "Teardown".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "a VCPU is associated with an LP",
            "vcpus",
            |w, _| w.edit_td(TDR, "associated", 1.into()),
            Status::FLUSHVP_NOT_DONE,
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_VPFLUSHDONE,
        base: || (initialized(), Call::new(Leaf::MNG_VPFLUSHDONE, TDR, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

/// A TD whose HKID is flushed and waits for nobody.
fn flushed() -> World {
    let mut w = initialized();
    success(&mut w, Leaf::MNG_VPFLUSHDONE, TDR, 0);
    w.edit(&format!("sys/kot/{HKID}/wbinvd_bitmap"), 0.into());
    w
}

#[test]
fn mng_key_freeid_checks_in_order() {
    let mut cases = tdr_cases::<0>();
    cases.extend([
        case(
            "its VCPUs are not flushed",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "KeysConfigured".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "an HKID without a key cannot be freed at once (D-05)",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "HkidAssigned".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "done before",
            "lifecycle",
            |w, _| w.edit_td(TDR, "lifecycle", "Teardown".into()),
            Status::LIFECYCLE_STATE_INCORRECT,
        ),
        case(
            "the key ownership table is locked",
            "lock",
            |w, _| hold(w, Call::new(Leaf::MNG_CREATE, FREE_PAGE, 67, 0, 0), 2),
            Status::OPERAND_BUSY.about(Operand::KOT),
        ),
        case(
            "a package's caches are not written back",
            "bitmap",
            |w, _| w.edit(&format!("sys/kot/{HKID}/wbinvd_bitmap"), 1.into()),
            Status::WBCACHE_NOT_COMPLETE,
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_KEY_FREEID,
        base: || (flushed(), Call::new(Leaf::MNG_KEY_FREEID, TDR, 0, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn an_hkid_goes_from_free_to_assigned_to_flushed_to_free() {
    // verification.md H1, H2, H3, with two packages.
    let mut w = World::ready_with(Spec { packages: 2, lps: 4, ..spec() });
    let kot = |w: &World| {
        let entry = w.m.kot()[HKID as usize];
        (entry.state, entry.wbinvd_bitmap)
    };
    assert_eq!(kot(&w), (KotState::Free, 0));
    let tdr = w.initialized_td(HKID, 0);
    assert_eq!(kot(&w), (KotState::Assigned, 0));
    success(&mut w, Leaf::MNG_VPFLUSHDONE, tdr, 0);
    assert_eq!((kot(&w), w.td(tdr).lifecycle), ((KotState::Flushed, 3), Lifecycle::Blocked));
    // The HKID is nobody else's until every package has written back.
    let page = w.page();
    for lp in [0, 2] {
        let status = w.call(Leaf::MNG_KEY_FREEID, tdr, 0, 0, 0).status;
        assert_eq!((status, kot(&w).0), (Status::WBCACHE_NOT_COMPLETE, KotState::Flushed));
        assert_eq!(w.call(Leaf::MNG_CREATE, page, HKID, 0, 0).status, Status::HKID_NOT_FREE);
        let written = w.call_on(lp, Call::new(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0)).status;
        assert_eq!(written, Status::SUCCESS);
    }
    success(&mut w, Leaf::MNG_KEY_FREEID, tdr, 0);
    assert_eq!((kot(&w).0, w.td(tdr).lifecycle), (KotState::Free, Lifecycle::Teardown));
    success(&mut w, Leaf::MNG_CREATE, page, HKID);
    // No key was cleared on the way (architecture.md §7.5).
    assert!(!w.touches.iter().any(|t| matches!(t, Touch::Pconfig { .. })));
}

#[test]
fn an_interrupted_write_back_and_one_that_began_before_free_no_hkid() {
    // verification.md H8.
    let mut w = ready();
    let (one, two) = (w.keyed_td(65), w.keyed_td(66));
    success(&mut w, Leaf::MNG_VPFLUSHDONE, one, 0);
    w.irq = true;
    let status = w.call(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0).status;
    assert_eq!(status, Status::INTERRUPTED_RESUMABLE);
    let unfinished = Status::WBCACHE_NOT_COMPLETE;
    assert_eq!(w.call(Leaf::MNG_KEY_FREEID, one, 0, 0, 0).status, unfinished);
    success(&mut w, Leaf::MNG_VPFLUSHDONE, two, 0);
    w.irq = false;
    w.ok(Leaf::PHYMEM_CACHE_WB, 1, 0, 0, 0);
    success(&mut w, Leaf::MNG_KEY_FREEID, one, 0);
    assert_eq!(w.call(Leaf::MNG_KEY_FREEID, two, 0, 0, 0).status, unfinished);
}

#[test]
fn a_td_is_flushed_when_every_vcpu_has_left_its_lp() {
    let mut w = initialized();
    let tdvpr = w.vcpu(TDR);
    assert_eq!(w.call(Leaf::MNG_VPFLUSHDONE, TDR, 0, 0, 0).status, Status::FLUSHVP_NOT_DONE);
    success(&mut w, Leaf::VP_FLUSH, tdvpr, 0);
    success(&mut w, Leaf::MNG_VPFLUSHDONE, TDR, 0);
}

#[test]
fn a_td_without_a_key_can_be_blocked_and_a_fatal_one_torn_down() {
    // D-04: from HKID_ASSIGNED; TDH.MNG.VPFLUSHDONE and KEY.FREEID do not look at fatal.
    let mut w = created();
    w.edit_td(TDR, "fatal", true.into());
    success(&mut w, Leaf::MNG_VPFLUSHDONE, TDR, 0);
    // No TDCS yet: none was read.
    assert!(!traffic(&w).contains("key 65"), "{}", traffic(&w));
    w.edit(&format!("sys/kot/{HKID}/wbinvd_bitmap"), 0.into());
    success(&mut w, Leaf::MNG_KEY_FREEID, TDR, 0);
}

#[test]
fn live_tds_have_hkids_of_their_own_and_there_are_as_many_as_private_hkids_less_the_global_one() {
    // verification.md H6.
    let mut w = ready();
    let mut made = 0;
    for hkid in 0..=130 {
        let page = w.page();
        let status = w.call(Leaf::MNG_CREATE, page, hkid, 0, 0).status;
        let expected = match hkid {
            0..64 | 128.. => invalid(Operand::RDX),
            GLOBAL => Status::HKID_NOT_FREE,
            _ => Status::SUCCESS,
        };
        assert_eq!(status, expected, "HKID {hkid}");
        made += usize::from(status == Status::SUCCESS);
        let page = w.page();
        assert!(w.call(Leaf::MNG_CREATE, page, hkid, 0, 0).status.is_error(), "HKID {hkid} twice");
    }
    assert_eq!((made, w.m.tds().count()), (63, 63));
}

#[test]
fn pconfig_is_asked_only_for_private_hkids_that_are_not_in_use_yet() {
    // verification.md H5: a key is programmed before the TD has it, never after.
    let mut w = ready();
    let tdr = w.page();
    success(&mut w, Leaf::MNG_CREATE, tdr, HKID);
    let mut programmed = Vec::new();
    for _ in 0..3 {
        w.call(Leaf::MNG_KEY_CONFIG, tdr, 0, 0, 0);
        programmed.extend(w.touches.iter().filter_map(|t| match t {
            Touch::Pconfig { keyid, .. } => Some(*keyid),
            _ => None,
        }));
    }
    assert_eq!(programmed, [KeyId(HKID as u16)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// verification.md H1, H2, H3, H6 under random leaves on three TDs.
    #[test]
    fn hkids_only_take_the_edges_of_their_life_cycle(
        steps in proptest::collection::vec((0usize..6, 0u64..3, 0u64..3), 1..60),
    ) {
        let mut w = ready();
        for (leaf, td, hkid) in steps {
            let (page, hkid) = (TDR + 4096 * td, 65 + hkid);
            let before: Vec<KotState> = w.m.kot().iter().map(|e| e.state).collect();
            let bitmaps: Vec<u8> = w.m.kot().iter().map(|e| e.wbinvd_bitmap).collect();
            let leaf = match leaf {
                0 => Leaf::MNG_CREATE,
                1 => Leaf::MNG_KEY_CONFIG,
                2 => Leaf::MNG_ADDCX,
                3 => Leaf::MNG_VPFLUSHDONE,
                4 => Leaf::MNG_KEY_FREEID,
                _ => {
                    w.edit(&format!("sys/kot/{hkid}/wbinvd_bitmap"), 0.into());
                    continue;
                }
            };
            let rcx = if leaf == Leaf::MNG_ADDCX { w.page() + 0x10_0000 } else { page };
            let rdx = if leaf == Leaf::MNG_ADDCX { page } else { hkid };
            let ok = w.call(leaf, rcx, rdx, 0, 0).status == Status::SUCCESS;
            for (i, entry) in w.m.kot().iter().enumerate() {
                let edge = (before[i], entry.state);
                let right = match edge {
                    (a, b) if a == b => true,
                    (KotState::Free, KotState::Assigned) => ok && leaf == Leaf::MNG_CREATE,
                    (KotState::Assigned, KotState::Flushed) => {
                        ok && leaf == Leaf::MNG_VPFLUSHDONE && entry.wbinvd_bitmap == 1
                    }
                    (KotState::Flushed, KotState::Free) => {
                        ok && leaf == Leaf::MNG_KEY_FREEID && bitmaps[i] == 0
                    }
                    _ => false,
                };
                prop_assert!(right, "HKID {}: {:?} by {}", i, edge, leaf);
            }
            let mut live: Vec<KeyId> = w.m.tds()
                .filter(|(_, td)| td.lifecycle != Lifecycle::Teardown)
                .map(|(_, td)| td.hkid)
                .collect();
            let all = live.len();
            live.sort_unstable();
            live.dedup();
            prop_assert_eq!(live.len(), all);
            prop_assert!(w.m.is_quiet());
        }
    }
}

// ----------------------------------------------------------------------------------------------------------- metadata

const MAX_VCPUS: u64 = 0x1110_0002_0000_0002;
const TD_CTLS: u64 = 0x1110_0003_0000_0017;
const HP_LOCK_TIMEOUT: u64 = 0x9110_0003_0000_0011;

#[test]
fn mng_rd_checks_in_order() {
    let unknown = Status::METADATA_FIELD_ID_INCORRECT;
    let mut cases = vec![case("version 2", "rax", |_, c| c.rax |= 2 << 16, invalid(Operand::RAX))];
    cases.extend(tdr_cases::<0>());
    cases.extend(state_cases(true));
    cases.extend([
        case(
            "the TD is not initialised",
            "op_state",
            |w, _| w.edit_td(TDR, "op_state", "Uninit".into()),
            Status::OP_STATE_INCORRECT,
        ),
        case(
            "version 1 and no field",
            "rdx",
            |_, c| {
                c.rax |= 1 << 16;
                c.regs[1] = NO_FIELD;
            },
            Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT,
        ),
        case("version 0 and no field", "rdx", |_, c| c.regs[1] = NO_FIELD, unknown),
        case("an unknown field", "rdx", |_, c| c.regs[1] += 0xff00, unknown),
        case(
            "a field that only debug TDs show",
            "rdx",
            |_, c| c.regs[1] = TD_CTLS,
            Status::METADATA_FIELD_NOT_READABLE,
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_RD,
        base: || (initialized(), Call::new(Leaf::MNG_RD, TDR, MAX_VCPUS, 0, 0)),
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn mng_wr_checks_in_order() {
    let mut cases = vec![case("version 1", "rax", |_, c| c.rax |= 1 << 16, invalid(Operand::RAX))];
    cases.extend(tdr_cases::<0>());
    cases.extend(state_cases(true));
    cases.extend([
        case(
            "the TD is not initialised",
            "op_state",
            |w, _| w.edit_td(TDR, "op_state", "Uninit".into()),
            Status::OP_STATE_INCORRECT,
        ),
        case(
            "the TD is exported",
            "op_state",
            |w, _| w.edit_td(TDR, "op_state", "PausedExport".into()),
            Status::OP_STATE_INCORRECT,
        ),
        case("no field", "rdx", |_, c| c.regs[1] = NO_FIELD, Status::METADATA_FIELD_ID_INCORRECT),
        case(
            "a field that cannot be written",
            "rdx",
            |_, c| c.regs[1] = MAX_VCPUS,
            Status::METADATA_FIELD_NOT_WRITABLE,
        ),
        case("no bits", "mask", |_, c| c.regs[3] = 0, Status::METADATA_FIELD_NOT_WRITABLE),
        case("some bits", "mask", |_, c| c.regs[3] = 0xff, Status::METADATA_WR_MASK_NOT_VALID),
        case(
            "less than 10 ms",
            "value",
            |_, c| c.regs[2] = 9_999,
            Status::METADATA_FIELD_VALUE_NOT_VALID,
        ),
        case(
            "more than 100 s",
            "value",
            |_, c| c.regs[2] = 100_000_001,
            Status::METADATA_FIELD_VALUE_NOT_VALID,
        ),
    ]);
    check(&LeafCases {
        leaf: Leaf::MNG_WR,
        base: || {
            let mut call = Call::new(Leaf::MNG_WR, TDR, HP_LOCK_TIMEOUT, 20_000, u64::MAX);
            call.regs[4] = 0;
            (initialized(), call)
        },
        succeeds: Some(Status::SUCCESS),
        cases,
        unreachable: &[],
    });
}

#[test]
fn the_timeout_is_read_and_written_in_microseconds() {
    let mut w = initialized();
    let answer = w.ok(Leaf::MNG_WR, TDR, HP_LOCK_TIMEOUT, 20_000, u64::MAX);
    assert_eq!(answer.out[2], 1_000_000, "the old value");
    assert_eq!(w.td(TDR).hp_lock_timeout, Ps::ns(20_000_000));
    assert_eq!(w.ok(Leaf::MNG_RD, TDR, HP_LOCK_TIMEOUT, 0, 0).out[2], 20_000);
    for value in [10_000, 100_000_000] {
        w.ok(Leaf::MNG_WR, TDR, HP_LOCK_TIMEOUT, value, u64::MAX);
    }
}

#[test]
fn every_field_of_a_td_reads_as_the_td_is() {
    let mut w = ready();
    let tdr = w.initialized_td(HKID, 1);
    w.edit_td(tdr, "refcount", vec![3, 4].into());
    w.edit_td(tdr, "vcpus", 2.into());
    let mut out = String::new();
    for row in TD_FIELDS {
        let count = u64::from(row.fields * row.elements);
        let values: Vec<u64> =
            (0..count).map(|i| w.ok(Leaf::MNG_RD, tdr, row.id + i, 0, 0).out[2]).collect();
        let _ = writeln!(out, "{}: {values:x?}", row.name);
    }
    expect![[r#"
        FATAL: [0]
        NUM_TDCX: [6]
        CHLDCNT: [6]
        LIFECYCLE_STATE: [1]
        TDCX_PA: [8200100001000, 8200100002000, 8200100003000, 8200100004000, 8200100005000, 8200100006000, 0, 0, 0]
        HKID: [41]
        PKG_CONFIG_BITMAP: [1]
        NUM_VCPUS: [2]
        NUM_ASSOC_VCPUS: [0]
        OP_STATE: [1]
        NUM_L2_VMS: [0]
        ATTRIBUTES: [1]
        XFAM: [3]
        MAX_VCPUS: [4]
        GPAW: [0]
        EPTP: [10000401e]
        TSC_OFFSET: [fffffffffffffc18]
        TSC_MULTIPLIER: [1000000000000]
        TSC_FREQUENCY: [28]
        HP_LOCK_TIMEOUT: [f4240]
        CONFIG_FLAGS: [0]
        TD_CTLS: [0]
        TD_EPOCH: [1]
        REFCOUNT: [3, 4]
        MRTD: [0, 0, 0, 0, 0, 0]
    "#]]
    .assert_eq(&out);
    // A kernel asks for TSC_OFFSET without context code and class bit (real-kernel.md §5.3 S-10).
    let offset = w.ok(Leaf::MNG_RD, tdr, 0x1100_0000_0000_000A, 0, 0).out[2];
    assert_eq!(offset, 0u64.wrapping_sub(1000));
}

#[test]
fn version_1_leads_from_field_to_field_and_skips_what_a_debug_td_alone_shows() {
    for debug in [0, 1] {
        let mut w = ready();
        let tdr = w.initialized_td(HKID, debug);
        let mut read = |id: u64| {
            let mut call = Call::new(Leaf::MNG_RD, tdr, id, 0, 0);
            call.rax |= 1 << 16;
            w.call_on(0, call)
        };
        let first = read(NO_FIELD);
        assert_eq!(first.status, Status::METADATA_FIRST_FIELD_ID_IN_CONTEXT);
        let (mut id, mut seen) = (first.out[1], Vec::new());
        while id != NO_FIELD {
            let answer = read(id);
            assert_eq!(answer.status, Status::SUCCESS, "{id:#x}");
            seen.push(id);
            id = answer.out[1];
        }
        let all: Vec<u64> = TD_FIELDS
            .iter()
            .filter(|r| debug == 1 || r.id != TD_CTLS)
            .flat_map(|r| (0..u64::from(r.fields * r.elements)).map(|i| r.id + i))
            .collect();
        assert_eq!(seen, all);
        // A failed read names no next field.
        assert_eq!(read(MAX_VCPUS + 0xff00).out[1], NO_FIELD);
    }
}

#[test]
fn metadata_is_accessible_in_the_op_states_of_the_source() {
    for row in OP_STATES {
        let mut w = initialized();
        w.edit_td(TDR, "op_state", serde_json::to_value(row.state).unwrap());
        let read = w.call(Leaf::MNG_RD, TDR, MAX_VCPUS, 0, 0).status == Status::SUCCESS;
        let written = w.call(Leaf::MNG_WR, TDR, HP_LOCK_TIMEOUT, 20_000, u64::MAX).status;
        let code = row.state.code();
        assert_eq!(read, code != 0, "{}", row.name);
        assert_eq!(written == Status::SUCCESS, ![0, 4, 5].contains(&code), "{}", row.name);
    }
}

#[test]
fn a_field_is_read_from_its_line_under_the_key_that_it_lives_under() {
    let mut w = initialized();
    w.ok(Leaf::MNG_RD, TDR, 0x9210_0003_0000_0000, 0, 0);
    let first = w.td(TDR).tdcs[0].hpa().0;
    let load = |hpa: u64, keyid: u64| Touch::Load {
        at: Addr::new(Hpa(hpa), KeyId(keyid as u16)),
        bytes: 8,
    };
    assert!(w.touches.contains(&load(first + 128, HKID)), "{}", traffic(&w));
    w.ok(Leaf::MNG_RD, TDR, 0x8110_0001_0000_0001, 0, 0);
    assert!(w.touches.contains(&load(TDR + 64, GLOBAL)), "{}", traffic(&w));
}

#[test]
fn readers_of_metadata_share_the_td_and_keep_its_owner_out() {
    let mut w = initialized();
    hold(&mut w, Call::new(Leaf::MNG_RD, TDR, MAX_VCPUS, 0, 0), 2);
    w.ok(Leaf::MNG_RD, TDR, MAX_VCPUS, 0, 0);
    let status = w.call(Leaf::MNG_VPFLUSHDONE, TDR, 0, 0, 0).status;
    assert_eq!(status, Status::OPERAND_BUSY.about(Operand::RCX));
}
