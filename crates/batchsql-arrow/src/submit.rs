//! Owns how a record batch is submitted: all of it is checked, then its parts are accepted one after the other.
//! Must not know how values are converted.

use std::future::Future;
use std::ops::Range;

use arrow_array::RecordBatch;
use batchsql_core::{BatchSql, RefusedRow, RowOutcomes, SharedRows, ValueRules};

use crate::error::SubmitBatchError;
use crate::mapping::Mapping;

/// Rows that are converted at once.
const PART: usize = 8_192;

mod sealed {
    pub trait Sealed {}
    impl Sealed for batchsql_core::BatchSql {}
}

/// Arrow record batches for a pipeline.
///
/// ```
/// use arrow_array::RecordBatch;
/// use batchsql_arrow::{Mapping, SubmitBatch};
/// use batchsql_core::{BatchSql, FieldRules, Schema};
///
/// # type Error = Box<dyn std::error::Error>;
/// async fn write(db: &BatchSql, table: &Schema, batches: Vec<RecordBatch>) -> Result<(), Error> {
///     let Some(first) = batches.first() else { return Ok(()) };
///     let mapping = Mapping::new(table, first.schema_ref(), FieldRules::default())?;
///     for batch in &batches {
///         db.submit_batch(&mapping, batch).await?;
///     }
///     Ok(())
/// }
/// ```
pub trait SubmitBatch: sealed::Sealed {
    /// Accepts the rows of a batch in their order, waiting for capacity as needed; returns how many. The batch is checked
    /// first: if a row does not fit, none is accepted. It may have more rows than the buffer takes.
    ///
    /// # Errors
    /// The batch has other fields than the mapping; the mapping has more columns than the database can take; a row does not
    /// fit, with its column and number; or the pipeline is closed, or full and does not wait without a limit:
    /// [`accepted`](SubmitBatchError::accepted) rows were accepted.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted: the first ones of the batch, and it is not known how
    /// many.
    fn submit_batch(
        &self,
        mapping: &Mapping,
        batch: &RecordBatch,
    ) -> impl Future<Output = Result<usize, SubmitBatchError>> + Send;

    /// Accepts the rows of a batch as [`submit_batch`](Self::submit_batch), and waits until each of them has its outcome: how
    /// many ended in which, and the rows that were not written, with their number in the batch.
    ///
    /// # Errors
    /// As [`submit_batch`](Self::submit_batch), after the rows that were accepted have their outcomes; the error has these
    /// outcomes.
    ///
    /// # Cancel safety
    /// As [`submit_batch`](Self::submit_batch); the outcomes of accepted rows go to the dead letters only.
    fn submit_batch_tracked(
        &self,
        mapping: &Mapping,
        batch: &RecordBatch,
    ) -> impl Future<Output = Result<RowOutcomes, SubmitBatchError>> + Send;
}

impl SubmitBatch for BatchSql {
    async fn submit_batch(&self, mapping: &Mapping, batch: &RecordBatch) -> Result<usize, SubmitBatchError> {
        let sets = checked(self, mapping, batch)?;
        Ok(self.submit_rows(sets).await?)
    }

    async fn submit_batch_tracked(
        &self,
        mapping: &Mapping,
        batch: &RecordBatch,
    ) -> Result<RowOutcomes, SubmitBatchError> {
        let sets = checked(self, mapping, batch)?;
        Ok(self.submit_rows_tracked(sets).await?)
    }
}

/// The rows of a batch in parts, after all of them were checked. Only one part is in memory at a time, so those of a batch
/// with several parts are converted twice.
fn checked<'a>(
    db: &BatchSql,
    mapping: &'a Mapping,
    batch: &'a RecordBatch,
) -> Result<impl Iterator<Item = SharedRows> + Send + use<'a>, SubmitBatchError> {
    let rules = db.value_rules(mapping.schema()).map_err(SubmitBatchError::Columns)?;
    let mut known = None;
    for range in parts(batch.num_rows()) {
        let begin = range.start;
        let rows = rows(mapping, batch, range, rules)?;
        db.validate_rows(rows.rows()).map_err(|RefusedRow { row, error, .. }| RefusedRow::new(begin + row, error))?;
        known = Some(rows);
    }
    let known = known.filter(|_| batch.num_rows() <= PART);
    let others = if known.is_some() { 0 } else { batch.num_rows() };
    let convert = move |range| rows(mapping, batch, range, rules).expect("the same rows were converted before");
    Ok(known.into_iter().chain(parts(others).map(convert)))
}

fn parts(rows: usize) -> impl Iterator<Item = Range<usize>> + Send {
    (0..rows).step_by(PART).map(move |begin| begin..rows.min(begin + PART))
}

fn rows(
    mapping: &Mapping,
    batch: &RecordBatch,
    range: Range<usize>,
    rules: ValueRules,
) -> Result<SharedRows, SubmitBatchError> {
    let mapped = mapping.rows_for(batch, range, rules)?;
    match mapped.refused.into_iter().next() {
        Some(refused) => Err(refused.into()),
        None => Ok(mapped.rows),
    }
}
