//! Owns what a file source remembers on disk: which file it is, how far it is written, and who has claimed its position.
//! Must not know lines or databases.
//!
//! ```text
//! batchsql file mark 1
//! first 9c0dd6a1f5a3f10e0d2b6a6f3f7d9b12 0        the first line, and how often the file was replaced
//! settled 1500                                     every line up to this one has ended
//! place 1000 81920 5be1f2e6a8c30d1f9d5a0c2b7e6f4a38   behind line 1000, with the bytes before it
//! position                                         the database has a position
//! apart 1200                                       lines behind this one were written at least once, without the position
//! owner 4711-1785283200000000000-0                 a process that has claimed it, or may have; the newest is the last
//! ```
//!
//! It is replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use batchsql_core::small_file::replace_file;

use super::error::FileError;
use super::options::beside;

const BEGIN: &str = "batchsql file mark ";
const VERSION: &str = "1";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The fingerprint of the first line.
    pub(super) first: u128,
    /// How often the file was replaced: a file may come back.
    pub(super) replaced: u32,
    /// Every line up to this one has ended.
    pub(super) settled: u64,
    /// At most `settled`.
    pub(super) place: Place,
    /// Whether the database had a position of the file.
    pub(super) has_position: bool,
    /// Lines behind this one, up to `settled`, were written without the position that the database has: at least once. The
    /// database had every line up to this one before.
    pub(super) apart: Option<u64>,
    /// Those that have claimed the position, or may have: a database from a backup has one from before it.
    pub(super) owners: Vec<String>,
}

/// The place behind a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the line, from 1; 0 is the beginning.
    pub(super) line: u64,
    /// Bytes.
    pub(super) offset: u64,
    /// The fingerprint of the bytes before it.
    pub(super) before: u128,
}

impl Mark {
    /// The incarnation: it names the positions in the database and the dead letters.
    pub(super) fn incarnation(&self) -> String {
        format!("{:032x}-{}", self.first, self.replaced)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        match lines.next().and_then(|line| line.strip_prefix(BEGIN)) {
            Some(VERSION) => {}
            Some(version) => return Err(format!("it has version {version}: start the newer program that wrote it")),
            None => {
                return Err("it is no mark of a file: remove it, or name another one with FileOptions::mark".to_owned());
            }
        }
        let mut mark = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let read = match words[..] {
                ["first", first, replaced] => hex(first).zip(replaced.parse().ok()).map(|(first, replaced)| {
                    (mark.first, mark.replaced) = (first, replaced);
                }),
                ["settled", line] => line.parse().ok().map(|line| mark.settled = line),
                ["place", line, offset, before] => place(line, offset, before).map(|place| mark.place = place),
                ["position"] => {
                    mark.has_position = true;
                    Some(())
                }
                // Of an earlier version.
                ["moved", _] => Some(()),
                ["apart", line] => line.parse().ok().map(|line| mark.apart = Some(line)),
                ["owner", owner] => {
                    mark.owners.push(owner.to_owned());
                    Some(())
                }
                _ => None,
            };
            read.ok_or("it is damaged: restore it from a backup")?;
        }
        Ok(mark)
    }

    fn text(&self) -> String {
        let Self { first, replaced, settled, place, has_position, apart, owners } = self;
        let Place { line, offset, before } = place;
        let mut text = format!(
            "{BEGIN}{VERSION}\nfirst {first:032x} {replaced}\nsettled {settled}\nplace {line} {offset} {before:032x}\n"
        );
        if *has_position {
            text.push_str("position\n");
        }
        if let Some(line) = apart {
            text.push_str(&format!("apart {line}\n"));
        }
        owners.iter().for_each(|owner| text.push_str(&format!("owner {owner}\n")));
        text
    }
}

fn hex(text: &str) -> Option<u128> {
    u128::from_str_radix(text, 16).ok()
}

fn place(line: &str, offset: &str, before: &str) -> Option<Place> {
    Some(Place { line: line.parse().ok()?, offset: offset.parse().ok()?, before: hex(before)? })
}

/// The file of a mark, which only this process uses.
#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    lock: File,
}

impl Drop for MarkFile {
    /// A process that another thread is about to start has a copy of the file, with which the lock would go on.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl MarkFile {
    /// Locks the mark and reads it; `None` if there is none yet. Blocks the thread, as [`store`](Self::store).
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Mark>), FileError> {
        let failed = |error| FileError::io(&format!("cannot use the mark {}; check its folder", path.display()), error);
        let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(beside(path, ".lock"));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FileError::locked(format!(
                    "another process uses the mark {}: a file is fed by one process at a time",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mark =
            match fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                text => {
                    let mark = Mark::parse(&text.map_err(failed)?);
                    Some(mark.map_err(|why| {
                        FileError::settings(format!("the mark {} cannot be used: {why}", path.display()))
                    })?)
                }
            };
        Ok((Self { path: path.to_owned(), lock }, mark))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the mark, and returns when it is on disk.
    pub(super) fn store(&self, mark: &Mark) -> io::Result<()> {
        replace_file(&self.path, mark.text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            first: 7 << 100,
            replaced: 2,
            settled: 1_500,
            place: Place { line: 1_000, offset: 81_920, before: 9 },
            has_position: true,
            apart: Some(1_200),
            owners: vec!["a-1".to_owned(), "b-2".to_owned()],
        }
    }

    #[test]
    fn a_mark_is_read_as_it_was_stored_and_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let (file, found) = MarkFile::open(&path).unwrap();
        assert_eq!(found, None);
        file.store(&mark()).unwrap();
        assert!(MarkFile::open(&path).unwrap_err().is_locked());
        // As a process has it that is being started.
        let copy = file.lock.try_clone().unwrap();
        drop(file);
        let (file, found) = MarkFile::open(&path).unwrap();
        assert_eq!(found, Some(mark()));
        let new = Mark { has_position: false, apart: None, owners: Vec::new(), ..mark() };
        file.store(&new).unwrap();
        drop(file);
        assert_eq!(MarkFile::open(&path).unwrap().1, Some(new));
        drop(copy);
    }

    #[test]
    fn a_mark_that_makes_no_sense_is_refused() {
        let check = |text: &str, part: &str| {
            let error = Mark::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check("", "no mark");
        check("{}", "no mark");
        check("batchsql file mark 2\n", "version 2");
        check("batchsql file mark 1\nsettled x\n", "damaged");
        check("batchsql file mark 1\nplace 1 2\n", "damaged");
        assert_eq!(Mark::parse(&mark().text()), Ok(mark()));
    }
}
