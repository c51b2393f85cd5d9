//! Owns how files are made that have values of rows: only their owner may read them.
//! Must not know what is in them.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens a file; one that it makes is private (0600 on Unix). A file that is there keeps its rights.
///
/// # Errors
/// The file cannot be opened with these options.
pub(crate) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}
