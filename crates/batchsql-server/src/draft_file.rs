//! Owns files that get their name when they are complete and on disk: an error leaves nothing, and never a part of one.
//! Must not know what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::private_file;

/// Names that are tried for a file without its name; those of killed programs are taken.
const TRIES: u32 = 100;

/// A file in the folder of its later name, for its owner only. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct DraftFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl DraftFile {
    /// Makes it empty, as `NAME.PROCESS-NUMBER.tmp`. Only a kill leaves it there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let process = std::process::id();
        for number in 0..TRIES {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(format!(".{process}-{number}.tmp"));
            let temporary = PathBuf::from(temporary);
            match private_file::open(OpenOptions::new().write(true).create_new(true), &temporary) {
                Ok(file) => return Ok(Self { path: path.to_owned(), temporary, file }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let text =
            format!("there are {TRIES} files {}.{process}-*.tmp of killed programs; remove them", path.display());
        Err(io::Error::other(text))
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
    /// `AlreadyExists`: somebody has made a file with the name meanwhile; it stays. Or the disk refuses it.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        match fs::hard_link(&self.temporary, &self.path) {
            // The other name goes when this is dropped.
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
            // File systems without links, for example FAT.
            Err(_) if is_taken(&self.path)? => return Err(ErrorKind::AlreadyExists.into()),
            Err(_) => self.rename()?,
        }
        sync_folder(&self.path)
    }

    /// As [`publish`](Self::publish), in place of a file that has the name.
    ///
    /// # Errors
    /// The disk refuses it.
    pub(crate) fn replace(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.rename()?;
        sync_folder(&self.path)
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

/// Whether something has the name, also a link to nothing.
fn is_taken(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A new name is on disk when its folder is.
///
/// # Errors
/// The disk refuses it.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
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

        // One that was killed had the same number.
        let killed = DraftFile::create(&path).unwrap();
        let mut whole = DraftFile::create_new(&path).unwrap();
        whole.write_all(b"all").unwrap();
        whole.publish().unwrap();
        drop(killed);
        assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["a".to_owned()], b"all".to_vec()));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
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
