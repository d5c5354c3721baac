//! What a platform is: every number and every choice that the sources leave open, by name.
//!
//! A [`PlatformSpec`] is plain data. The files that hold it, with the source of each value, are read by `scenarios`;
//! whatever is not sourced is marked there as assumed (docs/DEVIATIONS.md).

mod dram;
mod tdx;
mod uncore;

pub use dram::{
    CcdLWrRule, Density, DeviceWidth, DramSpec, FawRule, PagePolicy, RefreshMode, RrdLRule,
    SpeedBin, SpeedGrade,
};
pub use tdx::{TdxCost, TdxSpec};
pub use uncore::UncoreSpec;

use crate::addr::{Hpa, Line};
use crate::keyid::{KeyIdLayout, LayoutError};
use crate::planted::Planted;
use crate::time::{Clock, Ps};
use crate::units::serde_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The two integrity modes (architecture.md §1.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum IntegrityMode {
    /// Cryptographic integrity: TD bit and MAC.
    #[serde(rename = "ci")]
    Ci,
    /// Logical integrity: TD bit only.
    #[serde(rename = "li")]
    Li,
}

impl fmt::Display for IntegrityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IntegrityMode::Ci => "ci",
            IntegrityMode::Li => "li",
        })
    }
}

/// AES-XTS key width.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum XtsWidth {
    /// AES-XTS-128.
    #[serde(rename = "xts-128")]
    Xts128,
    /// AES-XTS-256.
    #[serde(rename = "xts-256")]
    Xts256,
}

/// A platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformSpec {
    /// Short name, such as `spr`.
    pub name: String,
    /// What it stands for.
    pub title: String,
    /// KeyID layout.
    pub keyid: KeyIdLayout,
    /// Encryption and integrity.
    pub memory: MemorySpec,
    /// Cores, caches and buffers.
    pub cpu: CpuSpec,
    /// Between the cores and the memory controllers.
    pub uncore: UncoreSpec,
    /// Latencies outside DRAM.
    pub latency: LatencySpec,
    /// Costs in functional mode.
    pub functional: FunctionalSpec,
    /// DDR5.
    pub dram: DramSpec,
    /// Machine checks.
    pub mce: MceSpec,
    /// The TDX module and the firmware's choices for it.
    pub tdx: TdxSpec,
    /// A fault planted by a test; no parameter of a platform.
    #[serde(skip)]
    pub planted: Planted,
}

/// Encryption and integrity of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySpec {
    /// Integrity mode (architecture.md §1.3 1.3.2).
    pub integrity: IntegrityMode,
    /// X86_BUG_TDX_PW_MCE: a partial write to a TD=1 line poisons it (architecture.md §5.6, §13 MC-04).
    pub erratum_pw_mce: bool,
    /// Width of the MAC in bits, 4 to 28 (architecture.md §1.2 1.2.1). Narrower than 28 only for experiments.
    pub mac_bits: u8,
    /// Key width of TME and private keys.
    pub xts: XtsWidth,
    /// TME_ACTIVATE\[31\]: KeyID 0 is plaintext (architecture.md §13 MC-09).
    pub tme_bypass: bool,
}

/// Cores, caches and buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSpec {
    /// Packages (sockets), 1 to 8. WBINVD reaches one of them.
    pub packages: u8,
    /// Simulated cores in all packages, 1 to 128, spread evenly over packages.
    pub cores: u16,
    /// Core clock.
    #[serde(with = "serde_text::frequency")]
    pub core_clock: Clock,
    /// L1 data cache of a core.
    pub l1d: CacheGeometry,
    /// L2 of a core.
    pub l2: CacheGeometry,
    /// Last-level cache of a package, all slices together.
    pub llc: CacheGeometry,
    /// Core clocks from a load to its data when it hits L1D (timing.md §1.2).
    pub l1_clocks: u8,
    /// The same when it hits L2.
    pub l2_clocks: u8,
    /// Core clocks that a load spends in its own core when it misses L2: from the miss to the mesh, and from the mesh to
    /// its data.
    pub miss_clocks: u8,
    /// Instructions in flight: an instruction begins only when all but the last so many have retired, 1 to 4096.
    pub window: u16,
    /// Instructions that begin in one core clock, 1 to 16.
    pub width: u8,
    /// L1D fill buffers (LFB): lines that the core waits for, 1 to 64 (timing.md §1.4).
    pub fill_buffers: u8,
    /// Entries of the L2's superqueue: lines that the core's L2 waits for, 1 to 63 (timing.md §1.4).
    pub superqueue: u8,
    /// Stores that have retired and wait to be written into L1D, in order, 1 to 256.
    pub store_buffer: u8,
    /// Direct stores (MOVDIR64B, MOVDIRI) and full write-combining buffers of a core that are on their way to a
    /// controller, 1 to 64.
    pub direct_stores: u8,
    /// Slices (CHAs) of a package's LLC: a power of two, 1 to 128, at most its sets (timing.md §1.1 "L3 per slice").
    pub llc_slices: u16,
    /// Which slice is home to a line: bit `i` of its number is the parity of the address bits in mask `i`
    /// (timing.md §1.1 "LLC slice hash": undocumented).
    pub slice_hash: XorMasks,
    /// Snoop filter of a slice (timing.md §1.1 "Snoop-filter geometry").
    pub snoop_filter: SnoopFilterGeometry,
    /// Sub-blocks of the WBINVDP and WBNOINVDP registers (architecture.md §13 MC-14).
    pub flush_sub_blocks: u32,
    /// Buffers that write-combining stores may occupy (timing.md §1.4), 1 to 64.
    pub wc_buffers: u8,
    /// Weakly ordered operations a core may have in flight, 1 to 64.
    pub weak_slots: u8,
    /// Age at which a write-combining buffer leaves; zero for never (architecture.md §13 MC-28).
    #[serde(with = "serde_text::time")]
    pub wc_age: Ps,
    /// REP STOSB takes ownership of whole lines without reading them (architecture.md §13 MC-29).
    pub fast_string_no_rfo: bool,
    /// A store whose RFO brings poison raises #MC at once (architecture.md §13 MC-30).
    pub rfo_poison_mc: bool,
}

/// The snoop filter of one LLC slice: one entry for each physical line that a core of the package holds in L1 or L2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnoopFilterGeometry {
    /// Sets in a slice: a power of two, at most 2^20.
    pub sets: u32,
    /// Ways, 1 to 16.
    pub ways: u8,
}

/// Masks of physical address bits, each of which gives one bit of a number: the parity (XOR) of the bits it names. As text,
/// hexadecimal with spaces between them, the lowest bit's first: `"0x21082040 0x42104080"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct XorMasks([u64; XorMasks::MOST]);

impl XorMasks {
    /// Most masks.
    pub const MOST: usize = 7;

    /// These masks; those beyond [`XorMasks::MOST`] are left out. A mask of zero ends the list.
    pub const fn new(masks: &[u64]) -> XorMasks {
        let mut all = [0; XorMasks::MOST];
        let mut i = 0;
        while i < masks.len() && i < XorMasks::MOST {
            all[i] = masks[i];
            i += 1;
        }
        XorMasks(all)
    }
    /// The masks, the lowest bit's first.
    pub fn masks(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied().take_while(|mask| *mask != 0)
    }
    /// The number that the first `bits` masks give for an address.
    pub fn number(&self, hpa: Hpa, bits: u32) -> u32 {
        let parities = self.masks().take(bits as usize).map(|mask| (hpa.0 & mask).count_ones() & 1);
        parities.enumerate().fold(0, |number, (bit, parity)| number | parity << bit)
    }
}

impl fmt::Display for XorMasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mask) in self.masks().enumerate() {
            write!(f, "{}{mask:#x}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl From<XorMasks> for String {
    fn from(masks: XorMasks) -> String {
        masks.to_string()
    }
}

impl FromStr for XorMasks {
    type Err = String;
    fn from_str(text: &str) -> Result<XorMasks, String> {
        let mut all = [0; XorMasks::MOST];
        let mut places = all.iter_mut();
        for word in text.split_whitespace() {
            let digits = word.strip_prefix("0x").unwrap_or_default();
            let mask = match u64::from_str_radix(digits, 16) {
                Ok(mask) if mask != 0 && !digits.starts_with('+') => mask,
                _ => {
                    return Err(format!(
                        "found {word:?}, expected a mask such as 0x21082040, not zero"
                    ));
                }
            };
            match places.next() {
                Some(place) => *place = mask,
                None => {
                    return Err(format!(
                        "found {word:?}, expected at most {} masks",
                        XorMasks::MOST
                    ));
                }
            }
        }
        Ok(XorMasks(all))
    }
}

impl TryFrom<String> for XorMasks {
    type Error = String;
    fn try_from(text: String) -> Result<XorMasks, String> {
        text.parse()
    }
}

/// A set-associative cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheGeometry {
    /// Capacity in bytes.
    #[serde(with = "serde_text::size")]
    pub size: u64,
    /// Ways, 1 to 16.
    pub ways: u8,
}

impl CacheGeometry {
    /// Number of sets.
    pub const fn sets(&self) -> u64 {
        self.size / (64 * if self.ways == 0 { 1 } else { self.ways as u64 })
    }
}

/// Latencies that are no part of [`UncoreSpec`] or DRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencySpec {
    /// Decryption of a line after its data has come, on fills.
    #[serde(with = "serde_text::time")]
    pub xts: Ps,
    /// MAC check of a line, on fills in Ci.
    #[serde(with = "serde_text::time")]
    pub mac: Ps,
    /// From a core until a posted write is admitted: what a fence with something to send off, and an uncacheable store, waits.
    #[serde(with = "serde_text::time")]
    pub write_post: Ps,
    /// How long a weakly ordered store or flush stays invisible, if nothing sends it off before.
    #[serde(with = "serde_text::time")]
    pub weak_wait: Ps,
    /// Issue cost of a store that hits, of a fence with nothing pending, and of other operations without a row.
    #[serde(with = "serde_text::time")]
    pub issue: Ps,
    /// Issue cost of MOVDIRI and of non-temporal stores that do not fill their buffer.
    #[serde(with = "serde_text::time")]
    pub direct_store: Ps,
    /// CLFLUSH of one line.
    #[serde(with = "serde_text::time")]
    pub clflush: Ps,
    /// CLFLUSHOPT or CLWB of one line.
    #[serde(with = "serde_text::time")]
    pub clflushopt: Ps,
    /// MFENCE with nothing pending.
    #[serde(with = "serde_text::time")]
    pub mfence: Ps,
    /// Walk of one cache line slot by WBINVD and its relatives.
    #[serde(with = "serde_text::time")]
    pub flush_walk: Ps,
    /// PCONFIG.
    #[serde(with = "serde_text::time")]
    pub pconfig: Ps,
    /// A device's request to the controller and back, without DRAM.
    #[serde(with = "serde_text::time")]
    pub dma_path: Ps,
}

/// Costs in functional mode: one per operation, whatever it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionalSpec {
    /// Every operation.
    #[serde(with = "serde_text::time")]
    pub op: Ps,
}

/// Machine-check banks and capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MceSpec {
    /// MCG_CAP\[12\]: MCG_STATUS tells SEAM non-root (architecture.md §6.2).
    pub seam_nr: bool,
    /// Local machine-check exceptions are on (architecture.md §6.3).
    pub lmce: bool,
    /// EMCA2: machine checks of the core banks are signalled as MSMI (architecture.md §6.3).
    pub emca2: bool,
    /// CMCI is enabled for the controller banks.
    pub cmci: bool,
    /// Bank of the data cache unit.
    pub bank_dcu: u8,
    /// Bank of the instruction fetch unit.
    pub bank_ifu: u8,
    /// First memory-controller bank: bank = this + channel.
    pub bank_imc: u8,
    /// MSCOD of a core's data-load or fetch consumption.
    pub mscod_core: u16,
    /// MSCOD of a birth by TD-bit mismatch (architecture.md §13 MC-20).
    pub mscod_td: u16,
    /// MSCOD of a birth by MAC mismatch.
    pub mscod_mac: u16,
    /// MCACOD of both, to which the channel is added.
    pub mcacod_imc: u16,
}

/// Why a platform is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlatformError {
    /// The KeyID layout.
    #[error("keyid: {0}")]
    Layout(#[from] LayoutError),
    /// A number outside its range, or not a power of two.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        /// Dotted name of the parameter.
        key: &'static str,
        /// As given.
        found: String,
        /// What would do.
        expected: String,
    },
}

impl PlatformError {
    /// Dotted name of the offending parameter.
    pub const fn key(&self) -> &'static str {
        match self {
            PlatformError::Layout(e) => match e {
                LayoutError::Maxpa(_) => "keyid.maxpa",
                LayoutError::KeyIdBits(_) => "keyid.keyid_bits",
                LayoutError::PrivateBits { .. } => "keyid.private_bits",
                LayoutError::MktmeKids { .. } => "keyid.mktme_kids",
                LayoutError::PrivKids { .. } => "keyid.tdx_priv_kids",
            },
            PlatformError::Value { key, .. } => key,
        }
    }
}

fn in_range(key: &'static str, value: u64, lo: u64, hi: u64) -> Result<(), PlatformError> {
    if (lo..=hi).contains(&value) {
        return Ok(());
    }
    Err(PlatformError::Value { key, found: value.to_string(), expected: format!("{lo} to {hi}") })
}

fn power_of_two(key: &'static str, value: u64, lo: u64, hi: u64) -> Result<(), PlatformError> {
    if value.is_power_of_two() && (lo..=hi).contains(&value) {
        return Ok(());
    }
    Err(PlatformError::Value {
        key,
        found: value.to_string(),
        expected: format!("a power of two from {lo} to {hi}"),
    })
}

impl PlatformSpec {
    /// Checks every number and how they fit together (verification.md §4.2 point 5).
    ///
    /// # Errors
    /// The first that does not fit, by name.
    pub fn validate(&self) -> Result<(), PlatformError> {
        self.keyid.validate()?;
        in_range("memory.mac_bits", self.memory.mac_bits.into(), 4, 28)?;
        let cpu = &self.cpu;
        in_range("cpu.packages", cpu.packages.into(), 1, 8)?;
        in_range("cpu.cores", cpu.cores.into(), 1, 128)?;
        if !cpu.cores.is_multiple_of(u16::from(cpu.packages)) {
            return Err(PlatformError::Value {
                key: "cpu.cores",
                found: cpu.cores.to_string(),
                expected: format!("a multiple of cpu.packages, which is {}", cpu.packages),
            });
        }
        for (ways_key, size_key, geometry) in [
            ("cpu.l1d.ways", "cpu.l1d.size", &cpu.l1d),
            ("cpu.l2.ways", "cpu.l2.size", &cpu.l2),
            ("cpu.llc.ways", "cpu.llc.size", &cpu.llc),
        ] {
            in_range(ways_key, geometry.ways.into(), 1, 16)?;
            let way = 64 * u64::from(geometry.ways);
            if geometry.size == 0
                || !geometry.size.is_multiple_of(way)
                || !geometry.sets().is_power_of_two()
                || geometry.sets() > 1 << 24
            {
                return Err(PlatformError::Value {
                    key: size_key,
                    found: format!("{} bytes", geometry.size),
                    expected: format!(
                        "a power of two of sets (at most 2^24) of {} ways of 64 bytes",
                        geometry.ways
                    ),
                });
            }
        }
        power_of_two("cpu.llc_slices", cpu.llc_slices.into(), 1, cpu.llc.sets().min(128))?;
        let wanted = cpu.llc_slices.trailing_zeros() as usize;
        if cpu.slice_hash.masks().count() < wanted || cpu.slice_hash.masks().any(|m| m & 63 != 0) {
            return Err(PlatformError::Value {
                key: "cpu.slice_hash",
                found: format!("{:?}", cpu.slice_hash.to_string()),
                expected: format!(
                    "{wanted} masks or more, for {} slices, of address bits 6 and up",
                    cpu.llc_slices
                ),
            });
        }
        power_of_two("cpu.snoop_filter.sets", cpu.snoop_filter.sets.into(), 1, 1 << 20)?;
        in_range("cpu.snoop_filter.ways", cpu.snoop_filter.ways.into(), 1, 16)?;
        in_range("cpu.flush_sub_blocks", cpu.flush_sub_blocks.into(), 1, cpu.llc.sets())?;
        for (key, value, most) in [
            ("cpu.l1_clocks", u64::from(cpu.l1_clocks), 255),
            ("cpu.l2_clocks", cpu.l2_clocks.into(), 255),
            ("cpu.window", cpu.window.into(), 4096),
            ("cpu.width", cpu.width.into(), 16),
            ("cpu.fill_buffers", cpu.fill_buffers.into(), 64),
            ("cpu.superqueue", cpu.superqueue.into(), 63),
            ("cpu.store_buffer", cpu.store_buffer.into(), 255),
            ("cpu.direct_stores", cpu.direct_stores.into(), 64),
        ] {
            in_range(key, value, 1, most)?;
        }
        self.uncore.validate()?;
        in_range("cpu.wc_buffers", cpu.wc_buffers.into(), 1, 64)?;
        in_range("cpu.weak_slots", cpu.weak_slots.into(), 1, 64)?;
        self.dram.validate()?;
        in_range("mce.bank_dcu", self.mce.bank_dcu.into(), 0, 63)?;
        in_range("mce.bank_ifu", self.mce.bank_ifu.into(), 0, 63)?;
        // The channel goes into the low four bits (architecture.md §6.2, "000F 0000 1MMM CCCC").
        if self.mce.mcacod_imc & 0xf != 0 {
            return Err(PlatformError::Value {
                key: "mce.mcacod_imc",
                found: format!("{:#x}", self.mce.mcacod_imc),
                expected: "a code whose low four bits, the channel's, are zero".to_owned(),
            });
        }
        in_range("tdx.tlb_entries", self.tdx.tlb_entries.into(), 1, 1 << 16)?;
        in_range("tdx.vp_init_version", self.tdx.vp_init_version.into(), 0, 255)?;
        // One bank for each channel, up to bank 63.
        in_range("mce.bank_imc", self.mce.bank_imc.into(), 0, 64 - u64::from(self.dram.channels))
    }

    /// The package of a core. Cores are numbered package by package.
    pub const fn package_of(&self, core: u16) -> u8 {
        let per =
            self.cpu.cores / if self.cpu.packages == 0 { 1 } else { self.cpu.packages as u16 };
        (core / if per == 0 { 1 } else { per }) as u8
    }
}

impl PlatformSpec {
    /// The package whose controllers serve a line.
    pub const fn home_of(&self, line: Line) -> u8 {
        home_of(line, self.cpu.packages)
    }
}

/// Bytes that a package's controllers serve in a row (assumed; timing.md §2.4 lists 1 GiB among the granularities).
pub const HOME_BYTES: u64 = 1 << 30;

/// Which of `packages` serves a line: [`HOME_BYTES`] in turn.
pub const fn home_of(line: Line, packages: u8) -> u8 {
    let packages = if packages == 0 { 1 } else { packages as u64 };
    (line.0 / (HOME_BYTES / 64) % packages) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn masks_are_read_as_they_are_printed(masks in proptest::collection::vec(1u64.., 0..=7)) {
            let masks = XorMasks::new(&masks);
            prop_assert_eq!(masks.to_string().parse(), Ok(masks));
        }

        #[test]
        fn bit_i_of_a_number_is_the_parity_under_mask_i(
            masks in proptest::collection::vec(1u64.., 7), address: u64, bits in 0u32..=7,
        ) {
            let number = XorMasks::new(&masks).number(Hpa(address), bits);
            for (i, mask) in masks.iter().enumerate() {
                let parity = (0..64).filter(|b| (address & mask) >> b & 1 != 0).count() as u32 % 2;
                let want = if (i as u32) < bits { parity } else { 0 };
                prop_assert_eq!(number >> i & 1, want, "mask {}", i);
            }
        }
    }

    #[test]
    fn what_is_no_list_of_masks_is_refused_with_the_word() {
        for text in ["40", "0x", "0x0", "0x40,0x80", "0x+40", "0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8"] {
            let error = text.parse::<XorMasks>().unwrap_err();
            assert!(error.contains("expected"), "{text}: {error}");
        }
        assert_eq!(" 0x40\t0x80 ".parse(), Ok(XorMasks::new(&[0x40, 0x80])));
        assert_eq!("".parse(), Ok(XorMasks::default()));
    }
}
