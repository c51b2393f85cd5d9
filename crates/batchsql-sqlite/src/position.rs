//! Owns the table of positions: claims, leases, and the step inside the transaction of its rows.
//! Must not know threads, or the rows.

use std::time::Duration;

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, Removed, SinkError, Step, StoredPosition};
use batchsql_sql::{MOVED_TO, lease_after, lease_left, lease_micros, position_of, quote};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::classify::{commit_error, statement_error};
use crate::table::TableId;

// With the database in each statement: a temporary table of the connection must not receive positions.

const CREATE: &str = "CREATE TABLE IF NOT EXISTS main.batchsql_positions (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, incarnation TEXT NOT NULL, table_name TEXT NOT NULL,
    partition_number INTEGER NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL, session TEXT, lease TEXT, moved_to INTEGER,
    UNIQUE (source, incarnation, table_name, partition_number))";

const BEGIN_AT: &str = "INSERT INTO main.batchsql_positions
    (source, incarnation, table_name, partition_number, epoch, sequence, moved_to) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?5)
    ON CONFLICT (source, incarnation, table_name, partition_number) DO NOTHING";

/// The clock of SQLite has milliseconds. A difference of days is not exact, so it is rounded to them.
const COLUMNS: &str = "id, epoch, sequence, session,
    CAST(round((julianday(lease) - julianday('now')) * 86400000) AS INTEGER) * 1000";

const MOVE: &str = "UPDATE main.batchsql_positions SET sequence = ?1, moved_to = ?1
    WHERE id = ?2 AND epoch = ?3 AND sequence = ?4";

const RELEASE: &str = "UPDATE main.batchsql_positions SET session = NULL, lease = NULL WHERE id = ?1 AND epoch = ?2";

/// Two sources may have names that a collation of the column treats as one.
const EXACT: &str = "COLLATE BINARY";

/// `PRAGMA synchronous = FULL`.
const FULL: i64 = 2;

/// Claims a partition, and makes commits durable from now on: a position that a power loss takes back would be a gap in its
/// source.
pub(crate) fn claim(conn: &mut Connection, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
    if let Some(setting) = make_database_durable(conn, "main")? {
        return Err(SinkError::new(ErrorClass::Schema, format!("{setting}, or give up exactly once")));
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    check_name(&transaction)?;
    transaction.execute_batch(CREATE).map_err(statement_error)?;
    add_column(&transaction)?;
    if let Some(sequence) = claim.begin_at {
        let begin_at = params![source, incarnation, table, partition, sequence];
        transaction.execute(BEGIN_AT, begin_at).map_err(statement_error)?;
    }
    let of_key = position_of(|number| format!("?{number} {EXACT}"));
    let find = format!("SELECT {COLUMNS}, moved_to FROM main.batchsql_positions WHERE {of_key}");
    let with_end = |row: &Row<'_>| Ok((found(row)?, row.get(5)?));
    let found = transaction.query_row(&find, params![source, incarnation, table, partition], with_end);
    let claimed = match found.optional().map_err(statement_error)? {
        None if claim.begin_at.is_some() => {
            let text = format!(
                "the unique key of batchsql_positions takes another partition for this one, because a column of it has another \
                 collation than BINARY; rename it, and the table is created, or create it as this: {CREATE}"
            );
            return Err(SinkError::new(ErrorClass::Schema, text));
        }
        None => Claimed::Missing,
        Some((Found { mut position, owner, lease }, moved_to)) => match claim.refused_by(owner.as_deref(), lease) {
            Some(refused) => refused,
            None => {
                let lease = lease_after(claim, owner.as_deref(), ends_after);
                let raise = format!(
                    "UPDATE main.batchsql_positions SET epoch = epoch + 1, session = ?1, lease = {lease}, moved_to = {MOVED_TO}
                     WHERE id = ?2"
                );
                transaction.execute(&raise, params![claim.owner, position.id]).map_err(statement_error)?;
                position.epoch += 1;
                Claimed::at(position, moved_to)
            }
        },
    };
    transaction.commit().map_err(commit_error)?;
    Ok(claimed)
}

/// Adds what a table of an earlier version has not.
fn add_column(conn: &Connection) -> Result<(), SinkError> {
    let columns = "SELECT count(*) FROM pragma_table_info('batchsql_positions', 'main') WHERE lower(name) = 'moved_to'";
    if conn.query_row(columns, [], |row| row.get::<_, i64>(0)).map_err(statement_error)? > 0 {
        return Ok(());
    }
    conn.execute_batch("ALTER TABLE main.batchsql_positions ADD COLUMN moved_to INTEGER").map_err(statement_error)
}

/// Refuses what the name leads to if it is not a table of the file: positions would end with the connection, or be outside of the
/// transaction of the rows.
fn check_name(conn: &Connection) -> Result<(), SinkError> {
    // A table of an extension has no page of its own.
    let sql = "SELECT (SELECT count(*) FROM temp.sqlite_master WHERE name = 'batchsql_positions' COLLATE NOCASE),
        (SELECT count(*) FROM main.sqlite_master WHERE name = 'batchsql_positions' COLLATE NOCASE
            AND NOT (type = 'table' AND rootpage > 0)),
        (SELECT count(*) * 9 FROM main.sqlite_master WHERE name = 'batchsql_positions' COLLATE NOCASE)
            - (SELECT count(*) FROM pragma_table_info('batchsql_positions', 'main') WHERE lower(name) IN ('id', 'source',
            'incarnation', 'table_name', 'partition_number', 'epoch', 'sequence', 'session', 'lease'))";
    let found =
        conn.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
    let text = match found.map_err(statement_error)? {
        (0, 0, 0) => return Ok(()),
        (0, 0, _) => "batchsql_positions is another table, with other columns; rename it, and the table is created",
        (0, ..) => "batchsql_positions is a view or a virtual table; rename it, and the table is created",
        _ => {
            "a temporary table or view has the name batchsql_positions, and its positions end with the connection; drop it where \
             it is created"
        }
    };
    Err(SinkError::new(ErrorClass::Schema, text))
}

/// The columns of [`COLUMNS`].
struct Found {
    position: Position,
    owner: Option<String>,
    lease: Option<Duration>,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let position = Position { id: row.get(0)?, epoch: row.get(1)?, sequence: row.get(2)? };
    Ok(Found { position, owner: row.get(3)?, lease: lease_left(row.get(4)?) })
}

fn ends_after(micros: i64) -> String {
    format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '+{}.{:06} seconds')", micros / 1_000_000, micros % 1_000_000)
}

/// Reads all positions of a source.
pub(crate) fn read(conn: &Connection, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
    // rusqlite 0.32, which is used beside sqlx-sqlite, has no `table_exists`.
    let tables = "SELECT count(*) FROM main.sqlite_master WHERE type = 'table'
        AND name = 'batchsql_positions' COLLATE NOCASE";
    if conn.query_row(tables, [], |row| row.get::<_, i64>(0)).map_err(statement_error)? == 0 {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS}, incarnation, table_name, partition_number FROM main.batchsql_positions
         WHERE source = ?1 {EXACT} ORDER BY incarnation, table_name, partition_number"
    );
    let mut statement = conn.prepare(&sql).map_err(statement_error)?;
    let stored = |row: &Row<'_>| {
        let Found { position, owner, lease } = found(row)?;
        let key = PartitionKey::new(source, row.get::<_, String>(5)?, row.get::<_, String>(6)?, row.get(7)?);
        Ok(StoredPosition::new(key, position).owned(owner, lease))
    };
    let rows = statement.query_map([source], stored).map_err(statement_error)?;
    rows.collect::<rusqlite::Result<_>>().map_err(statement_error)
}

/// Renews the leases of an owner.
pub(crate) fn renew(
    conn: &mut Connection,
    source: &str,
    owner: &str,
    lease: Duration,
) -> Result<Vec<StoredPosition>, SinkError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    check_name(&transaction)?;
    let mut stored = read(&transaction, source)?;
    if !stored.is_empty() {
        let sql = format!(
            "UPDATE main.batchsql_positions SET lease = {}
             WHERE source = ?1 {EXACT} AND session = ?2 {EXACT} AND lease IS NOT NULL",
            ends_after(lease_micros(lease))
        );
        transaction.execute(&sql, [source, owner]).map_err(statement_error)?;
        stored = read(&transaction, source)?;
        stored.retain(|stored| stored.owner.as_deref() == Some(owner));
    }
    transaction.commit().map_err(commit_error)?;
    Ok(stored)
}

/// Gives a partition away.
pub(crate) fn release(conn: &mut Connection, position: &Position) -> Result<bool, SinkError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    let released = transaction.execute(RELEASE, params![position.id, position.epoch]).map_err(statement_error)?;
    transaction.commit().map_err(commit_error)?;
    Ok(released == 1)
}

/// Removes the positions of an incarnation.
pub(crate) fn remove(
    conn: &mut Connection,
    source: &str,
    incarnation: &str,
    ended_owners: &[String],
) -> Result<Removed, SinkError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(statement_error)?;
    let mut stored = read(&transaction, source)?;
    stored.retain(|stored| stored.key.incarnation == incarnation);
    if let Some(refused) = Removed::refused_by(stored.iter().map(|stored| stored.owner.as_deref()), ended_owners) {
        return Ok(refused);
    }
    for stored in &stored {
        let sql = "DELETE FROM main.batchsql_positions WHERE id = ?1";
        transaction.execute(sql, [stored.position.id]).map_err(statement_error)?;
    }
    transaction.commit().map_err(commit_error)?;
    Ok(Removed::Positions(stored.len() as u64))
}

/// Sets `PRAGMA synchronous = FULL` where it is lower, also of databases that are attached; the setting that loses commits
/// nevertheless, if there is one.
pub(crate) fn make_durable(conn: &Connection) -> Result<Option<String>, SinkError> {
    let mut list = conn.prepare("PRAGMA database_list").map_err(statement_error)?;
    let names = list.query_map([], |row| row.get(1)).map_err(statement_error)?;
    let names: Vec<String> = names.collect::<rusqlite::Result<_>>().map_err(statement_error)?;
    let mut lossy = None;
    // Temporary tables have no setting: they end with the connection.
    for name in names.iter().filter(|name| *name != "temp") {
        let setting = make_database_durable(conn, name)?;
        lossy = lossy.or(setting);
    }
    Ok(lossy)
}

/// As [`make_durable`], of one database.
fn make_database_durable(conn: &Connection, name: &str) -> Result<Option<String>, SinkError> {
    let pragma = |setting: &str| format!("PRAGMA {}.{setting}", quote(name));
    let level: i64 = conn.query_row(&pragma("synchronous"), [], |row| row.get(0)).map_err(statement_error)?;
    if level < FULL {
        conn.execute_batch(&pragma("synchronous = FULL")).map_err(statement_error)?;
    }
    let mode: String = conn.query_row(&pragma("journal_mode"), [], |row| row.get(0)).map_err(statement_error)?;
    let file = "SELECT file FROM pragma_database_list WHERE name = ?1";
    let file: Option<String> = conn.query_row(file, [name], |row| row.get(0)).map_err(statement_error)?;
    let is_lossy = matches!(&*mode, "off" | "memory") && file.is_some_and(|file| !file.is_empty());
    let of = if name == "main" { String::new() } else { format!(" of {}", quote(name)) };
    Ok(is_lossy.then(|| {
        format!("journal_mode{of} is {mode}, so a crash in a transaction may leave a part of it; use WAL or DELETE")
    }))
}

/// A transaction over several files is not atomic in WAL mode, and positions are in the file `main`.
pub(crate) fn check_table(table: &TableId) -> Result<(), SinkError> {
    match &*table.database {
        "main" => Ok(()),
        _ => {
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
