//! What an access spends outside DRAM: a sum of parts, each a number of clocks of its domain.
//!
//! Nothing here queues: mesh and home agents serve as many requests as come (docs/DEVIATIONS.md D32). What is limited is
//! the core's buffers ([`crate::window`]) and the controllers' queues.
//!
//! | Answered by | Parts |
//! |---|---|
//! | L1 | `cpu.l1_clocks` |
//! | L2 | `cpu.l2_clocks` |
//! | LLC | L2, `cpu.miss_clocks`, into the mesh, hops to the home agent, home agent, data of the slice, hops back, out of the mesh |
//! | another core | as LLC, but for the data of the slice: hops to that core, its answer to the snoop, hops from it |
//! | memory | as LLC, but for the data of the slice: hops to the controller, controller, hops from it; DRAM, decryption, MAC |
//! | another package | as another core, and there and back between the packages |
//!
//! A line that another core of the package holds under another KeyID has an entry in the snoop filter, which knows no
//! KeyIDs: that core is asked in vain before memory is (verification.md C13).

use serde::{Deserialize, Serialize};
use sim_core::platform::PlatformSpec;
use sim_core::{Line, Ps};

/// A place in the mesh: column and row.
type Tile = (u8, u8);

/// Where the parts of a package lie, and what they cost. Derived from the platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Uncore {
    /// Load-to-use of a hit.
    pub(crate) l1: Ps,
    pub(crate) l2: Ps,
    /// In the core, mesh entry and exit, and home agent: what every access that misses L2 spends.
    common: Ps,
    hop: Ps,
    llc_data: Ps,
    snoop: Ps,
    snoop_modified: Ps,
    controller: Ps,
    remote: Ps,
    /// From a core to a home agent without hops, for a direct store, and on to the controller's queue.
    direct: Ps,
    pub(crate) direct_lookup: Ps,
    cores: Vec<Tile>,
    slices: Vec<Tile>,
    controllers: Vec<Tile>,
}

const fn distance(a: Tile, b: Tile) -> u64 {
    (a.0.abs_diff(b.0) + a.1.abs_diff(b.1)) as u64
}

/// Whom a line was got from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    Llc,
    /// A core of the package, by its number there.
    Peer {
        core: u16,
        modified: bool,
    },
    Remote,
}

impl Uncore {
    pub(crate) fn new(spec: &PlatformSpec) -> Uncore {
        let (cpu, uncore) = (&spec.cpu, &spec.uncore);
        let clocks = |n: u8| uncore.clock.cycles(n.into());
        let (columns, rows) = (uncore.mesh_columns.max(1), uncore.mesh_rows.max(1));
        let tiles = usize::from(columns) * usize::from(rows);
        let tile = |i: usize| ((i % usize::from(columns)) as u8, (i / usize::from(columns)) as u8);
        let cores = usize::from(cpu.cores / u16::from(cpu.packages.max(1))).max(1);
        let slices = usize::from(cpu.llc_slices).max(1);
        let channels = usize::from(spec.dram.channels).max(1);
        let in_core = cpu.core_clock.cycles(u64::from(cpu.l2_clocks) + u64::from(cpu.miss_clocks));
        let issue = cpu.core_clock.cycles(1);
        Uncore {
            l1: cpu.core_clock.cycles(cpu.l1_clocks.into()),
            l2: cpu.core_clock.cycles(cpu.l2_clocks.into()),
            common: in_core + clocks(uncore.ingress).times(2) + clocks(uncore.home),
            hop: clocks(uncore.hop),
            llc_data: clocks(uncore.llc_data),
            snoop: clocks(uncore.snoop),
            snoop_modified: clocks(uncore.snoop_modified),
            controller: clocks(uncore.controller),
            remote: uncore.remote,
            direct: issue + clocks(uncore.ingress) + clocks(uncore.home) + uncore.direct_admission,
            direct_lookup: uncore.direct_lookup,
            // Fewer cores than tiles are spread over the mesh.
            cores: (0..cores).map(|c| tile(c * tiles / cores % tiles)).collect(),
            slices: (0..slices).map(|s| tile(s % tiles)).collect(),
            // Four controllers at the left and right edge, a quarter from the top and from the bottom.
            controllers: (0..channels)
                .map(|c| {
                    let place = c * 4 / channels;
                    let quarter = rows / 4;
                    let row = if place < 2 { quarter } else { rows - 1 - quarter };
                    (if place % 2 == 0 { 0 } else { columns - 1 }, row)
                })
                .collect(),
        }
    }

    fn core(&self, core: u16) -> Tile {
        // Cores are numbered package by package; all packages are alike.
        let n = self.cores.len().max(1);
        self.cores.get(usize::from(core) % n).copied().unwrap_or_default()
    }
    fn slice(&self, slice: u32) -> Tile {
        self.slices.get(slice as usize).copied().unwrap_or_default()
    }
    fn hops(&self, count: u64) -> Ps {
        self.hop.times(count)
    }

    /// Load-to-use of an access that misses L2 and is answered without memory.
    pub(crate) fn cached(&self, core: u16, slice: u32, whence: Whence) -> Ps {
        let (from, home) = (self.core(core), self.slice(slice));
        let there = distance(from, home);
        match whence {
            Whence::Llc => self.common + self.hops(2 * there) + self.llc_data,
            Whence::Peer { core: peer, modified } => {
                let peer = self.core(peer);
                let hops = there + distance(home, peer) + distance(peer, from);
                let more = if modified { self.snoop_modified } else { Ps::ZERO };
                self.common + self.hops(hops) + self.snoop + more
            }
            Whence::Remote => self.common + self.hops(2 * there) + self.snoop + self.remote,
        }
    }

    /// What an access that memory answers spends outside DRAM, without decryption and MAC. `alias` is a core of the
    /// package that holds the line under another KeyID, and whether modified: it is asked in vain.
    pub(crate) fn memory(
        &self,
        core: u16,
        slice: u32,
        channel: u8,
        remote: bool,
        alias: Option<(u16, bool)>,
    ) -> Ps {
        let (from, home) = (self.core(core), self.slice(slice));
        let at = self.controllers.get(usize::from(channel)).copied().unwrap_or_default();
        let mut hops = distance(from, home) + distance(home, at) + distance(at, from);
        let mut time = self.common + self.controller;
        if let Some((peer, modified)) = alias {
            hops += 2 * distance(home, self.core(peer));
            time += self.snoop;
            if modified {
                time += self.snoop_modified;
            }
        }
        if remote {
            time += self.remote;
        }
        time + self.hops(hops)
    }

    /// How long a direct store occupies one of the core's places for them, if the home agent remembers its line.
    pub(crate) fn direct(&self, core: u16, slice: u32, channel: u8) -> Ps {
        let (from, home) = (self.core(core), self.slice(slice));
        let at = self.controllers.get(usize::from(channel)).copied().unwrap_or_default();
        self.direct + self.hops(distance(from, home) + distance(home, at))
    }
}

/// Lines that a package's home agents remember of direct stores: direct-mapped, by a fold of the line number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DirectLines {
    /// By place: line number plus one, 0 for none.
    lines: Vec<u64>,
}

impl DirectLines {
    pub(crate) fn new(spec: &PlatformSpec) -> DirectLines {
        DirectLines { lines: vec![0; spec.uncore.direct_lines.max(1) as usize] }
    }
    /// Whether a line is remembered; from now on it is.
    pub(crate) fn touch(&mut self, line: Line) -> bool {
        let mask = self.lines.len().next_power_of_two() as u64 - 1;
        let place = (line.0 ^ line.0 >> 20) & mask;
        let Some(kept) = self.lines.get_mut(place as usize) else { return false };
        std::mem::replace(kept, line.0 + 1) == line.0 + 1
    }
}
