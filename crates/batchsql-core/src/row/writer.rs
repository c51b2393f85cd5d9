//! Owns the checked writing of values into the column buffers of a batch.
//! Must not know batches, the budget or databases.

use std::fmt;

use crate::model::columns::{ColumnBuffer, TypedBuffer};
use crate::model::decimal::is_decimal;
use crate::model::schema::Schema;
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, Decimal, Json, ValueRef};
use crate::row::error::RowError;

/// Values that a database cannot hold and that are therefore refused at admission. A [`Sink`] states
/// its rules; the default refuses nothing.
///
/// [`Sink`]: crate::Sink
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValueRules {
    /// Refuse text that contains a NUL character (PostgreSQL).
    pub refuse_nul_in_text: bool,
    /// Refuse `NaN` (SQLite turns it into `NULL`).
    pub refuse_nan: bool,
    /// Refuse positive and negative infinity (MySQL).
    pub refuse_infinity: bool,
    /// Refuse `u64` above `i64::MAX` (SQLite, PostgreSQL `bigint`).
    pub refuse_u64_above_i64: bool,
    /// Refuse every row with these columns, because the database cannot store it: for example a row that leaves out all
    /// columns but its key. The text says why and what to do. Rows that leave out columns are checked separately.
    pub refuse_rows: Option<&'static str>,
}

/// Writes one row into the column buffers of a batch, checking every value on the way.
pub struct RowWriter<'a> {
    schema: &'a Schema,
    columns: &'a mut [ColumnBuffer],
    rules: ValueRules,
    next: usize,
    /// Bytes of variable values written so far.
    variable: usize,
}

macro_rules! write_typed {
    ($($(#[$doc:meta])* $vis:vis $method:ident($rust:ty) => $variant:ident $(, $len:ident)?);* $(;)?) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// The next column has another type, or there is no further column.
        #[inline]
        $vis fn $method(&mut self, value: $rust) -> Result<(), RowError> {
            match self.columns.get_mut(self.next) {
                Some(ColumnBuffer { buffer: TypedBuffer::$variant(values), validity }) => {
                    $(self.variable += value.$len();)?
                    values.push(value);
                    if let Some(validity) = validity {
                        validity.push(true);
                    }
                    self.next += 1;
                    Ok(())
                }
                _ => Err(self.mismatch(ColumnType::$variant)),
            }
        }
    )*};
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(schema: &'a Schema, columns: &'a mut [ColumnBuffer], rules: ValueRules) -> Self {
        Self { schema, columns, rules, next: 0, variable: 0 }
    }

    /// The values that are refused.
    pub(crate) fn rules(&self) -> ValueRules {
        self.rules
    }

    /// Whether every column got its value, and no more variable bytes than were reserved.
    pub(crate) fn finish(self, reserved: usize) -> Result<(), RowError> {
        if let Some(why) = self.rules.refuse_rows {
            return Err(RowError::refused_row(self.schema, why));
        }
        match self.schema.columns().get(self.next) {
            None if self.variable > reserved => Err(RowError::understated(self.schema, reserved, self.variable)),
            None => Ok(()),
            Some(column) => Err(RowError::missing(self.schema, column.name())),
        }
    }

    write_typed! {
        /// Writes a `bool`.
        pub bool(bool) => Bool;
        /// Writes an `i16`.
        pub i16(i16) => I16;
        /// Writes an `i32`.
        pub i32(i32) => I32;
        /// Writes an `i64`.
        pub i64(i64) => I64;
        /// Writes the 16 bytes of a UUID.
        pub uuid([u8; 16]) => Uuid;
        /// Writes a date.
        pub date(Date) => Date;
        /// Writes a time of day.
        pub time(Time) => Time;
        /// Writes a timestamp without a zone.
        pub timestamp(Timestamp) => Timestamp;
        /// Writes an instant.
        pub timestamptz(TimestampTz) => TimestampTz;
        /// Writes the digits of a decimal that was checked before.
        pub(crate) raw_decimal(&str) => Decimal, len;
        /// Writes the text of a JSON document that was checked before.
        pub(crate) raw_json(&str) => Json, len;
        /// Writes bytes.
        pub bytes(&[u8]) => Bytes, len;
        /// Writes text without checking the rules.
        pub(crate) raw_text(&str) => Text, len;
        /// Writes a `u64` without checking the rules.
        pub(crate) raw_u64(u64) => U64;
        /// Writes an `f32` without checking the rules.
        pub(crate) raw_f32(f32) => F32;
        /// Writes an `f64` without checking the rules.
        pub(crate) raw_f64(f64) => F64;
    }

    /// Writes text.
    ///
    /// # Errors
    /// The next column is not text, or the database refuses the NUL character in it.
    #[inline]
    pub fn text(&mut self, value: &str) -> Result<(), RowError> {
        if self.rules.refuse_nul_in_text && value.as_bytes().contains(&0) {
            return Err(self.refused("text with a NUL character, which this database cannot hold; remove it"));
        }
        self.raw_text(value)
    }

    /// Writes a `u64`.
    ///
    /// # Errors
    /// The next column is not a `u64`, or the number is above `i64::MAX` and the database cannot
    /// hold it.
    #[inline]
    pub fn u64(&mut self, value: u64) -> Result<(), RowError> {
        if self.rules.refuse_u64_above_i64 && i64::try_from(value).is_err() {
            return Err(self.out_of_range("above i64::MAX, the largest integer of this database"));
        }
        self.raw_u64(value)
    }

    /// Writes an `f32`.
    ///
    /// # Errors
    /// The next column is not an `f32`, or the database cannot hold `NaN` or infinity.
    #[inline]
    pub fn f32(&mut self, value: f32) -> Result<(), RowError> {
        self.check_float(value.is_nan(), value.is_infinite())?;
        self.raw_f32(value)
    }

    /// Writes an `f64`.
    ///
    /// # Errors
    /// The next column is not an `f64`, or the database cannot hold `NaN` or infinity.
    #[inline]
    pub fn f64(&mut self, value: f64) -> Result<(), RowError> {
        self.check_float(value.is_nan(), value.is_infinite())?;
        self.raw_f64(value)
    }

    /// Writes a decimal.
    ///
    /// # Errors
    /// The next column is not a decimal.
    pub fn decimal(&mut self, value: &Decimal) -> Result<(), RowError> {
        self.raw_decimal(value.as_str())
    }

    /// Writes a JSON document.
    ///
    /// # Errors
    /// The next column is not JSON.
    pub fn json(&mut self, value: &Json) -> Result<(), RowError> {
        self.raw_json(value.as_str())
    }

    /// Writes `NULL`.
    ///
    /// # Errors
    /// The next column is not nullable.
    #[inline]
    pub fn null(&mut self) -> Result<(), RowError> {
        match self.columns.get_mut(self.next) {
            Some(column) if column.validity.is_some() => {
                column.push_null();
                self.next += 1;
                Ok(())
            }
            Some(_) => Err(RowError::null(self.schema, self.column_name())),
            None => Err(RowError::too_many_values(self.schema)),
        }
    }

    /// Writes a value of any type; it must be of the column's own type.
    ///
    /// # Errors
    /// As the typed methods; also a text that is not that of a [`Decimal`] in a decimal column. The text of a JSON document is not
    /// checked.
    pub fn value(&mut self, value: ValueRef<'_>) -> Result<(), RowError> {
        match value {
            ValueRef::Null => self.null(),
            ValueRef::Bool(v) => self.bool(v),
            ValueRef::I16(v) => self.i16(v),
            ValueRef::I32(v) => self.i32(v),
            ValueRef::I64(v) => self.i64(v),
            ValueRef::U64(v) => self.u64(v),
            ValueRef::F32(v) => self.f32(v),
            ValueRef::F64(v) => self.f64(v),
            ValueRef::Decimal(v) if !is_decimal(v) => {
                Err(self.refused("a text that is not a decimal number: expected [-]digits[.digits]"))
            }
            ValueRef::Decimal(v) => self.raw_decimal(v),
            ValueRef::Text(v) => self.text(v),
            ValueRef::Bytes(v) => self.bytes(v),
            ValueRef::Uuid(v) => self.uuid(v),
            ValueRef::Json(v) => self.raw_json(v),
            ValueRef::Date(v) => self.date(v),
            ValueRef::Time(v) => self.time(v),
            ValueRef::Timestamp(v) => self.timestamp(v),
            ValueRef::TimestampTz(v) => self.timestamptz(v),
        }
    }

    #[inline]
    fn check_float(&self, nan: bool, infinite: bool) -> Result<(), RowError> {
        if nan && self.rules.refuse_nan {
            return Err(self.refused("NaN, which this database cannot hold; send NULL instead"));
        }
        if infinite && self.rules.refuse_infinity {
            return Err(self.refused("an infinite number, which this database cannot hold"));
        }
        Ok(())
    }

    fn column_name(&self) -> &'a str {
        self.schema.columns().get(self.next).map_or("", |column| column.name())
    }

    #[cold]
    fn mismatch(&self, got: ColumnType) -> RowError {
        match self.schema.columns().get(self.next) {
            Some(column) => RowError::type_mismatch(self.schema, column, got.name()),
            None => RowError::too_many_values(self.schema),
        }
    }

    #[cold]
    pub(crate) fn refused(&self, what: &str) -> RowError {
        RowError::refused_value(self.schema, self.column_name(), what)
    }

    #[cold]
    pub(crate) fn not_serializable(&self) -> RowError {
        RowError::not_serializable(self.schema, self.column_name())
    }

    #[cold]
    pub(crate) fn out_of_range(&self, what: &str) -> RowError {
        RowError::out_of_range(self.schema, self.column_name(), what)
    }
}

/// Shows the table and how far the row is, never a value.
impl fmt::Debug for RowWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, columns) = (self.schema.table(), self.next);
        f.debug_struct("RowWriter").field("table", table).field("columns_written", &columns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_the_database_cannot_store_is_refused_with_the_reason() {
        let schema = Schema::builder("t").column("k", ColumnType::I64).build().unwrap();
        let rules = ValueRules { refuse_rows: Some("has no field; give one"), ..ValueRules::default() };
        let mut writer = RowWriter::new(&schema, &mut [], rules);
        writer.next = 1;
        let error = writer.finish(0).unwrap_err();
        assert_eq!(error.to_string(), "row of table \"t\": has no field; give one");
        assert!(error.is_null() && error.column().is_none());
    }
}
