//! Owns the handles of one pipeline: registered once per label set, starting at 0, bounded in number.
//! Must not know events; `reporter` translates them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use batchsql_core::{ErrorClass, FlushReason, OutcomeKind};
use metrics::{Counter, Gauge, Histogram, SharedString};

use crate::capped::{Capped, OTHER};
use crate::catalogue::Metric;
use crate::emit::Emitter;
use crate::options::MetricsOptions;

/// Why rows are not accepted; every `reason` of the events.
const REFUSALS: [&str; 3] = ["closed", "full", "invalid"];

/// The classes of error for which a table is parked.
const PARKING: [ErrorClass; 4] = [ErrorClass::Schema, ErrorClass::Permission, ErrorClass::Row, ErrorClass::Internal];

/// The handles that belong to no table.
pub(crate) struct PipelineSeries {
    flushes: Vec<(FlushReason, Counter)>,
    retries: Vec<(ErrorClass, Counter)>,
    refused: Vec<(&'static str, Counter)>,
    pub(crate) enqueue_wait: Histogram,
    pub(crate) buffer_records: Gauge,
    pub(crate) buffer_records_limit: Gauge,
    pub(crate) buffer_bytes: Gauge,
    pub(crate) buffer_bytes_limit: Gauge,
    pub(crate) inflight_batches: Gauge,
    pub(crate) concurrency_limit: Gauge,
    pub(crate) parked_tables: Gauge,
    pub(crate) oldest_buffered_record: Gauge,
    pub(crate) last_success: Gauge,
    /// Absent before the first request for a connection.
    database_up: OnceLock<Gauge>,
    /// Absent until a sink reports a pool.
    pool: OnceLock<PoolSeries>,
    emitter: Emitter,
    database: SharedString,
}

/// The handles of a connection pool.
pub(crate) struct PoolSeries {
    pub(crate) in_use: Gauge,
    pub(crate) idle: Gauge,
    pub(crate) max: Gauge,
}

/// The handles of one table.
pub(crate) struct TableSeries {
    table: SharedString,
    pub(crate) received: Counter,
    outcomes: Vec<(OutcomeKind, Counter)>,
    rejected: Vec<(ErrorClass, Counter)>,
    parks: Vec<(ErrorClass, Counter)>,
    parked_since: Gauge,
    /// Number of parked groups. Rows of the table with different columns are parked separately.
    parked: Mutex<usize>,
    pub(crate) isolations: Counter,
    pub(crate) queue_wait: Histogram,
    pub(crate) assemble: Histogram,
    /// Without a test case.
    plain: OnceLock<Arc<BatchSeries>>,
    cases: Capped<Arc<str>, BatchSeries>,
}

/// The handles of one table in one test case.
pub(crate) struct BatchSeries {
    pub(crate) success: AttemptSeries,
    pub(crate) failure: AttemptSeries,
    pub(crate) size: Histogram,
    pub(crate) processed: Counter,
    errors: Vec<(ErrorClass, Counter)>,
}

/// The handles of one status.
pub(crate) struct AttemptSeries {
    pub(crate) duration: Histogram,
    pub(crate) total: Counter,
}

/// The tables of one pipeline.
pub(crate) struct Tables {
    pub(crate) emitter: Emitter,
    pub(crate) database: SharedString,
    pub(crate) options: MetricsOptions,
    tables: Capped<Box<str>, TableSeries>,
}

impl PipelineSeries {
    pub(crate) fn new(emitter: &Emitter, database: &SharedString) -> Self {
        let name = database;
        let database = || Some(name.clone());
        let by_reason = |metric, reason| emitter.counter(metric, [database(), Some(SharedString::const_str(reason))]);
        let gauge = |metric| emitter.gauge(metric, [database()]);
        Self {
            flushes: keyed(&FlushReason::ALL, |reason| by_reason(Metric::Flushes, reason.name())),
            retries: keyed(&ErrorClass::ALL, |class| by_reason(Metric::Retries, class.name())),
            refused: keyed(&REFUSALS, |reason| by_reason(Metric::SubmitRefused, reason)),
            enqueue_wait: emitter.histogram(Metric::EnqueueWait, [database()]),
            buffer_records: gauge(Metric::BufferRecords),
            buffer_records_limit: gauge(Metric::BufferRecordsLimit),
            buffer_bytes: gauge(Metric::BufferBytes),
            buffer_bytes_limit: gauge(Metric::BufferBytesLimit),
            inflight_batches: gauge(Metric::InflightBatches),
            concurrency_limit: gauge(Metric::ConcurrencyLimit),
            parked_tables: gauge(Metric::ParkedTables),
            oldest_buffered_record: gauge(Metric::OldestBufferedRecord),
            last_success: gauge(Metric::LastSuccess),
            database_up: OnceLock::new(),
            pool: OnceLock::new(),
            emitter: emitter.clone(),
            database: name.clone(),
        }
    }

    /// Whether the database can be reached; created when that is known.
    pub(crate) fn database_up(&self) -> &Gauge {
        self.database_up.get_or_init(|| self.emitter.gauge(Metric::DatabaseUp, [Some(self.database.clone())]))
    }

    /// The gauges of the connection pool; created when a sink reports one.
    pub(crate) fn pool(&self) -> &PoolSeries {
        self.pool.get_or_init(|| {
            let gauge = |state| {
                let labels = [Some(self.database.clone()), Some(SharedString::const_str(state))];
                self.emitter.gauge(Metric::PoolConnections, labels)
            };
            PoolSeries { in_use: gauge("in_use"), idle: gauge("idle"), max: gauge("max") }
        })
    }

    pub(crate) fn flushes(&self, reason: FlushReason) -> &Counter {
        find(&self.flushes, reason)
    }

    pub(crate) fn retries(&self, class: ErrorClass) -> &Counter {
        find(&self.retries, class)
    }

    pub(crate) fn refused(&self, reason: &'static str) -> &Counter {
        find(&self.refused, reason)
    }
}

impl Tables {
    pub(crate) fn new(emitter: Emitter, database: SharedString, options: MetricsOptions) -> Self {
        Self { emitter, database, options, tables: Capped::new(options.max_tables) }
    }

    /// The handles of a table.
    pub(crate) fn table(&self, table: &str) -> Arc<TableSeries> {
        self.tables.get(
            table,
            || table.into(),
            |known| {
                let table = if known { table.to_owned().into() } else { SharedString::const_str(OTHER) };
                TableSeries::new(&self.emitter, &self.database, table, self.options.max_test_cases)
            },
        )
    }

    /// The handles of a table in a test case, or in none.
    pub(crate) fn batch(&self, table: &str, case: Option<&Arc<str>>) -> Arc<BatchSeries> {
        self.batch_of(&self.table(table), case)
    }

    /// As [`batch`](Self::batch), with the table's handles.
    pub(crate) fn batch_of(&self, table: &TableSeries, case: Option<&Arc<str>>) -> Arc<BatchSeries> {
        let new = |case| BatchSeries::new(&self.emitter, &self.database, &table.table, case);
        let Some(case) = case else {
            return Arc::clone(table.plain.get_or_init(|| Arc::new(new(None))));
        };
        table.cases.get(
            &**case,
            || Arc::clone(case),
            |known| new(Some(if known { Arc::clone(case).into() } else { SharedString::const_str(OTHER) })),
        )
    }
}

impl TableSeries {
    fn new(emitter: &Emitter, database: &SharedString, table: SharedString, max_test_cases: usize) -> Self {
        let labels = || [Some(database.clone()), Some(table.clone())];
        let outcome = |kind: OutcomeKind| {
            let [database, table] = labels();
            emitter.counter(Metric::RecordsOutcome, [database, table, Some(SharedString::const_str(kind.name()))])
        };
        let rejected = |class: ErrorClass| {
            let [database, table] = labels();
            emitter.counter(Metric::RecordsRejected, [database, table, Some(SharedString::const_str(class.name()))])
        };
        let parked = |class: ErrorClass| {
            let [database, table] = labels();
            emitter.counter(Metric::TableParks, [database, table, Some(SharedString::const_str(class.name()))])
        };
        Self {
            received: emitter.counter(Metric::RecordsReceived, labels()),
            outcomes: keyed(&OutcomeKind::ALL, outcome),
            rejected: keyed(&ErrorClass::ALL, rejected),
            parks: keyed(&PARKING, parked),
            parked_since: emitter.gauge(Metric::TableParkedSince, labels()),
            parked: Mutex::new(0),
            isolations: emitter.counter(Metric::Isolations, labels()),
            queue_wait: emitter.histogram(Metric::QueueWait, labels()),
            assemble: emitter.histogram(Metric::BatchAssemble, labels()),
            plain: OnceLock::new(),
            cases: Capped::new(max_test_cases),
            table,
        }
    }

    /// The counter of the rows rejected for errors of a class.
    pub(crate) fn rejected(&self, class: ErrorClass) -> &Counter {
        find(&self.rejected, class)
    }

    /// The counter of how often the table was parked for errors of a class.
    pub(crate) fn parks(&self, class: ErrorClass) -> &Counter {
        find(&self.parks, class)
    }

    /// Records that the table, or a part of its rows, is parked.
    pub(crate) fn parked(&self, now: f64) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        *parked += 1;
        if *parked == 1 {
            self.parked_since.set(now);
        }
    }

    /// Records that it can be written again.
    pub(crate) fn resumed(&self) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        *parked = parked.saturating_sub(1);
        if *parked == 0 {
            self.parked_since.set(0.0);
        }
    }

    /// The counter of every outcome.
    pub(crate) fn outcomes(&self) -> &[(OutcomeKind, Counter)] {
        &self.outcomes
    }
}

impl BatchSeries {
    fn new(emitter: &Emitter, database: &SharedString, table: &SharedString, case: Option<SharedString>) -> Self {
        let (database, table) = (|| Some(database.clone()), || Some(table.clone()));
        let attempt = |status| {
            let labels = || [database(), table(), Some(SharedString::const_str(status)), case.clone()];
            AttemptSeries {
                duration: emitter.histogram(Metric::BatchExecutionDuration, labels()),
                total: emitter.counter(Metric::BatchExecution, labels()),
            }
        };
        let error = |class: ErrorClass| {
            let class = Some(SharedString::const_str(class.name()));
            emitter.counter(Metric::Errors, [database(), case.clone(), class])
        };
        Self {
            success: attempt("success"),
            failure: attempt("failure"),
            size: emitter.histogram(Metric::BatchSize, [database(), table(), case.clone()]),
            processed: emitter.counter(Metric::RecordsProcessed, [database(), table(), case.clone()]),
            errors: keyed(&ErrorClass::ALL, error),
        }
    }

    pub(crate) fn errors(&self, class: ErrorClass) -> &Counter {
        find(&self.errors, class)
    }
}

/// One handle for each value of a closed set.
fn keyed<T: Copy, H>(values: &[T], handle: impl Fn(T) -> H) -> Vec<(T, H)> {
    values.iter().map(|value| (*value, handle(*value))).collect()
}

fn find<T: PartialEq, H>(handles: &[(T, H)], value: T) -> &H {
    let found = handles.iter().find(|(known, _)| *known == value);
    &found.expect("there is a handle for each value of the closed set").1
}
