//! Physical memory metadata: TDMRs and their PAMTs (architecture.md §7.4).
//!
//! What an entry says is held here, sparsely: a 2 MiB block whose 512 pages are alike is one entry. Where an entry lies
//! in memory is arithmetic, and whoever touches one touches that line.
//!
//! With dynamic PAMT (linux-host-paths.md §13; intel/tdx-module 1666adc494db pamt_manager.h, later than 1.5.01) the 4K
//! entries of a 2 MiB block exist only while the block has a pair of pages for them: its 2M entry is then PT_PAMT and holds
//! the addresses of the two and how many of the 512 are in use. Where a TDMR's 4K entries would lie there is a bitmap
//! instead, one bit per 4 KiB: the page is a PAMT page, or reserved.

use serde::{Deserialize, Serialize};
use sim_core::tdx::PageType;
use sim_core::units::Area;
use sim_core::{Hpa, Page};
use std::collections::BTreeMap;

/// Bytes of a PAMT entry.
pub const ENTRY_BYTES: u64 = 16;
/// Entries of the 4K level that one TDH.SYS.TDMR.INIT initialises (architecture.md §7.9 "TDH.SYS.TDMR.INIT").
pub const INIT_ENTRIES: u64 = 1024;
/// Most TDMRs (architecture.md §7.4).
pub const TDMRS_MAX: usize = 64;
/// Most reserved areas of a TDMR.
pub const RESERVED_MAX: usize = 16;

const GIB: u64 = 1 << 30;
/// Pages of a bitmap word.
const WORD: u64 = 64;
/// The frame number of a PAMT page in a PT_PAMT entry: 36 bits, so that addresses have at most 48.
const PAIR_FRAME: u64 = (1 << 36) - 1;
/// The number of pages in use in a PT_PAMT entry: 10 bits.
const PAIR_COUNT: u64 = 0x3ff;

/// A size of page: of a PAMT level, or of a Secure-EPT level that can hold a leaf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Size {
    /// 4 KiB, level 0.
    Small,
    /// 2 MiB, level 1.
    Large,
    /// 1 GiB, level 2.
    Huge,
}

impl Size {
    /// All, smallest first.
    pub const ALL: [Size; 3] = [Size::Small, Size::Large, Size::Huge];

    /// Of a Secure-EPT level; `None` for levels without leaves.
    pub const fn of_level(level: u8) -> Option<Size> {
        match level {
            0 => Some(Size::Small),
            1 => Some(Size::Large),
            2 => Some(Size::Huge),
            _ => None,
        }
    }
    /// The level: 0, 1 or 2.
    pub const fn level(self) -> u8 {
        self as u8
    }
    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        4096 << (9 * self as u8)
    }
    /// How many 4 KiB pages: what CHLDCNT counts (architecture.md §7.9 "TDH.MEM.PAGE.REMOVE").
    pub const fn pages(self) -> u64 {
        1 << (9 * self as u8)
    }
    /// One step smaller.
    pub const fn smaller(self) -> Option<Size> {
        match self {
            Size::Small => None,
            Size::Large => Some(Size::Small),
            Size::Huge => Some(Size::Large),
        }
    }
}

/// A PAMT entry without its lock: page type, owner and block epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct PamtEntry {
    /// Owner's page frame in the upper bits, page type in the low 8.
    tag: u64,
    /// BEPOCH: TD_EPOCH when the range was blocked.
    pub bepoch: u64,
}

impl PamtEntry {
    /// A free page.
    pub const NDA: PamtEntry = PamtEntry { tag: PageType::Nda.code() as u64, bepoch: 0 };
    /// A reserved page.
    pub const RSVD: PamtEntry = PamtEntry { tag: PageType::Rsvd.code() as u64, bepoch: 0 };

    /// A page of `owner`, whose epoch is 0.
    pub const fn new(page_type: PageType, owner: Page) -> PamtEntry {
        PamtEntry { tag: owner.0 << 8 | page_type.code() as u64, bepoch: 0 }
    }
    /// The page type.
    pub fn page_type(self) -> PageType {
        PageType::from_code(self.tag & 0xff).unwrap_or(PageType::Nda)
    }
    /// The TDR page of the owner.
    pub const fn owner(self) -> Page {
        Page(self.tag >> 8)
    }
    /// The entry given to `owner` as a page of this type, where BEPOCH stays as it was.
    pub const fn given(self, page_type: PageType, owner: Page) -> PamtEntry {
        PamtEntry { bepoch: self.bepoch, ..PamtEntry::new(page_type, owner) }
    }
    /// The entry released: only the page type is written, owner and epoch stay stale (architecture.md §7.4).
    pub const fn released(self) -> PamtEntry {
        PamtEntry { tag: self.tag & !0xff, bepoch: self.bepoch }
    }
    /// Dynamic PAMT: a 2M entry whose 4K entries lie in a pair of pages, none of them in use. The frames stand where the
    /// source has them, 36 bits each.
    pub const fn pair(pages: [Page; 2]) -> PamtEntry {
        let [first, second] = pages;
        PamtEntry {
            tag: (first.0 & PAIR_FRAME) << 12 | PageType::Pamt.code() as u64,
            bepoch: (second.0 & PAIR_FRAME) << 28,
        }
    }
    /// Dynamic PAMT: the pair of pages that a PT_PAMT entry holds; `None` for any other.
    pub fn pages(self) -> Option<[Page; 2]> {
        (self.page_type() == PageType::Pamt)
            .then_some([Page(self.tag >> 12 & PAIR_FRAME), Page(self.bepoch >> 28)])
    }
    /// Dynamic PAMT: how many of the 512 pages below a PT_PAMT entry are in use.
    pub const fn page_count(self) -> u64 {
        self.bepoch & PAIR_COUNT
    }
    /// The 16 bytes in memory: lock 16 bit, page type 8 bit, owner 40 bit, BEPOCH 64 bit.
    pub const fn words(self, lock: u16) -> [u64; 2] {
        [self.tag << 16 | lock as u64, self.bepoch]
    }
}

/// The 512 pages of a 2 MiB block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Pages {
    /// As TDH.SYS.TDMR.INIT left them: reserved where the TDMR says so, else free. With dynamic PAMT: free, since
    /// TDH.PHYMEM.PAMT.ADD zeroes them all and the bitmap says what is reserved.
    Initial,
    /// All alike.
    Alike(PamtEntry),
    /// Each for itself.
    Each(Box<[PamtEntry]>),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Block {
    entry: PamtEntry,
    pages: Pages,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Gib {
    entry: PamtEntry,
    blocks: Vec<Block>,
}

/// A TDMR as TDH.SYS.CONFIG was given it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TdmrInfo {
    /// First byte; a multiple of 1 GiB.
    pub base: u64,
    /// Bytes; a multiple of 1 GiB.
    pub size: u64,
    /// Base and size of the PAMT by level: 4K, 2M, 1G.
    pub pamt: [(u64, u64); 3],
    /// Reserved areas as (offset, size), up to the first of size 0.
    pub reserved: Vec<(u64, u64)>,
}

/// How many bytes the PAMT of one level needs (architecture.md §9 "PAMT for 1 GiB").
pub const fn pamt_bytes(tdmr_size: u64, size: Size) -> u64 {
    tdmr_size / size.bytes() * ENTRY_BYTES
}

/// How many bytes the bitmap of a TDMR needs that dynamic PAMT has instead of the 4K entries (linux-host-paths.md §13).
pub const fn bitmap_bytes(tdmr_size: u64) -> u64 {
    tdmr_size / Size::Small.bytes() / 8
}

/// A configured TDMR with its PAMT.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tdmr {
    info: TdmrInfo,
    dynamic: bool,
    /// First address whose metadata is not initialised.
    next: u64,
    gibs: Vec<Option<Box<Gib>>>,
    /// With dynamic PAMT: which pages are PAMT pages, 64 to a word, by number of the word. Words of zero are left out,
    /// and so are the bits of reserved pages.
    marks: BTreeMap<u64, u64>,
}

impl Tdmr {
    pub(crate) fn new(info: TdmrInfo, dynamic: bool) -> Tdmr {
        let gibs = vec![None; (info.size / GIB) as usize];
        Tdmr { next: info.base, info, dynamic, gibs, marks: BTreeMap::new() }
    }
    /// As configured.
    pub const fn info(&self) -> &TdmrInfo {
        &self.info
    }
    /// Its memory.
    pub const fn area(&self) -> Area {
        Area { base: self.info.base, end: self.info.base + self.info.size }
    }
    /// First address whose metadata TDH.SYS.TDMR.INIT has not initialised.
    pub const fn next(&self) -> u64 {
        self.next
    }
    pub(crate) fn set_next(&mut self, next: u64) {
        self.next = next;
    }
    /// Whether all of it is initialised.
    pub const fn is_complete(&self) -> bool {
        self.next >= self.info.base + self.info.size
    }
    /// Whether the GiB of this address is initialised as a whole (architecture.md §7.4).
    pub const fn is_usable(&self, pa: u64) -> bool {
        self.info.base <= pa && pa < self.next & !(GIB - 1)
    }
    /// Whether a reserved area covers this byte.
    pub fn is_reserved(&self, pa: u64) -> bool {
        let offset = pa.wrapping_sub(self.info.base);
        self.info.reserved.iter().any(|(at, size)| offset.wrapping_sub(*at) < *size)
    }

    fn initial(&self, pa: u64) -> PamtEntry {
        if !self.dynamic && self.is_reserved(pa) { PamtEntry::RSVD } else { PamtEntry::NDA }
    }

    fn index(&self, pa: u64) -> (usize, usize, usize) {
        let offset = pa.wrapping_sub(self.info.base);
        ((offset >> 30) as usize, (offset >> 21 & 511) as usize, (offset >> 12 & 511) as usize)
    }

    /// What the entry of this size says. Free outside the TDMR, and with dynamic PAMT where there is no such entry.
    pub fn entry(&self, pa: u64, size: Size) -> PamtEntry {
        let (gib, block, page) = self.index(pa);
        let small = size == Size::Small;
        let Some(Some(gib)) = self.gibs.get(gib) else {
            return if small { self.initial(pa) } else { PamtEntry::NDA };
        };
        if size == Size::Huge {
            return gib.entry;
        }
        let Some(block) = gib.blocks.get(block) else { return PamtEntry::NDA };
        match (&block.pages, small) {
            (_, false) => block.entry,
            (_, true) if self.dynamic && block.entry.page_type() != PageType::Pamt => {
                PamtEntry::NDA
            }
            (Pages::Initial, true) => self.initial(pa),
            (Pages::Alike(entry), true) => *entry,
            (Pages::Each(each), true) => each.get(page).copied().unwrap_or_default(),
        }
    }

    /// Every entry that is neither free nor reserved: level, first page and entry, in the order of addresses, larger
    /// sizes first where two begin at one.
    pub fn in_use(&self) -> impl Iterator<Item = (Size, Page, PamtEntry)> {
        let used = |e: &PamtEntry| !matches!(e.page_type(), PageType::Nda | PageType::Rsvd);
        let gibs = self.gibs.iter().enumerate().filter_map(|(i, gib)| Some((i, gib.as_deref()?)));
        gibs.flat_map(move |(i, gib)| {
            let base = Hpa(self.info.base + i as u64 * GIB).page();
            let huge = used(&gib.entry).then_some((Size::Huge, base, gib.entry));
            let blocks = gib.blocks.iter().enumerate().flat_map(move |(i, block)| {
                let base = Page(base.0 + Size::Large.pages() * i as u64);
                let large = used(&block.entry).then_some((Size::Large, base, block.entry));
                // Below a free or a reserved block nothing else is looked at.
                let (alike, each) = match &block.pages {
                    Pages::Initial => (None, None),
                    Pages::Alike(entry) => (used(entry).then_some(*entry), None),
                    Pages::Each(each) => (None, Some(each)),
                };
                let missing = self.dynamic && block.entry.page_type() != PageType::Pamt;
                let alike = alike.into_iter().flat_map(|entry| std::iter::repeat_n(entry, 512));
                let each = each.into_iter().flat_map(|each| each.iter().copied());
                let small = alike.chain(each).take(if missing { 0 } else { 512 }).enumerate();
                let small = small.filter(move |(_, entry)| used(entry));
                large
                    .into_iter()
                    .chain(small.map(move |(i, e)| (Size::Small, Page(base.0 + i as u64), e)))
            });
            huge.into_iter().chain(blocks)
        })
    }

    fn gib_mut(&mut self, gib: usize) -> Option<&mut Gib> {
        let slot = self.gibs.get_mut(gib)?;
        Some(slot.get_or_insert_with(|| {
            let block = Block { entry: PamtEntry::NDA, pages: Pages::Initial };
            Box::new(Gib { entry: PamtEntry::NDA, blocks: vec![block; 512] })
        }))
    }

    /// Writes an entry. Nothing outside the TDMR.
    pub(crate) fn set(&mut self, pa: u64, size: Size, entry: PamtEntry) {
        let (g, b, p) = self.index(pa);
        let first = self.info.base + (g as u64) * GIB + ((b as u64) << 21);
        let initial: Option<Box<[PamtEntry]>> = {
            let block = self.gibs.get(g).and_then(Option::as_ref).and_then(|g| g.blocks.get(b));
            let fresh = block.is_none_or(|b| b.pages == Pages::Initial);
            (size == Size::Small && fresh)
                .then(|| (0..512).map(|i| self.initial(first + (i << 12))).collect())
        };
        let free = self.dynamic && self.entry(pa, Size::Small).page_type() == PageType::Nda;
        let Some(gib) = self.gib_mut(g) else { return };
        if size == Size::Huge {
            gib.entry = entry;
            return;
        }
        let Some(block) = gib.blocks.get_mut(b) else { return };
        if size == Size::Large {
            if entry.page_type() == PageType::Pamt && entry.page_count() == 0 {
                // The pair has been zeroed.
                block.pages = Pages::Initial;
            }
            block.entry = entry;
            return;
        }
        if block.entry.page_type() == PageType::Pamt {
            let frees = entry.page_type() == PageType::Nda;
            block.entry.bepoch =
                (block.entry.bepoch + u64::from(free && !frees)) - u64::from(!free && frees);
        }
        if let Some(initial) = initial {
            block.pages = Pages::Each(initial);
        }
        if let Pages::Alike(all) = block.pages {
            if all == entry {
                return;
            }
            block.pages = Pages::Each(vec![all; 512].into_boxed_slice());
        }
        if let Pages::Each(each) = &mut block.pages {
            if let Some(slot) = each.get_mut(p) {
                *slot = entry;
            }
            // A terabyte whose pages were all taken or given in order stays small.
            if p == 511 && each.iter().all(|e| *e == entry) {
                block.pages = Pages::Alike(entry);
            }
        }
    }

    /// Writes all 512 entries one size smaller below the entry of `size` at `pa`.
    pub(crate) fn set_children(&mut self, pa: u64, size: Size, entry: PamtEntry) {
        let (g, b, _) = self.index(pa);
        let Some(gib) = self.gib_mut(g) else { return };
        match size {
            Size::Huge => gib.blocks.iter_mut().for_each(|block| block.entry = entry),
            Size::Large => {
                if let Some(block) = gib.blocks.get_mut(b) {
                    block.pages = Pages::Alike(entry);
                }
            }
            Size::Small => {}
        }
    }

    /// Where each of the 512 entries one size smaller begins below the entry of `size` at `pa`; none below 4 KiB.
    pub(crate) fn below(pa: u64, size: Size) -> impl Iterator<Item = (u64, Size)> {
        let base = pa & !(size.bytes() - 1);
        let children = size.smaller().map_or(0, |_| 512);
        let smaller = size.smaller().unwrap_or(Size::Small);
        (0..children).map(move |i| (base + i * smaller.bytes(), smaller))
    }
    /// Splits a page of `size`: the children become pages of its owner with BEPOCH 0, the entry itself is free
    /// (architecture.md §7.9 "TDH.MEM.PAGE.DEMOTE").
    pub(crate) fn demote(&mut self, pa: u64, size: Size) {
        let parent = self.entry(pa, size);
        let child = PamtEntry::new(parent.page_type(), parent.owner());
        self.set_children(pa, size, child);
        self.set(pa, size, parent.released());
    }
    /// Makes 512 pages one: the entry of `size` takes type and owner from the first child, BEPOCH stays as it was; the
    /// children are free, owner and BEPOCH stale (architecture.md §7.9 "TDH.MEM.PAGE.PROMOTE").
    ///
    /// With dynamic PAMT, 512 pages of 4 KiB have no entries any more: BEPOCH is 0, and the pair of PAMT pages that held
    /// them is returned, still marked (intel/tdx-module 1666adc494db pamt_manager.c).
    pub(crate) fn promote(&mut self, pa: u64, size: Size) -> Option<[Page; 2]> {
        if let Some(pair) = self.backing(pa).filter(|_| size == Size::Large) {
            let child = self.entry(pa & !(size.bytes() - 1), Size::Small);
            self.set(pa, size, PamtEntry::new(child.page_type(), child.owner()));
            return Some(pair);
        }
        for (i, (at, smaller)) in Tdmr::below(pa, size).enumerate() {
            let child = self.entry(at, smaller);
            if i == 0 {
                let merged = self.entry(pa, size).given(child.page_type(), child.owner());
                self.set(pa, size, merged);
            }
            self.set(at, smaller, child.released());
        }
        None
    }

    /// Whether everything below the entry of `size` at `pa` is free: all children, and theirs.
    pub(crate) fn is_free_below(&self, pa: u64, size: Size) -> bool {
        let free = |pa: u64, size: Size| self.entry(pa, size).page_type() == PageType::Nda;
        match size {
            Size::Small => true,
            // Entries of 4 KiB are not there; what the block may hold are PAMT pages and reserved ones.
            Size::Large if self.dynamic => {
                (0..512 / WORD).all(|i| self.bitmap_word(pa + i * WORD * Size::Small.bytes()) == 0)
            }
            Size::Large => {
                let (g, b, _) = self.index(pa);
                let block = self.gibs.get(g).and_then(Option::as_ref).and_then(|g| g.blocks.get(b));
                match block.map(|b| &b.pages) {
                    Some(Pages::Alike(entry)) => entry.page_type() == PageType::Nda,
                    _ => (0..512).all(|i| free(pa + (i << 12), Size::Small)),
                }
            }
            Size::Huge => (0..512).all(|i| {
                let pa = pa + (i << 21);
                free(pa, Size::Large) && self.is_free_below(pa, Size::Large)
            }),
        }
    }

    /// Where the entry of this size lies. With dynamic PAMT a 4K entry lies in the pair of pages given for its block;
    /// `None` where there is no such pair.
    pub fn entry_at(&self, pa: u64, size: Size) -> Option<Hpa> {
        let index = pa.wrapping_sub(self.info.base) / size.bytes();
        if self.dynamic && size == Size::Small {
            let pair = self.backing(pa)?;
            let offset = (index & 511) * ENTRY_BYTES;
            let page = pair.get((offset >> 12) as usize)?;
            return Some(Hpa((page.0 << 12) + (offset & 4095)));
        }
        Some(Hpa(self.info.pamt[size as usize].0 + index * ENTRY_BYTES))
    }

    /// Whether the metadata of small pages is given block by block (linux-host-paths.md §13).
    pub const fn is_dynamic(&self) -> bool {
        self.dynamic
    }
    /// With dynamic PAMT: the pair of pages that holds the 4K entries of the 2 MiB block of `pa`.
    pub fn backing(&self, pa: u64) -> Option<[Page; 2]> {
        self.entry(pa, Size::Large).pages()
    }
    /// With dynamic PAMT: where the bitmap word of a page lies; `None` without.
    pub fn bitmap_at(&self, pa: u64) -> Option<Hpa> {
        let page = pa.wrapping_sub(self.info.base) / Size::Small.bytes();
        let [(base, _), ..] = self.info.pamt;
        self.dynamic.then_some(Hpa(base + page / WORD * 8))
    }
    /// With dynamic PAMT: the bitmap word of a page, one bit for each of the 64 pages around it: a PAMT page, or reserved.
    /// 0 without.
    pub fn bitmap_word(&self, pa: u64) -> u64 {
        if !self.dynamic {
            return 0;
        }
        let word = pa.wrapping_sub(self.info.base) / Size::Small.bytes() / WORD;
        let first = self.info.base + word * WORD * Size::Small.bytes();
        let reserved = (0..WORD)
            .filter(|i| self.is_reserved(first + i * Size::Small.bytes()))
            .fold(0, |bits, i| bits | 1 << i);
        self.marks.get(&word).copied().unwrap_or(0) | reserved
    }
    /// With dynamic PAMT: whether the bitmap says that a page is a PAMT page, or reserved.
    pub fn is_marked(&self, pa: u64) -> bool {
        let page = pa.wrapping_sub(self.info.base) / Size::Small.bytes();
        self.bitmap_word(pa) >> (page % WORD) & 1 == 1
    }
    /// Makes a page a PAMT page in the bitmap, or not.
    pub(crate) fn mark(&mut self, pa: u64, is: bool) {
        let page = pa.wrapping_sub(self.info.base) / Size::Small.bytes();
        let (word, bit) = (page / WORD, 1 << (page % WORD));
        let slot = self.marks.entry(word).or_default();
        *slot = if is { *slot | bit } else { *slot & !bit };
        if *slot == 0 {
            self.marks.remove(&word);
        }
    }

    /// The first 4 KiB at or above `from` that the module has: a page of a TD, of a control structure, or a PAMT page of
    /// dynamic PAMT; and the size of the entry that says so.
    pub(crate) fn next_taken(&self, from: u64) -> Option<(u64, Size)> {
        let from = from.max(self.info.base);
        let taken = self.next_assigned(from);
        let first = from.wrapping_sub(self.info.base) / Size::Small.bytes();
        let marked = self.marks.range(first / WORD..).find_map(|(word, bits)| {
            let skip = first.saturating_sub(word * WORD).min(WORD);
            let left = bits.checked_shr(skip as u32)?;
            (left != 0).then(|| {
                let page = word * WORD + skip + u64::from(left.trailing_zeros());
                (self.info.base + page * Size::Small.bytes(), Size::Small)
            })
        });
        match (taken, marked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
    fn next_assigned(&self, from: u64) -> Option<(u64, Size)> {
        let taken = |entry: &PamtEntry| {
            !matches!(entry.page_type(), PageType::Nda | PageType::Rsvd | PageType::Pamt)
        };
        let mut pa = from;
        while pa < self.info.base + self.info.size {
            let (g, b, p) = self.index(pa);
            let Some(gib) = self.gibs.get(g)? else {
                pa = (pa | (GIB - 1)) + 1;
                continue;
            };
            if taken(&gib.entry) {
                return Some((pa, Size::Huge));
            }
            let block = gib.blocks.get(b)?;
            if taken(&block.entry) {
                return Some((pa, Size::Large));
            }
            let found = match &block.pages {
                Pages::Initial => None,
                Pages::Alike(entry) => taken(entry).then_some(p),
                Pages::Each(each) => each.iter().skip(p).position(taken).map(|i| i + p),
            };
            let block = pa & !(Size::Large.bytes() - 1);
            match found {
                Some(page) => {
                    return Some((block + page as u64 * Size::Small.bytes(), Size::Small));
                }
                None => pa = block + Size::Large.bytes(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x1_0000_0000;
    const MB2: u64 = 2 << 20;
    const TD: Page = Page(0x1_2345);

    fn tdmr(dynamic: bool) -> Tdmr {
        let mut tdmr = Tdmr::new(
            TdmrInfo {
                base: BASE,
                size: 2 * GIB,
                pamt: [(0x8000_0000, 0x80_0000), (0x9000_0000, 0x4000), (0x9001_0000, 0x1000)],
                reserved: vec![(0x3000, 0x2000)],
            },
            dynamic,
        );
        tdmr.set_next(BASE + 2 * GIB);
        tdmr
    }
    fn pair() -> [Page; 2] {
        [Page((BASE + 0x40_0000) >> 12), Page((BASE + 0x51_2000) >> 12)]
    }

    #[test]
    fn a_tdmr_ends_where_its_memory_does() {
        assert_eq!(tdmr(false).area(), Area { base: BASE, end: BASE + 2 * GIB });
    }

    #[test]
    fn a_pair_stands_in_the_entry_where_the_source_has_it() {
        let [a, b] = pair();
        let entry = PamtEntry::pair([a, b]);
        assert_eq!(entry.words(4), [a.0 << 28 | 15 << 16 | 4, b.0 << 28]);
        assert_eq!((entry.page_type(), entry.pages()), (PageType::Pamt, Some([a, b])));
        assert_eq!(PamtEntry::new(PageType::Reg, TD).pages(), None);
        assert_eq!(entry.released().pages(), None);
    }

    #[test]
    fn without_a_pair_a_block_has_no_small_entries_and_with_one_they_lie_in_it() {
        let mut t = tdmr(true);
        assert_eq!((t.entry_at(BASE, Size::Small), t.backing(BASE)), (None, None));
        t.set(BASE + MB2, Size::Large, PamtEntry::pair(pair()));
        assert_eq!(t.entry_at(BASE, Size::Small), None);
        let [a, b] = pair();
        assert_eq!(t.entry_at(BASE + MB2, Size::Small), Some(a.hpa()));
        assert_eq!(t.entry_at(BASE + MB2 + 0xff000, Size::Small), Some(Hpa(a.hpa().0 + 255 * 16)));
        assert_eq!(t.entry_at(BASE + MB2 + 0x10_0000, Size::Small), Some(b.hpa()));
        assert_eq!(t.entry_at(BASE + MB2 + 0x1f_f000, Size::Small), Some(Hpa(b.hpa().0 + 4080)));
        // The 2M entry lies where it always does.
        assert_eq!(t.entry_at(BASE + MB2, Size::Large), Some(Hpa(0x9000_0010)));
    }

    #[test]
    fn the_entry_above_counts_the_pages_in_use_and_a_new_pair_begins_empty() {
        let mut t = tdmr(true);
        t.set(BASE, Size::Large, PamtEntry::pair(pair()));
        let count = |t: &Tdmr| t.entry(BASE, Size::Large).page_count();
        let reg = PamtEntry::new(PageType::Reg, TD);
        for i in 0..512 {
            t.set(BASE + (i << 12), Size::Small, reg);
            assert_eq!(count(&t), i + 1);
        }
        // A change of type or epoch is no change of use.
        t.set(BASE, Size::Small, PamtEntry { bepoch: 7, ..reg });
        t.set(BASE, Size::Small, PamtEntry::new(PageType::Tdcx, TD));
        assert_eq!((count(&t), t.backing(BASE)), (512, Some(pair())));
        for i in 0..512 {
            t.set(BASE + (i << 12), Size::Small, t.entry(BASE + (i << 12), Size::Small).released());
            assert_eq!(count(&t), 511 - i);
        }
        assert_eq!(t.entry(BASE, Size::Small).owner(), TD, "stale");
        t.set(BASE, Size::Large, t.entry(BASE, Size::Large).released());
        assert_eq!(t.entry(BASE, Size::Small), PamtEntry::NDA);
        t.set(BASE, Size::Large, PamtEntry::pair(pair()));
        assert_eq!(t.entry(BASE, Size::Small), PamtEntry::NDA, "zeroed");
    }

    #[test]
    fn merging_the_pages_of_a_block_gives_its_pair_back() {
        let mut t = tdmr(true);
        t.set(BASE, Size::Large, PamtEntry::pair(pair()));
        let reg = PamtEntry { bepoch: 7, ..PamtEntry::new(PageType::Reg, TD) };
        (0..512).for_each(|i| t.set(BASE + (i << 12), Size::Small, reg));
        assert_eq!(t.promote(BASE, Size::Large), Some(pair()));
        assert_eq!(t.entry(BASE, Size::Large), PamtEntry::new(PageType::Reg, TD));
        assert_eq!((t.backing(BASE), t.entry(BASE, Size::Small)), (None, PamtEntry::NDA));
        assert_eq!(tdmr(false).promote(BASE, Size::Large), None);
    }

    #[test]
    fn the_bitmap_has_a_bit_for_every_pamt_page_and_every_reserved_page() {
        let mut t = tdmr(true);
        assert_eq!(t.bitmap_at(BASE + (64 << 12)), Some(Hpa(0x8000_0008)));
        assert_eq!(t.bitmap_word(BASE), 0b11000, "reserved");
        assert!(t.is_marked(BASE + 0x3000) && !t.is_marked(BASE + 0x2000));
        t.mark(BASE + 63 * 4096, true);
        t.mark(BASE + 64 * 4096, true);
        assert_eq!(t.bitmap_word(BASE + 0x7000), 0b11000 | 1 << 63);
        assert_eq!(t.bitmap_word(BASE + 64 * 4096), 1);
        t.mark(BASE + 63 * 4096, false);
        t.mark(BASE + 64 * 4096, false);
        assert_eq!(t, tdmr(true), "nothing is left of a mark");
        assert_eq!((tdmr(false).bitmap_at(BASE), tdmr(false).bitmap_word(BASE)), (None, 0));
        assert_eq!(bitmap_bytes(2 * GIB), 0x1_0000);
    }

    #[test]
    fn a_block_with_a_pamt_page_or_a_reserved_page_in_it_is_not_free() {
        let mut t = tdmr(true);
        assert!(!t.is_free_below(BASE, Size::Large), "reserved");
        assert!(t.is_free_below(BASE + MB2, Size::Large));
        t.mark(BASE + MB2 + 0x1f_f000, true);
        assert!(!t.is_free_below(BASE + MB2, Size::Large));
        // Reserved pages are RSVD in the entries themselves only where there always are entries.
        assert_eq!(t.entry(BASE + 0x3000, Size::Small), PamtEntry::NDA);
        assert_eq!(tdmr(false).entry(BASE + 0x3000, Size::Small), PamtEntry::RSVD);
    }

    #[test]
    fn one_page_in_the_last_block_is_enough_for_a_gibibyte_not_to_be_free() {
        for dynamic in [false, true] {
            let mut t = tdmr(dynamic);
            assert!(t.is_free_below(BASE + GIB, Size::Huge));
            t.set(BASE + GIB + 511 * MB2, Size::Large, PamtEntry::new(PageType::Reg, TD));
            assert!(!t.is_free_below(BASE + GIB, Size::Huge), "a block");
        }
        let mut t = tdmr(false);
        t.set(BASE + GIB + 511 * MB2 + 0x1000, Size::Small, PamtEntry::new(PageType::Reg, TD));
        assert!(!t.is_free_below(BASE + GIB, Size::Huge), "a page");
    }

    #[test]
    fn small_entries_are_in_use_where_a_block_has_a_pair_to_hold_them() {
        let mut t = tdmr(true);
        let reg = PamtEntry::new(PageType::Reg, TD);
        let pamt = PamtEntry::pair(pair());
        t.set(BASE + MB2, Size::Large, pamt);
        t.set(BASE + MB2 + 0x7000, Size::Small, reg);
        let page = |pa: u64| Hpa(pa).page();
        let used: Vec<_> = t.in_use().map(|(size, page, e)| (size, page, e.page_type())).collect();
        let expected = [
            (Size::Large, page(BASE + MB2), PageType::Pamt),
            (Size::Small, page(BASE + MB2 + 0x7000), PageType::Reg),
        ];
        assert_eq!(used, expected);
    }

    /// Every page that is taken, by asking for the next over and over.
    fn taken(t: &Tdmr) -> Vec<(u64, Size)> {
        let mut all = Vec::new();
        let mut from = 0;
        while let Some((pa, size)) = t.next_taken(from) {
            all.push((pa, size));
            from = pa + 4096;
        }
        all
    }

    #[test]
    fn the_pages_that_are_taken_are_found_in_order_whatever_size_they_are() {
        let reg = PamtEntry::new(PageType::Reg, TD);
        for dynamic in [false, true] {
            let mut t = tdmr(dynamic);
            assert_eq!(t.next_taken(0), None, "reserved pages are not the module's");
            let small = [BASE, BASE + 511 * 4096, BASE + GIB + 5 * MB2 + 4096];
            let large = BASE + 3 * MB2;
            let mut expected: Vec<_> = (0..512).map(|i| (large + (i << 12), Size::Large)).collect();
            for pa in small {
                if dynamic {
                    t.set(pa, Size::Large, PamtEntry::pair(pair()));
                }
            }
            for pa in small {
                t.set(pa, Size::Small, reg);
                expected.push((pa, Size::Small));
            }
            t.set(large, Size::Large, reg);
            if dynamic {
                for page in pair() {
                    t.mark(page.hpa().0, true);
                    expected.push((page.hpa().0, Size::Small));
                }
            }
            expected.sort_unstable();
            assert_eq!(taken(&t), expected);
            for pa in small {
                t.set(pa, Size::Small, reg.released());
            }
            t.set(large, Size::Large, reg.released());
            assert_eq!(taken(&t).len(), if dynamic { 2 } else { 0 });
        }
    }

    #[test]
    fn a_page_of_a_gib_is_taken_as_a_whole() {
        let mut t = tdmr(false);
        t.set(BASE + GIB, Size::Huge, PamtEntry::new(PageType::Reg, TD));
        let end = BASE + 2 * GIB;
        assert_eq!(t.next_taken(0), Some((BASE + GIB, Size::Huge)));
        assert_eq!(t.next_taken(end - 4096), Some((end - 4096, Size::Huge)));
        assert_eq!(t.next_taken(end), None);
    }
}
