//! Owns the names of the sessions of a pool's connections: a connection that was in use just before is found again without
//! a round trip.
//! Must not know how a session is named, or what the name is for.
//!
//! `sqlx` does not show the id of a connection. But each connection keeps its own
//! description of a statement that it has prepared, and returns the same one each time. Two connections have two
//! descriptions, at two addresses; the list holds the description, so its address is not used again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::mysql::{MySqlConnection, MySqlStatement};
use sqlx::{Connection, Executor, Statement};

use crate::session::SessionName;

/// The statement. It has a column, because an empty list of columns has no address of its own.
const MARK: &str = "SELECT 1 AS batchsql_session";

/// The names, those that were used last at the end.
pub(crate) struct SessionNames {
    known: Mutex<VecDeque<(MySqlStatement<'static>, SessionName)>>,
    /// Pools do not report closed connections, so the oldest names are dropped.
    capacity: usize,
}

impl SessionNames {
    /// For a pool of this many connections.
    pub(crate) fn of(connections: u32) -> Self {
        let capacity = usize::try_from(connections).unwrap_or(usize::MAX).saturating_mul(2);
        Self { known: Mutex::default(), capacity }
    }

    /// The name of a connection's session; no round trip, unless the connection has closed the statement because of many
    /// others. Then the name is not known, nor if the server refuses the statement.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn find(&self, conn: &mut MySqlConnection) -> sqlx::Result<Option<SessionName>> {
        if self.lock().is_empty() || conn.cached_statements_size() == 0 {
            return Ok(None);
        }
        let Some(mark) = mark(conn).await? else { return Ok(None) };
        let mut known = self.lock();
        let place = known.iter().position(|(other, _)| is_same(other, &mark));
        let Some(entry) = place.and_then(|place| known.remove(place)) else { return Ok(None) };
        let name = entry.1.clone();
        known.push_back(entry);
        Ok(Some(name))
    }

    /// Keeps the name of a connection's session, and returns it. One round trip, the first time. No name if the server refuses
    /// the statement: it may have too many (1461).
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn keep(
        &self,
        conn: &mut MySqlConnection,
        name: SessionName,
    ) -> sqlx::Result<Option<SessionName>> {
        let Some(mark) = mark(conn).await? else { return Ok(None) };
        if conn.cached_statements_size() == 0 {
            return Ok(Some(name));
        }
        let mut known = self.lock();
        known.retain(|(other, _)| !is_same(other, &mark));
        if known.len() >= self.capacity {
            known.pop_front();
        }
        known.push_back((mark, name.clone()));
        Ok(Some(name))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(MySqlStatement<'static>, SessionName)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The description of the statement; `None` if the server refuses it.
async fn mark(conn: &mut MySqlConnection) -> sqlx::Result<Option<MySqlStatement<'static>>> {
    match conn.prepare(MARK).await {
        Ok(mark) => Ok(Some(Statement::to_owned(&mark))),
        Err(sqlx::Error::Database(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two descriptions are one.
fn is_same(one: &MySqlStatement<'_>, other: &MySqlStatement<'_>) -> bool {
    std::ptr::eq(one.columns(), other.columns())
}
