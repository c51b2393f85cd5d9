//! Owns rows of one schema that are encoded outside of a pipeline, with the checks of admission.
//! Must not know budgets, or who keeps the rows.

use std::fmt;
use std::sync::Arc;

use crate::model::batch::{Batch, SharedRows};
use crate::model::column::Column;
use crate::model::columns::ColumnBuffer;
use crate::model::schema::Schema;
use crate::model::value::ValueRef;
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::row::writer::{RowWriter, ValueRules};

/// Rows of one schema as columns, encoded and checked as a submit does, without a pipeline: for what stores or sends rows.
/// [`BatchSql::row_buffer`](crate::BatchSql::row_buffer) makes one with the rules of its database.
///
/// ```
/// use batchsql_core::{ColumnType, RowBuffer, Schema, ValueRef, ValueRules};
/// let notes = Schema::builder("notes").column("id", ColumnType::I64).nullable("text", ColumnType::Text).build()?;
/// let mut rows = RowBuffer::new(&notes, ValueRules::default());
/// rows.push(&notes.row().set("id", 1_i64)?.set("text", "hello")?.finish()?)?;
/// assert_eq!((rows.len(), rows.get(0, 1)), (1, ValueRef::Text("hello")));
/// let rows = rows.into_rows();
/// assert_eq!(rows.rows().column(0).get(0), ValueRef::I64(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RowBuffer {
    schema: Schema,
    columns: Vec<ColumnBuffer>,
    rules: ValueRules,
    max_row_bytes: usize,
    len: usize,
    bytes: usize,
}

/// Removes a partly written row unless it was completed, also when the row's code panics.
struct Rollback<'a> {
    rows: &'a mut RowBuffer,
    is_complete: bool,
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            let len = self.rows.len;
            self.rows.columns.iter_mut().for_each(|column| column.truncate(len));
        }
    }
}

impl RowBuffer {
    /// No rows of `schema` yet. Rows with values that `rules` refuse are refused.
    pub fn new(schema: &Schema, rules: ValueRules) -> Self {
        let new = |column: &Column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 1, 0);
        let columns = schema.columns().iter().map(new).collect();
        Self { schema: schema.clone(), columns, rules, max_row_bytes: u32::MAX as usize, len: 0, bytes: 0 }
    }

    /// Rows with more bytes are refused.
    pub(crate) fn with_max_row_bytes(mut self, bytes: usize) -> Self {
        self.max_row_bytes = bytes;
        self
    }

    /// An empty buffer for rows of the same schema, with the same rules.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(&self.schema, self.rules).with_max_row_bytes(self.max_row_bytes)
    }

    /// Adds a row. A row that is refused, or whose code panics, adds nothing.
    ///
    /// # Errors
    /// What a submit would return as [`row_error`](crate::SubmitError::row_error), or the row has another schema.
    ///
    /// # Panics
    /// When the variable values of one column take more than 4 GiB.
    pub fn push<R: Row + ?Sized>(&mut self, row: &R) -> Result<(), RowError> {
        if row.schema() != &self.schema {
            return Err(RowError::other_schema(&self.schema, row.schema()));
        }
        let variable = row.variable_len();
        let bytes = self.schema.fixed_row_len() + variable;
        if bytes > self.max_row_bytes {
            return Err(RowError::too_large(&self.schema, bytes, self.max_row_bytes));
        }
        let mut rollback = Rollback { rows: self, is_complete: false };
        let RowBuffer { schema, columns, rules, .. } = &mut *rollback.rows;
        let mut writer = RowWriter::new(schema, columns, *rules);
        row.write(&mut writer)?;
        writer.finish(variable)?;
        rollback.is_complete = true;
        drop(rollback);
        self.len += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Adds the rows of another buffer of the same schema.
    ///
    /// # Panics
    /// When it is of another schema, or the variable values of one column take more than 4 GiB.
    pub fn append(&mut self, other: &Self) {
        assert!(self.schema == other.schema, "rows of another schema");
        self.columns.iter_mut().zip(&other.columns).for_each(|(column, other)| column.append(other));
        self.len += other.len;
        self.bytes += other.bytes;
    }

    /// The table and columns of the rows.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the rows would take in the byte budget of a pipeline.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A value.
    ///
    /// # Panics
    /// When there is no such row or column.
    pub fn get(&self, row: usize, column: usize) -> ValueRef<'_> {
        self.columns[column].view(row..row + 1).get(0)
    }

    /// The rows, to be read.
    pub fn into_rows(self) -> SharedRows {
        SharedRows::all(Arc::new(Batch::new(self.schema, self.columns, self.len, self.bytes)))
    }
}

/// Shows table and size, never a value.
impl fmt::Debug for RowBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowBuffer")
            .field("table", self.schema.table())
            .field("len", &self.len)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::model::value::ColumnType;

    fn schema() -> Schema {
        Schema::builder("t").column("id", ColumnType::I64).column("note", ColumnType::Text).build().unwrap()
    }

    /// Writes its first value, and then fails in one way or another.
    struct Bad<'a>(&'a Schema, bool);

    impl Row for Bad<'_> {
        fn schema(&self) -> &Schema {
            self.0
        }

        fn variable_len(&self) -> usize {
            0
        }

        fn key_hash(&self) -> u64 {
            0
        }

        fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
            writer.i64(7)?;
            assert!(!self.1, "a panic of the row");
            writer.i64(8)
        }
    }

    #[test]
    fn a_row_that_fails_leaves_nothing() {
        let schema = schema();
        let row =
            |id: i64, note: &str| schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap();
        let mut rows = RowBuffer::new(&schema, ValueRules::default()).with_max_row_bytes(40);
        rows.push(&row(1, "one")).unwrap();
        assert!(rows.push(&Bad(&schema, false)).unwrap_err().is_type_mismatch());
        assert!(catch_unwind(AssertUnwindSafe(|| rows.push(&Bad(&schema, true)))).is_err());
        assert!(rows.push(&row(2, &"x".repeat(40))).unwrap_err().is_too_large());
        let other = Schema::builder("other").column("id", ColumnType::I64).build().unwrap();
        assert!(rows.push(&other.row().set("id", 1_i64).unwrap().finish().unwrap()).is_err());
        let mut more = RowBuffer::new(&schema, ValueRules::default());
        more.push(&row(3, "three")).unwrap();
        rows.append(&more);
        assert_eq!((rows.len(), rows.bytes()), (2, 2 * schema.fixed_row_len() + 8));
        let rows = rows.into_rows();
        let values: Vec<Vec<ValueRef<'_>>> = rows.rows().iter().map(|row| row.values().collect()).collect();
        let expected = |id, note| vec![ValueRef::I64(id), ValueRef::Text(note)];
        assert_eq!(values, [expected(1, "one"), expected(3, "three")]);
    }
}
