//! Owns a sealed batch on its way: whatever happens to it, each of its rows ends in one outcome.
//! Must not know who carries it or how it is written.
//!
//! A batch is written in rounds. The first round has the last row of each key, or all rows where rows are
//! not coalesced, sorted by key where the sink asks for it. When a row was convicted, the row before it with the same
//! key has its turn in the next round; so have rows that the sink could not finish, after a rest.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ErrorClass, SinkError};
use crate::intake::group::Group;
use crate::intake::table::{LaneId, OpenId};
use crate::model::batch::{Batch, Rows};
use crate::model::keys;
use crate::outcome::ledger::Ledger;
use crate::outcome::outcomes::{FailedRow, FailureKind, Outcome, OutcomeCounts, OutcomeKind};
use crate::outcome::receipt::Completion;
use crate::reporter::{BatchExecuted, BatchInfo, FlushReason};
use crate::write::attempt::Attempt;
use crate::write::isolate::Search;
use crate::write::retry::RetrySchedule;
use crate::write::round::{MaybeWritten, Round};
use crate::write::sink::Written;

/// A batch that must end. Dropping it ends the rows that have no outcome yet: as `Unknown` while they
/// are being written (a panic, a deadline), as `Purged` otherwise.
pub(crate) struct Job {
    pub(crate) lane: LaneId,
    /// Which of the batches of its lane and group it is.
    pub(crate) generation: u64,
    pub(crate) batch: Arc<Batch>,
    pub(crate) group: Arc<Group>,
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
    pub(crate) writing: Option<(Range<usize>, Instant, Attempt)>,
    /// The delays of this batch, and since when it is retried.
    pub(crate) retries: Option<(RetrySchedule, Instant)>,
    pub(crate) last_error: Option<SinkError>,
    /// The error of the row that failed last, for the log.
    logged_error: Option<SinkError>,
    /// How long the last write took, and whether rows were written since the job was last taken up.
    pub(crate) wrote: Option<(Duration, bool)>,
    /// The last error for which bad rows were searched.
    pub(crate) refusal: Option<SinkError>,
    /// It is given up for newer rows, as configured.
    pub(crate) makes_room: bool,
    /// What is left of the round; `None` before the first.
    pub(crate) search: Option<Search>,
    /// `None` while all rows are written as they are.
    round: Option<Round>,
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
    /// The open batch that it was.
    pub(crate) fn open_id(&self) -> OpenId {
        OpenId { lane: self.lane, group: self.group.number }
    }

    /// Begins the first round.
    pub(crate) fn begin(&mut self, coalesces: bool, sorts: bool, budget: usize) {
        let last_wins = coalesces && keys::is_last_wins(self.batch.schema());
        if (last_wins || sorts)
            && let Some(arranged) = keys::arrange(Rows::all(&self.batch), last_wins, sorts)
        {
            self.progress.round = Some(Round::arranged(arranged, sorts));
        }
        let rows = self.rows().len();
        self.progress.search = Some(Search::new(rows, budget));
    }

    /// Begins a round with the rows whose successors were convicted and with those that are unfinished; false when
    /// there is none.
    pub(crate) fn begin_next_round(&mut self) -> bool {
        let Progress { round, search, .. } = &mut self.progress;
        let Some(rows) = round.as_mut().and_then(|round| round.begin_next(&self.batch)) else { return false };
        search.as_mut().expect("a round was begun").next_round(rows);
        true
    }

    /// The rows of the round.
    pub(crate) fn rows(&mut self) -> Rows<'_> {
        match &mut self.progress.round {
            Some(round) => round.rows(&self.batch),
            None => Rows::all(&self.batch),
        }
    }

    /// Holds its rows only once while it waits.
    pub(crate) fn rest(&mut self) {
        self.progress.round.iter_mut().for_each(Round::rest);
    }

    /// Whether rows ended without being in the database.
    pub(crate) fn has_failed_rows(&self) -> bool {
        self.progress.counts.failed() > 0
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

    /// Enters a committed write of a range of the round. `repeats` says whether rows may be sent again that may be
    /// in the database.
    pub(crate) fn written(&mut self, range: Range<usize>, written: &Written, repeats: bool) {
        if !written.is_sound(range.len()) {
            let error = SinkError::new(ErrorClass::Internal, "the sink told outcomes of rows that it was not given");
            return self.failed(range, FailureKind::Unknown, Some(&error));
        }
        let plain = written.ignored.is_empty() && written.rejected.is_empty() && written.unfinished.is_empty();
        if plain && range == (0..self.batch.len()) {
            // A round of as many rows supersedes none.
            self.progress.counts.add(OutcomeKind::Written, range.len() as u64);
            return;
        }
        let mut special = vec![None; if plain { 0 } else { range.len() }];
        written.ignored.iter().for_each(|row| special[*row as usize] = Some(None));
        let failed = written.rejected.iter().chain(&written.unfinished);
        failed.for_each(|(row, error)| special[*row as usize] = Some(Some(error)));
        let is_unfinished = |row: usize| {
            let row = (row - range.start) as u32;
            written.unfinished.binary_search_by_key(&row, |(row, _)| *row).is_ok()
        };
        for row in range.clone() {
            match special.get(row - range.start).copied().flatten() {
                None => self.succeed(row, Outcome::Written),
                Some(None) => self.succeed(row, Outcome::Ignored),
                Some(Some(error)) if is_unfinished(row) && error.is_retryable() => self.round().leave(row),
                Some(Some(error)) if is_unfinished(row) && error.class() == ErrorClass::Unknown => {
                    self.may_have_written(row..row + 1);
                    if repeats {
                        self.round().leave(row);
                    } else {
                        self.failed(row..row + 1, FailureKind::Unknown, Some(error));
                    }
                }
                // The attempt whose reply was lost may have written it.
                Some(Some(error)) if self.is_maybe_written(self.row_of_batch(row)) => {
                    self.failed(row..row + 1, FailureKind::Unknown, Some(error));
                }
                Some(Some(error)) => self.convict(row, error),
            }
        }
    }

    /// Rejects one row of the round; the row before it with the same key has its turn next.
    pub(crate) fn convict(&mut self, row: usize, error: &SinkError) {
        self.progress.refusal = Some(error.clone());
        let row = self.row_of_batch(row);
        self.fail(row, FailureKind::Rejected, Some(error));
        if let Some(round) = &mut self.progress.round {
            round.give_turn_to_row_before(row);
        }
    }

    /// Says that a range of the round may be in the database.
    pub(crate) fn may_have_written(&mut self, range: Range<usize>) {
        self.round().may_have_written(range);
    }

    /// Whether rows of a range of the round may be in the database.
    pub(crate) fn has_maybe_written(&self, mut range: Range<usize>) -> bool {
        range.any(|row| self.is_maybe_written(self.row_of_batch(row)))
    }

    /// Ends the rows of a range of the round that may be in the database, after the range was refused, and leaves
    /// the others to the next round. They are not looked at more closely: writing only some of them again could put
    /// an older version of a key over a newer one. True when rows have the next round.
    pub(crate) fn fail_maybe_written(&mut self, range: Range<usize>, error: &SinkError) -> bool {
        let Some(round) = &mut self.progress.round else { return false };
        let MaybeWritten { rows, overtaken } = round.maybe_written(&self.batch, range.clone());
        let mut leaves = false;
        for (place, row) in range.enumerate() {
            if rows[place] || overtaken[place] {
                self.failed(row..row + 1, FailureKind::Rejected, Some(error));
            } else {
                self.postpone(row..row + 1);
                leaves = true;
            }
        }
        leaves
    }

    /// Leaves a range of the round to the next one.
    pub(crate) fn postpone(&mut self, range: Range<usize>) {
        self.round().postpone(range);
    }

    /// Whether rows are left to the next round because the sink could not finish them.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.progress.round.as_ref().is_some_and(Round::has_unfinished)
    }

    /// Ends the rows that the sink could not finish: those that may be in the database as `Unknown`.
    pub(crate) fn fail_unfinished(&mut self, kind: FailureKind, error: Option<&SinkError>) {
        for row in self.progress.round.as_mut().map(Round::take_unfinished).unwrap_or_default() {
            self.fail_with_elders(row as usize, kind, error);
        }
    }

    /// Ends the rows of a range of the round, and the rows that they would have superseded: those that may be in the
    /// database as `Unknown`.
    pub(crate) fn failed(&mut self, range: Range<usize>, kind: FailureKind, error: Option<&SinkError>) {
        for row in range {
            self.fail_with_elders(self.row_of_batch(row), kind, error);
        }
    }

    /// Ends a row of the batch, and the rows that it would have superseded.
    fn fail_with_elders(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        let kind = if self.is_maybe_written(row) { FailureKind::Unknown } else { kind };
        let mut next = Some(row);
        while let Some(row) = next {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
            next = self.row_before(row);
        }
    }

    /// Ends every row that has no outcome yet.
    pub(crate) fn failed_rest(&mut self, kind: FailureKind, error: Option<&SinkError>) {
        for row in 0..self.batch.len() {
            if self.is_maybe_written(row) && self.is_open(row) {
                self.fail_with_elders(row, kind, error);
            }
        }
        for row in 0..self.batch.len() {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
        }
    }

    /// Ends a row of the round that was not refused, and the rows that it supersedes.
    fn succeed(&mut self, row: usize, outcome: Outcome) {
        let row = self.row_of_batch(row);
        self.decide(row, outcome);
        let mut next = self.row_before(row);
        while let Some(row) = next {
            self.decide(row, Outcome::Superseded);
            next = self.row_before(row);
        }
    }

    /// The round; all rows as they are, when there was none.
    fn round(&mut self) -> &mut Round {
        self.progress.round.get_or_insert_with(|| Round::whole(self.batch.len()))
    }

    fn row_of_batch(&self, row: usize) -> usize {
        self.progress.round.as_ref().map_or(row, |round| round.row_of_batch(row))
    }

    /// The row before a row of the batch, with the same key.
    fn row_before(&self, row: usize) -> Option<usize> {
        self.progress.round.as_ref()?.row_before(row)
    }

    /// Whether a row of the batch may be in the database.
    fn is_maybe_written(&self, row: usize) -> bool {
        self.progress.round.as_ref().is_some_and(|round| round.is_maybe_written(row))
    }

    fn fail(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        if let Some(error) = error {
            self.progress.logged_error = Some(error.clone());
        }
        if let (FailureKind::Rejected, Some(error)) = (kind, error) {
            self.progress.rejected[error.class() as usize] += 1;
        }
        // The row is copied only for someone who will look at it.
        if self.completion.is_some() || self.ledger.wants_failed_rows() {
            let failed = FailedRow::new(self.batch.row(row), self.progress.attempts, error.cloned());
            self.decide(row, Outcome::failed(kind, failed));
        } else {
            self.progress.counts.add(kind.outcome(), 1);
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
        debug_assert!(matches!(self.progress.ends[row], End::Open), "no row ends twice");
        self.progress.ends[row] = end;
    }

    fn open_rows(&self) -> u64 {
        self.batch.len() as u64 - self.progress.counts.total()
    }

    fn is_open(&self, row: usize) -> bool {
        self.open_rows() > 0 && self.progress.ends.get(row).is_none_or(|end| matches!(end, End::Open))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.open_rows() > 0 {
            let given_up = |class, what: &str| {
                let why = if std::thread::panicking() {
                    SinkError::new(ErrorClass::Internal, format!("the sink panicked {what} this row was sent"))
                } else {
                    let text = format!("given up {what} it was sent: by the deadline of close(), or with its runtime");
                    SinkError::new(class, text)
                };
                Some(why)
            };
            if let Some((rows, since, attempt)) = self.progress.writing.take()
                && !attempt.abandon()
            {
                let executed =
                    BatchExecuted { rows: rows.len(), duration: since.elapsed(), error: Some(ErrorClass::Unknown) };
                self.ledger.reporter.call(|reporter| reporter.batch_executed(&self.info(), &executed));
                self.failed(rows, FailureKind::Unknown, given_up(ErrorClass::Unknown, "after").as_ref());
            }
            // What was said of other rows is no reason for these.
            let is_of_all = |error: &SinkError| {
                let of_some = matches!(error.class(), ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate);
                !of_some && !std::thread::panicking()
            };
            let error = self.progress.last_error.clone().filter(is_of_all);
            let error = error.or_else(|| given_up(ErrorClass::Transient, "before"));
            self.failed_rest(FailureKind::Purged, error.as_ref());
        }
        if self.progress.counts.failed() > 0 && !self.progress.makes_room {
            let (counts, error) = (self.progress.counts, self.progress.logged_error.as_ref());
            let error = error.map(tracing::field::display);
            tracing::error!(
                table = self.batch.schema().table_display(),
                ?counts,
                error,
                "rows of this batch were not written"
            );
        }
        let known = |end| match end {
            End::Known(outcome) => Some(outcome),
            End::Open | End::Counted => None,
        };
        let outcomes = std::mem::take(&mut self.progress.ends).into_iter().filter_map(known).collect();
        for (class, rows) in ErrorClass::ALL.into_iter().zip(self.progress.rejected).filter(|(_, rows)| *rows > 0) {
            self.ledger.reporter.call(|reporter| reporter.rows_rejected(&self.info(), class, rows));
        }
        self.group.job_ended(self.batch.len(), self.batch.bytes());
        self.ledger.settle(self.info(), &self.progress.counts, outcomes, self.completion.as_deref());
    }
}
