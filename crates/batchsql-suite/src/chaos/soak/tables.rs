//! Owns what an administrator does for a soak besides faults: the table of counters, rights, the removal of old rows, and the
//! numbers that are compared at the end. With plain clients and a direct connection.
//! Must not know when it is done.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::sqlite::rusqlite::Connection as SqliteConnection;
use redis::aio::MultiplexedConnection;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::job::Mode;
use super::rows::no_counter;
use crate::chaos::job::Names;
use crate::database::DatabaseName;

/// The user of the writer, which the administrators of chaos create.
const WRITER: &str = "chaos_writer";
/// Attempts of a statement, which may lose a deadlock against the writer.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// The numbers that are compared with what the writer knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Rows in the table without a key, with those that were removed.
    pub(super) plain: u64,
    /// The sum of all counters.
    pub(super) counter: u64,
}

/// The tables of one soak.
#[derive(Debug)]
pub(super) struct Tables {
    database: DatabaseName,
    /// The address for a user with every right, or the path of a file.
    place: String,
    names: Names,
    counter: String,
    /// Rows that were removed from the table without a key.
    removed: u64,
    /// Tables that were taken away, and removed.
    gone: u32,
}

impl Tables {
    /// The tables at a DSN, or in a file.
    pub(super) fn new(database: DatabaseName, place: &str, names: &Names, counter: &str) -> Self {
        let (place, counter) = (place.to_owned(), counter.to_owned());
        Self { database, place, names: names.clone(), counter, removed: 0, gone: 0 }
    }

    /// Creates the table of counters. The others are created with the stage.
    pub(super) async fn create(&self, mode: Mode) -> Result<()> {
        let Self { counter, .. } = self;
        let create = format!("CREATE TABLE {counter} (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)");
        let rights = "SELECT, INSERT, UPDATE, DELETE";
        let statements = match self.database {
            DatabaseName::Sqlite => vec![create],
            DatabaseName::Postgres => {
                let mut statements = vec![create, format!("GRANT {rights} ON {counter} TO {WRITER}")];
                if mode == Mode::ExactlyOnce {
                    statements.push(format!("GRANT CREATE ON SCHEMA public TO {WRITER}"));
                }
                statements
            }
            DatabaseName::Mysql => {
                let mut statements = vec![create, format!("GRANT {rights} ON {counter} TO '{WRITER}'@'%'")];
                if mode == Mode::ExactlyOnce {
                    statements.push(format!("GRANT CREATE, {rights} ON batchsql_positions TO '{WRITER}'@'%'"));
                }
                statements
            }
            DatabaseName::Redis => {
                let mut link = self.redis().await?;
                let key = no_counter(counter);
                return redis::cmd("RPUSH").arg(key).arg("x").query_async::<()>(&mut link).await.context("RPUSH");
            }
        };
        for statement in statements {
            self.affected(&statement).await?;
        }
        Ok(())
    }

    /// Removes the rows of tables that only grow, and tables that were taken away until now, `gone` of each.
    pub(super) async fn trim(&mut self, gone: u32) -> Result<()> {
        let Names { plain, keyed, once, history } = self.names.clone();
        if self.database == DatabaseName::Redis {
            let mut link = self.redis().await?;
            let mut trim = redis::cmd("XTRIM");
            trim.arg(&plain).arg("MAXLEN").arg(0);
            self.removed += trim.query_async::<u64>(&mut link).await.context("XTRIM")?;
            return remove_keys(&mut link, &format!("{once}:*")).await;
        }
        self.removed += self.affected(&format!("DELETE FROM {plain}")).await?;
        self.affected(&format!("DELETE FROM {once}")).await?;
        self.affected(&format!("DELETE FROM {history}")).await?;
        for number in self.gone..gone {
            self.removed += self.number(&format!("SELECT COUNT(*) FROM {plain}_gone{number}")).await?;
            for table in [&plain, &keyed, &once] {
                self.affected(&format!("DROP TABLE {table}_gone{number}")).await?;
            }
        }
        self.gone = gone;
        Ok(())
    }

    /// The numbers at the end.
    pub(super) async fn count(&self) -> Result<Found> {
        let (plain, counter) = (&self.names.plain, &self.counter);
        let (there, sum) = match self.database {
            DatabaseName::Redis => {
                let mut link = self.redis().await?;
                let there = redis::cmd("XLEN").arg(plain).query_async::<u64>(&mut link).await.context("XLEN")?;
                let mut sum = 0;
                for key in keys(&mut link, &format!("{counter}:*")).await? {
                    if key != no_counter(counter) {
                        sum += redis::cmd("GET").arg(&key).query_async::<u64>(&mut link).await.context("GET")?;
                    }
                }
                (there, sum)
            }
            _ => {
                let number = if self.database == DatabaseName::Mysql { "SIGNED" } else { "BIGINT" };
                let sum = format!("SELECT CAST(COALESCE(SUM(n), 0) AS {number}) FROM {counter}");
                (self.number(&format!("SELECT COUNT(*) FROM {plain}")).await?, self.number(&sum).await?)
            }
        };
        Ok(Found { plain: self.removed + there, counter: sum })
    }

    /// Runs a statement; the number of its rows.
    async fn affected(&self, statement: &str) -> Result<u64> {
        self.repeated(statement, false).await
    }

    /// The number that a query returns.
    async fn number(&self, query: &str) -> Result<u64> {
        self.repeated(query, true).await
    }

    /// A statement that fails has done nothing: the network is not disturbed while this is called.
    async fn repeated(&self, statement: &str, is_query: bool) -> Result<u64> {
        let mut attempt = 1;
        loop {
            match self.once(statement, is_query).await {
                Err(error) if attempt == ATTEMPTS => return Err(error.context(statement.to_owned())),
                Err(_) => sleep(PAUSE).await,
                done => return done,
            }
            attempt += 1;
        }
    }

    async fn once(&self, statement: &str, is_query: bool) -> Result<u64> {
        match self.database {
            DatabaseName::Postgres => {
                let mut link = PgConnection::connect(&self.place).await?;
                if !is_query {
                    return Ok(link.execute(sqlx::raw_sql(statement)).await?.rows_affected());
                }
                Ok(u64::try_from(sqlx::query(statement).fetch_one(&mut link).await?.try_get::<i64, _>(0)?)?)
            }
            DatabaseName::Mysql => {
                let mut link = MySqlConnection::connect(&self.place).await?;
                if !is_query {
                    return Ok(link.execute(sqlx::raw_sql(statement)).await?.rows_affected());
                }
                Ok(u64::try_from(sqlx::query(statement).fetch_one(&mut link).await?.try_get::<i64, _>(0)?)?)
            }
            DatabaseName::Sqlite => {
                let (path, statement) = (PathBuf::from(&self.place), statement.to_owned());
                let run = move || {
                    let link = SqliteConnection::open(path)?;
                    link.busy_timeout(PAUSE * ATTEMPTS)?;
                    if !is_query {
                        return anyhow::Ok(link.execute(&statement, [])? as u64);
                    }
                    Ok(u64::try_from(link.query_row(&statement, [], |row| row.get::<_, i64>(0))?)?)
                };
                spawn_blocking(run).await.context("a panic")?
            }
            DatabaseName::Redis => anyhow::bail!("Redis has no statements"),
        }
    }

    async fn redis(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.place.as_str())?;
        client.get_multiplexed_async_connection().await.context("cannot reach Redis")
    }
}

/// The keys of a pattern.
async fn keys(link: &mut MultiplexedConnection, pattern: &str) -> Result<Vec<String>> {
    let (mut found, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1_000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(link).await.context("SCAN")?;
        found.extend(keys);
        if next == 0 {
            found.sort_unstable();
            found.dedup();
            return Ok(found);
        }
        cursor = next;
    }
}

async fn remove_keys(link: &mut MultiplexedConnection, pattern: &str) -> Result<()> {
    for some in keys(link, pattern).await?.chunks(1_000) {
        redis::cmd("UNLINK").arg(some).query_async::<u64>(link).await.context("UNLINK")?;
    }
    Ok(())
}
