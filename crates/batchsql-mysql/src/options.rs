//! Owns how a server is reached: DSN, settings, the session of every connection, and errors without passwords.
//! Must not know rows or statements.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{CachedPassword, PasswordProvider};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, MySqlPool};

use crate::in_use::{Left, left_open};
use crate::session::Sessions;

/// How [`Conflict::Ignore`](batchsql_core::Conflict::Ignore) is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IgnoreWith {
    /// A plain insert; rows are ignored only where a unique index has their key already. Every other mistake of a
    /// row is still an error of that row.
    #[default]
    Exact,
    /// MySQL's `INSERT IGNORE`. It **also hides** NULL in a column that takes none, text that is cut off, numbers
    /// that are clipped, and rows whose foreign key is missing: such a row ends as `Written` or `Ignored`,
    /// whichever the server made of it.
    InsertIgnore,
}

/// How [`Conflict::Replace`](batchsql_core::Conflict::Replace) is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReplaceWith {
    /// `INSERT … ON DUPLICATE KEY UPDATE` of every column that the row carries.
    #[default]
    Update,
    /// MySQL's `REPLACE INTO`, which **deletes** the old row and inserts the new one: `ON DELETE CASCADE` deletes
    /// what hangs on the old row, delete triggers fire, and columns that the row does not carry fall back to
    /// their defaults. A write whose answer is lost is repeated, and then does all this again, also to what was put
    /// beside the row meanwhile.
    ReplaceInto,
}

/// What is done about a write that was given up after it was sent, before the next write of rows with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AbandonedWrites {
    /// Its session is ended with `KILL`, from a connection of its own, and the next write waits until it is gone.
    #[default]
    Kill,
    /// Nothing is killed; the next write waits for [`MySqlOptions::late_write_limit`]. For proxies that share the
    /// sessions of the server between their clients, or route each statement by itself: there the connection id names
    /// a session that others use too.
    Wait,
}

/// Where and how to connect.
///
/// As a DSN: `mysql://user:password@host:3306/database` (or `mariadb://`), with the parameters of `sqlx`
/// (`ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key`, `collation`, `socket`, `statement-cache-capacity`) and these. `charset`
/// and `timezone` take only what is set anyway, utf8mb4 and UTC. `ssl-ca` needs a mode that checks certificates. With
/// `socket`, host and port are not used. Each parameter may stand once. Without `ssl-mode` the link is encrypted where the server offers it, and no certificate is
/// checked.
///
/// | parameter | values | default |
/// |---|---|---|
/// | `max_connections` | connections, at least 1 | 8 |
/// | `connect_timeout` | seconds for one connection attempt, above 0, decimals allowed (`0.5`) | 5 |
/// | `ignore_with` | `exact`, `insert_ignore` | `exact` |
/// | `replace_with` | `update`, `replace_into` | `update` |
/// | `abandoned_writes` | `kill`, `wait` | `kill` |
/// | `late_write_limit` | seconds, above 0 | not known |
///
/// ```
/// use batchsql_mysql::MySqlOptions;
/// let options: MySqlOptions = "mysql://app:secret@db.example/shop?ssl-mode=VERIFY_IDENTITY&max_connections=4".parse()?;
/// assert!(!format!("{options:?}").contains("secret"));
/// assert!("postgres://app:secret@db.example/shop".parse::<MySqlOptions>().is_err());
/// # Ok::<(), batchsql_mysql::OpenError>(())
/// ```
#[derive(Clone)]
pub struct MySqlOptions {
    connect: MySqlConnectOptions,
    max_connections: u32,
    connect_timeout: Duration,
    pub(crate) ignore_with: IgnoreWith,
    pub(crate) replace_with: ReplaceWith,
    pub(crate) abandoned_writes: AbandonedWrites,
    pub(crate) late_write_limit: Option<Duration>,
    pub(crate) password: Option<CachedPassword>,
}

/// The sink could not be opened. Its text never holds a password.
#[derive(Debug)]
pub struct OpenError {
    problem: String,
}

impl OpenError {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into() }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for OpenError {}

/// Shows where to, never the password.
impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions")
            .field("server", &self.server())
            .field("user", &self.connect.get_username())
            .field("ssl_mode", &self.connect.get_ssl_mode())
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("ignore_with", &self.ignore_with)
            .field("replace_with", &self.replace_with)
            .field("abandoned_writes", &self.abandoned_writes)
            .field("late_write_limit", &self.late_write_limit)
            .finish_non_exhaustive()
    }
}

/// What every connection of our own pool starts with, after what `sqlx` sets (`utf8mb4`, `time_zone '+00:00'`):
/// strict, so that nothing is cut off silently; a 0 is a 0 in an AUTO_INCREMENT column too; each statement is a
/// transaction of its own; and a lock is waited for shorter than the usual `statement_timeout` of 30 s. A write that is
/// given up would go on waiting at the server, for up to a day, and its retries beside it.
const SESSION: &str = "SET sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'), autocommit = 1, \
                       innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, 20), \
                       lock_wait_timeout = LEAST(@@lock_wait_timeout, 20)";

/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);

impl MySqlOptions {
    /// Settings around the connect options of `sqlx`, for what a DSN cannot say.
    pub fn from_connect_options(connect: MySqlConnectOptions) -> Self {
        Self {
            // Its log of slow statements would repeat thousands of placeholders.
            connect: connect.disable_statement_logging(),
            max_connections: 8,
            connect_timeout: Duration::from_secs(5),
            ignore_with: IgnoreWith::default(),
            replace_with: ReplaceWith::default(),
            abandoned_writes: AbandonedWrites::default(),
            late_write_limit: None,
            password: None,
        }
    }

    /// The most connections that are opened, and so the most batches that are written at once; default 8, at
    /// least 1.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long one attempt to get a connection may take; default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
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

    /// How long a write that was given up may still take effect where its session cannot be ended: the time for which
    /// the system sends again what was not acknowledged (Linux: about 15 minutes, `net.ipv4.tcp_retries2`), and the
    /// longest time of a statement at the server, with its waits for locks. A lane with an order waits so long before
    /// its next write. Default: not known; then the lane goes on at once, and the order of its rows is not promised
    /// after such a write.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.late_write_limit = Some(limit);
        self
    }

    /// Asks for the password of new connections, for example a token of a cloud's identity service; the one of the DSN is
    /// not used then. It is asked for when a connection is opened and the last password is no longer valid, and once more
    /// when the server refuses it. Open connections stay.
    ///
    /// Tokens of AWS need `enable_cleartext_plugin` of [`MySqlConnectOptions`] and TLS.
    ///
    /// ```
    /// use batchsql_core::Password;
    /// use batchsql_mysql::MySqlOptions;
    /// # async fn token() -> Result<String, std::io::Error> { Ok("token".to_owned()) }
    /// let options: MySqlOptions = "mysql://app@db.example/shop?ssl-mode=REQUIRED".parse()?;
    /// let minutes = std::time::Duration::from_secs(14 * 60);
    /// let options = options.password_provider(move || async move { Ok(Password::new(token().await?).valid_for(minutes)) });
    /// # Ok::<(), batchsql_mysql::OpenError>(())
    /// ```
    #[must_use]
    pub fn password_provider(mut self, provider: impl PasswordProvider) -> Self {
        self.password = Some(CachedPassword::new(provider));
        self
    }

    /// Opens one connection, and closes it, to know that it can be done.
    pub(crate) async fn try_to_connect(&self) -> Result<(), OpenError> {
        let mut connect = self.connect.clone();
        if let Some(password) = &self.password {
            let given = tokio::time::timeout(self.connect_timeout, password.get()).await;
            match given {
                Ok(Ok((text, _))) => connect = connect.password(&text),
                _ => {
                    return Err(OpenError::new(
                        "the password provider gave no password; look at the service that it asks",
                    ));
                }
            }
        }
        let first = async {
            let mut connection = connect.connect().await?;
            connection.execute(SESSION).await?;
            connection.close().await
        };
        match tokio::time::timeout(self.connect_timeout, first).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.open_error(&error)),
            Err(_) => {
                let (server, timeout) = (self.server(), self.connect_timeout);
                let problem = format!("{server} did not answer within {timeout:?}; check host, port and firewall");
                Err(OpenError::new(problem))
            }
        }
    }

    /// The pool, which connects when it is first needed.
    pub(crate) fn pool(&self, sessions: Arc<Sessions>) -> MySqlPool {
        MySqlPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > PING_AFTER_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            // Off the way of any batch: the pool asks when a connection comes back.
            .after_release(move |connection, _| {
                let sessions = Arc::clone(&sessions);
                Box::pin(async move {
                    let has_variables = !sessions.is_shared(connection).await;
                    let is_in_use = left_open(connection, has_variables).await? != Left::Nothing;
                    if is_in_use {
                        sessions.warn_in_use();
                    }
                    Ok(!is_in_use)
                })
            })
            .after_connect(|connection: &mut MySqlConnection, _| {
                Box::pin(async move { connection.execute(SESSION).await.map(drop) })
            })
            .connect_lazy_with(self.connect.clone())
    }

    /// Host, port and database, for errors.
    fn server(&self) -> String {
        let database = self.connect.get_database().map(|name| format!(", database {name:?}")).unwrap_or_default();
        match self.connect.get_socket() {
            Some(socket) => format!("mysql server at socket {}{database}", socket.display()),
            None => format!("mysql server {}:{}{database}", self.connect.get_host(), self.connect.get_port()),
        }
    }

    fn open_error(&self, error: &sqlx::Error) -> OpenError {
        let server = self.server();
        let problem = match error {
            sqlx::Error::Database(error) => {
                let code = crate::classify::number(error.as_ref());
                let advice = match code {
                    1045 | 1698 => "check user and password",
                    1044 => "grant the user a right on the database",
                    1049 => "create the database or name another one",
                    1040 | 1203 | 1226 => "wait, or raise the limit of connections",
                    1129 | 1130 => "allow this host to connect",
                    _ => "check the server and the dsn",
                };
                format!("{server} refused the connection: {}; {advice}", crate::words::asked(code, error.message()))
            }
            // Where the certificate is not trusted.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                format!("cannot connect to {server}: no TLS connection ({error}); check ssl-mode and ssl-ca")
            }
            sqlx::Error::Io(error) => {
                format!("cannot connect to {server}: {error}; check that it runs and that host and port are right")
            }
            sqlx::Error::Tls(error) => {
                format!("cannot connect to {server}: no TLS connection ({error}); check ssl-mode and ssl-ca")
            }
            sqlx::Error::Configuration(_) => {
                format!(
                    "cannot connect to {server}: a parameter of the dsn has an unknown value; check charset and collation"
                )
            }
            // Its text says what was unexpected about the bytes of the handshake, which hold no password.
            _ => format!("cannot connect to {server}: it does not speak the mysql protocol; check host and port"),
        };
        OpenError::new(problem)
    }
}

/// The parameters that `sqlx` knows, and their usual spelling; it ignores others silently, which hides mistakes.
const KNOWN_TO_SQLX: [(&str, &str); 14] = [
    ("sslmode", "ssl-mode"),
    ("ssl-mode", "ssl-mode"),
    ("sslca", "ssl-ca"),
    ("ssl-ca", "ssl-ca"),
    ("sslcert", "ssl-cert"),
    ("ssl-cert", "ssl-cert"),
    ("sslkey", "ssl-key"),
    ("ssl-key", "ssl-key"),
    ("charset", "charset"),
    ("collation", "collation"),
    ("statement-cache-capacity", "statement-cache-capacity"),
    ("socket", "socket"),
    ("timezone", "timezone"),
    ("time-zone", "timezone"),
];

/// Refuses values with which no row could be written, or which `sqlx` takes and does not use.
fn check_passed_on(name: &str, value: &str) -> Result<(), OpenError> {
    let is_refused = match name {
        "charset" => !value.eq_ignore_ascii_case("utf8mb4"),
        "statement-cache-capacity" => value == "0",
        "timezone" => !matches!(
            value.replace("%2B", "+").replace("%2b", "+").replace("%3A", ":").as_str(),
            "+00:00" | "-00:00" | "UTC"
        ),
        _ => false,
    };
    let problem = match name {
        _ if !is_refused => return Ok(()),
        "charset" => "charset in the mysql dsn must be utf8mb4, or text would be changed; leave it out",
        "timezone" => {
            "timezone in the mysql dsn must be UTC (+00:00), because timestamptz values are sent in UTC; leave it out"
        }
        _ => "statement-cache-capacity in the mysql dsn must not be 0, or every batch is prepared twice; leave it out",
    };
    Err(OpenError::new(problem))
}

/// Refuses files of TLS that would not be used.
fn check_certificates(connect: &MySqlConnectOptions, given: &[&str]) -> Result<(), OpenError> {
    use sqlx::mysql::MySqlSslMode as Mode;
    let mode = connect.get_ssl_mode();
    let problem = match mode {
        Mode::VerifyCa | Mode::VerifyIdentity => return Ok(()),
        _ if given.contains(&"ssl-ca") => {
            "ssl-ca in the mysql dsn is used only with ssl-mode=VERIFY_CA or VERIFY_IDENTITY; give one of these, or leave ssl-ca out"
        }
        Mode::Disabled if given.iter().any(|name| matches!(*name, "ssl-cert" | "ssl-key")) => {
            "ssl-cert and ssl-key in the mysql dsn are not used with ssl-mode=DISABLED; give another mode, or leave them out"
        }
        _ => return Ok(()),
    };
    Err(OpenError::new(problem))
}

/// Whether it is a parameter of ours.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "max_connections"
            | "connect_timeout"
            | "ignore_with"
            | "replace_with"
            | "abandoned_writes"
            | "late_write_limit"
    )
}

impl FromStr for MySqlOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        const FORM: &str = "use mysql://user:password@host:3306/database";
        let Some(rest) = dsn.strip_prefix("mysql://").or_else(|| dsn.strip_prefix("mariadb://")) else {
            // Only the scheme is shown: the rest may hold a password.
            let problem = match dsn.split_once("://") {
                Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
                    format!("a dsn with scheme {scheme:?} is not for mysql; {FORM}")
                }
                _ => format!("the mysql dsn has no scheme; {FORM}"),
            };
            return Err(OpenError::new(problem));
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password with one of these, as it is, would be taken for a host or a parameter, and be shown.
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        if rest.contains('#') || query.contains('@') || path.contains('@') || host.matches('@').count() > 1 {
            let problem = "the mysql dsn has a character in user, password or database that must be percent-encoded: write # as %23, / as %2F, ? as %3F, @ as %40";
            return Err(OpenError::new(problem));
        }
        let mut own = Vec::new();
        let mut passed_on = Vec::new();
        let mut given: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = KNOWN_TO_SQLX.iter().find(|(spelled, _)| *spelled == name) else {
                own.push((name, value));
                continue;
            };
            check_passed_on(known.1, value)?;
            if given.contains(&known.1) {
                return Err(OpenError::new(format!("{} stands twice in the mysql dsn; give it once", known.1)));
            }
            given.push(known.1);
            passed_on.push(pair);
        }
        let url = format!("mysql://{address}?{}", passed_on.join("&"));
        // The reason may quote the value of any part, so it is not shown.
        let connect = url.parse::<MySqlConnectOptions>().map_err(|_| {
            let problem = format!("the mysql dsn is not a URL, or one of its parameters has a value that makes no sense; {FORM}, with special characters percent-encoded");
            OpenError::new(problem)
        })?;
        let mut options = Self::from_connect_options(connect);
        check_certificates(&options.connect, &given)?;
        for (place, (name, value)) in own.iter().copied().enumerate() {
            if own[..place].iter().any(|(other, _)| *other == name) && is_own(name) {
                return Err(OpenError::new(format!("{name} stands twice in the mysql dsn; give it once")));
            }
            if !options.set(name, value)? {
                // What stands before a host that is missing may be a password, and so may what is not `name=value`.
                let is_name = host.contains('@') && query.contains(&format!("{name}="));
                let shown = if is_name { format!(" {name:?}") } else { String::new() };
                let known = KNOWN_TO_SQLX.map(|(spelled, _)| spelled).join(", ");
                return Err(OpenError::new(format!(
                    "unknown parameter{shown} in the mysql dsn; use max_connections, connect_timeout, ignore_with, replace_with, abandoned_writes, late_write_limit, or one of sqlx: {known}"
                )));
            }
        }
        Ok(options)
    }
}

impl MySqlOptions {
    /// Sets one of our own parameters; false where there is none of this name.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, OpenError> {
        let positive = || value.parse::<u32>().ok().filter(|number| *number > 0);
        match name {
            "max_connections" => {
                let problem = "max_connections in the mysql dsn is not a number of connections from 1 on";
                self.max_connections = positive().ok_or_else(|| OpenError::new(problem))?;
            }
            "connect_timeout" => {
                let problem = "connect_timeout in the mysql dsn is not a number of seconds above 0";
                self.connect_timeout = seconds(value).ok_or_else(|| OpenError::new(problem))?;
            }
            "connect_timeout_ms" => {
                let advice = "use connect_timeout, in seconds (0.5 is 500 ms)";
                return Err(OpenError::new(format!(
                    "unknown parameter \"connect_timeout_ms\" in the mysql dsn; {advice}"
                )));
            }
            "ignore_with" => {
                self.ignore_with = match value {
                    "exact" => IgnoreWith::Exact,
                    "insert_ignore" => IgnoreWith::InsertIgnore,
                    _ => {
                        return Err(OpenError::new("unknown ignore_with in the mysql dsn; use exact or insert_ignore"));
                    }
                };
            }
            "replace_with" => {
                self.replace_with = match value {
                    "update" => ReplaceWith::Update,
                    "replace_into" => ReplaceWith::ReplaceInto,
                    _ => {
                        return Err(OpenError::new(
                            "unknown replace_with in the mysql dsn; use update or replace_into",
                        ));
                    }
                };
            }
            "abandoned_writes" => {
                self.abandoned_writes = match value {
                    "kill" => AbandonedWrites::Kill,
                    "wait" => AbandonedWrites::Wait,
                    _ => {
                        return Err(OpenError::new("unknown abandoned_writes in the mysql dsn; use kill or wait"));
                    }
                };
            }
            "late_write_limit" => {
                let problem = "late_write_limit in the mysql dsn is not a number of seconds above 0";
                self.late_write_limit = Some(seconds(value).ok_or_else(|| OpenError::new(problem))?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A time in seconds, above 0 and at most 136 years; decimals are allowed.
fn seconds(value: &str) -> Option<Duration> {
    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds <= f64::from(u32::MAX))?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsns_carry_every_setting() {
        let options: MySqlOptions = "mariadb://a:b@h:3307/d?max_connections=3&connect_timeout=0.25&ignore_with=insert_ignore&replace_with=replace_into&ssl-mode=DISABLED"
            .parse()
            .unwrap();
        assert_eq!((options.max_connections, options.connect_timeout), (3, Duration::from_millis(250)));
        assert_eq!(options.ignore_with, IgnoreWith::InsertIgnore);
        assert_eq!(options.replace_with, ReplaceWith::ReplaceInto);
        assert_eq!(options.server(), "mysql server h:3307, database \"d\"");
        let options: MySqlOptions = "mysql://h?abandoned_writes=wait&late_write_limit=900".parse().unwrap();
        assert_eq!(options.abandoned_writes, AbandonedWrites::Wait);
        assert_eq!(options.late_write_limit, Some(Duration::from_secs(900)));
        let options: MySqlOptions = "mysql://h".parse().unwrap();
        assert_eq!((options.max_connections, options.connect_timeout), (8, Duration::from_secs(5)));
        assert_eq!((options.ignore_with, options.replace_with), (IgnoreWith::Exact, ReplaceWith::Update));
        let url =
            "mysql://h/d?charset=utf8mb4&time-zone=UTC&ssl-mode=VERIFY_CA&ssl-ca=/ca.pem&statement-cache-capacity=7";
        assert!(url.parse::<MySqlOptions>().is_ok());
        let options: MySqlOptions = "mysql://h/d?socket=/run/x.sock".parse().unwrap();
        assert_eq!(options.server(), "mysql server at socket /run/x.sock, database \"d\"");
    }

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let error = dsn.parse::<MySqlOptions>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(part), "{shown:?} does not contain {part:?}");
            assert!(!shown.contains("secret"), "{shown:?}");
        };
        check("postgres://user:secret@host/db", "scheme \"postgres\"");
        check("user:secret@host", "no scheme");
        check("secret", "no scheme");
        check("mysql://user:12#secret@host/db", "percent-encoded");
        check("mysql://user:12?secret@host/db", "percent-encoded");
        check("mysql://user:x@secret@host/db", "percent-encoded");
        check("mysql://user:se/secret@host/db", "percent-encoded");
        check("mysql://user:12/secret@host/db", "percent-encoded");
        check("mysql://user:12?secret", "unknown parameter in");
        check("mysql://user:12?secret=1", "unknown parameter in");
        check("mysql://user:x@host/db?secret", "unknown parameter in");
        check("mysql://user:secret@host:port/db", "not a URL");
        check("mysql://user:secret@host/db?ssl-mode=secret", "makes no sense");
        check("mysql://user:secret@host/db?timeout=3", "unknown parameter \"timeout\"");
        check("mysql://user:secret@host/db?max_connections=0", "from 1 on");
        check("mysql://user:secret@host/db?connect_timeout=0", "seconds above 0");
        check("mysql://user:secret@host/db?connect_timeout=inf", "seconds above 0");
        check("mysql://user:secret@host/db?connect_timeout_ms=5", "use connect_timeout, in seconds");
        check("mysql://user:secret@host/db?ignore_with=secret", "exact or insert_ignore");
        check("mysql://user:secret@host/db?replace_with=secret", "update or replace_into");
        check("mysql://user:secret@host/db?abandoned_writes=secret", "kill or wait");
        check("mysql://user:secret@host/db?late_write_limit=0", "seconds above 0");
        // What sqlx would take and not use, or what no row could be written with.
        check("mysql://user:secret@host/db?charset=latin1", "must be utf8mb4");
        check("mysql://user:secret@host/db?timezone=%2B02:00", "must be UTC");
        check("mysql://user:secret@host/db?statement-cache-capacity=0", "must not be 0");
        check("mysql://user:secret@host/db?ssl-ca=/ca.pem", "used only with ssl-mode=VERIFY_CA");
        check("mysql://user:secret@host/db?ssl-mode=DISABLED&ssl-cert=/c.pem", "not used with ssl-mode=DISABLED");
        check("mysql://user:secret@host/db?ssl-mode=REQUIRED&sslmode=DISABLED", "ssl-mode stands twice");
        check("mysql://user:secret@host/db?max_connections=2&max_connections=3", "max_connections stands twice");
    }

    #[test]
    fn debug_shows_no_password() {
        let options: MySqlOptions = "mysql://user:secret@host/db".parse().unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("host:3306") && !shown.contains("secret"), "{shown}");
    }
}
