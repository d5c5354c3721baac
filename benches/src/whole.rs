//! Longer ways: clearing pages through the machine, a scenario from text to report, a replay.

use crate::{SetupError, Workload, spr};
use machine::{AgentId, AgentKind, AgentSpec, CryptoKind, Machine, Options, Speed};
use scenarios::format::Scenario;
use scenarios::library;
use scenarios::replay::{Place, ReplayReport, Settings, replay};
use scenarios::report::Verdict;
use scenarios::run::{Request, linux, plan, run_all};
use scenarios::trace;
use sim_core::{Addr, KeyId, Op, Page};

/// The scenario that the README runs first.
const FIRST: &str = "partial-write";
/// A whole run of `/bin/true`: 145,751 records (scenarios/data/README.md).
pub(crate) const TRACE: &[u8] = include_bytes!("../../scenarios/data/lackey-true.trace.gz");
/// Pages that go back and forth between TD and host: 64 MiB.
const PAGES: u64 = 1 << 14;

/// What is measured.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        group: "clear",
        name: "clear/movdir64b-page-functional",
        unit: "page",
        batch: 1 << 10,
        make: || {
            let mut clear = Clear::new(Speed::Functional)?;
            Ok(Box::new(move |n| Ok(clear.run(n))))
        },
    },
    Workload {
        group: "clear",
        name: "clear/movdir64b-page-timed",
        unit: "page",
        batch: 1 << 6,
        make: || {
            let mut clear = Clear::new(Speed::Timed)?;
            Ok(Box::new(move |n| Ok(clear.run(n))))
        },
    },
    Workload {
        group: "whole",
        name: "whole/scenario",
        unit: "run",
        batch: 1,
        make: || Ok(Box::new(|n| (0..n).try_fold(0, |sum, _| Ok(sum ^ first_scenario()?)))),
    },
    Workload {
        group: "whole",
        name: "whole/replay-timed",
        unit: "record",
        batch: 145_751,
        make: || Ok(Box::new(|n| Ok(replay_true(Speed::Timed, n)?.simulated_ps))),
    },
    Workload {
        group: "whole",
        name: "whole/replay-functional",
        unit: "record",
        batch: 145_751,
        make: || Ok(Box::new(|n| Ok(replay_true(Speed::Functional, n)?.simulated_ps))),
    },
];

/// Pages that are cleared under a TD's HKID in SEAM, then under KeyID 0 by the host, and so on.
pub struct Clear {
    machine: Machine,
    os: host::mce::LinuxMce,
    host: AgentId,
    module: AgentId,
    keyid: KeyId,
    next: u64,
}

impl Clear {
    /// All pages private.
    ///
    /// # Errors
    /// None, unless the preset is broken.
    pub fn new(speed: Speed) -> Result<Clear, SetupError> {
        let spec = spr()?.spec;
        let keyid = spec.keyid.private(1).ok_or(SetupError::NoPrivateKeyId)?;
        let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 0, log: false };
        let mut machine = Machine::new(&spec, options)?;
        let mut agent = |name: &str, kind| {
            machine.add_agent(AgentSpec { name: name.to_owned(), kind, core: 0, keyid, vcpu: None })
        };
        let (host, module) = (agent("host", AgentKind::Kernel), agent("module", AgentKind::Seam));
        Ok(Clear { machine, os: linux(&spec), host, module, keyid, next: 0 })
    }

    /// Clears so many pages.
    pub fn run(&mut self, pages: u64) -> u64 {
        for _ in 0..pages {
            let page = Page(self.next % PAGES).hpa();
            let (agent, keyid) = if (self.next / PAGES).is_multiple_of(2) {
                (self.module, self.keyid)
            } else {
                (self.host, KeyId::TME)
            };
            self.next += 1;
            let op = Op::Movdir64bPage { at: Addr::new(page, keyid) };
            self.machine.execute(agent, &op, 0, &mut self.os);
        }
        self.machine.now().0
    }

    /// The machine.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// One run of the first scenario, from its text to its report.
///
/// # Errors
/// The scenario does not pass.
pub fn first_scenario() -> Result<u64, SetupError> {
    let entry = library::find(FIRST).ok_or(SetupError::Verdict(FIRST))?;
    let scenario = Scenario::parse(entry.source())?;
    let request = Request::default();
    let cells = plan(&scenario, &request)?;
    let document = run_all(&cells, &request, "benches")?;
    match document.verdict {
        Verdict::Pass => Ok(document.runs.iter().map(|r| r.simulated_ps).sum()),
        _ => Err(SetupError::Verdict(FIRST)),
    }
}

/// One replay of the first `records` of the trace, in a TD.
///
/// # Errors
/// The replay does not pass.
pub fn replay_true(speed: Speed, records: u64) -> Result<ReplayReport, SetupError> {
    let platform = spr()?;
    let keyid = platform.spec.keyid.private(1).ok_or(SetupError::NoPrivateKeyId)?;
    let settings = Settings {
        every_edge: false,
        place: Place::Td(keyid),
        speed,
        seed: 0,
        limit: Some(records),
        allow_truncated: false,
    };
    let name = "lackey-true";
    let mut reader = trace::open_read(name, TRACE, None)?;
    let report = replay(&mut reader, name, "benches", &platform, &settings, |_| {})?;
    if report.verdict == Verdict::Pass { Ok(report) } else { Err(SetupError::Verdict(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_back_and_forth_between_td_and_host() {
        for speed in [Speed::Functional, Speed::Timed] {
            let mut clear = Clear::new(speed).unwrap();
            clear.next = PAGES - 1;
            clear.run(2);
            clear.machine.settle();
            let td = |page: u64| clear.machine().memory().line(Page(page).line(63)).td;
            assert_eq!((td(PAGES - 1), td(0), td(1)), (true, false, false));
            assert_eq!(clear.machine().counts().controller_writes, 128);
            assert_eq!(clear.machine().conservation(), [""; 0]);
        }
    }

    #[test]
    fn the_first_scenario_passes() {
        assert!(first_scenario().unwrap() > 0);
    }

    #[test]
    fn the_replay_runs_as_many_records_as_asked_for() {
        let report = replay_true(Speed::Timed, 5000).unwrap();
        assert_eq!((report.records, report.td), (5000, true));
        let whole = WORKLOADS.iter().find(|w| w.name == "whole/replay-timed").unwrap().batch;
        let report = replay_true(Speed::Functional, u64::MAX).unwrap();
        assert_eq!(report.records, whole);
    }
}
