//! Owns what tests of a driver need around its sink: rows as one batch, and the outcomes of rows.
//! Must not know scripts or models.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, Coalesce, Ordering, Outcome, PipelineConfig, Receipt, Row, Rows, Schema, SharedRows, Sink,
    SinkError, Written,
};

/// Rows and bytes of a batch, at most.
const MAX_ROWS: usize = 1 << 20;
const MAX_BYTES: usize = 1 << 30;

/// Rows of one schema as one batch, in their order and without coalescing, to call [`Sink::write`] without a pipeline
/// that searches and retries.
///
/// ```
/// use batchsql_core::{ColumnType, Schema};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let schema = Schema::builder("t").column("id", ColumnType::I64).build()?;
/// let rows: Result<Vec<_>, _> = (0..3_i64).map(|id| schema.row().set("id", id)?.finish()).collect();
/// let batch = batchsql_testkit::batch_of(rows?).await;
/// assert_eq!(batch.rows().len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If there are no rows, more than a million, more than 1 GiB, or rows of several schemas or with different columns.
pub async fn batch_of<R: Row>(rows: impl IntoIterator<Item = R>) -> SharedRows {
    let kept = Keep::default();
    let config = PipelineConfig::default()
        .buffer_size(MAX_ROWS)
        .buffer_bytes(MAX_BYTES)
        .flush_size(MAX_ROWS)
        .flush_bytes(MAX_BYTES)
        .flush_interval(Duration::from_secs(24 * 3600))
        .coalesce(Coalesce::Off)
        .ordering(Ordering::PerTable);
    let db = BatchSql::builder(kept.clone()).config(config).start().expect("the settings are valid");
    for row in rows {
        db.submit(&row).await.unwrap_or_else(|error| panic!("a row is not accepted: {error}"));
    }
    db.close(Duration::MAX).await;
    let mut batches = std::mem::take(&mut *kept.0.lock().unwrap_or_else(PoisonError::into_inner));
    assert_eq!(batches.len(), 1, "the rows are not one batch");
    batches.remove(0)
}

/// Submits rows and returns their receipts, in the order of the rows.
///
/// # Panics
/// If a row is not accepted.
pub async fn receipts_of<R: Row>(db: &BatchSql, rows: impl IntoIterator<Item = R>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for row in rows {
        receipts.push(db.submit_tracked(&row).await.unwrap_or_else(|error| panic!("a row is not accepted: {error}")));
    }
    receipts
}

/// Waits for the outcomes of rows. Close or flush their pipeline before, or wait for its `flush_interval`.
pub async fn outcomes_of(receipts: impl IntoIterator<Item = Receipt>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    outcomes
}

/// A sink that keeps the batches it gets.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<SharedRows>>>);

impl Sink for Keep {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "keep"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rows.to_shared());
        Ok(Written::default())
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Conflict, DynRow, ValueRef};

    use super::*;

    fn rows(ids: impl IntoIterator<Item = i64>) -> Vec<DynRow> {
        let schema = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::replace(["id"]));
        let schema = schema.build().unwrap();
        ids.into_iter().map(|id| schema.row().set("id", id).unwrap().finish().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_batch_has_every_row_in_its_order() {
        let batch = batch_of(rows((0..3_000).rev().chain([7]))).await;
        let column = batch.rows().column(0);
        let ids: Vec<_> = (0..batch.rows().len()).map(|row| column.get(row)).collect();
        assert_eq!(ids, (0..3_000).rev().chain([7]).map(ValueRef::I64).collect::<Vec<_>>());
    }

    #[tokio::test]
    #[should_panic(expected = "the rows are not one batch")]
    async fn no_rows_are_no_batch() {
        batch_of(rows([])).await;
    }

    #[tokio::test]
    async fn outcomes_are_in_the_order_of_the_rows() {
        let sink = crate::ScriptedSink::new();
        sink.poison(|row| row.get("id") == Some(ValueRef::I64(2)));
        let db = BatchSql::builder(sink).start().unwrap();
        let receipts = receipts_of(&db, rows([1, 2, 3])).await;
        db.flush().await.unwrap();
        let outcomes = outcomes_of(receipts).await;
        assert_eq!(outcomes.iter().map(Outcome::is_written).collect::<Vec<_>>(), [true, false, true]);
    }
}
