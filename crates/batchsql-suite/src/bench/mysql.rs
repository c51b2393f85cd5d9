//! Owns the measurement against MySQL and MariaDB: their tables, and the hand-written loop: prepared statements of a
//! whole batch. Must not know other databases.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use batchsql::TimestampTz;
use batchsql::mysql::MySqlSink;
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlPoolOptions, MySqlTypeInfo};
use sqlx::pool::PoolConnection;
use sqlx::{Column, Encode, Executor, MySqlPool, Row, Type};

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
    datetime: MySqlTypeInfo,
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
        let row = pool.fetch_one("SELECT CAST('2024-01-01' AS DATETIME(6))").await?;
        let datetime = row.column(0).type_info().clone();
        Ok(Self { pool, statements: Arc::default(), datetime })
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

    fn fill() -> &'static str {
        // At most 1,000 steps of a recursion, by default.
        "INSERT INTO batchsql_suite_events
         WITH RECURSIVE hundreds (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM hundreds WHERE n < 499),
                        ones (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ones WHERE n < 100),
                        numbers (n) AS (SELECT hundreds.n * 100 + ones.n FROM hundreds JOIN ones)
         SELECT -n, CONCAT('user ', n), CONCAT('before', n, '@example.org'), CONCAT('payload of row ', n), n / 8, n % 3 = 0,
                TIMESTAMP '2024-01-01 00:00:00' + INTERVAL n * 617 SECOND FROM numbers"
    }

    async fn writer(&self) -> Result<MySqlWriter> {
        let connection = self.pool.acquire().await?;
        Ok(MySqlWriter { connection, statements: Arc::clone(&self.statements), datetime: self.datetime.clone() })
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
    datetime: MySqlTypeInfo,
}

impl Writer for MySqlWriter {
    async fn write(&mut self, workload: Workload, texts: &[Texts], mut rows: Range<usize>) -> Result<()> {
        while !rows.is_empty() {
            let piece = rows.start..rows.end.min(rows.start + STATEMENT);
            rows.start = piece.end;
            let sql = self.statements.get(workload, piece.len());
            // The manual says: always be prepared to reissue a transaction that failed because of a deadlock.
            while let Err(error) = self.execute(&sql, workload, texts, piece.clone()).await {
                if !server::is_deadlock(&error) {
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

impl MySqlWriter {
    async fn execute(
        &mut self,
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
                    query = query
                        .bind(event.amount)
                        .bind(event.active)
                        .bind(Instant::new(event.created_at, &self.datetime));
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
        query.execute(&mut *self.connection).await?;
        Ok(())
    }
}

/// A `DATETIME(6)`, in the bytes that `chrono::NaiveDateTime` becomes. The feature `chrono` of sqlx would bring the SQLite
/// of sqlx, which clashes with ours.
struct Instant {
    time: NaiveDateTime,
    /// sqlx gives this type only to its own values, and to columns of a reply.
    datetime: MySqlTypeInfo,
}

impl Instant {
    fn new(time: TimestampTz, datetime: &MySqlTypeInfo) -> Self {
        let instant = DateTime::from_timestamp_micros(time.micros_since_epoch());
        let time = instant.expect("the suite's rows are of the year 2024").naive_utc();
        Self { time, datetime: datetime.clone() }
    }
}

impl Type<sqlx::MySql> for Instant {
    fn type_info() -> MySqlTypeInfo {
        <str as Type<sqlx::MySql>>::type_info()
    }
}

impl Encode<'_, sqlx::MySql> for Instant {
    fn encode_by_ref(&self, buffer: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        let time = self.time;
        // The length, and then only the parts that are not zero.
        let micros = time.nanosecond() / 1_000;
        let length = match (time.num_seconds_from_midnight(), micros) {
            (0, 0) => 4,
            (_, 0) => 7,
            _ => 11,
        };
        buffer.push(length);
        buffer.extend_from_slice(&u16::try_from(time.year())?.to_le_bytes());
        buffer.extend_from_slice(&[time.month() as u8, time.day() as u8]);
        if length > 4 {
            buffer.extend_from_slice(&[time.hour() as u8, time.minute() as u8, time.second() as u8]);
        }
        if length > 7 {
            buffer.extend_from_slice(&micros.to_le_bytes());
        }
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<MySqlTypeInfo> {
        Some(self.datetime.clone())
    }

    fn size_hint(&self) -> usize {
        12
    }
}
