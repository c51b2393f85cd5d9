//! Owns the sink: what MySQL can take, the pool, and the connection that is closed when it was left in the middle.
//! Must not know SQL text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batchsql_core::{
    Attempt, Limits, PoolState, Rows, Schema, Session, SessionEnd, Sink, SinkError, ValueRules, Written,
};
use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, MySqlPool};
use tokio::runtime::Handle;

use crate::catalog::max_allowed_packet;
use crate::classify::{Failed, acquire_error};
use crate::link::Link;
use crate::options::{AbandonedWrites, IgnoreWith, MySqlOptions, OpenError, ReplaceWith};
use crate::plan::{MAX_BINDS, MySqlPlan, outdated};
use crate::session::{Sessions, SharedName, is_shared};
use crate::write;

/// Writes batches to a MySQL or MariaDB server. Clones share the pool.
#[derive(Clone)]
pub struct MySqlSink {
    pool: MySqlPool,
    /// Bytes of the largest packet that every connection so far may send.
    packet: Arc<AtomicUsize>,
    table_check_interval: Duration,
    ignore_with: IgnoreWith,
    replace_with: ReplaceWith,
    abandoned_writes: AbandonedWrites,
    late_write_limit: Option<Duration>,
    sessions: Arc<Sessions>,
}

impl MySqlSink {
    /// Connects by DSN, see [`MySqlOptions`].
    ///
    /// # Errors
    /// A DSN that makes no sense, or a server that does not take the connection within the connect timeout.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn connect(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?).await
    }

    /// Opens one connection at once, so that a mistake shows here, and others when they are needed.
    ///
    /// # Errors
    /// The server does not take the connection within the connect timeout.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn with_options(options: &MySqlOptions) -> Result<Self, OpenError> {
        let pool = options.open().await?;
        let sink = Self::new(pool).ignore_with(options.ignore_with).replace_with(options.replace_with);
        let sink = sink.abandoned_writes(options.abandoned_writes);
        Ok(Self { late_write_limit: options.late_write_limit, ..sink })
    }

    /// Writes through a pool of yours. Its sessions must be strict (`STRICT_ALL_TABLES` or `STRICT_TRANS_TABLES` in
    /// `sql_mode`), in autocommit and in `utf8mb4`, and in UTC where a `timestamptz` goes into a TIMESTAMP column:
    /// a table is refused when the session that first looks at it is not.
    ///
    /// `statement_cache_capacity` of the pool's connect options bounds the prepared statements per connection;
    /// it must not be 0, or every batch is prepared anew, twice.
    ///
    /// No connection may come back to the pool with a transaction that is open (by `START TRANSACTION` as text): what
    /// is written on it would be part of that.
    pub fn new(pool: MySqlPool) -> Self {
        Self {
            pool,
            packet: Arc::new(AtomicUsize::new(usize::MAX)),
            table_check_interval: Duration::from_secs(60),
            ignore_with: IgnoreWith::default(),
            replace_with: ReplaceWith::default(),
            abandoned_writes: AbandonedWrites::default(),
            late_write_limit: None,
            sessions: Arc::default(),
        }
    }

    /// How `Conflict::Ignore` is written; default [`IgnoreWith::Exact`].
    #[must_use]
    pub fn ignore_with(mut self, way: IgnoreWith) -> Self {
        self.ignore_with = way;
        self
    }

    /// How `Conflict::Replace` is written; default [`ReplaceWith::Update`].
    #[must_use]
    pub fn replace_with(mut self, way: ReplaceWith) -> Self {
        self.replace_with = way;
        self
    }

    /// What is done about a write that was given up; default [`AbandonedWrites::Kill`].
    #[must_use]
    pub fn abandoned_writes(mut self, way: AbandonedWrites) -> Self {
        self.abandoned_writes = way;
        self
    }

    /// How long a write that was given up may still take effect where its session cannot be ended; default: not known.
    /// A lane with an order waits so long before its next write. See [`MySqlOptions::late_write_limit`].
    #[must_use]
    pub fn with_late_write_limit(mut self, limit: Duration) -> Self {
        self.late_write_limit = Some(limit);
        self
    }

    /// Interval after which the definition of a table is read again while every row of it is accepted; default 60 s.
    /// Within the interval, a change that the server reports no error for may lose digits or insert rows twice: a
    /// DATETIME(6) that becomes a DATETIME, a unique index that is dropped.
    #[must_use]
    pub fn table_check_interval(mut self, interval: Duration) -> Self {
        self.table_check_interval = interval;
        self
    }

    /// The pool, for your own queries: to create tables, or to read what was written.
    pub fn mysql_pool(&self) -> &MySqlPool {
        &self.pool
    }
}

impl MySqlSink {
    async fn write_rows(&self, link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
        let packet = self.packet_of(link.connection).await?;
        if packet < plan.max_allowed_packet {
            return Err(outdated(&format!("max_allowed_packet is {packet} now")));
        }
        if plan.is_due(self.table_check_interval) {
            plan.check_again(link.connection).await?;
        }
        match write::write_rows(link, plan, rows).await {
            // It is about to be rejected, perhaps because the table is not what the plan was made for.
            Err(failed) if failed.is_about_values() && (rows.len() == 1 || link.attempt.is_atomic()) => {
                match plan.check_again(link.connection).await {
                    Ok(()) => Err(failed),
                    Err(changed) if changed.usable => Err(changed),
                    Err(_) => Err(Failed { usable: false, ..failed }),
                }
            }
            written => written,
        }
    }

    /// The largest packet that may be sent. A connection that has nothing prepared is a new one, and may take less than
    /// those before it: a server that gets more hangs up, and nobody knows what it has done.
    async fn packet_of(&self, connection: &mut MySqlConnection) -> Result<usize, Failed> {
        if connection.cached_statements_size() == 0 {
            let packet = max_allowed_packet(connection).await.map_err(Failed::asked)?;
            self.packet.fetch_min(packet, Ordering::Relaxed);
        }
        Ok(self.packet.load(Ordering::Relaxed))
    }
}

/// Shows the size of the pool, never how it connects.
impl fmt::Debug for MySqlSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlSink")
            .field("connections", &self.pool.size())
            .field("ignore_with", &self.ignore_with)
            .field("replace_with", &self.replace_with)
            .finish_non_exhaustive()
    }
}

/// A connection of the pool. One that is dropped in the middle of something is closed, not given back: what still
/// runs on it must not meet the next batch, and the server undoes the transaction that was open.
pub struct MySqlConn {
    pool: MySqlPool,
    /// `None` after the link broke; the next use gets another one.
    live: Option<PoolConnection<MySql>>,
    busy: bool,
    /// The name of the session, once the pipeline has asked for it.
    named: Option<(Arc<Sessions>, SharedName)>,
}

impl fmt::Debug for MySqlConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlConn").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl MySqlConn {
    async fn acquire(pool: &MySqlPool) -> Result<Self, SinkError> {
        let live = pool.acquire().await.map_err(acquire_error)?;
        Ok(Self { pool: pool.clone(), live: Some(live), busy: false, named: None })
    }

    /// The connection for a piece of work; [`end`](Self::end) says that it is over.
    async fn begin(&mut self) -> Result<&mut MySqlConnection, SinkError> {
        let is_new = self.live.is_none();
        let live = match self.live.take() {
            Some(live) => live,
            None => self.pool.acquire().await.map_err(acquire_error)?,
        };
        self.busy = true;
        let live = self.live.insert(live);
        if let Some((sessions, name)) = self.named.as_ref().filter(|_| is_new) {
            // The pipeline has the name of the connection before.
            name.set(None);
            name.set(sessions.name(live).await.map_err(|failed| failed.error)?);
        }
        Ok(live)
    }

    fn end<T>(&mut self, result: Result<T, Failed>) -> Result<T, SinkError> {
        self.busy = result.as_ref().is_err_and(|failed| !failed.usable);
        if self.busy {
            self.close();
        }
        result.map_err(|failed| failed.error)
    }

    fn close(&mut self) {
        // Without a word to the server: it may not listen, and nothing here may wait.
        drop(self.live.take().map(PoolConnection::detach));
        self.busy = false;
    }
}

impl Drop for MySqlConn {
    fn drop(&mut self) {
        // The pool takes a connection back in a task, which needs a runtime.
        if self.busy || Handle::try_current().is_err() {
            self.close();
        }
    }
}

impl Sink for MySqlSink {
    type Conn = MySqlConn;
    type Plan = MySqlPlan;

    fn name(&self) -> &'static str {
        "mysql"
    }

    fn limits(&self, _: &Schema) -> Limits {
        let values = ValueRules { refuse_nan: true, refuse_infinity: true, ..ValueRules::default() };
        Limits::default().with_max_columns(MAX_BINDS).with_values(values)
    }

    fn max_concurrency(&self) -> Option<usize> {
        Some(self.pool.options().get_max_connections() as usize)
    }

    fn sorts_by_key(&self) -> bool {
        true
    }

    /// A batch whose size is not one of the prepared ones is cut into several statements, each of which costs a round
    /// trip. So grown batches are no faster per row, and rows wait longer for their outcome: with a round trip of 10 ms
    /// 50k to 56k rows/s against 54k to 65k (MariaDB 10.11, `cargo xtask bench distance`).
    fn prefers_large_batches(&self) -> bool {
        false
    }

    fn pool(&self) -> Option<PoolState> {
        let (size, idle) = (self.pool.size() as usize, self.pool.num_idle());
        let max = self.pool.options().get_max_connections() as usize;
        Some(PoolState { in_use: size.saturating_sub(idle), idle: idle.min(size), max })
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.late_write_limit
    }

    /// One round trip; the first of a sink costs two more.
    async fn session(&self, conn: &mut MySqlConn) -> Result<Option<Session>, SinkError> {
        if self.abandoned_writes == AbandonedWrites::Wait || is_shared(self.pool.connect_options().get_host()) {
            return Ok(None);
        }
        let name = self.sessions.name(conn.begin().await?).await;
        let Some(name) = conn.end(name)? else { return Ok(None) };
        let shared = SharedName::default();
        shared.set(Some(name));
        conn.named = Some((Arc::clone(&self.sessions), shared.clone()));
        Ok(Some(Session::new(shared)))
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        match session.name::<SharedName>() {
            Some(name) => self.sessions.end(&self.pool, name).await,
            None => Ok(SessionEnd::Impossible),
        }
    }

    async fn acquire(&self) -> Result<MySqlConn, SinkError> {
        MySqlConn::acquire(&self.pool).await
    }

    async fn prepare(&self, conn: &mut MySqlConn, schema: &Schema) -> Result<MySqlPlan, SinkError> {
        let connection = conn.begin().await?;
        let plan = MySqlPlan::make(connection, schema, (self.ignore_with, self.replace_with), &self.packet).await;
        conn.end(plan)
    }

    /// Dropping the returned future closes the connection; the server undoes an open transaction. A statement that is
    /// a transaction of its own, or a COMMIT, may still be carried out, which is why the pipeline then calls the rows
    /// `Unknown`.
    async fn write(
        &self,
        conn: &mut MySqlConn,
        plan: &MySqlPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        attempt.defer();
        let connection = conn.begin().await?;
        let written = self.write_rows(&mut Link { connection, attempt, table: plan.table() }, plan, rows).await;
        conn.end(written)
    }
}
