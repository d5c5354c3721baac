//! A small platform for tests.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use mktme::{Controller, ControllerSpec, CryptoKind};
use sim_core::addr::{Line, Tagged};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::{BirthId, Trace};
use sim_core::keyid::{KeyId, KeyIdLayout};
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::PconfigStatus;
use sim_core::planted::Planted;
use sim_core::platform::{
    CcdLWrRule, Density, DeviceWidth, DramSpec, FawRule, IntegrityMode, MceSpec, MemorySpec,
    PagePolicy, RefreshMode, RrdLRule, SpeedBin, SpeedGrade, XtsWidth,
};
use sim_core::port::Fill;

pub const MODES: [IntegrityMode; 2] = [IntegrityMode::Ci, IntegrityMode::Li];
pub const KINDS: [CryptoKind; 2] = [CryptoKind::Symbolic, CryptoKind::Real];

/// KeyID 0.
pub const K0: KeyId = KeyId(0);
/// A shared KeyID with a key of its own, without integrity.
pub const KS: KeyId = KeyId(1);
/// A shared KeyID; in Ci with integrity, in Li without.
pub const KI: KeyId = KeyId(2);
/// Two private KeyIDs.
pub const KA: KeyId = KeyId(33);
pub const KB: KeyId = KeyId(34);

pub fn spec(mode: IntegrityMode, erratum: bool, crypto: CryptoKind) -> ControllerSpec {
    ControllerSpec {
        layout: KeyIdLayout {
            maxpa: 52,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        },
        memory: MemorySpec {
            integrity: mode,
            erratum_pw_mce: erratum,
            mac_bits: 28,
            xts: XtsWidth::Xts256,
            tme_bypass: false,
        },
        mce: MceSpec {
            seam_nr: true,
            lmce: true,
            cmci: true,
            bank_dcu: 1,
            bank_ifu: 0,
            bank_imc: 13,
            mscod_core: 0x10,
            mscod_td: 0x82b,
            mscod_mac: 0x82a,
            mcacod_imc: 0x90,
            emca2: false,
        },
        dram: DramSpec {
            grade: SpeedGrade::Ddr5_4800,
            bin: SpeedBin::B,
            width: DeviceWidth::X4,
            density: Density::Gb16,
            channels: 8,
            ranks: 2,
            faw: FawRule::Clocks32,
            ccd_l_wr: CcdLWrRule::Ns20,
            rrd_l: RrdLRule::Ns5,
            refresh: RefreshMode::Off,
            refresh_hot: false,
            refresh_postpone: 4,
            read_queue: 64,
            write_queue: 64,
            write_high: 48,
            write_low: 16,
            read_age: 4096,
            write_age: 16384,
            page_policy: PagePolicy::Open,
            map: "hashed".to_owned(),
            watchdog: 1 << 20,
        },
        packages: 1,
        crypto,
        seed: 7,
        planted: Planted::NONE,
    }
}

/// A controller with the KeyIDs above programmed, and what it records.
pub struct Bench {
    pub c: Controller,
    pub t: Trace,
}

impl Bench {
    pub fn new(mode: IntegrityMode, erratum: bool, crypto: CryptoKind) -> Bench {
        Bench::of(spec(mode, erratum, crypto), true)
    }
    pub fn of(spec: ControllerSpec, on: bool) -> Bench {
        let ci = spec.memory.integrity == IntegrityMode::Ci;
        let mut b = Bench::bare(spec, on);
        let integrity = ci.then_some(KeyAlg::Xts256Integrity);
        for (keyid, alg) in [(KS, None), (KI, integrity), (KA, None), (KB, None)] {
            assert_eq!(b.program(keyid, alg), PconfigStatus::Ok);
        }
        b
    }
    /// With no KeyID programmed.
    #[expect(clippy::unwrap_used, reason = "a test's own spec is valid")]
    pub fn bare(spec: ControllerSpec, on: bool) -> Bench {
        Bench { c: Controller::new(spec).unwrap(), t: Trace::new(on) }
    }
    pub fn program(&mut self, keyid: KeyId, alg: Option<KeyAlg>) -> PconfigStatus {
        self.c.pconfig(keyid, PconfigCmd::SetRandom, alg, true, &mut self.t)
    }
    pub fn read(&mut self, line: u64, keyid: KeyId) -> Fill {
        self.c.read(at(line, keyid), &mut self.t)
    }
    pub fn write(&mut self, line: u64, keyid: KeyId, byte: u8) {
        self.c.write(at(line, keyid), &LineData::filled(byte), None, &mut self.t);
    }
    pub fn write_poisoned(&mut self, line: u64, keyid: KeyId, byte: u8, poison: BirthId) {
        self.c.write(at(line, keyid), &LineData::filled(byte), Some(poison), &mut self.t);
    }
    pub fn partial(&mut self, line: u64, keyid: KeyId, byte: u8) {
        let mask = ByteMask::span(8, 8);
        self.c.write_partial(at(line, keyid), &LineData::filled(byte), mask, &mut self.t);
    }
}

pub fn at(line: u64, keyid: KeyId) -> Tagged {
    Tagged::new(Line(line), keyid)
}
