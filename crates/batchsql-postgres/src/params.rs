//! Owns the values that are bound to a statement: one array per column, or one value per column and row.
//! Must not know what the statement does.
//!
//! Arrays are written directly from the column's slices into the buffer of the message: nothing is transposed, and
//! nothing is allocated per value.

use batchsql_core::{ColumnView, ErrorClass, Rows, SinkError, Step};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments, Encode, Postgres, Type};

use crate::classify::row_error;
use crate::encode::{MAX_VALUE_BYTES, Unfit, write_field, write_value};
use crate::field::Field;
use crate::wire::Wire;

/// One array per column.
pub(crate) fn arrays(rows: Rows<'_>, fields: &[Field]) -> Result<PgArguments, SinkError> {
    let mut arguments = PgArguments::default();
    for (index, field) in fields.iter().enumerate() {
        let array = Array { column: rows.column(index), rows: rows.len(), wire: field.form.wire };
        arguments.add(array).map_err(|error| refused(&error, field))?;
    }
    Ok(arguments)
}

/// The types of [`arrays`].
pub(crate) fn array_types(fields: &[Field]) -> Vec<PgTypeInfo> {
    fields.iter().map(|field| type_info(field.form.wire.array_oid())).collect()
}

/// The numbers of a step, behind the arrays.
pub(crate) fn with_step(mut arguments: PgArguments, step: &Step) -> Result<PgArguments, SinkError> {
    for number in [step.to, step.id, step.epoch, step.from] {
        let added = arguments.add(number);
        added.map_err(|_| SinkError::new(ErrorClass::Internal, "a number of a step cannot be sent"))?;
    }
    Ok(arguments)
}

/// The types of [`with_step`].
pub(crate) fn step_types(fields: &[Field]) -> Vec<PgTypeInfo> {
    let number = <i64 as Type<Postgres>>::type_info();
    array_types(fields).into_iter().chain(std::iter::repeat_n(number, 4)).collect()
}

/// One value per column and row, row by row.
pub(crate) fn values(rows: Rows<'_>, fields: &[Field]) -> Result<PgArguments, SinkError> {
    let columns: Vec<ColumnView<'_>> = (0..fields.len()).map(|index| rows.column(index)).collect();
    let mut arguments = PgArguments::default();
    arguments.reserve(rows.len() * fields.len(), rows.len() * rows.schema().fixed_row_len());
    for row in 0..rows.len() {
        for (column, field) in columns.iter().zip(fields) {
            let value = Scalar { column, row, wire: field.form.wire };
            arguments.add(value).map_err(|error| refused(&error, field))?;
        }
    }
    Ok(arguments)
}

/// The value of one column of the first row.
pub(crate) fn value(rows: Rows<'_>, column: usize, field: &Field) -> Result<PgArguments, SinkError> {
    let mut arguments = PgArguments::default();
    let value = Scalar { column: &rows.column(column), row: 0, wire: field.form.wire };
    arguments.add(value).map_err(|error| refused(&error, field))?;
    Ok(arguments)
}

/// The types of [`values`].
pub(crate) fn value_types(rows: usize, fields: &[Field]) -> Vec<PgTypeInfo> {
    let row = fields.iter().map(|field| type_info(field.form.wire.oid()));
    std::iter::repeat_n(row, rows).flatten().collect()
}

/// The error of a value that cannot be sent.
pub(crate) fn unfit(why: Unfit, column: &str) -> SinkError {
    match why {
        Unfit::OutOfRange => row_error("22003", column),
        Unfit::Nested | Unfit::Malformed => row_error("22P02", column),
        Unfit::TooLong => row_error("22001", column),
        Unfit::Nul => row_error("22P05", column),
        Unfit::NoCalendar => {
            let text = format!(
                "a text for column {column:?} is no date or timestamp with one meaning in every session: expected ISO 8601 \
                 (2026-01-31, 2026-01-31T12:00:00), for timestamptz and only there with Z or an offset in digits \
                 (2026-01-31T12:00:00Z, 2026-01-31 12:00:00+02), or infinity or -infinity"
            );
            SinkError::with_code(ErrorClass::Row, "22007", text)
        }
        Unfit::Rounded => changed("22000", "keeps fewer digits than a value has; round it", column),
        Unfit::PartLeftOut => changed("22000", "would drop the zone or the time of day of a value", column),
        Unfit::SpacesCut => changed("22001", "would cut off trailing spaces of a value; trim it", column),
        Unfit::TooLarge => {
            let text =
                format!("up to column {column:?}, the values are more than the {MAX_VALUE_BYTES} bytes of a statement");
            SinkError::with_code(ErrorClass::Size, "54000", text)
        }
    }
}

/// The error of a value that its column would change.
fn changed(code: &str, what: &str, column: &str) -> SinkError {
    let text = format!("column {column:?} {what}, or let the database convert values (lossy_values=convert)");
    SinkError::with_code(ErrorClass::Row, code, text)
}

fn refused(error: &BoxDynError, field: &Field) -> SinkError {
    // The client itself rejects only arguments above 2 GiB.
    unfit(error.downcast_ref::<Unfit>().copied().unwrap_or(Unfit::TooLarge), &field.name)
}

/// The buffer contains every argument so far. The server ends the connection at a message of 1 GiB.
fn fits_message(buffer: &PgArgumentBuffer) -> Result<(), Unfit> {
    if buffer.len() > MAX_VALUE_BYTES { Err(Unfit::TooLarge) } else { Ok(()) }
}

fn type_info(oid: u32) -> PgTypeInfo {
    PgTypeInfo::with_oid(Oid(oid))
}

/// A column as a binary array.
struct Array<'a> {
    column: ColumnView<'a>,
    rows: usize,
    wire: Wire,
}

impl Encode<'_, Postgres> for Array<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let rows = i32::try_from(self.rows).map_err(|_| Unfit::TooLarge)?;
        // Number of dimensions, NULL flag, element type; then the length and the first index of the one
        // dimension.
        let has_nulls = self.column.validity().is_some();
        for word in [1, i32::from(has_nulls), self.wire.oid() as i32, rows, 1] {
            buffer.extend_from_slice(&word.to_be_bytes());
        }
        for row in 0..self.rows {
            write_field(buffer, self.column.get(row), self.wire)?;
        }
        fits_message(buffer)?;
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(type_info(self.wire.array_oid()))
    }
}

/// One value of a column.
struct Scalar<'c, 'a> {
    column: &'c ColumnView<'a>,
    row: usize,
    wire: Wire,
}

impl Encode<'_, Postgres> for Scalar<'_, '_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let value = self.column.get(self.row);
        if value.is_null() {
            return Ok(IsNull::Yes);
        }
        write_value(buffer, value, self.wire)?;
        fits_message(buffer)?;
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(type_info(self.wire.oid()))
    }
}

/// The client calls this only for values without their own type information; these values have it.
macro_rules! typed_by_value {
    ($($ty:ty),*) => {$(
        impl Type<Postgres> for $ty {
            fn type_info() -> PgTypeInfo {
                type_info(Wire::Text.oid())
            }
        }
    )*};
}
typed_by_value!(Array<'_>, Scalar<'_, '_>);
