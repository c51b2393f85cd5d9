//! Owns the value model: column types, owned and borrowed values, and the lossless conversions.
//! Must not know rows, batches or databases.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::column_types::for_each_column_type;
use crate::model::decimal::Number;
use crate::model::serde_forms;
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};

pub use crate::model::decimal::{Decimal, InvalidDecimal};
pub use crate::model::json::{InvalidJson, Json};

/// The type of a column, as the caller declares it. Every type can also be `NULL` where the column
/// allows it. With `serde` it is its [`name`](Self::name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ColumnType {
    /// True or false.
    Bool,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Exact decimal number, see [`Decimal`].
    Decimal,
    /// UTF-8 text.
    Text,
    /// Raw bytes.
    Bytes,
    /// 128-bit UUID.
    Uuid,
    /// A JSON document, see [`Json`].
    Json,
    /// Calendar date.
    Date,
    /// Time of day, microseconds.
    Time,
    /// Date and time without a zone, microseconds.
    Timestamp,
    /// Instant in UTC, microseconds.
    TimestampTz,
}

macro_rules! column_type {
    (() $($variant:ident $name:literal $kind:tt;)*) => {
        impl ColumnType {
            /// Every column type, in declaration order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name used in errors and docs, for example `timestamptz`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bytes that one value takes in a column buffer before its variable part.
            pub(crate) fn fixed_len(self) -> usize {
                match self {
                    $(Self::$variant => fixed_len!($kind),)*
                }
            }
        }

        impl ValueRef<'_> {
            /// The type of the value, `None` for `NULL`.
            pub fn column_type(&self) -> Option<ColumnType> {
                match self {
                    Self::Null => None,
                    $(Self::$variant(_) => Some(ColumnType::$variant),)*
                }
            }
        }
    };
}

macro_rules! fixed_len {
    ([fixed $rust:ty = $null:expr]) => {
        size_of::<$rust>()
    };
    // Variable values count their end offset here, and their bytes when they are written.
    ([text]) => {
        size_of::<u32>()
    };
    ([bytes]) => {
        size_of::<u32>()
    };
}

macro_rules! variable_len {
    ([fixed $rust:ty = $null:expr] $value:ident) => {
        0
    };
    ([text] $value:ident) => {
        $value.len()
    };
    ([bytes] $value:ident) => {
        $value.len()
    };
}

for_each_column_type!(column_type!());

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A borrowed value of one column of one row. Unlike every type that holds rows, its `Debug` shows the
/// value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ValueRef<'a> {
    /// SQL `NULL`.
    Null,
    /// See [`ColumnType::Bool`].
    Bool(bool),
    /// See [`ColumnType::I16`].
    I16(i16),
    /// See [`ColumnType::I32`].
    I32(i32),
    /// See [`ColumnType::I64`].
    I64(i64),
    /// See [`ColumnType::U64`].
    U64(u64),
    /// See [`ColumnType::F32`].
    F32(f32),
    /// See [`ColumnType::F64`].
    F64(f64),
    /// Digits of a [`Decimal`].
    Decimal(&'a str),
    /// See [`ColumnType::Text`].
    Text(&'a str),
    /// See [`ColumnType::Bytes`].
    Bytes(&'a [u8]),
    /// The 16 bytes of a UUID in network order.
    Uuid([u8; 16]),
    /// Text of a [`Json`] document.
    Json(&'a str),
    /// See [`ColumnType::Date`].
    Date(Date),
    /// See [`ColumnType::Time`].
    Time(Time),
    /// See [`ColumnType::Timestamp`].
    Timestamp(Timestamp),
    /// See [`ColumnType::TimestampTz`].
    TimestampTz(TimestampTz),
}

impl ValueRef<'_> {
    /// True for SQL `NULL`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// An owned copy.
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(v),
            Self::I16(v) => Value::I16(v),
            Self::I32(v) => Value::I32(v),
            Self::I64(v) => Value::I64(v),
            Self::U64(v) => Value::U64(v),
            Self::F32(v) => Value::F32(v),
            Self::F64(v) => Value::F64(v),
            Self::Decimal(v) => Value::Decimal(Decimal::of(v)),
            Self::Text(v) => Value::Text(v.to_owned()),
            Self::Bytes(v) => Value::Bytes(v.to_owned()),
            Self::Uuid(v) => Value::Uuid(v),
            Self::Json(v) => Value::Json(Json::of(v)),
            Self::Date(v) => Value::Date(v),
            Self::Time(v) => Value::Time(v),
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::TimestampTz(v) => Value::TimestampTz(v),
        }
    }

    /// Bytes of the variable part: text, bytes, JSON or decimal digits; 0 for every other value.
    pub fn variable_len(&self) -> usize {
        macro_rules! lengths {
            (() $($variant:ident $name:literal $kind:tt;)*) => {
                match self {
                    Self::Null => 0,
                    $(Self::$variant(_v) => variable_len!($kind _v),)*
                }
            };
        }
        for_each_column_type!(lengths!())
    }
}

/// Values that a database may treat as one key have equal hashes, so that rows with one key are in one lane: floats
/// hash by their bits, with `-0.0` as `0.0` and one `NaN`, and decimals by their number, so that `1.5` is `1.50`.
impl Hash for ValueRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Null => state.write_u8(0),
            Self::Bool(v) => v.hash(state),
            // Integers hash by number, whatever their width.
            Self::I16(v) => i64::from(*v).hash(state),
            Self::I32(v) => i64::from(*v).hash(state),
            Self::I64(v) => v.hash(state),
            Self::U64(v) => v.hash(state),
            Self::F32(v) => one_of_equals(f64::from(*v)).to_bits().hash(state),
            Self::F64(v) => one_of_equals(*v).to_bits().hash(state),
            Self::Decimal(v) => Number::of(v).hash(state),
            Self::Text(v) | Self::Json(v) => v.hash(state),
            Self::Bytes(v) => v.hash(state),
            Self::Uuid(v) => v.hash(state),
            Self::Date(v) => v.hash(state),
            Self::Time(v) => v.hash(state),
            Self::Timestamp(v) => v.hash(state),
            Self::TimestampTz(v) => v.hash(state),
        }
    }
}

/// The same float for all floats that a database may treat as equal: zero has two signs, `NaN` many forms.
pub(crate) fn one_of_equals(float: f64) -> f64 {
    if float.is_nan() { f64::NAN } else { float + 0.0 }
}

/// An owned value of one column of one row.
///
/// With `serde` it is tagged with the name of its type, so that it is read back as the same value: `{"i64":5}`, and
/// `"null"`. Text formats hold decimals, UUIDs and calendar values as text, bytes as `\\x` and hexadecimal digits, and
/// `NaN` and infinities as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Value {
    /// SQL `NULL`.
    Null,
    /// See [`ColumnType::Bool`].
    Bool(bool),
    /// See [`ColumnType::I16`].
    I16(i16),
    /// See [`ColumnType::I32`].
    I32(i32),
    /// See [`ColumnType::I64`].
    I64(i64),
    /// See [`ColumnType::U64`].
    U64(u64),
    /// See [`ColumnType::F32`].
    #[serde(with = "serde_forms::float")]
    F32(f32),
    /// See [`ColumnType::F64`].
    #[serde(with = "serde_forms::float")]
    F64(f64),
    /// See [`ColumnType::Decimal`].
    Decimal(Decimal),
    /// See [`ColumnType::Text`].
    Text(String),
    /// See [`ColumnType::Bytes`].
    #[serde(with = "serde_forms::bytes")]
    Bytes(Vec<u8>),
    /// The 16 bytes of a UUID in network order.
    #[serde(with = "serde_forms::uuid")]
    Uuid([u8; 16]),
    /// See [`ColumnType::Json`].
    Json(Json),
    /// See [`ColumnType::Date`].
    Date(Date),
    /// See [`ColumnType::Time`].
    Time(Time),
    /// See [`ColumnType::Timestamp`].
    Timestamp(Timestamp),
    /// See [`ColumnType::TimestampTz`].
    TimestampTz(TimestampTz),
}

impl Value {
    /// Borrows the value.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(v) => ValueRef::Bool(*v),
            Self::I16(v) => ValueRef::I16(*v),
            Self::I32(v) => ValueRef::I32(*v),
            Self::I64(v) => ValueRef::I64(*v),
            Self::U64(v) => ValueRef::U64(*v),
            Self::F32(v) => ValueRef::F32(*v),
            Self::F64(v) => ValueRef::F64(*v),
            Self::Decimal(v) => ValueRef::Decimal(v.as_str()),
            Self::Text(v) => ValueRef::Text(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Uuid(v) => ValueRef::Uuid(*v),
            Self::Json(v) => ValueRef::Json(v.as_str()),
            Self::Date(v) => ValueRef::Date(*v),
            Self::Time(v) => ValueRef::Time(*v),
            Self::Timestamp(v) => ValueRef::Timestamp(*v),
            Self::TimestampTz(v) => ValueRef::TimestampTz(*v),
        }
    }

    /// The value as `ty`, when that loses nothing: integers convert between widths when the number
    /// fits, `f32` widens to `f64`, and integers become decimals. `None` when the type does not fit.
    pub(crate) fn coerce(self, ty: ColumnType) -> Option<Result<Self, NumberOutOfRange>> {
        if self.as_ref().column_type().is_none_or(|own| own == ty) {
            return Some(Ok(self));
        }
        let number: i128 = match self {
            Self::I16(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::I64(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::F32(v) if ty == ColumnType::F64 => return Some(Ok(Self::F64(v.into()))),
            _ => return None,
        };
        let converted = match ty {
            ColumnType::I16 => i16::try_from(number).map(Self::I16).ok(),
            ColumnType::I32 => i32::try_from(number).map(Self::I32).ok(),
            ColumnType::I64 => i64::try_from(number).map(Self::I64).ok(),
            ColumnType::U64 => u64::try_from(number).map(Self::U64).ok(),
            ColumnType::Decimal => Some(Self::Decimal(number.into())),
            _ => return None,
        };
        Some(converted.ok_or(NumberOutOfRange))
    }
}

/// The number does not fit the declared column type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NumberOutOfRange;

macro_rules! value_from {
    ($($rust:ty => $variant:ident),* $(,)?) => {$(
        impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

value_from! {
    bool => Bool,
    i8 => I16,
    u8 => I16,
    i16 => I16,
    u16 => I32,
    i32 => I32,
    u32 => I64,
    i64 => I64,
    u64 => U64,
    f32 => F32,
    f64 => F64,
    Decimal => Decimal,
    &str => Text,
    String => Text,
    Box<str> => Text,
    &[u8] => Bytes,
    Vec<u8> => Bytes,
    Json => Json,
    &serde_json::Value => Json,
    serde_json::Value => Json,
    Date => Date,
    Time => Time,
    Timestamp => Timestamp,
    TimestampTz => TimestampTz,
}

#[cfg(feature = "uuid")]
impl From<uuid::Uuid> for Value {
    fn from(id: uuid::Uuid) -> Self {
        Self::Uuid(id.into_bytes())
    }
}

#[cfg(feature = "bigdecimal")]
impl From<bigdecimal::BigDecimal> for Value {
    fn from(number: bigdecimal::BigDecimal) -> Self {
        Self::Decimal(number.into())
    }
}

#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Value {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<std::net::IpAddr> for Value {
    fn from(address: std::net::IpAddr) -> Self {
        Self::Text(address.to_string())
    }
}

#[cfg(feature = "ipnetwork")]
impl From<ipnetwork::IpNetwork> for Value {
    fn from(network: ipnetwork::IpNetwork) -> Self {
        Self::Text(network.to_string())
    }
}

#[cfg(feature = "rust_decimal")]
impl From<rust_decimal::Decimal> for Value {
    fn from(number: rust_decimal::Decimal) -> Self {
        Self::Decimal(number.into())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Text(text.into_owned())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text.as_ref().to_owned())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_convert_only_without_loss() {
        let check = |value: Value, ty, expected: Option<Option<Value>>| {
            assert_eq!(value.coerce(ty).map(Result::ok), expected, "to {ty}");
        };
        check(Value::I16(-5), ColumnType::I64, Some(Some(Value::I64(-5))));
        check(Value::I64(70_000), ColumnType::I16, Some(None));
        check(Value::I64(-1), ColumnType::U64, Some(None));
        check(Value::U64(u64::MAX), ColumnType::I64, Some(None));
        check(Value::F32(0.5), ColumnType::F64, Some(Some(Value::F64(0.5))));
        check(Value::F64(0.5), ColumnType::F32, None);
        check(Value::I64(1), ColumnType::F64, None);
        check(Value::Text("1".into()), ColumnType::I64, None);
        check(Value::Null, ColumnType::Uuid, Some(Some(Value::Null)));
    }
}
