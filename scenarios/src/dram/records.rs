//! The requests of a trace: one for each line that a record touches, two for one that is read and written.

use super::drive::{Requests, Wanted};
use crate::trace::{Access, AccessKind, Format, TraceError, TraceErrorKind, TraceReader};
use mktme::dram::Kind;
use sim_core::data::ByteMask;
use sim_core::{LINE_BYTES, Line, Ps};
use std::io::BufRead;

/// A record of which some lines are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rest {
    kind: AccessKind,
    addr: u64,
    bytes: u64,
    due: Ps,
    /// Of a modified line: whether it has been read.
    was_read: bool,
}

/// The requests of a trace.
pub(super) struct TraceRequests<'a, R> {
    reader: &'a mut TraceReader<R>,
    /// Clock of the controller.
    tck: Ps,
    /// First address that the platform has not.
    end: u64,
    /// What a message calls that.
    refusal: String,
    limit: Option<u64>,
    allow_truncated: bool,
    rest: Option<Rest>,
    /// Records by [`AccessKind`].
    pub(super) kinds: [u64; 4],
    pub(super) truncated: bool,
}

impl<'a, R: BufRead> TraceRequests<'a, R> {
    pub(super) fn new(
        reader: &'a mut TraceReader<R>,
        tck: Ps,
        (end, refusal): (u64, String),
        limit: Option<u64>,
        allow_truncated: bool,
    ) -> TraceRequests<'a, R> {
        let (rest, kinds) = (None, [0; 4]);
        let truncated = false;
        TraceRequests { reader, tck, end, refusal, limit, allow_truncated, rest, kinds, truncated }
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
        let Access { kind, addr, bytes, cycle, .. } = access;
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
        // Formats without sizes mean the line that holds the address.
        let sized = self.reader.format() == Format::Lackey;
        let (addr, bytes) = if sized { (addr, bytes.into()) } else { (addr & !(line - 1), line) };
        let due = cycle.map_or(Ps::ZERO, |cycle| self.tck.times(cycle));
        Ok(Some(Rest { kind, addr, bytes, due, was_read: false }))
    }
}

impl<R: BufRead> Requests for TraceRequests<'_, R> {
    #[inline]
    fn next(&mut self) -> Result<Option<Wanted>, TraceError> {
        let rest = match self.rest.take() {
            Some(rest) => rest,
            None => match self.record()? {
                Some(rest) => rest,
                None => return Ok(None),
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
        if rest.kind == AccessKind::Modify && !rest.was_read {
            self.rest = Some(Rest { was_read: true, ..rest });
        } else if rest.bytes > here {
            let (addr, bytes) = (rest.addr + here, rest.bytes - here);
            self.rest = Some(Rest { addr, bytes, was_read: false, ..rest });
        }
        Ok(Some(Wanted { line: Line(rest.addr / line), kind, mask, due: rest.due }))
    }
}
