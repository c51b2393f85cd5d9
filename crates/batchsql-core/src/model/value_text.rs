//! Owns how the text of a value, as a database shows it, becomes a value of a declared type.
//! Must not know databases or columns.

use crate::model::hex;
use crate::model::value::{ColumnType, Decimal, Json, Value};

/// The value of a text in the form of a type: digits, ISO 8601, hexadecimal digits for bytes. `None` if the text has
/// another form.
pub fn value_of_text(ty: ColumnType, text: &str) -> Option<Value> {
    match ty {
        ColumnType::Bool => match text {
            "t" | "true" | "1" => Some(Value::Bool(true)),
            "f" | "false" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        ColumnType::I16 => text.parse().ok().map(Value::I16),
        ColumnType::I32 => text.parse().ok().map(Value::I32),
        ColumnType::I64 => text.parse().ok().map(Value::I64),
        ColumnType::U64 => text.parse().ok().map(Value::U64),
        ColumnType::F32 => text.parse().ok().map(Value::F32),
        ColumnType::F64 => text.parse().ok().map(Value::F64),
        ColumnType::Decimal => text.parse::<Decimal>().ok().map(Value::Decimal),
        ColumnType::Text => Some(Value::Text(text.into())),
        ColumnType::Bytes => hex::to_bytes(text).map(Value::Bytes),
        ColumnType::Uuid => hex::to_uuid(text).map(Value::Uuid),
        ColumnType::Json => text.parse::<Json>().ok().map(Value::Json),
        ColumnType::Date => text.parse().ok().map(Value::Date),
        ColumnType::Time => text.parse().ok().map(Value::Time),
        ColumnType::Timestamp => text.parse().ok().map(Value::Timestamp),
        ColumnType::TimestampTz => text.parse().ok().map(Value::TimestampTz),
    }
}
