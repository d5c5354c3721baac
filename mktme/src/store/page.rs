//! A page whose lines are not all alike.

use super::{Cell, Content, NewLine, View};
use bitvec::prelude::{BitArray, Lsb0};
use serde::{Deserialize, Serialize};
use sim_core::data::LineData;
use sim_core::event::BirthId;

/// One property of the 64 lines of a page: one machine word (style-and-ecosystem.md B8). Saved as the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LineBits(u64);

impl LineBits {
    const fn all(value: bool) -> LineBits {
        LineBits(if value { u64::MAX } else { 0 })
    }
    #[inline]
    pub(crate) fn get(self, line: u32) -> bool {
        self.0 >> (line & 63) & 1 != 0
    }
    #[inline]
    fn set(&mut self, line: u32, value: bool) {
        let bit = 1u64 << (line & 63);
        self.0 = if value { self.0 | bit } else { self.0 & !bit };
    }
    /// The lines that have it, rising.
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> {
        let bits: BitArray<u64, Lsb0> = BitArray::new(self.0);
        (0..64u32).filter(move |i| bits.get(*i as usize).is_some_and(|bit| *bit))
    }
}

/// Where the cells of a page's lines are: a byte a line.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Places([u64; 8]);

impl Places {
    #[inline]
    const fn get(&self, line: u32) -> usize {
        (self.0[(line / 8) as usize & 7] >> (8 * (line % 8)) & 0xff) as usize
    }
    #[inline]
    const fn set(&mut self, line: u32, place: usize) {
        let shift = 8 * (line % 8);
        let word = &mut self.0[(line / 8) as usize & 7];
        *word = *word & !(0xff << shift) | (place as u64 & 0xff) << shift;
    }
}

/// A page in detail: a content that its lines share, and those that differ from it.
///
/// A random write comes to a page that the host has not in its cache, so what it looks at lies together: first the words
/// and the way to the cells, then the places, then the shared content, of which the header mostly tells that a line differs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C, align(64))]
pub(crate) struct PageBody {
    /// Lines with a cell.
    own: LineBits,
    td: LineBits,
    mac: LineBits,
    odd: LineBits,
    poison: LineBits,
    /// In the order in which the lines got them.
    cells: Vec<Cell>,
    /// Where the cell of each line in `own` is.
    places: Places,
    base: Content,
}

impl PartialEq for PageBody {
    /// Equal when their lines are, wherever the cells stand.
    fn eq(&self, other: &Self) -> bool {
        let words = |page: &PageBody| [page.own, page.td, page.mac, page.odd, page.poison];
        words(self) == words(other)
            && self.base == other.base
            && self.own.iter().all(|line| self.cell(line) == other.cell(line))
    }
}
impl Eq for PageBody {}

/// What a line held before a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OldLine {
    pub(crate) poison: Option<BirthId>,
    pub(crate) was_odd: bool,
    /// Whether the region's pages may have become all alike.
    pub(crate) settled: bool,
}

impl PageBody {
    pub(crate) fn new(base: Content) -> PageBody {
        PageBody {
            own: LineBits::default(),
            td: LineBits::all(base.td),
            mac: LineBits::all(base.mac),
            odd: LineBits::default(),
            poison: LineBits::default(),
            cells: Vec::new(),
            places: Places::default(),
            base,
        }
    }

    /// The cell of a line that has one.
    #[inline]
    fn cell(&self, line: u32) -> Option<&Cell> {
        if self.own.get(line) { self.cells.get(self.places.get(line)) } else { None }
    }
    /// How many cells to make room for when so many are full. From 4 on in steps that seldom come: each moves the cells to
    /// a place that the host has not in its cache.
    const fn more(cells: usize) -> usize {
        match cells {
            0 => 1,
            1 => 3,
            2..=4 => 8,
            5..=12 => 20,
            _ => 64usize.saturating_sub(cells),
        }
    }
    #[inline]
    fn add(&mut self, line: u32, cell: Cell) {
        if self.cells.len() == self.cells.capacity() {
            self.cells.reserve_exact(Self::more(self.cells.len()));
        }
        self.places.set(line, self.cells.len());
        self.cells.push(cell);
        self.own.set(line, true);
    }
    /// Takes a line's cell away; the last cell takes its place.
    fn take(&mut self, line: u32) -> Option<Cell> {
        let (place, last) = (self.places.get(line), self.cells.len().checked_sub(1)?);
        if !self.own.get(line) || place > last {
            return None;
        }
        let moved = self.own.iter().find(|other| self.places.get(*other) == last);
        if let Some(moved) = moved {
            self.places.set(moved, place);
        }
        self.own.set(line, false);
        self.places.set(line, 0);
        let cell = self.cells.swap_remove(place);
        self.shrink();
        Some(cell)
    }

    /// The content of all lines, if they are alike.
    #[inline]
    pub(crate) fn uniform(&self) -> Option<&Content> {
        (self.own.0 == 0).then_some(&self.base)
    }
    pub(crate) const fn poisoned(&self) -> LineBits {
        self.poison
    }
    pub(crate) const fn odd_lines(&self) -> LineBits {
        self.odd
    }

    #[inline]
    pub(crate) fn view(&self, line: u32) -> View<'_> {
        if let Some(cell) = self.cell(line) {
            return View {
                data: &cell.data,
                material: cell.material,
                writer: cell.writer,
                td: self.td.get(line),
                mac: self.mac.get(line),
                mac_bits: cell.mac_bits,
                poison: cell.poison,
                odd: self.odd.get(line),
                shared: false,
            };
        }
        View::of_content(&self.base)
    }

    pub(crate) fn mark_odd(&mut self, line: u32) {
        self.odd.set(line, true);
    }

    #[inline]
    pub(crate) fn set_line(&mut self, line: u32, new: &NewLine<'_>) -> OldLine {
        let mut old = OldLine { poison: None, was_odd: self.odd.get(line), settled: false };
        let shareable = new.shareable && new.poison.is_none();
        self.td.set(line, new.content.td);
        self.mac.set(line, new.content.mac);
        self.odd.set(line, false);
        self.poison.set(line, new.poison.is_some());
        if shareable && self.base.is(new.content) {
            old.poison = self.take(line).and_then(|cell| cell.poison);
            return old;
        }
        let cell = Cell {
            data: new.content.data,
            material: new.content.material,
            writer: new.content.writer,
            mac_bits: new.mac_bits,
            poison: new.poison,
        };
        if self.own.get(line) {
            if let Some(place) = self.cells.get_mut(self.places.get(line)) {
                old.poison = place.poison;
                *place = cell;
            }
            if shareable && self.own.0 == u64::MAX {
                self.fold(line, new);
            }
        } else {
            self.add(line, cell);
            if shareable && self.own.0 == u64::MAX {
                self.rebase();
            }
        }
        old
    }

    /// Whether the line holds exactly `content`, and nothing that cannot be shared.
    fn is(&self, line: u32, content: &Content) -> bool {
        let Some(cell) = self.cell(line) else { return false };
        cell.material == content.material
            && cell.writer == content.writer
            && self.td.get(line) == content.td
            && self.mac.get(line) == content.mac
            && !self.odd.get(line)
            && cell.poison.is_none()
            && cell.data == content.data
    }

    /// All lines have a cell and `line` was written just now: if its neighbours all hold the same, the page is uniform. A
    /// sweep in any order finds the first difference soon, until there is none.
    #[inline]
    fn fold(&mut self, line: u32, new: &NewLine<'_>) {
        if (1..64).all(|step| self.is((line + step) & 63, new.content)) {
            *self = PageBody::new(*new.content);
        }
    }

    /// The last line without a cell got one: if most lines hold the same, that becomes the base.
    #[cold]
    fn rebase(&mut self) {
        let mut candidate = 0u32;
        let mut lead = 0u32;
        for line in 0..64 {
            let content = self.content(candidate);
            if lead == 0 {
                (candidate, lead) = (line, 1);
            } else if self.is(line, &content) {
                lead += 1;
            } else {
                lead -= 1;
            }
        }
        let base = self.content(candidate);
        let keep: Vec<u32> = (0..64).filter(|line| !self.is(*line, &base)).collect();
        if keep.len() >= 32 {
            return;
        }
        let mut own = LineBits::default();
        let mut places = Places::default();
        let mut cells = Vec::with_capacity(keep.len());
        for line in keep {
            if let Some(cell) = self.cell(line) {
                own.set(line, true);
                places.set(line, cells.len());
                cells.push(*cell);
            }
        }
        (self.base, self.own, self.places, self.cells) = (base, own, places, cells);
    }

    fn content(&self, line: u32) -> Content {
        let (td, mac) = (self.td.get(line), self.mac.get(line));
        match self.cell(line) {
            Some(cell) => {
                Content { material: cell.material, writer: cell.writer, td, mac, data: cell.data }
            }
            None => self.base,
        }
    }

    fn shrink(&mut self) {
        if self.cells.len() * 4 <= self.cells.capacity() {
            self.cells.shrink_to(self.cells.len() * 2);
        }
    }

    pub(crate) fn memory_use(&self) -> usize {
        size_of::<PageBody>() + self.cells.capacity() * size_of::<Cell>()
    }
}

const _: () = assert!(size_of::<Cell>() == size_of::<LineData>() + 16);
const _: () = assert!(size_of::<PageBody>() == 256);
