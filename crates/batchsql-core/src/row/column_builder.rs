//! Owns rows of one schema that are built column by column.
//! Must not know rows as a program writes them, or rules of databases.

use std::fmt;
use std::sync::Arc;

use crate::model::batch::{Batch, SharedRows};
use crate::model::column::Column;
use crate::model::columns::ColumnBuffer;
use crate::model::decimal::is_decimal;
use crate::model::schema::Schema;
use crate::model::value::ValueRef;
use crate::model::views::{ColumnValues, ColumnView};
use crate::row::error::RowError;

/// Rows of one schema that are built column by column, for what reads stored columns. Values are checked against their
/// columns; rules of a database ([`ValueRules`](crate::ValueRules)) are checked when the rows are submitted.
///
/// ```
/// use batchsql_core::{ColumnBuilder, ColumnType, Schema, ValueRef};
/// let notes = Schema::builder("notes").column("id", ColumnType::I64).nullable("text", ColumnType::Text).build()?;
/// let mut rows = ColumnBuilder::new(&notes, 2);
/// rows.push(0, ValueRef::I64(1))?;
/// rows.push(0, ValueRef::I64(2))?;
/// rows.push(1, ValueRef::Null)?;
/// rows.push(1, ValueRef::Text("two"))?;
/// let rows = rows.finish()?;
/// assert_eq!(rows.rows().column(1).get(1), ValueRef::Text("two"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ColumnBuilder {
    schema: Schema,
    columns: Vec<ColumnBuffer>,
    /// Values that each column has.
    lengths: Vec<usize>,
    rows: usize,
}

impl ColumnBuilder {
    /// No values yet, for `rows` rows.
    pub fn new(schema: &Schema, rows: usize) -> Self {
        let new = |column: &Column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 0, 0);
        let columns: Vec<ColumnBuffer> = schema.columns().iter().map(new).collect();
        Self { schema: schema.clone(), lengths: vec![0; columns.len()], columns, rows }
    }

    /// Reserves memory for `rows` more values of a column with `bytes` variable bytes in all.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn reserve(&mut self, column: usize, rows: usize, bytes: usize) {
        self.columns[column].reserve(rows, bytes);
    }

    /// Appends a value to a column.
    ///
    /// # Errors
    /// The column has another type, `NULL` is not allowed in it, or the text of a decimal is none.
    ///
    /// # Panics
    /// When there is no such column, or the variable values of one column take more than 4 GiB.
    #[inline]
    pub fn push(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), RowError> {
        let buffer = &mut self.columns[column];
        let declared = &self.schema.columns()[column];
        match value.column_type() {
            None if buffer.validity.is_none() => return Err(RowError::null(&self.schema, declared.name())),
            Some(ty) if ty != declared.column_type() => {
                return Err(RowError::type_mismatch(&self.schema, declared, ty.name()));
            }
            _ => {}
        }
        // Drivers encode its digits without a look at them.
        if let ValueRef::Decimal(text) = value
            && !is_decimal(text)
        {
            return Err(RowError::unreadable(&self.schema, declared.name(), &"no decimal"));
        }
        buffer.push(value);
        self.lengths[column] += 1;
        Ok(())
    }

    /// Appends many values to a column, in one copy. `present` is true where a value is; without it, all are.
    ///
    /// # Errors
    /// The column has another type, or a value is `NULL` and the column allows none. Nothing is appended.
    ///
    /// # Panics
    /// When there is no such column, or `present` has another length than `values`.
    pub fn extend(
        &mut self,
        column: usize,
        values: ColumnValues<'_>,
        present: Option<&[bool]>,
    ) -> Result<(), RowError> {
        let buffer = &mut self.columns[column];
        let declared = &self.schema.columns()[column];
        if values.column_type() != declared.column_type() {
            return Err(RowError::type_mismatch(&self.schema, declared, values.column_type().name()));
        }
        assert!(present.is_none_or(|present| present.len() == values.len()), "one mark for each value");
        if buffer.validity.is_none() && present.is_some_and(|present| present.contains(&false)) {
            return Err(RowError::null(&self.schema, declared.name()));
        }
        buffer.extend(ColumnView::new(values, present));
        self.lengths[column] += values.len();
        Ok(())
    }

    /// The rows, to be read.
    ///
    /// # Errors
    /// A column has fewer or more values than there are rows.
    pub fn finish(self) -> Result<SharedRows, RowError> {
        if let Some(column) = self.lengths.iter().position(|length| *length != self.rows) {
            return Err(RowError::missing(&self.schema, self.schema.columns()[column].name()));
        }
        let variable: usize = self.columns.iter().map(ColumnBuffer::variable_len).sum();
        let bytes = self.rows * self.schema.fixed_row_len() + variable;
        Ok(SharedRows::all(Arc::new(Batch::new(self.schema, self.columns, self.rows, bytes))))
    }
}

/// Shows table and size, never a value.
impl fmt::Debug for ColumnBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnBuilder")
            .field("table", self.schema.table())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::ColumnType;

    #[test]
    fn many_values_are_appended_at_once() {
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        let schema = schema.build().unwrap();
        let mut other = ColumnBuilder::new(&schema, 1);
        assert!(other.extend(0, ColumnValues::I32(&[1]), None).unwrap_err().is_type_mismatch());
        let mut first = ColumnBuilder::new(&schema, 3);
        first.extend(0, ColumnValues::I64(&[1, 2, 3]), None).unwrap();
        for note in [ValueRef::Text("one"), ValueRef::Null, ValueRef::Text("three")] {
            first.push(1, note).unwrap();
        }
        let first = first.finish().unwrap();
        let mut rows = ColumnBuilder::new(&schema, 3);
        let refused = rows.extend(0, ColumnValues::I64(&[7, 8]), Some(&[true, false])).unwrap_err();
        assert!(refused.is_null() && refused.column() == Some("id"), "{refused}");
        rows.extend(0, ColumnValues::I64(&[7, 8]), Some(&[true, true])).unwrap();
        rows.extend(0, ColumnValues::I64(&[9]), None).unwrap();
        rows.push(1, ValueRef::Text("zero")).unwrap();
        let tail = first.rows().slice(1..3).column(1);
        rows.extend(1, tail.values(), tail.validity()).unwrap();
        let rows = rows.finish().unwrap();
        let values: Vec<Vec<ValueRef<'_>>> = rows.rows().iter().map(|row| row.values().collect()).collect();
        let expected = |id, note| vec![ValueRef::I64(id), note];
        let text = ValueRef::Text;
        assert_eq!(values, [expected(7, text("zero")), expected(8, ValueRef::Null), expected(9, text("three"))]);
        assert_eq!(rows.rows().bytes(), 3 * schema.fixed_row_len() + 9);
    }

    #[test]
    fn values_that_do_not_fit_their_column_are_refused() {
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        let schema = schema.build().unwrap();
        let mut rows = ColumnBuilder::new(&schema, 1);
        assert!(rows.push(0, ValueRef::Null).is_err());
        assert!(rows.push(0, ValueRef::I32(1)).unwrap_err().is_type_mismatch());
        rows.push(0, ValueRef::I64(1)).unwrap();
        assert!(ColumnBuilder::new(&schema, 1).finish().is_err(), "a column is missing");
        rows.push(1, ValueRef::Text("one")).unwrap();
        let rows = rows.finish().unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().set("note", "one").unwrap().finish().unwrap();
        assert_eq!(rows.rows().to_row(0), row);
        assert_eq!(rows.rows().bytes(), schema.fixed_row_len() + 3);
    }

    #[test]
    fn a_text_that_is_no_decimal_is_refused() {
        let schema = Schema::builder("t").column("price", ColumnType::Decimal).build().unwrap();
        let mut rows = ColumnBuilder::new(&schema, 1);
        for text in ["1e5", "", "+1", "1.", "NaN"] {
            let refused = rows.push(0, ValueRef::Decimal(text)).unwrap_err();
            assert!(refused.is_type_mismatch() && refused.column() == Some("price"), "{text:?}: {refused}");
        }
        rows.push(0, ValueRef::Decimal("-1.50")).unwrap();
        assert_eq!(rows.finish().unwrap().rows().column(0).get(0), ValueRef::Decimal("-1.50"));
    }
}
