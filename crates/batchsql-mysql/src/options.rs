//! Owns the connection settings, the session of every connection, and errors without passwords.
//! Must not know rows or statements.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batchsql_core::{AbandonedWrites, CachedPassword, IdleDoubt, OpenError, PasswordProvider};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, MySqlPool};

use crate::catalog::variables;
use crate::in_use::{Left, left_open};
use crate::learned::Learned;
use crate::seen;
use crate::session::{Sessions, is_shared};
use crate::session_names::SessionNames;
use crate::set_up::{NAMES, Wanted, missing, packet_limit};
use crate::settings::{IgnoreWith, ReplaceWith, Settings, ValuesInText};

/// Connection settings.
///
/// As a DSN: `mysql://user:password@host:3306/database` (or `mariadb://`), with the parameters of `sqlx` (`ssl-mode`,
/// `ssl-ca`, `ssl-cert`, `ssl-key`, `collation`, `socket`, `statement-cache-capacity`) and these. `charset` and
/// `timezone` accept only the values that are set anyway, utf8mb4 and UTC. `ssl-ca` needs a mode that checks
/// certificates. With `socket`, host and port are not used. Each parameter may be given once. Without `ssl-mode` the
/// connection is encrypted if the server offers it, and no certificate is checked.
///
/// | parameter | values | default |
/// |---|---|---|
/// | `max_connections` | connections, at least 1 | 8 |
/// | `connect_timeout` | a duration above 0: the time for one connection attempt | `5s` |
/// | `ignore_with` | `exact`, `insert_ignore` | `exact` |
/// | `replace_with` | `update`, `replace_into` | `update` |
/// | `abandoned_writes` | `kill`, `wait` | `kill` |
/// | `late_write_limit` | a duration | not known |
/// | `values_in_text` | `auto`, `never`, `always` | `auto` |
///
/// Durations have a unit: `500ms`, `5s`, `2min`, `1h`; without one they are in seconds.
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
    pub(crate) connect: MySqlConnectOptions,
    pub(crate) max_connections: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) password: Option<CachedPassword>,
    /// The settings of its sessions.
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) settings: Settings,
}

/// Shows the address, never the password.
impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions")
            .field("server", &self.server())
            .field("user", &self.connect.get_username())
            .field("ssl_mode", &self.connect.get_ssl_mode())
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Sets up a new connection, and notes its packet limit and the round trip.
async fn set_up(connection: &mut MySqlConnection, wanted: &Wanted, learned: &Learned) -> sqlx::Result<()> {
    let found = variables(connection, &NAMES).await?;
    if let Some(set) = missing(&found, wanted) {
        connection.execute(&*set).await?;
    }
    // Its answer costs the server nothing, unlike that to SHOW.
    let before = Instant::now();
    connection.ping().await?;
    learned.note(packet_limit(&found), before.elapsed());
    Ok(())
}

/// Asks for the name of a connection's session, in the place of a ping.
async fn see(connection: &mut MySqlConnection, sessions: &Sessions, names: &SessionNames) -> sqlx::Result<()> {
    let name = match sessions.see(connection).await? {
        Some(name) => names.keep(connection, name).await?,
        None => None,
    };
    seen::set(name);
    Ok(())
}

/// A connection that was idle for longer is pinged before it is used.
const PING_AFTER_IDLE: Duration = Duration::from_millis(100);

impl MySqlOptions {
    /// Settings around the connect options of `sqlx`, for options that a DSN cannot express.
    pub fn from_connect_options(connect: MySqlConnectOptions) -> Self {
        Self {
            // The log of slow statements would contain thousands of placeholders.
            connect: connect.disable_statement_logging(),
            max_connections: 8,
            connect_timeout: Duration::from_secs(5),
            password: None,
            wanted: Arc::new(Wanted { leaves_rest_to_sqlx: true, collation: None }),
            settings: Settings::default(),
        }
    }

    /// The maximum number of connections, and so of concurrent batches; default 8, at least 1.
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

    /// How `Conflict::ignore` is written, see [`Settings::ignore_with`]; default [`IgnoreWith::Exact`].
    #[must_use]
    pub fn ignore_with(mut self, way: IgnoreWith) -> Self {
        self.settings = self.settings.ignore_with(way);
        self
    }

    /// How `Conflict::replace` is written, see [`Settings::replace_with`]; default [`ReplaceWith::Update`].
    #[must_use]
    pub fn replace_with(mut self, way: ReplaceWith) -> Self {
        self.settings = self.settings.replace_with(way);
        self
    }

    /// How an insert sends its values, see [`Settings::values_in_text`]; default [`ValuesInText::Auto`].
    #[must_use]
    pub fn values_in_text(mut self, when: ValuesInText) -> Self {
        self.settings = self.settings.values_in_text(when);
        self
    }

    /// What happens to an abandoned write, see [`Settings::abandoned_writes`]; default [`AbandonedWrites::Kill`].
    #[must_use]
    pub fn abandoned_writes(mut self, way: AbandonedWrites) -> Self {
        self.settings = self.settings.abandoned_writes(way);
        self
    }

    /// How long an abandoned write may still take effect if its session cannot be ended, see
    /// [`Settings::late_write_limit`]; default: not known.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.settings = self.settings.late_write_limit(limit);
        self
    }

    /// Interval after which the definition of a table is read again, see [`Settings::table_check_interval`]; default
    /// 60 s.
    #[must_use]
    pub fn table_check_interval(mut self, interval: Duration) -> Self {
        self.settings = self.settings.table_check_interval(interval);
        self
    }

    /// Sets the provider of the password for new connections, for example a token of a cloud identity service; the
    /// password of the DSN is then not used. The provider is called when a connection is opened and the last password
    /// is no longer valid, and once more if the server rejects it. Open connections stay open.
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

    /// Opens and closes one connection to verify the settings.
    pub(crate) async fn try_to_connect(&self, learned: &Learned) -> Result<(), OpenError> {
        let mut connect = self.connect.clone();
        if let Some(password) = &self.password {
            let given = tokio::time::timeout(self.connect_timeout, password.get()).await;
            match given {
                Ok(Ok((text, _))) => connect = connect.password(&text),
                _ => {
                    return Err(OpenError::new(
                        "the password provider gave no password; check the service that it calls",
                    ));
                }
            }
        }
        let first = async {
            let mut connection = connect.connect().await?;
            set_up(&mut connection, &self.wanted, learned).await?;
            connection.close().await
        };
        match tokio::time::timeout(self.connect_timeout, first).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.open_error(error)),
            Err(_) => {
                let (server, timeout) = (self.server(), self.connect_timeout);
                let problem = format!("{server} did not answer within {timeout:?}; check host, port and firewall");
                Err(OpenError::new(problem))
            }
        }
    }

    /// The pool, which connects on first use.
    pub(crate) fn pool(&self, sessions: Arc<Sessions>, learned: Arc<Learned>, doubt: IdleDoubt) -> MySqlPool {
        let sees = self.settings.abandoned_writes != AbandonedWrites::Wait && !is_shared(self.connect.get_host());
        let (to_see, at_first) = (Arc::clone(&sessions), Arc::clone(&sessions));
        let wanted = Arc::clone(&self.wanted);
        let names = Arc::new(SessionNames::of(self.max_connections));
        let in_use = Arc::clone(&names);
        MySqlPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.connect_timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let (doubt, sessions, names) = (doubt.clone(), Arc::clone(&to_see), Arc::clone(&in_use));
                Box::pin(async move {
                    seen::set(None);
                    if meta.idle_for > PING_AFTER_IDLE {
                        let check = doubt.check();
                        match sees {
                            true => see(connection, &sessions, &names).await?,
                            false => connection.ping().await?,
                        }
                        check.passed();
                    } else if sees {
                        seen::set(names.find(connection).await?);
                    }
                    Ok(true)
                })
            })
            // Outside the path of batches: the pool checks when a connection is returned.
            .after_release(move |connection, _| {
                let sessions = Arc::clone(&sessions);
                Box::pin(async move {
                    // The sink itself closes a connection on which something may be open.
                    if !sessions.is_pool_lent() {
                        return Ok(true);
                    }
                    let (probe, _) = sessions.probe(connection).await;
                    let is_in_use = left_open(connection, probe).await? != Left::Nothing;
                    if is_in_use {
                        sessions.warn_in_use();
                    }
                    Ok(!is_in_use)
                })
            })
            .after_connect(move |connection: &mut MySqlConnection, _| {
                let (wanted, learned, sessions) = (Arc::clone(&wanted), Arc::clone(&learned), Arc::clone(&at_first));
                let names = Arc::clone(&names);
                Box::pin(async move {
                    seen::set(None);
                    set_up(connection, &wanted, &learned).await?;
                    // The server's own settings may have changed since.
                    if sessions.is_pool_lent() || sessions.accepted().is_empty() {
                        sessions.accept(sessions.state(connection).await?);
                    }
                    if sees { see(connection, &sessions, &names).await } else { Ok(()) }
                })
            })
            .connect_lazy_with(self.connect.clone())
    }

    /// Host, port and database, for errors.
    pub(crate) fn server(&self) -> String {
        server(&self.connect)
    }

    fn open_error(&self, error: sqlx::Error) -> OpenError {
        let server = self.server();
        let problem = match &error {
            sqlx::Error::Database(error) => {
                let code = crate::classify::number(error.as_ref());
                let advice = match code {
                    1045 | 1698 => "check user and password",
                    1044 => "grant the user a right on the database",
                    1049 => "create the database or name another one",
                    1040 | 1203 | 1226 => "wait, or raise the connection limit",
                    1129 | 1130 => "allow this host to connect",
                    _ => "check the server and the dsn",
                };
                format!("{server} refused the connection: {}; {advice}", crate::words::asked(code, error.message()))
            }
            // The certificate is not trusted.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                format!("cannot connect to {server}: no TLS connection ({error}); check ssl-mode and ssl-ca")
            }
            sqlx::Error::Io(error) => {
                format!("cannot connect to {server}: {error}; check that it runs, and check host and port")
            }
            sqlx::Error::Tls(error) => {
                format!("cannot connect to {server}: no TLS connection ({error}); check ssl-mode and ssl-ca")
            }
            sqlx::Error::Configuration(_) => {
                format!(
                    "cannot connect to {server}: a parameter of the dsn has an unknown value; check charset and collation"
                )
            }
            // Its text describes the unexpected bytes of the handshake, which contain no password.
            _ => format!("cannot connect to {server}: it does not speak the mysql protocol; check host and port"),
        };
        match error {
            sqlx::Error::Configuration(_) => OpenError::invalid_options(problem),
            sqlx::Error::Io(error) => OpenError::new(problem).caused_by(error),
            _ => OpenError::new(problem),
        }
    }
}

/// Host, port and database, for errors.
pub(crate) fn server(connect: &MySqlConnectOptions) -> String {
    let database = connect.get_database().map(|name| format!(", database {name:?}")).unwrap_or_default();
    match connect.get_socket() {
        Some(socket) => format!("mysql server at socket {}{database}", socket.display()),
        None => format!("mysql server {}:{}{database}", connect.get_host(), connect.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let options: MySqlOptions = "mysql://user:secret@host/db".parse().unwrap();
        let shown = format!("{options:?}");
        assert!(shown.contains("host:3306") && !shown.contains("secret"), "{shown}");
    }
}
