//! Owns what the suite says to people while it runs: lines on stderr.
//! Must not know what they say.

use std::fmt::Display;
use std::io::{Write, stderr};

/// Says a line. A reader that has gone away does not turn a passed run into a failed one, as `eprintln!` would.
pub fn tell(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
