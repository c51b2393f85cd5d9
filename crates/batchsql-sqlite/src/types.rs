//! Owns how values are stored: a column's affinity, the form of a value in it, and the rejection of columns
//! that would change values.
//! Must not know statements or connections.
//!
//! Affinity rules: <https://www.sqlite.org/datatype3.html>, section 3.1; STRICT tables:
//! <https://www.sqlite.org/stricttables.html>; R*Trees: <https://www.sqlite.org/rtree.html>.

use batchsql_core::ColumnType;
use batchsql_core::exhaustive::Type;

/// How SQLite converts a value that is stored in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    Integer,
    Text,
    /// No conversion: `BLOB`, no declared type, or `ANY` in a STRICT table.
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// The affinity of a declared type.
    pub(crate) fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if strict && declared == "ANY" {
            Self::Blob
        } else if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }
}

/// The values that a column accepts, in addition to its affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Every value, after the conversion of the affinity.
    Any,
    /// Only values of this kind: a column of a STRICT table.
    Only(Kind),
    /// Only integers: the row id.
    RowId,
    /// Floats of 32 bits: a coordinate of an `rtree`.
    Float32,
    /// Integers of 32 bits: a coordinate of an `rtree_i32`.
    Integer32,
}

/// The kinds of values that SQLite stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Real,
    Text,
    Blob,
}

impl Kind {
    /// The values that a column of a STRICT table accepts; `None` for `ANY`.
    pub(crate) fn of_strict(declared: &str) -> Option<Self> {
        match declared.to_ascii_uppercase().as_str() {
            "INT" | "INTEGER" => Some(Self::Integer),
            "REAL" => Some(Self::Real),
            "TEXT" => Some(Self::Text),
            "BLOB" => Some(Self::Blob),
            _ => None,
        }
    }

    /// The kind of a bound value.
    fn of(ty: ColumnType, form: Form) -> Self {
        match ty.exhaustive() {
            Type::Bool | Type::I16 | Type::I32 | Type::I64 | Type::U64 => Self::Integer,
            Type::F32 | Type::F64 => Self::Real,
            Type::Uuid if form == Form::UuidText => Self::Text,
            Type::Uuid | Type::Bytes => Self::Blob,
            Type::Decimal | Type::Text | Type::Json | Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => {
                Self::Text
            }
        }
    }
}

/// The form in which the values of a column are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Integers, floats, text and bytes unchanged; calendar values as ISO text.
    Plain,
    UuidText,
    UuidBlob,
}

/// The form of a column, or why SQLite would change its values there, or reject them.
pub(crate) fn form(ty: ColumnType, affinity: Affinity, takes: Takes) -> Result<Form, &'static str> {
    let form = converted(ty, affinity)?;
    let kind = Kind::of(ty, form);
    let is_taken = match takes {
        Takes::Any => true,
        // Integers except i64 and u64, which the affinity rejects, are exact as floats.
        Takes::Only(Kind::Real) => matches!(kind, Kind::Real | Kind::Integer),
        Takes::Only(only) => kind == only,
        Takes::RowId => kind == Kind::Integer,
        Takes::Float32 => matches!(ty.exhaustive(), Type::Bool | Type::I16 | Type::F32),
        Takes::Integer32 => matches!(ty.exhaustive(), Type::Bool | Type::I16 | Type::I32),
    };
    if is_taken {
        return Ok(form);
    }
    Err(match takes {
        Takes::RowId => "are refused as the key of the row; send integers",
        Takes::Float32 => "would be rounded to 32 bits by the r-tree; send f32",
        Takes::Integer32 => "would be cut to 32 bits by the r-tree; send i32",
        Takes::Any | Takes::Only(_) => match kind {
            Kind::Integer => "are refused by the STRICT table; declare it INTEGER or ANY",
            Kind::Real => "are refused by the STRICT table; declare it REAL or ANY",
            Kind::Text => "are refused by the STRICT table; declare it TEXT or ANY",
            Kind::Blob => "are refused by the STRICT table; declare it BLOB or ANY",
        },
    })
}

/// The form in a column of that affinity, or why SQLite would change the values.
fn converted(ty: ColumnType, affinity: Affinity) -> Result<Form, &'static str> {
    use Affinity::{Integer, Numeric, Real, Text};
    match ty.exhaustive() {
        Type::Bool | Type::I16 | Type::I32 if affinity == Text => Err("would be stored as text; declare it INTEGER"),
        Type::I64 | Type::U64 if matches!(affinity, Text | Real) => {
            Err("would be stored as text or floating point; declare it INTEGER")
        }
        Type::F32 | Type::F64 if affinity == Text => Err("would be stored as rounded text; declare it REAL"),
        Type::Decimal | Type::Text | Type::Json if matches!(affinity, Integer | Real | Numeric) => {
            Err("that look like numbers would become numbers; declare it TEXT")
        }
        Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz if matches!(affinity, Integer | Real) => {
            Err("are stored as ISO 8601 text; declare it TEXT, or send the number as i64 or f64")
        }
        Type::Uuid if affinity == Text => Ok(Form::UuidText),
        Type::Uuid => Ok(Form::UuidBlob),
        Type::Bool
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U64
        | Type::F32
        | Type::F64
        | Type::Decimal
        | Type::Text
        | Type::Json
        | Type::Bytes
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz => Ok(Form::Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_have_their_affinity() {
        let check = |declared, expected| assert_eq!(Affinity::of(declared, false), expected, "{declared}");
        check("BIGINT", Affinity::Integer);
        check("varchar(20)", Affinity::Text);
        check("", Affinity::Blob);
        check("DOUBLE PRECISION", Affinity::Real);
        check("DECIMAL(10,2)", Affinity::Numeric);
        check("DATETIME", Affinity::Numeric);
        check("ANY", Affinity::Numeric);
        // The SQLite documentation warns of this: "INT" takes precedence.
        check("FLOATING POINT", Affinity::Integer);
        assert_eq!(Affinity::of("ANY", true), Affinity::Blob);
    }

    #[test]
    fn columns_that_change_values_are_refused() {
        let form = |ty, affinity| super::form(ty, affinity, Takes::Any);
        assert!(form(ColumnType::Decimal, Affinity::Numeric).is_err());
        assert!(form(ColumnType::I64, Affinity::Real).is_err());
        assert!(form(ColumnType::F64, Affinity::Text).is_err());
        assert!(form(ColumnType::Timestamp, Affinity::Integer).is_err());
        assert_eq!(form(ColumnType::Timestamp, Affinity::Numeric), Ok(Form::Plain));
        assert_eq!(form(ColumnType::Uuid, Affinity::Text), Ok(Form::UuidText));
        for ty in ColumnType::ALL {
            assert!(form(ty, Affinity::Blob).is_ok(), "{ty} in a column without affinity");
        }
    }
}
