//! Owns the writing of one batch: in one statement or in one transaction, with the outcome of every row.
//! Must not know how a statement gets its rows.

use std::ops::Range;

use batchsql_core::{ErrorClass, Rows, SinkError, Written};
use sqlx::{Executor, PgConnection};

use crate::classify::{LinkLost, is_refusal, server_error, sink_error};
use crate::conn::PostgresConn;
use crate::plan::{PostgresPlan, Tell, Way};
use crate::types::Echo;
use crate::{write_copy, write_insert};

/// Writes the rows in one transaction. After an error nothing of them is durable, unless its class says that this is
/// unknown.
pub(crate) async fn write_rows(
    conn: &mut PostgresConn,
    plan: &PostgresPlan,
    rows: Rows<'_>,
) -> Result<Written, SinkError> {
    let link = conn.begin()?;
    let mut result = write(link, plan, rows).await;
    if let Err(error) = &result {
        if !is_refusal(error) {
            // The connection stays busy, and is closed.
            return result.map(written);
        }
        if may_be_outdated(error) && !plan.is_current(link).await? {
            let text = "a column has another type than when the table was looked at";
            result = Err(SinkError::with_code(ErrorClass::Schema, "42804", text));
        }
    }
    conn.end();
    result.map(written).map_err(|error| of_these_rows(error, plan, rows))
}

fn written(ignored: Vec<u32>) -> Written {
    let mut written = Written::default();
    written.ignored = ignored;
    written
}

/// A number that does not fit was compared with the type that the column had.
fn may_be_outdated(error: &SinkError) -> bool {
    error.code() == Some("22003")
}

/// What a code means for these rows, where it depends on them.
fn of_these_rows(error: SinkError, plan: &PostgresPlan, rows: Rows<'_>) -> SinkError {
    match error.class() {
        // A policy of the table refused the row; the right to insert was checked before.
        ErrorClass::Permission if plan.has_row_security && error.code() == Some("42501") => {
            SinkError::with_code(ErrorClass::Row, "42501", "a policy of the table (row security) refuses the row")
        }
        ErrorClass::Duplicate if rows.len() == 1 => server_error("21000", ErrorClass::Row, None),
        _ => error,
    }
}

/// The rows that were ignored.
async fn write(link: &mut PgConnection, plan: &PostgresPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
    if plan.tell == Tell::Parts || (plan.tell == Tell::Keys && !is_known_by_key(plan, rows)) {
        return transaction(link, plan, rows, Body::Parts).await;
    }
    let way = plan.way(rows.len());
    if plan.keeps_versions() {
        let waves = rows.waves();
        if waves.len() > 1 {
            return transaction(link, plan, rows, Body::Waves(waves)).await;
        }
    }
    let result = if is_one_statement(plan, way, rows.len()) {
        run(link, plan, way, rows, LinkLost::AfterCommit).await
    } else {
        transaction(link, plan, rows, Body::Once(way)).await
    };
    match result {
        // The statement was undone: two of its rows are the same row to the server.
        Err(error) if error.class() == ErrorClass::Duplicate && rows.len() > 1 => {
            transaction(link, plan, rows, Body::Waves(rows.waves())).await
        }
        result => result,
    }
}

/// Whether each key comes back as it is sent.
fn is_known_by_key(plan: &PostgresPlan, rows: Rows<'_>) -> bool {
    plan.schema.key_columns().iter().all(|column| match plan.fields[*column].form.echo {
        Echo::Same => true,
        Echo::Changed => false,
        Echo::UpTo(limit) => match rows.column(*column).values() {
            batchsql_core::ColumnValues::Text(texts)
            | batchsql_core::ColumnValues::Decimal(texts)
            | batchsql_core::ColumnValues::Json(texts) => {
                (0..rows.len()).map(|row| texts.get(row)).all(|key| key.len() <= limit || key.chars().count() <= limit)
            }
            _ => true,
        },
    })
}

/// Whether the rows can be written without BEGIN and COMMIT.
fn is_one_statement(plan: &PostgresPlan, way: Way, rows: usize) -> bool {
    match way {
        // A simple query: no pooler takes it apart.
        Way::Copy => true,
        Way::Unnest => plan.named,
        Way::Values => plan.named && plan.values.as_ref().is_some_and(|values| values.shapes.split(rows).count() == 1),
        Way::Staging => false,
    }
}

/// What is done inside a transaction.
enum Body {
    /// All rows at once.
    Once(Way),
    /// Rows with one key after the other, after a savepoint.
    Waves(Vec<Vec<u32>>),
    /// Parts that are inserted whole or not at all, after a savepoint.
    Parts,
}

async fn transaction(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    body: Body,
) -> Result<Vec<u32>, SinkError> {
    // Two commands in one round trip.
    let begin = if matches!(body, Body::Once(_)) { "BEGIN" } else { "BEGIN; SAVEPOINT batchsql" };
    command(link, begin).await?;
    let done = match body {
        Body::Once(way) => run(link, plan, way, rows, LinkLost::BeforeCommit).await,
        Body::Waves(waves) => write_waves(link, plan, rows, &waves).await,
        Body::Parts => write_parts(link, plan, rows).await,
    };
    match done {
        Ok(ignored) => {
            // An error of a deferred constraint comes here, and ends the transaction.
            link.execute("COMMIT").await.map_err(|error| sink_error(error, LinkLost::AfterCommit))?;
            Ok(ignored)
        }
        Err(error) if is_refusal(&error) => {
            command(link, "ROLLBACK").await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Writes rows in one way; the ones that were ignored.
async fn run(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    way: Way,
    rows: Rows<'_>,
    lost: LinkLost,
) -> Result<Vec<u32>, SinkError> {
    match way {
        Way::Unnest => write_insert::by_unnest(link, plan, rows, lost).await,
        Way::Values => write_insert::by_values(link, plan, rows, lost).await,
        Way::Copy => write_copy::by_copy(link, plan, rows, lost).await,
        Way::Staging => write_copy::by_staging(link, plan, rows).await,
    }
}

/// Writes the versions of each key one after the other. Where the server sees more keys as equal than we do, waves
/// could put an older version over a newer one: then parts, in the order of the rows.
async fn write_waves(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    waves: &[Vec<u32>],
) -> Result<Vec<u32>, SinkError> {
    if waves.len() > 1 {
        match try_waves(link, plan, rows, waves).await {
            Err(error) if error.class() == ErrorClass::Duplicate => command(link, "ROLLBACK TO batchsql").await?,
            result => return result,
        }
    }
    write_parts(link, plan, rows).await
}

async fn try_waves(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    waves: &[Vec<u32>],
) -> Result<Vec<u32>, SinkError> {
    for wave in waves {
        let wave = rows.gather(wave);
        write_insert::by_unnest(link, plan, wave.rows(), LinkLost::BeforeCommit).await?;
    }
    Ok(Vec::new())
}

/// Writes the rows in their order in parts, each of which is written whole or ignored whole. Where a statement wrote
/// some of its rows, or met one row twice, it is undone and its halves are written. There is a savepoint at the start.
async fn write_parts(link: &mut PgConnection, plan: &PostgresPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
    let mut ignored: Vec<u32> = Vec::new();
    // What comes after `part`; the next part is the last one.
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut next = Some(0..rows.len());
    while let Some(part) = next {
        let inserted = match write_insert::count(link, plan, rows.slice(part.clone())).await {
            Err(error) if error.class() == ErrorClass::Duplicate && part.len() > 1 => None,
            result => Some(result?),
        };
        if inserted == Some(part.len() as u64) || inserted == Some(0) {
            if inserted == Some(0) {
                ignored.extend((0..).take(part.end).skip(part.start));
            }
            next = parts.pop();
            if next.is_some() {
                command(link, "RELEASE batchsql; SAVEPOINT batchsql").await?;
            }
            continue;
        }
        if part.len() == 1 {
            let text = "the server counts more rows than were sent; look for rules of the table";
            return Err(SinkError::new(ErrorClass::Internal, text));
        }
        command(link, "ROLLBACK TO batchsql").await?;
        let middle = part.start + part.len() / 2;
        parts.push(middle..part.end);
        next = Some(part.start..middle);
    }
    Ok(ignored)
}

/// Sends a command of the transaction that commits nothing.
async fn command(link: &mut PgConnection, sql: &'static str) -> Result<(), SinkError> {
    link.execute(sql).await.map(drop).map_err(|error| sink_error(error, LinkLost::BeforeCommit))
}
