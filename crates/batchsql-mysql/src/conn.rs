//! Owns the connection that the pipeline holds: one that is found in use is closed, one that was left in the middle of
//! something is closed, and a password that changes is known to the pool before it connects.
//! Must not know rows, plans or statements of batches.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use batchsql_core::{CachedPassword, ErrorClass, SinkError};
use sqlx::MySqlPool;
use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::pool::PoolConnection;
use tokio::runtime::Handle;

use crate::classify::{Failed, acquire_error};
use crate::in_use::{Left, left_open};
use crate::session::{Sessions, SharedName};
use crate::watcher::Watcher;

/// Connections that are closed before an acquire gives up, when every one of them is found in use.
const MAX_FOUND_IN_USE: usize = 64;

/// As many that are not in autocommit are taken for how the pool is set up.
const MAX_WITHOUT_AUTOCOMMIT: usize = 3;

/// Where connections come from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) pool: MySqlPool,
    /// Whether the pool looks by itself that nothing is left open on what comes back to it.
    pub(crate) is_ours: bool,
    pub(crate) password: Option<CachedPassword>,
    /// The password that the pool has.
    pub(crate) applied: Arc<Mutex<Option<Arc<str>>>>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) watcher: Arc<Watcher>,
}

impl Source {
    /// Has the pool connect with the password that is valid now.
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

    async fn acquire(&self) -> Result<(PoolConnection<MySql>, Left), SinkError> {
        self.renew_password().await?;
        let refused = match self.pool.acquire().await {
            Ok(live) => return self.check(live).await,
            Err(error) => acquire_error(error),
        };
        let Some(password) = self.password.as_ref().filter(|_| refused.class() == ErrorClass::Permission) else {
            return Err(refused);
        };
        // It may have changed before its time.
        password.refused().await;
        self.renew_password().await?;
        let live = self.pool.acquire().await.map_err(acquire_error)?;
        self.check(live).await
    }

    /// Takes connections until one is found on which nothing is open. Where none is in autocommit, the last one: the table
    /// is refused then, with advice.
    async fn check(&self, mut live: PoolConnection<MySql>) -> Result<(PoolConnection<MySql>, Left), SinkError> {
        if self.is_ours {
            return Ok((live, Left::Nothing));
        }
        let mut without_autocommit = 0;
        for _ in 0..MAX_FOUND_IN_USE {
            // One that fails, or is dropped meanwhile, is closed.
            let mut looked_at = Closing(Some(live));
            let has_variables = !self.sessions.is_shared(looked_at.connection()).await;
            let left = left_open(looked_at.connection(), has_variables).await;
            without_autocommit += usize::from(matches!(left, Ok(Left::AutocommitOff)));
            match left {
                Ok(Left::AutocommitOff) if without_autocommit < MAX_WITHOUT_AUTOCOMMIT => self.sessions.warn_in_use(),
                Ok(Left::Transaction) => self.sessions.warn_in_use(),
                Ok(left) => return Ok((looked_at.0.take().expect("it is taken once"), left)),
                // It was idle for too long.
                Err(sqlx::Error::Io(_)) => {}
                Err(error) => return Err(Failed::asked(error).error),
            }
            drop(looked_at);
            live = self.pool.acquire().await.map_err(acquire_error)?;
        }
        let text = "every connection of the pool has a transaction open; end transactions before connections go back \
                    to the pool";
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

/// A connection of the pool. One that is dropped in the middle of something is closed, not given back: what still
/// runs on it must not meet the next batch, and the server undoes the transaction that was open.
pub struct MySqlConn {
    source: Source,
    /// `None` after the link broke; the next use gets another one.
    live: Option<PoolConnection<MySql>>,
    busy: bool,
    left: Left,
    /// The name of the session, once the pipeline has asked for it.
    pub(crate) named: Option<SharedName>,
}

impl fmt::Debug for MySqlConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlConn").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl MySqlConn {
    pub(crate) async fn acquire(source: &Source) -> Result<Self, SinkError> {
        let (live, left) = source.acquire().await?;
        Ok(Self { source: source.clone(), live: Some(live), busy: false, left, named: None })
    }

    /// The connection for a piece of work; [`end`](Self::end) says that it is over.
    pub(crate) async fn begin(&mut self) -> Result<&mut MySqlConnection, SinkError> {
        let is_new = self.live.is_none();
        let live = match self.live.take() {
            Some(live) => live,
            None => {
                let (live, left) = self.source.acquire().await?;
                self.left = left;
                live
            }
        };
        self.busy = true;
        let live = self.live.insert(live);
        if let Some(name) = self.named.as_ref().filter(|_| is_new) {
            // The pipeline has the name of the connection before.
            name.set(None);
            name.set(self.source.sessions.name(live).await.map_err(|failed| failed.error)?);
        }
        Ok(live)
    }

    /// Whether what is written is committed.
    pub(crate) fn is_autocommit(&self) -> bool {
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
        // Without a word to the server: it may not listen, and nothing here may wait.
        drop(self.live.take().map(PoolConnection::detach));
        self.busy = false;
    }
}

impl Drop for MySqlConn {
    fn drop(&mut self) {
        // The pool takes a connection back in a task, which needs a runtime.
        if self.busy || Handle::try_current().is_err() {
            self.close();
        }
    }
}
