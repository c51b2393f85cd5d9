//! Owns the observer of a pipeline: what it is told, and that each observer may pass it on to another one.
//! Must not know metric names, exporters, or when something is reported.

use std::sync::Arc;
use std::time::Duration;

use crate::durable_events::{DurableGauges, DurableProgress};
use crate::error::ErrorClass;
use crate::feed_events::{FeedGauges, FeedProgress};
use crate::outcome::outcomes::OutcomeCounts;
use crate::pipeline_events::{BatchExecuted, BatchInfo, BatchSealed, BatchStarted, PipelineGauges};

/// Observes a pipeline. Implement what you need: the default of a method does nothing, or passes the event to
/// [`inner`](Self::inner).
///
/// A reporter that overrides one method of another one, and keeps the rest:
///
/// ```
/// use batchsql_core::{BatchInfo, MetricsReporter, OutcomeCounts};
///
/// struct Loud<R>(R);
///
/// impl<R: MetricsReporter> MetricsReporter for Loud<R> {
///     fn inner(&self) -> Option<&dyn MetricsReporter> {
///         Some(&self.0)
///     }
///
///     fn rows_resolved(&self, batch: &BatchInfo<'_>, counts: &OutcomeCounts) {
///         if counts.failed() > 0 {
///             eprintln!("{}: {counts:?}", batch.table);
///         }
///         self.0.rows_resolved(batch, counts);
///     }
/// }
/// ```
///
/// The methods are called from the pipeline's tasks and, for refusals, waits and the context, from the
/// caller's task; they must not block. [`context`](Self::context) is called under the lock of an open
/// batch: it must not call the pipeline. A panic in a method is caught and logged.
pub trait MetricsReporter: Send + Sync + 'static {
    /// Where the events go that this reporter does not observe: the default of every other method passes its event to this
    /// reporter. `None` (default): they are dropped.
    fn inner(&self) -> Option<&dyn MetricsReporter> {
        None
    }

    /// A context, for example a test case, that is captured when a batch is sealed and handed back
    /// with every event of that batch.
    fn context(&self) -> Option<Arc<str>> {
        self.inner()?.context()
    }

    /// A batch was sealed; reported when it leaves its lane, before anything else of that batch.
    fn batch_sealed(&self, batch: &BatchInfo<'_>, event: &BatchSealed) {
        if let Some(inner) = self.inner() {
            inner.batch_sealed(batch, event);
        }
    }

    /// The writing of a batch started.
    fn batch_started(&self, batch: &BatchInfo<'_>, event: &BatchStarted) {
        if let Some(inner) = self.inner() {
            inner.batch_started(batch, event);
        }
    }

    /// An attempt to write a batch or a part of it ended.
    fn batch_executed(&self, batch: &BatchInfo<'_>, event: &BatchExecuted) {
        if let Some(inner) = self.inner() {
            inner.batch_executed(batch, event);
        }
    }

    /// Rows of a batch got their outcomes. The counts of all calls for one batch add up to its rows.
    fn rows_resolved(&self, batch: &BatchInfo<'_>, counts: &OutcomeCounts) {
        if let Some(inner) = self.inner() {
            inner.rows_resolved(batch, counts);
        }
    }

    /// An attempt failed before anything was sent: there was no connection, or the table could not be checked.
    fn batch_not_sent(&self, batch: &BatchInfo<'_>, class: ErrorClass) {
        if let Some(inner) = self.inner() {
            inner.batch_not_sent(batch, class);
        }
    }

    /// Rows were rejected for errors of one class; reported before the `rows_resolved` that counts them.
    fn rows_rejected(&self, batch: &BatchInfo<'_>, class: ErrorClass, rows: u64) {
        if let Some(inner) = self.inner() {
            inner.rows_rejected(batch, class, rows);
        }
    }

    /// A batch will be retried.
    fn batch_retried(&self, batch: &BatchInfo<'_>, class: ErrorClass) {
        if let Some(inner) = self.inner() {
            inner.batch_retried(batch, class);
        }
    }

    /// A refused batch is being split to find its bad rows.
    fn batch_isolated(&self, batch: &BatchInfo<'_>) {
        if let Some(inner) = self.inner() {
            inner.batch_isolated(batch);
        }
    }

    /// A table cannot be written for now: its batches wait, and a probe tries it from time to time. Rows that carry
    /// different columns are parked, resumed and reported separately.
    fn table_parked(&self, table: &str, class: ErrorClass) {
        if let Some(inner) = self.inner() {
            inner.table_parked(table, class);
        }
    }

    /// A parked table takes rows again, or has nothing left to write.
    fn table_resumed(&self, table: &str, parked_for: Duration) {
        if let Some(inner) = self.inner() {
            inner.table_resumed(table, parked_for);
        }
    }

    /// A row was not accepted; `reason` is `closed`, `full` or `invalid`.
    fn row_refused(&self, table: &str, reason: &'static str) {
        if let Some(inner) = self.inner() {
            inner.row_refused(table, reason);
        }
    }

    /// A submit waited for capacity.
    fn submit_waited(&self, table: &str, wait: Duration) {
        if let Some(inner) = self.inner() {
            inner.submit_waited(table, wait);
        }
    }

    /// The state of the pipeline, reported at least every second while there is work, and at its end.
    fn gauges(&self, gauges: &PipelineGauges) {
        if let Some(inner) = self.inner() {
            inner.gauges(gauges);
        }
    }

    /// The state of the durable intake of this pipeline, reported each second and at its end.
    fn durable_gauges(&self, gauges: &DurableGauges) {
        if let Some(inner) = self.inner() {
            inner.durable_gauges(gauges);
        }
    }

    /// What the durable intake of this pipeline has done since the last call.
    fn durable_progress(&self, progress: &DurableProgress) {
        if let Some(inner) = self.inner() {
            inner.durable_progress(progress);
        }
    }

    /// The log of the durable intake was synced to disk; called from the thread that writes it.
    fn durable_synced(&self, took: Duration) {
        if let Some(inner) = self.inner() {
            inner.durable_synced(took);
        }
    }

    /// The state of the feeds that write rows of a source with this pipeline, reported each second and at their end.
    fn feed_gauges(&self, gauges: &FeedGauges) {
        if let Some(inner) = self.inner() {
            inner.feed_gauges(gauges);
        }
    }

    /// What these feeds have done for one table since the last call for it.
    fn feed_progress(&self, progress: &FeedProgress) {
        if let Some(inner) = self.inner() {
            inner.feed_progress(progress);
        }
    }
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopReporter;

impl MetricsReporter for NoopReporter {}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pipeline_events::FlushReason;

    /// Notes which methods were called.
    #[derive(Default)]
    struct Called(Mutex<Vec<&'static str>>);

    impl Called {
        fn note(&self, method: &'static str) {
            self.0.lock().unwrap().push(method);
        }
    }

    impl MetricsReporter for Called {
        fn context(&self) -> Option<Arc<str>> {
            Some("context".into())
        }

        fn batch_sealed(&self, _: &BatchInfo<'_>, _: &BatchSealed) {
            self.note("batch_sealed");
        }

        fn batch_started(&self, _: &BatchInfo<'_>, _: &BatchStarted) {
            self.note("batch_started");
        }

        fn batch_executed(&self, _: &BatchInfo<'_>, _: &BatchExecuted) {
            self.note("batch_executed");
        }

        fn rows_resolved(&self, _: &BatchInfo<'_>, _: &OutcomeCounts) {
            self.note("rows_resolved");
        }

        fn batch_not_sent(&self, _: &BatchInfo<'_>, _: ErrorClass) {
            self.note("batch_not_sent");
        }

        fn rows_rejected(&self, _: &BatchInfo<'_>, _: ErrorClass, _: u64) {
            self.note("rows_rejected");
        }

        fn batch_retried(&self, _: &BatchInfo<'_>, _: ErrorClass) {
            self.note("batch_retried");
        }

        fn batch_isolated(&self, _: &BatchInfo<'_>) {
            self.note("batch_isolated");
        }

        fn table_parked(&self, _: &str, _: ErrorClass) {
            self.note("table_parked");
        }

        fn table_resumed(&self, _: &str, _: Duration) {
            self.note("table_resumed");
        }

        fn row_refused(&self, _: &str, _: &'static str) {
            self.note("row_refused");
        }

        fn submit_waited(&self, _: &str, _: Duration) {
            self.note("submit_waited");
        }

        fn gauges(&self, _: &PipelineGauges) {
            self.note("gauges");
        }

        fn durable_gauges(&self, _: &DurableGauges) {
            self.note("durable_gauges");
        }

        fn durable_progress(&self, _: &DurableProgress) {
            self.note("durable_progress");
        }

        fn durable_synced(&self, _: Duration) {
            self.note("durable_synced");
        }

        fn feed_gauges(&self, _: &FeedGauges) {
            self.note("feed_gauges");
        }

        fn feed_progress(&self, _: &FeedProgress) {
            self.note("feed_progress");
        }
    }

    struct Outer(Called);

    impl MetricsReporter for Outer {
        fn inner(&self) -> Option<&dyn MetricsReporter> {
            Some(&self.0)
        }
    }

    #[test]
    fn every_method_passes_its_event_to_the_inner_reporter() {
        let outer = Outer(Called::default());
        let batch = BatchInfo { table: "t", context: None, rows: 1, bytes: 1 };
        assert_eq!(outer.context().as_deref(), Some("context"));
        outer.batch_sealed(&batch, &BatchSealed { reason: FlushReason::Rows });
        outer.batch_started(&batch, &BatchStarted { queue_wait: Duration::ZERO, assemble: Duration::ZERO });
        outer.batch_executed(&batch, &BatchExecuted { rows: 1, duration: Duration::ZERO, error: None });
        outer.rows_resolved(&batch, &OutcomeCounts::default());
        outer.batch_not_sent(&batch, ErrorClass::Row);
        outer.rows_rejected(&batch, ErrorClass::Row, 1);
        outer.batch_retried(&batch, ErrorClass::Row);
        outer.batch_isolated(&batch);
        outer.table_parked("t", ErrorClass::Row);
        outer.table_resumed("t", Duration::ZERO);
        outer.row_refused("t", "full");
        outer.submit_waited("t", Duration::ZERO);
        outer.gauges(&PipelineGauges::default());
        outer.durable_gauges(&DurableGauges::default());
        outer.durable_progress(&DurableProgress::default());
        outer.durable_synced(Duration::ZERO);
        outer.feed_gauges(&FeedGauges::default());
        outer.feed_progress(&FeedProgress::default());
        let called = outer.0.0.lock().unwrap().clone();
        let all = [
            "batch_sealed",
            "batch_started",
            "batch_executed",
            "rows_resolved",
            "batch_not_sent",
            "rows_rejected",
            "batch_retried",
            "batch_isolated",
            "table_parked",
            "table_resumed",
            "row_refused",
            "submit_waited",
            "gauges",
            "durable_gauges",
            "durable_progress",
            "durable_synced",
            "feed_gauges",
            "feed_progress",
        ];
        assert_eq!(called, all);
    }
}
