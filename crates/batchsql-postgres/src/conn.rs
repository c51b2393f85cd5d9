//! Owns a connection that is held for one batch, and how it is given back: clean, or not at all.
//! Must not know plans or rows.

use std::fmt;

use batchsql_core::{ErrorClass, SinkError};
use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres, Row};

use crate::classify::{LinkLost, sink_error};
use crate::live_session::LiveSession;
use crate::session::in_transaction;

/// A connection of the pool. One that was left in the middle of something is closed instead of given back: what
/// still runs on it must not meet the next batch.
pub struct PostgresConn {
    /// `None` only while it is being dropped.
    conn: Option<PoolConnection<Postgres>>,
    busy: bool,
    /// Others use the pool, and may have left a transaction open.
    is_unchecked: bool,
    /// Its session, where sessions are told apart.
    pub(crate) live: Option<LiveSession>,
}

impl PostgresConn {
    /// `is_shared`: others use the pool too.
    pub(crate) fn new(conn: PoolConnection<Postgres>, is_shared: bool) -> Self {
        Self { conn: Some(conn), busy: false, is_unchecked: is_shared, live: None }
    }

    /// Looks once whether the connection came with an open transaction: rows would be written in it, and be gone when
    /// it is rolled back. One round trip, where others use the pool.
    ///
    /// # Errors
    /// It did. The connection is closed, which rolls the transaction back.
    pub(crate) async fn check_idle(&mut self) -> Result<(), SinkError> {
        if !self.is_unchecked {
            return Ok(());
        }
        let sql = concat!("SELECT ", in_transaction!());
        let answer = self.begin()?.fetch_one(sql).await.and_then(|row| row.try_get::<bool, _>(0));
        let is_open = answer.map_err(|error| sink_error(error, LinkLost::BeforeCommit));
        self.checked_idle(is_open)
    }

    /// Takes what a statement has shown of the transaction.
    ///
    /// # Errors
    /// As for [`check_idle`](Self::check_idle).
    pub(crate) fn checked_idle(&mut self, is_open: Result<bool, SinkError>) -> Result<(), SinkError> {
        match is_open {
            Ok(false) => {
                self.is_unchecked = false;
                self.end();
                Ok(())
            }
            Err(error) if error.code() != Some("25P02") => Err(error),
            // The connection stays busy, so it is closed.
            Ok(true) | Err(_) => {
                tracing::warn!("a connection of the PostgreSQL pool had an open transaction, and was closed");
                let text = "a connection came from the pool with an open transaction, which is rolled back; end every \
                            transaction before its connection is given back to the pool";
                Err(SinkError::new(ErrorClass::Transient, text))
            }
        }
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
