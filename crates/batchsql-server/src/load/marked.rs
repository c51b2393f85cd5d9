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
use crate::load::same_file::is_named;
use crate::load::tally::Tally;
use crate::private_file;

pub(crate) struct Marked {
    db: BatchSql,
    path: PathBuf,
    mark: Mark,
    /// The file of the mark. Its lock keeps a second load away; it is given up when this is dropped, and by the system after a kill.
    lock: File,
}

/// Why a mark cannot be used.
#[derive(Debug)]
pub(crate) enum MarkError {
    /// Another load writes with it now.
    InUse,
    Io(io::Error),
}

impl MarkError {
    /// As the end of a load, for the mark with this path.
    pub(crate) fn failure(&self, path: &Path) -> Failure {
        let path = path.display();
        Failure::unavailable(match self {
            Self::InUse => {
                format!("{path}: another process loads this file now; wait for its end, then run the command again")
            }
            Self::Io(error) => format!("{path} cannot be read or made: {error}"),
        })
    }
}

impl From<io::Error> for MarkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How far a file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The content of the file.
    file: String,
    table: String,
    record: u64,
}

impl Marked {
    /// Locks and reads the mark, and makes an empty one if there is none. One of another content or table is not used.
    ///
    /// # Errors
    /// Another load has the lock, or the mark cannot be read or made.
    pub(crate) fn open(db: BatchSql, path: &Path, digest: &str, table: &str) -> Result<Self, MarkError> {
        let mut mark = Mark { file: digest.to_owned(), table: table.to_owned(), record: 0 };
        let mut lock = locked(path)?;
        let mut text = Vec::new();
        lock.read_to_end(&mut text)?;
        if let Ok(found) = serde_json::from_slice::<Mark>(&text)
            && found.file == mark.file
            && found.table == mark.table
        {
            mark = found;
        }
        Ok(Self { db, path: path.to_owned(), mark, lock })
    }

    pub(crate) fn reached(&self) -> u64 {
        self.mark.record
    }

    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally) -> Result<(), Failure> {
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
        self.keep().map_err(|error| Failure::unavailable(format!("{} cannot be written: {error}", self.path.display())))
    }

    /// As a whole, so that a crash leaves the old mark or the new one. The new one is locked before it has its name, so the lock
    /// has no gap.
    fn keep(&mut self) -> io::Result<()> {
        let mut draft = DraftFile::create_alone(&self.path)?;
        draft.write_all(&serde_json::to_vec(&self.mark)?)?;
        self.lock = draft.replace()?;
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
        let open = || Marked::open(db.clone(), &path, "digest", "orders");
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
}
