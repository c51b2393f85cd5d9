//! Owns the end of a batch: rows without an outcome get one, then metrics, receipts, and its capacity.
//! Must not know how rows were written.

use std::sync::Arc;

use crate::error::{ErrorClass, SinkError};
use crate::outcome::outcomes::FailureKind;
use crate::outcome::receipt::Returned;
use crate::pipeline_events::BatchExecuted;
use crate::row::traits::Row;
use crate::write::job::{End, Job};

impl Drop for Job {
    fn drop(&mut self) {
        if self.is_absorbed {
            return;
        }
        self.report_sealed();
        if self.open_rows() > 0 {
            self.give_up();
        }
        if !self.progress.frees_capacity {
            self.progress.failure_log.write(self.batch.schema().table_display(), &self.progress.counts);
        }
        for (class, rows) in ErrorClass::ALL.into_iter().zip(self.progress.rejected).filter(|(_, rows)| *rows > 0) {
            self.pipeline.reporter.call(|reporter| reporter.rows_rejected(&self.info(), class, rows));
        }
        self.settle();
    }
}

impl Job {
    /// Ends the rows that are left when the batch is dropped: by a panic, a deadline, or with its runtime.
    fn give_up(&mut self) {
        let given_up = |class, what: &str| {
            let why = if std::thread::panicking() {
                SinkError::new(ErrorClass::Internal, format!("the sink panicked {what} this row was sent"))
            } else {
                let text = format!(
                    "given up {what} it was sent: the time for the end (close, drain_for) was over, or the runtime ended"
                );
                SinkError::new(class, text)
            };
            Some(why)
        };
        if let Some((rows, since, attempt)) = self.progress.writing.take()
            && !attempt.abandon()
        {
            let executed =
                BatchExecuted { rows: rows.len(), duration: since.elapsed(), error: Some(ErrorClass::Unknown) };
            self.pipeline.reporter.call(|reporter| reporter.batch_executed(&self.info(), &executed));
            self.failed(rows, FailureKind::Unknown, given_up(ErrorClass::Unknown, "after").as_ref());
        }
        // Errors of other rows do not apply to these.
        let is_of_all = |error: &SinkError| {
            let of_some = matches!(error.class(), ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate);
            !of_some && !std::thread::panicking()
        };
        let error = self.progress.last_error.clone().filter(is_of_all);
        let error = error.or_else(|| given_up(ErrorClass::Transient, "before"));
        self.failed_rest(FailureKind::Purged, error.as_ref());
    }

    /// Records the end of the batch: failed rows, metrics, counts, receipts, then the capacity it held, except for that
    /// of rows that wait for a dead-letter consumer.
    fn settle(&mut self) {
        let counts = self.progress.counts;
        let ledger = &self.pipeline.ledger;
        debug_assert_eq!(counts.total(), self.batch.len() as u64, "each row has one outcome");
        let ends = std::mem::take(&mut self.progress.ends);
        let (mut kept_rows, mut kept_bytes) = (0, 0);
        if counts.failed() > 0 {
            let outcomes = ends.iter().filter_map(End::outcome);
            let fixed = self.batch.schema().fixed_row_len();
            (kept_rows, kept_bytes) = ledger.hand_over(outcomes, |row| fixed + row.variable_len());
        }
        self.pipeline.reporter.call(|reporter| reporter.rows_resolved(&self.info(), &counts));
        ledger.count(&counts);
        let mut start = 0;
        for part in &self.parts {
            if let Some(completion) = &part.completion {
                if !self.progress.returned.is_empty() {
                    let of_row = |row: usize| {
                        let values = Arc::clone(self.progress.returned.get(&row)?);
                        let number = u32::try_from(row - start).expect("buffer_size fits u32");
                        Some((number, Returned::new(self.batch.schema().clone(), values)))
                    };
                    completion.returned((start..start + part.rows).filter_map(of_row).collect());
                }
                let rows = if ends.is_empty() { &[] } else { &ends[start..start + part.rows] };
                completion.resolve(rows.iter().filter_map(End::outcome).cloned().collect());
            }
            start += part.rows;
        }
        self.share.release();
        ledger.budget.release(self.batch.len() - kept_rows, self.batch.bytes() - kept_bytes);
        self.pipeline.batch_ended(self.number);
    }
}
