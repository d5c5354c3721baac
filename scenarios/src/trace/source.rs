//! Where a trace comes from: plain, gzip or xz, told apart by the first bytes.

use super::format::Format;
use super::read::{TraceError, TraceReader};
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::path::Path;

/// The bytes that begin every gzip member (RFC 1952 §2.3.1).
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// The bytes that begin every xz stream (The .xz File Format 1.2.1 §2.1.1.1).
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const PACKED_BUFFER_BYTES: usize = 64 << 10;

/// Memory that xz data may ask for, in KiB: `xz -9` asks for 64 MiB (xz(1)), and no preset for more. Data that ask for more
/// are refused, so that no file takes memory at will.
pub const XZ_MEMORY_KIB: u32 = 80 << 10;

/// The input with the bytes put back that were looked at.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// How an input is packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// It is not.
    Plain,
    /// gzip, of one or many members.
    Gzip,
    /// xz, of one or many streams.
    Xz,
}

/// An input that is unpacked as it is read.
///
/// The checksums of packed data stand at the end of a part: what was read before an error is reported may be damaged too.
pub struct Source<R: Read>(Kind<R>);

enum Kind<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Steady<Whole<R>>>>>),
    Xz(Box<XzReader<BufReader<Steady<Whole<R>>>>>),
}

/// An input whose every read fills the buffer, but for the last: so that the pieces in which a decoder gets packed data, and
/// with them what it has given out when it finds damage, do not depend on how the input comes, from a file or a pipe.
struct Steady<R> {
    input: R,
    /// An error behind bytes that are handed out first.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}

impl<R: Read> Source<R> {
    /// Looks at the first bytes and goes on from them.
    ///
    /// # Errors
    /// Those of reading `input`.
    pub fn new(mut input: R) -> io::Result<Source<R>> {
        let mut head = Vec::new();
        input.by_ref().take(XZ_MAGIC.len() as u64).read_to_end(&mut head)?;
        let (gzip, xz) = (head.starts_with(GZIP_MAGIC), head == XZ_MAGIC);
        let whole = Cursor::new(head).chain(input);
        let packed =
            |input| BufReader::with_capacity(PACKED_BUFFER_BYTES, Steady { input, failed: None });
        Ok(Source(if gzip {
            Kind::Gzip(Box::new(MultiGzDecoder::new(packed(whole))))
        } else if xz {
            Kind::Xz(Box::new(XzReader::new_mem_limit(packed(whole), true, XZ_MEMORY_KIB)))
        } else {
            Kind::Plain(whole)
        }))
    }

    /// How the input is packed.
    pub const fn packing(&self) -> Packing {
        match self.0 {
            Kind::Plain(_) => Packing::Plain,
            Kind::Gzip(_) => Packing::Gzip,
            Kind::Xz(_) => Packing::Xz,
        }
    }
}

impl<R: Read> fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.packing()).finish()
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let named = |name: &str, e: io::Error| io::Error::new(e.kind(), format!("{name}: {e}"));
        match &mut self.0 {
            Kind::Plain(text) => text.read(out),
            Kind::Gzip(text) => text.read(out).map_err(|e| named("gzip", e)),
            Kind::Xz(text) => text.read(out).map_err(|e| named("xz", e)),
        }
    }
}

/// Opens a trace file, plain or packed. See [`TraceReader::open`].
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

/// Opens a trace that comes from anywhere, standard input say, plain or packed. See [`TraceReader::open`].
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
