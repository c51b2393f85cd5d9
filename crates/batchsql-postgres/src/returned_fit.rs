//! Owns the check whether the values of a column can be returned as the type that the schema declares for them.
//! Must not know rows or statements.

use batchsql_core::exhaustive::Type;
use batchsql_core::{ColumnType, Schema};
use batchsql_sql::TableProblems;

use crate::catalog::Table;
use crate::real_type::RealType;

/// Adds the returned columns whose values are never of their declared type, or would lose something. Others, for example a
/// `numeric` returned as `i64`, depend on the value. What the table lacks, the server itself refuses.
pub(crate) fn check_returned(schema: &Schema, table: &Table, problems: &mut TableProblems) {
    let found = schema.returning().iter().filter_map(|returned| {
        let column = table.columns.iter().find(|column| column.name == returned.name())?;
        let (name, ty) = (returned.name(), returned.column_type());
        (!may_fit(ty, &column.real)).then(|| {
            format!(
                "its column {name:?} is declared {:?}, so its values cannot be returned as {ty}; return the column as the type with \
                 which it is written, or as text",
                column.declared
            )
        })
    });
    problems.extend(found);
}

/// Whether floats are among the returned values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floats {
    None,
    /// Also in arrays, ranges and composite types.
    MayBeReturned,
}

impl Floats {
    pub(crate) fn of(schema: &Schema, table: &Table) -> Self {
        let is_returned = |name: &str| schema.returning().iter().any(|returned| returned.name() == name);
        let may_have = |real: &RealType| {
            let is_other = real.namespace == "pg_catalog"
                && matches!(
                    &*real.name,
                    "bool"
                        | "int2"
                        | "int4"
                        | "int8"
                        | "numeric"
                        | "text"
                        | "varchar"
                        | "bpchar"
                        | "bytea"
                        | "uuid"
                        | "json"
                        | "jsonb"
                        | "date"
                        | "time"
                        | "timestamp"
                        | "timestamptz"
                );
            !is_other && real.kind != 'e'
        };
        match table.columns.iter().any(|column| is_returned(&column.name) && may_have(&column.real)) {
            true => Self::MayBeReturned,
            false => Self::None,
        }
    }
}

fn may_fit(ty: ColumnType, real: &RealType) -> bool {
    let ty = ty.exhaustive();
    if ty == Type::Text {
        return true;
    }
    if real.category == 'A' {
        return false;
    }
    // The text of other types is theirs.
    if real.namespace != "pg_catalog" {
        return true;
    }
    let is_integer = matches!(ty, Type::I16 | Type::I32 | Type::I64 | Type::U64);
    match &*real.name {
        "text" | "varchar" | "bpchar" | "char" | "name" | "json" | "jsonb" => true,
        "bool" => ty == Type::Bool,
        "int2" | "int4" | "int8" | "oid" | "xid" | "xid8" | "cid" | "numeric" => {
            is_integer || matches!(ty, Type::Bool | Type::F32 | Type::F64 | Type::Decimal)
        }
        "float4" => is_integer || matches!(ty, Type::F32 | Type::Decimal),
        "float8" => is_integer || matches!(ty, Type::F64 | Type::Decimal),
        "bytea" => ty == Type::Bytes,
        "uuid" => ty == Type::Uuid,
        "date" => ty == Type::Date,
        "time" => ty == Type::Time,
        "timestamp" => ty == Type::Timestamp,
        "timestamptz" => ty == Type::TimestampTz,
        _ => false,
    }
}
