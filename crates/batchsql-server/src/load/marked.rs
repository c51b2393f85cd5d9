//! Owns how stripes are written to a database without transactions: their rows through the pipeline, then a mark in a file.
//! Must not know the form of the file that is loaded.
//!
//! A stripe may end in part: a row goes on failing, or a rejected record cannot be stored. The mark moves behind the records that
//! have ended in front, and names those behind that have ended too, so that the next try has only the others. Worked example,
//! records 101 to 104, of which 103 goes on failing:
//!
//! ```text
//! first try     101, 102 and 104 are written              mark: 102, and 104 has ended
//! next tries    103 alone, until it is written or stored    mark: 104
//! ```
//!
//! Where a repeat changes nothing, all behind the front is written again: a row that was late would overwrite later ones of its key.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use batchsql::{BatchSql, OutcomeKind};

use crate::draft_file::DraftFile;
use crate::exit::Failure;
use crate::load::layout::{Done, Ranges, is_in};
use crate::load::mark::{Mark, MarkError, Marks, Stored, Unsaved};
use crate::load::parse::{Parsed, Run};
use crate::load::stop::{Stop, stopped};
use crate::load::tally::Tally;
use crate::private_file;
use crate::same_file::is_named;

pub(crate) struct Marked {
    db: BatchSql,
    path: PathBuf,
    mark: Mark,
    /// Of other databases, tables and contents, the oldest first.
    others: Vec<Mark>,
    /// Whether the file can be written is known before the first row is.
    was_kept: bool,
    unsaved: Unsaved,
    /// The file of the mark. Its lock keeps a second load away; it is given up when this is dropped, and by the system after a kill.
    lock: File,
}

/// Marks of other contents that are kept: a file may become what it was.
const OTHERS: usize = 100;

impl Marked {
    /// Locks and reads the file of marks, and makes an empty one if there is none. The mark is that of this database, table and
    /// content; others stay.
    ///
    /// # Errors
    /// Another load has the lock, the file cannot be read or made, or it has a mark that may be of this load or not.
    pub(crate) fn open(
        db: BatchSql,
        path: &Path,
        (database, table): (&str, &str),
        digest: &str,
        unsaved: &Unsaved,
    ) -> Result<Self, MarkError> {
        let (database, table) = (database.to_owned(), table.to_owned());
        let mut mark =
            Mark { database: Some(database), file: digest.to_owned(), table, record: 0, ended: Ranges::new() };
        let mut lock = locked(path)?;
        let mut text = Vec::new();
        lock.read_to_end(&mut text)?;
        let mut others = Stored::read(&text)?;
        let is_load = |other: &Mark| other.file == mark.file && other.table == mark.table;
        if let Some(at) = others.iter().position(|other| is_load(other) && other.database == mark.database) {
            mark = others.remove(at);
        } else if others.iter().any(|other| is_load(other) && other.database.is_none()) {
            // Rows would be missing if it were of another one, and be there twice if it were of this one.
            let entry = mark.entry();
            return Err(MarkError::NoDatabase { database: mark.database.unwrap_or_default(), entry });
        }
        let mut surplus = others.iter().filter(|other| other.file != mark.file).count().saturating_sub(OTHERS);
        others.retain(|other| {
            let is_surplus = surplus > 0 && other.file != mark.file;
            surplus -= usize::from(is_surplus);
            !is_surplus
        });
        if let Some(later) = unsaved.of(path, &mark) {
            mark = later;
        }
        Ok(Self { db, path: path.to_owned(), mark, others, was_kept: false, unsaved: unsaved.clone(), lock })
    }

    pub(crate) fn done(&self) -> Done {
        Done::with_behind(self.mark.record, self.mark.ended.clone())
    }

    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally, stop: &Stop) -> Result<(), Failure> {
        // On a full disk these rows would be written again by each try.
        if !self.was_kept {
            self.keep_or_fail()?;
            tally.probe()?;
        }
        let mut pending = BTreeSet::new();
        let written = self.write_stripe(parsed, (tally, stop), &mut pending).await;
        self.pass(parsed, &pending);
        match written {
            Ok(()) => self.keep_or_fail(),
            // What has ended is known to the next try of this process also if this fails.
            Err(failure) => {
                let _ = self.keep();
                Err(failure)
            }
        }
    }

    /// Writes what has not ended. `pending` gets the records that have not ended then.
    async fn write_stripe(
        &self,
        parsed: &Parsed,
        (tally, stop): (&Tally, &Stop),
        pending: &mut BTreeSet<u64>,
    ) -> Result<(), Failure> {
        let is_left = |record: u64| !is_in(&self.mark.ended, record);
        let refused = parsed.refused(is_left);
        if let Err(failure) = tally.reject(&refused) {
            pending.extend(refused.iter().map(|(_, record, ..)| *record));
            pending.extend(parsed.runs.iter().flat_map(|run| &run.records).filter(|record| is_left(**record)));
            return Err(failure);
        }
        for (number, run) in parsed.runs.iter().enumerate() {
            if stop.is_wanted() {
                let left = parsed.runs[number..].iter().flat_map(|run| &run.records);
                pending.extend(left.filter(|record| is_left(**record)));
                return Err(stopped());
            }
            let written = self.write_run(parsed, run, tally, pending).await;
            if written.is_err() {
                let behind = parsed.runs[number + 1..].iter().flat_map(|run| &run.records);
                pending.extend(behind.filter(|record| is_left(**record)));
                return written;
            }
        }
        Ok(())
    }

    async fn write_run(
        &self,
        parsed: &Parsed,
        run: &Run,
        tally: &Tally,
        pending: &mut BTreeSet<u64>,
    ) -> Result<(), Failure> {
        let is_left = |row: &u32| !is_in(&self.mark.ended, run.records[*row as usize]);
        let left: Vec<u32> = (0..run.records.len() as u32).filter(is_left).collect();
        let rows = match left.len() {
            0 => return Ok(()),
            all if all == run.records.len() => run.rows.clone(),
            _ => run.rows.rows().gather(&left),
        };
        let record = |index: usize| run.records[left[index] as usize];
        let outcomes = match self.db.submit_rows_tracked([rows]).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                pending.extend((0..left.len()).map(record));
                return Err(match error.submit_error() {
                    error if error.row_error().is_some() => Failure::failed(error),
                    // It is full, or about to end.
                    error => Failure::unavailable(error),
                });
            }
        };
        for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded, OutcomeKind::Rejected] {
            tally.add(kind, outcomes.counts.get(kind));
        }
        let (mut rejected, mut failed) = (Vec::new(), None);
        for (index, outcome) in &outcomes.failed {
            let record = record(*index);
            let reason =
                outcome.failure().and_then(|failed| failed.error()).map_or_else(String::new, ToString::to_string);
            if outcome.kind() != OutcomeKind::Rejected {
                pending.insert(record);
                failed.get_or_insert_with(|| {
                    let kind = outcome.kind().name();
                    Failure::unavailable(format!(
                        "rows were not written ({kind}): {reason}; run the command again to go on"
                    ))
                });
                continue;
            }
            let (line, text) = parsed.stripe.text(record);
            rejected.push((line, record, reason, text));
        }
        if let Err(failure) = tally.reject(&rejected) {
            pending.extend(rejected.iter().map(|(_, record, ..)| *record));
            return Err(failure);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Moves the mark behind the records of a stripe that have ended in front.
    fn pass(&mut self, parsed: &Parsed, pending: &BTreeSet<u64>) {
        let last = parsed.stripe.last();
        let front = pending.first().map_or(last, |first| first - 1);
        self.mark.record = self.mark.record.max(front);
        let mut ended = Ranges::new();
        if !parsed.runs.iter().all(|run| run.rows.rows().schema().is_repeatable()) {
            let ends = pending.iter().copied().skip(1).chain([last + 1]);
            let between = pending.iter().zip(ends).filter(|(record, end)| *record + 1 < *end);
            ended.extend(between.map(|(record, end)| (record + 1, end - 1)));
        }
        // An earlier try may have divided the records into other stripes.
        let behind = self.mark.ended.iter().filter(|(_, end)| *end > last);
        ended.extend(behind.map(|(first, end)| (*first.max(&(last + 1)), *end)));
        self.mark.ended = ended;
    }

    fn keep_or_fail(&mut self) -> Result<(), Failure> {
        let kept = self.keep();
        kept.map_err(|error| Failure::of_file_beside(format!("{} cannot be written: {error}", self.path.display())))
    }

    fn keep(&mut self) -> io::Result<()> {
        let stored = self.store();
        self.unsaved.set(&self.path, stored.is_err().then(|| self.mark.clone()));
        stored
    }

    /// As a whole, so that a crash leaves the old mark or the new one. The new one is locked before it has its name, so the lock
    /// has no gap.
    fn store(&mut self) -> io::Result<()> {
        let mut draft = DraftFile::create_alone(&self.path)?;
        let marks = Marks { loads: self.others.iter().chain([&self.mark]).collect() };
        draft.write_all(&serde_json::to_vec(&marks)?)?;
        self.lock = draft.replace()?;
        self.was_kept = true;
        Ok(())
    }
}

/// The file of a mark with an exclusive lock.
fn locked(path: &Path) -> Result<File, MarkError> {
    loop {
        let file = private_file::open(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(MarkError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if is_named(&file, path)? {
            return Ok(file);
        }
        // Between the two, whoever had the lock has put another file in its place.
    }
}

/// Where the position is kept, if it is in a file.
pub(crate) fn mark_of(path: &Path, name: Option<&str>) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(match name {
        Some(name) => format!(".{name}.batchsql-load"),
        None => ".batchsql-load".to_owned(),
    });
    path.into()
}

#[cfg(test)]
mod tests {
    use batchsql::DynSink;
    use batchsql_testkit::ScriptedSink;

    use super::*;

    #[tokio::test]
    async fn a_mark_is_of_one_load_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.batchsql-load");
        let db = BatchSql::builder(DynSink::new(ScriptedSink::new())).start().unwrap();
        let open = || Marked::open(db.clone(), &path, ("shop", "orders"), "digest", &Unsaved::default());
        let mut first = open().unwrap();
        assert!(matches!(open(), Err(MarkError::InUse)));
        // The file is another one after each mark.
        for record in [5, 9] {
            first.mark.record = record;
            first.keep().unwrap();
            assert!(matches!(open(), Err(MarkError::InUse)), "after the mark of record {record}");
        }
        drop(first);
        let mut again = open().unwrap();
        assert_eq!(again.mark.record, 9);
        // It cannot be written, and leaves nothing else.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        again.keep().unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Each database, table and content has a mark of its own.
    #[tokio::test]
    async fn a_mark_is_of_a_database_a_table_and_a_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.batchsql-load");
        let db = BatchSql::builder(DynSink::new(ScriptedSink::new())).start().unwrap();
        let open = |database: &str, table: &str, digest: &str| {
            Marked::open(db.clone(), &path, (database, table), digest, &Unsaved::default())
        };
        let loads =
            [("shop", "orders", "x"), ("shop2", "orders", "x"), ("shop", "items", "x"), ("shop", "orders", "y")];
        for (record, (database, table, digest)) in (1..).zip(loads) {
            let mut marked = open(database, table, digest).unwrap();
            assert_eq!(marked.mark.record, 0);
            marked.mark.record = record;
            marked.keep().unwrap();
        }
        for (record, (database, table, digest)) in (1..).zip(loads) {
            assert_eq!(open(database, table, digest).unwrap().mark.record, record);
        }
        // Those of many contents are not kept without an end, and never in place of those of this one.
        for number in 0..OTHERS + 10 {
            open("shop", "orders", &format!("x{number}")).unwrap().keep().unwrap();
        }
        let mut last = open("shop", "orders", "x").unwrap();
        last.keep().unwrap();
        let kept = Stored::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.len(), OTHERS + 1);
    }

    /// It may be of this database or of another one: that it is of this one would lose rows, that it is not would double them.
    #[tokio::test]
    async fn a_mark_without_a_database_is_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv.batchsql-load");
        let db = BatchSql::builder(DynSink::new(ScriptedSink::new())).start().unwrap();
        let open =
            |table: &str, digest: &str| Marked::open(db.clone(), &path, ("shop", table), digest, &Unsaved::default());
        let earlier = r#"{"file":"x","table":"orders","record":7}"#;
        std::fs::write(&path, earlier).unwrap();
        let failure = open("orders", "x").map(drop).unwrap_err().failure(&path);
        let advice = "write \"database\":\"shop\", behind the brace that begins this entry";
        assert!(failure.text.contains("the entry with \"file\":\"x\",\"table\":\"orders\","), "{}", failure.text);
        assert!(failure.text.contains(advice) && failure.text.contains("start a service again"), "{}", failure.text);
        // It is of another load, and stays.
        for (table, digest) in [("items", "x"), ("orders", "y")] {
            let mut other = open(table, digest).unwrap();
            assert_eq!(other.mark.record, 0);
            other.keep().unwrap();
            drop(other);
            assert!(matches!(open("orders", "x"), Err(MarkError::NoDatabase { .. })));
        }
        // As the error says, in a file with the marks of others, and in one that has no other.
        let several = std::fs::read_to_string(&path).unwrap();
        let entry = "{\"file\":\"x\",\"table\":\"orders\"";
        let with_database = entry.replacen('{', "{\"database\":\"shop\",", 1);
        for text in [&*several, earlier] {
            assert_eq!(text.matches(entry).count(), 1, "{text}");
            std::fs::write(&path, text.replacen(entry, &with_database, 1)).unwrap();
            assert_eq!(open("orders", "x").unwrap().mark.record, 7);
        }
        let one = format!("{earlier},");
        assert_eq!(several.matches(&one).count(), 1, "{several}");
        for text in [several.replacen(&one, "", 1), "\n".to_owned()] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(open("orders", "x").unwrap().mark.record, 0, "{text}");
        }
        std::fs::write(&path, several.replacen(&one, "", 1)).unwrap();
        open("orders", "x").unwrap().keep().unwrap();
        let kept = Stored::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.len(), 3, "those of others stay: {kept:?}");
        std::fs::write(&path, "7").unwrap();
        assert!(matches!(open("orders", "x"), Err(MarkError::Unreadable)));
    }
}
