//! Owns the front of the pipeline: the handle that callers submit rows to.
//! Must not know how batches are written.

use std::fmt;
use std::sync::atomic::Ordering as Atomic;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::budget::count::{Refusal, Reservation};
use crate::config::FAR;
use crate::config::{PipelineConfig, WhenFull};
use crate::dispatch::dispatcher::{Activity, Message};
use crate::error::SinkError;
use crate::intake::group::Group;
use crate::intake::groups::{Found, Groups};
use crate::intake::table::{Intake, NotPushed, Table};
use crate::model::schema::Schema;
use crate::outcome::ledger::{Balance, Ledger};
use crate::outcome::letter::DeadLetter;
use crate::outcome::outcomes::Outcome;
use crate::outcome::receipt::Receipt;
use crate::pipeline::error::{FlushError, ResubmitError, SubmitAllError, SubmitError};
use crate::row::error::RowError;
use crate::row::traits::{Row, TypedRow};
use crate::write::execute::Engine;

/// `submit_all` reserves room for this many rows at once.
const CHUNK_ROWS: usize = 64;

/// The batch writer: many tasks submit rows, batches reach the database, every row has an outcome.
///
/// Cloning is cheap and every clone writes to the same pipeline. When the last clone is dropped
/// without [`close`](Self::close), the pipeline drains in the background and warns; rows that are not
/// written when the runtime ends are lost.
#[derive(Clone)]
pub struct BatchSql(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) intake: Intake,
    pub(crate) activity: Arc<Activity>,
    pub(crate) config: PipelineConfig,
    pub(crate) concurrency: usize,
    /// `true` once the dispatcher has ended and everything has its outcome.
    pub(crate) ended: watch::Receiver<bool>,
    /// When `close` was first called.
    pub(crate) closing_since: OnceLock<Instant>,
    pub(crate) report: std::sync::Mutex<Option<CloseReport>>,
}

/// What `close` found when it was done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloseReport {
    /// Every row since the start and what became of it; nothing is in flight any more.
    pub balance: Balance,
    /// The rows that were given up since `close` was called: what became of each, and why. Earlier ones
    /// went to their receipts and to the [dead letters](crate::DeadLetters).
    pub unwritten: Vec<Outcome>,
    /// How long draining took.
    pub took: Duration,
}

impl CloseReport {
    /// True when no row since the start of the pipeline failed: each was written, `Ignored` or
    /// `Superseded`. A row that was rejected and submitted again, mended, still counts as failed; look
    /// at [`unwritten`](Self::unwritten) for what this call had to give up.
    pub fn is_complete(&self) -> bool {
        self.balance.failed() == 0 && self.balance.in_flight() == 0
    }
}

/// A handle that does not keep the pipeline open, for tasks that live as long as it, such as consumers of
/// dead letters. Made by [`BatchSql::downgrade`].
#[derive(Clone)]
pub struct WeakBatchSql(Weak<Shared>);

impl WeakBatchSql {
    /// The pipeline, while any other handle is left.
    pub fn upgrade(&self) -> Option<BatchSql> {
        self.0.upgrade().map(BatchSql)
    }
}

impl fmt::Debug for WeakBatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakBatchSql").finish_non_exhaustive()
    }
}

impl BatchSql {
    /// A handle that does not keep the pipeline open.
    pub fn downgrade(&self) -> WeakBatchSql {
        WeakBatchSql(Arc::downgrade(&self.0))
    }

    /// Checks now that the table of `schema` can be written: it exists and has the columns. Without
    /// this call the first batch finds out.
    ///
    /// # Errors
    /// What the driver found, for example a missing column.
    pub async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        // A table that is known gets its share of the buffer before it has a row. If the group cannot be
        // made, the sink says why.
        let _ = self.group(schema);
        self.0.engine.prepare(schema).await
    }

    /// [`prepare`](Self::prepare) for a row type.
    ///
    /// # Errors
    /// What the driver found, for example a missing column.
    pub async fn prepare_for<R: TypedRow>(&self) -> Result<(), SinkError> {
        self.prepare(R::type_schema()).await
    }

    /// Accepts a row. When the buffer is full it does what [`PipelineConfig::when_full`] says: by default
    /// it waits for room.
    ///
    /// Where a pipeline has several tables, one table gets at most eight times the room that is left, so
    /// that a table that cannot be written does not fill the buffer for all.
    ///
    /// # Errors
    /// The row does not fit its table or can never fit the buffer, or the pipeline is closed, or there is
    /// no room ([`is_full`](SubmitError::is_full)) where `when_full` does not wait for ever.
    ///
    /// # Cancel safety
    /// Cancelled means not accepted: the only wait is the one for room.
    pub async fn submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        self.accept(row, false, self.0.config.when_full).await.map(drop)
    }

    /// Accepts a row and returns a receipt that resolves to its outcome.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_tracked<R: Row + ?Sized>(&self, row: &R) -> Result<Receipt, SubmitError> {
        let receipt = self.accept(row, true, self.0.config.when_full).await?;
        Ok(receipt.expect("a tracked row has a receipt"))
    }

    /// Accepts a row only if there is room now.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when there is no room.
    pub fn try_submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        let accepted = self.admit(row).and_then(|(group, bytes)| {
            let mut reservation = self.try_reserve(&group, 1, bytes)?;
            self.push(&group, row, bytes, false, &mut reservation).map(drop)
        });
        accepted.inspect_err(|error| self.refused(row, error))
    }

    /// Accepts a row, waiting for room at most `limit`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when time ran out.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_timeout<R: Row + ?Sized>(&self, row: &R, limit: Duration) -> Result<(), SubmitError> {
        self.accept(row, false, WhenFull::WaitAtMost(limit)).await.map(drop)
    }

    /// Accepts a row in the place of one that failed, with the room that that one still has in the buffer:
    /// for consumers of [`DeadLetters::channel`](crate::DeadLetters::channel) that mend rows. It never waits.
    ///
    /// Mind that a row that is submitted again comes after rows of its key that were accepted meanwhile.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit), with the letter. It is full when there is no room and the new row
    /// needs more than the old one, or another consumer still has the old one, or that was of another
    /// pipeline: keep the letter and try again.
    pub fn resubmit<R: Row + ?Sized>(&self, letter: DeadLetter, row: &R) -> Result<(), ResubmitError> {
        let (group, bytes) = match self.admit(row) {
            Ok(admitted) => admitted,
            Err(source) => {
                self.refused(row, &source);
                return Err(ResubmitError { letter: Box::new(letter), source });
            }
        };
        let outcome = letter.outcome().clone();
        let budget = &self.0.intake.ledger.budget;
        let room = match letter.into_room(budget) {
            Ok(room) => room,
            // Another consumer has the row and its room, or it is room of another pipeline.
            Err(letter) => {
                let pushed = self.try_submit(row);
                return pushed.map_err(|source| ResubmitError { letter: Box::new(letter), source });
            }
        };
        match room.reuse(budget, bytes) {
            Ok(mut reservation) => self.push(&group, row, bytes, false, &mut reservation).map(drop).map_err(|source| {
                self.refused(row, &source);
                // The reservation gives the room back; the letter goes without.
                ResubmitError { letter: Box::new(DeadLetter::without_room(outcome)), source }
            }),
            Err(room) => {
                let source = SubmitError::full();
                self.refused(row, &source);
                Err(ResubmitError { letter: Box::new(DeadLetter::with_room(outcome, room)), source })
            }
        }
    }

    /// Accepts many rows in their order, waiting for room as needed; returns how many.
    ///
    /// # Errors
    /// The first row that is not accepted ends the call;
    /// [`accepted`](SubmitAllError::accepted) rows before it were accepted.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted; use
    /// [`submit`](Self::submit) where the caller must know how many.
    pub async fn submit_all<I>(&self, rows: I) -> Result<usize, SubmitAllError>
    where
        I: IntoIterator,
        I::Item: Row,
    {
        // A chunk never asks for more than a part of the budget, so that others get their turn.
        let max_rows = (self.0.config.buffer_size / 4).clamp(1, CHUNK_ROWS);
        let max_bytes = self.0.config.buffer_bytes / 4;
        let mut chunk = Vec::with_capacity(max_rows);
        let (mut bytes, mut accepted) = (0, 0);
        for row in rows {
            let row_bytes = match self.row_bytes(&row).inspect_err(|error| self.refused(&row, error)) {
                Ok(row_bytes) => row_bytes,
                Err(source) => {
                    self.accept_chunk(&mut chunk, bytes, &mut accepted).await?;
                    return Err(SubmitAllError { accepted, source });
                }
            };
            if chunk.len() == max_rows || (!chunk.is_empty() && bytes + row_bytes > max_bytes) {
                self.accept_chunk(&mut chunk, std::mem::take(&mut bytes), &mut accepted).await?;
            }
            bytes += row_bytes;
            chunk.push((row, row_bytes));
        }
        self.accept_chunk(&mut chunk, bytes, &mut accepted).await?;
        Ok(accepted)
    }

    /// Writes everything that was accepted before this call, and returns the balance once all of it
    /// has an outcome.
    ///
    /// # Errors
    /// Only after a defect of the pipeline itself; failed rows are in the balance.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the writing.
    pub async fn flush(&self) -> Result<Balance, FlushError> {
        let (done, flushed) = oneshot::channel();
        if self.0.intake.messages.send(Message::Flush(done)).is_ok() && flushed.await.is_ok() {
            return Ok(self.balance());
        }
        // The pipeline is closing or closed: then everything ends with it.
        if self.ended().await { Ok(self.balance()) } else { Err(FlushError(())) }
    }

    /// Refuses new rows, writes everything that was accepted, and reports. After `deadline` what was
    /// not yet sent ends as `Purged`, what is being written as `Unknown`; both are in the report.
    ///
    /// Every call, from any clone, gets the same report; the deadline of the first one holds. When it
    /// returns, every row counted as written is in the database. A [dead-letter
    /// file](crate::DeadLetters::file) that cannot be written holds it up by 5 seconds at most.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the closing.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        self.0.intake.closed.store(true, Atomic::SeqCst);
        let begin = *self.0.closing_since.get_or_init(|| {
            let begin = Instant::now();
            self.0.intake.ledger.begin_closing();
            self.0.intake.ledger.budget.close();
            // `send` fails only when the dispatcher has already ended.
            let _ = self.0.intake.messages.send(Message::Close { deadline: begin + deadline.min(FAR) });
            begin
        });
        self.ended().await;
        let mut report = self.0.report.lock().unwrap_or_else(PoisonError::into_inner);
        report
            .get_or_insert_with(|| CloseReport {
                balance: self.balance(),
                unwritten: self.0.intake.ledger.take_unwritten(),
                took: begin.elapsed(),
            })
            .clone()
    }

    /// The balance at this moment.
    pub fn balance(&self) -> Balance {
        // Outcomes first: a row that is accepted in between may be missing, but never counts twice.
        let outcomes = self.0.intake.ledger.outcomes();
        Balance { accepted: self.0.groups.accepted(), outcomes }
    }

    /// The settings as they were given; a sink may lower `max_concurrency`.
    pub fn config(&self) -> &PipelineConfig {
        &self.0.config
    }

    /// True once the dispatcher has ended in order.
    async fn ended(&self) -> bool {
        self.0.ended.clone().wait_for(|ended| *ended).await.is_ok()
    }

    async fn accept<R: Row + ?Sized>(
        &self,
        row: &R,
        tracked: bool,
        when_full: WhenFull,
    ) -> Result<Option<Receipt>, SubmitError> {
        let accepted = async {
            let (group, bytes) = self.admit(row)?;
            match self.try_reserve(&group, 1, bytes) {
                Ok(mut reservation) => return self.push(&group, row, bytes, tracked, &mut reservation),
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
            let group = group.into_arc();
            let mut reservation = self.wait_for_room(&group, 1, bytes, when_full).await?;
            self.push(&group, row, bytes, tracked, &mut reservation)
        };
        accepted.await.inspect_err(|error| self.refused(row, error))
    }

    /// Accepts the rows of a chunk with one reservation, and empties it.
    async fn accept_chunk<R: Row>(
        &self,
        chunk: &mut Vec<(R, usize)>,
        bytes: usize,
        accepted: &mut usize,
    ) -> Result<(), SubmitAllError> {
        let mut pushed = 0;
        let result = self.push_chunk(chunk, bytes, &mut pushed).await;
        *accepted += pushed;
        if let (Err(error), Some((row, _))) = (&result, chunk.get(pushed)) {
            self.refused(row, error);
        }
        chunk.clear();
        result.map_err(|source| SubmitAllError { accepted: *accepted, source })
    }

    async fn push_chunk<R: Row>(
        &self,
        chunk: &[(R, usize)],
        bytes: usize,
        pushed: &mut usize,
    ) -> Result<(), SubmitError> {
        let mut left = chunk;
        let mut left_bytes = bytes;
        while let Some((first, first_bytes)) = left.first() {
            let mut group = self.group(first.schema())?.into_arc();
            // All of them, or else only the first: who waits for much holds up those who want little.
            let (mut reservation, rows) = match self.try_reserve(&group, left.len(), left_bytes) {
                Ok(reservation) => (reservation, left.len()),
                Err(error) if error.is_full() => {
                    (self.wait_for_room(&group, 1, *first_bytes, self.0.config.when_full).await?, 1)
                }
                Err(error) => return Err(error),
            };
            let (now, later) = left.split_at(rows);
            for (row, bytes) in now {
                if group.schema != *row.schema() {
                    group = self.group(row.schema())?.into_arc();
                }
                self.push(&group, row, *bytes, false, &mut reservation)?;
                *pushed += 1;
                left_bytes -= bytes;
            }
            left = later;
        }
        Ok(())
    }

    /// The row's group and the room it needs.
    #[inline]
    fn admit<R: Row + ?Sized>(&self, row: &R) -> Result<(Found, usize), SubmitError> {
        Ok((self.group(row.schema())?, self.row_bytes(row)?))
    }

    /// The room that a row needs.
    #[inline]
    fn row_bytes<R: Row + ?Sized>(&self, row: &R) -> Result<usize, SubmitError> {
        let (schema, limit) = (row.schema(), self.0.config.buffer_bytes);
        let bytes = schema.fixed_row_len() + row.variable_len();
        if bytes > limit { Err(RowError::too_large(schema, bytes, limit).into()) } else { Ok(bytes) }
    }

    #[inline]
    fn group(&self, schema: &Schema) -> Result<Found, SubmitError> {
        match self.0.groups.get(schema) {
            Some(group) => Ok(group),
            None => self.new_group(schema),
        }
    }

    #[cold]
    fn new_group(&self, schema: &Schema) -> Result<Found, SubmitError> {
        let limits = self.0.engine.limits(schema);
        if schema.columns().len() > limits.max_columns {
            return Err(RowError::too_wide(schema, limits.max_columns).into());
        }
        let make_table = |number| Table::new(number, schema, &self.0.config, self.0.concurrency);
        let added = self.0.groups.get_or_insert(schema, limits, make_table);
        if added.tables > 1 {
            self.0.intake.ledger.budget.share_fairly();
        }
        self.0.engine.forget(&added.retired);
        Ok(Found::from(added.group))
    }

    #[inline]
    fn try_reserve(&self, group: &Group, rows: usize, bytes: usize) -> Result<Reservation<'_>, SubmitError> {
        let table = &group.table;
        self.0.intake.ledger.budget.try_reserve(table.number(), &table.share, rows, bytes).map_err(submit_error)
    }

    async fn wait_for_room(
        &self,
        group: &Group,
        rows: usize,
        bytes: usize,
        when_full: WhenFull,
    ) -> Result<Reservation<'_>, SubmitError> {
        let limit = match when_full {
            WhenFull::Wait | WhenFull::DropOldest => None,
            WhenFull::WaitAtMost(limit) => Some(limit),
            WhenFull::Reject => return Err(SubmitError::full()),
        };
        let ledger = &self.0.intake.ledger;
        let _reported = ReportedWait { ledger, table: &group.schema, begin: Instant::now() };
        let ask = || {
            if !self.0.activity.is_busy() || self.0.config.when_full == WhenFull::DropOldest {
                // If the dispatcher is gone, the budget is closed and the wait ends at once.
                let _ = self.0.intake.messages.send(Message::Pressure);
            }
        };
        let room = ledger.budget.reserve(group.table.number(), &group.table.share, rows, bytes, ask);
        let room = match limit {
            None => room.await,
            Some(limit) => tokio::time::timeout(limit, room).await.unwrap_or(Err(Refusal::Full)),
        };
        room.map_err(submit_error)
    }

    #[inline]
    fn push<R: Row + ?Sized>(
        &self,
        group: &Arc<Group>,
        row: &R,
        bytes: usize,
        tracked: bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        match group.table.push(group, &self.0.intake, row, bytes, tracked, reservation) {
            Ok(receipt) => Ok(receipt),
            Err(NotPushed::Refused(error)) => Err(error),
            Err(NotPushed::Retired) => self.push_again(row, bytes, tracked, reservation),
        }
    }

    /// The group had been idle and was forgotten just now.
    #[cold]
    fn push_again<R: Row + ?Sized>(
        &self,
        row: &R,
        bytes: usize,
        tracked: bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        std::thread::yield_now();
        let group = self.group(row.schema())?;
        self.push(&group, row, bytes, tracked, reservation)
    }

    #[cold]
    fn refused<R: Row + ?Sized>(&self, row: &R, error: &SubmitError) {
        let table = row.schema().table_display();
        self.0.intake.ledger.reporter.call(|reporter| reporter.row_refused(table, error.reason()));
    }
}

/// Reports a wait for room when it ends, also when it ends by cancellation.
struct ReportedWait<'a> {
    ledger: &'a Ledger,
    table: &'a Schema,
    begin: Instant,
}

impl Drop for ReportedWait<'_> {
    fn drop(&mut self) {
        let waited = self.begin.elapsed();
        self.ledger.reporter.call(|reporter| reporter.submit_waited(self.table.table_display(), waited));
    }
}

fn submit_error(refusal: Refusal) -> SubmitError {
    match refusal {
        Refusal::Full => SubmitError::full(),
        Refusal::Closed => SubmitError::closed(),
    }
}

impl fmt::Debug for BatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.0.groups.count();
        f.debug_struct("BatchSql").field("groups", &groups).field("config", &self.0.config).finish_non_exhaustive()
    }
}
