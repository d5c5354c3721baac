//! The TDX application binary interface: leaf numbers, operand ids and completion statuses (architecture.md §7).
//!
//! Everything here is data with lookups: what a status is called, which leaf may return it, and why. What a leaf does is
//! the business of the room that models the module.

mod leaf;
mod returns;
mod status;

pub use leaf::{GUEST_LEAVES, GuestLeaf, LEAVES, Leaf, LeafRow, leaves_markdown};
pub use returns::{
    Check, DISPATCH, GUEST_DISPATCH, GUEST_LEAF_CHECKS, GuestCheck, GuestLeafChecks, GuestOutcome,
    LEAF_CHECKS, LeafChecks, Return, guest_leaf_checks_markdown, leaf_checks_markdown, who_returns,
};
pub use status::{
    CLASSES, ClassRow, LINUX_VARIANTS, Low, OPERANDS, Operand, OperandRow, Reading, SOFTWARE,
    STATUS_BITS, STATUSES, SoftwareRow, Status, StatusRow, VariantRow, operands_markdown,
    statuses_markdown,
};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Page type of a PAMT entry (architecture.md §7.4 row "PT codes").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PageType {
    /// Not assigned to the module. A page is free when all three levels say so.
    Nda,
    /// Reserved for use outside TDX; what PAMT pages themselves report (linux-host-paths.md §2.2).
    Rsvd,
    /// A private page of a TD, or of a larger block.
    Reg,
    /// Trust domain root.
    Tdr,
    /// Control-structure page of a TD or of a VCPU.
    Tdcx,
    /// Root page of a VCPU.
    Tdvpr,
    /// Secure-EPT page.
    Ept,
    /// Dynamic PAMT: of a 2 MiB entry whose 4K entries lie in a pair of pages, and of those pages themselves.
    Pamt,
}

/// A row of [`PAGE_TYPES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageTypeRow {
    /// The type.
    pub page_type: PageType,
    /// The number in the PAMT entry and in the output of TDH.PHYMEM.PAGE.RDMD.
    pub code: u8,
    /// The specification's name.
    pub name: &'static str,
    /// Source.
    pub cite: &'static str,
}

const SHEET: &str = "architecture.md §7.4 \"PT codes\"";
/// Where the module has dynamic PAMT: a commit later than 1.5.01.
const DPAMT: &str = "intel/tdx-module 1666adc494db pamt_manager.h";

const fn pt(page_type: PageType, code: u8, name: &'static str, cite: &'static str) -> PageTypeRow {
    PageTypeRow { page_type, code, name, cite }
}

/// Page types and their codes. 2 is not listed by the source and 7 is reserved (architecture.md §7.4, §10.1 D-15); 9
/// to 13 are those of TDX Connect, which is not modelled.
#[rustfmt::skip]
pub const PAGE_TYPES: &[PageTypeRow] = &[
    pt(PageType::Nda,   0,  "PT_NDA",   SHEET),
    pt(PageType::Rsvd,  1,  "PT_RSVD",  SHEET),
    pt(PageType::Reg,   3,  "PT_REG",   SHEET),
    pt(PageType::Tdr,   4,  "PT_TDR",   SHEET),
    pt(PageType::Tdcx,  5,  "PT_TDCX",  SHEET),
    pt(PageType::Tdvpr, 6,  "PT_TDVPR", SHEET),
    pt(PageType::Ept,   8,  "PT_EPT",   SHEET),
    pt(PageType::Pamt,  15, "PT_PAMT",  DPAMT),
];

impl PageType {
    /// The number in the PAMT entry.
    pub const fn code(self) -> u8 {
        match self {
            PageType::Nda => 0,
            PageType::Rsvd => 1,
            PageType::Reg => 3,
            PageType::Tdr => 4,
            PageType::Tdcx => 5,
            PageType::Tdvpr => 6,
            PageType::Ept => 8,
            PageType::Pamt => 15,
        }
    }
    /// The type with this code; `None` for a code without one.
    pub const fn from_code(code: u64) -> Option<PageType> {
        // Asked for every PAMT entry that is looked at; that it equals the table is tested.
        Some(match code {
            0 => PageType::Nda,
            1 => PageType::Rsvd,
            3 => PageType::Reg,
            4 => PageType::Tdr,
            5 => PageType::Tdcx,
            6 => PageType::Tdvpr,
            8 => PageType::Ept,
            15 => PageType::Pamt,
            _ => return None,
        })
    }
    /// The specification's name.
    pub const fn name(self) -> &'static str {
        match self {
            PageType::Nda => "PT_NDA",
            PageType::Rsvd => "PT_RSVD",
            PageType::Reg => "PT_REG",
            PageType::Tdr => "PT_TDR",
            PageType::Tdcx => "PT_TDCX",
            PageType::Tdvpr => "PT_TDVPR",
            PageType::Ept => "PT_EPT",
            PageType::Pamt => "PT_PAMT",
        }
    }
}

impl fmt::Display for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// VMX exit reason, as TDH.VP.ENTER returns it in RAX\[31:0\] (architecture.md §7.9 "TDH.VP.ENTER").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ExitReason(pub u32);

/// A row of [`EXIT_REASONS`] or [`EXT_EXIT_QUALIFICATIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NumberRow {
    /// The number.
    pub number: u16,
    /// What it says.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

const fn exit(number: u16, meaning: &'static str) -> NumberRow {
    NumberRow { number, meaning, cite: "architecture.md §7.11 \"Exit reasons used\"" }
}
const fn qual(number: u16, meaning: &'static str) -> NumberRow {
    NumberRow { number, meaning, cite: "architecture.md §7.11 \"Extended exit-qualification\"" }
}

/// The exit reasons that the module uses; the processor has more.
#[rustfmt::skip]
pub const EXIT_REASONS: &[NumberRow] = &[
    exit(0,  "exception or NMI"),
    exit(1,  "external interrupt"),
    exit(2,  "triple fault"),
    exit(6,  "other SMI"),
    exit(41, "failed VM entry by machine check"),
    exit(48, "EPT violation"),
    exit(49, "EPT misconfiguration"),
    exit(76, "SEAMCALL"),
    exit(77, "TDCALL"),
];

/// Extended exit-qualification types.
#[rustfmt::skip]
pub const EXT_EXIT_QUALIFICATIONS: &[NumberRow] = &[
    qual(0, "none"),
    qual(1, "ACCEPT"),
    qual(2, "GPA details"),
    qual(3, "MSR-load failure"),
    qual(4, "XSTATE-load failure"),
    qual(5, "ATTR.WR"),
    qual(6, "pending EPT violation"),
];

impl ExitReason {
    /// The basic reason, bits 15:0.
    pub const fn basic(self) -> u16 {
        self.0 as u16
    }
    /// What the basic reason says; `None` where [`EXIT_REASONS`] has no row.
    pub fn meaning(self) -> Option<&'static str> {
        EXIT_REASONS.iter().find(|row| row.number == self.basic()).map(|row| row.meaning)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some(meaning) => write!(f, "exit reason {} ({meaning})", self.basic()),
            None => write!(f, "exit reason {}", self.basic()),
        }
    }
}

fn numbers_markdown(out: &mut String, title: &str, rows: &[NumberRow]) {
    out.push_str(&format!("| {title} | Meaning | Source |\n|---|---|---|\n"));
    for row in rows {
        out.push_str(&format!("| {} | {} | {} |\n", row.number, row.meaning, row.cite));
    }
}

/// [`PAGE_TYPES`] as a table of the book.
pub fn page_types_markdown() -> String {
    let mut out = String::from("| Code | Page type | Source |\n|---|---|---|\n");
    for row in PAGE_TYPES {
        out.push_str(&format!("| {} | {} | {} |\n", row.code, row.name, row.cite));
    }
    out
}

/// [`EXIT_REASONS`] and [`EXT_EXIT_QUALIFICATIONS`] as tables of the book.
pub fn exit_reasons_markdown() -> String {
    let mut out = String::new();
    numbers_markdown(&mut out, "Exit reason", EXIT_REASONS);
    out.push('\n');
    numbers_markdown(&mut out, "Extended exit qualification", EXT_EXIT_QUALIFICATIONS);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;

    #[test]
    fn every_page_type_is_found_by_its_code_and_has_one_row() {
        let all = [
            PageType::Nda,
            PageType::Rsvd,
            PageType::Reg,
            PageType::Tdr,
            PageType::Tdcx,
            PageType::Tdvpr,
            PageType::Ept,
            PageType::Pamt,
        ];
        assert_eq!(all.len(), PAGE_TYPES.len());
        for page_type in all {
            assert_eq!(PageType::from_code(page_type.code().into()), Some(page_type));
            let rows: Vec<_> = PAGE_TYPES.iter().filter(|r| r.page_type == page_type).collect();
            assert_eq!(rows.len(), 1, "{page_type}");
            assert_eq!((rows[0].code, rows[0].name), (page_type.code(), page_type.name()));
        }
    }

    #[test]
    fn codes_without_a_page_type_have_none() {
        for code in [2, 7, 9, u64::MAX] {
            assert_eq!(PageType::from_code(code), None, "{code}");
        }
    }

    #[test]
    fn numbered_tables_do_not_overlap_and_every_row_is_reached() {
        for table in [EXIT_REASONS, EXT_EXIT_QUALIFICATIONS] {
            let numbers: BTreeSet<u16> = table.iter().map(|r| r.number).collect();
            assert_eq!(numbers.len(), table.len());
        }
        for row in EXIT_REASONS {
            assert_eq!(ExitReason(row.number.into()).meaning(), Some(row.meaning));
            // Bit 31 marks a failed VM entry; the basic reason stays the same.
            assert_eq!(ExitReason(1 << 31 | u32::from(row.number)).meaning(), Some(row.meaning));
        }
        assert_eq!(ExitReason(3).to_string(), "exit reason 3");
    }

    #[test]
    fn small_tables_as_the_book_prints_them() {
        expect![[r#"
            | Code | Page type | Source |
            |---|---|---|
            | 0 | PT_NDA | architecture.md §7.4 "PT codes" |
            | 1 | PT_RSVD | architecture.md §7.4 "PT codes" |
            | 3 | PT_REG | architecture.md §7.4 "PT codes" |
            | 4 | PT_TDR | architecture.md §7.4 "PT codes" |
            | 5 | PT_TDCX | architecture.md §7.4 "PT codes" |
            | 6 | PT_TDVPR | architecture.md §7.4 "PT codes" |
            | 8 | PT_EPT | architecture.md §7.4 "PT codes" |
            | 15 | PT_PAMT | intel/tdx-module 1666adc494db pamt_manager.h |
        "#]]
        .assert_eq(&page_types_markdown());
        expect![[r#"
            | Exit reason | Meaning | Source |
            |---|---|---|
            | 0 | exception or NMI | architecture.md §7.11 "Exit reasons used" |
            | 1 | external interrupt | architecture.md §7.11 "Exit reasons used" |
            | 2 | triple fault | architecture.md §7.11 "Exit reasons used" |
            | 6 | other SMI | architecture.md §7.11 "Exit reasons used" |
            | 41 | failed VM entry by machine check | architecture.md §7.11 "Exit reasons used" |
            | 48 | EPT violation | architecture.md §7.11 "Exit reasons used" |
            | 49 | EPT misconfiguration | architecture.md §7.11 "Exit reasons used" |
            | 76 | SEAMCALL | architecture.md §7.11 "Exit reasons used" |
            | 77 | TDCALL | architecture.md §7.11 "Exit reasons used" |

            | Extended exit qualification | Meaning | Source |
            |---|---|---|
            | 0 | none | architecture.md §7.11 "Extended exit-qualification" |
            | 1 | ACCEPT | architecture.md §7.11 "Extended exit-qualification" |
            | 2 | GPA details | architecture.md §7.11 "Extended exit-qualification" |
            | 3 | MSR-load failure | architecture.md §7.11 "Extended exit-qualification" |
            | 4 | XSTATE-load failure | architecture.md §7.11 "Extended exit-qualification" |
            | 5 | ATTR.WR | architecture.md §7.11 "Extended exit-qualification" |
            | 6 | pending EPT violation | architecture.md §7.11 "Extended exit-qualification" |
        "#]]
        .assert_eq(&exit_reasons_markdown());
    }
}
