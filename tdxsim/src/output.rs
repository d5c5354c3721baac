//! Writing to stdout and stderr.

use crate::exit::Exit;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes a command's whole output. A closed pipe is not an error; anything else that keeps it from being written is.
pub fn data(text: &str, exit: Exit) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit,
        Err(error) => {
            message(&format!("cannot write to stdout: {error}"));
            exit.worse(Exit::NotWritten)
        }
    }
}

/// Writes a message. Nothing can be done if that fails.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "tdxsim: {text}");
}

/// Writes a rendered diagnostic as it is.
pub fn diagnostic(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Help and version go to stdout and succeed; wrong usage goes to stderr.
pub fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let _ = write!(io::stderr().lock(), "{}", error.render());
        return Exit::BadInput.into();
    }
    data(&error.render().to_string(), Exit::Met).into()
}

/// A file that appears whole or not at all: it is written beside its place and moved there by [`NewFile::keep`]. Dropped before
/// that, nothing is left of it. What is no regular file, /dev/null or a pipe, is written to directly.
#[derive(Debug)]
pub struct NewFile {
    out: Option<BufWriter<File>>,
    /// Where it is written, and where it goes.
    place: Option<(PathBuf, PathBuf)>,
    shown: String,
}

impl NewFile {
    /// Begins a file.
    ///
    /// # Errors
    /// A message: it cannot be created.
    pub fn create(path: &Path) -> Result<NewFile, String> {
        let shown = path.display().to_string();
        let failed = |error: io::Error| format!("cannot write {shown}: {error}");
        // Through a link to where it leads: the link stays.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let direct = fs::metadata(&target).is_ok_and(|meta| !meta.is_file());
        let (file, place) = if direct {
            (File::options().write(true).open(&target).map_err(failed)?, None)
        } else {
            let mut name = target.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".{}.part", std::process::id()));
            let part = target.with_file_name(name);
            (File::create(&part).map_err(failed)?, Some((part, target)))
        };
        Ok(NewFile { out: Some(BufWriter::with_capacity(1 << 18, file)), place, shown })
    }

    /// What went wrong, with the file's name.
    pub fn failure(&self, error: &io::Error) -> String {
        format!("cannot write {}: {error}", self.shown)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// A message: what is left could not be written, or the file not moved.
    pub fn keep(mut self) -> Result<(), String> {
        let result = match self.out.take() {
            Some(mut out) => out.flush(),
            None => Ok(()),
        };
        let result = result.and_then(|()| match &self.place {
            Some((part, target)) => fs::rename(part, target),
            None => Ok(()),
        });
        let result = result.map_err(|error| self.failure(&error));
        if result.is_ok() {
            self.place = None;
        }
        result
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().map_or(Ok(0), |out| out.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.place {
            // Nothing can be done if that fails.
            let _ = fs::remove_file(part);
        }
    }
}
