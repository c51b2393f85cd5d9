//! Owns how one value is written into a dead-letter line, and read from it again without loss.
//! Must not know rows or files.
//!
//! Numbers are read from their text and not by way of `serde_json::Value`, which would round them.

use std::fmt::{Display, Write};
use std::str::FromStr;

use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, Decimal, Value, ValueRef};

/// The JSON of a value, without a line break.
pub(crate) fn to_json(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Bool(v) => v.to_string(),
        ValueRef::I16(v) => v.to_string(),
        ValueRef::I32(v) => v.to_string(),
        ValueRef::I64(v) => v.to_string(),
        ValueRef::U64(v) => v.to_string(),
        ValueRef::F32(v) if v.is_finite() => number(&v),
        ValueRef::F64(v) if v.is_finite() => number(&v),
        // `NaN` and infinity have no JSON number.
        ValueRef::F32(v) => quoted(&v),
        ValueRef::F64(v) => quoted(&v),
        ValueRef::Decimal(v) | ValueRef::Text(v) => quoted(&v),
        ValueRef::Bytes(v) => quoted(&format_args!("\\x{}", hex(v))),
        ValueRef::Uuid(v) => {
            let digits = hex(&v);
            let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
            quoted(&groups.join("-"))
        }
        // A line break in a JSON document is only space between its parts: within text it is written as `\n`.
        ValueRef::Json(v) => v.replace(['\n', '\r'], " "),
        ValueRef::Date(v) => quoted(&v),
        ValueRef::Time(v) => quoted(&v),
        ValueRef::Timestamp(v) => quoted(&date_time(v.parts())),
        ValueRef::TimestampTz(v) => quoted(&rfc3339(v)),
    }
}

/// An instant as RFC 3339 in UTC, for example `2026-11-23T03:09:28.000000Z`.
pub(crate) fn rfc3339(instant: TimestampTz) -> String {
    format!("{}Z", date_time(instant.parts()))
}

/// Text as a JSON string.
pub(crate) fn quoted(text: &impl Display) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}

fn date_time((date, time): (Date, Time)) -> String {
    format!("{date}T{time}")
}

/// The shortest text that reads as the same float.
fn number(float: &impl serde::Serialize) -> String {
    serde_json::to_string(float).expect("a finite float is a JSON number")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The value of a type from its JSON; `None` if it is no such value.
pub(crate) fn from_json(json: &str, ty: ColumnType) -> Option<Value> {
    if json == "null" {
        // A JSON document `null` and SQL `NULL` look alike. `NULL` is by far the more frequent.
        return Some(Value::Null);
    }
    Some(match ty {
        ColumnType::Bool => Value::Bool(json.parse().ok()?),
        ColumnType::I16 => Value::I16(json.parse().ok()?),
        ColumnType::I32 => Value::I32(json.parse().ok()?),
        ColumnType::I64 => Value::I64(json.parse().ok()?),
        ColumnType::U64 => Value::U64(json.parse().ok()?),
        ColumnType::F32 => Value::F32(parse_float(json)?),
        ColumnType::F64 => Value::F64(parse_float(json)?),
        ColumnType::Decimal => Value::Decimal(text(json)?.parse::<Decimal>().ok()?),
        ColumnType::Text => Value::Text(text(json)?),
        ColumnType::Bytes => Value::Bytes(bytes(text(json)?.strip_prefix("\\x")?)?),
        ColumnType::Uuid => Value::Uuid(bytes(&text(json)?.replace('-', ""))?.try_into().ok()?),
        ColumnType::Json => Value::Json(json.parse().ok()?),
        ColumnType::Date => Value::Date(parse_date(&text(json)?)?),
        ColumnType::Time => Value::Time(parse_time(&text(json)?)?),
        ColumnType::Timestamp => {
            let (date, time) = parse_date_time(&text(json)?)?;
            Value::Timestamp(Timestamp::from_parts(date, time))
        }
        ColumnType::TimestampTz => Value::TimestampTz(parse_rfc3339(&text(json)?)?),
    })
}

/// An instant as it is written by [`rfc3339`].
pub(crate) fn parse_rfc3339(text: &str) -> Option<TimestampTz> {
    let (date, time) = parse_date_time(text.strip_suffix('Z')?)?;
    Some(TimestampTz::from_parts(date, time))
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A JSON number, or the name of a float that is none.
fn parse_float<F: FromStr>(json: &str) -> Option<F> {
    let named = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    match named {
        Some("NaN" | "inf" | "-inf") | None => named.unwrap_or(json).parse().ok(),
        Some(_) => None,
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    });
    pairs.collect()
}

fn parse_date_time(text: &str) -> Option<(Date, Time)> {
    let (date, time) = text.split_once('T')?;
    Some((parse_date(date)?, parse_time(time)?))
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    Date::from_ymd(year.try_into().ok()?, month, day)
}

/// `hours:minutes:seconds.microseconds`, with six digits of microseconds.
fn parse_time(text: &str) -> Option<Time> {
    let (whole, micros) = text.split_once('.')?;
    let mut parts = whole.splitn(3, ':');
    let (hour, minute, second) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    (micros.len() == 6).then_some(())?;
    Time::from_hms_micro(hour, minute, second, digits(micros)?)
}

/// A number of digits alone, without a sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::Json;

    #[test]
    fn every_value_comes_back_as_it_was() {
        let json = |text: &str| Value::Json(text.parse::<Json>().unwrap());
        let day = Date::from_ymd(2024, 2, 29).unwrap();
        let micro = Time::from_micros_since_midnight(1).unwrap();
        let values = [
            (ColumnType::Bool, vec![Value::Bool(true), Value::Bool(false)]),
            (ColumnType::I16, vec![Value::I16(i16::MIN), Value::I16(i16::MAX)]),
            (ColumnType::I32, vec![Value::I32(i32::MIN)]),
            (ColumnType::I64, vec![Value::I64(i64::MIN), Value::I64((1 << 53) + 1)]),
            (ColumnType::U64, vec![Value::U64(u64::MAX)]),
            (ColumnType::F32, [0.1, -0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY].map(Value::F32).to_vec()),
            (ColumnType::F64, [0.1, 5e-324, f64::MAX, 1e16, f64::NEG_INFINITY].map(Value::F64).to_vec()),
            (ColumnType::Decimal, vec![Value::Decimal("-0.10".parse().unwrap())]),
            (ColumnType::Text, ["", "a\n\"b\"\\", "null", "\u{2028}\0é"].map(|text| Value::Text(text.into())).to_vec()),
            (ColumnType::Bytes, vec![Value::Bytes(vec![]), Value::Bytes(vec![0, 255])]),
            (ColumnType::Uuid, vec![Value::Uuid([0xa1; 16])]),
            (ColumnType::Json, vec![json("{\"n\":1e400,\"a\":[18446744073709551617],\"a\":2}"), json("\"text\"")]),
            (ColumnType::Date, vec![Value::Date(Date::MIN), Value::Date(Date::MAX), Value::Date(day)]),
            (ColumnType::Time, vec![Value::Time(Time::MIN), Value::Time(Time::MAX), Value::Time(micro)]),
            (ColumnType::Timestamp, vec![Value::Timestamp(Timestamp::MIN), Value::Timestamp(Timestamp::MAX)]),
            (ColumnType::TimestampTz, vec![Value::TimestampTz(TimestampTz::MIN), Value::TimestampTz(TimestampTz::MAX)]),
        ];
        assert!(values.iter().map(|(ty, _)| *ty).eq(ColumnType::ALL));
        for (ty, values) in values {
            for value in values {
                let json = to_json(value.as_ref());
                assert_eq!(from_json(&json, ty), Some(value), "{ty}: {json}");
            }
            assert_eq!(from_json("null", ty), Some(Value::Null));
        }
        let nan = from_json(&to_json(ValueRef::F64(f64::NAN)), ColumnType::F64);
        assert!(matches!(nan, Some(Value::F64(v)) if v.is_nan()));
        assert_eq!(to_json(ValueRef::Json("{\n \"a\":\r\n\"\\n\"}")), "{  \"a\":  \"\\n\"}", "one line");
    }

    #[test]
    fn what_is_no_value_of_the_type_is_refused() {
        let check = |ty, texts: &[&str]| {
            for json in texts {
                assert_eq!(from_json(json, ty), None, "{ty}: {json}");
            }
        };
        check(ColumnType::I16, &["40000", "1.0", "\"1\"", "true"]);
        check(ColumnType::U64, &["-1"]);
        check(ColumnType::F64, &["\"1.0\"", "\"nan\"", "x"]);
        check(ColumnType::Text, &["1", "{}"]);
        check(ColumnType::Bytes, &["\"00\"", "\"\\\\x0\"", "\"\\\\x+1\"", "\"\\\\xé\""]);
        check(ColumnType::Uuid, &["\"00\"", "1"]);
        check(ColumnType::Date, &["\"2026-02-30\"", "\"2026-1\"", "\"+2026-01-01\"", "\"-\""]);
        check(ColumnType::Time, &["\"10:00:00\"", "\"25:00:00.000000\"", "\"10:00:00.1\""]);
        check(ColumnType::TimestampTz, &["\"2026-01-01T00:00:00.000000\"", "\"2026-01-01 00:00:00.000000Z\""]);
    }
}
