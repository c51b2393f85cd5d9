//! Owns the observation of a running case: latencies, curves over time, memory, progress.
//! Must not know what the case does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use batchsql::metrics::Reporter;
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{
    BatchExecuted, BatchInfo, BatchSealed, BatchStarted, ErrorClass, MetricsReporter, OutcomeCounts, PipelineGauges,
};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use crate::memory;
use crate::report::{Latency, MemorySummary, Sample};

/// Interval between two memory samples.
const LOOK: Duration = Duration::from_millis(20);
/// Interval between two points of the curves; long cases are thinned out.
const POINT: Duration = Duration::from_millis(200);
/// Maximum number of points of a curve.
const MAX_POINTS: usize = 600;

/// Latencies in microseconds, up to an hour.
#[derive(Debug, Clone)]
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new_with_max(3_600_000_000, 3).expect("the bounds of the histogram are valid"))
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(quantile) as f64 / 1000.0)
    }

    fn summary(&self) -> Option<Latency> {
        Some(Latency {
            p50_ms: self.quantile_ms(0.5)?,
            p90_ms: self.quantile_ms(0.9)?,
            p99_ms: self.quantile_ms(0.99)?,
            p999_ms: self.quantile_ms(0.999)?,
            max_ms: self.0.max() as f64 / 1000.0,
            samples: self.0.len(),
        })
    }
}

/// Passes every event to the metrics and keeps the figures for the report.
#[derive(Clone)]
pub struct Observer {
    metrics: Arc<Reporter>,
    seen: Arc<Mutex<Seen>>,
    resolved: Arc<AtomicU64>,
}

struct Seen {
    batches: u64,
    all: Times,
    since_point: Times,
    rows: Times,
    gauges: PipelineGauges,
}

impl Observer {
    /// An observer for the report and for `metrics`.
    pub fn new(metrics: Reporter) -> Self {
        let seen = Seen {
            batches: 0,
            all: Times::new(),
            since_point: Times::new(),
            rows: Times::new(),
            gauges: PipelineGauges::default(),
        };
        Self { metrics: Arc::new(metrics), seen: Arc::new(Mutex::new(seen)), resolved: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the time from submit to outcome of one row.
    pub fn row_resolved_after(&self, time: Duration) {
        self.lock().rows.record(time);
    }

    /// Rows that reached the database so far, written or ignored.
    pub fn rows_done(&self) -> u64 {
        self.resolved.load(Ordering::Relaxed)
    }

    /// Number of batches, time of one batch write, time of one row from submit to outcome.
    pub fn latencies(&self) -> (u64, Option<Latency>, Option<Latency>) {
        let seen = self.lock();
        (seen.batches, seen.all.summary(), seen.rows.summary())
    }
}

impl MetricsReporter for Observer {
    fn context(&self) -> Option<Arc<str>> {
        self.metrics.context()
    }

    fn batch_sealed(&self, batch: &BatchInfo<'_>, event: &BatchSealed) {
        self.metrics.batch_sealed(batch, event);
    }

    fn batch_started(&self, batch: &BatchInfo<'_>, event: &BatchStarted) {
        self.metrics.batch_started(batch, event);
    }

    fn batch_executed(&self, batch: &BatchInfo<'_>, event: &BatchExecuted) {
        {
            // A failed attempt wrote nothing; its time is in the metrics.
            let mut seen = self.lock();
            if event.error.is_none() {
                seen.batches += 1;
                seen.all.record(event.duration);
                seen.since_point.record(event.duration);
            }
        }
        self.metrics.batch_executed(batch, event);
    }

    fn rows_resolved(&self, batch: &BatchInfo<'_>, counts: &OutcomeCounts) {
        let done = counts.total() - counts.failed();
        self.resolved.fetch_add(done, Ordering::Relaxed);
        self.metrics.rows_resolved(batch, counts);
    }

    fn batch_not_sent(&self, batch: &BatchInfo<'_>, class: ErrorClass) {
        self.metrics.batch_not_sent(batch, class);
    }

    fn rows_rejected(&self, batch: &BatchInfo<'_>, class: ErrorClass, rows: u64) {
        self.metrics.rows_rejected(batch, class, rows);
    }

    fn batch_retried(&self, batch: &BatchInfo<'_>, class: ErrorClass) {
        self.metrics.batch_retried(batch, class);
    }

    fn batch_isolated(&self, batch: &BatchInfo<'_>) {
        self.metrics.batch_isolated(batch);
    }

    fn table_parked(&self, table: &str, class: ErrorClass) {
        self.metrics.table_parked(table, class);
    }

    fn table_resumed(&self, table: &str, parked_for: Duration) {
        self.metrics.table_resumed(table, parked_for);
    }

    fn row_refused(&self, table: &str, reason: &'static str) {
        self.metrics.row_refused(table, reason);
    }

    fn submit_waited(&self, table: &str, wait: Duration) {
        self.metrics.submit_waited(table, wait);
    }

    fn gauges(&self, gauges: &PipelineGauges) {
        self.lock().gauges = *gauges;
        self.metrics.gauges(gauges);
    }
}

/// The sources and targets of the observation of a case.
pub struct Watch {
    /// The observer of the pipeline.
    pub observer: Observer,
    /// The live metrics.
    pub metrics: PrometheusMetrics,
    /// The database's name.
    pub database: &'static str,
    /// The case's name.
    pub case: &'static str,
    /// The progress bar.
    pub bar: ProgressBar,
    /// Capacity of the pipeline's buffer in rows.
    pub buffer_limit: u64,
}

/// The result of the observation.
#[derive(Debug, Default)]
pub struct Watched {
    /// The curves.
    pub series: Vec<Sample>,
    /// Memory at the start, at its highest and at the end.
    pub memory: MemorySummary,
}

impl Watch {
    /// Samples the case until `stop`, and once more at the end.
    pub async fn run(self, mut stop: tokio::sync::oneshot::Receiver<()>) -> Watched {
        let begin = Instant::now();
        let mut watched = Watched::default();
        let start = mb(memory::resident());
        watched.memory = MemorySummary { start_mb: start, peak_mb: start, ..MemorySummary::default() };
        let (mut last_at, mut last_rows, mut spacing) = (begin, 0, POINT);
        loop {
            let ended = tokio::time::timeout(LOOK, &mut stop).await.is_ok();
            let memory_mb = mb(memory::resident());
            watched.memory.peak_mb = watched.memory.peak_mb.max(memory_mb);
            watched.memory.end_mb = memory_mb;
            let since = last_at.elapsed();
            // A last point after a few milliseconds would show a wrong rate.
            let last = ended && (watched.series.is_empty() && !since.is_zero() || since >= spacing / 4);
            if since >= spacing || last {
                let rows = self.observer.rows_done();
                let rate = (rows - last_rows) as f64 / since.as_secs_f64();
                watched.series.push(self.point(begin.elapsed(), rate, memory_mb));
                (last_at, last_rows) = (Instant::now(), rows);
                if watched.series.len() >= MAX_POINTS {
                    spacing *= 2;
                    thin_out(&mut watched.series);
                }
            }
            if ended {
                return watched;
            }
        }
    }

    /// Takes a point of the curves, and updates metrics and the progress bar.
    fn point(&self, at: Duration, rate: f64, memory_mb: f64) -> Sample {
        let (times, gauges) = {
            let mut seen = self.observer.lock();
            (std::mem::replace(&mut seen.since_point, Times::new()), seen.gauges)
        };
        // The metric is in MiB, as in the Go original; the report is in MB.
        self.metrics.record_real_time_metrics(self.database, self.case, rate, memory_mb * 1e6 / f64::from(1 << 20));
        self.metrics.record_memory(self.database, self.case, &memory::usage());
        self.bar.set_position(self.observer.rows_done());
        Sample {
            at_seconds: rounded(at.as_secs_f64()),
            records_per_second: rounded(rate),
            batch_latency_p50_ms: times.quantile_ms(0.5),
            batch_latency_p99_ms: times.quantile_ms(0.99),
            memory_mb: rounded(memory_mb),
            buffer_records: gauges.buffer_rows as u64,
            buffer_limit: self.buffer_limit,
        }
    }
}

/// Keeps every second point; the rate of a kept point is the mean of both.
fn thin_out(series: &mut Vec<Sample>) {
    let merged = series.chunks(2).map(|pair| {
        let mut kept = pair[pair.len() - 1].clone();
        kept.records_per_second = pair.iter().map(|s| s.records_per_second).sum::<f64>() / pair.len() as f64;
        kept
    });
    *series = merged.collect();
}

fn mb(bytes: Option<u64>) -> f64 {
    bytes.unwrap_or(0) as f64 / 1e6
}

/// Three digits are enough for a curve and keep the report small.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
