//! Owns the table of positions: claims, and the statement of a step.
//! Must not know the rows, or how they are written.

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, SinkError, Step};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use crate::classify::{Failed, Stage, number};
use crate::conn::MySqlConn;

/// The lengths are those of [`PartitionKey`]; together they fit into an index.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (\
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, source VARCHAR(100) NOT NULL, incarnation VARCHAR(64) NOT NULL, \
    table_name VARCHAR(400) NOT NULL, partition_number INT UNSIGNED NOT NULL, epoch BIGINT NOT NULL, \
    sequence BIGINT NOT NULL, session VARCHAR(100) NULL, lease DATETIME(6) NULL, \
    UNIQUE KEY (source, incarnation, table_name, partition_number)) \
    ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions \
    (source, incarnation, table_name, partition_number, epoch, sequence) VALUES (?, ?, ?, ?, 0, ?) \
    ON DUPLICATE KEY UPDATE id = id";

const LOCK: &str = "SELECT id, epoch, sequence, session FROM batchsql_positions \
    WHERE source = ? AND incarnation = ? AND table_name = ? AND partition_number = ? FOR UPDATE";

const RAISE: &str = "UPDATE batchsql_positions SET epoch = epoch + 1, session = ? WHERE id = ?";

const SETTINGS: &str = "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog";

const NO_TABLE: u16 = 1146;
const NO_RIGHT: u16 = 1142;
const NO_VARIABLE: u16 = 1193;

/// Claims a partition.
pub(crate) async fn claim(conn: &mut MySqlConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
    let checked = check_settings(conn.begin().await?).await;
    conn.end(checked)?;
    let mut claimed = claim_once(conn.begin().await?, key, claim).await;
    if claimed.as_ref().is_err_and(|failed| failed.code == NO_TABLE && failed.usable) {
        let created = create(conn.begin().await?).await;
        conn.end(created.map_err(with_advice))?;
        claimed = claim_once(conn.begin().await?, key, claim).await;
    }
    conn.end(claimed.map_err(with_advice))
}

/// A crash of the server must not take a position back. Servers without these variables have no such choice.
async fn check_settings(connection: &mut MySqlConnection) -> Result<(), Failed> {
    let shown = match connection.fetch_one(SETTINGS).await {
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_VARIABLE => return Ok(()),
        shown => shown.map_err(Failed::asked)?,
    };
    let value = |index: usize| shown.try_get_unchecked::<i64, _>(index).map_err(Failed::asked);
    let (flush, has_binlog, sync) = (value(0)?, value(1)?, value(2)?);
    let refused = |what: String| {
        let text = format!(
            "{what}, so a crash of the server may lose rows and positions that it has committed; set it to 1, or give up \
             exactly once"
        );
        Err(Failed::unsent(SinkError::new(ErrorClass::Schema, text)))
    };
    match (flush, has_binlog, sync) {
        (1, 0, _) | (1, _, 1) => Ok(()),
        (1, ..) => refused(format!("sync_binlog is {sync}")),
        _ => refused(format!("innodb_flush_log_at_trx_commit is {flush}")),
    }
}

async fn create(connection: &mut MySqlConnection) -> Result<(), Failed> {
    connection.execute(CREATE).await.map(drop).map_err(Failed::asked)
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

async fn claim_once(connection: &mut MySqlConnection, key: &PartitionKey, claim: &Claim) -> Result<Claimed, Failed> {
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let keyed = |sql| sqlx::query(sql).bind(source).bind(incarnation).bind(table).bind(partition);
    if let Some(sequence) = claim.begin_at {
        let begin_at = keyed(BEGIN_AT).bind(sequence).persistent(false);
        begin_at.execute(&mut *connection).await.map_err(Failed::asked)?;
    }
    connection.execute("START TRANSACTION").await.map_err(Failed::asked)?;
    let raised = async {
        let Some(found) = keyed(LOCK).persistent(false).fetch_optional(&mut *connection).await? else {
            return Ok(Claimed::Missing);
        };
        let (mut position, owner) = position(&found)?;
        if !claim.takes_from(owner.as_deref()) {
            return Ok(Claimed::Other);
        }
        let raise = sqlx::query(RAISE).bind(&claim.owner).bind(position.id).persistent(false);
        raise.execute(&mut *connection).await?;
        position.epoch += 1;
        Ok(Claimed::Position(position))
    };
    match raised.await {
        Ok(claimed) => {
            // If this reply is lost, the epoch is raised or not: the partition is claimed again.
            connection.execute("COMMIT AND NO CHAIN").await.map_err(Failed::asked)?;
            Ok(claimed)
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

fn position(found: &MySqlRow) -> sqlx::Result<(Position, Option<String>)> {
    let position = Position { id: found.try_get(0)?, epoch: found.try_get(1)?, sequence: found.try_get(2)? };
    // A binary collation: the client takes the type for bytes.
    Ok((position, found.try_get_unchecked(3)?))
}

/// The statement that moves the position. It has numbers only. The server counts the rows that were found, changed or not.
pub(crate) fn move_position(step: &Step) -> String {
    let Step { id, epoch, from, to, .. } = step;
    format!("UPDATE batchsql_positions SET sequence = {to} WHERE id = {id} AND epoch = {epoch} AND sequence = {from}")
}

/// Moves the position without rows.
pub(crate) async fn advance(connection: &mut MySqlConnection, step: &Step) -> Result<(), Failed> {
    match connection.execute(&*move_position(step)).await {
        Ok(moved) if moved.rows_affected() == 1 => Ok(()),
        Ok(_) => Err(Failed::unsent(SinkError::fenced())),
        Err(error) => Err(Failed::after(error, Stage::Statement)),
    }
}
