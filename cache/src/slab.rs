//! Every cached (line, KeyID) once: its bytes, its poison and who holds it.
//!
//! MESI per (line, KeyID) guarantees that all valid copies are equal (verification.md C1, C2), so one copy of the data
//! stands for all of them.

use crate::array::SlotId;
use crate::home::Homes;
use crate::index::Index;
use crate::mesi::Mesi;
use crate::rows::Rows;
use serde::{Deserialize, Serialize};
use sim_core::outcome::DataClass;
use sim_core::{BirthId, ByteMask, KeyId, Line, LineData, Tagged};

/// A cached (line, KeyID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedLine {
    /// Which.
    pub tag: Tagged,
    /// Plaintext (architecture.md §4.1 4.1.3).
    pub data: LineData,
    /// Poison of the copy: an attribute of the line (architecture.md §13 MC-05).
    pub poison: Option<BirthId>,
    /// What the bytes are, as the fill had them; a whole-line store makes them [`DataClass::Plain`].
    pub class: DataClass,
    /// State of the cores' copies; [`Mesi::Invalid`] when only LLCs hold the line, [`Mesi::Shared`] where one of several
    /// copies is the forwarder's.
    pub state: Mesi,
    /// The core whose copy is in [`Mesi::Forward`], if any is.
    pub forwarder: Option<u16>,
    /// Cores that hold it in L1 or L2: bit i is core i.
    pub cores: u128,
    /// Packages whose LLC holds it: bit i is package i.
    pub llc: u8,
    /// Whether the LLC that holds it has the duty to write it back.
    pub llc_dirty: bool,
}

impl CachedLine {
    /// Whether memory is older than this copy.
    pub const fn is_dirty(&self) -> bool {
        self.llc_dirty || matches!(self.state, Mesi::Modified)
    }
    /// Whether anybody holds it.
    pub const fn is_held(&self) -> bool {
        self.cores != 0 || self.llc != 0
    }
}

/// A cached line without its bytes, which most accesses do not look at: half a line of the host's cache. The fields are
/// those of [`CachedLine`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(align(32))]
pub(crate) struct Entry {
    pub(crate) tag: Tagged,
    pub(crate) poison: Option<BirthId>,
    pub(crate) class: DataClass,
    pub(crate) state: Mesi,
    pub(crate) llc: u8,
    pub(crate) llc_dirty: bool,
    pub(crate) cores: u128,
}

const _: () = assert!(size_of::<Entry>() == 32);

/// The bytes of a cached line: one line of the host's cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(align(64))]
struct Bytes(LineData);

impl Entry {
    const VACANT: Entry = Entry {
        // No line's.
        tag: Tagged::new(Line((1 << 48) - 1), KeyId(0x7fff)),
        poison: None,
        class: DataClass::Plain,
        state: Mesi::Invalid,
        llc: 0,
        llc_dirty: false,
        cores: 0,
    };
    /// As [`CachedLine::is_dirty`].
    pub(crate) const fn is_dirty(&self) -> bool {
        self.llc_dirty || matches!(self.state, Mesi::Modified)
    }
    /// As [`CachedLine::is_held`].
    pub(crate) const fn is_held(&self) -> bool {
        self.cores != 0 || self.llc != 0
    }
}

/// All cached lines. Slot 0 is never used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub(crate) struct Slab {
    lines: Rows<Entry>,
    /// Bytes of each line; those of a free slot mean nothing.
    data: Rows<Bytes>,
    /// Home set of each line, [`VACANT`] for a free slot, and whether other KeyIDs of the line are in the slab as well
    /// ([`ALIASED`]). Apart from the line, so that a walk of one sub-block reads little.
    homes: Vec<u32>,
    /// The core that read a shared line last, as a byte. It is the forwarder as long as it holds the line.
    readers: Vec<u8>,
    free: Vec<SlotId>,
    map: Homes,
    sub_blocks: u32,
    /// Slot of each held line. Derived, so not stored.
    #[serde(skip_serializing)]
    index: Index,
}

/// A slab as it is stored.
#[derive(Deserialize)]
struct Stored {
    lines: Rows<Entry>,
    data: Rows<Bytes>,
    homes: Vec<u32>,
    readers: Vec<u8>,
    free: Vec<SlotId>,
    map: Homes,
    sub_blocks: u32,
}

const VACANT: u32 = u32::MAX;
const ALIASED: u32 = 1 << 31;

impl TryFrom<Stored> for Slab {
    type Error = &'static str;
    fn try_from(stored: Stored) -> Result<Slab, Self::Error> {
        let Stored { lines, data, homes, readers, free, map, sub_blocks } = stored;
        let all = [data.len(), homes.len(), readers.len()];
        let fits = all.iter().all(|n| *n == lines.len());
        if !fits || free.len() >= lines.len() || sub_blocks == 0 {
            return Err("the cached lines of the snapshot do not fit together");
        }
        let index = Index::default();
        let mut slab = Slab { lines, data, homes, readers, free, map, sub_blocks, index };
        let slots = 1..slab.lines.len() as SlotId;
        for slot in slots {
            let line = slab.get(slot);
            if !line.is_held() {
                continue;
            }
            let tag = line.tag;
            if slab.find(tag).is_some() {
                return Err("a line is cached twice in the snapshot");
            }
            slab.index.insert(tag, slot, |_| false);
        }
        Ok(slab)
    }
}

impl Slab {
    pub(crate) fn new(map: Homes, sub_blocks: u32) -> Slab {
        Slab {
            lines: Rows::new(Entry::VACANT, std::iter::empty()),
            data: Rows::new(Bytes(LineData::ZERO), std::iter::empty()),
            homes: vec![VACANT],
            readers: vec![0],
            free: Vec::new(),
            map,
            sub_blocks: sub_blocks.max(1),
            index: Index::default(),
        }
    }
    #[inline]
    pub(crate) fn get(&self, slot: SlotId) -> &Entry {
        self.lines.at(slot as usize)
    }
    #[inline]
    pub(crate) fn get_mut(&mut self, slot: SlotId) -> &mut Entry {
        self.lines.at_mut(slot as usize)
    }
    /// The bytes of a line.
    #[inline]
    pub(crate) fn data(&self, slot: SlotId) -> &LineData {
        &self.data.at(slot as usize).0
    }
    #[inline]
    pub(crate) fn data_mut(&mut self, slot: SlotId) -> &mut LineData {
        &mut self.data.at_mut(slot as usize).0
    }
    /// Writes bytes into a line.
    #[inline]
    pub(crate) fn write(&mut self, slot: SlotId, data: &LineData, mask: ByteMask) -> &mut Entry {
        self.data_mut(slot).merge(data, mask);
        let line = self.get_mut(slot);
        // What a write-back and a new fill would say: the line was written under this key. Otherwise the class would
        // depend on the size of the cache.
        line.class = DataClass::Plain;
        line
    }
    /// Asks the host for where a line is looked up, or will be entered or struck out.
    #[inline]
    pub(crate) fn expect(&self, line: Line) {
        self.index.expect(line);
    }
    /// Asks the host for a line without its bytes.
    #[inline]
    pub(crate) fn expect_entry(&self, slot: SlotId) {
        self.lines.expect(slot as usize);
    }
    /// Asks the host for the bytes of a line.
    #[inline]
    pub(crate) fn expect_data(&self, slot: SlotId) {
        self.data.expect(slot as usize);
    }
    /// A line with its bytes.
    pub(crate) fn whole(&self, slot: SlotId) -> CachedLine {
        let Entry { tag, poison, class, state, llc, llc_dirty, cores } = *self.get(slot);
        let data = *self.data(slot);
        let forwarder = self.forwarder(slot);
        CachedLine { tag, data, poison, class, state, forwarder, cores, llc, llc_dirty }
    }
    /// The core whose copy of a shared line is in [`Mesi::Forward`], if any is: who read it last, unless it has lost it.
    pub(crate) fn forwarder(&self, slot: SlotId) -> Option<u16> {
        let line = self.get(slot);
        let reader = *self.readers.get(slot as usize)?;
        let holds = line.state == Mesi::Shared && line.cores >> (reader & 127) & 1 != 0;
        holds.then_some(u16::from(reader))
    }
    /// A core has read a line that others hold.
    pub(crate) fn read_last_by(&mut self, slot: SlotId, core: usize) {
        if let Some(reader) = self.readers.get_mut(slot as usize) {
            *reader = (core & 127) as u8;
        }
    }
    /// The home set of a cached line.
    #[inline]
    pub(crate) fn home(&self, slot: SlotId) -> u32 {
        self.homes.get(slot as usize).map_or(0, |home| home & !ALIASED)
    }
    /// The slice of a cached line.
    #[inline]
    pub(crate) fn slice(&self, slot: SlotId) -> u8 {
        self.map.slice_of_home(self.home(slot))
    }
    /// The homes of lines.
    pub(crate) const fn map(&self) -> &Homes {
        &self.map
    }
    /// The sub-block of a line: every line, whatever its KeyID, belongs to exactly one (architecture.md §13 MC-14).
    pub(crate) fn sub_block_of(&self, line: Line) -> u32 {
        self.map.home(line) % self.sub_blocks.max(1)
    }
    /// Whether the slab has other KeyIDs of a cached line.
    #[inline]
    pub(crate) fn is_aliased(&self, slot: SlotId) -> bool {
        self.homes.get(slot as usize).is_some_and(|home| home & ALIASED != 0)
    }
    /// Another KeyID of a cached line for which `is` holds, if any is in the slab: of several, the lowest slot's.
    #[inline]
    pub(crate) fn alias(
        &self,
        slot: SlotId,
        is: impl Fn(SlotId, &Entry) -> bool,
    ) -> Option<SlotId> {
        if self.is_aliased(slot) { self.alias_among(slot, is) } else { None }
    }
    #[cold]
    fn alias_among(&self, slot: SlotId, is: impl Fn(SlotId, &Entry) -> bool) -> Option<SlotId> {
        let line = self.get(slot).tag.line();
        self.index.least(line, |other| {
            let entry = self.get(other);
            other != slot && entry.tag.line() == line && is(other, entry)
        })
    }
    /// Notes in a slot whether other KeyIDs of its line are in the slab.
    fn note_alias(&mut self, slot: SlotId, is: bool) {
        if let Some(home) = self.homes.get_mut(slot as usize) {
            *home = *home & !ALIASED | if is { ALIASED } else { 0 };
        }
    }
    /// The slot of a line that somebody holds.
    #[inline]
    pub(crate) fn find(&self, at: Tagged) -> Option<SlotId> {
        self.index.find(at.line(), |slot| self.get(slot).tag == at)
    }
    /// The lowest-numbered slot that holds the line under any KeyID and for which `is` holds.
    pub(crate) fn any_of(&self, line: Line, is: impl Fn(&Entry) -> bool) -> Option<SlotId> {
        self.index.least(line, |slot| {
            let entry = self.get(slot);
            entry.tag.line() == line && is(entry)
        })
    }
    /// Takes in a line that is not there and that `core` now holds alone.
    pub(crate) fn add(
        &mut self,
        tag: Tagged,
        core: usize,
        data: &LineData,
        poison: Option<BirthId>,
        class: DataClass,
    ) -> SlotId {
        let line = Entry {
            tag,
            poison,
            class,
            state: Mesi::Exclusive,
            llc: 0,
            llc_dirty: false,
            cores: 1 << (core & 127),
        };
        let home = self.map.home(tag.line());
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.lines.push(Entry::VACANT);
                self.data.push(Bytes(LineData::ZERO));
                self.homes.push(VACANT);
                self.readers.push(0);
                (self.lines.len() - 1) as SlotId
            }
        };
        *self.get_mut(slot) = line;
        *self.data_mut(slot) = *data;
        if let Some(place) = self.homes.get_mut(slot as usize) {
            *place = home;
        }
        let lines = &self.lines;
        let same_line = |other: SlotId| lines.at(other as usize).tag.line() == tag.line();
        if let Some(alias) = self.index.insert(tag, slot, same_line) {
            // Of three or more, all but the new one know already.
            self.note_alias(alias, true);
            self.note_alias(slot, true);
        }
        slot
    }
    /// Lets a line go that nobody holds any more.
    pub(crate) fn remove(&mut self, slot: SlotId) {
        let tag = self.get(slot).tag;
        if !self.index.remove(tag, slot) {
            return;
        }
        if let Some(alias) = self.alias(slot, |_, _| true) {
            let third = self.alias_among(alias, |_, _| true).is_some();
            self.note_alias(alias, third);
        }
        *self.get_mut(slot) = Entry::VACANT;
        if let Some(place) = self.homes.get_mut(slot as usize) {
            *place = VACANT;
        }
        self.free.push(slot);
    }
    /// How many slots there are, used or not, slot 0 included.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.lines.len()
    }
    /// The next slot at or after `from` that is in use and in sub-block `block` (any where `None`).
    pub(crate) fn next_in(&self, block: Option<u32>, from: usize) -> Option<SlotId> {
        let homes = self.homes.get(from..)?;
        let blocks = self.sub_blocks.max(1);
        let at = match block {
            None => homes.iter().position(|home| *home != VACANT),
            Some(block) if blocks.is_power_of_two() => {
                homes.iter().position(|home| *home != VACANT && home & (blocks - 1) == block)
            }
            Some(block) => {
                let fits = |home: u32| home != VACANT && (home & !ALIASED) % blocks == block;
                homes.iter().position(|home| fits(*home))
            }
        };
        at.map(|i| (from + i) as SlotId)
    }
    /// How many lines are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.index.len()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        let slots = self.lines.iter().enumerate().map(|(i, line)| (i as SlotId, line));
        slots.filter(|(_, line)| line.is_held())
    }
    /// What is wrong with the slab itself, if anything.
    pub(crate) fn defect(&self) -> Option<String> {
        let mut held = 0;
        for (slot, line) in self.iter() {
            held += 1;
            if self.find(line.tag) != Some(slot) {
                return Some(format!("{} is at slot {slot} but not indexed there", line.tag));
            }
            let aliased = self.alias_among(slot, |_, _| true).is_some();
            let home = self.map.home(line.tag.line()) | if aliased { ALIASED } else { 0 };
            if self.homes.get(slot as usize) != Some(&home) {
                return Some(format!("{} is not noted as at home in {home:#x}", line.tag));
            }
        }
        if held != self.index.len() {
            return Some(format!("{held} lines held but {} indexed", self.index.len()));
        }
        if held + self.free.len() + 1 != self.lines.len() {
            return Some(format!(
                "{held} lines held and {} free do not make {} slots",
                self.free.len(),
                self.lines.len() - 1
            ));
        }
        let free_is_vacant = |slot: &SlotId| {
            *self.get(*slot) == Entry::VACANT && self.homes.get(*slot as usize) == Some(&VACANT)
        };
        (!self.free.iter().all(free_is_vacant)).then(|| "a free slot is not vacant".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_core::platform::{CacheGeometry, CpuSpec, SnoopFilterGeometry, XorMasks};
    use sim_core::time::Clock;

    fn slab(sub_blocks: u32) -> Slab {
        let cpu = CpuSpec {
            packages: 1,
            cores: 1,
            core_clock: Clock { mhz: 2000 },
            l1d: CacheGeometry { size: 64, ways: 1 },
            l2: CacheGeometry { size: 64, ways: 1 },
            llc: CacheGeometry { size: 64 * 64, ways: 1 },
            llc_slices: 4,
            slice_hash: XorMasks::new(&[0x40, 0x80]),
            snoop_filter: SnoopFilterGeometry { sets: 1, ways: 1 },
            l1_clocks: 5,
            l2_clocks: 10,
            miss_clocks: 6,
            window: 512,
            width: 6,
            fill_buffers: 16,
            superqueue: 48,
            store_buffer: 112,
            direct_stores: 4,
            flush_sub_blocks: sub_blocks,
            wc_buffers: 1,
            weak_slots: 1,
            wc_age: sim_core::Ps::ZERO,
            fast_string_no_rfo: true,
            rfo_poison_mc: false,
        };
        Slab::new(Homes::new(&cpu), sub_blocks)
    }

    fn add(slab: &mut Slab, line: u64) -> SlotId {
        let at = Tagged::new(Line(line), KeyId(2));
        slab.add(at, 1, &LineData::filled(3), None, DataClass::Plain)
    }

    #[test]
    fn a_slab_read_back_finds_every_line_again() {
        let mut slab = slab(4);
        let first = add(&mut slab, 9);
        add(&mut slab, 10);
        slab.remove(first);
        let bytes = postcard::to_stdvec(&slab).unwrap();
        let back: Slab = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, slab);
        assert_eq!(back.find(Tagged::new(Line(10), KeyId(2))), Some(2));
        assert_eq!(back.find(Tagged::new(Line(9), KeyId(2))), None);
        assert_eq!(back.defect(), None);
    }

    #[test]
    fn a_snapshot_with_a_line_twice_is_refused() {
        let mut slab = slab(4);
        add(&mut slab, 9);
        let second = add(&mut slab, 10);
        slab.get_mut(second).tag = Tagged::new(Line(9), KeyId(2));
        let bytes = postcard::to_stdvec(&slab).unwrap();
        assert!(postcard::from_bytes::<Slab>(&bytes).is_err());
        assert!(slab.defect().is_some());
    }

    #[test]
    fn a_freed_slot_is_used_again_before_the_slab_grows() {
        let mut slab = slab(1);
        let a = add(&mut slab, 1);
        slab.remove(a);
        slab.remove(a);
        assert_eq!(add(&mut slab, 2), a);
        assert_eq!((slab.held(), slab.len()), (1, 2));
        assert_eq!(slab.defect(), None);
    }

    #[test]
    fn the_walk_of_the_sub_blocks_meets_every_line_once() {
        let mut slab = slab(5);
        for line in 0..100 {
            add(&mut slab, line * 7);
        }
        let mut met = 0;
        for block in 0..5 {
            let mut from = 1;
            while let Some(slot) = slab.next_in(Some(block), from) {
                assert_eq!(slab.sub_block_of(slab.get(slot).tag.line()), block);
                met += 1;
                from = slot as usize + 1;
            }
        }
        assert_eq!(met, 100);
    }
}
