//! Owns the question which rows a table has exactly as they are: after a lost reply.
//! Must not know transactions or how rows are written.
//!
//! The stored values are read and compared here: the server ignores case, and compares text with decimals as floats.

use std::collections::HashMap;

use batchsql_core::exhaustive::Value;
use batchsql_core::{Rows, ValueRef};
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use crate::bind::bind_rows;
use crate::classify::{Failed, Stage};
use crate::keys::{KEYS_PER_STATEMENT, KeyBytes, KeySearch, Part};
use crate::plan::MySqlPlan;
use crate::types::Form;

/// The rows whose key is stored with their values in every column that the rule writes.
pub(crate) async fn find_written(
    connection: &mut MySqlConnection,
    plan: &MySqlPlan,
    rows: Rows<'_>,
) -> Result<Vec<u32>, Failed> {
    let schema = plan.schema();
    let has_own_form = |column: &usize| matches!(plan.storage[*column].form, Form::Plain | Form::UuidText);
    let (Some(keys), true) = (&plan.keys, schema.update_columns().iter().all(has_own_form)) else {
        return Ok(Vec::new());
    };
    let parts: Vec<Part> =
        schema.update_columns().iter().map(|column| Part::new(schema, *column, &plan.table().columns)).collect();
    let mut found = Vec::new();
    for start in (0..rows.len()).step_by(KEYS_PER_STATEMENT) {
        let piece = rows.slice(start..rows.len().min(start + KEYS_PER_STATEMENT));
        let of_piece = find(connection, plan, keys, &parts, piece).await?;
        found.extend(of_piece.into_iter().map(|row| row + start as u32));
    }
    Ok(found)
}

async fn find(
    connection: &mut MySqlConnection,
    plan: &MySqlPlan,
    keys: &KeySearch,
    parts: &[Part],
    rows: Rows<'_>,
) -> Result<Vec<u32>, Failed> {
    let arguments = bind_rows(rows, plan.schema().key_columns(), &plan.storage, 0).map_err(Failed::unsent)?;
    // Not a cast: it would round a float.
    let shown = |part: &Part| if is_float(plan, part) { plan.quoted(part.column()) } else { part.shown().to_owned() };
    let shown: Vec<String> = keys.shown().iter().cloned().chain(parts.iter().map(shown)).collect();
    let sql = keys.text(rows.len(), &shown);
    let error = |error| Failed::sent(error, Stage::Open, plan.table());
    let answer = sqlx::query_with(&sql, arguments).persistent(false).fetch_all(connection).await.map_err(error)?;
    let mut stored: HashMap<KeyBytes, &MySqlRow> = HashMap::with_capacity(answer.len());
    for row in &answer {
        stored.insert(keys.of_found(row).map_err(error)?, row);
    }
    let mut found = Vec::new();
    for (number, row) in (0_u32..).zip(rows.iter()) {
        let Some(stored) = stored.get(&keys.of_row(row)) else { continue };
        let mut is_same = true;
        for (place, part) in (keys.shown().len()..).zip(parts) {
            is_same = is_same && is_kept(row.get(part.column()), part, stored, place).map_err(error)?;
        }
        if is_same {
            found.push(number);
        }
    }
    Ok(found)
}

fn is_float(plan: &MySqlPlan, part: &Part) -> bool {
    use batchsql_core::ColumnType::{F32, F64};
    matches!(plan.schema().columns()[part.column()].column_type(), F32 | F64)
}

/// Whether a value is stored as it was sent.
fn is_kept(sent: ValueRef<'_>, part: &Part, stored: &MySqlRow, place: usize) -> sqlx::Result<bool> {
    let Some(found) = stored.try_get_unchecked::<Option<&[u8]>, _>(place)? else {
        return Ok(sent == ValueRef::Null);
    };
    Ok(match sent.exhaustive() {
        Value::Null => false,
        // In binary, as every answer of a prepared statement: FLOAT has 4 bytes, DOUBLE 8.
        Value::F32(number) => *found == number.to_le_bytes() || *found == f64::from(number).to_le_bytes(),
        Value::F64(number) => *found == number.to_le_bytes(),
        _ => {
            let (mut own, mut other) = (Vec::new(), Vec::new());
            part.push_sent(&mut own, sent);
            part.push_found(&mut other, found);
            own == other
        }
    })
}
