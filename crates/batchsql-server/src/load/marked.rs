//! Owns how stripes are written to a database without transactions: their rows through the pipeline, then a mark in a file.
//! Must not know the form of the file that is loaded.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use batchsql::{BatchSql, OutcomeKind};
use serde::{Deserialize, Serialize};

use crate::draft_file::DraftFile;
use crate::exit::Failure;
use crate::load::parse::Parsed;
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
    /// The file of the mark. Its lock keeps a second load away; it is given up when this is dropped, and by the system after a kill.
    lock: File,
}

/// Marks of other contents that are kept: a file may become what it was.
const OTHERS: usize = 100;

/// Why a mark cannot be used.
#[derive(Debug)]
pub(crate) enum MarkError {
    /// Another load writes with it now.
    InUse,
    /// An earlier version has made the mark, which did not store the database.
    NoDatabase {
        /// It would be this one.
        database: String,
        /// How the mark is found in the file.
        entry: String,
    },
    /// Something else is in the file.
    Unreadable,
    Io(io::Error),
}

impl MarkError {
    /// As the end of a load, for the mark with this path.
    pub(crate) fn failure(&self, path: &Path) -> Failure {
        let path = path.display();
        match self {
            Self::InUse => Failure::unavailable(format!(
                "{path}: another process loads this file now, or another source of this one; wait for its end, then run the \
                 command again"
            )),
            Self::NoDatabase { database, entry } => Failure::failed(format!(
                "{path}: an earlier version has made the entry with {entry}, which does not say into which database the file was \
                 loaded; if into this one, write \"database\":\"{database}\", behind the brace that begins this entry; if into another \
                 one, remove only this entry, and the file is loaded from its begin; start a service again after that"
            )),
            Self::Unreadable => Failure::failed(format!(
                "{path} does not say how far the file is loaded; remove it, and the file is loaded from its begin"
            )),
            Self::Io(error) => Failure::of_file_beside(format!("{path} cannot be read or made: {error}")),
        }
    }
}

impl From<io::Error> for MarkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How far a content is written into a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Its identity. An earlier version has stored none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// The content of the file.
    file: String,
    table: String,
    record: u64,
}

impl Mark {
    /// What tells it from the others without a database.
    fn entry(&self) -> String {
        let table = serde_json::Value::from(&*self.table);
        format!("\"file\":\"{}\",\"table\":{table}", self.file)
    }
}

/// What is in the file.
#[derive(Serialize)]
struct Marks<'a> {
    loads: Vec<&'a Mark>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Several {
        loads: Vec<Mark>,
    },
    /// Of an earlier version, which had one.
    One(Mark),
}

impl Stored {
    fn read(text: &[u8]) -> Result<Vec<Mark>, MarkError> {
        // It was made for its lock only, or its only mark was removed.
        if text.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        match serde_json::from_slice(text).map_err(|_| MarkError::Unreadable)? {
            Self::Several { loads } => Ok(loads),
            Self::One(mark) => Ok(vec![mark]),
        }
    }
}

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
    ) -> Result<Self, MarkError> {
        let (database, table) = (database.to_owned(), table.to_owned());
        let mut mark = Mark { database: Some(database), file: digest.to_owned(), table, record: 0 };
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
        Ok(Self { db, path: path.to_owned(), mark, others, was_kept: false, lock })
    }

    pub(crate) fn reached(&self) -> u64 {
        self.mark.record
    }

    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally) -> Result<(), Failure> {
        // On a full disk these rows would be written again by each try.
        if !self.was_kept {
            self.keep_or_fail()?;
        }
        for run in &parsed.runs {
            let outcomes = self.db.submit_rows_tracked([run.rows.clone()]).await;
            let outcomes = outcomes.map_err(|error| match error.submit_error() {
                error if error.row_error().is_some() => Failure::failed(error),
                // It is full, or about to end.
                error => Failure::unavailable(error),
            })?;
            for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded, OutcomeKind::Rejected] {
                tally.add(kind, outcomes.counts.get(kind));
            }
            let mut rejected = Vec::new();
            for (index, outcome) in &outcomes.failed {
                let reason =
                    outcome.failure().and_then(|failed| failed.error()).map_or_else(String::new, ToString::to_string);
                if outcome.kind() != OutcomeKind::Rejected {
                    let kind = outcome.kind().name();
                    return Err(Failure::unavailable(format!(
                        "rows were not written ({kind}): {reason}; run the command again to go on"
                    )));
                }
                let record = run.records[*index];
                let (line, text) = parsed.stripe.text(record);
                rejected.push((line, record, reason, text));
            }
            tally.reject(&rejected)?;
        }
        self.mark.record = parsed.stripe.last();
        self.keep_or_fail()
    }

    fn keep_or_fail(&mut self) -> Result<(), Failure> {
        let kept = self.keep();
        kept.map_err(|error| Failure::of_file_beside(format!("{} cannot be written: {error}", self.path.display())))
    }

    /// As a whole, so that a crash leaves the old mark or the new one. The new one is locked before it has its name, so the lock
    /// has no gap.
    fn keep(&mut self) -> io::Result<()> {
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
        let open = || Marked::open(db.clone(), &path, ("shop", "orders"), "digest");
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
        assert_eq!(again.reached(), 9);
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
        let open =
            |database: &str, table: &str, digest: &str| Marked::open(db.clone(), &path, (database, table), digest);
        let loads =
            [("shop", "orders", "x"), ("shop2", "orders", "x"), ("shop", "items", "x"), ("shop", "orders", "y")];
        for (record, (database, table, digest)) in (1..).zip(loads) {
            let mut marked = open(database, table, digest).unwrap();
            assert_eq!(marked.reached(), 0);
            marked.mark.record = record;
            marked.keep().unwrap();
        }
        for (record, (database, table, digest)) in (1..).zip(loads) {
            assert_eq!(open(database, table, digest).unwrap().reached(), record);
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
        let open = |table: &str, digest: &str| Marked::open(db.clone(), &path, ("shop", table), digest);
        let earlier = r#"{"file":"x","table":"orders","record":7}"#;
        std::fs::write(&path, earlier).unwrap();
        let failure = open("orders", "x").map(drop).unwrap_err().failure(&path);
        let advice = "write \"database\":\"shop\", behind the brace that begins this entry";
        assert!(failure.text.contains("the entry with \"file\":\"x\",\"table\":\"orders\","), "{}", failure.text);
        assert!(failure.text.contains(advice) && failure.text.contains("start a service again"), "{}", failure.text);
        // It is of another load, and stays.
        for (table, digest) in [("items", "x"), ("orders", "y")] {
            let mut other = open(table, digest).unwrap();
            assert_eq!(other.reached(), 0);
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
            assert_eq!(open("orders", "x").unwrap().reached(), 7);
        }
        let one = format!("{earlier},");
        assert_eq!(several.matches(&one).count(), 1, "{several}");
        for text in [several.replacen(&one, "", 1), "\n".to_owned()] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(open("orders", "x").unwrap().reached(), 0, "{text}");
        }
        std::fs::write(&path, several.replacen(&one, "", 1)).unwrap();
        open("orders", "x").unwrap().keep().unwrap();
        let kept = Stored::read(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.len(), 3, "those of others stay: {kept:?}");
        std::fs::write(&path, "7").unwrap();
        assert!(matches!(open("orders", "x"), Err(MarkError::Unreadable)));
    }
}
