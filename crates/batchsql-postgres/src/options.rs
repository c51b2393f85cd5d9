//! Owns where the server is and how it is connected to: DSN, settings, and the errors of connecting.
//! Must not know rows, tables or statements.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::settings::{Settings, Strategy};

/// Prepared statements kept per connection. The statements of a table by `UNNEST` are one, those of multi-row
/// `VALUES` at most ten.
const CACHED_STATEMENTS: usize = 256;

/// A connection that was idle for longer is asked for a sign of life before it is used. A batch that is sent over a
/// dead link may end as unknown; asking each time would cost a round trip per batch.
const TRUSTED_IDLE: Duration = Duration::from_millis(500);

/// Lets the server look whether we are still there while it executes a statement. A write that is given up closes its
/// connection; without this its statement would go on waiting for a lock, and keep its own. PostgreSQL 12 and 13 do not
/// have it, and then this sets nothing.
const NOTICE_GONE_CLIENTS: &str = "SELECT pg_catalog.set_config(name, '1s', false) FROM pg_catalog.pg_settings \
                                   WHERE name = 'client_connection_check_interval' AND setting = '0'";

/// Parameters of the URL that `sqlx` understands; it would only warn of others, and show their values.
const SQLX_PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

const FORM: &str = "use postgres://user:password@host:port/database?sslmode=verify-full";

/// Where and how to connect.
///
/// As a DSN: `postgres://user:password@host:port/database` with the parameters of libpq (`sslmode`, `sslrootcert`,
/// `sslcert`, `sslkey`, `host`, `port`, `dbname`, `user`, `password`, `application_name`, `options`), and
///
/// | parameter | meaning | default |
/// |---|---|---|
/// | `max_connections` | connections of the pool, and batches that are written at once | 8 |
/// | `connect_timeout` | seconds until a connection must be there | 5 |
/// | `strategy` | `auto`, `multi-values`, `unnest`, `copy` or `staging`, see [`Strategy`] | `auto` |
/// | `prepared_statements` | `true` or `false`, see [`prepared_statements`](Self::prepared_statements) | `true` |
///
/// What the DSN leaves out comes from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE` and the
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
    settings: Settings,
}

/// Shows where, never the password.
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

/// The server could not be connected to.
#[derive(Debug)]
pub struct OpenError {
    problem: String,
    source: Option<std::io::Error>,
}

impl OpenError {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), source: None }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl PostgresOptions {
    /// The default settings for a server that `sqlx` options describe, for example with a socket or certificates
    /// in memory.
    pub fn from_connect_options(connect: PgConnectOptions) -> Self {
        Self { connect, max_connections: 8, connect_timeout: Duration::from_secs(5), settings: Settings::default() }
    }

    /// How many connections the pool opens at most, which is how many batches are written at once; default 8.
    /// At least one.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long connecting may take, and how long a batch waits for a connection before it is tried again later;
    /// default 5 s.
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
    /// [`Settings::prepared_statements`]; default true. With false no startup parameter is sent that PgBouncer
    /// refuses.
    #[must_use]
    pub fn prepared_statements(mut self, named: bool) -> Self {
        self.settings = self.settings.prepared_statements(named);
        self
    }

    /// How long a table is taken to be what it was when it was last looked at, see
    /// [`Settings::check_tables_every`]; default 30 s.
    #[must_use]
    pub fn check_tables_every(mut self, interval: Duration) -> Self {
        self.settings = self.settings.check_tables_every(interval);
        self
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// Connects once, so that a mistake is seen before rows are, and makes the pool.
    pub(crate) async fn open(&self) -> Result<PgPool, OpenError> {
        let connect = self.connect_options();
        match tokio::time::timeout(self.connect_timeout, connect.connect()).await {
            // A courtesy to the server: what it answers changes nothing.
            Ok(Ok(conn)) => drop(conn.close().await),
            Ok(Err(error)) => return Err(self.open_error(error)),
            Err(_) => {
                let after = self.connect_timeout;
                return Err(self.problem(&format!(
                    "it does not answer within connect_timeout = {after:?}; check host, port and firewall"
                )));
            }
        }
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        conn.ping().await?;
                    }
                    Ok(true)
                })
            });
        // A pooler would hand the setting on to others.
        if !self.settings.prepared_statements {
            return Ok(pool.connect_lazy_with(connect));
        }
        let pool = pool.after_connect(|conn, _| {
            Box::pin(async move {
                match conn.execute(NOTICE_GONE_CLIENTS).await {
                    // A platform on which the server cannot do this.
                    Err(sqlx::Error::Database(_)) => Ok(()),
                    done => done.map(drop),
                }
            })
        });
        Ok(pool.connect_lazy_with(connect))
    }

    fn connect_options(&self) -> PgConnectOptions {
        let connect = self.connect.clone().disable_statement_logging();
        if !self.settings.prepared_statements {
            // PgBouncer refuses startup parameters that it does not know.
            return connect.extra_float_digits(None).statement_cache_capacity(0);
        }
        // A trigger may say anything in a notice, also the values of a row, and sqlx logs notices.
        connect.statement_cache_capacity(CACHED_STATEMENTS).options([("client_min_messages", "error")])
    }

    fn problem(&self, what: &str) -> OpenError {
        OpenError::new(format!("cannot connect to postgresql at {}: {what}", server(&self.connect)))
    }

    fn open_error(&self, error: sqlx::Error) -> OpenError {
        match error {
            sqlx::Error::Io(error) => {
                let what = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => {
                        "nothing listens there; check host and port, and that the server runs".to_owned()
                    }
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                        "the server closed the link while connecting; check that it is postgresql and takes connections"
                            .to_owned()
                    }
                    // What rustls says of certificates comes as invalid data.
                    std::io::ErrorKind::InvalidData => {
                        format!("TLS failed: {error}; check sslmode, sslrootcert and the name of the host")
                    }
                    _ => format!("{error}; check host, port and network"),
                };
                OpenError { source: Some(error), ..self.problem(&what) }
            }
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default().into_owned();
                let advice = match &*code {
                    "08P01" if self.settings.prepared_statements => "behind a pooler use prepared_statements(false)",
                    "28P01" | "28000" => "check user, password and pg_hba.conf",
                    "3D000" => "check the database name, or create it",
                    "42501" => "grant the user the right to connect",
                    "53300" => "lower max_connections, or raise max_connections of the server",
                    "57P03" => "wait until the server has started",
                    _ => "see the server's log",
                };
                // No row was sent yet: the server's words can only be about user, database and parameters.
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

/// Host and port or socket, user and database, for errors.
fn server(connect: &PgConnectOptions) -> String {
    let place = match connect.get_socket() {
        Some(socket) => socket.display().to_string(),
        None if connect.get_host().starts_with('/') => connect.get_host().to_owned(),
        None => format!("{}:{}", connect.get_host(), connect.get_port()),
    };
    let (user, database) = (connect.get_username(), connect.get_database().unwrap_or(connect.get_username()));
    format!("{place} as user {user:?}, database {database:?}")
}

impl FromStr for PostgresOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        let Some((scheme, rest)) = dsn.split_once("://") else {
            return Err(OpenError::new(format!("the postgresql dsn has no scheme; {FORM}")));
        };
        if !matches!(scheme, "postgres" | "postgresql") {
            // Only a real scheme is shown: it may be the start of a password.
            let shown = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
            let scheme = if shown { format!(" {scheme:?}") } else { String::new() };
            return Err(OpenError::new(format!("a dsn with scheme{scheme} is not for postgresql; {FORM}")));
        }
        // A raw `/`, `?` or `#` in a password ends the part before the host, and its rest would be taken for
        // something that may be shown.
        if rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@')) || rest.contains('#') {
            let advice = "percent-encode / ? # and @ in user, password and parameters";
            return Err(OpenError::new(format!("the postgresql dsn has a # or a misplaced @; {advice}")));
        }
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A raw `&` in a password makes its rest a parameter of its own.
        let has_password = query.split('&').any(|pair| pair == "password" || pair.starts_with("password="));
        let (mut own, mut foreign) = (Vec::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "max_connections" | "connect_timeout" | "strategy" | "prepared_statements" => own.push((name, value)),
                _ if SQLX_PARAMETERS.contains(&name) || name == "options" || name.starts_with("options[") => {
                    foreign.push(pair);
                }
                _ => {
                    let shown = match pair.contains('=') && !has_password {
                        true => format!(" {name:?}"),
                        false => String::new(),
                    };
                    return Err(OpenError::new(format!(
                        "unknown parameter{shown} in the postgresql dsn; use those of libpq, or max_connections, \
                         connect_timeout, strategy or prepared_statements"
                    )));
                }
            }
        }
        let connect: PgConnectOptions = format!("{scheme}://{address}?{}", foreign.join("&"))
            .parse()
            .map_err(|error| OpenError::new(unparsable(&error)))?;
        check_files(&foreign)?;
        own.into_iter().try_fold(Self::from_connect_options(connect), |options, (name, value)| options.set(name, value))
    }
}

impl PostgresOptions {
    /// Sets one of the parameters that are ours.
    fn set(self, name: &str, value: &str) -> Result<Self, OpenError> {
        let wrong = |expected: &str| OpenError::new(format!("{name} in the postgresql dsn is not {expected}"));
        Ok(match name {
            "max_connections" => {
                let connections = value.parse().ok().filter(|connections| *connections > 0);
                self.max_connections(connections.ok_or_else(|| wrong("a number of at least 1"))?)
            }
            "connect_timeout" => {
                let seconds = value.parse().ok().filter(|seconds: &u32| *seconds > 0);
                let seconds = seconds.ok_or_else(|| wrong("a number of seconds of at least 1"))?;
                self.connect_timeout(Duration::from_secs(seconds.into()))
            }
            "strategy" => {
                let known = Strategy::ALL.into_iter().find(|strategy| strategy.name() == value);
                self.strategy(known.ok_or_else(|| wrong("auto, multi-values, unnest, copy or staging"))?)
            }
            _ => self.prepared_statements(value.parse().map_err(|_| wrong("true or false"))?),
        })
    }
}

/// What is wrong with a URL. The error itself may quote a value.
fn unparsable(error: &sqlx::Error) -> String {
    let shown = error.to_string();
    let part = if shown.contains("port") {
        "its port is not a number up to 65535"
    } else if shown.contains("ssl") {
        "its sslmode is not disable, allow, prefer, require, verify-ca or verify-full"
    } else {
        "it is not a URL"
    };
    format!("the postgresql dsn cannot be read: {part}; {FORM}, and percent-encode special characters of the password")
}

/// A certificate file that is not there would only be found while connecting, without its name.
fn check_files(parameters: &[&str]) -> Result<(), OpenError> {
    for pair in parameters {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let is_file =
            matches!(name, "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey" | "ssl-key");
        // An encoded path is left to the server's library to find.
        if is_file && !value.contains('%') && !Path::new(value).is_file() {
            return Err(OpenError::new(format!(
                "the file of {name} in the postgresql dsn does not exist; name a PEM file"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_from_the_dsn() {
        let dsn = "postgresql://u:p@h:1234/d?max_connections=3&sslmode=disable&connect_timeout=2&strategy=unnest\
                   &prepared_statements=false&application_name=me";
        let options: PostgresOptions = dsn.parse().unwrap();
        assert_eq!(server(&options.connect), "h:1234 as user \"u\", database \"d\"");
        assert_eq!(options.connect.get_application_name(), Some("me"));
        assert_eq!((options.max_connections, options.connect_timeout), (3, Duration::from_secs(2)));
        assert_eq!(options.settings, Settings::default().strategy(Strategy::Unnest).prepared_statements(false));
        let plain: PostgresOptions = "postgres://h/d".parse().unwrap();
        assert_eq!((plain.max_connections, plain.connect_timeout), (8, Duration::from_secs(5)));
        assert_eq!(plain.settings, Settings::default());
    }

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let message = dsn.parse::<PostgresOptions>().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
            assert!(!message.contains("secret"), "{message:?}");
        };
        check("mysql://user:secret@host/db", "scheme \"mysql\"");
        check("user:secret@host", "no scheme");
        check("a-secret://host", "is not for postgresql");
        check("postgres://user:sec/ret@host/db", "misplaced @");
        check("postgres://user:1?secret@host/db", "misplaced @");
        check("postgres://user:1#secret@host/db", "misplaced @");
        check("postgres://user:1/secret@host/db", "misplaced @");
        check("postgres://user:secret@host:port/db", "port");
        check("postgres://user:secret@host:99999/db", "port");
        check("postgres://user:secret@host/db?sslmode=secret", "verify-full");
        check("postgres://user:secret@host/db?ssl=secret", "unknown parameter \"ssl\"");
        check("postgres://user@host/db?password=top&secret", "unknown parameter in");
        check("postgres://user@host/db?password=top&secret=more", "unknown parameter in");
        check("postgres://user:top@host/db?secret", "unknown parameter in");
        check("postgres://user:secret@host/db?max_connections=0", "at least 1");
        check("postgres://user:secret@host/db?connect_timeout=-1", "number of seconds");
        check("postgres://user:secret@host/db?strategy=secret", "multi-values");
        check("postgres://user:secret@host/db?prepared_statements=secret", "true or false");
        check("postgres://user:secret@host/db?sslrootcert=/no/secret.pem", "sslrootcert");
    }

    #[test]
    fn the_password_is_not_shown() {
        let options: PostgresOptions = "postgres://user:secret@host/db".parse().unwrap();
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret") && shown.contains("user") && shown.contains("host"), "{shown}");
    }
}
