//! Owns the measurement against MySQL and MariaDB: their tables, and the hand-written loop: prepared statements of a
//! whole batch. Must not know other databases.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use batchsql::TimestampTz;
use batchsql::mysql::MySqlSink;
use chrono::{DateTime, NaiveDateTime};
use sqlx::mysql::{MySqlConnection, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, MySqlPool};

use super::figures::{Figure, Plan};
use super::server::{self, Server};
use super::workload::{Workload, Writer};
use crate::database::DatabaseName;
use crate::rows::Texts;

/// Limit for the rows of one statement: a prepared statement takes 65,535 parameters, and a row has seven.
const STATEMENT: usize = 5_000;

/// Measures the pipeline against a hand-written loop, from the first row to everything committed.
///
/// # Errors
/// The server fails.
pub async fn mysql(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    server::measure::<MySql>(plan, dsn).await
}

/// A MySQL or MariaDB server.
#[derive(Debug)]
pub(super) struct MySql {
    pool: MySqlPool,
    statements: Arc<Statements>,
}

/// The texts of statements by the number of their rows, cached so that no loop builds one for each batch.
#[derive(Debug, Default)]
struct Statements(Mutex<HashMap<(Workload, usize), Arc<str>>>);

impl Statements {
    fn get(&self, workload: Workload, rows: usize) -> Arc<str> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(made.entry((workload, rows)).or_insert_with(|| statement(workload, rows).into()))
    }
}

impl Server for MySql {
    const NAME: DatabaseName = DatabaseName::Mysql;
    type Sink = MySqlSink;
    type Writer = MySqlWriter;

    async fn connect(dsn: &str, connections: usize) -> Result<Self> {
        let pool = MySqlPoolOptions::new().max_connections(connections as u32).min_connections(connections as u32);
        let pool = pool.connect(dsn).await.context("cannot connect to the server of MYSQL_DSN")?;
        Ok(Self { pool, statements: Arc::default() })
    }

    async fn sink(dsn: &str) -> Result<MySqlSink> {
        Ok(MySqlSink::connect(dsn).await?)
    }

    fn by_hand(_: Workload) -> &'static str {
        "prepared multi-VALUES"
    }

    fn create(workload: Workload) -> &'static str {
        match workload {
            Workload::Insert | Workload::Ignore | Workload::UpdateEvents => {
                "CREATE TABLE batchsql_suite_events (
                     id BIGINT PRIMARY KEY, name TEXT NOT NULL, email VARCHAR(255) NOT NULL, payload TEXT NOT NULL,
                     amount DOUBLE NOT NULL, active BOOLEAN NOT NULL, created_at DATETIME(6) NOT NULL,
                     INDEX (email), INDEX (created_at)) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
            }
            Workload::Update => {
                "CREATE TABLE batchsql_suite_accounts (
                     id BIGINT PRIMARY KEY, version BIGINT NOT NULL, owner TEXT NOT NULL, note TEXT)
                 ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
            }
        }
    }

    async fn writer(&self) -> Result<MySqlWriter> {
        Ok(MySqlWriter { connection: self.pool.acquire().await?, statements: Arc::clone(&self.statements) })
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        self.pool.execute(sql).await?;
        Ok(())
    }

    async fn count(&self, table: &str) -> Result<usize> {
        let found: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}")).fetch_one(&self.pool).await?;
        Ok(found as usize)
    }
}

fn statement(workload: Workload, rows: usize) -> String {
    let (head, row, tail) = match workload {
        Workload::Insert | Workload::Ignore | Workload::UpdateEvents => (
            "INSERT INTO batchsql_suite_events (id,name,email,payload,amount,active,created_at) VALUES ",
            "(?,?,?,?,?,?,?)",
            match workload {
                Workload::Ignore => " ON DUPLICATE KEY UPDATE id=id",
                Workload::UpdateEvents => {
                    " ON DUPLICATE KEY UPDATE name=VALUES(name),email=VALUES(email),payload=VALUES(payload),\
                     amount=VALUES(amount),active=VALUES(active),created_at=VALUES(created_at)"
                }
                _ => "",
            },
        ),
        Workload::Update => (
            "INSERT INTO batchsql_suite_accounts (id,version,owner,note) VALUES ",
            "(?,?,?,?)",
            " ON DUPLICATE KEY UPDATE version=VALUES(version),owner=VALUES(owner),note=VALUES(note)",
        ),
    };
    format!("{head}{}{tail}", vec![row; rows].join(","))
}

/// A connection of the hand-written loop.
#[derive(Debug)]
pub(super) struct MySqlWriter {
    connection: PoolConnection<sqlx::MySql>,
    statements: Arc<Statements>,
}

impl Writer for MySqlWriter {
    async fn write(&mut self, workload: Workload, texts: &[Texts], mut rows: Range<usize>) -> Result<()> {
        while !rows.is_empty() {
            let piece = rows.start..rows.end.min(rows.start + STATEMENT);
            rows.start = piece.end;
            let sql = self.statements.get(workload, piece.len());
            // The manual says: always be prepared to reissue a transaction that failed because of a deadlock.
            while let Err(error) = execute(&mut self.connection, &sql, workload, texts, piece.clone()).await {
                if !server::is_deadlock(&error) {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

async fn execute(
    connection: &mut MySqlConnection,
    sql: &str,
    workload: Workload,
    texts: &[Texts],
    rows: Range<usize>,
) -> Result<(), sqlx::Error> {
    let mut query = sqlx::query(sql);
    match workload {
        Workload::Insert | Workload::Ignore | Workload::UpdateEvents => {
            let mut events: Vec<_> = rows.map(|n| workload.event(texts, n)).collect();
            // Sorted to avoid deadlocks between the loops; the rows of inserts are sorted already.
            events.sort_by_key(|event| event.id);
            for event in events {
                query = query.bind(event.id).bind(event.name).bind(event.email).bind(event.payload);
                query = query.bind(event.amount).bind(event.active).bind(instant(event.created_at));
            }
        }
        Workload::Update => {
            let mut accounts: Vec<_> = rows.map(|n| workload.account(texts, n)).collect();
            // Sorted to avoid deadlocks between the loops.
            accounts.sort_by_key(|account| account.id);
            for account in accounts {
                query = query.bind(account.id).bind(account.version).bind(account.owner).bind(account.note);
            }
        }
    }
    query.execute(connection).await?;
    Ok(())
}

fn instant(time: TimestampTz) -> NaiveDateTime {
    let instant = DateTime::from_timestamp_micros(time.micros_since_epoch());
    instant.expect("the suite's rows are of the year 2024").naive_utc()
}
