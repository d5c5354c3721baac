//! Leaf numbers of SEAMCALL and TDCALL (architecture.md §7.9, §7.11).

use serde::{Deserialize, Serialize};
use std::fmt;

const D: &str = "architecture.md §7.9";
const N: &str = "architecture.md §7.11";
const P: &str = "architecture.md §7.1";
const L: &str = "linux-host-paths.md §2.1";
/// §7.11 gives the ranges EXPORT.* and IMPORT.*; the single names are those of the module source's leaf enumeration.
const X: &str = "architecture.md §7.11, intel/tdx-module tdx_api_defs.h";

/// A SEAMCALL leaf, RAX\[15:0\].
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Leaf(pub u16);

/// A TDCALL leaf, RAX\[15:0\].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GuestLeaf(pub u16);

/// A row of [`LEAVES`] or [`GUEST_LEAVES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafRow {
    /// The number.
    pub number: u16,
    /// The specification's name.
    pub name: &'static str,
    /// What it does, in one line.
    pub meaning: &'static str,
    /// Source.
    pub cite: &'static str,
}

macro_rules! leaves {
    ($type:ident $table:ident $what:literal $($name:ident $number:literal $full:literal $cite:ident $meaning:literal;)*) => {
        impl $type {
            $(
                #[doc = concat!($full, ": ", $meaning, " (the source is in [`", stringify!($table), "`]).")]
                pub const $name: $type = $type($number);
            )*
            /// The row of this number; `None` for a number without a leaf.
            pub fn row(self) -> Option<&'static LeafRow> {
                $table.iter().find(|row| row.number == self.0)
            }
            /// The specification's name; `None` for a number without a leaf.
            pub fn name(self) -> Option<&'static str> {
                self.row().map(|row| row.name)
            }
            /// The leaf of this name, in any case, with `.` or `_` between the words, as specification and kernel
            /// write it.
            pub fn from_name(name: &str) -> Option<$type> {
                $table.iter().find(|row| same_name(row.name, name)).map(|row| $type(row.number))
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "leaf {}", self.0),
                }
            }
        }
        #[doc = $what]
        pub const $table: &[LeafRow] = &[
            $(LeafRow { number: $number, name: $full, meaning: $meaning, cite: $cite },)*
        ];
    };
}

fn same_name(row: &str, name: &str) -> bool {
    row.len() == name.len()
        && row
            .bytes()
            .zip(name.bytes())
            .all(|(r, n)| r.eq_ignore_ascii_case(&n) || (r == b'.' && n == b'_'))
}

#[rustfmt::skip]
leaves! {
    Leaf LEAVES "Every SEAMCALL leaf, those that are not modelled included."
    VP_ENTER 0 "TDH.VP.ENTER" D "enter a TD's VCPU";
    MNG_ADDCX 1 "TDH.MNG.ADDCX" D "add a control page to a TD";
    MEM_PAGE_ADD 2 "TDH.MEM.PAGE.ADD" D "add a page with content to a TD being built";
    MEM_SEPT_ADD 3 "TDH.MEM.SEPT.ADD" D "add a Secure-EPT page";
    VP_ADDCX 4 "TDH.VP.ADDCX" D "add a control page to a VCPU";
    MEM_PAGE_RELOCATE 5 "TDH.MEM.PAGE.RELOCATE" D "move a page to another physical address";
    MEM_PAGE_AUG 6 "TDH.MEM.PAGE.AUG" D "add a page that the guest has to accept";
    MEM_RANGE_BLOCK 7 "TDH.MEM.RANGE.BLOCK" D "block a guest range before a change";
    MNG_KEY_CONFIG 8 "TDH.MNG.KEY.CONFIG" D "configure a TD's key on a package";
    MNG_CREATE 9 "TDH.MNG.CREATE" D "create a TD";
    VP_CREATE 10 "TDH.VP.CREATE" D "create a VCPU";
    MNG_RD 11 "TDH.MNG.RD" N "read a TD metadata field";
    MEM_RD 12 "TDH.MEM.RD" D "read memory of a debug TD";
    MNG_WR 13 "TDH.MNG.WR" N "write a TD metadata field";
    MEM_WR 14 "TDH.MEM.WR" D "write memory of a debug TD";
    MEM_PAGE_DEMOTE 15 "TDH.MEM.PAGE.DEMOTE" D "split a large page";
    MR_EXTEND 16 "TDH.MR.EXTEND" D "measure 256 bytes";
    MR_FINALIZE 17 "TDH.MR.FINALIZE" D "end the measurement of a TD";
    VP_FLUSH 18 "TDH.VP.FLUSH" D "dissociate a VCPU from this LP";
    MNG_VPFLUSHDONE 19 "TDH.MNG.VPFLUSHDONE" D "end the use of a TD's HKID";
    MNG_KEY_FREEID 20 "TDH.MNG.KEY.FREEID" D "free a TD's HKID";
    MNG_INIT 21 "TDH.MNG.INIT" D "initialise a TD";
    VP_INIT 22 "TDH.VP.INIT" D "initialise a VCPU";
    MEM_PAGE_PROMOTE 23 "TDH.MEM.PAGE.PROMOTE" D "merge small pages into a large one";
    PHYMEM_PAGE_RDMD 24 "TDH.PHYMEM.PAGE.RDMD" D "read a page's PAMT entry";
    MEM_SEPT_RD 25 "TDH.MEM.SEPT.RD" D "read a Secure-EPT entry";
    VP_RD 26 "TDH.VP.RD" N "read a VCPU metadata field";
    MNG_KEY_RECLAIMID 27 "TDH.MNG.KEY.RECLAIMID" D "does nothing";
    PHYMEM_PAGE_RECLAIM 28 "TDH.PHYMEM.PAGE.RECLAIM" D "take a page back from a torn-down TD";
    MEM_PAGE_REMOVE 29 "TDH.MEM.PAGE.REMOVE" D "remove a page from a TD";
    MEM_SEPT_REMOVE 30 "TDH.MEM.SEPT.REMOVE" D "remove a Secure-EPT page";
    SYS_KEY_CONFIG 31 "TDH.SYS.KEY.CONFIG" D "configure the global key on a package";
    SYS_INFO 32 "TDH.SYS.INFO" D "enumerate the module";
    SYS_INIT 33 "TDH.SYS.INIT" D "initialise the module";
    SYS_RD 34 "TDH.SYS.RD" D "read a module metadata field";
    SYS_LP_INIT 35 "TDH.SYS.LP.INIT" D "initialise the module on this LP";
    SYS_TDMR_INIT 36 "TDH.SYS.TDMR.INIT" D "initialise a piece of a TDMR's PAMT";
    SYS_RDALL 37 "TDH.SYS.RDALL" D "read all module metadata fields";
    MEM_TRACK 38 "TDH.MEM.TRACK" D "begin a new TLB epoch";
    MEM_RANGE_UNBLOCK 39 "TDH.MEM.RANGE.UNBLOCK" D "unblock a guest range";
    PHYMEM_CACHE_WB 40 "TDH.PHYMEM.CACHE.WB" D "write back the package's caches";
    PHYMEM_PAGE_WBINVD 41 "TDH.PHYMEM.PAGE.WBINVD" D "write back and invalidate a page under a KeyID";
    MEM_SEPT_WR 42 "TDH.MEM.SEPT.WR" P "in the enumeration but not implemented";
    VP_WR 43 "TDH.VP.WR" N "write a VCPU metadata field";
    SYS_LP_SHUTDOWN 44 "TDH.SYS.LP.SHUTDOWN" D "does nothing";
    SYS_CONFIG 45 "TDH.SYS.CONFIG" D "give the module its TDMRs and global HKID";
    SERVTD_BIND 48 "TDH.SERVTD.BIND" N "bind a service TD";
    SERVTD_PREBIND 49 "TDH.SERVTD.PREBIND" N "bind a service TD beforehand";
    SYS_SHUTDOWN 52 "TDH.SYS.SHUTDOWN" D "shut the module down for an update";
    SYS_UPDATE 53 "TDH.SYS.UPDATE" D "take over from the previous module";
    PHYMEM_PAMT_ADD 58 "TDH.PHYMEM.PAMT.ADD" L "add PAMT pages (dynamic PAMT)";
    PHYMEM_PAMT_REMOVE 59 "TDH.PHYMEM.PAMT.REMOVE" L "take PAMT pages back (dynamic PAMT)";
    EXPORT_ABORT 64 "TDH.EXPORT.ABORT" X "migration";
    EXPORT_BLOCKW 65 "TDH.EXPORT.BLOCKW" X "migration";
    EXPORT_RESTORE 66 "TDH.EXPORT.RESTORE" X "migration";
    EXPORT_MEM 68 "TDH.EXPORT.MEM" X "migration";
    SYS_DISABLE 69 "TDH.SYS.DISABLE" L "disable the module before kexec";
    EXPORT_PAUSE 70 "TDH.EXPORT.PAUSE" X "migration";
    EXPORT_TRACK 71 "TDH.EXPORT.TRACK" X "migration";
    EXPORT_STATE_IMMUTABLE 72 "TDH.EXPORT.STATE.IMMUTABLE" X "migration";
    EXPORT_STATE_TD 73 "TDH.EXPORT.STATE.TD" X "migration";
    EXPORT_STATE_VP 74 "TDH.EXPORT.STATE.VP" X "migration";
    EXPORT_UNBLOCKW 75 "TDH.EXPORT.UNBLOCKW" X "migration";
    IMPORT_ABORT 80 "TDH.IMPORT.ABORT" X "migration";
    IMPORT_END 81 "TDH.IMPORT.END" X "migration";
    IMPORT_COMMIT 82 "TDH.IMPORT.COMMIT" X "migration";
    IMPORT_MEM 83 "TDH.IMPORT.MEM" X "migration";
    IMPORT_TRACK 84 "TDH.IMPORT.TRACK" X "migration";
    IMPORT_STATE_IMMUTABLE 85 "TDH.IMPORT.STATE.IMMUTABLE" X "migration";
    IMPORT_STATE_TD 86 "TDH.IMPORT.STATE.TD" X "migration";
    IMPORT_STATE_VP 87 "TDH.IMPORT.STATE.VP" X "migration";
    MIG_STREAM_CREATE 96 "TDH.MIG.STREAM.CREATE" N "migration";
}

#[rustfmt::skip]
leaves! {
    GuestLeaf GUEST_LEAVES "Every TDCALL leaf, those that are not modelled included."
    VP_VMCALL 0 "TDG.VP.VMCALL" D "ask the VMM for a service";
    VP_INFO 1 "TDG.VP.INFO" N "read what the TD runs on";
    MR_RTMR_EXTEND 2 "TDG.MR.RTMR.EXTEND" N "extend a run-time measurement";
    VP_VEINFO_GET 3 "TDG.VP.VEINFO.GET" N "read the cause of a #VE";
    MR_REPORT 4 "TDG.MR.REPORT" N "make a report";
    VP_CPUIDVE_SET 5 "TDG.VP.CPUIDVE.SET" N "choose whether CPUID raises #VE";
    MEM_PAGE_ACCEPT 6 "TDG.MEM.PAGE.ACCEPT" D "accept a page";
    VM_RD 7 "TDG.VM.RD" N "read a TD metadata field";
    VM_WR 8 "TDG.VM.WR" N "write a TD metadata field";
    VP_RD 9 "TDG.VP.RD" N "read a VCPU metadata field";
    VP_WR 10 "TDG.VP.WR" N "write a VCPU metadata field";
    SYS_RD 11 "TDG.SYS.RD" N "read a module metadata field";
    SYS_RDALL 12 "TDG.SYS.RDALL" N "read all module metadata fields";
    SERVTD_RD 18 "TDG.SERVTD.RD" N "read a target TD's field";
    SERVTD_WR 20 "TDG.SERVTD.WR" N "write a target TD's field";
    MR_VERIFYREPORT 22 "TDG.MR.VERIFYREPORT" N "verify a report";
    MEM_PAGE_ATTR_RD 23 "TDG.MEM.PAGE.ATTR.RD" N "read a page's attributes";
    MEM_PAGE_ATTR_WR 24 "TDG.MEM.PAGE.ATTR.WR" N "write a page's attributes";
    VP_ENTER 25 "TDG.VP.ENTER" N "enter an L2 VCPU";
    VP_INVEPT 26 "TDG.VP.INVEPT" N "invalidate L2 translations";
    VP_INVVPID 27 "TDG.VP.INVVPID" N "invalidate L2 linear translations";
}

/// [`LEAVES`] and [`GUEST_LEAVES`] as tables of the book.
pub fn leaves_markdown() -> String {
    let mut out = String::new();
    for (title, table) in [("SEAMCALL", LEAVES), ("TDCALL", GUEST_LEAVES)] {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!(
            "| {title} | Number | Hex | Meaning | Source |\n|---|---|---|---|---|\n"
        ));
        for r in table {
            let (number, name, meaning, cite) = (r.number, r.name, r.meaning, r.cite);
            out.push_str(&format!("| {name} | {number} | {number:#x} | {meaning} | {cite} |\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_leaves_share_a_number_or_a_name() {
        for table in [LEAVES, GUEST_LEAVES] {
            let numbers: BTreeSet<u16> = table.iter().map(|r| r.number).collect();
            let names: BTreeSet<&str> = table.iter().map(|r| r.name).collect();
            assert_eq!((numbers.len(), names.len()), (table.len(), table.len()));
        }
    }

    #[test]
    fn every_leaf_is_reached_by_number_and_by_either_spelling() {
        for row in LEAVES {
            let leaf = Leaf(row.number);
            assert_eq!(leaf.name(), Some(row.name));
            assert_eq!(Leaf::from_name(row.name), Some(leaf));
            assert_eq!(Leaf::from_name(&row.name.replace('.', "_")), Some(leaf));
            assert_eq!(Leaf::from_name(&row.name.replace('.', "_").to_lowercase()), Some(leaf));
        }
        for row in GUEST_LEAVES {
            assert_eq!(GuestLeaf(row.number).name(), Some(row.name));
            assert_eq!(GuestLeaf::from_name(row.name), Some(GuestLeaf(row.number)));
        }
    }

    #[test]
    fn numbers_and_names_without_a_leaf_have_none() {
        for number in [46, 47, 50, 67, 97, u16::MAX] {
            assert_eq!(Leaf(number).row(), None, "{number}");
        }
        for name in ["", "TDH", "TDH.VP.ENTE", "TDH.VP.ENTER2", "TDH-VP-ENTER", "TDG.VP.VMCALL"] {
            assert_eq!(Leaf::from_name(name), None, "{name}");
        }
        assert_eq!(Leaf(46).to_string(), "leaf 46");
    }

    #[test]
    fn the_leaf_tables_as_the_book_prints_them() {
        expect![[r#"
            | SEAMCALL | Number | Hex | Meaning | Source |
            |---|---|---|---|---|
            | TDH.VP.ENTER | 0 | 0x0 | enter a TD's VCPU | architecture.md §7.9 |
            | TDH.MNG.ADDCX | 1 | 0x1 | add a control page to a TD | architecture.md §7.9 |
            | TDH.MEM.PAGE.ADD | 2 | 0x2 | add a page with content to a TD being built | architecture.md §7.9 |
            | TDH.MEM.SEPT.ADD | 3 | 0x3 | add a Secure-EPT page | architecture.md §7.9 |
            | TDH.VP.ADDCX | 4 | 0x4 | add a control page to a VCPU | architecture.md §7.9 |
            | TDH.MEM.PAGE.RELOCATE | 5 | 0x5 | move a page to another physical address | architecture.md §7.9 |
            | TDH.MEM.PAGE.AUG | 6 | 0x6 | add a page that the guest has to accept | architecture.md §7.9 |
            | TDH.MEM.RANGE.BLOCK | 7 | 0x7 | block a guest range before a change | architecture.md §7.9 |
            | TDH.MNG.KEY.CONFIG | 8 | 0x8 | configure a TD's key on a package | architecture.md §7.9 |
            | TDH.MNG.CREATE | 9 | 0x9 | create a TD | architecture.md §7.9 |
            | TDH.VP.CREATE | 10 | 0xa | create a VCPU | architecture.md §7.9 |
            | TDH.MNG.RD | 11 | 0xb | read a TD metadata field | architecture.md §7.11 |
            | TDH.MEM.RD | 12 | 0xc | read memory of a debug TD | architecture.md §7.9 |
            | TDH.MNG.WR | 13 | 0xd | write a TD metadata field | architecture.md §7.11 |
            | TDH.MEM.WR | 14 | 0xe | write memory of a debug TD | architecture.md §7.9 |
            | TDH.MEM.PAGE.DEMOTE | 15 | 0xf | split a large page | architecture.md §7.9 |
            | TDH.MR.EXTEND | 16 | 0x10 | measure 256 bytes | architecture.md §7.9 |
            | TDH.MR.FINALIZE | 17 | 0x11 | end the measurement of a TD | architecture.md §7.9 |
            | TDH.VP.FLUSH | 18 | 0x12 | dissociate a VCPU from this LP | architecture.md §7.9 |
            | TDH.MNG.VPFLUSHDONE | 19 | 0x13 | end the use of a TD's HKID | architecture.md §7.9 |
            | TDH.MNG.KEY.FREEID | 20 | 0x14 | free a TD's HKID | architecture.md §7.9 |
            | TDH.MNG.INIT | 21 | 0x15 | initialise a TD | architecture.md §7.9 |
            | TDH.VP.INIT | 22 | 0x16 | initialise a VCPU | architecture.md §7.9 |
            | TDH.MEM.PAGE.PROMOTE | 23 | 0x17 | merge small pages into a large one | architecture.md §7.9 |
            | TDH.PHYMEM.PAGE.RDMD | 24 | 0x18 | read a page's PAMT entry | architecture.md §7.9 |
            | TDH.MEM.SEPT.RD | 25 | 0x19 | read a Secure-EPT entry | architecture.md §7.9 |
            | TDH.VP.RD | 26 | 0x1a | read a VCPU metadata field | architecture.md §7.11 |
            | TDH.MNG.KEY.RECLAIMID | 27 | 0x1b | does nothing | architecture.md §7.9 |
            | TDH.PHYMEM.PAGE.RECLAIM | 28 | 0x1c | take a page back from a torn-down TD | architecture.md §7.9 |
            | TDH.MEM.PAGE.REMOVE | 29 | 0x1d | remove a page from a TD | architecture.md §7.9 |
            | TDH.MEM.SEPT.REMOVE | 30 | 0x1e | remove a Secure-EPT page | architecture.md §7.9 |
            | TDH.SYS.KEY.CONFIG | 31 | 0x1f | configure the global key on a package | architecture.md §7.9 |
            | TDH.SYS.INFO | 32 | 0x20 | enumerate the module | architecture.md §7.9 |
            | TDH.SYS.INIT | 33 | 0x21 | initialise the module | architecture.md §7.9 |
            | TDH.SYS.RD | 34 | 0x22 | read a module metadata field | architecture.md §7.9 |
            | TDH.SYS.LP.INIT | 35 | 0x23 | initialise the module on this LP | architecture.md §7.9 |
            | TDH.SYS.TDMR.INIT | 36 | 0x24 | initialise a piece of a TDMR's PAMT | architecture.md §7.9 |
            | TDH.SYS.RDALL | 37 | 0x25 | read all module metadata fields | architecture.md §7.9 |
            | TDH.MEM.TRACK | 38 | 0x26 | begin a new TLB epoch | architecture.md §7.9 |
            | TDH.MEM.RANGE.UNBLOCK | 39 | 0x27 | unblock a guest range | architecture.md §7.9 |
            | TDH.PHYMEM.CACHE.WB | 40 | 0x28 | write back the package's caches | architecture.md §7.9 |
            | TDH.PHYMEM.PAGE.WBINVD | 41 | 0x29 | write back and invalidate a page under a KeyID | architecture.md §7.9 |
            | TDH.MEM.SEPT.WR | 42 | 0x2a | in the enumeration but not implemented | architecture.md §7.1 |
            | TDH.VP.WR | 43 | 0x2b | write a VCPU metadata field | architecture.md §7.11 |
            | TDH.SYS.LP.SHUTDOWN | 44 | 0x2c | does nothing | architecture.md §7.9 |
            | TDH.SYS.CONFIG | 45 | 0x2d | give the module its TDMRs and global HKID | architecture.md §7.9 |
            | TDH.SERVTD.BIND | 48 | 0x30 | bind a service TD | architecture.md §7.11 |
            | TDH.SERVTD.PREBIND | 49 | 0x31 | bind a service TD beforehand | architecture.md §7.11 |
            | TDH.SYS.SHUTDOWN | 52 | 0x34 | shut the module down for an update | architecture.md §7.9 |
            | TDH.SYS.UPDATE | 53 | 0x35 | take over from the previous module | architecture.md §7.9 |
            | TDH.PHYMEM.PAMT.ADD | 58 | 0x3a | add PAMT pages (dynamic PAMT) | linux-host-paths.md §2.1 |
            | TDH.PHYMEM.PAMT.REMOVE | 59 | 0x3b | take PAMT pages back (dynamic PAMT) | linux-host-paths.md §2.1 |
            | TDH.EXPORT.ABORT | 64 | 0x40 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.BLOCKW | 65 | 0x41 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.RESTORE | 66 | 0x42 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.MEM | 68 | 0x44 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.SYS.DISABLE | 69 | 0x45 | disable the module before kexec | linux-host-paths.md §2.1 |
            | TDH.EXPORT.PAUSE | 70 | 0x46 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.TRACK | 71 | 0x47 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.STATE.IMMUTABLE | 72 | 0x48 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.STATE.TD | 73 | 0x49 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.STATE.VP | 74 | 0x4a | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.EXPORT.UNBLOCKW | 75 | 0x4b | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.ABORT | 80 | 0x50 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.END | 81 | 0x51 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.COMMIT | 82 | 0x52 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.MEM | 83 | 0x53 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.TRACK | 84 | 0x54 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.STATE.IMMUTABLE | 85 | 0x55 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.STATE.TD | 86 | 0x56 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.IMPORT.STATE.VP | 87 | 0x57 | migration | architecture.md §7.11, intel/tdx-module tdx_api_defs.h |
            | TDH.MIG.STREAM.CREATE | 96 | 0x60 | migration | architecture.md §7.11 |

            | TDCALL | Number | Hex | Meaning | Source |
            |---|---|---|---|---|
            | TDG.VP.VMCALL | 0 | 0x0 | ask the VMM for a service | architecture.md §7.9 |
            | TDG.VP.INFO | 1 | 0x1 | read what the TD runs on | architecture.md §7.11 |
            | TDG.MR.RTMR.EXTEND | 2 | 0x2 | extend a run-time measurement | architecture.md §7.11 |
            | TDG.VP.VEINFO.GET | 3 | 0x3 | read the cause of a #VE | architecture.md §7.11 |
            | TDG.MR.REPORT | 4 | 0x4 | make a report | architecture.md §7.11 |
            | TDG.VP.CPUIDVE.SET | 5 | 0x5 | choose whether CPUID raises #VE | architecture.md §7.11 |
            | TDG.MEM.PAGE.ACCEPT | 6 | 0x6 | accept a page | architecture.md §7.9 |
            | TDG.VM.RD | 7 | 0x7 | read a TD metadata field | architecture.md §7.11 |
            | TDG.VM.WR | 8 | 0x8 | write a TD metadata field | architecture.md §7.11 |
            | TDG.VP.RD | 9 | 0x9 | read a VCPU metadata field | architecture.md §7.11 |
            | TDG.VP.WR | 10 | 0xa | write a VCPU metadata field | architecture.md §7.11 |
            | TDG.SYS.RD | 11 | 0xb | read a module metadata field | architecture.md §7.11 |
            | TDG.SYS.RDALL | 12 | 0xc | read all module metadata fields | architecture.md §7.11 |
            | TDG.SERVTD.RD | 18 | 0x12 | read a target TD's field | architecture.md §7.11 |
            | TDG.SERVTD.WR | 20 | 0x14 | write a target TD's field | architecture.md §7.11 |
            | TDG.MR.VERIFYREPORT | 22 | 0x16 | verify a report | architecture.md §7.11 |
            | TDG.MEM.PAGE.ATTR.RD | 23 | 0x17 | read a page's attributes | architecture.md §7.11 |
            | TDG.MEM.PAGE.ATTR.WR | 24 | 0x18 | write a page's attributes | architecture.md §7.11 |
            | TDG.VP.ENTER | 25 | 0x19 | enter an L2 VCPU | architecture.md §7.11 |
            | TDG.VP.INVEPT | 26 | 0x1a | invalidate L2 translations | architecture.md §7.11 |
            | TDG.VP.INVVPID | 27 | 0x1b | invalidate L2 linear translations | architecture.md §7.11 |
        "#]].assert_eq(&leaves_markdown());
    }
}
