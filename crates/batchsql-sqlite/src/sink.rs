//! Owns the sink: the limits of SQLite, and the transfer of a batch to the writer thread and back.
//! Must not know SQL text.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use batchsql_core::{
    Attempt, Claim, Claimed, ErrorClass, Limits, OpenError, PartitionKey, Position, Removed, Rows, Schema, Sink,
    SinkError, Step, StoredPosition, TableName, TableSchema, ValueRules, Written,
};
use rusqlite::Connection;

use crate::find_written::find_written;
use crate::linked_version::warn_of_wal_reset;
use crate::opened_file::OpenedFile;
use crate::options::SqliteOptions;
use crate::plan::{SqlitePlan, max_binds};
use crate::position;
use crate::read_schema::{find_table, read_schema};
use crate::table::TableId;
use crate::write::{SharedPlan, end_open_transaction, write_rows};
use crate::writer::{Failed, Writer};

/// Prepared statements kept per connection: eight shapes for each of many tables.
const CACHED_STATEMENTS: usize = 256;

/// Writes batches to one SQLite database. Clones share the connection, which is closed with the last
/// clone.
#[derive(Clone)]
pub struct SqliteSink(Arc<Inner>);

struct Inner {
    writer: Writer,
    max_columns: usize,
    path: Option<PathBuf>,
    file: Option<OpenedFile>,
    /// The first spelling of each table name.
    spellings: Mutex<HashMap<TableId, Box<str>>>,
}

impl Inner {
    fn check_file(&self) -> Result<(), SinkError> {
        self.file.as_ref().map_or(Ok(()), OpenedFile::check)
    }

    /// The pipeline would treat a table with two names as two tables, and its rows would have no order.
    fn check_spelling(&self, table: &TableId, schema: &Schema) -> Result<(), SinkError> {
        let name = schema.table_display();
        let mut spellings = self.spellings.lock().unwrap_or_else(PoisonError::into_inner);
        let first = spellings.entry(table.clone()).or_insert_with(|| name.into());
        if **first == *name {
            return Ok(());
        }
        let text = format!(
            "table {name}: it is the same table as {first}, which rows were submitted for before; use one name, so that \
             its rows keep their order"
        );
        Err(SinkError::new(ErrorClass::Schema, text))
    }
}

/// The handle to the writer connection.
pub struct SqliteConn(Arc<Inner>);

impl fmt::Debug for SqliteConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConn").finish_non_exhaustive()
    }
}

impl SqliteSink {
    /// Opens a database by DSN, see [`SqliteOptions`].
    ///
    /// # Errors
    /// The DSN is invalid, or the database cannot be opened.
    pub fn open(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?)
    }

    /// Opens a database.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn with_options(options: &SqliteOptions) -> Result<Self, OpenError> {
        Self::start(options.open()?, options.path().map(Into::into))
    }

    /// Writes through a connection that you opened, with the pragmas you chose. A temporary table of it does not hide a table that
    /// lasts: statements name the database in which the table was found. With `PRAGMA journal_mode = OFF` SQLite cannot roll back, and
    /// no row is written.
    ///
    /// # Errors
    /// The writer thread cannot be started.
    pub fn from_connection(connection: Connection) -> Result<Self, OpenError> {
        let path = connection.path().filter(|path| !path.is_empty()).map(Into::into);
        Self::start(connection, path)
    }

    fn start(connection: Connection, path: Option<PathBuf>) -> Result<Self, OpenError> {
        warn_of_wal_reset(&connection);
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        let max_columns = max_binds(&connection);
        // The path as SQLite resolved it: the folder of the process may change.
        let resolved = connection.path().filter(|path| !path.is_empty()).map(PathBuf::from);
        let file = resolved.and_then(OpenedFile::new);
        let writer = Writer::start(connection)
            .map_err(|error| OpenError::new("cannot start the thread of the sqlite writer").caused_by(error))?;
        Ok(Self(Arc::new(Inner { writer, max_columns, path, file, spellings: Mutex::default() })))
    }

    /// The database's file; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Runs `work` on the writer connection, between batches: to create tables, or to read an
    /// in-memory database.
    ///
    /// # Errors
    /// The error that `work` returns.
    ///
    /// # Panics
    /// If `work` panics.
    ///
    /// # Cancel safety
    /// `work` runs to its end even if the call is cancelled.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        match self.0.writer.run_to_end(work).await {
            Ok(result) => result,
            Err(Failed::Panicked(panic)) => std::panic::resume_unwind(panic),
            Err(Failed::Gone) => unreachable!("the writer thread lives as long as the sink"),
        }
    }
}

impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl SqliteConn {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let failed = |what: &str| Err(SinkError::new(ErrorClass::Internal, what));
        match self.0.writer.run(work).await {
            Ok(result) => result,
            Err(Failed::Panicked(_)) => failed("the sqlite driver panicked; the transaction was rolled back"),
            Err(Failed::Gone) => failed("the sqlite writer thread has ended"),
        }
    }
}

impl Sink for SqliteSink {
    type Conn = SqliteConn;
    type Plan = SharedPlan;

    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn limits(&self, _: &Schema) -> Limits {
        let values = ValueRules { refuse_nan: true, refuse_u64_above_i64: true, ..ValueRules::default() };
        Limits::default().with_max_columns(self.0.max_columns).with_values(values)
    }

    /// SQLite has one writer; the second batch waits in its queue.
    fn max_concurrency(&self) -> Option<usize> {
        Some(2)
    }

    /// SQLite is part of this process: a larger batch saves no round trips. Not measured yet.
    fn efficient_batch_rows(&self) -> usize {
        0
    }

    /// The writer thread ends an abandoned write before it starts the next one, even if the write waits for a lock.
    /// Other sinks and processes on the same file are separate writers without a common order.
    fn late_write_limit(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        let (conn, table) = (self.acquire().await?, table.clone());
        conn.run(move |connection| read_schema(connection, &table)).await
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        let (conn, table) = (self.acquire().await?, table.clone());
        conn.run(move |connection| find_table(connection, &table)).await
    }

    /// Sets `PRAGMA synchronous = FULL` where it is lower, also of databases that are attached.
    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        let conn = self.acquire().await?;
        conn.run(|connection| {
            // The level cannot be changed inside a transaction.
            end_open_transaction(connection)?;
            position::make_durable(connection)
        })
        .await
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    /// Sets `PRAGMA synchronous = FULL` if it is lower.
    async fn claim(&self, conn: &mut SqliteConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let (key, claim, sink) = (key.clone(), claim.clone(), Arc::clone(&self.0));
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::claim(connection, &key, &claim)
        })
        .await
    }

    async fn advance(&self, conn: &mut SqliteConn, step: &Step) -> Result<(), SinkError> {
        let (step, sink) = (*step, Arc::clone(&self.0));
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::advance(connection, &step)
        })
        .await
    }

    async fn positions(&self, conn: &mut SqliteConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        let (source, sink) = (source.to_owned(), Arc::clone(&self.0));
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::read(connection, &source)
        })
        .await
    }

    async fn renew(
        &self,
        conn: &mut SqliteConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        let (source, owner, sink) = (source.to_owned(), owner.to_owned(), Arc::clone(&self.0));
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::renew(connection, &source, &owner, lease)
        })
        .await
    }

    async fn release(&self, conn: &mut SqliteConn, position: &Position) -> Result<bool, SinkError> {
        let (position, sink) = (*position, Arc::clone(&self.0));
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::release(connection, &position)
        })
        .await
    }

    async fn remove_positions(
        &self,
        conn: &mut SqliteConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        let (source, incarnation, ended) = (source.to_owned(), incarnation.to_owned(), ended_owners.to_vec());
        let sink = Arc::clone(&self.0);
        conn.run(move |connection| {
            end_open_transaction(connection)?;
            sink.check_file()?;
            position::remove(connection, &source, &incarnation, &ended)
        })
        .await
    }

    async fn acquire(&self) -> Result<SqliteConn, SinkError> {
        Ok(SqliteConn(Arc::clone(&self.0)))
    }

    async fn prepare(&self, conn: &mut SqliteConn, schema: &Schema) -> Result<SharedPlan, SinkError> {
        let (schema, sink) = (schema.clone(), Arc::clone(&self.0));
        conn.run(move |connection| {
            let plan = SqlitePlan::make(connection, &schema)?;
            sink.check_spelling(&plan.table, &schema)?;
            Ok(SharedPlan::new(plan))
        })
        .await
    }

    async fn write(
        &self,
        conn: &mut SqliteConn,
        plan: &SharedPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let (plan, rows, attempt) = (plan.clone(), rows.to_shared(), attempt.clone());
        let sink = Arc::clone(&self.0);
        // Until the commit nothing is durable. A batch that is abandoned before it is rolled back and known not to be
        // written.
        attempt.defer();
        conn.run(move |connection| {
            let begin = Instant::now();
            let may_commit = || {
                sink.check_file()?;
                match attempt.begin() {
                    true => Ok(()),
                    false => {
                        Err(SinkError::new(ErrorClass::Transient, "the batch was abandoned before it was committed"))
                    }
                }
            };
            let mut written = write_rows(connection, &plan, rows.rows(), &attempt, may_commit)?;
            // Excludes the time in the queue.
            written.took = Some(begin.elapsed());
            Ok(written)
        })
        .await
    }

    /// One query for each row.
    async fn find_written(
        &self,
        conn: &mut SqliteConn,
        plan: &SharedPlan,
        rows: Rows<'_>,
    ) -> Result<Vec<u32>, SinkError> {
        let (plan, rows) = (plan.clone(), rows.to_shared());
        conn.run(move |connection| find_written(connection, &plan, rows.rows())).await
    }
}
