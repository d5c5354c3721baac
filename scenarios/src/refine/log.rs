//! The machine's log, read as choices to make on the reference and requests to compare.

use sim_core::event::{Event, EventKind, LineState, Rule, WeakKind, Why};
use sim_core::{BirthId, ByteMask, Tagged};
use std::collections::VecDeque;
use std::fmt;
use verify::reference::{Choice, Place, Progress, Reference};

/// What the machine chose, until it has been made on the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// All copies go; written back if `dirty`.
    Leave { at: Tagged, dirty: bool },
    /// The dirty copy is written back; copies stay.
    Clean { at: Tagged },
    /// As [`Want::Clean`], by a flush of this package.
    Flushed { at: Tagged, package: u8 },
    /// A core's copy goes to the LLC of its package, from where it may go on.
    Sink { core: u16, at: Tagged },
    /// A write-combining buffer leaves.
    Buffer { core: u16, at: Tagged },
    /// The oldest weakly ordered operation of that kind on the line becomes visible.
    Weak { core: u16, at: Tagged, kind: WeakKind },
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Leave { at, dirty: true } => write!(f, "evicts modified {at}"),
            Want::Leave { at, dirty: false } => write!(f, "drops clean {at}"),
            Want::Clean { at } => write!(f, "writes {at} back"),
            Want::Flushed { at, package } => {
                write!(f, "writes {at} back in a flush of package {package}")
            }
            Want::Sink { core, at } => write!(f, "lets {at} leave core {core}"),
            Want::Buffer { core, at } => {
                write!(f, "lets core {core}'s write-combining buffer for {at} leave")
            }
            Want::Weak { core, at, kind } => {
                write!(f, "lets core {core}'s {kind:?} on {at} become visible")
            }
        }
    }
}

/// A choice at its place: after so many requests and stores of the transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    requests: usize,
    stores: usize,
    pub(super) want: Want,
}

/// A request at the controller, as both sides have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seal {
    pub(super) at: Tagged,
    /// `None` for a read.
    pub(super) mask: Option<ByteMask>,
    pub(super) rule: Rule,
    /// Before and after, where the log has them.
    pub(super) states: Option<(LineState, LineState)>,
}

/// What the log says of one transition, or of what happened between two.
#[derive(Default)]
pub(super) struct Record {
    pub(super) choices: VecDeque<Due>,
    pub(super) requests: Vec<Seal>,
    pub(super) ucna: Vec<BirthId>,
    /// The (line, KeyID)s that it names.
    pub(super) tags: Vec<Tagged>,
}

impl Record {
    /// Whether it says nothing that has to be replayed.
    pub(super) fn is_empty(&self) -> bool {
        self.choices.is_empty() && self.requests.is_empty() && self.ucna.is_empty()
    }

    /// Reads a stretch of the log: choices, and requests to be compared. Whatever else the log has is a consequence that the
    /// reference must come to by itself. `core` is where the transition was made, in `package`; `is_operation` says of an
    /// event whether it is that of an operation.
    pub(super) fn read(
        events: &[Event],
        core: u16,
        package: u8,
        is_operation: impl Fn(sim_core::EventId) -> bool,
    ) -> Record {
        // In functional mode 64 direct stores to a page are one event, which follows what they displace.
        let page_at_once = events.iter().any(|e| matches!(e.kind, EventKind::DramWritePage { .. }));
        let mut out = Record::default();
        let mut stores = 0;
        for event in events {
            let requests = out.requests.len();
            // What the page displaces, not what a buffer displaces that leaves before or after.
            let displaced = page_at_once && is_operation(event.cause);
            let mut choose = |want: Want| out.choices.push_back(Due { requests, stores, want });
            match event.kind {
                EventKind::CacheStore { .. } => stores += 1,
                EventKind::WriteBack { at, why, kept } => match why {
                    Why::Capacity if kept => choose(Want::Clean { at }),
                    Why::Capacity => choose(Want::Leave { at, dirty: true }),
                    // Whether a dirty line is shared across packages is the reference's `Choice::WriteBack`.
                    Why::Snoop => choose(Want::Clean { at }),
                    // The order is hardware's (architecture.md §13 MC-12), the extent is not.
                    Why::FlushAll => choose(Want::Flushed { at, package }),
                    Why::Bypass if displaced => choose(Want::Leave { at, dirty: true }),
                    _ => {}
                },
                EventKind::Dropped { at, why } => match why {
                    Why::Capacity => choose(Want::Leave { at, dirty: false }),
                    Why::Bypass if displaced => choose(Want::Leave { at, dirty: false }),
                    _ => {}
                },
                EventKind::LeftCore { core, at } => choose(Want::Sink { core, at }),
                EventKind::WcLeave { core, at, why, .. } => match why {
                    // In which order a drain lets go is hardware's choice, also between buffers and weak operations.
                    Why::Time | Why::Fence | Why::Interrupt => choose(Want::Buffer { core, at }),
                    Why::OwnAccess if page_at_once => choose(Want::Buffer { core, at }),
                    _ => {}
                },
                EventKind::WeakDone { core, at, kind, why } => match why {
                    Why::Time | Why::Fence | Why::Interrupt | Why::Capacity => {
                        choose(Want::Weak { core, at, kind });
                    }
                    Why::OwnAccess if page_at_once => choose(Want::Weak { core, at, kind }),
                    _ => {}
                },
                EventKind::DramRead { at, rule, before, after } => {
                    let states = Some((before, after));
                    out.requests.push(Seal { at, mask: None, rule, states });
                }
                EventKind::DramWrite { at, mask, rule, before, after } => {
                    let states = Some((before, after));
                    out.requests.push(Seal { at, mask: Some(mask), rule, states });
                }
                EventKind::DramWritePage { page, keyid, lines, rule } => {
                    for i in (0..sim_core::LINES_PER_PAGE).filter(|i| lines >> i & 1 != 0) {
                        let (at, requests) = (Tagged::new(page.line(i), keyid), out.requests.len());
                        let want = Want::Weak { core, at, kind: WeakKind::Movdir64b };
                        out.choices.push_back(Due { requests, stores, want });
                        let mask = Some(ByteMask::FULL);
                        out.requests.push(Seal { at, mask, rule, states: None });
                    }
                }
                EventKind::Ucna(record) => out.ucna.push(record.birth),
                _ => {}
            }
        }
        out.tags.extend(out.requests.iter().map(|r| r.at));
        out.tags.extend(out.choices.iter().map(|c| c.want.at()));
        out
    }
}

impl Want {
    const fn at(&self) -> Tagged {
        match *self {
            Want::Leave { at, .. }
            | Want::Clean { at }
            | Want::Flushed { at, .. }
            | Want::Sink { at, .. }
            | Want::Buffer { at, .. }
            | Want::Weak { at, .. } => at,
        }
    }
}

/// The next choice whose place has come and that can be made. One that cannot be made yet waits: what it is about (a weakly
/// ordered operation of the line just posted, say) may come with the operation's next line. `flushed` says which lines the
/// operation flushes, `first` is the first line of a cached access to two: what the second displaces of it leaves after it
/// was accessed, although no request and no store may tell.
pub(super) fn next_choice(
    choices: &mut VecDeque<Due>,
    model: &Reference,
    progress: Progress,
    flushed: impl Fn(Tagged) -> bool,
    first: Option<Tagged>,
) -> Option<Choice> {
    let due = choices.front()?;
    let displaced = matches!(due.want, Want::Sink { .. } | Want::Leave { .. } | Want::Clean { .. });
    if displaced && first == Some(due.want.at()) && progress.asked == 0 {
        return None;
    }
    let come = due.requests <= progress.requests && due.stores <= progress.stores;
    if !come && !progress.over {
        return None;
    }
    let modified = |at| model.copies(at).find(|(_, c)| c.state.is_dirty()).map(|(place, _)| place);
    let mut last = true;
    let choice = match due.want {
        Want::Leave { at, dirty } => {
            let duty = modified(at);
            if duty.is_some() != dirty {
                return None;
            }
            // The modified copy goes last, so that it is known to the end what the line was.
            let clean = model.copies(at).map(|(place, _)| place).find(|p| Some(*p) != duty);
            last = model.copies(at).count() == 1;
            Choice::Evict(clean.or(duty)?, at)
        }
        Want::Clean { at } => Choice::WriteBack(modified(at)?, at),
        Want::Flushed { at, package } => {
            let place = modified(at)?;
            let there = match place {
                Place::Core(core) => model.spec.package_of(core),
                Place::Llc(package) => package,
            };
            if there != package || !flushed(at) {
                return None;
            }
            Choice::WriteBack(place, at)
        }
        Want::Sink { core, at } => {
            model.copies(at).find(|(place, _)| *place == Place::Core(core))?;
            Choice::ToLlc(core, at)
        }
        Want::Buffer { core, at } => {
            let held = model.state().pending.get(&core)?;
            held.wc.iter().find(|b| b.at == at)?;
            Choice::WcLeave(core, at)
        }
        Want::Weak { core, at, kind } => {
            let held = model.state().pending.get(&core)?;
            let index = held.weak.iter().position(|w| w.at == at && w.kind == kind)?;
            Choice::WeakComplete(core, index)
        }
    };
    if last {
        choices.pop_front();
    }
    Some(choice)
}
