//! Machine-check registers: every value of every field goes in and comes out again (architecture.md §6.2).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use expect_test::expect;
use proptest::prelude::*;
use sim_core::mca::{
    Field, MCACOD_DATA_LOAD, MCG_FIELDS, MISC_FIELDS, McMisc, McStatus, McgStatus, STATUS_FIELDS,
    StatusParts,
};

fn mask(field: &Field) -> u64 {
    (u64::MAX >> (64 - field.bits)) << field.shift
}

fn get(field: &Field, raw: u64) -> u64 {
    (raw & mask(field)) >> field.shift
}

/// The parts in the order of [`STATUS_FIELDS`].
fn parts(p: StatusParts) -> [u64; 11] {
    let bits = [p.val, p.over, p.uc, p.en, p.miscv, p.addrv, p.pcc, p.s, p.ar].map(u64::from);
    let [a, b, c, d, e, f, g, h, i] = bits;
    [a, b, c, d, e, f, g, h, i, p.mscod.into(), p.mcacod.into()]
}

fn checked(raw: u64) -> Result<(), TestCaseError> {
    let unpacked = McStatus(raw).unpack();
    for (field, part) in STATUS_FIELDS.iter().zip(parts(unpacked)) {
        prop_assert_eq!(part, get(field, raw), "{} of {:#x}", field.name, raw);
    }
    let named: u64 = STATUS_FIELDS.iter().map(mask).sum();
    prop_assert_eq!(McStatus::pack(unpacked).0, raw & named);
    prop_assert_eq!(McStatus::pack(unpacked).unpack(), unpacked);
    Ok(())
}

#[test]
fn every_value_of_every_status_field_comes_out_where_the_table_says_and_nowhere_else() {
    // All flags with the extreme codes, then all codes with the extreme flags.
    for flags in 0..1u64 << 9 {
        for codes in [0, 0xffff, 0xffff_0000, 0xffff_ffff] {
            checked(flags << 55 | codes).unwrap();
        }
    }
    for code in 0..=0xffffu64 {
        for rest in [0, !0xffff] {
            checked(rest | code).unwrap();
            checked(rest.rotate_left(16) | code << 16).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn any_status_comes_out_as_it_went_in(raw: u64) {
        checked(raw)?;
    }
}

#[test]
fn every_misc_comes_out_as_it_went_in() {
    for raw in 0..1u64 << 9 {
        for rest in [0, !0x1ff] {
            let misc = McMisc(raw | rest);
            let [mode, lsb] = [u64::from(misc.mode()), u64::from(misc.lsb())];
            assert_eq!([mode, lsb], [get(&MISC_FIELDS[0], raw), get(&MISC_FIELDS[1], raw)]);
            assert_eq!(McMisc::pack(misc.mode(), misc.lsb()), McMisc(raw));
        }
    }
    // What does not fit is cut off, and disturbs no other field.
    assert_eq!(McMisc::pack(0xff, 0), McMisc(0x1c0));
    assert_eq!(McMisc::pack(0, 0xff), McMisc(0x3f));
}

#[test]
fn every_flag_of_mcg_status_is_asked_for_alone_and_together() {
    let flags = [
        ("RIPV", McgStatus::RIPV),
        ("EIPV", McgStatus::EIPV),
        ("MCIP", McgStatus::MCIP),
        ("LMCES", McgStatus::LMCES),
        ("SEAM_NR", McgStatus::SEAM_NR),
    ];
    assert_eq!(MCG_FIELDS.len(), flags.len());
    for (field, (name, flag)) in MCG_FIELDS.iter().zip(flags) {
        assert_eq!((field.name, mask(field)), (name, flag));
    }
    for set in 0..32u64 {
        for other in [0, !0x100f] {
            let of = |set: u64| {
                let chosen = flags.iter().enumerate().filter(|(i, _)| set >> i & 1 != 0);
                chosen.map(|(_, (_, flag))| flag).sum::<u64>()
            };
            let mcg = McgStatus(of(set) | other);
            for asked in 0..32u64 {
                assert_eq!(mcg.has(of(asked)), asked & set == asked, "{asked:#b} of {set:#b}");
            }
        }
    }
}

#[test]
fn the_published_log_decodes_to_the_documented_fields() {
    // verification.md R1: a host's data load, bank 1.
    let (status, mcg) = (McStatus(0xbd80_0000_0010_0134), McgStatus(0xf));
    let named = |table: &[Field], raw: u64| {
        let fields = table.iter().map(|f| (f.name, get(f, raw))).filter(|(_, v)| *v != 0);
        fields.map(|(name, v)| format!("{name}={v:#x}")).collect::<Vec<_>>().join(" ")
    };
    let text = format!("{}\n{}", named(STATUS_FIELDS, status.0), named(MCG_FIELDS, mcg.0));
    expect![[r#"
        VAL=0x1 UC=0x1 EN=0x1 MISCV=0x1 ADDRV=0x1 S=0x1 AR=0x1 MSCOD=0x10 MCACOD=0x134
        RIPV=0x1 EIPV=0x1 MCIP=0x1 LMCES=0x1"#]]
    .assert_eq(&text);
    assert_eq!(status.unpack().mcacod, MCACOD_DATA_LOAD);
    assert_eq!(McStatus::srar(0x10, MCACOD_DATA_LOAD), status);
    // verification.md R2: a TD's, where the processor says so.
    let seam_nr = McgStatus(0x100f);
    assert!(seam_nr.has(McgStatus::SEAM_NR | 0xf) && !mcg.has(McgStatus::SEAM_NR));
}
