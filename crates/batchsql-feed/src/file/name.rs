//! Owns whether the name of a file still leads to it while it is open.
//! Must not know its content.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// Whether the name of a file that is read up to here leads to another file, or the file is shorter.
pub(super) fn is_other(file: &File, path: &Path, read: u64) -> io::Result<bool> {
    let open = file.metadata()?;
    let named = match path.metadata() {
        // It was moved away: there may be a new one soon.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(open.len() < read),
        named => named?,
    };
    Ok(identity(&named) != identity(&open) || open.len() < read)
}

/// Names an open file while it is open.
#[cfg(unix)]
pub(super) fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

/// A file that is open cannot be replaced, only truncated.
#[cfg(not(unix))]
pub(super) fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}
