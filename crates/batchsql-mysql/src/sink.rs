//! Owns the sink: its capabilities, its settings, and the steps of a write around the rows.
//! Must not know SQL text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use batchsql_core::{
    AbandonedWrites, Attempt, Claim, Claimed, IdleDoubt, Limits, OpenError, PartitionKey, PoolState, Position, Removed,
    Rows, Schema, Session, SessionEnd, Sink, SinkError, Step, StoredPosition, TableName, TableSchema, ValueRules,
    Written,
};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, MySqlPool};
use tokio::time::Instant;

use crate::catalog::max_allowed_packet;
use crate::classify::Failed;
use crate::conn::{MySqlConn, Source};
use crate::find_written::find_written;
use crate::learned::Learned;
use crate::link::{Guard, Link, Unusual};
use crate::options::MySqlOptions;
use crate::plan::{MAX_BINDS, MySqlPlan, outdated};
use crate::position;
use crate::read_schema::{find_table, read_schema};
use crate::refusal::settled;
use crate::session::{SharedName, is_shared};
use crate::settings::Settings;
use crate::tables::Tables;
use crate::write;

/// From this round trip on, batches grow.
const WORTH_GROWING: Duration = Duration::from_millis(5);

/// Rows that a batch grows to, for each millisecond of the round trip.
const ROWS_PER_MILLISECOND: usize = 200;
/// The most rows that a batch grows to.
const MOST_ROWS: usize = 5_000;

/// Writes batches to a MySQL or MariaDB server. Clones share the pool.
#[derive(Clone)]
pub struct MySqlSink {
    source: Source,
    learned: Arc<Learned>,
    tables: Arc<Tables>,
    settings: Settings,
}

impl MySqlSink {
    /// Connects by DSN, see [`MySqlOptions`].
    ///
    /// # Errors
    /// The DSN is invalid, or the server does not accept the connection within the connect timeout.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn connect(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?).await
    }

    /// Opens one connection at once, so that a configuration error is reported here, and others when they are
    /// needed.
    ///
    /// # Errors
    /// The server does not accept the connection within the connect timeout.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn with_options(options: &MySqlOptions) -> Result<Self, OpenError> {
        let learned = Arc::default();
        options.try_to_connect(&learned).await?;
        Ok(Self::with_learned(options, learned))
    }

    /// As [`connect`](Self::connect), but nothing is sent to the server before the first row or
    /// [`prepare`](batchsql_core::BatchSql::prepare): a program can start while its database is down. While the
    /// server cannot be reached, rows wait for `retry_for` and then expire; if it rejects the login or has no such
    /// database, they wait for `park_for` and are then rejected.
    ///
    /// # Errors
    /// The DSN is invalid.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect_lazy(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options_lazy(&dsn.parse()?)
    }

    /// As [`with_options`](Self::with_options), but nothing is sent to the server before the first row.
    ///
    /// # Errors
    /// None at present. As on every driver, options that exclude each other would be refused here.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn with_options_lazy(options: &MySqlOptions) -> Result<Self, OpenError> {
        Ok(Self::with_learned(options, Arc::default()))
    }

    fn with_learned(options: &MySqlOptions, learned: Arc<Learned>) -> Self {
        let sessions = Arc::default();
        let doubt = IdleDoubt::default();
        let pool = options.pool(Arc::clone(&sessions), Arc::clone(&learned), doubt.clone());
        let mut sink = Self::from_pool(pool, options.settings);
        sink.source.sessions = sessions;
        sink.source.doubt = doubt;
        sink.learned = learned;
        sink.source.is_ours = true;
        sink.source.password.clone_from(&options.password);
        sink
    }

    /// Writes through a pool of yours. Its sessions must be strict (`STRICT_ALL_TABLES` or `STRICT_TRANS_TABLES` in
    /// `sql_mode`), in autocommit and in `utf8mb4`, and in UTC if a `timestamptz` is written to a TIMESTAMP
    /// column: otherwise the table is rejected when a session first reads its definition.
    ///
    /// `statement_cache_capacity` of the pool's connect options bounds the prepared statements per connection;
    /// it must not be 0, or every batch is prepared twice.
    ///
    /// A connection that comes from the pool with an open transaction (by `START TRANSACTION` as text), or not in
    /// autocommit, is closed, with a warning: a batch on it would be part of that transaction. So is one with another database
    /// (`USE`) or other settings than the session that has read the tables, because rows would be stored elsewhere or as other
    /// values: character sets, `sql_mode`, `time_zone`, `check_constraint_checks`, `foreign_key_checks`, `unique_checks` and
    /// similar ones. If two new connections in a row have the same other settings, these are accepted too. The check costs one
    /// round trip each time a connection is taken from the pool, and one more while several settings are accepted. If your
    /// application changes such settings for each request, give the sink its own pool.
    pub fn new(pool: MySqlPool) -> Self {
        Self::from_pool(pool, Settings::default())
    }

    /// Writes through an existing pool, see [`new`](Self::new).
    pub fn from_pool(pool: MySqlPool, settings: Settings) -> Self {
        Self {
            source: Source {
                pool,
                is_ours: false,
                password: None,
                applied: Arc::default(),
                sessions: Arc::default(),
                watcher: Arc::default(),
                doubt: IdleDoubt::default(),
            },
            learned: Arc::default(),
            tables: Arc::default(),
            settings,
        }
    }

    /// The pool, for your own queries: to create tables, or to read what was written. After the first call of a sink
    /// with its own pool, each connection that goes back to the pool is checked for an open transaction and changed
    /// settings, in one round trip.
    pub fn mysql_pool(&self) -> &MySqlPool {
        self.source.sessions.lend_pool();
        &self.source.pool
    }
}

impl MySqlSink {
    /// The plan for a session whose database or settings are not those of the session that has made `plan`, made once for each
    /// of them. `None` if `plan` is right.
    async fn plan_of_session(
        &self,
        conn: &mut MySqlConn,
        plan: &MySqlPlan,
    ) -> Result<Option<Arc<MySqlPlan>>, SinkError> {
        if self.source.is_ours || (conn.is_fit() && plan.state.is_none()) {
            return Ok(None);
        }
        let state = conn.state().await?;
        if conn.is_fit() && state == plan.state {
            return Ok(None);
        }
        if let Some(known) = plan.of_state(&state).filter(|_| conn.is_fit()) {
            return Ok(Some(known));
        }
        let made = Arc::new(self.prepare(conn, plan.schema()).await?);
        plan.keep_other(Arc::clone(&made));
        Ok(Some(made))
    }

    async fn write_rows(&self, link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
        let packet = self.packet_of(link.connection).await?;
        link.unusual = Unusual::of(self.settings.values_in_text, self.learned.round_trip(), self.source.is_ours);
        if packet < plan.max_allowed_packet {
            return Err(outdated(&format!("max_allowed_packet is {packet} now")));
        }
        if plan.is_due(self.settings.table_check_interval) {
            plan.check_in_time(link.connection, self.settings.table_check_interval).await?;
        }
        match write::write_rows(link, plan, rows).await {
            // The row is about to be rejected, perhaps because the table has changed since the plan was made.
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

    /// The largest packet that may be sent. A connection without prepared statements is new, and its limit may be
    /// lower than before: a server that receives a larger packet closes the connection, and the outcome is unknown.
    async fn packet_of(&self, connection: &mut MySqlConnection) -> Result<usize, Failed> {
        // Our own pool queried the limit when it opened the connection.
        if !self.source.is_ours && connection.cached_statements_size() == 0 {
            let before = Instant::now();
            connection.ping().await.map_err(Failed::asked)?;
            let round_trip = before.elapsed();
            let packet = max_allowed_packet(connection).await.map_err(Failed::asked)?;
            self.learned.note(packet, round_trip);
        }
        Ok(self.learned.packet.load(Ordering::Relaxed))
    }
}

/// Shows the size of the pool, never how it connects.
impl fmt::Debug for MySqlSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlSink")
            .field("connections", &self.source.pool.size())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
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
        Some(self.source.pool.options().get_max_connections() as usize)
    }

    fn sorts_by_key(&self) -> bool {
        true
    }

    /// With a round trip of at least 5 ms, 200 rows for each millisecond, at most 5,000; only if a batch of any size is one round
    /// trip. More rows save little of the round trip, and cost the server more per row: it answers the preparation of 5,000
    /// rows of seven columns with 950 KB, once for each size and connection. With 10 ms, inserts had 0.74 and 0.82 of the rate of
    /// a loop by hand with batches of up to 5,000 rows, and 0.88 with 2,000 and with 1,000 (MariaDB 10.11, `cargo xtask bench
    /// distance --db mysql`). The round trip is measured on the connection that [`connect`](MySqlSink::connect) opens; without
    /// one, batches do not grow.
    fn efficient_batch_rows(&self) -> usize {
        let round_trip = self.learned.round_trip();
        match Unusual::of(self.settings.values_in_text, round_trip, self.source.is_ours) {
            Unusual::Text | Unusual::AlwaysText if round_trip >= WORTH_GROWING => {
                let milliseconds = usize::try_from(round_trip.as_millis()).unwrap_or(usize::MAX);
                milliseconds.saturating_mul(ROWS_PER_MILLISECOND).min(MOST_ROWS)
            }
            _ => 0,
        }
    }

    fn pool(&self) -> Option<PoolState> {
        let (size, idle) = (self.source.pool.size() as usize, self.source.pool.num_idle());
        let max = self.source.pool.options().get_max_connections() as usize;
        Some(PoolState { in_use: size.saturating_sub(idle), idle: idle.min(size), max })
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.settings.late_write_limit
    }

    /// One round trip; the first of a sink costs two more.
    async fn session(&self, conn: &mut MySqlConn) -> Result<Option<Session>, SinkError> {
        if self.settings.abandoned_writes == AbandonedWrites::Wait
            || is_shared(self.source.pool.connect_options().get_host())
        {
            return Ok(None);
        }
        let name = self.source.sessions.name(conn.begin().await?).await;
        let Some(name) = conn.end(name)? else { return Ok(None) };
        let shared = SharedName::of(Some(name));
        conn.named = Some(shared.clone());
        Ok(Some(Session::new(shared)))
    }

    /// Known of connections of the sink's own pool: it asks when it opens one and in the place of a ping, and keeps the names of
    /// twice `max_connections` connections, those that were used last.
    fn known_session(&self, conn: &MySqlConn) -> Option<Session> {
        conn.named.clone().map(Session::new)
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        let Some(name) = session.name::<SharedName>() else { return Ok(SessionEnd::Impossible) };
        self.source.renew_password().await?;
        self.source.watcher.end(&self.source.pool, &self.source.sessions, name).await
    }

    /// Whether the process list shows the session as executing a command. The list does not show a packet that is
    /// still in transit, so the answer is not known while a large one is sent.
    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        let Some(name) = session.name::<SharedName>() else { return Ok(None) };
        self.source.renew_password().await?;
        self.source.watcher.is_working(&self.source.pool, &self.source.sessions, name).await
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        let mut conn = self.acquire().await?;
        let schema = read_schema(conn.begin().await?, table).await;
        conn.end(schema)
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        let mut conn = self.acquire().await?;
        let found = find_table(conn.begin().await?, table).await;
        conn.end(found)
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        let mut conn = self.acquire().await?;
        let setting = position::lossy_setting(conn.begin().await?).await;
        conn.end(setting)
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    async fn claim(&self, conn: &mut MySqlConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let is_shared = is_shared(self.source.pool.connect_options().get_host());
        let abandoned = if is_shared { AbandonedWrites::Wait } else { self.settings.abandoned_writes };
        position::claim(conn, key, claim, abandoned).await
    }

    async fn advance(&self, conn: &mut MySqlConn, step: &Step) -> Result<(), SinkError> {
        let advanced = position::advance(conn.begin().await?, step).await;
        conn.end(advanced)
    }

    async fn positions(&self, conn: &mut MySqlConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        let read = position::read(conn.begin().await?, source).await;
        conn.end(read)
    }

    /// Servers before MySQL 8.0 and MariaDB 10.6 renew none while a step takes longer than a second.
    async fn renew(
        &self,
        conn: &mut MySqlConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        let renewed = position::renew(conn.begin().await?, source, owner, lease).await;
        conn.end(renewed)
    }

    async fn release(&self, conn: &mut MySqlConn, position: &Position) -> Result<bool, SinkError> {
        let released = position::release(conn.begin().await?, position).await;
        conn.end(released)
    }

    async fn remove_positions(
        &self,
        conn: &mut MySqlConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        let removed = position::remove(conn.begin().await?, source, incarnation, ended_owners).await;
        conn.end(removed)
    }

    async fn acquire(&self) -> Result<MySqlConn, SinkError> {
        MySqlConn::acquire(&self.source).await
    }

    async fn prepare(&self, conn: &mut MySqlConn, schema: &Schema) -> Result<MySqlPlan, SinkError> {
        let state = conn.state().await?;
        let connection = conn.begin().await?;
        let ways = (self.settings.ignore_with, self.settings.replace_with);
        let known = (&self.tables, self.settings.table_check_interval);
        let plan = MySqlPlan::make(connection, schema, ways, &self.learned.packet, known, state).await;
        let plan = conn.end(plan)?;
        conn.suits();
        Ok(plan)
    }

    /// Dropping the returned future closes the connection; the server rolls back an open transaction. A statement
    /// that is its own transaction, or a COMMIT, may still be executed, so the pipeline then reports the rows as
    /// `Unknown`.
    async fn write(
        &self,
        conn: &mut MySqlConn,
        plan: &MySqlPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        attempt.defer();
        let session = conn.named.clone();
        conn.begin().await?;
        let other = self.plan_of_session(conn, plan).await?;
        let plan = other.as_deref().unwrap_or(plan);
        let connection = conn.begin().await?;
        let (table, session) = (plan.table(), session.as_ref());
        let mut link = Link { connection, attempt, table, session, unusual: Unusual::Pieces, guard: Guard::Nothing };
        let written = match self.write_rows(&mut link, plan, rows).await {
            Err(failed) => Err(settled(&mut link, &self.source.sessions, failed).await),
            written => written,
        };
        conn.end(written)
    }

    /// One query for 500 rows. Geometries, and texts of bits, are not compared; JSON columns are compared as text, which MySQL
    /// changes.
    async fn find_written(
        &self,
        conn: &mut MySqlConn,
        plan: &MySqlPlan,
        rows: Rows<'_>,
    ) -> Result<Vec<u32>, SinkError> {
        let found = find_written(conn.begin().await?, plan, rows).await;
        conn.end(found)
    }
}
