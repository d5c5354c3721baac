//! DDR5 behind the controllers: the part of a platform that `mktme::dram` computes with.
//!
//! Bank groups, banks, rows and columns follow from density and width, timing from the speed grade, its bin and the
//! choices where sources differ; the tables are in `mktme::dram`.

use super::{PlatformError, in_range, power_of_two};
use serde::{Deserialize, Serialize};

/// Data rate of a DDR5 speed grade.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SpeedGrade {
    /// DDR5-4800.
    #[serde(rename = "ddr5-4800")]
    Ddr5_4800,
    /// DDR5-5200.
    #[serde(rename = "ddr5-5200")]
    Ddr5_5200,
    /// DDR5-5600.
    #[serde(rename = "ddr5-5600")]
    Ddr5_5600,
    /// DDR5-6400.
    #[serde(rename = "ddr5-6400")]
    Ddr5_6400,
}

/// Which column of the timing table a speed grade takes (timing.md §2.1, §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SpeedBin {
    /// The JEDEC bin that servers use, such as 4800B.
    #[serde(rename = "b")]
    B,
    /// Ramulator's AN column. There is none for DDR5-5200.
    #[serde(rename = "an")]
    An,
}

/// Data width of a device. A 32-bit subchannel is 8 devices of x4 or 4 of x8, ECC devices aside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DeviceWidth {
    /// 4 bits.
    #[serde(rename = "x4")]
    X4,
    /// 8 bits.
    #[serde(rename = "x8")]
    X8,
}

/// Capacity of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Density {
    /// 8 Gb.
    #[serde(rename = "8Gb")]
    Gb8,
    /// 16 Gb.
    #[serde(rename = "16Gb")]
    Gb16,
    /// 24 Gb.
    #[serde(rename = "24Gb")]
    Gb24,
    /// 32 Gb.
    #[serde(rename = "32Gb")]
    Gb32,
}

/// What tFAW is for a page of 1 KiB: sources differ (timing.md §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum FawRule {
    /// 32 clocks: JEDEC and gem5. Never binds beside tRRD_S.
    #[serde(rename = "32-clocks")]
    Clocks32,
    /// max(32 clocks, 20 ns): Ramulator.
    #[serde(rename = "20ns")]
    Ns20,
}

/// What tCCD_L_WR is: whether a write is a read-modify-write on the die (timing.md §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum CcdLWrRule {
    /// max(32 clocks, 20 ns): JEDEC for x4 devices, Ramulator for all.
    #[serde(rename = "20ns")]
    Ns20,
    /// tCCD_L_WR2 = max(16 clocks, 10 ns): JEDEC where no read-modify-write is needed.
    #[serde(rename = "10ns")]
    Ns10,
    /// tCCD_L: gem5, which knows no tCCD_L_WR.
    #[serde(rename = "ccd_l")]
    CcdL,
}

/// What tRRD_L is (timing.md §2.1, §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RrdLRule {
    /// max(8 clocks, 5 ns): JEDEC and Ramulator.
    #[serde(rename = "5ns")]
    Ns5,
    /// 8 clocks, the same as tRRD_S: no penalty within a bank group.
    #[serde(rename = "8-clocks")]
    Clocks8,
}

/// How rows are refreshed (timing.md §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RefreshMode {
    /// REFab: all banks of a rank every tREFI1, for tRFC1.
    #[serde(rename = "all-bank")]
    AllBank,
    /// REFsb: one bank of each bank group in turn, each every tREFI2, for tRFCsb.
    #[serde(rename = "same-bank")]
    SameBank,
    /// None: for experiments.
    #[serde(rename = "off")]
    Off,
}

/// When a row is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PagePolicy {
    /// Left open until another row is wanted.
    #[serde(rename = "open")]
    Open,
    /// Closed when no queued request wants it.
    #[serde(rename = "closed")]
    Closed,
    /// Closed when a queued request wants another row of the bank and none wants this one.
    #[serde(rename = "adaptive")]
    Adaptive,
}

/// DDR5 behind the controllers of all packages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DramSpec {
    /// Speed grade.
    pub grade: SpeedGrade,
    /// Bin of the speed grade.
    pub bin: SpeedBin,
    /// Data width of the devices.
    pub width: DeviceWidth,
    /// Capacity of the devices.
    pub density: Density,
    /// Channels per package, a power of two from 1 to 16, each two 32-bit subchannels.
    pub channels: u8,
    /// Ranks per subchannel, a power of two from 1 to 4.
    pub ranks: u8,
    /// Rule for tFAW.
    pub faw: FawRule,
    /// Rule for tCCD_L_WR.
    pub ccd_l_wr: CcdLWrRule,
    /// Rule for tRRD_L.
    pub rrd_l: RrdLRule,
    /// How rows are refreshed.
    pub refresh: RefreshMode,
    /// Above 85 °C: refresh intervals are halved.
    pub refresh_hot: bool,
    /// Refresh commands of a rank that may be postponed while requests are queued, 0 to 8. JESD79-5, as recalled, allows 4 at
    /// the normal rate and 8 in the fine-granularity mode, which REFsb needs.
    pub refresh_postpone: u8,
    /// Read queue entries per subchannel, 1 to 256.
    pub read_queue: u16,
    /// Write queue entries per subchannel, 1 to 256.
    pub write_queue: u16,
    /// Write-queue entries at which the controller turns to writing.
    pub write_high: u16,
    /// Write-queue entries at which it turns back to reading.
    pub write_low: u16,
    /// Clocks after which a read is overdue, 1 to 2^24.
    pub read_age: u32,
    /// Clocks after which a write is overdue, 1 to 2^24.
    pub write_age: u32,
    /// Row policy.
    pub page_policy: PagePolicy,
    /// From addresses to channel, subchannel, rank, bank group, bank, column and row: the name of a preset, or a function
    /// per bit (`mktme::dram::map`).
    pub map: String,
    /// Clocks without progress, although requests are queued, after which a run is stopped; 2^16 to 2^31.
    pub watchdog: u32,
}

impl DramSpec {
    /// Checks every number. What `map` says is checked where it is used.
    ///
    /// # Errors
    /// The first that does not fit, by name.
    pub fn validate(&self) -> Result<(), PlatformError> {
        if (self.grade, self.bin) == (SpeedGrade::Ddr5_5200, SpeedBin::An) {
            return Err(PlatformError::Value {
                key: "dram.bin",
                found: "an".to_owned(),
                expected: "b, as DDR5-5200 has no AN column (timing.md §2.1)".to_owned(),
            });
        }
        power_of_two("dram.channels", self.channels.into(), 1, 16)?;
        power_of_two("dram.ranks", self.ranks.into(), 1, 4)?;
        in_range("dram.refresh_postpone", self.refresh_postpone.into(), 0, 8)?;
        in_range("dram.read_queue", self.read_queue.into(), 1, 256)?;
        in_range("dram.write_queue", self.write_queue.into(), 1, 256)?;
        in_range("dram.write_high", self.write_high.into(), 1, self.write_queue.into())?;
        in_range("dram.write_low", self.write_low.into(), 0, u64::from(self.write_high) - 1)?;
        in_range("dram.read_age", self.read_age.into(), 1, 1 << 24)?;
        in_range("dram.write_age", self.write_age.into(), 1, 1 << 24)?;
        in_range("dram.watchdog", self.watchdog.into(), 1 << 16, 1 << 31)
    }
}
