//! Owns a connection that is held for one batch: it returns to the pool clean, or it is closed.
//! Must not know plans or rows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use batchsql_core::{ErrorClass, SinkError};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres, Row};
use tokio::runtime::Handle;

use crate::classify::{LinkLost, sink_error};
use crate::live_session::LiveSession;
use crate::session::{Left, Named, left};

/// A connection of the pool. One that is dropped during a statement is closed instead of returned: the
/// statement that still runs on it must not affect the next batch.
pub struct PostgresConn {
    /// `None` only while it is being dropped.
    conn: Option<PoolConnection<Postgres>>,
    busy: bool,
    /// Other code uses the pool and may have left something in the session.
    is_unchecked: bool,
    /// Triggers of a table may have run since it was checked, and have changed its settings.
    ran_triggers: bool,
    /// Triggers have run on some connection of the pool.
    any_ran_triggers: Arc<AtomicBool>,
    /// Its session, if sessions are identified.
    pub(crate) live: Option<LiveSession>,
    /// Its session as the pool has seen it, if the pool has asked.
    pub(crate) seen: Option<Named>,
}

impl PostgresConn {
    /// `is_shared`: other code also uses the pool. `any_ran_triggers`: of all connections of the pool.
    pub(crate) fn new(conn: PoolConnection<Postgres>, is_shared: bool, any_ran_triggers: &Arc<AtomicBool>) -> Self {
        Self {
            conn: Some(conn),
            busy: false,
            is_unchecked: is_shared,
            ran_triggers: any_ran_triggers.load(Ordering::Acquire),
            any_ran_triggers: Arc::clone(any_ran_triggers),
            live: None,
            seen: None,
        }
    }

    /// Checks once what the connection came with: rows would be written in an open transaction, and be lost if it is rolled
    /// back, or texts be read in another encoding than they are sent in. One round trip, if other code uses the pool, or triggers
    /// may have run since the last check.
    ///
    /// # Errors
    /// A transaction is open, or the encoding is not UTF-8. The connection is closed, which rolls the transaction back.
    pub(crate) async fn check_idle(&mut self) -> Result<(), SinkError> {
        if !self.is_unchecked && !self.ran_triggers {
            return Ok(());
        }
        let left = ask_left(self.begin()?).await;
        self.checked_idle(left)
    }

    /// Processes what a statement returned of the state of the session.
    ///
    /// # Errors
    /// As for [`check_idle`](Self::check_idle).
    pub(crate) fn checked_idle(&mut self, left: Result<Option<Left>, SinkError>) -> Result<(), SinkError> {
        let text = match left {
            Ok(None) => {
                (self.is_unchecked, self.ran_triggers) = (false, false);
                self.end();
                return Ok(());
            }
            Ok(Some(Left::Encoding)) => return Err(other_encoding()),
            Err(error) if error.code() != Some("25P02") => return Err(error),
            Ok(Some(Left::Transaction)) | Err(_) => {
                tracing::warn!("a connection of the PostgreSQL pool had an open transaction, and was closed");
                "a connection came from the pool with an open transaction, which is rolled back; end every transaction \
                 before its connection is given back to the pool"
            }
        };
        // The connection stays busy, so it is closed.
        Err(SinkError::new(ErrorClass::Transient, text))
    }

    /// [`check_idle`](Self::check_idle) before rows are written. `is_checked`: the statements check themselves whether a trigger
    /// has changed the settings.
    ///
    /// # Errors
    /// As for [`check_idle`](Self::check_idle).
    pub(crate) async fn check_before_write(&mut self, is_checked: bool) -> Result<(), SinkError> {
        if is_checked && !self.is_unchecked {
            return Ok(());
        }
        self.check_idle().await
    }

    /// Records that triggers may run now.
    pub(crate) fn run_triggers(&mut self) {
        self.ran_triggers = true;
        self.any_ran_triggers.store(true, Ordering::Release);
    }

    /// Begins an operation that ends with [`end`](Self::end).
    ///
    /// # Errors
    /// A previous operation did not end, so nothing can be sent.
    pub(crate) fn begin(&mut self) -> Result<&mut PgConnection, SinkError> {
        if self.busy {
            return Err(SinkError::new(ErrorClass::Transient, "the connection was lost; another one is needed"));
        }
        self.busy = true;
        Ok(self.conn.as_mut().expect("present until dropped"))
    }

    /// Marks the operation as complete, with no open transaction.
    pub(crate) fn end(&mut self) {
        self.busy = false;
    }
}

/// What other code has left in a session.
pub(crate) async fn ask_left(link: &mut PgConnection) -> Result<Option<Left>, SinkError> {
    let answer = link.fetch_one(concat!("SELECT ", left!())).await.and_then(|row| row.try_get::<String, _>(0));
    answer.map(|answer| Left::of(&answer)).map_err(|error| sink_error(error, LinkLost::BeforeCommit))
}

/// The connection must be closed.
pub(crate) fn other_encoding() -> SinkError {
    tracing::warn!("a connection of the PostgreSQL pool had another client_encoding than UTF8, and was closed");
    let text = "a connection has another client_encoding than UTF8, in which texts would be stored as other characters; remove the \
                SET from the code that uses the pool, or from the trigger or function of the table, or RESET it there";
    SinkError::new(ErrorClass::Transient, text)
}

impl Drop for PostgresConn {
    fn drop(&mut self) {
        // Before another user of the pool can get the connection and its session.
        self.live = None;
        // The pool needs a runtime to take a connection back in a task.
        let is_lost = self.busy || Handle::try_current().is_err();
        if let Some(conn) = self.conn.take().filter(|_| is_lost) {
            // Closes the socket; the server then rolls back the open transaction. It does not wait: this may run
            // after a timeout, and the connection may be dead.
            drop(conn.detach());
        }
    }
}

impl fmt::Debug for PostgresConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConn").field("busy", &self.busy).finish_non_exhaustive()
    }
}
