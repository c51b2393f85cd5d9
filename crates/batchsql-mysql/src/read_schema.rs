//! Owns the schema of a table as the server describes it: which column type each column has.
//! Must not know how rows are written.

use batchsql_core::{ColumnType, ErrorClass, SinkError, TableName, TableSchema};
use sqlx::mysql::MySqlConnection;

use crate::catalog::{Found, FoundName, Session, Table, TableColumn};
use crate::checks::{check_engine, check_kind};
use crate::classify::Failed;
use crate::types::storage;

/// Reads a table.
///
/// # Errors
/// There is no such table, or rows cannot be inserted into it.
pub(crate) async fn read_schema(connection: &mut MySqlConnection, name: &TableName) -> Result<TableSchema, Failed> {
    let session = Session::read(connection).await.map_err(Failed::asked)?;
    let table = find(connection, name).await?;
    let problem = |text| problem(name, text);
    check_kind(&table).and_then(|()| check_engine(&table)).map_err(problem)?;
    let schema = table.columns.iter().fold(TableSchema::new(name.clone()), |schema, column| {
        let needs_value = !column.nullable && !column.has_default && !column.auto_increment;
        match column_type(column, &session) {
            Ok(ty) => schema.with_column(&*column.name, ty, needs_value),
            Err(why) => schema.with_left_out(&*column.name, why),
        }
    });
    Ok(schema.with_key(key(&table)))
}

/// The name of a table, with its database.
///
/// # Errors
/// There is no such table.
pub(crate) async fn find_table(connection: &mut MySqlConnection, name: &TableName) -> Result<TableName, Failed> {
    let FoundName { database, name } = find(connection, name).await?.name;
    Ok(TableName::qualified(database, name))
}

async fn find(connection: &mut MySqlConnection, name: &TableName) -> Result<Table, Failed> {
    match Table::read(connection, name.namespace(), name.name()).await.map_err(Failed::asked)? {
        Found::Table(table) => Ok(table),
        Found::NoDatabase => {
            Err(problem(name, "no database is chosen; name one in the dsn, or qualify the table".into()))
        }
        Found::NoTable => {
            let text = "it does not exist, or this user may not see it; names are taken as they are written";
            Err(problem(name, text.into()))
        }
    }
}

fn problem(name: &TableName, text: String) -> Failed {
    Failed::unsent(SinkError::new(ErrorClass::Schema, format!("table {name}: {text}")))
}

/// The columns of the primary key, or of the first unique index over whole columns.
fn key(table: &Table) -> Vec<&str> {
    let is_primary = |name: &str| name.eq_ignore_ascii_case("PRIMARY");
    let mut indexes: Vec<_> = table.unique_indexes.iter().collect();
    indexes.sort_by_key(|index| !is_primary(&index.name));
    let whole = |columns: &'_ [Option<String>]| columns.iter().all(Option::is_some);
    let index = indexes.into_iter().find(|index| whole(&index.columns));
    index.map(|index| index.columns.iter().flatten().map(String::as_str).collect()).unwrap_or_default()
}

/// The column type of a column, or why it has none.
fn column_type(column: &TableColumn, session: &Session) -> Result<ColumnType, String> {
    if column.generated {
        return Err("it is generated".into());
    }
    let ty = type_of(column);
    storage(ty, column, session).map(|_| ty).map_err(|why| format!("its type is {}: values {why}", column.full_type))
}

/// The column type that has all values of a type: text, if there is none of its own.
fn type_of(column: &TableColumn) -> ColumnType {
    let full_type = column.full_type.to_ascii_lowercase();
    let is_unsigned = full_type.contains("unsigned");
    match &*column.data_type {
        "tinyint" if full_type.starts_with("tinyint(1)") && !is_unsigned => ColumnType::Bool,
        "bit" if full_type == "bit(1)" => ColumnType::Bool,
        "bit" => ColumnType::U64,
        "tinyint" | "year" => ColumnType::I16,
        "smallint" if is_unsigned => ColumnType::I32,
        "smallint" => ColumnType::I16,
        "mediumint" => ColumnType::I32,
        "int" if is_unsigned => ColumnType::I64,
        "int" => ColumnType::I32,
        "bigint" if is_unsigned => ColumnType::U64,
        "bigint" => ColumnType::I64,
        "float" => ColumnType::F32,
        "double" => ColumnType::F64,
        "decimal" => ColumnType::Decimal,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Bytes,
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time,
        "datetime" => ColumnType::Timestamp,
        "timestamp" => ColumnType::TimestampTz,
        _ => ColumnType::Text,
    }
}
