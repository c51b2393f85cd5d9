//! Owns the events that a pipeline reports to its observer, and the observer's trait.
//! Must not know metric names or exporters.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::ErrorClass;
use crate::outcome::outcomes::OutcomeCounts;

/// The connections of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Connections in use, also outside of the pipeline.
    pub in_use: usize,
    /// Open connections that are idle.
    pub idle: usize,
    /// The most connections that the pool opens.
    pub max: usize,
}

/// Why a batch was closed and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushReason {
    /// It reached `flush_size`.
    Rows,
    /// It reached `flush_bytes`.
    Bytes,
    /// Its oldest row reached `flush_interval`.
    Interval,
    /// `flush()` was called.
    Explicit,
    /// The pipeline is closing.
    Drain,
    /// A submitter waits for capacity, and the open batches hold it.
    Pressure,
    /// A row of the same table that leaves out other columns arrived, and must be written after it.
    Order,
}

impl FlushReason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 7] =
        [Self::Rows, Self::Bytes, Self::Interval, Self::Explicit, Self::Drain, Self::Pressure, Self::Order];

    /// The name used in metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Interval => "interval",
            Self::Explicit => "explicit",
            Self::Drain => "drain",
            Self::Pressure => "pressure",
            Self::Order => "order",
        }
    }
}

/// Identifies the batch of an event.
#[derive(Debug, Clone, Copy)]
pub struct BatchInfo<'a> {
    /// `namespace.table`.
    pub table: &'a str,
    /// What [`MetricsReporter::context`] returned when the batch was sealed.
    pub context: Option<&'a Arc<str>>,
    /// Rows in the batch.
    pub rows: usize,
    /// Bytes in the batch.
    pub bytes: usize,
}

/// A batch was sealed: no row is added to it any more.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchSealed {
    /// Why.
    pub reason: FlushReason,
}

/// The writing of a batch started.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchStarted {
    /// From its first row to now: how long the oldest row waited.
    pub queue_wait: Duration,
    /// Part of that spent on preparing the batch for its statement (sorting, coalescing).
    pub assemble: Duration,
}

/// One attempt to write a batch, or a part of it, ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchExecuted {
    /// Rows of this attempt; fewer than the batch while bad rows are isolated.
    pub rows: usize,
    /// Time in the sink, from statement to confirmed commit.
    pub duration: Duration,
    /// `None` for success. An attempt that ended by a panic or by the deadline of `close` counts as
    /// [`ErrorClass::Unknown`].
    pub error: Option<ErrorClass>,
}

/// The state of a pipeline at one moment.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct PipelineGauges {
    /// Rows that wait or are in flight.
    pub buffer_rows: usize,
    /// The limit of `buffer_rows`.
    pub buffer_rows_limit: usize,
    /// Bytes that wait or are in flight.
    pub buffer_bytes: usize,
    /// The limit of `buffer_bytes`.
    pub buffer_bytes_limit: usize,
    /// Batches being written.
    pub inflight_batches: usize,
    /// The limit of `inflight_batches`.
    pub concurrency_limit: usize,
    /// Tables that cannot be written for now, with all of their rows or with those that carry certain
    /// columns.
    pub parked_tables: usize,
    /// When the oldest row that is not yet written was submitted; `None` when nothing waits.
    pub oldest_row: Option<SystemTime>,
    /// When a batch was last written; `None` before the first.
    pub last_success: Option<SystemTime>,
    /// Whether the database can be reached, as of the last request for a connection; `None` before the first.
    pub database_up: Option<bool>,
    /// The connections of the sink's pool; `None` where it has none.
    pub pool: Option<PoolState>,
}

/// Observes a pipeline. Every method has an empty default, so implement what you need.
///
/// The methods are called from the pipeline's tasks and, for refusals, waits and the context, from the
/// caller's task; they must not block. [`context`](Self::context) is called under the lock of an open
/// batch: it must not call the pipeline. A panic in a method is caught and logged.
#[allow(unused_variables)]
pub trait MetricsReporter: Send + Sync + 'static {
    /// A context, for example a test case, that is captured when a batch is sealed and handed back
    /// with every event of that batch.
    fn context(&self) -> Option<Arc<str>> {
        None
    }

    /// A batch was sealed; reported when it leaves its lane, before anything else of that batch.
    fn batch_sealed(&self, batch: &BatchInfo<'_>, event: &BatchSealed) {}

    /// The writing of a batch started.
    fn batch_started(&self, batch: &BatchInfo<'_>, event: &BatchStarted) {}

    /// An attempt to write a batch or a part of it ended.
    fn batch_executed(&self, batch: &BatchInfo<'_>, event: &BatchExecuted) {}

    /// Rows of a batch got their outcomes. The counts of all calls for one batch add up to its rows.
    fn rows_resolved(&self, batch: &BatchInfo<'_>, counts: &OutcomeCounts) {}

    /// An attempt failed before anything was sent: there was no connection, or the table could not be checked.
    fn batch_not_sent(&self, batch: &BatchInfo<'_>, class: ErrorClass) {}

    /// Rows were rejected for errors of one class; reported before the `rows_resolved` that counts them.
    fn rows_rejected(&self, batch: &BatchInfo<'_>, class: ErrorClass, rows: u64) {}

    /// A batch will be retried.
    fn batch_retried(&self, batch: &BatchInfo<'_>, class: ErrorClass) {}

    /// A refused batch is being split to find its bad rows.
    fn batch_isolated(&self, batch: &BatchInfo<'_>) {}

    /// A table cannot be written for now: its batches wait, and a probe tries it from time to time. Rows that carry
    /// different columns are parked, resumed and reported separately.
    fn table_parked(&self, table: &str, class: ErrorClass) {}

    /// A parked table takes rows again, or has nothing left to write.
    fn table_resumed(&self, table: &str, parked_for: Duration) {}

    /// A row was not accepted; `reason` is `closed`, `full` or `invalid`.
    fn row_refused(&self, table: &str, reason: &'static str) {}

    /// A submit waited for capacity.
    fn submit_waited(&self, table: &str, wait: Duration) {}

    /// The state of the pipeline, reported at least every second while there is work, and at its end.
    fn gauges(&self, gauges: &PipelineGauges) {}
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopReporter;

impl MetricsReporter for NoopReporter {}

/// A reporter whose panics are caught, so that they never affect rows.
#[derive(Clone)]
pub(crate) struct GuardedReporter(Arc<dyn MetricsReporter>);

impl GuardedReporter {
    pub(crate) fn new(reporter: Arc<dyn MetricsReporter>) -> Self {
        Self(reporter)
    }

    pub(crate) fn call<T: Default>(&self, event: impl FnOnce(&dyn MetricsReporter) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| event(&*self.0))).unwrap_or_else(|_| {
            tracing::error!("the metrics reporter panicked; the event is lost, rows are not affected");
            T::default()
        })
    }
}
