//! Owns the comparison of keys with those in the table: the query, and a form in which both can be compared.
//! Must not know transactions or outcomes.
//!
//! Two forms are equal only if the values are equal. The reverse does not hold (collations, padding): the insert
//! itself detects such duplicates.

use std::collections::HashMap;

use batchsql_core::exhaustive::{Type, Value};
use batchsql_core::{Column, ColumnType, RowView, Rows, Schema, ValueRef};
use batchsql_sql::mysql::{quote, select_keys};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::bind::{push_calendar, push_uuid};
use crate::catalog::{TableColumn, same_name};
use crate::members::Members;
use crate::statements::{Statement, Statements};
use crate::types::bits;

/// Keys per query: fewer than the number of values from which MariaDB turns a list into a join.
pub(crate) const KEYS_PER_STATEMENT: usize = 500;

/// The most digits of a DECIMAL.
const MAX_DIGITS: usize = 65;

/// The search for the keys of a batch.
pub(crate) struct KeySearch {
    schema: Schema,
    parts: Vec<Part>,
    /// The key columns as text or bytes.
    shown: Vec<String>,
    /// The placeholder of each column of the schema, compared as its column is.
    values: Vec<String>,
    /// Whether different values may be one key.
    has_spellings: bool,
    statements: Statements,
}

/// A column whose values are compared.
pub(crate) struct Part {
    column: usize,
    /// The stored value, in the form of [`push_found`](Self::push_found).
    shown: String,
    /// Whether the server compares it as a number, so that 1.5 and 1.50 are equal.
    is_decimal: bool,
    is_uuid: bool,
    /// Whether texts are numbers to the server.
    is_bits: bool,
    /// Of a SET.
    members: Option<Members>,
}

impl Part {
    pub(crate) fn new(schema: &Schema, column: usize, table: &[TableColumn]) -> Self {
        let own = &schema.columns()[column];
        let stored = table.iter().find(|stored| same_name(&stored.name, own.name()));
        let data_type = stored.map_or("", |stored| &stored.data_type);
        Self {
            column,
            shown: shown(&quote(own.name()), own.column_type(), data_type),
            is_decimal: data_type == "decimal",
            is_uuid: own.column_type() == ColumnType::Uuid,
            is_bits: data_type == "bit",
            members: stored.filter(|_| data_type == "set").map(|stored| Members::new(&stored.full_type)),
        }
    }

    pub(crate) fn column(&self) -> usize {
        self.column
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Writes a value to write, which is not `NULL`.
    pub(crate) fn push_sent(&self, text: &mut Vec<u8>, value: ValueRef<'_>) {
        match value {
            ValueRef::Decimal(digits) if !self.is_decimal => text.extend_from_slice(digits.as_bytes()),
            ValueRef::I16(v) if self.is_decimal => push_decimal(text, &v.to_string()),
            ValueRef::I32(v) if self.is_decimal => push_decimal(text, &v.to_string()),
            ValueRef::I64(v) if self.is_decimal => push_decimal(text, &v.to_string()),
            ValueRef::U64(v) if self.is_decimal => push_decimal(text, &v.to_string()),
            ValueRef::Text(digits) if self.is_bits => text.extend_from_slice(bits(digits).to_string().as_bytes()),
            ValueRef::Text(value) => match &self.members {
                Some(members) => text.extend_from_slice(members.stored(value).as_bytes()),
                None => text.extend_from_slice(value.as_bytes()),
            },
            value => push_value(text, value),
        }
    }

    /// Whether two different values may be written in the same form.
    fn has_spellings(&self, ty: ColumnType) -> bool {
        match ty {
            ColumnType::Decimal => self.is_decimal,
            ColumnType::Text => self.is_bits || self.members.is_some(),
            _ => false,
        }
    }

    /// Writes a stored value.
    pub(crate) fn push_found(&self, text: &mut Vec<u8>, found: &[u8]) {
        match <&[u8; 16]>::try_from(found) {
            Ok(uuid) if self.is_uuid => push_uuid(text, uuid),
            _ if self.is_decimal => push_decimal(text, &String::from_utf8_lossy(found)),
            _ => text.extend_from_slice(found),
        }
    }
}

/// A key in comparable form.
pub(crate) type KeyBytes = Vec<u8>;

impl KeySearch {
    /// `None` if the schema has no key, or if the server returns a part of it with fewer digits than it has.
    pub(crate) fn new(schema: &Schema, table: &[TableColumn]) -> Option<Self> {
        let key = schema.key_columns();
        let is_exact = |i: &usize| !is_rounded(schema.columns()[*i].column_type());
        if key.is_empty() || !key.iter().all(is_exact) {
            return None;
        }
        let parts: Vec<Part> = key.iter().map(|i| Part::new(schema, *i, table)).collect();
        Some(Self {
            shown: parts.iter().map(|part| part.shown.clone()).collect(),
            values: schema.columns().iter().map(|column| compared_key(column, "?", table)).collect(),
            has_spellings: parts.iter().any(|part| part.has_spellings(schema.columns()[part.column].column_type())),
            parts,
            schema: schema.clone(),
            statements: Statements::default(),
        })
    }

    /// The expressions of the key columns, in the form of [`of_found`](Self::of_found).
    pub(crate) fn shown(&self) -> &[String] {
        &self.shown
    }

    pub(crate) fn select(&self, keys: usize) -> Statement {
        self.statements.get(keys, || self.text(keys, &self.shown))
    }

    /// The text of a search that shows these expressions.
    pub(crate) fn text(&self, keys: usize, shown: &[String]) -> String {
        select_keys(&self.schema, keys, &self.values.iter().map(String::as_str).collect::<Vec<_>>(), shown)
    }

    /// The key of a row to write.
    pub(crate) fn of_row(&self, row: RowView<'_>) -> KeyBytes {
        let mut key = KeyBytes::new();
        for part in &self.parts {
            push_part(&mut key, |text| part.push_sent(text, row.get(part.column)));
        }
        key
    }

    /// Splits the rows as [`Rows::waves`] does, with keys that are equal in the form of [`of_row`](Self::of_row): no two rows
    /// of one part have one form.
    pub(crate) fn waves(&self, rows: Rows<'_>) -> Vec<Vec<u32>> {
        if !self.has_spellings {
            return rows.waves();
        }
        let mut seen: HashMap<KeyBytes, usize> = HashMap::with_capacity(rows.len());
        let mut waves: Vec<Vec<u32>> = Vec::new();
        for (number, row) in (0_u32..).zip(rows.iter()) {
            let times = seen.entry(self.of_row(row)).or_default();
            if *times == waves.len() {
                waves.push(Vec::new());
            }
            waves[*times].push(number);
            *times += 1;
        }
        waves
    }

    /// The key of a row in the table.
    pub(crate) fn of_found(&self, row: &MySqlRow) -> sqlx::Result<KeyBytes> {
        let mut key = KeyBytes::new();
        for (index, part) in self.parts.iter().enumerate() {
            let found: &[u8] = row.try_get_unchecked(index)?;
            push_part(&mut key, |text| part.push_found(text, found));
        }
        Ok(key)
    }
}

/// The expression of a submitted value that the server compares and computes as it does with the column. Decimals, dates
/// and times are sent as text: the server would compare a text with a decimal as floats.
pub(crate) fn compared(column: &Column, value: &str, table: &[TableColumn]) -> String {
    let stored = table.iter().find(|found| same_name(&found.name, column.name()));
    // `decimal(30,2) unsigned`
    let decimal = stored.filter(|found| found.data_type == "decimal");
    let decimal = decimal.and_then(|found| Some(&found.full_type[..=found.full_type.find(')')?]));
    match (column.column_type(), decimal) {
        (ColumnType::Decimal, Some(decimal)) => format!("CAST({value} AS {decimal})"),
        (ColumnType::Date, _) => format!("CAST({value} AS DATE)"),
        (ColumnType::Time, _) => format!("CAST({value} AS TIME(6))"),
        (ColumnType::Timestamp | ColumnType::TimestampTz, _) => format!("CAST({value} AS DATETIME(6))"),
        _ => value.to_owned(),
    }
}

/// As [`compared`], for a key. A number that is too large for its column is the largest one of the column after a cast to
/// its type, and would be found there: so it is cast to the most digits that there are.
pub(crate) fn compared_key(column: &Column, value: &str, table: &[TableColumn]) -> String {
    let stored = table.iter().find(|found| same_name(&found.name, column.name()));
    match stored {
        Some(found) if found.data_type == "decimal" && column.column_type() == ColumnType::Decimal => {
            format!("CAST({value} AS DECIMAL({MAX_DIGITS},{}))", found.scale.unwrap_or_default())
        }
        _ => compared(column, value, table),
    }
}

/// Whether the server returns a value with fewer digits than it has.
fn is_rounded(ty: ColumnType) -> bool {
    match ty.exhaustive() {
        Type::F32 | Type::F64 => true,
        Type::Bool
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U64
        | Type::Decimal
        | Type::Text
        | Type::Bytes
        | Type::Uuid
        | Type::Json
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz => false,
    }
}

/// The expression that returns a stored value in the form of [`push_value`].
pub(crate) fn shown(column: &str, ty: ColumnType, stored: &str) -> String {
    match ty.exhaustive() {
        Type::Bytes => column.to_owned(),
        Type::Bool
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::U64
        | Type::F32
        | Type::F64
        | Type::Decimal
        | Type::Text
        | Type::Uuid
        | Type::Json
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz => match stored {
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => column.to_owned(),
            "bit" => format!("CAST({column}+0 AS CHAR)"),
            "time" => format!("CAST(CAST({column} AS TIME(6)) AS CHAR)"),
            "datetime" | "timestamp" => format!("CAST(CAST({column} AS DATETIME(6)) AS CHAR)"),
            _ => format!("CAST({column} AS CHAR)"),
        },
    }
}

/// Writes a part with a length prefix, so that the parts of a key stay separate.
fn push_part(key: &mut KeyBytes, write: impl FnOnce(&mut Vec<u8>)) {
    let start = key.len();
    key.extend_from_slice(&[0; 4]);
    write(key);
    let len = u32::try_from(key.len() - start - 4).expect("the byte budget keeps a value below 4 GiB");
    key[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Writes a value as the server shows it with [`shown`].
pub(crate) fn push_value(part: &mut Vec<u8>, value: ValueRef<'_>) {
    match value.exhaustive() {
        Value::Bool(v) => part.push(if v { b'1' } else { b'0' }),
        Value::I16(v) => part.extend_from_slice(v.to_string().as_bytes()),
        Value::I32(v) => part.extend_from_slice(v.to_string().as_bytes()),
        Value::I64(v) => part.extend_from_slice(v.to_string().as_bytes()),
        Value::U64(v) => part.extend_from_slice(v.to_string().as_bytes()),
        Value::Decimal(v) => push_decimal(part, v),
        Value::Text(v) | Value::Json(v) => part.extend_from_slice(v.as_bytes()),
        Value::Bytes(v) => part.extend_from_slice(v),
        Value::Uuid(v) => push_uuid(part, &v),
        Value::Date(v) => push_calendar(part, Some(v), None),
        Value::Time(v) => push_calendar(part, None, Some(v)),
        Value::Timestamp(v) => {
            let (date, time) = v.parts();
            push_calendar(part, Some(date), Some(time));
        }
        Value::TimestampTz(v) => {
            let (date, time) = v.parts();
            push_calendar(part, Some(date), Some(time));
        }
        Value::Null | Value::F32(_) | Value::F64(_) => unreachable!("a key has no NULL and no float"),
    }
}

/// Writes one spelling per number: no leading or trailing zeros, no negative zero.
fn push_decimal(part: &mut Vec<u8>, digits: &str) {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if !(whole.is_empty() && fraction.is_empty()) {
        part.extend_from_slice(sign.as_bytes());
    }
    part.extend_from_slice(whole.as_bytes());
    part.push(b'.');
    part.extend_from_slice(fraction.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        let spelled = |digits| {
            let mut part = Vec::new();
            push_decimal(&mut part, digits);
            String::from_utf8(part).unwrap()
        };
        for same in ["1.5", "01.50", "1.500"] {
            assert_eq!(spelled(same), "1.5");
        }
        assert_eq!([spelled("0"), spelled("-0.00"), spelled("-10"), spelled("0.01")], [".", ".", "-10.", ".01"]);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |parts: [&str; 2]| {
            let mut key = KeyBytes::new();
            parts.iter().for_each(|part| push_part(&mut key, |key| key.extend_from_slice(part.as_bytes())));
            key
        };
        assert_ne!(key(["a", "bc"]), key(["ab", "c"]));
    }
}
