//! Owns the question whether the database's file is still where it was opened.
//! Must not know SQL.
//!
//! SQLite asks it itself with a rollback journal (`SQLITE_READONLY_DBMOVED`), but not with a write-ahead log:
//! rows for a file that was deleted or replaced would be committed, and gone.

use std::path::{Path, PathBuf};

use batchsql_core::{ErrorClass, SinkError};
use rusqlite::ffi;

/// The file that was opened, and where.
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
    /// The file at `path`, which was opened just now; `None` where files cannot be identified.
    pub(crate) fn new(path: PathBuf) -> Option<Self> {
        let id = id_of(&path).ok()??;
        Some(Self { path, id })
    }

    /// An error when another file, or none, is at its path.
    pub(crate) fn check(&self) -> Result<(), SinkError> {
        match id_of(&self.path) {
            Ok(Some(id)) if id != self.id => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            // A failed read of the metadata (rights that were given up) says nothing about the file.
            Ok(_) | Err(_) => return Ok(()),
        }
        let message = "the database file was moved, deleted or replaced while it was open; put it back, or start anew";
        Err(SinkError::with_code(ErrorClass::Permission, ffi::SQLITE_READONLY_DBMOVED, message))
    }
}
