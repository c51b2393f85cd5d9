//! Owns which number becomes a value of which column type, so that nothing of it is lost.
//! Must not know rows or `serde`.

use std::borrow::Cow;

use crate::model::value::{ColumnType, Decimal, Value};

/// Why a number is not a value of the column type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoNumber {
    /// The column type has no numbers.
    Type,
    /// The column type has no such number.
    Range,
}

/// A decimal number of at most so many digits is the only one with its `f64`: nothing was lost when the text became a
/// float.
const EXACT_DIGITS: usize = 15;

/// The value of an integer.
pub(crate) fn from_integer(number: i128, ty: ColumnType) -> Result<Value, NoNumber> {
    let value = match ty {
        ColumnType::I16 => number.try_into().map(Value::I16).ok(),
        ColumnType::I32 => number.try_into().map(Value::I32).ok(),
        ColumnType::I64 => number.try_into().map(Value::I64).ok(),
        ColumnType::U64 => number.try_into().map(Value::U64).ok(),
        ColumnType::Decimal => Some(Value::Decimal(number.into())),
        ColumnType::F32 => is_small(number).then_some(number as f32).filter(|v| *v as i128 == number).map(Value::F32),
        ColumnType::F64 => is_small(number).then_some(number as f64).filter(|v| *v as i128 == number).map(Value::F64),
        _ => return Err(NoNumber::Type),
    };
    value.ok_or(NoNumber::Range)
}

/// Conversions from floats saturate beyond `i128`.
fn is_small(number: i128) -> bool {
    number.unsigned_abs() < 1 << 100
}

/// The value of a float.
pub(crate) fn from_float(number: f64, ty: ColumnType) -> Result<Value, NoNumber> {
    let value = match ty {
        ColumnType::F64 => Some(Value::F64(number)),
        // The same number, or the same text: `0.1` of a JSON document is `0.1_f64`.
        ColumnType::F32 => {
            let narrow = number as f32;
            let is_exact = number.is_nan() || f64::from(narrow) == number || narrow.to_string() == number.to_string();
            is_exact.then_some(Value::F32(narrow))
        }
        ColumnType::Decimal => decimal(number).map(Value::Decimal),
        ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 => {
            // From 2^53 on several integers are one float: the text may have had another one.
            let is_whole = number.fract() == 0.0 && number.abs() < (1_u64 << f64::MANTISSA_DIGITS) as f64;
            return if is_whole { from_integer(number as i128, ty) } else { Err(NoNumber::Range) };
        }
        _ => return Err(NoNumber::Type),
    };
    value.ok_or(NoNumber::Range)
}

fn decimal(number: f64) -> Option<Decimal> {
    if !number.is_finite() {
        return None;
    }
    let scientific = format!("{number:e}");
    let digits = scientific.split('e').next()?.bytes().filter(u8::is_ascii_digit).count();
    if digits <= EXACT_DIGITS { number.to_string().parse().ok() } else { None }
}

/// The value of a number that is given as text, as JSON numbers of any precision are. Integers and decimals are exact:
/// their digits are never read as a float.
pub(crate) fn from_digits(digits: &str, ty: ColumnType) -> Result<Value, NoNumber> {
    match ty {
        ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 => {
            let whole = without_exponent(digits).ok_or(NoNumber::Range)?;
            let (whole, fraction) = whole.split_once('.').unwrap_or((&whole, ""));
            if fraction.bytes().any(|digit| digit != b'0') {
                return Err(NoNumber::Range);
            }
            whole.parse().map_err(|_| NoNumber::Range).and_then(|number| from_integer(number, ty))
        }
        ColumnType::Decimal => {
            let number = without_exponent(digits).and_then(|digits| digits.parse().ok());
            number.map(Value::Decimal).ok_or(NoNumber::Range)
        }
        ColumnType::F32 | ColumnType::F64 => match digits.parse::<i128>() {
            Ok(number) if number != 0 => from_integer(number, ty),
            // Also `-0`, which is no integer.
            _ => match digits.parse::<f64>() {
                Ok(number) if number.is_finite() && (number != 0.0 || is_zero(digits)) => from_float(number, ty),
                _ => Err(NoNumber::Range),
            },
        },
        _ => Err(NoNumber::Type),
    }
}

/// A number whose exponent is too small for an `f64` is read as 0 too.
fn is_zero(number: &str) -> bool {
    let digits = number.split(['e', 'E']).next().unwrap_or(number);
    digits.bytes().all(|byte| matches!(byte, b'0' | b'.' | b'-' | b'+'))
}

/// The largest exponent that is written out, so that a short text does not become a long one. An `f64` needs 308.
const MAX_EXPONENT: usize = 400;

/// The digits of a JSON number without its exponent: `-1.5e3` is `-1500`.
fn without_exponent(number: &str) -> Option<Cow<'_, str>> {
    let Some((digits, exponent)) = number.split_once(['e', 'E']) else { return Some(Cow::Borrowed(number)) };
    let exponent: isize = exponent.parse().ok()?;
    let size = Some(exponent.unsigned_abs()).filter(|size| *size <= MAX_EXPONENT)?;
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = "0".repeat(size);
    let (all, point) = if exponent < 0 {
        (format!("{zeros}{whole}{fraction}"), whole.len())
    } else {
        (format!("{whole}{fraction}{zeros}"), whole.len() + size)
    };
    let (whole, fraction) = all.split_at_checked(point)?;
    // The zeros that were only room for the point, and those that JSON does not allow.
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let fraction = if exponent < 0 { fraction } else { fraction.trim_end_matches('0') };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(Cow::Owned(format!("{sign}{whole}{point}{fraction}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal_value(digits: &str) -> Result<Value, NoNumber> {
        Ok(Value::Decimal(digits.parse().unwrap()))
    }

    #[test]
    fn integers_fit_exactly_or_not_at_all() {
        let check = |number: i128, ty, expected| assert_eq!(from_integer(number, ty), expected, "{number} as {ty}");
        check(32_767, ColumnType::I16, Ok(Value::I16(32_767)));
        check(32_768, ColumnType::I16, Err(NoNumber::Range));
        check(-1, ColumnType::U64, Err(NoNumber::Range));
        check(u64::MAX.into(), ColumnType::U64, Ok(Value::U64(u64::MAX)));
        check(i128::MAX, ColumnType::Decimal, decimal_value(&i128::MAX.to_string()));
        check(1 << 53, ColumnType::F64, Ok(Value::F64(9_007_199_254_740_992.0)));
        check((1 << 53) + 1, ColumnType::F64, Err(NoNumber::Range));
        check((1 << 24) + 1, ColumnType::F32, Err(NoNumber::Range));
        check(i128::MAX, ColumnType::F64, Err(NoNumber::Range));
        check(1, ColumnType::Text, Err(NoNumber::Type));
        check(1, ColumnType::Bool, Err(NoNumber::Type));
    }

    #[test]
    fn floats_fit_exactly_or_not_at_all() {
        let check = |number: f64, ty, expected| assert_eq!(from_float(number, ty), expected, "{number} as {ty}");
        check(0.1, ColumnType::F32, Ok(Value::F32(0.1)));
        check(f64::from(0.1_f32), ColumnType::F32, Ok(Value::F32(0.1)));
        check(0.123_456_789, ColumnType::F32, Err(NoNumber::Range));
        check(1e300, ColumnType::F32, Err(NoNumber::Range));
        check(3.0, ColumnType::I16, Ok(Value::I16(3)));
        check(-0.0, ColumnType::I16, Ok(Value::I16(0)));
        check(3.5, ColumnType::I64, Err(NoNumber::Range));
        check(1e300, ColumnType::I64, Err(NoNumber::Range));
        check(f64::NAN, ColumnType::I64, Err(NoNumber::Range));
        // 2^53 is also the float of 2^53 + 1.
        check(9_007_199_254_740_991.0, ColumnType::I64, Ok(Value::I64((1 << 53) - 1)));
        check(-9_007_199_254_740_991.0, ColumnType::I64, Ok(Value::I64(1 - (1 << 53))));
        check(9_007_199_254_740_993.0, ColumnType::I64, Err(NoNumber::Range));
        check(-9_007_199_254_740_992.0, ColumnType::I64, Err(NoNumber::Range));
        check(19.9, ColumnType::Decimal, decimal_value("19.9"));
        check(-0.000_001, ColumnType::Decimal, decimal_value("-0.000001"));
        check(123_456_789_012_345.0, ColumnType::Decimal, decimal_value("123456789012345"));
        // More digits than a float is known to hold: the text may have had others.
        check(0.1 + 0.2, ColumnType::Decimal, Err(NoNumber::Range));
        check(f64::INFINITY, ColumnType::Decimal, Err(NoNumber::Range));
        check(1.5, ColumnType::Text, Err(NoNumber::Type));
    }

    #[test]
    fn digits_keep_their_precision() {
        let check = |digits, ty, expected| assert_eq!(from_digits(digits, ty), expected, "{digits} as {ty}");
        check("12345678901234567890.123456789", ColumnType::Decimal, decimal_value("12345678901234567890.123456789"));
        check("7", ColumnType::I16, Ok(Value::I16(7)));
        check("1.5e3", ColumnType::I16, Ok(Value::I16(1500)));
        check("0.5", ColumnType::F64, Ok(Value::F64(0.5)));
        check("1e-400", ColumnType::F64, Err(NoNumber::Range));
        check("-0.01e-999", ColumnType::F32, Err(NoNumber::Range));
        check("0.00e-999", ColumnType::F64, Ok(Value::F64(0.0)));
        check("5e-324", ColumnType::F64, Ok(Value::F64(5e-324)));
        check("0.5", ColumnType::I64, Err(NoNumber::Range));
        check("0.99999999999999999999", ColumnType::I64, Err(NoNumber::Range));
        check("1.00000000000000000001", ColumnType::I64, Err(NoNumber::Range));
        check("9007199254740993.0", ColumnType::I64, Ok(Value::I64((1 << 53) + 1)));
        check("9007199254740993", ColumnType::F64, Err(NoNumber::Range));
        check("9223372036854775807e0", ColumnType::I64, Ok(Value::I64(i64::MAX)));
        check("9223372036854775808", ColumnType::I64, Err(NoNumber::Range));
        check("-922337203685477580.8E+1", ColumnType::I64, Ok(Value::I64(i64::MIN)));
        check("120e-1", ColumnType::I16, Ok(Value::I16(12)));
        check("12e-1", ColumnType::I16, Err(NoNumber::Range));
        check("-0.0", ColumnType::I16, Ok(Value::I16(0)));
        check("0e0", ColumnType::U64, Ok(Value::U64(0)));
        check("1e999999999999999999999", ColumnType::I64, Err(NoNumber::Range));
        check("1e401", ColumnType::Decimal, Err(NoNumber::Range));
        check("1e20", ColumnType::Decimal, decimal_value("100000000000000000000"));
        check("-1.50e-3", ColumnType::Decimal, decimal_value("-0.00150"));
        check("12345.678e2", ColumnType::Decimal, decimal_value("1234567.8"));
        check("1234567890.12345678901e1", ColumnType::Decimal, decimal_value("12345678901.2345678901"));
        check("1", ColumnType::Text, Err(NoNumber::Type));
        check("1e5", ColumnType::Bool, Err(NoNumber::Type));
    }
}
