//! Owns what became of many rows that were submitted with one call.
//! Must not know how rows are accepted or written.

use crate::outcome::outcomes::{Outcome, OutcomeCounts};
use crate::outcome::receipt::Receipt;
use crate::outcome::row_receipts::{RowReceipts, Run};

/// What became of the accepted rows of one [`submit_all_tracked`](crate::BatchSql::submit_all_tracked).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
#[must_use = "rows that were not written are in it"]
pub struct RowOutcomes {
    /// Rows per outcome; together they are the rows that were accepted.
    pub counts: OutcomeCounts,
    /// Each row that was rejected, expired, purged or unknown, with its index in the input (from 0), the lowest first.
    pub failed: Vec<(usize, Outcome)>,
}

impl RowOutcomes {
    /// True when no row failed: each was written, `Ignored` or `Superseded`.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    fn add_run(&mut self, run: &Run) {
        for offset in 0..run.rows {
            let outcome = run.receipt.outcome_after(offset).expect("the rows of a batch get their outcomes together");
            self.counts.add(outcome.kind(), 1);
            if outcome.failure().is_some() {
                self.failed.push((run.index + offset as usize, outcome));
            }
        }
    }
}

/// Receipts of rows that were accepted one after the other.
///
/// Rows that are neighbours in one batch share one receipt, and receipts whose outcomes are known are counted and dropped:
/// those at the front after each chunk, the others when they are many, because the first rows may wait for long. So a
/// call with any number of rows holds at most `max_runs` receipts and those of a chunk, and the rows that failed.
pub(crate) struct Receipts {
    rows: RowReceipts,
    /// From this number of runs on, known ones are dropped wherever they are.
    max_runs: usize,
    outcomes: RowOutcomes,
}

impl Receipts {
    /// `buffer_size`: the most rows that may be without an outcome at a time.
    pub(crate) fn new(buffer_size: usize) -> Self {
        // Twice as many, so that each look at all of them drops at least half.
        let max_runs = buffer_size.saturating_mul(2);
        Self { rows: RowReceipts::new(), max_runs, outcomes: RowOutcomes::default() }
    }

    /// Adds the receipt of the next row, and of those that come after it in the same batch: `rows` in all.
    pub(crate) fn add(&mut self, receipt: Receipt, rows: u32) {
        self.rows.add(receipt, rows);
    }

    /// Counts rows whose outcomes are known.
    pub(crate) fn count_known(&mut self) {
        let Self { rows: RowReceipts { runs, .. }, max_runs, outcomes } = self;
        while let Some(run) = runs.front()
            && run.receipt.try_outcome().is_some()
        {
            runs.pop_front().iter().for_each(|run| outcomes.add_run(run));
        }
        if runs.len() > *max_runs {
            runs.retain(|run| {
                let is_known = run.receipt.try_outcome().is_some();
                if is_known {
                    outcomes.add_run(run);
                }
                !is_known
            });
        }
    }

    /// Waits until every row has its outcome.
    pub(crate) async fn ended(mut self) -> RowOutcomes {
        while let Some(mut run) = self.rows.runs.pop_front() {
            (&mut run.receipt).await;
            self.outcomes.add_run(&run);
        }
        self.outcomes.failed.sort_unstable_by_key(|(index, _)| *index);
        self.outcomes
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

    #[tokio::test]
    async fn receipts_of_known_rows_are_dropped_while_the_first_row_waits() {
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let failed = |index: usize| {
            let row = schema.row().set("id", index as i64).unwrap().finish().unwrap();
            let error = SinkError::new(ErrorClass::Row, "bad");
            Outcome::failed(FailureKind::Rejected, FailedRow::new(row, 1, Some(error)))
        };
        let mut receipts = Receipts::new(10);
        let first = Arc::new(Completion::default());
        receipts.add(Receipt::new(Arc::clone(&first), 0), 1);
        let mut most = 0;
        for index in 1..1_000 {
            let batch = Arc::new(Completion::default());
            receipts.add(Receipt::new(Arc::clone(&batch), 0), 1);
            batch.resolve(if index % 100 == 0 { vec![failed(index)] } else { Vec::new() });
            receipts.count_known();
            most = most.max(receipts.rows.runs.len());
        }
        assert!(most <= 20, "{most} receipts are kept");
        first.resolve(vec![failed(0)]);
        let outcomes = receipts.ended().await;
        let indexes: Vec<usize> = outcomes.failed.iter().map(|(index, _)| *index).collect();
        assert_eq!((indexes, outcomes.counts.total()), ((0..1_000).step_by(100).collect(), 1_000));
    }
}
