//! Owns values as JSON text: elements of lists, and rows for people.
//! Must not know arrays.

use batchsql_core::{ArrayElement, ValueRef, ValueRules};

/// Appends a value as JSON, in the form that lists of typed rows have.
pub(crate) fn push_json(value: ValueRef<'_>, out: &mut String) {
    match value {
        ValueRef::Bool(v) => v.push_json(out),
        ValueRef::I16(v) => v.push_json(out),
        ValueRef::I32(v) => v.push_json(out),
        ValueRef::I64(v) => v.push_json(out),
        ValueRef::U64(v) => v.push_json(out),
        ValueRef::F32(v) => v.push_json(out),
        ValueRef::F64(v) => v.push_json(out),
        ValueRef::Decimal(v) | ValueRef::Text(v) => v.push_json(out),
        ValueRef::Bytes(v) => v.to_vec().push_json(out),
        ValueRef::Uuid(v) => v.to_vec().push_json(out),
        ValueRef::Json(v) => out.push_str(v),
        ValueRef::Date(v) => v.push_json(out),
        ValueRef::Time(v) => v.push_json(out),
        ValueRef::Timestamp(v) => v.push_json(out),
        ValueRef::TimestampTz(v) => v.push_json(out),
        _ => out.push_str("null"),
    }
}

/// What a database with these rules cannot hold in an element of a list, as for lists of typed rows.
pub(crate) fn refused(value: ValueRef<'_>, rules: ValueRules) -> Option<&'static str> {
    match value {
        ValueRef::F32(v) => v.refused(rules),
        ValueRef::F64(v) => v.refused(rules),
        _ => None,
    }
}
