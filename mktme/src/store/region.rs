//! A 2 MiB region whose pages are not all alike.

use super::page::OldLine;
use super::{Content, NewLine, PageBody, REGION_PAGES, View};
use bitvec::prelude::Lsb0;
use bitvec::view::BitView;
use serde::{Deserialize, Serialize};

/// Pages of a region in detail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Bodies {
    /// A few, by rising page.
    Few(Vec<(u16, Box<PageBody>)>),
    /// Many, by page, and how many.
    Many(Vec<Option<Box<PageBody>>>, u16),
}

/// The second content of a region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Second {
    content: Content,
    /// Which pages have it. A page in detail is never among them.
    pages: [u64; 8],
    count: u16,
}

/// A region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Region {
    /// Its number; [`Region::FREE`] in an unused slot.
    pub(super) key: u64,
    /// What its pages hold that are neither second nor in detail: what the run below it holds.
    base: Content,
    second: Option<Box<Second>>,
    bodies: Bodies,
}

impl Bodies {
    const FEW: usize = 8;

    #[inline]
    fn get(&self, page: u64) -> Option<&PageBody> {
        match self {
            Bodies::Few(list) => {
                let at = list.binary_search_by_key(&(page as u16), |(p, _)| *p).ok()?;
                list.get(at).map(|(_, body)| &**body)
            }
            Bodies::Many(slots, _) => slots.get(page as usize)?.as_deref(),
        }
    }
    #[inline]
    fn get_mut(&mut self, page: u64) -> Option<&mut PageBody> {
        match self {
            Bodies::Few(list) => {
                let at = list.binary_search_by_key(&(page as u16), |(p, _)| *p).ok()?;
                list.get_mut(at).map(|(_, body)| &mut **body)
            }
            Bodies::Many(slots, _) => slots.get_mut(page as usize)?.as_deref_mut(),
        }
    }
    #[inline]
    fn is_empty(&self) -> bool {
        match self {
            Bodies::Few(list) => list.is_empty(),
            Bodies::Many(_, count) => *count == 0,
        }
    }
    fn insert(&mut self, page: u64, body: Box<PageBody>) {
        if let Bodies::Few(list) = self
            && list.len() >= Self::FEW
        {
            let mut slots: Vec<Option<Box<PageBody>>> = vec![None; REGION_PAGES as usize];
            let count = list.len() as u16;
            for (p, body) in list.drain(..) {
                if let Some(slot) = slots.get_mut(usize::from(p)) {
                    *slot = Some(body);
                }
            }
            *self = Bodies::Many(slots, count);
        }
        match self {
            Bodies::Few(list) => match list.binary_search_by_key(&(page as u16), |(p, _)| *p) {
                Ok(at) => {
                    if let Some(place) = list.get_mut(at) {
                        place.1 = body;
                    }
                }
                Err(at) => {
                    if list.capacity() == 0 {
                        list.reserve_exact(1);
                    }
                    list.insert(at, (page as u16, body));
                }
            },
            Bodies::Many(slots, count) => {
                if let Some(slot) = slots.get_mut(page as usize) {
                    *count += u16::from(slot.is_none());
                    *slot = Some(body);
                }
            }
        }
    }
    #[inline]
    fn remove(&mut self, page: u64) -> Option<Box<PageBody>> {
        match self {
            Bodies::Few(list) => {
                let at = list.binary_search_by_key(&(page as u16), |(p, _)| *p).ok()?;
                Some(list.remove(at).1)
            }
            Bodies::Many(slots, count) => {
                let body = slots.get_mut(page as usize)?.take()?;
                *count -= 1;
                if *count == 0 {
                    *self = Bodies::Few(Vec::new());
                }
                Some(body)
            }
        }
    }
    /// Drops the pages all of whose lines hold `content`, and says which.
    fn take_uniform(&mut self, content: &Content) -> Vec<u64> {
        let mut taken = Vec::new();
        match self {
            Bodies::Few(list) => list.retain(|(p, body)| {
                let take = body.uniform() == Some(content);
                if take {
                    taken.push(u64::from(*p));
                }
                !take
            }),
            Bodies::Many(slots, count) => {
                for (p, slot) in (0u64..).zip(slots.iter_mut()) {
                    if slot.as_ref().is_some_and(|body| body.uniform() == Some(content)) {
                        *slot = None;
                        *count -= 1;
                        taken.push(p);
                    }
                }
                if *count == 0 {
                    *self = Bodies::Few(Vec::new());
                }
            }
        }
        taken
    }
    fn into_list(self) -> Vec<(u64, Box<PageBody>)> {
        match self {
            Bodies::Few(list) => list.into_iter().map(|(p, body)| (u64::from(p), body)).collect(),
            Bodies::Many(slots, _) => {
                (0u64..).zip(slots).filter_map(|(p, body)| Some((p, body?))).collect()
            }
        }
    }
    fn memory_use(&self) -> usize {
        match self {
            Bodies::Few(list) => {
                list.capacity() * size_of::<(u16, Box<PageBody>)>()
                    + list.iter().map(|(_, body)| body.memory_use()).sum::<usize>()
            }
            Bodies::Many(slots, _) => {
                slots.capacity() * size_of::<Option<Box<PageBody>>>()
                    + slots.iter().flatten().map(|body| body.memory_use()).sum::<usize>()
            }
        }
    }
}

impl Region {
    pub(super) const FREE: u64 = u64::MAX;

    pub(super) const fn new(key: u64, base: Content) -> Region {
        Region { key, base, second: None, bodies: Bodies::Few(Vec::new()) }
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

    #[inline]
    pub(super) fn view(&self, page: u64, line: u32) -> View<'_> {
        match self.bodies.get(page) {
            Some(body) => body.view(line),
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

    #[inline]
    pub(super) fn set_line(&mut self, page: u64, line: u32, new: &NewLine<'_>) -> OldLine {
        if self.bodies.get(page).is_none() {
            let shared = self.shared(page);
            if new.shareable && new.poison.is_none() && shared.is(new.content) {
                return OldLine::default();
            }
            let shared = *shared;
            self.unset_second(page);
            self.bodies.insert(page, Box::new(PageBody::new(shared)));
        }
        let Some(body) = self.bodies.get_mut(page) else { return OldLine::default() };
        let mut old = body.set_line(line, new);
        // A page that has become uniform joins the region's contents, if it is one of them.
        if let Some(content) = body.uniform().copied()
            && (content == self.base || self.second.as_ref().is_none_or(|s| s.content == content))
        {
            (_, old.settled) = self.set_page(page, &content);
        }
        old
    }

    pub(super) fn mark_odd(&mut self, page: u64, line: u32) {
        if let Some(body) = self.bodies.get_mut(page) {
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
        if !self.bodies.is_empty() || !second.content.is(content) {
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
    pub(super) fn set_page(
        &mut self,
        page: u64,
        content: &Content,
    ) -> (Option<Box<PageBody>>, bool) {
        let displaced = if self.bodies.is_empty() { None } else { self.bodies.remove(page) };
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
            for p in self.bodies.take_uniform(content) {
                pages.view_bits_mut::<Lsb0>().set(p as usize & 511, true);
                count += 1;
            }
            self.second = Some(Box::new(Second { content: *content, pages, count }));
            return (displaced, u64::from(count) == REGION_PAGES);
        }
        // A third content: the page keeps it for itself.
        self.bodies.insert(page, Box::new(PageBody::new(*content)));
        (displaced, false)
    }

    pub(super) fn into_bodies(self) -> Vec<(u64, Box<PageBody>)> {
        self.bodies.into_list()
    }

    pub(super) fn memory_use(&self) -> usize {
        self.bodies.memory_use() + if self.second.is_some() { size_of::<Second>() } else { 0 }
    }
}
