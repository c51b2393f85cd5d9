//! Owns the measurement against SQLite: the pipeline and a hand-written loop over the same client, the
//! same table and the same rows. Must not know other databases.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::sqlite::rusqlite::{self, Connection, Statement};
use batchsql::sqlite::{SqliteOptions, SqliteSink};

use super::figures::{Figure, Plan, summarise};
use super::workload::{BATCH, PRODUCERS, Workload, pipeline, rate};
use crate::rows::Texts;

/// Rows of one statement of the hand-written loop; more gain nothing.
const STATEMENT: usize = 100;

/// The parts of a workload that are specific to SQLite.
trait SqliteWorkload: Copy {
    fn create(self) -> &'static str;
    fn insert(self, rows: usize) -> String;
    /// Binds row `n` as the `place`-th row of a statement.
    fn bind(self, statement: &mut Statement<'_>, place: usize, texts: &[Texts], n: usize) -> rusqlite::Result<()>;
    /// Checks the content of the database.
    fn check(self, path: &Path, rows: usize) -> Result<()>;
}

impl SqliteWorkload for Workload {
    fn create(self) -> &'static str {
        match self {
            Self::Insert | Self::Ignore | Self::UpdateEvents => {
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
            Self::Insert | Self::Ignore | Self::UpdateEvents => (
                "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at) VALUES ",
                "(?,?,?,?,?,?,?)",
                match self {
                    Self::Ignore => " ON CONFLICT (id) DO NOTHING",
                    Self::UpdateEvents => {
                        " ON CONFLICT (id) DO UPDATE SET name=excluded.name,email=excluded.email,\
                         payload=excluded.payload,amount=excluded.amount,active=excluded.active,\
                         created_at=excluded.created_at"
                    }
                    _ => "",
                },
            ),
            Self::Update => (
                "INSERT INTO batchsql_suite_accounts (id,version,owner,note) VALUES ",
                "(?,?,?,?)",
                " ON CONFLICT (id) DO UPDATE SET version=excluded.version,owner=excluded.owner,note=excluded.note",
            ),
        };
        format!("{head}{}{tail}", vec![row; rows].join(","))
    }

    fn bind(self, statement: &mut Statement<'_>, place: usize, texts: &[Texts], n: usize) -> rusqlite::Result<()> {
        match self {
            Self::Insert | Self::Ignore | Self::UpdateEvents => {
                let (offset, event) = (place * 7, self.event(texts, n));
                statement.raw_bind_parameter(offset + 1, event.id)?;
                statement.raw_bind_parameter(offset + 2, event.name)?;
                statement.raw_bind_parameter(offset + 3, event.email)?;
                statement.raw_bind_parameter(offset + 4, event.payload)?;
                statement.raw_bind_parameter(offset + 5, event.amount)?;
                statement.raw_bind_parameter(offset + 6, event.active)?;
                statement.raw_bind_parameter(offset + 7, event.created_at.to_string())
            }
            Self::Update => {
                let (offset, account) = (place * 4, self.account(texts, n));
                statement.raw_bind_parameter(offset + 1, account.id)?;
                statement.raw_bind_parameter(offset + 2, account.version)?;
                statement.raw_bind_parameter(offset + 3, account.owner)?;
                statement.raw_bind_parameter(offset + 4, account.note)
            }
        }
    }

    fn check(self, path: &Path, rows: usize) -> Result<()> {
        let conn = Connection::open(path)?;
        let table = self.table();
        let expected = self.rows_afterwards(rows);
        let found: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        anyhow::ensure!(usize::try_from(found)? == expected, "{table} has {found} rows instead of {expected}");
        Ok(())
    }
}

/// Measures the pipeline against a hand-written loop, from the first row to everything committed.
///
/// # Errors
/// The database fails.
pub async fn sqlite(plan: Plan) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for workload in [Workload::Insert, Workload::Update] {
        let texts = workload.texts(plan.rows);
        let mut rounds = Vec::new();
        for round in 0..plan.rounds {
            eprintln!("sqlite, {}, round {} of {}", workload.name(), round + 1, plan.rounds);
            let hand = rate(plan.rows, loop_by_hand(workload, &texts)?);
            let ours = rate(plan.rows, ours(workload, &texts).await?);
            let queued = rate(plan.rows, loop_over_queue(workload, &texts).await?);
            rounds.push(vec![hand, ours, queued]);
        }
        let group = format!("sqlite file, {}, batch {BATCH}", workload.name());
        let ours = format!("batchsql, {PRODUCERS} producers");
        let queued = format!("the same loop over a channel, {PRODUCERS} producers");
        figures.extend(summarise(&group, &["hand-written rusqlite loop", &ours, &queued], &rounds));
    }
    Ok(figures)
}

fn folder() -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("batchsql-bench-").tempdir()?)
}

/// One thread, cached statements of a hundred rows, a transaction per batch: careful hand-written code
/// without queue, backpressure, outcomes or metrics.
fn loop_by_hand(workload: Workload, texts: &[Texts]) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("hand.db");
    let mut conn = Connection::open(&path)?;
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON")?;
    conn.execute_batch(workload.create())?;
    let (full, numbers) = (workload.insert(STATEMENT), (0..texts.len()).collect::<Vec<_>>());
    let begin = Instant::now();
    for batch in numbers.chunks(BATCH) {
        write_batch(&mut conn, workload, &full, texts, batch)?;
    }
    let took = begin.elapsed();
    workload.check(&path, texts.len())?;
    Ok(took)
}

/// The same loop behind a channel to which many tasks send: what an application writes that has no batch writer.
async fn loop_over_queue(workload: Workload, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("queue.db");
    let mut conn = Connection::open(&path)?;
    conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON")?;
    conn.execute_batch(workload.create())?;
    let begin = Instant::now();
    let (rows, mut queue) = tokio::sync::mpsc::channel(BATCH * 4);
    let sequence = Arc::new(AtomicUsize::new(0));
    for _ in 0..PRODUCERS {
        let (rows, sequence, count) = (rows.clone(), Arc::clone(&sequence), texts.len());
        tokio::spawn(async move {
            loop {
                let n = sequence.fetch_add(1, Ordering::Relaxed);
                if n >= count || rows.send(n).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(rows);
    let (full, of_thread) = (workload.insert(STATEMENT), Arc::clone(texts));
    let written = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let space = BATCH - batch.len();
            if queue.blocking_recv_many(&mut batch, space) == 0 {
                break;
            }
            if batch.len() == BATCH {
                write_batch(&mut conn, workload, &full, &of_thread, &batch)?;
                batch.clear();
            }
        }
        write_batch(&mut conn, workload, &full, &of_thread, &batch)
    });
    written.await??;
    let took = begin.elapsed();
    workload.check(&path, texts.len())?;
    Ok(took)
}

fn write_batch(conn: &mut Connection, workload: Workload, full: &str, texts: &[Texts], batch: &[usize]) -> Result<()> {
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for rows in batch.chunks(STATEMENT) {
        let sql = if rows.len() == STATEMENT { full } else { &workload.insert(rows.len()) };
        let mut statement = transaction.prepare_cached(sql)?;
        for (place, n) in rows.iter().enumerate() {
            workload.bind(&mut statement, place, texts, *n)?;
        }
        statement.raw_execute()?;
    }
    Ok(transaction.commit()?)
}

async fn ours(workload: Workload, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("batchsql.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path))?;
    sink.call(move |conn| conn.execute_batch(workload.create())).await?;
    // The loop by hand closes its connection after the clock has stopped, too: the last one writes the log into the database.
    let _open = sink.clone();
    let took = pipeline(sink, workload, texts).await?;
    workload.check(&path, texts.len())?;
    Ok(took)
}
