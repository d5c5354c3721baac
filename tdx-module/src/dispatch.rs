//! The dispatcher: what is checked before any leaf, and which leaf a number is (architecture.md §7.1).

use crate::cx::{Cx, Flow, Stage, ensure};
use crate::flight::reg::{self, R8, R9, R10, R11, RCX, RDX};
use crate::leaf::{disable, mem, mng, mr, phymem, sys, vp};
use crate::sys::SysState;
use sim_core::tdx::{GuestLeaf, Leaf, LeafRow, Operand, Status};

/// Leaves that the real module has and this one answers with "not modelled": migration and service TDs, of which no
/// leaf of architecture.md §7.9 is one.
pub const NOT_MODELLED: &[Leaf] = &[
    Leaf::SERVTD_BIND,
    Leaf::SERVTD_PREBIND,
    Leaf::EXPORT_ABORT,
    Leaf::EXPORT_BLOCKW,
    Leaf::EXPORT_RESTORE,
    Leaf::EXPORT_MEM,
    Leaf::EXPORT_PAUSE,
    Leaf::EXPORT_TRACK,
    Leaf::EXPORT_STATE_IMMUTABLE,
    Leaf::EXPORT_STATE_TD,
    Leaf::EXPORT_STATE_VP,
    Leaf::EXPORT_UNBLOCKW,
    Leaf::IMPORT_ABORT,
    Leaf::IMPORT_END,
    Leaf::IMPORT_COMMIT,
    Leaf::IMPORT_MEM,
    Leaf::IMPORT_TRACK,
    Leaf::IMPORT_STATE_IMMUTABLE,
    Leaf::IMPORT_STATE_TD,
    Leaf::IMPORT_STATE_VP,
    Leaf::MIG_STREAM_CREATE,
];

/// TDCALLs that the real module has and this one answers with "not modelled": measurements at run time, metadata, CPUID,
/// service TDs and L2 VMs (architecture.md §7.11).
pub const GUEST_NOT_MODELLED: &[GuestLeaf] = &[
    GuestLeaf::MR_RTMR_EXTEND,
    GuestLeaf::MR_REPORT,
    GuestLeaf::VP_CPUIDVE_SET,
    GuestLeaf::VM_RD,
    GuestLeaf::VM_WR,
    GuestLeaf::VP_RD,
    GuestLeaf::VP_WR,
    GuestLeaf::SYS_RDALL,
    GuestLeaf::SERVTD_RD,
    GuestLeaf::SERVTD_WR,
    GuestLeaf::MR_VERIFYREPORT,
    GuestLeaf::MEM_PAGE_ATTR_WR,
    GuestLeaf::VP_ENTER,
    GuestLeaf::VP_INVEPT,
    GuestLeaf::VP_INVVPID,
];

/// Leaves that are served before the module is ready (architecture.md §7.1 step 6).
pub const BEFORE_READY: &[Leaf] = &[
    Leaf::SYS_INFO,
    Leaf::SYS_RD,
    Leaf::SYS_RDALL,
    Leaf::SYS_INIT,
    Leaf::SYS_LP_INIT,
    Leaf::SYS_CONFIG,
    Leaf::SYS_KEY_CONFIG,
    Leaf::SYS_LP_SHUTDOWN,
    Leaf::SYS_UPDATE,
    // Not of 1.5.01. It leaves the module as just loaded, and goes on after an interrupt when the module is ready no more.
    Leaf::SYS_DISABLE,
];

/// [`NOT_MODELLED`] and [`GUEST_NOT_MODELLED`] as a table of the book.
pub fn not_modelled_markdown() -> String {
    let mut out = String::from("| Leaf | Number | Meaning |\n|---|---|---|\n");
    let rows = NOT_MODELLED.iter().filter_map(|leaf| leaf.row());
    let guests = GUEST_NOT_MODELLED.iter().filter_map(|leaf| leaf.row());
    for LeafRow { number, name, meaning, .. } in rows.chain(guests) {
        out.push_str(&format!("| {name} | {number} | {meaning} |\n"));
    }
    out
}

/// Runs the next stage of a flight.
pub(crate) fn run(cx: &mut Cx<'_>) -> Stage {
    if cx.f.stage == 0 {
        checks(cx)?;
        for r in zeroed(cx.f.leaf) {
            cx.out(*r, 0);
        }
    }
    leaf(cx)
}

/// A row of [`ZEROED`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZeroedRow {
    /// Which leaf.
    pub leaf: Leaf,
    /// Registers that it sets to 0 before it checks anything, by their index in [`crate::reg`].
    pub registers: &'static [usize],
    /// Source.
    pub cite: &'static str,
}

/// The leaf's own file of the source that the sheet is made from.
const SOURCE: &str = "intel/tdx-module 1.5.01, the leaf's file";
/// Read in a later commit.
const LATER: &str = "intel/tdx-module 1666adc494db, the leaf's file";

const fn zero(leaf: Leaf, registers: &'static [usize]) -> ZeroedRow {
    let later = matches!(leaf, Leaf::SYS_RD | Leaf::MEM_RD | Leaf::MEM_WR);
    ZeroedRow { leaf, registers, cite: if later { LATER } else { SOURCE } }
}

/// Registers that a leaf sets to 0 as it begins, so that an error returns 0 there; all others keep what the caller passed
/// until the leaf writes them, and all do when the dispatcher refuses the call. The sheets give outputs of successes and of
/// error details alone.
pub const ZEROED: &[ZeroedRow] = &[
    zero(Leaf::SYS_INIT, &[RCX, RDX, R8, R9, R10]),
    zero(Leaf::SYS_LP_INIT, &[RCX, RDX, R8]),
    zero(Leaf::SYS_TDMR_INIT, &[RDX]),
    zero(Leaf::SYS_INFO, &[RDX, R9]),
    zero(Leaf::SYS_RD, &[R8]),
    zero(Leaf::MNG_INIT, &[RCX]),
    zero(Leaf::MNG_RD, &[R8]),
    zero(Leaf::MNG_WR, &[R8]),
    zero(Leaf::VP_RD, &[R8]),
    zero(Leaf::VP_WR, &[R8]),
    zero(Leaf::MEM_SEPT_ADD, &[RCX, RDX]),
    zero(Leaf::MEM_SEPT_REMOVE, &[RCX, RDX]),
    zero(Leaf::MEM_SEPT_RD, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_ADD, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_AUG, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_REMOVE, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_DEMOTE, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_PROMOTE, &[RCX, RDX]),
    zero(Leaf::MEM_PAGE_RELOCATE, &[RCX, RDX]),
    zero(Leaf::MEM_RANGE_BLOCK, &[RCX, RDX]),
    zero(Leaf::MEM_RANGE_UNBLOCK, &[RCX, RDX]),
    zero(Leaf::MEM_RD, &[RCX, RDX, R8]),
    zero(Leaf::MEM_WR, &[RCX, RDX, R8]),
    zero(Leaf::MR_EXTEND, &[RCX, RDX]),
    zero(Leaf::PHYMEM_PAGE_RDMD, &[RCX, RDX, R8, R9, R10, R11]),
    zero(Leaf::PHYMEM_PAGE_RECLAIM, &[RCX, RDX, R8, R9, R10, R11]),
];

/// The registers that a leaf sets to 0 as it begins.
pub fn zeroed(leaf: Leaf) -> &'static [usize] {
    ZEROED.iter().find(|row| row.leaf == leaf).map_or(&[], |row| row.registers)
}

/// [`ZEROED`] as a table of the book.
pub fn zeroed_markdown() -> String {
    let mut out = String::from("| Leaf | Sets to 0 as it begins | Source |\n|---|---|---|\n");
    for row in ZEROED {
        let names: Vec<&str> = row.registers.iter().map(|r| reg::NAMES[r & 7]).collect();
        out.push_str(&format!("| {} | {} | {} |\n", row.leaf, names.join(", "), row.cite));
    }
    out
}

/// Steps 3 to 6 of the dispatcher.
fn checks(cx: &Cx<'_>) -> Result<(), Status> {
    let rax = Status::OPERAND_INVALID.about(Operand::RAX);
    let (leaf, state) = (cx.f.leaf, cx.m.sys.state);
    ensure(!cx.f.reserved, rax)?;
    let highest = match leaf {
        // These tell versions above 1 from others themselves, after this check (architecture.md §7.9).
        Leaf::MEM_PAGE_PROMOTE | Leaf::MEM_SEPT_ADD | Leaf::MEM_SEPT_REMOVE => u8::MAX,
        Leaf::MNG_RD | Leaf::VP_RD => u8::MAX,
        Leaf::VP_INIT => cx.m.spec.tdx.vp_init_version,
        _ => 0,
    };
    ensure(cx.f.version <= highest, rax)?;
    let shut = state == SysState::SysShutdown;
    ensure(!shut || leaf == Leaf::SYS_LP_SHUTDOWN, Status::SYS_SHUTDOWN)?;
    let early = BEFORE_READY.contains(&leaf);
    ensure(state == SysState::SysReady || early, Status::SYS_NOT_READY)
}

fn leaf(cx: &mut Cx<'_>) -> Stage {
    match cx.f.leaf {
        Leaf::SYS_INIT => sys::init(cx),
        Leaf::SYS_LP_INIT => sys::lp_init(cx),
        Leaf::SYS_CONFIG => sys::config(cx),
        Leaf::SYS_KEY_CONFIG => sys::key_config(cx),
        Leaf::SYS_TDMR_INIT => sys::tdmr_init(cx),
        Leaf::SYS_INFO => sys::info(cx),
        Leaf::SYS_RD => sys::rd(cx),
        Leaf::SYS_RDALL => sys::rdall(cx),
        Leaf::SYS_SHUTDOWN => sys::shutdown(cx),
        Leaf::SYS_UPDATE => sys::update(cx),
        Leaf::SYS_LP_SHUTDOWN | Leaf::MNG_KEY_RECLAIMID => Ok(Flow::Done(Status::SUCCESS)),
        Leaf::SYS_DISABLE if cx.m.spec.tdx.sys_disable => disable::disable(cx),

        Leaf::MNG_CREATE => mng::create(cx),
        Leaf::MNG_KEY_CONFIG => mng::key_config(cx),
        Leaf::MNG_ADDCX => mng::addcx(cx),
        Leaf::MNG_INIT => mng::init(cx),
        Leaf::MNG_VPFLUSHDONE => mng::vpflushdone(cx),
        Leaf::MNG_KEY_FREEID => mng::key_freeid(cx),
        Leaf::MNG_RD => mng::rd(cx),
        Leaf::MNG_WR => mng::wr(cx),

        Leaf::VP_CREATE => vp::create(cx),
        Leaf::VP_ADDCX => vp::addcx(cx),
        Leaf::VP_INIT => vp::init(cx),
        Leaf::VP_ENTER => vp::enter(cx),
        Leaf::VP_FLUSH => vp::flush(cx),
        Leaf::VP_RD => vp::rd(cx),
        Leaf::VP_WR => vp::wr(cx),

        Leaf::MEM_SEPT_ADD => mem::sept_add(cx),
        Leaf::MEM_SEPT_REMOVE => mem::sept_remove(cx),
        Leaf::MEM_SEPT_RD => mem::sept_rd(cx),
        Leaf::MEM_PAGE_ADD => mem::page_add(cx),
        Leaf::MEM_PAGE_AUG => mem::page_aug(cx),
        Leaf::MEM_PAGE_REMOVE => mem::page_remove(cx),
        Leaf::MEM_PAGE_DEMOTE => mem::page_demote(cx),
        Leaf::MEM_PAGE_PROMOTE => mem::page_promote(cx),
        Leaf::MEM_PAGE_RELOCATE => mem::page_relocate(cx),
        Leaf::MEM_RANGE_BLOCK => mem::range_block(cx),
        Leaf::MEM_RANGE_UNBLOCK => mem::range_unblock(cx),
        Leaf::MEM_TRACK => mem::track(cx),
        Leaf::MEM_RD => mem::rd(cx),
        Leaf::MEM_WR => mem::wr(cx),

        Leaf::MR_EXTEND => mr::extend(cx),
        Leaf::MR_FINALIZE => mr::finalize(cx),

        Leaf::PHYMEM_CACHE_WB => phymem::cache_wb(cx),
        Leaf::PHYMEM_PAGE_RDMD => phymem::page_rdmd(cx),
        Leaf::PHYMEM_PAGE_RECLAIM => phymem::page_reclaim(cx),
        Leaf::PHYMEM_PAGE_WBINVD => phymem::page_wbinvd(cx),
        Leaf::PHYMEM_PAMT_ADD if cx.m.spec.tdx.dynamic_pamt => phymem::pamt_add(cx),
        Leaf::PHYMEM_PAMT_REMOVE if cx.m.spec.tdx.dynamic_pamt => phymem::pamt_remove(cx),

        leaf if NOT_MODELLED.contains(&leaf) => Ok(Flow::NotModelled),
        // Unknown, absent from this module's version, or TDH.MEM.SEPT.WR, which has no case.
        _ => Err(Status::OPERAND_INVALID.about(Operand::RAX)),
    }
}
