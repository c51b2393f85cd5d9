//! Owns a statement with the values of its rows in its text, for one round trip with any number of rows.
//! Must not know connections or transactions.
//!
//! The text means the same in every `sql_mode` that a session may have here (see `checks`), in utf8mb4: a text with a
//! backslash is written as the bytes of its UTF-8, a quote in a text is doubled, and no other character is special.

use batchsql_core::exhaustive::Values;
use batchsql_core::{ColumnView, Rows};

use crate::bind::{push_calendar, push_uuid, views};
use crate::plan::MySqlPlan;
use crate::types::{Form, bits};

/// The insert of all rows; `None` if it would be larger than a statement should be.
pub(crate) fn insert(plan: &MySqlPlan, rows: Rows<'_>, bytes: usize) -> Option<String> {
    let (head, tail) = plan.around();
    let limit = plan.max_bytes.saturating_sub(tail.len() + 1);
    let columns = views(rows, &plan.storage);
    // Numbers are longer as text, and each value has a comma.
    let mut sql = Vec::with_capacity((bytes * 2 + head.len() + tail.len()).min(plan.max_bytes));
    sql.extend_from_slice(head.as_bytes());
    for row in 0..rows.len() {
        for (place, column) in columns.iter().enumerate() {
            let before: &[u8] = match (place, row) {
                (0, 0) => b"(",
                (0, _) => b"),(",
                _ => b",",
            };
            sql.extend_from_slice(before);
            // Each byte takes two digits: a value that is too large is not written at all.
            if sql.len() + largest(&column.0, row) >= limit {
                return None;
            }
            push_expression(&mut sql, column, row);
        }
        if sql.len() >= limit {
            return None;
        }
    }
    sql.push(b')');
    sql.extend_from_slice(tail.as_bytes());
    Some(String::from_utf8(sql).expect("texts are UTF-8, and what is around them is ASCII"))
}

/// The maximum size of a value of variable size.
fn largest(view: &ColumnView<'_>, row: usize) -> usize {
    if view.is_null(row) {
        return 0;
    }
    match view.values().exhaustive() {
        Values::Text(v) | Values::Decimal(v) | Values::Json(v) => 2 * v.get(row).len(),
        Values::Bytes(v) => 2 * v.get(row).len(),
        _ => 0,
    }
}

fn push_expression(sql: &mut Vec<u8>, column: &(ColumnView<'_>, Form), row: usize) {
    let (view, form) = column;
    if view.is_null(row) {
        return sql.extend_from_slice(b"NULL");
    }
    match form {
        Form::Plain | Form::UuidText | Form::Bits => push_value(sql, view, row, *form),
        Form::Geometry | Form::GeometryOrText => {
            for part in form.expression().split_inclusive('?') {
                match part.strip_suffix('?') {
                    Some(before) => {
                        sql.extend_from_slice(before.as_bytes());
                        push_value(sql, view, row, *form);
                    }
                    None => sql.extend_from_slice(part.as_bytes()),
                }
            }
        }
    }
}

fn push_value(sql: &mut Vec<u8>, view: &ColumnView<'_>, row: usize, form: Form) {
    match view.values().exhaustive() {
        Values::Bool(v) => sql.push(if v[row] { b'1' } else { b'0' }),
        Values::I16(v) => push_signed(sql, v[row].into()),
        Values::I32(v) => push_signed(sql, v[row].into()),
        Values::I64(v) => push_signed(sql, v[row]),
        Values::U64(v) => push_number(sql, v[row]),
        // With an exponent, or it would be a decimal number. The shortest digits that identify the float.
        Values::F32(v) => push_float(sql, v[row].into()),
        Values::F64(v) => push_float(sql, v[row]),
        Values::Text(v) if form == Form::Bits => push_number(sql, bits(v.get(row))),
        Values::Text(v) | Values::Decimal(v) | Values::Json(v) => push_text(sql, v.get(row)),
        Values::Bytes(v) => push_bytes(sql, v.get(row)),
        Values::Uuid(v) if form == Form::UuidText => push_quoted(sql, |sql| push_uuid(sql, &v[row])),
        Values::Uuid(v) => push_bytes(sql, &v[row]),
        Values::Date(v) => push_quoted(sql, |sql| push_calendar(sql, Some(v[row]), None)),
        Values::Time(v) => push_quoted(sql, |sql| push_calendar(sql, None, Some(v[row]))),
        Values::Timestamp(v) => {
            let (date, time) = v[row].parts();
            push_quoted(sql, |sql| push_calendar(sql, Some(date), Some(time)));
        }
        // As with a bound value: the session is in UTC, or the column holds UTC.
        Values::TimestampTz(v) => {
            let (date, time) = v[row].parts();
            push_quoted(sql, |sql| push_calendar(sql, Some(date), Some(time)));
        }
    }
}

fn push_signed(sql: &mut Vec<u8>, number: i64) {
    if number < 0 {
        sql.push(b'-');
    }
    push_number(sql, number.unsigned_abs());
}

fn push_number(sql: &mut Vec<u8>, mut number: u64) {
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
    sql.extend_from_slice(&digits[start..]);
}

fn push_float(sql: &mut Vec<u8>, number: f64) {
    sql.extend_from_slice(format!("{number:e}").as_bytes());
}

fn push_quoted(sql: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    sql.push(b'\'');
    write(sql);
    sql.push(b'\'');
}

/// A text as a literal.
pub(crate) fn text(text: &str) -> String {
    let mut sql = Vec::new();
    push_text(&mut sql, text);
    String::from_utf8(sql).expect("a text is UTF-8, and what is around it is ASCII")
}

fn push_text(sql: &mut Vec<u8>, text: &str) {
    if text.contains('\\') {
        sql.extend_from_slice(b"_utf8mb4 ");
        return push_bytes(sql, text.as_bytes());
    }
    push_quoted(sql, |sql| {
        for (number, part) in text.split('\'').enumerate() {
            if number > 0 {
                sql.extend_from_slice(b"''");
            }
            sql.extend_from_slice(part.as_bytes());
        }
    });
}

fn push_bytes(sql: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    sql.push(b'X');
    push_quoted(sql, |sql| {
        for byte in bytes {
            sql.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut sql = Vec::new();
        push(&mut sql);
        String::from_utf8(sql).unwrap()
    }

    #[test]
    fn texts_end_where_they_should_in_every_mode() {
        let check = |text: &str, expected: &str| assert_eq!(literal(|sql| push_text(sql, text)), expected);
        check("", "''");
        check("a\"b`c;--\n\0日本", "'a\"b`c;--\n\0日本'");
        check("it's '", "'it''s '''");
        check("\\", "_utf8mb4 X'5c'");
        check("\\'", "_utf8mb4 X'5c27'");
    }

    #[test]
    fn numbers_are_the_numbers() {
        assert_eq!(literal(|sql| push_signed(sql, i64::MIN)), "-9223372036854775808");
        assert_eq!(literal(|sql| push_signed(sql, 0)), "0");
        assert_eq!(literal(|sql| push_number(sql, u64::MAX)), "18446744073709551615");
        assert_eq!(literal(|sql| push_float(sql, 1.0)), "1e0");
        for number in [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0 / 3.0, f64::from(0.1_f32)] {
            let text = literal(|sql| push_float(sql, number));
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
