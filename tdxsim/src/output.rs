//! Writing to stdout and stderr.

use crate::exit::Exit;
use std::io::{self, ErrorKind, Write};
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
