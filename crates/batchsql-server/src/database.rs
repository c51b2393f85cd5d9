//! Owns how the database of a configuration is opened.
//! Must not know what is written to it.

use std::time::Duration;

use batchsql::redis::{Command, RedisOptions, RedisSink};
use batchsql::{DynSink, OpenError};
use tokio::time::{Instant, sleep};

use crate::config::sections::{RedisCommand, Table};
use crate::config::settings::Database;
use crate::deadline::deadline;
use crate::table::target::table_name;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Opens the database. While it cannot be reached, it is tried again for `connect_for`.
///
/// # Errors
/// The DSN is wrong, or the database could not be reached in time. No message has a password.
///
/// # Cancel safety
/// When it is cancelled, connections that were opened are closed.
pub(crate) async fn open(database: &Database, tables: &[Table]) -> Result<DynSink, OpenError> {
    let end = deadline(database.connect_for);
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match open_now(database, tables).await {
            Ok(sink) => return Ok(sink),
            Err(error) => error,
        };
        if error.is_invalid_options() || Instant::now() + pause > end {
            return Err(error);
        }
        tracing::warn!(%error, "the database cannot be opened; trying again");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn open_now(database: &Database, tables: &[Table]) -> Result<DynSink, OpenError> {
    let dsn = database.dsn.reveal();
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
