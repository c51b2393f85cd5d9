//! Owns the one writer connection and lends it to one batch at a time.
//! Must not know SQL text.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use batchsql_core::{ErrorClass, Limits, Rows, Schema, Sink, SinkError, ValueRules, Written};
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;

use crate::options::{OpenError, SqliteOptions};
use crate::plan::{SqlitePlan, max_binds};
use crate::write::write_rows;

/// Prepared statements kept per connection: eight shapes for each of many tables.
const CACHED_STATEMENTS: usize = 256;

/// Writes batches to one SQLite database. Clones share the connection.
#[derive(Clone)]
pub struct SqliteSink {
    writer: Arc<Mutex<Connection>>,
    interrupt: Arc<InterruptHandle>,
    max_columns: usize,
    path: Option<PathBuf>,
}

/// The writer connection, held for one batch.
pub struct SqliteConn {
    /// `None` only while a blocking task has it, or after such a task panicked.
    connection: Option<OwnedMutexGuard<Connection>>,
    interrupt: Arc<InterruptHandle>,
}

impl fmt::Debug for SqliteConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConn").finish_non_exhaustive()
    }
}

/// Interrupts the running statement when the wait for it is given up, so that the connection is free
/// soon. The transaction is then rolled back, unless it was just being committed.
struct InterruptOnDrop<'a>(Option<&'a InterruptHandle>);

impl Drop for InterruptOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.0 {
            handle.interrupt();
        }
    }
}

impl SqliteSink {
    /// Opens a database by DSN, see [`SqliteOptions`].
    ///
    /// # Errors
    /// A DSN that makes no sense, or a database that cannot be opened.
    pub fn open(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?)
    }

    /// Opens a database.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn with_options(options: &SqliteOptions) -> Result<Self, OpenError> {
        let connection = options.open()?;
        Ok(Self { path: options.path().map(Into::into), ..Self::from_connection(connection) })
    }

    /// Writes through a connection that you opened, with the pragmas you chose.
    pub fn from_connection(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Self {
            interrupt: Arc::new(connection.get_interrupt_handle()),
            max_columns: max_binds(&connection),
            path: connection.path().filter(|path| !path.is_empty()).map(Into::into),
            writer: Arc::new(Mutex::new(connection)),
        }
    }

    /// The database's file; `None` in memory.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.path.as_deref()
    }

    /// Runs `work` on the writer connection, between batches: to create tables, or to read an
    /// in-memory database.
    ///
    /// # Errors
    /// What `work` returns.
    ///
    /// # Panics
    /// When `work` panics.
    ///
    /// # Cancel safety
    /// Once it has begun, `work` runs to its end also when the call is cancelled.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let mut connection = Arc::clone(&self.writer).lock_owned().await;
        match spawn_blocking(move || work(&mut connection)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(rusqlite::Error::InvalidQuery),
            },
        }
    }
}

impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteConn {
    /// Runs `work` on a thread where blocking is allowed, and takes the connection back.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let lost = || SinkError::new(ErrorClass::Internal, "the sqlite connection was lost by a panic");
        let mut connection = self.connection.take().ok_or_else(lost)?;
        let mut interrupt = InterruptOnDrop(Some(&self.interrupt));
        let (connection, result) = spawn_blocking(move || {
            let result = work(&mut connection);
            (connection, result)
        })
        .await
        .map_err(|_| lost())?;
        interrupt.0 = None;
        self.connection = Some(connection);
        result
    }
}

impl Sink for SqliteSink {
    type Conn = SqliteConn;
    type Plan = Arc<SqlitePlan>;

    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn limits(&self, _: &Schema) -> Limits {
        let values = ValueRules { refuse_nan: true, refuse_u64_above_i64: true, ..ValueRules::default() };
        Limits::default().with_max_columns(self.max_columns).with_values(values)
    }

    /// SQLite has one writer.
    fn max_concurrency(&self) -> Option<usize> {
        Some(1)
    }

    async fn acquire(&self) -> Result<SqliteConn, SinkError> {
        let connection = Some(Arc::clone(&self.writer).lock_owned().await);
        Ok(SqliteConn { connection, interrupt: Arc::clone(&self.interrupt) })
    }

    async fn prepare(&self, conn: &mut SqliteConn, schema: &Schema) -> Result<Arc<SqlitePlan>, SinkError> {
        let schema = schema.clone();
        conn.blocking(move |connection| SqlitePlan::make(connection, &schema).map(Arc::new)).await
    }

    async fn write(&self, conn: &mut SqliteConn, plan: &Arc<SqlitePlan>, rows: Rows<'_>) -> Result<Written, SinkError> {
        let (plan, rows) = (Arc::clone(plan), rows.to_shared());
        conn.blocking(move |connection| write_rows(connection, &plan, rows.rows())).await
    }
}
