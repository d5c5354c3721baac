//! The table of what leaves take, lock and touch is what they do (architecture.md §7.2, §7.9, §7.11).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{GLOBAL, HOST, IMAGE, TDMR, World, spec};
use expect_test::expect_file;
use sim_core::platform::TdxCost;
use sim_core::tdx::{GUEST_LEAVES, GuestLeaf, LEAVES, Leaf, Operand, PageType, Status};
use sim_core::{Addr, KeyId, Page, Ps};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use tdx_module::lock::Mode;
use tdx_module::pamt::Size;
use tdx_module::profile::*;
use tdx_module::{
    Action, Call, GUEST_NOT_MODELLED, Module, NOT_MODELLED, Reply, Spec, Touch, VmExit,
};

const HKID: u16 = 65;
const MB2: u64 = 2 << 20;
/// A shared KeyID that a flush is asked for.
const FLUSHED: u64 = 5;

// --------------------------------------------------------------------------------------------------------- the world

const COSTS: [(Cost, Ps); 10] = [
    (Cost::Seamcall, Ps(1)),
    (Cost::Enter, Ps(2)),
    (Cost::Exit, Ps(3)),
    (Cost::Sys, Ps(4)),
    (Cost::Mng, Ps(5)),
    (Cost::Mem, Ps(6)),
    (Cost::Phymem, Ps(7)),
    (Cost::Tdcall, Ps(8)),
    (Cost::Hash, Ps(9)),
    (Cost::Invept, Ps(10)),
];

/// A platform on which every fixed cost is another number.
fn priced() -> Spec {
    let mut spec = Spec { lps: 4, ..spec() };
    let of = |cost| COSTS.iter().find(|(c, _)| *c == cost).unwrap().1;
    spec.tdx.cost = TdxCost {
        seamcall: of(Cost::Seamcall),
        enter: of(Cost::Enter),
        exit: of(Cost::Exit),
        sys: of(Cost::Sys),
        mng: of(Cost::Mng),
        mem: of(Cost::Mem),
        phymem: of(Cost::Phymem),
        tdcall: of(Cost::Tdcall),
        hash: of(Cost::Hash),
        invept: of(Cost::Invept),
    };
    spec
}

/// TDs in the states that leaves want.
#[derive(Clone)]
struct Bench {
    w: World,
    /// RUNNABLE.
    td: u64,
    vcpu: u64,
    /// Of it: associated with no LP.
    loose: u64,
    large: u64,
    merge: u64,
    /// INITIALIZED.
    built: u64,
    built_vcpu: u64,
    raw: u64,
    /// A debug TD.
    debug: u64,
    free: u64,
    block: u64,
}

/// Where things are in the running TD. In the one being built, MAPPED and FREE are the same.
mod gpa {
    pub(crate) const MAPPED: u64 = 0;
    pub(crate) const BLOCKED: u64 = 0x1000;
    pub(crate) const PENDING: u64 = 0x2000;
    pub(crate) const FREE: u64 = 0x3000;
    pub(crate) const PENDING_BLOCKED: u64 = 0x4000;
    pub(crate) const LARGE_BLOCKED: u64 = 0x20_0000;
    pub(crate) const LARGE_FREE: u64 = 0x40_0000;
    pub(crate) const LARGE_PENDING: u64 = 0x60_0000;
    pub(crate) const MERGE: u64 = 0x80_0000;
    pub(crate) const EMPTY: u64 = 0xA0_0000;
}

fn pages_of_vcpu(w: &mut World, tdr: u64) -> u64 {
    let tdvpr = w.page();
    w.ok(Leaf::VP_CREATE, tdvpr, tdr, 0, 0);
    for _ in 0..5 {
        let page = w.page();
        w.ok(Leaf::VP_ADDCX, page, tdvpr, 0, 0);
    }
    tdvpr
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let mut w = World::ready_with(priced());
    w.lines.clear();
    let built = w.initialized_td(67, 0);
    let built_vcpu = w.vcpu(built);
    let raw = pages_of_vcpu(&mut w, built);
    w.sept(built, 0, 0);
    w.sept(built, gpa::LARGE_BLOCKED, 1);
    w.add(built, gpa::MAPPED);
    w.aug(built, gpa::PENDING);
    let block = w.block(MB2);
    w.ok(Leaf::MEM_PAGE_AUG, gpa::LARGE_BLOCKED | 1, built, block, 0);
    w.sept(built, gpa::EMPTY, 0);

    let debug = w.initialized_td(68, 1);
    w.vcpu(debug);
    w.sept(debug, 0, 0);
    w.add(debug, 0);
    w.ok(Leaf::MR_FINALIZE, debug, 0, 0, 0);

    let td = w.initialized_td(u64::from(HKID), 0);
    let (vcpu, loose) = (w.vcpu(td), w.vcpu(td));
    w.ok(Leaf::VP_FLUSH, loose, 0, 0, 0);
    w.sept(td, 0, 0);
    for at in [gpa::MAPPED, gpa::BLOCKED] {
        w.add(td, at);
    }
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    w.aug(td, gpa::PENDING);
    w.aug(td, gpa::PENDING_BLOCKED);
    let mut large = 0;
    for at in [gpa::LARGE_PENDING, gpa::LARGE_BLOCKED] {
        large = w.block(MB2);
        w.ok(Leaf::MEM_PAGE_AUG, at | 1, td, large, 0);
    }
    w.sept(td, gpa::MERGE, 0);
    let merge = w.block(MB2);
    for i in 0..512 {
        w.ok(Leaf::MEM_PAGE_AUG, gpa::MERGE + (i << 12), td, merge + (i << 12), 0);
    }
    w.sept(td, gpa::EMPTY, 0);
    for at in
        [gpa::BLOCKED, gpa::PENDING_BLOCKED, gpa::LARGE_BLOCKED | 1, gpa::MERGE | 1, gpa::EMPTY | 1]
    {
        w.ok(Leaf::MEM_RANGE_BLOCK, at, td, 0, 0);
    }
    w.ok(Leaf::MEM_TRACK, td, 0, 0, 0);
    let (block, free) = (w.block(MB2), w.page());
    Bench { w, td, vcpu, loose, large, merge, built, built_vcpu, raw, debug, free, block }
});

fn bench() -> Bench {
    BENCH.clone()
}

/// What a leaf is run on, and how it ends. The first run of a leaf is the plain one.
type Runs = Vec<(World, Call)>;

fn one(leaf: Leaf, prepare: impl FnOnce(&mut Bench) -> [u64; 4]) -> (World, Call) {
    let mut b = bench();
    let [rcx, rdx, r8, r9] = prepare(&mut b);
    (b.w, Call::new(leaf, rcx, rdx, r8, r9))
}
/// The module before it is ready.
fn early(leaf: Leaf, steps: usize) -> (World, Call) {
    let mut w = World::new(priced());
    let tdmr = w.tdmr();
    let array = w.write_tdmrs(&[tdmr]);
    let all = [(Leaf::SYS_INIT, [0; 3]), (Leaf::SYS_CONFIG, [array, 1, GLOBAL])];
    let mut call = Call::default();
    for (i, (leaf, [rcx, rdx, r8])) in all.into_iter().enumerate().take(steps + 1) {
        call = Call::new(leaf, rcx, rdx, r8, 0);
        if i < steps {
            w.ok(leaf, rcx, rdx, r8, 0);
            for lp in 0..w.flights.len() {
                if leaf == Leaf::SYS_INIT {
                    w.call_on(lp, Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0));
                }
            }
        }
    }
    if call.rax != u64::from(leaf.0) {
        call = Call::new(leaf, 0, 0, 0, 0);
    }
    (w, call)
}
/// A TD that was shut down, up to `steps` of its way down.
fn down(b: &mut Bench, steps: usize) -> u64 {
    b.w.ok(Leaf::VP_FLUSH, b.built_vcpu, 0, 0, 0);
    let tdr = b.built;
    let all =
        [(Leaf::MNG_VPFLUSHDONE, tdr), (Leaf::PHYMEM_CACHE_WB, 0), (Leaf::MNG_KEY_FREEID, tdr)];
    for (leaf, rcx) in all.into_iter().take(steps) {
        b.w.ok(leaf, rcx, 0, 0, 0);
    }
    tdr
}
fn with_dynamic_pamt() -> World {
    let mut spec = priced();
    spec.tdx.dynamic_pamt = true;
    let mut w = World::ready_with(spec);
    w.lines.clear();
    w
}

#[allow(clippy::too_many_lines, reason = "one arm per leaf")]
fn runs(leaf: Leaf) -> Runs {
    let l = leaf;
    let at = |gpa: u64| one(l, |b| [gpa, b.td, 0, 0]);
    let of_built = |gpa: u64| one(l, |b| [gpa, b.built, 0, 0]);
    match leaf {
        Leaf::SYS_INIT => vec![early(l, 0)],
        Leaf::SYS_LP_INIT => {
            let mut w = World::new(priced());
            w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
            vec![(w, Call::new(l, 0, 0, 0, 0))]
        }
        Leaf::SYS_CONFIG => vec![early(l, 1)],
        Leaf::SYS_KEY_CONFIG => vec![early(l, 2)],
        Leaf::SYS_TDMR_INIT => {
            let (mut w, _) = early(l, 2);
            w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
            vec![(w, Call::new(l, TDMR, 0, 0, 0))]
        }
        Leaf::SYS_INFO => vec![one(l, |_| [HOST, 1024, HOST + 4096, 32])],
        Leaf::SYS_RD => vec![one(l, |_| [0, 0x9100_0001_0000_0008, 0, 0])],
        Leaf::SYS_RDALL => vec![one(l, |_| [0, HOST, u64::MAX, 0])],
        Leaf::SYS_SHUTDOWN => vec![one(l, |_| [0; 4])],
        Leaf::SYS_UPDATE => {
            let mut w = bench().w;
            w.ok(Leaf::SYS_SHUTDOWN, 0, 0, 0, 0);
            w.m.install().unwrap();
            w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
            for lp in 0..w.flights.len() {
                w.call_on(lp, Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0));
            }
            vec![(w, Call::new(l, 0, 0, 0, 0))]
        }
        Leaf::SYS_LP_SHUTDOWN | Leaf::MNG_KEY_RECLAIMID => vec![one(l, |_| [0; 4])],
        Leaf::SYS_DISABLE => {
            let mut spec = priced();
            spec.tdx.sys_disable = true;
            let mut w = World::new(spec);
            w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
            for lp in 0..w.flights.len() {
                w.call_on(lp, Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0));
            }
            let tdmr = w.tdmr();
            let array = w.write_tdmrs(&[tdmr]);
            w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
            let without = w.clone();
            w.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0);
            while w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0).out[1] != TDMR + (1 << 30) {}
            w.lines.clear();
            w.keyed_td(66);
            let call = Call::new(l, 0, 0, 0, 0);
            vec![(w, call), (without, call)]
        }
        Leaf::MNG_CREATE => vec![one(l, |b| [b.free, 70, 0, 0])],
        Leaf::MNG_KEY_CONFIG => vec![one(l, |b| {
            b.w.ok(Leaf::MNG_CREATE, b.free, 70, 0, 0);
            [b.free, 0, 0, 0]
        })],
        Leaf::MNG_ADDCX => (0..7)
            .map(|pages| {
                one(l, |b| {
                    let tdr = b.w.page();
                    b.w.ok(Leaf::MNG_CREATE, tdr, 70, 0, 0);
                    b.w.ok(Leaf::MNG_KEY_CONFIG, tdr, 0, 0, 0);
                    for _ in 0..pages {
                        let page = b.w.page();
                        b.w.ok(Leaf::MNG_ADDCX, page, tdr, 0, 0);
                    }
                    [b.free, tdr, 0, 0]
                })
            })
            .collect(),
        Leaf::MNG_INIT => vec![one(l, |b| {
            let tdr = b.w.keyed_td(70);
            let params = b.w.td_params(0, 4);
            [tdr, params, 0, 0]
        })],
        Leaf::MNG_VPFLUSHDONE => vec![
            one(l, |b| [down(b, 0), 0, 0, 0]),
            one(l, |b| {
                b.w.ok(Leaf::MNG_CREATE, b.free, 70, 0, 0);
                [b.free, 0, 0, 0]
            }),
        ],
        Leaf::MNG_KEY_FREEID => vec![one(l, |b| [down(b, 2), 0, 0, 0])],
        // HP_LOCK_TIMEOUT.
        Leaf::MNG_RD => vec![one(l, |b| [b.td, 0x9110_0003_0000_0011, 0, 0])],
        Leaf::MNG_WR => vec![one(l, |b| [b.td, 0x9110_0003_0000_0011, 20_000, u64::MAX])],
        Leaf::VP_CREATE => vec![one(l, |b| [b.free, b.built, 0, 0])],
        Leaf::VP_ADDCX => vec![one(l, |b| [b.free, b.raw, 0, 0])],
        Leaf::VP_INIT => vec![one(l, |b| [b.raw, 0, 0, 0])],
        Leaf::VP_ENTER => vec![
            one(l, |b| [b.vcpu, 0, 0, 0]),
            one(l, |b| {
                b.w.enter(0, b.vcpu);
                b.w.exit(0, VmExit::Interrupt);
                [b.vcpu, 0, 0, 0]
            }),
        ],
        Leaf::VP_FLUSH => vec![one(l, |b| [b.vcpu, 0, 0, 0])],
        // PEND_NMI.
        Leaf::VP_RD => vec![
            one(l, |b| [b.vcpu, 0x2020_0000_0000_000b, 0, 0]),
            one(l, |b| [b.loose, 0x2020_0000_0000_000b, 0, 0]),
        ],
        Leaf::VP_WR => vec![one(l, |b| [b.vcpu, 0x2020_0000_0000_000b, 1, 0xff])],
        Leaf::MEM_SEPT_ADD => vec![
            one(l, |b| [gpa::LARGE_FREE | 1, b.td, b.free, 0]),
            one(l, |b| [gpa::MERGE & !(MB2 - 1) & !(0x3fff_ffff) | 2, b.td | 1, b.free, 0]),
        ],
        Leaf::MEM_SEPT_REMOVE => vec![at(gpa::EMPTY | 1), of_built(gpa::EMPTY | 1)],
        Leaf::MEM_SEPT_RD => vec![at(gpa::MAPPED)],
        Leaf::MEM_PAGE_ADD => vec![one(l, |b| [gpa::FREE, b.built, b.free, IMAGE])],
        Leaf::MEM_PAGE_AUG => vec![
            one(l, |b| [gpa::FREE, b.td, b.free, 0]),
            one(l, |b| [gpa::LARGE_FREE | 1, b.td, b.block, 0]),
        ],
        Leaf::MEM_PAGE_REMOVE => vec![at(gpa::BLOCKED), of_built(gpa::MAPPED)],
        Leaf::MEM_PAGE_RELOCATE => vec![
            one(l, |b| [gpa::BLOCKED, b.td, b.free, 0]),
            one(l, |b| [gpa::PENDING_BLOCKED, b.td, b.free, 0]),
            one(l, |b| [gpa::MAPPED, b.built, b.free, 0]),
        ],
        Leaf::MEM_PAGE_DEMOTE => vec![
            one(l, |b| [gpa::LARGE_BLOCKED | 1, b.td, b.free, 0]),
            one(l, |b| [gpa::LARGE_BLOCKED | 1, b.built, b.free, 0]),
        ],
        Leaf::MEM_PAGE_PROMOTE => vec![at(gpa::MERGE | 1), {
            let (mut w, call) = at(gpa::MERGE | 1);
            let tdr = call.regs[1];
            common::edit::edit_td(&mut w, tdr, "op_state", "Initialized");
            (w, call)
        }],
        Leaf::MEM_RANGE_BLOCK => vec![at(gpa::MAPPED), at(gpa::LARGE_PENDING | 1)],
        Leaf::MEM_RANGE_UNBLOCK => vec![at(gpa::BLOCKED), {
            let (mut w, call) = of_built(gpa::MAPPED);
            w.ok(Leaf::MEM_RANGE_BLOCK, call.regs[0], call.regs[1], 0, 0);
            (w, call)
        }],
        Leaf::MEM_TRACK => vec![one(l, |b| [b.td, 0, 0, 0])],
        Leaf::MEM_RD => vec![one(l, |b| [8, b.debug, 0, 0])],
        Leaf::MEM_WR => vec![one(l, |b| [8, b.debug, 1, 0])],
        Leaf::MR_EXTEND => vec![one(l, |b| [0, b.built, 0, 0])],
        Leaf::MR_FINALIZE => vec![one(l, |b| [b.built, 0, 0, 0])],
        Leaf::PHYMEM_CACHE_WB => vec![one(l, |b| {
            down(b, 1);
            [0; 4]
        })],
        Leaf::PHYMEM_PAGE_RDMD => vec![one(l, |b| [b.td, 0, 0, 0])],
        Leaf::PHYMEM_PAGE_RECLAIM => vec![
            one(l, |b| {
                down(b, 3);
                [b.built_vcpu, 0, 0, 0]
            }),
            one(l, |b| {
                let tdr = b.w.page();
                b.w.ok(Leaf::MNG_CREATE, tdr, 70, 0, 0);
                b.w.ok(Leaf::MNG_VPFLUSHDONE, tdr, 0, 0, 0);
                b.w.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0, 0);
                b.w.ok(Leaf::MNG_KEY_FREEID, tdr, 0, 0, 0);
                [tdr, 0, 0, 0]
            }),
        ],
        Leaf::PHYMEM_PAGE_WBINVD => vec![one(l, |b| [b.free | FLUSHED << 45, 0, 0, 0])],
        Leaf::PHYMEM_PAMT_ADD => {
            let w = with_dynamic_pamt();
            let outside = Call::new(l, TDMR | 1, TDMR + MB2, TDMR + MB2 + 0x1000, 0);
            let inside = Call::new(l, TDMR | 1, TDMR, TDMR + 0x1000, 0);
            // The pages of the pair have 4K entries of their own.
            let mut paired = w.clone();
            paired.ok(Leaf::PHYMEM_PAMT_ADD, (TDMR + MB2) | 1, TDMR + MB2, TDMR + MB2 + 0x1000, 0);
            let entries = Call::new(l, TDMR | 1, TDMR + MB2 + 0x2000, TDMR + MB2 + 0x3000, 0);
            vec![(w.clone(), outside), (w, inside), (paired, entries)]
        }
        Leaf::PHYMEM_PAMT_REMOVE => {
            let mut w = with_dynamic_pamt();
            w.ok(Leaf::PHYMEM_PAMT_ADD, TDMR | 1, TDMR + MB2, TDMR + MB2 + 0x1000, 0);
            vec![(w, Call::new(l, TDMR | 1, 0, 0, 0))]
        }
        other => panic!("{other} has a profile and no run"),
    }
}

// ------------------------------------------------------------------------------------------------------ what was seen

type Seen = (Access, Place, Key);
type SeenLock = (Lockable, Mode);

/// What a call did.
#[derive(Default, Debug)]
struct Watch {
    touches: BTreeSet<Seen>,
    /// In the order in which they were first held.
    locks: Vec<SeenLock>,
    /// Of those, held while the guest ran.
    in_guest: Vec<SeenLock>,
    /// How many 1G entries were locked at once: as many as walks.
    walks: usize,
    costs: BTreeSet<Cost>,
    /// Lines of the PAMT that were stored to by locked instructions.
    pamt_locks: BTreeSet<u64>,
}

struct Watcher<'a> {
    before: &'a Module,
    call: Call,
}

impl Watcher<'_> {
    fn place(&self, after: &Module, at: Addr) -> Place {
        let (pa, page) = (at.hpa.0, at.hpa.page());
        for m in [after, self.before] {
            for tdmr in m.tdmrs() {
                for (i, (base, bytes)) in tdmr.info().pamt.iter().enumerate() {
                    if (*base..base + bytes).contains(&pa) {
                        let bitmap = i == 0 && tdmr.is_dynamic();
                        return if bitmap { Place::PamtPages } else { Place::Pamt };
                    }
                }
                if tdmr.is_marked(pa) {
                    return Place::PamtPages;
                }
            }
            for size in Size::ALL {
                let entry = m.pamt(pa, size);
                match entry.page_type() {
                    PageType::Tdr => return Place::Tdr,
                    PageType::Tdvpr => return Place::Tdvps,
                    PageType::Ept => return Place::SecureEpt,
                    PageType::Reg => return Place::Private,
                    PageType::Tdcx => {
                        let td = m.td(entry.owner()).unwrap();
                        let root = td.tdcs.get(3) == Some(&page);
                        let tdcs = td.tdcs.contains(&page);
                        return match (root, tdcs) {
                            (true, _) => Place::SecureEpt,
                            (_, true) => Place::Tdcs,
                            _ => Place::Tdvps,
                        };
                    }
                    PageType::Nda | PageType::Rsvd | PageType::Pamt => {}
                }
            }
        }
        if pa >= HOST { Place::Operand } else { Place::Free }
    }
    fn key(place: Place, keyid: KeyId) -> Key {
        match (place, keyid.0) {
            (Place::Operand | Place::Free, _) => Key::Operand,
            (_, 0) => Key::Zero,
            (_, key) if u64::from(key) == GLOBAL => Key::Global,
            _ => Key::Td,
        }
    }
    fn seen(&self, after: &Module, access: Access, at: Addr) -> Seen {
        let place = self.place(after, at);
        let key = Self::key(place, at.keyid);
        // KeyID 0 over what the module has: it gives it back.
        if access == Access::Movdir64b && at.keyid == KeyId(0) {
            return (access, Place::Everything, Key::Zero);
        }
        (access, place, key)
    }
    fn touch(&self, after: &Module, touch: Touch, into: &mut Watch) {
        let nothing = |access| (access, Place::None, Key::None);
        let seen = match touch {
            Touch::Load { at, .. } => self.seen(after, Access::Load, at),
            Touch::Store { at, locked: false, .. } => self.seen(after, Access::Store, at),
            Touch::Store { at, .. } => {
                into.pamt_locks.insert(at.hpa.0);
                self.seen(after, Access::Locked, at)
            }
            Touch::Fill { at, .. } | Touch::FillTable { at, .. } | Touch::FillSome { at, .. } => {
                self.seen(after, Access::Movdir64b, at)
            }
            Touch::Copy { from, to } => {
                into.touches.insert(self.seen(after, Access::Load, from));
                self.seen(after, Access::Movdir64b, to)
            }
            Touch::FlushPage { at } => {
                assert_eq!(u64::from(at.keyid.0), FLUSHED, "the KeyID that the operand carries");
                self.seen(after, Access::Clflushopt, at)
            }
            Touch::WriteBackBlock(_) => nothing(Access::Wbnoinvdp),
            Touch::Pconfig { .. } => nothing(Access::Pconfig),
            Touch::Random => nothing(Access::Random),
            Touch::Invept(_) => nothing(Access::Invept),
            Touch::Spend(time) => {
                into.costs.insert(COSTS.iter().find(|(_, t)| *t == time).unwrap().0);
                return;
            }
        };
        into.touches.insert(seen);
    }
    /// Whose lock it is; `None` for the shared locks above the entry that a walk is for.
    fn lock(&self, m: &Module, held: HeldLock, parent: Option<Page>) -> Option<SeenLock> {
        Some(match held {
            HeldLock::Global(mode) => (Lockable::Global, mode),
            HeldLock::Kot(mode) => (Lockable::Kot, mode),
            HeldLock::Tdmr(_) => (Lockable::Tdmr, Mode::Exclusive),
            HeldLock::CacheWb(_) => (Lockable::CacheWb, Mode::Exclusive),
            HeldLock::OpState(_, mode) => (Lockable::OpState, mode),
            HeldLock::Epoch(_, mode) => (Lockable::Epoch, mode),
            HeldLock::SeptTree(_, mode) => (Lockable::SeptTree, mode),
            HeldLock::SeptEntry(table, _) if parent == Some(table) => {
                (Lockable::SeptEntry, Mode::Exclusive)
            }
            HeldLock::SeptEntry(..) => (Lockable::SeptChildren, Mode::Exclusive),
            HeldLock::Pamt(size, pa, mode) => {
                let leaf = Leaf(self.call.rax as u16).name().unwrap();
                let operand = self.call.regs[0] & !(size.bytes() - 1) & ((1 << 45) - 1);
                // A lock outlives the change that it protects: the page was somebody's before.
                let before = self.before.pamt(pa, size).page_type();
                let found =
                    if before == PageType::Nda { m.pamt(pa, size).page_type() } else { before };
                let above = size != Size::Small
                    && mode == Mode::Shared
                    && matches!(found, PageType::Nda | PageType::Pamt);
                if above {
                    return None;
                }
                let of = match before {
                    _ if leaf.starts_with("TDH.PHYMEM") && operand == pa => Lockable::Page,
                    PageType::Tdr => Lockable::Tdr,
                    PageType::Tdvpr => Lockable::Tdvpr,
                    PageType::Reg | PageType::Ept => Lockable::Mapped,
                    _ => Lockable::Page,
                };
                (of, mode)
            }
        })
    }
}

/// Runs a call and sees what it does.
fn watch(w: &mut World, call: Call) -> Watch {
    let before = w.m.clone();
    let watcher = Watcher { before: &before, call };
    assert!(w.begin(0, &call));
    let (mut watch, mut raw) = (Watch::default(), Vec::new());
    loop {
        let action = w.run_some(0, 1);
        raw.append(&mut w.touches);
        let held: Vec<HeldLock> = w.flights[0].held().collect();
        let parent = held.iter().find_map(|held| match held {
            HeldLock::SeptEntry(table, _) => Some(*table),
            _ => None,
        });
        let locks: Vec<SeenLock> =
            held.iter().filter_map(|held| watcher.lock(&w.m, *held, parent)).collect();
        for lock in &locks {
            if !watch.locks.contains(lock) {
                watch.locks.push(*lock);
            }
        }
        let huge = |held: &&HeldLock| matches!(held, HeldLock::Pamt(Size::Huge, ..));
        watch.walks = watch.walks.max(held.iter().filter(huge).count());
        match action {
            None => {}
            Some(Action::Enter(_)) => {
                watch.in_guest = locks;
                let end = w.exit(0, VmExit::Interrupt);
                raw.append(&mut w.touches);
                assert!(matches!(end, Action::Return(_)), "{end:?}");
                break;
            }
            Some(Action::Return(answer)) => {
                let name = Leaf(call.rax as u16);
                assert!(!answer.status.is_error(), "{name}: {}", answer.status);
                break;
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    for touch in raw {
        watcher.touch(&w.m, touch, &mut watch);
    }
    watch
}

/// The rows without a condition are seen in every run; those with one in some and not in all; nothing else is.
fn compare<T: Ord + Copy + std::fmt::Debug>(what: &str, rows: &[(T, &str)], runs: &[BTreeSet<T>]) {
    for (row, when) in rows {
        let seen = runs.iter().filter(|run| run.contains(row)).count();
        if when.is_empty() {
            assert_eq!(seen, runs.len(), "{what}: {row:?} is in the table and not always seen");
        } else {
            let some = seen > 0 && seen < runs.len();
            assert!(some, "{what}: {row:?} ({when}) is seen in {seen} of {} runs", runs.len());
        }
    }
    let known: BTreeSet<T> = rows.iter().map(|(row, _)| *row).collect();
    assert_eq!(known.len(), rows.len(), "{what}: a row is there twice");
    for run in runs {
        let unknown: Vec<&T> = run.difference(&known).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?} is seen and not in the table");
    }
}

#[test]
fn every_leaf_touches_the_places_of_its_row_with_their_keyids_and_no_others() {
    for p in PROFILES {
        let watched: Vec<Watch> =
            runs(p.leaf).into_iter().map(|(mut w, call)| watch(&mut w, call)).collect();
        let rows: Vec<(Seen, &str)> =
            p.touches.iter().map(|t| ((t.access, t.place, t.key), t.when)).collect();
        let seen: Vec<BTreeSet<Seen>> = watched.iter().map(|w| w.touches.clone()).collect();
        compare(&p.leaf.to_string(), &rows, &seen);
        let costs: BTreeSet<Cost> = p.costs.iter().copied().collect();
        let spent: BTreeSet<Cost> = watched.iter().flat_map(|w| w.costs.clone()).collect();
        assert_eq!(spent, costs, "{}", p.leaf);
    }
}

#[test]
fn every_leaf_holds_the_locks_of_its_row_in_their_order_and_no_others() {
    for p in PROFILES {
        let watched: Vec<Watch> =
            runs(p.leaf).into_iter().map(|(mut w, call)| watch(&mut w, call)).collect();
        let held: Vec<&LockRow> = p.locks.iter().filter(|l| l.until != Until::Moment).collect();
        let rows: Vec<(SeenLock, &str)> = held.iter().map(|l| ((l.of, l.mode), l.when)).collect();
        let seen: Vec<BTreeSet<SeenLock>> =
            watched.iter().map(|w| w.locks.iter().copied().collect()).collect();
        compare(&p.leaf.to_string(), &rows, &seen);
        for (run, watch) in watched.iter().enumerate() {
            let order: Vec<SeenLock> =
                rows.iter().map(|(row, _)| *row).filter(|row| watch.locks.contains(row)).collect();
            assert_eq!(watch.locks, order, "{} run {run}", p.leaf);
            let present = |l: &&&LockRow| watch.locks.contains(&(l.of, l.mode));
            let guest: Vec<SeenLock> = held
                .iter()
                .filter(|l| p.leaf == Leaf::VP_ENTER && l.until == Until::End)
                .map(|l| (l.of, l.mode))
                .collect();
            assert_eq!(watch.in_guest, guest, "{} run {run}", p.leaf);
            let walks = held.iter().filter(present).filter(|l| l.walk).count();
            if p.leaf == Leaf::PHYMEM_PAMT_ADD {
                // Each page of the pair outside the block has a walk of its own.
                assert!(watch.walks >= walks, "{} run {run}", p.leaf);
            } else {
                assert_eq!(watch.walks, walks, "{} run {run}", p.leaf);
            }
        }
    }
}

/// The PAMT is split and merged within one step: the lock of the large entry is seen only by its line.
#[test]
fn demote_and_promote_lock_the_large_entry_while_they_commit() {
    let b = bench();
    for (leaf, block, gpa) in [
        (Leaf::MEM_PAGE_DEMOTE, b.large, gpa::LARGE_BLOCKED),
        (Leaf::MEM_PAGE_PROMOTE, b.merge, gpa::MERGE),
    ] {
        let row = profile(leaf).unwrap().locks.iter().filter(|l| l.until == Until::Moment).count();
        assert_eq!(row, 1, "{leaf}");
        let mut w = b.w.clone();
        let at = w.m.tdmr_of(block).unwrap().entry_at(block, Size::Large).unwrap();
        let watch = watch(&mut w, Call::new(leaf, gpa | 1, b.td, b.free, 0));
        assert!(watch.pamt_locks.contains(&at.0), "{leaf}");
    }
    let others = PROFILES.iter().filter(|p| p.locks.iter().any(|l| l.until == Until::Moment));
    assert_eq!(others.count(), 2);
}

#[test]
fn the_dispatcher_lets_the_versions_of_a_row_through_and_none_above() {
    let rax = Status::OPERAND_INVALID.about(Operand::RAX);
    for p in PROFILES {
        let (w, call) = runs(p.leaf).remove(0);
        for version in [0, p.version, p.version + 1] {
            let mut w = w.clone();
            let mut call = Call { rax: call.rax | u64::from(version) << 16, ..call };
            if version > 0 && p.leaf == Leaf::MEM_SEPT_ADD {
                call.regs[3..6].fill(u64::MAX);
            }
            assert!(w.begin(0, &call));
            let refused = match w.run(0, Reply::Done) {
                Action::Return(answer) => answer.status == rax,
                _ => false,
            };
            assert_eq!(refused, version > p.version, "{} version {version}", p.leaf);
        }
    }
}

#[test]
fn an_interrupt_does_what_the_row_says() {
    for p in PROFILES.iter().filter(|p| p.leaf != Leaf::VP_ENTER) {
        let (mut w, call) = runs(p.leaf).remove(0);
        w.irq = true;
        let status = w.call_on(0, call).status;
        let expected = match p.interrupted {
            Interrupted::Resumable => Status::INTERRUPTED_RESUMABLE,
            Interrupted::Restartable => Status::INTERRUPTED_RESTARTABLE,
            Interrupted::Waits => Status::SUCCESS,
            other => panic!("{}: {other:?} is of guests", p.leaf),
        };
        assert_eq!(status, expected, "{}", p.leaf);
        assert_eq!(p.resume.is_empty(), p.interrupted == Interrupted::Waits, "{}", p.leaf);
    }
}

// ------------------------------------------------------------------------------------------------------------ guests

/// A guest that makes one TDCALL: what that did, and how it ended.
fn watch_tdcall(b: &mut Bench, leaf: GuestLeaf, rcx: u64) -> (Watch, Action) {
    b.w.enter(0, b.vcpu);
    if leaf == GuestLeaf::VP_VEINFO_GET {
        let pending = VmExit::EptViolation { gpa: gpa::PENDING, access: 1 };
        assert!(matches!(b.w.exit(0, pending), Action::Enter(_)));
    }
    let before = b.w.m.clone();
    let call = Call::new(Leaf::VP_ENTER, b.vcpu, 0, 0, 0);
    let watcher = Watcher { before: &before, call };
    let regs = [rcx, 0, 0, 0, 0, 0, 0, 0];
    b.w.touches.clear();
    let kept: Vec<HeldLock> = b.w.flights[0].held().collect();
    let (mut watch, mut raw) = (Watch::default(), Vec::new());
    let mut action = match b.w.step(0, Reply::Exit(VmExit::Tdcall { leaf, version: 0, regs })) {
        Action::Touch(touch) => {
            raw.push(touch);
            // The first touch is done by hand: its answer is looked at by nobody.
            b.w.run_some(0, 1)
        }
        other => Some(other),
    };
    loop {
        raw.append(&mut b.w.touches);
        for held in b.w.flights[0].held().filter(|held| !kept.contains(held)) {
            let parent = match held {
                HeldLock::SeptEntry(table, _) => Some(table),
                _ => None,
            };
            let lock = watcher.lock(&b.w.m, held, parent).unwrap();
            if !watch.locks.contains(&lock) {
                watch.locks.push(lock);
            }
        }
        if let Some(action) = action {
            for touch in raw {
                watcher.touch(&b.w.m, touch, &mut watch);
            }
            return (watch, action);
        }
        action = b.w.run_some(0, 1);
    }
}

#[test]
fn every_tdcall_locks_and_touches_what_its_row_says() {
    let operand: BTreeMap<GuestLeaf, u64> = [(GuestLeaf::MEM_PAGE_ACCEPT, gpa::PENDING)].into();
    for p in GUEST_PROFILES {
        let mut b = bench();
        let rcx = operand.get(&p.leaf).copied().unwrap_or(0);
        let (watch, action) = watch_tdcall(&mut b, p.leaf, rcx);
        if p.leaf == GuestLeaf::VP_VMCALL {
            assert!(matches!(action, Action::Return(_)), "{action:?}");
        } else {
            assert!(matches!(action, Action::Enter(_)), "{}: {action:?}", p.leaf);
        }
        let name = p.leaf.to_string();
        let rows: Vec<(Seen, &str)> =
            p.touches.iter().map(|t| ((t.access, t.place, t.key), t.when)).collect();
        compare(&name, &rows, &[watch.touches]);
        let held = p.locks.iter().filter(|l| l.until != Until::Moment);
        let locks: Vec<SeenLock> = held.map(|l| (l.of, l.mode)).collect();
        assert_eq!(watch.locks, locks, "{name}");
        let costs: BTreeSet<Cost> = p.costs.iter().copied().collect();
        assert_eq!(watch.costs, costs, "{name}");
    }
}

// ---------------------------------------------------------------------------------------------------------- the table

#[test]
fn every_leaf_has_a_row_or_is_on_the_list_of_those_not_modelled_and_no_leaf_is_twice() {
    let rows: Vec<Leaf> = PROFILES.iter().map(|p| p.leaf).collect();
    let unique: BTreeSet<Leaf> = rows.iter().copied().collect();
    assert_eq!(unique.len(), rows.len());
    for row in LEAVES {
        let leaf = Leaf(row.number);
        let listed = NOT_MODELLED.contains(&leaf) || leaf == Leaf::MEM_SEPT_WR;
        assert_ne!(unique.contains(&leaf), listed, "{leaf}");
    }
    let guests: Vec<GuestLeaf> = GUEST_PROFILES.iter().map(|p| p.leaf).collect();
    let unique: BTreeSet<GuestLeaf> = guests.iter().copied().collect();
    assert_eq!(unique.len(), guests.len());
    for row in GUEST_LEAVES {
        let leaf = GuestLeaf(row.number);
        assert_ne!(unique.contains(&leaf), GUEST_NOT_MODELLED.contains(&leaf), "{leaf}");
    }
}

#[test]
fn no_leaf_of_section_7_9_is_on_the_list_of_those_not_modelled() {
    let sheet = "architecture.md §7.9";
    let of_sheet: Vec<Leaf> =
        LEAVES.iter().filter(|r| r.cite == sheet).map(|r| Leaf(r.number)).collect();
    assert!(of_sheet.len() > 40);
    for leaf in of_sheet {
        assert!(!NOT_MODELLED.contains(&leaf), "{leaf}");
        assert!(profile(leaf).is_some(), "{leaf}");
    }
    for row in GUEST_LEAVES.iter().filter(|r| r.cite == sheet) {
        let leaf = GuestLeaf(row.number);
        assert!(!GUEST_NOT_MODELLED.contains(&leaf), "{leaf}");
        assert!(guest_profile(leaf).is_some(), "{leaf}");
    }
}

/// A TD before each step: the HKID's state, and the TD's.
#[test]
fn the_steps_of_a_key_are_those_of_the_leaves_and_no_other_leaf_makes_one() {
    let kot = |w: &World, hkid: u16| w.m.kot()[usize::from(hkid)].state;
    for p in PROFILES {
        let mut steps = 0;
        for (mut w, call) in runs(p.leaf) {
            let before = w.m.clone();
            w.begin(0, &call);
            if let Action::Enter(_) = w.run(0, Reply::Done) {
                w.exit(0, VmExit::Interrupt);
            }
            if matches!(p.leaf, Leaf::SYS_DISABLE | Leaf::PHYMEM_PAGE_RECLAIM) {
                continue;
            }
            for (tdr, td) in w.m.tds() {
                let from = before.td(tdr).map(|td| td.lifecycle);
                if from == Some(td.lifecycle) {
                    continue;
                }
                steps += 1;
                let row = KEY_STEPS.iter().find(|step| step.leaf == p.leaf);
                let row = row.unwrap_or_else(|| panic!("{}: {from:?} to {}", p.leaf, td.lifecycle));
                let hkid = td.hkid.0;
                assert_eq!((before.kot()[usize::from(hkid)].state, kot(&w, hkid)), row.kot);
                assert_eq!(td.lifecycle, row.td.1, "{}", p.leaf);
                assert!(from.map_or(row.td.0.is_empty(), |from| row.td.0.contains(&from)));
            }
        }
        let expected = KEY_STEPS.iter().any(|step| step.leaf == p.leaf);
        assert_eq!(steps > 0, expected, "{}", p.leaf);
    }
}

#[test]
fn every_row_says_what_it_may() {
    let registers =
        |all: &[Register]| all.iter().all(|r| !r.name.is_empty() && !r.meaning.is_empty());
    for p in PROFILES {
        assert!(registers(p.operands) && registers(p.results), "{}", p.leaf);
        assert!(!p.cite.is_empty() && p.costs.first() == Some(&Cost::Seamcall), "{}", p.leaf);
        assert_eq!(p.version > 0, !p.versions.is_empty() && p.leaf != Leaf::VP_INIT, "{}", p.leaf);
    }
}

#[test]
fn the_table_as_the_book_prints_it() {
    expect_file!["profile.md"].assert_eq(&profiles_markdown());
}
