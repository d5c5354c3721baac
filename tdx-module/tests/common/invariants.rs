//! What must hold of a module that nobody is in, and of the memory below it.

#![allow(dead_code, reason = "each test file uses a part")]

use super::{GLOBAL, TDMR, World};
use sim_core::Page;
use sim_core::tdx::PageType;
use std::collections::{BTreeMap, BTreeSet};
use tdx_module::pamt::{PamtEntry, Size};
use tdx_module::sept::Entry;
use tdx_module::td::layout;

/// An entry in use: where it is and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub table: Page,
    pub index: u16,
    pub level: u8,
    pub gpa: u64,
    pub entry: Entry,
}

/// Every entry of a TD's Secure-EPT that is neither FREE nor REMOVED.
pub fn entries(w: &World, tdr: u64) -> Vec<Used> {
    let td = w.td(tdr);
    let (mut all, mut todo) = (Vec::new(), vec![(td.sept_root(), td.levels - 1, 0)]);
    while let Some((table, level, base)) = todo.pop() {
        for index in 0..512 {
            let entry = w.m.sept_entry(table, index).unwrap();
            if entry.page() == Page(0) {
                continue;
            }
            let gpa = base | u64::from(index) << (12 + 9 * u64::from(level));
            all.push(Used { table, index, level, gpa, entry });
            if !entry.is_leaf() {
                todo.push((entry.page(), level - 1, gpa));
            }
        }
    }
    all
}

/// The 4 KiB pages of the TDMR that the VMM has given away, up to a boundary of 2 MiB behind the next one.
fn given(w: &World) -> impl Iterator<Item = u64> {
    (TDMR..(w.next_page + 4096).next_multiple_of(2 << 20)).step_by(4096)
}

/// The words of Secure-EPT pages and PAMT entries in memory are the typed ones (architecture.md §7.5: under which KeyID).
pub fn mirror(w: &mut World) -> Result<(), String> {
    assert!(w.m.is_quiet());
    for table in w.m.sept_pages() {
        let tdr = w.m.pamt(table.hpa().0, Size::Small).owner();
        let Some(td) = w.m.td(tdr) else { return Err(format!("{table:?} is nobody's")) };
        let hkid = td.hkid.0;
        for index in 0..512 {
            let entry = w.m.sept_entry(table, index).unwrap();
            let word = w.peek(table.hpa().0 + 8 * u64::from(index), hkid);
            if word != entry.0 {
                return Err(format!("{table:?}[{index}]: {entry:?}, in memory {word:#x}"));
            }
        }
    }
    // What the structures of a TD say that several LPs write.
    let tds: Vec<_> = w.m.tds().map(|(tdr, td)| (tdr, td.clone())).collect();
    for (tdr, td) in tds {
        let own = td.chldcnt << 16 | u64::from(td.lifecycle.code());
        // FATAL is left out: the bench makes a TD fatal by hand.
        let mut words = vec![(layout::tdr_management(tdr), GLOBAL as u16, own, !(1 << 8))];
        if let Some(&tdcs) = td.tdcs.first() {
            let vcpus = u64::from(td.vcpus) | u64::from(td.associated) << 32;
            let inside = u64::from(td.refcount[0]) | u64::from(td.refcount[1]) << 32;
            words.push((layout::tdcs_vcpus(tdcs), td.hkid.0, vcpus, u64::MAX));
            words.push((layout::tdcs_refcounts(tdcs), td.hkid.0, inside, u64::MAX));
        }
        for (at, keyid, word, mask) in words {
            let seen = w.peek(at.0, keyid);
            if seen & mask != word {
                return Err(format!("{at:?} is {seen:#x} in memory, not {word:#x}: {td:?}"));
            }
        }
    }
    let tdmr = w.m.tdmr_of(TDMR).unwrap().clone();
    let end = (w.next_page + 4096).next_multiple_of(2 << 20);
    let large = (TDMR..end).step_by(2 << 20).map(|pa| (pa, Size::Large));
    let all = given(w).map(|pa| (pa, Size::Small)).chain(large).chain([(TDMR, Size::Huge)]);
    let all: Vec<(u64, Size)> = all.collect();
    for (pa, size) in all {
        let at = tdmr.entry_at(pa, size).unwrap().0;
        let words = [w.peek(at, GLOBAL as u16), w.peek(at + 8, GLOBAL as u16)];
        let entry: PamtEntry = tdmr.entry(pa, size);
        if words != entry.words(0) {
            return Err(format!("{size:?} {pa:#x}: {entry:x?}, in memory {words:x?}"));
        }
    }
    Ok(())
}

/// verification.md T1, T2, T7, and architecture.md §7.4 "At most one of the three levels".
pub fn ownership(w: &World) -> Result<(), String> {
    let mut mapped = BTreeSet::new();
    for (tdr, _) in w.m.tds() {
        if w.m.sept_entry(w.td(tdr.hpa().0).sept_root(), 0).is_none() {
            continue;
        }
        for used in entries(w, tdr.hpa().0) {
            let Used { level, entry, .. } = used;
            let (size, want) = match entry.is_leaf() {
                true => (Size::of_level(level).unwrap(), PageType::Reg),
                false => (Size::Small, PageType::Ept),
            };
            let pa = if entry.is_leaf() { entry.hpa_at(level).0 } else { entry.hpa().0 };
            let pamt = w.m.pamt(pa, size);
            if (pamt.page_type(), pamt.owner()) != (want, tdr) {
                return Err(format!("T1: {used:x?} is {pamt:x?}"));
            }
            for page in 0..size.pages() {
                if !mapped.insert(pa + (page << 12)) {
                    return Err(format!("T2: {used:x?} is mapped twice"));
                }
            }
        }
    }
    let mut owned: BTreeMap<Page, u64> = BTreeMap::new();
    for pa in given(w) {
        let sizes = Size::ALL.map(|size| (size, w.m.pamt(pa, size)));
        let used: Vec<_> = sizes.iter().filter(|(_, e)| e.page_type() != PageType::Nda).collect();
        if used.len() > 1 {
            return Err(format!("{pa:#x} is in use at several levels: {used:x?}"));
        }
        if let [(_, entry)] = used[..]
            && entry.page_type() != PageType::Tdr
        {
            *owned.entry(entry.owner()).or_default() += 1;
        }
    }
    for (tdr, td) in w.m.tds() {
        let pages = owned.get(&tdr).copied().unwrap_or(0);
        if td.chldcnt != pages {
            return Err(format!("T7: CHLDCNT of {tdr:?} is {}, it owns {pages}", td.chldcnt));
        }
    }
    Ok(())
}
