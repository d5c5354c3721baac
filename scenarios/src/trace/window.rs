//! What was read of the input and not used yet, in one piece.

use std::io::{ErrorKind, Read};

/// Bytes of the buffer. Twice the longest line and the longest packet, so that either always fits; small enough for the
/// host's second-level cache.
pub(super) const BUFFER_BYTES: usize = 128 << 10;

/// Why no more can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// The end of the input.
    End,
    /// The input failed.
    Failed {
        /// What the input said.
        text: String,
        /// Whether it ended too soon, as packed data do.
        at_end: bool,
    },
}

/// A buffer over an input, whose unused bytes always lie in one piece.
#[derive(Debug)]
pub(super) struct Window<R> {
    input: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the input before `buffer`.
    before: u64,
    over: Option<Over>,
}

impl<R> Window<R> {
    pub(super) fn new(input: R) -> Window<R> {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Window { input, buffer, start: 0, end: 0, before: 0, over: None }
    }

    /// The bytes that were read and not used.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes so many of them away.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start, "more than is there");
        self.start += bytes;
    }

    /// How many bytes of the input were used.
    #[inline]
    pub(super) const fn used(&self) -> u64 {
        self.before + self.start as u64
    }

    /// How many bytes of the input were read.
    pub(super) const fn read(&self) -> u64 {
        self.before + self.end as u64
    }

    /// Why there is no more, once [`Window::more`] has said so.
    pub(super) const fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }
}

impl<R: Read> Window<R> {
    /// Reads on; `false` when there is no more. An end or an error is final: a growing file has no second end, and an input
    /// need not repeat an error.
    #[cold]
    pub(super) fn more(&mut self) -> bool {
        if self.over.is_some() {
            return false;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.before += self.start as u64;
        self.end -= self.start;
        self.start = 0;
        loop {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            debug_assert!(!room.is_empty(), "nobody asks for more than the buffer holds");
            match self.input.read(room) {
                Ok(0) => self.over = Some(Over::End),
                Ok(bytes) => {
                    self.end += bytes.min(room.len());
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let at_end = error.kind() == ErrorKind::UnexpectedEof;
                    self.over = Some(Over::Failed { text: error.to_string(), at_end });
                }
            }
            return false;
        }
    }

    /// Reads on until so many bytes are there or no more come; whether they are there.
    #[inline]
    pub(super) fn fill(&mut self, bytes: usize) -> bool {
        while self.end - self.start < bytes {
            if !self.more() {
                return false;
            }
        }
        true
    }
}
