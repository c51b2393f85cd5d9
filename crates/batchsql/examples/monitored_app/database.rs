//! Owns the database of the service: opening it, and its tables where it is a SQLite file.
//! Must not know rows or rates.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use batchsql::sqlite::SqliteSink;
use batchsql::{DynSink, Sink};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::Result;

/// The user creates the tables; these are the ones that the service writes to.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS app_orders (id BIGINT PRIMARY KEY, customer VARCHAR(40) NOT NULL, \
     total_cents BIGINT NOT NULL, note VARCHAR(200))",
    "CREATE TABLE IF NOT EXISTS app_events (id BIGINT PRIMARY KEY, kind VARCHAR(20) NOT NULL, body VARCHAR(200))",
];

/// Events that stay in a SQLite file; a service that runs for months must not fill the disk.
const EVENTS_KEPT: u32 = 100_000;
/// How often they are checked.
const TIDY: Duration = Duration::from_secs(2);

/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Database {
    sink: DynSink,
    sqlite: Option<SqliteSink>,
    /// Removed with the last clone.
    _temporary: Option<Arc<TempDir>>,
}

impl Database {
    /// The database of a DSN, or a SQLite file that is removed at the end.
    pub(crate) async fn open(dsn: Option<&str>) -> Result<Self> {
        let temporary = if dsn.is_none() { Some(Arc::new(tempfile::tempdir()?)) } else { None };
        let dsn = match (&temporary, dsn) {
            (Some(folder), _) => format!("sqlite:{}", folder.path().join("app.db").display()),
            (None, dsn) => dsn.unwrap_or_default().to_owned(),
        };
        if !dsn.starts_with("sqlite:") {
            return Ok(Self { sink: batchsql::connect(&dsn).await?, sqlite: None, _temporary: temporary });
        }
        let sqlite = SqliteSink::open(&dsn)?;
        sqlite.call(|connection| connection.execute_batch(&TABLES.join(";"))).await?;
        Ok(Self { sink: DynSink::new(sqlite.clone()), sqlite: Some(sqlite), _temporary: temporary })
    }

    pub(crate) fn sink(&self) -> DynSink {
        self.sink.clone()
    }

    /// As in the label `database`.
    pub(crate) fn name(&self) -> &'static str {
        self.sink.name()
    }

    /// Why the tables cannot be written, with what to do about it.
    pub(crate) fn advice(&self, error: impl Display) -> String {
        format!("{error}; the service needs these tables:\n{};", TABLES.join(";\n"))
    }

    /// Deletes old events from a SQLite file until `stop` is set. A failure is retried: meanwhile the file grows, which
    /// is no reason to stop the service.
    pub(crate) async fn keep_small(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let tidy = async {
            let Some(sqlite) = &self.sqlite else { return std::future::pending().await };
            let mut ticks = tokio::time::interval(TIDY);
            loop {
                ticks.tick().await;
                let delete = "DELETE FROM app_events WHERE id <= \
                              (SELECT id FROM app_events ORDER BY id DESC LIMIT 1 OFFSET ?1)";
                if let Err(error) = sqlite.call(move |connection| connection.execute(delete, [EVENTS_KEPT])).await {
                    tracing::warn!("old events were not deleted; trying again: {error}");
                }
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            // It does not end by itself.
            () = tidy => Ok(()),
        }
    }
}
