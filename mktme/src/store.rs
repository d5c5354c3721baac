//! What DRAM holds, sparsely.
//!
//! Three levels (peers.md §4 lesson 11, style-and-ecosystem.md B8). *Runs* of 2 MiB regions whose lines all hold the same
//! cost one map entry whatever their length. A *region* that differs from the run below it keeps up to two uniform contents
//! and one bit per page to tell which, so sweeping a region from one owner to the next costs a bit per page; when the last
//! page has changed, the region becomes part of a run again. A *page* whose lines differ keeps the lines that do, and one
//! machine word per property.

mod page;
mod region;

use crate::crypto::MacField;
use crate::keys::MaterialId;
use page::PageBody;
use region::Region;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use sim_core::addr::{Line, Page};
use sim_core::data::LineData;
use sim_core::event::BirthId;
use sim_core::keyid::KeyId;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Pages in a region: 2 MiB.
pub(crate) const REGION_PAGES: u64 = 512;

/// What is known of a line's bytes: the key that they are encrypted with, who wrote the line last, TD bit, and whether the
/// MAC field holds a MAC. One word, because nearly every access compares it.
///
/// Bits 63 to 32: the material; 31 to 16: the writer's KeyID; 2: whether there is a writer; 1: TD bit; 0: MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Header(u64);

impl Header {
    #[inline]
    pub(crate) const fn new(
        material: MaterialId,
        writer: Option<KeyId>,
        td: bool,
        mac: bool,
    ) -> Header {
        let writer = match writer {
            Some(keyid) => (keyid.0 as u64) << 16 | 4,
            None => 0,
        };
        Header((material.raw() as u64) << 32 | writer | (td as u64) << 1 | mac as u64)
    }
    #[inline]
    pub(crate) const fn material(self) -> MaterialId {
        MaterialId::of_raw((self.0 >> 32) as u32)
    }
    #[inline]
    pub(crate) const fn writer(self) -> Option<KeyId> {
        if self.0 & 4 == 0 { None } else { Some(KeyId((self.0 >> 16) as u16)) }
    }
    #[inline]
    pub(crate) const fn td(self) -> bool {
        self.0 & 2 != 0
    }
    #[inline]
    pub(crate) const fn mac(self) -> bool {
        self.0 & 1 != 0
    }
    const fn is_power_on(self) -> bool {
        self.material().raw() == MaterialId::POWER_ON.raw()
    }
}

/// What a line holds, in the form that many lines can share: plaintext and the key it is encrypted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(C)]
pub(crate) struct Content {
    pub(crate) header: Header,
    pub(crate) data: LineData,
}

impl Content {
    /// Nobody has written since power-on (architecture.md §13 MC-10). The data is a function of the line.
    pub(crate) const POWER_ON: Content = Content {
        header: Header::new(MaterialId::POWER_ON, None, false, false),
        data: LineData::ZERO,
    };

    /// Whether both are the same: as `==`, which calls for a comparison of bytes, but inline.
    #[inline]
    pub(crate) fn is(&self, header: Header, data: &LineData) -> bool {
        self.header == header
            && self.data.0.iter().zip(data.0).fold(0, |d, (a, b)| d | (*a ^ b)) == 0
    }
}

/// What physical attacks did to a line: where its content does not fit its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Odd {
    pub(crate) home: Line,
    pub(crate) flips: LineData,
    pub(crate) made_td: bool,
}

/// A line as it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a LineData,
    pub(crate) header: Header,
    pub(crate) mac_bits: u32,
    pub(crate) poison: Option<BirthId>,
    /// Whether [`Store::odd`] has more to say.
    pub(crate) odd: bool,
    /// Whether `data` is a shared [`Content`]: plaintext, with nothing computed from it yet.
    pub(crate) shared: bool,
}

impl<'a> View<'a> {
    pub(crate) fn of_content(content: &'a Content) -> View<'a> {
        View {
            data: &content.data,
            header: content.header,
            mac_bits: 0,
            poison: None,
            odd: false,
            shared: true,
        }
    }
}

/// What a write puts into a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLine<'a> {
    pub(crate) header: Header,
    /// As in [`crate::Image`]: ciphertext (real), plaintext or raw bits (symbolic).
    pub(crate) data: &'a LineData,
    pub(crate) mac_bits: u32,
    pub(crate) poison: Option<BirthId>,
    /// Whether the data is plaintext, so that it can be compared with what other lines share.
    pub(crate) shareable: bool,
}

/// Regions from the run's key to before `end` hold the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Run {
    end: u64,
    content: Content,
}

/// Where regions were found last, by the low bits of their number: a place to look at before the index is asked. Not state.
#[derive(Clone)]
struct Hints(Box<[u32; 512]>);

impl Default for Hints {
    fn default() -> Self {
        Hints(Box::new([0; 512]))
    }
}
impl PartialEq for Hints {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Hints {}
impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints")
    }
}

impl Hints {
    #[inline]
    fn of(&self, key: u64) -> u32 {
        self.0[key as usize % 512]
    }
    #[inline]
    fn set(&mut self, key: u64, slot: u32) {
        self.0[key as usize % 512] = slot;
    }
}

/// The run that was looked at last: a place to look at before the runs are searched. Not state.
#[derive(Clone, Copy, Debug)]
struct NearRun {
    start: u64,
    end: u64,
    content: Content,
}

impl NearRun {
    /// No run.
    const NONE: NearRun = NearRun { start: 0, end: 0, content: Content::POWER_ON };
}
impl Default for NearRun {
    fn default() -> Self {
        NearRun::NONE
    }
}
impl PartialEq for NearRun {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for NearRun {}

/// How arrays that serde does not know are saved: as lists.
mod list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<T: Serialize, S: Serializer, const N: usize>(
        list: &[T; N],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        list.as_slice().serialize(s)
    }
    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
        d: D,
    ) -> Result<Box<[T; N]>, D::Error> {
        let list = Vec::<T>::deserialize(d)?.into_boxed_slice();
        list.try_into().map_err(|_| de::Error::custom(format_args!("expected {N} elements")))
    }
}

/// The line store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub(crate) struct Store {
    runs: BTreeMap<u64, Run>,
    regions: Vec<Region>,
    free: Vec<u32>,
    odd: BTreeMap<Line, Odd>,
    #[serde(skip)]
    index: FxHashMap<u64, u32>,
    #[serde(skip)]
    hints: Hints,
    #[serde(skip)]
    near_run: NearRun,
}

/// A store as it is saved: without what can be found again.
#[derive(Deserialize)]
struct Saved {
    runs: BTreeMap<u64, Run>,
    regions: Vec<Region>,
    free: Vec<u32>,
    odd: BTreeMap<Line, Odd>,
}

impl From<Saved> for Store {
    fn from(s: Saved) -> Store {
        let mut index = FxHashMap::default();
        for (slot, region) in s.regions.iter().enumerate() {
            if region.key != Region::FREE {
                index.insert(region.key, slot as u32);
            }
        }
        let (runs, regions, free, odd) = (s.runs, s.regions, s.free, s.odd);
        let (hints, near_run) = (Hints::default(), NearRun::NONE);
        Store { runs, regions, free, odd, index, hints, near_run }
    }
}

impl Store {
    /// What the lines of a region hold that has no [`Region`].
    fn below(&self, key: u64) -> &Content {
        match self.runs.range(..=key).next_back() {
            Some((_, run)) if key < run.end => &run.content,
            _ => &Content::POWER_ON,
        }
    }

    /// [`Store::below`], which remembers the run.
    #[inline]
    fn visit_below(&mut self, key: u64) -> &Content {
        if !(self.near_run.start..self.near_run.end).contains(&key) {
            self.remember_run(key);
        }
        &self.near_run.content
    }
    #[inline(never)]
    fn remember_run(&mut self, key: u64) {
        self.near_run = match self.runs.range(..=key).next_back() {
            Some((&start, run)) if key < run.end => {
                NearRun { start, end: run.end, content: run.content }
            }
            _ => NearRun { start: key, end: key + 1, content: Content::POWER_ON },
        };
    }

    fn slot(&self, key: u64) -> Option<u32> {
        let near = self.hints.of(key);
        match self.regions.get(near as usize) {
            Some(region) if region.key == key => Some(near),
            None if self.index.is_empty() => None,
            _ => self.index.get(&key).copied(),
        }
    }

    fn find(&self, key: u64) -> Option<&Region> {
        self.regions.get(self.slot(key)? as usize)
    }

    /// Finds a region and remembers where it is, for the next access to it.
    #[inline]
    fn locate(&mut self, key: u64) -> Option<u32> {
        if self.regions.is_empty() {
            return None;
        }
        let near = self.hints.of(key);
        match self.regions.get(near as usize) {
            Some(region) if region.key == key => Some(near),
            _ => self.look_up(key),
        }
    }
    #[inline(never)]
    fn look_up(&mut self, key: u64) -> Option<u32> {
        if self.index.is_empty() {
            return None;
        }
        let slot = *self.index.get(&key)?;
        self.hints.set(key, slot);
        Some(slot)
    }

    /// [`Store::view`], which remembers where the line's region is.
    #[inline]
    pub(crate) fn visit(&mut self, line: Line) -> View<'_> {
        let page = line.page();
        let key = page.0 / REGION_PAGES;
        match self.locate(key) {
            Some(slot) if (slot as usize) < self.regions.len() => {
                let region = &self.regions[slot as usize];
                region.view(page.0 % REGION_PAGES, line.index_in_page())
            }
            _ => View::of_content(self.visit_below(key)),
        }
    }

    /// The region, made if it is not there.
    fn open(&mut self, key: u64) -> u32 {
        if let Some(slot) = self.locate(key) {
            return slot;
        }
        let region = Region::new(key, *self.below(key));
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.regions.get_mut(slot as usize) {
                    *place = region;
                }
                slot
            }
            None => {
                self.regions.push(region);
                (self.regions.len() - 1) as u32
            }
        };
        self.index.insert(key, slot);
        self.hints.set(key, slot);
        slot
    }

    fn close(&mut self, key: u64) -> Option<Region> {
        let slot = self.index.remove(&key)?;
        self.free.push(slot);
        self.regions.get_mut(slot as usize).map(|r| std::mem::replace(r, Region::free()))
    }

    /// Closes a region whose pages have become all alike.
    fn settle(&mut self, key: u64, slot: u32) {
        let Some(content) = self.regions.get(slot as usize).and_then(Region::uniform) else {
            return;
        };
        self.close(key);
        if *self.below(key) != content {
            self.set_run(key..key + 1, content);
        }
    }

    fn set_run(&mut self, keys: Range<u64>, content: Content) {
        self.near_run = NearRun::NONE;
        // What overlaps is cut, what touches and is alike is joined.
        let (mut start, mut end) = (keys.start, keys.end);
        if let Some((&k, &run)) = self.runs.range(..keys.start).next_back()
            && run.end >= keys.start
        {
            if run.content == content {
                start = k;
                end = end.max(run.end);
            } else {
                if run.end > keys.end {
                    self.runs.insert(keys.end, run);
                }
                if let Some(left) = self.runs.get_mut(&k) {
                    left.end = keys.start;
                }
            }
        }
        while let Some((&k, &run)) = self.runs.range(keys.start..=end).next() {
            if k == end && run.content != content {
                break;
            }
            self.runs.remove(&k);
            if run.content == content {
                end = end.max(run.end);
            } else if run.end > end {
                self.runs.insert(end, run);
                break;
            }
        }
        self.runs.insert(start, Run { end, content });
    }

    /// A line as it is stored.
    #[inline]
    pub(crate) fn view(&self, line: Line) -> View<'_> {
        let page = line.page();
        match self.find(page.0 / REGION_PAGES) {
            Some(region) => region.view(page.0 % REGION_PAGES, line.index_in_page()),
            None => View::of_content(self.below(page.0 / REGION_PAGES)),
        }
    }

    /// What attacks did to a line whose view says `odd`.
    pub(crate) fn odd(&self, line: Line) -> Option<&Odd> {
        self.odd.get(&line)
    }

    /// Asks the host for what an access to a line will look at first.
    #[inline]
    pub(crate) fn prefetch_page(&self, line: Line) {
        let page = line.page();
        if let Some(region) = self.find(page.0 / REGION_PAGES) {
            region.prefetch_page(page.0 % REGION_PAGES);
        }
    }
    /// Asks the host for what it will look at then.
    #[inline]
    pub(crate) fn prefetch_line(&self, line: Line) {
        let page = line.page();
        if let Some(region) = self.find(page.0 / REGION_PAGES) {
            region.prefetch_line(page.0 % REGION_PAGES, line.index_in_page());
        }
    }

    /// Writes a line. Returns the poison that was there.
    #[inline]
    pub(crate) fn set_line(&mut self, line: Line, new: &NewLine<'_>) -> Option<BirthId> {
        let page = line.page();
        // Without regions the hints are not read: the host's cache has better things to hold.
        if !self.regions.is_empty()
            && let near = self.hints.of(page.0 / REGION_PAGES)
            && let Some(region) = self.regions.get_mut(near as usize)
            && region.key == page.0 / REGION_PAGES
            && region.overwrite(page.0 % REGION_PAGES, line.index_in_page(), new)
        {
            return None;
        }
        self.set_any_line(line, new)
    }
    #[inline(never)]
    fn set_any_line(&mut self, line: Line, new: &NewLine<'_>) -> Option<BirthId> {
        let page = line.page();
        let (key, p) = (page.0 / REGION_PAGES, page.0 % REGION_PAGES);
        let slot = match self.locate(key) {
            Some(slot) => slot,
            None => self.open_unless(key, new)?,
        };
        let region = self.regions.get_mut(slot as usize)?;
        let old = region.set_line(p, line.index_in_page(), new);
        if old.was_odd {
            self.odd.remove(&line);
        }
        if old.settled {
            self.settle(key, slot);
        }
        old.poison
    }
    /// Makes a region that is not there, unless the line to be written is what it holds already.
    #[inline]
    fn open_unless(&mut self, key: u64, new: &NewLine<'_>) -> Option<u32> {
        let shareable = new.shareable && new.poison.is_none();
        let there = shareable && self.visit_below(key).is(new.header, new.data);
        (!there).then(|| self.open(key))
    }
    /// Says what attacks did to a line that has been written with [`Store::set_line`] just now.
    pub(crate) fn set_odd(&mut self, line: Line, odd: Odd) {
        let page = line.page();
        let slot = self.open(page.0 / REGION_PAGES);
        if let Some(region) = self.regions.get_mut(slot as usize) {
            region.mark_odd(page.0 % REGION_PAGES, line.index_in_page());
        }
        self.odd.insert(line, odd);
    }

    /// Gives all lines of a page the same content. Tells `ended` of the poison that was there, by rising line.
    #[inline]
    pub(crate) fn set_page(
        &mut self,
        page: Page,
        content: &Content,
        ended: impl FnMut(Line, BirthId),
    ) {
        let (key, p) = (page.0 / REGION_PAGES, page.0 % REGION_PAGES);
        let near = self.hints.of(key);
        if let Some(region) = self.regions.get_mut(near as usize)
            && region.key == key
            && let Some(settled) = region.join_second(p, content)
        {
            // One more page of a sweep.
            if settled {
                self.settle(key, near);
            }
            return;
        }
        self.set_any_page(page, content, ended);
    }

    fn set_any_page(
        &mut self,
        page: Page,
        content: &Content,
        mut ended: impl FnMut(Line, BirthId),
    ) {
        let (key, p) = (page.0 / REGION_PAGES, page.0 % REGION_PAGES);
        let slot = match self.locate(key) {
            Some(slot) => slot,
            None if self.below(key) == content => return,
            None => self.open(key),
        };
        let Some(region) = self.regions.get_mut(slot as usize) else { return };
        let (displaced, settled) = region.set_page(p, content);
        if let Some(body) = displaced {
            self.forget(page, &body, &mut ended);
        }
        if settled {
            self.settle(key, slot);
        }
    }

    /// Gives all lines of many pages the same content. Returns the poison that was there, by rising line.
    pub(crate) fn set_pages(
        &mut self,
        pages: Range<Page>,
        content: &Content,
    ) -> Vec<(Line, BirthId)> {
        let mut list = Vec::new();
        let mut ended = |line: Line, birth: BirthId| list.push((line, birth));
        let (start, end) = (pages.start.0, pages.end.0);
        let (first, last) = (start.div_ceil(REGION_PAGES), end / REGION_PAGES);
        if first >= last {
            for page in start..end {
                self.set_page(Page(page), content, &mut ended);
            }
            return list;
        }
        for page in start..first * REGION_PAGES {
            self.set_page(Page(page), content, &mut ended);
        }
        let mut open: Vec<u64> = self
            .regions
            .iter()
            .map(|region| region.key)
            .filter(|key| (first..last).contains(key))
            .collect();
        open.sort_unstable();
        for key in open {
            if let Some(region) = self.close(key) {
                for body in region.into_bodies() {
                    let page = Page(key * REGION_PAGES + u64::from(body.page));
                    self.forget(page, &body, &mut ended);
                }
            }
        }
        self.set_run(first..last, *content);
        for page in last * REGION_PAGES..end {
            self.set_page(Page(page), content, &mut ended);
        }
        list
    }

    fn forget(&mut self, page: Page, body: &PageBody, ended: &mut impl FnMut(Line, BirthId)) {
        for (i, extra) in body.extras() {
            if let Some(birth) = extra.poison {
                ended(page.line(i), birth);
            }
            if extra.odd {
                self.odd.remove(&page.line(i));
            }
        }
    }

    /// Bytes held, from the capacities of what holds them. Tree nodes are reckoned as half full, hash tables as hashbrown
    /// lays them out; an allocator's own overhead is not counted.
    pub(crate) fn memory_use(&self) -> usize {
        let tree = |len: usize, entry: usize| len * entry * 2;
        let buckets = (self.index.capacity() * 8 / 7).next_power_of_two();
        size_of::<[u32; 512]>()
            + self.regions.capacity() * size_of::<Region>()
            + self.regions.iter().map(Region::memory_use).sum::<usize>()
            + self.free.capacity() * size_of::<u32>()
            + tree(self.runs.len(), size_of::<(u64, Run)>())
            + tree(self.odd.len(), size_of::<(Line, Odd)>())
            + if self.index.capacity() == 0 { 0 } else { buckets * (size_of::<(u64, u32)>() + 1) }
    }

    /// Whether a line's MAC field, as far as `view` and `odd` tell.
    pub(crate) fn mac_field(&self, line: Line, view: &View<'_>) -> Option<MacField> {
        let made_td = match self.odd(line) {
            Some(odd) if view.odd => odd.made_td,
            _ => view.header.td(),
        };
        view.header.mac().then_some(MacField { bits: view.mac_bits, made_td })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(byte: u8) -> Content {
        match byte {
            0 => Content::POWER_ON,
            _ => Content {
                header: Header::new(MaterialId::TME, Some(KeyId(0)), false, false),
                data: LineData::filled(byte),
            },
        }
    }

    fn line_of(content: &Content) -> NewLine<'_> {
        let (header, data) = (content.header, &content.data);
        NewLine { header, data, mac_bits: 0, poison: None, shareable: true }
    }

    fn content_of(line: &NewLine<'_>) -> Content {
        Content { header: line.header, data: *line.data }
    }

    proptest! {
        #[test]
        fn runs_say_what_was_set_last_and_are_as_few_as_can_be(
            sets in proptest::collection::vec((0u64..20, 1u64..10, 1u8..4), 1..30),
        ) {
            let mut store = Store::default();
            let mut naive = [0u8; 32];
            for (start, count, byte) in sets {
                store.set_run(start..start + count, content(byte));
                naive[start as usize..(start + count) as usize].fill(byte);
                for (key, byte) in (0..).zip(naive) {
                    prop_assert_eq!(*store.below(key), content(byte));
                }
                let changes = naive.windows(2).filter(|w| w[0] != w[1] && w[1] != 0).count();
                prop_assert_eq!(store.runs.len(), changes + usize::from(naive[0] != 0));
            }
        }
    }

    #[test]
    fn a_region_whose_pages_become_alike_is_no_longer_kept() {
        let mut store = Store::default();
        for page in 0..REGION_PAGES {
            assert_eq!(store.index.len(), usize::from(page != 0));
            store.set_page(Page(page), &content(1), |_, _| {});
        }
        assert_eq!((store.index.len(), store.runs.len()), (0, 1));
        // One line out of order and back.
        let (one, two) = (content(1), content(2));
        store.set_line(Line(99), &line_of(&two));
        assert_eq!((store.index.len(), store.runs.len()), (1, 1));
        store.set_line(Line(99), &line_of(&one));
        assert_eq!((store.index.len(), store.runs.len()), (0, 1));
    }

    #[test]
    fn what_attacks_did_is_forgotten_when_the_line_is_written_in_any_way() {
        let written = content(1);
        let new = line_of(&written);
        let odd = Odd { home: Line(9), flips: LineData::ZERO, made_td: false };
        let writes: [fn(&mut Store, &NewLine<'_>); 3] = [
            |s, new| {
                s.set_line(Line(5), new);
            },
            |s, new| s.set_page(Page(0), &content_of(new), |_, _| {}),
            |s, new| drop(s.set_pages(Page(0)..Page(REGION_PAGES), &content_of(new))),
        ];
        for write in writes {
            let mut store = Store::default();
            store.set_line(Line(5), &NewLine { shareable: false, ..new });
            store.set_odd(Line(5), odd);
            assert!(store.view(Line(5)).odd);
            write(&mut store, &new);
            assert!(!store.view(Line(5)).odd);
            assert!(store.odd.is_empty());
        }
    }

    #[test]
    fn three_contents_in_a_region_are_told_apart() {
        let mut store = Store::default();
        for page in 0..REGION_PAGES {
            store.set_page(Page(page), &content(1 + (page % 3) as u8), |_, _| {});
        }
        for page in 0..REGION_PAGES {
            let want = content(1 + (page % 3) as u8);
            assert_eq!(*store.view(Page(page).line(5)).data, want.data);
        }
        for page in 0..REGION_PAGES {
            store.set_page(Page(page), &content(3), |_, _| {});
        }
        assert_eq!((store.index.len(), store.runs.len()), (0, 1));
    }
}
