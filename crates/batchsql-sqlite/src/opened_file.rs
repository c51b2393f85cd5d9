//! Owns the check whether the database file is still at the path where it was opened.
//! Must not know SQL.
//!
//! SQLite itself checks this with a rollback journal (`SQLITE_READONLY_DBMOVED`), but not with a write-ahead
//! log: rows for a deleted or replaced file would be committed and lost.

use std::path::{Path, PathBuf};

use batchsql_core::{ErrorClass, SinkError};
use rusqlite::ffi;

/// The opened file and its path.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    id: (u64, u64),
}

/// What identifies a file. Elsewhere than on Unix an open file cannot be moved or deleted.
fn id_of(path: &Path) -> std::io::Result<Option<(u64, u64)>> {
    let file = std::fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(Some((file.dev(), file.ino())))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(None)
    }
}

impl OpenedFile {
    /// The file at `path`, which was just opened; `None` if files cannot be identified.
    pub(crate) fn new(path: PathBuf) -> Option<Self> {
        let id = id_of(&path).ok()??;
        Some(Self { path, id })
    }

    /// Returns an error if another file, or none, is at its path.
    pub(crate) fn check(&self) -> Result<(), SinkError> {
        match id_of(&self.path) {
            Ok(Some(id)) if id != self.id => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A failed read of the metadata (for example after dropping privileges) proves nothing about the
            // file.
            Ok(_) | Err(_) => return Ok(()),
        }
        let message = "the database file was moved, deleted or replaced while it was open; put it back, or restart";
        Err(SinkError::with_code(ErrorClass::Permission, ffi::SQLITE_READONLY_DBMOVED, message))
    }
}
