//! The eleven named mutants of verification.md §5.4, planted in the product (`sim_core::planted`): each is killed on a
//! program of at most five operations, by the refinement and by the invariant that the sheet names.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests; clippy.toml knows only those inside #[test]"
)]

use expect_test::expect;
use machine::{
    AgentId, AgentKind, AgentSpec, CryptoKind, Item, Machine, Options, Order, Program, Speed,
    StepRecord,
};
use scenarios::fuzz::operations_with;
use scenarios::platform::{Origin, load_with};
use scenarios::refine::{self, Disagreement, Refinement};
use sim_core::event::{EventKind, LineState, Rule, WeakKind};
use sim_core::mca::{McConsequence, McRecord};
use sim_core::op::{Base, KeyRef, TextOp};
use sim_core::outcome::DataClass;
use sim_core::platform::IntegrityMode;
use sim_core::port::McHandler;
use sim_core::{
    Addr, Fault, Hpa, KeyId, KeyIdLayout, Line, LineData, Op, Outcome, Planted, PlatformSpec,
    Tagged,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use verify::invariants::Checker;
use verify::reference::{
    Agent, Birth, Bytes, Choice, Coherence, Copy, DramLine, Place, Reference, Request, Seen, Spec,
    Step, StepOutcome, Transaction,
};

/// A mutant: its number in the sheet, where it is planted, invariants that the sheet says kill it, and a program whose last
/// operation shows it.
struct Mutant {
    number: u8,
    fault: Fault,
    killed_by: &'static [&'static str],
    program: &'static str,
}

/// verification.md §5.4. Where the sheet names two invariants, one of them is what the program breaks.
const MUTANTS: [Mutant; 11] = [
    Mutant {
        number: 1,
        fault: Fault::WriteKeepsTd,
        killed_by: &["L1"],
        program: "tdA: store [0x1000] 64 0x1
                  hw: evict [0x1000@33]",
    },
    Mutant {
        number: 2,
        fault: Fault::SharedReadShowsData,
        killed_by: &["L3", "S1"],
        program: "tdA: movdir64b [0x1000] fill=0x1
                  tdA: mfence
                  cpu0: load [0x1000] 8",
    },
    Mutant {
        number: 3,
        fault: Fault::MacNotChecked,
        killed_by: &["L7"],
        program: "tdA: movdir64b [0x1000] fill=0x1
                  tdA: mfence
                  hw: flip-bit [0x1000] 0
                  tdA: load [0x1000] 8",
    },
    Mutant {
        number: 4,
        fault: Fault::PoisonNotStored,
        killed_by: &["P4"],
        program: "tdA: prefetch [0x1000]",
    },
    Mutant {
        number: 5,
        fault: Fault::PartialClearsPoison,
        killed_by: &["L4"],
        program: "hw: inject-ue [0x1000]
                  cpu0: movnti [0x1000] 8 0x1
                  cpu0: sfence",
    },
    Mutant {
        number: 6,
        fault: Fault::WriteKeepsPoison,
        killed_by: &["C8"],
        program: "hw: inject-ue [0x1000]
                  cpu0: movdir64b [0x1000] fill=0x1
                  cpu0: sfence",
    },
    Mutant {
        number: 7,
        fault: Fault::Movdir64bKeepsCopies,
        killed_by: &["C8"],
        program: "cpu0: load [0x1000] 8
                  cpu0: movdir64b [0x1000] fill=0x1
                  cpu0: sfence",
    },
    Mutant {
        number: 8,
        fault: Fault::StoreLaundersPoison,
        killed_by: &["C12"],
        program: "hw: inject-ue [0x1000]
                  cpu0: prefetch [0x1000]
                  cpu0: store [0x1000] 8 0x1",
    },
    Mutant {
        number: 9,
        fault: Fault::TagIgnoresKeyId,
        killed_by: &["C3"],
        program: "cpu0: load [0x1000] 8
                  cpu0: load [0x1000@1] 8",
    },
    Mutant {
        number: 10,
        fault: Fault::ClflushTakesAllKeyIds,
        killed_by: &["C7"],
        program: "cpu0: load [0x1000] 8
                  cpu0: load [0x1000@1] 8
                  cpu0: clflush [0x1000]",
    },
    Mutant {
        number: 11,
        fault: Fault::ErratumIgnoresTd,
        killed_by: &["L8"],
        program: "cpu0: movnti [0x1000] 8 0x1
                  cpu0: sfence",
    },
];

const AGENTS: [(&str, AgentKind, u16, u16); 4] = [
    ("cpu0", AgentKind::Kernel, 0, 0),
    ("cpu1", AgentKind::Kernel, 1, 0),
    ("tdA", AgentKind::Td, 1, 33),
    ("hw", AgentKind::Hardware, 0, 0),
];

static SPR: LazyLock<PlatformSpec> =
    LazyLock::new(|| load_with(&Origin::Preset("spr".to_owned()), &[]).unwrap().spec);

/// Two cores, KeyIDs from 32 on private, Ci, erratum on: the configuration that shows every mutant.
fn platform(planted: Planted) -> PlatformSpec {
    let mut spec = SPR.clone();
    spec.keyid = KeyIdLayout {
        maxpa: 46,
        keyid_bits: 6,
        private_bits: 1,
        mktme_kids: 31,
        tdx_priv_kids: 32,
    };
    spec.memory.integrity = IntegrityMode::Ci;
    spec.memory.erratum_pw_mce = true;
    (spec.cpu.packages, spec.cpu.cores) = (1, 2);
    spec.planted = planted;
    spec
}

fn agents() -> Vec<AgentSpec> {
    let agent = |(name, kind, core, keyid): (&str, AgentKind, u16, u16)| AgentSpec {
        name: name.to_owned(),
        kind,
        core,
        keyid: KeyId(keyid),
        vcpu: None,
    };
    AGENTS.into_iter().map(agent).collect()
}

/// Lines `agent: operation`.
fn items(text: &str) -> Vec<(u16, Op)> {
    let line = |line: &str| {
        let (name, op) = line.split_once(':').unwrap();
        let id = AGENTS.iter().position(|(n, ..)| *n == name.trim()).unwrap();
        let key = |key: Option<KeyRef>| match key {
            None => Ok(KeyId(AGENTS[id].3)),
            Some(KeyRef::Num(n)) => u16::try_from(n).map(KeyId).map_err(|_| "KeyID"),
            Some(_) => Err("a number"),
        };
        let op: TextOp = op.trim().parse().unwrap();
        let op = op.try_map(
            |a| match a.base {
                Base::Abs(hpa) => Ok(Addr::new(Hpa(hpa), key(a.key)?)),
                Base::Region { .. } => Err("an address"),
            },
            |k| key(Some(k)),
            |_| Err("no register"),
        );
        (id as u16, op.unwrap())
    };
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

/// A host that survives every machine check.
struct Os;

impl McHandler for Os {
    fn machine_check(&mut self, _: &McRecord) -> McConsequence {
        McConsequence::Survived
    }
}

const SPEEDS: [Speed; 2] = [Speed::Functional, Speed::Timed];

fn machine(planted: Planted, speed: Speed) -> Machine {
    let options = Options { speed, crypto: CryptoKind::Symbolic, seed: 3, log: true };
    Machine::new(&platform(planted), options).unwrap()
}

fn refined(planted: Planted, items: &[(u16, Op)], speed: Speed) -> Result<(), Disagreement> {
    let mut machine = machine(planted, speed);
    let items = items.iter().map(|(id, op)| Item::Op(AgentId(*id), *op)).collect();
    let program = Program { agents: agents(), items, order: Order::Program };
    refine::run(&mut machine, &program, &mut Os).1
}

#[test]
fn every_named_mutant_is_killed_by_the_refinement_within_five_operations() {
    for Mutant { number, fault, program, .. } in &MUTANTS {
        let items = items(program);
        assert!(items.len() <= 5, "MU-{number}");
        for speed in SPEEDS {
            refined(Planted::NONE, &items, speed).unwrap_or_else(|d| panic!("MU-{number}: {d}"));
            let planted = Planted::fault(*fault);
            let Err(found) = refined(planted, &items, speed) else {
                panic!("MU-{number} survives {speed:?}");
            };
            assert!(found.program.len() <= items.len(), "MU-{number}: {found}");
        }
    }
}

#[test]
fn every_number_of_the_sheet_is_planted_once() {
    let numbers: Vec<u8> = MUTANTS.iter().map(|m| m.number).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
    let faults: BTreeSet<Fault> = MUTANTS.iter().map(|m| m.fault).collect();
    assert_eq!(faults.len(), MUTANTS.len());
}

// ---- The product, as the invariants see it -----------------------------------------------------------------------------

/// A line as the machine shows it; what it shows not, its content and keys, is as in `like`.
fn shown(like: &DramLine, state: LineState) -> DramLine {
    let mut line = *like;
    line.td = state.td;
    line.mac = state.mac.then(|| like.mac.unwrap_or(state.td));
    line.poison = state.poison;
    line.writer = state.writer.and(like.writer);
    line
}

fn bytes(data: LineData, class: DataClass) -> Bytes {
    match class {
        DataClass::Garbage => Bytes::UNKNOWN,
        _ => Bytes::known(data),
    }
}

/// What an operation did on the machine, as a step of the reference and its outcome: the reference's own, with everything
/// replaced that the machine shows.
struct Shown {
    step: Step,
    outcome: StepOutcome,
    after: Reference,
}

/// `before` is the reference before the operation, which has agreed with the machine so far; `read` is how many events the
/// machine had logged then.
fn show(
    machine: &Machine,
    before: &Reference,
    read: usize,
    item: &(u16, Op),
    record: &StepRecord,
) -> Shown {
    let events: Vec<EventKind> =
        machine.trace().events().iter().skip(read).map(|e| e.kind).collect();
    let (_, kind, core, keyid) = AGENTS[usize::from(item.0)];
    let direct = events.iter().any(|e| {
        matches!(e, EventKind::WeakDone { kind: WeakKind::Movdir64b, core: c, .. } if *c == core)
    });
    let who = if kind == AgentKind::Td { Agent::Td(KeyId(keyid)) } else { Agent::Kernel };
    let step = match item.1 {
        // Invariants look at the moment when a direct store becomes visible.
        Op::Sfence | Op::Mfence if direct => Step::Choice(Choice::WeakComplete(core, 0)),
        Op::Evict { at } => {
            let place = before.copies(at.tagged()).next().unwrap().0;
            Step::Choice(Choice::Evict(place, at.tagged()))
        }
        Op::Prefetch { at } => Step::Choice(Choice::Prefetch(who, core, at.tagged())),
        op => Step::Op(who, core, op),
    };
    let mut model = before.clone();
    let mut outcome = model.step(&step).unwrap();

    let trace = machine.trace();
    let view = |at: Tagged| machine.caches().inspect(at);
    let seen = |at: Tagged| match (view(at), &record.outcome) {
        (Some(view), _) => (bytes(view.data, view.class), view.class),
        (None, Outcome::Data(l)) => (bytes(l.data, l.class), l.class),
        _ => (Bytes::ZERO, DataClass::Blocked),
    };
    let expected = std::mem::take(&mut outcome.traffic);
    for event in &events {
        let (at, mask, rule, states) = match *event {
            EventKind::DramRead { at, rule, before, after } => (at, None, rule, (before, after)),
            EventKind::DramWrite { at, mask, rule, before, after } => {
                (at, Some(mask), rule, (before, after))
            }
            _ => continue,
        };
        let was = shown(&before.dram(at.line()), states.0);
        let (request, content) = match mask {
            None => {
                let (data, class) = seen(at);
                (Request::Read { data, class }, was)
            }
            Some(mask) => {
                let same = |t: &&Transaction| {
                    t.at == at && matches!(t.request, Request::Write { mask: m, .. } if m == mask)
                };
                let like = expected.iter().find(same).unwrap();
                let kept = rule == Rule::W(10);
                (like.request, if kept { was } else { like.after })
            }
        };
        let after = shown(&content, states.1);
        outcome.traffic.push(Transaction { at, request, rule, before: was, after });
    }
    outcome.seen = match &record.outcome {
        Outcome::Data(l) => {
            Seen::Data { data: bytes(l.data, l.class), bytes: l.bytes, class: l.class }
        }
        Outcome::MachineCheck { record, .. } => Seen::MachineCheck {
            access: record.access,
            at: record.at.tagged(),
            birth: record.birth,
        },
        _ => Seen::Done,
    };
    let (born, _) = before.births_and_deaths();
    let new = trace.births().len() as u32;
    let id = |n: u32| sim_core::BirthId(std::num::NonZeroU32::new(n).unwrap());
    outcome.births = (born + 1..=new).map(id).collect();
    let logged = events.iter().filter_map(|e| match e {
        EventKind::Ucna(record) => Some(record.birth),
        _ => None,
    });
    outcome.ucna = logged.collect();

    let mut state = model.state().clone();
    let touched = outcome.traffic.iter().map(|t| (t.at.line(), t.after));
    let lines: BTreeMap<Line, DramLine> =
        state.dram.iter().map(|(line, dram)| (*line, *dram)).chain(touched).collect();
    for (line, like) in lines {
        state.dram.insert(line, shown(&like, machine.memory().line(line)));
    }
    for key in state.caches.keys().copied().collect::<Vec<_>>() {
        state.caches.remove(&key);
    }
    for resident in machine.caches().resident_lines() {
        let view = view(resident.tag).unwrap();
        let cores = (0..2).filter(|c| view.cores >> c & 1 != 0).map(Place::Core);
        let llcs = (0..1).filter(|p| view.llc >> p & 1 != 0).map(Place::Llc);
        for place in cores.chain(llcs) {
            let state_of = if view.dirty { Coherence::Modified } else { Coherence::Exclusive };
            let data = bytes(view.data, view.class);
            let copy = Copy { state: state_of, data, class: view.class, poison: view.poison };
            state.caches.insert((resident.tag, place), copy);
        }
    }
    for key in state.births.keys().copied().collect::<Vec<_>>() {
        state.births.remove(&key);
    }
    for n in 1..=new {
        let birth = trace.birth(id(n)).unwrap();
        if birth.locations != 0 {
            let (at, cause, locations) = (birth.at, birth.cause, birth.locations);
            state.births.insert(id(n), Birth { at, cause, locations });
        }
    }
    (state.born, state.died) = (new, trace.deaths());
    Shown { step, outcome, after: Reference::of(before.spec, state) }
}

/// Runs a program, feeds what the machine shows of its last operation to the invariants, and returns those broken. The
/// operations before it show nothing: the machine's log is that of a machine without a fault, with which the reference agrees.
fn broken(planted: Planted, items: &[(u16, Op)]) -> BTreeSet<&'static str> {
    let mut sound = machine(Planted::NONE, Speed::Functional);
    let mut faulty = machine(planted, Speed::Functional);
    let mut refinement = Refinement::new(&mut sound);
    for agent in agents() {
        sound.add_agent(agent.clone());
        faulty.add_agent(agent);
    }
    let (last, first) = items.split_last().unwrap();
    for (id, op) in first {
        let record = sound.execute(AgentId(*id), op, 0, &mut Os);
        refinement.follow(&mut sound, op, &record, &mut ()).unwrap();
        faulty.execute(AgentId(*id), op, 0, &mut Os);
    }
    assert_eq!(faulty.trace().events(), sound.trace().events());
    let (before, read) = (refinement.reference().clone(), faulty.trace().events().len());
    let record = faulty.execute(AgentId(last.0), &last.1, 0, &mut Os);
    let Shown { step, outcome, after } = show(&faulty, &before, read, last, &record);
    let mut checker = Checker::new();
    let mut found = checker.check_step(&before, &step, &outcome, &after);
    found.extend(checker.check_state(&after));
    found.into_iter().map(|v| v.id).collect()
}

#[test]
fn every_named_mutant_breaks_the_invariant_that_the_sheet_names() {
    let mut table = String::new();
    for Mutant { number, fault, killed_by, program } in &MUTANTS {
        let items = items(program);
        let sound = broken(Planted::NONE, &items);
        assert_eq!(sound, BTreeSet::new(), "MU-{number} without the fault");
        let found = broken(Planted::fault(*fault), &items);
        let named: BTreeSet<_> = killed_by.iter().copied().collect();
        assert!(named.is_subset(&found), "MU-{number}: {found:?}");
        let found = found.into_iter().collect::<Vec<_>>().join(", ");
        let fault = fault.name();
        table += &format!("| MU-{number} | `{fault}` | {} | {found} |\n", items.len());
    }
    expect![[r#"
        | MU-1 | `WriteKeepsTd` | 2 | L1 |
        | MU-2 | `SharedReadShowsData` | 3 | L2, L3, S1, S4 |
        | MU-3 | `MacNotChecked` | 4 | L2, L3, L7, P4 |
        | MU-4 | `PoisonNotStored` | 1 | L7, P1, P2, P4, P8 |
        | MU-5 | `PartialClearsPoison` | 3 | L4, L9, P2 |
        | MU-6 | `WriteKeepsPoison` | 3 | C8 |
        | MU-7 | `Movdir64bKeepsCopies` | 3 | C8 |
        | MU-8 | `StoreLaundersPoison` | 3 | C12 |
        | MU-9 | `TagIgnoresKeyId` | 2 | C3 |
        | MU-10 | `ClflushTakesAllKeyIds` | 3 | C7 |
        | MU-11 | `ErratumIgnoresTd` | 2 | L8, L9, P1 |
    "#]]
    .assert_eq(&table);
}

#[test]
fn the_reference_that_judges_does_not_know_planted_faults() {
    let sound = Spec::new(&platform(Planted::NONE));
    for Mutant { fault, .. } in &MUTANTS {
        assert_eq!(Spec::new(&platform(Planted::fault(*fault))), sound);
    }
}

// ---- The fuzzers' operations ---------------------------------------------------------------------------------------------

#[test]
fn what_the_fuzzers_kept_finds_every_named_mutant() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/operations");
    let files = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    let inputs: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).unwrap()).collect();
    for Mutant { number, fault, .. } in &MUTANTS {
        let finds = |input: &&Vec<u8>| operations_with(input, Planted::fault(*fault)).is_err();
        assert!(inputs.iter().any(|input| finds(&input)), "MU-{number} is not found");
    }
}
