//! Owns the binding of column values to the placeholders of one statement.
//! Must not know transactions or outcomes.

use std::fmt::{Display, Write};

use batchsql_core::exhaustive::Values;
use batchsql_core::{ColumnView, Rows};
use rusqlite::Statement;
use rusqlite::types::Null;

use crate::types::Form;

/// Binds every value of `rows` to a statement of as many rows.
pub(crate) fn bind_rows(statement: &mut Statement<'_>, rows: Rows<'_>, forms: &[Form]) -> rusqlite::Result<()> {
    let mut text = String::new();
    for (index, form) in forms.iter().enumerate() {
        let column = rows.column(index);
        for row in 0..rows.len() {
            let parameter = row * forms.len() + index + 1;
            if column.is_null(row) {
                statement.raw_bind_parameter(parameter, Null)?;
            } else {
                bind_value(statement, parameter, &column, row, *form, &mut text)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn bind_value(
    statement: &mut Statement<'_>,
    parameter: usize,
    column: &ColumnView<'_>,
    row: usize,
    form: Form,
    text: &mut String,
) -> rusqlite::Result<()> {
    match column.values().exhaustive() {
        Values::Bool(v) => statement.raw_bind_parameter(parameter, v[row]),
        Values::I16(v) => statement.raw_bind_parameter(parameter, v[row]),
        Values::I32(v) => statement.raw_bind_parameter(parameter, v[row]),
        Values::I64(v) => statement.raw_bind_parameter(parameter, v[row]),
        // A value above i64::MAX is rejected at admission; rusqlite would reject it too.
        Values::U64(v) => statement.raw_bind_parameter(parameter, v[row]),
        Values::F32(v) => statement.raw_bind_parameter(parameter, f64::from(v[row])),
        Values::F64(v) => statement.raw_bind_parameter(parameter, v[row]),
        Values::Text(v) | Values::Decimal(v) | Values::Json(v) => statement.raw_bind_parameter(parameter, v.get(row)),
        Values::Bytes(v) => statement.raw_bind_parameter(parameter, v.get(row)),
        Values::Uuid(v) if form == Form::UuidText => {
            statement.raw_bind_parameter(parameter, formatted(text, &Hyphenated(&v[row])))
        }
        Values::Uuid(v) => statement.raw_bind_parameter(parameter, &v[row][..]),
        Values::Date(v) => statement.raw_bind_parameter(parameter, formatted(text, &v[row])),
        Values::Time(v) => statement.raw_bind_parameter(parameter, formatted(text, &v[row])),
        Values::Timestamp(v) => statement.raw_bind_parameter(parameter, formatted(text, &v[row])),
        Values::TimestampTz(v) => statement.raw_bind_parameter(parameter, formatted(text, &v[row])),
    }
}

/// Formats into a buffer that is reused for the next value.
fn formatted<'a>(buffer: &'a mut String, value: &dyn Display) -> &'a str {
    buffer.clear();
    write!(buffer, "{value}").expect("writing to a String cannot fail");
    buffer
}

/// A UUID in hyphenated text form.
struct Hyphenated<'a>(&'a [u8; 16]);

impl Display for Hyphenated<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
