//! Owns the mapping of Rust types to columns.
//! Must not know rows, except for their writer.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, Decimal, Json, ValueRef};
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::writer::RowWriter;

/// A Rust type that is one column of a derived row. `Option` of it is a nullable column.
///
/// | Rust type | column type |
/// |---|---|
/// | `bool` | bool |
/// | `i8`, `u8`, `i16` | i16 |
/// | `u16`, `i32` | i32 |
/// | `u32`, `i64` | i64 |
/// | `u64` | u64 |
/// | `f32`, `f64` | f32, f64 |
/// | `str`, `String`, `Box<str>`, `Arc<str>`, `Cow<str>` | text |
/// | `[u8]`, `Vec<u8>`, `Box<[u8]>`, `bytes::Bytes` and `BytesMut` (feature) | bytes |
/// | [`Decimal`], `rust_decimal::Decimal` and `bigdecimal::BigDecimal` (features) | decimal |
/// | [`Json`], `serde_json::Value`, [`AsJson`](crate::AsJson) of any `serde` value | json |
/// | `Vec<T>`, `[T]`, `[T; N]`, `Box<[T]>` of all types but `u8` and json, and `Option` of them | json, see [`ArrayElement`](crate::ArrayElement) |
/// | `uuid::Uuid` (feature) | uuid |
/// | [`Date`], [`Time`], [`Timestamp`], [`TimestampTz`] | date, time, timestamp, timestamptz |
/// | `chrono::NaiveDate`, `NaiveTime`, `NaiveDateTime`, `DateTime` of any zone (feature) | the same |
/// | `time::Date`, `Time`, `PrimitiveDateTime`, `OffsetDateTime` or `UtcDateTime` (feature) | the same |
/// | `jiff::civil::Date`, `Time`, `DateTime`, `jiff::Timestamp` or `ZonedDateTime` (feature) | the same |
/// | [`IpAddr`](std::net::IpAddr), `Ipv4Addr`, `Ipv6Addr`, `SocketAddr` | text |
/// | `ipnetwork::IpNetwork`, `Ipv4Network`, `Ipv6Network` (feature) | text |
///
/// Digits below a microsecond are cut off. The text of an address is what PostgreSQL's `inet` and MariaDB's `INET4` and
/// `INET6` read; a network with a prefix is for `cidr` or `inet` of PostgreSQL.
///
/// References to these work too. `#[derive(Encode)]` implements it for a struct around one of these types (`struct
/// UserId(i64)`), and for an enum without fields, as text. To implement it by hand, call the [`RowWriter`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column of a row",
    note = "the docs of `Encode` list the supported types; convert the field with #[row(with = function)] or #[row(json)], skip it with #[row(skip)], or add #[derive(Encode)] to its type"
)]
pub trait Encode {
    /// The column type it maps to.
    const TYPE: ColumnType;
    /// Whether it can be `NULL`.
    const NULLABLE: bool = false;

    /// Bytes of the variable part, see [`Row::variable_len`](crate::Row::variable_len).
    fn variable_len(&self) -> usize {
        0
    }

    /// Feeds the value to a key hash.
    fn hash_key(&self, hasher: &mut KeyHasher);

    /// Writes the value.
    ///
    /// # Errors
    /// What the writer reports.
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError>;
}

macro_rules! encode_fixed {
    ($($rust:ty => $variant:ident $method:ident),* $(,)?) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            fn hash_key(&self, hasher: &mut KeyHasher) {
                hasher.add(ValueRef::$variant((*self).into()));
            }

            #[inline]
            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                writer.$method((*self).into())
            }
        }
    )*};
}

encode_fixed! {
    bool => Bool bool,
    i8 => I16 i16,
    u8 => I16 i16,
    i16 => I16 i16,
    u16 => I32 i32,
    i32 => I32 i32,
    u32 => I64 i64,
    i64 => I64 i64,
    u64 => U64 u64,
    f32 => F32 f32,
    f64 => F64 f64,
    Date => Date date,
    Time => Time time,
    Timestamp => Timestamp timestamp,
    TimestampTz => TimestampTz timestamptz,
}

macro_rules! encode_variable {
    ($($rust:ty => $variant:ident $method:ident |$value:ident| $borrow:expr),* $(,)?) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            #[inline]
            fn variable_len(&self) -> usize {
                let $value = self;
                $borrow.len()
            }

            fn hash_key(&self, hasher: &mut KeyHasher) {
                let $value = self;
                hasher.add(ValueRef::$variant($borrow));
            }

            #[inline]
            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                let $value = self;
                writer.$method($borrow)
            }
        }
    )*};
}

encode_variable! {
    str => Text text |v| v,
    String => Text text |v| v.as_str(),
    Box<str> => Text text |v| &**v,
    Arc<str> => Text text |v| &**v,
    Cow<'_, str> => Text text |v| &**v,
    [u8] => Bytes bytes |v| v,
    Vec<u8> => Bytes bytes |v| v.as_slice(),
    Box<[u8]> => Bytes bytes |v| &**v,
    Decimal => Decimal raw_decimal |v| v.as_str(),
    Json => Json raw_json |v| v.as_str(),
}

impl<T: Encode + ?Sized> Encode for &T {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = T::NULLABLE;

    #[inline]
    fn variable_len(&self) -> usize {
        (**self).variable_len()
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        (**self).hash_key(hasher);
    }

    #[inline]
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        (**self).encode(writer)
    }
}

impl<T: Encode> Encode for Option<T> {
    const TYPE: ColumnType = T::TYPE;
    const NULLABLE: bool = true;

    #[inline]
    fn variable_len(&self) -> usize {
        self.as_ref().map_or(0, Encode::variable_len)
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        match self {
            Some(value) => value.hash_key(hasher),
            None => hasher.add(ValueRef::Null),
        }
    }

    #[inline]
    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        match self {
            Some(value) => value.encode(writer),
            None => writer.null(),
        }
    }
}
