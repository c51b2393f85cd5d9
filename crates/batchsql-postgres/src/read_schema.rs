//! Owns the schema of a table as the server describes it: which column type each column has.
//! Must not know how rows are written.

use batchsql_core::{Action, ColumnType, ErrorClass, SinkError, TableName, TableSchema};

use crate::catalog::{Lookup, Table, TableColumn};
use crate::real_type::RealType;
use crate::table_fit::{check_kind, check_rules, missing};
use crate::types::form;

/// The schema of a table that was looked up.
///
/// # Errors
/// There is no such table, or rows cannot be inserted into it.
pub(crate) fn schema_of(name: &TableName, lookup: Lookup) -> Result<TableSchema, SinkError> {
    let problem = |text: String| SinkError::new(ErrorClass::Schema, format!("table {name}: {text}"));
    let table = match lookup {
        Lookup::Found(table) => table,
        lookup => return Err(problem(missing(name, &lookup))),
    };
    check_kind(&table).and_then(|()| check_rules(Action::Insert, &table)).map_err(problem)?;
    let schema =
        table.columns.iter().fold(TableSchema::new(name.clone()), |schema, column| match column_type(column) {
            Ok(ty) => schema.with_column(&*column.name, ty, column.must_be_given),
            Err(why) => schema.with_left_out(&*column.name, why),
        });
    Ok(schema.with_key(key(&table)))
}

/// The name of a table that was looked up, with its schema.
///
/// # Errors
/// There is no such table.
pub(crate) fn name_of(name: &TableName, lookup: &Lookup) -> Result<TableName, SinkError> {
    match lookup {
        // The name of the table itself is taken literally.
        Lookup::Found(table) => Ok(TableName::qualified(&*table.namespace, name.name())),
        lookup => Err(SinkError::new(ErrorClass::Schema, format!("table {name}: {}", missing(name, lookup)))),
    }
}

/// The columns of the first unique index: that of the primary key, if there is one.
fn key(table: &Table) -> Vec<&str> {
    let name = |number: &i16| table.columns.iter().find(|column| column.number == *number).map(|found| &*found.name);
    table
        .unique
        .iter()
        .find(|index| !index.is_partial)
        .and_then(|index| index.columns.iter().map(name).collect())
        .unwrap_or_default()
}

/// The column type of a column, or why it has none.
fn column_type(column: &TableColumn) -> Result<ColumnType, String> {
    if column.is_generated {
        return Err("it is generated".into());
    }
    if column.is_always_identity {
        return Err("it is GENERATED ALWAYS AS IDENTITY".into());
    }
    if !column.may_insert {
        return Err("this user may not insert into it".into());
    }
    let ty = type_of(&column.real);
    form(ty, &column.real).map(|_| ty).map_err(|why| format!("its type is {}: values {why}", column.declared))
}

/// The column type that has all values of a type: text, if there is none of its own, and JSON for arrays.
fn type_of(real: &RealType) -> ColumnType {
    if real.category == 'A' {
        return ColumnType::Json;
    }
    match (&*real.namespace, &*real.name) {
        ("pg_catalog", "bool") => ColumnType::Bool,
        ("pg_catalog", "int2") => ColumnType::I16,
        ("pg_catalog", "int4") => ColumnType::I32,
        ("pg_catalog", "int8") => ColumnType::I64,
        ("pg_catalog", "float4") => ColumnType::F32,
        ("pg_catalog", "float8") => ColumnType::F64,
        ("pg_catalog", "numeric") => ColumnType::Decimal,
        ("pg_catalog", "bytea") => ColumnType::Bytes,
        ("pg_catalog", "uuid") => ColumnType::Uuid,
        ("pg_catalog", "json" | "jsonb") => ColumnType::Json,
        ("pg_catalog", "date") => ColumnType::Date,
        ("pg_catalog", "time") => ColumnType::Time,
        ("pg_catalog", "timestamp") => ColumnType::Timestamp,
        ("pg_catalog", "timestamptz") => ColumnType::TimestampTz,
        _ => ColumnType::Text,
    }
}
