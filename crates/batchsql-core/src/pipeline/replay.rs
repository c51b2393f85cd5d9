//! Owns the replay of a dead-letter file: its rows are submitted again, and a mark says how far it came.
//! Must not know how rows are written.

use std::error::Error as StdError;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::outcome::letter_line::{DeadLetterError, DeadLetterLine};
use crate::outcome::letter_reader::DeadLetterReader;
use crate::outcome::outcomes::{Outcome, OutcomeCounts};
use crate::pipeline::error::{FlushError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::row::dynamic::DynRow;
use crate::small_file::replace_file;

/// Lines that are submitted before the mark is written.
const CHUNK: usize = 1000;

/// The rows of a [dead-letter file](crate::DeadLetters::file), to be submitted again.
///
/// A mark next to the file (`failed.ndjson.mark`) has the position up to which it was replayed, and the lines before it
/// that failed again. It is written after each 1,000 lines, when their rows have their outcomes. So a replay that was cut
/// off continues where it was, at most 1,000 rows are submitted twice, and a later replay starts with the lines that
/// failed.
///
/// Two effects need care:
///
/// - **A row that is submitted twice is written twice.** With a conflict rule this leaves the same row, but
///   [`Expr::add`](crate::Expr::add) and [`Expr::raw`](crate::Expr::raw) count twice, and a plain insert makes a second
///   row or is rejected.
/// - **Old rows are written over newer ones.** An upsert or a delete that was accepted after the failure is overwritten by
///   the older row of the file. If line 1 of a key fails again and line 2 is written, the next run writes line 1 over
///   it.
///
/// [`Conflict::only_if_newer`](crate::Conflict::only_if_newer) avoids both for upserts: a row that is not newer than the
/// stored one ends as `Ignored`. It cannot tell that a row was deleted meanwhile.
///
/// The pipeline of the replay must not append to the same file. Rename the file first: a running
/// pipeline then creates it anew. When [`ReplayReport::is_complete`] is true, [`delete`](Self::delete) the file and its
/// mark.
///
/// ```no_run
/// # use batchsql_core::{Action, BatchSql, Replay, Schema};
/// # async fn run(db: BatchSql, readings: Schema) -> Result<(), Box<dyn std::error::Error>> {
/// let deletes = readings.deletion()?;
/// let report = Replay::new("failed.1.ndjson")
///     .run(&db, |letter| {
///         if letter.table() != readings.table() {
///             // An error keeps the line for the next run; `None` drops it.
///             return Err("a row of another table".into());
///         }
///         let schema = if letter.action() == Action::Delete { &deletes } else { &readings };
///         Ok(Some(letter.row(schema)?))
///     })
///     .await?;
/// for failure in &report.failed {
///     eprintln!("byte {}: {}", failure.position, failure.reason);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is replayed until run() is called"]
pub struct Replay {
    path: PathBuf,
    mark: PathBuf,
}

/// The result of one [`Replay::run`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The rows that were submitted, by outcome.
    pub counts: OutcomeCounts,
    /// Lines that the caller dropped, by `None`. They are not tried again.
    pub skipped: u64,
    /// Lines that were not replayed. The mark keeps them for the next run.
    pub failed: Vec<ReplayFailure>,
}

impl ReplayReport {
    /// True when no line of the file is left: each was written, ignored, superseded, or dropped by the caller (`None`).
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// True when no line is in this file only: those that failed were rows, were submitted again, and reached the
    /// dead-letter consumers of the pipeline. If one of these is a [file](crate::DeadLetters::file), this file may be
    /// deleted once the pipeline has [closed](BatchSql::close) without lost letters, so that no row is in two files.
    pub fn is_handed_on(&self) -> bool {
        self.failed.iter().all(|failure| matches!(failure.reason, NotReplayed::Failed(_)))
    }
}

/// A line that was not replayed.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplayFailure {
    /// Where the line starts in the file, in bytes.
    pub position: u64,
    /// Why.
    pub reason: NotReplayed,
}

/// Why a line was not replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotReplayed {
    /// The line cannot be read.
    #[error(transparent)]
    Unreadable(DeadLetterError),
    /// The caller made no row of it.
    #[error(transparent)]
    NoRow(Box<dyn StdError + Send + Sync>),
    /// The row was not accepted.
    #[error(transparent)]
    Refused(SubmitError),
    /// The row was not written.
    #[error("{0}")]
    Failed(Outcome),
}

/// A replay stopped. The mark has what was replayed before; the next run continues there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The file cannot be read, or the mark cannot be read or written.
    #[error("the dead-letter file cannot be replayed: {0}")]
    File(#[from] io::Error),
    /// The pipeline accepts no rows: it was closed, or it is full and does not wait.
    #[error(transparent)]
    Submit(SubmitError),
    /// The pipeline ended because of a defect.
    #[error(transparent)]
    Flush(FlushError),
}

/// How far a file was replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// Every line before this byte was replayed, or is in `failed`.
    position: u64,
    /// Where the lines start that failed.
    failed: Vec<u64>,
}

impl Mark {
    fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                let text = format!("{} is not a mark of a replay: {error}; delete it to start anew", path.display());
                io::Error::new(ErrorKind::InvalidData, text)
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the mark as a whole, so that a crash leaves the old one or the new one.
    fn write(&self, path: &Path) -> io::Result<()> {
        replace_file(path, &serde_json::to_vec(self)?)
    }
}

type Entry = (u64, Result<DeadLetterLine, DeadLetterError>);

/// The lines that are left: first those that failed before, then those after the mark.
struct Lines {
    path: PathBuf,
    failed: std::vec::IntoIter<u64>,
    rest: DeadLetterReader,
}

impl Lines {
    /// The next lines of one kind; none at the end.
    fn chunk(&mut self) -> io::Result<Vec<Entry>> {
        let again: Vec<u64> = self.failed.by_ref().take(CHUNK).collect();
        if again.is_empty() {
            return self.rest.by_ref().take(CHUNK).collect();
        }
        let entry =
            |at| DeadLetterReader::open_at(&self.path, at)?.next().unwrap_or(Err(ErrorKind::UnexpectedEof.into()));
        again.into_iter().map(entry).collect()
    }
}

impl Replay {
    /// A replay of this file, with its mark next to it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mut mark = path.as_os_str().to_owned();
        mark.push(".mark");
        Self { path, mark: mark.into() }
    }

    /// Keeps the mark in another file, for example if the folder of the dead letters cannot be written.
    pub fn mark(mut self, path: impl Into<PathBuf>) -> Self {
        self.mark = path.into();
        self
    }

    /// Deletes the mark and the file; one that is not there is no error. The mark goes first, so that a crash between the
    /// two cannot leave a mark for another file of this name.
    ///
    /// # Errors
    /// One of them cannot be deleted.
    ///
    /// # Cancel safety
    /// Both are deleted nevertheless.
    pub async fn delete(self) -> io::Result<()> {
        let Self { path, mark } = self;
        let delete = |path: &Path| match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        on_thread(move || delete(&mark).and_then(|()| delete(&path))).await
    }

    /// Submits the rows again, in the order of their lines, and waits for their outcomes. `row_of` makes the row of each
    /// line, corrected if need be: an error keeps the line for the next run, and `None` drops it.
    ///
    /// Rows that fail again are in the report and in the mark, and also reach the dead-letter consumers of `db`.
    ///
    /// # Errors
    /// The file or its mark cannot be used, or the pipeline accepts no rows. What was replayed before is in the mark.
    ///
    /// # Cancel safety
    /// The mark keeps what was replayed up to the last 1,000 lines.
    pub async fn run<F>(self, db: &BatchSql, mut row_of: F) -> Result<ReplayReport, ReplayError>
    where
        F: FnMut(&DeadLetterLine) -> Result<Option<DynRow>, Box<dyn StdError + Send + Sync>>,
    {
        let Self { path, mark: mark_path } = self;
        let place = mark_path.clone();
        let opened = on_thread(move || {
            let mark = Mark::read(&place)?;
            let rest = DeadLetterReader::open_at(&path, mark.position)?;
            Ok((Lines { path, failed: mark.failed.clone().into_iter(), rest }, mark))
        });
        let (mut lines, mut mark) = opened.await?;
        let mut report = ReplayReport::default();
        loop {
            let (back, entries) = on_thread(move || lines.chunk().map(|entries| (lines, entries))).await?;
            lines = back;
            if entries.is_empty() {
                return Ok(report);
            }
            let tried: Vec<u64> = entries.iter().map(|(at, _)| *at).collect();
            let before = report.failed.len();
            let (at, rows) = rows_of(entries, &mut row_of, &mut report);
            db.replay_rows(&at, &rows, &mut report).await?;
            mark.failed.retain(|at| tried.binary_search(at).is_err());
            mark.failed.extend(report.failed[before..].iter().map(|failure| failure.position));
            mark.failed.sort_unstable();
            mark.position = lines.rest.position();
            let (now, place) = (mark.clone(), mark_path.clone());
            on_thread(move || now.write(&place)).await?;
        }
    }
}

/// The rows of lines, and where each line starts. The other lines are in the report.
fn rows_of<F>(entries: Vec<Entry>, row_of: &mut F, report: &mut ReplayReport) -> (Vec<u64>, Vec<DynRow>)
where
    F: FnMut(&DeadLetterLine) -> Result<Option<DynRow>, Box<dyn StdError + Send + Sync>>,
{
    let (mut positions, mut rows) = (Vec::new(), Vec::new());
    for (position, line) in entries {
        let row = line.map_err(NotReplayed::Unreadable).and_then(|line| row_of(&line).map_err(NotReplayed::NoRow));
        match row {
            Ok(Some(row)) => {
                positions.push(position);
                rows.push(row);
            }
            Ok(None) => report.skipped += 1,
            Err(reason) => report.failed.push(ReplayFailure { position, reason }),
        }
    }
    (positions, rows)
}

impl BatchSql {
    /// Submits rows and waits for their outcomes. A row that does not fit its table does not keep the others back.
    async fn replay_rows(&self, at: &[u64], rows: &[DynRow], report: &mut ReplayReport) -> Result<(), ReplayError> {
        let mut next = 0;
        while next < rows.len() {
            let (outcomes, refused) = self.submit_and_flush(&rows[next..]).await.map_err(ReplayError::Flush)?;
            report.counts.merge(&outcomes.counts);
            for (index, outcome) in outcomes.failed {
                report.failed.push(ReplayFailure { position: at[next + index], reason: NotReplayed::Failed(outcome) });
            }
            next += usize::try_from(outcomes.counts.total()).unwrap_or(usize::MAX);
            match refused {
                None => return Ok(()),
                Some(error) if error.row_error().is_none() => return Err(ReplayError::Submit(error)),
                Some(error) => {
                    report.failed.push(ReplayFailure { position: at[next], reason: NotReplayed::Refused(error) });
                    next += 1;
                }
            }
        }
        Ok(())
    }
}

/// Files block, so they are used on a thread for that.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
