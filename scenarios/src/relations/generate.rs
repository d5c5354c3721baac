//! Random worlds, small and full of collisions: few lines, few KeyIDs, few cores, caches of two sets.

use super::discipline::{Breach, Discipline, Rules};
use super::world::{Step, World};
use machine::{AgentKind, AgentSpec, Order, Speed};
use sim_core::op::{KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::planted::Planted;
use sim_core::prng::Prng;
use sim_core::{Addr, Hpa, KeyId, Op, PlatformSpec, Ps};
use std::collections::BTreeSet;

/// The first page of a world, which package 0 serves. Lines 0 and 2 of it fall into one set of a cache of two.
pub const PAGE: u64 = 0x1000_0000;
/// Another, which package 1 serves where there is one.
pub const FAR: u64 = 0x5000_0000;
/// Two private KeyIDs of the presets: `priv1` and `priv2`.
pub const PRIVATE: [KeyId; 2] = [KeyId(65), KeyId(66)];
/// A shared KeyID above 0.
pub const SHARED: KeyId = KeyId(1);

/// A generator that picks.
pub struct Dice(Prng);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(Prng::new(seed))
    }
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
    /// Whether one of `n` comes.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.0.ratio(1, n)
    }
    /// One of these; the default where there is none.
    pub fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        from.get(self.below(from.len() as u64) as usize).copied().unwrap_or_default()
    }
    /// Puts a list in random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// What a generated program is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// What it keeps to.
    pub rules: Rules,
    /// Attacks and faults, integrity of shared keys, keys that change.
    pub faults: bool,
    /// Whether disciplined hosts use a shared KeyID above 0 too.
    pub shared: bool,
    /// Operations of several agents side by side.
    pub concurrent: bool,
    /// About how many lines.
    pub length: u64,
    /// The partial-write erratum; random where absent.
    pub erratum: Option<bool>,
}

impl Style {
    /// No rules at all.
    pub const RAW: Style = Style {
        rules: Rules { fenced: false, one_key: false, policy: false, cleared: false },
        faults: true,
        shared: true,
        concurrent: false,
        length: 40,
        erratum: None,
    };
    /// A program that keeps to rules.
    pub const fn disciplined(rules: Rules) -> Style {
        Style { rules, faults: false, ..Style::RAW }
    }
}

/// Who owns a line of a disciplined program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Host(KeyId),
    Private(usize),
}

/// A world, and what its maker knows of it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The world.
    pub world: World,
    /// Lines that clear what was private (verification.md V3).
    pub clears: BTreeSet<u32>,
    /// Lines that flush what changes its KeyID (V1, V2).
    pub flushes: BTreeSet<u32>,
}

struct Maker<'a> {
    dice: &'a mut Dice,
    style: Style,
    made: Made,
    discipline: Discipline,
    spec: PlatformSpec,
    lines: Vec<(Hpa, Phase)>,
}

/// A random platform: caches of two sets, few buffers, both modes, with and without the erratum.
pub fn settings(dice: &mut Dice, style: &Style) -> Vec<(String, String)> {
    let mut set: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: String| set.push((key.to_owned(), value));
    let packages = if dice.one_in(3) { 2 } else { 1 };
    let cores = packages * (1 + dice.below(3 - packages + 1));
    put("cpu.packages", packages.to_string());
    put("cpu.cores", cores.to_string());
    put("memory.integrity", if dice.one_in(2) { "ci" } else { "li" }.to_owned());
    let erratum = style.erratum.unwrap_or_else(|| dice.one_in(2));
    put("memory.erratum_pw_mce", erratum.to_string());
    geometry(dice, &mut put);
    put("mce.lmce", (!dice.one_in(5)).to_string());
    put("cpu.fast_string_no_rfo", dice.one_in(2).to_string());
    if style.faults {
        put("memory.tme_bypass", dice.one_in(10).to_string());
        put("cpu.rfo_poison_mc", dice.one_in(5).to_string());
        if dice.one_in(5) {
            put("cpu.wc_age", "40ns".to_owned());
        }
    }
    set
}

/// Random caches and buffers.
pub(super) fn geometry(dice: &mut Dice, put: &mut impl FnMut(&str, String)) {
    for level in ["l1d", "l2", "llc"] {
        let ways = 1 + dice.below(2);
        put(&format!("cpu.{level}.ways"), ways.to_string());
        put(&format!("cpu.{level}.size"), format!("{}B", 2 * 64 * ways));
    }
    put("cpu.llc_slices", (1 + dice.below(2)).to_string());
    put("cpu.slice_hash", "0x40".to_owned());
    put("cpu.snoop_filter.sets", "1".to_owned());
    put("cpu.snoop_filter.ways", (1 + dice.below(2)).to_string());
    put("cpu.flush_sub_blocks", "2".to_owned());
    put("cpu.wc_buffers", (1 + dice.below(2)).to_string());
    put("cpu.weak_slots", (1 + dice.below(3)).to_string());
}

/// The agents of a world on a platform of so many cores.
pub fn agents(spec: &PlatformSpec) -> Vec<AgentSpec> {
    let (cores, packages) = (spec.cpu.cores, u16::from(spec.cpu.packages));
    let agent = |name: String, kind, core, keyid| AgentSpec { name, kind, core, keyid, vcpu: None };
    let kernels = (0..cores).map(|c| agent(format!("cpu{c}"), AgentKind::Kernel, c, KeyId::TME));
    let mut all: Vec<AgentSpec> = kernels.collect();
    // The module's agents: one in each package.
    for core in (0..cores).step_by(usize::from(cores / packages.max(1)).max(1)) {
        all.push(agent(format!("seam{core}"), AgentKind::Seam, core, KeyId::TME));
    }
    all.push(agent("tdA".to_owned(), AgentKind::Td, 1 % cores, PRIVATE[0]));
    all.push(agent("tdB".to_owned(), AgentKind::Td, 2 % cores, PRIVATE[1]));
    all.push(agent("user0".to_owned(), AgentKind::User, 0, KeyId::TME));
    all.push(agent("dma0".to_owned(), AgentKind::Device, 0, KeyId::TME));
    all.push(agent("hw".to_owned(), AgentKind::Hardware, 0, KeyId::TME));
    all
}

/// A random world. `None` if its platform does not fit, which a test forbids.
pub(super) fn world(dice: &mut Dice, style: Style) -> Option<Made> {
    let speed = if dice.one_in(3) { Speed::Functional } else { Speed::Timed };
    let set = settings(dice, &style);
    let order = if style.concurrent { Order::Concurrent } else { Order::Program };
    let world = World {
        preset: if dice.one_in(4) { "gnr" } else { "spr" },
        set,
        agents: Vec::new(),
        steps: Vec::new(),
        order,
        speed,
        seed: dice.below(1000),
        log: true,
        tables: String::new(),
        planted: Planted::NONE,
    };
    fill(dice, style, world)
}

/// Fills a world that has a platform with agents and a program.
pub(super) fn fill(dice: &mut Dice, style: Style, mut world: World) -> Option<Made> {
    let spec = world.platform().ok()?;
    world.agents = agents(&spec);
    let discipline = Discipline::new(style.rules, &spec);
    let lines = [PAGE, PAGE + 64, PAGE + 128, FAR].map(|at| (Hpa(at), Phase::Host(KeyId::TME)));
    let made = Made { world, clears: BTreeSet::new(), flushes: BTreeSet::new() };
    let mut maker = Maker { dice, style, made, discipline, spec, lines: lines.to_vec() };
    maker.prelude();
    while (maker.made.world.steps.len() as u64) < style.length {
        maker.next();
    }
    maker.read_out();
    Some(maker.made)
}

/// A line of a program without rules for a world that has agents.
pub(super) fn line(dice: &mut Dice, world: &World) -> Option<(u16, Op)> {
    let spec = world.platform().ok()?;
    let discipline = Discipline::new(Rules::default(), &spec);
    let lines = [PAGE, PAGE + 64, PAGE + 128, FAR].map(|at| (Hpa(at), Phase::Host(KeyId::TME)));
    let world = World { steps: Vec::new(), ..world.clone() };
    let made = Made { world, clears: BTreeSet::new(), flushes: BTreeSet::new() };
    let style = Style::RAW;
    let mut maker = Maker { dice, style, made, discipline, spec, lines: lines.to_vec() };
    loop {
        maker.next();
        if let Some(Some(step)) = maker.made.world.steps.last() {
            return Some((step.agent, step.op));
        }
    }
}

impl Maker<'_> {
    fn agent(&self, kind: AgentKind, core: u16) -> u16 {
        self.made.world.agent(kind, core).unwrap_or(0)
    }
    fn kernel(&mut self) -> u16 {
        self.dice.below(self.spec.cpu.cores.into()) as u16
    }
    fn value(&mut self, bytes: u32) -> Value {
        match self.dice.below(4) {
            0 => Value::Unsaid,
            // A number fits what is written, at most 8 bytes.
            1 => Value::Num(self.dice.below(u64::MAX) >> (64 - 8 * bytes.clamp(1, 8))),
            _ => Value::Fill(self.dice.below(256) as u8),
        }
    }

    /// Adds a line if the rules allow it, fences before it where they ask for some. Its number.
    fn add(&mut self, agent: u16, op: Op) -> Option<u32> {
        for _ in 0..=self.spec.cpu.cores {
            let step = Step { id: self.made.world.fresh(), agent, op };
            let spec = self.made.world.agents.get(usize::from(agent))?;
            match self.discipline.follow(spec, &step) {
                Ok(()) => {
                    self.made.world.steps.push(Some(step));
                    return Some(step.id);
                }
                Err(Breach::Fence(core)) => {
                    let fence = Step { agent: core, op: Op::Mfence, ..step };
                    let spec = self.made.world.agents.get(usize::from(core))?;
                    self.discipline.follow(spec, &fence).ok()?;
                    self.made.world.steps.push(Some(fence));
                }
                Err(_) => return None,
            }
        }
        None
    }
    fn fence_all(&mut self) {
        for core in 0..self.spec.cpu.cores {
            self.add(core, Op::Mfence);
        }
    }

    /// Keys, and lines that have been written.
    fn prelude(&mut self) {
        let per = (self.spec.cpu.cores / u16::from(self.spec.cpu.packages.max(1))).max(1);
        for core in (0..self.spec.cpu.cores).step_by(per.into()) {
            let seam = self.agent(AgentKind::Seam, core);
            for keyid in PRIVATE {
                self.add(seam, Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None });
            }
            let alg = (self.style.faults && self.dice.one_in(2)).then_some(KeyAlg::Xts128Integrity);
            let cmd = PconfigCmd::SetRandom;
            self.add(core, Op::Pconfig { keyid: SHARED, cmd, alg });
        }
        if self.style.rules.one_key {
            return;
        }
        let seam = self.agent(AgentKind::Seam, 0);
        for _ in 0..self.dice.below(6) {
            let hpa = self.line().0;
            let keyid = self.dice.pick(&[0, 1, 65, 65, 66]);
            let dst = Addr::new(hpa, KeyId(keyid));
            let src = Source::Fill(self.dice.below(256) as u8);
            self.add(seam, Op::Movdir64b { dst, src });
        }
        self.add(0, Op::Mfence);
    }

    fn line(&mut self) -> (Hpa, Phase) {
        let n = self.dice.below(self.lines.len() as u64) as usize;
        self.lines.get(n).copied().unwrap_or((Hpa(PAGE), Phase::Host(KeyId::TME)))
    }

    fn next(&mut self) {
        if self.dice.one_in(8) {
            let (agent, op) = self.anywhere();
            self.add(agent, op);
            return;
        }
        if self.style.rules.one_key && self.dice.one_in(6) {
            self.hand_over();
            return;
        }
        let (hpa, phase) = self.line();
        let (agent, keyid) = match (self.style.rules.one_key, phase) {
            (false, _) => self.anybody(),
            (true, Phase::Host(keyid)) => (self.host(keyid), keyid),
            (true, Phase::Private(n)) => {
                let kind = if n == 0 { 1 } else { 2 };
                let td = self.agent(AgentKind::Td, kind % self.spec.cpu.cores);
                let td = self.td(n).unwrap_or(td);
                let keyid = PRIVATE.get(n).copied().unwrap_or_default();
                let seam = self.agent(AgentKind::Seam, 0);
                (if self.dice.one_in(5) { seam } else { td }, keyid)
            }
        };
        let at = Addr::new(hpa, keyid);
        if let Some(op) = self.operation(agent, at) {
            self.add(agent, op);
        }
    }

    fn td(&self, n: usize) -> Option<u16> {
        let keyid = PRIVATE.get(n)?;
        let fits = |a: &AgentSpec| a.kind == AgentKind::Td && a.keyid == *keyid;
        self.made.world.agents.iter().position(fits).map(|i| i as u16)
    }

    /// Who accesses memory of the host.
    fn host(&mut self, keyid: KeyId) -> u16 {
        let (user, device) = (self.agent(AgentKind::User, 0), self.agent(AgentKind::Device, 0));
        match self.dice.below(8) {
            0 => user,
            1 | 2 => device,
            // A TD reaches shared memory under KeyID 0 only here.
            3 if keyid == KeyId::TME => self.td(0).unwrap_or(0),
            _ => self.kernel(),
        }
    }

    /// Anybody, with any KeyID: mostly one that he can form.
    fn anybody(&mut self) -> (u16, KeyId) {
        let agents = self.made.world.agents.len() as u64;
        let agent = self.dice.below(agents) as u16;
        let spec = self.made.world.agents.get(usize::from(agent));
        let any = [0, 0, 1, 65, 66];
        let keyid = match spec.map(|a| (a.kind, a.keyid)) {
            Some((AgentKind::Seam | AgentKind::Hardware, _)) => self.dice.pick(&any),
            Some((AgentKind::Td, own)) => match self.dice.below(10) {
                0 => self.dice.pick(&any),
                1 | 2 => 0,
                _ => own.0,
            },
            _ => match self.dice.below(14) {
                0 => self.dice.pick(&any),
                1 | 2 => 1,
                _ => 0,
            },
        };
        (agent, KeyId(keyid))
    }

    /// A line changes hands, as the rules have it.
    fn hand_over(&mut self) {
        let n = self.dice.below(self.lines.len() as u64) as usize;
        let Some((hpa, phase)) = self.lines.get(n).copied() else { return };
        let next = match self.dice.below(4) {
            0 if self.style.shared => Phase::Host(SHARED),
            2 | 3 => Phase::Private(self.dice.below(2) as usize),
            _ => Phase::Host(KeyId::TME),
        };
        let key = |phase| match phase {
            Phase::Host(keyid) => keyid,
            Phase::Private(n) => PRIVATE.get(n).copied().unwrap_or_default(),
        };
        let (old, new) = (key(phase), key(next));
        if old == new {
            return;
        }
        self.fence_all();
        // Flushed: by line, or with everything of every package.
        let from = self.made.world.fresh();
        if self.dice.one_in(3) {
            let per = (self.spec.cpu.cores / u16::from(self.spec.cpu.packages.max(1))).max(1);
            for core in (0..self.spec.cpu.cores).step_by(per.into()) {
                self.add(core, Op::Wbinvd);
            }
        } else {
            let who = match phase {
                Phase::Private(_) => self.agent(AgentKind::Seam, 0),
                Phase::Host(_) => self.kernel(),
            };
            self.add(who, Op::Clflush { at: Addr::new(hpa, old) });
        }
        self.made.flushes.extend(from..self.made.world.fresh());
        self.fence_all();
        let dst = Addr::new(hpa, new);
        match next {
            Phase::Private(_) => {
                if self.style.rules.policy || self.dice.one_in(2) {
                    let src = Source::Fill(self.dice.below(256) as u8);
                    let seam = self.agent(AgentKind::Seam, 0);
                    self.add(seam, Op::Movdir64b { dst, src });
                    self.add(0, Op::Mfence);
                }
            }
            Phase::Host(_) if self.style.rules.cleared && matches!(phase, Phase::Private(_)) => {
                let core = self.kernel();
                let clear = self.add(core, Op::Movdir64b { dst, src: Source::Fill(0) });
                self.made.clears.extend(clear);
                self.add(core, Op::Mfence);
            }
            Phase::Host(_) => {}
        }
        if let Some(line) = self.lines.get_mut(n) {
            line.1 = next;
        }
    }

    /// An operation on no line, or a choice of the hardware.
    fn anywhere(&mut self) -> (u16, Op) {
        let core = self.kernel();
        let (hpa, phase) = self.line();
        let keyid = match phase {
            Phase::Host(keyid) => keyid,
            Phase::Private(n) => PRIVATE.get(n).copied().unwrap_or_default(),
        };
        let keyid =
            if self.style.rules.one_key { keyid } else { KeyId(self.dice.pick(&[0, 1, 65])) };
        let hw = self.agent(AgentKind::Hardware, 0);
        // Every geometry has two; a third is a fault (architecture.md §4.1 4.1.10).
        let block = self.dice.below(if self.style.faults { 3 } else { 2 }) as u32;
        match self.dice.below(12) {
            0 => (core, Op::Wbinvd),
            1 => (core, Op::Wbnoinvd),
            2 => (self.agent(AgentKind::Seam, 0), Op::Wbinvdp { block }),
            3 => (self.agent(AgentKind::Seam, 0), Op::Wbnoinvdp { block }),
            4 => (core, Op::Sfence),
            5 => (core, Op::Lfence),
            6 => (core, Op::Interrupt),
            7 => (core, Op::Delay { time: Ps::ns(1 + self.dice.below(200)) }),
            8 => (hw, Op::WcEvict { core: core.into() }),
            9 | 10 => (hw, Op::Evict { at: Addr::new(hpa, keyid) }),
            _ => (core, Op::Mfence),
        }
    }

    /// An operation of this agent on this line.
    fn operation(&mut self, agent: u16, at: Addr) -> Option<Op> {
        let kind = self.made.world.agents.get(usize::from(agent))?.kind;
        let one_key = self.style.rules.one_key;
        let dice = &mut *self.dice;
        let offset = dice.pick(&[0u64, 0, 0, 8, 16, 56, 60]);
        // Over the end of a line into the next, where no rule is about lines.
        let offset = if one_key { offset.min(56) } else { offset };
        let within = |offset: u64| Addr::new(Hpa(at.hpa.0 + offset), at.keyid);
        let bytes = dice.pick(&[1u32, 4, 8, 8, 64]);
        let bytes = if one_key { bytes.min(64 - offset as u32) } else { bytes };
        Some(match kind {
            AgentKind::Device => {
                let bytes = dice.pick(&[8u32, 64, 64, 128]);
                let bytes = if one_key { bytes.min(64 - offset as u32) } else { bytes };
                match dice.below(2) {
                    0 => Op::DmaRead { at: within(offset), bytes },
                    _ => Op::DmaWrite { at: within(offset), bytes, value: self.value(bytes) },
                }
            }
            AgentKind::Hardware => {
                let other = Addr::new(Hpa(PAGE + 64 * dice.below(3)), at.keyid);
                match dice.below(if self.style.faults { 8 } else { 1 }) {
                    0 | 1 => Op::Evict { at },
                    2 => Op::FlipBit { at, bit: dice.below(512) as u32 },
                    3 => Op::FlipTd { at },
                    4 => Op::MoveLine { from: at, to: other },
                    5 => Op::SaveLine { at, slot: dice.below(2) as u32 },
                    6 => Op::ReplayLine { at, slot: dice.below(2) as u32 },
                    _ => Op::InjectUe { at },
                }
            }
            _ => return self.instruction(kind, at, offset, bytes),
        })
    }

    fn instruction(&mut self, kind: AgentKind, at: Addr, offset: u64, bytes: u32) -> Option<Op> {
        let within = |offset: u64| Addr::new(Hpa(at.hpa.0 + offset), at.keyid);
        let ty = match self.dice.below(6) {
            0 => MemType::Uc,
            1 => MemType::Wc,
            _ => MemType::Wb,
        };
        // Memory of TDs is write-back (verification.md §7 point c).
        let ty = if kind == AgentKind::Td && at.keyid != KeyId::TME { MemType::Wb } else { ty };
        let nt = self.dice.pick(&[4u32, 8, 8, 16, 64]);
        let place = u64::from(nt) * self.dice.below(64 / u64::from(nt.max(1)));
        if kind == AgentKind::Seam && !self.style.faults {
            // What the module reads of poisoned memory ends everything (architecture.md §6.3): it only writes.
            return Some(match self.dice.below(5) {
                0 => Op::Clwb { at },
                1 => Op::Clflush { at },
                2 => Op::Store {
                    at: within(offset),
                    bytes,
                    value: self.value(bytes),
                    ty: MemType::Wb,
                },
                _ => Op::Movdir64b { dst: at, src: Source::Fill(self.dice.below(256) as u8) },
            });
        }
        Some(match self.dice.below(24) {
            0..=5 => Op::Load { at: within(offset), bytes, ty },
            6..=10 => Op::Store { at: within(offset), bytes, value: self.value(bytes), ty },
            11 => Op::Fetch { at },
            12 => Op::Prefetch { at },
            13 | 14 => Op::NtStore { at: within(place), bytes: nt, value: self.value(nt) },
            15 => Op::Movdiri { at: within(offset & !7), bytes: 8, value: self.value(8) },
            16 | 17 => {
                let src = Source::Fill(self.dice.below(256) as u8);
                Op::Movdir64b { dst: at, src }
            }
            18 => Op::RepStosb { at, bytes: 64, value: self.dice.below(256) as u8 },
            19 => {
                let value = self.dice.below(1 << 20);
                Op::LockXadd { at: within(offset & !7), bytes: 8, value }
            }
            20 => Op::Clflush { at },
            21 => Op::Clflushopt { at },
            22 => Op::Clwb { at },
            _ if self.style.faults && kind == AgentKind::Seam => {
                let keyid = PRIVATE.get(self.dice.below(2) as usize).copied()?;
                Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None }
            }
            _ => Op::Mfence,
        })
    }

    /// At the end everything is fenced, then read by whoever can.
    fn read_out(&mut self) {
        if self.style.concurrent {
            self.made.world.steps.push(None);
        }
        self.fence_all();
        for (hpa, phase) in self.lines.clone() {
            let (agent, keyid) = match phase {
                _ if !self.style.rules.one_key => (0, KeyId::TME),
                Phase::Host(keyid) => (0, keyid),
                Phase::Private(n) => {
                    (self.td(n).unwrap_or(0), PRIVATE.get(n).copied().unwrap_or_default())
                }
            };
            let at = Addr::new(hpa, keyid);
            self.add(agent, Op::Load { at, bytes: 64, ty: MemType::Wb });
        }
    }
}
