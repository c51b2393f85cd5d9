//! Owns the file of records that were not written: one JSON object each, with the number of its line, the reason, its text, and its load.
//! Must not know why.
//!
//! Other loads may write to the file at the same time. So lines are only added at its end, each with its line feed in one write, and
//! nothing is moved or renamed. Lines that a load takes back become spaces where they are. Only at the end of the file, and with the
//! file for itself, they are cut off: each load has a shared lock of the file from before it reads it until it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use batchsql::small_file::sync_folder;
use serde::{Deserialize, Serialize};

use crate::draft_file::DraftFile;
use crate::exit::Failure;
use crate::load::layout::Done;
use crate::load::reject_lines::{self, Endings, Kind, Line};
use crate::private_file;
use crate::same_file::is_named;

/// A load has the file for itself no longer than it takes to cut off its end.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that are needed at least for rejected records.
const SPACE: usize = 4096;

/// One record that was not written.
#[derive(Debug, Serialize, Deserialize)]
struct Reject {
    line: u64,
    record: u64,
    reason: String,
    /// As it is in the file.
    text: String,
    #[serde(flatten)]
    load: Load,
}

/// What a load is: several may have the same file of rejected records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The begin of the SHA-256 of the content.
    pub(crate) file: String,
    /// The identity of the database. An earlier version has stored none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    pub(crate) table: String,
    /// Its name, if it loads the same content once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) again: Option<String>,
}

impl Load {
    fn endings(&self, elsewhere: Elsewhere) -> io::Result<Endings> {
        let ending = |load: &Self| {
            let mut ending = serde_json::to_vec(load)?;
            ending[0] = b',';
            io::Result::Ok(ending)
        };
        let earlier = ending(&Self { database: None, ..self.clone() })?;
        let database = match (&self.database, elsewhere) {
            (Some(database), Elsewhere::Counted) => {
                let begin = br#","file":"","database":""#.len() + self.file.len();
                Some(begin..begin + database.len())
            }
            _ => None,
        };
        Ok(Endings { own: ending(self)?, earlier, database })
    }
}

/// What becomes of lines with another identity of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// They are of other loads: the mark of a load has the identity too.
    OfOthers,
    /// The position is in the database, which may have another name now. So they count where they may be of the load, and stay, as
    /// they may be of another database.
    Counted,
}

/// The file of a load that goes on. It is made with the first record.
pub(crate) struct Rejects {
    path: PathBuf,
    load: Load,
    /// For its lock: as it was found.
    found: Option<File>,
    /// Where records are added.
    file: Option<File>,
    /// Records of the load in the file, those of earlier runs included.
    pub(crate) count: u64,
}

/// Refuses what is no file: lines are read again and taken back.
///
/// # Errors
/// `InvalidInput`: it is something else. Or it cannot be looked at.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let text =
                "it is no regular file, and a later run looks into it again; name a file, for example rejects.ndjson";
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why the file cannot be used, as the end of a load.
pub(crate) fn failure(path: &Path, error: &io::Error) -> Failure {
    let text = format!("the file of rejected records {} cannot be used: {error}", path.display());
    if error.kind() == io::ErrorKind::InvalidInput { Failure::mistake(text) } else { Failure::of_file_beside(text) }
}

/// Whether lines can be added to the file, or to a new one in its folder.
///
/// # Errors
/// They cannot.
pub(crate) fn can_add(path: &Path) -> io::Result<()> {
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => DraftFile::create(path)?.write_all(&[b' '; SPACE]),
        opened => opened.map(drop),
    }
}

/// The file before its lines are taken back. Nobody cuts it off from now on.
pub(crate) struct Found {
    path: PathBuf,
    load: Load,
    elsewhere: Elsewhere,
    /// With its length, if there is one.
    file: Option<(File, u64)>,
}

impl Found {
    /// Looks for the file. Lines that are added from now on stay.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn at(path: &Path, load: Load, elsewhere: Elsewhere) -> io::Result<Self> {
        check(path)?;
        let file = loop {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break None,
                file => file?,
            };
            share(&file)?;
            if is_named(&file, path)? {
                let length = file.metadata()?.len();
                break Some((file, length));
            }
        };
        Ok(Self { path: path.to_owned(), load, elsewhere, file })
    }

    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Of an earlier run of this load it keeps the records that have `passed`: the others are tried again. Without an earlier
    /// run there are none. Every line that is not of this load stays.
    ///
    /// The load must have had its position still after the file was found: then whatever is in it of this load is of earlier
    /// runs. A run that has claimed the position since adds its lines behind them.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn take_back(self, passed: &Done) -> io::Result<Rejects> {
        let Self { path, load, elsewhere, file } = self;
        let mut rejects = Rejects { path, load, found: None, file: None, count: 0 };
        let Some((found, length)) = file else { return Ok(rejects) };
        let (path, endings) = (&rejects.path, rejects.load.endings(elsewhere)?);
        // A record is there twice if another process has loaded the file until this one took its place.
        let mut records = Vec::new();
        let (mut blanked, mut torn, mut kept) = (None, false, 0);
        reject_lines::each((&found).take(length), &endings, |line| {
            match line.kind {
                Kind::Own(record) if !passed.has(record) => {
                    let file = match &mut blanked {
                        Some(file) => file,
                        None => blanked.insert(OpenOptions::new().write(true).open(path)?),
                    };
                    return blank(file, &line);
                }
                Kind::Own(record) => records.push(record),
                // It may be of this database or of another one: it is told, and stays.
                Kind::Either(record) if passed.has(record) => records.push(record),
                Kind::Torn => {
                    torn = true;
                    return Ok(());
                }
                Kind::Either(_) | Kind::Blank | Kind::Other => {}
            }
            kept = line.end;
            Ok(())
        })?;
        if let Some(file) = &blanked {
            file.sync_data()?;
        }
        if (torn || blanked.is_some()) && kept < length {
            // Without this, a lock of its own would be in the way on some systems.
            found.unlock()?;
            if found.try_lock().is_ok() {
                // Nobody else has it, so nobody adds to it. What others have added meanwhile stays: also if they have cut it off
                // before, and it is as long as it was.
                if found.metadata()?.len() == length && is_named(&found, path)? && has_no_line(&found, kept, &endings)?
                {
                    cut(path, kept)?;
                }
                found.unlock()?;
            }
            share(&found)?;
        }
        records.sort_unstable();
        records.dedup();
        rejects.count = records.len() as u64;
        rejects.found = Some(found);
        Ok(rejects)
    }
}

impl Rejects {
    /// Whether records can be added, without making the file: nobody wants an empty one.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn probe(&self) -> io::Result<()> {
        can_add(&self.path)
    }

    /// Adds records, and returns when they are on disk: only then may the position pass them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, records: &[(u64, u64, String, String)]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(shared(&self.path)?),
        };
        let mut lines = Vec::new();
        // A kill, or a full disk, has cut off the last line: it may be of another load.
        if !has_whole_lines(file)? {
            lines.push(b'\n');
        }
        for (line, record, reason, text) in records {
            let (reason, text, load) = (reason.clone(), text.clone(), self.load.clone());
            let reject = Reject { line: *line, record: *record, reason, text, load };
            serde_json::to_writer(&mut lines, &reject)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        self.count += records.len() as u64;
        Ok(())
    }
}

/// The file with this name, with a shared lock, to add lines.
fn shared(path: &Path) -> io::Result<File> {
    loop {
        check(path)?;
        let file = private_file::open(OpenOptions::new().read(true).create(true).append(true), path)?;
        share(&file)?;
        if is_named(&file, path)? {
            sync_folder(path)?;
            return Ok(file);
        }
        // Between the two, a load that had no more lines in it has removed it.
    }
}

/// Waits until nobody has the file for itself. Without locks it is never cut off.
fn share(file: &File) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) if begin.elapsed() < LONGEST_WAIT => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "another program has locked it for itself; end that, or name another file",
                ));
            }
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
}

/// Whether there is nothing from this byte on but what was taken back or cut off.
fn has_no_line(mut file: &File, from: u64, endings: &Endings) -> io::Result<bool> {
    file.seek(SeekFrom::Start(from))?;
    let mut has_line = false;
    reject_lines::each(file, endings, |line| {
        has_line |= !matches!(line.kind, Kind::Blank | Kind::Torn);
        Ok(())
    })?;
    Ok(!has_line)
}

/// Makes spaces of a line.
fn blank(file: &mut File, line: &Line) -> io::Result<()> {
    file.seek(SeekFrom::Start(line.begin))?;
    file.write_all(&vec![b' '; (line.end - line.begin - u64::from(line.has_feed)) as usize])
}

/// Removes what is behind this length. Without content there is no file.
fn cut(path: &Path, length: u64) -> io::Result<()> {
    if length == 0 {
        std::fs::remove_file(path)?;
        return sync_folder(path);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Whether nothing follows the last line feed.
fn has_whole_lines(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, again: Option<&str>) -> Load {
        let (file, database) = (file.to_owned(), Some("shop".to_owned()));
        Load { file, database, table: "orders".to_owned(), again: again.map(str::to_owned) }
    }

    fn passed(record: u64) -> Done {
        Done::new(vec![record])
    }

    fn open(path: &Path, load: Load, passed: &Done) -> io::Result<Rejects> {
        Found::at(path, load, Elsewhere::OfOthers)?.take_back(passed)
    }

    fn record(number: u64) -> (u64, u64, String, String) {
        (number + 1, number, "why".to_owned(), "a\n\"b\"".to_owned())
    }

    #[test]
    fn records_behind_the_position_are_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let open = |record| open(&path, load("a", None), &passed(record)).unwrap();
        let mut rejects = open(0);
        rejects.add(&[]).unwrap();
        assert!(!path.exists(), "no record, no file");
        rejects.add(&[record(3), record(7)]).unwrap();
        rejects.add(&[record(9)]).unwrap();
        // A crash has torn the last line.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"line\":11");
        std::fs::write(&path, text).unwrap();
        drop(rejects);
        let mut again = open(8);
        assert_eq!(again.count, 2);
        again.add(&[record(9)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = text.lines().map(|line| serde_json::from_str::<Reject>(line).unwrap().record).collect();
        assert_eq!(numbers, [3, 7, 9]);
        drop(again);
        assert_eq!(open(0).count, 0);
        assert!(!path.exists(), "a load that begins anew");
    }

    #[test]
    fn lines_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        std::fs::write(&path, "a file\nof a person").unwrap();
        let elsewhere = Load { database: Some("shop2".to_owned()), ..load("a", None) };
        let loads = [load("a", None), load("b", None), load("a", Some("second")), elsewhere];
        for load in &loads {
            let mut rejects = open(&path, load.clone(), &passed(0)).unwrap();
            assert_eq!(rejects.count, 0, "those of others do not count");
            rejects.add(&[record(1), record(5)]).unwrap();
        }
        assert_eq!(open(&path, loads[1].clone(), &passed(3)).unwrap().count, 1);
        assert_eq!(open(&path, loads[0].clone(), &passed(0)).unwrap().count, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("a file\nof a person\n"), "{text}");
        let left: Vec<(Load, u64)> = text
            .lines()
            .skip(2)
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .map(|reject: Reject| (reject.load, reject.record))
            .collect();
        let others = loads[2..].iter().flat_map(|load| [(load.clone(), 1), (load.clone(), 5)]);
        assert_eq!(left, [(loads[1].clone(), 1)].into_iter().chain(others).collect::<Vec<_>>());
        // An empty one is left alone too: it may be no file.
        std::fs::write(&path, "").unwrap();
        assert_eq!(open(&path, loads[0].clone(), &passed(0)).unwrap().count, 0);
        assert!(path.exists());
    }

    /// Of an earlier version, which has stored no database: they count where they may be of this load, and stay.
    #[test]
    fn lines_without_a_database_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let earlier = Load { database: None, ..load("a", None) };
        open(&path, earlier, &passed(0)).unwrap().add(&[record(1), record(5)]).unwrap();
        let mut rejects = open(&path, load("a", None), &passed(3)).unwrap();
        assert_eq!(rejects.count, 1);
        rejects.add(&[record(5)]).unwrap();
        drop(rejects);
        assert_eq!(open(&path, load("a", None), &passed(9)).unwrap().count, 2);
        assert_eq!(open(&path, load("b", None), &passed(9)).unwrap().count, 0);
        assert_eq!(open(&path, load("a", None), &passed(0)).unwrap().count, 0);
        assert_eq!(records(&path), [1, 5].map(|record| ("a".to_owned(), record)));
    }

    /// The position says that records are done, also if the database had another name then.
    #[test]
    fn lines_of_another_name_of_the_database_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        open(&path, load("a", None), &passed(0)).unwrap().add(&[record(1), record(5), record(9)]).unwrap();
        let named = |file: &str, again| Load { database: Some("host".to_owned()), ..load(file, again) };
        let open = |load, elsewhere, last| {
            let found = Found::at(&path, load, elsewhere).unwrap();
            found.take_back(&passed(last)).unwrap()
        };
        let mut rejects = open(named("a", None), Elsewhere::Counted, 8);
        assert_eq!(rejects.count, 2);
        rejects.add(&[record(9)]).unwrap();
        drop(rejects);
        assert_eq!(open(named("a", None), Elsewhere::Counted, 9).count, 3, "what is there twice is one");
        assert_eq!(open(load("a", None), Elsewhere::Counted, 9).count, 3);
        assert_eq!(open(named("a", None), Elsewhere::OfOthers, 9).count, 1);
        for other in [named("b", None), named("a", Some("second"))] {
            assert_eq!(open(other, Elsewhere::Counted, 9).count, 0);
        }
        // Without a position nothing is done, and only own lines are taken back.
        assert_eq!(open(named("a", None), Elsewhere::Counted, 0).count, 0);
        assert_eq!(records(&path), [1, 5, 9].map(|record| ("a".to_owned(), record)));
    }

    fn records(path: &Path) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let rejects = lines.map(|line| serde_json::from_str::<Reject>(line).unwrap());
        rejects.map(|reject| (reject.load.file, reject.record)).collect()
    }

    /// A load that takes back lines leaves the file that another one writes to.
    #[test]
    fn loads_share_a_file_and_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let open = |file: &str, record| open(&path, load(file, None), &passed(record)).unwrap();
        let mut killed = open("b", 0);
        killed.add(&[record(1), record(2)]).unwrap();
        let mut other = open("a", 0);
        other.add(&[record(1)]).unwrap();
        killed.add(&[record(3)]).unwrap();
        drop(killed);
        let length = std::fs::metadata(&path).unwrap().len();
        let mut again = open("b", 1);
        assert_eq!((again.count, records(&path).len()), (1, 2));
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            length,
            "nothing is cut off while the other one has the file"
        );
        other.add(&[record(2)]).unwrap();
        again.add(&[record(2), record(3)]).unwrap();
        other.add(&[record(3)]).unwrap();
        let expected = [("b", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 3), ("a", 3)];
        assert_eq!(records(&path), expected.map(|(file, record)| (file.to_owned(), record)));
        // A load without lines that stay does not remove it either.
        assert_eq!((open("b", 0).count, records(&path).len()), (0, 3));
    }

    /// One that was cut off is not continued by the line of another load.
    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let mut rejects = open(&path, load("a", None), &passed(0)).unwrap();
        rejects.add(&[record(1)]).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"line\":7,\"rec").unwrap();
        rejects.add(&[record(2)]).unwrap();
        let again = open(&path, load("a", None), &passed(9)).unwrap();
        assert_eq!(again.count, 2);
    }

    /// Two loads of a file at once: the earlier one may add lines until it finds that it has lost its position.
    #[test]
    fn a_record_that_is_there_twice_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let open = |record| open(&path, load("a", None), &passed(record)).unwrap();
        let (mut earlier, mut later) = (open(0), open(0));
        earlier.add(&[record(3), record(5)]).unwrap();
        later.add(&[record(3), record(5), record(6)]).unwrap();
        assert_eq!((later.count, open(9).count), (3, 3));
    }

    /// What another run of the load has added since the file was found is not of an earlier one.
    #[test]
    fn lines_that_are_added_after_the_file_was_found_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        open(&path, load("a", None), &passed(0)).unwrap().add(&[record(2), record(3)]).unwrap();
        let late = Found::at(&path, load("a", None), Elsewhere::OfOthers).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        let mut next = open(&path, load("a", None), &passed(2)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length, "nothing is cut off once it was found");
        next.add(&[record(3), record(4)]).unwrap();
        late.take_back(&passed(2)).unwrap();
        assert_eq!(records(&path), [2, 3, 4].map(|record| ("a".to_owned(), record)));
    }

    /// Another load may have cut off the same lines, and added others that are as long.
    #[test]
    fn only_what_was_taken_back_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let (kept, endings) = ("{\"line\":1}\n", load("a", None).endings(Elsewhere::OfOthers).unwrap());
        let check = |rest: &str, expected: bool| {
            std::fs::write(&path, format!("{kept}{rest}")).unwrap();
            let has_no_line = has_no_line(&File::open(&path).unwrap(), kept.len() as u64, &endings).unwrap();
            assert_eq!(has_no_line, expected, "{rest:?}");
        };
        check("", true);
        check("    \n  \n", true);
        check("    \n{\"line\":7,\"rec", true);
        check("    \n{\"line\":7}\n", false);
        check("a person\n", false);
    }

    /// One that was removed while a load goes on is made again.
    #[test]
    fn a_file_that_was_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        open(&path, load("a", None), &passed(0)).unwrap().add(&[record(1)]).unwrap();
        let mut late = open(&path, load("b", None), &passed(0)).unwrap();
        std::fs::remove_file(&path).unwrap();
        late.add(&[record(2)]).unwrap();
        assert_eq!(records(&path), [("b".to_owned(), 2)]);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/full", &link).unwrap();
        for path in [Path::new("/dev/full"), &link, folder.path()] {
            let error = open(path, load("a", None), &passed(0)).map(drop).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }
}
