//! Owns the events and the gauges that a pipeline reports to its observers.
//! Must not know observers, metric names or exporters.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::ErrorClass;

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
    /// Rows of a source were written in one transaction with their position. Reported when they are written.
    Step,
}

impl FlushReason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 8] =
        [Self::Rows, Self::Bytes, Self::Interval, Self::Explicit, Self::Drain, Self::Pressure, Self::Order, Self::Step];

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
            Self::Step => "step",
        }
    }
}

/// Identifies the batch of an event.
#[derive(Debug, Clone, Copy)]
pub struct BatchInfo<'a> {
    /// `namespace.table`.
    pub table: &'a str,
    /// What [`MetricsReporter::context`](crate::MetricsReporter::context) returned when the batch was sealed.
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
