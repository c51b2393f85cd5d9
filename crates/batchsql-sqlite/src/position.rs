//! Owns the table of positions: claims, and the step inside the transaction of its rows.
//! Must not know threads, or the rows.

use batchsql_core::{Claim, PartitionKey, Position, SinkError, Step};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::classify::{commit_error, statement_error};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation TEXT NOT NULL, table_name TEXT NOT NULL,
    partition_number INTEGER NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, session TEXT, lease TEXT,
    UNIQUE (source, incarnation, table_name, partition_number))";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions
    (source, incarnation, table_name, partition_number, epoch, sequence) VALUES (?1, ?2, ?3, ?4, 0, ?5)
    ON CONFLICT (source, incarnation, table_name, partition_number) DO NOTHING";

const CLAIM: &str = "UPDATE batchsql_positions SET epoch = epoch + 1, session = ?5
    WHERE source = ?1 AND incarnation = ?2 AND table_name = ?3 AND partition_number = ?4
    AND (NOT ?6 OR session = ?5) RETURNING id, epoch, sequence";

const MOVE: &str = "UPDATE batchsql_positions SET sequence = ?1 WHERE id = ?2 AND epoch = ?3 AND sequence = ?4";

/// `PRAGMA synchronous = FULL`.
const FULL: i64 = 2;

/// Claims a partition, and makes commits durable from now on: a position that a power loss takes back would be a gap in its
/// source.
pub(crate) fn claim(
    conn: &mut Connection,
    key: &PartitionKey,
    owner: &str,
    claim: Claim,
) -> Result<Option<Position>, SinkError> {
    let level: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(statement_error)?;
    if level < FULL {
        conn.execute_batch("PRAGMA synchronous = FULL").map_err(statement_error)?;
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    transaction.execute_batch(CREATE).map_err(statement_error)?;
    if let Claim::OrBeginAt(sequence) = claim {
        let begin_at = params![source, incarnation, table, partition, sequence];
        transaction.execute(BEGIN_AT, begin_at).map_err(statement_error)?;
    }
    let position =
        |row: &rusqlite::Row<'_>| Ok(Position { id: row.get(0)?, epoch: row.get(1)?, sequence: row.get(2)? });
    let claimed = transaction
        .query_row(CLAIM, params![source, incarnation, table, partition, owner, claim == Claim::Held], position)
        .optional()
        .map_err(statement_error)?;
    transaction.commit().map_err(commit_error)?;
    Ok(claimed)
}

/// Moves the position, inside the transaction of the rows.
///
/// # Errors
/// It is not where the step begins.
pub(crate) fn move_position(transaction: &Transaction<'_>, step: &Step) -> Result<(), SinkError> {
    let mut statement = transaction.prepare_cached(MOVE).map_err(statement_error)?;
    let moved = statement.execute(params![step.to, step.id, step.epoch, step.from]).map_err(statement_error)?;
    if moved == 1 { Ok(()) } else { Err(SinkError::fenced()) }
}

/// Moves the position without rows.
pub(crate) fn advance(conn: &mut Connection, step: &Step) -> Result<(), SinkError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    move_position(&transaction, step)?;
    transaction.commit().map_err(commit_error)
}
