//! Owns the binary form of values for each type of the server.
//! Must not know statements or the destination of the bytes.
//!
//! The forms are those of the `*_recv` functions of PostgreSQL, which are the same in COPY BINARY, in the elements of
//! binary arrays and in bound values: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use std::fmt;

use batchsql_core::ValueRef;
use batchsql_core::exhaustive::Value;

use crate::calendar::{Calendar, EPOCH_DAYS, EPOCH_MICROS};
use crate::wire::Wire;

/// The maximum number of digits of `numeric` before and after the point.
pub(crate) const MAX_WHOLE: usize = 131_072;
pub(crate) const MAX_FRACTION: usize = 16_383;

/// The maximum size of one value, and of the values of one statement, in bytes: the protocol's messages and the
/// server's allocations are limited to 1 GiB.
pub(crate) const MAX_VALUE_BYTES: usize = (1 << 30) - (1 << 16);

/// Why a value cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The column's type cannot hold the number.
    OutOfRange,
    /// It is larger than the server accepts.
    TooLarge,
    /// An element is an array or an object, but the elements of the column are not JSON.
    Nested,
    /// The column keeps fewer digits.
    Rounded,
    /// The column cuts off trailing spaces.
    SpacesCut,
    /// The text has more characters than the column holds.
    TooLong,
    /// JSON has a NUL character in a text, which `jsonb` cannot hold.
    Nul,
    /// The column drops a zone or a time of day.
    PartLeftOut,
    /// The text is no date or timestamp.
    NoCalendar,
    /// The text is none of the column's type.
    Malformed,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "out of range",
            Self::TooLarge => "too large",
            Self::Nested => "nested",
            Self::Rounded => "rounded",
            Self::SpacesCut => "spaces cut off",
            Self::TooLong => "too long",
            Self::Nul => "nul",
            Self::PartLeftOut => "part left out",
            Self::NoCalendar => "no calendar value",
            Self::Malformed => "malformed",
        })
    }
}

impl std::error::Error for Unfit {}

/// Writes a value with a length prefix, as COPY and arrays require; -1 for `NULL`.
#[inline]
pub(crate) fn write_field(out: &mut Vec<u8>, value: ValueRef<'_>, wire: Wire) -> Result<(), Unfit> {
    if value.is_null() {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return Ok(());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write_value(out, value, wire)?;
    let len = out.len() - start - 4;
    if len > MAX_VALUE_BYTES {
        return Err(Unfit::TooLarge);
    }
    let len = i32::try_from(len).expect("MAX_VALUE_BYTES fits i32");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// Writes a value that is not `NULL`, without its length.
#[inline]
pub(crate) fn write_value(out: &mut Vec<u8>, value: ValueRef<'_>, wire: Wire) -> Result<(), Unfit> {
    match value.exhaustive() {
        Value::Bool(v) => out.push(v.into()),
        Value::I16(v) => write_integer(out, v.into(), wire)?,
        Value::I32(v) => write_integer(out, v.into(), wire)?,
        Value::I64(v) => write_integer(out, v, wire)?,
        Value::U64(v) => match i64::try_from(v) {
            Ok(v) => write_integer(out, v, wire)?,
            Err(_) if wire == Wire::Numeric => write_numeric(out, &v.to_string())?,
            Err(_) => return Err(Unfit::OutOfRange),
        },
        Value::F32(v) if wire == Wire::Float4 => out.extend_from_slice(&v.to_be_bytes()),
        Value::F32(v) => out.extend_from_slice(&f64::from(v).to_be_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_be_bytes()),
        Value::Decimal(v) if wire == Wire::Numeric => write_numeric(out, v)?,
        Value::Text(v) if wire.is_calendar() => {
            Calendar::read_as_server(v, wire).ok_or(Unfit::NoCalendar)?.write(wire, out)
        }
        Value::Text(v) | Value::Json(v) | Value::Decimal(v) => {
            if wire.is_flat() && is_nested(v) {
                return Err(Unfit::Nested);
            }
            if matches!(wire, Wire::Jsonb | Wire::FlatJsonb) {
                // The version of the format.
                out.push(1);
            }
            out.extend_from_slice(v.as_bytes());
        }
        Value::Bytes(v) => out.extend_from_slice(v),
        Value::Uuid(v) => out.extend_from_slice(&v),
        Value::Date(v) => out.extend_from_slice(&(v.days_since_epoch() - EPOCH_DAYS).to_be_bytes()),
        Value::Time(v) => out.extend_from_slice(&v.micros_since_midnight().to_be_bytes()),
        Value::Timestamp(v) => out.extend_from_slice(&(v.micros_since_epoch() - EPOCH_MICROS).to_be_bytes()),
        Value::TimestampTz(v) => out.extend_from_slice(&(v.micros_since_epoch() - EPOCH_MICROS).to_be_bytes()),
        Value::Null => unreachable!("NULL is written before"),
    }
    Ok(())
}

/// Whether an array of JSON has an array or an object in it. The text is known to be JSON.
pub(crate) fn is_nested(json: &str) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            _ => {}
        }
    }
    depth > 1
}

/// Whether JSON has the escape of a NUL character. An escaped backslash does not start an escape.
pub(crate) fn has_nul(json: &str) -> bool {
    let is_escape = |at: usize| json.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    json.match_indices("\\u0000").any(|(at, _)| is_escape(at))
}

#[inline]
fn write_integer(out: &mut Vec<u8>, number: i64, wire: Wire) -> Result<(), Unfit> {
    match wire {
        Wire::Int8 => out.extend_from_slice(&number.to_be_bytes()),
        Wire::Int4 => out.extend_from_slice(&i32::try_from(number).map_err(|_| Unfit::OutOfRange)?.to_be_bytes()),
        Wire::Int2 => out.extend_from_slice(&i16::try_from(number).map_err(|_| Unfit::OutOfRange)?.to_be_bytes()),
        Wire::Numeric => write_numeric(out, &number.to_string())?,
        // Only types with an exact representation are sent: i16 and i32, see `types::form`.
        Wire::Float8 => out.extend_from_slice(&(number as f64).to_be_bytes()),
        Wire::Float4 => out.extend_from_slice(&(number as f32).to_be_bytes()),
        _ => unreachable!("an integer has no such form, see `types::form`"),
    }
    Ok(())
}

/// Writes `[-]digits[.digits]` exactly: digits to the base 10,000, the weight of the first one, sign, and how many
/// decimal digits follow the point (`numeric_recv`).
pub(crate) fn write_numeric(out: &mut Vec<u8>, text: &str) -> Result<(), Unfit> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let whole = whole.trim_start_matches('0').as_bytes();
    let fraction = fraction.as_bytes();
    if whole.len() > MAX_WHOLE || fraction.len() > MAX_FRACTION {
        return Err(Unfit::OutOfRange);
    }
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    // The point is between groups of four: the first group of the whole part may be short, the last of the
    // fraction is padded with zeros.
    let (short, full) = whole.split_at(whole.len() % 4);
    let groups = [short].into_iter().filter(|group| !group.is_empty()).chain(full.chunks(4)).map(|group| (group, 1));
    let groups = groups.chain(fraction.chunks(4).map(|group| (group, 10_u16.pow(4 - group.len() as u32))));
    let mut weight = whole.len().div_ceil(4) as i32 - 1;
    let (mut digits, mut last) = (0_usize, 0);
    for (group, factor) in groups {
        let digit = group.iter().fold(0, |digit, byte| digit * 10 + u16::from(byte - b'0')) * factor;
        if digits == 0 && digit == 0 {
            weight -= 1;
            continue;
        }
        out.extend_from_slice(&digit.to_be_bytes());
        digits += 1;
        if digit != 0 {
            last = digits;
        }
    }
    // The server's storage form, so that a returned value is identical: no zeros at either end.
    out.truncate(start + 8 + 2 * last);
    let (weight, sign) = match last {
        0 => (0, 0),
        _ => (weight, if is_negative { 0x4000_u16 } else { 0 }),
    };
    let scale = fraction.len() as u16;
    for (index, part) in [last as u16, weight as u16, sign, scale].into_iter().enumerate() {
        out[start + 2 * index..start + 2 * index + 2].copy_from_slice(&part.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(text: &str) -> (Vec<u16>, i16, u16, u16) {
        let mut out = Vec::new();
        write_numeric(&mut out, text).unwrap();
        let words: Vec<u16> = out.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(words[0] as usize, words.len() - 4);
        (words[4..].to_vec(), words[1] as i16, words[2], words[3])
    }

    #[test]
    fn decimals_are_written_digit_by_digit() {
        assert_eq!(numeric("0"), (vec![], 0, 0, 0));
        assert_eq!(numeric("-0.00"), (vec![], 0, 0, 2));
        assert_eq!(numeric("1"), (vec![1], 0, 0, 0));
        assert_eq!(numeric("-12345.6"), (vec![1, 2345, 6000], 1, 0x4000, 1));
        assert_eq!(numeric("00010000"), (vec![1], 1, 0, 0));
        assert_eq!(numeric("0.00001"), (vec![1000], -2, 0, 5));
        assert_eq!(numeric("10000.00010000"), (vec![1, 0, 1], 1, 0, 8));
        assert_eq!(numeric("99999999.9999"), (vec![9999, 9999, 9999], 1, 0, 4));
    }

    #[test]
    fn numbers_beyond_the_type_are_refused() {
        fn check(value: ValueRef<'_>, wire: Wire, expected: Result<(), Unfit>) {
            assert_eq!(write_field(&mut Vec::new(), value, wire), expected, "{value:?} as {wire:?}");
        }
        let refused = Err(Unfit::OutOfRange);
        check(ValueRef::I64(i64::from(i32::MAX)), Wire::Int4, Ok(()));
        check(ValueRef::I64(i64::from(i32::MAX) + 1), Wire::Int4, refused);
        check(ValueRef::I32(-32_769), Wire::Int2, refused);
        check(ValueRef::U64(i64::MAX as u64), Wire::Int8, Ok(()));
        check(ValueRef::U64(i64::MAX as u64 + 1), Wire::Int8, refused);
        check(ValueRef::U64(u64::MAX), Wire::Numeric, Ok(()));
        let (whole, fraction) = ("1".repeat(131_073), format!("0.{}", "1".repeat(16_384)));
        check(ValueRef::Decimal(&whole), Wire::Numeric, refused);
        check(ValueRef::Decimal(&fraction), Wire::Numeric, refused);
    }

    #[test]
    fn an_array_in_an_array_is_found() {
        for (json, expected) in [
            (r#"[1, "a [{ \"[\\", null]"#, false),
            ("[]", false),
            ("[[]]", true),
            (r#"["\\", {}]"#, true),
            ("\"[[\"", false),
        ] {
            assert_eq!(is_nested(json), expected, "{json}");
        }
    }

    #[test]
    fn an_escaped_nul_is_found() {
        for (json, expected) in [
            (r#""a\u0000""#, true),
            (r#""a\\u0000""#, false),
            (r#""\\\u0000""#, true),
            (r#""\u00001""#, true),
            (r#""\u0001u0000""#, false),
        ] {
            assert_eq!(has_nul(json), expected, "{json}");
        }
    }

    #[test]
    fn fields_carry_their_length() {
        let mut out = Vec::new();
        write_field(&mut out, ValueRef::Text("ab"), Wire::Text).unwrap();
        write_field(&mut out, ValueRef::Null, Wire::Text).unwrap();
        write_field(&mut out, ValueRef::Json("1"), Wire::Jsonb).unwrap();
        assert_eq!(out, [0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255, 0, 0, 0, 2, 1, b'1']);
    }
}
