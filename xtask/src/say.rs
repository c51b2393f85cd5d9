//! What a verb tells a person, who may have closed the other end: `println!` would panic.
//! Must not know what is told.

use std::{fmt, io::Write};

/// `println!` for somebody who need not listen.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}

/// What [`say`] does.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    bytes(format!("{words}\n").as_bytes());
}

/// What another program said, as it is.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // Whatever is told is done also when nobody hears of it.
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
