//! Owns files that get their name when they are complete and on disk: an error leaves nothing, and never a part of one.
//! Must not know what is in them.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use batchsql::small_file::sync_folder;

use crate::private_file;

/// Names that are tried for a file without its name; those of other programs are taken.
const TRIES: u32 = 100;

/// A file in the folder of its later name, for its owner only. It is locked, so that others know that it is not abandoned, and
/// removed when this is dropped.
#[derive(Debug)]
pub(crate) struct DraftFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl DraftFile {
    /// Makes it empty, as `NAME.PROCESS-NUMBER.tmp`. Only a kill leaves it there, until the next one for this name is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        remove_abandoned(path);
        let process = std::process::id();
        for number in 0..TRIES {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(format!(".{process}-{number}.tmp"));
            let temporary = PathBuf::from(temporary);
            match private_file::open(OpenOptions::new().write(true).create_new(true), &temporary) {
                Ok(file) if is_ours(&file, &temporary)? => {
                    return Ok(Self { path: path.to_owned(), temporary, file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let text =
            format!("there are {TRIES} files {}.{process}-*.tmp; remove those of killed programs", path.display());
        Err(io::Error::other(text))
    }

    /// Makes it as `NAME.tmp`, for a caller that is the only one to make this file. What a kill has left of it is replaced.
    ///
    /// # Errors
    /// It cannot be made or locked.
    pub(crate) fn create_alone(path: &Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = private_file::open(OpenOptions::new().write(true).create(true).truncate(true), &temporary)?;
        let draft = Self { path: path.to_owned(), temporary, file };
        draft.file.try_lock()?;
        Ok(draft)
    }

    /// As [`create`](Self::create), for a name that is free.
    ///
    /// # Errors
    /// `AlreadyExists`: it is not free. Or it cannot be made.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        if is_taken(path)? { Err(ErrorKind::AlreadyExists.into()) } else { Self::create(path) }
    }

    /// Gives it its name, when it is on disk.
    ///
    /// # Errors
    /// `AlreadyExists`: somebody has made a file with the name meanwhile; it stays. Or the disk refuses it: then nothing has the name.
    pub(crate) fn publish(self) -> io::Result<()> {
        self.publish_by(sync_folder)
    }

    fn publish_by(mut self, sync_folder: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        self.file.sync_all()?;
        match fs::hard_link(&self.temporary, &self.path) {
            // The other name goes when this is dropped.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
            // File systems without links, for example FAT.
            Err(_) if is_taken(&self.path)? => return Err(ErrorKind::AlreadyExists.into()),
            Err(_) => self.rename()?,
        }
        sync_folder(&self.path).inspect_err(|_| {
            let _ = fs::remove_file(&self.path);
        })
    }

    /// As [`publish`](Self::publish), in place of a file that has the name. The file is still locked.
    ///
    /// # Errors
    /// The disk refuses it.
    pub(crate) fn replace(mut self) -> io::Result<File> {
        // Its lock is that of all copies.
        let file = self.file.try_clone()?;
        self.file.sync_all()?;
        self.rename()?;
        sync_folder(&self.path)?;
        Ok(file)
    }

    fn rename(&mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        // From now on another process may have it.
        self.temporary = PathBuf::new();
        Ok(())
    }
}

impl Write for DraftFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Locks a file that was just made. False: somebody has taken it for an abandoned one before.
fn is_ours(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => is_taken(path),
        Err(TryLockError::WouldBlock) => Ok(false),
        // A file system without locks: nobody can take it for an abandoned one.
        Err(TryLockError::Error(_)) => Ok(true),
    }
}

/// Removes the files for this name that killed programs have left. Their processes are not asked for: in a container each has the
/// same number. What cannot be removed stays.
pub(crate) fn remove_abandoned(path: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(folder_of(path))) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_temporary(&entry.file_name(), name) {
            continue;
        }
        let temporary = entry.path();
        // The lock is held until the file is gone.
        let Ok(file) = OpenOptions::new().write(true).open(&temporary) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(&temporary);
        }
    }
}

/// Whether it is `NAME.PROCESS-NUMBER.tmp`.
fn is_temporary(file: &OsStr, name: &OsStr) -> bool {
    let rest = file.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
    let numbers = rest.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".tmp"));
    numbers.is_some_and(|numbers| {
        let mut parts = numbers.split(|byte| *byte == b'-');
        let mut is_number = || parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
        is_number() && is_number() && parts.next().is_none()
    })
}

/// Whether something has the name, also a link to nothing.
fn is_taken(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut dropped = DraftFile::create_new(&path).unwrap();
        dropped.write_all(b"a part").unwrap();
        assert!(!path.exists() && names(folder.path()).len() == 1);
        drop(dropped);
        assert_eq!(names(folder.path()), Vec::<String>::new());

        // One that is being written stays, also with the same number of the process.
        let other = DraftFile::create(&path).unwrap();
        let mut whole = DraftFile::create_new(&path).unwrap();
        whole.write_all(b"all").unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        whole.publish().unwrap();
        drop(other);
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"all".to_vec()));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }

    /// In a container each program has the same number.
    #[test]
    fn files_of_killed_programs_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let others = ["a.1-2-3.tmp", "a.1.tmp", "a.x-1.tmp", "ab.1-0.tmp", "b.1-0.tmp"];
        others.iter().for_each(|other| fs::write(folder.path().join(other), "theirs").unwrap());
        for process in [1, std::process::id()] {
            (0..TRIES).for_each(|number| {
                fs::write(folder.path().join(format!("a.{process}-{number}.tmp")), "a value").unwrap();
            });
        }
        let draft = DraftFile::create(&path).unwrap();
        assert_eq!(names(folder.path()).len(), others.len() + 1);
        remove_abandoned(&path);
        assert!(draft.temporary.exists(), "it is in use");
        drop(draft);
        assert_eq!(names(folder.path()), others);
    }

    #[test]
    fn a_file_whose_name_may_not_be_on_disk_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let draft = DraftFile::create_new(&path).unwrap();
        let failing = |path: &Path| {
            assert!(path.exists());
            Err(io::Error::other("the disk fails"))
        };
        assert_eq!(draft.publish_by(failing).unwrap_err().to_string(), "the disk fails");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone_unless_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut late = DraftFile::create_new(&path).unwrap();
        late.write_all(b"new").unwrap();
        fs::write(&path, "old").unwrap();
        assert_eq!(DraftFile::create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(late.publish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"old".to_vec()));
        let mut new = DraftFile::create(&path).unwrap();
        new.write_all(b"new").unwrap();
        new.replace().unwrap();
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"new".to_vec()));
        // A link to nothing has the name too.
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert_eq!(DraftFile::create_new(&link).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
    }
}
