//! TDCALLs, TD exits and machine checks (architecture.md §6.3, §7.8, §7.9).

use super::effect::VCPU_READY;
use super::run::{Ended, RCX, Run, Step, span};
use super::sept::{self, SeptState};
use super::{Complaint, Expected, Spec, Struck, compare, rules};
use crate::view::ModuleView;
use sim_core::outcome::CallResult;
use sim_core::tdx::{GuestLeaf, Operand, Status};

/// Exit reasons (architecture.md §7.11).
const EPT_VIOLATION: u16 = 48;
const TDCALL: u16 = 77;
/// Exceptions and NMIs, interrupts, SMIs: what a long ACCEPT gives way to.
const ASYNCHRONOUS: [u16; 3] = [0, 1, 6];

impl Run<'_> {
    /// A TDCALL of the VCPU in `call.guest`.
    pub(super) fn guest(&mut self) -> Step {
        let vcpu = self.call.guest.ok_or(Ended)?;
        self.vcpu = vcpu;
        self.tdr = self.vcpu()?.tdr;
        let leaf = GuestLeaf(self.call.leaf());
        if self.call.rax >> 16 != 0 {
            // Versions and reserved bits of RAX in a TDCALL: the sheet has no rule.
            self.may_answer(Expected::AnyError, None);
        }
        match leaf {
            GuestLeaf::VP_VMCALL => self.vmcall(),
            GuestLeaf::MEM_PAGE_ACCEPT => self.accept(),
            _ if rules::NOT_JUDGED.iter().any(|n| n.guest && n.leaf == leaf.0) => {
                self.may_answer(Expected::AnyStatus, None);
                for reason in ASYNCHRONOUS.iter().chain(&[EPT_VIOLATION, TDCALL]) {
                    self.may_answer(Expected::Left(*reason), None);
                }
                Ok(())
            }
            _ => {
                self.may_answer(Expected::AnyError, None);
                Ok(())
            }
        }
    }

    /// "bits 0,1,4 (5 with NO_RBP_MOD) and [63:32] set → OPERAND_INVALID|RCX"; else an exit.
    fn vmcall(&mut self) -> Step {
        let mask = self.reg(RCX);
        if mask >> 32 != 0 || mask & 0b1_0011 != 0 {
            return self.invalid(RCX);
        }
        if mask & 1 << 5 != 0 {
            // NO_RBP_MOD is a bit of TD_PARAMS that no view has.
            self.may((Status::OPERAND_INVALID, Some(Operand::RCX.0)));
        }
        self.may_answer(Expected::Left(TDCALL), None);
        Ok(())
    }

    /// TDG.MEM.PAGE.ACCEPT: the table of architecture.md §7.9.
    fn accept(&mut self) -> Step {
        let value = self.reg(RCX);
        let level = (value & 7) as u8;
        self.gpa = value & sept::BASE;
        let bad = value >> 52 != 0
            || value & 0xff8 != 0
            || level > 1
            || self.gpa & (span(level) - 1) != 0;
        if bad {
            return self.invalid(RCX);
        }
        self.private()?;
        self.level = level;
        let found = match self.walk_to(level)? {
            Ok(found) => found,
            Err(last) if sept::row_of(last.state).accessible => {
                return self.fail((Status::PAGE_ALREADY_ACCEPTED, Some(last.level.into())));
            }
            Err(_) => {
                self.may_answer(Expected::Left(EPT_VIOLATION), None);
                return Ok(());
            }
        };
        (self.at, self.entry, self.state) = (found.at, found.entry, found.state);
        let answers = self.allowed.len();
        self.lock_entry(span(level))?;
        if self.allowed.len() > answers {
            // Kept from it by the host for long enough, the VCPU leaves with HOST_PRIORITY_BUSY_TIMEOUT (architecture.md §7.2).
            self.may_answer(Expected::Left(TDCALL), None);
        }
        if self.view.kept.contains(&self.at) {
            self.may_answer(Expected::Left(TDCALL), None);
            return self.fail(Run::busy(RCX));
        }
        let level_low = Some(u32::from(level));
        match self.state {
            SeptState::NlMapped | SeptState::NlBlocked | SeptState::Removed => {
                // REMOVED is no leaf either and not FREE; it occurs during import only.
                self.fail((Status::PAGE_SIZE_MISMATCH, level_low))
            }
            state if sept::row_of(state).accessible => {
                self.fail((Status::PAGE_ALREADY_ACCEPTED, level_low))
            }
            SeptState::Pending | SeptState::PendingExportedDirty => self.accept_page(),
            _ => {
                self.may_answer(Expected::Left(EPT_VIOLATION), None);
                Ok(())
            }
        }
    }

    fn accept_page(&mut self) -> Step {
        let state = match self.state {
            SeptState::Pending => SeptState::Mapped,
            _ => SeptState::ExportedDirty,
        };
        let mut entry = self.entry;
        if self.level == 1 {
            entry &= !sept::COUNTER;
            if self.company.interrupt {
                // The chunks done so far are in the entry; the guest leaves and executes the instruction again.
                let mut after = self.after();
                let found = self.seen.and_then(|seen| seen.sept.get(&self.at)).copied();
                let done = |entry: u64| entry & sept::COUNTER;
                if let Some(found) = found.filter(|f| done(*f) >= done(self.entry)) {
                    after.sept.insert(self.at, entry | done(found));
                }
                for reason in ASYNCHRONOUS {
                    self.may_answer(Expected::Left(reason), Some(after.clone()));
                }
            }
        }
        let mut after = self.after();
        after.sept.insert(self.at, sept::with(entry, state));
        self.succeed(after)
    }
}

fn complaint(what: &str, expected: String, found: String, cite: &str) -> Complaint {
    Complaint { what: what.to_owned(), expected, found, cite: cite.to_owned() }
}

/// A TD exit that is no machine check.
pub(super) fn exit(
    before: &ModuleView,
    lp: u16,
    result: &CallResult,
    after: &ModuleView,
) -> Result<(), Vec<Complaint>> {
    const CITE: &str = "architecture.md §7.8 \"TD exit\", §7.9 \"TDH.VP.ENTER\"";
    /// The classes of architecture.md §7.3 that an exit may have, and the VCPU's state after each (8 VCPU_DISABLED).
    const CLASSES: [(Status, u8); 8] = [
        (Status::SUCCESS, VCPU_READY),
        (Status::NON_RECOVERABLE_VCPU, 8),
        (Status::NON_RECOVERABLE_TD, 8),
        (Status::NON_RECOVERABLE_TD_WRONG_APIC_MODE, 8),
        (Status::NON_RECOVERABLE_TD_CORRUPTED_MD, 8),
        (Status::CROSS_TD_FAULT, VCPU_READY),
        (Status::CROSS_TD_TRAP, VCPU_READY),
        (Status::HOST_PRIORITY_BUSY_TIMEOUT, VCPU_READY),
    ];
    let class = CLASSES.iter().find(|(c, _)| c.0 >> 32 == result.status.0 >> 32);
    let Some((status, state)) = class else {
        let names: Vec<String> = CLASSES.iter().map(|(c, _)| c.to_string()).collect();
        let found = result.status.to_string();
        return Err(vec![complaint("status of a TD exit", names.join(" or "), found, CITE)]);
    };
    let Some(mut want) = left(before, lp, true) else {
        let expected = format!("a VCPU inside its TD on LP {lp}");
        return Err(vec![complaint("TD exit", expected, "none".to_owned(), CITE)]);
    };
    let vcpu = before.lps.get(usize::from(lp)).and_then(|l| l.inside);
    if let Some(vcpu) = vcpu.and_then(|page| want.vcpus.get_mut(&page)) {
        vcpu.state = *state;
        // What a VCPU or TD that cannot run again is left as is said of machine checks only.
        let lost = *status != Status::SUCCESS && *state == 8;
        let tdr = vcpu.tdr;
        if lost {
            let seen = after.vcpus.values().zip(before.vcpus.values());
            let found = seen.filter(|(a, b)| a.state != b.state).map(|(a, _)| a.state).next();
            vcpu.state = found.filter(|s| [VCPU_READY, 8].contains(s)).unwrap_or(*state);
            if *status != Status::NON_RECOVERABLE_VCPU
                && let (Some(td), Some(seen)) = (want.tds.get_mut(&tdr), after.tds.get(&tdr))
            {
                td.fatal |= seen.fatal;
            }
        }
    }
    let mut complaints = Vec::new();
    compare::views(&want, after, true, CITE, &mut complaints);
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// The view without the VCPU inside; `counted`: REFCOUNT goes down (architecture.md §7.8 "TD exit").
fn left(before: &ModuleView, lp: u16, counted: bool) -> Option<ModuleView> {
    let mut want = before.clone();
    let page = want.lps.get_mut(usize::from(lp))?.inside.take()?;
    let vcpu = want.vcpus.get(&page)?;
    let td = want.tds.get_mut(&vcpu.tdr)?;
    if counted {
        let count = td.refcount.get_mut((vcpu.epoch & 1) as usize)?;
        *count = count.checked_sub(1)?;
    }
    Some(want)
}

/// A machine check that struck this LP.
pub(super) fn machine_check(
    spec: &Spec,
    before: &ModuleView,
    lp: u16,
    struck: &Struck,
    after: &ModuleView,
) -> Result<(), Vec<Complaint>> {
    const CITE: &str = "architecture.md §6.3";
    match struck {
        Struck::Module => {
            // What else the shutdown leaves behind nobody can read any more.
            if after.sys.disabled {
                return Ok(());
            }
            let expected = "TDX disabled on the platform".to_owned();
            Err(vec![complaint("sys.disabled", expected, "still working".to_owned(), CITE)])
        }
        Struck::Td(result) => {
            let mut complaints = Vec::new();
            let class = Status::NON_RECOVERABLE_TD_NON_ACCESSIBLE;
            if result.status.0 >> 32 != class.0 >> 32 {
                let found = result.status.to_string();
                complaints.push(complaint("status", class.to_string(), found, CITE));
            }
            // "does not touch TDCS/TDVPS/private memory any more, does not decrement the TLB-tracking refcount"
            let inside = before.lps.get(usize::from(lp)).and_then(|l| l.inside);
            let tdr = inside.and_then(|page| before.vcpus.get(&page)).map(|vcpu| vcpu.tdr);
            let (Some(mut want), Some(tdr)) = (left(before, lp, false), tdr) else {
                let expected = format!("a VCPU inside its TD on LP {lp}");
                return Err(vec![complaint("machine check", expected, "none".to_owned(), CITE)]);
            };
            let mut lost = vec![tdr];
            if !spec.lmce {
                // Broadcast: "every TD that was running on any LP is made fatal".
                let running = before.lps.iter().filter_map(|l| l.inside);
                lost.extend(running.filter_map(|p| before.vcpus.get(&p)).map(|v| v.tdr));
                // The other LPs leave as well, at their own time.
                for (l, seen) in want.lps.iter_mut().zip(&after.lps) {
                    if seen.inside.is_none() {
                        l.inside = None;
                    }
                }
            }
            for lost in lost {
                // Each LP marks its own TD, when the module there gets to it; that of this LP is marked now.
                let seen = after.tds.get(&lost).is_some_and(|td| td.fatal);
                if let Some(td) = want.tds.get_mut(&lost) {
                    td.fatal |= seen || lost == tdr;
                }
            }
            compare::views(&want, after, true, CITE, &mut complaints);
            if complaints.is_empty() { Ok(()) } else { Err(complaints) }
        }
    }
}
