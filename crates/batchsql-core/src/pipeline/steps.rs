//! Owns what a feed asks of a pipeline: rows that are written with their position, outside of the buffer.
//! Must not know sources, or how rows are written.

use std::fmt;
use std::time::Duration;

use crate::config_policies::WhenFull;
use crate::error::{ErrorClass, SinkError};
use crate::intake::message::Message;
use crate::model::batch::Rows;
use crate::model::schema::Schema;
use crate::outcome::outcomes::{FailedRow, Outcome, OutcomeCounts, OutcomeKind};
use crate::pipeline::handle::BatchSql;
use crate::pipeline_events::{BatchInfo, BatchSealed, FlushReason};
use crate::write::position::{Claim, ClaimFrom, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
use crate::write::share::seats;

/// Why the rows of a step were not written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StepError {
    /// The reason. If its class is `Unknown`, the step may have been committed: claim the partition again to find it out.
    pub error: SinkError,
    /// Whether the rows were sent, so that one of them may be the cause.
    pub was_sent: bool,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl BatchSql {
    /// Whether the database keeps positions, so that rows of a source can be written exactly once.
    pub fn keeps_positions(&self) -> bool {
        self.0.engine.keeps_positions()
    }

    /// How many steps can be under way at once: the connections that the pipeline may use.
    pub fn max_steps(&self) -> usize {
        self.0.concurrency
    }

    /// How many rows a step of a table should have at most: what a batch may have.
    pub fn max_step_rows(&self, schema: &Schema) -> usize {
        self.settings_of(schema).max_batch_rows
    }

    /// How many rows of a step may be refused alone before the table is at fault: `max_statements` of
    /// [`Isolation::Bisect`](crate::Isolation::Bisect) for each `flush_size` rows; 1 without a search.
    pub fn isolation_budget(&self, rows: Rows<'_>) -> usize {
        self.0.config.isolation.budget(rows.len(), self.settings_of(rows.schema()).flush_size).unwrap_or(1)
    }

    /// Claims a partition, see [`Sink::claim`](crate::Sink::claim).
    ///
    /// # Errors
    /// The database cannot be asked, or the table of positions cannot be used.
    ///
    /// # Cancel safety
    /// The partition may be claimed or not: claim it again.
    pub async fn claim(&self, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let claimed = self.0.engine.claim(key, claim).await;
        self.stepped();
        claimed
    }

    /// All positions of a source, of every incarnation, with the seats of its workers: to share partitions out, and to know
    /// how far each is. What is being committed now is not in it. None if nothing was claimed yet.
    ///
    /// # Errors
    /// The database cannot be asked.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    pub async fn positions(&self, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        let positions = self.0.engine.positions(source).await;
        self.stepped();
        positions
    }

    /// Renews the leases of an owner: all partitions and seats of the source that it has claimed last with a lease, whether it
    /// is over or not, end this time from now (at most a year). Returns what the owner has now; what another one has claimed is
    /// not in it. A step need not renew. The lease of a partition whose step takes longer than a second is left as it is.
    ///
    /// The clock is that of the database. An owner that counts on its own clock must begin before the call.
    ///
    /// # Errors
    /// The database cannot be asked. The leases are renewed or not.
    ///
    /// # Cancel safety
    /// The leases are renewed or not.
    pub async fn renew(&self, source: &str, owner: &str, lease: Duration) -> Result<Vec<StoredPosition>, SinkError> {
        let renewed = self.0.engine.renew(source, owner, lease).await;
        self.stepped();
        renewed
    }

    /// Gives a partition or a seat away: it has no owner and no lease from now on. End its steps before: what is under way may
    /// still be committed until another one claims it. `false`: another one has claimed it already.
    ///
    /// # Errors
    /// The database cannot be asked. It is given away or not.
    ///
    /// # Cancel safety
    /// It is given away or not.
    pub async fn release(&self, position: &Position) -> Result<bool, SinkError> {
        let released = self.0.engine.release(position).await;
        self.stepped();
        released
    }

    /// Removes the positions of an incarnation of a source that will never be read again: a log whose folder was deleted, a
    /// stream or a file that was made anew. Without it they stay indefinitely. [`positions`](Self::positions) lists all
    /// incarnations with their owners.
    ///
    /// All of them are removed, or none: none if one has an owner that is not in `ended_owners`, whether its lease is over or
    /// not. Name the owners of processes that have ended and will not come back; a position that was
    /// [released](Self::release) has no owner. If the incarnation is read again nevertheless, a feed finds that its position is
    /// missing, and its rows may be written a second time. The user of the database needs the right to `DELETE`.
    ///
    /// # Errors
    /// The database cannot be asked, or a step that is under way holds a position for longer than a second. The positions are
    /// there, or removed by a call whose reply was lost: call it again.
    ///
    /// # Cancel safety
    /// They are removed or not.
    pub async fn remove_positions(
        &self,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        let removed = self.0.engine.remove_positions(source, incarnation, ended_owners).await;
        self.stepped();
        removed
    }

    /// Takes a seat, so that the other workers of the source see this one before it holds a partition, see
    /// [`share_out`](crate::share_out). It is renewed and released with the partitions. If the owner has one already, its lease
    /// is renewed.
    ///
    /// # Errors
    /// The database cannot be asked, or the table of positions cannot be used.
    ///
    /// # Cancel safety
    /// A seat is taken or not: take it again.
    pub async fn take_seat(&self, source: &str, owner: &str, lease: Duration) -> Result<Position, SinkError> {
        let stored = self.positions(source).await?;
        let claim = Claim::of(owner).from(ClaimFrom::Anyone).or_begin_at(0).lease(lease);
        for seat in seats(source, owner, &stored) {
            // A seat has no rows that could be passed over.
            if let Claimed::Position(position) | Claimed::Ahead { position, .. } = self.claim(&seat, &claim).await? {
                return Ok(position);
            }
        }
        Err(SinkError::new(ErrorClass::Internal, "every seat of the source is taken"))
    }

    /// Writes rows in one transaction with their position. All rows are written, or none: a refused row refuses them all.
    /// Rows of one key become one as in a batch. The rows take no part in the buffer, and no retries are made. They are
    /// accepted when they are written, so the balance of the pipeline counts each row once.
    ///
    /// # Errors
    /// Nothing was written; or, if the class of the error is `Unknown`, perhaps all of it.
    ///
    /// # Cancel safety
    /// The rows may be written or not: claim the partition again.
    pub async fn write_step(&self, rows: Rows<'_>, step: &Step) -> Result<OutcomeCounts, StepError> {
        let is_in_order = self.settings_of(rows.schema()).is_in_order();
        let written = self.0.engine.write_step(rows, step, is_in_order).await;
        self.stepped();
        let counts = written.map_err(|no| StepError { error: no.error, was_sent: no.was_sent })?;
        if step.commits {
            self.count_step(rows, &counts);
        }
        Ok(counts)
    }

    /// Counts the rows of a step whose reply was lost, after a claim has shown that it was committed. Rows that the rule
    /// ignored count as written: that is not known.
    pub fn step_was_written(&self, rows: Rows<'_>) {
        let mut counts = OutcomeCounts::default();
        counts.add(OutcomeKind::Written, rows.len() as u64);
        self.count_step(rows, &counts);
    }

    /// Moves a position without rows.
    ///
    /// # Errors
    /// The position is unchanged; or, if the class of the error is `Unknown`, perhaps moved.
    ///
    /// # Cancel safety
    /// The position may be moved or not: claim the partition again.
    pub async fn advance(&self, step: &Step) -> Result<(), SinkError> {
        let advanced = self.0.engine.advance(step).await;
        self.stepped();
        advanced
    }

    /// Ends a row that no step can write: it is counted, given to the dead-letter consumers of the pipeline, and its outcome is
    /// returned. `row` is its number in the view. While a consumer has the row, it counts as a row in the buffer; the call
    /// waits for this capacity, unless the pipeline is closed.
    ///
    /// # Panics
    /// When there is no such row.
    ///
    /// # Cancel safety
    /// If the call is cancelled, the row is not counted and no consumer has it.
    pub async fn reject_step(&self, rows: Rows<'_>, row: usize, error: &SinkError) -> Outcome {
        let rows = rows.slice(row..row + 1);
        let failed = FailedRow::new(rows.batch().row(rows.start()), 1, Some(error.clone()));
        let outcome = Outcome::Rejected(failed);
        if self.0.pipeline.ledger.wants_failed_rows() {
            self.hand_over_step(rows, &outcome).await;
        }
        self.0.pipeline.reporter.call(|reporter| reporter.rows_rejected(&info(rows), error.class(), 1));
        let mut counts = OutcomeCounts::default();
        counts.add(OutcomeKind::Rejected, 1);
        self.count_step(rows, &counts);
        outcome
    }

    /// The row has no capacity of the buffer, unlike a row of a batch. It takes some, which its consumers release.
    async fn hand_over_step(&self, rows: Rows<'_>, outcome: &Outcome) {
        let ledger = &self.0.pipeline.ledger;
        let bytes = rows.bytes().min(ledger.budget.bytes_limit());
        let reserved = async {
            let known = self.group(rows.schema())?.into_arc();
            match self.try_reserve(&known.table, 1, bytes) {
                Err(error) if error.is_full() => self.wait_for_capacity(&known, 1, bytes, WhenFull::Wait).await,
                reserved => reserved,
            }
        };
        match reserved.await {
            Ok(mut reservation) => reservation.keep_rows(1, bytes),
            // The pipeline is closed: its consumers still receive what ends.
            Err(_) => ledger.budget.take_row_regardless(bytes),
        }
        let (rows, kept) = ledger.hand_over(std::iter::once(outcome), |_| bytes);
        ledger.budget.release(1 - rows, bytes - kept);
    }

    /// A pipeline without rows in its buffer reports its state only when it is woken.
    fn stepped(&self) {
        let _ = self.0.messages.send(Message::Stepped);
    }

    fn count_step(&self, rows: Rows<'_>, counts: &OutcomeCounts) {
        self.0.pipeline.ledger.accept_ended(counts.total());
        let sealed = BatchSealed { reason: FlushReason::Step };
        self.0.pipeline.reporter.call(|reporter| reporter.batch_sealed(&info(rows), &sealed));
        self.0.pipeline.reporter.call(|reporter| reporter.rows_resolved(&info(rows), counts));
        self.0.pipeline.ledger.count(counts);
    }
}

fn info(rows: Rows<'_>) -> BatchInfo<'_> {
    BatchInfo { table: rows.schema().table_display(), context: None, rows: rows.len(), bytes: rows.bytes() }
}
