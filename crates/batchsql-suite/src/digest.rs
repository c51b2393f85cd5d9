//! Owns the checksum over the content of a table, independent of the order of its rows.
//! Must not know where rows come from: the sending side and every database use the same form.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use batchsql::exhaustive::{Type, Value};
use batchsql::{ColumnType, ValueRef};
use serde_json::value::RawValue;

/// A value in the form for comparison: databases have fewer types of values than rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Canonical<'a> {
    /// SQL `NULL`.
    Null,
    /// Integers and booleans.
    Int(i128),
    /// Floats, compared bit by bit.
    Float(f64),
    /// Text and, as ISO 8601, calendar values.
    Text(&'a str),
    /// A decimal number; trailing zeros of the fraction are ignored.
    Decimal(&'a str),
    /// A JSON document; spaces and the order of members are ignored.
    Json(&'a str),
    /// Bytes and UUIDs.
    Bytes(&'a [u8]),
}

impl<'a> Canonical<'a> {
    /// The value that a database stores as text for a column of this type.
    pub fn of_text(text: &'a str, ty: ColumnType) -> Self {
        match ty.exhaustive() {
            Type::Decimal => Self::Decimal(text),
            Type::Json => Self::Json(text),
            Type::Bool
            | Type::I16
            | Type::I32
            | Type::I64
            | Type::U64
            | Type::F32
            | Type::F64
            | Type::Text
            | Type::Bytes
            | Type::Uuid
            | Type::Date
            | Type::Time
            | Type::Timestamp
            | Type::TimestampTz => Self::Text(text),
        }
    }
}

/// `1.50` and `1.5` are the same number.
fn without_zeros(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

/// The document in a normal form that keeps the digits of numbers. Text that is not JSON stays unchanged and equals no
/// document.
fn normal_json(text: &str) -> String {
    fn normal(json: &RawValue) -> serde_json::Result<String> {
        let text = json.get().trim();
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
                let member = |(name, value): (&String, &&RawValue)| {
                    Ok(format!("{}:{}", serde_json::to_string(name)?, normal(value)?))
                };
                let members: Vec<String> = members.iter().map(member).collect::<serde_json::Result<_>>()?;
                format!("{{{}}}", members.join(","))
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(text)?;
                let elements: Vec<String> = elements.into_iter().map(normal).collect::<serde_json::Result<_>>()?;
                format!("[{}]", elements.join(","))
            }
            // A character can have several escapes.
            Some(b'"') => serde_json::to_string(&serde_json::from_str::<String>(text)?)?,
            _ => text.to_owned(),
        })
    }
    serde_json::from_str::<&RawValue>(text).and_then(normal).unwrap_or_else(|_| text.to_owned())
}

/// Number of rows and checksum over all of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Number of rows.
    pub rows: u64,
    sum: u64,
}

/// The checksum of one row, value by value.
#[derive(Debug, Default)]
pub struct RowDigest(DefaultHasher);

impl RowDigest {
    /// Adds a value as the database stores it.
    pub fn add(&mut self, value: Canonical<'_>) {
        match value {
            Canonical::Null => self.0.write_u8(0),
            Canonical::Int(v) => (1_u8, v).hash(&mut self.0),
            Canonical::Float(v) => (2_u8, v.to_bits()).hash(&mut self.0),
            Canonical::Text(v) => (3_u8, v).hash(&mut self.0),
            Canonical::Bytes(v) => (4_u8, v).hash(&mut self.0),
            Canonical::Decimal(v) => (5_u8, without_zeros(v)).hash(&mut self.0),
            Canonical::Json(v) => (6_u8, normal_json(v)).hash(&mut self.0),
        }
    }

    /// Adds a value as it was submitted.
    pub fn add_submitted(&mut self, value: ValueRef<'_>) {
        match value.exhaustive() {
            Value::Null => self.add(Canonical::Null),
            Value::Bool(v) => self.add(Canonical::Int(v.into())),
            Value::I16(v) => self.add(Canonical::Int(v.into())),
            Value::I32(v) => self.add(Canonical::Int(v.into())),
            Value::I64(v) => self.add(Canonical::Int(v.into())),
            Value::U64(v) => self.add(Canonical::Int(v.into())),
            Value::F32(v) => self.add(Canonical::Float(v.into())),
            Value::F64(v) => self.add(Canonical::Float(v)),
            Value::Text(v) => self.add(Canonical::Text(v)),
            Value::Decimal(v) => self.add(Canonical::Decimal(v)),
            Value::Json(v) => self.add(Canonical::Json(v)),
            Value::Bytes(v) => self.add(Canonical::Bytes(v)),
            Value::Uuid(v) => self.add(Canonical::Bytes(&v)),
            Value::Date(v) => self.add(Canonical::Text(&v.to_string())),
            Value::Time(v) => self.add(Canonical::Text(&v.to_string())),
            Value::Timestamp(v) => self.add(Canonical::Text(&v.to_string())),
            Value::TimestampTz(v) => self.add(Canonical::Text(&v.to_string())),
        }
    }
}

impl Digest {
    /// Adds a row.
    pub fn add(&mut self, row: &RowDigest) {
        self.rows += 1;
        // A sum is independent of the order of rows and, unlike XOR, detects duplicate rows.
        self.sum = self.sum.wrapping_add(row.0.finish());
    }

    /// Adds a row of submitted values.
    pub fn add_values<'a>(&mut self, values: impl IntoIterator<Item = ValueRef<'a>>) {
        let mut row = RowDigest::default();
        values.into_iter().for_each(|value| row.add_submitted(value));
        self.add(&row);
    }

    /// Adds a row of values as the database stores them.
    pub fn add_canonical<'a>(&mut self, values: impl IntoIterator<Item = Canonical<'a>>) {
        let mut row = RowDigest::default();
        values.into_iter().for_each(|value| row.add(value));
        self.add(&row);
    }

    /// Adds every row of another digest.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The checksum for reports.
    pub fn checksum(&self) -> String {
        format!("{:016x}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[&[ValueRef<'_>]]) -> Digest {
        let mut digest = Digest::default();
        rows.iter().for_each(|row| digest.add_values(row.iter().copied()));
        digest
    }

    #[test]
    fn documents_are_one_when_they_say_the_same_in_every_digit() {
        let check = |a: &str, b: &str, same| assert_eq!(normal_json(a) == normal_json(b), same, "{a} {b}");
        check(r#"{"b": [1, {"c": null}], "a": "é"}"#, r#"{"a":"\u00e9","b":[1,{"c":null}]}"#, true);
        check("12345678901234567890.123", "12345678901234567000", false);
        check("[1.0]", "[1]", false);
        check(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
        check("no json", "no json", true);
    }

    #[test]
    fn order_of_rows_does_not_matter_and_everything_else_does() {
        let (a, b) = ([ValueRef::I64(1), ValueRef::Text("x")], [ValueRef::I64(2), ValueRef::Null]);
        let both = digest(&[&a, &b]);
        assert_eq!(both, digest(&[&b, &a]));
        assert_ne!(both, digest(&[&a, &a]));
        assert_ne!(both, digest(&[&a]));
        assert_ne!(both, digest(&[&a, &[ValueRef::I64(2), ValueRef::Text("")]]));
        assert_ne!(both, digest(&[&a, &[ValueRef::Null, ValueRef::I64(2)]]));
        assert_ne!(
            digest(&[&[ValueRef::Text("ab"), ValueRef::Text("c")]]),
            digest(&[&[ValueRef::Text("a"), ValueRef::Text("bc")]])
        );
    }
}
