//! Owns the sink: the limits of PostgreSQL, and how a batch acquires and returns a connection.
//! Must not know SQL text.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use batchsql_core::{
    Attempt, Claim, Claimed, Limits, OpenError, PartitionKey, PoolState, Position, Removed, Rows, Schema, Session,
    SessionEnd, Sink, SinkError, Step, StoredPosition, TableName, TableSchema, ValueRules, Written,
};
use sqlx::{Connection, Executor, PgPool};

use crate::catalog::read_table;
use crate::classify::{LinkLost, is_raised, sink_error};
use crate::conn::PostgresConn;
use crate::find_written::find_written;
use crate::options::PostgresOptions;
use crate::plan::{PostgresPlan, ServerKnowledge};
use crate::position;
use crate::read_schema::{name_of, schema_of};
use crate::session::BackendSession;
use crate::session_end::Sessions;
use crate::settings::Settings;
use crate::source::Source;
use crate::write::write_rows;

/// The maximum number of columns of a table (`MaxHeapAttributeNumber` of PostgreSQL).
const MAX_COLUMNS: usize = 1600;

/// Writes batches to one PostgreSQL database through a pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct PostgresSink {
    source: Source,
    settings: Settings,
    /// Whether connections keep prepared statements; checked once.
    keeps_statements: Arc<OnceLock<bool>>,
    sessions: Arc<Sessions>,
    known: Arc<ServerKnowledge>,
}

impl PostgresSink {
    /// Connects by DSN, see [`PostgresOptions`].
    ///
    /// # Errors
    /// The DSN is invalid, or no connection to the server succeeds within `connect_timeout`.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn connect(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?).await
    }

    /// Connects. One connection is opened at once, so that a configuration error is reported before rows are
    /// submitted.
    ///
    /// # Errors
    /// No connection to the server succeeds within `connect_timeout`.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn with_options(options: &PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self::of(options.open().await?, options.settings()))
    }

    /// As [`connect`](Self::connect) but without connecting, so that a program can start while the database is
    /// unavailable. Connection errors (a wrong password, database or host) then occur with the first batch, whose
    /// rows wait as for any unavailable server.
    ///
    /// # Errors
    /// The DSN is invalid.
    pub fn connect_lazy(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options_lazy(&dsn.parse()?)
    }

    /// As [`with_options`](Self::with_options) but without connecting, see [`connect_lazy`](Self::connect_lazy).
    ///
    /// # Errors
    /// The options exclude each other.
    pub fn with_options_lazy(options: &PostgresOptions) -> Result<Self, OpenError> {
        Ok(Self::of(options.open_lazy()?, options.settings()))
    }

    fn of(source: Source, settings: Settings) -> Self {
        Self { source, settings, keeps_statements: Arc::default(), sessions: Arc::default(), known: Arc::default() }
    }

    /// Writes through an existing pool, with the default [`Settings`]. The number of concurrent batches is the
    /// number of its connections, so limit it with `max_concurrency` of the pipeline to leave some for other users
    /// of the pool.
    ///
    /// The sink leaves nothing on a connection: no transaction, no temporary table, no setting. So set these
    /// yourself, for example in `after_connect` of the pool:
    ///
    /// - `client_min_messages = error`. A trigger may include row values in a notice, and `sqlx` logs notices
    ///   (target `sqlx::postgres::notice`). The sink disables them only inside its own transactions, and most
    ///   batches are one statement.
    /// - `client_connection_check_interval` (PostgreSQL 14 and later), for example `1s`. An abandoned write closes
    ///   its connection, but the server notices this only when it next sends data: without this setting, a statement
    ///   that waits for a lock keeps waiting, and keeps its locks and its slot in `max_connections`. For ordered rows
    ///   the sink ends such a session itself, see [Abandoned writes](crate#abandoned-writes).
    ///
    /// Rows written inside a transaction that a raw `BEGIN` left open would never be committed, and with another
    /// `client_encoding` than UTF-8 their texts would be stored as other characters. So the sink checks each connection that
    /// it takes from the pool before the first batch (one round trip, at most once a second under load), closes one that has
    /// either, and takes another. If `after_connect` sets such an encoding, rows wait, and the error says so. A batch also fails, and
    /// is written by another connection, if a trigger of a table has changed the encoding while the connection was in use. What a
    /// trigger changes in the middle of a batch of several statements may not be seen.
    ///
    /// A name without a schema is looked up in the `search_path` when the table is read. Temporary tables and views do not
    /// count, and each statement names the schema that was found.
    ///
    /// To end sessions it opens a separate connection with the options of the pool, outside the pool and without its
    /// `after_connect`. It is closed with the last clone of the sink.
    ///
    /// With `statement_cache_capacity(0)` nothing is prepared under a name, as with
    /// [`Settings::prepared_statements`]`(false)`. `DISCARD ALL` or `DEALLOCATE ALL` in `after_release` remove
    /// statements that `sqlx` expects to exist; set `prepared_statements(false)` then, or each batch needs a new
    /// connection.
    pub fn new(pool: PgPool) -> Self {
        Self::from_pool(pool, Settings::default())
    }

    /// Writes through an existing pool, see [`new`](Self::new).
    pub fn from_pool(pool: PgPool, settings: Settings) -> Self {
        Self::of(Source::new(pool), settings)
    }

    /// Whether named prepared statements are reused. If the client's cache is off, each use would leave another
    /// statement on the server.
    async fn keeps_statements(&self, conn: &mut PostgresConn) -> Result<bool, SinkError> {
        if let Some(known) = self.keeps_statements.get() {
            return Ok(*known);
        }
        let link = conn.begin()?;
        // Nothing is executed. Without a cache this one statement stays on the server.
        link.prepare("SELECT").await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        let keeps = link.cached_statements_size() > 0;
        conn.end();
        Ok(*self.keeps_statements.get_or_init(|| keeps))
    }

    /// The pool, for example to create tables or to read. End every transaction before its connection is returned:
    /// from this call on the sink checks for open ones, and for another `client_encoding`, see [`new`](Self::new).
    pub fn pg_pool(&self) -> &PgPool {
        self.source.share()
    }
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool's own Debug shows its connect options.
        f.debug_struct("PostgresSink").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Sink for PostgresSink {
    type Conn = PostgresConn;
    type Plan = PostgresPlan;

    fn name(&self) -> &'static str {
        "postgres"
    }

    /// Rows with a NUL character in text are rejected when they are submitted: PostgreSQL cannot store it.
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
        // The two numbers are not read atomically.
        Some(PoolState { in_use: open.saturating_sub(idle), idle: idle.min(open), max })
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.settings.late_write_limit
    }

    /// One round trip. The first one of a sink also opens the connection that ends sessions.
    async fn session(&self, conn: &mut PostgresConn) -> Result<Option<Session>, SinkError> {
        // Without a statement cache a pooler is likely, and no session of another client may be ended.
        let has_names = self.settings.prepared_statements && !self.sessions.are_nameless();
        if !has_names || !self.keeps_statements(conn).await? {
            return Ok(None);
        }
        self.sessions.name(&self.source, conn).await
    }

    /// Known of connections of the sink's own pool: it asks when it opens one and in the place of a ping, and keeps the names of
    /// twice `max_connections` connections, those that were used last.
    fn known_session(&self, conn: &PostgresConn) -> Option<Session> {
        conn.seen.as_ref().and_then(|named| self.sessions.seen(named))
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        match session.name::<BackendSession>() {
            Some(session) => self.sessions.end(&self.source, session).await,
            None => Ok(SessionEnd::Impossible),
        }
    }

    /// One query on the connection that ends sessions.
    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        match session.name::<BackendSession>() {
            Some(session) => self.sessions.is_working(&self.source, session).await,
            None => Ok(None),
        }
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        let mut conn = self.source.acquire().await?;
        conn.check_idle().await?;
        let lookup = read_table(conn.begin()?, table).await?;
        conn.end();
        schema_of(table, lookup)
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        let mut conn = self.source.acquire().await?;
        conn.check_idle().await?;
        let lookup = read_table(conn.begin()?, table).await?;
        conn.end();
        name_of(table, &lookup)
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        let mut conn = self.source.acquire().await?;
        conn.check_idle().await?;
        position::lossy_setting(&mut conn).await
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    /// A session that holds the position for a second is ended, if the user may.
    async fn claim(&self, conn: &mut PostgresConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        position::claim(&self.source, conn, key, claim).await
    }

    async fn advance(&self, conn: &mut PostgresConn, step: &Step) -> Result<(), SinkError> {
        position::advance(conn, step).await
    }

    async fn positions(&self, conn: &mut PostgresConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        position::read(conn, source).await
    }

    async fn renew(
        &self,
        conn: &mut PostgresConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        position::renew(conn, source, owner, lease).await
    }

    async fn release(&self, conn: &mut PostgresConn, position: &Position) -> Result<bool, SinkError> {
        position::release(conn, position).await
    }

    async fn remove_positions(
        &self,
        conn: &mut PostgresConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        position::remove(conn, source, incarnation, ended_owners).await
    }

    async fn acquire(&self) -> Result<PostgresConn, SinkError> {
        self.source.acquire().await
    }

    async fn prepare(&self, conn: &mut PostgresConn, schema: &Schema) -> Result<PostgresPlan, SinkError> {
        // An open transaction would belong to other code, and could show an outdated state of the table.
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
        if result.as_ref().is_err_and(|error| error.code() == Some("25006") && !is_raised(error)) {
            // The server is a standby now.
            self.source.reconsider();
        }
        result
    }

    /// One query, which compares the rows in the database.
    async fn find_written(
        &self,
        conn: &mut PostgresConn,
        plan: &PostgresPlan,
        rows: Rows<'_>,
    ) -> Result<Vec<u32>, SinkError> {
        find_written(conn, plan, rows).await
    }
}
