//! Owns what `dead-letters list` and `show` say about a file besides its letters: which of them were replayed, which lines
//! cannot be read, and an unfinished end.
//! Must not know what a letter is.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use batchsql::ReplayMark;

use crate::exit::Exit;

/// The mark next to a file, or why it is of no use.
pub(super) struct Marked(Result<ReplayMark, String>);

/// # Errors
/// The file or its mark cannot be read.
pub(super) fn look(letters: &Path) -> io::Result<Marked> {
    match ReplayMark::look(letters) {
        Ok(mark) => Ok(Marked(Ok(mark))),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Marked(Err(error.to_string()))),
        Err(error) => Err(error),
    }
}

impl Marked {
    /// Whether the letter that begins there was replayed.
    pub(super) fn has_passed(&self, position: u64) -> bool {
        self.0.as_ref().is_ok_and(|mark| mark.has_passed(position))
    }

    /// Says how many letters were replayed, or why that is not known.
    pub(super) fn print(&self, out: &mut impl Write, replayed: u64, what: &str) {
        let _ = match &self.0 {
            Ok(_) if replayed == 0 => Ok(()),
            Ok(mark) => {
                let mark = mark.path().display();
                writeln!(out, "{replayed:>8}  of them were {what}, and are not tried again ({mark})")
            }
            Err(error) => writeln!(out, "{error}"),
        };
    }
}

/// Lines that cannot be read.
#[derive(Default)]
pub(super) struct Broken {
    lines: u64,
    /// Where the first one begins, and why.
    first: Option<(u64, String)>,
}

impl Broken {
    pub(super) fn add(&mut self, position: u64, reason: impl ToString) {
        self.lines += 1;
        self.first.get_or_insert_with(|| (position, reason.to_string()));
    }

    /// Says how many there are, and why the first one.
    pub(super) fn print(&self, out: &mut impl Write) -> Exit {
        let Some((position, reason)) = &self.first else { return Exit::Done };
        let _ = writeln!(out, "{:>8}  lines cannot be read; the first is at byte {position}: {reason}", self.lines);
        Exit::Failed
    }
}

/// Says that the file ends within a line.
pub(super) fn print_unfinished(out: &mut impl Write, position: Option<u64>) {
    if let Some(position) = position {
        let _ = writeln!(
            out,
            "byte {position}: the last line is not complete, and is not counted: it is being written, or was cut off"
        );
    }
}
