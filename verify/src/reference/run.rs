//! One step of the reference being made: controller, caches, buffers, operations.

use super::line::{Bytes, Cipher, DramLine, Key};
use super::sorted::{Sorted, Spot};
use super::tables::{self, Class, WriteCase, WriteEffect};
use super::{
    Agent, Birth, Buffered, Choice, Coherence, Copy, KeySlot, NotAllowed, Pending, Place, Progress,
    Reference, Request, Seen, State, StepOutcome, Transaction, WcBuffer, Weak,
};
use sim_core::event::{BirthCause, Rule, WeakKind};
use sim_core::mca::McAccess;
use sim_core::op::{KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::outcome::{DataClass, GpReason, PconfigStatus};
use sim_core::platform::{IntegrityMode, XtsWidth};
use sim_core::{Addr, BirthId, ByteMask, Hpa, KeyId, Line, LineData, Op, Tagged};
use std::cmp::Ordering;
use std::num::NonZeroU32;

/// A part of an access that lies in one line: the line, the first byte in it, how many, and how many came before.
type Span = (Tagged, usize, usize, usize);

fn spans(at: Addr, bytes: u32) -> impl Iterator<Item = Span> {
    let (start, end) = (at.hpa.0, at.hpa.0 + u64::from(bytes));
    (start >> 6..end.div_ceil(64)).map(move |line| {
        let (from, to) = (start.max(line << 6), end.min((line + 1) << 6));
        let tag = Tagged::new(Line(line), at.keyid);
        (tag, (from & 63) as usize, (to - from) as usize, (from - start) as usize)
    })
}

/// Ends an operation early with what its agent sees.
type Flow<T> = Result<T, Seen>;

/// Who makes choices within an operation.
pub(super) type Chooser<'a> = dyn FnMut(&Reference, Progress) -> Option<Choice> + 'a;

/// A step being made.
pub(super) struct Run<'a> {
    m: &'a mut Reference,
    /// Nobody where no choice is made within it.
    chooser: Option<&'a mut Chooser<'a>>,
    stores: usize,
    asked: usize,
    refused: Option<NotAllowed>,
    pub(super) out: &'a mut StepOutcome,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        m: &'a mut Reference,
        chooser: Option<&'a mut Chooser<'a>>,
        out: &'a mut StepOutcome,
    ) -> Run<'a> {
        Run { m, chooser, stores: 0, asked: 0, refused: None, out }
    }
    /// Whether every choice within the step could be made.
    pub(super) fn end(self) -> Result<(), NotAllowed> {
        // Apart, as otherwise all its bytes are copied where none is set, and the processor waits for them.
        #[cold]
        #[inline(never)]
        fn refused(why: NotAllowed) -> Result<(), NotAllowed> {
            Err(why)
        }
        self.refused.map_or(Ok(()), refused)
    }
    /// Between two lines of an operation, before the first or after the last, hardware may choose.
    pub(super) fn between(&mut self, over: bool) {
        let (asked, stores) = (self.asked, self.stores);
        self.asked += 1;
        while let (Some(chooser), None) = (&mut self.chooser, self.refused) {
            let progress = Progress { requests: self.out.traffic.len(), stores, asked, over };
            let Some(choice) = chooser(self.m, progress) else { return };
            self.refused = self.choose(choice).err();
        }
    }
}

/// A place that held a poison holds it no more.
fn lose(births: &mut Sorted<BirthId, Birth>, died: &mut u32, poison: Option<BirthId>) {
    let Some(id) = poison else { return };
    if let Some(birth) = births.get_mut(&id) {
        birth.locations = birth.locations.saturating_sub(1);
        if birth.locations == 0 {
            births.remove(&id);
            *died += 1;
        }
    }
}

/// The memory controller.
impl Run<'_> {
    fn born(&mut self, at: Tagged, cause: BirthCause) -> BirthId {
        let s = &mut self.m.state;
        let id = BirthId(NonZeroU32::MIN.saturating_add(s.born));
        s.born = s.born.saturating_add(1);
        s.births.insert(id, Birth { at, cause, locations: 0 });
        self.out.births.push(id);
        id
    }
    fn gained(&mut self, poison: Option<BirthId>) {
        if let Some(birth) = poison.and_then(|id| self.m.state.births.get_mut(&id)) {
            birth.locations += 1;
        }
    }
    fn lost(&mut self, poison: Option<BirthId>) {
        lose(&mut self.m.state.births, &mut self.m.state.died, poison);
    }
    /// A line of DRAM, and where it is.
    fn dram(&self, line: Line) -> (DramLine, Result<Spot, Spot>) {
        let dram = &self.m.state.dram;
        let spot = dram.find(&line);
        let found = spot.ok().and_then(|spot| dram.at(spot));
        (found.copied().unwrap_or_default(), spot)
    }
    fn set_dram(&mut self, line: Line, new: DramLine) {
        let (old, spot) = self.dram(line);
        self.change(line, spot, old.poison, &new);
    }
    /// Changes a line of DRAM that is at this spot, or would be, and had this poison.
    fn change(
        &mut self,
        line: Line,
        spot: Result<Spot, Spot>,
        poison: Option<BirthId>,
        new: &DramLine,
    ) {
        let dram = &mut self.m.state.dram;
        // Absent is power-on: one state, one value.
        match (spot, *new == DramLine::default()) {
            (Ok(spot), true) => {
                dram.take(spot);
            }
            (Ok(spot), false) => {
                if let Some(line) = dram.at_mut(spot) {
                    *line = *new;
                }
            }
            (Err(_), true) => {}
            (Err(spot), false) => dram.add(spot, line, *new),
        }
        self.moved(poison, new.poison);
    }
    /// A place that held one poison holds another.
    fn moved(&mut self, old: Option<BirthId>, new: Option<BirthId>) {
        if old != new {
            self.gained(new);
            self.lost(old);
        }
    }

    /// A read by the tables, without its effect on DRAM: data, class, poison, row.
    fn consult(
        &mut self,
        at: Tagged,
        line: &DramLine,
    ) -> (Bytes, DataClass, Option<BirthId>, Rule) {
        let spec = &self.m.spec;
        let slot = self.m.key(at);
        let mac = line.mac_matches(at.line(), slot.key) || spec.mutant(3);
        let class = self.m.class_with(at, slot);
        let mode = spec.memory.integrity;
        let leak = spec.mutant(2);
        let row = tables::read_row(mode, class, line.td, mac, line.poison.is_some());
        let poison = match (row.poison, line.poison) {
            (false, _) => None,
            (true, Some(old)) => Some(old),
            (true, None) => row.birth.map(|cause| self.born(at, cause)),
        };
        let (data, class) = if row.plaintext {
            line.decrypt(at.line(), slot.key)
        } else if leak && class == Class::Shared && !row.poison {
            (line.ct.as_ref().map_or(Bytes::UNKNOWN, |ct| ct.plain), DataClass::Plain)
        } else {
            (Bytes::ZERO, DataClass::Blocked)
        };
        (data, class, poison, row.rule)
    }

    fn read(&mut self, at: Tagged) -> (Bytes, DataClass, Option<BirthId>) {
        let (before, spot) = self.dram(at.line());
        let (data, class, poison, rule) = self.consult(at, &before);
        let mut after = before;
        if !self.m.spec.mutant(4) {
            after.poison = poison; // MC-02
        }
        if before.poison.is_none() {
            self.out.ucna.extend(poison);
        }
        if after.poison != before.poison {
            self.change(at.line(), spot, before.poison, &after);
        }
        let request = Request::Read { data, class };
        self.out.traffic.push(Transaction { at, request, rule, before, after });
        (data, class, poison)
    }

    fn write(&mut self, at: Tagged, data: Bytes, mask: ByteMask, source: Option<BirthId>) {
        let (before, spot) = self.dram(at.line());
        let slot = self.m.key(at);
        let class = self.m.class_with(at, slot);
        let spec = &self.m.spec;
        let row = tables::write_row(&WriteCase {
            full: mask.is_full(),
            class,
            mode: spec.memory.integrity,
            source_poison: source.is_some(),
            td: before.td || spec.mutant(11),
            erratum: spec.memory.erratum_pw_mce,
        });
        let cures = spec.mutant(5);
        let (content, poison) = match row.effect {
            WriteEffect::Replace => (Some(data), source),
            WriteEffect::Merge => {
                let (mut merged, _, poison, _) = self.consult(at, &before);
                merged.merge(&data, mask);
                (Some(merged), poison.filter(|_| !cures))
            }
            WriteEffect::Poison => {
                let old = before.poison;
                (None, old.or_else(|| Some(self.born(at, BirthCause::PartialWrite))))
            }
        };
        let after = match content {
            Some(plain) => self.encrypt(at, plain, (class, slot.key), row.mac, poison),
            None => DramLine { poison, ..before },
        };
        self.change(at.line(), spot, before.poison, &after);
        let request = Request::Write { mask, data, source };
        self.out.traffic.push(Transaction { at, request, rule: row.rule, before, after });
    }
    /// The line that a whole-line write leaves behind.
    fn encrypt(
        &self,
        at: Tagged,
        plain: Bytes,
        (class, key): (Class, Key),
        mac: Option<bool>,
        poison: Option<BirthId>,
    ) -> DramLine {
        let td = class == Class::Private; // the state rule of §2.6
        let integrity = class != Class::Shared && self.m.spec.memory.integrity == IntegrityMode::Ci;
        DramLine {
            ct: Some(Cipher { plain, key, line: at.line(), flips: Default::default() }),
            td,
            mac: mac.unwrap_or(integrity).then_some(td),
            poison,
            writer: Some((at.keyid(), key)),
            tampered: false,
        }
    }
}

/// The caches.
impl Run<'_> {
    fn put(&mut self, at: Tagged, place: Place, copy: Copy) {
        let old = self.m.state.caches.insert((at, place), copy);
        self.moved(old.and_then(|c| c.poison), copy.poison);
    }
    fn take(&mut self, at: Tagged, place: Place) {
        let old = self.m.state.caches.remove(&(at, place));
        self.lost(old.and_then(|c| c.poison));
    }
    /// The copies of a (line, KeyID), to be changed; not their poison.
    fn all_mut(&mut self, at: Tagged) -> impl Iterator<Item = &mut Copy> {
        self.m.state.caches.alike_mut(at.word()).map(|(_, copy)| copy)
    }
    /// The core's own copy; or else where it would be, and some other.
    fn nearest(&self, core: u16, at: Tagged) -> Result<&Copy, (Spot, Option<&Copy>)> {
        let (mut spot, copies) = self.m.state.caches.alike_from(at.word());
        let mut other = None;
        for ((_, place), copy) in copies {
            match place.cmp(&Place::Core(core)) {
                Ordering::Equal => return Ok(copy),
                Ordering::Less => spot = spot.next(),
                Ordering::Greater => {}
            }
            other = other.or(Some(copy));
        }
        if self.m.spec.mutant(9) {
            let mut caches = self.m.state.caches.iter();
            let hit = |t: &Tagged, p: &Place| t.line() == at.line() && *p == Place::Core(core);
            if let Some((_, copy)) = caches.find(|((t, p), _)| hit(t, p)) {
                return Ok(copy);
            }
        }
        Err((spot, other))
    }

    /// The write to memory of a dirty copy.
    fn write_back(&mut self, at: Tagged, copy: &Copy) {
        if self.m.spec.mutant(1) {
            let old = self.m.dram(at.line()).td;
            self.write(at, copy.data, ByteMask::FULL, copy.poison);
            if let Some(line) = self.m.state.dram.get_mut(&at.line()) {
                line.td = old;
            }
        } else {
            self.write(at, copy.data, ByteMask::FULL, copy.poison);
        }
    }
    /// Writes a dirty copy to memory; it stays, clean.
    fn clean(&mut self, at: Tagged, place: Place, copy: &Copy) {
        if !copy.state.is_dirty() {
            return;
        }
        self.write_back(at, copy);
        if let Some(own) = self.m.state.caches.get_mut(&(at, place)) {
            own.state = Coherence::of(false, copy.state == Coherence::Modified);
        }
    }
    /// Drops a copy, written back if it is dirty; whether there was one.
    fn drop_copy(&mut self, at: Tagged, place: Place) -> bool {
        let copy = self.m.state.caches.remove(&(at, place));
        copy.is_some_and(|copy| {
            self.dropped(at, &copy);
            true
        })
    }
    /// A copy has been taken out of its cache.
    fn dropped(&mut self, at: Tagged, copy: &Copy) {
        if copy.state.is_dirty() {
            self.write_back(at, copy);
        }
        self.lost(copy.poison);
    }
    /// Writes back if dirty and drops every copy, in the whole coherence domain.
    fn expel(&mut self, at: Tagged) {
        while let Some((_, copy)) = self.m.state.caches.take_first(at.word()) {
            self.dropped(at, &copy);
        }
    }
    /// Drops every copy, dirty or not.
    fn discard(&mut self, at: Tagged) {
        while let Some((_, copy)) = self.m.state.caches.take_first(at.word()) {
            self.lost(copy.poison);
        }
    }
    /// The core gets a copy to read; returns it.
    fn share(&mut self, core: u16, at: Tagged) -> Copy {
        let (spot, other) = match self.nearest(core, at) {
            Ok(own) => return *own,
            Err(place) => place,
        };
        let copy = if let Some(&found) = other {
            if found.is_only() {
                for copy in self.all_mut(at) {
                    copy.state = Coherence::of(copy.state.is_dirty(), false);
                }
            }
            Copy { state: Coherence::Shared, ..found }
        } else {
            let (data, class, poison) = self.read(at);
            Copy { state: Coherence::Exclusive, data, class, poison }
        };
        self.m.state.caches.add(spot, (at, Place::Core(core)), copy);
        self.gained(copy.poison);
        copy
    }
    /// The core gets the only copy, to write: read for ownership. Returns its poison.
    fn own_exclusively(&mut self, core: u16, at: Tagged) -> Option<BirthId> {
        match self.unite(core, at) {
            Some(copy) => copy.poison,
            None => self.share(core, at).poison,
        }
    }
    /// Makes one copy of all, the core's, which is dirty if any was: its own, or else another's that moves to it.
    fn unite(&mut self, core: u16, at: Tagged) -> Option<&mut Copy> {
        let State { caches, births, died, .. } = &mut self.m.state;
        let mut dirty = false;
        let spot = caches.unite((at, Place::Core(core)), |other| {
            dirty |= other.state.is_dirty();
            lose(births, died, other.poison);
        })?;
        let copy = caches.at_mut(spot)?;
        copy.state = Coherence::of(dirty || copy.state.is_dirty(), true);
        Some(copy)
    }
    /// Stores into a line that the core owns exclusively. Only a store of all 64 bytes clears poison (MC-05,
    /// verification.md C12).
    fn store(&mut self, core: u16, at: Tagged, data: Bytes, mask: ByteMask) {
        self.store_visible(core, at, data, mask);
        self.between(false);
    }
    fn store_visible(&mut self, core: u16, at: Tagged, data: Bytes, mask: ByteMask) {
        let cured = mask.is_full() || self.m.spec.mutant(8);
        let mut old = None;
        let mut write = |copy: &mut Copy| {
            copy.state = Coherence::Modified;
            copy.data.merge(&data, mask);
            // As the controller will say once the copy has been written back: the line was written under this key.
            copy.class = DataClass::Plain;
            if cured {
                old = copy.poison.take();
            }
        };
        if let Some(copy) = self.unite(core, at) {
            write(copy);
        } else {
            self.share(core, at);
            self.unite(core, at).map(write);
        }
        self.lost(old);
        self.stores += 1;
    }
    /// Flushes every copy in a package that `chosen` picks.
    fn flush_all(&mut self, package: u8, keep: bool, chosen: &dyn Fn(Tagged) -> bool) {
        let mut last = None;
        loop {
            let spec = &self.m.spec;
            let here = |place: Place| match place {
                Place::Core(core) => spec.package_of(core) == package,
                Place::Llc(p) => p == package,
            };
            let caches = &self.m.state.caches;
            let mut rest = last.map_or(caches.iter(), |key| caches.from(&key));
            let next = rest.find(|(k, _)| Some(**k) != last && here(k.1) && chosen(k.0));
            let Some((&(at, place), &copy)) = next else { return };
            if keep {
                self.clean(at, place, &copy);
            } else {
                self.drop_copy(at, place);
            }
            last = Some((at, place));
        }
    }
}

/// Write-combining buffers and weakly ordered operations.
impl Run<'_> {
    fn add_pending(&mut self, core: u16, add: impl FnOnce(&mut Pending)) {
        let pending = &mut self.m.state.pending;
        if let Some(held) = pending.get_mut(&core) {
            add(held);
        } else {
            let mut new = Pending::default();
            add(&mut new);
            pending.insert(core, new);
        }
    }
    /// Takes something out that is there.
    fn take_pending<T>(&mut self, core: u16, take: impl FnOnce(&mut Pending) -> T) -> Option<T> {
        let held = self.m.state.pending.get_mut(&core)?;
        let taken = take(held);
        // Absent is empty: one state, one value.
        if held.is_empty() {
            self.m.state.pending.remove(&core);
        }
        Some(taken)
    }
    fn wc_leave(&mut self, core: u16, index: usize) {
        self.drain_fenced(core);
        let Some(buffer) = self.take_pending(core, |p| p.wc.remove(index)) else { return };
        self.expel(buffer.at); // §3 3.4 for direct stores; a bypassing store must not leave a stale copy either
        self.write(buffer.at, buffer.data, ByteMask(buffer.mask), None);
    }
    pub(super) fn drain_wc(&mut self, core: u16) {
        while self.m.state.pending.get(&core).is_some_and(|p| !p.wc.is_empty()) {
            self.wc_leave(core, 0);
        }
    }
    fn weak_complete(&mut self, core: u16, index: usize) {
        self.drain_fenced(core);
        let Some(weak) = self.take_pending(core, |p| p.weak.remove(index)) else { return };
        let at = weak.at;
        match weak.kind {
            WeakKind::Clwb => {
                let dirty = |m: &Reference| {
                    let found = m.copies(at).find(|(_, c)| c.state.is_dirty());
                    found.map(|(place, copy)| (place, *copy))
                };
                while let Some((place, copy)) = dirty(self.m) {
                    self.clean(at, place, &copy);
                }
            }
            WeakKind::Clflushopt => self.expel(at),
            WeakKind::Movdir64b | WeakKind::Movdiri => {
                if !self.m.spec.mutant(7) {
                    self.expel(at); // §3 3.4
                }
                let poison = self.m.dram(at.line()).poison;
                let source = poison.filter(|_| self.m.spec.mutant(6));
                self.write(at, weak.data, ByteMask(weak.mask), source);
            }
        }
    }
    fn drain_weak(&mut self, core: u16) {
        while self.m.state.pending.get(&core).is_some_and(|p| !p.weak.is_empty()) {
            self.weak_complete(core, 0);
        }
    }
    /// What MFENCE and locked or serialising operations complete.
    fn drain(&mut self, core: u16) {
        self.drain_stores(core);
        self.drain_bypassing(core);
    }
    /// What SFENCE completes: all that is not in order by itself.
    fn drain_bypassing(&mut self, core: u16) {
        self.drain_wc(core);
        self.drain_weak(core);
    }
    /// What an interrupt or a machine check sends off (MC-28, and the store buffer, which every event drains).
    pub(super) fn drain_at_event(&mut self, core: u16) {
        self.drain_stores(core);
        self.drain_wc(core);
    }
    /// An own access to a (line, KeyID): what the core has pending for it becomes visible first.
    fn own_access(&mut self, core: u16, at: Tagged) {
        if self.has_pending(core, at) {
            self.own_bypassing(core, at);
            self.drain_stores_to(core, |store| store.at == at);
        }
    }
    /// Whether the core has anything pending for a (line, KeyID).
    fn has_pending(&self, core: u16, at: Tagged) -> bool {
        self.m.state.pending.get(&core).is_some_and(|p| {
            p.wc.iter().any(|b| b.at == at)
                || p.weak.iter().any(|w| w.at == at)
                || p.stores.iter().any(|s| s.at == at)
        })
    }
    /// The part of it that is not in the store buffer.
    fn own_bypassing(&mut self, core: u16, at: Tagged) {
        let Some(held) = self.m.state.pending.get(&core) else { return };
        let (wc, weak) = (held.wc.iter().any(|b| b.at == at), held.weak.iter().any(|w| w.at == at));
        if wc {
            self.wc_of(core, at);
        }
        if weak {
            self.weak_of(core, at);
        }
    }
    fn wc_of(&mut self, core: u16, at: Tagged) {
        let held = self.m.state.pending.get(&core);
        if let Some(i) = held.and_then(|p| p.wc.iter().position(|b| b.at == at)) {
            self.wc_leave(core, i);
        }
    }
    fn weak_of(&mut self, core: u16, at: Tagged) {
        let held = self.m.state.pending.get(&core);
        if let Some(i) = held.and_then(|p| p.weak.iter().position(|w| w.at == at)) {
            self.weak_complete(core, i);
        }
    }
    fn weak(&mut self, core: u16, kind: WeakKind, at: Tagged, mask: ByteMask, data: Bytes) {
        self.own_access(core, at);
        self.add_pending(core, |p| p.weak.push(Weak { kind, at, mask: mask.0, data }));
    }
    fn wc_store(&mut self, core: u16, at: Tagged, mask: ByteMask, data: Bytes) {
        self.drain_stores_to(core, |store| store.at == at);
        self.weak_of(core, at);
        let limit = usize::from(self.m.spec.wc_buffers.max(1));
        let held = self.m.state.pending.get(&core);
        let there = |p: &Pending| p.wc.iter().any(|b| b.at == at);
        if held.is_some_and(|p| p.wc.len() >= limit && !there(p)) {
            self.wc_leave(core, 0); // MC-28: no free buffer, the oldest leaves
        }
        let (mut index, mut full) = (0, false);
        self.add_pending(core, |p| {
            index = p.wc.iter().position(|b| b.at == at).unwrap_or(p.wc.len());
            if index == p.wc.len() {
                p.wc.push(WcBuffer { at, mask: 0, data: Bytes::ZERO });
            }
            if let Some(buffer) = p.wc.get_mut(index) {
                buffer.data.merge(&data, mask);
                buffer.mask |= mask.0;
                full = ByteMask(buffer.mask).is_full();
            }
        });
        if full {
            self.wc_leave(core, index);
        }
    }
}

/// The store buffer of x86-TSO.
impl Run<'_> {
    fn buffered(&self, core: u16) -> &[Buffered] {
        self.m.buffered(core)
    }
    /// The oldest store becomes visible; whether there was one.
    fn store_leave(&mut self, core: u16) -> bool {
        if self.buffered(core).is_empty() {
            return false;
        }
        let oldest = |p: &mut Pending| {
            p.fenced = p.fenced.saturating_sub(1);
            p.stores.remove(0)
        };
        let Some(store) = self.take_pending(core, oldest) else { return false };
        // What the core has outside of the buffer for the line is older: anything younger has waited for the store.
        self.own_bypassing(core, store.at);
        self.store_visible(core, store.at, store.data, ByteMask(store.mask));
        true
    }
    fn drain_stores(&mut self, core: u16) {
        while self.store_leave(core) {}
    }
    /// Drains all stores up to the youngest that is meant.
    fn drain_stores_to(&mut self, core: u16, meant: impl Fn(&Buffered) -> bool) {
        let last = self.buffered(core).iter().rposition(meant);
        for _ in 0..last.map_or(0, |last| last + 1) {
            self.store_leave(core);
        }
    }
    /// What bypasses the buffer does not bypass what an SFENCE has put before it.
    fn drain_fenced(&mut self, core: u16) {
        while self.m.state.pending.get(&core).is_some_and(|p| p.fenced > 0) {
            self.store_leave(core);
        }
    }
    /// SFENCE: stores behind it become visible later than those before it.
    fn fence_stores(&mut self, core: u16) {
        self.drain_bypassing(core);
        if let Some(held) = self.m.state.pending.get_mut(&core) {
            held.fenced = held.stores.len() as u8;
        }
    }
    /// Whether ordinary stores wait.
    fn holds_stores(&self) -> bool {
        self.m.spec.store_buffer > 0 && !self.m.spec.rfo_poison_mc
    }
    /// A store waits to be seen by others.
    fn store_later(&mut self, core: u16, store: Buffered) {
        while self.buffered(core).len() >= usize::from(self.m.spec.store_buffer) {
            self.store_leave(core);
        }
        self.add_pending(core, |p| p.stores.push(store));
    }
    /// What a load of these bytes gets from the core's own stores: all of them, or nothing. A load that could get some only
    /// waits until these stores are visible.
    fn forwarded(&mut self, core: u16, at: Tagged, mask: ByteMask) -> Option<Bytes> {
        let (mut data, mut found) = (Bytes::ZERO, ByteMask::NONE);
        // Oldest first: the youngest store has the last word.
        for store in self.buffered(core).iter().filter(|s| s.at == at) {
            data.merge(&store.data, ByteMask(store.mask));
            found = ByteMask(found.0 | store.mask);
        }
        if found.0 & mask.0 == mask.0 && !mask.is_empty() {
            return Some(data);
        }
        self.drain_stores_to(core, |s| s.at == at && s.mask & mask.0 != 0);
        None
    }
}

/// Choices and operations.
impl Run<'_> {
    /// Does an operation, with choices before it, within it and after it.
    pub(super) fn issue(
        &mut self,
        who: Agent,
        core: u16,
        op: &Op,
        sub_block: &dyn Fn(Tagged) -> u32,
    ) -> Result<(), NotAllowed> {
        self.check(who, core, op)?;
        self.between(false);
        let seen = self.op(who, core, op, sub_block);
        self.done(core, seen);
        Ok(())
    }
    /// The same for what no operation spells.
    pub(super) fn act(
        &mut self,
        core: u16,
        what: impl FnOnce(&mut Self) -> Flow<()>,
    ) -> Result<(), NotAllowed> {
        self.core(core)?;
        self.between(false);
        let seen = what(self);
        self.done(core, seen);
        Ok(())
    }
    fn done(&mut self, core: u16, seen: Flow<()>) {
        if let Err(early) = seen {
            self.out.seen = early;
        }
        // A fault is an event. What a machine check sends off, it sends off when it is taken.
        if matches!(
            self.out.seen,
            Seen::PageFaultRsvd
                | Seen::GeneralProtection(_)
                | Seen::EptMisconfiguration
                | Seen::VirtualizationException
        ) {
            self.drain_stores(core);
        }
        self.between(true);
    }

    pub(super) fn store_bytes(
        &mut self,
        who: Agent,
        core: u16,
        at: Tagged,
        mask: ByteMask,
        data: &LineData,
        locked: bool,
    ) -> Flow<()> {
        self.form(who, &Addr::new(at.line().hpa(), at.keyid()))?;
        if locked {
            self.drain(core);
        }
        self.drain_stores(core); // it does not wait, and no store overtakes another
        self.own_access(core, at);
        let strict = self.m.spec.rfo_poison_mc;
        let had = strict && self.nearest(core, at).is_ok();
        let poison = self.own_exclusively(core, at);
        if locked || strict && !had {
            // A locked operation reads; of a store MC-30.
            self.consume(at, poison, McAccess::DataLoad)?;
        }
        self.between(false);
        self.store(core, at, Bytes::known(*data), mask);
        Ok(())
    }

    pub(super) fn direct(
        &mut self,
        who: Agent,
        core: u16,
        at: Tagged,
        lines: u32,
        data: &LineData,
    ) -> Flow<()> {
        self.form(who, &Addr::new(at.line().hpa(), at.keyid()))?;
        for i in 0..u64::from(lines) {
            let (line, data) = (at.offset(i), Bytes::known(*data));
            self.weak(core, WeakKind::Movdir64b, line, ByteMask::FULL, data);
            self.between(false);
        }
        Ok(())
    }

    pub(super) fn choose(&mut self, choice: Choice) -> Result<(), NotAllowed> {
        let s = &self.m.state;
        let copy = |place, at: Tagged| {
            s.caches.get(&(at, place)).copied().ok_or(NotAllowed::NoSuchCopy(place, at))
        };
        match choice {
            Choice::Evict(place, at) => {
                if !self.drop_copy(at, place) {
                    return Err(NotAllowed::NoSuchCopy(place, at));
                }
            }
            Choice::WriteBack(place, at) => {
                let found = copy(place, at)?;
                if !found.state.is_dirty() {
                    return Err(NotAllowed::NotDirty(place, at));
                }
                self.clean(at, place, &found);
            }
            Choice::ToLlc(core, at) => {
                let found = copy(Place::Core(core), at)?;
                let llc = Place::Llc(self.m.spec.package_of(core));
                let dirty = found.state.is_dirty()
                    || self.m.copies(at).any(|(p, c)| p == llc && c.state.is_dirty());
                let others =
                    self.m.copies(at).filter(|(p, _)| *p != llc && *p != Place::Core(core)).count();
                let state = Coherence::of(dirty, others == 0);
                self.put(at, llc, Copy { state, ..found });
                self.take(at, Place::Core(core));
            }
            Choice::WcLeave(core, at) => {
                let buffers = s.pending.get(&core).map(|p| p.wc.as_slice()).unwrap_or_default();
                let index = buffers.iter().position(|b| b.at == at);
                self.wc_leave(core, index.ok_or(NotAllowed::NoSuchBuffer(core, at))?);
            }
            Choice::WeakComplete(core, index) => {
                if s.pending.get(&core).is_none_or(|p| index >= p.weak.len()) {
                    return Err(NotAllowed::NoSuchWeakOp(core, index));
                }
                self.weak_complete(core, index);
            }
            Choice::StoreLeave(core) => {
                if !self.store_leave(core) {
                    return Err(NotAllowed::NoSuchStore(core));
                }
            }
            Choice::Prefetch(who, core, at) => {
                self.core(core)?;
                self.operand(at.line().hpa(), 64)?;
                if who == Agent::Device || self.fault(who, at.keyid()).is_some() {
                    return Err(NotAllowed::CannotForm(who, at.keyid()));
                }
                if s.caches.contains_key(&(at, Place::Core(core))) {
                    return Err(NotAllowed::AlreadyCached(core, at));
                }
                self.share(core, at);
            }
        }
        Ok(())
    }

    fn core(&self, core: u16) -> Result<(), NotAllowed> {
        if core < self.m.spec.cores { Ok(()) } else { Err(NotAllowed::NoSuchCore(core)) }
    }
    fn operand(&self, hpa: Hpa, bytes: u32) -> Result<(), NotAllowed> {
        let end = 1u64 << self.m.spec.keyid.address_bits().min(52);
        if hpa.0 < end && u64::from(bytes) <= end - hpa.0 {
            Ok(())
        } else {
            Err(NotAllowed::Operand)
        }
    }

    /// Whether the operation can be asked for at all.
    pub(super) fn check(&self, who: Agent, core: u16, op: &Op) -> Result<(), NotAllowed> {
        let sized = |at: &Addr, bytes: u32, max: u32| {
            if !(1..=max).contains(&bytes) {
                return Err(NotAllowed::Operand);
            }
            if at.keyid.0 > self.m.spec.keyid.keyid_max() {
                return Err(NotAllowed::Operand);
            }
            self.operand(at.hpa, bytes)
        };
        let (mut dma, mut physical) = (false, false);
        match op {
            Op::Load { at, bytes, .. } | Op::Store { at, bytes, .. } => sized(at, *bytes, 64)?,
            Op::NtStore { at, bytes, .. } => sized(at, *bytes, 64)?,
            Op::Movdiri { at, bytes, .. } | Op::LockXadd { at, bytes, .. } => {
                sized(at, *bytes, 8)?;
            }
            Op::RepStosb { at, bytes, .. } => sized(at, *bytes, 1 << 20)?,
            Op::Movdir64b { dst, src } => {
                sized(dst, 64, 64)?;
                if let Source::Mem(at) = src {
                    sized(at, 64, 64)?;
                }
            }
            Op::Movdir64bPage { at } => sized(at, 4096, 4096)?,
            Op::Fetch { at }
            | Op::Prefetch { at }
            | Op::Clflush { at }
            | Op::Clflushopt { at }
            | Op::Clwb { at } => sized(at, 1, 1)?,
            Op::DmaRead { at, bytes } | Op::DmaWrite { at, bytes, .. } => {
                dma = true;
                sized(at, *bytes, 4096)?;
            }
            Op::Wbinvd
            | Op::Wbnoinvd
            | Op::Pconfig { .. }
            | Op::Wbinvdp { .. }
            | Op::Wbnoinvdp { .. } => {}
            Op::Mfence | Op::Sfence | Op::Lfence | Op::Interrupt | Op::Delay { .. } => {}
            Op::Evict { at } | Op::WriteBack { at } | Op::FlipTd { at } | Op::InjectUe { at } => {
                physical = true;
                sized(at, 1, 1)?;
            }
            Op::WcEvict { core } => {
                physical = true;
                self.core(u16::try_from(*core).unwrap_or(u16::MAX))?;
            }
            Op::Drain { core, at } => {
                physical = true;
                self.core(u16::try_from(*core).unwrap_or(u16::MAX))?;
                sized(at, 1, 1)?;
            }
            Op::FlipBit { at, bit } => {
                physical = true;
                sized(at, 1, 1)?;
                if *bit >= 512 {
                    return Err(NotAllowed::Operand);
                }
            }
            Op::MoveLine { from, to } => {
                physical = true;
                sized(from, 1, 1)?;
                sized(to, 1, 1)?;
            }
            Op::SaveLine { at, slot } | Op::ReplayLine { slot, at } => {
                physical = true;
                sized(at, 1, 1)?;
                if *slot >= 16 {
                    return Err(NotAllowed::Operand);
                }
            }
            Op::Seamcall { .. }
            | Op::Tdcall { .. }
            | Op::Irq { .. }
            | Op::Wrmsr { .. }
            | Op::Starve { .. }
            | Op::MovCr3 { .. }
            | Op::SeamldrInstall
            | Op::Invlpg { .. } => return Err(NotAllowed::NotModelled),
        }
        if physical || matches!(op, Op::Delay { .. }) {
            return Ok(());
        }
        let privileged = matches!(op, Op::Wbinvd | Op::Wbnoinvd | Op::Pconfig { .. });
        if dma != (who == Agent::Device) || privileged && who == Agent::Guest {
            return Err(NotAllowed::WrongAgent(who));
        }
        if dma { Ok(()) } else { self.core(core) }
    }

    /// What an access with a KeyID that the agent cannot form meets (architecture.md §2.5).
    fn fault(&self, who: Agent, keyid: KeyId) -> Option<Seen> {
        if !self.m.spec.keyid.is_private(keyid) {
            return None;
        }
        match who {
            Agent::SeamRoot => None,
            Agent::Td(hkid) if hkid == keyid => None,
            Agent::Td(_) | Agent::Guest => Some(Seen::EptMisconfiguration),
            Agent::Kernel | Agent::User => Some(Seen::PageFaultRsvd),
            Agent::Device => Some(Seen::DmaAbort),
        }
    }
    /// What an instruction for ring 0 meets elsewhere (architecture.md §4.4, row WBINVD).
    fn privileged(&self, who: Agent) -> Flow<()> {
        match who {
            Agent::User => Err(Seen::GeneralProtection(GpReason::Privilege)),
            Agent::Td(_) => Err(Seen::VirtualizationException),
            _ => Ok(()),
        }
    }
    fn form(&self, who: Agent, at: &Addr) -> Flow<()> {
        self.fault(who, at.keyid).map_or(Ok(()), Err)
    }

    /// An access that retires: consumes poison.
    fn consume(&self, at: Tagged, poison: Option<BirthId>, access: McAccess) -> Flow<()> {
        match poison {
            Some(birth) => Err(Seen::MachineCheck { access, at, birth }),
            None => Ok(()),
        }
    }
    /// A retired load. All its lines are accessed before it retires, so a poisoned line does not keep the others from
    /// being read; #MC is raised when it retires (MC-06), for the poisoned line with the lowest address.
    fn load(&mut self, core: u16, at: Addr, bytes: u32, ty: MemType) -> Flow<(Bytes, DataClass)> {
        let (mut data, mut class) = (Bytes::ZERO, DataClass::Plain);
        let mut consumed = Ok(());
        if ty == MemType::Uc {
            self.drain_stores(core);
        }
        for (tag, offset, len, skip) in spans(at, bytes) {
            let moved = |line: &Bytes| line.moved(offset, len, skip);
            let (part, line_class, poison) = if ty == MemType::Wb {
                let pending = self.has_pending(core, tag);
                if pending {
                    self.own_bypassing(core, tag);
                }
                let mask = ByteMask::span(offset, len);
                if let Some(own) = pending.then(|| self.forwarded(core, tag, mask)).flatten() {
                    // It does not look at the line: neither its class nor its poison is met.
                    (moved(&own), DataClass::Plain, None)
                } else {
                    let copy = self.share(core, tag);
                    (moved(&copy.data), copy.class, copy.poison)
                }
            } else {
                self.own_access(core, tag);
                self.expel(tag);
                let (line, class, poison) = self.read(tag);
                (moved(&line), class, poison)
            };
            consumed = consumed.and(self.consume(tag, poison, McAccess::DataLoad));
            if len == bytes as usize {
                data = part; // all in one line
            } else {
                data.merge(&part, ByteMask::span(skip, len));
            }
            class = class.max(line_class);
            self.between(false);
        }
        consumed.map(|()| (data, class))
    }
    /// A write-back store. All lines are owned before the first is written: a machine check leaves none half done.
    fn store_wb(&mut self, core: u16, at: Addr, bytes: u32, value: Value) -> Flow<()> {
        let mut consumed = Ok(());
        for (tag, ..) in spans(at, bytes) {
            self.own_access(core, tag);
            let strict = self.m.spec.rfo_poison_mc;
            let had = strict && self.nearest(core, tag).is_ok();
            let poison = self.own_exclusively(core, tag);
            if strict && !had {
                // MC-30
                consumed = consumed.and(self.consume(tag, poison, McAccess::DataLoad));
            }
            self.between(false);
        }
        consumed?;
        for (tag, offset, len, skip) in spans(at, bytes) {
            let data = Bytes::known(value.line(skip, offset));
            self.store(core, tag, data, ByteMask::span(offset, len));
        }
        Ok(())
    }

    pub(super) fn op(
        &mut self,
        who: Agent,
        core: u16,
        op: &Op,
        sub_block: &dyn Fn(Tagged) -> u32,
    ) -> Flow<()> {
        match op {
            Op::Load { at, bytes, ty } => {
                self.form(who, at)?;
                let (data, class) = self.load(core, *at, *bytes, *ty)?;
                self.out.seen = Seen::Data { data, bytes: *bytes, class };
            }
            Op::Fetch { at } => {
                self.form(who, at)?;
                if matches!(who, Agent::Td(hkid) if hkid != at.keyid) {
                    // A fetch from a shared GPA is a #PF (§2.5). The vocabulary has only this one.
                    return Err(Seen::PageFaultRsvd);
                }
                self.own_access(core, at.tagged());
                let copy = self.share(core, at.tagged());
                self.consume(at.tagged(), copy.poison, McAccess::Fetch)?;
            }
            Op::Prefetch { at } => {
                // A prefetch that cannot be translated is dropped; it never faults.
                if self.fault(who, at.keyid).is_none() {
                    self.share(core, at.tagged());
                }
            }
            Op::Store { at, bytes, value, ty } => {
                self.form(who, at)?;
                if *ty == MemType::Wb {
                    if self.holds_stores() {
                        for (tag, offset, len, skip) in spans(*at, *bytes) {
                            let data = Bytes::known(value.line(skip, offset));
                            let mask = ByteMask::span(offset, len).0;
                            self.store_later(core, Buffered { at: tag, mask, data });
                        }
                    } else {
                        self.store_wb(core, *at, *bytes, *value)?;
                    }
                    return Ok(());
                }
                if *ty == MemType::Uc {
                    self.drain_stores(core);
                }
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    let mask = ByteMask::span(offset, len);
                    if *ty == MemType::Wc {
                        self.wc_store(core, tag, mask, data);
                    } else {
                        self.own_access(core, tag);
                        self.expel(tag);
                        self.write(tag, data, mask, None);
                    }
                    self.between(false);
                }
            }
            Op::NtStore { at, bytes, value } => {
                if *bytes > 8 && !at.hpa.0.is_multiple_of(u64::from(*bytes)) {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    self.wc_store(core, tag, ByteMask::span(offset, len), data);
                    self.between(false);
                }
            }
            Op::Movdiri { at, bytes, value } => {
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    self.weak(core, WeakKind::Movdiri, tag, ByteMask::span(offset, len), data);
                    self.between(false);
                }
            }
            Op::Movdir64b { dst, src } => {
                if dst.hpa.offset_in_line() != 0 {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, dst)?;
                let data = match src {
                    Source::Fill(byte) => Bytes::known(LineData::filled(*byte)),
                    Source::Mem(from) => {
                        self.form(who, from)?;
                        self.load(core, *from, 64, MemType::Wb)?.0
                    }
                };
                self.weak(core, WeakKind::Movdir64b, dst.tagged(), ByteMask::FULL, data);
            }
            Op::Movdir64bPage { at } => {
                if !at.hpa.0.is_multiple_of(4096) {
                    return Err(Seen::GeneralProtection(GpReason::Misaligned));
                }
                self.form(who, at)?;
                for (tag, ..) in spans(*at, 4096) {
                    self.weak(core, WeakKind::Movdir64b, tag, ByteMask::FULL, Bytes::ZERO);
                    self.between(false);
                }
            }
            Op::RepStosb { at, bytes, value } => {
                self.form(who, at)?;
                self.drain_stores(core); // its stores are visible at once, and do not overtake
                for (tag, offset, len, _) in spans(*at, *bytes) {
                    let part = Addr::new(Hpa(tag.line().hpa().0 + offset as u64), tag.keyid());
                    if len == 64 && self.m.spec.fast_string_no_rfo {
                        self.own_access(core, tag);
                        self.own_unread(core, tag, Bytes::known(LineData::filled(*value)));
                    } else {
                        self.store_wb(core, part, len as u32, Value::Fill(*value))?;
                    }
                }
            }
            Op::LockXadd { at, bytes, value } => {
                self.form(who, at)?;
                self.drain(core);
                let (old, class) = self.load(core, *at, *bytes, MemType::Wb)?;
                let mut word = [0u8; 8];
                for (i, byte) in word.iter_mut().enumerate().take(*bytes as usize) {
                    *byte = old.data().byte(i);
                }
                let sum = u64::from_le_bytes(word).wrapping_add(*value);
                let width = ByteMask::span(0, *bytes as usize).0;
                let sum = if old.unknown().0 & width == 0 {
                    Bytes::known(Value::Num(sum).line(0, 0))
                } else {
                    Bytes::UNKNOWN
                };
                if self.m.spec.rfo_poison_mc {
                    // As any store with MC-30: all lines are owned before the first is written.
                    for (tag, ..) in spans(*at, *bytes) {
                        let had = self.nearest(core, tag).is_ok();
                        let poison = self.own_exclusively(core, tag);
                        if !had {
                            self.consume(tag, poison, McAccess::DataLoad)?;
                        }
                        self.between(false);
                    }
                }
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = sum.moved(skip, len, offset);
                    self.store(core, tag, data, ByteMask::span(offset, len));
                }
                self.out.seen = Seen::Data { data: old, bytes: *bytes, class };
            }
            Op::Clflush { at } => {
                self.form(who, at)?;
                self.drain_stores(core); // it is ordered with all stores
                self.own_access(core, at.tagged());
                self.expel(at.tagged());
                if self.m.spec.mutant(10) {
                    let tags: Vec<_> = self.m.state.caches.keys().map(|(t, _)| *t).collect();
                    for tag in tags.into_iter().filter(|t| t.line() == at.hpa.line()) {
                        self.expel(tag);
                    }
                }
            }
            Op::Clflushopt { at } | Op::Clwb { at } => {
                self.form(who, at)?;
                let opt = matches!(op, Op::Clflushopt { .. });
                let kind = if opt { WeakKind::Clflushopt } else { WeakKind::Clwb };
                self.weak(core, kind, at.tagged(), ByteMask::NONE, Bytes::ZERO);
            }
            Op::Wbinvd | Op::Wbnoinvd => {
                self.privileged(who)?;
                self.drain(core);
                let keep = *op == Op::Wbnoinvd;
                self.flush_all(self.m.spec.package_of(core), keep, &|_| true);
            }
            Op::Wbinvdp { block } | Op::Wbnoinvdp { block } => {
                if matches!(who, Agent::Td(_)) {
                    // A TD is not outside SEAM (4.1.10), but neither may it flush: as its WBINVD (§4.4).
                    return Err(Seen::VirtualizationException);
                }
                if who != Agent::SeamRoot {
                    return Err(Seen::GeneralProtection(GpReason::NotInSeam));
                }
                if *block >= self.m.spec.flush_sub_blocks {
                    return Err(Seen::GeneralProtection(GpReason::NoSuchSubBlock));
                }
                self.drain(core);
                let keep = matches!(op, Op::Wbnoinvdp { .. });
                let package = self.m.spec.package_of(core);
                self.flush_all(package, keep, &|at| sub_block(at) == *block);
            }
            Op::Mfence => self.drain(core),
            Op::Sfence => self.fence_stores(core),
            Op::Lfence | Op::Delay { .. } => {}
            Op::Interrupt => self.drain_at_event(core),
            Op::Pconfig { keyid, cmd, alg } => {
                self.privileged(who)?;
                self.out.seen = Seen::Pconfig(self.pconfig(who, core, *keyid, *cmd, *alg));
            }
            Op::DmaRead { at, bytes } => {
                self.form(who, at)?;
                let (mut data, mut class) = (Bytes::ZERO, DataClass::Plain);
                let mut poisoned = None;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let cached =
                        self.m.copies(tag).next().map(|(_, c)| (c.data, c.class, c.poison));
                    let (line, line_class, poison) = match cached {
                        Some(copy) => copy,
                        None => self.read(tag),
                    };
                    // Each line is a request of its own; the device gets the first line's error.
                    poisoned = poisoned.or(poison);
                    data.merge(&line.moved(offset, len, skip), ByteMask::span(skip, len));
                    class = class.max(line_class);
                    self.between(false);
                }
                if let Some(birth) = poisoned {
                    return Err(Seen::DmaPoison(birth)); // MC-13
                }
                self.out.seen = Seen::Data { data, bytes: *bytes, class };
            }
            Op::DmaWrite { at, bytes, value } => {
                self.form(who, at)?;
                for (tag, offset, len, skip) in spans(*at, *bytes) {
                    let data = Bytes::known(value.line(skip, offset));
                    let mask = ByteMask::span(offset, len);
                    if mask.is_full() {
                        // Nothing of a copy outlives a whole-line write (MC-13): it need not be written back first.
                        self.discard(tag);
                    } else {
                        self.expel(tag);
                    }
                    self.write(tag, data, mask, None);
                    self.between(false);
                }
            }
            Op::Evict { at } => self.expel(at.tagged()),
            Op::WriteBack { at } => {
                // At most one copy is dirty (C1).
                let found = self.m.copies(at.tagged()).find(|(_, c)| c.state.is_dirty());
                if let Some((place, copy)) = found.map(|(place, copy)| (place, *copy)) {
                    self.clean(at.tagged(), place, &copy);
                }
            }
            Op::Drain { core, at } => self.own_bypassing(*core as u16, at.tagged()),
            Op::WcEvict { core } => {
                let core = *core as u16;
                if self.m.state.pending.get(&core).is_some_and(|p| !p.wc.is_empty()) {
                    self.wc_leave(core, 0);
                }
            }
            _ => self.tamper(op),
        }
        Ok(())
    }

    /// Ownership of a whole line without reading it (MC-29).
    fn own_unread(&mut self, core: u16, at: Tagged, data: Bytes) {
        self.discard(at);
        let state = Coherence::Modified;
        let copy = Copy { state, data, class: DataClass::Plain, poison: None };
        self.put(at, Place::Core(core), copy);
        self.stores += 1;
        self.between(false);
    }

    /// PCONFIG (architecture.md §8, §1.3). It touches neither caches nor memory (§4.1 4.1.5).
    fn pconfig(
        &mut self,
        who: Agent,
        core: u16,
        keyid: KeyId,
        cmd: PconfigCmd,
        alg: Option<KeyAlg>,
    ) -> PconfigStatus {
        let spec = self.m.spec;
        let private = spec.keyid.is_private(keyid);
        let seam = who == Agent::SeamRoot;
        if keyid == KeyId::TME || !spec.keyid.is_configured(keyid) || private && !seam {
            return PconfigStatus::InvalidKeyId;
        }
        let ci = spec.memory.integrity == IntegrityMode::Ci;
        let wide = matches!(alg, Some(KeyAlg::Xts256 | KeyAlg::Xts256Integrity));
        let integrity = alg.map_or(private, KeyAlg::has_integrity);
        if alg.is_some() && (integrity && !ci || wide && spec.memory.xts == XtsWidth::Xts128) {
            return PconfigStatus::InvalidAlgorithm;
        }
        let width = match alg {
            None => spec.memory.xts,
            Some(_) if wide => XtsWidth::Xts256,
            Some(_) => XtsWidth::Xts128,
        };
        let key = match cmd {
            PconfigCmd::SetDirect(number) => Key::Direct(number, width),
            PconfigCmd::SetRandom => {
                self.m.state.drawn += 1;
                Key::Random(self.m.state.drawn)
            }
            PconfigCmd::ClearKey => Key::Tme,
            PconfigCmd::NoEncrypt => Key::None,
        };
        let set = matches!(cmd, PconfigCmd::SetDirect(_) | PconfigCmd::SetRandom);
        let slot = KeySlot { key, integrity: ci && (private || integrity && set) };
        self.m.state.keys.insert((spec.package_of(core), keyid), slot);
        PconfigStatus::Ok
    }

    /// Physical faults and attacks: on the stored line, whatever KeyID the text names (architecture.md §1.2 1.2.4).
    fn tamper(&mut self, op: &Op) {
        match op {
            Op::FlipBit { at, bit } => {
                let mut line = self.m.dram(at.hpa.line());
                if let Some(ct) = &mut line.ct {
                    ct.flips.flip(*bit as u16);
                }
                line.tampered = true;
                self.set_dram(at.hpa.line(), line);
            }
            Op::FlipTd { at } => {
                let line = self.m.dram(at.hpa.line());
                let flipped = DramLine { td: !line.td, tampered: true, ..line };
                self.set_dram(at.hpa.line(), flipped);
            }
            Op::MoveLine { from, to } => {
                let source = self.m.dram(from.hpa.line());
                self.overlay(to.hpa.line(), source);
            }
            Op::SaveLine { at, slot } => {
                // What is on the bus; who wrote the line is the reference's own memory.
                let DramLine { ct, td, mac, .. } = self.m.dram(at.hpa.line());
                let line = DramLine { ct, td, mac, ..DramLine::default() };
                self.m.state.saved.insert(*slot, line);
            }
            Op::ReplayLine { slot, at } => {
                if let Some(source) = self.m.state.saved.get(slot).copied() {
                    self.overlay(at.hpa.line(), source);
                }
            }
            Op::InjectUe { at } => {
                let line = self.m.dram(at.hpa.line());
                let old = line.poison;
                let new =
                    old.unwrap_or_else(|| self.born(at.tagged(), BirthCause::UncorrectableError));
                self.set_dram(at.hpa.line(), DramLine { poison: Some(new), ..line });
            }
            _ => {}
        }
    }
    /// Puts ciphertext, TD bit and MAC of one line over another's; poison indication and writer stay.
    fn overlay(&mut self, line: Line, source: DramLine) {
        let old = self.m.dram(line);
        let DramLine { ct, td, mac, .. } = source;
        self.set_dram(line, DramLine { ct, td, mac, tampered: true, ..old });
    }
}
