//! Owns a connection that is held for one batch, and how it is given back: clean, or not at all.
//! Must not know plans or rows.

use std::fmt;

use batchsql_core::{ErrorClass, SinkError};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};

use crate::live_session::LiveSession;

/// A connection of the pool. One that was left in the middle of something is closed instead of given back: what
/// still runs on it must not meet the next batch.
pub struct PostgresConn {
    /// `None` only while it is being dropped.
    conn: Option<PoolConnection<Postgres>>,
    busy: bool,
    /// Its session, where sessions are told apart.
    pub(crate) live: Option<LiveSession>,
}

impl PostgresConn {
    pub(crate) fn new(conn: PoolConnection<Postgres>) -> Self {
        Self { conn: Some(conn), busy: false, live: None }
    }

    /// Begins something that ends with [`end`](Self::end).
    ///
    /// # Errors
    /// What was begun before did not end, so nothing can be sent.
    pub(crate) fn begin(&mut self) -> Result<&mut PgConnection, SinkError> {
        if self.busy {
            return Err(SinkError::new(ErrorClass::Transient, "the connection was lost; another one is needed"));
        }
        self.busy = true;
        Ok(self.conn.as_mut().expect("present until dropped"))
    }

    /// What was begun is over, and no transaction is open.
    pub(crate) fn end(&mut self) {
        self.busy = false;
    }
}

impl Drop for PostgresConn {
    fn drop(&mut self) {
        // Before another one can get the connection, and with it the session.
        self.live = None;
        if let Some(conn) = self.conn.take().filter(|_| self.busy) {
            // Closes the socket; the server then undoes what was open. Without waiting: this may be the end of a
            // timeout, and the link may be dead.
            drop(conn.detach());
        }
    }
}

impl fmt::Debug for PostgresConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConn").field("busy", &self.busy).finish_non_exhaustive()
    }
}
