//! Owns how the database of a configuration is opened.
//! Must not know what is written to it.

use std::fmt;
use std::time::Duration;

use batchsql::redis::{Command, RedisOptions, RedisSink};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{DynSink, OpenError};
use tokio::time::{Instant, sleep_until};

use crate::config::sections::{RedisCommand, Table};
use crate::config::settings::Database;
use crate::deadline::deadline;
use crate::table::target::table_name;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a database was not opened. It shows no password.
#[derive(Debug)]
pub(crate) struct NotOpened {
    error: OpenError,
    /// How long it was tried.
    connect_for: Duration,
}

impl NotOpened {
    /// The DSN or another option is wrong; in contrast to a database that cannot be reached.
    pub(crate) fn is_mistake(&self) -> bool {
        self.error.is_invalid_options()
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, connect_for } = self;
        if self.is_mistake() {
            write!(f, "{error}")
        } else if connect_for.is_zero() {
            write!(f, "{error}; it was tried once, as connect_for says (0s)")
        } else {
            write!(f, "{error}; it was tried for connect_for = {}", humantime::format_duration(*connect_for))
        }
    }
}

/// Opens the database. While it cannot be reached, it is tried again for `connect_for`, the last time at its end.
///
/// # Errors
/// The DSN is wrong, or the database could not be reached in time. No message has a password.
///
/// # Cancel safety
/// When it is cancelled, connections that were opened are closed.
pub(crate) async fn open(database: &Database, tables: &[Table]) -> Result<DynSink, NotOpened> {
    let end = deadline(database.connect_for);
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match open_now(database, tables).await {
            Ok(sink) => return Ok(sink),
            Err(error) => error,
        };
        let now = Instant::now();
        if error.is_invalid_options() || now >= end {
            return Err(NotOpened { error, connect_for: database.connect_for });
        }
        tracing::warn!(%error, "the database cannot be opened; trying again");
        sleep_until((now + pause).min(end)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open_now(database: &Database, tables: &[Table]) -> Result<DynSink, OpenError> {
    let dsn = database.dsn.reveal();
    if dsn.starts_with("sqlite:") {
        return open_file(dsn.parse()?);
    }
    if !database.is_redis() {
        return batchsql::connect(dsn).await;
    }
    let mut options: RedisOptions = dsn.parse()?;
    for table in tables {
        let command: Command = match table.redis.unwrap_or(RedisCommand::Hash) {
            RedisCommand::Hash => Command::hash().into(),
            RedisCommand::Document => Command::document().into(),
        };
        options = options.command(table_name(table).to_string(), command);
    }
    RedisSink::with_options(&options).await.map(DynSink::new)
}

/// Every command needs tables, so a missing file is a mistake in its name, or is made later by another program.
fn open_file(options: SqliteOptions) -> Result<DynSink, OpenError> {
    if let Some(path) = options.path()
        && !path.exists()
        && path.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.is_dir())
    {
        let path = path.display();
        return Err(OpenError::new(format!(
            "cannot open sqlite database {path}: there is no such file; correct the name, or create the database with its tables first"
        )));
    }
    SqliteSink::with_options(&options.create_if_missing(false)).map(DynSink::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    /// The second pause would end behind it.
    #[tokio::test]
    async fn the_last_try_is_at_the_end_of_connect_for() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("later");
        let dsn = Secret::new(format!("sqlite:{}", missing.join("a.db").display()));
        let connect_for = Duration::from_millis(300);
        let begin = Instant::now();
        let failed = open(&Database { dsn, connect_for }, &[]).await.unwrap_err();
        assert!(begin.elapsed() >= connect_for, "{:?}", begin.elapsed());
        assert!(failed.to_string().ends_with("; it was tried for connect_for = 300ms"), "{failed}");
    }
}
