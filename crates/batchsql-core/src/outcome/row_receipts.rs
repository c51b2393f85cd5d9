//! Owns the receipts of rows that were submitted one after the other, while their outcomes are not known.
//! Must not know how rows are accepted or written.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use crate::outcome::outcomes::Outcome;
use crate::outcome::receipt::Receipt;

/// The outcomes of rows that were submitted one after the other with
/// [`submit_all_followed`](crate::BatchSql::submit_all_followed), as they become known. Rows that are neighbours in one batch
/// share one receipt. Dropping it does not affect the rows.
#[derive(Default)]
pub struct RowReceipts {
    pub(super) runs: VecDeque<Run>,
    /// Rows of all runs so far.
    rows: usize,
}

/// Rows that are neighbours in one batch.
pub(super) struct Run {
    /// Of the first row.
    pub(super) receipt: Receipt,
    pub(super) rows: u32,
    /// The index of the first row.
    pub(super) index: usize,
}

/// Rows that have their outcomes.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "rows that were not written are in it"]
pub struct EndedRows {
    /// The rows, by their index among all that were accepted (from 0).
    pub rows: Range<usize>,
    /// Those of them that were rejected, expired, purged or unknown, by index, the lowest first. The others were written,
    /// `Ignored` or `Superseded`.
    pub failed: Vec<(usize, Outcome)>,
}

impl RowReceipts {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many rows were accepted, with an outcome or not.
    pub fn accepted(&self) -> usize {
        self.rows
    }

    /// Whether every row has had its outcome taken.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes rows that have their outcomes: those at the front, as far as they are in one batch.
    pub fn try_next(&mut self) -> Option<EndedRows> {
        let Run { receipt, rows, index } = self.runs.front()?;
        let failed = receipt.failed_among(*rows)?;
        let (index, rows) = (*index, *rows as usize);
        let failed = failed.map(|(row, outcome)| (index + row, outcome.clone())).collect();
        self.runs.pop_front();
        Some(EndedRows { rows: index..index + rows, failed })
    }

    /// Waits until [`try_next`](Self::try_next) has rows, or there are none.
    ///
    /// # Cancel safety
    /// It can be called again.
    pub async fn ready(&mut self) {
        if let Some(run) = self.runs.front_mut() {
            let _ = (&mut run.receipt).await;
        }
    }

    /// Adds the receipt of the next row, and of those that come after it in the same batch: `rows` in all.
    pub(crate) fn add(&mut self, receipt: Receipt, rows: u32) {
        match self.runs.back_mut() {
            Some(run) if receipt.is_after(&run.receipt, run.rows) => run.rows += rows,
            _ => self.runs.push_back(Run { receipt, rows, index: self.rows }),
        }
        self.rows += rows as usize;
    }
}

impl fmt::Debug for RowReceipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowReceipts").field("accepted", &self.rows).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{ErrorClass, SinkError};
    use crate::model::schema::Schema;
    use crate::model::value::ColumnType;
    use crate::outcome::outcomes::{FailedRow, FailureKind};
    use crate::outcome::receipt::Completion;

    #[test]
    fn rows_of_one_batch_end_together() {
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().finish().unwrap();
        let error = SinkError::new(ErrorClass::Row, "bad");
        let failed = Outcome::failed(FailureKind::Rejected, FailedRow::new(row, 1, Some(error)));
        let (first, second) = (Arc::new(Completion::default()), Arc::new(Completion::default()));
        let mut receipts = RowReceipts::new();
        for (batch, row) in [(&first, 5), (&first, 6), (&first, 7), (&second, 0), (&first, 8)] {
            receipts.add(Receipt::new(Arc::clone(batch), row), 1);
        }
        let mut outcomes = vec![Outcome::Written; 9];
        outcomes[6] = failed;
        second.resolve(Vec::new());
        assert!(receipts.try_next().is_none(), "the front is not known");
        first.resolve(outcomes);
        let mut take = || {
            let ended = receipts.try_next()?;
            Some((ended.rows, ended.failed.into_iter().map(|(row, _)| row).collect::<Vec<_>>()))
        };
        assert_eq!(take(), Some((0..3, vec![1])));
        assert_eq!(take(), Some((3..4, vec![])));
        assert_eq!(take(), Some((4..5, vec![])));
        assert_eq!(take(), None);
        assert_eq!((receipts.accepted(), receipts.is_empty()), (5, true));
    }
}
