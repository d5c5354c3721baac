//! Groups L, C, P and S over states and steps of the reference model (verification.md §2.1 to §2.4), and H7 as far as a
//! controller decides it.
//!
//! Written from verification.md; the read oracle here is its §1.1, not the tables that drive the reference.

use super::{Checker, Violation};
use crate::reference::tables::Class;
use crate::reference::{
    Agent, Bytes, Choice, Copy, DramLine, Key, Place, Reference, Request, Seen, Step, StepOutcome,
    Transaction,
};
use sim_core::event::{BirthCause, WeakKind};
use sim_core::op::{MemType, Source};
use sim_core::outcome::DataClass;
use sim_core::platform::IntegrityMode::{self, Ci, Li};
use sim_core::{Addr, BirthId, ByteMask, KeyId, Line, Op, Tagged};
use std::collections::BTreeMap;

/// A row of the oracle of verification.md §1.1.
struct OracleRow {
    n: u8,
    mode: IntegrityMode,
    private: bool,
    /// `None`: any, as Li has no integrity.
    integrity: Option<bool>,
    td: bool,
    check: Option<bool>,
    plaintext: bool,
    new_poison: Option<BirthCause>,
}

const fn row(
    (n, mode): (u8, IntegrityMode),
    (private, integrity): (bool, Option<bool>),
    (td, check): (u8, Option<bool>),
    (plaintext, new_poison): (bool, Option<BirthCause>),
) -> OracleRow {
    let td = td == 1;
    OracleRow { n, mode, private, integrity, td, check, plaintext, new_poison }
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[rustfmt::skip]
const ORACLE: [OracleRow; 12] = [
    row((1,  Ci), (true,  YES),  (0, None), (false, Some(BirthCause::TdMismatch))),
    row((2,  Ci), (true,  YES),  (1, YES),  (true,  None)),
    row((3,  Ci), (true,  YES),  (1, NO),   (false, Some(BirthCause::MacMismatch))),
    row((4,  Ci), (false, YES),  (0, YES),  (true,  None)),
    row((5,  Ci), (false, YES),  (0, NO),   (false, Some(BirthCause::MacMismatch))),
    row((6,  Ci), (false, YES),  (1, None), (false, Some(BirthCause::SharedIntegrity))),
    row((7,  Ci), (false, NO),   (0, None), (true,  None)),
    row((8,  Ci), (false, NO),   (1, None), (false, None)),
    row((9,  Li), (true,  None), (0, None), (false, Some(BirthCause::TdMismatch))),
    row((10, Li), (true,  None), (1, None), (true,  None)),
    row((11, Li), (false, None), (0, None), (true,  None)),
    row((12, Li), (false, None), (1, None), (false, None)),
];

/// Whether the ciphertext is what this key makes of `plain` for this line.
fn intact(line: &DramLine, at: Line, key: Key) -> bool {
    let good = |c: &crate::reference::Cipher| {
        c.flips.is_empty() && c.key == key && (c.line == at || key == Key::None)
    };
    line.ct.as_ref().is_some_and(good)
}

/// Whether the MAC check passes.
fn authentic(line: &DramLine, at: Line, key: Key) -> bool {
    let moved = line.ct.as_ref().is_none_or(|c| c.line != at);
    intact(line, at, key) && !moved && line.mac == Some(line.td)
}

/// What the oracle says about a read: row number (0 when no row, 13 for sticky poison), data, new poison.
fn oracle(model: &Reference, at: Tagged, line: &DramLine) -> (u8, Bytes, Option<BirthCause>) {
    let private = model.spec.keyid.is_private(at.keyid());
    let key = model.key(at);
    let integrity = private || key.integrity;
    let pass = authentic(line, at.line(), key.key);
    if line.poison.is_some() {
        return (13, Bytes::ZERO, None);
    }
    let found = ORACLE.iter().find(|r| {
        r.mode == model.spec.memory.integrity
            && r.private == private
            && r.integrity.is_none_or(|i| i == integrity)
            && r.td == line.td
            && r.check.is_none_or(|c| c == pass)
    });
    let Some(r) = found else { return (0, Bytes::ZERO, None) };
    let data = match &line.ct {
        _ if !r.plaintext => Bytes::ZERO,
        Some(ct) if intact(line, at.line(), key.key) => ct.plain,
        _ => Bytes::UNKNOWN,
    };
    (r.n, data, r.new_poison)
}

/// One step with the states around it.
struct Case<'a> {
    before: &'a Reference,
    step: &'a Step,
    out: &'a StepOutcome,
    after: &'a Reference,
}

impl Checker {
    /// Checks the state invariants of the reference: L1, C1, C2, C11, P2, P12. Empty when all hold.
    pub fn check_state(&mut self, model: &Reference) -> Vec<Violation> {
        let state = model.state();
        let mut places: BTreeMap<BirthId, u32> = BTreeMap::new();
        let mut place = |poison: Option<BirthId>| {
            if let Some(id) = poison {
                *places.entry(id).or_default() += 1;
            }
        };
        for (at, line) in &state.dram {
            self.stored(model, *at, line);
            place(line.poison);
        }
        let mut dirty = vec![];
        let mut copies = state.caches.iter().peekable();
        while let Some((&(at, _), first)) = copies.next() {
            // Those of one (line, KeyID) follow each other.
            let rest = std::iter::from_fn(|| copies.next_if(|((next, _), _)| *next == at));
            let all = std::iter::once(first).chain(rest.map(|(_, copy)| copy));
            let all = all.inspect(|copy| place(copy.poison));
            if self.cached(model, at, all) {
                dirty.push(at.line());
            }
        }
        // C11: dirty copies of one line under several KeyIDs are reachable, and seen where they are reached: nothing to
        // forbid.
        dirty.sort_unstable();
        let all = dirty.len();
        dirty.dedup();
        self.count("C11", (all - dirty.len()) as u64);
        let told = state.births.iter().map(|(id, birth)| (id, &birth.locations));
        let live = state.born.checked_sub(state.died) == Some(places.len() as u32);
        let fine = live && told.eq(&places);
        self.claim("P2", fine, || format!("{:?} but found {places:?}", state.births));
        self.take()
    }

    /// Checks the state invariants of the reference as far as they are about one line in memory and its copies under one
    /// KeyID: L1, C1, C2, P12. Empty when all hold.
    pub fn check_line(&mut self, model: &Reference, at: Tagged) -> Vec<Violation> {
        if let Some(line) = model.state().dram.get(&at.line()) {
            self.stored(model, at.line(), line);
        }
        self.cached(model, at, model.copies(at).map(|(_, copy)| copy));
        self.take()
    }

    /// L1 and P12 of a line in memory.
    fn stored(&mut self, model: &Reference, at: Line, line: &DramLine) {
        if let (Some((keyid, _)), false) = (line.writer, line.tampered) {
            let want = model.spec.keyid.is_private(keyid);
            self.claim("L1", line.td == want, || format!("{at:?}: TD={}", line.td));
        }
        self.certified(model, at, line.poison);
    }

    /// C1, C2 and P12 of all copies of a (line, KeyID). Whether one is dirty.
    fn cached<'a>(
        &mut self,
        model: &Reference,
        at: Tagged,
        copies: impl Iterator<Item = &'a Copy>,
    ) -> bool {
        use crate::reference::Coherence::{Exclusive, Modified, Owned};
        let (mut count, mut unique, mut owned) = (0, 0, 0);
        let (mut same, mut dirty) = (true, false);
        let mut first: Option<&Copy> = None;
        for copy in copies {
            let one = first.get_or_insert(copy);
            count += 1;
            unique += u32::from(matches!(copy.state, Exclusive | Modified));
            owned += u32::from(copy.state == Owned);
            same &= (copy.data, copy.poison) == (one.data, one.poison);
            dirty |= copy.state.is_dirty();
            self.certified(model, at.line(), copy.poison);
        }
        let found = || format!("{at}: {:?}", model.copies(at).collect::<Vec<_>>());
        if count > 0 {
            self.claim("C1", (unique == 0 || count == 1) && owned <= 1, found);
        }
        if count > 1 {
            self.claim("C2", same, found);
        }
        dirty
    }

    /// P12: the poison on a line was born there.
    fn certified(&mut self, model: &Reference, at: Line, poison: Option<BirthId>) {
        let Some(id) = poison else { return };
        let here = model.state().births.get(&id).is_some_and(|b| b.at.line() == at);
        self.claim("P12", here, || format!("{id:?} on {at:?}"));
    }

    /// Checks the step invariants of the reference. Empty when all hold.
    pub fn check_step(
        &mut self,
        before: &Reference,
        step: &Step,
        outcome: &StepOutcome,
        after: &Reference,
    ) -> Vec<Violation> {
        let case = Case { before, step, out: outcome, after };
        self.requests(&case);
        self.lines(&case);
        self.seen(&case);
        self.copies(&case);
        self.scope(&case);
        self.births(&case);
        self.take()
    }

    /// Checks the requests of a step by themselves, wherever choices of hardware came in between: L2, L3, L6 to L10, L12,
    /// L13, P1, P4, P8, S1, H7. `injected` says that the step was an injected error. Empty when all hold.
    pub fn check_requests(
        &mut self,
        injected: bool,
        outcome: &StepOutcome,
        after: &Reference,
    ) -> Vec<Violation> {
        let op = match injected {
            true => Op::InjectUe { at: Addr::new(Line(0).hpa(), KeyId::TME) },
            false => Op::Lfence,
        };
        let step = Step::Op(Agent::Kernel, 0, op);
        let case = Case { before: after, step: &step, out: outcome, after };
        self.requests(&case);
        self.births(&case);
        self.take()
    }

    fn requests(&mut self, case: &Case<'_>) {
        for t in &case.out.traffic {
            match t.request {
                Request::Read { data, class } => self.read(case, t, data, class),
                Request::Write { mask, data, .. } => self.write(case, t, data, mask),
            }
        }
    }

    fn read(&mut self, c: &Case<'_>, t: &Transaction, data: Bytes, class: DataClass) {
        // Keys change only in steps without traffic, so the state after knows them.
        let (n, want, new) = oracle(c.after, t.at, &t.before);
        self.rows.insert(n);
        let poisoned = t.before.poison.is_some() || new.is_some();
        self.claim("L2", n != 0 && data == want, || format!("{t:?}: row {n}"));
        if poisoned || class == DataClass::Blocked || matches!(n, 1 | 3 | 5 | 6 | 8 | 9 | 12) {
            self.claim("L3", data == Bytes::ZERO, || format!("{t:?}"));
        }
        if new.is_some() {
            self.claim("P4", t.after.poison.is_some(), || format!("{t:?}: row {n}"));
        }
        let slot = c.after.key(t.at);
        let kind = c.after.class(t.at);
        let ci = c.after.spec.memory.integrity == Ci;
        let checked = ci && kind != Class::Shared;
        let same = t.before.writer == Some((t.at.keyid(), slot.key))
            && t.before.mac.is_some() == checked
            && !t.before.tampered
            && t.before.poison.is_none();
        if same {
            let whole = t.before.ct.as_ref().is_some_and(|ct| ct.plain == data);
            let fine = whole && class == DataClass::Plain && t.after.poison.is_none();
            self.claim("L6", fine, || format!("{t:?}"));
        }
        if checked && !authentic(&t.before, t.at.line(), slot.key) {
            let caught = t.after.poison.is_some() && data == Bytes::ZERO;
            self.claim("L7", caught, || format!("{t:?}"));
        }
        let private = c.after.spec.keyid.is_private(t.at.keyid());
        let hidden = |(k, _): (KeyId, Key)| c.after.spec.keyid.is_private(k);
        if !private && t.before.writer.is_some_and(hidden) && !t.before.tampered {
            self.claim("S1", data == Bytes::ZERO, || format!("{t:?}"));
        }
        if let Some((keyid, key)) = t.before.writer
            && private
            && keyid == t.at.keyid()
            && key != slot.key
            && !t.before.tampered
        {
            let old = data == Bytes::ZERO || data == Bytes::UNKNOWN;
            self.claim("H7", old, || format!("{t:?}"));
        }
        let stored = t.before.ct.as_ref().map(|ct| ct.plain);
        let allowed = data == Bytes::ZERO || data == Bytes::UNKNOWN || stored == Some(data);
        self.claim("L12", allowed, || format!("{t:?}"));
    }

    fn write(&mut self, c: &Case<'_>, t: &Transaction, data: Bytes, mask: ByteMask) {
        let slot = c.after.key(t.at);
        let private = c.after.spec.keyid.is_private(t.at.keyid());
        let stored = |plain: Bytes| {
            t.after.ct.as_ref().is_some_and(|ct| {
                ct.plain == plain
                    && ct.key == slot.key
                    && ct.line == t.at.line()
                    && ct.flips.is_empty()
            })
        };
        if mask.is_full() {
            self.claim("L13", stored(data), || format!("{t:?}"));
            return;
        }
        let erratum = c.after.spec.memory.erratum_pw_mce && !private && t.before.td;
        if erratum {
            let cause = t.after.poison.and_then(|id| c.after.state().births.get(&id));
            // A later write of the same step may have ended it: then its cause cannot be asked.
            let born = t.before.poison.is_some()
                || cause.is_none_or(|b| b.cause == BirthCause::PartialWrite);
            let same = DramLine { poison: t.before.poison, ..t.after } == t.before;
            self.claim("L8", t.after.poison.is_some() && born && same, || format!("{t:?}"));
            let old = t.before.ct.as_ref().map(|ct| ct.plain);
            let mut unchanged = old.unwrap_or(Bytes::UNKNOWN);
            unchanged.merge(&data, mask);
            if old == Some(unchanged) {
                self.claim("L10", t.after.poison.is_some(), || format!("{t:?}"));
            }
        } else {
            let (_, mut want, new) = oracle(c.after, t.at, &t.before);
            want.merge(&data, mask);
            let poison = t.before.poison.is_some() || new.is_some();
            let fine = stored(want)
                && t.after.td == private
                && t.after.poison.is_some() == poison
                && (t.before.poison.is_none() || t.after.poison == t.before.poison);
            self.claim("L9", fine, || format!("{t:?}"));
        }
    }

    /// L4: what may end a line's poison.
    fn lines(&mut self, c: &Case<'_>) {
        let restore = matches!(c.step, Step::Op(_, _, Op::MoveLine { .. } | Op::ReplayLine { .. }));
        for (at, line) in &c.before.state().dram {
            if line.poison.is_none() || c.after.dram(*at).poison.is_some() {
                continue;
            }
            let whole = |t: &Transaction| matches!(t.request, Request::Write { mask, source: None, .. } if mask.is_full());
            let written = c.out.traffic.iter().any(|t| t.at.line() == *at && whole(t));
            self.claim("L4", written || restore, || format!("{at:?} by {:?}", c.step));
        }
    }

    /// L5, L11, C2 (hits), C3, P3, P5, P7: what the agent sees.
    fn seen(&mut self, c: &Case<'_>) {
        let machine_check = matches!(c.out.seen, Seen::MachineCheck { .. });
        let step = c.step;
        let (who, core, op) = match step {
            Step::Choice(choice) => {
                if matches!(choice, Choice::Prefetch(..)) {
                    self.claim("P7", !machine_check, || format!("{step:?}"));
                }
                self.claim("L5", c.out.seen == Seen::Done, || format!("{step:?}"));
                return;
            }
            Step::Op(who, core, op) => (*who, *core, op),
        };
        match op {
            Op::Prefetch { .. } => self.claim("P7", !machine_check, || format!("{step:?}")),
            Op::Store { .. }
            | Op::NtStore { .. }
            | Op::Movdiri { .. }
            | Op::Movdir64b { src: Source::Fill(_), .. }
            | Op::Movdir64bPage { .. }
            | Op::RepStosb { .. }
            | Op::DmaWrite { .. } => {
                let silent = !machine_check && !matches!(c.out.seen, Seen::Data { .. });
                let allowed = machine_check && c.after.spec.rfo_poison_mc;
                self.claim("L5", silent || allowed, || format!("{step:?}: {:?}", c.out.seen));
            }
            _ => {}
        }
        if let Some(at) = operand(op)
            && c.after.spec.keyid.is_private(at.keyid)
            && !may_form(who, at.keyid)
        {
            let fault = matches!(
                c.out.seen,
                Seen::PageFaultRsvd
                    | Seen::EptMisconfiguration
                    | Seen::DmaAbort
                    | Seen::GeneralProtection(_)
            ) || matches!(op, Op::Prefetch { .. });
            let same = c.before == c.after && c.out.traffic.is_empty();
            self.claim("L11", fault && same, || format!("{step:?}: {:?}", c.out.seen));
        }
        if let Op::Load { at, bytes, ty: MemType::Wb } = op
            && at.hpa.offset_in_line() + (*bytes as usize) <= 64
            && let Seen::Data { data, .. } = c.out.seen
        {
            let hit = c.before.state().caches.get(&(at.tagged(), Place::Core(core)));
            let asked = |t: &Transaction| t.at == at.tagged();
            let pending = c.before.state().pending.contains_key(&core);
            if let (Some(copy), false) = (hit, pending) {
                let want = copy.data.moved(at.hpa.offset_in_line(), *bytes as usize, 0);
                self.claim("C2", data == want, || format!("{step:?}: {:?}", c.out.seen));
            }
            let legal =
                c.before.copies(at.tagged()).next().is_some() || c.out.traffic.iter().any(asked);
            self.claim("C3", legal, || format!("{step:?}"));
        }
        if let Op::Load { at, bytes, ty: MemType::Wb } = op
            && at.hpa.offset_in_line() + (*bytes as usize) <= 64
            && let Seen::Data { data, .. } = c.out.seen
            && !c.after.spec.keyid.is_private(at.keyid)
            && c.before.copies(at.tagged()).next().is_none()
            && !c.before.state().pending.contains_key(&core)
        {
            let asked =
                |t: &&Transaction| t.at == at.tagged() && matches!(t.request, Request::Read { .. });
            let line = c.out.traffic.iter().find(asked).map(|t| &t.before);
            let hidden = |l: &DramLine| {
                let private = |(k, _)| c.after.spec.keyid.is_private(k);
                l.writer.is_some_and(private) && !l.tampered
            };
            if line.is_some_and(hidden) {
                let fixed = Bytes::ZERO.moved(at.hpa.offset_in_line(), *bytes as usize, 0);
                self.claim("S4", data == fixed, || format!("{step:?}: {:?}", c.out.seen));
            }
        }
        if let Seen::MachineCheck { birth, at, .. } = c.out.seen {
            let new = c.out.births.contains(&birth);
            let alive = c.before.state().births.contains_key(&birth) || new;
            self.claim("P3", alive, || format!("{step:?}: {birth:?}"));
            let host = matches!(who, Agent::Kernel | Agent::User | Agent::Guest);
            let cert = c.after.state().births.get(&birth);
            if let (true, Some(cert)) = (host, cert) {
                let private = c.after.spec.keyid.is_private(cert.at.keyid());
                let integrity = c.after.state().keys.values().any(|k| k.integrity)
                    && c.after.spec.memory.integrity == Ci;
                let just = match cert.cause {
                    BirthCause::UncorrectableError => true,
                    BirthCause::PartialWrite => c.after.spec.memory.erratum_pw_mce,
                    BirthCause::TdMismatch => private,
                    BirthCause::MacMismatch => private || integrity,
                    BirthCause::SharedIntegrity => integrity,
                };
                self.claim("P5", just, || format!("{at}: {cert:?}"));
            }
        }
    }

    /// C4, C5, C12: what becomes of copies.
    fn copies(&mut self, c: &Case<'_>) {
        let (old, new) = (&c.before.state().caches, &c.after.state().caches);
        let covers = |at: Tagged| {
            let whole = |a: &Addr, n: u32| {
                let (start, line) = (a.hpa.0, at.line().hpa().0);
                a.keyid == at.keyid() && start <= line && line + 64 <= start + u64::from(n)
            };
            match c.step {
                Step::Op(_, _, Op::Store { at, bytes, ty: MemType::Wb, .. })
                | Step::Op(_, _, Op::RepStosb { at, bytes, .. }) => whole(at, *bytes),
                _ => false,
            }
        };
        for ((at, _), copy) in new {
            let mut were = c.before.copies(*at).map(|(_, c)| c).peekable();
            let read = |t: &Transaction| t.at == *at && matches!(t.request, Request::Read { .. });
            // A step may drop a copy and fill it again: then it is a new one.
            let filled = c.out.traffic.iter().any(read);
            if were.peek().is_none() || filled {
                self.claim("C4", filled || covers(*at), || format!("{at} by {:?}", c.step));
            } else if were.any(|c| c.poison.is_some()) {
                let legal = copy.poison.is_some() || covers(*at);
                self.claim("C12", legal, || format!("{at} by {:?}", c.step));
            }
        }
        for ((at, _), copy) in old.iter().filter(|(_, copy)| copy.state.is_dirty()) {
            if c.after.copies(*at).any(|(_, c)| c.state.is_dirty()) {
                continue;
            }
            let same = |t: &Transaction| {
                let Request::Write { mask, data, source } = t.request else { return false };
                let device = matches!(c.step, Step::Op(Agent::Device, ..));
                let own = data == copy.data && source == copy.poison;
                t.at == *at && mask.is_full() && (own || device)
            };
            let written = c.out.traffic.iter().any(same);
            self.claim("C5", written, || format!("{at} by {:?}", c.step));
        }
    }

    /// C6 to C9: how far flushes, evictions and direct stores reach.
    fn scope(&mut self, c: &Case<'_>) {
        let (old, new) = (c.before.state(), c.after.state());
        let foreign = |model: &Reference, at: Tagged| -> Vec<((Tagged, Place), Copy)> {
            let all = model.state().caches.iter();
            let foreign = all.filter(|((t, _), _)| t.line() == at.line() && *t != at);
            foreign.map(|(k, c)| (*k, *c)).collect()
        };
        let weak = match c.step {
            Step::Choice(Choice::WeakComplete(core, i)) => {
                old.pending.get(core).and_then(|p| p.weak.get(*i))
            }
            _ => None,
        };
        let flushed = match (c.step, weak) {
            (Step::Op(_, _, Op::Clflush { at }), _) => Some(at.tagged()),
            (_, Some(w)) if matches!(w.kind, WeakKind::Clflushopt | WeakKind::Clwb) => Some(w.at),
            _ => None,
        };
        if let Some(at) = flushed
            && !foreign(c.before, at).is_empty()
        {
            let alone = foreign(c.before, at) == foreign(c.after, at);
            self.claim("C7", alone, || format!("{at} by {:?}", c.step));
        }
        if let Some(w) = weak
            && w.kind == WeakKind::Movdir64b
        {
            let line = c.after.dram(w.at.line());
            let written = line.ct.as_ref().is_some_and(|ct| ct.plain == w.data)
                && line.writer.is_some_and(|(k, _)| k == w.at.keyid());
            let gone = c.after.copies(w.at).next().is_none();
            let alone = foreign(c.before, w.at) == foreign(c.after, w.at);
            let fine = written && gone && alone && line.poison.is_none();
            self.claim("C8", fine, || format!("{w:?}: {line:?}"));
        }
        match c.step {
            Step::Choice(Choice::Evict(place, at))
                if old.caches.get(&(*at, *place)).is_some_and(|c| !c.state.is_dirty()) =>
            {
                let quiet = old.dram == new.dram && c.out.traffic.is_empty();
                self.claim("C6", quiet, || format!("{at}"));
            }
            Step::Op(_, core, op @ (Op::Wbinvd | Op::Wbnoinvd | Op::Wbnoinvdp { .. }))
                if c.out.seen == Seen::Done =>
            {
                let spec = c.after.spec;
                let mut here = new.caches.iter().filter(|((_, place), _)| match place {
                    Place::Core(other) => spec.package_of(*other) == spec.package_of(*core),
                    Place::Llc(package) => *package == spec.package_of(*core),
                });
                let direct = old.pending.contains_key(core);
                let kept = direct || old.caches.keys().all(|k| new.caches.contains_key(k));
                let fine = match op {
                    Op::Wbinvd => here.next().is_none(),
                    Op::Wbnoinvd => kept && here.all(|(_, c)| !c.state.is_dirty()),
                    _ => kept,
                };
                self.claim("C9", fine, || format!("{op:?}"));
            }
            _ => {}
        }
    }

    /// P1, P8: births and their causes.
    fn births(&mut self, c: &Case<'_>) {
        let erratum = c.after.spec.memory.erratum_pw_mce;
        for id in &c.out.births {
            let source = c
                .out
                .traffic
                .iter()
                .find(|t| t.before.poison.is_none() && t.after.poison == Some(*id));
            let cert = c.after.state().births.get(id);
            if cert.is_some_and(|b| b.cause == BirthCause::PartialWrite) {
                // L8 says when the erratum fires; this is that it fires at no other time.
                let due = |t: &Transaction| {
                    erratum && t.before.td && !c.after.spec.keyid.is_private(t.at.keyid())
                };
                self.claim("L8", source.is_some_and(due), || format!("{source:?}"));
            }
            let (want, logged) = match (source, c.step) {
                (Some(t), _) => {
                    let private = c.after.spec.keyid.is_private(t.at.keyid());
                    let (_, _, new) = oracle(c.after, t.at, &t.before);
                    match t.request {
                        Request::Read { .. } => (new, true),
                        Request::Write { .. } if !private && t.before.td && erratum => {
                            (Some(BirthCause::PartialWrite), false)
                        }
                        Request::Write { .. } => (new, false),
                    }
                }
                (None, Step::Op(_, _, Op::InjectUe { .. })) => {
                    (Some(BirthCause::UncorrectableError), false)
                }
                (None, _) => (None, false),
            };
            // A birth may end in the step that made it; then only its cause cannot be asked any more.
            let fine = want.is_some() && cert.is_none_or(|b| Some(b.cause) == want);
            self.claim("P1", fine, || format!("{cert:?}, expected {want:?}"));
            let times = c.out.ucna.iter().filter(|u| *u == id).count();
            self.claim("P8", times == usize::from(logged), || format!("{cert:?}: {times} times"));
        }
    }
}

fn may_form(who: Agent, private: KeyId) -> bool {
    who == Agent::SeamRoot || who == Agent::Td(private)
}

/// The first address of an operation that is an access.
fn operand(op: &Op) -> Option<Addr> {
    match op {
        Op::Load { at, .. }
        | Op::Fetch { at }
        | Op::Prefetch { at }
        | Op::Store { at, .. }
        | Op::NtStore { at, .. }
        | Op::Movdiri { at, .. }
        | Op::Movdir64b { dst: at, .. }
        | Op::Movdir64bPage { at }
        | Op::RepStosb { at, .. }
        | Op::LockXadd { at, .. }
        | Op::Clflush { at }
        | Op::Clflushopt { at }
        | Op::Clwb { at }
        | Op::DmaRead { at, .. }
        | Op::DmaWrite { at, .. } => Some(*at),
        _ => None,
    }
}
