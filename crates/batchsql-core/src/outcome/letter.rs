//! Owns a failed row for a consumer, and the receiving end of a channel of failed rows.
//! Must not know why rows fail, or who consumes them.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::budget::capacity::Budget;
use crate::budget::guards::HeldCapacity;
use crate::outcome::outcomes::{FailedRow, Outcome};

/// The receiving end of [`DeadLetters::channel`](crate::DeadLetters::channel).
#[derive(Debug)]
pub struct FailedRows(mpsc::UnboundedReceiver<DeadLetter>);

impl FailedRows {
    pub(crate) fn new(receiver: mpsc::UnboundedReceiver<DeadLetter>) -> Self {
        Self(receiver)
    }

    /// The next row; `None` once the pipeline has ended and every row was received.
    ///
    /// # Cancel safety
    /// No row is lost.
    pub async fn recv(&mut self) -> Option<DeadLetter> {
        self.0.recv().await
    }

    /// The next row, if one is there.
    pub fn try_recv(&mut self) -> Option<DeadLetter> {
        self.0.try_recv().ok()
    }

    /// The next row, for consumers on a thread of their own.
    ///
    /// # Panics
    /// On a thread that runs asynchronous tasks.
    pub fn blocking_recv(&mut self) -> Option<DeadLetter> {
        self.0.blocking_recv()
    }
}

/// A row that was not written. It keeps its capacity in the buffer until it is dropped.
#[derive(Debug)]
#[must_use = "take the row out of it; dropping it discards the row"]
pub struct DeadLetter {
    outcome: Outcome,
    capacity: Option<Arc<HeldCapacity>>,
}

impl DeadLetter {
    pub(crate) fn new(outcome: Outcome, capacity: Arc<HeldCapacity>) -> Self {
        Self { outcome, capacity: Some(capacity) }
    }

    /// A letter that holds no capacity.
    pub(crate) fn without_capacity(outcome: Outcome) -> Self {
        Self { outcome, capacity: None }
    }

    pub(crate) fn with_capacity(outcome: Outcome, capacity: HeldCapacity) -> Self {
        Self { outcome, capacity: Some(Arc::new(capacity)) }
    }

    /// The outcome of the row.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The row and the reason.
    pub fn failed_row(&self) -> &FailedRow {
        self.outcome.failure().expect("only outcomes that hand the row back become dead letters")
    }

    /// The capacity that the row keeps, unless another consumer also has the row, or it is of another budget.
    pub(crate) fn into_capacity(self, budget: &Budget) -> Result<HeldCapacity, Self> {
        let Self { outcome, capacity } = self;
        let Some(capacity) = capacity else { return Err(Self::without_capacity(outcome)) };
        if !capacity.is_of(budget) {
            return Err(Self { outcome, capacity: Some(capacity) });
        }
        Arc::try_unwrap(capacity).map_err(|capacity| Self { outcome, capacity: Some(capacity) })
    }

    /// Gives the capacity in the buffer back and keeps the row. To submit the row again, use
    /// [`resubmit`](crate::BatchSql::resubmit), which needs no other capacity.
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }
}
