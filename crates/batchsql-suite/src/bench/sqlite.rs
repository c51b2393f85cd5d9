//! Owns the measurement against SQLite: the pipeline and a hand-written loop over the same client, the
//! same table and the same rows. Must not know other databases.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::sqlite::rusqlite::{self, Connection, Statement};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{BatchSql, PipelineConfig};
use tokio::task::JoinSet;

use super::figures::{Figure, Measurement, Plan, summarise};
use crate::rows::{Event, Texts};

const PRODUCERS: usize = 10;
const BATCH: usize = 500;
/// Rows of one statement of the hand-written loop, which is where more gains nothing.
const STATEMENT: usize = 100;

const CREATE: &str = "
    CREATE TABLE batchsql_suite_events (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, payload TEXT NOT NULL,
        amount REAL NOT NULL, active INTEGER NOT NULL, created_at TEXT NOT NULL);
    CREATE INDEX events_email ON batchsql_suite_events (email);
    CREATE INDEX events_created_at ON batchsql_suite_events (created_at);";

/// Measures the pipeline against a hand-written loop, from the first row to everything committed.
///
/// # Errors
/// The database fails.
pub async fn database(plan: Plan) -> Result<Vec<Figure>> {
    let texts: Arc<Vec<Texts>> = Arc::new(
        (0..plan.rows as i64)
            .map(|id| {
                let mut texts = Texts::default();
                texts.event(id, 0);
                texts
            })
            .collect(),
    );
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("sqlite, round {} of {}", round + 1, plan.rounds);
        let hand = rate(plan.rows, hand_written(&texts)?);
        let ours = rate(plan.rows, pipeline(&texts, plan.rows).await?);
        rounds.push(vec![hand, ours]);
    }
    let group = format!("sqlite file, batch {BATCH}, {PRODUCERS} producers");
    Ok(summarise(&group, &["hand-written rusqlite loop", "batchsql"], &rounds))
}

fn rate(rows: usize, took: Duration) -> Measurement {
    Measurement { rate: rows as f64 / took.as_secs_f64(), allocations: None }
}

fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("batchsql-bench-").tempdir()?)
}

fn count(path: &Path) -> Result<usize> {
    let conn = Connection::open(path)?;
    Ok(conn.query_row("SELECT count(*) FROM batchsql_suite_events", [], |row| row.get(0))?)
}

/// One thread, cached statements of a hundred rows, a transaction per batch: what a careful engineer
/// writes by hand, without queue, back-pressure, outcomes or metrics.
fn hand_written(texts: &[Texts]) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("hand.db");
    let mut conn = Connection::open(&path)?;
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON")?;
    conn.execute_batch(CREATE)?;
    let insert = |rows: usize| {
        let values = vec!["(?,?,?,?,?,?,?)"; rows].join(",");
        format!("INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at) VALUES {values}")
    };
    let full = insert(STATEMENT);
    let begin = Instant::now();
    for (number, batch) in texts.chunks(BATCH).enumerate() {
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (part, rows) in batch.chunks(STATEMENT).enumerate() {
            let first = (number * BATCH + part * STATEMENT) as i64;
            let sql = if rows.len() == STATEMENT { &full } else { &insert(rows.len()) };
            let mut statement = transaction.prepare_cached(sql)?;
            for ((row, texts), id) in rows.iter().enumerate().zip(first..) {
                bind(&mut statement, row * 7, &texts.again(id))?;
            }
            statement.raw_execute()?;
        }
        transaction.commit()?;
    }
    let took = begin.elapsed();
    anyhow::ensure!(count(&path)? == texts.len(), "the hand-written loop lost rows");
    Ok(took)
}

fn bind(statement: &mut Statement<'_>, offset: usize, event: &Event<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(offset + 1, event.id)?;
    statement.raw_bind_parameter(offset + 2, event.name)?;
    statement.raw_bind_parameter(offset + 3, event.email)?;
    statement.raw_bind_parameter(offset + 4, event.payload)?;
    statement.raw_bind_parameter(offset + 5, event.amount)?;
    statement.raw_bind_parameter(offset + 6, event.active)?;
    statement.raw_bind_parameter(offset + 7, event.created_at.to_string())
}

async fn pipeline(texts: &Arc<Vec<Texts>>, rows: usize) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("batchsql.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path))?;
    sink.call(|conn| conn.execute_batch(CREATE)).await?;
    let config = PipelineConfig { flush_size: BATCH, ..PipelineConfig::default() };
    let begin = Instant::now();
    let db = BatchSql::builder(sink).config(config).start()?;
    let mut producers = JoinSet::new();
    // Keys come from one sequence, as in most applications, so that they are about as sorted as in
    // the loop: inserting in random order is slower by itself, for any writer.
    let sequence = Arc::new(AtomicUsize::new(0));
    for _ in 0..PRODUCERS {
        let (db, texts, sequence) = (db.clone(), Arc::clone(texts), Arc::clone(&sequence));
        producers.spawn(async move {
            while let Some((id, texts)) = {
                let id = sequence.fetch_add(1, Ordering::Relaxed);
                texts.get(id).map(|t| (id, t))
            } {
                db.submit(&texts.again(id as i64)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(produced) = producers.join_next().await {
        produced??;
    }
    let report = db.close(Duration::from_secs(60)).await;
    let took = begin.elapsed();
    anyhow::ensure!(report.balance.written() == rows as u64, "rows were lost: {:?}", report.balance);
    anyhow::ensure!(count(&path)? == rows, "the table lacks rows");
    Ok(took)
}
