//! Owns the measurement against SQLite: the pipeline and a hand-written loop over the same client, the
//! same table and the same rows. Must not know other databases.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::sqlite::rusqlite::{self, Connection, Statement};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{BatchSql, PipelineConfig, SubmitError};
use tokio::task::JoinSet;

use super::figures::{Figure, Measurement, Plan, summarise};
use crate::rows::Texts;

const PRODUCERS: usize = 10;
const BATCH: usize = 500;
/// Rows of one statement of the hand-written loop, which is where more gains nothing.
const STATEMENT: usize = 100;
/// Rows per key where rows are updated.
const VERSIONS: usize = 10;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    /// New rows into the suite's table with two secondary indexes.
    Insert,
    /// Ten rows per key; the last one wins.
    Update,
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::Insert => "plain insert",
            Self::Update => "update by key",
        }
    }

    fn create(self) -> &'static str {
        match self {
            Self::Insert => {
                "CREATE TABLE batchsql_suite_events (
                     id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, payload TEXT NOT NULL,
                     amount REAL NOT NULL, active INTEGER NOT NULL, created_at TEXT NOT NULL);
                 CREATE INDEX events_email ON batchsql_suite_events (email);
                 CREATE INDEX events_created_at ON batchsql_suite_events (created_at);"
            }
            Self::Update => {
                "CREATE TABLE batchsql_suite_accounts (
                     id INTEGER PRIMARY KEY, version INTEGER NOT NULL, owner TEXT NOT NULL, note TEXT);"
            }
        }
    }

    fn insert(self, rows: usize) -> String {
        let (head, row, tail) = match self {
            Self::Insert => (
                "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at) VALUES ",
                "(?,?,?,?,?,?,?)",
                "",
            ),
            Self::Update => (
                "INSERT INTO batchsql_suite_accounts (id,version,owner,note) VALUES ",
                "(?,?,?,?)",
                " ON CONFLICT (id) DO UPDATE SET version=excluded.version,owner=excluded.owner,note=excluded.note",
            ),
        };
        format!("{head}{}{tail}", vec![row; rows].join(","))
    }

    /// The key of row `n` of `rows`.
    fn key(self, n: usize, rows: usize) -> i64 {
        match self {
            Self::Insert => n as i64,
            // A prime step visits the keys in an order without neighbours.
            Self::Update => (n.wrapping_mul(7_919) % (rows / VERSIONS).max(1)) as i64,
        }
    }

    fn make(self, n: usize, rows: usize) -> Texts {
        let mut texts = Texts::default();
        match self {
            Self::Insert => drop(texts.event(self.key(n, rows), 0)),
            Self::Update => drop(texts.account(self.key(n, rows), n as i64)),
        }
        texts
    }

    /// Binds row `n` as the `place`-th row of a statement.
    fn bind(
        self,
        statement: &mut Statement<'_>,
        place: usize,
        texts: &Texts,
        n: usize,
        rows: usize,
    ) -> rusqlite::Result<()> {
        let key = self.key(n, rows);
        match self {
            Self::Insert => {
                let (offset, event) = (place * 7, texts.again(key));
                statement.raw_bind_parameter(offset + 1, event.id)?;
                statement.raw_bind_parameter(offset + 2, event.name)?;
                statement.raw_bind_parameter(offset + 3, event.email)?;
                statement.raw_bind_parameter(offset + 4, event.payload)?;
                statement.raw_bind_parameter(offset + 5, event.amount)?;
                statement.raw_bind_parameter(offset + 6, event.active)?;
                statement.raw_bind_parameter(offset + 7, event.created_at.to_string())
            }
            Self::Update => {
                let (offset, account) = (place * 4, texts.account_again(key, n as i64));
                statement.raw_bind_parameter(offset + 1, account.id)?;
                statement.raw_bind_parameter(offset + 2, account.version)?;
                statement.raw_bind_parameter(offset + 3, account.owner)?;
                statement.raw_bind_parameter(offset + 4, account.note)
            }
        }
    }

    async fn submit(self, db: &BatchSql, texts: &Texts, n: usize, rows: usize) -> Result<(), SubmitError> {
        let key = self.key(n, rows);
        match self {
            Self::Insert => db.submit(&texts.again(key)).await,
            Self::Update => db.submit(&texts.account_again(key, n as i64)).await,
        }
    }

    /// Whether the database holds what it should.
    fn check(self, path: &Path, rows: usize) -> Result<()> {
        let conn = Connection::open(path)?;
        let (table, expected) = match self {
            Self::Insert => ("batchsql_suite_events", rows),
            Self::Update => ("batchsql_suite_accounts", (rows / VERSIONS).max(1)),
        };
        let found: usize = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        anyhow::ensure!(found == expected, "{table} has {found} rows instead of {expected}");
        Ok(())
    }
}

/// Measures the pipeline against a hand-written loop, from the first row to everything committed.
///
/// # Errors
/// The database fails.
pub async fn database(plan: Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for workload in [Workload::Insert, Workload::Update] {
        let texts: Arc<Vec<Texts>> = Arc::new((0..plan.rows).map(|n| workload.make(n, plan.rows)).collect());
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            eprintln!("sqlite, {}, round {} of {}", workload.name(), round + 1, plan.rounds);
            let hand = rate(plan.rows, hand_written(workload, &texts)?);
            let ours = rate(plan.rows, pipeline(workload, &texts).await?);
            rounds.push(vec![hand, ours]);
        }
        let group = format!("sqlite file, {}, batch {BATCH}", workload.name());
        let ours = format!("batchsql, {PRODUCERS} producers");
        figures.extend(summarise(&group, &["hand-written rusqlite loop", &ours], &rounds));
    }
    Ok(figures)
}

fn rate(rows: usize, took: Duration) -> Measurement {
    Measurement { rate: rows as f64 / took.as_secs_f64(), allocations: None }
}

fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("batchsql-bench-").tempdir()?)
}

/// One thread, cached statements of a hundred rows, a transaction per batch: what a careful engineer
/// writes by hand, without queue, back-pressure, outcomes or metrics.
fn hand_written(workload: Workload, texts: &[Texts]) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("hand.db");
    let mut conn = Connection::open(&path)?;
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON")?;
    conn.execute_batch(workload.create())?;
    let full = workload.insert(STATEMENT);
    let begin = Instant::now();
    let mut n = 0;
    for batch in texts.chunks(BATCH) {
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for rows in batch.chunks(STATEMENT) {
            let sql = if rows.len() == STATEMENT { &full } else { &workload.insert(rows.len()) };
            let mut statement = transaction.prepare_cached(sql)?;
            for (place, row) in rows.iter().enumerate() {
                workload.bind(&mut statement, place, row, n, texts.len())?;
                n += 1;
            }
            statement.raw_execute()?;
        }
        transaction.commit()?;
    }
    let took = begin.elapsed();
    workload.check(&path, texts.len())?;
    Ok(took)
}

async fn pipeline(workload: Workload, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("batchsql.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path))?;
    sink.call(move |conn| conn.execute_batch(workload.create())).await?;
    let config = PipelineConfig { flush_size: BATCH, ..PipelineConfig::default() };
    let begin = Instant::now();
    let db = BatchSql::builder(sink).config(config).start()?;
    let mut producers = JoinSet::new();
    // Rows come from one sequence, as keys do in most applications, so that they are about as sorted as
    // in the loop: inserting in random order is slower by itself, for any writer.
    let sequence = Arc::new(AtomicUsize::new(0));
    for _ in 0..PRODUCERS {
        let (db, texts, sequence) = (db.clone(), Arc::clone(texts), Arc::clone(&sequence));
        producers.spawn(async move {
            loop {
                let n = sequence.fetch_add(1, Ordering::Relaxed);
                let Some(row) = texts.get(n) else { return anyhow::Ok(()) };
                workload.submit(&db, row, n, texts.len()).await?;
            }
        });
    }
    while let Some(produced) = producers.join_next().await {
        produced??;
    }
    let report = db.close(Duration::from_secs(60)).await;
    let took = begin.elapsed();
    // No key comes twice in a batch, so every row is written, as in the loop.
    anyhow::ensure!(report.balance.written() == texts.len() as u64, "rows were not written: {}", report.balance);
    workload.check(&path, texts.len())?;
    Ok(took)
}
