//! The controller: requests in, table rows applied, events out.

use crate::crypto::{
    Ciphers, CryptoKind, Image, MacField, Real, mac_key, power_on, symbolic_decrypt,
    symbolic_mac_matches,
};
use crate::dram::{self, AddressMap, ChannelMap};
use crate::keys::{Key, KeyRing, MaterialId};
use crate::store::{Content, Header, NewLine, Odd, Store, View};
use crate::tables::{
    ErratumEffect, KeyClass, MacAfter, PoisonAfter, ReadRow, Returned, TdAfter, UcnaCode, WriteRow,
    WriteSize, birth_signal, erratum_effect, read_checks_mac, read_row, write_makes_mac, write_row,
};
use serde::{Deserialize, Serialize};
use sim_core::addr::{Addr, Line, PAGE_BYTES, Page, Tagged};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::{BirthCause, BirthId, EventKind, LineState, Location, Rule, Tamper, Trace};
use sim_core::keyid::{KeyId, KeyIdLayout, LayoutError};
use sim_core::mca::{McStatus, UcnaRecord};
use sim_core::op::{KeyAlg, PconfigCmd};
use sim_core::outcome::{DataClass, PconfigStatus};
use sim_core::planted::{Fault, Planted};
use sim_core::platform::{DramSpec, HOME_BYTES, IntegrityMode, MceSpec, MemorySpec, PlatformSpec};
use sim_core::port::Fill;
use std::ops::Range;
use thiserror::Error;

/// What a controller is made of. One controller stands for those of all packages: what an outcome is depends on which of
/// them a line belongs to only by the key table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControllerSpec {
    /// KeyID layout: which KeyIDs are private, and the KeyID bits of MCi_ADDR.
    pub layout: KeyIdLayout,
    /// Integrity mode, erratum, MAC and key widths.
    pub memory: MemorySpec,
    /// Banks and codes of UCNA entries.
    pub mce: MceSpec,
    /// Which channel a line belongs to; nothing else of it is used here.
    pub dram: DramSpec,
    /// How many packages, each with its own key table (architecture.md §8); 0 counts as 1.
    pub packages: u8,
    /// How encryption is done.
    pub crypto: CryptoKind,
    /// Where keys and the content at power-on come from.
    pub seed: u64,
    /// A fault planted by a test.
    #[serde(skip)]
    pub planted: Planted,
}

/// Why a [`ControllerSpec`] is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SpecError {
    /// The KeyID layout.
    #[error("keyid: {0}")]
    Layout(#[from] LayoutError),
    /// MAC width outside 4 to 28 bits.
    #[error("memory.mac_bits is {0}, expected 4 to 28")]
    MacBits(u8),
    /// The address map.
    #[error("{0}")]
    Dram(#[from] dram::SpecError),
}

impl ControllerSpec {
    /// The controller of a platform.
    pub fn of_platform(platform: &PlatformSpec, crypto: CryptoKind, seed: u64) -> ControllerSpec {
        ControllerSpec {
            layout: platform.keyid,
            memory: platform.memory,
            mce: platform.mce,
            dram: platform.dram.clone(),
            packages: platform.cpu.packages,
            crypto,
            seed,
            planted: platform.planted,
        }
    }

    /// Checks what the controller computes with. A spec from a validated platform always passes.
    ///
    /// # Errors
    /// The first number that does not fit.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.layout.validate()?;
        if !(4..=28).contains(&self.memory.mac_bits) {
            return Err(SpecError::MacBits(self.memory.mac_bits));
        }
        self.dram.validate().map_err(dram::SpecError::from)?;
        Ok(())
    }
}

impl ControllerSpec {
    /// The row of a read that needs no computing, and what it returns: the line's own bytes (`Plain`) or zeros (`Blocked`).
    #[inline]
    fn judge_at_once(&self, key: Key, view: &View<'_>) -> Option<(&'static ReadRow, DataClass)> {
        if self.crypto != CryptoKind::Symbolic || view.odd {
            return None;
        }
        // Not tampered with: the MAC, if there is one, was made for exactly this line, and matches its own key alone.
        let header = view.header;
        let ours = header.material() == key.material;
        let mac_ok = header.mac() && ours || self.planted.is(Fault::MacNotChecked);
        let mode = self.memory.integrity;
        let row = read_row(mode, key.class, header.td(), mac_ok, view.poison.is_some());
        match row.data {
            Returned::Zeros if self.shows(row, key) => Some((row, DataClass::Plain)),
            Returned::Zeros => Some((row, DataClass::Blocked)),
            Returned::Plaintext => ours.then_some((row, DataClass::Plain)),
        }
    }
}

impl ControllerSpec {
    /// Whether a planted fault shows what the row blocks.
    #[inline]
    const fn shows(&self, row: &ReadRow, key: Key) -> bool {
        self.planted.is(Fault::SharedReadShowsData)
            && matches!(key.class, KeyClass::Shared)
            && !row.poison
    }
}

/// Counts of what the controller did since power-on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Reads.
    pub reads: u64,
    /// Whole-line writes, each line of a bulk write counted.
    pub full_writes: u64,
    /// Partial writes.
    pub partial_writes: u64,
    /// Underfill reads: partial writes that merged.
    pub underfills: u64,
    /// Partial writes that met the erratum, whether or not the line was poisoned already.
    pub erratum_hits: u64,
    /// Births by [`BirthCause::TdMismatch`].
    pub births_td_mismatch: u64,
    /// Births by [`BirthCause::MacMismatch`].
    pub births_mac_mismatch: u64,
    /// Births by [`BirthCause::SharedIntegrity`].
    pub births_shared_integrity: u64,
    /// Births by [`BirthCause::PartialWrite`].
    pub births_partial_write: u64,
    /// Births by [`BirthCause::UncorrectableError`].
    pub births_uncorrectable_error: u64,
    /// UCNA entries logged.
    pub ucna: u64,
    /// CMCIs signalled.
    pub cmci: u64,
    /// PCONFIGs that programmed a key.
    pub pconfigs: u64,
}

impl Stats {
    fn count_birth(&mut self, cause: BirthCause) {
        *match cause {
            BirthCause::TdMismatch => &mut self.births_td_mismatch,
            BirthCause::MacMismatch => &mut self.births_mac_mismatch,
            BirthCause::SharedIntegrity => &mut self.births_shared_integrity,
            BirthCause::PartialWrite => &mut self.births_partial_write,
            BirthCause::UncorrectableError => &mut self.births_uncorrectable_error,
        } += 1;
    }
    /// All births.
    pub const fn births(&self) -> u64 {
        self.births_td_mismatch
            + self.births_mac_mismatch
            + self.births_shared_integrity
            + self.births_partial_write
            + self.births_uncorrectable_error
    }
}

/// What the last plain read and the last plain write came to: answers of the tables for a KeyID, kept until a key changes.
/// Not state.
#[derive(Clone, Copy, Debug)]
struct Near {
    /// A read of an unpoisoned line with `header`, under `keyid`, is of this class, and no poison is born.
    read: Option<(KeyId, Header, DataClass)>,
    /// A write of an unpoisoned line under this KeyID leaves this header.
    write: Option<(KeyId, Header)>,
}

impl Default for Near {
    fn default() -> Self {
        Near { read: None, write: None }
    }
}
impl PartialEq for Near {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Near {}

/// What a read would return now, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// By which row.
    pub rule: Rule,
    /// The bytes.
    pub data: LineData,
    /// What they are.
    pub class: DataClass,
    /// Whether they come poisoned.
    pub poisoned: bool,
    /// Which poison the line holds already.
    pub poison: Option<BirthId>,
    /// Why poison would be born by the read.
    pub birth: Option<BirthCause>,
}

/// The memory controller: line store, key table, error log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Controller {
    spec: ControllerSpec,
    channels: ChannelMap,
    keys: KeyRing,
    mac_key: [u8; 16],
    store: Store,
    ucna: Vec<UcnaRecord>,
    stats: Stats,
    #[serde(skip)]
    ciphers: Ciphers,
    #[serde(skip)]
    near: Near,
}

/// What the read tables say of a request.
struct Judged {
    row: &'static ReadRow,
    data: LineData,
    class: DataClass,
    poison: Option<BirthId>,
}

/// One poison of a line took the place of another.
#[cold]
fn overwritten(line: Line, old: Option<BirthId>, new: Option<BirthId>, trace: &mut Trace) {
    let place = Location::Dram(line);
    if let Some(old) = old {
        trace.poison_gone(old, place);
    }
    if let Some(new) = new {
        trace.poison_copied(new, place);
    }
}

impl Controller {
    /// A controller after power-on: lines random, TD=0, no valid MAC, no poison (architecture.md §13 MC-10); every KeyID
    /// has the TME key (MC-27).
    ///
    /// # Errors
    /// Those of [`ControllerSpec::validate`].
    pub fn new(spec: ControllerSpec) -> Result<Controller, SpecError> {
        spec.validate()?;
        Ok(Controller {
            channels: AddressMap::new(&spec.dram)?.channels(),
            keys: KeyRing::new(spec.layout, spec.memory, spec.packages),
            mac_key: mac_key(spec.seed),
            store: Store::default(),
            ucna: Vec::new(),
            stats: Stats::default(),
            ciphers: Ciphers::default(),
            near: Near::default(),
            spec,
        })
    }
    /// Which channel of its package serves a line: that of the address map.
    pub fn channel_of(&self, line: Line) -> u8 {
        self.channels.channel_of(line)
    }

    /// What it is made of.
    pub const fn spec(&self) -> &ControllerSpec {
        &self.spec
    }
    /// All UCNA entries so far, in order.
    pub fn ucna_log(&self) -> &[UcnaRecord] {
        &self.ucna
    }
    /// Counts since power-on.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
    /// Bytes held by line store, key table and log, computed from their capacities.
    pub fn memory_use(&self) -> usize {
        size_of::<Controller>()
            + self.store.memory_use()
            + self.keys.memory_use()
            + self.ucna.capacity() * size_of::<UcnaRecord>()
    }

    // ---- Requests ------------------------------------------------------------------------------------------------

    /// Reads a line: architecture.md §2.2, §2.3. May bear poison, which is then stored (MC-02) and logged.
    #[inline]
    pub fn read(&mut self, at: Tagged, trace: &mut Trace) -> Fill {
        self.stats.reads += 1;
        if !trace.is_on() {
            let view = self.store.visit(at.line());
            let plain = view.poison.is_none() && !view.odd;
            if let Some((keyid, header, class)) = self.near.read
                && plain
                && header == view.header
                && keyid == at.keyid()
            {
                let data = if class == DataClass::Plain { *view.data } else { LineData::ZERO };
                return Fill { data, poison: None, class };
            }
            let key = self.keys.key(at);
            if let Some((row, class)) = self.spec.judge_at_once(key, &view)
                && row.cause.is_none()
            {
                // Packages have keys of their own.
                if plain && self.spec.packages <= 1 {
                    self.near.read = Some((key.keyid, view.header, class));
                }
                let data = if class == DataClass::Plain { *view.data } else { LineData::ZERO };
                return Fill { data, poison: if row.poison { view.poison } else { None }, class };
            }
        }
        self.read_in_full(at, trace)
    }

    #[inline(never)]
    fn read_in_full(&mut self, at: Tagged, trace: &mut Trace) -> Fill {
        let line = at.line();
        let key = self.keys.key(at);
        self.warm(line, key);
        let before = if trace.is_on() { Some(self.line(line)) } else { None };
        let Judged { row, data, class, poison } = self.judge(line, key);
        let mut poison = poison;
        if let Some(cause) = row.cause {
            poison = Some(self.bear(at, cause, true, trace));
        }
        if let Some(before) = before {
            let after = self.line(line);
            trace.emit(EventKind::DramRead { at, rule: row.rule, before, after });
        }
        Fill { data, poison: if row.poison { poison } else { None }, class }
    }

    /// Says that a line will be accessed in some 10 requests' time, so that the host fetches what tells about its page. No
    /// effect but on speed; [`Controller::expect_line`] is to follow.
    #[inline]
    pub fn expect_page(&self, line: Line) {
        self.store.prefetch_page(line);
    }
    /// Says that a line will be accessed in some 5 requests' time, so that the host fetches its bytes. No effect but on
    /// speed.
    #[inline]
    pub fn expect_line(&self, line: Line) {
        self.store.prefetch_line(line);
    }

    /// Writes a whole line: architecture.md §2.6 W-01 to W-06. `poison` is that of the cached copy it comes from.
    #[inline]
    pub fn write(
        &mut self,
        at: Tagged,
        data: &LineData,
        poison: Option<BirthId>,
        trace: &mut Trace,
    ) {
        let line = at.line();
        self.stats.full_writes += 1;
        if let Some((keyid, header)) = self.near.write
            && keyid == at.keyid()
            && poison.is_none()
            && !trace.is_on()
        {
            let new = NewLine { header, data, mac_bits: 0, poison, shareable: true };
            if let Some(old) = self.store.set_line(line, &new) {
                overwritten(line, Some(old), None, trace);
            }
            return;
        }
        let key = self.keys.key(at);
        let memory = &self.spec.memory;
        let (mode, erratum) = (memory.integrity, memory.erratum_pw_mce);
        let poison = self.also_kept(line, poison);
        // Whole-line rows do not look at the TD bit.
        let row = write_row(WriteSize::Full, mode, key.class, false, erratum, poison.is_some());
        let old = if trace.is_on() || self.spec.crypto == CryptoKind::Real {
            self.write_in_full(at, row, data, poison, trace)
        } else {
            let header = self.header_at(line, key, row);
            if poison.is_none() && self.spec.packages <= 1 && self.spec.planted == Planted::NONE {
                self.near.write = Some((key.keyid, header));
            }
            let new = NewLine { header, data, mac_bits: 0, poison, shareable: true };
            self.store.set_line(line, &new)
        };
        if old != poison {
            overwritten(line, old, poison, trace);
        }
    }

    #[inline(never)]
    fn write_in_full(
        &mut self,
        at: Tagged,
        row: &WriteRow,
        data: &LineData,
        poison: Option<BirthId>,
        trace: &mut Trace,
    ) -> Option<BirthId> {
        let line = at.line();
        let key = self.keys.key(at);
        let before = if trace.is_on() { Some(self.line(line)) } else { None };
        let old = self.put(line, key, row, data, poison);
        if let Some(before) = before {
            let after = self.line(line);
            let (mask, rule) = (ByteMask::FULL, row.rule);
            trace.emit(EventKind::DramWrite { at, mask, rule, before, after });
        }
        old
    }

    /// Writes the bytes in `mask`: architecture.md §2.6 W-07 to W-10, §13 MC-03, MC-04, MC-26. A full mask is a whole-line
    /// write; an empty one is nothing.
    pub fn write_partial(
        &mut self,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        trace: &mut Trace,
    ) {
        if mask.is_empty() {
            return;
        }
        if mask.is_full() {
            return self.write(at, data, None, trace);
        }
        let line = at.line();
        let key = self.keys.key(at);
        let memory = self.spec.memory;
        let view = self.store.visit(line);
        let (td, old) = (view.header.td(), view.poison);
        let td = td || self.spec.planted.is(Fault::ErratumIgnoresTd);
        let row = write_row(
            WriteSize::Partial,
            memory.integrity,
            key.class,
            td,
            memory.erratum_pw_mce,
            false,
        );
        self.stats.partial_writes += 1;
        let before = if trace.is_on() { Some(self.line(line)) } else { None };
        if row.poison_after == PoisonAfter::Erratum {
            self.stats.erratum_hits += 1;
            let effect = erratum_effect(memory.erratum_pw_mce, key.class, td, old.is_some());
            if effect == ErratumEffect::Birth {
                self.bear(at, BirthCause::PartialWrite, false, trace);
            }
        } else {
            self.stats.underfills += 1;
            self.warm(line, key);
            let judged = self.judge(line, key);
            let poison = match judged.row.cause {
                Some(cause) => Some(self.bear(at, cause, false, trace)),
                None => judged.poison,
            };
            let poison = poison.filter(|_| !self.spec.planted.is(Fault::PartialClearsPoison));
            let mut merged = judged.data;
            merged.merge(data, mask);
            self.put(line, key, row, &merged, poison);
        }
        if let Some(before) = before {
            let after = self.line(line);
            trace.emit(EventKind::DramWrite { at, mask, rule: row.rule, before, after });
        }
    }

    /// Writes the same 64 bytes to many lines of a page (bit i of `lines` is line i): as that many [`Controller::write`]s of
    /// unpoisoned data, with one event.
    pub fn write_lines(
        &mut self,
        page: Page,
        lines: u64,
        keyid: KeyId,
        data: &LineData,
        trace: &mut Trace,
    ) {
        if lines == 0 {
            return;
        }
        let key = self.keys.key(Tagged::new(page.line(0), keyid));
        let memory = &self.spec.memory;
        let (mode, erratum) = (memory.integrity, memory.erratum_pw_mce);
        let row = write_row(WriteSize::Full, mode, key.class, false, erratum, false);
        if trace.is_on() {
            trace.emit(EventKind::DramWritePage { page, keyid, lines, rule: row.rule });
        }
        if lines == u64::MAX {
            self.stats.full_writes += 64;
            let content = Content { header: self.header(key, row), data: *data };
            self.store.set_page(page, &content, |line, birth| {
                trace.poison_gone(birth, Location::Dram(line));
            });
            return;
        }
        self.stats.full_writes += u64::from(lines.count_ones());
        let mut rest = lines;
        while rest != 0 {
            let line = page.line(rest.trailing_zeros());
            rest &= rest - 1;
            if let Some(old) = self.put(line, key, row, data, None) {
                trace.poison_gone(old, Location::Dram(line));
            }
        }
    }

    /// Writes the same 64 bytes to every line of many pages: as [`Controller::write_lines`] of each, in time that does not
    /// grow with their number while the trace is quiet.
    pub fn write_pages(
        &mut self,
        pages: Range<Page>,
        keyid: KeyId,
        data: &LineData,
        trace: &mut Trace,
    ) {
        // Pages of one package at a time: each has its own key.
        let mut first = pages.start;
        while first < pages.end {
            let turn = HOME_BYTES / PAGE_BYTES;
            let end = match self.spec.packages {
                0 | 1 => pages.end,
                _ => Page((first.0 / turn + 1) * turn).min(pages.end),
            };
            self.write_pages_of_one(first..end, keyid, data, trace);
            first = end;
        }
    }

    /// [`Controller::write_pages`] where one package serves all pages.
    fn write_pages_of_one(
        &mut self,
        pages: Range<Page>,
        keyid: KeyId,
        data: &LineData,
        trace: &mut Trace,
    ) {
        let key = self.keys.key(Tagged::new(pages.start.line(0), keyid));
        let memory = &self.spec.memory;
        let (mode, erratum) = (memory.integrity, memory.erratum_pw_mce);
        let row = write_row(WriteSize::Full, mode, key.class, false, erratum, false);
        self.stats.full_writes += (pages.end.0 - pages.start.0).saturating_mul(64);
        if trace.is_on() {
            for page in pages.start.0..pages.end.0 {
                let (page, lines, rule) = (Page(page), u64::MAX, row.rule);
                trace.emit(EventKind::DramWritePage { page, keyid, lines, rule });
            }
        }
        let content = Content { header: self.header(key, row), data: *data };
        for (line, birth) in self.store.set_pages(pages, &content) {
            trace.poison_gone(birth, Location::Dram(line));
        }
    }

    /// [`Controller::pconfig_on`] the first package.
    pub fn pconfig(
        &mut self,
        keyid: KeyId,
        cmd: PconfigCmd,
        alg: Option<KeyAlg>,
        seam: bool,
        trace: &mut Trace,
    ) -> PconfigStatus {
        self.pconfig_on(0, keyid, cmd, alg, seam, trace)
    }

    /// PCONFIG on a core of this package: programs the key table of its controllers only (architecture.md §8). `seam` says whether it runs in SEAM, where alone private KeyIDs can be programmed (§2.5).
    /// Lines, caches and translations stay as they are (§4.1 4.1.5).
    pub fn pconfig_on(
        &mut self,
        package: u8,
        keyid: KeyId,
        cmd: PconfigCmd,
        alg: Option<KeyAlg>,
        seam: bool,
        trace: &mut Trace,
    ) -> PconfigStatus {
        let status = self.keys.pconfig(package, keyid, cmd, alg, seam);
        self.near = Near::default();
        self.stats.pconfigs += u64::from(status == PconfigStatus::Ok);
        trace.emit(EventKind::Pconfig { keyid, status });
        status
    }

    // ---- Inspection ----------------------------------------------------------------------------------------------

    /// Whether a line under this KeyID carries a MAC that reads check: private KeyIDs in Ci, shared ones only if PCONFIG
    /// gave them an algorithm with integrity (architecture.md §2.1 2.1.2, 2.1.5).
    pub fn has_integrity(&self, at: Tagged) -> bool {
        self.spec.memory.integrity == IntegrityMode::Ci
            && self.keys.key(at).class != KeyClass::Shared
    }

    /// What a line holds besides its ciphertext. No effect.
    pub fn line(&self, line: Line) -> LineState {
        let view = self.store.view(line);
        LineState {
            td: view.header.td(),
            mac: view.header.mac(),
            poison: view.poison,
            writer: view.header.writer(),
        }
    }

    /// What a read would return and by which row. No effect.
    pub fn probe(&self, at: Tagged) -> Probe {
        let Judged { row, data, class, poison } = self.judge(at.line(), self.keys.key(at));
        Probe { rule: row.rule, data, class, poisoned: row.poison, poison, birth: row.cause }
    }

    /// The stored bits of a line: what a bus interposer sees. `None` with symbolic crypto, which has no bits.
    pub fn ciphertext(&self, line: Line) -> Option<[u8; 64]> {
        (self.spec.crypto == CryptoKind::Real)
            .then(|| self.image(line, &self.store.view(line)).data.to_bytes())
    }

    /// The stored MAC of a line, `memory.mac_bits` wide. `None` with symbolic crypto, or where the field holds none.
    pub fn stored_mac(&self, line: Line) -> Option<u32> {
        let image = self.image(line, &self.store.view(line));
        image.mac.filter(|_| self.spec.crypto == CryptoKind::Real).map(|mac| mac.bits)
    }

    /// Whether both hold the same in all of `lines`: ciphertext, TD bit, MAC, last writer and poison (whether, not which),
    /// however each came to it.
    pub fn same_content(&self, other: &Controller, lines: impl IntoIterator<Item = Line>) -> bool {
        lines.into_iter().all(|line| {
            let (a, b) = (self.store.view(line), other.store.view(line));
            a.header.writer() == b.header.writer()
                && a.poison.is_some() == b.poison.is_some()
                && self.image(line, &a) == other.image(line, &b)
        })
    }

    // ---- Physical attacks and faults -----------------------------------------------------------------------------

    /// Flips a bit (0 to 511, else taken modulo 512) of the stored ciphertext.
    pub fn flip_bit(&mut self, line: Line, bit: u16, trace: &mut Trace) {
        let bit = bit % 512;
        let mut image = self.image(line, &self.store.view(line));
        image.flip(self.spec.crypto, bit);
        self.tamper(line, &image, Tamper::FlipBit(bit), trace);
    }

    /// Flips the stored TD-owner bit.
    pub fn flip_td(&mut self, line: Line, trace: &mut Trace) {
        let mut image = self.image(line, &self.store.view(line));
        image.td = !image.td;
        self.tamper(line, &image, Tamper::FlipTd, trace);
    }

    /// Copies ciphertext, TD bit and MAC of one line over another's. Poison is not copied and not healed.
    pub fn move_line(&mut self, from: Line, to: Line, trace: &mut Trace) {
        let image = self.image(from, &self.store.view(from));
        self.tamper(to, &image, Tamper::Moved(from), trace);
    }

    /// Remembers ciphertext, TD bit and MAC of a line. No effect.
    pub fn save_line(&self, line: Line) -> Image {
        self.image(line, &self.store.view(line))
    }

    /// Puts back what was remembered, here or elsewhere (replay). Poison is not healed.
    pub fn restore_line(&mut self, line: Line, image: &Image, trace: &mut Trace) {
        self.tamper(line, image, Tamper::Replayed, trace);
    }

    /// Poisons a line, as an uncorrectable memory error does. A line that is poisoned keeps its poison.
    pub fn inject_ue(&mut self, at: Tagged, trace: &mut Trace) {
        if self.store.view(at.line()).poison.is_none() {
            self.bear(at, BirthCause::UncorrectableError, false, trace);
        }
    }

    // ---- Within --------------------------------------------------------------------------------------------------

    fn real(&self) -> Real<'_> {
        Real {
            seed: self.spec.seed,
            mac_key: &self.mac_key,
            mac_bits: self.spec.memory.mac_bits,
            keys: &self.keys,
            ciphers: &self.ciphers,
        }
    }

    /// Expands the keys that an access to the line needs, so that they stay expanded.
    #[inline]
    fn warm(&mut self, line: Line, key: Key) {
        if self.spec.crypto == CryptoKind::Real {
            let stored = self.store.view(line).header.material();
            self.ciphers.warm(self.spec.seed, &self.keys, stored);
            self.ciphers.warm(self.spec.seed, &self.keys, key.material);
        }
    }

    /// What DRAM stores for a line: a line that shares its content is encrypted here.
    fn image(&self, line: Line, view: &View<'_>) -> Image {
        let mut image = Image {
            data: *view.data,
            material: view.header.material(),
            home: line,
            flips: LineData::ZERO,
            td: view.header.td(),
            mac: self.store.mac_field(line, view),
        };
        if view.shared {
            if view.header.material() == MaterialId::POWER_ON {
                image.data = power_on(self.spec.seed, line);
            } else if self.spec.crypto == CryptoKind::Real {
                let real = self.real();
                image.data = real.encrypt(view.header.material(), line, view.data);
                if let Some(mac) = &mut image.mac {
                    mac.bits =
                        real.mac(view.header.material(), line, &image.data, view.header.td());
                }
            }
        } else if view.odd
            && let Some(odd) = self.store.odd(line)
        {
            (image.home, image.flips) = (odd.home, odd.flips);
        }
        image
    }

    /// Finds the row of a read, and what it returns.
    fn judge(&self, line: Line, key: Key) -> Judged {
        let view = self.store.view(line);
        match self.spec.judge_at_once(key, &view) {
            Some((row, class)) => {
                let data = if class == DataClass::Plain { *view.data } else { LineData::ZERO };
                Judged { row, data, class, poison: view.poison }
            }
            None => self.judge_in_full(line, key, &view),
        }
    }

    fn judge_in_full(&self, line: Line, key: Key, view: &View<'_>) -> Judged {
        let mode = self.spec.memory.integrity;
        let image = self.image(line, view);
        let real = self.spec.crypto == CryptoKind::Real;
        let mac_ok = read_checks_mac(mode, key.class, image.td)
            && if self.spec.planted.is(Fault::MacNotChecked) {
                true
            } else if real {
                image.mac.is_some_and(|mac| {
                    mac.bits == self.real().mac(key.material, line, &image.data, image.td)
                })
            } else {
                symbolic_mac_matches(&image, line, key.material)
            };
        let row = read_row(mode, key.class, image.td, mac_ok, view.poison.is_some());
        let (data, class) = match row.data {
            Returned::Zeros if !self.spec.shows(row, key) => (LineData::ZERO, DataClass::Blocked),
            Returned::Zeros | Returned::Plaintext => {
                let data = if real {
                    self.real().decrypt(key.material, line, &image.data)
                } else {
                    symbolic_decrypt(self.spec.seed, &image, line, key.material)
                };
                let plain = image.is_plain(line, key.material);
                (data, if plain { DataClass::Plain } else { DataClass::Garbage })
            }
        };
        Judged { row, data, class, poison: view.poison }
    }

    /// What is known of lines after a write by `row`.
    #[inline]
    fn header(&self, key: Key, row: &WriteRow) -> Header {
        let td = match row.td_after {
            TdAfter::Set => true,
            TdAfter::Clear => false,
            // `Unchanged` is the erratum's, which stores no line.
            TdAfter::ByClass | TdAfter::Unchanged => key.class == KeyClass::Private,
        };
        let mac = match row.mac_after {
            MacAfter::Computed => true,
            MacAfter::NotValid | MacAfter::Absent => false,
            MacAfter::ByClass | MacAfter::Unchanged => {
                write_makes_mac(self.spec.memory.integrity, key.class)
            }
        };
        Header::new(key.material, Some(key.keyid), td, mac)
    }

    /// [`Controller::header`] of a write to this line.
    #[inline]
    fn header_at(&self, line: Line, key: Key, row: &WriteRow) -> Header {
        let header = self.header(key, row);
        if self.spec.planted.is(Fault::WriteKeepsTd) {
            let td = self.store.view(line).header.td();
            return Header::new(header.material(), header.writer(), td, header.mac());
        }
        header
    }

    /// The poison that a whole-line write stores: that of the copy that it comes from.
    #[inline]
    fn also_kept(&self, line: Line, source: Option<BirthId>) -> Option<BirthId> {
        if self.spec.planted.is(Fault::WriteKeepsPoison) {
            return source.or(self.store.view(line).poison);
        }
        source
    }

    /// Stores a whole line. Returns the poison that was there.
    fn put(
        &mut self,
        line: Line,
        key: Key,
        row: &WriteRow,
        data: &LineData,
        poison: Option<BirthId>,
    ) -> Option<BirthId> {
        let header = self.header_at(line, key, row);
        if self.spec.crypto == CryptoKind::Symbolic {
            return self
                .store
                .set_line(line, &NewLine { header, data, mac_bits: 0, poison, shareable: true });
        }
        self.ciphers.warm(self.spec.seed, &self.keys, key.material);
        let real = self.real();
        let data = real.encrypt(key.material, line, data);
        let mac_bits =
            if header.mac() { real.mac(key.material, line, &data, header.td()) } else { 0 };
        let new = NewLine { header, data: &data, mac_bits, poison, shareable: false };
        self.store.set_line(line, &new)
    }

    /// Stores an image with a line, as it is.
    fn put_image(
        &mut self,
        line: Line,
        image: &Image,
        writer: Option<KeyId>,
        poison: Option<BirthId>,
    ) {
        let MacField { bits, made_td } =
            image.mac.unwrap_or(MacField { bits: 0, made_td: image.td });
        let header = Header::new(image.material, writer, image.td, image.mac.is_some());
        let new = NewLine { header, data: &image.data, mac_bits: bits, poison, shareable: false };
        self.store.set_line(line, &new);
        if image.home != line || !image.flips.is_zero() || made_td != image.td {
            self.store.set_odd(line, Odd { home: image.home, flips: image.flips, made_td });
        }
    }

    fn tamper(&mut self, line: Line, image: &Image, how: Tamper, trace: &mut Trace) {
        let view = self.store.view(line);
        let (writer, poison) = (view.header.writer(), view.poison);
        self.put_image(line, image, writer, poison);
        trace.emit(EventKind::Tampered { line, how });
    }

    /// Poison is born: stored in the line, entered in the ledger and, if `signalled`, logged as its cause asks for.
    #[cold]
    fn bear(
        &mut self,
        at: Tagged,
        cause: BirthCause,
        signalled: bool,
        trace: &mut Trace,
    ) -> BirthId {
        let line = at.line();
        let view = self.store.view(line);
        let (image, writer) = (self.image(line, &view), view.header.writer());
        let birth = trace.born(at, cause);
        self.stats.count_birth(cause);
        let lost = signalled && self.spec.planted.is(Fault::PoisonNotStored);
        self.put_image(line, &image, writer, Some(birth).filter(|_| !lost));
        let mce = &self.spec.mce;
        let mscod = match birth_signal(cause) {
            UcnaCode::Td if signalled => mce.mscod_td,
            UcnaCode::Mac if signalled => mce.mscod_mac,
            _ => return birth,
        };
        let channel = self.channel_of(line);
        let record = UcnaRecord {
            bank: mce.bank_imc.saturating_add(channel),
            status: McStatus::ucna(mscod, mce.mcacod_imc.saturating_add(channel.into())),
            addr: self.spec.layout.join(Addr::new(line.hpa(), at.keyid())),
            cmci: mce.cmci,
            birth,
        };
        self.stats.ucna += 1;
        self.stats.cmci += u64::from(record.cmci);
        self.ucna.push(record);
        trace.emit(EventKind::Ucna(record));
        birth
    }
}
