//! Where a trace comes from: plain text or gzip, told apart by the first two bytes.

use super::format::Format;
use super::read::{TraceError, TraceReader};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;

/// The two bytes that begin every gzip member (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 64 << 10;
const PACKED_BUFFER_BYTES: usize = 64 << 10;

/// The input with the bytes put back that were looked at.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// A buffered input that unpacks gzip.
///
/// The checksum of gzip data stands at their end: what was read before an error is reported may be damaged too.
#[derive(Debug)]
pub struct Source<R>(Kind<R>);

#[derive(Debug)]
enum Kind<R> {
    Plain(BufReader<Whole<R>>),
    Gzip(Box<BufReader<MultiGzDecoder<BufReader<Whole<R>>>>>),
}

impl<R: Read> Source<R> {
    /// Looks at the first two bytes and goes on from them as plain text or gzip.
    ///
    /// # Errors
    /// Those of reading `input`.
    pub fn new(mut input: R) -> io::Result<Source<R>> {
        let mut head = Vec::new();
        input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
        let is_gzip = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(input);
        Ok(Source(if is_gzip {
            let packed = BufReader::with_capacity(PACKED_BUFFER_BYTES, whole);
            let text = BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(packed));
            Kind::Gzip(Box::new(text))
        } else {
            Kind::Plain(BufReader::with_capacity(BUFFER_BYTES, whole))
        }))
    }

    /// Whether the input is gzip.
    pub const fn is_gzip(&self) -> bool {
        matches!(self.0, Kind::Gzip(_))
    }
}

fn gzip_error(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("gzip: {error}"))
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(text) => text.read(out),
            Kind::Gzip(text) => text.read(out).map_err(gzip_error),
        }
    }
}

impl<R: Read> BufRead for Source<R> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.0 {
            Kind::Plain(text) => text.fill_buf(),
            Kind::Gzip(text) => text.fill_buf().map_err(gzip_error),
        }
    }
    #[inline]
    fn consume(&mut self, bytes: usize) {
        match &mut self.0 {
            Kind::Plain(text) => text.consume(bytes),
            Kind::Gzip(text) => text.consume(bytes),
        }
    }
}

/// Opens a trace file, plain or gzip. See [`TraceReader::open`].
///
/// # Errors
/// [`TraceError`]: the file cannot be opened, or those of [`TraceReader::open`].
pub fn open_path(
    path: &Path,
    format: Option<Format>,
) -> Result<TraceReader<Source<File>>, TraceError> {
    let name = path.to_string_lossy();
    let file = File::open(path).map_err(|error| TraceError::input(&name, &error))?;
    open_read(&name, file, format)
}

/// Opens a trace that comes from anywhere, standard input say, plain or gzip. See [`TraceReader::open`].
///
/// # Errors
/// [`TraceError`]: those of [`TraceReader::open`].
pub fn open_read<R: Read>(
    name: &str,
    input: R,
    format: Option<Format>,
) -> Result<TraceReader<Source<R>>, TraceError> {
    let source = Source::new(input).map_err(|error| TraceError::input(name, &error))?;
    TraceReader::open(name, source, format)
}
