//! Owns which column types accept which values, and in which form.
//! Must not know statements or connections.
//!
//! Types and their limits: <https://dev.mysql.com/doc/refman/8.0/en/data-types.html> and
//! <https://mariadb.com/kb/en/data-types/>.

use batchsql_core::ColumnType;
use batchsql_core::exhaustive::Type;

use crate::catalog::{Session, TableColumn};
use crate::guard::{Guard, Octets};
use crate::members::Members;

/// How the values of a column are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers and bytes unchanged; calendar values as ISO text.
    Plain,
    /// The UUID as text of 36 characters.
    UuidText,
    /// Text of digits 0 and 1 as a number.
    Bits,
    /// Text that a function of the server converts to a geometry.
    Geometry,
    /// The same, but the value is sent twice: MariaDB converts invalid text to NULL, and then uses the text itself,
    /// which it rejects.
    GeometryOrText,
}

impl Form {
    /// The SQL expression of the value.
    pub(crate) fn expression(self) -> &'static str {
        match self {
            Self::Plain | Self::UuidText | Self::Bits => "?",
            Self::Geometry => "ST_GeomFromText(?)",
            Self::GeometryOrText => "COALESCE(ST_GeomFromText(?),?)",
        }
    }

    /// The number of placeholders in the expression.
    pub(crate) fn placeholders(self) -> usize {
        if self == Self::GeometryOrText { 2 } else { 1 }
    }
}

/// How one column is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) form: Form,
    pub(crate) guard: Guard,
    pub(crate) null: Null,
}

/// What the server makes of NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    /// It is stored, or an error.
    Unchanged,
    /// A TIMESTAMP that is NOT NULL stores the current time.
    Now,
}

/// How values of a type are stored in a column, or why the column cannot store them unchanged.
pub(crate) fn storage(ty: ColumnType, column: &TableColumn, session: &Session) -> Result<Storage, &'static str> {
    let plain = |guard| Ok(Storage { form: Form::Plain, guard, null: null(column, session) });
    let data_type = column.data_type.as_str();
    match ty.exhaustive() {
        Type::Bool if is_integer(data_type) || column.full_type.eq_ignore_ascii_case("bit(1)") => plain(Guard::None),
        Type::Bool => Err("need a column of type BOOLEAN, BIT(1) or an integer type"),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is_integer(data_type) || data_type == "decimal" => {
            plain(Guard::None)
        }
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if data_type == "year" => plain(Guard::Year),
        Type::I16 | Type::I32 | Type::I64 if data_type == "bit" => plain(Guard::NotNegative),
        Type::U64 if data_type == "bit" => plain(Guard::None),
        Type::I16 | Type::I32 | Type::I64 => Err("need an integer or DECIMAL column, for example BIGINT"),
        Type::U64 => Err("need an integer or DECIMAL column, for example BIGINT UNSIGNED"),
        Type::F32 | Type::F64 if column.scale.is_some() && matches!(data_type, "float" | "double") => {
            Err("would be rounded; declare it DOUBLE without digits")
        }
        Type::F32 if matches!(data_type, "float" | "double") => plain(Guard::None),
        Type::F32 => Err("need a column of type FLOAT or DOUBLE"),
        Type::F64 if data_type == "double" => plain(Guard::None),
        Type::F64 => Err("need a column of type DOUBLE; FLOAT has half the digits"),
        Type::Decimal => match (data_type, text_guard(column)) {
            ("decimal", _) => plain(Guard::Scale(column.scale.unwrap_or(0) as usize)),
            (_, Some(guard)) => plain(guard),
            _ => Err("need a column of type DECIMAL(p,s), or VARCHAR"),
        },
        Type::Text => match (data_type, text_guard(column)) {
            ("enum", _) => plain(Guard::Member(column.full_type.as_str().into())),
            ("set", _) => plain(Guard::Members(Members::new(&column.full_type))),
            ("year", _) => plain(Guard::Year),
            ("bit", _) => Ok(Storage { form: Form::Bits, guard: Guard::Bits(column.bits()), null: Null::Unchanged }),
            ("inet4" | "inet6" | "uuid", _) => plain(Guard::None),
            ("time", _) => plain(Guard::Duration(column.fraction.min(6) as usize)),
            (geometry, _) if is_geometry(geometry) => {
                let form = if session.is_mariadb { Form::GeometryOrText } else { Form::Geometry };
                Ok(Storage { form, guard: Guard::Geometry, null: Null::Unchanged })
            }
            (_, Some(guard)) => plain(guard),
            _ => Err(
                "need a column of type CHAR, VARCHAR, TEXT, ENUM, SET, YEAR, BIT, TIME, a geometry, or MariaDB's INET4, INET6 or UUID",
            ),
        },
        Type::Json => match (data_type, text_guard(column)) {
            ("json", _) => plain(Guard::None),
            (_, Some(guard)) => plain(guard),
            _ => Err("need a column of type JSON or LONGTEXT"),
        },
        Type::Bytes => match data_type {
            "binary" => plain(Guard::Exactly(column.max_octets as usize)),
            "varbinary" => plain(Guard::None),
            blob if blob.ends_with("blob") => plain(Guard::None),
            _ => Err("need a column of type VARBINARY, BLOB, or BINARY(n) for values of n bytes"),
        },
        Type::Uuid => match data_type {
            "binary" if column.max_octets == 16 => plain(Guard::None),
            "varbinary" | "blob" | "mediumblob" | "longblob" | "tinyblob" if column.max_octets >= 16 => {
                plain(Guard::None)
            }
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" if column.max_chars >= 36 => {
                Ok(Storage { form: Form::UuidText, guard: Guard::None, null: Null::Unchanged })
            }
            "uuid" => Ok(Storage { form: Form::UuidText, guard: Guard::None, null: Null::Unchanged }),
            _ => Err("need a column of type BINARY(16), CHAR(36), or MariaDB's UUID"),
        },
        Type::Date if data_type == "date" => plain(Guard::None),
        Type::Date => Err("need a column of type DATE"),
        Type::Time if data_type == "time" => plain(fraction_guard(column)),
        Type::Time => Err("need a column of type TIME(6)"),
        Type::Timestamp if data_type == "datetime" => plain(fraction_guard(column)),
        Type::Timestamp if data_type == "timestamp" => {
            Err("have no zone, and TIMESTAMP depends on one; declare it DATETIME(6), or send timestamptz")
        }
        Type::Timestamp => Err("need a column of type DATETIME(6)"),
        Type::TimestampTz if data_type == "datetime" => plain(fraction_guard(column)),
        Type::TimestampTz if data_type == "timestamp" && !session.is_utc() => {
            Err("need a session in UTC; set time_zone = '+00:00' on the connections of the pool")
        }
        Type::TimestampTz if data_type == "timestamp" => plain(fraction_guard(column)),
        Type::TimestampTz => Err("need a column of type DATETIME(6), which then holds UTC, or TIMESTAMP(6)"),
    }
}

/// MariaDB does it whatever `explicit_defaults_for_timestamp` says.
fn null(column: &TableColumn, session: &Session) -> Null {
    let is_replaced = session.is_mariadb || !session.explicit_timestamps;
    if column.data_type == "timestamp" && !column.nullable && is_replaced { Null::Now } else { Null::Unchanged }
}

impl Session {
    pub(crate) fn is_utc(&self) -> bool {
        let zone = if self.time_zone == "SYSTEM" { &self.system_time_zone } else { &self.time_zone };
        matches!(zone.as_str(), "+00:00" | "-00:00" | "UTC" | "Etc/UTC")
    }
}

/// Digits 0 and 1 as a number.
pub(crate) fn bits(digits: &str) -> u64 {
    digits.bytes().fold(0, |bits, digit| bits << 1 | u64::from(digit & 1))
}

fn is_geometry(data_type: &str) -> bool {
    matches!(data_type, "geometry" | "geometrycollection" | "geomcollection")
        || ["point", "linestring", "polygon"]
            .iter()
            .any(|shape| data_type.strip_prefix("multi").unwrap_or(data_type) == *shape)
}

impl TableColumn {
    /// The bits of a `bit(n)`.
    fn bits(&self) -> usize {
        let digits = self.full_type.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
        digits.parse().unwrap_or(1)
    }
}

fn is_integer(data_type: &str) -> bool {
    matches!(data_type, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

fn text_guard(column: &TableColumn) -> Option<Guard> {
    match column.data_type.as_str() {
        "char" => Some(Guard::NoSpaceAtEnd(column.max_chars as usize)),
        "varchar" => Some(Guard::Chars(column.max_chars as usize)),
        "tinytext" | "text" | "mediumtext" | "longtext" => {
            Some(Guard::Octets(column.max_octets as usize, Octets::of(&column.character_set)))
        }
        _ => None,
    }
}

fn fraction_guard(column: &TableColumn) -> Guard {
    match 10_i64.pow(6 - column.fraction.min(6) as u32) {
        1 => Guard::None,
        micros => Guard::Micros(micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(time_zone: &str) -> Session {
        Session {
            sql_mode: String::new(),
            time_zone: time_zone.into(),
            system_time_zone: "CET".into(),
            character_set: "utf8mb4".into(),
            autocommit: true,
            max_allowed_packet: 1 << 20,
            explicit_timestamps: true,
            leaves_rows_out: false,
            reads_uncommitted: false,
            is_mariadb: true,
            state: None,
        }
    }

    fn column(full_type: &str, max: u64, scale: Option<u64>, fraction: u64) -> TableColumn {
        let data_type = full_type.split(['(', ' ']).next().unwrap_or_default().to_owned();
        let full_type = full_type.to_owned();
        TableColumn { data_type, full_type, max_chars: max, max_octets: max, scale, fraction, ..TableColumn::default() }
    }

    #[test]
    fn columns_that_change_values_are_refused() {
        let refused = |ty, full_type: &str, max, scale| {
            assert!(storage(ty, &column(full_type, max, scale, 6), &session("+00:00")).is_err(), "{ty} in {full_type}");
        };
        refused(ColumnType::Bool, "bit(8)", 0, None);
        refused(ColumnType::I64, "double", 0, None);
        refused(ColumnType::I64, "varchar(20)", 20, None);
        refused(ColumnType::F64, "float", 0, None);
        refused(ColumnType::F64, "double(8,2)", 0, Some(2));
        refused(ColumnType::F32, "float(7,4)", 0, Some(4));
        refused(ColumnType::Decimal, "double", 0, None);
        refused(ColumnType::Bytes, "set('a','b')", 3, None);
        refused(ColumnType::F64, "year", 0, None);
        refused(ColumnType::Bytes, "point", 0, None);
        refused(ColumnType::Text, "blob", 65_535, None);
        refused(ColumnType::Text, "json", 0, None);
        refused(ColumnType::Bytes, "text", 65_535, None);
        refused(ColumnType::Uuid, "binary(20)", 20, None);
        refused(ColumnType::Uuid, "varchar(32)", 32, None);
        refused(ColumnType::Timestamp, "timestamp(6)", 0, None);
        refused(ColumnType::Date, "datetime(6)", 0, None);
        let utc = |zone| storage(ColumnType::TimestampTz, &column("timestamp(6)", 0, None, 6), &session(zone)).is_ok();
        assert_eq!([utc("+00:00"), utc("UTC"), utc("SYSTEM"), utc("+02:00")], [true, true, false, false]);
    }
}
