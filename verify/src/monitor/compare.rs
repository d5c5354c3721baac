//! Compares a view with the one that the sheet has, field by field.

use super::Complaint;
use crate::view::{KotView, ModuleView, TdView};
use sim_core::Page;
use sim_core::tdx::PageType;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Complaints of one comparison; more would only repeat.
const MOST: usize = 16;
/// TD life cycle TEARDOWN.
const TEARDOWN: u8 = 3;

/// The view without what means nothing ([`crate::view`]): an absent KOT entry is the same as a FREE one, fields of a TD before
/// TDH.MNG.INIT, structures under a key that is gone, BEPOCH of control pages, the owner of a TDR.
fn meaning(view: &ModuleView) -> ModuleView {
    let mut view = view.clone();
    view.kot.retain(|_, kot| *kot != KotView::default());
    let dead: BTreeSet<Page> =
        view.tds.iter().filter(|(_, td)| td.life_cycle == TEARDOWN).map(|(tdr, _)| *tdr).collect();
    let roots: BTreeSet<Page> =
        view.tds.values().filter_map(|td| td.tdcs.get(3)).copied().collect();
    for td in view.tds.values_mut() {
        if td.life_cycle == TEARDOWN {
            *td = TdView { chldcnt: td.chldcnt, fatal: td.fatal, ..gone(td) };
        } else if td.op_state == 0 {
            (td.attributes, td.gpaw, td.levels, td.l2_vms, td.max_vcpus) = (0, 0, 0, 0, 0);
            (td.epoch, td.refcount) = (0, [0; 2]);
        }
    }
    let live: BTreeSet<Page> = view.tds.keys().copied().filter(|tdr| !dead.contains(tdr)).collect();
    view.vcpus.retain(|_, vcpu| live.contains(&vcpu.tdr));
    // A root is a TDCS page; whether it is listed with the Secure-EPT pages does not matter.
    view.tables.retain(|page, tdr| live.contains(tdr) && !roots.contains(page));
    let live_roots: BTreeSet<Page> = view
        .tds
        .iter()
        .filter(|(tdr, _)| live.contains(tdr))
        .filter_map(|(_, td)| td.tdcs.get(3))
        .copied()
        .collect();
    let tables = &view.tables;
    let is_live = |page: &Page| tables.contains_key(page) || live_roots.contains(page);
    view.sept.retain(|(page, _), _| is_live(page));
    view.kept.retain(|(page, _)| is_live(page));
    for ((_, page), entry) in &mut view.pamt {
        if !matches!(entry.page_type, PageType::Reg | PageType::Ept) {
            entry.bepoch = 0;
        }
        if matches!(entry.page_type, PageType::Tdr | PageType::Pamt) {
            entry.owner = *page;
        }
    }
    for saved in &mut view.sys.cache_wb {
        if saved.as_ref().is_some_and(BTreeSet::is_empty) {
            *saved = None;
        }
    }
    while view.sys.cache_wb.last().is_some_and(Option::is_none) {
        view.sys.cache_wb.pop();
    }
    view
}

/// A TD in TEARDOWN: of its TDR only life cycle, CHLDCNT and FATAL still matter.
fn gone(td: &TdView) -> TdView {
    TdView {
        hkid: td.hkid,
        life_cycle: TEARDOWN,
        fatal: false,
        keyed: td.keyed,
        chldcnt: 0,
        tdcs: Vec::new(),
        op_state: 0,
        epoch: 0,
        refcount: [0; 2],
        attributes: 0,
        gpaw: 0,
        levels: 0,
        l2_vms: 0,
        max_vcpus: 0,
        vcpus: 0,
        associated: 0,
    }
}

struct Differ<'a> {
    cite: &'a str,
    into: &'a mut Vec<Complaint>,
}

impl Differ<'_> {
    fn field<T: PartialEq + Debug>(&mut self, what: &str, want: &T, found: &T) {
        if want != found && self.into.len() < MOST {
            self.into.push(Complaint {
                what: what.to_owned(),
                expected: format!("{want:x?}"),
                found: format!("{found:x?}"),
                cite: self.cite.to_owned(),
            });
        }
    }
    fn map<K: Ord + Debug, V: PartialEq + Debug>(
        &mut self,
        what: &str,
        want: &BTreeMap<K, V>,
        found: &BTreeMap<K, V>,
    ) {
        for (key, value) in want {
            self.field(&format!("{what}[{key:x?}]"), &Some(value), &found.get(key));
        }
        for (key, value) in found {
            if !want.contains_key(key) {
                self.field(&format!("{what}[{key:x?}]"), &None, &Some(value));
            }
        }
    }
}

/// Adds what differs. Translations may leave a TLB and priority bits may be cleared at any time, so of those only what is too much
/// counts; priority bits are compared only when no other call was in flight.
pub(super) fn views(
    want: &ModuleView,
    found: &ModuleView,
    alone: bool,
    cite: &str,
    into: &mut Vec<Complaint>,
) {
    if want == found {
        return;
    }
    let (want, found) = (meaning(want), meaning(found));
    let mut differ = Differ { cite, into };
    differ.field("sys", &want.sys, &found.sys);
    differ.map("kot", &want.kot, &found.kot);
    differ.field("tdmrs", &want.tdmrs, &found.tdmrs);
    differ.map("pamt", &want.pamt, &found.pamt);
    differ.map("tds", &want.tds, &found.tds);
    differ.map("vcpus", &want.vcpus, &found.vcpus);
    differ.map("tables", &want.tables, &found.tables);
    differ.map("sept", &want.sept, &found.sept);
    if alone {
        let more: BTreeSet<_> = found.kept.difference(&want.kept).collect();
        differ.field("kept", &BTreeSet::new(), &more);
    }
    differ.field("number of LPs", &want.lps.len(), &found.lps.len());
    for (lp, (want, found)) in want.lps.iter().zip(&found.lps).enumerate() {
        differ.field(&format!("lps[{lp}].package"), &want.package, &found.package);
        differ.field(&format!("lps[{lp}].initialized"), &want.initialized, &found.initialized);
        differ.field(&format!("lps[{lp}].inside"), &want.inside, &found.inside);
        let more: BTreeSet<_> = found.tlb.difference(&want.tlb).collect();
        differ.field(&format!("lps[{lp}].tlb"), &BTreeSet::new(), &more);
    }
}
