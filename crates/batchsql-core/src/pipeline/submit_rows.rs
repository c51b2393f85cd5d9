//! Owns how rows that are columns already are accepted: each part of them with its own reservation, copied by column.
//! Must not know who made the columns.

use tokio::task::coop::consume_budget;

use crate::intake::table::NotPushed;
use crate::model::batch::{Rows, SharedRows};
use crate::outcome::receipt::Receipt;
use crate::outcome::row_outcomes::{Receipts, RowOutcomes};
use crate::outcome::tracking::Tracking;
use crate::pipeline::error::{SubmitAllError, SubmitAllTrackedError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::row::check_columns::{RefusedRow, check_columns};
use crate::row::error::RowError;
use crate::write::sink::Limits;

/// Capacity is reserved for this many rows at once.
const PART_ROWS: usize = 1024;

/// The rows that one call has accepted.
struct Accepted {
    rows: usize,
    /// `None`: nobody wants the outcomes.
    outcomes: Option<Receipts>,
}

impl Accepted {
    /// Adds rows of one batch, with the receipt of the first one.
    fn add(&mut self, receipt: Option<Receipt>, rows: usize) {
        self.rows += rows;
        if let (Some(receipts), Some(receipt)) = (&mut self.outcomes, receipt) {
            receipts.add(receipt, u32::try_from(rows).expect("a batch has fewer rows than u32 counts"));
        }
    }
}

impl BatchSql {
    /// Checks rows that are columns as a submit does, without accepting them: values that the database cannot hold, sizes.
    /// It does not ask the database, which may still refuse a row.
    ///
    /// # Errors
    /// The first row that does not fit.
    pub fn validate_rows(&self, rows: Rows<'_>) -> Result<(), RefusedRow> {
        let limits = self.limits_of(rows).map_err(|error| RefusedRow { row: 0, error })?;
        check_columns(rows, limits.values, self.0.config.buffer_bytes)
    }

    /// Accepts sets of rows that are columns already, in their order, waiting for capacity as needed; returns how many rows
    /// these are. They are copied column by column into the open batches. Rows of a key keep their order, also with rows of
    /// other calls. A set may have more rows than the buffer takes.
    ///
    /// [`ColumnBuilder`](crate::ColumnBuilder) and [`RowBuffer`](crate::RowBuffer) make sets.
    ///
    /// ```
    /// # use batchsql_core::{BatchSql, ColumnBuilder, ColumnValues, Schema};
    /// # async fn import(db: BatchSql, numbers: Schema) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut rows = ColumnBuilder::new(&numbers, 3);
    /// rows.extend(0, ColumnValues::I64(&[1, 2, 3]), None)?;
    /// assert_eq!(db.submit_rows([rows.finish()?]).await?, 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A row does not fit, see [`validate_rows`](Self::validate_rows): then no row of its set is accepted. Or the pipeline is
    /// closed, or there is no capacity ([`is_full`](SubmitError::is_full)) and `when_full` does not wait without a limit. In
    /// each case [`accepted`](SubmitAllError::accepted) rows before were accepted.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted; use [`submit`](Self::submit) where the caller must know
    /// how many.
    pub fn submit_rows<I>(&self, sets: I) -> impl Future<Output = Result<usize, SubmitAllError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item = SharedRows>,
    {
        let sets = sets.into_iter();
        async move {
            let mut accepted = Accepted { rows: 0, outcomes: None };
            match self.accept_sets(sets, &mut accepted).await {
                Ok(()) => Ok(accepted.rows),
                Err(source) => Err(SubmitAllError { accepted: accepted.rows, source }),
            }
        }
    }

    /// Accepts sets of rows as [`submit_rows`](Self::submit_rows), and waits until each row has its outcome: how many ended in
    /// which, and the rows that were not written, with their index over all sets. As with
    /// [`submit_all_tracked`](Self::submit_all_tracked), the last rows wait for `flush_interval`, or for a
    /// [`flush`](Self::flush) of another task.
    ///
    /// # Errors
    /// As [`submit_rows`](Self::submit_rows), after the rows that were accepted have their outcomes; the error has these
    /// outcomes.
    ///
    /// # Cancel safety
    /// As [`submit_rows`](Self::submit_rows); the outcomes of accepted rows go to the [dead letters](crate::DeadLetters)
    /// only.
    pub fn submit_rows_tracked<I>(
        &self,
        sets: I,
    ) -> impl Future<Output = Result<RowOutcomes, SubmitAllTrackedError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item = SharedRows>,
    {
        let sets = sets.into_iter();
        async move {
            let mut accepted = Accepted { rows: 0, outcomes: Some(Receipts::new(self.0.config.buffer_size)) };
            let result = self.accept_sets(sets, &mut accepted).await;
            let outcomes = match accepted.outcomes {
                Some(receipts) => receipts.ended().await,
                None => RowOutcomes::default(),
            };
            match result {
                Ok(()) => Ok(outcomes),
                Err(source) => Err(SubmitAllTrackedError { outcomes, source }),
            }
        }
    }

    fn limits_of(&self, rows: Rows<'_>) -> Result<Limits, RowError> {
        match self.0.groups.get(rows.schema()) {
            Some(known) => Ok(known.group.limits),
            None => self.limits(rows.schema()),
        }
    }

    async fn accept_sets(
        &self,
        sets: impl Iterator<Item = SharedRows> + Send,
        accepted: &mut Accepted,
    ) -> Result<(), SubmitError> {
        for set in sets {
            self.accept_rows(set.rows(), accepted).await?;
        }
        Ok(())
    }

    async fn accept_rows(&self, rows: Rows<'_>, accepted: &mut Accepted) -> Result<(), SubmitError> {
        self.validate_rows(rows).map_err(|RefusedRow { row, error }| {
            let error = SubmitError::from(error);
            self.report_refused(&rows.row(row), &error);
            error
        })?;
        let tracking = if accepted.outcomes.is_some() { Tracking::tracked() } else { Tracking::Untracked };
        // A part never asks for more than a part of the budget, so that other submitters get their turn.
        let max_rows = (self.0.config.buffer_size / 4).clamp(1, PART_ROWS);
        let max_bytes = self.0.config.buffer_bytes / 4;
        let before = accepted.rows;
        while accepted.rows - before < rows.len() {
            consume_budget().await;
            let left = rows.slice(accepted.rows - before..rows.len());
            let mut part = left.slice(0..left.len().min(max_rows));
            while part.len() > 1 && part.bytes() > max_bytes {
                part = part.slice(0..part.len() / 2);
            }
            let result = self.accept_part(part, &tracking, accepted).await;
            result.inspect_err(|error| self.report_refused(&rows.row(accepted.rows - before), error))?;
            if let Some(receipts) = &mut accepted.outcomes {
                receipts.count_known();
            }
        }
        Ok(())
    }

    /// Accepts the rows of a part, or fewer if there is less capacity, at least one.
    async fn accept_part(
        &self,
        mut part: Rows<'_>,
        tracking: &Tracking,
        accepted: &mut Accepted,
    ) -> Result<(), SubmitError> {
        let mut known = self.group(part.schema())?.into_arc();
        let mut reservation = loop {
            match self.try_reserve(&known.table, part.len(), part.bytes()) {
                Ok(reservation) => break reservation,
                Err(error) if error.is_full() && part.len() > 1 => part = part.slice(0..part.len().div_ceil(4)),
                // Only one: a wait for much capacity would delay submitters that need little.
                Err(error) if error.is_full() => {
                    let (bytes, when_full) = (part.bytes(), self.0.config.when_full);
                    break self.wait_for_capacity(&known, 1, bytes, when_full).await?;
                }
                Err(error) => return Err(error),
            }
        };
        let mut pushed = 0;
        while pushed < part.len() {
            let rows = part.slice(pushed..part.len());
            match known.table.push_rows(&known.group, &self.0.messages, rows, tracking, &mut reservation) {
                Ok((count, receipt)) => {
                    pushed += count;
                    accepted.add(receipt, count);
                }
                Err(NotPushed::Retired) => {
                    // Another thread is about to remove the idle group from the list.
                    std::thread::yield_now();
                    known = self.group(part.schema())?.into_arc();
                }
                Err(NotPushed::Closed) => return Err(SubmitError::closed()),
                Err(NotPushed::Row(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
