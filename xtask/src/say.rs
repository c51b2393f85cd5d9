//! Output of verbs; if standard output is closed, `println!` would panic.
//! Must not know the content.

use std::{fmt, io::Write};

/// `println!` that ignores a closed output.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}

/// Implements [`say`].
pub(crate) fn line(words: fmt::Arguments<'_>) {
    bytes(format!("{words}\n").as_bytes());
}

/// Prints the output of another program unchanged.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // A closed output must not stop the verb.
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
