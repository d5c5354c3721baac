//! Physical memory metadata: TDMRs and their PAMTs (architecture.md §7.4).
//!
//! What an entry says is held here, sparsely: a 2 MiB block whose 512 pages are alike is one entry. Where an entry lies
//! in memory is arithmetic, and whoever touches one touches that line.

use serde::{Deserialize, Serialize};
use sim_core::tdx::PageType;
use sim_core::units::Area;
use sim_core::{Hpa, Page};

/// Bytes of a PAMT entry.
pub const ENTRY_BYTES: u64 = 16;
/// Entries of the 4K level that one TDH.SYS.TDMR.INIT initialises (architecture.md §7.9 "TDH.SYS.TDMR.INIT").
pub const INIT_ENTRIES: u64 = 1024;
/// Most TDMRs (architecture.md §7.4).
pub const TDMRS_MAX: usize = 64;
/// Most reserved areas of a TDMR.
pub const RESERVED_MAX: usize = 16;

const GIB: u64 = 1 << 30;

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
    /// The 16 bytes in memory: lock 16 bit, page type 8 bit, owner 40 bit, BEPOCH 64 bit.
    pub const fn words(self, lock: u16) -> [u64; 2] {
        [self.tag << 16 | lock as u64, self.bepoch]
    }
}

/// The 512 pages of a 2 MiB block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Pages {
    /// As TDH.SYS.TDMR.INIT left them: reserved where the TDMR says so, else free.
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
    /// With dynamic PAMT: the pair of pages that holds the 4K entries of this block.
    backing: Option<[Page; 2]>,
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

/// A configured TDMR with its PAMT.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tdmr {
    info: TdmrInfo,
    dynamic: bool,
    /// First address whose metadata is not initialised.
    next: u64,
    gibs: Vec<Option<Box<Gib>>>,
}

impl Tdmr {
    pub(crate) fn new(info: TdmrInfo, dynamic: bool) -> Tdmr {
        let gibs = vec![None; (info.size / GIB) as usize];
        Tdmr { next: info.base, info, dynamic, gibs }
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
        if self.is_reserved(pa) { PamtEntry::RSVD } else { PamtEntry::NDA }
    }

    fn index(&self, pa: u64) -> (usize, usize, usize) {
        let offset = pa.wrapping_sub(self.info.base);
        ((offset >> 30) as usize, (offset >> 21 & 511) as usize, (offset >> 12 & 511) as usize)
    }

    /// What the entry of this size says. Free outside the TDMR.
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
            (Pages::Initial, true) => self.initial(pa),
            (Pages::Alike(entry), true) => *entry,
            (Pages::Each(each), true) => each.get(page).copied().unwrap_or_default(),
        }
    }

    fn gib_mut(&mut self, gib: usize) -> Option<&mut Gib> {
        let slot = self.gibs.get_mut(gib)?;
        Some(slot.get_or_insert_with(|| {
            let block = Block { entry: PamtEntry::NDA, pages: Pages::Initial, backing: None };
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
        let Some(gib) = self.gib_mut(g) else { return };
        if size == Size::Huge {
            gib.entry = entry;
            return;
        }
        let Some(block) = gib.blocks.get_mut(b) else { return };
        if size == Size::Large {
            block.entry = entry;
            return;
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
    pub(crate) fn promote(&mut self, pa: u64, size: Size) {
        for (i, (at, smaller)) in Tdmr::below(pa, size).enumerate() {
            let child = self.entry(at, smaller);
            if i == 0 {
                let merged = self.entry(pa, size).given(child.page_type(), child.owner());
                self.set(pa, size, merged);
            }
            self.set(at, smaller, child.released());
        }
    }

    /// Whether everything below the entry of `size` at `pa` is free: all children, and theirs.
    pub(crate) fn is_free_below(&self, pa: u64, size: Size) -> bool {
        let free = |pa: u64, size: Size| self.entry(pa, size).page_type() == PageType::Nda;
        match size {
            Size::Small => true,
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
        let (g, b, _) = self.index(pa);
        self.gibs.get(g)?.as_ref()?.blocks.get(b)?.backing
    }
    pub(crate) fn set_backing(&mut self, pa: u64, pair: Option<[Page; 2]>) {
        let (g, b, _) = self.index(pa);
        if let Some(block) = self.gib_mut(g).and_then(|gib| gib.blocks.get_mut(b)) {
            block.backing = pair;
        }
    }
}
