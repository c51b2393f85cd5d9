//! Owns the source of connections: the pool, and changes of its password and its server.
//! Must not know batches or plans.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{CachedPassword, ErrorClass, IdleDoubt, SinkError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool};
use tokio::time::{Instant, timeout};

use crate::classify::{LinkLost, sink_error};
use crate::conn::PostgresConn;
use crate::open_error::problem;
use crate::seen;
use crate::servers::{NoServer, Servers, move_to};

/// How long a connection is tried after the pool gave none in time.
const PROBE: Duration = Duration::from_secs(1);

/// A setting that stays wrong closes the sessions of all tables once in this time.
const AGAIN: Duration = Duration::from_secs(10);

/// The connections of a sink. Clones share them.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) pool: PgPool,
    password: Option<CachedPassword>,
    servers: Arc<Choice>,
    /// The password that this pool uses. The provider may serve other pools, and it does not notify one pool of a new
    /// password that another one requested. Locked while the options of the pool are changed.
    given: Arc<Mutex<Option<Arc<str>>>>,
    /// Other code also uses the pool.
    is_shared: Arc<AtomicBool>,
    /// Triggers of a table have run on one of the connections, and may have changed its settings.
    ran_triggers: Arc<AtomicBool>,
    /// Set by the pool when an idle connection did not answer.
    doubt: IdleDoubt,
    /// Asked by the pool before it gives a connection away.
    pub(crate) outdated: Outdated,
}

/// When a setting of the sessions was found to be wrong: those that were opened before are not used again, because a session keeps
/// the settings with which it was opened.
///
/// Example: 64 partitions wait for a setting, and each asks every few seconds. The sessions of all tables are closed for the first
/// one, and then once in [`AGAIN`]. When one finds the setting to be right, those that were opened since are closed too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outdated(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    /// The sessions that were opened before are outdated.
    since: Option<Instant>,
    /// Later ones may be too.
    is_due: bool,
}

impl Outdated {
    /// The setting is wrong in a session: those that are open now are not used again, unless that was said within [`AGAIN`].
    pub(crate) fn wrong(&self) {
        let mut found = self.lock();
        match found.since {
            Some(since) if since.elapsed() < AGAIN => found.is_due = true,
            _ => *found = Found { since: Some(Instant::now()), is_due: false },
        }
    }

    /// The setting is right in a session. Those that are open now may be older.
    pub(crate) fn right(&self) {
        let mut found = self.lock();
        if found.is_due {
            *found = Found { since: Some(Instant::now()), is_due: false };
        }
    }

    /// Whether a session that was opened so long ago is one of them.
    pub(crate) fn has(&self, age: Duration) -> bool {
        self.lock().since.is_some_and(|since| since.elapsed() <= age)
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Choice {
    servers: Servers,
    limit: Duration,
    /// The server must be chosen before the next connection.
    is_open: AtomicBool,
    /// Only one task at a time renews password and server.
    renewing: Arc<tokio::sync::Mutex<()>>,
}

impl Source {
    /// A pool that is used unchanged.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self {
            pool,
            password: None,
            servers: Arc::default(),
            given: Arc::default(),
            is_shared: Arc::new(AtomicBool::new(true)),
            ran_triggers: Arc::default(),
            doubt: IdleDoubt::default(),
            outdated: Outdated::default(),
        }
    }

    /// A pool whose password and server may change. `given`: its password. `is_open`: no server was chosen yet.
    pub(crate) fn changing(
        pool: PgPool,
        password: Option<CachedPassword>,
        given: Option<Arc<str>>,
        servers: Servers,
        limit: Duration,
        is_open: bool,
    ) -> Self {
        let is_open = AtomicBool::new(is_open && servers.are_asked());
        let servers = Arc::new(Choice { servers, limit, is_open, ..Choice::default() });
        let given = Arc::new(Mutex::new(given));
        let (doubt, outdated) = (IdleDoubt::default(), Outdated::default());
        Self {
            pool,
            password,
            servers,
            given,
            is_shared: Arc::default(),
            ran_triggers: Arc::default(),
            doubt,
            outdated,
        }
    }

    /// With what its pool reports of idle connections, and asks before it gives one away.
    pub(crate) fn doubting(self, doubt: IdleDoubt, outdated: Outdated) -> Self {
        Self { doubt, outdated, ..self }
    }

    /// The pool, for use by other code.
    pub(crate) fn share(&self) -> &PgPool {
        self.is_shared.store(true, Ordering::Release);
        &self.pool
    }

    /// Closes the idle connections if one of them did not answer: they would be checked one after the other, and each may
    /// take as long.
    fn close_doubted(&self) {
        if self.doubt.take() {
            while let Some(conn) = self.pool.try_acquire() {
                // Without a farewell, which could wait for an answer.
                drop(conn.detach());
            }
        }
    }

    async fn take(&self) -> Result<PostgresConn, SinkError> {
        self.close_doubted();
        let (conn, seen) = match seen::acquire(&self.pool).await {
            Ok(taken) => taken,
            Err(sqlx::Error::PoolTimedOut) => return Err(self.timed_out().await),
            Err(error) => return Err(sink_error(error, LinkLost::BeforeCommit)),
        };
        let mut conn = PostgresConn::new(conn, self.is_shared.load(Ordering::Acquire), &self.ran_triggers);
        conn.seen = seen;
        Ok(conn)
    }

    /// Why the pool gave no connection in time: it tries again while nothing listens, and does not say so.
    async fn timed_out(&self) -> SinkError {
        let is_full = || sink_error(sqlx::Error::PoolTimedOut, LinkLost::BeforeCommit);
        let options = self.pool.connect_options();
        let what = match timeout(PROBE, options.connect()).await {
            Ok(Ok(connection)) => {
                // Its end needs no answer.
                drop(connection);
                return is_full();
            }
            Ok(Err(sqlx::Error::Io(error))) => format!("{error}; check that it runs, and check host and port"),
            Ok(Err(error)) => return sink_error(error, LinkLost::BeforeCommit),
            Err(_) => "it does not answer; check host, port and firewall".to_owned(),
        };
        SinkError::new(ErrorClass::Transient, problem(&options, &what).to_string())
    }

    /// A connection that is idle in the pool, or available within this time; without an open transaction.
    pub(crate) async fn take_within(&self, time: Duration) -> Option<PostgresConn> {
        let mut conn = match self.pool.try_acquire() {
            Some(conn) => PostgresConn::new(conn, self.is_shared.load(Ordering::Acquire), &self.ran_triggers),
            None => timeout(time, self.take()).await.ok()?.ok()?,
        };
        // Inside a transaction the server returns the same activity snapshot as before.
        timeout(time, conn.check_idle()).await.ok()?.ok()?;
        Some(conn)
    }

    /// A connection.
    ///
    /// # Errors
    /// The server cannot be reached, or rejects the connection.
    pub(crate) async fn acquire(&self) -> Result<PostgresConn, SinkError> {
        self.refresh().await?;
        let used = self.given();
        let error = match self.take().await {
            Ok(conn) => return Ok(conn),
            Err(error) => error,
        };
        if is_login_refused(&error) && self.password.is_some() {
            self.refused(used.as_ref()).await?;
            self.refresh().await?;
            if self.given() == used {
                return Err(error);
            }
        } else if self.servers.servers.are_several() {
            self.reconsider();
            self.refresh().await?;
        } else {
            return Err(error);
        }
        self.take().await
    }

    /// Records that a connection could not be opened with this password, so that the next one uses another password
    /// or server.
    pub(crate) async fn failed(&self, used: Option<&Arc<str>>, error: &SinkError) {
        if is_login_refused(error) {
            // Without another password the next one fails in the same way.
            let _ = self.refused(used).await;
        } else {
            self.reconsider();
        }
    }

    /// Reports that the server rejected a password, unless there is already another one. A token may expire earlier
    /// than its provider stated.
    async fn refused(&self, used: Option<&Arc<str>>) -> Result<(), SinkError> {
        if let Some(password) = &self.password
            && Some(&password.get().await?.0) == used
        {
            password.refused().await;
        }
        Ok(())
    }

    /// Makes new connections use the current password and server. The refresh continues if the call is dropped: a
    /// provider or a list of servers may take longer than its caller can wait.
    ///
    /// # Errors
    /// There is no password, or no server.
    pub(crate) async fn refresh(&self) -> Result<(), SinkError> {
        if self.password.is_none() && !self.servers.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let one_at_a_time = Arc::clone(&self.servers.renewing).lock_owned().await;
        let source = self.clone();
        let renewing = tokio::spawn(async move {
            let done = source.renew().await;
            drop(one_at_a_time);
            done
        });
        renewing.await.unwrap_or_else(|_| {
            let text = "the password provider failed (a panic), or the runtime ended";
            Err(SinkError::new(ErrorClass::Transient, text))
        })
    }

    /// The server is no longer the right one, for example after a failover.
    pub(crate) fn reconsider(&self) {
        if self.servers.servers.are_asked() {
            self.servers.is_open.store(true, Ordering::Release);
        }
    }

    async fn renew(&self) -> Result<(), SinkError> {
        self.renew_password().await?;
        if !self.servers.is_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let used = self.given();
        match self.choose().await {
            Err(error) if is_login_refused(&error) && self.password.is_some() => {
                self.refused(used.as_ref()).await?;
                self.renew_password().await?;
                if self.given() == used { Err(error) } else { self.choose().await }
            }
            done => done,
        }
    }

    async fn renew_password(&self) -> Result<(), SinkError> {
        let Some(password) = &self.password else { return Ok(()) };
        let (text, _) = password.get().await?;
        if self.given().as_ref() != Some(&text) {
            self.change(|options| options.password(&text), Some(&text));
        }
        Ok(())
    }

    async fn choose(&self) -> Result<(), SinkError> {
        let options = (*self.pool.connect_options()).clone();
        let chosen = self.servers.servers.choose(&options, self.servers.limit).await.map_err(|none| match none {
            NoServer::Failed(_, error) => sink_error(error, LinkLost::BeforeCommit),
            NoServer::TimedOut(_) => {
                SinkError::new(ErrorClass::Transient, "no server answers within connect_timeout; check the hosts")
            }
            NoServer::ReadOnly => SinkError::new(
                ErrorClass::Resource,
                "each server that answers is read-only; wait for the failover, or name the primary",
            ),
        })?;
        self.change(|options| move_to(options, &chosen), None);
        self.servers.is_open.store(false, Ordering::Release);
        Ok(())
    }

    /// The password of the pool, if it comes from a provider.
    pub(crate) fn given(&self) -> Option<Arc<str>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the current options of the pool; a new password becomes the given one.
    fn change(&self, change: impl FnOnce(PgConnectOptions) -> PgConnectOptions, password: Option<&Arc<str>>) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.set_connect_options(change((*self.pool.connect_options()).clone()));
        if let Some(password) = password {
            *given = Some(Arc::clone(password));
        }
    }
}

fn is_login_refused(error: &SinkError) -> bool {
    matches!(error.code(), Some("28P01" | "28000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition that waits would make each batch of each table open a connection.
    #[tokio::test(start_paused = true)]
    async fn a_setting_that_stays_wrong_does_not_close_sessions_again_and_again() {
        let outdated = Outdated::default();
        let opened = Instant::now();
        let pass = |time| tokio::time::advance(time);
        let second = Duration::from_secs(1);
        assert!(!outdated.has(opened.elapsed()));
        outdated.right();
        assert!(!outdated.has(opened.elapsed()));
        pass(second).await;
        outdated.wrong();
        assert!(outdated.has(opened.elapsed()));
        pass(second).await;
        let reopened = Instant::now();
        for _ in 0..5 {
            pass(second).await;
            outdated.wrong();
            assert!(!outdated.has(reopened.elapsed()), "it was closed a moment ago");
        }
        // Right again. What was opened before, when the setting was wrong, must not write.
        outdated.right();
        assert!(outdated.has(reopened.elapsed()));
        pass(second).await;
        let latest = Instant::now();
        pass(second).await;
        outdated.right();
        assert!(!outdated.has(latest.elapsed()));
        pass(AGAIN).await;
        outdated.wrong();
        assert!(outdated.has(latest.elapsed()));
    }
}
