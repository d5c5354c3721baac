//! Calls into the TDX module as a kernel trace has them: `tdh_mem_page_aug(rcx=0x200001, …) = 0x8000020000000001 …`.

use super::{CallReport, RegisterReport};
use crate::format::NamedArea;
use sim_core::op::{CallRegs, Op};
use sim_core::outcome::{CallResult, Outcome};
use sim_core::tdx::{GUEST_LEAVES, GuestLeaf, LEAVES, Leaf, LeafRow};
use sim_core::{Addr, PlatformSpec};

/// What a register of a call holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// A physical address, which the low 12 bits may add a level or flags to, with the HKID in its upper bits where the leaf
    /// takes one.
    Page,
    /// A guest-physical address and a level.
    Gpa,
    /// Anything else.
    Number,
}

/// Which registers a leaf takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallForm {
    /// TDCALL, not SEAMCALL.
    pub guest: bool,
    /// Its number.
    pub leaf: u16,
    /// The registers that it takes, by their index in [`CallRegs::NAMES`], in order.
    pub takes: &'static [(u8, Holds)],
    /// The registers that hold physical addresses after it, by their index in [`CallResult::NAMES`], if it succeeds.
    pub gives_pages: &'static [u8],
    /// Source.
    pub cite: &'static str,
}

use Holds::{Gpa, Number, Page};

const RCX: u8 = 0;
const RDX: u8 = 1;
const R8: u8 = 2;
const R9: u8 = 3;
const R10: u8 = 4;
const R11: u8 = 5;
const R12: u8 = 6;
const R13: u8 = 7;

const D: &str = "architecture.md §7.9";
const L: &str = "linux-host-paths.md §2.1";
/// The registers are those of intel/tdx-module 1.5.01; the sheet gives none.
const M: &str = "architecture.md §7.11, intel/tdx-module 1.5.01";

const fn h(
    leaf: Leaf,
    takes: &'static [(u8, Holds)],
    gives_pages: &'static [u8],
    cite: &'static str,
) -> CallForm {
    CallForm { guest: false, leaf: leaf.0, takes, gives_pages, cite }
}
const fn g(leaf: GuestLeaf, takes: &'static [(u8, Holds)], cite: &'static str) -> CallForm {
    CallForm { guest: true, leaf: leaf.0, takes, gives_pages: &[], cite }
}

/// The leaves whose registers are known. Of others every register that is not zero is shown.
#[rustfmt::skip]
pub const CALL_FORMS: &[CallForm] = &[
    h(Leaf::VP_ENTER,            &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MNG_ADDCX,           &[(RCX, Page), (RDX, Page)],                           &[],         D),
    h(Leaf::MEM_PAGE_ADD,        &[(RCX, Gpa), (RDX, Page), (R8, Page), (R9, Page)],    &[],         D),
    h(Leaf::MEM_SEPT_ADD,        &[(RCX, Gpa), (RDX, Page), (R8, Page), (R9, Page), (R10, Page), (R11, Page)], &[], D),
    h(Leaf::VP_ADDCX,            &[(RCX, Page), (RDX, Page)],                           &[],         D),
    h(Leaf::MEM_PAGE_RELOCATE,   &[(RCX, Gpa), (RDX, Page), (R8, Page)],                &[RCX],      D),
    h(Leaf::MEM_PAGE_AUG,        &[(RCX, Gpa), (RDX, Page), (R8, Page)],                &[],         D),
    h(Leaf::MEM_RANGE_BLOCK,     &[(RCX, Gpa), (RDX, Page)],                            &[],         D),
    h(Leaf::MNG_KEY_CONFIG,      &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MNG_CREATE,          &[(RCX, Page), (RDX, Number)],                         &[],         D),
    h(Leaf::VP_CREATE,           &[(RCX, Page), (RDX, Page)],                           &[],         D),
    h(Leaf::MNG_RD,              &[(RCX, Page), (RDX, Number)],                         &[],         M),
    h(Leaf::MEM_RD,              &[(RCX, Gpa), (RDX, Page)],                            &[],         D),
    h(Leaf::MNG_WR,              &[(RCX, Page), (RDX, Number), (R8, Number), (R9, Number)], &[],     M),
    h(Leaf::MEM_WR,              &[(RCX, Gpa), (RDX, Page), (R8, Number)],              &[],         D),
    h(Leaf::MEM_PAGE_DEMOTE,     &[(RCX, Gpa), (RDX, Page), (R8, Page), (R9, Page), (R10, Page), (R11, Page)], &[], D),
    h(Leaf::MR_EXTEND,           &[(RCX, Gpa), (RDX, Page)],                            &[],         D),
    h(Leaf::MR_FINALIZE,         &[(RCX, Page)],                                        &[],         D),
    h(Leaf::VP_FLUSH,            &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MNG_VPFLUSHDONE,     &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MNG_KEY_FREEID,      &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MNG_INIT,            &[(RCX, Page), (RDX, Page)],                           &[],         D),
    h(Leaf::VP_INIT,             &[(RCX, Page), (RDX, Number), (R8, Number)],           &[],         L),
    h(Leaf::MEM_PAGE_PROMOTE,    &[(RCX, Gpa), (RDX, Page)],                            &[RCX],      D),
    h(Leaf::PHYMEM_PAGE_RDMD,    &[(RCX, Page)],                                        &[RDX],      D),
    h(Leaf::MEM_SEPT_RD,         &[(RCX, Gpa), (RDX, Page)],                            &[],         D),
    h(Leaf::VP_RD,               &[(RCX, Page), (RDX, Number)],                         &[],         M),
    h(Leaf::MNG_KEY_RECLAIMID,   &[(RCX, Page)],                                        &[],         D),
    h(Leaf::PHYMEM_PAGE_RECLAIM, &[(RCX, Page)],                                        &[RDX],      D),
    h(Leaf::MEM_PAGE_REMOVE,     &[(RCX, Gpa), (RDX, Page)],                            &[RCX],      D),
    h(Leaf::MEM_SEPT_REMOVE,     &[(RCX, Gpa), (RDX, Page)],                            &[RCX],      D),
    h(Leaf::SYS_KEY_CONFIG,      &[],                                                   &[],         D),
    h(Leaf::SYS_INFO,            &[(RCX, Page), (RDX, Number), (R8, Page), (R9, Number)], &[],       M),
    h(Leaf::SYS_INIT,            &[(RCX, Number)],                                      &[],         D),
    h(Leaf::SYS_RD,              &[(RDX, Number)],                                      &[],         L),
    h(Leaf::SYS_LP_INIT,         &[],                                                   &[],         D),
    h(Leaf::SYS_TDMR_INIT,       &[(RCX, Page)],                                        &[RDX],      D),
    h(Leaf::SYS_RDALL,           &[(RDX, Page), (R8, Number)],                          &[],         M),
    h(Leaf::MEM_TRACK,           &[(RCX, Page)],                                        &[],         D),
    h(Leaf::MEM_RANGE_UNBLOCK,   &[(RCX, Gpa), (RDX, Page)],                            &[],         D),
    h(Leaf::PHYMEM_CACHE_WB,     &[(RCX, Number)],                                      &[],         D),
    h(Leaf::PHYMEM_PAGE_WBINVD,  &[(RCX, Page)],                                        &[],         D),
    h(Leaf::VP_WR,               &[(RCX, Page), (RDX, Number), (R8, Number), (R9, Number)], &[],     M),
    h(Leaf::SYS_LP_SHUTDOWN,     &[],                                                   &[],         D),
    h(Leaf::SYS_CONFIG,          &[(RCX, Page), (RDX, Number), (R8, Number)],           &[],         D),
    h(Leaf::SYS_SHUTDOWN,        &[(RCX, Number)],                                      &[],         D),
    h(Leaf::SYS_UPDATE,          &[],                                                   &[],         D),
    h(Leaf::PHYMEM_PAMT_ADD,     &[(RCX, Page), (RDX, Page), (R8, Page)],               &[],         L),
    h(Leaf::PHYMEM_PAMT_REMOVE,  &[(RCX, Page)],                                        &[RDX, R8],  L),
    h(Leaf::SYS_DISABLE,         &[],                                                   &[],         L),
    g(GuestLeaf::VP_VMCALL,      &[(RCX, Number), (R10, Number), (R11, Number), (R12, Number), (R13, Number)], D),
    g(GuestLeaf::VP_INFO,        &[],                                                                M),
    g(GuestLeaf::VP_VEINFO_GET,  &[],                                                                M),
    g(GuestLeaf::MEM_PAGE_ACCEPT, &[(RCX, Gpa)],                                                     D),
    g(GuestLeaf::SYS_RD,         &[(RDX, Number)],                                                   M),
    g(GuestLeaf::MEM_PAGE_ATTR_RD, &[(RCX, Gpa)],                                                    M),
];

/// [`CALL_FORMS`] as a table of the manual.
pub fn call_forms_markdown() -> String {
    let mut out = "| Leaf | Takes | Gives pages in | Source |\n|---|---|---|---|\n".to_owned();
    for form in CALL_FORMS {
        let name = |at: &u8| CallRegs::NAMES.get(usize::from(*at)).copied().unwrap_or("");
        let what = |(at, holds): &(u8, Holds)| match holds {
            Page => format!("{} (page)", name(at)),
            Gpa => format!("{} (guest-physical address)", name(at)),
            Number => name(at).to_owned(),
        };
        let takes: Vec<String> = form.takes.iter().map(what).collect();
        let gives: Vec<&str> = form.gives_pages.iter().map(name).collect();
        let leaf = row(form.guest, form.leaf).map_or("", |row| row.name);
        out.push_str(&format!(
            "| {leaf} | {} | {} | {} |\n",
            takes.join(", "),
            gives.join(", "),
            form.cite
        ));
    }
    out
}

fn row(guest: bool, leaf: u16) -> Option<&'static LeafRow> {
    let table = if guest { GUEST_LEAVES } else { LEAVES };
    table.iter().find(|row| row.number == leaf)
}

/// What it takes to put a call in words.
pub struct Caller<'a> {
    /// The regions by name.
    pub areas: &'a [NamedArea],
    /// The platform: where the HKID begins in an address.
    pub spec: &'a PlatformSpec,
}

impl Caller<'_> {
    /// The region of an address, and how far in.
    pub fn place(&self, value: u64) -> Option<String> {
        let Addr { hpa, keyid } = self.spec.keyid.split(value)?;
        // The low bits of a page's address are a level or flags.
        let page = hpa.0 & !0xfff;
        let area = self.areas.iter().find(|a| page.wrapping_sub(a.base & !0xfff) < a.size)?;
        let mut text = area.name.clone();
        if page > area.base {
            text.push_str(&format!("+{:#x}", page - area.base));
        }
        if keyid != sim_core::KeyId::TME {
            text.push_str(&format!("@{keyid}"));
        }
        Some(text)
    }

    /// A register or structure that holds a value, with the region where it is an address.
    pub fn register(&self, name: &str, value: u64, is_page: bool) -> RegisterReport {
        let region = if is_page { self.place(value) } else { None };
        RegisterReport { name: name.to_owned(), value: format!("{value:#x}"), region }
    }

    /// A call, and what came of it. `None` for an operation that is none.
    pub fn call(&self, op: &Op, outcome: &Outcome) -> Option<CallReport> {
        let (guest, leaf, version, regs) = match *op {
            Op::Seamcall { leaf, version, regs } => (false, leaf.0, version, regs),
            Op::Tdcall { leaf, version, regs } => (true, leaf.0, version, regs),
            _ => return None,
        };
        let form = CALL_FORMS.iter().find(|form| (form.guest, form.leaf) == (guest, leaf));
        let mut operands = Vec::new();
        for (at, (name, value)) in (0u8..).zip(CallRegs::NAMES.iter().zip(regs.0)) {
            let taken = form.and_then(|f| f.takes.iter().find(|(r, _)| *r == at));
            // The first four say what the call is about; later ones, and those that a leaf does not take, only if set.
            if value != 0 || at < R9 && taken.is_some() {
                let is_page = value != 0 && taken.is_some_and(|(_, holds)| *holds == Page);
                operands.push(self.register(name, value, is_page));
            }
        }
        let result = match outcome {
            Outcome::Call(result) => Some(result),
            _ => None,
        };
        let mut out = Vec::new();
        for (at, (name, value)) in
            (0u8..).zip(result.iter().flat_map(|r| CallResult::NAMES.iter().zip(r.out)))
        {
            let good = result.is_some_and(|r| !r.status.is_error());
            let is_page = good && form.is_some_and(|f| f.gives_pages.contains(&at));
            // What a leaf does not write still holds what was passed.
            let passed = regs.0.get(usize::from(at)) == Some(&value);
            if value != 0 && (is_page || !passed) {
                out.push(self.register(name, value, is_page));
            }
        }
        let name = match (row(guest, leaf), guest) {
            (Some(row), _) => row.name.to_owned(),
            (None, false) => format!("SEAMCALL {leaf}"),
            (None, true) => format!("TDCALL {leaf}"),
        };
        Some(CallReport {
            leaf,
            name,
            version,
            guest,
            operands,
            status: result.map(|r| format!("{:#018x}", r.status.0)),
            status_name: result.map(|r| r.status.to_string()),
            out,
        })
    }
}

impl CallReport {
    /// `tdh_mem_page_aug(rcx=0x200001, …) = 0x8000020000000001 TDX_OPERAND_BUSY | RCX`, as a kernel trace has it. What came
    /// of a call that did not return is `otherwise`.
    pub fn trace(&self, otherwise: &str) -> String {
        let mut text = self.name.replace(['.', ' '], "_").to_lowercase();
        if self.version != 0 {
            text.push_str(&format!("_v{}", self.version));
        }
        let list = |registers: &[RegisterReport], between: &str| {
            let each = registers.iter().map(|r| format!("{}={}", r.name, r.value));
            each.collect::<Vec<_>>().join(between)
        };
        text.push_str(&format!("({}) = ", list(&self.operands, ", ")));
        match (&self.status, &self.status_name) {
            (Some(status), Some(name)) if name == status => text.push_str(status),
            (Some(status), Some(name)) => text.push_str(&format!("{status} {name}")),
            _ => text.push_str(otherwise),
        }
        if !self.out.is_empty() {
            text.push_str(&format!("; {}", list(&self.out, " ")));
        }
        text
    }

    /// The registers that hold known addresses: `rdx A_TDR, r8 P0`.
    pub fn margin(&self) -> String {
        let named = |r: &RegisterReport| Some(format!("{} {}", r.name, r.region.as_ref()?));
        let operands = self.operands.iter().filter_map(named);
        let out = self.out.iter().filter_map(|r| named(r).map(|text| format!("-> {text}")));
        operands.chain(out).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::tdx::Status;
    use std::collections::BTreeSet;

    fn key(form: &CallForm) -> (bool, u16) {
        (form.guest, form.leaf)
    }

    #[test]
    fn every_modelled_leaf_has_one_form() {
        let known: BTreeSet<(bool, u16)> = CALL_FORMS.iter().map(key).collect();
        assert_eq!(known.len(), CALL_FORMS.len());
        // What is only enumerated, or not modelled, shows every register that is set.
        let without =
            |leaf: Leaf| tdx_module::NOT_MODELLED.contains(&leaf) || leaf == Leaf::MEM_SEPT_WR;
        for row in LEAVES {
            let wanted = !without(Leaf(row.number));
            assert_eq!(known.contains(&(false, row.number)), wanted, "{}", row.name);
        }
        for row in GUEST_LEAVES {
            let wanted = !tdx_module::GUEST_NOT_MODELLED.contains(&GuestLeaf(row.number));
            assert_eq!(known.contains(&(true, row.number)), wanted, "{}", row.name);
        }
    }

    /// The registers that a profile's operands speak of: `RCX`, `R9-R11`.
    fn spoken_of(operands: &[tdx_module::profile::Register]) -> BTreeSet<u8> {
        let index = |name: &str| CallRegs::NAMES.iter().position(|n| n.eq_ignore_ascii_case(name));
        let mut all = BTreeSet::new();
        for operand in operands {
            for part in operand.name.split(", ") {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (Some(first), Some(last)) = (index(first), index(last)) else { continue };
                all.extend((first..=last).map(|i| i as u8));
            }
        }
        all
    }

    #[test]
    fn a_form_takes_the_registers_that_the_leaf_s_profile_speaks_of() {
        let mut different = Vec::new();
        for form in CALL_FORMS {
            let (name, operands) = if form.guest {
                let leaf = GuestLeaf(form.leaf);
                (leaf.to_string(), tdx_module::profile::guest_profile(leaf).map(|p| p.operands))
            } else {
                let leaf = Leaf(form.leaf);
                (leaf.to_string(), tdx_module::profile::profile(leaf).map(|p| p.operands))
            };
            let takes: BTreeSet<u8> = form.takes.iter().map(|(r, _)| *r).collect();
            let spoken = spoken_of(operands.unwrap_or_default());
            if takes != spoken {
                different.push(format!("{name}: takes {takes:?}, its profile has {spoken:?}"));
            }
        }
        // TDH.VP.ENTER passes what the guest asked for on to it, and TDG.VP.VMCALL to the VMM: shown where not zero.
        expect_test::expect![[r#"
            TDH.VP.ENTER: takes {0}, its profile has {0, 1, 2, 3, 4, 5, 6, 7}
            TDG.VP.VMCALL: takes {0, 4, 5, 6, 7}, its profile has {0, 1, 2, 3, 4, 5, 6, 7}"#]]
        .assert_eq(&different.join("\n"));
    }

    #[test]
    fn a_form_names_registers_once_and_in_order() {
        for form in CALL_FORMS {
            let takes: Vec<u8> = form.takes.iter().map(|(r, _)| *r).collect();
            assert!(
                takes.is_sorted_by(|a, b| a < b) && takes.iter().all(|r| *r <= R13),
                "{form:?}"
            );
            assert!(form.gives_pages.iter().all(|r| *r <= R11), "{form:?}");
        }
    }

    #[test]
    fn every_form_is_reached_by_its_call_and_shows_the_registers_it_takes() {
        let origin = crate::platform::Origin::Preset("spr".to_owned());
        let spec = crate::platform::load(&origin, &[]).unwrap().spec;
        let areas = [NamedArea { name: "P".to_owned(), base: 0x1000, size: 0x1000 }];
        let caller = Caller { areas: &areas, spec: &spec };
        for form in CALL_FORMS {
            let regs = CallRegs([0x1001; 8]);
            let op = if form.guest {
                Op::Tdcall { leaf: GuestLeaf(form.leaf), version: 0, regs }
            } else {
                Op::Seamcall { leaf: Leaf(form.leaf), version: 0, regs }
            };
            let (guest, leaf, status) = (form.guest, form.leaf, Status::SUCCESS);
            let outcome = Outcome::Call(CallResult { guest, leaf, status, out: [0x1000; 6] });
            let call = caller.call(&op, &outcome).unwrap();
            for (at, register) in (0u8..).zip(&call.operands) {
                let page = form.takes.contains(&(at, Holds::Page));
                assert_eq!(register.region.as_deref(), page.then_some("P"), "{form:?}");
            }
            for (at, register) in (0u8..).zip(&call.out) {
                let page = form.gives_pages.contains(&at);
                assert_eq!(register.region.as_deref(), page.then_some("P"), "{form:?}");
            }
            let zeros = match op {
                Op::Tdcall { leaf, .. } => Op::Tdcall { leaf, version: 0, regs: CallRegs([0; 8]) },
                _ => Op::Seamcall { leaf: Leaf(leaf), version: 0, regs: CallRegs([0; 8]) },
            };
            let shown = caller.call(&zeros, &outcome).unwrap().operands.len();
            assert_eq!(shown, form.takes.iter().filter(|(r, _)| *r < R9).count(), "{form:?}");
        }
    }

    #[test]
    fn the_book_has_every_form() {
        let text = call_forms_markdown();
        assert_eq!(text.lines().count(), CALL_FORMS.len() + 2);
        assert!(
            text.contains(
                "| TDH.MEM.PAGE.REMOVE | rcx (guest-physical address), rdx (page) | rcx |"
            )
        );
    }
}
