//! Owns the mapping of SQLSTATE codes to error classes, and which parts of a server error may be shown.
//! Must not know statements: only the code decides, never the message.
//!
//! Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
//!
//! The server's message is never shown. It may quote values (`invalid input syntax for type integer: "…"`), its
//! detail does so for most errors, and a trigger may use any text with any code. Only our own text for the code and
//! the names of constraint and column are shown.

use std::fmt;

use batchsql_core::{ErrorClass, SinkError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The meaning of a lost connection or an invalid answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkLost {
    /// Nothing that could commit has been sent: nothing is durable.
    BeforeCommit,
    /// The statement that commits has been sent: the outcome is unknown.
    AfterCommit,
}

/// Who raised an error, and how severe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Raised {
    /// The server itself, which reports the position in its source. A pooler does not.
    by_server: bool,
    /// A function of the user, or another server that it asked, which may use any code: it says nothing about the session, the
    /// transaction or the server. The server has rolled the statement back and goes on.
    by_function: bool,
    /// The error ends the connection.
    ends_link: bool,
}

/// The routines that raise the code of a function: RAISE of PL/pgSQL, an exception of PL/Python, and what another server has raised,
/// by `dblink` and `postgres_fdw`.
const RAISE: [&str; 4] = ["exec_stmt_raise", "PLy_elog_impl", "dblink_res_error", FOREIGN_TABLE];

/// The routine that raises what the server of a foreign table has raised, or that it was lost. Before the local commit it commits
/// there.
const FOREIGN_TABLE: &str = "pgfdw_report_error";

/// The routines of PostgreSQL that begin and end transactions.
const COMMIT: [&str; 4] =
    ["CommitTransaction", "RecordTransactionCommit", "CommitTransactionCommand", "FinishPreparedTransaction"];

/// Whether an error that does not end the connection is of a function. PostgreSQL does not report the end of its own transaction
/// as not known, and an extension that does so is part of a statement; servers in other languages do (CockroachDB).
fn is_by_function(code: &str, file: Option<&str>, routine: Option<&str>) -> bool {
    let Some(routine) = routine else { return false };
    let is_postgres = file.is_some_and(|file| file.ends_with(".c")) && !COMMIT.contains(&routine);
    RAISE.contains(&routine) || (is_postgres && class(code) == ErrorClass::Unknown)
}

impl Raised {
    fn of(error: &PgDatabaseError) -> Self {
        let ends_link = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
        let by_function = !ends_link && is_by_function(error.code(), error.file(), error.routine());
        Self { by_server: error.routine().is_some(), by_function, ends_link }
    }

    /// Whether this error means that the statement was rolled back. A pooler's own error (`query_timeout`, a
    /// lost server) does not show what the server did.
    fn undoes(self, code: &str) -> bool {
        let is_of = |starts: &[&str]| starts.iter().any(|start| code.starts_with(start));
        match self {
            // Shutdown and timeouts of the session: the server checks for them before a commit, not during
            // it.
            Self { by_server: true, ends_link: true, .. } => is_of(&["57P0", "25P0"]),
            Self { by_server: true, ends_link: false, .. } => true,
            Self { by_server: false, ends_link: true, .. } => false,
            Self { by_server: false, ends_link: false, .. } => !is_of(&["08", "57", "58", "XX"]),
        }
    }
}

/// The class of an error that answers a statement.
fn class_of(code: &str, raised: Raised, lost: LinkLost) -> ErrorClass {
    match lost {
        _ if raised.by_function && class(code) == ErrorClass::Unknown => ErrorClass::Transient,
        LinkLost::AfterCommit if !raised.undoes(code) => ErrorClass::Unknown,
        LinkLost::BeforeCommit if !raised.by_server && code.starts_with("XX") => ErrorClass::Transient,
        _ => class(code),
    }
}

/// The class of a code.
pub(crate) fn class(code: &str) -> ErrorClass {
    match code {
        // The server itself does not know whether the transaction was committed.
        "08007" | "40003" => ErrorClass::Unknown,
        // Two rows of the statement are the same row. For a single row, a subquery of the table raises it.
        "21000" => ErrorClass::Duplicate,
        // Our binary values do not match the column's type, perhaps because it changed.
        "22P03" => ErrorClass::Schema,
        // A read-only transaction: a standby, or a failover in progress.
        "25006" => ErrorClass::Resource,
        "25P03" | "25P04" => ErrorClass::Transient,
        "42501" => ErrorClass::Permission,
        // The prepared statement does not exist on this session or already exists: a new connection prepares
        // it again.
        "26000" | "42P05" => ErrorClass::Transient,
        // An internal error of the server: often a transient race, or an extension that cannot read a value. It
        // is retried once before it is attributed to a row, see `write`.
        "XX000" => ErrorClass::Row,
        // Corrupt data or a corrupt index: the rows wait until an operator repairs it.
        "XX001" | "XX002" => ErrorClass::Resource,
        // A value that is too long for a column of type name.
        "42622" => ErrorClass::Row,
        // 53300: too many connections.
        "53300" | "53000" => ErrorClass::Transient,
        // Object in use, lock not available; also from a function that detects a change on the server.
        "55006" | "55P03" => ErrorClass::Transient,
        // 40002 is an integrity constraint; the others are serialization and deadlock.
        "40002" => ErrorClass::Row,
        // Shutdown, crash of another session, startup, cancel and statement_timeout are transient; 57P04: the database
        // was dropped.
        "57P04" => ErrorClass::Schema,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "40" | "57" | "72" => ErrorClass::Transient,
            // Triggers and functions of the table (09, 20, 27, 2F, 38, 39, P0), data and integrity.
            "09" | "20" | "22" | "23" | "27" | "2F" | "38" | "39" | "44" | "P0" => ErrorClass::Row,
            // Not supported: a cached plan that no longer matches, or a rule or partition that does not support the
            // statement.
            "0A" | "3D" | "3F" | "42" | "55" => ErrorClass::Schema,
            "28" => ErrorClass::Permission,
            "53" | "58" => ErrorClass::Resource,
            // Too large for one statement or one index entry: the batch is split; a single row that is too
            // large is rejected.
            "54" => ErrorClass::Size,
            _ => ErrorClass::Internal,
        },
    }
}

/// The message for a code.
fn meaning(code: &str) -> &'static str {
    match code {
        "08007" | "40003" => "the server does not know whether the transaction was committed",
        "0A000" => "the table does not support this statement",
        "21000" => "two rows of a statement are the same row of the table",
        "22001" => "a text is too long for its column",
        "22003" => "a number is out of the range of its column",
        "22007" | "22008" => "a date or time is not valid for its column",
        "22021" | "22P05" => "a text has a character that the database's encoding does not have",
        "22P02" => "a text is not valid for the type of its column",
        "22P03" => "a column has another type than when the table was read",
        "22023" => "a value is not valid for its column",
        "23502" => "a value is NULL in a NOT NULL column",
        "23503" => "a foreign key is violated",
        "23505" => "a unique key is violated",
        "23514" => "a check is violated, or there is no partition for the row",
        "23P01" => "an exclusion constraint is violated",
        "25006" => "the server is read-only; wait for the failover, or connect to the primary",
        "26000" | "42P05" => {
            "a prepared statement does not exist on this session; behind a pooler use prepared_statements(false)"
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
        "57P03" => "the server accepts no connections now",
        "XX000" => "the server had an internal error; its log has the details",
        "XX001" | "XX002" => "the server's data or an index is corrupt; its log has the details",
        _ => match class(code) {
            ErrorClass::Row => "the row is rejected, perhaps by a trigger or function of the table",
            ErrorClass::Schema => "the table cannot be written as it is",
            ErrorClass::Resource => "the server lacks a resource",
            ErrorClass::Transient => "the server cannot do this now",
            ErrorClass::Size => "the statement is too large or too complex",
            _ => "the server refused the statement; its log has the reason",
        },
    }
}

/// The message for a code that a function raises, and that would mean something about the session or the server.
const RAISED: &str =
    "a trigger or function of the table, or another server that it asked, raised this code; see its source";

/// A server error with its code, without its message.
pub(crate) fn server_error(code: &str, class: ErrorClass, error: Option<&PgDatabaseError>) -> SinkError {
    let is_raised = error.is_some_and(|error| Raised::of(error).by_function);
    let mut text = match class {
        ErrorClass::Transient | ErrorClass::Resource if is_raised => RAISED.to_owned(),
        _ => meaning(code).to_owned(),
    };
    // A trigger or function that raises an error may use any name.
    if let Some(error) = error.filter(|_| !is_raised) {
        if let Some(name) = error.constraint() {
            text += &format!(", constraint {name:?}");
        }
        if let Some(name) = error.column() {
            text += &format!(", column {name:?}");
        }
    }
    let error = SinkError::with_code(class, code, text);
    if code == "23503" { error.of_foreign_key() } else { error }
}

/// The error of a row with a column whose value is refused, with the code of the server.
pub(crate) fn row_error(code: &str, column: &str) -> SinkError {
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
                match raised {
                    Raised { ends_link: true, .. } => reported.caused_by(LinkEnded),
                    Raised { by_function: true, .. } => {
                        let is_of_commit = sent == LinkLost::AfterCommit && error.routine() == Some(FOREIGN_TABLE);
                        reported.caused_by(FunctionRaised { by_foreign_commit: is_of_commit })
                    }
                    _ => reported,
                }
            }
            None => SinkError::new(ErrorClass::Internal, "the client returned an error of another database"),
        },
        // Its text is the operating system's.
        sqlx::Error::Io(error) => SinkError::new(lost, format!("the connection to the server was lost: {error}")),
        sqlx::Error::PoolTimedOut => SinkError::new(
            ErrorClass::Transient,
            "no connection within connect_timeout: every connection of the pool is in use; raise max_connections",
        ),
        sqlx::Error::PoolClosed => SinkError::new(ErrorClass::Transient, "the pool was closed"),
        sqlx::Error::Tls(_) => {
            SinkError::new(ErrorClass::Transient, "TLS failed; check the server's certificate and sslmode")
        }
        sqlx::Error::Protocol(_) => {
            SinkError::new(lost, "the server's answer could not be parsed; the connection is closed")
        }
        // Its text may quote a value.
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
        f.write_str("the server or a pooler ended the connection")
    }
}

impl std::error::Error for LinkEnded {}

/// The source of errors that a function has raised.
#[derive(Debug)]
struct FunctionRaised {
    /// The server of a foreign table has raised it, when rows may have been committed there.
    by_foreign_commit: bool,
}

impl fmt::Display for FunctionRaised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a trigger or function of the table, or another server that it asked, raised it")
    }
}

impl std::error::Error for FunctionRaised {}

/// Whether a function has raised the error, so that its code says nothing about the session or the transaction.
pub(crate) fn is_raised(error: &SinkError) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<FunctionRaised>())
}

/// Whether the server of a foreign table may have committed, although the transaction here was rolled back: it was lost, or does
/// not know.
pub(crate) fn may_be_committed_elsewhere(error: &SinkError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<FunctionRaised>());
    source.is_some_and(|raised| raised.by_foreign_commit)
        && error.code().is_some_and(|code| code.starts_with("08") || class(code) == ErrorClass::Unknown)
}

/// Whether the connection is still usable: the server rejected a statement with an error, or our check of the
/// table failed.
///
/// It is not usable if it ended, if its transaction failed and is still open, or if the server is read-only: after a
/// failover the server's name leads to another server, which only a new connection finds. If its prepared statements
/// were removed, only a new connection prepares them again.
pub(crate) fn is_refusal(error: &SinkError) -> bool {
    const USELESS: [&str; 8] = ["08", "57P", "25P02", "25P03", "25P04", "25006", "26000", "42P05"];
    let has_ended = std::error::Error::source(error).is_some_and(|source| source.is::<LinkEnded>());
    match error.code() {
        None => error.class() == ErrorClass::Schema,
        Some(_) if is_raised(error) => true,
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
    fn the_page_about_other_servers_says_what_this_code_does() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/other-servers.md")).unwrap();
        let (_, table) = page.split_once("| code | class in BatchSQL |\n").unwrap();
        let lines: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
        assert!(lines.len() >= 5, "{lines:?}");
        for line in lines {
            let (codes, said) = line.trim_matches('|').trim().rsplit_once(" | ").unwrap();
            // Every other part is in backticks. A family is tried with a code that no server has.
            for code in codes.split('`').skip(1).step_by(2) {
                let code = code.replace('…', "Z99");
                assert_eq!(class(&code).name(), said, "{code}");
            }
        }
        let (_, exceptions) = page.split_once("those of PostgreSQL itself:\n").unwrap();
        let (exceptions, _) = exceptions.split_once(".\n").unwrap();
        for (code, family) in [("42501", "42"), ("57P04", "57"), ("42P05", "42"), ("42622", "42")] {
            assert!(exceptions.contains(&format!("`{code}`")), "{exceptions}");
            assert_ne!(class(code), class(&format!("{family}Z99")), "{code}");
        }
    }

    #[test]
    fn only_the_server_itself_knows_that_a_commit_failed() {
        let (server, pooler) = (true, false);
        let check = |by_server, ends_link, code, before, after| {
            let raised = Raised { by_server, by_function: false, ends_link };
            assert_eq!(class_of(code, raised, LinkLost::BeforeCommit), before, "{code} {raised:?}");
            assert_eq!(class_of(code, raised, LinkLost::AfterCommit), after, "{code} {raised:?}");
        };
        use ErrorClass::{Resource, Row, Transient, Unknown};
        // A trigger lost its connection to another database; PgBouncer's query_timeout.
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
    fn the_source_of_an_error_tells_whether_a_function_raised_it() {
        for code in ["08007", "40003", "57P01"] {
            let check = |file, routine, expected| {
                assert_eq!(is_by_function(code, file, routine), expected, "{code} {file:?} {routine:?}");
            };
            check(Some("pl_exec.c"), Some("exec_stmt_raise"), true);
            check(Some("dblink.c"), Some("dblink_res_error"), true);
            check(Some("connection.c"), Some("pgfdw_report_error"), true);
            check(Some("other.c"), Some("of_an_extension"), code != "57P01");
            check(Some("xact.c"), Some("CommitTransaction"), false);
            check(Some("conn_executor.go"), Some("execStmt"), false);
            // A pooler.
            check(None, None, false);
        }
    }

    #[test]
    fn what_a_function_raises_does_not_leave_a_doubt() {
        for lost in [LinkLost::BeforeCommit, LinkLost::AfterCommit] {
            for code in ["08007", "40003"] {
                let class =
                    |by_function| class_of(code, Raised { by_server: true, by_function, ends_link: false }, lost);
                assert_eq!([class(true), class(false)], [ErrorClass::Transient, ErrorClass::Unknown], "{code}");
            }
        }
        for code in ["57P01", "26000", "25P02", "08006", "25006"] {
            let error = server_error(code, ErrorClass::Transient, None);
            assert_eq!(
                [is_refusal(&error.clone().caused_by(FunctionRaised { by_foreign_commit: false })), is_refusal(&error)],
                [true, false],
                "{code}"
            );
        }
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
