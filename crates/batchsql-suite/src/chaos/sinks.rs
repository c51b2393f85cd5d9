//! Owns the sinks of a writer: with a pool of their own, or with one that the program made.
//! Must not know rows.

use std::any::Any;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::DynSink;
use batchsql::mysql::MySqlSink;
use batchsql::postgres::PostgresSink;
use batchsql::redis::{Command, Key, RedisOptions, RedisSink};
use batchsql::sqlite::SqliteSink;
use batchsql::sqlite::rusqlite::Connection;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::job::{Job, Names, Pool};
use crate::database::DatabaseName;

/// Connections of a pool that the program made.
const CONNECTIONS: u32 = 4;
/// How long that pool waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(3);

/// Where a writer writes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) database: DatabaseName,
    pub(super) dsn: &'a str,
    pub(super) pool: Pool,
    pub(super) tables: &'a Names,
}

impl<'a> From<&'a Job> for Target<'a> {
    fn from(job: &'a Job) -> Self {
        Self { database: job.database, dsn: &job.dsn, pool: job.pool, tables: &job.tables }
    }
}

/// A pool that the program made, and that it also uses itself.
#[derive(Debug, Clone)]
pub(super) enum UserPool {
    Postgres(PgPool),
    MySql(MySqlPool),
}

impl UserPool {
    /// Takes connections until it has all of them, whenever the sink gives one back. They are released when the future is
    /// dropped.
    pub(super) async fn hold_all(self) {
        let mut held: Vec<Box<dyn Any + Send>> = Vec::new();
        loop {
            // While the server is unreachable there is none; the next request waits again.
            match &self {
                Self::Postgres(pool) => held.extend(pool.acquire().await.ok().map(|link| Box::new(link) as _)),
                Self::MySql(pool) => held.extend(pool.acquire().await.ok().map(|link| Box::new(link) as _)),
            }
        }
    }
}

/// The pool that the program makes for its sink, and can also use itself.
pub(super) fn user_pool<'a>(target: impl Into<Target<'a>>) -> Result<Option<UserPool>> {
    let Target { database, dsn, pool, .. } = target.into();
    Ok(match (database, pool) {
        (DatabaseName::Postgres, Pool::User) => {
            let options = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
            Some(UserPool::Postgres(options.connect_lazy(dsn)?))
        }
        (DatabaseName::Mysql, Pool::User) => {
            let options = MySqlPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE);
            Some(UserPool::MySql(options.connect_lazy(dsn)?))
        }
        _ => None,
    })
}

/// The sink of a job, on the pool of the program if there is one. Servers are not reached here: they may be unreachable.
pub(super) fn open<'a>(target: impl Into<Target<'a>>, user_pool: Option<&UserPool>) -> Result<DynSink> {
    match user_pool {
        Some(UserPool::Postgres(pool)) => return Ok(DynSink::new(PostgresSink::new(pool.clone()))),
        Some(UserPool::MySql(pool)) => return Ok(DynSink::new(MySqlSink::new(pool.clone()))),
        None => {}
    }
    let Target { database, dsn, pool, tables } = target.into();
    Ok(match (database, pool) {
        (DatabaseName::Postgres, _) => DynSink::new(PostgresSink::connect_lazy(dsn)?),
        (DatabaseName::Mysql, _) => DynSink::new(MySqlSink::connect_lazy(dsn)?),
        (DatabaseName::Sqlite, Pool::Own) => DynSink::new(SqliteSink::open(dsn)?),
        (DatabaseName::Sqlite, Pool::User) => {
            let path = dsn.strip_prefix("sqlite:").context("a DSN of a file begins with sqlite:")?;
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.busy_timeout(Duration::from_secs(1))?;
            DynSink::new(SqliteSink::from_connection(connection)?)
        }
        // Its client has no pool.
        (DatabaseName::Redis, _) => DynSink::new(RedisSink::with_options_lazy(&redis_options(dsn, tables)?)?),
    })
}

/// The options of Redis, with the command of each table.
pub(super) fn redis_options(dsn: &str, tables: &Names) -> Result<RedisOptions> {
    let options: RedisOptions = dsn.parse()?;
    let [plain, keyed, once] = tables.written();
    let options = options.command(plain, Command::xadd(Key::constant(plain)));
    Ok(options.command(keyed, Command::hash()).command(once, Command::document()))
}
