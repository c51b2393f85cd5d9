//! Owns the schema of a table as SQLite describes it: which column type each column has.
//! Must not know how rows are written.

use batchsql_core::{ColumnType, ErrorClass, SinkError, TableName, TableSchema};
use batchsql_sql::quote;
use rusqlite::{Connection, OptionalExtension};

use crate::classify::statement_error;
use crate::plan::{not_there, reserved};
use crate::table::{Table, TableColumn, TableId, TableKind};
use crate::types::{Affinity, Takes, form};

/// Reads a table.
///
/// # Errors
/// There is no such table, or it is no ordinary one.
pub(crate) fn read_schema(conn: &Connection, name: &TableName) -> Result<TableSchema, SinkError> {
    let table = find(conn, name)?;
    let problem = |text: String| problem(name, &text);
    if let Some(text) = table.temporary(name) {
        return Err(problem(text));
    }
    if table.kind != TableKind::Table {
        return Err(problem("it is a view or a virtual table; declare its columns with Schema::builder".to_owned()));
    }
    let schema =
        table.columns.iter().fold(TableSchema::new(name.clone()), |schema, column| match column_type(column) {
            Ok(ty) => schema.with_column(&*column.name, ty, column.must_be_given),
            Err(why) => schema.with_left_out(&*column.name, why),
        });
    Ok(schema.with_key(key(conn, &table.id).map_err(statement_error)?))
}

/// The name of a table as it was created, with its database.
///
/// # Errors
/// There is no such table.
pub(crate) fn find_table(conn: &Connection, name: &TableName) -> Result<TableName, SinkError> {
    let TableId { database, name } = find(conn, name)?.id;
    Ok(TableName::qualified(database, name))
}

fn find(conn: &Connection, name: &TableName) -> Result<Table, SinkError> {
    if let Some(text) = reserved(name) {
        return Err(problem(name, &text));
    }
    match Table::find(conn, name).map_err(statement_error)? {
        Some(table) => Ok(table),
        None => Err(problem(name, &not_there(conn, name).map_err(statement_error)?)),
    }
}

fn problem(name: &TableName, text: &str) -> SinkError {
    SinkError::new(ErrorClass::Schema, format!("table {name}: {text}"))
}

/// The column type of a column, or why it has none.
fn column_type(column: &TableColumn) -> Result<ColumnType, String> {
    if column.generated {
        return Err("it is generated".into());
    }
    let declared = column.declared.to_ascii_uppercase();
    let word = declared.split(['(', ' ']).next().unwrap_or_default();
    let ty = match (word, column.affinity) {
        _ if column.takes == Takes::Float32 => ColumnType::F32,
        _ if column.takes == Takes::Integer32 => ColumnType::I32,
        ("BOOL" | "BOOLEAN", _) => ColumnType::Bool,
        ("DATE", _) => ColumnType::Date,
        ("TIME", _) => ColumnType::Time,
        ("DATETIME" | "TIMESTAMP", _) => ColumnType::Timestamp,
        ("TIMESTAMPTZ", _) => ColumnType::TimestampTz,
        ("UUID", _) => ColumnType::Uuid,
        (_, Affinity::Integer) => ColumnType::I64,
        (_, Affinity::Text) => ColumnType::Text,
        (_, Affinity::Blob) => ColumnType::Bytes,
        (_, Affinity::Real) => ColumnType::F64,
        (_, Affinity::Numeric) => {
            let declared = &column.declared;
            return Err(format!(
                "values of its type {declared} may be of several kinds; add it to the builder as I64 or F64, or declare it TEXT for \
                 decimals and JSON"
            ));
        }
    };
    form(ty, column.affinity, column.takes).map(|_| ty).map_err(|why| format!("its values {why}"))
}

/// The columns of the primary key, or of the first unique index over whole columns.
fn key(conn: &Connection, table: &TableId) -> rusqlite::Result<Vec<String>> {
    let (database, name) = (quote(&table.database), quote(&table.name));
    let primary: Vec<(i64, String)> = conn
        .prepare(&format!("PRAGMA {database}.table_info({name})"))?
        .query_map([], |row| Ok((row.get("pk")?, row.get("name")?)))?
        .collect::<Result<_, _>>()?;
    let mut primary: Vec<(i64, String)> = primary.into_iter().filter(|(place, _)| *place > 0).collect();
    if !primary.is_empty() {
        primary.sort_unstable();
        return Ok(primary.into_iter().map(|(_, name)| name).collect());
    }
    let whole_columns = "SELECT name FROM pragma_index_list(?1, ?2) AS list WHERE \"unique\" = 1 AND partial = 0
                         AND NOT EXISTS (SELECT * FROM pragma_index_info(list.name, ?2) WHERE name IS NULL)
                         ORDER BY seq DESC LIMIT 1";
    let arguments = [&table.name, &table.database];
    let index: Option<String> = conn.query_row(whole_columns, arguments, |row| row.get(0)).optional()?;
    let Some(index) = index else { return Ok(Vec::new()) };
    let mut columns = conn.prepare("SELECT name FROM pragma_index_info(?1, ?2) ORDER BY seqno")?;
    columns.query_map([&index, &table.database], |row| row.get(0))?.collect()
}
