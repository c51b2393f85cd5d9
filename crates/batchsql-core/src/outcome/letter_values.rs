//! Owns how one value is written into a dead-letter line, and read from it again without loss.
//! Must not know rows or files.
//!
//! Numbers are read from their text and not by way of `serde_json::Value`, which would round them.

use std::fmt::Display;
use std::str::FromStr;

use crate::model::hex;
use crate::model::value::{ColumnType, Value, ValueRef};
use crate::model::value_text::value_of_text;

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
        ValueRef::Bytes(v) => quoted(&hex::of_bytes(v)),
        ValueRef::Uuid(v) => quoted(&hex::of_uuid(&v)),
        // A line break in a JSON document is only space between its parts: within text it is written as `\n`.
        ValueRef::Json(v) => v.replace(['\n', '\r'], " "),
        ValueRef::Date(v) => quoted(&v),
        ValueRef::Time(v) => quoted(&v),
        // With `T` and `Z`.
        ValueRef::Timestamp(v) => quoted(&format_args!("{v:#}")),
        ValueRef::TimestampTz(v) => quoted(&format_args!("{v:#}")),
    }
}

/// Text as a JSON string.
pub(crate) fn quoted(text: &impl Display) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}

/// The shortest text that reads as the same float.
fn number(float: &impl serde::Serialize) -> String {
    serde_json::to_string(float).expect("a finite float is a JSON number")
}

/// The value of a type from its JSON; `None` if it is no such value.
pub(crate) fn from_json(json: &str, ty: ColumnType) -> Option<Value> {
    if json == "null" {
        // A JSON document `null` and SQL `NULL` look alike. `NULL` is by far the more frequent.
        return Some(Value::Null);
    }
    match ty {
        // JSON of these: the text of a number, `true`, or a document.
        ColumnType::Bool => json.parse().ok().map(Value::Bool),
        ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 | ColumnType::Json => {
            value_of_text(ty, json)
        }
        ColumnType::F32 => parse_float(json).map(Value::F32),
        ColumnType::F64 => parse_float(json).map(Value::F64),
        // Text in quotes.
        ColumnType::Decimal
        | ColumnType::Text
        | ColumnType::Bytes
        | ColumnType::Uuid
        | ColumnType::Date
        | ColumnType::Time
        | ColumnType::Timestamp
        | ColumnType::TimestampTz => value_of_text(ty, &text(json)?),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
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
        check(ColumnType::Uuid, &["\"00\"", "1", "\"0011223-34455-6677-8899-aabbccddeeff\""]);
        check(ColumnType::Date, &["\"2026-02-30\"", "\"2026-1-1\"", "\"+2026-01-01\"", "\"-\""]);
        check(ColumnType::Time, &["\"10:0:0\"", "\"25:00:00.000000\"", "\"10:00:00.0000001\""]);
        check(ColumnType::TimestampTz, &["\"2026-01-01T00:00:00.000000\"", "\"2026-01-01\""]);
    }
}
