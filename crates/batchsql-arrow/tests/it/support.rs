//! Owns what the tests share: batches and tables of one column.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Field, SchemaRef};
use batchsql_arrow::{MappedRows, Mapping, MappingError};
use batchsql_core::{ColumnType, FieldRules, Schema, Value};

/// A batch of named columns.
pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let fields: SchemaRef = Arc::new(arrow_schema::Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    RecordBatch::try_new(fields, columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

/// Maps a batch of the column `v`.
pub(crate) fn map(array: ArrayRef, ty: ColumnType) -> Result<MappedRows, MappingError> {
    let schema = Schema::builder("t").nullable("v", ty).build().unwrap();
    let rows = array.len();
    let batch = batch(vec![("v", array)]);
    Mapping::new(&schema, batch.schema_ref(), FieldRules::default())?.rows(&batch, 0..rows)
}

/// The values of the column, and the numbers and reasons of the rows that are refused.
pub(crate) fn values(array: ArrayRef, ty: ColumnType) -> (Vec<Value>, Vec<(usize, String)>) {
    let mapped = map(array, ty).unwrap();
    let values = mapped.rows.rows().iter().map(|row| row.get(0).to_value()).collect();
    (values, mapped.refused.into_iter().map(|refused| (refused.row, refused.error.to_string())).collect())
}
