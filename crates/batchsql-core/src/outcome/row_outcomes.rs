//! Owns what became of many rows that were submitted with one call.
//! Must not know how rows are accepted or written.

use std::collections::VecDeque;

use crate::outcome::outcomes::{Outcome, OutcomeCounts};
use crate::outcome::receipt::Receipt;

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
/// Rows that are neighbours in one batch share one receipt, and receipts at the front whose outcomes are known are
/// counted and dropped. So a call with any number of rows holds about one receipt per chunk that is still in flight, and
/// the rows that failed.
#[derive(Default)]
pub(crate) struct Receipts {
    runs: VecDeque<Run>,
    /// Rows of all runs so far.
    rows: usize,
    outcomes: RowOutcomes,
}

/// Rows that are neighbours in one batch.
struct Run {
    /// Of the first row.
    receipt: Receipt,
    rows: u32,
    /// The index of the first row.
    index: usize,
}

impl Receipts {
    /// Adds the receipt of the next row.
    pub(crate) fn add(&mut self, receipt: Receipt) {
        match self.runs.back_mut() {
            Some(run) if receipt.is_after(&run.receipt, run.rows) => run.rows += 1,
            _ => self.runs.push_back(Run { receipt, rows: 1, index: self.rows }),
        }
        self.rows += 1;
    }

    /// Counts the rows at the front whose outcomes are known.
    pub(crate) fn count_known(&mut self) {
        while let Some(run) = self.runs.front()
            && run.receipt.try_outcome().is_some()
        {
            self.runs.pop_front().iter().for_each(|run| self.outcomes.add_run(run));
        }
    }

    /// Waits until every row has its outcome.
    pub(crate) async fn ended(mut self) -> RowOutcomes {
        while let Some(mut run) = self.runs.pop_front() {
            (&mut run.receipt).await;
            self.outcomes.add_run(&run);
        }
        self.outcomes
    }
}
