//! Owns the mark of a replay: which file it is of, how far that was replayed, and that one process at a time replays it.
//! Must not know what a line is.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::small_file::replace_file;

/// How far a file of letters was replayed. All methods block the thread.
#[derive(Debug)]
pub struct ReplayMark {
    /// The letters. With [`open`](Self::open) it has their lock, which the system gives up after a kill.
    file: File,
    letters: PathBuf,
    path: PathBuf,
    noted: Noted,
}

/// What is in the file of the mark.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    /// Every line before this byte was replayed, or is in `failed`.
    position: u64,
    /// Where the lines start that failed.
    failed: BTreeSet<u64>,
    /// The hash of the bytes before `position`: a file that only grew has the same.
    content: u64,
}

impl ReplayMark {
    /// Where the mark of these letters is.
    pub fn path_of(letters: &Path) -> PathBuf {
        let mut path = letters.as_os_str().to_owned();
        path.push(".mark");
        path.into()
    }

    /// Locks the letters, and reads their mark. Without one nothing is replayed.
    ///
    /// # Errors
    /// Another process replays them, the mark is of another file, or one of the two cannot be read.
    pub fn open(letters: &Path, path: PathBuf) -> io::Result<Self> {
        Self::of(locked(letters)?, letters, path)
    }

    /// Reads the mark next to letters that another process may replay.
    ///
    /// # Errors
    /// The mark is of another file ([`ErrorKind::InvalidData`]), or one of the two cannot be read.
    pub fn look(letters: &Path) -> io::Result<Self> {
        Self::of(File::open(letters)?, letters, Self::path_of(letters))
    }

    fn of(file: File, letters: &Path, path: PathBuf) -> io::Result<Self> {
        let none = Noted { position: 0, failed: BTreeSet::new(), content: EMPTY };
        let mut mark = Self { file, letters: letters.to_owned(), path, noted: none };
        let noted: Noted = match fs::read(&mark.path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                let path = mark.path.display();
                let text = format!("{path} is not a mark of a replay: {error}; delete it to start anew");
                io::Error::new(ErrorKind::InvalidData, text)
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(mark),
            Err(error) => return Err(error),
        };
        let is_long_enough = match mark.advance(noted.position) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
            advanced => advanced.is_ok(),
        };
        if !is_long_enough || mark.noted.content != noted.content {
            let (path, letters) = (mark.path.display(), mark.letters.display());
            let text = format!(
                "{path} is the mark of a replay of another file, not the same file as {letters}, or this one was changed; \
                 delete the mark to replay all lines of {letters}"
            );
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        Ok(Self { noted, ..mark })
    }

    /// The file of the mark.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every line before this byte was replayed, or failed.
    pub fn position(&self) -> u64 {
        self.noted.position
    }

    /// Where the lines start that failed, in their order.
    pub fn failed(&self) -> impl Iterator<Item = u64> + '_ {
        self.noted.failed.iter().copied()
    }

    /// Whether the line that starts there was replayed.
    pub fn has_passed(&self, position: u64) -> bool {
        position < self.noted.position && !self.noted.failed.contains(&position)
    }

    /// The line that starts there was replayed, or failed.
    pub fn note(&mut self, position: u64, is_replayed: bool) {
        if is_replayed {
            self.noted.failed.remove(&position);
        } else {
            self.noted.failed.insert(position);
        }
    }

    /// All lines before this byte were replayed, or failed.
    ///
    /// # Errors
    /// The file cannot be read up to there.
    pub fn advance(&mut self, position: u64) -> io::Result<()> {
        let mut left = position.saturating_sub(self.noted.position);
        if left == 0 {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.noted.position))?;
        let mut content = self.noted.content;
        let mut part = vec![0; 64 << 10];
        while left > 0 {
            let length = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.file.read_exact(&mut part[..length])?;
            content = part[..length].iter().fold(content, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
            left -= length as u64;
        }
        (self.noted.position, self.noted.content) = (position, content);
        Ok(())
    }

    /// Replaces the mark as a whole, so that a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self) -> io::Result<()> {
        replace_file(&self.path, &serde_json::to_vec(&self.noted)?)
    }

    /// Deletes the mark, then the letters: a crash between the two leaves no mark for another file of this name. One that is not
    /// there is no error.
    ///
    /// # Errors
    /// One of them cannot be deleted, or letters came that the mark has not passed.
    pub fn delete(self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length > self.noted.position {
            let (letters, position) = (self.letters.display(), self.noted.position);
            let text = format!(
                "the lines of {letters} from byte {position} on were not replayed; replay it again, then delete it"
            );
            return Err(io::Error::other(text));
        }
        remove(&self.path)?;
        remove(&self.letters)
    }
}

/// FNV-1a with 64 bits: a hash that continues where it was, and is the same in every version. It tells files of letters apart, whose lines
/// have times and rows; nobody wants to forge one.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Deletes a file; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The letters with an exclusive lock.
#[cfg(unix)]
fn locked(letters: &Path) -> io::Result<File> {
    use std::fs::TryLockError;
    use std::os::unix::fs::MetadataExt;

    loop {
        // NFS locks only what may be written.
        let file = match OpenOptions::new().read(true).write(true).open(letters) {
            Err(error) if error.kind() != ErrorKind::NotFound => File::open(letters)?,
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!(
                    "{}: another process replays this file now; wait for its end, then run the replay again",
                    letters.display()
                );
                return Err(io::Error::new(ErrorKind::ResourceBusy, text));
            }
            Err(TryLockError::Error(error)) => {
                let letters = letters.display();
                tracing::warn!(%error, "{letters} cannot be locked here: do not replay it twice at the same time");
            }
        }
        let (opened, named) = (file.metadata()?, fs::metadata(letters)?);
        if (opened.dev(), opened.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
        // Between the two it was deleted, and another one has its name.
    }
}

/// A lock would keep this process from reading the letters by their name.
#[cfg(not(unix))]
fn locked(letters: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_content_that_may_grow() {
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("letters");
        let path = ReplayMark::path_of(&letters);
        let open = || ReplayMark::open(&letters, path.clone());
        assert_eq!(open().unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&letters, "one\ntwo\n").unwrap();
        let mut mark = open().unwrap();
        mark.advance(9).unwrap_err();
        mark.advance(4).unwrap();
        mark.note(0, false);
        mark.advance(8).unwrap();
        mark.write().unwrap();
        drop(mark);
        fs::write(&letters, "one\ntwo\nthree\n").unwrap();
        let mark = open().unwrap();
        assert_eq!((mark.position(), mark.failed().collect::<Vec<_>>()), (8, vec![0]));
        assert!(mark.has_passed(4) && !mark.has_passed(0) && !mark.has_passed(8));
        assert!(mark.delete().unwrap_err().to_string().contains("from byte 8 on were not replayed"));
        for other in ["one\nTwo\nthree\n", "one\n", ""] {
            fs::write(&letters, other).unwrap();
            for error in [open().unwrap_err(), ReplayMark::look(&letters).unwrap_err()] {
                let says = error.to_string();
                assert!(says.contains("letters.mark is the mark") && says.contains("delete the mark"), "{says}");
                assert_eq!(error.kind(), ErrorKind::InvalidData);
            }
        }
        // That of an earlier version says nothing about the file.
        fs::write(&path, "{\"position\":0,\"failed\":[]}").unwrap();
        assert!(open().unwrap_err().to_string().contains("delete it to start anew"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_replayed_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (letters, moved) = (folder.path().join("letters"), folder.path().join("moved"));
        fs::write(&letters, "one\n").unwrap();
        let open = |letters: &Path, path: &str| ReplayMark::open(letters, folder.path().join(path));
        let mut first = open(&letters, "mark").unwrap();
        // Also with another mark, or under another name.
        fs::hard_link(&letters, &moved).unwrap();
        for error in [open(&letters, "other").unwrap_err(), open(&moved, "mark").unwrap_err()] {
            let says = error.to_string();
            assert!(error.kind() == ErrorKind::ResourceBusy && says.contains("another process replays"), "{says}");
        }
        ReplayMark::look(&letters).unwrap();
        first.advance(4).unwrap();
        first.delete().unwrap();
        assert!(!letters.exists());
        open(&moved, "mark").unwrap();
    }
}
