//! Owns a sealed batch until its end: whatever happens to it, each of its rows ends in one outcome.
//! Must not know who carries it or how it is written.
//!
//! A batch is written in rounds, see [`round`](crate::write::round).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::budget::share::ShareHold;
use crate::config_table::TableSettings;
use crate::error::{ErrorClass, SinkError};
use crate::model::batch::{Batch, Rows};
use crate::model::conflict::Action;
use crate::model::keys::{self, Coalescing};
use crate::model::value::Value;
use crate::outcome::outcomes::{FailedRow, FailureKind, Outcome, OutcomeCounts, OutcomeKind};
use crate::outcome::receipt::{Completion, Returned};
use crate::outcome::tracking::Submitters;
use crate::reporter::{BatchExecuted, BatchInfo, BatchSealed, FlushReason};
use crate::row::traits::Row;
use crate::write::attempt::Attempt;
use crate::write::batch_limit::BatchLimit;
use crate::write::commits::Commits;
use crate::write::context::PipelineContext;
use crate::write::doubt::Doubt;
use crate::write::failure_log::FailureLog;
use crate::write::ids::{GroupId, LaneId};
use crate::write::isolate::Search;
use crate::write::repeated::Repeated;
use crate::write::retry::RetrySchedule;
use crate::write::round::{MaybeWritten, Round};
use crate::write::sink::Written;

/// A batch that must end. Dropping it ends the rows that have no outcome yet: as `Unknown` while they
/// are being written (a panic, a deadline), as `Purged` otherwise.
pub(crate) struct Job {
    /// Lower than that of every batch that was sealed later.
    pub(crate) number: u64,
    pub(crate) lane: LaneId,
    pub(crate) group: GroupId,
    /// Whether rows of its lane keep their order.
    pub(crate) is_ordered: bool,
    pub(crate) batch: Arc<Batch>,
    /// When its oldest row was accepted; if it took over other batches after a try, when the newest of them was opened.
    pub(crate) opened_at: Instant,
    /// When its oldest row was accepted.
    pub(crate) first_opened_at: Instant,
    /// When the last of its rows is older than `max_age`.
    pub(crate) expires_at: Option<Instant>,
    pub(crate) reason: FlushReason,
    pub(crate) limit: Arc<BatchLimit>,
    pub(crate) pipeline: Arc<PipelineContext>,
    pub(crate) progress: Progress,
    context: Option<Arc<str>>,
    /// The completions of its rows, from the first row to the last.
    parts: Vec<Part>,
    submitters: Submitters,
    share: ShareHold,
    /// Of its group. Keeps the group from being removed.
    pub(crate) commits: Arc<Commits>,
    /// It was merged into another batch, and holds nothing.
    is_absorbed: bool,
}

/// Rows of a batch that were sealed together.
struct Part {
    rows: usize,
    completion: Option<Arc<Completion>>,
}

/// What a batch is made of when it is sealed.
pub(crate) struct Sealed {
    pub(crate) lane: LaneId,
    pub(crate) group: GroupId,
    pub(crate) commits: Arc<Commits>,
    pub(crate) is_ordered: bool,
    pub(crate) batch: Batch,
    pub(crate) opened_at: Instant,
    pub(crate) reason: FlushReason,
    pub(crate) limit: Arc<BatchLimit>,
    pub(crate) completion: Option<Arc<Completion>>,
    pub(crate) submitters: Submitters,
    pub(crate) share: ShareHold,
}

/// The progress of a batch.
#[derive(Default)]
pub(crate) struct Progress {
    /// Times that rows of the batch were sent.
    pub(crate) attempts: u32,
    /// The rows being written at this moment, and since when.
    pub(crate) writing: Option<(Range<usize>, Instant, Attempt)>,
    /// When the last try of rows of it began.
    pub(crate) tried_at: Option<Instant>,
    /// The delays of this batch, and since when it is retried.
    pub(crate) retries: Option<(RetrySchedule, Instant)>,
    /// Since when batches before it are retried, in the same lane.
    pub(crate) fails_since: Option<Instant>,
    /// The error with which rows of it were given up because `retry_for` was over.
    pub(crate) expired: Option<SinkError>,
    pub(crate) last_error: Option<SinkError>,
    /// Attempts that were abandoned because the connection was dead.
    pub(crate) dead_links: u32,
    /// Times that all of its rows were sent.
    attempts_of_all: u32,
    /// For each row the times that it was sent with only some of the others; empty until then.
    attempts_of_some: Vec<u32>,
    pub(crate) failure_log: FailureLog,
    /// Whether rows were written since the job was last resumed.
    pub(crate) has_written: bool,
    /// The last error for which bad rows were searched.
    pub(crate) refusal: Option<SinkError>,
    /// An error that the table or one row may have caused.
    pub(crate) doubt: Option<Doubt>,
    /// A transient error that may be one row's.
    pub(crate) repeated: Option<Repeated>,
    /// Whether the table was checked again since the job was last resumed.
    pub(crate) has_looked_again: bool,
    is_reported: bool,
    /// No part of it may be written without the rest.
    pub(crate) is_atomic: bool,
    /// It is dropped for newer rows, as configured.
    pub(crate) frees_capacity: bool,
    /// What is left of the round; `None` before the first.
    pub(crate) search: Option<Search>,
    /// `None` while all rows are written as they are.
    round: Option<Round>,
    counts: OutcomeCounts,
    /// Rejected rows by the class of their error, in the order of [`ErrorClass::ALL`].
    rejected: [u64; ErrorClass::ALL.len()],
    /// One entry per row; empty while nothing is decided, and for good when every row was written.
    ends: Vec<End>,
    /// What the database returned for rows of the batch.
    returned: HashMap<usize, Arc<[Value]>>,
}

/// How one row ended.
#[derive(Clone)]
enum End {
    Open,
    Known(Outcome),
    /// It failed, and has no receipt or consumer: it is only counted.
    Counted,
}

impl End {
    fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Known(outcome) => Some(outcome),
            Self::Open | Self::Counted => None,
        }
    }
}

impl Job {
    pub(crate) fn new(sealed: Sealed, pipeline: Arc<PipelineContext>) -> Self {
        let Sealed { lane, group, commits, is_ordered, batch, opened_at, reason, limit, completion, submitters, share } =
            sealed;
        Self {
            number: pipeline.outstanding.begin(opened_at),
            lane,
            group,
            is_ordered,
            parts: vec![Part { rows: batch.len(), completion }],
            batch: Arc::new(batch),
            opened_at,
            first_opened_at: opened_at,
            // Its last row was accepted at this time at the latest.
            expires_at: limit.settings.max_age.map(|max_age| Instant::now() + max_age),
            reason,
            limit,
            context: pipeline.reporter.call(|reporter| reporter.context()),
            pipeline,
            progress: Progress::default(),
            submitters,
            share,
            commits,
            is_absorbed: false,
        }
    }

    /// The settings of its table.
    pub(crate) fn settings(&self) -> &TableSettings {
        &self.limit.settings
    }

    /// Whether all of its rows were older than `max_age` at a time.
    pub(crate) fn is_too_old(&self, at: Instant) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }

    /// When a batch that was tried should have its last try: the end of `retry_for` or of `max_age`.
    pub(crate) fn last_try_at(&self) -> Option<Instant> {
        let retried = self.progress.retries.as_ref().and_then(|(retries, since)| since.checked_add(retries.budget()));
        retried.into_iter().chain(self.expires_at).min()
    }

    /// Whether another batch has rows of the same group and context.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.group == other.group && self.context == other.context
    }

    /// Whether none of its rows has an outcome or may be in the database.
    pub(crate) fn is_untouched(&self) -> bool {
        let round = self.progress.round.as_ref();
        self.progress.counts.total() == 0 && round.is_none_or(|round| !round.has_maybe_written())
    }

    /// Discards the round, so that a new one begins with the rows that are taken over.
    pub(crate) fn begin_anew(&mut self) {
        let Progress { attempts_of_all, attempts_of_some, .. } = &mut self.progress;
        attempts_of_some.resize(self.batch.len(), 0);
        attempts_of_some.iter_mut().for_each(|attempts| *attempts += *attempts_of_all);
        *attempts_of_all = 0;
        self.progress.search = None;
        self.progress.round = None;
    }

    /// What is left of the round that was begun.
    pub(crate) fn search(&mut self) -> &mut Search {
        self.progress.search.as_mut().expect("a job is begun before it is run")
    }

    /// Takes over the rows of batches that were sealed after this one, in their order. None of those was begun.
    pub(crate) fn absorb(&mut self, others: Vec<Self>) {
        if others.is_empty() {
            return;
        }
        let mut batches = Vec::with_capacity(others.len());
        for mut other in others {
            self.parts.append(&mut other.parts);
            self.submitters.absorb(&other.submitters);
            self.share.absorb(&mut other.share);
            self.first_opened_at = self.first_opened_at.min(other.first_opened_at);
            self.expires_at = self.expires_at.max(other.expires_at);
            self.opened_at = match self.progress.attempts {
                0 => self.opened_at.min(other.opened_at),
                // The others must have their whole time.
                _ => self.opened_at.max(other.opened_at),
            };
            other.is_absorbed = true;
            batches.push(Arc::clone(&other.batch));
            self.pipeline.outstanding.end(other.number);
        }
        match Arc::get_mut(&mut self.batch) {
            Some(batch) => batch.append(&batches),
            // No sink has seen it, or none keeps a copy.
            None => unreachable!("a batch that takes over others has one owner"),
        }
    }

    /// Begins the first round.
    pub(crate) fn begin(&mut self, coalesces: bool, sorts: bool, budget: usize, max_rows: usize) {
        let coalescing = if coalesces { Coalescing::of(self.batch.schema()) } else { Coalescing::Off };
        if (coalescing != Coalescing::Off || sorts)
            && let Some(arranged) = keys::arrange(Rows::all(&self.batch), coalescing, sorts)
        {
            self.progress.round = Some(Round::arranged(arranged, sorts));
        }
        let rows = self.rows().len();
        let mut search = Search::new(rows, budget);
        search.limit_rows(max_rows);
        self.progress.search = Some(search);
    }

    /// Begins a round with the rows whose successors were rejected and with those that are unfinished; false if there
    /// are none.
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

    /// Drops the copy of its rows while it waits.
    pub(crate) fn release_copy(&mut self) {
        self.progress.round.iter_mut().for_each(Round::release_copy);
    }

    /// Its rows that have an outcome.
    pub(crate) fn counts(&self) -> OutcomeCounts {
        self.progress.counts
    }

    /// The callers that submitted its tracked rows.
    pub(crate) fn submitters(&self) -> &Submitters {
        &self.submitters
    }

    /// Whether rows ended without being in the database.
    pub(crate) fn has_failed_rows(&self) -> bool {
        self.progress.counts.failed() > 0
    }

    /// Reports the batch to the reporter, once, before anything else of it is reported.
    pub(crate) fn report_sealed(&mut self) {
        if !std::mem::replace(&mut self.progress.is_reported, true) {
            let sealed = BatchSealed { reason: self.reason };
            self.pipeline.reporter.call(|reporter| reporter.batch_sealed(&self.info(), &sealed));
        }
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

    /// Records a committed write of a range of the round. `repeats` says whether rows may be sent again that may be in
    /// the database.
    pub(crate) fn written(&mut self, range: Range<usize>, written: &Written, repeats: bool) {
        if !written.is_sound(range.len()) {
            let error = SinkError::new(ErrorClass::Internal, "the sink reported outcomes of rows that it did not get");
            return self.failed(range, FailureKind::Unknown, Some(&error));
        }
        self.keep_returned(&range, written);
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
                Some(None) => self.ignored(row),
                Some(Some(error)) if is_unfinished(row) && error.is_retryable() => self.round().leave(row),
                Some(Some(error)) if is_unfinished(row) && error.class() == ErrorClass::Unknown => {
                    self.may_have_written(row..row + 1, error);
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
                Some(Some(error)) => self.reject_row(row, error),
            }
        }
    }

    /// Keeps the values that the database returned, for receipts. Rows that were merged into one have its values.
    fn keep_returned(&mut self, range: &Range<usize>, written: &Written) {
        if written.returned.is_empty() || self.parts.iter().all(|part| part.completion.is_none()) {
            return;
        }
        let is_merged = self.progress.round.as_ref().is_some_and(|round| round.coalescing() == Coalescing::Merged);
        for (row, values) in &written.returned {
            let values: Arc<[Value]> = values.as_slice().into();
            let mut next = Some(self.row_of_batch(range.start + *row as usize));
            while let Some(row) = next {
                self.progress.returned.insert(row, Arc::clone(&values));
                next = self.row_before(row).filter(|_| is_merged);
            }
        }
    }

    /// Rejects one row of the round; the row behind it with the same key is sent next. If rows were merged into it, they
    /// are sent one by one instead.
    pub(crate) fn reject_row(&mut self, row: usize, error: &SinkError) {
        self.progress.refusal = Some(error.clone());
        self.fail_alone(row, FailureKind::Rejected, error);
    }

    /// Ends one row of the round that was refused alone with a transient error when its time was over. The rows behind it
    /// were not sent: they have their turn as after a rejected row.
    pub(crate) fn expire_row(&mut self, row: usize, error: &SinkError) {
        self.fail_alone(row, FailureKind::Expired, error);
    }

    /// How many rows of the batch a row of the round stands for.
    pub(crate) fn rows_behind(&self, row: usize) -> usize {
        std::iter::successors(Some(self.row_of_batch(row)), |row| self.open_row_before(*row)).count()
    }

    fn fail_alone(&mut self, row: usize, kind: FailureKind, error: &SinkError) {
        let row = self.row_of_batch(row);
        if self.round().send_apart(row) {
            return;
        }
        self.fail(row, kind, Some(error));
        if let Some(before) = self.open_row_before(row) {
            self.round().give_turn(before);
        }
    }

    /// The row before a row of the batch, with the same key, when it has no outcome yet.
    fn open_row_before(&self, row: usize) -> Option<usize> {
        self.row_before(row).filter(|before| self.is_open(*before))
    }

    /// Records that a range of the round may be in the database since an attempt that ended with `error`.
    pub(crate) fn may_have_written(&mut self, range: Range<usize>, error: &SinkError) {
        self.round().may_have_written(range, error);
    }

    /// Whether rows of a range of the round may be in the database.
    pub(crate) fn has_maybe_written(&self, mut range: Range<usize>) -> bool {
        range.any(|row| self.is_maybe_written(self.row_of_batch(row)))
    }

    /// Ends the rows of a range of the round that may be in the database, after the range was refused, and leaves the
    /// others to the next round. They are not tried in parts: writing only some of them again could overwrite a newer
    /// version of a key with an older one. True if rows are left to the next round.
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
            self.fail_with_predecessors(row as usize, kind, error);
        }
    }

    /// Ends the rows of a range of the round, and the rows that they would have superseded: those that may be in the
    /// database as `Unknown`.
    pub(crate) fn failed(&mut self, range: Range<usize>, kind: FailureKind, error: Option<&SinkError>) {
        for row in range {
            self.fail_with_predecessors(self.row_of_batch(row), kind, error);
        }
    }

    /// Ends a row of the batch, and the rows that it would have superseded.
    fn fail_with_predecessors(&mut self, row: usize, kind: FailureKind, error: Option<&SinkError>) {
        // The error is that of the attempt that may have written it, not that of a later one.
        let since = self.progress.round.as_ref().and_then(|round| round.maybe_written_since(row)).cloned();
        let (kind, error) = match &since {
            Some(since) => (FailureKind::Unknown, Some(since)),
            None => (kind, error),
        };
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
                self.fail_with_predecessors(row, kind, error);
            }
        }
        for row in 0..self.batch.len() {
            if self.is_open(row) {
                self.fail(row, kind, error);
            }
        }
    }

    /// Ends a row of the round that was not refused, and the rows behind it.
    fn succeed(&mut self, row: usize, outcome: Outcome) {
        let row = self.row_of_batch(row);
        let coalescing = self.progress.round.as_ref().map_or(Coalescing::Off, Round::coalescing);
        let mut next = self.row_before(row);
        while let Some(behind) = next.filter(|row| self.is_open(*row)) {
            self.decide(
                behind,
                match coalescing {
                    Coalescing::Merged => outcome.clone(),
                    // An older row that came later.
                    Coalescing::Newest(_) if behind > row => Outcome::Ignored,
                    Coalescing::Off | Coalescing::Last | Coalescing::Newest(_) => Outcome::Superseded,
                },
            );
            next = self.row_before(behind);
        }
        self.decide(row, outcome);
    }

    /// The database ignored a row of the round. The row has superseded nothing: the row before it is sent, and then it
    /// is sent again. A batch that must be atomic is sent once, so the rows before it end as it does. So do older
    /// versions of the row, rows that were merged into it, and rows of a key that is not in the table.
    fn ignored(&mut self, row: usize) {
        let row = self.row_of_batch(row);
        let is_sent_again = self.progress.round.as_ref().is_some_and(|round| round.is_sent_again(row));
        let is_overwriting = self.progress.round.as_ref().is_some_and(|round| round.coalescing() == Coalescing::Last)
            && !matches!(self.batch.schema().action(), Action::UpdateOnly | Action::Delete);
        match self.open_row_before(row) {
            Some(before) if is_overwriting && !self.progress.is_atomic && !is_sent_again => {
                self.round().send_again_after(before, row);
            }
            _ => {
                let mut next = Some(row);
                while let Some(row) = next.filter(|row| self.is_open(*row)) {
                    self.decide(row, Outcome::Ignored);
                    next = self.row_before(row);
                }
            }
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
            self.progress.failure_log.note(error);
        }
        if let (FailureKind::Rejected, Some(error)) = (kind, error) {
            self.progress.rejected[error.class() as usize] += 1;
        }
        // The row is copied only if a receipt or a consumer gets it.
        if self.parts.iter().any(|part| part.completion.is_some()) || self.pipeline.ledger.wants_failed_rows() {
            let failed = FailedRow::new(self.batch.row(row), self.attempts_of(row), error.cloned());
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
        if let Some(round) = &mut self.progress.round {
            round.ended(row);
        }
    }

    /// Rows of a range of the round are sent once more.
    pub(crate) fn count_attempt(&mut self, range: &Range<usize>) {
        self.progress.attempts += 1;
        if *range == (0..self.batch.len()) {
            self.progress.attempts_of_all += 1;
            return;
        }
        let mut attempts = std::mem::take(&mut self.progress.attempts_of_some);
        attempts.resize(self.batch.len(), 0);
        range.clone().for_each(|row| attempts[self.row_of_batch(row)] += 1);
        self.progress.attempts_of_some = attempts;
    }

    /// How often a row of the batch was sent.
    fn attempts_of(&self, row: usize) -> u32 {
        self.progress.attempts_of_all + self.progress.attempts_of_some.get(row).copied().unwrap_or(0)
    }

    /// Whether rows have no outcome yet.
    pub(crate) fn has_open_rows(&self) -> bool {
        self.open_rows() > 0
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
        if self.is_absorbed {
            return;
        }
        self.report_sealed();
        if self.open_rows() > 0 {
            self.give_up();
        }
        if !self.progress.frees_capacity {
            self.progress.failure_log.write(self.batch.schema().table_display(), &self.progress.counts);
        }
        for (class, rows) in ErrorClass::ALL.into_iter().zip(self.progress.rejected).filter(|(_, rows)| *rows > 0) {
            self.pipeline.reporter.call(|reporter| reporter.rows_rejected(&self.info(), class, rows));
        }
        self.settle();
    }
}

impl Job {
    /// Ends the rows that are left when the batch is dropped: by a panic, a deadline, or with its runtime.
    fn give_up(&mut self) {
        let given_up = |class, what: &str| {
            let why = if std::thread::panicking() {
                SinkError::new(ErrorClass::Internal, format!("the sink panicked {what} this row was sent"))
            } else {
                let text = format!("given up {what} it was sent: the deadline of close() passed, or the runtime ended");
                SinkError::new(class, text)
            };
            Some(why)
        };
        if let Some((rows, since, attempt)) = self.progress.writing.take()
            && !attempt.abandon()
        {
            let executed =
                BatchExecuted { rows: rows.len(), duration: since.elapsed(), error: Some(ErrorClass::Unknown) };
            self.pipeline.reporter.call(|reporter| reporter.batch_executed(&self.info(), &executed));
            self.failed(rows, FailureKind::Unknown, given_up(ErrorClass::Unknown, "after").as_ref());
        }
        // Errors of other rows do not apply to these.
        let is_of_all = |error: &SinkError| {
            let of_some = matches!(error.class(), ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate);
            !of_some && !std::thread::panicking()
        };
        let error = self.progress.last_error.clone().filter(is_of_all);
        let error = error.or_else(|| given_up(ErrorClass::Transient, "before"));
        self.failed_rest(FailureKind::Purged, error.as_ref());
    }

    /// Records the end of the batch: failed rows, metrics, counts, receipts, then the capacity it held, except for that
    /// of rows that wait for a dead-letter consumer.
    fn settle(&mut self) {
        let counts = self.progress.counts;
        let ledger = &self.pipeline.ledger;
        debug_assert_eq!(counts.total(), self.batch.len() as u64, "each row has one outcome");
        let ends = std::mem::take(&mut self.progress.ends);
        let (mut kept_rows, mut kept_bytes) = (0, 0);
        if counts.failed() > 0 {
            let outcomes = ends.iter().filter_map(End::outcome);
            let fixed = self.batch.schema().fixed_row_len();
            (kept_rows, kept_bytes) = ledger.hand_over(outcomes, |row| fixed + row.variable_len());
        }
        self.pipeline.reporter.call(|reporter| reporter.rows_resolved(&self.info(), &counts));
        ledger.count(&counts);
        let mut start = 0;
        for part in &self.parts {
            if let Some(completion) = &part.completion {
                if !self.progress.returned.is_empty() {
                    let of_row = |row: usize| {
                        let values = Arc::clone(self.progress.returned.get(&row)?);
                        let number = u32::try_from(row - start).expect("buffer_size fits u32");
                        Some((number, Returned::new(self.batch.schema().clone(), values)))
                    };
                    completion.returned((start..start + part.rows).filter_map(of_row).collect());
                }
                let rows = if ends.is_empty() { &[] } else { &ends[start..start + part.rows] };
                completion.resolve(rows.iter().filter_map(End::outcome).cloned().collect());
            }
            start += part.rows;
        }
        self.share.release();
        ledger.budget.release(self.batch.len() - kept_rows, self.batch.bytes() - kept_bytes);
        self.pipeline.batch_ended(self.number);
    }
}
