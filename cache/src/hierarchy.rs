//! The hierarchy's state, loads and stores, and how lines move between levels.

use crate::array::{Array, SlotId, WAYS_MAX};
use crate::buffers::Waiting;
use crate::home::Homes;
use crate::mesi::{Effect, Elsewhere, Mesi, MesiEvent, next};
use crate::rows::Rows;
use crate::slab::{CachedLine, Entry, Slab};
use crate::snoop::Alias;
use crate::stats::{Stats, count};
use crate::transaction::Transaction;
use serde::{Deserialize, Serialize};
use sim_core::event::{Location, Why};
use sim_core::outcome::DataClass;
use sim_core::planted::{Fault, Planted};
use sim_core::platform::{CacheGeometry, CpuSpec};
use sim_core::port::LinePort;
use sim_core::{BirthId, ByteMask, EventKind, Line, LineData, Ps, Tagged};
use thiserror::Error;

/// Who answered an access; decides its latency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Level {
    /// The core's L1.
    L1,
    /// The core's L2.
    L2,
    /// The LLC of the core's package, or, for ownership without data, its directory.
    Llc,
    /// A clean copy in another core of the package.
    PeerClean,
    /// A modified copy in another core of the package.
    PeerModified,
    /// A copy in another package.
    PeerRemote,
    /// The memory controller.
    Memory,
}

/// Names a cached line until the next call that changes the hierarchy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot(SlotId);

/// What an access met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Who answered. For a store: the slowest of those who gave the data or had to give up their copy.
    pub level: Level,
    /// What the snoop filter of the core's package had of other KeyIDs of the physical line (verification.md C13). The
    /// requesting core's own copies under them count. [`Alias::None`] for an access that stayed in the core.
    pub alias: Alias,
    /// The slice of the core's package that is home to the line; 0 for an access that stayed in the core.
    pub slice: u8,
    /// What went to the home; `None` for an access that stayed in the core. The victims that it drove out are counted
    /// ([`crate::Stats::transactions`]), not told here.
    pub transaction: Option<Transaction>,
    /// The line, now in the core's L1.
    pub slot: Slot,
    /// For a store: the poison that its RFO brought (architecture.md §13 MC-30), even if the store then overwrote the
    /// whole line. `None` when the data was in the core's own caches already.
    pub rfo_poison: Option<BirthId>,
    /// The core that was snooped: which held the line and gave it or gave it up (the forwarder, else the lowest-numbered of
    /// the package, else of the others), or, where none held it under this KeyID, one that held an alias. `None` where only
    /// LLCs or memory answered.
    pub peer: Option<u16>,
}

impl Access {
    /// An access that stayed in the core.
    #[inline]
    const fn inside(level: Level, slot: SlotId) -> Access {
        Access {
            level,
            alias: Alias::None,
            slice: 0,
            transaction: None,
            slot: Slot(slot),
            rfo_poison: None,
            peer: None,
        }
    }
}

const _: () = assert!(size_of::<Access>() == 16);

/// Fences, as far as buffers and weak operations are concerned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum FenceKind {
    /// MFENCE.
    Mfence,
    /// SFENCE.
    Sfence,
    /// LFENCE: waits for loads only, so nothing here leaves.
    Lfence,
    /// A locked or serialising operation (WBINVD, CPUID, VM entry and the like).
    Locked,
}

/// How many entries a fence, an interrupt or time made leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Write-combining buffers, each a partial write.
    pub buffers: u32,
    /// Weakly ordered operations.
    pub weak: u32,
}

/// Why a hierarchy cannot be built. [`sim_core::PlatformSpec::validate`] refuses such a platform earlier.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SpecError {
    /// Cores not 1 to 128, packages not 1 to 8, or cores not spread evenly.
    #[error(
        "{cores} cores in {packages} packages, expected 1 to 128 cores spread evenly over 1 to 8 packages"
    )]
    Topology {
        /// As given.
        cores: u16,
        /// As given.
        packages: u8,
    },
    /// Sets not a power of two, or ways not 1 to 16.
    #[error(
        "{cache}: {size} bytes in {ways} ways, expected 1 to 16 ways and a power of two of sets"
    )]
    Geometry {
        /// Which cache.
        cache: &'static str,
        /// As given.
        size: u64,
        /// As given.
        ways: u8,
    },
    /// Slices not a power of two from 1 to 128 or more than sets, too few hash masks, or a snoop filter whose sets are no
    /// power of two up to 2^20 or whose ways are not 1 to 16.
    #[error("cpu.{key}: {found} does not fit {slices} slices of {sets} sets in all")]
    Slices {
        /// Which parameter.
        key: &'static str,
        /// As given; of masks, their number.
        found: u64,
        /// Slices, as given.
        slices: u16,
        /// Sets of the LLC.
        sets: u64,
    },
    /// No write-combining buffer, no slot for weak operations, or no flush sub-block.
    #[error("cpu.{0} is 0, expected at least 1")]
    Zero(&'static str),
}

/// One core's caches and what waits in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Core {
    pub(crate) l1: Array,
    pub(crate) l2: Array,
    ways: Ways,
    pub(crate) waiting: Waiting,
    /// The core's package.
    package: u8,
    /// The core, as a mask.
    bit: u128,
    /// The cores of its package, as a mask.
    neighbours: u128,
}

/// Where in L1 a line probably is: the way of the line of each L1 set whose next four line bits are these. Whoever uses it
/// looks whether the line is there, so it may be wrong, and two that differ say nothing.
///
/// And where it certainly is not: in no way with another [`print`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ways {
    by_line: Vec<u8>,
    mask: u64,
    /// By set and way: the print of the line that was put there last.
    prints: Vec<[u8; WAYS_MAX]>,
}

/// Eight bits of a line's hash.
#[inline]
const fn print(line: Line) -> u8 {
    (line.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl PartialEq for Ways {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Ways {}

impl Ways {
    fn new(sets: u64) -> Ways {
        let lines = sets.saturating_mul(16);
        Ways {
            by_line: vec![0; lines as usize],
            mask: lines.wrapping_sub(1),
            prints: vec![[0; WAYS_MAX]; sets as usize],
        }
    }
    #[inline]
    fn guess(&self, line: Line) -> usize {
        self.by_line.get((line.0 & self.mask) as usize).map_or(0, |way| usize::from(*way))
    }
    #[inline]
    fn learn(&mut self, line: Line, way: usize) {
        if let Some(place) = self.by_line.get_mut((line.0 & self.mask) as usize) {
            *place = way as u8;
        }
    }
    /// A line has been put into a way of its set.
    #[inline]
    fn enter(&mut self, line: Line, way: usize) {
        self.learn(line, way);
        if let Some(prints) = self.prints.get_mut((line.0 & self.mask >> 4) as usize) {
            prints[way & (WAYS_MAX - 1)] = print(line);
        }
    }
    /// The ways in which a line can be, bit i + 1 for way i.
    #[inline]
    fn candidates(&self, line: Line) -> u32 {
        let Some(prints) = self.prints.get((line.0 & self.mask >> 4) as usize) else { return 0 };
        let (print, mut ways) = (print(line), 0u32);
        // As [`crate::array`] looks for an entry.
        for (way, other) in prints.iter().enumerate() {
            ways |= u32::from(*other == print) << (way + 1);
        }
        ways
    }
}

impl Core {
    /// A line's slot if L1 has it where it was last seen and `is` holds for it: the most recently used of its set from now on.
    #[inline]
    pub(crate) fn quick(&mut self, line: Line, is: impl FnOnce(SlotId) -> bool) -> Option<SlotId> {
        let way = self.ways.guess(line);
        self.l1.touch_way(line.0, way, is)
    }

    /// Makes a line the most recently used of L1 if it is there.
    #[inline]
    fn touch_l1(&mut self, line: Line, slot: SlotId) -> bool {
        let way = self.l1.touch(line.0, slot);
        if let Some(way) = way {
            self.ways.learn(line, way);
        }
        way.is_some()
    }
}

/// All caches of the machine.
///
/// Cores and packages are numbered as in [`CpuSpec`]; a number beyond the last means the last (callers know their
/// platform, and nothing here panics).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hierarchy {
    pub(crate) slab: Slab,
    pub(crate) cores: Rows<Core>,
    pub(crate) llcs: Rows<Array>,
    pub(crate) filters: Rows<Array>,
    pub(crate) cores_per_package: u16,
    pub(crate) sub_blocks: u32,
    pub(crate) wc_buffers: u8,
    pub(crate) weak_slots: u8,
    pub(crate) wc_age: Ps,
    pub(crate) weak_wait: Ps,
    pub(crate) stats: Stats,
    /// A fault planted by a test.
    #[serde(skip)]
    pub(crate) planted: Planted,
}

fn checked(cache: &'static str, geometry: &CacheGeometry) -> Result<(), SpecError> {
    let whole = geometry.ways != 0 && geometry.size.is_multiple_of(64 * u64::from(geometry.ways));
    if whole && geometry.ways <= 16 && geometry.sets().is_power_of_two() {
        return Ok(());
    }
    Err(SpecError::Geometry { cache, size: geometry.size, ways: geometry.ways })
}

/// The cores of a package, as a mask.
const fn cores_of(per_package: u16, package: u8) -> u128 {
    let n = per_package as u32;
    let ones = if n >= 128 { u128::MAX } else { (1 << n) - 1 };
    ones << ((package as u32 * n) & 127)
}

impl Hierarchy {
    /// Empty caches. `weak_wait` is how long a weakly ordered operation stays invisible at most.
    ///
    /// # Errors
    /// The first number of the specification that does not fit.
    pub fn new(cpu: &CpuSpec, weak_wait: Ps) -> Result<Hierarchy, SpecError> {
        let packages = u16::from(cpu.packages);
        let even = (1..=8).contains(&packages)
            && (1..=128).contains(&cpu.cores)
            && cpu.cores.is_multiple_of(packages);
        if !even {
            return Err(SpecError::Topology { cores: cpu.cores, packages: cpu.packages });
        }
        checked("cpu.l1d", &cpu.l1d)?;
        checked("cpu.l2", &cpu.l2)?;
        checked("cpu.llc", &cpu.llc)?;
        let (slices, filter) = (cpu.llc_slices, cpu.snoop_filter);
        let masks = cpu.slice_hash.masks().count() as u64;
        let slices_fit =
            slices.is_power_of_two() && slices <= 128 && u64::from(slices) <= cpu.llc.sets();
        for (key, found, fits) in [
            ("llc_slices", slices.into(), slices_fit),
            ("slice_hash", masks, masks >= u64::from(slices.trailing_zeros())),
            (
                "snoop_filter.sets",
                filter.sets.into(),
                filter.sets.is_power_of_two() && filter.sets <= 1 << 20,
            ),
            ("snoop_filter.ways", filter.ways.into(), (1..=16).contains(&filter.ways)),
        ] {
            if !fits {
                let sets = cpu.llc.sets();
                return Err(SpecError::Slices { key, found, slices, sets });
            }
        }
        for (value, name) in [
            (u32::from(cpu.wc_buffers), "wc_buffers"),
            (u32::from(cpu.weak_slots), "weak_slots"),
            (cpu.flush_sub_blocks, "flush_sub_blocks"),
        ] {
            if value == 0 {
                return Err(SpecError::Zero(name));
            }
        }
        let per_package = cpu.cores / packages;
        let core = |c: u16| Core {
            l1: Array::new(cpu.l1d.sets(), cpu.l1d.ways),
            l2: Array::new(cpu.l2.sets(), cpu.l2.ways),
            ways: Ways::new(cpu.l1d.sets()),
            waiting: Waiting::new(cpu.wc_buffers.into(), cpu.weak_slots.into()),
            package: (c / per_package) as u8,
            bit: 1 << (c & 127),
            neighbours: cores_of(per_package, (c / per_package) as u8),
        };
        let llc = || Array::new(cpu.llc.sets(), cpu.llc.ways);
        let filter = || Array::new(u64::from(filter.sets) * u64::from(slices), filter.ways);
        Ok(Hierarchy {
            slab: Slab::new(Homes::new(cpu), cpu.flush_sub_blocks),
            cores: Rows::new(core(0), (1..cpu.cores).map(core)),
            llcs: Rows::new(llc(), (1..packages).map(|_| llc())),
            filters: Rows::new(filter(), (1..packages).map(|_| filter())),
            cores_per_package: per_package,
            sub_blocks: cpu.flush_sub_blocks,
            wc_buffers: cpu.wc_buffers,
            weak_slots: cpu.weak_slots,
            wc_age: cpu.wc_age,
            weak_wait,
            stats: Stats::default(),
            planted: Planted::NONE,
        })
    }

    /// The same caches with a fault planted by a test.
    #[must_use]
    pub fn with_planted(self, planted: Planted) -> Hierarchy {
        Hierarchy { planted, ..self }
    }

    /// A load of one line. Whatever the core itself has waiting for that line leaves first (architecture.md §13 MC-28).
    #[inline]
    pub fn load<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) -> Access {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        self.bring(c, at, port)
    }

    /// An instruction fetch of one line. There is no separate instruction cache: a load.
    #[inline]
    pub fn fetch<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) -> Access {
        self.load(core, at, port)
    }

    /// A software prefetch or a speculative load that never retires: fills as a load does, poison included, and makes
    /// nothing leave (architecture.md §13 MC-06).
    pub fn prefetch<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) -> Access {
        let c = self.core_index(core);
        self.bring(c, at, port)
    }

    /// A write-back store of the bytes in `mask`: takes ownership (RFO) and writes into the cached copy. Poison stays
    /// unless the whole line is written (architecture.md §13 MC-05, MC-25, MC-30).
    #[inline]
    pub fn store<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        port: &mut P,
    ) -> Access {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        let access = self.own(c, at, true, port);
        self.write_into(core, access.slot.0, data, mask, port);
        access
    }

    /// A locked read-modify-write of a line: as [`Hierarchy::store`], but it reads the line first, and on poison it writes
    /// nothing ([`Hierarchy::loaded`] has the poison then): its machine check comes before it completes.
    pub fn store_locked<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        mask: ByteMask,
        port: &mut P,
    ) -> Access {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        let dirty = self.slab.find(at).is_some_and(|slot| self.slab.get(slot).is_dirty());
        let access = self.own(c, at, true, port);
        if self.slab.get(access.slot.0).poison.is_none() {
            self.write_into(core, access.slot.0, data, mask, port);
        } else if !dirty {
            self.slab.get_mut(access.slot.0).state = Mesi::Exclusive;
        }
        access
    }

    /// The RFO of a store that is not made yet: the core becomes the only holder, and the line stays clean if it was
    /// (architecture.md §13 MC-30 with `rfo_poison_mc`).
    pub fn own_for_store<P: LinePort>(&mut self, core: u16, at: Tagged, port: &mut P) -> Access {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        let dirty = self.slab.find(at).is_some_and(|slot| self.slab.get(slot).is_dirty());
        let access = self.own(c, at, true, port);
        if !dirty {
            self.slab.get_mut(access.slot.0).state = Mesi::Exclusive;
        }
        access
    }

    /// A store of a whole line that takes ownership without reading it, so that neither old data nor old poison is
    /// fetched (architecture.md §13 MC-29).
    pub fn store_line_no_rfo<P: LinePort>(
        &mut self,
        core: u16,
        at: Tagged,
        data: &LineData,
        port: &mut P,
    ) -> Access {
        let c = self.core_index(core);
        self.own_access(c, at, port);
        let access = self.own(c, at, false, port);
        self.write_into(core, access.slot.0, data, ByteMask::FULL, port);
        access
    }

    /// The line that an access met.
    #[inline]
    pub fn line(&self, slot: Slot) -> CachedLine {
        self.slab.whole(slot.0)
    }

    /// What a load returns of the line that it met: its bytes, what they are, and their poison.
    #[inline]
    pub fn loaded(&self, slot: Slot) -> (&LineData, DataClass, Option<BirthId>) {
        let line = self.slab.get(slot.0);
        (self.slab.data(slot.0), line.class, line.poison)
    }

    /// The poison of the line that an access met.
    #[inline]
    pub fn poison_of(&self, slot: Slot) -> Option<BirthId> {
        self.slab.get(slot.0).poison
    }

    /// The hardware's choice: the line leaves every cache, written back if modified, as if for lack of room. Returns
    /// whether it was there.
    pub fn evict<P: LinePort>(&mut self, at: Tagged, port: &mut P) -> bool {
        self.expel(at, Why::Chosen, true, port)
    }

    /// Whether a core's L1 has a line. Changes nothing.
    #[inline]
    pub fn is_in_l1(&self, core: u16, at: Tagged) -> bool {
        self.in_l1(core, at).is_some()
    }

    /// Whether a core's L1 has a line that a store may write without asking anybody. Changes nothing.
    pub fn is_owned_in_l1(&self, core: u16, at: Tagged) -> bool {
        self.in_l1(core, at).is_some_and(|slot| {
            let state = self.slab.get(slot).state;
            next(state, MesiEvent::Store, Elsewhere::Others).1 != Effect::Upgrade
        })
    }

    #[inline]
    fn in_l1(&self, core: u16, at: Tagged) -> Option<SlotId> {
        let (line, core) = (at.line(), self.cores.at(self.core_index(core)));
        let mut ways = core.ways.candidates(line);
        while ways != 0 {
            let way = ways.trailing_zeros().wrapping_sub(1) as usize;
            let slot = core.l1.at_way(line.0, way);
            if slot.is_some_and(|slot| self.slab.get(slot).tag == at) {
                return slot;
            }
            ways &= ways - 1;
        }
        None
    }

    /// Says that a core will soon ask for a line that its L1 does not have, so that the host fetches what this will look at:
    /// most of it lies anywhere in tables beyond the host's caches. No effect but on speed. Gives the line that will probably
    /// have to leave L2.
    #[inline]
    pub fn expect(&self, core: u16, at: Tagged) -> Option<Slot> {
        let (line, core) = (at.line(), self.cores.at(self.core_index(core)));
        self.slab.expect(line);
        let slice = self.slab.map().slice(line);
        self.filters.at(core.package.into()).expect(self.slab.map().filter_set(line, slice));
        if let Some(slot) = core.l1.at_way(line.0, core.ways.guess(line)) {
            self.slab.expect_entry(slot);
        }
        if let Some(victim) = core.l1.oldest(line.0) {
            self.slab.expect_entry(victim);
        }
        let victim = core.l2.oldest(line.0)?;
        self.slab.expect_entry(victim);
        self.llcs.at(core.package.into()).expect(self.slab.home(victim).into());
        Some(Slot(victim))
    }
    /// What is to follow [`Hierarchy::expect`] when the line that it has given is there. What leaves L2 goes to the LLC, and
    /// drives another line out there, whose slot the new one takes: that line is given.
    #[inline]
    pub fn expect_in_llc(&self, core: u16, Slot(leaves): Slot) -> Option<Slot> {
        let package = usize::from(self.package_of(core));
        let victim = self.llcs.at(package).oldest(self.slab.home(leaves).into())?;
        self.slab.expect_entry(victim);
        self.slab.expect_data(victim);
        Some(Slot(victim))
    }
    /// What is to follow [`Hierarchy::expect_in_llc`] when the line that it has given is there. Gives that line's number if it
    /// will have to be written back.
    #[inline]
    pub fn expect_victim(&self, Slot(victim): Slot) -> Option<Line> {
        let entry = self.slab.get(victim);
        self.slab.expect(entry.tag.line());
        entry.llc_dirty.then_some(entry.tag.line())
    }

    /// The LLC slice that is home to a line in each package, whatever its KeyID: 0 to `cpu.llc_slices` - 1.
    #[inline]
    pub fn slice_of(&self, line: Line) -> u8 {
        self.slab.map().slice(line)
    }

    /// The package of a core.
    #[inline]
    pub fn package_of(&self, core: u16) -> u8 {
        self.package_of_index(self.core_index(core))
    }

    // ---- numbering

    #[inline]
    pub(crate) fn core_index(&self, core: u16) -> usize {
        usize::from(core).min(self.cores.len() - 1)
    }
    #[inline]
    fn package_of_index(&self, c: usize) -> u8 {
        self.cores.at(c).package
    }
    #[inline]
    fn core_bit(&self, c: usize) -> u128 {
        self.cores.at(c).bit
    }
    /// The cores of a package, as a mask.
    #[inline]
    pub(crate) fn cores_of(&self, package: u8) -> u128 {
        let first = usize::from(package) * usize::from(self.cores_per_package);
        self.cores.at(first).neighbours
    }

    /// What the core's lookup compares lines with: the line and its KeyID.
    #[inline]
    fn compared(&self, c: usize, at: Tagged) -> Tagged {
        if self.planted.is(Fault::TagIgnoresKeyId) {
            let bit = self.core_bit(c);
            let held = self.slab.any_of(at.line(), |entry| entry.cores & bit != 0);
            return held.map_or(at, |slot| self.slab.get(slot).tag);
        }
        at
    }

    // ---- lines come

    /// A line that is in the core's L1 and where it was last seen: the most recently used of its set from now on.
    #[inline]
    fn quick_l1(&mut self, c: usize, at: Tagged) -> Option<SlotId> {
        let (slab, core) = (&self.slab, self.cores.at_mut(c));
        core.quick(at.line(), |slot| slab.get(slot).tag == at)
    }

    /// Brings a line into the core's L1 for reading.
    #[inline]
    fn bring<P: LinePort>(&mut self, c: usize, at: Tagged, port: &mut P) -> Access {
        let at = self.compared(c, at);
        // A hit changes no state: mesi::tests::a_load_never_changes_a_valid_copy.
        if let Some(slot) = self.quick_l1(c, at) {
            count(&mut self.stats.l1.hits);
            return Access::inside(Level::L1, slot);
        }
        self.bring_slowly(c, at, port)
    }

    #[inline(never)]
    fn bring_slowly<P: LinePort>(&mut self, c: usize, at: Tagged, port: &mut P) -> Access {
        let found = self.slab.find(at);
        if let Some(slot) = found {
            // The directory is exact (verification.md C10), so it spares most misses the search.
            if self.slab.get(slot).cores & self.core_bit(c) != 0 {
                if self.cores.at_mut(c).touch_l1(at.line(), slot) {
                    count(&mut self.stats.l1.hits);
                    return Access::inside(Level::L1, slot);
                }
                count(&mut self.stats.l1.misses);
                if self.cores.at_mut(c).l2.touch(at.line().0, slot).is_some() {
                    count(&mut self.stats.l2.hits);
                    self.fill_l1(c, at, slot, port);
                    return Access::inside(Level::L2, slot);
                }
            } else {
                count(&mut self.stats.l1.misses);
            }
        } else {
            count(&mut self.stats.l1.misses);
        }
        count(&mut self.stats.l2.misses);
        self.stats.transaction(Transaction::DRd);
        let package = self.package_of_index(c);
        let (level, slot, peer) = match found {
            Some(slot) => {
                let peer = self.snooped(slot, c, package);
                (self.join(c, slot, port), slot, peer)
            }
            None => (Level::Memory, self.read_in(c, at, port), None),
        };
        self.count_answer(level);
        let (alias, aliased) = self.alias_of(slot, package);
        self.fill_l1(c, at, slot, port);
        self.fill_l2(c, at, slot, port);
        Access {
            level,
            alias,
            slice: self.slab.slice(slot),
            transaction: Some(Transaction::DRd),
            slot: Slot(slot),
            rfo_poison: None,
            peer: peer.or(aliased),
        }
    }

    /// Which other core is asked for a line: the forwarder, else the lowest-numbered holder of the package, else of all.
    #[inline]
    fn snooped(&self, slot: SlotId, c: usize, package: u8) -> Option<u16> {
        if self.slab.get(slot).cores == 0 { None } else { self.snooped_among(slot, c, package) }
    }
    #[inline(never)]
    fn snooped_among(&self, slot: SlotId, c: usize, package: u8) -> Option<u16> {
        let line = self.slab.get(slot);
        let others = line.cores & !self.core_bit(c);
        if others == 0 {
            return None;
        }
        let (here, forwarder) = (others & self.cores_of(package), self.slab.forwarder(slot));
        let among = if here != 0 { here } else { others };
        let forwards = |core: &u16| among >> (*core & 127) & 1 != 0;
        Some(forwarder.filter(forwards).unwrap_or(among.trailing_zeros() as u16))
    }

    fn count_answer(&mut self, level: Level) {
        match level {
            Level::L1 | Level::L2 => return,
            Level::Llc => {
                count(&mut self.stats.llc.hits);
                return;
            }
            Level::PeerClean => count(&mut self.stats.peer_clean),
            Level::PeerModified => count(&mut self.stats.peer_modified),
            Level::PeerRemote => count(&mut self.stats.peer_remote),
            Level::Memory => {}
        }
        count(&mut self.stats.llc.misses);
    }

    /// Reads a line that nobody holds from the controller; the core holds it alone.
    fn read_in<P: LinePort>(&mut self, c: usize, at: Tagged, port: &mut P) -> SlotId {
        let fill = port.read(at);
        count(&mut self.stats.fills);
        let trace = port.trace();
        if trace.is_on() || fill.poison.is_some() {
            let cause = trace.cause;
            trace.emit_cause(EventKind::Fill { core: c as u16, at, poison: fill.poison });
            if let Some(birth) = fill.poison {
                trace.poison_copied(birth, Location::Cache(at));
            }
            trace.cause = cause;
        }
        let slot = self.slab.add(at, c, &fill.data, fill.poison, fill.class);
        self.slab.get_mut(slot).state = next(Mesi::Invalid, MesiEvent::Load, Elsewhere::Nobody).0;
        self.enter_filter(slot, self.package_of_index(c), port);
        slot
    }

    /// Who answers a core of `package` for a line that somebody else holds.
    fn answerer(&self, line: &Entry, package: u8) -> Level {
        let here = line.cores & self.cores_of(package) != 0;
        match line.state {
            Mesi::Modified if here => Level::PeerModified,
            _ if line.llc >> (package & 7) & 1 != 0 => Level::Llc,
            _ if here => Level::PeerClean,
            _ => Level::PeerRemote,
        }
    }

    /// Who answers a core of `package` that wants the line for itself: the slowest of those who hold it, since all have to
    /// give it up.
    fn surrenderer(&self, line: &Entry, package: u8) -> Level {
        if line.cores & !self.cores_of(package) != 0 || line.llc & !(1u8 << (package & 7)) != 0 {
            return Level::PeerRemote;
        }
        self.answerer(line, package)
    }

    /// A core that does not hold the line reads it from those who do.
    #[inline]
    fn join<P: LinePort>(&mut self, c: usize, slot: SlotId, port: &mut P) -> Level {
        let package = self.package_of_index(c);
        let own_llc = 1u8 << (package & 7);
        let line = self.slab.get(slot);
        if line.cores != 0 || line.llc & !own_llc != 0 {
            return self.join_others(c, slot, port);
        }
        let elsewhere = if line.llc_dirty { Elsewhere::OwnLlcDirty } else { Elsewhere::Nobody };
        // A victim cache: the copy moves up, and the duty to write back with it (timing.md §1.1 LLC policy).
        self.leave_llcs(slot, own_llc);
        let bit = self.core_bit(c);
        let line = self.slab.get_mut(slot);
        line.llc_dirty = false;
        line.cores = bit;
        line.state = next(Mesi::Invalid, MesiEvent::Load, elsewhere).0;
        self.enter_filter(slot, package, port);
        Level::Llc
    }

    #[inline(never)]
    fn join_others<P: LinePort>(&mut self, c: usize, slot: SlotId, port: &mut P) -> Level {
        let package = self.package_of_index(c);
        let own_llc = 1u8 << (package & 7);
        let line = *self.slab.get(slot);
        let (level, before, bit) = (self.answerer(&line, package), line.cores, self.core_bit(c));
        let elsewhere = Elsewhere::Others;
        let (mine, _) = next(Mesi::Invalid, MesiEvent::Load, elsewhere);
        let (_, effect) = next(line.state, MesiEvent::PeerLoad, elsewhere);
        if line.cores & self.cores_of(package) == 0 && line.llc & own_llc == 0 && line.is_dirty() {
            // Another package's dirty line becomes clean: MESI has no state for a dirty line shared across packages.
            self.write_back(slot, Why::Snoop, true, port);
        } else if effect == Effect::HandOver {
            // The owner is in this package: its LLC takes the duty.
            self.settle_in_llc(package, slot, true, port);
        }
        let line = self.slab.get_mut(slot);
        // The slab's state of several copies is S; who of them is in F is kept beside it, and that is the latest reader:
        // mesi::tests::to_a_forwarder_happens_what_happens_to_a_sharer.
        line.state = match line.state {
            Mesi::Invalid => {
                if mine == Mesi::Forward {
                    Mesi::Shared
                } else {
                    mine
                }
            }
            peers => next(peers, MesiEvent::PeerLoad, elsewhere).0,
        };
        line.cores |= bit;
        self.slab.read_last_by(slot, c);
        if level == Level::Llc {
            let home = self.slab.home(slot).into();
            self.llcs.at_mut(package.into()).touch(home, slot);
        }
        if before & self.cores_of(package) == 0 {
            self.enter_filter(slot, package, port);
        } else {
            self.touch_filter(slot, package);
        }
        level
    }

    /// Makes the core the only holder, ready to write. `fetch` is whether the old content is wanted.
    #[inline]
    fn own<P: LinePort>(&mut self, c: usize, at: Tagged, fetch: bool, port: &mut P) -> Access {
        let at = self.compared(c, at);
        if let Some(slot) = self.quick_l1(c, at) {
            let line = self.slab.get_mut(slot);
            let (state, effect) = next(line.state, MesiEvent::Store, Elsewhere::Others);
            if effect != Effect::Upgrade {
                line.state = state;
                count(&mut self.stats.l1.hits);
                return Access::inside(Level::L1, slot);
            }
        }
        self.own_slowly(c, at, fetch, port)
    }

    #[inline(never)]
    fn own_slowly<P: LinePort>(
        &mut self,
        c: usize,
        at: Tagged,
        fetch: bool,
        port: &mut P,
    ) -> Access {
        let found = self.slab.find(at);
        let transaction = if fetch { Transaction::RFO } else { Transaction::ItoM };
        let package = self.package_of_index(c);
        let here = match found {
            Some(slot) if self.slab.get(slot).cores & self.core_bit(c) != 0 => {
                if self.cores.at_mut(c).touch_l1(at.line(), slot) {
                    count(&mut self.stats.l1.hits);
                    Some((Level::L1, slot))
                } else {
                    count(&mut self.stats.l1.misses);
                    let there = self.cores.at_mut(c).l2.touch(at.line().0, slot).is_some();
                    there.then_some((Level::L2, slot))
                }
            }
            _ => {
                count(&mut self.stats.l1.misses);
                None
            }
        };
        if let Some((mut level, slot)) = here {
            if level == Level::L2 {
                count(&mut self.stats.l2.hits);
                self.fill_l1(c, at, slot, port);
            }
            let line = *self.slab.get(slot);
            let (state, effect) = next(line.state, MesiEvent::Store, Elsewhere::Others);
            if effect != Effect::Upgrade {
                self.slab.get_mut(slot).state = state;
                return Access::inside(level, slot);
            }
            count(&mut self.stats.upgrades);
            self.stats.transaction(transaction);
            let others = Entry { cores: line.cores & !self.core_bit(c), ..line };
            if others.is_held() {
                level = level.max(self.surrenderer(&others, package));
            }
            let peer = self.snooped(slot, c, package);
            self.take_over(c, slot, port);
            self.slab.get_mut(slot).state = state;
            let (alias, aliased) = self.alias_of(slot, package);
            return Access {
                level,
                alias,
                slice: self.slab.slice(slot),
                transaction: Some(transaction),
                slot: Slot(slot),
                rfo_poison: None,
                peer: peer.or(aliased),
            };
        }
        count(&mut self.stats.l2.misses);
        self.stats.transaction(transaction);
        let (level, slot, peer) = match found {
            Some(slot) => {
                let level = self.surrenderer(self.slab.get(slot), package);
                let peer = self.snooped(slot, c, package);
                self.count_answer(level);
                self.take_over(c, slot, port);
                (level, slot, peer)
            }
            None if fetch => {
                self.count_answer(Level::Memory);
                (Level::Memory, self.read_in(c, at, port), None)
            }
            None => {
                count(&mut self.stats.unread_owned);
                let slot = self.slab.add(at, c, &LineData::ZERO, None, DataClass::Plain);
                self.enter_filter(slot, package, port);
                (Level::Llc, slot, None)
            }
        };
        let (alias, aliased) = self.alias_of(slot, package);
        let line = self.slab.get_mut(slot);
        line.state = next(Mesi::Invalid, MesiEvent::Store, Elsewhere::Others).0;
        let rfo_poison = line.poison.filter(|_| fetch);
        self.fill_l1(c, at, slot, port);
        self.fill_l2(c, at, slot, port);
        Access {
            level,
            alias,
            slice: self.slab.slice(slot),
            transaction: Some(transaction),
            slot: Slot(slot),
            rfo_poison,
            peer: peer.or(aliased),
        }
    }

    /// Every other copy is invalidated; a duty to write back goes to the core, which is about to modify the line.
    fn take_over<P: LinePort>(&mut self, c: usize, slot: SlotId, port: &mut P) {
        let (before, llc) = (self.slab.get(slot).cores, self.slab.get(slot).llc);
        let (mine, package) = (self.core_bit(c), self.package_of_index(c));
        // First the core holds it, so that the filter's entry stays where there is one.
        self.slab.get_mut(slot).cores |= mine;
        self.leave_cores(slot, before & !mine);
        self.leave_llcs(slot, llc);
        self.slab.get_mut(slot).llc_dirty = false;
        if before & self.cores_of(package) == 0 {
            self.enter_filter(slot, package, port);
        } else {
            self.touch_filter(slot, package);
        }
    }

    /// Writes into a line that the core owns.
    #[inline]
    fn write_into<P: LinePort>(
        &mut self,
        core: u16,
        slot: SlotId,
        data: &LineData,
        mask: ByteMask,
        port: &mut P,
    ) {
        let line = self.slab.write(slot, data, mask);
        let mut laundered = None;
        if mask.is_full() || self.planted.is(Fault::StoreLaundersPoison) {
            laundered = line.poison.take();
        }
        let at = line.tag;
        let trace = port.trace();
        if trace.is_on() || laundered.is_some() {
            let cause = trace.cause;
            trace.emit_cause(EventKind::CacheStore { core, at, mask });
            if let Some(birth) = laundered {
                trace.poison_gone(birth, Location::Cache(at));
            }
            trace.cause = cause;
        }
    }

    // ---- lines move and go

    fn fill_l1<P: LinePort>(&mut self, c: usize, at: Tagged, slot: SlotId, port: &mut P) {
        let core = self.cores.at_mut(c);
        let (victim, way) = core.l1.insert(at.line().0, slot);
        core.ways.enter(at.line(), way);
        if victim == 0 {
            return;
        }
        count(&mut self.stats.l1.evictions);
        let line = self.slab.get(victim);
        let (tag, state) = (line.tag, line.state);
        if core.l2.holds(tag.line().0, victim) {
            return;
        }
        // L2 is not inclusive of L1 (timing.md §1.1): a modified victim needs a place there, a clean one is dropped.
        if next(state, MesiEvent::Evict, Elsewhere::Others).1 == Effect::HandOver {
            self.fill_l2(c, tag, victim, port);
        } else {
            port.trace().emit(EventKind::LeftCore { core: c as u16, at: tag });
            self.has_left(victim, c);
            self.release_if_free(victim, Why::Capacity, port);
        }
    }

    fn fill_l2<P: LinePort>(&mut self, c: usize, at: Tagged, slot: SlotId, port: &mut P) {
        let core = self.cores.at_mut(c);
        let (victim, _) = core.l2.insert(at.line().0, slot);
        if victim == 0 {
            return;
        }
        count(&mut self.stats.l2.evictions);
        let line = self.slab.get(victim);
        let (tag, state) = (line.tag, line.state);
        if core.l1.holds(tag.line().0, victim) {
            count(&mut self.stats.l2_kept);
            return;
        }
        let dirty = next(state, MesiEvent::Evict, Elsewhere::Others).1 == Effect::HandOver;
        self.stats.transaction(match state {
            _ if dirty => Transaction::WbMtoI,
            Mesi::Shared if self.slab.forwarder(victim) != Some(c as u16) => Transaction::WbStoI,
            _ => Transaction::WbEFtoE,
        });
        port.trace().emit(EventKind::LeftCore { core: c as u16, at: tag });
        self.has_left(victim, c);
        self.settle_in_llc(self.package_of_index(c), victim, dirty, port);
    }

    /// A line goes into a package's LLC; `dirty` if the duty to write back goes with it.
    pub(crate) fn settle_in_llc<P: LinePort>(
        &mut self,
        package: u8,
        slot: SlotId,
        dirty: bool,
        port: &mut P,
    ) {
        let bit = 1u8 << (package & 7);
        let home = self.slab.home(slot).into();
        let line = self.slab.get_mut(slot);
        let there = line.llc & bit != 0;
        line.llc |= bit;
        line.llc_dirty |= dirty;
        let llc = self.llcs.at_mut(package.into());
        if there {
            llc.touch(home, slot);
            return;
        }
        let (victim, _) = llc.insert(home, slot);
        if victim == 0 {
            return;
        }
        count(&mut self.stats.llc.evictions);
        let line = self.slab.get_mut(victim);
        line.llc &= !bit;
        if line.llc_dirty {
            let kept = line.is_held();
            self.write_back(victim, Why::Capacity, kept, port);
        } else {
            self.release_if_free(victim, Why::Capacity, port);
        }
    }

    /// The line is in neither of the core's caches any more.
    fn has_left(&mut self, slot: SlotId, c: usize) {
        let package = self.package_of_index(c);
        let (of_package, bit) = (self.cores_of(package), self.core_bit(c));
        let line = self.slab.get_mut(slot);
        line.cores &= !bit;
        if line.cores == 0 {
            line.state = Mesi::Invalid;
        }
        if line.cores & of_package == 0 {
            self.leave_filter(slot, package);
        }
    }

    /// The line leaves these cores' caches, and the snoop filters of packages that are left without. Whoever calls looks
    /// after a duty to write back.
    pub(crate) fn leave_cores(&mut self, slot: SlotId, cores: u128) {
        let before = self.slab.get(slot).cores;
        if before & cores == 0 {
            return;
        }
        self.drop_from_cores(slot, cores);
        let after = self.slab.get(slot).cores;
        for package in 0..self.llcs.len() as u8 {
            let of_package = self.cores_of(package);
            if before & of_package != 0 && after & of_package == 0 {
                self.leave_filter(slot, package);
            }
        }
    }

    /// The line leaves these cores' caches; its snoop filters know already.
    pub(crate) fn drop_from_cores(&mut self, slot: SlotId, cores: u128) {
        let line = self.slab.get_mut(slot);
        let set = line.tag.line().0;
        let mut leaving = line.cores & cores;
        line.cores &= !cores;
        if line.cores == 0 {
            line.state = Mesi::Invalid;
        }
        while leaving != 0 {
            let core = self.cores.at_mut(leaving.trailing_zeros() as usize);
            core.l1.remove(set, slot);
            core.l2.remove(set, slot);
            leaving &= leaving - 1;
        }
    }

    /// The line leaves these packages' LLCs. Whoever calls looks after a duty to write back.
    pub(crate) fn leave_llcs(&mut self, slot: SlotId, packages: u8) {
        let home = self.slab.home(slot).into();
        let line = self.slab.get_mut(slot);
        let mut leaving = line.llc & packages;
        line.llc &= !packages;
        while leaving != 0 {
            self.llcs.at_mut(leaving.trailing_zeros() as usize).remove(home, slot);
            leaving &= leaving - 1;
        }
    }

    /// Writes a modified line to the controller under its own KeyID, poison included (verification.md C5). The copies
    /// that stay are clean; if none stays (`kept` false), the line is gone.
    pub(crate) fn write_back<P: LinePort>(
        &mut self,
        slot: SlotId,
        why: Why,
        kept: bool,
        port: &mut P,
    ) {
        let line = self.slab.get_mut(slot);
        line.llc_dirty = false;
        line.state = next(line.state, MesiEvent::WriteBackKeep, Elsewhere::Others).0;
        let line = *line;
        count(&mut self.stats.write_backs);
        let cause = port.trace().emit_cause(EventKind::WriteBack { at: line.tag, why, kept });
        port.write(line.tag, self.slab.data(slot), line.poison);
        if !kept {
            self.forget(slot, port);
        }
        port.trace().cause = cause;
    }

    /// Lets the line go if nobody holds it any more. It is clean, or a device overwrote all of it.
    pub(crate) fn release_if_free<P: LinePort>(&mut self, slot: SlotId, why: Why, port: &mut P) {
        let line = self.slab.get(slot);
        if line.is_held() {
            return;
        }
        let at = line.tag;
        count(&mut self.stats.dropped);
        let cause = port.trace().emit_cause(EventKind::Dropped { at, why });
        self.forget(slot, port);
        port.trace().cause = cause;
    }

    /// The slab entry disappears, and its poison with it. After the write-back, so that poison which goes to memory
    /// does not die on the way.
    fn forget<P: LinePort>(&mut self, slot: SlotId, port: &mut P) {
        let line = self.slab.get(slot);
        if let Some(birth) = line.poison {
            port.trace().poison_gone(birth, Location::Cache(line.tag));
        }
        self.slab.remove(slot);
    }

    /// The line leaves every cache, written back first if it is modified and `keep_data`. Returns whether it was there.
    pub(crate) fn expel<P: LinePort>(
        &mut self,
        at: Tagged,
        why: Why,
        keep_data: bool,
        port: &mut P,
    ) -> bool {
        let Some(slot) = self.slab.find(at) else { return false };
        let line = *self.slab.get(slot);
        let (_, effect) = next(line.state, MesiEvent::Flush, Elsewhere::Others);
        let dirty = effect == Effect::WriteBack || line.llc_dirty;
        self.leave_cores(slot, line.cores);
        self.leave_llcs(slot, line.llc);
        if dirty && keep_data {
            self.write_back(slot, why, false, port);
        } else {
            self.release_if_free(slot, why, port);
        }
        true
    }
}
