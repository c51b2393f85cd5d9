//! Owns the search for the column of a row that the server refused without naming one, as it does for text that a type
//! cannot parse.
//! Must not know how rows are written.
//!
//! Each value of the row is parsed once more, alone, by the expression that the write uses. The server's own words are
//! not used: they quote values, and where they name a column (`COPY`), they are translated and name what a trigger names.

use batchsql_core::{ErrorClass, Rows, SinkError};
use sqlx::{Executor, PgConnection};

use crate::classify::{LinkLost, is_refusal, row_error, sink_error};
use crate::guard;
use crate::params::value;
use crate::plan::PostgresPlan;
use crate::transaction::BEGIN;

/// The most columns that are tried: each one costs a round trip.
const MAX_COLUMNS: usize = 16;

/// Whether the server raises this code for a value without naming its column.
fn is_of_value(code: &str) -> bool {
    code.starts_with("22") && code != "22P03"
}

/// The error of a row that was refused alone with `code`, with the name of its column if that is found.
///
/// # Errors
/// The connection cannot be used any more.
pub(crate) async fn with_column(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    code: &str,
    error: SinkError,
) -> Result<SinkError, SinkError> {
    if rows.len() != 1 || error.class() != ErrorClass::Row || !is_of_value(code) {
        return Ok(error);
    }
    let fields = plan.fields.iter().enumerate().filter(|(_, field)| field.form.is_parsed_by_server());
    for (index, field) in fields.take(MAX_COLUMNS) {
        if rows.column(index).get(0).is_null() {
            continue;
        }
        let sql = format!("SELECT ({}) IS NULL", field.form.expression(&format!("$1::{}", field.form.wire.sql())));
        if is_refused(link, plan, &sql, rows, index, code).await? {
            return Ok(match code {
                guard::RAISED => {
                    let text = format!("column {:?}: {}", field.name, guard::MEANING);
                    SinkError::with_code(ErrorClass::Row, "22000", text)
                }
                _ => row_error(code, &field.name),
            });
        }
    }
    Ok(error)
}

/// Whether the server refuses one value with `code`.
async fn is_refused(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    rows: Rows<'_>,
    index: usize,
    code: &str,
) -> Result<bool, SinkError> {
    let lost = |error| sink_error(error, LinkLost::BeforeCommit);
    let arguments = value(rows, index, &plan.fields[index])?;
    // A pooler may send each message to another server, except within a transaction.
    if !plan.named {
        link.execute(BEGIN).await.map_err(lost)?;
    }
    let answer = sqlx::query_with(sql, arguments).persistent(false).execute(&mut *link).await;
    let is_refused = match answer.map_err(lost) {
        Ok(_) => false,
        Err(error) if is_refusal(&error) => error.code() == Some(code),
        Err(error) => return Err(error),
    };
    if !plan.named {
        link.execute("ROLLBACK").await.map_err(lost)?;
    }
    Ok(is_refused)
}
