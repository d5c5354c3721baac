//! What an operation does at the moment it is issued, and what of its cost is known then.

use crate::Machine;
use crate::Speed;
use crate::agent::{AgentId, AgentKind, Consumed};
use crate::seam::{SeamOp, is_seam_msr};
use crate::uncore::Whence;
use cache::{Access, Alias, FenceKind as Fence, Level};
use mktme::dram::Kind;
use serde::{Deserialize, Serialize};
use sim_core::data::{ByteMask, LineData};
use sim_core::event::BirthId;
use sim_core::mca::McAccess;
use sim_core::op::{MemType, Source, Value};
use sim_core::outcome::{DataClass, GpReason, Loaded};
use sim_core::{Addr, Hpa, LINE_BYTES, Op, Outcome, Ps, Tagged};

/// What a machine has counted. Units: operations, accesses (one per line touched) or requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Operations issued.
    pub operations: u64,
    /// Cached accesses, one per line: loads, fetches, stores and locked operations.
    pub accesses: u64,
    /// Of those, answered by each level; their sum is `accesses`.
    pub by_level: [u64; 7],
    /// Whole-line reads that reached a controller.
    pub controller_reads: u64,
    /// Whole-line writes that reached a controller.
    pub controller_writes: u64,
    /// Partial writes that reached a controller.
    pub controller_partial_writes: u64,
    /// Machine checks taken.
    pub machine_checks: u64,
}

impl Counts {
    /// A cached access, and who answered it.
    pub(crate) fn access(&mut self, level: Level) {
        self.accesses += 1;
        self.by_level[level as usize] += 1;
    }
}

/// What is known of an operation when it has been issued.
pub(crate) struct Beat {
    pub(crate) outcome: Outcome,
    /// Issue cost, and latency that no DRAM is part of.
    pub(crate) cost: Ps,
    /// Added to the moment at which DRAM has answered the last read.
    pub(crate) after_read: Ps,
    /// Whether lines are left to do.
    pub(crate) more: bool,
    /// Whether the rest waits for a guest to leave.
    pub(crate) parked: bool,
    /// Poison on which it retires.
    pub(crate) poison: Option<Consumed>,
}

impl Beat {
    pub(crate) const fn over(outcome: Outcome, cost: Ps) -> Beat {
        Beat { outcome, cost, after_read: Ps::ZERO, more: false, parked: false, poison: None }
    }
}

/// The part of an access that falls into one line.
struct Piece {
    at: Tagged,
    /// First byte in the line.
    offset: usize,
    /// How many bytes.
    len: usize,
    /// How many bytes of the access lie before.
    skip: usize,
}

fn pieces(at: Addr, bytes: u32) -> impl Iterator<Item = Piece> {
    let first = at.hpa.offset_in_line();
    let end = first + bytes as usize;
    (0..end.div_ceil(LINE_BYTES)).map(move |i| {
        let (from, to) = (i * LINE_BYTES, (i + 1) * LINE_BYTES);
        let (offset, stop) = (first.max(from), end.min(to));
        Piece {
            at: at.tagged().offset(i as u64),
            offset: offset - from,
            len: stop - offset,
            skip: offset - first,
        }
    })
}

impl Piece {
    fn mask(&self) -> ByteMask {
        ByteMask::span(self.offset, self.len)
    }
    fn store_data(&self, value: Value) -> LineData {
        value.line(self.skip, self.offset)
    }
}

/// Bytes gathered from the lines of a load.
struct Gather {
    loaded: Loaded,
    poison: Option<(BirthId, Tagged)>,
}

impl Gather {
    fn new(bytes: u32) -> Gather {
        Gather {
            loaded: Loaded { data: LineData::ZERO, bytes, class: DataClass::Plain },
            poison: None,
        }
    }
    fn add(&mut self, piece: &Piece, data: &LineData, class: DataClass, poison: Option<BirthId>) {
        self.loaded.class = self.loaded.class.max(class);
        if let (Some(birth), None) = (poison, self.poison) {
            self.poison = Some((birth, piece.at));
        }
        if piece.skip >= LINE_BYTES {
            return;
        }
        if piece.skip == 0 {
            self.loaded.data = data.slice(piece.offset, piece.len);
            return;
        }
        for i in 0..piece.len.min(LINE_BYTES - piece.skip) {
            self.loaded.data.set_byte(piece.skip + i, data.byte(piece.offset + i));
        }
    }
}

impl Gather {
    /// A load or fetch that retires with its bytes, or on poison.
    fn beat(&self, access: McAccess, cost: Ps, after_read: Ps) -> Beat {
        let poison = self.poison.map(|(birth, at)| {
            let at = Addr::new(at.line().hpa(), at.keyid());
            Consumed { birth, at, access, fatal: false }
        });
        let outcome = Outcome::Data(self.loaded);
        Beat { outcome, cost, after_read, more: false, parked: false, poison }
    }
}

impl Machine {
    /// Why the agent cannot do this at all (architecture.md §2.5); the access reaches neither cache nor memory.
    pub(crate) fn refused(
        &self,
        kind: AgentKind,
        own: sim_core::KeyId,
        op: &Op,
    ) -> Option<Outcome> {
        // Alignment is checked on the operand, before the address is translated.
        let misaligned = match op {
            Op::NtStore { at, bytes, .. } => {
                *bytes >= 16 && !at.hpa.0.is_multiple_of(u64::from(*bytes))
            }
            Op::Movdir64b { dst, .. } => dst.hpa.offset_in_line() != 0,
            Op::Movdir64bPage { at } => !at.hpa.0.is_multiple_of(sim_core::PAGE_BYTES),
            _ => false,
        };
        if misaligned {
            return Some(Outcome::GeneralProtection(GpReason::Misaligned));
        }
        let private = op
            .addresses()
            .into_iter()
            .flatten()
            .map(|a| a.keyid)
            .find(|k| self.spec.keyid.is_private(*k) && !(kind == AgentKind::Td && *k == own));
        match (op, kind) {
            // A prefetch never faults: what cannot be translated is dropped.
            (Op::Prefetch { .. }, _) if kind != AgentKind::Seam => {
                return private.map(|_| Outcome::Done);
            }
            // A TD's fetch from a shared address is a #PF; the vocabulary has only this one.
            (Op::Fetch { at }, AgentKind::Td) if at.keyid != own && private.is_none() => {
                return Some(Outcome::PageFaultRsvd);
            }
            _ => {}
        }
        match kind {
            AgentKind::Kernel | AgentKind::User => private.map(|_| Outcome::PageFaultRsvd),
            AgentKind::Td => private.map(|_| Outcome::EptMisconfiguration),
            AgentKind::Device => private.map(|_| Outcome::DmaAbort),
            AgentKind::Seam | AgentKind::Guest | AgentKind::Hardware => None,
        }
    }

    /// Issues the next lines of an operation.
    pub(crate) fn beat(&mut self, id: AgentId, op: &Op, done: u32) -> Beat {
        self.journal_agent(id);
        let beat = self.act(id, op, done);
        match (self.options.speed, op) {
            (Speed::Timed, _) | (_, Op::Delay { .. }) => beat,
            (Speed::Functional, _) => {
                Beat { cost: self.spec.functional.op, after_read: Ps::ZERO, ..beat }
            }
        }
    }

    fn act(&mut self, id: AgentId, op: &Op, done: u32) -> Beat {
        let Some(agent) = self.agents.get(usize::from(id.0)) else {
            return Beat::over(Outcome::Done, Ps::ZERO);
        };
        let (kind, core, own) = (agent.spec.kind, agent.spec.core, agent.spec.keyid);
        if done == 0 {
            self.counts.operations += 1;
        }
        match *op {
            Op::Seamcall { leaf, version, regs } => {
                return match kind {
                    AgentKind::Kernel => {
                        self.seamcall(id, core, SeamOp { leaf, version, regs }, done)
                    }
                    _ => Beat::over(
                        Outcome::GeneralProtection(GpReason::Privilege),
                        self.spec.latency.issue,
                    ),
                };
            }
            _ if kind == AgentKind::Guest => return self.guest_beat(id, op, done),
            _ => {}
        }
        if self.journal.is_some() {
            return self.act_in_journal(kind, own, core, op, done);
        }
        if done == 0 {
            if let Some(outcome) = self.refused(kind, own, op) {
                return Beat::over(outcome, self.spec.latency.issue);
            }
            self.take_pending_irq(kind, core);
        }
        self.act_as(kind, core, op, done)
    }

    /// The host of a core runs: it takes an interrupt that waits.
    #[inline]
    pub(crate) fn take_pending_irq(&mut self, kind: AgentKind, core: u16) {
        if kind.has_core() && self.seam(core).is_some_and(|s| s.irq.is_some()) {
            self.take_irq(core);
        }
    }

    /// The next lines of an operation on physical addresses that are allowed.
    #[inline]
    pub(crate) fn act_as(&mut self, kind: AgentKind, core: u16, op: &Op, done: u32) -> Beat {
        match *op {
            Op::Load { at, bytes, ty: MemType::Wb } => {
                self.load(core, at, bytes, McAccess::DataLoad)
            }
            Op::Store { at, bytes, value, ty: MemType::Wb } => self.store(core, at, bytes, value),
            _ => self.act_otherwise(kind, core, op, done),
        }
    }

    /// The next lines of an operation that is neither a cached load nor a cached store: apart, so that those two, which
    /// are most of any run, do not carry the others' registers.
    #[inline(never)]
    fn act_otherwise(&mut self, kind: AgentKind, core: u16, op: &Op, done: u32) -> Beat {
        let issue = self.spec.latency.issue;
        match *op {
            Op::Load { at, bytes, .. } => self.load_uncached(core, at, bytes),
            Op::Fetch { at } => {
                let mut beat = self.load(core, at, 1, McAccess::Fetch);
                if let Outcome::Data(_) = beat.outcome {
                    beat.outcome = Outcome::Done;
                }
                beat
            }
            Op::Prefetch { at } => {
                let (mut bus, caches) = self.bus();
                caches.prefetch(core, at.tagged(), &mut bus);
                // Nobody waits for a prefetch.
                self.traffic.iter_mut().for_each(|t| t.demand = false);
                Beat::over(Outcome::Done, issue)
            }
            Op::Store { at, bytes, value, ty: MemType::Wc } => {
                self.store_wc(core, at, bytes, value);
                Beat::over(Outcome::Done, issue)
            }
            Op::Store { at, bytes, value, .. } => {
                let (mut bus, caches) = self.bus();
                for p in pieces(at, bytes) {
                    caches.uc_store(core, p.at, &p.store_data(value), p.mask(), &mut bus);
                }
                // An uncacheable store is strongly ordered: the core waits until it has been admitted.
                Beat::over(Outcome::Done, issue + self.spec.latency.write_post)
            }
            Op::NtStore { at, bytes, value } => {
                self.store_wc(core, at, bytes, value);
                Beat::over(Outcome::Done, self.spec.latency.direct_store)
            }
            Op::Movdiri { at, bytes, value } => {
                let now = self.trace.now;
                let (mut bus, caches) = self.bus();
                for p in pieces(at, bytes) {
                    caches.movdiri(core, p.at, &p.store_data(value), p.mask(), now, &mut bus);
                }
                let cost = self.direct_cost(core, at.tagged());
                Beat::over(Outcome::Done, cost.max(self.spec.latency.direct_store))
            }
            Op::Movdir64b { dst, src } => self.movdir64b(core, dst, src),
            Op::Movdir64bPage { at } => self.movdir64b_page(core, at, done),
            Op::RepStosb { at, bytes, value } => self.rep_stosb(core, at, bytes, value, done),
            Op::LockXadd { at, bytes, value } => self.lock_xadd(core, at, bytes, value),
            Op::Clflush { at } => {
                let (mut bus, caches) = self.bus();
                caches.clflush(core, at.tagged(), &mut bus);
                Beat::over(Outcome::Done, self.spec.latency.clflush)
            }
            Op::Clflushopt { at } | Op::Clwb { at } => {
                let now = self.trace.now;
                let invalidate = matches!(op, Op::Clflushopt { .. });
                let (mut bus, caches) = self.bus();
                if invalidate {
                    caches.clflushopt(core, at.tagged(), now, &mut bus);
                } else {
                    caches.clwb(core, at.tagged(), now, &mut bus);
                }
                Beat::over(Outcome::Done, self.spec.latency.clflushopt)
            }
            Op::Wbinvd | Op::Wbnoinvd | Op::Wbinvdp { .. } | Op::Wbnoinvdp { .. } => {
                self.flush_all(kind, core, op)
            }
            Op::Mfence => self.fence(core, Fence::Mfence, self.spec.latency.mfence),
            Op::Sfence => self.fence(core, Fence::Sfence, issue),
            Op::Lfence => self.fence(core, Fence::Lfence, issue),
            Op::Interrupt => {
                let (mut bus, caches) = self.bus();
                caches.interrupt(core, &mut bus);
                Beat::over(Outcome::Done, issue)
            }
            Op::Delay { time } => Beat::over(Outcome::Done, time),
            // Ring 0 of the host or the module; a TD has no key to program.
            Op::Pconfig { .. } if kind == AgentKind::User => {
                Beat::over(Outcome::GeneralProtection(GpReason::Privilege), issue)
            }
            Op::Pconfig { .. } if kind == AgentKind::Td => {
                Beat::over(Outcome::VirtualizationException, issue)
            }
            Op::Pconfig { keyid, cmd, alg } => {
                let seam = kind == AgentKind::Seam;
                let package = self.spec.package_of(core);
                let status =
                    self.memory.pconfig_on(package, keyid, cmd, alg, seam, &mut self.trace);
                Beat::over(Outcome::Pconfig(status), self.spec.latency.pconfig)
            }
            Op::DmaRead { at, bytes } => self.dma_read(at, bytes),
            Op::DmaWrite { at, bytes, value } => {
                let (mut bus, caches) = self.bus();
                for p in pieces(at, bytes) {
                    caches.dma_write(p.at, &p.store_data(value), p.mask(), &mut bus);
                }
                Beat::over(Outcome::Done, self.spec.latency.dma_path)
            }
            Op::Evict { at } => {
                let (mut bus, caches) = self.bus();
                caches.evict(at.tagged(), &mut bus);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::WcEvict { core } => {
                let (mut bus, caches) = self.bus();
                caches.wc_evict(core as u16, &mut bus);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::WriteBack { at } => {
                let (mut bus, caches) = self.bus();
                caches.write_back_line(at.tagged(), &mut bus);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::Drain { core, at } => {
                let (mut bus, caches) = self.bus();
                caches.drain_line(core as u16, at.tagged(), &mut bus);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::FlipBit { .. }
            | Op::FlipTd { .. }
            | Op::MoveLine { .. }
            | Op::SaveLine { .. }
            | Op::ReplayLine { .. }
            | Op::InjectUe { .. } => {
                self.tamper(op);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::Irq { core, kind } => {
                self.interrupt(core as u16, kind);
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            Op::Wrmsr { msr, value } => {
                let refused = match kind {
                    AgentKind::Kernel if is_seam_msr(msr) => GpReason::NotInSeam,
                    AgentKind::Kernel | AgentKind::Seam => {
                        self.wrmsr(core, msr, value);
                        return Beat::over(Outcome::Done, issue);
                    }
                    _ => GpReason::Privilege,
                };
                Beat::over(Outcome::GeneralProtection(refused), issue)
            }
            // The loader is called as the module is, by SEAMCALL.
            Op::SeamldrInstall if kind != AgentKind::Kernel => {
                Beat::over(Outcome::GeneralProtection(GpReason::Privilege), issue)
            }
            Op::SeamldrInstall => {
                let outcome = match self.module.install() {
                    Ok(()) => Outcome::Done,
                    Err(tdx_module::VmFail) => Outcome::VmFailInvalid,
                };
                Beat::over(outcome, self.spec.tdx.cost.seamcall)
            }
            Op::Starve { core, draws } => {
                if let Some(seam) = self.seam_mut(core as u16) {
                    seam.starve = draws;
                }
                Beat::over(Outcome::Done, Ps::ZERO)
            }
            // TDCALL outside a TD is #UD; the guests' own operations have been taken before they come here.
            Op::Seamcall { .. } | Op::Tdcall { .. } | Op::MovCr3 { .. } | Op::Invlpg { .. } => {
                Beat::over(Outcome::GeneralProtection(GpReason::Privilege), issue)
            }
        }
    }

    /// The cost of a cached access and who answered it: what is known now, and what comes after DRAM.
    fn level_cost(&mut self, core: u16, hit: &Access, at: Tagged) -> (Ps, Ps) {
        self.counts.access(hit.level);
        self.latency_of(core, hit, at)
    }

    /// What an access costs: what is known now, and what comes after DRAM ([`crate::uncore`]).
    #[inline]
    pub(crate) fn latency_of(&self, core: u16, hit: &Access, at: Tagged) -> (Ps, Ps) {
        match hit.level {
            Level::L1 => (self.uncore.l1, Ps::ZERO),
            Level::L2 => (self.uncore.l2, Ps::ZERO),
            _ => self.latency_of_miss(core, hit, at),
        }
    }

    fn latency_of_miss(&self, core: u16, hit: &Access, at: Tagged) -> (Ps, Ps) {
        let slice = hit.slice.into();
        let whence = match hit.level {
            Level::Memory => return (self.spec.latency.issue, self.after_miss(core, hit, at)),
            Level::PeerClean | Level::PeerModified => {
                let modified = hit.level == Level::PeerModified;
                Whence::Peer { core: hit.peer.unwrap_or(core), modified }
            }
            Level::PeerRemote => Whence::Remote,
            _ => Whence::Llc,
        };
        (self.uncore.cached(core, slice, whence), Ps::ZERO)
    }

    /// What an access that memory has answered spends outside DRAM.
    #[inline]
    pub(crate) fn after_miss(&self, core: u16, hit: &Access, at: Tagged) -> Ps {
        let alias = match (hit.alias, hit.peer) {
            (Alias::None, _) | (_, None) => None,
            (alias, Some(peer)) => Some((peer, alias == Alias::Modified)),
        };
        self.after_read(core, at, hit.slice.into(), alias)
    }

    /// What an access of a core that memory answers spends outside DRAM: mesh, home agent and controller, decryption and
    /// MAC.
    fn after_read(&self, core: u16, at: Tagged, slice: u32, alias: Option<(u16, bool)>) -> Ps {
        let line = at.line();
        // Nobody need be asked where there is no choice.
        let one_channel = self.spec.dram.channels == 1;
        let channel = if one_channel { 0 } else { self.dram.map().decode(line).channel };
        let remote =
            self.spec.cpu.packages > 1 && self.spec.home_of(line) != self.spec.package_of(core);
        let path = self.uncore.memory(core, slice, channel, remote, alias);
        path + self.crypto_latency(at)
    }

    /// How long a direct store of a core occupies a place for one; the home agent remembers the line from now on.
    pub(crate) fn direct_occupancy(&mut self, core: u16, at: Tagged) -> Ps {
        let line = at.line();
        let slice = self.caches.slice_of(line).into();
        let channel = self.dram.map().decode(line).channel;
        let home = usize::from(self.spec.home_of(line));
        let known = self.direct_lines.get_mut(home).is_some_and(|lines| lines.touch(line));
        let lookup = if known { Ps::ZERO } else { self.uncore.direct_lookup };
        self.uncore.direct(core, slice, channel) + lookup
    }

    /// The cost of a direct store: until the core has a place for it, and its issue.
    pub(crate) fn direct_cost(&mut self, core: u16, at: Tagged) -> Ps {
        let issue = self.spec.latency.issue;
        if self.options.speed == Speed::Functional {
            return issue;
        }
        let occupied = self.direct_occupancy(core, at);
        let now = self.trace.now;
        let lp = self.lps.get_mut(usize::from(core));
        let Some(place) = lp.and_then(|lp| lp.direct.iter_mut().min()) else { return issue };
        let start = (*place).max(now);
        *place = start + occupied;
        start.since(now) + issue
    }

    /// How long it is until all direct stores of a core are admitted.
    fn direct_left(&self, core: u16) -> Ps {
        let last = self.lps.get(usize::from(core)).and_then(|lp| lp.direct.iter().max());
        last.map_or(Ps::ZERO, |last| last.since(self.trace.now))
    }

    /// The latency of a load of a core when everything is idle and `from` answers, outside DRAM: the sum of the parts of
    /// docs/validation.md. `peer` is the core that answers, if one does.
    pub fn idle_latency(&self, core: u16, at: Tagged, from: Level, peer: u16) -> Ps {
        let slice = self.caches.slice_of(at.line()).into();
        match from {
            Level::L1 => self.uncore.l1,
            Level::L2 => self.uncore.l2,
            Level::Llc => self.uncore.cached(core, slice, Whence::Llc),
            Level::PeerClean | Level::PeerModified => {
                let modified = from == Level::PeerModified;
                self.uncore.cached(core, slice, Whence::Peer { core: peer, modified })
            }
            Level::PeerRemote => self.uncore.cached(core, slice, Whence::Remote),
            Level::Memory => self.after_read(core, at, slice, None),
        }
    }

    /// Decryption and MAC check of a line, once per fill (verification.md Q15).
    fn crypto_latency(&self, at: Tagged) -> Ps {
        let latency = &self.spec.latency;
        let encrypted = at.keyid() != sim_core::KeyId::TME || !self.spec.memory.tme_bypass;
        let xts = if encrypted { latency.xts } else { Ps::ZERO };
        let mac = if self.memory.has_integrity(at) { latency.mac } else { Ps::ZERO };
        xts + mac
    }

    pub(crate) fn load(&mut self, core: u16, at: Addr, bytes: u32, access: McAccess) -> Beat {
        let offset = at.hpa.offset_in_line();
        if bytes == 0 || offset + bytes as usize > LINE_BYTES {
            return self.load_across(core, at, bytes, access);
        }
        // Within one line, as most loads are.
        let tagged = at.tagged();
        let (mut bus, caches) = self.bus();
        let hit = caches.load(core, tagged, &mut bus);
        let (data, class, poison) = caches.loaded(hit.slot);
        let data = data.slice(offset, bytes as usize);
        let (cost, after_read) = self.level_cost(core, &hit, tagged);
        let at = Addr::new(at.hpa.line().hpa(), at.keyid);
        let poison = poison.map(|birth| Consumed { birth, at, access, fatal: false });
        let outcome = Outcome::Data(Loaded { data, bytes, class });
        Beat { outcome, cost, after_read, more: false, parked: false, poison }
    }

    /// A load that crosses into the next line.
    #[inline(never)]
    fn load_across(&mut self, core: u16, at: Addr, bytes: u32, access: McAccess) -> Beat {
        let mut gather = Gather::new(bytes);
        let mut cost = Ps::ZERO;
        let mut after_read = Ps::ZERO;
        for p in pieces(at, bytes) {
            let (mut bus, caches) = self.bus();
            let hit = caches.load(core, p.at, &mut bus);
            let (data, class, poison) = caches.loaded(hit.slot);
            gather.add(&p, data, class, poison);
            let (now, later) = self.level_cost(core, &hit, p.at);
            cost = cost.max(now);
            after_read = after_read.max(later);
        }
        gather.beat(access, cost, after_read)
    }

    fn load_uncached(&mut self, core: u16, at: Addr, bytes: u32) -> Beat {
        let mut gather = Gather::new(bytes);
        let mut after_read = Ps::ZERO;
        for p in pieces(at, bytes) {
            let (mut bus, caches) = self.bus();
            let fill = caches.uc_load(core, p.at, &mut bus);
            gather.add(&p, &fill.data, fill.class, fill.poison);
            let slice = self.caches.slice_of(p.at.line()).into();
            after_read = after_read.max(self.after_read(core, p.at, slice, None));
        }
        gather.beat(McAccess::DataLoad, self.spec.latency.issue, after_read)
    }

    /// A cached store of some bytes of one line; a locked one reads the line first, and is not made on poison.
    pub(crate) fn store_line(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        locked: bool,
    ) -> Beat {
        let early = self.spec.cpu.rfo_poison_mc;
        let (mut bus, caches) = self.bus();
        let (hit, poison) = if locked {
            let hit = caches.store_locked(core, at, data, mask, &mut bus);
            (hit, caches.loaded(hit.slot).2)
        } else if early {
            let hit = caches.own_for_store(core, at, &mut bus);
            if hit.rfo_poison.is_none() {
                caches.store(core, at, data, mask, &mut bus);
            }
            (hit, hit.rfo_poison)
        } else {
            (caches.store(core, at, data, mask, &mut bus), None)
        };
        let (now, after_read) = self.level_cost(core, &hit, at);
        // A store that hits retires into the store buffer; what is read and written retires when it has been read, on
        // poison too.
        let buffered = hit.level == Level::L1 && !locked;
        let cost = if buffered { self.spec.latency.issue } else { now };
        let poison = poison.map(|birth| {
            let at = Addr::new(at.line().hpa(), at.keyid());
            Consumed { birth, at, access: McAccess::DataLoad, fatal: false }
        });
        Beat { after_read, poison, ..Beat::over(Outcome::Done, cost) }
    }

    pub(crate) fn store(&mut self, core: u16, at: Addr, bytes: u32, value: Value) -> Beat {
        let mut cost = Ps::ZERO;
        let mut after_read = Ps::ZERO;
        let early = self.spec.cpu.rfo_poison_mc;
        if early {
            // Every line is owned before any is written: a machine check leaves none half done (MC-30).
            let mut poison = None;
            for p in pieces(at, bytes) {
                let (mut bus, caches) = self.bus();
                let hit = caches.own_for_store(core, p.at, &mut bus);
                let (now, later) = self.level_cost(core, &hit, p.at);
                cost = cost.max(if hit.level == Level::L1 { self.spec.latency.issue } else { now });
                after_read = after_read.max(later);
                let at = Addr::new(p.at.line().hpa(), p.at.keyid());
                let access = McAccess::DataLoad;
                poison = poison.or(hit.rfo_poison.map(|birth| Consumed {
                    birth,
                    at,
                    access,
                    fatal: false,
                }));
            }
            if poison.is_some() {
                return Beat { poison, after_read, ..Beat::over(Outcome::Done, cost) };
            }
        }
        for p in pieces(at, bytes) {
            let (mut bus, caches) = self.bus();
            let hit = caches.store(core, p.at, &p.store_data(value), p.mask(), &mut bus);
            if early {
                continue;
            }
            let (now, later) = self.level_cost(core, &hit, p.at);
            // A store that hits retires into the store buffer.
            cost = cost.max(if hit.level == Level::L1 { self.spec.latency.issue } else { now });
            after_read = after_read.max(later);
        }
        Beat { after_read, ..Beat::over(Outcome::Done, cost) }
    }

    fn store_wc(&mut self, core: u16, at: Addr, bytes: u32, value: Value) {
        let now = self.trace.now;
        let (mut bus, caches) = self.bus();
        for p in pieces(at, bytes) {
            caches.wc_store(core, p.at, &p.store_data(value), p.mask(), now, &mut bus);
        }
    }

    pub(crate) fn movdir64b(&mut self, core: u16, dst: Addr, src: Source<Addr>) -> Beat {
        let (data, mut beat) = match src {
            Source::Fill(byte) => (LineData::filled(byte), Beat::over(Outcome::Done, Ps::ZERO)),
            Source::Mem(src) => {
                let beat = self.load(core, src, 64, McAccess::DataLoad);
                match (beat.outcome, beat.poison) {
                    (Outcome::Data(loaded), None) => (loaded.data, beat),
                    // The load takes a machine check: nothing is stored.
                    _ => return beat,
                }
            }
        };
        let cost = self.direct_store(core, dst, &data);
        beat.outcome = Outcome::Done;
        beat.cost = beat.cost.max(cost);
        beat
    }

    /// What MOVDIR64B does when it has its 64 bytes, and its cost.
    pub(crate) fn direct_store(&mut self, core: u16, dst: Addr, data: &LineData) -> Ps {
        let now = self.trace.now;
        let (mut bus, caches) = self.bus();
        caches.movdir64b(core, dst.tagged(), data, now, &mut bus);
        self.direct_cost(core, dst.tagged())
    }

    fn movdir64b_page(&mut self, core: u16, at: Addr, done: u32) -> Beat {
        let (page, keyid) = (at.hpa.page(), at.keyid);
        let now = self.trace.now;
        if self.options.speed == Speed::Timed {
            let line = Tagged::new(page.line(done), keyid);
            let (mut bus, caches) = self.bus();
            caches.movdir64b(core, line, &LineData::ZERO, now, &mut bus);
            let cost = self.direct_cost(core, line);
            let more = done + 1 < sim_core::LINES_PER_PAGE;
            return Beat { more, ..Beat::over(Outcome::Done, cost) };
        }
        // One event for the page. Lines that somebody holds take the ordinary way first, so that their copies are
        // written back and dropped as architecture.md §3 3.4 says.
        let (mut bus, caches) = self.bus();
        caches.bypass_page(core, page, keyid, &mut bus);
        self.counts.controller_writes += u64::from(sim_core::LINES_PER_PAGE);
        self.memory.write_lines(page, u64::MAX, keyid, &LineData::ZERO, &mut self.trace);
        Beat::over(Outcome::Done, self.spec.latency.issue)
    }

    fn rep_stosb(&mut self, core: u16, at: Addr, bytes: u32, value: u8, done: u32) -> Beat {
        let first = at.hpa.offset_in_line() as u32;
        let lines = (first + bytes).div_ceil(LINE_BYTES as u32);
        let timed = self.options.speed == Speed::Timed;
        let stop = if timed { (done + 1).min(lines) } else { lines };
        let mut beat = Beat::over(Outcome::Done, self.spec.latency.issue);
        for index in done..stop {
            // The part of the string that falls into this line.
            let skip = if index == 0 { 0 } else { index * LINE_BYTES as u32 - first };
            let piece_at = Addr::new(Hpa(at.hpa.0 + u64::from(skip)), at.keyid);
            let len = (bytes - skip).min(LINE_BYTES as u32 - piece_at.hpa.offset_in_line() as u32);
            if len == LINE_BYTES as u32 && self.spec.cpu.fast_string_no_rfo {
                let (mut bus, caches) = self.bus();
                let data = LineData::filled(value);
                let hit = caches.store_line_no_rfo(core, piece_at.tagged(), &data, &mut bus);
                let (now, _) = self.level_cost(core, &hit, piece_at.tagged());
                beat.cost = beat.cost.max(now);
            } else {
                let part = self.store(core, piece_at, len, Value::Fill(value));
                beat.cost = beat.cost.max(part.cost);
                beat.after_read = beat.after_read.max(part.after_read);
                if part.poison.is_some() {
                    beat.poison = part.poison;
                    return beat;
                }
            }
        }
        beat.more = stop < lines;
        beat
    }

    fn lock_xadd(&mut self, core: u16, at: Addr, bytes: u32, value: u64) -> Beat {
        let fence = self.fence(core, Fence::Locked, self.spec.latency.mfence);
        let mut beat = self.load(core, at, bytes, McAccess::DataLoad);
        let (Outcome::Data(old), None) = (beat.outcome, beat.poison) else { return beat };
        let sum = old.data.0[0].wrapping_add(value);
        let kept = if bytes >= 8 { sum } else { sum & ((1 << (8 * bytes)) - 1) };
        let store = self.store(core, at, bytes, Value::Num(kept));
        beat.poison = store.poison;
        beat.cost = fence.cost + beat.cost.max(store.cost);
        beat.after_read = beat.after_read.max(store.after_read);
        beat
    }

    pub(crate) fn fence(&mut self, core: u16, kind: Fence, cost: Ps) -> Beat {
        let (mut bus, caches) = self.bus();
        let drained = caches.fence(core, kind, &mut bus);
        let mut wait = if drained.buffers + drained.weak == 0 {
            Ps::ZERO
        } else {
            self.spec.latency.write_post
        };
        if kind != Fence::Lfence {
            wait = wait.max(self.direct_left(core));
        }
        Beat::over(Outcome::Done, cost + wait)
    }

    fn flush_all(&mut self, kind: AgentKind, core: u16, op: &Op) -> Beat {
        let package = self.spec.package_of(core);
        let issue = self.spec.latency.issue;
        let by_msr = matches!(op, Op::Wbinvdp { .. } | Op::Wbnoinvdp { .. });
        match kind {
            // architecture.md §4.4, row WBINVD.
            AgentKind::Td => return Beat::over(Outcome::VirtualizationException, issue),
            AgentKind::Seam => {}
            _ if by_msr => {
                return Beat::over(Outcome::GeneralProtection(GpReason::NotInSeam), issue);
            }
            // Ring 0 only.
            AgentKind::User => {
                return Beat::over(Outcome::GeneralProtection(GpReason::Privilege), issue);
            }
            _ => {}
        }
        let (mut bus, caches) = self.bus();
        // WBINVD is serialising: the core's own buffers leave first.
        caches.fence(core, Fence::Locked, &mut bus);
        let flushed = match *op {
            Op::Wbinvd => Some(caches.wbinvd(package, &mut bus)),
            Op::Wbnoinvd => Some(caches.wbnoinvd(package, &mut bus)),
            Op::Wbinvdp { block } => caches.wbinvdp(package, block, &mut bus),
            Op::Wbnoinvdp { block } => caches.wbnoinvdp(package, block, &mut bus),
            _ => None,
        };
        let Some(flushed) = flushed else {
            return Beat::over(Outcome::GeneralProtection(GpReason::NoSuchSubBlock), issue);
        };
        let walk = self.spec.latency.flush_walk.times(flushed.walked);
        Beat::over(Outcome::Done, issue + walk)
    }

    fn dma_read(&mut self, at: Addr, bytes: u32) -> Beat {
        let mut gather = Gather::new(bytes);
        for p in pieces(at, bytes) {
            let (mut bus, caches) = self.bus();
            let fill = caches.dma_read(p.at, &mut bus);
            gather.add(&p, &fill.data, fill.class, fill.poison);
        }
        let outcome = match gather.poison {
            // architecture.md §13 MC-13: an error response to the device, no machine check.
            Some((birth, _)) => Outcome::DmaPoison(birth),
            None => Outcome::Data(gather.loaded),
        };
        let path = self.spec.latency.dma_path;
        if !self.traffic.iter().any(|t| t.kind == Kind::Read) {
            // Caches had all of it.
            return Beat::over(outcome, path);
        }
        let after_read = path + self.crypto_latency(at.tagged());
        Beat { after_read, ..Beat::over(outcome, self.spec.latency.issue) }
    }

    fn tamper(&mut self, op: &Op) {
        let (memory, trace) = (&mut self.memory, &mut self.trace);
        match *op {
            Op::FlipBit { at, bit } => memory.flip_bit(at.hpa.line(), bit as u16, trace),
            Op::FlipTd { at } => memory.flip_td(at.hpa.line(), trace),
            Op::MoveLine { from, to } => memory.move_line(from.hpa.line(), to.hpa.line(), trace),
            Op::SaveLine { at, slot } => {
                if let Some(image) = self.images.get_mut(slot as usize) {
                    *image = Some(memory.save_line(at.hpa.line()));
                }
            }
            Op::ReplayLine { slot, at } => {
                if let Some(Some(image)) = self.images.get(slot as usize) {
                    memory.restore_line(at.hpa.line(), image, trace);
                }
            }
            Op::InjectUe { at } => memory.inject_ue(at.tagged(), trace),
            _ => {}
        }
    }

    /// Lets whatever of a core's weakly ordered operations is due become visible.
    pub(crate) fn drain_due(&mut self, core: u16) {
        let now = self.trace.now;
        let (mut bus, caches) = self.bus();
        caches.drain_due(core, now, &mut bus);
    }
}
