//! Groups T, H and E: PAMT, Secure-EPT, HKIDs and TLB epochs (verification.md §2.5 to §2.7), judged on what a module's
//! structures, the lines of memory and the TLBs say before and after a call.
//!
//! Written from architecture.md §7 and verification.md; nothing here knows how a module works.

use super::{Checker, Violation};
use crate::view::{ModuleView, PamtView, TdView};
use serde::{Deserialize, Serialize};
use sim_core::event::LineState;
use sim_core::keyid::KeyIdLayout;
use sim_core::tdx::{GuestLeaf, Leaf, PageType, Status};
use sim_core::{Hpa, KeyId, Line, Page, Tagged};
use std::collections::{BTreeMap, BTreeSet};

/// What is looked at of memory and caches.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MemoryView {
    /// Lines of DRAM. A line that is absent is not looked at.
    pub lines: BTreeMap<Line, LineState>,
    /// Every cached copy, whether of these lines or not, and whether it is dirty.
    pub copies: BTreeMap<Tagged, bool>,
    /// Lines that the host, a device or an attacker wrote since the module did: what they hold is not the module's doing.
    pub foreign: BTreeSet<Line>,
}

/// A page's lines, and the copies of them.
type PageSeen = (Vec<(Line, LineState)>, Vec<(Tagged, bool)>);

impl MemoryView {
    fn of(&self, page: Page) -> PageSeen {
        let range = page.line(0)..=page.line(63);
        let lines = self.lines.range(range).map(|(l, s)| (*l, *s)).collect();
        let copies = self.copies.iter().filter(|(at, _)| at.line().page() == page);
        (lines, copies.map(|(at, d)| (*at, *d)).collect())
    }
}

/// A moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The module's structures.
    pub module: ModuleView,
    /// Memory and caches.
    pub memory: MemoryView,
}

/// A call that returned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallSeen {
    /// On which LP.
    pub lp: u16,
    /// RAX\[15:0\].
    pub leaf: u16,
    /// The VCPU that made it, for a TDCALL; `None` for a SEAMCALL.
    pub vcpu: Option<Page>,
    /// RCX, RDX, R8, R9 and on, as given.
    pub regs: [u64; 8],
    /// RAX as returned.
    pub status: Status,
    /// RCX, RDX, R8, R9 and on, as returned.
    pub out: [u64; 6],
    /// KeyIDs that PCONFIG programmed meanwhile.
    pub keys: Vec<KeyId>,
}

/// An entry of a TD's Secure-EPT that is not FREE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeptAt {
    /// Guest-physical address of what it maps.
    pub gpa: u64,
    /// 0 for 4 KiB, 1 for 2 MiB, and so on.
    pub level: u8,
    /// The entry.
    pub entry: u64,
}

impl SeptAt {
    /// Its state (architecture.md §7.6): bit 9, bits 53 to 56, bits 6 and 7.
    pub const fn state(&self) -> u8 {
        let e = self.entry;
        (e >> 9 & 1 | (e >> 53 & 0xf) << 1 | (e >> 6 & 3) << 5) as u8
    }
    /// Whether it maps memory, and not another table.
    pub const fn is_leaf(&self) -> bool {
        self.state() & 0x60 == 0x60
    }
    /// The first page that it leads to. In a pending large leaf bits below its size are the ACCEPT counter.
    pub const fn page(&self) -> Page {
        let base = self.entry & 0x000f_ffff_ffff_f000;
        let size = if self.is_leaf() { span(self.level) } else { 4096 };
        Page((base & !(size - 1)) >> 12)
    }
}

const fn span(level: u8) -> u64 {
    4096 << (9 * level as u32)
}

/// States by their codes (architecture.md §7.6).
mod state {
    pub(super) const FREE: u8 = 0x0e;
    pub(super) const REMOVED: u8 = 0x0c;
    pub(super) const NL_MAPPED: u8 = 0x00;
    pub(super) const NL_BLOCKED: u8 = 0x08;
    pub(super) const MAPPED: u8 = 0x60;
    pub(super) const BLOCKED: u8 = 0x68;
    pub(super) const BLOCKEDW: u8 = 0x64;
    pub(super) const PENDING: u8 = 0x70;
    pub(super) const PENDING_BLOCKED: u8 = 0x78;
    pub(super) const PENDING_BLOCKEDW: u8 = 0x74;
    pub(super) const EXPORTED_DIRTY: u8 = 0x63;
    pub(super) const PENDING_EXPORTED_DIRTY: u8 = 0x73;
    /// States that need no tracking.
    pub(super) const UNTRACKED: [u8; 4] = [FREE, REMOVED, 0x66, 0x76];
}
use state::*;

/// What a leaf makes of a state (architecture.md §7.6 "Transitions"); `None` where it refuses it, `Some(None)` where it is
/// allowed and the sheet leaves the new state to other entries or to states of migration.
fn next(leaf: Leaf, from: u8) -> Option<Option<u8>> {
    let to =
        |list: &[(u8, u8)]| list.iter().find(|(state, _)| *state == from).map(|(_, to)| Some(*to));
    let unblocked =
        [(MAPPED, MAPPED), (BLOCKED, MAPPED), (PENDING, PENDING), (PENDING_BLOCKED, PENDING)];
    match leaf {
        Leaf::MEM_SEPT_ADD => to(&[(FREE, NL_MAPPED), (NL_MAPPED, NL_MAPPED)]),
        Leaf::MEM_PAGE_ADD => to(&[(FREE, MAPPED)]),
        Leaf::MEM_PAGE_AUG => to(&[(FREE, PENDING), (REMOVED, PENDING)]),
        Leaf::MEM_RANGE_BLOCK => to(&[
            (NL_MAPPED, NL_BLOCKED),
            (MAPPED, BLOCKED),
            (BLOCKEDW, BLOCKED),
            (PENDING, PENDING_BLOCKED),
            (PENDING_BLOCKEDW, PENDING_BLOCKED),
        ]),
        Leaf::MEM_RANGE_UNBLOCK => {
            to(&[(NL_BLOCKED, NL_MAPPED), (BLOCKED, MAPPED), (PENDING_BLOCKED, PENDING)])
        }
        Leaf::MEM_PAGE_REMOVE => to(&[
            (MAPPED, FREE),
            (BLOCKED, FREE),
            (BLOCKEDW, FREE),
            (PENDING, FREE),
            (PENDING_BLOCKED, FREE),
            (PENDING_BLOCKEDW, FREE),
        ]),
        Leaf::MEM_PAGE_RELOCATE => to(&unblocked).or((from & 0x60 == 0x60).then_some(None)),
        Leaf::MEM_PAGE_DEMOTE => to(&[
            (MAPPED, NL_MAPPED),
            (BLOCKED, NL_MAPPED),
            (PENDING, NL_MAPPED),
            (PENDING_BLOCKED, NL_MAPPED),
        ]),
        Leaf::MEM_PAGE_PROMOTE => matches!(from, NL_MAPPED | NL_BLOCKED).then_some(None),
        Leaf::MEM_SEPT_REMOVE => to(&[(NL_MAPPED, FREE), (NL_BLOCKED, FREE)]),
        _ => None,
    }
}

/// Leaves with a row in that table.
const SEPT_LEAVES: [Leaf; 10] = [
    Leaf::MEM_SEPT_ADD,
    Leaf::MEM_PAGE_ADD,
    Leaf::MEM_PAGE_AUG,
    Leaf::MEM_RANGE_BLOCK,
    Leaf::MEM_RANGE_UNBLOCK,
    Leaf::MEM_PAGE_REMOVE,
    Leaf::MEM_PAGE_RELOCATE,
    Leaf::MEM_PAGE_DEMOTE,
    Leaf::MEM_PAGE_PROMOTE,
    Leaf::MEM_SEPT_REMOVE,
];

/// Leaves that take something from a running TD (architecture.md §7.6, last paragraph of the transitions).
const TAKING: [Leaf; 5] = [
    Leaf::MEM_PAGE_REMOVE,
    Leaf::MEM_PAGE_RELOCATE,
    Leaf::MEM_PAGE_DEMOTE,
    Leaf::MEM_PAGE_PROMOTE,
    Leaf::MEM_SEPT_REMOVE,
];

/// OP_STATEs in which tracking is enforced (architecture.md §7.5).
const TRACKING: [u8; 3] = [2, 3, 9];

const TEARDOWN: u8 = 3;

/// Whether tracking of a page blocked in epoch `bepoch` has finished (E1; architecture.md §7.8).
pub fn tracked(td: &TdView, bepoch: u64) -> bool {
    let inside = td.refcount.get((bepoch & 1) as usize).copied().unwrap_or(0);
    let next = bepoch.saturating_add(1);
    next < td.epoch || next == td.epoch && inside == 0
}

/// Every entry of a TD's Secure-EPT that can be reached and is not FREE, tables before what is below them.
pub fn leaves(view: &ModuleView, tdr: Page) -> Vec<SeptAt> {
    let mut found = Vec::new();
    let Some(td) = view.tds.get(&tdr) else { return found };
    let Some(root) = td.tdcs.get(3) else { return found };
    let mut todo = vec![(*root, td.levels.saturating_sub(1), 0)];
    while let Some((table, level, base)) = todo.pop() {
        for ((_, index), entry) in view.sept.range((table, 0)..=(table, u16::MAX)) {
            let gpa = base + u64::from(*index) * span(level);
            let at = SeptAt { gpa, level, entry: *entry };
            if at.state() == FREE {
                continue;
            }
            found.push(at);
            if !at.is_leaf() && at.state() != REMOVED && level > 0 {
                todo.push((at.page(), level - 1, gpa));
            }
        }
    }
    found
}

/// The entry at a level that the walk of a call reaches; FREE where it is so, `None` where the walk stops before.
fn walk(view: &ModuleView, tdr: Page, gpa: u64, to: u8) -> Option<SeptAt> {
    let td = view.tds.get(&tdr)?;
    let (mut table, mut level) = (*td.tdcs.get(3)?, td.levels.checked_sub(1)?);
    loop {
        let index = ((gpa / span(level)) & 511) as u16;
        let free = u64::from(FREE >> 1) << 53;
        let entry = view.sept.get(&(table, index)).copied().unwrap_or(free);
        let at = SeptAt { gpa: gpa & !(span(level) - 1), level, entry };
        if level <= to {
            return (level == to).then_some(at);
        }
        if at.state() != NL_MAPPED || entry & 7 == 0 {
            return None;
        }
        (table, level) = (at.page(), level - 1);
    }
}

/// 4 KiB pages that the PAMT has as a TD's, beside its TDR.
fn owned(view: &ModuleView, tdr: Page) -> u64 {
    let one = |((level, _), entry): (&(u8, Page), &PamtView)| {
        let counts = !matches!(entry.page_type, PageType::Tdr | PageType::Pamt | PageType::Rsvd);
        if counts && entry.owner == tdr { span(*level) / 4096 } else { 0 }
    };
    view.pamt.iter().map(one).sum()
}

/// Whether nothing has changed but TLBs.
fn same(a: &ModuleView, b: &ModuleView) -> bool {
    let lps =
        a.lps.iter().zip(&b.lps).all(|(a, b)| {
            (a.package, a.initialized, a.inside) == (b.package, b.initialized, b.inside)
        });
    lps && a.lps.len() == b.lps.len()
        && a.sys == b.sys
        && a.kot == b.kot
        && a.tdmrs == b.tdmrs
        && a.pamt == b.pamt
        && a.tds == b.tds
        && a.vcpus == b.vcpus
        && a.tables == b.tables
        && a.sept == b.sept
}

/// One call with the moments around it.
struct Case<'a> {
    before: &'a Moment,
    call: &'a CallSeen,
    after: &'a Moment,
    keyid: &'a KeyIdLayout,
}

impl Case<'_> {
    fn ok(&self) -> bool {
        self.call.status == Status::SUCCESS
    }
    fn is(&self, status: Status) -> bool {
        self.call.status.code() == status
    }
    const fn page(&self, register: usize) -> Page {
        Page(self.call.regs[register] >> 12)
    }
    fn says(&self) -> String {
        let CallSeen { leaf, vcpu, regs, status, out, .. } = self.call;
        let name = match vcpu {
            None => Leaf(*leaf).to_string(),
            Some(_) => GuestLeaf(*leaf).to_string(),
        };
        format!("{name} {:#x?} returned {status} with {:#x?}", &regs[..4], &out[..2])
    }
}

impl Checker {
    /// Checks what holds at every moment between two calls: T1, T2, T7, T11, H4, H6, E3, E4. Empty when all hold.
    pub fn check_moment(&mut self, moment: &Moment, keyid: &KeyIdLayout) -> Vec<Violation> {
        self.mappings(&moment.module);
        self.writers(moment);
        self.hkids(moment, keyid);
        self.epochs(&moment.module);
        self.translations(&moment.module);
        self.take()
    }

    /// Checks a call that nobody else's call overlapped: T3 to T5, T7 to T10, T12, H1 to H3, H5, H8, E1, E2, E5. Empty
    /// when all hold.
    pub fn check_call(
        &mut self,
        before: &Moment,
        call: &CallSeen,
        after: &Moment,
        keyid: &KeyIdLayout,
    ) -> Vec<Violation> {
        let case = Case { before, call, after, keyid };
        self.unchanged(&case);
        self.kot(&case);
        self.programmed(&case);
        if let Some(vcpu) = call.vcpu {
            self.accepted(&case, vcpu);
        } else {
            self.contents(&case);
            self.reclaimed(&case);
            self.permission(&case);
            self.tracking(&case);
        }
        self.take()
    }

    /// T6 and H7: a guest read bytes of a page whose contents are known: `fresh` if nobody has written it since it was
    /// added or accepted, `reused` if its HKID was another TD's before. `None` when the guest got none.
    pub fn check_guest_read(
        &mut self,
        fresh: bool,
        reused: bool,
        want: &[u8],
        got: &[u8],
    ) -> Vec<Violation> {
        let what = || format!("read {got:02x?}, expected {want:02x?}");
        if fresh {
            self.claim("T6", want == got, what);
        }
        if reused {
            self.claim("H7", want == got, what);
        }
        self.take()
    }

    /// T1, T2, T7 as states.
    fn mappings(&mut self, view: &ModuleView) {
        if view.tdmrs.is_empty() {
            // A new module that has not taken over yet knows no PAMT.
            return;
        }
        let mut mapped: BTreeMap<u64, (u64, Page, u64)> = BTreeMap::new();
        for tdr in view.tds.iter().filter(|(_, td)| td.life_cycle < TEARDOWN).map(|(tdr, _)| tdr) {
            for at in leaves(view, *tdr).iter().filter(|at| at.is_leaf()) {
                let (page, bytes) = (at.page(), span(at.level));
                let pamt = view.pamt.get(&(at.level, page));
                let right = pamt.is_some_and(|p| p.page_type == PageType::Reg && p.owner == *tdr);
                self.claim("T1", right, || format!("{at:x?} of {tdr:?} leads to {pamt:?}"));
                let (start, end) = (page.hpa().0, page.hpa().0 + bytes);
                let below = mapped.range(..end).next_back().filter(|(_, (e, ..))| *e > start);
                let twice = below.map(|(_, (_, td, gpa))| format!("{td:?} {gpa:#x}"));
                self.claim("T2", twice.is_none(), || format!("{at:x?} of {tdr:?} and {twice:?}"));
                mapped.insert(start, (end, *tdr, at.gpa));
            }
        }
        for (tdr, td) in &view.tds {
            let pages = owned(view, *tdr);
            self.claim("T7", td.chldcnt == pages, || {
                format!("CHLDCNT of {tdr:?} is {}, it owns {pages}", td.chldcnt)
            });
        }
    }

    /// T11.
    fn writers(&mut self, moment: &Moment) {
        let Moment { module, memory } = moment;
        let mut claim = |lines: &mut dyn Iterator<Item = Line>, key: KeyId, what: &str| {
            for line in lines {
                let Some(state) = memory.lines.get(&line) else { continue };
                if memory.foreign.contains(&line) {
                    continue;
                }
                let right = state.writer == Some(key) && state.td;
                self.claim("T11", right, || {
                    format!("{what} {line:?}: {state:?}, expected {key:?}")
                });
            }
        };
        let Some(global) = module.sys.global_hkid else { return };
        let of = |page: &Page| (0..64).map(|i| page.line(i)).collect::<Vec<_>>().into_iter();
        for (tdr, td) in &module.tds {
            claim(&mut of(tdr), global, "TDR");
            for page in &td.tdcs {
                claim(&mut of(page), td.hkid, "TDCS");
            }
            let tables = module.tables.iter().filter(|(_, owner)| *owner == tdr);
            for (page, _) in tables {
                claim(&mut of(page), td.hkid, "Secure-EPT");
            }
        }
        for vcpu in module.vcpus.values() {
            let Some(td) = module.tds.get(&vcpu.tdr) else { continue };
            for page in &vcpu.pages {
                claim(&mut of(page), td.hkid, "TDVPS");
            }
        }
        for (level, page) in module.pamt.keys() {
            let pa = page.hpa().0;
            let tdmr = module.tdmrs.iter().find(|t| t.base <= pa && pa < t.next && !t.dynamic);
            let Some((tdmr, array)) =
                tdmr.and_then(|t| Some((t, t.pamt.get(usize::from(*level))?)))
            else {
                continue;
            };
            let entry = Hpa(array.0 + (pa - tdmr.base) / span(*level) * 16);
            claim(&mut std::iter::once(entry.line()), global, "PAMT");
        }
    }

    /// H4, H6.
    fn hkids(&mut self, moment: &Moment, keyid: &KeyIdLayout) {
        let Moment { module, memory } = moment;
        let living = module.tds.iter().filter(|(_, td)| td.life_cycle < TEARDOWN);
        let mut used: BTreeMap<KeyId, Page> = BTreeMap::new();
        for (tdr, td) in living {
            let other = used.insert(td.hkid, *tdr);
            let own = other.is_none() && Some(td.hkid) != module.sys.global_hkid;
            self.claim("H6", own, || format!("{:?} of {tdr:?} is that of {other:?}", td.hkid));
        }
        let most = u64::from(keyid.tdx_priv_kids).saturating_sub(1);
        if !used.is_empty() {
            let few = used.len() as u64 <= most;
            self.claim("H6", few, || format!("{} TDs, {most} HKIDs", used.len()));
        }
        if module.sys.global_hkid.is_none() {
            return;
        }
        // A KeyID is free from the start; what counts is that one was used and freed.
        let private = memory.copies.iter().filter(|(at, _)| keyid.is_private(at.keyid()));
        for (at, dirty) in private {
            let free = module.kot.get(&at.keyid()).is_none_or(|k| k.state == 0);
            if free {
                self.claim("H4", !dirty, || format!("{at} is dirty, its KeyID FREE"));
            }
        }
    }

    /// E4.
    fn epochs(&mut self, view: &ModuleView) {
        if view.sys.disabled {
            // Whose processor was shut down never left (architecture.md §6.3).
            return;
        }
        for (tdr, td) in &view.tds {
            if td.life_cycle != 1 || td.op_state < 2 || td.fatal {
                continue;
            }
            let mut counts = [0u32; 2];
            for at in view.lps.iter().filter_map(|lp| lp.inside) {
                let Some(vcpu) = view.vcpus.get(&at).filter(|v| v.tdr == *tdr) else { continue };
                let recent = vcpu.epoch == td.epoch || vcpu.epoch.saturating_add(1) == td.epoch;
                self.claim("E4", recent, || {
                    format!("{at:?} is of epoch {}, {tdr:?} in {}", vcpu.epoch, td.epoch)
                });
                if let Some(count) = counts.get_mut((vcpu.epoch & 1) as usize) {
                    *count += 1;
                }
            }
            self.claim("E4", counts == td.refcount, || {
                format!("{tdr:?} counts {:?}, {counts:?} are in it", td.refcount)
            });
        }
    }

    /// T10.
    fn unchanged(&mut self, c: &Case<'_>) {
        let status = c.call.status;
        // What it has done so far stays (architecture.md §7.11).
        let progress = c.is(Status::INTERRUPTED_RESUMABLE);
        if !status.is_error() || progress {
            return;
        }
        let seamcall = c.call.vcpu.is_none();
        let leaf = Leaf(c.call.leaf);
        let (mut before, after) = (c.before.module.clone(), &c.after.module);
        if seamcall && leaf == Leaf::SYS_CONFIG {
            // Reserved before the TDMRs are checked (architecture.md §7.9).
            before.kot.clone_from(&after.kot);
            before.sys.global_hkid = after.sys.global_hkid;
        }
        let associates = [Leaf::VP_ENTER, Leaf::VP_RD, Leaf::VP_WR].contains(&leaf);
        if seamcall && associates {
            // Whose VCPU has not been here before is associated first: intel/tdx-module tdh_vp_enter.c.
            before.vcpus.clone_from(&after.vcpus);
            before.tds.clone_from(&after.tds);
        }
        self.claim("T10", same(&before, after), || {
            format!("{}: {}", c.says(), difference(&before, after))
        });
    }

    /// H1, H2, H3, H8.
    fn kot(&mut self, c: &Case<'_>) {
        let (old, new) = (&c.before.module, &c.after.module);
        let leaf = match c.call.vcpu {
            None => Leaf(c.call.leaf),
            Some(_) => Leaf(u16::MAX),
        };
        // These start over, or take over what another module had.
        let anew = [Leaf::SYS_INIT, Leaf::SYS_UPDATE, Leaf::SYS_DISABLE].contains(&leaf);
        let ids: BTreeSet<KeyId> = old.kot.keys().chain(new.kot.keys()).copied().collect();
        let entry = |view: &ModuleView, id| view.kot.get(&id).copied().unwrap_or_default();
        for id in ids.into_iter().filter(|_| !anew) {
            let (from, to) = (entry(old, id).state, entry(new, id).state);
            if from == to {
                continue;
            }
            let edge = matches!(
                (from, to, leaf),
                (0, 1, Leaf::MNG_CREATE)
                    | (1, 2, Leaf::MNG_VPFLUSHDONE)
                    | (2, 0, Leaf::MNG_KEY_FREEID)
                    | (0, 3, Leaf::SYS_CONFIG)
            );
            self.claim("H1", edge, || format!("{id:?} from {from} to {to}: {}", c.says()));
        }
        let td = old.tds.get(&c.page(0));
        match (leaf, td) {
            (Leaf::MNG_KEY_FREEID, Some(td)) => {
                let left = entry(old, td.hkid).wbinvd_bitmap;
                if c.ok() {
                    self.claim("H2", left == 0, || format!("bitmap {left:#b}: {}", c.says()));
                } else if c.is(Status::WBCACHE_NOT_COMPLETE) {
                    self.claim("H2", left != 0, || format!("bitmap {left:#b}: {}", c.says()));
                }
            }
            (Leaf::MNG_VPFLUSHDONE, Some(td)) => {
                // "Configured packages" are those of the global key: all of them (architecture.md §7.5).
                let (all, set) = (old.sys.keyed, entry(new, td.hkid));
                if c.ok() {
                    let right = td.associated == 0 && set.state == 2 && set.wbinvd_bitmap == all;
                    self.claim("H3", right, || format!("{td:?}, then {set:?}: {}", c.says()));
                } else if c.is(Status::FLUSHVP_NOT_DONE) {
                    self.claim("H3", td.associated != 0, || format!("{td:?}: {}", c.says()));
                }
            }
            (Leaf::PHYMEM_CACHE_WB, _) => self.cache_wb(c),
            _ => {}
        }
    }

    /// H8.
    fn cache_wb(&mut self, c: &Case<'_>) {
        let (old, new) = (&c.before.module, &c.after.module);
        let bits = |view: &ModuleView| -> BTreeMap<KeyId, u8> {
            view.kot.iter().map(|(id, k)| (*id, k.wbinvd_bitmap)).collect()
        };
        if c.is(Status::INTERRUPTED_RESUMABLE) {
            let kept = bits(old) == bits(new);
            self.claim("H8", kept, || format!("{:?} to {:?}", bits(old), bits(new)));
            return;
        }
        let package = usize::from(old.lps.get(usize::from(c.call.lp)).map_or(0, |lp| lp.package));
        if !c.ok() {
            return;
        }
        let flushed = || old.kot.iter().filter(|(_, k)| k.state == 2).map(|(id, _)| *id).collect();
        let own = 1u8.checked_shl(package as u32).unwrap_or(0);
        let resumed = c.call.regs[0] & 1 == 1;
        let saved = old.sys.cache_wb.get(package).cloned().flatten();
        let snapshot: BTreeSet<KeyId> = saved.filter(|_| resumed).unwrap_or_else(flushed);
        let want: BTreeMap<KeyId, u8> = bits(old)
            .into_iter()
            .map(|(id, bits)| (id, if snapshot.contains(&id) { bits & !own } else { bits }))
            .collect();
        self.claim("H8", bits(new) == want, || format!("{:?}, expected {want:?}", bits(new)));
    }

    /// H5.
    fn programmed(&mut self, c: &Case<'_>) {
        let view = &c.before.module;
        let package = view.lps.get(usize::from(c.call.lp)).map_or(0, |lp| lp.package);
        let bit = 1u8.checked_shl(package.into()).unwrap_or(0);
        for key in &c.call.keys {
            let fresh = match (c.call.vcpu, Leaf(c.call.leaf)) {
                (None, Leaf::SYS_KEY_CONFIG) => {
                    view.sys.global_hkid == Some(*key) && view.sys.keyed & bit == 0
                }
                (None, Leaf::MNG_KEY_CONFIG) => view
                    .tds
                    .get(&c.page(0))
                    .is_some_and(|td| td.hkid == *key && td.keyed & bit == 0 && td.life_cycle == 0),
                _ => false,
            };
            let right = fresh && c.keyid.is_private(*key);
            self.claim("H5", right, || {
                format!("PCONFIG of {key:?} on package {package}: {}", c.says())
            });
        }
    }

    /// T3, T9 for TDG.MEM.PAGE.ACCEPT.
    fn accepted(&mut self, c: &Case<'_>, vcpu: Page) {
        let Some(tdr) = c.before.module.vcpus.get(&vcpu).map(|v| v.tdr) else { return };
        if GuestLeaf(c.call.leaf) != GuestLeaf::MEM_PAGE_ACCEPT {
            return;
        }
        let (gpa, level) = (c.call.regs[0] & !0xfff, (c.call.regs[0] & 7) as u8);
        let Some(old) = walk(&c.before.module, tdr, gpa, level) else {
            self.claim("T9", !c.ok(), || format!("no entry: {}", c.says()));
            return;
        };
        let to = match old.state() {
            PENDING => Some(MAPPED),
            PENDING_EXPORTED_DIRTY => Some(EXPORTED_DIRTY),
            _ => None,
        };
        let now = walk(&c.after.module, tdr, gpa, level);
        let right = !c.ok() || to.is_some() && now.map(|n| n.state()) == to;
        self.claim("T9", right, || format!("{old:x?} to {now:x?}: {}", c.says()));
        if let (true, Some(now)) = (c.ok(), now) {
            self.written(c, tdr, now.page(), level);
        }
    }

    /// T3 for the pages that the module has just filled.
    fn written(&mut self, c: &Case<'_>, tdr: Page, page: Page, level: u8) {
        let Some(td) = c.after.module.tds.get(&tdr) else { return };
        let memory = &c.after.memory;
        let last = Page(page.0 + span(level) / 4096 - 1);
        for (line, state) in memory.lines.range(page.line(0)..=last.line(63)) {
            let right = state.writer == Some(td.hkid) && state.td && state.poison.is_none();
            let copy = memory.copies.contains_key(&Tagged::new(*line, td.hkid));
            self.claim("T3", right && !copy, || {
                format!("{line:?}: {state:?}, cached {copy}: {}", c.says())
            });
        }
    }

    /// T3, T4, T5, T12: what becomes of a page.
    fn contents(&mut self, c: &Case<'_>) {
        let leaf = Leaf(c.call.leaf);
        if leaf == Leaf::PHYMEM_PAGE_RDMD && c.ok() {
            self.classified(c);
        }
        let untouched = |page| c.before.memory.of(page) == c.after.memory.of(page);
        // The pair of pages of a block (dynamic PAMT) is no use of its first page.
        let free = |page: Page, level| {
            let entry = c.after.module.pamt.get(&(level, page));
            entry.is_none_or(|e| e.page_type == PageType::Pamt)
        };
        let tdr = c.page(1);
        match leaf {
            Leaf::MEM_PAGE_ADD if c.ok() => self.written(c, tdr, c.page(2), 0),
            Leaf::MEM_PAGE_AUG if c.ok() => {
                let page = c.page(2);
                self.claim("T4", untouched(page), || c.says());
            }
            Leaf::MEM_PAGE_REMOVE if c.ok() => {
                let level = (c.call.regs[0] & 7) as u8;
                let Some(at) = walk(&c.before.module, tdr, c.call.regs[0] & !0xfff, level) else {
                    return;
                };
                let fine = free(at.page(), level) && untouched(at.page());
                self.claim("T5", fine, || format!("{at:x?}: {}", c.says()));
            }
            Leaf::PHYMEM_PAGE_RECLAIM if c.ok() => {
                let page = c.page(0);
                let fine = (0..3).all(|level| free(page, level)) && untouched(page);
                self.claim("T5", fine, || c.says());
            }
            _ => {}
        }
    }

    /// E3: a VCPU in its TD knows no page that the TD does not have any more. What the TLB of a processor holds that is not
    /// in the TD is flushed at the next entry, before it can be used (architecture.md §7.8 "VP.ENTER").
    fn translations(&mut self, view: &ModuleView) {
        for (lp, seen) in view.lps.iter().enumerate() {
            let Some(vcpu) = seen.inside.and_then(|page| view.vcpus.get(&page)) else { continue };
            for (tdr, linear, page) in seen.tlb.iter().filter(|(td, ..)| *td == vcpu.tdr) {
                let at = |level: u8| (level, Page(page.0 & !(span(level) / 4096 - 1)));
                let entry = (0..3).find_map(|level| {
                    view.pamt.get(&at(level)).filter(|e| e.page_type == PageType::Reg)
                });
                let has = entry.is_some_and(|e| e.owner == *tdr);
                self.claim("E3", has, || {
                    format!("LP {lp} in {tdr:?} takes {linear:#x} to {page:?}, which is {entry:?}")
                });
            }
        }
    }

    /// T12: `paddr_is_tdx_private` of Linux, from what RDMD returned and from what the PAMT says.
    fn classified(&mut self, c: &Case<'_>) {
        let page = c.page(0);
        let pa = page.hpa().0;
        let view = &c.after.module;
        let entry = (0..3)
            .find_map(|level| view.pamt.get(&(level, Page(pa / span(level) * span(level) / 4096))));
        let reserved = view.tdmrs.iter().any(|t| {
            t.reserved.iter().any(|(at, size)| (t.base + at..t.base + at + size).contains(&pa))
        });
        let pamt = view.tdmrs.iter().any(|t| t.pamt.iter().any(|(b, s)| (*b..b + s).contains(&pa)));
        let said = match PageType::from_code(c.call.out[0]) {
            Some(PageType::Nda) => false,
            Some(PageType::Rsvd) => pamt,
            _ => true,
        };
        let is = entry.is_some() || reserved && pamt;
        self.claim("T12", said == is, || format!("{entry:?}: {}", c.says()));
    }

    /// T7, T8: RECLAIM.
    fn reclaimed(&mut self, c: &Case<'_>) {
        if Leaf(c.call.leaf) != Leaf::PHYMEM_PAGE_RECLAIM {
            return;
        }
        let view = &c.before.module;
        let address = c.call.regs[0];
        if address >> c.keyid.address_bits() != 0 {
            self.claim("T8", c.is(Status::OPERAND_INVALID), || c.says());
            return;
        }
        let page = c.page(0);
        let entry = (0..3).find_map(|level| view.pamt.get(&(level, page)));
        let owner = entry.map(|e| if e.page_type == PageType::Tdr { page } else { e.owner });
        let td = owner.and_then(|tdr| view.tds.get(&tdr));
        if c.ok() {
            let dead = td.is_some_and(|td| td.life_cycle == TEARDOWN);
            self.claim("T8", dead, || format!("{entry:?} of {td:?}: {}", c.says()));
        } else if c.is(Status::PAGE_METADATA_INCORRECT) {
            let nobodys = entry
                .is_none_or(|e| e.page_type == PageType::Rsvd || e.page_type == PageType::Pamt);
            self.claim("T8", nobodys, || format!("{entry:?}: {}", c.says()));
        } else if c.is(Status::LIFECYCLE_STATE_INCORRECT) {
            let alive = td.is_some_and(|td| td.life_cycle != TEARDOWN);
            self.claim("T8", alive, || format!("{entry:?} of {td:?}: {}", c.says()));
        }
        if entry.is_some_and(|e| e.page_type == PageType::Tdr) {
            let pages = owned(view, page);
            if c.ok() {
                self.claim("T7", pages == 0, || format!("it owns {pages}: {}", c.says()));
            } else if c.is(Status::TD_ASSOCIATED_PAGES_EXIST) {
                self.claim("T7", pages != 0, || c.says());
            }
        }
    }

    /// T9.
    fn permission(&mut self, c: &Case<'_>) {
        let leaf = Leaf(c.call.leaf);
        if !SEPT_LEAVES.contains(&leaf) {
            return;
        }
        let four_k = [Leaf::MEM_PAGE_ADD, Leaf::MEM_PAGE_RELOCATE].contains(&leaf);
        let level = if four_k { 0 } else { (c.call.regs[0] & 7) as u8 };
        let (gpa, tdr) = (c.call.regs[0] & !0xfff, c.page(1));
        let Some(old) = walk(&c.before.module, tdr, gpa, level) else {
            self.claim("T9", !c.ok(), || format!("no entry: {}", c.says()));
            return;
        };
        let allowed = next(leaf, old.state());
        if c.ok() {
            let now = walk(&c.after.module, tdr, gpa, level).map(|n| n.state());
            let right = allowed.is_some_and(|to| to.is_none() || now == to);
            self.claim("T9", right, || format!("{old:x?} to {now:x?}: {}", c.says()));
        } else if c.is(Status::EPT_ENTRY_STATE_INCORRECT) {
            // SEPT.ADD refuses a table that is there, unless it is told to allow it.
            let there = leaf == Leaf::MEM_SEPT_ADD && old.state() == NL_MAPPED;
            self.claim("T9", allowed.is_none() || there, || format!("{old:x?}: {}", c.says()));
        } else if allowed.is_none() {
            self.claim("T9", true, String::new);
        }
    }

    /// E1, E2, E5.
    fn tracking(&mut self, c: &Case<'_>) {
        let leaf = Leaf(c.call.leaf);
        let (old, new) = (&c.before.module, &c.after.module);
        if leaf == Leaf::MEM_TRACK {
            let tdr = c.page(0);
            let (Some(was), Some(is)) = (old.tds.get(&tdr), new.tds.get(&tdr)) else { return };
            let last = was.refcount.get(((was.epoch & 1) ^ 1) as usize).copied().unwrap_or(0);
            if c.ok() {
                let right = last == 0 && is.epoch == was.epoch.saturating_add(1);
                self.claim("E2", right, || format!("{was:?} to {is:?}"));
            } else if c.is(Status::PREVIOUS_TLB_EPOCH_BUSY) {
                let right = last != 0 && is.epoch == was.epoch;
                self.claim("E2", right, || format!("{was:?} to {is:?}"));
            }
            return;
        }
        let taking = TAKING.contains(&leaf);
        if !taking && leaf != Leaf::MEM_RANGE_UNBLOCK {
            return;
        }
        let level = if leaf == Leaf::MEM_PAGE_RELOCATE { 0 } else { (c.call.regs[0] & 7) as u8 };
        let tdr = c.page(1);
        let Some(td) = old.tds.get(&tdr).filter(|td| TRACKING.contains(&td.op_state)) else {
            return;
        };
        let Some(at) = walk(old, tdr, c.call.regs[0] & !0xfff, level) else { return };
        if UNTRACKED.contains(&at.state()) {
            return;
        }
        let key = (if at.is_leaf() { level } else { 0 }, at.page());
        let Some(pamt) = old.pamt.get(&key) else { return };
        let done = tracked(td, pamt.bepoch);
        let blocked = matches!(at.state(), NL_BLOCKED | BLOCKED | PENDING_BLOCKED);
        if blocked && c.ok() {
            self.claim("E1", done, || format!("{at:x?}, {pamt:?}, {td:?}: {}", c.says()));
        } else if blocked && c.is(Status::TLB_TRACKING_NOT_DONE) {
            self.claim("E1", !done, || format!("{at:x?}, {pamt:?}, {td:?}: {}", c.says()));
        }
        if taking && !(blocked && done) {
            let refused = !c.ok() && same(old, new);
            self.claim("E5", refused, || format!("{at:x?}, {pamt:?}, {td:?}: {}", c.says()));
        }
    }
}

/// The part of two views that differs, by name.
fn difference(a: &ModuleView, b: &ModuleView) -> String {
    let parts = [
        ("sys", a.sys == b.sys),
        ("kot", a.kot == b.kot),
        ("tdmrs", a.tdmrs == b.tdmrs),
        ("pamt", a.pamt == b.pamt),
        ("tds", a.tds == b.tds),
        ("vcpus", a.vcpus == b.vcpus),
        ("tables", a.tables == b.tables),
        ("sept", a.sept == b.sept),
    ];
    let named: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    format!("changed {}", if named.is_empty() { "lps".to_owned() } else { named.join(", ") })
}
