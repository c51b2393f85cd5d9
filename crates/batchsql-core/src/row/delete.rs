//! Owns the delete of the row with the key of a typed row.
//! Must not know batches, the budget or databases.

use crate::model::column::Column;
use crate::model::columns::ColumnBuffer;
use crate::model::schema::Schema;
use crate::model::schema_error::SchemaError;
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;

/// Deletes the row that has the key of another row: submitted like a row, and in order with the rows of its key.
/// [`Schema::deletion`] is the same for rows that are built at run time.
///
/// A row with this key that was accepted before is written before the delete, one that is accepted later after it. A key
/// that is not in the table ends as `Ignored`.
///
/// ```
/// use batchsql_core::{Action, ColumnType, Conflict, Delete, Row, Schema};
/// let orders = Schema::builder("orders")
///     .column("id", ColumnType::I64)
///     .column("total", ColumnType::I64)
///     .on_conflict(Conflict::update(["id"]))
///     .build()?;
/// let order = orders.row().set("id", 7_i64)?.set("total", 100_i64)?.finish()?;
/// let gone = Delete::of(&order)?;
/// assert_eq!(gone.schema().action(), Action::Delete);
/// // db.submit(&gone).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Delete<'a, R: ?Sized> {
    row: &'a R,
    schema: Schema,
}

impl<'a, R: Row + ?Sized> Delete<'a, R> {
    /// The delete of the row with the key of `row`; its other values do not matter.
    ///
    /// # Errors
    /// Its schema has no key.
    pub fn of(row: &'a R) -> Result<Self, SchemaError> {
        Ok(Self { schema: row.schema().deletion()?, row })
    }
}

impl<R: Row + ?Sized> Row for Delete<'_, R> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn variable_len(&self) -> usize {
        self.row.variable_len()
    }

    fn key_hash(&self) -> u64 {
        self.row.key_hash()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        let schema = self.row.schema();
        let new = |column: &Column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 1, 0);
        let mut columns: Vec<ColumnBuffer> = schema.columns().iter().map(new).collect();
        let mut whole = RowWriter::new(schema, &mut columns, writer.rules());
        self.row.write(&mut whole)?;
        whole.finish(self.row.variable_len())?;
        let is_key = |(index, _): &(usize, &ColumnBuffer)| schema.key_columns().contains(index);
        let mut keys = columns.iter().enumerate().filter(is_key);
        keys.try_for_each(|(_, column)| writer.value(column.view(0..1).get(0)))
    }
}
