//! Owns the values that a statement returns: from the storage classes of SQLite to the types of the schema.
//! Must not know statements or transactions.

use batchsql_core::{Column, ColumnType, ErrorClass, SinkError, Value};
use batchsql_sql::returned_value;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::classify::statement_error;

/// The values of the returned columns of one row.
///
/// # Errors
/// A value has another type than its column says.
pub(crate) fn returned_values(row: &Row<'_>, columns: &[Column]) -> Result<Vec<Value>, SinkError> {
    columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let found = row.get_ref(index).map_err(statement_error)?;
            value(column.column_type(), found).ok_or_else(|| {
                let text = format!("the returned value of column {:?} is no {}", column.name(), column.column_type());
                SinkError::new(ErrorClass::Schema, text)
            })
        })
        .collect()
}

fn value(ty: ColumnType, found: ValueRef<'_>) -> Option<Value> {
    match (ty, found) {
        (_, ValueRef::Null) => Some(Value::Null),
        (ColumnType::F32, ValueRef::Real(v)) => {
            Some(Value::F32(v as f32)).filter(|_| f64::from(v as f32) == v || v.is_nan())
        }
        (_, ValueRef::Real(v)) => (ty == ColumnType::F64).then_some(Value::F64(v)),
        (_, ValueRef::Integer(v)) => returned_value(ty, &v.to_string()),
        (_, ValueRef::Text(text)) => returned_value(ty, std::str::from_utf8(text).ok()?),
        (ColumnType::Bytes, ValueRef::Blob(bytes)) => Some(Value::Bytes(bytes.to_vec())),
        (ColumnType::Uuid, ValueRef::Blob(bytes)) => bytes.try_into().ok().map(Value::Uuid),
        (_, ValueRef::Blob(_)) => None,
    }
}
