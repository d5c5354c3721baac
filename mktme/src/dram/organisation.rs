//! The shape of a rank: bank groups, banks, rows and columns.

use serde::{Deserialize, Serialize};
use sim_core::platform::{Density, DeviceWidth, DramSpec};

/// A row of [`ORGANISATION_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrganisationRow {
    /// Capacity of a device.
    pub density: Density,
    /// Width of a device.
    pub width: DeviceWidth,
    /// Bank groups of a device.
    pub bank_groups: u8,
    /// Banks of a bank group.
    pub banks_per_group: u8,
    /// Rows of a bank.
    pub rows: u32,
    /// Columns of a row, each as wide as the device.
    pub columns: u16,
    /// From where.
    pub cite: &'static str,
}

const fn o(
    density: Density,
    width: DeviceWidth,
    banks_per_group: u8,
    rows: u32,
    columns: u16,
    cite: &'static str,
) -> OrganisationRow {
    OrganisationRow { density, width, bank_groups: 8, banks_per_group, rows, columns, cite }
}

/// The organisation of every device (timing.md §2.1).
///
/// 24 Gb devices have three quarters of the rows that their row address could name. The map does not care: addresses
/// beyond what is installed decode to rows with larger numbers, and those of 24 Gb begin at 98304 instead of 131072.
pub const ORGANISATION_TABLE: [OrganisationRow; 8] = {
    use Density::{Gb8, Gb16, Gb24, Gb32};
    use DeviceWidth::{X4, X8};
    const DERIVED: &str = "derived: 24 Gb / (32 banks x columns x width); not in timing.md §2.1";
    [
        o(Gb8, X4, 2, 1 << 16, 1 << 11, "timing.md §2.1"),
        o(Gb8, X8, 2, 1 << 16, 1 << 10, "timing.md §2.1"),
        o(Gb16, X4, 4, 1 << 16, 1 << 11, "timing.md §2.1"),
        o(Gb16, X8, 4, 1 << 16, 1 << 10, "timing.md §2.1"),
        o(Gb24, X4, 4, 3 << 15, 1 << 11, DERIVED),
        o(Gb24, X8, 4, 3 << 15, 1 << 10, DERIVED),
        o(Gb32, X4, 4, 1 << 17, 1 << 11, "timing.md §2.1"),
        o(Gb32, X8, 4, 1 << 17, 1 << 10, "timing.md §2.1"),
    ]
};

/// The shape of a subchannel: plain data, of which experiments may make any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Organisation {
    /// Ranks, a power of two from 1 to 4.
    pub ranks: u8,
    /// Bank groups per rank, a power of two from 1 to 8.
    pub bank_groups: u8,
    /// Banks per bank group, a power of two from 1 to 4.
    pub banks_per_group: u8,
    /// Rows of a bank that are installed, 1 to 2^18.
    pub rows: u32,
    /// Columns of a row, a power of two from 32 to 2^12: a line is a burst of 16.
    pub columns: u32,
}

impl Organisation {
    /// Columns of a burst.
    pub const BURST: u32 = 16;

    /// The organisation of a platform's subchannels.
    pub const fn of(spec: &DramSpec) -> Organisation {
        let row = &ORGANISATION_TABLE[spec.density as usize * 2 + spec.width as usize];
        Organisation {
            ranks: spec.ranks,
            bank_groups: row.bank_groups,
            banks_per_group: row.banks_per_group,
            rows: row.rows,
            columns: row.columns as u32,
        }
    }
    /// Lines of a row.
    pub const fn lines_per_row(&self) -> u32 {
        self.columns / Self::BURST
    }
    /// Banks of a rank.
    pub const fn banks(&self) -> u32 {
        self.bank_groups as u32 * self.banks_per_group as u32
    }
    /// Lines that a subchannel holds.
    pub const fn lines(&self) -> u64 {
        self.ranks as u64 * self.banks() as u64 * self.rows as u64 * self.lines_per_row() as u64
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The name and value of the first that is out of its range.
    pub const fn check(&self) -> Result<(), (&'static str, u64)> {
        const fn power(n: u64, lo: u64, hi: u64) -> bool {
            n.is_power_of_two() && n >= lo && n <= hi
        }
        if !power(self.ranks as u64, 1, 4) {
            return Err(("ranks", self.ranks as u64));
        }
        if !power(self.bank_groups as u64, 1, 8) {
            return Err(("bank groups", self.bank_groups as u64));
        }
        if !power(self.banks_per_group as u64, 1, 4) {
            return Err(("banks per group", self.banks_per_group as u64));
        }
        if !power(self.columns as u64, 32, 1 << 12) {
            return Err(("columns", self.columns as u64));
        }
        if self.rows == 0 || self.rows > 1 << 18 {
            return Err(("rows", self.rows as u64));
        }
        Ok(())
    }
}

/// [`ORGANISATION_TABLE`] as a page of the book.
pub fn organisation_markdown() -> String {
    let mut out = String::from(
        "| Device | Bank groups | Banks per group | Rows | Columns | Lines per row | Source |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in &ORGANISATION_TABLE {
        out += &format!(
            "| {:?} {:?} | {} | {} | {} | {} | {} | {} |\n",
            row.density,
            row.width,
            row.bank_groups,
            row.banks_per_group,
            row.rows,
            row.columns,
            u32::from(row.columns) / Organisation::BURST,
            row.cite
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_density_and_width_has_exactly_its_own_row() {
        use Density::{Gb8, Gb16, Gb24, Gb32};
        let mut rows = ORGANISATION_TABLE.iter();
        for density in [Gb8, Gb16, Gb24, Gb32] {
            for width in [DeviceWidth::X4, DeviceWidth::X8] {
                let row = rows.next().unwrap();
                assert_eq!((row.density, row.width), (density, width));
                let found =
                    Organisation::of(&DramSpec { density, width, ..super::super::tests::spec() });
                assert_eq!((found.rows, found.columns), (row.rows, row.columns.into()));
                assert_eq!(found.banks_per_group, row.banks_per_group);
                assert_eq!(found.check(), Ok(()));
                assert!(!row.cite.is_empty());
            }
        }
        assert!(rows.next().is_none());
    }

    #[test]
    fn every_device_has_its_capacity_and_a_page_of_1_kib() {
        for (row, gib) in ORGANISATION_TABLE.iter().zip([8, 8, 16, 16, 24, 24, 32, 32]) {
            let bits = if row.width == DeviceWidth::X4 { 4 } else { 8 };
            let page = u64::from(row.columns) * bits;
            assert_eq!(page, 8 << 10, "timing.md §2.2: tFAW is that of a page of 1 KiB");
            let banks = u64::from(row.bank_groups) * u64::from(row.banks_per_group);
            assert_eq!(banks * u64::from(row.rows) * page, gib << 30, "{row:?}");
        }
    }
}
