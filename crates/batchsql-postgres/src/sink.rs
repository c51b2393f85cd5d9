//! Owns the sink: what PostgreSQL can take, and the way of a batch to a connection and back.
//! Must not know SQL text.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use batchsql_core::{
    Attempt, Limits, PoolState, Rows, Schema, Session, SessionEnd, Sink, SinkError, ValueRules, Written,
};
use sqlx::{Connection, Executor, PgPool};

use crate::classify::{LinkLost, sink_error};
use crate::conn::PostgresConn;
use crate::open_error::OpenError;
use crate::options::PostgresOptions;
use crate::plan::{PostgresPlan, ServerKnowledge};
use crate::session::BackendSession;
use crate::session_end::Sessions;
use crate::settings::Settings;
use crate::source::Source;
use crate::write::write_rows;

/// The columns of a table at most, as PostgreSQL is built (`MaxHeapAttributeNumber`).
const MAX_COLUMNS: usize = 1600;

/// Writes batches to one PostgreSQL database through a pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct PostgresSink {
    source: Source,
    settings: Settings,
    /// Whether connections keep prepared statements; asked once.
    keeps_statements: Arc<OnceLock<bool>>,
    sessions: Arc<Sessions>,
    known: Arc<ServerKnowledge>,
}

impl PostgresSink {
    /// Connects by DSN, see [`PostgresOptions`].
    ///
    /// # Errors
    /// A DSN that makes no sense, or a server that cannot be connected to within `connect_timeout`.
    ///
    /// # Cancel safety
    /// Nothing is left behind when the call is cancelled.
    pub async fn connect(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?).await
    }

    /// Connects. One connection is opened at once, so that a mistake is seen before rows are.
    ///
    /// # Errors
    /// The server cannot be connected to within `connect_timeout`.
    ///
    /// # Cancel safety
    /// Nothing is left behind when the call is cancelled.
    pub async fn with_options(options: &PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self::of(options.open().await?, options.settings()))
    }

    /// As [`connect`](Self::connect) without asking a server, so that a program starts while the database is away. What
    /// would be learned when connecting (a wrong password, database or host) is learned by the first batch, whose rows
    /// wait as for any server that is away.
    ///
    /// # Errors
    /// A DSN that makes no sense.
    pub fn connect_lazy(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options_lazy(&dsn.parse()?)
    }

    /// As [`with_options`](Self::with_options) without asking a server, see [`connect_lazy`](Self::connect_lazy).
    ///
    /// # Errors
    /// Options that exclude each other.
    pub fn with_options_lazy(options: &PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self::of(options.open_lazy()?, options.settings()))
    }

    fn of(source: Source, settings: Settings) -> Self {
        Self { source, settings, keeps_statements: Arc::default(), sessions: Arc::default(), known: Arc::default() }
    }

    /// Writes through a pool that you have, with the default [`Settings`]. As many batches are written at once as it
    /// has connections, so leave some to its other users by `max_concurrency` of the pipeline.
    ///
    /// The sink leaves nothing behind on a connection: no transaction, no temporary table, no setting. So these are
    /// yours to set, for example in `after_connect` of the pool:
    ///
    /// - `client_min_messages = error`. A trigger may say anything in a notice, also the values of a row, and `sqlx`
    ///   logs notices (target `sqlx::postgres::notice`). The sink keeps them away only inside its own transactions,
    ///   and most batches are one statement.
    /// - `client_connection_check_interval` (PostgreSQL 14 and later), for example `1s`. A write that is given up
    ///   closes its connection, but the server notices only when it next sends something: without this setting, a
    ///   statement that waits for a lock goes on waiting, and keeps its locks and its place among `max_connections`.
    ///   Where rows keep an order the sink ends such a session itself, see [Abandoned writes](crate#abandoned-writes).
    ///
    /// A transaction that was left open by a raw `BEGIN` would take rows in that nobody commits. So the sink looks before
    /// the first batch of each connection that it takes from the pool (one round trip, at most once a second under
    /// load), closes one that has an open transaction, and takes another.
    ///
    /// To end sessions it opens a connection of its own with the options of the pool, beside the pool and without its
    /// `after_connect`. It is closed with the last clone of the sink.
    ///
    /// With `statement_cache_capacity(0)` nothing is prepared under a name, as with
    /// [`Settings::prepared_statements`]`(false)`. `DISCARD ALL` or `DEALLOCATE ALL` in `after_release` take away
    /// statements that `sqlx` believes to be there; say `prepared_statements(false)` then, or each batch needs a new
    /// connection.
    pub fn new(pool: PgPool) -> Self {
        Self::from_pool(pool, Settings::default())
    }

    /// Writes through a pool that you have, see [`new`](Self::new).
    pub fn from_pool(pool: PgPool, settings: Settings) -> Self {
        Self::of(Source::new(pool), settings)
    }

    /// Whether what is prepared under a name is found again. Where the client's cache is off, each use would leave
    /// another statement on the server.
    async fn keeps_statements(&self, conn: &mut PostgresConn) -> Result<bool, SinkError> {
        if let Some(known) = self.keeps_statements.get() {
            return Ok(*known);
        }
        let link = conn.begin()?;
        // Nothing is executed. Without a cache this statement stays, once.
        link.prepare("SELECT").await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        let keeps = link.cached_statements_size() > 0;
        conn.end();
        Ok(*self.keeps_statements.get_or_init(|| keeps))
    }

    /// The pool, for example to create tables or to read. End every transaction before its connection goes back: from
    /// this call on the sink looks for open ones, see [`new`](Self::new).
    pub fn pg_pool(&self) -> &PgPool {
        self.source.share()
    }
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool's own Debug shows how it connects.
        f.debug_struct("PostgresSink").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Sink for PostgresSink {
    type Conn = PostgresConn;
    type Plan = PostgresPlan;

    fn name(&self) -> &'static str {
        "postgres"
    }

    /// Rows with a NUL character in text are refused when they are submitted: PostgreSQL cannot hold it.
    fn limits(&self, _: &Schema) -> Limits {
        let values = ValueRules { refuse_nul_in_text: true, ..ValueRules::default() };
        Limits::default().with_max_columns(MAX_COLUMNS).with_values(values)
    }

    fn max_concurrency(&self) -> Option<usize> {
        usize::try_from(self.source.pool.options().get_max_connections()).ok()
    }

    fn sorts_by_key(&self) -> bool {
        true
    }

    fn pool(&self) -> Option<PoolState> {
        let (open, idle) = (self.source.pool.size() as usize, self.source.pool.num_idle());
        let max = self.source.pool.options().get_max_connections() as usize;
        // The two numbers are not read at one moment.
        Some(PoolState { in_use: open.saturating_sub(idle), idle: idle.min(open), max })
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.settings.late_write_limit
    }

    /// One round trip. The first one of a sink also opens the connection from which sessions are ended.
    async fn session(&self, conn: &mut PostgresConn) -> Result<Option<Session>, SinkError> {
        // Without a cache of statements a pooler is likely, and nothing may be ended that is perhaps another's.
        let has_names = self.settings.prepared_statements && !self.sessions.are_nameless();
        if !has_names || !self.keeps_statements(conn).await? {
            return Ok(None);
        }
        self.sessions.name(&self.source, conn).await
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        match session.name::<BackendSession>() {
            Some(session) => self.sessions.end(&self.source, session).await,
            None => Ok(SessionEnd::Impossible),
        }
    }

    /// One query from the connection from which sessions are ended.
    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        match session.name::<BackendSession>() {
            Some(session) => self.sessions.is_working(&self.source, session).await,
            None => Ok(None),
        }
    }

    async fn acquire(&self) -> Result<PostgresConn, SinkError> {
        self.source.acquire().await
    }

    async fn prepare(&self, conn: &mut PostgresConn, schema: &Schema) -> Result<PostgresPlan, SinkError> {
        // An open transaction would be that of others, and its state not the one of the table.
        conn.check_idle().await?;
        let mut settings = self.settings;
        if settings.prepared_statements && !self.keeps_statements(conn).await? {
            settings = settings.prepared_statements(false);
        }
        PostgresPlan::make(conn, schema, settings, &self.known).await
    }

    async fn write(
        &self,
        conn: &mut PostgresConn,
        plan: &PostgresPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let result = write_rows(conn, plan, rows, attempt).await;
        if result.as_ref().is_err_and(|error| error.code() == Some("25006")) {
            // It is a standby now.
            self.source.reconsider();
        }
        result
    }
}
