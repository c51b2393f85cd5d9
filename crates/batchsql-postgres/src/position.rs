//! Owns the table of positions: claims, leases, and a position that moves without rows.
//! Must not know the rows, or how they are written.

use std::time::Duration;

use batchsql_core::{Claim, Claimed, ErrorClass, PartitionKey, Position, Removed, SinkError, Step, StoredPosition};
use batchsql_sql::{MOVED_TO, lease_after, lease_left, lease_micros, move_position, position_of, release_position};
use sqlx::postgres::PgRow;
use sqlx::{Execute, Executor, PgConnection, Postgres, Row};

use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::conn::PostgresConn;
use crate::source::Source;

/// Steps change two columns without an index, so with free space in the page they need no new index entries.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS batchsql_positions (\
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text NOT NULL, incarnation text NOT NULL, \
    table_name text NOT NULL, partition_number integer NOT NULL, epoch bigint NOT NULL, sequence bigint NOT NULL, \
    session text, lease timestamptz, moved_to bigint, \
    UNIQUE (source, incarnation, table_name, partition_number)) WITH (fillfactor = 10)";

const BEGIN_AT: &str = "INSERT INTO batchsql_positions \
    (source, incarnation, table_name, partition_number, epoch, sequence, moved_to) VALUES ($1, $2, $3, $4, 0, $5, $5) \
    ON CONFLICT (source, incarnation, table_name, partition_number) DO NOTHING";

/// The time of the transaction would be that before a lock was waited for.
const COLUMNS: &str = "id, epoch, sequence, session, \
    CAST(pg_catalog.date_part('epoch', lease - pg_catalog.clock_timestamp()) * 1000000 AS bigint)";

const OF_OWNER: &str = "source = $1 AND session = $2 AND lease IS NOT NULL";

/// What is locked for longer is not waited for.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout TO '1s'";

/// Ends the session whose open transaction holds the row. A lock that several sessions share has another kind of number, and
/// is not found.
const END_HOLDER: &str = "SELECT pg_catalog.pg_terminate_backend(l.pid) \
    FROM batchsql_positions p JOIN pg_catalog.pg_locks l \
    ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = p.xmax \
    WHERE l.pid <> pg_catalog.pg_backend_pid() AND ";

/// Of what the name leads to: a temporary table hides the one of all sessions. With an `i`, if a column may treat two texts as
/// one: it is neither `text` (25) nor `varchar` (1043), or its collation is not deterministic.
const KIND: &str = "SELECT c.relkind::pg_catalog.text || c.relpersistence::pg_catalog.text || \
    CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
    WHERE a.attrelid = c.oid AND a.attname IN ('source', 'incarnation', 'table_name', 'session') AND t.typcategory = 'S' \
    AND (CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END NOT IN (25, 1043) \
    OR pg_catalog.to_jsonb(l) OPERATOR(pg_catalog.->>) 'collisdeterministic' = 'false')) THEN 'i' ELSE '' END \
    FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass('batchsql_positions')";

/// The condition of a step, with which its commit is durable whatever the session has: only the one that claims is asked.
pub(crate) const IS_DURABLE: &str = "CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY \
    ('{off,local}'::pg_catalog.text[]) THEN pg_catalog.set_config('synchronous_commit', 'on', true) IS NOT NULL ELSE true END";

const LOCK_TIMEOUT: &str = "55P03";
const NO_TABLE: &str = "42P01";
/// Two sessions created the table at once.
const CREATED: [&str; 3] = ["23505", "42P07", "42710"];
const NO_RIGHT: &str = "42501";
const NO_COLUMN: &str = "42703";

/// Codes of statements on a table that has the name and other columns.
const OTHER_TABLE: [&str; 4] = ["42703", "42804", "42883", "42P10"];

/// Claims a partition.
pub(crate) async fn claim(
    source: &Source,
    conn: &mut PostgresConn,
    key: &PartitionKey,
    claim: &Claim,
) -> Result<Claimed, SinkError> {
    conn.check_idle().await?;
    if let Some(setting) = lossy_setting(conn).await? {
        // A session keeps what it was opened with: the next claim asks a new one, and rows are written by new ones. This one is
        // closed, also in a pool of the user.
        conn.begin()?;
        source.outdated.wrong();
        return Err(SinkError::new(ErrorClass::Schema, format!("{setting}, or give up exactly once")));
    }
    source.outdated.right();
    check_table(conn).await?;
    // Without a lock: the owner is not disturbed, and a step of it is not waited for.
    if let Some(refused) = look(conn, key, claim).await.map_err(with_advice)? {
        return Ok(refused);
    }
    let mut result = try_claim(conn, key, claim).await;
    if has_code(&result, &[NO_TABLE]) {
        create(conn).await?;
        result = try_claim(conn, key, claim).await;
    } else if has_code(&result, &[NO_COLUMN]) {
        // The other columns were read.
        add_column(conn).await?;
        result = try_claim(conn, key, claim).await;
    }
    if has_code(&result, &[LOCK_TIMEOUT]) {
        // Its owner may be another process by now, which is not disturbed. An outdated answer names an owner before it.
        if let Some(refused) = look(conn, key, claim).await? {
            return Ok(refused);
        }
        // A holder that is frozen, or whose client is gone, would hold it for as long as it lasts.
        match ask(conn, key, &format!("{END_HOLDER}{}", of_key())).await {
            Ok(Some(_)) => tracing::warn!(partition = %key, "ended the session that held the position"),
            Ok(None) => {}
            Err(error) => tracing::warn!(partition = %key, %error, "cannot end the session that holds the position"),
        }
        result = try_claim(conn, key, claim).await;
    }
    result.map_err(with_advice)
}

/// Of a statement on the table that is there.
pub(crate) fn with_advice(error: SinkError) -> SinkError {
    match error.code() {
        Some(NO_RIGHT) => {
            let text = "the user may not use the table batchsql_positions; grant SELECT, INSERT and UPDATE on it";
            SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text)
        }
        Some(code) if OTHER_TABLE.contains(&code) => {
            let text = format!(
                "batchsql_positions is another table (perhaps a temporary one of the session), with other columns or without the unique key; rename it, and the table is \
                 created, or change it to this: {CREATE}"
            );
            SinkError::with_code(ErrorClass::Schema, code, text)
        }
        _ => error,
    }
}

/// Whether the user may move positions: a right may be revoked while rows are written.
pub(crate) async fn may_move(link: &mut PgConnection) -> Result<bool, SinkError> {
    let sql = "SELECT COALESCE(pg_catalog.bool_and(pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE') \
        AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), true) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('sequence', 'moved_to') \
        WHERE c.oid = pg_catalog.to_regclass('batchsql_positions')";
    let found = link.fetch_optional(sql).await.map_err(before_commit)?;
    Ok(found.map(|row| row.try_get(0)).transpose().map_err(before_commit)?.unwrap_or(true))
}

/// Refuses a table that a crash of the server, or the end of a session, would empty: its positions would be gone, and rows
/// would be written again or passed over.
async fn check_table(conn: &mut PostgresConn) -> Result<(), SinkError> {
    let found = conn.begin()?.fetch_optional(KIND).await.map_err(before_commit)?;
    conn.end();
    let kind: Option<String> = found.map(|row| row.try_get(0)).transpose().map_err(before_commit)?;
    fits(kind.as_deref())
}

/// `kind`: as [`KIND`] returns it; `None` if there is no table yet.
fn fits(kind: Option<&str>) -> Result<(), SinkError> {
    let text = match kind {
        None | Some("rp") => return Ok(()),
        Some("rpi") => {
            "the table batchsql_positions compares texts without case, without spaces at their end, or by a collation that is not \
             deterministic, so two sources would share a position, and rows of one be passed over; change its columns source, \
             incarnation, table_name and session to text with the default collation"
        }
        Some(kind) if kind.starts_with("ru") => {
            "the table batchsql_positions is UNLOGGED: a crash of the server empties it; ALTER TABLE batchsql_positions SET \
             LOGGED, or give up exactly once"
        }
        Some(kind) if kind.starts_with("rt") => {
            "a temporary table has the name batchsql_positions, and its positions end with its session; drop it where it is \
             created"
        }
        Some(_) => {
            "batchsql_positions is not a plain table (it is a view, or a partitioned or foreign table); rename it, and the table \
             is created, or write to another schema with search_path"
        }
    };
    Err(SinkError::new(ErrorClass::Schema, text))
}

/// Whether the partition has an owner that the claim does not take it from.
async fn look(conn: &mut PostgresConn, key: &PartitionKey, claim: &Claim) -> Result<Option<Claimed>, SinkError> {
    let sql = format!("SELECT {COLUMNS} FROM batchsql_positions WHERE {}", of_key());
    let found = ask(conn, key, &sql).await?.as_ref().map(found).transpose().map_err(before_commit)?;
    Ok(found.and_then(|found| claim.refused_by(found.owner.as_deref(), found.lease)))
}

fn of_key() -> String {
    position_of(|number| format!("${number}"))
}

/// The columns of [`COLUMNS`].
struct Found {
    position: Position,
    owner: Option<String>,
    lease: Option<Duration>,
}

fn found(row: &PgRow) -> sqlx::Result<Found> {
    let position = Position { id: row.try_get(0)?, epoch: row.try_get(1)?, sequence: row.try_get(2)? };
    Ok(Found { position, owner: row.try_get(3)?, lease: lease_left(row.try_get(4)?) })
}

fn ends_after(micros: i64) -> String {
    format!("pg_catalog.clock_timestamp() + {micros} * interval '1 microsecond'")
}

fn has_code<T>(result: &Result<T, SinkError>, codes: &[&str]) -> bool {
    result.as_ref().is_err_and(|error| error.code().is_some_and(|code| codes.contains(&code)))
}

async fn ask(conn: &mut PostgresConn, key: &PartitionKey, sql: &str) -> Result<Option<PgRow>, SinkError> {
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

/// The setting of the session with which a crash of the server takes back what it has committed, if so.
pub(crate) async fn lossy_setting(conn: &mut PostgresConn) -> Result<Option<String>, SinkError> {
    let link = conn.begin()?;
    let shown =
        link.fetch_one("SELECT pg_catalog.current_setting('synchronous_commit')").await.map_err(before_commit)?;
    conn.end();
    let level: String = shown.try_get(0).map_err(before_commit)?;
    Ok(matches!(&*level, "off" | "local").then(|| {
        format!(
            "synchronous_commit is {level}, so the server may lose rows and positions that it has committed; set it to on for \
             the user or the database"
        )
    }))
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

/// Adds what a table of an earlier version has not. It is waited for as a row is.
async fn add_column(conn: &mut PostgresConn) -> Result<(), SinkError> {
    let added = change(conn, "ALTER TABLE batchsql_positions ADD COLUMN IF NOT EXISTS moved_to bigint").await;
    if has_code(&added, &[NO_RIGHT]) {
        let text = "the table batchsql_positions is that of an earlier version, and the user may not change it; as its owner: \
                    ALTER TABLE batchsql_positions ADD COLUMN moved_to bigint";
        return Err(SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text));
    }
    added.map(drop)
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
    link.execute(BEGIN).await.map_err(before_commit)?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let keyed = |sql| sqlx::query(sql).bind(source).bind(incarnation).bind(table).bind(number(*partition));
    let lock = format!("SELECT {COLUMNS}, moved_to FROM batchsql_positions WHERE {} FOR UPDATE", of_key());
    if let Some(sequence) = claim.begin_at {
        let begin_at = keyed(BEGIN_AT).bind(sequence).persistent(false);
        begin_at.execute(&mut *link).await.map_err(before_commit)?;
    }
    let locked = keyed(&lock).persistent(false).fetch_optional(&mut *link).await.map_err(before_commit)?;
    let with_end = |row: &PgRow| Ok((found(row)?, row.try_get(5)?));
    let claimed = match locked.as_ref().map(with_end).transpose().map_err(before_commit)? {
        None => Claimed::Missing,
        Some((Found { mut position, owner, lease }, moved_to)) => match claim.refused_by(owner.as_deref(), lease) {
            Some(refused) => refused,
            None => {
                let lease = lease_after(claim, owner.as_deref(), ends_after);
                let raise = format!(
                    "UPDATE batchsql_positions SET epoch = epoch + 1, session = $1, lease = {lease}, moved_to = {MOVED_TO} \
                     WHERE id = $2"
                );
                let raise = sqlx::query(&raise).bind(&claim.owner).bind(position.id).persistent(false);
                raise.execute(&mut *link).await.map_err(before_commit)?;
                position.epoch += 1;
                Claimed::at(position, moved_to)
            }
        },
    };
    // If this reply is lost, the epoch is raised or not: the partition is claimed again.
    link.execute("COMMIT").await.map_err(before_commit)?;
    Ok(claimed)
}

/// Moves the position without rows.
pub(crate) async fn advance(conn: &mut PostgresConn, step: &Step) -> Result<(), SinkError> {
    conn.check_idle().await?;
    let link = conn.begin()?;
    let sql = format!("{} AND {IS_DURABLE}", move_position(step, ""));
    let moved = link.execute(&*sql).await.map_err(|error| sink_error(error, LinkLost::AfterCommit))?;
    conn.end();
    if moved.rows_affected() == 1 { Ok(()) } else { Err(SinkError::fenced()) }
}

/// Reads all positions of a source.
pub(crate) async fn read(conn: &mut PostgresConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
    Ok(read_with_kind(conn, source).await?.0)
}

/// With the kind of the table, as [`fits`] takes it, if there are positions.
async fn read_with_kind(
    conn: &mut PostgresConn,
    source: &str,
) -> Result<(Vec<StoredPosition>, Option<String>), SinkError> {
    conn.check_idle().await?;
    let sql = format!(
        "SELECT {COLUMNS}, incarnation, table_name, partition_number, ({KIND}) FROM batchsql_positions WHERE source = $1 \
         ORDER BY incarnation, table_name, partition_number"
    );
    let link = conn.begin()?;
    let rows = sqlx::query(&sql).bind(source).persistent(false).fetch_all(link).await.map_err(before_commit);
    let rows = match rows {
        Err(error) if error.code() == Some(NO_TABLE) => Vec::new(),
        rows => rows?,
    };
    conn.end();
    let stored = |row: &PgRow| {
        let Found { position, owner, lease } = found(row)?;
        let partition: i32 = row.try_get(7)?;
        let key = PartitionKey::new(
            source,
            row.try_get::<String, _>(5)?,
            row.try_get::<String, _>(6)?,
            u32::try_from(partition).unwrap_or(0),
        );
        Ok(StoredPosition::new(key, position).owned(owner, lease))
    };
    let kind = rows.first().map(|row| row.try_get(8)).transpose().map_err(before_commit)?.flatten();
    Ok((rows.iter().map(stored).collect::<sqlx::Result<_>>().map_err(before_commit)?, kind))
}

/// Renews the leases of an owner.
pub(crate) async fn renew(
    conn: &mut PostgresConn,
    source: &str,
    owner: &str,
    lease: Duration,
) -> Result<Vec<StoredPosition>, SinkError> {
    conn.check_idle().await?;
    let ends = ends_after(lease_micros(lease));
    let all = format!("UPDATE batchsql_positions SET lease = {ends} WHERE {OF_OWNER}");
    let mut renewed = renew_with(conn, &all, source, owner).await;
    if has_code(&renewed, &[LOCK_TIMEOUT]) {
        let free = format!(
            "UPDATE batchsql_positions SET lease = {ends} WHERE id IN \
             (SELECT id FROM batchsql_positions WHERE {OF_OWNER} FOR UPDATE SKIP LOCKED)"
        );
        renewed = renew_with(conn, &free, source, owner).await;
    }
    match renewed {
        Err(error) if error.code() == Some(NO_TABLE) => return Ok(Vec::new()),
        renewed => renewed?,
    }
    let (mut stored, kind) = read_with_kind(conn, source).await?;
    fits(kind.as_deref())?;
    stored.retain(|stored| stored.owner.as_deref() == Some(owner));
    Ok(stored)
}

async fn renew_with(conn: &mut PostgresConn, sql: &str, source: &str, owner: &str) -> Result<(), SinkError> {
    let renew = sqlx::query(sql).bind(source).bind(owner).persistent(false);
    change(conn, renew).await.map(drop)
}

/// Changes rows, and waits for their locks only for a moment. How many rows were changed.
async fn change<'q>(conn: &mut PostgresConn, query: impl Execute<'q, Postgres> + 'q) -> Result<u64, SinkError> {
    let link = conn.begin()?;
    let changed = async {
        link.execute(BEGIN).await?;
        let changed = link.execute(query).await?;
        link.execute("COMMIT").await?;
        Ok(changed.rows_affected())
    };
    let changed = changed.await.map_err(before_commit);
    if let Err(error) = &changed
        && (!is_refusal(error) || rollback(link).await.is_err())
    {
        return changed;
    }
    conn.end();
    changed
}

/// Gives a partition away. A step that still holds it is not waited for: the lease ends by itself.
pub(crate) async fn release(conn: &mut PostgresConn, position: &Position) -> Result<bool, SinkError> {
    conn.check_idle().await?;
    Ok(change(conn, &*release_position(position)).await? == 1)
}

/// Removes the positions of an incarnation.
pub(crate) async fn remove(
    conn: &mut PostgresConn,
    source: &str,
    incarnation: &str,
    ended_owners: &[String],
) -> Result<Removed, SinkError> {
    conn.check_idle().await?;
    let link = conn.begin()?;
    let removed = remove_in_transaction(link, source, incarnation, ended_owners).await;
    if let Err(error) = &removed
        && (!is_refusal(error) || rollback(link).await.is_err())
    {
        return removed;
    }
    conn.end();
    match removed {
        Err(error) if error.code() == Some(NO_TABLE) => Ok(Removed::Positions(0)),
        Err(error) if error.code() == Some(NO_RIGHT) => {
            let text = "the user may not remove rows of batchsql_positions; grant DELETE on it";
            Err(SinkError::with_code(ErrorClass::Permission, NO_RIGHT, text))
        }
        removed => removed,
    }
}

async fn remove_in_transaction(
    link: &mut PgConnection,
    source: &str,
    incarnation: &str,
    ended_owners: &[String],
) -> Result<Removed, SinkError> {
    link.execute(BEGIN).await.map_err(before_commit)?;
    let lock = "SELECT id, session FROM batchsql_positions WHERE source = $1 AND incarnation = $2 FOR UPDATE";
    let lock = sqlx::query(lock).bind(source).bind(incarnation).persistent(false);
    let locked = lock.fetch_all(&mut *link).await.map_err(before_commit)?;
    let found = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    let found =
        locked.iter().map(found).collect::<sqlx::Result<Vec<(i64, Option<String>)>>>().map_err(before_commit)?;
    if let Some(refused) = Removed::refused_by(found.iter().map(|(_, owner)| owner.as_deref()), ended_owners) {
        rollback(link).await?;
        return Ok(refused);
    }
    let ids: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
    let remove = sqlx::query("DELETE FROM batchsql_positions WHERE id = ANY($1)").bind(ids).persistent(false);
    remove.execute(&mut *link).await.map_err(before_commit)?;
    link.execute("COMMIT").await.map_err(before_commit)?;
    Ok(Removed::Positions(found.len() as u64))
}
