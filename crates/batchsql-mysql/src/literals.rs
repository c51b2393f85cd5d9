//! Owns a statement with the values of its rows in its text, for one round trip with any number of rows.
//! Must not know connections or transactions.

use batchsql_core::exhaustive::Values;
use batchsql_core::{ColumnView, Rows};

use crate::bind::{push_calendar, push_uuid, views};
use crate::plan::MySqlPlan;
use crate::quoted::{push_bytes, push_quoted, push_text};
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
        Values::I16(v) => push_integer(sql, v[row]),
        Values::I32(v) => push_integer(sql, v[row]),
        Values::I64(v) => push_integer(sql, v[row]),
        Values::U64(v) => push_integer(sql, v[row]),
        // With an exponent, or it would be a decimal number. The shortest digits that identify the float.
        Values::F32(v) => push_float(sql, v[row].into()),
        Values::F64(v) => push_float(sql, v[row]),
        Values::Text(v) if form == Form::Bits => push_integer(sql, bits(v.get(row))),
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

fn push_integer(sql: &mut Vec<u8>, number: impl itoa::Integer) {
    sql.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_float(sql: &mut Vec<u8>, number: f64) {
    sql.extend_from_slice(format!("{number:e}").as_bytes());
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
    fn numbers_are_the_numbers() {
        assert_eq!(literal(|sql| push_integer(sql, i64::MIN)), "-9223372036854775808");
        assert_eq!(literal(|sql| push_integer(sql, 0_i64)), "0");
        assert_eq!(literal(|sql| push_integer(sql, u64::MAX)), "18446744073709551615");
        assert_eq!(literal(|sql| push_float(sql, 1.0)), "1e0");
        for number in [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0 / 3.0, f64::from(0.1_f32)] {
            let text = literal(|sql| push_float(sql, number));
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
