//! The fields of a VCPU that TDH.VP.RD and TDH.VP.WR know.

use crate::cx::{Cx, ensure};
use crate::fields::{self, NO_FIELD};
use crate::td::{VmmControls, layout};
use sim_core::tdx::Status;
use sim_core::units::Area;
use std::fmt::Write;

/// A field, as the model holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VpField {
    PostedVector,
    PostedDescriptor,
    SharedEpt,
    PinControls,
    PendNmi,
    Rcx,
    Rdx,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    State,
    Index,
    Pages,
    Lp,
    Epoch,
    LastExitTsc,
    LastExit,
}

/// What is done with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// TDH.VP.RD.
    Read,
    /// TDH.VP.WR.
    Write,
}

/// A row of [`VP_FIELDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VpFieldRow {
    pub(crate) field: VpField,
    pub(crate) name: &'static str,
    pub(crate) id: u64,
    /// Bits that the VMM reads, and writes.
    production: (u64, u64),
    /// The same of a debug TD.
    debug: (u64, u64),
    pub(crate) cite: &'static str,
}

const fn row(
    field: VpField,
    name: &'static str,
    id: u64,
    production: (u64, u64),
    debug: (u64, u64),
    cite: &'static str,
) -> VpFieldRow {
    VpFieldRow { field, name, id, production, debug, cite }
}

const VMCS: &str = "intel/tdx-module td_vmcs_fields_lookup.c";
const TDVPS: &str = "intel/tdx-module 1.5.01 tdvps_fields_lookup.c";
const B: u64 = 0xff;
const W: u64 = 0xffff;
const D: u64 = 0xffff_ffff;
const Q: u64 = u64::MAX;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

use VpField as F;

/// The fields that the model has, in the order of their keys: those that Linux writes (real-kernel.md S-11, S-12), and
/// what a debugger would look at.
#[rustfmt::skip]
pub(crate) const VP_FIELDS: &[VpFieldRow] = &[
    row(F::PostedVector,     "posted-interrupt notification vector", 0x0024_0001_0000_0002, (W, W),         (W, W),         VMCS),
    row(F::PostedDescriptor, "posted-interrupt descriptor address",  0x0024_0003_0000_2016, (Q, !0x3f),     (Q, !0x3f),     VMCS),
    row(F::SharedEpt,        "shared EPTP",                          0x0024_0003_0000_203c, (FRAME, FRAME), (Q, FRAME),     VMCS),
    row(F::PinControls,      "pin-based controls",                   0x0024_0002_0000_4000, (0x80, 0x80),   (D, 0x80),      VMCS),
    row(F::Rcx,              "RCX",                                  0x1020_0003_0000_0001, (0, 0),         (Q, Q),         TDVPS),
    row(F::Rdx,              "RDX",                                  0x1020_0003_0000_0002, (0, 0),         (Q, Q),         TDVPS),
    row(F::R8,               "R8",                                   0x1020_0003_0000_0008, (0, 0),         (Q, Q),         TDVPS),
    row(F::R9,               "R9",                                   0x1020_0003_0000_0009, (0, 0),         (Q, Q),         TDVPS),
    row(F::R10,              "R10",                                  0x1020_0003_0000_000a, (0, 0),         (Q, Q),         TDVPS),
    row(F::R11,              "R11",                                  0x1020_0003_0000_000b, (0, 0),         (Q, Q),         TDVPS),
    row(F::R12,              "R12",                                  0x1020_0003_0000_000c, (0, 0),         (Q, Q),         TDVPS),
    row(F::R13,              "R13",                                  0x1020_0003_0000_000d, (0, 0),         (Q, Q),         TDVPS),
    row(F::State,            "VCPU_STATE",                           0xa020_0000_0000_0000, (0, 0),         (B, 0),         TDVPS),
    row(F::Index,            "VCPU_INDEX",                           0xa020_0002_0000_0002, (D, 0),         (D, 0),         TDVPS),
    row(F::Pages,            "NUM_TDVPS_PAGES",                      0xa020_0000_0000_0003, (B, 0),         (B, 0),         TDVPS),
    row(F::Lp,               "ASSOC_LPID",                           0xa020_0002_0000_0004, (D, 0),         (D, 0),         TDVPS),
    row(F::Epoch,            "VCPU_EPOCH",                           0xa020_0003_0000_0006, (Q, 0),         (Q, 0),         TDVPS),
    row(F::LastExitTsc,      "LAST_EXIT_TSC",                        0xa020_0003_0000_000a, (0, 0),         (Q, 0),         TDVPS),
    row(F::PendNmi,          "PEND_NMI",                             0x2020_0000_0000_000b, (B, B),         (B, B),         TDVPS),
    row(F::LastExit,         "LAST_TD_EXIT",                         0xa020_0000_0000_000f, (0, 0),         (B, 0),         TDVPS),
];

/// What of an id names the field: class (61:56) and field code (23:0). Size, context and "non-architectural" are not
/// looked at, as Linux leaves them out.
const fn key(id: u64) -> (u64, u64) {
    (id >> 56 & 0x3f, id & 0xff_ffff)
}

/// The row of a field id.
pub(crate) fn find(id: u64) -> Option<&'static VpFieldRow> {
    VP_FIELDS.iter().find(|row| key(row.id) == key(id) && fields::is_single(id))
}
/// The id of the field behind this one, of the first field behind none; all ones behind the last.
pub(crate) fn next(row: Option<&VpFieldRow>) -> u64 {
    let mut rows = VP_FIELDS.iter();
    if let Some(row) = row {
        rows.find(|r| *r == row);
    }
    rows.next().map_or(NO_FIELD, |row| row.id)
}

impl VpFieldRow {
    /// The bits that the VMM may read or write.
    pub(crate) const fn mask(&self, access: Access, debug: bool) -> u64 {
        let (read, write) = if debug { self.debug } else { self.production };
        match access {
            Access::Read => read,
            Access::Write => write,
        }
    }
}

/// Which of the guest's registers a field is, by its index in [`crate::reg`].
const fn register(field: VpField) -> Option<usize> {
    match field {
        VpField::Rcx => Some(0),
        VpField::Rdx => Some(1),
        VpField::R8 => Some(2),
        VpField::R9 => Some(3),
        VpField::R10 => Some(4),
        VpField::R11 => Some(5),
        VpField::R12 => Some(6),
        VpField::R13 => Some(7),
        _ => None,
    }
}

/// The whole field of the VCPU at hand.
pub(crate) fn read(cx: &Cx<'_>, field: VpField) -> Result<u64, Status> {
    let vcpu = cx.vcpu(cx.f.scratch.vcpu)?;
    let (controls, regs) = (&vcpu.controls, &vcpu.regs);
    Ok(match field {
        VpField::PostedVector => controls.posted_vector.into(),
        VpField::PostedDescriptor => controls.posted_descriptor,
        VpField::SharedEpt => controls.shared_ept,
        VpField::PinControls => controls.pin_controls.into(),
        VpField::PendNmi => controls.pend_nmi.into(),
        VpField::State => vcpu.state as u64,
        VpField::Index => vcpu.index.into(),
        VpField::Pages => vcpu.pages.len() as u64,
        VpField::Lp => vcpu.lp.map_or(u64::from(u32::MAX), u64::from),
        VpField::Epoch => vcpu.epoch,
        VpField::LastExitTsc => vcpu.last_tsc,
        VpField::LastExit => vcpu.last_exit as u64,
        _ => register(field).and_then(|r| regs.get(r)).copied().unwrap_or(0),
    })
}

/// Whether a field takes this value: addresses are the VMM's own memory, and posted interrupts need both of theirs.
pub(crate) fn check(cx: &Cx<'_>, field: VpField, value: u64) -> Result<(), Status> {
    let controls = &cx.vcpu(cx.f.scratch.vcpu)?.controls;
    match field {
        VpField::PostedDescriptor | VpField::SharedEpt => {
            let bytes = if field == VpField::SharedEpt { 4096 } else { 64 };
            let at = cx.m.spec.keyid.split(value);
            let shared = at.is_some_and(|at| {
                let area = Area { base: at.hpa.0, end: at.hpa.0.saturating_add(bytes) };
                !cx.m.spec.keyid.is_private(at.keyid) && !area.overlaps(&cx.m.spec.tdx.seamrr)
            });
            ensure(shared, Status::METADATA_FIELD_VALUE_NOT_VALID)
        }
        VpField::PinControls if value & 0x80 != 0 => {
            let ready = controls.posted_vector != u16::MAX
                && controls.posted_descriptor != VmmControls::NO_DESCRIPTOR;
            ensure(ready, Status::TD_VMCS_FIELD_NOT_INITIALIZED)
        }
        _ => Ok(()),
    }
}

/// Writes a field of the VCPU at hand. Fields without writable bits stay as they are.
pub(crate) fn write(cx: &mut Cx<'_>, field: VpField, value: u64) -> Result<(), Status> {
    let vcpu = cx.vcpu_mut(cx.f.scratch.vcpu)?;
    let controls = &mut vcpu.controls;
    match field {
        VpField::PostedVector => controls.posted_vector = value as u16,
        VpField::PostedDescriptor => controls.posted_descriptor = value,
        VpField::SharedEpt => controls.shared_ept = value,
        VpField::PinControls => controls.pin_controls = value as u32,
        VpField::PendNmi => controls.pend_nmi = value != 0,
        _ => {
            if let Some(slot) = register(field).and_then(|r| vcpu.regs.get_mut(r)) {
                *slot = value;
            }
        }
    }
    Ok(())
}

/// Touches the line of a field: a load, or a store of the new value. Fields of the management line were loaded before.
pub(crate) fn touch(cx: &mut Cx<'_>, row: &VpFieldRow, new: Option<u64>) -> Result<(), Status> {
    let (tdr, tdvpr) = (cx.f.scratch.td, cx.f.scratch.vcpu);
    let (hkid, vmcs) = (cx.td(tdr)?.hkid, cx.vcpu(tdvpr)?.vmcs());
    let at = match (key(row.id).0, register(row.field)) {
        (0, _) => layout::tdvps_vmcs(vmcs),
        (_, Some(r)) => layout::tdvps_registers(tdvpr, u64::from(r > 1)),
        _ => layout::tdvps_management(tdvpr),
    };
    match new {
        None => cx.f.load(at, hkid, 64),
        Some(value) => cx.f.store(at, hkid, value),
    }
    Ok(())
}

/// The fields of a VCPU that TDH.VP.RD and TDH.VP.WR know, as a table of the book.
pub fn vp_fields_markdown() -> String {
    let mut out = String::from(
        "| Field | Id | VMM reads | VMM writes | of a debug TD: reads | writes | Source |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let cell = |mask: u64| if mask == 0 { "-".to_owned() } else { format!("{mask:#x}") };
    for r in VP_FIELDS {
        let [a, b, c, d] = [r.production.0, r.production.1, r.debug.0, r.debug.1].map(cell);
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "| {} | {:#018x} | {a} | {b} | {c} | {d} | {} |", r.name, r.id, r.cite);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_is_found_by_its_id_with_or_without_size_and_has_a_key_of_its_own() {
        let keys: BTreeSet<_> = VP_FIELDS.iter().map(|r| key(r.id)).collect();
        assert_eq!(keys.len(), VP_FIELDS.len());
        for r in VP_FIELDS {
            assert_eq!(find(r.id), Some(r), "{}", r.name);
            let (class, code) = key(r.id);
            assert_eq!(find(class << 56 | code), Some(r), "{}", r.name);
        }
        // What Linux writes (real-kernel.md S-11, S-12).
        for (id, field) in [
            (0x2, VpField::PostedVector),
            (0x2016, VpField::PostedDescriptor),
            (0x4000, VpField::PinControls),
            (0x203c, VpField::SharedEpt),
        ] {
            assert_eq!(find(id).map(|r| r.field), Some(field));
        }
        assert_eq!(find(0x4), None);
    }

    #[test]
    fn nobody_writes_what_he_cannot_read_and_a_debug_td_hides_nothing_that_another_shows() {
        for r in VP_FIELDS {
            for (read, write) in [r.production, r.debug] {
                assert_eq!(write & !read, 0, "{}", r.name);
            }
            assert_eq!(r.production.0 & !r.debug.0, 0, "{}", r.name);
        }
    }

    #[test]
    fn the_next_field_leads_from_the_first_through_all_to_the_end() {
        let mut ids = vec![next(None)];
        while let Some(row) = ids.last().and_then(|id| find(*id)) {
            ids.push(next(Some(row)));
        }
        let all: Vec<u64> = VP_FIELDS.iter().map(|r| r.id).chain([u64::MAX]).collect();
        assert_eq!(ids, all);
    }

    #[test]
    fn the_fields_as_the_book_prints_them() {
        expect![[r#"
            | Field | Id | VMM reads | VMM writes | of a debug TD: reads | writes | Source |
            |---|---|---|---|---|---|---|
            | posted-interrupt notification vector | 0x0024000100000002 | 0xffff | 0xffff | 0xffff | 0xffff | intel/tdx-module td_vmcs_fields_lookup.c |
            | posted-interrupt descriptor address | 0x0024000300002016 | 0xffffffffffffffff | 0xffffffffffffffc0 | 0xffffffffffffffff | 0xffffffffffffffc0 | intel/tdx-module td_vmcs_fields_lookup.c |
            | shared EPTP | 0x002400030000203c | 0xffffffffff000 | 0xffffffffff000 | 0xffffffffffffffff | 0xffffffffff000 | intel/tdx-module td_vmcs_fields_lookup.c |
            | pin-based controls | 0x0024000200004000 | 0x80 | 0x80 | 0xffffffff | 0x80 | intel/tdx-module td_vmcs_fields_lookup.c |
            | RCX | 0x1020000300000001 | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | RDX | 0x1020000300000002 | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R8 | 0x1020000300000008 | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R9 | 0x1020000300000009 | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R10 | 0x102000030000000a | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R11 | 0x102000030000000b | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R12 | 0x102000030000000c | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | R13 | 0x102000030000000d | - | - | 0xffffffffffffffff | 0xffffffffffffffff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | VCPU_STATE | 0xa020000000000000 | - | - | 0xff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | VCPU_INDEX | 0xa020000200000002 | 0xffffffff | - | 0xffffffff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | NUM_TDVPS_PAGES | 0xa020000000000003 | 0xff | - | 0xff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | ASSOC_LPID | 0xa020000200000004 | 0xffffffff | - | 0xffffffff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | VCPU_EPOCH | 0xa020000300000006 | 0xffffffffffffffff | - | 0xffffffffffffffff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | LAST_EXIT_TSC | 0xa02000030000000a | - | - | 0xffffffffffffffff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | PEND_NMI | 0x202000000000000b | 0xff | 0xff | 0xff | 0xff | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
            | LAST_TD_EXIT | 0xa02000000000000f | - | - | 0xff | - | intel/tdx-module 1.5.01 tdvps_fields_lookup.c |
        "#]].assert_eq(&vp_fields_markdown());
    }
}
