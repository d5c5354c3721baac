//! The requests of a trace: one for each line that a record touches, two for one that is read and written.

use super::drive::{Requests, Wanted};
use crate::trace::{Access, AccessKind, DramPlace, TraceError, TraceErrorKind, TraceReader, When};
use mktme::dram::{AddressMap, Kind, Organisation, Place};
use sim_core::data::ByteMask;
use sim_core::platform::DramSpec;
use sim_core::{LINE_BYTES, Line, Ps};
use std::io::Read;

/// A record of which some lines are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rest {
    kind: AccessKind,
    addr: u64,
    bytes: u64,
    due: Ps,
    behind: bool,
    /// Of a modified line: whether it has been read.
    was_read: bool,
}

/// The requests of a trace.
pub(super) struct TraceRequests<'a, R> {
    reader: &'a mut TraceReader<R>,
    /// Clock of the controller.
    tck: Ps,
    map: AddressMap,
    shape: Organisation,
    channels: u8,
    /// Whether records say how many bytes they touch.
    sized: bool,
    /// First address that the platform has not.
    end: u64,
    /// What a message calls that.
    refusal: String,
    limit: Option<u64>,
    allow_truncated: bool,
    rest: Option<Rest>,
    failed: Option<TraceError>,
    /// Records by [`AccessKind`].
    pub(super) kinds: [u64; 4],
    pub(super) truncated: bool,
}

impl<'a, R: Read> TraceRequests<'a, R> {
    pub(super) fn new(
        reader: &'a mut TraceReader<R>,
        tck: Ps,
        (map, dram): (AddressMap, &DramSpec),
        (end, refusal): (u64, String),
        limit: Option<u64>,
        allow_truncated: bool,
    ) -> TraceRequests<'a, R> {
        let (rest, kinds) = (None, [0; 4]);
        let truncated = false;
        let sized = reader.format().row().sized;
        let (shape, channels) = (Organisation::of(dram), dram.channels);
        TraceRequests {
            reader,
            tck,
            map,
            shape,
            channels,
            sized,
            end,
            refusal,
            limit,
            allow_truncated,
            rest,
            failed: None,
            kinds,
            truncated,
        }
    }

    /// The next record.
    fn record(&mut self) -> Result<Option<Rest>, TraceError> {
        if self.limit.is_some_and(|most| self.reader.records() >= most) {
            return Ok(None);
        }
        let access = match self.reader.next() {
            Ok(Some(access)) => access,
            Ok(None) => return Ok(None),
            Err(e) if self.allow_truncated && e.kind == TraceErrorKind::Truncated => {
                self.truncated = true;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Access { kind, addr, bytes, when, place, .. } = access;
        let addr = match place {
            Some(place) => self.address(place)?,
            None => addr,
        };
        let last = addr.saturating_add(u64::from(bytes).saturating_sub(1));
        if addr.max(last) >= self.end {
            return Err(self
                .reader
                .refuse(format!("address {:#x}", addr.max(last)), &self.refusal));
        }
        if let Some(count) = self.kinds.get_mut(kind as usize) {
            *count += 1;
        }
        let line = LINE_BYTES as u64;
        // Forms without sizes mean the line that holds the address.
        let (addr, bytes) =
            if self.sized { (addr, bytes.into()) } else { (addr & !(line - 1), line) };
        let (due, behind) = match when {
            // Bubbles are instructions, and there is no core.
            When::Unsaid | When::Gap(_) => (Ps::ZERO, false),
            When::Cycle(cycle) => (self.tck.times(cycle), false),
            When::Time(time) => (time, false),
            When::Delay(cycles) => (self.tck.times(cycles), true),
        };
        Ok(Some(Rest { kind, addr, bytes, due, behind, was_read: false }))
    }

    /// The address of a place in DRAM. Channels of the trace are our subchannels, two to a channel.
    #[cold]
    fn address(&mut self, place: DramPlace) -> Result<u64, TraceError> {
        let shape = self.shape;
        let DramPlace { channel, rank, bank_group, bank, row, column } = place;
        for (name, found, least) in [
            ("channel", channel, u16::from(self.channels) * 2),
            ("rank", rank, shape.ranks.into()),
            ("bank group", bank_group, shape.bank_groups.into()),
            ("bank", bank, shape.banks_per_group.into()),
        ] {
            if found >= least {
                let expected = format!("a {name} below {least}, as the platform has them");
                return Err(self.reader.refuse(format!("{name} {found}"), expected));
            }
        }
        let low = |n: u16| u8::try_from(n).unwrap_or(u8::MAX);
        let bursts = shape.lines_per_row().max(1);
        let line = self.map.encode(&Place {
            channel: low(channel / 2),
            subchannel: low(channel % 2),
            rank: low(rank),
            bank_group: low(bank_group),
            bank: low(bank),
            row: row.into(),
            column: u16::try_from(column % bursts).unwrap_or(0),
        });
        Ok(line.0.saturating_mul(LINE_BYTES as u64))
    }
}

impl<R: Read> Requests for TraceRequests<'_, R> {
    #[inline]
    fn next(&mut self) -> Option<Wanted> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => match self.record() {
                Ok(Some(rest)) => rest,
                Ok(None) => return None,
                Err(error) => {
                    self.failed = Some(error);
                    return None;
                }
            },
        };
        let line = LINE_BYTES as u64;
        let (offset, here) = (rest.addr % line, rest.bytes.min(line - rest.addr % line));
        let mask = ByteMask::span(offset as usize, here as usize);
        let store = if mask.is_full() { Kind::Write } else { Kind::PartialWrite };
        let kind = match rest.kind {
            AccessKind::Fetch | AccessKind::Load => Kind::Read,
            AccessKind::Store => store,
            AccessKind::Modify => {
                if rest.was_read {
                    store
                } else {
                    Kind::Read
                }
            }
        };
        let Rest { due, behind, .. } = rest;
        // What follows comes at once: only the first waits for what was before.
        let later = if behind { Ps::ZERO } else { due };
        let next = Rest { due: later, behind: false, was_read: false, ..rest };
        if rest.kind == AccessKind::Modify && !rest.was_read {
            self.rest = Some(Rest { was_read: true, ..next });
        } else if rest.bytes > here {
            let (addr, bytes) = (rest.addr + here, rest.bytes - here);
            self.rest = Some(Rest { addr, bytes, ..next });
        }
        Some(Wanted { line: Line(rest.addr / line), kind, mask, due, behind })
    }

    fn failure(&mut self) -> Option<TraceError> {
        self.failed.take()
    }
}
