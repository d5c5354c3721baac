//! From an event back to the operations of the scenario.

use super::{
    BIRTHS_MAX, BirthReport, HISTORY_MAX, HistoryRow, LineReport, Link, MACHINE_CHECKS_MAX,
    MachineCheckReport, TD_EVENTS_MAX, TdEventReport, UcnaReport, calls::Caller,
};
use rustc_hash::FxHashMap;
use sim_core::event::{
    Birth, BirthCause, BirthId, Event, EventId, EventKind, LineState, Tamper, Trace, WeakKind, Why,
};
use sim_core::mca::McRecord;
use sim_core::tdx::{GuestLeaf, Leaf};
use sim_core::{KeyId, Line, Tagged};
use tdx_module::op_state::KotState;
use tdx_module::sept::{Entry, State};

/// What the scenario calls one of its operations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepLabel {
    /// Agent and number, such as `cpu0.1`.
    pub step: String,
    /// Its text.
    pub text: String,
    /// Its line in the scenario file.
    pub line: u32,
}

/// A trace, told in the scenario's words.
pub struct Story<'a> {
    trace: &'a Trace,
    /// By item of the program.
    labels: &'a [Option<StepLabel>],
    /// Places in the log of all events at the controller that concern a line, in order. Only for lines with births.
    by_line: FxHashMap<Line, Vec<usize>>,
    /// Places in the log of all stores into the cached copies of such lines.
    stores: FxHashMap<Tagged, Vec<usize>>,
}

impl<'a> Story<'a> {
    /// Tells `trace`, whose operations are `labels`, by item of the program.
    pub fn new(trace: &'a Trace, labels: &'a [Option<StepLabel>]) -> Story<'a> {
        let mut by_line: FxHashMap<Line, Vec<usize>> =
            trace.births().iter().map(|b| (b.at.line(), Vec::new())).collect();
        let mut stores: FxHashMap<Tagged, Vec<usize>> = FxHashMap::default();
        if by_line.is_empty() {
            return Story { trace, labels, by_line, stores };
        }
        for (place, event) in trace.events().iter().enumerate() {
            let mut note = |line: Line| {
                if let Some(places) = by_line.get_mut(&line) {
                    places.push(place);
                }
            };
            match event.kind {
                EventKind::DramRead { at, .. } | EventKind::DramWrite { at, .. } => note(at.line()),
                EventKind::Tampered { line, .. } => note(line),
                EventKind::DramWritePage { page, lines, .. } => {
                    (0..64).filter(|i| lines >> i & 1 != 0).for_each(|i| note(page.line(i)));
                }
                EventKind::CacheStore { at, .. } if by_line.contains_key(&at.line()) => {
                    stores.entry(at).or_default().push(place);
                }
                _ => {}
            }
        }
        Story { trace, labels, by_line, stores }
    }

    fn events(&self) -> &'a [Event] {
        self.trace.events()
    }

    /// Of `places` in the log, those before the event `id`, newest first.
    fn before(&self, places: Option<&'_ Vec<usize>>, id: EventId) -> Vec<&'a Event> {
        let places = places.map_or(&[][..], Vec::as_slice);
        let end = places.partition_point(|p| *p + 1 < id.0 as usize);
        // The one wanted is among the last few, all but always the last.
        places[..end].iter().rev().take(64).filter_map(|p| self.events().get(*p)).collect()
    }

    fn label(&self, event: &Event) -> Option<&'a StepLabel> {
        match event.kind {
            EventKind::Op { step, .. } => self.labels.get(step as usize)?.as_ref(),
            _ => None,
        }
    }

    /// The operation at the root of an event.
    fn root(&self, event: &Event) -> Option<&'a StepLabel> {
        let mut at = event;
        loop {
            if let Some(label) = self.label(at) {
                return Some(label);
            }
            at = self.trace.event(at.cause)?;
        }
    }

    fn link(&self, event: &Event) -> Link {
        let label = self.label(event);
        Link {
            at_ps: event.at.0,
            text: label.map_or_else(|| describe(&event.kind), |l| l.text.clone()),
            step: label.map(|l| l.step.clone()),
            line: label.map(|l| l.line),
        }
    }

    /// From an event to its root, without the event itself.
    fn causes(&self, event: &Event) -> Vec<Link> {
        let mut links = Vec::new();
        let mut at = event;
        while let Some(cause) = self.trace.event(at.cause) {
            links.push(self.link(cause));
            at = cause;
        }
        links
    }

    /// The controller's access that bore the poison.
    fn bearing(&self, birth: &Birth) -> Option<&'a Event> {
        let id = (birth.event.0 as usize).checked_sub(1)?;
        // The access is recorded next to the birth, whichever of the two the controller notes first.
        let lo = id.saturating_sub(4);
        let hi = (id + 5).min(self.events().len());
        self.events()[lo..hi].iter().find(|e| match e.kind {
            EventKind::DramRead { at, before, after, .. }
            | EventKind::DramWrite { at, before, after, .. } => {
                at == birth.at && before.poison.is_none() && after.poison.is_some()
            }
            _ => false,
        })
    }

    /// The last event that gave `line` its state before `id`.
    fn last_write(&self, line: Line, id: EventId) -> Option<&'a Event> {
        self.before(self.by_line.get(&line), id)
            .into_iter()
            .find(|e| !matches!(e.kind, EventKind::DramRead { .. }))
    }

    /// The operation that last stored into the cached copy before it was written back.
    fn last_store(&self, copy: Tagged, id: EventId) -> Option<&'a Event> {
        self.before(self.stores.get(&copy), id).into_iter().next()
    }

    /// Why the poison was born, effect first.
    fn birth_chain(&self, birth: &Birth) -> Vec<Link> {
        let bearing = self.bearing(birth);
        let mut links = vec![Link {
            at_ps: birth.born.0,
            text: self.birth_text(birth, bearing),
            step: None,
            line: None,
        }];
        let anchor = bearing.or_else(|| self.trace.event(birth.event));
        let Some(anchor) = anchor else { return links };
        links.extend(self.causes(anchor));
        let id = anchor.id;
        let Some(write) = self.last_write(birth.at.line(), id) else {
            if matches!(birth.cause, BirthCause::TdMismatch | BirthCause::MacMismatch) {
                links.push(Link {
                    at_ps: 0,
                    text: "the line had not been written since power-on (MC-10)".to_owned(),
                    step: None,
                    line: None,
                });
            }
            return links;
        };
        links.push(Link {
            at_ps: write.at.0,
            text: format!("before that, {}", describe(&write.kind)),
            step: None,
            line: None,
        });
        links.extend(self.causes(write));
        if let Some(Event { id, kind: EventKind::WriteBack { at, .. }, .. }) =
            self.trace.event(write.cause)
            && let Some(store) = self.last_store(*at, *id)
        {
            links.push(self.link(store));
            links.extend(self.causes(store));
        }
        links
    }

    fn birth_text(&self, birth: &Birth, bearing: Option<&Event>) -> String {
        let (line, key) = (birth.at.line(), birth.at.keyid());
        let rule = match bearing.map(|e| e.kind) {
            Some(EventKind::DramRead { rule, .. } | EventKind::DramWrite { rule, .. }) => {
                format!("{rule}: ")
            }
            _ => String::new(),
        };
        match birth.cause {
            BirthCause::TdMismatch => {
                format!("{rule}line {line} was read with private KeyID {key}, but its TD bit is 0")
            }
            BirthCause::MacMismatch => {
                format!("{rule}line {line} was read with KeyID {key}, and its MAC does not match")
            }
            BirthCause::SharedIntegrity => format!(
                "{rule}line {line} was read with shared KeyID {key}, which has integrity, but its \
                 TD bit is 1"
            ),
            BirthCause::PartialWrite => {
                let part = match bearing.map(|e| e.kind) {
                    Some(EventKind::DramWrite { mask, .. }) => {
                        format!("{} of the 64 bytes", mask.count())
                    }
                    _ => "some of the bytes".to_owned(),
                };
                format!(
                    "{rule}{part} of line {line} were written with KeyID {key}; its TD bit is 1 \
                     and the part has the erratum"
                )
            }
            BirthCause::UncorrectableError => {
                format!("an uncorrectable memory error hit line {line}")
            }
        }
    }

    /// The report of a birth.
    pub fn birth(&self, id: BirthId, birth: &Birth) -> BirthReport {
        let rule = self.bearing(birth).and_then(|e| match e.kind {
            EventKind::DramRead { rule, .. } | EventKind::DramWrite { rule, .. } => {
                Some(rule.to_string())
            }
            _ => None,
        });
        BirthReport {
            birth: id.0.get(),
            line: birth.at.line().to_string(),
            keyid: birth.at.keyid().0,
            cause: cause_name(birth.cause).to_owned(),
            rule,
            born_ps: birth.born.0,
            locations: birth.locations,
            chain: self.birth_chain(birth),
        }
    }

    /// The reports of the first births.
    pub fn births(&self) -> Vec<BirthReport> {
        let ids = (1u32..).filter_map(|n| std::num::NonZeroU32::new(n).map(BirthId));
        let births = self.trace.births().iter().zip(ids).take(BIRTHS_MAX);
        births.map(|(birth, id)| self.birth(id, birth)).collect()
    }

    /// What happened to the lines of [`Story::births`], in the order of their first births.
    pub fn lines(&self) -> Vec<LineReport> {
        let mut lines: Vec<Line> = Vec::new();
        for birth in self.trace.births().iter().take(BIRTHS_MAX) {
            if !lines.contains(&birth.at.line()) {
                lines.push(birth.at.line());
            }
        }
        lines.into_iter().map(|line| self.history(line)).collect()
    }

    /// The reports of the first machine checks. `grade` puts Linux's grade in words.
    pub fn machine_checks(
        &self,
        mut grade: impl FnMut(&McRecord) -> Option<String>,
    ) -> Vec<MachineCheckReport> {
        self.events()
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::MachineCheck(record) => Some((event, record)),
                _ => None,
            })
            .take(MACHINE_CHECKS_MAX)
            .map(|(event, record)| {
                let consequence = self.events()[event.id.0 as usize..]
                    .iter()
                    .find_map(|e| match e.kind {
                        EventKind::Consequence(c) if e.cause == event.id => Some(c.to_string()),
                        _ => None,
                    })
                    .unwrap_or_default();
                let mut chain = self.causes(event);
                if let Some(birth) = self.trace.birth(record.birth) {
                    // The operation that consumed may be the one that bore: it is named once.
                    for link in self.birth_chain(birth) {
                        if link.step.is_none() || !chain.contains(&link) {
                            chain.push(link);
                        }
                    }
                }
                MachineCheckReport {
                    core: record.core,
                    bank: record.bank,
                    status: format!("{:#018x}", record.status.0),
                    addr: format!("{:#x}", record.addr),
                    misc: format!("{:#x}", record.misc),
                    mcg_status: format!("{:#x}", record.mcg.0),
                    class: record.class(),
                    consequence,
                    grade: grade(&record),
                    at_ps: event.at.0,
                    birth: record.birth.0.get(),
                    chain,
                }
            })
            .collect()
    }

    /// Entries into TDs, exits from them, and the end of TDX.
    pub fn td_events(&self, caller: &Caller<'_>) -> Vec<TdEventReport> {
        let tell = |event: &Event| {
            let (what, core, vcpu, status) = match event.kind {
                EventKind::TdEnter { core, vcpu, .. } => ("enter", core, Some(vcpu), None),
                EventKind::TdExit { core, vcpu, status } => {
                    ("exit", core, Some(vcpu), Some(status))
                }
                EventKind::TdxDisabled { core } => ("tdx-disabled", core, None, None),
                _ => return None,
            };
            Some(TdEventReport {
                at_ps: event.at.0,
                step: self.root(event).map(|label| label.step.clone()),
                what: what.to_owned(),
                core,
                vcpu: vcpu.map(|page| caller.register("tdvpr", page.hpa().0, true)),
                status: status.map(|s| format!("{:#018x}", s.0)),
                status_name: status.map(|s| s.to_string()),
            })
        };
        self.events().iter().filter_map(tell).take(TD_EVENTS_MAX).collect()
    }

    /// What the controllers logged.
    pub fn ucna(&self) -> Vec<UcnaReport> {
        self.events()
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::Ucna(u) => Some(UcnaReport {
                    bank: u.bank,
                    status: format!("{:#018x}", u.status.0),
                    addr: format!("{:#x}", u.addr),
                    cmci: u.cmci,
                    birth: u.birth.0.get(),
                }),
                _ => None,
            })
            .collect()
    }

    /// What happened to a line at its controller.
    fn history(&self, line: Line) -> LineReport {
        let places = self.by_line.get(&line).map_or(&[][..], Vec::as_slice);
        let mut rows = Vec::new();
        for event in places.iter().take(HISTORY_MAX).filter_map(|p| self.events().get(*p)) {
            let step = || self.root(event).map(|l| l.step.clone());
            let row =
                |what: String, rule: Option<String>, key: KeyId, state: &LineState| HistoryRow {
                    at_ps: event.at.0,
                    step: step(),
                    what,
                    rule,
                    keyid: Some(key.0),
                    td: Some(state.td),
                    mac: Some(state.mac),
                    poison: Some(state.poison.is_some()),
                };
            match event.kind {
                EventKind::DramRead { at, rule, after, .. } if at.line() == line => {
                    rows.push(row("read".to_owned(), Some(rule.to_string()), at.keyid(), &after));
                }
                EventKind::DramWrite { at, mask, rule, after, .. } if at.line() == line => {
                    let what = if mask.is_full() {
                        "write".to_owned()
                    } else {
                        format!("write {} of 64", mask.count())
                    };
                    rows.push(row(what, Some(rule.to_string()), at.keyid(), &after));
                }
                EventKind::DramWritePage { page, keyid, lines, rule }
                    if line.page() == page && lines >> line.index_in_page() & 1 != 0 =>
                {
                    rows.push(HistoryRow {
                        at_ps: event.at.0,
                        step: step(),
                        what: "write with page".to_owned(),
                        rule: Some(rule.to_string()),
                        keyid: Some(keyid.0),
                        td: None,
                        mac: None,
                        poison: Some(false),
                    });
                }
                EventKind::Tampered { line: tampered, .. } if tampered == line => {
                    rows.push(HistoryRow {
                        at_ps: event.at.0,
                        step: step(),
                        what: describe(&event.kind),
                        rule: None,
                        keyid: None,
                        td: None,
                        mac: None,
                        poison: None,
                    });
                }
                _ => {}
            }
        }
        let omitted = places.len().saturating_sub(HISTORY_MAX) as u64;
        LineReport { line: line.to_string(), history: rows, omitted }
    }
}

/// A short name of a birth's cause.
pub(super) const fn cause_name(cause: BirthCause) -> &'static str {
    match cause {
        BirthCause::TdMismatch => "td-mismatch",
        BirthCause::MacMismatch => "mac-mismatch",
        BirthCause::SharedIntegrity => "shared-integrity",
        BirthCause::PartialWrite => "partial-write",
        BirthCause::UncorrectableError => "uncorrectable-error",
    }
}

const fn why_text(why: Why) -> &'static str {
    match why {
        Why::Capacity => "to make room",
        Why::Chosen => "by the hardware's choice",
        Why::Flush => "by a flush of the line",
        Why::FlushAll => "by a flush of all caches",
        Why::Bypass => "because an access bypassed the caches",
        Why::Snoop => "because another core wanted it",
        Why::Dma => "because a device accessed it",
        Why::Full => "because it was full",
        Why::Fence => "because of a fence or locked operation",
        Why::OwnAccess => "because its core accessed the line",
        Why::Interrupt => "because of an interrupt or machine check",
        Why::Time => "in its time",
    }
}

/// A leaf by its name.
fn leaf_name(guest: bool, leaf: u16) -> String {
    if guest { GuestLeaf(leaf).to_string() } else { Leaf(leaf).to_string() }
}

/// The state of a Secure-EPT entry by its name.
fn sept_state(entry: u64) -> &'static str {
    Entry(entry).state().map_or("no state", State::name)
}

/// The state of an HKID by its name.
fn kot_state(code: u8) -> &'static str {
    KotState::from_code(code.into()).map_or("no state", KotState::name)
}

/// An event in words.
fn describe(kind: &EventKind) -> String {
    match kind {
        EventKind::Op { agent, step } => format!("operation {step} of agent {agent}"),
        EventKind::Fill { core, at, poison } => {
            let with = if poison.is_some() { " poisoned" } else { "" };
            format!("core {core} took line {} under KeyID {}{with}", at.line(), at.keyid())
        }
        EventKind::CacheStore { core, at, mask } => format!(
            "core {core} stored {} bytes into its cached copy of line {} under KeyID {}",
            mask.count(),
            at.line(),
            at.keyid()
        ),
        EventKind::WriteBack { at, why, .. } => format!(
            "the dirty copy of line {} under KeyID {} was written back {}",
            at.line(),
            at.keyid(),
            why_text(*why)
        ),
        EventKind::Dropped { at, why } => format!(
            "the clean copy of line {} under KeyID {} was dropped {}",
            at.line(),
            at.keyid(),
            why_text(*why)
        ),
        EventKind::LeftCore { core, at } => format!(
            "line {} under KeyID {} left core {core}'s caches for lack of room",
            at.line(),
            at.keyid()
        ),
        EventKind::BackInvalidate { package, line } => format!(
            "the snoop filter of package {package} let go of line {line} for lack of room, so its cores had to"
        ),
        EventKind::WcLeave { core, at, mask, why } => format!(
            "core {core}'s write-combining buffer for line {} left with {} of 64 bytes {}",
            at.line(),
            mask.count(),
            why_text(*why)
        ),
        EventKind::WeakDone { core, at, kind, why } => {
            let name = match kind {
                WeakKind::Movdir64b => "MOVDIR64B",
                WeakKind::Movdiri => "MOVDIRI",
                WeakKind::Clflushopt => "CLFLUSHOPT",
                WeakKind::Clwb => "CLWB",
            };
            format!("core {core}'s {name} to line {} became visible {}", at.line(), why_text(*why))
        }
        EventKind::DramRead { at, rule, .. } => {
            format!("{rule}: line {} was read with KeyID {}", at.line(), at.keyid())
        }
        EventKind::DramWrite { at, mask, rule, after, .. } => {
            let how = if mask.is_full() {
                "written whole".to_owned()
            } else {
                format!("written in part ({} of 64 bytes)", mask.count())
            };
            format!(
                "{rule}: line {} was {how} with KeyID {}, which left TD bit {}",
                at.line(),
                at.keyid(),
                u8::from(after.td)
            )
        }
        EventKind::DramWritePage { page, keyid, lines, rule } => format!(
            "{rule}: {} lines of page {page} were written whole with KeyID {keyid}",
            lines.count_ones()
        ),
        EventKind::Birth { birth, at, cause } => {
            format!("poison {} was born in line {} ({})", birth.0, at.line(), cause_name(*cause))
        }
        EventKind::PoisonCopied { birth, .. } => format!("poison {} spread", birth.0),
        EventKind::PoisonGone { birth, .. } => format!("poison {} was overwritten", birth.0),
        EventKind::Ucna(u) => format!("bank {} logged UCNA {:#018x}", u.bank, u.status.0),
        EventKind::MachineCheck(r) => format!("machine check on core {}", r.core),
        EventKind::Consequence(c) => c.to_string(),
        EventKind::Pconfig { keyid, .. } => format!("PCONFIG programmed KeyID {keyid}"),
        EventKind::Tampered { line, how } => match how {
            Tamper::FlipBit(bit) => format!("ciphertext bit {bit} of line {line} was flipped"),
            Tamper::FlipTd => format!("the TD bit of line {line} was flipped"),
            Tamper::Moved(from) => format!("line {from} was copied over line {line}"),
            Tamper::Replayed => format!("an old content of line {line} was put back"),
        },
        EventKind::Call { core, guest, leaf } => {
            format!("{} reached the module on core {core}", leaf_name(*guest, *leaf))
        }
        EventKind::Returned { core, guest, leaf, status } => {
            format!("{} returned {status} on core {core}", leaf_name(*guest, *leaf))
        }
        EventKind::TdEnter { core, td, vcpu } => {
            format!("core {core} entered VCPU {} of TD {}", vcpu.hpa(), td.hpa())
        }
        EventKind::TdExit { core, vcpu, status } => {
            format!("core {core} left VCPU {}: {status}", vcpu.hpa())
        }
        EventKind::Pamt { page, level, before, after, owner } => format!(
            "the PAMT entry of page {} at level {level} went from {before} to {after}, owner {}",
            page.hpa(),
            owner.hpa()
        ),
        EventKind::Sept { td, table, index, before, after } => format!(
            "Secure-EPT entry {index} of page {} of TD {} went from {} to {}",
            table.hpa(),
            td.hpa(),
            sept_state(*before),
            sept_state(*after)
        ),
        EventKind::Kot { keyid, before, after } => {
            format!("HKID {keyid} went from {} to {}", kot_state(*before), kot_state(*after))
        }
        EventKind::TdxDisabled { core } => {
            format!("core {core} went into unbreakable shutdown: TDX is disabled")
        }
    }
}
