//! Owns how many rows are accepted with one call: in chunks, each with its own reservation.
//! Must not know how batches are written.

use tokio::task::coop::consume_budget;

use crate::outcome::receipt::Receipt;
use crate::outcome::row_outcomes::{Receipts, RowOutcomes};
use crate::outcome::row_receipts::RowReceipts;
use crate::outcome::tracking::Tracking;
use crate::pipeline::error::{FlushError, SubmitAllError, SubmitAllTrackedError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::row::traits::Row;

/// `submit_all` reserves capacity for this many rows at once.
const CHUNK_ROWS: usize = 64;

/// The rows that one call has accepted.
struct Accepted<'a> {
    rows: usize,
    outcomes: Wanted<'a>,
}

/// Who wants the outcomes of the rows of a call.
enum Wanted<'a> {
    Nobody,
    Call(Receipts),
    Caller(&'a mut RowReceipts),
}

impl<'a> Accepted<'a> {
    fn new(outcomes: Wanted<'a>) -> Self {
        Self { rows: 0, outcomes }
    }

    fn add(&mut self, receipt: Option<Receipt>) {
        self.rows += 1;
        let Some(receipt) = receipt else { return };
        match &mut self.outcomes {
            Wanted::Nobody => {}
            Wanted::Call(receipts) => receipts.add(receipt, 1),
            Wanted::Caller(receipts) => receipts.add(receipt, 1),
        }
    }

    async fn ended(self) -> RowOutcomes {
        match self.outcomes {
            Wanted::Call(receipts) => receipts.ended().await,
            Wanted::Nobody | Wanted::Caller(_) => RowOutcomes::default(),
        }
    }
}

impl BatchSql {
    /// Accepts many rows in their order, waiting for capacity as needed; returns how many.
    ///
    /// The returned future is `Send` for every iterator, also one with a closure that borrows from its items: handlers of
    /// web servers and `tokio::spawn` need that.
    ///
    /// ```
    /// # use batchsql_core::{BatchSql, Row};
    /// # fn handler<R: Row + Send + Sync + 'static>(db: BatchSql, rows: Vec<(u64, R)>) {
    /// tokio::spawn(async move { db.submit_all(rows.iter().map(|(_, row)| row)).await });
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first row that is not accepted ends the call;
    /// [`accepted`](SubmitAllError::accepted) rows before it were accepted.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted; use
    /// [`submit`](Self::submit) where the caller must know how many.
    // Not an `async fn`: whether its future is `Send` would be asked of the hidden state, which holds the iterator, and
    // the compiler cannot prove that for a closure over borrowed items (rust-lang/rust#102211). `+ Send` is proven here,
    // once, and callers see only the promise.
    pub fn submit_all<I>(&self, rows: I) -> impl Future<Output = Result<usize, SubmitAllError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item: Row + Send>,
    {
        let rows = rows.into_iter();
        async move {
            let mut accepted = Accepted::new(Wanted::Nobody);
            match self.accept_all(rows, &Tracking::Untracked, &mut accepted).await {
                Ok(()) => Ok(accepted.rows),
                Err(source) => Err(SubmitAllError { accepted: accepted.rows, source }),
            }
        }
    }

    /// Accepts many rows in their order, as [`submit_all`](Self::submit_all), and waits until each of them has its
    /// outcome: how many ended in which, and the rows that were not written, with their index.
    ///
    /// Rows are written by the usual rules: the last ones wait for `flush_interval`, or for a
    /// [`flush`](Self::flush) of another task. Memory does not grow with the number of rows, but with those that fail.
    ///
    /// ```
    /// # use batchsql_core::{BatchSql, Row};
    /// # async fn import<R: Row + Send + Sync>(db: BatchSql, rows: Vec<R>) -> Result<(), Box<dyn std::error::Error>> {
    /// let outcomes = db.submit_all_tracked(&rows).await?;
    /// for (line, outcome) in &outcomes.failed {
    ///     eprintln!("line {line}: {outcome}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first row that is not accepted ends the call, after the rows before it have their outcomes; the error has
    /// these outcomes.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted, and their outcomes go to the
    /// [dead letters](crate::DeadLetters) only.
    pub fn submit_all_tracked<I>(
        &self,
        rows: I,
    ) -> impl Future<Output = Result<RowOutcomes, SubmitAllTrackedError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item: Row + Send>,
    {
        let rows = rows.into_iter();
        async move {
            let mut accepted = Accepted::new(Wanted::Call(Receipts::new(self.0.config.buffer_size)));
            let result = self.accept_all(rows, &Tracking::tracked(), &mut accepted).await;
            let outcomes = accepted.ended().await;
            match result {
                Ok(()) => Ok(outcomes),
                Err(source) => Err(SubmitAllTrackedError { outcomes, source }),
            }
        }
    }

    /// Accepts many rows in their order, as [`submit_all`](Self::submit_all), and adds each of them to `receipts`, for callers
    /// that take the outcomes while further rows are accepted.
    ///
    /// ```
    /// # use batchsql_core::{BatchSql, Row, RowReceipts};
    /// # async fn import<R: Row + Send + Sync>(db: BatchSql, rows: Vec<R>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut receipts = RowReceipts::new();
    /// db.submit_all_followed(&rows, &mut receipts).await?;
    /// while !receipts.is_empty() {
    ///     receipts.ready().await;
    ///     while let Some(ended) = receipts.try_next() {
    ///         println!("rows {:?} have ended, and {} were not written", ended.rows, ended.failed.len());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The first row that is not accepted ends the call; [`RowReceipts::accepted`] says how many were.
    ///
    /// # Cancel safety
    /// Rows that are in `receipts` were accepted, and no others.
    pub fn submit_all_followed<'a, I>(
        &'a self,
        rows: I,
        receipts: &'a mut RowReceipts,
    ) -> impl Future<Output = Result<(), SubmitError>> + Send + use<'a, I>
    where
        I: IntoIterator<IntoIter: Send, Item: Row + Send>,
    {
        let rows = rows.into_iter();
        async move {
            let mut accepted = Accepted::new(Wanted::Caller(receipts));
            self.accept_all(rows, &Tracking::tracked(), &mut accepted).await
        }
    }

    /// Accepts rows, writes them without waiting for `flush_interval`, and returns their outcomes, and why the first row
    /// after them was not accepted.
    pub(crate) async fn submit_and_flush<R: Row + Sync>(
        &self,
        rows: &[R],
    ) -> Result<(RowOutcomes, Option<SubmitError>), FlushError> {
        let mut accepted = Accepted::new(Wanted::Call(Receipts::new(self.0.config.buffer_size)));
        let refused = self.accept_all(rows.iter(), &Tracking::tracked(), &mut accepted).await.err();
        self.flush().await?;
        Ok((accepted.ended().await, refused))
    }

    async fn accept_all<R: Row + Send>(
        &self,
        rows: impl Iterator<Item = R> + Send,
        tracking: &Tracking,
        accepted: &mut Accepted<'_>,
    ) -> Result<(), SubmitError> {
        // A chunk never asks for more than a part of the budget, so that other submitters get their turn.
        let max_rows = (self.0.config.buffer_size / 4).clamp(1, CHUNK_ROWS);
        let max_bytes = self.0.config.buffer_bytes / 4;
        let mut chunk = Vec::with_capacity(max_rows);
        let mut bytes = 0;
        for row in rows {
            // As in `submit`: the iterator may work for a long time between two rows.
            consume_budget().await;
            let row_bytes = match self.row_bytes(&row) {
                Ok(row_bytes) => row_bytes,
                Err(error) => {
                    let error = SubmitError::from(error);
                    self.report_refused(&row, &error);
                    self.accept_chunk(&mut chunk, bytes, tracking, accepted).await?;
                    return Err(error);
                }
            };
            if chunk.len() == max_rows || (!chunk.is_empty() && bytes + row_bytes > max_bytes) {
                self.accept_chunk(&mut chunk, std::mem::take(&mut bytes), tracking, accepted).await?;
            }
            bytes += row_bytes;
            chunk.push((row, row_bytes));
        }
        self.accept_chunk(&mut chunk, bytes, tracking, accepted).await
    }

    /// Accepts the rows of a chunk, and empties it.
    async fn accept_chunk<R: Row>(
        &self,
        chunk: &mut Vec<(R, usize)>,
        bytes: usize,
        tracking: &Tracking,
        accepted: &mut Accepted<'_>,
    ) -> Result<(), SubmitError> {
        let before = accepted.rows;
        let result = self.push_chunk(chunk, bytes, tracking, accepted).await;
        if let (Err(error), Some((row, _))) = (&result, chunk.get(accepted.rows - before)) {
            self.report_refused(row, error);
        }
        chunk.clear();
        if let Wanted::Call(receipts) = &mut accepted.outcomes {
            receipts.count_known();
        }
        result
    }

    // The chunk is borrowed exclusively: a shared borrow across the wait would be `Send` only for rows that are `Sync`.
    async fn push_chunk<R: Row>(
        &self,
        chunk: &mut [(R, usize)],
        bytes: usize,
        tracking: &Tracking,
        accepted: &mut Accepted<'_>,
    ) -> Result<(), SubmitError> {
        let (mut pushed, mut left_bytes) = (0, bytes);
        while pushed < chunk.len() {
            let (known, rows, capacity) = {
                let left = &chunk[pushed..];
                let (first, first_bytes) = &left[0];
                let known = self.group(first.schema())?.into_arc();
                // Each table takes capacity of its own share. Most chunks are rows of one schema.
                let is_same = |(row, _): &&(R, usize)| row.schema() == &known.group.schema;
                let same = left.iter().take_while(is_same).count();
                let same_bytes =
                    if same == left.len() { left_bytes } else { left[..same].iter().map(|row| row.1).sum() };
                // All of them, or else only the first: a wait for much capacity would delay submitters that need little.
                match self.try_reserve(&known.table, same, same_bytes) {
                    Ok(reservation) => (known, same, Ok(reservation)),
                    Err(error) if error.is_full() => (known, 1, Err(*first_bytes)),
                    Err(error) => return Err(error),
                }
            };
            let mut reservation = match capacity {
                Ok(reservation) => reservation,
                Err(bytes) => self.wait_for_capacity(&known, 1, bytes, self.0.config.when_full).await?,
            };
            for (row, bytes) in &chunk[pushed..pushed + rows] {
                let receipt = self.push(&known, row, *bytes, tracking, &mut reservation)?;
                accepted.add(receipt);
                left_bytes -= bytes;
            }
            pushed += rows;
        }
        Ok(())
    }
}
