//! Owns the table of positions: claims, leases, and a position that moves without rows.
//! Must not know the rows, or how they are written.

use std::time::Duration;

use batchsql_core::{
    AbandonedWrites, Claim, Claimed, ErrorClass, PartitionKey, Position, Removed, SinkError, Step, StoredPosition,
};
use batchsql_sql::{MOVED_TO, lease_after, lease_left, lease_micros, move_position, position_of, release_position};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use crate::classify::{Failed, LOCK_TIMEOUT, NO_TABLE, Stage, number};
use crate::conn::MySqlConn;
use crate::holder::{Holding, end_holder, of_this_session};

/// The lengths are those of [`PartitionKey`]; together they fit into an index.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (\
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, source VARCHAR(100) NOT NULL, incarnation VARCHAR(64) NOT NULL, \
    table_name VARCHAR(400) NOT NULL, partition_number INT UNSIGNED NOT NULL, epoch BIGINT NOT NULL, \
    sequence BIGINT NOT NULL, session VARCHAR(100) NULL, lease DATETIME(6) NULL, holder VARCHAR(400) NULL, moved_to BIGINT NULL, \
    UNIQUE KEY (source, incarnation, table_name, partition_number)) \
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions \
    (source, incarnation, table_name, partition_number, epoch, sequence, moved_to) VALUES (?, ?, ?, ?, 0, ?, ?) \
    ON DUPLICATE KEY UPDATE id = id";

/// The time is that when the statement begins, also after it has waited for a lock: a lease seems longer then, not shorter.
const COLUMNS: &str = "id, epoch, sequence, session, TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), lease)";

/// A second, and back again.
const WAIT: [&str; 2] = [
    "SET @batchsql_lock_wait = @@innodb_lock_wait_timeout, innodb_lock_wait_timeout = 1",
    "SET innodb_lock_wait_timeout = @batchsql_lock_wait",
];

/// As [`WAIT`], for the lock of the table.
const WAIT_FOR_TABLE: [&str; 2] = [
    "SET @batchsql_lock_wait = @@lock_wait_timeout, lock_wait_timeout = 1",
    "SET lock_wait_timeout = @batchsql_lock_wait",
];

const SETTINGS: &str = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";

/// What it is, whether its engine has transactions, and which one it is.
const TABLE: &str = "SELECT CONCAT(t.TABLE_TYPE, '|', COALESCE(e.SAVEPOINTS, 'NO'), '|', COALESCE(t.ENGINE, 'unknown')) \
    FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
    WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = 'batchsql_positions' AND t.TABLE_TYPE <> 'TEMPORARY' LIMIT 1";

/// The columns that may treat two texts as one. Columns of bytes have no collation.
const INEXACT: &str = "SELECT COUNT(*) FROM information_schema.COLUMNS c \
    WHERE c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME = 'batchsql_positions' \
    AND c.COLUMN_NAME IN ('source', 'incarnation', 'table_name', 'session') AND RIGHT(c.COLLATION_NAME, 4) <> '_bin'";

const NO_RIGHT: u16 = 1142;
const NO_VARIABLE: u16 = 1193;
const NO_COLUMN: u16 = 1054;
const SAME_COLUMN: u16 = 1060;

const ADD_COLUMN: &str = "ALTER TABLE batchsql_positions ADD COLUMN";

/// Those that earlier versions did not have.
const LATER_COLUMNS: [&str; 2] = ["holder VARCHAR(400) NULL", "moved_to BIGINT NULL"];

/// Claims a partition. `abandoned`: whether a session that holds the position and stands still is ended.
pub(crate) async fn claim(
    conn: &mut MySqlConn,
    key: &PartitionKey,
    claim: &Claim,
    abandoned: AbandonedWrites,
) -> Result<Claimed, SinkError> {
    let checked = lossy_setting(conn.begin().await?).await;
    if let Some(setting) = conn.end(checked)? {
        return Err(SinkError::new(ErrorClass::Schema, format!("{setting}, or give up exactly once")));
    }
    let checked = check_table(conn.begin().await?).await;
    conn.end(checked)?;
    // Without a lock: the owner is not disturbed, and a step of it is not waited for.
    let seen = look(conn.begin().await?, key, claim).await;
    if let Some(refused) = conn.end(seen.map_err(is_another).map_err(with_advice))? {
        return Ok(refused);
    }
    let mut claimed = claim_soon(conn.begin().await?, key, claim).await;
    if claimed.as_ref().is_err_and(|failed| failed.code == NO_TABLE && failed.usable) {
        let created = create(conn.begin().await?).await;
        conn.end(created.map_err(with_advice))?;
        claimed = claim_soon(conn.begin().await?, key, claim).await;
    }
    if claimed.as_ref().is_err_and(|failed| failed.code == NO_COLUMN && failed.usable) {
        // The columns of each version were read.
        let added = add_columns(conn.begin().await?).await;
        conn.end(added.map_err(with_advice))?;
        claimed = claim_soon(conn.begin().await?, key, claim).await;
    }
    let is_held = claimed.as_ref().is_err_and(|failed| failed.code == LOCK_TIMEOUT && failed.usable);
    if is_held && abandoned != AbandonedWrites::Wait {
        // Its owner may be another process by now, which is not disturbed.
        let seen = look(conn.begin().await?, key, claim).await;
        if let Some(refused) = conn.end(seen.map_err(with_advice))? {
            return Ok(refused);
        }
        if free(conn, key).await? {
            claimed = claim_soon(conn.begin().await?, key, claim).await;
        }
    }
    conn.end(claimed.map_err(with_advice))
}

/// Ends a session that holds the position and stands still: its process is frozen, or its machine is gone, and it would hold
/// the position for as long as the server keeps the connection. Whether it has ended.
async fn free(conn: &mut MySqlConn, key: &PartitionKey) -> Result<bool, SinkError> {
    let sessions = conn.sessions();
    let holding = end_holder(conn.begin().await?, &sessions, key).await.map_err(Failed::asked);
    Ok(match conn.end(holding)? {
        Holding::Ended => {
            tracing::warn!(partition = %key, "ended the session that held the position");
            true
        }
        Holding::LeftAlone => false,
        Holding::Kept(why) => {
            tracing::warn!(partition = %key, why, "cannot end the session that holds the position");
            false
        }
    })
}

/// The setting with which a crash of the server takes back what it has committed, if so. Servers without these variables have
/// no such choice.
pub(crate) async fn lossy_setting(connection: &mut MySqlConnection) -> Result<Option<String>, Failed> {
    let shown = match connection.fetch_one(SETTINGS).await {
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_VARIABLE => return Ok(None),
        shown => shown.map_err(Failed::asked)?,
    };
    let value = |index: usize| shown.try_get_unchecked::<i64, _>(index).map_err(Failed::asked);
    let (flush, has_binlog, sync) = (value(0)?, value(1)?, value(2)?);
    let lossy = match (flush, has_binlog, sync) {
        // 3 is a value of MariaDB: InnoDB itself is synced at each commit, so the binary log is not needed for recovery.
        (1, 0, _) | (1, _, 1) | (3, ..) => return Ok(None),
        (1, ..) => format!("sync_binlog is {sync}"),
        _ => format!("innodb_flush_log_at_trx_commit is {flush}"),
    };
    let text = "so a crash of the server may lose rows and positions that it has committed; set it to 1";
    Ok(Some(format!("{lossy}, {text}")))
}

/// Refuses a table whose positions are not in the transaction of the rows: a step that fails would move them nevertheless, and
/// its rows would be passed over. And one that takes two sources for one.
async fn check_table(connection: &mut MySqlConnection) -> Result<(), Failed> {
    let asked = connection.fetch_one(&*format!("SELECT ({TABLE}), ({INEXACT})")).await.map_err(Failed::asked)?;
    let found: Option<String> = asked.try_get_unchecked(0).map_err(Failed::asked)?;
    let inexact: i64 = asked.try_get_unchecked(1).map_err(Failed::asked)?;
    fits(found.as_deref())?;
    if inexact == 0 {
        return Ok(());
    }
    let text = "the collation of the table batchsql_positions treats different texts as equal, so two sources would share a position, \
                and rows of one be passed over; ALTER TABLE batchsql_positions CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
    Err(Failed::unsent(SinkError::new(ErrorClass::Schema, text)))
}

/// `found`: as [`TABLE`] returns it; `None` if there is none yet.
fn fits(found: Option<&str>) -> Result<(), Failed> {
    let Some(found) = found else { return Ok(()) };
    let mut words = found.splitn(3, '|');
    let (kind, savepoints, engine) = (words.next(), words.next(), words.next().unwrap_or_default());
    let text = match (kind, savepoints) {
        (Some("BASE TABLE" | "SYSTEM VERSIONED"), Some("YES")) => return Ok(()),
        (Some("BASE TABLE" | "SYSTEM VERSIONED"), _) => format!(
            "the engine {engine} of the table batchsql_positions has no transactions: a step that fails or is cut off would move \
             its position without its rows; what was written since it has this engine may lack rows; ALTER TABLE \
             batchsql_positions ENGINE = InnoDB, or give up exactly once"
        ),
        _ => {
            "batchsql_positions is not a plain table; rename it, and the table is created, or write to another database"
                .to_owned()
        }
    };
    Err(Failed::unsent(SinkError::new(ErrorClass::Schema, text)))
}

async fn create(connection: &mut MySqlConnection) -> Result<(), Failed> {
    connection.execute(CREATE).await.map(drop).map_err(Failed::asked)
}

/// Adds what a table of an earlier version has not. A statement that uses the table is waited for as a lock of a row is.
async fn add_columns(connection: &mut MySqlConnection) -> Result<(), Failed> {
    connection.execute(WAIT_FOR_TABLE[0]).await.map_err(Failed::asked)?;
    let mut added = Ok(());
    for column in LATER_COLUMNS {
        added = match connection.execute(&*format!("{ADD_COLUMN} {column}")).await {
            Err(sqlx::Error::Database(error)) if number(error.as_ref()) == SAME_COLUMN => Ok(()),
            added => added.map(drop).map_err(Failed::asked),
        };
        if added.is_err() {
            break;
        }
    }
    if added.as_ref().err().is_none_or(|failed| failed.usable) {
        connection.execute(WAIT_FOR_TABLE[1]).await.map_err(Failed::asked)?;
    }
    match added {
        Err(failed) if failed.code == NO_RIGHT => {
            let text = format!(
                "the table batchsql_positions is that of an earlier version, and the user may not change it; {ADD_COLUMN} {}, if it \
                 has none",
                LATER_COLUMNS.join(", ADD COLUMN ")
            );
            Err(Failed { error: SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text), code: 0, ..failed })
        }
        added => added,
    }
}

/// Its columns are not those that each version has.
fn is_another(failed: Failed) -> Failed {
    if failed.code != NO_COLUMN {
        return failed;
    }
    let text = format!(
        "batchsql_positions is another table, with other columns; rename it, and the table is created, or change it to this: {CREATE}"
    );
    Failed { error: SinkError::with_code(ErrorClass::Schema, NO_COLUMN, text), code: 0, ..failed }
}

/// A server tells a user without rights whether a table exists only if the user may know it.
fn with_advice(failed: Failed) -> Failed {
    if failed.code != NO_RIGHT {
        return failed;
    }
    let text = format!(
        "the user may not create or use the table batchsql_positions; create it, and grant SELECT, INSERT and UPDATE: {CREATE}"
    );
    Failed { error: SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text), ..failed }
}

/// A step of an owner whose lease is over may hold the row for long. The claim is repeated, and others get their turn meanwhile.
async fn claim_soon(connection: &mut MySqlConnection, key: &PartitionKey, claim: &Claim) -> Result<Claimed, Failed> {
    connection.execute(WAIT[0]).await.map_err(Failed::asked)?;
    let claimed = claim_once(connection, key, claim).await;
    wait_as_before(connection, claimed).await
}

/// After [`WAIT`]: sets the limit for locks back, unless the session is lost.
async fn wait_as_before<T>(connection: &mut MySqlConnection, result: Result<T, Failed>) -> Result<T, Failed> {
    if result.as_ref().err().is_none_or(|failed| failed.usable) {
        connection.execute(WAIT[1]).await.map_err(Failed::asked)?;
    }
    result
}

async fn claim_once(connection: &mut MySqlConnection, key: &PartitionKey, claim: &Claim) -> Result<Claimed, Failed> {
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let keyed = |sql| sqlx::query(sql).bind(source).bind(incarnation).bind(table).bind(partition);
    let lock = format!("SELECT {COLUMNS}, moved_to FROM batchsql_positions WHERE {} FOR UPDATE", of_key());
    if let Some(sequence) = claim.begin_at {
        let begin_at = keyed(BEGIN_AT).bind(sequence).bind(sequence).persistent(false);
        begin_at.execute(&mut *connection).await.map_err(Failed::asked)?;
    }
    connection.execute("START TRANSACTION").await.map_err(Failed::asked)?;
    let raised = async {
        let Some(locked) = keyed(&lock).persistent(false).fetch_optional(&mut *connection).await? else {
            return Ok(Claimed::Missing);
        };
        let Found { mut position, owner, lease } = found(&locked)?;
        if let Some(refused) = claim.refused_by(owner.as_deref(), lease) {
            return Ok(refused);
        }
        let lease = lease_after(claim, owner.as_deref(), ends_after);
        let holder = of_this_session(position.epoch + 1, position.sequence);
        let raise = format!(
            "UPDATE batchsql_positions SET epoch = epoch + 1, session = ?, lease = {lease}, holder = {holder}, moved_to = {MOVED_TO} \
             WHERE id = ?"
        );
        let raise = sqlx::query(&raise).bind(&claim.owner).bind(position.id).persistent(false);
        raise.execute(&mut *connection).await?;
        position.epoch += 1;
        Ok(Claimed::at(position, locked.try_get(5)?))
    };
    // If the reply to the commit is lost, the epoch is raised or not: the partition is claimed again.
    let raised = raised.await;
    end_transaction(connection, raised).await
}

/// Whether the partition has an owner that the claim does not take it from.
async fn look(connection: &mut MySqlConnection, key: &PartitionKey, claim: &Claim) -> Result<Option<Claimed>, Failed> {
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let sql = format!("SELECT {COLUMNS} FROM batchsql_positions WHERE {}", of_key());
    let query = sqlx::query(&sql).bind(source).bind(incarnation).bind(table).bind(partition).persistent(false);
    let row = match query.fetch_optional(connection).await {
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_TABLE => return Ok(None),
        row => row.map_err(Failed::asked)?,
    };
    let found = row.as_ref().map(found).transpose().map_err(Failed::asked)?;
    Ok(found.and_then(|found| claim.refused_by(found.owner.as_deref(), found.lease)))
}

fn of_key() -> String {
    position_of(|_| "?".to_owned())
}

/// The columns of [`COLUMNS`].
struct Found {
    position: Position,
    owner: Option<String>,
    lease: Option<Duration>,
}

fn found(row: &MySqlRow) -> sqlx::Result<Found> {
    let position = Position { id: row.try_get(0)?, epoch: row.try_get(1)?, sequence: row.try_get(2)? };
    // A binary collation: the client takes the type for bytes.
    Ok(Found { position, owner: row.try_get_unchecked(3)?, lease: lease_left(row.try_get(4)?) })
}

fn ends_after(micros: i64) -> String {
    format!("UTC_TIMESTAMP(6) + INTERVAL {micros} MICROSECOND")
}

/// Reads all positions of a source.
pub(crate) async fn read(connection: &mut MySqlConnection, source: &str) -> Result<Vec<StoredPosition>, Failed> {
    let sql = format!(
        "SELECT {COLUMNS}, incarnation, table_name, partition_number FROM batchsql_positions WHERE source = ? \
         ORDER BY incarnation, table_name, partition_number"
    );
    let rows = match sqlx::query(&sql).bind(source).persistent(false).fetch_all(connection).await {
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_TABLE => Vec::new(),
        rows => rows.map_err(Failed::asked)?,
    };
    let stored = |row: &MySqlRow| {
        let Found { position, owner, lease } = found(row)?;
        let incarnation: String = row.try_get_unchecked(5)?;
        let table: String = row.try_get_unchecked(6)?;
        let key = PartitionKey::new(source, incarnation, table, row.try_get(7)?);
        Ok(StoredPosition::new(key, position).owned(owner, lease))
    };
    rows.iter().map(stored).collect::<sqlx::Result<_>>().map_err(Failed::asked)
}

/// Renews the leases of an owner. An update that searches by the source would lock the rows of all owners.
pub(crate) async fn renew(
    connection: &mut MySqlConnection,
    source: &str,
    owner: &str,
    lease: Duration,
) -> Result<Vec<StoredPosition>, Failed> {
    let sql =
        format!("SELECT id, ({TABLE}) FROM batchsql_positions WHERE source = ? AND session = ? AND lease IS NOT NULL");
    let rows = match sqlx::query(&sql).bind(source).bind(owner).persistent(false).fetch_all(&mut *connection).await {
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_TABLE => return Ok(Vec::new()),
        rows => rows.map_err(Failed::asked)?,
    };
    let table: Option<Option<String>> =
        rows.first().map(|row| row.try_get_unchecked(1)).transpose().map_err(Failed::asked)?;
    fits(table.flatten().as_deref())?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<Vec<i64>>>().map_err(Failed::asked)?;
    if !ids.is_empty() {
        connection.execute(WAIT[0]).await.map_err(Failed::asked)?;
        let ends = ends_after(lease_micros(lease));
        let mut renewed = renew_all(connection, &ids, owner, &ends).await;
        if renewed.as_ref().is_err_and(|failed| failed.code == LOCK_TIMEOUT && failed.usable) {
            renewed = renew_free(connection, &ids, owner, &ends).await;
        }
        wait_as_before(connection, renewed).await?;
    }
    let mut stored = read(connection, source).await?;
    stored.retain(|stored| stored.owner.as_deref() == Some(owner));
    Ok(stored)
}

async fn renew_all(connection: &mut MySqlConnection, ids: &[i64], owner: &str, ends: &str) -> Result<(), Failed> {
    let sql = format!("UPDATE batchsql_positions SET lease = {ends} WHERE id IN ({}) AND session = ?", list(ids));
    let renewed = sqlx::query(&sql).bind(owner).persistent(false).execute(connection).await;
    renewed.map(drop).map_err(Failed::asked)
}

/// Without those that a step holds. Servers before MySQL 8.0 and MariaDB 10.6 cannot do this, and renew none.
async fn renew_free(connection: &mut MySqlConnection, ids: &[i64], owner: &str, ends: &str) -> Result<(), Failed> {
    connection.execute("START TRANSACTION").await.map_err(Failed::asked)?;
    let sql = format!("SELECT id FROM batchsql_positions WHERE id IN ({}) FOR UPDATE SKIP LOCKED", list(ids));
    let renewed = async {
        let rows = connection.fetch_all(&*sql).await.map_err(Failed::asked)?;
        let free = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<Vec<i64>>>().map_err(Failed::asked)?;
        if !free.is_empty() {
            renew_all(connection, &free, owner, ends).await?;
        }
        Ok(())
    };
    let renewed: Result<(), Failed> = renewed.await;
    let end = if renewed.is_ok() { "COMMIT AND NO CHAIN" } else { "ROLLBACK AND NO CHAIN" };
    connection.execute(end).await.map_err(Failed::asked)?;
    renewed
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// Gives a partition away. A step that still holds it is not waited for: the lease ends by itself.
pub(crate) async fn release(connection: &mut MySqlConnection, position: &Position) -> Result<bool, Failed> {
    connection.execute(WAIT[0]).await.map_err(Failed::asked)?;
    let released = connection.execute(&*release_position(position)).await.map_err(Failed::asked);
    let released = wait_as_before(connection, released).await?;
    Ok(released.rows_affected() == 1)
}

/// The statement that moves a position, with the name of the session that holds it from now on.
pub(crate) fn move_held(step: &Step) -> String {
    move_position(step, &format!(", holder = {}", of_this_session(step.epoch, step.to)))
}

/// Moves the position without rows. The server counts the rows that were found, changed or not.
pub(crate) async fn advance(connection: &mut MySqlConnection, step: &Step) -> Result<(), Failed> {
    match connection.execute(&*move_held(step)).await {
        Ok(moved) if moved.rows_affected() == 1 => Ok(()),
        Ok(_) => Err(Failed::unsent(SinkError::fenced())),
        Err(error) => Err(Failed::after(error, Stage::Statement)),
    }
}

/// Removes the positions of an incarnation.
pub(crate) async fn remove(
    connection: &mut MySqlConnection,
    source: &str,
    incarnation: &str,
    ended_owners: &[String],
) -> Result<Removed, Failed> {
    connection.execute(WAIT[0]).await.map_err(Failed::asked)?;
    let removed = remove_in_transaction(connection, source, incarnation, ended_owners).await;
    let removed = wait_as_before(connection, removed).await;
    match removed {
        Err(failed) if failed.code == NO_TABLE && failed.usable => Ok(Removed::Positions(0)),
        Err(failed) if failed.code == NO_RIGHT => {
            let text = "the user may not remove rows of batchsql_positions; grant DELETE on it";
            Err(Failed { error: SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text), ..failed })
        }
        removed => removed,
    }
}

async fn remove_in_transaction(
    connection: &mut MySqlConnection,
    source: &str,
    incarnation: &str,
    ended_owners: &[String],
) -> Result<Removed, Failed> {
    connection.execute("START TRANSACTION").await.map_err(Failed::asked)?;
    let removed = async {
        let lock = "SELECT id, session FROM batchsql_positions WHERE source = ? AND incarnation = ? FOR UPDATE";
        let lock = sqlx::query(lock).bind(source).bind(incarnation).persistent(false);
        let locked = lock.fetch_all(&mut *connection).await?;
        let found = |row: &MySqlRow| Ok((row.try_get(0)?, row.try_get_unchecked(1)?));
        let found = locked.iter().map(found).collect::<sqlx::Result<Vec<(i64, Option<String>)>>>()?;
        if let Some(refused) = Removed::refused_by(found.iter().map(|(_, owner)| owner.as_deref()), ended_owners) {
            return Ok(refused);
        }
        let ids: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            let remove = format!("DELETE FROM batchsql_positions WHERE id IN ({})", list(&ids));
            connection.execute(&*remove).await?;
        }
        Ok(Removed::Positions(ids.len() as u64))
    };
    let removed: sqlx::Result<Removed> = removed.await;
    end_transaction(connection, removed).await
}

/// Commits what was done, or rolls it back. Without an answer to the commit it is done or not.
async fn end_transaction<T>(connection: &mut MySqlConnection, done: sqlx::Result<T>) -> Result<T, Failed> {
    match done {
        Ok(done) => {
            connection.execute("COMMIT AND NO CHAIN").await.map_err(Failed::asked)?;
            Ok(done)
        }
        Err(error) => {
            let mut failed = Failed::asked(error);
            if failed.usable {
                failed.usable = connection.execute("ROLLBACK AND NO CHAIN").await.is_ok();
            }
            Err(failed)
        }
    }
}
