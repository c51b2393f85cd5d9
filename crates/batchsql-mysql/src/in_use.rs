//! Owns the check for state that was left on a connection: an open transaction, or settings that change where or how rows are
//! stored.
//! Must not know pools.
//!
//! A batch that joined an open transaction would be reported as written, and then be rolled back with it. Every
//! answer of the server says whether a transaction is open. `sqlx` exposes that in one place only: `begin_with` fails
//! with `BeginFailed` if no transaction is open after the statement that should begin one. So a statement that begins
//! nothing shows whether one is open.

use std::borrow::Cow;
use std::sync::Arc;

use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use crate::classify::number;
use crate::quoted;

/// The database and the settings of a session, as one text.
pub(crate) type State = Arc<str>;

/// What changes where or how rows are stored, besides the database. Every supported version has them, so that two servers with
/// the same settings have the same state; the isolation level has one of two names, or both.
macro_rules! names {
    () => {
        "('autocommit', 'character_set_client', 'character_set_connection', 'character_set_results', 'sql_mode', \
         'time_zone', 'check_constraint_checks', 'foreign_key_checks', 'unique_checks', 'sql_select_limit', \
         'sql_auto_is_null', 'explicit_defaults_for_timestamp', 'tx_isolation', 'transaction_isolation', 'sql_log_bin')"
    };
}

/// The state of a session as one text. It reads a table, because proxies pin a server connection to a client whose statement has
/// a variable (`@@autocommit`).
macro_rules! state_from {
    ($table:literal) => {
        concat!(
            "(SELECT SHA2(CONCAT_WS('|', COALESCE(DATABASE(), ''), \
             GROUP_CONCAT(DISTINCT CONCAT(REPLACE(LOWER(VARIABLE_NAME), 'transaction_', 'tx_'), '=', VARIABLE_VALUE) \
             ORDER BY CONCAT(REPLACE(LOWER(VARIABLE_NAME), 'transaction_', 'tx_'), '=', VARIABLE_VALUE) SEPARATOR '|')), 256) FROM ",
            $table,
            " WHERE VARIABLE_NAME IN ",
            names!(),
            ")"
        )
    };
}

/// Fails with 1690 where the session is not in autocommit, or converts text from or to another character set: for a session
/// of which no state is expected.
macro_rules! unfit_in {
    ($table:literal) => {
        concat!(
            "SELECT EXP(IF(EXISTS (SELECT 1 FROM ",
            $table,
            " WHERE (VARIABLE_NAME = 'autocommit' AND VARIABLE_VALUE = 'OFF') \
             OR (VARIABLE_NAME IN ('character_set_client', 'character_set_connection', 'character_set_results') \
             AND VARIABLE_VALUE <> 'utf8mb4')), 10000, 0)) LIMIT 1"
        )
    };
}

pub(crate) const STATE_OF_MARIADB: &str = state_from!("information_schema.SESSION_VARIABLES");
pub(crate) const STATE_OF_MYSQL: &str = state_from!("performance_schema.session_variables");
pub(crate) const PROBE_OF_MARIADB: &str = unfit_in!("information_schema.SESSION_VARIABLES");
pub(crate) const PROBE_OF_MYSQL: &str = unfit_in!("performance_schema.session_variables");

/// Fails with 1690 where the state of the session is none of these, which were read from other sessions. The limit replaces
/// `sql_select_limit` of the session: with 0, nothing would be evaluated.
pub(crate) fn probe_of_states(state: &'static str, accepted: &[State]) -> String {
    let accepted: Vec<String> = accepted.iter().map(|state| quoted::text(state)).collect();
    format!("SELECT EXP(IF({state} IN ({}), 0, 10000)) LIMIT 1", accepted.join(", "))
}

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
    /// The next statement would open a transaction, its text would be converted, or rows would be stored elsewhere or otherwise
    /// than by the session that has read their table.
    Settings,
}

/// Checks for state that was left open, by the probe of the server's kind. One round trip.
pub(crate) async fn left_open(connection: &mut MySqlConnection, probe: Cow<'static, str>) -> sqlx::Result<Left> {
    match connection.begin_with(probe).await {
        Err(sqlx::Error::BeginFailed) => Ok(Left::Nothing),
        Ok(_) | Err(sqlx::Error::InvalidSavePointStatement) => Ok(Left::Transaction),
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == OUT_OF_RANGE => Ok(Left::Settings),
        Err(error) => Err(error),
    }
}
