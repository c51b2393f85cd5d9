//! Owns the text forms of values: as arguments of commands, in keys, in JSON documents.
//! Must not know commands or rows.

use std::fmt::Display;
use std::io::Write;

use batchsql_core::ValueRef;
use batchsql_core::exhaustive::Value;

/// Appends the text form of a value; nothing for `NULL`, which callers check first.
#[inline]
pub(crate) fn write_text(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value.exhaustive() {
        Value::Bool(v) => out.push(if v { b'1' } else { b'0' }),
        Value::I16(v) => write_integer(out, v.into()),
        Value::I32(v) => write_integer(out, v.into()),
        Value::I64(v) => write_integer(out, v),
        Value::U64(v) => write_digits(out, v),
        Value::F32(v) => write_float(out, v, f64::from(v)),
        Value::F64(v) => write_float(out, v, v),
        Value::Decimal(v) | Value::Text(v) | Value::Json(v) => out.extend_from_slice(v.as_bytes()),
        Value::Bytes(v) => out.extend_from_slice(v),
        Value::Uuid(v) => write_uuid(out, v),
        Value::Date(v) => write_display(out, v),
        Value::Time(v) => write_display(out, v),
        Value::Timestamp(v) => write_display(out, v),
        Value::TimestampTz(v) => write_display(out, v),
        Value::Null => {}
    }
}

/// Appends a value as a part of a key: as its text, with `%` and `:` escaped. `-0.0` is `0`, because it is the
/// same key to the pipeline.
pub(crate) fn write_key_part(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value.exhaustive() {
        Value::Text(v) | Value::Json(v) => escape_key(out, v.as_bytes(), b":%"),
        Value::Bytes(v) => escape_key(out, v, b":%"),
        // `%` does not occur in the others, but `:` does in times.
        Value::Time(_) | Value::Timestamp(_) | Value::TimestampTz(_) => {
            let start = out.len();
            write_text(out, value);
            let text = out.split_off(start);
            escape_key(out, &text, b":%");
        }
        Value::Null
        | Value::Bool(_)
        | Value::I16(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Decimal(_)
        | Value::Uuid(_)
        | Value::Date(_) => write_key(out, value),
    }
}

/// Appends a value that is a whole key.
#[inline]
pub(crate) fn write_key(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::F32(v) => write_text(out, ValueRef::F32(v + 0.0)),
        ValueRef::F64(v) => write_text(out, ValueRef::F64(v + 0.0)),
        other => write_text(out, other),
    }
}

/// Appends bytes, those in `special` as `%` and two hexadecimal digits.
pub(crate) fn escape_key(out: &mut Vec<u8>, bytes: &[u8], special: &[u8]) {
    for byte in bytes {
        if special.contains(byte) {
            out.push(b'%');
            write_hex(out, *byte, b"0123456789ABCDEF");
        } else {
            out.push(*byte);
        }
    }
}

/// Appends a value as JSON. Floats are finite: others were rejected at admission.
pub(crate) fn write_json(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value.exhaustive() {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(v) => out.extend_from_slice(if v { b"true" } else { b"false" }),
        Value::I16(_) | Value::I32(_) | Value::I64(_) | Value::U64(_) | Value::F32(_) | Value::F64(_) => {
            write_text(out, value);
        }
        Value::Json(v) => out.extend_from_slice(v.as_bytes()),
        Value::Text(v) => write_json_string(out, v),
        Value::Bytes(v) => {
            out.push(b'"');
            v.iter().for_each(|byte| write_hex(out, *byte, b"0123456789abcdef"));
            out.push(b'"');
        }
        // Digits, hyphens, colons, spaces: nothing to escape.
        Value::Decimal(_)
        | Value::Uuid(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::TimestampTz(_) => {
            out.push(b'"');
            write_text(out, value);
            out.push(b'"');
        }
    }
}

/// Appends a JSON string.
pub(crate) fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                write_hex(out, byte, b"0123456789abcdef");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn write_hex(out: &mut Vec<u8>, byte: u8, digits: &[u8; 16]) {
    out.extend_from_slice(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
}

#[inline]
fn write_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_digits(out, number.unsigned_abs());
}

/// Several times faster than `write!`, and most rows have such numbers.
#[inline]
pub(crate) fn write_digits(out: &mut Vec<u8>, mut number: u64) {
    // The largest number has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends the shortest digits that identify the number, with an exponent instead of many zeros.
fn write_float(out: &mut Vec<u8>, number: impl Display + std::fmt::LowerExp, size: f64) {
    let size = size.abs();
    if size.is_nan() {
        out.extend_from_slice(b"nan");
    } else if size.is_infinite() || size == 0.0 || (1e-5..1e17).contains(&size) {
        write_display(out, number);
    } else {
        write!(out, "{number:e}").expect("a Vec takes everything");
    }
}

fn write_display(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("a Vec takes everything");
}

/// Appends `8-4-4-4-12` lower case hexadecimal digits.
fn write_uuid(out: &mut Vec<u8>, bytes: [u8; 16]) {
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write_hex(out, byte, b"0123456789abcdef");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{Date, Time, Timestamp, TimestampTz};

    fn text(value: ValueRef<'_>) -> String {
        let mut out = Vec::new();
        write_text(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_have_text_forms() {
        let check = |value, expected: &str| assert_eq!(text(value), expected);
        check(ValueRef::Bool(true), "1");
        check(ValueRef::I16(-7), "-7");
        check(ValueRef::I64(i64::MIN), "-9223372036854775808");
        check(ValueRef::I64(0), "0");
        check(ValueRef::U64(u64::MAX), "18446744073709551615");
        check(ValueRef::Decimal("007.10"), "007.10");
        check(ValueRef::Uuid([0xab; 16]), "abababab-abab-abab-abab-abababababab");
        let (date, time) = (Date::from_ymd(2026, 1, 31).unwrap(), Time::from_hms_micro(1, 2, 3, 4).unwrap());
        check(ValueRef::Date(date), "2026-01-31");
        check(ValueRef::Time(time), "01:02:03.000004");
        check(ValueRef::Timestamp(Timestamp::from_parts(date, time)), "2026-01-31 01:02:03.000004");
        check(ValueRef::TimestampTz(TimestampTz::from_parts(date, time)), "2026-01-31 01:02:03.000004+00:00");
    }

    #[test]
    fn floats_come_back_and_are_short() {
        for number in [0.0, -0.0, 1.0, 0.1, -2.5, 1e16, 1e17, 1e300, 5e-324, 1.0 / 3.0, f64::MAX, f64::MIN_POSITIVE] {
            let written = text(ValueRef::F64(number));
            assert_eq!(written.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{written}");
            assert!(written.len() <= 24, "{written}");
        }
        for number in [0.1_f32, f32::MAX, f32::MIN_POSITIVE, 16_777_216.0] {
            assert_eq!(text(ValueRef::F32(number)).parse::<f32>().unwrap(), number);
        }
        assert_eq!([1.0, 1e300].map(|v| text(ValueRef::F64(v))), ["1", "1e300"]);
        assert_eq!(
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|v| text(ValueRef::F64(v))),
            ["nan", "inf", "-inf"]
        );
    }

    #[test]
    fn parts_of_keys_are_escaped_and_zero_has_one_form() {
        let part = |value| {
            let mut out = Vec::new();
            write_key_part(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(part(ValueRef::Text("a:b%c")), "a%3Ab%25c");
        assert_eq!(part(ValueRef::Bytes(b"a:")), "a%3A");
        assert_eq!(part(ValueRef::Time(Time::MIN)), "00%3A00%3A00.000000");
        assert_eq!(part(ValueRef::F64(-0.0)), part(ValueRef::F64(0.0)));
    }

    #[test]
    fn json_is_what_serde_reads() {
        let all: String = (0..0x80_u8).map(char::from).chain("é\u{2028}😀".chars()).collect();
        let mut out = Vec::new();
        write_json_string(&mut out, &all);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), all);
        let check = |value, expected: &str| {
            let mut out = Vec::new();
            write_json(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(ValueRef::Null, "null");
        check(ValueRef::Bool(false), "false");
        check(ValueRef::F64(1e300), "1e300");
        check(ValueRef::Decimal("1.50"), "\"1.50\"");
        check(ValueRef::Bytes(&[0, 255]), "\"00ff\"");
        check(ValueRef::Json("{\"a\":1}"), "{\"a\":1}");
        check(ValueRef::Date(Date::MIN), "\"0001-01-01\"");
    }
}
