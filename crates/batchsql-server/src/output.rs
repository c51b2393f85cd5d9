//! Owns standard output and standard error: what becomes of text that cannot be written there. In this program `println!` and
//! `eprintln!` are the macros of this file, because those of the standard library panic then.
//! Must not know what is written.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, StdoutLock, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::exit::Exit;

/// A line to standard output; see [`Output`].
macro_rules! println {
    ($($part:tt)+) => { $crate::output::line(format_args!($($part)+)) };
}

/// A line to standard error. It is lost if it cannot be written.
macro_rules! eprintln {
    ($($part:tt)+) => { $crate::output::error_line(format_args!($($part)+)) };
}

/// Why nothing more is written to standard output.
static OVER: OnceLock<io::Error> = OnceLock::new();

/// Whether errors are lines of a log in JSON.
static HAS_JSON: AtomicBool = AtomicBool::new(false);

/// Standard output. A write never fails: when one of the process has failed, the rest is left out, the command goes on, and
/// [`exit`] says it.
pub(crate) struct Output(StdoutLock<'static>);

impl Output {
    pub(crate) fn lock() -> Self {
        Self(io::stdout().lock())
    }

    /// Whether nothing more is written.
    pub(crate) fn is_over() -> bool {
        OVER.get().is_some()
    }

    fn note<T>(written: io::Result<T>) {
        if let Err(error) = written {
            let _ = OVER.set(error);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !Self::is_over() {
            Self::note(self.0.write_all(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !Self::is_over() {
            Self::note(self.0.flush());
        }
        Ok(())
    }
}

pub(crate) fn line(text: Arguments<'_>) {
    let _ = writeln!(Output::lock(), "{text}");
}

pub(crate) fn error_line(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// From now on errors are lines of a log in JSON.
pub(crate) fn errors_in_json() {
    HAS_JSON.store(true, Ordering::Relaxed);
}

/// Why a command ends: a line of the log if that is in JSON, whatever its level is, and text otherwise.
pub(crate) fn error(text: &str) {
    if HAS_JSON.load(Ordering::Relaxed) {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let line = serde_json::json!({ "timestamp": time, "level": "ERROR", "message": text, "target": "batchsql" });
        eprintln!("{line}");
    } else {
        eprintln!("{} {text}", console::style("error:").for_stderr().red().bold());
    }
}

/// Notes how something else has written to standard output.
pub(crate) fn note(written: io::Result<()>) {
    Output::note(written);
}

/// How a command ends that has ended so: output that it was asked for and that could not be written is like a file that could not
/// be used. Whoever closes a pipe has read enough, which is no error.
pub(crate) fn exit(ended: Exit) -> Exit {
    let _ = Output::lock().flush();
    match OVER.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            self::error(&format!("standard output cannot be written: {error}; a part of the output is missing"));
            if ended == Exit::Done { Exit::Unavailable } else { ended }
        }
        _ => ended,
    }
}
