//! Random SEAMCALLs and guests on four LPs of two packages, interleaved at random memory touches, every call judged by the
//! monitor of `verify` alone. The world has no time and no caches: every touch is done at once.
//!
//! `TDXSIM_MONITOR_SEEDS` says how many seeds of 600 calls each are run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is a panic")]
#![allow(clippy::disallowed_methods, reason = "the length of the test is chosen from outside")]

use scenarios::view::structures;
use sim_core::data::LineData;
use sim_core::event::Trace;
use sim_core::keyid::KeyIdLayout;
use sim_core::op::CallRegs;
use sim_core::outcome::{CallResult, PconfigStatus};
use sim_core::planted::{Fault, Planted};
use sim_core::platform::{IntegrityMode, TdxSpec, XtsWidth};
use sim_core::tdx::{GuestLeaf, Leaf, PageType, Status};
use sim_core::{Addr, Hpa, KeyId, Page, Ps};
use std::collections::{BTreeMap, BTreeSet};
use tdx_module::{Action, Env, Flight as Under, Inject, Module, Reply, Spec, Touch, VmExit};
use verify::monitor::{self, Answer, Call, Company, Complaint, Flight, Monitor, Struck};
use verify::view::{LpView, ModuleView};

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;
/// A TDMR that is initialised, one that is not, their PAMTs, and what the host hands to the module.
const TDMR: u64 = 0x1_0000_0000;
const SECOND: u64 = TDMR + GIB;
const PAMT: u64 = 0x1_8000_0000;
const HOST: u64 = 0x1_9000_0000;
const PARAMS: u64 = HOST + 0x10_000;
const IMAGE: u64 = HOST + 0x20_000;
/// The HKIDs that random calls use begin here.
const GLOBAL: u64 = 64;
const LPS: u16 = 4;
const PACKAGES: u8 = 2;
const CALLS: usize = 600;

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A call under way, and what it has changed so far.
struct Doing {
    call: Call,
    began: ModuleView,
    /// Calls that were in flight at some time of this one, with the views when they began.
    others: Vec<(Call, ModuleView)>,
    irq: bool,
    starved: bool,
    /// The views that its steps have found.
    found: Vec<ModuleView>,
    /// Before and after each step of it that changed something.
    changes: Vec<(ModuleView, ModuleView)>,
}

/// What runs on a logical processor.
#[allow(clippy::large_enum_variant, reason = "there are four")]
enum Lp {
    Idle,
    /// A SEAMCALL of the host, TDH.VP.ENTER until it is in the TD included.
    Host(Doing),
    /// A guest that runs.
    Guest(Page),
    /// A guest's TDCALL or exit; `None` where the exit is no TDCALL.
    Leaving(Page, Option<Doing>, Doing, VmExit),
}

struct World {
    m: Module,
    monitor: Monitor,
    under: Vec<Under>,
    lps: Vec<Lp>,
    tlb: Vec<BTreeSet<(Page, u64, Page)>>,
    pending: Vec<Reply>,
    lines: BTreeMap<(u64, u16), [u64; 8]>,
    starve: bool,
    irq: bool,
    now: ModuleView,
    tsc: u64,
    trace: Trace,
    judged: BTreeMap<(bool, u16), (u32, u32)>,
    statuses: BTreeSet<(bool, u16, u64)>,
    /// Calls whose own changes others' changes came between.
    mixed: u32,
    complaints: Vec<String>,
}

fn spec(planted: Planted) -> Spec {
    Spec {
        tdx: TdxSpec::default(),
        keyid: KeyIdLayout {
            maxpa: 52,
            keyid_bits: 7,
            private_bits: 1,
            mktme_kids: 63,
            tdx_priv_kids: 64,
        },
        integrity: IntegrityMode::Ci,
        xts: XtsWidth::Xts128,
        packages: PACKAGES,
        lps: LPS,
        sub_blocks: 2,
        planted,
    }
}

fn package(lp: usize) -> u8 {
    (lp / usize::from(LPS / u16::from(PACKAGES))) as u8
}

impl World {
    fn new(planted: Planted) -> World {
        let module = spec(planted);
        let monitor = Monitor::new(monitor::Spec {
            keyid: module.keyid,
            tdx: module.tdx.clone(),
            packages: PACKAGES,
            lmce: true,
        });
        let lps = usize::from(LPS);
        let mut world = World {
            m: Module::new(module),
            monitor,
            under: vec![Under::default(); lps],
            lps: (0..lps).map(|_| Lp::Idle).collect(),
            tlb: vec![BTreeSet::new(); lps],
            pending: vec![Reply::Done; lps],
            lines: BTreeMap::new(),
            starve: false,
            irq: false,
            now: ModuleView::default(),
            tsc: 1000,
            trace: Trace::new(false),
            judged: BTreeMap::new(),
            statuses: BTreeSet::new(),
            mixed: 0,
            complaints: Vec::new(),
        };
        world.now = world.look();
        world
    }

    // Memory, and what a call asks of the world.

    fn line(&self, at: Addr) -> [u64; 8] {
        self.lines.get(&(at.hpa.0 >> 6, at.keyid.0)).copied().unwrap_or_default()
    }
    fn set_line(&mut self, at: Addr, words: [u64; 8]) {
        let key = (at.hpa.0 >> 6, at.keyid.0);
        if words == [0; 8] {
            self.lines.remove(&key);
        } else {
            self.lines.insert(key, words);
        }
    }
    fn poke(&mut self, hpa: u64, keyid: u16, value: u64) {
        let at = Addr::new(Hpa(hpa), KeyId(keyid));
        let mut words = self.line(at);
        words[(hpa >> 3 & 7) as usize] = value;
        self.set_line(at, words);
    }
    fn act(&mut self, lp: usize, touch: Touch) -> Reply {
        match touch {
            Touch::Load { at, bytes } => {
                let line = LineData(self.line(at));
                return Reply::Data(line.slice(at.hpa.offset_in_line(), usize::from(bytes)));
            }
            Touch::Store { at, value, bytes, .. } => {
                for (i, value) in value.iter().take(usize::from(bytes) / 8).enumerate() {
                    self.poke(at.hpa.0 + 8 * i as u64, at.keyid.0, *value);
                }
            }
            // What the module fills it reads back nowhere (docs/DEVIATIONS.md D94).
            Touch::Fill { .. } | Touch::FillTable { .. } | Touch::FillSome { .. } => {}
            Touch::Copy { .. } | Touch::FlushPage { .. } | Touch::WriteBackBlock(_) => {}
            Touch::Spend(_) => {}
            Touch::Pconfig { .. } => {
                self.starved(lp);
                return Reply::Pconfig(match self.starve {
                    true => PconfigStatus::NoEntropy,
                    false => PconfigStatus::Ok,
                });
            }
            Touch::Random => {
                self.starved(lp);
                return Reply::Random(!self.starve);
            }
            Touch::Invept(None) => self.tlb[lp].clear(),
            Touch::Invept(Some(tdr)) => self.tlb[lp].retain(|(td, ..)| *td != tdr),
        }
        Reply::Done
    }

    /// An LP asks for entropy.
    fn starved(&mut self, lp: usize) {
        if let Lp::Host(doing) = &mut self.lps[lp] {
            doing.starved |= self.starve;
        }
    }

    /// The view now.
    fn look(&self) -> ModuleView {
        let mut view = structures(&self.m);
        view.lps = (0..usize::from(LPS))
            .map(|lp| LpView {
                package: package(lp),
                initialized: self.m.is_lp_initialized(lp as u16),
                inside: match &self.lps[lp] {
                    Lp::Guest(vcpu) | Lp::Leaving(vcpu, ..) => Some(*vcpu),
                    _ => None,
                },
                tlb: self.tlb[lp].clone(),
            })
            .collect();
        view
    }

    // Calls.

    fn doing(&self, call: Call) -> Doing {
        let in_flight = self.lps.iter().filter_map(|lp| match lp {
            Lp::Host(doing) => Some((doing.call, doing.began.clone())),
            Lp::Leaving(_, Some(doing), ..) | Lp::Leaving(_, None, doing, _) => {
                Some((doing.call, doing.began.clone()))
            }
            _ => None,
        });
        Doing {
            call,
            began: self.now.clone(),
            others: in_flight.collect(),
            irq: self.irq,
            starved: false,
            found: Vec::new(),
            changes: Vec::new(),
        }
    }
    /// Tells the calls in flight of another one.
    fn announce(&mut self, from: usize, call: Call) {
        let began = self.now.clone();
        for (lp, state) in self.lps.iter_mut().enumerate().filter(|(lp, _)| *lp != from) {
            let _ = lp;
            match state {
                Lp::Host(doing) => doing.others.push((call, began.clone())),
                Lp::Leaving(_, first, second, _) => {
                    let both = first.iter_mut().chain([second]);
                    both.for_each(|doing| doing.others.push((call, began.clone())));
                }
                _ => {}
            }
        }
    }

    /// Begins a SEAMCALL.
    fn begin(&mut self, call: Call) {
        let lp = usize::from(call.lp);
        self.now.lps[lp].tlb = self.tlb[lp].clone();
        let given = tdx_module::Call { rax: call.rax, regs: call.regs.0 };
        let doing = self.doing(call);
        let env = self.env(lp, &[]);
        if self.m.begin(&mut self.under[lp], &given, &env).is_err() {
            let found = self.monitor.judge(
                &self.now,
                &call,
                &Answer::VmFailInvalid,
                &self.now,
                &Company::ALONE,
                &monitor::Unknown,
            );
            self.report(&call, "VMfailInvalid", found);
            return;
        }
        self.announce(lp, call);
        self.pending[lp] = Reply::Done;
        self.lps[lp] = Lp::Host(doing);
    }
    fn env<'a>(&self, lp: usize, msrs: &'a [(u32, u64)]) -> Env<'a> {
        Env {
            lp: lp as u16,
            package: package(lp),
            irq: self.irq,
            now: Ps(self.tsc * 1000),
            tsc: self.tsc,
            msrs,
            cpuid: 7,
        }
    }

    /// A guest's exit begins.
    fn exit(&mut self, lp: usize, exit: VmExit) {
        let Lp::Guest(vcpu) = self.lps[lp] else { return };
        let tdcall = match exit {
            VmExit::Tdcall { leaf, version, regs } => Some(Call {
                lp: lp as u16,
                guest: Some(vcpu),
                rax: u64::from(leaf.0) | u64::from(version) << 16,
                regs: CallRegs(regs),
            }),
            _ => None,
        };
        let enter = Call::host(lp as u16, Leaf::VP_ENTER, &[vcpu.hpa().0]);
        let first = tdcall.map(|call| self.doing(call));
        let second = self.doing(enter);
        self.announce(lp, tdcall.unwrap_or(enter));
        self.pending[lp] = Reply::Exit(exit);
        self.lps[lp] = Lp::Leaving(vcpu, first, second, exit);
    }

    /// One touch or one step of what an LP does; nothing for an idle one and a guest.
    fn go(&mut self, lp: usize) {
        if matches!(self.lps[lp], Lp::Idle | Lp::Guest(_)) {
            return;
        }
        if self.pending[lp] == Reply::Done
            && let Some(touch) = self.m.next_touch(&mut self.under[lp]).copied()
        {
            let data = match self.act(lp, touch) {
                Reply::Data(line) => Some(line),
                Reply::Done => None,
                other => {
                    // The leaf itself has to hear of this one.
                    self.pending[lp] = other;
                    self.under[lp].touched(None);
                    return;
                }
            };
            self.under[lp].touched(data);
            return;
        }
        self.tsc += 1;
        let before = self.now.clone();
        let reply = std::mem::take(&mut self.pending[lp]);
        let env = self.env(lp, &[]);
        let action = self.m.step(&mut self.under[lp], reply, &env, &mut self.trace);
        self.now = self.look();
        let changed = {
            let mut calm = self.now.clone();
            calm.lps.clone_from(&before.lps);
            calm != before
        };
        let after = self.now.clone();
        let note = |doing: &mut Doing| {
            doing.irq |= self.irq;
            if doing.found.last() != Some(&before) {
                doing.found.push(before.clone());
            }
            if changed {
                doing.changes.push((before.clone(), after.clone()));
            }
        };
        match &mut self.lps[lp] {
            Lp::Host(doing) => note(doing),
            Lp::Leaving(_, first, second, _) => match first {
                Some(first) => note(first),
                None => note(second),
            },
            _ => {}
        }
        match action {
            Action::Touch(touch) => {
                self.pending[lp] = self.act(lp, touch);
            }
            Action::Enter(entry) => {
                let state = std::mem::replace(&mut self.lps[lp], Lp::Guest(entry.tdvpr));
                self.now = self.look();
                match state {
                    Lp::Host(doing) => self.judge(lp, doing, Answer::Entered),
                    Lp::Leaving(_, Some(doing), _, _) => {
                        if let Inject::Answer(answer) = entry.inject {
                            let result = result(&doing.call, answer);
                            self.judge(lp, doing, Answer::Returned(result));
                        }
                    }
                    _ => {}
                }
            }
            Action::Return(answer) => {
                let state = std::mem::replace(&mut self.lps[lp], Lp::Idle);
                self.now = self.look();
                match state {
                    Lp::Host(doing) => {
                        let result = result(&doing.call, answer);
                        self.judge(lp, doing, Answer::Returned(result));
                    }
                    Lp::Leaving(_, first, second, exit) => {
                        self.left(lp, first, second, exit, answer);
                    }
                    _ => {}
                }
            }
            Action::Fatal => {
                self.complaints.push(format!("LP {lp}: the module gave itself up"));
                self.lps[lp] = Lp::Idle;
            }
            Action::NotModelled => {
                self.lps[lp] = Lp::Idle;
            }
        }
    }

    /// The view before and after a call, seen through its own changes.
    fn span(&mut self, lp: usize, doing: &Doing) -> Option<(ModuleView, ModuleView)> {
        let (first, last) = (doing.changes.first()?, doing.changes.last()?);
        let whole = doing.changes.windows(2).all(|pair| {
            let mut calm = pair[1].0.clone();
            calm.lps.clone_from(&pair[0].1.lps);
            calm == pair[0].1
        });
        if !whole {
            self.mixed += 1;
            return None;
        }
        let (mut before, mut after) = (first.0.clone(), last.1.clone());
        // Who is inside, and TLBs: those of this LP as the call found and left them, the others' as they are.
        before.lps.clone_from(&doing.began.lps);
        after.lps.clone_from(&before.lps);
        after.lps[lp] = self.now.lps[lp].clone();
        Some((before, after))
    }

    fn judge(&mut self, lp: usize, doing: Doing, answer: Answer) {
        let spans = match self.span(lp, &doing) {
            Some(span) => vec![span],
            None if !doing.changes.is_empty() => return,
            None => {
                let with = |view: &ModuleView| {
                    let mut before = view.clone();
                    before.lps.clone_from(&doing.began.lps);
                    let mut after = before.clone();
                    after.lps[lp] = self.now.lps[lp].clone();
                    (before, after)
                };
                doing.found.iter().map(with).collect()
            }
        };
        let flights: Vec<Flight<'_>> =
            doing.others.iter().map(|(call, began)| Flight { call: *call, began }).collect();
        let company =
            Company { others: &flights, interrupt: doing.irq, starved: doing.starved, odd: false };
        let lines = &self.lines;
        let memory = |at: Addr| {
            let line = lines.get(&(at.hpa.0 >> 6, at.keyid.0)).copied().unwrap_or_default();
            Some(line[(at.hpa.0 >> 3 & 7) as usize])
        };
        let mut found = Ok(());
        for (before, after) in &spans {
            found = self.monitor.judge(before, &doing.call, &answer, after, &company, &memory);
            if found.is_ok() {
                break;
            }
        }
        let status = match answer {
            Answer::Returned(result) => result.status,
            _ => Status(0),
        };
        let guest = doing.call.guest.is_some();
        let count = self.judged.entry((guest, doing.call.leaf())).or_default();
        if status.0 >> 63 == 0 {
            count.0 += 1;
        } else {
            count.1 += 1;
        }
        self.statuses.insert((guest, doing.call.leaf(), status.0));
        let beside: Vec<String> =
            doing.others.iter().map(|(c, _)| format!("{} {:x?}", c.name(), c.regs.0)).collect();
        let inside: Vec<Option<Page>> = doing.began.lps.iter().map(|lp| lp.inside).collect();
        let text = format!("{answer:?} beside {beside:?}, inside {inside:?}");
        self.report(&doing.call, &text, found);
    }

    fn left(
        &mut self,
        lp: usize,
        first: Option<Doing>,
        mut second: Doing,
        exit: VmExit,
        answer: tdx_module::Answer,
    ) {
        let result = result(&second.call, answer);
        if let Some(mut first) = first {
            // The last change is the exit's, but for Secure-EPT entries, which are the TDCALL's: a 2 MiB ACCEPT that an
            // interrupt stops stores its count and leaves at once.
            if let Some((before, after)) = first.changes.pop() {
                let mut between = before.clone();
                between.sept.clone_from(&after.sept);
                if between != before {
                    first.changes.push((before, between.clone()));
                }
                second.changes.push((between, after));
            }
            let reason = sim_core::tdx::ExitReason(answer.status.low());
            let now = self.now.clone();
            // To the TDCALL the VCPU is still inside.
            self.now.lps[lp] = first.began.lps[lp].clone();
            self.judge(lp, first, Answer::Left(reason));
            self.now = now;
        }
        let Some((before, after)) = self.span(lp, &second) else {
            if second.changes.is_empty() {
                self.complaints.push(format!("an exit without effect: {exit:?}"));
            }
            return;
        };
        let lp = lp as u16;
        let mc = matches!(
            exit,
            VmExit::MachineCheck | VmExit::EntryMachineCheck | VmExit::Smi { msmi: true }
        );
        let found = if mc {
            self.monitor.judge_machine_check(&before, lp, &Struck::Td(result), &after)
        } else {
            self.monitor.judge_exit(&before, lp, &result, &after)
        };
        let count = self.judged.entry((true, u16::MAX)).or_default();
        count.0 += 1;
        self.report(&second.call, &format!("exit {exit:?} {result}"), found);
    }

    fn report(&mut self, call: &Call, answer: &str, found: Result<(), Vec<Complaint>>) {
        if let Err(complaints) = found {
            let lines: Vec<String> = complaints.iter().map(|c| format!("\n    {c}")).collect();
            let regs = call.regs.0;
            self.complaints.push(format!(
                "{} on LP {} rax={:#x} {regs:x?}: {answer}{}",
                call.name(),
                call.lp,
                call.rax,
                lines.concat()
            ));
        }
    }

    /// A whole call, alone on its LP; its status.
    fn call(&mut self, lp: u16, leaf: Leaf, regs: &[u64]) -> Status {
        let call = Call::host(lp, leaf, regs);
        self.begin(call);
        while matches!(self.lps[usize::from(lp)], Lp::Host(_)) {
            self.go(usize::from(lp));
        }
        let of = |(guest, number, status): &(bool, u16, u64)| {
            (!guest && *number == leaf.0).then_some(Status(*status))
        };
        self.statuses.iter().rev().find_map(of).unwrap_or_default()
    }
}

fn result(call: &Call, answer: tdx_module::Answer) -> CallResult {
    CallResult {
        guest: call.guest.is_some(),
        leaf: call.leaf(),
        status: answer.status,
        out: answer.out,
    }
}

// Worlds.

/// Writes TDMR_INFOs and their array.
fn write_tdmrs(world: &mut World, infos: &[Vec<u64>]) {
    for (i, info) in infos.iter().enumerate() {
        let at = HOST + 0x1000 + 512 * i as u64;
        world.poke(HOST + 8 * i as u64, 0, at);
        for k in 0..64 {
            world.poke(at + 8 * k as u64, 0, info.get(k).copied().unwrap_or(0));
        }
    }
}
/// Base, size, and the PAMT arrays for 1 GiB, 2 MiB and 4 KiB; then reserved areas.
fn info(base: u64, pamt: u64, reserved: &[(u64, u64)]) -> Vec<u64> {
    let mut words = vec![base, GIB, pamt, 4096, pamt + 4096, 8192, pamt + 12288, 4 << 20];
    reserved.iter().for_each(|(offset, size)| words.extend([*offset, *size]));
    words
}
fn tdmrs() -> Vec<Vec<u64>> {
    vec![
        info(TDMR, PAMT, &[(512 << 20, 4096), (768 << 20, 16 << 20)]),
        info(SECOND, PAMT + (8 << 20), &[(0, 1 << 20), (GIB - 4096, 4096)]),
    ]
}

fn initialized(planted: Planted) -> World {
    let mut w = World::new(planted);
    w.call(0, Leaf::SYS_INIT, &[]);
    for lp in 0..LPS {
        w.call(lp, Leaf::SYS_LP_INIT, &[]);
    }
    w
}

/// A module in SYS_READY with both TDMRs, the first initialised.
fn ready(planted: Planted) -> World {
    let mut w = initialized(planted);
    write_tdmrs(&mut w, &tdmrs());
    w.call(0, Leaf::SYS_CONFIG, &[HOST, 2, GLOBAL]);
    for package in 0..u16::from(PACKAGES) {
        w.call(package * (LPS / u16::from(PACKAGES)), Leaf::SYS_KEY_CONFIG, &[]);
    }
    while w.now.tdmrs[0].next < TDMR + GIB {
        w.call(0, Leaf::SYS_TDMR_INIT, &[TDMR]);
    }
    // Debug TD, at most 3 VCPUs, 4 levels, 48 bits, 1 GHz.
    for (at, word) in [(0, 1), (8, 3), (16, 3), (24, 6 | 3 << 3), (32, 0), (40, 40)] {
        w.poke(PARAMS + at, 0, word);
    }
    w
}

/// What random calls draw from.
struct Pool {
    next: u64,
}

impl Pool {
    fn page(&mut self) -> u64 {
        self.next += 4096;
        self.next - 4096
    }
}

const GPA_2M: u64 = 0x4000_0000;

/// A TD up to the state that is asked for.
fn td(w: &mut World, pool: &mut Pool, hkid: u64, op_state: u8) -> u64 {
    let tdr = pool.page();
    w.call(0, Leaf::MNG_CREATE, &[tdr, hkid]);
    for package in 0..u16::from(PACKAGES) {
        w.call(package * (LPS / u16::from(PACKAGES)), Leaf::MNG_KEY_CONFIG, &[tdr]);
    }
    for _ in 0..6 {
        let page = pool.page();
        w.call(0, Leaf::MNG_ADDCX, &[page, tdr]);
    }
    if op_state == 0 {
        return tdr;
    }
    w.call(0, Leaf::MNG_INIT, &[tdr, PARAMS]);
    for lp in 0..2 {
        let vcpu = pool.page();
        w.call(lp, Leaf::VP_CREATE, &[vcpu, tdr]);
        for _ in 0..5 {
            let page = pool.page();
            w.call(lp, Leaf::VP_ADDCX, &[page, vcpu]);
        }
        w.call(lp, Leaf::VP_INIT, &[vcpu, 0]);
    }
    for (gpa, level) in [(0, 3), (0, 2), (0, 1), (GPA_2M, 2), (GPA_2M, 1)] {
        let page = pool.page();
        w.call(0, Leaf::MEM_SEPT_ADD, &[gpa | level, tdr, page]);
    }
    for gpa in 0..3 {
        let page = pool.page();
        w.call(0, Leaf::MEM_PAGE_ADD, &[gpa << 12, tdr, page, IMAGE]);
    }
    w.call(0, Leaf::MR_EXTEND, &[0, tdr]);
    if op_state == 2 {
        w.call(0, Leaf::MR_FINALIZE, &[tdr]);
        for gpa in 3..6 {
            let page = pool.page();
            w.call(0, Leaf::MEM_PAGE_AUG, &[gpa << 12, tdr, page]);
        }
    }
    tdr
}

/// Blocks of 2 MiB for large pages: fixed places in the first TDMR.
const BLOCKS: [u64; 4] = [TDMR + 64 * MIB2, TDMR + 65 * MIB2, TDMR + 66 * MIB2, TDMR + 256 * MIB2];

/// TDs in every state of life.
fn populated(planted: Planted) -> (World, Pool) {
    let mut w = ready(planted);
    let mut pool = Pool { next: TDMR };
    let running = td(&mut w, &mut pool, GLOBAL + 1, 2);
    // A large page whole, and one in 512 parts that can be merged.
    w.call(0, Leaf::MEM_PAGE_AUG, &[(GPA_2M + MIB2) | 1, running, BLOCKS[0]]);
    w.call(0, Leaf::MEM_PAGE_AUG, &[(GPA_2M + 2 * MIB2) | 1, running, BLOCKS[1]]);
    let dead = td(&mut w, &mut pool, GLOBAL + 5, 2);
    let built = td(&mut w, &mut pool, GLOBAL + 2, 1);
    w.call(0, Leaf::MEM_PAGE_PROMOTE, &[GPA_2M | 1, built]);
    td(&mut w, &mut pool, GLOBAL + 3, 0);
    for (lp, vcpu) in
        w.now.vcpus.clone().into_iter().filter(|(_, v)| v.tdr.hpa().0 == dead).enumerate()
    {
        w.call(lp as u16, Leaf::VP_FLUSH, &[vcpu.0.hpa().0]);
    }
    w.call(0, Leaf::MNG_VPFLUSHDONE, &[dead]);
    w.call(0, Leaf::PHYMEM_CACHE_WB, &[0]);
    w.call(2, Leaf::PHYMEM_CACHE_WB, &[0]);
    w.call(0, Leaf::MNG_KEY_FREEID, &[dead]);
    (w, pool)
}

/// What an operand should be for a leaf to get far.
#[derive(Clone, Copy)]
enum Kind {
    Free,
    Used,
    Tdr,
    Vcpu,
    Gpa,
    Hkid,
    Image,
    Params,
    Bit,
    Tdmr,
    Flushed,
    Unkeyed,
    Zero,
}
use Kind::*;

#[rustfmt::skip]
const KINDS: &[(Leaf, [Kind; 4])] = &[
    (Leaf::VP_ENTER,            [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER,            [Vcpu, Zero, Zero, Zero]),
    (Leaf::VP_ENTER,            [Vcpu, Zero, Zero, Zero]),
    (Leaf::MNG_ADDCX,           [Free, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_ADD,        [Gpa, Tdr, Free, Image]),
    (Leaf::MEM_SEPT_ADD,        [Gpa, Tdr, Free, Zero]),
    (Leaf::VP_ADDCX,            [Free, Vcpu, Zero, Zero]),
    (Leaf::MEM_PAGE_RELOCATE,   [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_PAGE_RELOCATE,   [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_PAGE_AUG,        [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_PAGE_AUG,        [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_RANGE_BLOCK,     [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_RANGE_BLOCK,     [Gpa, Tdr, Zero, Zero]),
    (Leaf::MNG_KEY_CONFIG,      [Unkeyed, Zero, Zero, Zero]),
    (Leaf::MNG_CREATE,          [Free, Hkid, Zero, Zero]),
    (Leaf::VP_CREATE,           [Free, Tdr, Zero, Zero]),
    (Leaf::MNG_RD,              [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_RD,              [Gpa, Tdr, Zero, Zero]),
    (Leaf::MNG_WR,              [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_WR,              [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_DEMOTE,     [Gpa, Tdr, Free, Zero]),
    (Leaf::MEM_PAGE_DEMOTE,     [Gpa, Tdr, Free, Zero]),
    (Leaf::MR_EXTEND,           [Gpa, Tdr, Zero, Zero]),
    (Leaf::MR_FINALIZE,         [Tdr, Zero, Zero, Zero]),
    (Leaf::VP_FLUSH,            [Vcpu, Zero, Zero, Zero]),
    (Leaf::MNG_VPFLUSHDONE,     [Tdr, Zero, Zero, Zero]),
    (Leaf::MNG_KEY_FREEID,      [Flushed, Zero, Zero, Zero]),
    (Leaf::MNG_INIT,            [Tdr, Params, Zero, Zero]),
    (Leaf::VP_INIT,             [Vcpu, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_PROMOTE,    [Gpa, Tdr, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RDMD,    [Used, Zero, Zero, Zero]),
    (Leaf::MEM_SEPT_RD,         [Gpa, Tdr, Zero, Zero]),
    (Leaf::VP_RD,               [Vcpu, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Used, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Used, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_RECLAIM, [Used, Zero, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE,     [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_PAGE_REMOVE,     [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_SEPT_REMOVE,     [Gpa, Tdr, Zero, Zero]),
    (Leaf::MEM_TRACK,           [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_TRACK,           [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_TRACK,           [Tdr, Zero, Zero, Zero]),
    (Leaf::MEM_RANGE_UNBLOCK,   [Gpa, Tdr, Zero, Zero]),
    (Leaf::PHYMEM_CACHE_WB,     [Bit, Zero, Zero, Zero]),
    (Leaf::PHYMEM_CACHE_WB,     [Bit, Zero, Zero, Zero]),
    (Leaf::PHYMEM_PAGE_WBINVD,  [Free, Zero, Zero, Zero]),
    (Leaf::VP_WR,               [Vcpu, Zero, Zero, Zero]),
    (Leaf::SYS_TDMR_INIT,       [Tdmr, Zero, Zero, Zero]),
    (Leaf::SYS_LP_INIT,         [Zero, Zero, Zero, Zero]),
    (Leaf::SYS_KEY_CONFIG,      [Zero, Zero, Zero, Zero]),
    (Leaf::SYS_CONFIG,          [Zero, Zero, Zero, Zero]),
    (Leaf::SYS_INIT,            [Zero, Zero, Zero, Zero]),
    (Leaf::SYS_INFO,            [Zero, Zero, Zero, Zero]),
    (Leaf::SYS_LP_SHUTDOWN,     [Zero, Zero, Zero, Zero]),
    (Leaf::MNG_KEY_RECLAIMID,   [Tdr, Zero, Zero, Zero]),
];

fn gpa(r: &mut Rng) -> u64 {
    match r.below(10) {
        0..=4 => r.below(8) << 12,
        5 => GPA_2M + (r.below(3) << 12),
        6 | 7 => (GPA_2M + r.below(4) * MIB2) | 1,
        8 => (r.below(2) * MIB2) | 1,
        _ => r.pick(&[2, GPA_2M | 2, 3, 1 << 39 | 3, 1 << 47, MIB2]),
    }
}

fn operand(r: &mut Rng, w: &World, pool: &Pool, kind: Kind) -> u64 {
    let tds = || w.now.tds.iter();
    let end = pool.next + 48 * 4096;
    let page = TDMR + (r.below((end - TDMR) / 4096) << 12);
    let of = |r: &mut Rng, pages: Vec<Page>| match pages.is_empty() {
        true => page,
        false => r.pick(&pages).hpa().0,
    };
    match kind {
        Free => match r.below(8) {
            0 => r.pick(&BLOCKS) + (r.below(2) << 12),
            1 => page,
            _ => (0..8)
                .map(|_| TDMR + (r.below((end - TDMR) / 4096) << 12))
                .find(|at| !w.now.pamt.contains_key(&(0, Page(at >> 12))))
                .unwrap_or(pool.next),
        },
        Used => match r.below(4) {
            0 => page,
            1 => of(r, tds().filter(|(_, td)| td.life_cycle == 3).map(|(p, _)| *p).collect()),
            2 => {
                let dead = |p: &Page| w.now.tds.get(p).is_some_and(|td| td.life_cycle == 3);
                let pages = w.now.pamt.iter().filter(|(_, e)| dead(&e.owner));
                of(r, pages.map(|((_, p), _)| *p).collect())
            }
            _ => of(r, w.now.pamt.keys().map(|(_, p)| *p).collect()),
        },
        Tdr => {
            let any = r.one_in(4);
            of(r, tds().filter(|(_, td)| any || td.op_state == 2).map(|(p, _)| *p).collect())
        }
        Unkeyed => of(r, tds().filter(|(_, td)| td.life_cycle == 0).map(|(p, _)| *p).collect()),
        Flushed => of(r, tds().filter(|(_, td)| td.life_cycle == 2).map(|(p, _)| *p).collect()),
        Vcpu => of(r, w.now.vcpus.keys().copied().collect()),
        Gpa => gpa(r),
        Hkid => GLOBAL + r.below(10),
        Image => IMAGE,
        Params => PARAMS,
        Bit => r.below(2),
        Tdmr => r.pick(&[TDMR, SECOND]),
        Zero => 0,
    }
}

/// A random call: operands that let it get far, at times one that does not.
fn random_call(r: &mut Rng, w: &World, pool: &Pool, lp: usize) -> Call {
    let (leaf, kinds) = r.pick(KINDS);
    let mut regs = [0; 4];
    for (place, kind) in regs.iter_mut().zip(kinds) {
        *place = operand(r, w, pool, kind);
    }
    if [Leaf::MEM_PAGE_AUG, Leaf::MEM_PAGE_DEMOTE].contains(&leaf)
        && regs[0] & 7 == 1
        && r.one_in(2)
    {
        regs[2] = r.pick(&BLOCKS);
    }
    if leaf == Leaf::PHYMEM_PAGE_WBINVD {
        regs[0] |= r.below(128) << 45;
    }
    if [Leaf::MEM_SEPT_ADD, Leaf::MEM_PAGE_DEMOTE].contains(&leaf) && r.one_in(4) {
        regs[1] |= r.below(4);
    }
    if [Leaf::MEM_RD, Leaf::MEM_WR, Leaf::MR_EXTEND].contains(&leaf) {
        regs[0] &= !7;
    }
    let mut call = Call::host(lp as u16, leaf, &regs);
    match r.below(40) {
        0 => call.regs.0[r.below(3) as usize] ^= 1 << r.below(64),
        1 => {
            let kind = r.pick(&[Free, Used, Tdr, Vcpu, Gpa]);
            call.regs.0[r.below(3) as usize] = operand(r, w, pool, kind);
        }
        2 => call.rax ^= 1 << r.below(26),
        _ => {}
    }
    call
}

/// What a guest does next; machine checks only `late` in a run, as they end a TD.
fn random_exit(r: &mut Rng, late: bool) -> VmExit {
    let tdcall = |leaf: GuestLeaf, rcx: u64| VmExit::Tdcall {
        leaf,
        version: 0,
        regs: [rcx, 0, 0, 0, 0, 0, 0, 0],
    };
    match r.below(16) {
        0..=6 => tdcall(GuestLeaf::MEM_PAGE_ACCEPT, gpa(r) ^ if r.one_in(12) { 8 } else { 0 }),
        7 | 8 => tdcall(GuestLeaf::VP_VMCALL, r.pick(&[0xfc00, 0x0c00, 1, 16, 1 << 32])),
        9 => tdcall(GuestLeaf::VP_INFO, 0),
        10 => VmExit::EptViolation { gpa: gpa(r) & !0xfff, access: 1 },
        11 => VmExit::Nmi,
        12 => VmExit::Smi { msmi: false },
        13 if late => {
            r.pick(&[VmExit::MachineCheck, VmExit::EntryMachineCheck, VmExit::Smi { msmi: true }])
        }
        14 if r.one_in(8) => VmExit::TripleFault,
        _ => VmExit::Interrupt,
    }
}

/// A guest's access fills its TLB from the mappings that there are.
fn touch(r: &mut Rng, w: &mut World, lp: usize, vcpu: Page) {
    let Some(tdr) = w.now.vcpus.get(&vcpu).map(|v| v.tdr) else { return };
    let tables: Vec<Page> =
        w.now.tables.iter().filter(|(_, td)| **td == tdr).map(|(t, _)| *t).collect();
    let entries: Vec<u64> = w
        .now
        .sept
        .iter()
        .filter(|((table, _), entry)| tables.contains(table) && **entry & 0xf7 == 0xf7)
        .map(|(_, entry)| *entry)
        .collect();
    if !entries.is_empty() {
        let page = Page((r.pick(&entries) & 0x000f_ffff_ffff_f000) >> 12);
        w.tlb[lp].insert((tdr, r.below(16), page));
        w.now.lps[lp].tlb = w.tlb[lp].clone();
    }
}

fn finish(w: &mut World) {
    for lp in 0..usize::from(LPS) {
        while matches!(w.lps[lp], Lp::Host(_) | Lp::Leaving(..)) {
            w.go(lp);
        }
    }
}

/// So many random calls; `stop` at the first complaint.
fn random_run(w: &mut World, pool: &Pool, seed: u64, calls: usize) {
    let mut r = Rng::new(seed);
    let mut made = 0;
    let mut last = None;
    while made < calls && w.complaints.is_empty() {
        let lp = r.below(LPS.into()) as usize;
        match w.lps[lp] {
            Lp::Idle => {
                w.irq = r.one_in(6);
                w.starve = r.one_in(10);
                // At times what was called last, by whom ever, once more.
                let call = match last {
                    Some(call) if r.one_in(6) => Call { lp: lp as u16, ..call },
                    _ => random_call(&mut r, w, pool, lp),
                };
                last = Some(call);
                w.begin(call);
                made += 1;
                // At times alone, to its end.
                if r.one_in(2) {
                    while matches!(w.lps[lp], Lp::Host(_)) {
                        w.go(lp);
                    }
                }
            }
            Lp::Guest(vcpu) => {
                touch(&mut r, w, lp, vcpu);
                // Guests stay for a while, so that epochs pass them.
                if r.one_in(12) {
                    let exit = random_exit(&mut r, made > calls * 2 / 3);
                    w.exit(lp, exit);
                }
            }
            _ => {
                for _ in 0..r.below(6) {
                    w.go(lp);
                }
            }
        }
    }
    finish(w);
}

fn seeds() -> u64 {
    std::env::var("TDXSIM_MONITOR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn bringing_up_a_module_and_its_tds_is_as_the_sheet_has_it() {
    let (w, _) = populated(Planted::NONE);
    assert_eq!(w.complaints, Vec::<String>::new());
    assert!(w.now.tds.values().any(|td| td.op_state == 2 && td.life_cycle == 1));
    assert!(w.now.tds.values().any(|td| td.life_cycle == 3));
    assert!(w.now.pamt.iter().any(|((level, _), e)| *level == 1 && e.page_type == PageType::Reg));
}

#[test]
fn whatever_the_host_and_its_guests_call_the_module_does_as_the_sheet_has_it() {
    let mut all: BTreeMap<(bool, u16), (u32, u32)> = BTreeMap::new();
    let mut mixed = 0;
    for seed in 0..seeds() {
        let (mut w, pool) = populated(Planted::NONE);
        w.judged.clear();
        random_run(&mut w, &pool, seed, CALLS);
        assert!(w.complaints.is_empty(), "seed {seed}:\n{}", w.complaints.join("\n"));
        for (leaf, (done, failed)) in w.judged {
            let count = all.entry(leaf).or_default();
            count.0 += done;
            count.1 += failed;
        }
        mixed += w.mixed;
    }
    let judged: u32 = all.values().map(|(done, failed)| done + failed).sum();
    assert!(judged > 1000 && mixed * 50 < judged, "{judged} judged, {mixed} not");
    let missing: Vec<String> = KINDS
        .iter()
        .filter(|(leaf, _)| !all.contains_key(&(false, leaf.0)))
        .map(|(leaf, _)| leaf.to_string())
        .collect();
    assert!(missing.is_empty(), "never judged: {missing:?}");
}

#[test]
fn whatever_tdmrs_the_host_configures_are_judged_as_the_sheet_has_it() {
    let mut w = initialized(Planted::NONE);
    let fresh = w.m.clone();
    let mut r = Rng::new(7);
    let mut found: BTreeMap<Status, u32> = BTreeMap::new();
    for _ in 0..1500 {
        w.m = fresh.clone();
        w.now = w.look();
        let mut infos = tdmrs();
        if r.one_in(6) {
            infos.push(info(SECOND + GIB, PAMT + (24 << 20), &[]));
        }
        for _ in 0..r.below(3) {
            let t = r.below(infos.len() as u64) as usize;
            let k = r.below(infos[t].len() as u64 + 2) as usize;
            let words = infos[t].len().max(k + 1);
            infos[t].resize(words, 0);
            let near = infos[t][k];
            infos[t][k] = match r.below(8) {
                0 => near ^ 1 << r.below(64),
                1 => near ^ 1 << (12 + r.below(20)),
                2 => r.pick(&[TDMR, SECOND, PAMT, HOST, 0x7780_0000, 0x2_0000_0000]),
                3 => near.wrapping_add(4096),
                4 => near.wrapping_sub(4096),
                5 => r.pick(&[0, GIB, 2 * GIB, GIB - 4096, 512 << 20]),
                6 => infos[0][r.below(8) as usize],
                _ => near.wrapping_add(r.pick(&[GIB, MIB2, 64])),
            };
        }
        if r.one_in(8) {
            infos.swap(0, 1);
        }
        write_tdmrs(&mut w, &infos);
        if r.one_in(20) {
            w.poke(HOST + 8, 0, (HOST + 0x1200) ^ (1 << r.below(52)));
        }
        w.statuses.clear();
        let count = if r.one_in(20) { r.below(70) } else { infos.len() as u64 };
        let hkid = if r.one_in(20) { r.next() >> r.below(64) } else { GLOBAL };
        let status = w.call(r.below(4) as u16, Leaf::SYS_CONFIG, &[HOST, count, hkid]);
        *found.entry(Status(status.0 >> 32 << 32)).or_default() += 1;
        assert!(w.complaints.is_empty(), "{infos:x?}: {}", w.complaints.join("\n"));
    }
    // Every rule was met.
    for status in [
        Status::SUCCESS,
        Status::OPERAND_INVALID,
        Status::INVALID_TDMR,
        Status::NON_ORDERED_TDMR,
        Status::NON_ORDERED_RESERVED_IN_TDMR,
        Status::INVALID_RESERVED_IN_TDMR,
        Status::INVALID_PAMT,
        Status::PAMT_OVERLAP,
        Status::PAMT_OUTSIDE_CMRS,
        Status::TDMR_OUTSIDE_CMRS,
    ] {
        assert!(found.contains_key(&status), "{status} never: {found:?}");
    }
}

#[test]
fn a_module_is_brought_up_by_all_lps_at_once_as_the_sheet_has_it() {
    for seed in 0..4 {
        let mut w = World::new(Planted::NONE);
        write_tdmrs(&mut w, &tdmrs());
        let mut r = Rng::new(seed);
        let leaves = [
            (Leaf::SYS_INIT, [0; 3]),
            (Leaf::SYS_LP_INIT, [0; 3]),
            (Leaf::SYS_LP_INIT, [0; 3]),
            (Leaf::SYS_CONFIG, [HOST, 2, GLOBAL]),
            (Leaf::SYS_KEY_CONFIG, [0; 3]),
            (Leaf::SYS_TDMR_INIT, [TDMR, 0, 0]),
            (Leaf::SYS_TDMR_INIT, [SECOND, 0, 0]),
            (Leaf::SYS_INFO, [0; 3]),
            (Leaf::SYS_LP_SHUTDOWN, [0; 3]),
            (Leaf::MNG_CREATE, [TDMR + (700 << 20), GLOBAL + 1, 0]),
            (Leaf::PHYMEM_PAGE_RDMD, [TDMR + (700 << 20), 0, 0]),
        ];
        let mut made = 0;
        while made < 1500 && w.complaints.is_empty() {
            let lp = r.below(LPS.into()) as usize;
            if matches!(w.lps[lp], Lp::Idle) {
                w.starve = r.one_in(10);
                let (leaf, regs) = r.pick(&leaves);
                // What the module is up to comes more often; it is shut down at the end.
                let leaf = if made == 1450 { (Leaf::SYS_SHUTDOWN, [0; 3]) } else { (leaf, regs) };
                w.begin(Call::host(lp as u16, leaf.0, &leaf.1));
                made += 1;
            } else {
                (0..r.below(4)).for_each(|_| w.go(lp));
            }
        }
        finish(&mut w);
        assert!(w.complaints.is_empty(), "seed {seed}: {}", w.complaints.join("\n"));
        assert!(w.now.tdmrs.iter().any(|t| t.next > t.base), "seed {seed}: {:?}", w.now.sys);
        let busy = w.statuses.iter().any(|(_, _, status)| status >> 32 == Status::SYS_BUSY.0 >> 32);
        assert!(busy, "seed {seed}: nobody met anybody");
    }
}

/// Faults of the module that change no metadata and no answer, and what they change instead.
const NOT_THE_MONITORS: &[(Fault, &str)] = &[
    (Fault::AugClearsPage, "memory"),
    (Fault::AcceptKeepsContents, "memory"),
    (Fault::TdcsUnderGlobalKey, "the KeyID of a page of memory"),
    (Fault::CacheWbWritesNothing, "caches"),
];

/// Faults of the module that the monitor must find, all of which it finds alone.
const FOUND: &[Fault] = &[
    Fault::AddWithoutPamtOwner,
    Fault::AugTakenPage,
    Fault::RemoveKeepsPamt,
    Fault::RemoveKeepsEntry,
    Fault::ChldcntForgotten,
    Fault::ReclaimBeforeTeardown,
    Fault::ErrorLeavesChange,
    Fault::RdmdSaysFree,
    Fault::VpflushdoneFreesHkid,
    Fault::FreeidIgnoresBitmap,
    Fault::VpflushdoneIgnoresVcpus,
    Fault::PconfigActiveKey,
    Fault::TwoTdsOneHkid,
    Fault::CacheWbClearsEarly,
    Fault::TrackedTooEarly,
    Fault::TrackIgnoresRefcount,
    Fault::RefcountForgotten,
    Fault::RemoveWithoutBlock,
    Fault::FatalForgotten,
];

/// The first complaint of a module with this fault; `None` if there is none.
fn killed(fault: Fault, seeds: u64) -> Option<String> {
    for seed in 0..seeds {
        let (mut w, pool) = populated(Planted::fault(fault));
        if w.complaints.is_empty() {
            random_run(&mut w, &pool, seed, CALLS);
        }
        if let Some(first) = w.complaints.first() {
            return Some(format!("after {seed} seeds: {first}"));
        }
    }
    None
}

#[test]
fn every_fault_of_the_module_s_metadata_dies_by_the_monitor_alone() {
    // Releases have none.
    if !Planted::POSSIBLE {
        return;
    }
    let living: Vec<&Fault> = FOUND.iter().filter(|fault| killed(**fault, 12).is_none()).collect();
    assert!(living.is_empty(), "{living:?}");
}

#[test]
fn what_only_memory_shows_is_none_of_the_monitor_s_business() {
    for (fault, what) in NOT_THE_MONITORS {
        let found = killed(*fault, 1);
        assert_eq!(found, None, "{fault:?} changes {what} only");
    }
}
