//! Owns the check for state that was left on a connection: an open transaction, autocommit off, or another character set.
//! Must not know pools.
//!
//! A batch that joined an open transaction would be reported as written, and then be rolled back with it. Every
//! answer of the server says whether a transaction is open. `sqlx` exposes that in one place only: `begin_with` fails
//! with `BeginFailed` if no transaction is open after the statement that should begin one. So a statement that begins
//! nothing shows whether one is open.

use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use crate::classify::number;

/// Fails with 1690 where the session is not in autocommit, or converts text from another character set. It reads a table, because
/// proxies pin a server connection to a client whose statement has a variable (`@@autocommit`). MariaDB finds a variable by its
/// name at once; MySQL reads all of them each time.
pub(crate) const PROBE_OF_MARIADB: &str = "SELECT EXP(IF((SELECT VARIABLE_VALUE FROM information_schema.SESSION_VARIABLES \
                                           WHERE VARIABLE_NAME = 'AUTOCOMMIT') = 'OFF' \
                                           OR (SELECT VARIABLE_VALUE FROM information_schema.SESSION_VARIABLES \
                                           WHERE VARIABLE_NAME = 'CHARACTER_SET_CLIENT') <> 'utf8mb4' \
                                           OR (SELECT VARIABLE_VALUE FROM information_schema.SESSION_VARIABLES \
                                           WHERE VARIABLE_NAME = 'CHARACTER_SET_CONNECTION') <> 'utf8mb4', 10000, 0))";
pub(crate) const PROBE_OF_MYSQL: &str = "SELECT EXP(IF(EXISTS (SELECT 1 FROM performance_schema.session_variables \
                                         WHERE (VARIABLE_NAME = 'autocommit' AND VARIABLE_VALUE = 'OFF') \
                                         OR (VARIABLE_NAME IN ('character_set_client', 'character_set_connection') \
                                         AND VARIABLE_VALUE <> 'utf8mb4')), 10000, 0))";

/// For other servers: shows only whether a transaction is open.
pub(crate) const PROBE_OF_OTHERS: &str = "DO 0";

/// `ER_DATA_OUT_OF_RANGE`
const OUT_OF_RANGE: u16 = 1690;

/// The state that was found on an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// A transaction is open.
    Transaction,
    /// The next statement would open a transaction, or its text would be converted.
    Settings,
}

/// Checks for state that was left open, by the probe of the server's kind. One round trip.
pub(crate) async fn left_open(connection: &mut MySqlConnection, probe: &'static str) -> sqlx::Result<Left> {
    match connection.begin_with(probe).await {
        Err(sqlx::Error::BeginFailed) => Ok(Left::Nothing),
        Ok(_) | Err(sqlx::Error::InvalidSavePointStatement) => Ok(Left::Transaction),
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == OUT_OF_RANGE => Ok(Left::Settings),
        Err(error) => Err(error),
    }
}
