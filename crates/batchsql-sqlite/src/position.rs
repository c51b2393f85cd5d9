//! Owns the table of positions: claims, and the step inside the transaction of its rows.
//! Must not know threads, or the rows.

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, Schema, SinkError, Step};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::classify::{commit_error, statement_error};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation TEXT NOT NULL, table_name TEXT NOT NULL,
    partition_number INTEGER NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, session TEXT, lease TEXT,
    UNIQUE (source, incarnation, table_name, partition_number))";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions
    (source, incarnation, table_name, partition_number, epoch, sequence) VALUES (?1, ?2, ?3, ?4, 0, ?5)
    ON CONFLICT (source, incarnation, table_name, partition_number) DO NOTHING";

const FIND: &str = "SELECT id, epoch, sequence, session FROM batchsql_positions
    WHERE source = ?1 AND incarnation = ?2 AND table_name = ?3 AND partition_number = ?4";

const RAISE: &str = "UPDATE batchsql_positions SET epoch = epoch + 1, session = ?1 WHERE id = ?2";

const MOVE: &str = "UPDATE batchsql_positions SET sequence = ?1 WHERE id = ?2 AND epoch = ?3 AND sequence = ?4";

/// `PRAGMA synchronous = FULL`.
const FULL: i64 = 2;

/// Claims a partition, and makes commits durable from now on: a position that a power loss takes back would be a gap in its
/// source.
pub(crate) fn claim(conn: &mut Connection, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
    make_durable(conn)?;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    transaction.execute_batch(CREATE).map_err(statement_error)?;
    if let Some(sequence) = claim.begin_at {
        let begin_at = params![source, incarnation, table, partition, sequence];
        transaction.execute(BEGIN_AT, begin_at).map_err(statement_error)?;
    }
    let found = |row: &rusqlite::Row<'_>| {
        let position = Position { id: row.get(0)?, epoch: row.get(1)?, sequence: row.get(2)? };
        Ok((position, row.get::<_, Option<String>>(3)?))
    };
    let found = transaction.query_row(FIND, params![source, incarnation, table, partition], found);
    let claimed = match found.optional().map_err(statement_error)? {
        None => Claimed::Missing,
        Some((_, owner)) if !claim.takes_from(owner.as_deref()) => Claimed::Other,
        Some((mut position, _)) => {
            transaction.execute(RAISE, params![claim.owner, position.id]).map_err(statement_error)?;
            position.epoch += 1;
            Claimed::Position(position)
        }
    };
    transaction.commit().map_err(commit_error)?;
    Ok(claimed)
}

fn make_durable(conn: &Connection) -> Result<(), SinkError> {
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(statement_error)?;
    let is_file = conn.path().is_some_and(|path| !path.is_empty());
    if is_file && matches!(&*mode, "off" | "memory") {
        let text = format!(
            "journal_mode is {mode}, so a crash in a transaction may leave a part of it; use WAL or DELETE, or give up exactly \
             once"
        );
        return Err(SinkError::new(ErrorClass::Schema, text));
    }
    let level: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).map_err(statement_error)?;
    if level < FULL {
        conn.execute_batch("PRAGMA synchronous = FULL").map_err(statement_error)?;
    }
    Ok(())
}

/// A transaction over several files is not atomic in WAL mode, and positions are in the file `main`.
pub(crate) fn check_table(schema: &Schema) -> Result<(), SinkError> {
    match schema.table().namespace() {
        None => Ok(()),
        Some(namespace) if namespace.eq_ignore_ascii_case("main") => Ok(()),
        Some(_) => {
            let text = "the table is in an attached database, and its rows cannot be written in one transaction with a position; \
                        use a sink for that file, or give up exactly once";
            Err(SinkError::new(ErrorClass::Schema, text))
        }
    }
}

/// Moves the position, inside the transaction of the rows.
///
/// # Errors
/// It is not where the step begins.
pub(crate) fn move_position(transaction: &Transaction<'_>, step: &Step) -> Result<(), SinkError> {
    let failed = |error| statement_error(error).of_position();
    let mut statement = transaction.prepare_cached(MOVE).map_err(failed)?;
    let moved = statement.execute(params![step.to, step.id, step.epoch, step.from]).map_err(failed)?;
    if moved == 1 { Ok(()) } else { Err(SinkError::fenced()) }
}

/// Moves the position without rows.
pub(crate) fn advance(conn: &mut Connection, step: &Step) -> Result<(), SinkError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    move_position(&transaction, step)?;
    transaction.commit().map_err(commit_error)
}
