//! Leaves of the TDX module, called by the host on a machine in functional mode.

use crate::{SetupError, Workload, spr};
use host::mce::LinuxMce;
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Machine, Options, Speed};
use scenarios::run::linux;
use sim_core::op::{CallRegs, MemType, Value};
use sim_core::outcome::CallResult;
use sim_core::tdx::{Leaf, Status};
use sim_core::{Addr, Hpa, KeyId, Op, Outcome};

/// The TDMR: the GiB at 4 GiB.
const TDMR: u64 = 0x1_0000_0000;
const GIB: u64 = 1 << 30;
/// Its PAMTs: 16 B for the GiB, 8 KiB, 4 MiB (architecture.md §9), each from a page on.
const PAMT: [(u64, u64); 3] =
    [(0x1_8000_0000, 4096), (0x1_8000_1000, 8192), (0x1_8000_3000, 4 << 20)];
/// What the host hands to the module.
const HOST: u64 = 0x1_9000_0000;
/// Private pages of the TD: 64 MiB.
const PAGES: u64 = 1 << 14;

/// What is measured.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        group: "leaves",
        name: "leaves/block-track-unblock",
        unit: "leaf",
        batch: 3 << 10,
        make: || {
            let mut leaves = Leaves::new()?;
            leaves.augment();
            Ok(Box::new(move |n| leaves.block_track_unblock(n)))
        },
    },
    Workload {
        group: "leaves",
        name: "leaves/reclaim",
        unit: "leaf",
        batch: PAGES,
        make: || {
            let mut leaves = Leaves::new()?;
            leaves.augment();
            leaves.tear_down();
            let ready = leaves.clone();
            let mut next = 0;
            Ok(Box::new(move |n| {
                for _ in 0..n {
                    if next == PAGES {
                        leaves.machine.clone_from(&ready.machine);
                        next = 0;
                    }
                    leaves.must(Leaf::PHYMEM_PAGE_RECLAIM, [page(next), 0, 0])?;
                    next += 1;
                }
                Ok(leaves.machine.counts().accesses)
            }))
        },
    },
    Workload {
        group: "leaves",
        name: "leaves/aug-remove",
        unit: "leaf",
        batch: 2 << 10,
        make: || {
            let mut leaves = Leaves::new()?;
            Ok(Box::new(move |n| leaves.aug_remove(n)))
        },
    },
];

/// Private page `i` of the TD.
const fn page(i: u64) -> u64 {
    TDMR + (64 << 20) + i * 4096
}
/// Guest page `i`.
const fn gpa(i: u64) -> u64 {
    i * 4096
}

/// A TD that is being built, and its host.
#[derive(Clone)]
pub struct Leaves {
    machine: Machine,
    os: LinuxMce,
    host: AgentId,
    tdr: u64,
    next_page: u64,
    next: u64,
    failed: Option<Status>,
}

impl Leaves {
    /// A module that is ready, and a TD with its key, its control structures and Secure-EPT tables for all its pages.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new() -> Result<Leaves, SetupError> {
        let mut spec = spr()?.spec;
        (spec.cpu.cores, spec.cpu.packages) = (1, 1);
        let speed = Speed::Functional;
        let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 0, log: false };
        let mut machine = Machine::new(&spec, options)?;
        let host = machine.add_agent(AgentSpec {
            name: "host".to_owned(),
            kind: AgentKind::Kernel,
            core: 0,
            keyid: KeyId::TME,
            vcpu: None,
        });
        let (os, tdr) = (linux(&spec), TDMR);
        let mut new =
            Leaves { machine, os, host, tdr, next_page: TDMR + 4096, next: 0, failed: None };
        let global = spec.keyid.private(0).ok_or(SetupError::NoPrivateKeyId)?.0;
        let hkid = spec.keyid.private(1).ok_or(SetupError::NoPrivateKeyId)?.0;
        new.module(global.into());
        new.td(hkid.into());
        match new.failed {
            None => Ok(new),
            Some(status) => Err(SetupError::Leaf(status)),
        }
    }

    fn store(&mut self, at: u64, value: u64) {
        let at = Addr::new(Hpa(at), KeyId::TME);
        let op = Op::Store { at, bytes: 8, value: Value::Num(value), ty: MemType::Wb };
        self.machine.execute(self.host, &op, 0, &mut self.os);
    }
    /// A call, and what it returned.
    fn call(&mut self, leaf: Leaf, [rcx, rdx, r8]: [u64; 3]) -> Option<CallResult> {
        let regs = CallRegs([rcx, rdx, r8, HOST, 0, 0, 0, 0]);
        let op = Op::Seamcall { leaf, version: 0, regs };
        match self.machine.execute(self.host, &op, 0, &mut self.os).outcome {
            Outcome::Call(result) => Some(result),
            _ => None,
        }
    }
    fn must(&mut self, leaf: Leaf, regs: [u64; 3]) -> Result<CallResult, SetupError> {
        match self.call(leaf, regs) {
            Some(result) if result.status == Status::SUCCESS => Ok(result),
            other => Err(SetupError::Leaf(other.map_or(Status(u64::MAX), |r| r.status))),
        }
    }
    /// A call of the setup; the first that fails is remembered.
    fn ok(&mut self, leaf: Leaf, rcx: u64, rdx: u64, r8: u64) -> u64 {
        let result = self.call(leaf, [rcx, rdx, r8]);
        let status = result.map_or(Status(u64::MAX), |r| r.status);
        if status != Status::SUCCESS && self.failed.is_none() {
            self.failed = Some(status);
        }
        result.map_or(0, |r| r.out[1])
    }
    fn fresh(&mut self) -> u64 {
        self.next_page += 4096;
        self.next_page - 4096
    }

    fn module(&mut self, global: u64) {
        self.ok(Leaf::SYS_INIT, 0, 0, 0);
        self.ok(Leaf::SYS_LP_INIT, 0, 0, 0);
        let info = HOST + 4096;
        self.store(HOST, info);
        let words = [TDMR, GIB].into_iter().chain(PAMT.iter().flat_map(|(at, n)| [*at, *n]));
        for (i, word) in words.chain([0; 32]).enumerate() {
            self.store(info + 8 * i as u64, word);
        }
        self.ok(Leaf::SYS_CONFIG, HOST, 1, global);
        self.ok(Leaf::SYS_KEY_CONFIG, 0, 0, 0);
        while self.failed.is_none() && self.ok(Leaf::SYS_TDMR_INIT, TDMR, 0, 0) < TDMR + GIB {}
    }
    fn td(&mut self, hkid: u64) {
        let (tdr, params) = (self.tdr, HOST + 0x2000);
        self.ok(Leaf::MNG_CREATE, tdr, hkid, 0);
        self.ok(Leaf::MNG_KEY_CONFIG, tdr, 0, 0);
        for _ in 0..6 {
            let page = self.fresh();
            self.ok(Leaf::MNG_ADDCX, page, tdr, 0);
        }
        // XFAM x87 and SSE, one VCPU, EPTP_CONTROLS write-back with 4 levels, TSC of 2.5 GHz in units of 25 MHz.
        let params_words = [0, 3, 1, 6 | 3 << 3, 0, 100];
        for i in 0..128 {
            self.store(params + 8 * i, params_words.get(i as usize).copied().unwrap_or(0));
        }
        self.ok(Leaf::MNG_INIT, tdr, params, 0);
        for (gpa, level) in
            [(0, 3), (0, 2)].into_iter().chain((0..PAGES / 512).map(|i| (i << 21, 1)))
        {
            let page = self.fresh();
            self.ok(Leaf::MEM_SEPT_ADD, gpa | level, tdr, page);
        }
        // AUG needs a TD that can run, and that one VCPU.
        let tdvpr = self.fresh();
        self.ok(Leaf::VP_CREATE, tdvpr, tdr, 0);
        for _ in 0..5 {
            let page = self.fresh();
            self.ok(Leaf::VP_ADDCX, page, tdvpr, 0);
        }
        self.ok(Leaf::VP_INIT, tdvpr, 0, 0);
        self.ok(Leaf::VP_FLUSH, tdvpr, 0, 0);
        self.ok(Leaf::MR_FINALIZE, tdr, 0, 0);
    }

    /// Gives the TD all its pages.
    fn augment(&mut self) {
        for i in 0..PAGES {
            self.ok(Leaf::MEM_PAGE_AUG, gpa(i), self.tdr, page(i));
        }
    }
    /// Releases the HKID, so that pages can be reclaimed.
    fn tear_down(&mut self) {
        let tdr = self.tdr;
        self.ok(Leaf::MNG_VPFLUSHDONE, tdr, 0, 0);
        self.ok(Leaf::PHYMEM_CACHE_WB, 0, 0, 0);
        self.ok(Leaf::MNG_KEY_FREEID, tdr, 0, 0);
    }

    /// So many leaves: BLOCK of a page, TRACK, UNBLOCK, then the next page.
    fn block_track_unblock(&mut self, leaves: u64) -> Result<u64, SetupError> {
        let tdr = self.tdr;
        for _ in 0..leaves / 3 {
            let at = gpa(self.next % PAGES);
            self.next += 1;
            self.must(Leaf::MEM_RANGE_BLOCK, [at, tdr, 0])?;
            self.must(Leaf::MEM_TRACK, [tdr, 0, 0])?;
            self.must(Leaf::MEM_RANGE_UNBLOCK, [at, tdr, 0])?;
        }
        Ok(self.machine.counts().accesses)
    }
    /// So many leaves: pages given and, once blocked and tracked, taken back.
    fn aug_remove(&mut self, leaves: u64) -> Result<u64, SetupError> {
        let tdr = self.tdr;
        for _ in 0..leaves / 4 {
            let i = self.next % PAGES;
            self.next += 1;
            self.must(Leaf::MEM_PAGE_AUG, [gpa(i), tdr, page(i)])?;
            self.must(Leaf::MEM_RANGE_BLOCK, [gpa(i), tdr, 0])?;
            self.must(Leaf::MEM_TRACK, [tdr, 0, 0])?;
            self.must(Leaf::MEM_PAGE_REMOVE, [gpa(i), tdr, 0])?;
        }
        Ok(self.machine.counts().accesses)
    }
    /// The machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}
