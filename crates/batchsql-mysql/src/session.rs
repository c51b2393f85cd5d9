//! Owns the names of sessions at the server, and which servers have them.
//! Must not know rows, plans or batches, nor how a session is ended.
//!
//! A connection id identifies a session only together with its server and the server's uptime: ids start again after
//! a restart, and another server has the same ids. Between restarts ids only grow, so none is used twice.
//!
//! Example: a write on connection 7 is abandoned. A second connection checks whether it reaches the same server, by
//! host, port and identity, and whether the server has run for longer than session 7 exists. Then it sends `KILL 7`
//! and checks the process list until 7 is gone. If the server has restarted since, session 7 ended with it. Data that
//! the network delivers later for an ended session reaches a closed socket.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Executor, Row};
use tokio::time::Instant;

use crate::classify::Failed;
use crate::in_use::{
    PROBE_OF_MARIADB, PROBE_OF_MYSQL, PROBE_OF_OTHERS, STATE_OF_MARIADB, STATE_OF_MYSQL, State, probe_of_states,
};

/// Tolerance between the clocks of client and server: both round, and a server may adjust its clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3);

/// A session of a server.
#[derive(Debug, Clone)]
pub(crate) struct SessionName {
    pub(crate) id: u64,
    /// `user@host` as the server sees it.
    pub(crate) user: String,
    /// The identity of the server.
    pub(crate) server: String,
    /// Uptime of the server in seconds when the name was queried.
    pub(crate) uptime: u64,
    /// The times before the query and after the answer.
    pub(crate) asked: (Instant, Instant),
}

/// The name of the current session of a pipeline connection: the driver may replace the session.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedName(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    name: Mutex<Option<SessionName>>,
    /// Bytes of the statement that was sent last.
    bytes: AtomicUsize,
}

impl SharedName {
    pub(crate) fn of(name: Option<SessionName>) -> Self {
        Self(Arc::new(Shared { name: Mutex::new(name), bytes: AtomicUsize::new(0) }))
    }

    /// Records the size of the statement that is being sent.
    pub(crate) fn sends(&self, bytes: usize) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_sent(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, name: Option<SessionName>) {
        *self.lock() = name;
    }

    pub(crate) fn get(&self) -> Option<SessionName> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<SessionName>> {
        self.0.name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection id, the user and the server: text, so that `concat!` can append a column.
macro_rules! place_of_mariadb {
    () => {
        "SELECT CONNECTION_ID(), USER(), \
         (SELECT GROUP_CONCAT(VARIABLE_VALUE ORDER BY VARIABLE_NAME SEPARATOR '|') \
         FROM information_schema.GLOBAL_VARIABLES \
         WHERE VARIABLE_NAME IN ('HOSTNAME', 'PORT', 'SERVER_ID', 'DATADIR'))"
    };
}

/// The same of MySQL.
macro_rules! place_of_mysql {
    () => {
        "SELECT CONNECTION_ID(), USER(), \
         (SELECT GROUP_CONCAT(VARIABLE_VALUE ORDER BY VARIABLE_NAME SEPARATOR '|') \
         FROM performance_schema.global_variables \
         WHERE VARIABLE_NAME IN ('hostname', 'port', 'server_uuid'))"
    };
}

/// The kind of server, for the handling of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerKind {
    MySql,
    MariaDb,
    /// `KILL` has another meaning there, or sessions are shared.
    Other,
}

impl ServerKind {
    fn of(version: &str, comment: &str) -> Self {
        const OTHERS: [&str; 9] =
            ["tidb", "vitess", "planetscale", "proxysql", "maxscale", "oceanbase", "singlestore", "doris", "starrocks"];
        let text = format!("{version} {comment}").to_lowercase();
        if OTHERS.iter().any(|other| text.contains(other)) {
            Self::Other
        } else if text.contains("mariadb") {
            Self::MariaDb
        } else {
            Self::MySql
        }
    }

    /// Returns the first three columns of [`name_query`](Self::name_query).
    fn place_query(self) -> &'static str {
        match self {
            Self::MariaDb => place_of_mariadb!(),
            _ => place_of_mysql!(),
        }
    }

    /// Returns one row: connection id, user, server, and seconds since its start. It reads tables of variables, not
    /// `@@name`, so that no proxy pins the connection to this client.
    fn name_query(self) -> &'static str {
        match self {
            Self::MariaDb => concat!(
                place_of_mariadb!(),
                ", (SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'UPTIME')"
            ),
            _ => concat!(
                place_of_mysql!(),
                ", (SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime')"
            ),
        }
    }
}

/// State of a sink about its server's sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    kind: OnceLock<ServerKind>,
    has_warned: AtomicBool,
    has_warned_in_use: AtomicBool,
    /// Whether the application has our pool, so that connections may come back with a transaction open.
    is_pool_lent: AtomicBool,
    /// The states that sessions may have, the last one first: those of sessions that have read a table, or that a pool has set
    /// up. The servers behind one address may differ.
    accepted: Mutex<Vec<State>>,
}

/// The most states that are accepted at the same time.
const MAX_ACCEPTED: usize = 8;

impl Sessions {
    /// Queries the name of a connection's session; `None` if another connection cannot end it.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn name(&self, connection: &mut MySqlConnection) -> Result<Option<SessionName>, Failed> {
        match self.ask(connection).await {
            Ok(Some(name)) => Ok(Some(name)),
            Ok(None) => {
                self.warn("this server or proxy does not end sessions as MySQL does");
                Ok(None)
            }
            Err(error @ sqlx::Error::Database(_)) => {
                let Failed { error, .. } = Failed::asked(error);
                self.warn(&format!("its name cannot be read: {error}"));
                Ok(None)
            }
            Err(error) => Err(Failed::asked(error)),
        }
    }

    async fn kind(&self, connection: &mut MySqlConnection) -> sqlx::Result<ServerKind> {
        if let Some(kind) = self.kind.get() {
            return Ok(*kind);
        }
        // A proxy answers this exact query itself.
        let comment = connection.fetch_one("select @@version_comment limit 1").await?;
        let version = connection.fetch_one("SELECT VERSION() LIMIT 1").await?;
        Ok(*self.kind.get_or_init(|| ServerKind::of(&text(&version, 0), &text(&comment, 0))))
    }

    /// Whether it is a server of MySQL or MariaDB, not one that only speaks its protocol.
    pub(crate) async fn is_known(&self, connection: &mut MySqlConnection) -> bool {
        self.kind(connection).await.is_ok_and(|kind| kind != ServerKind::Other)
    }

    /// The statement that shows what was left open on a connection, and the state that a session has which passes,
    /// if only one is accepted.
    pub(crate) async fn probe(&self, connection: &mut MySqlConnection) -> (Cow<'static, str>, Option<State>) {
        let (without, state) = match self.kind(connection).await {
            Ok(ServerKind::MySql) => (PROBE_OF_MYSQL, STATE_OF_MYSQL),
            Ok(ServerKind::MariaDb) => (PROBE_OF_MARIADB, STATE_OF_MARIADB),
            Ok(ServerKind::Other) | Err(_) => return (PROBE_OF_OTHERS.into(), None),
        };
        match &*self.accepted() {
            [] => (without.into(), None),
            [only] => (probe_of_states(state, std::slice::from_ref(only)).into(), Some(Arc::clone(only))),
            several => (probe_of_states(state, several).into(), None),
        }
    }

    /// The state of a session; `None` if the server does not show it. One round trip.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn state(&self, connection: &mut MySqlConnection) -> sqlx::Result<Option<State>> {
        let state = match self.kind(connection).await {
            Ok(ServerKind::MySql) => STATE_OF_MYSQL,
            Ok(ServerKind::MariaDb) => STATE_OF_MARIADB,
            Ok(ServerKind::Other) | Err(sqlx::Error::Database(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match connection.fetch_one(&*format!("SELECT {state} LIMIT 1")).await {
            Ok(row) => Ok(Some(text(&row, 0).into())),
            Err(sqlx::Error::Database(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn accepted(&self) -> Vec<State> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on sessions may have this state.
    pub(crate) fn accept(&self, state: Option<State>) {
        let Some(state) = state else { return };
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|known| *known != state);
        accepted.insert(0, state);
        accepted.truncate(MAX_ACCEPTED);
    }

    /// As [`name`](Self::name), in the place of a ping: without the uptime, whose query is slow. So it is not known whether a
    /// server was started just before, and no session is ended by this name.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn see(&self, connection: &mut MySqlConnection) -> sqlx::Result<Option<SessionName>> {
        let seen = async {
            let kind = self.kind(connection).await?;
            if kind == ServerKind::Other {
                return connection.ping().await.map(|()| None);
            }
            let before = Instant::now();
            let row = connection.fetch_one(kind.place_query()).await?;
            let (id, user, server) = (text(&row, 0).parse().ok(), text(&row, 1), text(&row, 2));
            let asked = (before, Instant::now());
            Ok(id.map(|id| SessionName { id, user, server, uptime: 0, asked }))
        };
        match seen.await {
            // The server has answered.
            Err(sqlx::Error::Database(_)) => Ok(None),
            seen => seen,
        }
    }

    pub(crate) async fn ask(&self, connection: &mut MySqlConnection) -> sqlx::Result<Option<SessionName>> {
        let kind = self.kind(connection).await?;
        if kind == ServerKind::Other {
            return Ok(None);
        }
        let before = Instant::now();
        let row = connection.fetch_one(kind.name_query()).await?;
        let (id, uptime) = (text(&row, 0).parse().ok(), text(&row, 3).parse().ok());
        let (user, server) = (text(&row, 1), text(&row, 2));
        Ok(id.zip(uptime).map(|(id, uptime)| SessionName { id, user, server, uptime, asked: (before, Instant::now()) }))
    }

    /// Warns once that sessions cannot be ended.
    pub(crate) fn warn(&self, why: &str) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the session of an abandoned write cannot be ended: {why}; such a write may still overwrite newer \
                 rows, unless late_write_limit says how long that is possible"
            );
        }
    }

    /// The application gets our pool.
    pub(crate) fn lend_pool(&self) {
        self.is_pool_lent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_pool_lent(&self) -> bool {
        self.is_pool_lent.load(Ordering::Relaxed)
    }

    /// Warns once about connections that the pool returns with an open transaction or other settings.
    pub(crate) fn warn_in_use(&self) {
        if !self.has_warned_in_use.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a connection came from the pool with a transaction open, or with another database or other settings (sql_mode, \
                 time_zone, character sets, checks) than other sessions of the pool, and was closed, which undoes that \
                 transaction; end transactions, and undo USE and SET, before connections go back to the pool, or give the sink \
                 its own pool"
            );
        }
    }
}

/// Whether the pool's address is that of a proxy that shares sessions between clients.
pub(crate) fn is_shared(host: &str) -> bool {
    // Amazon RDS Proxy.
    host.ends_with(".rds.amazonaws.com") && host.contains(".proxy-")
}

/// Whether the server was started after the session. Its uptime was `first` seconds when the session was named, and
/// is `uptime` seconds now, between `age.0` and `age.1` later.
///
/// A server that was started after the session has a shorter uptime than the session's age. So may a server that
/// had just started when the session was named, but its uptime has grown since.
pub(crate) fn has_restarted(first: u64, age: (Duration, Duration), uptime: u64) -> bool {
    let uptime = Duration::from_secs(uptime);
    let is_younger = uptime <= age.1 + Duration::from_secs(1);
    is_younger && Duration::from_secs(first) + age.0 > uptime + CLOCK_TOLERANCE
}

pub(crate) fn user_of(user_and_host: &str) -> &str {
    user_and_host.rsplit_once('@').map_or(user_and_host, |(user, _)| user)
}

/// Whether the entry of the process list belongs to this user; its host is followed by the port of the
/// client.
pub(crate) fn is_of(user_and_host: &str, user: &str, host: &str) -> bool {
    let (name, from) = user_and_host.rsplit_once('@').unwrap_or((user_and_host, ""));
    let port = host.strip_prefix(from);
    name == user && port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
}

/// A column of the text protocol; empty for NULL.
pub(crate) fn text(row: &MySqlRow, column: usize) -> String {
    match row.try_get_unchecked::<Option<&[u8]>, _>(column) {
        Ok(Some(value)) => String::from_utf8_lossy(value).into_owned(),
        Ok(None) | Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_from_a_server_that_runs_on() {
        let check = |first: u64, age: u64, uptime: u64, restarted: bool| {
            let age = Duration::from_secs(age);
            let result = has_restarted(first, (age, age + Duration::from_millis(300)), uptime);
            assert_eq!(result, restarted, "{first} s, {age:?} later {uptime} s");
        };
        // No restart, within the tolerance of rounding and clocks.
        check(1_000, 60, 1_060, false);
        check(1_000, 60, 1_058, false);
        check(0, 60, 60, false);
        check(0, 60, 58, false);
        check(0, 0, 0, false);
        // The server's clock was set back: its uptime exceeds the session's age, so it has not restarted.
        check(1_000, 60, 900, false);
        // The server was started after the session.
        check(1_000, 60, 10, true);
        check(1_000, 60, 60, true);
        check(1_000, 1, 1, true);
        check(5, 60, 30, true);
        // Too close to decide: the process list decides.
        check(1, 60, 59, false);
    }

    #[test]
    fn servers_that_end_sessions_in_another_way_are_known() {
        let check =
            |version: &str, comment: &str, kind| assert_eq!(ServerKind::of(version, comment), kind, "{version}");
        check("10.11.19-MariaDB-0+deb12u1", "Debian 12", ServerKind::MariaDb);
        check("8.0.36", "MySQL Community Server - GPL", ServerKind::MySql);
        check("8.0.35", "Source distribution", ServerKind::MySql);
        check("8.0.11-TiDB-v7.5.0", "TiDB Server (Apache License 2.0) Community Edition", ServerKind::Other);
        check("8.0.30-Vitess", "Version: 19.0", ServerKind::Other);
        check("8.0.36", "(ProxySQL)", ServerKind::Other);
        check("5.7.25-OceanBase-v4", "OceanBase_CE", ServerKind::Other);
        assert!(is_shared("shop.proxy-c1.eu-west-1.rds.amazonaws.com"));
        assert!(!is_shared("shop.c1.eu-west-1.rds.amazonaws.com"));
    }

    #[test]
    fn the_process_list_shows_whose_a_session_is() {
        let check = |own: &str, user: &str, host: &str, same| assert_eq!(is_of(own, user, host), same, "{own} {host}");
        check("app@127.0.0.1", "app", "127.0.0.1:59770", true);
        check("app@::1", "app", "::1:59770", true);
        check("app@localhost", "app", "localhost", true);
        check("a@b@10.0.0.1", "a@b", "10.0.0.1:5", true);
        check("app@10.0.0.1", "app", "10.0.0.12:5", false);
        check("app@10.0.0.1", "other", "10.0.0.1:5", false);
    }
}
