//! Owns the translation of a pipeline's events into metrics.
//! Must not know metric names, labels or exporters; `series` holds the handles.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use batchsql_core::{
    BatchExecuted, BatchInfo, BatchSealed, BatchStarted, DurableGauges, DurableProgress, ErrorClass, FeedGauges,
    FeedProgress, MetricsReporter, OutcomeCounts, OutcomeKind, PipelineGauges,
};
use metrics::SharedString;

use crate::current_test_case::CurrentTestCase;
use crate::durable_series::DurableSeries;
use crate::emit::Emitter;
use crate::feed_series::FeedSeries;
use crate::options::MetricsOptions;
use crate::series::{PipelineSeries, Tables};
use crate::unix_time::unix_seconds;

/// Observes one pipeline. Made by [`Metrics::reporter`](crate::Metrics::reporter).
///
/// What it counts:
/// - rows are *received* when their batch is sealed, so rows in an open batch are not yet counted;
/// - rows are *processed* when they are committed (outcome `written`). `ignored` and `superseded` rows
///   are counted only by outcome; the sum over all outcomes equals the rows received once all outcomes are known;
/// - an *execution* is one attempt in the database: a batch that is retried or split has several, and
///   each failed one is an *error*. A failure to get a connection or a plan is an error too, but no
///   execution.
///
/// Of a durable intake in front of the pipeline, and of feeds that write rows of a source with it, it records what they report;
/// without them these series do not exist.
#[must_use = "give the reporter to the builder of a pipeline"]
pub struct Reporter {
    pipeline: PipelineSeries,
    tables: Tables,
    /// Absent until a durable intake reports something.
    durable: OnceLock<DurableSeries>,
    /// Absent until the feeds of a source report something.
    feeds: OnceLock<FeedSeries>,
    current: Arc<CurrentTestCase>,
    fixed: Option<Arc<str>>,
}

impl Reporter {
    pub(crate) fn new(
        emitter: &Emitter,
        database: SharedString,
        options: MetricsOptions,
        current: Arc<CurrentTestCase>,
    ) -> Self {
        let pipeline = PipelineSeries::new(emitter, &database);
        let tables = Tables::new(emitter.clone(), database, options);
        Self { pipeline, tables, durable: OnceLock::new(), feeds: OnceLock::new(), current, fixed: None }
    }

    fn durable(&self) -> &DurableSeries {
        self.durable.get_or_init(|| {
            let Tables { emitter, database, options, .. } = &self.tables;
            DurableSeries::new(emitter, database, options.max_tables)
        })
    }

    fn feeds(&self) -> &FeedSeries {
        self.feeds.get_or_init(|| {
            let Tables { emitter, database, options, .. } = &self.tables;
            FeedSeries::new(emitter, database, options.max_tables)
        })
    }

    /// Sets the test case of this pipeline alone, for tests that run at the same time. It overrides
    /// [`Metrics::set_current_test_case`](crate::Metrics::set_current_test_case).
    #[cfg(feature = "test-metrics")]
    pub fn test_case(mut self, test_case: impl Into<Arc<str>>) -> Self {
        self.fixed = Some(test_case.into()).filter(|case| !case.is_empty());
        self
    }

    /// Creates every series of a table that a batch can have with value 0, for the current test case of this reporter, or else of its
    /// facade. Existing values stay.
    ///
    /// Prometheus computes an increase only from an existing value. A counter that is created between two scrapes and
    /// does not change after the second always has a rate of 0. So a job that lasts only a few scrapes, such as a
    /// test, announces its tables and starts after the next scrape.
    pub fn announce(&self, table: &str) {
        self.tables.batch(table, self.context().as_ref());
    }
}

impl MetricsReporter for Reporter {
    fn context(&self) -> Option<Arc<str>> {
        self.fixed.clone().or_else(|| self.current.get())
    }

    fn batch_sealed(&self, batch: &BatchInfo<'_>, event: &BatchSealed) {
        let table = self.tables.table(batch.table);
        table.received.increment(batch.rows as u64);
        self.tables.batch_of(&table, batch.context).size.record(batch.rows as f64);
        self.pipeline.flushes(event.reason).increment(1);
    }

    fn batch_started(&self, batch: &BatchInfo<'_>, event: &BatchStarted) {
        let table = self.tables.table(batch.table);
        table.queue_wait.record(event.queue_wait);
        table.assemble.record(event.assemble);
    }

    fn batch_executed(&self, batch: &BatchInfo<'_>, event: &BatchExecuted) {
        let series = self.tables.batch(batch.table, batch.context);
        let attempt = if event.error.is_none() { &series.success } else { &series.failure };
        attempt.duration.record(event.duration);
        attempt.total.increment(1);
        if let Some(class) = event.error {
            series.errors(class).increment(1);
        }
    }

    fn rows_resolved(&self, batch: &BatchInfo<'_>, counts: &OutcomeCounts) {
        let table = self.tables.table(batch.table);
        for (kind, counter) in table.outcomes() {
            counter.increment(counts.get(*kind));
        }
        self.tables.batch_of(&table, batch.context).processed.increment(counts.get(OutcomeKind::Written));
    }

    fn batch_not_sent(&self, batch: &BatchInfo<'_>, class: ErrorClass) {
        self.tables.batch(batch.table, batch.context).errors(class).increment(1);
    }

    fn rows_rejected(&self, batch: &BatchInfo<'_>, class: ErrorClass, rows: u64) {
        self.tables.table(batch.table).rejected(class).increment(rows);
    }

    fn batch_retried(&self, _: &BatchInfo<'_>, class: ErrorClass) {
        self.pipeline.retries(class).increment(1);
    }

    fn batch_isolated(&self, batch: &BatchInfo<'_>) {
        self.tables.table(batch.table).isolations.increment(1);
    }

    fn table_parked(&self, table: &str, class: ErrorClass) {
        let table = self.tables.table(table);
        table.parks(class).increment(1);
        table.parked(unix_seconds(SystemTime::now()));
    }

    fn table_resumed(&self, table: &str, _: Duration) {
        self.tables.table(table).resumed();
    }

    fn row_refused(&self, _: &str, reason: &'static str) {
        self.pipeline.refused(reason).increment(1);
    }

    fn submit_waited(&self, _: &str, wait: Duration) {
        self.pipeline.enqueue_wait.record(wait);
    }

    fn gauges(&self, gauges: &PipelineGauges) {
        let pipeline = &self.pipeline;
        pipeline.buffer_records.set(gauges.buffer_rows as f64);
        pipeline.buffer_records_limit.set(gauges.buffer_rows_limit as f64);
        pipeline.buffer_bytes.set(gauges.buffer_bytes as f64);
        pipeline.buffer_bytes_limit.set(gauges.buffer_bytes_limit as f64);
        pipeline.inflight_batches.set(gauges.inflight_batches as f64);
        pipeline.concurrency_limit.set(gauges.concurrency_limit as f64);
        pipeline.parked_tables.set(gauges.parked_tables as f64);
        pipeline.oldest_buffered_record.set(gauges.oldest_row.map_or(0.0, unix_seconds));
        pipeline.last_success.set(gauges.last_success.map_or(0.0, unix_seconds));
        if let Some(is_up) = gauges.database_up {
            pipeline.database_up().set(if is_up { 1.0 } else { 0.0 });
        }
        if let Some(state) = gauges.pool {
            let pool = pipeline.pool();
            pool.in_use.set(state.in_use as f64);
            pool.idle.set(state.idle as f64);
            pool.max.set(state.max as f64);
        }
    }

    fn durable_gauges(&self, gauges: &DurableGauges) {
        self.durable().set(gauges);
    }

    fn durable_progress(&self, progress: &DurableProgress) {
        self.durable().add(progress);
    }

    fn durable_synced(&self, took: Duration) {
        self.durable().sync.record(took);
    }

    fn feed_gauges(&self, gauges: &FeedGauges) {
        self.feeds().set(gauges);
    }

    fn feed_progress(&self, progress: &FeedProgress) {
        self.feeds().add(progress);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("test_case", &self.context()).finish_non_exhaustive()
    }
}
