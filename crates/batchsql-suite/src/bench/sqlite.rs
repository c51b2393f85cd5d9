//! Owns the measurement against SQLite: the pipeline and a hand-written loop over the same client, the
//! same table and the same rows. Must not know other databases.

use std::path::Path;
use std::sync::Arc;
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
        let found: usize = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        anyhow::ensure!(found == expected, "{table} has {found} rows instead of {expected}");
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
            rounds.push(vec![hand, ours]);
        }
        let group = format!("sqlite file, {}, batch {BATCH}", workload.name());
        let ours = format!("batchsql, {PRODUCERS} producers");
        figures.extend(summarise(&group, &["hand-written rusqlite loop", &ours], &rounds));
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
    let full = workload.insert(STATEMENT);
    let begin = Instant::now();
    let mut n = 0;
    for batch in texts.chunks(BATCH) {
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for rows in batch.chunks(STATEMENT) {
            let sql = if rows.len() == STATEMENT { &full } else { &workload.insert(rows.len()) };
            let mut statement = transaction.prepare_cached(sql)?;
            for place in 0..rows.len() {
                workload.bind(&mut statement, place, texts, n)?;
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

async fn ours(workload: Workload, texts: &Arc<Vec<Texts>>) -> Result<Duration> {
    let dir = folder()?;
    let path = dir.path().join("batchsql.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path))?;
    sink.call(move |conn| conn.execute_batch(workload.create())).await?;
    let took = pipeline(sink, workload, texts).await?;
    workload.check(&path, texts.len())?;
    Ok(took)
}
