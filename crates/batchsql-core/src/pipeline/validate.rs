//! Owns the checks of a row without a place for it: the values are written into columns that nobody writes to a database.
//! Must not know budgets or batches.

use crate::model::columns::ColumnBuffer;
use crate::model::schema::Schema;
use crate::pipeline::handle::BatchSql;
use crate::row::error::RowError;
use crate::row::row_buffer::RowBuffer;
use crate::row::traits::Row;
use crate::row::writer::{RowWriter, ValueRules};

/// Empty columns for rows of a schema.
pub(crate) fn empty_columns(schema: &Schema) -> Vec<ColumnBuffer> {
    let columns = schema.columns().iter();
    columns.map(|column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 1, 0)).collect()
}

/// Writes a row of `bytes` after the rows that the columns have, with every check of admission.
pub(crate) fn write_checked<R: Row + ?Sized>(
    row: &R,
    bytes: usize,
    columns: &mut [ColumnBuffer],
    rules: ValueRules,
) -> Result<(), RowError> {
    let schema = row.schema();
    let mut writer = RowWriter::new(schema, columns, rules);
    row.write(&mut writer)?;
    writer.finish(bytes - schema.fixed_row_len())
}

impl BatchSql {
    /// Checks a row as a submit does, without accepting it: types, `NULL`, values that the database cannot hold, sizes.
    /// It does not ask the database, which may still refuse the row.
    ///
    /// # Errors
    /// What a submit would return as [`row_error`](crate::SubmitError::row_error).
    pub fn validate<R: Row + ?Sized>(&self, row: &R) -> Result<(), RowError> {
        let schema = row.schema();
        let bytes = self.row_bytes(row)?;
        let limits = match self.0.groups.get(schema) {
            Some(known) => known.group.limits,
            None => self.limits(schema)?,
        };
        write_checked(row, bytes, &mut empty_columns(schema), limits.values)
    }

    /// Values that the database cannot hold in rows of `schema`: a submit refuses them.
    ///
    /// # Errors
    /// The schema has more columns than the database can take.
    pub fn value_rules(&self, schema: &Schema) -> Result<ValueRules, RowError> {
        Ok(self.limits(schema)?.values)
    }

    /// An empty buffer for rows of `schema` that are encoded and checked as a submit does, without accepting them: for what
    /// stores or sends rows before they are submitted.
    ///
    /// # Errors
    /// The schema has more columns than the database can take.
    pub fn row_buffer(&self, schema: &Schema) -> Result<RowBuffer, RowError> {
        let limits = self.limits(schema)?;
        Ok(RowBuffer::new(schema, limits.values).with_max_row_bytes(self.0.config.buffer_bytes))
    }
}
