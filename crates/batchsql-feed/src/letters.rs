//! Owns the file of rejected rows, which has a row before the row is settled.
//! Must not know why rows are rejected.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use batchsql_core::small_file::sync_folder;

/// A file of rejected rows, as lines of JSON. It is synced before a rejected row counts as ended. Each line has an `id` that is
/// unique for the row; a row may have several lines with one id. A file
/// that was moved away, for example to be rotated, is made again.
#[derive(Debug)]
pub struct Letters {
    path: PathBuf,
    /// `None` after an error: what was written is not known then, so it is opened again.
    file: Mutex<Option<File>>,
}

impl Letters {
    /// Opens the file, and makes its name durable. Blocks the thread.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(Some(file)) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends lines, each with its line feed, and returns when they are on disk. Blocks the thread. After an error the lines may
    /// be there in part, and are given again: a line may be there twice.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn append(&self, lines: &str) -> io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that was moved away, for example to be rotated, is left as it is.
        let mut file = match slot.take().filter(|file| is_current(file, &self.path)) {
            Some(file) => file,
            None => open(&self.path)?,
        };
        file.write_all(lines.as_bytes())?;
        file.sync_data()?;
        *slot = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // It has values of rows, so a new one is private.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.read(true).append(true).create(true).open(path)?;
    if ends_within_a_line(&mut file)? {
        // Otherwise the next line could not be read either. The row of the torn line was not settled.
        file.write_all(b"\n")?;
    }
    // Also a file that exists: who made it may have ended before its name was on disk.
    file.sync_all()?;
    sync_folder(path)?;
    Ok(file)
}

/// Whether the last line was cut off, by an error or by the end of a process.
fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(unix)]
fn is_current(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |file: &std::fs::Metadata| (file.dev(), file.ino());
    matches!((path.metadata(), file.metadata()), (Ok(named), Ok(open)) if identity(&named) == identity(&open))
}

#[cfg(not(unix))]
fn is_current(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letters");
        let letters = Letters::open(&path).unwrap();
        letters.append("one\n").unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        letters.append("two\n").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    #[cfg(unix)]
    fn a_new_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letters");
        Letters::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_take_the_next_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letters");
        Letters::open(&path).unwrap().append("one\n").unwrap();
        std::fs::write(&path, "one\ntw").unwrap();
        let letters = Letters::open(&path).unwrap();
        letters.append("two\n").unwrap();
        letters.append("three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let letters = Letters::open(&folder.join("letters")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(letters.append("one\n").is_err());
        std::fs::create_dir(&folder).unwrap();
        letters.append("one\n").unwrap();
        assert!(std::fs::read_to_string(folder.join("letters")).unwrap().ends_with("one\n"));
    }
}
