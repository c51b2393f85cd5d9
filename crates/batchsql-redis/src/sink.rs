//! Owns the sink: the limits of Redis, and how a batch is sent.
//! Must not know commands or replies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{
    AbandonedWrites, Attempt, ColumnType, ErrorClass, Limits, OpenError, PoolState, Rows, Schema, Session, SessionEnd,
    Sink, SinkError, ValueRules, Written,
};

use tokio::time::{Instant, timeout_at};

use crate::classify::connect_error;
use crate::client::Clients;
use crate::cluster::Cluster;
use crate::command::Command;
use crate::command_info::{self, KeyPosition};
use crate::lookup::is_float;
use crate::options::RedisOptions;
use crate::persistence;
use crate::plan::{RedisPlan, is_repeatable, refused_at_admission};
use crate::pool::{self, LONGEST, Lease, Pool};
use crate::session;
use crate::shape::Shape;
use crate::write::write_to_server;

/// Writes batches to one Redis server or cluster. Clones share the connections, which are closed with the last
/// clone.
#[derive(Clone)]
pub struct RedisSink(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    cluster: Option<Cluster>,
}

/// The permit to write one batch. Connections that are usable when it is dropped are kept for the next one.
pub struct RedisConn(Lease);

impl fmt::Debug for RedisConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConn").finish_non_exhaustive()
    }
}

impl RedisSink {
    /// Connects to a server by DSN, see [`RedisOptions`]. Without options for the command of rows, rows of schemas
    /// with a key become hashes.
    ///
    /// # Errors
    /// The DSN is invalid, or the server cannot be used: it is not reachable, does not answer within the
    /// connect timeout, or has no such user, password or database. The error contains no password.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn connect(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options(&dsn.parse()?).await
    }

    /// Connects to a server at once, to check whether it can be used.
    ///
    /// # Errors
    /// The server cannot be used, see [`connect`](Self::connect). A server that is still loading its data can
    /// be used.
    ///
    /// # Cancel safety
    /// A cancelled call leaves nothing open.
    pub async fn with_options(options: &RedisOptions) -> Result<Self, OpenError> {
        let sink = Self::with_options_lazy(options)?;
        let Inner { pool, cluster } = &*sink.0;
        // It has its own timeout; that of the server starts afterwards.
        pool.ask_for_password().await.map_err(|error| OpenError::new(error.to_string()))?;
        let deadline = Instant::now() + options.connect_timeout.min(LONGEST);
        pool::check(pool, deadline).await?;
        if let Some(cluster) = cluster {
            let mut lease = pool.lease().await;
            match timeout_at(deadline, cluster.check(&mut lease)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(OpenError::new(error.to_string())),
                Err(_) => {
                    let (address, limit) = (options.address(), options.connect_timeout);
                    return Err(OpenError::new(format!(
                        "the cluster at {address} does not report its slots within {limit:?}"
                    )));
                }
            }
        }
        Ok(sink)
    }

    /// As [`connect`](Self::connect), but contacts no server: connections are opened when rows are written, and rows
    /// wait while the server is unavailable.
    ///
    /// # Errors
    /// The DSN is invalid.
    pub fn connect_lazy(dsn: &str) -> Result<Self, OpenError> {
        Self::with_options_lazy(&dsn.parse()?)
    }

    /// As [`with_options`](Self::with_options), but contacts no server: connections are opened when rows are written,
    /// and rows wait while the server is unavailable.
    ///
    /// # Errors
    /// None at present. As on every driver, options that exclude each other would be refused here.
    pub fn with_options_lazy(options: &RedisOptions) -> Result<Self, OpenError> {
        let pool = Arc::new(Pool::new(options.clone()));
        Ok(Self(Arc::new(Inner { pool, cluster: options.is_cluster.then(Cluster::default) })))
    }

    /// The command of a table, including the default for schemas with a key.
    fn command<'a>(&'a self, schema: &Schema) -> Option<&'a Command> {
        self.0.pool.options().commands.of(schema.table_display())
    }

    /// Queries the server about a command that the user chose.
    async fn ask_about(&self, lease: &mut Lease, schema: &Schema, words: &[String]) -> Result<KeyPosition, SinkError> {
        let (address, link) = lease.any_link().await?;
        let optional = schema.columns().iter().filter(|column| column.is_nullable()).count();
        let most = words.len() + schema.columns().len();
        match link.ask(redis::cmd("COMMAND").arg("INFO").arg(&words[0])).await {
            Ok(reply) => command_info::check(&reply, words, most - optional, most),
            // Without the right, or if the command is renamed, errors are found when rows are written.
            Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(KeyPosition::Argument(words.len())),
            Err(error) => Err(connect_error(&error, &address)),
        }
    }

    /// Checks whether the server supports transactions, which rows of hashes with `NULL` need: otherwise
    /// their commands would be executed separately.
    async fn check_transactions(&self, lease: &mut Lease, schema: &Schema) -> Result<(), SinkError> {
        let (address, link) = lease.any_link().await?;
        let answer = match link.ask(&redis::cmd("MULTI")).await {
            Ok(_) => link.ask(&redis::cmd("EXEC")).await,
            refused => refused,
        };
        let Err(error) = answer else { return Ok(()) };
        // It may be inside a transaction.
        link.mark_unusable();
        let problem = |class, code: &str, what: &str| {
            let text = format!(
                "table {}: {what} MULTI and EXEC, which write hashes with NULL; allow them, or declare columns that \
                 are not nullable",
                schema.table_display()
            );
            Err(SinkError::with_code(class, code, text))
        };
        match error.code() {
            Some("NOPERM" | "EXECABORT") => problem(ErrorClass::Permission, "NOPERM", "the user may not run"),
            Some("ERR") => problem(ErrorClass::Schema, "ERR", "the server does not know"),
            _ => Err(connect_error(&error, &address)),
        }
    }
}

impl fmt::Debug for RedisSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSink").field("options", self.0.pool.options()).finish_non_exhaustive()
    }
}

impl Sink for RedisSink {
    type Conn = RedisConn;
    type Plan = RedisPlan;

    fn name(&self) -> &'static str {
        "redis"
    }

    /// Scores cannot be `NaN`; JSON documents have neither `NaN` nor infinity, also not in lists. Everything else is text. A row that
    /// leaves out every field of a hash or of an entry is rejected.
    fn limits(&self, schema: &Schema) -> Limits {
        let floats = |name: Option<&str>| {
            schema.columns().iter().any(|c| is_float(c.column_type()) && name.is_none_or(|name| c.name() == name))
        };
        let values = match self.command(schema) {
            Some(Command::ZAdd(zadd)) => ValueRules { refuse_nan: floats(Some(&zadd.score)), ..ValueRules::default() },
            Some(Command::Document(_)) => {
                let has_lists = schema.columns().iter().any(|column| column.column_type() == ColumnType::Json);
                let refused = floats(None) || has_lists;
                ValueRules { refuse_nan: refused, refuse_infinity: refused, ..ValueRules::default() }
            }
            _ => ValueRules::default(),
        };
        let refuse_rows = refused_at_admission(schema, self.command(schema));
        Limits::default().with_values(ValueRules { refuse_rows, ..values })
    }

    fn max_concurrency(&self) -> Option<usize> {
        Some(self.0.pool.options().max_connections)
    }

    /// Setting the same value again changes nothing, if a declared key ensures that no newer value was set in the
    /// meantime; adding to a set is always harmless. Adding to lists and streams, publishing, and raw commands are
    /// not retried.
    fn is_repeatable(&self, schema: &Schema) -> bool {
        match self.command(schema) {
            Some(command) => is_repeatable(schema, command),
            // A hash, or rejected.
            None => true,
        }
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn pool(&self) -> Option<PoolState> {
        let mut state = self.0.pool.state();
        // One connection to each node.
        state.max *= self.0.cluster.as_ref().map_or(1, |cluster| cluster.masters().max(1));
        Some(state)
    }

    /// The server answers row by row, so a larger batch saves little. Not measured yet.
    fn efficient_batch_rows(&self) -> usize {
        0
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.0.pool.options().late_write_limit
    }

    /// The connections that the batch has, and those that it opens to further nodes. Their names are known since
    /// they were opened.
    async fn session(&self, conn: &mut RedisConn) -> Result<Option<Session>, SinkError> {
        let pool = &self.0.pool;
        if pool.options().abandoned_writes == AbandonedWrites::Wait {
            return Ok(None);
        }
        if !conn.0.has_names() {
            pool.warn_of_clients();
        }
        Ok(Some(Session::new(Arc::clone(&conn.0.clients))))
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        match session.name::<Arc<Clients>>() {
            Some(clients) => session::end(&self.0.pool, self.0.cluster.as_ref(), clients).await,
            None => Ok(SessionEnd::Impossible),
        }
    }

    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        match session.name::<Arc<Clients>>() {
            Some(clients) => session::is_working(&self.0.pool, clients).await,
            None => Ok(None),
        }
    }

    async fn acquire(&self) -> Result<RedisConn, SinkError> {
        let mut lease = self.0.pool.lease().await;
        if self.0.cluster.is_none() {
            let server = lease.pool.server().await?;
            lease.link(&server).await?;
        }
        Ok(RedisConn(lease))
    }

    /// Of a cluster, one server is asked.
    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        let mut conn = self.acquire().await?;
        let (address, link) = conn.0.any_link().await?;
        persistence::lossy_setting(link).await.map_err(|error| connect_error(&error, &address))
    }

    async fn prepare(&self, conn: &mut RedisConn, schema: &Schema) -> Result<RedisPlan, SinkError> {
        let mut plan = RedisPlan::make(schema, self.command(schema))?;
        if let Shape::Hash { fields, .. } = &plan.shape
            && fields.iter().any(|field| schema.columns()[field.column].is_nullable())
        {
            self.check_transactions(&mut conn.0, schema).await?;
        }
        if let Shape::Raw { words, .. } = &plan.shape
            && !words.is_empty()
        {
            let key = self.ask_about(&mut conn.0, schema, words).await?;
            plan.key_argument = match key {
                KeyPosition::Argument(position) => Some(position),
                KeyPosition::Nowhere => None,
                KeyPosition::Depends if self.0.cluster.is_some() => {
                    let text = format!(
                        "table {}: the position of the key of {:?} depends on its arguments, so a cluster cannot be \
                         written with it; use another command",
                        schema.table_display(),
                        words.join(" ")
                    );
                    return Err(SinkError::new(ErrorClass::Schema, text));
                }
                KeyPosition::Depends => {
                    // The same script does not mean the same key.
                    plan.overwrites = false;
                    None
                }
            };
        }
        Ok(plan)
    }

    async fn write(
        &self,
        conn: &mut RedisConn,
        plan: &RedisPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        if attempt.is_atomic() && rows.len() > 1 {
            let text = "redis cannot roll back a batch if one row is rejected; use Isolation::Bisect, or flush_size 1";
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        let mut written = match &self.0.cluster {
            None => write_to_server(&mut conn.0, plan, rows, attempt).await?,
            Some(cluster) => cluster.write(&mut conn.0, plan, rows, attempt).await?,
        };
        // An atomic batch has one row, so its error is the error of the batch.
        let alone =
            if attempt.is_atomic() { written.rejected.pop().or_else(|| written.unfinished.pop()) } else { None };
        match alone {
            Some((_, error)) => Err(error),
            None => Ok(written),
        }
    }
}
