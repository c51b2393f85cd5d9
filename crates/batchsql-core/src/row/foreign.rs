//! Owns the mapping of types of other crates, and of network addresses, to columns and to elements of lists.
//! Must not know rows, except for their writer.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[cfg(any(feature = "chrono", feature = "time", feature = "jiff"))]
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, ValueRef};
use crate::row::array::{ArrayElement, push_text};
use crate::row::encode::Encode;
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::writer::RowWriter;
#[cfg(any(feature = "chrono", feature = "time", feature = "jiff", feature = "bigdecimal"))]
use crate::row::writer::ValueRules;

/// Calendar types that convert to ours by `TryFrom`, which fails outside the years 1 to 9999.
#[cfg(any(feature = "chrono", feature = "time", feature = "jiff"))]
macro_rules! encode_calendar {
    ($($(for<$zone:ident: $bound:path>)? {$rust:ty} => $variant:ident $method:ident),* $(,)?) => {$(
        impl$(<$zone: $bound>)? Encode for $rust {
            const TYPE: ColumnType = ColumnType::$variant;

            fn hash_key(&self, hasher: &mut KeyHasher) {
                hasher.add($variant::try_from(self.clone()).map_or(ValueRef::Null, ValueRef::$variant));
            }

            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                match $variant::try_from(self.clone()) {
                    Ok(value) => writer.$method(value),
                    Err(_) => Err(writer.out_of_range("outside the years 1 to 9999")),
                }
            }
        }

        impl$(<$zone: $bound>)? ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                match $variant::try_from(self.clone()) {
                    Ok(value) => value.push_json(out),
                    // Only where no field is encoded, as in `Value::from`: the database decides what the text is.
                    Err(_) => push_text(out, &format!("{self:?}")),
                }
            }

            fn refused(&self, _: ValueRules) -> Option<&'static str> {
                $variant::try_from(self.clone()).err().map(|_| "a value outside the years 1 to 9999 in a list")
            }
        }
    )*};
}

#[cfg(feature = "chrono")]
encode_calendar! {
    {chrono::NaiveDate} => Date date,
    {chrono::NaiveTime} => Time time,
    {chrono::NaiveDateTime} => Timestamp timestamp,
    for<Tz: chrono::TimeZone> {chrono::DateTime<Tz>} => TimestampTz timestamptz,
}

#[cfg(feature = "time")]
encode_calendar! {
    {time::Date} => Date date,
    {time::Time} => Time time,
    {time::PrimitiveDateTime} => Timestamp timestamp,
    {time::OffsetDateTime} => TimestampTz timestamptz,
    {time::UtcDateTime} => TimestampTz timestamptz,
}

#[cfg(feature = "jiff")]
encode_calendar! {
    {jiff::civil::Date} => Date date,
    {jiff::civil::Time} => Time time,
    {jiff::civil::DateTime} => Timestamp timestamp,
    {jiff::Timestamp} => TimestampTz timestamptz,
    {jiff::ZonedDateTime} => TimestampTz timestamptz,
}

#[cfg(feature = "rust_decimal")]
impl Encode for rust_decimal::Decimal {
    const TYPE: ColumnType = ColumnType::Decimal;

    fn variable_len(&self) -> usize {
        crate::model::decimal::Decimal::from(*self).as_str().len()
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hasher.add(ValueRef::Decimal(crate::model::decimal::Decimal::from(*self).as_str()));
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.decimal(&crate::model::decimal::Decimal::from(*self))
    }
}

#[cfg(feature = "rust_decimal")]
impl ArrayElement for rust_decimal::Decimal {
    fn push_json(&self, out: &mut String) {
        crate::model::decimal::Decimal::from(*self).push_json(out);
    }
}

#[cfg(feature = "bigdecimal")]
mod big_decimal {
    use bigdecimal::BigDecimal;

    use super::{ArrayElement, ColumnType, Encode, KeyHasher, RowError, RowWriter, ValueRef, ValueRules, push_text};
    use crate::model::decimal::Decimal;

    /// Zeros that an exponent may add: more than a column of any database holds. The digits are written out, and an
    /// exponent of a billion would take a gigabyte.
    const MAX_ZEROS: u64 = 150_000;

    fn digits(number: &BigDecimal) -> Option<Decimal> {
        (number.fractional_digit_count().unsigned_abs() <= MAX_ZEROS).then(|| number.clone().into())
    }

    impl Encode for BigDecimal {
        const TYPE: ColumnType = ColumnType::Decimal;

        fn variable_len(&self) -> usize {
            digits(self).map_or(0, |digits| digits.as_str().len())
        }

        fn hash_key(&self, hasher: &mut KeyHasher) {
            hasher.add(digits(self).as_ref().map_or(ValueRef::Null, |digits| ValueRef::Decimal(digits.as_str())));
        }

        fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
            match digits(self) {
                Some(digits) => writer.decimal(&digits),
                None => Err(writer.out_of_range("with an exponent beyond 150,000")),
            }
        }
    }

    impl ArrayElement for BigDecimal {
        fn push_json(&self, out: &mut String) {
            match digits(self) {
                Some(digits) => digits.push_json(out),
                // Only where no field is encoded: the database decides what the text is.
                None => push_text(out, &self.to_scientific_notation()),
            }
        }

        fn refused(&self, _: ValueRules) -> Option<&'static str> {
            digits(self).is_none().then_some("a number with an exponent beyond 150,000 in a list")
        }
    }
}

#[cfg(feature = "bytes")]
macro_rules! encode_bytes {
    ($($rust:ty),*) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::Bytes;

            fn variable_len(&self) -> usize {
                self.len()
            }

            fn hash_key(&self, hasher: &mut KeyHasher) {
                hasher.add(ValueRef::Bytes(self));
            }

            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                writer.bytes(self)
            }
        }

        impl ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                push_text(out, &crate::model::hex::of_bytes(self));
            }
        }
    )*};
}

#[cfg(feature = "bytes")]
encode_bytes!(bytes::Bytes, bytes::BytesMut);

#[cfg(feature = "uuid")]
impl Encode for uuid::Uuid {
    const TYPE: ColumnType = ColumnType::Uuid;

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hasher.add(ValueRef::Uuid(self.into_bytes()));
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.uuid(self.into_bytes())
    }
}

/// Text without an allocation, for types whose longest text is known.
struct ShortText {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl ShortText {
    /// More than the longest address has: an IPv6 address with a scope and a port has 69 bytes.
    const MAX: usize = 80;

    fn of(value: &impl fmt::Display) -> Self {
        let mut text = Self { bytes: [0; Self::MAX], len: 0 };
        write!(text, "{value}").expect("an address has fewer bytes");
        text
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("whole texts were written")
    }
}

impl Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

macro_rules! encode_address {
    ($($rust:ty),*) => {$(
        impl Encode for $rust {
            const TYPE: ColumnType = ColumnType::Text;

            fn variable_len(&self) -> usize {
                ShortText::of(self).len
            }

            fn hash_key(&self, hasher: &mut KeyHasher) {
                hasher.add(ValueRef::Text(ShortText::of(self).as_str()));
            }

            fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
                writer.text(ShortText::of(self).as_str())
            }
        }

        impl ArrayElement for $rust {
            fn push_json(&self, out: &mut String) {
                push_text(out, ShortText::of(self).as_str());
            }
        }
    )*};
}

encode_address!(IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr);

#[cfg(feature = "ipnetwork")]
encode_address!(ipnetwork::IpNetwork, ipnetwork::Ipv4Network, ipnetwork::Ipv6Network);
