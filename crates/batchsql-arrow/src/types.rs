//! Owns which Arrow type becomes which column type.
//! Must not know values.

use arrow_schema::DataType;
use batchsql_core::ColumnType;

/// Whether values of an Arrow type become values of a column type, each of them exactly or not at all.
pub(crate) fn fits(from: &DataType, to: ColumnType) -> bool {
    use ColumnType as To;
    let is_integer = matches!(to, To::I16 | To::I32 | To::I64 | To::U64);
    match from {
        DataType::Null => true,
        DataType::Boolean => to == To::Bool,
        from if from.is_integer() => is_integer || matches!(to, To::F32 | To::F64 | To::Decimal),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => matches!(to, To::F32 | To::F64),
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            to == To::Decimal || (is_integer && *scale == 0)
        }
        DataType::Decimal256(..) => to == To::Decimal,
        from if is_text(from) => matches!(
            to,
            To::Text | To::Decimal | To::Uuid | To::Json | To::Date | To::Time | To::Timestamp | To::TimestampTz
        ),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => to == To::Bytes,
        DataType::FixedSizeBinary(length) => to == To::Bytes || (to == To::Uuid && *length == 16),
        DataType::Date32 | DataType::Date64 => to == To::Date,
        DataType::Time32(_) | DataType::Time64(_) => to == To::Time,
        DataType::Timestamp(_, None) => to == To::Timestamp,
        DataType::Timestamp(_, Some(_)) => to == To::TimestampTz,
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            to == To::Json && scalar(element.data_type()).is_some()
        }
        _ => false,
    }
}

/// UTF-8 in one of its forms.
pub(crate) fn is_text(from: &DataType) -> bool {
    match from {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => {
            matches!(**values, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
        _ => false,
    }
}

/// The column type that holds every value of a scalar Arrow type, apart from its range; `None` for anything nested.
pub(crate) fn scalar(from: &DataType) -> Option<ColumnType> {
    Some(match from {
        DataType::Boolean | DataType::Null => ColumnType::Bool,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => ColumnType::I16,
        DataType::UInt16 | DataType::Int32 => ColumnType::I32,
        DataType::UInt32 | DataType::Int64 => ColumnType::I64,
        DataType::UInt64 => ColumnType::U64,
        DataType::Float16 | DataType::Float32 => ColumnType::F32,
        DataType::Float64 => ColumnType::F64,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            ColumnType::Decimal
        }
        from if is_text(from) => ColumnType::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ColumnType::Bytes
        }
        DataType::Date32 | DataType::Date64 => ColumnType::Date,
        DataType::Time32(_) | DataType::Time64(_) => ColumnType::Time,
        DataType::Timestamp(_, None) => ColumnType::Timestamp,
        DataType::Timestamp(_, Some(_)) => ColumnType::TimestampTz,
        _ => return None,
    })
}

/// What to do about a field whose type does not fit.
pub(crate) fn remedy(from: &DataType, to: ColumnType) -> &'static str {
    match (from, to) {
        (DataType::Timestamp(_, None), ColumnType::TimestampTz) => {
            "it has no time zone, so its instants are not known; give it one, for example UTC"
        }
        (DataType::Timestamp(_, Some(_)), ColumnType::Timestamp) => {
            "it has a time zone, which the column cannot hold; take the zone off, or use a column with a time zone"
        }
        (
            DataType::Struct(_)
            | DataType::Map(..)
            | DataType::Union(..)
            | DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_),
            ColumnType::Json,
        ) => "it is nested; only lists of scalars become JSON; write the others as JSON text",
        (DataType::Struct(_) | DataType::Map(..) | DataType::Union(..), _) => {
            "it is nested; make a column of each of its fields, or write it as JSON text"
        }
        (DataType::Float16 | DataType::Float32 | DataType::Float64, ColumnType::Decimal) => {
            "a float is not an exact decimal; cast it to a decimal with the scale of the column"
        }
        _ => "cast it to the type of the column, or change the column",
    }
}
