//! Owns the question whether the database's file is still where it was opened.
//! Must not know SQL.
//!
//! SQLite asks it itself with a rollback journal (`SQLITE_READONLY_DBMOVED`), but not with a write-ahead log:
//! rows for a file that was deleted or replaced would be committed, and gone.

use std::path::Path;

use batchsql_core::{ErrorClass, SinkError};
use rusqlite::ffi;

/// The file that was opened, where the system tells files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|file| Self(file.dev(), file.ino()))
    }

    /// Elsewhere an open file cannot be deleted or moved.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Path) -> Option<Self> {
        None
    }
}

/// An error when another file, or none, is at `path`.
pub(crate) fn check(path: Option<&Path>, opened: Option<FileId>) -> Result<(), SinkError> {
    let (Some(path), Some(opened)) = (path, opened) else { return Ok(()) };
    if FileId::of(path) == Some(opened) {
        return Ok(());
    }
    let message = "the database file was moved, deleted or replaced while it was open; put it back, or start anew";
    Err(SinkError::with_code(ErrorClass::Permission, ffi::SQLITE_READONLY_DBMOVED, message))
}
