//! Owns the writing of rows whose values the server returns (MariaDB: `INSERT … RETURNING`).
//! Must not know keys or pools.
//!
//! The server returns the rows of an insert in the order in which they were sent, one for each.

use batchsql_core::{Column, ColumnType, Rows, Value, Written};
use batchsql_sql::returned_value;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::bind::bind_rows;
use crate::classify::{Failed, Stage};
use crate::link::{Link, begin, commit, ready, undo};
use crate::piece::{Piece, cut};
use crate::plan::MySqlPlan;

/// Writes every row, or none of them.
pub(crate) async fn write_returning(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    let pieces = cut(plan, rows)?;
    let mut written = Written::default();
    if let [piece] = &*pieces {
        send(link, plan, piece, rows, Stage::Statement, &mut written).await?;
        return Ok(written);
    }
    begin(link).await?;
    for piece in &pieces {
        if let Err(failed) = send(link, plan, piece, rows, Stage::Open, &mut written).await {
            return Err(undo(link, failed).await);
        }
    }
    commit(link).await?;
    Ok(written)
}

async fn send(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    piece: &Piece,
    rows: Rows<'_>,
    stage: Stage,
    written: &mut Written,
) -> Result<(), Failed> {
    let start = piece.rows.start;
    let rows = rows.slice(piece.rows.clone());
    let columns: Vec<usize> = (0..plan.storage.len()).collect();
    let arguments = bind_rows(rows, &columns, &plan.storage, piece.bytes).map_err(Failed::unsent)?;
    let statement = plan.returning_insert(rows.len());
    ready(link.connection, &statement).await?;
    link.enter(stage)?;
    link.sends(piece.bytes);
    let query = sqlx::query_with(&statement.sql, arguments).persistent(statement.keep);
    let found = query.fetch_all(&mut *link.connection).await;
    let found = link.leave(stage, found)?;
    let returning = plan.schema().returning();
    let (mut unread, mut rows_without) = (None, 0);
    for (row, found) in (start..).zip(&found) {
        // The row is written: a value that cannot be read is missing, the row is not.
        let row = u32::try_from(row).expect("buffer_size fits u32");
        match values(found, returning) {
            Ok(values) => written.returned.push((row, values)),
            Err(column) => {
                rows_without += 1;
                unread.get_or_insert(column);
            }
        }
    }
    if let Some(column) = unread {
        let (table, column, ty) = (plan.schema().table_display(), column.name(), column.column_type());
        tracing::warn!(
            table,
            rows = rows_without,
            column,
            "written rows have no returned values: one is no {ty}; return it as text"
        );
    }
    Ok(())
}

/// The values, or the first column whose value is none of its declared type.
fn values<'c>(found: &MySqlRow, columns: &'c [Column]) -> Result<Vec<Value>, &'c Column> {
    columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let bytes: Option<&[u8]> = found.try_get_unchecked(index).map_err(|_| column)?;
            bytes.map_or(Some(Value::Null), |bytes| value(column.column_type(), bytes)).ok_or(column)
        })
        .collect()
}

fn value(ty: ColumnType, bytes: &[u8]) -> Option<Value> {
    match ty {
        ColumnType::Bytes => Some(Value::Bytes(bytes.to_vec())),
        ColumnType::Uuid if bytes.len() == 16 => bytes.try_into().ok().map(Value::Uuid),
        // The session is in UTC.
        ColumnType::TimestampTz => returned_value(ty, &format!("{}+00:00", std::str::from_utf8(bytes).ok()?)),
        _ => returned_value(ty, std::str::from_utf8(bytes).ok()?),
    }
}
