//! A world for the module that has no time and no caches: every action is done at once, on lines that are tagged with
//! their KeyID as in a cache that never evicts. Tests of leaves run on it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod bench;
pub mod cases;
pub mod edit;
pub mod faults;
pub mod invariants;

use sim_core::data::LineData;
use sim_core::event::Trace;
use sim_core::outcome::PconfigStatus;
use sim_core::planted::Planted;
use sim_core::platform::{IntegrityMode, TdxSpec, XtsWidth};
use sim_core::tdx::{Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Page, Ps};
use std::collections::BTreeMap;
use tdx_module::{
    Action, Answer, Call, Env, Flight, GuestEntry, Module, Reply, Spec, Touch, VmExit,
};

/// First byte of the TDMR: 1 GiB.
pub const TDMR: u64 = 0x1_0000_0000;
/// PAMTs: behind the TDMR.
pub const PAMT: u64 = 0x1_8000_0000;
/// Where the host keeps what it hands to the module.
pub const HOST: u64 = 0x1_9000_0000;
/// A page of the host whose content PAGE.ADD copies.
pub const IMAGE: u64 = 0x1_9010_0000;
/// The global HKID, as Linux chooses it: the first private one.
pub const GLOBAL: u64 = 64;

/// The world.
#[derive(Clone)]
pub struct World {
    /// The module.
    pub m: Module,
    /// What each LP has under way.
    pub flights: Vec<Flight>,
    /// Memory by (line, KeyID): 8 words of 8 bytes.
    pub lines: BTreeMap<(u64, u16), [u64; 8]>,
    /// Whether an interrupt is pending.
    pub irq: bool,
    /// How many draws find no entropy.
    pub starve: u32,
    /// What PCONFIG says.
    pub pconfig: PconfigStatus,
    /// MSRs by LP.
    pub msrs: Vec<Vec<(u32, u64)>>,
    /// CPUID by LP.
    pub cpuid: Vec<u64>,
    /// TSC.
    pub tsc: u64,
    /// The present moment.
    pub now: Ps,
    /// Everything the module did since the last call began.
    pub touches: Vec<Touch>,
    /// Next page that the VMM has not given away.
    pub next_page: u64,
    /// What the module tells, once it is on.
    pub trace: Trace,
    pending: Vec<Option<Reply>>,
}

pub fn spec() -> Spec {
    Spec {
        tdx: TdxSpec::default(),
        keyid: sim_core::keyid::KeyIdLayout {
            maxpa: 52,
            keyid_bits: 7,
            private_bits: 1,
            mktme_kids: 63,
            tdx_priv_kids: 64,
        },
        integrity: IntegrityMode::Ci,
        xts: XtsWidth::Xts128,
        packages: 1,
        lps: 2,
        sub_blocks: 4,
        planted: Planted::NONE,
    }
}

impl World {
    /// A module just loaded.
    pub fn new(spec: Spec) -> World {
        let lps = usize::from(spec.lps);
        World {
            m: Module::new(spec),
            flights: vec![Flight::default(); lps],
            lines: BTreeMap::new(),
            irq: false,
            starve: 0,
            pconfig: PconfigStatus::Ok,
            msrs: vec![Vec::new(); lps],
            cpuid: vec![0; lps],
            tsc: 1000,
            now: Ps::ZERO,
            touches: Vec::new(),
            next_page: TDMR,
            trace: Trace::new(false),
            pending: vec![None; lps],
        }
    }

    // ------------------------------------------------------------------------------------------------------- memory

    fn line(&self, at: Addr) -> [u64; 8] {
        self.lines.get(&(at.hpa.0 >> 6, at.keyid.0)).copied().unwrap_or_default()
    }
    /// A line of zeros is not kept: the PAMT is made of them.
    fn set_line(&mut self, at: Addr, words: [u64; 8]) {
        let key = (at.hpa.0 >> 6, at.keyid.0);
        if words == [0; 8] {
            self.lines.remove(&key);
        } else {
            self.lines.insert(key, words);
        }
    }
    /// Writes 8 bytes under a KeyID.
    pub fn poke(&mut self, hpa: u64, keyid: u16, value: u64) {
        let word = (hpa >> 3 & 7) as usize;
        let at = Addr::new(Hpa(hpa), KeyId(keyid));
        let mut words = self.line(at);
        words[word] = value;
        self.set_line(at, words);
    }
    /// Reads 8 bytes under a KeyID.
    pub fn peek(&self, hpa: u64, keyid: u16) -> u64 {
        let word = (hpa >> 3 & 7) as usize;
        self.line(Addr::new(Hpa(hpa), KeyId(keyid)))[word]
    }

    fn act(&mut self, lp: usize, touch: Touch) -> Reply {
        self.touches.push(touch);
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
            Touch::Fill { at, lines, word } => {
                for i in 0..u64::from(lines) {
                    self.set_line(Addr::new(Hpa(at.hpa.0 + 64 * i), at.keyid), [word; 8]);
                }
            }
            Touch::FillTable { at, first, step } => {
                for i in 0..512 {
                    self.poke(at.hpa.0 + 8 * i, at.keyid.0, first + i * step);
                }
            }
            Touch::FillSome { at, lines, word, mask } => {
                for i in 0..u64::from(lines) {
                    let words = std::array::from_fn(|k| word * u64::from(mask >> k & 1));
                    self.set_line(Addr::new(Hpa(at.hpa.0 + 64 * i), at.keyid), words);
                }
            }
            Touch::Copy { from, to } => {
                for i in 0..64 {
                    let line = self.line(Addr::new(Hpa(from.hpa.0 + 64 * i), from.keyid));
                    self.set_line(Addr::new(Hpa(to.hpa.0 + 64 * i), to.keyid), line);
                }
            }
            Touch::Pconfig { .. } => return Reply::Pconfig(self.pconfig),
            Touch::Random => {
                let ok = self.starve == 0;
                self.starve = self.starve.saturating_sub(1);
                return Reply::Random(ok);
            }
            Touch::Spend(time) => self.now += time,
            Touch::FlushPage { .. } | Touch::WriteBackBlock(_) | Touch::Invept(_) => {}
        }
        let _ = lp;
        Reply::Done
    }

    // -------------------------------------------------------------------------------------------------------- calls

    /// One step of what an LP has under way.
    pub fn step(&mut self, lp: usize, reply: Reply) -> Action {
        let spec = self.m.spec();
        let per = (spec.lps / u16::from(spec.packages)).max(1);
        let package = (lp as u16 / per) as u8;
        let msrs = self.msrs[lp].clone();
        let env = Env {
            lp: lp as u16,
            package,
            irq: self.irq,
            now: self.now,
            tsc: self.tsc,
            msrs: &msrs,
            cpuid: self.cpuid[lp],
        };
        self.m.step(&mut self.flights[lp], reply, &env, &mut self.trace)
    }
    /// Begins a call; `false` is VMfailInvalid.
    pub fn begin(&mut self, lp: usize, call: &Call) -> bool {
        self.touches.clear();
        let msrs = self.msrs[lp].clone();
        let (now, tsc, cpuid) = (self.now, self.tsc, self.cpuid[lp]);
        let (lp16, package, irq) = (lp as u16, 0, self.irq);
        let env = Env { lp: lp16, package, irq, now, tsc, msrs: &msrs, cpuid };
        self.m.begin(&mut self.flights[lp], call, &env).is_ok()
    }
    /// Goes on until there is something that is not a touch.
    pub fn run(&mut self, lp: usize, reply: Reply) -> Action {
        let mut reply = self.pending[lp].take().unwrap_or(reply);
        loop {
            match self.step(lp, reply) {
                Action::Touch(touch) => reply = self.act(lp, touch),
                other => return other,
            }
        }
    }
    /// Goes on for `steps` touches at most; what came last.
    pub fn run_some(&mut self, lp: usize, steps: usize) -> Option<Action> {
        self.run_some_with(lp, Reply::Done, steps)
    }
    /// The same where the module waits for an answer, such as an exit of its guest.
    pub fn run_some_with(&mut self, lp: usize, reply: Reply, steps: usize) -> Option<Action> {
        let mut reply = self.pending[lp].take().unwrap_or(reply);
        for _ in 0..steps {
            match self.step(lp, reply) {
                Action::Touch(touch) => reply = self.act(lp, touch),
                other => return Some(other),
            }
        }
        // A load's answer must not be lost: the next `run` begins with it.
        self.pending[lp] = Some(reply);
        None
    }
    /// A whole call on an LP.
    pub fn call_on(&mut self, lp: usize, call: Call) -> Answer {
        assert!(self.begin(lp, &call), "VMfailInvalid");
        match self.run(lp, Reply::Done) {
            Action::Return(answer) => answer,
            other => panic!("{call:x?}: {other:?}"),
        }
    }
    /// A whole call on LP 0.
    pub fn call(&mut self, leaf: Leaf, rcx: u64, rdx: u64, r8: u64, r9: u64) -> Answer {
        self.call_on(0, Call::new(leaf, rcx, rdx, r8, r9))
    }
    /// A call that must succeed.
    pub fn ok(&mut self, leaf: Leaf, rcx: u64, rdx: u64, r8: u64, r9: u64) -> Answer {
        let answer = self.call(leaf, rcx, rdx, r8, r9);
        assert_eq!(answer.status, Status::SUCCESS, "{leaf} {rcx:#x} {rdx:#x} {r8:#x}");
        answer
    }
    /// Enters a VCPU on an LP.
    pub fn enter(&mut self, lp: usize, tdvpr: u64) -> GuestEntry {
        assert!(self.begin(lp, &Call::new(Leaf::VP_ENTER, tdvpr, 0, 0, 0)));
        match self.run(lp, Reply::Done) {
            Action::Enter(guest) => guest,
            other => panic!("not entered: {other:?}"),
        }
    }
    /// The guest on an LP leaves.
    pub fn exit(&mut self, lp: usize, exit: VmExit) -> Action {
        self.touches.clear();
        self.run(lp, Reply::Exit(exit))
    }

    // ----------------------------------------------------------------------------------------- what every VMM must do

    /// A page of the TDMR that was not given away before.
    pub fn page(&mut self) -> u64 {
        let page = self.next_page;
        self.next_page += 4096;
        page
    }
    /// Pages aligned to `bytes`.
    pub fn block(&mut self, bytes: u64) -> u64 {
        let at = self.next_page.next_multiple_of(bytes);
        self.next_page = at + bytes;
        at
    }
    /// Writes TDMR_INFO structures and the array of their addresses; returns the array's address.
    pub fn write_tdmrs(&mut self, tdmrs: &[TdmrText]) -> u64 {
        for (i, tdmr) in tdmrs.iter().enumerate() {
            let at = HOST + 0x1000 + 512 * i as u64;
            self.poke(HOST + 8 * i as u64, 0, at);
            let head = [tdmr.base, tdmr.size];
            // The order of the structure is 1G, 2M, 4K.
            let pamt = tdmr.pamt.iter().flat_map(|(base, size)| [*base, *size]);
            let mut areas: Vec<u64> = tdmr.reserved.iter().flat_map(|(at, n)| [*at, *n]).collect();
            areas.resize(32, 0);
            for (k, word) in head.into_iter().chain(pamt).chain(areas).enumerate() {
                self.poke(at + 8 * k as u64, 0, word);
            }
        }
        HOST
    }
    /// One TDMR of 1 GiB with its PAMTs.
    pub fn tdmr(&self) -> TdmrText {
        TdmrText::at(TDMR, 1 << 30, PAMT)
    }
    /// A module with one TDMR, up to SYS_READY and with its PAMT initialised.
    pub fn ready_with(spec: Spec) -> World {
        let mut w = World::new(spec);
        w.ok(Leaf::SYS_INIT, 0, 0, 0, 0);
        for lp in 0..w.flights.len() {
            let answer = w.call_on(lp, Call::new(Leaf::SYS_LP_INIT, 0, 0, 0, 0));
            assert_eq!(answer.status, Status::SUCCESS);
        }
        let tdmr = w.tdmr();
        let array = w.write_tdmrs(&[tdmr]);
        w.ok(Leaf::SYS_CONFIG, array, 1, GLOBAL, 0);
        let per = usize::from(w.m.spec().lps / u16::from(w.m.spec().packages));
        for package in 0..usize::from(w.m.spec().packages) {
            let answer = w.call_on(package * per, Call::new(Leaf::SYS_KEY_CONFIG, 0, 0, 0, 0));
            assert_eq!(answer.status, Status::SUCCESS);
        }
        loop {
            let answer = w.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0, 0);
            if answer.out[1] == TDMR + (1 << 30) {
                // Memory that is not there is zero: a world is cheap to clone.
                w.lines.retain(|_, line| *line != [0; 8]);
                return w;
            }
        }
    }
    /// The same with the plain specification.
    pub fn ready() -> World {
        World::ready_with(spec())
    }
    /// A TD up to keys configured and TDCS pages given; returns its TDR page.
    pub fn keyed_td(&mut self, hkid: u64) -> u64 {
        let tdr = self.page();
        self.ok(Leaf::MNG_CREATE, tdr, hkid, 0, 0);
        let per = usize::from(self.m.spec().lps / u16::from(self.m.spec().packages));
        for package in 0..usize::from(self.m.spec().packages) {
            let call = Call::new(Leaf::MNG_KEY_CONFIG, tdr, 0, 0, 0);
            assert_eq!(self.call_on(package * per, call).status, Status::SUCCESS);
        }
        for _ in 0..6 {
            let page = self.page();
            self.ok(Leaf::MNG_ADDCX, page, tdr, 0, 0);
        }
        tdr
    }
    /// TD_PARAMS for a TD of 4 levels, 48 bits and at most `vcpus` VCPUs; returns its address.
    pub fn td_params(&mut self, attributes: u64, vcpus: u16) -> u64 {
        let at = HOST + 0x10_000;
        for i in 0..128 {
            self.poke(at + 8 * i, 0, 0);
        }
        self.poke(at, 0, attributes);
        self.poke(at + 8, 0, 3);
        self.poke(at + 16, 0, u64::from(vcpus));
        // EPTP_CONTROLS: memory type WB, levels less one in bits 5:3.
        self.poke(at + 24, 0, 6 | 3 << 3);
        // TSC_FREQUENCY in units of 25 MHz.
        self.poke(at + 40, 0, 40);
        at
    }
    /// A TD with OP_STATE INITIALIZED.
    pub fn initialized_td(&mut self, hkid: u64, attributes: u64) -> u64 {
        let tdr = self.keyed_td(hkid);
        let params = self.td_params(attributes, 4);
        self.ok(Leaf::MNG_INIT, tdr, params, 0, 0);
        tdr
    }
    /// A VCPU that can be entered; returns its TDVPR page.
    pub fn vcpu(&mut self, tdr: u64) -> u64 {
        let tdvpr = self.page();
        self.ok(Leaf::VP_CREATE, tdvpr, tdr, 0, 0);
        for _ in 0..5 {
            let page = self.page();
            self.ok(Leaf::VP_ADDCX, page, tdvpr, 0, 0);
        }
        self.ok(Leaf::VP_INIT, tdvpr, 0x1234, 0, 0);
        tdvpr
    }
    /// Secure-EPT pages for a guest-physical address down to entries of `level`; returns them from the top.
    pub fn sept(&mut self, tdr: u64, gpa: u64, level: u64) -> Vec<u64> {
        let mut pages = Vec::new();
        for at in (level + 1..=3).rev() {
            let page = self.page();
            let base = gpa >> (12 + 9 * at) << (12 + 9 * at);
            let answer = self.call(Leaf::MEM_SEPT_ADD, base | at, tdr, page, 0);
            if answer.status == Status::SUCCESS {
                pages.push(page);
            } else {
                self.next_page -= 4096;
            }
        }
        pages
    }
    /// A page given and left pending; returns its address.
    pub fn aug(&mut self, tdr: u64, gpa: u64) -> u64 {
        let page = self.page();
        self.ok(Leaf::MEM_PAGE_AUG, gpa, tdr, page, 0);
        page
    }
    /// A page added with content; returns its address.
    pub fn add(&mut self, tdr: u64, gpa: u64) -> u64 {
        let page = self.page();
        self.ok(Leaf::MEM_PAGE_ADD, gpa, tdr, page, IMAGE);
        page
    }
    /// A TD that can run, with one VCPU, tables for GPA 0 and a page added at GPA 0.
    pub fn runnable_td(&mut self, hkid: u64) -> RunnableTd {
        let tdr = self.initialized_td(hkid, 0);
        let tdvpr = self.vcpu(tdr);
        let tables = self.sept(tdr, 0, 0);
        let page = self.add(tdr, 0);
        self.ok(Leaf::MR_FINALIZE, tdr, 0, 0, 0);
        RunnableTd { tdr, tdvpr, tables, page }
    }
    /// Changes the module's state by its fields' names, to where no modelled leaf leads: `at` is a path such as
    /// `tds/1048576/op_state`.
    pub fn edit(&mut self, at: &str, value: serde_json::Value) {
        let mut whole = serde_json::to_value(&self.m).unwrap();
        let slot = whole.pointer_mut(&format!("/{at}")).unwrap_or_else(|| panic!("no {at}"));
        *slot = value;
        self.m = serde_json::from_value(whole).unwrap();
    }
    /// The same for a field of a TD.
    pub fn edit_td(&mut self, tdr: u64, field: &str, value: serde_json::Value) {
        self.edit(&format!("tds/{}/{field}", tdr >> 12), value);
    }
    /// The TDR as a page number.
    pub fn td(&self, tdr: u64) -> &tdx_module::td::Td {
        self.m.td(Page(tdr >> 12)).unwrap()
    }
}

/// A TD that can run.
#[derive(Clone, Debug)]
pub struct RunnableTd {
    /// TDR page.
    pub tdr: u64,
    /// TDVPR page of its VCPU.
    pub tdvpr: u64,
    /// Secure-EPT pages of GPA 0, from the top.
    pub tables: Vec<u64>,
    /// The page at GPA 0.
    pub page: u64,
}

/// A TDMR_INFO before it is written.
#[derive(Clone, Debug)]
pub struct TdmrText {
    pub base: u64,
    pub size: u64,
    /// 1G, 2M, 4K: base and size.
    pub pamt: [(u64, u64); 3],
    pub reserved: Vec<(u64, u64)>,
}

impl TdmrText {
    /// A TDMR with its PAMTs one behind the other from `pamt` on, each rounded up to a page.
    pub fn at(base: u64, size: u64, pamt: u64) -> TdmrText {
        let round = |n: u64| n.next_multiple_of(4096);
        let (g, m, k) = (round(size >> 30 << 4), round(size >> 21 << 4), round(size >> 12 << 4));
        TdmrText {
            base,
            size,
            pamt: [(pamt, g), (pamt + g, m), (pamt + g + m, k)],
            reserved: Vec::new(),
        }
    }
}
