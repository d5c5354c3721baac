//! A page whose lines are not all alike.

use super::{Content, Header, NewLine, View};
use bitvec::prelude::{BitArray, Lsb0};
use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};
use sim_core::data::LineData;
use sim_core::event::BirthId;

/// The lines in a word of a page, one bit each (style-and-ecosystem.md B8), rising.
fn lines_in(word: u64) -> impl Iterator<Item = u32> {
    let bits: BitArray<u64, Lsb0> = BitArray::new(word);
    (0..64u32).filter(move |i| bits.get(*i as usize).is_some_and(|bit| *bit))
}

const fn bit_of(line: u32) -> u64 {
    1 << (line & 63)
}

/// The bytes of a line: one line of the host's cache, which an access touches alone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[repr(align(64))]
struct Slot(LineData);

/// The bytes of lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Slots {
    /// Those of the filler, if it has a slot, then those of the lines in `own`, then room.
    Few(Box<[LineData]>),
    /// Those of all lines.
    All(#[serde(with = "super::list")] Box<[Slot; 64]>),
}

/// Of a line, what few lines have. Its header stands here too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    header: Header,
    mac_bits: u32,
    pub(crate) poison: Option<BirthId>,
    /// Whether the store knows of an attack on the line.
    pub(crate) odd: bool,
}

impl Extra {
    /// Whether it is only here because its header is neither of the page's two.
    const fn is_plain(&self) -> bool {
        self.mac_bits == 0 && self.poison.is_none() && !self.odd
    }
}

/// The extras of a page.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Extras {
    lines: u64,
    /// Of each line in `lines`, by rising line.
    list: Vec<Extra>,
}

impl Extras {
    const fn rank(&self, line: u32) -> usize {
        (self.lines & (bit_of(line) - 1)).count_ones() as usize
    }
    fn get(&self, line: u32) -> Option<&Extra> {
        if self.lines & bit_of(line) == 0 { None } else { self.list.get(self.rank(line)) }
    }
    fn set(&mut self, line: u32, extra: Extra) {
        let rank = self.rank(line);
        if self.lines & bit_of(line) == 0 {
            self.lines |= bit_of(line);
            self.list.insert(rank, extra);
        } else if let Some(place) = self.list.get_mut(rank) {
            *place = extra;
        }
    }
    fn take(&mut self, line: u32) -> Option<Extra> {
        if self.lines & bit_of(line) == 0 {
            return None;
        }
        let rank = self.rank(line);
        self.lines &= !bit_of(line);
        Some(self.list.remove(rank))
    }
}

/// Where the bytes of the filler are while the page has not all its lines in slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Filler {
    /// They are those of the region's base.
    Region,
    /// In the first slot.
    Slot,
    /// In the slot of each line that holds it, and there has been no other filler since most lines were found to differ.
    Line,
}

/// A page in detail: a content that its lines share, the *filler*, and the lines that differ from it.
///
/// A random access comes to a page that the host has not in its cache. So what tells about all lines is one line of the
/// host's, and the bytes are another: those of a line that differs in a slot of their own, in the order of lines; from
/// [`PageBody::FEW`] on all lines have a slot, so that a line's number is its slot's and nothing moves or is allocated any
/// more.
///
/// Always, unless `own` is full: a line is in `own` exactly if it differs from the filler, or may not share. So a page that
/// has become uniform is known at once, whatever the order of writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C, align(64))]
pub(crate) struct PageBody {
    /// Lines that differ from the filler. Full: there is no filler.
    own: u64,
    /// Lines in `own` with the other header.
    other: u64,
    /// The header of the filler, and of lines in `own` without a bit in `other`.
    main: Header,
    /// Nothing while `other` is empty.
    second: Header,
    slots: Slots,
    extras: Option<Box<Extras>>,
    /// [`fingerprint`] of the filler.
    print: u32,
    /// Its number in the region.
    pub(super) page: u16,
    filler: Filler,
}

/// What a line held before a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OldLine {
    pub(crate) poison: Option<BirthId>,
    pub(crate) was_odd: bool,
    /// Whether all lines of the page are alike now.
    pub(crate) uniform: bool,
    /// Whether the region's pages may have become all alike.
    pub(crate) settled: bool,
}

/// A hash of 64 bytes, by which a write mostly learns that it differs from the filler without looking at it.
#[inline]
fn fingerprint(data: &LineData) -> u32 {
    let sum = data.0.iter().fold(0u64, |sum, word| sum.rotate_left(9) ^ word);
    (sum ^ sum >> 32) as u32
}

#[inline]
fn same(a: &LineData, b: &LineData) -> bool {
    a.0.iter().zip(b.0).fold(0, |d, (a, b)| d | (*a ^ b)) == 0
}

impl PageBody {
    /// Up to so many lines have slots by rank; beyond, all lines have one.
    const FEW: usize = 16;

    /// A page that holds what the region's base does.
    pub(crate) fn of_region(page: u16, base: &Content) -> PageBody {
        PageBody {
            own: 0,
            other: 0,
            main: base.header,
            second: base.header,
            slots: Slots::Few(Box::default()),
            extras: None,
            print: fingerprint(&base.data),
            page,
            filler: Filler::Region,
        }
    }
    /// A page that holds something else.
    pub(crate) fn of_content(page: u16, content: &Content) -> PageBody {
        let slots = Slots::Few(Box::new([content.data]));
        PageBody { slots, filler: Filler::Slot, ..PageBody::of_region(page, content) }
    }

    /// How many slots come before those of lines, while not all lines have one.
    const fn ahead(&self) -> usize {
        !matches!(self.filler, Filler::Region) as usize
    }
    /// The slot of a line, while not all lines have one; of a line not in `own`, where it would be.
    const fn rank(&self, line: u32) -> usize {
        (self.own & (bit_of(line) - 1)).count_ones() as usize + self.ahead()
    }
    /// The filler's bytes. Meaningless while `own` is full.
    fn filler<'a>(&'a self, base: &'a LineData) -> &'a LineData {
        match (&self.slots, self.filler) {
            (Slots::All(slots), _) => &slots[self.own.trailing_ones() as usize & 63].0,
            (Slots::Few(_), Filler::Region) => base,
            (Slots::Few(slots), _) => slots.first().unwrap_or(base),
        }
    }
    /// The bytes of a line.
    #[inline]
    fn data<'a>(&'a self, line: u32, base: &'a LineData) -> &'a LineData {
        match &self.slots {
            Slots::All(slots) => &slots[line as usize & 63].0,
            Slots::Few(_) if self.own & bit_of(line) == 0 => self.filler(base),
            Slots::Few(slots) => slots.get(self.rank(line)).unwrap_or(base),
        }
    }
    fn extra(&self, line: u32) -> Option<&Extra> {
        self.extras.as_ref().and_then(|extras| extras.get(line))
    }
    fn header(&self, line: u32) -> Header {
        match self.extra(line) {
            Some(extra) => extra.header,
            None if self.other & bit_of(line) != 0 => self.second,
            None => self.main,
        }
    }

    /// The content of all lines, if they are alike.
    pub(crate) fn uniform(&self, base: &LineData) -> Option<Content> {
        (self.own == 0).then(|| Content { header: self.main, data: *self.filler(base) })
    }
    /// The lines that have extras, rising.
    pub(crate) fn extras(&self) -> impl Iterator<Item = (u32, &Extra)> {
        let extras = self.extras.as_ref();
        lines_in(extras.map_or(0, |extras| extras.lines))
            .zip(extras.into_iter().flat_map(|e| &e.list))
    }

    /// Whether both hold the same, wherever their bytes stand; each with its region's base.
    pub(crate) fn same(&self, base: &LineData, other: &PageBody, other_base: &LineData) -> bool {
        let filler = self.own == u64::MAX
            || self.main == other.main && self.filler(base) == other.filler(other_base);
        self.page == other.page
            && self.own == other.own
            && filler
            && lines_in(self.own).all(|line| {
                let (a, b) = (self.view(line, base), other.view(line, other_base));
                let meta = |v: &View<'_>| (v.header, v.mac_bits, v.poison, v.odd);
                a.data == b.data && meta(&a) == meta(&b)
            })
    }

    #[inline]
    pub(crate) fn view<'a>(&'a self, line: u32, base: &'a LineData) -> View<'a> {
        if self.extras.is_some() {
            return self.view_with_extras(line, base);
        }
        self.plain_view(line, base)
    }
    #[inline]
    fn plain_view<'a>(&'a self, line: u32, base: &'a LineData) -> View<'a> {
        let bit = bit_of(line);
        View {
            data: self.data(line, base),
            header: if self.other & bit == 0 { self.main } else { self.second },
            mac_bits: 0,
            poison: None,
            odd: false,
            shared: self.own & bit == 0,
        }
    }
    #[inline(never)]
    fn view_with_extras<'a>(&'a self, line: u32, base: &'a LineData) -> View<'a> {
        let view = self.plain_view(line, base);
        match self.extra(line) {
            Some(Extra { header, mac_bits, poison, odd }) => {
                View { header: *header, mac_bits: *mac_bits, poison: *poison, odd: *odd, ..view }
            }
            None => view,
        }
    }

    /// Says that the store knows of an attack on a line that may not share, written just now.
    pub(crate) fn mark_odd(&mut self, line: u32) {
        let extra = match self.extra(line) {
            Some(extra) => *extra,
            None => Extra { header: self.header(line), mac_bits: 0, poison: None, odd: true },
        };
        self.other &= !bit_of(line);
        self.extras.get_or_insert_default().set(line, Extra { odd: true, ..extra });
    }

    /// Asks the host for the bytes of a line.
    #[inline]
    pub(super) fn prefetch(&self, line: u32) {
        if let Slots::All(slots) = &self.slots {
            prefetch_index(slots.as_slice(), line as usize & 63);
        }
    }

    /// [`PageBody::set_line`] in the common case: a page of which many lines differ, nothing special there before or after,
    /// and some line still the filler. Returns whether it is that; if not, nothing has changed.
    #[inline]
    pub(super) fn overwrite(&mut self, line: u32, new: &NewLine<'_>) -> bool {
        let (bit, main) = (bit_of(line), new.header == self.main);
        let own = self.own | bit;
        let Slots::All(slots) = &mut self.slots else { return false };
        if self.extras.is_some()
            || new.poison.is_some()
            || new.mac_bits != 0
            || own == u64::MAX
            || if main { self.print == fingerprint(new.data) } else { new.header != self.second }
        {
            return false;
        }
        slots[line as usize & 63] = Slot(*new.data);
        self.own = own;
        self.other = if main { self.other & !bit } else { self.other | bit };
        true
    }

    pub(crate) fn set_line(&mut self, line: u32, new: &NewLine<'_>, base: &LineData) -> OldLine {
        let bit = bit_of(line);
        if self.extras.is_some() || new.poison.is_some() || new.mac_bits != 0 {
            return self.set_with_extras(line, new, base);
        }
        if new.header == self.main
            && new.shareable
            && self.own != u64::MAX
            && self.print == fingerprint(new.data)
            && same(self.filler(base), new.data)
        {
            self.refill(line, base);
            return OldLine { uniform: self.own == 0, ..OldLine::default() };
        }
        self.put(line, new.data, base);
        if new.header == self.main {
            self.other &= !bit;
        } else if new.header == self.second {
            self.other |= bit;
        } else {
            self.set_new_header(line, new.header);
        }
        if self.own == u64::MAX && new.shareable {
            self.refound(line, base);
        }
        OldLine { uniform: self.own == 0, ..OldLine::default() }
    }

    /// Stores the bytes of a line that differs from the filler.
    #[inline]
    fn put(&mut self, line: u32, data: &LineData, base: &LineData) {
        if let Slots::All(slots) = &mut self.slots {
            slots[line as usize & 63] = Slot(*data);
            self.own |= bit_of(line);
        } else {
            self.put_by_rank(line, data, base);
        }
    }
    #[inline(never)]
    fn put_by_rank(&mut self, line: u32, data: &LineData, base: &LineData) {
        let rank = self.rank(line);
        let full = self.ahead() + self.own.count_ones() as usize;
        let Slots::Few(slots) = &mut self.slots else { return };
        if self.own & bit_of(line) == 0 {
            if full == slots.len() {
                let room = match full {
                    0 => 1,
                    1..=3 => 4,
                    4..Self::FEW => Self::FEW,
                    _ => {
                        self.spread(base);
                        return self.put(line, data, base);
                    }
                };
                let mut more = Vec::with_capacity(room);
                more.extend_from_slice(slots);
                more.resize(room, LineData::ZERO);
                *slots = more.into();
            }
            slots.copy_within(rank..full, rank + 1);
            self.own |= bit_of(line);
        }
        if let Some(slot) = slots.get_mut(rank) {
            *slot = *data;
        }
    }
    /// Gives every line a slot.
    fn spread(&mut self, base: &LineData) {
        let slots: Box<[Slot]> = (0..64).map(|line| Slot(*self.data(line, base))).collect();
        if let Ok(slots) = slots.try_into() {
            self.slots = Slots::All(slots);
        }
    }
    /// Keeps slots for the filler and the lines in `own` only.
    fn gather(&mut self, base: &LineData) {
        let mut slots = Vec::with_capacity(1 + self.own.count_ones() as usize);
        slots.push(*self.filler(base));
        slots.extend(lines_in(self.own).map(|line| *self.data(line, base)));
        self.slots = Slots::Few(slots.into());
        self.filler = Filler::Slot;
    }

    /// Gives a line without extras the filler.
    fn refill(&mut self, line: u32, base: &LineData) {
        let bit = bit_of(line);
        if self.own & bit == 0 {
            return;
        }
        self.other &= !bit;
        let filler = *self.filler(base);
        let (rank, ahead, own) = (self.rank(line), self.ahead(), self.own.count_ones() as usize);
        self.own &= !bit;
        match &mut self.slots {
            Slots::All(slots) => {
                slots[line as usize & 63] = Slot(filler);
                if own <= 5 {
                    self.gather(base);
                }
            }
            Slots::Few(slots) => {
                slots.copy_within(rank + 1..ahead + own, rank);
                if own == 1 {
                    *slots = slots.iter().take(ahead).copied().collect();
                }
            }
        }
    }

    /// Notes the header of a line in `own` that has none of the page's two.
    #[cold]
    fn set_new_header(&mut self, line: u32, header: Header) {
        let bit = bit_of(line);
        if self.other & !bit == 0 {
            self.second = header;
            self.other |= bit;
            return;
        }
        self.other &= !bit;
        let extra = Extra { header, mac_bits: 0, poison: None, odd: false };
        self.extras.get_or_insert_default().set(line, extra);
    }

    #[inline(never)]
    /// [`PageBody::set_line`] where some line of the page has, or gets, extras.
    fn set_with_extras(&mut self, line: u32, new: &NewLine<'_>, base: &LineData) -> OldLine {
        let bit = bit_of(line);
        let mut extras = self.extras.take().unwrap_or_default();
        let was = extras.take(line);
        let mut old = OldLine {
            poison: was.and_then(|extra| extra.poison),
            was_odd: was.is_some_and(|extra| extra.odd),
            ..OldLine::default()
        };
        let shareable = new.shareable && new.poison.is_none();
        let fills = shareable
            && new.header == self.main
            && self.own != u64::MAX
            && same(self.filler(base), new.data);
        let mut refound = false;
        if fills {
            self.extras = Some(extras).filter(|extras| extras.lines != 0);
            self.refill(line, base);
        } else {
            self.put(line, new.data, base);
            self.other &= !bit;
            if new.poison.is_some() || new.mac_bits != 0 {
                let (header, mac_bits, poison) = (new.header, new.mac_bits, new.poison);
                extras.set(line, Extra { header, mac_bits, poison, odd: false });
                self.extras = Some(extras);
            } else {
                self.extras = Some(extras).filter(|extras| extras.lines != 0);
                if new.header != self.main {
                    if new.header == self.second {
                        self.other |= bit;
                    } else {
                        self.set_new_header(line, new.header);
                    }
                }
                refound = self.own == u64::MAX && shareable;
            }
        }
        if refound {
            self.refound(line, base);
        }
        old.uniform = self.own == 0;
        old
    }

    /// What a line holds that may share it. The bits of power-on that an attack put back are bytes like any others: they
    /// may not.
    #[inline]
    fn sharable<'a>(&'a self, line: u32, base: &'a LineData) -> Option<(Header, &'a LineData)> {
        let header = match self.extra(line) {
            Some(extra) if !extra.is_plain() => return None,
            _ => self.header(line),
        };
        (!header.is_power_on()).then(|| (header, self.data(line, base)))
    }

    /// All lines differ from the filler since one was written: there is another. The first time that which most lines hold, if
    /// one is, so that a page that mostly agrees is small; later the content of that line.
    #[cold]
    #[inline(never)]
    fn refound(&mut self, written: u32, base: &LineData) {
        let candidate = match self.filler {
            Filler::Line => None,
            _ => self.sharable(self.candidate(base), base),
        };
        let Some((header, data)) = candidate.or_else(|| self.sharable(written, base)) else {
            return;
        };
        let data = *data;
        let have = self.alike(header, &data, base);
        self.set_headers(header, have);
        self.own = !have;
        self.print = fingerprint(&data);
        self.filler = Filler::Line;
        if self.own.count_ones() <= 8 {
            self.gather(base);
        }
    }
    /// A line that holds what most lines do, if there is such a thing.
    fn candidate(&self, base: &LineData) -> u32 {
        let (mut candidate, mut lead) = (0, 0u32);
        for line in 0..64 {
            if lead == 0 {
                (candidate, lead) = (line, 1);
            } else if self.sharable(line, base) == self.sharable(candidate, base) {
                lead += 1;
            } else {
                lead -= 1;
            }
        }
        candidate
    }
    /// The lines that hold this content.
    fn alike(&self, header: Header, data: &LineData, base: &LineData) -> u64 {
        let mut maybe = u64::MAX;
        if let Slots::All(slots) = &self.slots {
            // Most differ in the first word.
            maybe = 0;
            for slot in slots.iter().rev() {
                maybe = maybe << 1 | u64::from(slot.0.0[0] == data.0[0]);
            }
        }
        let mut have = 0;
        while maybe != 0 {
            let line = maybe.trailing_zeros();
            maybe &= maybe - 1;
            if self.sharable(line, base).is_some_and(|(h, d)| h == header && same(d, data)) {
                have |= bit_of(line);
            }
        }
        have
    }

    /// Makes a header the main one: the lines in `alike` have it and will be without extras.
    fn set_headers(&mut self, main: Header, alike: u64) {
        if self.extras.is_none() {
            // Two headers at most: keep them, or let them change places.
            if main != self.main {
                self.second = self.main;
                self.main = main;
                self.other = !self.other;
            }
            return;
        }
        let headers: [Header; 64] = std::array::from_fn(|line| self.header(line as u32));
        let extras = self.extras.take().unwrap_or_default();
        self.main = main;
        self.other = 0;
        for (line, header) in (0..64).zip(headers) {
            match extras.get(line) {
                _ if alike & bit_of(line) != 0 => {}
                Some(extra) if !extra.is_plain() => {
                    self.extras.get_or_insert_default().set(line, *extra);
                }
                _ if header == main => {}
                _ if header == self.second && self.other != 0 => self.other |= bit_of(line),
                _ => self.set_new_header(line, header),
            }
        }
    }

    pub(crate) fn memory_use(&self) -> usize {
        let extras = self
            .extras
            .as_ref()
            .map_or(0, |extras| size_of::<Extras>() + extras.list.capacity() * size_of::<Extra>());
        let slots = match &self.slots {
            Slots::Few(slots) => slots.len() * size_of::<LineData>(),
            Slots::All(_) => size_of::<[Slot; 64]>(),
        };
        slots + extras
    }
}

const _: () = assert!(size_of::<Slot>() == size_of::<LineData>());
const _: () = assert!(size_of::<PageBody>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MaterialId;
    use proptest::prelude::*;
    use sim_core::keyid::KeyId;
    use std::num::NonZeroU32;

    /// A line as the test remembers it.
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Naive {
        header: Header,
        data: LineData,
        mac_bits: u32,
        poison: Option<BirthId>,
        odd: bool,
        shareable: bool,
    }

    fn header(n: u8) -> Header {
        Header::new(MaterialId::of_raw(2 + u32::from(n)), Some(KeyId(n.into())), n & 1 != 0, n > 2)
    }

    /// Few contents, so that lines become alike; runs of lines, so that pages fill.
    fn any_write() -> impl Strategy<Value = (u32, u32, u8, u64, u8)> {
        let runs = prop_oneof![3 => Just(1u32), 2 => 2u32..12, 2 => Just(64)];
        // Mostly two headers, mostly nothing special.
        let headers = prop_oneof![6 => 0u8..2, 2 => 0u8..5];
        let special = prop_oneof![12 => Just(0u8), 1 => 1u8..5];
        (0u32..64, runs, headers, prop_oneof![0u64..2, 0u64..100], special)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_page_is_64_lines_and_knows_when_they_are_alike(
            second: bool,
            real: bool,
            writes in proptest::collection::vec(any_write(), 1..40),
        ) {
            let base = Content { header: header(0), data: LineData([7; 8]) };
            let mut page = if second {
                PageBody::of_content(3, &base)
            } else {
                PageBody::of_region(3, &base)
            };
            let Content { header: h, data } = base;
            let line = Naive { header: h, data, mac_bits: 0, poison: None, odd: false, shareable: true };
            let mut naive = [line; 64];
            for (first, run, head, word, special) in writes {
                for line in (first..first + run).map(|line| line % 64) {
                    // With a run of all lines now and then, each with bytes of its own.
                    let own = if word > 50 { u64::from(line) } else { 0 };
                    let data = LineData([1, 2, 3, 4, 5, word, own, 8]);
                    let poison = (special == 1).then_some(BirthId(NonZeroU32::MIN));
                    let mac_bits = u32::from(special == 2);
                    let shareable = !real && special < 2;
                    let new =
                        NewLine { header: header(head), data: &data, mac_bits, poison, shareable };
                    let was = naive[line as usize];
                    let old = if page.overwrite(line, &new) {
                        OldLine::default()
                    } else {
                        page.set_line(line, &new, &base.data)
                    };
                    prop_assert_eq!((old.poison, old.was_odd), (was.poison, was.odd));
                    let odd = special == 4;
                    if odd {
                        page.mark_odd(line);
                    }
                    let header = new.header;
                    naive[line as usize] = Naive { header, data, mac_bits, poison, odd, shareable };
                    let plain = |n: &Naive| n.poison.is_none() && n.mac_bits == 0 && !n.odd;
                    let alike = naive.iter().all(|n| {
                        plain(n) && (n.header, n.data) == (naive[0].header, naive[0].data)
                    });
                    if alike && naive.iter().all(|n| n.shareable) {
                        prop_assert!(page.uniform(&base.data).is_some());
                    }
                    if let Some(content) = page.uniform(&base.data) {
                        prop_assert!(alike);
                        prop_assert_eq!((content.header, content.data), (naive[0].header, naive[0].data));
                    }
                }
                for (line, n) in (0..64).zip(&naive) {
                    let v = page.view(line, &base.data);
                    prop_assert_eq!((v.header, *v.data), (n.header, n.data));
                    prop_assert_eq!((v.mac_bits, v.poison, v.odd), (n.mac_bits, n.poison, n.odd));
                    // A line that has been computed for its place never stands for others.
                    prop_assert!(!real || v.shared == n.shareable);
                }
                let saved = postcard::to_stdvec(&page).unwrap();
                let back: PageBody = postcard::from_bytes(&saved).unwrap();
                prop_assert!(back.same(&base.data, &page, &base.data));
            }
        }
    }
}
