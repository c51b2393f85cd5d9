//! Owns the translation of SQLSTATE codes into error classes, and what of a server's error may be shown.
//! Must not know statements: the code decides, never the message.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
//!
//! The server's message is never shown. It may quote values (`invalid input syntax for type integer: "…"`), its
//! detail does so for most errors, and a trigger may say what it likes under any code. What is shown is our own text
//! for the code, and the names of constraint and column.

use std::fmt;

use batchsql_core::{ErrorClass, SinkError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What it means that the link is lost, or that the server's answer makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkLost {
    /// Nothing that could commit has been sent: nothing is durable.
    BeforeCommit,
    /// The statement that commits has been sent: nobody knows.
    AfterCommit,
}

/// Who raised an error, and how badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raised {
    /// The server itself, which says where in its source. A pooler between us does not.
    by_server: bool,
    /// The connection ends with it.
    ends_link: bool,
}

impl Raised {
    fn of(error: &PgDatabaseError) -> Self {
        let ends_link = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
        Self { by_server: error.routine().is_some(), ends_link }
    }

    /// Whether a statement that is answered by this error is undone. What a pooler says of its own troubles
    /// (`query_timeout`, a server that it lost) says nothing of what the server did.
    fn undoes(self, code: &str) -> bool {
        let is_of = |starts: &[&str]| starts.iter().any(|start| code.starts_with(start));
        match self {
            // Shutdown and timeouts of the session: the server looks for them before a commit, not in it.
            Self { by_server: true, ends_link: true } => is_of(&["57P0", "25P0"]),
            Self { by_server: true, ends_link: false } => true,
            Self { by_server: false, ends_link: true } => false,
            Self { by_server: false, ends_link: false } => !is_of(&["08", "57", "58", "XX"]),
        }
    }
}

/// The class of an error that answers a statement.
fn class_of(code: &str, raised: Raised, lost: LinkLost) -> ErrorClass {
    match lost {
        LinkLost::AfterCommit if !raised.undoes(code) => ErrorClass::Unknown,
        LinkLost::BeforeCommit if !raised.by_server && code.starts_with("XX") => ErrorClass::Transient,
        _ => class(code),
    }
}

/// The class of a code.
pub(crate) fn class(code: &str) -> ErrorClass {
    match code {
        // The server cannot say itself whether the transaction was committed.
        "08007" | "40003" => ErrorClass::Unknown,
        // Two rows of the statement are the same row; a row alone is refused by a subquery of its table.
        "21000" => ErrorClass::Duplicate,
        // Our binary values are not of the column's type (any more).
        "22P03" => ErrorClass::Schema,
        // A read-only transaction: a standby, or a server that is being failed over.
        "25006" => ErrorClass::Resource,
        "25P03" | "25P04" => ErrorClass::Transient,
        "42501" => ErrorClass::Permission,
        // Prepared statements that are not where they were made: on another connection they are made again.
        "26000" | "42P05" => ErrorClass::Transient,
        // What the server did not foresee: often a passing race, or an extension that cannot read a value. It is
        // tried once more before anything is concluded from it, see `write`.
        "XX000" => ErrorClass::Row,
        // Corrupt data or a corrupt index: the rows wait for help.
        "XX001" | "XX002" => ErrorClass::Resource,
        // A value that is too long for a column of type name.
        "42622" => ErrorClass::Row,
        // 53300: too many connections.
        "53300" | "53000" => ErrorClass::Transient,
        // Object in use, lock not available, and a function that sees the server change.
        "55006" | "55P03" => ErrorClass::Transient,
        // 40002 is an integrity constraint; the others are serialization and deadlock.
        "40002" => ErrorClass::Row,
        // Shutdown, crash of another session, startup, cancel and statement_timeout; a database that was dropped.
        "57P04" => ErrorClass::Schema,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "40" | "57" | "72" => ErrorClass::Transient,
            // Triggers and functions of the table (09, 20, 27, 2F, 38, 39, P0), data and integrity.
            "09" | "20" | "22" | "23" | "27" | "2F" | "38" | "39" | "44" | "P0" => ErrorClass::Row,
            // Not supported: a cached plan that no longer fits, or a rule or partition that cannot take the statement.
            "0A" | "3D" | "3F" | "42" | "55" => ErrorClass::Schema,
            "28" => ErrorClass::Permission,
            "53" | "58" => ErrorClass::Resource,
            // Too large for one statement or one index entry: split; a row that is too large alone is rejected.
            "54" => ErrorClass::Size,
            _ => ErrorClass::Internal,
        },
    }
}

/// What a code means, for people.
fn meaning(code: &str) -> &'static str {
    match code {
        "08007" | "40003" => "the server does not know whether the transaction was committed",
        "0A000" => "the table cannot take this statement",
        "21000" => "two rows of a statement are the same row of the table",
        "22001" => "a text is too long for its column",
        "22003" => "a number is out of the range of its column",
        "22007" | "22008" => "a date or time is not valid for its column",
        "22021" | "22P05" => "a text has a character that the database's encoding does not have",
        "22P02" => "a text is not valid for the type of its column",
        "22P03" => "a column has another type than when the table was read",
        "22023" => "a value is not valid for its column",
        "23502" => "a value is NULL where the column needs one",
        "23503" => "a foreign key is violated",
        "23505" => "a unique key is violated",
        "23514" => "a check is violated, or there is no partition for the row",
        "23P01" => "an exclusion constraint is violated",
        "25006" => "the server is read-only; wait for the failover, or connect to the primary",
        "26000" | "42P05" => {
            "a prepared statement is not where it was made; behind a pooler use prepared_statements(false)"
        }
        "28000" | "28P01" => "the user may not connect; check user, password and pg_hba.conf",
        "3D000" | "57P04" => "the database does not exist; check its name",
        "3F000" => "the schema of the table does not exist",
        "40001" => "the transaction could not be serialized",
        "40P01" => "deadlock",
        "42501" => "the user has no right to do this; grant it",
        "42622" => "a text is too long for its column",
        "42703" => "a column does not exist",
        "42804" => "a column has another type than the rows",
        "42P01" => "the table does not exist",
        "42P10" => "there is no unique index over exactly the key",
        "53100" => "the server's disk is full",
        "53200" => "the server is out of memory",
        "53300" => "the server has too many connections; lower max_connections here or raise it there",
        "54000" => "the statement, or an index entry of a row, is too large",
        "55P03" => "a lock was not available within lock_timeout",
        "57014" => "the statement was cancelled, or took longer than the server's statement_timeout",
        "57P01" => "the server ended the connection",
        "57P02" => "the server ended the connection after a crash",
        "57P03" => "the server does not take connections now",
        "XX000" => "the server failed in a way that it did not foresee; its log says how",
        "XX001" | "XX002" => "the server's data or an index is corrupt; its log says where",
        _ => match class(code) {
            ErrorClass::Row => "the row is refused, perhaps by a trigger or function of the table",
            ErrorClass::Schema => "the table cannot be written as it is",
            ErrorClass::Resource => "the server is out of something",
            ErrorClass::Transient => "the server could not do this now",
            ErrorClass::Size => "the statement is too large or too complex",
            _ => "the server refused the statement; its log says why",
        },
    }
}

/// An error of the server with its code, without its words.
pub(crate) fn server_error(code: &str, class: ErrorClass, error: Option<&PgDatabaseError>) -> SinkError {
    let mut text = meaning(code).to_owned();
    // What raises an error itself may name anything.
    if let Some(error) = error.filter(|error| error.routine() != Some("exec_stmt_raise")) {
        if let Some(name) = error.constraint() {
            text += &format!(", constraint {name:?}");
        }
        if let Some(name) = error.column() {
            text += &format!(", column {name:?}");
        }
    }
    SinkError::with_code(class, code, text)
}

/// The error of a row that is refused before it is sent, with the code that the server would give.
pub(crate) fn row_error(code: &'static str, column: &str) -> SinkError {
    SinkError::with_code(ErrorClass::Row, code, format!("{}, column {column:?}", meaning(code)))
}

/// Any error of the client.
pub(crate) fn sink_error(error: sqlx::Error, sent: LinkLost) -> SinkError {
    let lost = match sent {
        LinkLost::BeforeCommit => ErrorClass::Transient,
        LinkLost::AfterCommit => ErrorClass::Unknown,
    };
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => {
                let raised = Raised::of(error);
                let reported = server_error(error.code(), class_of(error.code(), raised, sent), Some(error));
                if raised.ends_link { reported.caused_by(LinkEnded) } else { reported }
            }
            None => SinkError::new(ErrorClass::Internal, "the client gave an error of another database"),
        },
        // Its text is the operating system's.
        sqlx::Error::Io(error) => SinkError::new(lost, format!("the link to the server was lost: {error}")),
        sqlx::Error::PoolTimedOut => SinkError::new(
            ErrorClass::Transient,
            "no connection within connect_timeout; the server is down or the pool is too small",
        ),
        sqlx::Error::PoolClosed => SinkError::new(ErrorClass::Transient, "the pool was closed"),
        sqlx::Error::Tls(_) => {
            SinkError::new(ErrorClass::Transient, "TLS failed; check the server's certificate and sslmode")
        }
        sqlx::Error::Protocol(_) => {
            SinkError::new(lost, "the server's answer was not understood; the connection is closed")
        }
        // What it says may quote a value.
        _ => SinkError::new(
            if lost == ErrorClass::Unknown { lost } else { ErrorClass::Internal },
            "the postgresql client failed",
        ),
    }
}

/// The source of errors that end the connection.
#[derive(Debug)]
struct LinkEnded;

impl fmt::Display for LinkEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side ended the connection")
    }
}

impl std::error::Error for LinkEnded {}

/// Whether the connection is as useful as before: the server refused something, and said so, or we found something
/// wrong with the table.
///
/// One that ended is not, nor is one whose transaction has failed and is still open, nor is one to a server that is read-only: after a failover the name of the server leads to
/// another one, and only a new connection finds it. One whose prepared statements were taken away makes them again
/// only when it is new.
pub(crate) fn is_refusal(error: &SinkError) -> bool {
    const USELESS: [&str; 8] = ["08", "57P", "25P02", "25P03", "25P04", "25006", "26000", "42P05"];
    let has_ended = std::error::Error::source(error).is_some_and(|source| source.is::<LinkEnded>());
    match error.code() {
        None => error.class() == ErrorClass::Schema,
        Some(code) => {
            let is_useless = USELESS.iter().any(|start| code.starts_with(start));
            !has_ended && !is_useless && error.class() != ErrorClass::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        let check = |codes: &[&str], expected| {
            codes.iter().for_each(|code| assert_eq!(class(code), expected, "code {code}"));
        };
        check(&["08000", "08006", "08P01", "40001", "40P01", "53300", "55P03", "55006"], ErrorClass::Transient);
        check(&["57014", "57P01", "57P02", "57P03", "25P03", "72000"], ErrorClass::Transient);
        check(&["22001", "22003", "22007", "22021", "22023", "22P02", "22P05"], ErrorClass::Row);
        check(
            &["23502", "23503", "23505", "23514", "23P01", "44000", "P0001", "P0004", "27000", "42622"],
            ErrorClass::Row,
        );
        check(&["42P01", "42703", "42804", "42P10", "3F000", "3D000", "0A000", "22P03", "55000"], ErrorClass::Schema);
        check(&["42501", "28000", "28P01"], ErrorClass::Permission);
        check(&["54000", "54001", "54011"], ErrorClass::Size);
        check(&["21000"], ErrorClass::Duplicate);
        check(&["25006", "53100", "53200", "53400", "58030"], ErrorClass::Resource);
        check(&["08007", "40003"], ErrorClass::Unknown);
        check(&["25P02", "nonsense", ""], ErrorClass::Internal);
        check(&["26000", "42P05"], ErrorClass::Transient);
        check(&["XX001", "XX002"], ErrorClass::Resource);
    }

    #[test]
    fn only_the_server_itself_knows_that_a_commit_failed() {
        let (server, pooler) = (true, false);
        let check = |by_server, ends_link, code, before, after| {
            let raised = Raised { by_server, ends_link };
            assert_eq!(class_of(code, raised, LinkLost::BeforeCommit), before, "{code} {raised:?}");
            assert_eq!(class_of(code, raised, LinkLost::AfterCommit), after, "{code} {raised:?}");
        };
        use ErrorClass::{Resource, Row, Transient, Unknown};
        // A connection to another database that a trigger lost; PgBouncer's query_timeout.
        check(server, false, "08006", Transient, Transient);
        check(pooler, true, "08P01", Transient, Unknown);
        check(pooler, false, "58000", Resource, Unknown);
        check(pooler, false, "XX000", Transient, Unknown);
        check(server, false, "XX000", Row, Row);
        check(server, true, "57P01", Transient, Transient);
        check(pooler, true, "57P01", Transient, Unknown);
        check(server, false, "57014", Transient, Transient);
        check(server, true, "XX000", Row, Unknown);
        check(server, false, "23505", Row, Row);
        check(pooler, false, "23505", Row, Row);
    }

    #[test]
    fn a_link_that_is_lost_means_what_was_sent() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        assert_eq!(sink_error(lost(), LinkLost::BeforeCommit).class(), ErrorClass::Transient);
        assert_eq!(sink_error(lost(), LinkLost::AfterCommit).class(), ErrorClass::Unknown);
        assert!(!is_refusal(&sink_error(lost(), LinkLost::AfterCommit)));
        assert!(is_refusal(&server_error("23505", ErrorClass::Row, None)));
        assert!(!is_refusal(&server_error("57P01", ErrorClass::Transient, None)));
        assert!(!is_refusal(&server_error("25006", ErrorClass::Resource, None)));
        assert!(!is_refusal(&server_error("26000", ErrorClass::Transient, None)));
        assert!(!is_refusal(&server_error("25P02", ErrorClass::Internal, None)));
        assert!(!is_refusal(&server_error("3D000", ErrorClass::Schema, None).caused_by(LinkEnded)));
        assert!(is_refusal(&SinkError::new(ErrorClass::Schema, "ours")));
    }
}
