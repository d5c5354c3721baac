//! DDR5 timing parameters per speed grade.
//!
//! All values are clocks of the subchannel (nCK) at the grade's tCK. Times are turned into clocks with the exact data
//! rate, `ceil(ns * MT/s / 2000)`, and not with the truncated tCK of the model, which would make 30 ns 73 clocks at 4800
//! where JEDEC has 72. Refresh intervals are rounded down instead.
//!
//! Where sources differ (timing.md §2.1, §2.2; verification.md §5.2) there is a choice in [`DramSpec`]. Its defaults:
//! * Bin: the JEDEC "B" bins that servers use. The sheet has no DDR5-5200 bin; 42-42-42 is assumed. `an` is Ramulator's AN column
//!   as it is, which differs from JEDEC's formulas in tCCD_L, tWTR_S and tRTP as well.
//! * tFAW: 32 nCK (JEDEC 1 KB page, gem5), not the 20 ns of Ramulator. tFAW is then exactly 4 tRRD_S and never binds.
//! * tRRD_L: `max(8, 5 ns)`, as tCCD_L.
//! * tCCD_L_WR: `max(32, 20 ns)` (a x4 write is a read-modify-write on the die; Ramulator agrees, gem5 has none). For x8
//!   JEDEC's tCCD_L_WR2, `max(16, 10 ns)`, is the right choice.
//!
//! The tCK of a grade is the sheet's, cut to whole picoseconds: the model's peak is that of its own clock, up to 0.16 %
//! above the nominal one.

use serde::{Deserialize, Serialize};
use sim_core::Ps;
use sim_core::platform::{CcdLWrRule, Density, DramSpec, FawRule, RrdLRule, SpeedBin, SpeedGrade};
use std::fmt;
use thiserror::Error;

/// A timing parameter, in clocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Parameter {
    /// CAS latency: RD to the first beat of data.
    Cl,
    /// CAS write latency: WR to the first beat of data.
    Cwl,
    /// Half the burst length: how long a burst of 16 holds the data bus.
    HalfBurst,
    /// tRCD: ACT to RD or WR.
    Rcd,
    /// tRP: PRE to ACT.
    Rp,
    /// tRAS: ACT to PRE.
    Ras,
    /// tRC: ACT to ACT of one bank.
    Rc,
    /// tRTP: RD to PRE.
    Rtp,
    /// tWR: end of write data to PRE.
    Wr,
    /// tCCD_S: RD to RD, any bank group.
    CcdS,
    /// tCCD_L: RD to RD, same bank group.
    CcdL,
    /// tCCD_S_WR: WR to WR, any bank group.
    CcdSWr,
    /// tCCD_L_WR: WR to WR, same bank group.
    CcdLWr,
    /// tWTR_S: end of write data to RD, any bank group.
    WtrS,
    /// tWTR_L: end of write data to RD, same bank group.
    WtrL,
    /// tRRD_S: ACT to ACT, any bank group.
    RrdS,
    /// tRRD_L: ACT to ACT, same bank group.
    RrdL,
    /// tFAW: first to fifth ACT of a rank.
    Faw,
    /// tPPD: PRE to PRE.
    Ppd,
    /// tCS: idle clocks on the data bus when another rank takes over.
    Cs,
    /// Idle clocks on the data bus between read data and write data of a rank.
    RtwGap,
    /// tRFC1: REFab to the next command of the rank.
    Rfc,
    /// tRFCsb: REFsb to ACT of a refreshed bank.
    RfcSb,
    /// tREFSBRD: REFsb to ACT of another bank.
    RefSbRd,
    /// tREFI1: mean time between REFab of a rank.
    Refi,
    /// tREFI2: mean time between REFsb of a bank.
    Refi2,
    /// Command bus slots of ACT, RD, WR, RDA and WRA.
    LongSlots,
    /// Command bus slots of PRE, PREab, REFab and REFsb.
    ShortSlots,
}

/// How many parameters there are.
pub const PARAMETER_COUNT: usize = 28;

/// How well a row is founded (timing.md §0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// Read in the named source.
    Verified,
    /// Recalled from the named document by the sheet.
    Recalled,
    /// Arithmetic on other rows.
    Derived,
    /// No source.
    Assumed,
}

/// Where the clocks of a parameter come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clocks {
    /// Clocks by column: 4800B, 5200B, 5600B, 6400B, 4800AN, 5600AN, 6400AN.
    Column([u32; COLUMN_COUNT]),
    /// The same for all.
    Fixed(u32),
    /// `max(least, time)`, the time in tenths of a nanosecond.
    Least(u32, u32),
    /// By [`FawRule`].
    Faw,
    /// By [`CcdLWrRule`].
    CcdLWr,
    /// By [`RrdLRule`].
    RrdL,
    /// [`DENSITY_TABLE`], tRFC1.
    Rfc1,
    /// [`DENSITY_TABLE`], tRFCsb.
    RfcSb,
    /// A mean interval in nanoseconds, rounded down; halved when hot.
    Interval(u32),
}

/// A row of [`TIMING_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimingRow {
    /// Which parameter.
    pub parameter: Parameter,
    /// As JEDEC spells it.
    pub name: &'static str,
    /// How many clocks.
    pub clocks: Clocks,
    /// How well founded.
    pub tag: Tag,
    /// From where.
    pub cite: &'static str,
}

const fn row(
    parameter: Parameter,
    name: &'static str,
    clocks: Clocks,
    tag: Tag,
    cite: &'static str,
) -> TimingRow {
    TimingRow { parameter, name, clocks, tag, cite }
}

/// The timing parameters, in the order of [`Parameter`].
#[rustfmt::skip]
pub const TIMING_TABLE: [TimingRow; PARAMETER_COUNT] = {
    use Clocks::{Column, Fixed, Interval};
    use Parameter as P;
    use Tag::{Derived, Recalled, Verified};
    [
        row(P::Cl, "CL", Column([40, 42, 46, 52, 34, 40, 46]), Recalled, "B: timing.md §2.2, 5200B assumed; AN: §2.1 [V]"),
        row(P::Cwl, "CWL", Column([38, 40, 44, 50, 32, 38, 44]), Derived, "timing.md §2.1: CL - 2 in every column"),
        row(P::HalfBurst, "BL/2", Fixed(8), Verified, "timing.md §2.1: nBL 8"),
        row(P::Rcd, "tRCD", Column([39, 42, 45, 52, 34, 40, 46]), Recalled, "B: timing.md §2.2, 5200B assumed; AN: §2.1 [V]"),
        row(P::Rp, "tRP", Column([39, 42, 45, 52, 34, 40, 46]), Recalled, "B: timing.md §2.2, 5200B assumed; AN: §2.1 [V]"),
        row(P::Ras, "tRAS", Column([77, 84, 90, 103, 77, 90, 103]), Verified, "timing.md §2.2: 32 ns; §2.1"),
        row(P::Rc, "tRC", Column([116, 126, 135, 155, 111, 130, 149]), Derived, "timing.md §2.2: tRAS + tRP; AN: §2.1"),
        row(P::Rtp, "tRTP", Column([18, 20, 21, 24, 18, 20, 24]), Recalled, "timing.md §2.2: max(12, 7.5 ns); AN: §2.1 [V]"),
        row(P::Wr, "tWR", Column([72, 78, 84, 96, 72, 84, 96]), Verified, "timing.md §2.2: 30 ns; §2.1"),
        row(P::CcdS, "tCCD_S", Fixed(8), Verified, "timing.md §2.1, §2.2"),
        row(P::CcdL, "tCCD_L", Column([12, 13, 14, 16, 12, 12, 16]), Recalled, "timing.md §2.2: max(8, 5 ns); AN: §2.1 [V]"),
        row(P::CcdSWr, "tCCD_S_WR", Fixed(8), Verified, "timing.md §2.1"),
        row(P::CcdLWr, "tCCD_L_WR", Clocks::CcdLWr, Verified, "timing.md §2.2: max(32, 20 ns), or tCCD_L_WR2 max(16, 10 ns) [R], or gem5's tCCD_L"),
        row(P::WtrS, "tWTR_S", Column([6, 7, 7, 8, 6, 5, 5]), Recalled, "timing.md §2.2: max(4, 2.5 ns); AN: §2.1 [V]"),
        row(P::WtrL, "tWTR_L", Column([24, 26, 28, 32, 24, 28, 32]), Verified, "timing.md §2.2: max(16, 10 ns); §2.1"),
        row(P::RrdS, "tRRD_S", Fixed(8), Verified, "timing.md §2.1, §2.2"),
        row(P::RrdL, "tRRD_L", Clocks::RrdL, Verified, "timing.md §2.1: max(8, 5 ns), or 8"),
        row(P::Faw, "tFAW", Clocks::Faw, Recalled, "timing.md §2.2: 32 clocks, JEDEC 1 KB page, gem5 §2.3; or max(32, 20 ns), Ramulator"),
        row(P::Ppd, "tPPD", Fixed(2), Verified, "timing.md §2.1"),
        row(P::Cs, "tCS", Fixed(2), Verified, "timing.md §2.1"),
        row(P::RtwGap, "tRTW gap", Fixed(4), Verified, "timing.md §0 ramulator2 `ddr5.py`: nCL + nBL + 2 - nCWL + 2"),
        row(P::Rfc, "tRFC1", Clocks::Rfc1, Verified, "timing.md §2.2"),
        row(P::RfcSb, "tRFCsb", Clocks::RfcSb, Verified, "timing.md §2.2"),
        row(P::RefSbRd, "tREFSBRD", Clocks::Least(0, 300), Recalled, "JESD79-5 draft, Table 26, as quoted publicly: 30 ns; no row on the sheet"),
        row(P::Refi, "tREFI1", Interval(3900), Verified, "timing.md §2.1, §2.2: 3.9 us, halved above 85 °C"),
        row(P::Refi2, "tREFI2", Interval(1950), Recalled, "timing.md §2.2: 1.95 us, halved above 85 °C"),
        row(P::LongSlots, "nCMD(ACT, RD, WR)", Fixed(2), Verified, "timing.md §2.1 command slots"),
        row(P::ShortSlots, "nCMD(PRE, REF)", Fixed(1), Derived, "timing.md §2.1: only ACT, RD, WR take two"),
    ]
};

/// A row of [`DENSITY_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DensityRow {
    /// Capacity of a device.
    pub density: Density,
    /// tRFC1 in nanoseconds.
    pub rfc1: u32,
    /// tRFCsb in nanoseconds.
    pub rfc_sb: u32,
    /// How well founded.
    pub tag: Tag,
    /// From where.
    pub cite: &'static str,
}

/// How long a refresh takes.
#[rustfmt::skip]
pub const DENSITY_TABLE: [DensityRow; 4] = [
    DensityRow { density: Density::Gb8, rfc1: 195, rfc_sb: 115, tag: Tag::Verified, cite: "timing.md §2.2" },
    DensityRow { density: Density::Gb16, rfc1: 295, rfc_sb: 130, tag: Tag::Verified, cite: "timing.md §2.2" },
    DensityRow { density: Density::Gb24, rfc1: 410, rfc_sb: 190, tag: Tag::Recalled, cite: "timing.md §2.2" },
    DensityRow { density: Density::Gb32, rfc1: 410, rfc_sb: 190, tag: Tag::Recalled, cite: "timing.md §2.2: tRFC1 [V], tRFCsb [R]" },
];

/// How many columns [`TIMING_TABLE`] has.
pub const COLUMN_COUNT: usize = 7;

/// A row of [`GRADE_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GradeRow {
    /// Which grade.
    pub grade: SpeedGrade,
    /// Transfers per microsecond (MT/s).
    pub rate: u32,
    /// tCK in picoseconds.
    pub tck: Ps,
    /// Position of its AN column in [`TIMING_TABLE`]; that of its B column is that of the row here.
    pub an: Option<usize>,
    /// From where.
    pub cite: &'static str,
}

/// The clock of every speed grade.
#[rustfmt::skip]
pub const GRADE_TABLE: [GradeRow; 4] = [
    GradeRow { grade: SpeedGrade::Ddr5_4800, rate: 4800, tck: Ps(416), an: Some(4), cite: "timing.md §2.1" },
    GradeRow { grade: SpeedGrade::Ddr5_5200, rate: 5200, tck: Ps(384), an: None, cite: "2 / 5200 MT/s, cut as §2.1 cuts" },
    GradeRow { grade: SpeedGrade::Ddr5_5600, rate: 5600, tck: Ps(357), an: Some(5), cite: "timing.md §2.1" },
    GradeRow { grade: SpeedGrade::Ddr5_6400, rate: 6400, tck: Ps(312), an: Some(6), cite: "timing.md §2.1" },
];

/// The timing of a subchannel: tCK and a number of clocks per [`Parameter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timing {
    tck: Ps,
    clocks: [u32; PARAMETER_COUNT],
}

/// Why a timing is refused (verification.md §2.11 Q10).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TimingError {
    /// tCK outside 200 to 2000 ps.
    #[error("tCK is {0}, expected 200 ps to 2000 ps")]
    Clock(Ps),
    /// There is no such column.
    #[error("{0:?} has no AN column (timing.md §2.1)")]
    NoBin(SpeedGrade),
    /// A parameter of more than 2^20 clocks.
    #[error("{0} is more than 2^20 clocks")]
    TooLong(Parameter),
    /// A parameter smaller than the specification allows beside another.
    #[error("{rule} does not hold: {left} < {right}")]
    Rule {
        /// The rule, as `left ≥ right`.
        rule: &'static str,
        /// Clocks found on the left.
        left: u32,
        /// Clocks found on the right.
        right: u32,
    },
}

impl Parameter {
    /// As JEDEC spells it.
    pub const fn name(self) -> &'static str {
        TIMING_TABLE[self as usize].name
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a timing depends on.
struct Choices {
    grade: SpeedGrade,
    /// Of [`TIMING_TABLE`].
    column: usize,
    density: Density,
    faw: FawRule,
    ccd_l_wr: CcdLWrRule,
    rrd_l: RrdLRule,
    refresh_hot: bool,
}

impl Choices {
    fn timing(&self) -> Timing {
        let grade = &GRADE_TABLE[self.grade as usize];
        // Tenths of a nanosecond in clocks of the exact rate, rounded up.
        let at_least = |least: u32, tenths: u32| least.max((tenths * grade.rate).div_ceil(20_000));
        let density = &DENSITY_TABLE[self.density as usize];
        let pick = |clocks: &[u32; COLUMN_COUNT]| clocks.get(self.column).copied().unwrap_or(0);
        let clocks = TIMING_TABLE.map(|row| match row.clocks {
            Clocks::Column(clocks) => pick(&clocks),
            Clocks::Fixed(clocks) => clocks,
            Clocks::Least(least, tenths) => at_least(least, tenths),
            Clocks::Faw => match self.faw {
                FawRule::Clocks32 => 32,
                FawRule::Ns20 => at_least(32, 200),
            },
            Clocks::CcdLWr => {
                match (self.ccd_l_wr, TIMING_TABLE[Parameter::CcdL as usize].clocks) {
                    (CcdLWrRule::Ns20, _) => at_least(32, 200),
                    (CcdLWrRule::Ns10, _) => at_least(16, 100),
                    (CcdLWrRule::CcdL, Clocks::Column(clocks)) => pick(&clocks),
                    (CcdLWrRule::CcdL, _) => at_least(8, 50),
                }
            }
            Clocks::RrdL => match self.rrd_l {
                RrdLRule::Ns5 => at_least(8, 50),
                RrdLRule::Clocks8 => 8,
            },
            Clocks::Rfc1 => at_least(0, density.rfc1 * 10),
            Clocks::RfcSb => at_least(0, density.rfc_sb * 10),
            Clocks::Interval(ns) => {
                let ns = if self.refresh_hot { ns / 2 } else { ns };
                ns * grade.rate / 2_000
            }
        });
        Timing { tck: grade.tck, clocks }
    }
}

impl Timing {
    /// The timing of a platform's subchannels.
    ///
    /// # Errors
    /// [`TimingError::NoBin`].
    pub fn of(spec: &DramSpec) -> Result<Timing, TimingError> {
        let column = match spec.bin {
            SpeedBin::B => spec.grade as usize,
            SpeedBin::An => {
                GRADE_TABLE[spec.grade as usize].an.ok_or(TimingError::NoBin(spec.grade))?
            }
        };
        let DramSpec { grade, density, faw, ccd_l_wr, rrd_l, refresh_hot, .. } = *spec;
        Ok(Choices { grade, column, density, faw, ccd_l_wr, rrd_l, refresh_hot }.timing())
    }
    /// The timing of a speed grade: bin B, 16 Gb devices, JEDEC's rules for x4, not hot.
    pub fn of_grade(grade: SpeedGrade) -> Timing {
        Choices {
            grade,
            column: grade as usize,
            density: Density::Gb16,
            faw: FawRule::Clocks32,
            ccd_l_wr: CcdLWrRule::Ns20,
            rrd_l: RrdLRule::Ns5,
            refresh_hot: false,
        }
        .timing()
    }
    /// The clock period.
    pub const fn tck(&self) -> Ps {
        self.tck
    }
    /// Clocks of a parameter.
    pub const fn clocks(&self, parameter: Parameter) -> u32 {
        self.clocks[parameter as usize]
    }
    /// How long a parameter lasts.
    pub const fn time(&self, parameter: Parameter) -> Ps {
        self.tck.times(self.clocks(parameter) as u64)
    }
    /// The same timing with another value of one parameter, for experiments.
    #[must_use]
    pub const fn with(mut self, parameter: Parameter, clocks: u32) -> Timing {
        self.clocks[parameter as usize] = clocks;
        self
    }
    /// The clock edge at or after a moment.
    pub const fn edge_from(&self, at: Ps) -> u64 {
        at.0.div_ceil(self.divisor())
    }
    /// The clock edge at or before a moment.
    pub const fn edge_until(&self, at: Ps) -> u64 {
        at.0 / self.divisor()
    }
    /// The moment of a clock edge.
    pub const fn moment(&self, edge: u64) -> Ps {
        self.tck.times(edge)
    }
    const fn divisor(&self) -> u64 {
        if self.tck.0 == 0 { 1 } else { self.tck.0 }
    }

    /// Checks that the parameters fit together (verification.md §2.11 Q10).
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), TimingError> {
        use Parameter as P;
        if !(200..=2000).contains(&self.tck.0) {
            return Err(TimingError::Clock(self.tck));
        }
        for row in &TIMING_TABLE {
            if self.clocks(row.parameter) > 1 << 20 {
                return Err(TimingError::TooLong(row.parameter));
            }
        }
        let c = |p| self.clocks(p);
        for (rule, left, right) in [
            ("tCCD_L ≥ tCCD_S", c(P::CcdL), c(P::CcdS)),
            ("tCCD_L_WR ≥ tCCD_S_WR", c(P::CcdLWr), c(P::CcdSWr)),
            ("tWTR_L ≥ tWTR_S", c(P::WtrL), c(P::WtrS)),
            ("tRRD_L ≥ tRRD_S", c(P::RrdL), c(P::RrdS)),
            ("tRC ≥ tRAS + tRP", c(P::Rc), c(P::Ras) + c(P::Rp)),
            ("tFAW ≥ 4 tRRD_S", c(P::Faw), 4 * c(P::RrdS)),
            ("CL ≥ CWL + 1", c(P::Cl), c(P::Cwl) + 1),
            ("tCCD_S ≥ BL/2", c(P::CcdS), c(P::HalfBurst)),
            ("tCCD_S_WR ≥ BL/2", c(P::CcdSWr), c(P::HalfBurst)),
            ("BL/2 ≥ 1", c(P::HalfBurst), 1),
            ("CWL + BL/2 + tCS ≥ CL", c(P::Cwl) + c(P::HalfBurst) + c(P::Cs), c(P::Cl)),
            ("tRFC1 ≥ tRFCsb", c(P::Rfc), c(P::RfcSb)),
            ("tRFCsb ≥ tREFSBRD", c(P::RfcSb), c(P::RefSbRd)),
            // The loss of verification.md §2.11 Q12 must be below one.
            (
                "tREFI1 ≥ tRTP + tRP + tRFC1 + tRCD + 1",
                c(P::Refi),
                c(P::Rtp) + c(P::Rp) + c(P::Rfc) + c(P::Rcd) + 1,
            ),
            (
                "tREFI2 ≥ tRTP + tRP + tRFCsb + tRCD + 1",
                c(P::Refi2),
                c(P::Rtp) + c(P::Rp) + c(P::RfcSb) + c(P::Rcd) + 1,
            ),
            // REFsb of four banks in turn.
            ("tREFI2 ≥ 4 (tRFCsb + 1)", c(P::Refi2), 4 * (c(P::RfcSb) + 1)),
            ("tREFI1 ≥ tREFI2", c(P::Refi), c(P::Refi2)),
            ("nCMD(ACT, RD, WR) ≥ nCMD(PRE, REF)", c(P::LongSlots), c(P::ShortSlots)),
            ("nCMD(PRE, REF) ≥ 1", c(P::ShortSlots), 1),
        ] {
            if left < right {
                return Err(TimingError::Rule { rule, left, right });
            }
        }
        Ok(())
    }
}

/// [`GRADE_TABLE`], [`TIMING_TABLE`] and [`DENSITY_TABLE`] as a page of the book.
pub fn timing_markdown() -> String {
    let mut out = String::from("| Parameter |");
    for grade in &GRADE_TABLE {
        out += &format!(" {}B |", grade.rate);
    }
    for grade in GRADE_TABLE.iter().filter(|g| g.an.is_some()) {
        out += &format!(" {}AN |", grade.rate);
    }
    out += " Standing | Source |\n|---|---|---|---|---|---|---|---|---|---|\n| tCK (ps) |";
    for grade in GRADE_TABLE.iter().chain(GRADE_TABLE.iter().filter(|g| g.an.is_some())) {
        out += &format!(" {} |", grade.tck.0);
    }
    out += " Verified | timing.md §2.1; 5200 derived |\n";
    for row in &TIMING_TABLE {
        out += &format!("| {} |", row.name);
        let all = |text: &str| format!(" {text} |").repeat(COLUMN_COUNT);
        out += &match row.clocks {
            Clocks::Column(clocks) => clocks.map(|n| format!(" {n} |")).concat(),
            Clocks::Fixed(clocks) => all(&clocks.to_string()),
            Clocks::Least(_, tenths) => all(&format!("{} ns", tenths / 10)),
            Clocks::Faw => all("`dram.faw`"),
            Clocks::CcdLWr => all("`dram.ccd_l_wr`"),
            Clocks::RrdL => all("`dram.rrd_l`"),
            Clocks::Rfc1 | Clocks::RfcSb => all("`dram.density`"),
            Clocks::Interval(ns) => all(&format!("{ns} ns")),
        };
        out += &format!(" {:?} | {} |\n", row.tag, row.cite);
    }
    out += "\n| Density | tRFC1 (ns) | tRFCsb (ns) | Standing | Source |\n|---|---|---|---|---|\n";
    for row in &DENSITY_TABLE {
        let DensityRow { density, rfc1, rfc_sb, tag, cite } = row;
        out += &format!("| {density:?} | {rfc1} | {rfc_sb} | {tag:?} | {cite} |\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::*;
    use Parameter as P;

    const GRADES: [SpeedGrade; 4] = [
        SpeedGrade::Ddr5_4800,
        SpeedGrade::Ddr5_5200,
        SpeedGrade::Ddr5_5600,
        SpeedGrade::Ddr5_6400,
    ];

    #[test]
    fn every_parameter_has_exactly_its_own_row_and_every_row_a_source() {
        for (i, row) in TIMING_TABLE.iter().enumerate() {
            assert_eq!(row.parameter as usize, i, "{}", row.name);
            assert!(!row.cite.is_empty(), "{}", row.name);
            for grade in GRADES {
                assert!(Timing::of_grade(grade).clocks(row.parameter) > 0, "{}", row.name);
            }
        }
        assert_eq!(TIMING_TABLE.last().map(|r| r.parameter), Some(P::ShortSlots));
    }

    #[test]
    fn every_grade_has_exactly_its_own_column() {
        for (i, grade) in GRADES.into_iter().enumerate() {
            assert_eq!((grade as usize, GRADE_TABLE[i].grade), (i, grade));
        }
    }

    #[test]
    fn every_row_is_read_by_a_constraint_or_by_a_latency() {
        let used = |p| {
            super::super::constraint::CONSTRAINTS
                .iter()
                .any(|c| c.plus.contains(&p) || c.minus.contains(&p))
        };
        // The controller's own, when it schedules refresh.
        let scheduler = [P::Refi, P::Refi2];
        for row in &TIMING_TABLE {
            let read = used(row.parameter) || scheduler.contains(&row.parameter);
            assert!(read, "{} is read by nobody", row.name);
        }
    }

    #[test]
    fn every_grade_passes_the_sanity_rules() {
        for grade in GRADES {
            assert_eq!(Timing::of_grade(grade).check(), Ok(()), "{grade:?}");
        }
    }

    #[test]
    fn every_sanity_rule_refuses_a_timing_that_breaks_it() {
        let good = Timing::of_grade(SpeedGrade::Ddr5_4800);
        let shown: Vec<String> = [
            good.with(P::CcdL, 7),
            good.with(P::CcdLWr, 7),
            good.with(P::WtrL, 5),
            good.with(P::RrdL, 5).with(P::RrdS, 8),
            good.with(P::Rc, 115),
            good.with(P::Faw, 31),
            good.with(P::Cwl, 40),
            good.with(P::CcdS, 7),
            good.with(P::CcdSWr, 7),
            good.with(P::HalfBurst, 0),
            good.with(P::Cwl, 20),
            good.with(P::RfcSb, 709),
            good.with(P::RefSbRd, 313),
            good.with(P::Refi, 18 + 39 + 708 + 39),
            good.with(P::Refi2, 18 + 39 + 312 + 39),
            good.with(P::Refi2, 4 * 312 + 3),
            good.with(P::Refi, 4679),
            good.with(P::LongSlots, 0),
            good.with(P::ShortSlots, 0),
            good.with(P::Rcd, u32::MAX),
            Timing { tck: Ps(0), ..good },
        ]
        .iter()
        .map(|t| t.check().unwrap_err().to_string())
        .collect();
        expect_test::expect![[r#"
            tCCD_L ≥ tCCD_S does not hold: 7 < 8
            tCCD_L_WR ≥ tCCD_S_WR does not hold: 7 < 8
            tWTR_L ≥ tWTR_S does not hold: 5 < 6
            tRRD_L ≥ tRRD_S does not hold: 5 < 8
            tRC ≥ tRAS + tRP does not hold: 115 < 116
            tFAW ≥ 4 tRRD_S does not hold: 31 < 32
            CL ≥ CWL + 1 does not hold: 40 < 41
            tCCD_S ≥ BL/2 does not hold: 7 < 8
            tCCD_S_WR ≥ BL/2 does not hold: 7 < 8
            BL/2 ≥ 1 does not hold: 0 < 1
            CWL + BL/2 + tCS ≥ CL does not hold: 30 < 40
            tRFC1 ≥ tRFCsb does not hold: 708 < 709
            tRFCsb ≥ tREFSBRD does not hold: 312 < 313
            tREFI1 ≥ tRTP + tRP + tRFC1 + tRCD + 1 does not hold: 804 < 805
            tREFI2 ≥ tRTP + tRP + tRFCsb + tRCD + 1 does not hold: 408 < 409
            tREFI2 ≥ 4 (tRFCsb + 1) does not hold: 1251 < 1252
            tREFI1 ≥ tREFI2 does not hold: 4679 < 4680
            nCMD(ACT, RD, WR) ≥ nCMD(PRE, REF) does not hold: 0 < 1
            nCMD(PRE, REF) ≥ 1 does not hold: 0 < 1
            tRCD is more than 2^20 clocks
            tCK is 0 ps, expected 200 ps to 2000 ps"#]]
        .assert_eq(&shown.join("\n"));
    }

    /// The formulas of timing.md §2.2, computed here from nanoseconds and the data rate.
    #[test]
    fn clocks_are_the_sheets_nanoseconds_rounded_up_at_the_exact_rate() {
        for grade in GRADES {
            let (t, rate) = (Timing::of_grade(grade), GRADE_TABLE[grade as usize].rate);
            let ns10 = |tenths: u32| (tenths * rate).div_ceil(20_000);
            for (parameter, least, tenths) in [
                (P::Ras, 0, 320),
                (P::Wr, 0, 300),
                (P::Rtp, 12, 75),
                (P::CcdL, 8, 50),
                (P::RrdL, 8, 50),
                (P::CcdLWr, 32, 200),
                (P::WtrS, 4, 25),
                (P::WtrL, 16, 100),
                (P::Rfc, 0, 2950),
                (P::RfcSb, 0, 1300),
                (P::RefSbRd, 0, 300),
            ] {
                assert_eq!(t.clocks(parameter), ns10(tenths).max(least), "{parameter} {grade:?}");
            }
            assert_eq!(t.clocks(P::Rc), t.clocks(P::Ras) + t.clocks(P::Rp));
            assert_eq!(t.clocks(P::Cwl) + 2, t.clocks(P::Cl));
            // Intervals are rounded down: a refresh may come earlier, not later.
            assert_eq!(t.clocks(P::Refi), 3900 * rate / 2000);
            assert_eq!(t.clocks(P::Refi2), 1950 * rate / 2000);
            // tCK is the nominal period cut to whole picoseconds.
            assert_eq!(t.tck().0, 2_000_000 / u64::from(rate));
        }
    }

    /// timing.md §2.1, read off the sheet.
    #[test]
    fn the_an_bin_is_ramulators_column() {
        let of = |grade| Timing::of(&DramSpec { grade, bin: SpeedBin::An, ..spec() });
        for (grade, cl, ras, rc, wr, rtp, cwl, ccd_l, ccd_l_wr, wtr_s, wtr_l, rrd_l) in [
            (SpeedGrade::Ddr5_4800, 34, 77, 111, 72, 18, 32, 12, 48, 6, 24, 12),
            (SpeedGrade::Ddr5_5600, 40, 90, 130, 84, 20, 38, 12, 56, 5, 28, 14),
            (SpeedGrade::Ddr5_6400, 46, 103, 149, 96, 24, 44, 16, 64, 5, 32, 16),
        ] {
            let t = of(grade).unwrap();
            assert_eq!(t.check(), Ok(()), "{grade:?}");
            for (parameter, clocks) in [
                (P::Cl, cl),
                (P::Rcd, cl),
                (P::Rp, cl),
                (P::Ras, ras),
                (P::Rc, rc),
                (P::Wr, wr),
                (P::Rtp, rtp),
                (P::Cwl, cwl),
                (P::CcdL, ccd_l),
                (P::CcdLWr, ccd_l_wr),
                (P::WtrS, wtr_s),
                (P::WtrL, wtr_l),
                (P::RrdL, rrd_l),
            ] {
                assert_eq!(t.clocks(parameter), clocks, "{parameter} {grade:?}");
            }
        }
        assert_eq!(of(SpeedGrade::Ddr5_5200), Err(TimingError::NoBin(SpeedGrade::Ddr5_5200)));
    }

    /// What each choice changes, at 4800, 5200, 5600 and 6400.
    #[test]
    fn every_choice_changes_its_own_parameter_and_passes_the_sanity_rules() {
        use Density::{Gb8, Gb16, Gb24, Gb32};
        let dram = |change: fn(&mut DramSpec)| {
            GRADES.map(|grade| {
                let mut spec = DramSpec { grade, ..spec() };
                change(&mut spec);
                let timing = Timing::of(&spec).unwrap();
                assert_eq!(timing.check(), Ok(()), "{spec:?}");
                timing
            })
        };
        let plain = dram(|_| ());
        assert_eq!(plain, GRADES.map(Timing::of_grade));
        type Case = (fn(&mut DramSpec), &'static [(Parameter, [u32; 4])]);
        let cases: [Case; 9] = [
            (|s| s.faw = FawRule::Ns20, &[(P::Faw, [48, 52, 56, 64])]),
            (|s| s.ccd_l_wr = CcdLWrRule::Ns10, &[(P::CcdLWr, [24, 26, 28, 32])]),
            (|s| s.ccd_l_wr = CcdLWrRule::CcdL, &[(P::CcdLWr, [12, 13, 14, 16])]),
            (|s| s.rrd_l = RrdLRule::Clocks8, &[(P::RrdL, [8; 4])]),
            // 195 and 115 ns; 295 and 130; 410 and 190.
            (
                |s| s.density = Gb8,
                &[(P::Rfc, [468, 507, 546, 624]), (P::RfcSb, [276, 299, 322, 368])],
            ),
            (|s| s.density = Gb16, &[(P::Rfc, [708, 767, 826, 944])]),
            (
                |s| s.density = Gb24,
                &[(P::Rfc, [984, 1066, 1148, 1312]), (P::RfcSb, [456, 494, 532, 608])],
            ),
            (
                |s| s.density = Gb32,
                &[(P::Rfc, [984, 1066, 1148, 1312]), (P::RfcSb, [456, 494, 532, 608])],
            ),
            // 1.95 us and 975 ns.
            (
                |s| s.refresh_hot = true,
                &[(P::Refi, [4680, 5070, 5460, 6240]), (P::Refi2, [2340, 2535, 2730, 3120])],
            ),
        ];
        for (change, expected) in cases {
            for (i, (timing, plain)) in dram(change).into_iter().zip(plain).enumerate() {
                let wanted = expected
                    .iter()
                    .fold(plain, |t, (parameter, clocks)| t.with(*parameter, clocks[i]));
                assert_eq!(timing, wanted);
            }
        }
    }

    #[test]
    fn every_density_has_exactly_its_own_row() {
        use Density::{Gb8, Gb16, Gb24, Gb32};
        for (i, density) in [Gb8, Gb16, Gb24, Gb32].into_iter().enumerate() {
            assert_eq!((density as usize, DENSITY_TABLE[i].density), (i, density));
            assert!(!DENSITY_TABLE[i].cite.is_empty());
        }
    }

    #[test]
    fn the_page_shows_every_row() {
        expect_test::expect![[r#"
            | Parameter | 4800B | 5200B | 5600B | 6400B | 4800AN | 5600AN | 6400AN | Standing | Source |
            |---|---|---|---|---|---|---|---|---|---|
            | tCK (ps) | 416 | 384 | 357 | 312 | 416 | 357 | 312 | Verified | timing.md §2.1; 5200 derived |
            | CL | 40 | 42 | 46 | 52 | 34 | 40 | 46 | Recalled | B: timing.md §2.2, 5200B assumed; AN: §2.1 [V] |
            | CWL | 38 | 40 | 44 | 50 | 32 | 38 | 44 | Derived | timing.md §2.1: CL - 2 in every column |
            | BL/2 | 8 | 8 | 8 | 8 | 8 | 8 | 8 | Verified | timing.md §2.1: nBL 8 |
            | tRCD | 39 | 42 | 45 | 52 | 34 | 40 | 46 | Recalled | B: timing.md §2.2, 5200B assumed; AN: §2.1 [V] |
            | tRP | 39 | 42 | 45 | 52 | 34 | 40 | 46 | Recalled | B: timing.md §2.2, 5200B assumed; AN: §2.1 [V] |
            | tRAS | 77 | 84 | 90 | 103 | 77 | 90 | 103 | Verified | timing.md §2.2: 32 ns; §2.1 |
            | tRC | 116 | 126 | 135 | 155 | 111 | 130 | 149 | Derived | timing.md §2.2: tRAS + tRP; AN: §2.1 |
            | tRTP | 18 | 20 | 21 | 24 | 18 | 20 | 24 | Recalled | timing.md §2.2: max(12, 7.5 ns); AN: §2.1 [V] |
            | tWR | 72 | 78 | 84 | 96 | 72 | 84 | 96 | Verified | timing.md §2.2: 30 ns; §2.1 |
            | tCCD_S | 8 | 8 | 8 | 8 | 8 | 8 | 8 | Verified | timing.md §2.1, §2.2 |
            | tCCD_L | 12 | 13 | 14 | 16 | 12 | 12 | 16 | Recalled | timing.md §2.2: max(8, 5 ns); AN: §2.1 [V] |
            | tCCD_S_WR | 8 | 8 | 8 | 8 | 8 | 8 | 8 | Verified | timing.md §2.1 |
            | tCCD_L_WR | `dram.ccd_l_wr` | `dram.ccd_l_wr` | `dram.ccd_l_wr` | `dram.ccd_l_wr` | `dram.ccd_l_wr` | `dram.ccd_l_wr` | `dram.ccd_l_wr` | Verified | timing.md §2.2: max(32, 20 ns), or tCCD_L_WR2 max(16, 10 ns) [R], or gem5's tCCD_L |
            | tWTR_S | 6 | 7 | 7 | 8 | 6 | 5 | 5 | Recalled | timing.md §2.2: max(4, 2.5 ns); AN: §2.1 [V] |
            | tWTR_L | 24 | 26 | 28 | 32 | 24 | 28 | 32 | Verified | timing.md §2.2: max(16, 10 ns); §2.1 |
            | tRRD_S | 8 | 8 | 8 | 8 | 8 | 8 | 8 | Verified | timing.md §2.1, §2.2 |
            | tRRD_L | `dram.rrd_l` | `dram.rrd_l` | `dram.rrd_l` | `dram.rrd_l` | `dram.rrd_l` | `dram.rrd_l` | `dram.rrd_l` | Verified | timing.md §2.1: max(8, 5 ns), or 8 |
            | tFAW | `dram.faw` | `dram.faw` | `dram.faw` | `dram.faw` | `dram.faw` | `dram.faw` | `dram.faw` | Recalled | timing.md §2.2: 32 clocks, JEDEC 1 KB page, gem5 §2.3; or max(32, 20 ns), Ramulator |
            | tPPD | 2 | 2 | 2 | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 |
            | tCS | 2 | 2 | 2 | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 |
            | tRTW gap | 4 | 4 | 4 | 4 | 4 | 4 | 4 | Verified | timing.md §0 ramulator2 `ddr5.py`: nCL + nBL + 2 - nCWL + 2 |
            | tRFC1 | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | Verified | timing.md §2.2 |
            | tRFCsb | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | `dram.density` | Verified | timing.md §2.2 |
            | tREFSBRD | 30 ns | 30 ns | 30 ns | 30 ns | 30 ns | 30 ns | 30 ns | Recalled | JESD79-5 draft, Table 26, as quoted publicly: 30 ns; no row on the sheet |
            | tREFI1 | 3900 ns | 3900 ns | 3900 ns | 3900 ns | 3900 ns | 3900 ns | 3900 ns | Verified | timing.md §2.1, §2.2: 3.9 us, halved above 85 °C |
            | tREFI2 | 1950 ns | 1950 ns | 1950 ns | 1950 ns | 1950 ns | 1950 ns | 1950 ns | Recalled | timing.md §2.2: 1.95 us, halved above 85 °C |
            | nCMD(ACT, RD, WR) | 2 | 2 | 2 | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 command slots |
            | nCMD(PRE, REF) | 1 | 1 | 1 | 1 | 1 | 1 | 1 | Derived | timing.md §2.1: only ACT, RD, WR take two |

            | Density | tRFC1 (ns) | tRFCsb (ns) | Standing | Source |
            |---|---|---|---|---|
            | Gb8 | 195 | 115 | Verified | timing.md §2.2 |
            | Gb16 | 295 | 130 | Verified | timing.md §2.2 |
            | Gb24 | 410 | 190 | Recalled | timing.md §2.2 |
            | Gb32 | 410 | 190 | Recalled | timing.md §2.2: tRFC1 [V], tRFCsb [R] |
        "#]]
        .assert_eq(&timing_markdown());
    }
}
