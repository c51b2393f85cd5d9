//! Owns the check that a database can take back what was written.
//! Must not know rows.

use batchsql_core::{ErrorClass, SinkError};
use batchsql_sql::quote;
use rusqlite::Connection;

use crate::classify::statement_error;

/// Checks one of the databases of a connection.
///
/// # Errors
/// Its `journal_mode` is `off`: SQLite cannot roll back, so the rows of a refused statement would stay, and be written once more.
pub(crate) fn check_journal(conn: &Connection, database: &str) -> Result<(), SinkError> {
    let pragma = format!("PRAGMA {}.journal_mode", quote(database));
    let mut statement = conn.prepare_cached(&pragma).map_err(statement_error)?;
    let mode: String = statement.query_row([], |row| row.get(0)).map_err(statement_error)?;
    if mode != "off" {
        return Ok(());
    }
    let of = if database == "main" { String::new() } else { format!(" of {}", quote(database)) };
    let text = format!("journal_mode{of} is off, so rows that are refused cannot be rolled back; use WAL or DELETE");
    Err(SinkError::new(ErrorClass::Schema, text))
}
