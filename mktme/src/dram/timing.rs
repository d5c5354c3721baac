//! DDR5 timing parameters per speed grade.
//!
//! All values are clocks of the subchannel (nCK) at the grade's tCK. Times are turned into clocks with the exact data
//! rate, `ceil(ns * MT/s / 2000)`, and not with the truncated tCK of the model, which would make 30 ns 73 clocks at 4800
//! where JEDEC has 72.
//!
//! Where sources differ (timing.md §2.1, §2.2; verification.md §5.2):
//! * CL, tRCD, tRP: the JEDEC "B" bins that servers use, not Ramulator's AN/BN/C. The sheet has no DDR5-5200 bin;
//!   42-42-42 is recalled and marked as assumed.
//! * tFAW: 32 nCK (JEDEC 1 KB page, gem5), not the 20 ns of Ramulator. tFAW is then exactly 4 tRRD_S and never binds.
//! * tCCD_L and tRRD_L: `max(8, 5 ns)`, so 14 at 5600 where Ramulator has tCCD_L 12.
//! * tCCD_L_WR: `max(32, 20 ns)` (a x4 write is a read-modify-write on the die; Ramulator agrees, gem5 has none).
//! * tWTR_S: `max(4, 2.5 ns)`, so 7 and 8 at 5600 and 6400 where Ramulator has 5.
//! * tRTP: `max(12, 7.5 ns)`, so 21 at 5600 where Ramulator has 20.
//!
//! The tCK of a grade is the sheet's, cut to whole picoseconds: the model's peak is that of its own clock, up to 0.16 %
//! above the nominal one.

use serde::{Deserialize, Serialize};
use sim_core::Ps;
use sim_core::platform::SpeedGrade;
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
    /// Command bus slots of ACT, RD and WR.
    LongSlots,
    /// Command bus slots of PRE.
    ShortSlots,
}

/// How many parameters there are.
pub const PARAMETER_COUNT: usize = 23;

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

/// A row of [`TIMING_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimingRow {
    /// Which parameter.
    pub parameter: Parameter,
    /// As JEDEC spells it.
    pub name: &'static str,
    /// Clocks at 4800, 5200, 5600 and 6400 MT/s.
    pub clocks: [u32; 4],
    /// How well founded.
    pub tag: Tag,
    /// From where.
    pub cite: &'static str,
}

const fn row(
    parameter: Parameter,
    name: &'static str,
    clocks: [u32; 4],
    tag: Tag,
    cite: &'static str,
) -> TimingRow {
    TimingRow { parameter, name, clocks, tag, cite }
}

/// The timing parameters of every speed grade, in the order of [`Parameter`].
#[rustfmt::skip]
pub const TIMING_TABLE: [TimingRow; PARAMETER_COUNT] = {
    use Parameter as P;
    use Tag::{Assumed, Derived, Recalled, Verified};
    [
        row(P::Cl, "CL", [40, 42, 46, 52], Recalled, "timing.md §2.2 B bins; 5200 assumed"),
        row(P::Cwl, "CWL", [38, 40, 44, 50], Derived, "timing.md §2.1: CL - 2 in every column"),
        row(P::HalfBurst, "BL/2", [8, 8, 8, 8], Verified, "timing.md §2.1: nBL 8"),
        row(P::Rcd, "tRCD", [39, 42, 45, 52], Recalled, "timing.md §2.2 B bins; 5200 assumed"),
        row(P::Rp, "tRP", [39, 42, 45, 52], Recalled, "timing.md §2.2 B bins; 5200 assumed"),
        row(P::Ras, "tRAS", [77, 84, 90, 103], Verified, "timing.md §2.2: 32 ns"),
        row(P::Rc, "tRC", [116, 126, 135, 155], Derived, "timing.md §2.2: tRAS + tRP"),
        row(P::Rtp, "tRTP", [18, 20, 21, 24], Recalled, "timing.md §2.2: max(12, 7.5 ns)"),
        row(P::Wr, "tWR", [72, 78, 84, 96], Verified, "timing.md §2.2: 30 ns"),
        row(P::CcdS, "tCCD_S", [8, 8, 8, 8], Verified, "timing.md §2.1, §2.2"),
        row(P::CcdL, "tCCD_L", [12, 13, 14, 16], Recalled, "timing.md §2.2: max(8, 5 ns)"),
        row(P::CcdSWr, "tCCD_S_WR", [8, 8, 8, 8], Verified, "timing.md §2.1"),
        row(P::CcdLWr, "tCCD_L_WR", [48, 52, 56, 64], Verified, "timing.md §2.2: max(32, 20 ns), x4"),
        row(P::WtrS, "tWTR_S", [6, 7, 7, 8], Recalled, "timing.md §2.2: max(4, 2.5 ns)"),
        row(P::WtrL, "tWTR_L", [24, 26, 28, 32], Verified, "timing.md §2.2: max(16, 10 ns)"),
        row(P::RrdS, "tRRD_S", [8, 8, 8, 8], Verified, "timing.md §2.1, §2.2"),
        row(P::RrdL, "tRRD_L", [12, 13, 14, 16], Verified, "timing.md §2.1: max(8, 5 ns)"),
        row(P::Faw, "tFAW", [32, 32, 32, 32], Recalled, "timing.md §2.2: JEDEC 1 KB page; gem5 §2.3"),
        row(P::Ppd, "tPPD", [2, 2, 2, 2], Verified, "timing.md §2.1"),
        row(P::Cs, "tCS", [2, 2, 2, 2], Verified, "timing.md §2.1"),
        row(P::RtwGap, "tRTW gap", [2, 2, 2, 2], Assumed, "read to write preamble; no row on the sheet"),
        row(P::LongSlots, "nCMD(ACT, RD, WR)", [2, 2, 2, 2], Verified, "timing.md §2.1 command slots"),
        row(P::ShortSlots, "nCMD(PRE)", [1, 1, 1, 1], Derived, "timing.md §2.1: only ACT, RD, WR take two"),
    ]
};

/// A row of [`GRADE_TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GradeRow {
    /// Which grade.
    pub grade: SpeedGrade,
    /// Transfers per microsecond (MT/s).
    pub rate: u32,
    /// tCK in picoseconds.
    pub tck: Ps,
    /// From where.
    pub cite: &'static str,
}

/// The clock of every speed grade; the position of a row is that of its column in [`TIMING_TABLE`].
#[rustfmt::skip]
pub const GRADE_TABLE: [GradeRow; 4] = [
    GradeRow { grade: SpeedGrade::Ddr5_4800, rate: 4800, tck: Ps(416), cite: "timing.md §2.1" },
    GradeRow { grade: SpeedGrade::Ddr5_5200, rate: 5200, tck: Ps(384), cite: "2 / 5200 MT/s, cut as §2.1 cuts" },
    GradeRow { grade: SpeedGrade::Ddr5_5600, rate: 5600, tck: Ps(357), cite: "timing.md §2.1" },
    GradeRow { grade: SpeedGrade::Ddr5_6400, rate: 6400, tck: Ps(312), cite: "timing.md §2.1" },
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

impl Timing {
    /// The timing of a speed grade.
    pub fn of(grade: SpeedGrade) -> Timing {
        let column = grade as usize;
        Timing { tck: GRADE_TABLE[column].tck, clocks: TIMING_TABLE.map(|row| row.clocks[column]) }
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
            ("nCMD(ACT, RD, WR) ≥ nCMD(PRE)", c(P::LongSlots), c(P::ShortSlots)),
            ("nCMD(PRE) ≥ 1", c(P::ShortSlots), 1),
        ] {
            if left < right {
                return Err(TimingError::Rule { rule, left, right });
            }
        }
        Ok(())
    }
}

/// [`GRADE_TABLE`] and [`TIMING_TABLE`] as a page of the book.
pub fn timing_markdown() -> String {
    let mut out = String::from("| Parameter |");
    for grade in &GRADE_TABLE {
        out += &format!(" DDR5-{} |", grade.rate);
    }
    out += " Standing | Source |\n|---|---|---|---|---|---|---|\n| tCK (ps) |";
    for grade in &GRADE_TABLE {
        out += &format!(" {} |", grade.tck.0);
    }
    out += " Verified | timing.md §2.1; 5200 derived |\n";
    for row in &TIMING_TABLE {
        out += &format!("| {} |", row.name);
        for clocks in row.clocks {
            out += &format!(" {clocks} |");
        }
        out += &format!(" {:?} | {} |\n", row.tag, row.cite);
    }
    out
}

#[cfg(test)]
mod tests {
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
            assert!(!row.cite.is_empty() && row.clocks.iter().all(|&n| n > 0), "{}", row.name);
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
        for row in &TIMING_TABLE {
            assert!(used(row.parameter), "{} is read by nobody", row.name);
        }
    }

    #[test]
    fn every_grade_passes_the_sanity_rules() {
        for grade in GRADES {
            assert_eq!(Timing::of(grade).check(), Ok(()), "{grade:?}");
        }
    }

    #[test]
    fn every_sanity_rule_refuses_a_timing_that_breaks_it() {
        let good = Timing::of(SpeedGrade::Ddr5_4800);
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
            nCMD(ACT, RD, WR) ≥ nCMD(PRE) does not hold: 0 < 1
            nCMD(PRE) ≥ 1 does not hold: 0 < 1
            tRCD is more than 2^20 clocks
            tCK is 0 ps, expected 200 ps to 2000 ps"#]]
        .assert_eq(&shown.join("\n"));
    }

    /// The formulas of timing.md §2.2, computed here from nanoseconds and the data rate.
    #[test]
    fn clocks_are_the_sheets_nanoseconds_rounded_up_at_the_exact_rate() {
        for grade in GRADES {
            let (t, rate) = (Timing::of(grade), GRADE_TABLE[grade as usize].rate);
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
            ] {
                assert_eq!(t.clocks(parameter), ns10(tenths).max(least), "{parameter} {grade:?}");
            }
            assert_eq!(t.clocks(P::Rc), t.clocks(P::Ras) + t.clocks(P::Rp));
            assert_eq!(t.clocks(P::Cwl) + 2, t.clocks(P::Cl));
            // tCK is the nominal period cut to whole picoseconds.
            assert_eq!(t.tck().0, 2_000_000 / u64::from(rate));
        }
    }

    #[test]
    fn the_page_shows_every_row() {
        expect_test::expect![[r#"
            | Parameter | DDR5-4800 | DDR5-5200 | DDR5-5600 | DDR5-6400 | Standing | Source |
            |---|---|---|---|---|---|---|
            | tCK (ps) | 416 | 384 | 357 | 312 | Verified | timing.md §2.1; 5200 derived |
            | CL | 40 | 42 | 46 | 52 | Recalled | timing.md §2.2 B bins; 5200 assumed |
            | CWL | 38 | 40 | 44 | 50 | Derived | timing.md §2.1: CL - 2 in every column |
            | BL/2 | 8 | 8 | 8 | 8 | Verified | timing.md §2.1: nBL 8 |
            | tRCD | 39 | 42 | 45 | 52 | Recalled | timing.md §2.2 B bins; 5200 assumed |
            | tRP | 39 | 42 | 45 | 52 | Recalled | timing.md §2.2 B bins; 5200 assumed |
            | tRAS | 77 | 84 | 90 | 103 | Verified | timing.md §2.2: 32 ns |
            | tRC | 116 | 126 | 135 | 155 | Derived | timing.md §2.2: tRAS + tRP |
            | tRTP | 18 | 20 | 21 | 24 | Recalled | timing.md §2.2: max(12, 7.5 ns) |
            | tWR | 72 | 78 | 84 | 96 | Verified | timing.md §2.2: 30 ns |
            | tCCD_S | 8 | 8 | 8 | 8 | Verified | timing.md §2.1, §2.2 |
            | tCCD_L | 12 | 13 | 14 | 16 | Recalled | timing.md §2.2: max(8, 5 ns) |
            | tCCD_S_WR | 8 | 8 | 8 | 8 | Verified | timing.md §2.1 |
            | tCCD_L_WR | 48 | 52 | 56 | 64 | Verified | timing.md §2.2: max(32, 20 ns), x4 |
            | tWTR_S | 6 | 7 | 7 | 8 | Recalled | timing.md §2.2: max(4, 2.5 ns) |
            | tWTR_L | 24 | 26 | 28 | 32 | Verified | timing.md §2.2: max(16, 10 ns) |
            | tRRD_S | 8 | 8 | 8 | 8 | Verified | timing.md §2.1, §2.2 |
            | tRRD_L | 12 | 13 | 14 | 16 | Verified | timing.md §2.1: max(8, 5 ns) |
            | tFAW | 32 | 32 | 32 | 32 | Recalled | timing.md §2.2: JEDEC 1 KB page; gem5 §2.3 |
            | tPPD | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 |
            | tCS | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 |
            | tRTW gap | 2 | 2 | 2 | 2 | Assumed | read to write preamble; no row on the sheet |
            | nCMD(ACT, RD, WR) | 2 | 2 | 2 | 2 | Verified | timing.md §2.1 command slots |
            | nCMD(PRE) | 1 | 1 | 1 | 1 | Derived | timing.md §2.1: only ACT, RD, WR take two |
        "#]]
        .assert_eq(&timing_markdown());
    }
}
