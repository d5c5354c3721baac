//! What the module tells of its structures as they change is what they say afterwards.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::World;
use expect_test::expect;
use sim_core::Page;
use sim_core::event::EventKind;
use sim_core::tdx::{Leaf, PageType};
use std::collections::BTreeMap;
use std::fmt::Write;
use tdx_module::pamt::Size;
use tdx_module::sept::Entry;

/// What is known from events alone.
#[derive(Default)]
struct Told {
    /// Events read.
    read: usize,
    pamt: BTreeMap<(u8, Page), (PageType, Page)>,
    kot: BTreeMap<u16, u8>,
    sept: BTreeMap<(Page, u16), u64>,
    text: String,
}

/// A Secure-EPT entry but for its lock, which no event tells of.
fn plain(word: u64) -> Entry {
    Entry(word).with_locked(false).with_host_priority(false)
}

impl Told {
    /// Reads what came since the last time; everything told must follow from what was told before.
    fn read(&mut self, w: &World, leaf: Leaf) {
        for event in &w.trace.events()[self.read..] {
            match event.kind {
                EventKind::Pamt { page, level, before, after, owner } => {
                    let old = match self.pamt.remove(&(level, page)) {
                        Some((page_type, _)) => page_type,
                        None => PageType::Nda,
                    };
                    assert_eq!(before, old, "{leaf}");
                    if after != PageType::Nda {
                        self.pamt.insert((level, page), (after, owner));
                    }
                    // The 512 below change with it.
                    if leaf == Leaf::MEM_PAGE_DEMOTE && level == 1 {
                        let below =
                            (0..512).map(|i| ((0, Page(page.0 + i)), (PageType::Reg, owner)));
                        self.pamt.extend(below);
                    }
                    writeln!(self.text, "{leaf}: pamt level {level} {before:?} to {after:?}")
                        .unwrap();
                }
                EventKind::Kot { keyid, before, after } => {
                    assert_eq!(before, self.kot.insert(keyid.0, after).unwrap_or(0), "{leaf}");
                    writeln!(self.text, "{leaf}: kot {before} to {after}").unwrap();
                }
                EventKind::Sept { table, index, before, after, .. } => {
                    let old = self.sept.insert((table, index), after);
                    assert!(
                        old.is_none_or(|old| plain(old) == plain(before)),
                        "{leaf}: {old:x?}, {before:x}"
                    );
                    writeln!(self.text, "{leaf}: sept entry {index}").unwrap();
                }
                _ => {}
            }
        }
        self.read = w.trace.events().len();
        self.is_what_the_module_says(w, leaf);
    }

    fn is_what_the_module_says(&self, w: &World, leaf: Leaf) {
        let mut pamt = BTreeMap::new();
        for (size, page, entry) in w.m.tdmrs().iter().flat_map(|t| t.in_use()) {
            let level = if size == Size::Small { 0 } else { 1 };
            pamt.insert((level, page), (entry.page_type(), entry.owner()));
        }
        assert!(pamt == self.pamt, "{leaf}: {:x?} told, {pamt:x?}", self.pamt);
        for (hkid, state) in &self.kot {
            assert_eq!(w.m.kot()[usize::from(*hkid)].state as u8, *state, "{leaf}");
        }
        for ((table, index), told) in &self.sept {
            let entry = w.m.sept_entry(*table, *index);
            assert!(entry.is_none_or(|e| plain(e.0) == plain(*told)), "{leaf}: {entry:x?}");
        }
    }
}

#[test]
fn the_events_of_a_td_s_life_say_all_that_its_pamt_keys_and_secure_ept_say() {
    let mut w = World::ready();
    w.trace.set_on(true);
    let mut told = Told::default();
    let td = w.initialized_td(65, 0);
    told.read(&w, Leaf::MNG_INIT);
    let vcpu = w.vcpu(td);
    told.read(&w, Leaf::VP_INIT);
    w.sept(td, 0, 0);
    told.read(&w, Leaf::MEM_SEPT_ADD);
    w.add(td, 0);
    told.read(&w, Leaf::MEM_PAGE_ADD);
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    let (large, table) = (w.block(2 << 20), w.page());
    let (at, child) = (2 << 20 | 1, (2 << 20) + 0x3000);
    for (leaf, rcx, r8) in [
        (Leaf::MEM_PAGE_AUG, at, large),
        (Leaf::MEM_RANGE_BLOCK, at, 0),
        (Leaf::MEM_TRACK, td, 0),
        (Leaf::MEM_PAGE_DEMOTE, at, table),
        (Leaf::MEM_RANGE_BLOCK, child, 0),
        (Leaf::MEM_TRACK, td, 0),
        (Leaf::MEM_PAGE_REMOVE, child, 0),
        (Leaf::VP_FLUSH, vcpu, 0),
        (Leaf::MNG_VPFLUSHDONE, td, 0),
        (Leaf::PHYMEM_CACHE_WB, 0, 0),
        (Leaf::MNG_KEY_FREEID, td, 0),
    ] {
        let rdx = if [at, child].contains(&rcx) { td } else { 0 };
        w.ok(leaf, rcx, rdx, r8, 0);
        told.read(&w, leaf);
    }
    // The TDR last: it counts the others.
    let pages: Vec<u64> = told.pamt.keys().map(|(_, page)| page.hpa().0).collect();
    for page in pages.into_iter().filter(|page| *page != td).chain([td]) {
        w.ok(Leaf::PHYMEM_PAGE_RECLAIM, page, 0, 0, 0);
        told.read(&w, Leaf::PHYMEM_PAGE_RECLAIM);
    }
    assert!(told.pamt.is_empty());
    // Those of one leaf and kind together.
    let mut lines: Vec<(&str, u32)> = Vec::new();
    for line in told.text.lines() {
        match lines.last_mut() {
            Some((last, n)) if *last == line => *n += 1,
            _ => lines.push((line, 1)),
        }
    }
    let text: String = lines.iter().map(|(line, n)| format!("{n} x {line}\n")).collect();
    expect![[r#"
        1 x TDH.MNG.INIT: kot 0 to 1
        1 x TDH.MNG.INIT: pamt level 0 Nda to Tdr
        6 x TDH.MNG.INIT: pamt level 0 Nda to Tdcx
        1 x TDH.VP.INIT: pamt level 0 Nda to Tdvpr
        5 x TDH.VP.INIT: pamt level 0 Nda to Tdcx
        1 x TDH.MEM.SEPT.ADD: pamt level 0 Nda to Ept
        1 x TDH.MEM.SEPT.ADD: sept entry 0
        1 x TDH.MEM.SEPT.ADD: pamt level 0 Nda to Ept
        1 x TDH.MEM.SEPT.ADD: sept entry 0
        1 x TDH.MEM.SEPT.ADD: pamt level 0 Nda to Ept
        1 x TDH.MEM.SEPT.ADD: sept entry 0
        1 x TDH.MEM.PAGE.ADD: sept entry 0
        1 x TDH.MEM.PAGE.ADD: pamt level 0 Nda to Reg
        1 x TDH.MEM.PAGE.AUG: sept entry 1
        1 x TDH.MEM.PAGE.AUG: pamt level 1 Nda to Reg
        1 x TDH.MEM.RANGE.BLOCK: sept entry 1
        1 x TDH.MEM.PAGE.DEMOTE: pamt level 1 Reg to Nda
        1 x TDH.MEM.PAGE.DEMOTE: sept entry 1
        1 x TDH.MEM.PAGE.DEMOTE: pamt level 0 Nda to Ept
        1 x TDH.MEM.RANGE.BLOCK: sept entry 3
        1 x TDH.MEM.PAGE.REMOVE: sept entry 3
        1 x TDH.MEM.PAGE.REMOVE: pamt level 0 Reg to Nda
        1 x TDH.MNG.VPFLUSHDONE: kot 1 to 2
        1 x TDH.MNG.KEY.FREEID: kot 2 to 0
        6 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Tdcx to Nda
        1 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Tdvpr to Nda
        5 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Tdcx to Nda
        3 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Ept to Nda
        512 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Reg to Nda
        1 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Ept to Nda
        1 x TDH.PHYMEM.PAGE.RECLAIM: pamt level 0 Tdr to Nda
    "#]]
    .assert_eq(&text);
}
