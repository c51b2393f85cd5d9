//! Owns the receipts of rows, and the completion that resolves those of one batch.
//! Must not know how outcomes are decided.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::timeout;

use crate::config::FAR;
use crate::model::schema::Schema;
use crate::model::value::{Value, ValueRef};
use crate::outcome::outcomes::Outcome;

/// The outcomes of one batch. A batch that has any tracked row carries one, shared by its receipts.
///
/// The alignment keeps the outcomes, which are read, off the cache line of the reference count, which every
/// receipt changes.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Completion {
    /// Empty while the batch is in flight. One entry per row, or none when every row was written.
    outcomes: OnceLock<Box<[Outcome]>>,
    /// What the database returned for its rows. Set before the outcomes.
    returned: OnceLock<HashMap<u32, Returned>>,
    waiting: Mutex<Vec<Option<Waker>>>,
}

impl Completion {
    /// Resolves every receipt. `outcomes` has one entry per row, or none when every row was written.
    pub(crate) fn resolve(&self, outcomes: Vec<Outcome>) {
        // A batch is resolved once, when its job is dropped.
        let _ = self.outcomes.set(outcomes.into());
        // A receipt that starts to wait after this sees the outcomes first.
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Sets what the database returned, before the receipts are resolved.
    pub(crate) fn returned(&self, returned: HashMap<u32, Returned>) {
        let _ = self.returned.set(returned);
    }

    fn outcome(&self, row: u32) -> Option<Outcome> {
        let outcomes = self.outcomes.get()?;
        Some(outcomes.get(row as usize).cloned().unwrap_or(Outcome::Written))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Waker>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves to the [`Outcome`] of one row. Dropping it does not affect the row.
///
/// # Cancel safety
/// It can be polled again after a `select!` or a timeout dropped the wait, and resolves once.
#[must_use = "a receipt returns the outcome only when it is awaited"]
pub struct Receipt {
    completion: Arc<Completion>,
    row: u32,
    slot: Option<usize>,
}

impl Receipt {
    pub(crate) fn new(completion: Arc<Completion>, row: u32) -> Self {
        Self { completion, row, slot: None }
    }

    /// Whether this is the row that comes `rows` after another one, in the same batch.
    pub(crate) fn is_after(&self, first: &Self, rows: u32) -> bool {
        Arc::ptr_eq(&self.completion, &first.completion) && self.row == first.row + rows
    }

    /// The outcome of the row that comes `rows` after this one in the same batch, when it is already known.
    pub(crate) fn outcome_after(&self, rows: u32) -> Option<Outcome> {
        self.completion.outcome(self.row + rows)
    }

    /// The outcomes of this row and those that come after it in the same batch, of which `rows` are asked for: those that
    /// failed, with their distance from this row. `None`: they are not known yet.
    pub(crate) fn failed_among(&self, rows: u32) -> Option<impl Iterator<Item = (usize, &Outcome)>> {
        let outcomes = self.completion.outcomes.get()?;
        let (first, rows) = (self.row as usize, rows as usize);
        // There are none if every row was written.
        let ours = outcomes.get(first..first + rows).unwrap_or_default();
        Some(ours.iter().enumerate().filter(|(_, outcome)| outcome.failure().is_some()))
    }

    /// Waits for the outcome for at most `limit`. If the time is over, it returns the receipt: the row is written as
    /// before, and its outcome can still be awaited. An outcome that is already known is returned at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use batchsql_core::Receipt;
    /// # async fn respond(receipt: Receipt) -> u16 {
    /// match receipt.with_timeout(Duration::from_secs(2)).await {
    ///     Ok(outcome) if outcome.is_written() => 201,
    ///     Ok(_) => 500,
    ///     Err(receipt) => {
    ///         // The row is still on its way: answer now, and log the outcome later.
    ///         tokio::spawn(async move { println!("{}", receipt.await) });
    ///         202
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The time is over: the receipt.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with a timer, when the outcome is not yet known.
    ///
    /// # Cancel safety
    /// Dropping it drops the receipt and does not affect the row. In a `select!`, await `&mut receipt` and a sleep instead.
    pub async fn with_timeout(mut self, limit: Duration) -> Result<Outcome, Self> {
        if let Some(outcome) = self.try_outcome() {
            return Ok(outcome);
        }
        match timeout(limit.min(FAR), &mut self).await {
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(self),
        }
    }

    /// Waits for the outcome and for the values that the database returned for the row, see
    /// [`SchemaBuilder::returning`](crate::SchemaBuilder::returning). There are none for a row that was not written, or
    /// that was `Superseded`, or if the schema returns none. Rows that were added up and sent as one have the same values.
    ///
    /// ```
    /// # use batchsql_core::{Outcome, Receipt, ValueRef};
    /// # async fn id_of(receipt: Receipt) -> Option<i64> {
    /// match receipt.with_returned().await {
    ///     (Outcome::Written, Some(returned)) => match returned.get("id") {
    ///         Some(ValueRef::I64(id)) => Some(id),
    ///         _ => None,
    ///     },
    ///     _ => None,
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping it drops the receipt and does not affect the row.
    pub async fn with_returned(mut self) -> (Outcome, Option<Returned>) {
        let outcome = (&mut self).await;
        let returned = self.completion.returned.get().and_then(|returned| returned.get(&self.row)).cloned();
        (outcome, returned)
    }

    /// The outcome, when it is already known.
    pub fn try_outcome(&self) -> Option<Outcome> {
        self.completion.outcome(self.row)
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.get_mut();
        if let Some(outcome) = this.completion.outcome(this.row) {
            return Poll::Ready(outcome);
        }
        let mut waiting = this.completion.lock();
        // It may have been resolved since.
        if let Some(outcome) = this.completion.outcome(this.row) {
            return Poll::Ready(outcome);
        }
        let slot = *this.slot.get_or_insert_with(|| {
            waiting.push(None);
            waiting.len() - 1
        });
        match &mut waiting[slot] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && let Some(waiting) = self.completion.lock().get_mut(slot)
        {
            *waiting = None;
        }
    }
}

/// The values that the database returned for one written row.
#[derive(Clone)]
pub struct Returned {
    schema: Schema,
    values: Arc<[Value]>,
}

impl Returned {
    pub(crate) fn new(schema: Schema, values: Arc<[Value]>) -> Self {
        Self { schema, values }
    }

    /// The value of a column; `None` if the schema does not return it.
    pub fn get(&self, column: &str) -> Option<ValueRef<'_>> {
        let index = self.schema.returning().iter().position(|returned| returned.name() == column)?;
        self.values.get(index).map(Value::as_ref)
    }
}

/// Shows the table, never a value.
impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned").field("table", self.schema.table()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("row", &self.row).field("known", &self.try_outcome().is_some()).finish()
    }
}
