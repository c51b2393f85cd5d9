//! Owns the writing of one batch: one transaction, few statements, an exact outcome for every row.
//! Must not know threads or pipelines.
//!
//! A statement of many rows returns only a total. If that total is not the number of rows, or if a row is
//! rejected, the statement is rolled back and its rows are written one by one, so that every outcome is
//! exact. Single rows run at about 0.8 of the speed (measured), so this needs no bisection.

use std::sync::{Arc, Mutex, PoisonError};

use batchsql_core::{Attempt, Column, ErrorClass, Rows, SinkError, Value, Written};
use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};

use crate::bind::bind_rows;
use crate::classify::{commit_error, row_error, statement_error};
use crate::journal::check_journal;
use crate::plan::SqlitePlan;
use crate::position::{check_table, move_position};
use crate::refused_commit::refused_commit;
use crate::returned::returned_values;

/// The plan of a schema, recreated after a change of a table of the database. Clones are the same plan.
#[derive(Debug, Clone)]
pub struct SharedPlan(Arc<Mutex<Arc<SqlitePlan>>>);

impl SharedPlan {
    pub(crate) fn new(plan: SqlitePlan) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(plan))))
    }

    /// The plan for the table in this transaction.
    ///
    /// # Errors
    /// The table has changed and no longer accepts the rows.
    pub(crate) fn current(&self, transaction: &Transaction<'_>) -> Result<Arc<SqlitePlan>, SinkError> {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renewed) = plan.renewed(transaction)? {
            *plan = Arc::new(renewed);
        }
        Ok(Arc::clone(&plan))
    }
}

/// Writes the rows in one transaction. After an error none of them is durable, unless its class says that
/// this is unknown. If the attempt is atomic, a rejected row is such an error. `may_commit` decides right
/// before the commit.
pub(crate) fn write_rows(
    conn: &mut Connection,
    plan: &SharedPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
    may_commit: impl FnOnce() -> Result<(), SinkError>,
) -> Result<Written, SinkError> {
    end_open_transaction(conn)?;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    if let Some(step) = attempt.step() {
        check_journal(&transaction, "main")?;
        move_position(&transaction, step)?;
    }
    // A recreated table may change values that the old one stored unchanged.
    let plan = &plan.current(&transaction)?;
    if attempt.step().is_some() {
        check_table(&plan.table)?;
    }
    check_journal(&transaction, &plan.table.database)?;
    let mut written = Written::default();
    let mut start = 0;
    for size in plan.shapes.split(rows.len()) {
        write_chunk(&transaction, plan, rows.slice(start..start + size), start, &mut written)?;
        start += size;
        if let Some((_, refusal)) = written.rejected.first().filter(|_| attempt.is_atomic()) {
            // Dropping the transaction rolls it back.
            return Err(refusal.clone());
        }
    }
    check_open(&transaction)?;
    if attempt.step().is_some_and(|step| !step.commits) {
        return refused_commit(&transaction).map(|()| written);
    }
    may_commit()?;
    transaction.commit().map_err(commit_error)?;
    Ok(written)
}

/// A transaction that has ended before its COMMIT, without an error: later statements have committed for themselves.
fn check_open(transaction: &Transaction<'_>) -> Result<(), SinkError> {
    if !transaction.is_autocommit() {
        return Ok(());
    }
    let text = "the transaction has ended before its COMMIT, so rows of it may be committed without the others; let no function \
                that the application has registered end it";
    Err(SinkError::new(ErrorClass::Unknown, text))
}

/// A call of [`SqliteSink::call`](crate::SqliteSink::call) left it open, or it could not be rolled back.
pub(crate) fn end_open_transaction(conn: &Connection) -> Result<(), SinkError> {
    if conn.is_autocommit() {
        return Ok(());
    }
    tracing::warn!("a transaction was left open on the connection of the sink; it is rolled back");
    conn.execute_batch("ROLLBACK").map_err(statement_error)
}

/// Writes the rows of one statement, whose first row is row `start` of the batch.
fn write_chunk(
    transaction: &Transaction<'_>,
    plan: &SqlitePlan,
    rows: Rows<'_>,
    start: usize,
    written: &mut Written,
) -> Result<(), SinkError> {
    if rows.len() == 1 {
        return write_row(transaction, plan, rows, start, written);
    }
    // The savepoint rolls back the rest of a statement, also under `ON CONFLICT FAIL`.
    run(transaction, "SAVEPOINT batchsql")?;
    match execute(transaction, plan, rows) {
        Ok(changed) if changed == rows.len() => return run(transaction, "RELEASE batchsql"),
        Ok(_) => {}
        Err(error) => {
            still_open(transaction, &error)?;
            if !matches!(error.class(), ErrorClass::Row | ErrorClass::Size) {
                return Err(error);
            }
        }
    }
    run(transaction, "ROLLBACK TO batchsql")?;
    run(transaction, "RELEASE batchsql")?;
    (0..rows.len()).try_for_each(|row| write_row(transaction, plan, rows.slice(row..row + 1), start + row, written))
}

/// Writes row `index` of the batch with its own statement.
fn write_row(
    transaction: &Transaction<'_>,
    plan: &SqlitePlan,
    row: Rows<'_>,
    index: usize,
    written: &mut Written,
) -> Result<(), SinkError> {
    let index = u32::try_from(index).expect("buffer_size fits u32");
    // Rolls back the changes that a trigger with `RAISE(FAIL)` leaves for a rejected row.
    run(transaction, "SAVEPOINT batchsql")?;
    let done = match plan.returning() {
        [] => execute(transaction, plan, row),
        columns => execute_returning(transaction, plan, row, columns).map(|returned| {
            let count = usize::from(returned.is_some());
            written.returned.extend(returned.map(|values| (index, values)));
            count
        }),
    };
    match done {
        Ok(0) => written.ignored.push(index),
        Ok(_) => {}
        Err(error) if matches!(error.class(), ErrorClass::Row | ErrorClass::Size) => {
            still_open(transaction, &error)?;
            run(transaction, "ROLLBACK TO batchsql")?;
            written.rejected.push((index, error));
        }
        Err(error) => return Err(error),
    }
    run(transaction, "RELEASE batchsql")
}

/// A trigger or a constraint with `ROLLBACK` ends the whole transaction: then the batch has failed.
fn still_open(transaction: &Transaction<'_>, error: &SinkError) -> Result<(), SinkError> {
    if transaction.is_autocommit() { Err(error.clone()) } else { Ok(()) }
}

fn execute(transaction: &Transaction<'_>, plan: &SqlitePlan, rows: Rows<'_>) -> Result<usize, SinkError> {
    let sql = plan.statement(rows.len());
    let mut statement = transaction.prepare_cached(sql).map_err(statement_error)?;
    bind_rows(&mut statement, rows, &plan.forms).map_err(statement_error)?;
    statement.raw_execute().map_err(|error| executed(transaction, sql, error))
}

/// As [`execute`] for one row; returns the values of its columns, or `None` if no row was written.
fn execute_returning(
    transaction: &Transaction<'_>,
    plan: &SqlitePlan,
    row: Rows<'_>,
    columns: &[Column],
) -> Result<Option<Vec<Value>>, SinkError> {
    let sql = plan.statement(1);
    let mut statement = transaction.prepare_cached(sql).map_err(statement_error)?;
    bind_rows(&mut statement, row, &plan.forms).map_err(statement_error)?;
    let mut rows = statement.raw_query();
    let mut returned = None;
    while let Some(found) = rows.next().map_err(|error| executed(transaction, sql, error))? {
        returned = Some(returned_values(found, columns)?);
    }
    Ok(returned)
}

/// The error of a statement that was prepared.
fn executed(transaction: &Transaction<'_>, sql: &str, error: rusqlite::Error) -> SinkError {
    // SQLITE_ERROR while a statement runs is either the table, which has changed since the statement was prepared, or
    // the row (for example a CHECK with json_extract over bad JSON). Preparing it again shows which.
    let is_general = error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_ERROR);
    if is_general && transaction.prepare(sql).is_ok() { row_error() } else { statement_error(error) }
}

fn run(transaction: &Transaction<'_>, sql: &str) -> Result<(), SinkError> {
    let mut statement = transaction.prepare_cached(sql).map_err(statement_error)?;
    statement.execute([]).map(drop).map_err(statement_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_has_ended_is_not_told_as_written() {
        let mut conn = Connection::open_in_memory().unwrap();
        let transaction = conn.transaction().unwrap();
        check_open(&transaction).unwrap();
        transaction.execute_batch("ROLLBACK").unwrap();
        assert_eq!(check_open(&transaction).unwrap_err().class(), ErrorClass::Unknown);
    }
}
