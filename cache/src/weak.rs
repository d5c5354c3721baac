//! Write-combining buffers, direct stores, uncached accesses, line flushes and fences.

use crate::buffers::{Entry, WcBuffer, WeakOp};
use crate::flushes::{FlushKind, flush_row};
use crate::hierarchy::{Drained, FenceKind, Hierarchy};
use crate::stats::count;
use crate::transaction::Transaction;
use sim_core::event::{WeakKind, Why};
use sim_core::planted::Fault;
use sim_core::port::{Fill, LinePort};
use sim_core::{ByteMask, EventKind, KeyId, LINES_PER_PAGE, LineData, Page, Ps, Tagged};

impl Hierarchy {
    /// A non-temporal store, or a store through a WC mapping, of the bytes in `mask`. They wait in a buffer; 64 bytes
    /// leave at once as one whole-line write, less leave as a partial write when one of the triggers of
    /// architecture.md §13 MC-28 comes.
    pub fn wc_store<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        now: Ps,
        port: &mut P,
    ) {
        if mask.is_empty() {
            return;
        }
        let c = self.core_index(core);
        // Stores of one core to one line keep their order: an older direct store goes first.
        while let Some(i) = self.cores.at(c).waiting.weak.iter().position(|w| w.at == at) {
            self.finish(c, Entry::Weak(i), Why::OwnAccess, port);
        }
        let cause = port.trace().cause;
        let waiting = &self.cores.at(c).waiting;
        let open = waiting.wc.iter().position(|b| b.at == at);
        if open.is_none() && waiting.wc.len() >= usize::from(self.wc_buffers) {
            self.finish(c, Entry::Wc(0), Why::Capacity, port);
        }
        let waiting = &mut self.cores.at_mut(c).waiting;
        let i = match open {
            Some(i) => i,
            None => {
                let order = waiting.take_order();
                let (data, mask) = (LineData::ZERO, ByteMask::NONE);
                waiting.wc.push_back(WcBuffer { at, data, mask, opened: now, order, cause });
                waiting.wc.len() - 1
            }
        };
        let Some(buffer) = waiting.wc.get_mut(i) else { return };
        buffer.data.merge(data, mask);
        buffer.mask = buffer.mask.union(mask);
        buffer.cause = cause;
        if buffer.mask.is_full() {
            self.finish(c, Entry::Wc(i), Why::Full, port);
        }
    }

    /// An uncached load: own-KeyID copies are written back and invalidated, then the controller is asked.
    pub fn uc_load<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) -> Fill {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        count(&mut self.stats.uc_loads);
        self.stats.transaction(Transaction::UCRdF);
        self.expel(at, Why::Bypass, true, port);
        port.read(at)
    }

    /// An uncached store: own-KeyID copies are written back and invalidated, then the bytes go to the controller, as a
    /// partial write unless `mask` is full (architecture.md §5 5.3).
    pub fn uc_store<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        port: &mut P,
    ) {
        if mask.is_empty() {
            return;
        }
        let c = self.core_index(core);
        self.own_access(c, at, port);
        count(&mut self.stats.uc_stores);
        self.stats.transaction(Transaction::WiL);
        self.expel(at, Why::Bypass, true, port);
        write_through(at, data, mask, port);
    }

    /// MOVDIR64B: becomes visible later (architecture.md §3 3.5); then own-KeyID copies are written back and
    /// invalidated, and 64 bytes are written. Other KeyIDs' copies stay as they are (§13 MC-11).
    pub fn movdir64b<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        now: Ps,
        port: &mut P,
    ) {
        self.post(core, at, WeakKind::Movdir64b, data, ByteMask::FULL, now, port);
    }

    /// Makes way for 64 whole-line writes to a page that bypass the caches: what the core has waiting for its lines goes
    /// first, then own-KeyID copies are written back if modified and invalidated everywhere (architecture.md §3 3.4).
    pub fn bypass_page<P: LinePort>(&mut self, core: u16, page: Page, keyid: KeyId, port: &mut P) {
        let c = self.core_index(core);
        for index in 0..LINES_PER_PAGE {
            let at = Tagged::new(page.line(index), keyid);
            self.own_access(c, at, port);
            self.expel(at, Why::Bypass, true, port);
        }
    }

    /// MOVDIRI: as MOVDIR64B, but 4 or 8 bytes: a partial write at the controller (architecture.md §3 3.8).
    pub fn movdiri<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        now: Ps,
        port: &mut P,
    ) {
        if !mask.is_empty() {
            self.post(core, at, WeakKind::Movdiri, data, mask, now, port);
        }
    }

    /// CLFLUSH: the (line, KeyID) leaves every cache of every package, written back if modified, at once
    /// (architecture.md §4.1 4.1.8). What the core itself has waiting for the line goes first.
    pub fn clflush<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        self.flush_line(at, FlushKind::Clflush, port);
        if self.planted.is(Fault::ClflushTakesAllKeyIds) {
            while let Some(slot) = self.slab.any_of(at.line(), |_| true) {
                self.expel(self.slab.get(slot).tag, Why::Flush, true, port);
            }
        }
    }

    /// CLFLUSHOPT: as CLFLUSH, but weakly ordered.
    pub fn clflushopt<P: LinePort>(&mut self, core: u16, at: Tagged, now: Ps, port: &mut P) {
        self.post(core, at, WeakKind::Clflushopt, &LineData::ZERO, ByteMask::NONE, now, port);
    }

    /// CLWB: written back if modified, copies kept clean; weakly ordered.
    pub fn clwb<P: LinePort>(&mut self, core: u16, at: Tagged, now: Ps, port: &mut P) {
        self.post(core, at, WeakKind::Clwb, &LineData::ZERO, ByteMask::NONE, now, port);
    }

    /// A fence. MFENCE, SFENCE and locked or serialising operations make everything leave that waits in the core,
    /// oldest first; LFENCE nothing.
    pub fn fence<P: LinePort>(&mut self, core: u16, kind: FenceKind, port: &mut P) -> Drained {
        match kind {
            FenceKind::Lfence => Drained::default(),
            FenceKind::Mfence | FenceKind::Sfence | FenceKind::Locked => {
                self.drain(core, Why::Fence, port)
            }
        }
    }

    /// An interrupt or a machine check: the core's write-combining buffers leave, oldest first (architecture.md §13 MC-28).
    /// Weakly ordered operations wait on: the row does not name them, so nobody may rely on it.
    pub fn interrupt<P: LinePort>(&mut self, core: u16, port: &mut P) -> Drained {
        let c = self.core_index(core);
        let mut drained = Drained::default();
        while !self.cores.at(c).waiting.wc.is_empty() {
            drained.count(Entry::Wc(0));
            self.finish(c, Entry::Wc(0), Why::Interrupt, port);
        }
        drained
    }

    /// The hardware's choice: the core's oldest write-combining buffer leaves. Returns whether there was one.
    pub fn wc_evict<P: LinePort>(&mut self, core: u16, port: &mut P) -> bool {
        let c = self.core_index(core);
        let any = !self.cores.at(c).waiting.wc.is_empty();
        self.finish(c, Entry::Wc(0), Why::Chosen, port);
        any
    }

    /// The hardware's choice: what the core has waiting for the line becomes visible, oldest first.
    pub fn drain_line<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) {
        let c = self.core_index(core);
        while let Some(entry) = self.cores.at(c).waiting.oldest_at(at) {
            self.finish(c, entry, Why::Chosen, port);
        }
    }

    /// The hardware's choice: the line's modified copy is written to memory and stays, clean.
    pub fn write_back_line<P: LinePort>(&mut self, at: Tagged, port: &mut P) {
        if let Some(slot) = self.slab.find(at)
            && self.slab.get(slot).is_dirty()
        {
            self.write_back(slot, Why::Chosen, true, port);
        }
    }

    /// Everything leaves that time alone makes leave by `now`: weak operations after `weak_wait`, write-combining
    /// buffers after `wc_age` if that is set.
    pub fn drain_due<P: LinePort>(&mut self, core: u16, now: Ps, port: &mut P) -> Drained {
        let c = self.core_index(core);
        let mut drained = Drained::default();
        while let Some(entry) = self.cores.at(c).waiting.first_due(self.wc_age, now) {
            drained.count(entry);
            self.finish(c, entry, Why::Time, port);
        }
        drained
    }

    /// When [`Hierarchy::drain_due`] next has something to do for this core.
    pub fn next_due(&self, core: u16) -> Option<Ps> {
        self.cores.at(self.core_index(core)).waiting.next_due(self.wc_age)
    }

    /// The core's write-combining buffers, oldest first.
    pub fn wc_buffers(&self, core: u16) -> impl Iterator<Item = &WcBuffer> {
        self.cores.at(self.core_index(core)).waiting.wc.iter()
    }

    /// The core's weakly ordered operations, oldest first.
    pub fn weak_ops(&self, core: u16) -> impl Iterator<Item = &WeakOp> {
        self.cores.at(self.core_index(core)).waiting.weak.iter()
    }

    /// Whatever the core has waiting for the line leaves, oldest first: an access of a core sees its own stores
    /// (architecture.md §13 MC-28).
    #[inline]
    pub(crate) fn own_access<P: LinePort>(&mut self, c: usize, at: Tagged, port: &mut P) {
        if !self.cores.at(c).waiting.is_empty() {
            self.leave_before_own_access(c, at, port);
        }
    }

    #[inline(never)]
    fn leave_before_own_access<P: LinePort>(&mut self, c: usize, at: Tagged, port: &mut P) {
        while let Some(entry) = self.cores.at(c).waiting.oldest_at(at) {
            self.finish(c, entry, Why::OwnAccess, port);
        }
    }

    fn drain<P: LinePort>(&mut self, core: u16, why: Why, port: &mut P) -> Drained {
        let c = self.core_index(core);
        let mut drained = Drained::default();
        // As it is at most fences.
        if self.cores.at(c).waiting.is_empty() {
            return drained;
        }
        while let Some(entry) = self.cores.at(c).waiting.oldest() {
            drained.count(entry);
            self.finish(c, entry, why, port);
        }
        drained
    }

    /// Queues a weakly ordered operation; when the queue is full the oldest takes effect.
    #[allow(clippy::too_many_arguments, reason = "the parts of one queue entry")]
    fn post<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        kind: WeakKind,
        data: &LineData,
        mask: ByteMask,
        now: Ps,
        port: &mut P,
    ) {
        let c = self.core_index(core);
        // A buffer for the same line holds older stores of this core, and a direct store is not combined with younger ones
        // (architecture.md §3 3.5): what waits for the line goes first.
        self.own_access(c, at, port);
        if self.cores.at(c).waiting.weak.len() >= usize::from(self.weak_slots) {
            self.finish(c, Entry::Weak(0), Why::Capacity, port);
        }
        let cause = port.trace().cause;
        let due = now + self.weak_wait;
        let waiting = &mut self.cores.at_mut(c).waiting;
        let order = waiting.take_order();
        waiting.weak.push_back(WeakOp { at, kind, data: *data, mask, due, order, cause });
    }

    /// One waiting entry takes effect. Its cause is the operation that made it; `why` says what made it leave.
    fn finish<P: LinePort>(&mut self, c: usize, entry: Entry, why: Why, port: &mut P) {
        let core = c as u16;
        let waiting = &mut self.cores.at_mut(c).waiting;
        let outer = port.trace().cause;
        match entry {
            Entry::Wc(i) => {
                let Some(WcBuffer { at, data, mask, cause, .. }) = waiting.wc.remove(i) else {
                    return;
                };
                if mask.is_full() {
                    count(&mut self.stats.wc_full);
                    self.stats.transaction(Transaction::WCiLF);
                } else {
                    count(&mut self.stats.wc_partial);
                    self.stats.transaction(Transaction::WCiL);
                }
                port.trace().cause = cause;
                port.trace().emit_cause(EventKind::WcLeave { core, at, mask, why });
                self.expel(at, Why::Bypass, true, port);
                write_through(at, &data, mask, port);
            }
            Entry::Weak(i) => {
                let Some(WeakOp { at, kind, data, mask, cause, .. }) = waiting.weak.remove(i)
                else {
                    return;
                };
                port.trace().cause = cause;
                port.trace().emit_cause(EventKind::WeakDone { core, at, kind, why });
                match kind {
                    WeakKind::Movdir64b => {
                        count(&mut self.stats.movdir64b);
                        self.stats.transaction(Transaction::WCiLF);
                        if !self.planted.is(Fault::Movdir64bKeepsCopies) {
                            self.expel(at, Why::Bypass, true, port);
                        }
                        port.write(at, &data, None);
                    }
                    WeakKind::Movdiri => {
                        count(&mut self.stats.movdiri);
                        self.stats.transaction(Transaction::WCiL);
                        self.expel(at, Why::Bypass, true, port);
                        write_through(at, &data, mask, port);
                    }
                    WeakKind::Clflushopt => self.flush_line(at, FlushKind::Clflushopt, port),
                    WeakKind::Clwb => self.flush_line(at, FlushKind::Clwb, port),
                }
            }
        }
        port.trace().cause = outer;
    }

    fn flush_line<P: LinePort>(&mut self, at: Tagged, kind: FlushKind, port: &mut P) {
        count(&mut self.stats.line_flushes);
        self.stats.transaction(match kind {
            FlushKind::Clflush => Transaction::CLFlush,
            FlushKind::Clwb => Transaction::CLWB,
            _ => Transaction::CLFlushOpt,
        });
        if flush_row(kind).invalidates {
            self.expel(at, Why::Flush, true, port);
        } else if let Some(slot) = self.slab.find(at)
            && self.slab.get(slot).is_dirty()
        {
            self.write_back(slot, Why::Flush, true, port);
        }
    }
}

impl Drained {
    const fn count(&mut self, entry: Entry) {
        match entry {
            Entry::Wc(_) => self.buffers += 1,
            Entry::Weak(_) => self.weak += 1,
        }
    }
}

/// Bytes go to the controller past the caches.
pub(crate) fn write_through<P: LinePort>(
    at: Tagged,
    data: &LineData,
    mask: ByteMask,
    port: &mut P,
) {
    if mask.is_full() {
        port.write(at, data, None);
    } else {
        port.write_partial(at, data, mask);
    }
}
