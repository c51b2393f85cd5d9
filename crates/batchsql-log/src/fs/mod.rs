//! Owns what the log asks of a file system, so that tests can give it one that crashes.
//! Must not know segments and records.

mod real;

use std::{fmt, io, path::Path};

pub use real::RealFileSystem;

/// A file system, and the clock beside it. The log uses [`RealFileSystem`]; tests use one that loses what was not synced.
///
/// Paths are those that [`Options::new`](crate::Options::new) was given, with names of files added.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Creates a folder and those above it. An existing folder is no error.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Locks a file, which is created if it is missing, until the returned value is dropped. `None`: another process has it.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Names and lengths of the files of a folder, without its folders. A missing folder has no files.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>>;

    /// Creates a file for reading and writing. An existing file is an error.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens an existing file, for reading or for both.
    ///
    /// # Errors
    ///
    /// What the file system reports; `NotFound` if there is none.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;

    /// Renames a file, over an existing one.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names of the folder are on disk.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written; `None` if it is not known.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Milliseconds since 1970.
    fn now(&self) -> u64;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Only for reading.
    Read,
    /// For reading and writing.
    Write,
}

/// The lock of a folder. Dropping it gives the folder back.
pub trait Lock: fmt::Debug + Send + Sync {}

/// An open file.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads from `offset`; fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    ///
    /// What the file system reports. A part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when the bytes of the file and its length are on disk (`fdatasync`).
    ///
    /// # Errors
    ///
    /// What the file system reports. Afterwards it is not known what is on disk, also after a later call that succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// The length of the file.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    fn length(&self) -> io::Result<u64>;
}

/// Reads exactly as many bytes as the buffer has.
pub(crate) fn read_exact_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    match file.read_at(buffer, offset)? {
        read if read == buffer.len() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was")),
    }
}

/// Removes a file that is not complete.
pub(crate) fn remove_if_there(file_system: &dyn FileSystem, path: &Path) -> io::Result<()> {
    match file_system.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
