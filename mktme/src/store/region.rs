//! A 2 MiB region whose pages are not all alike.

use super::page::OldLine;
use super::{Content, NewLine, PageBody, REGION_PAGES, View};
use bitvec::prelude::Lsb0;
use bitvec::view::BitView;
use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

/// Which of [`Region::bodies`] is that of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Places {
    /// The pages of up to seven bodies, in the order of bodies.
    Few([u16; Places::FEW]),
    /// By page; [`Places::NONE`] where it has none.
    Many(#[serde(with = "super::list")] Box<[u16; REGION_PAGES as usize]>),
}

impl Places {
    const FEW: usize = 7;
    const NONE: u16 = u16::MAX;
}

/// The second content of a region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Second {
    content: Content,
    /// Which pages have it. A page in detail is never among them.
    pages: [u64; 8],
    count: u16,
}

/// A region. What finds a page's body is one line of the host's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C, align(64))]
pub(super) struct Region {
    /// Its number; [`Region::FREE`] in an unused slot.
    pub(super) key: u64,
    /// Pages in detail, in no order.
    bodies: Vec<PageBody>,
    places: Places,
    /// What its pages hold that are neither second nor in detail: what the run below it holds.
    base: Content,
    second: Option<Box<Second>>,
}

impl PartialEq for Region {
    /// Equal when their pages are, in whatever order they came.
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
            && self.base == other.base
            && self.second == other.second
            && self.bodies.len() == other.bodies.len()
            && self.bodies.iter().all(|body| {
                other
                    .body(u64::from(body.page))
                    .is_some_and(|o| body.same(&self.base.data, o, &other.base.data))
            })
    }
}
impl Eq for Region {}

impl Region {
    pub(super) const FREE: u64 = u64::MAX;

    pub(super) const fn new(key: u64, base: Content) -> Region {
        let places = Places::Few([Places::NONE; Places::FEW]);
        Region { key, bodies: Vec::new(), places, base, second: None }
    }
    pub(super) const fn free() -> Region {
        Region::new(Region::FREE, Content::POWER_ON)
    }

    fn is_second(&self, page: u64) -> bool {
        self.second.as_ref().is_some_and(|second| {
            second.pages.view_bits::<Lsb0>().get(page as usize).is_some_and(|bit| *bit)
        })
    }
    fn shared(&self, page: u64) -> &Content {
        match &self.second {
            Some(second) if self.is_second(page) => &second.content,
            _ => &self.base,
        }
    }

    /// The place of a page's body.
    #[inline]
    fn place(&self, page: u64) -> Option<usize> {
        self.maybe_place(page).filter(|place| *place < self.bodies.len())
    }
    /// The same, or a place beyond all bodies.
    #[inline]
    fn maybe_place(&self, page: u64) -> Option<usize> {
        match &self.places {
            Places::Many(places) => {
                // `NONE` is no body's place.
                Some(usize::from(places[page as usize % REGION_PAGES as usize]))
            }
            Places::Few(pages) => pages.iter().position(|p| u64::from(*p) == page),
        }
    }
    #[inline]
    fn body(&self, page: u64) -> Option<&PageBody> {
        self.bodies.get(self.maybe_place(page)?)
    }
    fn set_place(&mut self, page: u16, place: usize) {
        match &mut self.places {
            Places::Many(places) => {
                if let Some(p) = places.get_mut(usize::from(page)) {
                    *p = place as u16;
                }
            }
            Places::Few(pages) => {
                if let Some(p) = pages.get_mut(place) {
                    *p = page;
                }
            }
        }
    }
    /// Adds the body of a page that has none. Returns its place.
    fn insert(&mut self, body: PageBody) -> usize {
        let place = self.bodies.len();
        if place == Places::FEW
            && let Places::Few(pages) = self.places
        {
            let mut places = Box::new([Places::NONE; REGION_PAGES as usize]);
            for (place, page) in (0..).zip(pages) {
                if let Some(p) = places.get_mut(usize::from(page)) {
                    *p = place;
                }
            }
            self.places = Places::Many(places);
        }
        if place == self.bodies.capacity() {
            self.bodies.reserve_exact(match place {
                0 => 1,
                1 => 3,
                _ => place,
            });
        }
        self.set_place(body.page, place);
        self.bodies.push(body);
        place
    }
    fn remove(&mut self, page: u64) -> Option<PageBody> {
        let place = self.place(page)?;
        let body = self.bodies.swap_remove(place);
        self.set_place(body.page, usize::from(Places::NONE));
        match (&mut self.places, self.bodies.get(place).map(|moved| moved.page)) {
            (Places::Few(pages), moved) => {
                if let Some(p) = pages.get_mut(self.bodies.len()) {
                    *p = Places::NONE;
                }
                if let (Some(p), Some(moved)) = (pages.get_mut(place), moved) {
                    *p = moved;
                }
            }
            (Places::Many(_), Some(moved)) => self.set_place(moved, place),
            (Places::Many(_), None) => {}
        }
        if self.bodies.is_empty() {
            self.bodies = Vec::new();
            self.places = Places::Few([Places::NONE; Places::FEW]);
        }
        Some(body)
    }

    #[inline]
    pub(super) fn view(&self, page: u64, line: u32) -> View<'_> {
        match self.body(page) {
            Some(body) => body.view(line, &self.base.data),
            None => View::of_content(self.shared(page)),
        }
    }

    /// The content of all pages, if they are alike.
    pub(super) fn uniform(&self) -> Option<Content> {
        if !self.bodies.is_empty() {
            return None;
        }
        match &self.second {
            None => Some(self.base),
            Some(second) if u64::from(second.count) == REGION_PAGES => Some(second.content),
            Some(_) => None,
        }
    }

    /// Asks the host for what tells about a page.
    #[inline]
    pub(super) fn prefetch_page(&self, page: u64) {
        if let Some(place) = self.maybe_place(page) {
            prefetch_index(&self.bodies, place);
        }
    }
    /// Asks the host for the bytes of a line, looking at what tells about its page.
    #[inline]
    pub(super) fn prefetch_line(&self, page: u64, line: u32) {
        if let Some(body) = self.body(page) {
            body.prefetch(line);
        }
    }

    /// [`PageBody::overwrite`] of a line.
    #[inline]
    pub(super) fn overwrite(&mut self, page: u64, line: u32, new: &NewLine<'_>) -> bool {
        self.maybe_place(page)
            .and_then(|place| self.bodies.get_mut(place))
            .is_some_and(|body| body.overwrite(line, new))
    }

    pub(super) fn set_line(&mut self, page: u64, line: u32, new: &NewLine<'_>) -> OldLine {
        let place = match self.place(page) {
            Some(place) => place,
            None => match self.detail(page, new) {
                Some(place) => place,
                None => return OldLine::default(),
            },
        };
        let Some(body) = self.bodies.get_mut(place) else { return OldLine::default() };
        let mut old = body.set_line(line, new, &self.base.data);
        if old.uniform {
            old.settled = self.join(page);
        }
        old
    }

    /// Makes a body for a page that has none, unless the line to be written is what it holds already.
    #[cold]
    fn detail(&mut self, page: u64, new: &NewLine<'_>) -> Option<usize> {
        let shared = self.shared(page);
        if new.shareable && new.poison.is_none() && shared.is(new.header, new.data) {
            return None;
        }
        let body = if self.is_second(page) {
            let body = PageBody::of_content(page as u16, shared);
            self.unset_second(page);
            body
        } else {
            PageBody::of_region(page as u16, &self.base)
        };
        Some(self.insert(body))
    }

    /// A page that has become uniform joins the region's contents, if it is one of them. Returns whether the region's pages
    /// are now all alike.
    #[cold]
    fn join(&mut self, page: u64) -> bool {
        let content = self.body(page).and_then(|body| body.uniform(&self.base.data));
        match content {
            Some(content)
                if content == self.base
                    || self.second.as_ref().is_none_or(|s| s.content == content) =>
            {
                self.set_page(page, &content).1
            }
            _ => false,
        }
    }

    pub(super) fn mark_odd(&mut self, page: u64, line: u32) {
        if let Some(place) = self.place(page)
            && let Some(body) = self.bodies.get_mut(place)
        {
            body.mark_odd(line);
        }
    }

    fn unset_second(&mut self, page: u64) {
        let Some(second) = &mut self.second else { return };
        let bits = second.pages.view_bits_mut::<Lsb0>();
        if bits.get(page as usize).is_some_and(|bit| *bit) {
            bits.set(page as usize, false);
            second.count -= 1;
            if second.count == 0 {
                self.second = None;
            }
        }
    }

    /// As [`Region::set_page`] where no page is in detail and the content is the second: whether the region's pages are now
    /// all alike. `None` where it is otherwise, and nothing has changed.
    #[inline]
    pub(super) fn join_second(&mut self, page: u64, content: &Content) -> Option<bool> {
        let second = self.second.as_mut()?;
        if !self.bodies.is_empty() || !second.content.is(content.header, &content.data) {
            return None;
        }
        let word = second.pages.get_mut(page as usize / 64)?;
        let bit = 1 << (page % 64);
        second.count += u16::from(*word & bit == 0);
        *word |= bit;
        Some(u64::from(second.count) == REGION_PAGES)
    }

    /// Gives all lines of a page the same content. Returns its details, and whether the region's pages are now all alike.
    #[inline]
    pub(super) fn set_page(&mut self, page: u64, content: &Content) -> (Option<PageBody>, bool) {
        let displaced = if self.bodies.is_empty() { None } else { self.remove(page) };
        match &mut self.second {
            Some(second) if second.content == *content => {
                let bits = second.pages.view_bits_mut::<Lsb0>();
                if (page as usize) < bits.len() && !bits.replace(page as usize, true) {
                    second.count += 1;
                }
                let full = u64::from(second.count) == REGION_PAGES;
                return (displaced, full && self.bodies.is_empty());
            }
            _ => {}
        }
        if self.base == *content {
            self.unset_second(page);
            return (displaced, self.second.is_none() && self.bodies.is_empty());
        }
        self.unset_second(page);
        if self.second.is_none() {
            let mut pages = [0u64; 8];
            pages.view_bits_mut::<Lsb0>().set(page as usize & 511, true);
            let mut count = 1;
            // Pages that had this content for themselves, as a third, join.
            for p in self.take_uniform(content) {
                pages.view_bits_mut::<Lsb0>().set(usize::from(p) & 511, true);
                count += 1;
            }
            self.second = Some(Box::new(Second { content: *content, pages, count }));
            return (displaced, u64::from(count) == REGION_PAGES);
        }
        // A third content: the page keeps it for itself.
        self.insert(PageBody::of_content(page as u16, content));
        (displaced, false)
    }

    /// Drops the pages all of whose lines hold `content`, and says which.
    fn take_uniform(&mut self, content: &Content) -> Vec<u16> {
        let base = &self.base.data;
        let taken: Vec<u16> = self
            .bodies
            .iter()
            .filter(|body| body.uniform(base).as_ref() == Some(content))
            .map(|body| body.page)
            .collect();
        for page in &taken {
            self.remove(u64::from(*page));
        }
        taken
    }

    /// The pages in detail, rising.
    pub(super) fn into_bodies(self) -> Vec<PageBody> {
        let mut bodies = self.bodies;
        bodies.sort_unstable_by_key(|body| body.page);
        bodies
    }

    pub(super) fn memory_use(&self) -> usize {
        let places = match &self.places {
            Places::Few(_) => 0,
            Places::Many(places) => places.len() * size_of::<u16>(),
        };
        let second = if self.second.is_some() { size_of::<Second>() } else { 0 };
        self.bodies.capacity() * size_of::<PageBody>()
            + self.bodies.iter().map(PageBody::memory_use).sum::<usize>()
            + places
            + second
    }
}

const _: () = assert!(size_of::<Region>() == 128);
