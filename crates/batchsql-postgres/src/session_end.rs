//! Owns the termination of sessions with an abandoned write: the connection for it, and whether sessions are shared.
//! Must not know SQL, or who waits for the termination.
//!
//! Example: a write on session 17 times out while it waits for a lock. The connection is closed, but the server keeps
//! waiting. A connection that was opened in advance checks session 17: it exists, so it is terminated, and checked
//! until it is gone. If the check shows that the server was restarted, session 17 ended with the earlier run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use batchsql_core::{ErrorClass, Session, SessionEnd, SinkError};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::conn::PostgresConn;
use crate::live_session::{LiveSession, LiveSessions};
use crate::session::{
    BackendSession, Left, Named, Presence, Server, ServerPlace, SessionId, Sight, ask_name, ask_system, look, terminate,
};
use crate::source::Source;

/// How long a kept connection may take to answer. It may be dead; then another one is opened.
const ANSWER: Duration = Duration::from_secs(1);

/// How long opening a new connection may take, including the password and the choice of the server. After that a
/// connection of the pool is tried.
const OPEN: Duration = Duration::from_millis(2500);

/// How long to wait for a connection of the pool.
const POOLED: Duration = Duration::from_millis(500);

/// How long to wait for the end of a terminated session before other sessions are checked.
const ENDS: Duration = Duration::from_millis(300);

/// The same without the right to end it. With `client_connection_check_interval = 1s` the server itself detects
/// that its client is gone.
const ENDS_ITSELF: Duration = Duration::from_millis(1500);

/// Delays between checks.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// Number of servers whose identifier is cached.
const KNOWN_SERVERS: usize = 8;

/// The sessions of one sink.
#[derive(Default)]
pub(crate) struct Sessions {
    live: Arc<LiveSessions>,
    /// Why sessions permanently have no name.
    nameless: OnceLock<Nameless>,
    /// Whether the check for shared sessions has been tried.
    probed: AtomicBool,
    warned_of_rights: AtomicBool,
    /// The connection that ends sessions.
    kept: tokio::sync::Mutex<Option<EndingLink>>,
    servers: Mutex<Vec<Server>>,
}

/// Why sessions have no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nameless {
    Shared,
    Hidden,
}

/// A separate connection of this sink.
struct EndingLink {
    conn: PgConnection,
    live: LiveSession,
}

impl Sessions {
    /// Whether it is known that sessions cannot be named.
    pub(crate) fn are_nameless(&self) -> bool {
        self.nameless.get().is_some()
    }

    /// The name of a connection's session; `None` if it has no reliable name.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub(crate) async fn name(&self, source: &Source, conn: &mut PostgresConn) -> Result<Option<Session>, SinkError> {
        conn.live = None;
        let link = conn.begin()?;
        let named = match ask_name(link).await {
            Ok(Named { left: Some(left), .. }) => return Err(unusable(conn, Ok(Some(left)))),
            Err(error) if error.code() == Some("25P02") => return Err(unusable(conn, Err(error))),
            Ok(Named { id: Some(id), user, place, .. }) => Some((id, user, place)),
            Ok(Named { id: None, .. }) => None,
            // A server similar to PostgreSQL.
            Err(error) if is_refusal(&error) && !error.is_retryable() => None,
            Err(error) => return Err(error),
        };
        let Some((id, user, place)) = named else {
            conn.end();
            conn.check_idle().await?;
            self.give_up(Nameless::Hidden);
            return Ok(None);
        };
        let server = self.server(link, place).await?;
        if !self.probed.swap(true, Ordering::AcqRel) {
            self.probe(source, link, id).await?;
        }
        conn.checked_idle(Ok(None))?;
        conn.live = self.live.add(id);
        if conn.live.is_none() {
            self.give_up(Nameless::Shared);
        }
        if self.are_nameless() {
            return Ok(None);
        }
        Ok(Some(Session::new(BackendSession { id, user, server })))
    }

    /// The name of a session as the pool has seen it, to look at it later.
    pub(crate) fn seen(&self, named: &Named) -> Option<Session> {
        let Named { id: Some(id), user, place, left: None } = named else { return None };
        if self.are_nameless() {
            return None;
        }
        let known = self.lock_servers().iter().find(|server| server.place == *place).cloned();
        let server = known.unwrap_or_else(|| Server { place: place.clone(), system: None });
        Some(Session::new(BackendSession { id: *id, user: *user, server }))
    }

    /// Checks whether sessions are shared, if nobody has done so yet, by another connection beside the one that looks: as in
    /// [`probe`](Self::probe).
    async fn probe_late(
        &self,
        source: &Source,
        link: &mut EndingLink,
        session: &BackendSession,
    ) -> Result<(), SinkError> {
        if self.probed.load(Ordering::Acquire) {
            return Ok(());
        }
        // It gives names up if it has the session of the first.
        let beside = self.open(source).await?;
        let own = ask_name(&mut link.conn).await?.id;
        self.check_distinct(own, Some(link.live.id), session);
        self.check_distinct(Some(beside.live.id), None, session);
        self.probed.store(true, Ordering::Release);
        Ok(())
    }

    /// Opens the connection that ends sessions, and checks whether it shares the session of another one. A pooler
    /// gives a statement the most recently used server connection, or assigns them in turn.
    async fn probe(&self, source: &Source, link: &mut PgConnection, id: SessionId) -> Result<(), SinkError> {
        let Ok(mut ending) = self.open(source).await else { return Ok(()) };
        let again = ask_name(link).await?.id;
        let own = timeout(ANSWER, ask_name(&mut ending.conn)).await;
        let Ok(Ok(own)) = own else { return Ok(()) };
        if again != Some(id) || own.id != Some(ending.live.id) || own.id == Some(id) {
            self.give_up(Nameless::Shared);
            return Ok(());
        }
        *self.kept.lock().await = Some(ending);
        Ok(())
    }

    /// Ends a session, and checks whether it has ended.
    ///
    /// # Errors
    /// The server cannot be queried now.
    pub(crate) async fn end(&self, source: &Source, session: &BackendSession) -> Result<SessionEnd, SinkError> {
        let mut kept = self.kept.lock().await;
        // Taken out during use, so that a cancelled use closes it.
        if let Some(mut link) = kept.take()
            && let Ok(Ok(sight)) = timeout(ANSWER, look(&mut link.conn, session.id)).await
        {
            self.check_own(sight.own.id, Some(link.live.id), session);
            let presence = self.presence(&mut link.conn, session, &sight).await?;
            // If it was opened before a failover, its server may no longer be in use.
            if presence != Presence::Elsewhere {
                let end = self.finish(&mut link.conn, session, presence, &sight).await?;
                *kept = Some(link);
                return Ok(end);
            }
        }
        match self.open(source).await {
            Ok(mut link) => {
                let sight = look(&mut link.conn, session.id).await?;
                self.check_own(sight.own.id, Some(link.live.id), session);
                let presence = self.presence(&mut link.conn, session, &sight).await?;
                let end = self.finish(&mut link.conn, session, presence, &sight).await?;
                *kept = Some(link);
                Ok(end)
            }
            Err(refused) => {
                // Abandoned sessions may use every connection slot of the server.
                let Some(mut conn) = source.take_within(POOLED).await else { return Err(refused) };
                let link = conn.begin()?;
                let sight = look(link, session.id).await?;
                self.check_own(sight.own.id, None, session);
                let presence = self.presence(link, session, &sight).await?;
                if presence == Presence::Elsewhere {
                    conn.end();
                    return Err(refused);
                }
                let end = self.finish(link, session, presence, &sight).await?;
                conn.end();
                Ok(end)
            }
        }
    }

    /// Whether the server executes a command for a session; `None` if this is not known.
    ///
    /// # Errors
    /// The server cannot be queried now.
    pub(crate) async fn is_working(
        &self,
        source: &Source,
        session: &BackendSession,
    ) -> Result<Option<bool>, SinkError> {
        let mut kept = self.kept.lock().await;
        let seen = match kept.take() {
            // The connection may be dead.
            Some(mut link) => match timeout(ANSWER, look(&mut link.conn, session.id)).await {
                Ok(Ok(sight)) => Some((link, sight)),
                _ => None,
            },
            None => None,
        };
        let (mut link, sight) = match seen {
            Some(seen) => seen,
            None => {
                let mut link = self.open(source).await?;
                let sight = look(&mut link.conn, session.id).await?;
                (link, sight)
            }
        };
        self.check_distinct(sight.own.id, Some(link.live.id), session);
        let presence = self.presence(&mut link.conn, session, &sight).await?;
        self.probe_late(source, &mut link, session).await?;
        *kept = Some(link);
        if self.nameless.get() == Some(&Nameless::Shared) {
            return Ok(None);
        }
        Ok(match presence {
            Presence::Gone => Some(false),
            Presence::There => sight.found.and_then(|found| found.is_active),
            Presence::Hidden | Presence::Elsewhere => None,
        })
    }

    /// Checks whether the checking session is shared with other connections. `before`: its identity when it
    /// was opened.
    fn check_own(&self, own: Option<SessionId>, before: Option<SessionId>, session: &BackendSession) {
        self.check_distinct(own, before, session);
        // The connection of an abandoned write is closed.
        if self.live.lock().contains(&session.id) {
            self.give_up(Nameless::Shared);
        }
    }

    /// The same for a session whose connection is in use.
    fn check_distinct(&self, own: Option<SessionId>, before: Option<SessionId>, session: &BackendSession) {
        let has_changed = before.is_some() && before != own;
        if has_changed || own == Some(session.id) {
            self.give_up(Nameless::Shared);
        }
    }

    async fn presence(
        &self,
        link: &mut PgConnection,
        session: &BackendSession,
        sight: &Sight,
    ) -> Result<Presence, SinkError> {
        let server = self.server(link, sight.own.place.clone()).await?;
        Ok(session.presence(&server, sight.found))
    }

    /// Ends an existing session.
    async fn finish(
        &self,
        link: &mut PgConnection,
        session: &BackendSession,
        presence: Presence,
        sight: &Sight,
    ) -> Result<SessionEnd, SinkError> {
        if self.nameless.get() == Some(&Nameless::Shared) {
            return Ok(SessionEnd::Impossible);
        }
        match presence {
            Presence::Gone => return Ok(SessionEnd::Ended),
            Presence::Elsewhere => return Ok(SessionEnd::Impossible),
            Presence::Hidden => {
                self.warn_of_rights();
                return Ok(SessionEnd::Impossible);
            }
            Presence::There => {}
        }
        let may_end = sight.own.user == session.user
            && match terminate(link, session).await {
                Ok(()) => true,
                Err(error) if error.class() == ErrorClass::Permission && is_refusal(&error) => false,
                Err(error) => return Err(error),
            };
        let (until, mut delay) = (Instant::now() + if may_end { ENDS } else { ENDS_ITSELF }, SHORTEST_LOOK);
        while Instant::now() < until {
            sleep(delay).await;
            delay = (delay * 2).min(LONGEST_LOOK);
            let sight = look(link, session.id).await?;
            if self.presence(link, session, &sight).await? == Presence::Gone {
                return Ok(SessionEnd::Ended);
            }
        }
        if may_end {
            return Ok(SessionEnd::Pending);
        }
        self.warn_of_rights();
        Ok(SessionEnd::Impossible)
    }

    /// Opens a connection to end sessions from. If it fails, the server is chosen again before the next attempt: a
    /// lane that waits for the end of a session acquires no connection that would find the new primary.
    async fn open(&self, source: &Source) -> Result<EndingLink, SinkError> {
        let mut used = source.given();
        let opening = async {
            source.refresh().await?;
            used = source.given();
            let options = (*source.pool.connect_options()).clone().disable_statement_logging();
            let mut conn = PgConnection::connect_with(&options)
                .await
                .map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
            let id = ask_name(&mut conn).await?.id;
            Ok((conn, id))
        };
        let opened = timeout(OPEN, opening).await.unwrap_or_else(|_| {
            Err(SinkError::new(
                ErrorClass::Transient,
                "no connection to end a session from; the server does not answer",
            ))
        });
        let (conn, id) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The password provider may be slow.
                let _ = timeout(ANSWER, source.failed(used.as_ref(), &error)).await;
                return Err(error);
            }
        };
        let Some(live) = id.and_then(|id| self.live.add(id)) else {
            self.give_up(if id.is_some() { Nameless::Shared } else { Nameless::Hidden });
            return Err(SinkError::new(ErrorClass::Internal, "the session of the connection has no name of its own"));
        };
        Ok(EndingLink { conn, live })
    }

    /// The server at an address. Its identifier is queried once.
    async fn server(&self, link: &mut PgConnection, place: ServerPlace) -> Result<Server, SinkError> {
        let known = |servers: &[Server]| servers.iter().find(|server| server.place == place).cloned();
        if let Some(server) = known(&self.lock_servers()) {
            return Ok(server);
        }
        let system = ask_system(link).await?;
        let server = Server { place, system };
        let mut servers = self.lock_servers();
        if servers.len() >= KNOWN_SERVERS {
            servers.remove(0);
        }
        servers.push(server.clone());
        Ok(server)
    }

    fn lock_servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, why: Nameless) {
        if self.nameless.set(why).is_err() {
            return;
        }
        match why {
            Nameless::Shared => tracing::warn!(
                "connections share sessions of the PostgreSQL server, as behind a pooler in transaction mode: the \
                 session of an abandoned write cannot be ended; set prepared_statements(false), and set \
                 late_write_limit"
            ),
            Nameless::Hidden => tracing::warn!(
                "the PostgreSQL server does not show this user its own session in pg_stat_activity: the session of an \
                 abandoned write cannot be ended; set late_write_limit"
            ),
        }
    }

    fn warn_of_rights(&self) {
        if !self.warned_of_rights.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "a write was abandoned, and this user may not end its session on the PostgreSQL server; grant EXECUTE \
                 on pg_terminate_backend, or set late_write_limit"
            );
        }
    }
}

/// The error of a connection that came with something with which rows cannot be written.
fn unusable(conn: &mut PostgresConn, left: Result<Option<Left>, SinkError>) -> SinkError {
    conn.checked_idle(left).expect_err("there is something")
}
