//! Owns the check for state that was left on a connection: an open transaction, or autocommit off.
//! Must not know pools.
//!
//! A batch that joined an open transaction would be reported as written, and then be rolled back with it. Every
//! answer of the server says whether a transaction is open. `sqlx` exposes that in one place only: `begin_with` fails
//! with `BeginFailed` if no transaction is open after the statement that should begin one. So a statement that begins
//! nothing shows whether one is open.

use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use crate::classify::number;

/// Fails with 1690 where the session is not in autocommit.
const PROBE: &str = "SELECT EXP(IF(@@autocommit, 0, 10000))";

/// For proxies that pin a server connection to a client whose statement has a variable.
const PROBE_WITHOUT_VARIABLES: &str = "DO 0";

/// `ER_DATA_OUT_OF_RANGE`
const OUT_OF_RANGE: u16 = 1690;

/// The state that was found on an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// A transaction is open.
    Transaction,
    /// The next statement would open a transaction.
    AutocommitOff,
}

/// Checks for state that was left open. One round trip.
pub(crate) async fn left_open(connection: &mut MySqlConnection, has_variables: bool) -> sqlx::Result<Left> {
    match connection.begin_with(if has_variables { PROBE } else { PROBE_WITHOUT_VARIABLES }).await {
        Err(sqlx::Error::BeginFailed) => Ok(Left::Nothing),
        Ok(_) | Err(sqlx::Error::InvalidSavePointStatement) => Ok(Left::Transaction),
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == OUT_OF_RANGE => Ok(Left::AutocommitOff),
        Err(error) => Err(error),
    }
}
