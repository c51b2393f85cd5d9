//! Owns the writing of one batch: in one statement or in one transaction, with the outcome of every row.
//! Must not know how rows are bound to a statement.

use batchsql_core::exhaustive::Values;
use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Target, Written};
use sqlx::PgConnection;

use crate::choice::Way;
use crate::classify::{is_refusal, may_be_committed_elsewhere, server_error};
use crate::commit_stage::CommitStage;
use crate::conn::{PostgresConn, ask_left, other_encoding};
use crate::fit::unfit_rows;
use crate::guard;
use crate::outcome_source::OutcomeSource;
use crate::plan::{Freshness, PostgresPlan, Problem, TableState};
use crate::position::may_move;
use crate::refused_column::with_column;
use crate::session::Left;
use crate::statements::NOT_UTF8;
use crate::transaction::{Body, has_no_numbers, run, transaction};
use crate::types::Echo;
use crate::write_returning::write_returning;
use crate::{write_copy, write_insert};

/// Writes the rows in one transaction. After an error none of them is durable, unless its class says that this is
/// unknown. Until `attempt` is begun nothing can be durable, even if the write is abandoned.
pub(crate) async fn write_rows(
    conn: &mut PostgresConn,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Written, SinkError> {
    if plan.is_outdated() {
        return Err(outdated());
    }
    if let Some(why) = plan.not_durable_with_position().filter(|_| attempt.step().is_some()) {
        return Err(SinkError::new(ErrorClass::Schema, why));
    }
    attempt.defer();
    // Behind a pooler the next statement may be that of another session.
    let has_triggers = plan.runs_triggers() && plan.named;
    let refused = unfit_rows(rows, &plan.fields);
    // A column may have become wider since then.
    let is_read_again = plan.is_due() || !refused.is_empty();
    // The name of the table that is read again is not checked.
    let is_checked = has_triggers || !plan.named || plan.checks_encoding(rows.len());
    conn.check_before_write(is_checked && !is_read_again).await?;
    if has_triggers {
        conn.run_triggers();
    }
    if is_read_again {
        let freshness = if refused.is_empty() { Freshness::Recent } else { Freshness::Values };
        let state = plan.recheck_table(conn.begin()?, freshness).await?;
        conn.end();
        if !matches!(state, TableState::Same) {
            return Err(outdated());
        }
    }
    if refused.is_empty() {
        return write_fit(conn, plan, rows, attempt).await;
    }
    if attempt.is_atomic() {
        let (_, error) = refused.into_iter().next().expect("there are some");
        return Err(error);
    }
    let kept = all_but(rows.len(), &refused);
    let mut written = Written::default();
    if !kept.is_empty() {
        written = write_fit(conn, plan, rows.gather(&kept).rows(), attempt).await?;
        written.ignored.iter_mut().for_each(|row| *row = kept[*row as usize]);
        written.returned.iter_mut().for_each(|(row, _)| *row = kept[*row as usize]);
    }
    written.rejected = refused;
    Ok(written)
}

/// The rows that are not rejected. `refused` is ascending.
fn all_but(rows: usize, refused: &[(u32, SinkError)]) -> Vec<u32> {
    let mut next = refused.iter().map(|(row, _)| *row).peekable();
    (0_u32..).take(rows).filter(|row| next.next_if_eq(row).is_none()).collect()
}

/// Writes rows whose values fit their columns.
async fn write_fit(
    conn: &mut PostgresConn,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Written, SinkError> {
    let link = conn.begin()?;
    let mut result = write_at_all(link, plan, rows, attempt).await;
    if result.as_ref().is_err_and(|error| error.code() == Some("XX000") && is_refusal(error)) {
        attempt.defer();
        result = write_at_all(link, plan, rows, attempt).await;
    }
    let mut is_second = false;
    while let Err(error) = result {
        // What another server does for a trigger does not concern these rows.
        if plan.has_foreign_part() && may_be_committed_elsewhere(&error) {
            // The connection stays busy, so it is closed.
            return Err(maybe_committed(&error));
        }
        if !is_refusal(&error) {
            // The connection stays busy, so it is closed.
            return Err(error);
        }
        attempt.defer();
        let code = error.code().unwrap_or_default().to_owned();
        if code == NOT_UTF8 && ask_left(link).await? == Some(Left::Encoding) {
            // The connection stays busy, so it is closed.
            return Err(other_encoding());
        }
        if code == "42501" && attempt.step().is_some() && !may_move(link).await? {
            result = Err(error.of_position());
            break;
        }
        let error = explained(link, plan, rows, error).await?;
        if rows.len() == 1 && !is_second && is_of_table_or_row(&code) && error.class() == ErrorClass::Row {
            // The table may have been repaired between the error and the look at it.
            is_second = true;
            result = write_at_all(link, plan, rows, attempt).await;
            continue;
        }
        result = Err(with_column(link, plan, rows, &code, error).await?);
        break;
    }
    conn.end();
    result
}

async fn write_at_all(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Written, SinkError> {
    match &plan.returning {
        // Steps have no receipts.
        Some(sql) if attempt.step().is_none() => write_returning(link, plan, sql, rows, attempt).await,
        _ => write(link, plan, rows, attempt).await.map(written),
    }
}

fn maybe_committed(error: &SinkError) -> SinkError {
    let text = "the server of a foreign partition was lost, or does not know whether it has committed the rows";
    SinkError::with_code(ErrorClass::Unknown, error.code().unwrap_or_default(), text)
}

fn outdated() -> SinkError {
    SinkError::new(ErrorClass::Schema, "the table has changed; the next attempt reads its definition again")
}

fn written(ignored: Vec<u32>) -> Written {
    let mut written = Written::default();
    written.ignored = ignored;
    written
}

/// Whether a change of the table may cause an error with this code, which is about a row otherwise.
fn is_of_table_or_row(code: &str) -> bool {
    matches!(code, "22003" | "23502" | "42501")
}

/// The meaning of an error for these rows. It may result from a change of the table: a number that was checked
/// against the previous type of its column, a new column that needs a value, a right or a policy. Reading the table
/// again shows the change.
async fn explained(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    error: SinkError,
) -> Result<SinkError, SinkError> {
    let code = match error.code() {
        Some(guard::RAISED) if plan.fields.iter().any(|field| field.form.is_guarded()) => {
            return Ok(SinkError::with_code(ErrorClass::Row, "22000", guard::MEANING));
        }
        // The server looks for the index when it runs the statement, not when it is prepared.
        Some("42P10") if matches!(plan.schema.target(), Target::Partial(_)) => {
            let text = "no unique index over the key has the condition of the rule (Conflict::on_partial_index)";
            return Ok(SinkError::with_code(ErrorClass::Schema, "42P10", text));
        }
        Some(code) if error.class() == ErrorClass::Schema || is_of_table_or_row(code) => code,
        Some("21000") if rows.len() == 1 => return Ok(server_error("21000", ErrorClass::Row, None)),
        _ => return Ok(error),
    };
    let (class, text) = match plan.recheck_table(link, Freshness::Now).await? {
        // The user has the right to insert.
        TableState::Same if plan.has_row_security && code == "42501" => {
            (ErrorClass::Row, "a policy of the table (row security) rejects the row".to_owned())
        }
        TableState::Same if matches!(code, "22003" | "23502") => return Ok(error),
        TableState::Same if code == "42501" => {
            let text = "the user may write the table; a trigger or function of the table lacks a right, or raises this";
            (ErrorClass::Permission, text.to_owned())
        }
        // A value may be the reason: an input function, or a trigger that depends on the row.
        TableState::Same => {
            let text = "the table is unchanged; a value, a trigger or a function of the table raises this";
            (ErrorClass::Schema, text.to_owned())
        }
        TableState::Unfit(Problem { class: ErrorClass::Permission, text }) => (ErrorClass::Permission, text),
        TableState::Unfit(Problem { text, .. }) => (ErrorClass::Schema, text),
        TableState::Changed => (ErrorClass::Schema, "the table has changed since its definition was read".to_owned()),
    };
    Ok(SinkError::with_code(class, code, text))
}

/// The rows that were ignored.
async fn write(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Vec<u32>, SinkError> {
    let is_known = match plan.outcome_source {
        OutcomeSource::Total => true,
        OutcomeSource::Keys => is_known_by_key(plan, rows),
        OutcomeSource::Numbers => false,
    };
    let way = match attempt.step() {
        _ if !is_known => Way::Numbered,
        None => plan.way(rows.len()),
        Some(_) => plan.way_of_step(rows.len()),
    };
    let way = match way {
        Way::Copy if !write_copy::can_copy(rows, &plan.fields) => Way::Unnest,
        // A trigger may change the encoding of the session, and only the other statement checks it.
        Way::Copy if plan.named && plan.runs_triggers() && !is_ascii(rows) => Way::Unnest,
        Way::Values if plan.runs_triggers() && !is_ascii(rows) => Way::Unnest,
        // Only the other statement sets `array_nulls`.
        Way::Values if plan.fields.iter().any(|field| field.form.may_read_array()) => Way::Unnest,
        way => way,
    };
    if plan.keeps_versions() {
        let waves = rows.waves();
        if waves.len() > 1 {
            return transaction(link, plan, rows, Body::Waves(waves, of_waves(way)), attempt).await;
        }
    }
    let result = match attempt.step() {
        None if is_one_statement(plan, way, rows.len()) => {
            run(link, plan, way, rows, CommitStage::Commits(attempt)).await
        }
        Some(step) if step.commits && way == Way::Unnest && is_one_with_position(plan) => {
            match write_insert::with_position(link, plan, rows, step, attempt).await {
                Err(error) if is_refusal(&error) && !is_about_rows(&error) => {
                    transaction(link, plan, rows, Body::Once(way), attempt).await
                }
                result => result,
            }
        }
        _ => transaction(link, plan, rows, Body::Once(way), attempt).await,
    };
    match result {
        // The statement was rolled back: the server treats two of its rows as the same row.
        Err(error) if error.class() == ErrorClass::Duplicate && rows.len() > 1 => {
            transaction(link, plan, rows, Body::Waves(rows.waves(), of_waves(way)), attempt).await
        }
        // There may be another reason, for example a value that its column would change.
        Err(error) if way == Way::Numbered && has_no_numbers(&error) => {
            transaction(link, plan, rows, Body::Parts, attempt).await
        }
        result => result,
    }
}

/// How the waves of rows are written that would be written in this way.
fn of_waves(way: Way) -> Way {
    if way == Way::Numbered { way } else { Way::Unnest }
}

/// Whether each key is returned as it was sent.
fn is_known_by_key(plan: &PostgresPlan, rows: Rows<'_>) -> bool {
    plan.schema.key_columns().iter().all(|column| match plan.fields[*column].form.echo {
        Echo::Same => true,
        Echo::Changed => false,
        // Only text can be cut off.
        Echo::UpTo(limit) => texts_are(rows, *column, |key| key.len() <= limit || key.chars().count() <= limit),
    })
}

/// Whether each text has the same characters in every encoding.
fn is_ascii(rows: Rows<'_>) -> bool {
    (0..rows.schema().columns().len()).all(|column| texts_are(rows, column, str::is_ascii))
}

/// Whether all texts of a column are so. A column of another kind has none.
fn texts_are(rows: Rows<'_>, column: usize, are: impl Fn(&str) -> bool) -> bool {
    match rows.column(column).values().exhaustive() {
        Values::Text(texts) | Values::Decimal(texts) | Values::Json(texts) => {
            (0..rows.len()).all(|row| are(texts.get(row)))
        }
        Values::Bool(_)
        | Values::I16(_)
        | Values::I32(_)
        | Values::I64(_)
        | Values::U64(_)
        | Values::F32(_)
        | Values::F64(_)
        | Values::Bytes(_)
        | Values::Uuid(_)
        | Values::Date(_)
        | Values::Time(_)
        | Values::Timestamp(_)
        | Values::TimestampTz(_) => true,
    }
}

/// Whether the rows can be written without BEGIN and COMMIT.
fn is_one_statement(plan: &PostgresPlan, way: Way, rows: usize) -> bool {
    match way {
        // A simple query: no pooler splits it.
        Way::Copy => true,
        Way::Unnest | Way::Numbered => plan.named,
        Way::Values => plan.named && plan.values.as_ref().is_some_and(|values| values.shapes.split(rows).count() == 1),
        Way::Staging => false,
    }
}

/// Whether the rows and their position can be written by one statement. It returns something of each row, to which row
/// security applies other policies.
fn is_one_with_position(plan: &PostgresPlan) -> bool {
    plan.named && !plan.has_row_security
}

/// Whether an error of rows and position together is one of the rows, or of neither. Otherwise the steps of a transaction
/// tell which it is.
fn is_about_rows(error: &SinkError) -> bool {
    match error.class() {
        ErrorClass::Row => error.code() != Some(guard::RAISED),
        ErrorClass::Size | ErrorClass::Duplicate | ErrorClass::Transient | ErrorClass::Resource => true,
        _ => false,
    }
}
