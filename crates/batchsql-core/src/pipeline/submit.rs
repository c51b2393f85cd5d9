//! Owns how one row is accepted: the wait for capacity, the push into its lane, the refusal.
//! Must not know how batches are written.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::budget::guards::Reservation;
use crate::budget::reserve::Refusal;
use crate::config_policies::WhenFull;
use crate::intake::groups::Known;
use crate::intake::message::Message;
use crate::intake::table::{NotPushed, Table};
use crate::model::schema::Schema;
use crate::outcome::letter::DeadLetter;
use crate::outcome::receipt::Receipt;
use crate::outcome::tracking::Tracking;
use crate::pipeline::error::{ResubmitError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::row::traits::Row;
use crate::write::context::PipelineContext;

impl BatchSql {
    /// Accepts a row. When the buffer is full, [`PipelineConfig::when_full`](crate::PipelineConfig::when_full) applies:
    /// by default it waits for capacity.
    ///
    /// If a pipeline has several tables, one table gets at most eight times the free capacity, so that a table that
    /// cannot be written does not fill the whole buffer.
    ///
    /// # Errors
    /// The row does not fit its table or can never fit the buffer, or the pipeline is closed, or there is no capacity
    /// ([`is_full`](SubmitError::is_full)) and `when_full` does not wait without a limit.
    ///
    /// # Cancel safety
    /// If the call is cancelled, the row is not accepted: the call waits only for capacity.
    pub async fn submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        self.accept(row, Tracking::Untracked, self.0.config.when_full).await.map(drop)
    }

    /// Accepts a row and returns a receipt that resolves to its outcome.
    ///
    /// If spans of batches are collected (target `batchsql`, level debug), the span of its batch follows from the current
    /// span, for at most 32 spans per batch.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_tracked<R: Row + ?Sized>(&self, row: &R) -> Result<Receipt, SubmitError> {
        let receipt = self.accept(row, Tracking::tracked(), self.0.config.when_full).await?;
        Ok(receipt.expect("a tracked row has a receipt"))
    }

    /// Accepts a row only if there is capacity now.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when there is no capacity.
    pub fn try_submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        self.accept_now(row, &Tracking::Untracked).map(drop)
    }

    /// Accepts a row only if there is capacity now, and returns a receipt that resolves to its outcome.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit).
    pub fn try_submit_tracked<R: Row + ?Sized>(&self, row: &R) -> Result<Receipt, SubmitError> {
        let receipt = self.accept_now(row, &Tracking::tracked())?;
        Ok(receipt.expect("a tracked row has a receipt"))
    }

    /// Accepts a row, waiting for capacity at most `limit`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when time ran out.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_timeout<R: Row + ?Sized>(&self, row: &R, limit: Duration) -> Result<(), SubmitError> {
        self.accept(row, Tracking::Untracked, WhenFull::WaitAtMost(limit)).await.map(drop)
    }

    /// Accepts a row in place of a failed one, with the capacity that the failed row still holds in the buffer: for
    /// consumers of [`DeadLetters::channel`](crate::DeadLetters::channel) that correct rows. It never waits.
    ///
    /// A row that is submitted again comes after rows of its key that were accepted meanwhile.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit), with the letter. The error is [`is_full`](SubmitError::is_full) if there is
    /// no capacity and the new row needs more than the old one, or another consumer still has the old row, or the old
    /// row was of another pipeline: keep the letter and try again.
    pub fn resubmit<R: Row + ?Sized>(&self, letter: DeadLetter, row: &R) -> Result<(), ResubmitError> {
        let (known, bytes) = match self.admit(row) {
            Ok(admitted) => admitted,
            Err(source) => {
                self.report_refused(row, &source);
                return Err(ResubmitError { letter: Box::new(letter), source });
            }
        };
        let outcome = letter.outcome().clone();
        let budget = &self.0.pipeline.ledger.budget;
        let capacity = match letter.into_capacity(budget) {
            Ok(capacity) => capacity,
            // Another consumer has the row and its capacity, or it is capacity of another pipeline.
            Err(letter) => {
                let pushed = self.try_submit(row);
                return pushed.map_err(|source| ResubmitError { letter: Box::new(letter), source });
            }
        };
        match capacity.reuse(budget, bytes) {
            Ok(mut reservation) => {
                self.push(&known, row, bytes, &Tracking::Untracked, &mut reservation).map(drop).map_err(|source| {
                    self.report_refused(row, &source);
                    // The reservation returns the capacity; the letter no longer holds any.
                    ResubmitError { letter: Box::new(DeadLetter::without_capacity(outcome)), source }
                })
            }
            Err(capacity) => {
                let source = SubmitError::full();
                self.report_refused(row, &source);
                Err(ResubmitError { letter: Box::new(DeadLetter::with_capacity(outcome, capacity)), source })
            }
        }
    }

    fn accept_now<R: Row + ?Sized>(&self, row: &R, tracking: &Tracking) -> Result<Option<Receipt>, SubmitError> {
        self.try_accept(row, tracking).inspect_err(|error| self.report_refused(row, error))
    }

    /// Accepts a row if there is capacity now. A refusal is not reported.
    pub(crate) fn try_accept<R: Row + ?Sized>(
        &self,
        row: &R,
        tracking: &Tracking,
    ) -> Result<Option<Receipt>, SubmitError> {
        let (known, bytes) = self.admit(row)?;
        let mut reservation = self.try_reserve(&known.table, 1, bytes)?;
        self.push(&known, row, bytes, tracking, &mut reservation)
    }

    async fn accept<R: Row + ?Sized>(
        &self,
        row: &R,
        tracking: Tracking,
        when_full: WhenFull,
    ) -> Result<Option<Receipt>, SubmitError> {
        // A producer that never waits would block its thread for the tasks that write.
        consume_budget().await;
        let accepted = async {
            let (known, bytes) = self.admit(row)?;
            match self.try_reserve(&known.table, 1, bytes) {
                Ok(mut reservation) => return self.push(&known, row, bytes, &tracking, &mut reservation),
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
            let known = known.into_arc();
            let mut reservation = self.wait_for_capacity(&known, 1, bytes, when_full).await?;
            self.push(&known, row, bytes, &tracking, &mut reservation)
        };
        accepted.await.inspect_err(|error| self.report_refused(row, error))
    }

    #[inline]
    pub(crate) fn try_reserve(&self, table: &Table, rows: usize, bytes: usize) -> Result<Reservation<'_>, SubmitError> {
        self.0.pipeline.ledger.budget.try_reserve(table.number(), &table.share, rows, bytes).map_err(submit_error)
    }

    pub(crate) async fn wait_for_capacity(
        &self,
        known: &Known,
        rows: usize,
        bytes: usize,
        when_full: WhenFull,
    ) -> Result<Reservation<'_>, SubmitError> {
        let limit = match when_full {
            WhenFull::Wait | WhenFull::DropOldest => None,
            WhenFull::WaitAtMost(limit) => Some(limit),
            WhenFull::Reject => return Err(SubmitError::full()),
        };
        let pipeline = &self.0.pipeline;
        let _reported = ReportedWait { pipeline, table: &known.group.schema, begin: Instant::now() };
        let table = &known.table;
        let ask = || self.ask_for_capacity();
        let capacity = pipeline.ledger.budget.reserve(table.number(), &table.share, rows, bytes, ask);
        let capacity = match limit {
            None => capacity.await,
            Some(limit) => {
                // The timer is that of the pipeline's runtime: the caller may be outside of any runtime.
                let timeout = {
                    let _runtime = self.0.runtime.enter();
                    tokio::time::timeout(limit, capacity)
                };
                timeout.await.unwrap_or(Err(Refusal::Full))
            }
        };
        capacity.map_err(submit_error)
    }

    /// Asks the dispatcher for capacity, unless it comes without a request.
    pub(crate) fn ask_for_capacity(&self) {
        if !self.0.activity.is_busy() || self.0.config.when_full == WhenFull::DropOldest {
            // If the dispatcher has ended, the budget is closed and the wait ends at once.
            let _ = self.0.messages.send(Message::Pressure);
        }
    }

    #[inline]
    pub(crate) fn push<R: Row + ?Sized>(
        &self,
        known: &Known,
        row: &R,
        bytes: usize,
        tracking: &Tracking,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        match known.table.push(&known.group, &self.0.messages, row, bytes, tracking, reservation) {
            Ok(receipt) => Ok(receipt),
            Err(NotPushed::Retired) => self.push_again(row, bytes, tracking, reservation),
            Err(other) => Err(not_pushed(other)),
        }
    }

    /// The group was idle and has just been removed.
    #[cold]
    fn push_again<R: Row + ?Sized>(
        &self,
        row: &R,
        bytes: usize,
        tracking: &Tracking,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        loop {
            // Another thread is about to remove it from the list.
            std::thread::yield_now();
            let known = self.group(row.schema())?;
            match known.table.push(&known.group, &self.0.messages, row, bytes, tracking, reservation) {
                Ok(receipt) => return Ok(receipt),
                Err(NotPushed::Retired) => {}
                Err(other) => return Err(not_pushed(other)),
            }
        }
    }
}

/// Reports a wait for capacity when it ends, also when it ends by cancellation.
struct ReportedWait<'a> {
    pipeline: &'a Arc<PipelineContext>,
    table: &'a Schema,
    begin: Instant,
}

impl Drop for ReportedWait<'_> {
    fn drop(&mut self) {
        let waited = self.begin.elapsed();
        self.pipeline.reporter.call(|reporter| reporter.submit_waited(self.table.table_display(), waited));
    }
}

pub(crate) fn submit_error(refusal: Refusal) -> SubmitError {
    match refusal {
        Refusal::Full => SubmitError::full(),
        Refusal::Closed => SubmitError::closed(),
    }
}

fn not_pushed(reason: NotPushed) -> SubmitError {
    match reason {
        NotPushed::Row(error) => error.into(),
        NotPushed::Closed | NotPushed::Retired => SubmitError::closed(),
    }
}
