//! Owns the mark of a connection: by it, the name of its session is found again without a round trip.
//! Must not know how a session is named, or what the name is for.
//!
//! `sqlx` does not show the id of a connection. But each connection keeps its own
//! description of a statement that it has prepared, and returns the same one each time. Two connections have two
//! descriptions, at two addresses; the list holds the description, so its address is not used again.

use sqlx::mysql::{MySqlConnection, MySqlStatement};
use sqlx::{Connection, Executor, Statement};

use crate::session::SessionName;

/// The statement. It has a column, because an empty list of columns has no address of its own.
const MARK: &str = "SELECT 1 AS batchsql_session";

/// The description of the statement.
struct Mark(MySqlStatement<'static>);

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0.columns(), other.0.columns())
    }
}

/// The names of the sessions of a pool's connections.
pub(crate) struct SessionNames(batchsql_sql::SessionNames<Mark, SessionName>);

impl SessionNames {
    /// For a pool of this many connections.
    pub(crate) fn of(connections: u32) -> Self {
        Self(batchsql_sql::SessionNames::of(connections))
    }

    /// The name of a connection's session; no round trip, unless the connection has closed the statement because of many
    /// others. Then the name is not known, nor if the server refuses the statement.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn find(&self, conn: &mut MySqlConnection) -> sqlx::Result<Option<SessionName>> {
        if self.0.is_empty() || conn.cached_statements_size() == 0 {
            return Ok(None);
        }
        Ok(mark(conn).await?.and_then(|mark| self.0.find(&mark)))
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
        if conn.cached_statements_size() > 0 {
            self.0.keep(mark, name.clone());
        }
        Ok(Some(name))
    }
}

/// The mark of a connection; `None` if the server refuses the statement.
async fn mark(conn: &mut MySqlConnection) -> sqlx::Result<Option<Mark>> {
    match conn.prepare(MARK).await {
        Ok(mark) => Ok(Some(Mark(Statement::to_owned(&mark)))),
        Err(sqlx::Error::Database(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
