//! Owns the database of an outage: it becomes unreachable and reachable, and its rows are counted.
//! Must not know the pipeline.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batchsql::DynSink;
use batchsql::mysql::MySqlSink;
use batchsql::postgres::PostgresSink;
use batchsql::sqlite::SqliteSink;
use batchsql::sqlite::rusqlite;
use batchsql_testserver::{Kind, Server};
use sqlx::{Connection, MySqlConnection, PgConnection, Row};
use tokio::task::spawn_blocking;

use crate::database::DatabaseName;

/// The table, without a key: a row that is written twice is there twice.
pub(super) const TABLE: &str = "batchsql_suite_outage";
const COUNT: &str = "SELECT COUNT(*), COUNT(DISTINCT id), COALESCE(MIN(id), 0), COALESCE(MAX(id), 0) \
                     FROM batchsql_suite_outage";
const CREATE: &str = "CREATE TABLE batchsql_suite_outage (id BIGINT NOT NULL, note TEXT NOT NULL)";

/// What is in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) rows: u64,
    pub(super) distinct: u64,
    pub(super) lowest: i64,
    pub(super) highest: i64,
}

/// A database that this program can take away.
pub(super) enum Target {
    /// A server of its own, which is stopped.
    Server(DatabaseName, Arc<Mutex<Server>>, String),
    /// A file, which another connection locks.
    File(PathBuf, Option<rusqlite::Connection>),
}

impl Target {
    /// Starts it and creates the table.
    pub(super) async fn start(database: DatabaseName, folder: &Path) -> Result<Self> {
        let (kind, arguments) = match database {
            // Servers of tests do not sync, which would not be what a user has.
            DatabaseName::Postgres => (Kind::Postgres, &["-c", "fsync=on"][..]),
            DatabaseName::Mysql => (Kind::MySql, &["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"][..]),
            DatabaseName::Sqlite => {
                let file = folder.join("outage.db");
                let create = {
                    let file = file.clone();
                    move || -> rusqlite::Result<()> {
                        let connection = rusqlite::Connection::open(file)?;
                        connection.pragma_update(None, "journal_mode", "wal")?;
                        connection.execute_batch(CREATE)
                    }
                };
                spawn_blocking(create).await?.context("cannot create the table")?;
                return Ok(Self::File(file, None));
            }
            DatabaseName::Redis => {
                bail!("redis has no table whose rows can be counted; use --db postgres,mysql,sqlite")
            }
        };
        let server = spawn_blocking(move || Server::start(kind, arguments)).await;
        let server = server.context("the server did not start; the reason is above")?;
        let dsn = server.dsn().to_owned();
        if database == DatabaseName::Mysql {
            sqlx::query(CREATE).execute(&mut MySqlConnection::connect(&dsn).await?).await?;
        } else {
            sqlx::query(CREATE).execute(&mut PgConnection::connect(&dsn).await?).await?;
        }
        Ok(Self::Server(database, Arc::new(Mutex::new(server)), dsn))
    }

    /// A sink that has not reached it yet.
    pub(super) fn sink(&self) -> Result<DynSink> {
        Ok(match self {
            Self::Server(DatabaseName::Mysql, _, dsn) => DynSink::new(MySqlSink::connect_lazy(dsn)?),
            Self::Server(_, _, dsn) => DynSink::new(PostgresSink::connect_lazy(dsn)?),
            Self::File(file, _) => DynSink::new(SqliteSink::open(&format!("sqlite:{}", file.display()))?),
        })
    }

    /// Nothing can be written from now on.
    pub(super) async fn go_away(&mut self) -> Result<()> {
        match self {
            Self::Server(_, server, _) => obey(server, Server::stop).await,
            Self::File(file, lock) => {
                let file = file.clone();
                let take = move || -> rusqlite::Result<rusqlite::Connection> {
                    let connection = rusqlite::Connection::open(file)?;
                    connection.busy_timeout(Duration::from_secs(60))?;
                    connection.execute_batch("BEGIN EXCLUSIVE")?;
                    Ok(connection)
                };
                *lock = Some(spawn_blocking(take).await?.context("cannot lock the database")?);
                Ok(())
            }
        }
    }

    /// It is there again, and accepts connections when this returns.
    pub(super) async fn come_back(&mut self) -> Result<()> {
        match self {
            Self::Server(_, server, _) => obey(server, Server::start_again).await,
            Self::File(_, lock) => {
                let held = lock.take().context("it is not locked")?;
                spawn_blocking(move || held.execute_batch("ROLLBACK")).await?.context("cannot unlock the database")
            }
        }
    }

    /// Counts the rows.
    pub(super) async fn count(&self) -> Result<Counted> {
        let (rows, distinct, lowest, highest): (i64, i64, i64, i64) = match self {
            Self::Server(DatabaseName::Mysql, _, dsn) => {
                let row = sqlx::query(COUNT).fetch_one(&mut MySqlConnection::connect(dsn).await?).await?;
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)
            }
            Self::Server(_, _, dsn) => {
                let row = sqlx::query(COUNT).fetch_one(&mut PgConnection::connect(dsn).await?).await?;
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)
            }
            Self::File(file, _) => {
                let file = file.clone();
                let count = move || {
                    let connection = rusqlite::Connection::open(file)?;
                    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                    connection.query_row(COUNT, [], read)
                };
                spawn_blocking(count).await?.context("cannot count the rows")?
            }
        };
        Ok(Counted { rows: u64::try_from(rows)?, distinct: u64::try_from(distinct)?, lowest, highest })
    }
}

async fn obey(server: &Arc<Mutex<Server>>, action: impl FnOnce(&mut Server) + Send + 'static) -> Result<()> {
    let server = Arc::clone(server);
    let act = move || action(&mut server.lock().unwrap_or_else(PoisonError::into_inner));
    spawn_blocking(act).await.context("the server did not obey; the reason is above")
}
