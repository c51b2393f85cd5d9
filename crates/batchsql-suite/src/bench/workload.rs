//! Owns the workloads of a measurement, and how the pipeline writes them.
//! Must not know databases.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::{BatchSql, PipelineConfig, Receipt, Schema, Sink, SubmitError, TypedRow};
use tokio::task::JoinSet;

use super::figures::Measurement;
use crate::rows::{Account, Event, EventIfNew, EventUpdate, Texts};

pub(super) const PRODUCERS: usize = 10;
pub(super) const BATCH: usize = 500;
/// Batches in flight, if the database takes more than one.
pub(super) const IN_FLIGHT: usize = 4;
/// Rows per key where rows are updated.
const VERSIONS: usize = 10;
/// Minimum number of updated event keys: no batch of a hand-written loop has a key twice, which PostgreSQL rejects.
const EVENT_KEYS: usize = 20_000;

/// The shape of a hand-written loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows of one batch.
    pub batch: usize,
    /// Batches in flight, each on its own connection.
    pub connections: usize,
}

impl Shape {
    /// The shape with the size and the number of batches that [`pipeline`] has.
    pub(super) const PIPELINE: Self = Self { batch: BATCH, connections: IN_FLIGHT };

    pub(super) fn rows_in_flight(self) -> usize {
        self.batch * self.connections
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.batch, self.connections)
    }
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Workload {
    /// New rows into the suite's table with two secondary indexes.
    Insert,
    /// The same rows with the rule that keeps existing rows; there are none.
    Ignore,
    /// Ten rows per key, four columns; the last one wins.
    Update,
    /// The rows of an insert, several per key; the last one wins.
    UpdateEvents,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Insert => "plain insert",
            Self::Ignore => "ignore by key",
            Self::Update => "update by key",
            Self::UpdateEvents => "update by key, 7 columns",
        }
    }

    /// The table that is written.
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Insert | Self::Ignore | Self::UpdateEvents => "batchsql_suite_events",
            Self::Update => "batchsql_suite_accounts",
        }
    }

    /// The key of row `n` of `rows`.
    pub(super) fn key(self, n: usize, rows: usize) -> i64 {
        match self {
            Self::Insert | Self::Ignore => n as i64,
            // A prime step visits the keys in a scattered order.
            Self::Update | Self::UpdateEvents => (n.wrapping_mul(7_919) % self.rows_afterwards(rows)) as i64,
        }
    }

    /// Rows in the table after `rows` rows were written.
    pub(super) fn rows_afterwards(self, rows: usize) -> usize {
        match self {
            Self::Insert | Self::Ignore => rows,
            Self::Update => (rows / VERSIONS).max(1),
            Self::UpdateEvents => (rows / VERSIONS).max(EVENT_KEYS.min(rows)),
        }
    }

    /// Every row, built before the clock starts.
    pub(super) fn texts(self, rows: usize) -> Arc<Vec<Texts>> {
        let make = |n| {
            let mut texts = Texts::default();
            match self {
                Self::Insert | Self::Ignore => drop(texts.event(self.key(n, rows), 0)),
                Self::Update => drop(texts.account(self.key(n, rows), n as i64)),
                Self::UpdateEvents => drop(texts.event_version(self.key(n, rows), n as i64)),
            }
            texts
        };
        Arc::new((0..rows).map(make).collect())
    }

    /// Row `n` of events.
    pub(super) fn event(self, texts: &[Texts], n: usize) -> Event<'_> {
        texts[n].again(self.key(n, texts.len()))
    }

    /// Row `n` of accounts.
    pub(super) fn account(self, texts: &[Texts], n: usize) -> Account<'_> {
        texts[n].account_again(self.key(n, texts.len()), n as i64)
    }
}

/// How row `n` is submitted to a pipeline.
pub(super) trait Submit: Copy + Send + 'static {
    fn submit(self, db: &BatchSql, texts: &[Texts], n: usize) -> impl Future<Output = Result<(), SubmitError>> + Send;

    /// The schemas whose tables are looked at before the clock starts, as loops by hand look at none. Default: none, for a database
    /// without tables.
    fn schemas(self) -> Vec<&'static Schema> {
        Vec::new()
    }
}

impl Workload {
    /// The schema of its rows.
    pub(super) fn schema(self) -> &'static Schema {
        match self {
            Self::Insert => Event::type_schema(),
            Self::Ignore => EventIfNew::type_schema(),
            Self::Update => Account::type_schema(),
            Self::UpdateEvents => EventUpdate::type_schema(),
        }
    }

    /// Submits row `n` with a receipt.
    pub(super) async fn submit_tracked(self, db: &BatchSql, texts: &[Texts], n: usize) -> Result<Receipt, SubmitError> {
        match self {
            Self::Insert => db.submit_tracked(&self.event(texts, n)).await,
            Self::Ignore => db.submit_tracked(&EventIfNew::from(self.event(texts, n))).await,
            Self::Update => db.submit_tracked(&self.account(texts, n)).await,
            Self::UpdateEvents => db.submit_tracked(&EventUpdate::from(self.event(texts, n))).await,
        }
    }
}

impl Submit for Workload {
    async fn submit(self, db: &BatchSql, texts: &[Texts], n: usize) -> Result<(), SubmitError> {
        match self {
            Self::Insert => db.submit(&self.event(texts, n)).await,
            Self::Ignore => db.submit(&EventIfNew::from(self.event(texts, n))).await,
            Self::Update => db.submit(&self.account(texts, n)).await,
            Self::UpdateEvents => db.submit(&EventUpdate::from(self.event(texts, n))).await,
        }
    }

    fn schemas(self) -> Vec<&'static Schema> {
        vec![self.schema()]
    }
}

/// Rows per second of a whole run.
pub(super) fn rate(rows: usize, took: Duration) -> Measurement {
    Measurement { rate: rows as f64 / took.as_secs_f64(), allocations: None }
}

/// Returns the time from the first submit of many producers to the end of close, with [`Shape::PIPELINE`].
pub(super) async fn pipeline<S: Sink>(sink: S, workload: impl Submit, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let config = PipelineConfig::default().flush_size(BATCH).max_concurrency(IN_FLIGHT);
    pipeline_with(config, PRODUCERS, sink, workload, texts).await
}

/// Returns the time from the first submit of many producers to the end of close. The tables were looked at before.
pub(super) async fn pipeline_with<S: Sink>(
    config: PipelineConfig,
    producers: usize,
    sink: S,
    workload: impl Submit,
    texts: &Arc<Vec<Texts>>,
) -> Result<Duration> {
    let db = BatchSql::builder(sink).config(config).start()?;
    for schema in workload.schemas() {
        db.prepare(schema).await?;
    }
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    // Rows come from one sequence, as keys do in most applications, so that they are about as sorted as
    // in the loop: inserts in random order are slower for any writer.
    let sequence = Arc::new(AtomicUsize::new(0));
    for _ in 0..producers {
        let (db, texts, sequence) = (db.clone(), Arc::clone(texts), Arc::clone(&sequence));
        tasks.spawn(async move {
            loop {
                let n = sequence.fetch_add(1, Ordering::Relaxed);
                if n >= texts.len() {
                    return anyhow::Ok(());
                }
                workload.submit(&db, &texts, n).await?;
            }
        });
    }
    while let Some(produced) = tasks.join_next().await {
        produced??;
    }
    let report = db.close(Duration::from_secs(60)).await;
    let took = begin.elapsed();
    // A key rarely occurs twice in a batch, so about as many rows are sent as by the loop.
    let reached = report.balance.written() + report.balance.superseded();
    anyhow::ensure!(reached == texts.len() as u64, "rows were not written: {}", report.balance);
    Ok(took)
}

/// One connection of a hand-written loop.
pub(super) trait Writer: Send + 'static {
    /// Writes the rows as one batch.
    fn write(
        &mut self,
        workload: Workload,
        texts: &[Texts],
        rows: Range<usize>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Writes one batch after the other from as many tasks as there are connections: careful hand-written code without
/// queue, backpressure, outcomes or metrics.
pub(super) async fn hand_written<W: Writer>(
    workload: Workload,
    texts: &Arc<Vec<Texts>>,
    batch: usize,
    connections: Vec<W>,
) -> Result<Duration> {
    let sequence = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    let begin = Instant::now();
    for mut connection in connections {
        let (texts, sequence) = (Arc::clone(texts), Arc::clone(&sequence));
        writers.spawn(async move {
            loop {
                let start = sequence.fetch_add(batch, Ordering::Relaxed);
                if start >= texts.len() {
                    return anyhow::Ok(());
                }
                connection.write(workload, &texts, start..(start + batch).min(texts.len())).await?;
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(begin.elapsed())
}
