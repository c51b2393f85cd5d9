//! Owns the check whether a column stores a value unchanged: range, digits, length.
//! Must not know columns, rows or what happens to a rejected value.

use batchsql_core::ValueRef;
use batchsql_core::exhaustive::Value;
use batchsql_sql::{Digits, float_of};

use crate::calendar::Calendar;
use crate::digits::{has_long_fraction, has_smaller_fraction, tokens};
use crate::encode::{MAX_FRACTION, MAX_VALUE_BYTES, MAX_WHOLE, Unfit, has_nul, is_nested};
use crate::geometry;
use crate::intervals::is_interval_kept;
use crate::times::is_kept_whole;
use crate::value_limit::ValueLimit;
use crate::wire::Wire;

/// Whether a value is stored unchanged. `digits` is a reused buffer.
pub(crate) fn check(value: ValueRef<'_>, limit: ValueLimit, wire: Wire, digits: &mut String) -> Result<(), Unfit> {
    let mut integer = |number: i128| {
        use std::fmt::Write;
        match limit {
            ValueLimit::Integer { min, max } if number < min.into() || number > max.into() => Err(Unfit::OutOfRange),
            ValueLimit::Numeric { precision, scale } => {
                digits.clear();
                write!(digits, "{number}").expect("writing to a String cannot fail");
                numeric(digits, precision, scale)
            }
            _ => Ok(()),
        }
    };
    match value.exhaustive() {
        Value::I16(v) => integer(v.into()),
        Value::I32(v) => integer(v.into()),
        Value::I64(v) => integer(v.into()),
        Value::U64(v) => integer(v.into()),
        Value::Decimal(v) => match limit {
            ValueLimit::AnyNumeric => any_numeric(v),
            ValueLimit::Numeric { precision, scale } => any_numeric(v).and_then(|()| numeric(v, precision, scale)),
            limit => text(v, limit, wire),
        },
        Value::Text(v) if wire.is_calendar() => match Calendar::read_as_server(v, wire) {
            Some(Calendar::Micros(micros)) => fraction(micros, limit),
            Some(_) => Ok(()),
            None => Err(Unfit::NoCalendar),
        },
        Value::Text(v) | Value::Json(v) => text(v, limit, wire),
        Value::Bytes(v) => bounded(v.len()),
        Value::Time(v) => fraction(v.micros_since_midnight(), limit),
        Value::Timestamp(v) => fraction(v.micros_since_epoch(), limit),
        Value::TimestampTz(v) => fraction(v.micros_since_epoch(), limit),
        Value::Null | Value::Bool(_) | Value::F32(_) | Value::F64(_) | Value::Uuid(_) | Value::Date(_) => Ok(()),
    }
}

fn bounded(bytes: usize) -> Result<(), Unfit> {
    if bytes >= MAX_VALUE_BYTES { Err(Unfit::TooLarge) } else { Ok(()) }
}

fn text(text: &str, limit: ValueLimit, wire: Wire) -> Result<(), Unfit> {
    bounded(text.len())?;
    if wire.is_flat() && is_nested(text) {
        return Err(Unfit::Nested);
    }
    if matches!(wire, Wire::Jsonb | Wire::FlatJsonb | Wire::FlatJson) && has_nul(text) {
        return Err(Unfit::Nul);
    }
    match limit {
        // A character has at least one byte.
        ValueLimit::Characters { most } if text.len() > most => {
            let Some((end, _)) = text.char_indices().nth(most) else { return Ok(()) };
            let only_spaces = text[end..].bytes().all(|byte| byte == b' ');
            Err(if only_spaces { Unfit::SpacesCut } else { Unfit::TooLong })
        }
        ValueLimit::NumericElements { precision, scale } => tokens(text).try_for_each(|token| {
            // The server itself rejects text that is not a number.
            Digits::of(token).map_or(Ok(()), |digits| fits(&digits, precision, scale))
        }),
        ValueLimit::RealElements => {
            let mut memory = String::new();
            let is_kept = |token: &str| Digits::of(token).is_none() || float_of::<f32>(token, &mut memory).is_some();
            if tokens(text).all(is_kept) { Ok(()) } else { Err(Unfit::Rounded) }
        }
        ValueLimit::TextFraction | ValueLimit::Times(_) if has_long_fraction(text) => Err(Unfit::Rounded),
        ValueLimit::Times(keeps) if !is_kept_whole(text, keeps) => Err(Unfit::PartLeftOut),
        ValueLimit::Geometry(shape) => geometry::is_kept(text, shape),
        ValueLimit::Interval if !is_interval_kept(text, 6) => Err(Unfit::Rounded),
        _ => Ok(()),
    }
}

/// Whether `numeric` can hold this many digits.
fn any_numeric(text: &str) -> Result<(), Unfit> {
    if text.len() <= MAX_FRACTION {
        return Ok(());
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_held = whole.trim_start_matches('0').len() <= MAX_WHOLE && fraction.len() <= MAX_FRACTION;
    if is_held { Ok(()) } else { Err(Unfit::OutOfRange) }
}

fn numeric(text: &str, precision: i32, scale: i32) -> Result<(), Unfit> {
    Digits::of(text).map_or(Ok(()), |digits| fits(&digits, precision, scale))
}

/// Whether `numeric(precision, scale)` stores a number unchanged.
pub(crate) fn fits(digits: &Digits<'_>, precision: i32, scale: i32) -> Result<(), Unfit> {
    match digits.first_and_last() {
        Some((first, _)) if first > i64::from(precision) - i64::from(scale) => Err(Unfit::OutOfRange),
        Some((_, decimals)) if decimals > i64::from(scale) => Err(Unfit::Rounded),
        _ => Ok(()),
    }
}

fn fraction(micros: i64, limit: ValueLimit) -> Result<(), Unfit> {
    match limit {
        ValueLimit::Fraction { digits } if has_smaller_fraction(micros, digits) => Err(Unfit::Rounded),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::Keeps;

    fn of(value: ValueRef<'_>, limit: ValueLimit) -> Result<(), Unfit> {
        check(value, limit, Wire::Text, &mut String::new())
    }

    #[test]
    fn numbers_that_would_be_rounded_are_found() {
        let check = |text: &str, precision, scale, expected| {
            let limit = ValueLimit::Numeric { precision, scale };
            assert_eq!(of(ValueRef::Decimal(text), limit), expected, "{text} in numeric({precision},{scale})");
        };
        let (rounded, range) = (Err(Unfit::Rounded), Err(Unfit::OutOfRange));
        check("1.01", 6, 2, Ok(()));
        check("-0001.0100", 6, 2, Ok(()));
        check("1.005", 6, 2, rounded);
        check("9999.99", 6, 2, Ok(()));
        check("10000", 6, 2, range);
        check("0", 1, 0, Ok(()));
        check("-0.000", 1, 0, Ok(()));
        check("12345", 3, -2, rounded);
        check("12300", 3, -2, Ok(()));
        check("123400", 3, -2, range);
        check("0.0012", 2, 4, Ok(()));
        check("0.012", 2, 4, range);
        let integer = |number, precision, scale, expected| {
            let limit = ValueLimit::Numeric { precision, scale };
            assert_eq!(of(ValueRef::I64(number), limit), expected, "{number} in numeric({precision},{scale})");
        };
        integer(-12_345, 5, -2, rounded);
        integer(-12_300, 5, -2, Ok(()));
        integer(i64::MIN, 19, 0, Ok(()));
        integer(i64::MIN, 18, 0, range);
    }

    #[test]
    fn numbers_in_arrays_are_looked_at_one_by_one() {
        let check = |text: &str, expected| {
            let limit = ValueLimit::NumericElements { precision: 6, scale: 2 };
            assert_eq!(of(ValueRef::Json(text), limit), expected, "{text}");
        };
        check(r#"[1, "2.50", null, 1.5e1, 150e-1]"#, Ok(()));
        check("[1, 1.005]", Err(Unfit::Rounded));
        check(r#"["1.005"]"#, Err(Unfit::Rounded));
        check("[1e-3]", Err(Unfit::Rounded));
        check("[1e5]", Err(Unfit::OutOfRange));
        check("{{1.5},{NULL},{NaN}}", Ok(()));
        check("[0:1]={1,\"1.005\"}", Err(Unfit::Rounded));
    }

    #[test]
    fn texts_and_times_that_would_be_cut_are_found() {
        let chars = |text, expected| {
            assert_eq!(of(ValueRef::Text(text), ValueLimit::Characters { most: 3 }), expected, "{text:?}");
        };
        chars("äöü", Ok(()));
        chars("ab ", Ok(()));
        chars("äö  ", Err(Unfit::SpacesCut));
        chars("abcd", Err(Unfit::TooLong));
        chars("abc d", Err(Unfit::TooLong));
        let text = |text, expected| assert_eq!(of(ValueRef::Text(text), ValueLimit::TextFraction), expected, "{text}");
        text("12:00:00.1234560+02", Ok(()));
        text("12:00:00.1234567+02", Err(Unfit::Rounded));
        let local = |text, expected| {
            assert_eq!(of(ValueRef::Text(text), ValueLimit::Times(Keeps::DateAndTime)), expected, "{text}")
        };
        local("{2026-01-31 12:00,\"2026-01-31T12:00:00.5\",infinity,0044-03-15 12:00 BC,12:00 PM}", Ok(()));
        local("{2026-01-31T12:00:00Z}", Err(Unfit::PartLeftOut));
        local("[2026-01-31 12:00+02,)", Err(Unfit::PartLeftOut));
        local("{\"2026-01-31 12:00:00 Europe/Berlin\"}", Err(Unfit::PartLeftOut));
        let date =
            |text, expected| assert_eq!(of(ValueRef::Text(text), ValueLimit::Times(Keeps::Date)), expected, "{text}");
        date("[2026-01-31,)", Ok(()));
        date("[2026-01-31 12:00,)", Err(Unfit::PartLeftOut));
        let of_time = |micros, digits| {
            let time = ValueRef::Time(batchsql_core::Time::from_micros_since_midnight(micros).unwrap());
            of(time, ValueLimit::Fraction { digits })
        };
        assert_eq!(of_time(1_500_000, 1), Ok(()));
        assert_eq!(of_time(1_500_000, 0), Err(Unfit::Rounded));
        assert_eq!(of_time(86_399_999_999, 5), Err(Unfit::Rounded));
        assert_eq!(of_time(86_399_999_999, 6), Ok(()));
    }
}
