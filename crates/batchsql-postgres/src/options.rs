//! Owns the address of the server and the connection: settings, the pool, and connection errors.
//! Must not know rows, tables or the DSN syntax.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{CachedPassword, IdleDoubt, OpenError, PasswordProvider};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};

use crate::open_error::{problem, server};
use crate::plan::CACHED_STATEMENTS;
use crate::seen;
use crate::servers::{NoServer, Servers, TargetSession, at};
use crate::session_names::SessionNames;
use crate::settings::{LossyValues, Settings, Strategy};
use crate::source::{Outdated, Source};

/// A connection that was idle for longer is pinged before it is used. A batch that is sent over a dead
/// connection may end as `Unknown`; a ping before each batch would cost a round trip.
const PING_AFTER_IDLE: Duration = Duration::from_millis(500);

/// Makes the server check that the client is still connected while it executes a statement. An abandoned write closes
/// its connection; without this setting its statement would keep waiting for a lock and hold its own locks.
/// PostgreSQL 12 and 13 do not have the setting; then nothing is set.
const DETECT_GONE_CLIENTS: &str = "SELECT pg_catalog.set_config(name, '1s', false) FROM pg_catalog.pg_settings \
                                   WHERE name = 'client_connection_check_interval' AND setting = '0'";

/// Connection settings.
///
/// As a DSN: `postgres://user:password@host:port/database` with the parameters of libpq (`sslmode`, `sslrootcert`,
/// `sslcert`, `sslkey`, `host`, `port`, `dbname`, `user`, `password`, `application_name`, `options`), and
///
/// | parameter | meaning | default |
/// |---|---|---|
/// | `max_connections` | connections of the pool, and so concurrent batches | 8 |
/// | `connect_timeout` | a duration above 0: the time for one connection attempt | `5s` |
/// | `late_write_limit` | a duration: how long an abandoned write may still take effect, see [`Settings::late_write_limit`] | not known |
/// | `strategy` | `auto`, `multi-values`, `unnest`, `copy` or `staging`, see [`Strategy`] | `auto` |
/// | `lock_timeout` | a duration of at least `1ms`: how long a statement may wait for a lock | that of the server |
/// | `target_session_attrs` | `any`, `read-write` or `primary`: which of the hosts is used, see [`TargetSession`] | `read-write` with several hosts; a single host is not checked |
/// | `lossy_values` | `refuse` or `convert`: the policy for values that a column would round or cut, see [`LossyValues`] | `refuse` |
/// | `prepared_statements` | `true` or `false`, see [`prepared_statements`](Self::prepared_statements) | `true` |
///
/// Durations have a unit: `500ms`, `5s`, `2min`, `1h`; without one they are in seconds, as with libpq.
///
/// Several servers: `postgres://user:password@first:5432,second:5432/database`.
///
/// `sslmode=require` with `sslrootcert` verifies the certificate, as libpq does: it means `verify-ca`. With
/// `sslrootcert=system` the authorities of the system are used, and `verify-full`. libpq parameters that this client
/// does not support are rejected with advice, as are parameters that are given twice or that the sink sets itself.
///
/// Missing parts of the DSN come from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE` and the
/// password file, as with libpq.
///
/// ```
/// use batchsql_postgres::PostgresOptions;
/// let options: PostgresOptions = "postgres://app:secret@db.example.org/app?max_connections=4".parse()?;
/// assert!(!format!("{options:?}").contains("secret"));
/// assert!("mysql://app:secret@db.example.org/app".parse::<PostgresOptions>().is_err());
/// # Ok::<(), batchsql_postgres::OpenError>(())
/// ```
#[derive(Clone)]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    max_connections: u32,
    connect_timeout: Duration,
    lock_timeout: Option<Duration>,
    servers: Servers,
    password: Option<CachedPassword>,
    settings: Settings,
}

/// Shows the address, never the password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("server", &server(&self.connect))
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// The default settings for a server that `sqlx` options describe, for example with a socket or certificates
    /// in memory.
    pub fn from_connect_options(connect: PgConnectOptions) -> Self {
        Self {
            connect,
            max_connections: 8,
            connect_timeout: Duration::from_secs(5),
            lock_timeout: None,
            servers: Servers::default(),
            password: None,
            settings: Settings::default(),
        }
    }

    /// Several servers of one database, as host (or the folder of a socket) and port, of which one is written to: the
    /// first in this order that is a `target`. It is chosen when the sink connects, and again if it cannot be reached
    /// or has become read-only. `connect_timeout` applies to each server. A single server is checked too; with no
    /// server the call sets only the `target`.
    #[must_use]
    pub fn servers<H: Into<Box<str>>>(
        mut self,
        addresses: impl IntoIterator<Item = (H, u16)>,
        target: TargetSession,
    ) -> Self {
        let addresses: Vec<(Box<str>, u16)> = addresses.into_iter().map(|(host, port)| (host.into(), port)).collect();
        if let Some((host, port)) = addresses.first() {
            self.connect = at(&self.connect, host, *port);
        }
        self.servers = Servers { addresses, target: Some(target) };
        self
    }

    /// The same without a target.
    pub(crate) fn addressed(self, addresses: Vec<(String, u16)>) -> Self {
        let target = self.servers.target;
        let mut options = self.servers(addresses, TargetSession::default());
        options.servers.target = target;
        options
    }

    #[cfg(test)]
    pub(crate) fn addresses(&self) -> &[(Box<str>, u16)] {
        &self.servers.addresses
    }

    pub(crate) fn target_session(mut self, target: TargetSession) -> Self {
        self.servers.target = Some(target);
        self
    }

    /// Sets a provider of the password for new connections, instead of a fixed one: for tokens that expire, such as
    /// those of cloud databases. It is called again when the last password expires, or if the server rejects it. Open
    /// connections stay open.
    #[must_use]
    pub fn password_provider(mut self, provider: impl PasswordProvider) -> Self {
        self.password = Some(CachedPassword::new(provider));
        self
    }

    /// How long a statement may wait for a lock before its batch is retried (`55P03`); in whole milliseconds, at
    /// least 1; default: the server's setting, which is no limit unless it was changed.
    ///
    /// It is set when connecting. A pooler would share this setting with other clients, so with
    /// [`prepared_statements(false)`](Self::prepared_statements) connecting fails with advice.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// The maximum number of connections of the pool, and so of concurrent batches; default 8, at least 1. A
    /// sink with ordered rows opens one more, see [Abandoned writes](crate#abandoned-writes).
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long connecting may take, and how long a batch waits for a connection before it is retried; default 5
    /// s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How rows are sent; default [`Strategy::Auto`].
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.settings = self.settings.strategy(strategy);
        self
    }

    /// Whether statements are prepared under a name and kept per connection, see
    /// [`Settings::prepared_statements`]; default true. With false no startup parameter that PgBouncer rejects
    /// is sent.
    #[must_use]
    pub fn prepared_statements(mut self, named: bool) -> Self {
        self.settings = self.settings.prepared_statements(named);
        self
    }

    /// Interval after which the definition of a table is read again, see
    /// [`Settings::table_check_interval`]; default 30 s.
    #[must_use]
    pub fn table_check_interval(mut self, interval: Duration) -> Self {
        self.settings = self.settings.table_check_interval(interval);
        self
    }

    /// The policy for values that their column would round or cut, see [`Settings::lossy_values`]; default
    /// [`LossyValues::Refuse`].
    #[must_use]
    pub fn lossy_values(mut self, policy: LossyValues) -> Self {
        self.settings = self.settings.lossy_values(policy);
        self
    }

    /// How long an abandoned write may still take effect if its session cannot be ended, see
    /// [`Settings::late_write_limit`]; default: not known.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.settings = self.settings.late_write_limit(limit);
        self
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// Connects once, so that a configuration error is reported before rows are submitted, and creates the
    /// pool.
    pub(crate) async fn open(&self) -> Result<Source, OpenError> {
        let mut connect = self.connect_options()?;
        let mut given = self.provided().await?;
        connect = given.iter().fold(connect, |connect, text| connect.password(text));
        let mut chosen = self.servers.choose(&connect, self.connect_timeout).await;
        // The provider may have cached an expired password of another sink.
        if let (Err(NoServer::Failed(_, sqlx::Error::Database(error))), Some(password)) = (&chosen, &self.password)
            && matches!(error.code().as_deref(), Some("28P01" | "28000"))
        {
            password.refused().await;
            let again = self.provided().await?;
            if again != given {
                connect = again.iter().fold(connect, |connect, text| connect.password(text));
                chosen = self.servers.choose(&connect, self.connect_timeout).await;
                given = again;
            }
        }
        let connect = chosen.map_err(|none| match none {
            NoServer::Failed(at, error) => Self { connect: *at, ..self.clone() }.open_error(error),
            NoServer::TimedOut(at) => {
                let after = self.connect_timeout;
                problem(
                    &at,
                    &format!("it does not answer within connect_timeout = {after:?}; check host, port and firewall"),
                )
            }
            NoServer::ReadOnly => {
                self.problem("each server that answers is read-only; name the primary, or use target_session_attrs=any")
            }
        })?;
        let source = self.pool(connect, given, false);
        if !self.settings.prepared_statements {
            self.try_transaction(&source.pool).await?;
        }
        Ok(source)
    }

    /// A pooler in statement mode accepts plain inserts, and closes the connection at each BEGIN.
    async fn try_transaction(&self, pool: &PgPool) -> Result<(), OpenError> {
        let tried = async {
            let mut connection = pool.acquire().await?;
            connection.execute("BEGIN").await?;
            connection.execute("ROLLBACK").await
        };
        // A pooler may have no session for it for as long as it likes.
        let Ok(tried) = tokio::time::timeout(self.connect_timeout, tried).await else { return Ok(()) };
        match tried {
            Err(sqlx::Error::Database(error)) if error.message().contains("statement pooling mode") => {
                let what = "the pooler allows no transactions; set pool_mode = transaction or session (code 08P01)";
                Err(self.problem(what))
            }
            // Any other error occurs again with the first batch, and is handled there.
            _ => Ok(()),
        }
    }

    /// The password of the provider, if there is one.
    async fn provided(&self) -> Result<Option<Arc<str>>, OpenError> {
        let Some(password) = &self.password else { return Ok(None) };
        let (text, _) = password.get().await.map_err(|error| {
            let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            self.problem(&format!("the password provider gave no password: {reason}"))
        })?;
        Ok(Some(text))
    }

    /// Creates the pool without connecting.
    pub(crate) fn open_lazy(&self) -> Result<Source, OpenError> {
        Ok(self.pool(self.connect_options()?, None, true))
    }

    fn pool(&self, connect: PgConnectOptions, given: Option<Arc<str>>, is_lazy: bool) -> Source {
        let doubt = IdleDoubt::default();
        let outdated = Outdated::default();
        let (in_pool, asked) = (doubt.clone(), outdated.clone());
        // Behind a pooler a session is not that of the connection.
        let sees = self.settings.prepared_statements;
        let names = Arc::new(SessionNames::of(self.max_connections));
        let in_use = Arc::clone(&names);
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(move |conn, meta| {
                let (doubt, names) = (in_pool.clone(), Arc::clone(&in_use));
                let is_outdated = asked.has(meta.age);
                Box::pin(async move {
                    if is_outdated {
                        return Ok(false);
                    }
                    seen::none();
                    if meta.idle_for > PING_AFTER_IDLE {
                        let check = doubt.check();
                        match sees {
                            true => seen::ask(conn, &names).await?,
                            false => conn.ping().await?,
                        }
                        check.passed();
                    } else if sees {
                        seen::find(conn, &names).await?;
                    }
                    Ok(true)
                })
            });
        // A pooler would share the setting with other clients.
        let source = |pool| {
            let (password, servers) = (self.password.clone(), self.servers.clone());
            Source::changing(pool, password, given, servers, self.connect_timeout, is_lazy).doubting(doubt, outdated)
        };
        if !self.settings.prepared_statements {
            return source(pool.connect_lazy_with(connect));
        }
        let pool = pool.after_connect(move |conn, _| {
            let names = Arc::clone(&names);
            Box::pin(async move {
                seen::none();
                match conn.execute(DETECT_GONE_CLIENTS).await {
                    // The platform of the server does not support this.
                    Ok(_) | Err(sqlx::Error::Database(_)) => seen::ask(conn, &names).await,
                    Err(error) => Err(error),
                }
            })
        });
        source(pool.connect_lazy_with(connect))
    }

    fn connect_options(&self) -> Result<PgConnectOptions, OpenError> {
        let connect = self.connect.clone().disable_statement_logging();
        if !self.settings.prepared_statements {
            if self.lock_timeout.is_some() {
                let advice = "a pooler shares lock_timeout between clients; set it with ALTER ROLE … SET lock_timeout";
                return Err(OpenError::invalid_options(format!(
                    "lock_timeout with prepared_statements = false: {advice}"
                )));
            }
            // PgBouncer rejects unknown startup parameters.
            return Ok(connect.extra_float_digits(None).statement_cache_capacity(0));
        }
        let connect = match self.lock_timeout {
            Some(timeout) => connect.options([("lock_timeout", format!("{}ms", timeout.as_millis().max(1)))]),
            None => connect,
        };
        // A trigger may include row values in a notice, and sqlx logs notices.
        Ok(connect.statement_cache_capacity(CACHED_STATEMENTS).options([("client_min_messages", "error")]))
    }

    fn problem(&self, what: &str) -> OpenError {
        problem(&self.connect, what)
    }

    fn open_error(&self, error: sqlx::Error) -> OpenError {
        match error {
            sqlx::Error::Io(error) => {
                let what = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => {
                        "the connection was refused; check host and port, and that the server runs".to_owned()
                    }
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                        "the server closed the connection while connecting; check that it is postgresql and is up"
                            .to_owned()
                    }
                    // rustls reports certificate errors as invalid data.
                    std::io::ErrorKind::InvalidData => {
                        format!("TLS failed: {error}; check sslmode, sslrootcert and the name of the host")
                    }
                    _ => format!("{error}; check host, port and network"),
                };
                self.problem(&what).caused_by(error)
            }
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default().into_owned();
                let advice = match &*code {
                    // PgBouncer reports every refusal with this code.
                    "08P01" if error.message().contains("authentication failed") => {
                        "check user and password, and the users of the pooler"
                    }
                    "08P01" if !self.settings.prepared_statements && error.message().contains("startup parameter") => {
                        "remove the parameter, or add it to ignore_startup_parameters of the pooler"
                    }
                    "08P01" if self.settings.prepared_statements => "behind a pooler use prepared_statements(false)",
                    "28P01" | "28000" => "check user, password and pg_hba.conf",
                    "3D000" => "check the database name, or create it",
                    "42501" => "grant the user the right to connect",
                    "53300" => "lower max_connections, or raise max_connections of the server",
                    "57P03" => "wait until the server has started",
                    _ => "see the server's log",
                };
                // No row was sent yet: the server's message can only be about user, database and parameters.
                self.problem(&format!("{}; {advice} (code {code})", error.message()))
            }
            sqlx::Error::Tls(error) => {
                let is_unsupported =
                    matches!(self.connect.get_ssl_mode(), PgSslMode::Require) && !cfg!(feature = "tls");
                let advice =
                    if is_unsupported { "build with the feature tls" } else { "check sslmode and sslrootcert" };
                self.problem(&format!("TLS failed: {error}; {advice}"))
            }
            sqlx::Error::Protocol(_) => {
                self.problem("it does not speak the protocol of postgresql; check host and port")
            }
            other => self.problem(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_from_the_dsn() {
        let dsn = "postgresql://u:p@h:1234/d?max_connections=3&sslmode=disable&connect_timeout=2.5&strategy=unnest\
                   &prepared_statements=false&application_name=me";
        let options: PostgresOptions = dsn.parse().unwrap();
        assert_eq!(server(&options.connect), "h:1234 as user \"u\", database \"d\"");
        assert_eq!(options.connect.get_application_name(), Some("me"));
        assert_eq!((options.max_connections, options.connect_timeout), (3, Duration::from_millis(2500)));
        assert_eq!(options.settings, Settings::default().strategy(Strategy::Unnest).prepared_statements(false));
        let plain: PostgresOptions = "postgres://h/d".parse().unwrap();
        assert_eq!((plain.max_connections, plain.connect_timeout), (8, Duration::from_secs(5)));
        assert_eq!(plain.settings, Settings::default());
    }

    #[test]
    fn the_password_is_not_shown() {
        let options: PostgresOptions = "postgres://user:secret@host/db".parse().unwrap();
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret") && shown.contains("user") && shown.contains("host"), "{shown}");
    }
}
