//! Owns the question which rows a table has exactly as they are: after a lost reply.
//! Must not know threads or how rows are written.

use batchsql_core::{Rows, Schema, SinkError, Target};
use batchsql_sql::{quote, quote_table};
use rusqlite::Connection;

use crate::bind::bind_rows;
use crate::classify::statement_error;
use crate::write::{SharedPlan, end_open_transaction};

/// The rows whose key is stored with their values in every column that the rule writes.
pub(crate) fn find_written(conn: &mut Connection, plan: &SharedPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
    // A row outside the partial index may have the same key and values.
    if matches!(rows.schema().target(), Target::Partial(_)) {
        return Ok(Vec::new());
    }
    end_open_transaction(conn)?;
    // Only read, and rolled back when it is dropped.
    let transaction = conn.transaction().map_err(statement_error)?;
    let plan = plan.current(&transaction)?;
    let mut statement = transaction.prepare(&question(&plan.located)).map_err(statement_error)?;
    let mut found = Vec::new();
    for (number, row) in (0_u32..).zip(0..rows.len()) {
        bind_rows(&mut statement, rows.slice(row..row + 1), &plan.forms).map_err(statement_error)?;
        if statement.raw_query().next().map_err(statement_error)?.is_some() {
            found.push(number);
        }
    }
    Ok(found)
}

/// The statement for one row, with a parameter for each of its columns. A value is converted as its column would convert
/// it, and compared without the collation of the column.
fn question(schema: &Schema) -> String {
    let condition = |(index, number): (usize, usize)| {
        let column = quote(schema.columns()[index].name());
        let exact = format!("({column} COLLATE BINARY) IS ?{number}");
        if schema.key_columns().contains(&index) {
            // The first condition finds it by its index.
            format!("{column}=?{number} AND {exact}")
        } else if schema.update_columns().contains(&index) {
            exact
        } else {
            format!("?{number} IS ?{number}")
        }
    };
    let conditions: Vec<String> = (0..schema.columns().len()).zip(1..).map(condition).collect();
    format!("SELECT 1 FROM {} WHERE {}", quote_table(schema.table()), conditions.join(" AND "))
}
