//! Every metadata field that the model has, whoever owns it: [`crate::fields`] of the module and of TDs, and those of VCPUs.

use crate::fields::{Field, SYS_FIELDS, TD_FIELDS};
use crate::leaf::vp_fields::{Access, VP_FIELDS};

/// Whose field it is: bits 54:52 of its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// 0: the module (TDH.SYS.RD, TDH.SYS.RDALL, TDG.SYS.RD).
    Module,
    /// 1: a TD (TDH.MNG.RD, TDH.MNG.WR).
    Td,
    /// 2: a VCPU (TDH.VP.RD, TDH.VP.WR).
    Vcpu,
}

/// What the host may do with a field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rights {
    /// Bits that it reads.
    pub read: u64,
    /// Bits that it writes.
    pub write: u64,
}

/// A metadata field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetadataField {
    /// Whose.
    pub owner: Owner,
    /// Id of its first element: code in 23:0, size in 33:32, context in 54:52, class in 61:56, 63 set when it is not
    /// architectural.
    pub id: u64,
    /// The source's name.
    pub name: &'static str,
    /// Bytes of an element.
    pub bytes: u8,
    /// Elements, whose codes follow each other.
    pub elements: u64,
    /// Of a TD like any other.
    pub production: Rights,
    /// Of a debug TD.
    pub debug: Rights,
    /// Source.
    pub cite: &'static str,
}

const ALL: u64 = u64::MAX;
const NONE: Rights = Rights { read: 0, write: 0 };
const READ: Rights = Rights { read: ALL, write: 0 };
const BOTH: Rights = Rights { read: ALL, write: ALL };

impl Owner {
    /// Bits 54:52 of an id.
    pub const fn context(self) -> u8 {
        match self {
            Owner::Module => 0,
            Owner::Td => 1,
            Owner::Vcpu => 2,
        }
    }
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Owner::Module => "the module: TDH.SYS.RD, TDH.SYS.RDALL, TDG.SYS.RD",
            Owner::Td => "a TD: TDH.MNG.RD, TDH.MNG.WR",
            Owner::Vcpu => "a VCPU: TDH.VP.RD, TDH.VP.WR",
        }
    }
}

fn of<V>(owner: Owner, row: &Field<V>, production: Rights, debug: Rights) -> MetadataField {
    MetadataField {
        owner,
        id: row.id,
        name: row.name,
        bytes: 1 << (row.id >> 32 & 3),
        elements: u64::from(row.fields) * u64::from(row.elements),
        production,
        debug,
        cite: row.cite,
    }
}

/// All fields: of the module, of a TD, of a VCPU, each in the order of its table.
pub fn metadata_fields() -> impl Iterator<Item = MetadataField> {
    let module = SYS_FIELDS.iter().map(|row| of(Owner::Module, row, READ, READ));
    let td = TD_FIELDS.iter().map(|row| {
        let production = match (row.value.debug_only(), row.value.writable()) {
            (true, _) => NONE,
            (_, true) => BOTH,
            _ => READ,
        };
        let debug = if row.value.writable() { BOTH } else { READ };
        of(Owner::Td, row, production, debug)
    });
    let vcpu = VP_FIELDS.iter().map(|row| {
        let rights = |debug| Rights {
            read: row.mask(Access::Read, debug),
            write: row.mask(Access::Write, debug),
        };
        MetadataField {
            owner: Owner::Vcpu,
            id: row.id,
            name: row.name,
            bytes: 1 << (row.id >> 32 & 3),
            elements: 1,
            production: rights(false),
            debug: rights(true),
            cite: row.cite,
        }
    });
    module.chain(td).chain(vcpu)
}

/// The fields that an id may name, and which element of them. Class and code decide; an id without a context code, as
/// Linux writes those of VCPUs, may be of any owner.
pub fn find_metadata(id: u64) -> Vec<(MetadataField, u64)> {
    let key = |id: u64| (id >> 56 & 0x3f, id & 0xff_ffff);
    let context = id >> 52 & 7;
    let ((class, code), rows) = (key(id), metadata_fields());
    rows.filter(|row| context == 0 || context == u64::from(row.owner.context()))
        .filter_map(|row| {
            let (of_row, first) = key(row.id);
            let element = code.checked_sub(first)?;
            (class == of_row && element < row.elements).then_some((row, element))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_is_found_by_its_id_and_no_id_names_two() {
        let mut ids = BTreeSet::new();
        for row in metadata_fields() {
            assert!(ids.insert(row.id), "{} {:#x}", row.name, row.id);
            assert_eq!(row.id >> 52 & 7, u64::from(row.owner.context()), "{}", row.name);
            let found = find_metadata(row.id);
            // An id of the module has context 0, which stands for any.
            assert!(found.contains(&(row, 0)), "{}", row.name);
            assert!(row.owner == Owner::Module || found.len() == 1, "{}", row.name);
            let last = find_metadata(row.id + row.elements - 1);
            assert!(last.contains(&(row, row.elements - 1)), "{}", row.name);
        }
    }

    #[test]
    fn an_id_as_linux_writes_it_names_the_field_of_a_vcpu() {
        let names: Vec<&str> = find_metadata(0x4000).iter().map(|(row, _)| row.name).collect();
        assert_eq!(names, ["pin-based controls"]);
        assert_eq!(find_metadata(0x3f00_0000_00ab_cdef), []);
    }
}
