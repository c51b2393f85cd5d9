//! Owns the mapping of SQLite result codes to error classes.
//! Must not know statements: only the code decides, never the message.
//!
//! Codes: <https://www.sqlite.org/rescode.html>.

use std::error::Error;

use batchsql_core::{ErrorClass, SinkError};
use rusqlite::ffi;

/// `SQLITE_CONSTRAINT_DATATYPE`, which the bindings for the system's SQLite do not have.
const CONSTRAINT_DATATYPE: i32 = ffi::SQLITE_CONSTRAINT | (12 << 8);

/// The class of an extended result code.
pub(crate) fn class(code: i32) -> ErrorClass {
    match code & 0xff {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_PROTOCOL
        | ffi::SQLITE_SCHEMA
        | ffi::SQLITE_ABORT
        | ffi::SQLITE_INTERRUPT => ErrorClass::Transient,
        ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH => ErrorClass::Row,
        // "no such table", "no such column": the statement was valid when it was prepared.
        ffi::SQLITE_ERROR => ErrorClass::Schema,
        // Not a resource error like the read-only state of a server during failover: the connection, its file
        // or the folder (DIRECTORY) is read-only, or the file was replaced (DBMOVED). None of these is
        // transient.
        ffi::SQLITE_PERM | ffi::SQLITE_AUTH | ffi::SQLITE_READONLY => ErrorClass::Permission,
        ffi::SQLITE_TOOBIG => ErrorClass::Size,
        ffi::SQLITE_FULL | ffi::SQLITE_NOMEM | ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => ErrorClass::Resource,
        _ => ErrorClass::Internal,
    }
}

/// An error of a statement before the commit: nothing of the transaction is durable.
pub(crate) fn statement_error(error: rusqlite::Error) -> SinkError {
    sink_error(error, class)
}

/// An error of the commit itself. After an I/O error the transaction may or may not be on disk.
pub(crate) fn commit_error(error: rusqlite::Error) -> SinkError {
    sink_error(error, |code| match code & 0xff {
        ffi::SQLITE_IOERR => ErrorClass::Unknown,
        _ => class(code),
    })
}

/// The error of a row for which an expression of its table fails: an index, a CHECK, a trigger or a default.
pub(crate) fn row_error() -> SinkError {
    let message = "an expression of the table (CHECK, index or trigger) failed for this row";
    SinkError::with_code(ErrorClass::Row, ffi::SQLITE_ERROR, message)
}

/// Whether SQLite's message names only tables, columns and constraints. Others, for example those of
/// triggers and functions, may quote the row.
fn is_quotable(code: i32) -> bool {
    matches!(
        code,
        ffi::SQLITE_ERROR
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_CONSTRAINT_CHECK
            | ffi::SQLITE_CONSTRAINT_FOREIGNKEY
            | ffi::SQLITE_CONSTRAINT_NOTNULL
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID
            | ffi::SQLITE_CONSTRAINT_UNIQUE
            | CONSTRAINT_DATATYPE
    )
}

fn sink_error(error: rusqlite::Error, class: impl Fn(i32) -> ErrorClass) -> SinkError {
    match error {
        rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, message) => {
            let standard = ffi::code_to_str(extended_code);
            let message = message.filter(|_| is_quotable(extended_code)).unwrap_or_else(|| standard.to_owned());
            let error = SinkError::with_code(class(extended_code), extended_code, message);
            if extended_code == ffi::SQLITE_CONSTRAINT_FOREIGNKEY { error.of_foreign_key() } else { error }
        }
        // The statement itself, as it was prepared: no value has been bound yet. Only rusqlite with the bindings of its
        // own SQLite has this variant.
        #[cfg(feature = "bundled")]
        rusqlite::Error::SqlInputError { error, msg, .. } => {
            SinkError::with_code(class(error.extended_code), error.extended_code, msg)
        }
        // The same variant, where another crate chose those bindings; and errors of rusqlite itself, a defect of this
        // driver. Neither message is shown.
        other => match other.source().and_then(|source| source.downcast_ref::<ffi::Error>()) {
            Some(error) => {
                let code = error.extended_code;
                SinkError::with_code(class(code), code, ffi::code_to_str(code))
            }
            None => SinkError::new(ErrorClass::Internal, "the sqlite client failed").caused_by(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        let check = |code, expected| assert_eq!(class(code), expected, "code {code}");
        check(ffi::SQLITE_BUSY, ErrorClass::Transient);
        check(ffi::SQLITE_BUSY_SNAPSHOT, ErrorClass::Transient);
        check(ffi::SQLITE_LOCKED, ErrorClass::Transient);
        check(ffi::SQLITE_CONSTRAINT_UNIQUE, ErrorClass::Row);
        check(ffi::SQLITE_CONSTRAINT_NOTNULL, ErrorClass::Row);
        check(ffi::SQLITE_MISMATCH, ErrorClass::Row);
        check(ffi::SQLITE_ERROR, ErrorClass::Schema);
        check(ffi::SQLITE_READONLY, ErrorClass::Permission);
        // SQLITE_READONLY_DIRECTORY, which some bindings for the system's SQLite do not have.
        check(ffi::SQLITE_READONLY | (6 << 8), ErrorClass::Permission);
        check(ffi::SQLITE_READONLY_DBMOVED, ErrorClass::Permission);
        check(ffi::SQLITE_FULL, ErrorClass::Resource);
        check(ffi::SQLITE_IOERR_WRITE, ErrorClass::Resource);
        check(ffi::SQLITE_TOOBIG, ErrorClass::Size);
        check(ffi::SQLITE_MISUSE, ErrorClass::Internal);
        check(ffi::SQLITE_CORRUPT, ErrorClass::Internal);
    }

    #[cfg(feature = "bundled")]
    #[test]
    fn the_code_of_a_wrong_datatype_is_sqlites_own() {
        assert_eq!(CONSTRAINT_DATATYPE, ffi::SQLITE_CONSTRAINT_DATATYPE);
    }
}
