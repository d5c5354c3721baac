//! States of the module that no modelled leaf reaches (migration, a machine check in another family's hands): written
//! into its serialised form, as a saved state would bring them.

#![allow(dead_code, reason = "each test file uses a part")]

use super::World;
use serde_json::Value;
use sim_core::Page;
use tdx_module::sept::Entry;

/// Sets a field of a TD; the field must exist.
pub fn edit_td(w: &mut World, tdr: u64, field: &str, to: impl Into<Value>) {
    w.edit_td(tdr, field, to.into());
}
/// Sets an entry of a Secure-EPT page, in memory too.
pub fn edit_entry(w: &mut World, table: u64, index: u16, entry: Entry) {
    let page = Page(table >> 12);
    assert!(w.m.sept_entry(page, index).is_some());
    w.edit(&format!("sept/{}/{index}", page.0), entry.0.into());
    assert_eq!(w.m.sept_entry(page, index), Some(entry));
    let tdr = w.m.pamt(table, tdx_module::pamt::Size::Small).owner();
    let hkid = w.m.td(tdr).unwrap().hkid.0;
    w.poke(table + 8 * u64::from(index), hkid, entry.0);
}
/// Locks an entry as a TDCALL on another LP would (architecture.md §7.2 "SEPT-entry lock").
pub fn lock_entry(w: &mut World, table: u64, index: u16) {
    let entry = w.m.sept_entry(Page(table >> 12), index).unwrap();
    edit_entry(w, table, index, entry.with_locked(true));
}
