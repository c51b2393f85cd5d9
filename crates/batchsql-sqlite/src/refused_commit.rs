//! Owns the end of a transaction that is only a trial: a COMMIT that is refused after everything was checked.
//! Must not know rows.
//!
//! Deferred foreign keys are checked by COMMIT only, before its hook is called. A hook that refuses turns the COMMIT into a
//! ROLLBACK.

use batchsql_core::{ErrorClass, SinkError};
use rusqlite::{Transaction, ffi};

use crate::classify::{commit_error, statement_error};

/// Finds out whether the transaction could be committed. It is rolled back, at the latest when it is dropped. A commit hook
/// of the application is removed.
///
/// # Errors
/// That of the COMMIT.
pub(crate) fn refused_commit(transaction: &Transaction<'_>) -> Result<(), SinkError> {
    transaction.commit_hook(Some(|| true)).outcome().map_err(statement_error)?;
    let committed = transaction.execute_batch("COMMIT");
    transaction.commit_hook(None::<fn() -> bool>).outcome().map_err(statement_error)?;
    match committed {
        Err(error) if is_refused(&error) => Ok(()),
        Err(error) => Err(commit_error(error)),
        Ok(()) => {
            let text = "a transaction that was only a trial was committed";
            Err(SinkError::new(ErrorClass::Unknown, text))
        }
    }
}

fn is_refused(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_COMMITHOOK)
}

/// Versions of rusqlite before 0.38 report nothing.
trait HookOutcome {
    fn outcome(self) -> rusqlite::Result<()>;
}

impl HookOutcome for () {
    fn outcome(self) -> rusqlite::Result<()> {
        Ok(())
    }
}

impl HookOutcome for rusqlite::Result<()> {
    fn outcome(self) -> rusqlite::Result<()> {
        self
    }
}
