//! Owns the connection that the pipeline holds. A connection that is found in use, or that was dropped during a
//! statement, is closed. The pool gets a changed password before it connects.
//! Must not know rows, plans or statements of batches.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{CachedPassword, ErrorClass, IdleDoubt, SinkError};
use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, MySqlPool};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::classify::{Failed, acquire_error};
use crate::in_use::{Left, State, left_open};
use crate::options::server;
use crate::seen;
use crate::session::{SessionName, Sessions, SharedName};
use crate::watcher::Watcher;

/// The most connections that are closed before an acquire fails because all of them are in use.
const MAX_FOUND_IN_USE: usize = 64;

/// How long a connection is tried after the pool gave none in time.
const PROBE: Duration = Duration::from_secs(1);

/// The most connections with other settings that one acquire closes.
const MAX_UNFIT: usize = 8;

/// A connection that was taken from the pool.
struct Taken {
    live: PoolConnection<MySql>,
    left: Left,
    /// The state of the session, where it was checked.
    state: Option<State>,
    /// The name of the session, if the pool has asked for it.
    name: Option<SessionName>,
}

/// The source of connections.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) pool: MySqlPool,
    /// Whether the pool is the sink's own. Once the application has it, the pool checks that returned connections have
    /// no open transaction.
    pub(crate) is_ours: bool,
    pub(crate) password: Option<CachedPassword>,
    /// The password that the pool uses.
    pub(crate) applied: Arc<Mutex<Option<Arc<str>>>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) watcher: Arc<Watcher>,
    /// Set by the pool when an idle connection did not answer.
    pub(crate) doubt: IdleDoubt,
}

impl Source {
    /// Makes the pool connect with the password that is valid now.
    pub(crate) async fn renew_password(&self) -> Result<(), SinkError> {
        let Some(password) = &self.password else { return Ok(()) };
        let (text, _) = password.get().await?;
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if applied.as_ref() != Some(&text) {
            self.pool.set_connect_options((*self.pool.connect_options()).clone().password(&text));
            *applied = Some(text);
        }
        Ok(())
    }

    /// Closes the idle connections if one of them did not answer: they would be checked one after the other, and each may
    /// take as long.
    fn close_doubted(&self) {
        if self.doubt.take() {
            while let Some(live) = self.pool.try_acquire() {
                // Without a farewell, which could wait for an answer.
                drop(live.detach());
            }
        }
    }

    async fn acquire(&self) -> Result<Taken, SinkError> {
        self.renew_password().await?;
        self.close_doubted();
        let refused = match seen::acquire(&self.pool).await {
            Ok((live, name)) if self.is_ours => return Ok(Taken { live, left: Left::Nothing, state: None, name }),
            Ok((live, _)) => return self.check(live).await,
            Err(sqlx::Error::PoolTimedOut) => return Err(self.timed_out().await),
            Err(error) => acquire_error(error),
        };
        let Some(password) = self.password.as_ref().filter(|_| refused.class() == ErrorClass::Permission) else {
            return Err(refused);
        };
        // It may have changed before it expired.
        password.refused().await;
        self.renew_password().await?;
        let live = self.pool.acquire().await.map_err(acquire_error)?;
        self.check(live).await
    }

    /// Why the pool gave no connection in time: it tries again while nothing listens, and does not say so.
    async fn timed_out(&self) -> SinkError {
        let options = self.pool.connect_options();
        let text = match timeout(PROBE, options.connect()).await {
            Ok(Ok(connection)) => {
                // Its end needs no answer.
                drop(connection);
                return acquire_error(sqlx::Error::PoolTimedOut);
            }
            Ok(Err(sqlx::Error::Io(error))) => {
                format!("cannot connect to {}: {error}; check that it runs, and check host and port", server(&options))
            }
            Ok(Err(error)) => return acquire_error(error),
            Err(_) => format!("{} does not answer; check host, port and firewall", server(&options)),
        };
        SinkError::new(ErrorClass::Transient, text)
    }

    /// Acquires connections until one has no open transaction and accepted settings. Other settings are accepted if two
    /// connections in a row have the same ones and seem to be new: the tables are then checked again, with advice if the settings
    /// do not suit. One is no proof: another task may have returned it just now.
    async fn check(&self, mut live: PoolConnection<MySql>) -> Result<Taken, SinkError> {
        if self.is_ours {
            return Ok(Taken { live, left: Left::Nothing, state: None, name: None });
        }
        let (mut unfit, mut is_new, mut previous) = (0, false, None);
        for _ in 0..MAX_FOUND_IN_USE {
            // A connection that fails, or is dropped during the check, is closed.
            let mut looked_at = Closing(Some(live));
            let (probe, expected) = self.sessions.probe(looked_at.connection()).await;
            let left = left_open(looked_at.connection(), probe).await;
            match left {
                Ok(Left::Settings) => {
                    self.sessions.warn_in_use();
                    // Idle connections may all have been changed. New ones show what the pool sets up.
                    let state = match is_new {
                        true => {
                            self.sessions.state(looked_at.connection()).await.map_err(|e| Failed::asked(e).error)?
                        }
                        false => None,
                    };
                    if state.is_some() && state == previous {
                        self.sessions.accept(state.clone());
                        let live = looked_at.0.take().expect("it is taken once");
                        return Ok(Taken { live, left: Left::Settings, state, name: None });
                    }
                    previous = state;
                    unfit += 1;
                    if unfit == MAX_UNFIT {
                        break;
                    }
                }
                Ok(Left::Transaction) => self.sessions.warn_in_use(),
                Ok(left) => {
                    let live = looked_at.0.take().expect("it is taken once");
                    return Ok(Taken { live, left, state: expected.filter(|_| left == Left::Nothing), name: None });
                }
                // The connection was idle for too long.
                Err(sqlx::Error::Io(_)) => {}
                Err(error) => return Err(Failed::asked(error).error),
            }
            drop(looked_at);
            is_new = self.pool.num_idle() == 0;
            live = self.pool.acquire().await.map_err(acquire_error)?;
        }
        let text = "connections of the pool have a transaction open or other settings; end transactions, and undo USE and \
                    SET, before connections go back to the pool, or give the sink its own pool";
        Err(SinkError::new(ErrorClass::Transient, text))
    }
}

/// A connection that is closed when it is dropped.
struct Closing(Option<PoolConnection<MySql>>);

impl Closing {
    fn connection(&mut self) -> &mut MySqlConnection {
        self.0.as_mut().expect("it is taken only when it is given back")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// A connection of the pool. A connection that is dropped during a statement is closed, not returned to the pool:
/// the statement that still runs on it must not affect the next batch, and the server rolls back the open
/// transaction.
pub struct MySqlConn {
    source: Source,
    /// `None` after the connection broke; the next use acquires another one.
    live: Option<PoolConnection<MySql>>,
    busy: bool,
    left: Left,
    /// The state of the session of a user's pool, once it is known.
    state: Option<State>,
    /// The name of the session, once the pool or the pipeline has asked for it.
    pub(crate) named: Option<SharedName>,
}

impl fmt::Debug for MySqlConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlConn").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl MySqlConn {
    pub(crate) async fn acquire(source: &Source) -> Result<Self, SinkError> {
        let Taken { live, left, state, name } = source.acquire().await?;
        let named = name.map(|name| SharedName::of(Some(name)));
        Ok(Self { source: source.clone(), live: Some(live), busy: false, left, state, named })
    }

    /// The connection for one operation; [`end`](Self::end) marks the operation as complete.
    pub(crate) async fn begin(&mut self) -> Result<&mut MySqlConnection, SinkError> {
        let is_new = self.live.is_none();
        let live = match self.live.take() {
            Some(live) => live,
            None => {
                let taken = self.source.acquire().await?;
                (self.left, self.state) = (taken.left, taken.state);
                taken.live
            }
        };
        self.busy = true;
        let live = self.live.insert(live);
        if let Some(name) = self.named.as_ref().filter(|_| is_new) {
            // The pipeline still has the name of the previous connection.
            name.set(None);
            name.set(self.source.sessions.name(live).await.map_err(|failed| failed.error)?);
        }
        Ok(live)
    }

    /// What is known of the sessions of its server.
    pub(crate) fn sessions(&self) -> Arc<Sessions> {
        Arc::clone(&self.source.sessions)
    }

    /// The state of the session of a user's pool; `None` if the server does not show it. A round trip where it was not checked.
    pub(crate) async fn state(&mut self) -> Result<Option<State>, SinkError> {
        if self.source.is_ours || self.state.is_some() {
            return Ok(self.state.clone());
        }
        let sessions = self.sessions();
        let asked = sessions.state(self.begin().await?).await.map_err(Failed::asked);
        self.state = self.end(asked)?;
        Ok(self.state.clone())
    }

    /// A table was found to suit the session.
    pub(crate) fn suits(&mut self) {
        if !self.source.is_ours {
            self.left = Left::Nothing;
            self.source.sessions.accept(self.state.clone());
        }
    }

    /// Whether the session has the expected settings.
    pub(crate) fn is_fit(&self) -> bool {
        self.left == Left::Nothing
    }

    pub(crate) fn end<T>(&mut self, result: Result<T, Failed>) -> Result<T, SinkError> {
        self.busy = result.as_ref().is_err_and(|failed| !failed.usable);
        if self.busy {
            self.close();
        }
        result.map_err(|failed| failed.error)
    }

    fn close(&mut self) {
        // Without a message to the server: it may not respond, and this must not wait.
        drop(self.live.take().map(PoolConnection::detach));
        self.busy = false;
    }
}

impl Drop for MySqlConn {
    fn drop(&mut self) {
        // The pool needs a runtime to take a connection back in a task.
        if self.busy || Handle::try_current().is_err() {
            self.close();
        }
    }
}
