//! Owns the messages of the suite while it runs: lines on stderr.
//! Must not know their content.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Prints a line. Unlike `eprintln!` it does not panic if stderr is closed, so a passed run does not fail.
pub fn tell(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
