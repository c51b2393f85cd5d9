//! Owns how the database of a configuration and its tables are opened, and for how long that waits for the database.
//! Must not know what is written to it.

use std::fmt;
use std::time::Duration;

use batchsql::redis::{Command, RedisOptions, RedisSink};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{BatchSql, DynSink, OpenError};
use tokio::time::{Instant, sleep_until};

use crate::config::sections::{RedisCommand, Table};
use crate::config::settings::Database;
use crate::deadline::deadline;
use crate::table::target::{self, Target, table_name};

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
        if self.is_mistake() { write!(f, "{error}") } else { write!(f, "{error}; {}", tried(*connect_for)) }
    }
}

fn tried(connect_for: Duration) -> String {
    if connect_for.is_zero() {
        "it was tried once, as connect_for says (0s)".to_owned()
    } else {
        format!("it was tried for connect_for = {}", humantime::format_duration(connect_for))
    }
}

/// How long a start waits for the database, which may become unreachable again until the start has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectFor {
    limit: Duration,
    end: Instant,
}

impl ConnectFor {
    /// From now on.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, end: deadline(limit) }
    }

    /// Opens a table, as [`target::open`].
    ///
    /// # Errors
    /// As [`target::open`]; the database could not be reached in time.
    pub(crate) async fn table(&self, catalogue: Option<&DynSink>, table: &Table) -> Result<Target, target::NotOpened> {
        let opened = self.answer(async || target::open(catalogue, table).await, |error| !error.is_unavailable);
        opened.await.map_err(|error| self.of_table(error))
    }

    /// Checks that the pipeline can write a table.
    ///
    /// # Errors
    /// It cannot; the database could not be reached in time.
    pub(crate) async fn prepared(&self, db: &BatchSql, target: &Target) -> Result<(), target::NotOpened> {
        let prepare = async || db.prepare(&target.schema).await.map_err(target::NotOpened::from);
        let prepared = self.answer(prepare, |error| !error.is_unavailable);
        prepared.await.map_err(|error| self.of_table(error))
    }

    fn of_table(&self, error: target::NotOpened) -> target::NotOpened {
        if error.is_unavailable { error.and(&tried(self.limit)) } else { error }
    }

    /// Asks until there is an answer, the last time at the end.
    async fn answer<T, E: fmt::Display>(
        &self,
        ask: impl AsyncFn() -> Result<T, E>,
        is_answer: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let now = Instant::now();
            if is_answer(&error) || now >= self.end {
                return Err(error);
            }
            tracing::warn!(%error, "the database cannot be opened; trying again");
            sleep_until((now + pause).min(self.end)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
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
pub(crate) async fn open(database: &Database, tables: &[Table], connect_for: ConnectFor) -> Result<DynSink, NotOpened> {
    let opened = connect_for.answer(async || open_now(database, tables).await, OpenError::is_invalid_options).await;
    opened.map_err(|error| NotOpened { error, connect_for: connect_for.limit })
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
    use batchsql::{ErrorClass, FieldRules};
    use batchsql_testkit::{ScriptedSink, Step};

    use super::*;
    use crate::config::secret::Secret;
    use crate::table::record::tests::orders;

    /// The tables are asked after it was opened.
    #[tokio::test]
    async fn a_database_that_goes_away_again_is_waited_for() {
        let sink = ScriptedSink::new();
        sink.script_acquire([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Transient)]);
        let db = BatchSql::builder(DynSink::new(sink.clone())).start().unwrap();
        let target = orders(FieldRules::default());
        ConnectFor::new(Duration::from_secs(3600)).prepared(&db, &target).await.unwrap();
        sink.script_acquire([Step::Fail(ErrorClass::Transient)]);
        let failed = ConnectFor::new(Duration::ZERO).prepared(&db, &target).await.unwrap_err();
        assert!(
            failed.is_unavailable && failed.to_string().ends_with("; it was tried once, as connect_for says (0s)"),
            "{failed}"
        );
        sink.script_acquire([Step::Fail(ErrorClass::Permission)]);
        let failed = ConnectFor::new(Duration::from_secs(3600)).prepared(&db, &target).await.unwrap_err();
        assert!(!failed.is_unavailable, "the table is at fault: {failed}");
    }

    /// The second pause would end behind it.
    #[tokio::test]
    async fn the_last_try_is_at_the_end_of_connect_for() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("later");
        let dsn = Secret::new(format!("sqlite:{}", missing.join("a.db").display()));
        let connect_for = Duration::from_millis(300);
        let begin = Instant::now();
        let failed = open(&Database { dsn, connect_for }, &[], ConnectFor::new(connect_for)).await.unwrap_err();
        assert!(begin.elapsed() >= connect_for, "{:?}", begin.elapsed());
        assert!(failed.to_string().ends_with("; it was tried for connect_for = 300ms"), "{failed}");
    }
}
