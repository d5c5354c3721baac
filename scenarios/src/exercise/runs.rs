//! Runs of the machine that are compared with each other, or with the clock: S2, S3, S5, C13, Q15, Q17, R3.

use crate::diag::{Diag, SourceFile};
use crate::format::Scenario;
use crate::platform::{Origin, load};
use crate::refine::{Observer, Refinement};
use crate::run::{Cell, Request, linux, machine_program, plan};
use crate::setup::{SetupError, Stage};
use host::mce::{Context, Severity, Situation, grade_with};
use machine::{Act, AgentKind, Item, Machine, Options, Speed, StepRecord};
use sim_core::mca::{McStatus, McgStatus, StatusParts};
use sim_core::planted::Planted;
use sim_core::tdx::{Leaf, Status};
use sim_core::{Op, Outcome, Ps, Tagged};
use std::collections::BTreeSet;
use verify::invariants::{AliasTiming, Checker, Grading, Shown, Violation};
use verify::reference::{Reference, StepOutcome};

/// What went wrong in setting up is a violation of the check it was for.
type Made<T> = Result<T, String>;

/// The cells of a scenario given as text.
pub(crate) fn cells(text: &str, planted: Planted) -> Made<Vec<Cell>> {
    let made = |diag: Diag| format!("{}:{}: {}", diag.file, diag.line, diag.found);
    let source = SourceFile::unchecked("exercise.toml", text);
    let scenario = Scenario::parse(source).map_err(made)?;
    let mut cells = plan(&scenario, &Request::default()).map_err(made)?;
    cells.iter_mut().for_each(|cell| cell.plant(planted));
    Ok(cells)
}

/// A machine that has run a cell, and the records of its operations.
fn ran(cell: &Cell, speed: Speed) -> Made<(Machine, Vec<StepRecord>)> {
    let options = Options { speed, crypto: cell.program().crypto, seed: 1, log: true };
    let mut machine = Machine::new(cell.platform(), options).map_err(|e| e.to_string())?;
    let mut os = linux(cell.platform());
    if let Some(setup) = &cell.program().setup {
        setup.run(&mut machine, &mut os).map_err(|e| format!("{e:?}"))?;
    }
    let records = machine.run(&machine_program(cell.program()), &mut os);
    Ok((machine, records))
}

/// A TD that is built, used, spied on, and torn down; `SECRET` is what it writes.
const LIFE: &str = r#"
[scenario]
name      = "secret"
title     = "What a TD writes, the host reads around it, and it goes"
cite      = ["verification.md S2"]
platform  = ["spr", "gnr"]
integrity = ["ci", "li"]
program   = '''
  cpu0 : tdh.vp.enter rcx=[A_VP0]
  g0   : store [0x0] 8 SECRET
  g0   : store [0x40] 8 SECRET
  g0   : load [0x0] 8
  cpu1 : load [P0] 8
  usr  : load [P0+0x40] 8
  dma0 : dma-read [P0] 64
  cpu1 : clflush [P0]
  hw   : evict [P0@priv1]
  cpu1 : load [P0] 64
  cpu1 : clflush [P0]
  cpu1 : load [P0@priv1] 8
  g0   : tdg.vp.vmcall
  cpu0 : tdh.vp.flush rcx=[A_VP0]
  cpu0 : tdh.mng.vpflushdone rcx=[A_TDR]
  cpu0 : tdh.phymem.cache.wb
  cpu0 : tdh.mng.key.freeid rcx=[A_TDR]
  cpu0 : tdh.phymem.page.reclaim rcx=[P0]
  cpu0 : tdh.phymem.page.wbinvd rcx=[P0@priv1]
  cpu1 : load [P0] 8
  usr  : load [P0+0x40] 8
  dma0 : dma-read [P0] 8
  cpu1 : load [P0@priv1] 8
  cpu1 : clflush [P0]
  cpu1 : load [P0@shared0] 8
  cpu1 : movdir64b.page [P0]
  cpu1 : mfence
  cpu1 : load [P0] 8
'''
[regions]
P0 = { base = "0x100800000", size = "4KiB" }
[agents]
g0  = { kind = "guest", vcpu = "A_VP0" }
usr = { kind = "user", core = 2 }
[tdx]
state = "ready"
[td.A]
hkid  = "priv1"
state = "runnable"
pages = ["0x0 add P0 fill=0x11"]
[expect]
final = ["module SYS_READY"]
"#;

const SECRETS: [u64; 2] = [0x5ec2_e7a1_b2c3_d4e5, 0x0bad_cafe_f00d_1234];

/// S2, S3 and S5: the same life of a TD with two secrets.
pub(crate) fn secrets(planted: Planted, checker: &mut Checker) -> Vec<Violation> {
    let mut made = || -> Made<Vec<Violation>> {
        let [a, b] = SECRETS.map(|s| cells(&LIFE.replace("SECRET", &format!("{s:#x}")), planted));
        let mut found = Vec::new();
        for (a, b) in a?.iter().zip(&b?) {
            let (x, y) = (ran(a, Speed::Timed)?, ran(b, Speed::Timed)?);
            let shown = [(a, &x.1), (b, &y.1)].map(|(cell, records)| host_shown(cell, records));
            found.extend(checker.check_secret_pair(&shown[0], &shown[1]));
            let secret = SECRETS[0].to_le_bytes();
            for bytes in ruin(a, &x.1) {
                found.extend(checker.check_ruin(&secret, &bytes));
            }
        }
        Ok(found)
    };
    made().unwrap_or_else(|what| vec![Violation { id: "S2", what }])
}

/// What everybody but guests saw.
fn host_shown(cell: &Cell, records: &[StepRecord]) -> Vec<Shown> {
    let agents = machine_program(cell.program()).agents;
    let host = |r: &&StepRecord| {
        agents.get(usize::from(r.agent.0)).is_some_and(|a| a.kind != AgentKind::Guest)
    };
    records
        .iter()
        .filter(host)
        .map(|r| Shown {
            outcome: format!("{} {:?}", r.item, r.outcome),
            took: r.end.since(r.begin),
        })
        .collect()
}

/// The first eight bytes of every load that came after the TD's page was reclaimed.
fn ruin(cell: &Cell, records: &[StepRecord]) -> Vec<[u8; 8]> {
    let program = machine_program(cell.program());
    let op = |r: &StepRecord| match program.items.get(r.item as usize) {
        Some(Item::Op(_, op)) => Some(*op),
        _ => None,
    };
    let reclaims = |r: &&StepRecord| {
        matches!(op(r), Some(Op::Seamcall { leaf: Leaf::PHYMEM_PAGE_RECLAIM, .. }))
            && matches!(r.outcome, Outcome::Call(c) if c.status == Status::SUCCESS)
    };
    let Some(gone) = records.iter().find(reclaims).map(|r| r.item) else { return Vec::new() };
    let loads = records.iter().filter(|r| r.item > gone).filter_map(|r| match r.outcome {
        Outcome::Data(loaded) => Some(std::array::from_fn(|i| loaded.data.byte(i))),
        _ => None,
    });
    loads.collect()
}

/// C13: the host's load of a line that a TD holds not at all, clean, or modified.
pub(crate) fn alias(planted: Planted, checker: &mut Checker) -> Vec<Violation> {
    let text = |held: &str| {
        format!(
            r#"
[scenario]
name      = "alias"
title     = "How long the host's load of a line takes that a TD holds"
cite      = ["verification.md C13"]
platform  = "gnr"
program   = '''
  cpu0 : tdh.vp.enter rcx=[A_VP0]
  g0   : load [0x40] 8
  {held}
  cpu1 : load [P0] 8
'''
[regions]
P0 = {{ base = "0x100800000", size = "4KiB" }}
[agents]
g0 = {{ kind = "guest", vcpu = "A_VP0" }}
[tdx]
state = "ready"
[td.A]
hkid  = "priv1"
state = "runnable"
pages = ["0x0 add P0 fill=0x11"]
[expect]
final = ["module SYS_READY"]
"#
        )
    };
    let took = |held: &str| -> Made<Ps> {
        let cells = cells(&text(held), planted)?;
        let cell = cells.first().ok_or("no cell")?;
        let (_, records) = ran(cell, Speed::Timed)?;
        let last = machine_program(cell.program()).items.len().saturating_sub(1);
        let load = records.iter().find(|r| r.item as usize == last).ok_or("no load")?;
        Ok(load.end.since(load.begin))
    };
    let made = || -> Made<AliasTiming> {
        let [uncached, clean, modified] =
            ["g0 : load [0x80] 8", "g0 : load [0x0] 8", "g0 : store [0x0] 8 0x1"].map(took);
        Ok(AliasTiming { uncached: uncached?, clean: clean?, modified: modified? })
    };
    match made() {
        Ok(times) => checker.check_alias_timing(&times),
        Err(what) => vec![Violation { id: "C13", what }],
    }
}

/// Q15: what decryption adds to so many fills, each from power-on so that all else is the same, and the latency of one.
pub(crate) fn crypto(fills: u64) -> Made<(Ps, Ps)> {
    let time = |xts: &str, line: u64| -> Made<(Ps, Ps)> {
        let set = [("latency.xts", xts), ("memory.integrity", "li")];
        let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let platform =
            load(&Origin::Preset("gnr".to_owned()), &set).map_err(|d| d.found.clone())?;
        let text = format!(
            r#"
[scenario]
name      = "fill"
title     = "How long a fill takes"
cite      = ["verification.md Q15"]
platform  = "gnr"
program   = '''
  cpu0 : load [P0+{:#x}] 8
'''
[regions]
P0 = {{ base = "0x10000000", size = "1MiB" }}
[expect]
final = ["births 0"]
"#,
            4096 * line
        );
        let mut cell = cells(&text, Planted::NONE)?.into_iter().next().ok_or("no cell")?;
        cell.move_to(platform.clone());
        let (_, records) = ran(&cell, Speed::Timed)?;
        let took = records.iter().map(|r| r.end.since(r.begin)).fold(Ps::ZERO, |a, b| a + b);
        Ok((took, platform.spec.latency.xts))
    };
    let (mut added, mut latency) = (Ps::ZERO, Ps::ZERO);
    for line in 0..fills {
        let (without, _) = time("0ns", line)?;
        let (with, of_one) = time("40ns", line)?;
        (added, latency) = (added + with.since(without), of_one);
    }
    Ok((latency, added))
}

/// R3: every combination of the bits that the rules look at.
pub(crate) fn grades(checker: &mut Checker) -> Vec<Violation> {
    let mut found = Vec::new();
    let running = McgStatus::RIPV | McgStatus::EIPV | McgStatus::MCIP;
    for bits in 0..64u8 {
        let bit = |n: u8| bits >> n & 1 != 0;
        for mcacod in [0x134, 0x150, 0x17a, 0xc0, 0] {
            let status = McStatus::pack(StatusParts {
                val: true,
                en: true,
                over: bit(0),
                uc: bit(1),
                miscv: bit(2),
                addrv: bit(3),
                s: bit(4),
                ar: bit(5),
                mcacod,
                ..StatusParts::default()
            });
            for (mcg, user) in
                [(0, false), (0, true), (McgStatus::SEAM_NR, false), (McgStatus::LMCES, true)]
            {
                let mcg = McgStatus(running | mcg);
                let context = if user { Context::User } else { Context::Kernel };
                let grade =
                    grade_with(&Situation { status, mcg, in_exception: true, context }, true);
                let panic = grade.severity == Severity::Panic;
                let message = grade.message;
                found.extend(checker.check_grade(&Grading { status, mcg, user, panic, message }));
            }
        }
    }
    found
}

/// Shows the invariants what the reference does while it follows a machine.
struct Eyes<'a> {
    checker: &'a mut Checker,
    found: Vec<Violation>,
}

impl Observer for Eyes<'_> {
    fn made(&mut self, act: Option<&Act>, out: &StepOutcome, after: &Reference) {
        let injected = matches!(act, Some(Act::Op(Op::InjectUe { .. })));
        self.found.extend(self.checker.check_requests(injected, out, after));
        for request in &out.traffic {
            self.found.extend(self.checker.check_line(after, request.at));
        }
    }
    fn agreed(&mut self, touched: &BTreeSet<Tagged>, now: &Reference) {
        for at in touched {
            self.found.extend(self.checker.check_line(now, *at));
        }
    }
}

/// Q17: a cell against the reference, from the end of its set-up on; and what groups L, P and S say of the requests that the
/// reference makes meanwhile.
pub(crate) fn refined(cell: &Cell, checker: &mut Checker) -> Vec<Violation> {
    let program = machine_program(cell.program());
    let options =
        Options { speed: Speed::Timed, crypto: cell.program().crypto, seed: 1, log: true };
    let not_begun = |what: String| vec![Violation { id: "Q17", what }];
    let mut machine = match Machine::new(cell.platform(), options) {
        Ok(machine) => machine,
        Err(error) => return not_begun(error.to_string()),
    };
    let mut os = linux(cell.platform());
    let mut refinement = Refinement::new(&mut machine);
    let mut eyes = Eyes { checker, found: Vec::new() };
    let mut verdict = Ok(());
    if let Some(setup) = &cell.program().setup {
        let mut follow = |machine: &mut Machine, op: &Op, record: &StepRecord| {
            if verdict.is_ok() {
                verdict = refinement.follow(machine, op, record, &mut ());
            }
            machine.forget_events();
            refinement.log_was_cut(machine);
        };
        let stages = [Stage::Module, Stage::Tds];
        let made = stages.into_iter().try_for_each(|stage| {
            setup.run_watched(stage, &mut machine, &mut os, Some(&mut follow))
        });
        match made {
            Ok(()) => {}
            Err(SetupError::NotModelled(_)) if verdict.is_ok() => return Vec::new(),
            // What machine and reference differ in comes first.
            Err(error) if verdict.is_ok() => {
                return not_begun(format!("{}: {error:?}", cell.program().name));
            }
            Err(_) => {}
        }
    }
    if verdict.is_ok() {
        (_, verdict) = refinement.run(&mut machine, &program, &mut os, &mut eyes);
    }
    let Eyes { checker, mut found } = eyes;
    // What one line says was looked at whenever it changed; the ledger of poison (P2) is looked at as a whole, here.
    found.extend(checker.check_state(refinement.reference()));
    let operations = refinement.compared().operations;
    // A log that is not complete is no agreement either.
    let disagreement = verdict.err().map(|d| d.to_string());
    found.extend(checker.check_refinement(operations, disagreement));
    found
}
