//! TLB epochs (architecture.md §7.8; verification.md E1 to E5): two VCPUs of a TD on two LPs, and a VMM that blocks, tracks
//! and removes its pages in any order, between any two steps of a call.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::World;
use proptest::prelude::*;
use sim_core::Hpa;
use sim_core::tdx::{GuestLeaf, Leaf, Operand, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use tdx_module::pamt::Size;
use tdx_module::sept::State;
use tdx_module::td::VcpuState;
use tdx_module::{Action, Call, Touch, VmExit};

/// How many pages the TD has.
const PAGES: u64 = 3;

#[derive(Clone)]
struct Bench {
    w: World,
    td: u64,
    vcpus: [u64; 2],
    table: u64,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let mut w = World::ready();
    let td = w.initialized_td(65, 0);
    let vcpus = [0, 1].map(|_| w.vcpu(td));
    // The second one is free to go to any LP.
    w.ok(Leaf::VP_FLUSH, vcpus[1], 0, 0, 0);
    let tables = w.sept(td, 0, 0);
    for i in 0..PAGES {
        w.add(td, i << 12);
    }
    w.ok(Leaf::MR_FINALIZE, td, 0, 0, 0);
    Bench { w, td, vcpus, table: tables[2] }
});

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A call on an LP: all of it, or its first touches.
    Call(usize, Leaf, u64, Option<u8>),
    /// The LP goes on with what it has under way, for some touches.
    Step(usize, u8),
    /// The guest of an LP leaves.
    Exit(usize),
    /// The guest of an LP uses a page: its translation is in the LP's TLB.
    Use(usize, u64),
    /// The guest of an LP accepts a page.
    Accept(usize, u64),
}

fn op(split: bool) -> impl Strategy<Value = Op> {
    let lp = 0..2usize;
    let part = if split { prop::option::of(1..30u8).boxed() } else { Just(None).boxed() };
    let leaf = prop_oneof![
        4 => Just(Leaf::VP_ENTER),
        1 => Just(Leaf::VP_FLUSH),
        3 => Just(Leaf::MEM_RANGE_BLOCK),
        1 => Just(Leaf::MEM_RANGE_UNBLOCK),
        4 => Just(Leaf::MEM_TRACK),
        4 => Just(Leaf::MEM_PAGE_REMOVE),
        2 => Just(Leaf::MEM_PAGE_AUG),
    ];
    prop_oneof![
        6 => (lp.clone(), leaf, 0..PAGES, part).prop_map(|(lp, leaf, i, part)| Op::Call(lp, leaf, i, part)),
        2 => (lp.clone(), 1..30u8).prop_map(|(lp, n)| Op::Step(lp, n)),
        3 => lp.clone().prop_map(Op::Exit),
        3 => (lp.clone(), 0..PAGES).prop_map(|(lp, i)| Op::Use(lp, i)),
        1 => (lp, 0..PAGES).prop_map(|(lp, i)| Op::Accept(lp, i)),
    ]
}

/// The module, and what an observer knows without looking into it.
struct Run {
    b: Bench,
    /// Which VCPU runs on which LP, and the epoch in which it was entered.
    running: [Option<(usize, u64)>; 2],
    epoch: u64,
    /// What each LP's TLB may still translate to.
    tlb: [BTreeSet<u64>; 2],
    /// BEPOCH of blocked pages.
    blocked: BTreeMap<u64, u64>,
    /// Pages that are the VMM's again.
    removed: BTreeSet<u64>,
    /// Whether every call has ended before the next began.
    atomic: bool,
    /// What each LP has under way.
    calls: [Option<(Leaf, u64)>; 2],
}

impl Run {
    fn new() -> Run {
        Run {
            b: BENCH.clone(),
            running: [None; 2],
            epoch: 1,
            tlb: Default::default(),
            blocked: BTreeMap::new(),
            removed: BTreeSet::new(),
            atomic: true,
            calls: [None; 2],
        }
    }
    fn state(&self, i: u64) -> (State, u64) {
        let entry = self.b.w.m.sept_entry(Hpa(self.b.table).page(), i as u16).unwrap();
        (entry.state().unwrap(), entry.hpa().0)
    }
    fn in_guest(&self, lp: usize) -> bool {
        self.b.w.flights[lp].is_in_guest()
    }
    fn call(&mut self, leaf: Leaf, i: u64) -> Call {
        let (td, gpa) = (self.b.td, i << 12);
        match leaf {
            Leaf::VP_ENTER | Leaf::VP_FLUSH => {
                Call::new(leaf, self.b.vcpus[(i & 1) as usize], 0, 0, 0)
            }
            Leaf::MEM_TRACK => Call::new(leaf, td, 0, 0, 0),
            Leaf::MEM_PAGE_AUG => Call::new(leaf, gpa, td, self.b.w.page(), 0),
            _ => Call::new(leaf, gpa, td, 0, 0),
        }
    }
    /// Goes on for so many touches; what the call's end says, if it comes.
    fn advance(&mut self, lp: usize, touches: Option<u8>) -> Option<Action> {
        for _ in 0..touches.map_or(usize::MAX, usize::from) {
            let seen = self.b.w.touches.len();
            let action = self.b.w.run_some(lp, 1);
            if self.b.w.touches[seen..].iter().any(|t| matches!(t, Touch::Invept(_))) {
                self.tlb[lp].clear();
            }
            if action.is_some() {
                return action;
            }
        }
        None
    }
    /// How many VCPUs run that were entered in this epoch.
    fn count(&self, epoch: u64) -> usize {
        self.running.iter().flatten().filter(|(_, e)| *e == epoch).count()
    }
    /// E1, by definition: no VCPU can run that was entered while the page was mapped.
    fn tracked(&self, bepoch: u64) -> bool {
        bepoch < self.epoch && self.running.iter().flatten().all(|(_, e)| *e > bepoch)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Call(lp, leaf, i, part) => {
                if self.b.w.flights[lp].is_under_way() {
                    return;
                }
                let call = self.call(leaf, i);
                let others = self.calls[1 - lp].is_some();
                self.atomic = !others && part.is_none();
                let expected = if self.atomic { self.expected(leaf, i) } else { None };
                let before = self.b.w.m.clone();
                assert!(self.b.w.begin(lp, &call));
                self.calls[lp] = Some((leaf, i));
                let action = self.advance(lp, part);
                if let (Some(want), Some(Action::Return(answer))) = (expected, &action) {
                    assert_eq!(answer.status, want, "{leaf} {i}");
                    if answer.status.is_error() {
                        assert!(self.b.w.m.without_priority() == before.without_priority());
                    }
                }
                self.ended(lp, action);
            }
            Op::Step(lp, n) => {
                if self.calls[lp].is_some() {
                    let action = self.advance(lp, Some(n));
                    self.ended(lp, action);
                }
            }
            Op::Exit(lp) => {
                if self.in_guest(lp) {
                    let action = self.b.w.exit(lp, VmExit::Interrupt);
                    assert!(matches!(action, Action::Return(a) if a.status == Status(1)));
                    self.running[lp] = None;
                }
            }
            Op::Use(lp, i) => {
                if let (true, (State::Mapped, hpa)) = (self.in_guest(lp), self.state(i)) {
                    self.tlb[lp].insert(hpa);
                }
            }
            Op::Accept(lp, i) => {
                if self.in_guest(lp) {
                    let (leaf, regs) = (GuestLeaf::MEM_PAGE_ACCEPT, [i << 12, 0, 0, 0, 0, 0, 0, 0]);
                    let action = self.b.w.exit(lp, VmExit::Tdcall { leaf, version: 0, regs });
                    if matches!(action, Action::Return(_)) {
                        self.running[lp] = None;
                    }
                }
            }
        }
    }

    /// What a call that nobody disturbs returns, as far as epochs decide it.
    fn expected(&self, leaf: Leaf, i: u64) -> Option<Status> {
        let rcx = Operand::RCX;
        let (state, _) = self.state(i);
        let bepoch = self.blocked.get(&i).copied();
        Some(match leaf {
            // E2.
            Leaf::MEM_TRACK if self.count(self.epoch - 1) > 0 => Status::PREVIOUS_TLB_EPOCH_BUSY,
            Leaf::MEM_TRACK => Status::SUCCESS,
            // E5.
            Leaf::MEM_PAGE_REMOVE => match (state, bepoch) {
                (State::Free, _) => Status::EPT_ENTRY_STATE_INCORRECT.about(rcx),
                (_, None) => Status::GPA_RANGE_NOT_BLOCKED.about(rcx),
                (_, Some(b)) if !self.tracked(b) => Status::TLB_TRACKING_NOT_DONE.about(rcx),
                _ => Status::SUCCESS,
            },
            Leaf::MEM_RANGE_UNBLOCK => match (state, bepoch) {
                (_, Some(b)) if !self.tracked(b) => {
                    Status::TLB_TRACKING_NOT_DONE.about(Operand::SEPT_TREE)
                }
                (_, Some(_)) => Status::SUCCESS,
                _ => Status::EPT_ENTRY_STATE_INCORRECT.about(rcx),
            },
            _ => return None,
        })
    }

    /// A call has come to its end, or into the guest.
    fn ended(&mut self, lp: usize, action: Option<Action>) {
        let Some(action) = action else { return };
        let Some((leaf, i)) = self.calls[lp].take() else { return };
        let status = match action {
            Action::Enter(_) => {
                let tdvpr = Hpa(self.b.vcpus[(i & 1) as usize]).page();
                let epoch = self.b.w.m.vcpu(tdvpr).unwrap().epoch;
                self.running[lp] = Some(((i & 1) as usize, epoch));
                return;
            }
            Action::Return(answer) => answer,
            other => panic!("{other:?}"),
        };
        if status.status != Status::SUCCESS {
            return;
        }
        match leaf {
            Leaf::MEM_TRACK => self.epoch += 1,
            Leaf::MEM_RANGE_BLOCK => {
                let bepoch = self.b.w.m.pamt(self.state(i).1, Size::Small).bepoch;
                assert!(!self.atomic || bepoch == self.epoch);
            }
            Leaf::MEM_PAGE_REMOVE => {
                self.removed.insert(status.out[0]);
            }
            _ => {}
        }
        // A call lets go of one lock after the other: by the time it returns, another may have blocked, unblocked or
        // removed the page again.
        let (state, hpa) = self.state(i);
        if state.is_blocked() {
            self.blocked.insert(i, self.b.w.m.pamt(hpa, Size::Small).bepoch);
        } else {
            self.blocked.remove(&i);
        }
    }

    fn check(&self) {
        let td = self.b.w.m.td(Hpa(self.b.td).page()).unwrap();
        // E3: no guest that runs can reach a page that is the VMM's again.
        for lp in 0..2 {
            if self.in_guest(lp) {
                let stale: Vec<_> = self.tlb[lp].intersection(&self.removed).collect();
                assert!(stale.is_empty(), "LP {lp} still reaches {stale:x?}");
            }
        }
        // E4: by the VCPUs' own epochs, also of those on their way in.
        let mut counts = [0, 0];
        for (_, vcpu) in self.b.w.m.vcpus().filter(|(_, v)| v.state == VcpuState::Active) {
            assert!(vcpu.epoch == td.epoch || vcpu.epoch + 1 == td.epoch, "{vcpu:?}");
            counts[(vcpu.epoch & 1) as usize] += 1;
        }
        assert_eq!(td.refcount, counts);
        if self.calls == [None; 2] {
            // The same by what was seen from outside.
            assert_eq!(td.epoch, self.epoch);
            let seen = [0, 1].map(|parity| {
                self.running.iter().flatten().filter(|(_, e)| e & 1 == parity).count() as u32
            });
            assert_eq!(td.refcount, seen);
            // E1, for every epoch there was and one to come.
            for bepoch in 0..=self.epoch + 1 {
                assert_eq!(td.is_tracked(bepoch), self.tracked(bepoch), "{bepoch}");
            }
        }
    }
}

fn play(ops: &[Op]) -> Run {
    let mut run = Run::new();
    for op in ops {
        run.apply(*op);
        run.check();
    }
    // Whatever is under way ends, and nothing stays locked.
    for lp in 0..2 {
        if run.calls[lp].is_some() {
            let action = run.advance(lp, None);
            run.ended(lp, action);
        }
        run.apply(Op::Exit(lp));
        run.check();
    }
    assert!(run.b.w.m.is_quiet());
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn one_call_after_the_other_the_epochs_decide_as_the_sheet_says(
        ops in prop::collection::vec(op(false), 1..60)
    ) {
        play(&ops);
    }

    #[test]
    fn between_any_two_steps_counts_equal_what_runs_and_no_guest_reaches_a_removed_page(
        ops in prop::collection::vec(op(true), 1..80)
    ) {
        play(&ops);
    }
}

#[test]
fn the_protocol_of_the_host_removes_a_page_under_a_running_guest() {
    // architecture.md §7.8 "Host protocol": BLOCK, TRACK, IPI, REMOVE.
    let call = |lp, leaf, i| Op::Call(lp, leaf, i, None);
    let mut run = play(&[]);
    run.b.w.enter(0, run.b.vcpus[0]);
    run.running[0] = Some((0, 1));
    let rcx = Operand::RCX;
    for (op, want) in [
        (call(1, Leaf::MEM_PAGE_REMOVE, 0), Status::GPA_RANGE_NOT_BLOCKED.about(rcx)),
        (call(1, Leaf::MEM_RANGE_BLOCK, 0), Status::SUCCESS),
        (call(1, Leaf::MEM_PAGE_REMOVE, 0), Status::TLB_TRACKING_NOT_DONE.about(rcx)),
        (call(1, Leaf::MEM_TRACK, 0), Status::SUCCESS),
        (call(1, Leaf::MEM_PAGE_REMOVE, 0), Status::TLB_TRACKING_NOT_DONE.about(rcx)),
        (call(1, Leaf::MEM_TRACK, 0), Status::PREVIOUS_TLB_EPOCH_BUSY),
    ] {
        let Op::Call(_, leaf, i, _) = op else { panic!() };
        let call = run.call(leaf, i);
        assert_eq!(run.b.w.call_on(1, call).status, want);
    }
    // The IPI.
    run.b.w.exit(0, VmExit::Interrupt);
    let call = run.call(Leaf::MEM_PAGE_REMOVE, 0);
    assert_eq!(run.b.w.call_on(1, call).status, Status::SUCCESS);
    // The next entry finds a new epoch and flushes.
    run.b.w.enter(0, run.b.vcpus[0]);
    let flushed = |t: &Touch| *t == Touch::Invept(Some(Hpa(run.b.td).page()));
    assert!(run.b.w.touches.iter().any(flushed));
}

#[test]
fn a_dead_td_s_vcpus_are_never_counted_out() {
    // architecture.md §7.8 row "TD exit": "except on the NON_ACCESSIBLE (machine-check) exit".
    let mut b = BENCH.clone();
    b.w.enter(0, b.vcpus[0]);
    b.w.exit(0, VmExit::MachineCheck);
    assert_eq!(b.w.td(b.td).refcount, [0, 1]);
    let track = b.w.call(Leaf::MEM_TRACK, b.td, 0, 0, 0);
    assert_eq!(track.status, Status::TD_FATAL);
}
