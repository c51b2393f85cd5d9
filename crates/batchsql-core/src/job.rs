//! Owns a sealed batch on its way: whatever happens to it, each of its rows ends in one outcome.
//! Must not know who carries it or how it is written.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::batch::{Batch, Rows};
use crate::error::{ErrorClass, SinkError};
use crate::group::LaneId;
use crate::ledger::Ledger;
use crate::receipt::{Completion, FailedRow, FailureKind, Outcome, OutcomeCounts, OutcomeKind};
use crate::reporter::{BatchExecuted, BatchInfo, FlushReason};
use crate::retry::RetrySchedule;
use crate::sink::Written;

/// A batch that must end. Dropping it ends the rows that have no outcome yet: as `Unknown` while they
/// are being written (a panic, a deadline), as `Purged` otherwise.
pub(crate) struct Job {
    pub(crate) lane: LaneId,
    /// Which of its lane's batches it is.
    pub(crate) generation: u64,
    pub(crate) batch: Arc<Batch>,
    pub(crate) completion: Option<Arc<Completion>>,
    pub(crate) context: Option<Arc<str>>,
    pub(crate) opened_at: Instant,
    pub(crate) reason: FlushReason,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) progress: Progress,
}

/// How far a batch has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// Times that rows of the batch were sent.
    pub(crate) attempts: u32,
    /// The rows being written at this moment, and since when.
    pub(crate) writing: Option<(Range<usize>, Instant)>,
    /// An earlier attempt with the rows that are being worked on may have reached the database.
    pub(crate) maybe_committed: bool,
    /// The delays of this batch, and since when it is retried.
    pub(crate) retries: Option<(RetrySchedule, Instant)>,
    pub(crate) last_error: Option<SinkError>,
    counts: OutcomeCounts,
    /// Rejected rows by the class of their error, in the order of [`ErrorClass::ALL`].
    rejected: [u64; ErrorClass::ALL.len()],
    /// One entry per row; empty while nothing is decided, and for good when every row was written.
    ends: Vec<End>,
}

/// How one row ended.
#[derive(Clone)]
enum End {
    Open,
    Known(Outcome),
    /// It failed, and nobody asked to see it: it is only counted.
    Counted,
}

impl Job {
    /// All rows of the batch.
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::all(&self.batch)
    }

    /// Identifies the batch to the reporter.
    pub(crate) fn info(&self) -> BatchInfo<'_> {
        BatchInfo {
            table: self.batch.schema().table_display(),
            context: self.context.as_ref(),
            rows: self.batch.len(),
            bytes: self.batch.bytes(),
        }
    }

    /// Enters a committed write of `range`.
    pub(crate) fn written(&mut self, range: Range<usize>, written: &Written) {
        if !is_sound(written, range.len()) {
            let error = SinkError::new(ErrorClass::Internal, "the sink told outcomes of rows that it was not given");
            return self.failed(range, FailureKind::Unknown, Some(&error));
        }
        let plain = written.ignored.is_empty() && written.rejected.is_empty();
        if plain && range == (0..self.batch.len()) {
            self.progress.counts.add(OutcomeKind::Written, range.len() as u64);
            return;
        }
        for row in &written.ignored {
            self.decide(range.start + *row as usize, Outcome::Ignored);
        }
        for (row, error) in &written.rejected {
            self.fail(range.start + *row as usize, FailureKind::Rejected, Some(error));
        }
        for row in range {
            if self.is_open(row) {
                self.decide(row, Outcome::Written);
            }
        }
    }

    /// Ends the rows of `range` that have no outcome yet.
    pub(crate) fn failed(&mut self, range: Range<usize>, kind: FailureKind, error: Option<&SinkError>) {
        for row in range {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
        }
    }

    fn fail(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        if let (FailureKind::Rejected, Some(error)) = (kind, error) {
            self.progress.rejected[error.class() as usize] += 1;
        }
        // The row is copied only for someone who will look at it.
        if self.completion.is_some() || self.ledger.wants_failed_rows() {
            let failed = FailedRow::new(self.batch.row(row), self.progress.attempts, error.cloned());
            self.decide(row, Outcome::failed(kind, failed));
        } else {
            self.progress.counts.add(kind.into(), 1);
            self.mark(row, End::Counted);
        }
    }

    fn decide(&mut self, row: usize, outcome: Outcome) {
        self.progress.counts.add(outcome.kind(), 1);
        self.mark(row, End::Known(outcome));
    }

    fn mark(&mut self, row: usize, end: End) {
        if self.progress.ends.is_empty() {
            self.progress.ends.resize(self.batch.len(), End::Open);
        }
        self.progress.ends[row] = end;
    }

    fn open_rows(&self) -> u64 {
        self.batch.len() as u64 - self.progress.counts.total()
    }

    fn is_open(&self, row: usize) -> bool {
        self.open_rows() > 0 && self.progress.ends.get(row).is_none_or(|end| matches!(end, End::Open))
    }
}

/// Whether the rows listed are rows of the write, each once.
fn is_sound(written: &Written, rows: usize) -> bool {
    let mut listed: Vec<u32> =
        written.ignored.iter().copied().chain(written.rejected.iter().map(|(row, _)| *row)).collect();
    listed.sort_unstable();
    listed.windows(2).all(|pair| pair[0] != pair[1]) && listed.last().is_none_or(|last| (*last as usize) < rows)
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.open_rows() > 0 {
            let error = self.progress.last_error.clone();
            if let Some((rows, since)) = self.progress.writing.take() {
                let executed =
                    BatchExecuted { rows: rows.len(), duration: since.elapsed(), error: Some(ErrorClass::Unknown) };
                self.ledger.reporter.call(|reporter| reporter.batch_executed(&self.info(), &executed));
                self.failed(rows, FailureKind::Unknown, error.as_ref());
            }
            let kind = if self.progress.maybe_committed { FailureKind::Unknown } else { FailureKind::Purged };
            self.failed(0..self.batch.len(), kind, error.as_ref());
        }
        let known = |end| match end {
            End::Known(outcome) => Some(outcome),
            End::Open | End::Counted => None,
        };
        let outcomes = std::mem::take(&mut self.progress.ends).into_iter().filter_map(known).collect();
        for (class, rows) in ErrorClass::ALL.into_iter().zip(self.progress.rejected).filter(|(_, rows)| *rows > 0) {
            self.ledger.reporter.call(|reporter| reporter.rows_rejected(&self.info(), class, rows));
        }
        self.ledger.settle(self.info(), &self.progress.counts, outcomes, self.completion.as_deref());
    }
}
