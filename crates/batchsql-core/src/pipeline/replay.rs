//! Owns the replay of a dead-letter file: its rows are submitted again, and a mark says how far it came.
//! Must not know how rows are written.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use tokio::task::spawn_blocking;

use crate::outcome::letter_line::{DeadLetterError, DeadLetterLine};
use crate::outcome::letter_reader::DeadLetterReader;
use crate::outcome::outcomes::{Outcome, OutcomeCounts};
use crate::pipeline::error::{FlushError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::pipeline::replay_mark::{ReplayMark, remove};
use crate::row::dynamic::DynRow;

/// Lines that are submitted before the mark is written.
const CHUNK: usize = 1000;
/// Bytes of lines after which the mark is written before, because all of them are held.
const CHUNK_BYTES: u64 = 16 << 20;

/// The rows of a [dead-letter file](crate::DeadLetters::file), to be submitted again.
///
/// A mark next to the file (`failed.ndjson.mark`) has the position up to which it was replayed, and the lines before it
/// that failed again. It is written after each 1,000 lines or 16 MiB, when their rows have their outcomes. So a replay that was cut
/// off continues where it was, at most 1,000 rows are submitted twice, and a later replay starts with the lines that
/// failed. The mark also has a hash of what it has passed: a file that grew continues, and the mark of another file of this name is an
/// error. Where there are inode numbers, a lock of the file keeps a second replay away.
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
    /// Lines that were not replayed. They are tried by the next run.
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
    /// It is the last line and not complete: it is in the middle of its writing, or a process ended while it wrote it. The mark has not
    /// passed it.
    #[error("the last line is not complete: if nobody writes it any more, remove it, or begin a new line behind it")]
    Unfinished,
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

type Entry = (u64, Result<DeadLetterLine, DeadLetterError>);

/// The lines that are left: first those that failed before, then those after the mark. It has the lock of the file.
struct Lines {
    path: PathBuf,
    mark: ReplayMark,
    failed: std::vec::IntoIter<u64>,
    rest: DeadLetterReader,
    /// Whether lines have failed since the mark was written.
    has_more_failed: bool,
}

impl Lines {
    /// # Errors
    /// Another process replays the file, the mark is of another file, or one of the two cannot be read.
    fn open(path: PathBuf, mark: PathBuf) -> io::Result<Self> {
        let mark = ReplayMark::open(&path, mark)?;
        let rest = DeadLetterReader::open_at(&path, mark.position())?;
        let failed = mark.failed().collect::<Vec<_>>().into_iter();
        Ok(Self { path, mark, failed, rest, has_more_failed: false })
    }

    /// The next lines of one kind; none at the end.
    fn chunk(&mut self) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < CHUNK
            && bytes < CHUNK_BYTES
            && let Some(at) = self.failed.next()
        {
            let mut reader = DeadLetterReader::within(&self.path, at)?;
            match reader.next().transpose()? {
                Some(entry) if entry.0 == at => entries.push(entry),
                // An empty line, which earlier versions have noted.
                Some(_) => self.mark.note(at, true),
                None if reader.position() > at => self.mark.note(at, true),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            bytes += reader.position() - at;
        }
        if !entries.is_empty() {
            return Ok(entries);
        }
        let begin = self.rest.position();
        while entries.len() < CHUNK
            && self.rest.position() - begin < CHUNK_BYTES
            && let Some(entry) = self.rest.next()
        {
            entries.push(entry?);
        }
        Ok(entries)
    }

    /// Whether the mark has everything that was tried.
    fn are_noted(&self) -> bool {
        !self.has_more_failed && self.rest.position() == self.mark.position()
    }

    /// These lines were replayed, or failed; none at the end.
    fn pass(&mut self, tried: &[u64], failed: &[u64]) -> io::Result<()> {
        tried.iter().for_each(|at| self.mark.note(*at, true));
        failed.iter().for_each(|at| self.mark.note(*at, false));
        self.mark.advance(self.rest.position())?;
        // The mark has each line that failed, so many of these take long. Where nothing else was tried, a later run may try them again.
        self.has_more_failed = !tried.is_empty() && tried.len() == failed.len();
        if self.has_more_failed { Ok(()) } else { self.mark.write() }
    }
}

impl Replay {
    /// A replay of this file, with its mark next to it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let mark = ReplayMark::path_of(&path);
        Self { path, mark }
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
    /// One of them cannot be deleted, another process replays the file, or it has lines that the mark has not passed: they came
    /// after the replay, or there was none.
    ///
    /// # Cancel safety
    /// Both are deleted nevertheless.
    pub async fn delete(self) -> io::Result<()> {
        let Self { path, mark } = self;
        on_thread(move || match ReplayMark::open(&path, mark.clone()) {
            Err(error) if error.kind() == ErrorKind::NotFound => remove(&mark),
            opened => opened?.delete(),
        })
        .await
    }

    /// Submits the rows again, in the order of their lines, and waits for their outcomes. `row_of` makes the row of each
    /// line, corrected if need be: an error keeps the line for the next run, and `None` drops it.
    ///
    /// Rows that fail again are in the report and in the mark, and also reach the dead-letter consumers of `db`.
    ///
    /// # Errors
    /// The file or its mark cannot be used, another process replays the file, the mark is of another file, or the pipeline accepts
    /// no rows. What was replayed before is in the mark.
    ///
    /// # Cancel safety
    /// The mark keeps what was replayed up to the last 1,000 lines. A step with the file that has begun is finished: until then
    /// another run ends with an error.
    pub async fn run<F>(self, db: &BatchSql, mut row_of: F) -> Result<ReplayReport, ReplayError>
    where
        F: FnMut(&DeadLetterLine) -> Result<Option<DynRow>, Box<dyn StdError + Send + Sync>>,
    {
        let Self { path, mark } = self;
        let mut lines = on_thread(move || Lines::open(path, mark)).await?;
        let mut report = ReplayReport::default();
        loop {
            let (back, entries) = on_thread(move || lines.chunk().map(|entries| (lines, entries))).await?;
            lines = back;
            let is_end = entries.is_empty();
            if is_end && let Some(position) = lines.rest.unfinished() {
                report.failed.push(ReplayFailure { position, reason: NotReplayed::Unfinished });
            }
            if is_end && lines.are_noted() {
                return Ok(report);
            }
            let tried: Vec<u64> = entries.iter().map(|(at, _)| *at).collect();
            let before = report.failed.len();
            let (at, rows) = rows_of(entries, &mut row_of, &mut report);
            db.replay_rows(&at, &rows, &mut report).await?;
            let failed: Vec<u64> = report.failed[before..].iter().map(|failure| failure.position).collect();
            lines = on_thread(move || lines.pass(&tried, &failed).map(|()| lines)).await?;
            if is_end {
                return Ok(report);
            }
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
