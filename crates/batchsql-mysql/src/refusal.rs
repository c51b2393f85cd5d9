//! Owns the question whether the server itself has refused a statement whose error may also be that of a proxy or of a lost
//! connection.
//! Must not know rows, plans or which codes these are.
//!
//! A trigger can raise every number, also that of a lost connection (2013). A proxy that has lost its server sends the same
//! packet and goes on with another connection, so an answer to a ping shows nothing. The session that has refused a statement
//! has the error in its list, until its next statement; a session that did not run it, or that has finished it, has not.

use batchsql_core::SinkError;
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

use crate::classify::Failed;
use crate::link::Link;
use crate::session::{Sessions, text};

/// The error once the server was asked whether it has refused the statement. Costs a round trip after such an error only.
pub(crate) async fn settled(link: &mut Link<'_>, sessions: &Sessions, failed: Failed) -> Failed {
    let Some(class) = failed.if_refused else { return failed };
    // Engines that reach other servers (SPIDER, FEDERATED) report their lost connections.
    let is_possible = link.table.engine.eq_ignore_ascii_case("InnoDB");
    // The kind of server comes second, because the question for it empties the list.
    if !is_possible || !is_listed(link.connection, failed.code).await || !sessions.is_known(link.connection).await {
        return failed;
    }
    link.attempt.defer();
    let text = "the server itself has refused the statement with this number; a trigger or function of the table may have raised it with SIGNAL";
    Failed { error: SinkError::with_code(class, failed.code, text), usable: true, ..failed }
}

/// Whether the session has this code in its list of errors.
async fn is_listed(connection: &mut MySqlConnection, code: u16) -> bool {
    // Only the code is read: the message may have a value.
    let listed = connection.fetch_all("SHOW ERRORS").await;
    listed.is_ok_and(|rows| rows.iter().any(|row| text(row, 1).parse() == Ok(code)))
}
