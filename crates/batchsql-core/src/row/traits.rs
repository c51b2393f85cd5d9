//! Owns the `Row` trait: what the pipeline needs from a row.
//! Must not know batches, the budget or databases.

use crate::model::schema::Schema;
use crate::row::error::RowError;
use crate::row::writer::RowWriter;

/// A row that can be submitted: usually `#[derive(Row)]` on a struct, or a
/// [`DynRow`](crate::DynRow).
///
/// A hand-written implementation must write exactly one value per column, in the schema's order.
/// The pipeline calls [`write`](Row::write) under the lock of one open batch: it must not block and
/// must not call the pipeline.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Row`",
    note = "add #[derive(Row)] and #[row(table = \"...\")] to the struct"
)]
pub trait Row {
    /// The shape of this row.
    fn schema(&self) -> &Schema;

    /// Bytes of text, bytes, JSON and decimal digits in this row; the byte budget reserves capacity for them before the
    /// row is written. A row that then writes more is refused.
    fn variable_len(&self) -> usize;

    /// A hash of the key columns, made with [`KeyHasher`](crate::KeyHasher): rows of different types that go to one
    /// table keep their order per key only if equal keys give equal hashes. Called only if the order of equal keys
    /// matters.
    fn key_hash(&self) -> u64;

    /// Writes the values in column order.
    ///
    /// # Errors
    /// What the writer reports; the row is then not accepted.
    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError>;
}

/// A row type whose schema is known without a row: what `#[derive(Row)]` implements.
pub trait TypedRow: Row {
    /// The schema of every row of this type.
    fn type_schema() -> &'static Schema;
}

impl<R: Row + ?Sized> Row for &R {
    fn schema(&self) -> &Schema {
        (**self).schema()
    }

    fn variable_len(&self) -> usize {
        (**self).variable_len()
    }

    fn key_hash(&self) -> u64 {
        (**self).key_hash()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        (**self).write(writer)
    }
}
