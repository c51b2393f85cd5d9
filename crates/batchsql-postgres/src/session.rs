//! Owns the name of a server session: how it is queried, and how another connection sees the session.
//! Must not know pools or lanes.
//!
//! A process id alone is not unique: the system reuses it for a later process, and another server has its own ids. So
//! the name consists of process id, start of the process, and the server with its own start.
//!
//! Simple queries only: they leave no prepared statement on any kind of connection.

use batchsql_core::{ErrorClass, SinkError};
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};

use crate::classify::{LinkLost, is_refusal, sink_error};

/// One run of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) place: ServerPlace,
    /// Identifier of its data directory; `None` if the server does not report it.
    pub(crate) system: Option<String>,
}

/// Address and start of a server, as a session sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerPlace {
    /// Microseconds since 1970.
    pub(crate) started: i64,
    /// `None` over a Unix socket.
    pub(crate) address: Option<String>,
    pub(crate) port: Option<i32>,
}

/// Identifies a session of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId {
    pub(crate) pid: i32,
    /// Microseconds since 1970.
    pub(crate) started: i64,
}

/// A session as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `None`: the user may not see it.
    pub(crate) id: Option<SessionId>,
    /// The object id of the user who connected.
    pub(crate) user: i64,
    pub(crate) place: ServerPlace,
    /// What was left in it before the query.
    pub(crate) left: Option<Left>,
}

/// What other code has left in a session, with which rows would be lost or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Transaction,
    /// Another `client_encoding` than UTF-8: the server would read the bytes of each text as other characters.
    Encoding,
}

impl Left {
    /// The answer to [`left`].
    pub(crate) fn of(answer: &str) -> Option<Self> {
        match answer {
            "transaction" => Some(Self::Transaction),
            "encoding" => Some(Self::Encoding),
            _ => None,
        }
    }
}

/// The session name that the pipeline gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendSession {
    pub(crate) id: SessionId,
    pub(crate) user: i64,
    pub(crate) server: Server,
}

/// The result of a check from another session.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    /// The session that runs the check.
    pub(crate) own: Named,
    /// The session that has the process id now.
    pub(crate) found: Option<Found>,
}

/// The session that has a process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Whether it executes a command, as far as the server shows it. True also while it waits for data of its
    /// client.
    pub(crate) is_active: Option<bool>,
    /// `None` for processes without a user.
    pub(crate) user: Option<i64>,
    /// `None`: hidden from the checking user.
    pub(crate) started: Option<i64>,
}

/// The known state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Gone,
    There,
    /// Its process id is in use by its user, but the start of the process is hidden.
    Hidden,
    /// This is another server, or its identity cannot be determined.
    Elsewhere,
}

/// Microseconds since 1970. Exact, because they need 51 of the 53 bits of a double.
macro_rules! micros {
    ($time:literal) => {
        concat!("(pg_catalog.date_part('epoch', ", $time, ") * 1000000)::pg_catalog.int8")
    };
}

/// What other code has left, see [`Left::of`]. Outside of a transaction, the transaction starts with the statement itself, so
/// both times are equal.
macro_rules! left {
    () => {
        "CASE WHEN pg_catalog.now() OPERATOR(pg_catalog.<>) pg_catalog.statement_timestamp() THEN 'transaction' \
         WHEN pg_catalog.replace(pg_catalog.upper(pg_catalog.current_setting('client_encoding')), '-', '') \
         NOT IN ('UTF8', 'UNICODE') THEN 'encoding' ELSE '' END"
    };
}
pub(crate) use left;

/// The columns of [`Named`], from `pg_stat_activity` without its joins.
macro_rules! named {
    () => {
        concat!(
            "SELECT s.pid, ",
            micros!("s.backend_start"),
            ", s.usesysid::pg_catalog.int8, ",
            micros!("pg_catalog.pg_postmaster_start_time()"),
            ", pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(), ",
            left!()
        )
    };
}

const OWN: &str = concat!(named!(), " FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) s");

/// Whether a session `f` executes something. With `track_activities = off` its state is always `disabled`.
const IS_ACTIVE: &str = "CASE WHEN f.state OPERATOR(pg_catalog.<>) 'disabled' \
                         THEN f.state OPERATOR(pg_catalog.=) 'active' END";

/// Queries the name of a connection's session.
///
/// # Errors
/// The server rejects the query, or the connection is lost.
pub(crate) async fn ask_name(link: &mut PgConnection) -> Result<Named, SinkError> {
    named(&one_row(link, OWN).await?)
}

/// Checks the session that has a process id.
///
/// # Errors
/// The server rejects the query, or the connection is lost.
pub(crate) async fn look(link: &mut PgConnection, id: SessionId) -> Result<Sight, SinkError> {
    let SessionId { pid, .. } = id;
    let (columns, of_found) = (named!(), micros!("f.backend_start"));
    let sql = format!(
        "{columns}, f.pid, f.usesysid::pg_catalog.int8, {of_found}, {IS_ACTIVE} \
         FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) s \
         LEFT JOIN pg_catalog.pg_stat_get_activity({pid}) f ON true"
    );
    let row = one_row(link, &sql).await?;
    let is_found = get::<Option<i32>>(&row, 7)?.is_some();
    let found = Found { user: get(&row, 8)?, started: get(&row, 9)?, is_active: get(&row, 10)? };
    Ok(Sight { own: named(&row)?, found: is_found.then_some(found) })
}

/// Ends a session, if it is still the intended one.
///
/// # Errors
/// The right is missing (`42501`), or the connection is lost.
pub(crate) async fn terminate(link: &mut PgConnection, session: &BackendSession) -> Result<(), SinkError> {
    let (SessionId { pid, started }, user, of_found) = (session.id, session.user, micros!("f.backend_start"));
    let sql = format!(
        "SELECT pg_catalog.pg_terminate_backend(f.pid) FROM pg_catalog.pg_stat_get_activity({pid}) f \
         WHERE {of_found} = {started} AND f.usesysid = {user}::pg_catalog.oid"
    );
    link.execute(&*sql).await.map(drop).map_err(failed)
}

/// The identifier of the server's data directory; `None` if it may not be read.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn ask_system(link: &mut PgConnection) -> Result<Option<String>, SinkError> {
    let sql = "SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()";
    match one_row(link, sql).await {
        Ok(row) => get(&row, 0),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl BackendSession {
    /// The state of this session according to a check; `server` is the server that was checked.
    pub(crate) fn presence(&self, server: &Server, found: Option<Found>) -> Presence {
        match self.server.relation(server) {
            Relation::Other => return Presence::Elsewhere,
            // The sessions of the previous run ended with it.
            Relation::Restarted => return Presence::Gone,
            Relation::Same => {}
        }
        match found {
            // Only one process has the id at a time: if it is another one, ours has ended.
            None => Presence::Gone,
            Some(found) if found.user != Some(self.user) => Presence::Gone,
            Some(Found { started: None, .. }) => Presence::Hidden,
            Some(found) if found.started == Some(self.id.started) => Presence::There,
            Some(_) => Presence::Gone,
        }
    }
}

/// How a server relates to the server of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Same,
    Restarted,
    Other,
}

impl Server {
    fn relation(&self, now: &Self) -> Relation {
        let (then, later) = (&self.place, &now.place);
        let has_same_place = then.address == later.address && then.port == later.port;
        let has_same_system = match (&self.system, &now.system) {
            (Some(then), Some(later)) if then != later => return Relation::Other,
            (Some(_), Some(_)) => true,
            _ => false,
        };
        if then.started == later.started && (has_same_place || has_same_system) {
            // One server may have several addresses.
            Relation::Same
        } else if then.started < later.started && has_same_place {
            Relation::Restarted
        } else {
            Relation::Other
        }
    }
}

async fn one_row(link: &mut PgConnection, sql: &str) -> Result<PgRow, SinkError> {
    let row = link.fetch_optional(sql).await.map_err(failed)?;
    // With a code, so that it counts as a rejection: the connection stays usable.
    row.ok_or_else(|| SinkError::with_code(ErrorClass::Schema, "02000", "the server does not show the session"))
}

fn named(row: &PgRow) -> Result<Named, SinkError> {
    let (pid, started): (i32, Option<i64>) = (get(row, 0)?, get(row, 1)?);
    Ok(Named {
        id: started.map(|started| SessionId { pid, started }),
        user: get(row, 2)?,
        place: ServerPlace { started: get(row, 3)?, address: get(row, 4)?, port: get(row, 5)? },
        left: Left::of(&get::<String>(row, 6)?),
    })
}

fn get<'r, T>(row: &'r PgRow, index: usize) -> Result<T, SinkError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    // The text contains numbers and an address, no row values.
    row.try_get(index).map_err(|error| {
        let text = format!("the server describes its sessions in an unexpected way: {error}");
        SinkError::with_code(ErrorClass::Schema, "02000", text)
    })
}

fn failed(error: sqlx::Error) -> SinkError {
    sink_error(error, LinkLost::BeforeCommit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(started: i64, address: Option<&str>, system: Option<&str>) -> Server {
        let place = ServerPlace { started, address: address.map(Into::into), port: address.map(|_| 5432) };
        Server { place, system: system.map(Into::into) }
    }

    #[test]
    fn a_session_has_ended_only_when_that_is_proven() {
        let of = server(100, Some("10.0.0.1"), Some("7"));
        let session = BackendSession { id: SessionId { pid: 4, started: 150 }, user: 10, server: of.clone() };
        let check = |server: &Server, found: Option<(Option<i64>, Option<i64>)>, expected| {
            let found = found.map(|(user, started)| Found { user, started, is_active: None });
            assert_eq!(session.presence(server, found), expected, "{server:?} {found:?}");
        };
        check(&of, None, Presence::Gone);
        check(&of, Some((Some(10), Some(150))), Presence::There);
        check(&of, Some((Some(10), Some(151))), Presence::Gone);
        check(&of, Some((Some(10), None)), Presence::Hidden);
        // The process id now belongs to another user, or to a process of the server.
        check(&of, Some((Some(11), None)), Presence::Gone);
        check(&of, Some((None, None)), Presence::Gone);
        // It was restarted, and may have a session with that id.
        check(&server(200, Some("10.0.0.1"), Some("7")), None, Presence::Gone);
        check(&server(200, Some("10.0.0.1"), None), Some((Some(10), Some(250))), Presence::Gone);
        // The same run, under another address.
        check(&server(100, Some("10.0.0.2"), Some("7")), None, Presence::Gone);
        check(&server(100, None, Some("7")), Some((Some(10), Some(150))), Presence::There);
        // Other servers: absence proves nothing.
        check(&server(100, Some("10.0.0.2"), None), None, Presence::Elsewhere);
        check(&server(200, Some("10.0.0.2"), Some("7")), None, Presence::Elsewhere);
        check(&server(200, Some("10.0.0.1"), Some("8")), None, Presence::Elsewhere);
        check(&server(100, Some("10.0.0.1"), Some("8")), None, Presence::Elsewhere);
        // The clock was set back, or it is another server.
        check(&server(50, Some("10.0.0.1"), Some("7")), None, Presence::Elsewhere);
    }

    #[test]
    fn over_a_socket_there_is_no_address() {
        let of = server(100, None, None);
        assert_eq!(of.relation(&of), Relation::Same);
        assert_eq!(of.relation(&server(200, None, None)), Relation::Restarted);
        assert_eq!(of.relation(&server(100, Some("10.0.0.1"), None)), Relation::Other);
    }
}
