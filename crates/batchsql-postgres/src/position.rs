//! Owns the table of positions: claims, and the step inside the transaction of its rows.
//! Must not know the rows, or how they are written.

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, SinkError, Step};
use sqlx::{Executor, PgConnection, Row};

use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::conn::PostgresConn;

/// Steps change one column without an index, so with free space in the page they need no new index entries.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (\
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text NOT NULL, incarnation text NOT NULL, \
    table_name text NOT NULL, partition_number integer NOT NULL, epoch bigint NOT NULL, sequence bigint NOT NULL, \
    session text, lease timestamptz, \
    UNIQUE (source, incarnation, table_name, partition_number)) WITH (fillfactor = 10)";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions \
    (source, incarnation, table_name, partition_number, epoch, sequence) VALUES ($1, $2, $3, $4, 0, $5) \
    ON CONFLICT (source, incarnation, table_name, partition_number) DO NOTHING";

const LOCK: &str = "SELECT id, epoch, sequence, session FROM batchsql_positions \
    WHERE source = $1 AND incarnation = $2 AND table_name = $3 AND partition_number = $4 FOR UPDATE";

const RAISE: &str = "UPDATE batchsql_positions SET epoch = epoch + 1, session = $1 WHERE id = $2";

const OWNER: &str = "SELECT session FROM batchsql_positions \
    WHERE source = $1 AND incarnation = $2 AND table_name = $3 AND partition_number = $4";

/// Ends the session whose open transaction holds the row. A lock that several sessions share has another kind of number, and
/// is not found.
const END_HOLDER: &str = "SELECT pg_catalog.pg_terminate_backend(l.pid) \
    FROM batchsql_positions p JOIN pg_catalog.pg_locks l \
    ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = p.xmax \
    WHERE p.source = $1 AND p.incarnation = $2 AND p.table_name = $3 AND p.partition_number = $4 \
    AND l.pid <> pg_catalog.pg_backend_pid()";

const LOCK_TIMEOUT: &str = "55P03";
const NO_TABLE: &str = "42P01";
/// Two sessions created the table at once.
const CREATED: [&str; 3] = ["23505", "42P07", "42710"];
const NO_RIGHT: &str = "42501";

/// Claims a partition.
pub(crate) async fn claim(conn: &mut PostgresConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
    conn.check_idle().await?;
    check_settings(conn).await?;
    let mut result = try_claim(conn, key, claim).await;
    if has_code(&result, &[NO_TABLE]) {
        create(conn).await?;
        result = try_claim(conn, key, claim).await;
    }
    if has_code(&result, &[LOCK_TIMEOUT]) {
        // Its owner may be another process, which is not disturbed. An outdated answer names an owner before it.
        let owner = ask(conn, key, OWNER).await?.and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten());
        if !claim.takes_from(owner.as_deref()) {
            return Ok(Claimed::Other);
        }
        // A holder that is frozen, or whose client is gone, would hold it for as long as it lasts.
        match ask(conn, key, END_HOLDER).await {
            Ok(Some(_)) => tracing::warn!(partition = %key, "ended the session that held the position"),
            Ok(None) => {}
            Err(error) => tracing::warn!(partition = %key, %error, "cannot end the session that holds the position"),
        }
        result = try_claim(conn, key, claim).await;
    }
    result
}

fn has_code<T>(result: &Result<T, SinkError>, codes: &[&str]) -> bool {
    result.as_ref().is_err_and(|error| error.code().is_some_and(|code| codes.contains(&code)))
}

async fn ask(
    conn: &mut PostgresConn,
    key: &PartitionKey,
    sql: &str,
) -> Result<Option<sqlx::postgres::PgRow>, SinkError> {
    let link = conn.begin()?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let query = sqlx::query(sql).bind(source).bind(incarnation).bind(table).bind(number(*partition));
    let found = query.persistent(false).fetch_optional(link).await.map_err(before_commit);
    match found {
        Err(error) if error.code() == Some(NO_TABLE) => {
            conn.end();
            Ok(None)
        }
        Err(error) => {
            if is_refusal(&error) {
                conn.end();
            }
            Err(error)
        }
        Ok(found) => {
            conn.end();
            Ok(found)
        }
    }
}

fn before_commit(error: sqlx::Error) -> SinkError {
    sink_error(error, LinkLost::BeforeCommit)
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A crash of the server must not take a position back.
async fn check_settings(conn: &mut PostgresConn) -> Result<(), SinkError> {
    let link = conn.begin()?;
    let shown =
        link.fetch_one("SELECT pg_catalog.current_setting('synchronous_commit')").await.map_err(before_commit)?;
    conn.end();
    let level: String = shown.try_get(0).map_err(before_commit)?;
    if matches!(&*level, "off" | "local") {
        let text = format!(
            "synchronous_commit is {level}, so the server may lose rows and positions that it has committed; set it to on \
             for the user or the database, or give up exactly once"
        );
        return Err(SinkError::new(ErrorClass::Schema, text));
    }
    Ok(())
}

async fn create(conn: &mut PostgresConn) -> Result<(), SinkError> {
    let link = conn.begin()?;
    let created = link.execute(CREATE).await.map(drop).map_err(before_commit);
    match created {
        Err(error) if error.code().is_some_and(|code| CREATED.contains(&code)) => {}
        Err(error) if error.code() == Some(NO_RIGHT) => {
            conn.end();
            let text = format!(
                "the table batchsql_positions is missing and the user may not create it; create it as its owner, and grant \
                 SELECT, INSERT and UPDATE: {CREATE}"
            );
            return Err(SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text));
        }
        created => created?,
    }
    conn.end();
    Ok(())
}

async fn try_claim(conn: &mut PostgresConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
    let link = conn.begin()?;
    let result = claim_in_transaction(link, key, claim).await;
    match &result {
        Ok(_) => conn.end(),
        Err(error) if is_refusal(error) => {
            let rolled_back = rollback(link).await;
            if rolled_back.is_ok() {
                conn.end();
            }
        }
        Err(_) => {}
    }
    result
}

async fn rollback(link: &mut PgConnection) -> Result<(), SinkError> {
    link.execute("ROLLBACK").await.map(drop).map_err(before_commit)
}

async fn claim_in_transaction(
    link: &mut PgConnection,
    key: &PartitionKey,
    claim: &Claim,
) -> Result<Claimed, SinkError> {
    link.execute("BEGIN; SET LOCAL lock_timeout TO '1s'").await.map_err(before_commit)?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let keyed = |sql| sqlx::query(sql).bind(source).bind(incarnation).bind(table).bind(number(*partition));
    if let Some(sequence) = claim.begin_at {
        let begin_at = keyed(BEGIN_AT).bind(sequence).persistent(false);
        begin_at.execute(&mut *link).await.map_err(before_commit)?;
    }
    let found = keyed(LOCK).persistent(false).fetch_optional(&mut *link).await.map_err(before_commit)?;
    let position = |row: &sqlx::postgres::PgRow| {
        let position = Position { id: row.try_get(0)?, epoch: row.try_get(1)?, sequence: row.try_get(2)? };
        Ok((position, row.try_get::<Option<String>, _>(3)?))
    };
    let claimed = match found.as_ref().map(position).transpose().map_err(before_commit)? {
        None => Claimed::Missing,
        Some((_, owner)) if !claim.takes_from(owner.as_deref()) => Claimed::Other,
        Some((mut position, _)) => {
            let raise = sqlx::query(RAISE).bind(&claim.owner).bind(position.id).persistent(false);
            raise.execute(&mut *link).await.map_err(before_commit)?;
            position.epoch += 1;
            Claimed::Position(position)
        }
    };
    // If this reply is lost, the epoch is raised or not: the partition is claimed again.
    link.execute("COMMIT").await.map_err(before_commit)?;
    Ok(claimed)
}

/// The statement that moves the position. It has numbers only.
pub(crate) fn move_position(step: &Step) -> String {
    let Step { id, epoch, from, to, .. } = step;
    format!("UPDATE batchsql_positions SET sequence = {to} WHERE id = {id} AND epoch = {epoch} AND sequence = {from}")
}

/// Moves the position without rows.
pub(crate) async fn advance(conn: &mut PostgresConn, step: &Step) -> Result<(), SinkError> {
    conn.check_idle().await?;
    let link = conn.begin()?;
    let moved = link.execute(&*move_position(step)).await.map_err(|error| sink_error(error, LinkLost::AfterCommit))?;
    conn.end();
    if moved.rows_affected() == 1 { Ok(()) } else { Err(SinkError::fenced()) }
}
