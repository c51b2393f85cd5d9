//! Owns which value goes into which column type, in which form, and what the server would change about it silently.
//! Must not know statements or connections.
//!
//! Types and their limits: <https://dev.mysql.com/doc/refman/8.0/en/data-types.html> and
//! <https://mariadb.com/kb/en/data-types/>.

use batchsql_core::exhaustive::{Type, Value};
use batchsql_core::{ColumnType, ColumnView, ValueRef};

use crate::catalog::{Session, TableColumn};

/// How the values of a column are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Numbers and bytes as they are; calendar values as ISO text.
    Plain,
    /// The usual 36 characters.
    UuidText,
}

/// What even a strict session changes without an error. A value that it would change is refused before it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    /// Fraction digits of a DECIMAL beyond these are rounded away.
    Scale(usize),
    /// A DATETIME, TIMESTAMP or TIME keeps multiples of so many microseconds.
    Micros(i64),
    /// BINARY(n) fills shorter values up with zeros.
    Exactly(usize),
    /// CHAR loses spaces at the end.
    NoSpaceAtEnd,
    /// Spaces beyond so many characters are cut off.
    Chars(usize),
    /// Spaces beyond so many bytes are cut off.
    Octets(usize),
    /// ENUM takes text that is a number as the position of a member, and text that its collation sees as a member for
    /// that member; its declaration tells the members.
    Member(Box<str>),
}

/// How one column is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) form: Form,
    pub(crate) guard: Guard,
}

/// How values of a type are stored in a column, or why the column would change them.
pub(crate) fn storage(ty: ColumnType, column: &TableColumn, session: &Session) -> Result<Storage, &'static str> {
    let plain = |guard| Ok(Storage { form: Form::Plain, guard });
    let data_type = column.data_type.as_str();
    match ty.exhaustive() {
        Type::Bool if is_integer(data_type) || column.full_type.eq_ignore_ascii_case("bit(1)") => plain(Guard::None),
        Type::Bool => Err("need a column of type BOOLEAN, BIT(1) or an integer type"),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is_integer(data_type) || data_type == "decimal" => {
            plain(Guard::None)
        }
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
            (_, Some(guard)) => plain(guard),
            _ => Err("need a column of type CHAR, VARCHAR, TEXT or ENUM, in character set utf8mb4"),
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
                Ok(Storage { form: Form::UuidText, guard: Guard::None })
            }
            "uuid" => Ok(Storage { form: Form::UuidText, guard: Guard::None }),
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

impl Session {
    fn is_utc(&self) -> bool {
        let zone = if self.time_zone == "SYSTEM" { &self.system_time_zone } else { &self.time_zone };
        matches!(zone.as_str(), "+00:00" | "-00:00" | "UTC" | "Etc/UTC")
    }
}

fn is_integer(data_type: &str) -> bool {
    matches!(data_type, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

fn text_guard(column: &TableColumn) -> Option<Guard> {
    match column.data_type.as_str() {
        "char" => Some(Guard::NoSpaceAtEnd),
        "varchar" => Some(Guard::Chars(column.max_chars as usize)),
        "tinytext" | "text" | "mediumtext" | "longtext" => Some(Guard::Octets(column.max_octets as usize)),
        _ => None,
    }
}

fn fraction_guard(column: &TableColumn) -> Guard {
    match 10_i64.pow(6 - column.fraction.min(6) as u32) {
        1 => Guard::None,
        micros => Guard::Micros(micros),
    }
}

impl Guard {
    /// The values that the server would change silently.
    pub(crate) fn refused<'a>(&'a self, values: &'a ColumnView<'_>, rows: usize) -> impl Iterator<Item = usize> + 'a {
        let rows = if *self == Self::None { 0 } else { rows };
        (0..rows).filter(|row| self.refuses(values.get(*row)))
    }

    fn refuses(&self, value: ValueRef<'_>) -> bool {
        match value.exhaustive() {
            Value::Decimal(digits) => match self {
                Self::Scale(scale) => {
                    digits.split_once('.').is_some_and(|(_, fraction)| fraction.trim_end_matches('0').len() > *scale)
                }
                _ => self.refuses_text(digits),
            },
            Value::Text(v) | Value::Json(v) => self.refuses_text(v),
            Value::Bytes(v) => matches!(self, Self::Exactly(len) if v.len() != *len),
            Value::Time(v) => self.refuses_micros(v.micros_since_midnight()),
            Value::Timestamp(v) => self.refuses_micros(v.micros_since_epoch()),
            Value::TimestampTz(v) => self.refuses_micros(v.micros_since_epoch()),
            // A column that would change these is refused as a whole, see `storage`.
            Value::Null
            | Value::Bool(_)
            | Value::I16(_)
            | Value::I32(_)
            | Value::I64(_)
            | Value::U64(_)
            | Value::F32(_)
            | Value::F64(_)
            | Value::Uuid(_)
            | Value::Date(_) => false,
        }
    }

    fn refuses_micros(&self, micros: i64) -> bool {
        matches!(self, Self::Micros(unit) if micros % unit != 0)
    }

    fn refuses_text(&self, text: &str) -> bool {
        match self {
            Self::NoSpaceAtEnd => text.ends_with(' '),
            Self::Chars(max) => text.ends_with(' ') && text.len() > *max && text.chars().count() > *max,
            Self::Octets(max) => text.ends_with(' ') && text.len() > *max,
            Self::Member(declared) => {
                // How a backslash or a control character is declared differs between servers.
                let is_plain = !text.contains(|c: char| c == '\\' || c.is_control());
                let quoted = text.replace('\'', "''");
                is_plain && !['(', ','].iter().any(|before| declared.contains(&format!("{before}'{quoted}'")))
            }
            _ => false,
        }
    }

    /// Why a value is refused, and what to do.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Scale(scale) => format!(
                "has more than {scale} fraction digits, which the server would round away; round it, or widen the column"
            ),
            Self::Micros(_) => {
                "has finer fractions of a second than the column, which the server would round away; declare the column with (6)".into()
            }
            Self::Exactly(len) => format!("is not of {len} bytes, which the server would fill with zeros; use VARBINARY"),
            Self::NoSpaceAtEnd => {
                "ends with a space, which the server would not give back; trim it, or use VARCHAR".into()
            }
            Self::Chars(_) | Self::Octets(_) => {
                "is longer than the column, and the server would cut off the spaces at its end; trim it, or widen the column".into()
            }
            Self::Member(_) => "is not the name of a member of the ENUM".into(),
            Self::None => "is refused".into(),
        }
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
            reads_uncommitted: false,
            database: None,
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
        refused(ColumnType::Text, "set('a','b')", 3, None);
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

    #[test]
    fn guards_refuse_what_would_be_changed_and_nothing_else() {
        let check = |guard: Guard, value: ValueRef<'_>, refused| {
            assert_eq!(guard.refuses(value), refused, "{guard:?} {value:?}");
        };
        check(Guard::Scale(2), ValueRef::Decimal("-1.25"), false);
        check(Guard::Scale(2), ValueRef::Decimal("1.25000"), false);
        check(Guard::Scale(2), ValueRef::Decimal("1.251"), true);
        check(Guard::Scale(0), ValueRef::Decimal("1.0"), false);
        check(Guard::Micros(1_000), ValueRef::Time(batchsql_core::Time::MAX), true);
        check(Guard::Micros(1_000_000), ValueRef::Timestamp(batchsql_core::Timestamp::MIN), false);
        check(Guard::Exactly(3), ValueRef::Bytes(b"abc"), false);
        check(Guard::Exactly(3), ValueRef::Bytes(b"ab"), true);
        check(Guard::NoSpaceAtEnd, ValueRef::Text(" a"), false);
        check(Guard::NoSpaceAtEnd, ValueRef::Text("a "), true);
        check(Guard::Chars(2), ValueRef::Text("ü "), false);
        check(Guard::Chars(2), ValueRef::Text("üü "), true);
        check(Guard::Octets(4), ValueRef::Text("üü "), true);
        let size = || Guard::Member("enum('s','10','it''s')".into());
        check(size(), ValueRef::Text("s"), false);
        check(size(), ValueRef::Text("10"), false);
        check(size(), ValueRef::Text("it's"), false);
        for other in ["1", "S", "s ", "", "it''s"] {
            check(size(), ValueRef::Text(other), true);
        }
        check(size(), ValueRef::Null, false);
    }
}
