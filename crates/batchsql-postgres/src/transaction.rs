//! Owns the transaction of a batch: its begin with the position of a step, the work inside, its end.
//! Must not know how rows are bound to a statement, or which way is chosen.

use std::ops::Range;

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError};
use batchsql_sql::move_position;
use sqlx::{Executor, PgConnection};

use crate::choice::Way;
use crate::classify::{LinkLost, is_raised, is_refusal, sink_error};
use crate::commit_stage::CommitStage;
use crate::plan::PostgresPlan;
use crate::position::{IS_DURABLE, with_advice};
use crate::{guard, write_copy, write_insert};

/// No transaction is open.
const NOT_OPEN: &str = "25P01";
/// An error has ended the open transaction, except for its ROLLBACK.
const FAILED: &str = "25P02";

/// Fails with [`NOT_OPEN`] if the server or a proxy has ended the transaction without an error: later statements have committed
/// for themselves, without the position, and earlier ones are gone. COMMIT itself would only warn. Nothing is written behind it,
/// so it costs nothing.
const IS_OPEN: &str = "SAVEPOINT batchsql_open";

/// Several commands in one round trip. A trigger may include row values in a notice, and the client logs notices. One before may have
/// changed the encoding of the session.
pub(crate) const BEGIN: &str = "BEGIN; SET LOCAL client_min_messages TO error; SET LOCAL client_encoding TO 'UTF8'";

/// The work inside a transaction.
pub(crate) enum Body {
    /// All rows at once.
    Once(Way),
    /// The versions of each key one after the other, after a savepoint.
    Waves(Vec<Vec<u32>>, Way),
    /// Parts that are written whole or not at all, after a savepoint.
    Parts,
}

/// Writes the rows in a transaction; returns the ignored ones.
pub(crate) async fn transaction(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    body: Body,
    attempt: &Attempt,
) -> Result<Vec<u32>, SinkError> {
    // One statement may have been sent before and was rolled back.
    attempt.defer();
    let begin = BEGIN;
    let savepoint = match body {
        Body::Once(_) => "",
        Body::Waves(..) | Body::Parts => "; SAVEPOINT batchsql",
    };
    let is_staged = matches!(body, Body::Once(Way::Staging));
    let has_many_statements = matches!(body, Body::Once(Way::Values | Way::Staging) | Body::Waves(..) | Body::Parts);
    match attempt.step() {
        None => {
            let stage = if is_staged { format!("; {}", plan.staging.create) } else { String::new() };
            match command(link, &format!("{begin}{stage}{savepoint}")).await {
                Err(error) if is_refusal(&error) => {
                    command(link, "ROLLBACK").await?;
                    return Err(error);
                }
                begun => begun?,
            }
        }
        Some(step) => {
            let sql = format!("{begin}; {} AND {IS_DURABLE}{savepoint}", move_position(step, ""));
            let begun = link.execute(&*sql).await.map_err(|error| sink_error(error, LinkLost::BeforeCommit));
            // The position is moved last but for the savepoint: an error is one of it. So the temporary table comes behind it.
            match begun {
                Ok(moved) if moved.rows_affected() == 1 => {}
                Ok(_) => {
                    command(link, "ROLLBACK").await?;
                    return Err(SinkError::fenced());
                }
                Err(error) if is_refusal(&error) => {
                    command(link, "ROLLBACK").await?;
                    return Err(with_advice(error).of_position());
                }
                Err(error) => return Err(error),
            }
        }
    }
    let done = match body {
        Body::Once(Way::Staging) if attempt.step().is_some() => match command(link, &plan.staging.create).await {
            Ok(()) => run(link, plan, Way::Staging, rows, CommitStage::Within).await,
            Err(error) => Err(error),
        },
        Body::Once(way) => run(link, plan, way, rows, CommitStage::Within).await,
        Body::Waves(waves, way) => write_waves(link, plan, rows, (&waves, way)).await,
        Body::Parts => write_parts(link, plan, rows).await,
    };
    match done {
        Ok(ignored) if attempt.step().is_some_and(|step| !step.commits) => {
            // Otherwise a deferred constraint would be checked by COMMIT.
            let checked = command(link, &format!("{IS_OPEN}; SET CONSTRAINTS ALL IMMEDIATE")).await;
            command(link, "ROLLBACK").await?;
            checked.map_err(without_transaction).map(|()| ignored)
        }
        Ok(ignored) => commit(link, attempt).await.map(|()| ignored),
        Err(error) if has_many_statements => Err(undo(link, error).await),
        Err(error) => {
            let error = without_transaction(error);
            if is_refusal(&error) {
                command(link, "ROLLBACK").await?;
            }
            Err(error)
        }
    }
}

/// Commits, if the transaction is still there. An error of a deferred constraint occurs here and ends the transaction.
pub(crate) async fn commit(link: &mut PgConnection, attempt: &Attempt) -> Result<(), SinkError> {
    let sql = format!("{IS_OPEN}; COMMIT");
    let lost = CommitStage::Commits(attempt).begin()?;
    link.execute(&*sql).await.map(drop).map_err(|error| without_transaction(sink_error(error, lost)))
}

/// Rolls back after an error of one of several statements. Those before the refused one may be committed, or their temporary
/// table gone, if the transaction is not there any more.
pub(crate) async fn undo(link: &mut PgConnection, error: SinkError) -> SinkError {
    let error = without_transaction(error);
    if !is_refusal(&error) {
        return error;
    }
    match check_open(link).await {
        Ok(()) => command(link, "ROLLBACK").await.err().unwrap_or(error),
        Err(lost) => lost,
    }
}

/// Checks that the transaction of a refused statement is still there.
async fn check_open(link: &mut PgConnection) -> Result<(), SinkError> {
    match command(link, IS_OPEN).await {
        Err(error) if error.code() == Some(FAILED) => Ok(()),
        checked => checked.map_err(without_transaction),
    }
}

/// What it means that there is no transaction.
fn without_transaction(error: SinkError) -> SinkError {
    if error.code() != Some(NOT_OPEN) || is_raised(&error) {
        return error;
    }
    let text = "the transaction has ended before its COMMIT, so rows of it may be committed without the others, or without \
                their position";
    SinkError::with_code(ErrorClass::Unknown, NOT_OPEN, text)
}

/// Writes rows with one strategy; returns the ignored ones.
pub(crate) async fn run(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    way: Way,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    match way {
        Way::Unnest => write_insert::by_unnest(link, plan, rows, stage).await,
        Way::Values => write_insert::by_values(link, plan, rows, stage).await,
        Way::Copy => write_copy::by_copy(link, plan, rows, stage).await,
        Way::Staging => write_copy::by_staging(link, plan, rows).await,
        Way::Numbered => write_insert::by_numbers(link, plan, rows, stage).await,
    }
}

/// Writes the versions of each key one after the other. If the server treats more keys as equal than we do, waves
/// could overwrite a newer version with an older one: then the rows are written in parts, in their order.
async fn write_waves(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    (waves, way): (&[Vec<u32>], Way),
) -> Result<Vec<u32>, SinkError> {
    if waves.len() > 1 {
        match try_waves(link, plan, rows, (waves, way)).await {
            Err(error)
                if error.class() == ErrorClass::Duplicate || (way == Way::Numbered && has_no_numbers(&error)) =>
            {
                command(link, "ROLLBACK TO batchsql").await?;
            }
            result => return result,
        }
    }
    write_parts(link, plan, rows).await
}

/// Whether a statement of [`Way::Numbered`] cannot tell which rows it would write, or may be refused for this reason.
pub(crate) fn has_no_numbers(error: &SinkError) -> bool {
    matches!(error.code(), Some(guard::RAISED | "42704"))
}

async fn try_waves(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    (waves, way): (&[Vec<u32>], Way),
) -> Result<Vec<u32>, SinkError> {
    let mut ignored = Vec::new();
    for wave in waves {
        let shared = rows.gather(wave);
        let of_wave = run(link, plan, way, shared.rows(), CommitStage::Within).await?;
        ignored.extend(of_wave.into_iter().map(|row| wave[row as usize]));
    }
    ignored.sort_unstable();
    Ok(ignored)
}

/// Rows of the first part. It doubles with each part that needs one statement.
const FIRST_PART: usize = 256;

/// Writes the rows in order in parts, each of which is written whole or ignored whole. If a statement wrote only some
/// of its rows, or found one row twice, it is rolled back and its halves are written. There is a savepoint at the
/// start.
async fn write_parts(link: &mut PgConnection, plan: &PostgresPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
    let mut ignored: Vec<u32> = Vec::new();
    // Parts of the rows up to `cut` that are not written, the next one last.
    let mut parts: Vec<Range<usize>> = Vec::new();
    // If dropped rows are scattered, a part of all rows would be rolled back and written again many times.
    // If a row may change several stored ones, the count of a part does not tell how many rows of it found one.
    let has_shared_keys = plan.has_shared_keys();
    let (mut cut, mut size) = (0, if has_shared_keys { 1 } else { FIRST_PART });
    loop {
        let part = parts.pop().unwrap_or_else(|| cut..rows.len().min(cut.saturating_add(size)));
        cut = cut.max(part.end);
        let inserted = match write_insert::count(link, plan, rows.slice(part.clone())).await {
            Err(error) if error.class() == ErrorClass::Duplicate && part.len() > 1 => None,
            Ok(stored) if has_shared_keys => Some(stored.min(1)),
            result => Some(result?),
        };
        if inserted == Some(part.len() as u64) || inserted == Some(0) {
            if inserted == Some(0) {
                ignored.extend((0..).take(part.end).skip(part.start));
            }
            if parts.is_empty() && cut == rows.len() {
                return Ok(ignored);
            }
            if part.len() >= FIRST_PART {
                size = size.saturating_mul(2);
            }
            // A part of one row is never undone.
            if !has_shared_keys {
                command(link, "RELEASE batchsql; SAVEPOINT batchsql").await?;
            }
            continue;
        }
        if part.len() == 1 {
            let text = "the server counts more rows than were sent; check the rules of the table";
            return Err(SinkError::new(ErrorClass::Internal, text));
        }
        command(link, "ROLLBACK TO batchsql").await?;
        size = FIRST_PART;
        let middle = part.start + part.len() / 2;
        parts.push(middle..part.end);
        parts.push(part.start..middle);
    }
}

/// Sends a command of the transaction that commits nothing.
async fn command(link: &mut PgConnection, sql: &str) -> Result<(), SinkError> {
    link.execute(sql).await.map(drop).map_err(|error| sink_error(error, LinkLost::BeforeCommit))
}
