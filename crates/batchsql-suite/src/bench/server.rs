//! Owns the measurement against a SQL server: the pipeline, and a hand-written loop over the same client, the same
//! table and the same rows. Must not know which server it is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::Sink;

use super::figures::{Figure, Plan, summarise};
use super::workload::{PRODUCERS, Shape, Workload, Writer, hand_written, pipeline, rate};
use crate::database::DatabaseName;
use crate::rows::Texts;

/// Rows of a table that is filled before a measurement.
pub(super) const FILLED: usize = 50_000;

/// A server with the suite's tables, and a pool of connections to it.
pub(super) trait Server: Sized + Send + Sync + 'static {
    /// The database.
    const NAME: DatabaseName;
    /// The sink of the pipeline.
    type Sink: Sink + Clone;
    /// A connection of the hand-written loop.
    type Writer: Writer;

    /// Opens that many connections.
    async fn connect(dsn: &str, connections: usize) -> Result<Self>;

    /// The BatchSQL sink with its default settings.
    async fn sink(dsn: &str) -> Result<Self::Sink>;

    /// The statement of the hand-written loop.
    fn by_hand(workload: Workload) -> &'static str;

    /// The statements that create the table of a workload.
    fn create(workload: Workload) -> &'static str;

    /// The statement that puts [`FILLED`] rows into the table of events, with keys below those of the workloads.
    fn fill() -> &'static str;

    /// Takes a connection out of the pool.
    async fn writer(&self) -> Result<Self::Writer>;

    /// Runs statements without parameters.
    async fn execute(&self, sql: &str) -> Result<()>;

    /// Rows of a table.
    async fn count(&self, table: &str) -> Result<usize>;

    /// Lets the server finish background writes of the last measurement, so that they do not slow down the next one.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// Measures the pipeline against hand-written loops, from the first row to everything committed.
pub(super) async fn measure<S: Server>(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    let (name, shape) = (S::NAME.name(), Shape::PIPELINE);
    let server = S::connect(dsn, shape.connections).await?;
    let sink = S::sink(dsn).await?;
    let mut figures = Vec::new();
    for workload in [Workload::Insert, Workload::Ignore, Workload::Update] {
        let texts = workload.texts(plan.rows);
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            eprintln!("{name}, {}, round {} of {}", workload.name(), round + 1, plan.rounds);
            create(&server, workload).await?;
            let by_hand = rate(plan.rows, by_hand(&server, workload, &texts, shape).await?);
            check(&server, workload, plan.rows).await?;
            create(&server, workload).await?;
            let ours = rate(plan.rows, pipeline(sink.clone(), workload, &texts).await?);
            check(&server, workload, plan.rows).await?;
            rounds.push(vec![by_hand, ours]);
        }
        let group = format!("{name}, {}, batch {}, {} in flight", workload.name(), shape.batch, shape.connections);
        let baseline = format!("hand-written {} loop", S::by_hand(workload));
        figures.extend(summarise(&group, &[&baseline, &format!("batchsql, {PRODUCERS} producers")], &rounds));
    }
    clean_up(&server).await?;
    Ok(figures)
}

/// The hand-written loop; its connections are open before the clock starts.
pub(super) async fn by_hand<S: Server>(
    server: &S,
    workload: Workload,
    texts: &Arc<Vec<Texts>>,
    shape: Shape,
) -> Result<Duration> {
    let mut connections = Vec::new();
    for _ in 0..shape.connections {
        connections.push(server.writer().await?);
    }
    hand_written(workload, texts, shape.batch, connections).await
}

/// Creates the empty table of a workload.
pub(super) async fn create<S: Server>(server: &S, workload: Workload) -> Result<()> {
    clean_up(server).await?;
    server.execute(S::create(workload)).await.with_context(|| format!("cannot create {}", workload.table()))?;
    server.settle().await
}

/// Creates the table of a workload with events, filled: while a table of InnoDB is nearly empty, its indexes are a few pages,
/// and many writers wait for each other at every row.
pub(super) async fn create_filled<S: Server>(server: &S, workload: Workload) -> Result<()> {
    create(server, workload).await?;
    server.execute(S::fill()).await.with_context(|| format!("cannot fill {}", workload.table()))?;
    server.settle().await
}

/// Checks the number of rows in a table that was filled before.
pub(super) async fn check_filled<S: Server>(server: &S, workload: Workload, rows: usize) -> Result<()> {
    check_count(server, workload, FILLED + workload.rows_afterwards(rows)).await
}

/// Checks the number of rows in the table.
pub(super) async fn check<S: Server>(server: &S, workload: Workload, rows: usize) -> Result<()> {
    check_count(server, workload, workload.rows_afterwards(rows)).await
}

async fn check_count<S: Server>(server: &S, workload: Workload, expected: usize) -> Result<()> {
    let table = workload.table();
    let found = server.count(table).await?;
    anyhow::ensure!(found == expected, "{table} has {found} rows instead of {expected}");
    Ok(())
}

/// Removes the tables.
pub(super) async fn clean_up<S: Server>(server: &S) -> Result<()> {
    server.execute("DROP TABLE IF EXISTS batchsql_suite_events, batchsql_suite_accounts").await
}

/// Whether a statement may be retried because the server chose it as a deadlock victim.
pub(super) fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}
