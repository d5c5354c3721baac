//! TDH.MR.*: every status in check order, and the digest (architecture.md §7.9).

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: the world is the test's own")]

mod common;

use common::bench::{HKID, bench, call, image};
use common::cases::{LeafCases, check};
use common::edit::edit_entry;
use common::faults::*;
use common::{IMAGE, World};
use proptest::prelude::*;
use sha2::{Digest, Sha384};
use sim_core::Page;
use sim_core::tdx::{Leaf, Operand as O, Status as S};
use tdx_module::op_state::OpState;
use tdx_module::reg::{RCX, RDX};
use tdx_module::sept::{Entry, State};
use tdx_module::{Call, Touch};

#[test]
fn extend_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MR_EXTEND,
        base: || call(Leaf::MR_EXTEND, 0x300, bench().built, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RDX>(),
            state::<RDX>(false),
            vec![
                rdx("the TD is finalized", S::OP_STATE_INCORRECT, |_, c| c.regs[RDX] = bench().td),
                rcx("RCX is aligned to 128", S::OPERAND_INVALID.about(O::RCX), |_, c| {
                    c.regs[RCX] |= 128;
                }),
                rcx("the GPA is shared", S::OPERAND_INVALID.about(O::RCX), |_, c| {
                    c.regs[RCX] |= 1 << 47;
                }),
                rcx("no page is there", S::EPT_ENTRY_NOT_PRESENT.about(O::RCX), |_, c| {
                    c.regs[RCX] = 0x1000;
                }),
                // No leaf of this model leaves such a page in a TD that is being built.
                case("the page is not MAPPED", "entry", S::EPT_ENTRY_NOT_PRESENT, |w, _| {
                    let page = Page(bench().built_page >> 12);
                    edit_entry(w, bench().built_tables[2], 0, Entry::leaf(State::BlockedW, page));
                }),
            ],
        ]),
        unreachable: &[],
    });
}

#[test]
fn finalize_returns_every_status_in_order() {
    check(&LeafCases {
        leaf: Leaf::MR_FINALIZE,
        base: || call(Leaf::MR_FINALIZE, bench().built, 0, 0, 0),
        succeeds: Some(S::SUCCESS),
        cases: all(vec![
            tdr::<RCX>(),
            state::<RCX>(false),
            vec![
                rdx("the TD is finalized", S::OP_STATE_INCORRECT, |_, c| c.regs[RCX] = bench().td),
                rdx("the TD has no VCPU", S::NO_VCPUS, |_, c| c.regs[RCX] = bench().bare),
            ],
        ]),
        unreachable: &[],
    });
}

/// What SHA-384 says of a record: name, GPA, zeros, 128 bytes in all.
fn record(hash: &mut Sha384, name: &str, gpa: u64) {
    let mut block = [0; 128];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[16..24].copy_from_slice(&gpa.to_le_bytes());
    hash.update(block);
}
fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn the_digest_of_a_small_td_is_that_of_its_definition() {
    let mut w = World::ready();
    let td = w.initialized_td(u64::from(HKID), 0);
    w.vcpu(td);
    w.sept(td, 0x10_0000, 0);
    let mut hash = Sha384::new();
    // Two pages, of the second only two chunks, in no order.
    let first = image(&mut w, 0x1111);
    w.add(td, 0x10_0000);
    record(&mut hash, "MEM.PAGE.ADD", 0x10_0000);
    let second = image(&mut w, 0x2222_0000);
    w.add(td, 0x10_1000);
    record(&mut hash, "MEM.PAGE.ADD", 0x10_1000);
    for (gpa, page, word) in [
        (0x10_0000, &first, 0),
        (0x10_0F00, &first, 0xF00 / 8),
        (0x10_1700, &second, 0x700 / 8),
        (0x10_1100, &second, 0x100 / 8),
    ] {
        w.ok(Leaf::MR_EXTEND, gpa, td, 0, 0);
        record(&mut hash, "MR.EXTEND", gpa);
        hash.update(bytes(&page[word..word + 32]));
    }
    assert_eq!(w.td(td).mrtd.digest(), None);
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    assert_eq!(w.td(td).mrtd.digest().unwrap().to_vec(), hash.finalize().to_vec());
    assert_eq!(w.td(td).op_state, OpState::Runnable);
    // And it is closed for good.
    let call = Call::new(Leaf::MR_EXTEND, 0x10_0000, td, 0, 0);
    assert_eq!(w.call_on(0, call).status, S::OP_STATE_INCORRECT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_sequence_of_pages_and_chunks_is_measured_as_defined(
        ops in proptest::collection::vec((0..6u64, 0..16u64, any::<bool>()), 1..12),
    ) {
        let mut w = bench().w.clone();
        let td = bench().built;
        let mut hash = Sha384::new();
        record(&mut hash, "MEM.PAGE.ADD", 0);
        let mut pages = vec![vec![0; 512]];
        for (page, chunk, add) in ops {
            if add {
                let gpa = (pages.len() as u64) << 12;
                pages.push(image(&mut w, gpa.wrapping_mul(0x9E37_79B9)));
                w.add(td, gpa);
                record(&mut hash, "MEM.PAGE.ADD", gpa);
            } else {
                let page = page % pages.len() as u64;
                let gpa = page << 12 | chunk << 8;
                w.ok(Leaf::MR_EXTEND, gpa, td, 0, 0);
                record(&mut hash, "MR.EXTEND", gpa);
                let at = chunk as usize * 32;
                hash.update(bytes(&pages[page as usize][at..at + 32]));
            }
        }
        w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
        prop_assert_eq!(w.td(td).mrtd.digest().unwrap().to_vec(), hash.finalize().to_vec());
    }
}

#[test]
fn extend_reads_four_lines_under_the_td_s_key_and_hashes_three_blocks() {
    let b = bench();
    let mut w = b.w.clone();
    let (before, hkid) = (w.td(b.built).mrtd.blocks(), w.td(b.built).hkid);
    w.ok(Leaf::MR_EXTEND, 0x300, b.built, 0, 0);
    let page = Page(b.built_page >> 12);
    let read: Vec<u64> = w
        .touches
        .iter()
        .filter_map(|t| match t {
            Touch::Load { at, bytes: 64 } if at.hpa.page() == page && at.keyid == hkid => {
                Some(at.hpa.0 - b.built_page)
            }
            _ => None,
        })
        .collect();
    assert_eq!(read, [0x300, 0x340, 0x380, 0x3C0]);
    assert_eq!(w.td(b.built).mrtd.blocks(), before + 3);
    let hash = w.m.spec().tdx.cost.hash;
    assert_eq!(w.touches.iter().filter(|t| **t == Touch::Spend(hash)).count(), 3);
}

#[test]
fn extend_measures_a_large_page_where_the_address_says() {
    let mut w = bench().w.clone();
    let td = bench().built;
    // 512 pages added in one block and merged.
    w.sept(td, 0x20_0000, 0);
    let block = w.block(2 << 20);
    for i in 0..512 {
        w.poke(IMAGE, 0, 0xABC0_0000 + i);
        w.ok(Leaf::MEM_PAGE_ADD, 0x20_0000 + (i << 12), td, block + (i << 12), IMAGE);
    }
    w.ok(Leaf::MEM_PAGE_PROMOTE, 0x20_0001, td, 0, 0);
    let mut expected = w.td(td).mrtd;
    w.ok(Leaf::MR_EXTEND, 0x20_0000 + (7 << 12), td, 0, 0);
    expected.record("MR.EXTEND", 0x20_0000 + (7 << 12));
    let mut first = [0; 128];
    first[..8].copy_from_slice(&0xABC0_0007u64.to_le_bytes());
    // The rest of the image is zero.
    expected.block(&first);
    expected.block(&[0; 128]);
    assert_eq!(w.td(td).mrtd, expected);
}
