//! What the reference does, against the sheets.

use super::tables::{
    READS_CI, READS_LI, WRITES, WriteCase, read_row, reads_markdown, writes_markdown,
};
use super::*;
use crate::invariants::{Checker, Feed, INVARIANTS, invariants_markdown};
use expect_test::expect;
use proptest::prelude::*;
use sim_core::op::{CallRegs, IrqKind, KeyAlg, MemType, PconfigCmd, Source, Value};
use sim_core::platform::IntegrityMode::{Ci, Li};
use sim_core::platform::XtsWidth;
use sim_core::tdx::{GuestLeaf, Leaf};
use sim_core::{Addr, Hpa, LineData};
use std::collections::BTreeSet;

pub(crate) const K0: KeyId = KeyId(0);
/// A shared KeyID that a test may give integrity.
pub(crate) const S1: KeyId = KeyId(1);
pub(crate) const H1: KeyId = KeyId(32);
pub(crate) const H2: KeyId = KeyId(33);
pub(crate) const X: u64 = 0x1000;

pub(crate) fn spec(integrity: IntegrityMode, erratum: bool) -> Spec {
    Spec {
        keyid: KeyIdLayout {
            maxpa: 52,
            keyid_bits: 6,
            private_bits: 1,
            mktme_kids: 31,
            tdx_priv_kids: 32,
        },
        memory: MemorySpec {
            integrity,
            erratum_pw_mce: erratum,
            mac_bits: 28,
            xts: XtsWidth::Xts128,
            tme_bypass: false,
        },
        packages: 1,
        cores: 2,
        wc_buffers: 2,
        flush_sub_blocks: 2,
        fast_string_no_rfo: true,
        rfo_poison_mc: false,
        store_buffer: 0,
        mutant: 0,
    }
}

pub(crate) fn at(hpa: u64, keyid: KeyId) -> Addr {
    Addr::new(Hpa(hpa), keyid)
}
pub(crate) fn load(hpa: u64, keyid: KeyId, bytes: u32) -> Op {
    Op::Load { at: at(hpa, keyid), bytes, ty: MemType::Wb }
}
pub(crate) fn store(hpa: u64, keyid: KeyId, value: u64) -> Op {
    Op::Store { at: at(hpa, keyid), bytes: 8, value: Value::Num(value), ty: MemType::Wb }
}
pub(crate) fn movnti(hpa: u64, keyid: KeyId, value: u64) -> Op {
    Op::NtStore { at: at(hpa, keyid), bytes: 8, value: Value::Num(value) }
}
pub(crate) fn movdir64b(hpa: u64, keyid: KeyId, byte: u8) -> Op {
    Op::Movdir64b { dst: at(hpa, keyid), src: Source::Fill(byte) }
}
/// Who uses a KeyID in these tests.
pub(crate) fn user_of(keyid: KeyId) -> Agent {
    if keyid.0 >= 32 { Agent::Td(keyid) } else { Agent::Kernel }
}

/// A reference under the eyes of the checker.
pub(crate) struct Rig {
    pub(crate) r: Reference,
    pub(crate) checker: Checker,
}

impl Rig {
    pub(crate) fn new(spec: Spec) -> Rig {
        let mut rig = Rig { r: Reference::new(spec), checker: Checker::new() };
        if spec.keyid.private_bits != 0 {
            for keyid in [H1, H2] {
                rig.pconfig(Agent::SeamRoot, keyid, PconfigCmd::SetRandom, None);
            }
        }
        rig
    }
    fn pconfig(&mut self, who: Agent, keyid: KeyId, cmd: PconfigCmd, alg: Option<KeyAlg>) -> Seen {
        self.by(who, 0, Op::Pconfig { keyid, cmd, alg })
    }
    /// The first shared KeyID gets integrity.
    fn integrity_for_s1(&mut self) {
        let alg = Some(KeyAlg::Xts128Integrity);
        let got = self.pconfig(Agent::Kernel, S1, PconfigCmd::SetRandom, alg);
        assert_eq!(got, Seen::Pconfig(PconfigStatus::Ok));
    }
    pub(crate) fn try_step(&mut self, step: &Step) -> Result<StepOutcome, NotAllowed> {
        let before = self.r.clone();
        let result = self.r.step(step);
        match &result {
            Ok(out) => {
                let mut broken = self.checker.check_step(&before, step, out, &self.r);
                broken.extend(self.checker.check_state(&self.r));
                assert!(broken.is_empty(), "{step:?}: {broken:#?}");
            }
            Err(_) => assert_eq!(before, self.r, "a refused step changed the state"),
        }
        result
    }
    pub(crate) fn out(&mut self, who: Agent, core: u16, op: Op) -> StepOutcome {
        self.try_step(&Step::Op(who, core, op)).unwrap()
    }
    pub(crate) fn by(&mut self, who: Agent, core: u16, op: Op) -> Seen {
        self.out(who, core, op).seen
    }
    fn host(&mut self, op: Op) -> Seen {
        self.by(Agent::Kernel, 0, op)
    }
    fn td(&mut self, op: Op) -> Seen {
        self.by(Agent::Td(H1), 1, op)
    }
    fn module(&mut self, op: Op) -> Seen {
        self.by(Agent::SeamRoot, 1, op)
    }
    fn choose(&mut self, choice: Choice) -> StepOutcome {
        self.try_step(&Step::Choice(choice)).unwrap()
    }
    /// A whole line in DRAM, written and fenced under a KeyID.
    fn direct(&mut self, hpa: u64, keyid: KeyId, byte: u8) {
        assert_eq!(self.by(user_of(keyid), 0, movdir64b(hpa, keyid, byte)), Seen::Done);
        self.by(user_of(keyid), 0, Op::Mfence);
    }
    fn x(&self) -> LineState {
        self.r.line(Hpa(X).line())
    }
    /// TD bit, poison.
    fn bits(&self) -> (bool, bool) {
        (self.x().td, self.x().poison.is_some())
    }
}

fn got(data: LineData, class: DataClass) -> Seen {
    Seen::Data { data: Bytes::known(data), bytes: 64, class }
}
fn zeros(class: DataClass) -> Seen {
    got(LineData::ZERO, class)
}
fn fill(byte: u8) -> Seen {
    got(LineData::filled(byte), DataClass::Plain)
}
fn is_mc(seen: Seen) -> bool {
    matches!(seen, Seen::MachineCheck { .. })
}

// Tables.

#[test]
fn every_read_has_exactly_one_row() {
    for (mode, table) in [(Ci, &READS_CI[..]), (Li, &READS_LI[..])] {
        let classes: &[Class] = match mode {
            Ci => &[Class::Private, Class::SharedIntegrity, Class::Shared],
            Li => &[Class::Private, Class::Shared], // §2.1 2.1.5
        };
        let mut used = BTreeSet::new();
        for &class in classes {
            for bits in 0..8 {
                let (td, mac, poison) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                let rows: Vec<_> =
                    table.iter().filter(|r| r.covers(class, td, mac, poison)).collect();
                assert_eq!(rows.len(), 1, "{mode} {class:?} {td} {mac} {poison}: {rows:?}");
                assert_eq!(read_row(mode, class, td, mac, poison), rows[0]);
                used.insert(rows[0].rule);
            }
        }
        assert_eq!(used.len(), table.len(), "a row that no read can meet");
    }
}

#[test]
fn every_write_has_exactly_one_row() {
    let mut used = BTreeSet::new();
    for mode in [Ci, Li] {
        for class in [Class::Private, Class::SharedIntegrity, Class::Shared] {
            for bits in 0..16 {
                let [full, source_poison, td, erratum] = [1, 2, 4, 8].map(|b| bits & b != 0);
                if !full && source_poison {
                    continue; // copies are written back whole
                }
                let case = WriteCase { full, class, mode, source_poison, td, erratum };
                let impossible = mode == Li && class == Class::SharedIntegrity;
                let rows: Vec<_> = WRITES.iter().filter(|r| r.covers(&case)).collect();
                assert_eq!(rows.len(), 1, "{case:?}: {rows:?}");
                if !impossible {
                    used.insert(rows[0].rule);
                }
            }
        }
    }
    assert_eq!(used.len(), WRITES.len());
}

#[test]
fn the_tables_print_as_the_sheet_has_them() {
    expect![[r#"
        | Row | Class | TD | MAC | Old poison | Data | Poison | Birth | Source |
        |---|---|---|---|---|---|---|---|---|
        | RC-01 | Private | 0 | * | 0 | zeros | 1 | TdMismatch | Table 16.2 row 1 |
        | RC-02 | Private | 0 | * | 1 | zeros | 1 | - | row 1 + text |
        | RC-03 | Private | 1 | match | 0 | plaintext | 0 | - | row 2 |
        | RC-04 | Private | 1 | match | 1 | zeros | 1 | - | row 2 remark, MC-01 |
        | RC-05 | Private | 1 | mismatch | 0 | zeros | 1 | MacMismatch | row 3 |
        | RC-06 | Private | 1 | mismatch | 1 | zeros | 1 | - | row 3 + text |
        | RC-07 | SharedIntegrity | 0 | match | 0 | plaintext | 0 | - | row 4 |
        | RC-08 | SharedIntegrity | 0 | match | 1 | zeros | 1 | - | row 4 remark, MC-01 |
        | RC-09 | SharedIntegrity | 0 | mismatch | 0 | zeros | 1 | MacMismatch | row 5 |
        | RC-10 | SharedIntegrity | 0 | mismatch | 1 | zeros | 1 | - | row 5 + text |
        | RC-11 | SharedIntegrity | 1 | * | 0 | zeros | 1 | SharedIntegrity | row 6 |
        | RC-12 | SharedIntegrity | 1 | * | 1 | zeros | 1 | - | row 6 + text |
        | RC-13 | Shared | 0 | * | 0 | plaintext | 0 | - | row 7 |
        | RC-14 | Shared | 0 | * | 1 | zeros | 1 | - | row 7 remark, MC-01 |
        | RC-15 | Shared | 1 | * | 0 | zeros | 0 | - | row 8 |
        | RC-16 | Shared | 1 | * | 1 | zeros | 1 | - | row 8 remark |
        | RL-01 | Private | 0 | * | 0 | zeros | 1 | TdMismatch | Table 16.3 row 1 |
        | RL-02 | Private | 0 | * | 1 | zeros | 1 | - | row 1 + text |
        | RL-03 | Private | 1 | * | 0 | plaintext | 0 | - | row 2 |
        | RL-04 | Private | 1 | * | 1 | zeros | 1 | - | row 2 remark, MC-01 |
        | RL-05 | Shared | 0 | * | 0 | plaintext | 0 | - | row 3 |
        | RL-06 | Shared | 0 | * | 1 | zeros | 1 | - | row 3 remark, MC-01 |
        | RL-07 | Shared | 1 | * | 0 | zeros | 0 | - | row 4 |
        | RL-08 | Shared | 1 | * | 1 | zeros | 1 | - | row 4 remark |
    "#]]
    .assert_eq(&reads_markdown());
    expect![[r#"
        | Row | Bytes | Class | Mode | Source poison | TD | Erratum | Effect | MAC | Source |
        |---|---|---|---|---|---|---|---|---|---|
        | W-01 | 64 | [Private] | ci | 0 | * | * | Replace | stored | BASE §16.2.2, 16.2.3, 16.2.4 |
        | W-02 | 64 | [Private] | li | 0 | * | * | Replace | none | same |
        | W-03 | 64 | [SharedIntegrity] | ci | 0 | * | * | Replace | stored | same |
        | W-04 | 64 | [Shared] | ci | 0 | * | * | Replace | none | same, MC-08 |
        | W-05 | 64 | [SharedIntegrity, Shared] | li | 0 | * | * | Replace | none | same |
        | W-06 | 64 | [Private, SharedIntegrity, Shared] | * | 1 | * | * | Replace | * | silent, MC-05 |
        | W-07 | fewer | [SharedIntegrity, Shared] | * | 0 | 0 | * | Merge | * | silent, MC-03, MC-26 |
        | W-08 | fewer | [SharedIntegrity, Shared] | * | 0 | 1 | no | Merge | * | LX-KH, HUANG-V12, MC-03 |
        | W-09 | fewer | [SharedIntegrity, Shared] | * | 0 | 1 | yes | Poison | * | HUANG-V12, MC-04 |
        | W-10 | fewer | [Private] | * | 0 | * | * | Merge | * | silent, MC-03 |
    "#]].assert_eq(&writes_markdown());
}

#[test]
fn the_invariants_print_with_distinct_ids() {
    let ids: BTreeSet<_> = INVARIANTS.iter().map(|i| i.id).collect();
    assert_eq!(ids.len(), INVARIANTS.len());
    assert_eq!(invariants_markdown().lines().count(), INVARIANTS.len() + 2);
}

// Rows, driven through steps.

/// Brings line X into the state that a read row starts from, in DRAM and with nothing cached. Returns the reader.
fn arrange(rig: &mut Rig, row: &tables::ReadRow) -> KeyId {
    let reader = match row.class {
        Class::Private => H1,
        Class::SharedIntegrity => S1,
        Class::Shared => K0,
    };
    if row.class == Class::SharedIntegrity {
        rig.integrity_for_s1();
    }
    match (row.td, row.mac) {
        (true, Some(false)) => rig.direct(X, H2, 0xaa),
        (true, _) => rig.direct(X, H1, 0xaa),
        (false, Some(false)) => rig.direct(X, K0, 0xaa),
        (false, _) => rig.direct(X, if reader == H1 { K0 } else { reader }, 0xaa),
    }
    if row.poisoned {
        rig.host(Op::InjectUe { at: at(X, K0) });
    }
    reader
}

#[test]
fn every_read_row_is_driven_through_a_step_and_gives_what_the_sheet_says() {
    let mut checker = Checker::new();
    for (mode, table) in [(Ci, &READS_CI[..]), (Li, &READS_LI[..])] {
        for row in table {
            let mut rig = Rig::new(spec(mode, false));
            let reader = arrange(&mut rig, row);
            let births = rig.r.births_and_deaths().0;
            let out = rig.out(user_of(reader), 0, load(X, reader, 64));
            assert_eq!(out.traffic.len(), 1, "{row:?}");
            assert_eq!(out.traffic[0].rule, row.rule);
            match (row.poison, row.plaintext) {
                (true, _) => assert!(is_mc(out.seen), "{row:?}: {:?}", out.seen),
                (false, true) => assert_eq!(out.seen, fill(0xaa), "{row:?}"),
                (false, false) => assert_eq!(out.seen, zeros(DataClass::Blocked), "{row:?}"),
            }
            assert_eq!(rig.bits(), (row.td, row.poison), "{row:?}");
            let born = rig.r.births_and_deaths().0 - births;
            assert_eq!(born, u32::from(row.birth.is_some()), "{row:?}");
            assert_eq!(out.ucna.len() as u32, born, "{row:?}");
            let cause = out.births.first().map(|id| rig.r.state().births.get(id).unwrap().cause);
            assert_eq!(cause, row.birth, "{row:?}");
            checker.absorb(&rig.checker);
        }
    }
    let oracle: BTreeSet<u8> = (1..=13).collect();
    assert_eq!(checker.rows(), &oracle, "verification.md §1.1 rows 1 to 12 and sticky poison");
}

#[test]
fn in_li_a_foreign_private_line_decrypts_to_garbage_without_a_signal() {
    let mut rig = Rig::new(spec(Li, false));
    rig.direct(X, H2, 0xaa);
    let seen = rig.td(load(X, H1, 64));
    let garbage = Seen::Data { data: Bytes::UNKNOWN, bytes: 64, class: DataClass::Garbage };
    assert_eq!(seen, garbage, "RL-03");
    assert_eq!(rig.r.births_and_deaths().0, 0);
}

#[test]
fn every_write_row_is_driven_through_a_step_and_gives_what_the_sheet_says() {
    // rule; mode, erratum; first content under; then the write.
    let ue = |hpa| Op::InjectUe { at: at(hpa, K0) };
    type Program = Vec<(Agent, Op)>;
    type Case = (Rule, IntegrityMode, bool, KeyId, Program, (bool, bool, bool));
    let k = Agent::Kernel;
    let t = Agent::Td(H1);
    let dma = |keyid, bytes| {
        (Agent::Device, Op::DmaWrite { at: at(X, keyid), bytes, value: Value::Fill(0xbb) })
    };
    let uc = Op::Store { at: at(X, H1), bytes: 8, value: Value::Fill(0xbb), ty: MemType::Uc };
    let cases: Vec<Case> = vec![
        (
            Rule::W(1),
            Ci,
            true,
            K0,
            vec![(t, movdir64b(X, H1, 0xbb)), (t, Op::Sfence)],
            (true, true, false),
        ),
        (
            Rule::W(2),
            Li,
            true,
            K0,
            vec![(t, movdir64b(X, H1, 0xbb)), (t, Op::Sfence)],
            (true, false, false),
        ),
        (Rule::W(3), Ci, true, H1, vec![dma(S1, 64)], (false, true, false)),
        (Rule::W(4), Ci, true, H1, vec![dma(K0, 64)], (false, false, false)),
        (Rule::W(5), Li, true, H1, vec![dma(S1, 64)], (false, false, false)),
        (
            Rule::W(6),
            Ci,
            false,
            K0,
            vec![(k, ue(X)), (k, store(X, K0, 1)), (k, Op::Clflush { at: at(X, K0) })],
            (false, false, true),
        ),
        (Rule::W(7), Ci, true, K0, vec![dma(K0, 8)], (false, false, false)),
        (Rule::W(7), Ci, true, K0, vec![(k, ue(X)), dma(K0, 8)], (false, false, true)),
        (Rule::W(8), Ci, false, H1, vec![dma(K0, 8)], (false, false, false)),
        (Rule::W(8), Ci, false, H1, vec![dma(S1, 8)], (false, true, true)),
        (Rule::W(9), Ci, true, H1, vec![dma(K0, 8)], (true, true, true)),
        (Rule::W(9), Li, true, H1, vec![dma(S1, 8)], (true, false, true)),
        (Rule::W(10), Ci, true, H1, vec![(t, uc)], (true, true, false)),
        (Rule::W(10), Ci, true, K0, vec![(t, uc)], (true, true, true)),
    ];
    let mut used = BTreeSet::new();
    for (rule, mode, erratum, first, program, want) in cases {
        let mut rig = Rig::new(spec(mode, erratum));
        if mode == Ci {
            rig.integrity_for_s1();
        }
        rig.direct(X, first, 0xaa);
        let mut last = None;
        for (who, op) in program {
            let out = rig.out(who, 0, op);
            last = out.traffic.last().cloned().or(last);
            assert!(out.seen == Seen::Done, "{rule}: {:?}", out.seen);
        }
        let line = rig.x();
        assert_eq!(last.map(|t| t.rule), Some(rule));
        assert_eq!((line.td, line.mac, line.poison.is_some()), want, "{rule} in {mode}");
        used.insert(rule);
    }
    assert_eq!(used.len(), WRITES.len());
}

// The measured behaviours (architecture.md §2.4 2.4.8, §5.7; verification.md AN-1).

#[test]
fn a_plain_host_read_of_private_memory_gives_zeros_and_no_poison() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, H1, 0xaa);
    assert_eq!(rig.host(load(X, K0, 64)), zeros(DataClass::Blocked));
    assert_eq!(rig.bits(), (true, false));
    rig.host(Op::Wbinvd);
    assert_eq!(rig.td(load(X, H1, 64)), fill(0xaa));
}

#[test]
fn a_host_write_back_store_then_host_read_gives_its_own_data_and_no_poison() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, H1, 0xaa);
    rig.host(store(X, K0, 0x1234));
    rig.host(Op::Clflush { at: at(X, K0) });
    let mut want = LineData::ZERO;
    want.merge(&LineData([0x1234, 0, 0, 0, 0, 0, 0, 0]), ByteMask::FULL);
    assert_eq!(rig.host(load(X, K0, 64)), got(want, DataClass::Plain));
    assert_eq!(rig.bits(), (false, false));
}

#[test]
fn a_td_read_after_a_host_write_is_a_machine_check() {
    for mode in [Ci, Li] {
        let mut rig = Rig::new(spec(mode, false));
        rig.direct(X, H1, 0xaa);
        rig.host(store(X, K0, 1));
        rig.host(Op::Clflush { at: at(X, K0) });
        assert!(is_mc(rig.td(load(X, H1, 8))));
        assert_eq!(rig.bits(), (false, true));
    }
}

#[test]
fn a_write_with_another_tds_key_passes_the_td_bit_and_is_caught_by_the_mac_alone() {
    for (mode, caught) in [(Ci, true), (Li, false)] {
        let mut rig = Rig::new(spec(mode, false));
        rig.direct(X, H1, 0xaa);
        rig.direct(X, H2, 0xbb);
        assert!(rig.x().td);
        assert_eq!(is_mc(rig.td(load(X, H1, 8))), caught);
    }
}

#[test]
fn with_the_erratum_a_host_partial_write_poisons_at_once_and_the_next_host_read_consumes() {
    for mode in [Ci, Li] {
        let mut rig = Rig::new(spec(mode, true));
        rig.direct(X, H1, 0xaa);
        assert_eq!(rig.host(movnti(X + 8, K0, 1)), Seen::Done);
        let out = rig.out(Agent::Kernel, 0, Op::Sfence);
        assert_eq!((out.births.len(), out.ucna.len()), (1, 0), "silently");
        assert_eq!(rig.bits(), (true, true));
        assert!(is_mc(rig.by(Agent::Kernel, 1, load(X, K0, 8))));
        let mut rig = Rig::new(spec(mode, false));
        rig.direct(X, H1, 0xaa);
        rig.host(movnti(X + 8, K0, 1));
        rig.host(Op::Sfence);
        assert!(!is_mc(rig.host(load(X, K0, 8))), "without the erratum nothing of it happens");
    }
}

#[test]
fn a_partial_write_of_the_same_value_poisons_and_a_full_write_combining_line_does_not() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, H1, 0);
    rig.host(movnti(X, K0, 0));
    rig.host(Op::Sfence);
    assert_eq!(rig.bits(), (true, true), "L10");
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, H1, 0);
    for i in 0..8 {
        rig.host(movnti(X + 8 * i, K0, 7));
    }
    assert_eq!(rig.bits(), (false, false), "§5.4: 64 bytes left at once as one full-line write");
}

// Aliasing (architecture.md §4.3).

fn evict(rig: &mut Rig, core: u16, keyid: KeyId) {
    rig.choose(Choice::Evict(Place::Core(core), at(X, keyid).tagged()));
}

/// AL-1 and AL-2 begin alike: dirty (K0,X) not flushed, the module initialises (h,X).
fn unflushed(mode: IntegrityMode) -> Rig {
    let mut rig = Rig::new(spec(mode, false));
    rig.host(store(X, K0, 1));
    rig.module(movdir64b(X, H1, 0xcc));
    rig.module(Op::Mfence);
    rig
}

#[test]
fn al_1_a_forgotten_flush_kills_the_td_at_its_next_miss() {
    for (mode, rule) in [(Ci, Rule::Rc(1)), (Li, Rule::Rl(1))] {
        let mut rig = unflushed(mode);
        assert_eq!(rig.td(load(X, H1, 64)), fill(0xcc));
        rig.td(Op::Clflush { at: at(X, H1) });
        evict(&mut rig, 0, K0);
        assert!(!rig.x().td);
        let out = rig.out(Agent::Td(H1), 1, load(X, H1, 64));
        assert!(is_mc(out.seen));
        assert_eq!(out.traffic[0].rule, rule);
    }
}

#[test]
fn al_2_a_cached_td_line_survives_and_repairs_memory_if_dirty() {
    for dirty in [true, false] {
        let mut rig = unflushed(Ci);
        rig.td(load(X, H1, 64));
        if dirty {
            rig.td(store(X, H1, u64::from_ne_bytes([0xcc; 8])));
        }
        evict(&mut rig, 0, K0);
        assert_eq!(rig.td(load(X, H1, 64)), fill(0xcc), "hits are never checked");
        evict(&mut rig, 1, H1);
        assert_eq!(rig.x().td, dirty);
        let next = rig.td(load(X, H1, 64));
        if dirty { assert_eq!(next, fill(0xcc)) } else { assert!(is_mc(next)) }
    }
}

#[test]
fn al_3_a_late_private_write_back_silently_loses_host_data() {
    for mode in [Ci, Li] {
        let mut rig = Rig::new(spec(mode, true));
        rig.direct(X, H1, 0);
        rig.td(store(X, H1, 5));
        rig.direct(X, K0, 0);
        rig.host(store(X, K0, 9));
        rig.host(Op::Clflush { at: at(X, K0) });
        evict(&mut rig, 1, H1);
        assert!(rig.x().td);
        assert_eq!(rig.host(load(X, K0, 64)), zeros(DataClass::Blocked));
        assert_eq!(rig.r.births_and_deaths().0, 0);
    }
}

#[test]
fn al_4_and_al_5_a_host_read_is_harmless_until_it_is_written_back_dirty() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, H1, 0xaa);
    let before = rig.r.state().dram.clone();
    rig.host(load(X, K0, 64));
    evict(&mut rig, 0, K0);
    assert_eq!(rig.r.state().dram, before);
    assert_eq!(rig.td(load(X, H1, 64)), fill(0xaa), "AL-4");
    rig.td(Op::Clflush { at: at(X, H1) });
    rig.host(load(X, K0, 64));
    rig.host(store(X + 8, K0, 7));
    evict(&mut rig, 0, K0);
    assert!(!rig.x().td);
    let want = LineData([0, 7, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.host(load(X, K0, 64)), got(want, DataClass::Plain));
    assert!(is_mc(rig.td(load(X, H1, 64))), "AL-5");
}

#[test]
fn al_6_clean_lines_survive_cache_wb_and_movdir64b_hides_them_from_the_next_td() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.direct(X, H1, 0);
    rig.td(store(X, H1, 0x5ec2e7));
    for block in 0..2 {
        rig.module(Op::Wbnoinvdp { block });
    }
    let tag = at(X, H1).tagged();
    assert_eq!(rig.r.copies(tag).map(|(_, c)| c.state.is_dirty()).collect::<Vec<_>>(), [false]);
    rig.pconfig(Agent::SeamRoot, H1, PconfigCmd::SetRandom, None);
    assert_eq!(rig.td(load(X, H1, 8)), {
        let data = Bytes::known(LineData([0x5ec2e7, 0, 0, 0, 0, 0, 0, 0]));
        Seen::Data { data, bytes: 8, class: DataClass::Plain }
    });
    rig.module(movdir64b(X, H1, 0));
    rig.module(Op::Mfence);
    assert_eq!(rig.td(load(X, H1, 64)), zeros(DataClass::Plain));
}

#[test]
fn al_7_the_last_of_two_dirty_aliases_wins() {
    for first in [K0, H1] {
        let mut rig = Rig::new(spec(Ci, false));
        rig.direct(X, K0, 0);
        rig.host(store(X, K0, 1));
        rig.module(movdir64b(X, H1, 0));
        rig.module(Op::Mfence);
        rig.td(store(X, H1, 2));
        let (a, b) = if first == K0 { ((0, K0), (1, H1)) } else { ((1, H1), (0, K0)) };
        evict(&mut rig, a.0, a.1);
        evict(&mut rig, b.0, b.1);
        assert_eq!(rig.x().writer, Some(b.1));
    }
}

// Physical attacks (verification.md §1.3).

#[test]
fn the_attack_matrix_is_that_of_the_sheet() {
    let mut shown = String::new();
    for (name, attack) in [
        ("replay", vec![Op::ReplayLine { slot: 3, at: at(X, K0) }]),
        ("bit flip", vec![Op::FlipBit { at: at(X, K0), bit: 77 }]),
        ("bit flipped twice", vec![Op::FlipBit { at: at(X, K0), bit: 77 }; 2]),
        ("TD bit cleared", vec![Op::FlipTd { at: at(X, K0) }]),
        ("moved", vec![Op::MoveLine { from: at(X + 64, K0), to: at(X, K0) }]),
    ] {
        for mode in [Li, Ci] {
            let mut rig = Rig::new(spec(mode, false));
            rig.direct(X + 64, H1, 0xee);
            rig.direct(X, H1, 0x01);
            rig.host(Op::SaveLine { at: at(X, K0), slot: 3 });
            rig.direct(X, H1, 0x02);
            for op in &attack {
                rig.host(*op);
            }
            let seen = match rig.td(load(X, H1, 64)) {
                Seen::Data { data, class, .. } => format!("{class:?} {:#x}", data.data().byte(0)),
                Seen::MachineCheck { .. } => "machine check".to_owned(),
                other => format!("{other:?}"),
            };
            shown += &format!("{name} {mode}: {seen}\n");
        }
    }
    expect![[r#"
        replay li: Plain 0x1
        replay ci: Plain 0x1
        bit flip li: Garbage 0x0
        bit flip ci: machine check
        bit flipped twice li: Plain 0x2
        bit flipped twice ci: Plain 0x2
        TD bit cleared li: machine check
        TD bit cleared ci: machine check
        moved li: Garbage 0x0
        moved ci: machine check
    "#]]
    .assert_eq(&shown);
}

// Who may do what (architecture.md §2.5, §4.1 4.1.10).

#[test]
fn a_keyid_that_an_agent_cannot_form_faults_and_changes_nothing() {
    let mut shown = String::new();
    let dma = Op::DmaRead { at: at(X, H1), bytes: 64 };
    let ops =
        [load(X, H1, 8), Op::Clflush { at: at(X, H1) }, movdir64b(X, H1, 0), movnti(X, H1, 1)];
    for who in [Agent::Kernel, Agent::User, Agent::Guest, Agent::Td(H2), Agent::Device] {
        let ops = if who == Agent::Device { vec![dma] } else { ops.to_vec() };
        let mut rig = Rig::new(spec(Ci, true));
        rig.direct(X, H1, 0xaa);
        let before = rig.r.clone();
        let seen: BTreeSet<_> =
            ops.into_iter().map(|op| format!("{:?}", rig.by(who, 0, op))).collect();
        assert_eq!(
            rig.by(
                if who == Agent::Device { Agent::User } else { who },
                0,
                Op::Prefetch { at: at(X, H1) }
            ),
            Seen::Done
        );
        assert_eq!(rig.r, before);
        shown += &format!("{who:?}: {seen:?}\n");
    }
    expect![[r#"
        Kernel: {"PageFaultRsvd"}
        User: {"PageFaultRsvd"}
        Guest: {"EptMisconfiguration"}
        Td(KeyId(33)): {"EptMisconfiguration"}
        Device: {"DmaAbort"}
    "#]]
    .assert_eq(&shown);
}

#[test]
fn privileged_instructions_fault_outside_ring_0_and_change_nothing() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.host(store(X, K0, 1));
    let before = rig.r.clone();
    let pconfig = Op::Pconfig { keyid: S1, cmd: PconfigCmd::SetRandom, alg: None };
    for op in [Op::Wbinvd, Op::Wbnoinvd, pconfig] {
        let gp = Seen::GeneralProtection(GpReason::Privilege);
        assert_eq!(rig.by(Agent::User, 0, op), gp, "{op:?}");
        assert_eq!(rig.by(Agent::Td(H1), 0, op), Seen::VirtualizationException, "{op:?}");
    }
    let by_msr = Op::Wbinvdp { block: 0 };
    assert_eq!(rig.by(Agent::Td(H1), 0, by_msr), Seen::VirtualizationException);
    assert_eq!(rig.r, before);
}

#[test]
fn a_load_across_two_poisoned_lines_reads_both_and_consumes_the_first() {
    for who in [Agent::Kernel, Agent::Device] {
        let mut rig = Rig::new(spec(Ci, false));
        for line in [X, X + 64] {
            rig.host(Op::InjectUe { at: at(line, K0) });
        }
        let a = at(X + 60, K0);
        let op = if who == Agent::Device {
            Op::DmaRead { at: a, bytes: 8 }
        } else {
            Op::Load { at: a, bytes: 8, ty: MemType::Wb }
        };
        let out = rig.out(who, 0, op);
        let first = rig.x().poison.unwrap();
        let named = match out.seen {
            Seen::MachineCheck { at, birth, .. } => {
                assert_eq!(at.line(), Hpa(X).line());
                birth
            }
            Seen::DmaPoison(birth) => birth,
            other => panic!("{other:?}"),
        };
        assert_eq!((named, out.traffic.len()), (first, 2), "{who:?}");
    }
}

#[test]
fn a_choice_within_an_operation_is_made_between_its_lines() {
    // A dirty private copy of the second line leaves after the first was read and before the second is.
    let mut rig = Rig::new(spec(Ci, false));
    rig.direct(X, K0, 1);
    rig.direct(X + 64, K0, 2);
    let (private, td) = (at(X + 64, H1), Agent::Td(H1));
    let fill = Op::RepStosb { at: private, bytes: 64, value: 3 };
    assert_eq!(rig.by(td, 1, fill), Seen::Done);
    let step = Step::Op(Agent::Kernel, 0, load(X + 60, K0, 8));
    let mut asked = vec![];
    let out = rig.r.step_among(
        &step,
        |_| 0,
        |model, progress| {
            asked.push(progress);
            let there = model.copies(private.tagged()).next().is_some();
            let due = there && progress.requests == 1;
            due.then_some(Choice::Evict(Place::Core(1), private.tagged()))
        },
    );
    let out = out.unwrap();
    let order: Vec<_> = out.traffic.iter().map(|t| (t.at, t.after.td)).collect();
    let (a, b) = (at(X, K0).tagged(), at(X + 64, K0).tagged());
    assert_eq!(order, [(a, false), (private.tagged(), true), (b, true)]);
    let Seen::Data { data, class, .. } = out.seen else { panic!("{:?}", out.seen) };
    assert_eq!((data.data().0[0], class), (0x0101_0101, DataClass::Blocked));
    assert!(asked.last().is_some_and(|p| p.over && p.requests == 3));
}

#[test]
fn a_choice_within_an_operation_that_cannot_be_made_is_an_error() {
    let mut rig = Rig::new(spec(Ci, false));
    let step = Step::Op(Agent::Kernel, 0, Op::Mfence);
    let got = rig.r.step_among(&step, |_| 0, |_, _| Some(Choice::WeakComplete(0, 0)));
    assert_eq!(got, Err(NotAllowed::NoSuchWeakOp(0, 0)));
}

#[test]
fn a_device_that_overwrites_a_whole_line_needs_no_write_back_first() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.host(store(X, K0, 1));
    let write = Op::DmaWrite { at: at(X, K0), bytes: 64, value: Value::Fill(7) };
    let out = rig.out(Agent::Device, 0, write);
    assert_eq!((out.traffic.len(), rig.r.state().caches.len()), (1, 0));
    assert_eq!(rig.host(load(X, K0, 64)), fill(7));
}

#[test]
fn what_needs_a_tdx_module_is_refused_and_changes_nothing() {
    let rig = Rig::new(spec(Ci, true));
    let regs = CallRegs::default();
    let ops: [Op; 8] = [
        Op::Seamcall { leaf: Leaf::SYS_INIT, version: 0, regs },
        Op::Tdcall { leaf: GuestLeaf::VP_INFO, version: 0, regs },
        Op::Irq { core: 0, kind: IrqKind::Nmi },
        Op::Wrmsr { msr: 0x3b, value: 1 },
        Op::Starve { core: 0, draws: 1 },
        Op::SeamldrInstall,
        Op::MovCr3 { value: 0x1000 },
        Op::Invlpg { at: at(X, K0) },
    ];
    for op in ops {
        assert!(op.needs_module(), "{op}");
        for who in [Agent::Kernel, Agent::Guest, Agent::Td(H1), Agent::Device] {
            let mut model = rig.r.clone();
            let step = Step::Op(who, 0, op);
            assert_eq!(model.step(&step).err(), Some(NotAllowed::NotModelled), "{op}");
            assert_eq!(model.state(), rig.r.state(), "{op}");
        }
    }
    assert!(!Op::<Addr>::Mfence.needs_module());
}

#[test]
fn illegal_choices_and_operands_are_refused_by_name_and_change_nothing() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X, K0, 0);
    rig.host(load(X, K0, 8));
    let (tag, own) = (at(X, K0).tagged(), Place::Core(0));
    let far = Op::Load { at: at(1 << 46, K0), bytes: 1, ty: MemType::Wb };
    let across = Op::Load { at: at((1 << 46) - 1, K0), bytes: 2, ty: MemType::Wb };
    let steps = [
        Step::Choice(Choice::Evict(Place::Core(1), tag)),
        Step::Choice(Choice::WriteBack(own, tag)),
        Step::Choice(Choice::ToLlc(1, tag)),
        Step::Choice(Choice::WcLeave(0, tag)),
        Step::Choice(Choice::WeakComplete(0, 0)),
        Step::Choice(Choice::Prefetch(Agent::Kernel, 0, tag)),
        Step::Choice(Choice::Prefetch(Agent::Kernel, 0, at(X, H1).tagged())),
        Step::Choice(Choice::Prefetch(Agent::Device, 0, at(X + 64, K0).tagged())),
        Step::Choice(Choice::Prefetch(Agent::Kernel, 9, at(X + 64, K0).tagged())),
        Step::Op(Agent::Kernel, 2, Op::Mfence),
        Step::Op(Agent::Device, 0, Op::Mfence),
        Step::Op(Agent::Kernel, 0, Op::DmaRead { at: at(X, K0), bytes: 1 }),
        Step::Op(Agent::Guest, 0, Op::Wbinvd),
        Step::Op(Agent::Kernel, 0, load(X, K0, 65)),
        Step::Op(Agent::Kernel, 0, load(X, K0, 0)),
        Step::Op(Agent::Kernel, 0, far),
        Step::Op(Agent::Kernel, 0, across),
        Step::Op(Agent::Kernel, 0, load(X, KeyId(64), 1)),
        Step::Op(Agent::Kernel, 0, Op::FlipBit { at: at(X, K0), bit: 512 }),
        Step::Op(Agent::Kernel, 0, Op::SaveLine { at: at(X, K0), slot: 16 }),
        Step::Op(Agent::Kernel, 0, Op::WcEvict { core: 70_000 }),
    ];
    let shown: Vec<String> =
        steps.iter().map(|s| rig.try_step(s).unwrap_err().to_string()).collect();
    expect![[r#"
        0x1000@0 is not cached in Core(1)
        0x1000@0 is not dirty in Core(0)
        0x1000@0 is not cached in Core(1)
        core 0 has no write-combining buffer for 0x1000@0
        core 0 has no pending operation 0
        0x1000@0 is already cached in core 0
        Kernel cannot form KeyID 32
        Device cannot form KeyID 0
        there is no core 9
        there is no core 2
        Device cannot do this operation
        Kernel cannot do this operation
        Guest cannot do this operation
        an operand is out of range
        an operand is out of range
        an operand is out of range
        an operand is out of range
        an operand is out of range
        an operand is out of range
        an operand is out of range
        there is no core 65535"#]]
    .assert_eq(&shown.join("\n"));
}

#[test]
fn seam_only_registers_and_pconfig_check_their_caller_and_operands() {
    let mut rig = Rig::new(spec(Li, false));
    let gp = Seen::GeneralProtection;
    assert_eq!(rig.host(Op::Wbinvdp { block: 9 }), gp(GpReason::NotInSeam));
    assert_eq!(rig.module(Op::Wbinvdp { block: 2 }), gp(GpReason::NoSuchSubBlock));
    assert_eq!(rig.host(movdir64b(X + 8, K0, 0)), gp(GpReason::Misaligned));
    assert_eq!(rig.host(Op::Movdir64bPage { at: at(X + 64, K0) }), gp(GpReason::Misaligned));
    let nt = Op::NtStore { at: at(X + 8, K0), bytes: 16, value: Value::Unsaid };
    assert_eq!(rig.host(nt), gp(GpReason::Misaligned));
    let random = PconfigCmd::SetRandom;
    let mut status = |who, keyid, alg| rig.pconfig(who, keyid, random, alg);
    let (kernel, seam) = (Agent::Kernel, Agent::SeamRoot);
    assert_eq!(status(kernel, K0, None), Seen::Pconfig(PconfigStatus::InvalidKeyId));
    assert_eq!(status(kernel, H1, None), Seen::Pconfig(PconfigStatus::InvalidKeyId));
    assert_eq!(status(seam, KeyId(64), None), Seen::Pconfig(PconfigStatus::InvalidKeyId));
    assert_eq!(status(seam, H1, None), Seen::Pconfig(PconfigStatus::Ok));
    let integrity = Some(KeyAlg::Xts128Integrity);
    assert_eq!(status(kernel, S1, integrity), Seen::Pconfig(PconfigStatus::InvalidAlgorithm));
    let wide = Some(KeyAlg::Xts256);
    assert_eq!(status(kernel, S1, wide), Seen::Pconfig(PconfigStatus::InvalidAlgorithm));
}

// Order (architecture.md §13 MC-28, §3 3.5, §4.4).

fn visible(rig: &Rig) -> bool {
    rig.x().writer == Some(S1)
}

#[test]
fn a_buffer_or_weak_operation_waits_until_something_forces_it() {
    type Ops = Vec<Op>;
    let nt = || vec![movnti(X, S1, 1)];
    let line = || at(X, S1);
    let direct = || vec![movdir64b(X, S1, 1)];
    let diri = || vec![Op::Movdiri { at: at(X, S1), bytes: 8, value: Value::Num(1) }];
    let flush = || vec![store(X, S1, 1), Op::Clflushopt { at: line() }];
    let clwb = || vec![store(X, S1, 1), Op::Clwb { at: line() }];
    let wc = || vec![Op::Store { at: line(), bytes: 8, value: Value::Num(1), ty: MemType::Wc }];
    let xadd = Op::LockXadd { at: at(X + 64, K0), bytes: 8, value: 1 };
    let forces: [(&str, Ops); 9] = [
        ("nothing", vec![]),
        ("load", vec![load(X, S1, 8)]),
        ("other line", vec![load(X + 64, S1, 8), store(X, K0, 1)]),
        ("lfence", vec![Op::Lfence, Op::Prefetch { at: line() }]),
        ("sfence", vec![Op::Sfence]),
        ("mfence", vec![Op::Mfence]),
        ("locked", vec![xadd]),
        ("interrupt", vec![Op::Interrupt]),
        ("two more buffers", vec![movnti(X + 64, K0, 1), movnti(X + 128, K0, 1)]),
    ];
    let mut shown = String::new();
    let kinds: [(&str, Ops); 6] = [
        ("movnti", nt()),
        ("store.wc", wc()),
        ("movdir64b", direct()),
        ("movdiri", diri()),
        ("clflushopt", flush()),
        ("clwb", clwb()),
    ];
    for (name, ops) in kinds {
        let mut seen = vec![];
        for (force, then) in &forces {
            let mut rig = Rig::new(spec(Li, false));
            for op in ops.iter().chain(then) {
                rig.host(*op);
            }
            if visible(&rig) {
                seen.push(*force);
            }
        }
        shown += &format!("{name}: {}\n", seen.join(", "));
    }
    expect![[r#"
        movnti: load, sfence, mfence, locked, interrupt, two more buffers
        store.wc: load, sfence, mfence, locked, interrupt, two more buffers
        movdir64b: load, sfence, mfence, locked
        movdiri: load, sfence, mfence, locked
        clflushopt: load, sfence, mfence, locked
        clwb: load, sfence, mfence, locked
    "#]]
    .assert_eq(&shown);
}

#[test]
fn a_weak_operation_may_complete_at_any_time_and_in_any_order() {
    let mut rig = Rig::new(spec(Li, false));
    rig.host(movdir64b(X, K0, 1));
    rig.host(movdir64b(X, S1, 2));
    rig.choose(Choice::WeakComplete(0, 1));
    assert_eq!(rig.x().writer, Some(S1));
    rig.choose(Choice::WeakComplete(0, 0));
    assert_eq!(rig.x().writer, Some(K0));
    rig.host(movnti(X, K0, 3));
    rig.choose(Choice::WcLeave(0, at(X, K0).tagged()));
    assert_eq!(rig.host(load(X, K0, 1)), {
        let data = Bytes::known(LineData([3, 0, 0, 0, 0, 0, 0, 0]));
        Seen::Data { data, bytes: 1, class: DataClass::Plain }
    });
}

#[test]
fn a_machine_check_drains_the_write_combining_buffers() {
    let mut rig = Rig::new(spec(Ci, true));
    rig.direct(X + 64, H1, 0);
    rig.host(movnti(X + 64, K0, 1));
    rig.host(Op::InjectUe { at: at(X, K0) });
    assert!(is_mc(rig.host(load(X, K0, 1))));
    assert!(rig.r.line(Hpa(X + 64).line()).poison.is_some());
    assert!(rig.r.state().pending.is_empty());
}

// Poison in caches (architecture.md §13 MC-05, MC-06, MC-13, MC-29, MC-30).

#[test]
fn poison_is_not_laundered_by_stores_and_ends_only_by_a_whole_line() {
    let ue = || Op::InjectUe { at: at(X, K0) };
    let whole = Op::Store { at: at(X, K0), bytes: 64, value: Value::Fill(1), ty: MemType::Wb };
    let stosb = Op::RepStosb { at: at(X - 8, K0), bytes: 80, value: 1 };
    let dma = Op::DmaWrite { at: at(X, K0), bytes: 64, value: Value::Fill(1) };
    for (op, who, cured) in [
        (store(X, K0, 1), Agent::Kernel, false),
        (whole, Agent::Kernel, true),
        (stosb, Agent::User, true),
        (dma, Agent::Device, true),
    ] {
        let mut rig = Rig::new(spec(Ci, false));
        rig.host(ue());
        assert_eq!(rig.by(who, 0, op), Seen::Done);
        rig.host(Op::Wbinvd);
        assert_eq!(rig.bits().1, !cured, "{op:?}");
        assert_eq!(rig.r.births_and_deaths(), (1, u32::from(cured)));
        assert_eq!(is_mc(rig.host(load(X, K0, 8))), !cured);
    }
}

#[test]
fn a_prefetch_fills_poison_logs_it_and_raises_nothing_until_a_load_retires() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.direct(X, K0, 0);
    let tag = at(X, H1).tagged();
    let out = rig.choose(Choice::Prefetch(Agent::Td(H1), 1, tag));
    assert_eq!((out.births.len(), out.ucna.len()), (1, 1));
    assert!(rig.r.copies(tag).all(|(_, c)| c.poison.is_some()));
    let fetch = Op::Fetch { at: at(X, H1) };
    let seen = rig.td(fetch);
    assert!(matches!(seen, Seen::MachineCheck { access: McAccess::Fetch, .. }), "{seen:?}");
}

#[test]
fn a_store_consumes_poison_only_when_the_platform_says_so() {
    for on in [false, true] {
        let mut rig = Rig::new(Spec { rfo_poison_mc: on, ..spec(Ci, false) });
        rig.host(Op::InjectUe { at: at(X, K0) });
        assert_eq!(is_mc(rig.host(store(X, K0, 1))), on);
    }
}

#[test]
fn a_locked_add_consumes_poison_and_a_device_gets_an_error_response() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.host(Op::InjectUe { at: at(X, K0) });
    let read = Op::DmaRead { at: at(X - 64, K0), bytes: 128 };
    assert!(matches!(rig.by(Agent::Device, 0, read), Seen::DmaPoison(_)));
    assert!(is_mc(rig.host(Op::LockXadd { at: at(X - 4, K0), bytes: 8, value: 1 })));
}

#[test]
fn a_locked_add_across_two_lines_carries() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.direct(X, K0, 0);
    rig.direct(X + 64, K0, 0);
    rig.host(store(X + 60, K0, 0xffff_ffff));
    rig.host(Op::LockXadd { at: at(X + 60, K0), bytes: 8, value: 1 });
    let want = Bytes::known(LineData([1 << 32, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(
        rig.host(load(X + 60, K0, 8)),
        Seen::Data { data: want, bytes: 8, class: DataClass::Plain }
    );
}

// Caches.

#[test]
fn copies_move_between_cores_and_llc_and_are_written_back_once() {
    let mut rig = Rig::new(spec(Ci, false));
    rig.direct(X, K0, 0);
    rig.host(store(X, K0, 1));
    rig.by(Agent::Kernel, 1, load(X, K0, 8));
    let tag = at(X, K0).tagged();
    let states = |rig: &Rig| rig.r.copies(tag).map(|(p, c)| (p, c.state)).collect::<Vec<_>>();
    use Coherence::{Exclusive, Modified, Owned, Shared};
    assert_eq!(states(&rig), [(Place::Core(0), Owned), (Place::Core(1), Shared)]);
    rig.choose(Choice::ToLlc(0, tag));
    assert_eq!(states(&rig), [(Place::Core(1), Shared), (Place::Llc(0), Owned)]);
    rig.choose(Choice::ToLlc(1, tag));
    assert_eq!(states(&rig), [(Place::Llc(0), Modified)]);
    let out = rig.choose(Choice::WriteBack(Place::Llc(0), tag));
    assert_eq!((out.traffic.len(), states(&rig)), (1, vec![(Place::Llc(0), Exclusive)]));
    rig.by(Agent::Kernel, 1, store(X, K0, 2));
    assert_eq!(states(&rig), [(Place::Core(1), Modified)]);
    rig.host(Op::Evict { at: at(X, K0) });
    assert_eq!(states(&rig), []);
}

#[test]
fn wbinvd_reaches_one_package_and_its_sub_blocks_partition_it() {
    let mut rig = Rig::new(Spec { packages: 2, ..spec(Ci, false) });
    for (core, hpa) in [(0, X), (1, X + 64), (0, X + 128)] {
        rig.by(Agent::Kernel, core, store(hpa, K0, 1));
    }
    let cached = |rig: &Rig| rig.r.state().caches.len();
    let by_page = |tag: Tagged| (tag.line().page().0 & 1) as u32;
    let step = Step::Op(Agent::SeamRoot, 0, Op::Wbinvdp { block: 0 });
    rig.r.step_with(&step, by_page).unwrap();
    assert_eq!(cached(&rig), 3, "page 1 is sub-block 1 of this partition");
    let step = Step::Op(Agent::SeamRoot, 0, Op::Wbinvdp { block: 1 });
    rig.r.step_with(&step, by_page).unwrap();
    assert_eq!(cached(&rig), 1, "the other package keeps its line");
    rig.by(Agent::Kernel, 1, Op::Wbinvd);
    assert_eq!(cached(&rig), 0);
}

#[test]
fn keys_are_those_of_the_package_that_homes_the_line() {
    let mut rig = Rig::new(Spec { packages: 2, ..spec(Ci, false) });
    let far = X + (1 << 30);
    for hpa in [X, far] {
        rig.direct(hpa, S1, 0xaa);
    }
    rig.pconfig(Agent::Kernel, S1, PconfigCmd::SetDirect(7), None); // on package 0
    let class = |seen| match seen {
        Seen::Data { class, .. } => class,
        other => panic!("{other:?}"),
    };
    assert_eq!(class(rig.host(load(X, S1, 8))), DataClass::Garbage);
    assert_eq!(class(rig.host(load(far, S1, 8))), DataClass::Plain);
}

#[test]
fn all_private_keyids_have_the_tme_key_until_one_is_programmed() {
    let mut rig = Rig { r: Reference::new(spec(Ci, false)), checker: Checker::new() };
    rig.direct(X, H1, 0xaa);
    assert_eq!(rig.by(Agent::Td(H2), 0, load(X, H2, 64)), fill(0xaa), "MC-27");
    rig.pconfig(Agent::SeamRoot, H2, PconfigCmd::SetRandom, None);
    rig.by(Agent::Kernel, 0, Op::Wbinvd);
    assert!(is_mc(rig.by(Agent::Td(H2), 0, load(X, H2, 64))));
}

#[test]
fn what_the_machine_saw_is_admitted_when_it_differs_only_in_unknown_bytes() {
    let unknown = Bytes::known(LineData([1, 2, 3, 4, 5, 6, 7, 8]));
    let mut half = unknown;
    half.merge(&Bytes::UNKNOWN, ByteMask::span(8, 56));
    let seen = Seen::Data { data: half, bytes: 64, class: DataClass::Garbage };
    let outcome = |first: u64, rest: u64| {
        let data = LineData([first, rest, rest, rest, rest, rest, rest, rest]);
        Outcome::Data(sim_core::outcome::Loaded { data, bytes: 64, class: DataClass::Garbage })
    };
    assert!(seen.admits(&outcome(1, 0xdead)));
    assert!(!seen.admits(&outcome(2, 0xdead)));
    assert!(!seen.admits(&Outcome::Done));
}

#[test]
fn clwb_keeps_the_line_clean_and_clflushopt_drops_it() {
    for (op, kept) in [
        (Op::Clwb { at: at(X, K0) }, vec![Coherence::Exclusive]),
        (Op::Clflushopt { at: at(X, K0) }, vec![]),
    ] {
        let mut rig = Rig::new(spec(Li, false));
        rig.host(store(X, K0, 1));
        rig.host(op);
        let out = rig.out(Agent::Kernel, 0, Op::Sfence);
        assert_eq!(out.traffic.len(), 1);
        let states: Vec<_> = rig.r.copies(at(X, K0).tagged()).map(|(_, c)| c.state).collect();
        assert_eq!(states, kept);
    }
}

#[test]
fn a_fast_string_reads_only_the_lines_that_it_covers_in_part() {
    for (no_rfo, reads) in [(true, vec![X - 64, X + 64]), (false, vec![X - 64, X, X + 64])] {
        let mut rig = Rig::new(Spec { fast_string_no_rfo: no_rfo, ..spec(Li, false) });
        let op = Op::RepStosb { at: at(X - 8, K0), bytes: 80, value: 0xdd };
        let out = rig.out(Agent::Kernel, 0, op);
        let lines: Vec<_> = out.traffic.iter().map(|t| t.at.line().hpa().0).collect();
        assert_eq!(lines, reads);
        assert_eq!(rig.host(load(X, K0, 64)), fill(0xdd));
    }
}

#[test]
fn a_device_snoops_the_caches_under_its_own_keyid() {
    let mut rig = Rig::new(spec(Li, false));
    rig.direct(X, K0, 0);
    rig.host(store(X, K0, 7));
    let read = |keyid| Op::DmaRead { at: at(X, keyid), bytes: 8 };
    let seven = Bytes::known(LineData([7, 0, 0, 0, 0, 0, 0, 0]));
    let seen = rig.by(Agent::Device, 0, read(K0));
    assert_eq!(seen, Seen::Data { data: seven, bytes: 8, class: DataClass::Plain });
    let seen = rig.by(Agent::Device, 0, read(S1));
    let zero = Seen::Data { data: Bytes::ZERO, bytes: 8, class: DataClass::Plain };
    assert_eq!(seen, zero, "KeyID 1 has the TME key, and memory has the old bytes");
    let write = Op::DmaWrite { at: at(X + 8, K0), bytes: 8, value: Value::Num(9) };
    rig.by(Agent::Device, 0, write);
    let want = LineData([7, 9, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.host(load(X, K0, 64)), got(want, DataClass::Plain), "written back, then merged");
}

#[test]
fn uncached_accesses_see_what_is_cached_and_buffered_and_leave_no_copy() {
    for ty in [MemType::Uc, MemType::Wc] {
        let mut rig = Rig::new(spec(Li, false));
        rig.direct(X, K0, 0);
        rig.host(store(X, K0, 1));
        rig.host(movnti(X + 8, K0, 2));
        let read = Op::Load { at: at(X, K0), bytes: 64, ty };
        let want = LineData([1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(rig.host(read), got(want, DataClass::Plain));
        assert!(rig.r.state().caches.is_empty());
        rig.host(store(X, K0, 3));
        rig.host(movnti(X + 8, K0, 4));
        let value = Value::Num(5);
        let write = Op::Store { at: at(X + 16, K0), bytes: 8, value, ty: MemType::Uc };
        rig.host(write);
        assert!(rig.r.state().caches.is_empty() && rig.r.state().pending.is_empty());
        let want = LineData([3, 4, 5, 0, 0, 0, 0, 0]);
        assert_eq!(rig.host(read), got(want, DataClass::Plain));
    }
}

#[test]
fn an_uncached_access_writes_a_dirty_copy_back_first() {
    let tag = at(X, K0).tagged();
    let uc = MemType::Uc;
    let value = Value::Num(5);
    for op in [
        Op::Load { at: at(X + 8, K0), bytes: 8, ty: uc },
        Op::Store { at: at(X + 8, K0), bytes: 8, value, ty: uc },
    ] {
        let mut rig = Rig::new(spec(Li, false));
        rig.direct(X, K0, 0);
        rig.host(store(X, K0, 1));
        let out = rig.out(Agent::Kernel, 0, op);
        assert_eq!(out.traffic[0].rule, Rule::W(5));
        assert_eq!(rig.r.copies(tag).count(), 0);
        let line = rig.r.dram(tag.line());
        assert_eq!(line.ct.map(|ct| ct.plain.data().0[0]), Some(1));
    }
}

#[test]
fn an_error_injected_twice_is_one_birth() {
    let mut rig = Rig::new(spec(Li, false));
    rig.host(Op::InjectUe { at: at(X, K0) });
    rig.host(Op::InjectUe { at: at(X, K0) });
    assert_eq!(rig.r.births_and_deaths(), (1, 0));
}

#[test]
fn a_locked_add_to_unknown_bytes_leaves_unknown_bytes() {
    let mut rig = Rig::new(spec(Li, false));
    rig.host(store(X + 8, K0, 1)); // the rest of the line is as at power-on
    rig.host(Op::LockXadd { at: at(X, K0), bytes: 8, value: 1 });
    rig.host(Op::LockXadd { at: at(X + 8, K0), bytes: 8, value: 1 });
    let Seen::Data { data, .. } = rig.host(load(X, K0, 16)) else { panic!("not data") };
    assert_eq!((data.unknown(), data.data().0[1]), (ByteMask::span(0, 8), 2));
}

#[test]
fn an_access_may_cross_into_the_next_line() {
    let mut rig = Rig::new(spec(Li, false));
    let value = Value::Num(0x1122_3344_5566_7788);
    let ops: [fn(Addr, Value) -> Op; 3] = [
        |at, value| Op::Store { at, bytes: 8, value, ty: MemType::Wb },
        |at, value| Op::NtStore { at, bytes: 8, value },
        |at, value| Op::Movdiri { at, bytes: 8, value },
    ];
    for (i, op) in ops.into_iter().enumerate() {
        let hpa = X + 0x1000 * i as u64 + 61;
        rig.host(op(at(hpa, K0), value));
        let data = Bytes::known(value.line(0, 0));
        let seen = rig.host(load(hpa, K0, 8));
        assert!(matches!(seen, Seen::Data { data: d, .. } if d == data), "{i}: {seen:?}");
    }
}

#[test]
fn with_bypass_a_moved_line_keeps_its_bytes_though_it_was_tampered_with() {
    for bypass in [true, false] {
        let mut platform = spec(Li, false);
        platform.memory.tme_bypass = bypass;
        let mut rig = Rig::new(platform);
        rig.direct(X, K0, 0xaa);
        rig.host(Op::MoveLine { from: at(X, K0), to: at(X + 64, K0) });
        let Seen::Data { data, class, .. } = rig.host(load(X + 64, K0, 8)) else {
            panic!("a load of a moved line returns data");
        };
        assert_eq!(class, DataClass::Garbage, "tampered with");
        // Only without encryption do the bytes not depend on the address.
        assert_eq!(data.unknown().is_empty(), bypass, "{data:?}");
    }
}

#[test]
fn pconfig_commands_choose_the_key() {
    // Which of them can read what the direct key 5 wrote under S1, after the command is given to S1.
    let mut shown = String::new();
    for cmd in [
        PconfigCmd::SetDirect(5),
        PconfigCmd::SetDirect(6),
        PconfigCmd::SetRandom,
        PconfigCmd::ClearKey,
        PconfigCmd::NoEncrypt,
    ] {
        let mut rig = Rig::new(spec(Ci, false));
        rig.pconfig(Agent::Kernel, S1, PconfigCmd::SetDirect(5), None);
        rig.direct(X, S1, 1);
        rig.pconfig(Agent::Kernel, S1, cmd, None);
        let seen = |seen| match seen {
            Seen::Data { class, .. } => class,
            other => panic!("{other:?}"),
        };
        let old = seen(rig.host(load(X, S1, 8)));
        rig.host(Op::Wbinvd);
        rig.direct(X, K0, 1);
        shown += &format!("{cmd:?}: {old:?}, TME {:?}\n", seen(rig.host(load(X, S1, 8))));
    }
    expect![[r#"
        SetDirect(5): Plain, TME Garbage
        SetDirect(6): Garbage, TME Garbage
        SetRandom: Garbage, TME Garbage
        ClearKey: Garbage, TME Plain
        NoEncrypt: Garbage, TME Garbage
    "#]]
    .assert_eq(&shown);
}

// The judge itself.

/// A program, its last step, and what is falsified of that step's result.
struct Lie {
    id: &'static str,
    erratum: bool,
    before: Vec<Op>,
    last: Step,
    falsify: fn(&mut Reference, &mut StepOutcome),
}

fn lie(
    id: &'static str,
    before: &[Op],
    last: Step,
    falsify: fn(&mut Reference, &mut StepOutcome),
) -> Lie {
    Lie { id, erratum: id == "L10", before: before.to_vec(), last, falsify }
}

/// The first copy of a cache, falsified.
fn copy(r: &mut Reference) -> &mut Copy {
    r.state.caches.values_mut().next().unwrap()
}
fn another_copy(r: &mut Reference, state: Coherence, keyid: KeyId) {
    let copy = Copy { state, data: Bytes::ZERO, class: DataClass::Plain, poison: None };
    r.state.caches.insert((at(X, keyid).tagged(), Place::Core(1)), copy);
}

/// The invariants that no planted mutant breaks (search_tests.rs shows the others) can fail, too.
#[test]
fn a_falsified_step_is_found_by_the_invariant_that_it_breaks() {
    let op = |op: Op| Step::Op(Agent::Kernel, 0, op);
    let td = |op: Op| Step::Op(Agent::Td(H1), 0, op);
    let k0 = at(X, K0);
    let evict = || Step::Choice(Choice::Evict(Place::Core(0), at(X, K0).tagged()));
    let direct = [movdir64b(X, H1, 0), Op::Sfence];
    let dirty = [store(X, K0, 1)];
    let cached = [load(X, K0, 8)];
    let ue = [Op::InjectUe { at: k0 }];
    let lies = [
        lie("L5", &[], op(store(X, K0, 1)), |_, out| {
            out.seen = Seen::Data { data: Bytes::ZERO, bytes: 8, class: DataClass::Plain };
        }),
        lie("L6", &direct, td(load(X, H1, 8)), |_, out| {
            let data = Bytes::known(LineData::filled(0x77));
            out.traffic[0].request = Request::Read { data, class: DataClass::Plain };
        }),
        lie("L10", &[direct[0], Op::Sfence, movnti(X, K0, 0)], op(Op::Sfence), |_, out| {
            out.traffic[0].after.poison = None;
        }),
        lie("L11", &[], op(load(X, H1, 8)), |r, _| r.state.drawn += 1),
        lie("L12", &[], op(load(X, K0, 8)), |_, out| {
            let data = Bytes::known(LineData::filled(0x77));
            out.traffic[0].request = Request::Read { data, class: DataClass::Plain };
        }),
        lie("L13", &dirty, op(Op::Clflush { at: k0 }), |_, out| {
            out.traffic[0].after.ct.as_mut().unwrap().key = Key::None;
        }),
        lie("C1", &cached, op(Op::Lfence), |r, _| another_copy(r, Coherence::Shared, K0)),
        lie("C2", &cached, op(load(X, K0, 8)), |_, out| {
            out.seen = Seen::Data { data: Bytes::ZERO, bytes: 8, class: DataClass::Plain };
        }),
        lie("C4", &[], op(Op::Lfence), |r, _| another_copy(r, Coherence::Shared, K0)),
        lie("C5", &dirty, evict(), |_, out| out.traffic.clear()),
        lie("C6", &cached, evict(), |r, _| {
            r.state.dram.insert(Line(9), DramLine { td: true, ..DramLine::default() });
        }),
        lie("C9", &cached, op(Op::Wbinvd), |r, _| another_copy(r, Coherence::Shared, K0)),
        lie("P2", &ue, op(Op::Lfence), |r, _| r.state.died += 1),
        lie("P3", &ue, op(load(X, K0, 8)), |_, out| {
            if let Seen::MachineCheck { birth, .. } = &mut out.seen {
                *birth = BirthId(NonZeroU32::MAX);
            }
        }),
        lie("P5", &ue, op(load(X, K0, 8)), |r, _| {
            r.state.births.values_mut().next().unwrap().cause = BirthCause::PartialWrite;
        }),
        lie("P7", &ue, op(Op::Prefetch { at: k0 }), |r, out| {
            let birth = copy(r).poison.unwrap();
            out.seen =
                Seen::MachineCheck { access: McAccess::DataLoad, at: at(X, K0).tagged(), birth };
        }),
        lie("P12", &ue, op(Op::Lfence), |r, _| {
            r.state.births.values_mut().next().unwrap().at = at(0, K0).tagged();
        }),
    ];
    let mut found = BTreeSet::new();
    for Lie { id, erratum, before, last, falsify } in lies {
        let mut rig = Rig::new(spec(Ci, erratum));
        for op in before {
            let who = match &op {
                Op::Movdir64b { dst, .. } => user_of(dst.keyid),
                _ => Agent::Kernel,
            };
            rig.by(who, 0, op);
        }
        let old = rig.r.clone();
        let mut out = rig.r.step(&last).unwrap();
        let mut honest = rig.checker.check_step(&old, &last, &out, &rig.r);
        honest.extend(rig.checker.check_state(&rig.r));
        assert_eq!(honest, [], "{id}");
        falsify(&mut rig.r, &mut out);
        let mut broken = rig.checker.check_step(&old, &last, &out, &rig.r);
        broken.extend(rig.checker.check_state(&rig.r));
        assert!(broken.iter().any(|v| v.id == id), "{id} is blind: {broken:?}");
        found.insert(id);
    }
    let by_mutants = crate::search_tests::KILLERS.iter().flat_map(|(_, ids)| *ids);
    found.extend(by_mutants);
    // C11 is to be reachable, and search_tests.rs shows what makes it unreachable.
    found.insert("C11");
    let judged = INVARIANTS.iter().filter(|i| i.feed == Feed::Reference);
    assert_eq!(found, judged.map(|i| i.id).collect());
}

// Random walks.

fn any_key() -> impl Strategy<Value = KeyId> {
    prop_oneof![Just(K0), Just(S1), Just(H1), Just(H2)]
}
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Unsaid),
        any::<u8>().prop_map(Value::Fill),
        any::<u64>().prop_map(Value::Num)
    ]
}
fn any_op() -> impl Strategy<Value = Op> {
    let ty = prop_oneof![Just(MemType::Wb), Just(MemType::Uc), Just(MemType::Wc)];
    (any_key(), 0u64..192, 1u32..=64, any_value(), ty, 0u8..34, 0u32..18).prop_map(
        |(keyid, offset, bytes, value, ty, kind, small)| {
            let a = at(X + offset, keyid);
            let line = at(X + (offset & !63), keyid);
            match kind {
                0..=2 => Op::Load { at: a, bytes, ty },
                3 => Op::Fetch { at: a },
                4 => Op::Prefetch { at: a },
                5..=7 => Op::Store { at: a, bytes, value, ty },
                8 | 9 => Op::NtStore { at: at(X + (offset & !7), keyid), bytes: 8, value },
                10 => Op::Movdiri { at: a, bytes: 8, value },
                11 | 12 => Op::Movdir64b { dst: line, src: Source::Fill(bytes as u8) },
                13 => Op::Movdir64b { dst: line, src: Source::Mem(a) },
                14 => Op::Movdir64bPage { at: at(X, keyid) },
                15 => Op::RepStosb { at: a, bytes: 3 * bytes, value: 1 },
                16 => Op::LockXadd { at: a, bytes: 8, value: 1 },
                17 => Op::Clflush { at: a },
                18 => Op::Clflushopt { at: a },
                19 => Op::Clwb { at: a },
                20 => Op::Wbinvd,
                21 => Op::Wbnoinvdp { block: small & 1 },
                22 => Op::Sfence,
                23 => Op::Interrupt,
                24 => Op::Pconfig { keyid, cmd: PconfigCmd::SetRandom, alg: None },
                25 => {
                    let alg = Some(KeyAlg::Xts128Integrity);
                    Op::Pconfig { keyid: S1, cmd: PconfigCmd::SetDirect(9), alg }
                }
                26 => Op::DmaRead { at: a, bytes: 2 * bytes },
                27 => Op::DmaWrite { at: a, bytes: 2 * bytes, value },
                28 => Op::FlipBit { at: a, bit: small },
                29 => Op::FlipTd { at: a },
                30 => Op::MoveLine { from: a, to: at(X + 64, K0) },
                31 => Op::SaveLine { at: a, slot: small },
                32 => Op::ReplayLine { slot: small, at: a },
                _ => Op::InjectUe { at: a },
            }
        },
    )
}
pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    let agent = prop_oneof![
        Just(Agent::Kernel),
        Just(Agent::Td(H1)),
        Just(Agent::SeamRoot),
        Just(Agent::Device)
    ];
    let place = prop_oneof![Just(Place::Core(0)), Just(Place::Core(1)), Just(Place::Llc(0))];
    let choice = (any_key(), 0u64..3, 0u16..2, 0usize..3, place, 0u8..6).prop_map(
        |(keyid, line, core, i, place, kind)| {
            let tag = at(X + 64 * line, keyid).tagged();
            match kind {
                0 => Choice::Evict(place, tag),
                1 => Choice::WriteBack(place, tag),
                2 => Choice::ToLlc(core, tag),
                3 => Choice::WcLeave(core, tag),
                4 => Choice::WeakComplete(core, i),
                _ => Choice::Prefetch(Agent::SeamRoot, core, tag),
            }
        },
    );
    prop_oneof![
        3 => (agent, 0u16..2, any_op()).prop_map(|(who, core, op)| Step::Op(who, core, op)),
        1 => choice.prop_map(Step::Choice),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_random_walk_breaks_an_invariant_or_panics(
        steps in proptest::collection::vec(any_step(), 1..60), ci: bool, erratum: bool, two: bool,
    ) {
        let spec = spec(if ci { Ci } else { Li }, erratum);
        let mut rig = Rig::new(Spec { packages: 1 + u8::from(two), ..spec });
        for step in &steps {
            let _ = rig.try_step(step); // asserts every invariant; refusals are part of the walk
        }
        let saved = postcard::to_stdvec(&rig.r).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Reference>(&saved).unwrap(), &rig.r);
        let short = rig.r.without_history();
        prop_assert_eq!(short.clone().without_history(), short.clone());
        prop_assert_eq!(rig.checker.check_state(&short), vec![]);
    }
}

#[test]
fn a_store_waits_in_its_core_until_hardware_lets_it_go() {
    let tag = at(X, K0).tagged();
    let store = Step::Op(
        Agent::Kernel,
        0,
        Op::Store { at: at(X, K0), bytes: 8, value: Value::Num(7), ty: MemType::Wb },
    );
    let leave = Step::Choice(Choice::StoreLeave(0));
    let mut r = Reference::new(Spec { store_buffer: 2, ..spec(Ci, false) });
    assert_eq!(r.step(&leave), Err(NotAllowed::NoSuchStore(0)));
    r.step(&store).unwrap();
    assert_eq!((r.buffered(0).len(), r.copies(tag).count()), (1, 0));
    r.step(&leave).unwrap();
    assert!(r.state().pending.is_empty());
    assert!(r.copies(tag).all(|(place, c)| place == Place::Core(0) && c.state.is_dirty()));
    // Where the ownership request may raise #MC, and where there is no buffer, it does not wait.
    for spec in [Spec { store_buffer: 2, rfo_poison_mc: true, ..spec(Ci, false) }, spec(Ci, false)]
    {
        let mut r = Reference::new(spec);
        r.step(&store).unwrap();
        assert!(r.buffered(0).is_empty() && r.copies(tag).count() == 1);
    }
}
