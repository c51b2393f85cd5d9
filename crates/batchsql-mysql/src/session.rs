//! Owns the names of sessions at the server, and which servers have them.
//! Must not know rows, plans or batches, nor how a session is ended.
//!
//! A connection id names a session only together with its server and the time for which the server has run: ids begin
//! anew when it restarts, and another server has the same ids. Within one run ids only grow, so none is used twice.
//!
//! Example: a write on connection 7 is given up. From another connection: is it the same server, by host, port and
//! identity? Has it run for longer than session 7 exists? Then `KILL 7`, and again a look at the process list until 7 is
//! gone. When the server has restarted since, session 7 went with it. What the network delivers later for a session
//! that is gone finds a closed socket.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};
use tokio::time::Instant;

use crate::classify::Failed;

/// How far the times of client and server may be apart: both round, and a server may set its clock.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3);

/// A session of a server.
#[derive(Debug, Clone)]
pub(crate) struct SessionName {
    pub(crate) id: u64,
    /// `user@host` as the server sees it.
    pub(crate) user: String,
    /// Which server it is.
    pub(crate) server: String,
    /// Seconds for which the server had run when the name was asked for.
    pub(crate) uptime: u64,
    /// Before it was asked for, and after the answer.
    pub(crate) asked: (Instant, Instant),
}

/// The name of the session that a connection of the pipeline has now: its driver may replace the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedName(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    name: Mutex<Option<SessionName>>,
    /// Bytes of the statement that was sent last.
    bytes: AtomicUsize,
}

impl SharedName {
    /// Notes the size of the statement that is sent now.
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

/// What a server is, as far as sessions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerKind {
    MySql,
    MariaDb,
    /// `KILL` means something else there, or sessions are shared.
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

    /// One row: connection id, user, server, and seconds since its start. Nothing is set, so that no proxy pins the
    /// connection to this client.
    fn name_query(self) -> &'static str {
        match self {
            Self::MariaDb => {
                "SELECT CONNECTION_ID(), USER(), CONCAT_WS('|', @@hostname, @@port, @@server_id, @@datadir), \
                 (SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'UPTIME')"
            }
            _ => {
                "SELECT CONNECTION_ID(), USER(), CONCAT_WS('|', @@hostname, @@port, @@server_uuid), \
                 (SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime')"
            }
        }
    }
}

/// What a sink knows about its server's sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    kind: OnceLock<ServerKind>,
    has_warned: AtomicBool,
    has_warned_in_use: AtomicBool,
}

impl Sessions {
    /// Asks for the name of a connection's session; `None` when it cannot be ended from another connection.
    ///
    /// # Errors
    /// The link is lost.
    pub(crate) async fn name(&self, connection: &mut MySqlConnection) -> Result<Option<SessionName>, Failed> {
        match self.ask(connection).await {
            Ok(Some(name)) => Ok(Some(name)),
            Ok(None) => {
                self.warn("this server or proxy does not end sessions as MySQL does");
                Ok(None)
            }
            Err(error @ sqlx::Error::Database(_)) => {
                let Failed { error, .. } = Failed::asked(error);
                self.warn(&format!("the server does not name it: {error}"));
                Ok(None)
            }
            Err(error) => Err(Failed::asked(error)),
        }
    }

    async fn kind(&self, connection: &mut MySqlConnection) -> sqlx::Result<ServerKind> {
        if let Some(kind) = self.kind.get() {
            return Ok(*kind);
        }
        // In these words a proxy answers for itself.
        let comment = connection.fetch_one("select @@version_comment limit 1").await?;
        let version = connection.fetch_one("SELECT VERSION()").await?;
        Ok(*self.kind.get_or_init(|| ServerKind::of(&text(&version, 0), &text(&comment, 0))))
    }

    /// Whether a proxy answers that shares sessions; also when it is not known.
    pub(crate) async fn is_shared(&self, connection: &mut MySqlConnection) -> bool {
        !matches!(self.kind(connection).await, Ok(ServerKind::MySql | ServerKind::MariaDb))
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
                "the session of a write that is given up cannot be ended: {why}; such a write may still overwrite newer \
                 rows, unless late_write_limit says how long that is possible"
            );
        }
    }

    /// Warns once of connections that come from the pool with something open.
    pub(crate) fn warn_in_use(&self) {
        if !self.has_warned_in_use.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a connection came from the pool with a transaction open, or not in autocommit, and was closed, which undoes \
                 that transaction; end transactions before connections go back to the pool"
            );
        }
    }
}

/// Whether the pool's address is that of a proxy that shares sessions between clients.
pub(crate) fn is_shared(host: &str) -> bool {
    // Amazon RDS Proxy.
    host.ends_with(".rds.amazonaws.com") && host.contains(".proxy-")
}

/// Whether the server was started after the session: it had run for `first` seconds when the session was named, and
/// has run for `uptime` seconds now, between `age.0` and `age.1` later.
///
/// A server that was started after the session has run for less time than the session exists. So has one that had
/// just started when the session was named; that one has run on since, which tells them apart.
pub(crate) fn has_restarted(first: u64, age: (Duration, Duration), uptime: u64) -> bool {
    let uptime = Duration::from_secs(uptime);
    let is_younger = uptime <= age.1 + Duration::from_secs(1);
    is_younger && Duration::from_secs(first) + age.0 > uptime + CLOCK_TOLERANCE
}

pub(crate) fn user_of(user_and_host: &str) -> &str {
    user_and_host.rsplit_once('@').map_or(user_and_host, |(user, _)| user)
}

/// Whether the process list shows a session of this user; its host has the port of the client behind it.
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
        // It runs on, with what rounding and clocks do.
        check(1_000, 60, 1_060, false);
        check(1_000, 60, 1_058, false);
        check(0, 60, 60, false);
        check(0, 60, 58, false);
        check(0, 0, 0, false);
        // The server's clock was set back: it has run longer than the session exists, so it is the same.
        check(1_000, 60, 900, false);
        // Started while the session existed.
        check(1_000, 60, 10, true);
        check(1_000, 60, 60, true);
        check(1_000, 1, 1, true);
        check(5, 60, 30, true);
        // Too near to say: then the process list decides.
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
