//! Owns the sink: what PostgreSQL can take, and the way of a batch to a connection and back.
//! Must not know SQL text.

use std::fmt;

use batchsql_core::{Attempt, Limits, PoolState, Rows, Schema, Sink, SinkError, ValueRules, Written};
use sqlx::PgPool;

use crate::classify::{LinkLost, sink_error};
use crate::conn::PostgresConn;
use crate::options::{OpenError, PostgresOptions};
use crate::plan::PostgresPlan;
use crate::settings::Settings;
use crate::write::write_rows;

/// The columns of a table at most, as PostgreSQL is built (`MaxHeapAttributeNumber`).
const MAX_COLUMNS: usize = 1600;

/// Writes batches to one PostgreSQL database through a pool of connections. Clones share the pool.
#[derive(Clone)]
pub struct PostgresSink {
    pool: PgPool,
    settings: Settings,
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
        Ok(Self { pool: options.open().await?, settings: options.settings() })
    }

    /// Writes through a pool that you have, with the default [`Settings`]. As many batches are written at once as it
    /// has connections, so leave some to its other users by `max_concurrency` of the pipeline.
    ///
    /// The sink leaves nothing behind on a connection: no transaction, no temporary table, no setting.
    pub fn new(pool: PgPool) -> Self {
        Self::from_pool(pool, Settings::default())
    }

    /// Writes through a pool that you have.
    pub fn from_pool(pool: PgPool, settings: Settings) -> Self {
        Self { pool, settings }
    }

    /// The pool, for example to create tables or to read.
    pub fn pg_pool(&self) -> &PgPool {
        &self.pool
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
        usize::try_from(self.pool.options().get_max_connections()).ok()
    }

    fn sorts_by_key(&self) -> bool {
        true
    }

    fn pool(&self) -> Option<PoolState> {
        let (open, idle) = (self.pool.size() as usize, self.pool.num_idle());
        let max = self.pool.options().get_max_connections() as usize;
        // The two numbers are not read at one moment.
        Some(PoolState { in_use: open.saturating_sub(idle), idle: idle.min(open), max })
    }

    async fn acquire(&self) -> Result<PostgresConn, SinkError> {
        let conn = self.pool.acquire().await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        Ok(PostgresConn::new(conn))
    }

    async fn prepare(&self, conn: &mut PostgresConn, schema: &Schema) -> Result<PostgresPlan, SinkError> {
        PostgresPlan::make(conn, schema, self.settings).await
    }

    async fn write(
        &self,
        conn: &mut PostgresConn,
        plan: &PostgresPlan,
        rows: Rows<'_>,
        // Rows are never refused one by one here, so an atomic batch is as any other.
        _: &Attempt,
    ) -> Result<Written, SinkError> {
        write_rows(conn, plan, rows).await
    }
}
